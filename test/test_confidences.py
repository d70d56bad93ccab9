"""Whether confidences are as often right as they say, and the pictures of them."""

import numpy as np
import pytest
from PIL import Image
from test_evolution import Scene
from test_memory import gaussians_at

pytest.importorskip("matplotlib")  # comes with torch, see requirements/train.txt

from sgrocc.evaluation.confidences import (  # noqa: E402
    Judged,
    best_temperature,
    calibration,
    draw_calibration,
    draw_map,
    judge,
)
from sgrocc.labels import FLOOR  # noqa: E402
from sgrocc.memory.confidence import Confirmation  # noqa: E402
from sgrocc.memory.gaussian_memory import MemoryConfig  # noqa: E402
from sgrocc.splatting import softmax  # noqa: E402


def test_the_calibration_error_is_how_far_confidences_are_from_what_happened():
    # Nine of ten came true of what was sure to 0.95, one of two of what was sure to 0.75; twenty and ten of them.
    confidence = np.repeat([0.95, 0.75], [20, 10])
    happened = np.concatenate([np.arange(20) >= 2, np.arange(10) % 2 == 0])
    error, bins = calibration(confidence, happened)
    assert error == pytest.approx((20 * 0.05 + 10 * 0.25) / 30)
    np.testing.assert_allclose(bins[[9, 7]], [[0.95, 0.9, 2 / 3], [0.75, 0.5, 1 / 3]])
    assert np.isnan(bins[0, :2]).all() and bins[:, 2].sum() == pytest.approx(1)


def test_nothing_is_not_well_calibrated():
    assert np.isnan(calibration(np.zeros(0), np.zeros(0, bool))[0])


def judged(temperature: float) -> Judged:
    """Classes drawn as softmax(z / temperature) says; every place is occupied."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((40_000, 11))
    drawn = (softmax(logits / temperature).cumsum(axis=1) < rng.random((len(logits), 1))).sum(axis=1)
    certain = np.ones(len(logits))
    return Judged(certain, logits, certain > 0, drawn == logits.argmax(axis=1))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_the_fitted_temperature_is_the_one_that_the_classes_have(temperature):
    found = best_temperature(judged(temperature), np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]))
    assert found == pytest.approx(temperature, rel=0.13)


def test_what_is_sharpened_is_too_sure_of_itself(tmp_path):
    errors = draw_calibration(judged(1.0), MemoryConfig(temperature=0.3), tmp_path / "calibration.png")
    alone, _, sharpened = errors.values()
    assert alone["semantic"] < 0.01 and sharpened["semantic"] > 0.1
    assert Image.open(tmp_path / "calibration.png").size[0] > 800


class Predictor:
    """Remembers two Gaussians: one where the room has its floor, one in the free air, both called floor."""

    remembered = gaussians_at([0.5, 0.5, 0.04], [1.0, 1.0, 1.0], label=FLOOR)

    def start(self, scene) -> None:
        self.frames = 0

    def add(self, frame) -> None:
        self.frames += 1

    def gaussians(self):
        return self.remembered

    def confirmation(self) -> Confirmation | None:
        sure, half = np.ones(2), np.array([1.0, 0.5])
        return None if self.frames < 2 else Confirmation(self.remembered, half, sure, half)


def test_what_frames_confirmed_is_looked_up_in_the_truth():
    found = judge([Scene()], Predictor())
    assert len(found.right) == 2 * (len(Scene.frames) - 1)
    assert found.occupied.reshape(-1, 2).all(axis=0).tolist() == [True, False]
    assert found.right.reshape(-1, 2).all(axis=0).tolist() == [True, False]
    np.testing.assert_array_equal(found.geometric[:2], [1.0, 0.5])


def test_a_confidence_is_drawn_in_its_colour(tmp_path):
    draw_map(Scene(), Predictor(), tmp_path / "map.png")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))[:, :900].reshape(-1, 3).astype(int)
    full, half = ((np.abs(picture - colour).max(axis=1) < 12).sum() for colour in ((253, 231, 37), (33, 145, 140)))
    # Of six points two have half a confidence: one in the geometric, one in the hybrid picture.
    assert full > half > 0
