"""The splatting sums in plain numpy, one Gaussian at a time: slow, short, and what the kernel is tested against."""

from __future__ import annotations

import numpy as np

from sgrocc.splatting import BLOCK, SUPPORT_SIGMA, SplatInput


def accumulate_reference(prepared: SplatInput, blocks: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """As `warp_kernel.accumulate`, in float64."""
    offsets = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = blocks[:, None, :] * BLOCK + offsets
    centres = (voxels + 0.5) * resolution
    log_free = np.zeros(voxels.shape[:2])
    class_sums = np.zeros((*voxels.shape[:2], prepared.semantics.shape[1]))
    for i, mean in enumerate(prepared.means.astype(np.float64)):
        xx, yy, zz, xy, xz, yz = prepared.precisions[i].astype(np.float64)
        precision = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        offset = centres - mean
        squared = np.einsum("bvi,ij,bvj->bv", offset, precision, offset)
        reached = ((voxels >= prepared.first[i]) & (voxels <= prepared.last[i])).all(axis=-1)
        phi = np.where(reached & (squared <= SUPPORT_SIGMA**2), np.exp(-0.5 * squared), 0.0)
        log_free += np.log1p(-np.minimum(prepared.opacities[i] * phi, 1 - 1e-6))
        class_sums += phi[..., None] * prepared.semantics[i]
    return log_free, class_sums
