"""Furniture and clutter: for every kind, families of shapes with random proportions, colours and materials.

Where an Item has a `top_m`, the middle 60 % of its footprint carries things at that height and nothing is above it.
Things in slots touch neither the item nor each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgrocc.synthrooms import (
    furniture_beds,
    furniture_clutter,
    furniture_fittings,
    furniture_kitchen,
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
    **furniture_kitchen.FAMILIES,
    **furniture_fittings.FAMILIES,
    **furniture_objects.FAMILIES,
    **furniture_clutter.FAMILIES,
}


def make(kind: str, rng: np.random.Generator) -> Item:
    """A piece of furniture of one kind, of any of its families. Raises ValueError for a kind that there is not."""
    if kind not in FAMILIES:
        raise ValueError(f"there is no furniture of kind {kind!r}: use one of {', '.join(sorted(FAMILIES))}")
    return pick(rng, FAMILIES[kind])(rng)
