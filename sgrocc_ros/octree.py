"""The semantic map as octomap_msgs/Octomap: the two streams are written in numpy from voxels kept in octree order.

A voxel's Morton code interleaves the bits of its three OctoMap keys, x lowest. Sorted by it, the voxels are the leaves
of the tree from left to right, and both of OctoMap's formats (depth first, children 0 to 7 in the bits' order) follow
from comparing neighbours. The tests decode the streams with two bindings of the OctoMap library.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from octomap_msgs.msg import Octomap
from std_msgs.msg import Header

from sgrocc.labels import COLOURS, FREE, NUM_CLASSES, UNKNOWN

#: OctoMap's tree has 16 levels below the root; voxel 0 has the key 32768 on each axis.
DEPTH = 16
KEY_OF_ZERO = 1 << (DEPTH - 1)

#: OctoMap's clamping thresholds (probabilities 0.1192 and 0.971); its nodes are occupied from log-odds 0 upwards.
LOG_ODDS_MIN, LOG_ODDS_MAX = -2.0, 3.5
#: The most that a free voxel gets, so that a probability just below one half stays on the free side.
LOG_ODDS_FREE_MAX = -0.01

#: One node of the full format is 8 bytes, kept as one integer: float32 log-odds, red, green, blue, and from this bit
#: on the children: bit i says that child i follows.
CHILDREN_SHIFT = 56
_COLOUR_BITS = COLOURS.astype(np.int64) @ np.array([1 << 32, 1 << 40, 1 << 48])


class OctreeMap:
    """The known voxels of a map of voxels of `resolution` metres, ready to be sent as octrees."""

    def __init__(self, resolution: float) -> None:
        if not (np.isfinite(resolution) and resolution > 0):
            raise ValueError(f"an octree's resolution is a positive length in metres, not {resolution!r}")
        self.resolution = float(resolution)
        self._codes = np.zeros(0, np.int64)  # sorted Morton codes of the known voxels
        self._labels = np.zeros(0, np.uint8)
        self._log_odds = np.zeros(0, np.float32)

    def apply(self, indices: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Set voxels: occupied (labels 1 to 11), free (0), or forgotten (255, unknown).

        indices: (M, 3) integer world voxel indices, -32768 to 32767; labels: (M,) uint8; probabilities: (M,) float32
        of being occupied, ignored where unknown. The label decides whether a voxel is occupied; the probability is
        clamped to that side and to OctoMap's limits. Of a voxel given twice the last one counts. Raises ValueError,
        and changes nothing, for other shapes or values.
        """
        labels = np.asarray(labels)
        codes = _morton_codes(indices)
        log_odds = _log_odds(labels, np.asarray(probabilities, np.float64), len(codes))
        # The first in the reversed order is the last of a voxel given twice.
        codes, last = np.unique(codes[::-1], return_index=True)
        last = len(labels) - 1 - last
        labels, log_odds = labels[last].astype(np.uint8), log_odds[last]

        at = np.searchsorted(self._codes, codes)
        held = np.zeros(len(codes), bool)
        inside = at < len(self._codes)
        held[inside] = self._codes[at[inside]] == codes[inside]
        known = labels != UNKNOWN
        changed, removed, added = held & known, at[held & ~known], ~held & known
        self._labels[at[changed]] = labels[changed]
        self._log_odds[at[changed]] = log_odds[changed]
        new = {"_codes": codes, "_labels": labels, "_log_odds": log_odds}
        for name, values in new.items():
            grown = np.insert(getattr(self, name), at[added], values[added])
            if len(removed):
                # A removed voxel has moved right by the number of voxels inserted before it.
                grown = np.delete(grown, removed + np.searchsorted(at[added], removed, side="right"))
            setattr(self, name, grown)

    def binary_message(self, header: Header) -> Octomap:
        """Free and occupied only: an `OcTree` in the binary format, two bytes for each inner node."""
        return self._message(header, "OcTree", True, self._binary_data())

    def full_message(self, header: Header) -> Octomap:
        """Probabilities and the colours of the classes: a `ColorOcTree` in the full format, 8 bytes for each node."""
        return self._message(header, "ColorOcTree", False, self._full_data())

    def _message(self, header: Header, tree_type: str, binary: bool, stream: bytes) -> Octomap:
        data = array("b")
        data.frombytes(stream)
        return Octomap(header=header, binary=binary, id=tree_type, resolution=self.resolution, data=data)

    def _binary_data(self) -> bytes:
        """What OctoMap's writeBinaryData writes. Per inner node 8 pairs of bits, child 0 lowest:

        0 unknown, 1 free, 2 occupied, 3 has children itself. Leaves have no bytes of their own.
        """
        if not len(self._codes):
            return b""
        heights = _tallest_beginning(self._codes)
        end = np.cumsum(heights)
        stream = np.empty(end[-1], "<u2")
        states = np.where(self._labels == FREE, 1, 2)
        for height, octants, firsts, begins in _inner_nodes(self._codes, heights):
            stream[end[begins] - height] = np.bitwise_or.reduceat(states << (2 * octants), firsts)
            states = np.full(len(begins), 3)
        return stream.tobytes()

    def _full_data(self) -> bytes:
        """What OctoMap's writeData writes for a ColorOcTree: 8 bytes for each inner node and leaf.

        An inner node shows its most occupied leaf, for viewers that draw only the upper levels.
        """
        if not len(self._codes):
            return b""
        heights = _tallest_beginning(self._codes)
        end = np.cumsum(heights + 1)
        bits = self._log_odds.view(np.uint32).astype(np.int64)
        leaves = bits | _COLOUR_BITS[self._labels]
        nodes = np.empty(end[-1], "<i8")
        nodes[end - 1] = leaves
        # Log-odds in the upper half, the leaf in the lower: integers whose maximum names the most occupied leaf.
        # The bits of positive floats sort as their numbers do.
        above_zero = (self._log_odds - (LOG_ODDS_MIN - 1)).view(np.uint32).astype(np.int64)
        strongest = (above_zero << 32) | np.arange(len(leaves))
        for height, octants, firsts, begins in _inner_nodes(self._codes, heights):
            strongest = np.maximum.reduceat(strongest, firsts)
            children = np.bitwise_or.reduceat(1 << octants, firsts)
            nodes[end[begins] - 1 - height] = leaves[strongest & 0xFFFFFFFF] | (children << CHILDREN_SHIFT)
        return nodes.tobytes()


def _morton_codes(indices: np.ndarray) -> np.ndarray:
    """(M, 3) integer voxel indices to (M,) int64 codes of 48 bits; raises ValueError outside OctoMap's range."""
    indices = np.asarray(indices)
    if indices.ndim != 2 or indices.shape[1] != 3 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"voxel indices are an (M, 3) array of integers, not {indices.dtype} of {indices.shape}")
    keys = indices.astype(np.int64) + KEY_OF_ZERO
    if ((keys < 0) | (keys >= 1 << DEPTH)).any():
        raise ValueError(
            f"a voxel index lies outside OctoMap's range of -{KEY_OF_ZERO} to {KEY_OF_ZERO - 1}: "
            "use a larger resolution, or mend the pose that put it there"
        )
    # Pull the bits two places apart: 16 bits in two bytes, in four halves, in eight quarters, in single bits.
    for shift, mask in ((16, 0x0000FF0000FF), (8, 0x00F00F00F00F), (4, 0x0C30C30C30C3), (2, 0x249249249249)):
        keys = (keys | (keys << shift)) & mask
    return keys[:, 0] | (keys[:, 1] << 1) | (keys[:, 2] << 2)


def _log_odds(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """(M,) float32 log-odds on the side of the labels; raises ValueError for what is no label or no probability."""
    if labels.shape != (count,) or probabilities.shape != (count,):
        raise ValueError(
            f"{count} voxels need {count} labels and probabilities, not {labels.shape} and {probabilities.shape}"
        )
    known = labels != UNKNOWN
    if (((labels < 0) | (labels > NUM_CLASSES)) & known).any():
        raise ValueError(f"a voxel's label is 0 (free), 1 to {NUM_CLASSES} or {UNKNOWN} (unknown)")
    if not ((probabilities >= 0) & (probabilities <= 1))[known].all():
        raise ValueError("a voxel's probability is NaN or outside 0 to 1: mend the map that sends it")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(probabilities) - np.log1p(-probabilities)
    low = np.where(labels == FREE, LOG_ODDS_MIN, 0.0)
    high = np.where(labels == FREE, LOG_ODDS_FREE_MAX, LOG_ODDS_MAX)
    return np.clip(values, low, high).astype(np.float32)


def _tallest_beginning(codes: np.ndarray) -> np.ndarray:
    """(N,) int64: the height (0 a leaf, 16 the root) of the tallest node whose first leaf is this one.

    All lower nodes above that leaf begin there as well, so the depth-first order is known without a sort.
    """
    heights = np.full(len(codes), DEPTH)
    highest_differing_bit = np.frexp((codes[1:] ^ codes[:-1]).astype(np.float64))[1] - 1
    heights[1:] = highest_differing_bit // 3
    return heights


def _inner_nodes(codes: np.ndarray, heights: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The inner nodes, height by height from 1 to 16: (height, octants, firsts, begins).

    octants: the number, 0 to 7, of every child in its parent; firsts: where in that array each parent's children
    begin; begins: the first leaf of each parent.
    """
    begins = np.arange(len(codes))
    for height in range(1, DEPTH + 1):
        octants = (codes[begins] >> (3 * (height - 1))) & 7
        firsts = np.flatnonzero(heights[begins] >= height)
        begins = begins[firsts]
        yield height, octants, firsts, begins
