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


# What both kernels must agree on: which voxels a Gaussian reaches, and where they lie.


@wp.func
def _low(first: wp.array2d(dtype=wp.int32), corner: wp.vec3i, i: wp.int32):
    # Nothing outside the box of the blocks asked for: the loops stop at its faces.
    return wp.max(wp.vec3i(first[i, 0], first[i, 1], first[i, 2]), corner)


@wp.func
def _high(
    last: wp.array2d(dtype=wp.int32), slots: wp.array3d(dtype=wp.int32), corner: wp.vec3i, block: wp.int32, i: wp.int32
):
    end = corner + wp.vec3i(slots.shape[0] * block, slots.shape[1] * block, slots.shape[2] * block)
    return wp.min(wp.vec3i(last[i, 0] + 1, last[i, 1] + 1, last[i, 2] + 1), end)


@wp.func
def _squared_distance(
    precisions: wp.array2d(dtype=wp.float32), i: wp.int32, dx: wp.float32, dy: wp.float32, dz: wp.float32
):
    return (
        precisions[i, 0] * dx * dx
        + precisions[i, 1] * dy * dy
        + precisions[i, 2] * dz * dz
        + 2.0 * (precisions[i, 3] * dx * dy + precisions[i, 4] * dx * dz + precisions[i, 5] * dy * dz)
    )


@wp.func
def _voxel(lx: wp.int32, ly: wp.int32, lz: wp.int32, block: wp.int32):
    return ((lx % block) * block + ly % block) * block + lz % block


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
    low = _low(first, corner, i)
    high = _high(last, slots, corner, block, i)
    for x in range(low[0], high[0]):
        dx = (wp.float32(x) + 0.5) * resolution - mean[0]
        for y in range(low[1], high[1]):
            dy = (wp.float32(y) + 0.5) * resolution - mean[1]
            for z in range(low[2], high[2]):
                lx = x - corner[0]
                ly = y - corner[1]
                lz = z - corner[2]
                slot = slots[lx / block, ly / block, lz / block]
                if slot >= 0:
                    dz = (wp.float32(z) + 0.5) * resolution - mean[2]
                    d2 = _squared_distance(precisions, i, dx, dy, dz)
                    if d2 <= max_squared_distance:
                        phi = wp.exp(-0.5 * d2)
                        voxel = _voxel(lx, ly, lz, block)
                        wp.atomic_add(log_free, slot, voxel, wp.log(1.0 - wp.min(opacity * phi, max_alpha)))
                        for k in range(semantics.shape[1]):
                            wp.atomic_add(class_sums, slot, voxel, k, phi * semantics[i, k])


@wp.kernel
def _splat_adjoint(
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
    d_log_free: wp.array2d(dtype=wp.float32),
    d_class_sums: wp.array3d(dtype=wp.float32),
    d_means: wp.array2d(dtype=wp.float32),
    d_precisions: wp.array2d(dtype=wp.float32),
    d_opacities: wp.array(dtype=wp.float32),
    d_semantics: wp.array2d(dtype=wp.float32),
):
    # Each Gaussian gathers from the voxels that it reached, in the order of the forward kernel: nothing is shared.
    i = wp.tid()
    mean = means[i]
    opacity = opacities[i]
    d_mean = wp.vec3(0.0, 0.0, 0.0)
    d_diagonal = wp.vec3(0.0, 0.0, 0.0)
    d_off_diagonal = wp.vec3(0.0, 0.0, 0.0)
    d_opacity = wp.float32(0.0)
    low = _low(first, corner, i)
    high = _high(last, slots, corner, block, i)
    for x in range(low[0], high[0]):
        dx = (wp.float32(x) + 0.5) * resolution - mean[0]
        for y in range(low[1], high[1]):
            dy = (wp.float32(y) + 0.5) * resolution - mean[1]
            for z in range(low[2], high[2]):
                lx = x - corner[0]
                ly = y - corner[1]
                lz = z - corner[2]
                slot = slots[lx / block, ly / block, lz / block]
                if slot >= 0:
                    dz = (wp.float32(z) + 0.5) * resolution - mean[2]
                    d2 = _squared_distance(precisions, i, dx, dy, dz)
                    if d2 <= max_squared_distance:
                        phi = wp.exp(-0.5 * d2)
                        voxel = _voxel(lx, ly, lz, block)
                        d_phi = wp.float32(0.0)
                        if opacity * phi < max_alpha:
                            d_alpha = -d_log_free[slot, voxel] / (1.0 - opacity * phi)
                            d_opacity += d_alpha * phi
                            d_phi += d_alpha * opacity
                        for k in range(semantics.shape[1]):
                            d_sum = d_class_sums[slot, voxel, k]
                            d_phi += d_sum * semantics[i, k]
                            d_semantics[i, k] = d_semantics[i, k] + d_sum * phi
                        px = precisions[i, 0] * dx + precisions[i, 3] * dy + precisions[i, 4] * dz
                        py = precisions[i, 3] * dx + precisions[i, 1] * dy + precisions[i, 5] * dz
                        pz = precisions[i, 4] * dx + precisions[i, 5] * dy + precisions[i, 2] * dz
                        d_d2 = -0.5 * phi * d_phi
                        d_mean += wp.vec3(px, py, pz) * (-2.0 * d_d2)
                        d_diagonal += wp.vec3(dx * dx, dy * dy, dz * dz) * d_d2
                        d_off_diagonal += wp.vec3(dx * dy, dx * dz, dy * dz) * (2.0 * d_d2)
    d_opacities[i] = d_opacity
    for axis in range(3):
        d_means[i, axis] = d_mean[axis]
        d_precisions[i, axis] = d_diagonal[axis]
        d_precisions[i, axis + 3] = d_off_diagonal[axis]


def accumulate(
    prepared: SplatInput, blocks: np.ndarray, resolution: float, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over Gaussians: (B, 512) log of the free probability and (B, 512, 11) class sums, float32.

    Deterministic on the CPU, where Warp runs the Gaussians in order. On CUDA the order of the atomic additions, and
    so the last bits, may differ from run to run.
    """
    dtypes = (wp.vec3, wp.float32, wp.float32, wp.float32, wp.int32, wp.int32)
    p = prepared
    arrays = (p.means, p.precisions, p.opacities, p.semantics, p.first, p.last)
    inputs = [
        wp.array(np.ascontiguousarray(array), dtype=dtype, device=device)
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]
    log_free, class_sums = launch_splat(inputs, blocks, resolution)
    return log_free.numpy(), class_sums.numpy()


def launch_splat(inputs: list[wp.array], blocks: np.ndarray, resolution: float) -> tuple[wp.array, wp.array]:
    """`accumulate` on arrays that Warp already holds: those of SplatInput, in its order, all on one device."""
    from sgrocc.splatting import BLOCK

    device, classes = inputs[0].device, inputs[3].shape[1]
    log_free = wp.zeros((len(blocks), BLOCK**3), dtype=wp.float32, device=device)
    class_sums = wp.zeros((len(blocks), BLOCK**3, classes), dtype=wp.float32, device=device)
    if len(blocks) and inputs[0].shape[0]:
        where = _where(blocks, resolution, device)
        wp.launch(_splat, inputs[0].shape[0], [*inputs, *where], [log_free, class_sums], device=device)
    return log_free, class_sums


def launch_splat_adjoint(
    inputs: list[wp.array], blocks: np.ndarray, resolution: float, d_log_free: wp.array, d_class_sums: wp.array
) -> list[wp.array]:
    """The gradients of means (N, 3), precisions (N, 6), opacities (N,) and semantics (N, 11), from those of the two
    results of `launch_splat`. Which voxels a Gaussian reaches is taken as given.
    """
    device, count, classes = inputs[0].device, inputs[0].shape[0], inputs[3].shape[1]
    shapes = ((count, 3), (count, 6), (count,), (count, classes))
    gradients = [wp.zeros(shape, dtype=wp.float32, device=device) for shape in shapes]
    if len(blocks) and count:
        where = _where(blocks, resolution, device)
        wp.launch(_splat_adjoint, count, [*inputs, *where, d_log_free, d_class_sums], gradients, device=device)
    return gradients


def _where(blocks: np.ndarray, resolution: float, device) -> list:
    """What both kernels are told about the voxels asked for."""
    from sgrocc.splatting import BLOCK, SUPPORT_SIGMA

    low = blocks.min(axis=0)
    slots = np.full(blocks.max(axis=0) - low + 1, -1, np.int32)
    slots[tuple((blocks - low).T)] = np.arange(len(blocks), dtype=np.int32)
    corner = wp.vec3i(*(int(n) * BLOCK for n in low))
    slots = wp.array(slots, dtype=wp.int32, device=device)
    return [slots, corner, float(resolution), SUPPORT_SIGMA**2, _MAX_ALPHA, BLOCK]
