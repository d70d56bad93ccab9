"""Bags: written, read back, refused when bad, and played to a live subscriber."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_posed_rgbd import random_poses, write_sequence

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.geometry import Pose

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")

from sgrocc_ros import record_sequence as recorder
from sgrocc_ros.bag import BagError, BagReader, BagWriter, header_stamp_ns, is_bag, typestore
from sgrocc_ros.record_sequence import record_sequence

FRAMES = 6
TYPES = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth/image_raw": "sensor_msgs/msg/Image",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """(sequence, bag, images, raw depth in millimetres) of a small recording in a +y up world."""
    folder = tmp_path_factory.mktemp("recording")
    images, depths = write_sequence(folder / "sequence", random_poses(FRAMES, seed=3), world_up="+y")
    sequence = PosedRgbdSequence(folder / "sequence")
    record_sequence(sequence, folder / "bag")
    return sequence, folder / "bag", images, depths


def pose_of(stamped) -> Pose:
    t, q = stamped.transform.translation, stamped.transform.rotation
    return Pose.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))


def stamp_of(header) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def test_a_recording_has_the_topics_of_a_robot(recording):
    sequence, bag, _, _ = recording
    topics = BagReader(bag).topics
    assert {name: topic.msgtype for name, topic in topics.items()} == TYPES
    assert {name: topic.count for name, topic in topics.items()} == {
        name: 1 if name == "/tf_static" else FRAMES for name in TYPES
    }
    assert [name for name, topic in topics.items() if topic.latched] == ["/tf_static"]


def test_images_come_back_pixel_by_pixel(recording):
    sequence, bag, images, depths = recording
    got = {"/camera/image_raw": [], "/camera/depth/image_raw": []}
    for topic, message in BagReader(bag).messages(got):
        got[topic].append(message)
    for i, (colour, depth) in enumerate(zip(*got.values())):
        assert stamp_of(colour.header) == stamp_of(depth.header) == sequence.stamp_ns(i)
        assert colour.header.frame_id == depth.header.frame_id == "camera_optical_frame"
        assert (colour.encoding, colour.height, colour.width, colour.step) == ("rgb8", 24, 32, 96)
        assert (depth.encoding, depth.height, depth.width, depth.step) == ("16UC1", 24, 32, 64)
        assert np.array_equal(colour.data.reshape(24, 32, 3), images[i])
        assert np.array_equal(depth.data.view("<u2").reshape(24, 32), depths[i])
    assert i == FRAMES - 1
    for _, info in BagReader(bag).messages(["/camera/camera_info"]):
        assert (info.width, info.height, info.distortion_model) == (32, 24, "plumb_bob")
        assert np.array_equal(info.k.reshape(3, 3), sequence.camera.matrix) and not info.d.any()
        assert np.array_equal(info.p.reshape(3, 4)[:, :3], sequence.camera.matrix)


def test_poses_come_back_by_composing_transforms(recording):
    sequence, bag, _, _ = recording
    reader = BagReader(bag)
    (static,) = next(reader.messages(["/tf_static"]))[1].transforms
    assert (static.header.frame_id, static.child_frame_id) == ("base_link", "camera_optical_frame")
    # The camera's z looks along the robot's x, its x to the right, its y down.
    np.testing.assert_allclose(pose_of(static).rotation, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    moving = [message.transforms[0] for _, message in reader.messages(["/tf"])]
    assert [stamp_of(t.header) for t in moving] == [sequence.stamp_ns(i) for i in range(FRAMES)]
    for transform, pose in zip(moving, sequence.poses):
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
        np.testing.assert_allclose((pose_of(transform) @ pose_of(static)).matrix, pose.matrix, atol=1e-9)


def test_a_pose_is_there_before_its_image(recording):
    sequence, bag, _, _ = recording
    order = [(topic, stamp_ns) for topic, stamp_ns, _ in BagReader(bag).raw_messages()]
    assert [stamp for _, stamp in order] == sorted(stamp for _, stamp in order)
    assert order[0][0] == "/tf_static"
    assert [topic for topic, _ in order[1:]] == FRAMES * [
        "/tf",
        "/camera/camera_info",
        "/camera/depth/image_raw",
        "/camera/image_raw",
    ]
    assert [stamp for topic, stamp in order if topic == "/camera/image_raw"] == [
        sequence.stamp_ns(i) for i in range(FRAMES)
    ]


def test_depth_beyond_sixteen_bits_is_invalid():
    depth = np.array([[0.0, 1.2344, 65.535, 65.536, 1e6]], np.float32)
    assert recorder._millimetres(depth).tolist() == [[0, 1234, 65535, 0, 0]]


def test_stamps_are_read_from_raw_bytes(recording):
    sequence, bag, _, _ = recording
    stamps = {topic: header_stamp_ns(TYPES[topic], raw) for topic, _, raw in BagReader(bag).raw_messages()}
    last = sequence.stamp_ns(FRAMES - 1)
    assert stamps == {
        "/camera/image_raw": last,
        "/camera/camera_info": last,
        "/camera/depth/image_raw": last,
        "/tf": None,
        "/tf_static": None,
    }
    with pytest.raises(BagError, match="has 7 bytes, too few for its header"):
        header_stamp_ns("sensor_msgs/msg/Image", bytes(7))


def test_an_existing_bag_is_kept_unless_told_otherwise(recording, tmp_path, capsys):
    sequence, _, _, _ = recording
    bag = tmp_path / "bag"
    arguments = ["--sequence", str(sequence.folder), "--out", str(bag)]
    assert recorder.main(arguments) == 0
    before = {path: path.read_bytes() for path in bag.iterdir()}
    assert recorder.main(arguments) == 2
    assert "exists already: choose another --out or add --overwrite" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bag.iterdir()} == before
    (bag / "bag.mcap").write_bytes(b"")
    assert recorder.main([*arguments, "--overwrite"]) == 0
    assert {path: path.read_bytes() for path in bag.iterdir()} == before
    with pytest.raises(BagError, match="exists already"):
        BagWriter(bag)


def test_overwriting_never_removes_what_is_no_bag(recording, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(BagError, match="is not a bag and will not be overwritten"):
            record_sequence(recording[0], out, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_failed_recording_leaves_nothing(tmp_path, capsys):
    write_sequence(tmp_path / "sequence", random_poses(3))
    image = tmp_path / "sequence/rgb/0002.png"
    image.write_bytes(image.read_bytes()[:900])
    assert recorder.main(["--sequence", str(tmp_path / "sequence"), "--out", str(tmp_path / "bag")]) == 2
    assert "0002.png is cut short" in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


def check_that_viewers_can_open(bag: Path, types: dict[str, str], latched: set[str]) -> None:
    """What Foxglove and `ros2 bag play` need: MCAP, messages in CDR, the definition of every type inside, and the QoS.

    types: {topic: type} that the bag must have; latched: the topics that late subscribers must get.
    """
    mcap = pytest.importorskip("mcap.reader", reason="mcap is not installed: pip install mcap")
    from rosbags.typesys import get_types_from_msg

    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == "mcap"
    offered = {row["topic_metadata"]["name"]: row["topic_metadata"] for row in metadata["topics_with_message_count"]}
    with (bag / f"{bag.name}.mcap").open("rb") as stream:
        reader = mcap.make_reader(stream)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
    with (bag / f"{bag.name}.mcap").open("rb") as stream:
        # Before the messages the definitions lie as well, for those who read from the beginning.
        read = {(schema.name, channel.topic) for schema, channel, _ in mcap.NonSeekingReader(stream).iter_messages()}
    assert {topic: kind for kind, topic in read} == types
    for channel in summary.channels.values():
        schema = summary.schemas[channel.schema_id]
        assert (schema.name, channel.message_encoding, schema.encoding) == (types[channel.topic], "cdr", "ros2msg")
        # Whole, with what it is made of: read back it is what we know of these types.
        definitions = get_types_from_msg(schema.data.decode(), schema.name)
        assert definitions[schema.name][1], f"{schema.name} has no fields"
        assert definitions == {name: typestore().fielddefs[name] for name in definitions}
        durability = "transient_local" if channel.topic in latched else "volatile"
        for [profile] in (
            offered[channel.topic]["offered_qos_profiles"],
            yaml.safe_load(channel.metadata["offered_qos_profiles"]),
        ):
            assert (profile["reliability"], profile["durability"]) == ("reliable", durability)


def test_viewers_can_open_a_recording(recording):
    check_that_viewers_can_open(recording[1], TYPES, {"/tf_static"})


def test_viewers_can_open_what_the_demo_saves(tmp_path):
    serialization = pytest.importorskip("rclpy.serialization", reason="ROS 2 is not installed: rclpy is absent")
    pytest.importorskip("octomap_msgs", reason="octomap_msgs is not installed")
    from sgrocc_ros import demo

    class Listener:
        received = [
            (topic, 0, 10**9 + i, serialization.serialize_message(kind()))
            for i, (topic, kind) in enumerate(demo.TYPES.items())
        ]

    demo.save_outputs(Listener(), tmp_path / "published")
    types = {f"/{topic}": f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}" for topic, kind in demo.TYPES.items()}
    latched = {topic for topic in types if topic.startswith("/occupancy/")}
    assert len(latched) >= 5 and "/voxel_updates" in types
    check_that_viewers_can_open(tmp_path / "published", types, latched)


def test_the_overrides_for_recording_name_exactly_the_latched_outputs():
    qos = pytest.importorskip("rclpy.qos", reason="ROS 2 is not installed: rclpy is absent")
    from sgrocc_ros.interface import MAP_QOS, TOPICS

    overrides = yaml.safe_load((Path(__file__).resolve().parents[1] / "config" / "rosbag2_qos.yaml").read_text())
    out = [topic for topic in TOPICS if topic.direction == "out"]
    assert {topic.qos for topic in out if "transient local" in topic.qos} == {MAP_QOS}
    assert list(overrides) == [f"/{topic.name}" for topic in out if topic.qos == MAP_QOS]
    # As `ros2 bag` reads them.
    policies = {
        "history": qos.HistoryPolicy,
        "reliability": qos.ReliabilityPolicy,
        "durability": qos.DurabilityPolicy,
    }
    for profile in overrides.values():
        read = {
            key: policies[key].get_from_short_key(value) if key in policies else value for key, value in profile.items()
        }
        assert qos.QoSProfile(**read) == qos.QoSProfile(
            history=qos.HistoryPolicy.KEEP_LAST,
            depth=10,
            reliability=qos.ReliabilityPolicy.RELIABLE,
            durability=qos.DurabilityPolicy.TRANSIENT_LOCAL,
        )


def test_bad_bags_are_told_apart(recording, tmp_path):
    _, bag, _, _ = recording
    assert is_bag(bag) and is_bag(bag / "bag.mcap")
    assert not any(map(is_bag, (bag / "metadata.yaml", tmp_path, tmp_path / "nowhere.mcap")))
    with pytest.raises(BagError, match="there is no bag"):
        BagReader(tmp_path / "nowhere")
    with pytest.raises(BagError, match="is not a bag: give a folder with a metadata.yaml"):
        BagReader(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BagError, match="is not a bag"):
        BagReader(tmp_path / "notes.txt")
    reader = BagReader(bag)
    for read in (reader.messages, reader.raw_messages):
        with pytest.raises(BagError, match=r"no topic /lidar: it has /camera/camera_info, .*, /tf_static"):
            read(["/tf", "/lidar"])
    assert list(reader.raw_messages([])) == []


def copy_of(bag: Path, folder: Path, mcap: bytes | None, metadata: bytes | None = None) -> Path:
    folder.mkdir()
    (folder / "metadata.yaml").write_bytes((bag / "metadata.yaml").read_bytes() if metadata is None else metadata)
    if mcap is not None:
        (folder / "bag.mcap").write_bytes(mcap)
    return folder


def test_damaged_bags_are_refused(recording, tmp_path):
    _, bag, _, _ = recording
    mcap, metadata = (bag / "bag.mcap").read_bytes(), (bag / "metadata.yaml").read_bytes()
    damaged = [
        copy_of(bag, tmp_path / f"cut_{length}", mcap[:length])
        for length in (0, 5, 30, len(mcap) // 2, len(mcap) - 300, len(mcap) - 1)
    ]
    damaged.append(copy_of(bag, tmp_path / "no_storage", None))
    damaged += [
        copy_of(bag, tmp_path / f"metadata_{i}", mcap, text)
        for i, text in enumerate((b"", b"{", metadata[:300], b"\xff"))
    ]
    for path in damaged:
        with pytest.raises(BagError, match="damaged or cut short .*: record or copy it again"):
            BagReader(path)
    with pytest.raises(BagError, match="damaged or cut short"):
        BagReader(damaged[3] / "bag.mcap")
    # The index at the end is whole, the data is not.
    holed = copy_of(bag, tmp_path / "holed", mcap[:2000].ljust(len(mcap) // 2, b"\xff") + mcap[len(mcap) // 2 :])
    with pytest.raises(BagError, match="damaged or cut short"):
        list(BagReader(holed).raw_messages())


def test_a_writer_takes_messages_and_bytes(tmp_path):
    types = typestore().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](7, 5), "odom")
    octomap = types["octomap_msgs/msg/Octomap"](header, True, "OcTree", 0.08, np.array([-1, 0, 127], np.int8))
    raw = bytes(typestore().serialize_cdr(octomap, "octomap_msgs/msg/Octomap"))
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/map", "octomap_msgs/msg/Octomap", 20, octomap, latched=True)
        writer.write("/map", "octomap_msgs/msg/Octomap", 10, raw)
        with pytest.raises(BagError, match="/map has the type octomap_msgs/msg/Octomap already"):
            writer.write("/map", "std_msgs/msg/Header", 30, header)
        with pytest.raises(BagError, match="own/msg/Own, which is not known"):
            writer.write("/own", "own/msg/Own", 30, raw)
    reader = BagReader(tmp_path / "bag")
    assert reader.topics["/map"] == ("octomap_msgs/msg/Octomap", 2, True)
    assert list(reader.raw_messages()) == [("/map", 10, raw), ("/map", 20, raw)]
    for _, message in reader.messages():
        assert (message.id, message.binary, message.resolution) == ("OcTree", True, 0.08)
        assert message.data.tolist() == [-1, 0, 127] and message.header.frame_id == "odom"
    assert header_stamp_ns("octomap_msgs/msg/Octomap", raw) == 7_000_000_005


def test_our_layouts_are_those_of_ros():
    serialization = pytest.importorskip("rclpy.serialization", reason="ROS 2 is not installed: rclpy is absent")
    octomap_msgs = pytest.importorskip("octomap_msgs.msg", reason="octomap_msgs is not installed")
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed")
    from geometry_msgs.msg import TransformStamped

    octomap = octomap_msgs.Octomap(binary=True, id="OcTree", resolution=0.08, data=[-3, 4])
    raw = serialization.serialize_message(octomap)
    got = typestore().deserialize_cdr(raw, "octomap_msgs/msg/Octomap")
    assert (got.binary, got.id, got.resolution, got.data.tolist()) == (True, "OcTree", 0.08, [-3, 4])
    transform = TransformStamped(child_frame_id="base_link")
    transform.transform.translation.x = 1.5
    raw = serialization.serialize_message(tf2_msgs.TFMessage(transforms=[transform]))
    (got,) = typestore().deserialize_cdr(raw, "tf2_msgs/msg/TFMessage").transforms
    assert (got.child_frame_id, got.transform.translation.x, got.transform.rotation.w) == ("base_link", 1.5, 1.0)


@pytest.fixture
def ros(monkeypatch):
    """make_node(name), in a DDS domain of our own."""
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed: rclpy is absent")
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    nodes = []

    def make_node(name):
        nodes.append(rclpy.create_node(name, context=context))
        return nodes[-1]

    yield make_node
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def padded(raw: bytes) -> bytes:
    """DDS fills a message up to four bytes with zeros on its way to another process."""
    return raw.ljust(-(-len(raw) // 4) * 4, b"\0")


def test_a_replay_reaches_a_live_subscriber_whole_and_in_order(ros, recording):
    player, listener = ros("player"), ros("listener")
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage

    from sgrocc_ros.replay import replay

    _, bag, _, _ = recording
    heard, clock = [], []
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic, kind, qos in (
        ("/camera/image_raw", Image, 50),
        ("/camera/depth/image_raw", Image, 50),
        ("/camera/camera_info", CameraInfo, qos_profile_sensor_data),
        ("/tf", TFMessage, 50),
        ("/tf_static", TFMessage, latched),
    ):
        listener.create_subscription(
            kind, topic, lambda raw, topic=topic: heard.append((topic, bytes(raw))), qos, raw=True
        )
    listener.create_subscription(Clock, "/clock", lambda m: clock.append(m.clock.sec * 10**9 + m.clock.nanosec), 1000)
    executor = SingleThreadedExecutor(context=listener.context)
    executor.add_node(listener)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            replay(bag, player, rate=2.0, wait_for_subscribers=list(TYPES), wait_limit_s=20, tail_s=0.3)
        )
    )
    thread.start()
    deadline = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    thread.join(1.0)
    for _ in range(50):
        executor.spin_once(timeout_sec=0.0)
    executor.shutdown()

    sent = [(topic, stamp_ns, raw) for topic, stamp_ns, raw in BagReader(bag).raw_messages()]
    for topic in TYPES:
        expected = [padded(raw) for name, _, raw in sent if name == topic]
        assert [padded(raw) for name, raw in heard if name == topic] == expected
    assert clock == sorted(clock) and len(clock) >= len(sent)
    first_ns, last_ns = sent[0][1], sent[-1][1]
    assert clock[0] - first_ns < 50_000_000 and clock[-1] - last_ns > 300_000_000
    # Ticks of 10 ms, at twice the speed; a busy machine may be late now and then.
    assert np.median(np.diff([t for t in clock if t > last_ns])) < 60_000_000

    (result,) = results
    assert not result.stopped and result.worst_lateness_s < 5
    images = result.published["/camera/image_raw"]
    assert [stamp for stamp, _ in images] == [stamp for topic, stamp, _ in sent if topic == "/camera/image_raw"]
    start = result.published["/tf_static"][0][1]
    for stamp_ns, steady_ns in images:
        due_s = (stamp_ns - first_ns) / 1e9 / 2.0
        # The first message, which `start` is of, may itself have been late.
        assert (steady_ns - start) / 1e9 > due_s - result.worst_lateness_s - 0.005, (
            "published too early"
        )  # the first may itself be late


def test_a_replay_names_what_is_missing_and_can_be_stopped(ros, recording, tmp_path):
    player = ros("player")
    from sgrocc_ros.replay import SubscriberMissing, replay

    _, bag, _, _ = recording
    with pytest.raises(SubscriberMissing, match="nobody subscribed to /tf, /camera/image_raw within 0.1 s"):
        replay(bag, player, wait_for_subscribers=["/tf", "/camera/image_raw"], wait_limit_s=0.1)
    with pytest.raises(BagError, match="has no topic /lidar"):
        replay(bag, player, wait_for_subscribers=["/lidar"])
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give a rate above zero"):
            replay(bag, player, rate=bad)
    with pytest.raises(ValueError, match="give one or more"):
        replay(bag, player, loops=0)
    with BagWriter(tmp_path / "empty"):
        pass
    with pytest.raises(ValueError, match="has no message"):
        replay(tmp_path / "empty", player)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    result = replay(bag, player, rate=0.001, stop=stop)
    assert result.stopped and time.monotonic() - started < 5
    assert result.published["/camera/image_raw"] == []


def run_replay(*arguments) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    line = [sys.executable, "-m", "sgrocc_ros.replay", *map(str, arguments)]
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(line, env=environment, cwd=root, capture_output=True, text=True, timeout=60)


def test_the_player_s_command_line(recording, tmp_path):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed: rclpy is absent")
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed")
    sequence, bag, _, _ = recording
    done = run_replay("--bag", bag, "--rate", 10, "--loops", 2, "--tail-s", 0, "--log", tmp_path / "log.json")
    assert done.returncode == 0, done.stderr
    assert f"{2 * FRAMES} /camera/image_raw" in done.stdout and "ms late" in done.stdout
    published = json.loads((tmp_path / "log.json").read_text())["published"]
    assert [stamp for stamp, _ in published["/camera/image_raw"]] == 2 * [sequence.stamp_ns(i) for i in range(FRAMES)]
    assert {topic: len(rows) for topic, rows in published.items()} == {
        topic: 2 if topic == "/tf_static" else 2 * FRAMES for topic in TYPES
    }
    cut = copy_of(bag, tmp_path / "cut", (bag / "bag.mcap").read_bytes()[:-100])
    refused = run_replay("--bag", cut)
    assert refused.returncode == 2
    assert refused.stderr.startswith("replay: ") and "damaged or cut short" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
