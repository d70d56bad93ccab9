"""Exact voxel truth of a scene: which voxels hold what, and which of them a camera saw.

It needs no picture, so labels can be made where nothing can be drawn; and it is plain float64 arithmetic without matrix
products, so that a seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sgrocc.datasets.layout import LOCAL_SHAPE, VOXEL_M
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, UNKNOWN
from sgrocc.synthrooms.scene import Solid

#: How far ahead of the camera the middle of its local grid lies.
LOCAL_AHEAD_M = 2.0
#: How far a camera sees: rays end there.
RANGE_M = 8.0
#: One ray for every so many pixels along rows and columns: at 8 m still one ray per voxel.
RAY_STEP_PX = 4

_SAMPLES = 4
_NOTHING = np.iinfo(np.int64).max
_LABELS = 12
_FREE, _OCCUPIED, _OUTSIDE = range(3)


def scene_grid(solids: Iterable[Solid]) -> VoxelGrid:
    """The smallest grid with its corner at a multiple of 0.08 m that holds all solids (world frame)."""
    bounds = [solid.bounds() for solid in solids]
    low = np.min([low for low, _ in bounds], axis=0)
    high = np.max([high for _, high in bounds], axis=0)
    return VoxelGrid.covering(np.stack([low, high]), VOXEL_M)


class Occupants:
    """Who fills a grid: per occupied voxel the piece and label with the most of its 4 x 4 x 4 samples (2 cm apart).

    One sample inside a solid makes its voxel occupied, and a sample inside several solids of a piece counts once. Where
    two fill a voxel equally the lower piece has it.
    voxels: (M,) int64 flat indices, ascending; counts: (M,) int64 samples of the winner; keys: (M,) int64,
    piece * 12 + label.
    """

    def __init__(self, solids: Sequence[Solid], grid: VoxelGrid) -> None:
        found = [_samples_inside(solid, grid) for solid in solids]
        if not found:
            self.voxels = self.counts = self.keys = np.zeros(0, np.int64)
            return
        voxels = np.concatenate([voxels for voxels, _ in found])
        samples = np.concatenate([samples for _, samples in found])
        of_solid = [np.full(len(v), s.piece * _LABELS + s.label) for s, (v, _) in zip(solids, found, strict=True)]
        keys = np.concatenate(of_solid)
        # Solids of one piece and label count together.
        order = np.lexsort((keys, voxels))
        voxels, samples, keys = voxels[order], samples[order], keys[order]
        starts = _starts(voxels, keys)
        if len(starts):
            samples = np.bitwise_or.reduceat(samples, starts)
        counts = np.unpackbits(samples.view(np.uint8)).reshape(-1, _SAMPLES**3).sum(axis=1, dtype=np.int64)
        self._settle(voxels[starts], counts, keys[starts])

    def _settle(self, voxels: np.ndarray, counts: np.ndarray, keys: np.ndarray) -> None:
        # The most samples first, then the lowest piece; the first of each voxel wins.
        order = np.lexsort((keys, -counts, voxels))
        first = order[_starts(voxels[order])]
        self.voxels, self.counts, self.keys = voxels[first], counts[first], keys[first]

    def joined(self, other: Occupants) -> Occupants:
        """Both together; their pieces differ."""
        both = Occupants((), _NO_GRID)
        both._settle(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("voxels", "counts", "keys")))
        return both

    def labels(self, grid: VoxelGrid) -> np.ndarray:
        """(X, Y, Z) uint8, 0 where free."""
        labels = np.full(int(np.prod(grid.shape)), FREE, np.uint8)
        labels[self.voxels] = self.keys % _LABELS
        return labels.reshape(grid.shape)

    def pieces(self, grid: VoxelGrid) -> np.ndarray:
        """(X, Y, Z) int32, -1 where free."""
        pieces = np.full(int(np.prod(grid.shape)), -1, np.int32)
        pieces[self.voxels] = self.keys // _LABELS
        return pieces.reshape(grid.shape)


_NO_GRID = VoxelGrid(np.zeros(3), (0, 0, 0), VOXEL_M)


def _samples_inside(solid: Solid, grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the voxels that hold a part of a solid, and as bits of uint64 which of their samples it holds."""
    low, high = solid.bounds()
    first = np.maximum(grid.index_of(low), 0)
    last = np.minimum(grid.index_of(high), np.array(grid.shape) - 1)
    if (last < first).any():
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    spans = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    indices = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = grid.centre_of(indices)
    # The distance is a lower bound, so what it leaves out is out; every sample is within half a diagonal of the centre.
    near = solid.distance(centres) < grid.resolution * np.sqrt(3.0) / 2
    indices, centres = indices[near], centres[near]
    ticks = ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5) * grid.resolution
    offsets = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = solid.distance(centres[:, None] + offsets) <= 0
    hit = inside.any(axis=1)
    _, ny, nz = grid.shape
    x, y, z = indices[hit].T
    return (x * ny + y) * nz + z, np.packbits(inside[hit], axis=1).view(np.uint64)[:, 0]


def _starts(*keys: np.ndarray) -> np.ndarray:
    """Where a new value begins in sorted columns."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    new = np.ones(len(keys[0]), bool)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(new)


def see(
    occupied: np.ndarray, grid: VoxelGrid, camera: PinholeCamera, camera_to_world: Pose
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees of a grid: every voxel that a ray passes (Amanatides and Woo), up to the first occupied one.

    occupied: (X, Y, Z) bool. Returns flat indices, ascending and unique, of the free voxels seen through and of the
    occupied ones seen. The camera's own voxel never ends a ray.
    """
    rows = np.arange(RAY_STEP_PX // 2, camera.height, RAY_STEP_PX)
    columns = np.arange(RAY_STEP_PX // 2, camera.width, RAY_STEP_PX)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    x, y = ((u - camera.cx) / camera.fx).ravel(), ((v - camera.cy) / camera.fy).ravel()
    length = np.sqrt(x * x + y * y + 1.0)
    rays = np.stack([x / length, y / length, 1.0 / length], axis=1)
    directions = Pose(camera_to_world.rotation, np.zeros(3)).apply(rays)

    # A border of "outside" ends the rays; the box is large enough for the camera's own voxel.
    start = (camera_to_world.translation - grid.origin) / grid.resolution
    camera_voxel = np.floor(start).astype(np.int64)
    low = np.minimum(camera_voxel, 0) - 1
    high = np.maximum(camera_voxel + 1, grid.shape) + 1
    state = np.full(tuple(high - low), _OUTSIDE, np.uint8)
    state[1:-1, 1:-1, 1:-1] = _FREE
    inner = tuple(slice(-a, n - a) for a, n in zip(low, grid.shape, strict=True))
    state[inner] = np.where(occupied, _OCCUPIED, _FREE)
    flat_state = state.reshape(-1)
    visited = np.zeros(state.size, bool)

    strides = np.array([state.shape[1] * state.shape[2], state.shape[2], 1])
    voxel = np.full(len(directions), int(((camera_voxel - low) * strides).sum()))
    steps, reaches, widths = [], [], []
    for axis in range(3):
        along = directions[:, axis]
        with np.errstate(divide="ignore"):
            width = np.where(along == 0, np.inf, 1.0 / np.abs(along))
        within = start[axis] - camera_voxel[axis]
        steps.append(np.where(along > 0, strides[axis], -strides[axis]))
        widths.append(width)
        reaches.append(np.where(along == 0, np.inf, np.where(along > 0, 1.0 - within, within) * np.minimum(width, 1e9)))
    range_voxels = RANGE_M / grid.resolution
    while len(voxel):
        visited[voxel] = True
        # On along the axis whose border is nearest; the first of equal ones.
        nearest = np.minimum(np.minimum(reaches[0], reaches[1]), reaches[2])
        on_x = reaches[0] == nearest
        on_y = ~on_x & (reaches[1] == nearest)
        on_z = ~(on_x | on_y)
        for on, step, reach, width in zip((on_x, on_y, on_z), steps, reaches, widths, strict=True):
            np.add(voxel, step, out=voxel, where=on)
            np.add(reach, width, out=reach, where=on)
        ended = (nearest >= range_voxels) | (flat_state[voxel] != _FREE)
        if ended.any():
            # The voxel that ends a ray is seen, unless it is out of range.
            visited[voxel[ended & (nearest < range_voxels)]] = True
            going = ~ended
            voxel = voxel[going]
            steps, reaches, widths = ([values[going] for values in each] for each in (steps, reaches, widths))
    seen = visited.reshape(state.shape)[inner].reshape(-1)
    filled = occupied.reshape(-1)
    return np.flatnonzero(seen & ~filled), np.flatnonzero(seen & filled)


def known(labels: np.ndarray, pieces: np.ndarray, seen_through: np.ndarray, seen_pieces: np.ndarray) -> np.ndarray:
    """(X, Y, Z) uint8 labels, 255 where a frame's camera could not know.

    Known are a free voxel that some frame saw through, and an occupied one of a piece of which some voxel was seen.
    seen_through: (X, Y, Z) bool; seen_pieces: (P,) bool.
    """
    occupied = pieces >= 0
    told = np.where(occupied, seen_pieces[np.maximum(pieces, 0)], seen_through)
    return np.where(told, labels, UNKNOWN).astype(np.uint8)


def shells(labels: np.ndarray) -> np.ndarray:
    """The labels with only surfaces left: an occupied voxel with no known free one beside it (of 6) becomes 255."""
    free = np.pad(labels == FREE, 1)
    beside = np.zeros(labels.shape, bool)
    for axis in range(3):
        for shift in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(shift, free.shape[axis] - 2 + shift)
            beside |= free[tuple(window)]
    return np.where((labels == FREE) | beside, labels, UNKNOWN).astype(np.uint8)


def local_grid(grid: VoxelGrid, camera_to_world: Pose) -> tuple[VoxelGrid, np.ndarray]:
    """The 60 x 60 x 36 grid of a frame, on the voxels of the scene's grid, and (3,) int64 where it begins in that.

    Its middle lies 2 m ahead of the camera, horizontally; its lowest layer is the scene's, which holds the floor.
    """
    forward = camera_to_world.rotation[:2, 2]
    size = np.sqrt((forward * forward).sum())
    ahead = forward / size * LOCAL_AHEAD_M if size > 1e-6 else np.zeros(2)
    middle = (camera_to_world.translation[:2] + ahead - grid.origin[:2]) / grid.resolution
    corner = np.array([*np.rint(middle).astype(np.int64) - np.array(LOCAL_SHAPE[:2]) // 2, 0])
    # From whole voxels of the world, so that equal corners are equal to the last bit.
    whole = np.rint(grid.origin / grid.resolution).astype(np.int64) + corner
    return VoxelGrid(whole * grid.resolution, LOCAL_SHAPE, grid.resolution), corner


def crop(labels: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The part of (X, Y, Z) uint8 labels that a local grid beginning at `corner` covers; 255 where they end."""
    local = np.full(LOCAL_SHAPE, UNKNOWN, np.uint8)
    here, there = _overlap(labels.shape, corner)
    local[there] = labels[here]
    return local


def in_view(
    grid: VoxelGrid, corner: np.ndarray, camera: PinholeCamera, camera_to_world: Pose
) -> tuple[np.ndarray, np.ndarray]:
    """Which voxels of a frame's local grid, beginning at `corner`, have their centre in the image, hidden or not.

    Returns a (60, 60, 36) bool mask of the local grid, and an (X, Y, Z) bool mask of the scene's.
    """
    index = np.stack(np.meshgrid(*map(np.arange, LOCAL_SHAPE), indexing="ij"), axis=-1) + corner
    offset = grid.centre_of(index) - camera_to_world.translation
    r = camera_to_world.rotation
    x, y, z = (offset[..., 0] * r[0, i] + offset[..., 1] * r[1, i] + offset[..., 2] * r[2, i] for i in range(3))
    pixels, _ = camera.project(np.stack([x, y, z], axis=-1))
    _, _, inside = camera.pixel_index(pixels)
    whole = np.zeros(grid.shape, bool)
    here, there = _overlap(grid.shape, corner)
    whole[here] = inside[there]
    return inside, whole


def _overlap(shape: tuple[int, int, int], corner: np.ndarray) -> tuple[tuple, tuple]:
    """Slices of the scene's grid and of the local grid where the two overlap."""
    low = np.maximum(corner, 0)
    high = np.maximum(np.minimum(corner + LOCAL_SHAPE, shape), low)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
    return here, there
