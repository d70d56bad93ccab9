"""What all furniture is made with: random draws, materials, and the step from solids to an Item.

Materials are shared by all classes, so that a colour or a texture does not tell what a thing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from sgrocc.geometry import Pose
from sgrocc.synthrooms.scene import MIN_THICKNESS_M, Item, Look, Solid, heading

T = TypeVar("T")

#: Cushions and legs go this far into what carries them, so that nothing floats.
OVERLAP_M = 0.01

#: Each box of an item is this much smaller on every side than the one before, so that no two have a face in one plane:
#: a drawing could not tell which of the two is in front.
_STEP_M = 0.00005

_WOODS = (
    (0.86, 0.74, 0.56),  # birch
    (0.78, 0.60, 0.40),  # oak
    (0.66, 0.46, 0.28),  # cherry
    (0.50, 0.33, 0.20),  # walnut
    (0.33, 0.22, 0.15),  # wenge
    (0.72, 0.67, 0.60),  # washed grey
    (0.93, 0.88, 0.80),  # limed
)
_METALS = ((0.78, 0.79, 0.80), (0.55, 0.56, 0.58), (0.14, 0.14, 0.15), (0.80, 0.66, 0.42), (0.92, 0.92, 0.92))
_NEUTRALS = ((0.95, 0.94, 0.92), (0.82, 0.80, 0.76), (0.55, 0.54, 0.53), (0.30, 0.30, 0.32), (0.10, 0.10, 0.11))


def span(rng: np.random.Generator, low: float, high: float) -> float:
    """A length between `low` and `high`, in whole millimetres. (rng.uniform's last bits depend on the processor.)"""
    return round(low + (high - low) * float(rng.random()), 3)


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    return float(rng.random()) < probability


def colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Any colour: a third are greys and whites, the others have any hue, mostly muted."""
    if chance(rng, 0.35):
        return _near(rng, pick(rng, _NEUTRALS))
    hue, strength, value = 6.0 * float(rng.random()), float(rng.random()), span(rng, 0.3, 0.95)
    saturation = 0.08 + 0.67 * strength * strength
    return tuple(
        round(value * (1.0 - saturation * min(max(2.0 - abs((hue - offset) % 6.0 - 3.0), 0.0), 1.0)), 3)
        for offset in (3.0, 5.0, 1.0)
    )


def wood(rng: np.random.Generator) -> Look:
    return Look("wood", _near(rng, pick(rng, _WOODS)), shine=span(rng, 0.02, 0.2))


def metal(rng: np.random.Generator) -> Look:
    return Look("metal", _near(rng, pick(rng, _METALS)), shine=span(rng, 0.2, 0.6))


def paint(rng: np.random.Generator) -> Look:
    """Lacquer or plastic of any colour."""
    return Look("plain", colour(rng), shine=span(rng, 0.02, 0.3))


def cloth(rng: np.random.Generator) -> Look:
    """What upholstery, bedding and curtains are covered with."""
    texture = pick(rng, ("fabric", "fabric", "fabric", "plaid", "stripes", "leather", "plain"))
    return Look(texture, colour(rng), shine=0.15 if texture == "leather" else 0.01)


def hard(rng: np.random.Generator) -> Look:
    """What cabinets, boards and frames are made of: wood, lacquer, seldom metal."""
    return pick(rng, (wood, wood, wood, paint, paint, metal))(rng)


def glow(rng: np.random.Generator) -> Look:
    """A lamp's shade, lit or not."""
    warm = pick(rng, ((1.0, 0.95, 0.85), (1.0, 0.98, 0.95), (1.0, 0.88, 0.7)))
    return Look("plain", warm, emission=span(rng, 0.6, 1.0)) if chance(rng, 0.6) else Look("fabric", colour(rng))


def tilted(solid: Solid, angle_rad: float, x: float, z: float) -> Solid:
    """The solid leant back by `angle_rad` about the line along y through (x, z): what is above goes to -x."""
    yaw = heading(-angle_rad).rotation
    c, s = yaw[0, 0], yaw[0, 1]
    rotation = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    pivot = np.array([x, 0.0, z])
    moved = replace(solid, centre=solid.centre - pivot).moved(Pose(rotation, np.zeros(3)))
    return replace(moved, centre=moved.centre + pivot)


def mirrored(solid: Solid) -> Solid:
    """The same solid on the other side of the plane y = 0."""
    flip = np.array([1.0, -1.0, 1.0])
    # Each axis of a shape may change its sign: shapes are symmetric. Flipping y on both sides keeps it a rotation.
    return replace(solid, centre=solid.centre * flip, rotation=solid.rotation * flip[:, None] * flip[None, :])


def mirrored_item(item: Item) -> Item:
    """The item as in a mirror: left and right change places."""
    slots = tuple(
        (kind, Pose(pose.rotation.T, pose.translation * np.array([1.0, -1.0, 1.0]))) for kind, pose in item.slots
    )
    return replace(item, solids=tuple(mirrored(solid) for solid in item.solids), slots=slots)


def both_sides(solid: Solid) -> list[Solid]:
    return [solid, mirrored(solid)]


def circle(angle_rad: float, radius_m: float) -> tuple[float, float]:
    """(x, y) of the point at an angle on a circle."""
    direction = heading(angle_rad).rotation
    return radius_m * float(direction[0, 0]), radius_m * float(direction[1, 0])


def finish(
    kind: str,
    solids: Iterable[Solid],
    *,
    clear_m: float = 0.0,
    top_m: float | None = None,
    slots: Iterable[tuple[str, Pose]] = (),
    z: str = "stands",
) -> Item:
    """An Item of solids that may have been planned with any origin along x and y: shifted so that its back is x = 0
    and its middle y = 0. z: "stands" (the lowest point becomes z = 0), "hangs" (z = 0 the middle of its height) or
    "ceiling" (z = 0 its highest point); `top_m` and slots are shifted along, but slots on the floor (z = 0) stay on it.
    """
    solids = tuple(_shrunk(solid, i * _STEP_M) for i, solid in enumerate(solids))
    bounds = np.array([solid.bounds() for solid in solids])
    low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
    zero = {"stands": low[2], "hangs": (low[2] + high[2]) / 2, "ceiling": high[2]}[z]
    shift = -np.array([low[0], (low[1] + high[1]) / 2, zero])
    return Item(
        kind,
        tuple(replace(solid, centre=solid.centre + shift) for solid in solids),
        tuple(round(float(size), 6) for size in high - low),
        clear_m,
        None if top_m is None else round(float(top_m + shift[2]), 6),
        tuple((slot, _shifted(pose, shift)) for slot, pose in slots),
    )


def _shrunk(solid: Solid, by_m: float) -> Solid:
    if solid.shape != "box":
        return solid
    half = np.maximum(solid.half - by_m, np.minimum(solid.half, MIN_THICKNESS_M / 2))
    return replace(solid, half=half, rounding_m=min(solid.rounding_m, float(half.min())))


def _shifted(pose: Pose, shift: np.ndarray) -> Pose:
    on_floor = pose.translation[2] == 0.0
    return Pose(pose.rotation, np.round(pose.translation + (shift * (1.0, 1.0, 0.0) if on_floor else shift), 6))


def _near(rng: np.random.Generator, rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    brightness = span(rng, 0.88, 1.08)
    return tuple(round(min(value * brightness + span(rng, -0.03, 0.03), 1.0), 3) for value in rgb)
