"""Losses on voxels (EmbodiedOcc's: focal, Lovasz-softmax, semantic and geometric scale), on depth and on pixels.

Voxel losses take probabilities p (V, 12) of known voxels, channel 0 empty and 1 to 11 the classes, and labels (V,)
int64, 0 to 11. Each returns a scalar.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from sgrocc.labels import NUM_CLASSES, UNKNOWN

_EPSILON = 1e-6
#: 1 / ln(voxels of that label in the training set of Occ-ScanNet), empty first: EmbodiedOcc's weights.
_CLASS_WEIGHTS = (0.0457, 0.0741, 0.0568, 0.0570, 0.0665, 0.0592, 0.0618, 0.0608, 0.0589, 0.0801, 0.0580, 0.0621)


@dataclass
class LossWeights:
    """Weights of the losses; those of the voxels are EmbodiedOcc's, depth and pixel classes are ours."""

    focal: float = 100.0
    lovasz: float = 1.0
    semantic_scale: float = 1.0
    geometric_scale: float = 1.0
    depth: float = 1.0
    depth_gradient: float = 0.5
    image_classes: float = 0.5


def voxel_losses(p: torch.Tensor, labels: torch.Tensor, weights: LossWeights) -> dict[str, torch.Tensor]:
    """The weighted losses of voxels: focal, lovasz, semantic_scale, geometric_scale."""
    return {
        "focal": weights.focal * focal(p, labels),
        "lovasz": weights.lovasz * lovasz_softmax(p, labels),
        "semantic_scale": weights.semantic_scale * semantic_scale(p, labels),
        "geometric_scale": weights.geometric_scale * geometric_scale(p, labels),
    }


def focal(p: torch.Tensor, labels: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25) -> torch.Tensor:
    """Binary focal loss per channel, weighted by class, summed over channels, mean over voxels."""
    p = p.clamp(_EPSILON, 1 - _EPSILON)
    hit = p.gather(1, labels[:, None])[:, 0]
    weights = p.new_tensor(_CLASS_WEIGHTS)
    negative = -(1 - alpha) * p**gamma * torch.log1p(-p) * weights
    at_label = -(1 - alpha) * hit**gamma * torch.log1p(-hit) * weights[labels]
    positive = -alpha * (1 - hit) ** gamma * torch.log(hit) * weights[labels]
    return (negative.sum(dim=1) - at_label + positive).mean()


def lovasz_softmax(p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The Lovasz extension of the Jaccard loss (Berman et al., 2018), mean over the labels that are present."""
    losses = []
    for label in torch.unique(labels).tolist():
        truth = (labels == label).to(p.dtype)
        errors, order = torch.sort((truth - p[:, label]).abs(), descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        losses.append((errors * torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])).sum())
    return torch.stack(losses).mean()


def semantic_scale(p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log of precision, recall and specificity of each class that is present (MonoScene's scene-class affinity)."""
    one_hot = functional.one_hot(labels, 1 + NUM_CLASSES).to(p.dtype)
    return _affinity(p, one_hot)[1:][one_hot.sum(dim=0)[1:] > 0].mean() if (labels > 0).any() else p.sum() * 0


def geometric_scale(p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same of occupied against empty."""
    return _affinity(1 - p[:, :1], (labels > 0).to(p.dtype)[:, None]).mean()


def _affinity(p: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(C,) sums of the three -log figures, each left out where nothing is there to divide by."""
    hits = (p * truth).sum(dim=0)
    rejects = ((1 - p) * (1 - truth)).sum(dim=0)
    total = p.new_zeros(p.shape[1])
    for part, whole in ((hits, p.sum(dim=0)), (hits, truth.sum(dim=0)), (rejects, (1 - truth).sum(dim=0))):
        ratio = (part / whole.clamp_min(_EPSILON)).clamp(_EPSILON, 1.0)
        total = total - torch.where(whole > 0, torch.log(ratio), torch.zeros_like(ratio))
    return total


def log_depth_error(depth: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean |ln d - ln d*| over the pixels with true depth. (B, 1, H, W) metres, truth 0 where unknown."""
    known = truth > 0
    return _mean(_log_ratio(depth, truth, known).abs(), known)


def log_depth_gradient_error(depth: torch.Tensor, truth: torch.Tensor, scales: int = 3) -> torch.Tensor:
    """Mean difference of the gradients of ln d, at several pixel distances: edges where edges are, planes flat."""
    known = truth > 0
    error = _log_ratio(depth, truth, known)
    total = error.new_zeros(())
    for step in (2**i for i in range(scales)):
        for axis in (2, 3):
            length = error.shape[axis] - step
            pair = known.narrow(axis, step, length) & known.narrow(axis, 0, length)
            change = (error.narrow(axis, step, length) - error.narrow(axis, 0, length)).abs()
            total = total + _mean(change, pair)
    return total / (2 * scales)


def image_class_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of pixels: logits (B, 11, h, w), labels (B, h, w) uint8, 1 to 11, others are not counted."""
    target = torch.where(labels == UNKNOWN, 0, labels).long() - 1
    known = target >= 0
    loss = functional.cross_entropy(logits, target, ignore_index=-1, reduction="none")
    return _mean(loss, known)


def _log_ratio(depth: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return torch.where(known, torch.log(depth.clamp_min(1e-3)) - torch.log(torch.where(known, truth, 1.0)), 0.0)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)
