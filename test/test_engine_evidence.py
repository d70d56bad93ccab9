"""Evidence, without a GPU, that the graphs will build: NVIDIA's own parser and builder, a lint, and half precision."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from sgrocc.export.lint import problems_of  # noqa: E402
from sgrocc.inference.engine import load_engine  # noqa: E402
from sgrocc.inference.golden import difference_of, golden_differences  # noqa: E402
from sgrocc.inference.half import half_precision, is_half  # noqa: E402
from sgrocc.inference.manifest import load_manifest  # noqa: E402
from sgrocc.inference.tensorrt_build import build_plan, builder_options  # noqa: E402
from sgrocc.resources import find_model  # noqa: E402

SHIPPED = ("compact", "random_expert")
#: Ampere and Ada: what the builder can be asked for without having one.
CAPABILITIES = ("SM86", "SM89")


def networks():
    for model in SHIPPED:
        for part in load_manifest(find_model(model)).networks():
            yield pytest.param(model, part, id=f"{model}-{part}")


def network_of(model: str, part: str):
    return load_manifest(find_model(model)).networks()[part]


@pytest.fixture(scope="module")
def trt():
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip(
            "NOT VERIFIED that TensorRT builds the models: tensorrt-rtx-cu12 is not installed (set_up.py --test)"
        )
    return importlib.import_module("tensorrt_rtx")


@pytest.mark.parametrize(("model", "part"), networks())
def test_shipped_graphs_pass_the_lint(model, part):
    assert problems_of(onnx.load(network_of(model, part).onnx_path)) == []


@pytest.mark.parametrize(
    ("model", "part", "precision"),
    [
        ("compact", "expert", "fp32"),
        ("compact", "expert", "fp16"),
        ("compact", "fusion", "fp32"),
        ("random_expert", "expert", "fp32"),
    ],
)
def test_tensorrt_builds_the_shipped_models(trt, model, part, precision):
    network = network_of(model, part)
    content = network.onnx_path.read_bytes()
    content = half_precision(content) if precision == "fp16" else content
    read, samplers = {}, []

    def examine(parsed):
        for get, count in ((parsed.get_input, parsed.num_inputs), (parsed.get_output, parsed.num_outputs)):
            read.update({get(i).name: (tuple(get(i).shape), get(i).dtype) for i in range(count)})
        for index in range(parsed.num_layers):
            layer = parsed.get_layer(index)
            if layer.type == trt.LayerType.GRID_SAMPLE:
                layer.__class__ = trt.IGridSampleLayer
                samplers.append((layer.interpolation_mode, layer.align_corners))

    plan = build_plan(content, trt, compute_capabilities=CAPABILITIES, examine=examine)
    assert len(plan) > 10_000
    # The parser read what we wrote: the manifest's tensors, all of them single precision outside.
    assert {name: shape for name, (shape, _) in read.items()} == {
        name: spec.shape for name, spec in {**network.inputs, **network.outputs}.items()
    }
    assert {kind for _, kind in read.values()} == {trt.DataType.FLOAT}
    assert "no TF32" in builder_options(precision) and ("half" in builder_options(precision)) == (precision == "fp16")
    assert bool(samplers) == (model == "compact") and set(samplers) <= {(trt.InterpolationMode.LINEAR, False)}


def test_what_must_be_exact_is_not_rounded_to_ten_bits(trt, monkeypatch):
    """TF32 is on unless it is turned off, and computes single precision with the mantissa of half."""
    settings, real = [], trt.Builder

    class Builder(real):
        def build_serialized_network(self, network, config):
            settings.append((config.get_flag(trt.BuilderFlag.TF32), network.get_flag(STRONGLY_TYPED)))
            return real.build_serialized_network(self, network, config)

    STRONGLY_TYPED = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    monkeypatch.setattr(trt, "Builder", Builder)
    build_plan(network_of("compact", "fusion").onnx_path.read_bytes(), trt, compute_capabilities=CAPABILITIES)
    assert settings == [(False, True)]


def test_tensorrt_refuses_a_scatter_with_the_reason(trt):
    """The negative control: what the lint keeps out is indeed not built."""
    nodes = [helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction="add")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    constants = [
        numpy_helper.from_array(np.array([[0], [1], [1]], np.int64), "i"),
        numpy_helper.from_array(np.ones(3, np.float32), "u"),
    ]
    graph = helper.make_graph(nodes, "scatter", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert any("ScatterND" in problem for problem in problems_of(model))
    with pytest.raises(ValueError, match="cannot read the network: .*ScatterND"):
        build_plan(model.SerializeToString(), trt, compute_capabilities=CAPABILITIES)


@pytest.mark.parametrize("content", [b"", b"no ONNX file", np.random.default_rng(0).bytes(5000)])
def test_garbage_is_refused_by_the_builder_in_one_sentence(trt, content):
    with pytest.raises(ValueError, match="cannot read the network"):
        build_plan(content, trt, compute_capabilities=CAPABILITIES)


# -- the lint --------------------------------------------------------------------------------------------------------


def model_of(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def test_a_sampler_of_volumes_is_refused():
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode="bilinear")
    model = model_of([node], [value("x", [1, 1, 4, 4, 4]), value("g", [1, 2, 2, 2, 3])], [value("y", [1, 1, 2, 2, 2])])
    assert problems_of(model) == ["GridSample has 5 dimensions, and TensorRT before 11.2 samples 4 only"]


@pytest.mark.parametrize(("k", "problems"), [(3839, 0), (3840, 1), (4800, 1)])
def test_a_long_top_k_is_refused(k, problems):
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"])
    constant = numpy_helper.from_array(np.array([k], np.int64), "k")
    outputs = [value("v", [1, k]), value("i", [1, k], TensorProto.INT64)]
    assert len(problems_of(model_of([node], [value("x", [1, 5000])], outputs, [constant]))) == problems
    free = model_of([node], [value("x", [1, 5000]), value("k", [1], TensorProto.INT64)], outputs)
    assert problems_of(free) == ["TopK has a K that is not constant"]


def test_doubles_are_refused_wherever_they_are():
    node = helper.make_node("Add", ["x", "c"], ["y"])
    constant = numpy_helper.from_array(np.ones(2), "c")
    kind = TensorProto.DOUBLE
    problems = problems_of(model_of([node], [value("x", [2], kind)], [value("y", [2], kind)], [constant]))
    assert len(problems) == 3 and all("double" in problem for problem in problems)


@pytest.mark.parametrize("operator", ["NonZero", "Unique", "Det", "ScatterElements", "Loop"])
def test_operators_that_no_robot_builds_are_named_with_the_cure(operator):
    model = model_of([helper.make_node(operator, ["x"], ["y"])], [value("x", [4, 4])], [value("y", [4, 4])])
    (problem,) = (problem for problem in problems_of(model) if "operator" in problem)
    assert problem.startswith(f"it has the operator {operator} (") and problem.endswith(")")


# -- golden answers and half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["expert", "fusion"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_shipped_model_gives_the_golden_answers(part, threads):
    manifest = load_manifest(find_model("compact"))
    differences = golden_differences(manifest, part, load_engine(manifest.networks()[part], threads=threads))
    assert set(differences) == set(manifest.networks()[part].outputs)
    assert max(differences.values()) < 1e-4


def test_another_answer_is_no_golden_one():
    manifest = load_manifest(find_model("compact"))

    class Off:
        def __init__(self):
            self.engine = load_engine(manifest)

        def infer(self, inputs):
            answer = self.engine.infer(inputs)
            return answer | {"means": answer["means"] + 0.01}

    differences = golden_differences(manifest, "expert", Off())
    assert differences["means"] > 1e-3 > max(v for name, v in differences.items() if name != "means")
    assert np.isnan(difference_of(np.array([np.nan]), np.array([1.0])))


def test_half_precision_halves_the_features_and_leaves_the_geometry():
    content = half_precision(network_of("compact", "expert").onnx_path.read_bytes())
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    halves = [node.name for node in model.graph.node if types.get(node.output[0]) == TensorProto.FLOAT16]
    computed = [name for name in halves if not name.endswith("/half")]  # the others are casts
    assert len(computed) > 100 and all(is_half(name) for name in computed)
    singles = {node.op_type for node in model.graph.node if types.get(node.output[0]) == TensorProto.FLOAT}
    assert {"GridSample", "Softmax", "LayerNormalization", "Exp", "Sqrt"} <= singles
    for name in ("expert.blocks.0.lifting/Exp_9", "expert.encoder.depth_head.2/Conv_1", "expert.embedding.0/MatMul_1"):
        assert not is_half(name)
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert len(content) < 0.6 * network_of("compact", "expert").onnx_path.stat().st_size


def test_half_precision_loses_little(tmp_path):
    """Through onnxruntime, which rounds at the casts: nearly all answers stay where they were."""
    import onnxruntime

    network = network_of("compact", "expert")
    session = onnxruntime.InferenceSession(half_precision(network.onnx_path.read_bytes()))
    random = np.random.default_rng(0)
    image = np.kron(random.normal(size=(1, 3, 15, 20)), np.ones((1, 1, 16, 16))).astype(np.float32)
    depth = np.full((1, 1, 240, 320), 2.0, np.float32)
    inputs = {"image": image, "intrinsics": np.array([[260, 260, 160, 120]], np.float32), "sensor_depth": depth}
    half = dict(zip(network.outputs, session.run(list(network.outputs), inputs), strict=True))
    single = load_engine(network).infer(inputs)
    moved_m = np.linalg.norm(half["means"] - single["means"], axis=-1)
    assert 0 < np.median(moved_m) < 1e-3 and np.quantile(moved_m, 0.99) < 0.02
    assert (half["logits"].argmax(-1) == single["logits"].argmax(-1)).mean() > 0.98


@pytest.mark.parametrize(("model", "part"), [("compact", "fusion"), ("random_expert", "expert")])
def test_a_network_without_such_parts_stays_as_it_is(model, part):
    content = network_of(model, part).onnx_path.read_bytes()
    assert half_precision(content) == content


def test_torch_in_half_precision_is_near_the_single_one():
    torch = pytest.importorskip("torch")
    from sgrocc.export.half_in_torch import in_half_precision
    from sgrocc.training.torch_expert import TorchEngine, load_expert

    checkpoint = Path(__file__).resolve().parents[1] / "checkpoints" / "compact.pt"
    random = np.random.default_rng(1)
    image = np.kron(random.normal(size=(1, 3, 15, 20)), np.ones((1, 1, 16, 16))).astype(np.float32)
    inputs = {
        "image": image,
        "intrinsics": np.array([[260, 260, 160, 120]], np.float32),
        "sensor_depth": np.full((1, 1, 240, 320), 2.0, np.float32),
    }
    single = TorchEngine(load_expert(checkpoint, 10, "nearest")).infer(inputs)
    expert = in_half_precision(load_expert(checkpoint, 10, "nearest"))
    assert expert.encoder.laterals[0].weight.dtype == torch.float16
    assert expert.blocks[0].lifting.offsets.weight.dtype == expert.encoder.depth_head[2].weight.dtype == torch.float32
    half = TorchEngine(expert).infer(inputs)
    moved_m = np.linalg.norm(half["means"] - single["means"], axis=-1)
    assert 0 < np.median(moved_m) < 1e-3 and np.quantile(moved_m, 0.99) < 0.03
