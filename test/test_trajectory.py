"""Walks of the camera, walking figures and moved things: they keep away from everything, and move as such things do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sgrocc.labels import CEILING, CHAIR, FLOOR, OBJECTS, TABLE, WALL
from sgrocc.synthrooms import actors
from sgrocc.synthrooms.rooms import build_scene
from sgrocc.synthrooms.scene import Lighting, Look, Scene, box, heading
from sgrocc.synthrooms.trajectory import CLEARANCE_M, Shot, shoot
from sgrocc.synthrooms.walkable import CELL_M, Floor, distances, largest_region, way

LOOK = Look("plain")
LIGHT = Lighting(0.4, (1, 1, 2), (1, 1, 1), (0, 0, -1), (1, 1, 1))


@cache
def built(seed: int) -> Scene:
    return build_scene(np.random.default_rng(seed))


@cache
def walk(seed: int) -> Shot:
    return shoot(built(seed), np.random.default_rng(seed))


def room(*things, size=(4.0, 3.0), movable=()):
    """A bare room with things in it, each a piece of its own."""
    w, d = size
    solids = [
        box(FLOOR, LOOK, (-0.1, w + 0.1), (-0.1, d + 0.1), (-0.1, 0)),
        box(CEILING, LOOK, (-0.1, w + 0.1), (-0.1, d + 0.1), (2.5, 2.6)),
        box(WALL, LOOK, (-0.1, 0), (0, d), (0, 2.5)),
        box(WALL, LOOK, (w, w + 0.1), (0, d), (0, 2.5)),
        box(WALL, LOOK, (0, w), (-0.1, 0), (0, 2.5)),
        box(WALL, LOOK, (0, w), (d, d + 0.1), (0, 2.5)),
        *things,
    ]
    solids = tuple(replace(solid, piece=i) for i, solid in enumerate(solids))
    return Scene(solids, ((0.0, 0.0, w, d),), 2.5, LIGHT, heading(0.5, 1.0, -2.0, 0.02), movable=movable)


def in_room(scene, poses):
    return scene.world_from_room.inverse().apply(np.stack([pose.translation for pose in poses]))


def distance_to(solids, points):
    """Exact distance of points to boxes."""
    return np.min([solid.distance(points) for solid in solids if solid.shape != "ellipsoid"], axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_the_camera_keeps_away_from_everything_and_inside_the_rooms(seed):
    scene = built(seed)
    shot = shoot(scene, np.random.default_rng(seed + 50))
    assert len(shot.poses) == 30
    points = in_room(scene, shot.poses)
    obstacles = [s for s in scene.solids if s.bounds()[1][2] > 0.05]
    assert distance_to(obstacles, points).min() >= CLEARANCE_M - 0.01
    inside = [((points[:, :2] > r[:2]) & (points[:, :2] < r[2:])).all(axis=1) for r in np.array(scene.rectangles)]
    assert np.any(inside, axis=0).all() and 0.2 < points[:, 2].min() and points[:, 2].max() < 1.8


@pytest.mark.parametrize("seed", range(8))
def test_few_frames_move_smoothly_and_overlap(seed):
    shot = walk(seed)
    position = np.stack([pose.translation for pose in shot.poses])
    forward = np.stack([pose.rotation[:, 2] for pose in shot.poses])
    assert np.sqrt((np.diff(position, axis=0) ** 2).sum(axis=1)).max() < 0.8
    turn = np.degrees(np.arccos(np.clip((forward[1:] * forward[:-1]).sum(axis=1), -1, 1)))
    assert turn.max() < 45 and np.median(turn) < 31
    assert (np.abs(forward[:, 2]) < np.sin(np.radians(50))).all(), "the camera looks neither straight up nor down"
    # Image rows point down: x right of the optical axis stays level up to a little roll.
    assert max(abs(pose.rotation[2, 0]) for pose in shot.poses) < np.sin(np.radians(6))
    assert 399 < shot.camera.fx < 621 and abs(shot.camera.fy / shot.camera.fx - 1) < 0.011


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_is_a_film_that_returns(seed):
    scene = built(seed)
    shot = shoot(scene, np.random.default_rng(seed), frames=600, loop=True)
    position = np.stack([pose.translation for pose in shot.poses])
    forward = np.stack([pose.rotation[:, 2] for pose in shot.poses])
    assert np.sqrt((np.diff(position, axis=0) ** 2).sum(axis=1)).max() < 0.09
    turn = np.degrees(np.arccos(np.clip((forward[1:] * forward[:-1]).sum(axis=1), -1, 1)))
    assert turn.max() < 8
    assert np.abs(position[0] - position[-1]).max() < 0.05
    assert forward[0] @ forward[-1] > np.cos(np.radians(3))
    floor = Floor(scene)
    free = largest_region(floor.clear(0.08, 1.0, CLEARANCE_M + 0.05))
    visited = in_room(scene, shot.poses)[:, :2]
    cells = floor.centres(np.argwhere(free))[::17]
    near = np.sqrt(((cells[:, None] - visited[None]) ** 2).sum(axis=2)).min(axis=1)
    assert np.mean(near < 1.5) > 0.8, "the walk visits most of the floor"


def test_the_camera_looks_at_rooms_not_at_walls_before_its_nose():
    near = total = 0
    for seed in range(6):
        scene = built(seed)
        for pose in walk(seed).poses[::4]:
            local = scene.world_from_room.inverse() @ pose
            ahead = local.translation + np.arange(0.1, 0.5, 0.05)[:, None] * local.rotation[:, 2]
            near += bool((distance_to(scene.solids, ahead) < 0).any())
            total += 1
    assert near < 0.1 * total


def test_a_room_without_free_floor_says_so():
    scene = room(box(TABLE, LOOK, (0.3, 3.7), (0.3, 2.7), (0, 0.8)))
    with pytest.raises(ValueError, match="no room to walk"):
        shoot(scene, np.random.default_rng(0))


def test_the_same_seed_is_the_same_walk():
    scene = built(4)
    one, other, third = (shoot(scene, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all((a.matrix == b.matrix).all() for a, b in zip(one.poses, other.poses, strict=True))
    assert one.camera == other.camera and one.camera != third.camera


def test_ways_lead_round_what_stands_between():
    scene = room(box(TABLE, LOOK, (1.8, 2.2), (0.0, 2.2), (0, 0.8)))
    floor = Floor(scene)
    free = largest_region(floor.clear(0.1, 1.0, 0.2))
    start, end = (tuple(c) for c in floor.cells(np.array([[0.5, 0.5], [3.5, 0.5]])))
    corners = floor.centres(np.array(way(free, start, end)))
    assert corners[:, 1].max() > 2.2 and len(corners) >= 3
    steps = distances(free, [start])
    assert steps[end] * CELL_M > 3.0 + 2 * (2.2 + 0.2 - 0.5) - 0.2
    assert distances(free, [start])[tuple(floor.cells(np.array([[2.0, 1.0]]))[0])] == -1


@pytest.mark.parametrize("frames", [30, 200])
def test_a_walking_figure_keeps_away_from_camera_and_furniture(frames):
    scene = room(box(TABLE, LOOK, (1.6, 2.4), (1.1, 1.9), (0, 0.7)), size=(5.0, 4.0))
    shot = shoot(scene, np.random.default_rng(1), frames=frames, loop=frames > 100)
    walking = actors.add_walker(scene, np.random.default_rng(2), frames, shot.poses, film=frames > 100)
    (figure,) = walking.actors
    camera = in_room(scene, shot.poses)
    places = [figure.placement(frame) for frame in range(frames)]
    spots = np.stack([place.translation for place in places])
    assert np.sqrt(((spots - camera)[:, :2] ** 2).sum(axis=1)).min() > 0.8
    assert np.ptp(spots, axis=0).max() > 1.0, "it walks"
    for frame in range(0, frames, 7):
        body = [solid.moved(places[frame]) for solid in figure.solids]
        centres = np.stack([solid.centre for solid in body])
        assert distance_to(scene.solids[2:], centres).min() > 0.0
        bounds = np.array([solid.bounds() for solid in body])
        assert -0.01 <= bounds[:, 0, 2].min() < 0.05 and 1.4 < bounds[:, 1, 2].max() < 2.0
    assert {solid.label for solid in figure.solids} == {OBJECTS}
    assert {solid.piece for solid in figure.solids} == {len(scene.solids)}


def test_moved_things_go_elsewhere_or_away_and_collide_with_nothing():
    chairs = [box(CHAIR, LOOK, (x, x + 0.4), (0.3, 0.7), (0, 0.9)) for x in (0.4, 1.4, 2.4, 3.4)]
    scene = room(*chairs, size=(6.0, 5.0), movable=(6, 7, 8, 9))
    shot = shoot(scene, np.random.default_rng(3))
    outcomes = set()
    for seed in range(12):
        moved = actors.move_things(scene, np.random.default_rng(seed), 30, shot.poses)
        assert 2 <= len(moved.actors) <= 4 and len(moved.solids) == len(scene.solids) - len(moved.actors)
        for actor in moved.actors:
            original = scene.solids[actor.solids[0].piece]
            first, last = actor.placement(0), actor.placement(29)
            assert np.allclose(actor.solids[0].moved(first).centre, original.centre)
            outcomes.add("away" if last is None else "elsewhere")
            if last is not None:
                place = actor.solids[0].moved(last)
                others = [
                    *moved.solids[2:],
                    *(a.solids[0].moved(a.placement(0)) for a in moved.actors if a is not actor),
                ]
                assert min(float(other.distance(place.centre)) for other in others) > 0.2
                assert np.sqrt(((place.centre - original.centre)[:2] ** 2).sum()) > 0.05
    assert outcomes == {"away", "elsewhere"}


def test_a_scene_with_nothing_to_move_says_so():
    scene = room()
    with pytest.raises(ValueError, match="fewer than two things in the scene can be moved"):
        actors.move_things(scene, np.random.default_rng(0), 30, shoot(scene, np.random.default_rng(0)).poses)
