"""Are the confidences of equations 6 to 8 right as often as they say? Their calibration, and how they look on a map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgrocc.evaluation.pictures import LOOK_IN_HEIGHT_M, floor_layer
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import UNKNOWN, most_likely_class
from sgrocc.memory.confidence import semantic_confidence
from sgrocc.memory.voxels import voxels_of

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedScene
    from sgrocc.evaluation.predictors import MemoryEmbodied
    from sgrocc.memory.confidence import Confirmation
    from sgrocc.memory.gaussian_memory import MemoryConfig

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
                parts.append(_judged(confirmed, frame.global_labels(), scene.grid.resolution))
    if not any(len(part.right) for part in parts):
        raise ValueError("no remembered Gaussian was seen again in these scenes: give scenes of more than one frame")
    return Judged.joined(parts)


def _judged(confirmed: Confirmation, labels: np.ndarray, resolution: float) -> Judged:
    gaussians = confirmed.gaussians
    voxels = voxels_of(gaussians.means, resolution)
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, bbox_inches="tight")
    pyplot.close(figure)
    return errors


def draw_map(scene: EmbodiedScene, predictor: MemoryEmbodied, path: Path) -> None:
    """Write, of a scene from above, each remembered Gaussian in the colour of the confidence that the last frame which
    saw its voxel had in what lived there: geometric, semantic and hybrid. Grey: no frame saw it again."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grid = VoxelGrid(np.zeros(3), scene.grid.shape, scene.grid.resolution)
    last = np.full((3, *grid.shape), np.nan, np.float32)
    predictor.start(scene)
    for frame in scene.frames:
        predictor.add(frame)
        confirmed = predictor.confirmation()
        if confirmed is None:
            continue
        voxels = voxels_of(confirmed.gaussians.means, grid.resolution)
        inside = ((voxels >= 0) & (voxels < grid.shape)).all(axis=1)
        for layer, name in zip(last, _SHOWN, strict=True):
            layer[tuple(voxels[inside].T)] = getattr(confirmed, name)[inside]
    gaussians = predictor.gaussians()
    lowest = floor_layer(scene.labels) or 0
    shown = np.flatnonzero(gaussians.means[:, 2] < lowest * grid.resolution + LOOK_IN_HEIGHT_M)
    gaussians = gaussians.select(shown[np.argsort(gaussians.means[shown, 2], kind="stable")])
    voxels = voxels_of(gaussians.means, grid.resolution)
    inside = ((voxels >= 0) & (voxels < grid.shape)).all(axis=1)
    gaussians, places = gaussians.select(inside), tuple(voxels[inside].T)
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
    chosen = np.unique(np.linspace(0, len(all_scenes) - 1, scenes).round().astype(int))
    predictor = make(model, "embodied", depth)
    judged = judge((all_scenes[i] for i in track(chosen, "mapping scenes")), predictor)
    errors = draw_calibration(judged, memory_config(), out / "calibration.png")
    draw_map(all_scenes[int(chosen[0])], predictor, out / "confidences.png")
    table = Table("expected calibration error", *_SHOWN)
    for setting, values in errors.items():
        table.add_row(setting, *(f"{values[name]:.3f}" for name in _SHOWN))
    Console().print(table)
    return errors
