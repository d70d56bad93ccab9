"""Everything that a machine without a GPU cannot check, in one run: a JSON file that users can send us."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sgrocc.evaluation.report import commit_of
from sgrocc.inference import doctor

_STEPS = 50
_SPLAT_TOLERANCE = 1e-4


def run(model: Path) -> dict:
    """{ok, commit, machine, checks {name: {ok, ...}}}; a check that raises has its `error`, and the others go on."""
    checks = {
        "engines": lambda: _engines(model, "fp16"),
        "engines_fp32": lambda: _engines(model, "fp32"),
        "splatting": _splatting,
        "training": _training,
    }
    found = {"commit": commit_of(Path(__file__).parent), "model": str(model), "machine": doctor.machine(), "checks": {}}
    for name, check in checks.items():
        print(f"{name} ...", flush=True)
        found["checks"][name] = _guarded(check)
    return found | {"ok": all(check["ok"] for check in found["checks"].values())}


def print_table(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "what was found", title=f"GPU: {found['machine']['GPU']}")
    for name, check in found["checks"].items():
        table.add_row(name, "ok" if check["ok"] else "FAILED", _shown(check))
    Console().print(table)


def _shown(check: dict) -> str:
    """Its error or problems, or else its figures."""
    sentences = [check["error"]] if "error" in check else check.get("problems") or []
    numbers = {key: value for key, value in check.items() if isinstance(value, (int, float)) and key != "ok"}
    return "; ".join(sentences) or ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())


def _guarded(check: Callable[[], dict]) -> dict:
    started = time.monotonic()
    try:
        found = check()
    except Exception as error:  # whatever a foreign machine comes up with belongs into the file
        found = {"ok": False, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return found | {"seconds": round(time.monotonic() - started, 1)}


def _engines(model: Path, precision: str) -> dict:
    """Build, compare with the golden answers, time."""
    budget = doctor.Budget()
    found = doctor.examine(model, ("tensorrt",), precision, budget, build=True, required=True)
    return {"ok": found["ok"], "problems": found["problems"], **found["engines"].get("tensorrt", {})}


def _splatting() -> dict:
    """The kernel on CUDA against plain numpy, and its time."""
    import warp

    from sgrocc.gaussians import Gaussians
    from sgrocc.splatting import prepare
    from sgrocc.splatting.reference import accumulate_reference
    from sgrocc.splatting.warp_kernel import accumulate

    if not warp.is_cuda_available():
        return {"ok": False, "error": "Warp finds no CUDA device"}
    random = np.random.default_rng(0)
    rotations = random.normal(size=(500, 4))
    gaussians = Gaussians(
        random.uniform(0, 3, (500, 3)),
        random.uniform(0.02, 0.16, (500, 3)),
        rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        random.uniform(0, 1, 500),
        random.normal(size=(500, 11)),
        np.zeros((500, 0)),
    )
    blocks = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int32)
    prepared = prepare(gaussians, 0.08, np.zeros(3), "decoupled")
    found = accumulate(prepared, blocks, 0.08, device="cuda:0")
    expected = accumulate_reference(prepared, blocks, 0.08)
    largest = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    started = time.perf_counter()
    for _ in range(20):
        accumulate(prepared, blocks, 0.08, device="cuda:0")
    return {
        "ok": largest < _SPLAT_TOLERANCE,
        "largest_difference": largest,
        "ms": 1e3 * (time.perf_counter() - started) / 20,
    }


def _training() -> dict:
    """Steps of a small expert on a made-up frame: the loss must fall, and nothing may be NaN."""
    import torch

    if not torch.cuda.is_available():
        return {"ok": False, "error": "torch finds no CUDA device"}
    return training_steps("cuda", _STEPS)


def training_steps(device: str, steps: int) -> dict:
    """Train on a wall 2 m away; {ok, first_loss, last_loss, ms_per_step}."""
    import torch

    from sgrocc.model.anchors import AnchorConfig
    from sgrocc.model.spatial_expert import ExpertConfig
    from sgrocc.training.expert_stage import ExpertStage

    torch.manual_seed(0)
    width, height = 160, 128
    config = ExpertConfig(width, height, channels=32, blocks=1, anchors=AnchorConfig(stride=16))
    stage = ExpertStage(config, imagenet=False).to(device)
    labels = np.full((60, 60, 36), 0, np.uint8)
    labels[:, 25:27] = 3  # in the grid the wall stands across y
    batch = {
        "image": torch.rand(1, 3, height, width),
        "intrinsics": torch.tensor([[140.0, 140.0, 80.0, 64.0]]),
        "true_depth": torch.full((1, 1, height, width), 2.0),
        "sensor_depth": torch.full((1, 1, height, width), 2.0),
        "prior_depth": torch.zeros(1, 1, height, width),
        "image_labels": torch.full((1, height // 4, width // 4), 3, dtype=torch.uint8),
        # The camera looks along y of the grid, from the middle of its near face.
        "rotation": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]]),
        "translation": torch.tensor([[2.4, 0.0, 1.44]]),
        "name": ["a wall"],
    }
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    batch["labels"] = [torch.from_numpy(labels).to(device)]
    optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    losses, started = [], time.perf_counter()
    for _ in range(steps):
        loss = stage.losses(stage(batch), batch)[0]
        total = sum(loss.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    fell = bool(np.isfinite(losses).all()) and losses[-1] < losses[0]
    ms = 1e3 * (time.perf_counter() - started) / steps
    return {"ok": fell, "first_loss": losses[0], "last_loss": losses[-1], "ms_per_step": round(ms, 1)}
