"""Small scenes with known content, for the tests."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from sgrocc.datasets.layout import write_frame, write_split
from sgrocc.experts import Frame, Prediction
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import CHAIR, FLOOR, FREE, UNKNOWN, WALL

#: How many times the usual number of inputs the property tests of what comes from outside try.
FUZZ = int(os.environ.get("SGROCC_FUZZ", "1"))

#: Optical axes (x right, y down, z forward) of a camera that looks along the world's +x, z up.
LOOKING_ALONG_X = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

#: An L of two walls, a floor and a box that stands on one side: no axis can be swapped or mirrored unseen.
ROOM = [
    ((2.4, -2, -0.6), (2.6, 2, 1)),
    ((-1, 1.0, -0.6), (3, 1.2, 1)),
    ((-1, -2, -0.7), (3, 2, -0.6)),
    ((1.5, -0.9, -0.6), (1.9, -0.4, -0.1)),
]
ROOM_FRAMES = 12

CAMERA = PinholeCamera(160, 120, 140.0, 140.0, 79.5, 59.5)


def random_gaussians(rng: np.random.Generator, count: int, extent_m: float, features: int = 0) -> Gaussians:
    rotations = rng.normal(size=(count, 4))
    return Gaussians(
        rng.uniform(-extent_m, extent_m, (count, 3)),
        rng.uniform(0.01, 0.12, (count, 3)),
        rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        rng.uniform(0, 1, count),
        rng.normal(size=(count, 11)),
        rng.normal(size=(count, features)),
    )


def pose_at(x: float, y: float, z: float) -> Pose:
    """A camera at a place in the world, looking along +x."""
    return Pose(LOOKING_ALONG_X, np.array([x, y, z]))


def depth_of_boxes(boxes: list[tuple], camera: PinholeCamera, pose: Pose) -> np.ndarray:
    """(h, w) float32 depth of axis-aligned boxes ((3,) low corner, (3,) high corner), 0 where no box is hit."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = camera.back_project(np.stack([columns, rows], -1), np.ones((camera.height, camera.width)))
    directions = rays @ pose.rotation.T  # of depth 1: the ray's parameter is the depth
    depth = np.full(rays.shape[:2], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for low, high in boxes:
            a = (np.array(low) - pose.translation) / directions
            b = (np.array(high) - pose.translation) / directions
            near, far = np.nanmax(np.minimum(a, b), -1), np.nanmin(np.maximum(a, b), -1)
            hit = (near <= far) & (near > 0)
            depth = np.where(hit & (near < depth), near, depth)
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def prediction_of(depth: np.ndarray, camera: PinholeCamera = CAMERA) -> Prediction:
    """The geometric expert's prediction for a depth image."""
    return GeometricExpert()(Frame(np.zeros((*depth.shape, 3), np.uint8), camera, depth))


def write_room(folder: Path) -> None:
    """A posed RGB-D recording of `ROOM`: `ROOM_FRAMES` frames at 5 Hz from a camera that drifts forward and left."""
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    rows = []
    for i in range(ROOM_FRAMES):
        pose = pose_at(0.05 * i, 0.03 * i, 0.01 * i)
        depth = np.round(1000 * depth_of_boxes(ROOM, CAMERA, pose)).astype(np.uint16)
        Image.fromarray(depth).save(folder / "depth" / f"{i:04d}.png")
        Image.new("RGB", (CAMERA.width, CAMERA.height), (40, 80, 120)).save(folder / "rgb" / f"{i:04d}.jpg")
        rows.append(pose.matrix.ravel())
    np.savetxt(folder / "poses_cam_to_world.txt", rows)
    np.savetxt(folder / "intrinsics.txt", CAMERA.matrix)
    (folder / "sequence.yaml").write_text(
        "rate_hz: 5.0\ndepth_unit_m: 0.001\npose: camera_to_world\n"
        'camera_axes: x_right_y_down_z_forward\nworld_up: "+z"\n'
    )


def write_small_set(root, frames: dict[str, int]) -> None:
    """A data set with a room per split, {split: its frames}: a floor, a wall 2.4 m ahead, a chair; images of noise."""
    grid = VoxelGrid(np.array([0.0, -2.4, -0.8]), (60, 60, 36), 0.08)
    labels = np.full(grid.shape, FREE, np.uint8)
    labels[:, :, 0] = FLOOR
    labels[30:32] = WALL
    labels[32:] = UNKNOWN
    labels[20:24, 20:26, 1:6] = CHAIR
    rng = np.random.default_rng(10)
    for split, count in frames.items():
        names = []
        for frame in range(count):
            write_frame(
                root,
                f"room_{split}",
                frame,
                pose=Pose(LOOKING_ALONG_X, np.array([0.0, 0.2 * frame, 0.3])),
                camera=CAMERA,
                voxel_origin=grid.origin,
                labels=labels,
                image=rng.integers(0, 255, (CAMERA.height, CAMERA.width, 3), np.uint8),
                depth=np.full((CAMERA.height, CAMERA.width), 2.4, np.float32),
            )
            names.append((f"room_{split}", frame))
        write_split(root, split, "local", names)
