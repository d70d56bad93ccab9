"""Furniture: every family holds together, stands where it says, carries what it says, and is of the right class."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from sgrocc.geometry import Pose
from sgrocc.labels import BED, CHAIR, FLOOR, FURNITURE, OBJECTS, SOFA, TABLE, TV
from sgrocc.synthrooms import furniture, furniture_parts
from sgrocc.synthrooms.scene import Item, Look, Solid, box, heading, rod

_KINDS = {
    CHAIR: "dining_chair office_chair armchair_small stool bar_stool bench",
    BED: "bed_single bed_double bunk",
    SOFA: "sofa corner_sofa armchair",
    TABLE: "dining_table desk coffee_table side_table counter",
    TV: "tv_wall tv_stand monitor",
    FURNITURE: "bookcase wardrobe cabinet nightstand dresser kitchen_unit fridge shelf_wall",
    FLOOR: "rug",
    OBJECTS: "plant floor_lamp table_lamp box_stack bin bag books vase bottle bowl toys picture mirror curtain "
    "radiator ceiling_lamp laundry suitcase fan appliance clock",
}
_LABEL = {kind: label for label, kinds in _KINDS.items() for kind in kinds.split()}
_HANGING = {"tv_wall", "shelf_wall", "picture", "mirror", "clock"}
_MOST_SOLIDS = {CHAIR: 10, BED: 14, SOFA: 12, TABLE: 7, TV: 7, FURNITURE: 35, FLOOR: 1, OBJECTS: 16}
_SEEDS = range(5)

every_kind = pytest.mark.parametrize("kind", sorted(_LABEL))


@cache
def _items(kind: str) -> tuple[Item, ...]:
    """Some of every family of a kind."""
    families = enumerate(furniture.FAMILIES[kind])
    return tuple(family(np.random.default_rng([seed, number])) for number, family in families for seed in _SEEDS)


def _samples(solid: Solid, rng: np.random.Generator, count: int = 300) -> np.ndarray:
    """(n, 3) points inside and on the surface of a solid, many near its edges."""
    # Clipping random points to the unit cube puts a good part on faces, edges and corners.
    points = np.clip(rng.uniform(-1.6, 1.6, (count, 3)), -1.0, 1.0)
    if solid.shape == "ellipsoid":
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1.0)
    elif solid.shape == "cylinder":
        points[:, :2] /= np.maximum(np.linalg.norm(points[:, :2], axis=1, keepdims=True), 1.0)
    else:
        inner = solid.half - solid.rounding_m
        offset = points * solid.half - np.clip(points * solid.half, -inner, inner)
        out = np.linalg.norm(offset, axis=1, keepdims=True)
        rounded = np.clip(points * solid.half, -inner, inner)
        rounded = rounded + offset * np.minimum(1.0, solid.rounding_m / np.maximum(out, 1e-12))
        return rounded @ solid.rotation.T + solid.centre
    return (points * solid.half) @ solid.rotation.T + solid.centre


def _groups(solids: tuple[Solid, ...], reach_m: float) -> int:
    """Number of groups of solids that are joined by gaps of at most `reach_m`."""
    rng = np.random.default_rng(0)
    points, bounds = [_samples(solid, rng) for solid in solids], [solid.bounds() for solid in solids]
    group = list(range(len(solids)))
    for i, j in itertools.combinations(range(len(solids)), 2):
        if group[i] == group[j]:
            continue
        if (np.maximum(bounds[i][0], bounds[j][0]) > np.minimum(bounds[i][1], bounds[j][1]) + reach_m).any():
            continue
        if min(solids[i].distance(points[j]).min(), solids[j].distance(points[i]).min()) <= reach_m:
            group = [group[i] if number == group[j] else number for number in group]
    return len(set(group))


def _depth_in(first: tuple[Solid, ...], second: tuple[Solid, ...]) -> float:
    """How deep any solid of one reaches into the other, metres (about; 0 where they only touch)."""
    rng, deepest = np.random.default_rng(0), 0.0
    for a, b in itertools.product(first, second):
        (a_low, a_high), (b_low, b_high) = a.bounds(), b.bounds()
        if (np.maximum(a_low, b_low) < np.minimum(a_high, b_high)).all():
            deepest = max(deepest, -b.distance(_samples(a, rng)).min(), -a.distance(_samples(b, rng)).min())
    return deepest


def _placed(item: Item, pose: Pose) -> tuple[Solid, ...]:
    return tuple(solid.moved(pose) for solid in item.solids)


def test_every_kind_is_there_in_several_shapes() -> None:
    assert set(furniture.FAMILIES) == set(_LABEL)
    for kind, families in furniture.FAMILIES.items():
        rare = kind in "bunk corner_sofa bar_stool fridge rug picture suitcase fan clock".split()
        assert len(set(families)) >= (2 if rare else 3), kind


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no furniture of kind 'throne'.*bench"):
        furniture.make("throne", np.random.default_rng(0))


@every_kind
def test_pieces_are_of_their_class(kind: str) -> None:
    for item in _items(kind):
        labels = [solid.label for solid in item.solids]
        assert item.kind == kind
        # Books and boxes on shelves are objects; everything else of a piece is of one class.
        allowed = {_LABEL[kind], OBJECTS} if _LABEL[kind] == FURNITURE else {_LABEL[kind]}
        assert _LABEL[kind] in labels and set(labels) <= allowed
        assert len(labels) <= _MOST_SOLIDS[_LABEL[kind]]


def test_chairs_are_narrow_and_armchairs_wide() -> None:
    assert max(item.size_m[1] for item in _items("armchair_small")) <= 0.8
    assert min(item.size_m[1] for item in _items("armchair")) > 0.8


@every_kind
def test_pieces_hold_together(kind: str) -> None:
    for item in _items(kind):
        assert _groups(item.solids, 0.005) == 1, item


@every_kind
def test_no_two_boxes_share_a_face(kind: str) -> None:
    """They would flicker where they are drawn. Backs and undersides are never seen."""
    for item in _items(kind):
        upright = [solid.bounds() for solid in item.solids if solid.shape == "box" and np.ptp(solid.rotation) == 1]
        for (a_low, a_high), (b_low, b_high) in itertools.combinations(upright, 2):
            overlap = np.minimum(a_high, b_high) - np.maximum(a_low, b_low)
            for axis in range(3):
                if (np.delete(overlap, axis) > 0.003).all():
                    assert abs(a_high[axis] - b_high[axis]) > 1e-5
                    assert abs(a_low[axis] - b_low[axis]) > 1e-5 or (axis != 1 and a_low[axis] < 0.001)


def test_a_gap_would_be_seen() -> None:
    look = Look("plain")
    solids = (box(CHAIR, look, (0, 1), (0, 1), (0, 0.4)), box(CHAIR, look, (0, 1), (0, 1), (0.41, 0.5)))
    assert _groups(solids, 0.005) == 2
    assert _groups(solids, 0.02) == 1


@every_kind
def test_pieces_fill_the_box_they_claim(kind: str) -> None:
    for item in _items(kind):
        bounds = np.array([solid.bounds() for solid in item.solids])
        low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
        depth, width, height = item.size_m
        bottom = -height / 2 if kind in _HANGING else -height if kind == "ceiling_lamp" else 0.0
        np.testing.assert_allclose(low, (0.0, -width / 2, bottom), atol=2e-6)
        np.testing.assert_allclose(high, (depth, width / 2, bottom + height), atol=2e-6)


@every_kind
def test_nothing_slips_between_the_samples(kind: str) -> None:
    """A lattice of 2 cm, wherever it lies, finds the piece, and every solid of it that is thicker than 2 cm."""
    for item in _items(kind):
        for shift in (0.0, 0.007, 0.013):
            for solid in item.solids:
                if 2 * solid.half.min() < 0.03:
                    continue
                low, high = solid.bounds()
                axes = [np.arange(a - 0.02 + shift, b + 0.02, 0.02) for a, b in zip(low, high)]
                if np.prod([len(axis) for axis in axes]) > 20_000:
                    continue
                lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
                assert (solid.distance(lattice) <= 0).any(), solid


@every_kind
def test_tops_carry_things(kind: str) -> None:
    for item in _items(kind):
        if item.top_m is None:
            continue
        depth, width, _ = item.size_m
        x, y = np.meshgrid(np.linspace(0.2, 0.8, 9) * depth, np.linspace(-0.3, 0.3, 9) * width, indexing="ij")

        def distance(z_m: float, item=item, x=x, y=y) -> np.ndarray:
            points = np.stack([x, y, np.full_like(x, z_m)], axis=-1)
            return np.min([solid.distance(points) for solid in item.solids], axis=0)

        assert (distance(item.top_m - 0.006) < 0).all()
        for above in (0.006, 0.1, 0.25, 0.4):
            assert (distance(item.top_m + above) > 0).all()


def test_what_usually_carries_things_has_a_top() -> None:
    for kind in ("desk", "dining_table", "coffee_table", "side_table", "counter", "cabinet", "nightstand", "dresser"):
        assert all(item.top_m == pytest.approx(item.size_m[2], abs=5e-4) for item in _items(kind)), kind
    assert all(0.68 < item.top_m < 0.79 for kind in ("desk", "dining_table") for item in _items(kind))


@pytest.mark.parametrize("kind", ["dining_table", "desk", "counter", "kitchen_unit"])
def test_things_in_slots_meet_nothing(kind: str) -> None:
    rng, slots = np.random.default_rng(7), 0
    for item in _items(kind):
        standing = [item.solids]
        for slot, pose in item.slots:
            thing = _placed(furniture.make(slot, rng), pose)
            for other in standing:
                assert _depth_in(thing, other) < 0.004, (item, slot, pose)
            low = min(solid.bounds()[0][2] for solid in thing)
            assert low == pytest.approx(0.0 if pose.translation[2] == 0 else item.top_m or 0.9, abs=1e-5)
            standing.append(thing)
            slots += 1
    assert slots >= len(_items(kind)) / 2


def test_chairs_look_at_their_table() -> None:
    for kind in ("dining_table", "desk"):
        for item in _items(kind):
            middle = np.array([item.size_m[0] / 2, 0.0, 0.0])
            seats = [pose for slot, pose in item.slots if slot.endswith("chair")]
            assert len(seats) >= (2 if kind == "dining_table" else 1)
            for pose in seats:
                # One metre ahead of a chair's back is nearer to the middle line of the table than the back is.
                ahead = pose.apply(np.array([0.3, 0.0, 0.0]))
                assert np.linalg.norm(ahead - middle) < np.linalg.norm(pose.translation - middle)


def test_monitors_stand_on_desks() -> None:
    on_top = [(item, pose) for item in _items("desk") for slot, pose in item.slots if slot == "monitor"]
    assert on_top
    for item, pose in on_top:
        monitor = _placed(furniture.make("monitor", np.random.default_rng(3)), pose)
        low = np.min([solid.bounds()[0] for solid in monitor], axis=0)
        high = np.max([solid.bounds()[1] for solid in monitor], axis=0)
        assert low[2] == pytest.approx(item.top_m, abs=1e-6)
        assert low[0] >= 0 and high[0] <= item.size_m[0]


@every_kind
def test_a_seed_gives_the_same_piece(kind: str) -> None:
    first, again, other = (furniture.make(kind, np.random.default_rng(seed)) for seed in (11, 11, 12))
    assert first.size_m == again.size_m != other.size_m
    for a, b in zip(first.solids, again.solids, strict=True):
        assert a.centre.tobytes() == b.centre.tobytes() and a.rotation.tobytes() == b.rotation.tobytes()
        assert a.half.tobytes() == b.half.tobytes() and a.look == b.look


def test_families_vary_in_size() -> None:
    for kind, families in furniture.FAMILIES.items():
        for family in families:
            sizes = {family(np.random.default_rng(seed)).size_m for seed in range(6)}
            assert len(sizes) >= 4, (kind, family)


def test_colour_does_not_tell_the_class() -> None:
    rng = np.random.default_rng(5)
    mean, textures = {}, {}
    for label in (CHAIR, SOFA, TABLE, FURNITURE):
        looks = [s.look for kind in _KINDS[label].split() for _ in range(40) for s in furniture.make(kind, rng).solids]
        mean[label] = np.mean([look.rgb for look in looks], axis=0)
        textures[label] = {look.texture for look in looks}
        assert np.std([look.rgb for look in looks], axis=0).min() > 0.15
    for a, b in itertools.combinations(mean, 2):
        assert np.abs(mean[a] - mean[b]).max() < 0.15
    assert textures[CHAIR] >= {"wood", "metal", "plain", "fabric", "plaid", "stripes", "leather"}
    assert textures[SOFA] >= {"wood", "fabric", "plaid", "stripes", "leather", "plain"}
    assert textures[TABLE] >= {"wood", "metal", "plain"} and textures[FURNITURE] >= {"wood", "metal", "plain"}


def test_looks_are_valid() -> None:
    known = set(
        "plain plaster wood planks carpet tiles fabric plaid stripes leather metal stone rug screen picture books "
        "cardboard foliage outside".split()
    )
    for kind in furniture.FAMILIES:
        for item in _items(kind):
            for solid in item.solids:
                look = solid.look
                assert look.texture in known
                assert all(0 <= value <= 1 for value in (*look.rgb, look.emission, look.shine))


def test_leaning_back_takes_the_top_away_from_the_front() -> None:
    upright = box(CHAIR, Look("plain"), (0.0, 0.04), (-0.2, 0.2), (0.4, 0.9))
    leant = furniture_parts.tilted(upright, 0.3, 0.02, 0.4)
    assert leant.distance(np.array([0.02, 0.0, 0.41])) < 0
    top = np.array([0.02 - 0.45 * np.sin(0.3), 0.0, 0.4 + 0.45 * np.cos(0.3)])
    assert leant.distance(top) == pytest.approx(-0.02, abs=1e-6)
    assert np.linalg.det(leant.rotation) == pytest.approx(1.0)


def test_the_other_side_is_a_mirror_image() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    tilted = box(CHAIR, Look("plain"), (0, 0.3), (0.1, 0.4), (0, 0.2), 0.02).moved(heading(0.4, 0.1))
    for solid in (tilted, rod(CHAIR, Look("plain"), (0.1, 0.2, 0.0), (0.3, 0.5, 0.6), 0.05)):
        mirrored = furniture_parts.mirrored(solid)
        np.testing.assert_allclose(mirrored.distance(points * (1, -1, 1)), solid.distance(points), atol=1e-9)
        assert np.linalg.det(mirrored.rotation) == pytest.approx(1.0)
