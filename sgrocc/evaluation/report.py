"""What a run measured, for people: a table in the terminal and a page of HTML beside its pictures."""

from __future__ import annotations

import subprocess
from html import escape
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgrocc.files import whole_file

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8886; overflow-wrap: anywhere; }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem; }
"""


def print_table(metrics: dict, console: Console | None = None) -> None:
    """Print the metrics of a run (see `write_report`) as tables; what is None or missing is shown as '-'."""
    console = console or Console()
    for title, header, rows in _tables(metrics):
        table = Table(title=title, title_justify="left")
        for column, name in enumerate(header):
            table.add_column(name, justify="right" if column else "left", overflow="fold")
        for row in rows:
            # Text, so that square brackets in a value are not read as markup.
            table.add_row(*map(Text, row))
        console.print(table)


def write_report(out_dir: str | Path, metrics: dict, pictures: list[tuple[str, str]], notes: list[str]) -> Path:
    """Write `index.html` into `out_dir` and return its path.

    metrics: `frames` {received, fused, dropped {reason: n}}, `latency_ms` {p50, p95, p99}, `rate_hz`,
    `map` {gaussians, occupied_voxels}, `sc_iou`, `precision`, `recall`, `octomap` {sc_iou, precision, recall}, `miou`,
    `labelled` (the same scores against a second truth), `depth_source`, `commit`, `configuration`; each may be None or
    missing. pictures: (title, name of a file that is already in `out_dir`); notes: paragraphs. Raises ValueError for a
    picture that is not there.
    """
    out_dir = Path(out_dir)
    figures = []
    for title, name in pictures:
        if Path(name).name != name or not (out_dir / name).is_file():
            raise ValueError(f"the picture {name!r} is not a file in {out_dir}: save it there before the report")
        figures.append(
            f"<figure><figcaption>{escape(title)}</figcaption>"
            f'<img src="{escape(quote(name))}" alt="{escape(title)}"></figure>'
        )
    page = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>SGR-OCC: evaluation of a run</title><style>{_STYLE}</style></head><body>",
        "<h1>SGR-OCC: evaluation of a run</h1>",
        *(f"<p>{escape(note)}</p>" for note in notes),
        *(_html_table(*table) for table in _tables(metrics)),
        _html_table("Configuration", ["", "value"], _configuration_rows(metrics.get("configuration"))),
        *figures,
        "</body></html>\n",
    ]
    path = out_dir / "index.html"
    with whole_file(path) as unfinished:
        unfinished.write_text("\n".join(page), encoding="utf-8")
    return path


def commit_of(folder: str | Path) -> str:
    """The git commit of a folder, '-dirty' after it where tracked files are changed; 'unknown' without git."""
    try:
        # `--exclude *` leaves out the tags, so that the hash itself is what is printed.
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"


def _tables(metrics: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of every table; all cells are text."""
    frames, latency, size = (metrics.get(key) or {} for key in ("frames", "latency_ms", "map"))
    dropped = frames.get("dropped") or {}
    labelled = metrics.get("labelled")
    return [
        ("Map against ground truth", ["", "SGR-OCC", "OctoMap"], _score_rows(metrics)),
        *([("Map against the exact truth", ["", "SGR-OCC", "OctoMap"], _score_rows(labelled))] if labelled else []),
        (
            "Frames",
            ["", "count"],
            [
                *([["sent", _count(frames["sent"])]] if "sent" in frames else []),
                ["received", _count(frames.get("received"))],
                ["fused", _count(frames.get("fused"))],
                *([f"dropped: {reason}", _count(number)] for reason, number in dropped.items()),
            ],
        ),
        (
            "Speed and size",
            ["", "value"],
            [
                *([f"latency {name}", _measure(latency.get(name), "ms")] for name in ("p50", "p95", "p99")),
                ["rate", _measure(metrics.get("rate_hz"), "Hz")],
                *(
                    [["rate when ten times as many frames are sent", _measure(metrics["sustained_hz"], "Hz")]]
                    if "sustained_hz" in metrics
                    else []
                ),
                ["Gaussians", _count(size.get("gaussians"))],
                ["occupied voxels", _count(size.get("occupied_voxels"))],
            ],
        ),
        (
            "Run",
            ["", "value"],
            [[key.replace("_", " "), _text(metrics.get(key))] for key in ("depth_source", "commit")],
        ),
    ]


def _score_rows(scores: dict) -> list[list[str]]:
    octomap = scores.get("octomap") or {}
    names = {"SC-IoU": "sc_iou", "precision": "precision", "recall": "recall", "mIoU (11 classes)": "miou"}
    return [[name, _score(scores.get(key)), _score(octomap.get(key))] for name, key in names.items()]


def _configuration_rows(configuration: dict | str | None) -> list[list[str]]:
    """A row per parameter. It stands on the page alone; on the terminal it would push the results out of sight."""
    if isinstance(configuration, dict):
        return [[name, _text(value)] for name, value in configuration.items()]
    return [["", _text(configuration)]]


def _html_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{escape(title)}</h2>\n<table><tr>{head}</tr>\n{body}</table>"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _measure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
