"""Is a data set complete, and how are its classes spread? Every file is read once, and nothing is passed over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sgrocc.datasets.embodied_occscannet import read_scene
from sgrocc.datasets.layout import KINDS, Layout, read_split
from sgrocc.datasets.occscannet import read_frame
from sgrocc.datasets.pickles import BadFile
from sgrocc.evaluation.protocols import seen_by
from sgrocc.labels import CLASS_LABELS, CLASS_NAMES, FREE, UNKNOWN, name_of

#: Voxels per label in the local grids of Occ-ScanNet, train and test, as the authors of EmbodiedOcc count them.
REAL_VOXELS = {
    "unknown": 5080655412,
    "free": 3196722886,
    "ceiling": 722756,
    "floor": 44793226,
    "wall": 41084591,
    "window": 3416464,
    "chair": 21897101,
    "bed": 10609339,
    "sofa": 13846320,
    "table": 23470172,
    "tv": 263393,
    "furniture": 30949122,
    "objects": 9871618,
}
_LABELS = (UNKNOWN, FREE, *CLASS_LABELS)
#: What is hidden is looked at in one frame of so many.
_OCCLUSION_EVERY = 10
#: So many bad files are shown one by one; all of them go into the JSON.
_SHOWN = 20


def run(
    data: str | Path | Layout, splits: Sequence[str] | None = None, *, mini: bool = False, json_path: Path | None = None
) -> int:
    """Check splits (default: all that have a list) and print what is found; 1 where a file cannot be used, else 0.

    json_path: file that takes the same as JSON. Raises ValueError where there is no list of a split.
    """
    layout = Layout(data)
    held = list(dict.fromkeys(split for kind in KINDS for split in layout.splits(kind, mini)))
    if not held:
        raise ValueError(
            f"{data} holds no list such as {layout.list_path('train', 'local', mini)}: pass the folder that holds "
            "occscannet and scene_occ"
        )
    console = Console()
    results = []
    for split in splits or held:
        results.append(check(layout, split, mini))
        print_check(results[-1], console)
    if json_path is not None:
        json_path = Path(json_path)
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps({"splits": results, "occ_scannet_voxels": REAL_VOXELS}, indent=1) + "\n")
    return int(any(result[kind]["bad_files"] for result in results for kind in KINDS if kind in result))


def check(root: str | Path | Layout, split: str, mini: bool = False) -> dict:
    """Read a split. Returns per task ('local', 'embodied') that has a list of it:

    scenes, frames: that can be used; listed: lines of the list; problems: how many files are missing, damaged, unsafe
    or malformed; bad_files: a sentence on each; voxels: how many have each label (of all local grids, or of the
    scenes). local also: occluded, the shares of the `known` and of the `occupied` voxels of a frame's grid that the
    frame does not see (None without depth). embodied also: mean_size_m and in_view, the share of the scenes' voxels
    that some frame has in view.
    """
    layout = Layout(root)
    checks: dict[str, Callable] = {"local": _check_frames, "embodied": _check_scenes}
    kinds = [kind for kind in KINDS if split in layout.splits(kind, mini)]
    if not kinds:
        held = " or ".join(layout.splits("local", mini))
        raise ValueError(f"{layout.occscannet.parent} has no split {split!r}: use {held}")
    result: dict = {"split": split, "mini": mini}
    for kind in kinds:
        entries, problems = read_split(layout, split, kind, mini)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            content = checks[kind](layout, progress.track(entries, description=f"{split}, {kind}"), problems)
        reasons = Counter(problem.reason for problem in problems)
        result[kind] = {
            "listed": len(entries),
            **content,
            "problems": dict(sorted(reasons.items())),
            "bad_files": [str(problem) for problem in problems],
        }
    return result


def _check_frames(layout: Layout, entries, problems: list[BadFile]) -> dict:
    scenes: set[str] = set()
    frames = 0
    voxels = np.zeros(256, np.int64)
    hidden, looked_at = np.zeros(2, np.int64), np.zeros(2, np.int64)  # known, occupied
    for number, (_, name, stem) in enumerate(entries):
        try:
            frame = read_frame(layout, name, stem)
            frame.verify()
            labels = frame.labels
            if number % _OCCLUSION_EVERY == 0 and frame.depth_path is not None:
                subsets = [labels != UNKNOWN, (labels != UNKNOWN) & (labels != FREE)]
                seen = seen_by(frame, frame.grid)
                hidden += [np.count_nonzero(subset & ~seen) for subset in subsets]
                looked_at += [np.count_nonzero(subset) for subset in subsets]
            voxels += np.bincount(labels.reshape(-1), minlength=256)
        except BadFile as problem:
            problems.append(problem)
            continue
        scenes.add(name)
        frames += 1
    occluded = {name: h / n if n else None for name, h, n in zip(("known", "occupied"), hidden.tolist(), looked_at)}
    return {"scenes": len(scenes), "frames": frames, "occluded": occluded, "voxels": _named(voxels)}


def _check_scenes(layout: Layout, entries, problems: list[BadFile]) -> dict:
    scenes = frames = in_view = 0
    voxels = np.zeros(256, np.int64)
    size_m = np.zeros(3)
    for split, name, _ in entries:
        bad: dict[str, BadFile] = {}
        try:
            scene = read_scene(layout, split, name, bad=bad)
        except BadFile as problem:
            problems += [*bad.values(), problem]
            continue
        problems += bad.values()
        seen = np.zeros(scene.grid.shape, bool)
        usable = 0
        for frame in scene.frames:
            try:
                frame.verify()
                seen |= frame.mask
                usable += 1
            except BadFile as problem:
                problems.append(problem)
        if not usable:
            continue
        scenes += 1
        frames += usable
        in_view += int(np.count_nonzero(seen))
        voxels += np.bincount(scene.labels.reshape(-1), minlength=256)
        size_m += np.array(scene.grid.shape) * scene.grid.resolution
    return {
        "scenes": scenes,
        "frames": frames,
        "mean_size_m": [round(float(length), 2) for length in size_m / max(scenes, 1)],
        "in_view": in_view / max(int(voxels.sum()), 1),
        "voxels": _named(voxels),
    }


def _named(voxels: np.ndarray) -> dict[str, int]:
    return {name_of(label): int(voxels[label]) for label in _LABELS}


def shares(voxels: dict[str, int]) -> dict[str, float]:
    """'unknown' of all voxels, 'free' of the known ones, every class of the occupied ones; 0 where there are none."""
    known = sum(voxels.values()) - voxels["unknown"]
    occupied = known - voxels["free"]
    return {
        "unknown": voxels["unknown"] / max(sum(voxels.values()), 1),
        "free": voxels["free"] / max(known, 1),
        **{name: voxels[name] / max(occupied, 1) for name in CLASS_NAMES},
    }


def print_check(result: dict, console: Console | None = None) -> None:
    """Print what `check` returned: counts, bad files, and the classes beside those of the real set."""
    console = console or Console()
    kinds = [kind for kind in KINDS if kind in result]
    title = f"{result['split']}{' (mini)' if result['mini'] else ''}"
    for kind in kinds:
        part = result[kind]
        what = "frames" if kind == "local" else "scenes"
        line = f"{title}, {kind}: {part[what]} of {part['listed']} {what} can be used"
        line += f", of {part['scenes']} scenes" if kind == "local" else f", {part['frames']} frames"
        if kind == "local" and part["occluded"]["occupied"] is not None:
            known, occupied = (part["occluded"][name] for name in ("known", "occupied"))
            line += f"; a frame does not see {known:.0%} of the known and {occupied:.0%} of the occupied voxels"
        if kind == "embodied" and part["scenes"]:
            size = " x ".join(f"{length:g}" for length in part["mean_size_m"])
            line += f"; mean size {size} m, {part['in_view']:.0%} of it in some frame's view"
        console.print(line, highlight=False, soft_wrap=True)
        for reason, count in part["problems"].items():
            console.print(f"  [red]{count} {reason}[/red]", highlight=False)
        for sentence in part["bad_files"][:_SHOWN]:
            console.print(f"    {sentence}", markup=False, highlight=False, soft_wrap=True)
        if len(part["bad_files"]) > _SHOWN:
            console.print(f"    and {len(part['bad_files']) - _SHOWN} more", highlight=False)

    table = Table(title=f"{title}: share of voxels, percent")
    table.add_column("label")
    table.add_column("of")
    for kind in kinds:
        table.add_column("local grids" if kind == "local" else "scenes", justify="right")
    table.add_column("Occ-ScanNet, local grids", justify="right")
    columns = [shares(result[kind]["voxels"]) for kind in kinds] + [shares(REAL_VOXELS)]
    for name in columns[0]:
        of = {"unknown": "all", "free": "known"}.get(name, "occupied")
        table.add_row(name, of, *(f"{100 * column[name]:.2f}" for column in columns), end_section=name == "free")
    console.print(table)
