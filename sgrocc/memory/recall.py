"""What the memory tells the learned fusion about a place: the history of eq. 4, as networks are given it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sgrocc.labels import NUM_CLASSES

#: Where along the ray of a place the map is asked as well, in voxels from it, towards the camera and away from it.
RAY_STEPS = (-6, -4, -2, -1, 1, 2, 4, 6)
#: After the feature and the class probabilities: whether a Gaussian lives there, whether it is a guess, its opacity,
#: whether the place was ever looked through; of the frame's own Gaussian, whether it is a guess and how far it lies
#: behind the surface in its pixel; and the occupancy and its weight there and along the ray.
_STATES = 6 + 2 * (1 + len(RAY_STEPS))


class History(NamedTuple):
    """Of N places in the world: features (N, F) and probabilities (N, 11) of the Gaussians that live there, zero where
    none does; lives, guess (N,) bool; opacities (N,); seen_through (N,) bool; occupancies, weights (N, 9): the mean
    occupancy of the place itself and at `RAY_STEPS` along its ray, and how much stands behind it, 0 to 1.
    """

    features: np.ndarray
    probabilities: np.ndarray
    lives: np.ndarray
    guess: np.ndarray
    opacities: np.ndarray
    seen_through: np.ndarray
    occupancies: np.ndarray
    weights: np.ndarray

    def vector(self, guess: np.ndarray, behind_m: np.ndarray) -> np.ndarray:
        """(N, history_size(F)) float32. guess: (N,) bool, whether the frame's Gaussians there are guesses; behind_m:
        (N,) how far behind the frame's surface they lie, metres along z, 0 where there is none.
        """
        states = self.lives, self.guess, self.opacities, self.seen_through, guess, np.clip(behind_m, -1.0, 1.0)
        columns = [np.asarray(state, np.float32)[:, None] for state in states]
        # What nothing is known of is neither free nor occupied.
        occupancies = np.where(self.weights > 0, self.occupancies - 0.5, 0.0)
        parts = [self.features, self.probabilities, *columns, occupancies, self.weights]
        return np.concatenate(parts, axis=1).astype(np.float32)


def history_size(features: int) -> int:
    """The width of `History.vector` for features of that size."""
    return features + NUM_CLASSES + _STATES
