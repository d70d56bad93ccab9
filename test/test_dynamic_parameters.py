"""Every dynamic parameter is set on a running node, and what it changes is seen."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from scenes import pose_at
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from test_lifecycle import WALL_VOXEL, call
from test_nodes import fresh_domain, in_executor, running, spinning

from sgrocc.geometry import Pose
from sgrocc.labels import CLASS_NAMES, FREE, GENERIC, TABLE
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros import health, parameters
from sgrocc_ros.lifecycle import MAP_QOS
from sgrocc_ros.occupancy_publisher_node import OccupancyPublisherNode
from sgrocc_ros.outputs import OUTPUTS, MapUpdate
from sgrocc_ros.worker import bring_up

MEMORY = {
    "max_gaussians": 1000,
    "occupied_threshold": 0.9,
    "guessed_threshold": 0.6,
    "max_frames": 2.0,
    "confidence": "semantic",
    "temperature": 2.0,
    "lowest_confidence": 0.1,
    "highest_confidence": 0.8,
    "frozen_below": 0.2,
    "aggregation": "additive",
    "max_inferred_m": 0.1,
    "radius_m": 5.0,
    "decay_frames": 7,
}
COSTS = {f"cost.{name}" for name in CLASS_NAMES}
PUBLISHER = {
    "publish_rate_hz",
    "octomap_rate_hz",
    "grid_min_height_m",
    "grid_max_height_m",
    "network_free_space",
    "max_markers",
    "max_distance_m",
    "ply_file",
    "latency_warn_ms",
    "latency_error_ms",
}
PIPELINE = {
    "watchdog_after_s",
    "table_period_s",
    "max_partner_wait_s",
    "max_pose_wait_s",
    "map_jump_m",
    "map_jump_deg",
    "on_map_jump",
    "on_time_jump",
    "map_file",
    "gaussian_cloud_rate_hz",
}


def test_no_dynamic_parameter_is_left_out():
    here = {f"memory.{name}" for name in MEMORY} | COSTS | PUBLISHER | PIPELINE
    assert here == {row.name for row in parameters.TABLE if row.dynamic}


def change(node, **values) -> None:
    result = node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])
    assert result.successful, result.reason


# -- the publisher -----------------------------------------------------------------------------------------------------


class Published:
    """The publisher in a pipeline that is the test itself, and what is heard of it."""

    def __init__(self, context, node) -> None:
        self.node, self.stamp_ns, self.heard = node, 0, {}
        self.reader = rclpy.create_node("reader", context=context)
        for topic, (kind, _) in OUTPUTS.items():
            self.reader.create_subscription(kind, topic, lambda m, topic=topic: self.heard.update({topic: m}), MAP_QOS)

    def wait_for(self, condition, timeout_s: float = 5.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.heard.keys()
            time.sleep(0.01)

    def update(self, voxels: dict, delay_s: float = 0.0) -> None:
        """voxels: {(i, j, k): label}; delay_s: how old the frame is."""
        labels = np.array(list(voxels.values()), np.uint8)
        update = VoxelUpdate(np.array(list(voxels), np.int32), labels, (labels != FREE).astype(np.float32))
        self.stamp_ns = self.node.get_clock().now().nanoseconds - int(delay_s * 1e9)
        self.node.accept(MapUpdate(update, self.stamp_ns, False, 0.08, "odom"))

    def next(self, topic: str, voxels: dict, delay_s: float = 0.0):
        """The message of a topic after this update."""
        self.heard.pop(topic, None)
        self.update(voxels, delay_s)
        self.wait_for(lambda: topic in self.heard)
        return self.heard[topic]


@contextmanager
def published(**overrides):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=fresh_domain())
    given = [Parameter(name, value=value) for name, value in overrides.items()]
    node = OccupancyPublisherNode(in_pipeline=True, parameter_overrides=given, context=context)
    assert bring_up([node]), node.problem
    made = Published(context, node)
    with spinning([node], made.reader):
        made.wait_for(lambda: all(node.outputs[topic].get_subscription_count() for topic in OUTPUTS))
        yield made


def test_the_costs_and_the_band_of_the_grids():
    with published(octomap_rate_hz=100.0) as run:
        row = {(label, 0, 5): label for label in range(1, len(CLASS_NAMES) + 1)}
        for number, name in enumerate(CLASS_NAMES):
            change(run.node, **{f"cost.{name}": 11 + number})
        assert list(run.next("occupancy/cost", row).data) == [11 + number for number in range(len(CLASS_NAMES))]
        assert max(run.next("occupancy/grid", row).data) == 100
        for first, second in (("grid_min_height_m", "grid_max_height_m"), ("grid_max_height_m", "grid_min_height_m")):
            change(run.node, grid_min_height_m=0.1, grid_max_height_m=1.5)
            assert len(run.next("occupancy/grid", row).data) == 11
            # Above the row, or below it: one bound at a time moves past the voxel at 0.40 to 0.48 m.
            change(run.node, **{first: 0.6 if first.endswith("min_height_m") else 0.2})
            assert len(run.next("occupancy/grid", row).data) == 0, second


def test_how_much_is_sent():
    with published(octomap_rate_hz=100.0) as run:
        block = {(i, j, 5): TABLE for i in range(10) for j in range(10)}

        def cubes() -> int:
            return sum(len(marker.points) for marker in run.next("occupancy/markers", block).markers)

        assert cubes() == 100
        change(run.node, max_markers=7)
        assert cubes() <= 7
        free = {(40 + i, 0, 5): FREE for i in range(60)}

        def farthest() -> float:
            cloud = run.next("occupancy/distance", free)
            [offset] = [field.offset for field in cloud.fields if field.name == "distance"]
            data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
            return float(np.ascontiguousarray(data[:, offset : offset + 4]).view(np.float32).max())

        run.update(block)
        assert farthest() > 2.0
        change(run.node, max_distance_m=0.7)
        assert farthest() == pytest.approx(0.7)


def test_free_space_of_a_network_is_sent_once_it_is_asked_for():
    with published(depth_source="network", expert="learned") as run:
        cells = {(0, 0, 5): FREE, (1, 0, 5): TABLE}
        assert list(run.next("occupancy/grid", cells).data) == [-1, 100]
        change(run.node, network_free_space=True)
        assert list(run.next("occupancy/grid", cells).data) == [0, 100]


def test_the_rates_hold_from_now_on_and_not_after_the_old_period():
    for name, topic in (("publish_rate_hz", "occupancy/points"), ("octomap_rate_hz", "occupancy/markers")):
        with published(publish_rate_hz=1000.0, octomap_rate_hz=100.0) as run:
            run.next(topic, {(0, 0, 5): TABLE})
            change(run.node, **{name: 0.1})
            del run.heard[topic]
            run.update({(1, 0, 5): TABLE})
            time.sleep(0.7)
            assert topic not in run.heard
            change(run.node, **{name: 50.0})
            run.wait_for(lambda topic=topic: topic in run.heard, 2.0)  # of a period of 10 s


def test_the_latency_is_judged_by_the_thresholds_of_now_and_by_new_frames_alone():
    with published(latency_warn_ms=60e3, latency_error_ms=120e3) as run:
        judged = run.node._judge

        def after(count: int, delay_s: float) -> dict:
            for _ in range(count):
                run.next("occupancy/points", {(0, 0, 5): TABLE}, delay_s)
            return {name: level for name, (level, _) in judged().items()}

        assert after(1, 0.3) == {}
        change(run.node, latency_warn_ms=200.0)
        assert judged()["latency"][0] == b"\x01"
        change(run.node, latency_error_ms=250.0)
        assert judged()["latency"][0] == b"\x02" and judged()["latency"][0] == b"\x02"  # looking does not clear it
        assert float(run.node.details()["latency_ms"]) > 250
        change(run.node, latency_warn_ms=60e3, latency_error_ms=120e3)
        assert judged() == {}
        noted = len(run.node._latency._noted)
        late = []
        run.reader.create_subscription(PointCloud2, "occupancy/points", late.append, MAP_QOS)
        run.wait_for(lambda: late)
        assert len(run.node._latency._noted) == noted  # an old frame for a new reader is not a slow one


def test_the_file_of_the_ply(tmp_path):
    with published() as run:
        run.next("occupancy/points", {(0, 0, 5): TABLE})
        assert not call(run_of(run), Trigger, "occupancy_publisher/save_ply").success
        change(run.node, ply_file=str(tmp_path / "map.ply"))
        assert call(run_of(run), Trigger, "occupancy_publisher/save_ply").success
        assert (tmp_path / "map.ply").is_file()


def run_of(run: Published) -> SimpleNamespace:
    return SimpleNamespace(robot=SimpleNamespace(node=run.reader), wait_for=run.wait_for)


# -- memory and expert -------------------------------------------------------------------------------------------------


def test_the_settings_of_the_memory_reach_the_next_frame():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.robot.send_good_frame(pose=pose_at(0, 4.0, 0))
        run.wait_until_fused(2)
        assert len(run.memory._memory) > 1000
        for name, value in MEMORY.items():
            change(run.memory, **{f"memory.{name}": value})
            run.wait_for(lambda name=name, value=value: getattr(run.memory._memory.config, name) == value)
        run.robot.send_good_frame()
        run.wait_until_fused(3)
        assert len(run.memory._memory) <= 1000 and run.map()[WALL_VOXEL] == GENERIC
        run.robot.send_good_frame(pose=pose_at(30.0, 0, 0))
        run.wait_for(lambda: sum((run.counts["fused"], *run.counts["dropped"].values())) == 4)
        assert WALL_VOXEL not in run.map()  # beyond radius_m


def test_how_long_frames_wait():
    with running(max_partner_wait_s=60.0, max_pose_wait_s=60.0) as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        image, info, _ = run.robot.frame()
        run.robot.send(image, info)  # no depth
        time.sleep(0.6)
        assert run.counts["dropped"] == {}
        change(run.expert, max_partner_wait_s=0.05)
        run.wait_until_dropped("no_depth")
        run.robot.send(*run.robot.frame())  # no transform
        time.sleep(0.6)
        assert run.counts["dropped"] == {"no_depth": 1}
        change(run.memory, max_pose_wait_s=0.05)
        run.wait_until_dropped("pose_in_future")


def test_what_is_a_jump_and_what_follows(monkeypatch):
    with running(global_frame="map") as run:

        def frame_at(x: float, degrees: float = 0.0) -> str:
            half = np.radians(degrees) / 2
            pose = Pose.from_quaternion(np.array([np.cos(half), 0, 0, np.sin(half)]), np.array([x, 0, 0]))
            run.memory.health.last_sentences.pop("map_jumped", None)
            frame, fused = run.robot.frame(), run.counts["fused"]
            run.robot.send_pose(pose, parent="map", child="odom")
            run.robot.send_pose()
            run.robot.send(*frame)
            run.wait_until_fused(fused + 1)
            run.memory.health.report()
            return run.memory.health.last_sentences.get("map_jumped", "")

        assert frame_at(0.0) == "" and "by 1.00 m" in frame_at(1.0)
        change(run.memory, map_jump_m=2.0)
        assert frame_at(0.0) == "" and "by 0.00 m and 8.0 degrees" in frame_at(0.0, 8.0)
        change(run.memory, map_jump_deg=10.0)
        assert frame_at(0.0) == ""
        behind = [voxel for voxel in run.map() if voxel[0] < 4]
        assert behind
        change(run.memory, on_map_jump="reset")
        assert "by 3.00 m" in frame_at(3.0) and not [voxel for voxel in run.map() if voxel[0] < 4]

        back = SimpleNamespace(delta=SimpleNamespace(nanoseconds=-(10**9)))
        in_executor(run.robot.node.executor, lambda: run.memory._on_time_jump(back))
        run.wait_for(lambda: run.memory._jumps._last is None)  # nothing is compared with what came before
        assert run.map()
        change(run.memory, on_time_jump="reset")
        in_executor(run.robot.node.executor, lambda: run.memory._on_time_jump(back))
        run.wait_for(lambda: run.map() == {})


def test_what_is_said_and_how_often(tmp_path, monkeypatch):
    with running() as run:
        clouds = []
        run.robot.node.create_subscription(PointCloud2, "gaussians/memory", clouds.append, MAP_QOS)
        run.wait_for(lambda: run.memory.outputs["gaussians/memory"].get_subscription_count())
        run.robot.send_good_frame()
        run.wait_for(lambda: len(clouds) == 1)
        change(run.memory, gaussian_cloud_rate_hz=0.01)
        run.robot.send_good_frame()
        run.wait_until_fused(2)
        time.sleep(0.3)
        assert len(clouds) == 1
        change(run.memory, gaussian_cloud_rate_hz=30.0)
        run.robot.send_good_frame()
        run.wait_for(lambda: len(clouds) == 2, 2.0)

        assert not call(run, Trigger, "gaussian_memory/save_map").success
        change(run.memory, map_file=str(tmp_path / "m.map"))
        assert call(run, Trigger, "gaussian_memory/save_map").success and (tmp_path / "m.map").is_file()

        time.sleep(0.6)
        assert run.expert.health.watchdog.missing() is None
        change(run.expert, watchdog_after_s=0.5)
        assert run.expert.health.watchdog.missing()[0] == "no_image"
        change(run.expert, watchdog_after_s=3600.0)
        assert run.expert.health.watchdog.missing() is None

        tables = []
        monkeypatch.setattr(health, "table_of", lambda *_: tables.append(1) or "")
        run.memory.get_logger().set_level(LoggingSeverity.DEBUG)
        try:
            change(run.memory, table_period_s=3600.0)
            run.memory.health._log_table()
            seen = len(tables)
            time.sleep(0.2)
            run.memory.health._log_table()
            assert len(tables) == seen
            change(run.memory, table_period_s=0.1)
            run.memory.health._log_table()
            assert len(tables) == seen + 1
        finally:
            run.memory.get_logger().set_level(LoggingSeverity.INFO)
