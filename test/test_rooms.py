"""Rooms: their walls are closed, nothing intersects or floats, doors are free and one can walk about."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sgrocc.labels import CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS, TABLE, WALL, WINDOW
from sgrocc.synthrooms import truth
from sgrocc.synthrooms.floor_plan import PURPOSES, FloorPlan, Opening, Room, plan_rooms, without
from sgrocc.synthrooms.placing import flood
from sgrocc.synthrooms.rooms import PANEL_M, build_scene, build_structure, floor_rectangles
from sgrocc.synthrooms.scene import Scene

SEEDS = range(12)
STRUCTURE = (CEILING, FLOOR, WALL, WINDOW)


@cache
def scene(seed: int) -> Scene:
    return build_scene(np.random.default_rng([7, seed]))


def plan(seed: int) -> FloorPlan:
    """The plan of `scene(seed)`: it is drawn first."""
    return plan_rooms(np.random.default_rng([7, seed]))


def boxes(solids) -> tuple[np.ndarray, np.ndarray]:
    bounds = np.array([solid.bounds() for solid in solids])
    return bounds[:, 0], bounds[:, 1]


@cache
def structure(seed: int) -> list:
    rng = np.random.default_rng([7, seed])
    return build_structure(plan_rooms(rng), rng)


def things(seed: int) -> list:
    """What was put into the rooms: all solids after the building's."""
    return list(scene(seed).solids[len(structure(seed)) :])


def depth_of_meeting(a, b, low: np.ndarray, high: np.ndarray) -> float:
    """How deep two solids go into each other at most, on a raster of the box that they share."""
    axes = [np.linspace(low[k], high[k], 6) for k in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return float(-np.maximum(a.distance(points), b.distance(points)).min())


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_do_not_intersect(seed):
    solids = scene(seed).solids
    low, high = boxes(solids)
    piece = np.array([solid.piece for solid in solids])
    for i, solid in enumerate(solids):
        shared_low, shared_high = np.maximum(low[i], low[i + 1 :]), np.minimum(high[i], high[i + 1 :])
        meet = (shared_high - shared_low > 1e-3).all(axis=1) & (piece[i + 1 :] != piece[i])
        for j in np.flatnonzero(meet):
            other = solids[i + 1 + j]
            depth = depth_of_meeting(solid, other, shared_low[j], shared_high[j])
            assert depth < 2e-3, (solid, other, depth)


@pytest.mark.parametrize("seed", SEEDS)
def test_things_are_inside_the_rooms(seed):
    low, high = boxes(things(seed))
    rooms = plan(seed).rooms
    assert low[:, 2].min() > -1e-6 and high[:, 2].max() < scene(seed).height_m + 1e-6
    for a, b in zip(low, high, strict=True):
        # Things stand in one room each, and a solid's box is inside it.
        assert any(room.covers(a[0] + 1e-4, a[1] + 1e-4, b[0] - 1e-4, b[1] - 1e-4) for room in rooms)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_floats(seed):
    made, building = things(seed), structure(seed)
    low, high = boxes(made + building)
    piece = np.array([solid.piece for solid in made + building])
    for number in {solid.piece for solid in made}:
        own = piece == number
        others = ~own
        near = False
        for a, b in zip(low[own], high[own], strict=True):
            apart = np.maximum(np.maximum(low[others] - b, a - high[others]), 0.0)
            near |= bool((apart.max(axis=1) < 0.006).any())
        assert near, [solid for solid in made if solid.piece == number][0]


@pytest.mark.parametrize("seed", SEEDS)
def test_doors_are_free(seed):
    low, high = boxes(things(seed))
    for opening in plan(seed).openings:
        if opening.kind == "window":
            continue
        for depth in (0.8, -0.8) if opening.kind == "doorway" else (0.8,):
            x0, y0, x1, y1 = opening.side.strip(opening.low, opening.high, depth)
            inside = (low < [x1, y1, 1.9]).all(axis=1) & (high > [x0, y0, 0.05]).all(axis=1)
            assert not inside.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_can_walk_from_room_to_room(seed):
    """A square of 0.6 m goes from door to door, and over most of the floor that it can stand on at all."""
    made = scene(seed)
    step, half = 0.05, 0.3
    rectangles = np.array(made.rectangles)
    origin = rectangles[:, :2].min(axis=0)
    shape = tuple(np.ceil((rectangles[:, 2:].max(axis=0) - origin) / step).astype(int))
    x, y = (origin[k] + (np.arange(shape[k]) + 0.5) * step for k in (0, 1))
    inside = np.zeros(shape, bool)
    for x0, y0, x1, y1 in rectangles:
        inside |= ((x > x0) & (x < x1))[:, None] & ((y > y0) & (y < y1))[None]
    free = np.ones(shape, bool)
    reach = int(half / step)
    padded = np.pad(inside, reach)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            free &= padded[i : i + shape[0], j : j + shape[1]]
    for solid in made.solids:
        low, high = solid.bounds()
        if solid.label not in (FLOOR, CEILING) and low[2] < 1.5 and high[2] > 0.05:
            across = (x > low[0] - half + 0.01) & (x < high[0] + half - 0.01)
            free[np.ix_(across, (y > low[1] - half + 0.01) & (y < high[1] + half - 0.01))] = False
    assert free.sum() * step * step > 0.7
    largest = max(
        (flood(free, tuple(start)) for start in np.argwhere(free)[:: max(int(free.sum()) // 30, 1)]), key=np.sum
    )
    assert largest.sum() > 0.6 * free.sum()
    for opening in plan(seed).openings:
        if opening.kind == "doorway":
            x0, y0, x1, y1 = opening.side.strip(opening.low, opening.high, -plan(seed).wall_m)
            hole = np.ix_((x > x0) & (x < x1), (y > y0) & (y < y1))
            assert largest[hole].any(), "a doorway leads nowhere"


@pytest.mark.parametrize("seed", [0, 3, 5, 8])
def test_the_building_is_closed(seed):
    """Air from the rooms does not get out: walls, panes, shut doors, floor and ceiling leave no hole."""
    solids = [solid.moved(scene(seed).world_from_room) for solid in structure(seed)]
    grid = truth.scene_grid(solids)
    labels = truth.Occupants(solids, grid).labels(grid)
    free = np.pad(labels == 0, 1, constant_values=True)
    outside = np.zeros_like(free)
    outside[0] = True
    while True:
        grown = outside.copy()
        for axis in range(3):
            grown |= np.roll(outside, 1, axis) | np.roll(outside, -1, axis)
        grown &= free
        if (grown == outside).all():
            break
        outside = grown
    inner = (free & ~outside)[1:-1, 1:-1, 1:-1].sum() * grid.resolution**3
    area = sum((r[2] - r[0]) * (r[3] - r[1]) for r in scene(seed).rectangles)
    assert inner > 0.9 * area * (scene(seed).height_m - 0.16)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_building_is_made_of_panels(seed):
    made = scene(seed)
    pieces: dict[int, list] = {}
    for solid in structure(seed):
        pieces.setdefault(solid.piece, []).append(solid)
    assert sorted({solid.piece for solid in made.solids}) == list(range(max(s.piece for s in made.solids) + 1))
    for solids in pieces.values():
        low, high = boxes(solids)
        size = high.max(axis=0) - low.min(axis=0)
        if len(solids) == 1 and solids[0].label in (FLOOR, CEILING) or {s.label for s in solids} == {WINDOW}:
            assert size.max() <= PANEL_M + 1e-6
    floor = [s for s in structure(seed) if s.label == FLOOR]
    ceiling = [s for s in structure(seed) if s.label == CEILING]
    assert {round(float(s.bounds()[1][2]), 6) for s in floor} == {0.0}
    assert {round(float(s.bounds()[0][2]), 6) for s in ceiling} == {round(made.height_m, 6)}
    # The floor goes on below the walls and doorways.
    low, high = boxes(floor)
    whole = np.prod((high - low)[:, :2], axis=1).sum()
    rooms = sum(room.area_m2 for room in plan(seed).rooms)
    assert rooms < whole < 2.0 * rooms


def test_windows_and_doors_are_holes_in_the_walls():
    plan = FloorPlan([Room(((0.0, 0.0, 4.0, 3.0),), "living")], 2.5, 0.12)
    south = next(s for s in plan.sides(0) if s.axis == 0 and s.inward > 0)
    plan.openings.append(Opening("window", south, 1.0, 2.2, (0.9, 2.1)))
    plan.openings.append(Opening("door", south, 2.8, 3.8, (0.0, 2.05)))
    solids = build_structure(plan, np.random.default_rng(0))

    def label_at(*point):
        hits = {s.label for s in solids if s.distance(np.array(point)) < 0}
        return hits.pop() if len(hits) == 1 else hits

    panes = [s for s in solids if s.look.texture == "outside"]
    assert {s.label for s in panes} == {WINDOW} and all(s.look.emission > 0 for s in panes)
    assert len(panes) == 4, "1.2 m x 1.2 m in panels of at most 0.8 m"
    y = panes[0].centre[1]
    assert -0.12 < y < 0.0
    assert label_at(1.3, y, 1.3) == WINDOW and label_at(1.3, y, 0.5) == WALL and label_at(1.3, y, 2.3) == WALL
    assert label_at(0.3, -0.06, 1.3) == WALL
    assert label_at(3.3, -0.06, 1.0) == WALL, "a shut door counts as wall"
    assert label_at(3.3, -0.005, 1.0) == set(), "its leaf is thinner than the wall"
    assert label_at(2.0, 1.5, -0.05) == FLOOR and label_at(2.0, 1.5, 2.55) == CEILING
    assert label_at(2.0, 1.5, 1.0) == set()


def test_a_doorway_is_floor_and_a_hole():
    plan = FloorPlan(
        [Room(((0.0, 0.0, 3.0, 3.0),), "office"), Room(((3.1, 0.0, 6.0, 3.0),), "hall")], height_m=2.5, wall_m=0.1
    )
    east = next(s for s in plan.sides(0) if s.axis == 1 and s.inward < 0)
    plan.openings.append(Opening("doorway", east, 1.0, 2.0, (0.0, 2.05), 1, 1))
    solids = build_structure(plan, np.random.default_rng(0))
    assert floor_rectangles(plan)[-1] == (2.95, 1.02, 3.15, 1.98)
    middle = np.array([3.05, 1.5, 1.0])
    assert min(s.distance(middle) for s in solids) > 0.4
    assert min(s.distance(np.array([3.05, 1.3, 2.3])) for s in solids) < 0
    # The leaf stands open in the first room, beside the hole.
    leaf = min(solids, key=lambda s: s.distance(np.array([2.5, 2.02, 1.0])))
    assert leaf.label == WALL and leaf.distance(np.array([2.5, 2.02, 1.0])) < 0


def test_sides_of_an_angle_have_no_wall_across():
    plan = FloorPlan([Room(((0.0, 0.0, 5.0, 3.0), (0.0, 3.0, 2.0, 5.0)), "living")], 2.5, 0.1)
    sides = plan.sides(0)
    assert len(sides) == 6
    assert sum(side.high - side.low for side in sides) == pytest.approx(5 + 3 + 3 + 2 + 2 + 5)
    assert any((s.axis, s.at, s.low, s.high) == (1, 0.0, 0.0, 5.0) for s in sides)
    room = plan.rooms[0]
    assert room.covers(1.0, 2.0, 1.5, 4.0) and not room.covers(1.0, 2.0, 2.5, 4.0)


def test_open_leaves_leave_other_doors_free():
    leaves = 0
    for seed in range(200):
        plan = plan_rooms(np.random.default_rng([9, seed]))
        for opening in plan.openings:
            if not opening.leaf:
                continue
            leaves += 1
            end = opening.high if opening.leaf > 0 else opening.low
            x0, y0, x1, y1 = opening.side.strip(end - 0.02, end + 0.02, opening.high - opening.low)
            for other in plan.openings:
                if other is not opening and other.kind != "window":
                    for depth in (0.8, -0.8):
                        a0, b0, a1, b1 = other.side.strip(other.low, other.high, depth)
                        assert not (x0 < a1 and x1 > a0 and y0 < b1 and y1 > b0)
    assert leaves > 20


def test_without_cuts_spans():
    assert without([(0.0, 4.0)], 1.0, 2.0) == [(0.0, 1.0), (2.0, 4.0)]
    assert without([(0.0, 4.0), (5.0, 6.0)], 3.0, 5.5) == [(0.0, 3.0), (5.5, 6.0)]
    assert without([(0.0, 4.0)], 5.0, 6.0) == [(0.0, 4.0)]


def test_a_seed_gives_the_same_scene_and_another_seed_another():
    again = build_scene(np.random.default_rng([7, 0]))
    first = scene(0)
    assert len(again.solids) == len(first.solids)
    for a, b in zip(again.solids, first.solids, strict=True):
        assert (a.shape, a.label, a.piece, a.look) == (b.shape, b.label, b.piece, b.look)
        assert (a.centre == b.centre).all() and (a.half == b.half).all() and (a.rotation == b.rotation).all()
    assert len(scene(1).solids) != len(first.solids)


def test_plans_are_varied():
    plans = [plan_rooms(np.random.default_rng([8, seed])) for seed in range(150)]
    rooms = [room for plan in plans for room in plan.rooms]
    assert {room.purpose for room in rooms} == set(PURPOSES)
    assert {len(plan.rooms) for plan in plans} >= {1, 2, 3}
    assert 0.08 < np.mean([len(room.rectangles) == 2 for room in rooms]) < 0.35
    heights = np.array([plan.height_m for plan in plans])
    assert heights.min() >= 2.2 and heights.max() <= 3.5 and np.median(heights) < 2.8
    assert all(0.08 <= plan.wall_m <= 0.14 for plan in plans)
    areas = np.array([sum(room.area_m2 for room in plan.rooms) for plan in plans])
    assert areas.min() > 4.0 and areas.max() < 70.0 and 12.0 < np.median(areas) < 30.0
    # Every room can be reached, and all openings are in a wall of their room.
    for plan in plans:
        reached = {0}
        for _ in plan.rooms:
            for opening in plan.openings:
                if opening.kind == "doorway" and {opening.side.room, opening.other} & reached:
                    reached |= {opening.side.room, opening.other}
        assert reached == set(range(len(plan.rooms)))
        for opening in plan.openings:
            assert opening.side in plan.sides(opening.side.room)
            assert opening.side.low <= opening.low < opening.high <= opening.side.high
            assert opening.z[1] < plan.height_m


def test_rooms_are_furnished():
    labels = np.concatenate([[solid.label for solid in things(seed)] for seed in SEEDS])
    for label in (CHAIR, TABLE, FURNITURE, OBJECTS):
        assert (labels == label).sum() > 20
    assert all(len({solid.piece for solid in things(seed)}) > 8 for seed in SEEDS)
    assert any(s.look.emission > 0 for seed in SEEDS for s in scene(seed).solids if s.label == WINDOW)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_can_be_carried_stands_on_the_floor(seed):
    made = scene(seed)
    fixed = {solid.piece for solid in structure(seed)}
    for number in made.movable:
        solids = [solid for solid in made.solids if solid.piece == number]
        assert number not in fixed and {solid.label for solid in solids} <= {CHAIR, OBJECTS}
        assert boxes(solids)[0][:, 2].min() < 0.03


def test_worlds_are_turned_and_lit_differently():
    yaws = np.array([scene(seed).world_from_room.rotation[0, 0] for seed in SEEDS])
    assert (yaws == 1.0).any() and (yaws != 1.0).any()
    assert all(abs(scene(seed).world_from_room.translation[2]) <= 0.03 for seed in SEEDS)
    lights = [scene(seed).lighting for seed in SEEDS]
    assert len({light.ambient for light in lights}) > 6
    for seed in SEEDS:
        x, y, z = scene(seed).lighting.lamp
        assert 1.0 < z < scene(seed).height_m
        assert any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in scene(seed).rectangles)
