"""Reader of posed RGB-D recordings: folders of colour images, depth images and camera poses.

A folder holds
    rgb/0000.jpg (or .png)     colour, undistorted, all of one size
    depth/0000.png             16 bits, 0 = invalid, registered to colour; another size shows the same view
    intrinsics.txt             3 x 3 camera matrix of the colour images, pixels
    poses_cam_to_world.txt     one row-major 4 x 4 per frame, metres (poses_world_to_cam.txt for the inverse)
    sequence.yaml              rate_hz, depth_unit_m, pose, camera_axes, world_up
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.geometry.pose import quaternion_to_matrix

#: Stamp of frame 0. Not zero, because ROS reads a zero stamp as "none given".
EPOCH_NS = 1_000_000_000

_POSE_FILES = {"camera_to_world": "poses_cam_to_world.txt", "world_to_camera": "poses_world_to_cam.txt"}
_CAMERA_AXES = ("x_right_y_down_z_forward",)
_DEPTH_MODES = ("I;16", "I;16B", "I")

# Rows are the axes of the z-up world, written in the axes of the recording's world: the shortest turn.
_TO_Z_UP = {
    "+x": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    "-x": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    "+y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    "-y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "+z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
}


@dataclass(frozen=True)
class PosedFrame:
    """One frame. image: (H, W, 3) uint8 RGB; depth: (h, w) float32, metres along z, 0 where invalid;

    pose: camera (optical frame) to world, z up; stamp_ns: nanoseconds.
    """

    index: int
    stamp_ns: int
    image: np.ndarray
    depth: np.ndarray
    pose: Pose


class PosedRgbdSequence:
    """The frames of one folder, read one by one, in a world with z up.

    rate_hz: frames per second; camera: of the colour images; depth_camera: of the depth images; poses: camera to
    world, one per frame. Everything but the pixels is read and checked at once. Raises FileNotFoundError or
    ValueError naming the file, the line and the cure.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}: give the folder of a posed RGB-D recording")
        settings = _read_settings(self.folder / "sequence.yaml")
        self.rate_hz: float = settings["rate_hz"]
        self._depth_unit_m: float = settings["depth_unit_m"]
        self.poses = _read_poses(self.folder / _POSE_FILES[settings["pose"]], settings["pose"], settings["world_up"])
        self._colour_files = _numbered_files(self.folder / "rgb", (".jpg", ".jpeg", ".png"), len(self.poses))
        self._depth_files = _numbered_files(self.folder / "depth", (".png",), len(self.poses))
        width, height = _common_size(self._colour_files)
        self.camera = _read_camera(self.folder / "intrinsics.txt", width, height)
        self.depth_camera = self.camera.resized(*_common_size(self._depth_files, _DEPTH_MODES))

    def __len__(self) -> int:
        return len(self.poses)

    def __iter__(self) -> Iterator[PosedFrame]:
        return (self.frame(i) for i in range(len(self)))

    def stamp_ns(self, index: int) -> int:
        """Stamp of a frame: no clock was recorded, so it is the frame's number over the rate."""
        return EPOCH_NS + round(index * 1e9 / self.rate_hz)

    def frame(self, index: int) -> PosedFrame:
        """Frame `index` (0 .. len - 1); raises IndexError beyond, ValueError where an image cannot be decoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no frame {index} in {self.folder}: it has frames 0 to {len(self) - 1}")
        image = _pixels(self._colour_files[index], "RGB")
        # One multiplication in double precision, so that 1000 mm is 1 m and not its neighbour.
        depth = (_pixels(self._depth_files[index]).astype(np.float64) * self._depth_unit_m).astype(np.float32)
        return PosedFrame(index, self.stamp_ns(index), image, depth, self.poses[index])


def _read_settings(path: Path) -> dict:
    try:
        settings = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())}): mend it there") from error
    keys = ("rate_hz", "depth_unit_m", "pose", "camera_axes", "world_up")
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings: write one `key: value` a line for {', '.join(keys)}")
    for key in settings:
        if key not in keys:
            raise ValueError(f"{path} has the unknown key {key!r}: the keys are {', '.join(keys)}")
    for key in keys:
        if key not in settings:
            raise ValueError(f"{path} lacks the key {key}: add it; the keys are {', '.join(keys)}")
    for key in ("rate_hz", "depth_unit_m"):
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (np.isfinite(value) and value > 0):
            raise ValueError(f"{path} says {key}: {value!r}: write a number above zero")
    for key, known in (("pose", _POSE_FILES), ("camera_axes", _CAMERA_AXES), ("world_up", _TO_Z_UP)):
        if not isinstance(settings[key], str) or settings[key] not in known:
            raise ValueError(f"{path} says {key}: {settings[key]!r}: write {_any_of(known)}")
    return settings


def _read_poses(path: Path, direction: str, world_up: str) -> list[Pose]:
    to_z_up = Pose(np.array(_TO_Z_UP[world_up], np.float64), np.zeros(3))
    poses = []
    for number, numbers in _rows(path, 16):
        matrix = numbers.reshape(4, 4)
        if not np.array_equal(matrix[3], [0, 0, 0, 1]):
            raise ValueError(
                f"{path}, line {number}: the last row is not 0 0 0 1: write row-major homogeneous 4 x 4 matrices"
            )
        try:
            pose = Pose.from_matrix(matrix)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        # Few printed digits leave a rotation slightly skewed; a transform message, a quaternion, cannot carry that.
        pose = Pose(quaternion_to_matrix(pose.quaternion), pose.translation)
        poses.append(to_z_up @ (pose if direction == "camera_to_world" else pose.inverse()))
    if not poses:
        raise ValueError(f"{path} has no poses: write one row-major 4 x 4 matrix a line")
    return poses


def _read_camera(path: Path, width: int, height: int) -> PinholeCamera:
    k = np.array([numbers for _, numbers in _rows(path, 3)])
    if k.shape != (3, 3) or k[0, 1] or k[1, 0] or not np.array_equal(k[2], [0, 0, 1]):
        raise ValueError(
            f"{path} is not a pinhole camera matrix: write three lines, fx 0 cx, 0 fy cy and 0 0 1, in pixels of rgb/"
        )
    try:
        return PinholeCamera(width, height, *(float(k[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _rows(path: Path, columns: int) -> Iterator[tuple[int, np.ndarray]]:
    """(line number from 1, (columns,) float64) of each line that is not blank."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            numbers = np.array(line.split(), np.float64)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; write {columns} numbers") from error
        if numbers.size != columns:
            raise ValueError(f"{path}, line {number}: it has {numbers.size} numbers; write {columns}")
        if not np.isfinite(numbers).all():
            raise ValueError(f"{path}, line {number}: it holds NaN or infinity; remove the frame or mend its numbers")
        yield number, numbers


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a posed RGB-D recording needs this file, so add it")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: write it again as UTF-8") from error


def _numbered_files(folder: Path, endings: tuple[str, ...], count: int) -> list[Path]:
    """The images 0000, 0001, ... of a folder; as many as there are poses, without gaps."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: put the images 0000, 0001, ... ({_any_of(endings)}) there")
    images = [path for path in folder.iterdir() if path.suffix.lower() in endings]
    for path in images:
        if not path.stem.isdecimal():
            raise ValueError(f"{path} has no number for a name: name the images 0000, 0001, ...")
    by_number = {int(path.stem): path for path in images}
    if len(by_number) < len(images):
        raise ValueError(f"{folder} has two images of one number: keep one of them")
    for index in range(count):
        if index not in by_number:
            raise FileNotFoundError(
                f"{folder} has no image {index:04d} for pose {index} of {count}: add the image or remove the pose"
            )
    if len(by_number) > count:
        raise ValueError(f"{folder} has {len(by_number)} images for {count} poses: remove the images or add the poses")
    return [by_number[index] for index in range(count)]


def _common_size(paths: list[Path], modes: tuple[str, ...] | None = None) -> tuple[int, int]:
    """(width, height) that all images share, from their headers alone."""
    common = None
    for path in paths:
        try:
            with Image.open(path) as image:
                size, mode = image.size, image.mode
        except OSError as error:
            raise ValueError(f"{path} is not an image that can be read: write it again") from error
        if modes and mode not in modes:
            raise ValueError(f"{path} has pixels of kind {mode}: write depth as PNG with one channel of 16 bits")
        common = common or size
        if size != common:
            raise ValueError(
                f"{path} is {size[0]} x {size[1]} pixels and {paths[0].name} is {common[0]} x {common[1]}: "
                "give all images of a folder one size"
            )
    return common


def _pixels(path: Path, mode: str | None = None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except (OSError, SyntaxError) as error:  # Pillow calls a broken PNG a SyntaxError
        raise ValueError(f"{path} is cut short or damaged: write it again") from error


def _any_of(values) -> str:
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last
