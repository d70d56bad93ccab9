"""The report of the benchmark: a table beside the paper's figures, and pictures of the best, median and worst."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgrocc.evaluation import evolution
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.pictures import isometric_view, look_in_height_m, titled_row
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import CLASS_NAMES, FREE, UNKNOWN

if TYPE_CHECKING:
    from sgrocc.evaluation.protocols import EmbodiedPredictor, LocalPredictor, Score

#: The paper's own figures, percent, on Occ-ScanNet and EmbodiedOcc-ScanNet. Per class in the order of our labels.
_PUBLISHED = {
    ("local", False): {
        "sc_iou": 58.55,
        "miou": 49.89,
        "boundary_f1": 48.36,
        "per_class": (44.30, 54.50, 50.80, 40.10, 44.40, 57.60, 63.60, 46.40, 44.30, 56.70, 46.10),
    },
    ("embodied", False): {
        "sc_iou": 55.72,
        "miou": 46.22,
        "per_class": (39.6, 52.5, 48.8, 34.3, 42.9, 51.1, 58.5, 44.8, 40.3, 52.4, 43.3),
    },
    ("local", True): {"sc_iou": 59.85, "miou": 50.99},
    ("embodied", True): {"sc_iou": 54.85, "miou": 45.68},
}


def published(protocol: str, mini: bool) -> dict:
    """The paper's figures for a protocol, 0 to 1, and in `data` what they were measured on: never on SynthRooms."""
    percent = _PUBLISHED[protocol, mini]
    per_class = percent.get("per_class")
    return {
        "data": f"{'Occ-ScanNet' if protocol == 'local' else 'EmbodiedOcc-ScanNet'}{'-mini' if mini else ''}",
        **{name: round(value / 100, 6) for name, value in percent.items() if name != "per_class"},
        "per_class": {n: round(v / 100, 6) for n, v in zip(CLASS_NAMES, per_class, strict=True)} if per_class else {},
    }


def print_table(report: dict, console: Console | None = None) -> None:
    """Print a report of `benchmark.run`: a column per contender, percent, and the paper's beside them."""
    # In a file the table may be as wide as it needs to be.
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    paper = report["published_on_other_data"]
    columns = [] if report["method"] is None else [(report["method"], report)]
    columns += report["baselines"].items()
    figures = [of_column for _, of_column in columns]
    configuration = report["configuration"]
    table = Table(
        title=f"{configuration['protocol']} protocol, split {configuration['split']}, depth {configuration['depth']}; "
        "percent, CPU in ms",
        caption=f"mIoU: a class that does not occur (-) counts as zero. * published, on {paper['data']}: other data. "
        "Not comparable.",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    for name in (*(name for name, _ in columns), "SGR-OCC*"):
        # Text, so that square brackets in a name are not read as markup.
        table.add_column(Text(name.replace("_", "\n")), justify="right", overflow="fold")
    for title, keys in _rows(figures):
        cells = [_cell(_at(of_column, keys), keys) for of_column in (*figures, paper)]
        table.add_row(title, *cells, end_section=keys in (("boundary_f1",), ("cpu_ms_per_frame", "median")))
    console.print(table)
    for name, reason in report["baselines_left_out"].items():
        console.print(Text(f"{name} was left out: {reason}"))
    if report["skipped"]:
        console.print(Text(f"{len(report['skipped'])} were skipped; the first: {report['skipped'][0]}"))


def _rows(columns: list[dict]) -> list[tuple[str, tuple[str, ...]]]:
    """(title, where its figure is) of every row; variants that nobody has are left out."""
    both = (("SC-IoU", "sc_iou"), ("mIoU", "miou"))
    rows = [
        ("SC-IoU", ("sc_iou",)),
        ("mIoU", ("miou",)),
        ("precision", ("precision",)),
        ("recall", ("recall",)),
        ("boundary F1", ("boundary_f1",)),
    ]
    for title, key in both:
        rows += [(f"{title}, 95 %", ("interval", key)), (f"margin in {title}", ("margin", key))]
        rows.append(("margin, 95 %", ("margin", "interval", key)))
    for variant in ("visible", "occluded", "frustum"):
        rows += [(f"{title} {variant}", (variant, key)) for title, key in both]
    for percent in ("25", "50", "75"):
        for title, key in both:
            rows.append((f"{title} at {percent} %", ("after_percent", percent, key)))
    rows = [row for row in rows if len(row[1]) == 1 or any(_at(column, row[1][:-1]) for column in columns)]
    rows.append(("CPU per frame", ("cpu_ms_per_frame", "median")))
    return rows + [(name, ("per_class", name)) for name in CLASS_NAMES]


def _at(figures: dict, keys: tuple[str, ...]):
    for key in keys:
        figures = (figures or {}).get(key)
    return figures


def _cell(value: float | list[float] | None, keys: tuple[str, ...]) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " to\n".join(f"{100 * bound:.1f}" for bound in value)
    return f"{value:.1f}" if keys[0] == "cpu_ms_per_frame" else f"{100 * value:.2f}"


# --- pictures

_LINE_PX = 40


def draw(
    folder: Path,
    data: Sequence,
    predictor: LocalPredictor | EmbodiedPredictor,
    scores: Sequence[Score],
) -> list[Path]:
    """Draw the frames (local) or scenes (embodied) with the best, the median and the worst SC-IoU into a folder: the
    image, the truth and the prediction side by side; of the median scene also how its map grows. They are predicted
    again for it. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranked = sorted((score for score in scores if score.sc_iou is not None), key=lambda score: -score.sc_iou)
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    paths = []
    for title, place in places.items() if ranked else ():
        score = ranked[place]
        shown = data[score.index]
        frames = getattr(shown, "frames", None)
        if frames is None:
            frame, labels, truth = shown, predictor.predict(shown).labels, shown.labels
        else:
            predictor.start(shown)
            in_view = np.zeros(shown.grid.shape, bool)
            for frame in frames:
                predictor.add(frame)
                in_view |= frame.mask
            labels, truth = predictor.labels(), np.where(in_view, frame.global_labels(), np.uint8(UNKNOWN))
        # What is not scored is not shown.
        labels = np.where(truth == UNKNOWN, np.uint8(UNKNOWN), labels)
        miou = "-" if score.miou is None else f"{100 * score.miou:.1f}"
        caption = f"{title}: {score.scene} frame {score.frame}, SC-IoU {100 * score.sc_iou:.1f}, mIoU {miou} percent"
        image = None if frame.image_path is None else frame.image()
        path = folder / f"{title}_{score.scene}_{score.frame:05d}.png"
        drawn = (_voxels(shown_labels, truth, shown.grid) for shown_labels in (truth, labels))
        _side_by_side(caption, image, *drawn).save(path)
        paths.append(path)
        if frames is not None and title == "median" and len(frames) > 1:
            paths += evolution.draw(folder, shown, predictor)
    return paths


def _side_by_side(caption: str, image: np.ndarray | None, truth: Image.Image, prediction: Image.Image) -> Image.Image:
    tiles = {"truth": truth, "prediction": prediction}
    if image is not None:
        tiles = {"image": ImageOps.contain(Image.fromarray(image), (truth.height, truth.height)), **tiles}
    return titled_row(caption, tiles, _LINE_PX)


def _voxels(labels: np.ndarray, truth: np.ndarray, grid: VoxelGrid) -> Image.Image:
    """The map from above and aside, cut at the same height as the truth."""
    # A picture names no frame of reference, so the corner may lie anywhere.
    corner = np.rint(grid.origin / grid.resolution) * grid.resolution
    occupied = (labels != FREE) & (labels != UNKNOWN)
    above_m = look_in_height_m(truth, grid.resolution)
    cut_above_m = None if above_m is None else corner[2] + above_m
    occupancy = Occupancy(labels, occupied.astype(np.float32), corner, grid.resolution, "world")
    return isometric_view(occupancy, cut_above_m)
