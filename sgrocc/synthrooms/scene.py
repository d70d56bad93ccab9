"""What a room is made of: solids with a class, pieces they belong to, and how pieces move.

Frames: the *room frame* is the one a scene is planned in: z up, the floor's upper side at z = 0, walls along the axes.
The *world frame* is the one that is written: `Scene.world_from_room` turns and shifts the room in it, so that no wall
keeps the voxel grid's rhythm by design. Lengths are metres.

Everything that decides a label is computed with plain arithmetic on float64 arrays (no matrix products, whose last bits
depend on the processor), so that a seed gives the same labels everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgrocc.geometry import Pose

SHAPES = ("box", "cylinder", "ellipsoid")

#: Nothing is thinner than this, so that a sample every 2 cm never misses it by much.
MIN_THICKNESS_M = 0.012

#: Lengths and angles are rounded to this before use: the last bits of sin and cos differ between C libraries.
_DECIMALS = 9


@dataclass(frozen=True)
class Look:
    """How a surface is drawn. texture: a name of `textures.TEXTURES`; rgb: tint in 0..1; emission: 0 (lit only) to 1
    (glows by itself); shine: specular share, 0 to 1. It never decides a label.
    """

    texture: str
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    emission: float = 0.0
    shine: float = 0.05


@dataclass(frozen=True, eq=False)
class Solid:
    """One filled primitive of one class.

    shape: "box", "cylinder" (along its local z) or "ellipsoid"; half: (3,) half sizes, of a cylinder (radius, radius,
    half length); centre: (3,); rotation: (3, 3) local to parent; rounding_m: radius of a box's edges; label: 1..11;
    piece: the object, or panel of a wall, that it belongs to (-1 until a scene gives it one).
    """

    shape: str
    label: int
    look: Look
    centre: np.ndarray
    half: np.ndarray
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    rounding_m: float = 0.0
    piece: int = -1

    def __post_init__(self) -> None:
        for name in ("centre", "half", "rotation"):
            object.__setattr__(self, name, np.round(np.asarray(getattr(self, name), np.float64), _DECIMALS))
        if self.shape not in SHAPES:
            raise ValueError(f"there is no shape {self.shape!r}: use one of {', '.join(SHAPES)}")
        if not 1 <= self.label <= 11:
            raise ValueError(f"a solid has a label from 1 to 11, not {self.label}: see sgrocc.labels")
        if not (2 * self.half >= MIN_THICKNESS_M - 1e-9).all():
            raise ValueError(
                f"a {self.shape} of {np.round(2 * self.half, 4).tolist()} m is too thin for a voxel to notice: "
                f"make it at least {MIN_THICKNESS_M} m thick"
            )

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance of (..., 3) points to the surface, metres, negative inside; (...) float64.

        Exact for boxes and cylinders. For ellipsoids the sign is exact and the size a lower bound outside and inside.
        """
        # Coordinate by coordinate: three times as fast as on arrays whose last axis is 3.
        x, y, z = (points[..., i] - self.centre[i] for i in range(3))
        r, half = self.rotation, self.half
        x, y, z = (x * r[0, i] + y * r[1, i] + z * r[2, i] for i in range(3))
        if self.shape == "ellipsoid":
            # |p / half| - 1 changes by at most 1 / min(half) per metre.
            return (_length(x / half[0], y / half[1], z / half[2]) - 1.0) * half.min()
        if self.shape == "cylinder":
            x, y, z = np.sqrt(x * x + y * y) - half[0], None, np.abs(z) - half[2]
        else:
            x, y, z = (np.abs(p) - (h - self.rounding_m) for p, h in zip((x, y, z), half, strict=True))
        farthest = np.maximum(x, z) if y is None else np.maximum(np.maximum(x, y), z)
        beyond = (np.maximum(p, 0.0) for p in (x, y, z) if p is not None)
        return _length(*beyond) + np.minimum(farthest, 0.0) - self.rounding_m

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(3,) lowest and (3,) highest corner of the axis-aligned box around it, in the frame it lies in."""
        if self.shape == "ellipsoid":
            reach = np.sqrt(((self.rotation * self.half) ** 2).sum(axis=1))
        elif self.shape == "cylinder":
            axis = self.rotation[:, 2]
            reach = np.abs(axis) * self.half[2] + self.half[0] * np.sqrt(np.maximum(1.0 - axis * axis, 0.0))
        else:
            reach = (np.abs(self.rotation) * self.half).sum(axis=1)
        return self.centre - reach, self.centre + reach

    def moved(self, pose: Pose) -> Solid:
        """The same solid in the parent frame of `pose`."""
        rotation = (pose.rotation[:, :, None] * self.rotation[None]).sum(axis=1)
        return replace(self, centre=pose.apply(self.centre), rotation=rotation)


def box(label: int, look: Look, x: tuple, y: tuple, z: tuple, rounding_m: float = 0.0) -> Solid:
    """An axis-aligned box from its spans (low, high)."""
    span = np.array([x, y, z], np.float64)
    return Solid("box", label, look, span.mean(axis=1), (span[:, 1] - span[:, 0]) / 2, rounding_m=rounding_m)


def cylinder(label: int, look: Look, x: float, y: float, z: tuple, radius_m: float) -> Solid:
    """An upright cylinder from z[0] to z[1]."""
    return Solid("cylinder", label, look, (x, y, (z[0] + z[1]) / 2), (radius_m, radius_m, (z[1] - z[0]) / 2))


def rod(label: int, look: Look, start: Sequence[float], end: Sequence[float], radius_m: float) -> Solid:
    """A cylinder between two points."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(_length(*(end - start)))
    z = (end - start) / length
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x = x / _length(*x)
    rotation = np.stack([x, np.cross(z, x), z], axis=1)
    return Solid("cylinder", label, look, (start + end) / 2, (radius_m, radius_m, length / 2), rotation)


def ellipsoid(label: int, look: Look, centre: Sequence[float], half: Sequence[float]) -> Solid:
    return Solid("ellipsoid", label, look, centre, half)


def heading(yaw_rad: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Pose:
    """The pose of something at (x, y, z) that is turned by `yaw_rad` about the vertical."""
    c, s = round(float(np.cos(yaw_rad)), _DECIMALS), round(float(np.sin(yaw_rad)), _DECIMALS)
    return Pose(np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), np.array([x, y, z], np.float64))


@dataclass(frozen=True)
class Item:
    """A piece of furniture or clutter before it is placed.

    Local frame: z up, z = 0 where it stands (on the floor, or on what carries it; the middle of its height where it
    hangs on a wall), x = 0 at its back, +x to its front, y = 0 at its middle. So an item against a wall has the wall at
    x <= 0. size_m: (depth along x, width along y, height along z) of the box that holds all its solids; clear_m: the
    room it needs in front to be used; kind: e.g. "dining_chair"; top_m: height of a surface that carries clutter, or
    None; slots: where other things stand by themselves on it or beside it, as (kind, pose) in the local frame.
    """

    kind: str
    solids: tuple[Solid, ...]
    size_m: tuple[float, float, float]
    clear_m: float = 0.0
    top_m: float | None = None
    slots: tuple[tuple[str, Pose], ...] = ()


@dataclass(frozen=True)
class Lighting:
    """ambient: grey level 0..1; lamp: (3,) position of the shadow-casting light, room frame; lamp_rgb, window_rgb: in
    0..1; the daylight comes along `sun_direction` (3,), room frame.
    """

    ambient: float
    lamp: tuple[float, float, float]
    lamp_rgb: tuple[float, float, float]
    sun_direction: tuple[float, float, float]
    window_rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Actor:
    """A thing that moves. solids: in its own frame (z up, z = 0 on the floor), all of one piece; placements: frame
    number to its pose in the room frame, or None where it is not there.
    """

    solids: tuple[Solid, ...]
    placement: Callable[[int], Pose | None]


@dataclass(frozen=True)
class Scene:
    """Everything that stands in a scene, in the room frame.

    solids: what never moves; rectangles: (x0, y0, x1, y1) of the floor inside the walls, doorways included, whose union
    is where one can be; height_m: of the rooms, one per scene; lighting; world_from_room; movable: pieces among
    `solids` that a person could carry away; actors: what moves. Pieces are numbered from 0 without gaps, across solids
    and actors.
    """

    solids: tuple[Solid, ...]
    rectangles: tuple[tuple[float, float, float, float], ...]
    height_m: float
    lighting: Lighting
    world_from_room: Pose
    movable: tuple[int, ...] = ()
    actors: tuple[Actor, ...] = ()

    def fixed_in_world(self) -> tuple[Solid, ...]:
        """What never moves, in the world frame."""
        return tuple(solid.moved(self.world_from_room) for solid in self.solids)

    def actors_in_world(self, frame: int) -> tuple[Solid, ...]:
        """What moves, where it is at `frame`, in the world frame."""
        solids = []
        for actor in self.actors:
            pose = actor.placement(frame)
            if pose is not None:
                solids += [solid.moved(self.world_from_room @ pose) for solid in actor.solids]
        return tuple(solids)


def _length(*components: np.ndarray) -> np.ndarray:
    total = components[0] * components[0]
    for component in components[1:]:
        total = total + component * component
    return np.sqrt(total)
