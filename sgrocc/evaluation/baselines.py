"""The baselines of the benchmark, each as a predictor for one frame or for a whole scene.

class_prior: the class frequencies of the training split at each place before the camera; no image, no depth.
octomap: OctoMap with its own sensor model, its voxels of the class of the expert's nearest Gaussian, or generic.
octomap_fill: the same, with `FILL_VOXELS` unknown voxels behind each seen surface filled.
octomap_unknown_occupied: the same, with all filled that no ray has passed, as a cautious planner reads a map.
splicing: the expert's local grids written into the scene's, the latest frame wins.
voxel_averaging: the mean of the expert's local probabilities, weighted by how well each frame sees a voxel.
embodiedocc, gpocc, veocc: other methods' memories with the expert's Gaussians, see `memory_rules`.
untrained_memory: the method without what its memory learned.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import track

from sgrocc.evaluation.memory_rules import EmbodiedOccRule, GPOccRule, veocc_confidence
from sgrocc.evaluation.metrics import Counts, visible_voxels, voxels_in_image
from sgrocc.evaluation.octomap_baseline import OctomapBaseline
from sgrocc.evaluation.predictors import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    MemoryEmbodied,
    brings_fusion,
    check_names,
    expert_frame,
    load_expert,
    map_expert,
    pose_in_grid,
    splatted,
)
from sgrocc.evaluation.protocols import LocalPrediction
from sgrocc.experts import Expert, Prediction
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.files import whole_file
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, GENERIC, NUM_CLASSES, UNKNOWN, most_likely_class
from sgrocc.splatting import class_probabilities

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.datasets.occscannet import LocalFrame
    from sgrocc.evaluation.protocols import EmbodiedPredictor, LocalPredictor

#: By protocol: with one frame there is nothing to splice or to average.
_LOCAL = ("class_prior", "octomap", "octomap_fill", "octomap_unknown_occupied")
_RULES = ("embodiedocc", "gpocc", "veocc", "untrained_memory")
NAMES = {"local": _LOCAL, "embodied": (*_LOCAL, "splicing", "voxel_averaging", *_RULES)}

#: Chosen on the validation split of SynthRooms, see docs/benchmark.md: the depth of the fill of octomap_fill
#: (`tune_fill`), and the mean probability from which voxel_averaging takes a voxel to be occupied (`tune_threshold`).
FILL_VOXELS = 32
#: With the geometric expert, whose Gaussians are surfaces alone, and with a learned one.
AVERAGING_THRESHOLDS = {"geometric": 0.05, "learned": 0.45}


def make(
    name: str,
    protocol: str,
    depth: str,
    train: Sequence[LocalFrame] | None = None,
    expert: str | Expert | None = None,
) -> LocalPredictor | EmbodiedPredictor:
    """The baseline of that name. protocol, depth: as in `predictors.make`; train: the training frames, for class_prior;
    expert: "geometric" (the default of splicing and voxel_averaging) or a ready-made expert, which also lends its
    classes to the OctoMaps and, with depth "network", its depth.

    Raises ValueError for an unknown name, and where the baseline lacks what it needs; ImportError without pyoctomap.
    """
    check_names(protocol, depth)
    if name not in NAMES["embodied"]:
        raise ValueError(f"there is no baseline {name!r}: use {', '.join(NAMES['embodied'])}")
    if name not in NAMES[protocol]:
        raise ValueError(f"the baseline {name} joins several frames: use --protocol embodied")
    if name == "class_prior":
        if train is None or not len(train):
            raise ValueError("the baseline class_prior needs the training split: give a data set that has one")
        prior = ClassPrior.cached(train)
        if protocol == "local":
            return prior
        return VoxelAveraging(lambda frame: (prior.predict(frame), None), prior.threshold)
    if name.startswith("octomap"):
        if isinstance(expert, str):
            expert = load_expert(None, depth, expert)
        if depth == "network" and expert is None:
            raise ValueError(f"the baseline {name} needs depth: use --depth true or sensor, or give it a model")
        if isinstance(expert, GeometricExpert):
            expert = None  # it knows no classes
        fill_voxels = {"octomap": 0, "octomap_fill": FILL_VOXELS, "octomap_unknown_occupied": EVERYTHING}
        chosen = OctomapLocal if protocol == "local" else OctomapEmbodied
        return chosen(depth, expert, fill_voxels[name])
    expert = load_expert(None, depth, expert or "geometric")
    if name == "untrained_memory" and not brings_fusion(expert):
        raise ValueError("the baseline untrained_memory is the method itself: its model brings no fusion")
    predict = _predict(expert, depth)
    kind = "geometric" if isinstance(expert, GeometricExpert) else "learned"
    made = {
        "splicing": lambda: Splicing(predict),
        "voxel_averaging": lambda: VoxelAveraging(predict, AVERAGING_THRESHOLDS[kind]),
        "veocc": lambda: VoxelAveraging(predict, 0.5, veocc_confidence),
        "gpocc": lambda: GPOccRule(map_expert(expert), depth),
        "embodiedocc": lambda: EmbodiedOccRule(map_expert(expert), depth),
        "untrained_memory": lambda: MemoryEmbodied(map_expert(expert), depth),
    }
    return made[name]()


# -- OctoMap -----------------------------------------------------------------------------------------------------------


#: A fill without a limit: everything that is not known to be free.
EVERYTHING = 255


class OctomapLocal:
    """An OctoMap of one frame. What it neither knows nor fills is free."""

    def __init__(self, depth: str, expert: Expert | None, fill_voxels: int) -> None:
        self._settings = depth, expert, fill_voxels
        OctomapBaseline()  # fails here, not in the first frame

    def predict(self, frame: LocalFrame) -> LocalPrediction:
        octomap = _LabelledOctomap(frame.grid, *self._settings)
        octomap.add(frame)
        return LocalPrediction(octomap.labels(), None)


class OctomapEmbodied:
    """An OctoMap of all frames of a scene. What it neither knows nor fills is free."""

    def __init__(self, depth: str, expert: Expert | None, fill_voxels: int) -> None:
        self._settings = depth, expert, fill_voxels
        OctomapBaseline()

    def start(self, scene: EmbodiedScene) -> None:
        self._octomap = _LabelledOctomap(scene.grid, *self._settings)

    def add(self, frame: EmbodiedFrame) -> None:
        self._octomap.add(frame)

    def labels(self) -> np.ndarray:
        return self._octomap.labels()


class _LabelledOctomap:
    """An OctoMap in a grid, with the expert's classes and with a fill of up to `fill_voxels` behind the surfaces."""

    def __init__(self, grid: VoxelGrid, depth: str, expert: Expert | None, fill_voxels: int) -> None:
        self._world_grid = grid
        self._grid = VoxelGrid(np.zeros(3), grid.shape, grid.resolution)
        self._depth, self._expert, self._fill_voxels = depth, expert, fill_voxels
        self._octomap = OctomapBaseline(grid.resolution, MIN_DEPTH_M, MAX_DEPTH_M)
        self._behind = np.full(grid.shape, UNKNOWN, np.uint8)  # voxels behind the nearest surface, 255 none
        self._votes = _ClassVotes(self._grid) if expert is not None else None

    def add(self, frame: LocalFrame) -> None:
        pose = pose_in_grid(frame.pose, self._world_grid)
        shown = expert_frame(frame, self._depth)
        depth = shown.depth
        if depth is not None:
            camera = frame.camera.resized(depth.shape[1], depth.shape[0])
        if self._expert is not None:
            prediction = self._expert(shown)
            if depth is None:
                depth, camera = prediction.depth, prediction.camera
            if prediction.semantic:
                self._votes.add(prediction, pose)
        self._octomap.add(depth, camera, pose)
        if 0 < self._fill_voxels < EVERYTHING:
            steps = steps_behind(depth, camera, pose, self._grid, self._fill_voxels)
            np.minimum(self._behind, steps, out=self._behind)

    def labels(self, fill_voxels: int | None = None) -> np.ndarray:
        """(X, Y, Z) uint8, 0 to 11, with a fill of at most what the map was made for, or of everything."""
        fill = self._fill_voxels if fill_voxels is None else fill_voxels
        labels = self._octomap.result(self._grid, "grid").labels
        labels[(labels == UNKNOWN) & (self._behind <= fill)] = GENERIC  # 255, no surface before it, is EVERYTHING
        labels[labels == UNKNOWN] = FREE
        if self._votes is not None:
            occupied = np.argwhere(labels == GENERIC)
            labels[tuple(occupied.T)] = self._votes.nearest(occupied)
        return labels


def steps_behind(
    depth: np.ndarray, camera: PinholeCamera, camera_to_grid: Pose, grid: VoxelGrid, fill_voxels: int
) -> np.ndarray:
    """(X, Y, Z) uint8: how many voxels each voxel's centre lies behind the depth of its pixel, along the ray; 1 to
    `fill_voxels`, 255 where it is not behind, or further, or its pixel has no depth."""
    depth = np.where((depth >= MIN_DEPTH_M) & (depth <= MAX_DEPTH_M), depth, np.inf)
    reach_m = MAX_DEPTH_M + fill_voxels * grid.resolution
    voxels, rows, columns, z = voxels_in_image(camera, camera_to_grid, grid, reach_m)
    slant = np.sqrt(1 + ((columns - camera.cx) / camera.fx) ** 2 + ((rows - camera.cy) / camera.fy) ** 2)
    behind = (z - depth[rows, columns]) * slant / grid.resolution
    count = np.maximum(np.ceil(behind - 0.5), 1)
    steps = np.full(grid.shape, UNKNOWN, np.uint8)
    filled = (behind > 0) & (count <= fill_voxels)
    steps.reshape(-1)[voxels[filled]] = count[filled]
    return steps


def tune_fill(
    data: Iterable[LocalFrame] | Iterable[EmbodiedScene], candidates: Sequence[int], depth: str = "true"
) -> dict[int, float]:
    """The SC-IoU of octomap_fill for each number of voxels, over frames (local) or scenes (embodied) of a validation
    split, not the test's.

    Raises ValueError for candidates that are not from 0 to 100.
    """
    if not candidates or min(candidates) < 0 or max(candidates) > 100:
        raise ValueError(f"the candidates for the fill are {list(candidates)}: give numbers of voxels from 0 to 100")
    counts = {fill: Counts.nothing() for fill in candidates}
    for shown in track(data, "Tuning the fill"):
        octomap = _LabelledOctomap(shown.grid, depth, None, max(candidates))
        frames = getattr(shown, "frames", None)
        for frame in [shown] if frames is None else frames:
            octomap.add(frame)
        truth = shown.labels if frames is None else _in_some_view(shown)
        for fill in candidates:
            counts[fill] += Counts.of(octomap.labels(fill), truth)
    return {fill: total.scores()["sc_iou"] for fill, total in counts.items()}


def _in_some_view(scene: EmbodiedScene) -> np.ndarray:
    """(X, Y, Z) uint8: the labels that the embodied protocol scores at the end of a scene."""
    in_view = np.any([frame.mask for frame in scene.frames], axis=0)
    return np.where(in_view, scene.labels, np.uint8(UNKNOWN))


#: Offsets to the voxels within three, the nearest first.
_NEAR = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
_NEAR = _NEAR[np.square(_NEAR).sum(axis=1) <= 9]
_NEAR = _NEAR[np.argsort(np.square(_NEAR).sum(axis=1), kind="stable")]


class _ClassVotes:
    """The class probabilities of Gaussians, summed per voxel of a grid with its corner at the origin."""

    def __init__(self, grid: VoxelGrid) -> None:
        self._grid = grid
        self._sums = np.zeros((*grid.shape, NUM_CLASSES), np.float32)

    def add(self, prediction: Prediction, camera_to_grid: Pose) -> None:
        gaussians = prediction.gaussians.select(prediction.gaussians.finite())
        indices = self._grid.index_of(camera_to_grid.apply(gaussians.means))
        inside = self._grid.contains(indices)
        weights = gaussians.opacities[inside, None] * class_probabilities(gaussians.logits[inside], "additive")
        flat = np.ravel_multi_index(tuple(indices[inside].T), self._grid.shape)
        voxels, member = np.unique(flat, return_inverse=True)
        sums = [np.bincount(member, weights[:, k], len(voxels)) for k in range(NUM_CLASSES)]
        self._sums.reshape(-1, NUM_CLASSES)[voxels] += np.stack(sums, axis=-1)

    def nearest(self, voxels: np.ndarray) -> np.ndarray:
        """(M,) uint8: the class of the nearest voted voxel of (M, 3); generic where none is within three voxels."""
        labels = np.full(len(voxels), GENERIC, np.uint8)
        open_rows = np.arange(len(voxels))
        for offset in _NEAR:
            near = voxels[open_rows] + offset
            inside = self._grid.contains(near)
            votes = np.zeros((len(near), NUM_CLASSES), np.float32)
            votes[inside] = self._sums[tuple(near[inside].T)]
            found = votes.any(axis=1)
            labels[open_rows[found]] = most_likely_class(votes[found])
            open_rows = open_rows[~found]
        return labels


# -- joining local grids -----------------------------------------------------------------------------------------------

Predict = Callable[["EmbodiedFrame"], tuple[LocalPrediction, "Prediction | None"]]
Weigh = Callable[["LocalFrame", "Prediction | None"], np.ndarray]


def _predict(expert: Expert, depth: str) -> Predict:
    def predict(frame: EmbodiedFrame) -> tuple[LocalPrediction, Prediction]:
        prediction = expert(expert_frame(frame, depth))
        return splatted(expert, prediction, frame.pose, frame.grid), prediction

    return predict


class Splicing:
    """Local predictions written into the scene's grid where the frame observes it; the latest wins."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    def start(self, scene: EmbodiedScene) -> None:
        self._grid = scene.grid
        self._labels = np.full(scene.grid.shape, FREE, np.uint8)

    def add(self, frame: EmbodiedFrame) -> None:
        local, _ = self._predict(frame)
        here, there = overlap(self._grid, frame.grid)
        mask = frame.mask[here]
        self._labels[here][mask] = local.labels[there][mask]

    def labels(self) -> np.ndarray:
        """(X, Y, Z) uint8, 0 to 11; free where no frame was."""
        return self._labels.copy()


class VoxelAveraging:
    """The weighted mean of local probabilities, in the scene's grid where the frames observe it.

    threshold: the mean probability of being occupied from which a voxel is; weigh: a frame and its prediction to the
    weights of its grid's voxels, `confidence` by default.
    """

    def __init__(self, predict: Predict, threshold: float = 0.5, weigh: Weigh | None = None) -> None:
        self._predict = predict
        self._threshold = threshold
        self._weigh = weigh or confidence

    def start(self, scene: EmbodiedScene) -> None:
        self._grid = scene.grid
        self._sums = np.zeros((*scene.grid.shape, 1 + NUM_CLASSES), np.float32)

    def add(self, frame: EmbodiedFrame) -> None:
        local, prediction = self._predict(frame)
        here, there = overlap(self._grid, frame.grid)
        weights = self._weigh(frame, prediction)[there] * frame.mask[here]
        self._sums[here] += weights[..., None] * local.probabilities[there]

    def labels(self, threshold: float | None = None) -> np.ndarray:
        """(X, Y, Z) uint8, 0 to 11; free where no frame was. threshold: another than its own."""
        return _most_likely(self._sums, self._threshold if threshold is None else threshold)


def tune_threshold(
    scenes: Iterable[EmbodiedScene],
    candidates: Sequence[float],
    depth: str = "true",
    expert: str | Expert = "geometric",
) -> dict[float, float]:
    """The SC-IoU of voxel_averaging for each threshold, over scenes of a validation split, not the test's."""
    averaging = VoxelAveraging(_predict(load_expert(None, depth, expert), depth))
    counts = {threshold: Counts.nothing() for threshold in candidates}
    for scene in track(scenes, "Tuning the threshold"):
        averaging.start(scene)
        for frame in scene.frames:
            averaging.add(frame)
        truth = _in_some_view(scene)
        for threshold in candidates:
            counts[threshold] += Counts.of(averaging.labels(threshold), truth)
    return {threshold: total.scores()["sc_iou"] for threshold, total in counts.items()}


def confidence(frame: LocalFrame, prediction: Prediction | None) -> np.ndarray:
    """(X, Y, Z) float32 in (0, 1]: how far to trust a local prediction in each voxel of its grid.

    It falls with the depth, as 1 / (1 + (z / 2 m)^2), over the outermost tenth of the image and of the grid to a
    tenth, and to a tenth behind the surfaces that the expert knew the depth of (without a `prediction`: nowhere).
    """
    grid, camera = frame.grid, frame.camera
    pixels, z = camera.project(frame.pose.inverse().apply(grid.centres().reshape(-1, 3)))
    size = np.array([camera.width, camera.height])
    image_border = np.nan_to_num(np.minimum(pixels + 0.5, size - 0.5 - pixels) / size).min(axis=1)
    ramps = [np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / n for n in grid.shape]
    grid_border = np.minimum(ramps[0][:, None, None], ramps[1][None, :, None])  # floor and ceiling are no border
    border = np.minimum(image_border.reshape(grid.shape), grid_border)
    weights = np.clip(10 * border, 0.1, 1) / (1 + np.square(np.maximum(z, 0).reshape(grid.shape) / 2))
    if prediction is not None:
        visible = visible_voxels(prediction.depth, prediction.camera, frame.pose, grid)
        weights = np.where(visible, weights, 0.1 * weights)
    return weights.astype(np.float32)


def overlap(grid: VoxelGrid, other: VoxelGrid) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels that two grids share, in the one and in the other; empty where there are none."""
    # The reader of the data set has made sure that the corners are a whole number of voxels apart.
    start = np.rint((other.origin - grid.origin) / grid.resolution).astype(int)
    low = np.clip(start, 0, grid.shape)
    high = np.maximum(np.clip(start + other.shape, 0, grid.shape), low)
    here = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    there = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    return here, there if (high > low).all() else here


def _most_likely(weights: np.ndarray, threshold: float) -> np.ndarray:
    """(...) uint8 labels of (..., 12) weights, 0 free: the best class where all classes have `threshold` of the sum."""
    occupied_sum = weights[..., 1:].sum(axis=-1)
    occupied = (occupied_sum > 0) & (occupied_sum >= threshold * (occupied_sum + weights[..., 0]))
    labels = np.full(weights.shape[:-1], FREE, np.uint8)
    labels[occupied] = most_likely_class(weights[occupied][:, 1:])
    return labels


# -- class frequencies -------------------------------------------------------------------------------------------------

#: Training frames that the class prior counts at most, evenly spread over the split.
PRIOR_FRAMES = 2000
#: Metres that the prior's box reaches behind and ahead of the camera, and to either side.
_BACK_M, _AHEAD_M, _ASIDE_M = 2.0, 6.0, 4.0
#: Weight, in observations, of a layer's mean frequencies where a place has few of its own.
_LAYER_WEIGHT = 8.0


class ClassPrior:
    """Class frequencies by place: metres ahead and to the left of the camera, and layer of the local grid.

    A voxel is occupied where its frequency of being so reaches the threshold that gives the best SC-IoU on the
    training frames themselves. Raises ValueError where `counts` (ahead, left, layer, 12) holds nothing.
    """

    def __init__(self, counts: np.ndarray, resolution: float) -> None:
        if not counts.any():
            raise ValueError("the training frames have no known voxel: check the data set")
        self.resolution = resolution
        self._counts = counts
        layers = counts.sum(axis=(0, 1), keepdims=True, dtype=np.float64)
        layers /= np.maximum(layers.sum(axis=-1, keepdims=True), 1)
        self._weights = (counts + _LAYER_WEIGHT * layers).astype(np.float32)
        total = self._weights.sum(axis=-1, keepdims=True)
        self._probabilities = np.divide(self._weights, total, out=np.zeros_like(self._weights), where=total > 0)
        self._probabilities[total[..., 0] <= 0, FREE] = 1
        self.threshold = _best_threshold(self._probabilities[..., 1:].sum(axis=-1), counts)
        self._labels = _most_likely(self._probabilities, self.threshold)

    @staticmethod
    def fit(frames: Sequence[LocalFrame]) -> ClassPrior:
        """Count at most `PRIOR_FRAMES` of the frames, evenly spread."""
        chosen = _spread(frames)
        grid = frames[0].grid
        ahead, aside = (round(length / grid.resolution) for length in (_BACK_M + _AHEAD_M, 2 * _ASIDE_M))
        counts = np.zeros((ahead, aside, grid.shape[2], 1 + NUM_CLASSES), np.uint32)
        for row in track(chosen, "Counting classes"):
            frame = frames[row]
            bins, inside = _places(frame, counts.shape[:3])
            labels = frame.labels  # read from a file each time
            known = inside & (labels != UNKNOWN)
            cells = bins[known] * (1 + NUM_CLASSES) + labels[known]
            np.add.at(counts.reshape(-1), cells, 1)
        return ClassPrior(counts, grid.resolution)

    @staticmethod
    def cached(frames: Sequence[LocalFrame]) -> ClassPrior:
        """As `fit`, once for a training split: the counts are kept in the user's cache folder."""
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgrocc"
        path = folder / f"class_prior_{_fingerprint(frames)}.npz"
        if path.is_file():
            try:
                return ClassPrior.load(path)
            except ValueError:
                path.unlink(missing_ok=True)  # a file of a run that was killed
        prior = ClassPrior.fit(frames)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            prior.save(path)
        except OSError:
            pass  # a read-only home costs time, nothing else
        return prior

    def save(self, path: str | Path) -> None:
        """Write an npz; a reader never sees half a file."""
        with whole_file(path) as unfinished, open(unfinished, "wb") as file:
            np.savez_compressed(file, counts=self._counts, resolution=np.float64(self.resolution))

    @staticmethod
    def load(path: str | Path) -> ClassPrior:
        """Read what `save` wrote. Raises ValueError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                return ClassPrior(archive["counts"], float(archive["resolution"]))
        except Exception as error:  # zipfile, zlib and numpy have no common base
            raise ValueError(f"{path} is no class prior ({error}): delete it, it is made again") from error

    def predict(self, frame: LocalFrame) -> LocalPrediction:
        """The frequencies at the place of each voxel; free where the training split says nothing."""
        bins, inside = _places(frame, self._labels.shape)
        labels = np.where(inside, self._labels.reshape(-1)[bins], np.uint8(FREE))
        probabilities = self._probabilities.reshape(-1, 1 + NUM_CLASSES)[bins]
        probabilities[~inside] = np.eye(1 + NUM_CLASSES, dtype=np.float32)[FREE]
        return LocalPrediction(labels, probabilities)


def _places(frame: LocalFrame, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The flat index into a prior of `shape` of each voxel of the frame's grid, and whether it has one (else 0)."""
    grid = frame.grid
    forward = frame.pose.rotation[:2, 2]
    if np.hypot(*forward) < 0.1:  # it looks straight down or up: the image's upper edge points ahead, or back
        forward = np.sign(frame.pose.rotation[2, 2]) * frame.pose.rotation[:2, 1]
    cosine, sine = forward / np.hypot(*forward)
    columns = VoxelGrid(grid.origin, (*grid.shape[:2], 1), grid.resolution).centres()[:, :, 0]
    x, y, _ = np.moveaxis(columns - frame.pose.translation, -1, 0)
    ahead, left = cosine * x + sine * y, cosine * y - sine * x
    place = np.floor(np.stack([ahead + _BACK_M, left + _ASIDE_M], axis=-1) / grid.resolution).astype(np.int64)
    inside = ((place >= 0) & (place < shape[:2])).all(axis=-1)
    column = np.where(inside, place[..., 0] * shape[1] + place[..., 1], 0) * shape[2]
    layers = np.arange(grid.shape[2])
    return column[..., None] + np.minimum(layers, shape[2] - 1), inside[..., None] & (layers < shape[2])


def _best_threshold(occupied: np.ndarray, counts: np.ndarray) -> float:
    """The probability of being occupied from which on a voxel should be, for the best SC-IoU over `counts`."""
    order = np.argsort(-occupied.reshape(-1), kind="stable")
    of_bin = counts.reshape(-1, counts.shape[-1]).astype(np.float64)
    positives = of_bin[:, 1:].sum(axis=1)
    true_positive = np.cumsum(positives[order])
    false_positive = np.cumsum(of_bin[order, FREE])
    iou = true_positive / np.maximum(positives.sum() + false_positive, 1)
    return float(occupied.reshape(-1)[order[np.argmax(iou)]])


def _spread(frames: Sequence[LocalFrame]) -> list[int]:
    """Rows of at most `PRIOR_FRAMES` frames, evenly spread."""
    count = min(len(frames), PRIOR_FRAMES)
    return [i * len(frames) // count for i in range(count)]


def _fingerprint(frames: Sequence[LocalFrame]) -> str:
    """A short hash of the number of frames and of the names and labels of 32 of them: reading all would take as long
    as counting them."""
    digest = hashlib.sha256(f"class prior 1, {PRIOR_FRAMES} of {len(frames)} frames".encode())
    rows = _spread(frames)
    for row in rows[:: max(1, len(rows) // 32)]:
        frame = frames[row]
        digest.update(f"{frame.scene} {frame.frame}\n".encode())
        digest.update(np.ascontiguousarray(frame.labels).tobytes())
    return digest.hexdigest()[:16]
