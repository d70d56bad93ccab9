"""The paper's ablations on SynthRooms: every row is trained on the same few samples, from the same image encoder, and
scored on the same test frames. What a row gave lies in a JSON file; a row that has one is not run again.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml

from sgrocc.resources import config_path

#: Seeds of the claims that carry the paper, and of everything else.
_SEEDS, _ONE_SEED = (0, 1, 2), (0,)
_DEPTHS = ("network", "true", "sensor", "degraded")


@dataclass(frozen=True)
class Budget:
    """What every row gets. samples: of training; batch_size, learning_rate; frames: of the split, evenly spread;

    split: the split that is scored. The encoder and its depth stay as they are given.
    """

    samples: int = 1000
    batch_size: int = 2
    learning_rate: float = 1e-3
    frames: int = 100
    split: str = "test"


@dataclass(frozen=True)
class Row:
    """One trained model. change: nested values of ExpertConfig; seeds; noisy: also scored under errors of the pose;

    depths: what it is given as depth when it is scored; learning_rate: instead of the budget's.
    """

    name: str
    change: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = _ONE_SEED
    noisy: bool = False
    depths: tuple[str, ...] = ("network", "sensor")
    learning_rate: float | None = None


#: What all rows start from: the compact model on a coarser lattice.
BASE = {"anchors": {"stride": 16}}


def _parity() -> dict:
    """The parity model, as its own training has it."""
    tree = yaml.safe_load(config_path("train/embodiedocc_local.yaml").read_text())
    return tree["model"]["init_args"]["config"]


_ROWS = (
    Row("base", seeds=_SEEDS, noisy=True, depths=_DEPTHS),
    # The compact model as it ships, on its own lattice
    Row("compact", {"anchors": {"stride": 8}}, _SEEDS, depths=("network", "true", "sensor")),
    # Lifting (the paper's A to C; the base is D)
    Row("lift_projection", {"lifting": {"points": "projection", "gate": "none"}}),
    Row("lift_no_gate", {"lifting": {"gate": "none"}}, _SEEDS),
    Row("lift_hard_gate", {"lifting": {"gate": "hard"}}),
    # Refinement
    Row("refine_none", {"refinement": {"move": "none"}}),
    Row("refine_free", {"refinement": {"move": "free"}}, _SEEDS, noisy=True),
    # Regularisation
    Row("grm_none", {"refinement": {"regularisation": "none"}}, _SEEDS),
    Row("grm_uniform", {"refinement": {"regularisation": "uniform"}}, _SEEDS),
    # Points K and tolerance sigma
    *(Row(f"points_{k}", {"lifting": {"count": k}}) for k in (4, 8, 24, 32)),
    *(Row(f"tolerance_{s:g}", {"lifting": {"tolerance_m": s}}) for s in (0.1, 0.2, 1.0, 2.0)),
    # Blocks of mixing, lifting and refinement
    *(Row(f"blocks_{n}", {"blocks": n}) for n in (1, 3)),
    # Aggregation and anchors
    Row("additive", {"aggregation": "additive"}),
    Row("anchors_random", {"anchors": {"kind": "random"}}),
    # Uncertainty by dropout
    Row("dropout", {"refinement": {"dropout": 0.1}}),
    # What the paper lost, around our choices: to be scored on the validation split
    *(Row(f"bound_{b:g}", {"refinement": {"bound_m": b}}) for b in (0.1, 0.5)),
    *(Row(f"object_{w:g}", {"refinement": {"object": w}}) for w in (0.0, 0.3)),
    *(Row(f"rate_{r:g}", learning_rate=r) for r in (3e-4, 3e-3)),
    # Rivals
    Row("embodiedocc", _parity(), _SEEDS, depths=("network", "true", "sensor")),
    Row(
        "splatssc",
        {
            "anchors": {"stride": 8, "offsets_m": (0.0,)},
            "lifting": {"gate": "none"},
            "refinement": {"move": "free", "regularisation": "none"},
        },
    ),
    Row(
        "gpocc",
        {
            "anchors": {"offsets_m": tuple(float(x) for x in np.linspace(0.0, 2.5, 16))},
            "lifting": {"points": "projection", "gate": "none"},
            "refinement": {"move": "none", "regularisation": "none"},
            "blocks": 1,
        },
    ),
    Row(
        "occanyscene",
        {
            "anchors": {"stride": 8, "offsets_m": (0.0, 0.4, 1.2)},
            "lifting": {"gate": "none"},
            "refinement": {"move": "ray", "bound_m": 0.8, "regularisation": "none"},
        },
    ),
)
ROWS = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class Table:
    """A table of the documentation: rows of ablations under the names that the paper gives them."""

    title: str
    rows: dict[str, str]
    columns: tuple[str, ...] = ()


TABLES = {
    "lifting": Table(
        "Lifting",
        {
            "lift_projection": "A hard projection",
            "lift_no_gate": "B deformable, no gate",
            "lift_hard_gate": "C deformable, hard threshold",
            "base": "D deformable, soft gate (ours)",
        },
    ),
    "refinement": Table(
        "Refinement", {"refine_none": "none", "refine_free": "free 3D", "base": "ray-constrained (ours)"}
    ),
    "regularisation": Table(
        "Regularisation (GRM)",
        {"grm_none": "none", "grm_uniform": "uniform", "base": "semantic-adaptive (ours)"},
        ("wall", "floor", "chair", "bed"),
    ),
    "points": Table(
        "Points per query",
        {"points_4": "4", "points_8": "8", "base": "16 (ours)", "points_24": "24", "points_32": "32"},
        ("tv", "objects"),
    ),
    "blocks": Table("Blocks", {"blocks_1": "1", "base": "2 (ours)", "blocks_3": "3"}),
    "tolerance": Table(
        "Tolerance at the start, metres",
        {
            "tolerance_0.1": "0.1",
            "tolerance_0.2": "0.2",
            "base": "0.5 (ours)",
            "tolerance_1": "1.0",
            "tolerance_2": "2.0",
        },
    ),
    "bound": Table("Bound of a move, metres", {"bound_0.1": "0.1", "base": "0.25 (ours)", "bound_0.5": "0.5"}),
    "object": Table(
        "Strength of the regularisation for things", {"object_0": "0", "base": "0.1 (ours)", "object_0.3": "0.3"}
    ),
    "rate": Table("Learning rate", {"rate_0.0003": "3e-4", "base": "1e-3 (ours)", "rate_0.003": "3e-3"}),
    "dropout": Table("Dropout in the refinement", {"base": "none (ours)", "dropout": "0.1"}),
    "aggregation": Table("Aggregation", {"additive": "additive", "base": "decoupled (ours)"}),
    "anchors": Table("Anchors", {"anchors_random": "16,200 random", "base": "on rays (ours)"}),
    "rivals": Table(
        "Rivals",
        {
            "embodiedocc": "EmbodiedOcc (parity)",
            "splatssc": "SplatSSC's idea",
            "gpocc": "GPOcc's idea",
            "occanyscene": "OccAnyScene's idea",
            "base": "ours, as in the other tables: a ray at every 16th pixel",
            "compact": "ours, as it ships: every 8th",
        },
    ),
}


#: Which models are shown under every depth, and what the depths are called.
_UNDER_EVERY_DEPTH = {
    "embodiedocc": "EmbodiedOcc (parity)",
    "compact": "ours, as it ships",
    "base": "ours, as in the tables",
}
_DEPTH_NAMES = {
    "network": "its own",
    "sensor": "a sensor's",
    "degraded": "true, made wrong as in training",
    "true": "true",
}


def run(
    rows: list[str], data: Path, encoder: Path, out: Path, budget: Budget | None = None, jobs: int = 1, seeds: int = 3
) -> None:
    """Train and score rows, `jobs` at a time, each with one thread; what is there already stays.

    encoder: what all rows begin from, see sgrocc.training.image_stage.load_encoder; out: folder for the JSON files;
    seeds: of each row at most.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    budget = budget or Budget()
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise ValueError(f"there is no row {unknown[0]!r}: use {', '.join(ROWS)}")
    out.mkdir(parents=True, exist_ok=True)
    # The first seeds of all rows before the second of any: an interrupted run leaves whole tables.
    todo = [
        (name, seed)
        for seed in range(seeds)
        for name in rows
        if seed in ROWS[name].seeds and not _file(out, name, seed).is_file()
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        bar = progress.add_task("ablations", total=len(todo))
        futures = {pool.submit(run_row, name, seed, data, encoder, out, budget): name for name, seed in todo}
        for future in as_completed(futures):
            scores = future.result()["network"]
            progress.console.print(
                f"{futures[future]}: SC-IoU {100 * scores['sc_iou']:.1f}, mIoU {100 * scores['miou']:.1f}"
            )
            progress.advance(bar)


def run_row(name: str, seed: int, data: Path, encoder: Path, out: Path, budget: Budget) -> dict:
    """Train and score one row with one seed; the result is also written to its JSON file."""
    import lightning
    import torch

    from sgrocc.training.data import DataConfig, LocalData
    from sgrocc.training.expert_stage import ExpertStage
    from sgrocc.training.schedule import OptimiserConfig
    from sgrocc.training.torch_expert import expert_config
    from sgrocc.training.train import quiet

    quiet()
    torch.set_num_threads(1)
    row = ROWS[name]
    config = expert_config(merged(BASE, row.change))
    lightning.seed_everything(seed, verbose=False)
    optimiser = OptimiserConfig(row.learning_rate or budget.learning_rate, multipliers={"expert.encoder": 0.0})
    stage = ExpertStage(config, str(encoder), optimiser=optimiser)
    start = time.process_time()
    trainer = lightning.Trainer(
        max_steps=budget.samples // budget.batch_size,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=10.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(stage, LocalData(DataConfig(str(data), batch_size=budget.batch_size, workers=0, seed=seed)))
    result = {
        "row": name,
        "seed": seed,
        "budget": asdict(budget),
        "config": asdict(config),
        "training_cpu_s": round(time.process_time() - start, 1),
        "train_loss": float(trainer.callback_metrics["train/loss"]),
        "gflops": round(gflops(stage.expert), 2),
        "tolerance_m": [round(block.lifting.tolerance_m.item(), 3) for block in stage.expert.blocks],
        **scores_of(stage.expert, row, data, budget),
    }
    path = _file(out, name, seed)
    # What was trained, without the encoder that all rows share: for the figures.
    own = {key: value for key, value in stage.expert.state_dict().items() if not key.startswith("encoder.")}
    torch.save(own, path.with_suffix(".pt"))
    path.with_suffix(".new").write_text(json.dumps(result, indent=1))
    os.replace(path.with_suffix(".new"), path)
    return result


def scores_of(expert, row: Row, data: Path, budget: Budget) -> dict[str, dict]:
    """{what is scored: figures}: each kind of depth, and with own depth under two errors of the pose."""
    from sgrocc.datasets.occscannet import OccScanNet
    from sgrocc.evaluation.protocols import run_local, spread
    from sgrocc.training.depth_errors import DepthErrors
    from sgrocc.training.torch_expert import TorchLocal

    frames = OccScanNet(data, budget.split)
    indices = spread(len(frames), budget.frames)
    settings = {depth: {"depth": DepthErrors().degraded if depth == "degraded" else depth} for depth in row.depths}
    if row.noisy:
        settings |= {"pose_5cm": {"pose_noise_m": 0.05}, "pose_5percent": {"pose_noise_share": 0.05}}
    found = {}
    for name, options in settings.items():
        result = run_local(frames, TorchLocal(expert, **options), indices=indices)
        figures = {variant: counts.scores() for variant, counts in result.counts.items()}
        found[name] = {
            **{
                key: figures["all"][key]
                for key in ("sc_iou", "miou", "boundary_f1", "precision", "recall", "per_class")
            },
            **{
                variant: {key: figures[variant][key] for key in ("sc_iou", "miou", "per_class", "boundary_f1")}
                for variant in ("visible", "occluded", "frustum")
            },
            "cpu_ms": float(np.median([score.cpu_ms for score in result.scores])),
        }
    if expert.config.refinement.dropout:
        found["calibration_error"] = calibration_errors(expert, [frames[i] for i in indices])
    return found


def calibration_errors(expert, frames: list, draws: int = 3, bins: int = 10) -> dict[str, float]:
    """The expected calibration error of P(occupied), over the known voxels in the image, of the network as it is and of
    the mean of `draws` networks with dropout: the mean distance between what was predicted and how often it was so.
    """
    from torch import nn

    from sgrocc.evaluation.metrics import view_of
    from sgrocc.labels import FREE, UNKNOWN
    from sgrocc.training.torch_expert import TorchLocal

    predictor = TorchLocal(expert)
    dropouts = [m for block in expert.blocks for m in block.refinement.modules() if isinstance(m, nn.Dropout)]
    pairs: dict[str, list] = {"plain": [], "dropout": []}
    for frame in frames:
        labels = frame.labels
        scored = (labels != UNKNOWN) & view_of(frame.camera, frame.pose, frame.grid)
        truth = labels[scored] != FREE
        pairs["plain"].append((predictor.voxels(frame)[0][scored], truth))
        for module in dropouts:
            module.train()
        drawn = [predictor.voxels(frame)[0][scored] for _ in range(draws)]
        for module in dropouts:
            module.eval()
        pairs["dropout"].append((np.mean(drawn, axis=0), truth))
    errors = {}
    for name, of_frames in pairs.items():
        p, truth = (np.concatenate(part) for part in zip(*of_frames, strict=True))
        which = np.minimum((p * bins).astype(int), bins - 1)
        gaps = [abs(p[which == b].mean() - truth[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
        errors[name] = float(np.sum(gaps))
    return errors


def trained(name: str, seed: int, encoder: Path, out: Path):
    """The expert of a row that was run. Raises FileNotFoundError where it was not."""
    import torch

    from sgrocc.model.spatial_expert import SpatialExpert
    from sgrocc.training.image_stage import load_encoder
    from sgrocc.training.torch_expert import expert_config

    path = _file(out, name, seed)
    if not path.is_file() or not path.with_suffix(".pt").is_file():
        raise FileNotFoundError(
            f"the row {name} was not trained in {out}: run sgrocc ablate --rows {name} first, into a folder of its own"
        )
    expert = SpatialExpert(expert_config(json.loads(path.read_text())["config"]), imagenet=False)
    load_encoder(expert.encoder, encoder)
    expert.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True), strict=False)
    return expert.eval()


def gflops(expert) -> float:
    """Floating point operations of one image, in thousands of millions: two for each multiplication with addition, of
    convolutions, matrices and attention (what torch counts).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = expert.config
    needed = [parameter.requires_grad for parameter in expert.parameters()]
    expert.eval().requires_grad_(False)
    image = torch.zeros(1, 3, config.height, config.width)
    intrinsics = torch.tensor([[0.8 * config.width, 0.8 * config.width, 0.5 * config.width, 0.5 * config.height]])
    rotation = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        expert(image, intrinsics, None, rotation, torch.tensor([[2.4, 0.0, 1.4]]))
    for parameter, value in zip(expert.parameters(), needed, strict=True):
        parameter.requires_grad_(value)
    return counter.get_total_flops() / 1e9


def merged(base: dict, change: dict) -> dict:
    """`base` with the values of `change`, dictionaries within dictionaries likewise."""
    result = dict(base)
    for key, value in change.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def tables(out: Path) -> dict[str, str]:
    """{name: text} of every table that two rows or more in `out` belong to, and of `depth`."""
    texts = {
        name: markdown(table, out)
        for name, table in TABLES.items()
        if sum(bool(_results(out, row)) for row in table.rows) > 1
    }
    return texts | {"depth": markdown_of_depths(out)}


def markdown(table: Table, out: Path) -> str:
    """A table of what lies in `out`: means over seeds, with the deviation where there are several."""
    heads = (
        "",
        "SC-IoU",
        "mIoU",
        "frustum SC-IoU",
        "frustum mIoU",
        "boundary F1",
        "sensor depth: frustum SC-IoU",
        "frustum mIoU",
        *table.columns,
        "GFLOPs",
        "CPU ms",
        "seeds",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, shown in table.rows.items():
        for setting, suffix in (("network", ""), ("pose_5cm", ", pose off by 5 cm"), ("pose_5percent", ", by 5 %")):
            results = [r for r in _results(out, name) if setting in r]
            if not results or (setting != "network" and table is not TABLES["refinement"]):
                continue
            of = [r[setting] for r in results]
            cells = [
                _cell([s["sc_iou"] for s in of]),
                _cell([s["miou"] for s in of]),
                _cell([s["frustum"]["sc_iou"] for s in of]),
                _cell([s["frustum"]["miou"] for s in of]),
                _cell([s["frustum"]["boundary_f1"] for s in of]),
                *(
                    _cell([r["sensor"]["frustum"][key] for r in results]) if setting == "network" else ""
                    for key in ("sc_iou", "miou")
                ),
                *(_cell([s["frustum"]["per_class"][c] or 0.0 for s in of]) for c in table.columns),
                f"{results[0]['gflops']:.1f}",
                f"{np.median([s['cpu_ms'] for s in of]):.0f}",
                str(len(of)),
            ]
            lines.append(f"| {shown}{suffix} | {' | '.join(cells)} |")
    return f"**{table.title}**\n\n" + "\n".join(lines) + "\n"


def markdown_of_depths(out: Path) -> str:
    """The table of models under every depth that they were scored with: all known voxels, and parts of them."""
    parts = ("all", "frustum", "visible", "occluded")
    heads = ("depth", "model", *(f"{part} {score}" for part in parts for score in ("SC-IoU", "mIoU")), "seeds")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for depth, depth_name in _DEPTH_NAMES.items():
        for name, shown in _UNDER_EVERY_DEPTH.items():
            of = [r[depth] for r in _results(out, name) if depth in r]
            if of:
                cells = [
                    _cell([(s if part == "all" else s[part])[key] for s in of])
                    for part in parts
                    for key in ("sc_iou", "miou")
                ]
                lines.append(f"| {depth_name} | {shown} | {' | '.join(cells)} | {len(of)} |")
    return "**Depth**\n\n" + "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def _results(out: Path, name: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}.seed*.json"))]


def _file(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}.seed{seed}.json"
