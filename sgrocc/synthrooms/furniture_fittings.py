"""What belongs to a room rather than stands in it: televisions, pictures, curtains, radiators, lamps, rugs."""

from __future__ import annotations

import numpy as np

from sgrocc.labels import FLOOR, OBJECTS, TV
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


def _screen(rng: np.random.Generator, width: float, height: float, x: float, z: float, thick_m: float) -> list[Solid]:
    """A flat screen whose back is at x and whose lower edge is at z: a dark case and a picture, on or off."""
    case = Look("plain", pick(rng, ((0.05, 0.05, 0.06), (0.1, 0.1, 0.1), (0.6, 0.6, 0.62))), shine=0.3)
    if chance(rng, 0.5):
        picture = Look("screen", (1.0, 1.0, 1.0), emission=span(rng, 0.3, 0.9))
    else:
        picture = Look("plain", (0.03, 0.03, 0.04), shine=0.6)
    y, rim = width / 2, span(rng, 0.008, 0.025)
    return [
        box(TV, case, (x, x + thick_m), (-y, y), (z, z + height)),
        box(TV, picture, (x + thick_m - 0.008, x + thick_m + 0.004), (-y + rim, y - rim), (z + rim, z + height - rim)),
    ]


def _flat_tv(rng: np.random.Generator) -> Item:
    width = span(rng, 0.7, 1.5)
    return finish(
        "tv_wall", _screen(rng, width, 0.575 * width, 0.0, 0.0, span(rng, 0.045, 0.08)), clear_m=1.0, z="hangs"
    )


def _bracket_tv(rng: np.random.Generator) -> Item:
    """Held off the wall by an arm."""
    width = span(rng, 0.6, 1.2)
    height = 0.575 * width
    arm = metal(rng)
    out = span(rng, 0.06, 0.14)
    solids = _screen(rng, width, height, out, 0.0, 0.04)
    solids.append(box(TV, arm, (0, 0.015), (-0.12, 0.12), (height / 2 - 0.12, height / 2 + 0.12)))
    solids.append(box(TV, arm, (0.01, out + 0.01), (-0.04, 0.04), (height / 2 - 0.05, height / 2 + 0.05)))
    return finish("tv_wall", solids, clear_m=1.0, z="hangs")


def _bar_tv(rng: np.random.Generator) -> Item:
    """With a loudspeaker bar below it."""
    width = span(rng, 0.9, 1.45)
    bar = Look("fabric", (0.12, 0.12, 0.13))
    solids = _screen(rng, width, 0.575 * width, 0.0, 0.08, span(rng, 0.045, 0.07))
    solids.append(box(TV, bar, (0, 0.075), (-0.38 * width, 0.38 * width), (0, 0.082), 0.01))
    return finish("tv_wall", solids, clear_m=1.0, z="hangs")


def _plate_foot_tv(rng: np.random.Generator) -> Item:
    width, look = span(rng, 0.7, 1.25), paint(rng)
    solids = _screen(rng, width, 0.575 * width, 0.08, 0.06, span(rng, 0.04, 0.06))
    solids.append(box(TV, look, (0, 0.22), (-0.18 * width, 0.18 * width), (0, 0.014)))
    solids.append(box(TV, look, (0.085, 0.115), (-0.05, 0.05), (0.01, 0.15)))
    return finish("tv_stand", solids, clear_m=1.0)


def _two_feet_tv(rng: np.random.Generator) -> Item:
    width, look = span(rng, 0.8, 1.35), metal(rng)
    solids = _screen(rng, width, 0.575 * width, 0.09, 0.06, 0.05)
    solids += both_sides(rod(TV, look, (0.0, 0.36 * width, 0.012), (0.115, 0.36 * width, 0.075), 0.012))
    solids += both_sides(rod(TV, look, (0.23, 0.36 * width, 0.012), (0.115, 0.36 * width, 0.075), 0.012))
    return finish("tv_stand", solids, clear_m=1.0)


def _tube_tv(rng: np.random.Generator) -> Item:
    """A picture tube: as deep as wide."""
    width = span(rng, 0.45, 0.68)
    height, depth, case = 0.8 * width, span(rng, 0.36, 0.46), paint(rng)
    solids = _screen(rng, width, height, depth - 0.14, 0.0, 0.14)
    solids.append(box(TV, case, (0, depth - 0.13), (-0.32 * width, 0.32 * width), (0.0, 0.75 * height), 0.03))
    return finish("tv_stand", solids, clear_m=1.0)


def _monitor(rng: np.random.Generator) -> Item:
    """One screen on a plate and a post."""
    width, look = span(rng, 0.42, 0.72), pick(rng, (paint, metal))(rng)
    height, up = span(rng, 0.5, 0.62) * width, span(rng, 0.08, 0.14)
    solids = _screen(rng, width, height, 0.09, up, span(rng, 0.03, 0.045))
    foot = span(rng, 0.09, 0.12)
    if chance(rng, 0.5):
        solids.append(cylinder(TV, look, foot, 0, (0, 0.014), foot))
    else:
        solids.append(box(TV, look, (0, 2 * foot), (-foot, foot), (0, 0.014)))
    solids.append(box(TV, look, (0.075, 0.095), (-0.025, 0.025), (0.01, up + 0.5 * height)))
    return finish("monitor", solids)


def _two_monitors(rng: np.random.Generator) -> Item:
    """Two screens beside each other on one bar."""
    width, look = span(rng, 0.4, 0.52), metal(rng)
    height, up = 0.6 * width, span(rng, 0.1, 0.14)
    solids = [
        box(TV, look, (0, 0.2), (-0.1, 0.1), (0, 0.014)),
        cylinder(TV, look, 0.06, 0, (0.01, up + height / 2), 0.02),
        rod(TV, look, (0.06, -width / 2, up + height / 2), (0.06, width / 2, up + height / 2), 0.02),
    ]
    for y in (-width / 2 - 0.005, width / 2 + 0.005):
        solids += [solid.moved(heading(0.0, 0.0, y)) for solid in _screen(rng, width, height, 0.07, up, 0.03)]
    return finish("monitor", solids)


def _laptop(rng: np.random.Generator) -> Item:
    look = metal(rng)
    width, depth = span(rng, 0.3, 0.38), span(rng, 0.21, 0.26)
    y = width / 2
    solids = [box(TV, look, (0, depth), (-y, y), (0, 0.02))]
    solids += _screen(rng, width, 0.62 * width, -0.005, 0.005, 0.014)
    return finish("monitor", solids)


def _straight_curtain(rng: np.random.Generator) -> Item:
    """Drawn aside: folds as boxes that stand out in turn."""
    look = cloth(rng)
    width, height, low = span(rng, 0.22, 0.6), span(rng, 1.95, 2.15), span(rng, 0.0, 0.03)
    folds = max(int(width / 0.09), 3)
    pitch = width / folds
    solids = [
        box(
            OBJECTS,
            look,
            ((0.02, 0.075) if i % 2 else (0.045, 0.1)),
            (i * pitch - 0.005, (i + 1) * pitch + 0.005),
            (low, height),
            0.02,
        )
        for i in range(folds)
    ]
    solids.append(rod(OBJECTS, metal(rng), (0.06, -0.05, height), (0.06, width + 0.05, height), 0.014))
    return finish("curtain", solids)


def _pleated_curtain(rng: np.random.Generator) -> Item:
    """Round folds."""
    look = cloth(rng)
    width, height, r = span(rng, 0.2, 0.5), span(rng, 1.95, 2.15), span(rng, 0.035, 0.05)
    folds = max(int(width / (1.5 * r)), 3)
    solids = [cylinder(OBJECTS, look, r + 0.01, i * 1.5 * r, (0.0, height), r) for i in range(folds)]
    solids.append(box(OBJECTS, paint(rng), (0, 2 * r), (-r, (folds - 1) * 1.5 * r + r), (height - 0.02, height + 0.03)))
    return finish("curtain", solids)


def _tied_curtain(rng: np.random.Generator) -> Item:
    """Gathered in the middle of its height."""
    look = cloth(rng)
    width, height, waist = span(rng, 0.3, 0.5), span(rng, 1.95, 2.15), span(rng, 0.8, 1.1)
    y = width / 2
    solids = [
        box(OBJECTS, look, (0.01, 0.09), (-y, y), (waist + 0.3, height), 0.02),
        box(OBJECTS, look, (0.01, 0.1), (-0.6 * y, 0.6 * y), (waist, waist + 0.34), 0.02),
        box(OBJECTS, cloth(rng), (0.005, 0.11), (-0.45 * y, 0.45 * y), (waist - 0.06, waist + 0.02), 0.02),
        box(OBJECTS, look, (0.01, 0.1), (-0.75 * y, 0.75 * y), (0.0, waist - 0.05), 0.02),
    ]
    return finish("curtain", solids)


def _panel_radiator(rng: np.random.Generator) -> Item:
    look = paint(rng) if chance(rng, 0.3) else Look("plain", (0.95, 0.95, 0.93), shine=0.1)
    width, height, low = span(rng, 0.5, 1.4), span(rng, 0.45, 0.62), span(rng, 0.08, 0.15)
    y, thick = width / 2, span(rng, 0.06, 0.12)
    solids = [box(OBJECTS, look, (0.03, 0.03 + thick), (-y, y), (low, low + height), 0.008)]
    solids.append(rod(OBJECTS, look, (0.05, y - 0.04, 0.0), (0.05, y - 0.04, low + 0.02), 0.014))
    solids += both_sides(box(OBJECTS, look, (0.0, 0.04), (y - 0.12, y - 0.08), (low + 0.1, low + height - 0.1)))
    return finish("radiator", solids)


def _ribbed_radiator(rng: np.random.Generator) -> Item:
    """Cast columns on feet."""
    look = pick(rng, (paint, metal))(rng)
    ribs, pitch, height = int(rng.integers(6, 13)), 0.065, span(rng, 0.55, 0.75)
    solids = [
        box(OBJECTS, look, (0.03, 0.16), (i * pitch, i * pitch + 0.05), (0.06, height), 0.02) for i in range(ribs)
    ]
    end = (ribs - 1) * pitch + 0.05
    for z in (0.12, height - 0.06):
        solids.append(rod(OBJECTS, look, (0.095, 0.0, z), (0.095, end, z), 0.02))
    for at in (0.025, end - 0.025):
        solids.append(box(OBJECTS, look, (0.06, 0.13), (at - 0.02, at + 0.02), (0.0, 0.08)))
    return finish("radiator", solids)


def _tube_radiator(rng: np.random.Generator) -> Item:
    """Level tubes between two uprights, as in a bathroom."""
    look = pick(rng, (paint, metal))(rng)
    width, height, tubes = span(rng, 0.45, 0.7), span(rng, 0.9, 1.5), int(rng.integers(6, 11))
    y = width / 2
    solids = both_sides(box(OBJECTS, look, (0.03, 0.07), (y - 0.02, y + 0.02), (0.1, 0.1 + height)))
    for i in range(tubes):
        z = 0.15 + i * (height - 0.1) / (tubes - 1)
        solids.append(rod(OBJECTS, look, (0.06, -y, z), (0.06, y, z), 0.016))
    solids.append(rod(OBJECTS, look, (0.05, y, 0.0), (0.05, y, 0.12), 0.014))
    solids.append(box(OBJECTS, look, (0.0, 0.04), (-y - 0.01, -y + 0.01), (height - 0.05, height - 0.02)))
    return finish("radiator", solids)


def _disc_lamp(rng: np.random.Generator) -> Item:
    r, height = span(rng, 0.14, 0.28), span(rng, 0.06, 0.12)
    solids = [
        cylinder(OBJECTS, paint(rng), 0, 0, (-0.03, 0), 0.8 * r),
        cylinder(OBJECTS, glow(rng), 0, 0, (-height, -0.02), r),
    ]
    return finish("ceiling_lamp", solids, z="ceiling")


def _pendant_lamp(rng: np.random.Generator) -> Item:
    """A ball or a drum on a cord."""
    drop, r, look = span(rng, 0.15, 0.35), span(rng, 0.1, 0.2), metal(rng)
    solids = [cylinder(OBJECTS, look, 0, 0, (-0.025, 0), 0.05), cylinder(OBJECTS, look, 0, 0, (-drop - 0.02, 0), 0.012)]
    if chance(rng, 0.5):
        solids.append(ellipsoid(OBJECTS, glow(rng), (0, 0, -drop - 0.8 * r), (r, r, 0.8 * r)))
    else:
        solids.append(cylinder(OBJECTS, glow(rng), 0, 0, (-drop - 1.1 * r, -drop), r))
    return finish("ceiling_lamp", solids, z="ceiling")


def _arm_lamp(rng: np.random.Generator) -> Item:
    """Arms with a ball at each end, or a bar with spots."""
    arms, reach, drop, look, shade = (
        int(rng.integers(3, 6)),
        span(rng, 0.18, 0.32),
        span(rng, 0.12, 0.3),
        metal(rng),
        glow(rng),
    )
    r = span(rng, 0.05, 0.08)
    solids = [cylinder(OBJECTS, look, 0, 0, (-0.03, 0), 0.06), cylinder(OBJECTS, look, 0, 0, (-drop, 0), 0.014)]
    for i in range(arms):
        x, y = circle(2 * np.pi * i / arms, reach)
        solids.append(rod(OBJECTS, look, (0, 0, -drop + 0.012), (x, y, -drop + 0.02), 0.012))
        solids.append(ellipsoid(OBJECTS, shade, (x, y, -drop - 0.01), (r, r, r)))
    return finish("ceiling_lamp", solids, z="ceiling")


def _rug(rng: np.random.Generator) -> Item:
    look = Look(pick(rng, ("rug", "rug", "carpet", "stripes")), colour(rng), shine=0.0)
    width = span(rng, 1.2, 2.8)
    depth = span(rng, 0.6, 0.75) * width
    return finish("rug", [box(FLOOR, look, (0, depth), (-width / 2, width / 2), (0, 0.02))])


def _round_rug(rng: np.random.Generator) -> Item:
    look = Look(pick(rng, ("rug", "carpet", "fabric")), colour(rng), shine=0.0)
    return finish("rug", [cylinder(FLOOR, look, 0, 0, (0, 0.02), span(rng, 0.5, 1.1))])


def _framed_picture(rng: np.random.Generator) -> Item:
    width, height, rim = span(rng, 0.25, 1.1), span(rng, 0.25, 0.9), span(rng, 0.015, 0.06)
    look = Look("picture", (1.0, 1.0, 1.0) if chance(rng, 0.7) else colour(rng))
    y = width / 2
    solids = [box(OBJECTS, hard(rng), (0, 0.025), (-y, y), (0, height))]
    solids.append(box(OBJECTS, look, (0.015, 0.028), (-y + rim, y - rim), (rim, height - rim)))
    return finish("picture", solids, z="hangs")


def _canvas(rng: np.random.Generator) -> Item:
    """One canvas without a frame, or three in a row."""
    width, height, count = span(rng, 0.3, 0.9), span(rng, 0.3, 0.9), pick(rng, (1, 1, 3))
    thick, look = span(rng, 0.02, 0.04), Look("picture", (1.0, 1.0, 1.0) if chance(rng, 0.7) else colour(rng))
    if count == 3:
        width *= 0.5
    rail = box(OBJECTS, hard(rng), (0, 0.014), (0, count * (width + 0.04) - 0.04), (0.4 * height, 0.5 * height))
    canvases = [
        box(OBJECTS, look, (0.004, thick), (i * (width + 0.04), i * (width + 0.04) + width), (0, height))
        for i in range(count)
    ]
    return finish("picture", [*canvases, rail] if count > 1 else canvases, z="hangs")


FAMILIES = {
    "tv_wall": (_flat_tv, _bracket_tv, _bar_tv),
    "tv_stand": (_plate_foot_tv, _two_feet_tv, _tube_tv),
    "monitor": (_monitor, _monitor, _two_monitors, _laptop),
    "curtain": (_straight_curtain, _pleated_curtain, _tied_curtain),
    "radiator": (_panel_radiator, _panel_radiator, _ribbed_radiator, _tube_radiator),
    "ceiling_lamp": (_disc_lamp, _pendant_lamp, _arm_lamp),
    "rug": (_rug, _rug, _round_rug),
    "picture": (_framed_picture, _framed_picture, _canvas),
}
