"""What a machine has, whether a model runs on it as it should, and whether it keeps a stated budget."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgrocc.inference.engine import load_engine
from sgrocc.inference.golden import golden_differences
from sgrocc.inference.manifest import ModelManifest, load_manifest
from sgrocc.inference.tensorrt_build import EngineAbsent

#: How far an engine's answer may be from torch's, as a share of each output's largest value, by precision. In half
#: precision a point on the border of two cells may be read from the other one: single answers differ more then.
TOLERANCES = {"fp32": 1e-3, "fp16": 0.1}
_RUNS = 30
#: What is looked for, by the name of its distribution.
_DISTRIBUTIONS = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "warp-lang",
    "torch",
    "onnx",
    "tensorrt",
    "tensorrt-rtx-cu12",
    "cuda-bindings",
    "pyoctomap",
)
#: ROS packages are found by what they can be imported as.
_ROS_MODULES = ("rclpy", "tf2_ros", "cv_bridge", "octomap_msgs", "launch_ros")


@dataclass(frozen=True)
class Budget:
    """What one frame's networks may take: max_ms, the 95th percentile; min_hz, how often they run alone; max_mb, this
    process's memory at most. None: no matter.
    """

    max_ms: float | None = None
    min_hz: float | None = None
    max_mb: float | None = None


def examine(
    model: Path,
    engines: tuple[str, ...],
    precision: str,
    budget: Budget,
    *,
    build: bool = False,
    required: bool = False,
) -> dict:
    """{machine {name: text}, model, engines {name: {...}}, problems [sentence], ok}. Never raises for what it examines.

    build: the engines of TensorRT, first; required: an engine that is not here is a problem, not merely absent.
    """
    found = {"machine": machine(), "model": str(model), "engines": {}, "problems": []}
    problems = found["problems"]
    try:
        manifest = load_manifest(model)
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return found | {"ok": False}
    if manifest.golden_path is None:
        problems.append(f"the model {manifest.name} has no golden file, so no answer can be checked: export it again")
    for name in engines:
        try:
            if name == "tensorrt" and build:
                _build(manifest, precision)
            found["engines"][name] = _measured(manifest, name, precision)
        except (ValueError, RuntimeError, OSError) as error:
            found["engines"][name] = {"missing": str(error)}
            # Only what is merely not here, and was not asked for, is no problem.
            if required or build or not isinstance(error, EngineAbsent):
                problems.append(f"{name}: {error}")
    run = {name: figures for name, figures in found["engines"].items() if "ms" in figures}
    for name, figures in run.items():
        tolerance = TOLERANCES[figures["precision"]]
        for output, difference in figures["differences"].items():
            if not difference <= tolerance:
                problems.append(f"{name}: {output} differs from torch's by {difference:.2g}, more than {tolerance:g}")
    if run:
        # The best engine has to keep the budget.
        best = min(run, key=lambda name: run[name]["ms"]["p95"])
        problems += [f"{best}: {sentence}" for sentence in over_budget(run[best], budget)]
    return found | {"ok": not problems}


def machine() -> dict[str, str]:
    """What this machine has, by name; a text each, `none` where it is not there."""
    found = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "ROS_DISTRO": os.environ.get("ROS_DISTRO", "not set"),
        "RMW_IMPLEMENTATION": os.environ.get("RMW_IMPLEMENTATION", "not set (ROS's default)"),
        "DDS profile": _profile(),
    }
    found |= {name: "found" if importlib.util.find_spec(name) else "none" for name in _ROS_MODULES}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    found["GPU"] = gpu()[0]
    return found


def gpu() -> tuple[str, bool]:
    """(its name, True), or (in a few words why none can be used, False)."""
    from sgrocc.inference.tensorrt_engine import CudaError, call, cuda_runtime, name_of

    try:
        cuda = cuda_runtime()
        if not call(cuda, "cudaGetDeviceCount"):
            return "none", False
        properties = call(cuda, "cudaGetDeviceProperties", 0)
    except EngineAbsent as error:
        return f"unknown ({error})", False
    except CudaError as error:
        return f"none ({error})", False
    return f"{name_of(properties)}, compute capability {properties.major}.{properties.minor}", True


def over_budget(figures: dict, budget: Budget) -> list[str]:
    """A phrase for each part of the budget that is not kept."""
    rows = (
        (budget.max_ms, figures["ms"]["p95"], "a frame takes {:.1f} ms (p95), more than the {:g} of the budget"),
        (budget.max_mb, figures["memory_mb"], "the process has {:.0f} MB, more than the {:g} of the budget"),
    )
    sentences = [text.format(value, limit) for limit, value, text in rows if limit is not None and not value <= limit]
    if budget.min_hz is not None and not figures["hz"] >= budget.min_hz:
        sentences.append(f"{figures['hz']:.1f} frames a second, less than the {budget.min_hz:g} of the budget")
    return sentences


def print_tables(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("this machine", "")
    for name, value in found["machine"].items():
        table.add_row(name, value)
    console.print(table)
    header = ("engine", "precision", "ms p50", "p95", "Hz", "MB", "largest difference from torch")
    table = Table(*header, title=found["model"])
    for name, figures in found["engines"].items():
        if "missing" in figures:
            table.add_row(f"{name}: not here")
            continue
        largest = max(figures["differences"].values(), default=float("nan"))
        cells = (figures["ms"]["p50"], figures["ms"]["p95"], figures["hz"], figures["memory_mb"])
        table.add_row(name, figures["precision"], *(f"{cell:.1f}" for cell in cells), f"{largest:.1e}")
    console.print(table)
    for name, figures in found["engines"].items():
        if "missing" in figures and f"{name}: {figures['missing']}" not in found["problems"]:
            console.print(f"{name}: {figures['missing']}", highlight=False)
    for problem in found["problems"]:
        console.print(f"[red]problem[/red] {problem}", highlight=False)
    count = len(found["problems"])
    console.print("the model is as it should be" if found["ok"] else f"{count} problem{'s' if count > 1 else ''}")


def _build(manifest: ModelManifest, precision: str) -> None:
    from sgrocc.inference.tensorrt_engine import build_engine

    for network in manifest.networks().values():
        build_engine(network, precision)


def _measured(manifest: ModelManifest, name: str, precision: str) -> dict:
    """{precision, ms {p50, p95, p99}, hz, memory_mb, differences {output: share}} of one frame through all networks."""
    networks = manifest.networks()
    engines = {part: load_engine(network, name, precision=precision) for part, network in networks.items()}
    differences = {}
    if manifest.golden_path is not None:
        for part, engine in engines.items():
            found = golden_differences(manifest, part, engine)
            differences |= {f"{part}.{output}": difference for output, difference in found.items()}
    inputs = {
        part: {tensor: np.ones(spec.shape, spec.dtype) for tensor, spec in network.inputs.items()}
        for part, network in networks.items()
    }
    times_ms = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        for part, engine in engines.items():
            engine.infer(inputs[part])
        times_ms.append(1e3 * (time.perf_counter() - started))
    p50, p95, p99 = np.percentile(times_ms, (50, 95, 99)).tolist()
    return {
        "precision": precision if name == "tensorrt" else "fp32",
        "ms": {"p50": p50, "p95": p95, "p99": p99},
        "hz": 1e3 / p50,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "differences": differences,
    }


def _profile() -> str:
    path = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE")
    if not path:
        return "not set: images may get lost between processes; FASTDDS_DEFAULT_PROFILES_FILE, see README, On a robot"
    return path if Path(path).is_file() else f"{path}, which is NOT there: DDS then uses its defaults"
