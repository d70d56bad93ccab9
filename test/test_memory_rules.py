"""Other methods' memories as rules: each against its formula."""

from types import SimpleNamespace

import numpy as np
import pytest
from scenes import CAMERA

from sgrocc.evaluation.baselines import NAMES
from sgrocc.evaluation.memory_rules import EmbodiedOccRule, GPOccRule, _nearest_within, veocc_confidence
from sgrocc.experts import Prediction
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.labels import CHAIR, FREE, TABLE

GRID = VoxelGrid(np.array([-2.4, -2.4, 0.0]), (60, 60, 36), 0.08)
#: Looks along the grid's z axis from below.
POSE = Pose(np.eye(3), np.array([0.0, 0.0, 0.0]))


def at(*points, label=CHAIR, opacity=0.8, scale_m=0.05) -> Gaussians:
    count = len(points)
    logits = np.zeros((count, 11), np.float32)
    logits[:, label - 1] = 6.0
    rotations = np.tile([1.0, 0, 0, 0], (count, 1))
    means = np.reshape(points, (count, 3))
    return Gaussians(means, np.full((count, 3), scale_m), rotations, [opacity] * count, logits, np.zeros((count, 2)))


def mapped(rule, *frames: Gaussians, poses=None):
    """A rule after frames whose expert answers with those Gaussians, in the camera's frame."""
    answers = iter(frames)
    depth = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    made = rule(lambda _: Prediction(depth, CAMERA, next(answers), True, (0.1, 0.0)), "network")
    made.start(SimpleNamespace(grid=GRID))
    for number in range(len(frames)):
        pose = POSE if poses is None else poses[number]
        image = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
        made.add(SimpleNamespace(camera=CAMERA, pose=pose, grid=GRID, image=lambda image=image: image))
    return made


def in_grid(point) -> np.ndarray:
    return np.asarray(point) - GRID.origin


def test_gaussians_within_two_centimetres_are_averaged_as_gpocc_does():
    old, near, nearer, other = (0.04, 0.04, 1.0), (0.05, 0.04, 1.0), (0.04, 0.045, 1.0), (0.04, 0.04, 1.03)
    made = mapped(GPOccRule, at(old), Gaussians.joined(at(near, nearer, opacity=0.4), at(other, label=TABLE)))
    held = made._held
    assert len(held) == 2
    expected = (0.1 * np.array(old) + 0.9 * (np.array(near) + np.array(nearer))) / (0.1 + 0.9 * 2)
    np.testing.assert_allclose(held.means[0], in_grid(expected), atol=1e-6)
    assert held.opacities[0] == pytest.approx((0.1 * 0.8 + 0.9 * 0.8) / 1.9)
    np.testing.assert_allclose(held.means[1], in_grid(other), atol=1e-6)
    labels = made.labels()
    assert labels[tuple((in_grid(old) / 0.08).astype(int))] == CHAIR
    assert labels[5, 5, 5] == FREE


def test_what_embodiedocc_has_in_view_takes_half_of_what_the_frame_says():
    seen, lonely = (0.04, 0.04, 1.0), (0.2, 0.04, 2.6)
    again = (0.06, 0.04, 1.0)
    first = Gaussians.joined(at(seen, lonely), at((0.04, 0.04, 2.04)))
    # From above, the third of them lies behind the camera.
    above = Pose(np.eye(3), np.array([0.0, 0.0, 2.2]))
    made = mapped(EmbodiedOccRule, first, at(again, opacity=0.4, label=TABLE))
    held = made._held
    assert len(held) == 3, "one of them was found again"
    order = np.argsort(held.means[:, 2])
    means, opacities = held.means[order], held.opacities[order]
    np.testing.assert_allclose(means[0], in_grid((0.05, 0.04, 1.0)), atol=1e-5)
    assert opacities[0] == pytest.approx(0.6, abs=1e-3)
    # In the image, whether hidden or not, and not found again: half.
    np.testing.assert_allclose(opacities[1:], 0.4, atol=1e-3)
    made = mapped(EmbodiedOccRule, first, at((0.04, 0.04, 0.2)), poses=[POSE, above])
    kept = made._held.opacities[np.argsort(made._held.means[:, 2])]
    assert kept[0] == kept[1] == pytest.approx(0.8, abs=1e-6), "out of view"


def test_veocc_trusts_near_voxels_in_the_middle_of_the_image():
    frame = SimpleNamespace(camera=CAMERA, pose=Pose(np.eye(3), np.zeros(3)), grid=GRID)
    weights = veocc_confidence(frame)
    softplus = np.log1p(np.exp([0.1, 1.5]))
    i, j, k = (np.array([0.04, 0.04, 1.0]) - GRID.origin) / 0.08
    x, y, z = GRID.centres()[int(i), int(j), int(k)]
    u, v = CAMERA.fx * x / z + CAMERA.cx, CAMERA.fy * y / z + CAMERA.cy
    border = max(abs(2 * (u + 0.5) / CAMERA.width - 1), abs(2 * (v + 0.5) / CAMERA.height - 1))
    assert weights[int(i), int(j), int(k)] == pytest.approx(np.exp(-softplus[0] * z - softplus[1] * border), rel=1e-4)
    assert weights.min() >= 0.01 and weights[0, 0, 0] < 0.25 < weights[int(i), int(j), int(k)]


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_within_a_radius_is_that_of_a_search_of_all(seed):
    rng = np.random.default_rng(seed)
    known, points = rng.uniform(-0.3, 0.3, (400, 3)), rng.uniform(-0.3, 0.3, (300, 3))
    found = _nearest_within(known, points, 0.05)
    away = np.linalg.norm(points[:, None] - known[None], axis=-1)
    expected = np.where(away.min(axis=1) < 0.05, away.argmin(axis=1), -1)
    np.testing.assert_array_equal(found, expected)
    assert 50 < (found >= 0).sum() < 290


def test_every_rule_is_a_baseline_of_the_embodied_protocol_alone():
    assert {"embodiedocc", "gpocc", "veocc"} <= set(NAMES["embodied"]) - set(NAMES["local"])
