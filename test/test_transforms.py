"""Poses by stamp: geometry against plain composition, every reason for a refusal, the queue, and live /tf."""

import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrocc.geometry import Pose
from sgrocc_ros.transforms import REASONS, BadTransform, PoseQueue, PoseUnavailable, TransformBuffer, add_tf_message

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def random_pose(rng: np.random.Generator) -> Pose:
    quaternion = rng.normal(size=4)
    return Pose.from_quaternion(quaternion / np.linalg.norm(quaternion), rng.uniform(-20, 20, 3))


def moved(x_m: float) -> Pose:
    return Pose(np.eye(3), np.array([x_m, 0.0, 0.0]))


def assert_close(pose: Pose, expected: Pose) -> None:
    np.testing.assert_allclose(pose.matrix, expected.matrix, rtol=0, atol=1e-9)


def stamped(parent="odom", child="camera", stamp_ns=NOW, pose=None, **wrong):
    """A geometry_msgs/TransformStamped in shape; `wrong` replaces numbers by name (x, y, z, qw, qx, qy, qz)."""
    pose = pose or Pose.identity()
    numbers = dict(zip(("x", "y", "z", "qw", "qx", "qy", "qz"), [*pose.translation, *pose.quaternion]))
    numbers.update(wrong)
    return SimpleNamespace(
        header=SimpleNamespace(
            frame_id=parent, stamp=SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
        ),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=numbers["x"], y=numbers["y"], z=numbers["z"]),
            rotation=SimpleNamespace(w=numbers["qw"], x=numbers["qx"], y=numbers["qy"], z=numbers["qz"]),
        ),
    )


def refusal(lookup, *arguments) -> PoseUnavailable:
    with pytest.raises(PoseUnavailable) as caught:
        lookup(*arguments)
    error = caught.value
    assert error.may_come == REASONS[error.reason] and "\n" not in str(error)
    return error


# -- geometry ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_lookup_is_the_composition_along_the_tree(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    frames = [f"frame{i}" for i in range(count)]
    in_world = [Pose.identity()]  # of each frame, by plain composition
    buffer = TransformBuffer()
    links = []
    for child in range(1, count):
        parent, pose, static = int(rng.integers(0, child)), random_pose(rng), bool(rng.integers(0, 2))
        in_world.append(in_world[parent] @ pose)
        links.append((frames[parent], frames[child], pose, static))
    for i in rng.permutation(count - 1):  # links may arrive in any order
        parent, child, pose, static = links[i]
        if not static:  # neighbours in time that must not leak in
            buffer.set_transform(parent, child, NOW + 50_000_000, random_pose(rng), False)
            buffer.set_transform(parent, child, NOW - 50_000_000, random_pose(rng), False)
        buffer.set_transform(parent, child, NOW, pose, static)
    for a in range(count):
        for b in range(count):
            a_from_b = buffer.lookup(frames[a], frames[b], NOW)
            assert_close(a_from_b, in_world[a].inverse() @ in_world[b])
            assert_close(a_from_b @ buffer.lookup(frames[b], frames[a], NOW), Pose.identity())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**9))
def test_between_two_stamps_the_pose_is_interpolated(seed, offset_ns):
    rng = np.random.default_rng(seed)
    before, after, mount = random_pose(rng), random_pose(rng), random_pose(rng)
    buffer = TransformBuffer()
    buffer.set_transform("odom", "base", NOW, before, False)
    buffer.set_transform("odom", "base", NOW + SECOND, after, False)
    buffer.set_transform("base", "camera", 0, mount, True)
    expected = before.interpolate(after, offset_ns / SECOND) @ mount
    assert_close(buffer.lookup("odom", "camera", NOW + offset_ns), expected)


def test_halfway_is_half_the_way_and_half_the_turn():
    quarter = Pose.from_quaternion(np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]), np.array([2.0, 4.0, 0.0]))
    buffer = TransformBuffer()
    buffer.set_transform("odom", "camera", NOW, Pose.identity(), False)
    buffer.set_transform("odom", "camera", NOW + SECOND, quarter, False)
    pose = buffer.lookup("odom", "camera", NOW + SECOND // 2)
    np.testing.assert_allclose(pose.translation, [1.0, 2.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(pose.rotation[:2, 0], [np.sqrt(0.5), np.sqrt(0.5)], atol=1e-12)


@given(st.permutations(range(8)))
def test_the_order_of_arrival_does_not_matter(order):
    buffer = TransformBuffer()
    for i in order:
        buffer.set_transform("odom", "camera", NOW + i * SECOND, moved(i * i), False)
    for i in range(7):
        expected = (i * i + (i + 1) ** 2) / 2
        assert buffer.lookup("odom", "camera", NOW + i * SECOND + SECOND // 2).translation[0] == pytest.approx(expected)


def test_the_last_word_at_a_stamp_counts():
    buffer = TransformBuffer()
    for stamp_ns, x_m in ((NOW, 1.0), (NOW, 2.0), (NOW + SECOND, 4.0), (NOW, 3.0)):
        buffer.set_transform("odom", "camera", stamp_ns, moved(x_m), False)
    assert buffer.lookup("odom", "camera", NOW).translation[0] == 3.0
    assert buffer.lookup("odom", "camera", NOW + SECOND // 2).translation[0] == 3.5


# -- refusals ---------------------------------------------------------------------------------------------------------


def driving() -> TransformBuffer:
    """odom -> base from NOW to NOW + 1 s, base -> camera static, and a tree of its own: map -> marker."""
    buffer = TransformBuffer()
    buffer.set_transform("odom", "base", NOW, moved(0), False)
    buffer.set_transform("odom", "base", NOW + SECOND, moved(1), False)
    buffer.set_transform("base", "camera", 0, moved(0.1), True)
    buffer.set_transform("map", "marker", 0, moved(5), True)
    return buffer


@pytest.mark.parametrize(
    ("target", "source", "stamp_ns", "reason", "may_come", "words"),
    [
        ("odom", "camera", NOW - 1, "pose_in_past", False, ["'base'", "1700000000.000 s", "tf_cache_time_s"]),
        ("odom", "camera", NOW + SECOND + 1, "pose_in_future", True, ["'base'", "1700000001.000 s", "clock"]),
        ("odom", "webcam", NOW, "frame_unknown", True, ["'webcam'", "/tf"]),
        ("world", "camera", NOW, "frame_unknown", True, ["'world'"]),
        ("odom", "", NOW, "frame_unknown", True, ["empty frame id"]),
        ("", "", NOW, "frame_unknown", True, ["empty frame id"]),
        ("map", "camera", NOW, "frames_unconnected", True, ["'map'", "'camera'", "/tf_static"]),
        ("odom", "camera", 0, "pose_in_past", False, ["header.stamp"]),
    ],
)
def test_a_missing_pose_is_refused_with_its_reason(target, source, stamp_ns, reason, may_come, words):
    error = refusal(driving().lookup, target, source, stamp_ns)
    assert (error.reason, error.may_come) == (reason, may_come)
    assert all(word in str(error) for word in words), str(error)


def test_the_ends_of_the_span_are_inside():
    buffer = driving()
    assert buffer.lookup("odom", "camera", NOW).translation[0] == pytest.approx(0.1)
    assert buffer.lookup("odom", "camera", NOW + SECOND).translation[0] == pytest.approx(1.1)


def test_a_frame_in_itself_is_the_identity_as_in_tf2():
    assert_close(driving().lookup("camera", "camera", NOW + 99 * SECOND), Pose.identity())
    assert_close(driving().lookup("unheard_of", "/unheard_of", NOW), Pose.identity())


def test_only_the_transforms_on_the_way_need_to_be_there():
    buffer = driving()
    assert_close(buffer.lookup("base", "camera", NOW + 100 * SECOND), moved(0.1))


def test_what_is_lost_in_one_transform_is_not_waited_for_in_another():
    buffer = driving()
    buffer.set_transform("camera", "lens", NOW + 5 * SECOND, moved(0), False)
    assert refusal(buffer.lookup, "odom", "lens", NOW + 2 * SECOND).reason == "pose_in_past"


def test_poses_older_than_the_cache_time_are_forgotten():
    buffer = TransformBuffer(cache_time_s=2.0)
    for i in range(50):
        buffer.set_transform("odom", "camera", NOW + i * SECOND // 10, moved(i), False)
    assert buffer.lookup("odom", "camera", NOW + 29 * SECOND // 10).translation[0] == 29
    assert refusal(buffer.lookup, "odom", "camera", NOW + 29 * SECOND // 10 - 1).reason == "pose_in_past"
    with pytest.raises(BadTransform, match="too old.*use_sim_time"):
        buffer.set_transform("odom", "camera", NOW, moved(0), False)


def test_clear_forgets_what_moves_and_keeps_what_is_static():
    buffer = driving()
    buffer.clear()
    assert refusal(buffer.lookup, "odom", "camera", NOW).reason == "frame_unknown"
    assert_close(buffer.lookup("base", "camera", NOW), moved(0.1))
    buffer.set_transform("odom", "base", NOW - 100 * SECOND, moved(3), False)
    assert_close(buffer.lookup("odom", "camera", NOW - 100 * SECOND), moved(3.1))


# -- bad transforms ---------------------------------------------------------------------------------------------------


def test_a_loop_is_refused_and_changes_nothing():
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "d")):
        buffer.set_transform(parent, child, NOW, moved(1), False)
    for parent, child in (("d", "a"), ("c", "a"), ("b", "a"), ("d", "b")):
        with pytest.raises(BadTransform, match=f"'{child}' to '{parent}' closes a loop") as caught:
            buffer.set_transform(parent, child, NOW + 1, moved(1), True)
        assert caught.value.reason == "frame_loop"
    with pytest.raises(BadTransform, match="loop"):
        buffer.set_transform("a", "a", NOW, moved(1), True)
    assert_close(buffer.lookup("a", "d", NOW), moved(3))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=40))
def test_no_sequence_of_transforms_makes_a_lookup_hang_or_fail_otherwise(messages):
    buffer = TransformBuffer()
    for i, (parent, child, static) in enumerate(messages):
        try:
            buffer.set_transform(f"f{parent}", f"f{child}", NOW + i, moved(1), static)
        except BadTransform as error:
            assert error.reason == "frame_loop"
    for target in range(5):
        for source in range(5):
            try:
                pose = buffer.lookup(f"f{target}", f"f{source}", NOW + len(messages))
            except PoseUnavailable as error:
                assert error.reason in ("frame_unknown", "frames_unconnected", "pose_in_future")
            else:
                assert abs(pose.translation[0]) <= 4


def test_a_new_parent_takes_over_and_the_past_is_not_mixed_in():
    buffer = TransformBuffer()
    buffer.set_transform("odom", "box", NOW, moved(1), False)
    buffer.set_transform("odom", "gripper", 0, moved(10), True)
    buffer.set_transform("gripper", "box", NOW + SECOND, moved(2), False)
    assert_close(buffer.lookup("gripper", "box", NOW + SECOND), moved(2))
    assert_close(buffer.lookup("odom", "box", NOW + SECOND), moved(12))
    assert refusal(buffer.lookup, "odom", "box", NOW + SECOND // 2).reason == "pose_in_past"
    with pytest.raises(BadTransform, match="'gripper'.*stop one") as caught:
        buffer.set_transform("odom", "box", NOW + SECOND // 2, moved(1), False)
    assert caught.value.reason == "two_parents"
    assert_close(buffer.lookup("odom", "box", NOW + SECOND), moved(12))


def test_the_newest_message_decides_whether_a_frame_is_static():
    buffer = TransformBuffer()
    buffer.set_transform("odom", "camera", NOW, moved(1), False)
    buffer.set_transform("odom", "camera", NOW, moved(2), True)
    assert_close(buffer.lookup("odom", "camera", NOW + 99 * SECOND), moved(2))
    buffer.set_transform("odom", "camera", NOW, moved(3), False)
    assert refusal(buffer.lookup, "odom", "camera", NOW + 99 * SECOND).reason == "pose_in_future"


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (stamped(x=NAN), "from 'camera' to 'odom' is refused: the pose holds NaN"),
        (stamped(z=INFINITY), "from 'camera' to 'odom' is refused: the pose holds NaN or infinity"),
        (stamped(qw=NAN), "from 'camera' to 'odom' is refused: the pose's quaternion"),
        (stamped(qw=1.02), "quaternion has length 1.02"),
        (stamped(qw=0.0), "quaternion has length 0"),
        (stamped(parent=""), "from 'camera' to '' has an empty frame id"),
        (stamped(child="/"), "from '' to 'odom' has an empty frame id"),
        (stamped(parent="camera"), "from 'camera' to 'camera' closes a loop"),
        (stamped(parent="/camera"), "from 'camera' to 'camera' closes a loop"),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_a_bad_transform_is_named_and_leaves_the_buffer_and_its_neighbours_alone(bad, words, static):
    buffer = driving()
    message = SimpleNamespace(transforms=[bad, stamped("base", "imu", NOW, moved(7))])
    [sentence] = add_tf_message(buffer, message, static)
    assert words in sentence
    assert_close(buffer.lookup("odom", "camera", NOW), moved(0.1))
    assert_close(buffer.lookup("base", "imu", NOW), moved(7))


def test_a_quaternion_within_one_percent_is_normalised():
    buffer = TransformBuffer()
    assert add_tf_message(buffer, SimpleNamespace(transforms=[stamped(qw=1.009)]), False) == []
    assert_close(buffer.lookup("odom", "camera", NOW), Pose.identity())


def test_leading_slashes_do_not_matter():
    buffer = TransformBuffer()
    assert add_tf_message(buffer, SimpleNamespace(transforms=[stamped("/odom", "/camera", NOW, moved(1))]), True) == []
    assert_close(buffer.lookup("odom", "camera", NOW), moved(1))
    assert_close(buffer.lookup("/odom", "/camera", NOW), moved(1))


def test_a_sum_beyond_numbers_is_refused_as_bad():
    buffer = TransformBuffer()
    buffer.set_transform("odom", "base", NOW, moved(1.7e308), True)
    buffer.set_transform("base", "camera", NOW, moved(1.7e308), True)
    with np.errstate(over="ignore"):
        assert refusal(buffer.lookup, "odom", "camera", NOW).reason == "bad_transform"


def test_a_buffer_that_remembers_nothing_is_refused():
    for cache_time_s in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="more than 0 s"):
            TransformBuffer(cache_time_s)


# -- the queue --------------------------------------------------------------------------------------------------------


class Poses:
    """A lookup whose answers a test sets: item -> Pose, or the reason why there is none."""

    def __init__(self, **answers) -> None:
        self.answers = answers

    def __call__(self, item: str) -> Pose:
        answer = self.answers.get(item, "pose_in_future")
        if isinstance(answer, str):
            raise PoseUnavailable(answer, f"no pose for {item}")
        return answer


def test_frames_leave_in_the_order_of_their_stamps_with_their_own_pose():
    queue = PoseQueue(10, 1.0)
    for stamp, item in ((3, "c"), (1, "a"), (2, "b")):
        assert queue.push(stamp, item, 0.0) == []
    ready, dropped = queue.poll(Poses(a=moved(1), b=moved(2), c=moved(3)), 0.0)
    assert [(item, pose.translation[0]) for item, pose in ready] == [("a", 1), ("b", 2), ("c", 3)]
    assert dropped == [] and len(queue) == 0


@pytest.mark.parametrize("reason", ["frame_unknown", "frames_unconnected", "pose_in_future"])
def test_a_frame_whose_pose_may_come_holds_up_the_younger_ones_until_its_time_is_over(reason):
    queue = PoseQueue(10, 1.0)
    queue.push(1, "a", 5.0)
    queue.push(2, "b", 5.5)
    poses = Poses(a=reason, b=moved(2))
    assert queue.poll(poses, 5.99) == ([], []) and len(queue) == 2
    ready, dropped = queue.poll(poses, 6.0)
    assert dropped == [("a", reason, "no pose for a")]
    assert [item for item, _ in ready] == ["b"]


@pytest.mark.parametrize("reason", ["pose_in_past", "bad_transform"])
def test_a_frame_whose_pose_cannot_come_leaves_at_once(reason):
    queue = PoseQueue(10, 1.0)
    queue.push(1, "a", 5.0)
    queue.push(2, "b", 5.0)
    ready, dropped = queue.poll(Poses(a=reason, b=moved(2)), 5.0)
    assert dropped == [("a", reason, "no pose for a")] and [item for item, _ in ready] == ["b"]


def test_a_full_queue_drops_its_oldest_frame():
    queue = PoseQueue(2, 1.0)
    assert [queue.push(stamp, stamp, 0.0) for stamp in (1, 3, 2)] == [[], [], [(1, "queue_full")]]
    assert queue.push(0, 0, 0.0) == [(0, "queue_full")]  # itself the oldest
    assert [item for item, _ in queue.poll(lambda item: moved(item), 0.0)[0]] == [2, 3]


def test_a_lookup_that_breaks_gives_up_its_frame_alone():
    queue = PoseQueue(5, 1.0)
    for stamp in (1, 2):
        queue.push(stamp, stamp, 0.0)

    def lookup(item):
        if item == 1:
            raise ZeroDivisionError("a bug")
        return Pose.identity()

    ready, dropped = queue.poll(lookup, 0.0)
    assert [item for item, _ in ready] == [2] and len(queue) == 0
    assert [(item, reason) for item, reason, _ in dropped] == [(1, "internal_error")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from([*REASONS, ""])), max_size=40), st.integers(1, 8))
def test_every_frame_leaves_once(frames, max_length):
    queue = PoseQueue(max_length, 1.0)
    left = []
    for number, (stamp, _) in enumerate(frames):
        left += [item for item, _ in queue.push(stamp, number, float(number))]

    def lookup(number):
        return Poses(x=frames[number][1] or moved(number))("x")

    stamps = []
    for now_s in range(len(frames) + 2):
        ready, dropped = queue.poll(lookup, float(now_s))
        assert all(frames[item][1] == "" and pose.translation[0] == item for item, pose in ready)
        assert all(frames[item][1] == reason for item, reason, _ in dropped)
        stamps += [frames[item][0] for item, _ in ready]
        left += [item for item, *_ in [*ready, *dropped]]
    assert sorted(left) == list(range(len(frames))) and stamps == sorted(stamps)


def test_a_queue_without_room_is_refused():
    for arguments in ((0, 1.0), (1, -1.0), (1, NAN)):
        with pytest.raises(ValueError, match="room for one frame"):
            PoseQueue(*arguments)


# -- live: two nodes, /tf and /tf_static ------------------------------------------------------------------------------


@pytest.fixture
def ros(monkeypatch):
    """(sender, listener, spin) in a context and on a domain of their own; spin(condition) fails after 10 s."""
    rclpy = pytest.importorskip("rclpy", reason="needs rclpy")
    pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    executor = SingleThreadedExecutor(context=context)
    nodes = [rclpy.create_node(name, context=context) for name in ("tf_sender", "tf_listener")]
    for node in nodes:
        executor.add_node(node)

    def spin(condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "nothing came within 10 s"
            executor.spin_once(timeout_sec=0.02)

    yield (*nodes, spin)
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture(params=["tf2_ros", "own"])
def ros_transforms(request, ros, monkeypatch):
    """A factory of RosTransforms, over tf2_ros and over the buffer of our own."""
    if request.param == "own":
        monkeypatch.setitem(sys.modules, "tf2_ros", None)
    else:
        pytest.importorskip("tf2_ros", reason="needs tf2_ros")
    from sgrocc_ros.transforms import RosTransforms

    return lambda: RosTransforms(ros[1], cache_time_s=10.0)


@pytest.fixture
def send(ros):
    """send(message, static): publishes a transform made by `stamped`, latched where static."""
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    latched = QoSProfile(depth=10, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    publishers = [
        ros[0].create_publisher(TFMessage, topic, qos) for topic, qos in (("/tf", 10), ("/tf_static", latched))
    ]

    def publish(shape, static):
        message = TransformStamped(child_frame_id=shape.child_frame_id)
        message.header.frame_id = shape.header.frame_id
        message.header.stamp.sec, message.header.stamp.nanosec = shape.header.stamp.sec, shape.header.stamp.nanosec
        for part, names in (("translation", "xyz"), ("rotation", "wxyz")):
            for name in names:
                value = float(getattr(getattr(shape.transform, part), name))
                setattr(getattr(message.transform, part), name, value)
        publishers[static].publish(TFMessage(transforms=[message]))

    publish.listened = lambda: publishers[0].get_subscription_count() > 0
    return publish


def can(transforms, target, source, stamp_ns):
    def condition():
        try:
            transforms.lookup(target, source, stamp_ns)
        except PoseUnavailable:
            return False
        return True

    return condition


def test_live_poses_come_over_tf_and_the_late_listener_gets_the_static_ones(ros, ros_transforms, send):
    _, _, spin = ros
    rng = np.random.default_rng(7)
    before, after, mount = (random_pose(rng) for _ in range(3))
    send(stamped("base", "/camera", NOW, mount), True)  # before anyone listens
    transforms = ros_transforms()
    assert refusal(transforms.lookup, "odom", "camera", NOW).reason == "frame_unknown"
    spin(can(transforms, "base", "camera", NOW))
    spin(send.listened)
    for stamp_ns, pose in ((NOW, before), (NOW + SECOND, after)):
        send(stamped("/odom", "base", stamp_ns, pose), False)
    spin(can(transforms, "odom", "camera", NOW + SECOND))

    assert_close(transforms.lookup("odom", "camera", NOW), before @ mount)
    middle = before.interpolate(after, 0.25) @ mount
    assert_close(transforms.lookup("odom", "/camera", NOW + SECOND // 4), middle)
    assert_close(transforms.lookup("camera", "odom", NOW + SECOND // 4), middle.inverse())
    assert_close(transforms.lookup("unheard_of", "unheard_of", NOW), Pose.identity())


def test_live_refusals_have_the_same_reasons_and_clear_keeps_the_static_ones(ros, ros_transforms, send):
    _, _, spin = ros
    transforms = ros_transforms()
    spin(send.listened)
    send(stamped("base", "camera", NOW, moved(0.1)), True)
    send(stamped("map", "marker", NOW, moved(5)), True)
    for offset in (0, 1):
        send(stamped("odom", "base", NOW + offset * SECOND, moved(offset)), False)
    spin(can(transforms, "odom", "camera", NOW + SECOND))
    spin(can(transforms, "map", "marker", NOW))
    for target, source, stamp_ns, reason in (
        ("odom", "camera", NOW - 1, "pose_in_past"),
        ("odom", "camera", NOW + SECOND + 1, "pose_in_future"),
        ("odom", "webcam", NOW, "frame_unknown"),
        ("odom", "", NOW, "frame_unknown"),
        ("map", "camera", NOW, "frames_unconnected"),
        ("odom", "camera", 0, "pose_in_past"),
    ):
        assert refusal(transforms.lookup, target, source, stamp_ns).reason == reason

    transforms.clear()
    assert refusal(transforms.lookup, "odom", "camera", NOW).may_come
    assert_close(transforms.lookup("base", "camera", NOW), moved(0.1))
    for stamp_ns in (NOW - 100 * SECOND, NOW - 99 * SECOND):  # as after a recording started again
        send(stamped("odom", "base", stamp_ns, moved(9)), False)
    spin(can(transforms, "odom", "camera", NOW - 99 * SECOND))
    assert_close(transforms.lookup("odom", "camera", NOW - 99 * SECOND), moved(9.1))


def test_live_bad_transforms_never_become_a_pose(ros, ros_transforms, send):
    _, _, spin = ros
    transforms = ros_transforms()
    spin(send.listened)
    send(stamped("odom", "camera", NOW, moved(1)), False)
    for wrong in ({"x": NAN}, {"qw": NAN}, {"qw": 1.5}, {"x": INFINITY}):
        send(stamped("odom", "camera", NOW + SECOND, **wrong), False)
    send(stamped("odom", "camera", NOW - SECOND, moved(3)), False)  # known to be the last one handled
    spin(can(transforms, "odom", "camera", NOW - SECOND // 2))
    assert_close(transforms.lookup("odom", "camera", NOW), moved(1))
    assert refusal(transforms.lookup, "odom", "camera", NOW + SECOND // 2).reason == "pose_in_future"
    assert transforms.problems == {"bad_numbers": 4}


def test_live_simulated_time_that_jumps_back_clears_what_moves(ros, ros_transforms, send):
    from rclpy.parameter import Parameter
    from rosgraph_msgs.msg import Clock

    sender, listener, spin = ros
    listener.set_parameters([Parameter("use_sim_time", value=True)])
    clock = sender.create_publisher(Clock, "/clock", 10)
    transforms = ros_transforms()
    spin(lambda: send.listened() and clock.get_subscription_count() > 0)

    def set_clock(seconds):
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)
        spin(lambda: listener.get_clock().now().nanoseconds == seconds * SECOND)

    set_clock(2000)
    for stamp_ns in (1999 * SECOND, 2000 * SECOND):
        send(stamped("odom", "camera", stamp_ns, moved(1)), False)
    spin(can(transforms, "odom", "camera", 2000 * SECOND))
    set_clock(1000)
    assert refusal(transforms.lookup, "odom", "camera", 2000 * SECOND).may_come
    for stamp_ns in (999 * SECOND, 1000 * SECOND):
        send(stamped("odom", "camera", stamp_ns, moved(2)), False)
    spin(can(transforms, "odom", "camera", 1000 * SECOND))
    assert_close(transforms.lookup("odom", "camera", 1000 * SECOND), moved(2))
