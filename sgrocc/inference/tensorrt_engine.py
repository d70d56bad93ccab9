"""An engine on TensorRT and CUDA, without torch: buffers made once, one context, one stream, a graph after one warm-up.

It runs what `sgrocc build-engine` built for this machine and never builds anything itself: that takes minutes.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
from types import ModuleType

import numpy as np

from sgrocc.inference.engine import check_inputs
from sgrocc.inference.engine_cache import NOT_BUILT, EngineCache, EngineKey
from sgrocc.inference.manifest import ModelManifest, Network
from sgrocc.inference.tensorrt_build import (
    EngineAbsent,
    absent,
    build_plan,
    builder_options,
    made,
    onnx_bytes_of,
    tensorrt_module,
)

PRECISIONS = ("fp32", "fp16")


class CudaError(RuntimeError):
    """A CUDA call failed; the message says which, and why."""


def cuda_runtime() -> ModuleType:
    """cuda.bindings.runtime. Raises EngineAbsent, with the cure, where it is not there."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise EngineAbsent(absent("cuda-python")) from error


def call(cuda: ModuleType, name: str, *arguments):
    """Call a function of the runtime and return what it returns behind its status. Raises CudaError."""
    status, *results = getattr(cuda, name)(*arguments)
    if int(status) != 0:
        _, text = cuda.cudaGetErrorString(status)
        reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        raise CudaError(f"{name} failed: {reason}")
    return results[0] if len(results) == 1 else tuple(results)


def name_of(properties) -> str:
    """The GPU's name, of what cudaGetDeviceProperties returns: bytes, filled up with zeros, or a text."""
    name = properties.name
    return (name.decode(errors="replace") if isinstance(name, bytes) else str(name)).rstrip("\0")


def engine_key(network: ModelManifest | Network, precision: str, trt: ModuleType, cuda: ModuleType) -> EngineKey:
    """The key of a network's engine on the GPU of this machine. Raises EngineAbsent where there is none, CudaError."""
    try:
        count = call(cuda, "cudaGetDeviceCount")
    except CudaError as error:
        raise EngineAbsent(f"there is no usable GPU here ({error}): set engine to onnxruntime") from error
    if not count:
        raise EngineAbsent("there is no GPU here: set engine to onnxruntime")
    device = call(cuda, "cudaGetDevice")
    properties = call(cuda, "cudaGetDeviceProperties", device)
    return EngineKey(
        name=network.name,
        onnx_sha256=network.sha256,
        tensorrt_version=f"{trt.__name__} {trt.__version__}",
        gpu=f"{name_of(properties)}, {properties.multiProcessorCount} SMs, {platform.machine()}",
        compute_capability=f"{properties.major}.{properties.minor}",
        driver_version=str(call(cuda, "cudaDriverGetVersion")),
        cuda_version=str(call(cuda, "cudaRuntimeGetVersion")),
        precision=precision,
        options=builder_options(precision),
    )


class TensorrtEngine:
    """Runs one network. Not thread-safe. Raises EngineAbsent where no engine is built for this machine or none can be,
    ValueError where the engine does not run here; what was made until then is freed.

    trt, cuda: the modules, for tests.
    """

    def __init__(
        self,
        network: ModelManifest | Network,
        precision: str = "fp16",
        cache: EngineCache | None = None,
        trt: ModuleType | None = None,
        cuda: ModuleType | None = None,
    ) -> None:
        self._network, self._cuda = network, cuda or cuda_runtime()
        trt = trt or tensorrt_module()
        self._made: list[tuple] = []  # (name of the function that frees it, handle), in the order of making
        self._graph = None
        try:
            key = engine_key(network, precision, trt, self._cuda)
            cache = cache or EngineCache()
            plan, reason = cache.load(key)
            cure = f"run sgrocc build-engine --model {network.onnx_path.parent} --precision {precision}"
            if plan is None:
                kind = EngineAbsent if reason == NOT_BUILT else ValueError
                raise kind(f"there is no engine of {network.name} for this machine ({reason}): {cure}")
            self._cure = f"remove {cache.path(key)} and {cure}"
            self._open(plan, trt)
            self._warm_up()
        except CudaError as error:
            self.close()
            raise ValueError(f"the engine of {network.name} does not run here: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def uses_graph(self) -> bool:
        """Whether a CUDA graph is replayed. It is not where its answer differed from that of single calls."""
        return self._graph is not None

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network once. Raises ValueError where `inputs` are not those of the manifest, or CUDA fails."""
        check_inputs(self._network.name, inputs, self._network.inputs)
        if not self._made:
            raise ValueError(f"the engine of {self._network.name} is closed")
        for name, array in inputs.items():
            np.copyto(self._host[name], array)
        try:
            if self._graph is not None:
                call(self._cuda, "cudaGraphLaunch", self._graph, self._stream)
            else:
                self._enqueue()
            call(self._cuda, "cudaStreamSynchronize", self._stream)
        except CudaError as error:
            raise ValueError(f"the model {self._network.name} failed: {error}") from error
        return {name: self._host[name].copy() for name in self._network.outputs}

    def close(self) -> None:
        """Free everything, the last first. What cannot be freed is left to the driver."""
        self._graph = None
        self._context = self._engine = None  # before the memory that they point to
        self._host = {}
        made, self._made = self._made, []
        for function, handle in reversed(made):
            getattr(self._cuda, function)(handle)

    def __del__(self) -> None:
        if getattr(self, "_made", None):
            self.close()

    # -- making ---------------------------------------------------------------------------------------------------

    def _open(self, plan: bytes, trt: ModuleType) -> None:
        self._runtime = made(trt.Runtime, trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ValueError(f"TensorRT cannot open the engine of {self._network.name}: {self._cure}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ValueError(f"there is not enough GPU memory for {self._network.name}: close what else uses the GPU")
        specs = {**self._network.inputs, **self._network.outputs}
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != set(specs):
            raise ValueError(f"the engine of {self._network.name} has other tensors: {self._cure}")
        cuda = self._cuda
        flags = cuda.cudaStreamNonBlocking
        self._stream = self._keep("cudaStreamDestroy", call(cuda, "cudaStreamCreateWithFlags", flags))
        self._host, self._device, self._bytes = {}, {}, {}
        for name, spec in specs.items():
            if tuple(self._engine.get_tensor_shape(name)) != spec.shape:
                raise ValueError(f"the engine's {name} has another shape: {self._cure}")
            if trt.nptype(self._engine.get_tensor_dtype(name)) != np.dtype(spec.dtype):
                raise ValueError(f"the engine's {name} has another type: {self._cure}")
            size = self._bytes[name] = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
            pinned = self._keep("cudaFreeHost", call(cuda, "cudaHostAlloc", size, cuda.cudaHostAllocDefault))
            self._host[name] = np.frombuffer(
                (ctypes.c_byte * size).from_address(int(pinned)), dtype=spec.dtype
            ).reshape(spec.shape)
            self._device[name] = self._keep("cudaFree", call(cuda, "cudaMalloc", size))
            if not self._context.set_tensor_address(name, int(self._device[name])):
                raise ValueError(f"TensorRT refused the memory of {name}: {self._cure}")

    def _keep(self, frees: str, handle):
        self._made.append((frees, handle))
        return handle

    def _enqueue(self) -> None:
        """Copies, network and copies on the stream; nothing is waited for."""
        cuda = self._cuda
        for name in self._network.inputs:
            host = self._host[name].ctypes.data
            kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            call(cuda, "cudaMemcpyAsync", self._device[name], host, self._bytes[name], kind, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise CudaError("TensorRT did not take the network up")
        for name in self._network.outputs:
            host = self._host[name].ctypes.data
            kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            call(cuda, "cudaMemcpyAsync", host, self._device[name], self._bytes[name], kind, self._stream)

    def _warm_up(self) -> None:
        """Run once, then record the same as a graph; it is used where it gives what the single calls gave."""
        for name in self._network.inputs:
            self._host[name][...] = np.random.default_rng(0).uniform(0.5, 1.5, self._host[name].shape)
        self._enqueue()
        call(self._cuda, "cudaStreamSynchronize", self._stream)
        expected = {name: self._host[name].copy() for name in self._network.outputs}
        try:
            graph = self._recorded()
            for name in self._network.outputs:
                self._host[name][...] = np.nan
            call(self._cuda, "cudaGraphLaunch", graph, self._stream)
            call(self._cuda, "cudaStreamSynchronize", self._stream)
        except CudaError:
            # Without a graph it may work; where the device is broken, this raises.
            self._enqueue()
            call(self._cuda, "cudaStreamSynchronize", self._stream)
            return
        same = all(np.allclose(self._host[name], array, rtol=1e-3, atol=1e-3) for name, array in expected.items())
        self._graph = graph if same else None

    def _recorded(self):
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cuda, "cudaStreamBeginCapture", self._stream, mode)
        try:
            self._enqueue()
        except CudaError:
            # A capture that is not ended would make every later call on the stream fail.
            cuda.cudaStreamEndCapture(self._stream)
            raise
        graph = self._keep("cudaGraphDestroy", call(cuda, "cudaStreamEndCapture", self._stream))
        return self._keep("cudaGraphExecDestroy", call(cuda, "cudaGraphInstantiate", graph, 0))


def build_engine(
    network: ModelManifest | Network,
    precision: str = "fp16",
    cache: EngineCache | None = None,
    progress=None,
    trt: ModuleType | None = None,
    cuda: ModuleType | None = None,
) -> tuple[EngineKey, str]:
    """Build a network's engine for this machine, if it is not there: its key, and why it was built ("" where it was
    there). Raises ValueError or CudaError where it cannot be built, OSError where it cannot be kept.
    """
    trt, cuda = trt or tensorrt_module(), cuda or cuda_runtime()
    key = engine_key(network, precision, trt, cuda)
    cache = cache or EngineCache()
    return key, cache.build_where_missing(
        key, lambda: build_plan(onnx_bytes_of(network.onnx_path, precision), trt, progress=progress)
    )
