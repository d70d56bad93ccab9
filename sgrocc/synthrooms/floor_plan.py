"""Where the rooms of a scene lie, what they are for, and where their doors and windows are. Nothing is built here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sgrocc.synthrooms.furniture_parts import chance, pick, span

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1

#: Two doors, or a door and a window, are at least this far apart, and as far from a corner.
_JAMB_M = 0.15
#: What is clear between a door's linings: 0.7 m of path and some play.
_DOOR_WIDTHS_M = (0.86, 1.05)
LINING_M = 0.02
#: What must be clear of other doors beside an open leaf.
_LEAF_AIR_M = 0.45
#: No side of a room has another room behind it if nothing is this near.
_OUTSIDE_M = 0.6

PURPOSES = ("living", "bedroom", "dining", "kitchen", "office", "meeting", "mixed", "storage", "hall")


@dataclass(frozen=True)
class Side:
    """A straight piece of wall as seen from its room. axis: 0 where it runs along x, 1 along y; at: its coordinate on
    the other axis; low, high: its ends; inward: +1 or -1, the side of it where the room is.
    """

    room: int
    axis: int
    at: float
    low: float
    high: float
    inward: int

    @property
    def yaw_rad(self) -> float:
        """How something is turned whose back is to the wall."""
        if self.axis == 1:
            return 0.0 if self.inward > 0 else np.pi
        return np.pi / 2 if self.inward > 0 else -np.pi / 2

    def strip(self, low: float, high: float, depth: float) -> Rectangle:
        """The rectangle in front of [low, high] that reaches `depth` into the room (behind the wall if negative)."""
        a, b = sorted((self.at, self.at + self.inward * depth))
        return (low, a, high, b) if self.axis == 0 else (a, low, b, high)


@dataclass(frozen=True)
class Opening:
    """A hole in a wall. kind: "doorway" (one can pass), "door" (shut) or "window"; side: the wall of one of its rooms;
    low, high: along it; z: (low, high); other: the room behind it, or None; leaf: 0 no leaf; +1, -1 a leaf that stands
    open in the room of `side`, hung at its high or low end.
    """

    kind: str
    side: Side
    low: float
    high: float
    z: tuple[float, float]
    other: int | None = None
    leaf: int = 0


@dataclass(frozen=True)
class Room:
    """rectangles: of its floor, one or (in an L) two that touch; purpose: one of PURPOSES."""

    rectangles: tuple[Rectangle, ...]
    purpose: str

    @property
    def area_m2(self) -> float:
        return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.rectangles)

    def covers(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        """Whether a rectangle lies inside; touching the walls is inside."""
        inside = 0.0
        for a0, b0, a1, b1 in self.rectangles:
            inside += max(min(x1, a1) - max(x0, a0), 0.0) * max(min(y1, b1) - max(y0, b0), 0.0)
        return inside >= (x1 - x0) * (y1 - y0) - 1e-6


@dataclass
class FloorPlan:
    rooms: list[Room]
    height_m: float
    wall_m: float
    openings: list[Opening] = field(default_factory=list)

    def sides(self, room: int) -> list[Side]:
        """The walls of a room, without those between the two parts of an L."""
        rectangles = self.rooms[room].rectangles
        found: list[Side] = []
        for x0, y0, x1, y1 in rectangles:
            for axis, at, low, high, inward in (
                (0, y0, x0, x1, 1), (0, y1, x0, x1, -1), (1, x0, y0, y1, 1), (1, x1, y0, y1, -1)
            ):  # fmt: skip
                spans = [(low, high)]
                for other in rectangles:
                    behind = other[3 - axis] if inward > 0 else other[1 - axis]
                    if behind == at:
                        spans = without(spans, other[axis], other[axis + 2])
                found += [Side(room, axis, at, a, b, inward) for a, b in spans]
        return _joined(found)

    def is_outside(self, side: Side, low: float, high: float) -> bool:
        """Whether no room is behind [low, high] of a wall."""
        x0, y0, x1, y1 = side.strip(low, high, -_OUTSIDE_M)
        return not any(
            min(x1, r[2]) - max(x0, r[0]) > 1e-6 and min(y1, r[3]) - max(y0, r[1]) > 1e-6
            for room in self.rooms
            for r in room.rectangles
        )

    def is_whole(self, side: Side, low: float, high: float) -> bool:
        """Whether [low, high] of a wall has no opening, from either of its rooms, nor one close by."""
        for opening in self.openings:
            its = opening.side
            same_wall = its.axis == side.axis and abs(its.at - side.at) <= self.wall_m + 1e-6
            if same_wall and low < opening.high + _JAMB_M and high > opening.low - _JAMB_M:
                return False
        return True


def plan_rooms(rng: np.random.Generator) -> FloorPlan:
    """One room as a rectangle or an L, a corridor, or several rooms side by side; with openings."""
    height = span(rng, 2.4, 2.8) if chance(rng, 0.8) else span(rng, 2.2, 3.5)
    # One to two voxels.
    wall = span(rng, 0.08, 0.09) if chance(rng, 0.75) else span(rng, 0.10, 0.14)
    shape = float(rng.random())
    if shape < 0.42:
        shapes = [_rectangle(rng, (3.0, 5.6), (2.8, 4.6))]
    elif shape < 0.60:
        shapes = [_angle(rng)]
    elif shape < 0.70:
        shapes = _attach(rng, [_rectangle(rng, (3.6, 6.5), (1.2, 2.2))], int(rng.integers(0, 3)), wall)
    elif shape < 0.90:
        shapes = _attach(rng, [_rectangle(rng, (3.0, 4.6), (2.8, 4.2))], 1, wall)
    else:
        shapes = _attach(rng, [_rectangle(rng, (3.0, 4.5), (2.6, 4.0))], int(rng.integers(2, 4)), wall)
    if chance(rng, 0.5):
        shapes = [tuple((y0, x0, y1, x1) for x0, y0, x1, y1 in rectangles) for rectangles in shapes]
    rooms = [Room(rectangles, _purpose(rng, rectangles)) for rectangles in shapes]
    plan = FloorPlan(rooms, height, wall)
    for room in range(1, len(rooms)):
        _join(rng, plan, room)
    _add_door_out(rng, plan)
    plan.openings = [_with_free_leaf(plan, opening) for opening in plan.openings]
    for room in range(len(rooms)):
        _add_windows(rng, plan, room)
    return plan


def _rectangle(rng: np.random.Generator, width: tuple[float, float], depth: tuple[float, float]) -> tuple:
    return ((0.0, 0.0, span(rng, *width), span(rng, *depth)),)


def _angle(rng: np.random.Generator) -> tuple:
    """A room like an L, in any of four ways."""
    width, depth = span(rng, 4.2, 6.8), span(rng, 2.4, 3.4)
    arm, reach = span(rng, 2.0, width - 1.2), span(rng, 1.3, 3.2)
    start = 0.0 if chance(rng, 0.5) else round(width - arm, 3)
    if chance(rng, 0.5):
        return ((0.0, 0.0, width, depth), (start, depth, round(start + arm, 3), round(depth + reach, 3)))
    return ((0.0, reach, width, round(depth + reach, 3)), (start, 0.0, round(start + arm, 3), reach))


def _attach(rng: np.random.Generator, shapes: list, count: int, wall: float) -> list:
    """Add rooms beside those that stand, a wall's thickness away, where they meet for at least the width of a door."""
    for _ in range(40):
        if len(shapes) > count:
            break
        x0, y0, x1, y1 = pick(rng, shapes)[0]
        width, depth = span(rng, 2.4, 4.4), span(rng, 2.3, 4.2)
        meet = 1.4
        along_x = span(rng, x0 - width + meet, x1 - meet)
        along_y = span(rng, y0 - depth + meet, y1 - meet)
        left, low = pick(
            rng,
            ((along_x, y1 + wall), (along_x, y0 - wall - depth), (x1 + wall, along_y), (x0 - wall - width, along_y)),
        )
        new = tuple(round(value, 3) for value in (left, low, left + width, low + depth))
        if not any(
            min(new[2], r[2]) - max(new[0], r[0]) > -wall + 1e-6
            and min(new[3], r[3]) - max(new[1], r[1]) > -wall + 1e-6
            for shape in shapes
            for r in shape
        ):
            shapes.append((new,))
    return shapes


def _purpose(rng: np.random.Generator, rectangles: tuple) -> str:
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in rectangles)
    if min(min(r[2] - r[0], r[3] - r[1]) for r in rectangles) < 2.25 and len(rectangles) == 1:
        return "hall"
    if area < 9.0:
        return pick(rng, ("bedroom", "office", "office", "kitchen", "storage", "dining"))
    if area < 14.0:
        some = "living living bedroom bedroom dining dining kitchen office office meeting meeting mixed"
        return pick(rng, some.split())
    many = "living living living living mixed bedroom bedroom dining meeting meeting meeting office office kitchen"
    return pick(rng, many.split())


def _join(rng: np.random.Generator, plan: FloorPlan, room: int) -> None:
    """A doorway to each earlier room that this one meets: always to the first, seldom to more."""
    joined = False
    for other in range(room):
        for side in plan.sides(room):
            for theirs in plan.sides(other):
                if theirs.axis != side.axis or theirs.inward == side.inward:
                    continue
                if abs(side.at - side.inward * plan.wall_m - theirs.at) > 1e-6:
                    continue
                low, high = max(side.low, theirs.low) + _JAMB_M, min(side.high, theirs.high) - _JAMB_M
                width = min(span(rng, *_DOOR_WIDTHS_M) + 2 * LINING_M, high - low)
                if width < _DOOR_WIDTHS_M[0] + 2 * LINING_M or (joined and chance(rng, 0.7)):
                    continue
                start = round(low + span(rng, 0.0, high - low - width), 3)
                end = round(start + width, 3)
                if not plan.is_whole(side, start, end):
                    continue
                leaf = pick(rng, (0, -1, 1))
                hung = side if chance(rng, 0.5) else theirs
                # An open leaf needs a hand's breadth of wall beside the hole; it stands beside it, not in it.
                top = round(min(span(rng, 2.0, 2.12), plan.height_m - 0.12), 3)
                behind = other if hung is side else room
                plan.openings.append(Opening("doorway", hung, start, end, (0.0, top), behind, leaf))
                joined = True


def _add_door_out(rng: np.random.Generator, plan: FloorPlan) -> None:
    """A shut door somewhere in the outer walls; a single room always has one."""
    if len(plan.rooms) > 1 and chance(rng, 0.3):
        return
    for _ in range(30):
        side = pick(rng, plan.sides(int(rng.integers(len(plan.rooms)))))
        width = span(rng, *_DOOR_WIDTHS_M)
        if side.high - side.low < width + 2 * _JAMB_M:
            continue
        low = span(rng, side.low + _JAMB_M, side.high - _JAMB_M - width)
        high = round(low + width, 3)
        if plan.is_outside(side, low, high) and plan.is_whole(side, low, high):
            top = round(min(span(rng, 2.0, 2.12), plan.height_m - 0.12), 3)
            plan.openings.append(Opening("door", side, low, high, (0.0, top)))
            return


def _with_free_leaf(plan: FloorPlan, opening: Opening) -> Opening:
    """The opening, without a leaf where that would stand in front of another door."""
    if not opening.leaf:
        return opening
    end = opening.high if opening.leaf > 0 else opening.low
    x0, y0, x1, y1 = opening.side.strip(end - _LEAF_AIR_M, end + _LEAF_AIR_M, opening.high - opening.low)
    for other in plan.openings:
        if other is opening or other.kind == "window":
            continue
        for depth in (1.0, -1.0 - plan.wall_m):
            a0, b0, a1, b1 = other.side.strip(other.low, other.high, depth)
            if x0 < a1 and x1 > a0 and y0 < b1 and y1 > b0:
                return replace(opening, leaf=0)
    return opening


def _add_windows(rng: np.random.Generator, plan: FloorPlan, room: int) -> None:
    purpose = plan.rooms[room].purpose
    wanted = pick(rng, (0, 0, 1)) if purpose in ("hall", "storage") else pick(rng, (1, 1, 2, 2, 3))
    to_floor = chance(rng, 0.15)
    sill = span(rng, 0.06, 0.2) if to_floor else span(rng, 0.75, 1.1)
    top = round(min(span(rng, 2.0, 2.35), plan.height_m - 0.12), 3)
    sides = plan.sides(room)
    # Most rooms have windows in one wall or two.
    walls = [pick(rng, sides), pick(rng, sides)]
    for _ in range(12):
        if not wanted:
            return
        side = pick(rng, walls if chance(rng, 0.8) else sides)
        width = span(rng, 0.7, 2.2)
        if side.high - side.low < width + 0.6:
            continue
        low = span(rng, side.low + 0.25, side.high - 0.25 - width)
        high = round(low + width, 3)
        if plan.is_outside(side, low, high) and plan.is_whole(side, low - 0.15, high + 0.15):
            plan.openings.append(Opening("window", side, low, high, (sill, top)))
            wanted -= 1


def without(spans: list[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """What is left of spans when [low, high] is taken away."""
    rest = []
    for a, b in spans:
        rest += [(a, min(b, low)), (max(a, high), b)]
    return [(a, b) for a, b in rest if b - a > 1e-6]


def _joined(sides: list[Side]) -> list[Side]:
    """Walls that go on in one line become one."""
    done: list[Side] = []
    for side in sorted(sides, key=lambda s: (s.axis, s.at, s.inward, s.low)):
        last = done[-1] if done else None
        if last and (last.axis, last.at, last.inward, last.high) == (side.axis, side.at, side.inward, side.low):
            done[-1] = Side(side.room, side.axis, side.at, last.low, side.high, side.inward)
        else:
            done.append(side)
    return done
