"""Refinement: how a block moves and changes its anchors (eq. 3), and how surfaces hold them (GRM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sgrocc.labels import CLASS_LABELS, NUM_CLASSES, STRUCTURAL
from sgrocc.model.anchors import Anchors
from sgrocc.model.rays import back_project, project, sample, unit
from sgrocc.model.rotations import multiply_quaternions, normalised

MOVES = ("ray", "free", "embodiedocc", "none")
REGULARISATIONS = ("adaptive", "uniform", "fixed", "none")
#: What EmbodiedOcc's logit steps come to along x, y and z of the camera, metres.
_EMBODIEDOCC_BOUNDS_M = (0.0098, 0.0117, 0.0825)
_LOG_SCALE_STEP = 0.7
#: Lattice of the depth map on which surfaces are measured, pixels.
_SURFACE_STRIDE = 4
#: Anchors this far from the surface (along z) are held by it wholly, and not at all.
_HELD_WITHIN_M, _FREE_BEYOND_M = 0.10, 0.25
#: Relative deviation of the inverse depth from a plane, over two lattice steps, at which a surface counts as bent.
_FLATNESS = 0.01


@dataclass
class RefinementConfig:
    """move: `ray` along the anchor's ray (eq. 3), `free` in 3D, `embodiedocc` in 3D with its bounds, or none;
    bound_m: the furthest move of one block (of each coordinate where it is free); regularisation: of moves off
    surfaces, by semantics (`adaptive`), the same for all, wholly (`fixed`: a surface stays where it was measured,
    but within a pixel of holes and edges of the depth), or none; structural, object: its strength for walls, floor,
    ceiling and windows, and for everything else; classes: whether the logits are refined as well; dropout: in the
    refinement head, to measure uncertainty.
    """

    move: str = "ray"
    bound_m: float = 0.25
    regularisation: str = "adaptive"
    structural: float = 1.0
    object: float = 0.1
    classes: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("move", self.move, MOVES),
            ("regularisation", self.regularisation, REGULARISATIONS),
        ):
            if value not in known:
                raise ValueError(f"refinement knows no {what} {value!r}: use {', '.join(known)}")


class Surface:
    """Normals and flatness of a depth map, made once per image. depth: (B, 1, H, W) metres."""

    def __init__(self, depth: torch.Tensor, intrinsics: torch.Tensor) -> None:
        self.depth = depth
        self.size = (depth.shape[2], depth.shape[3])
        half = _SURFACE_STRIDE // 2
        z = depth[:, :, half::_SURFACE_STRIDE, half::_SURFACE_STRIDE]
        z = functional.avg_pool2d(functional.pad(z, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        rows = torch.arange(z.shape[2], device=z.device) * _SURFACE_STRIDE + half
        columns = torch.arange(z.shape[3], device=z.device) * _SURFACE_STRIDE + half
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack([u, v], dim=-1).to(z.dtype)[None].expand(z.shape[0], -1, -1, -1)
        points = back_project(pixels, z[:, 0, :, :, None], intrinsics).permute(0, 3, 1, 2)
        along_u, along_v = _central(points, 3), _central(points, 2)
        normals = unit(torch.cross(along_u.permute(0, 2, 3, 1), along_v.permute(0, 2, 3, 1), dim=-1))
        # Planes are linear in 1/z: what a second difference leaves is an edge or a curve.
        inverse = 1.0 / z
        bend = (_second(inverse, 3).abs() + _second(inverse, 2).abs()) * z
        flatness = torch.exp(-((bend / _FLATNESS) ** 2))
        self.maps = torch.cat([normals.permute(0, 3, 1, 2), flatness], dim=1)

    def at(self, points: torch.Tensor, intrinsics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the surface in the pixels of points (B, R, S, 3): normals (B, R, S, 3), flatness, depth (B, R, S, 1)."""
        pixels = project(points, intrinsics)
        found = sample(self.maps, pixels, self.size).permute(0, 2, 3, 1)
        depth = sample(self.depth, pixels, self.size, border=True).permute(0, 2, 3, 1)
        return unit(found[..., :3]), found[..., 3:], depth


class Refinement(nn.Module):
    """One block's changes of the anchors, from their queries."""

    def __init__(self, channels: int, config: RefinementConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Dropout(config.dropout),
            nn.Linear(channels, channels), nn.ReLU(), nn.Dropout(config.dropout),
        )  # fmt: skip
        self.moves = {"ray": 1, "none": 0}.get(config.move, 3)
        self.sizes = [self.moves, 3, 4, 1, *([NUM_CLASSES] if config.classes else [])]
        self.head = nn.Linear(channels, sum(self.sizes))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        strength = [config.structural if label in STRUCTURAL else config.object for label in CLASS_LABELS]
        self.register_buffer("class_strength", torch.tensor(strength), persistent=False)

    def forward(self, queries: torch.Tensor, anchors: Anchors, surface: Surface, intrinsics: torch.Tensor) -> Anchors:
        """queries: (B, R, S, C). Moves are bounded by `bound_m`, whatever the queries hold."""
        raw = self.head(self.hidden(queries))
        move, scale, turn, opacity, *logits = torch.split(raw, self.sizes, dim=-1)
        new_logits = anchors.logits + logits[0] if logits else anchors.logits
        means = anchors.means
        if self.moves:
            means = self._moved(means, move, new_logits, surface, intrinsics)
        identity = turn.new_tensor([1.0, 0.0, 0.0, 0.0])
        return Anchors(
            means,
            anchors.log_scales + _LOG_SCALE_STEP * torch.tanh(scale),
            multiply_quaternions(anchors.rotations, normalised(identity + torch.tanh(turn))),
            anchors.opacity_logits + opacity,
            new_logits,
        )

    def _moved(self, means, raw, logits, surface: Surface, intrinsics) -> torch.Tensor:
        rays = unit(means)
        step = torch.tanh(raw)
        if self.config.move == "embodiedocc":
            step = step * step.new_tensor(_EMBODIEDOCC_BOUNDS_M)
        else:
            step = step * self.config.bound_m
            if self.config.move == "ray":
                # At most half of the way back: beyond the camera the ray would be another one.
                step = torch.maximum(step, -0.5 * (means * rays).sum(dim=-1, keepdim=True)) * rays
        if self.config.regularisation == "none":
            return means + step
        # A step off the plane is damped by w; along the ray it stays, whatever the plane (eq. 3).
        normals, flatness, depth = surface.at(means, intrinsics)
        distance_m = (means[..., 2:] - depth).abs()
        if self.config.regularisation == "fixed":
            return means + (1 - _nearness(distance_m)) * step
        weight = self.hold(flatness, distance_m, logits)
        across = (step * normals).sum(dim=-1, keepdim=True)
        if self.config.move == "ray":
            facing = (rays * normals).sum(dim=-1, keepdim=True)
            return means + (1 - weight * facing * facing) * step
        return means + step - weight * across * normals

    def hold(self, flatness: torch.Tensor, distance_m: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """(..., 1) in [0, 1]: how firmly a surface so flat and so far away holds an anchor of those classes."""
        near = _nearness(distance_m)
        if self.config.regularisation == "uniform":
            return near * flatness
        strength = (torch.softmax(logits.detach(), dim=-1) * self.class_strength).sum(dim=-1, keepdim=True)
        return near * flatness * strength


def _nearness(distance_m: torch.Tensor) -> torch.Tensor:
    """1 on a surface, 0 far from it."""
    near = (_FREE_BEYOND_M - distance_m) / (_FREE_BEYOND_M - _HELD_WITHIN_M)
    return torch.minimum(torch.relu(near), near.new_tensor(1.0))


def _central(maps: torch.Tensor, axis: int) -> torch.Tensor:
    """Central differences of (B, C, h, w) along an axis; edges repeat the last one."""
    size = maps.shape[axis]
    inner = maps.narrow(axis, 2, size - 2) - maps.narrow(axis, 0, size - 2)
    return torch.cat([inner.narrow(axis, 0, 1), inner, inner.narrow(axis, size - 3, 1)], dim=axis)


def _second(maps: torch.Tensor, axis: int) -> torch.Tensor:
    """Second differences, as `_central`."""
    size = maps.shape[axis]
    inner = maps.narrow(axis, 2, size - 2) + maps.narrow(axis, 0, size - 2) - 2 * maps.narrow(axis, 1, size - 2)
    return torch.cat([inner.narrow(axis, 0, 1), inner, inner.narrow(axis, size - 3, 1)], dim=axis)
