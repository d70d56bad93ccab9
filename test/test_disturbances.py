"""Disturbed poses and lost frames: as strong as asked for, the same in every run, and never in the truth."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from sgrocc.evaluation.disturbances import Disturbance, Disturbed, _rotation
from sgrocc.geometry import Pose


@dataclass(frozen=True)
class Frame:
    number: int
    pose: Pose


class Recorder:
    def start(self, scene) -> None:
        self.frames = []

    def add(self, frame) -> None:
        self.frames.append(frame)

    def labels(self):
        return "labels"


def seen(disturbance: Disturbance, count: int = 400, name: str = "room") -> list[Frame]:
    frames = [Frame(i, Pose(_rotation(np.array([0, 0, 0.01 * i])), np.array([0.1 * i, 0, 1.0]))) for i in range(count)]
    recorder = Recorder()
    disturbed = Disturbed(recorder, disturbance)
    disturbed.start(SimpleNamespace(name=name, frames=frames))
    for frame in frames:
        disturbed.add(frame)
    assert disturbed.labels() == "labels"
    return recorder.frames, frames


def test_poses_are_off_by_as_much_as_was_asked_for():
    found, true = seen(Disturbance(position_m=0.05, rotation_deg=2.0))
    shifts = np.array([f.pose.translation - t.pose.translation for f, t in zip(found, true, strict=True)])
    np.testing.assert_allclose(shifts.std(axis=0), 0.05, rtol=0.12)
    assert np.abs(shifts.mean(axis=0)).max() < 0.01
    turns = [f.pose.rotation @ t.pose.rotation.T for f, t in zip(found, true, strict=True)]
    angles = np.degrees(np.arccos(np.clip([(np.trace(r) - 1) / 2 for r in turns], -1, 1)))
    # Three axes of two degrees each.
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(2.0 * np.sqrt(3), rel=0.08)
    np.testing.assert_allclose(turns[0] @ turns[0].T, np.eye(3), atol=1e-12)


def test_the_same_frames_come_to_everyone_and_others_in_another_scene():
    one, other = (seen(Disturbance(position_m=0.02, lost=0.3))[0] for _ in range(2))
    assert [f.number for f in one] == [f.number for f in other]
    np.testing.assert_array_equal(one[5].pose.translation, other[5].pose.translation)
    assert [f.number for f in seen(Disturbance(lost=0.3), name="kitchen")[0]] != [f.number for f in one]
    # A stronger one differs in strength alone.
    weak, strong = seen(Disturbance(position_m=0.01))[0], seen(Disturbance(position_m=0.05))[0]
    true = seen(Disturbance(lost=0.0, position_m=1e-12))[0]
    offset = [a.pose.translation - t.pose.translation for a, t in zip(weak, true, strict=True)]
    larger = [a.pose.translation - t.pose.translation for a, t in zip(strong, true, strict=True)]
    np.testing.assert_allclose(5 * np.array(offset), larger, atol=1e-9)


def test_that_share_of_the_frames_is_lost_and_never_the_first():
    found, true = seen(Disturbance(lost=0.4))
    assert found[0].number == 0 and len(found) == pytest.approx(0.6 * len(true), rel=0.1)
    assert found[1].pose.translation == pytest.approx(true[found[1].number].pose.translation)


def test_drift_grows_along_the_floor_and_the_closure_takes_it_back():
    found, true = seen(Disturbance(drift_m=0.4), count=40)
    away = np.array([f.pose.translation - t.pose.translation for f, t in zip(found, true, strict=True)])
    lengths = np.linalg.norm(away, axis=1)
    np.testing.assert_allclose(lengths[:30], 0.4 * np.arange(30) / 30, atol=1e-9)
    assert not lengths[30:].any() and not away[:, 2].any()
    np.testing.assert_array_equal(found[7].pose.rotation, true[7].pose.rotation)


@pytest.mark.parametrize("bad", [{"position_m": -0.1}, {"lost": 1.0}, {"drift_m": float("nan")}])
def test_values_without_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[0]):
        Disturbance(**bad)
    assert not Disturbance() and Disturbance(lost=0.1)
