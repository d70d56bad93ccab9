"""One map, whichever way it is made: one process, three processes, or offline from the same bag."""

import numpy as np
import pytest
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from PIL import Image, ImageSequence
from rclpy.serialization import deserialize_message
from scenes import ROOM_FRAMES, write_room
from sensor_msgs.msg import PointCloud2
from test_octree import READERS

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.labels import CLASS_LABELS, COLOURS, FREE, GENERIC, UNKNOWN
from sgrocc_ros import demo, evaluate_bag, messages, parameters
from sgrocc_ros.description import Inputs
from sgrocc_ros.evaluate_bag import fuse_bag
from sgrocc_ros.record_sequence import record_sequence


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """A recording of the room, made by the same tools as any other."""
    folder = tmp_path_factory.mktemp("room")
    write_room(folder)
    record_sequence(PosedRgbdSequence(folder), folder / "bag")
    return folder / "bag"


WAYS = {"one process": "geometric", "three processes": "geometric", "three processes, learned": "learned"}


@pytest.fixture(scope="module", params=list(WAYS))
def way(request):
    return request.param


@pytest.fixture(scope="module")
def values(way):
    return parameters.complete({"expert": WAYS[way]})


@pytest.fixture(scope="module")
def offline(bag, values):
    """{voxel: (label, probability)} of evaluate_bag's fusion."""
    fused = fuse_bag(bag, Inputs(), values)
    assert (fused.received, fused.fused, dict(fused.dropped)) == (ROOM_FRAMES, ROOM_FRAMES, {})
    known = fused.map.known()
    return {
        tuple(i): (int(label), float(p))
        for i, label, p in zip(known.indices.tolist(), known.labels, known.probabilities, strict=True)
    }


@pytest.fixture(scope="module")
def heard(way, bag, tmp_path_factory):
    """What a subscriber hears from freshly started nodes while the bag is replayed."""
    patch = pytest.MonkeyPatch()
    for name, value in demo.environment().items():
        patch.setenv(name, value)
    out = tmp_path_factory.mktemp("online")
    overrides = {"expert": WAYS[way], "frame_queue_length": 20, "octomap_rate_hz": 5.0}
    listener, _ = demo.run_once(bag, out / "nodes.log", 1.0, overrides, one_process=way == "one process")
    patch.undo()
    return listener


def voxels_of_cloud(listener):
    cloud = deserialize_message(listener.last("occupancy/points"), PointCloud2)
    centres, labels, probabilities = messages.cloud_to_voxels(cloud)
    indices = np.floor(centres.astype(np.float64) / 0.08).astype(int)
    return {tuple(i): (int(a), float(p)) for i, a, p in zip(indices.tolist(), labels, probabilities, strict=True)}


def test_every_frame_is_fused(heard):
    assert heard.frames == {"received": ROOM_FRAMES, "fused": ROOM_FRAMES, "dropped": {}}


def test_the_occupied_voxels_are_those_of_evaluate_bag(heard, offline):
    assert voxels_of_cloud(heard) == {v: x for v, x in offline.items() if x[0] != FREE}


def test_the_sum_of_the_updates_is_the_map_of_evaluate_bag(heard, offline, values):
    occupancy = demo.map_heard(heard, values)
    known = np.argwhere(occupancy.labels != UNKNOWN)
    corner = np.round(occupancy.origin / occupancy.resolution).astype(int)
    voxels = {
        tuple((corner + i).tolist()): (int(occupancy.labels[tuple(i)]), float(occupancy.probability[tuple(i)]))
        for i in known
    }
    assert voxels == offline


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["binary", "full"])
def test_the_octomaps_have_the_same_voxels_with_both_libraries(heard, offline, read, kind, tmp_path):
    message = deserialize_message(heard.last(f"occupancy/octomap_{kind}"), Octomap)
    leaves = read(message, tmp_path)
    expected = {v: (x[0] != FREE, None if kind == "binary" else tuple(COLOURS[x[0]])) for v, x in offline.items()}
    assert {v: (occupied, colour) for v, (occupied, _, colour) in leaves.items()} == expected


def test_the_room_is_where_it_was_built(offline, way):
    # The images are of one colour: what the network makes of them is its own affair, as long as it is solid.
    solid = (GENERIC,) if WAYS[way] == "geometric" else CLASS_LABELS

    def label_at(*point):
        return offline.get(tuple(np.floor(np.array(point) / 0.08).astype(int).tolist()), (None,))[0]

    assert label_at(2.42, 0.0, 0.2) in solid  # the wall ahead
    assert label_at(2.1, 1.02, 0.2) in solid  # the wall to the left
    assert label_at(1.52, -0.6, -0.3) in solid  # the box to the right
    assert label_at(1.52, 0.6, -0.3) == FREE  # no box to the left
    assert label_at(1.0, 0.0, 0.3) == FREE


def test_the_grid_shows_the_room_from_above(heard):
    grid = deserialize_message(heard.last("occupancy/grid"), OccupancyGrid)
    cells = np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)
    corner = np.array([grid.info.origin.position.x, grid.info.origin.position.y])
    assert grid.info.resolution == pytest.approx(0.08) and grid.info.origin.orientation.w == 1.0

    def cell_at(x, y):
        column, row = np.floor((np.array([x, y]) - corner) / 0.08).astype(int)
        inside = 0 <= column < grid.info.width and 0 <= row < grid.info.height
        return int(cells[row, column]) if inside else -1

    assert cell_at(2.42, 0.0) == 100
    assert cell_at(2.1, 1.02) == 100
    assert cell_at(1.0, 0.2) == 0
    assert cell_at(1.0, -1.9) == -1
    assert cell_at(2.42, -0.2) == 100


def test_evaluate_bag_draws_how_the_map_grows(bag, tmp_path):
    arguments = ["--bag", str(bag), "--out", str(tmp_path), "--expert", "geometric", "--evolution"]
    assert evaluate_bag.main(arguments) == 0
    with Image.open(tmp_path / "evolution_bag.gif") as video:
        assert video.n_frames == min(ROOM_FRAMES, 25)
        first, last = video.convert("RGB"), None
        for frame in ImageSequence.Iterator(video):
            last = frame.convert("RGB")
    assert np.count_nonzero(np.asarray(first) != np.asarray(last)) > 1000
