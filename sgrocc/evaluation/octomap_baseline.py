"""OctoMap on the same depth: the yardstick beside which every score is shown. Needs `pyoctomap`."""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from sgrocc.evaluation.ground_truth import points_of
from sgrocc.evaluation.occupancy import Occupancy, voxels_between
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, GENERIC, UNKNOWN


def available() -> bool:
    """Whether pyoctomap is installed (it has no wheel for aarch64)."""
    return importlib.util.find_spec("pyoctomap") is not None


class OctomapBaseline:
    """An OctoMap with its own default sensor model, fed every valid depth pixel. `cpu_s`: CPU seconds spent in `add`.

    Raises ImportError, with the cure, where pyoctomap is not installed.
    """

    def __init__(self, resolution: float = 0.08, min_depth_m: float = 0.3, max_depth_m: float = 4.0) -> None:
        if not available():
            raise ImportError("the OctoMap baseline needs pyoctomap: pip install pyoctomap (x86-64 only)")
        import pyoctomap

        self.resolution = float(resolution)
        self.min_depth_m = min_depth_m
        self.max_depth_m = max_depth_m
        self.cpu_s = 0.0
        self._tree = pyoctomap.OcTree(self.resolution)

    def add(self, depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose) -> None:
        """Insert one frame. depth: (h, w) float32, metres along z, of the camera's size; ValueError where it is not."""
        start_s = time.process_time()
        points, _ = points_of(depth, camera, camera_to_world, self.min_depth_m, self.max_depth_m)
        if len(points):
            self._tree.insertPointCloud(points, camera_to_world.translation.copy(), discretize=True)
        self.cpu_s += time.process_time() - start_s

    def result(self, grid: VoxelGrid, frame_id: str) -> Occupancy:
        """The map in the box `grid`: occupied (generic), free or unknown; the probability is 1 where occupied.

        Raises ValueError where the grid's voxels are not the tree's.
        """
        voxels_between(VoxelGrid(np.zeros(3), grid.shape, self.resolution), grid)
        states = np.asarray(self._tree.getLabels(grid.centres().reshape(-1, 3))).reshape(grid.shape)
        labels = np.full(grid.shape, UNKNOWN, np.uint8)
        labels[states == 0] = FREE
        labels[states == 1] = GENERIC
        return Occupancy(labels, (states == 1).astype(np.float32), grid.origin, self.resolution, frame_id)
