"""Furniture and clutter: for every kind, families of shapes with random proportions, colours and materials.

Where an Item has a `top_m`, the middle 60 % of its footprint carries things at that height and nothing is above it.
Things in slots touch neither the item nor each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgrocc.synthrooms import (
    furniture_beds,
    furniture_fittings,
    furniture_objects,
    furniture_seats,
    furniture_storage,
    furniture_tables,
)
from sgrocc.synthrooms.furniture_parts import pick
from sgrocc.synthrooms.scene import Item

#: Kind to its families. A family that stands twice is drawn twice as often.
FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Item], ...]] = {
    **furniture_seats.FAMILIES,
    **furniture_beds.FAMILIES,
    **furniture_tables.FAMILIES,
    **furniture_storage.FAMILIES,
    **furniture_fittings.FAMILIES,
    **furniture_objects.FAMILIES,
}


def make(kind: str, rng: np.random.Generator) -> Item:
    """A piece of furniture of one kind, of any of its families. Raises ValueError for a kind that there is not."""
    if kind not in FAMILIES:
        raise ValueError(f"there is no furniture of kind {kind!r}: use one of {', '.join(sorted(FAMILIES))}")
    return pick(rng, FAMILIES[kind])(rng)


# ---------------------------------------------------------------- storage


def _fronts(rng, look: Look, x: float, y: tuple, z: tuple, columns: int, rows: int) -> list[Solid]:
    """Doors or drawers as slabs with gaps between, on the front of a body at x."""
    solids = []
    ys, zs = np.linspace(*y, columns + 1), np.linspace(*z, rows + 1)
    for a, b in zip(ys[:-1], ys[1:], strict=True):
        for c, d in zip(zs[:-1], zs[1:], strict=True):
            solids.append(box(FURNITURE, look, (x - 0.005, x + 0.018), (a + 0.004, b - 0.004), (c + 0.004, d - 0.004)))
    return solids


def _bookcase(rng):
    look = _board(rng)
    w, d, h = _u(rng, 0.6, 1.2), _u(rng, 0.26, 0.36), _u(rng, 1.1, 2.1)
    y, t = (-w / 2, w / 2), 0.025
    solids = [box(FURNITURE, look, (0, 0.015), y, (0, h))]
    for side in (y[0], y[1] - t):
        solids.append(box(FURNITURE, look, (0, d), (side, side + t), (0, h)))
    count = max(3, int(h / 0.36))
    boards = np.round(np.linspace(0.05, h - t, count), 3)
    for z in boards:
        solids.append(box(FURNITURE, look, (0, d), y, (z, z + t)))
    for low, high in zip(boards[:-1], boards[1:], strict=True):
        at = y[0] + t
        while at < y[1] - t - 0.08:
            run, tall = _u(rng, 0.1, 0.35), min(_u(rng, 0.16, 0.28), high - low - t - 0.02)
            run = min(run, y[1] - t - at)
            if rng.random() < 0.7:
                depth = _u(rng, 0.15, 0.22)
                solids.append(
                    box(
                        OBJECTS,
                        Look("books", _tint(rng, 0.6, 1.0)),
                        (0.015, 0.015 + depth),
                        (at, at + run),
                        (low + t - 0.002, low + t + tall),
                    )
                )
            at = round(at + run + _u(rng, 0.0, 0.15), 3)
    return _item("bookcase", solids, clear_m=0.5)


def _bookcase_closed(rng):
    look, front = _board(rng), _board(rng)
    w, d, h = _u(rng, 0.7, 1.2), _u(rng, 0.32, 0.42), _u(rng, 1.5, 2.1)
    y, low = (-w / 2, w / 2), _u(rng, 0.6, 0.9)
    solids = [
        box(FURNITURE, look, (0, d), y, (0, low)),
        box(FURNITURE, look, (0, 0.02), y, (low - 0.01, h)),
        box(FURNITURE, look, (0, d - 0.04), y, (h - 0.03, h)),
        box(FURNITURE, look, (0, d - 0.04), y, ((low + h) / 2, (low + h) / 2 + 0.03)),
    ]
    for side in (y[0], y[1] - 0.03):
        solids.append(box(FURNITURE, look, (0, d - 0.04), (side, side + 0.03), (low - 0.01, h)))
    solids += _fronts(rng, front, d, y, (0.05, low), 2, 1)
    for z in (low, (low + h) / 2 + 0.03):
        a = _u(rng, -w / 2 + 0.05, 0)
        solids.append(
            box(
                OBJECTS,
                Look("books", _tint(rng, 0.6, 1.0)),
                (0.02, 0.2),
                (a, a + _u(rng, 0.2, w / 2 - 0.05)),
                (z - 0.002, z + _u(rng, 0.15, 0.24)),
            )
        )
    return _item("bookcase", solids, clear_m=0.5)


def _rack(rng):
    """An open metal rack with boxes."""
    look, boards = _metal(rng), _board(rng)
    w, d, h = _u(rng, 0.8, 1.2), _u(rng, 0.35, 0.5), _u(rng, 1.5, 2.0)
    solids = []
    for x in (0.015, d - 0.015):
        for y in (-w / 2 + 0.015, w / 2 - 0.015):
            solids.append(box(FURNITURE, look, (x - 0.015, x + 0.015), (y - 0.015, y + 0.015), (0, h)))
    for z in np.round(np.linspace(0.1, h - 0.03, 4), 3):
        solids.append(box(FURNITURE, boards, (0, d), (-w / 2, w / 2), (z, z + 0.03)))
        if rng.random() < 0.8 and z < h - 0.3:
            a, run = _u(rng, -w / 2, -0.1), _u(rng, 0.25, 0.45)
            solids.append(
                box(OBJECTS, Look("cardboard"), (0.04, d - 0.04), (a, a + run), (z + 0.028, z + _u(rng, 0.2, 0.34)))
            )
    return _item("bookcase", solids, clear_m=0.5)


def _wardrobe(rng):
    look, front = _board(rng), _board(rng)
    w, d, h = _u(rng, 0.8, 2.0), _u(rng, 0.55, 0.62), _u(rng, 1.8, 2.15)
    y = (-w / 2, w / 2)
    doors = max(2, int(w / 0.5))
    solids = [box(FURNITURE, look, (0, d), y, (0, h))]
    solids += _fronts(rng, front, d, y, (0.06, h - 0.02), doors, 1)
    for k in range(1, doors, 2):
        a = y[0] + k * w / doors
        for s in (-0.05, 0.05):
            solids.append(
                box(FURNITURE, _metal(rng), (d + 0.01, d + 0.035), (a + s - 0.008, a + s + 0.008), (0.9, 1.1))
            )
    return _item("wardrobe", solids, clear_m=0.6)


def _wardrobe_sliding(rng):
    look, front = _board(rng), _board(rng)
    w, d, h = _u(rng, 1.4, 2.4), _u(rng, 0.6, 0.66), _u(rng, 1.95, 2.15)
    solids = [
        box(FURNITURE, look, (0, d - 0.04), (-w / 2, w / 2), (0, h)),
        box(FURNITURE, front, (d - 0.05, d - 0.02), (-w / 2 + 0.02, 0.03), (0.04, h - 0.04)),
        box(FURNITURE, _board(rng), (d - 0.03, d), (-0.03, w / 2 - 0.02), (0.04, h - 0.04)),
    ]
    return _item("wardrobe", solids, clear_m=0.6)


def _locker(rng):
    look = _paint(rng)
    n, d, h = int(rng.integers(2, 5)), _u(rng, 0.4, 0.5), _u(rng, 1.6, 1.9)
    w = 0.32 * n
    solids = [box(FURNITURE, look, (0, d), (-w / 2, w / 2), (0.0, h))]
    solids += _fronts(rng, look, d, (-w / 2, w / 2), (0.08, h - 0.02), n, 1)
    return _item("wardrobe", solids, clear_m=0.5)


def _body(rng, kind, w, d, h, columns, rows, foot, clear=0.5):
    look, front = _board(rng), _board(rng)
    y = (-w / 2, w / 2)
    solids = [box(FURNITURE, look, (0, d), y, (foot, h))]
    solids += _fronts(rng, front, d, (y[0] + 0.01, y[1] - 0.01), (foot + 0.02, h - 0.03), columns, rows)
    if foot > 0.01:
        solids += _legs(rng, FURNITURE, look, (0.01, d - 0.01), y, foot + 0.02, 0.045)
    return _item(kind, solids, clear_m=clear, top_m=h)


def _cabinet_low(rng):
    w = _u(rng, 1.0, 1.9)
    return _body(rng, "cabinet", w, _u(rng, 0.36, 0.48), _u(rng, 0.42, 0.62), max(2, int(w / 0.5)), 1, _u(rng, 0, 0.15))


def _cabinet_high(rng):
    w = _u(rng, 0.8, 1.6)
    return _body(
        rng,
        "cabinet",
        w,
        _u(rng, 0.36, 0.48),
        _u(rng, 0.7, 1.1),
        max(2, int(w / 0.45)),
        int(rng.integers(1, 4)),
        _u(rng, 0, 0.2),
    )


def _cabinet_open(rng):
    look, t = _board(rng), 0.03
    w, d, h, n = _u(rng, 1.0, 1.6), _u(rng, 0.36, 0.42), _u(rng, 0.45, 0.6), int(rng.integers(2, 4))
    y = (-w / 2, w / 2)
    solids = [
        box(FURNITURE, look, (0, 0.02), y, (0, h)),
        box(FURNITURE, look, (0, d), y, (h - t, h)),
        box(FURNITURE, look, (0, d), y, (0.03, 0.03 + t)),
    ]
    for a in np.linspace(y[0], y[1] - t, n + 1):
        solids.append(box(FURNITURE, look, (0, d), (a, a + t), (0, h - 0.01)))
    return _item("cabinet", solids, clear_m=0.4, top_m=h)


def _nightstand(rng):
    return _body(
        rng,
        "nightstand",
        _u(rng, 0.36, 0.52),
        _u(rng, 0.34, 0.42),
        _u(rng, 0.42, 0.6),
        1,
        int(rng.integers(1, 4)),
        _u(rng, 0, 0.2),
        clear=0.2,
    )


def _nightstand_open(rng):
    look, w, d, h = _board(rng), _u(rng, 0.36, 0.5), _u(rng, 0.32, 0.42), _u(rng, 0.42, 0.58)
    y = (-w / 2, w / 2)
    solids = [
        box(FURNITURE, look, (0, d), y, (h - 0.03, h)),
        box(FURNITURE, look, (0, d), y, (0.12, 0.15)),
        box(FURNITURE, look, (0, d), (y[0], y[0] + 0.025), (0, h - 0.01)),
        box(FURNITURE, look, (0, d), (y[1] - 0.025, y[1]), (0, h - 0.01)),
    ]
    return _item("nightstand", solids, clear_m=0.2, top_m=h)


def _dresser(rng):
    return _body(
        rng,
        "dresser",
        _u(rng, 0.8, 1.5),
        _u(rng, 0.42, 0.52),
        _u(rng, 0.75, 1.1),
        int(rng.integers(1, 3)),
        int(rng.integers(3, 5)),
        _u(rng, 0, 0.1),
        clear=0.6,
    )


def _dresser_tall(rng):
    return _body(
        rng,
        "dresser",
        _u(rng, 0.5, 0.8),
        _u(rng, 0.42, 0.5),
        _u(rng, 1.05, 1.4),
        1,
        int(rng.integers(4, 7)),
        _u(rng, 0, 0.1),
        clear=0.6,
    )


def _kitchen_unit(rng):
    look, front, top = _board(rng), _board(rng), Look("stone", _tint(rng, 0.3, 0.95), shine=0.3)
    w, d, h = _u(rng, 1.8, 3.0), 0.6, _u(rng, 0.86, 0.93)
    y = (-w / 2, w / 2)
    solids = [
        box(FURNITURE, look, (0, d - 0.04), y, (0.0, h - 0.03)),
        box(FURNITURE, top, (0, d), y, (h - 0.04, h)),
    ]
    n = max(3, int(w / 0.55))
    solids += _fronts(rng, front, d - 0.04, y, (0.1, h - 0.05), n, int(rng.integers(1, 3)))
    sink = _u(rng, y[0] + 0.4, y[1] - 0.4)
    solids.append(rod(OBJECTS, _metal(rng), (0.08, sink, h - 0.01), (0.08, sink, h + 0.24), 0.015))
    solids.append(rod(OBJECTS, _metal(rng), (0.08, sink, h + 0.23), (0.24, sink, h + 0.21), 0.013))
    if rng.random() < 0.75:
        # Wall units hang free of the base units: a splash back on the wall joins them.
        low = h + _u(rng, 0.5, 0.58)
        solids.append(box(FURNITURE, top, (0, 0.02), y, (h - 0.01, low + 0.01)))
        solids.append(box(FURNITURE, look, (0, 0.33), y, (low, low + 0.65)))
        solids += _fronts(rng, front, 0.33, y, (low + 0.01, low + 0.64), n, 1)
    return _item("kitchen_unit", solids, clear_m=0.8, top_m=None)


def _fridge(rng):
    look = _metal(rng) if rng.random() < 0.5 else _paint(rng)
    w, d, h, split = _u(rng, 0.55, 0.7), _u(rng, 0.58, 0.68), _u(rng, 1.4, 1.95), _u(rng, 0.6, 0.9)
    y = (-w / 2, w / 2)
    solids = [box(FURNITURE, look, (0, d - 0.05), y, (0, h), rounding_m=0.01)]
    for z in ((0.04, split), (split + 0.01, h - 0.01)):
        solids.append(box(FURNITURE, look, (d - 0.06, d), y, z, rounding_m=0.01))
    solids.append(
        box(FURNITURE, _metal(rng), (d - 0.01, d + 0.03), (y[0] + 0.03, y[0] + 0.055), (split + 0.1, split + 0.45))
    )
    return _item("fridge", solids, clear_m=0.6)


def _shelf_wall(rng):
    look, w, d = _board(rng), _u(rng, 0.6, 1.3), _u(rng, 0.18, 0.28)
    solids = [box(FURNITURE, look, (0, d), (-w / 2, w / 2), (-0.02, 0.02))]
    solids.append(box(FURNITURE, look, (0, 0.015), (-w / 2, w / 2), (-0.05, 0.02)))
    at = -w / 2 + 0.03
    while at < w / 2 - 0.12:
        run = min(_u(rng, 0.08, 0.3), w / 2 - at)
        if rng.random() < 0.6:
            solids.append(
                box(
                    OBJECTS,
                    Look("books", _tint(rng, 0.6, 1.0)),
                    (0.015, 0.15),
                    (at, at + run),
                    (0.018, _u(rng, 0.14, 0.25)),
                )
            )
        at = round(at + run + _u(rng, 0, 0.1), 3)
    return _item("shelf_wall", solids)


def _wall_cabinet(rng):
    look, front = _board(rng), _board(rng)
    w, d, h = _u(rng, 0.6, 1.2), _u(rng, 0.28, 0.36), _u(rng, 0.35, 0.6)
    solids = [box(FURNITURE, look, (0, d), (-w / 2, w / 2), (-h / 2, h / 2))]
    solids += _fronts(rng, front, d, (-w / 2, w / 2), (-h / 2, h / 2), 2, 1)
    return _item("shelf_wall", solids)


# ---------------------------------------------------------------- objects


def _plant(rng):
    pot, leaf = _paint(rng), Look("foliage", (_u(rng, 0.2, 0.6), _u(rng, 0.5, 0.9), _u(rng, 0.2, 0.45)))
    r, h, tall = _u(rng, 0.1, 0.2), _u(rng, 0.2, 0.4), _u(rng, 0.3, 1.1)
    solids = [cylinder(OBJECTS, pot, 0, 0, (0, h), r), cylinder(OBJECTS, leaf, 0, 0, (h - 0.02, h + tall * 0.6), 0.02)]
    for _ in range(int(rng.integers(4, 9))):
        a, z = rng.uniform(0, 6.28), _u(rng, h + tall * 0.3, h + tall * 0.8)
        spread = _u(rng, 0.04, 0.16)
        offset = heading(a).apply(np.array([spread * 0.8, 0.0, 0.0]))
        solids.append(ellipsoid(OBJECTS, leaf, (offset[0], offset[1], z), (spread, spread, _u(rng, 0.08, 0.2))))
    solids.append(ellipsoid(OBJECTS, leaf, (0, 0, h + tall * 0.55), (0.08, 0.08, tall * 0.42)))
    return _item("plant", solids)


def _palm(rng):
    pot, leaf = Look("fabric", _tint(rng)), Look("foliage", (0.35, _u(rng, 0.5, 0.8), 0.25))
    h, tall = _u(rng, 0.25, 0.4), _u(rng, 0.8, 1.3)
    solids = [
        cylinder(OBJECTS, pot, 0, 0, (0, h), _u(rng, 0.14, 0.2)),
        cylinder(OBJECTS, leaf, 0, 0, (h - 0.02, tall), 0.025),
    ]
    turn = rng.uniform(0, 6.28)
    for k in range(6):
        tip = heading(turn + k * 1.05).apply(np.array([_u(rng, 0.25, 0.4), 0.0, 0.0]))
        solids.append(
            rod(OBJECTS, leaf, (0, 0, tall - 0.03), (tip[0], tip[1], tall + _u(rng, -0.1, 0.3)), _u(rng, 0.02, 0.04))
        )
    return _item("plant", solids)


def _floor_lamp(rng):
    look, h, r = _metal(rng), _u(rng, 1.35, 1.75), _u(rng, 0.15, 0.24)
    shade = _GLOW if rng.random() < 0.4 else Look("fabric", _tint(rng, 0.6, 1.0))
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), r * 0.8),
        cylinder(OBJECTS, look, 0, 0, (0.02, h - 0.1), 0.015),
        cylinder(OBJECTS, shade, 0, 0, (h - 0.3, h), r),
    ]
    return _item("floor_lamp", solids)


def _arc_lamp(rng):
    look, h = _metal(rng), _u(rng, 1.5, 1.8)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.05), 0.15),
        rod(OBJECTS, look, (0, 0, 0.04), (0.05, 0, h), 0.015),
        rod(OBJECTS, look, (0.05, 0, h - 0.01), (0.4, 0, h - 0.08), 0.014),
        ellipsoid(OBJECTS, _GLOW if rng.random() < 0.4 else _paint(rng), (0.42, 0, h - 0.14), (0.13, 0.13, 0.1)),
    ]
    return _item("floor_lamp", solids)


def _table_lamp(rng):
    look, h, r = _board(rng), _u(rng, 0.32, 0.55), _u(rng, 0.1, 0.17)
    shade = _GLOW if rng.random() < 0.4 else Look("fabric", _tint(rng, 0.6, 1.0))
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), r * 0.6),
        cylinder(OBJECTS, look, 0, 0, (0.02, h - 0.08), _u(rng, 0.015, 0.05)),
        cylinder(OBJECTS, shade, 0, 0, (h - 0.2, h), r),
    ]
    return _item("table_lamp", solids)


def _box_stack(rng):
    solids, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        look = Look("cardboard") if rng.random() < 0.7 else _paint(rng)
        dx, dy, h = _u(rng, 0.14, 0.26), _u(rng, 0.16, 0.3), _u(rng, 0.18, 0.4)
        cx, cy = _u(rng, -0.04, 0.04), _u(rng, -0.04, 0.04)
        solids.append(box(OBJECTS, look, (cx - dx, cx + dx), (cy - dy, cy + dy), (z, z + h)))
        z = round(z + h, 3)
    return _item("box_stack", solids)


def _bin(rng):
    r, h = _u(rng, 0.1, 0.18), _u(rng, 0.25, 0.6)
    look = _metal(rng) if rng.random() < 0.5 else _paint(rng)
    if rng.random() < 0.6:
        solids = [
            cylinder(OBJECTS, look, 0, 0, (0, h), r),
            cylinder(OBJECTS, _dark(rng), 0, 0, (h - 0.03, h + 0.01), r - 0.01),
        ]
    else:
        solids = [box(OBJECTS, look, (-r, r), (-r * 1.2, r * 1.2), (0, h), rounding_m=0.02)]
    return _item("bin", solids)


def _bag(rng):
    cloth = _cloth(rng)
    w, d, h = _u(rng, 0.26, 0.4), _u(rng, 0.14, 0.22), _u(rng, 0.3, 0.48)
    solids = [box(OBJECTS, cloth, (0, d), (-w / 2, w / 2), (0, h), rounding_m=0.05)]
    solids.append(box(OBJECTS, cloth, (d - 0.04, d + 0.06), (-w * 0.35, w * 0.35), (0.02, h * 0.5), rounding_m=0.03))
    return _item("bag", solids)


def _suitcase(rng):
    look = _paint(rng)
    w, d, h = _u(rng, 0.36, 0.52), _u(rng, 0.2, 0.3), _u(rng, 0.5, 0.72)
    solids = [box(OBJECTS, look, (0, d), (-w / 2, w / 2), (0.03, h), rounding_m=0.04)]
    solids.append(box(OBJECTS, _dark(rng), (0.05, d - 0.05), (-w / 2 + 0.04, w / 2 - 0.04), (0, 0.06)))
    solids.append(box(OBJECTS, _metal(rng), (0.04, 0.06), (-0.1, 0.1), (h - 0.03, h + 0.05)))
    return _item("suitcase", solids)


def _laundry(rng):
    if rng.random() < 0.5:
        r, h = _u(rng, 0.2, 0.26), _u(rng, 0.4, 0.6)
        solids = [
            cylinder(OBJECTS, Look("fabric", _tint(rng)), 0, 0, (0, h), r),
            ellipsoid(OBJECTS, _cloth(rng), (0, 0, h), (r * 0.9, r * 0.9, 0.1)),
        ]
    else:
        # A heap of clothes.
        solids = [ellipsoid(OBJECTS, _cloth(rng), (0, 0, 0.06), (_u(rng, 0.15, 0.3), _u(rng, 0.15, 0.3), 0.06))]
        for _ in range(3):
            x, y = _u(rng, -0.12, 0.12), _u(rng, -0.12, 0.12)
            solids.append(ellipsoid(OBJECTS, _cloth(rng), (x, y, 0.07), (_u(rng, 0.1, 0.2), _u(rng, 0.1, 0.2), 0.07)))
    return _item("laundry", solids)


def _fan(rng):
    look, h = _paint(rng), _u(rng, 0.6, 1.2)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), 0.18),
        cylinder(OBJECTS, look, 0, 0, (0.02, h), 0.02),
        rod(OBJECTS, look, (-0.1, 0, h), (0.07, 0, h), 0.06),
        rod(OBJECTS, _metal(rng), (0.03, 0, h), (0.1, 0, h), 0.2),
    ]
    return _item("fan", solids)


def _cat_tree(rng):
    cloth = Look("carpet", _tint(rng))
    h = _u(rng, 0.8, 1.3)
    solids = [
        box(OBJECTS, cloth, (0, 0.45), (-0.25, 0.25), (0, 0.06)),
        cylinder(OBJECTS, Look("fabric", (0.8, 0.7, 0.5)), 0.2, 0, (0.05, h - 0.03), 0.05),
        box(OBJECTS, cloth, (0.02, 0.38), (-0.18, 0.18), (h - 0.05, h)),
        box(OBJECTS, cloth, (0.05, 0.38), (-0.05, 0.24), (h * 0.5, h * 0.5 + 0.04)),
    ]
    return _item("fan", solids)


def _toys(rng):
    solids = [box(OBJECTS, _paint(rng), (-0.25, 0.25), (-0.2, 0.2), (0, 0.16), rounding_m=0.01)]
    for _ in range(3):
        r = _u(rng, 0.05, 0.1)
        solids.append(
            ellipsoid(OBJECTS, _paint(rng), (_u(rng, -0.13, 0.13), _u(rng, -0.1, 0.1), 0.16 + r * 0.5), (r, r, r))
        )
    return _item("toys", solids)


def _ball(rng):
    r = _u(rng, 0.1, 0.32)
    return _item("toys", [ellipsoid(OBJECTS, _paint(rng), (0, 0, r), (r, r, r))])


def _books(rng):
    solids, z = [], 0.0
    for _ in range(int(rng.integers(2, 6))):
        h, half = _u(rng, 0.02, 0.05), _u(rng, 0.09, 0.15)
        solids.append(box(OBJECTS, _paint(rng), (-half * 0.7, half * 0.7), (-half, half), (z, z + h)))
        z = round(z + h, 3)
    return _item("books", solids)


def _vase(rng):
    look, r, h = _paint(rng), _u(rng, 0.05, 0.1), _u(rng, 0.15, 0.35)
    solids = [
        ellipsoid(OBJECTS, look, (0, 0, h * 0.5), (r, r, h * 0.5)),
        cylinder(OBJECTS, look, 0, 0, (0, 0.02), r * 0.6),
        cylinder(OBJECTS, look, 0, 0, (h * 0.8, h * 1.1), r * 0.45),
    ]
    if rng.random() < 0.5:
        leaf = Look("foliage", _tint(rng, 0.4, 0.9))
        solids.append(ellipsoid(OBJECTS, leaf, (0, 0, h * 1.1 + 0.12), (0.13, 0.13, 0.14)))
    return _item("vase", solids)


def _bottle(rng):
    r, h = _u(rng, 0.03, 0.045), _u(rng, 0.18, 0.32)
    look = _paint(rng)
    return _item(
        "bottle",
        [cylinder(OBJECTS, look, 0, 0, (0, h * 0.7), r), cylinder(OBJECTS, look, 0, 0, (h * 0.65, h), r * 0.4)],
    )


def _bowl(rng):
    r, look = _u(rng, 0.1, 0.17), _paint(rng)
    solids = [
        cylinder(OBJECTS, look, 0, 0, (0, 0.03), r * 0.6),
        cylinder(OBJECTS, look, 0, 0, (0.02, _u(rng, 0.05, 0.09)), r),
    ]
    for _ in range(int(rng.integers(0, 4))):
        solids.append(
            ellipsoid(OBJECTS, _paint(rng), (_u(rng, -0.06, 0.06), _u(rng, -0.06, 0.06), 0.07), (0.045, 0.045, 0.045))
        )
    return _item("bowl", solids)


def _appliance(rng):
    w, d, h = _u(rng, 0.2, 0.5), _u(rng, 0.2, 0.36), _u(rng, 0.18, 0.35)
    solids = [
        box(OBJECTS, _metal(rng), (0, d), (-w / 2, w / 2), (0, h), rounding_m=0.02),
        box(OBJECTS, _dark(rng), (d - 0.01, d + 0.006), (-w / 2 + 0.03, w / 4), (0.04, h - 0.04)),
    ]
    return _item("appliance", solids)


def _picture(rng):
    w, h = _u(rng, 0.3, 1.0), _u(rng, 0.3, 0.8)
    solids = [
        box(OBJECTS, _board(rng), (0, 0.025), (-w / 2, w / 2), (-h / 2, h / 2)),
        box(
            OBJECTS,
            Look("picture", _tint(rng, 0.8, 1.0)),
            (0.018, 0.032),
            (-w / 2 + 0.03, w / 2 - 0.03),
            (-h / 2 + 0.03, h / 2 - 0.03),
        ),
    ]
    return _item("picture", solids)


def _poster(rng):
    w, h = _u(rng, 0.4, 0.8), _u(rng, 0.5, 1.0)
    return _item(
        "picture", [box(OBJECTS, Look("picture", _tint(rng, 0.7, 1.0)), (0, 0.014), (-w / 2, w / 2), (-h / 2, h / 2))]
    )


def _clock(rng):
    r, look = _u(rng, 0.12, 0.2), _paint(rng)
    return _item("clock", [rod(OBJECTS, look, (0, 0, 0), (0.04, 0, 0), r)])


def _mirror(rng):
    w, h = _u(rng, 0.4, 0.8), _u(rng, 0.6, 1.2)
    solids = [
        box(OBJECTS, _board(rng), (0, 0.025), (-w / 2, w / 2), (-h / 2, h / 2)),
        box(
            OBJECTS,
            Look("metal", (0.75, 0.8, 0.85), shine=0.9),
            (0.018, 0.032),
            (-w / 2 + 0.03, w / 2 - 0.03),
            (-h / 2 + 0.03, h / 2 - 0.03),
        ),
    ]
    return _item("mirror", solids)


def _curtain(rng):
    """A gathered curtain: folds side by side, from the floor (z = 0) up."""
    cloth, w, h = (
        Look(str(rng.choice(["fabric", "fabric", "stripes"])), _tint(rng, 0.3, 1.0)),
        _u(rng, 0.25, 0.5),
        _u(rng, 1.9, 2.15),
    )
    low = _u(rng, 0.03, 0.1)
    count = max(4, int(w / 0.07))
    ys = np.round(np.linspace(-w / 2 + 0.04, w / 2 - 0.04, count), 3)
    solids = [cylinder(OBJECTS, cloth, 0.06 + 0.012 * (-1) ** k, y, (low, h), 0.045) for k, y in enumerate(ys)]
    return _item("curtain", solids)


def _radiator(rng):
    look = Look("plain", (0.93, 0.93, 0.9), shine=0.2)
    w, h, low = _u(rng, 0.6, 1.4), _u(rng, 0.4, 0.6), _u(rng, 0.1, 0.15)
    y = (-w / 2, w / 2)
    if rng.random() < 0.6:
        solids = [box(OBJECTS, look, (0.03, 0.1), y, (low, low + h), rounding_m=0.01)]
        solids += [
            box(OBJECTS, look, (0.095, 0.11), (a - 0.015, a + 0.015), (low + 0.03, low + h - 0.03))
            for a in np.round(np.linspace(y[0] + 0.05, y[1] - 0.05, 8), 3)
        ]
    else:
        solids = [
            cylinder(OBJECTS, look, 0.08, a, (low, low + h), 0.03)
            for a in np.round(np.linspace(y[0] + 0.03, y[1] - 0.03, max(8, int(w / 0.09))), 3)
        ]
        solids += [box(OBJECTS, look, (0.055, 0.105), (y[0], y[1]), (z, z + 0.05)) for z in (low, low + h - 0.05)]
    for a in (y[0] + 0.1, y[1] - 0.1):
        solids.append(box(OBJECTS, look, (0, 0.08), (a - 0.02, a + 0.02), (low + h * 0.3, low + h * 0.4)))
    return _item("radiator", solids)


def _ceiling_lamp(rng):
    style = int(rng.integers(3))
    glow = Look("plain", (1.0, 0.97, 0.9), emission=0.85)
    if style == 0:
        r = _u(rng, 0.14, 0.25)
        solids = [cylinder(OBJECTS, glow, 0, 0, (-0.08, 0), r)]
    elif style == 1:
        drop, r = _u(rng, 0.25, 0.6), _u(rng, 0.1, 0.2)
        solids = [
            cylinder(OBJECTS, _dark(rng), 0, 0, (-drop, 0), 0.01),
            ellipsoid(OBJECTS, glow, (0, 0, -drop - r * 0.6), (r, r, r * 0.8)),
            cylinder(OBJECTS, _metal(rng), 0, 0, (-0.03, 0), 0.06),
        ]
    else:
        w = _u(rng, 0.3, 0.6)
        solids = [box(OBJECTS, glow, (0, 0.3), (-w, w), (-0.06, 0), rounding_m=0.01)]
    return _item("ceiling_lamp", solids)


def _rug(rng):
    d, w = _u(rng, 0.9, 1.7), _u(rng, 1.2, 2.4)
    return _item("rug", [box(FLOOR, Look("rug", _tint(rng, 0.7, 1.0), shine=0.0), (0, d), (-w / 2, w / 2), (0, 0.02))])


def _rug_plain(rng):
    look = Look(str(rng.choice(["carpet", "plaid", "stripes"])), _tint(rng), shine=0.0)
    if rng.random() < 0.5:
        return _item("rug", [cylinder(FLOOR, look, 0, 0, (0, 0.02), _u(rng, 0.5, 0.95))])
    d, w = _u(rng, 0.6, 1.5), _u(rng, 0.9, 2.2)
    return _item("rug", [box(FLOOR, look, (0, d), (-w / 2, w / 2), (0, 0.02))])


#: Every kind and its shape families, each as likely as the others.
FAMILIES: dict[str, tuple[Family, ...]] = {
    "dining_chair": (_chair_boards, _chair_padded, _chair_cantilever),
    "office_chair": (_chair_office, _chair_office, _chair_office_plain),
    "stool": (_stool,),
    "bench": (_bench,),
    "armchair_small": (_armchair, _armchair_shell),
    "bed_single": (_bed_single, _bed_single, _bunk),
    "bed_double": (_bed_double, _bed_double, _bed_box_spring),
    "sofa": (_sofa, _sofa, _sofa_slab),
    "corner_sofa": (_corner_sofa,),
    "love_seat": (_love_seat,),
    "armchair": (_armchair_large,),
    "dining_table": (_table_legs, _table_legs, _table_round, _table_trestle),
    "desk": (_desk_legs, _desk_drawers, _desk_frame),
    "coffee_table": (_coffee_table,),
    "side_table": (_side_table,),
    "counter": (_counter,),
    "tv_wall": (_tv_wall,),
    "tv_stand": (_tv_stand, _tv_stand, _tv_tube),
    "monitor": (_monitor, _monitor, _laptop),
    "bookcase": (_bookcase, _bookcase, _bookcase_closed, _rack),
    "wardrobe": (_wardrobe, _wardrobe, _wardrobe_sliding, _locker),
    "cabinet": (_cabinet_low, _cabinet_high, _cabinet_open),
    "tv_cabinet": (_cabinet_low, _cabinet_open),
    "nightstand": (_nightstand, _nightstand_open),
    "dresser": (_dresser, _dresser_tall),
    "kitchen_unit": (_kitchen_unit,),
    "fridge": (_fridge,),
    "shelf_wall": (_shelf_wall, _wall_cabinet),
    "plant": (_plant, _plant, _palm),
    "floor_lamp": (_floor_lamp, _arc_lamp),
    "table_lamp": (_table_lamp,),
    "box_stack": (_box_stack,),
    "bin": (_bin,),
    "bag": (_bag,),
    "suitcase": (_suitcase,),
    "laundry": (_laundry,),
    "fan": (_fan, _cat_tree),
    "toys": (_toys, _ball),
    "books": (_books,),
    "vase": (_vase,),
    "bottle": (_bottle,),
    "bowl": (_bowl,),
    "appliance": (_appliance,),
    "picture": (_picture, _poster),
    "clock": (_clock,),
    "mirror": (_mirror,),
    "curtain": (_curtain,),
    "radiator": (_radiator,),
    "ceiling_lamp": (_ceiling_lamp,),
    "rug": (_rug, _rug_plain),
}
