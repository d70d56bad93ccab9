"""What is there to look at while the nodes run: depth, remembered Gaussians, gates, confidences, times, changes."""

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float64
from test_nodes import running

from sgrocc_ros import images, messages
from sgrocc_ros.lifecycle import INTERNAL_QOS, MAP_QOS

TOPICS = {
    "gaussians/depth": Image,
    "gaussians/camera_info": CameraInfo,
    "gaussians/memory": PointCloud2,
    "debug/gates": Image,
    "debug/confidence": PointCloud2,
    "debug/processing_ms": Float64,
    "debug/latency_ms": Float64,
}


def fields_of(cloud) -> dict[str, np.ndarray]:
    """{name: (N,) values} of a cloud's float32 fields."""
    data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    return {
        field.name: np.ascontiguousarray(data[:, field.offset : field.offset + 4]).view(np.float32)[:, 0]
        for field in cloud.fields
        if field.datatype == 7
    }


@pytest.fixture(scope="module")
def looked_at():
    """Two frames of a wall 2 m ahead, seen twice from the same place; and what was heard, the last of each topic."""
    heard = {}
    with running(expert="learned", model="compact", gaussian_cloud_rate_hz=30.0) as run:
        for topic, kind in TOPICS.items():
            qos = MAP_QOS if topic == "gaussians/memory" else INTERNAL_QOS
            run.robot.node.create_subscription(kind, topic, lambda m, topic=topic: heard.update({topic: m}), qos)
        offered = {**run.expert.outputs, **run.memory.outputs}
        run.wait_for(lambda: all(offered[topic].get_subscription_count() for topic in TOPICS if topic in offered))
        for count in (1, 2):
            run.robot.send_good_frame()
            run.wait_until_fused(count)
            if count == 1:
                run.wait_for(lambda: heard.keys() == TOPICS.keys())
        last_ns = run.robot.stamp_ns
        run.wait_for(lambda: all(stamp_of(heard[topic]) in (None, last_ns) for topic in TOPICS))
        yield run, heard


def stamp_of(message) -> int | None:
    return messages.stamp_ns(message.header) if hasattr(message, "header") else None


def test_depth_and_camera_info_make_the_cloud_that_depth_image_proc_makes(looked_at):
    _, heard = looked_at
    depth, info = heard["gaussians/depth"], heard["gaussians/camera_info"]
    assert depth.header == info.header and depth.header.frame_id == "camera_optical_frame"
    assert (depth.encoding, depth.width, depth.height) == ("32FC1", info.width, info.height)
    z = images.decode_depth(depth)
    rows, columns = np.mgrid[: depth.height, : depth.width]
    fx, _, cx, _, fy, cy, *_ = info.k
    x, y = (columns - cx) * z / fx, (rows - cy) * z / fy
    assert np.allclose(z[z > 0], 2.0, atol=0.01) and (z > 0).mean() > 0.9  # the wall
    assert x.min() == pytest.approx(-x.max(), abs=0.05) and abs(y.mean()) < 0.05


def test_the_gates_are_shares(looked_at):
    _, heard = looked_at
    gates = heard["debug/gates"]
    values = np.frombuffer(bytes(gates.data), np.float32)
    assert gates.encoding == "32FC1" and len(values) == gates.width * gates.height > 10
    assert (values >= 0).all() and (values <= 1).all() and values.max() > 0


def test_what_is_seen_again_where_it_was_is_confirmed(looked_at):
    run, heard = looked_at
    cloud = fields_of(heard["debug/confidence"])
    for name in ("geometric", "semantic", "hybrid"):
        assert (cloud[name] >= 0).all() and (cloud[name] <= 1).all()
    on_wall = np.abs(cloud["x"] - 2.0) < 0.05
    assert on_wall.sum() > 50 and np.median(cloud["geometric"][on_wall]) > 0.8
    assert np.allclose(cloud["hybrid"], cloud["geometric"] * cloud["semantic"], atol=1e-5)  # equation 8


def test_the_remembered_gaussians_lie_where_the_wall_is(looked_at):
    run, heard = looked_at
    cloud = fields_of(heard["gaussians/memory"])
    assert len(cloud["x"]) == len(run.memory._memory)
    assert (np.abs(cloud["x"] - 2.0) < 0.1).mean() > 0.3 and (cloud["scale"] > 0).all()


def test_the_times_are_those_of_the_frame(looked_at):
    run, heard = looked_at
    assert 1 < heard["debug/processing_ms"].data < 60_000
    behind_ms = (run.robot.node.get_clock().now().nanoseconds - run.robot.stamp_ns) / 1e6  # stamps of the year 1970
    assert heard["debug/latency_ms"].data == pytest.approx(behind_ms, abs=120_000)


def test_nothing_is_built_that_nobody_hears(monkeypatch):
    def built(*_):
        raise AssertionError("nobody listens")

    with running(expert="learned", model="compact") as run:
        frame = run.robot.frame()
        for name in ("memory_cloud", "confidence_cloud", "gaussians_to_cloud"):
            monkeypatch.setattr(messages, name, built)
        for name in ("float_image", "depth_message", "camera_info_message"):
            monkeypatch.setattr(images, name, built)
        run.robot.send_pose()
        run.robot.send(*frame)
        run.wait_until_fused(1)
        assert run.counts["dropped"] == {}


def test_who_joins_late_gets_the_whole_map_first_and_then_what_changes():
    with running() as run:
        run.robot.send_good_frame()
        run.wait_until_fused(1)
        run.wait_for(lambda: run.robot.cloud is not None)
        heard = []
        run.robot.node.create_subscription(PointCloud2, "voxel_updates", heard.append, INTERNAL_QOS)
        run.wait_for(lambda: heard)
        update, whole = messages.cloud_to_update(heard[0], 0.08)
        assert whole
        assert {tuple(i): int(x) for i, x in zip(update.indices.tolist(), update.labels)} == run.map()
        run.robot.send_good_frame(boxes=[((1.0, -9, -9), (3, 9, 9))])  # nearer
        run.wait_for(lambda: len(heard) == 2)
        change, whole = messages.cloud_to_update(heard[1], 0.08)
        assert not whole and 0 < len(change.indices) < len(update.indices)
        assert any(i[0] == 12 for i in change.indices.tolist())  # 0.96 to 1.04 m
