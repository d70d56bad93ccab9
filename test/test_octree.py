"""Octomap messages against two bindings of the OctoMap library, which decode them independently of our writer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("octomap_msgs.msg", reason="needs ROS 2 with octomap_msgs")
octomap = pytest.importorskip("octomap", reason="needs octomap-python")

from octomap_msgs.msg import Octomap  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from sgrocc.labels import COLOURS, FREE, UNKNOWN  # noqa: E402
from sgrocc_ros.octree import LOG_ODDS_MAX, LOG_ODDS_MIN, OctreeMap  # noqa: E402

RESOLUTION = 0.08
HEADER = Header(frame_id="odom")


def random_voxels(seed: int, count: int, low: int = -60, high: int = 60):
    rng = np.random.default_rng(seed)
    indices = np.unique(rng.integers(low, high, (2 * count, 3)), axis=0)
    indices = rng.permutation(indices)[:count].astype(np.int32)
    labels = rng.integers(0, 12, len(indices)).astype(np.uint8)
    occupied = rng.uniform(0.5, 1.0, len(indices))
    return indices, labels, np.where(labels == FREE, 1 - occupied, occupied).astype(np.float32)


def file_of(msg: Octomap) -> bytes:
    """The message as OctoMap's file: the message's stream is what follows the header, which counts the nodes."""
    kind = "OcTree binary" if msg.binary else "OcTree"
    stream = np.frombuffer(msg.data.tobytes(), np.uint8)
    if msg.binary:  # every pair of bits that is not 0 is a child; the root is nobody's
        size = int((np.unpackbits(stream).reshape(-1, 2).any(axis=1)).sum()) + (len(stream) > 0)
    else:
        size = len(stream) // 8
    head = f"# Octomap {kind} file\nid {msg.id}\nsize {size}\nres {msg.resolution}\ndata\n"
    return head.encode() + msg.data.tobytes()


def read_with_octomap_python(msg: Octomap, tmp_path):
    if msg.binary:
        tree = octomap.OcTree(1.0)
        assert tree.readBinary(file_of(msg))
        return tree
    return octomap.ColorOcTree.read(file_of(msg))


def leaves_of_octomap_python(msg: Octomap, tmp_path) -> dict:
    tree = read_with_octomap_python(msg, tmp_path)
    assert tree.getResolution() == pytest.approx(RESOLUTION)
    leaves = {}
    for leaf in tree.begin_leafs():
        assert leaf.getDepth() == 16
        key = leaf.getKey()
        colour = None if msg.binary else tuple(leaf.getColor())
        leaves[tuple(key[axis] - 32768 for axis in range(3))] = (tree.isNodeOccupied(leaf), leaf.getValue(), colour)
    return leaves


def leaves_of_pyoctomap(msg: Octomap, tmp_path) -> dict:
    pyoctomap = pytest.importorskip("pyoctomap", reason="needs pyoctomap")
    path = tmp_path / "tree"
    path.write_bytes(file_of(msg))
    if msg.binary:
        tree = pyoctomap.OcTree(1.0)
        assert tree.readBinary(str(path))
    else:
        tree = pyoctomap.ColorOcTree(1.0).read(str(path))
    assert tree.getResolution() == pytest.approx(RESOLUTION)
    leaves = {}
    for leaf in tree.begin_leafs():
        assert leaf.getDepth() == 16
        node = leaf.current_node
        index = np.floor(np.array(leaf.getCoordinate()) / RESOLUTION).astype(int)
        colour = None if msg.binary else tuple(node.getColor())
        leaves[tuple(index.tolist())] = (tree.isNodeOccupied(node), node.getLogOdds(), colour)
    return leaves


READERS = (leaves_of_octomap_python, leaves_of_pyoctomap)


def expected_leaves(indices, labels, probabilities, binary: bool) -> dict:
    leaves = {}
    for index, label, probability in zip(indices.tolist(), labels.tolist(), probabilities.tolist()):
        if label == UNKNOWN:
            leaves.pop(tuple(index), None)
            continue
        occupied = label != FREE
        if binary:
            leaves[tuple(index)] = (occupied, LOG_ODDS_MAX if occupied else LOG_ODDS_MIN, None)
        else:
            log_odds = np.log(probability / (1 - probability)) if 0 < probability < 1 else np.inf * (probability - 0.5)
            log_odds = np.clip(log_odds, LOG_ODDS_MIN, LOG_ODDS_MAX)
            leaves[tuple(index)] = (occupied, log_odds, tuple(COLOURS[label].tolist()))
    return leaves


def assert_same(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for index, (occupied, log_odds, colour) in expected.items():
        assert actual[index][0] == occupied, index
        # The binary format knows the clamping thresholds only as probabilities, so its log-odds are those, rounded.
        assert actual[index][1] == pytest.approx(log_odds, abs=0.02), index
        assert actual[index][2] == colour, index


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["binary", "full"])
def test_both_libraries_decode_three_thousand_voxels(read, kind, tmp_path):
    voxels = random_voxels(1, 3000)
    octree = OctreeMap(RESOLUTION)
    octree.apply(*voxels)
    msg = getattr(octree, f"{kind}_message")(HEADER)
    assert (msg.id, msg.binary) == (("OcTree", True) if kind == "binary" else ("ColorOcTree", False))
    assert msg.resolution == RESOLUTION and msg.header.frame_id == "odom"
    assert_same(read(msg, tmp_path), expected_leaves(*voxels, binary=kind == "binary"))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["binary", "full"])
def test_updates_leave_the_last_state(read, kind, tmp_path):
    """Random changes, repeats within one update, and voxels that become unknown, some never known before."""
    rng = np.random.default_rng(2)
    octree, parts = OctreeMap(RESOLUTION), []
    for step in range(8):
        indices = rng.integers(-6, 6, (400, 3)).astype(np.int32)
        labels = rng.choice(np.array([*range(12), UNKNOWN, UNKNOWN, UNKNOWN], np.uint8), 400)
        occupied = rng.uniform(0.5, 1.0, 400)
        probabilities = np.where(labels == FREE, 1 - occupied, occupied)
        octree.apply(indices, labels, probabilities)
        parts.append((indices, labels, probabilities))
        expected = expected_leaves(*(np.concatenate(p) for p in zip(*parts)), binary=kind == "binary")
        if step in (0, 3, 7):
            assert_same(read(getattr(octree, f"{kind}_message")(HEADER), tmp_path), expected)
    assert 0 < len(expected) < 12**3


def test_one_voxel_of_each_kind_is_found_where_it_is():
    octree = OctreeMap(RESOLUTION)
    octree.apply(np.array([[-3, 20, 1], [2, -1, 0]]), np.array([5, 0], np.uint8), np.array([0.9, 0.2]))
    tree = read_with_octomap_python(octree.full_message(HEADER), None)
    chair = tree.search([-2.5 * RESOLUTION, 20.5 * RESOLUTION, 1.5 * RESOLUTION])
    free = tree.search([2.01 * RESOLUTION, -0.01 * RESOLUTION, 0.99 * RESOLUTION])
    assert chair.getOccupancy() == pytest.approx(0.9, abs=1e-6) and tuple(chair.getColor()) == (230, 159, 0)
    assert free.getOccupancy() == pytest.approx(0.2, abs=1e-6) and tuple(free.getColor()) == (245, 245, 245)
    with pytest.raises(octomap.NullPointerException):
        tree.search([0.5 * RESOLUTION] * 3).getOccupancy()


def test_the_streams_are_what_octomap_writes():
    """OctoMap's own writers give back our bytes: nothing is missing, surplus or in another order."""
    octree = OctreeMap(RESOLUTION)
    octree.apply(*random_voxels(3, 500))  # sparse: nothing that OctoMap's writer could prune
    binary, full = octree.binary_message(HEADER), octree.full_message(HEADER)
    written = read_with_octomap_python(binary, None).writeBinary()
    assert written.split(b"\ndata\n", 1)[1] == binary.data.tobytes()
    written = read_with_octomap_python(full, None).write()
    assert written.split(b"\ndata\n", 1)[1] == full.data.tobytes()


def test_inner_nodes_show_their_most_occupied_voxel():
    indices, labels, probabilities = random_voxels(4, 300, -9, 9)
    octree = OctreeMap(RESOLUTION)
    octree.apply(indices, labels, probabilities)
    leaves = expected_leaves(indices, labels, probabilities, binary=False)
    keys = np.array(list(leaves)) + 32768
    log_odds = np.array([leaf[1] for leaf in leaves.values()])
    colours = [leaf[2] for leaf in leaves.values()]
    inner = 0
    tree = read_with_octomap_python(octree.full_message(HEADER), None)
    for node in tree.begin_tree():
        below = 16 - node.getDepth()
        key = np.array([node.getKey()[axis] for axis in range(3)])
        here = (keys >> below == key >> below).all(axis=1)
        best = np.flatnonzero(here)[log_odds[here].argmax()]
        assert node.getValue() == pytest.approx(log_odds[best], abs=1e-5)
        if (log_odds[here] > log_odds[best] - 1e-5).sum() == 1:  # no tie, as among clamped voxels
            assert tuple(node.getColor()) == colours[best]
        inner += below > 0
    assert inner > 50


@pytest.mark.parametrize("corner", [-32768, 32767])
def test_the_corners_of_octomaps_range(corner, tmp_path):
    voxels = np.full((1, 3), corner), np.array([4], np.uint8), np.array([0.8])
    octree = OctreeMap(RESOLUTION)
    octree.apply(*voxels)
    for binary, msg in ((True, octree.binary_message(HEADER)), (False, octree.full_message(HEADER))):
        assert_same(leaves_of_octomap_python(msg, tmp_path), expected_leaves(*voxels, binary=binary))
    with pytest.raises(ValueError, match="OctoMap's range of -32768 to 32767"):
        octree.apply(voxels[0] + np.sign(corner), *voxels[1:])


def test_an_empty_map_has_no_bytes_and_reads_as_an_empty_tree():
    octree = OctreeMap(RESOLUTION)
    for _ in range(2):
        for msg in (octree.binary_message(HEADER), octree.full_message(HEADER)):
            # octomap_msgs' conversions leave the tree alone where there are no bytes; a file says so by its size.
            assert len(msg.data) == 0 and msg.resolution == RESOLUTION
            kind = octomap.OcTree if msg.binary else octomap.ColorOcTree
            tree = kind(1.0)
            if msg.binary:
                assert tree.readBinary(file_of(msg))
            else:
                tree = kind.read(file_of(msg))
            assert tree.size() == 0
        # The second time the map is empty because all of it was forgotten.
        voxel = np.array([[1, 2, 3]])
        octree.apply(voxel, np.array([3], np.uint8), np.array([0.9]))
        octree.apply(voxel, np.array([UNKNOWN], np.uint8), np.array([np.nan]))


def test_the_label_decides_and_the_probability_is_clamped(tmp_path):
    indices = np.arange(15).reshape(5, 3)
    labels = np.array([3, 3, FREE, FREE, FREE], np.uint8)
    octree = OctreeMap(RESOLUTION)
    octree.apply(indices, labels, np.array([0.1, 1.0, 0.0, 0.9, 0.49999]))
    leaves = leaves_of_octomap_python(octree.full_message(HEADER), tmp_path)
    states = [leaves[tuple(index)] for index in indices.tolist()]
    assert [state[0] for state in states] == [True, True, False, False, False]
    assert [state[1] for state in states] == pytest.approx([0.0, 3.5, -2.0, -0.01, -0.01])


def test_bad_updates_are_refused_and_change_nothing():
    octree = OctreeMap(RESOLUTION)
    good = random_voxels(5, 50)
    octree.apply(*good)
    before = octree.full_message(HEADER).data
    one = np.zeros((1, 3), np.int32)
    for arguments, words in (
        ((one.astype(np.float32), [1], [0.9]), "array of integers"),
        ((one[:, :2], [1], [0.9]), "array of integers"),
        ((one, [1, 2], [0.9, 0.9]), "1 voxels need 1 labels"),
        ((one, [12], [0.9]), "label is 0"),
        ((one, [-1], [0.9]), "label is 0"),
        ((one, [1], [np.nan]), "NaN or outside"),
        ((one, [1], [1.5]), "NaN or outside"),
    ):
        with pytest.raises(ValueError, match=words):
            octree.apply(*arguments)
    octree.apply(one[:0], np.zeros(0, np.uint8), np.zeros(0))
    assert octree.full_message(HEADER).data == before
    for resolution in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive length"):
            OctreeMap(resolution)
