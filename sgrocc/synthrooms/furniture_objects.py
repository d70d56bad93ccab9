"""Plants, lamps that stand, boxes, bins, bags and other clutter: class objects."""

from __future__ import annotations

import numpy as np

from sgrocc.labels import OBJECTS
from sgrocc.synthrooms.furniture_parts import (
    both_sides,
    chance,
    circle,
    cloth,
    colour,
    finish,
    glow,
    hard,
    metal,
    paint,
    pick,
    span,
)
from sgrocc.synthrooms.scene import Item, Look, Solid, box, cylinder, ellipsoid, heading, rod


def _pot(rng: np.random.Generator, radius_m: float, height_m: float) -> Solid:
    look = pick(rng, (paint, hard, cloth))(rng)
    if chance(rng, 0.7):
        return cylinder(OBJECTS, look, 0, 0, (0, height_m), radius_m)
    return box(OBJECTS, look, (-radius_m, radius_m), (-radius_m, radius_m), (0, height_m))


def _leaf_look(rng: np.random.Generator) -> Look:
    return Look("foliage", (span(rng, 0.25, 0.6), span(rng, 0.5, 0.9), span(rng, 0.2, 0.45)), shine=0.1)


def _bushy_plant(rng: np.random.Generator) -> Item:
    """Overlapping clumps of leaves over a pot."""
    r, pot, look = span(rng, 0.1, 0.18), span(rng, 0.16, 0.35), _leaf_look(rng)
    size = span(rng, 0.14, 0.28)
    solids = [_pot(rng, r, pot), ellipsoid(OBJECTS, look, (0, 0, pot + 0.7 * size), (size, size, 0.9 * size))]
    for _ in range(int(rng.integers(3, 7))):
        x, y = circle(2 * np.pi * float(rng.random()), 0.7 * size)
        z = pot + span(rng, 0.6, 1.7) * size
        half = [span(rng, 0.45, 0.75) * size for _ in range(3)]
        solids.append(ellipsoid(OBJECTS, look, (x, y, z), half))
    return finish("plant", solids)


def _tree(rng: np.random.Generator) -> Item:
    """A trunk with a crown."""
    r, pot, look = span(rng, 0.12, 0.2), span(rng, 0.2, 0.38), _leaf_look(rng)
    top, size = span(rng, 0.8, 1.3), span(rng, 0.18, 0.3)
    solids = [_pot(rng, r, pot), cylinder(OBJECTS, Look("wood", (0.45, 0.33, 0.22)), 0, 0, (pot - 0.02, top), 0.018)]
    solids.append(ellipsoid(OBJECTS, look, (0, 0, top + 0.5 * size), (size, size, size)))
    for _ in range(int(rng.integers(2, 5))):
        x, y = circle(2 * np.pi * float(rng.random()), 0.6 * size)
        solids.append(
            ellipsoid(OBJECTS, look, (x, y, top + span(rng, 0.0, 1.2) * size), (0.6 * size, 0.6 * size, 0.5 * size))
        )
    return finish("plant", solids)


def _blade_plant(rng: np.random.Generator) -> Item:
    """Long leaves that lean out of the pot."""
    r, pot, look = span(rng, 0.09, 0.15), span(rng, 0.14, 0.3), _leaf_look(rng)
    solids = [_pot(rng, r, pot)]
    leaves, length = int(rng.integers(5, 10)), span(rng, 0.3, 0.8)
    for i in range(leaves):
        lean = span(rng, 0.1, 0.45) * length
        x, y = circle(2 * np.pi * i / leaves, 1.0)
        tip = (lean * x, lean * y, pot + length * span(rng, 0.75, 1.0))
        solids.append(rod(OBJECTS, look, (0.3 * r * x, 0.3 * r * y, pot - 0.03), tip, span(rng, 0.016, 0.024)))
    return finish("plant", solids)


def _shade_lamp(rng: np.random.Generator, kind: str, height: float, radius_m: float) -> Item:
    """A foot, a post and a drum or round shade."""
    look = pick(rng, (metal, hard))(rng)
    foot = span(rng, 0.7, 0.9) * radius_m
    shade = span(rng, 0.9, 1.4) * radius_m
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.025), foot),
        cylinder(OBJECTS, look, 0, 0, (0.01, height - 0.5 * shade), 0.013),
    ]
    if chance(rng, 0.6):
        solids.append(cylinder(OBJECTS, glow(rng), 0, 0, (height - shade, height), radius_m))
    else:
        solids.append(ellipsoid(OBJECTS, glow(rng), (0, 0, height - 0.6 * shade), (radius_m, radius_m, 0.6 * shade)))
    return finish(kind, solids)


def _floor_lamp(rng: np.random.Generator) -> Item:
    return _shade_lamp(rng, "floor_lamp", span(rng, 1.3, 1.75), span(rng, 0.15, 0.24))


def _arc_lamp(rng: np.random.Generator) -> Item:
    """A leant post whose shade hangs before its foot."""
    look, height, reach = metal(rng), span(rng, 1.5, 1.8), span(rng, 0.35, 0.7)
    r = span(rng, 0.1, 0.17)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.04), span(rng, 0.14, 0.19)),
        rod(OBJECTS, look, (0, 0, 0.03), (0.1, 0, height), 0.014),
        rod(OBJECTS, look, (0.095, 0, height - 0.012), (reach, 0, height - 0.05), 0.014),
        ellipsoid(OBJECTS, glow(rng), (reach, 0, height - 0.05 - 0.6 * r), (r, r, 0.7 * r)),
    ]
    return finish("floor_lamp", solids)


def _tripod_lamp(rng: np.random.Generator) -> Item:
    look, height, r = hard(rng), span(rng, 1.25, 1.6), span(rng, 0.16, 0.24)
    solids = []
    for i in range(3):
        x, y = circle(2 * np.pi * i / 3, span(rng, 0.2, 0.28))
        solids.append(rod(OBJECTS, look, (x, y, 0.012), (0, 0, height - 1.2 * r), 0.016))
    solids.append(cylinder(OBJECTS, glow(rng), 0, 0, (height - 1.4 * r, height), r))
    return finish("floor_lamp", solids)


def _cardboard(rng: np.random.Generator) -> Look:
    if chance(rng, 0.6):
        return Look("cardboard", (span(rng, 0.7, 0.95), span(rng, 0.6, 0.78), span(rng, 0.42, 0.6)))
    return paint(rng)


def _box_tower(rng: np.random.Generator) -> Item:
    """Cartons on top of each other, each smaller than and turned against the one below."""
    solids, z = [], 0.0
    x, y = span(rng, 0.18, 0.3), span(rng, 0.2, 0.32)
    for _ in range(int(rng.integers(1, 4))):
        height = span(rng, 0.15, 0.4)
        carton = box(OBJECTS, _cardboard(rng), (-x, x), (-y, y), (z, z + height))
        solids.append(carton.moved(heading(span(rng, -0.12, 0.12))))
        z += height
        x, y = span(rng, 0.65, 0.95) * x, span(rng, 0.65, 0.95) * y
    return finish("box_stack", solids)


def _box_row(rng: np.random.Generator) -> Item:
    """Two cartons side by side, one on top."""
    a, b, depth = span(rng, 0.3, 0.5), span(rng, 0.28, 0.45), span(rng, 0.28, 0.42)
    h = span(rng, 0.25, 0.4)
    solids = [
        box(OBJECTS, _cardboard(rng), (0, depth), (-a, 0), (0, h)),
        box(OBJECTS, _cardboard(rng), (span(rng, 0, 0.04), depth), (0, b), (0, h * span(rng, 0.7, 1.0))),
        box(OBJECTS, _cardboard(rng), (0.03, depth - 0.03), (-0.9 * a, -0.1 * a), (h, h + span(rng, 0.12, 0.3))),
    ]
    return finish("box_stack", solids)


def _crates(rng: np.random.Generator) -> Item:
    """Plastic crates of one size with a rim each."""
    x, y, h, look = span(rng, 0.28, 0.36), span(rng, 0.38, 0.55), span(rng, 0.18, 0.3), paint(rng)
    solids = []
    for i in range(int(rng.integers(1, 4))):
        solids.append(
            box(OBJECTS, look, (0.015, x - 0.015), (-y / 2 + 0.015, y / 2 - 0.015), (i * h, i * h + h - 0.02))
        )
        solids.append(box(OBJECTS, paint(rng), (0, x), (-y / 2, y / 2), (i * h + h - 0.03, i * h + h)))
    return finish("box_stack", solids)


def _round_bin(rng: np.random.Generator) -> Item:
    r, height = span(rng, 0.11, 0.18), span(rng, 0.26, 0.65)
    solids = [cylinder(OBJECTS, pick(rng, (paint, metal))(rng), 0, 0, (0, height), r)]
    if chance(rng, 0.5):
        solids.append(ellipsoid(OBJECTS, paint(rng), (0, 0, height), (r, r, 0.35 * r)))
    else:
        solids.append(cylinder(OBJECTS, metal(rng), 0, 0, (height - 0.02, height + 0.005), r + 0.006))
    return finish("bin", solids)


def _square_bin(rng: np.random.Generator) -> Item:
    x, y, height = span(rng, 0.2, 0.32), span(rng, 0.2, 0.4), span(rng, 0.3, 0.65)
    solids = [
        box(OBJECTS, paint(rng), (0.01, x - 0.01), (-y / 2 + 0.01, y / 2 - 0.01), (0, height), 0.015),
        box(OBJECTS, paint(rng), (0, x), (-y / 2, y / 2), (height - 0.06, height + 0.015), 0.015),
    ]
    return finish("bin", solids)


def _basket(rng: np.random.Generator) -> Item:
    """Woven, wider above, with paper showing."""
    look, r, height = Look("fabric", colour(rng)), span(rng, 0.12, 0.17), span(rng, 0.25, 0.36)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (i * height / 3, (i + 1) * height / 3), r * (0.8 + 0.1 * i)) for i in range(3)
    ]
    solids.append(ellipsoid(OBJECTS, Look("plain", (0.92, 0.91, 0.88)), (0, 0, height), (0.7 * r, 0.6 * r, 0.05)))
    return finish("bin", solids)


def _drum_table_lamp(rng: np.random.Generator) -> Item:
    return _shade_lamp(rng, "table_lamp", span(rng, 0.32, 0.6), span(rng, 0.09, 0.16))


def _bulb_table_lamp(rng: np.random.Generator) -> Item:
    """A belly of glass or clay under the shade."""
    r, look = span(rng, 0.07, 0.12), paint(rng)
    neck = 2 * r + 0.05
    solids = [
        ellipsoid(OBJECTS, look, (0, 0, r), (r, r, r)),
        cylinder(OBJECTS, look, 0, 0, (1.8 * r, neck + 0.03), 0.015),
        cylinder(OBJECTS, glow(rng), 0, 0, (neck, neck + span(rng, 0.14, 0.22)), r * span(rng, 1.0, 1.4)),
    ]
    return finish("table_lamp", solids)


def _desk_lamp(rng: np.random.Generator) -> Item:
    """Two arms at an angle and a head that looks down."""
    look = pick(rng, (metal, paint))(rng)
    elbow, reach = span(rng, 0.22, 0.32), span(rng, 0.14, 0.22)
    top = elbow + span(rng, 0.06, 0.14)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.02), span(rng, 0.07, 0.09)),
        rod(OBJECTS, look, (0, 0, 0.01), (-0.05, 0, elbow), 0.012),
        rod(OBJECTS, look, (-0.05, 0, elbow), (reach, 0, top), 0.012),
        rod(OBJECTS, look, (reach - 0.01, 0, top + 0.02), (reach + 0.04, 0, top - 0.08), 0.045),
    ]
    return finish("table_lamp", solids)


def _upright_bag(rng: np.random.Generator) -> Item:
    """A carrier or shopping bag with two handles."""
    look = pick(rng, (cloth, _cardboard))(rng)
    x, y, height = span(rng, 0.12, 0.2), span(rng, 0.26, 0.4), span(rng, 0.28, 0.42)
    solids = [box(OBJECTS, look, (0, x), (-y / 2, y / 2), (0, height), 0.02)]
    for at in (0.03, x - 0.03):
        solids.append(box(OBJECTS, look, (at - 0.008, at + 0.008), (-y / 5, y / 5), (height - 0.02, height + 0.1)))
    return finish("bag", solids)


def _rucksack(rng: np.random.Generator) -> Item:
    look = cloth(rng)
    x, y, height = span(rng, 0.16, 0.22), span(rng, 0.27, 0.34), span(rng, 0.4, 0.5)
    solids = [
        box(OBJECTS, look, (0, x), (-y / 2, y / 2), (0, height), 0.06),
        box(OBJECTS, cloth(rng), (x - 0.03, x + 0.06), (-0.4 * y, 0.4 * y), (0.03, 0.5 * height), 0.03),
    ]
    solids += both_sides(rod(OBJECTS, look, (0.0, 0.07, 0.1), (0.0, 0.07, height - 0.06), 0.018))
    return finish("bag", solids)


def _holdall(rng: np.random.Generator) -> Item:
    """A sports bag: a lying roll with a strap."""
    look, r, length = cloth(rng), span(rng, 0.11, 0.16), span(rng, 0.4, 0.58)
    solids = [
        rod(OBJECTS, look, (0, -length / 2, r), (0, length / 2, r), r),
        box(OBJECTS, look, (-r, r), (-length / 2, length / 2), (0, r), 0.02),
        box(OBJECTS, cloth(rng), (-r - 0.01, r + 0.01), (-0.12, -0.08), (0.02, 2 * r + 0.02), 0.01),
        box(OBJECTS, cloth(rng), (-r - 0.01, r + 0.01), (0.08, 0.12), (0.02, 2 * r + 0.02), 0.01),
    ]
    return finish("bag", solids)


def _book_pile(rng: np.random.Generator) -> Item:
    """Books lying on each other, turned a little."""
    solids, z = [], 0.0
    x, y = span(rng, 0.08, 0.11), span(rng, 0.11, 0.15)
    for _ in range(int(rng.integers(2, 6))):
        thick = span(rng, 0.016, 0.045)
        look = Look(pick(rng, ("plain", "picture", "fabric", "leather")), colour(rng))
        book = box(OBJECTS, look, (-x, x), (-y, y), (z, z + thick))
        solids.append(book.moved(heading(span(rng, -0.3, 0.3))))
        z += thick
        x, y = x * span(rng, 0.85, 1.0), y * span(rng, 0.85, 1.0)
    return finish("books", solids)


def _book_row(rng: np.random.Generator) -> Item:
    """Books that stand, between two ends."""
    depth, width, height, end = span(rng, 0.14, 0.2), span(rng, 0.15, 0.4), span(rng, 0.18, 0.28), hard(rng)
    solids = [box(OBJECTS, Look("books", colour(rng)), (0, depth), (-width / 2, width / 2), (0, height))]
    solids += both_sides(box(OBJECTS, end, (0.01, depth), (width / 2, width / 2 + 0.02), (0, 0.7 * height)))
    return finish("books", solids)


def _papers(rng: np.random.Generator) -> Item:
    """A tray or a pile of paper, a folder across it."""
    x, y, thick = 0.21, 0.3, span(rng, 0.02, 0.1)
    solids = [
        box(OBJECTS, Look("plain", (0.93, 0.92, 0.9)), (0, x), (-y / 2, y / 2), (0, thick)),
        box(OBJECTS, paint(rng), (0.01, x - 0.02), (-0.4 * y, 0.45 * y), (thick, thick + 0.016)),
    ]
    return finish("books", solids)


def _belly_vase(rng: np.random.Generator) -> Item:
    """A belly and a neck, perhaps with flowers."""
    look, r = pick(rng, (paint, hard))(rng), span(rng, 0.05, 0.1)
    neck = 2.2 * r + span(rng, 0.04, 0.1)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), 0.6 * r),
        ellipsoid(OBJECTS, look, (0, 0, 1.1 * r + 0.01), (r, r, 1.1 * r)),
        cylinder(OBJECTS, look, 0, 0, (2.0 * r, neck), 0.4 * r),
    ]
    return finish("vase", solids + _flowers(rng, neck))


def _straight_vase(rng: np.random.Generator) -> Item:
    r, height = span(rng, 0.04, 0.07), span(rng, 0.16, 0.3)
    solids = [cylinder(OBJECTS, pick(rng, (paint, metal))(rng), 0, 0, (0, height), r)]
    return finish("vase", solids + _flowers(rng, height))


def _jug(rng: np.random.Generator) -> Item:
    """With a handle at the side."""
    look, r, height = paint(rng), span(rng, 0.05, 0.075), span(rng, 0.16, 0.25)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, height), r),
        box(OBJECTS, look, (-0.008, 0.008), (r + 0.025, r + 0.04), (0.2 * height, 0.85 * height)),
        box(OBJECTS, look, (-0.008, 0.008), (r - 0.01, r + 0.04), (0.2 * height, 0.2 * height + 0.015)),
        box(OBJECTS, look, (-0.008, 0.008), (r - 0.01, r + 0.04), (0.85 * height - 0.015, 0.85 * height)),
    ]
    return finish("vase", solids)


def _flowers(rng: np.random.Generator, z: float) -> list[Solid]:
    """A bunch out of a vase's mouth at z, or nothing."""
    if chance(rng, 0.4):
        return []
    size, up = span(rng, 0.06, 0.11), span(rng, 0.08, 0.16)
    return [
        cylinder(OBJECTS, _leaf_look(rng), 0, 0, (z - 0.02, z + up), 0.02),
        ellipsoid(OBJECTS, Look("foliage", colour(rng)), (0, 0, z + up), (size, size, 0.8 * size)),
    ]


def _bottle(rng: np.random.Generator) -> Item:
    look, r, height = paint(rng), span(rng, 0.032, 0.045), span(rng, 0.22, 0.32)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.65 * height), r),
        cylinder(OBJECTS, look, 0, 0, (0.6 * height, height), 0.016),
    ]
    solids.append(ellipsoid(OBJECTS, look, (0, 0, 0.65 * height), (r, r, 0.03)))
    return finish("bottle", solids)


def _bottles(rng: np.random.Generator) -> Item:
    """Two or three that touch."""
    solids = []
    for i in range(int(rng.integers(2, 4))):
        look, height = paint(rng), span(rng, 0.18, 0.32)
        y = i * 0.078
        solids.append(cylinder(OBJECTS, look, 0, y, (0, 0.7 * height), 0.04))
        solids.append(cylinder(OBJECTS, look, 0, y, (0.69 * height, height), span(rng, 0.014, 0.03)))
    return finish("bottle", solids)


def _can(rng: np.random.Generator) -> Item:
    """A tin, jar or mug."""
    r, height = span(rng, 0.035, 0.06), span(rng, 0.09, 0.18)
    solids = [cylinder(OBJECTS, pick(rng, (paint, metal))(rng), 0, 0, (0, height), r)]
    if chance(rng, 0.5):
        solids.append(cylinder(OBJECTS, paint(rng), 0, 0, (height - 0.005, height + 0.02), 0.9 * r))
    return finish("bottle", solids)


def _fruit_bowl(rng: np.random.Generator) -> Item:
    """A wide dish with fruit."""
    r, height = span(rng, 0.1, 0.16), span(rng, 0.06, 0.09)
    look = hard(rng)
    solids = [cylinder(OBJECTS, look, 0, 0, (0, 0.02), 0.5 * r), cylinder(OBJECTS, look, 0, 0, (0.015, height), r)]
    for i in range(int(rng.integers(2, 5))):
        x, y = circle(2 * np.pi * i / 4, 0.45 * r)
        solids.append(ellipsoid(OBJECTS, paint(rng), (x, y, height + 0.02), (0.04, 0.04, 0.04)))
    return finish("bowl", solids)


def _plates(rng: np.random.Generator) -> Item:
    """A pile of plates with a cup on it."""
    look, r, height = paint(rng), span(rng, 0.09, 0.13), span(rng, 0.02, 0.08)
    solids = [cylinder(OBJECTS, look, 0, 0, (0, height), r)]
    if chance(rng, 0.6):
        solids.append(cylinder(OBJECTS, paint(rng), 0.02, 0.01, (height - 0.005, height + span(rng, 0.06, 0.1)), 0.04))
    return finish("bowl", solids)


def _pot_with_lid(rng: np.random.Generator) -> Item:
    look, r, height = metal(rng), span(rng, 0.09, 0.14), span(rng, 0.1, 0.18)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, height), r),
        ellipsoid(OBJECTS, look, (0, 0, height), (r, r, 0.03)),
        cylinder(OBJECTS, paint(rng), 0, 0, (height + 0.02, height + 0.05), 0.02),
        box(OBJECTS, look, (-0.03, 0.03), (-r - 0.035, r + 0.035), (0.75 * height, 0.75 * height + 0.015)),
    ]
    return finish("bowl", solids)


FAMILIES = {
    "plant": (_bushy_plant, _tree, _blade_plant),
    "floor_lamp": (_floor_lamp, _arc_lamp, _tripod_lamp),
    "table_lamp": (_drum_table_lamp, _bulb_table_lamp, _desk_lamp),
    "box_stack": (_box_tower, _box_row, _crates),
    "bin": (_round_bin, _square_bin, _basket),
    "bag": (_upright_bag, _rucksack, _holdall),
    "books": (_book_pile, _book_row, _papers),
    "vase": (_belly_vase, _straight_vase, _jug),
    "bottle": (_bottle, _bottles, _can),
    "bowl": (_fruit_bowl, _plates, _pot_with_lid),
}
