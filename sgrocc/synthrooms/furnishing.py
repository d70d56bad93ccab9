"""What stands where in a room: groups for its purpose, such as a sofa before a television, single things, clutter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgrocc.synthrooms.floor_plan import FloorPlan, Side
from sgrocc.synthrooms.furniture import make
from sgrocc.synthrooms.furniture_parts import chance, pick, span
from sgrocc.synthrooms.furniture_tables import CHAIR_DEPTH_M, OFFICE_CHAIR_DEPTH_M
from sgrocc.synthrooms.placing import Furnishing, Placed, composed, on_wall
from sgrocc.synthrooms.scene import Item, Solid, heading

#: What else stands along the walls, or free; a kind that stands twice comes twice as often.
_MORE = {
    "living": "bookcase bookcase cabinet armchair side_table plant floor_lamp dresser armchair_small sofa dining_table",
    "bedroom": "wardrobe wardrobe dresser bookcase desk armchair_small plant floor_lamp laundry cabinet",
    "dining": "cabinet cabinet bookcase plant floor_lamp side_table bench dresser dining_table dining_table",
    "kitchen": "cabinet bench bookcase plant kitchen_unit stool dining_table dining_table",
    "office": "bookcase bookcase cabinet desk desk desk wardrobe plant floor_lamp box_stack side_table",
    "meeting": "cabinet bookcase cabinet dining_chair armchair_small plant office_chair desk dining_table dining_table",
    "mixed": "bookcase wardrobe cabinet desk armchair sofa dining_table dresser plant floor_lamp desk",
    "storage": "bookcase bookcase bookcase wardrobe cabinet box_stack box_stack suitcase desk bench laundry",
    "hall": "cabinet bench wardrobe bookcase plant stool side_table",
}
_DEEPEST_M = {"dining_chair": CHAIR_DEPTH_M, "office_chair": OFFICE_CHAIR_DEPTH_M}
_FLOOR_CLUTTER = "bin bag box_stack toys suitcase laundry plant fan books".split()
_TOP_CLUTTER = "books books vase bottle bowl table_lamp plant books bowl".split()
_WALL_CLUTTER = "picture picture picture mirror clock shelf_wall shelf_wall".split()


def furnish(plan: FloorPlan, structure: list[Solid], rng: np.random.Generator) -> Furnishing:
    """All rooms, each for its purpose."""
    done = Furnishing(plan, list(structure))
    for number, room in enumerate(plan.rooms):
        _by_windows(done, number, rng)
        first = len(done.placed)
        for group in _GROUPS[room.purpose]:
            group(done, number, rng)
        _fill(done, number, rng, first)
        _ceiling(done, number, rng)
        _on_walls(done, number, rng)
        _on_tops(done, number, rng, done.placed[first:])
        _on_floor(done, number, rng)
    return done


# ---------------------------------------------------------------- groups


def _sofas(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """A sofa; before it a table, perhaps on a rug; opposite a television; armchairs and a lamp beside it."""
    sofa = None
    for kind in (pick(rng, ("sofa", "sofa", "corner_sofa")), "sofa", "armchair"):
        sofa = sofa or done.against_wall(number, make(kind, rng), rng, gap_m=0.06)
    if sofa is None:
        return
    depth, width = sofa.item.size_m[:2]
    if chance(rng, 0.5):
        _before(done, number, sofa, make("rug", rng), span(rng, 0.05, 0.3), rng)
    if chance(rng, 0.8):
        _before(done, number, sofa, make("coffee_table", rng), span(rng, 0.3, 0.5), rng)
    opposite = [s for s in done.plan.sides(number) if _faces(s, sofa)]
    if chance(rng, 0.8):
        _television(done, number, rng, opposite, float(sofa.pose.translation[0 if opposite[0].axis == 0 else 1]))
    for sign in (1.0, -1.0):
        if chance(rng, 0.45):
            chair = make(pick(rng, ("armchair", "armchair_small", "armchair")), rng)
            pose = heading(
                -sign * (np.pi / 2 + span(rng, -0.3, 0.3)), depth + span(rng, 0.2, 0.7), sign * (width / 2 + 0.6)
            )
            done.place(done.plan.rooms[number], chair, composed(sofa.pose, pose), belongs=True)
        if chance(rng, 0.4):
            _beside(done, number, sofa, make(pick(rng, ("side_table", "floor_lamp", "plant")), rng), sign)


def _television(done: Furnishing, number: int, rng: np.random.Generator, sides: list[Side], near: float | None) -> None:
    """On a cabinet, or on the wall above one."""
    cabinet = done.against_wall(number, make("cabinet", rng), rng, sides=sides, near=near)
    cabinet = cabinet or done.against_wall(number, make("cabinet", rng), rng, sides=sides)
    if cabinet is None:
        done.against_wall(number, make("tv_wall", rng), rng, sides=sides, near=near, z=1.35, belongs=True)
        return
    pose, top = cabinet.pose, cabinet.item.top_m or 1.0
    if chance(rng, 0.6) and top < 0.9:
        for _ in range(3):
            tv = make("tv_stand", rng)
            at = heading(0.0, max((cabinet.item.size_m[0] - tv.size_m[0]) / 2, 0.01), 0.0, top)
            if tv.size_m[1] < cabinet.item.size_m[1] + 0.3 and tv.size_m[0] < cabinet.item.size_m[0]:
                if _upon(done, number, tv, composed(pose, at)):
                    return
    tv = make("tv_wall", rng)
    height = round(max(top + 0.1 + tv.size_m[2] / 2, span(rng, 1.1, 1.4)), 3)
    side = _side_behind(done, number, cabinet)
    if side is not None:
        along = float(pose.translation[0 if side.axis == 0 else 1])
        done.against_wall(number, tv, rng, sides=[side], near=along, z=height, tries=4, belongs=True, walk=False)


def _bed(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """Head against a wall, a nightstand with a lamp on each side, a wardrobe."""
    large = done.plan.rooms[number].area_m2 > 10.0
    bed = None
    for kind in (
        pick(rng, ("bed_double", "bed_double", "bed_single") if large else ("bed_single", "bunk")),
        "bed_single",
    ):
        bed = bed or done.against_wall(number, make(kind, rng), rng, tries=24)
    if bed is None:
        return
    nightstand = make("nightstand", rng)
    for sign in (1.0, -1.0):
        if chance(rng, 0.8):
            stand = _beside(done, number, bed, nightstand, sign, 0.0)
            if stand and chance(rng, 0.6):
                done.on_top(number, stand, make("table_lamp", rng), rng)
    if chance(rng, 0.35):
        _before(done, number, bed, make("rug", rng), 0.1, rng)
    if large and chance(rng, 0.25):
        done.against_wall(number, make("bed_single", rng), rng)
    for _ in range(int(rng.integers(1, 3))):
        done.against_wall(number, make(pick(rng, ("wardrobe", "wardrobe", "dresser")), rng), rng)
    if chance(rng, 0.25):
        _television(done, number, rng, [s for s in done.plan.sides(number) if _faces(s, bed)], None)


def _desk(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """A desk with its chair and screen, mostly at a wall."""
    desk = make("desk", rng)
    placed = done.against_wall(number, desk, rng, gap_m=0.05) if chance(rng, 0.8) else None
    placed = placed or done.anywhere(number, desk, rng, air_m=0.1)
    if placed:
        _fill_slots(done, number, rng, placed)


def _desks(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    for _ in range(int(np.clip(done.plan.rooms[number].area_m2 / 3.5, 1, 7))):
        _desk(done, number, rng)


def _dining(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """A table with chairs around, mostly away from the walls; a lamp above it."""
    for attempt in range(3):
        table = make("dining_table", rng)
        placed = done.anywhere(number, table, rng, air_m=0.6 if attempt < 2 else 0.1, tries=24)
        if placed is None:
            continue
        _fill_slots(done, number, rng, placed)
        if chance(rng, 0.6):
            middle = (placed.low + placed.high) / 2
            lamp = heading(0.0, round(float(middle[0]), 6), round(float(middle[1]), 6), done.plan.height_m)
            item = make("ceiling_lamp", rng)
            pose = composed(lamp, heading(0.0, -item.size_m[0] / 2, 0.0))
            if done.plan.height_m - item.size_m[2] > 1.5:
                done.place(done.plan.rooms[number], item, pose, belongs=True, walk=False)
        return


def _tables(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """Several tables with chairs, all alike."""
    area = done.plan.rooms[number].area_m2
    table, chair = make("dining_table", rng), _visitor_chair(rng)
    for _ in range(int(np.clip(area / 3.5, 1, 8))):
        placed = done.anywhere(number, table, rng, air_m=span(rng, 0.3, 0.5), tries=30)
        if placed:
            _fill_slots(done, number, rng, placed, chair)


def _island(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """Tables pushed together in the middle, with chairs all around."""
    table, chair = make(pick(rng, ("dining_table", "desk")), rng), _visitor_chair(rng)
    first = done.anywhere(number, table, rng, air_m=0.5, tries=40)
    if first is None:
        return
    row = [first]
    for across, along in ((0, 1), (1, 0), (1, 1), (0, -1), (1, -1)):
        if len(row) > along >= 0 or chance(rng, 0.4):
            # Across from a table stands one turned about, back to back with it.
            turn = heading(np.pi if across else 0.0, 0.0, along * (table.size_m[1] + 0.002))
            back = composed(turn, heading(0.0, 0.002)) if across else turn
            placed = done.place(done.plan.rooms[number], table, composed(first.pose, back), air_m=0.0, belongs=True)
            row += [placed] if placed else []
    for placed in row:
        _fill_slots(done, number, rng, placed, chair)


def _rows(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """Chairs in rows that look at one wall, a screen on it, a table in front."""
    side, chair = pick(rng, done.plan.sides(number)), make(pick(rng, ("dining_chair", "dining_chair", "stool")), rng)
    if chance(rng, 0.7):
        done.against_wall(number, make("tv_wall", rng), rng, sides=[side], z=1.4, belongs=True, walk=False)
    pitch, apart = chair.size_m[1] + span(rng, 0.05, 0.2), chair.size_m[0] + span(rng, 0.35, 0.55)
    ahead, aisle = span(rng, 1.4, 2.0), span(rng, 0.5, 0.8)
    for row in range(4):
        along = side.low + aisle + pitch / 2
        while along < side.high - aisle - pitch / 2:
            pose = composed(
                on_wall(side, round(along, 6), 0.0, ahead + row * apart), heading(np.pi + span(rng, -0.08, 0.08))
            )
            if not chance(rng, 0.08):
                done.place(done.plan.rooms[number], chair, composed(pose, heading(0.0, -chair.size_m[0])), belongs=True)
            along += pitch
    table = done.against_wall(number, make(pick(rng, ("desk", "dining_table")), rng), rng)
    if table:
        _fill_slots(done, number, rng, table, chair)


def _visitor_chair(rng: np.random.Generator) -> Item:
    return make(pick(rng, ("dining_chair", "dining_chair", "office_chair")), rng)


def _stray_chairs(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """A few along the walls or somewhere."""
    chair = make(pick(rng, ("dining_chair", "office_chair", "armchair_small", "stool", "dining_chair")), rng)
    for _ in range(int(rng.integers(1, 6))):
        if chance(rng, 0.7):
            done.against_wall(number, chair, rng, gap_m=0.06)
        else:
            done.anywhere(number, chair, rng, turned=True, tries=8)


def _kitchen(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """One or two runs of units, a counter or a small table."""
    for _ in range(int(rng.integers(1, 3))):
        unit = done.against_wall(number, make("kitchen_unit", rng), rng, tries=20)
        if unit:
            _fill_slots(done, number, rng, unit)
            if chance(rng, 0.6):
                _beside(done, number, unit, make("fridge", rng), pick(rng, (1.0, -1.0)))
    if done.plan.rooms[number].area_m2 > 9.0:
        if chance(rng, 0.4):
            counter = done.anywhere(number, make("counter", rng), rng, air_m=0.5)
            if counter:
                _fill_slots(done, number, rng, counter)
        else:
            _dining(done, number, rng)


def _shelves(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    for _ in range(int(np.clip(done.plan.rooms[number].area_m2 / 4.0, 1, 4))):
        done.against_wall(number, make(pick(rng, ("bookcase", "cabinet", "wardrobe")), rng), rng)


def _or(*groups: Callable) -> Callable:
    """One of several groups."""
    return lambda done, number, rng: pick(rng, groups)(done, number, rng)


def _nothing(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    pass


_GROUPS: dict[str, tuple[Callable, ...]] = {
    "living": (_sofas, _or(_dining, _desk, _nothing), _or(_sofas, _nothing)),
    "bedroom": (_bed, _or(_desk, _stray_chairs)),
    "dining": (_dining, _or(_dining, _shelves), _stray_chairs),
    "kitchen": (_kitchen, _or(_dining, _stray_chairs)),
    "office": (_or(_desks, _island), _desks, _shelves, _stray_chairs),
    "meeting": (_or(_tables, _island, _rows), _stray_chairs),
    "mixed": (_or(_bed, _sofas), _or(_dining, _desk), _or(_desk, _dining), _stray_chairs),
    "storage": (_shelves,),
    "hall": (_nothing,),
}


# ---------------------------------------------------------------- single things


def _by_windows(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    """Radiators below and curtains beside them."""
    drape = make("curtain", rng) if chance(rng, 0.5) else None
    for opening in done.plan.openings:
        if opening.kind != "window" or opening.side.room != number:
            continue
        middle = (opening.low + opening.high) / 2
        if chance(rng, 0.5):
            radiator = make("radiator", rng)
            if radiator.size_m[2] < opening.z[0] and radiator.size_m[1] < opening.high - opening.low + 0.4:
                done.against_wall(number, radiator, rng, sides=[opening.side], near=middle, tries=3)
        if drape is not None:
            for edge, sign in ((opening.low, -1.0), (opening.high, 1.0)):
                along = edge + sign * (drape.size_m[1] / 2 - 0.05)
                low, high = along - drape.size_m[1] / 2, along + drape.size_m[1] / 2
                if low > opening.side.low and high < opening.side.high:
                    done.against_wall(
                        number, drape, rng, sides=[opening.side], near=along, exact=True, tries=1, by_window=True
                    )


def _fill(done: Furnishing, number: int, rng: np.random.Generator, first: int) -> None:
    """More furniture until the room is as full as this one is to be."""
    room = done.plan.rooms[number]
    kinds = _MORE[room.purpose].split()
    wanted = span(rng, 0.12, 0.28) if room.purpose == "hall" else span(rng, 0.42, 0.68)
    failures = 0
    for _ in range(24):
        covered = sum(
            float(np.prod(p.high[:2] - p.low[:2])) for p in done.placed[first:] if p.high[2] > 0.05 and p.low[2] < 0.5
        )
        if covered > wanted * room.area_m2 or failures > 9:
            return
        kind = pick(rng, kinds)
        item = make(kind, rng)
        if kind in ("dining_table", "desk"):
            if chance(rng, 0.5):
                placed = done.against_wall(number, item, rng, gap_m=0.05, tries=4)
            else:
                placed = done.anywhere(number, item, rng, air_m=0.3)
            if placed:
                _fill_slots(done, number, rng, placed)
        elif kind in ("plant", "stool", "box_stack") and chance(rng, 0.3):
            placed = done.anywhere(number, item, rng, tries=8)
        else:
            placed = done.against_wall(number, item, rng, tries=4, gap_m=0.03)
        failures += placed is None


def _ceiling(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    room = done.plan.rooms[number]
    for x0, y0, x1, y1 in room.rectangles:
        for _ in range(4 if chance(rng, 0.75) else 0):
            item = make("ceiling_lamp", rng)
            x = (x0 + x1) / 2 + span(rng, -0.3, 0.3) - item.size_m[0] / 2
            pose = heading(0.0, round(x, 6), round((y0 + y1) / 2 + span(rng, -0.3, 0.3), 6), done.plan.height_m)
            if done.plan.height_m - item.size_m[2] > 1.95 and done.place(room, item, pose, belongs=True, walk=False):
                break


def _on_walls(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 6))):
        item = make(pick(rng, _WALL_CLUTTER), rng)
        low = 1.05 if item.kind == "shelf_wall" else 0.9
        z = round(max(span(rng, 1.35, 1.7), low + item.size_m[2] / 2), 3)
        if z + item.size_m[2] / 2 < done.plan.height_m - 0.1:
            done.against_wall(number, item, rng, z=z, tries=6, belongs=True, walk=False)


def _on_tops(done: Furnishing, number: int, rng: np.random.Generator, carriers: list[Placed]) -> None:
    """Clutter on what carries it: some surfaces empty, some full."""
    for carrier in carriers:
        if carrier.item.top_m is None or carrier.pose.translation[2] + carrier.item.top_m > 1.5:
            continue
        area = carrier.item.size_m[0] * carrier.item.size_m[1]
        for _ in range(min(int(rng.integers(0, 4) + 2.5 * area * float(rng.random())), 6)):
            item = make(pick(rng, _TOP_CLUTTER), rng)
            if item.size_m[2] < 0.65:
                done.on_top(number, carrier, item, rng, turned=item.kind != "books" or chance(rng, 0.5))


def _on_floor(done: Furnishing, number: int, rng: np.random.Generator) -> None:
    if chance(rng, 0.3):
        done.anywhere(number, make("rug", rng), rng, tries=8, belongs=True)
    for _ in range(int(rng.integers(0, 5))):
        item = make(pick(rng, _FLOOR_CLUTTER), rng)
        if chance(rng, 0.6):
            done.against_wall(number, item, rng, tries=6, gap_m=0.1, fine=item.kind == "bin")
        else:
            done.anywhere(number, item, rng, tries=6, turned=True)


# ---------------------------------------------------------------- beside, before and upon


def _fill_slots(
    done: Furnishing, number: int, rng: np.random.Generator, carrier: Placed, chair: Item | None = None
) -> None:
    """Chairs around and screens upon it; the chairs alike, some pulled out and turned, few missing."""
    chairs: dict[str, Item] = {}
    for kind, slot in carrier.item.slots:
        if chance(rng, 0.08):
            continue
        if slot.translation[2] > 0.1:
            _upon(done, number, make(kind, rng), composed(carrier.pose, slot))
            continue
        item = chair or chairs.setdefault(kind, make(kind, rng))
        if chance(rng, 0.1):
            item = make(kind, rng)
        # The slot is where the deepest chair's back would be: others go nearer, unless that is into the table.
        spare = max(_DEEPEST_M.get(kind, 0.0) - item.size_m[0], 0.0)
        loose = chance(rng, 0.4)
        for nearer in (spare, spare / 2, 0.0, -0.1):
            pull, turn = (span(rng, 0.0, 0.35), span(rng, -0.5, 0.5)) if loose else (0.0, span(rng, -0.06, 0.06))
            loose = False
            pose = composed(composed(carrier.pose, slot), heading(turn, nearer - pull, 0.0))
            if done.place(done.plan.rooms[number], item, pose, air_m=0.01, belongs=True, fine=True):
                break


def _upon(done: Furnishing, number: int, item: Item, pose) -> Placed | None:
    return done.place(
        done.plan.rooms[number], item, pose, air_m=0.0, belongs=True, fine=True, by_window=True, walk=False
    )


def _before(
    done: Furnishing, number: int, behind: Placed, item: Item, gap_m: float, rng: np.random.Generator
) -> Placed | None:
    """In front of something, either way round, as near as it goes."""
    depth = behind.item.size_m[0]
    for away in (gap_m, gap_m + 0.15):
        turn = pick(rng, (0.0, np.pi / 2, np.pi))
        half = item.size_m[0] / 2 if turn != np.pi / 2 else item.size_m[1] / 2
        centre = heading(0.0, depth + away + half, span(rng, -0.15, 0.15))
        pose = composed(composed(behind.pose, centre), composed(heading(turn), heading(0.0, -item.size_m[0] / 2)))
        placed = done.place(done.plan.rooms[number], item, pose, belongs=True)
        if placed:
            return placed
    return None


def _beside(
    done: Furnishing, number: int, neighbour: Placed, item: Item, sign: float, back_m: float = 0.03
) -> Placed | None:
    """Back to the same wall, to the left (+1) or right (-1) of something."""
    along = sign * ((neighbour.item.size_m[1] + item.size_m[1]) / 2 + 0.05)
    return done.place(
        done.plan.rooms[number], item, composed(neighbour.pose, heading(0.0, back_m, along)), belongs=True
    )


def _faces(side: Side, placed: Placed) -> bool:
    """Whether something looks at this wall."""
    turn = heading(side.yaw_rad).rotation
    return bool((turn[:2, 0] * placed.pose.rotation[:2, 0]).sum() < -0.9)


def _side_behind(done: Furnishing, number: int, placed: Placed) -> Side | None:
    """The wall at something's back."""
    for side in done.plan.sides(number):
        axis = side.axis
        along, across = placed.pose.translation[axis], placed.pose.translation[1 - axis]
        if heading(side.yaw_rad).rotation[:2, 0].tolist() == placed.pose.rotation[:2, 0].tolist():
            if abs(across - side.at) < 0.1 and side.low <= along <= side.high:
                return side
    return None
