"""How well a model sees a real recording: its depth against a sensor's, its classes against a few points named by hand.

The labels of the points are a JSON file {number of the frame: rows of hexadecimal digits}: the label (0 to b, 0: not
judged) at the centre of each cell of a grid that divides the image into as many rows and columns.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.experts import Expert, Frame, Prediction
from sgrocc.experts.learned import resized_depth
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import CLASS_LABELS, NUM_CLASSES, most_likely_class, name_of
from sgrocc.splatting import splat_grid

#: Sensor depth outside is not compared.
_NEAREST_M, _FURTHEST_M = 0.3, 8.0


def depth_figures(expert: Expert, sequence: PosedRgbdSequence) -> dict:
    """AbsRel and the share of pixels within a factor 1.25 (`delta_1`) of the expert's own depth against the recorded
    one, means over the frames: `raw`, and `aligned`, each frame scaled by the median ratio; `scale`: that ratio's
    median and the share of its spread, 10 and 90 percent. Frames without recorded depth are left out.
    """
    raw, aligned, ratios = [], [], []
    for posed in sequence:
        prediction = expert(Frame(posed.image, sequence.camera))
        found, truth = _together(prediction, posed.depth)
        if not len(truth):
            continue
        ratio = float(np.median(truth / found))
        ratios.append(ratio)
        raw.append(abs_rel_and_delta(found, truth))
        aligned.append(abs_rel_and_delta(found * ratio, truth))
    if not ratios:
        raise ValueError("the recording has no depth to compare with: record it with a depth sensor")

    def mean(rows: list[tuple[float, float]]) -> dict:
        return dict(zip(("abs_rel", "delta_1"), (float(x) for x in np.mean(rows, axis=0)), strict=True))

    low, middle, high = (float(x) for x in np.quantile(ratios, (0.1, 0.5, 0.9)))
    scale = {"median": middle, "low": low, "high": high}
    return {"frames": len(ratios), "raw": mean(raw), "aligned": mean(aligned), "scale": scale}


def class_figures(expert: Expert, sequence: PosedRgbdSequence, labels: Path, sensor_depth: bool = False) -> dict:
    """The share of hand-labelled points whose class the expert names (`accuracy`), `per_class` {name: (right, points)},
    and `confusion` (12, 12), rows the hand's labels. A point's class is that of the voxel at the end of its ray, by the
    depth that the expert used; points for which it has none are left out and counted as `without_depth`.
    """
    named = read_points(labels)
    confusion = np.zeros((1 + NUM_CLASSES, 1 + NUM_CLASSES), int)
    without = 0
    for index, grid in named.items():
        posed = sequence.frame(index)
        prediction = expert(Frame(posed.image, sequence.camera, posed.depth if sensor_depth else None))
        rows, columns = np.nonzero(grid)
        found, has_depth = classes_at(prediction, (columns + 0.5) / grid.shape[1], (rows + 0.5) / grid.shape[0])
        np.add.at(confusion, (grid[rows, columns][has_depth], found[has_depth]), 1)
        without += int((~has_depth).sum())
    points = confusion.sum(axis=1)
    per_class = {name_of(c): (int(confusion[c, c]), int(points[c])) for c in CLASS_LABELS if points[c]}
    return {
        "frames": len(named),
        "points": int(points.sum()),
        "without_depth": without,
        "accuracy": float(np.trace(confusion) / points.sum()),
        "mean_accuracy": float(np.mean([right / count for right, count in per_class.values()])),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def read_points(path: Path) -> dict[int, np.ndarray]:
    """{frame: (rows, columns) labels, 0 where not judged}. Raises ValueError for a file that is not that."""
    try:
        content = json.loads(Path(path).read_text())
        grids = {int(frame): np.array([[int(d, 16) for d in row] for row in rows]) for frame, rows in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} holds no labelled points ({error}): see sgrocc/evaluation/recording_score.py"
        ) from error
    for frame, grid in grids.items():
        if grid.ndim != 2 or grid.max(initial=0) > NUM_CLASSES:
            raise ValueError(
                f"{path}: the rows of frame {frame} differ in length, or hold a label above {NUM_CLASSES:x}"
            )
    return grids


def classes_at(prediction: Prediction, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels of what is seen at places in the image, shares of its width and height, 0 where nothing is; and (N,)
    whether there is a depth.

    The camera's frame is taken for the world: the voxel around the end of the ray is splatted.
    """
    camera = prediction.camera
    columns = np.minimum((across * camera.width).astype(int), camera.width - 1)
    rows = np.minimum((down * camera.height).astype(int), camera.height - 1)
    depth = prediction.depth[rows, columns]
    ends = camera.back_project(np.stack([columns, rows], axis=-1).astype(np.float64), depth.astype(np.float64))
    found = np.zeros(len(ends), np.uint8)
    gaussians = prediction.gaussians.select(prediction.gaussians.finite())
    for i in np.flatnonzero(depth > 0):
        grid = VoxelGrid(ends[i] - 0.5 * VOXEL_M, (1, 1, 1), VOXEL_M)
        _, scores = splat_grid(gaussians, grid)
        if scores.sum() > 0:
            found[i] = most_likely_class(scores[0, 0, 0])
    return found, depth > 0


def _together(prediction: Prediction, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Found and true depth of the pixels that have both, at the true depth's size."""
    found = resized_depth(prediction.depth, truth.shape[1], truth.shape[0])
    valid = (truth >= _NEAREST_M) & (truth <= _FURTHEST_M) & (found > 0)
    return found[valid].astype(np.float64), truth[valid].astype(np.float64)


def abs_rel_and_delta(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """AbsRel, and the share within a factor 1.25, of (N,) depths that are all above 0."""
    ratio = np.maximum(found / truth, truth / found)
    return float(np.mean(np.abs(found - truth) / truth)), float(np.mean(ratio < 1.25))
