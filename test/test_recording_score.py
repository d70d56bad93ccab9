"""Scores on a real recording: the figures of depths and classes that are known."""

import json

import numpy as np
import pytest
from test_posed_rgbd import random_poses, write_sequence

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation.recording_score import class_figures, classes_at, depth_figures, read_points
from sgrocc.experts import Prediction
from sgrocc.gaussians import Gaussians
from sgrocc.labels import CHAIR, FLOOR, TABLE, WALL


class ScaledTruth:
    """An expert that has read the recording: the recorded depth times a factor per frame, classes by column."""

    depth_source = "network"

    def __init__(self, sequence, factors, labels=(WALL, FLOOR)):
        self.sequence, self.factors, self.labels = sequence, factors, labels

    def __call__(self, frame):
        index = next(i for i in range(len(self.sequence)) if (self.sequence.frame(i).image == frame.image).all())
        depth = self.sequence.frame(index).depth * np.float32(self.factors[index])
        camera = self.sequence.camera.resized(depth.shape[1], depth.shape[0])
        rows, columns = np.nonzero(depth)
        points = camera.back_project(np.stack([columns, rows], -1).astype(np.float64), depth[rows, columns])
        label = np.where(columns < depth.shape[1] / 2, *self.labels)
        logits = 8.0 * np.eye(11)[label - 1]
        count = len(points)
        ones = np.ones((count, 1))
        gaussians = Gaussians(
            points, 0.01 * ones.repeat(3, 1), ones * [1, 0, 0, 0], 0.9 * ones[:, 0], logits, np.zeros((count, 0))
        )
        return Prediction(depth, camera, gaussians, True, (0.1, 0.05))


@pytest.fixture
def sequence(tmp_path):
    write_sequence(tmp_path / "recording", random_poses(3), depth_unit_m=0.0001)
    return PosedRgbdSequence(tmp_path / "recording")


def test_depth_errors_are_those_that_were_made(sequence):
    figures = depth_figures(ScaledTruth(sequence, (1.1, 1.2, 1.3)), sequence)
    assert figures["frames"] == 3
    assert figures["raw"]["abs_rel"] == pytest.approx(0.2, abs=1e-5)
    assert figures["raw"]["delta_1"] == pytest.approx(2 / 3)
    assert figures["aligned"] == {"abs_rel": pytest.approx(0, abs=1e-5), "delta_1": 1.0}
    assert figures["scale"]["median"] == pytest.approx(1 / 1.2, abs=1e-5)


def test_a_recording_without_depth_cannot_be_compared(sequence):
    with pytest.raises(ValueError, match="no depth to compare"):
        depth_figures(ScaledTruth(sequence, (0, 0, 0)), sequence)


def test_points_are_judged_by_the_voxel_at_their_end(sequence, tmp_path):
    # Left half wall, right half floor; the hand says chair in one place and judges nothing in another.
    content = {"0": [f"{WALL}{WALL}{FLOOR}{FLOOR}"], "2": [f"{WALL}{CHAIR}{FLOOR}0"]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    figures = class_figures(ScaledTruth(sequence, (1, 1, 1)), sequence, tmp_path / "labels.json")
    assert figures["frames"] == 2 and figures["points"] == 7
    assert figures["accuracy"] == pytest.approx(6 / 7)
    assert figures["per_class"] == {"floor": (3, 3), "wall": (3, 3), "chair": (0, 1)}
    assert figures["confusion"][CHAIR][WALL] == 1


def test_a_point_without_depth_has_no_class(sequence):
    prediction = ScaledTruth(sequence, (1, 1, 1), (TABLE, TABLE))
    prediction = prediction(sequence.frame(0))
    found, has_depth = classes_at(prediction, np.array([0.0, 0.7]), np.array([0.0, 0.7]))
    assert found.tolist() == [0, TABLE] and has_depth.tolist() == [False, True]


@pytest.mark.parametrize("content", ["[]", '{"0": ["0x"]}', '{"a": ["00"]}', '{"0": ["00", "0"]}', '{"0": ["f"]}', "{"])
def test_a_file_that_holds_no_points_is_refused(tmp_path, content):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ValueError, match="labels.json"):
        read_points(tmp_path / "labels.json")
