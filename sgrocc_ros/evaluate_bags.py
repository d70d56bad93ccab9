"""Scores every bag of a folder, one after the other, and sums them up: a table, a file, a picture."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgrocc.evaluation.pictures import LEGEND_PX, swatches
from sgrocc.files import write_json
from sgrocc_ros.bag import STORAGE_SUFFIXES

#: Scores a bag into a folder: (bag, folder, ground truth or None) -> the metrics, as in metrics.json.
ScoreBag = Callable[[Path, Path, Path | None], dict]

#: What is summed up of each bag: its key, and where the metrics have it.
_FIGURES = {
    "frames_fused": ("frames", "fused"),
    "frames_received": ("frames", "received"),
    "sc_iou": ("sc_iou",),
    "octomap_sc_iou": ("octomap", "sc_iou"),
    "miou": ("miou",),
    "cpu_ms_per_frame": ("cpu_ms_per_frame", "fusion"),
}

_NAMES_PX, _BARS_PX, _ROW_PX, _BAR_PX, _MARGIN_PX = 330, 560, 56, 20, 24
_OURS, _OCTOMAP = np.array([40, 95, 190]), np.array([165, 170, 180])
_PAPER, _INK, _LINES, _WARNING = (255, 255, 255), (40, 40, 48), (222, 224, 230), (190, 40, 40)


def find_bags(folder: str | Path) -> dict[str, Path]:
    """The bags below a folder, by their names relative to it, sorted: folders with a metadata.yaml, and .mcap and .db3
    files that lie in none of those.

    Links are followed, and what is reached by several ways counts once. What is hidden is left out, and so is a folder
    that cannot be read, which is named on stderr.
    """

    def leave_out(error: OSError) -> None:
        print(f"evaluate_bag: {_printable(str(error.filename))} is left out: {error.strerror}", file=sys.stderr)

    seen = {os.path.realpath(folder)}

    def is_new(path: str) -> bool:
        known, place = len(seen), os.path.realpath(path)
        seen.add(place)
        return len(seen) > known

    found = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=leave_out):
        if "metadata.yaml" in files:
            found.append(place)
            folders.clear()
            continue
        # What is there itself goes before links to it, whatever they are called.
        entries = sorted((os.path.islink(path), path) for path in (os.path.join(place, name) for name in folders))
        folders[:] = [os.path.basename(p) for _, p in entries if not _is_hidden(p) and is_new(p)]
        entries = sorted((os.path.islink(path), path) for path in (os.path.join(place, name) for name in files))
        found += [p for _, p in entries if p.endswith(STORAGE_SUFFIXES) and not _is_hidden(p) and is_new(p)]
    return dict(sorted((_printable(os.path.relpath(path, folder)), Path(path)) for path in found))


def score_folder(
    folder: str | Path, out: str | Path, score_bag: ScoreBag, ground_truth: str | Path | None = None
) -> int:
    """Score each bag of a folder into `out`/<its name> and sum up; returns the exit code, 1 where a bag failed, else 0.

    ground_truth: a file for all, or a folder with <name of the bag>.npz for each. Leaves summary.json and summary.png
    in `out`. Raises ValueError or OSError, in a sentence, where there is nothing to score or nowhere to put it.
    """
    folder, out = Path(folder), Path(out)
    bags = find_bags(folder)
    if not bags:
        raise ValueError(
            f"{folder} holds no bag: give a folder in which, at any depth, lie folders with a metadata.yaml, "
            "or .mcap or .db3 files"
        )
    if out.resolve() == folder.resolve():
        raise ValueError(f"the scores would go among the recordings of {folder}: choose another --out")
    if ground_truth is not None and not Path(ground_truth).exists():
        raise ValueError(f"there is no ground truth {ground_truth}: check the path")
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    summary = {"folder": str(folder), "bags": [], "mean": {}, "failed": {}}
    for number, (name, bag) in enumerate(bags.items(), start=1):
        console.rule(Text(f"bag {number} of {len(bags)}: {name}"))
        started = time.monotonic()
        try:
            metrics = _scored(bag, out / name, name, score_bag, ground_truth)
        except Exception as error:  # whatever it is, it must not cost the other bags
            expected = isinstance(error, (ValueError, OSError))
            sentence = _printable(str(error) if expected else f"{type(error).__name__}: {error}")
            summary["failed"][name] = sentence
            console.print(Text(f"failed: {sentence}", style="red"))
        else:
            figures = {key: _at(metrics, path) for key, path in _FIGURES.items()}
            summary["bags"].append({"bag": name, **figures, "seconds": round(time.monotonic() - started, 2)})
            console.print(Text(f"SC-IoU {_score(figures['sc_iou'])}, OctoMap {_score(figures['octomap_sc_iou'])}"))
        summary["mean"] = _mean(summary["bags"])
        write_json(out / "summary.json", summary)  # after each bag: a long run may be cut short
    print_summary(summary, console)
    draw_summary(summary).save(out / "summary.png")
    return 1 if summary["failed"] else 0


def print_summary(summary: dict, console: Console) -> None:
    """Print what `score_folder` sums up: a row for each bag, their mean, and why the others failed."""
    has_miou = any(row["miou"] is not None for row in summary["bags"])
    table = Table(title=Text(f"Bags of {_printable(summary['folder'])}"), title_justify="left", show_footer=True)
    mean = _cells({"bag": f"mean of {len(summary['bags'])}", **summary["mean"]}, has_miou) if summary["bags"] else []
    header = ["bag", "fused / received", "SC-IoU", "OctoMap", *(["mIoU"] if has_miou else []), "CPU ms / frame", "s"]
    for column, name in enumerate(header):
        footer = Text(mean[column] if mean else "")
        table.add_column(name, footer, justify="right" if column else "left", overflow="fold")
    for row in summary["bags"]:
        table.add_row(*map(Text, _cells(row, has_miou)))
    if summary["bags"]:
        console.print(table)
    for name, sentence in summary["failed"].items():
        console.print(Text.assemble((f"{name} failed: ", "red"), sentence))


def draw_summary(summary: dict) -> Image.Image:
    """Bars of the SC-IoU of every bag beside OctoMap's; a bag that failed says so."""
    rows = [*summary["bags"], *({"bag": name} for name in summary["failed"])]
    rows.sort(key=lambda row: row["bag"])
    has_octomap = any(row["octomap_sc_iou"] is not None for row in summary["bags"])
    legend = swatches([("SGR-OCC", _OURS), *([("OctoMap", _OCTOMAP)] if has_octomap else [])])
    left, top = _MARGIN_PX + _NAMES_PX, _MARGIN_PX + 64
    bottom = top + _ROW_PX * len(rows)
    page = Image.new("RGB", (left + _BARS_PX + 90 + LEGEND_PX, bottom + 56), _PAPER)
    page.paste(legend, (page.width - LEGEND_PX, top))
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN_PX, _MARGIN_PX), _title(summary), fill=_INK, font=_font(20))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + round(tick * _BARS_PX)
        pen.line([(x, top - 6), (x, bottom)], fill=_LINES, width=1)
        pen.text((x, bottom + 8), f"{tick:g}", fill=_INK, font=_font(15), anchor="ma")
    for number, row in enumerate(rows):
        middle = top + _ROW_PX * number + _ROW_PX // 2
        pen.text((left - 12, middle), _shortened(row["bag"]), fill=_INK, font=_font(17), anchor="rm")
        if "sc_iou" not in row:
            pen.text((left + 8, middle), "failed", fill=_WARNING, font=_font(17), anchor="lm")
            continue
        bars = [(row["sc_iou"], _OURS), *([(row["octomap_sc_iou"], _OCTOMAP)] if has_octomap else [])]
        for place, (value, colour) in enumerate(bars):
            upper = middle - _BAR_PX * len(bars) // 2 + _BAR_PX * place
            right = left + round((value or 0.0) * _BARS_PX)
            pen.rectangle([left, upper, right, upper + _BAR_PX - 3], fill=tuple(int(c) for c in colour))
            pen.text((right + 8, upper + _BAR_PX // 2 - 1), _score(value), fill=_INK, font=_font(15), anchor="lm")
    return page


def _scored(bag: Path, out: Path, name: str, score_bag: ScoreBag, ground_truth: str | Path | None) -> dict:
    for stale in ("metrics.json", "occupancy.npz"):  # a bag that fails now must not look as it did before
        (out / stale).unlink(missing_ok=True)
    truth = None if ground_truth is None else Path(ground_truth)
    if truth is not None and truth.is_dir():
        truth = truth / f"{name}.npz"
        if not truth.is_file():
            raise ValueError(f"there is no ground truth {truth}: put the bag's occupancy there")
    return score_bag(bag, out, truth)


def _at(metrics: dict, path: tuple[str, ...]) -> float | None:
    value = metrics
    for key in path:
        value = value and value[key]
    return value


def _mean(rows: list[dict]) -> dict[str, float | None]:
    """Of each figure over the bags that have it; None where none has."""
    means = {}
    for key in (*_FIGURES, "seconds"):
        values = [row[key] for row in rows if row[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means


def _cells(row: dict, has_miou: bool) -> list[str]:
    cpu_ms = row["cpu_ms_per_frame"]
    return [
        row["bag"],
        f"{row['frames_fused']:.4g} / {row['frames_received']:.4g}",
        _score(row["sc_iou"]),
        _score(row["octomap_sc_iou"]),
        *([_score(row["miou"])] if has_miou else []),
        "-" if cpu_ms is None else f"{cpu_ms:.1f}",
        f"{row['seconds']:.1f}",
    ]


def _title(summary: dict) -> str:
    mean = summary["mean"]
    if not summary["bags"]:
        return "SC-IoU by bag: none could be scored"
    octomap = "" if mean["octomap_sc_iou"] is None else f", OctoMap {_score(mean['octomap_sc_iou'])}"
    return f"SC-IoU by bag; mean of {len(summary['bags'])}: {_score(mean['sc_iou'])}{octomap}"


def _shortened(name: str) -> str:
    """The end of a name, as much as fits beside the bars."""
    font, shown = _font(17), name
    while font.getlength(shown) > _NAMES_PX - 12:
        name = name[1:]
        shown = f"...{name}"
    return shown


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")


def _printable(text: str) -> str:
    """File names may hold bytes that are no text; a terminal and a picture take none."""
    return text.encode(errors="replace").decode()


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)
