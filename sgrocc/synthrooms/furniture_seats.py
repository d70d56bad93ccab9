"""Chairs, stools, benches, armchairs and sofas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgrocc.labels import CHAIR, SOFA
from sgrocc.synthrooms.furniture_parts import (
    OVERLAP_M,
    both_sides,
    chance,
    circle,
    cloth,
    finish,
    hard,
    metal,
    mirrored_item,
    paint,
    span,
    tilted,
    wood,
)
from sgrocc.synthrooms.scene import Item, Look, Solid, box, cylinder, heading, rod


def _legs(label: int, look: Look, x: tuple, y: float, top_m: float, radius_m: float, splay_m: float) -> list[Solid]:
    """Four legs under (x[0], x[1]) x (-y, y), their feet `splay_m` further out."""
    legs = []
    for at, out in ((x[0], -splay_m), (x[1], splay_m)):
        legs += both_sides(rod(label, look, (at + out, y + splay_m, radius_m), (at, y, top_m), radius_m))
    return legs


def _wooden_chair(rng: np.random.Generator) -> Item:
    """Square legs, the hind ones going up as posts, and boards between them."""
    frame = hard(rng)
    seat_look = frame if chance(rng, 0.5) else cloth(rng)
    depth, width, seat, height = (
        span(rng, 0.4, 0.48),
        span(rng, 0.38, 0.48),
        span(rng, 0.44, 0.48),
        span(rng, 0.8, 1.05),
    )
    t = span(rng, 0.03, 0.045)
    y = width / 2
    solids = [box(CHAIR, seat_look, (0.0, depth), (-y, y), (seat - span(rng, 0.025, 0.05), seat), 0.008)]
    solids += both_sides(box(CHAIR, frame, (0, t), (y - t, y), (0, height)))
    solids += both_sides(box(CHAIR, frame, (depth - t - 0.005, depth - 0.005), (y - t, y), (0, seat - 0.01)))
    boards = int(rng.integers(1, 4))
    pitch = (height - seat - 0.1) / boards
    for i in range(boards):
        top = height - i * pitch
        solids.append(box(CHAIR, frame, (0.005, 0.005 + 0.022), (-y + 0.005, y - 0.005), (top - 0.6 * pitch, top)))
    return finish("dining_chair", solids, clear_m=0.3)


def _shell_chair(rng: np.random.Generator) -> Item:
    """A moulded seat and a leant back on four splayed legs."""
    shell, legs = paint(rng), (wood, metal)[int(rng.integers(2))](rng)
    depth, width, seat = span(rng, 0.42, 0.48), span(rng, 0.44, 0.5), span(rng, 0.43, 0.47)
    height, y = span(rng, 0.32, 0.42), width / 2
    back = box(CHAIR, shell, (0.0, 0.03), (-y + 0.02, y - 0.02), (seat - 0.03, seat + height), 0.012)
    solids = [
        box(CHAIR, shell, (0.0, depth), (-y, y), (seat - 0.035, seat), 0.015),
        tilted(back, span(rng, 0.1, 0.25), 0.015, seat - 0.02),
    ]
    legs_solids = _legs(CHAIR, legs, (0.1, depth - 0.08), y - 0.1, seat - 0.02, span(rng, 0.015, 0.02), 0.05)
    return finish("dining_chair", solids + legs_solids, clear_m=0.3)


def _upholstered_chair(rng: np.random.Generator) -> Item:
    """A thick cushion and a padded back."""
    look, legs = cloth(rng), hard(rng)
    depth, width, seat, height = (
        span(rng, 0.46, 0.54),
        span(rng, 0.44, 0.5),
        span(rng, 0.45, 0.5),
        span(rng, 0.85, 1.05),
    )
    y, thick = width / 2, span(rng, 0.07, 0.12)
    back = box(CHAIR, look, (0.0, 0.08), (-y, y), (seat - thick, height), 0.03)
    solids = [box(CHAIR, look, (0.02, depth), (-y, y), (seat - thick, seat), 0.03)]
    solids.append(tilted(back, span(rng, 0.0, 0.12), 0.04, seat - thick))
    solids += _legs(CHAIR, legs, (0.05, depth - 0.05), y - 0.05, seat - thick + 0.03, span(rng, 0.015, 0.022), 0.01)
    return finish("dining_chair", solids, clear_m=0.3)


def _cantilever_chair(rng: np.random.Generator) -> Item:
    """Steel tubes: runners on the floor, up at the front, back along the seat, up again behind."""
    tube, look = metal(rng), cloth(rng) if chance(rng, 0.5) else hard(rng)
    depth, width, seat, height = (
        span(rng, 0.44, 0.5),
        span(rng, 0.42, 0.48),
        span(rng, 0.44, 0.48),
        span(rng, 0.78, 0.9),
    )
    r, y = 0.016, width / 2
    solids = [
        box(CHAIR, look, (0.03, depth), (-y, y), (seat - 0.03, seat + 0.015), 0.01),
        box(CHAIR, look, (0.0, 0.03), (-y, y), (height - span(rng, 0.2, 0.3), height), 0.01),
    ]
    solids += both_sides(rod(CHAIR, tube, (0.02, y - r, r), (depth, y - r, r), r))
    solids += both_sides(rod(CHAIR, tube, (depth - r, y - r, 0.0), (depth - r, y - r, seat), r))
    solids += both_sides(rod(CHAIR, tube, (0.045, y - r, seat - 0.02), (0.02, y - r, height - 0.05), r))
    return finish("dining_chair", solids, clear_m=0.3)


def _star(look: Look, radius_m: float, z: float, arms: int = 5) -> list[Solid]:
    """The foot of a swivel chair, its middle at x = y = 0: arms that end in castors."""
    solids = []
    for i in range(arms):
        x, y = circle(2 * np.pi * i / arms, radius_m)
        solids.append(rod(CHAIR, look, (0, 0, z), (x, y, 0.03), 0.022))
    return solids


def _swivel_chair(rng: np.random.Generator) -> Item:
    """Seat, leant back, with or without armrests."""
    look, foot = cloth(rng), Look("plain", (0.1, 0.1, 0.11)) if chance(rng, 0.5) else metal(rng)
    depth, width, seat = span(rng, 0.44, 0.5), span(rng, 0.46, 0.52), span(rng, 0.44, 0.52)
    x0, x1, y = -depth / 2, depth / 2, width / 2
    back = box(
        CHAIR,
        look,
        (x0, x0 + span(rng, 0.05, 0.09)),
        (-y + 0.02, y - 0.02),
        (seat + 0.08, seat + span(rng, 0.45, 0.7)),
        0.02,
    )
    solids = _star(foot, span(rng, 0.27, 0.31), 0.1)
    solids.append(cylinder(CHAIR, foot, 0, 0, (0.07, seat - 0.05), 0.03))
    solids.append(box(CHAIR, look, (x0, x1), (-y, y), (seat - span(rng, 0.06, 0.09), seat), 0.025))
    solids.append(tilted(back, span(rng, 0.05, 0.2), x0 + 0.03, seat))
    solids.append(box(CHAIR, foot, (x0, x0 + 0.03), (-0.04, 0.04), (seat - 0.05, seat + 0.2)))
    if chance(rng, 0.5):
        # An L of post and rest would need four solids: one block each side does.
        solids += both_sides(box(CHAIR, foot, (-0.12, 0.1), (y - 0.015, y + 0.03), (seat - 0.04, seat + 0.18), 0.01))
        solids.pop(4)
    return finish("office_chair", solids, clear_m=0.4)


def _mesh_chair(rng: np.random.Generator) -> Item:
    """A thin high back with a headrest, a round seat post."""
    look, back_look, foot = cloth(rng), paint(rng), metal(rng)
    depth, width, seat = span(rng, 0.46, 0.5), span(rng, 0.46, 0.5), span(rng, 0.45, 0.52)
    x0, y, top = -depth / 2, width / 2, span(rng, 0.55, 0.62)
    angle = span(rng, 0.05, 0.15)
    back = box(CHAIR, back_look, (x0, x0 + 0.03), (-y + 0.03, y - 0.03), (seat - 0.02, seat + top), 0.01)
    head = box(CHAIR, look, (x0 - 0.01, x0 + 0.05), (-0.13, 0.13), (seat + top - 0.03, seat + top + 0.14), 0.02)
    solids = _star(foot, span(rng, 0.28, 0.31), 0.1)
    solids.append(cylinder(CHAIR, foot, 0, 0, (0.07, seat - 0.05), 0.028))
    solids.append(box(CHAIR, look, (x0, -x0), (-y, y), (seat - 0.07, seat), 0.025))
    solids += [tilted(part, angle, x0 + 0.015, seat) for part in (back, head)]
    return finish("office_chair", solids, clear_m=0.4)


def _visitor_chair(rng: np.random.Generator) -> Item:
    """An office chair that does not swivel: a bucket on a round foot plate."""
    look, foot = cloth(rng), metal(rng)
    width, seat = span(rng, 0.5, 0.58), span(rng, 0.43, 0.48)
    y = width / 2
    solids = [
        cylinder(CHAIR, foot, 0, 0, (0, 0.025), span(rng, 0.22, 0.26)),
        cylinder(CHAIR, foot, 0, 0, (0.01, seat - 0.05), 0.03),
        box(CHAIR, look, (-0.24, 0.26), (-y, y), (seat - 0.08, seat), 0.03),
        box(CHAIR, look, (-0.28, -0.2), (-y, y), (seat - 0.08, seat + span(rng, 0.32, 0.42)), 0.03),
    ]
    solids += both_sides(box(CHAIR, look, (-0.22, 0.12), (y - 0.05, y), (seat - 0.08, seat + 0.2), 0.02))
    return finish("office_chair", solids, clear_m=0.4)


def _padded_sofa(rng: np.random.Generator) -> Item:
    """Base, seat and back cushions, block arms."""
    look = cloth(rng)
    cushion = look if chance(rng, 0.7) else cloth(rng)
    seats = int(rng.integers(2, 4))
    pitch, arm, depth = span(rng, 0.56, 0.72), span(rng, 0.12, 0.24), span(rng, 0.82, 1.0)
    seat, height, foot = span(rng, 0.4, 0.46), span(rng, 0.72, 0.92), 0.06
    inner = seats * pitch / 2
    solids = [
        box(SOFA, look, (0.02, depth - 0.02), (-inner - arm + 0.02, inner + arm - 0.02), (0, foot + OVERLAP_M)),
        box(SOFA, look, (0, depth - 0.03), (-inner - OVERLAP_M, inner + OVERLAP_M), (foot, seat - 0.12)),
        box(SOFA, look, (0, span(rng, 0.16, 0.22)), (-inner - OVERLAP_M, inner + OVERLAP_M), (foot, height), 0.05),
    ]
    arm_top = span(rng, seat + 0.1, height - 0.04)
    solids += both_sides(box(SOFA, look, (0, depth), (inner, inner + arm), (foot, arm_top), 0.04))
    back_cushions = chance(rng, 0.7)
    for i in range(seats):
        y = (-inner + i * pitch + 0.004, -inner + (i + 1) * pitch - 0.004)
        solids.append(box(SOFA, cushion, (0.12, depth), y, (seat - 0.14, seat), 0.04))
        if back_cushions:
            solids.append(box(SOFA, cushion, (0.12, 0.32), y, (seat - 0.02, height - 0.02), 0.06))
    return finish("sofa", solids, clear_m=0.5)


def _legged_sofa(rng: np.random.Generator) -> Item:
    """A light sofa: one seat board and a slim back on visible legs, thin arms."""
    look, leg = cloth(rng), hard(rng)
    width, depth, seat = span(rng, 1.3, 2.1), span(rng, 0.74, 0.88), span(rng, 0.4, 0.45)
    height, y, arm = span(rng, 0.7, 0.85), width / 2, span(rng, 0.06, 0.1)
    back = box(SOFA, look, (0, 0.14), (-y + arm - OVERLAP_M, y - arm + OVERLAP_M), (seat - 0.1, height), 0.04)
    solids = [
        box(SOFA, look, (0.02, depth), (-y, y), (seat - 0.2, seat - 0.08)),
        box(SOFA, look, (0.05, depth), (-y + arm, y - arm), (seat - 0.1, seat), 0.04),
        tilted(back, span(rng, 0.0, 0.15), 0.07, seat - 0.1),
    ]
    solids += both_sides(box(SOFA, look, (0.02, depth), (y - arm, y), (seat - 0.2, seat + span(rng, 0.12, 0.2)), 0.02))
    solids += _legs(SOFA, leg, (0.1, depth - 0.1), y - 0.1, seat - 0.18, span(rng, 0.018, 0.03), 0.03)
    if chance(rng, 0.5):
        solids.append(
            box(SOFA, cloth(rng), (0.12, 0.24), (y - arm - 0.45, y - arm - 0.03), (seat - 0.02, seat + 0.36), 0.05)
        )
    return finish("sofa", solids, clear_m=0.5)


def _round_armed_sofa(rng: np.random.Generator) -> Item:
    """An old-fashioned one: rolled arms and a rolled back."""
    look = cloth(rng)
    width, depth, seat, height = span(rng, 1.5, 2.2), span(rng, 0.85, 0.98), span(rng, 0.42, 0.48), span(rng, 0.78, 0.9)
    y, r = width / 2, span(rng, 0.09, 0.13)
    inner = y - 2 * r
    solids = [
        box(SOFA, look, (0.03, depth), (-y + 0.03, y - 0.03), (0.0, seat - 0.12)),
        box(SOFA, look, (0.1, depth + 0.02), (-inner - 0.01, -0.003), (seat - 0.14, seat), 0.05),
        box(SOFA, look, (0.1, depth + 0.02), (0.003, inner + 0.01), (seat - 0.14, seat), 0.05),
        box(SOFA, look, (0.02, 0.24), (-inner - r, inner + r), (seat - 0.14, height - 0.05), 0.04),
        rod(SOFA, look, (0.12, -inner - r, height - 0.08), (0.12, inner + r, height - 0.08), 0.1),
    ]
    solids += both_sides(box(SOFA, look, (0.03, depth), (inner, y - 0.03), (0.05, seat + 0.1), 0.02))
    solids += both_sides(rod(SOFA, look, (0.03, y - r, seat + 0.1), (depth, y - r, seat + 0.1), r))
    return finish("sofa", solids, clear_m=0.5)


def _leg_stool(rng: np.random.Generator, kind: str, seat: float, splay_m: float) -> Item:
    """A round seat on three or four legs."""
    look, leg = (cloth(rng) if chance(rng, 0.4) else hard(rng)), hard(rng)
    r, legs = span(rng, 0.15, 0.19), int(rng.integers(3, 5))
    solids = [cylinder(CHAIR, look, 0, 0, (seat - span(rng, 0.03, 0.07), seat), r)]
    for i in range(legs):
        (x, y), (foot_x, foot_y) = (circle(2 * np.pi * i / legs, radius) for radius in (r - 0.03, r - 0.03 + splay_m))
        solids.append(rod(CHAIR, leg, (foot_x, foot_y, 0.016), (x, y, seat - 0.02), 0.017))
    return finish(kind, solids, clear_m=0.3)


def _round_stool(rng: np.random.Generator) -> Item:
    return _leg_stool(rng, "stool", span(rng, 0.42, 0.5), span(rng, 0.0, 0.05))


def _high_stool(rng: np.random.Generator) -> Item:
    return _leg_stool(rng, "bar_stool", span(rng, 0.62, 0.76), span(rng, 0.0, 0.04))


def _square_stool(rng: np.random.Generator) -> Item:
    look, leg = (cloth(rng) if chance(rng, 0.5) else hard(rng)), hard(rng)
    half, seat, t = span(rng, 0.16, 0.21), span(rng, 0.4, 0.5), 0.035
    solids = [box(CHAIR, look, (-half, half), (-half, half), (seat - span(rng, 0.03, 0.06), seat), 0.01)]
    for x in (-half + 0.005, half - t - 0.005):
        solids += both_sides(box(CHAIR, leg, (x, x + t), (half - t - 0.005, half - 0.005), (0, seat - 0.02)))
    return finish("stool", solids, clear_m=0.3)


def _pouf(rng: np.random.Generator) -> Item:
    """A padded drum or cube."""
    look, size, seat = cloth(rng), span(rng, 0.2, 0.28), span(rng, 0.36, 0.46)
    if chance(rng, 0.5):
        solid = cylinder(CHAIR, look, 0, 0, (0, seat), size)
    else:
        solid = box(CHAIR, look, (-size, size), (-size, size), (0, seat), 0.05)
    return finish("stool", [solid], clear_m=0.3)


def _bar_stool(rng: np.random.Generator) -> Item:
    """A seat with a low back on a post and a round foot."""
    look, foot = cloth(rng), metal(rng)
    seat = span(rng, 0.62, 0.78)
    solids = [
        cylinder(CHAIR, foot, 0, 0, (0, 0.02), span(rng, 0.18, 0.22)),
        cylinder(CHAIR, foot, 0, 0, (0.01, seat - 0.04), 0.03),
        cylinder(CHAIR, look, 0, 0, (seat - 0.07, seat), span(rng, 0.17, 0.2)),
        box(CHAIR, look, (-0.2, -0.15), (-0.15, 0.15), (seat - 0.06, seat + span(rng, 0.1, 0.25)), 0.02),
    ]
    return finish("bar_stool", solids, clear_m=0.3)


def _plank_bench(rng: np.random.Generator) -> Item:
    """A board on two sides."""
    look = hard(rng)
    depth, width, seat = span(rng, 0.28, 0.4), span(rng, 0.9, 1.6), span(rng, 0.43, 0.48)
    y, side = width / 2, span(rng, 0.02, 0.05)
    solids = [box(CHAIR, look, (0, depth), (-y, y), (seat - 0.04, seat))]
    solids += both_sides(box(CHAIR, look, (0.02, depth - 0.02), (y - 0.1 - side, y - 0.1), (0, seat - 0.03)))
    if chance(rng, 0.5):
        solids.append(box(CHAIR, look, (depth / 2 - 0.015, depth / 2 + 0.015), (-y + 0.11, y - 0.11), (0.15, 0.22)))
    return finish("bench", solids, clear_m=0.4)


def _backed_bench(rng: np.random.Generator) -> Item:
    """With a back of level boards, as on a veranda."""
    look = hard(rng)
    depth, width, seat, height = span(rng, 0.42, 0.52), span(rng, 1.0, 1.6), span(rng, 0.42, 0.46), span(rng, 0.8, 0.95)
    y, t = width / 2, 0.04
    solids = [box(CHAIR, look, (0.02, depth), (-y, y), (seat - 0.03, seat))]
    solids += both_sides(box(CHAIR, look, (0, t), (y - t, y), (0, height)))
    solids += both_sides(box(CHAIR, look, (depth - t, depth), (y - t, y), (0, seat - 0.02)))
    for i in range(int(rng.integers(2, 4))):
        top = height - 0.02 - i * 0.13
        solids.append(box(CHAIR, look, (0.005, 0.03), (-y + 0.01, y - 0.01), (top - 0.09, top)))
    return finish("bench", solids, clear_m=0.4)


def _padded_bench(rng: np.random.Generator) -> Item:
    """What stands at the foot of a bed: a long cushion on four legs."""
    look, leg = cloth(rng), hard(rng)
    depth, width, seat, thick = span(rng, 0.36, 0.48), span(rng, 0.9, 1.4), span(rng, 0.42, 0.5), span(rng, 0.08, 0.16)
    solids = [box(CHAIR, look, (0, depth), (-width / 2, width / 2), (seat - thick, seat), 0.03)]
    solids += _legs(CHAIR, leg, (0.06, depth - 0.06), width / 2 - 0.08, seat - thick + 0.03, 0.02, 0.01)
    return finish("bench", solids, clear_m=0.4)


def _block_armchair(rng: np.random.Generator, kind: str, label: int, inner: float) -> Item:
    """A small sofa for one: block arms."""
    look = cloth(rng)
    cushion = look if chance(rng, 0.7) else cloth(rng)
    depth, seat, height = span(rng, 0.74, 0.9), span(rng, 0.4, 0.45), span(rng, 0.74, 0.95)
    arm = span(rng, 0.1, 0.14) if label == CHAIR else span(rng, 0.15, 0.22)
    y = inner / 2
    solids = [
        box(label, look, (0, depth - 0.03), (-y - OVERLAP_M, y + OVERLAP_M), (0.0, seat - 0.12)),
        box(label, look, (0, span(rng, 0.16, 0.22)), (-y - OVERLAP_M, y + OVERLAP_M), (0.05, height), 0.05),
        box(label, cushion, (0.12, depth), (-y + 0.004, y - 0.004), (seat - 0.14, seat), 0.04),
    ]
    if chance(rng, 0.6):
        solids.append(box(label, cushion, (0.12, 0.3), (-y + 0.01, y - 0.01), (seat - 0.02, height - 0.04), 0.06))
    return finish(
        kind,
        solids + both_sides(box(label, look, (0, depth), (y, y + arm), (0.02, seat + span(rng, 0.14, 0.22)), 0.04)),
        clear_m=0.5,
    )


def _wing_armchair(rng: np.random.Generator, kind: str, label: int, inner: float) -> Item:
    """A high back with wings, on short legs."""
    look, leg = cloth(rng), hard(rng)
    depth, seat, height = span(rng, 0.72, 0.85), span(rng, 0.42, 0.46), span(rng, 0.98, 1.12)
    arm, y = span(rng, 0.09, 0.12), inner / 2
    if label == SOFA:
        arm += 0.05
    solids = [
        box(label, look, (0.02, depth), (-y - OVERLAP_M, y + OVERLAP_M), (0.16, seat), 0.04),
        box(label, look, (0, 0.16), (-y - OVERLAP_M, y + OVERLAP_M), (0.18, height), 0.05),
    ]
    solids += both_sides(box(label, look, (0.04, depth - 0.02), (y, y + arm), (0.18, seat + 0.18), 0.03))
    solids += both_sides(box(label, look, (0.03, 0.28), (y, y + 0.07), (seat + 0.1, height - 0.05), 0.03))
    return finish(kind, solids + _legs(label, leg, (0.08, depth - 0.08), y, 0.2, 0.022, 0.01), clear_m=0.5)


def _framed_armchair(rng: np.random.Generator, kind: str, label: int, inner: float) -> Item:
    """Cushions in an open frame of wood or steel."""
    look, frame = cloth(rng), hard(rng)
    depth, seat, height, t = span(rng, 0.7, 0.82), span(rng, 0.4, 0.44), span(rng, 0.78, 0.95), 0.045
    y, arm_top = inner / 2, seat + span(rng, 0.14, 0.2)
    if label == SOFA:
        t = 0.09
    back = box(label, look, (0.0, 0.15), (-y, y), (seat - 0.08, height), 0.05)
    solids = [
        box(label, look, (0.04, depth), (-y, y), (seat - 0.15, seat), 0.04),
        tilted(back, span(rng, 0.1, 0.25), 0.08, seat - 0.08),
    ]
    for x in (0.1, depth - t - 0.01):
        solids += both_sides(box(label, frame, (x, x + t), (y - 0.005, y + t), (0, arm_top)))
    solids += both_sides(box(label, frame, (0.06, depth), (y - 0.005, y + t), (arm_top - 0.03, arm_top)))
    return finish(kind, solids, clear_m=0.5)


def _bucket_chair(rng: np.random.Generator) -> Item:
    """A round seat with a shell about it, on legs."""
    look, leg, r, seat = cloth(rng), hard(rng), span(rng, 0.3, 0.36), span(rng, 0.42, 0.46)
    height, wall = seat + span(rng, 0.24, 0.36), 0.06
    solids = [cylinder(CHAIR, look, 0, 0, (seat - 0.14, seat), r)]
    for i in range(5):
        # Five staves from arm over back to arm.
        stave = box(CHAIR, look, (r - wall, r), (-0.36 * r, 0.36 * r), (seat - 0.1, height), 0.02)
        solids.append(stave.moved(heading(np.pi / 2 + np.pi / 4 * i)))
    for i in range(4):
        x, y = circle(np.pi / 4 + np.pi / 2 * i, 0.7 * r)
        solids.append(rod(CHAIR, leg, (1.2 * x, 1.2 * y, 0.016), (x, y, seat - 0.12), 0.018))
    return finish("armchair_small", solids, clear_m=0.4)


def _long_chair(rng: np.random.Generator) -> Item:
    """A low lounge chair, leant far back."""
    look, frame = cloth(rng), hard(rng)
    width, depth, seat, r = span(rng, 0.56, 0.66), span(rng, 0.6, 0.7), span(rng, 0.36, 0.41), 0.02
    y = width / 2
    back = box(CHAIR, look, (0, 0.08), (-y + 0.03, y - 0.03), (seat - 0.08, seat + span(rng, 0.5, 0.65)), 0.03)
    solids = [
        box(CHAIR, look, (0, depth), (-y + 0.03, y - 0.03), (seat - 0.09, seat), 0.03),
        tilted(back, span(rng, 0.3, 0.5), 0.04, seat - 0.05),
    ]
    for x in (0.05, depth - 0.08):
        solids += both_sides(rod(CHAIR, frame, (x, y - r - 0.005, 0.0), (x, y - r - 0.005, seat + 0.17), r))
    solids += both_sides(box(CHAIR, frame, (-0.02, depth), (y - 0.045, y), (seat + 0.16, seat + 0.185)))
    return finish("armchair_small", solids, clear_m=0.5)


def _corner_sofa(rng: np.random.Generator) -> Item:
    """A long sofa whose one end comes forward as a couch; the other has an arm."""
    look = cloth(rng)
    cushion = look if chance(rng, 0.7) else cloth(rng)
    width, depth, couch = span(rng, 2.0, 2.7), span(rng, 0.82, 0.95), span(rng, 0.7, 0.9)
    length, seat, height, arm = span(rng, 1.35, 1.7), span(rng, 0.4, 0.45), span(rng, 0.7, 0.85), span(rng, 0.14, 0.2)
    y = width / 2
    seats = int(rng.integers(2, 4))
    pitch = (width - couch - arm) / seats
    solids = [
        box(SOFA, look, (0, depth - 0.02), (-y, y), (0, seat - 0.12)),
        box(SOFA, look, (depth - 0.03, length - 0.02), (-y, -y + couch), (0, seat - 0.12)),
        box(SOFA, look, (0, 0.2), (-y, y), (0.04, height), 0.05),
        box(SOFA, look, (0, depth), (y - arm, y), (0.04, seat + 0.18), 0.04),
        box(SOFA, cushion, (0.14, length), (-y, -y + couch), (seat - 0.14, seat), 0.04),
    ]
    for i in range(seats):
        at = -y + couch + i * pitch
        solids.append(box(SOFA, cushion, (0.14, depth), (at + 0.004, at + pitch - 0.004), (seat - 0.14, seat), 0.04))
    if chance(rng, 0.6):
        for low, high in ((-y + 0.03, -y + couch), (-y + couch + 0.01, -y + couch + pitch)):
            solids.append(box(SOFA, cushion, (0.14, 0.34), (low, high), (seat - 0.02, height + 0.03), 0.06))
    item = finish("corner_sofa", solids, clear_m=0.4)
    return mirrored_item(item) if chance(rng, 0.5) else item


def _l_sofa(rng: np.random.Generator) -> Item:
    """Two wings with backs on both outer sides."""
    look = cloth(rng)
    width, length, depth = span(rng, 2.0, 2.6), span(rng, 1.7, 2.2), span(rng, 0.8, 0.92)
    seat, height, back = span(rng, 0.4, 0.45), span(rng, 0.68, 0.85), span(rng, 0.18, 0.24)
    y = width / 2
    solids = [
        box(SOFA, look, (0.02, depth), (-y + 0.02, y), (0, seat - 0.12)),
        box(SOFA, look, (depth - 0.02, length), (-y + 0.02, -y + depth), (0, seat - 0.12)),
        box(SOFA, look, (0, back), (-y, y), (0.03, height), 0.05),
        box(SOFA, look, (0, length), (-y, -y + back), (0.03, height), 0.05),
        box(SOFA, look, (back - 0.03, depth), (-y + depth, y), (seat - 0.14, seat), 0.04),
        box(SOFA, look, (back - 0.03, length), (-y + back - 0.03, -y + depth), (seat - 0.14, seat), 0.04),
        box(SOFA, cloth(rng), (back - 0.02, back + 0.14), (y - 0.55, y - 0.12), (seat - 0.02, seat + 0.35), 0.05),
    ]
    if chance(rng, 0.6):
        solids.append(box(SOFA, look, (0, depth + 0.01), (y - 0.02, y + 0.12), (0.03, seat + 0.16), 0.03))
    item = finish("corner_sofa", solids, clear_m=0.4)
    return mirrored_item(item) if chance(rng, 0.5) else item


def _small(shape: Callable) -> Callable[[np.random.Generator], Item]:
    """At most 0.8 m wide: a chair."""
    return lambda rng: shape(rng, "armchair_small", CHAIR, span(rng, 0.46, 0.51))


def _large(shape: Callable) -> Callable[[np.random.Generator], Item]:
    """Wider than 0.8 m: a sofa."""
    return lambda rng: shape(rng, "armchair", SOFA, span(rng, 0.64, 0.74))


FAMILIES = {
    "dining_chair": (_wooden_chair, _shell_chair, _upholstered_chair, _cantilever_chair),
    "office_chair": (_swivel_chair, _mesh_chair, _visitor_chair),
    "stool": (_round_stool, _square_stool, _pouf),
    "bar_stool": (_high_stool, _bar_stool),
    "bench": (_plank_bench, _backed_bench, _padded_bench),
    "armchair_small": (_small(_block_armchair), _small(_framed_armchair), _bucket_chair, _long_chair),
    "armchair": (_large(_block_armchair), _large(_wing_armchair), _large(_framed_armchair)),
    "sofa": (_padded_sofa, _legged_sofa, _round_armed_sofa),
    "corner_sofa": (_corner_sofa, _l_sofa),
}
