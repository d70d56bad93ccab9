"""The model that comes with the package, on the recording that comes with it: a test scene that it never saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scenes import random_gaussians

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.recording_score import depth_figures
from sgrocc.experts import Frame
from sgrocc.experts.learned import network_inputs, resized_depth
from sgrocc.inference.engine import load_engine
from sgrocc.inference.manifest import load_manifest
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.recall import history_size
from sgrocc.memory.voxels import VoxelMap
from sgrocc.resources import find_model
from sgrocc_ros import parameters

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDING, CHECKPOINT = REPOSITORY / "recordings" / "synth_test_0000", REPOSITORY / "checkpoints" / "compact.pt"
EVERY = 6


@pytest.fixture(scope="module")
def sequence():
    return PosedRgbdSequence(RECORDING)


def mapped(sequence, **given) -> Occupancy:
    values = parameters.complete(given)
    expert, memory, voxels = (
        parameters.make_expert(values),
        GaussianMemory(parameters.memory_config(values), parameters.make_fusion(values)),
        VoxelMap(),
    )
    for index in range(0, len(sequence), EVERY):
        frame = sequence.frame(index)
        voxels.apply(memory.fuse(expert(Frame(frame.image, sequence.camera, frame.depth)), frame.pose))
    known = voxels.known()
    return Occupancy.from_voxels(known.indices, known.labels, known.probabilities, 0.08, "odom")


@pytest.fixture(scope="module")
def truth(sequence):
    """The exact truth, where the frames that are mapped see: what lies beyond is guessed, and not judged here."""
    exact = Occupancy.load(RECORDING / "truth.npz")
    seen = mapped(sequence, expert="geometric").resampled_to(exact.grid).labels != 255
    return replace(exact, labels=np.where(seen, exact.labels, 255).astype(np.uint8))


def test_it_is_small_enough_to_come_along():
    folder = find_model("compact")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    assert (folder / "README.md").read_text().startswith("# compact")


def test_its_checkpoint_is_the_same_network(sequence):
    """What can be trained on is what runs on a robot."""
    pytest.importorskip("torch")
    from sgrocc.training.torch_expert import TorchEngine, load_expert

    folder = find_model("compact")
    manifest = load_manifest(folder)
    frame = sequence.frame(40)
    inputs = network_inputs(
        Frame(frame.image, sequence.camera, frame.depth), 320, 240, manifest.image_mean, manifest.image_std
    )
    config = manifest.training["config"]
    expert = load_expert(CHECKPOINT, config["anchors"]["stride"], config["lifting"]["reading"])
    found = TorchEngine(expert).infer(inputs)
    wanted = load_engine(manifest).infer(inputs)
    assert set(found) == set(wanted) and CHECKPOINT.stat().st_size < 20e6
    for name, array in wanted.items():
        assert array.std() > 0.01
        # What lies on the border of two cells of a map may be read from either.
        close = np.isclose(found[name], array, rtol=0, atol=1e-4 * np.abs(array).max())
        assert close.mean() > 0.98, f"{name}: {close.mean()}"


def test_its_gates_show_the_edges_of_depth(sequence):
    """Through the expert of the nodes, beside a sensor: low where the points of a ray reach across an edge."""
    frame = sequence.frame(40)
    shown = Frame(frame.image, sequence.camera, frame.depth)
    gates = parameters.make_expert(parameters.complete({}))(shown).gates
    assert gates.shape == (24, 32) and gates.dtype == np.float32
    assert parameters.make_expert(parameters.complete({"expert": "geometric"}))(shown).gates is None
    depth = np.pad(resized_depth(frame.depth, 320, 240), 16, mode="edge")
    around = sliding_window_view(depth, (33, 33))[5::10, 5::10]
    # How much what was measured changes within 16 pixels; at edges a sensor has holes.
    change_m = around.max(axis=(2, 3)) - np.where(around > 0, around, np.inf).min(axis=(2, 3))
    beside, even = gates[change_m > 1.0], gates[change_m < 0.15]
    assert len(beside) > 50 and len(even) > 100
    assert np.median(beside) < 0.8 and np.median(even) > 0.98 and np.quantile(even, 0.05) > 0.95
    assert np.corrcoef(gates.ravel(), change_m.ravel())[0, 1] < -0.7


def test_its_fusion_is_that_of_its_checkpoint(sequence):
    pytest.importorskip("torch")
    from sgrocc.training.torch_expert import TorchFusion, load_fusion

    rng, camera = np.random.default_rng(0), sequence.camera
    gaussians = random_gaussians(rng, 3000, 1.0, features=64)
    gaussians = replace(gaussians, means=gaussians.means + np.array([0, 0, 3], np.float32))
    history = rng.random((3000, history_size(64)), np.float32)
    depth = np.full((camera.height, camera.width), 3.0, np.float32)
    learned = parameters.make_fusion(parameters.complete({}))
    found = learned(gaussians, history, depth, camera)
    small = camera.resized(320, 240)
    wanted = TorchFusion(load_fusion(CHECKPOINT))(gaussians, history, np.full((240, 320), 3.0, np.float32), small)
    for name, array in found.arrays().items():
        np.testing.assert_allclose(array, getattr(wanted, name), atol=1e-3, err_msg=name)
    moved = np.linalg.norm(found.means - gaussians.means, axis=1)
    held = np.abs(gaussians.means[:, 2] - 3) < 0.09
    assert moved[held].max() < 1e-4 and moved.max() > 0.02
    np.testing.assert_allclose(found.logits, gaussians.logits, atol=1e-5)


@pytest.mark.parametrize("depth_source", ["topic", "network"])
def test_its_memory_is_better_for_what_it_learned(sequence, truth, depth_source):
    learned, plain = (
        score(mapped(sequence, depth_source=depth_source, fusion=fusion), truth) for fusion in ("learned", "none")
    )
    assert learned["sc_iou"] > plain["sc_iou"] - 1e-3
    assert learned["miou"] > plain["miou"]


def test_with_a_sensor_the_map_is_as_exact_as_without_a_network_and_has_classes(sequence, truth):
    scores = score(mapped(sequence), truth)
    without = score(mapped(sequence, expert="geometric"), truth)
    assert scores["sc_iou"] >= without["sc_iou"] - 0.005
    assert scores["miou"] > 0.15
    assert scores["per_class"]["floor"] > 0.6 and scores["per_class"]["wall"] > 0.4


def test_without_a_sensor_there_is_a_map_too(sequence, truth):
    scores = score(mapped(sequence, depth_source="network"), truth)
    assert scores["sc_iou"] > 0.2 and scores["miou"] > 0.05


def test_its_own_depth_knows_near_from_far(sequence):
    class Some:
        camera = sequence.camera

        def __iter__(self):
            return (sequence.frame(index) for index in range(0, len(sequence), EVERY))

    figures = depth_figures(parameters.make_expert(parameters.complete({"depth_source": "network"})), Some())
    flat = []
    for frame in Some():
        depth = frame.depth[(frame.depth >= 0.3) & (frame.depth <= 8.0)]
        flat.append(np.mean(np.abs(np.median(depth) - depth) / depth))
    assert figures["raw"]["abs_rel"] < 0.45
    assert figures["aligned"]["abs_rel"] < 0.8 * np.mean(flat)
