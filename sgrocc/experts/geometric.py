"""The geometric expert: sensor depth to surface Gaussians. No network, no classes; the fallback without a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgrocc.experts import Frame, Prediction
from sgrocc.gaussians import Gaussians
from sgrocc.labels import NUM_CLASSES
from sgrocc.stages import stage


@dataclass(frozen=True)
class GeometricConfig:
    """Settings of the geometric expert; lengths in metres.

    resolution: edge of the memory's voxels; it sets the Gaussians' scales. min_depth_m, max_depth_m: depth outside
    is not used. max_anchors: bound on the Gaussians of one frame; it sets the pixel stride.
    """

    resolution: float = 0.08
    min_depth_m: float = 0.3
    max_depth_m: float = 4.0
    max_anchors: int = 8_000


class GeometricExpert:
    """One Gaussian per pixel of a regular lattice with valid depth, in the camera's optical frame.

    The memory keeps one Gaussian per voxel, so a Gaussian stands for the patch of surface inside a voxel: its
    standard deviation is 5/8 of a voxel along the surface and half a voxel across it. Axis z of the local frame is
    the surface normal, into the surface. The opacity is the probability that the surface lies within half a voxel of
    the measurement, under the noise of a structured-light or time-of-flight sensor that grows with the square of the
    depth.
    """

    depth_source = "topic"

    def __init__(self, config: GeometricConfig | None = None) -> None:
        self.config = config or GeometricConfig()

    @stage("lift")
    def __call__(self, frame: Frame) -> Prediction:
        """Raises ValueError where the frame has no depth image."""
        if frame.depth is None:
            raise ValueError("the geometric expert needs sensor depth: connect a depth image or choose a learned model")
        config = self.config
        height, width = frame.depth.shape
        camera = frame.camera.resized(width, height)
        stride = max(1, int(np.ceil(np.sqrt(width * height / config.max_anchors))))
        columns, rows = np.arange(stride // 2, width, stride), np.arange(stride // 2, height, stride)
        depth = frame.depth[np.ix_(rows, columns)]
        with np.errstate(invalid="ignore"):
            valid = (depth >= config.min_depth_m) & (depth <= config.max_depth_m)
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float32)
        points = camera.back_project(pixels, np.where(valid, depth, np.float32(np.nan))).astype(np.float32)
        normals = _normals(points)[valid]
        points = points[valid]
        count = len(points)
        scales = np.full((count, 3), 0.8 * config.resolution, np.float32)
        scales[:, 2] = 0.5 * config.resolution
        gaussians = Gaussians(
            points,
            scales,
            _rotation_to(normals),
            np.minimum(_probability_within(0.5 * config.resolution, depth_noise_m(points[:, 2])), 0.97),
            np.zeros((count, NUM_CLASSES), np.float32),
            np.zeros((count, 0), np.float32),
        )
        # The tolerance of eq. 6 is that of a sensor: half a voxel, not the tens of centimetres of a monocular prior.
        return Prediction(frame.depth, camera, gaussians, semantic=False, depth_sigma_m=(0.5 * config.resolution, 0.0))


def depth_noise_m(depth_m: np.ndarray) -> np.ndarray:
    """Standard deviation of an indoor depth sensor at a depth, metres (axial noise model for structured light)."""
    return 0.0012 + 0.0019 * np.square(depth_m - 0.4)


def _probability_within(half_width_m: float, sigma_m: np.ndarray) -> np.ndarray:
    """Probability that a normal variable is within +- half_width of its mean (tanh approximation, error < 3e-4)."""
    x = half_width_m / sigma_m
    return np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def _normals(points: np.ndarray) -> np.ndarray:
    """(h, w, 3) unit normals, towards the camera, of a lattice of points (NaN where invalid).

    In each direction the nearer of the two neighbours is used, so that a normal does not straddle a depth edge;
    where there is none, the normal is the direction to the camera.
    """
    along_u, along_v = (_nearer_difference(points, axis) for axis in (1, 0))
    normals = np.cross(along_u, along_v)
    towards = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        normals = normals / length
        flipped = (normals * towards).sum(axis=-1, keepdims=True) < 0
        normals = np.where(flipped, -normals, normals)
    return np.where(np.isfinite(normals).all(axis=-1, keepdims=True), normals, towards)


def _nearer_difference(points: np.ndarray, axis: int) -> np.ndarray:
    step = np.diff(points, axis=axis)
    missing = np.full_like(np.take(points, [0], axis=axis), np.nan)
    backward, forward = np.concatenate([missing, step], axis), np.concatenate([step, missing], axis)
    back_z, forward_z = np.abs(backward[..., 2:]), np.abs(forward[..., 2:])
    return np.where(~(back_z <= forward_z) & np.isfinite(forward_z), forward, backward)


def _rotation_to(normals: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions of the shortest turn of the z axis to the inward side of (N, 3) unit normals.

    The normals face the camera, so their inward sides never point to -z, where the turn would be undefined.
    """
    inward = -normals
    quaternions = np.stack([1 + inward[:, 2], -inward[:, 1], inward[:, 0], np.zeros(len(normals), np.float32)], axis=-1)
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
