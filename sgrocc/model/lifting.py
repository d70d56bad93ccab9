"""Lifting: image features to anchors, gated by depth (eqs. 1 and 2 of the paper)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sgrocc.model.anchors import Anchors
from sgrocc.model.image_encoder import STRIDES
from sgrocc.model.rays import project, sample
from sgrocc.model.rotations import quaternion_to_matrix

GATES = ("soft", "hard", "none")
POINTS = ("learned", "projection", "fixed")
READINGS = ("bilinear", "nearest")
_SMALLEST_TOLERANCE_M = 0.05
#: Share of its reach within which every learned point begins: beyond, it would have no gradient, or be no number.
_WITHIN_REACH = 0.95
#: EmbodiedOcc's key points, in standard deviations of the Gaussian along its axes.
_KEY_POINTS = ((0, 0, 0), (0.45, 0, 0), (-0.45, 0, 0), (0, 0.45, 0), (0, -0.45, 0), (0, 0, 0.45), (0, 0, -0.45))


@dataclass
class LiftingConfig:
    """points: `learned` samples `count` pixels around the anchor's own, `projection` its own alone, `fixed`
    EmbodiedOcc's seven key points; gate: `soft` (eq. 2), `hard` (a step at `tolerance_m`), or none.

    tolerance_m: sigma at the start, and alpha 1; both are learned. reach_px: how far a learned point may go.
    reading: `bilinear`, or `nearest`: whole rows of channels, of all levels at the finest one's size, at once. That is
    many times faster on a CPU and moves no point by more than half a cell (2 px); points learn nothing from it, so it
    is for what was trained with the other.
    """

    points: str = "learned"
    gate: str = "soft"
    count: int = 16
    tolerance_m: float = 0.5
    groups: int = 4
    reach_px: float = 32.0
    dropout: float = 0.0
    reading: str = "bilinear"

    def __post_init__(self) -> None:
        choices = (("points", self.points, POINTS), ("gate", self.gate, GATES), ("reading", self.reading, READINGS))
        for what, value, known in choices:
            if value not in known:
                raise ValueError(f"lifting knows no {what} {value!r}: use {', '.join(known)}")
        if self.tolerance_m <= _SMALLEST_TOLERANCE_M:
            raise ValueError(f"tolerance_m is {self.tolerance_m:g}: it must be above {_SMALLEST_TOLERANCE_M:g} m")

    @property
    def samples(self) -> int:
        """K: pixels that one anchor looks at."""
        return {"learned": self.count, "projection": 1, "fixed": len(_KEY_POINTS)}[self.points]


def soft_gate(residual_m: torch.Tensor, sharpness: torch.Tensor, tolerance_m: torch.Tensor) -> torch.Tensor:
    """Eq. 2: exp(-alpha r^2 / (2 sigma^2)), 1 where the depths agree. All broadcast."""
    return torch.exp(-sharpness * residual_m * residual_m / (2 * tolerance_m * tolerance_m))


class Lifting(nn.Module):
    """F(x) = sum over levels and points of A * G * Phi(p + dp); A a softmax from the query, G not normalised again.

    The anchors of a ray project to one pixel, so they share the points and what is read there; weights and gates are
    each anchor's own. That reads the maps S times less often than an anchor at a time would.
    """

    def __init__(self, channels: int, config: LiftingConfig) -> None:
        super().__init__()
        self.config = config
        self.levels, self.groups = len(STRIDES), config.groups
        k = config.samples
        if config.points == "learned":
            self.offsets = nn.Linear(channels, 2 * k)
            nn.init.zeros_(self.offsets.weight)
            start = _rings(k) / config.reach_px
            start = start / max(1.0, float(start.abs().max()) / _WITHIN_REACH)
            with torch.no_grad():
                self.offsets.bias.copy_(torch.atanh(start).view(-1))
        self.weights = nn.Linear(channels, self.levels * k * self.groups)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        self.log_sharpness = nn.Parameter(torch.zeros(self.groups))
        start = config.tolerance_m - _SMALLEST_TOLERANCE_M
        self.raw_tolerance = nn.Parameter(torch.tensor(math.log(math.expm1(start))))
        for parameter in (self.log_sharpness, self.raw_tolerance):
            parameter.requires_grad_(config.gate == "soft")
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(channels, channels)

    @property
    def tolerance_m(self) -> torch.Tensor:
        """sigma of eq. 2, metres, learned, above 5 cm."""
        return _SMALLEST_TOLERANCE_M + functional.softplus(self.raw_tolerance)

    def forward(
        self,
        queries: torch.Tensor,
        anchors: Anchors,
        levels: list[torch.Tensor],
        depth: torch.Tensor,
        intrinsics: torch.Tensor,
        show_gate: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """queries: (B, R, S, C); depth: (B, 1, H, W) metres. Returns (B, R, S, C), with `show_gate` (that, the gates'
        `mean_gate`).
        """
        batch, rays, samples, channels = queries.shape
        size = (depth.shape[2], depth.shape[3])
        pixels = self.sampled_pixels(queries, anchors, intrinsics)
        k, groups = pixels.shape[2], self.groups
        read = read_nearest if self.config.reading == "nearest" else read_bilinear
        values = read(levels, pixels, size, groups).flatten(3, 4)  # (B, G, R, L * K, C / G)
        # One product gives each group's weights in the order of the values, and nothing large is transposed.
        matrix = self.weights.weight.view(groups, self.levels * k, channels).transpose(1, 2)
        bias = self.weights.bias.view(groups, 1, self.levels * k)
        weights = queries.view(batch, 1, rays * samples, channels) @ matrix + bias
        weights = self.dropout(torch.softmax(weights, dim=-1))
        gate = self.gates(anchors, pixels, depth)
        if gate is not None:
            weights = weights.view(batch, groups, rays, samples, self.levels, k) * gate[..., None, :]
        lifted = weights.view(batch, groups, rays, samples, self.levels * k) @ values  # (B, G, R, S, C / G)
        lifted = self.out(lifted.permute(0, 2, 3, 1, 4).reshape(batch, rays, samples, channels))
        return (lifted, mean_gate(gate)) if show_gate else lifted

    def sampled_pixels(self, queries: torch.Tensor, anchors: Anchors, intrinsics: torch.Tensor) -> torch.Tensor:
        """(B, R, K, 2) pixels that the anchors of each ray look at."""
        if self.config.points == "fixed":
            axes = quaternion_to_matrix(anchors.rotations) * torch.exp(anchors.log_scales)[..., None, :]
            keys = queries.new_tensor(_KEY_POINTS)
            points = anchors.means[..., None, :] + (axes[..., None, :, :] * keys[:, None, :]).sum(dim=-1)
            return project(points[:, :, 0], intrinsics)
        own = project(anchors.means[:, :, :1], intrinsics)
        if self.config.points == "projection":
            return own
        reach = torch.tanh(self.offsets(queries.mean(dim=2))) * self.config.reach_px
        return own + reach.view(*reach.shape[:2], -1, 2)

    def gates(self, anchors: Anchors, pixels: torch.Tensor, depth: torch.Tensor) -> torch.Tensor | None:
        """(B, G or 1, R, S, K): each point's weight by how well the depth there agrees with the anchor's (eq. 2); None
        without a gate. Points outside the image read features of 0, whatever their gate.
        """
        if self.config.gate == "none":
            return None
        seen = sample(depth, pixels, (depth.shape[2], depth.shape[3]), border=True)[:, 0]
        residual = (anchors.means[..., 2:] - seen[:, :, None, :])[:, None]
        if self.config.gate == "hard":
            return (residual.abs() < self.config.tolerance_m).to(residual.dtype)
        return soft_gate(residual, torch.exp(self.log_sharpness).view(1, -1, 1, 1, 1), self.tolerance_m)


def mean_gate(gate: torch.Tensor | None) -> torch.Tensor | None:
    """(B, R) from 0 to 1 of gates (B, G or 1, R, S, K): the first anchor's of each ray, the one on the surface, its
    mean over groups and points; None of None. To look at, without a gradient: near 1 where the depth changes little
    within the points' reach, low beside a step in it, where the points on the other side are shut out.

    Not of the anchors further in: they are gated everywhere, by what lies before them. Not the least over the points:
    one of sixteen across an edge, or a floor seen at a low angle, makes that 0.
    """
    return None if gate is None else gate[:, :, :, 0].mean(dim=(1, 3)).detach()


def read_bilinear(
    levels: list[torch.Tensor], pixels: torch.Tensor, image_size: tuple[int, int], groups: int
) -> torch.Tensor:
    """What maps (B, C, h, w) of L levels say at pixels (B, R, K, 2), 0 outside the image: (B, G, R, L, K, C / G)."""
    read = torch.stack([sample(level, pixels, image_size) for level in levels], dim=1)  # (B, L, C, R, K)
    batch, count, _, rays, k = read.shape
    return read.view(batch, count, groups, -1, rays, k).permute(0, 2, 4, 1, 5, 3)


def read_nearest(
    levels: list[torch.Tensor], pixels: torch.Tensor, image_size: tuple[int, int], groups: int
) -> torch.Tensor:
    """The same of the cells of the finest level, to whose size the others are brought."""
    batch, count = pixels.shape[0], len(levels)
    height, width = levels[0].shape[2:]
    maps = [levels[0], *(functional.interpolate(level, (height, width), mode="bilinear") for level in levels[1:])]
    maps = torch.stack(maps, dim=1).view(batch * count * groups, -1, height * width).transpose(1, 2)
    # Behind the last row one of zeros, for what lies outside.
    rows = functional.pad(maps.reshape(-1, maps.shape[2]), (0, 0, 0, 1))
    cell = torch.floor((pixels + 0.5) * (pixels.new_tensor([width, height]) / pixels.new_tensor(image_size[::-1])))
    near = torch.minimum(functional.relu(cell), cell.new_tensor([width - 1, height - 1]))
    outside = (near - cell).abs().sum(dim=-1) > 0
    index = (near[..., 1] * width + near[..., 0]).to(torch.int64)
    first = torch.arange(batch * count * groups, device=pixels.device) * (height * width)
    first = first.view(batch, count, groups).transpose(1, 2)[:, :, None, :, None]
    index = torch.where(outside[:, None, :, None], rows.shape[0] - 1, index[:, None, :, None] + first)
    return functional.embedding(index, rows)


def _rings(count: int) -> torch.Tensor:
    """(count, 2) pixels: the centre, then rings of growing radius, where the learned points begin."""
    points = [(0.0, 0.0)]
    for index in range(count - 1):
        ring, place = divmod(index, 5)
        angle = 2 * math.pi * (place + 0.5 * ring) / 5
        points.append((5.0 * (ring + 1) * math.cos(angle), 5.0 * (ring + 1) * math.sin(angle)))
    return torch.tensor(points)
