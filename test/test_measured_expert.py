"""A learned expert beside a depth sensor: measured surfaces with the network's classes, its guesses where none are."""

import numpy as np
import pytest

from sgrocc.experts import Frame, Prediction
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert
from sgrocc.experts.measured import MeasuredExpert
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera
from sgrocc.labels import FLOOR, TABLE, WALL

CAMERA = PinholeCamera(320, 240, 260.0, 260.0, 159.5, 119.5)
IMAGE = np.zeros((240, 320, 3), np.uint8)


class Scripted:
    """A learned expert with a lattice of Gaussians at depths of its own: walls to the left, tables to the right, and a
    second layer of floors behind them; the feature of each is its place in the image."""

    depth_source = "topic"

    def __init__(self, at_m=2.0, behind_m=0.5):
        self.at_m, self.behind_m = at_m, behind_m

    def __call__(self, frame):
        columns, rows = np.meshgrid(np.arange(4, 160, 8), np.arange(4, 120, 8))
        small = frame.camera.resized(160, 120)
        pixels = np.stack([columns.ravel(), rows.ravel()], axis=-1).astype(float)
        layers, logits = [], []
        for z, left, right in ((self.at_m, WALL, TABLE), (self.at_m + self.behind_m, FLOOR, FLOOR)):
            layers.append(small.back_project(pixels, np.full(len(pixels), z)))
            label = np.where(pixels[:, 0] < 80, left, right)
            logits.append(5.0 * np.eye(11)[label - 1])
        count = 2 * len(pixels)
        gaussians = Gaussians(
            np.concatenate(layers),
            np.full((count, 3), 0.1),
            np.tile([1.0, 0, 0, 0], (count, 1)),
            np.full(count, 0.5),
            np.concatenate(logits),
            np.concatenate([pixels, pixels]),
        )
        depth = np.full((120, 160), self.at_m, np.float32)
        return Prediction(depth, small, gaussians, True, (0.04, 0.0))


def labels_of(gaussians):
    return gaussians.logits.argmax(axis=1) + 1


def test_the_surface_is_the_sensors_and_its_classes_are_the_networks():
    depth = np.full((240, 320), 2.1, np.float32)
    prediction = MeasuredExpert(Scripted())(Frame(IMAGE, CAMERA, depth))
    found = prediction.gaussians
    dense = GeometricExpert()(Frame(IMAGE, CAMERA, depth)).gaussians
    np.testing.assert_array_equal(found.means[: len(dense)], dense.means)
    np.testing.assert_array_equal(found.scales[: len(dense)], dense.scales)
    pixels, _ = CAMERA.project(found.means[: len(dense)])
    expected = np.where(pixels[:, 0] < 159.5, WALL, TABLE)
    assert (labels_of(found)[: len(dense)] == expected).mean() > 0.97  # but for the column where the two meet
    # The feature comes from the same part of the image.
    assert np.abs(found.features[: len(dense)] * 2 + 0.5 - pixels).max() <= 16
    assert prediction.semantic and (prediction.depth == depth).all()


def test_guesses_remain_behind_things_but_not_behind_walls():
    depth = np.full((240, 320), 2.1, np.float32)
    found = MeasuredExpert(Scripted())(Frame(IMAGE, CAMERA, depth)).gaussians
    dense = len(GeometricExpert()(Frame(IMAGE, CAMERA, depth)).gaussians)
    guesses = found.select(np.arange(len(found)) >= dense)
    assert len(guesses) == 150 and (labels_of(guesses) == FLOOR).all()
    np.testing.assert_allclose(guesses.means[:, 2], 2.5)
    assert (guesses.means[:, 0] > 0).all()  # the tables stand to the right


def test_where_nothing_was_measured_nothing_is_mapped():
    depth = np.full((240, 320), 2.1, np.float32)
    depth[:, :160] = 0
    depth[:20] = np.nan
    prediction = MeasuredExpert(Scripted())(Frame(IMAGE, CAMERA, depth))
    assert (prediction.depth[:, :160] == 0).all() and (prediction.depth[:20] == 0).all()
    pixels, _ = CAMERA.project(prediction.gaussians.means)
    assert len(pixels) > 1000 and (pixels[:, 0] > 158).all() and (pixels[:, 1] > 18).all()


def test_the_network_fills_no_space_that_the_sensor_looked_through_beyond_the_range():
    depth = np.full((240, 320), 2.1, np.float32)
    depth[:120] = 5.0
    config = GeometricConfig(max_depth_m=4.0, max_anchors=1000)
    prediction = MeasuredExpert(Scripted(), config)(Frame(IMAGE, CAMERA, depth))
    pixels, z = CAMERA.project(prediction.gaussians.means)
    assert not (pixels[:, 1] < 119).any()  # neither a surface at 5 m nor the network's at 2 and 2.5 m
    assert 100 < np.isclose(z, 2.1).sum() <= 1000


def test_guesses_begin_where_the_memory_calls_them_so():
    depth = np.full((240, 320), 2.0, np.float32)
    near = MeasuredExpert(Scripted(at_m=2.0, behind_m=0.1))(Frame(IMAGE, CAMERA, depth)).gaussians
    assert np.allclose(near.means[:, 2], 2.0)
    wide = MeasuredExpert(Scripted(at_m=2.0, behind_m=0.1), margin_m=0.05)(Frame(IMAGE, CAMERA, depth)).gaussians
    assert np.isclose(wide.means[:, 2], 2.1).sum() == 150


def test_without_any_depth_there_is_nothing():
    found = MeasuredExpert(Scripted())(Frame(IMAGE, CAMERA, np.zeros((240, 320), np.float32)))
    assert len(found.gaussians) == 0 and found.gaussians.features.shape[1] == 2 and found.semantic


def test_a_network_that_points_nowhere_leaves_the_surfaces_without_classes():
    class Behind(Scripted):
        def __call__(self, frame):
            prediction = super().__call__(frame)
            prediction.gaussians.means[:, 2] *= -1
            return prediction

    depth = np.full((240, 320), 2.1, np.float32)
    found = MeasuredExpert(Behind())(Frame(IMAGE, CAMERA, depth)).gaussians
    assert np.isclose(found.means[:, 2], 2.1).any()
    assert found.features.shape[1] == 2  # whatever happens, the memory gets features of one size


def test_an_expert_without_sensor_depth_is_refused():
    alone = Scripted()
    alone.depth_source = "network"
    with pytest.raises(ValueError, match="use_sensor_depth"):
        MeasuredExpert(alone)
    with pytest.raises(ValueError, match="needs sensor depth"):
        MeasuredExpert(Scripted())(Frame(IMAGE, CAMERA, None))
