"""Axis-aligned voxel grids, with the convention of Occ-ScanNet: centre = origin + (index + 0.5) * resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VoxelGrid:
    """origin: (3,) float64 metres, the corner of voxel (0, 0, 0); shape: voxels along x, y, z; resolution: metres."""

    origin: np.ndarray
    shape: tuple[int, int, int]
    resolution: float

    def __post_init__(self) -> None:
        origin = np.asarray(self.origin, np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"a grid's origin is three finite numbers in metres, not {self.origin!r}")
        if not (np.isfinite(self.resolution) and self.resolution > 0):
            raise ValueError(f"a grid's resolution is a positive length in metres, not {self.resolution!r}")
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @staticmethod
    def covering(points: np.ndarray, resolution: float, margin_voxels: int = 0) -> VoxelGrid:
        """The smallest grid with its corner at a multiple of `resolution` that holds all (N, 3) points."""
        points = np.asarray(points, np.float64)
        if not len(points):
            raise ValueError("a grid cannot cover no points: the recording has no valid depth")
        low = np.floor(points.min(axis=0) / resolution).astype(int) - margin_voxels
        high = np.floor(points.max(axis=0) / resolution).astype(int) + 1 + margin_voxels
        return VoxelGrid(low * resolution, tuple(high - low), resolution)

    def index_of(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points in metres to (..., 3) int64 voxel indices; those outside the grid are outside [0, shape)."""
        return np.floor((np.asarray(points, np.float64) - self.origin) / self.resolution).astype(np.int64)

    def centre_of(self, indices: np.ndarray) -> np.ndarray:
        """(..., 3) voxel indices to (..., 3) float64 centres in metres."""
        return self.origin + (np.asarray(indices) + 0.5) * self.resolution

    def contains(self, indices: np.ndarray) -> np.ndarray:
        """(...) bool, whether (..., 3) voxel indices are inside."""
        return ((indices >= 0) & (indices < np.array(self.shape))).all(axis=-1)

    def centres(self) -> np.ndarray:
        """(X, Y, Z, 3) float64 centres of all voxels, metres."""
        return self.centre_of(np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), axis=-1))
