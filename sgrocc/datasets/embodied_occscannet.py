"""EmbodiedOcc-ScanNet, the embodied task: the frames of a scene, and the labels of the whole scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from sgrocc.datasets import occscannet
from sgrocc.datasets.layout import VOXEL_M, Layout, read_split
from sgrocc.datasets.occscannet import LocalFrame, local_labels, numbers, usable_entries, voxel_labels
from sgrocc.datasets.pickles import BadFile, read_pickle
from sgrocc.geometry import VoxelGrid

#: How far a frame's grid may be from the scene's voxels (in voxels): float32 and the rounding of corners, no more.
_MAX_MISALIGNMENT_VOXELS = 0.05


@dataclass(frozen=True, eq=False)
class EmbodiedFrame(LocalFrame):
    """A frame of a scene; its grid lies on the voxels of the scene's. last_labels: (X, Y, Z) uint8, of the scene."""

    last_labels: np.ndarray = field(repr=False)

    @property
    def labels(self) -> np.ndarray:
        """(60, 60, 36) uint8 [x, y, z], cut from the scene's labels at this frame."""
        return local_labels(read_pickle(self.label_path), "local_label", self.label_path)

    @property
    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool, the voxels of the scene in this frame's view, hidden ones included."""
        return _mask(read_pickle(self.label_path), "mask_in_global", self.label_path, self.last_labels.shape)

    def global_labels(self) -> np.ndarray:
        """(X, Y, Z) uint8, the scene's labels at this frame: the last ones where nothing in the scene moves."""
        content, path = read_pickle(self.label_path), self.label_path
        labels = self.last_labels.copy()
        if "changed_voxels" in content:
            where, values = (occscannet.field(content, name, path) for name in ("changed_voxels", "changed_labels"))
            if not (
                all(isinstance(array, np.ndarray) and array.ndim == 1 for array in (where, values))
                and where.shape == values.shape
                and where.dtype.kind in "iu"
                and (not len(where) or (where.min() >= 0 and where.max() < labels.size))
            ):
                raise BadFile(path, "malformed", "changed_voxels are no voxels of the scene: generate the set again")
            values = voxel_labels({"changed_labels": values[:, None, None]}, "changed_labels", path)
            labels.reshape(-1)[where] = values[:, 0, 0]
        return labels

    def verify(self) -> None:
        """As LocalFrame.verify, and the files of the embodied task."""
        super().verify()
        self.mask  # noqa: B018
        self.global_labels()


@dataclass(frozen=True, eq=False)
class EmbodiedScene:
    """A scene: name; grid; labels: (X, Y, Z) uint8 at its last frame; frames in the order in which they were taken."""

    name: str
    grid: VoxelGrid
    labels: np.ndarray = field(repr=False)
    frames: list[EmbodiedFrame] = field(repr=False)


class EmbodiedOccScanNet(Sequence[EmbodiedScene]):
    """The scenes of a split, in the order of its list.

    Arguments as for OccScanNet; names: only the scenes that are named there. With on_error='skip' a scene is left out
    where its labels cannot be read or none of its frames can, else only the frames that cannot.
    """

    def __init__(
        self,
        root: str | Path | Layout,
        split: str,
        mini: bool = False,
        on_error: str = "raise",
        scene_disjoint: bool = False,
        names: list[str] | None = None,
    ) -> None:
        self.layout, self.split = Layout(root), split
        entries, problems = read_split(self.layout, split, "embodied", mini, scene_disjoint)
        entries = [entry for entry in entries if names is None or entry[1] in names]
        self._bad_frames: dict[str, set[str]] = {}
        of_frames: list[BadFile] = []
        entries, problems = usable_entries(entries, problems, on_error, lambda entry: self._verify(entry, of_frames))
        self._entries = entries
        self.skipped = [str(problem) for problem in (*problems, *of_frames)]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._read(entry) for entry in self._entries[index]]
        return self._read(self._entries[index])

    def _read(self, entry: tuple[str, str, str]) -> EmbodiedScene:
        split, name, _ = entry
        return read_scene(self.layout, split, name, without=self._bad_frames.get(name, frozenset()))

    def _verify(self, entry: tuple[str, str, str], of_frames: list[BadFile]) -> None:
        split, name, _ = entry
        bad: dict[str, BadFile] = {}
        try:
            scene = read_scene(self.layout, split, name, bad=bad)
            for frame in scene.frames:
                try:
                    frame.verify()
                except BadFile as problem:
                    bad[_stem_of(frame)] = problem
        finally:
            of_frames += bad.values()
        self._bad_frames[name] = set(bad)
        if len(bad) and not set(map(_stem_of, scene.frames)) - set(bad):
            raise BadFile(self.layout.global_package(name), "malformed", "none of the frames of the scene can be read")


def find_scene(data: str | Path, name: str, split: str | None = None) -> EmbodiedScene:
    """The scene `name` of a data set, in `split` or in whichever has it; ValueError where none does."""
    if not Path(data).is_dir():
        raise ValueError(f"{data} is no folder: check the path")
    splits = [split] if split else Layout(data).splits("embodied")
    held = []
    for candidate in splits:
        scenes = EmbodiedOccScanNet(data, candidate, names=[name])
        if len(scenes):
            return scenes[0]
        held.append(candidate)
    raise ValueError(f"{data} has no scene {name} in {' or '.join(held) or 'any split'}: look into its list of scenes")


def read_scene(
    layout: Layout,
    split: str,
    name: str,
    *,
    without: frozenset[str] | set[str] = frozenset(),
    bad: dict[str, BadFile] | None = None,
) -> EmbodiedScene:
    """A scene of the embodied task. split: the one whose folder holds its frames; without: names of frames to leave
    out; bad: takes the frames that cannot be read, by their names. Raises BadFile, also for a frame where bad is None.
    """
    path = layout.global_package(name)
    content = read_pickle(path)
    labels = voxel_labels(content, "global_labels", path)
    shape = numbers(content, "scene_dim", path, (3,))
    if (shape != labels.shape).any():
        raise BadFile(
            path,
            "malformed",
            f"scene_dim is {shape.tolist()}, but global_labels are {labels.shape}: get the file again",
        )
    _mask(content, "global_mask", path, labels.shape)
    low = _lowest_point(content, path, labels.shape)
    stems = _frame_names(content, path)

    frames: dict[str, LocalFrame] = {}
    for stem in stems:
        if stem in without:
            continue
        try:
            frames[stem] = occscannet.read_frame(layout, name, stem)
        except BadFile as problem:
            if bad is None:
                raise
            bad[stem] = problem
    grid = VoxelGrid(_corner(low, frames.values(), path), labels.shape, VOXEL_M)
    embodied = [
        EmbodiedFrame(
            name,
            frame.frame,
            frame.camera,
            frame.pose,
            _on_voxels_of(grid, frame.grid),
            frame.image_path,
            frame.depth_path,
            layout.stream(split, name, stem),
            labels,
        )
        for stem, frame in frames.items()
    ]
    return EmbodiedScene(name, grid, labels, embodied)


def _frame_names(content: dict, path: Path) -> list[str]:
    """File names of the frames by number. The paths are those of the authors' disk; only their last part counts."""
    paths = occscannet.field(content, "valid_img_paths", path)
    paths = list(paths) if isinstance(paths, (list, tuple, np.ndarray)) else None
    if not paths or not all(isinstance(entry, str) for entry in paths):
        raise BadFile(path, "malformed", "valid_img_paths is no list of paths: get the file again")
    stems = [PurePosixPath(entry).stem for entry in paths]
    for stem, entry in zip(stems, paths, strict=True):
        if not (stem.isascii() and stem.isdecimal()):
            raise BadFile(path, "malformed", f"{entry} in valid_img_paths is not named by a number: get the file again")
    if len(set(map(int, stems))) < len(stems):
        raise BadFile(path, "malformed", "valid_img_paths names a frame twice: get the file again")
    return sorted(map(str, stems), key=int)


def _lowest_point(content: dict, path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """(3,) the point of voxel (0, 0, 0); whether it is the corner or the centre of the voxel, the file does not say."""
    points = occscannet.field(content, "global_pts", path)
    if not (isinstance(points, np.ndarray) and points.dtype.kind == "f" and points.shape == (*shape, 3)):
        raise BadFile(path, "malformed", f"global_pts is no {(*shape, 3)} array of points: get the file again")
    low, high = points[0, 0, 0].astype(np.float64), points[-1, -1, -1].astype(np.float64)
    along = [points[1, 0, 0, 0] - low[0] if shape[0] > 1 else VOXEL_M, points[0, -1, 0, 0] - low[0]]
    expected = (np.array(shape) - 1) * VOXEL_M
    if not (np.abs(high - low - expected).max() < 1e-2 and abs(along[0] - VOXEL_M) < 1e-3 and abs(along[1]) < 1e-3):
        raise BadFile(
            path,
            "malformed",
            f"global_pts run from {low.tolist()} to {high.tolist()}, which are not {shape} voxels of {VOXEL_M} m along "
            "x, y and z: get the file again",
        )
    return low


def _corner(low: np.ndarray, frames, path: Path) -> np.ndarray:
    """(3,) the corner of the scene's grid. The frames' corners are a whole number of voxels from it, which tells
    whether `low` is a corner (as the base code takes it) or a centre.
    """
    origins = np.array([frame.grid.origin for frame in frames]).reshape(-1, 3)
    for corner in (low, low - 0.5 * VOXEL_M):
        voxels = (origins - corner) / VOXEL_M
        if (np.abs(voxels - np.rint(voxels)) < _MAX_MISALIGNMENT_VOXELS).all():
            return corner
    raise BadFile(
        path,
        "malformed",
        f"the frames' voxel_origin is {np.round((origins[0] - low) / VOXEL_M, 3).tolist()} voxels from the first of "
        "global_pts, neither whole (a corner) nor half (a centre): the labels of the scene and of its frames do not "
        "fit together, get both from one source",
    )


def _on_voxels_of(grid: VoxelGrid, local: VoxelGrid) -> VoxelGrid:
    """The local grid moved by less than a rounding error, onto the voxels of the scene's grid."""
    voxels = np.rint((local.origin - grid.origin) / VOXEL_M)
    return VoxelGrid(grid.origin + voxels * VOXEL_M, local.shape, VOXEL_M)


def _mask(content: dict, name: str, path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    mask = occscannet.field(content, name, path)
    if not (isinstance(mask, np.ndarray) and mask.shape == shape and mask.dtype.kind in "biu"):
        raise BadFile(path, "malformed", f"the field {name} is no {shape} array of true and false: get the file again")
    return mask.astype(bool)


def _stem_of(frame: LocalFrame) -> str:
    return frame.label_path.name.removeprefix(f"{frame.scene}_").removesuffix("_new.pkl")
