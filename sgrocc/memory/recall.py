"""What the memory tells the learned fusion about a place: the history of eq. 4, as networks are given it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sgrocc.labels import NUM_CLASSES

#: After the feature and the class probabilities: whether a Gaussian lives there, whether it is a guess, its opacity,
#: the evidence (hits against see-throughs), whether the place was ever looked through, its splatted occupancy; and of
#: the frame's own Gaussian whether it is a guess and how far it lies behind the surface in its pixel.
_STATES = 8
#: Evidence, in frames, is divided by this: it is bounded by the memory's settings, which a network does not know.
_EVIDENCE_FRAMES = 8.0


class History(NamedTuple):
    """Of N places in the world: features (N, F) and probabilities (N, 11) of the Gaussians that live there, zero where
    none does; lives, guess (N,) bool; opacities (N,); evidence (N,) frames; seen_through (N,) bool; occupancy (N,).
    """

    features: np.ndarray
    probabilities: np.ndarray
    lives: np.ndarray
    guess: np.ndarray
    opacities: np.ndarray
    evidence: np.ndarray
    seen_through: np.ndarray
    occupancy: np.ndarray

    def vector(self, guess: np.ndarray, behind_m: np.ndarray) -> np.ndarray:
        """(N, history_size(F)) float32. guess: (N,) bool, whether the frame's Gaussians there are guesses; behind_m:
        (N,) how far behind the frame's surface they lie, metres along z, 0 where there is none.
        """
        states = (
            self.lives,
            self.guess,
            self.opacities,
            np.clip(self.evidence / _EVIDENCE_FRAMES, -1.0, 1.0),
            self.seen_through,
            self.occupancy,
            guess,
            np.clip(behind_m, -1.0, 1.0),
        )
        columns = [np.asarray(state, np.float32)[:, None] for state in states]
        return np.concatenate([self.features, self.probabilities, *columns], axis=1).astype(np.float32)


def history_size(features: int) -> int:
    """The width of `History.vector` for features of that size."""
    return features + NUM_CLASSES + _STATES
