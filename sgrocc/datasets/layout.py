"""Where the files of Occ-ScanNet and EmbodiedOcc-ScanNet lie, how they are written, and how they are read safely.

    occscannet/gathered_data/<scene>/<frame>.pkl          one frame: pose, intrinsics, local labels
    occscannet/posed_images/<scene>/<frame>.jpg, .png     its image, its depth in millimetres
    occscannet/<split>_final.txt                          lines `gathered_data/<scene>/<frame>.pkl`
    scene_occ/global_occ_package/<scene>.pkl              one scene: global labels, its images
    scene_occ/streme_occ_new_package/<split>/<scene>_<frame>_new.pkl    one frame of it: the voxels in its view
    scene_occ/<split>_online.txt                          lines `<scene>`

Mini lists are named <split>_mini_final.txt and <split>_mini_online.txt. Local labels lie in the files as [y, x, z],
global ones as [x, y, z]; 0 is free and 255 unknown in both. Pickles that we write are compressed with gzip.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sgrocc.datasets.pickles import BadFile, write_pickle
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import CLASS_LABELS, FREE, UNKNOWN

VOXEL_M = 0.08
LOCAL_SHAPE = (60, 60, 36)
KINDS = ("local", "embodied")
#: The image that the intrinsics of Occ-ScanNet belong to (width, height); ours name theirs in the file.
NATIVE_SIZE = (1296, 968)

_COARSE = 4
#: A coarse voxel of `target_1_16` has a class when more of its 64 voxels than this are occupied (as in NYUv2's SSC).
_MOST_UNOCCUPIED = 0.95 * _COARSE**3


class Layout:
    """The paths of a data set. root: the folder that holds occscannet/ and scene_occ/, or one of these two where the
    other lies beside it; scene_occ: the second folder, where it lies elsewhere (root is then the first).
    """

    def __init__(self, root: str | Path | Layout, scene_occ: str | Path | None = None) -> None:
        if isinstance(root, Layout):
            self.occscannet, self.scene_occ = root.occscannet, root.scene_occ
            return
        root = Path(root)
        frames_here, scenes_here = ((root / name).is_dir() for name in ("gathered_data", "global_occ_package"))
        self.occscannet, self.scene_occ = root / "occscannet", root / "scene_occ"
        if frames_here or scene_occ is not None:
            self.occscannet, self.scene_occ = root, root.resolve().parent / "scene_occ"
        if scenes_here:
            self.scene_occ = root
            self.occscannet = root if frames_here else root.resolve().parent / "occscannet"
        if scene_occ is not None:
            self.occscannet, self.scene_occ = root, Path(scene_occ)

    def __repr__(self) -> str:
        return f"Layout({str(self.occscannet)!r}, {str(self.scene_occ)!r})"

    def gathered(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "gathered_data" / scene / f"{_stem(frame)}.pkl"

    def image(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "posed_images" / scene / f"{_stem(frame)}.jpg"

    def depth(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "posed_images" / scene / f"{_stem(frame)}.png"

    def global_package(self, scene: str) -> Path:
        return self.scene_occ / "global_occ_package" / f"{scene}.pkl"

    def stream(self, split: str, scene: str, frame: int | str) -> Path:
        return self.scene_occ / "streme_occ_new_package" / split / f"{scene}_{_stem(frame)}_new.pkl"

    def list_path(self, split: str, kind: str, mini: bool = False) -> Path:
        """The list of a split; kind: 'local' (frames) or 'embodied' (scenes)."""
        _check_kind(kind)
        stem = f"{split}_mini" if mini else split
        return self.occscannet / f"{stem}_final.txt" if kind == "local" else self.scene_occ / f"{stem}_online.txt"

    def splits(self, kind: str, mini: bool = False) -> list[str]:
        """The splits whose lists are there: train, val, test, then others by name."""
        ending = self.list_path("*", kind, mini).name[1:]
        folder = self.list_path("*", kind, mini).parent
        names = {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")}
        if not mini:
            names = {name for name in names if not name.endswith("_mini")}
        known = [name for name in ("train", "val", "test") if name in names]
        return known + sorted(names - set(known))


def write_frame(
    root: str | Path,
    scene: str,
    frame: int,
    *,
    pose: Pose,
    camera: PinholeCamera,
    voxel_origin: np.ndarray,
    labels: np.ndarray,
    image: np.ndarray | None,
    depth: np.ndarray | None,
    jpeg_quality: int = 90,
) -> str:
    """Write one frame of the local task; returns its image's path as the files name it.

    pose: camera to world; camera: of the image as it is stored; voxel_origin: (3,) metres, corner of the local grid;
    labels: (60, 60, 36) uint8 [x, y, z]; image: (h, w, 3) uint8 or None; depth: (h, w) metres, 0 where unknown, or
    None. Without an image the files say that there is none.
    """
    layout = Layout(root)
    labels = np.asarray(labels)
    if labels.shape != LOCAL_SHAPE or labels.dtype != np.uint8:
        raise ValueError(f"local labels are {LOCAL_SHAPE} uint8, not {labels.shape} {labels.dtype}: crop and convert")
    image_path, depth_path = layout.image(scene, frame), layout.depth(scene, frame)
    image_path.parent.mkdir(parents=True, exist_ok=True)
    if image is not None:
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"the image is {image.shape} {image.dtype} and the camera {camera.width} x {camera.height} pixels: "
                "pass an (h, w, 3) uint8 image and its camera"
            )
        Image.fromarray(image).save(image_path, quality=jpeg_quality)
    if depth is not None:
        millimetres = np.rint(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0)
        Image.fromarray(np.clip(millimetres, 0, 65535).astype(np.uint16)).save(depth_path, compress_level=4)
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = camera.matrix
    named = image_path.relative_to(layout.occscannet).as_posix()
    write_pickle(
        layout.gathered(scene, frame),
        {
            "img": None if image is None else named,
            "depth_gt": None if depth is None else depth_path.relative_to(layout.occscannet).as_posix(),
            "cam_pose": pose.matrix,
            "intrinsic": intrinsic,
            "image_size": (camera.width, camera.height),
            "voxel_origin": np.array(voxel_origin, np.float64),
            "target_1_4": np.ascontiguousarray(labels.transpose(1, 0, 2)),
            "target_1_16": coarse_labels(labels.transpose(1, 0, 2)),
        },
    )
    return named


def write_stream(
    root: str | Path,
    split: str,
    scene: str,
    frame: int,
    *,
    local_label: np.ndarray,
    mask_in_global: np.ndarray,
    changes: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Write one frame of the embodied task.

    local_label: (60, 60, 36) uint8 [x, y, z]; mask_in_global: (X, Y, Z) bool, the voxels in view; changes: flat
    indices into the scene's labels and the labels (uint8) there at this frame, where they are not the last ones.
    """
    content = {
        "local_label": np.ascontiguousarray(np.asarray(local_label, np.uint8).transpose(1, 0, 2)),
        "mask_in_global": np.ascontiguousarray(mask_in_global, bool),
    }
    if changes is not None:
        content["changed_voxels"] = np.ascontiguousarray(changes[0], np.int64)
        content["changed_labels"] = np.ascontiguousarray(changes[1], np.uint8)
    write_pickle(Layout(root).stream(split, scene, frame), content)


def write_global(
    root: str | Path, scene: str, *, grid: VoxelGrid, labels: np.ndarray, mask: np.ndarray, image_paths: Iterable[str]
) -> None:
    """Write the labels of a scene. labels: (X, Y, Z) uint8; mask: (X, Y, Z) bool, what its frames have in view;
    image_paths: of its frames, as write_frame returned them.
    """
    corners = np.empty((*grid.shape, 3))
    for axis, along in enumerate(np.meshgrid(*map(np.arange, grid.shape), indexing="ij", sparse=True)):
        corners[..., axis] = grid.origin[axis] + along * grid.resolution
    write_pickle(
        Layout(root).global_package(scene),
        {
            "scene_dim": np.array(grid.shape, np.int64),
            "global_labels": np.ascontiguousarray(labels, np.uint8),
            # One coordinate after the other instead of mixed: a hundredth of the size after compression.
            "global_pts": np.asfortranarray(corners),
            "valid_img_paths": list(image_paths),
            "global_mask": np.ascontiguousarray(mask, bool),
        },
    )


def write_split(
    root: str | Path, split: str, kind: str, lines: Iterable[str | tuple[str, int]], mini: bool = False
) -> None:
    """Write the list of a split. lines: (scene, frame) pairs where kind is 'local', scenes where it is 'embodied'."""
    path = Layout(root).list_path(split, kind, mini)
    if kind == "local":
        lines = (f"gathered_data/{scene}/{_stem(frame)}.pkl" for scene, frame in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def coarse_labels(labels: np.ndarray) -> np.ndarray:
    """(15, 15, 9) uint8 of (60, 60, 36): the commonest class of each 4 x 4 x 4 voxels, free or unknown (the commoner)
    where hardly any is occupied.
    """
    x, y, z = (n // _COARSE for n in labels.shape)
    blocks = labels.reshape(x, _COARSE, y, _COARSE, z, _COARSE)
    count = {label: np.count_nonzero(blocks == label, axis=(1, 3, 5)) for label in (FREE, UNKNOWN, *CLASS_LABELS)}
    classes = np.array(CLASS_LABELS, np.uint8)[np.argmax([count[label] for label in CLASS_LABELS], axis=0)]
    nothing = np.where(count[FREE] > count[UNKNOWN], FREE, UNKNOWN)
    return np.where(count[FREE] + count[UNKNOWN] > _MOST_UNOCCUPIED, nothing, classes).astype(np.uint8)


def _stem(frame: int | str) -> str:
    """File name of a frame; real lists name theirs as text."""
    return frame if isinstance(frame, str) else f"{frame:05d}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"there is no kind of list {kind!r}: use one of {', '.join(KINDS)}")


# A room of ScanNet was scanned several times: scene0005_00 and scene0005_01 show the same one.
_SCAN = re.compile(r"(scene\d{4})_\d{2}")
#: Percent of the rooms in the test part of a scene-disjoint split, as in the official one.
_DISJOINT_TEST_PERCENT = 30


def read_split(
    layout: Layout, split: str, kind: str, mini: bool = False, scene_disjoint: bool = False
) -> tuple[list[tuple[str, str, str]], list[BadFile]]:
    """The entries of a split as (list's split, scene, frame's file name or ''), and the lines that are none.

    scene_disjoint: where the lists of frames put one room into several splits (the official ones do), all frames of
    all lists are dealt again by room: into test where SHA-256 of the room's name, its first 8 bytes taken as a number,
    leaves less than 30 when divided by 100, else into train. A room is the scene's name without the number of its
    scan. Raises ValueError where the split does not exist.
    """
    held = layout.splits(kind, mini)
    dealt = scene_disjoint and _rooms_are_shared(layout, mini)
    if dealt and split not in ("train", "test"):
        raise ValueError(f"dealt by room there is no split {split!r}: use train or test, or the official lists")
    if not dealt and split not in held:
        path = layout.list_path(split, kind, mini)
        raise ValueError(
            f"{path} is missing: use {' or '.join(held) if held else 'a folder that holds the lists of the data set'}"
        )
    entries: list[tuple[str, str, str]] = []
    problems: list[BadFile] = []
    for listed in held if dealt else [split]:
        found, bad = _read_list(layout.list_path(listed, kind, mini), kind)
        problems += bad
        entries += [(listed, *entry) for entry in found if not dealt or _dealt_split(entry[0]) == split]
    if dealt:  # what several lists name counts once
        entries = list({entry[1:]: entry for entry in reversed(entries)}.values())[::-1]
    if not entries and not problems:
        cure = "use the official lists" if dealt else "get the list again"
        raise ValueError(
            f"no entry of the {kind} lists in {layout.list_path(split, kind, mini).parent} is in {split}: {cure}"
        )
    return entries, problems


def _read_list(path: Path, kind: str) -> tuple[list[tuple[str, str]], list[BadFile]]:
    entries, problems = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = line.strip().split("/")
        if parts == [""]:
            continue
        stem = parts[-1].removesuffix(".pkl")
        if kind == "embodied" and len(parts) == 1 and parts[0] not in (".", ".."):
            entries.append((parts[0], ""))
        elif kind == "local" and len(parts) >= 2 and parts[-1] != stem and stem.isdecimal() and parts[-2].strip("."):
            entries.append((parts[-2], stem))
        else:
            wanted = "<scene>" if kind == "embodied" else "gathered_data/<scene>/<frame>.pkl"
            problems.append(BadFile(path, "malformed", f"line {number} is {line.strip()!r} instead of {wanted}"))
    return entries, problems


def _rooms_are_shared(layout: Layout, mini: bool) -> bool:
    """Whether two lists of frames name the same room; yes where there are none to look into."""
    splits = layout.splits("local", mini)
    rooms = [{_room(scene) for scene, _ in _read_list(layout.list_path(s, "local", mini), "local")[0]} for s in splits]
    return not rooms or len(set().union(*rooms)) < sum(map(len, rooms))


def _room(scene: str) -> str:
    scan = _SCAN.fullmatch(scene)
    return scan[1] if scan else scene


def _dealt_split(scene: str) -> str:
    number = int.from_bytes(hashlib.sha256(_room(scene).encode()).digest()[:8], "big")
    return "test" if number % 100 < _DISJOINT_TEST_PERCENT else "train"
