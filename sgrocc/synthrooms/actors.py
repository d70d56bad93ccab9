"""What moves in a scene: a person who walks through it, and things that are moved or carried away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sgrocc.geometry import Pose
from sgrocc.labels import OBJECTS
from sgrocc.synthrooms.furniture_parts import chance, cloth, colour, span
from sgrocc.synthrooms.scene import Actor, Look, Scene, Solid, box, ellipsoid, heading, rod
from sgrocc.synthrooms.walkable import CELL_M, Floor, far_apart, largest_region, rounded, way

#: A walking figure stays this far from the camera, and a moved thing's border this far from where the camera will be.
_FROM_CAMERA_M = 0.8
_MOVED_FROM_CAMERA_M = 0.4
_MOVED_BY_M = 3.0
#: Metres from one frame to the next: sparse frames lie about a second apart, those of a film a tenth.
_STRIDE_M = 0.45
_FILM_STRIDE_M = 0.07
_BODY_RADIUS_M = 0.3
_EVER = 10**9


def add_walker(
    scene: Scene, rng: np.random.Generator, frames: int, camera_poses: Sequence[Pose], film: bool = False
) -> Scene:
    """The scene with a person who walks about in it. camera_poses: camera to world, one per frame; film: they lie a
    tenth of a second apart.

    Raises ValueError where the furniture leaves a person no room.
    """
    floor = Floor(scene)
    free = largest_region(floor.clear(0.1, 1.8, _BODY_RADIUS_M))
    cells = np.argwhere(free)
    if len(cells) * CELL_M * CELL_M < 0.5:
        raise ValueError("the furniture leaves a person no room to walk: use another layout")
    start = tuple(int(i) for i in cells[int(rng.integers(len(cells)))])
    stops = far_apart(free, start, 5, 0.5)
    corners = [stops[0]]
    for a, b in zip(stops, [*stops[1:], stops[0]], strict=True):
        corners += way(free, a, b)[1:] if a != b else []
    if len(corners) < 2:
        raise ValueError("the furniture leaves a person no way to walk: use another layout")
    stride = _FILM_STRIDE_M if film else _STRIDE_M
    path = rounded(floor, free, floor.centres(np.array(corners)), spacing_m=stride / 4)
    cameras = _in_room(scene, camera_poses)
    at = _keeping_away(path, cameras, step=4)
    legs = _figure(rng, 1 + max(solid.piece for solid in scene.solids))

    def placement(frame: int) -> Pose | None:
        if frame >= len(at):
            return None
        here, ahead = path[at[frame]], path[(at[frame] + 2) % len(path)]
        return heading(_bearing(ahead - here), float(here[0]), float(here[1]))

    return replace(scene, actors=(*scene.actors, Actor(tuple(legs), placement)))


def _keeping_away(path: np.ndarray, cameras: np.ndarray, step: int) -> list[int]:
    """For every frame, a place on the (closed) path: on by `step`, or what is nearest to that and far enough from the
    camera.
    """
    chosen, at = [], 0
    offsets = sorted(range(-len(path) // 2, len(path) // 2 + 1), key=lambda k: (abs(k), k))
    for i, camera in enumerate(cameras):
        wanted = at + (step if i else 0)
        for offset in offsets:
            candidate = (wanted + offset) % len(path)
            if ((path[candidate] - camera[:2]) ** 2).sum() >= (_FROM_CAMERA_M + _BODY_RADIUS_M) ** 2:
                break
        else:
            raise ValueError("a person would stand in the camera's way: use another layout")
        at = candidate
        chosen.append(at)
    return chosen


def _bearing(direction: np.ndarray) -> float:
    return round(float(np.arctan2(direction[1], direction[0])), 6)


def _figure(rng: np.random.Generator, piece: int) -> list[Solid]:
    """A person in mid-stride who looks along +x: the label of people is that of objects."""
    size = span(rng, 0.9, 1.08)
    trousers, shirt = cloth(rng), cloth(rng)
    skin = Look("plain", tuple(round(c * span(rng, 0.45, 1.0), 3) for c in (0.95, 0.78, 0.66)))
    hair = Look("plain", tuple(0.3 * c for c in colour(rng)))
    step = span(rng, 0.06, 0.18)
    hip, shoulder = 0.88 * size, 1.42 * size
    solids = [
        rod(OBJECTS, trousers, (step, 0.09, 0.06), (0.0, 0.09, hip), 0.07),
        rod(OBJECTS, trousers, (-step, -0.09, 0.06), (0.0, -0.09, hip), 0.07),
        box(OBJECTS, Look("leather", (0.15, 0.12, 0.1)), (step - 0.08, step + 0.17), (0.05, 0.14), (0.0, 0.08), 0.02),
        box(
            OBJECTS, Look("leather", (0.15, 0.12, 0.1)), (-step - 0.08, -step + 0.17), (-0.14, -0.05), (0.0, 0.08), 0.02
        ),
        box(OBJECTS, shirt, (-0.11, 0.11), (-0.19, 0.19), (hip - 0.06, shoulder), 0.08),
        rod(OBJECTS, shirt, (-step, 0.23, hip - 0.05), (0.0, 0.21, shoulder - 0.05), 0.05),
        rod(OBJECTS, shirt, (step, -0.23, hip - 0.05), (0.0, -0.21, shoulder - 0.05), 0.05),
        rod(OBJECTS, skin, (0.0, 0.0, shoulder - 0.03), (0.02, 0.0, shoulder + 0.1), 0.055),
        ellipsoid(OBJECTS, skin, (0.02, 0.0, shoulder + 0.19 * size), (0.1, 0.08, 0.13)),
        ellipsoid(OBJECTS, hair, (0.0, 0.0, shoulder + 0.23 * size), (0.1, 0.09, 0.11)),
    ]
    return [replace(solid, piece=piece) for solid in solids]


def move_things(scene: Scene, rng: np.random.Generator, frames: int, camera_poses: Sequence[Pose]) -> Scene:
    """The scene with two to four of its movable pieces as actors: each is set down elsewhere, or carried away, at some
    frame of the middle half. camera_poses: camera to world, one per frame.

    Raises ValueError where fewer than two things in the scene can be moved.
    """
    if len(scene.movable) < 2:
        raise ValueError("fewer than two things in the scene can be moved: use another layout")
    cameras = _in_room(scene, camera_poses)
    order = rng.permutation(len(scene.movable))
    pieces = [scene.movable[int(i)] for i in order[: int(rng.integers(2, 5))]]
    actors = []
    for piece in pieces:
        own = tuple(solid for solid in scene.solids if solid.piece == piece)
        scene = replace(scene, solids=tuple(solid for solid in scene.solids if solid.piece != piece))
        bounds = np.array([solid.bounds() for solid in own])
        low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
        middle = np.round((low + high) / 2, 6)
        when = int(rng.integers(max(1, frames // 4), max(2, 3 * frames // 4)))
        before = heading(0.0, float(middle[0]), float(middle[1]))
        place = None if chance(rng, 0.4) else _new_place(scene, actors, rng, middle, low, high, cameras[when:])
        local = tuple(solid.moved(heading(0.0, -float(middle[0]), -float(middle[1]))) for solid in own)
        actors.append(Actor(local, _switch(before, place, when)))
    return replace(scene, movable=(), actors=(*scene.actors, *actors))


def _switch(before: Pose, after: Pose | None, when: int) -> Callable[[int], Pose | None]:
    return lambda frame: before if frame < when else after


def _new_place(
    scene: Scene,
    others: Sequence[Actor],
    rng: np.random.Generator,
    middle: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    cameras: np.ndarray,
) -> Pose | None:
    """Somewhere within three metres where a thing stands free and never where the camera comes; None where there is
    nowhere.
    """
    radius = float(np.sqrt(((high - low)[:2] ** 2).sum())) / 2
    floor = Floor(scene)
    # Those moved before it keep both their places: where they were, and where they will be.
    poses = [(actor, pose) for actor in others for pose in (actor.placement(0), actor.placement(_EVER)) if pose]
    placed = [solid.moved(pose) for actor, pose in poses for solid in actor.solids]
    free = floor.clear(0.08, max(0.2, float(high[2])), radius + 0.05, (*scene.solids, *placed))
    places = np.round(floor.centres(np.argwhere(free)), 3)
    within = ((places - middle[:2]) ** 2).sum(axis=1) < _MOVED_BY_M**2
    for camera in cameras[:, :2]:
        within &= ((places - camera) ** 2).sum(axis=1) >= (radius + _MOVED_FROM_CAMERA_M) ** 2
    places = places[within]
    if not len(places):
        return None
    x, y = places[int(rng.integers(len(places)))]
    return heading(span(rng, -3.0, 3.0), float(x), float(y))


def _in_room(scene: Scene, camera_poses: Sequence[Pose]) -> np.ndarray:
    """(N, 3) metres: where the cameras are in the room frame."""
    r, t = scene.world_from_room.rotation, scene.world_from_room.translation
    offset = np.stack([pose.translation for pose in camera_poses]) - t
    return np.round(offset[:, 0:1] * r[0] + offset[:, 1:2] * r[1] + offset[:, 2:3] * r[2], 6)
