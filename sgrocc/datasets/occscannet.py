"""Occ-ScanNet, the local task: one image, the voxels in front of it. SynthRooms comes in the same files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sgrocc.datasets.layout import LOCAL_SHAPE, NATIVE_SIZE, VOXEL_M, Layout, read_split
from sgrocc.datasets.pickles import BadFile, read_pickle
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import NUM_CLASSES, UNKNOWN

#: The end of a complete image file, which lies within its last bytes.
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_ENDING_BYTES = 1024
ON_ERROR = ("raise", "skip")


@dataclass(frozen=True, eq=False)
class LocalFrame:
    """One image with its voxels; what is in its files is read when it is asked for.

    camera: of the image as it is stored; pose: camera to world; grid: 60 x 60 x 36 voxels of 0.08 m in the world;
    image_path, depth_path: None where the set was made without images.
    """

    scene: str
    frame: int
    camera: PinholeCamera
    pose: Pose
    grid: VoxelGrid
    image_path: Path | None
    depth_path: Path | None
    label_path: Path

    @property
    def labels(self) -> np.ndarray:
        """(60, 60, 36) uint8 [x, y, z]: 0 free, 1..11 the classes, 255 unknown."""
        return local_labels(read_pickle(self.label_path), "target_1_4", self.label_path)

    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB."""
        picture = read_image(self._drawn(self.image_path))
        return np.array(picture.convert("RGB"))

    def depth(self) -> np.ndarray:
        """(h, w) float32, metres along the camera's z axis, 0 where unknown. It may be of another size than the image:
        its camera is then `camera.resized(w, h)`.
        """
        path = self._drawn(self.depth_path)
        picture = read_image(path)
        if not picture.mode.startswith("I"):
            raise BadFile(
                path, "malformed", f"a depth image has 16 bits per pixel, not mode {picture.mode}: replace it"
            )
        return np.asarray(picture).astype(np.float32) * np.float32(0.001)

    def verify(self) -> None:
        """Raise BadFile where a file of this frame is missing, cut off or malformed. Images are not decoded."""
        self.labels  # noqa: B018
        for path in (self.image_path, self.depth_path):
            if path is not None:
                image_size(path, complete=True)

    def _drawn(self, path: Path | None) -> Path:
        if path is None:
            raise ValueError(f"{self.scene} frame {self.frame} was made without images: generate it with images")
        return path


class OccScanNet(Sequence[LocalFrame]):
    """The frames of a split, in the order of its list.

    root: see Layout; split: 'train', 'test', or 'val' (SynthRooms); mini: its mini list; on_error: 'raise' where a
    frame that is asked for cannot be used, 'skip' to read every frame once at the start and leave out those, with a
    sentence about each in `skipped`; scene_disjoint: see layout.read_split (the official lists put frames of one room
    into both train and test). Raises ValueError where the list is missing or names nothing.
    """

    def __init__(
        self,
        root: str | Path | Layout,
        split: str,
        mini: bool = False,
        on_error: str = "raise",
        scene_disjoint: bool = False,
    ) -> None:
        self.layout, self.split = Layout(root), split
        entries, problems = read_split(self.layout, split, "local", mini, scene_disjoint)
        entries, problems = usable_entries(entries, problems, on_error, lambda entry: self._read(entry).verify())
        self._entries = entries
        self.skipped = [str(problem) for problem in problems]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._read(entry) for entry in self._entries[index]]
        return self._read(self._entries[index])

    def scenes(self) -> list[str]:
        """The scene of each frame; nothing is read."""
        return [entry[1] for entry in self._entries]

    def _read(self, entry: tuple[str, str, str]) -> LocalFrame:
        return read_frame(self.layout, *entry[1:])


def usable_entries(entries: list, problems: list[BadFile], on_error: str, verify) -> tuple[list, list[BadFile]]:
    """The entries of a list that can be read, and what is wrong with the others. on_error: see OccScanNet."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}: use one of {', '.join(ON_ERROR)}")
    if on_error == "raise":
        if problems:
            raise problems[0]
        usable = entries
    else:
        usable, problems = [], list(problems)
        for entry in entries:
            try:
                verify(entry)
                usable.append(entry)
            except BadFile as problem:
                problems.append(problem)
    if entries and not usable:
        raise ValueError(f"none of the {len(entries)} entries of the list can be read; the first: {problems[0]}")
    return usable, problems


def read_frame(layout: Layout, scene: str, stem: str) -> LocalFrame:
    """One frame of the local task. stem: its file name. Raises BadFile."""
    path = layout.gathered(scene, stem)
    content = read_pickle(path)
    image_path, depth_path = layout.image(scene, stem), layout.depth(scene, stem)
    # The paths in the file are those of whoever made it. None is what we write where nothing was drawn.
    image_path, depth_path = (
        None if field(content, name, path) is None else place
        for name, place in (("img", image_path), ("depth_gt", depth_path))
    )
    k = numbers(content, "intrinsic", path)
    if k.shape not in ((3, 3), (4, 4)):
        raise BadFile(path, "malformed", f"intrinsic is {k.shape} instead of (3, 3) or (4, 4): get the file again")
    native = NATIVE_SIZE
    if "image_size" in content:
        native = tuple(int(n) for n in numbers(content, "image_size", path, (2,)))
    try:
        camera = PinholeCamera(*native, *(float(k[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))))
        pose = Pose.from_matrix(numbers(content, "cam_pose", path, (4, 4)))
        # The base code rounds the corner so; it undoes what float32 did to it.
        grid = VoxelGrid(np.round(numbers(content, "voxel_origin", path, (3,)), 4), LOCAL_SHAPE, VOXEL_M)
    except BadFile:
        raise
    except ValueError as error:
        raise BadFile(path, "malformed", str(error)) from error
    if image_path is not None:
        size = image_size(image_path)
        camera = camera if size == native else camera.resized(*size)
    return LocalFrame(scene, int(stem), camera, pose, grid, image_path, depth_path, path)


def field(content: dict, name: str, path: Path):
    """A field of a pickle; raises BadFile where it is not there."""
    if name not in content:
        raise BadFile(path, "malformed", f"the field {name} is missing: get the file again")
    return content[name]


def numbers(content: dict, name: str, path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A field as float64 of that shape; raises BadFile where it is something else."""
    value = field(content, name, path)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BadFile(path, "malformed", f"the field {name} does not hold numbers: get the file again") from error
    if shape is not None and array.shape != shape:
        raise BadFile(path, "malformed", f"the field {name} is {array.shape} instead of {shape}: get the file again")
    return array


def voxel_labels(content: dict, name: str, path: Path, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """A field of labels as uint8 in the order of the file; raises BadFile where a value is no label."""
    value = field(content, name, path)
    if not (isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype.kind in "biuf"):
        raise BadFile(path, "malformed", f"the field {name} is no box of labels: get the file again")
    if shape is not None and value.shape != shape:
        raise BadFile(path, "malformed", f"the field {name} is {value.shape} instead of {shape}: get the file again")
    with np.errstate(invalid="ignore"):
        labels = value.astype(np.uint8)
    wrong = (labels != value) | ((labels > NUM_CLASSES) & (labels != UNKNOWN))
    if wrong.any():
        raise BadFile(
            path,
            "malformed",
            f"the field {name} holds {value[wrong][0]}, but labels are 0 to {NUM_CLASSES} and {UNKNOWN}: get it again",
        )
    return labels


def local_labels(content: dict, name: str, path: Path) -> np.ndarray:
    """A field of local labels, which the files hold as [y, x, z], as (60, 60, 36) uint8 [x, y, z]."""
    return np.ascontiguousarray(voxel_labels(content, name, path, LOCAL_SHAPE).transpose(1, 0, 2))


def read_image(path: Path) -> Image.Image:
    """A decoded image; raises BadFile."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise _missing_image(path) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(path, "damaged", f"the image cannot be decoded ({error}): get the file again") from error


def image_size(path: Path, complete: bool = False) -> tuple[int, int]:
    """(width, height) from the head of an image file; complete: look at its end, too. Raises BadFile."""
    try:
        with open(path, "rb") as file:
            picture = Image.open(file)
            size = picture.size
            if complete:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _ENDING_BYTES))
                if _ENDINGS.get(picture.format, b"") not in file.read():
                    raise BadFile(path, "damaged", "the image ends too early: get the file again")
        return size
    except FileNotFoundError:
        raise _missing_image(path) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(path, "damaged", f"the file is no image ({error}): get the file again") from error


def _missing_image(path: Path) -> BadFile:
    return BadFile(path, "missing", "the image is missing: complete the download, or generate the set again")
