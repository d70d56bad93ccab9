"""Scores of one voxel map against another: SC-IoU (geometry), mIoU (the 11 classes), the F1 of boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgrocc.evaluation.ground_truth import points_of
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import CLASS_LABELS, CLASS_NAMES, FREE, GENERIC, NUM_CLASSES, UNKNOWN

_EPSILON = 1e-5
_LABELS = 1 + NUM_CLASSES
_BOUNDARY_KEYS = ("prediction", "prediction_matched", "truth", "truth_matched")


@dataclass(frozen=True, eq=False)
class Counts:
    """What there is to know about predictions and their truth, in whole numbers: they add up over frames, scenes and
    processes, in any order, to the same scores.

    voxels: (12, 12) int64, scored voxels by label of the truth (row) and of the prediction (column); boundary: (4,)
    int64, boundary voxels of the prediction, those of them with a boundary voxel of the truth within one voxel, and
    the same the other way round.
    """

    voxels: np.ndarray
    boundary: np.ndarray

    @staticmethod
    def nothing() -> Counts:
        """The counts of no voxels, to begin a sum with."""
        return Counts(np.zeros((_LABELS, _LABELS), np.int64), np.zeros(len(_BOUNDARY_KEYS), np.int64))

    @staticmethod
    def of(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> Counts:
        """Count one map: see `count_subsets`. mask: (X, Y, Z) bool, the voxels that count, or None for all."""
        return count_subsets(prediction, truth, [mask])[0]

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.voxels + other.voxels, self.boundary + other.boundary)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        return np.array_equal(self.voxels, other.voxels) and np.array_equal(self.boundary, other.boundary)

    def scores(self) -> dict:
        """`sc_iou`, `precision`, `recall` of occupied voxels (None where nothing is there to divide by);
        `miou`, the mean over all 11 classes of TP / (TP + FP + FN + 1e-5), a class that occurs nowhere counting as 0;
        `per_class` {name: IoU, or None for a class that occurs nowhere}; `boundary_f1`, `boundary_precision`,
        `boundary_recall` (None as above); `counts` of voxels: `scored`, `occupied_truth`, `occupied_prediction`,
        `true_positive`, `false_positive`, `false_negative`; and `boundary_counts`. Where every occupied voxel of the
        truth is of the generic class `objects`, it carries no classes: `miou` and the classes are None.
        """
        true_positive = int(self.voxels[1:, 1:].sum())
        false_positive = int(self.voxels[FREE, 1:].sum())
        false_negative = int(self.voxels[1:, FREE].sum())
        miou, per_class = self._class_scores()
        near_truth, predicted, near_prediction, true = (int(self.boundary[i]) for i in (1, 0, 3, 2))
        boundary_precision, boundary_recall = _ratio(near_truth, predicted), _ratio(near_prediction, true)
        return {
            "sc_iou": _ratio(true_positive, true_positive + false_positive + false_negative),
            "precision": _ratio(true_positive, true_positive + false_positive),
            "recall": _ratio(true_positive, true_positive + false_negative),
            "miou": miou,
            "per_class": per_class,
            "boundary_f1": _harmonic_mean(boundary_precision, boundary_recall),
            "boundary_precision": boundary_precision,
            "boundary_recall": boundary_recall,
            "counts": {
                "scored": int(self.voxels.sum()),
                "occupied_truth": true_positive + false_negative,
                "occupied_prediction": true_positive + false_positive,
                "true_positive": true_positive,
                "false_positive": false_positive,
                "false_negative": false_negative,
            },
            "boundary_counts": dict(zip(_BOUNDARY_KEYS, self.boundary.tolist(), strict=True)),
        }

    def _class_scores(self) -> tuple[float | None, dict[str, float | None]]:
        """The mIoU and {class name: IoU}, None as `scores` says."""
        occupied_truth = int(self.voxels[1:].sum())
        if occupied_truth == int(self.voxels[GENERIC].sum()):
            return None, dict.fromkeys(CLASS_NAMES)
        ious, per_class = [], {}
        for label, name in zip(CLASS_LABELS, CLASS_NAMES, strict=True):
            intersection = int(self.voxels[label, label])
            union = int(self.voxels[label].sum() + self.voxels[:, label].sum()) - intersection
            ious.append(intersection / (union + _EPSILON))
            per_class[name] = ious[-1] if union else None
        return float(np.mean(ious)), per_class


def resampled_scores(parts: Sequence[Counts], resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """(resamples, 2) SC-IoU and mIoU of as many scenes as there are `parts`, drawn from them with repeats (bootstrap):
    how much the scores owe to the choice of scenes. Of equally many parts the same ones are drawn, so that methods can
    be compared scene by scene.
    """
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), resamples)
    voxels = (times @ np.stack([part.voxels.ravel() for part in parts])).reshape(resamples, _LABELS, _LABELS)
    hits = np.einsum("rkk->rk", voxels)[:, 1:]
    unions = voxels.sum(axis=2)[:, 1:] + voxels.sum(axis=1)[:, 1:] - hits
    occupied = voxels[:, 1:, 1:].sum(axis=(1, 2))
    either = voxels.sum(axis=(1, 2)) - voxels[:, FREE, FREE]
    return np.stack([occupied / np.maximum(either, 1), (hits / (unions + _EPSILON)).mean(axis=1)], axis=1)


def count_subsets(prediction: np.ndarray, truth: np.ndarray, subsets: Sequence[np.ndarray | None]) -> list[Counts]:
    """Count one map over several subsets of the voxels that the truth knows.

    prediction, truth: (X, Y, Z) uint8 labels; what the prediction does not know is not occupied. subsets: (X, Y, Z)
    bool arrays, or None for all voxels. A boundary voxel is an occupied voxel with a free neighbour across one of its
    six faces, both known to the truth; it is matched where the other map has a boundary voxel among itself and its 26
    neighbours. A subset says which voxels count, not where neighbours are sought. Raises ValueError where the shapes
    differ or a label does not exist.
    """
    for array in (truth, *(subset for subset in subsets if subset is not None)):
        if array.shape != prediction.shape:
            raise ValueError(
                f"the prediction has {prediction.shape} voxels and the truth, or a mask, {array.shape}: "
                "put both on one grid"
            )
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype != np.uint8 or ((labels >= _LABELS) & (labels != UNKNOWN)).any():
            raise ValueError(f"a label of the {name} is none of ours: use uint8, 0 to {NUM_CLASSES} and {UNKNOWN}")
    box = _box_of(truth != UNKNOWN)
    prediction, truth = prediction[box], truth[box]
    known = truth != UNKNOWN
    prediction = np.where(prediction == UNKNOWN, np.uint8(FREE), prediction)

    predicted_boundary = _boundary(prediction != FREE, known)
    true_boundary = _boundary((truth != FREE) & known, known)
    boundaries = (
        predicted_boundary,
        predicted_boundary & _grown(true_boundary),
        true_boundary,
        true_boundary & _grown(predicted_boundary),
    )
    pairs = truth * np.uint8(_LABELS) + prediction  # 143 at most where known, and only these are counted

    counts = []
    for subset in subsets:
        scored = known if subset is None else known & subset[box]
        voxels = np.bincount(pairs[scored], minlength=_LABELS**2).reshape(_LABELS, _LABELS)
        boundary = [np.count_nonzero(voxels_of & scored) for voxels_of in boundaries]
        counts.append(Counts(voxels.astype(np.int64), np.array(boundary, np.int64)))
    return counts


def score(prediction: Occupancy, truth: Occupancy) -> dict:
    """Score `prediction` on the voxels that `truth` knows; outside its box, and where unknown, it is not occupied.

    The result is that of `Counts.scores`. Raises ValueError where the maps lie in different frames, or their voxels do
    not coincide.
    """
    if prediction.frame_id != truth.frame_id:
        raise ValueError(
            f"the prediction lies in the frame '{prediction.frame_id}' and the truth in '{truth.frame_id}': "
            "make both in one frame"
        )
    return Counts.of(prediction.resampled_to(truth.grid).labels, truth.labels).scores()


def visible_voxels(depth: np.ndarray, depth_camera: PinholeCamera, pose: Pose, grid: VoxelGrid) -> np.ndarray:
    """(X, Y, Z) bool: the voxels that a frame sees: a pixel's depth ends in them, or their centre falls on a pixel with
    depth and lies at most one voxel behind it.

    The first takes in floors and walls that are seen at a flat angle. depth: (h, w) float32, metres along z, 0 where
    invalid, of the camera's size (ValueError where it is not); pose: camera to the world of `grid`.
    """
    valid_depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
    points, _ = points_of(valid_depth, depth_camera, pose, np.finfo(np.float32).tiny, np.inf)
    reach_m = float(valid_depth.max(initial=0)) + grid.resolution
    voxels, rows, columns, z = voxels_in_image(depth_camera, pose, grid, reach_m)
    behind = valid_depth[rows, columns]
    visible = np.zeros(grid.shape, bool)
    visible.reshape(-1)[voxels[(behind > 0) & (z <= behind + grid.resolution)]] = True
    hit = grid.index_of(points)
    visible[tuple(hit[grid.contains(hit)].T)] = True
    return visible


def view_of(camera: PinholeCamera, pose: Pose, grid: VoxelGrid) -> np.ndarray:
    """(X, Y, Z) bool: the voxels whose centre is in the image, hidden or not. pose: camera to the world of `grid`."""
    size_m = float(np.linalg.norm(grid.shape)) * grid.resolution
    to_grid_m = float(np.linalg.norm(grid.centre_of(np.array(grid.shape) / 2 - 0.5) - pose.translation))
    in_view = np.zeros(grid.shape, bool)
    in_view.reshape(-1)[voxels_in_image(camera, pose, grid, to_grid_m + size_m)[0]] = True
    return in_view


def voxels_in_image(
    camera: PinholeCamera, pose: Pose, grid: VoxelGrid, reach_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The voxels of `grid` whose centre is in the image and at most `reach_m` away along z: (N,) flat indices, rows and
    columns of their pixels, and z.
    """
    # Only the box of voxels around the view's pyramid; one voxel more on each side takes up the rounding.
    corners = np.array([[u, v] for u in (-0.5, camera.width - 0.5) for v in (-0.5, camera.height - 0.5)])
    far = pose.apply(camera.back_project(corners, np.full(4, reach_m)))
    span = grid.index_of(np.concatenate([far, pose.translation[None]]))
    low = np.clip(span.min(axis=0) - 1, 0, grid.shape)
    high = np.clip(span.max(axis=0) + 2, low, grid.shape)
    indices = [np.arange(low[axis], high[axis]) for axis in range(3)]
    # Each coordinate in the camera is a sum of one number per row, column and layer of voxels.
    parts = np.ix_(*[grid.origin[i] + (indices[i] + 0.5) * grid.resolution - pose.translation[i] for i in range(3)])
    x, y, z = (sum(part * pose.rotation[i, axis] for i, part in enumerate(parts)).reshape(-1) for axis in range(3))
    ahead = np.flatnonzero((z > 0) & (z <= reach_m))
    pixels, z = camera.project(np.stack([x[ahead], y[ahead], z[ahead]], axis=-1))
    rows, columns, inside = camera.pixel_index(pixels)
    of_box = np.unravel_index(ahead[inside], tuple(high - low))
    voxels = np.ravel_multi_index([of_box[i] + low[i] for i in range(3)], grid.shape)
    return voxels, rows[inside], columns[inside], z[inside]


def _box_of(known: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box that holds all that is true."""
    box = []
    for axis in range(3):
        where = np.flatnonzero(known.any(axis=tuple(i for i in range(3) if i != axis)))
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0))
    return tuple(box)


def _boundary(occupied: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the known occupied voxels with a known free neighbour across a face."""
    occupied, free = occupied & known, ~occupied & known
    beside_free = np.zeros_like(occupied)
    for axis in range(3):
        lower, upper = _shifts(axis)
        beside_free[lower] |= free[upper]
        beside_free[upper] |= free[lower]
    return occupied & beside_free


def _grown(voxels: np.ndarray) -> np.ndarray:
    """The voxels and their 26 neighbours."""
    for axis in range(3):
        lower, upper = _shifts(axis)
        grown = voxels.copy()
        grown[lower] |= voxels[upper]
        grown[upper] |= voxels[lower]
        voxels = grown
    return voxels


def _shifts(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last, and all but the first, along an axis."""
    whole = [slice(None)] * 3
    lower, upper = whole.copy(), whole.copy()
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    return tuple(lower), tuple(upper)


def _harmonic_mean(precision: float | None, recall: float | None) -> float | None:
    """None where neither map has anything; 0 where only one has."""
    if precision is None and recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
