"""The splatting kernel in NVIDIA Warp: one source for CPU and CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

if TYPE_CHECKING:
    from sgrocc.splatting import SplatInput

wp.config.log_level = wp.LOG_WARNING

#: An opacity of exactly 1 at a Gaussian's centre would make log(1 - a phi) infinite.
_MAX_ALPHA = 1.0 - 1e-6


@wp.kernel
def _splat(
    means: wp.array(dtype=wp.vec3),
    precisions: wp.array2d(dtype=wp.float32),
    opacities: wp.array(dtype=wp.float32),
    semantics: wp.array2d(dtype=wp.float32),
    first: wp.array2d(dtype=wp.int32),
    last: wp.array2d(dtype=wp.int32),
    slots: wp.array3d(dtype=wp.int32),
    corner: wp.vec3i,
    resolution: wp.float32,
    max_squared_distance: wp.float32,
    max_alpha: wp.float32,
    block: wp.int32,
    log_free: wp.array2d(dtype=wp.float32),
    class_sums: wp.array3d(dtype=wp.float32),
):
    i = wp.tid()
    mean = means[i]
    opacity = opacities[i]
    # Nothing outside the box of the blocks asked for: the loops stop at its faces.
    x0 = wp.max(first[i, 0], corner[0])
    y0 = wp.max(first[i, 1], corner[1])
    z0 = wp.max(first[i, 2], corner[2])
    x1 = wp.min(last[i, 0] + 1, corner[0] + slots.shape[0] * block)
    y1 = wp.min(last[i, 1] + 1, corner[1] + slots.shape[1] * block)
    z1 = wp.min(last[i, 2] + 1, corner[2] + slots.shape[2] * block)
    for x in range(x0, x1):
        dx = (wp.float32(x) + 0.5) * resolution - mean[0]
        for y in range(y0, y1):
            dy = (wp.float32(y) + 0.5) * resolution - mean[1]
            for z in range(z0, z1):
                lx = x - corner[0]
                ly = y - corner[1]
                lz = z - corner[2]
                slot = slots[lx / block, ly / block, lz / block]
                if slot >= 0:
                    dz = (wp.float32(z) + 0.5) * resolution - mean[2]
                    d2 = (
                        precisions[i, 0] * dx * dx
                        + precisions[i, 1] * dy * dy
                        + precisions[i, 2] * dz * dz
                        + 2.0 * (precisions[i, 3] * dx * dy + precisions[i, 4] * dx * dz + precisions[i, 5] * dy * dz)
                    )
                    if d2 <= max_squared_distance:
                        phi = wp.exp(-0.5 * d2)
                        voxel = ((lx % block) * block + ly % block) * block + lz % block
                        wp.atomic_add(log_free, slot, voxel, wp.log(1.0 - wp.min(opacity * phi, max_alpha)))
                        for k in range(semantics.shape[1]):
                            wp.atomic_add(class_sums, slot, voxel, k, phi * semantics[i, k])


def accumulate(
    prepared: SplatInput, blocks: np.ndarray, resolution: float, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over Gaussians: (B, 512) log of the free probability and (B, 512, 11) class sums, float32.

    Deterministic on the CPU, where Warp runs the Gaussians in order. On CUDA the order of the atomic additions, and
    so the last bits, may differ from run to run.
    """
    from sgrocc.splatting import BLOCK, SUPPORT_SIGMA

    count, classes = len(prepared.means), prepared.semantics.shape[1]
    if not len(blocks) or not count:
        return np.zeros((len(blocks), BLOCK**3), np.float32), np.zeros((len(blocks), BLOCK**3, classes), np.float32)
    low = blocks.min(axis=0)
    slots = np.full(blocks.max(axis=0) - low + 1, -1, np.int32)
    slots[tuple((blocks - low).T)] = np.arange(len(blocks), dtype=np.int32)

    def on_device(array: np.ndarray, dtype):
        return wp.array(np.ascontiguousarray(array), dtype=dtype, device=device)

    log_free = wp.zeros((len(blocks), BLOCK**3), dtype=wp.float32, device=device)
    class_sums = wp.zeros((len(blocks), BLOCK**3, classes), dtype=wp.float32, device=device)
    wp.launch(
        _splat,
        dim=count,
        inputs=[
            on_device(prepared.means, wp.vec3),
            on_device(prepared.precisions, wp.float32),
            on_device(prepared.opacities, wp.float32),
            on_device(prepared.semantics, wp.float32),
            on_device(prepared.first, wp.int32),
            on_device(prepared.last, wp.int32),
            on_device(slots, wp.int32),
            wp.vec3i(*(int(n) * BLOCK for n in low)),
            float(resolution),
            SUPPORT_SIGMA**2,
            _MAX_ALPHA,
            BLOCK,
        ],
        outputs=[log_free, class_sums],
        device=device,
    )
    return log_free.numpy(), class_sums.numpy()
