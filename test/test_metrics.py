"""Scores and the counts they are made of, against plain loops and by hand; what a frame sees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import CAMERA, LOOKING_ALONG_X, ROOM, depth_of_boxes, pose_at

from sgrocc.evaluation.metrics import Counts, count_subsets, score, view_of, visible_voxels
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import CEILING, CHAIR, CLASS_LABELS, CLASS_NAMES, FLOOR, FREE, GENERIC, SOFA, UNKNOWN, WALL

LABELS = np.array([FREE, *CLASS_LABELS, UNKNOWN], np.uint8)
FACES = [offset for offset in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, offset)) == 1]
AROUND = list(itertools.product((-1, 0, 1), repeat=3))
#: Names of counts as they stand in the scores.
TOTALS = ("scored", "occupied_truth", "occupied_prediction", "true_positive", "false_positive", "false_negative")


def random_labels(rng, shape, unknown=0.3, free=0.4):
    labels = rng.choice(np.array(CLASS_LABELS, np.uint8), shape)
    labels[rng.random(shape) < free] = FREE
    labels[rng.random(shape) < unknown] = UNKNOWN
    return labels


def plain_boundary(occupied, known):
    """The set of voxels (x, y, z) that are known, occupied, and beside a known free one, by a plain loop."""
    found = set()
    for voxel in np.ndindex(known.shape):
        for offset in FACES:
            other = tuple(int(a + b) for a, b in zip(voxel, offset, strict=True))
            inside = all(0 <= n < size for n, size in zip(other, known.shape, strict=True))
            if inside and known[voxel] and known[other] and occupied[voxel] and not occupied[other]:
                found.add(voxel)
    return found


def near(voxel, others):
    return any(tuple(a + b for a, b in zip(voxel, offset, strict=True)) in others for offset in AROUND)


def plain_counts(prediction, truth, mask):
    """What the scores count, voxel by voxel: (pairs, totals by name, the four of the boundary)."""
    known = truth != UNKNOWN
    occupied = (prediction != FREE) & (prediction != UNKNOWN)
    pairs, totals = np.zeros((12, 12), int), dict.fromkeys(TOTALS, 0)
    for voxel in np.ndindex(truth.shape):
        if not (known[voxel] and mask[voxel]):
            continue
        guess = int(prediction[voxel]) if occupied[voxel] else FREE
        really = int(truth[voxel])
        pairs[really, guess] += 1
        totals["scored"] += 1
        totals["occupied_truth"] += really != FREE
        totals["occupied_prediction"] += guess != FREE
        totals["true_positive"] += really != FREE and guess != FREE
        totals["false_positive"] += really == FREE and guess != FREE
        totals["false_negative"] += really != FREE and guess == FREE
    mine, theirs = plain_boundary(occupied, known), plain_boundary((truth != FREE) & known, known)
    mine_counted, theirs_counted = [v for v in mine if mask[v]], [v for v in theirs if mask[v]]
    boundary = [
        len(mine_counted),
        sum(near(v, theirs) for v in mine_counted),
        len(theirs_counted),
        sum(near(v, mine) for v in theirs_counted),
    ]
    return pairs, totals, boundary


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
def test_the_counts_are_those_of_a_plain_loop(seed, shape):
    rng = np.random.default_rng(seed)
    prediction, truth = random_labels(rng, shape, 0.1), random_labels(rng, shape, rng.choice([0.0, 0.3, 0.95]))
    mask = rng.random(shape) < 0.6
    everywhere = np.ones(shape, bool)
    for counts, subset in zip(count_subsets(prediction, truth, [None, mask]), (everywhere, mask), strict=True):
        pairs, totals, boundary = plain_counts(prediction, truth, subset)
        assert np.array_equal(counts.voxels, pairs)
        assert counts.boundary.tolist() == boundary
        assert counts.scores()["counts"] == totals
        assert list(counts.scores()["boundary_counts"].values()) == boundary


def test_the_counts_of_many_masks_are_those_of_each():
    rng = np.random.default_rng(1)
    prediction, truth = random_labels(rng, (9, 8, 7)), random_labels(rng, (9, 8, 7))
    masks = [None, rng.random((9, 8, 7)) < 0.5, np.zeros((9, 8, 7), bool)]
    assert count_subsets(prediction, truth, masks) == [Counts.of(prediction, truth, mask) for mask in masks]
    assert count_subsets(prediction, truth, masks)[2] == Counts.nothing()


def test_a_subset_and_the_rest_add_up_to_all():
    rng = np.random.default_rng(2)
    prediction, truth = random_labels(rng, (12, 11, 10)), random_labels(rng, (12, 11, 10))
    seen = rng.random(truth.shape) < 0.3
    everything, visible, occluded = count_subsets(prediction, truth, [None, seen, ~seen])
    assert visible + occluded == everything


def test_counts_of_maps_add_up_in_any_order_to_those_of_all():
    rng = np.random.default_rng(3)
    maps = [(random_labels(rng, (6, 6, 6)), random_labels(rng, (6, 6, 6))) for _ in range(5)]
    one_by_one = [Counts.of(*pair) for pair in maps]
    forward, backward = Counts.nothing(), Counts.nothing()
    for counts in one_by_one:
        forward += counts
    for counts in reversed(one_by_one):
        backward += counts
    assert forward == backward
    # The same, with one map of all of them, apart so that no boundary lies between two.
    apart = np.full((2, 6, 6), UNKNOWN, np.uint8)
    joined = [np.concatenate([part for pair in maps for part in (pair[i], apart)]) for i in range(2)]
    assert Counts.of(*joined) == forward
    # Micro: the scores are those of the sums, not the mean of the maps'.
    intersection = sum(counts.scores()["counts"]["true_positive"] for counts in one_by_one)
    union = sum(
        counts.scores()["counts"][key]
        for counts in one_by_one
        for key in ("true_positive", "false_positive", "false_negative")
    )
    assert forward.scores()["sc_iou"] == intersection / union


def test_scores_of_a_small_grid_by_hand():
    truth = np.array([[[FLOOR, FLOOR, FREE, FREE, CHAIR, UNKNOWN, WALL, FREE]]], np.uint8)
    guess = np.array([[[FLOOR, CHAIR, FREE, WALL, CHAIR, WALL, FREE, UNKNOWN]]], np.uint8)
    scores = Counts.of(guess, truth).scores()
    # Of the seven known voxels 3 are hit, 1 is false (the fourth) and 1 missed (the wall).
    assert scores["counts"] == {
        "scored": 7,
        "occupied_truth": 4,
        "occupied_prediction": 4,
        "true_positive": 3,
        "false_positive": 1,
        "false_negative": 1,
    }
    assert (scores["sc_iou"], scores["precision"], scores["recall"]) == (3 / 5, 3 / 4, 3 / 4)
    # floor: 1 of 2; chair: 1 of 2 (one is floor); wall: 0 of 2 (one is missed, one false).
    assert scores["per_class"]["floor"] == pytest.approx(1 / 2, abs=1e-5)
    assert scores["per_class"]["chair"] == pytest.approx(1 / 2, abs=1e-5)
    assert scores["per_class"]["wall"] == 0.0
    assert [name for name, value in scores["per_class"].items() if value is not None] == ["floor", "wall", "chair"]
    assert scores["miou"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 11, abs=1e-5)
    assert list(scores["per_class"]) == list(CLASS_NAMES)


def test_boundaries_of_a_small_grid_by_hand():
    #                  0      1     2     3     4     5        6
    truth = np.array([WALL, WALL, FREE, FREE, WALL, UNKNOWN, FREE], np.uint8).reshape(7, 1, 1)
    guess = np.array([FREE, WALL, WALL, WALL, FREE, WALL, FREE], np.uint8).reshape(7, 1, 1)
    # Truth: 1 (beside 2) and 4 (beside 3). Guess: 1 (beside 0) and 3 (beside 4); 5 is unknown to the truth.
    counts = Counts.of(guess, truth)
    assert counts.boundary.tolist() == [2, 2, 2, 2]
    assert counts.scores()["boundary_f1"] == 1.0
    # Two voxels off is a miss.
    shifted = np.array([FREE, FREE, FREE, WALL, FREE, FREE, FREE], np.uint8).reshape(7, 1, 1)
    near_one = np.array([WALL, WALL, FREE, FREE, FREE, UNKNOWN, FREE], np.uint8).reshape(7, 1, 1)
    scores = Counts.of(shifted, near_one).scores()
    assert (scores["boundary_precision"], scores["boundary_recall"], scores["boundary_f1"]) == (0.0, 0.0, 0.0)
    # One of the two boundary voxels of the truth is found: precision 1, recall 1/2, F1 2/3.
    half = np.array([FREE, WALL, FREE, FREE, FREE, FREE, FREE], np.uint8).reshape(7, 1, 1)
    scores = Counts.of(half, truth).scores()
    assert (scores["boundary_precision"], scores["boundary_recall"]) == (1.0, 1 / 2)
    assert scores["boundary_f1"] == pytest.approx(2 / 3)


def test_a_diagonal_neighbour_matches_and_a_filled_solid_has_no_inner_boundary():
    truth = np.zeros((7, 7, 7), np.uint8)
    truth[1:5, 1:5, 1:5] = SOFA
    counts = Counts.of(truth, truth)
    assert counts.boundary.tolist() == [4**3 - 2**3] * 4
    shifted = np.roll(truth, (1, 1, 1), (0, 1, 2))
    assert Counts.of(shifted, truth).scores()["boundary_f1"] == 1.0
    assert Counts.of(np.roll(truth, 2, 0), truth).scores()["boundary_f1"] < 1.0


def test_boundaries_are_no_boundaries_at_the_edge_of_the_grid_or_of_what_is_known():
    truth = np.full((4, 4, 4), WALL, np.uint8)
    assert Counts.of(truth, truth).boundary.tolist() == [0, 0, 0, 0]
    truth[2:] = UNKNOWN
    assert Counts.of(np.full((4, 4, 4), WALL, np.uint8), truth).boundary.tolist() == [0, 0, 0, 0]
    assert Counts.of(truth, truth).scores()["boundary_f1"] is None


def test_a_subset_says_which_voxels_count_and_not_where_neighbours_are_sought():
    truth = np.array([WALL, FREE, FREE], np.uint8).reshape(3, 1, 1)
    guess = np.array([FREE, WALL, FREE], np.uint8).reshape(3, 1, 1)
    only_middle = np.array([False, True, False]).reshape(3, 1, 1)
    assert Counts.of(guess, truth, only_middle).boundary.tolist() == [1, 1, 0, 0]


def test_scores_where_there_is_nothing():
    scores = Counts.nothing().scores()
    assert scores["counts"] == dict.fromkeys(TOTALS, 0)
    nothing = {key: value for key, value in scores.items() if key not in ("per_class", "counts", "boundary_counts")}
    assert set(nothing.values()) == {None} and set(scores["per_class"].values()) == {None}
    free = np.zeros((2, 2, 2), np.uint8)
    wall = np.full((2, 2, 2), WALL, np.uint8)
    missed = Counts.of(free, wall).scores()
    assert (missed["sc_iou"], missed["precision"], missed["recall"], missed["miou"]) == (0.0, None, 0.0, 0.0)
    false = Counts.of(wall, free).scores()
    assert (false["sc_iou"], false["precision"], false["recall"]) == (0.0, 0.0, None)
    assert false["miou"] is None  # the truth says nothing of classes


def test_a_truth_without_classes_is_not_scored_by_class():
    truth = np.array([[[GENERIC, FREE, GENERIC]]], np.uint8)
    guess = np.array([[[CHAIR, FREE, FREE]]], np.uint8)
    scores = Counts.of(guess, truth).scores()
    assert scores["miou"] is None and set(scores["per_class"].values()) == {None} and scores["sc_iou"] == 1 / 2


def test_what_the_prediction_does_not_know_is_free_and_what_the_truth_does_not_know_is_not_scored():
    truth = np.array([[[CHAIR, CHAIR, FREE, UNKNOWN, UNKNOWN]]], np.uint8)
    guess = np.array([[[CHAIR, UNKNOWN, UNKNOWN, CHAIR, UNKNOWN]]], np.uint8)
    assert Counts.of(guess, truth) == Counts.of(np.array([[[CHAIR, FREE, FREE, FREE, WALL]]], np.uint8), truth)
    all_unknown = np.full((3, 3, 3), UNKNOWN, np.uint8)
    assert Counts.of(np.full((3, 3, 3), CEILING, np.uint8), all_unknown) == Counts.nothing()


@pytest.mark.parametrize(
    ("guess", "truth", "mask", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), None, "one grid"),
        (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8), np.ones((2, 2, 1), bool), "one grid"),
        (np.full((2, 2, 2), 12, np.uint8), np.zeros((2, 2, 2), np.uint8), None, "of the prediction"),
        (np.zeros((2, 2, 2), np.uint8), np.full((2, 2, 2), 254, np.uint8), None, "of the truth"),
        (np.zeros((2, 2, 2), np.int64), np.zeros((2, 2, 2), np.uint8), None, "uint8"),
    ],
)
def test_what_cannot_be_counted_is_refused(guess, truth, mask, message):
    with pytest.raises(ValueError, match=message):
        Counts.of(guess, truth, mask)


def test_maps_are_scored_as_their_counts():
    rng = np.random.default_rng(4)
    truth, guess = random_labels(rng, (6, 5, 4)), random_labels(rng, (6, 5, 4))
    maps = [
        Occupancy(labels, ((labels != FREE) & (labels != UNKNOWN)).astype(np.float32), np.zeros(3), 0.08, "odom")
        for labels in (guess, truth)
    ]
    assert score(*maps) == Counts.of(guess, truth).scores()


# -- what a frame sees -------------------------------------------------------------------------------------------------

GRID = VoxelGrid(np.array([-0.37, -1.9, -0.83]), (23, 24, 12), 0.16)


def plain_view(camera, pose, grid, depth=None):
    """Voxel by voxel: in the image, and with `depth`, not more than a voxel behind it."""
    inverse = pose.inverse()
    seen = np.zeros(grid.shape, bool)
    for voxel in np.ndindex(grid.shape):
        centre = inverse.apply(grid.origin + (np.array(voxel) + 0.5) * grid.resolution)
        if centre[2] <= 0:
            continue
        u = camera.fx * centre[0] / centre[2] + camera.cx
        v = camera.fy * centre[1] / centre[2] + camera.cy
        column, row = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
        if 0 <= column < camera.width and 0 <= row < camera.height:
            there = None if depth is None else depth[row, column]
            seen[voxel] = there is None or (there > 0 and centre[2] <= there + grid.resolution)
    return seen


def tilted(yaw, pitch, translation):
    """A camera that looks along x, turned left by yaw and down by pitch."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]]) @ np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
    return Pose(turn @ LOOKING_ALONG_X, np.array(translation))


@pytest.mark.parametrize(
    "pose",
    [pose_at(0, 0, 0), tilted(0.7, 0.3, [0.2, -0.3, 0.4]), tilted(-2.5, -0.2, [2.0, 1.0, 0.1]), pose_at(-30, 0, 0)],
)
def test_seen_voxels_are_those_of_a_plain_loop(pose):
    depth = depth_of_boxes(ROOM, CAMERA, pose)
    visible, in_view = visible_voxels(depth, CAMERA, pose, GRID), view_of(CAMERA, pose, GRID)
    # Centres that fall between two pixels to the last bit may go either way.
    assert np.count_nonzero(visible != plain_view(CAMERA, pose, GRID, depth)) <= 2
    assert np.count_nonzero(in_view != plain_view(CAMERA, pose, GRID)) <= 2
    assert not (visible & ~in_view).any()


def test_what_is_behind_a_wall_or_without_depth_is_not_seen():
    camera = PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5)
    grid = VoxelGrid(np.array([0.0, -0.4, -0.4]), (40, 10, 10), 0.08)
    depth = np.full((48, 64), 1.05, np.float32)
    line = visible_voxels(depth, camera, pose_at(0, 0, 0), grid)[:, 5, 5]
    # Centres at 0.04 + 0.08 i: up to 1.08 m, the one voxel behind the wall; not 1.16 m.
    assert line[2:14].all() and not line[14:].any()
    for invalid in (0.0, -1.0, np.nan, np.inf):
        depth[:] = invalid
        assert not visible_voxels(depth, camera, pose_at(0, 0, 0), grid).any()


def test_depth_of_another_size_than_its_camera_is_refused():
    with pytest.raises(ValueError, match="resized"):
        visible_voxels(np.ones((60, 80), np.float32), CAMERA, pose_at(0, 0, 0), GRID)
