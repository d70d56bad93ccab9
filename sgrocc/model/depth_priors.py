"""Depth priors: where the expert's depth comes from. They swap without training: features stay the expert's own."""

from __future__ import annotations

import torch
from torch import nn


class DepthPrior(nn.Module):
    """image: (B, 3, H, W), normalised as the expert's encoder wants it; intrinsics: (B, 4); own_depth: (B, 1, H, W),
    what the expert's encoder makes of the image. Returns (B, 1, H, W) metres along z, all above 0.
    """

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, own_depth: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class OwnDepth(DepthPrior):
    """The compact prior: the head of the expert's own encoder."""

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, own_depth: torch.Tensor) -> torch.Tensor:
        return own_depth


def filled(given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The given depth, and in its holes the network's own, scaled to it by the mean ratio where both are.

    (B, 1, H, W) metres; given is 0 where it has a hole, all of it where nothing is given.
    """
    valid = (given > 0).to(own.dtype)
    ratio = torch.log(torch.where(given > 0, given, own)) - torch.log(own)
    mean = ratio.sum(dim=(1, 2, 3), keepdim=True) / (valid.sum(dim=(1, 2, 3), keepdim=True) + 1.0)
    return torch.where(given > 0, given, own * torch.exp(mean))
