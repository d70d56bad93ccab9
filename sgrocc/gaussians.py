"""Semantic Gaussians as a structure of arrays: what an expert predicts and what the memory keeps."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sgrocc.geometry.pose import Pose, multiply_quaternions, quaternion_to_matrix
from sgrocc.labels import NUM_CLASSES

#: Bounds of a Gaussian's standard deviations, metres: the cost of splatting follows the number of voxels touched.
MIN_SCALE_M, MAX_SCALE_M = 0.01, 0.16


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians; every array is float32.

    means (N, 3) metres; scales (N, 3) metres, standard deviations along the local axes; rotations (N, 4) unit
    quaternions (w, x, y, z), local axes to frame; opacities (N,) in [0, 1]; logits (N, 11) class scores before the
    softmax; features (N, F), F may be 0.
    """

    means: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    opacities: np.ndarray
    logits: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.means)
        widths = {"means": 3, "scales": 3, "rotations": 4, "logits": NUM_CLASSES}
        for name, array in self.arrays().items():
            array = np.ascontiguousarray(array, np.float32)
            shape = (count,) if name == "opacities" else (count, widths.get(name, array.shape[-1]))
            if array.shape != shape:
                raise ValueError(f"Gaussians' {name} have shape {array.shape} instead of {shape}")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.means)

    @staticmethod
    def empty(feature_size: int = 0) -> Gaussians:
        widths = (3, 3, 4, None, NUM_CLASSES, feature_size)
        return Gaussians(*(np.zeros((0,) if w is None else (0, w), np.float32) for w in widths))

    @staticmethod
    def joined(*parts: Gaussians) -> Gaussians:
        """All Gaussians of some sets, in that order."""
        columns = zip(*(part.arrays().values() for part in parts), strict=True)
        return Gaussians(*(np.concatenate(arrays) for arrays in columns))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def select(self, index: np.ndarray) -> Gaussians:
        """The Gaussians at `index` (integers or a mask)."""
        return Gaussians(*(array[index] for array in self.arrays().values()))

    def transformed(self, pose: Pose) -> Gaussians:
        """The same Gaussians in the parent frame of `pose`: q_parent = q_pose * q_child, scales unchanged."""
        rotations = multiply_quaternions(pose.quaternion.astype(np.float32), self.rotations)
        return Gaussians(pose.apply(self.means), self.scales, rotations, self.opacities, self.logits, self.features)

    def covariances(self) -> np.ndarray:
        """(N, 3, 3) float32, Sigma = R S^2 R^T."""
        axes = quaternion_to_matrix(self.rotations) * self.scales[:, None, :]
        return axes @ np.swapaxes(axes, -1, -2)

    def finite(self) -> np.ndarray:
        """(N,) bool, which are usable: finite numbers, positive scales, unit rotations, opacity in [0, 1]."""
        usable = np.ones(len(self), bool)
        for array in self.arrays().values():
            finite = np.isfinite(array)
            if not finite.all():  # row by row only where something is wrong
                usable &= finite.reshape(len(self), -1).all(axis=1)
        usable &= (self.scales > 0).all(axis=1) & (self.opacities >= 0) & (self.opacities <= 1)
        return usable & (np.abs(np.linalg.norm(self.rotations, axis=1) - 1) < 1e-3)
