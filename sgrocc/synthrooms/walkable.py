"""Where one can walk in a scene: the free floor as a raster, ways over it, and how far one can look.

Everything lies in the room frame. Cells are 5 cm; the raster is what cameras, walking figures and moved things share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from sgrocc.synthrooms.scene import Scene, Solid

CELL_M = 0.05
#: What ends below this is walked over: floors and rugs.
_STEP_M = 0.05
_HEIGHT_STEP_M = 0.08


class Floor:
    """The floor of a scene as cells. low: (2,) metres, its corner; shape: cells along x and y; inside: (X, Y) bool,
    between the walls.
    """

    def __init__(self, scene: Scene) -> None:
        rectangles = np.array(scene.rectangles, np.float64)
        self.scene = scene
        self.low = rectangles[:, :2].min(axis=0)
        self.shape = tuple(int(n) for n in np.ceil((rectangles[:, 2:].max(axis=0) - self.low) / CELL_M - 1e-6))
        x, y = self.centres(np.indices(self.shape).reshape(2, -1).T).T.reshape(2, *self.shape)
        self.inside = np.zeros(self.shape, bool)
        for x0, y0, x1, y1 in rectangles:
            self.inside |= (x > x0) & (x < x1) & (y > y0) & (y < y1)

    def centres(self, cells: np.ndarray) -> np.ndarray:
        """(N, 2) cells to (N, 2) metres."""
        return self.low + (np.asarray(cells) + 0.5) * CELL_M

    def cells(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) metres to (N, 2) cells; they may lie outside."""
        return np.floor((np.asarray(points, np.float64)[..., :2] - self.low) / CELL_M).astype(np.int64)

    def holds(self, mask: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(N,) bool: whether points lie in cells of an (X, Y) bool mask."""
        cells = self.cells(points)
        valid = ((cells >= 0) & (cells < self.shape)).all(axis=-1)
        return valid & mask[tuple(np.where(valid[..., None], cells, 0).T)].T

    def clear(
        self, low_m: float, high_m: float, clearance_m: float, solids: Iterable[Solid] | None = None
    ) -> np.ndarray:
        """(X, Y) bool: where an upright rod from `low_m` to `high_m` keeps `clearance_m` from every solid.

        solids: others than the scene's, room frame. What one walks over, and what hangs higher, is in nobody's way.
        """
        free = self.inside.copy()
        count = max(2, int(np.ceil((high_m - low_m) / _HEIGHT_STEP_M)) + 1)
        heights = np.linspace(low_m, high_m, count)
        for solid in self.scene.solids if solids is None else solids:
            low, high = solid.bounds()
            if high[2] < _STEP_M or low[2] > high_m + clearance_m:
                continue
            first = np.maximum(self.cells((low - clearance_m)[None])[0], 0)
            last = np.minimum(self.cells((high + clearance_m)[None])[0] + 1, self.shape)
            if (last <= first).any():
                continue
            window = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            near = np.argwhere(free[window]) + first
            if not len(near):
                continue
            xy = np.repeat(self.centres(near)[:, None], count, axis=1)
            points = np.concatenate([xy, np.broadcast_to(heights[:, None], (len(near), count, 1))], axis=2)
            hit = (solid.distance(points) < clearance_m).any(axis=1)
            free[tuple(near[hit].T)] = False
        return free

    def sight(self, blocked: np.ndarray, points: np.ndarray, directions: np.ndarray, range_m: float) -> np.ndarray:
        """How far one sees from (N, 2) points along (M, 2) unit directions before a blocked cell; (N, M) metres."""
        steps = np.arange(1, int(range_m / CELL_M) + 1) * CELL_M
        reach = np.full((len(points), len(directions)), range_m)
        for i, point in enumerate(points):
            along = point + directions[:, None] * steps[:, None]
            stopped = ~self.holds(~blocked, along.reshape(-1, 2)).reshape(along.shape[:2])
            first = np.argmax(stopped, axis=1)
            reach[i] = np.where(stopped.any(axis=1), steps[first], range_m)
        return reach


def largest_region(free: np.ndarray) -> np.ndarray:
    """(X, Y) bool: the largest part of `free` that hangs together."""
    best = np.zeros(free.shape, bool)
    left = free.copy()
    while left.any():
        region = distances(free, np.argwhere(left)[:1]) >= 0
        left &= ~region
        if np.count_nonzero(region) > np.count_nonzero(best):
            best = region
        if np.count_nonzero(left) <= np.count_nonzero(best):
            break
    return best


def distances(free: np.ndarray, sources: Sequence) -> np.ndarray:
    """(X, Y) int32: steps over free cells from the nearest source, -1 where none leads."""
    padded = np.pad(free, 1)
    width = padded.shape[1]
    open_cells = padded.ravel().tolist()
    steps = [-1] * len(open_cells)
    queue = deque()
    for x, y in sources:
        cell = (int(x) + 1) * width + int(y) + 1
        if open_cells[cell] and steps[cell] < 0:
            steps[cell] = 0
            queue.append(cell)
    while queue:
        cell = queue.popleft()
        ahead = steps[cell] + 1
        for other in (cell - width, cell + width, cell - 1, cell + 1):
            if open_cells[other] and steps[other] < 0:
                steps[other] = ahead
                queue.append(other)
    return np.array(steps, np.int32).reshape(padded.shape)[1:-1, 1:-1]


def far_apart(free: np.ndarray, first: tuple[int, int], count: int, spacing_m: float) -> list[tuple[int, int]]:
    """Up to `count` free cells, each the one farthest (on foot) from those before, until all is within `spacing_m`."""
    chosen = [first]
    while len(chosen) < count:
        steps = distances(free, chosen)
        far = int(np.argmax(steps))
        if steps.ravel()[far] * CELL_M < spacing_m:
            break
        chosen.append(tuple(int(i) for i in np.unravel_index(far, free.shape)))
    return chosen


def way(free: np.ndarray, start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Free cells from `start` to `end`, pulled straight where nothing is in between. Both lie in one region."""
    steps = distances(free, [end])
    cell, cells = start, [start]
    while cell != end:
        x, y = cell
        around = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        around = [(a, b) for a, b in around if 0 <= a < free.shape[0] and 0 <= b < free.shape[1]]
        cell = next(c for c in around if steps[c] == steps[x, y] - 1)
        cells.append(cell)
    corners, at = [0], 0
    while at < len(cells) - 1:
        ahead = len(cells) - 1
        while ahead > at + 1 and not _straight(free, cells[at], cells[ahead]):
            ahead = at + max(1, (ahead - at) * 3 // 4)
        at = ahead
        corners.append(at)
    return [cells[i] for i in corners]


def _straight(free: np.ndarray, a: tuple[int, int], b: tuple[int, int]) -> bool:
    count = 2 * max(abs(a[0] - b[0]), abs(a[1] - b[1])) + 1
    x = np.rint(np.linspace(a[0], b[0], count)).astype(int)
    y = np.rint(np.linspace(a[1], b[1], count)).astype(int)
    return bool(free[x, y].all())


def rounded(floor: Floor, free: np.ndarray, corners: np.ndarray, spacing_m: float = 0.02) -> np.ndarray:
    """(N, 2) metres: a way through (K, 2) corners, a point every `spacing_m`, cut short as far as `free` allows."""
    best = _resampled(corners, spacing_m)
    curve = corners
    for _ in range(4):
        if len(curve) < 3:
            break
        quarter, three = 0.75 * curve[:-1] + 0.25 * curve[1:], 0.25 * curve[:-1] + 0.75 * curve[1:]
        curve = np.concatenate([curve[:1], np.stack([quarter, three], axis=1).reshape(-1, 2), curve[-1:]])
        points = _resampled(curve, spacing_m)
        if not floor.holds(free, points).all():
            break
        best = points
    return best


def _resampled(corners: np.ndarray, spacing_m: float) -> np.ndarray:
    lengths = np.sqrt(((corners[1:] - corners[:-1]) ** 2).sum(axis=1))
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(2, int(at[-1] / spacing_m) + 1)
    where = np.linspace(0.0, at[-1], count)
    # Rounded: the last bits of an interpolation depend on the compiler.
    return np.round(np.stack([np.interp(where, at, corners[:, i]) for i in range(2)], axis=1), 6)
