"""Scenes from a seed: rooms are planned, built (floor, ceiling, walls, doors, windows, all in panels) and furnished."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sgrocc.labels import CEILING, FLOOR, WALL, WINDOW
from sgrocc.synthrooms.floor_plan import LINING_M, FloorPlan, Opening, Rectangle, plan_rooms
from sgrocc.synthrooms.furnishing import furnish
from sgrocc.synthrooms.furniture_parts import chance, colour, hard, metal, pick, span
from sgrocc.synthrooms.placing import Furnishing
from sgrocc.synthrooms.scene import Lighting, Look, Scene, Solid, box, heading

#: Floor, ceiling, walls and panes come in panels no longer than this: what one sees of a wall tells of that much of it.
PANEL_M = 0.8
_PANE_M = 0.03
#: So far a doorway's rectangle reaches into its rooms: no seam is left between them.
_OVERLAP_M = 0.05
_FRAME_M = 0.05


def build_scene(rng: np.random.Generator) -> Scene:
    """A furnished scene of one room to four; a few hundredths of a second to half a second of work."""
    plan = plan_rooms(rng)
    structure = build_structure(plan, rng)
    done = furnish(plan, structure, rng)
    return Scene(
        tuple(done.solids),
        tuple(floor_rectangles(plan)),
        plan.height_m,
        _lighting(plan, done, rng),
        _world_from_room(plan, rng),
        tuple(sorted(done.movable)),
    )


def floor_rectangles(plan: FloorPlan) -> list[Rectangle]:
    """Where one can be: the rooms and the doorways between them, which reach a little into the rooms."""
    rectangles = [rectangle for room in plan.rooms for rectangle in room.rectangles]
    for opening in plan.openings:
        if opening.kind == "doorway":
            x0, y0, x1, y1 = opening.side.strip(opening.low + LINING_M, opening.high - LINING_M, -plan.wall_m)
            more = (0.0, _OVERLAP_M) if opening.side.axis == 0 else (_OVERLAP_M, 0.0)
            rectangles.append((x0 - more[0], y0 - more[1], x1 + more[0], y1 + more[1]))
    return [tuple(round(float(value), 9) for value in rectangle) for rectangle in rectangles]


def build_structure(plan: FloorPlan, rng: np.random.Generator) -> list[Solid]:
    """Floor, ceiling, walls, doors and windows. Pieces are numbered from 0 without gaps."""
    thick = span(rng, 0.05, 0.08)
    skin = plan.wall_m
    inner = [(index, r) for index, room in enumerate(plan.rooms) for r in room.rectangles]
    outer = [(index, (r[0] - skin, r[1] - skin, r[2] + skin, r[3] + skin)) for index, r in inner]
    holes = [
        (index, opening.side.strip(opening.low, opening.high, -skin)) for index, opening in enumerate(plan.openings)
    ]

    slab, walls = _cells([inner, outer]), _cells([[(-1, r) for _, r in inner], [(-1, r) for _, r in holes], outer])
    floors = [_floor_look(rng) for _ in plan.rooms]
    ceiling = Look("plaster", pick(rng, ((0.97, 0.97, 0.96), (0.93, 0.92, 0.9), (0.99, 0.97, 0.93))), shine=0.0)
    papers = [_wall_look(rng) for _ in plan.rooms]

    solids: list[Solid] = []
    pieces: list[list[Solid]] = []
    for room, (x0, y0, x1, y1) in slab:
        pieces += [[s] for s in _panels(FLOOR, floors[room], (x0, x1), (y0, y1), (-thick, 0.0))]
        top = (plan.height_m, plan.height_m + thick)
        pieces += [[s] for s in _panels(CEILING, ceiling, (x0, x1), (y0, y1), top)]
    for room, (x0, y0, x1, y1) in walls:
        pieces += [[s] for s in _panels(WALL, papers[room], (x0, x1), (y0, y1), (0.0, plan.height_m))]
    trim = hard(rng) if chance(rng, 0.4) else Look("plain", (0.95, 0.95, 0.94), shine=0.1)
    leaf = hard(rng) if chance(rng, 0.5) else trim
    for opening, (_, (x0, y0, x1, y1)) in zip(plan.openings, holes, strict=True):
        paper = papers[opening.side.room]
        for z in ((0.0, opening.z[0]), (opening.z[1], plan.height_m)):
            if z[1] > z[0]:
                pieces += [[s] for s in _panels(WALL, paper, (x0, x1), (y0, y1), z)]
        pieces += (
            _window(plan, opening, trim, rng) if opening.kind == "window" else _door(plan, opening, trim, leaf, rng)
        )
    for number, piece in enumerate(pieces):
        solids += [replace(solid, piece=number) for solid in piece]
    return solids


def leaf_span(opening: Opening) -> tuple[float, float]:
    """Where an open leaf stands along its wall: beside the hole."""
    return (opening.high, opening.high + 0.04) if opening.leaf > 0 else (opening.low - 0.04, opening.low)


def _door(plan: FloorPlan, opening: Opening, trim: Look, leaf: Look, rng: np.random.Generator) -> list[list[Solid]]:
    """The lining of the hole, as one piece, and the leaf, shut or open at a right angle, as another."""
    side, (low, high), top = opening.side, (opening.low, opening.high), opening.z[1]

    def part(look: Look, along: tuple, across: tuple, z: tuple) -> Solid:
        x0, y0, x1, y1 = side.strip(along[0], along[1], across[1])
        a, b = sorted(side.at + side.inward * value for value in across)
        x, y = ((x0, x1), (a, b)) if side.axis == 0 else ((a, b), (y0, y1))
        return box(WALL, look, x, y, z)

    across = (-plan.wall_m - 0.012, 0.012)
    lining = [
        part(trim, (low, low + LINING_M), across, (0.0, top)),
        part(trim, (high - LINING_M, high), across, (0.0, top)),
        part(trim, (low + LINING_M, high - LINING_M), across, (top - LINING_M, top)),
    ]
    if opening.kind == "door":
        depth = (-plan.wall_m / 2 - 0.02, -plan.wall_m / 2 + 0.02)
        inner = (low + LINING_M, high - LINING_M)
        shut = part(leaf, inner, depth, (0.0, top - LINING_M))
        knob = inner[1] - 0.07 if chance(rng, 0.5) else inner[0] + 0.07
        handle = part(metal(rng), (knob - 0.05, knob + 0.05), (depth[1] - 0.005, depth[1] + 0.05), (1.02, 1.045))
        return [lining, [shut, handle]]
    if opening.leaf:
        width = high - low - 2 * LINING_M
        return [lining, [part(leaf, leaf_span(opening), (0.0, width), (0.01, top - LINING_M))]]
    return [lining]


def _window(plan: FloorPlan, opening: Opening, trim: Look, rng: np.random.Generator) -> list[list[Solid]]:
    """Panes side by side, each with its frame as one piece; what is outside is a bright picture on the pane."""
    side, (z0, z1) = opening.side, opening.z
    count = max(math.ceil((opening.high - opening.low) / PANEL_M), 1)
    edges = np.round(np.linspace(opening.low, opening.high, count + 1), 6)
    rows = max(math.ceil((z1 - z0) / PANEL_M), 1)
    levels = np.round(np.linspace(z0, z1, rows + 1), 6)
    view = Look("outside", (1.0, 1.0, 1.0), emission=span(rng, 0.6, 1.0))
    middle = side.at - side.inward * plan.wall_m * span(rng, 0.4, 0.7)

    def part(look: Look, along: tuple, z: tuple, half: float) -> Solid:
        across = (middle - half, middle + half)
        x, y = (along, across) if side.axis == 0 else (across, along)
        return box(WINDOW, look, x, y, z)

    pieces = []
    frame, pane = _FRAME_M / 2, _PANE_M / 2
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        for c, d in zip(levels[:-1], levels[1:], strict=True):
            piece = [
                part(view, (a + 0.01, b - 0.01), (c, d), pane),
                part(trim, (a, a + _FRAME_M), (c, d), frame),
                part(trim, (b - _FRAME_M, b), (c, d), frame),
            ]
            if c == levels[0]:
                piece.append(part(trim, (a, b), (c, c + _FRAME_M), frame))
            if d == levels[-1]:
                piece.append(part(trim, (a, b), (d - _FRAME_M, d), frame))
            pieces.append(piece)
    return pieces


def _cells(layers: list[list[tuple[int, Rectangle]]]) -> list[tuple[int, Rectangle]]:
    """Disjoint rectangles with the number of the first rectangle, in order of the layers, that holds them; without
    those of number -1 and those that nothing holds. Neighbours of one number are merged to long strips.
    """
    flat = [entry for layer in layers for entry in layer]
    xs = _ticks(value for _, r in flat for value in (r[0], r[2]))
    ys = _ticks(value for _, r in flat for value in (r[1], r[3]))
    x, y = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    number = np.full((len(x), len(y)), -1)
    for key, (x0, y0, x1, y1) in reversed(flat):
        number[np.ix_((x > x0) & (x < x1), (y > y0) & (y < y1))] = key
    found = []
    while (number >= 0).any():
        best = None
        for i, j in np.argwhere(number >= 0):
            for x_first in (True, False):
                m, n = _grown(number, int(i), int(j), x_first)
                area = (xs[m] - xs[i]) * (ys[n] - ys[j])
                if best is None or area > best[0] + 1e-9:
                    best = (area, int(i), int(j), m, n)
        _, i, j, m, n = best
        found.append((int(number[i, j]), (float(xs[i]), float(ys[j]), float(xs[m]), float(ys[n]))))
        number[i:m, j:n] = -1
    return found


def _grown(number: np.ndarray, i: int, j: int, x_first: bool) -> tuple[int, int]:
    """The ends of the largest block of one number from (i, j) that is grown along one axis, then along the other."""
    m, n, key = i + 1, j + 1, number[i, j]
    for axis in (0, 1) if x_first else (1, 0):
        if axis == 0:
            while m < number.shape[0] and (number[m, j:n] == key).all():
                m += 1
        else:
            while n < number.shape[1] and (number[i:m, n] == key).all():
                n += 1
    return m, n


def _ticks(values) -> np.ndarray:
    return np.unique(np.round(np.array(list(values), np.float64), 6))


def _panels(label: int, look: Look, x: tuple, y: tuple, z: tuple) -> list[Solid]:
    """A box cut in equal panels."""
    cuts = []
    for low, high in (x, y, z):
        count = max(math.ceil((high - low) / PANEL_M - 1e-9), 1)
        ticks = np.round(np.linspace(low, high, count + 1), 6)
        cuts.append([(float(a), float(b)) for a, b in zip(ticks[:-1], ticks[1:], strict=True)])
    return [box(label, look, a, b, c) for a in cuts[0] for b in cuts[1] for c in cuts[2]]


def _floor_look(rng: np.random.Generator) -> Look:
    texture = pick(rng, ("planks", "planks", "wood", "carpet", "tiles", "stone", "plain"))
    if texture in ("planks", "wood"):
        tone = span(rng, 0.45, 1.0)
        rgb = (tone, round(tone * span(rng, 0.72, 0.95), 3), round(tone * span(rng, 0.5, 0.85), 3))
    else:
        rgb = colour(rng)
    return Look(texture, rgb, shine=0.0 if texture == "carpet" else span(rng, 0.02, 0.2))


def _wall_look(rng: np.random.Generator) -> Look:
    """Mostly light and near grey, at times any colour, seldom boards or tiles."""
    if chance(rng, 0.6):
        grey = span(rng, 0.78, 0.98)
        rgb = tuple(round(min(grey + span(rng, -0.05, 0.03), 1.0), 3) for _ in range(3))
    else:
        rgb = tuple(round(0.45 + 0.5 * value, 3) for value in colour(rng))
    return Look(
        pick(rng, ("plaster", "plaster", "plaster", "plain", "plain", "stripes", "wood", "tiles")), rgb, shine=0.01
    )


def _lighting(plan: FloorPlan, done: Furnishing, rng: np.random.Generator) -> Lighting:
    """An evening with lamps, a bright day, or dim light."""
    mood = pick(rng, ("day", "day", "evening", "dim", "mixed"))
    ambient = {"day": span(rng, 0.32, 0.5), "evening": span(rng, 0.2, 0.32), "dim": span(rng, 0.12, 0.22)}.get(
        mood, span(rng, 0.25, 0.4)
    )
    warm = pick(rng, ((1.0, 0.98, 0.95), (1.0, 0.9, 0.75), (1.0, 0.82, 0.6), (0.95, 0.98, 1.0)))
    lamp = {"day": span(rng, 0.2, 0.5), "dim": span(rng, 0.3, 0.5)}.get(mood, span(rng, 0.6, 0.9))
    sun = {"day": span(rng, 0.6, 1.0), "evening": span(rng, 0.0, 0.1), "dim": span(rng, 0.05, 0.3)}.get(
        mood, span(rng, 0.3, 0.6)
    )
    x0, y0, x1, y1 = plan.rooms[0].rectangles[0]
    at = done.lamps[0] if done.lamps else ((x0 + x1) / 2, (y0 + y1) / 2, plan.height_m - 0.12)
    windows = [o.side for o in plan.openings if o.kind == "window"]
    # Daylight comes in by a window, slantwise from above.
    side = pick(rng, windows) if windows else None
    along, down = span(rng, -0.8, 0.8), -span(rng, 0.5, 1.2)
    into = float(side.inward) if side else pick(rng, (-1.0, 1.0))
    sun_direction = (along, into, down) if side is None or side.axis == 0 else (into, along, down)
    daylight = pick(rng, ((1.0, 0.98, 0.94), (0.9, 0.95, 1.0), (1.0, 0.93, 0.82)))
    return Lighting(
        ambient,
        tuple(round(float(value), 6) for value in at),
        tuple(round(lamp * value, 6) for value in warm),
        sun_direction,
        tuple(round(sun * value, 6) for value in daylight),
    )


def _world_from_room(plan: FloorPlan, rng: np.random.Generator):
    """Half of the scenes are turned by any angle; all are shifted, their middle to about the world's origin."""
    yaw = 2.0 * np.pi * float(rng.random()) if chance(rng, 0.5) else 0.0
    shift = span(rng, -1.0, 1.0), span(rng, -1.0, 1.0), span(rng, -0.03, 0.03)
    turn = heading(yaw)
    low = np.min([r[:2] for room in plan.rooms for r in room.rectangles], axis=0)
    high = np.max([r[2:] for room in plan.rooms for r in room.rectangles], axis=0)
    middle = turn.apply(np.append((low + high) / 2, 0.0))
    return heading(yaw, *(round(float(value), 6) for value in np.array(shift) - middle))
