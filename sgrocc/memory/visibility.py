"""What a frame sees: which voxels it looked through, and how well it saw the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import warp as wp

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.memory.voxels import BLOCK_OFFSETS
from sgrocc.splatting import BLOCK


def frustum_blocks(
    camera: PinholeCamera, camera_to_world: Pose, resolution: float, min_depth_m: float, max_depth_m: float
) -> np.ndarray:
    """(B, 3) int32: the blocks that the view frustum between two depths may touch, in world block coordinates."""
    edge_m = BLOCK * resolution
    right_px, bottom_px = camera.width - 0.5, camera.height - 0.5
    corners = np.array([[-0.5, -0.5], [-0.5, bottom_px], [right_px, -0.5], [right_px, bottom_px]])
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


def deviation_m(depth: np.ndarray, depth_sigma_m: tuple[float, float]) -> np.ndarray:
    """The standard deviation of depths, metres; depth_sigma_m: (constant, factor of depth)."""
    return depth_sigma_m[0] + depth_sigma_m[1] * depth


def see_through_margin_m(depth: np.ndarray, free_margin_m: float, depth_sigma_m: tuple[float, float]) -> np.ndarray:
    """How far in front of a depth a voxel must lie to be looked through, and how far behind it nothing is seen, metres:
    at least two standard deviations, as a network's depth, which may be wrong by half a metre, must not clear the
    surface that it misjudged.
    """
    return np.maximum(free_margin_m, 2.0 * deviation_m(depth, depth_sigma_m))


@wp.kernel
def _end_of_rays(
    depth: wp.array2d(dtype=wp.float32),
    ray: wp.mat33d,
    origin: wp.vec3d,
    extent: wp.vec3i,
    place: wp.array2d(dtype=wp.int64),
):
    row, column = wp.tid()
    z = wp.float64(depth[row, column])
    last = wp.int64(extent[0]) * wp.int64(extent[1]) * wp.int64(extent[2])
    place[row, column] = last
    if z > wp.float64(0.0):
        # In voxels from the box's corner: where the pixel's ray ends.
        end = ray * wp.vec3d(wp.float64(column), wp.float64(row), wp.float64(1.0)) * z + origin
        x = wp.int64(wp.floor(end[0]))
        y = wp.int64(wp.floor(end[1]))
        k = wp.int64(wp.floor(end[2]))
        place[row, column] = (x * wp.int64(extent[1]) + y) * wp.int64(extent[2]) + k


#: A box of so many places for each pixel is counted in; a larger one is not made, but the pixels' places are sorted.
_ROOM_PER_PIXEL = 16


def voxels_of_pixels(
    depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose, resolution: float
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 3) int32: the distinct world voxels in which pixels of a depth (h, w), metres, 0 unknown, end; and (M,) how
    many in each.
    """
    furthest = float(depth.max(initial=0.0))
    if furthest <= 0:
        return np.zeros((0, 3), np.int32), np.zeros(0, np.int64)
    ray = camera_to_world.rotation @ np.linalg.inv(camera.matrix) / resolution
    origin = camera_to_world.translation / resolution
    # All ends lie in the pyramid of the camera and the image's corners at the furthest depth.
    corners = np.array([[u, v, 1.0] for u in (0, camera.width - 1) for v in (0, camera.height - 1)])
    pyramid = np.concatenate([origin[None], (ray[None] * corners[:, None]).sum(axis=-1) * furthest + origin])
    low = np.floor(pyramid.min(axis=0)).astype(np.int64) - 1
    extent = np.floor(pyramid.max(axis=0)).astype(np.int64) + 2 - low
    place = wp.empty(depth.shape, dtype=wp.int64, device="cpu")
    wp.launch(
        _end_of_rays,
        dim=depth.shape,
        inputs=[
            wp.array(np.ascontiguousarray(depth, np.float32), dtype=wp.float32, device="cpu"),
            wp.mat33d(*ray.ravel().tolist()),
            wp.vec3d(*(origin - low).tolist()),
            wp.vec3i(*extent.tolist()),
        ],
        outputs=[place],
        device="cpu",
    )
    room = math.prod(extent.tolist())
    place = place.numpy().ravel()
    if room <= _ROOM_PER_PIXEL * depth.size:
        counts = np.bincount(place, minlength=room + 1)[:room]
        hit = np.flatnonzero(counts)
        counts = counts[hit]
    else:
        hit, counts = np.unique(place[place < room], return_counts=True)
    return (np.stack(np.unravel_index(hit, extent), axis=-1) + low).astype(np.int32), counts


#: Up to this share of the margin behind a surface, a voxel is measured.
MEASURED_SHARE = 0.5
#: So close to the surface of a rough depth that it may as well lie on the other side, a voxel has this weight.
_BLURRED = 0.1
#: Behind a surface the weight falls to a third within this, metres: what a frame says there is a guess.
_GUESSED_M = 0.5


@dataclass(frozen=True)
class View:
    """Of the voxels of B blocks, (B, 512) each: weight, float32, of what the frame says there, 0 where it looks not;
    seen: looked through, by more than `see_through_margin_m`; measured: not further behind the surface than half of
    that, one standard deviation.
    """

    weight: np.ndarray
    seen: np.ndarray
    measured: np.ndarray


@wp.kernel
def _look(
    corners: wp.array(dtype=wp.vec3),
    offsets: wp.array(dtype=wp.vec3),
    depth: wp.array2d(dtype=wp.float32),
    margin: wp.array2d(dtype=wp.float32),
    blur: wp.array2d(dtype=wp.float32),
    focal: wp.vec2,
    centre: wp.vec2,
    half_edge: wp.float32,
    guessed: wp.float32,
    blurred: wp.float32,
    measured_share: wp.float32,
    weight: wp.array2d(dtype=wp.float32),
    seen: wp.array2d(dtype=wp.bool),
    measured: wp.array2d(dtype=wp.bool),
):
    block, cell = wp.tid()
    point = corners[block] + offsets[cell]
    z = point[2]
    if z > 0.0:
        # The nearest pixel, as PinholeCamera.pixel_index has it, of a voxel that the image cuts the one at its border.
        u = wp.floor(point[0] / z * focal[0] + centre[0] + 0.5)
        v = wp.floor(point[1] / z * focal[1] + centre[1] + 0.5)
        last = wp.vec2(wp.float32(depth.shape[1] - 1), wp.float32(depth.shape[0] - 1))
        if wp.abs(u - wp.clamp(u, 0.0, last[0])) <= half_edge * focal[0] / z:
            u = wp.clamp(u, 0.0, last[0])
        if wp.abs(v - wp.clamp(v, 0.0, last[1])) <= half_edge * focal[1] / z:
            v = wp.clamp(v, 0.0, last[1])
        column = wp.int32(u)
        row = wp.int32(v)
        if column >= 0 and column < depth.shape[1] and row >= 0 and row < depth.shape[0]:
            surface = depth[row, column]
            behind = guessed  # where no surface is known
            clear = wp.float32(1.0)
            if surface > 0.0:
                if blur[row, column] > 0.0:
                    clear = blurred + (1.0 - blurred) * wp.tanh(wp.abs(z - surface) / blur[row, column])
                behind = wp.max(z - surface, 0.0)
                seen[block, cell] = z < surface - margin[row, column]
                measured[block, cell] = z <= surface + measured_share * margin[row, column]
            weight[block, cell] = clear * wp.exp(-behind / guessed)


def look(
    blocks: np.ndarray,
    depth: np.ndarray,
    camera: PinholeCamera,
    camera_to_world: Pose,
    resolution: float,
    margin_m: float,
    depth_sigma_m: tuple[float, float] = (0.0, 0.0),
) -> View:
    """How a frame sees the voxels' centres, each by the pixel that it projects to; those of voxels that the border of
    the image cuts, by the pixel there.

    The weight is 1 up to the surface and falls behind it as exp(-b / 0.5 m) with the distance b along z. Where the
    depth is rough, its standard deviation s more than half a voxel, it is 0.1 at the surface and grows with the
    distance from it as tanh(d / (s - half a voxel)): what is surely free, or surely behind, counts. (Less weight for
    what is far away, or near the image's border, changed no score.)

    blocks: (B, 3) world block coordinates; depth: (h, w) float32 metres, 0 invalid, seen by `camera`; depth_sigma_m:
    its standard deviation as (constant, factor of depth).
    """
    world_to_camera = camera_to_world.inverse()
    corners = world_to_camera.apply(blocks * (BLOCK * resolution)).astype(np.float32)
    turn = Pose(world_to_camera.rotation, np.zeros(3))
    offsets = turn.apply((BLOCK_OFFSETS + 0.5) * resolution).astype(np.float32)
    shape = (len(blocks), BLOCK**3)
    weight = wp.zeros(shape, dtype=wp.float32, device="cpu")
    flags = [wp.zeros(shape, dtype=wp.bool, device="cpu") for _ in range(2)]
    blur = np.maximum(deviation_m(depth, depth_sigma_m) - 0.5 * resolution, 0.0)
    images = depth, see_through_margin_m(depth, margin_m, depth_sigma_m), blur
    wp.launch(
        _look,
        dim=shape,
        inputs=[
            wp.array(corners, dtype=wp.vec3, device="cpu"),
            wp.array(offsets, dtype=wp.vec3, device="cpu"),
            *(wp.array(np.ascontiguousarray(image, np.float32), dtype=wp.float32, device="cpu") for image in images),
            wp.vec2(camera.fx, camera.fy),
            wp.vec2(camera.cx, camera.cy),
            0.5 * resolution,
            _GUESSED_M,
            _BLURRED,
            MEASURED_SHARE,
        ],
        outputs=[weight, *flags],
        device="cpu",
    )
    return View(weight.numpy(), *(flag.numpy() for flag in flags))
