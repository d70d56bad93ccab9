"""Export: what is written is what was trained, runs without torch, and holds nothing that a robot's engine refuses."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from sgrocc.experts import Frame  # noqa: E402
from sgrocc.experts.learned import LearnedExpert  # noqa: E402
from sgrocc.export.lint import problems_of  # noqa: E402
from sgrocc.export.onnx_export import FUSION_COUNT, _frame, export, to_onnx  # noqa: E402
from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.geometry import PinholeCamera  # noqa: E402
from sgrocc.inference.engine import load_engine  # noqa: E402
from sgrocc.inference.manifest import load_manifest  # noqa: E402
from sgrocc.memory.learned_fusion import LearnedFusion  # noqa: E402
from sgrocc.memory.recall import history_size  # noqa: E402
from sgrocc.model.anchors import AnchorConfig  # noqa: E402
from sgrocc.model.lifting import LiftingConfig  # noqa: E402
from sgrocc.model.rays import unit  # noqa: E402
from sgrocc.model.refinement import RefinementConfig  # noqa: E402
from sgrocc.model.rotations import normalised  # noqa: E402
from sgrocc.model.spatial_expert import ExpertConfig, SpatialExpert  # noqa: E402
from sgrocc.model.temporal_fusion import TemporalFusion  # noqa: E402
from sgrocc.training.torch_expert import TorchFusion, learned_expert  # noqa: E402

#: Radius in pixels, and turn in fifths of a circle, of the rings in which sampling points begin.
RINGS = ((5, 0.0), (10, 0.5), (15, 1.0))
SMALL = {"width": 64, "height": 48, "channels": 16, "blocks": 1}
DETAILS = {"description": "a test", "trained_on": "nothing", "depth_sigma_m": (0.1, 0.05)}


def small_expert(**change) -> SpatialExpert:
    """An untrained expert whose heads do something."""
    torch.manual_seed(0)
    settings = {"anchors": AnchorConfig(stride=16, offsets_m=(0.0, 0.2, 0.6)), **SMALL, **change}
    expert = SpatialExpert(ExpertConfig(**settings), imagenet=False)
    for block in expert.blocks:
        torch.nn.init.normal_(block.refinement.head.weight, std=0.3)
        torch.nn.init.normal_(block.lifting.weights.weight, std=0.3)
    return expert.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    expert = small_expert()
    folder = tmp_path_factory.mktemp("models") / "small"
    difference = export(expert, folder, name="small", **DETAILS)
    return expert, folder, difference


def frame(seed: int, with_depth: bool) -> Frame:
    random = np.random.default_rng(seed)
    image = np.kron(random.integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    depth = np.where(random.random((120, 160)) < 0.4, 0.0, 2.0).astype(np.float32)
    return Frame(image, PinholeCamera(160, 120, 130.0, 128.0, 77.0, 62.0), depth if with_depth else None)


@pytest.mark.parametrize("with_depth", [False, True])
def test_the_file_gives_what_torch_gives(exported, with_depth):
    expert, folder, difference = exported
    manifest = load_manifest(folder)
    ours = LearnedExpert(manifest, load_engine(manifest), use_sensor_depth=with_depth)(frame(1, with_depth))
    theirs = learned_expert(expert, use_sensor_depth=with_depth)(frame(1, with_depth))
    assert difference < 1e-4
    np.testing.assert_allclose(ours.depth, theirs.depth, rtol=1e-4)
    assert len(ours.gaussians) == len(theirs.gaussians) == 4 * 3 * 3
    for name, array in ours.gaussians.arrays().items():
        np.testing.assert_allclose(array, getattr(theirs.gaussians, name), atol=1e-3, err_msg=name)
    assert ours.gates.shape == (3, 4) and ours.gates.dtype == np.float32
    np.testing.assert_allclose(ours.gates, theirs.gates, atol=1e-5)


def test_the_gates_are_low_beside_a_step_in_depth_and_one_on_a_wall(exported):
    manifest = load_manifest(exported[1])
    ours = LearnedExpert(manifest, load_engine(manifest), use_sensor_depth=True)
    theirs = learned_expert(exported[0], use_sensor_depth=True)

    def gates_of(step_m: float) -> np.ndarray:
        """Of a wall at 2 m whose right half is so much further away; the rays are at columns 8, 24, 40 and 56."""
        depth = np.full((120, 160), 2.0, np.float32)
        depth[:, 80:] += step_m
        shown = replace(frame(1, True), depth=depth)
        np.testing.assert_allclose(ours(shown).gates, theirs(shown).gates, atol=1e-5)
        return ours(shown).gates

    np.testing.assert_allclose(gates_of(0.0), 1, atol=1e-4)
    high, low = gates_of(2.0), gates_of(0.1)
    # The points of an untrained expert lie within 15 pixels: of the rays 8 pixels beside the step some are across it.
    np.testing.assert_allclose(high[:, [0, 3]], 1, atol=1e-4)
    points = np.stack([radius * np.cos(2 * np.pi * (np.arange(5) + turn) / 5) for radius, turn in RINGS]).ravel()
    across = (points > 8).sum() / 16  # the 16th is the ray's own pixel
    np.testing.assert_allclose(high[:, 1], 1 - across, atol=0.03)
    np.testing.assert_allclose(high[:, 2], 1 - across, atol=0.06)
    # A step well within the tolerance shuts nothing out.
    assert 0.98 < low[:, 1:3].min() and low[:, 1:3].max() < 0.999


def test_gates_are_those_of_the_image_and_of_surfaces_whatever_the_anchors_do():
    shown = _frame(48, 64)
    rays = {"stride": 16, "offsets_m": (0.0, 0.2, 0.6)}
    with torch.no_grad():
        plain, wide, free, hard, other = (
            small_expert(**change)(*shown).gates
            for change in (
                {},
                {"anchors": AnchorConfig(**rays, margin=1)},
                {"refinement": RefinementConfig(move="free")},
                {"lifting": LiftingConfig(gate="hard")},
                {"lifting": LiftingConfig(gate="none")},
            )
        )
    assert plain.shape == (1, 3, 4) and 0 < plain.min() and plain.max() < 1
    # On the image, rays look at the same pixels with a margin and without, and as untrained each anchor does alone.
    torch.testing.assert_close(wide, plain)
    torch.testing.assert_close(free, plain)
    assert not torch.allclose(hard, plain) and ((16 * hard).round() - 16 * hard).abs().max() < 1e-5
    assert other is None and not plain.requires_grad


def test_a_model_without_a_gate_has_no_such_output(tmp_path):
    export(small_expert(lifting=LiftingConfig(gate="none")), tmp_path / "open", name="open", **DETAILS)
    manifest = load_manifest(tmp_path / "open")
    assert list(manifest.outputs)[-1] == "features"
    assert LearnedExpert(manifest, load_engine(manifest))(frame(1, False)).gates is None


def test_one_and_two_threads_give_the_same_bits_every_time(exported):
    manifest = load_manifest(exported[1])
    shown = frame(2, True)
    first = LearnedExpert(manifest, load_engine(manifest), use_sensor_depth=True)(shown).gaussians.arrays()
    for threads in (1, 2, 2, 2, 2):
        again = LearnedExpert(manifest, load_engine(manifest, threads=threads), True)(shown).gaussians.arrays()
        for name, array in again.items():
            np.testing.assert_allclose(array, first[name], atol=1e-5)


@pytest.fixture(scope="module")
def with_fusion(tmp_path_factory):
    """(fusion whose head does something, folder of the model)."""
    expert = small_expert()
    fusion = TemporalFusion(SMALL["channels"]).eval()
    for layer in (fusion.refinement.head, fusion.fusion.history):
        torch.nn.init.normal_(layer.weight, std=0.1)
    folder = tmp_path_factory.mktemp("models") / "fusing"
    assert export(expert, folder, fusion, name="fusing", **DETAILS) < 1e-4
    return fusion, folder


def remembered(count: int) -> tuple[Gaussians, np.ndarray]:
    """Gaussians before the camera, most of them outside its image, and their history."""
    random = np.random.default_rng(count)
    means = np.stack([random.normal(0, 3, count), random.normal(0, 3, count), random.uniform(0.4, 4, count)], axis=1)
    rotations = random.normal(size=(count, 4))
    rotations /= np.linalg.norm(rotations, axis=1, keepdims=True)
    opacities = random.uniform(0, 1, count)
    opacities[: count // 10] = 1.0
    features = random.normal(size=(count, SMALL["channels"]))
    logits, scales = random.normal(size=(count, 11)), random.uniform(0.01, 0.16, (count, 3))
    history = random.normal(size=(count, history_size(SMALL["channels"]))).astype(np.float32)
    return Gaussians(means, scales, rotations, opacities, logits, features), history


@pytest.mark.parametrize("count", [0, 1, FUSION_COUNT, FUSION_COUNT + 300])
@pytest.mark.parametrize("size", [(64, 48), (160, 120)])
def test_the_exported_fusion_gives_what_torch_gives_for_any_number_of_gaussians(with_fusion, count, size):
    network = load_manifest(with_fusion[1]).fusion
    width, height = size
    camera = PinholeCamera(width, height, 0.9 * width, 0.9 * width, 0.48 * width, 0.52 * height)
    depth = np.full((height, width), 2.0, np.float32)
    depth[:, : width // 2] = 0.0
    gaussians, history = remembered(count)
    ours = LearnedFusion(network, load_engine(network))(gaussians, history, depth, camera)
    resized = np.full((48, 64), 2.0, np.float32)
    resized[:, :32] = 0.0
    theirs = TorchFusion(with_fusion[0])(gaussians, history, resized, camera.resized(64, 48))
    assert len(ours) == count and (count == 0 or np.abs(ours.means - gaussians.means).max() > 0.02)
    for name, array in ours.arrays().items():
        np.testing.assert_allclose(array, getattr(theirs, name), atol=2e-4, err_msg=name)


def test_a_fusion_of_another_model_says_so(with_fusion):
    network = load_manifest(with_fusion[1]).fusion
    fusion = LearnedFusion(network, load_engine(network))
    gaussians, history = remembered(5)
    others = Gaussians(*(a if name != "features" else a[:, :8] for name, a in gaussians.arrays().items()))
    with pytest.raises(ValueError, match="8 numbers and those of fusing .fusion. 16: set fusion to none"):
        fusion(others, history, np.zeros((48, 64), np.float32), PinholeCamera(64, 48, 60.0, 60.0, 32.0, 24.0))


def test_directions_of_no_length_stay_finite_on_a_robot():
    class Directions(torch.nn.Module):
        def forward(self, vectors, turns):
            return unit(vectors), normalised(turns)

    vectors, turns = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]]), torch.tensor([[0.0] * 4, [0.0, 2.0, 0.0, 0.0]])
    content = to_onnx(Directions(), (vectors, turns), ["vectors", "turns"], ["units", "rotations"])
    session = pytest.importorskip("onnxruntime").InferenceSession(content)
    units, rotations = session.run(None, {"vectors": vectors.numpy(), "turns": turns.numpy()})
    np.testing.assert_allclose(units, [[0, 0, 0], [0.6, 0, 0.8]], atol=1e-6)
    np.testing.assert_allclose(rotations, [[0] * 4, [0, 1, 0, 0]], atol=1e-6)


def test_the_manifest_says_what_the_model_is(exported):
    manifest = load_manifest(exported[1])
    assert (manifest.image_width, manifest.image_height, manifest.feature_size) == (64, 48, 16)
    assert manifest.depth_sigma_m == (0.1, 0.05) and manifest.takes_depth and manifest.semantic
    assert manifest.image_mean == (0.5, 0.5, 0.5)


def test_no_path_of_the_machine_goes_into_the_file(exported):
    content = (exported[1] / "expert.onnx").read_bytes()
    assert b"sgrocc/model" not in content and b"site-packages" not in content


def test_what_a_robot_cannot_run_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="random anchors"):
        export(small_expert(anchors=AnchorConfig(kind="random", count=50)), tmp_path, name="x", **DETAILS)
    with pytest.raises(ValueError, match="decoupled"):
        export(small_expert(aggregation="additive"), tmp_path, name="x", **DETAILS)
    assert not list(tmp_path.iterdir())


class Scatter(torch.nn.Module):
    def forward(self, x):
        return torch.zeros(4).index_add(0, torch.tensor([0, 1, 1]), x)


def test_a_scatter_is_refused_by_name():
    with pytest.raises(ValueError, match="Scatter"):
        to_onnx(Scatter().eval(), (torch.ones(3),), ["x"], ["y"])


def test_another_opset_a_wrong_mode_and_a_dynamic_shape_are_named():
    nodes = [helper.make_node("GridSample", ["x", "g"], ["y"], mode="nearest")]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", 4]),
        helper.make_tensor_value_info("g", TensorProto.FLOAT, [1, 2, 2, 2]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])]
    graph = helper.make_graph(nodes, "wrong", inputs, outputs)
    problems = problems_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert problems == [
        "GridSample has the mode nearest instead of bilinear",
        "its opset is 20 instead of 18",
        "x has no static shape",
    ]


def test_an_answer_that_differs_from_torchs_is_not_written(tmp_path, monkeypatch):
    from sgrocc.export import onnx_export

    real = onnx_export.load_engine

    class Off:
        """With two threads, and only when asked again, a little off: as a data race would be."""

        def __init__(self, network, threads):
            self.engine, self.asked, self.threads = real(network, threads=threads), 0, threads

        def infer(self, inputs):
            self.asked += 1
            answer = self.engine.infer(inputs)
            return answer | {"means": answer["means"] * (1 + 2e-4 * (self.threads == 2 and self.asked == 2))}

    monkeypatch.setattr(onnx_export, "load_engine", lambda network, threads=1: Off(network, threads))
    with pytest.raises(ValueError, match="onnxruntime's means differs from torch's by 0.0002 of its largest value"):
        export(small_expert(), tmp_path / "model", name="small", **DETAILS)
    assert not (tmp_path / "model").exists()


def test_a_network_that_hangs_on_its_last_bits_cannot_be_compared(tmp_path, monkeypatch):
    from sgrocc.export import onnx_export

    real = onnx_export._Contract.forward

    def forward(self, image, intrinsics, sensor_depth):
        depth, *others = real(self, image, intrinsics, sensor_depth)
        return (depth + torch.sin(1e8 * image.sum()), *others)

    monkeypatch.setattr(onnx_export._Contract, "forward", forward)
    monkeypatch.setattr(onnx_export, "problems_of", lambda model: [])
    monkeypatch.setattr(onnx_export, "_MOST_TRIES", 5)
    with pytest.raises(ValueError, match="hang on their last bits in 5 of 5 examples"):
        export(small_expert(), tmp_path / "model", name="small", **DETAILS)
    assert not (tmp_path / "model").exists()


def test_a_model_brings_golden_answers_of_both_networks(with_fusion):
    from sgrocc.inference.golden import golden_differences

    manifest = load_manifest(with_fusion[1])
    for part, network in manifest.networks().items():
        differences = golden_differences(manifest, part, load_engine(network))
        assert set(differences) == set(network.outputs) and max(differences.values()) < 1e-4
