"""Beds. The head is at x = 0."""

from __future__ import annotations

import numpy as np

from sgrocc.labels import BED
from sgrocc.synthrooms.furniture_parts import (
    OVERLAP_M,
    both_sides,
    chance,
    cloth,
    finish,
    hard,
    metal,
    paint,
    pick,
    span,
    wood,
)
from sgrocc.synthrooms.scene import Item, Solid, box, rod


def _bedding(rng: np.random.Generator, x: tuple, y: float, z: float, thick_m: float) -> list[Solid]:
    """Mattress with its lower side at z, pillows and a blanket."""
    top = z + thick_m
    pillows = 2 if y > 0.6 else 1
    pillow, blanket = cloth(rng), cloth(rng)
    solids = [box(BED, cloth(rng), x, (-y, y), (z, top), 0.04)]
    pitch = 2 * y / pillows
    for i in range(pillows):
        middle, half = -y + (i + 0.5) * pitch, min(0.5 * pitch - 0.03, 0.38)
        pillow_y = (middle - half, middle + half)
        solids.append(box(BED, pillow, (x[0] + 0.03, x[0] + 0.45), pillow_y, (top - 0.02, top + 0.12), 0.05))
    if chance(rng, 0.8):
        start = span(rng, 0.5, 1.2)
        solids.append(
            box(BED, blanket, (x[0] + start, x[1] - 0.02), (-y - 0.01, y + 0.01), (z + 0.06, top + 0.05), 0.03)
        )
    return solids


def _board_bed(rng: np.random.Generator, kind: str, width: tuple) -> Item:
    """Side boards, a high head board, perhaps a foot board."""
    look = hard(rng)
    y, length, frame = span(rng, *width) / 2, span(rng, 1.96, 2.06), span(rng, 0.28, 0.36)
    solids = [
        box(BED, look, (0, 0.05), (-y - 0.03, y + 0.03), (0, span(rng, 0.7, 1.15))),
        box(BED, look, (0.04, length + 0.05), (-y - 0.03, y + 0.03), (0.1, frame)),
        box(
            BED, look, (0.04 + length - 0.03, length + 0.09), (-y - 0.03, y + 0.03), (0, span(rng, frame, frame + 0.3))
        ),
    ]
    return finish(
        kind, solids + _bedding(rng, (0.05, length + 0.02), y, frame - OVERLAP_M, span(rng, 0.16, 0.24)), clear_m=0.5
    )


def _box_spring(rng: np.random.Generator, kind: str, width: tuple) -> Item:
    """A padded base down to the floor and a padded head board."""
    look = cloth(rng)
    y, length, base = span(rng, *width) / 2, span(rng, 1.96, 2.06), span(rng, 0.3, 0.4)
    solids = [
        box(BED, look, (0, 0.1), (-y - 0.02, y + 0.02), (0, span(rng, 0.9, 1.25)), 0.03),
        box(BED, look, (0.09, 0.1 + length), (-y, y), (0, base), 0.02),
    ]
    return finish(
        kind, solids + _bedding(rng, (0.1, 0.1 + length), y, base - OVERLAP_M, span(rng, 0.18, 0.28)), clear_m=0.5
    )


def _tube_bed(rng: np.random.Generator, kind: str, width: tuple) -> Item:
    """A metal frame on legs with a rail at the head."""
    look = metal(rng)
    y, length, frame, head = span(rng, *width) / 2, span(rng, 1.96, 2.04), span(rng, 0.3, 0.4), span(rng, 0.75, 1.05)
    r = span(rng, 0.018, 0.025)
    solids = [box(BED, look, (r, length + 0.03), (-y, y), (frame - 0.05, frame))]
    solids += both_sides(rod(BED, look, (r, y - r, 0), (r, y - r, head), r))
    solids += both_sides(rod(BED, look, (length, y - r, 0), (length, y - r, frame + 0.02), r))
    solids.append(rod(BED, look, (r, -y, head - r), (r, y, head - r), r))
    solids.append(rod(BED, look, (r, -y, frame + 0.2), (r, y, frame + 0.2), r))
    return finish(
        kind, solids + _bedding(rng, (0.05, length + 0.02), y, frame - OVERLAP_M, span(rng, 0.14, 0.22)), clear_m=0.5
    )


def _platform_bed(rng: np.random.Generator, kind: str, width: tuple) -> Item:
    """A low, wide platform without a head board, on a set-back plinth."""
    look = hard(rng)
    y, length, base = span(rng, *width) / 2, span(rng, 1.98, 2.06), span(rng, 0.2, 0.28)
    rim = span(rng, 0.04, 0.12)
    solids = [
        box(BED, look, (0.15, length - 0.1), (-y + 0.1, y - 0.1), (0, base - 0.05)),
        box(BED, look, (0, length + 2 * rim), (-y - rim, y + rim), (base - 0.06, base)),
    ]
    return finish(
        kind, solids + _bedding(rng, (rim, rim + length), y, base - OVERLAP_M, span(rng, 0.16, 0.22)), clear_m=0.5
    )


def _bunk(rng: np.random.Generator) -> Item:
    """Two berths above each other, with a ladder at the foot."""
    look = pick(rng, (wood, paint, metal))(rng)
    y, length, height = span(rng, 0.8, 0.96) / 2, span(rng, 1.96, 2.04), span(rng, 1.45, 1.65)
    half = span(rng, 0.02, 0.035)
    end = length + 2 * half
    solids = []
    for x in (half, end - half):
        solids += both_sides(box(BED, look, (x - half, x + half), (y - half, y + half), (0, height)))
    for z in (span(rng, 0.25, 0.35), height - 0.3):
        solids.append(box(BED, look, (half, end - half), (-y, y), (z - 0.06, z)))
        solids.append(
            box(BED, cloth(rng), (2 * half, end - 2 * half), (-y + 0.03, y - 0.03), (z - 0.01, z + 0.14), 0.03)
        )
        solids.append(box(BED, cloth(rng), (2 * half + 0.02, 0.45), (-y + 0.08, y - 0.08), (z + 0.12, z + 0.22), 0.04))
    solids.append(box(BED, look, (half, end - half), (y - 0.012, y + 0.012), (height - 0.1, height)))
    solids.append(box(BED, look, (end - 0.04, end + 0.03), (-0.2, 0.2), (0.0, height - 0.3)))
    return finish("bunk", solids, clear_m=0.6)


def _loft_bed(rng: np.random.Generator) -> Item:
    """One berth high up, free space below."""
    look = pick(rng, (wood, paint, metal))(rng)
    y, length, height = span(rng, 0.85, 1.05) / 2, span(rng, 1.98, 2.04), span(rng, 1.6, 1.8)
    half, z = span(rng, 0.025, 0.04), height - 0.3
    end = length + 2 * half
    solids = []
    for x in (half, end - half):
        solids += both_sides(box(BED, look, (x - half, x + half), (y - half, y + half), (0, height)))
    solids += [
        box(BED, look, (half, end), (-y, y), (z - 0.08, z)),
        box(BED, cloth(rng), (2 * half, end - 2 * half), (-y + 0.03, y - 0.03), (z - 0.01, z + 0.14), 0.03),
        box(BED, cloth(rng), (2 * half + 0.02, 0.45), (-y + 0.08, y - 0.08), (z + 0.12, z + 0.22), 0.04),
        *both_sides(box(BED, look, (half, end - half), (y - 0.012, y + 0.012), (height - 0.1, height))),
        *both_sides(rod(BED, look, (end + 0.02, 0.18, 0.0), (end + 0.005, 0.18, height - 0.2), 0.02)),
    ]
    for i in range(3):
        rung = 0.3 + i * 0.36
        solids.append(rod(BED, look, (end + 0.015, -0.18, rung), (end + 0.015, 0.18, rung), 0.016))
    return finish("bunk", solids, clear_m=0.6)


_SINGLE, _DOUBLE = ("bed_single", (0.8, 1.1)), ("bed_double", (1.35, 1.85))

FAMILIES = {
    kind: tuple(
        # The defaults bind now; a lambda's free variables would all be the last kind's.
        (lambda rng, shape=shape, kind=kind, width=width: shape(rng, kind, width))
        for shape in (_board_bed, _box_spring, _tube_bed, _platform_bed)
    )
    for kind, width in (_SINGLE, _DOUBLE)
}
FAMILIES["bunk"] = (_bunk, _loft_bed)
