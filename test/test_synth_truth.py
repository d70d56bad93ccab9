"""The truth of a scene: which voxels are filled, by whom, and which of them a camera saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.geometry.pose import quaternion_to_matrix
from sgrocc.labels import CHAIR, FLOOR, FREE, SOFA, TABLE, UNKNOWN, WALL
from sgrocc.synthrooms import truth
from sgrocc.synthrooms.scene import Look, box, cylinder, ellipsoid, heading

LOOK = Look("plain")
CAMERA = PinholeCamera(160, 120, 120.0, 120.0, 79.5, 59.5)
GRID = VoxelGrid(np.zeros(3), (20, 20, 20), 0.08)


def of_piece(solid, piece):
    return replace(solid, piece=piece)


def voxelised(solids, grid):
    """Labels and pieces of filled solids."""
    occupants = truth.Occupants(solids, grid)
    return occupants.labels(grid), occupants.pieces(grid)


def looking_along_x(x, y, z):
    """A camera at (x, y, z) that looks along +x, its image upright."""
    return Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([x, y, z], float))


def test_a_box_fills_exactly_the_voxels_it_reaches():
    table = of_piece(box(TABLE, LOOK, (0.16, 0.32), (0.08, 0.40), (0.0, 0.24)), 5)
    labels, pieces = voxelised([table], GRID)
    assert (labels[2:4, 1:5, 0:3] == TABLE).all() and np.count_nonzero(labels) == 2 * 4 * 3
    assert (pieces[2:4, 1:5, 0:3] == 5).all() and np.count_nonzero(pieces >= 0) == 24


def test_one_sample_of_a_voxel_is_enough_and_none_is_not():
    # The first samples of a voxel lie 1 cm from its border, the next ones 3 cm.
    reached, _ = voxelised([of_piece(box(WALL, LOOK, (0.0, 0.092), (0, 0.08), (0, 0.08)), 0)], GRID)
    missed, _ = voxelised([of_piece(box(WALL, LOOK, (0.0, 0.088), (0, 0.08), (0, 0.08)), 0)], GRID)
    assert reached[:3, 0, 0].tolist() == [WALL, WALL, FREE]
    assert missed[:3, 0, 0].tolist() == [WALL, FREE, FREE]


def test_the_larger_part_of_a_voxel_decides_and_the_lower_piece_where_they_are_equal():
    larger = of_piece(box(SOFA, LOOK, (0.02, 0.08), (0, 0.08), (0, 0.08)), 9)
    smaller = of_piece(box(CHAIR, LOOK, (0.0, 0.02), (0, 0.08), (0, 0.08)), 1)
    labels, pieces = voxelised([smaller, larger], GRID)
    assert (labels[0, 0, 0], pieces[0, 0, 0]) == (SOFA, 9)
    halves = [of_piece(box(SOFA, LOOK, (0.0, 0.04), (0, 0.08), (0, 0.08)), 9)]
    halves.append(of_piece(box(CHAIR, LOOK, (0.04, 0.08), (0, 0.08), (0, 0.08)), 1))
    labels, pieces = voxelised(halves, GRID)
    assert (labels[0, 0, 0], pieces[0, 0, 0]) == (CHAIR, 1)


def test_solids_of_one_piece_count_together():
    slats = [of_piece(box(TABLE, LOOK, (x, x + 0.02), (0, 0.08), (0, 0.08)), 4) for x in (0.0, 0.02)]
    other = of_piece(box(CHAIR, LOOK, (0.04, 0.07), (0, 0.08), (0, 0.08)), 0)
    labels, _ = voxelised([*slats, other], GRID)
    assert labels[0, 0, 0] == TABLE


def test_what_solids_of_one_piece_share_counts_once():
    shared = [of_piece(box(TABLE, LOOK, (0.0, 0.03), (0, 0.08), (0, 0.08)), 4) for _ in range(3)]
    larger = of_piece(box(CHAIR, LOOK, (0.02, 0.08), (0, 0.08), (0, 0.08)), 5)
    labels, _ = voxelised([*shared, larger], GRID)
    assert labels[0, 0, 0] == CHAIR
    assert truth.Occupants([*shared, larger], GRID).counts.max() <= 64


@pytest.mark.parametrize("seed", range(6))
def test_voxels_agree_with_every_sample_looked_at_one_by_one(seed):
    rng = np.random.default_rng(seed)
    pose = heading(rng.uniform(-3, 3), 0.8, 0.8, rng.uniform(-0.03, 0.03))
    solids = [
        of_piece(box(WALL, LOOK, (-0.3, 0.31), (-0.05, 0.07), (0, 0.9), rounding_m=0.02), 0).moved(pose),
        of_piece(cylinder(TABLE, LOOK, 0.1, 0.2, (0.1, 0.5), 0.23), 1).moved(pose),
        of_piece(ellipsoid(SOFA, LOOK, (0.2, -0.2, 0.4), (0.3, 0.2, 0.1)), 2).moved(pose),
    ]
    labels, pieces = voxelised(solids, GRID)
    ticks = (np.arange(4) + 0.5) * 0.02
    for index in rng.integers(0, 20, (400, 3)):
        corner = index * 0.08
        samples = corner + np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
        counts = [np.count_nonzero(solid.distance(samples) <= 0) for solid in solids]
        expected = (0, -1) if not any(counts) else (solids[int(np.argmax(counts))].label, int(np.argmax(counts)))
        assert (labels[tuple(index)], pieces[tuple(index)]) == expected


def test_the_grid_of_a_scene_holds_every_solid_and_begins_on_a_whole_voxel():
    solids = [box(WALL, LOOK, (-1.01, 2.0), (0.3, 0.5), (-0.11, 2.5)).moved(heading(0.7, 0.3, -0.2, 0.02))]
    grid = truth.scene_grid(solids)
    low, high = solids[0].bounds()
    assert np.allclose(np.rint(grid.origin / 0.08), grid.origin / 0.08, atol=1e-9)
    assert (grid.origin <= low).all() and (grid.origin + np.array(grid.shape) * 0.08 >= high).all()
    assert (low - grid.origin < 0.08).all()


def test_a_camera_sees_what_is_in_front_of_a_wall_and_nothing_behind_it():
    grid = VoxelGrid(np.zeros(3), (40, 20, 20), 0.08)
    occupied = np.zeros(grid.shape, bool)
    occupied[20:22] = True
    passed, hit = truth.see(occupied, grid, CAMERA, looking_along_x(0.6, 0.8, 0.8))
    through = np.zeros(grid.shape, bool)
    through.reshape(-1)[passed] = True
    seen = np.zeros(grid.shape, bool)
    seen.reshape(-1)[hit] = True
    assert through[8:20, 10, 10].all() and not through[20:].any() and not through[:7].any()
    assert seen[20, 10, 10] and not seen[21:].any() and not seen[:20].any()
    # 1 m ahead the view is 160 / 120 m wide and 1 m high: the whole wall's height is not.
    assert seen[20, 3:17, 5:15].all() and not seen[20, :, 0].any()


@pytest.mark.parametrize("seed", range(4))
def test_every_voxel_a_ray_passes_is_where_small_steps_along_it_lead(seed):
    rng = np.random.default_rng(seed)
    grid = VoxelGrid(np.array([-0.8, -0.4, 0.0]), (25, 22, 18), 0.08)
    occupied = rng.random(grid.shape) < 0.03
    q = rng.standard_normal(4)
    pose = Pose(quaternion_to_matrix(q / np.linalg.norm(q)), grid.origin + rng.uniform(0.3, 0.7, 3) * [2.0, 1.76, 1.44])
    occupied[tuple(grid.index_of(pose.translation))] = False
    passed, hit = truth.see(occupied, grid, CAMERA, pose)
    stepped_passed, stepped_hit = set(), set()
    for v in range(truth.RAY_STEP_PX // 2, CAMERA.height, truth.RAY_STEP_PX):
        for u in range(truth.RAY_STEP_PX // 2, CAMERA.width, truth.RAY_STEP_PX):
            ray = pose.rotation @ CAMERA.back_project(np.array([u, v], float), np.array(1.0))
            points = pose.translation + np.arange(0, 4, 0.002)[:, None] * ray / np.linalg.norm(ray)
            index = grid.index_of(points)
            index = index[grid.contains(index)]
            flat = np.ravel_multi_index(index.T, grid.shape)
            blocked = np.flatnonzero(occupied.reshape(-1)[flat])
            stepped_passed |= set(flat[: blocked[0] if len(blocked) else None])
            stepped_hit |= set(flat[blocked[:1]])
    # Steps of 2 mm jump over corners of voxels, free or not, that a ray cuts shorter than that.
    assert len(set(passed) ^ stepped_passed) <= 0.01 * len(passed)
    assert len(set(hit) ^ stepped_hit) <= 0.02 * len(hit) + 1


def test_a_ray_along_an_axis_and_one_from_outside_the_grid_are_followed():
    grid = VoxelGrid(np.zeros(3), (10, 10, 10), 0.08)
    one_ray = PinholeCamera(4, 4, 1e6, 1e6, 2.0, 2.0)
    passed, hit = truth.see(np.zeros(grid.shape, bool), grid, one_ray, looking_along_x(-1.0, 0.44, 0.44))
    assert passed.tolist() == [i * 100 + 55 for i in range(10)] and not len(hit)


def test_free_voxels_are_known_where_seen_through_and_solids_as_a_whole():
    labels = np.array([FREE, FREE, TABLE, TABLE, CHAIR], np.uint8).reshape(5, 1, 1)
    pieces = np.array([-1, -1, 0, 0, 1], np.int32).reshape(5, 1, 1)
    through = np.array([1, 0, 0, 0, 0], bool).reshape(5, 1, 1)
    known = truth.known(labels, pieces, through, np.array([True, False]))
    assert known.ravel().tolist() == [FREE, UNKNOWN, TABLE, TABLE, UNKNOWN]


def test_shells_keep_surfaces_and_forget_interiors():
    labels = np.full((5, 5, 5), FREE, np.uint8)
    labels[1:4, 1:4, 1:4] = SOFA
    labels[4] = UNKNOWN
    shell = truth.shells(labels)
    assert shell[2, 2, 2] == UNKNOWN and shell[1, 2, 2] == SOFA and shell[2, 1, 2] == SOFA and shell[0, 0, 0] == FREE
    # The side that nobody looked at is no surface that anybody knows.
    assert shell[3, 2, 2] == UNKNOWN and shell[3, 1, 2] == SOFA


def test_the_local_grid_lies_ahead_of_the_camera_on_the_voxels_of_the_scene():
    grid = VoxelGrid(np.array([-0.8, -1.6, -0.16]), (70, 90, 40), 0.08)
    pose = looking_along_x(1.0, 2.0, 0.5)
    local, corner = truth.local_grid(grid, pose)
    middle = local.origin + np.array([30, 30, 0]) * 0.08
    assert np.abs(middle[:2] - [3.0, 2.0]).max() <= 0.04 + 1e-9 and local.origin[2] == grid.origin[2]
    assert np.allclose(grid.origin + corner * 0.08, local.origin)
    labels = np.random.default_rng(0).integers(0, 12, grid.shape).astype(np.uint8)
    cut = truth.crop(labels, corner)
    for index in [(0, 0, 0), (59, 59, 35), (17, 30, 8)]:
        where = grid.index_of(local.centre_of(index))
        assert cut[index] == (labels[tuple(where)] if grid.contains(where) else UNKNOWN)
    assert (cut == UNKNOWN).any(), "this grid ends inside the local one"


def test_the_mask_holds_the_voxels_whose_centre_is_in_the_image():
    grid = VoxelGrid(np.array([-0.8, -0.8, -0.16]), (80, 60, 40), 0.08)
    pose = heading(0.4) @ looking_along_x(0.2, 0.3, 0.9)
    local, corner = truth.local_grid(grid, pose)
    inside, whole = truth.in_view(grid, corner, CAMERA, pose)
    centres = local.centres()
    pixels, _ = CAMERA.project(pose.inverse().apply(centres.reshape(-1, 3)))
    expected = ((pixels > -0.5) & (pixels < [159.5, 119.5])).all(axis=1).reshape(inside.shape)
    assert (inside == expected).all() and 0.05 < inside.mean() < 0.6
    index = np.argwhere(whole)
    assert inside[tuple((index - corner).T)].all()
    assert np.count_nonzero(whole) == np.count_nonzero(truth.crop(np.zeros(grid.shape, np.uint8), corner)[inside] == 0)


def test_what_moves_takes_its_voxels_and_gives_them_back():
    grid = VoxelGrid(np.zeros(3), (10, 10, 10), 0.08)
    floor = [of_piece(box(FLOOR, LOOK, (0, 0.8), (0, 0.8), (0, 0.08)), 0)]
    visitor = [of_piece(box(CHAIR, LOOK, (0.16, 0.24), (0.16, 0.24), (0.08, 0.24)), 1)]
    still = truth.Occupants(floor, grid)
    together = still.joined(truth.Occupants(visitor, grid))
    labels, _ = voxelised([*floor, *visitor], grid)
    assert (together.labels(grid) == labels).all() and labels[2, 2, 1] == CHAIR
    assert still.labels(grid)[2, 2, 1] == FREE and (together.pieces(grid)[:, :, 0] == 0).all()
