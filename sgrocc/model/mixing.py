"""Mixing: how anchors hear of each other, on their lattice or, for random anchors, in space."""

from __future__ import annotations

import torch
from torch import nn

from sgrocc.model.anchors import Anchors

#: Neighbours that one random anchor hears of at most.
_MOST_NEIGHBOURS = 8


class LatticeMixing(nn.Module):
    """Between rays a depthwise convolution over the lattice of pixels, along rays a matrix between the samples."""

    def __init__(self, channels: int, rows: int, columns: int, samples: int, kernel: int = 5) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.between = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.along = nn.Linear(samples, samples)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, queries: torch.Tensor, anchors: Anchors) -> torch.Tensor:
        """queries: (B, R, S, C), R = rows * columns. Returns the same shape."""
        batch, rays, samples, channels = queries.shape
        maps = queries.view(batch, self.rows, self.columns, samples, channels).permute(0, 3, 4, 1, 2)
        maps = self.between(maps.reshape(batch * samples, channels, self.rows, self.columns))
        between = maps.view(batch, samples, channels, rays).permute(0, 3, 1, 2)
        along = self.along(queries.transpose(2, 3)).transpose(2, 3)
        return self.out(between + along)


class NeighbourMixing(nn.Module):
    """A depthwise convolution over the 27 voxels around each anchor, as far as others lie there, EmbodiedOcc's
    submanifold convolution without its library. Of several anchors in one voxel one is heard.
    """

    def __init__(self, channels: int, voxel_m: float) -> None:
        super().__init__()
        self.voxel_m = voxel_m
        self.weight = nn.Parameter(torch.randn(28, channels) * 27**-0.5)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(channels, channels))
        steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
        # The nearest first: where not all can be heard, an anchor hears itself and what lies face to face.
        nearest = torch.argsort(steps.abs().sum(dim=1), stable=True)
        self.register_buffer("steps", steps[nearest], persistent=False)

    def forward(self, queries: torch.Tensor, anchors: Anchors) -> torch.Tensor:
        """queries: (B, N, 1, C). Returns the same shape."""
        mixed = []
        for query, means in zip(queries[:, :, 0], anchors.means[:, :, 0].detach(), strict=True):
            neighbours, directions = self.neighbours(means)
            padded = torch.cat([query, query.new_zeros(1, query.shape[1])])
            mixed.append((padded[neighbours] * self.weight[directions]).sum(dim=1))
        return self.out(torch.stack(mixed)[:, :, None])

    def neighbours(self, means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, M) indices of the anchors around each, N where there are no more, and in which of 27 directions they lie
        (27: none). means: (N, 3) metres, in any frame.
        """
        count = len(means)
        voxels = torch.floor((means - means.amin(dim=0)) / self.voxel_m).long() + 1
        size = voxels.amax(dim=0) + 2
        table = means.new_full((int(size.prod()),), count, dtype=torch.long)
        stride = torch.stack([size[1] * size[2], size[2], torch.ones_like(size[0])])
        table[(voxels * stride).sum(dim=1)] = torch.arange(count, device=means.device)
        around = table[((voxels[:, None] + self.steps) * stride).sum(dim=-1)]
        there = around < count
        order = torch.argsort(there.to(torch.uint8), dim=1, descending=True, stable=True)[:, :_MOST_NEIGHBOURS]
        there = there.gather(1, order)
        directions = torch.where(there, order, 27)
        return around.gather(1, order), directions
