"""Pixels, rays and maps: how anchors find their place in an image. Everything here exports to ONNX."""

from __future__ import annotations

import torch
from torch.nn import functional

_NEAREST_M = 0.05


def project(points: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """(B, ..., 3) points in the camera frame, metres, to (B, ..., 2) pixels; what is not in front goes far outside."""
    focal, centre = _parts(intrinsics, points.ndim)
    z = points[..., 2:]
    pixels = points[..., :2] / torch.maximum(z, z.new_tensor(_NEAREST_M)) * focal + centre
    return torch.where(z > _NEAREST_M, pixels, z.new_tensor(-1e4))


def back_project(pixels: torch.Tensor, depth: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """(B, ..., 2) pixels and (B, ..., 1) depth along z, metres, to (B, ..., 3) points in the camera frame."""
    focal, centre = _parts(intrinsics, pixels.ndim)
    return torch.cat([(pixels - centre) / focal * depth, depth], dim=-1)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """(..., 3) of length 1; zero where they are zero."""
    # Not "+ 1e-12": the exporter takes it for zero, leaves it out, and the robot divides by zero.
    return vectors / torch.sqrt((vectors * vectors).sum(dim=-1, keepdim=True).clamp_min(1e-12))


def sample(maps: torch.Tensor, pixels: torch.Tensor, image_size: tuple[int, int], border: bool = False) -> torch.Tensor:
    """Bilinear values of maps (B, C, h, w), which cover the image, at pixels (B, R, K, 2) of the image: (B, C, R, K).

    image_size: (height, width). Outside the image the value is 0, or with `border` that of the nearest edge.
    """
    height, width = image_size
    size = pixels.new_tensor([width, height])
    grid = (pixels + 0.5) * (2.0 / size) - 1.0
    padding = "border" if border else "zeros"
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _parts(intrinsics: torch.Tensor, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (intrinsics.shape[0], *(1,) * (ndim - 2), 2)
    return intrinsics[:, :2].reshape(shape), intrinsics[:, 2:].reshape(shape)
