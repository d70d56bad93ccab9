"""Score a model, any predictions, or baselines on a split of Occ-ScanNet, EmbodiedOcc-ScanNet or SynthRooms."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgrocc.evaluation.disturbances import Disturbance, Disturbed
from sgrocc.evaluation.protocols import DEPTHS, PROTOCOLS
from sgrocc.files import write_json

if TYPE_CHECKING:
    from sgrocc.datasets.layout import Layout
    from sgrocc.evaluation.protocols import EmbodiedPredictor, EmbodiedResult, LocalPredictor, LocalResult
    from sgrocc.experts import Expert

#: What has a score of its own; the other contenders are baselines, by their names.
_METHOD = "method"
#: Frames that a process takes at a time under the local protocol.
_FRAMES_AT_ONCE = 16
#: What `resampled_scores` draws.
_DRAWN = ("sc_iou", "miou")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `run` takes."""
    method = parser.add_mutually_exclusive_group()
    method.add_argument("--model", type=Path, help="folder of an exported model")
    method.add_argument("--expert", choices=("geometric",), help="an expert that needs no model")
    method.add_argument(
        "--predictions",
        type=Path,
        help="folder of anyone's predictions: <scene>/<frame, five digits>.npy or .npz (local), <scene>.npy or .npz "
        "(embodied): an array of our labels on the grid, or an occupancy map, which is moved onto the grid",
    )
    parser.add_argument("--data", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--split", default="test", help="which of its splits (default test)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="local", help="one frame, or a scene (default local)")
    parser.add_argument(
        "--depth",
        choices=DEPTHS,
        default="true",
        help="what is given as depth: as stored, with the faults of a sensor, or none (default true)",
    )
    parser.add_argument("--baselines", nargs="*", metavar="NAME", help="score baselines too (no NAME: all that apply)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--pictures", type=Path, help="draw the best, the median and the worst there")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1); the figures are the same")
    parser.add_argument("--limit", type=int, help="only so many frames (local) or scenes (embodied), evenly spread")
    disturbed = parser.add_argument_group(
        "what goes wrong (embodied protocol): the contenders see it, the truth does not"
    )
    disturbed.add_argument("--position-noise", type=float, default=0.0, metavar="METRES", help="of each pose, per axis")
    disturbed.add_argument(
        "--rotation-noise", type=float, default=0.0, metavar="DEGREES", help="of each pose, per axis"
    )
    disturbed.add_argument("--lost", type=float, default=0.0, metavar="SHARE", help="of the frames never come")
    disturbed.add_argument(
        "--drift",
        type=float,
        default=0.0,
        metavar="METRES",
        help="grows until a loop closure takes it back at 75 percent",
    )
    parser.add_argument("--mini", action="store_true", help="the mini lists of the real data set")
    parser.add_argument(
        "--scene-disjoint", action="store_true", help="deal the frames again, so that train and test share no room"
    )
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="skip: leave out files that are bad, and say so"
    )


def run(options: argparse.Namespace) -> dict:
    """Score what `options` (see `add_arguments`) name, print a table, write the JSON and the pictures; the result is
    what the JSON holds.

    `sc_iou`, `precision`, `recall`, `miou`, `per_class`, `boundary_f1` and more of `Counts.scores`, of the method;
    the same in `visible` and `occluded`, in `frustum` (local), and after 25, 50 and 75 percent of the frames in
    `after_percent` (embodied); `interval` of `sc_iou` and `miou`, where 95 percent of draws of scenes lie (embodied);
    `cpu_ms_per_frame`; `baselines` {name: the same, and `margin`, by how much the method is above it, with the
    interval of that}; `configuration`, `data_hash`, `commit`, `skipped`. Without a method its scores are None. Raises
    ValueError, ImportError or OSError, in a sentence.
    """
    from sgrocc.evaluation import benchmark_report
    from sgrocc.evaluation.report import commit_of

    if options.jobs < 1 or (options.limit is not None and options.limit < 1):
        raise ValueError(f"--jobs {options.jobs} or --limit {options.limit} is below 1: leave it out")
    task = _Task.of(options)
    names, left_out = _contenders(task, options.baselines)
    results = _score_all(task, names, options.jobs)
    figures = {name: _figures(result) for name, result in results.items()}
    _add_margins(figures, results)
    report = {
        "method": task.method_name,
        **figures.pop(_METHOD, _no_figures()),
        "baselines": figures,
        "baselines_left_out": left_out,
        "published_on_other_data": benchmark_report.published(task.protocol, task.mini),
        "configuration": task.configuration(options),
        "data_hash": data_hash(task.data.layout, task.data.split, task.protocol, task.mini, options.scene_disjoint),
        "commit": commit_of(Path(__file__).parent),
        "skipped": task.data.skipped,
    }
    if options.json:
        write_json(options.json, report)
    benchmark_report.print_table(report)
    if options.pictures:
        shown = names[0]
        for path in benchmark_report.draw(options.pictures, task.data, task.predictor(shown), results[shown].scores):
            print(path)
    return report


# --- what is scored


@dataclass(eq=False)
class _Task:
    """All that a process needs to predict and score: it is sent to each. data: the split's reader; settings: how the
    training split is read.
    """

    protocol: str
    depth: str
    mini: bool
    data: Sequence
    settings: dict
    indices: list[int]
    model: Path | None = None
    expert: str | None = None
    predictions: Path | None = None
    disturbance: Disturbance = Disturbance()
    _predictors: dict = field(default_factory=dict)
    _expert: Expert | None = None

    @staticmethod
    def of(options: argparse.Namespace) -> _Task:
        from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
        from sgrocc.datasets.layout import Layout
        from sgrocc.datasets.occscannet import OccScanNet

        settings = {"mini": options.mini, "on_error": options.on_error, "scene_disjoint": options.scene_disjoint}
        local = options.protocol == "local"
        data = (OccScanNet if local else EmbodiedOccScanNet)(Layout(options.data), options.split, **settings)
        if not len(data):
            raise ValueError(f"nothing of {options.split} can be read, for example {data.skipped[0]}")
        count = min(options.limit or len(data), len(data))
        indices = [i * len(data) // count for i in range(count)]
        method = {name: getattr(options, name) for name in ("model", "expert", "predictions")}
        method["disturbance"] = Disturbance(options.position_noise, options.rotation_noise, options.lost, options.drift)
        if method["disturbance"] and (local or options.predictions):
            raise ValueError(
                "poses, lost frames and drift disturb a scene that is being mapped: use --protocol embodied, and no "
                "--predictions"
            )
        return _Task(options.protocol, options.depth, options.mini, data, settings, indices, **method)

    @property
    def method_name(self) -> str | None:
        """What the method is called; None where only baselines are scored."""
        folder = self.model or self.predictions
        return self.expert if folder is None else folder.resolve().name

    def predictor(self, name: str) -> LocalPredictor | EmbodiedPredictor:
        """The method, or a baseline by its name; made once in each process."""
        if name not in self._predictors:
            made = self._make(name)
            self._predictors[name] = Disturbed(made, self.disturbance) if self.disturbance else made
        return self._predictors[name]

    def score(self, name: str, indices: list[int]) -> LocalResult | EmbodiedResult:
        """The result of one contender on some frames or scenes."""
        from sgrocc.evaluation.predictors import expert_frame
        from sgrocc.evaluation.protocols import PERCENTS, run_embodied, run_local

        in_files = name == _METHOD and self.predictions
        # A robot has its images and depth ready: reading them, or spoiling the depth, is not the contender's work.
        settings = {"indices": indices, "prepare": lambda frame: expert_frame(frame, self.depth)}
        if in_files or name == "class_prior":
            settings["prepare"] = None
        if self.protocol == "local":
            return run_local(self.data, self.predictor(name), **settings)
        # Of predictions in files there is only the last map.
        percents = (100,) if in_files else PERCENTS
        return run_embodied(self.data, self.predictor(name), percents=percents, **settings)

    def parts(self) -> list[list[int]]:
        """The frames or scenes, in portions for one process at a time."""
        size = _FRAMES_AT_ONCE if self.protocol == "local" else 1
        return [self.indices[i : i + size] for i in range(0, len(self.indices), size)]

    def configuration(self, options: argparse.Namespace) -> dict:
        """What decides the figures."""
        chosen = ("split", "protocol", "depth", "expert", "limit", "mini", "scene_disjoint", "on_error")
        folders = {"model": self.model, "predictions": self.predictions}
        names = {name: None if path is None else path.resolve().name for name, path in folders.items()}
        unit = "frames" if self.protocol == "local" else "scenes"
        disturbance = {"disturbance": asdict(self.disturbance)} if self.disturbance else {}
        return {**names, **{name: getattr(options, name) for name in chosen}, unit: len(self.indices), **disturbance}

    def _make(self, name: str) -> LocalPredictor | EmbodiedPredictor:
        from sgrocc.evaluation import baselines, predictors
        from sgrocc.evaluation.prediction_files import LocalFiles, SceneFiles

        if name == _METHOD and self.predictions is not None:
            chosen = LocalFiles if self.protocol == "local" else SceneFiles
            return chosen(self.predictions)
        if name == "class_prior":
            return baselines.make(name, self.protocol, self.depth, train=self._train())
        if self._expert is None and (self.model or self.expert):
            self._expert = predictors.load_expert(self.model, self.depth, self.expert)
        if name == _METHOD:
            return predictors.make(None, self.protocol, self.depth, expert=self._expert)
        return baselines.make(name, self.protocol, self.depth, expert=self._expert)

    def _train(self) -> Sequence | None:
        """The frames of the training split, where there is one."""
        from sgrocc.datasets.occscannet import OccScanNet

        layout = self.data.layout
        return OccScanNet(layout, "train", **self.settings) if "train" in layout.splits("local", self.mini) else None


def _contenders(task: _Task, baselines_asked: list[str] | None) -> tuple[list[str], dict[str, str]]:
    """Names of what is scored, and {baseline: why not} of those that nobody named and that cannot be scored here."""
    from sgrocc.evaluation import baselines

    names = [] if task.method_name is None else [_METHOD]
    for name in names:
        task.predictor(name)
    left_out = {}
    if baselines_asked:
        for name in dict.fromkeys(baselines_asked):
            task.predictor(name)
            names.append(name)
    elif baselines_asked is not None:
        for name in baselines.NAMES[task.protocol]:
            try:
                task.predictor(name)
                names.append(name)
            except (ImportError, ValueError) as error:
                left_out[name] = str(error)
    if not names:
        raise ValueError("there is nothing to score: give --model, --expert, --predictions or --baselines")
    return names, left_out


# --- scoring, in one process or several


def _score_all(task: _Task, names: list[str], jobs: int) -> dict[str, LocalResult | EmbodiedResult]:
    """The results of all contenders. The counts are whole numbers, so that any number of processes gives the same."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    parts = task.parts()
    jobs = min(jobs, len(parts))
    pool = None
    if jobs > 1:
        # A fresh interpreter: libraries with threads or a GPU do not survive a fork.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, context, _start_worker, (replace(task, _predictors={}, _expert=None),))
    try:
        with Progress(*columns) as progress:
            results = {}
            for name in names:
                title = task.method_name if name == _METHOD else name
                bar = progress.add_task(title, total=len(task.indices))
                # Both give the results in the order of the parts, whichever is done first.
                done = (
                    (task.score(name, part) for part in parts)
                    if pool is None
                    else pool.map(_score_part, [name] * len(parts), parts)
                )
                for part, result in zip(parts, done, strict=True):
                    results[name] = results[name] + result if name in results else result
                    progress.advance(bar, len(part))
        return results
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


_task: _Task | None = None


def _start_worker(task: _Task) -> None:
    global _task
    _task = task


def _score_part(name: str, indices: list[int]) -> LocalResult | EmbodiedResult:
    return _task.score(name, indices)


# --- figures


def _figures(result: LocalResult | EmbodiedResult) -> dict:
    """What the JSON holds of a contender."""
    of_frames = np.array([ms for score in result.scores for ms in score.cpu_ms])
    if 100 in result.counts:
        *earlier, last = result.counts
        after = {str(percent): _variants(result.counts[percent]) for percent in earlier}
        variants = {**_variants(result.counts[last]), "after_percent": after}
    else:
        variants = _variants(result.counts)
    # The first frame also loads and compiles, hence the median.
    cpu = {"median": float(np.median(of_frames)), "mean": float(of_frames.mean())}
    return {**variants, "cpu_ms_per_frame": cpu, "frames": len(of_frames)}


def _add_margins(figures: dict[str, dict], results: dict[str, LocalResult | EmbodiedResult]) -> None:
    """Intervals of the embodied scores, and how far the method is above each baseline."""
    from sgrocc.evaluation.metrics import resampled_scores

    draws = {name: resampled_scores(r.scenes) for name, r in results.items() if getattr(r, "scenes", ())}
    for name, of_name in draws.items():
        # A truth without classes has no mIoU.
        keys = [key for key in _DRAWN if figures[name][key] is not None]
        figures[name]["interval"] = _interval(of_name, keys)
        if name != _METHOD and _METHOD in draws:
            above = {key: figures[_METHOD][key] - figures[name][key] for key in keys}
            figures[name]["margin"] = {**above, "interval": _interval(draws[_METHOD] - of_name, keys)}


def _interval(draws: np.ndarray, keys: list[str]) -> dict[str, list[float]]:
    low, high = np.percentile(draws, (2.5, 97.5), axis=0)
    return {key: [float(low[i]), float(high[i])] for i, key in enumerate(_DRAWN) if key in keys}


def _variants(counts: dict) -> dict:
    scores = {variant: of_variant.scores() for variant, of_variant in counts.items()}
    return {**scores.pop("all"), **scores}


def _no_figures() -> dict:
    """The scores of a method that was not asked for: its keys stand, so that whoever reads them finds None."""
    from sgrocc.evaluation.metrics import Counts

    return {name: None for name in (*Counts.nothing().scores(), "visible", "occluded", "cpu_ms_per_frame")}


def data_hash(layout: Layout, split: str, protocol: str, mini: bool = False, scene_disjoint: bool = False) -> str:
    """`synthrooms:` and the hash of a SynthRooms split's labels, as its index gives it; or `lists:` and the SHA-256 of
    the split's list (of all lists, where they are dealt again by room) for a data set that brings no hash.
    """
    try:
        index = json.loads((layout.occscannet.resolve().parent / "synthrooms.json").read_text(encoding="utf-8"))
        of_labels = index["splits"][split]["labels_sha256"]
        if isinstance(of_labels, str):
            return f"synthrooms:{of_labels}"
    except (OSError, ValueError, LookupError, TypeError):
        pass
    splits = layout.splits(protocol, mini) if scene_disjoint else [split]
    lists = [path for path in (layout.list_path(name, protocol, mini) for name in splits) if path.is_file()]
    return f"lists:{hashlib.sha256(b''.join(path.read_bytes() for path in lists)).hexdigest()}" if lists else "unknown"
