"""Gaussians to voxels with gradients: the torch twin of sgrocc.splatting, through the same Warp kernel.

`accumulate_dense` is the same sums in plain torch, every Gaussian against every voxel: for tests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import warp as wp

from sgrocc.labels import UNKNOWN
from sgrocc.memory.voxels import BLOCK_OFFSETS
from sgrocc.model.rotations import quaternion_to_matrix
from sgrocc.splatting import BLOCK, SUPPORT_SIGMA
from sgrocc.splatting.warp_kernel import launch_splat, launch_splat_adjoint

wp.init()

_SMALLEST_SUM = 1e-12


class GaussianTensors(NamedTuple):
    """As sgrocc.gaussians.Gaussians, in torch, with a leading batch axis where a network made them."""

    means: torch.Tensor
    scales: torch.Tensor
    rotations: torch.Tensor
    opacities: torch.Tensor
    logits: torch.Tensor
    features: torch.Tensor

    def of(self, index: int) -> GaussianTensors:
        """Those of one item of the batch."""
        return GaussianTensors(*(tensor[index] for tensor in self))


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, precisions, opacities, semantics, first, last, blocks, resolution):
        tensors = [t.detach().contiguous() for t in (means, precisions, opacities, semantics, first, last)]
        inputs = [wp.from_torch(tensors[0], dtype=wp.vec3), *(wp.from_torch(t) for t in tensors[1:])]
        log_free, class_sums = launch_splat(inputs, blocks, resolution)
        ctx.save_for_backward(*tensors)
        ctx.blocks, ctx.resolution = blocks, resolution
        return wp.to_torch(log_free), wp.to_torch(class_sums)

    @staticmethod
    def backward(ctx, d_log_free, d_class_sums):
        tensors = ctx.saved_tensors
        inputs = [wp.from_torch(tensors[0], dtype=wp.vec3), *(wp.from_torch(t) for t in tensors[1:])]
        above = [wp.from_torch(d.contiguous()) for d in (d_log_free, d_class_sums)]
        gradients = launch_splat_adjoint(inputs, ctx.blocks, ctx.resolution, *above)
        return (*(wp.to_torch(gradient) for gradient in gradients), None, None, None, None)


def accumulate(means, precisions, opacities, semantics, first, last, blocks: np.ndarray, resolution: float):
    """As sgrocc.splatting.warp_kernel.accumulate, for float32 tensors, with gradients to the first four."""
    return _Accumulate.apply(means, precisions, opacities, semantics, first, last, blocks, resolution)


def accumulate_dense(means, precisions, opacities, semantics, first, last, blocks: np.ndarray, resolution: float):
    """The same in plain torch and any float type: memory for every pair of a Gaussian and a voxel."""
    offsets = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = torch.from_numpy(np.asarray(blocks)[:, None, :] * BLOCK + offsets).to(means.device)
    offset = (voxels[..., None, :] + 0.5).to(means.dtype) * resolution - means
    x, y, z = offset.unbind(-1)
    xx, yy, zz, xy, xz, yz = precisions.unbind(-1)
    squared = xx * x * x + yy * y * y + zz * z * z + 2 * (xy * x * y + xz * x * z + yz * y * z)
    reached = ((voxels[..., None, :] >= first) & (voxels[..., None, :] <= last)).all(dim=-1)
    phi = torch.where(reached & (squared <= SUPPORT_SIGMA**2), torch.exp(-0.5 * squared), 0.0)
    log_free = torch.log1p(-torch.clamp(opacities * phi, max=1 - 1e-6)).sum(dim=-1)
    return log_free, phi @ semantics


def prepare(gaussians: GaussianTensors, rotation, translation, resolution: float, aggregation: str):
    """The arguments of `accumulate` before the blocks, from N Gaussians in the camera frame.

    rotation (3, 3), translation (3,): camera to grid, metres. The twin of sgrocc.splatting.prepare.
    """
    means = gaussians.means @ rotation.T + translation
    axes = rotation @ quaternion_to_matrix(gaussians.rotations)
    whitened = axes / gaussians.scales[:, None, :]
    inverses = whitened @ whitened.transpose(-1, -2)
    precisions = torch.stack([inverses[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], dim=-1)
    with torch.no_grad():
        if aggregation == "additive":
            own = torch.floor(means / resolution)
            reach = torch.ceil(SUPPORT_SIGMA * gaussians.scales.amax(dim=1, keepdim=True) / resolution)
            first, last = own - reach, own + reach
        else:
            reach_m = SUPPORT_SIGMA * torch.sqrt(((axes * gaussians.scales[:, None, :]) ** 2).sum(dim=-1))
            first = torch.ceil((means - reach_m) / resolution - 0.5)
            last = torch.floor((means + reach_m) / resolution - 0.5)
    if aggregation == "additive":
        semantics = gaussians.opacities[:, None] * gaussians.logits
    else:
        density = 1.0 / gaussians.scales.prod(dim=1, keepdim=True)
        semantics = density * torch.softmax(gaussians.logits, dim=-1)
    return means, precisions, gaussians.opacities, semantics, first.int(), last.int()


def known_voxels(
    gaussians: GaussianTensors,
    rotation: torch.Tensor,
    translation: torch.Tensor,
    labels: torch.Tensor,
    resolution: float,
    aggregation: str = "decoupled",
    empty_logit: torch.Tensor | float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (V, 12), channel 0 empty, and labels (V,) int64 of the voxels that `labels` (X, Y, Z) knows."""
    blocks, tiles = tiles_of(labels, labels)
    # Mixed precision ends here: the sums are single precision, like the kernel.
    with torch.autocast(labels.device.type, enabled=False):
        single = GaussianTensors(*(tensor.float() for tensor in gaussians))
        prepared = prepare(single, rotation, translation, resolution, aggregation)
    log_free, class_sums = accumulate(*prepared, blocks, resolution)
    known = tiles != UNKNOWN
    sums, truth = class_sums[known], tiles[known].long()
    if aggregation == "additive":
        empty = torch.as_tensor(empty_logit, dtype=sums.dtype, device=sums.device).expand(len(sums), 1)
        return torch.softmax(torch.cat([empty, sums], dim=1), dim=1), truth
    occupancy = -torch.expm1(log_free[known])[:, None]
    classes = sums / sums.sum(dim=1, keepdim=True).clamp_min(_SMALLEST_SUM)
    return torch.cat([1 - occupancy, occupancy * classes], dim=1), truth


def known_places(labels: torch.Tensor) -> np.ndarray:
    """(V, 3) indices of the voxels of `known_voxels`, in its order."""
    blocks, tiles = tiles_of(labels, labels)
    return (blocks[:, None] * BLOCK + BLOCK_OFFSETS)[(tiles != UNKNOWN).cpu().numpy()]


def tiles_of(labels: torch.Tensor, values: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """(B, 3) int32 blocks that hold a voxel known to `labels` (X, Y, Z), and the `values` (X, Y, Z) in them (B, 512).

    Beyond the grid's end the values are UNKNOWN (true, where they are bool).
    """
    counts = [-(-n // BLOCK) for n in labels.shape]

    def tiled(volume: torch.Tensor) -> torch.Tensor:
        padded = volume.new_full([n * BLOCK for n in counts], UNKNOWN)
        padded[: volume.shape[0], : volume.shape[1], : volume.shape[2]] = volume
        tiles = padded.view(counts[0], BLOCK, counts[1], BLOCK, counts[2], BLOCK).permute(0, 2, 4, 1, 3, 5)
        return tiles.reshape(-1, BLOCK**3)

    used = (tiled(labels) != UNKNOWN).any(dim=1)
    blocks = np.stack(np.unravel_index(np.flatnonzero(used.cpu().numpy()), counts), axis=-1).astype(np.int32)
    return blocks, tiled(values)[used]
