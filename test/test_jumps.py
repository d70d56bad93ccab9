"""Jumps of the map's frame and of the clock, a scale that is wrong, and nodes that are killed."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from rosgraph_msgs.msg import Clock
from scenes import pose_at
from std_msgs.msg import Float64
from test_nodes import BEST_EFFORT, Robot, label_in, running

from sgrocc.experts.geometric import GeometricExpert
from sgrocc.geometry import Pose
from sgrocc.labels import GENERIC
from sgrocc_ros import demo, parameters
from sgrocc_ros.jumps import MapJumps
from sgrocc_ros.transforms import PoseUnavailable

WALL_VOXEL = (25, 0, 0)  # 2.0 to 2.08 m ahead


# -- the frame of the map ----------------------------------------------------------------------------------------------


def turned(degrees: float, x: float = 0.0) -> Pose:
    half = np.radians(degrees) / 2
    return Pose.from_quaternion(np.array([np.cos(half), 0, 0, np.sin(half)]), np.array([x, 0, 0]))


@pytest.mark.parametrize(
    ("poses", "jumps"),
    [
        ([turned(0), turned(0, 0.29)], 0),
        ([turned(0), turned(0, 0.31)], 1),
        ([turned(0), turned(4.9)], 0),
        ([turned(0), turned(5.1)], 1),
        ([turned(0, 0.1 * i) for i in range(20)], 0),  # it drifts
        ([turned(0), turned(0, 1.0), turned(0, 1.0)], 1),  # once, not for ever
        ([turned(0), None, turned(0, 1.0)], 1),
    ],
)
def test_a_jump_is_more_than_the_limit_between_two_frames(poses, jumps):
    left = iter(poses)

    def lookup(target, source, stamp_ns):
        assert (target, source) == ("map", "odom")
        pose = next(left)
        if pose is None:
            raise PoseUnavailable("pose_in_future", "later")
        return pose

    watch = MapJumps("map", "odom")
    sentences = [watch.sentence(lookup, 1, 0.3, 5.0) for _ in poses]
    assert sum(map(bool, sentences)) == jumps
    assert all("'map' jumped against 'odom' by" in sentence for sentence in sentences if sentence)


def test_a_jump_of_the_clock_is_no_jump_of_the_map():
    watch = MapJumps("map", "odom")
    poses = iter([turned(0), turned(0, 1.0)])
    assert watch.sentence(lambda *_: next(poses), 10, 0.3, 5.0) == ""
    watch.forget()
    assert watch.sentence(lambda *_: next(poses), 1, 0.3, 5.0) == ""


def test_what_drifted_in_a_long_pause_is_no_jump():
    poses = [turned(0), turned(0, 0.6), turned(0, 1.2)]
    for pause_s, sentences in ((9.0, 2), (11.0, 0)):
        watch, left = MapJumps("map", "odom"), iter(poses)
        said = [watch.sentence(lambda *_, left=left: next(left), round(1e9 * i * pause_s), 0.3, 5.0) for i in range(3)]
        assert sum(map(bool, said)) == sentences


@pytest.mark.parametrize(("reaction", "kept"), [("keep", True), ("reset", False)])
def test_a_loop_closure_is_reported_and_the_map_kept_or_begun_anew(reaction, kept):
    with running(global_frame="map", on_map_jump=reaction) as run:
        for x in (0.0, 1.0):
            frame = run.robot.frame()
            run.robot.send_pose(turned(0, x), parent="map", child="odom")
            run.robot.send_pose()  # odom to the camera
            run.robot.send(*frame)
            run.wait_until_fused(1 + int(x))
        run.wait_for(lambda: "map_jumped" in run.memory.health.last_sentences)
        assert "by 1.00 m and 0.0 degrees" in run.memory.health.last_sentences["map_jumped"]
        voxels = run.map()
        assert voxels[(37, 0, 0)] == GENERIC  # 1 m further
        assert (voxels.get(WALL_VOXEL) == GENERIC) is False  # the second frame looked through it, or it was forgotten
        behind = [voxel for voxel in voxels if voxel[0] < 4]  # free space that only the first frame saw
        assert bool(behind) is kept


# -- the clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reaction", "kept"), [("keep", True), ("reset", False)])
def test_a_clock_that_goes_back_keeps_the_map_or_begins_it_anew_and_frames_go_on(reaction, kept):
    with running(use_sim_time=True, on_time_jump=reaction) as run:
        clock = run.robot.node.create_publisher(Clock, "/clock", 10)
        run.wait_for(lambda: clock.get_subscription_count() >= 3)

        def tick(seconds: int) -> None:
            message = Clock()
            message.clock.sec = seconds
            clock.publish(message)
            run.wait_for(lambda: run.memory.get_clock().now().nanoseconds == seconds * 10**9)

        tick(100)
        run.robot.stamp_ns = 100 * 10**9
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        before = run.map()
        tick(10)
        # The map belongs to the worker: it is read while nothing changes it.
        run.wait_for(lambda: kept or not run.memory._memory.frames)
        assert run.map() == (before if kept else {})
        run.robot.stamp_ns = 10 * 10**9
        deadline = time.monotonic() + 10.0
        while run.counts["fused"] < 2 and time.monotonic() < deadline:  # a busy machine may lose a best-effort message
            run.robot.send_good_frame()
            time.sleep(0.2)
        # tf and images of before the jump are forgotten: what comes now is not too old for them.
        assert run.counts["fused"] >= 2 and "pose_in_past" not in run.counts["dropped"]
        assert run.map() == before


# -- the metric scale --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_a_prior_of_a_wrong_scale_is_corrected_within_five_seconds(monkeypatch, wrong):
    class Prior:
        """A network whose depth is wrong by a factor."""

        depth_source = "network"

        def __call__(self, frame):
            right = GeometricExpert()(frame)
            gaussians = replace(right.gaussians, means=right.gaussians.means * np.float32(wrong))
            return replace(right, depth=right.depth * np.float32(wrong), gaussians=gaussians)

    monkeypatch.setattr(parameters, "make_expert", lambda *_: Prior())
    monkeypatch.setattr(parameters, "make_fusion", lambda *_: None)
    options = {"expert": "learned", "depth_source": "network", "scale_source": "sparse_depth"}
    with running(**options, on_time_jump="keep") as run:
        heard = []
        run.robot.node.create_subscription(Float64, "metric_scale", lambda m: heard.append(m.data), 10)
        for count in range(1, 51):  # 5 s of a camera of 10 Hz
            run.robot.send_good_frame(pose=pose_at(0.0, 0.02 * count, 0.0))
            run.wait_until_fused(count)
        run.wait_for(lambda: len(heard) > 40)
        assert abs(heard[-1] * wrong - 1) < 0.03 and abs(heard[0] - 1) < 1e-6
        assert float(run.expert.details()["scale.sigma"]) < 0.05
        assert run.map()[WALL_VOXEL] == GENERIC


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def start(executable: str, environment: dict, path) -> subprocess.Popen:
    line = [sys.executable, "-m", f"sgrocc_ros.{executable}", "--ros-args", "-p", "expert:=geometric"]
    line += ["-p", f"map_file:={path}", "-p", "max_pose_wait_s:=2.0"]
    return subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)


def test_each_node_may_be_killed_and_comes_back_and_the_saved_map_stays_whole(tmp_path):
    from std_srvs.srv import Trigger

    environment, path = demo.environment(), tmp_path / "room.map"
    names = ("occupancy_publisher_node", "gaussian_memory_node", "spatial_expert_node")
    processes = {name: start(name, environment, path) for name in names}
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(environment["ROS_DOMAIN_ID"]))
    robot = Robot(context, BEST_EFFORT)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(robot.node)

    def spin_until(condition, what: str, send: bool = True, timeout_s: float = 40.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, what
            if send and robot.ready():
                robot.send_good_frame()
            for _ in range(5):
                executor.spin_once(timeout_sec=0.03)

    def seen() -> bool:
        return robot.cloud is not None and label_in(robot.cloud, (2.04, 0.04, 0.04)) == GENERIC

    save = robot.node.create_client(Trigger, "gaussian_memory/save_map")
    try:
        spin_until(seen, "no map at the start")
        answer = save.call_async(Trigger.Request())
        spin_until(answer.done, "the map was not saved")
        assert answer.result().success
        for name in names:
            processes[name].send_signal(signal.SIGKILL)
            processes[name].wait()
            for _ in range(10):
                executor.spin_once(timeout_sec=0.02)
            assert all(other.poll() is None for key, other in processes.items() if key != name)
            processes[name] = start(name, environment, path)
            robot.cloud = None
            spin_until(seen, f"no map after {name} was killed")
        # Killed while it saves, again and again: the file is always one whole map.
        for _ in range(3):
            save.call_async(Trigger.Request())
            executor.spin_once(timeout_sec=0.02)
            time.sleep(0.01)
            processes["gaussian_memory_node"].kill()
            processes["gaussian_memory_node"].wait()
            from sgrocc.memory import map_file
            from sgrocc.memory.gaussian_memory import GaussianMemory

            memory = GaussianMemory()
            map_file.load(memory, path, "odom")
            assert len(memory) > 100
            processes["gaussian_memory_node"] = start("gaussian_memory_node", environment, path)
            spin_until(save.service_is_ready, "the memory did not come back", send=False)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
        executor.shutdown()
        rclpy.try_shutdown(context=context)
