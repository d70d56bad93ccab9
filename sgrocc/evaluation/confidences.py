"""Are the confidences of equations 6 to 8 right as often as they say? Their calibration, and how they look on a map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib import pyplot

from sgrocc.evaluation.pictures import look_in_height_m
from sgrocc.evaluation.protocols import spread
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import UNKNOWN, most_likely_class
from sgrocc.memory.confidence import semantic_confidence

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedScene
    from sgrocc.evaluation.predictors import MemoryEmbodied
    from sgrocc.memory.confidence import Confirmation
    from sgrocc.memory.gaussian_memory import MemoryConfig

matplotlib.use("Agg")
_BINS = 10
_SHOWN = ("geometric", "semantic", "hybrid")


@dataclass(frozen=True)
class Judged:
    """What frames said of remembered Gaussians that they saw, one entry each: the geometric confidence, the logits
    (N, 11), whether their voxel is occupied, and whether it is so by their class.
    """

    geometric: np.ndarray
    logits: np.ndarray
    occupied: np.ndarray
    right: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """One after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def confidences(
        self, temperature: float, lowest: float, highest: float
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{name: (confidence, whether what it is about was so)}: the geometric one is about the place, the semantic
        one, of Gaussians in occupied places, about the class, and the hybrid one about both.
        """
        semantic = semantic_confidence(self.logits, temperature, lowest, highest)
        return {
            "geometric": (self.geometric, self.occupied),
            "semantic": (semantic[self.occupied], self.right[self.occupied]),
            "hybrid": (self.geometric * semantic, self.right),
        }


def judge(scenes: Iterable[EmbodiedScene], predictor: MemoryEmbodied) -> Judged:
    """Map scenes, and look up in the truth what each frame confirmed. Voxels that the truth does not know are left out.

    Raises ValueError where no frame saw anything again.
    """
    parts = []
    for scene in scenes:
        predictor.start(scene)
        for frame in scene.frames:
            predictor.add(frame)
            confirmed = predictor.confirmation()
            if confirmed is not None and len(confirmed.gaussians):
                parts.append(_judged(confirmed, frame.global_labels(), _grid_of(scene)))
    if not any(len(part.right) for part in parts):
        raise ValueError("no remembered Gaussian was seen again in these scenes: give scenes of more than one frame")
    return Judged.joined(parts)


def _grid_of(scene: EmbodiedScene) -> VoxelGrid:
    """The scene's grid, from its own corner."""
    return VoxelGrid(np.zeros(3), scene.grid.shape, scene.grid.resolution)


def _judged(confirmed: Confirmation, labels: np.ndarray, grid: VoxelGrid) -> Judged:
    gaussians = confirmed.gaussians
    voxels = grid.index_of(gaussians.means)
    inside = grid.contains(voxels)
    truth = np.full(len(voxels), UNKNOWN, np.uint8)
    truth[inside] = labels[tuple(voxels[inside].T)]
    known = truth != UNKNOWN
    right = most_likely_class(gaussians.logits) == truth
    return Judged(confirmed.geometric[known], gaussians.logits[known], (truth > 0)[known], right[known])


def calibration(confidence: np.ndarray, happened: np.ndarray) -> tuple[float, np.ndarray]:
    """Of confidences (N,) in [0, 1] and whether what they were about was so: the expected calibration error over ten
    bins, and (10, 3), each bin's mean confidence, share that was so (both NaN where it is empty) and share of all. All
    is NaN where N is 0.
    """
    if not len(confidence):
        return float("nan"), np.full((_BINS, 3), np.nan)
    row = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    count = np.bincount(row, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(row, confidence, _BINS) / count
        share = np.bincount(row, happened, _BINS) / count
    weight = count / len(confidence)
    return float(np.nansum(weight * np.abs(mean - share))), np.stack([mean, share, weight], axis=1)


def best_temperature(judged: Judged, candidates: np.ndarray) -> float:
    """The temperature whose softmax, with no bounds, is best calibrated."""
    errors = [calibration(*judged.confidences(t, 0.0, 1.0)["semantic"])[0] for t in candidates]
    return float(candidates[int(np.argmin(errors))])


def draw_calibration(judged: Judged, config: MemoryConfig, path: Path) -> dict[str, dict[str, float]]:
    """Write the reliability diagrams of the bare softmax, of a fitted temperature and of `config`; returns
    {setting: {confidence: expected calibration error}}.
    """
    fitted = best_temperature(judged, np.round(np.geomspace(0.25, 4.0, 33), 2))
    settings = {
        "softmax alone": (1.0, 0.0, 1.0),
        f"T fitted ({fitted:g})": (fitted, 0.0, 1.0),
        f"as configured (T {config.temperature:g}, {config.lowest_confidence:g} to {config.highest_confidence:g})": (
            config.temperature,
            config.lowest_confidence,
            config.highest_confidence,
        ),
    }
    figure, axes = pyplot.subplots(1, len(_SHOWN), figsize=(12, 4), constrained_layout=True, sharey=True)
    errors: dict[str, dict[str, float]] = {}
    for setting, values in settings.items():
        errors[setting] = {}
        for axis, (name, (confidence, happened)) in zip(axes, judged.confidences(*values).items(), strict=True):
            errors[setting][name], bins = calibration(confidence, happened)
            if name == "geometric" and len(errors) > 1:
                continue  # it does not depend on the settings
            shown = bins[:, 2] > 0.002
            axis.plot(bins[shown, 0], bins[shown, 1], marker="o", markersize=4, label=setting)
    about = {"geometric": "is occupied", "semantic": "its class is right", "hybrid": "occupied, class right"}
    for axis, name in zip(axes, _SHOWN, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        axis.set(xlabel=f"{name} confidence", title=f"{name}: {about[name]}", xlim=(0, 1), ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share that was so")
    axes[-1].legend(fontsize=8, loc="upper left")
    _save(figure, path)
    return errors


def draw_map(scene: EmbodiedScene, predictor: MemoryEmbodied, path: Path) -> None:
    """Write, of a scene from above, each remembered Gaussian in the colour of the confidence that the last frame which
    saw its voxel had in what lived there: geometric, semantic and hybrid. Grey: no frame saw it again."""
    grid = _grid_of(scene)
    last = np.full((3, *grid.shape), np.nan, np.float32)
    predictor.start(scene)
    for frame in scene.frames:
        predictor.add(frame)
        confirmed = predictor.confirmation()
        if confirmed is None:
            continue
        voxels = grid.index_of(confirmed.gaussians.means)
        inside = grid.contains(voxels)
        for layer, name in zip(last, _SHOWN, strict=True):
            layer[tuple(voxels[inside].T)] = getattr(confirmed, name)[inside]
    gaussians = predictor.gaussians()
    height_m = look_in_height_m(scene.labels, grid.resolution)
    below = gaussians.means[:, 2] < (np.inf if height_m is None else height_m)
    shown = np.flatnonzero(below & grid.contains(grid.index_of(gaussians.means)))
    gaussians = gaussians.select(shown[np.argsort(gaussians.means[shown, 2], kind="stable")])
    places = tuple(grid.index_of(gaussians.means).T)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 5.2), constrained_layout=True, sharey=True)
    for axis, layer, name in zip(axes, last, _SHOWN, strict=True):
        values = layer[places]
        seen = np.isfinite(values)
        axis.scatter(*gaussians.means[~seen, :2].T, c="0.8", s=4, linewidths=0)
        points = axis.scatter(
            *gaussians.means[seen, :2].T, c=values[seen], s=6, cmap="viridis", vmin=0, vmax=1, linewidths=0
        )
        axis.set(title=f"{name} confidence", xlabel="x, m", aspect="equal")
    axes[0].set_ylabel("y, m")
    figure.colorbar(points, ax=axes, shrink=0.8)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, bbox_inches="tight")
    pyplot.close(figure)


def measure(model: Path, data: Path, split: str, depth: str, scenes: int, out: Path) -> dict[str, dict[str, float]]:
    """Judge `scenes` scenes of a split, evenly spread, write `calibration.png` and, of the first of them,
    `confidences.png` into the folder `out`, and print the errors. Returns them, as `draw_calibration`.

    Raises FileNotFoundError or ValueError where model or data cannot be used.
    """
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
    from sgrocc.evaluation.predictors import make, memory_config

    all_scenes = EmbodiedOccScanNet(data, split)
    chosen = spread(len(all_scenes), scenes)
    predictor = make(model, "embodied", depth)
    judged = judge((all_scenes[i] for i in track(chosen, "mapping scenes")), predictor)
    errors = draw_calibration(judged, memory_config(), out / "calibration.png")
    draw_map(all_scenes[chosen[0]], predictor, out / "confidences.png")
    table = Table("expected calibration error", *_SHOWN)
    for setting, values in errors.items():
        table.add_row(setting, *(f"{values[name]:.3f}" for name in _SHOWN))
    Console().print(table)
    return errors
