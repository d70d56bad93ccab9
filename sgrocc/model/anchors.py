"""Anchors: where the expert's Gaussians begin, and what they are before the network has changed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M
from sgrocc.labels import NUM_CLASSES
from sgrocc.model.rays import back_project, unit
from sgrocc.model.rotations import turn_to

KINDS = ("rays", "random")
#: EmbodiedOcc's scales of random anchors reach from 1 to 8 cm, and begin anywhere between; ours begin in the middle.
_RANDOM_SCALE_M = 0.045
_RANDOM_OPACITY = 0.1


@dataclass
class AnchorConfig:
    """kind: `rays` seeds `len(offsets_m)` anchors on the ray of every `stride`-th pixel, at the depth there and further
    in, and on rays up to `margin` strides beyond the image's edges; `random` draws `count` anchors in the box of
    `box_m` (the local grid) in front of the camera.

    lateral_scale: standard deviation across the ray, in distances between neighbouring rays; scales follow the depth.
    """

    kind: str = "rays"
    stride: int = 8
    offsets_m: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.8, 1.2, 1.65, 2.15)
    margin: int = 0
    lateral_scale: float = 0.6
    count: int = 16_200
    box_m: tuple[float, float, float] = (4.8, 4.8, 2.88)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there are no {self.kind!r} anchors: use {' or '.join(KINDS)}")
        if not self.offsets_m or any(b <= a for a, b in zip(self.offsets_m, self.offsets_m[1:])):
            raise ValueError(f"offsets_m must rise from the surface inwards, not be {self.offsets_m}")


class Anchors(NamedTuple):
    """A batch of R rays with S anchors each, in the camera frame; random anchors are rays of one.

    means (B, R, S, 3) metres; log_scales (B, R, S, 3), of metres; rotations (B, R, S, 4) unit quaternions;
    opacity_logits (B, R, S, 1); logits (B, R, S, 11).
    """

    means: torch.Tensor
    log_scales: torch.Tensor
    rotations: torch.Tensor
    opacity_logits: torch.Tensor
    logits: torch.Tensor

    def vector(self) -> torch.Tensor:
        """(B, R, S, 22): all of it, of the size of one."""
        parts = (0.3 * self.means, self.log_scales + 3.0, self.rotations, 0.3 * self.opacity_logits, 0.3 * self.logits)
        return torch.cat(parts, dim=-1)


#: Width of Anchors.vector.
VECTOR_SIZE = 3 + 3 + 4 + 1 + NUM_CLASSES


class RayAnchors(nn.Module):
    """Anchors on the rays of a lattice of pixels (after GPOcc's inward samples), R = rows * columns, rows first."""

    def __init__(self, config: AnchorConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        height, width = image_size
        stride, margin = config.stride, config.margin
        if height % stride or width % stride:
            raise ValueError(f"the image of {width} x {height} pixels is no multiple of the stride {stride}")
        self.rows, self.columns = height // stride + 2 * margin, width // stride + 2 * margin
        rows, columns = torch.arange(self.rows) - margin, torch.arange(self.columns) - margin
        v, u = torch.meshgrid(rows * stride + stride // 2, columns * stride + stride // 2, indexing="ij")
        self.register_buffer("pixels", torch.stack([u, v], dim=-1).float().view(1, -1, 1, 2), persistent=False)
        offsets = torch.tensor(config.offsets_m)
        self.register_buffer("offsets_m", offsets.view(1, 1, -1, 1), persistent=False)
        # Half the way to the neighbours, so that what lies between two samples is covered by both.
        padded = torch.cat([offsets[:1] - (offsets[1:2] - offsets[:1] if len(offsets) > 1 else 0.1), offsets])
        along = torch.diff(padded) * 0.5
        self.register_buffer("along_m", along.view(1, 1, -1, 1), persistent=False)
        self.opacity_bias = nn.Parameter(torch.linspace(1.0, -1.0, len(offsets)).view(1, 1, -1, 1))

    def on_image(self, values: torch.Tensor) -> torch.Tensor:
        """(B, R) values of rays as the lattice over the image, (B, H / stride, W / stride): the margin is left out."""
        margin = self.config.margin
        lattice = values.view(-1, self.rows, self.columns)
        return lattice[:, margin : self.rows - margin, margin : self.columns - margin]

    def forward(self, depth: torch.Tensor, intrinsics: torch.Tensor, class_logits: torch.Tensor) -> Anchors:
        """depth: (B, 1, H, W) metres along z; class_logits: (B, 11, R, 1), what each ray's pixel shows."""
        half = self.config.stride // 2
        seeds = depth[:, :, half :: self.config.stride, half :: self.config.stride]
        if self.config.margin:
            seeds = functional.pad(seeds, (self.config.margin,) * 4, mode="replicate")
        batch, samples = depth.shape[0], self.offsets_m.shape[2]
        surface = back_project(self.pixels.expand(batch, -1, 1, 2), seeds.reshape(batch, -1, 1, 1), intrinsics)
        direction = unit(surface)
        means = surface + self.offsets_m * direction
        focal = intrinsics[:, :1].reshape(batch, 1, 1, 1)
        lateral = (self.config.lateral_scale * self.config.stride) * means[..., 2:] / focal
        along = self.along_m.expand(batch, means.shape[1], -1, -1)
        scales = torch.cat([lateral, lateral, along], dim=-1)
        lowest, highest = scales.new_tensor(MIN_SCALE_M), scales.new_tensor(MAX_SCALE_M)
        scales = torch.minimum(torch.maximum(scales, lowest), highest)
        logits = class_logits.permute(0, 2, 3, 1).expand(-1, -1, samples, -1)
        opacity_logits = self.opacity_bias.expand(batch, means.shape[1], -1, -1)
        rotations = turn_to(direction).expand(-1, -1, samples, -1)
        return Anchors(means, torch.log(scales), rotations, opacity_logits, logits)


class RandomAnchors(nn.Module):
    """EmbodiedOcc's anchors: uniform in the local box, drawn anew in training and always the same in evaluation."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("fixed", torch.rand(config.count, 3, generator=generator), persistent=False)

    def forward(self, rotation: torch.Tensor, translation: torch.Tensor) -> Anchors:
        """rotation (B, 3, 3), translation (B, 3): camera to the box's corner. Axes stay those of the box."""
        batch, count = rotation.shape[0], self.config.count
        places = torch.rand(batch, count, 3) if self.training else self.fixed.expand(batch, -1, -1)
        in_box = places.to(rotation.device) * rotation.new_tensor(self.config.box_m)
        means = (in_box - translation[:, None]) @ rotation
        ones = means.new_ones(batch, count, 1, 1)
        scales = torch.log(ones.expand(-1, -1, -1, 3) * _RANDOM_SCALE_M)
        identity = means.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(batch, count, 1, 4)
        opacity = torch.logit(ones * _RANDOM_OPACITY)
        return Anchors(means[:, :, None], scales, identity, opacity, ones.expand(-1, -1, -1, NUM_CLASSES) * 0.0)
