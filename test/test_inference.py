"""Manifests and engines: every fault of a model folder has its sentence, and a model answers the same every time."""

import copy
import hashlib
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from scenes import FUZZ

from sgrocc.inference.engine import load_engine
from sgrocc.inference.manifest import fusion_shapes, load_manifest
from sgrocc.labels import CLASS_NAMES

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "random_expert"
TREE = yaml.safe_load((MODEL / "manifest.yaml").read_text())

# What TensorRT 10.3 and every later one builds.
ALLOWED_OPERATORS = set(
    "Conv Mul Add Gather Sigmoid Gemm MatMul Slice Unsqueeze Reshape Transpose Cast ReduceSum ReduceMean ReduceMin "
    "ReduceL2 Clip Div GridSample Tanh Exp Softmax LayerNormalization Erf Expand Floor Min Max Less Greater And Abs "
    "Concat Relu".split()
)


@pytest.fixture
def folder(tmp_path):
    """A copy of the random model that a test may spoil."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_random_expert", ROOT / "tools" / "make_random_expert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree_of(folder):
    return yaml.safe_load((folder / "manifest.yaml").read_text())


def write_tree(folder, tree):
    (folder / "manifest.yaml").write_text(yaml.safe_dump(tree))


def replace_onnx(folder, content):
    """Another ONNX file with a manifest that vouches for it."""
    (folder / "expert.onnx").write_bytes(content)
    write_tree(folder, {**tree_of(folder), "sha256": hashlib.sha256(content).hexdigest()})


def random_inputs(manifest, seed):
    random = np.random.default_rng(seed)
    inputs = {name: random.normal(size=spec.shape).astype(spec.dtype) for name, spec in manifest.inputs.items()}
    inputs["intrinsics"] = np.array([[140, 141, 79.5, 59.5]], np.float32)
    return inputs


def test_the_manifest_says_what_the_file_says():
    manifest = load_manifest(MODEL)
    assert manifest.name == "random_expert" and "nonsense" in manifest.description
    assert manifest.onnx_path == MODEL / "expert.onnx"
    assert (manifest.image_width, manifest.image_height) == (160, 120)
    assert manifest.inputs["image"].shape == (1, 3, 120, 160)
    assert manifest.outputs["logits"].shape == (1, 300, 11)
    assert manifest.image_mean == (0.485, 0.456, 0.406)
    assert manifest.classes == CLASS_NAMES
    assert manifest.depth_sigma_m == (0.1, 0.05)
    assert manifest.takes_depth is True and manifest.semantic is True


def test_a_missing_folder_manifest_or_onnx_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match="no model folder .*elsewhere"):
        load_manifest(folder / "elsewhere")
    (folder / "expert.onnx").rename(folder / "other.onnx")
    with pytest.raises(FileNotFoundError, match=r"expert\.onnx: fetch the model again"):
        load_manifest(folder)
    (folder / "manifest.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"manifest\.yaml"):
        load_manifest(folder)


def test_one_changed_byte_of_the_onnx_file_is_found(folder):
    content = bytearray((folder / "expert.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "expert.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt.*fetch the model again"):
        load_manifest(folder)


@pytest.mark.parametrize("key", sorted(TREE))
def test_every_key_is_needed(folder, key):
    tree = tree_of(folder)
    del tree[key]
    write_tree(folder, tree)
    with pytest.raises(ValueError, match=f"lacks the key {key}"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 2, "schema_version is 2.*reads version 1"),
        ("schema_version", True, "schema_version is True"),
        ("name", "", "name must be a text"),
        ("name", 7, "name must be a text, not 7"),
        ("onnx", "../expert.onnx", "onnx must be the plain name"),
        ("onnx", "/etc/passwd", "onnx must be the plain name"),
        ("onnx", "a\\b.onnx", "onnx must be the plain name"),
        ("onnx", "expert.onnx\n", "onnx must be the plain name"),
        ("sha256", "A" * 64, "sha256 must be 64 lower-case"),
        ("opset", 20, "opset must be 18, not 20"),
        ("inputs", [], "inputs must be a mapping"),
        ("inputs", {"image": 3}, "inputs.image must be a mapping"),
        ("outputs", {"depth": {"shape": [1, 1, 120, 160], "dtype": "float32"}}, "outputs must have `means`"),
        ("image", {"width": 160}, "image lacks the key height"),
        ("image", {"width": 160, "height": 120, "mean": [0, 0, 0], "std": [1, 1, 0]}, "std must hold .* at least"),
        ("classes", list(CLASS_NAMES[::-1]), "classes must be, in this order, ceiling.*other classes"),
        ("classes", list(CLASS_NAMES[:-1]), "trained for other classes"),
        ("resolution_m", 0, "resolution_m must be a positive length"),
        ("resolution_m", float("nan"), "resolution_m must be a positive length"),
        ("feature_size", 9, "outputs.features has shape .*300, 8.*300, 9"),
        ("feature_size", 8.0, "feature_size must be an integer"),
        ("depth_sigma_m", 0.1, "depth_sigma_m must be a list of 2 numbers"),
        ("depth_sigma_m", [0.1, float("inf")], "depth_sigma_m must hold finite"),
        ("depth_sigma_m", [0.1, 10**400], "depth_sigma_m must hold finite"),
        ("takes_depth", "yes", "takes_depth must be true or false, not 'yes'"),
        ("takes_depth", False, "inputs are image, intrinsics, sensor_depth, but must be image, intrinsics"),
        ("intrinsics", "fixed", "intrinsics must be scaled_to_input"),
        ("semantic", 1, "semantic must be true or false"),
        ("licence", None, "licence must be a text"),
        ("colour", "blue", "unknown key 'colour'"),
    ],
)
def test_a_wrong_value_gets_one_sentence(folder, key, value, message):
    write_tree(folder, {**tree_of(folder), key: value})
    with pytest.raises(ValueError, match=message) as caught:
        load_manifest(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_shapes_and_dtypes_of_tensors_are_checked(folder):
    tree = tree_of(folder)
    tree["outputs"]["rotations"]["shape"] = [1, 300, 3]
    write_tree(folder, tree)
    with pytest.raises(ValueError, match="outputs.rotations has shape"):
        load_manifest(folder)
    tree["outputs"]["rotations"] = {"shape": [1, 300, 4], "dtype": "float16"}
    write_tree(folder, tree)
    with pytest.raises(ValueError, match="dtype must be float32, not 'float16'"):
        load_manifest(folder)


def with_gates(folder, *shape):
    tree = tree_of(folder)
    tree["outputs"]["gates"] = {"shape": list(shape), "dtype": "float32"}
    write_tree(folder, tree)


def test_a_model_may_show_its_gates(folder):
    assert "gates" not in load_manifest(folder).outputs
    with_gates(folder, 1, 15, 20)
    assert load_manifest(folder).outputs["gates"].shape == (1, 15, 20)
    with pytest.raises(ValueError, match="its manifest declares .*gates"):  # but the network has none
        load_engine(load_manifest(folder))


@pytest.mark.parametrize(
    "shape",
    [(15, 20), (1, 1, 15, 20), (1, 0, 20), (1, 15, 0), (1, 16, 20), (1, 20, 15), (1, 15, 40), (1, 240, 320)],
)
def test_gates_that_do_not_cover_the_image_are_refused(folder, shape):
    with_gates(folder, *shape)
    with pytest.raises(ValueError, match=r"outputs.gates has shape .* must be .*cover the image of 160 x 120: export"):
        load_manifest(folder)


def test_gates_are_those_of_one_image(folder):
    with_gates(folder, 2, 15, 20)
    with pytest.raises(ValueError, match=r"outputs.gates has shape \[2, 15, 20\], but .* make it \[1, 15, 20\]"):
        load_manifest(folder)


@pytest.fixture
def fusing(folder):
    """(folder, tree) of a model with a fusion of 20 Gaussians at a time."""
    tree = tree_of(folder)
    (folder / "fusion.onnx").write_bytes(b"anything")
    groups = fusion_shapes(160, 120, 20, tree["feature_size"])
    inputs, outputs = ({n: {"shape": list(s), "dtype": "float32"} for n, s in group.items()} for group in groups)
    sha256 = hashlib.sha256(b"anything").hexdigest()
    tree["fusion"] = {"onnx": "fusion.onnx", "sha256": sha256, "inputs": inputs, "outputs": outputs}
    write_tree(folder, tree)
    return folder, tree


def test_a_model_may_bring_a_fusion_for_the_memory(fusing):
    folder, tree = fusing
    fusion = load_manifest(folder).fusion
    assert fusion.onnx_path == folder / "fusion.onnx" and fusion.name == "random_expert (fusion)"
    # Features, 11 classes, 6 states, and two figures at 9 places of the ray.
    assert fusion.inputs["history"].shape == (1, 20, tree["feature_size"] + 11 + 6 + 18)
    assert fusion.outputs["fused_rotations"].shape == (1, 20, 4)
    assert load_manifest(MODEL).fusion is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "fusion.onnx is corrupt"),
        ({"onnx": "../fusion.onnx"}, "onnx must be the plain name"),
        ({"inputs": {}}, "inputs must be a mapping"),
        ({"inputs": {"means": {"shape": [1, 20, 3], "dtype": "float32"}}}, "fusion.inputs are means, but must be"),
        ({"outputs": {"fused_means": {"shape": [1, 20, 3], "dtype": "float32"}}}, "fusion.outputs are fused_means"),
        ({"colour": "blue"}, "fusion has the unknown key 'colour'"),
    ],
)
def test_a_wrong_fusion_gets_one_sentence(fusing, change, message):
    folder, tree = fusing
    write_tree(folder, {**tree, "fusion": {**tree["fusion"], **change}})
    with pytest.raises(ValueError, match=message) as caught:
        load_manifest(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_the_shapes_of_a_fusion_are_those_of_the_model(fusing):
    folder, tree = fusing
    tree["fusion"]["inputs"]["history"]["shape"] = [1, 20, 5]
    write_tree(folder, tree)
    with pytest.raises(ValueError, match="fusion.inputs.history has shape .*1, 20, 5"):
        load_manifest(folder)
    for spec in (*tree["fusion"]["inputs"].values(), *tree["fusion"]["outputs"].values()):
        spec["shape"][1] = 0 if spec["shape"][1] == 20 else spec["shape"][1]
    write_tree(folder, tree)
    with pytest.raises(ValueError, match="takes no Gaussians at a time"):
        load_manifest(folder)
    (folder / "fusion.onnx").unlink()
    write_tree(folder, {**tree, "fusion": None})
    with pytest.raises(ValueError, match="fusion must be a mapping"):
        load_manifest(folder)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 2000, id="nested too deep"),
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b"- a", id="a list"),
        pytest.param(b"a: !!timestamp x", id="a bad timestamp"),
        pytest.param(b"a: [", id="unclosed"),
        pytest.param(b"x: 1\n" * 20_000, id="too long"),
        pytest.param(b"schema_version: 0x" + b"f" * 9000, id="a huge number"),
    ],
)
def test_text_that_is_no_manifest_is_refused(folder, content):
    (folder / "manifest.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.yaml"):
        load_manifest(folder)


@pytest.mark.fuzz
@settings(max_examples=150 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_garbage_never_raises_anything_else(folder, content):
    (folder / "manifest.yaml").write_bytes(content)
    with pytest.raises(ValueError):
        load_manifest(folder)


scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=6
)


@pytest.mark.fuzz
@settings(max_examples=200 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_with_any_value_replaced_is_read_or_refused(folder, monkeypatch, data):
    tree = copy.deepcopy(TREE)
    inner = data.draw(st.sampled_from([tree, tree["image"], tree["inputs"], tree["outputs"]["means"]]))
    key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(values)
    try:
        # Given as parsed: some of these values cannot be written as YAML.
        with monkeypatch.context() as patch:
            patch.setattr(yaml, "safe_load", lambda text: tree)
            manifest = load_manifest(folder)
    except (ValueError, FileNotFoundError) as error:
        assert 0 < len(str(error)) < 1000 and len(str(error).splitlines()) == 1
    else:
        texts = {"name", "description", "trained_on", "licence"}
        assert key in texts | {"resolution_m", "semantic", "depth_sigma_m", "mean", "std"} or tree == TREE
        assert manifest.resolution_m == tree["resolution_m"] > 0
        assert min(manifest.image_std) > 0 and np.isfinite(manifest.image_mean).all()


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, 69_000])
def test_a_truncated_onnx_file_is_refused_by_the_engine(folder, kept):
    replace_onnx(folder, (MODEL / "expert.onnx").read_bytes()[:kept])
    manifest = load_manifest(folder)
    with pytest.raises(ValueError, match=r"(onnxruntime cannot load|puts of) .*expert\.onnx.*again"):
        load_engine(manifest)


def test_bytes_that_are_no_onnx_file_are_refused_by_the_engine(folder):
    replace_onnx(folder, np.random.default_rng(0).bytes(4096))
    with pytest.raises(ValueError, match="onnxruntime cannot load"):
        load_engine(load_manifest(folder))


def test_an_onnx_file_that_is_not_what_its_manifest_says_is_refused(folder):
    model = onnx.load(MODEL / "expert.onnx")
    tree = copy.deepcopy(TREE)
    tree["feature_size"], tree["outputs"]["features"]["shape"] = 7, [1, 300, 7]  # consistent, but not the network's
    write_tree(folder, tree)
    with pytest.raises(ValueError, match=r"outputs of .*300, 8.* its manifest declares .*300, 7"):
        load_engine(load_manifest(folder))
    write_tree(folder, TREE)
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE
    replace_onnx(folder, model.SerializeToString())
    with pytest.raises(ValueError, match=r"expert\.onnx"):
        load_engine(load_manifest(folder))
    model = onnx.load(MODEL / "expert.onnx")
    del model.graph.output[-1]
    replace_onnx(folder, model.SerializeToString())
    with pytest.raises(ValueError, match="outputs of .* its manifest declares .*features"):
        load_engine(load_manifest(folder))


def test_an_unknown_engine_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="no engine 'openvino' here: use onnxruntime or tensorrt"):
        load_engine(load_manifest(MODEL), "openvino")
    with pytest.raises(ValueError, match="at least 1 thread, not 0"):
        load_engine(load_manifest(MODEL), threads=0)


def test_inputs_of_another_name_shape_or_dtype_are_refused():
    manifest = load_manifest(MODEL)
    engine = load_engine(manifest)
    inputs = random_inputs(manifest, 0)
    with pytest.raises(ValueError, match="takes image, intrinsics, sensor_depth, not image"):
        engine.infer({"image": inputs["image"]})
    with pytest.raises(ValueError, match=r"takes image as float32 of shape \(1, 3, 120, 160\), not float64"):
        engine.infer({**inputs, "image": inputs["image"].astype(np.float64)})
    with pytest.raises(ValueError, match=r"takes intrinsics .* not float32 of shape \(4,\)"):
        engine.infer({**inputs, "intrinsics": inputs["intrinsics"][0]})


def test_the_engine_repeats_itself_and_threads_change_nothing():
    manifest = load_manifest(MODEL)
    one, two = load_engine(manifest, threads=1), load_engine(manifest, threads=2)
    for seed in range(3):
        inputs = random_inputs(manifest, seed)
        first, again = one.infer(inputs), one.infer(inputs)
        assert list(first) == list(manifest.outputs)
        for name, spec in manifest.outputs.items():
            assert first[name].shape == spec.shape and first[name].dtype == np.float32
            assert np.array_equal(first[name], again[name])
            np.testing.assert_allclose(two.infer(inputs)[name], first[name], rtol=1e-5, atol=1e-5)
    assert np.abs(one.infer(random_inputs(manifest, 8))["logits"] - first["logits"]).max() > 0.1


def test_the_random_model_is_what_its_tool_makes(tool, tmp_path):
    tool.write_model(tmp_path / "made", seed=0)
    made, committed = tmp_path / "made" / "expert.onnx", MODEL / "expert.onnx"
    # Equal graphs first: where they differ this says so, where only the bytes do it is another protobuf.
    assert onnx.load(made) == onnx.load(committed)
    assert made.read_bytes() == committed.read_bytes()
    assert tree_of(tmp_path / "made") == TREE
    tool.write_model(tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "expert.onnx").read_bytes() != committed.read_bytes()


def test_the_random_model_is_small_static_and_uses_portable_operators():
    model = onnx.load(MODEL / "expert.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {node.op_type for node in model.graph.node} <= ALLOWED_OPERATORS
    for value in [*model.graph.input, *model.graph.output]:
        assert all(dimension.dim_value > 0 for dimension in value.type.tensor_type.shape.dim)
    assert (MODEL / "expert.onnx").stat().st_size < 300_000
