"""One dense labelled voxel map: what ground truth, a prediction and a baseline all are when they are compared."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgrocc.files import whole_file
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import FREE, NUM_CLASSES, UNKNOWN

#: A box of this many voxels needs one gigabyte; a larger one is a runaway index far more often than a building.
MAX_VOXELS = 200_000_000
_MAX_MISALIGNMENT_VOXELS = 1e-3


@dataclass(frozen=True, eq=False)
class Occupancy:
    """A box of voxels in the frame `frame_id`, z up.

    labels: (X, Y, Z) uint8, 0 free, 1..11 the classes, 255 unknown; probability: (X, Y, Z) float32 in [0, 1], of being
    occupied, 0 where unknown; origin: (3,) float64, metres, the corner of voxel (0, 0, 0), a multiple of `resolution`;
    resolution: metres. Raises ValueError where the fields are not that.
    """

    labels: np.ndarray
    probability: np.ndarray
    origin: np.ndarray
    resolution: float
    frame_id: str

    def __post_init__(self) -> None:
        labels, probability = np.asarray(self.labels), np.asarray(self.probability)
        if labels.dtype != np.uint8 or labels.ndim != 3:
            raise ValueError(f"labels are a (X, Y, Z) uint8 array, not {labels.shape} {labels.dtype}: convert them")
        if ((labels > NUM_CLASSES) & (labels != UNKNOWN)).any():
            raise ValueError(f"a label lies between {NUM_CLASSES + 1} and {UNKNOWN - 1}: map the labels to ours first")
        if probability.dtype != np.float32 or probability.shape != labels.shape:
            raise ValueError(
                f"the probability is a {labels.shape} float32 array, not {probability.shape} {probability.dtype}: "
                "convert it"
            )
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError("the probability leaves [0, 1] or is NaN: convert log-odds to probabilities first")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "probability", probability)
        grid = VoxelGrid(self.origin, labels.shape, float(self.resolution))
        object.__setattr__(self, "origin", grid.origin)
        object.__setattr__(self, "resolution", grid.resolution)
        _whole_voxels(grid.origin, grid.resolution)

    @property
    def grid(self) -> VoxelGrid:
        return VoxelGrid(self.origin, self.labels.shape, self.resolution)

    @property
    def occupied(self) -> np.ndarray:
        """(X, Y, Z) bool: which voxels hold something."""
        return (self.labels != FREE) & (self.labels != UNKNOWN)

    @staticmethod
    def from_voxels(
        indices: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, resolution: float, frame_id: str
    ) -> Occupancy:
        """The smallest box around the known voxels of a list.

        indices: (M, 3) integer world voxel indices, each at most once; labels: (M,) uint8; probabilities: (M,) float32.
        No known voxels give a box of no voxels. Raises ValueError for arrays that do not match, a voxel given twice,
        and a box of more than `MAX_VOXELS`.
        """
        indices, labels = np.asarray(indices), np.asarray(labels)
        probabilities = np.asarray(probabilities, np.float32)
        if not np.issubdtype(indices.dtype, np.integer) or indices.shape != (len(labels), 3):
            raise ValueError(
                f"voxel indices are {(len(labels), 3)} integers, not {indices.shape} {indices.dtype}: "
                "give one row of x, y, z per label"
            )
        if labels.shape != (len(labels),) or probabilities.shape != labels.shape:
            raise ValueError(
                f"labels {labels.shape} and probabilities {probabilities.shape} differ in shape: "
                "give one of each per voxel"
            )
        known = labels != UNKNOWN
        indices = indices[known].astype(np.int64)
        low = indices.min(axis=0) if len(indices) else np.zeros(3, np.int64)
        shape = tuple(int(n) for n in indices.max(axis=0) - low + 1) if len(indices) else (0, 0, 0)
        voxels = empty_labels(shape)
        probability = np.zeros(shape, np.float32)
        x, y, z = (indices - low).T
        voxels[x, y, z] = labels[known]
        probability[x, y, z] = probabilities[known]
        if np.count_nonzero(voxels != UNKNOWN) != len(indices):
            raise ValueError("a voxel is given twice: merge the list before making a map of it")
        return Occupancy(voxels, probability, low * float(resolution), resolution, frame_id)

    def resampled_to(self, grid: VoxelGrid) -> Occupancy:
        """The same map in another box of the same voxels: cropped, and unknown where it does not reach.

        Nothing is interpolated. Raises ValueError where the resolutions differ or the corners are not a whole number
        of voxels apart.
        """
        start = voxels_between(self.grid, grid)
        labels = empty_labels(grid.shape)
        probability = np.zeros(grid.shape, np.float32)
        low = np.maximum(start, 0)
        high = np.maximum(np.minimum(start + grid.shape, self.labels.shape), low)
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        if (high > low).all():
            labels[there] = self.labels[here]
            probability[there] = self.probability[here]
        return Occupancy(labels, probability, grid.origin, self.resolution, self.frame_id)

    def save(self, path: str | Path) -> None:
        """Write a compressed npz; a reader never sees half a file."""
        with whole_file(path) as unfinished, open(unfinished, "wb") as file:
            np.savez_compressed(
                file,
                labels=self.labels,
                probability=self.probability,
                origin=self.origin,
                resolution=np.float64(self.resolution),
                frame_id=np.array(self.frame_id),
            )

    @staticmethod
    def load(path: str | Path) -> Occupancy:
        """Read what `save` wrote; probability may be missing (1 where occupied). Raises ValueError for any bad file."""
        fields = _read_npz(path)
        missing = {"labels", "origin", "resolution", "frame_id"} - fields.keys()
        if missing:
            raise ValueError(
                f"{path} is not an occupancy map, it lacks {', '.join(sorted(missing))}: "
                "write it with Occupancy.save or add the missing arrays"
            )
        labels = fields["labels"]
        probability = fields.get("probability", ((labels != FREE) & (labels != UNKNOWN)).astype(np.float32))
        origin, resolution, frame_id = fields["origin"], fields["resolution"], fields["frame_id"]
        if origin.dtype.kind not in "fiu" or resolution.dtype.kind not in "fiu" or resolution.shape != ():
            raise ValueError(f"{path} has an origin or a resolution that is not a number: write it again")
        if frame_id.dtype.kind != "U" or frame_id.shape != ():
            raise ValueError(f"{path} has a frame_id that is not one text: write it again")
        try:
            return Occupancy(labels, probability, origin, float(resolution), str(frame_id))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def empty_labels(shape: tuple[int, int, int]) -> np.ndarray:
    """A box of unknown voxels, uint8; raises ValueError for more than `MAX_VOXELS`, before any memory is taken."""
    if np.prod([float(n) for n in shape]) > MAX_VOXELS:
        raise ValueError(
            f"a box of {' x '.join(map(str, shape))} voxels is too large for a dense map: "
            "look for a wild pose or crop the recording"
        )
    return np.full(shape, UNKNOWN, np.uint8)


def voxels_between(grid: VoxelGrid, other: VoxelGrid) -> np.ndarray:
    """(3,) int64, voxels from the corner of `grid` to the corner of `other`; raises ValueError where the resolutions
    differ or the corners are not a whole number of voxels apart.
    """
    if not np.isclose(other.resolution, grid.resolution, rtol=1e-6, atol=0):
        raise ValueError(
            f"the maps have voxels of {grid.resolution:g} m and {other.resolution:g} m: make both with one resolution"
        )
    return _whole_voxels(other.origin - grid.origin, grid.resolution)


def _whole_voxels(length_m: np.ndarray, resolution: float) -> np.ndarray:
    """(3,) metres as (3,) int64 voxels; raises ValueError where they are not whole."""
    voxels = np.asarray(length_m) / resolution
    whole = np.rint(voxels)
    if np.abs(voxels - whole).max() > _MAX_MISALIGNMENT_VOXELS:
        raise ValueError(
            f"a grid corner is {np.round(voxels, 3).tolist()} voxels away, which is not whole: "
            f"put the grid's corner at a multiple of {resolution:g} m"
        )
    return whole.astype(np.int64)


def _read_npz(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError(f"{path} is not a complete npz file: write it again with Occupancy.save")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, MemoryError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again with Occupancy.save") from error
    except ValueError as error:
        if "pickle" not in str(error):
            raise ValueError(f"{path} is damaged ({error}): write it again with Occupancy.save") from error
        raise ValueError(
            f"{path} holds Python objects, which are never loaded: save it with plain arrays only"
        ) from error
