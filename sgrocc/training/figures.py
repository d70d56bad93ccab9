"""The paper's figures, drawn from any frame: what gates, anchors and sampling points do, and maps beside each other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sgrocc.datasets.occscannet import LocalFrame
from sgrocc.evaluation.pictures import LOOK_IN_HEIGHT_M, isometric_drawing, swatches
from sgrocc.experts.learned import resized_depth
from sgrocc.labels import COLOURS, FREE, UNKNOWN, name_of
from sgrocc.model.lifting import soft_gate
from sgrocc.model.spatial_expert import SpatialExpert
from sgrocc.training.torch_expert import TorchLocal

matplotlib.use("Agg")
#: The tolerances of the paper's Fig. 7, metres.
_TOLERANCES_M = (0.1, 0.5, 2.0)
_FAR_M = 6.0
_DPI = 110
#: What became of a voxel (see `verdicts`), and its colour.
_VERDICTS = ("right", "wrong class", "in free space", "missing")
_VERDICT_COLOURS = np.array([(0, 0, 0), (90, 174, 97), (240, 173, 78), (214, 69, 65), (90, 150, 220)], np.uint8)

NAMES = ("gates", "anchors", "points", "comparison", "tradeoff", "progress")


def draw(
    name: str,
    out: Path,
    data: Path,
    split: str,
    index: int,
    checkpoint: Path | None,
    encoder: Path,
    results: Path,
) -> Path:
    """Draw a figure into the folder `out`; returns its path. index: which frame of the split; checkpoint: of the
    expert stage, for ours; encoder, results: what `sgrocc ablate` was given and gave, for the experts that it trained,
    or a folder of trainings, for their progress.
    Without a checkpoint, ours is the ablations' base. Raises FileNotFoundError or ValueError, in a sentence.
    """
    from sgrocc.datasets.occscannet import OccScanNet
    from sgrocc.evaluation.baselines import OctomapLocal
    from sgrocc.training.ablations import trained
    from sgrocc.training.torch_expert import learned_expert, load_expert

    path = out / f"{name}.png"
    if name == "tradeoff":
        tradeoff(results, path)
        return path
    if name == "progress":
        progress(results, path)
        return path
    frame = OccScanNet(data, split)[index]
    ours = load_expert(checkpoint) if checkpoint else trained("base", 0, encoder, results)
    if name == "gates":
        gates(frame, ours, path)
    elif name == "points":
        points(frame, ours, path)
    elif name == "anchors":
        rows = {"not refined": "refine_none", "free in 3D": "refine_free", "along the ray": "base"}
        anchors(frame, {title: trained(row, 0, encoder, results) for title, row in rows.items()}, path)
    else:
        parity = TorchLocal(trained("embodiedocc", 0, encoder, results))
        octomap = OctomapLocal("network", learned_expert(ours), 0)
        predictors = {"EmbodiedOcc (parity)": parity, "OctoMap, our depth": octomap, "ours": TorchLocal(ours)}
        comparison(frame, {title: p.predict(frame).labels for title, p in predictors.items()}, path)
    return path


def gates(frame: LocalFrame, expert: SpatialExpert, path: Path) -> None:
    """Fig. 7: the gate (eq. 2) in the plane of the image's middle row, seen from above, at three tolerances."""
    output = TorchLocal(expert).output(frame)
    height, width = output.depth.shape[2:]
    camera = frame.camera.resized(width, height)
    row = height // 2
    found = output.depth[0, 0, row]
    truth = torch.from_numpy(resized_depth(frame.depth(), width, height)[row])
    z = torch.linspace(0.05, _FAR_M, 240)
    x = torch.linspace(-0.5 * _FAR_M, 0.5 * _FAR_M, 240)
    columns = (x[None] / z[:, None] * camera.fx + camera.cx).round().long()
    inside = (columns >= 0) & (columns < width)
    surface = found[columns.clamp(0, width - 1)]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.6), sharey=True)
    for axis, tolerance in zip(axes, _TOLERANCES_M, strict=True):
        gate = torch.where(
            inside, soft_gate(z[:, None] - surface, torch.tensor(1.0), torch.tensor(tolerance)), torch.nan
        )
        extent = (float(x[0]), float(x[-1]), float(z[0]), float(z[-1]))
        shown = axis.imshow(gate.numpy(), origin="lower", extent=extent, aspect="equal", cmap="viridis", vmin=0, vmax=1)
        for depth, colour, label in ((found, "white", "the expert's depth"), (truth, "red", "true depth")):
            across = (torch.arange(width) - camera.cx) / camera.fx * depth
            axis.plot(across, depth, color=colour, linewidth=1.2, label=label)
        axis.set(title=f"sigma = {tolerance:g} m", xlabel="x, metres", xlim=extent[:2], ylim=extent[2:])
    axes[0].set_ylabel("z (forward), metres")
    axes[0].legend(loc="lower left", fontsize=8, facecolor="grey", labelcolor="white")
    figure.colorbar(shown, ax=axes, label="gate", shrink=0.8)
    figure.suptitle(y=0.93, t=f"Gates in the image's middle row, from above: {frame.scene} frame {frame.frame}")
    _save(figure, path)


def anchors(frame: LocalFrame, experts: dict[str, SpatialExpert], path: Path) -> None:
    """Fig. 5a: surface anchors from above, by their distance to the true surface in their pixel, of several experts."""
    figure, axes = pyplot.subplots(1, len(experts), figsize=(4.6 * len(experts), 4.8), sharey=True)
    truth = frame.depth()
    for axis, (title, expert) in zip(np.atleast_1d(axes), experts.items(), strict=True):
        samples = len(expert.config.anchors.offsets_m)
        means = TorchLocal(expert).output(frame).gaussians.means[0].numpy()[::samples]
        pixels, z = frame.camera.resized(truth.shape[1], truth.shape[0]).project(means)
        rows = np.clip(np.nan_to_num(pixels[:, 1]).round().astype(int), 0, truth.shape[0] - 1)
        columns = np.clip(np.nan_to_num(pixels[:, 0]).round().astype(int), 0, truth.shape[1] - 1)
        error = np.abs(z - truth[rows, columns])
        shown = axis.scatter(means[:, 0], means[:, 2], c=error, s=6, cmap="magma_r", vmin=0, vmax=0.5)
        axis.set(title=f"{title}: median {100 * np.median(error):.0f} cm", xlabel="x, metres", aspect="equal")
        axis.set(xlim=(-3, 3), ylim=(0, _FAR_M))
    np.atleast_1d(axes)[0].set_ylabel("z (forward), metres")
    figure.colorbar(shown, ax=axes, label="distance to the true surface along z, metres", shrink=0.8)
    figure.suptitle(y=0.93, t=f"Surface anchors from above: {frame.scene} frame {frame.frame}")
    _save(figure, path)


def points(frame: LocalFrame, expert: SpatialExpert, path: Path, queries: int = 4) -> None:
    """Sampling points of surface anchors beside depth edges: where they look, and how large the gate there is."""
    block = expert.blocks[0]
    caught = {}

    def catch(module, arguments, _):
        asked, anchors_of_block, _, depth, intrinsics = arguments
        pixels = module.sampled_pixels(asked, anchors_of_block, intrinsics)
        caught.update(pixels=pixels, gates=module.gates(anchors_of_block, pixels, depth), depth=depth)

    handle = block.lifting.register_forward_hook(catch)
    try:
        TorchLocal(expert).output(frame)
    finally:
        handle.remove()
    if caught["gates"] is None:
        raise ValueError("this expert has no gates to draw: choose one with a soft or a hard gate")
    depth = caught["depth"][0, 0].numpy()
    height, width = depth.shape
    own = expert.anchors.pixels[0, :, 0].numpy()
    steps = np.abs(np.gradient(depth)).sum(axis=0)
    inside = (own >= 24).all(axis=1) & (own[:, 0] < width - 24) & (own[:, 1] < height - 24)
    at_edge = steps[own[:, 1].clip(0, height - 1).astype(int), own[:, 0].clip(0, width - 1).astype(int)] * inside
    chosen = []
    for ray in np.argsort(-at_edge):
        if all(np.abs(own[ray] - own[other]).max() > 60 for other in chosen):
            chosen.append(ray)
        if len(chosen) == queries:
            break
    image = np.asarray(Image.fromarray(frame.image()).resize((width, height)))
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5))
    for axis, background, cmap in ((axes[0], image, None), (axes[1], depth, "gray")):
        axis.imshow(background, cmap=cmap)
        for ray in chosen:
            where = caught["pixels"][0, ray].numpy()
            weight = caught["gates"][0, :, ray, 0].mean(dim=0).numpy()
            shown = axis.scatter(
                where[:, 0], where[:, 1], c=weight, s=22, cmap="viridis", vmin=0, vmax=1, edgecolors="k"
            )
            axis.scatter(*own[ray], marker="+", color="red", s=90)
        axis.set_axis_off()
    axes[0].set_title("image")
    axes[1].set_title("the expert's depth")
    figure.colorbar(shown, ax=axes, label="gate of the surface anchor", shrink=0.8)
    figure.suptitle(
        y=0.93, t=f"Sampling points (dots) of anchors (+) at depth edges: {frame.scene} frame {frame.frame}"
    )
    _save(figure, path)


def comparison(frame: LocalFrame, predictions: dict[str, np.ndarray], path: Path) -> None:
    """Figs. 3 and 9: the image, maps of `predictions` {title: labels (X, Y, Z)} and the truth, all from one place;
    below each prediction its errors.
    """
    truth = frame.labels
    # What hangs above, such as the ceiling, hides the rest.
    layers = np.flatnonzero(_solid(truth).any(axis=(0, 1)))
    top = min(truth.shape[2], (layers[0] if len(layers) else 0) + round(LOOK_IN_HEIGHT_M / frame.grid.resolution))
    truth = truth[:, :, :top]
    titles, columns = ["image"], [[Image.fromarray(frame.image())]]
    shown = np.unique(truth[_solid(truth)])
    for title, labels in predictions.items():
        labels = np.where(truth == UNKNOWN, np.uint8(UNKNOWN), labels[:, :, :top])
        verdict = verdicts(labels, truth)
        columns.append(
            [
                isometric_drawing(_solid(labels), COLOURS[labels]),
                isometric_drawing(verdict > 0, _VERDICT_COLOURS[verdict]),
            ]
        )
        titles.append(title)
        shown = np.union1d(shown, labels[_solid(labels)])
    columns.append([isometric_drawing(_solid(truth), COLOURS[truth])])
    titles.append("truth")
    legends = [
        swatches([(name_of(label), COLOURS[label]) for label in shown]),
        swatches([(name, _VERDICT_COLOURS[index + 1]) for index, name in enumerate(_VERDICTS)]),
    ]
    side, head = 460, 40
    page = Image.new("RGB", (len(columns) * side + legends[0].width, head + 2 * side), "white")
    pen = ImageDraw.Draw(page)
    for index, (title, tiles) in enumerate(zip(titles, columns, strict=True)):
        pen.text((index * side + 8, 8), title, fill="black", font=ImageFont.load_default(22))
        for line, tile in enumerate(tiles):
            page.paste(ImageOps.contain(tile, (side - 10, side - 10)), (index * side, head + line * side))
    for line, legend in enumerate(legends):
        page.paste(legend, (len(columns) * side, head + line * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def verdicts(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What became of each voxel: 1 right, 2 of a wrong class, 3 occupied in free space, 4 missing; 0 the rest."""
    verdict = np.zeros(labels.shape, np.uint8)
    found, true = _solid(labels), _solid(truth)
    verdict[found & true] = 2
    verdict[found & true & (labels == truth)] = 1
    verdict[found & (truth == FREE)] = 3
    verdict[~found & true] = 4
    return verdict


def _solid(labels: np.ndarray) -> np.ndarray:
    return (labels != FREE) & (labels != UNKNOWN)


def tradeoff(results: Path, path: Path) -> None:
    """Fig. 8: score against cost over the number of points K, from the results of `sgrocc ablate`."""
    rows = {4: "points_4", 8: "points_8", 16: "base", 24: "points_24", 32: "points_32"}
    found = {}
    for count, name in rows.items():
        files = sorted(results.glob(f"{name}.seed*.json"))
        if files:
            found[count] = [json.loads(file.read_text()) for file in files]
    if len(found) < 2:
        raise ValueError(f"{results} holds too few rows: run sgrocc ablate --rows {','.join(rows.values())} first")
    counts = list(found)
    figure, left = pyplot.subplots(figsize=(7, 4.5))
    right = left.twinx()
    for key, colour, label in (("sc_iou", "tab:blue", "SC-IoU"), ("miou", "tab:green", "mIoU")):
        values = [100 * np.mean([r["network"]["frustum"][key] for r in found[count]]) for count in counts]
        left.plot(counts, values, "o-", color=colour, label=f"{label}, frustum")
    right.plot(counts, [found[c][0]["gflops"] for c in counts], "s--", color="tab:red", label="GFLOPs")
    left.set(xlabel="points per query, K", ylabel="percent", xticks=counts)
    right.set(ylabel="GFLOPs", ylim=(0, None))
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    left.legend(handles=handles, loc="center right", fontsize=8)
    _save(figure, path)


def progress(trainings: Path, path: Path) -> None:
    """Fig. 5b: the scores of the validation scenes from before the first epoch on. trainings: a folder with the folders
    that `sgrocc train` wrote, named NAME_SEED: those of one name are a line, with all seeds between its edges.
    """
    found: dict[str, list[dict[float, tuple[float, float]]]] = {}
    for folder in sorted(trainings.iterdir() if trainings.is_dir() else []):
        scores = _validated(list(folder.glob("logs/run_*/metrics.csv")))
        if scores:
            found.setdefault(folder.name.rpartition("_")[0] or folder.name, []).append(scores)
    if not found:
        raise ValueError(f"{trainings} holds no training with scores: give the folder above those of sgrocc train")
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, column, title in zip(axes, (0, 1), ("SC-IoU", "mIoU"), strict=True):
        for name, runs in found.items():
            epochs = sorted(set.intersection(*(set(run) for run in runs)))
            values = 100 * np.array([[run[epoch][column] for epoch in epochs] for run in runs])
            done = np.array(epochs) + 1
            (line,) = axis.plot(done, values.mean(axis=0), marker="o", label=f"{name} ({len(runs)})")
            axis.fill_between(done, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2)
        axis.set(xlabel="epochs of training", ylabel=f"{title}, percent")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8, title="training (seeds)")
    _save(figure, path)


def _validated(logs: list[Path]) -> dict[float, tuple[float, float]]:
    """{epoch, -1 for before the first: (SC-IoU, mIoU)}; a training that went on has several logs, the latest counts."""
    scores = {}
    for log in sorted(logs, key=lambda log: int(log.parent.name.rpartition("_")[2])):
        with log.open() as file:
            for row in csv.DictReader(file):
                if row.get("val/miou"):
                    scores[float(row["epoch"])] = (float(row["val/sc_iou"]), float(row["val/miou"]))
    return scores


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    pyplot.close(figure)
