"""The two protocols of the benchmark: one frame and the voxels before it, and a scene that is seen frame by frame.

Both score only voxels that the truth knows. Visible are those that the frame that is scored (local), or some frame so
far (embodied), sees by the true depth; occluded are all others. Counts of results add up, so that several processes
give what one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sgrocc.evaluation.metrics import Counts, count_subsets, view_of, visible_voxels
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import UNKNOWN

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.datasets.occscannet import LocalFrame

PROTOCOLS = ("local", "embodied")
#: What a method is given as depth: as stored, with the faults of an RGB-D sensor, or none.
DEPTHS = ("true", "sensor", "network")

#: Variants of the scores. frustum: the voxels whose centre is in the image, hidden ones included.
LOCAL_VARIANTS = ("all", "visible", "occluded", "frustum")
EMBODIED_VARIANTS = ("all", "visible", "occluded")
#: Percent of a scene's frames after which its map is scored.
PERCENTS = (25, 50, 75, 100)


@dataclass(frozen=True, eq=False)
class LocalPrediction:
    """labels: (60, 60, 36) uint8, our labels on the frame's grid; probabilities: (60, 60, 36, 12) float32, the first of
    being free, or None.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None


class LocalPredictor(Protocol):
    """Predicts the voxels of one frame. Raises ValueError for a frame it cannot use."""

    def predict(self, frame: LocalFrame) -> LocalPrediction: ...


class EmbodiedPredictor(Protocol):
    """Maps a scene frame by frame; `labels` is its map so far, (X, Y, Z) uint8 on the scene's grid."""

    def start(self, scene: EmbodiedScene) -> None: ...

    def add(self, frame: EmbodiedFrame) -> None: ...

    def labels(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Score:
    """How well one frame (local) or one scene, at its end (embodied; `frame` is then its last one), was predicted.

    index: its place in the sequence that was scored; sc_iou: None where neither map has an occupied voxel; cpu_ms: CPU
    time of all threads for each frame.
    """

    index: int
    scene: str
    frame: int
    sc_iou: float | None
    miou: float | None
    cpu_ms: tuple[float, ...]


@dataclass(frozen=True)
class LocalResult:
    """counts: {one of LOCAL_VARIANTS: Counts}; scores: one per frame."""

    counts: dict[str, Counts]
    scores: tuple[Score, ...]

    def __add__(self, other: LocalResult) -> LocalResult:
        return LocalResult(_sum(self.counts, other.counts), self.scores + other.scores)


@dataclass(frozen=True)
class EmbodiedResult:
    """counts: {percent of the frames: {one of EMBODIED_VARIANTS: Counts}}; scores: one per scene; scenes: of each scene
    the Counts of all its voxels at its end.
    """

    counts: dict[int, dict[str, Counts]]
    scores: tuple[Score, ...]
    scenes: tuple[Counts, ...] = ()

    def __add__(self, other: EmbodiedResult) -> EmbodiedResult:
        counts = {percent: _sum(counts, other.counts[percent]) for percent, counts in self.counts.items()}
        return EmbodiedResult(counts, self.scores + other.scores, self.scenes + other.scenes)


def run_local(
    frames: Sequence[LocalFrame],
    predictor: LocalPredictor,
    progress: Callable[[], object] | None = None,
    indices: Iterable[int] | None = None,
    prepare: Callable[[LocalFrame], object] | None = None,
) -> LocalResult:
    """Predict and score frames on their own grids.

    progress: called after every frame; indices: which frames (default: all); prepare: called with every frame before
    its CPU time is taken, for what a robot would not have to do. Raises ValueError where a prediction does not fit the
    frame's grid.
    """
    counts = {variant: Counts.nothing() for variant in LOCAL_VARIANTS}
    scores = []
    for index in range(len(frames)) if indices is None else indices:
        frame = frames[index]
        if prepare is not None:
            prepare(frame)
        start_s = time.process_time()
        labels = predictor.predict(frame).labels
        cpu_ms = 1000 * (time.process_time() - start_s)

        _check_shape(labels, frame.grid, f"{frame.scene} frame {frame.frame}")
        visible = seen_by(frame, frame.grid)
        in_view = view_of(frame.camera, frame.pose, frame.grid)
        subsets = [None, visible, ~visible, in_view]
        of_frame = dict(zip(LOCAL_VARIANTS, count_subsets(labels, frame.labels, subsets), strict=True))
        counts = _sum(counts, of_frame)
        scores.append(_score(index, frame, of_frame["all"], (cpu_ms,)))
        if progress is not None:
            progress()
    return LocalResult(counts, tuple(scores))


def run_embodied(
    scenes: Sequence[EmbodiedScene],
    predictor: EmbodiedPredictor,
    progress: Callable[[], object] | None = None,
    indices: Iterable[int] | None = None,
    percents: Sequence[int] = PERCENTS,
    prepare: Callable[[LocalFrame], object] | None = None,
) -> EmbodiedResult:
    """Show scenes frame by frame, and score the map after each of `percents` of the frames (rounded up) on the voxels
    that some frame so far had in view, against the labels at that frame.

    progress, prepare: as for `run_local`; indices: which scenes (default: all); percents: ascending, the last is 100.
    Raises ValueError where a map does not fit the scene's grid.
    """
    counts = {percent: {variant: Counts.nothing() for variant in EMBODIED_VARIANTS} for percent in percents}
    scores, ends = [], []
    for index in range(len(scenes)) if indices is None else indices:
        scene = scenes[index]
        due: dict[int, list[int]] = {}
        for percent in percents:
            due.setdefault(math.ceil(percent * len(scene.frames) / 100), []).append(percent)
        in_view, visible = np.zeros(scene.grid.shape, bool), np.zeros(scene.grid.shape, bool)
        cpu_ms = []
        predictor.start(scene)
        for number, frame in enumerate(scene.frames, 1):
            if prepare is not None:
                prepare(frame)
            start_s = time.process_time()
            predictor.add(frame)
            cpu_ms.append(1000 * (time.process_time() - start_s))
            in_view |= frame.mask
            visible |= seen_by(frame, scene.grid)
            if number in due:
                start_s = time.process_time()
                labels = predictor.labels()
                map_ms = 1000 * (time.process_time() - start_s)
                _check_shape(labels, scene.grid, scene.name)
                # What no frame had in view is unknown, as if it were not there.
                truth = np.where(in_view, frame.global_labels(), np.uint8(UNKNOWN))
                of_scene = dict(
                    zip(EMBODIED_VARIANTS, count_subsets(labels, truth, [None, visible, ~visible]), strict=True)
                )
                for percent in due[number]:
                    counts[percent] = _sum(counts[percent], of_scene)
            if progress is not None:
                progress()
        # The map is asked for once, at the end: each frame bears its share.
        shared = tuple(ms + map_ms / len(cpu_ms) for ms in cpu_ms)
        scores.append(_score(index, scene.frames[-1], of_scene["all"], shared))
        ends.append(of_scene["all"])
    return EmbodiedResult(counts, tuple(scores), tuple(ends))


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` indices, evenly spread; all of them where wanted is 0 or more than there are."""
    if not wanted or wanted >= count:
        return list(range(count))
    return [int(i) for i in (np.arange(wanted) + 0.5) * count / wanted]


def seen_by(frame: LocalFrame, grid: VoxelGrid) -> np.ndarray:
    """(X, Y, Z) bool: the voxels of `grid` that a frame sees by its true depth; none where it has no depth file."""
    if frame.depth_path is None:
        return np.zeros(grid.shape, bool)
    depth = frame.depth()
    return visible_voxels(depth, frame.camera.resized(depth.shape[1], depth.shape[0]), frame.pose, grid)


def _score(index: int, frame: LocalFrame, counts: Counts, cpu_ms: tuple[float, ...]) -> Score:
    scores = counts.scores()
    return Score(index, frame.scene, frame.frame, scores["sc_iou"], scores["miou"], cpu_ms)


def _sum(counts: dict[str, Counts], others: dict[str, Counts]) -> dict[str, Counts]:
    return {variant: counts[variant] + others[variant] for variant in counts}


def _check_shape(labels: np.ndarray, grid: VoxelGrid, where: str) -> None:
    if labels.shape != grid.shape:
        raise ValueError(f"the prediction of {where} has {labels.shape} voxels, its grid {grid.shape}: predict all")
