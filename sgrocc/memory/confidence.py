"""How far a remembered Gaussian is confirmed by the current frame: the paper's equations 6, 7 and 8."""

from __future__ import annotations

import numpy as np


def geometric_confidence(projected_depth: np.ndarray, depth: np.ndarray, sigma_m: np.ndarray) -> np.ndarray:
    """Eq. 6: C_geo = exp(-(d_proj - d_pred)^2 / (2 sigma_c^2)).

    projected_depth: (N,) camera z of the anchors, metres; depth: (N,) the frame's depth at their pixels, metres;
    sigma_m: (N,) or scalar tolerance, metres. Returns (N,) in [0, 1].
    """
    return np.exp(-0.5 * np.square((projected_depth - depth) / sigma_m))


def semantic_confidence(
    logits: np.ndarray, temperature: float = 0.5, lowest: float = 0.2, highest: float = 0.8
) -> np.ndarray:
    """Eq. 7: C_sem = clip((max_k softmax(z / T)_k - tau_min) / (tau_max - tau_min), 0, 1), for (N, 11) logits."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    largest = 1.0 / np.exp(scaled).sum(axis=-1)
    return np.clip((largest - lowest) / (highest - lowest), 0.0, 1.0)


def hybrid_confidence(tag: np.ndarray, geometric: np.ndarray, semantic: np.ndarray | float) -> np.ndarray:
    """Eq. 8: C_hyb = M_tag C_geo C_sem; the tag is 1 for a remembered anchor and 0 for a new one.

    1 - C_hyb is the update ratio: 0 leaves a verified anchor as it is, 1 writes it anew.
    """
    return tag * geometric * semantic
