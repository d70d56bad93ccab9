"""Sparse voxels: blocks of 8 x 8 x 8 in a hash, so that a map needs no scene box in advance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sgrocc.labels import UNKNOWN
from sgrocc.splatting import BLOCK

BLOCK_VOXELS = BLOCK**3

#: (512, 3) int32: the voxels of a block, relative to its first, in storage order (z fastest).
BLOCK_OFFSETS = np.stack(np.meshgrid(*[np.arange(BLOCK, dtype=np.int32)] * 3, indexing="ij"), -1).reshape(-1, 3)

#: (27, 3) int32: a voxel's or block's neighbours, itself included.
AROUND = np.stack(np.meshgrid(*[np.arange(-1, 2, dtype=np.int32)] * 3, indexing="ij"), -1).reshape(-1, 3)


@dataclass(frozen=True)
class VoxelUpdate:
    """What changed in a map: indices (M, 3) int32, labels (M,) uint8 (0, 1..11, 255), probabilities (M,) float32.

    Voxel i covers [i, i + 1) * resolution of the global frame; a probability is that of being occupied.
    """

    indices: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, later: VoxelUpdate) -> VoxelUpdate:
        """This and a later one, whose voxels are others."""
        return VoxelUpdate(
            *(np.concatenate(pair) for pair in zip(vars(self).values(), vars(later).values(), strict=True))
        )


class VoxelBlocks:
    """Named layers of values per voxel, stored block by block in the order in which the blocks were first used.

    `VoxelBlocks(label=(np.uint8, 255))` has one layer `label`, filled with 255. Layers are flat arrays:
    `layer("label")[address]`, with addresses from `locate` or `addresses`. A third entry is the width of a layer whose
    values are rows.
    """

    def __init__(self, **layers: tuple) -> None:
        self._spec = layers
        self.clear()

    def clear(self) -> None:
        """Forget all blocks."""
        self._slots: dict[tuple[int, int, int], int] = {}
        self._top = 0  # slots from here on were never used
        self._holes: list[int] = []
        self._coordinates = np.zeros((0, 3), np.int32)
        self._layers = {name: np.zeros((0, *width), dtype) for name, (dtype, _, *width) in self._spec.items()}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def coordinates(self) -> np.ndarray:
        """(B, 3) int32 block coordinates by slot, those of removed blocks included until their slot is used again."""
        return self._coordinates[: self._top]

    def layer(self, name: str) -> np.ndarray:
        """The (B * 512, ...) values of a layer, by slot; a view, valid until a block is added."""
        return self._layers[name][: self._top * BLOCK_VOXELS]

    def used(self) -> np.ndarray:
        """(B,) int64 slots in use, ascending."""
        return np.array(sorted(self._slots.values()), np.int64)

    def remove(self, slots: np.ndarray) -> None:
        """Forget blocks; their slots are used again."""
        for slot in slots.tolist():
            del self._slots[tuple(self._coordinates[slot].tolist())]
            self._holes.append(slot)
        addresses = self.addresses(slots)
        for name, (_, fill, *_) in self._spec.items():
            self._layers[name][addresses] = fill

    def slots(self, blocks: np.ndarray, create: bool = False) -> np.ndarray:
        """(B,) int64 slots of (B, 3) block coordinates; absent blocks are added, or are -1."""
        found = np.empty(len(blocks), np.int64)
        for row, key in enumerate(map(tuple, np.asarray(blocks).tolist())):
            slot = self._slots.get(key, -1)
            if slot < 0 and create:
                slot = self._slots[key] = self._holes.pop() if self._holes else self._top
                self._top = max(self._top, slot + 1)
                self._reserve(self._top)
                self._coordinates[slot] = key
            found[row] = slot
        return found

    def locate(self, voxels: np.ndarray, create: bool = False) -> np.ndarray:
        """(M,) int64 addresses of (M, 3) voxel indices; -1 where the block is absent."""
        if not len(voxels):
            return np.zeros(0, np.int64)
        blocks, inverse = unique_rows(voxels >> 3)
        slots = self.slots(blocks, create)[inverse]
        local = voxels & (BLOCK - 1)
        cells = (local[:, 0] * BLOCK + local[:, 1]) * BLOCK + local[:, 2]
        return np.where(slots >= 0, slots * BLOCK_VOXELS + cells, -1)

    @staticmethod
    def addresses(slots: np.ndarray) -> np.ndarray:
        """(B, 512) addresses of all voxels of some blocks."""
        return slots[:, None] * BLOCK_VOXELS + np.arange(BLOCK_VOXELS)

    def voxels(self, addresses: np.ndarray) -> np.ndarray:
        """(M, 3) int32 voxel indices of addresses."""
        # 512 voxels to a block: shifting is several times faster than dividing.
        return self._coordinates[addresses >> 9] * BLOCK + BLOCK_OFFSETS[addresses & (BLOCK_VOXELS - 1)]

    def _reserve(self, blocks: int) -> None:
        if blocks <= len(self._coordinates):
            return
        capacity = max(64, 2 * blocks)
        coordinates = np.zeros((capacity, 3), np.int32)
        coordinates[: len(self._coordinates)] = self._coordinates
        self._coordinates = coordinates
        for name, (dtype, fill, *width) in self._spec.items():
            grown = np.full((capacity * BLOCK_VOXELS, *width), fill, dtype)
            grown[: len(self._layers[name])] = self._layers[name]
            self._layers[name] = grown


class VoxelMap:
    """The map as its readers hold it: the sum of all updates."""

    def __init__(self) -> None:
        self._blocks = VoxelBlocks(label=(np.uint8, UNKNOWN), probability=(np.float32, 0.0))

    def apply(self, update: VoxelUpdate) -> None:
        addresses = self._blocks.locate(update.indices, create=True)
        self._blocks.layer("label")[addresses] = update.labels
        self._blocks.layer("probability")[addresses] = update.probabilities

    def of(self, indices: np.ndarray) -> VoxelUpdate:
        """The distinct ones of voxels (M, 3) that updates brought, as they are now."""
        indices = unique_rows(indices)[0].astype(np.int32) if len(indices) else indices
        addresses = self._blocks.locate(indices)
        return VoxelUpdate(
            indices, self._blocks.layer("label")[addresses], self._blocks.layer("probability")[addresses]
        )

    def known(self) -> VoxelUpdate:
        """All voxels that are free or occupied."""
        addresses = np.flatnonzero(self._blocks.layer("label") != UNKNOWN)
        return VoxelUpdate(
            self._blocks.voxels(addresses),
            self._blocks.layer("label")[addresses],
            self._blocks.layer("probability")[addresses],
        )

    def clear(self) -> None:
        self._blocks.clear()


def voxels_of(points: np.ndarray, resolution: float) -> np.ndarray:
    """(N, 3) int32 world voxels of points (N, 3), metres."""
    return np.floor(np.asarray(points, np.float64) / resolution).astype(np.int32)


#: A box of so many places for each of the rows in it is marked rather than the rows sorted.
_ROOM_PER_ROW = 16


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of (M, 3) integers, M >= 1, sorted, and (M,) which of them each row is."""
    columns = [rows[:, k].astype(np.int64) for k in range(3)]
    low = np.array([column.min() for column in columns])
    extent = np.array([column.max() for column in columns]) - low + 1
    keys = ((columns[0] - low[0]) * extent[1] + columns[1] - low[1]) * extent[2] + columns[2] - low[2]
    room = math.prod(extent.tolist())
    if room <= _ROOM_PER_ROW * len(rows):
        # Close together: to mark them in their box is several times as fast as sorting.
        number = np.zeros(room, np.int64)
        number[keys] = 1
        unique = np.flatnonzero(number)
        number[unique] = np.arange(len(unique))
        inverse = number[keys]
    else:
        unique, inverse = np.unique(keys, return_inverse=True)
    x, rest = np.divmod(unique, extent[1] * extent[2])
    y, z = np.divmod(rest, extent[2])
    return np.stack([x, y, z], axis=-1) + low, inverse
