"""A learned expert beside a depth sensor: what was measured stays as measured, the network says what it is and what is
hidden.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sgrocc.experts import Expert, Frame, Prediction
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert
from sgrocc.experts.learned import LearnedExpert
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera
from sgrocc.labels import STRUCTURAL, most_likely_class
from sgrocc.stages import stage

#: Cells of the image, along its longer side, that each get a class and a feature from the network.
_CELLS = 32


def for_a_map(learned: Expert, config: GeometricConfig | None = None, margin_m: float = 0.12) -> Expert:
    """The expert whose predictions a memory fuses: a learned one that is given sensor depth is joined with a
    `MeasuredExpert`, any other stays as it is.
    """
    if isinstance(learned, LearnedExpert) and learned.depth_source == "topic":
        return MeasuredExpert(learned, config, margin_m)
    return learned


class MeasuredExpert:
    """Joins the Gaussians of two experts, for a memory that keeps one per voxel.

    Where the sensor measured, the geometric expert's dense Gaussians are the surface; each takes class and feature from
    the network's Gaussian that lies nearest to the surface in its part of the image. Of the network's own Gaussians
    remain those behind things, but not those behind walls, windows, floors and ceilings, and none where the sensor
    measured nothing: that stays unknown. The prediction's depth is the sensor's
    alone, so that the memory knows what was measured; its range is the memory's affair.
    """

    depth_source = "topic"

    def __init__(self, learned: LearnedExpert, config: GeometricConfig | None = None, margin_m: float = 0.12) -> None:
        """config: of the surfaces; margin_m: how far behind the surface the network's guesses begin, as the memory's
        `free_margin_m`. Raises ValueError for a learned expert that does not use sensor depth.
        """
        if learned.depth_source != "topic":
            raise ValueError("the learned expert does without a sensor: make it with use_sensor_depth")
        self._learned = learned
        self._geometric = GeometricExpert(config)
        self._margin_m = margin_m

    @stage("lift")
    def __call__(self, frame: Frame) -> Prediction:
        """Raises ValueError as the two experts do."""
        learned, measured = self._learned(frame), self._geometric(frame)
        guessed, surface = learned.gaussians.select(learned.gaussians.finite()), measured.gaussians
        camera = measured.camera
        depth = np.where(np.isfinite(measured.depth) & (measured.depth > 0), measured.depth, np.float32(0))

        pixels, z = camera.project(guessed.means)
        rows, columns, inside = camera.pixel_index(pixels)
        there = np.where(inside, depth[rows, columns], np.float32(0))
        surface = replace(surface, features=np.zeros((len(surface), guessed.features.shape[1]), np.float32))
        if len(surface) and inside.any():
            # How far from the surface; where nothing was measured, the network's own depth has to do.
            cells = _cells(camera, rows, columns)
            distance = np.where(there > 0, np.abs(z - there), z)
            nearest = _least_in_cell(cells[inside], distance[inside])
            chosen = np.flatnonzero(inside)[nearest]
            own = _cells(camera, *camera.pixel_index(camera.project(surface.means)[0])[:2])
            source = chosen[_closest(own, cells[chosen])]
            surface = replace(surface, logits=guessed.logits[source], features=guessed.features[source])
            before = most_likely_class(guessed.logits[chosen[_closest(cells, cells[chosen])]])
        else:
            before = np.zeros(len(guessed), np.uint8)
        # In front of the surface the sensor saw nothing, and at the surface it saw better. Behind a wall lies another
        # room, of which the image says nothing. Where nothing was measured, the network's depth is too rough to map.
        kept = guessed.select((there > 0) & (z > there + self._margin_m) & ~np.isin(before, STRUCTURAL))
        gaussians = Gaussians.joined(surface, kept)
        return replace(measured, depth=depth, gaussians=gaussians, semantic=learned.semantic, gates=learned.gates)


def _cells(camera: PinholeCamera, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(N, 2) the cell of the image that pixels lie in."""
    size = max(camera.width, camera.height) / _CELLS
    return np.stack([rows // size, columns // size], axis=-1).astype(np.int64)


def _least_in_cell(cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(C,) indices: of each cell that occurs, the entry of the least value; of equals the first."""
    order = np.lexsort((np.arange(len(values)), values, cells[:, 1], cells[:, 0]))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(cells[order], axis=0) != 0).any(axis=1)
    return order[first]


def _closest(cells: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) index of the known cell that is closest to each cell."""
    asked, back = np.unique(cells[:, 0] * _CELLS + cells[:, 1], return_inverse=True)
    asked = np.stack(np.divmod(asked, _CELLS), axis=-1)
    table = np.full(asked.max(axis=0, initial=0) + 1, -1)
    within = (known < table.shape).all(axis=1)
    table[tuple(known[within].T)] = np.flatnonzero(within)
    closest = table[tuple(asked.T)]
    # Most cells are known themselves.
    others = np.flatnonzero(closest < 0)
    away = np.square(asked[others, None] - known[None]).sum(axis=-1)
    closest[others] = away.argmin(axis=1)
    return closest[back.ravel()]
