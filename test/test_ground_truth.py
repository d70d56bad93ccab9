"""Ground truth from depth, held to the rule written out as loops, and to OctoMap."""

from __future__ import annotations

import math
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation import ground_truth, octomap_baseline
from sgrocc.evaluation.ground_truth import DepthTruth
from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.octomap_baseline import OctomapBaseline
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, GENERIC, UNKNOWN

_CAMERA = PinholeCamera(12, 9, 9.0, 8.5, 5.7, 4.1)
_KITCHEN = Path(os.environ.get("SGROCC_KITCHEN", Path(__file__).parents[2] / "shared" / "data" / "hololens_kitchen"))
#: A camera that looks along world +x with z up.
_FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

needs_octomap = pytest.mark.skipif(not octomap_baseline.available(), reason="pyoctomap is not installed")


def _random_frames(seed, count=4):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        depth = rng.uniform(0.1, 2.6, (_CAMERA.height, _CAMERA.width)).astype(np.float32)
        depth[rng.random(depth.shape) < 0.2] = rng.choice([0.0, np.nan, np.inf, -1.0])
        quaternion = rng.normal(size=4)
        yield depth, Pose.from_quaternion(quaternion / np.linalg.norm(quaternion), rng.uniform(-1.5, 1.5, 3))


def _counted_by_loops(frames, resolution, margin, nearest, farthest):
    """{world voxel index: [hits, see-throughs]}, the rule of the documentation pixel by pixel, voxel by voxel."""
    counts = {}
    for depth, pose in frames:
        hit = set()
        for row in range(_CAMERA.height):
            for column in range(_CAMERA.width):
                z = float(depth[row, column])
                if nearest <= z <= farthest:
                    ray = [(column - _CAMERA.cx) / _CAMERA.fx, (row - _CAMERA.cy) / _CAMERA.fy, 1.0]
                    point = pose.rotation @ (np.array(ray) * z) + pose.translation
                    hit.add(tuple(math.floor(c / resolution) for c in point))
        for voxel in hit:
            counts.setdefault(voxel, [0, 0])[0] += 1
        reach = math.ceil(4.2 / resolution)  # farther than any corner of a frustum of `_random_frames`
        for i in range(-reach, reach):
            for j in range(-reach, reach):
                for k in range(-reach, reach):
                    centre = (np.array([i, j, k]) + 0.5) * resolution
                    x, y, z = pose.rotation.T @ (centre - pose.translation)
                    if z <= 0:
                        continue
                    column = math.floor(x / z * _CAMERA.fx + _CAMERA.cx + 0.5)
                    row = math.floor(y / z * _CAMERA.fy + _CAMERA.cy + 0.5)
                    if 0 <= column < _CAMERA.width and 0 <= row < _CAMERA.height:
                        measured = float(depth[row, column])
                        if nearest <= measured <= farthest and measured > z + margin:
                            counts.setdefault((i, j, k), [0, 0])[1] += 1
    return counts


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_equals_loops_over_pixels_and_voxels(seed):
    limits = {"margin_m": 0.15, "min_depth_m": 0.4, "max_depth_m": 2.0}
    truth = DepthTruth(0.35, **limits)
    for depth, pose in _random_frames(seed):
        truth.add(depth, _CAMERA, pose)
    result = truth.result("odom")
    counts = _counted_by_loops(_random_frames(seed), 0.35, *limits.values())
    expected = {}
    for voxel, (hits, through) in counts.items():
        if hits >= 1 and hits >= through:
            expected[voxel] = (GENERIC, hits / (hits + through))
        elif through >= 1 and through > hits:
            expected[voxel] = (FREE, hits / (hits + through))
    low = np.rint(result.origin / 0.35).astype(int)
    found = {
        tuple(int(n) for n in low + i): (int(label), pytest.approx(float(result.probability[i]), abs=1e-6))
        for i, label in np.ndenumerate(result.labels)
        if label != UNKNOWN
    }
    assert any(label == GENERIC for label, _ in expected.values()) and any(label == 0 for label, _ in expected.values())
    assert expected == found


def test_the_order_and_the_place_of_frames_do_not_matter():
    """Far apart frames make the counts grow on every side; moved by whole voxels, the result moves with them."""
    shift = np.array([40, -70, 25]) * 0.25
    results = []
    for order, offset in ((1, np.zeros(3)), (-1, shift)):
        truth = DepthTruth(0.25)
        for number, (depth, pose) in list(enumerate(_random_frames(7)))[::order]:
            apart = np.array([9.0, -8.0, 7.0]) * number
            truth.add(depth, _CAMERA, Pose(pose.rotation, pose.translation + apart + offset))
        results.append(truth.result("odom"))
    np.testing.assert_allclose(results[1].origin - results[0].origin, shift, atol=1e-9)
    assert np.array_equal(results[0].labels, results[1].labels)


def _wall(distance_m, size=(48, 36)):
    camera = PinholeCamera(*size, 40.0, 40.0, (size[0] - 1) / 2, (size[1] - 1) / 2)
    return np.full((size[1], size[0]), distance_m, np.float32), camera, Pose(_FORWARD, np.zeros(3))


def test_a_wall_is_occupied_with_free_space_before_and_unknown_behind():
    truth = DepthTruth(0.1)
    truth.add(*_wall(1.55))
    result = truth.result("map").resampled_to(VoxelGrid(np.zeros(3), (30, 1, 1), 0.1))
    # Centres at 1.35 m and before lie more than 0.12 m before the wall at 1.55 m; the one at 1.45 m does not. The very
    # first one, 0.05 m beside and 0.05 m before the camera, is outside the image.
    assert result.labels[:, 0, 0].tolist() == [UNKNOWN] + [FREE] * 13 + [UNKNOWN, GENERIC] + [UNKNOWN] * 14
    assert result.frame_id == "map"


def test_a_frame_counts_once_and_a_tie_is_occupied():
    near, far = _wall(1.55), _wall(2.55)
    labels = []
    for frames in ([near, far], [near, far, far], [near, near, far, far], [near, far, far, near, near, far, far]):
        truth = DepthTruth(0.1)
        for frame in frames:
            truth.add(*frame)
        at_wall = truth.result("odom").resampled_to(VoxelGrid(np.array([1.5, 0, 0]), (1, 1, 1), 0.1))
        labels.append((int(at_wall.labels[0, 0, 0]), float(at_wall.probability[0, 0, 0])))
    assert labels == [(GENERIC, 0.5), (FREE, pytest.approx(1 / 3)), (GENERIC, 0.5), (FREE, pytest.approx(3 / 7))]


def test_depth_outside_the_range_says_nothing():
    truth = DepthTruth(0.1)
    for distance in (0.29, 4.01, 0.0, -2.0, np.nan, np.inf):
        truth.add(*_wall(distance))
    with pytest.raises(ValueError, match="unit"):
        truth.result("odom")
    truth.add(*_wall(4.0))
    truth.add(*_wall(9.0))
    assert truth.result("odom").occupied.any()


def test_input_that_cannot_be_right_is_refused():
    depth, camera, pose = _wall(1.0)
    with pytest.raises(ValueError, match="resized"):
        DepthTruth().add(depth[:-1], camera, pose)
    with pytest.raises(ValueError, match="positive"):
        DepthTruth(resolution=0)
    with pytest.raises(ValueError, match="nearer"):
        DepthTruth(min_depth_m=4.0, max_depth_m=0.3)
    truth = DepthTruth()
    truth.add(depth, camera, pose)
    before = truth.result("odom")
    with pytest.raises(ValueError, match="wild pose"):
        truth.add(depth, camera, Pose(_FORWARD, np.array([4e3, 4e3, 0.0])))
    assert np.array_equal(truth.result("odom").labels, before.labels)


@needs_octomap
def test_octomap_sees_the_same_wall_in_the_same_voxels():
    truth, baseline = DepthTruth(0.1), OctomapBaseline(0.1)
    depth, camera, pose = _wall(1.55)
    depth[0, :5] = np.nan
    for add in (truth.add, baseline.add):
        add(depth, camera, pose)
    expected = truth.result("odom")
    found = baseline.result(expected.grid, "odom")
    result = score(found, expected)
    assert result["recall"] == 1.0 and result["precision"] > 0.95
    free = (expected.labels == FREE) & (found.labels == FREE)
    assert np.count_nonzero(free) > 0.8 * np.count_nonzero(expected.labels == FREE)
    assert baseline.cpu_s > 0


@needs_octomap
def test_octomap_refuses_a_grid_of_other_voxels():
    baseline = OctomapBaseline(0.1)
    with pytest.raises(ValueError, match="resolution"):
        baseline.result(VoxelGrid(np.zeros(3), (2, 2, 2), 0.08), "odom")
    with pytest.raises(ValueError, match="whole"):
        baseline.result(VoxelGrid(np.full(3, 0.05), (2, 2, 2), 0.1), "odom")
    nothing = baseline.result(VoxelGrid(np.zeros(3), (2, 2, 2), 0.1), "odom")
    assert (nothing.labels == UNKNOWN).all()


def test_a_missing_pyoctomap_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(octomap_baseline, "available", lambda: False)
    with pytest.raises(ImportError, match="pip install pyoctomap"):
        OctomapBaseline()


def _with_recording(monkeypatch, frames):
    """Stand a recording of these (depth, pose) in for the reader of recordings."""

    class PosedRgbdSequence:
        depth_camera = _wall(1.0)[1]

        def __init__(self, folder):
            if folder == "absent":
                raise ValueError("absent is not a recording: check the path")

        def __iter__(self):
            return iter([types.SimpleNamespace(depth=depth, pose=pose) for depth, pose in frames])

    reader = types.ModuleType("sgrocc.datasets.posed_rgbd")
    reader.PosedRgbdSequence = PosedRgbdSequence
    monkeypatch.setitem(sys.modules, "sgrocc.datasets.posed_rgbd", reader)


def test_the_command_line_writes_the_ground_truth(tmp_path, monkeypatch, capsys):
    depth, camera, pose = _wall(1.55)
    _with_recording(monkeypatch, [(depth, pose)])
    out = tmp_path / "gt.npz"
    assert ground_truth.main(["--sequence", "here", "--out", str(out), "--resolution", "0.1"]) == 0
    expected = DepthTruth(0.1)
    expected.add(depth, camera, pose)
    written = Occupancy.load(out)
    assert np.array_equal(written.labels, expected.result("odom").labels)
    assert f"{np.count_nonzero(written.occupied)} occupied" in capsys.readouterr().out


def test_the_command_line_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    _with_recording(monkeypatch, [])
    out = tmp_path / "gt.npz"
    assert ground_truth.main(["--sequence", "absent", "--out", str(out)]) == 1
    assert "check the path" in capsys.readouterr().err
    assert ground_truth.main(["--sequence", "here", "--out", str(out)]) == 1
    assert "no frame has depth" in capsys.readouterr().err
    assert not out.exists()


@needs_octomap
@pytest.mark.skipif(not _KITCHEN.is_dir(), reason=f"no recording at {_KITCHEN}: set SGROCC_KITCHEN")
def test_the_kitchen_has_its_known_figures():
    """Every tenth frame of the real recording. All 120 give 20,885 occupied voxels, OctoMap 0.901 SC-IoU."""
    sequence = PosedRgbdSequence(_KITCHEN)
    truth, baseline = DepthTruth(), OctomapBaseline()
    for number in range(0, len(sequence), 10):
        frame = sequence.frame(number)
        for add in (truth.add, baseline.add):
            add(frame.depth, sequence.depth_camera, frame.pose)
    expected = truth.result("odom")
    result = score(baseline.result(expected.grid, "odom"), expected)
    # A few voxels may differ between machines, where a centre projects onto the very edge of a pixel.
    assert np.count_nonzero(expected.occupied) == pytest.approx(9855, abs=5)
    assert np.count_nonzero(expected.labels == FREE) == pytest.approx(33951, abs=15)
    assert result["sc_iou"] == pytest.approx(0.9950, abs=0.002)
    assert result["miou"] is None
