"""Engines that run an exported model: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from sgrocc.inference.manifest import ModelManifest, Network, TensorSpec


class Engine(Protocol):
    """What runs a model. `infer` takes and returns arrays with the names, shapes and dtypes of the manifest."""

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class OnnxruntimeEngine:
    """Runs the model on the CPU with onnxruntime.

    One thread is the default: the map and ROS need the other core, and with one thread results repeat bit for bit.
    Raises ValueError where the ONNX file cannot be loaded or is not what its manifest says.
    """

    def __init__(self, manifest: ModelManifest | Network, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"an engine needs at least 1 thread, not {threads}")
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError("onnxruntime is not installed: install it with pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait by spinning would take the cores from the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(manifest.onnx_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ValueError(
                f"onnxruntime cannot load {manifest.onnx_path} ({_first_line(error)}): fetch or export the model again"
            ) from error
        self._manifest = manifest
        for group, declared, actual in (
            ("inputs", manifest.inputs, self._session.get_inputs()),
            ("outputs", manifest.outputs, self._session.get_outputs()),
        ):
            found = {node.name: (node.shape, node.type) for node in actual}
            expected = {name: (list(spec.shape), "tensor(float)") for name, spec in declared.items()}
            if found != expected:
                raise ValueError(
                    f"the {group} of {manifest.onnx_path} are {found}, but its manifest declares {expected}: "
                    "export the model again"
                )

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network once. Raises ValueError where `inputs` are not those of the manifest."""
        check_inputs(self._manifest.name, inputs, self._manifest.inputs)
        names = list(self._manifest.outputs)
        try:
            return dict(zip(names, self._session.run(names, inputs)))
        except Exception as error:
            raise ValueError(f"the model {self._manifest.name} failed: {_first_line(error)}") from error


ENGINES = ("onnxruntime", "tensorrt")


def load_engine(
    manifest: ModelManifest | Network,
    engine: str = "onnxruntime",
    threads: int = 1,
    *,
    precision: str = "fp16",
    fallback: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Engine:
    """The engine of that name, with the model or its fusion loaded.

    precision: of a TensorRT engine. fallback: where TensorRT cannot run it here, onnxruntime does, and `say` gets the
    sentence why. Raises ValueError for an unknown name or a bad model, and, without fallback, for that sentence.
    """
    if engine not in ENGINES:
        raise ValueError(f"there is no engine {engine!r} here: use {' or '.join(ENGINES)}")
    if engine == "tensorrt":
        from sgrocc.inference.tensorrt_engine import TensorrtEngine

        try:
            return TensorrtEngine(manifest, precision)
        except ValueError as error:
            if not fallback:
                raise
            say(f"{error}; meanwhile onnxruntime runs {manifest.name} on the CPU")
    return OnnxruntimeEngine(manifest, threads)


def check_inputs(model: str, inputs: dict[str, np.ndarray], specs: dict[str, TensorSpec]) -> None:
    """Raises ValueError where the arrays are not those of the specs."""
    if set(inputs) != set(specs):
        raise ValueError(f"the model {model} takes {', '.join(sorted(specs))}, not {', '.join(sorted(inputs))}")
    for name, spec in specs.items():
        array = inputs[name]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ValueError(
                f"the model {model} takes {name} as {spec.dtype} of shape {spec.shape}, "
                f"not {array.dtype} of shape {array.shape}"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
