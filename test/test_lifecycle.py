"""The states of the nodes: what each transition does, keeps and frees, and how a process ends."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from octomap_msgs.srv import BoundingBoxQuery, GetOctomap
from rclpy.parameter import Parameter
from scenes import CAMERA, pose_at
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64
from std_srvs.srv import Trigger
from test_nodes import BEST_EFFORT, WALL, fresh_domain, in_executor, published_voxels, running, spinning

from sgrocc.labels import FREE, GENERIC
from sgrocc.labels import WALL as WALL_LABEL
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros import demo, messages, pipeline
from sgrocc_ros.gaussian_memory_node import GaussianMemoryNode
from sgrocc_ros.occupancy_publisher_node import OccupancyPublisherNode

WALL_VOXEL = (25, 0, 0)  # 2.0 to 2.08 m ahead


def call(run, kind, service: str, request=None):
    client = run.robot.node.create_client(kind, service)
    assert client.wait_for_service(5.0), service
    answer = client.call_async(request or kind.Request())
    run.wait_for(answer.done)
    return answer.result()


def change(run, node: str, transition: int) -> bool:
    request = ChangeState.Request()
    request.transition.id = transition
    return call(run, ChangeState, f"{node}/change_state", request).success


def state_of(run, node: str) -> str:
    return call(run, GetState, f"{node}/get_state").current_state.label


def trigger(node, transition: str) -> str:
    """Go through a transition, as a service call would; returns SUCCESS or FAILURE."""
    return in_executor(node.executor, getattr(node, f"trigger_{transition}")).name


@contextmanager
def made(**overrides):
    """The nodes as they are made, not configured; and spinning."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=fresh_domain())
    given = [Parameter(name, value=value) for name, value in {"expert": "geometric", **overrides}.items()]
    nodes = pipeline.make_pipeline(parameter_overrides=given, context=context)
    with spinning(nodes):
        yield nodes


# -- transitions -------------------------------------------------------------------------------------------------------


def test_deactivating_keeps_the_map_and_cleaning_up_frees_it():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width)
        before = run.map()
        assert before[WALL_VOXEL] == GENERIC
        assert change(run, "spatial_expert", Transition.TRANSITION_DEACTIVATE)
        assert change(run, "gaussian_memory", Transition.TRANSITION_DEACTIVATE)
        assert state_of(run, "gaussian_memory") == "inactive"
        run.wait_for(lambda: not run.robot.image.get_subscription_count())
        run.robot.send_good_frame(boxes=[((1.0, -9, -9), (3, 9, 9))])
        time.sleep(0.5)
        assert run.counts["fused"] == 1 and run.counts["received"] == 1 and run.map() == before
        assert change(run, "gaussian_memory", Transition.TRANSITION_ACTIVATE)
        assert change(run, "spatial_expert", Transition.TRANSITION_ACTIVATE)
        run.wait_for(run.robot.ready)
        run.robot.send_good_frame()
        run.wait_until_fused(2)
        assert run.map() == before
        assert change(run, "gaussian_memory", Transition.TRANSITION_DEACTIVATE)
        assert change(run, "gaussian_memory", Transition.TRANSITION_CLEANUP)
        assert run.memory._memory is None and run.memory._worker is None
        run.robot.send_good_frame()
        run.wait_until_dropped("memory_inactive")
        assert change(run, "gaussian_memory", Transition.TRANSITION_CONFIGURE)
        assert change(run, "gaussian_memory", Transition.TRANSITION_ACTIVATE)
        assert run.map() == {}
        run.wait_for(lambda: run.robot.cloud.width == 0)  # what is published is no older
        run.wait_for(run.robot.ready)
        run.robot.send_good_frame()
        run.wait_until_fused(3)
        assert run.map() == before


def test_frames_that_wait_when_a_node_stops_are_counted():
    with running(max_partner_wait_s=60.0, max_pose_wait_s=60.0) as run:
        image, info, _ = run.robot.frame()
        run.robot.send(image, info)  # waits for its depth
        run.robot.send(*run.robot.frame())  # waits for its transform
        run.wait_for(lambda: len(run.memory._queue) == 1)
        run.robot.send(run.robot.frame()[0])
        run.wait_for(lambda: run.counts["received"] == 3)
        assert change(run, "spatial_expert", Transition.TRANSITION_DEACTIVATE)
        waiting = run.counts["dropped"].get("no_depth", 0)  # where the depth of the second was seen to be later
        assert run.counts["dropped"].get("stopped", 0) + waiting == 2
        assert trigger(run.memory, "shutdown") == "SUCCESS"
        assert sum(run.counts["dropped"].values()) == 3


@contextmanager
def apart(**overrides):
    """Memory and publisher as if they were processes of their own, with a reader; they are not configured."""
    given = [Parameter(name, value=value) for name, value in {"expert": "geometric", **overrides}.items()]
    domain, nodes = fresh_domain(), []
    for kind in (GaussianMemoryNode, OccupancyPublisherNode):
        context = rclpy.Context()  # of its own, so that they find each other as processes do
        rclpy.init(context=context, domain_id=domain)
        nodes.append(kind(parameter_overrides=given, context=context))
    memory, publisher = nodes
    with spinning([publisher]), spinning([memory]):
        yield memory, publisher


def saved_map(folder) -> tuple[Path, int]:
    """The file of a map of one frame, and the number of its voxels."""
    path = folder / "room.map"
    with running(map_file=str(path)) as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        assert call(run, Trigger, "gaussian_memory/save_map").success
        return path, len(run.map())


def wait_for(condition) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def transition(node, *names: str) -> None:
    for name in names:
        assert trigger(node, name) == "SUCCESS", node.problem


def test_what_changes_while_the_memory_is_silent_is_published_when_it_speaks_again(tmp_path):
    path, voxels = saved_map(tmp_path)
    with apart(map_file=str(path)) as (memory, publisher):
        transition(publisher, "configure", "activate")
        transition(memory, "configure")
        services = memory._map_services
        assert published_voxels(publisher) == 0 and services.publish_map() == "it follows when the node is active"
        transition(memory, "activate")
        wait_for(lambda: published_voxels(publisher) == voxels)
        transition(memory, "deactivate")
        services.ask(services.reset)
        time.sleep(0.5)
        assert published_voxels(publisher) == voxels
        transition(memory, "activate")
        wait_for(lambda: published_voxels(publisher) == 0)
        services.ask(services.load_map)
        wait_for(lambda: published_voxels(publisher) == voxels)
        path.unlink()
        transition(memory, "deactivate", "cleanup", "configure", "activate")
        wait_for(lambda: published_voxels(publisher) == 0)


@pytest.mark.parametrize("loads", [False, True])
def test_a_memory_that_was_started_again_sends_its_map_though_nothing_is_fused(tmp_path, loads):
    path, voxels = saved_map(tmp_path)
    with apart(map_file=str(path)) as (memory, publisher):
        transition(publisher, "configure", "activate")
        transition(memory, "configure", "activate")
        wait_for(lambda: published_voxels(publisher) == voxels)
        memory.stop()
        if not loads:
            path.unlink()
        # Not of the memory that is left, but of the one that went.
        stale = VoxelUpdate(np.full((1, 3), 90, np.int32), np.array([WALL_LABEL], np.uint8), np.ones(1, np.float32))
        in_executor(publisher.executor, lambda: publisher._out.apply(stale, True))
        again = rclpy.Context()
        rclpy.init(context=again, domain_id=publisher.context.get_domain_id())
        given = [Parameter("expert", value="geometric"), Parameter("map_file", value=str(path))]
        with spinning([another := GaussianMemoryNode(parameter_overrides=given, context=again)]):
            transition(another, "configure", "activate")
            wait_for(lambda: published_voxels(publisher) == (voxels if loads else 0))


def test_a_memory_of_another_grid_or_frame_is_not_published_and_said():
    with running() as run:
        publisher = run.nodes[0]
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width)
        transition(run.memory, "deactivate", "cleanup")
        assert run.memory.set_parameters([Parameter("resolution_m", value=0.16)])[0].successful
        transition(run.memory, "configure", "activate")
        run.wait_for(run.robot.ready)
        run.robot.cloud = None
        run.robot.send_good_frame()
        run.wait_until_fused(2)
        run.wait_for(lambda: publisher.health.level == b"\x02")
        assert "gaussian_memory maps voxels of 0.16 m in 'odom' and occupancy_publisher has 0.08" in (
            publisher.health.message
        )
        assert run.robot.cloud is None
        transition(publisher, "deactivate", "cleanup")
        assert publisher.set_parameters([Parameter("resolution_m", value=0.16)])[0].successful
        transition(publisher, "configure", "activate")
        run.wait_for(lambda: published_voxels(publisher) == len(run.map()) > 0)
        run.wait_for(lambda: "voxels of" not in publisher.health.message)


def test_a_publisher_that_is_configured_late_gets_what_came_before():
    with made() as nodes:
        publisher, memory, _ = nodes
        transition(memory, "configure", "activate")
        one, two = (
            VoxelUpdate(np.full((1, 3), i, np.int32), np.array([WALL_LABEL], np.uint8), np.ones(1, np.float32))
            for i in (1, 2)
        )
        memory._send(one, 1, False)
        wait_for(lambda: publisher._needs_map and not publisher._inbox)
        transition(publisher, "configure", "activate")
        memory._send(two, 1, False)
        wait_for(lambda: not publisher._needs_map)  # it asked for all there is, which in this memory is nothing
        assert published_voxels(publisher) == 0


def test_a_publisher_whose_memory_is_not_there_says_so():
    with apart(watchdog_after_s=0.5) as (memory, publisher):
        transition(publisher, "configure", "activate")
        wait_for(lambda: "no whole map comes from gaussian_memory" in publisher.health.message)
        transition(memory, "configure", "activate")
        wait_for(lambda: "no whole map" not in publisher.health.message)


def test_an_expert_that_no_memory_hears_counts_its_frames():
    with running() as run:
        run.expert._sink = None  # as a process of its own
        image, info, depth = run.robot.frame()
        run.robot.send(image, info, depth)
        assert "start and activate gaussian_memory" in run.wait_until_dropped("no_memory")
        heard = []
        run.robot.node.create_subscription(Image, "gaussians/depth", heard.append, 10)
        run.wait_for(lambda: run.expert.outputs["gaussians/depth"].get_subscription_count())
        run.robot.send(*run.robot.frame())
        run.wait_until_dropped("no_memory", 2)
        run.wait_for(lambda: heard)  # the depth is of use without a memory


def test_a_loaded_map_is_published_before_a_simulated_clock_begins(tmp_path):
    path, _ = saved_map(tmp_path)
    with running(map_file=str(path), use_sim_time=True) as run:
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width)


def test_an_update_with_a_smaller_number_is_of_a_memory_that_was_started_again():
    with apart() as (_, publisher):
        transition(publisher, "configure", "activate")
        update = VoxelUpdate(np.zeros((1, 3), np.int32), np.array([WALL_LABEL], np.uint8), np.ones(1, np.float32))

        def heard(number: int, whole: bool) -> bool:
            cloud = messages.update_to_cloud(messages.to_header(1, "odom"), update, 0.08, whole)
            publisher._on_update(cloud, {"publication_sequence_number": number})
            publisher._take_updates()
            return publisher._needs_map

        def all_of_it() -> list[bool]:
            return [heard(7, True), heard(8, False), heard(1, False), heard(2, True), heard(3, False), heard(5, False)]

        answers = []
        in_executor(publisher.executor, lambda: answers.extend(all_of_it()))
        assert answers == [False, False, True, False, False, True]


def test_the_publisher_gets_the_whole_map_when_it_begins_again():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None)
        count = run.robot.cloud.width
        publisher = run.nodes[0]
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert change(run, "occupancy_publisher", getattr(Transition, f"TRANSITION_{transition.upper()}"))
        run.robot.cloud = None
        run.wait_for(lambda: run.robot.cloud is not None)
        assert run.robot.cloud.width == count and published_voxels(publisher) == len(run.map())


@pytest.mark.parametrize(
    ("overrides", "node", "sentence"),
    [
        ({"resolution_m": -1.0}, 1, "parameter resolution_m is -1.0: give a value from 0.01 to 1"),
        ({"resolutoin_m": 0.1}, 0, "there is no parameter resolutoin_m: did you mean resolution_m?"),
        ({"expert": "learned", "model": "no_such"}, 2, "no_such"),
        ({"grid_min_height_m": 9.0}, 0, "grid_min_height_m must be less than grid_max_height_m"),
        ({"cameras": "front front"}, 2, "cameras has the name 'front'"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason_and_can_be_set_right(overrides, node, sentence):
    with made(**overrides) as nodes:
        assert trigger(nodes[node], "configure") == "FAILURE"
        assert nodes[node].state == "unconfigured" and sentence in nodes[node].problem
        nodes[node].health.report()
        assert nodes[node].health.level == b"\x02" and sentence in nodes[node].health.message
        [name] = [name for name in overrides if nodes[node].has_parameter(name)][-1:] or [None]
        if name is not None:
            right = {"model": "random_expert", "cameras": "front rear", "grid_min_height_m": 0.1}.get(name, 0.1)
            assert nodes[node].set_parameters([Parameter(name, value=right)])[0].successful
            assert trigger(nodes[node], "configure") == "SUCCESS" and nodes[node].problem == ""


def test_what_is_wrong_for_another_node_stops_that_node_alone():
    with made(max_pose_wait_s=-1.0) as nodes:
        publisher, memory, expert = nodes
        assert trigger(expert, "configure") == trigger(publisher, "configure") == "SUCCESS"
        assert trigger(memory, "configure") == "FAILURE" and "max_pose_wait_s" in memory.problem
        assert memory.set_parameters([Parameter("max_pose_wait_s", value=0.1)])[0].successful
        assert trigger(memory, "configure") == "SUCCESS"
    with made(grid_min_height_m=9.0, cameras="front front") as nodes:  # what does not fit together, as well
        publisher, memory, expert = nodes
        assert trigger(memory, "configure") == "SUCCESS"
        assert trigger(publisher, "configure") == "FAILURE" and "grid_min_height_m" in publisher.problem
        assert trigger(expert, "configure") == "FAILURE" and "cameras" in expert.problem


ENTITIES = ("publishers", "subscriptions", "services", "clients", "timers", "guards", "waitables")


def test_every_transition_can_be_gone_through_again_and_again():
    def go_through(nodes) -> None:
        for transition in ("configure", "activate", "deactivate", "activate", "deactivate", "cleanup"):
            for node in nodes:
                assert trigger(node, transition) == "SUCCESS", node.problem
        left.append([[len(list(getattr(node, kind))) for kind in ENTITIES] for node in nodes])

    left = []
    with made(scale_source="camera_height", expert="learned", depth_source="network") as nodes:
        threads = threading.active_count()
        for _ in range(15):
            go_through(nodes)
        assert left == left[:1] * 15
        assert threading.active_count() <= threads
        assert not [s for s in nodes[2].subscriptions if s.topic_name.endswith("image")]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_shutting_down_is_possible_from_any_state(steps):
    with made() as nodes:
        for step in ("configure", "activate", "deactivate")[:steps]:
            for node in nodes:
                assert trigger(node, step) == "SUCCESS"
        for node in nodes:
            assert trigger(node, "shutdown") == "SUCCESS" and node.state == "finalized"
        for node in nodes:
            node.stop()  # and again


BLOCKED = """
import sys, time
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc_ros import pipeline
def blocked(*_):
    print("blocked", flush=True)
    time.sleep(60)
setattr(*{where}, blocked)
sys.exit(pipeline.main(["--ros-args", "-p", "expert:=geometric"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ['(GeometricExpert, "__call__")', '(GaussianMemory, "warm_up")'])
def test_a_signal_ends_a_node_in_two_seconds_also_in_the_middle_of_something(where, number):
    environment = demo.environment()
    line = [sys.executable, "-c", BLOCKED.format(where=where)]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    feeder = None
    if "Expert" in where:  # it needs a frame to be blocked by
        feeder = subprocess.Popen([sys.executable, __file__], env=environment)
    try:
        assert process.stdout.readline() == "blocked\n"
        sent = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - sent < 2.0 and process.returncode == 0 and "Traceback" not in errors
    finally:
        for started in (process, feeder):
            if started is not None and started.poll() is None:
                started.kill()
                started.wait()


# -- services ----------------------------------------------------------------------------------------------------------


def test_reset_pause_and_resume():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        assert run.map()[WALL_VOXEL] == GENERIC
        assert call(run, Trigger, "spatial_expert/pause").success
        run.robot.send_good_frame()
        time.sleep(0.4)
        assert run.counts == {"received": 1, "fused": 1, "dropped": {}}
        assert call(run, Trigger, "gaussian_memory/reset").message == "the map is empty" and run.map() == {}
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width == 0)
        assert call(run, Trigger, "spatial_expert/resume").success
        run.robot.send_good_frame()
        run.wait_until_fused(2)
        assert run.map()[WALL_VOXEL] == GENERIC


def box(low, high) -> BoundingBoxQuery.Request:
    request = BoundingBoxQuery.Request()
    request.min.x, request.min.y, request.min.z = (float(v) for v in low)
    request.max.x, request.max.y, request.max.z = (float(v) for v in high)
    return request


def test_a_box_is_cleared_and_a_box_that_is_none_clears_nothing():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        before = run.map()
        for low, high in (((3, 0, 0), (0, 3, 3)), ((np.nan, 0, 0), (9, 9, 9)), ((0, 0, 0), (np.inf, 1, 1))):
            call(run, BoundingBoxQuery, "gaussian_memory/clear_box", box(low, high))
            assert run.map() == before
        call(run, BoundingBoxQuery, "gaussian_memory/clear_box", box((1.9, -0.2, -0.2), (2.2, 0.2, 0.2)))
        inside = {v for v in before if all(-0.2 <= 0.08 * (i + 0.5) <= 0.2 for i in v[1:]) and 24 <= v[0] <= 26}
        assert WALL_VOXEL in inside
        assert run.map() == {voxel: label for voxel, label in before.items() if voxel not in inside}
        run.robot.send_good_frame()
        run.wait_until_fused(2)
        assert run.map()[WALL_VOXEL] == GENERIC


def test_services_of_nodes_that_are_not_configured_answer_with_a_sentence():
    with running() as run:
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert change(run, "gaussian_memory", transition) and change(run, "occupancy_publisher", transition)
        for service in ("save_map", "load_map", "reset", "publish_map"):
            answer = call(run, Trigger, f"gaussian_memory/{service}")
            assert not answer.success and answer.message == "there is no map: configure gaussian_memory first"
        answer = call(run, Trigger, "occupancy_publisher/save_ply")
        assert not answer.success and answer.message == "there is no map: configure occupancy_publisher first"


def test_the_map_is_saved_as_ply(tmp_path):
    import trimesh

    path = tmp_path / "room.ply"
    with running(ply_file=str(path)) as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None)
        answer = call(run, Trigger, "occupancy_publisher/save_ply")
        occupied = {voxel for voxel, label in run.map().items() if label != FREE}
        assert answer.success and answer.message == f"{path} holds {len(occupied)} voxels"
        points = trimesh.load(path).vertices
        assert {tuple(v) for v in np.floor(points / 0.08).astype(int).tolist()} == occupied
        run.nodes[0].set_parameters([Parameter("ply_file", value="/proc/no/such.ply")])
        answer = call(run, Trigger, "occupancy_publisher/save_ply")
        assert not answer.success and "/proc/no" in answer.message


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 64 kB, and what fills it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_the_saved_map_stays_what_it_was(full_disk):
    path, ply = full_disk / "room.map", full_disk / "room.ply"
    with running(map_file=str(path), ply_file=str(ply)) as run:
        run.memory._memory.clear()
        assert call(run, Trigger, "gaussian_memory/save_map").success
        saved = path.read_bytes()
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width)
        (full_disk / "other").write_bytes(bytes(64 * 1024 - 3 * 4096))
        for service in ("gaussian_memory/save_map", "occupancy_publisher/save_ply"):
            answer = call(run, Trigger, service)
            assert not answer.success and "No space left on device" in answer.message
        assert path.read_bytes() == saved and {p.name for p in full_disk.iterdir()} == {"room.map", "other"}
        run.robot.send_good_frame()  # and the map goes on
        run.wait_until_fused(2)
        (full_disk / "other").unlink()
        assert call(run, Trigger, "gaussian_memory/save_map").success
        known = run.map()
    with running(map_file=str(path)) as run:
        assert run.map() == known and known[WALL_VOXEL] == GENERIC


def test_what_octomap_saver_asks_for_is_the_map(tmp_path):
    from test_octree import leaves_of_octomap_python

    with running() as run:
        assert call(run, GetOctomap, "occupancy_publisher/octomap_binary").map.id == "OcTree"
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None and run.robot.cloud.width)
        voxels = run.map()
        for service, kind in (("octomap_binary", "OcTree"), ("octomap_full", "ColorOcTree")):
            octomap = call(run, GetOctomap, f"occupancy_publisher/{service}").map
            leaves = leaves_of_octomap_python(octomap, tmp_path)
            assert (octomap.id, octomap.header.frame_id) == (kind, "odom")
            assert {voxel: occupied for voxel, (occupied, *_) in leaves.items()} == {
                voxel: label != FREE for voxel, label in voxels.items()
            }
        assert change(run, "occupancy_publisher", Transition.TRANSITION_DEACTIVATE)
        assert len(call(run, GetOctomap, "occupancy_publisher/octomap_binary").map.data)
        assert change(run, "occupancy_publisher", Transition.TRANSITION_CLEANUP)
        assert not call(run, GetOctomap, "occupancy_publisher/octomap_binary").map.data


def test_the_number_of_dropped_frames_is_a_topic():
    with running() as run:
        heard = []
        run.robot.node.create_subscription(UInt64, "gaussian_memory/dropped", heard.append, 10)
        run.wait_for(lambda: heard and heard[-1].data == 0)
        run.robot.send(*run.robot.frame())  # without a transform
        run.wait_for(lambda: heard[-1].data == 1)


def test_statistics_are_json():
    import json

    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        statistics = json.loads(call(run, Trigger, "gaussian_memory/statistics").message)
        assert (statistics["state"], statistics["received"], statistics["fused"]) == ("active", 1, 1)
        assert statistics["map.gaussians"] == len(run.memory._memory) > 0
        assert statistics["stages"]["fuse"]["cpu_s"] > 0


# -- inputs and parameters that change what comes out ------------------------------------------------------------------


def test_what_a_mask_covers_stays_out_of_the_map():
    with running(use_mask=True) as run:
        publisher = run.robot.node.create_publisher(Image, "mask", BEST_EFFORT)
        run.wait_for(publisher.get_subscription_count)
        image, info, depth = run.robot.frame()
        covered = np.zeros((CAMERA.height, CAMERA.width), np.uint8)
        covered[:, : CAMERA.width // 2] = 255  # the left half: y > 0
        mask = Image(header=image.header, height=CAMERA.height, width=CAMERA.width, encoding="mono8", step=CAMERA.width)
        mask.data = covered.tobytes()
        run.robot.send_pose()
        publisher.publish(mask)
        run.robot.send(image, info, depth)
        run.wait_until_fused(1)
        voxels = run.map()
        assert voxels[(25, -5, 0)] == GENERIC and (25, 5, 0) not in voxels
        assert not [voxel for voxel in voxels if voxel[1] > 0]


def test_several_cameras_fill_one_memory():
    with running(cameras="front side", until_ready=False) as run:
        streams = {"image": run.robot.image, "camera_info": run.robot.info, "depth": run.robot.depth}
        made = {
            (camera, stream): run.robot.node.create_publisher(like.msg_type, f"{camera}/{stream}", BEST_EFFORT)
            for camera in ("front", "side")
            for stream, like in streams.items()
        }
        run.wait_for(lambda: all(publisher.get_subscription_count() for publisher in made.values()))
        frame = run.robot.frame()
        for camera, y in (("front", 0.0), ("side", 5.0)):
            run.robot.send_pose(pose_at(0, y, 0), child=f"{camera}_optical")
            for stream, message in zip(streams, frame):  # of one stamp: they are told apart all the same
                message.header.frame_id = f"{camera}_optical"
                made[camera, stream].publish(message)
            time.sleep(0.3)
        run.wait_until_fused(2)
        assert run.map()[WALL_VOXEL] == GENERIC and run.map()[(25, 62, 0)] == GENERIC


def test_free_space_of_a_network_clears_nothing_unless_asked():
    from sgrocc_ros import parameters
    from sgrocc_ros.outputs import MapOutputs

    out = MapOutputs(0.08, "odom", pytest.fail)
    indices = np.array([[0, 0, 5], [1, 0, 5], [2, 0, 5]], np.int32)
    labels = np.array([FREE, WALL_LABEL, FREE], np.uint8)
    out.apply(VoxelUpdate(indices, labels, np.array([0, 1, 0], np.float32)), False)

    def grids(**given):
        topics = [f"occupancy/{name}" for name in ("grid", "cost", "octomap_binary")]
        built = out.built(topics, messages.to_header(1, "odom"), parameters.complete(given))
        return [list(built[topic].data) for topic in topics[:2]], len(built[topics[2]].data)

    known, tree = grids()
    assert known == [[0, 100, 0], [0, 100, 0]]
    unknown, smaller = grids(depth_source="network")
    assert unknown == [[-1, 100, -1], [-1, 100, -1]] and smaller < tree
    assert grids(depth_source="network", network_free_space=True) == (known, tree)


if __name__ == "__main__":  # sends frames until it is ended: see BLOCKED
    from test_nodes import Robot

    rclpy.init()
    robot = Robot(rclpy.get_default_context(), BEST_EFFORT)
    while True:
        if robot.ready():
            robot.send(*robot.frame(boxes=[WALL]))
        rclpy.spin_once(robot.node, timeout_sec=0.3)
