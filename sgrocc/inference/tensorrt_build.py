"""Building engines with TensorRT: the API that 10.3 (JetPack 6) and 11 share, and TensorRT for RTX.

Networks are strongly typed: the types of the ONNX graph are what is built (the flags for precision are gone in 11).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from sgrocc.inference.half import half_precision, parts_digest

#: TensorRT proper first: it is what Jetsons have.
_MODULES = ("tensorrt", "tensorrt_rtx")
WORKSPACE_BYTES = 1 << 30

#: Called while a plan is built: (phase, step, steps).
Progress = Callable[[str, int, int], None]


class EngineAbsent(ValueError):
    """What engines need is not on this machine, or none was built: a fact about it, not a fault."""


def tensorrt_module() -> ModuleType:
    """tensorrt, or tensorrt_rtx. Raises EngineAbsent, with the cure, where neither is there."""
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):  # the bindings without their library raise the latter
            continue
    raise EngineAbsent(absent("tensorrt"))


def absent(*known: str) -> str:
    """What of all that an engine needs is not installed, in one sentence; known: what was just found missing."""
    needed = {"tensorrt": _MODULES, "cuda-python": ("cuda.bindings.runtime",), "onnx": ("onnx",)}
    missing = [name for name, modules in needed.items() if name in known or not any(map(_is_there, modules))]
    return (
        f"the engine tensorrt needs {', '.join(needed)}, and here {' and '.join(missing)} cannot be used: "
        "see docs/deployment.md, or set engine to onnxruntime"
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


def builder_options(precision: str) -> str:
    """What of the builder's settings a plan depends on, and of which parts are in half precision."""
    parts = f", half: {parts_digest()}" if precision == "fp16" else ""
    return f"strongly typed, no TF32, workspace {WORKSPACE_BYTES}{parts}"


def made(make: Callable, *arguments):
    """What a constructor of TensorRT makes. Where it cannot use CUDA it raises a TypeError, here a ValueError."""
    try:
        return make(*arguments)
    except TypeError as error:
        raise ValueError(
            f"TensorRT cannot use this GPU ({(str(error).splitlines() or [''])[0]}): install the TensorRT of its CUDA "
            "version, and close what else uses the GPU"
        ) from error


def build_plan(
    onnx_bytes: bytes,
    trt: ModuleType | None = None,
    *,
    compute_capabilities: tuple[str, ...] = (),
    progress: Progress | None = None,
    examine: Callable | None = None,
) -> bytes:
    """An engine's plan. compute_capabilities: such as SM86, with TensorRT for RTX alone, which then needs no GPU;
    examine: shown the parsed network before it is built. Raises ValueError with the parser's or the builder's reason.
    """
    trt = trt or tensorrt_module()
    logger = _logger_of(trt)
    builder = made(trt.Builder, logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind in 11
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_bytes) or not network.num_outputs:
        reasons = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise ValueError(f"TensorRT {trt.__version__} cannot read the network: {reasons or 'it gives no reason'}")
    if examine is not None:
        examine(network)
    config = builder.create_builder_config()
    # On by default, it rounds what must be exact to ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
        for number, name in enumerate(compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), number)
    monitor = _monitor_of(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(
            f"TensorRT {trt.__version__} built no engine: {logger.worst or 'it gives no reason'}; "
            "set engine to onnxruntime until that is mended"
        )
    return bytes(plan)


def onnx_bytes_of(path: Path, precision: str) -> bytes:
    """The network of a file in that precision: fp32 as it is, or fp16 (see sgrocc.inference.half)."""
    content = path.read_bytes()
    if precision == "fp32":
        return content
    return half_precision(content)


def _logger_of(trt: ModuleType):
    class Logger(trt.ILogger):
        """Keeps the last error, which is the reason."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.worst = ""

        def log(self, severity, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.worst = message.strip()

    return Logger()


def _monitor_of(trt: ModuleType, progress: Progress | None):
    if progress is None:
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name, parent_phase, num_steps) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name, step) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name) -> None:
            steps = self._steps.pop(phase_name, 1)
            progress(phase_name, steps, steps)

    return Monitor()
