"""Placing things in rooms so that nothing intersects, doors stay free and one can walk about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgrocc.geometry import Pose
from sgrocc.synthrooms.floor_plan import LINING_M, FloorPlan, Opening, Room, Side, without
from sgrocc.synthrooms.furniture_parts import chance, pick, span
from sgrocc.synthrooms.scene import Item, Solid, heading

#: Half the width of the path that joins the doors, and the raster on which it is looked for.
PATH_HALF_M = 0.35
_RASTER_M = 0.1
#: Of the floor on which one could walk in the empty rooms, this much must stay in one piece with the doors ...
_WALKABLE = 0.16
#: ... and this much of what is left to walk on must belong to it.
_JOINED = 0.75
#: How far in front of a door nothing stands.
_DOOR_FREE_M = 0.95
#: Air between things that do not belong together.
_AIR_M = 0.03
#: Touching is not intersecting.
_TOUCH_M = 1e-4

#: Of the room that a thing wants in front of it, so much it has for itself; rooms are crowded.
_CLEAR_SHARE = 0.6

_MOVABLE = frozenset(
    "dining_chair office_chair stool armchair_small box_stack bag bin laundry suitcase toys fan plant".split()
)


class Boxes:
    """Axis-aligned boxes, grown as they come."""

    def __init__(self) -> None:
        self.low, self.high = np.zeros((256, 3)), np.zeros((256, 3))
        self.count = 0

    def add(self, low: np.ndarray, high: np.ndarray) -> None:
        if self.count == len(self.low):
            self.low, self.high = np.concatenate([self.low] * 2), np.concatenate([self.high] * 2)
        self.low[self.count], self.high[self.count] = low, high
        self.count += 1

    def meets(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether a box has a part in common with any of them; touching is none."""
        n = self.count
        return bool(((self.low[:n] < high - _TOUCH_M) & (self.high[:n] > low + _TOUCH_M)).all(axis=1).any())

    def beside(self, low: np.ndarray, high: np.ndarray, axis: int, apart: float) -> list[tuple[float, float]]:
        """Spans along `axis` of the boxes that something of these other extents would meet if it slid along it."""
        n, other = self.count, 1 - axis
        hit = (self.low[:n, 2] < high[2] - _TOUCH_M) & (self.high[:n, 2] > low[2] + _TOUCH_M)
        hit &= (self.low[:n, other] < high[other] + apart) & (self.high[:n, other] > low[other] - apart)
        return list(zip(self.low[:n, axis][hit].tolist(), self.high[:n, axis][hit].tolist()))


@dataclass(frozen=True)
class Placed:
    """An item in its room. pose: local to room frame; low, high: (3,) corners of its box."""

    item: Item
    pose: Pose
    low: np.ndarray
    high: np.ndarray
    piece: int


@dataclass
class Furnishing:
    """What stands in a scene, and whether something more fits."""

    plan: FloorPlan
    solids: list[Solid]
    movable: set[int] = field(default_factory=set)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next_piece = max(solid.piece for solid in self.solids) + 1
        self._structure = len(self.solids)
        self._things = Boxes()  # items
        self._parts = Boxes()  # their solids
        self._doors = Boxes()  # where nothing stands, because of a door
        self._windows = Boxes()  # nor hangs, because of a window
        self._fronts = Boxes()  # room to use something: only what belongs to it may stand there
        self._rugs: list[tuple[float, float, float, float, float]] = []
        self._walk = _Walk(self.plan)
        self._last: tuple | None = None  # an item and its own box, which many tries in a row ask for
        for opening in self.plan.openings:
            self._keep_free(opening)

    # ------------------------------------------------------------ one thing

    def place(
        self,
        room: Room,
        item: Item,
        pose: Pose,
        *,
        air_m: float = _AIR_M,
        belongs: bool = False,
        fine: bool = False,
        by_window: bool = False,
        walk: bool = True,
    ) -> Placed | None:
        """Put it there if it fits, else None.

        air_m: around it, to the sides; belongs: it may stand in the room that others need in front of them; fine: solid
        by solid is looked at, not box by box, so that it may be under a table or in a shelf; by_window: it may cover a
        window; walk: it must leave a path.
        """
        pose = self._on_rug(item, pose)
        low, high = self._outline(item, pose)
        if high[2] > self.plan.height_m + _TOUCH_M or low[2] < -_TOUCH_M:
            return None
        if not room.covers(low[0], low[1], high[0], high[1]):
            return None
        air = np.array([air_m, air_m, 0.0])
        if self._doors.meets(low, high) or (not by_window and self._windows.meets(low, high)):
            return None
        if fine:
            if self._things.meets(low - air, high + air) and any(
                self._parts.meets(a - air, b + air) for a, b in (solid.moved(pose).bounds() for solid in item.solids)
            ):
                return None
        elif self._things.meets(low - air, high + air):
            return None
        if not belongs and self._fronts.meets(low, high):
            return None
        front = _front(item, pose)
        if front is not None and not belongs:
            front_low, front_high = front
            if not room.covers(front_low[0], front_low[1], front_high[0], front_high[1]):
                return None
            if self._things.meets(front_low, front_high):
                return None
        blocks = walk and high[2] > 0.05 and low[2] < 1.6
        if blocks and not self._walk.still_joined(low, high):
            return None

        if blocks:
            self._walk.block(low, high)
        piece = self.next_piece
        self.next_piece += 1
        self._things.add(low, high)
        for solid in item.solids:
            solid = replace(solid.moved(pose), piece=piece)
            self.solids.append(solid)
            self._parts.add(*solid.bounds())
        if front is not None:
            self._fronts.add(*front)
        if item.kind == "rug":
            self._rugs.append(_flat_part(item.solids[0], low, high))
        if item.kind in _MOVABLE and low[2] < 0.05:
            self.movable.add(piece)
        if item.kind == "ceiling_lamp":
            middle = (low + high) / 2
            self.lamps.append((float(middle[0]), float(middle[1]), float(low[2]) - 0.05))
        self.placed.append(Placed(item, pose, low, high, piece))
        return self.placed[-1]

    # ------------------------------------------------------------ where

    def against_wall(
        self,
        number: int,
        item: Item,
        rng: np.random.Generator,
        *,
        z: float = 0.0,
        sides: Sequence[Side] | None = None,
        near: float | None = None,
        tries: int = 8,
        gap_m: float = 0.0,
        exact: bool = False,
        **how,
    ) -> Placed | None:
        """Its back to a wall of room `number`. sides: to choose from; near: coordinate along the wall to stay close to;
        exact: there and nowhere else; gap_m: at most so far from the wall.
        """
        sides = list(sides or self.plan.sides(number))
        away = span(rng, 0.0, gap_m) if gap_m else 0.0
        room = self.plan.rooms[number]
        for _ in range(tries if sides else 0):
            side = pick(rng, sides)
            if exact:
                along = near
            else:
                gaps = self._gaps(side, item, z, away, how)
                if not gaps:
                    sides.remove(side)
                    if not sides:
                        return None
                    continue
                if near is None:
                    low, high = pick(rng, gaps)
                    # Things like corners and the company of others: often the end of a gap.
                    along = pick(rng, (low, high)) if chance(rng, 0.45) else span(rng, low, high)
                else:
                    at = near + span(rng, -0.25, 0.25)
                    along = min((min(max(at, low), high) for low, high in gaps), key=lambda value: abs(value - at))
            placed = self.place(room, item, on_wall(side, along, z, away), **how)
            if placed:
                return placed
        return None

    def _gaps(self, side: Side, item: Item, z: float, away: float, how: dict) -> list[tuple[float, float]]:
        """Where along a wall the item's middle may be for all that is known to stand there."""
        low, high = self._outline(item, on_wall(side, 0.0, z, away))
        axis, air = side.axis, how.get("air_m", _AIR_M)
        free = [(side.low - low[axis] + 0.002, side.high - high[axis] - 0.002)]
        others = [(self._doors, 0.0)]
        if not how.get("fine"):
            others.append((self._things, air))
        if not how.get("by_window"):
            others.append((self._windows, 0.0))
        if not how.get("belongs"):
            others.append((self._fronts, 0.0))
        for boxes, apart in others:
            for a, b in boxes.beside(low, high, axis, apart):
                free = without(free, a - high[axis] - apart, b - low[axis] + apart)
        return [(round(a + 0.001, 6), round(b - 0.001, 6)) for a, b in free if b - a > 0.003]

    def anywhere(
        self,
        number: int,
        item: Item,
        rng: np.random.Generator,
        *,
        tries: int = 24,
        turned: bool = False,
        air_m: float = _AIR_M,
        **how,
    ) -> Placed | None:
        """Free on the floor of a room, along the walls or, if `turned`, at any angle.

        air_m: wished for around it; with every try it makes do with less.
        """
        room = self.plan.rooms[number]
        for attempt in range(tries):
            air = max(air_m * (1.0 - 0.7 * attempt / tries), _AIR_M)
            x0, y0, x1, y1 = pick(rng, room.rectangles)
            yaw = span(rng, 0.0, 6.283) if turned else np.pi / 2 * int(rng.integers(4))
            low, high = self._outline(item, heading(yaw))
            if low[0] - high[0] < x0 - x1 or low[1] - high[1] < y0 - y1:
                continue
            at = span(rng, x0 - low[0], x1 - high[0]), span(rng, y0 - low[1], y1 - high[1])
            placed = self.place(room, item, heading(yaw, *at), air_m=round(air, 6), **how)
            if placed:
                return placed
        return None

    def on_top(
        self, number: int, carrier: Placed, item: Item, rng: np.random.Generator, *, tries: int = 6, turned: bool = True
    ) -> Placed | None:
        """On the surface of something that has a `top_m`; all of its foot is on the surface."""
        if carrier.item.top_m is None:
            return None
        top = carrier.pose.translation[2] + carrier.item.top_m
        rests = [s for s in self.solids_of(carrier) if abs(s.bounds()[1][2] - top) < 2e-3]
        for _ in range(tries if rests else 0):
            rest = pick(rng, rests)
            low, high = rest.bounds()
            yaw = span(rng, 0.0, 6.283) if turned else round(_yaw(carrier.pose), 6)
            turn = heading(yaw)
            middle = turn.apply(np.array([item.size_m[0] / 2, 0.0, 0.0]))
            at = np.round([span(rng, low[k], high[k]) - middle[k] for k in (0, 1)], 6)
            pose = heading(yaw, at[0], at[1], round(float(top), 6))
            if rests_on(item, pose, rest):
                placed = self.place(
                    self.plan.rooms[number], item, pose, air_m=0.01, belongs=True, fine=True, by_window=True, walk=False
                )
                if placed:
                    return placed
        return None

    def solids_of(self, placed: Placed) -> list[Solid]:
        return [solid for solid in self.solids[self._structure :] if solid.piece == placed.piece]

    # ------------------------------------------------------------ inside

    def _on_rug(self, item: Item, pose: Pose) -> Pose:
        """The pose, 2 cm higher where all of the item is on a rug."""
        if abs(pose.translation[2]) > 1e-9 or not self._rugs or item.kind in ("rug", "curtain", "radiator"):
            return pose
        low, high = self._outline(item, pose)
        for x0, y0, x1, y1, top in self._rugs:
            if low[0] >= x0 and low[1] >= y0 and high[0] <= x1 and high[1] <= y1:
                return Pose(pose.rotation, pose.translation + np.array([0.0, 0.0, top]))
        return pose

    def _outline(self, item: Item, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """The item's box where it stands."""
        if np.abs(pose.rotation[0, 0]) not in (0.0, 1.0):
            return bounds_of(solid.moved(pose) for solid in item.solids)
        if self._last is None or self._last[0] is not item:
            self._last = (item, *bounds_of(item.solids))
        corners = pose.apply(np.stack(self._last[1:]))
        return np.round(corners.min(axis=0), 9), np.round(corners.max(axis=0), 9)

    def _keep_free(self, opening: Opening) -> None:
        side, top = opening.side, opening.z[1]
        if opening.kind == "window":
            x0, y0, x1, y1 = side.strip(opening.low - 0.04, opening.high + 0.04, 0.4)
            self._windows.add(np.array([x0, y0, opening.z[0] + 0.02]), np.array([x1, y1, top + 0.04]))
            return
        for depth in (_DOOR_FREE_M, -_DOOR_FREE_M - self.plan.wall_m):
            if depth > 0 or opening.kind == "doorway":
                x0, y0, x1, y1 = side.strip(opening.low - 0.06, opening.high + 0.06, depth)
                self._doors.add(np.array([x0, y0, 0.0]), np.array([x1, y1, top + 0.06]))
        if opening.leaf:
            inside = 0.05 if opening.leaf > 0 else -0.05
            end = opening.high if opening.leaf > 0 else opening.low
            x0, y0, x1, y1 = side.strip(*sorted((end, end + inside)), opening.high - opening.low)
            low, high = np.array([x0, y0, 0.0]), np.array([x1, y1, top])
            self._things.add(low, high)
            self._walk.block(low, high)


class _Walk:
    """Where a person of a path's width can stand, and whether all doors can be reached from each other."""

    def __init__(self, plan: FloorPlan) -> None:
        rectangles = [r for room in plan.rooms for r in room.rectangles]
        doors = []
        for opening in plan.openings:
            if opening.kind == "window":
                continue
            side, middle = opening.side, (opening.low + opening.high) / 2
            depths = (0.45, -0.45 - plan.wall_m) if opening.kind == "doorway" else (0.45,)
            for depth in depths:
                across = side.at + side.inward * depth
                doors.append((middle, across) if side.axis == 0 else (across, middle))
            if opening.kind == "doorway":
                rectangles.append(side.strip(opening.low + LINING_M, opening.high - LINING_M, -plan.wall_m))
        self._origin = np.min(rectangles, axis=0)[:2]
        size = np.max(rectangles, axis=0)[2:] - self._origin
        fine = _RASTER_M / 5
        shape = np.ceil(size / _RASTER_M).astype(int)
        # Room is looked at five times as finely, so that a doorway is not a matter of luck.
        inside = np.zeros(tuple(shape * 5), bool)
        for x0, y0, x1, y1 in rectangles:
            (i0, j0), (i1, j1) = (
                np.rint((np.array(c) - self._origin) / fine).astype(int) for c in ((x0, y0), (x1, y1))
            )
            inside[i0:i1, j0:j1] = True
        reach = int(PATH_HALF_M / fine)
        for axis in (0, 1):
            inside = _eroded(inside, reach, axis)
        self._free = inside.reshape(shape[0], 5, shape[1], 5).any(axis=(1, 3))
        self._empty = int(self._free.sum())
        self._doors = [self._cell(x, y) for x, y in doors]
        self._blocks: list[tuple[slice, slice]] = []

    def block(self, low: np.ndarray, high: np.ndarray) -> None:
        self._blocks.append(self._slices(low, high))

    def still_joined(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether, with this box as well, the doors are joined with most of the floor that is left to walk on."""
        free = self._free.copy()
        for block in [*self._blocks, self._slices(low, high)]:
            free[block] = False
        left = int(free.sum())
        if left < _WALKABLE * self._empty or not all(free[door] for door in self._doors):
            return False
        start = self._doors[0] if self._doors else tuple(np.argwhere(free)[0])
        joined = flood(free, start)
        return all(joined[door] for door in self._doors) and int(joined.sum()) >= max(
            _JOINED * left, _WALKABLE * self._empty
        )

    def _cell(self, x: float, y: float) -> tuple[int, int]:
        return tuple(int(value) for value in np.floor((np.array([x, y]) - self._origin) / _RASTER_M))

    def _slices(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice]:
        # A cell is blocked where its centre is nearer than half a path, along both axes.
        first = np.floor((low[:2] - PATH_HALF_M - self._origin) / _RASTER_M + 0.5).astype(int)
        last = np.ceil((high[:2] + PATH_HALF_M - self._origin) / _RASTER_M - 0.5).astype(int)
        return tuple(slice(max(int(a), 0), max(int(b), 0)) for a, b in zip(first, last, strict=True))


def flood(free: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """What can be reached from a cell through free cells that share an edge. free: (X, Y) bool."""
    along = (_runs(free), _runs(free.T).T)
    joined = np.zeros_like(free)
    joined[start] = free[start]
    count = 0
    while True:
        # Runs of free cells along one axis are filled whole, then along the other, until nothing is added.
        for runs in along:
            reached = np.zeros(free.size + 1, bool)
            reached[runs[joined]] = True
            joined = reached[runs] & free
        new = int(np.count_nonzero(joined))
        if new == count:
            return joined
        count = new


def _runs(free: np.ndarray) -> np.ndarray:
    """A number for every run of free cells along the second axis; meaningless where not free."""
    begins = free.copy()
    begins[:, 1:] &= ~free[:, :-1]
    return np.cumsum(begins).reshape(free.shape)


def on_wall(side: Side, along: float, z: float = 0.0, away: float = 0.0) -> Pose:
    """The pose of something whose back is `away` from a wall."""
    across = side.at + side.inward * away
    x, y = (along, across) if side.axis == 0 else (across, along)
    return heading(side.yaw_rad, round(float(x), 6), round(float(y), 6), round(float(z), 6))


def composed(parent: Pose, child: Pose) -> Pose:
    """parent after child, without the BLAS."""
    rotation = (parent.rotation[:, :, None] * child.rotation[None]).sum(axis=1)
    return Pose(np.round(rotation, 9), np.round(parent.apply(child.translation), 9))


def rests_on(item: Item, pose: Pose, rest: Solid) -> bool:
    """Whether all that the item stands on the surface with is inside the surface's edge (seen from above)."""
    bounds = [s.moved(pose).bounds() for s in item.solids if s.bounds()[0][2] < 0.03]
    low = np.min([a for a, _ in bounds], axis=0)
    high = np.max([b for _, b in bounds], axis=0)
    corners = np.array([[x, y, rest.centre[2]] for x in (low[0], high[0]) for y in (low[1], high[1])])
    return bool((rest.distance(corners) < -0.002).all())


def _front(item: Item, pose: Pose) -> tuple[np.ndarray, np.ndarray] | None:
    """The box in front of an item that nothing but what belongs to it may fill."""
    if item.clear_m <= 0:
        return None
    depth, width, height = item.size_m
    reach = depth + _CLEAR_SHARE * item.clear_m
    corners = pose.apply(np.array([[x, y, 0.0] for x in (depth + 0.01, reach) for y in (-width / 2, width / 2)]))
    low, high = np.round(corners.min(axis=0), 6), np.round(corners.max(axis=0), 6)
    return np.append(low[:2], 0.03), np.append(high[:2], max(height, 0.5))


def _flat_part(solid: Solid, low: np.ndarray, high: np.ndarray) -> tuple[float, float, float, float, float]:
    """The rectangle on top of a rug."""
    inset = 0.0
    if solid.shape == "cylinder":
        inset = solid.half[0] * (1.0 - 0.7)
    return low[0] + inset, low[1] + inset, high[0] - inset, high[1] - inset, high[2]


def _yaw(pose: Pose) -> float:
    return float(np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]))


def _eroded(mask: np.ndarray, reach: int, axis: int) -> np.ndarray:
    """True where all cells within `reach` along an axis are true; outside is false."""
    padded = np.pad(mask, [(reach + 1, reach) if k == axis else (0, 0) for k in (0, 1)])
    total = np.cumsum(padded, axis=axis, dtype=np.int32)
    n = mask.shape[axis]
    high = np.take(total, np.arange(2 * reach + 1, 2 * reach + 1 + n), axis=axis)
    low = np.take(total, np.arange(n), axis=axis)
    return (high - low) == 2 * reach + 1


def bounds_of(solids: Iterable[Solid]) -> tuple[np.ndarray, np.ndarray]:
    corners = [solid.bounds() for solid in solids]
    return np.min([low for low, _ in corners], axis=0), np.max([high for _, high in corners], axis=0)
