"""The learned expert: any image size in, Gaussians on the right rays out, sensor depth where there is some."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrocc.experts import Frame
from sgrocc.experts.learned import LearnedExpert
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M
from sgrocc.geometry import PinholeCamera
from sgrocc.inference.engine import load_engine
from sgrocc.inference.manifest import load_manifest

MANIFEST = load_manifest(Path(__file__).resolve().parent.parent / "models" / "random_expert")
ENGINE = load_engine(MANIFEST)
NETWORK = LearnedExpert(MANIFEST, ENGINE)
SENSOR = LearnedExpert(MANIFEST, ENGINE, use_sensor_depth=True)
WIDTH, HEIGHT, STRIDE = 160, 120, 8


class ScriptedEngine:
    """Answers with ones, except for what a test sets; remembers what it was asked."""

    def __init__(self, **outputs):
        self.outputs = {name: np.ones(spec.shape, np.float32) for name, spec in MANIFEST.outputs.items()}
        for name, value in outputs.items():
            self.outputs[name][:] = value

    def infer(self, inputs):
        self.inputs = inputs
        return {name: array.copy() for name, array in self.outputs.items()}


def frame_of(width, height, seed=0, depth=None, fx=None):
    """A random image with structure, and a camera whose centre is not the image's."""
    random = np.random.default_rng(seed)
    tiles = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = np.repeat(np.repeat(tiles, 8, axis=0), 8, axis=1)[:height, :width]
    camera = PinholeCamera(width, height, fx or 0.8 * width, 0.9 * height, 0.47 * width, 0.55 * height)
    return Frame(image, camera, depth)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 500),
    focal=st.floats(0.4, 3.0),
    seed=st.integers(0, 1000),
    with_depth=st.booleans(),
)
def test_a_mean_projects_back_into_the_cell_it_came_from(width, height, focal, seed, with_depth):
    frame = frame_of(width, height, seed, fx=focal * width)
    if with_depth:
        frame = dataclasses.replace(frame, depth=np.full((height, width), 3.0, np.float32))
    gaussians = (SENSOR if with_depth else NETWORK)(frame).gaussians
    # In pixels of the frame's own image, with the frame's own camera: the resize must not shift anything.
    pixels, z = frame.camera.project(gaussians.means.astype(np.float64))
    assert (z > 0).all()
    cell = np.stack(np.meshgrid(np.arange(WIDTH // STRIDE), np.arange(HEIGHT // STRIDE)), axis=-1).reshape(-1, 2)
    size = np.array([STRIDE * width / WIDTH, STRIDE * height / HEIGHT])
    within = (pixels + 0.5) / size - cell
    assert within.min() > -1e-3 and within.max() < 1 + 1e-3


def test_the_prediction_is_usable_and_has_the_networks_size():
    prediction = NETWORK(frame_of(641, 479))
    gaussians = prediction.gaussians
    assert prediction.depth.shape == (HEIGHT, WIDTH) and prediction.depth.dtype == np.float32
    assert prediction.depth.min() >= 0.5 and prediction.depth.max() <= 5.0
    assert prediction.camera == frame_of(641, 479).camera.resized(WIDTH, HEIGHT)
    assert prediction.semantic is True and prediction.depth_sigma_m == (0.1, 0.05)
    assert len(gaussians) == 300 and gaussians.features.shape == (300, 8) and gaussians.finite().all()
    # The depth under a mean's pixel is the mean's depth: both come from the same cell.
    pixels, z = prediction.camera.project(gaussians.means)
    rows, columns, inside = prediction.camera.pixel_index(pixels)
    assert inside.all()
    assert np.ptp((pixels + 0.5) % STRIDE, axis=0).min() > 2  # they do move inside their cells
    np.testing.assert_allclose(prediction.depth[rows, columns], z, rtol=1e-5)


def test_another_image_gives_another_answer_and_the_same_one_the_same():
    first, again, other = NETWORK(frame_of(320, 240, 1)), NETWORK(frame_of(320, 240, 1)), NETWORK(frame_of(320, 240, 2))
    assert np.array_equal(first.gaussians.logits, again.gaussians.logits)
    assert np.array_equal(first.depth, again.depth)
    assert np.abs(first.gaussians.logits - other.gaussians.logits).max() > 0.1


def test_the_network_gets_the_normalised_image_and_the_scaled_intrinsics():
    engine = ScriptedEngine()
    expert = LearnedExpert(MANIFEST, engine)
    image = np.zeros((240, 320, 3), np.uint8)
    image[...] = (255, 51, 0)
    expert(Frame(image, PinholeCamera(320, 240, 300, 310, 159.5, 119.5)))
    expected = (np.array([1.0, 0.2, 0.0]) - MANIFEST.image_mean) / MANIFEST.image_std
    np.testing.assert_allclose(engine.inputs["image"][0].mean(axis=(1, 2)), expected, rtol=1e-4)
    assert np.ptp(engine.inputs["image"][0], axis=(1, 2)).max() < 1e-5
    np.testing.assert_allclose(engine.inputs["intrinsics"], [[150, 155, 79.5, 59.5]], rtol=1e-6)
    assert {name: a.dtype for name, a in engine.inputs.items()} == dict.fromkeys(MANIFEST.inputs, np.float32)
    assert not engine.inputs["sensor_depth"].any()


def test_the_resized_image_is_neither_turned_nor_shifted():
    engine = ScriptedEngine()
    expert = LearnedExpert(MANIFEST, engine)
    image = np.zeros((240, 320, 3), np.uint8)
    image[:100, :60] = 255  # the top left 50 rows and 30 columns at half the size
    expert(Frame(image, PinholeCamera(320, 240, 300, 300, 160, 120)))
    bright = engine.inputs["image"][0, 0] > 0
    rows, columns = np.nonzero(bright)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 49, 0, 29)
    assert bright.sum() == 50 * 30


def test_sensor_depth_stands_where_it_is_valid_and_the_network_fills_the_holes():
    random = np.random.default_rng(3)
    depth = random.uniform(0.6, 4.5, (HEIGHT, WIDTH)).astype(np.float32)
    holes = random.random((HEIGHT, WIDTH)) < 0.4
    depth[holes] = random.choice(np.array([0, -1, np.nan, np.inf, -np.inf], np.float32), holes.sum())
    frame = frame_of(640, 480, depth=depth)
    prediction, own = SENSOR(frame), NETWORK(frame)
    assert np.array_equal(prediction.depth[~holes], depth[~holes])
    np.testing.assert_allclose(prediction.depth[holes], own.depth[holes], rtol=1e-6)
    # The Gaussians follow: each lies at the depth of the centre of its cell.
    anchors = prediction.depth[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].reshape(-1)
    np.testing.assert_allclose(prediction.gaussians.means[:, 2], anchors, rtol=1e-6)
    assert np.abs(prediction.gaussians.means[:, 2] - own.gaussians.means[:, 2]).max() > 0.5
    assert np.isfinite(prediction.depth).all()


def test_sensor_depth_of_another_size_is_taken_at_the_nearest_pixel():
    depth = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    predicted = SENSOR(frame_of(97, 61, depth=depth)).depth
    # 160 columns on 3: the edges are at 53.3 and 106.7, between the pixel centres 52.5, 53.5 and 106.5, 107.5.
    columns = np.repeat([0, 1, 2], [53, 54, 53])
    assert np.array_equal(predicted, depth[np.repeat([0, 1], 60)][:, columns])


def test_the_depth_source_is_what_was_asked_for():
    frame = frame_of(320, 240, depth=np.full((240, 320), 1.5, np.float32))
    assert NETWORK.depth_source == "network" and SENSOR.depth_source == "topic"
    assert np.array_equal(SENSOR(frame).depth, np.full((HEIGHT, WIDTH), 1.5, np.float32))
    without = dataclasses.replace(frame, depth=None)
    assert np.array_equal(NETWORK(frame).depth, NETWORK(without).depth)
    with pytest.raises(ValueError, match="no sensor depth: connect a depth image or set depth_source to network"):
        SENSOR(without)
    with pytest.raises(ValueError, match=r"depth image has shape \(240, 320, 1\)"):
        SENSOR(dataclasses.replace(frame, depth=frame.depth[..., None]))


def test_a_model_without_depth_input_refuses_sensor_depth_and_runs_without():
    manifest = dataclasses.replace(MANIFEST, takes_depth=False)
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match="random_expert has no depth input: set depth_source to network"):
        LearnedExpert(manifest, engine, use_sensor_depth=True)
    LearnedExpert(manifest, engine)(frame_of(320, 240))
    assert set(engine.inputs) == {"image", "intrinsics"}


@pytest.mark.parametrize("name", list(MANIFEST.outputs))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_refused(name, value):
    engine = ScriptedEngine()
    expert = LearnedExpert(MANIFEST, engine)
    engine.outputs[name].reshape(-1)[-1] = value
    with pytest.raises(ValueError, match=f"model random_expert answered with NaN or infinity in its {name}"):
        expert(frame_of(320, 240))
    with pytest.raises(ValueError, match="random_expert answered with NaN"):  # at the start, before any frame
        LearnedExpert(MANIFEST, engine)


def test_outputs_out_of_bounds_are_brought_within():
    random = np.random.default_rng(5)
    rotations = random.normal(size=(1, 300, 4)) * random.uniform(0.01, 100, (1, 300, 1))
    rotations[0, 7] = 0
    scales = random.uniform(-1, 1, (1, 300, 3))
    opacities = random.uniform(-2, 3, (1, 300))
    engine = ScriptedEngine(rotations=rotations, scales=scales, opacities=opacities, depth=-1)
    prediction = LearnedExpert(MANIFEST, engine)(frame_of(320, 240))
    gaussians = prediction.gaussians
    assert gaussians.finite().all()
    np.testing.assert_allclose(gaussians.scales, np.clip(scales[0], MIN_SCALE_M, MAX_SCALE_M), rtol=1e-6)
    np.testing.assert_allclose(gaussians.opacities, np.clip(opacities[0], 0, 1), rtol=1e-6)
    assert np.array_equal(gaussians.rotations[7], [1, 0, 0, 0])
    kept = np.arange(300) != 7
    along = (gaussians.rotations * rotations[0]).sum(axis=1) / np.linalg.norm(rotations[0] + 1e-30, axis=1)
    np.testing.assert_allclose(along[kept], 1, rtol=1e-5)
    assert not prediction.depth.any()  # a depth behind the camera is no depth


def test_gates_are_shown_where_the_model_has_them():
    assert NETWORK(frame_of(320, 240)).gates is None
    engine = ScriptedEngine()
    engine.outputs["gates"] = np.linspace(-0.5, 1.5, 6, dtype=np.float32).reshape(1, 2, 3)
    expert = LearnedExpert(MANIFEST, engine)
    gates = expert(frame_of(320, 240)).gates
    assert gates.dtype == np.float32
    np.testing.assert_allclose(gates, [[0, 0, 0.3], [0.7, 1, 1]], atol=1e-6)
    engine.outputs["gates"][0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in its gates"):
        expert(frame_of(320, 240))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((240, 320), np.uint8),
        np.zeros((240, 320, 4), np.uint8),
        np.zeros((240, 320, 3), np.float32),
        np.zeros((320, 240, 3), np.uint8),
    ],
)
def test_an_image_that_is_not_the_cameras_is_refused(image):
    with pytest.raises(ValueError, match=r"the image is .* its camera_info makes it uint8 RGB .*\(240, 320, 3\)"):
        NETWORK(Frame(image, PinholeCamera(320, 240, 300, 300, 160, 120)))
