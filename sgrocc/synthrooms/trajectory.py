"""Where the camera goes and looks: ground robots and hands, over the free floor of a scene.

Plain arithmetic, with sines and cosines rounded, so that a seed gives the same poses on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.synthrooms.furniture_parts import chance, span
from sgrocc.synthrooms.scene import Scene
from sgrocc.synthrooms.walkable import CELL_M, Floor, far_apart, largest_region, rounded, way

#: The camera keeps this far from everything.
CLEARANCE_M = 0.3
# Planned with a little more, for what lies between the cells and heights that are looked at.
_PLANNED_CLEARANCE_M = CLEARANCE_M + 0.04
#: Floor that is free for a camera, at least.
_LEAST_FLOOR_M2 = 0.5

# Headings are chosen among these, by dynamic programming over the walk.
_HEADINGS = 24
_SIGHT_M = 4.0
#: Nearer than this to what ends the view, a heading is disliked.
_NEAR_SIGHT_M = 1.5

# A walk of few frames: a frame every so many metres and at most so many headings of turn.
_STRIDE_M = 0.55
_TURN_HEADINGS = 2
# A loop is a film: its headings are chosen once a second and joined smoothly.
_LOOP_STRIDE_M = 0.07
_LOOP_KEY_FRAMES = 10

_CAMERA_IN_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Shot(NamedTuple):
    """camera: of every frame; poses: camera to world, one per frame."""

    camera: PinholeCamera
    poses: tuple[Pose, ...]


@dataclass(frozen=True)
class _Carrier:
    """Who carries the camera. height_m; tilt_deg: up is positive; sway_*: how much they swing while walking; sweep: how
    freely the camera looks aside from where it goes, 0 to 1.
    """

    height_m: float
    tilt_deg: float
    sway_tilt_deg: float
    sway_roll_deg: float
    sway_height_m: float
    sweep: float


def shoot(
    scene: Scene, rng: np.random.Generator, frames: int = 30, loop: bool = False, width: int = 640, height: int = 480
) -> Shot:
    """Plan a walk of `frames` frames through a scene; with `loop` a film at 10 Hz that ends where it began.

    Raises ValueError where the scene has too little free floor for a camera, or a loop is too short to come back.
    """
    camera = _camera(rng, width, height)
    carrier = _carrier(rng)
    floor = Floor(scene)
    free = largest_region(floor.clear(0.08, carrier.height_m + 0.1, _PLANNED_CLEARANCE_M))
    if np.count_nonzero(free) * CELL_M * CELL_M < _LEAST_FLOOR_M2:
        raise ValueError("the furniture leaves a camera no room to walk: use another layout")
    points = _walk(rng, floor, free, frames, loop)
    yaw = _headings(rng, floor, carrier, points, loop)
    phase = np.arange(frames) / 10.0 if loop else np.arange(frames) * 0.35
    tilt = carrier.tilt_deg + carrier.sway_tilt_deg * _sway(rng, phase, loop)
    roll = carrier.sway_roll_deg * _sway(rng, phase, loop)
    z = carrier.height_m + carrier.sway_height_m * _sway(rng, phase, loop)
    poses = []
    for i in range(frames):
        rotation = _rotation(yaw[i], tilt[i], roll[i])
        pose = scene.world_from_room @ Pose(rotation, np.array([points[i, 0], points[i, 1], round(float(z[i]), 4)]))
        poses.append(Pose(np.round(pose.rotation, 9), np.round(pose.translation, 9)))
    return Shot(camera, tuple(poses))


def _camera(rng: np.random.Generator, width: int, height: int) -> PinholeCamera:
    """Intrinsics of a common RGB-D camera or telephone, for an image of 640 x 480 or the like."""
    focal = span(rng, 400.0, 620.0) * width / 640.0
    cx, cy = (width - 1) / 2 + span(rng, -8.0, 8.0), (height - 1) / 2 + span(rng, -8.0, 8.0)
    return PinholeCamera(
        width, height, round(focal, 3), round(focal * span(rng, 0.995, 1.005), 3), round(cx, 3), round(cy, 3)
    )


def _carrier(rng: np.random.Generator) -> _Carrier:
    if chance(rng, 0.5):
        small = chance(rng, 0.6)
        height = span(rng, 0.25, 0.6) if small else span(rng, 0.6, 1.3)
        tilt = span(rng, -6.0, 8.0) if small else span(rng, -15.0, 3.0)
        return _Carrier(height, tilt, 0.5, 0.4, 0.004, span(rng, 0.2, 0.6))
    return _Carrier(span(rng, 1.25, 1.65), span(rng, -32.0, -8.0), span(rng, 3.0, 9.0), span(rng, 1.0, 4.0), 0.03, 1.0)


def _walk(rng: np.random.Generator, floor: Floor, free: np.ndarray, frames: int, loop: bool) -> np.ndarray:
    """(frames, 2) metres: evenly spaced places of a way that visits most of the free floor."""
    cells = np.argwhere(free)
    start = tuple(int(i) for i in cells[int(rng.integers(len(cells)))])
    farthest_m = (frames - 1) * (_LOOP_STRIDE_M if loop else _STRIDE_M)
    for stops in (14, 10, 8, 6, 5, 4, 3, 2) if loop else (7, 6, 5, 4, 3, 2):
        left = far_apart(free, start, stops, 0.8)
        route = [left.pop(0)]
        while left:
            here = np.array(route[-1])
            nearest = min(left, key=lambda cell: int(((np.array(cell) - here) ** 2).sum()))
            left.remove(nearest)
            route.append(nearest)
        if loop:
            route.append(route[0])
        corners = [route[0]]
        for a, b in zip(route[:-1], route[1:], strict=True):
            corners += way(free, a, b)[1:]
        path = rounded(floor, free, floor.centres(np.array(corners))) if len(corners) > 1 else None
        if path is None:
            path = np.repeat(floor.centres(np.array([start])), 2, axis=0)
        lengths = np.sqrt(((path[1:] - path[:-1]) ** 2).sum(axis=1))
        at = np.round(np.concatenate([[0.0], np.cumsum(lengths)]), 6)
        if at[-1] <= farthest_m:
            break
    if loop and at[-1] > farthest_m:
        raise ValueError(f"the way there and back is longer than {farthest_m:.0f} m: use more frames")
    reach = min(float(at[-1]), farthest_m)
    where = np.linspace(0.0, reach, frames)
    return np.round(np.stack([np.interp(where, at, path[:, i]) for i in range(2)], axis=1), 6)


def _headings(rng: np.random.Generator, floor: Floor, carrier: _Carrier, points: np.ndarray, loop: bool) -> np.ndarray:
    """(frames,) degrees: where the camera looks. Along the way more or less, far rather than near, turning smoothly."""
    frames = len(points)
    keys = np.arange(0, frames, _LOOP_KEY_FRAMES) if loop else np.arange(frames)
    if loop and keys[-1] != frames - 1:
        keys = np.append(keys, frames - 1)
    degrees = np.arange(_HEADINGS) * (360.0 / _HEADINGS)
    directions = np.stack([_cos(degrees), _sin(degrees)], axis=1)
    # What stands at the height of the camera ends its view.
    blocked = ~floor.clear(max(0.1, carrier.height_m - 0.05), carrier.height_m + 0.05, 0.02)
    sight = np.round(floor.sight(blocked, points[keys], directions, _SIGHT_M), 4)
    cost = 3.0 * np.maximum(0.0, _NEAR_SIGHT_M - sight) - sight / _SIGHT_M

    ahead = points[np.minimum(keys + (3 if loop else 1), frames - 1)] - points[np.maximum(keys - (3 if loop else 1), 0)]
    size = np.sqrt((ahead * ahead).sum(axis=1))
    along = (ahead[:, None] * directions[None]).sum(axis=2) / np.maximum(size, 1e-6)[:, None]
    cost += (1.2 - carrier.sweep) * np.where(size[:, None] > 1e-3, 1.0 - along, 0.0)
    # A wish that wanders slowly round the room, so that walks differ and see all sides.
    turns = span(rng, 0.5, 2.5) * (1.0 if chance(rng, 0.5) else -1.0) * (3.0 if loop else 1.0)
    wish = span(rng, 0.0, 360.0) + np.linspace(0.0, 360.0 * turns, len(keys))
    cost += carrier.sweep * 1.5 * (1.0 - _cos(wish[:, None] - degrees[None]))
    chosen = _smoothest(np.round(cost, 6), _TURN_HEADINGS, closed=loop)

    unwrapped = np.concatenate([[0], np.cumsum((np.diff(chosen) + _HEADINGS // 2) % _HEADINGS - _HEADINGS // 2)])
    yaw = (chosen[0] + unwrapped) * (360.0 / _HEADINGS)
    if not loop:
        return yaw + span(rng, -7.0, 7.0)
    # Joined by a smooth step: the turn begins and ends gently.
    index = np.minimum(np.searchsorted(keys, np.arange(frames), side="right") - 1, len(keys) - 2)
    part = (np.arange(frames) - keys[index]) / (keys[index + 1] - keys[index])
    part = part * part * (3.0 - 2.0 * part)
    return np.round(yaw[index] + (yaw[index + 1] - yaw[index]) * part, 6)


def _smoothest(cost: np.ndarray, turn: int, closed: bool) -> np.ndarray:
    """(N,) indices of the cheapest sequence through (N, H) costs whose neighbours differ by at most `turn`, round the
    circle; `closed`: it ends as it begins.
    """
    count, headings = cost.shape
    shifts = list(range(-turn, turn + 1))
    first = int(np.argmin(cost[0]))
    total = cost[0] if not closed else np.where(np.arange(headings) == first, 0.0, np.inf)
    came_from = []
    for row in cost[1:]:
        # Turning costs a little by itself.
        options = np.stack([np.roll(total, shift) + 0.12 * shift * shift for shift in shifts])
        best = np.argmin(options, axis=0)
        came_from.append((np.arange(headings) - np.array(shifts)[best]) % headings)
        total = options[best, np.arange(headings)] + row
    last = int(np.argmin(total))
    if closed and np.isfinite(total[first]):
        last = first
    chosen = [last]
    for back in reversed(came_from):
        chosen.append(int(back[chosen[-1]]))
    return np.array(chosen[::-1])


def _sway(rng: np.random.Generator, phase: np.ndarray, loop: bool) -> np.ndarray:
    """(N,) a smooth swing within -1..1; it ends as it begins where `loop`."""
    total = np.zeros(len(phase))
    for strength, hertz in ((0.5, span(rng, 0.08, 0.15)), (0.3, span(rng, 0.2, 0.4)), (0.2, span(rng, 0.5, 0.8))):
        if loop:
            length = len(phase) / 10.0
            hertz = max(1, round(hertz * length)) / (length - 0.1)
        total += strength * _sin(360.0 * hertz * phase + span(rng, 0.0, 360.0))
    return total


def _rotation(yaw_deg: float, tilt_deg: float, roll_deg: float) -> np.ndarray:
    """(3, 3) camera to room: the optical axis turned by yaw, then tilted up, then rolled about itself."""
    (cy, ct, cr), (sy, st, sr) = (
        _cos(np.array([yaw_deg, tilt_deg, roll_deg])),
        _sin(np.array([yaw_deg, tilt_deg, roll_deg])),
    )
    turn = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    lift = np.array([[ct, 0.0, -st], [0.0, 1.0, 0.0], [st, 0.0, ct]])
    lean = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    pose = (
        Pose(turn, np.zeros(3)) @ Pose(lift, np.zeros(3)) @ Pose(lean, np.zeros(3)) @ Pose(_CAMERA_IN_BODY, np.zeros(3))
    )
    return pose.rotation


def _cos(degrees: np.ndarray) -> np.ndarray:
    # The last bits of sines and cosines differ between C libraries.
    return np.round(np.cos(np.deg2rad(degrees)), 9)


def _sin(degrees: np.ndarray) -> np.ndarray:
    return np.round(np.sin(np.deg2rad(degrees)), 9)
