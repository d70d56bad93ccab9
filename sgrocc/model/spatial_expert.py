"""The Spatial Expert: one image, its intrinsics and perhaps a depth image in, depth and semantic Gaussians out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M
from sgrocc.model.anchors import VECTOR_SIZE, AnchorConfig, Anchors, RandomAnchors, RayAnchors
from sgrocc.model.depth_priors import DepthPrior, OwnDepth, filled
from sgrocc.model.image_encoder import STRIDES, ImageEncoder
from sgrocc.model.lifting import Lifting, LiftingConfig
from sgrocc.model.mixing import LatticeMixing, NeighbourMixing
from sgrocc.model.rays import project, sample
from sgrocc.model.refinement import Refinement, RefinementConfig, Surface
from sgrocc.model.voxels import GaussianTensors
from sgrocc.splatting import AGGREGATIONS


@dataclass
class ExpertConfig:
    """What the model is made of; every part is a switch. channels: of queries and image features; width, height: of the
    image, pixels; blocks: of mixing, lifting and refinement; aggregation: of Gaussians to voxels, see sgrocc.splatting.
    """

    width: int = 320
    height: int = 240
    channels: int = 64
    blocks: int = 2
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    lifting: LiftingConfig = field(default_factory=LiftingConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    aggregation: str = "decoupled"

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"there is no aggregation {self.aggregation!r}: use {' or '.join(AGGREGATIONS)}")


class ExpertOutput(NamedTuple):
    """depth: (B, 1, H, W) metres along z, what the lifter used; own_depth: the network's; gaussians: (B, N, ...), in
    the camera frame; class_logits: (B, 11, H / 4, W / 4) of pixels; steps: the anchors' means (B, N, 3) as they began
    and after each block; gates: (B, H / stride, W / stride) from 0 to 1, what the last block's gate leaves to each ray
    of the lattice over the image (`mean_gate`), None without rays or without a gate.
    """

    depth: torch.Tensor
    own_depth: torch.Tensor
    gaussians: GaussianTensors
    class_logits: torch.Tensor
    steps: list[torch.Tensor]
    gates: torch.Tensor | None


class SpatialExpert(nn.Module):
    """imagenet: whether a new encoder begins with ImageNet weights; prior: another source of depth than the encoder's
    own head; it may be exchanged without training anything.
    """

    def __init__(self, config: ExpertConfig, imagenet: bool = True, prior: DepthPrior | None = None) -> None:
        super().__init__()
        self.config = config
        channels, size = config.channels, (config.height, config.width)
        self.encoder = ImageEncoder(channels, imagenet)
        self.prior = prior or OwnDepth()
        rays = config.anchors.kind == "rays"
        self.anchors = RayAnchors(config.anchors, size) if rays else RandomAnchors(config.anchors)
        if rays:
            self.seed = nn.Linear(channels * len(STRIDES), channels)
            samples = len(config.anchors.offsets_m)
            self.sample_embedding = nn.Parameter(0.1 * torch.randn(samples, channels))
        else:
            # EmbodiedOcc's depth-aware branch: the depth in the anchor's pixel and the anchor's own.
            self.seed = nn.Sequential(nn.Linear(2, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
        self.embedding = nn.Sequential(
            nn.Linear(VECTOR_SIZE + 2, channels), nn.ReLU(), nn.Linear(channels, channels), nn.LayerNorm(channels)
        )
        self.blocks = nn.ModuleList([_Block(config, self.anchors if rays else None) for _ in range(config.blocks)])
        self.empty_logit = nn.Parameter(torch.tensor(1.0)) if config.aggregation == "additive" else None

    def forward(
        self,
        image: torch.Tensor,
        intrinsics: torch.Tensor,
        sensor_depth: torch.Tensor | None = None,
        rotation: torch.Tensor | None = None,
        translation: torch.Tensor | None = None,
        prior_depth: torch.Tensor | None = None,
    ) -> ExpertOutput:
        """image: (B, 3, H, W), normalised; intrinsics: (B, 4) fx, fy, cx, cy; sensor_depth: (B, 1, H, W) metres, as
        measured, 0 where nothing was; rotation (B, 3, 3), translation (B, 3): camera to the box's corner, for random
        anchors alone; prior_depth: (B, 1, H, W) metres, instead of the prior's own, 0 where that stays: in training.
        """
        found = self.encoder(image, intrinsics)
        # The prior is trained by depth alone: what occupancy wants of it would make it a worse depth.
        depth = self.prior(image, intrinsics, found.depth).detach()
        if prior_depth is not None:
            depth = filled(prior_depth, depth)
        if sensor_depth is not None:
            depth = filled(sensor_depth, depth)
            measured = (sensor_depth > 0).to(depth.dtype)
        else:
            measured = torch.zeros_like(depth)
        size = (self.config.height, self.config.width)
        if isinstance(self.anchors, RayAnchors):
            pixels = self.anchors.pixels.expand(image.shape[0], -1, 1, 2)
            seen = torch.cat([sample(level, pixels, size, border=True) for level in found.levels], dim=1)
            queries = self.seed(seen.permute(0, 2, 3, 1)) + self.sample_embedding
            class_logits = sample(found.class_logits, pixels, size, border=True)
            anchors = self.anchors(depth, intrinsics, class_logits)
        else:
            anchors = self.anchors(rotation, translation)
            queries = self.seed(torch.cat([self._behind(anchors.means, depth, intrinsics), anchors.means[..., 2:]], -1))
        surface = Surface(depth, intrinsics)
        # Where a sensor measured, an anchor may trust the surface more.
        seen = torch.cat([depth, measured], dim=1)
        steps, gates = [anchors.means.flatten(1, 2)], None
        for block in self.blocks:
            behind = self._behind(anchors.means, seen, intrinsics)
            embedding = self.embedding(torch.cat([anchors.vector(), behind], dim=-1))
            queries, anchors, gates = block(queries, embedding, anchors, found.levels, depth, surface, intrinsics)
            steps.append(anchors.means.flatten(1, 2))
        gates = self.anchors.on_image(gates) if gates is not None and isinstance(self.anchors, RayAnchors) else None
        return ExpertOutput(depth, found.depth, gaussians_of(anchors, queries), found.class_logits, steps, gates)

    def _behind(self, means: torch.Tensor, maps: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
        """(B, R, S, C): how far an anchor lies behind the surface in its pixel, metres along z, and what else the maps
        (B, C, H, W), of which depth is the first, say there.
        """
        found = sample(maps, project(means, intrinsics), maps.shape[2:], border=True).permute(0, 2, 3, 1)
        return torch.cat([means[..., 2:] - found[..., :1], found[..., 1:]], dim=-1)


class _Block(nn.Module):
    def __init__(self, config: ExpertConfig, lattice: RayAnchors | None) -> None:
        super().__init__()
        channels = config.channels
        if lattice is None:
            self.mixing: nn.Module = NeighbourMixing(channels, VOXEL_M)
        else:
            self.mixing = LatticeMixing(channels, lattice.rows, lattice.columns, len(config.anchors.offsets_m))
        self.lifting = Lifting(channels, config.lifting)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.refinement = Refinement(channels, config.refinement)
        # Anchors that leave their ray no longer share its pixel: then each looks for itself.
        self.on_rays = config.refinement.move in ("ray", "none")

    def forward(self, queries, embedding, anchors: Anchors, levels, depth, surface: Surface, intrinsics):
        queries = queries + self.mixing(self.norms[0](queries + embedding), anchors)
        asked = self.norms[1](queries + embedding)
        if self.on_rays:
            lifted, gates = self.lifting(asked, anchors, levels, depth, intrinsics, show_gate=True)
        else:
            alone, single = asked.flatten(1, 2)[:, :, None], Anchors(*(a.flatten(1, 2)[:, :, None] for a in anchors))
            lifted, gates = self.lifting(alone, single, levels, depth, intrinsics, show_gate=True)
            lifted = lifted.view_as(queries)
            gates = None if gates is None else gates.view(asked.shape[:3])[..., 0]
        queries = queries + lifted
        queries = queries + self.feed_forward(queries)
        return queries, self.refinement(self.norms[2](queries + embedding), anchors, surface, intrinsics), gates


def gaussians_of(anchors: Anchors, queries: torch.Tensor) -> GaussianTensors:
    """Anchors as (B, N, ...) Gaussians; what the last block knows of each is its feature."""
    scales = torch.exp(anchors.log_scales)
    scales = torch.minimum(torch.maximum(scales, scales.new_tensor(MIN_SCALE_M)), scales.new_tensor(MAX_SCALE_M))
    return GaussianTensors(
        anchors.means.flatten(1, 2),
        scales.flatten(1, 2),
        anchors.rotations.flatten(1, 2),
        torch.sigmoid(anchors.opacity_logits).flatten(1, 3),
        anchors.logits.flatten(1, 2),
        queries.flatten(1, 2),
    )
