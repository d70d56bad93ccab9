"""Small scenes with known content, for the tests."""

import numpy as np

from sgrocc.experts import Frame, Prediction
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera, Pose

#: Optical axes (x right, y down, z forward) of a camera that looks along the world's +x, z up.
LOOKING_ALONG_X = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

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
