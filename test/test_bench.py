"""The bench: what it says of a run adds up, and it measures what it names."""

import json
import os

import numpy as np
import pytest

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc_ros import bench, demo, parameters
from sgrocc_ros.record_sequence import record_sequence


class FirstFrames(PosedRgbdSequence):
    """The beginning of a sequence."""

    def __len__(self):
        return 6


@pytest.fixture(scope="module")
def sequence():
    return FirstFrames(demo.SHIPPED_RECORDING)


GEOMETRIC = parameters.complete({"expert": "geometric"})


def test_costs_are_of_the_same_frames_and_peers_that_are_missing_are_named(sequence, tmp_path, monkeypatch):
    def no_peers(out, skipped):
        skipped["depth_anything_v2_small"] = "torch is not installed"
        return None, None

    monkeypatch.setattr(bench, "_peers", no_peers)
    costs = bench.measure_costs(sequence, GEOMETRIC, tmp_path)
    scores = {int(stride): iou for stride, iou in costs["octomap"]["sc_iou"].items()}
    assert tuple(scores) == bench.STRIDES and scores[1] > scores[2] > scores[8] > 0.1
    stride = costs["octomap"]["stride"]
    assert scores[stride] >= scores[1] - 0.01 and all(scores[s] < scores[1] - 0.01 for s in scores if s > stride)
    cpu_ms = costs["cpu_ms"]
    assert cpu_ms["octomap_1"] > cpu_ms["octomap_4"] > 0 and cpu_ms["fusion"] > 1
    ratios = costs["ratios"]
    assert ratios["fusion_to_pyoctomap_full"] == pytest.approx(cpu_ms["fusion"] / cpu_ms["octomap_1"], rel=0.01)
    assert ratios["spatial_expert_to_depth_anything_v2_small"] is None
    assert costs["skipped"] == {"depth_anything_v2_small": "torch is not installed"}


def test_additive_aggregation_in_torch_is_that_of_the_kernel():
    torch_peers = pytest.importorskip("torch") and __import__("sgrocc.export.peers", fromlist=["peers"])
    from sgrocc.gaussians import Gaussians
    from sgrocc.splatting import prepare
    from sgrocc.splatting.warp_kernel import accumulate

    random = np.random.default_rng(0)
    rotations = random.normal(size=(200, 4))
    gaussians = Gaussians(
        random.uniform(-1, 2, (200, 3)),
        random.uniform(0.02, 0.16, (200, 3)),
        rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        random.uniform(0, 1, 200),
        random.normal(size=(200, 11)),
        np.zeros((200, 0)),
    )
    blocks = np.array([[0, 0, 0], [1, 0, 2], [-1, 1, 0]], np.int32)
    prepared = prepare(gaussians, 0.08, np.zeros(3), "additive")
    expected = accumulate(prepared, blocks, 0.08)[1]
    found = torch_peers.additive_in_torch(prepared, blocks, 0.08).numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_frame_costs_the_same_in_a_map_of_many_rooms(sequence, monkeypatch):
    monkeypatch.setattr(bench, "ROOMS", (1, 2, 8))
    monkeypatch.setattr(bench, "_FRAMES_PER_ROOM", 5)
    rows = bench.measure_rooms(sequence, GEOMETRIC)
    assert [row["rooms"] for row in rows] == [1, 2, 8]
    one, _, eight = rows
    # Rooms side by side do not touch, and all are the same.
    assert eight["gaussians"] == pytest.approx(8 * one["gaussians"], rel=0.02)
    assert eight["known_voxels"] == pytest.approx(8 * one["known_voxels"], rel=0.02)
    assert eight["fuse_cpu_ms"] < 2 * one["fuse_cpu_ms"] + 5


def test_the_running_nodes_report_their_stages_and_every_frame(sequence, tmp_path, monkeypatch):
    for name, value in demo.environment().items():
        monkeypatch.setenv(name, value)
    bag = tmp_path / "recording"
    record_sequence(sequence, bag)
    found = bench._at_rate(bag, 5.0, 10.0, GEOMETRIC, tmp_path)
    # On a busy machine the middleware may lose an image: then it was sent and did not come.
    assert found["sent"] == 6 >= found["received"] >= found["fused"] > 0
    assert found["fused"] + sum(found["dropped"].values()) == found["received"]
    assert found["dropped_share"] == pytest.approx(1 - found["fused"] / 6, abs=1e-3)
    assert set(found["stages"]) == {"decode", "lift", "fuse", "splat", "serialise", "publish"}
    assert 0 < found["ros_cpu_ms"] < found["cpu_ms_per_frame"] and found["memory_mb"] > 100
    assert found["stages"]["fuse"]["cpu_ms"]["p50"] <= found["stages"]["fuse"]["cpu_ms"]["p99"]
    json.dumps(found)


def test_tables_and_picture_show_a_result(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    times = {kind: {"p50": 1.0, "p95": 2.0, "p99": 3.0} for kind in ("wall_ms", "cpu_ms")}
    rate = {
        "hz": 10.0,
        "sent": 90,
        "received": 90,
        "fused": 45,
        "dropped_share": 0.5,
        "latency_ms": {"p50": 12.5, "p95": 20.0},
    }
    row = {"gaussians": 5, "known_voxels": 9, "fuse_cpu_ms": 30.0, "update_cpu_ms": 0.4, "refresh_cpu_ms": 6.5}
    result = {
        "stages": {"fuse": times},
        "rates": [{**rate, "cpu_ms_per_frame": 1.0, "ros_cpu_ms": 2.0, "memory_mb": 3.0}],
        "ratios": {"fusion_to_pyoctomap_full": 0.9, "fusion_to_pyoctomap_stride": None},
        "rooms": [{"rooms": 1, **row}, {"rooms": 100, **row}],
        "skipped": {"octomap": "pyoctomap is not installed"},
        "cpu_ms": {"spatial_expert": 90.0, "octomap_1": 40.0},
        "sustained_hz": 10.5,
        "ros_cpu_ms": 15.0,
    }
    bench.print_tables(result)
    shown = capsys.readouterr().out
    assert "50 %" in shown and "0.90" in shown and "octomap was not measured: pyoctomap is not installed" in shown
    bench.draw(result, tmp_path / "bench.png")
    assert os.path.getsize(tmp_path / "bench.png") > 10_000
