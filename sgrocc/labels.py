"""The voxel labels: 0 free, 1 to 11 the classes, 255 unknown; their names, colours and kinds."""

from __future__ import annotations

import numpy as np

FREE = 0
UNKNOWN = 255

CLASS_NAMES = (
    "ceiling",
    "floor",
    "wall",
    "window",
    "chair",
    "bed",
    "sofa",
    "table",
    "tv",
    "furniture",
    "objects",
)
NUM_CLASSES = len(CLASS_NAMES)
CLASS_LABELS = tuple(range(1, NUM_CLASSES + 1))
CEILING, FLOOR, WALL, WINDOW, CHAIR, BED, SOFA, TABLE, TV, FURNITURE, OBJECTS = CLASS_LABELS

#: The label of something solid whose class nobody knows: `objects`, the catch-all class.
GENERIC = OBJECTS

#: Labels that are part of the building: they are planar and do not move.
STRUCTURAL = (CEILING, FLOOR, WALL, WINDOW)

_CLASS_COLOURS = (
    (214, 214, 224),  # ceiling
    (152, 118, 84),  # floor
    (174, 199, 232),  # wall
    (86, 196, 232),  # window
    (230, 159, 0),  # chair
    (213, 94, 0),  # bed
    (204, 121, 167),  # sofa
    (240, 228, 66),  # table
    (60, 60, 160),  # tv
    (0, 158, 115),  # furniture
    (150, 82, 190),  # objects
)

#: (256, 3) uint8, RGB of every label; labels that do not exist are magenta so that a mistake is seen.
COLOURS = np.full((256, 3), (255, 0, 255), np.uint8)
COLOURS[FREE] = (245, 245, 245)
COLOURS[1 : NUM_CLASSES + 1] = _CLASS_COLOURS
COLOURS[UNKNOWN] = (128, 128, 128)


def name_of(label: int) -> str:
    """Name of a label (0 'free', 1..11, 255 'unknown'); raises ValueError for any other number."""
    if label == FREE:
        return "free"
    if label == UNKNOWN:
        return "unknown"
    if 1 <= label <= NUM_CLASSES:
        return CLASS_NAMES[label - 1]
    raise ValueError(f"there is no label {label}: use 0 (free), 1 to {NUM_CLASSES}, or {UNKNOWN} (unknown)")


def most_likely_class(scores: np.ndarray) -> np.ndarray:
    """Label (1..11) of the highest of `scores` (..., 11), float; uint8 of shape (...).

    Ties go to the last class, `objects`: where nothing is known about the class, it is the generic one.
    """
    return (NUM_CLASSES - np.argmax(scores[..., ::-1], axis=-1)).astype(np.uint8)
