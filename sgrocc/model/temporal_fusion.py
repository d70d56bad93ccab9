"""Temporal fusion: what a frame's Gaussians learn from what the memory holds at their places (eqs. 4 and 5)."""

from __future__ import annotations

import torch
from torch import nn

from sgrocc.memory.recall import history_size
from sgrocc.model.anchors import Anchors
from sgrocc.model.refinement import Refinement, RefinementConfig, Surface
from sgrocc.model.spatial_expert import gaussians_of
from sgrocc.model.voxels import GaussianTensors

#: What a hole in the depth counts as, metres: further than any surface, so that nothing is held by it.
_HOLE_M = 50.0
_SMALLEST = 1e-6


class IdentityFusion(nn.Module):
    """Eq. 4: F_fused = W_x F_curr + W_h F_hist + b, linear, so that W_h has a gradient although it begins at zero.

    Eq. 5: W_x = I, W_h = 0, b = 0 at the start. `identity` False begins at random, for the ablation.
    """

    def __init__(self, channels: int, history: int, identity: bool = True) -> None:
        super().__init__()
        self.current = nn.Linear(channels, channels)
        self.history = nn.Linear(history, channels, bias=False)
        if identity:
            nn.init.eye_(self.current.weight)
            nn.init.zeros_(self.current.bias)
            nn.init.zeros_(self.history.weight)

    def forward(self, current: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """(..., C) features and (..., H) what is remembered; returns (..., C)."""
        return self.current(current) + self.history(history)


class TemporalFusion(nn.Module):
    """A frame's Gaussians, given what the memory holds in their voxels. At the start it returns them as they are.

    The head is the refinement of the Spatial Expert, with its last layer at zero: moves along the ray (eq. 3), damped
    at surfaces by class (GRM). The memory scales what comes out by the update ratio as it blends (eq. 8).
    """

    def __init__(self, channels: int, refinement: RefinementConfig | None = None, identity: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.fusion = IdentityFusion(channels, history_size(channels), identity)
        self.refinement = Refinement(channels, refinement or RefinementConfig())
        nn.init.zeros_(self.refinement.head.weight)

    def forward(
        self, gaussians: GaussianTensors, history: torch.Tensor, depth: torch.Tensor, intrinsics: torch.Tensor
    ) -> GaussianTensors:
        """gaussians: (B, N, ...) in the camera frame; history: (B, N, H), see sgrocc.memory.recall; depth: (B, 1, H, W)
        metres along z, 0 where unknown; intrinsics: (B, 4) of that depth.
        """
        # torch.logit has operators that an engine lacks.
        opacities = gaussians.opacities.clamp(_SMALLEST, 1 - _SMALLEST)
        opacity_logits = torch.log(opacities) - torch.log(1 - opacities)
        # As rays of one anchor each.
        single = GaussianTensors(*(tensor[:, :, None] for tensor in gaussians))
        anchors = Anchors(
            single.means,
            torch.log(single.scales),
            single.rotations,
            opacity_logits[:, :, None, None],
            single.logits,
        )
        fused = self.fusion(single.features, history[:, :, None])
        surface = Surface(torch.where(depth > 0, depth, _HOLE_M), intrinsics)
        return gaussians_of(self.refinement(fused, anchors, surface, intrinsics), fused)
