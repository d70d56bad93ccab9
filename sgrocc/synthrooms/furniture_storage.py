"""Bookcases, wardrobes, cabinets, nightstands, dressers, shelves: class furniture, books on them class objects."""

from __future__ import annotations

import numpy as np

from sgrocc.labels import FURNITURE, OBJECTS
from sgrocc.synthrooms.furniture_parts import (
    both_sides,
    chance,
    colour,
    finish,
    hard,
    metal,
    paint,
    pick,
    span,
)
from sgrocc.synthrooms.scene import Item, Look, Solid, box, cylinder


def _books(rng: np.random.Generator, x: tuple, y: tuple, z: float, clear_m: float, blocks: int) -> list[Solid]:
    """Rows of books, boxes or a gap, standing at height z between y[0] and y[1], lower than `clear_m`."""
    solids, at = [], y[0]
    pitch = (y[1] - y[0]) / blocks
    for _ in range(blocks):
        if chance(rng, 0.75):
            height = min(span(rng, 0.16, 0.3), clear_m - 0.02)
            length = span(rng, 0.5, 0.95) * pitch
            look = Look("books", colour(rng)) if chance(rng, 0.7) else paint(rng)
            front = x[1] - span(rng, 0.01, 0.05)
            if length >= 0.02 and height > 0.05:
                solids.append(box(OBJECTS, look, (x[0], front), (at, at + length), (z, z + height)))
        at += pitch
    return solids


def _open_bookcase(rng: np.random.Generator) -> Item:
    """Sides, boards, a back panel."""
    look = hard(rng)
    depth, width, height = span(rng, 0.24, 0.36), span(rng, 0.55, 1.1), span(rng, 0.8, 2.1)
    y, t = width / 2, 0.02
    boards = max(int(height / 0.36), 2)
    solids = [box(FURNITURE, look, (0, 0.014), (-y, y), (0, height))]
    solids += both_sides(box(FURNITURE, look, (0, depth), (y - t, y), (0, height)))
    pitch = (height - 0.06 - t) / boards
    for i in range(boards + 1):
        z = 0.06 + i * pitch - (0.0 if i else 0.03)
        solids.append(
            box(FURNITURE, look, (0.01, depth - 0.005), (-y + t - 0.005, y - t + 0.005), (z, 0.06 + i * pitch + t))
        )
        if i < boards:
            solids += _books(rng, (0.014, depth), (-y + t, y - t), 0.06 + i * pitch + t, pitch - t, 3)
    return finish("bookcase", solids, clear_m=0.3, top_m=height if height < 1.3 else None)


def _cube_shelf(rng: np.random.Generator) -> Item:
    """Square compartments without a back, some holding a box."""
    look = hard(rng)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    cell, depth, t = span(rng, 0.34, 0.4), span(rng, 0.3, 0.4), span(rng, 0.02, 0.04)
    width, height = columns * cell + t, rows * cell + t
    solids = [
        box(FURNITURE, look, (0, depth), (-width / 2 + i * cell, -width / 2 + i * cell + t), (0, height))
        for i in range(columns + 1)
    ]
    solids += [
        box(FURNITURE, look, (0, depth), (-width / 2, width / 2), (i * cell, i * cell + t)) for i in range(rows + 1)
    ]
    for column in range(columns):
        for row in range(rows):
            y = (-width / 2 + column * cell + t, -width / 2 + (column + 1) * cell)
            if chance(rng, 0.35):
                front = Look(pick(rng, ("cardboard", "fabric", "plain")), colour(rng))
                solids.append(
                    box(
                        OBJECTS,
                        front,
                        (0.02, depth - 0.01),
                        (y[0] + 0.01, y[1] - 0.01),
                        (row * cell + t, (row + 1) * cell - 0.04),
                    )
                )
            else:
                solids += _books(rng, (0.05, depth), y, row * cell + t, cell - t, 1)
    return finish("bookcase", solids, clear_m=0.3, top_m=height if height < 1.3 else None)


def _ladder_shelf(rng: np.random.Generator) -> Item:
    """Boards between thin metal or wooden posts: one sees through it."""
    look, post = hard(rng), metal(rng)
    depth, width, height = span(rng, 0.28, 0.42), span(rng, 0.6, 1.1), span(rng, 1.2, 1.9)
    y, half = width / 2, 0.013
    boards = int(rng.integers(3, 6))
    solids = []
    for at in (half, depth - half):
        solids += both_sides(box(FURNITURE, post, (at - half, at + half), (y - 2 * half, y), (0, height)))
    pitch = (height - 0.12) / (boards - 1)
    for i in range(boards):
        z = 0.1 + i * pitch
        solids.append(box(FURNITURE, look, (0, depth), (-y, y), (z - 0.02, z)))
        if i < boards - 1:
            solids += _books(rng, (0.03, depth - 0.03), (-y + 0.04, y - 0.04), z, pitch - 0.02, 2)
    return finish("bookcase", solids, clear_m=0.3)


def handle(look: Look, x: float, y: float, z: tuple) -> Solid:
    """An upright bar on a door whose front is at x."""
    return box(FURNITURE, look, (x - 0.005, x + 0.02), (y - 0.008, y + 0.008), z)


def _hinged_wardrobe(rng: np.random.Generator) -> Item:
    """A body with two or three doors on a plinth."""
    look, front, grip = hard(rng), hard(rng), metal(rng)
    doors = int(rng.integers(2, 4))
    depth, pitch, height = span(rng, 0.5, 0.62), span(rng, 0.4, 0.52), span(rng, 1.8, 2.15)
    y = doors * pitch / 2
    solids = [
        box(FURNITURE, look, (0.02, depth - 0.05), (-y + 0.02, y - 0.02), (0, 0.09)),
        box(FURNITURE, look, (0, depth), (-y, y), (0.08, height)),
    ]
    for i in range(doors):
        low = -y + i * pitch
        solids.append(
            box(
                FURNITURE,
                front,
                (depth - 0.005, depth + 0.018),
                (low + 0.006, low + pitch - 0.006),
                (0.1, height - 0.02),
            )
        )
        at = low + (pitch - 0.05 if i % 2 == 0 else 0.05)
        solids.append(handle(grip, depth + 0.018, at, (0.95, 1.15)))
    return finish("wardrobe", solids, clear_m=0.6)


def _sliding_wardrobe(rng: np.random.Generator) -> Item:
    """Wide, two doors one before the other, one of them perhaps a mirror."""
    look, front = hard(rng), hard(rng)
    other = Look("metal", (0.85, 0.88, 0.9), shine=0.8) if chance(rng, 0.4) else hard(rng)
    depth, width, height = span(rng, 0.58, 0.68), span(rng, 1.3, 2.2), span(rng, 1.95, 2.15)
    y = width / 2
    solids = [
        box(FURNITURE, look, (0, depth - 0.06), (-y, y), (0, height)),
        box(FURNITURE, look, (depth - 0.07, depth), (-y, y), (height - 0.05, height)),
        box(FURNITURE, look, (depth - 0.07, depth), (-y, y), (0, 0.05)),
        box(FURNITURE, front, (depth - 0.065, depth - 0.035), (-y + 0.01, 0.02), (0.04, height - 0.04)),
        box(FURNITURE, other, (depth - 0.04, depth - 0.01), (-0.02, y - 0.01), (0.04, height - 0.04)),
    ]
    return finish("wardrobe", solids, clear_m=0.5)


def _old_wardrobe(rng: np.random.Generator) -> Item:
    """With feet and a cornice that stands out, a drawer below."""
    look, grip = hard(rng), metal(rng)
    depth, width, height = span(rng, 0.48, 0.58), span(rng, 0.85, 1.3), span(rng, 1.75, 2.05)
    y = width / 2
    solids = [
        box(FURNITURE, look, (0.03, depth - 0.03), (-y + 0.03, y - 0.03), (0.08, height - 0.06)),
        box(FURNITURE, look, (0, depth), (-y, y), (height - 0.08, height)),
        box(FURNITURE, look, (0, depth), (-y, y), (0.06, 0.16)),
        box(FURNITURE, look, (depth - 0.04, depth - 0.015), (-y + 0.06, y - 0.06), (0.2, 0.42)),
    ]
    for low, high in ((-y + 0.06, -0.005), (0.005, y - 0.06)):
        solids.append(box(FURNITURE, look, (depth - 0.04, depth - 0.015), (low, high), (0.45, height - 0.12)))
    for x in (0.05, depth - 0.05):
        solids += both_sides(cylinder(FURNITURE, look, x, y - 0.06, (0, 0.07), 0.03))
    solids += both_sides(handle(grip, depth - 0.015, 0.04, (0.95, 1.1)))
    return finish("wardrobe", solids, clear_m=0.6)


def _chest(
    rng: np.random.Generator, kind: str, depth: float, width: float, height: float, columns: int, rows: int
) -> Item:
    """A body with columns x rows of fronts, on a plinth, on legs, or down to the floor."""
    look = hard(rng)
    front = look if chance(rng, 0.6) else hard(rng)
    grip = metal(rng)
    y = width / 2
    under = pick(rng, (0.0, 0.06, min(0.16, 0.3 * height)))
    solids = [box(FURNITURE, look, (0, depth), (-y, y), (under, height))]
    if under == 0.06:
        solids.append(box(FURNITURE, look, (0.02, depth - 0.04), (-y + 0.02, y - 0.02), (0, under + 0.01)))
    elif under:
        r = span(rng, 0.015, 0.025)
        for x in (0.06, depth - 0.06):
            solids += both_sides(
                cylinder(FURNITURE, grip if chance(rng, 0.5) else look, x, y - 0.06, (0, under + 0.01), r)
            )
    pitch_y, pitch_z = (width - 0.03) / columns, (height - under - 0.04) / rows
    for column in range(columns):
        for row in range(rows):
            low, z = -y + 0.015 + column * pitch_y, under + 0.01 + row * pitch_z
            solids.append(
                box(
                    FURNITURE,
                    front,
                    (depth - 0.005, depth + 0.016),
                    (low + 0.005, low + pitch_y - 0.005),
                    (z + 0.005, z + pitch_z - 0.005),
                )
            )
            if columns * rows <= 6:
                middle = low + pitch_y / 2
                solids.append(
                    box(
                        FURNITURE,
                        grip,
                        (depth + 0.01, depth + 0.034),
                        (middle - 0.05, middle + 0.05),
                        (z + 0.7 * pitch_z, z + 0.7 * pitch_z + 0.014),
                    )
                )
    return finish(kind, solids, clear_m=0.4, top_m=height)


def _door_cabinet(rng: np.random.Generator) -> Item:
    columns = int(rng.integers(1, 4))
    width = columns * span(rng, 0.4, 0.55)
    return _chest(rng, "cabinet", span(rng, 0.35, 0.5), width, span(rng, 0.7, 1.15), columns, 1)


def _low_cabinet(rng: np.random.Generator) -> Item:
    """Long and low: what a television stands on."""
    return _chest(
        rng,
        "cabinet",
        span(rng, 0.36, 0.48),
        span(rng, 1.2, 1.9),
        span(rng, 0.4, 0.58),
        int(rng.integers(2, 4)),
        int(rng.integers(1, 3)),
    )


def _open_cabinet(rng: np.random.Generator) -> Item:
    """Two shut sides and an open middle with a board, books and boxes in it."""
    look, front = hard(rng), hard(rng)
    depth, width, height, t = span(rng, 0.36, 0.48), span(rng, 1.1, 1.8), span(rng, 0.45, 0.85), 0.025
    y, inner = width / 2, span(rng, 0.25, 0.4)
    solids = [
        box(FURNITURE, look, (0, depth), (-y, y), (height - t, height)),
        box(FURNITURE, look, (0, depth), (-y, y), (0, 0.05)),
        box(FURNITURE, look, (0, 0.014), (-inner - 0.01, inner + 0.01), (0.04, height - t + 0.005)),
        box(FURNITURE, look, (0, depth - 0.02), (-inner - 0.01, inner + 0.01), (height / 2, height / 2 + 0.02)),
    ]
    solids += both_sides(box(FURNITURE, front, (0, depth - 0.01), (inner, y - 0.005), (0.045, height - t + 0.005)))
    solids += _books(rng, (0.014, depth - 0.02), (-inner, inner), 0.05, height / 2 - 0.05, 2)
    return finish("cabinet", solids, clear_m=0.4, top_m=height)


def _drawer_nightstand(rng: np.random.Generator) -> Item:
    return _chest(
        rng,
        "nightstand",
        span(rng, 0.32, 0.42),
        span(rng, 0.36, 0.5),
        span(rng, 0.42, 0.62),
        1,
        int(rng.integers(1, 4)),
    )


def _open_nightstand(rng: np.random.Generator) -> Item:
    """A board on legs with a second board below."""
    look, leg = hard(rng), hard(rng)
    depth, width, height = span(rng, 0.3, 0.4), span(rng, 0.34, 0.48), span(rng, 0.42, 0.58)
    y, low = width / 2, span(rng, 0.12, 0.22)
    solids = [
        box(FURNITURE, look, (0, depth), (-y, y), (height - span(rng, 0.03, 0.14), height)),
        box(FURNITURE, look, (0.01, depth - 0.01), (-y + 0.01, y - 0.01), (low - 0.02, low)),
    ]
    for x in (0.025, depth - 0.025):
        solids += both_sides(box(FURNITURE, leg, (x - 0.018, x + 0.018), (y - 0.043, y - 0.007), (0, height - 0.025)))
    solids += _books(rng, (0.06, depth - 0.06), (-y + 0.06, y - 0.06), low, 0.15, 1)
    return finish("nightstand", solids, clear_m=0.3, top_m=height)


def _round_nightstand(rng: np.random.Generator) -> Item:
    """A drum, or a disc over a smaller drum."""
    look = hard(rng)
    r, height = span(rng, 0.19, 0.26), span(rng, 0.42, 0.56)
    solids = [cylinder(FURNITURE, look, 0, 0, (height - 0.03, height), r)]
    solids.append(cylinder(FURNITURE, hard(rng), 0, 0, (0, height - 0.025), r - span(rng, 0.01, 0.05)))
    return finish("nightstand", solids, clear_m=0.3, top_m=height)


def _wide_dresser(rng: np.random.Generator) -> Item:
    depth, width, height = span(rng, 0.4, 0.52), span(rng, 1.0, 1.6), span(rng, 0.7, 0.9)
    return _chest(rng, "dresser", depth, width, height, 2, int(rng.integers(3, 5)))


def _tall_dresser(rng: np.random.Generator) -> Item:
    depth, width, height = span(rng, 0.4, 0.5), span(rng, 0.5, 0.8), span(rng, 0.9, 1.3)
    return _chest(rng, "dresser", depth, width, height, 1, int(rng.integers(4, 7)))


def _changing_dresser(rng: np.random.Generator) -> Item:
    """Open compartments above two drawers."""
    look, front = hard(rng), hard(rng)
    depth, width, height, t = span(rng, 0.42, 0.52), span(rng, 0.7, 1.1), span(rng, 0.8, 1.0), 0.02
    y, shut = width / 2, span(rng, 0.3, 0.45)
    solids = [
        box(FURNITURE, look, (0, depth - 0.015), (-y, y), (0, shut)),
        box(FURNITURE, look, (0, depth), (-y, y), (height - 0.03, height)),
        box(FURNITURE, look, (0, 0.014), (-y, y), (shut - 0.005, height - 0.02)),
        box(FURNITURE, look, (0, depth - 0.02), (-0.01, 0.01), (shut - 0.005, height - 0.02)),
        *both_sides(box(FURNITURE, look, (0, depth), (y - t, y), (shut - 0.005, height - 0.02))),
        *both_sides(box(FURNITURE, front, (depth - 0.02, depth), (0.005, y - 0.01), (0.03, shut - 0.01))),
    ]
    solids += _books(rng, (0.02, depth - 0.05), (-y + t, -0.01), shut, height - shut - 0.03, 2)
    return finish("dresser", solids, clear_m=0.5, top_m=height)


def _boards_on_wall(rng: np.random.Generator) -> Item:
    """One to three boards on brackets that run down the wall, books on them."""
    look, rail = hard(rng), metal(rng)
    depth, width, count, pitch = (
        span(rng, 0.18, 0.28),
        span(rng, 0.5, 1.2),
        int(rng.integers(1, 4)),
        span(rng, 0.28, 0.36),
    )
    y = width / 2
    solids = both_sides(
        box(FURNITURE, rail, (0, 0.016), (0.6 * y - 0.012, 0.6 * y + 0.012), (-0.12, (count - 1) * pitch + 0.03))
    )
    for i in range(count):
        z = i * pitch
        solids.append(box(FURNITURE, look, (0, depth), (-y, y), (z, z + 0.025)))
        solids.append(box(FURNITURE, rail, (0, 0.8 * depth), (0.6 * y - 0.008, 0.6 * y + 0.008), (z - 0.03, z + 0.005)))
        solids.append(
            box(FURNITURE, rail, (0, 0.8 * depth), (-0.6 * y - 0.008, -0.6 * y + 0.008), (z - 0.03, z + 0.005))
        )
        solids += _books(rng, (0.018, depth - 0.01), (-y + 0.02, y - 0.02), z + 0.025, pitch - 0.06, 3)
    return finish("shelf_wall", solids, z="hangs")


def _hanging_box(rng: np.random.Generator) -> Item:
    """An open box with one divider."""
    look, t = hard(rng), 0.02
    depth, width, height = span(rng, 0.2, 0.3), span(rng, 0.5, 1.0), span(rng, 0.28, 0.42)
    y = width / 2
    solids = [
        box(FURNITURE, look, (0, 0.014), (-y, y), (0, height)),
        box(FURNITURE, look, (0, depth), (-y, y), (0, t)),
        box(FURNITURE, look, (0, depth), (-y, y), (height - t, height)),
        box(FURNITURE, look, (0, depth), (-t / 2, t / 2), (t - 0.005, height - t + 0.005)),
        *both_sides(box(FURNITURE, look, (0, depth), (y - t, y), (0, height))),
    ]
    solids += _books(rng, (0.014, depth), (-y + t, -t / 2), t, height - 2 * t, 1)
    solids += _books(rng, (0.014, depth), (t / 2, y - t), t, height - 2 * t, 2)
    return finish("shelf_wall", solids, z="hangs")


def _wall_cabinet(rng: np.random.Generator) -> Item:
    """A shut cabinet that hangs, with one or two doors."""
    look, front, doors = hard(rng), hard(rng), int(rng.integers(1, 3))
    depth, pitch, height = span(rng, 0.25, 0.36), span(rng, 0.36, 0.5), span(rng, 0.4, 0.7)
    y = doors * pitch / 2
    solids = [box(FURNITURE, look, (0, depth), (-y, y), (0, height))]
    for i in range(doors):
        at = -y + i * pitch
        solids.append(
            box(
                FURNITURE,
                front,
                (depth - 0.005, depth + 0.016),
                (at + 0.004, at + pitch - 0.004),
                (0.004, height - 0.004),
            )
        )
    return finish("shelf_wall", solids, z="hangs")


FAMILIES = {
    "bookcase": (_open_bookcase, _cube_shelf, _ladder_shelf),
    "wardrobe": (_hinged_wardrobe, _sliding_wardrobe, _old_wardrobe),
    "cabinet": (_door_cabinet, _low_cabinet, _open_cabinet),
    "nightstand": (_drawer_nightstand, _open_nightstand, _round_nightstand),
    "dresser": (_wide_dresser, _tall_dresser, _changing_dresser),
    "shelf_wall": (_boards_on_wall, _hanging_box, _wall_cabinet),
}
