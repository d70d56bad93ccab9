"""Gaussians to voxels: occupancy and class probabilities of the blocks asked for.

Decoupled probabilistic aggregation (the default): with phi_i(x) = exp(-1/2 (x - mu_i)^T Sigma_i^-1 (x - mu_i)),

    occupancy(x) = 1 - prod_i (1 - a_i phi_i(x)),
    class_k(x)   = sum_i p_i(x) softmax(z_i)_k / sum_i p_i(x),    p_i the normalised density of Gaussian i,

so that an isolated, uncertain Gaussian cannot turn into a solid floater, as it does in an additive sum.

Additive aggregation, as in EmbodiedOcc: logit_k(x) = sum_i a_i phi_i(x) z_i,k against a constant logit of `empty`.

Both run through one Warp kernel (CPU and CUDA); `reference.py` is the same in plain numpy, for the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sgrocc.gaussians import Gaussians
from sgrocc.geometry import VoxelGrid
from sgrocc.geometry.pose import quaternion_to_matrix
from sgrocc.splatting.warp_kernel import accumulate
from sgrocc.stages import stage

#: Edge of a block in voxels.
BLOCK = 8

#: A Gaussian is cut off where its Mahalanobis distance exceeds this: beyond it phi < 0.012.
SUPPORT_SIGMA = 3.0

AGGREGATIONS = ("decoupled", "additive")


@dataclass(frozen=True)
class SplatInput:
    """What the kernel sees of each Gaussian; all arrays have N rows.

    means (N, 3) metres relative to `origin`; precisions (N, 6) float32: xx, yy, zz, xy, xz, yz of Sigma^-1;
    opacities (N,); semantics (N, 11): what a Gaussian adds to each class; first, last (N, 3) int32: the voxels it
    may reach, inclusive.
    """

    means: np.ndarray
    precisions: np.ndarray
    opacities: np.ndarray
    semantics: np.ndarray
    first: np.ndarray
    last: np.ndarray


@stage("splat")
def splat_blocks(
    gaussians: Gaussians,
    blocks: np.ndarray,
    resolution: float,
    *,
    origin: np.ndarray | None = None,
    aggregation: str = "decoupled",
    empty_logit: float = 1.0,
    classes: bool = True,
    backend=accumulate,
) -> tuple[np.ndarray, np.ndarray]:
    """Occupancy and class scores of the voxels of some blocks.

    gaussians: in the grid's frame; blocks: (B, 3) distinct integer block coordinates, block b covers the voxels
    8 b .. 8 b + 7; resolution: metres; origin: (3,) metres, the corner of voxel (0, 0, 0), the frame's origin by
    default; empty_logit: additive aggregation's logit of empty space; classes: False leaves the scores empty, which
    takes half the time (additive aggregation makes them all the same, as it needs them).

    Returns occupancy (B, 8, 8, 8) float32 in [0, 1] and class scores (B, 8, 8, 8, 11) float32: the sums over the
    Gaussians, of which the largest names the class and `class_probabilities` makes probabilities.
    """
    blocks = np.ascontiguousarray(blocks, np.int32).reshape(-1, 3)
    origin = np.zeros(3) if origin is None else np.asarray(origin, np.float64)
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"there is no aggregation {aggregation!r}: use one of {', '.join(AGGREGATIONS)}")
    prepared = prepare(gaussians, resolution, origin, aggregation)
    if not classes and aggregation != "additive":
        prepared = replace(prepared, semantics=prepared.semantics[:, :0])
    log_free, semantics = backend(prepared, blocks, resolution)
    shape = (len(blocks), BLOCK, BLOCK, BLOCK)
    scores = semantics.reshape(*shape, -1)
    if aggregation == "additive":
        # occupied (>= 1/2) exactly where the best class beats empty, which is the argmax over all classes
        occupancy = 1.0 / (1.0 + np.exp(np.clip(empty_logit - scores.max(axis=-1), -60, 60)))
        return occupancy.astype(np.float32), scores
    return -np.expm1(log_free).reshape(shape), scores


def class_probabilities(scores: np.ndarray, aggregation: str = "decoupled") -> np.ndarray:
    """(..., 11) class scores to probabilities, which sum to 1; uniform where no Gaussian reaches."""
    if aggregation == "additive":
        return softmax(scores)
    total = scores.sum(axis=-1, keepdims=True)
    return np.divide(scores, total, out=np.full_like(scores, 1.0 / scores.shape[-1]), where=total > 0)


def splat_grid(gaussians: Gaussians, grid: VoxelGrid, **options) -> tuple[np.ndarray, np.ndarray]:
    """As `splat_blocks`, for a whole grid: occupancy (X, Y, Z) and class scores (X, Y, Z, 11)."""
    counts = [-(-n // BLOCK) for n in grid.shape]
    blocks = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3)
    results = splat_blocks(gaussians, blocks, grid.resolution, origin=grid.origin, **options)
    nx, ny, nz = grid.shape
    dense = []
    for values in results:
        tiles = values.reshape(*counts, BLOCK, BLOCK, BLOCK, *values.shape[4:])
        tiles = np.moveaxis(tiles, (0, 3, 1, 4, 2, 5), (0, 1, 2, 3, 4, 5))
        whole = tiles.reshape(counts[0] * BLOCK, counts[1] * BLOCK, counts[2] * BLOCK, *values.shape[4:])
        dense.append(np.ascontiguousarray(whole[:nx, :ny, :nz]))
    return dense[0], dense[1]


def prepare(gaussians: Gaussians, resolution: float, origin: np.ndarray, aggregation: str) -> SplatInput:
    """The per-Gaussian part of the sums, shared by the kernel and its reference. Formulas: see the module."""
    means = (gaussians.means.astype(np.float64) - origin).astype(np.float32)
    first, last = reached_voxels(means, gaussians, resolution, aggregation)
    whitened = quaternion_to_matrix(gaussians.rotations) / gaussians.scales[:, None, :]
    inverses = whitened @ np.swapaxes(whitened, -1, -2)  # Sigma^-1 = R S^-2 R^T
    precisions = np.stack([inverses[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=-1)
    if aggregation == "additive":
        semantics = gaussians.opacities[:, None] * gaussians.logits
    else:
        density = 1.0 / gaussians.scales.prod(axis=1, keepdims=True)  # the constant (2 pi)^-3/2 cancels
        semantics = density * softmax(gaussians.logits)
    return SplatInput(means, precisions, gaussians.opacities, semantics.astype(np.float32), first, last)


def reached_voxels(
    means: np.ndarray, gaussians: Gaussians, resolution: float, aggregation: str
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) int32 first and last voxels, inclusive, that Gaussians at `means` (N, 3) may reach."""
    if aggregation == "additive":
        # EmbodiedOcc's window: within ceil(3 max(scale) / resolution) voxels of the Gaussian's own voxel.
        own = np.floor(means / resolution).astype(np.int32)
        reach = np.ceil(SUPPORT_SIGMA * gaussians.scales.max(axis=1) / resolution).astype(np.int32)[:, None]
        return own - reach, own + reach
    # The box around the ellipsoid: its half edges are multiples of the square roots of Sigma's diagonal.
    axes = quaternion_to_matrix(gaussians.rotations) * gaussians.scales[:, None, :]
    reach_m = SUPPORT_SIGMA * np.sqrt(np.square(axes).sum(axis=-1))
    first = np.ceil((means - reach_m) / resolution - 0.5).astype(np.int32)
    last = np.floor((means + reach_m) / resolution - 0.5).astype(np.int32)
    return first, last


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., 11) logits to probabilities."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
