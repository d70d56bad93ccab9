"""How far a remembered Gaussian is confirmed by the current frame: the paper's equations 6, 7 and 8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgrocc.gaussians import Gaussians

#: What may confirm a remembered Gaussian.
CONFIDENCES = ("hybrid", "geometric", "semantic", "none")


def geometric_confidence(projected_depth: np.ndarray, depth: np.ndarray, sigma_m: np.ndarray) -> np.ndarray:
    """Eq. 6: C_geo = exp(-(d_proj - d_pred)^2 / (2 sigma_c^2)).

    projected_depth: (N,) camera z of the anchors, metres; depth: (N,) the frame's depth at their pixels, metres;
    sigma_m: (N,) or scalar tolerance, metres. Returns (N,) in [0, 1].
    """
    return np.exp(-0.5 * np.square((projected_depth - depth) / sigma_m))


def semantic_confidence(logits: np.ndarray, temperature: float, lowest: float, highest: float) -> np.ndarray:
    """Eq. 7: C_sem = clip((max_k softmax(z / T)_k - tau_min) / (tau_max - tau_min), 0, 1), for (N, 11) logits."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    largest = 1.0 / np.exp(scaled).sum(axis=-1)
    return np.clip((largest - lowest) / (highest - lowest), 0.0, 1.0)


def hybrid_confidence(
    tag: np.ndarray, geometric: np.ndarray | float, semantic: np.ndarray | float, confirmed_by: str = "hybrid"
) -> np.ndarray:
    """Eq. 8: C_hyb = M_tag C_geo C_sem, (N,); the tag is 1 for a remembered anchor and 0 for a new one. confirmed_by:
    one of CONFIDENCES, for what is left out of the product (none: the confidence is 0).

    1 - C_hyb is the update ratio: 0 leaves a verified anchor as it is, 1 writes it anew.
    """
    product = {"hybrid": geometric * semantic, "geometric": geometric, "semantic": semantic, "none": 0.0}
    return tag * product[confirmed_by]


@dataclass(frozen=True)
class Confirmation:
    """How far a frame confirmed N remembered Gaussians that it sees: `gaussians`, as they were before it, in the global
    frame; geometric, semantic and hybrid confidences, (N,) each, the last with the parts that the memory is set to use.
    """

    gaussians: Gaussians
    geometric: np.ndarray
    semantic: np.ndarray | float
    hybrid: np.ndarray

    def select(self, chosen: np.ndarray) -> Confirmation:
        """Those of a (N,) mask, with an array for each confidence."""
        parts = (np.broadcast_to(c, len(chosen))[chosen] for c in (self.geometric, self.semantic, self.hybrid))
        return Confirmation(self.gaussians.select(chosen), *parts)
