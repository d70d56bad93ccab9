"""Occupied voxels as a PLY file, for MeshLab, Blender and other viewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgrocc.files import whole_file
from sgrocc.labels import CLASS_LABELS, COLOURS, name_of

#: A point of 20 bytes. Viewers know the places and colours by these names; the rest are attributes where they keep any.
POINT = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z")),
        *((name, "u1") for name in ("red", "green", "blue", "label")),
        ("probability", "<f4"),
    ]
)
_TYPES = {"<f4": "float", "|u1": "uchar"}


def save_ply(
    path: str | Path, centres: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, resolution: float
) -> None:
    """Write occupied voxels as points, binary little endian; a reader never sees half a file.

    centres (N, 3) metres, stored as float32; labels (N,) uint8, whose colours the points have; probabilities (N,) of
    being occupied. Points and not cubes: eight corners and six faces for each voxel would say no more, and take many
    times the 20 bytes of a point; viewers can draw a square or a cube at each. The edge to give it, resolution in
    metres, stands in the header, and so do the classes' names. Raises OSError where the file cannot be written; what
    was there before is then still there.
    """
    path = Path(path)
    points = np.zeros(len(centres), POINT)
    for axis, name in enumerate(("x", "y", "z")):
        points[name] = centres[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = COLOURS[labels, channel]
    points["label"], points["probability"] = labels, probabilities
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment centres of occupied voxels with edges of {resolution:g} m",
        "comment labels: " + ", ".join(f"{label} {name_of(label)}" for label in CLASS_LABELS),
        f"element vertex {len(points)}",
        *(f"property {_TYPES[POINT[name].str]} {name}" for name in POINT.names),
        "end_header",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, open(unfinished, "wb") as file:
        file.write("\n".join([*header, ""]).encode("ascii"))
        file.write(points)
