"""Counts of voxels and boundaries against loops and by hand; what a frame sees."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrocc.evaluation.metrics import Counts, count_subsets, resampled_scores, view_of, visible_voxels
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.geometry.pose import quaternion_to_matrix
from sgrocc.labels import CHAIR, CLASS_NAMES, FLOOR, FREE, GENERIC, UNKNOWN, WALL

_FACES = [offset for offset in product((-1, 0, 1), repeat=3) if sum(map(abs, offset)) == 1]
_NEAR = list(product((-1, 0, 1), repeat=3))
#: Free and unknown are common, so that there are boundaries at all.
_DRAWN = np.array([FREE, FREE, FREE, UNKNOWN, UNKNOWN, FLOOR, WALL, CHAIR, GENERIC], np.uint8)


def random_labels(rng, shape):
    return rng.choice(_DRAWN, shape)


def moved(index, offset):
    return tuple(a + b for a, b in zip(index, offset, strict=True))


def brute_force(prediction, truth, mask):
    """The same counts as dictionaries over voxels, in plain loops."""
    known = {i: int(truth[i]) for i in np.ndindex(truth.shape) if truth[i] != UNKNOWN}
    found = {i: 0 if prediction[i] == UNKNOWN else int(prediction[i]) for i in known}
    voxels = np.zeros((12, 12), int)
    for i in known:
        voxels[known[i], found[i]] += bool(mask[i])

    def boundary(labels):
        return {i for i in labels if labels[i] and any(labels.get(moved(i, face)) == 0 for face in _FACES)}

    def matched(some, others):
        return {i for i in some if any(moved(i, near) in others for near in _NEAR)}

    ours, true = boundary(found), boundary(known)
    sets = ours, matched(ours, true), true, matched(true, ours)
    return voxels, [sum(bool(mask[i]) for i in voxels_of) for voxels_of in sets]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.tuples(*[st.integers(1, 7)] * 3))
def test_counts_equal_a_loop_over_voxels(seed, shape):
    rng = np.random.default_rng(seed)
    prediction, truth, mask = random_labels(rng, shape), random_labels(rng, shape), rng.random(shape) < 0.6
    voxels, boundary = brute_force(prediction, truth, mask)
    counts = Counts.of(prediction, truth, mask)
    assert np.array_equal(counts.voxels, voxels)
    assert counts.boundary.tolist() == boundary


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_parts_add_up_to_the_whole_in_any_order(seed, parts):
    rng = np.random.default_rng(seed)
    prediction, truth = random_labels(rng, (8, 7, 6)), random_labels(rng, (8, 7, 6))
    part_of = rng.integers(0, parts, truth.shape)
    pieces = count_subsets(prediction, truth, [part_of == part for part in range(parts)])
    whole = Counts.of(prediction, truth)
    assert sum(pieces, Counts.nothing()) == whole == sum(rng.permutation(pieces), Counts.nothing())
    assert (whole + whole).scores()["sc_iou"] == whole.scores()["sc_iou"]
    assert whole + whole != whole


def test_a_small_grid_by_hand():
    # Layers z = 0, 1, 2; rows are x. A floor, a chair on its middle, one voxel nobody knows.
    truth = np.zeros((3, 3, 3), np.uint8)
    truth[:, :, 0] = FLOOR
    truth[1, 1, 1] = CHAIR
    truth[2, 2, 2] = UNKNOWN
    # The floor is there but for one corner; the chair is one voxel too far and called a wall; the unknown is guessed.
    prediction = np.zeros((3, 3, 3), np.uint8)
    prediction[:, :, 0] = FLOOR
    prediction[0, 0, 0] = UNKNOWN
    prediction[1, 2, 1] = WALL
    prediction[2, 2, 2] = CHAIR
    scores = Counts.of(prediction, truth).scores()
    assert scores["counts"] == {
        "scored": 26,
        "occupied_truth": 10,
        "occupied_prediction": 9,
        "true_positive": 8,
        "false_positive": 1,
        "false_negative": 2,
    }
    assert scores["sc_iou"] == 8 / 11 and scores["precision"] == 8 / 9 and scores["recall"] == 8 / 10
    assert scores["per_class"]["floor"] == pytest.approx(8 / 9, abs=1e-5)
    assert scores["per_class"]["chair"] == scores["per_class"]["wall"] == 0
    assert scores["per_class"]["tv"] is None
    assert scores["miou"] == pytest.approx(8 / 9 / 11, abs=1e-5)
    # True boundary: 8 of the floor (the middle is under the chair) and the chair. Predicted: 7 of the floor (not the
    # corner, and (1, 2) is under the wall) and the wall. All have one of the other map within a voxel.
    assert scores["boundary_counts"] == {"prediction": 8, "prediction_matched": 8, "truth": 9, "truth_matched": 9}
    assert scores["boundary_f1"] == 1.0


def test_scenes_drawn_again_give_the_scores_of_their_sums():
    rng = np.random.default_rng(3)
    first, second = (Counts.of(*(random_labels(rng, (6, 6, 6)) for _ in range(2))) for _ in range(2))
    possible = [part.scores() for part in (first + first, first + second, second + second)]
    wanted = {(round(scores["sc_iou"], 9), round(scores["miou"], 6)) for scores in possible}
    draws = resampled_scores((first, second))
    assert {(round(sc_iou, 9), round(miou, 6)) for sc_iou, miou in draws} == wanted
    # The same scenes are drawn for another method: one that is better in each is better in each draw.
    better = [Counts(part.voxels + np.diag([0, *[5] * 11]), part.boundary) for part in (first, second)]
    assert (resampled_scores(better) > draws).all()


@pytest.mark.parametrize(("shift", "f1"), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_a_plane_is_matched_within_one_voxel(shift, f1):
    truth, prediction = np.zeros((2, 4, 4, 8), np.uint8)
    truth[..., 3], prediction[..., 3 + shift] = WALL, WALL
    scores = Counts.of(prediction, truth).scores()
    assert scores["boundary_f1"] == scores["boundary_precision"] == scores["boundary_recall"] == f1


def test_boundary_f1_by_hand():
    # One row: the truth occupies 1..3, its boundary is 1 and 3; the prediction 1..6, its boundary 1 and 6.
    truth, prediction = np.zeros((2, 1, 1, 9), np.uint8)
    truth[0, 0, 1:4], prediction[0, 0, 1:7] = WALL, WALL
    scores = Counts.of(prediction, truth).scores()
    assert scores["boundary_counts"] == {"prediction": 2, "prediction_matched": 1, "truth": 2, "truth_matched": 1}
    assert (scores["boundary_f1"], scores["boundary_precision"], scores["boundary_recall"]) == (0.5, 0.5, 0.5)
    # Where the truth is unknown behind voxel 3, voxel 3 is no boundary, and what is predicted there counts nowhere.
    truth[0, 0, 4:] = UNKNOWN
    scores = Counts.of(prediction, truth).scores()
    assert scores["boundary_counts"] == {"prediction": 1, "prediction_matched": 1, "truth": 1, "truth_matched": 1}
    # The border of the grid is no boundary.
    full = np.full((3, 3, 3), WALL, np.uint8)
    assert Counts.of(full, full).scores()["boundary_f1"] is None


def test_a_mask_says_what_counts_and_not_where_neighbours_are():
    truth, prediction = np.zeros((2, 1, 1, 6), np.uint8)
    truth[0, 0, 2:], prediction[0, 0, 3:] = WALL, WALL
    mask = np.zeros(truth.shape, bool)
    mask[0, 0, 2] = True
    scores = Counts.of(prediction, truth, mask).scores()
    # Voxel 2 is a boundary as 1 is free, and 3, outside the mask, matches it.
    assert scores["boundary_counts"] == {"prediction": 0, "prediction_matched": 0, "truth": 1, "truth_matched": 1}
    assert scores["counts"]["scored"] == 1 and scores["recall"] == 0.0 and scores["precision"] is None
    assert scores["boundary_precision"] is None and scores["boundary_f1"] == 0.0


def test_nothing_known_is_nothing_counted():
    unknown = np.full((4, 4, 4), UNKNOWN, np.uint8)
    counts = Counts.of(np.full((4, 4, 4), WALL, np.uint8), unknown)
    assert counts == Counts.nothing()
    scores = counts.scores()
    assert scores["sc_iou"] is scores["miou"] is scores["boundary_f1"] is None
    assert scores["per_class"] == dict.fromkeys(CLASS_NAMES)


def test_what_does_not_fit_is_refused():
    labels = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="one grid"):
        Counts.of(labels, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="one grid"):
        Counts.of(labels, labels, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="prediction"):
        Counts.of(np.full((2, 2, 2), 12, np.uint8), labels)
    with pytest.raises(ValueError, match="truth"):
        Counts.of(labels, labels.astype(np.int64))


# --- what a frame sees

_CAMERA = PinholeCamera(40, 30, 30.0, 31.0, 18.7, 15.2)


def frame_of(seed):
    """A random pose, a grid near it, a depth image with holes."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    pose = Pose(quaternion_to_matrix(quaternion / np.linalg.norm(quaternion)), rng.uniform(-0.5, 0.5, 3))
    grid = VoxelGrid(rng.uniform(-1.5, 0, 3), tuple(rng.integers(1, 14, 3)), 0.1)
    depth = rng.uniform(0.2, 2.0, (30, 40)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = 0
    depth[rng.random(depth.shape) < 0.1] = np.nan
    return pose, grid, depth


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_what_is_seen_and_in_view_equals_a_loop(seed):
    pose, grid, depth = frame_of(seed)
    seen, viewed = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    for index in np.ndindex(*grid.shape):
        x, y, z = pose.rotation.T @ (grid.centre_of(np.array(index)) - pose.translation)
        if z > 0:
            u, v = _CAMERA.fx * x / z + _CAMERA.cx, _CAMERA.fy * y / z + _CAMERA.cy
            column, row = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
            viewed[index] = 0 <= column < 40 and 0 <= row < 30
            seen[index] = viewed[index] and depth[row, column] > 0 and z <= depth[row, column] + grid.resolution
    for row, column in np.argwhere(depth > 0):
        z = float(depth[row, column])
        point = np.array([(column - _CAMERA.cx) / _CAMERA.fx * z, (row - _CAMERA.cy) / _CAMERA.fy * z, z])
        hit = np.floor((pose.rotation @ point + pose.translation - grid.origin) / grid.resolution).astype(int)
        if (hit >= 0).all() and (hit < grid.shape).all():
            seen[tuple(hit)] = True
    assert np.array_equal(visible_voxels(depth, _CAMERA, pose, grid), seen)
    assert np.array_equal(view_of(_CAMERA, pose, grid), viewed)


def test_a_floor_is_seen_at_a_flat_angle():
    # The camera looks along z, 0.5 m above a floor (y points down) whose voxels begin there.
    camera = PinholeCamera(400, 300, 300.0, 300.0, 199.5, 149.5)
    rows = np.arange(300)[:, None] + np.zeros((1, 400))
    with np.errstate(divide="ignore"):
        depth = np.where(rows > camera.cy, 0.5 * camera.fy / (rows - camera.cy), 0.0).astype(np.float32)
    depth[depth > 6.0] = 0
    grid = VoxelGrid(np.array([-0.04, 0.499, 1.2]), (1, 1, 25), 0.08)  # a line of voxels, up to 3.2 m ahead
    assert visible_voxels(depth, camera, Pose.identity(), grid).mean() > 0.95


def test_a_frame_sees_one_voxel_into_a_wall_and_nothing_without_depth():
    pose = Pose.identity()  # looks along z
    grid = VoxelGrid(np.array([-0.05, -0.05, 0.0]), (1, 1, 30), 0.1)
    wall = np.full((30, 40), 1.0, np.float32)
    # Centres at 0.05, 0.15, ..., the last that is at most 1.1 m away is 1.05.
    assert np.flatnonzero(visible_voxels(wall, _CAMERA, pose, grid)).tolist() == list(range(11))
    assert not visible_voxels(np.zeros_like(wall), _CAMERA, pose, grid).any()
    assert view_of(_CAMERA, pose, grid).all()
    behind = VoxelGrid(np.array([-0.05, -0.05, -3.0]), (1, 1, 30), 0.1)
    assert not view_of(_CAMERA, pose, behind).any() and not visible_voxels(wall, _CAMERA, pose, behind).any()
    with pytest.raises(ValueError, match="resized"):
        visible_voxels(wall[:10], _CAMERA, pose, grid)
