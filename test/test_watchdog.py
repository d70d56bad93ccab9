"""Nothing appears: every cause is named, in one sentence, on /diagnostics and in the log."""

import re
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from test_lifecycle import change
from test_nodes import BEST_EFFORT, running

AFTER = {"watchdog_after_s": 0.5}


def said(run, node: str, words: str, timeout_s: float = 25.0) -> str:
    """Waits for a status of a node that has the words, and returns it; the log must have said it, too."""
    heard = []

    def on_diagnostics(message: DiagnosticArray) -> None:
        heard.extend(s.message for s in message.status if s.name == f"/{node}: status" and words in s.message)

    subscription = run.robot.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    try:
        run.wait_for(lambda: bool(heard), timeout_s)
    finally:
        run.end(subscription)
    return heard[-1]


@pytest.fixture
def log(capfd):
    """What the log said since the last call."""
    return lambda: capfd.readouterr().err


def test_an_image_that_nobody_publishes_is_named_with_what_there_is_instead(log):
    with running(until_ready=False, **AFTER) as run:
        run.end(run.robot.image)
        other = run.robot.node.create_publisher(Image, "/head/image_rect", BEST_EFFORT)
        run.wait_for(lambda: run.robot.node.count_publishers("/image") == 0)
        sentence = said(run, "spatial_expert", "remap `image` to /")
        assert re.search(r"no image for \d+ s: nobody publishes /image; remap `image` to .*/head/image_rect", sentence)
        assert "nobody publishes /image" in log() and other


def test_a_compressed_image_is_named_as_it_is_remapped():
    with running(until_ready=False, image_transport="compressed", **AFTER) as run:
        run.robot.node.create_publisher(CompressedImage, "/head/color/compressed", BEST_EFFORT)
        run.robot.node.create_publisher(CompressedImage, "/head/theora", BEST_EFFORT)
        sentence = said(run, "spatial_expert", "remap `image` to /")
        assert sentence.endswith("nobody publishes /image/compressed; remap `image` to /head/color")


def test_a_remapped_compressed_image_is_watched_under_its_own_name():
    remapped = ["--ros-args", "-r", "/image/compressed:=/head/jpeg"]
    with running(until_ready=False, image_transport="compressed", cli_args=remapped, **AFTER) as run:
        asks = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
        publisher = run.robot.node.create_publisher(CompressedImage, "/head/jpeg", asks)
        sentence = said(run, "spatial_expert", "though /robot publishes /head/jpeg")
        assert sentence.startswith("no image for") and publisher.get_subscription_count() == 1


def test_a_report_that_fails_does_not_end_the_node(log):
    with running(**AFTER) as run:
        run.expert.health.judge = lambda: 1 / 0
        run.wait_for(lambda: "ZeroDivisionError" in log())
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.expert.health.judge = dict
        run.wait_for(lambda: "no image" in run.expert.health.message)


def test_a_publisher_that_sends_nothing_is_named(log):
    with running(**AFTER) as run:
        sentence = said(run, "spatial_expert", "ros2 topic hz /image")
        assert "though /robot publishes /image" in sentence and "though /robot publishes" in log()

        def sends_and_nothing_is_missing() -> bool:
            run.robot.send_good_frame()
            time.sleep(0.1)
            return "no image" not in run.expert.health.message

        run.wait_for(sends_and_nothing_is_missing)


def test_a_missing_camera_info_is_named():
    with running(until_ready=False, **AFTER) as run:
        run.end(run.robot.info)
        run.wait_for(lambda: run.robot.image.get_subscription_count() and run.robot.depth.get_subscription_count())
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            image, _, depth = run.robot.frame()
            run.robot.send(image, None, depth)
            time.sleep(0.1)
            if "camera_info" in run.expert.health.message:
                break
        assert "no camera_info for" in run.expert.health.message
        assert "nobody publishes /camera_info" in run.expert.health.message


def test_a_qos_that_does_not_fit_is_named(log):
    reliable = {"qos_overrides./image.subscription.reliability": "reliable"}
    with running(BEST_EFFORT, until_ready=False, **AFTER, **reliable) as run:
        sentence = said(run, "spatial_expert", "qos_overrides./image.subscription.reliability")
        assert "/robot offers /image with reliability best_effort and we ask for reliable" in sentence
        assert "to best_effort" in sentence and "we ask for reliable" in log()


def test_a_missing_transform_is_named(log):
    with running(**AFTER) as run:
        run.robot.send(*run.robot.frame())
        sentence = said(run, "gaussian_memory", "no pose of")
        assert "'camera_optical_frame' in 'odom'" in sentence and "no pose of 'camera_optical_frame'" in log()


def test_simulated_time_without_a_clock_is_named(log):
    with running(use_sim_time=True, **AFTER) as run:
        sentence = said(run, "spatial_expert", "no /clock comes")
        assert sentence.startswith("use_sim_time is true, but no /clock comes: play the bag with --clock")
        assert "no /clock comes" in log()


def test_a_clock_that_stands_still_is_named():
    from rosgraph_msgs.msg import Clock

    with running(use_sim_time=True, **AFTER) as run:
        clock = run.robot.node.create_publisher(Clock, "/clock", 10)
        run.wait_for(lambda: clock.get_subscription_count() >= 3)
        message = Clock()
        message.clock.sec = 5
        clock.publish(message)
        assert "has stood still for" in said(run, "gaussian_memory", "/clock has stood still")


def test_a_map_that_nobody_reads_is_no_fault_but_is_said(log):
    with running(**AFTER) as run:
        run.end(*run.robot.node.subscriptions)
        time.sleep(1.6)
        assert "nobody subscribes" not in log()  # before there is a map
        run.robot.stamp_ns = time.time_ns()
        run.robot.send_good_frame()
        sentence = said(run, "occupancy_publisher", "nobody subscribes to the map")
        assert "/occupancy/points" in sentence and run.nodes[0].health.level == b"\x00"
        assert "nobody subscribes" in log()


def test_a_reader_whose_qos_does_not_fit_is_named():
    best_effort = {"qos_overrides./occupancy/grid.publisher.reliability": "best_effort"}
    with running(**AFTER, **best_effort) as run:
        asks = QoSProfile(
            depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
        )
        run.robot.node.create_subscription(OccupancyGrid, "occupancy/grid", lambda _: None, asks)
        sentence = said(run, "occupancy_publisher", "/robot listens to /occupancy/grid")
        assert "asks for reliable where we offer best_effort" in sentence


def test_a_node_that_is_not_active_says_so():
    with running(**AFTER) as run:
        assert change(run, "spatial_expert", Transition.TRANSITION_DEACTIVATE)
        assert said(run, "spatial_expert", "inactive") == "inactive: activate the node"


def test_a_latency_above_the_threshold_is_a_fault():
    with running(**AFTER) as run:  # its stamps are of the year 1970
        run.robot.send_good_frame()
        assert "ms behind the images, more than latency_error_ms" in said(
            run, "occupancy_publisher", "behind the images"
        )
