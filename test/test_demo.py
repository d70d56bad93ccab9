"""The demo from end to end on a small recording: what a newcomer sees first."""

import json

import numpy as np
import pytest
from PIL import Image
from scenes import ROOM_FRAMES, write_room

from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.labels import FREE, GENERIC
from sgrocc_ros import demo
from sgrocc_ros.bag import BagReader


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    for name, value in demo.environment().items():
        patch.setenv(name, value)
    folder = tmp_path_factory.mktemp("demo")
    (folder / "room").mkdir()
    write_room(folder / "room")
    assert demo.main(["--sequence", str(folder / "room"), "--out", str(folder / "out"), "--expert", "geometric"]) == 0
    patch.undo()
    return folder / "out"


@pytest.fixture(scope="module")
def metrics(out):
    return json.loads((out / "metrics.json").read_text())


def test_every_frame_is_accounted_for(metrics):
    frames = metrics["frames"]
    assert frames["sent"] == frames["received"] == ROOM_FRAMES
    assert frames["received"] == frames["fused"] + sum(frames["dropped"].values())
    assert frames["fused"] >= ROOM_FRAMES - 2


def test_latency_and_rates_are_measured(metrics):
    latency = metrics["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 5000
    assert 3.0 < metrics["rate_hz"] < 7.0  # the recording has 5 Hz
    # Of some frames within a quarter of a second; a busy machine was seen to give 3.8, or to fuse one frame alone.
    assert metrics["sustained_hz"] is None or metrics["sustained_hz"] > 2.0


def test_the_map_is_scored_beside_octomap(metrics):
    assert metrics["sc_iou"] > 0.9 * metrics["octomap"]["sc_iou"] > 0.5
    assert 0.7 < metrics["precision"] <= 1 and 0.7 < metrics["recall"] <= 1
    assert metrics["miou"] is None and metrics["depth_source"] == "topic"
    assert metrics["map"]["gaussians"] > 500 and metrics["map"]["occupied_voxels"] > 500
    assert metrics["configuration"]["resolution_m"] == 0.08 and len(metrics["commit"]) >= 7


def test_the_saved_map_is_the_room(out, metrics):
    occupancy = Occupancy.load(out / "occupancy.npz")
    assert int(occupancy.occupied.sum()) == metrics["map"]["occupied_voxels"]
    assert (occupancy.frame_id, occupancy.resolution) == ("odom", 0.08)

    def label_at(*point):
        return occupancy.labels[tuple(occupancy.grid.index_of(np.array(point)))]

    assert label_at(2.42, 0.0, 0.2) == GENERIC and label_at(1.52, -0.6, -0.3) == GENERIC
    assert label_at(1.52, 0.6, -0.3) == FREE


def test_the_report_shows_the_figures_and_the_pictures(out, metrics):
    page = (out / "index.html").read_text()
    assert f"{metrics['sc_iou']:.4f}" in page and f"{metrics['octomap']['sc_iou']:.4f}" in page
    for name in ("isometric.png", "top.png", "side.png", "comparison.png", "camera.png"):
        assert f'src="{name}"' in page
        pixels = np.asarray(Image.open(out / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 100 and (name == "camera.png" or pixels.std() > 10)


def test_the_published_bag_holds_every_output(out):
    topics = BagReader(out / "published").topics
    assert {f"/{topic}" for topic in demo.TYPES} <= topics.keys()
    assert topics["/occupancy/grid"].latched and not topics["/voxel_updates"].latched
    assert topics["/voxel_updates"].count >= ROOM_FRAMES - 2


def test_a_folder_that_is_no_recording_is_refused_in_a_sentence(tmp_path, capsys):
    assert demo.main(["--sequence", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo: ") and "sequence.yaml" in error and "Traceback" not in error
