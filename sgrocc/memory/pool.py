"""The remembered Gaussians: a growing structure of arrays with holes that are used again."""

from __future__ import annotations

import numpy as np

from sgrocc.gaussians import Gaussians


class GaussianPool:
    """Gaussians by index, with the address of the voxel that each lives in, the frame that last saw it, and whether it
    is a guess."""

    def __init__(self, feature_size: int = 0) -> None:
        self.clear(feature_size)

    def clear(self, feature_size: int = 0) -> None:
        self.arrays = {name: array.copy() for name, array in Gaussians.empty(feature_size).arrays().items()}
        self.address = np.zeros(0, np.int64)  # -1 marks a hole
        self.last_seen = np.zeros(0, np.int64)
        self.guess = np.zeros(0, bool)  # never seen: it was inferred
        self._holes = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.address) - len(self._holes)

    @property
    def feature_size(self) -> int:
        return self.arrays["features"].shape[1]

    def alive(self) -> np.ndarray:
        """(N,) int64 indices in use, ascending."""
        return np.flatnonzero(self.address >= 0)

    def gaussians(self, index: np.ndarray) -> Gaussians:
        return Gaussians(*(array[index] for array in self.arrays.values()))

    def insert(self, gaussians: Gaussians, addresses: np.ndarray, frame: int, guess: bool = False) -> np.ndarray:
        """Add Gaussians; returns their (M,) indices."""
        missing = len(gaussians) - len(self._holes)
        if missing > 0:
            self._grow(max(missing, len(self.address), 1024))
        index, self._holes = self._holes[: len(gaussians)], self._holes[len(gaussians) :]
        self.write(index, gaussians)
        self.address[index] = addresses
        self.last_seen[index] = frame
        self.guess[index] = guess
        return index

    def write(self, index: np.ndarray, gaussians: Gaussians) -> None:
        for name, values in gaussians.arrays().items():
            self.arrays[name][index] = values

    def remove(self, index: np.ndarray) -> None:
        self.address[index] = -1
        self._holes = np.sort(np.concatenate([self._holes, index]))

    def _grow(self, count: int) -> None:
        old = len(self.address)
        for name, array in self.arrays.items():
            self.arrays[name] = np.concatenate([array, np.zeros((count, *array.shape[1:]), array.dtype)])
        self.address = np.concatenate([self.address, np.full(count, -1, np.int64)])
        self.last_seen = np.concatenate([self.last_seen, np.zeros(count, np.int64)])
        self.guess = np.concatenate([self.guess, np.zeros(count, bool)])
        self._holes = np.concatenate([self._holes, np.arange(old, old + count)])
