"""Rigid transforms (SE(3)) and unit quaternions. Quaternions are (w, x, y, z) throughout `sgrocc`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MAX_NORM_ERROR = 1e-2
_MAX_ORTHOGONALITY_ERROR = 1e-3


@dataclass(frozen=True)
class Pose:
    """A rigid transform from a child frame to its parent: x_parent = rotation @ x_child + translation.

    rotation: (3, 3) float64, orthonormal, determinant +1; translation: (3,) float64, metres.
    Raises ValueError where the numbers are not finite or not a rotation.
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self) -> None:
        rotation = np.asarray(self.rotation, np.float64)
        translation = np.asarray(self.translation, np.float64)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise ValueError(
                f"a pose needs a (3, 3) rotation and a (3,) translation, not {rotation.shape} and {translation.shape}"
            )
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise ValueError("the pose holds NaN or infinity: check the source of the transform")
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > _MAX_ORTHOGONALITY_ERROR or np.linalg.det(rotation) < 0:
            raise ValueError(
                f"the pose's rotation is not a rotation (R R^T is off by {error:.2g}): normalise it at its source"
            )
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @staticmethod
    def identity() -> Pose:
        return Pose(np.eye(3), np.zeros(3))

    @staticmethod
    def from_matrix(matrix: np.ndarray) -> Pose:
        """From a homogeneous (4, 4) matrix."""
        matrix = np.asarray(matrix, np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"a pose matrix is (4, 4), not {matrix.shape}")
        return Pose(matrix[:3, :3], matrix[:3, 3])

    @staticmethod
    def from_quaternion(quaternion_wxyz: np.ndarray, translation: np.ndarray) -> Pose:
        """From a (4,) quaternion (w, x, y, z) of unit length (to one percent) and a (3,) translation in metres."""
        quaternion = np.asarray(quaternion_wxyz, np.float64)
        norm = np.linalg.norm(quaternion)
        if not abs(norm - 1.0) <= _MAX_NORM_ERROR:
            raise ValueError(
                f"the pose's quaternion has length {norm:.3g} instead of 1: normalise it where the transform is sent"
            )
        return Pose(quaternion_to_matrix(quaternion / norm), translation)

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous (4, 4) float64 matrix."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    @property
    def quaternion(self) -> np.ndarray:
        """(4,) float64, (w, x, y, z), w >= 0."""
        return matrix_to_quaternion(self.rotation)

    def inverse(self) -> Pose:
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """Composition: (a @ b) first applies b, then a."""
        # Without the BLAS, whose last bits depend on the processor.
        rotation = (self.rotation[:, :, None] * other.rotation[None]).sum(axis=1)
        return Pose(rotation, self.apply(other.translation))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Transform (..., 3) points, metres; the result has the points' dtype."""
        points = np.asarray(points)
        dtype = points.dtype if np.issubdtype(points.dtype, np.floating) else np.float64
        # Column by column, not as a matrix product: a product this thin wakes all threads of the BLAS, which doubles
        # the CPU time, and its last bits depend on the processor.
        rotation, translation = self.rotation.astype(dtype), self.translation.astype(dtype)
        x, y, z = (points[..., k] for k in range(3))
        moved = np.empty(points.shape, dtype)
        for k in range(3):
            moved[..., k] = x * rotation[k, 0] + y * rotation[k, 1] + z * rotation[k, 2] + translation[k]
        return moved

    def interpolate(self, other: Pose, fraction: float) -> Pose:
        """The pose at `fraction` (0..1) of the way to `other`: linear in position, slerp in rotation."""
        translation = (1.0 - fraction) * self.translation + fraction * other.translation
        return Pose(quaternion_to_matrix(slerp(self.quaternion, other.quaternion, fraction)), translation)


def quaternion_to_matrix(quaternions: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions (w, x, y, z) to (..., 3, 3) rotation matrices of the same dtype."""
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotations: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 4) unit quaternions (w, x, y, z), w >= 0, of the same dtype."""
    m = np.asarray(rotations)
    trace = np.trace(m, axis1=-2, axis2=-1)
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    # Four times the square of each component; the largest one divides safely.
    squares = np.stack([1 + trace, *(1 + 2 * diagonal[..., i] - trace for i in range(3))], axis=-1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    candidates = np.stack(
        [
            np.stack([squares[..., 0], wx, wy, wz], -1),
            np.stack([wx, squares[..., 1], xy, xz], -1),
            np.stack([wy, xy, squares[..., 2], yz], -1),
            np.stack([wz, xz, yz, squares[..., 3]], -1),
        ],
        axis=-2,
    )
    largest = np.argmax(squares, axis=-1)
    quaternion = np.take_along_axis(candidates, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def multiply_quaternions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product a * b of (..., 4) quaternions (w, x, y, z); it rotates by b first, then by a."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def slerp(a: np.ndarray, b: np.ndarray, fraction: float) -> np.ndarray:
    """Spherical interpolation of two (4,) unit quaternions, the shorter way round."""
    cosine = float(np.dot(a, b))
    if cosine < 0:
        b, cosine = -b, -cosine
    if cosine > 1 - 1e-9:  # nearly equal: the sine below vanishes, the chord is as good as the arc
        mixed = (1 - fraction) * a + fraction * b
    else:
        angle = np.arccos(cosine)
        mixed = (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)
    return mixed / np.linalg.norm(mixed)
