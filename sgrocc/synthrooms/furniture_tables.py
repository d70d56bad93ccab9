"""Tables, desks and counters. Chairs' slots put the chair's front a little under the top, clear of the legs."""

from __future__ import annotations

import numpy as np

from sgrocc.geometry import Pose
from sgrocc.labels import TABLE
from sgrocc.synthrooms.furniture_parts import (
    both_sides,
    chance,
    circle,
    finish,
    hard,
    metal,
    mirrored_item,
    paint,
    pick,
    span,
)
from sgrocc.synthrooms.scene import Item, Look, Solid, box, cylinder, heading, rod

#: No dining chair is deeper or wider than this, no office chair or bar stool deeper.
CHAIR_DEPTH_M, CHAIR_WIDTH_M, OFFICE_CHAIR_DEPTH_M, STOOL_DEPTH_M = 0.66, 0.54, 0.75, 0.45


def _chairs_beside(rng: np.random.Generator, depth: float, width: float) -> list[tuple[str, Pose]]:
    """Chairs along the long sides of a rectangular top (0, depth) x (-width / 2, width / 2), perhaps at its ends."""
    slots = []
    each = max(int((width - 0.1) / (CHAIR_WIDTH_M + 0.08)), 1)
    pitch = (width - 0.1) / each
    tuck = span(rng, 0.02, 0.16)
    for i in range(each):
        y = -width / 2 + 0.05 + (i + 0.5) * pitch
        slots.append(("dining_chair", heading(0.0, tuck - CHAIR_DEPTH_M, y)))
        slots.append(("dining_chair", heading(np.pi, depth - tuck + CHAIR_DEPTH_M, y)))
    # A chair at the end must not meet the knees of those beside it.
    if depth > 0.78 and chance(rng, 0.5):
        for side in (-1.0, 1.0):
            y = side * (width / 2 + CHAIR_DEPTH_M + 0.02)
            slots.append(("dining_chair", heading(-side * np.pi / 2, depth / 2, y)))
    return slots


def _four_legs(rng: np.random.Generator, look: Look, x: tuple, y: float, top: float) -> list[Solid]:
    half = span(rng, 0.02, 0.04)
    if chance(rng, 0.5):
        return [
            s for at in x for s in both_sides(box(TABLE, look, (at - half, at + half), (y - half, y + half), (0, top)))
        ]
    return [s for at in x for s in both_sides(cylinder(TABLE, look, at, y, (0, top), half))]


def _leg_table(rng: np.random.Generator) -> Item:
    top_look = hard(rng)
    leg_look = top_look if chance(rng, 0.6) else metal(rng)
    depth, width, height, thick = (
        span(rng, 0.72, 1.0),
        span(rng, 0.8, 2.1),
        span(rng, 0.72, 0.77),
        span(rng, 0.025, 0.05),
    )
    width = max(width, depth)
    solids = [box(TABLE, top_look, (0, depth), (-width / 2, width / 2), (height - thick, height))]
    solids += _four_legs(rng, leg_look, (0.05, depth - 0.05), width / 2 - 0.05, height - thick + 0.005)
    return finish("dining_table", solids, clear_m=0.7, top_m=height, slots=_chairs_beside(rng, depth, width))


def _trestle_table(rng: np.random.Generator) -> Item:
    """Two solid or crossed sides and a bar between them."""
    look, top_look = hard(rng), hard(rng)
    depth, width, height, thick = (
        span(rng, 0.78, 1.0),
        span(rng, 1.3, 2.2),
        span(rng, 0.72, 0.77),
        span(rng, 0.03, 0.05),
    )
    under = height - thick + 0.005
    y = width / 2 - 0.06
    solids = [box(TABLE, top_look, (0, depth), (-width / 2, width / 2), (height - thick, height))]
    if chance(rng, 0.5):
        solids += both_sides(box(TABLE, look, (0.08, depth - 0.08), (y - 0.025, y + 0.025), (0, under)))
    else:
        solids += both_sides(rod(TABLE, look, (0.12, y, 0.03), (depth - 0.12, y, under - 0.02), 0.028))
        solids += both_sides(rod(TABLE, look, (depth - 0.12, y, 0.03), (0.12, y, under - 0.02), 0.028))
    middle = under / 2
    solids.append(rod(TABLE, look, (depth / 2, -y, middle), (depth / 2, y, middle), 0.025))
    slots = [slot for slot in _chairs_beside(rng, depth, width - 0.1) if abs(slot[1].translation[1]) < width / 2]
    return finish("dining_table", solids, clear_m=0.7, top_m=height, slots=slots)


def _round_table(rng: np.random.Generator) -> Item:
    """A disc on a pedestal, or on four legs between the chairs."""
    look = hard(rng)
    radius, height = span(rng, 0.42, 0.7), span(rng, 0.72, 0.77)
    under = height - span(rng, 0.025, 0.04)
    solids = [cylinder(TABLE, look, 0, 0, (under, height), radius)]
    chairs = 4 if radius < 0.66 else int(rng.integers(4, 6))
    if chance(rng, 0.5) or chairs == 5:
        leg = metal(rng) if chance(rng, 0.5) else look
        solids.append(cylinder(TABLE, leg, 0, 0, (0, under + 0.005), span(rng, 0.035, 0.07)))
        solids.append(cylinder(TABLE, leg, 0, 0, (0, 0.03), span(rng, 0.2, 0.26)))
    else:
        leg = pick(rng, (hard, metal))(rng)
        for i in range(4):
            x, y = circle(np.pi / 4 + np.pi / 2 * i, radius - 0.05)
            solids.append(rod(TABLE, leg, (x, y, 0), (0.85 * x, 0.85 * y, under + 0.005), 0.025))
    away = max(radius + CHAIR_DEPTH_M - span(rng, 0.02, 0.1), 0.4 + CHAIR_DEPTH_M)
    slots = []
    for i in range(chairs):
        angle = 2 * np.pi * i / chairs
        x, y = circle(angle, away)
        slots.append(("dining_chair", heading(angle + np.pi, x, y)))
    return finish("dining_table", solids, clear_m=0.7, top_m=height, slots=slots)


def _desk_slots(rng: np.random.Generator, depth: float, y: float, top: float) -> list[tuple[str, Pose]]:
    """A chair in front of `y`, one monitor or two at the back of the top."""
    slots = [("office_chair", heading(np.pi, depth + OFFICE_CHAIR_DEPTH_M - span(rng, 0.0, 0.12), y))]
    if chance(rng, 0.85):
        slots.append(("monitor", heading(0.0, span(rng, 0.06, 0.14), y, top)))
    return slots


def _leg_desk(rng: np.random.Generator) -> Item:
    top_look, leg = hard(rng), metal(rng)
    depth, width, height = span(rng, 0.6, 0.8), span(rng, 1.1, 1.8), span(rng, 0.71, 0.76)
    y = width / 2
    solids = [box(TABLE, top_look, (0, depth), (-y, y), (height - 0.03, height))]
    if chance(rng, 0.5):
        solids += _four_legs(rng, leg, (0.05, depth - 0.05), y - 0.05, height - 0.025)
    else:
        # T feet: a post in the middle and a runner, each side.
        solids += both_sides(
            box(TABLE, leg, (depth / 2 - 0.04, depth / 2 + 0.04), (y - 0.12, y - 0.07), (0, height - 0.025))
        )
        solids += both_sides(box(TABLE, leg, (0.03, depth - 0.03), (y - 0.13, y - 0.06), (0, 0.03)))
    return finish("desk", solids, clear_m=0.8, top_m=height, slots=_desk_slots(rng, depth, 0.0, height))


def _drawer_desk(rng: np.random.Generator) -> Item:
    """Drawers on one side or both, knees between."""
    look, front = hard(rng), hard(rng)
    depth, height, drawers = span(rng, 0.55, 0.75), span(rng, 0.72, 0.77), span(rng, 0.32, 0.42)
    left = chance(rng, 0.5)
    knees = span(rng, 0.76, 0.95)
    side = drawers if chance(rng, 0.4) else 0.03
    y = (knees + drawers + side) / 2
    solids = [
        box(TABLE, look, (0, depth), (-y, y), (height - 0.035, height)),
        box(TABLE, look, (0.02, depth - 0.02), (-y, -y + drawers), (0, height - 0.03)),
        box(TABLE, look, (0.02, depth - 0.02), (y - side, y), (0, height - 0.03)),
        box(TABLE, front, (0.0, 0.02), (-y, y), (0.3, height - 0.03)),
    ]
    for i in range(2):
        z = 0.06 + i * (height - 0.12) / 2
        solids.append(
            box(
                TABLE,
                front,
                (depth - 0.03, depth - 0.005),
                (-y + 0.02, -y + drawers - 0.02),
                (z, z + (height - 0.16) / 2),
            )
        )
    item = finish(
        "desk", solids, clear_m=0.8, top_m=height, slots=_desk_slots(rng, depth, -y + drawers + knees / 2, height)
    )
    return mirrored_item(item) if left else item


def _panel_desk(rng: np.random.Generator) -> Item:
    """Two panels as legs and a modesty panel behind, a shelf above for some."""
    look = hard(rng)
    depth, width, height = span(rng, 0.5, 0.75), span(rng, 1.0, 1.6), span(rng, 0.71, 0.76)
    y = width / 2
    solids = [box(TABLE, look, (0, depth), (-y, y), (height - 0.03, height))]
    solids += both_sides(box(TABLE, look, (0.02, depth - 0.02), (y - 0.05, y - 0.02), (0, height - 0.025)))
    solids.append(box(TABLE, look, (0.03, 0.05), (-y + 0.03, y - 0.03), (span(rng, 0.2, 0.4), height - 0.025)))
    return finish("desk", solids, clear_m=0.8, top_m=height, slots=_desk_slots(rng, depth, 0.0, height))


def _folding_table(rng: np.random.Generator) -> Item:
    """A plastic top on crossed legs: a desk of makeshift."""
    look, leg = paint(rng), metal(rng)
    depth, width, height = span(rng, 0.6, 0.76), span(rng, 1.2, 1.8), span(rng, 0.7, 0.76)
    y = width / 2
    solids = [box(TABLE, look, (0, depth), (-y, y), (height - 0.04, height), 0.01)]
    solids += both_sides(rod(TABLE, leg, (0.06, y - 0.1, 0.02), (depth - 0.06, y - 0.1, height - 0.05), 0.018))
    solids += both_sides(rod(TABLE, leg, (depth - 0.06, y - 0.1, 0.02), (0.06, y - 0.1, height - 0.05), 0.018))
    return finish("desk", solids, clear_m=0.8, top_m=height, slots=_desk_slots(rng, depth, 0.0, height))


def _low_leg_table(rng: np.random.Generator) -> Item:
    """Before a sofa: a top, legs, perhaps a board below."""
    top_look, leg = hard(rng), hard(rng)
    depth, width, height = span(rng, 0.5, 0.75), span(rng, 0.8, 1.3), span(rng, 0.36, 0.48)
    y = width / 2
    solids = [box(TABLE, top_look, (0, depth), (-y, y), (height - span(rng, 0.02, 0.05), height))]
    solids += _four_legs(rng, leg, (0.05, depth - 0.05), y - 0.05, height - 0.015)
    if chance(rng, 0.5):
        solids.append(box(TABLE, top_look, (0.04, depth - 0.04), (-y + 0.04, y - 0.04), (0.12, 0.14)))
    return finish("coffee_table", solids, clear_m=0.35, top_m=height)


def _block_coffee_table(rng: np.random.Generator) -> Item:
    """A chest, or two blocks under a slab."""
    look, top_look = hard(rng), hard(rng)
    depth, width, height = span(rng, 0.5, 0.8), span(rng, 0.7, 1.2), span(rng, 0.32, 0.44)
    y = width / 2
    solids = [box(TABLE, top_look, (0, depth), (-y, y), (height - 0.05, height))]
    if chance(rng, 0.5):
        solids.append(box(TABLE, look, (0.03, depth - 0.03), (-y + 0.03, y - 0.03), (0, height - 0.045)))
    else:
        solids += both_sides(box(TABLE, look, (0.03, depth - 0.03), (y - 0.2, y - 0.04), (0, height - 0.045)))
    return finish("coffee_table", solids, clear_m=0.35, top_m=height)


def _disc_table(rng: np.random.Generator, kind: str, radius: tuple, height: tuple) -> Item:
    """A disc on a post, or on three leant legs."""
    look, leg = hard(rng), hard(rng)
    r, top = span(rng, *radius), span(rng, *height)
    solids = [cylinder(TABLE, look, 0, 0, (top - span(rng, 0.018, 0.04), top), r)]
    if chance(rng, 0.5):
        solids.append(cylinder(TABLE, leg, 0, 0, (0, top - 0.015), span(rng, 0.02, 0.05)))
        solids.append(cylinder(TABLE, leg, 0, 0, (0, 0.02), 0.7 * r))
    else:
        for i in range(3):
            x, y = circle(2 * np.pi * i / 3, 0.85 * r)
            solids.append(rod(TABLE, leg, (x, y, 0.016), (0.6 * x, 0.6 * y, top - 0.012), 0.018))
    return finish(kind, solids, clear_m=0.3, top_m=top)


def _round_coffee_table(rng: np.random.Generator) -> Item:
    return _disc_table(rng, "coffee_table", (0.35, 0.5), (0.36, 0.48))


def _round_side_table(rng: np.random.Generator) -> Item:
    return _disc_table(rng, "side_table", (0.2, 0.3), (0.45, 0.62))


def _square_side_table(rng: np.random.Generator) -> Item:
    look, leg = hard(rng), hard(rng)
    depth, width, height = span(rng, 0.36, 0.5), span(rng, 0.38, 0.55), span(rng, 0.45, 0.62)
    y = width / 2
    solids = [box(TABLE, look, (0, depth), (-y, y), (height - 0.03, height))]
    solids += _four_legs(rng, leg, (0.045, depth - 0.045), y - 0.045, height - 0.02)
    return finish("side_table", solids, clear_m=0.3, top_m=height)


def _c_side_table(rng: np.random.Generator) -> Item:
    """A top held from one side, its foot goes under the sofa."""
    look, leg = hard(rng), metal(rng)
    depth, width, height, t = span(rng, 0.38, 0.5), span(rng, 0.34, 0.46), span(rng, 0.5, 0.64), 0.025
    y = width / 2
    solids = [
        box(TABLE, look, (0, depth), (-y, y), (height - 0.025, height)),
        box(TABLE, leg, (0.0, depth - 0.02), (-y + 0.02, y - 0.02), (0, 0.016)),
        *both_sides(box(TABLE, leg, (0, t), (y - 0.02 - t, y - 0.02), (0, height - 0.02))),
    ]
    return finish("side_table", solids, clear_m=0.3, top_m=height)


def _stools_before(rng: np.random.Generator, depth: float, width: float) -> list[tuple[str, Pose]]:
    """Bar stools in a row before a counter's front."""
    count = int(width / 0.6)
    x = depth + STOOL_DEPTH_M + span(rng, 0.0, 0.05)
    return [("bar_stool", heading(np.pi, x, (i - (count - 1) / 2) * 0.6)) for i in range(count) if chance(rng, 0.7)]


def _bar_counter(rng: np.random.Generator) -> Item:
    """A closed front under a top that stands out: between kitchen and room."""
    look, top_look = hard(rng), hard(rng)
    depth, width, height, over = span(rng, 0.5, 0.8), span(rng, 1.0, 2.2), span(rng, 0.9, 1.08), span(rng, 0.05, 0.25)
    y = width / 2
    solids = [
        box(TABLE, top_look, (0, depth), (-y, y), (height - span(rng, 0.03, 0.06), height)),
        box(TABLE, look, (0.02, depth - over), (-y + 0.03, y - 0.03), (0.08, height - 0.025)),
        box(TABLE, look, (0.06, depth - over - 0.04), (-y + 0.06, y - 0.06), (0, 0.09)),
    ]
    return finish("counter", solids, clear_m=0.5, top_m=height, slots=_stools_before(rng, depth, width))


def _panel_counter(rng: np.random.Generator) -> Item:
    """A thick slab on two sides, open in between: a high table."""
    look = hard(rng)
    depth, width, height, t = span(rng, 0.45, 0.7), span(rng, 1.1, 1.8), span(rng, 0.9, 1.08), span(rng, 0.03, 0.06)
    y = width / 2
    solids = [box(TABLE, look, (0, depth), (-y, y), (height - t, height))]
    solids += both_sides(box(TABLE, look, (0, depth), (y - t, y), (0, height - t + 0.005)))
    solids.append(
        box(TABLE, look, (0, 0.03), (-y + t - 0.005, y - t + 0.005), (span(rng, 0.0, 0.6), height - t + 0.005))
    )
    return finish("counter", solids, clear_m=0.5, top_m=height, slots=_stools_before(rng, depth, width))


def _workbench(rng: np.random.Generator) -> Item:
    """Heavy legs, a board below, a lip behind."""
    look, leg = hard(rng), hard(rng)
    depth, width, height = span(rng, 0.5, 0.7), span(rng, 1.0, 1.8), span(rng, 0.84, 0.95)
    y = width / 2
    solids = [
        box(TABLE, look, (0, depth), (-y, y), (height - 0.06, height)),
        box(TABLE, look, (0.03, depth - 0.03), (-y + 0.03, y - 0.03), (0.2, 0.23)),
    ]
    for x in (0.02, depth - 0.09):
        solids += both_sides(box(TABLE, leg, (x, x + 0.07), (y - 0.09, y - 0.02), (0, height - 0.05)))
    return finish("counter", solids, clear_m=0.6, top_m=height)


FAMILIES = {
    "dining_table": (_leg_table, _leg_table, _trestle_table, _round_table),
    "desk": (_leg_desk, _drawer_desk, _panel_desk, _folding_table),
    "coffee_table": (_low_leg_table, _block_coffee_table, _round_coffee_table),
    "side_table": (_round_side_table, _square_side_table, _c_side_table),
    "counter": (_bar_counter, _panel_counter, _workbench),
}
