"""More clutter: toys, laundry, suitcases, fans, small appliances, mirrors and clocks: class objects."""

from __future__ import annotations

import numpy as np

from sgrocc.labels import OBJECTS
from sgrocc.synthrooms.furniture_parts import both_sides, chance, circle, cloth, finish, hard, metal, paint, pick, span
from sgrocc.synthrooms.scene import Item, Look, box, cylinder, ellipsoid, rod

_GLASS = Look("metal", (0.82, 0.86, 0.9), shine=0.9)


def _ball(rng: np.random.Generator) -> Item:
    r = span(rng, 0.06, 0.14)
    return finish("toys", [ellipsoid(OBJECTS, pick(rng, (paint, cloth))(rng), (0, 0, r), (r, r, r))])


def _building_blocks(rng: np.random.Generator) -> Item:
    """A gate of bricks with one on top."""
    a, height = span(rng, 0.05, 0.09), span(rng, 0.06, 0.14)
    solids = both_sides(box(OBJECTS, paint(rng), (0, a), (0.5 * a, 1.5 * a), (0, height)))
    solids.append(box(OBJECTS, paint(rng), (0, a), (-1.6 * a, 1.6 * a), (height, height + 0.6 * a)))
    solids.append(
        box(OBJECTS, paint(rng), (0.1 * a, 0.9 * a), (-0.5 * a, 0.5 * a), (height + 0.6 * a, height + 1.4 * a))
    )
    return finish("toys", solids)


def _teddy(rng: np.random.Generator) -> Item:
    """Belly, head, ears, arms and legs."""
    look, r = cloth(rng), span(rng, 0.08, 0.15)
    solids = [
        ellipsoid(OBJECTS, look, (0, 0, 1.1 * r), (0.85 * r, r, 1.1 * r)),
        ellipsoid(OBJECTS, look, (0, 0, 2.6 * r), (0.7 * r, 0.75 * r, 0.7 * r)),
        *both_sides(ellipsoid(OBJECTS, look, (0, 0.6 * r, 3.1 * r), (0.2 * r, 0.28 * r, 0.28 * r))),
        *both_sides(ellipsoid(OBJECTS, look, (0.4 * r, 0.95 * r, 1.5 * r), (0.5 * r, 0.3 * r, 0.3 * r))),
        *both_sides(ellipsoid(OBJECTS, look, (0.9 * r, 0.5 * r, 0.35 * r), (0.7 * r, 0.35 * r, 0.35 * r))),
    ]
    return finish("toys", solids)


def _toy_car(rng: np.random.Generator) -> Item:
    look, length = paint(rng), span(rng, 0.2, 0.45)
    w, r = 0.45 * length, 0.1 * length
    solids = [
        box(OBJECTS, look, (0, length), (-w / 2, w / 2), (r, 3 * r), 0.01),
        box(OBJECTS, paint(rng), (0.2 * length, 0.7 * length), (-0.42 * w, 0.42 * w), (2.8 * r, 5 * r), 0.01),
    ]
    for x in (0.2 * length, 0.8 * length):
        solids.append(rod(OBJECTS, Look("plain", (0.1, 0.1, 0.1)), (x, -w / 2 - 0.01, r), (x, w / 2 + 0.01, r), r))
    return finish("toys", solids)


def _laundry_basket(rng: np.random.Generator) -> Item:
    """A basket with clothes heaped in it."""
    x, y, height = span(rng, 0.32, 0.42), span(rng, 0.45, 0.6), span(rng, 0.22, 0.4)
    solids = [
        box(OBJECTS, pick(rng, (paint, cloth))(rng), (0, x), (-y / 2, y / 2), (0, height), 0.03),
        ellipsoid(OBJECTS, cloth(rng), (0.45 * x, 0.1 * y, height), (0.4 * x, 0.35 * y, span(rng, 0.05, 0.14))),
        ellipsoid(OBJECTS, cloth(rng), (0.55 * x, -0.2 * y, height), (0.35 * x, 0.25 * y, span(rng, 0.05, 0.1))),
    ]
    return finish("laundry", solids)


def _clothes_heap(rng: np.random.Generator) -> Item:
    """Clothes on the floor. The lower halves of the heaps are cut off by it: slices lie under them."""
    solids = [box(OBJECTS, cloth(rng), (-0.2, 0.2), (-0.25, 0.25), (0, span(rng, 0.04, 0.07)), 0.02)]
    for _ in range(int(rng.integers(2, 5))):
        x, y = span(rng, -0.15, 0.15), span(rng, -0.18, 0.18)
        high = span(rng, 0.05, 0.1)
        solids.append(ellipsoid(OBJECTS, cloth(rng), (x, y, high), (span(rng, 0.12, 0.2), span(rng, 0.12, 0.22), high)))
    return finish("laundry", solids)


def _drying_rack(rng: np.random.Generator) -> Item:
    """Crossed legs, bars, cloths over some of them."""
    look, height, width, depth, r = metal(rng), span(rng, 0.85, 1.0), span(rng, 0.9, 1.2), span(rng, 0.5, 0.6), 0.013
    y = width / 2
    solids = both_sides(rod(OBJECTS, look, (0, y, r), (depth, y, height), r))
    solids += both_sides(rod(OBJECTS, look, (depth, y, r), (0, y, height), r))
    for x in (0.0, depth / 2, depth):
        z = height if x != depth / 2 else height / 2
        solids.append(rod(OBJECTS, look, (x, -y, z), (x, y, z), r))
    for x in (0.0, depth):
        if chance(rng, 0.7):
            low, at = span(rng, 0.25, 0.6), span(rng, -y + 0.05, -0.2)
            span_y = (at, at + span(rng, 0.3, 0.6))
            solids.append(box(OBJECTS, cloth(rng), (x - 0.016, x + 0.016), span_y, (height - low, height + 0.015)))
    return finish("laundry", solids)


def _upright_suitcase(rng: np.random.Generator) -> Item:
    """On wheels with a pulled-out handle."""
    look = pick(rng, (paint, cloth))(rng)
    x, y, height = span(rng, 0.2, 0.28), span(rng, 0.34, 0.46), span(rng, 0.5, 0.7)
    solids = [box(OBJECTS, look, (0, x), (-y / 2, y / 2), (0.03, height), 0.03)]
    wheel = Look("plain", (0.08, 0.08, 0.08))
    for at in (0.04, x - 0.04):
        solids += both_sides(box(OBJECTS, wheel, (at - 0.02, at + 0.02), (y / 2 - 0.08, y / 2 - 0.04), (0, 0.06)))
    if chance(rng, 0.5):
        up = height + span(rng, 0.15, 0.35)
        solids += both_sides(rod(OBJECTS, metal(rng), (0.05, 0.09, height - 0.02), (0.05, 0.09, up), 0.012))
        solids.append(rod(OBJECTS, wheel, (0.05, -0.11, up), (0.05, 0.11, up), 0.014))
    return finish("suitcase", solids)


def _lying_suitcase(rng: np.random.Generator) -> Item:
    """Flat on the floor, with two straps."""
    x, y, height = span(rng, 0.38, 0.5), span(rng, 0.55, 0.75), span(rng, 0.18, 0.26)
    solids = [box(OBJECTS, pick(rng, (paint, cloth))(rng), (0, x), (-y / 2, y / 2), (0, height), 0.03)]
    strap = cloth(rng)
    solids += both_sides(box(OBJECTS, strap, (0.02, x + 0.008), (0.2 * y, 0.2 * y + 0.04), (0.01, height + 0.008)))
    solids.append(box(OBJECTS, strap, (x - 0.01, x + 0.03), (-0.08, 0.08), (0.45 * height, 0.55 * height)))
    return finish("suitcase", solids)


def _standing_fan(rng: np.random.Generator) -> Item:
    look, height, r = paint(rng), span(rng, 0.9, 1.25), span(rng, 0.17, 0.24)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), span(rng, 0.16, 0.2)),
        cylinder(OBJECTS, look, 0, 0, (0.02, height), 0.016),
        rod(OBJECTS, metal(rng), (0.02, 0, height), (0.1, 0, height), r),
        rod(OBJECTS, look, (-0.08, 0, height), (0.03, 0, height), 0.05),
    ]
    return finish("fan", solids)


def _tower_fan(rng: np.random.Generator) -> Item:
    """A tower: a fan, heater or air cleaner."""
    look, r, height = paint(rng), span(rng, 0.08, 0.14), span(rng, 0.6, 1.05)
    solids = [cylinder(OBJECTS, look, 0, 0, (0, 0.03), 1.3 * r), cylinder(OBJECTS, look, 0, 0, (0.02, height), r)]
    solids.append(box(OBJECTS, metal(rng), (0.5 * r, r + 0.01), (-0.4 * r, 0.4 * r), (0.2 * height, 0.9 * height)))
    return finish("fan", solids)


def _microwave(rng: np.random.Generator) -> Item:
    look = pick(rng, (paint, metal))(rng)
    x, y, height = span(rng, 0.28, 0.36), span(rng, 0.42, 0.5), span(rng, 0.24, 0.29)
    glass = Look("plain", (0.06, 0.06, 0.07), shine=0.5)
    solids = [
        box(OBJECTS, look, (0, x), (-y / 2, y / 2), (0, height)),
        box(OBJECTS, glass, (x - 0.008, x + 0.008), (-y / 2 + 0.02, 0.2 * y), (0.03, height - 0.03)),
    ]
    return finish("appliance", solids)


def _coffee_machine(rng: np.random.Generator) -> Item:
    look = pick(rng, (paint, metal))(rng)
    x, y, height = span(rng, 0.24, 0.34), span(rng, 0.16, 0.26), span(rng, 0.3, 0.38)
    solids = [
        box(OBJECTS, look, (0, 0.5 * x), (-y / 2, y / 2), (0, height), 0.01),
        box(OBJECTS, look, (0.4 * x, x), (-y / 2, y / 2), (0.72 * height, height), 0.01),
        box(OBJECTS, metal(rng), (0.4 * x, x), (-y / 2, y / 2), (0, 0.03)),
        cylinder(OBJECTS, paint(rng), 0.75 * x, 0, (0.025, 0.12), 0.04),
    ]
    return finish("appliance", solids)


def _toaster(rng: np.random.Generator) -> Item:
    look = pick(rng, (paint, metal))(rng)
    x, y, height = span(rng, 0.16, 0.2), span(rng, 0.13, 0.2), span(rng, 0.17, 0.21)
    solids = [
        box(OBJECTS, look, (0, x), (-y, y), (0, height), 0.03),
        box(
            OBJECTS,
            Look("plain", (0.1, 0.1, 0.1)),
            (0.05, x - 0.05),
            (-y + 0.04, y - 0.04),
            (height - 0.01, height + 0.004),
        ),
        box(OBJECTS, paint(rng), (0.07, 0.11), (y - 0.005, y + 0.02), (0.1, 0.13)),
    ]
    return finish("appliance", solids)


def _kettle(rng: np.random.Generator) -> Item:
    look, r, height = pick(rng, (paint, metal))(rng), span(rng, 0.07, 0.09), span(rng, 0.18, 0.25)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, height), r),
        ellipsoid(OBJECTS, look, (0, 0, height), (0.8 * r, 0.8 * r, 0.03)),
        box(OBJECTS, paint(rng), (-0.01, 0.01), (r - 0.01, r + 0.05), (0.75 * height, 0.85 * height)),
        box(OBJECTS, paint(rng), (-0.01, 0.01), (r + 0.03, r + 0.05), (0.2 * height, 0.85 * height)),
    ]
    return finish("appliance", solids)


def _framed_mirror(rng: np.random.Generator) -> Item:
    width, height, rim = span(rng, 0.35, 0.9), span(rng, 0.5, 1.3), span(rng, 0.015, 0.06)
    y = width / 2
    solids = [
        box(OBJECTS, hard(rng), (0, 0.025), (-y, y), (0, height)),
        box(OBJECTS, _GLASS, (0.015, 0.03), (-y + rim, y - rim), (rim, height - rim)),
    ]
    return finish("mirror", solids, z="hangs")


def _round_mirror(rng: np.random.Generator) -> Item:
    r = span(rng, 0.2, 0.45)
    solids = [
        rod(OBJECTS, hard(rng), (0, 0, 0), (0.022, 0, 0), r),
        rod(OBJECTS, _GLASS, (0.01, 0, 0), (0.028, 0, 0), r - span(rng, 0.012, 0.04)),
    ]
    return finish("mirror", solids, z="hangs")


def _bare_mirror(rng: np.random.Generator) -> Item:
    """A pane over a narrow shelf."""
    width, height = span(rng, 0.4, 1.0), span(rng, 0.5, 1.0)
    solids = [
        box(OBJECTS, _GLASS, (0, 0.014), (-width / 2, width / 2), (0, height)),
        box(OBJECTS, hard(rng), (0, span(rng, 0.06, 0.14)), (-width / 2, width / 2), (-0.015, 0.005)),
    ]
    return finish("mirror", solids, z="hangs")


def _round_clock(rng: np.random.Generator) -> Item:
    """A dial and two hands."""
    r, rim, hand = span(rng, 0.11, 0.2), hard(rng), Look("plain", (0.1, 0.1, 0.1))
    solids = [
        rod(OBJECTS, rim, (0, 0, 0), (0.03, 0, 0), r),
        rod(OBJECTS, paint(rng), (0.02, 0, 0), (0.034, 0, 0), 0.88 * r),
    ]
    for length in (0.5, 0.75):
        y, z = circle(2 * np.pi * float(rng.random()), length * r)
        solids.append(rod(OBJECTS, hand, (0.034, 0, 0), (0.034, y, z), 0.007))
    return finish("clock", solids, z="hangs")


def _square_clock(rng: np.random.Generator) -> Item:
    half = span(rng, 0.11, 0.17)
    solids = [
        box(OBJECTS, hard(rng), (0, 0.035), (-half, half), (-half, half)),
        box(OBJECTS, paint(rng), (0.03, 0.042), (-half + 0.015, half - 0.015), (-half + 0.015, half - 0.015)),
    ]
    return finish("clock", solids, z="hangs")


FAMILIES = {
    "toys": (_ball, _building_blocks, _teddy, _toy_car),
    "laundry": (_laundry_basket, _clothes_heap, _drying_rack),
    "suitcase": (_upright_suitcase, _lying_suitcase),
    "fan": (_standing_fan, _tower_fan),
    "appliance": (_microwave, _coffee_machine, _toaster, _kettle),
    "mirror": (_framed_mirror, _round_mirror, _bare_mirror),
    "clock": (_round_clock, _square_clock),
}
