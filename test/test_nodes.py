"""The running pipeline under good and bad input: what is fused, what is dropped and why, what it says."""

import importlib.util
import itertools
import os
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from scenes import CAMERA, depth_of_boxes, pose_at
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from sgrocc.geometry import Pose
from sgrocc.labels import GENERIC
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros import images, messages, outputs, parameters, pipeline
from sgrocc_ros.lifecycle import MAP_QOS
from sgrocc_ros.occupancy_publisher_node import OccupancyPublisherNode
from sgrocc_ros.octree import OctreeMap
from sgrocc_ros.outputs import MapOutputs, MapUpdate
from sgrocc_ros.worker import bring_up

_DOMAINS = itertools.count()
WALL = ((2.0, -9, -9), (3, 9, 9))
BEST_EFFORT = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=10, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)


class Robot:
    """A camera with tf, driven by the test, and a listener to the map; beside the pipeline in one executor."""

    def __init__(self, context: rclpy.Context, qos: QoSProfile) -> None:
        self.node = rclpy.create_node("robot", context=context)
        self.image = self.node.create_publisher(Image, "image", qos)
        self.info = self.node.create_publisher(CameraInfo, "camera_info", qos)
        self.depth = self.node.create_publisher(Image, "depth", qos)
        self.tf = self.node.create_publisher(TFMessage, "/tf", 100)
        self.tf_static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self.cloud = None
        self.node.create_subscription(PointCloud2, "occupancy/points", self._on_cloud, MAP_QOS)
        self.stamp_ns = 1_000_000_000

    def _on_cloud(self, cloud) -> None:
        self.cloud = cloud

    def ready(self) -> bool:
        outputs = (self.image, self.info, self.depth, self.tf, self.tf_static)
        return all(output.get_subscription_count() for output in outputs)

    def frame(self, pose=None, boxes=(WALL,), camera=CAMERA):
        """Valid messages of one frame: image, camera_info, depth; the test may spoil them before sending."""
        self.stamp_ns += 100_000_000
        header = messages.to_header(self.stamp_ns, "camera_optical_frame")
        depth = images.depth_message(header, depth_of_boxes(list(boxes), camera, pose or pose_at(0, 0, 0)))
        image = Image(header=header, height=camera.height, width=camera.width, encoding="rgb8", step=3 * camera.width)
        image.data = bytes(3 * camera.width * camera.height)
        return image, images.camera_info_message(header, camera), depth

    def send(self, image=None, info=None, depth=None) -> None:
        for publisher, message in ((self.info, info), (self.depth, depth), (self.image, image)):
            if message is not None:
                publisher.publish(message)

    def send_pose(
        self, pose=None, stamp_ns=None, parent="odom", child="camera_optical_frame", quaternion=None, to=None
    ) -> None:
        pose = pose or pose_at(0, 0, 0)
        stamped = TransformStamped(child_frame_id=child)
        stamp_ns = self.stamp_ns if stamp_ns is None else stamp_ns
        stamped.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        stamped.header.frame_id = parent
        w, x, y, z = (float(v) for v in (pose.quaternion if quaternion is None else quaternion))
        rotation, translation = stamped.transform.rotation, stamped.transform.translation
        rotation.w, rotation.x, rotation.y, rotation.z = w, x, y, z
        translation.x, translation.y, translation.z = (float(v) for v in pose.translation)
        (to or self.tf).publish(TFMessage(transforms=[stamped]))

    def send_good_frame(self, **options) -> None:
        messages_of_frame = self.frame(**options)
        self.send_pose(options.get("pose"))
        self.send(*messages_of_frame)


class Running:
    """The pipeline and the robot, spinning in a thread."""

    def __init__(self, robot: Robot, nodes: list) -> None:
        self.robot, self.nodes = robot, nodes
        self.memory, self.expert = nodes[1], nodes[2]

    @property
    def counts(self) -> dict:
        return self.expert.counters.as_dict()

    def wait_for(self, condition, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; frames: {self.counts}"
            time.sleep(0.01)

    def wait_until_fused(self, count: int) -> None:
        self.wait_for(lambda: self.counts["fused"] == count)

    def wait_until_dropped(self, reason: str, count: int = 1) -> str:
        """Wait for drops of a reason; returns the sentence that explains them."""
        sentences = {}
        counters = self.expert.counters

        def dropped() -> bool:
            with counters._lock:
                sentences.update(counters._sentences)
            return counters.as_dict()["dropped"].get(reason, 0) >= count

        self.wait_for(dropped)
        return self._said(reason, sentences)

    def _said(self, reason, sentences) -> str:
        # The health report may have taken the sentence to the log already.
        return sentences.get(reason) or self.memory.health.last_sentences[reason]

    def end(self, *entities) -> None:
        """Destroy publishers and subscriptions of the robot's node."""
        node = self.robot.node

        def destroy() -> None:
            for entity in entities:
                (node.destroy_publisher if isinstance(entity, Publisher) else node.destroy_subscription)(entity)

        in_executor(node.executor, destroy)

    def map(self):
        """The memory's map as {voxel: label}."""
        known = self.memory._memory.snapshot()
        return {tuple(i): int(label) for i, label in zip(known.indices.tolist(), known.labels, strict=True)}


def fresh_domain() -> int:
    """A domain id that no other test of this process has had lately."""
    return 1 + (os.getpid() + next(_DOMAINS)) % 100


def in_executor(executor, call):
    """What a call returns in the thread that spins: what it destroys must not be waited upon at the same time."""
    done, results = threading.Event(), []

    def called() -> None:
        try:
            results.append((call(), None))
        except BaseException as error:  # which would end the spinning
            results.append((None, error))
        done.set()

    executor.create_task(called)
    assert done.wait(20.0)
    [(result, error)] = results
    if error is not None:
        raise error
    return result


def published_voxels(publisher) -> int:
    """How many voxels the publisher knows, asked in the thread that changes them."""
    return in_executor(publisher.executor, lambda: len(publisher._out.map.known().indices))


@contextmanager
def spinning(nodes: list, *others):
    """The nodes of a pipeline, and others, spin in a thread; in the end all of them are gone, and their context."""
    context = nodes[0].context
    executor = SingleThreadedExecutor(context=context)
    for node in (*nodes, *others):
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        in_executor(executor, lambda: [node.stop() for node in reversed(nodes)])
        executor.shutdown(timeout_sec=2.0)
        thread.join(2.0)
        for node in (*nodes, *others):  # else they are heard in the domain until they are collected
            node.destroy_node()
        rclpy.try_shutdown(context=context)


@contextmanager
def running(qos: QoSProfile = BEST_EFFORT, until_ready: bool = True, cli_args: list | None = None, **overrides):
    """until_ready: wait until the nodes hear the robot's camera."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=fresh_domain())
    options = {
        "expert": "geometric",
        "max_pose_wait_s": 0.3,
        "max_partner_wait_s": 0.3,
        "frame_queue_length": 10,
        **overrides,
    }
    given = [Parameter(name, value=value) for name, value in options.items()]
    nodes = pipeline.make_pipeline(parameter_overrides=given, context=context, cli_args=cli_args)
    robot = Robot(context, qos)
    run = Running(robot, nodes)
    with spinning(nodes, robot.node):
        if not in_executor(robot.node.executor, lambda: bring_up(nodes)):
            raise ValueError(next(node.problem for node in nodes if node.problem))
        if until_ready:
            run.wait_for(robot.ready)
        yield run


@pytest.fixture(scope="module")
def run():
    """One pipeline with one good frame in its map, for tests that must leave the map as it is."""
    with running() as running_pipeline:
        running_pipeline.robot.send_good_frame()
        running_pipeline.wait_until_fused(1)
        yield running_pipeline


@pytest.fixture
def unchanged(run):
    """Afterwards the map is what it was, and a good frame is still fused."""
    before, fused = run.map(), run.counts["fused"]
    yield run
    assert run.map() == before and before
    assert run.counts["fused"] == fused
    run.robot.send_good_frame()
    run.wait_until_fused(fused + 1)


def label_in(cloud, point) -> int | None:
    centres, labels, _ = messages.cloud_to_voxels(cloud)
    near = np.abs(centres - np.array(point)).max(axis=1) < 0.04
    return int(labels[near][0]) if near.any() else None


@pytest.mark.parametrize("reliability", [QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE])
def test_a_camera_of_either_reliability_makes_a_map(reliability):
    with running(QoSProfile(depth=5, reliability=reliability)) as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None)
        cloud = run.robot.cloud
        assert label_in(cloud, (2.04, 0.04, 0.04)) == GENERIC and label_in(cloud, (1.0, 0.04, 0.04)) is None
        assert cloud.header.frame_id == "odom"
        # The output carries the stamp of the image, not the time of publishing.
        assert messages.stamp_ns(cloud.header) == run.robot.stamp_ns


def test_a_reader_who_joins_late_gets_the_map(run):
    heard = {}
    types = {
        "occupancy/grid": OccupancyGrid,
        "occupancy/octomap_binary": Octomap,
        "occupancy/octomap_full": Octomap,
        "occupancy/markers": MarkerArray,
    }
    for topic, kind in types.items():
        run.robot.node.create_subscription(kind, topic, lambda m, topic=topic: heard.update({topic: m}), MAP_QOS)
    run.wait_for(lambda: heard.keys() == types.keys())
    assert 100 in heard["occupancy/grid"].data and heard["occupancy/octomap_full"].id == "ColorOcTree"
    assert len(heard["occupancy/markers"].markers[1].points) > 100


def test_a_late_transform_is_waited_for(run):
    fused = run.counts["fused"]
    run.robot.send(*run.robot.frame())
    time.sleep(0.15)
    assert run.counts["fused"] == fused
    run.robot.send_pose()
    run.wait_until_fused(fused + 1)


def test_a_pose_between_two_transforms_is_interpolated():
    with running() as run:
        frame = run.robot.frame()
        step = 50_000_000
        run.robot.send_pose(pose_at(-0.4, 0, 0), run.robot.stamp_ns - step)
        run.robot.send(*frame)
        time.sleep(0.1)
        assert run.counts["fused"] == 0
        run.robot.send_pose(pose_at(0.4, 0, 0), run.robot.stamp_ns + step)
        run.wait_until_fused(1)
        voxels = run.map()
        assert voxels[(25, 0, 0)] == GENERIC  # 2.0 to 2.08 m: the camera was at the middle, x = 0


def test_depth_of_another_size_than_the_image_is_used():
    with running() as run:
        image, info, _ = run.robot.frame()
        small = CAMERA.resized(80, 60)
        depth = images.depth_message(image.header, depth_of_boxes([WALL], small, pose_at(0, 0, 0)))
        run.robot.send_pose()
        run.robot.send(image, info, depth)
        run.wait_until_fused(1)
        assert run.map()[(25, 0, 0)] == GENERIC


# -- bad input: one sentence with cause and cure, a count, and the map as it was ----------------------------------


def test_a_wrong_encoding_is_named(unchanged):
    image, info, depth = unchanged.robot.frame()
    image.encoding = "yuv9"
    unchanged.robot.send(image, info, depth)
    # Where cv_bridge is installed it is asked for encodings that numpy does not cover, and refuses this one.
    reason = "bad_encoding" if importlib.util.find_spec("cv_bridge") else "no_cv_bridge"
    assert "yuv9" in unchanged.wait_until_dropped(reason)


def test_a_depth_encoding_that_is_none_is_named(unchanged):
    image, info, depth = unchanged.robot.frame()
    depth.encoding = "rgb8"
    unchanged.robot.send(image, info, depth)
    assert "rgb8" in unchanged.wait_until_dropped("bad_depth")


def test_truncated_rows_are_named(unchanged):
    image, info, depth = unchanged.robot.frame()
    image.data = image.data[:-100]
    unchanged.robot.send(image, info, depth)
    assert "bytes" in unchanged.wait_until_dropped("truncated_image")


def test_padded_rows_are_fused(run):
    fused = run.counts["fused"]
    image, info, depth = run.robot.frame()
    rows = np.frombuffer(depth.data, np.uint8).reshape(depth.height, depth.step)
    depth.data = np.pad(rows, ((0, 0), (0, 24)), constant_values=255).tobytes()
    depth.step += 24
    run.robot.send_pose()
    run.robot.send(image, info, depth)
    run.wait_until_fused(fused + 1)
    assert run.map()[(25, 0, 0)] == GENERIC


@pytest.mark.parametrize("k", [np.zeros(9), np.full(9, np.nan)])
def test_a_camera_matrix_that_is_none_is_named(unchanged, k):
    image, info, depth = unchanged.robot.frame()
    info.k = k
    before = unchanged.counts["dropped"].get("bad_camera_info", 0)
    unchanged.robot.send(image, info, depth)
    assert "calibrate" in unchanged.wait_until_dropped("bad_camera_info", before + 1)


def test_an_image_without_camera_info_is_named():
    with running() as run:
        image, _, depth = run.robot.frame()
        run.robot.send_pose()
        run.robot.send(image, None, depth)
        assert "no camera_info has come" in run.wait_until_dropped("no_camera_info")
        assert run.map() == {}


def test_an_image_without_depth_is_named(unchanged):
    image, info, _ = unchanged.robot.frame()
    unchanged.robot.send(image, info, None)
    assert "has no depth" in unchanged.wait_until_dropped("no_depth")


def test_a_missing_transform_is_named():
    with running() as run:
        run.robot.send(*run.robot.frame())
        sentence = run.wait_until_dropped("frame_unknown")
        assert "camera_optical_frame" in sentence and "odom" in sentence
        assert run.map() == {}


def test_a_frame_in_another_tree_is_named():
    with running() as run:
        frame = run.robot.frame()
        run.robot.send_pose(parent="elsewhere")
        run.robot.send_pose(parent="odom", child="base_link")
        run.robot.send(*frame)
        assert "odom" in run.wait_until_dropped("frames_unconnected")
        assert run.map() == {}


def test_a_transform_that_never_comes_is_named(unchanged):
    unchanged.robot.send(*unchanged.robot.frame())
    assert "the newest" in unchanged.wait_until_dropped("pose_in_future")


def test_an_image_older_than_all_transforms_is_named():
    with running() as run:
        frame = run.robot.frame()
        run.robot.send_pose(stamp_ns=run.robot.stamp_ns + 5_000_000_000)
        run.robot.send(*frame)
        assert "is remembered" in run.wait_until_dropped("pose_in_past")
        assert run.map() == {}


@pytest.mark.parametrize("quaternion", [(np.nan, 0, 0, 0), (0, 0, 0, 0), (1.5, 0, 0, 0)])
def test_a_bad_pose_is_refused_and_the_frame_dropped(unchanged, quaternion):
    frame = unchanged.robot.frame()
    before = unchanged.counts["dropped"].get("pose_in_future", 0)
    refused = sum(unchanged.memory._transforms.problems.values())
    unchanged.robot.send_pose(quaternion=quaternion)
    unchanged.robot.send(*frame)
    unchanged.wait_until_dropped("pose_in_future", before + 1)
    assert sum(unchanged.memory._transforms.problems.values()) == refused + 1


def test_transforms_in_a_loop_are_refused(unchanged):
    if importlib.util.find_spec("tf2_ros"):
        pytest.skip("tf2 refuses loops by itself, in its own log")
    refused = unchanged.memory._transforms.problems["frame_loop"]
    unchanged.robot.send_pose(Pose.identity(), parent="camera_optical_frame", child="odom")
    unchanged.wait_for(lambda: unchanged.memory._transforms.problems["frame_loop"] == refused + 1)


def test_frames_that_come_too_fast_are_counted():
    with running(frame_queue_length=1) as run:
        for _ in range(30):
            run.robot.send_good_frame()
        run.wait_for(lambda: run.counts["received"] == run.counts["fused"] + sum(run.counts["dropped"].values()))
        counts = run.counts
        assert counts["dropped"].keys() <= {"overtaken"} and counts["fused"] >= 1
        assert counts["received"] > 20


def test_a_bug_in_one_frame_is_counted_and_the_next_frame_is_fused(run, monkeypatch):
    fused = run.counts["fused"]

    def broken(*_):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(run.memory._memory, "fuse", broken)
        run.robot.send_good_frame()
        assert "report it" in run.wait_until_dropped("internal_error")
    run.robot.send_good_frame()
    run.wait_until_fused(fused + 1)


def test_a_bug_in_one_frame_does_not_take_along_those_that_were_ready_with_it():
    with running(max_pose_wait_s=5.0) as run:
        first, second = run.robot.frame(), run.robot.frame()
        run.robot.send(*first)
        run.robot.send(*second)
        run.wait_for(lambda: len(run.memory._queue) == 2)
        fuse, broken = run.memory._memory.fuse, [ZeroDivisionError("a bug")]
        run.memory._memory.fuse = lambda *given: fuse(*given) if not broken else (_ for _ in ()).throw(broken.pop())
        run.robot.send_pose(to=run.robot.tf_static)  # which makes both ready
        run.wait_until_fused(1)
        assert run.counts == {"received": 2, "fused": 1, "dropped": {"internal_error": 1}}


def test_an_update_that_could_not_be_sent_counts_once_and_the_whole_map_follows():
    with running() as run:
        publisher, broken = run.nodes[0], [ZeroDivisionError("a bug")]
        run.wait_for(lambda: not run.memory._owes_map)  # what it sends when it begins
        run.memory._sink = lambda *given: (
            publisher.accept(*given) if not broken else (_ for _ in ()).throw(broken.pop())
        )
        run.robot.send_good_frame()
        run.wait_until_dropped("internal_error")
        run.wait_for(lambda: published_voxels(publisher) == len(run.map()) > 0)
        assert run.counts == {"received": 1, "fused": 0, "dropped": {"internal_error": 1}}


def test_the_counts_are_on_diagnostics(run):
    from diagnostic_msgs.msg import DiagnosticArray

    heard = []

    def on_diagnostics(message: DiagnosticArray) -> None:
        if "gaussian_memory" in message.status[0].name:  # in a pipeline it counts for all
            heard.append(message)

    run.robot.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)

    def agrees() -> bool:
        if not heard:
            return False
        values = {pair.key: pair.value for pair in heard[-1].status[0].values}
        return values["received"] == str(run.counts["received"]) and values["fused"] == str(run.counts["fused"])

    run.wait_for(agrees)
    assert heard[-1].status[0].hardware_id == "sgrocc"


def test_a_map_too_wide_for_a_form_of_output_stops_that_form_alone():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        # 70 km away in the diagonal: beyond an octree's 2.6 km, and more cells than a grid can have.
        far = pose_at(5e4, 5e4, 0)
        wide = [((5e4 + 2, -9e4, -9), (5e4 + 3, 9e4, 9))]
        for topic, kind in (("occupancy/grid", OccupancyGrid), ("occupancy/octomap_binary", Octomap)):
            run.robot.node.create_subscription(kind, topic, lambda _: None, MAP_QOS)
        run.robot.send_good_frame(pose=far, boxes=wide)
        run.wait_until_fused(2)
        run.robot.send_good_frame()
        run.wait_until_fused(3)
        run.wait_for(lambda: messages.stamp_ns(run.robot.cloud.header) == run.robot.stamp_ns)
        assert label_in(run.robot.cloud, (2.04, 0.04, 0.04)) == GENERIC


def test_a_rectified_image_has_the_matrix_p():
    with running(image_is_rectified=True) as run:
        image, info, depth = run.robot.frame()
        info.k, info.d = [2 * v for v in info.k], [0.1] * 5  # of the raw image, which nobody sent
        run.robot.send_pose()
        run.robot.send(image, info, depth)
        run.wait_until_fused(1)
        widest = max(y for x, y, z in run.map() if x == 25)
        assert widest * 0.08 == pytest.approx(2.04 * 80 / CAMERA.fx, abs=0.1)


def ask(run, service: str):
    client = run.robot.node.create_client(Trigger, f"gaussian_memory/{service}")
    assert client.wait_for_service(5.0)
    answer = client.call_async(Trigger.Request())
    run.wait_for(answer.done)
    return answer.result()


def test_a_map_is_saved_and_goes_on_in_another_run(tmp_path):
    path = str(tmp_path / "room.map")
    with running(map_file=path) as run:
        missing = ask(run, "load_map")
        assert not missing.success and missing.message == f"there is no map {path}: save one first"
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        answer = ask(run, "save_map")
        assert answer.success and answer.message.startswith(f"{path} holds the map: ")
        saved = run.map()
        run.robot.send_good_frame(pose=pose_at(0, 1.0, 0))
        run.wait_until_fused(2)
        assert run.map() != saved
        assert ask(run, "load_map").success and run.map() == saved
        # Who reads the map is told to begin anew.
        run.wait_for(lambda: run.robot.cloud is not None and label_in(run.robot.cloud, (2.04, 2.0, 0.04)) is None)
        assert label_in(run.robot.cloud, (2.04, 0.04, 0.04)) == GENERIC
    with running(map_file=path) as run:
        assert run.map() == saved
        run.wait_for(lambda: run.robot.cloud is not None)
        assert label_in(run.robot.cloud, (2.04, 0.04, 0.04)) == GENERIC
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        assert run.map() == saved
        content = bytearray((tmp_path / "room.map").read_bytes())
        content[len(content) // 2] ^= 0xFF
        (tmp_path / "room.map").write_bytes(bytes(content))
        damaged = ask(run, "load_map")
        assert not damaged.success and "damaged" in damaged.message and run.map() == saved
    with pytest.raises(ValueError, match="damaged"), running(map_file=path):
        pass


def test_without_a_file_the_map_is_not_saved(run):
    answer = ask(run, "save_map")
    assert not answer.success and answer.message == "there is no file for the map: set the parameter map_file"


# -- whole maps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("takes_s", "at_most", "at_least"), [(0.0, 1000, 3), (0.03, 3, 1)])
def test_sending_the_whole_map_takes_a_tenth_of_the_time_at_most(monkeypatch, takes_s, at_most, at_least):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    node = OccupancyPublisherNode(in_pipeline=True, context=context)
    assert bring_up([node])
    built = []
    monkeypatch.setattr(node, "_new_readers", lambda topics: False)
    monkeypatch.setattr(node._out, "built", lambda topics, *_: built.append(topics) or time.sleep(takes_s) or {})
    node._heard["occupancy/grid"] = 1
    one = VoxelUpdate(np.zeros((1, 3), np.int32), np.full(1, 3, np.uint8), np.ones(1, np.float32))
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        node.accept(MapUpdate(one, 1, False, 0.08, "odom"))
        node._publish()
        time.sleep(0.005)
    following = [topics for topics in built if topics]
    assert at_least <= len(following) <= at_most
    # What changed last is not forgotten: it goes out when it is its turn.
    node._publish()
    following = [topics for topics in built if topics]
    node.accept(MapUpdate(one, 1, False, 0.08, "odom"))
    until = time.monotonic() + 10.0
    while len([topics for topics in built if topics]) == len(following) and time.monotonic() < until:
        node._publish()
        time.sleep(0.02)
    assert len([topics for topics in built if topics]) == len(following) + 1
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_an_octree_that_nobody_asks_for_any_more_is_dropped_and_made_anew(monkeypatch):
    monkeypatch.setattr(outputs, "_MOST_NOT_IN_OCTREE", 5)
    out, values = MapOutputs(0.08, "odom", pytest.fail), parameters.complete({})

    def change(number, label):
        indices, labels = np.full((1, 3), number, np.int32), np.full(1, label, np.uint8)
        out.apply(VoxelUpdate(indices, labels, np.ones(1, np.float32)), False)

    def octree():
        topic = "occupancy/octomap_binary"
        return out.built([topic], messages.to_header(1, "odom"), values)[topic]

    change(0, 3)
    first = octree()
    for _ in range(3):  # the same voxel, again and again: it is looked up once, as it is now
        change(1, 3)
    change(1, 0)
    second = octree()
    assert len(first.data) and bytes(first.data) != bytes(second.data) and not out._not_in_octree
    for number in range(8):
        change(number, 4)
    assert out._octree is None and len(out._not_in_octree) <= 5
    anew = octree()
    other = OctreeMap(0.08)
    known = out.map.known()
    other.apply(known.indices, known.labels, known.probabilities)
    assert bytes(anew.data) == bytes(other.binary_message(anew.header).data)
