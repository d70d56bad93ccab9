"""Which voxels a frame looked through."""

from __future__ import annotations

import numpy as np

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.memory.voxels import BLOCK_OFFSETS
from sgrocc.splatting import BLOCK


def frustum_blocks(
    camera: PinholeCamera, camera_to_world: Pose, resolution: float, min_depth_m: float, max_depth_m: float
) -> np.ndarray:
    """(B, 3) int32: the blocks that the view frustum between two depths may touch, in world block coordinates."""
    edge_m = BLOCK * resolution
    corners = np.array([[-0.5, -0.5], [-0.5, camera.height - 0.5], [camera.width - 0.5, -0.5], [camera.width - 0.5, camera.height - 0.5]])
    near = camera.back_project(corners, np.full(4, min_depth_m))
    far = camera.back_project(corners, np.full(4, max_depth_m))
    world = camera_to_world.apply(np.concatenate([near, far]))
    low = np.floor(world.min(axis=0) / edge_m).astype(np.int32)
    high = np.floor(world.max(axis=0) / edge_m).astype(np.int32) + 1
    blocks = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int32)
    # A block may touch the frustum where its bounding sphere reaches over each of the six planes.
    centres = camera_to_world.inverse().apply((blocks + 0.5) * edge_m)
    radius = edge_m * np.sqrt(3) / 2
    x, y, z = centres.T
    inside = (z > min_depth_m - radius) & (z < max_depth_m + radius)
    left, top = far[0, :2] / max_depth_m
    right, bottom = far[3, :2] / max_depth_m
    inside &= (x - left * z) > -radius * np.hypot(1, left)
    inside &= (right * z - x) > -radius * np.hypot(1, right)
    inside &= (y - top * z) > -radius * np.hypot(1, top)
    inside &= (bottom * z - y) > -radius * np.hypot(1, bottom)
    return blocks[inside]


def seen_through(
    blocks: np.ndarray,
    depth: np.ndarray,
    camera: PinholeCamera,
    camera_to_world: Pose,
    resolution: float,
    margin_m: float,
) -> np.ndarray:
    """(B, 512) bool: voxels whose centre projects onto a valid pixel more than `margin_m` in front of its depth.

    blocks: (B, 3) world block coordinates; depth: (h, w) float32 metres, 0 invalid, seen by `camera`.
    """
    world_to_camera = camera_to_world.inverse()
    corners = world_to_camera.apply(blocks * (BLOCK * resolution)).astype(np.float32)
    offsets = ((BLOCK_OFFSETS + 0.5) * resolution @ world_to_camera.rotation.T).astype(np.float32)
    centres = (corners[:, None, :] + offsets).reshape(-1, 3)
    # Only the part in front of the camera can be seen through; it is half of the work or less.
    ahead = np.flatnonzero(centres[:, 2] > 0)
    pixels, z = camera.project(centres[ahead])
    rows, columns, inside = camera.pixel_index(pixels)
    result = np.zeros(len(centres), bool)
    result[ahead] = inside & (depth[rows, columns] > z + np.float32(margin_m))
    return result.reshape(len(blocks), -1)
