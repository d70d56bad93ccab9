"""The map from above: grids of occupancy and of cost and the distances, each against a walk through the columns."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2")
pytest.importorskip("rosbags.typesys", reason="needs rosbags")

from test_messages import HEADER, as_rosbags, points_of  # noqa: E402

from sgrocc.labels import CEILING, CHAIR, CLASS_LABELS, FLOOR, FREE, TABLE, UNKNOWN, WALL  # noqa: E402
from sgrocc_ros import grids, parameters  # noqa: E402

COSTS = {label: 8 * label for label in CLASS_LABELS} | {CEILING: 0, FLOOR: 0, WALL: 100}
RESOLUTION = 0.1


def arrays_of(voxels: dict) -> tuple[np.ndarray, np.ndarray]:
    """(indices (N, 3) int32, labels (N,) uint8) of {(x, y, z): label}."""
    return np.array(list(voxels), np.int32).reshape(-1, 3), np.array(list(voxels.values()), np.uint8)


def cells_of(msg) -> np.ndarray:
    """(height, width) int8; row 0 is the one of the lowest y."""
    as_rosbags(msg)  # it can be sent
    assert msg.header == HEADER and msg.info.resolution == pytest.approx(RESOLUTION)
    turn = msg.info.origin.orientation
    assert (turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 1) and msg.info.origin.position.z == 0
    return np.array(msg.data, np.int8).reshape(msg.info.height, msg.info.width)


def grid_of(voxels: dict, low: float, high: float, resolution: float = RESOLUTION, **options):
    msg = grids.occupancy_grid_message(HEADER, *arrays_of(voxels), resolution, low, high, **options)
    as_rosbags(msg)  # it can be sent
    return msg, np.array(msg.data, np.int8).reshape(msg.info.height, msg.info.width)


def cost_of(voxels: dict, low: float, high: float, costs=COSTS, **options):
    msg = grids.cost_grid_message(HEADER, *arrays_of(voxels), RESOLUTION, low, high, costs, **options)
    return msg, cells_of(msg)


def distances_of(voxels: dict, low: float, high: float, *options) -> list[tuple[float, float, float, float]]:
    msg = grids.distance_cloud(HEADER, *arrays_of(voxels), RESOLUTION, low, high, *options)
    assert msg.header == HEADER
    points = points_of(msg)
    assert points.dtype == np.dtype([(name, "<f4") for name in ("x", "y", "z", "distance")])
    return points.tolist()


def columns_of(voxels: dict, low: float, high: float) -> dict[tuple[int, int], list[int]]:
    """{(x, y): labels of the known voxels of the band}, by the heights of their centres."""
    columns: dict[tuple[int, int], list[int]] = {}
    for (x, y, z), label in voxels.items():
        if low <= (z + 0.5) * RESOLUTION <= high and label != UNKNOWN:
            columns.setdefault((x, y), []).append(label)
    return columns


#: Bands whose edges lie on no centre: those that do have a test of their own.
BANDS = st.tuples(st.integers(-6, 4), st.integers(0, 8)).map(lambda b: (0.1 * b[0] + 0.02, 0.1 * (b[0] + b[1]) + 0.02))
VOXELS = st.dictionaries(
    st.tuples(st.integers(-4, 3), st.integers(2, 7), st.integers(-5, 8)),
    st.sampled_from([FREE, FREE, FREE, CEILING, FLOOR, WALL, CHAIR, TABLE, UNKNOWN]),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(VOXELS, BANDS, st.sampled_from([0.15, 0.3, 5.0]))
def test_every_cell_agrees_with_a_walk_through_its_column(voxels, band, max_distance_m):
    columns = columns_of(voxels, *band)
    both = [grid_of(voxels, *band, free_is_known=known) for known in (True, False)]
    costs = [cost_of(voxels, *band, free_is_known=known) for known in (True, False)]
    infos = [msg.info for msg, _ in both + costs]
    assert all(info == infos[0] for info in infos)
    distances = iter(distances_of(voxels, *band, max_distance_m))
    if columns:
        x0, y0 = (min(column[axis] for column in columns) for axis in (0, 1))
        assert infos[0].width == max(x for x, _ in columns) - x0 + 1
        assert infos[0].height == max(y for _, y in columns) - y0 + 1
        origin = infos[0].origin.position
        assert (origin.x, origin.y) == pytest.approx((RESOLUTION * x0, RESOLUTION * y0))
    occupied = [column for column, labels in columns.items() if any(labels)]
    for row, column in np.ndindex(infos[0].height, infos[0].width):
        x, y = x0 + column, y0 + row
        labels = columns.get((x, y), [])
        occupancy = 100 if any(labels) else 0 if labels else -1
        cost = max((COSTS.get(label, 0) for label in labels), default=-1)
        assert [cells[row, column] for _, cells in both] == [occupancy, occupancy or -1]
        assert [cells[row, column] for _, cells in costs] == [cost, cost or -1]
        if labels:
            nearest = min((RESOLUTION * math.dist((x, y), other) for other in occupied), default=math.inf)
            point = (RESOLUTION * (x + 0.5), RESOLUTION * (y + 0.5), band[0], min(nearest, max_distance_m))
            assert next(distances) == pytest.approx(point, abs=1e-6)
    assert next(distances, None) is None


# -- occupancy -----------------------------------------------------------------------------------------------------


def test_known_cells_are_where_they_are():
    voxels = {
        (-3, 2, 1): 3,  # occupied
        (-3, 2, 2): 0,  # free above it: still occupied
        (1, 4, 3): 0,  # free
        (0, 2, 2): 5,
        (-1, 3, 1): 255,  # unknown
        (-2, 3, 9): 7,  # above the band
        (-9, 9, 9): 7,  # above the band, and outside what is known within it
        (9, -9, 0): 0,  # below the band
    }
    msg, cells = grid_of(voxels, 0.1, 0.5)
    # x from -3 to 1, y from 2 to 4.
    assert (msg.info.width, msg.info.height) == (5, 3) and msg.info.resolution == pytest.approx(0.1)
    origin = msg.info.origin
    assert (origin.position.x, origin.position.y) == pytest.approx((-0.3, 0.2))
    assert (origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w) == (0, 0, 0, 1)
    assert cells.tolist() == [[100, -1, -1, 100, -1], [-1] * 5, [-1, -1, -1, -1, 0]]
    assert msg.header == HEADER


@pytest.mark.parametrize("resolution", [0.05, 0.08, 0.1])
def test_the_edges_of_the_band_belong_to_it(resolution):
    for index in range(-30, 30):
        centre = (index + 0.5) * resolution
        voxels = {(0, 0, index): 3}
        for low, high, inside in (
            (centre, centre + 1, True),
            (centre - 1, centre, True),
            (centre + 0.01, centre + 1, False),
            (centre - 1, centre - 0.01, False),
        ):
            assert grid_of(voxels, low, high, resolution)[1].size == inside


def test_where_nothing_is_known_there_are_no_cells():
    for voxels in ({}, {(1, 2, 3): UNKNOWN}, {(1, 2, 50): WALL}):
        for msg, cells in (grid_of(voxels, -1, 1), cost_of(voxels, -1, 1)):
            assert (msg.info.width, msg.info.height, len(msg.data)) == (0, 0, 0) and cells.shape == (0, 0)
            assert (msg.info.origin.position.x, msg.info.origin.position.y) == (0, 0)
        assert distances_of(voxels, -1, 1) == []
    assert grid_of({(0, 0, 0): WALL}, 1, -1)[1].size == 0  # a band upside down


def test_a_map_that_is_too_wide_is_refused():
    far = {(-10000, 0, 0): 3, (10000, 10000, 0): 0}
    for build in (grid_of, cost_of, distances_of):
        with pytest.raises(ValueError, match="20001 x 10001 cells: a voxel lies far off"):
            build(far, 0, 1)


#: (x, y): an L. Its long side lies along x at the lowest y, the short one goes up from there at the lowest x.
L_SHAPE = [(-2, 1), (-1, 1), (0, 1), (1, 1), (-2, 2), (-2, 3)]


def test_x_goes_right_y_goes_up_and_the_rows_follow_each_other():
    voxels = {(x, y, 3): WALL for x, y in L_SHAPE} | {(1, 3, 3): FREE}
    occupied = [100, 100, 100, 100, 100, -1, -1, -1, 100, -1, -1, 0]
    for msg, _ in (grid_of(voxels, 0.0, 1.0), cost_of(voxels, 0.0, 1.0)):
        assert list(msg.data) == occupied and (msg.info.width, msg.info.height) == (4, 3)
        assert (msg.info.origin.position.x, msg.info.origin.position.y) == pytest.approx((-0.2, 0.1))
    points = distances_of(voxels, 0.0, 1.0)
    where = [(-0.15, 0.15), (-0.05, 0.15), (0.05, 0.15), (0.15, 0.15), (-0.15, 0.25), (-0.15, 0.35), (0.15, 0.35)]
    np.testing.assert_allclose([point[:2] for point in points], where, atol=1e-6)
    np.testing.assert_allclose([point[3] for point in points], [0] * 6 + [0.2], atol=1e-6)


# -- free space that clears nothing --------------------------------------------------------------------------------


def test_free_space_that_is_not_known_is_unknown_and_the_cells_stay_where_they_are():
    voxels = {(0, 0, 1): FREE, (1, 0, 1): CHAIR, (2, 0, 1): FLOOR, (3, 0, 1): FREE, (3, 0, 2): FLOOR, (4, 1, 1): FREE}
    assert grid_of(voxels, 0, 1)[1].tolist() == [[0, 100, 100, 100, -1], [-1, -1, -1, -1, 0]]
    assert cost_of(voxels, 0, 1)[1].tolist() == [[0, COSTS[CHAIR], 0, 0, -1], [-1, -1, -1, -1, 0]]
    # A floor is occupied; yet its cost of 0 would clear as well.
    assert grid_of(voxels, 0, 1, free_is_known=False)[1].tolist() == [[-1, 100, 100, 100, -1], [-1] * 5]
    assert cost_of(voxels, 0, 1, free_is_known=False)[1].tolist() == [[-1, COSTS[CHAIR], -1, -1, -1], [-1] * 5]
    assert grid_of({(5, 5, 1): FREE}, 0, 1, free_is_known=False)[1].tolist() == [[-1]]


# -- costs ---------------------------------------------------------------------------------------------------------


def test_the_highest_cost_of_the_band_counts():
    voxels = {
        (0, 0, 1): TABLE,
        (0, 0, 2): CHAIR,
        (0, 0, 3): FREE,
        (0, 0, 9): WALL,  # above the band
        (1, 0, 1): CEILING,
        (1, 0, 2): CHAIR,
    }
    costs = COSTS | {TABLE: 30, CHAIR: 70}
    assert cost_of(voxels, 0.1, 0.5, costs)[1].tolist() == [[70, 70]]
    assert cost_of(dict(reversed(voxels.items())), 0.1, 0.5, costs)[1].tolist() == [[70, 70]]
    assert cost_of(voxels, 0.1, 1.0, costs)[1].tolist() == [[100, 70]]


def test_each_class_has_its_own_cost():
    costs = {label: 9 * label for label in CLASS_LABELS}
    voxels = {(label, 0, 0): label for label in CLASS_LABELS}
    assert cost_of(voxels, 0, 1, costs)[1].tolist() == [[9 * label for label in CLASS_LABELS]]
    # By default what one drives on or under costs nothing, and all else is an obstacle.
    assert cost_of(voxels, 0, 1, parameters.costs(parameters.complete({})))[1].tolist() == [[0, 0] + [100] * 9]


@pytest.mark.parametrize("wrong", [-1, 101, 50.5, math.nan, None])
def test_a_cost_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"the cost of chair is {wrong}: give a whole number from 0 to 100"):
        cost_of({(0, 0, 0): WALL}, 0, 1, COSTS | {CHAIR: wrong})
    missing = {label: cost for label, cost in COSTS.items() if label != CHAIR}
    with pytest.raises(ValueError, match="the cost of chair is None"):
        cost_of({(0, 0, 0): WALL}, 0, 1, missing)


# -- distances -----------------------------------------------------------------------------------------------------


def test_distances_to_a_post():
    voxels = {(x, y, 1): FREE for x in range(-3, 4) for y in range(5)} | {(0, 0, 1): CHAIR}
    points = {(round(10 * x - 0.5), round(10 * y - 0.5)): d for x, y, _, d in distances_of(voxels, 0.1, 0.5)}
    assert len(points) == 35 and points[0, 0] == 0
    assert points[3, 4] == pytest.approx(0.5) and points[-3, 4] == pytest.approx(0.5)
    assert points[2, 0] == pytest.approx(0.2) and points[0, 3] == pytest.approx(0.3)
    assert points[-1, 1] == pytest.approx(0.1 * math.sqrt(2))
    assert {z for _, _, z, _ in distances_of(voxels, 0.1, 0.5)} == {np.float32(0.1)}


def test_what_is_far_and_what_has_no_obstacle_has_the_greatest_distance():
    lane = {(x, 0, 1): FREE for x in range(80)}
    for voxels, options, expected in (
        (lane, (), [5.0] * 80),
        (lane, (1.5,), [1.5] * 80),
        (lane | {(0, 0, 1): WALL}, (), [min(0.1 * x, 5.0) for x in range(80)]),
        (lane | {(0, 0, 1): WALL}, (2.0,), [min(0.1 * x, 2.0) for x in range(80)]),
    ):
        distances = [distance for *_, distance in distances_of(voxels, 0.1, 0.5, *options)]
        assert distances == pytest.approx(expected, abs=1e-5) and np.isfinite(distances).all()


def test_distances_stay_exact_in_a_wide_map():
    """Far along a row the squares of the columns no longer fit into a float32."""
    rng = np.random.default_rng(3)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(60_000), np.arange(3)))
    occupied = rng.random(len(x)) < 0.02
    indices = np.stack([x - 30_000, y, np.zeros_like(x)], axis=1).astype(np.int32)
    msg = grids.distance_cloud(HEADER, indices, np.where(occupied, WALL, FREE).astype(np.uint8), 0.1, 0, 1, 2.0)
    points = points_of(msg)
    expected = np.full(len(x), np.inf)
    for dx in range(-20, 21):
        for dy in range(-2, 3):
            inside = (x + dx >= 0) & (x + dx < 60_000) & (y + dy >= 0) & (y + dy < 3)
            there = np.zeros(len(x), bool)
            there[inside] = occupied[(y + dy)[inside] * 60_000 + (x + dx)[inside]]
            expected[there] = np.minimum(expected[there], 0.1 * math.hypot(dx, dy))
    np.testing.assert_allclose(points["x"], 0.1 * (indices[:, 0] + 0.5), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(points["distance"], np.minimum(expected, 2.0), atol=1e-5)


def test_without_opencv_the_grids_remain(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # importing it fails
    voxels = {(0, 0, 1): WALL}
    assert grid_of(voxels, 0, 1)[1].tolist() == cost_of(voxels, 0, 1)[1].tolist() == [[100]]
    with pytest.raises(ValueError, match="OpenCV, which cannot be imported .*: pip install opencv-python-headless"):
        distances_of(voxels, 0, 1)
