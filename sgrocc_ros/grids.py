"""The map seen from above: what lies within a band of heights, as grids of occupancy and of cost and as distances.

A voxel belongs to the band where its centre has min_height_m <= z <= max_height_m. Whatever is made of the same voxels
and the same band has the same cells: those of the columns, from the first to the last in x and in y, in which a voxel
of the band is known; cell (0, 0) is the one of the lowest x and y, and its corner the grid's origin.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

import numpy as np
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from sgrocc.labels import CLASS_LABELS, FREE, UNKNOWN, name_of
from sgrocc_ros.images import opencv
from sgrocc_ros.messages import cloud_message

#: The most cells of an OccupancyGrid, which is dense: 800 x 800 m at 0.08 m.
MAX_GRID_CELLS = 100_000_000
#: A voxel whose centre lies on the edge of the height band is in it; this share of a voxel absorbs the rounding.
BAND_TOLERANCE = 1e-3
#: One cell of the distance cloud, 16 bytes.
DISTANCE = np.dtype([(name, "<f4") for name in ("x", "y", "z", "distance")])

#: (256,) int8 by label: what a free and what an occupied voxel is in an OccupancyGrid.
_OCCUPANCY = np.full(256, 100, np.int8)
_OCCUPANCY[FREE] = 0


def occupancy_grid_message(
    header: Header,
    indices: np.ndarray,
    labels: np.ndarray,
    resolution: float,
    min_height_m: float,
    max_height_m: float,
    free_is_known: bool = True,
) -> OccupancyGrid:
    """The height band from above: 100 where a voxel of the column is occupied, else 0 where one is free, else -1.

    indices (N, 3) world voxel indices; labels (N,) 0, 1 to 11, 255. Without a known voxel in the band the grid is
    0 x 0. free_is_known False: -1 in place of 0, for free space that must not clear what other sensors mark, such as
    that of a depth which a network guessed. Raises ValueError where the voxels lie so far apart that the grid would not
    fit into memory.
    """
    corner, cells = _seen_from_above(indices, labels, resolution, min_height_m, max_height_m, _OCCUPANCY)
    return _grid_message(header, corner, cells, resolution, free_is_known)


def cost_grid_message(
    header: Header,
    indices: np.ndarray,
    labels: np.ndarray,
    resolution: float,
    min_height_m: float,
    max_height_m: float,
    costs: Mapping[int, int],
    free_is_known: bool = True,
) -> OccupancyGrid:
    """The cells of occupancy_grid_message, each with the highest cost of the occupied voxels of its column.

    costs: {label: 0 to 100} of all classes, whole numbers. 0 where the column is free, or where its occupied voxels all
    cost 0; -1 where nothing is known. free_is_known False: -1 in place of every 0, that of occupied voxels included: a
    floor that a network guessed must not clear either. Raises ValueError as occupancy_grid_message does, and for a cost
    that is missing or out of range.
    """
    values = _OCCUPANCY.copy()
    for label in CLASS_LABELS:
        cost = costs.get(label)
        if cost not in range(101):
            raise ValueError(f"the cost of {name_of(label)} is {cost}: give a whole number from 0 to 100")
        values[label] = cost
    corner, cells = _seen_from_above(indices, labels, resolution, min_height_m, max_height_m, values)
    return _grid_message(header, corner, cells, resolution, free_is_known)


def distance_cloud(
    header: Header,
    indices: np.ndarray,
    labels: np.ndarray,
    resolution: float,
    min_height_m: float,
    max_height_m: float,
    max_distance_m: float = 5.0,
) -> PointCloud2:
    """How far the nearest occupied cell is: the fields of DISTANCE, metres, at the centre of every known cell.

    Known and occupied are the cells that are not -1, and those that are 100, in occupancy_grid_message with
    free_is_known; z is min_height_m, the points go along x and then along y. The distance is that between the cells'
    centres, 0 in an occupied one; what is further than max_distance_m, or has no occupied cell at all, has
    max_distance_m: viewers take infinity for an invalid point. A distance says where obstacles are known to be and not
    that the way is free: what is unknown may hold one. Raises ValueError as occupancy_grid_message does, and where
    OpenCV is not installed.
    """
    cv2 = opencv("distances are found")
    corner, cells = _seen_from_above(indices, labels, resolution, min_height_m, max_height_m, _OCCUPANCY)
    occupied = cells > 0
    rows, columns = np.nonzero(cells >= 0)
    points = np.zeros(len(rows), DISTANCE)
    points["x"] = (columns + corner[0] + 0.5) * resolution
    points["y"] = (rows + corner[1] + 0.5) * resolution
    points["z"] = min_height_m
    points["distance"] = max_distance_m
    if occupied.any():
        # To the nearest zero.
        distance = cv2.distanceTransform((~occupied).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        points["distance"] = np.minimum(distance[rows, columns] * np.float32(resolution), max_distance_m)
    return cloud_message(header, points, DISTANCE, is_dense=True)


def _seen_from_above(
    indices: np.ndarray,
    labels: np.ndarray,
    resolution: float,
    min_height_m: float,
    max_height_m: float,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(corner (2,) int64, cells (height, width) int8) of the band: the x and y index of the columns in cell (0, 0), and
    for every column the highest of `values` (256,) int8, by label, among its known voxels, -1 where there is none.
    """
    lowest = math.ceil(min_height_m / resolution - 0.5 - BAND_TOLERANCE)
    highest = math.floor(max_height_m / resolution - 0.5 + BAND_TOLERANCE)
    used = np.flatnonzero((indices[:, 2] >= lowest) & (indices[:, 2] <= highest) & (labels != UNKNOWN))
    if not len(used):
        return np.zeros(2, np.int64), np.zeros((0, 0), np.int8)
    # Axis by axis: several times faster than by rows of two.
    x, y = (indices[:, axis][used].astype(np.int64) for axis in (0, 1))
    corner = np.array([x.min(), y.min()])
    width, height = int(x.max() - corner[0]) + 1, int(y.max() - corner[1]) + 1
    if width * height > MAX_GRID_CELLS:
        raise ValueError(
            f"the occupancy grid would have {width} x {height} cells: a voxel lies far off, check the poses (tf)"
        )
    cells = np.full(height * width, -1, np.int8)
    np.maximum.at(cells, (y - corner[1]) * width + (x - corner[0]), values[labels[used]])
    return corner, cells.reshape(height, width)


def _grid_message(
    header: Header, corner: np.ndarray, cells: np.ndarray, resolution: float, free_is_known: bool
) -> OccupancyGrid:
    """The cells of _seen_from_above as a message; free_is_known False: -1 in place of 0."""
    if not free_is_known:
        cells = np.where(cells == 0, np.int8(-1), cells)
    grid = OccupancyGrid(header=header)
    grid.info.resolution = float(resolution)
    grid.info.height, grid.info.width = cells.shape
    grid.info.origin.position.x, grid.info.origin.position.y = (float(c * resolution) for c in corner)
    grid.data = array("b", cells.tobytes())
    return grid
