"""Kitchen units, refrigerators and the like: class furniture."""

from __future__ import annotations

import numpy as np

from sgrocc.geometry import Pose
from sgrocc.labels import FURNITURE
from sgrocc.synthrooms.furniture_parts import chance, colour, finish, hard, metal, mirrored_item, paint, pick, span
from sgrocc.synthrooms.furniture_storage import handle
from sgrocc.synthrooms.scene import Item, Look, Solid, box, heading, rod


def _kitchen_base(rng: np.random.Generator, look: Look, units: int, pitch: float, depth: float) -> list[Solid]:
    """Units side by side under one worktop at 0.9 m, on a set-back plinth."""
    y = units * pitch / 2
    front, top, grip = look, hard(rng), metal(rng)
    solids = [
        box(FURNITURE, look, (0, depth - 0.06), (-y + 0.01, y - 0.01), (0, 0.11)),
        box(FURNITURE, look, (0, depth - 0.02), (-y, y), (0.1, 0.865)),
        box(FURNITURE, top, (0, depth + 0.02), (-y, y), (0.86, 0.9)),
    ]
    for i in range(units):
        low = -y + i * pitch
        fronts = ((0.12, 0.85),) if chance(rng, 0.6) else ((0.12, 0.48), (0.49, 0.85))
        for z in fronts:
            solids.append(box(FURNITURE, front, (depth - 0.025, depth), (low + 0.004, low + pitch - 0.004), z))
            bar = (low + 0.3 * pitch, low + 0.7 * pitch)
            solids.append(box(FURNITURE, grip, (depth - 0.005, depth + 0.018), bar, (z[1] - 0.07, z[1] - 0.055)))
    return solids


def _things_on(rng: np.random.Generator, places: list[float], x: float, top: float) -> list[tuple[str, Pose]]:
    """Slots for small things along a worktop, at some of the places."""
    kinds = ("bottle", "bowl", "appliance", "vase")
    return [(pick(rng, kinds), heading(0.0, x, y, top)) for y in places if chance(rng, 0.4)]


def _kitchen_line(rng: np.random.Generator) -> Item:
    """Base units, a sink or a hob, wall units above joined by a splashback."""
    look = hard(rng)
    units, pitch, depth = int(rng.integers(2, 5)), span(rng, 0.5, 0.6), span(rng, 0.58, 0.63)
    y = units * pitch / 2
    low = span(rng, 1.38, 1.48)
    high, out = low + span(rng, 0.55, 0.68), span(rng, 0.32, 0.37)
    upper = hard(rng) if chance(rng, 0.4) else look
    splash = Look(pick(rng, ("tiles", "plain", "metal", "stone")), colour(rng), shine=0.2)
    solids = _kitchen_base(rng, look, units, pitch, depth)
    solids.append(box(FURNITURE, splash, (0, 0.014), (-y, y), (0.895, low + 0.005)))
    solids.append(box(FURNITURE, upper, (0, out), (-y, y), (low, high)))
    for i in range(units):
        at = -y + i * pitch
        solids.append(box(FURNITURE, upper, (out - 0.005, out + 0.016), (at + 0.004, at + pitch - 0.004), (low, high)))
    steel, at = Look("metal", (0.8, 0.81, 0.82), shine=0.5), -y + pitch / 2
    solids.append(box(FURNITURE, steel, (0.12, depth - 0.08), (at - 0.2, at + 0.2), (0.895, 0.908)))
    if chance(rng, 0.6):
        solids.append(rod(FURNITURE, steel, (0.09, at, 0.89), (0.09, at, 1.15), 0.016))
        solids.append(rod(FURNITURE, steel, (0.08, at, 1.14), (0.26, at, 1.12), 0.014))
    slots = _things_on(rng, [-y + (i + 0.5) * pitch for i in range(1, units)], 0.16, 0.9)
    return finish("kitchen_unit", solids, clear_m=0.8, slots=slots)


def _kitchen_block(rng: np.random.Generator) -> Item:
    """Base units only: an island or a line under a window."""
    look = hard(rng)
    units, pitch, depth = int(rng.integers(2, 5)), span(rng, 0.45, 0.6), span(rng, 0.58, 0.7)
    return finish("kitchen_unit", _kitchen_base(rng, look, units, pitch, depth), clear_m=0.8, top_m=0.9)


def _kitchen_with_tall(rng: np.random.Generator) -> Item:
    """Base units beside a tall one, with an oven in it."""
    look = hard(rng)
    units, pitch, depth = int(rng.integers(1, 4)), span(rng, 0.5, 0.6), span(rng, 0.58, 0.63)
    y, tall, height = units * pitch / 2, 0.6, span(rng, 1.95, 2.15)
    solids = _kitchen_base(rng, look, units, pitch, depth)
    glass = Look("plain", (0.06, 0.06, 0.07), shine=0.6)
    solids += [
        box(FURNITURE, look, (0, depth), (y - 0.005, y + tall), (0, height)),
        box(FURNITURE, look, (depth - 0.005, depth + 0.016), (y + 0.01, y + tall - 0.01), (0.12, 0.8)),
        box(FURNITURE, look, (depth - 0.005, depth + 0.016), (y + 0.01, y + tall - 0.01), (1.42, height - 0.02)),
        box(FURNITURE, glass, (depth - 0.005, depth + 0.02), (y + 0.02, y + tall - 0.02), (0.82, 1.4)),
    ]
    slots = _things_on(rng, [-y + (i + 0.5) * pitch for i in range(units)], 0.15, 0.9)
    item = finish("kitchen_unit", solids, clear_m=0.8, slots=slots)
    return mirrored_item(item) if chance(rng, 0.5) else item


def _tall_fridge(rng: np.random.Generator) -> Item:
    """Two doors above each other, upright grips."""
    look = paint(rng) if chance(rng, 0.5) else metal(rng)
    depth, width, height = span(rng, 0.58, 0.66), span(rng, 0.54, 0.7), span(rng, 1.45, 1.95)
    y, split = width / 2, span(rng, 0.3, 0.62) * height
    solids = [
        box(FURNITURE, look, (0, depth - 0.05), (-y, y), (0.0, height)),
        box(FURNITURE, look, (depth - 0.055, depth), (-y, y), (0.05, split - 0.006), 0.01),
        box(FURNITURE, look, (depth - 0.055, depth), (-y, y), (split + 0.006, height), 0.01),
        handle(metal(rng), depth, y - 0.06, (split + 0.05, split + 0.3)),
        handle(metal(rng), depth, y - 0.06, (split - 0.3, split - 0.05)),
    ]
    return finish("fridge", solids, clear_m=0.7)


def _low_fridge(rng: np.random.Generator) -> Item:
    """As high as a worktop; a washing machine where it has a round window."""
    look = paint(rng) if chance(rng, 0.5) else Look("plain", (0.94, 0.94, 0.94), shine=0.2)
    depth, width, height = span(rng, 0.52, 0.62), span(rng, 0.5, 0.6), span(rng, 0.82, 0.9)
    y = width / 2
    solids = [
        box(FURNITURE, look, (0, depth), (-y, y), (0.02, height)),
        box(FURNITURE, look, (0.03, depth - 0.03), (-y + 0.03, y - 0.03), (0, 0.03)),
    ]
    if chance(rng, 0.5):
        glass = Look("plain", (0.1, 0.1, 0.12), shine=0.5)
        solids.append(rod(FURNITURE, glass, (depth - 0.01, 0, 0.45 * height), (depth + 0.03, 0, 0.45 * height), 0.16))
        solids.append(
            box(
                FURNITURE,
                metal(rng),
                (depth - 0.005, depth + 0.012),
                (-y + 0.02, y - 0.02),
                (height - 0.12, height - 0.02),
            )
        )
    else:
        solids.append(box(FURNITURE, look, (depth - 0.005, depth + 0.03), (-y, y), (0.06, height - 0.01)))
        solids.append(handle(metal(rng), depth + 0.03, y - 0.05, (0.5, 0.7)))
    return finish("fridge", solids, clear_m=0.7, top_m=height)


FAMILIES = {
    "kitchen_unit": (_kitchen_line, _kitchen_block, _kitchen_with_tall),
    "fridge": (_tall_fridge, _low_fridge),
}
