"""How other methods' memories join the frames of a scene, with our expert and our splatting: what is compared is the
rule alone. Written from the papers' and the codes' description.

embodiedocc: Gaussians; one in view has a confidence of 1/2, a new one of 0, one out of view of 1, whatever hides it.
gpocc: Gaussians; new ones within 2 cm of an old one are averaged into it, all others are added. Nothing is trained.
veocc: voxels; the mean of the frames' probabilities, weighted by depth and distance from the image's border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgrocc.evaluation.predictors import dense_labels, expert_frame, labels_of, local_prediction, pose_in_grid
from sgrocc.experts import Expert
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.memory.gaussian_memory import blend, merge_per_voxel
from sgrocc.memory.voxels import AROUND, BLOCK_OFFSETS, VoxelBlocks, unique_rows, voxels_of
from sgrocc.splatting import BLOCK, splat_blocks

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.datasets.occscannet import LocalFrame

#: EmbodiedOcc's confidence of a Gaussian that is in view again.
_EMBODIEDOCC_CONFIDENCE = 0.5
#: GPOcc's share of the old Gaussian and radius of the search, metres.
_GPOCC_GAMMA, _GPOCC_RADIUS_M = 0.1, 0.02
#: GPOcc prunes Gaussians of lower opacity.
_GPOCC_LEAST_OPACITY = 0.01
#: VEOcc's initial rates of the fall with depth and towards the border, before softplus, and its least confidence.
_VEOCC_DEPTH, _VEOCC_BORDER, _VEOCC_LEAST = 0.1, 1.5, 0.01


class _GaussianRule:
    """A scene's Gaussians in the frame of its grid, splatted when the map is asked for."""

    def __init__(self, expert: Expert, depth: str) -> None:
        self._expert, self._depth = expert, depth

    def start(self, scene: EmbodiedScene) -> None:
        self._grid = scene.grid
        self._held: Gaussians | None = None

    def add(self, frame: EmbodiedFrame) -> None:
        prediction = self._expert(expert_frame(frame, self._depth))
        pose = pose_in_grid(frame.pose, self._grid)
        new = prediction.gaussians.select(prediction.gaussians.finite()).transformed(pose)
        self._held = new if self._held is None else self._joined(self._held, new, frame, pose)

    def labels(self) -> np.ndarray:
        """(X, Y, Z) uint8, 0 to 11; free where no Gaussian reaches."""
        if self._held is None:
            return np.zeros(self._grid.shape, np.uint8)
        homes, _ = unique_rows(voxels_of(self._held.means, self._grid.resolution) // BLOCK)
        blocks, _ = unique_rows((homes[:, None] + AROUND).reshape(-1, 3))
        occupancy, scores = splat_blocks(self._held, blocks, self._grid.resolution)
        indices = (blocks[:, None] * BLOCK + BLOCK_OFFSETS).reshape(-1, 3)
        labels = labels_of(occupancy, scores).ravel()
        return dense_labels(indices, labels, self._grid.shape)

    def _joined(self, held: Gaussians, new: Gaussians, frame: LocalFrame, pose: Pose) -> Gaussians:
        raise NotImplementedError


class EmbodiedOccRule(_GaussianRule):
    """What is in the image, hidden or not, takes half of what the frame says: of the frame's Gaussian in the same
    voxel, or where there is none its opacity takes half of the frame's occupancy there.
    """

    def _joined(self, held: Gaussians, new: Gaussians, frame: LocalFrame, pose: Pose) -> Gaussians:
        resolution = self._grid.resolution
        new, voxels = merge_per_voxel(new, resolution)
        home = VoxelBlocks(index=(np.int64, -1))
        address = home.locate(voxels_of(held.means, resolution), create=True)
        home.layer("index")[address] = np.arange(len(held))
        place = home.locate(voxels)
        old = np.where(place >= 0, home.layer("index")[place], -1)
        again = old >= 0

        pixels, z = frame.camera.project(pose.inverse().apply(held.means))
        in_view = frame.camera.pixel_index(pixels)[2] & (z > 0)
        lonely = in_view.copy()
        lonely[old[again]] = False
        box = VoxelGrid(frame.grid.origin - self._grid.origin, frame.grid.shape, resolution)
        indices = box.index_of(held.means)
        lonely &= box.contains(indices)
        said = 1 - local_prediction(new, box).probabilities[..., 0]
        opacities = held.opacities.copy()
        there = said[tuple(indices[lonely].T)]
        opacities[lonely] += (1 - _EMBODIEDOCC_CONFIDENCE) * (there - opacities[lonely])

        arrays = {name: array.copy() for name, array in held.arrays().items()}
        arrays["opacities"] = opacities
        ratio = np.where(in_view[old[again]], 1 - _EMBODIEDOCC_CONFIDENCE, 0.0)
        blended = blend(held.select(old[again]), new.select(again), ratio)
        for name, values in blended.arrays().items():
            arrays[name][old[again]] = values
        return Gaussians.joined(Gaussians(**arrays), new.select(~again))


class GPOccRule(_GaussianRule):
    """theta <- (g theta_old + (1 - g) sum theta_new) / (g + (1 - g) n), g = 0.1, over the n new within 2 cm."""

    def _joined(self, held: Gaussians, new: Gaussians, frame: LocalFrame, pose: Pose) -> Gaussians:
        new = new.select(new.opacities >= _GPOCC_LEAST_OPACITY)
        nearest = _nearest_within(held.means, new.means, _GPOCC_RADIUS_M)
        matched = nearest >= 0
        to, found = nearest[matched], new.select(matched)
        count = np.bincount(to, minlength=len(held)).astype(np.float64)
        hit = np.flatnonzero(count)
        signs = np.sign((held.rotations[to] * found.rotations).sum(axis=1, keepdims=True))
        sources = {**found.arrays(), "rotations": found.rotations * np.where(signs == 0, 1, signs)}
        arrays = {name: array.copy() for name, array in held.arrays().items()}
        total = _GPOCC_GAMMA + (1 - _GPOCC_GAMMA) * count[hit]
        for name, values in sources.items():
            sums = np.zeros((len(held), *values.shape[1:]))
            np.add.at(sums, to, values)
            weighted = _GPOCC_GAMMA * arrays[name][hit] + (1 - _GPOCC_GAMMA) * sums[hit]
            arrays[name][hit] = weighted / total.reshape(-1, *[1] * (values.ndim - 1))
        arrays["rotations"][hit] /= np.maximum(np.linalg.norm(arrays["rotations"][hit], axis=1, keepdims=True), 1e-9)
        return Gaussians.joined(Gaussians(**arrays), new.select(~matched))


def _nearest_within(known: np.ndarray, points: np.ndarray, radius_m: float) -> np.ndarray:
    """(N,) index of the nearest of `known` (M, 3) within the radius of each of the points (N, 3), -1 where none is."""
    low = np.minimum(known.min(axis=0), points.min(axis=0)).astype(np.float64) - 2 * radius_m
    cells, asked = (np.floor((p.astype(np.float64) - low) / radius_m).astype(np.int64) for p in (known, points))
    extent = np.maximum(cells.max(axis=0), asked.max(axis=0)) + 2

    def keys(of: np.ndarray) -> np.ndarray:
        return (of[:, 0] * extent[1] + of[:, 1]) * extent[2] + of[:, 2]

    order = np.argsort(keys(cells), kind="stable")
    ordered = keys(cells)[order]
    best, closest = np.full(len(points), -1, np.int64), np.full(len(points), radius_m)
    for offset in AROUND:
        key = keys(asked + offset)
        first, last = np.searchsorted(ordered, key), np.searchsorted(ordered, key, side="right")
        rows = np.flatnonzero(first < last)
        while len(rows):
            candidate = order[first[rows]]
            away = np.linalg.norm(known[candidate] - points[rows], axis=1)
            nearer = away < closest[rows]
            best[rows[nearer]], closest[rows[nearer]] = candidate[nearer], away[nearer]
            first[rows] += 1
            rows = rows[first[rows] < last[rows]]
    return best


def veocc_confidence(frame: LocalFrame, _prediction: object = None) -> np.ndarray:
    """(X, Y, Z) float32: exp(-softplus(0.1) z) exp(-softplus(1.5) b), at least 0.01; z in metres, b 0 in the middle
    of the image, 1 at its border.
    """
    grid, camera = frame.grid, frame.camera
    pixels, z = camera.project(frame.pose.inverse().apply(grid.centres().reshape(-1, 3)))
    size = np.array([camera.width, camera.height])
    border = np.nan_to_num(np.abs(2 * (pixels + 0.5) / size - 1), nan=1.0).max(axis=1).clip(0, 1)
    rates = np.log1p(np.exp([_VEOCC_DEPTH, _VEOCC_BORDER]))
    weights = np.exp(-rates[0] * np.maximum(z, 0) - rates[1] * border)
    return np.maximum(weights, _VEOCC_LEAST).reshape(grid.shape).astype(np.float32)
