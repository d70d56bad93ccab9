"""The TensorRT engine on a make-believe GPU whose functions have the real ones' signatures.

What is checked is the order of the calls, the addresses, what is freed, and that every failure is one sentence. That a
real GPU computes the right thing only a real GPU can show: `make gpu-check`.
"""

import ctypes
import importlib.util
import inspect
from collections import Counter
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest

for needed in ("tensorrt_rtx", "cuda"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"NOT VERIFIED: {needed} is not installed (set_up.py --test)", allow_module_level=True)

import tensorrt_rtx as real_trt  # noqa: E402
from cuda.bindings import runtime as real_cuda  # noqa: E402

from sgrocc.experts.learned import LearnedExpert  # noqa: E402
from sgrocc.inference import tensorrt_engine  # noqa: E402
from sgrocc.inference.engine import load_engine  # noqa: E402
from sgrocc.inference.engine_cache import EngineCache  # noqa: E402
from sgrocc.inference.manifest import load_manifest  # noqa: E402
from sgrocc.inference.tensorrt_build import EngineAbsent  # noqa: E402
from sgrocc.inference.tensorrt_engine import TensorrtEngine, build_engine, engine_key  # noqa: E402
from sgrocc.resources import find_model  # noqa: E402

MANIFEST = load_manifest(find_model("random_expert"))
SPECS = {**MANIFEST.inputs, **MANIFEST.outputs}


class Gpu:
    """Memory that is real, streams that run in order, graphs that replay. Every call is bound to the real signature.

    fails: (name of a function, from which call of it on) to a status other than success.
    """

    def __init__(self, fails=()):
        self.fails, self.calls, self.memory, self.open = dict(fails), [], {}, Counter()
        self.recording, self.graphs, self.synchronised = None, {}, True

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        real = getattr(real_cuda, name)  # a name that CUDA does not have is an AttributeError
        if not callable(real) or isinstance(real, type):
            return real  # constants and enumerations are the real ones

        def function(*arguments):
            inspect.signature(real).bind(*arguments)
            self.calls.append(name)
            if self.calls.count(name) >= self.fails.get(name, 1 << 30):
                return (real_cuda.cudaError_t.cudaErrorUnknown, None)
            result = getattr(self, f"_{name}", lambda *_: None)(*arguments)
            success = real_cuda.cudaError_t.cudaSuccess
            return (success,) if result is None else (success, result)

        return function

    def run(self, action):
        if self.recording is not None:
            self.recording.append(action)
        else:
            self.synchronised = False
            action()

    def _cudaGetErrorString(self, status):
        return b"unknown error"

    def _cudaGetDeviceCount(self):
        return 1

    def _cudaGetDevice(self):
        return 0

    def _cudaGetDeviceProperties(self, device):
        properties = real_cuda.cudaDeviceProp()
        properties.name = b"Orin".ljust(256, b"\0")
        properties.major, properties.minor, properties.multiProcessorCount = 8, 7, 16
        return properties

    def _cudaDriverGetVersion(self):
        return 12060

    def _cudaRuntimeGetVersion(self):
        return 12060

    def _allocate(self, kind, size):
        buffer = (ctypes.c_byte * size)()
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer, kind
        self.open[kind] += 1
        return address

    def _cudaHostAlloc(self, size, flags):
        return self._allocate("host", size)

    def _cudaMalloc(self, size):
        return self._allocate("device", size)

    def _free(self, kind, address):
        assert self.memory.pop(address)[1] == kind, "freed by the wrong function"
        self.open[kind] -= 1

    def _cudaFreeHost(self, address):
        self._free("host", address)

    def _cudaFree(self, address):
        self._free("device", address)

    def _cudaStreamCreateWithFlags(self, flags):
        assert flags == real_cuda.cudaStreamNonBlocking
        self.open["stream"] += 1
        return 77

    def _cudaStreamDestroy(self, stream):
        self.open["stream"] -= 1

    def _cudaStreamSynchronize(self, stream):
        assert stream == 77 and self.recording is None
        self.synchronised = True

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):
        ends = [self.memory[address][1] for address in (source, to)]
        expected = {"cudaMemcpyHostToDevice": ["host", "device"], "cudaMemcpyDeviceToHost": ["device", "host"]}
        assert ends == expected[kind.name] and stream == 77
        self.run(lambda: ctypes.memmove(to, source, size))

    def _cudaStreamBeginCapture(self, stream, mode):
        self.recording = []

    def _cudaStreamEndCapture(self, stream):
        recorded, self.recording = self.recording, None
        self.open["graph"] += 1
        self.graphs[500] = recorded
        return 500

    def _cudaGraphInstantiate(self, graph, flags):
        self.open["executable graph"] += 1
        self.graphs[600] = self.graphs[graph]
        return 600

    def _cudaGraphDestroy(self, graph):
        self.open["graph"] -= 1

    def _cudaGraphExecDestroy(self, graph):
        self.open["executable graph"] -= 1

    def _cudaGraphLaunch(self, graph, stream):
        for action in self.graphs[graph]:
            self.run(action)


class Trt(SimpleNamespace):
    """TensorRT whose engine doubles the mean of all inputs into every output. The objects have the real attributes."""

    def __init__(self, gpu, **change):
        super().__init__(__name__="tensorrt", __version__="10.3.0.30", nptype=real_trt.nptype, Logger=real_trt.Logger)
        self.gpu, self.change, self.addresses = gpu, change, {}
        self.Runtime = lambda logger: self._runtime()

    def _runtime(self):
        if self.change.get("no_cuda"):  # as pybind11 has it
            raise TypeError("pybind11::init(): factory function returned nullptr")
        runtime = create_autospec(real_trt.Runtime, instance=True)
        runtime.deserialize_cuda_engine.side_effect = lambda plan: (
            None if self.change.get("no_engine") else self._engine()
        )
        return runtime

    def _engine(self):
        engine = create_autospec(real_trt.ICudaEngine, instance=True)
        names = list(SPECS)[:-1] if self.change.get("other_tensors") else list(SPECS)
        engine.num_io_tensors = len(names)
        engine.get_tensor_name.side_effect = names.__getitem__
        extra = (1,) if self.change.get("other_shape") else ()
        engine.get_tensor_shape.side_effect = lambda name: (*SPECS[name].shape, *extra)
        kind = real_trt.DataType.HALF if self.change.get("other_type") else real_trt.DataType.FLOAT
        engine.get_tensor_dtype.side_effect = lambda name: kind
        engine.create_execution_context.side_effect = lambda: None if self.change.get("no_context") else self._context()
        return engine

    def _context(self):
        context = create_autospec(real_trt.IExecutionContext, instance=True)
        context.set_tensor_address.side_effect = self._set_address
        context.execute_async_v3.side_effect = self._execute
        return context

    def _set_address(self, name, address):
        self.addresses[name] = address
        return not self.change.get("refused_address")

    def _array(self, name):
        spec = SPECS[name]
        buffer, kind = self.gpu.memory[self.addresses[name]]
        assert kind == "device"
        return np.frombuffer(buffer, spec.dtype).reshape(spec.shape)

    def _execute(self, stream):
        assert stream == 77
        if self.change.get("refused_call"):
            return False

        def compute():
            total = sum(float(self._array(name).mean()) for name in MANIFEST.inputs)
            for number, name in enumerate(MANIFEST.outputs):
                self._array(name)[...] = total * (number + 1) + self.change.get("drift", 0) * len(self.gpu.graphs)

        self.gpu.run(compute)
        return True


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path)


def opened(cache, gpu=None, **change):
    gpu = gpu or Gpu()
    trt = Trt(gpu, **change)
    cache.store(engine_key(MANIFEST, "fp16", trt, Gpu()), b"a plan")
    return TensorrtEngine(MANIFEST, "fp16", cache, trt, gpu), gpu


def inputs_of(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.uniform(0, 1, spec.shape).astype(spec.dtype) for name, spec in MANIFEST.inputs.items()}


def expected_of(inputs):
    total = sum(float(array.mean()) for array in inputs.values())
    return {name: total * (number + 1) for number, name in enumerate(MANIFEST.outputs)}


@pytest.mark.parametrize("fails", [(), {"cudaStreamBeginCapture": 1}, {"cudaGraphInstantiate": 1}])
def test_the_answer_is_that_of_the_inputs_with_and_without_a_graph(cache, fails):
    engine, gpu = opened(cache, Gpu(fails))
    assert engine.uses_graph is not bool(fails)
    for seed in range(3):
        inputs = inputs_of(seed)
        answer = engine.infer(inputs)
        assert gpu.synchronised
        for name, value in expected_of(inputs).items():
            assert answer[name].shape == SPECS[name].shape and answer[name].dtype == np.float32
            np.testing.assert_allclose(answer[name], value, rtol=1e-5)
    # An answer is the caller's: the next frame must not change it.
    kept = {name: array.copy() for name, array in answer.items()}
    engine.infer(inputs_of(9))
    assert all(np.array_equal(answer[name], array) for name, array in kept.items())


def test_a_device_that_breaks_in_the_graph_is_not_taken_for_a_graph_that_does_not_work(cache):
    # From the second synchronisation on nothing works any more, the single calls included.
    gpu = Gpu({"cudaGraphLaunch": 1, "cudaStreamSynchronize": 2})
    with pytest.raises(ValueError, match="the engine of random_expert does not run here: cudaStreamSynchronize failed"):
        opened(cache, gpu)
    assert not +gpu.open


def test_buffers_are_made_once_and_addresses_set_once(cache):
    engine, gpu = opened(cache)
    before = list(gpu.calls)
    for seed in range(5):
        engine.infer(inputs_of(seed))
    assert gpu.calls[len(before) :] == ["cudaGraphLaunch", "cudaStreamSynchronize"] * 5
    assert before.count("cudaMalloc") == before.count("cudaHostAlloc") == len(SPECS)
    # One run without a graph comes first, or the recording would hold what TensorRT does only once.
    assert (
        before.index("cudaMemcpyAsync") < before.index("cudaStreamSynchronize") < before.index("cudaStreamBeginCapture")
    )


def test_a_graph_that_answers_otherwise_is_not_used(cache):
    engine, gpu = opened(cache, drift=100.0)
    assert not engine.uses_graph
    engine.infer(inputs_of())
    assert gpu.calls[-2:] == ["cudaMemcpyAsync", "cudaStreamSynchronize"]


def test_all_is_freed_once_in_reverse_order(cache):
    engine, gpu = opened(cache)
    assert gpu.open == {"host": len(SPECS), "device": len(SPECS), "stream": 1, "graph": 1, "executable graph": 1}
    engine.close()
    engine.close()
    assert not +gpu.open and gpu.calls[-1] == "cudaStreamDestroy"
    assert gpu.calls.index("cudaGraphExecDestroy") < gpu.calls.index("cudaGraphDestroy")
    with pytest.raises(ValueError, match="closed"):
        engine.infer(inputs_of())


STEPS = [
    "cudaGetDeviceCount",
    "cudaGetDevice",
    "cudaGetDeviceProperties",
    "cudaDriverGetVersion",
    "cudaStreamCreateWithFlags",
    "cudaHostAlloc",
    "cudaMalloc",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_failure_at_any_step_is_one_sentence_and_frees_everything(cache, step, nth):
    gpu = Gpu({step: nth})
    try:
        engine, _ = opened(cache, gpu)
    except ValueError as error:
        assert f"{step} failed: unknown error" in str(error) and len(str(error).splitlines()) == 1
        assert not +gpu.open
    else:  # called once only, or only for the graph, without which it works
        assert nth == 2
        engine.close()
        assert not +gpu.open


@pytest.mark.parametrize("step", ["cudaGraphLaunch", "cudaStreamSynchronize"])
def test_a_failure_in_a_frame_is_a_sentence_for_that_frame(cache, step):
    engine, gpu = opened(cache)
    gpu.fails[step] = gpu.calls.count(step) + 1
    with pytest.raises(ValueError, match=f"the model random_expert failed: {step} failed: unknown error"):
        engine.infer(inputs_of())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no_cuda", "cannot use this GPU .*returned nullptr.*install the TensorRT of its CUDA version"),
        ("no_engine", "cannot open the engine"),
        ("no_context", "not enough GPU memory"),
        ("other_tensors", "has other tensors"),
        ("other_shape", "has another shape"),
        ("other_type", "has another type"),
        ("refused_address", "refused the memory"),
        ("refused_call", "did not take the network up"),
    ],
)
def test_what_tensorrt_refuses_is_said_and_everything_is_freed(cache, change, words):
    gpu = Gpu()
    with pytest.raises(ValueError, match=words):
        opened(cache, gpu, **{change: True})
    assert not +gpu.open


def test_wrong_inputs_never_reach_the_gpu(cache):
    engine, gpu = opened(cache)
    count = len(gpu.calls)
    with pytest.raises(ValueError, match="takes image, intrinsics, sensor_depth"):
        engine.infer({"image": inputs_of()["image"]})
    with pytest.raises(ValueError, match="not float64"):
        engine.infer({name: array.astype(np.float64) for name, array in inputs_of().items()})
    assert len(gpu.calls) == count


# -- which engine is run ---------------------------------------------------------------------------------------------


def test_an_engine_that_was_not_built_is_never_built_by_the_node(cache):
    gpu = Gpu()
    sentence = r"no engine of random_expert for this machine \(not built yet\): run sgrocc build-engine --model .*fp16$"
    with pytest.raises(EngineAbsent, match=sentence):
        TensorrtEngine(MANIFEST, "fp16", cache, Trt(gpu), gpu)
    assert "cudaMalloc" not in gpu.calls


def test_a_spoilt_engine_is_not_opened(cache):
    gpu = Gpu()
    trt = Trt(gpu)
    path = cache.store(engine_key(MANIFEST, "fp16", trt, gpu), b"a plan")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\(truncated\): run sgrocc build-engine") as caught:
        TensorrtEngine(MANIFEST, "fp16", cache, trt, gpu)
    assert not isinstance(caught.value, EngineAbsent)  # the doctor tells a fault from what is merely not here


def test_building_keeps_the_engine_and_says_why(cache, monkeypatch):
    gpu = Gpu()
    trt, built = Trt(gpu), []
    monkeypatch.setattr(
        "sgrocc.inference.tensorrt_engine.build_plan",
        lambda content, module, progress: built.append(content) or b"plan",
    )
    key, reason = build_engine(MANIFEST, "fp32", cache, None, trt, gpu)
    assert reason == "not built yet" and built == [MANIFEST.onnx_path.read_bytes()]
    assert key.compute_capability == "8.7" and key.gpu.startswith("Orin, 16 SMs") and key.precision == "fp32"
    assert build_engine(MANIFEST, "fp32", cache, None, trt, gpu) == (key, "") and len(built) == 1
    trt.__version__ = "10.4.0.26"
    assert build_engine(MANIFEST, "fp32", cache, None, trt, gpu)[1] == "not built yet" and len(built) == 2


def test_without_a_gpu_the_node_falls_back_or_refuses(monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "cuda_runtime", lambda: Gpu({"cudaGetDeviceCount": 1}))
    said = []
    engine = load_engine(MANIFEST, "tensorrt", fallback=True, say=said.append)
    (sentence,) = said
    assert sentence.startswith("there is no usable GPU here (cudaGetDeviceCount failed")
    assert sentence.endswith("meanwhile onnxruntime runs random_expert on the CPU")
    assert LearnedExpert(MANIFEST, engine).engine is engine
    with pytest.raises(ValueError, match="set engine to onnxruntime$"):
        load_engine(MANIFEST, "tensorrt")


def test_without_the_libraries_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(
        tensorrt_engine.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name))
    )
    with pytest.raises(ValueError, match="needs tensorrt, cuda-python, onnx, and here .*cuda-python.* cannot be used"):
        load_engine(MANIFEST, "tensorrt")
