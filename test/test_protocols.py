"""The protocols on small fakes, and the benchmark on a small data set in files."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scenes import CAMERA, LOOKING_ALONG_X

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import Layout, write_frame, write_global, write_split, write_stream
from sgrocc.datasets.occscannet import OccScanNet
from sgrocc.evaluation import baselines, benchmark, octomap_baseline
from sgrocc.evaluation.benchmark_report import print_table
from sgrocc.evaluation.metrics import Counts, visible_voxels
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.protocols import LocalPrediction, run_embodied, run_local
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.labels import CHAIR, FLOOR, FREE, UNKNOWN, WALL

GRID = VoxelGrid(np.array([0.0, -0.8, -0.8]), (12, 10, 9), 0.16)
POSE = Pose(LOOKING_ALONG_X, np.array([-1.0, 0.0, 0.0]))


@dataclass
class FakeFrame:
    """A frame before a flat wall; `labels` are random."""

    frame: int
    labels: np.ndarray
    mask: np.ndarray = None
    at_this_frame: np.ndarray = None
    scene: str = "fake"
    camera: object = CAMERA
    pose: Pose = POSE
    grid: VoxelGrid = GRID
    depth_path: Path | None = Path("depth.png")

    def depth(self):
        return np.full((CAMERA.height // 2, CAMERA.width // 2), 1.8, np.float32)  # of another size than the image

    def global_labels(self):
        return self.at_this_frame


@dataclass
class FakeScene:
    labels: np.ndarray
    frames: list
    name: str = "fake"
    grid: VoxelGrid = GRID


@dataclass
class Replay:
    """Predicts what it was told, frame by frame."""

    answers: list
    log: list = field(default_factory=list)

    def predict(self, frame):
        return LocalPrediction(self.answers[frame.frame], None)

    def start(self, scene):
        self.log.append(f"start {scene.name}")
        self.seen = -1

    def add(self, frame):
        self.seen = frame.frame

    def labels(self):
        self.log.append(self.seen)
        return self.answers[self.seen]


def random_labels(rng, count, with_unknown=True):
    return rng.choice(
        np.array([FREE, FREE, WALL, CHAIR, UNKNOWN if with_unknown else FLOOR], np.uint8), (count, *GRID.shape)
    )


def total(counts):
    return sum(counts, Counts.nothing())


# --- local


def test_local_counts_are_those_of_the_frames():
    rng = np.random.default_rng(0)
    truths, answers = random_labels(rng, 5), random_labels(rng, 5)
    frames = [FakeFrame(i, labels) for i, labels in enumerate(truths)]
    seen = []
    result = run_local(frames, Replay(list(answers)), lambda: seen.append(1))
    assert len(seen) == 5
    visible = visible_voxels(frames[0].depth(), CAMERA.resized(CAMERA.width // 2, CAMERA.height // 2), POSE, GRID)
    assert 0 < visible.mean() < 1
    pairs = list(zip(answers, truths, strict=True))
    assert result.counts["all"] == total(Counts.of(*pair) for pair in pairs)
    assert result.counts["visible"] == total(Counts.of(*pair, visible) for pair in pairs)
    assert result.counts["visible"] + result.counts["occluded"] == result.counts["all"]
    # What is in the image is more than what is seen, and less than all.
    scored = {variant: counts.scores()["counts"]["scored"] for variant, counts in result.counts.items()}
    assert scored["visible"] < scored["frustum"] < scored["all"]
    for score, pair in zip(result.scores, pairs, strict=True):
        assert score.sc_iou == Counts.of(*pair).scores()["sc_iou"] and len(score.cpu_ms) == 1
    assert [(score.index, score.frame) for score in result.scores] == [(i, i) for i in range(5)]


def test_parts_of_a_split_give_what_the_whole_gives():
    rng = np.random.default_rng(1)
    frames = [FakeFrame(i, labels) for i, labels in enumerate(random_labels(rng, 6))]
    predictor = Replay(list(random_labels(rng, 6)))
    whole = run_local(frames, predictor)
    parts = run_local(frames, predictor, indices=[0, 1, 2]) + run_local(frames, predictor, indices=[3, 4, 5])
    assert parts.counts == whole.counts
    assert [(s.index, s.sc_iou) for s in parts.scores] == [(s.index, s.sc_iou) for s in whole.scores]


def test_without_depth_nothing_is_known_to_be_visible():
    labels = random_labels(np.random.default_rng(2), 1)
    result = run_local([FakeFrame(0, labels[0], depth_path=None)], Replay(list(labels)))
    assert result.counts["visible"] == Counts.nothing() and result.counts["occluded"] == result.counts["all"]


def test_a_prediction_of_another_shape_is_refused():
    labels = random_labels(np.random.default_rng(3), 1)
    with pytest.raises(ValueError, match="fake frame 0"):
        run_local([FakeFrame(0, labels[0])], Replay([labels[0][:-1]]))


# --- embodied


def fake_scene(seed, count):
    rng = np.random.default_rng(seed)
    frames = [
        FakeFrame(i, None, mask, truth)
        for i, (mask, truth) in enumerate(
            zip(rng.random((count, *GRID.shape)) < 0.2, random_labels(rng, count), strict=True)
        )
    ]
    return FakeScene(frames[-1].at_this_frame, frames), Replay(list(random_labels(rng, count)))


def test_a_map_is_scored_on_the_way_against_what_was_in_view_and_true_by_then():
    scene, predictor = fake_scene(4, 6)
    result = run_embodied([scene], predictor)
    assert predictor.log == ["start fake", 1, 2, 4, 5]  # after 2, 3, 5 and 6 of 6 frames
    for percent, number in ((25, 2), (50, 3), (75, 5), (100, 6)):
        in_view = np.logical_or.reduce([frame.mask for frame in scene.frames[:number]])
        truth = np.where(in_view, scene.frames[number - 1].at_this_frame, UNKNOWN).astype(np.uint8)
        assert result.counts[percent]["all"] == Counts.of(predictor.answers[number - 1], truth)
        assert result.counts[percent]["all"] == result.counts[percent]["visible"] + result.counts[percent]["occluded"]
    (score,) = result.scores
    assert (score.scene, score.frame, len(score.cpu_ms)) == ("fake", 5, 6)
    assert score.sc_iou == result.counts[100]["all"].scores()["sc_iou"]


def test_what_one_frame_saw_stays_visible():
    scene, predictor = fake_scene(5, 2)
    scene.frames[1].pose = Pose(np.diag([1.0, -1, -1]), np.array([0.0, 0, -9]))  # sees nothing of the grid
    seen = visible_voxels(scene.frames[0].depth(), CAMERA.resized(CAMERA.width // 2, CAMERA.height // 2), POSE, GRID)
    truth = np.where(scene.frames[0].mask | scene.frames[1].mask, scene.labels, UNKNOWN).astype(np.uint8)
    result = run_embodied([scene], predictor)
    assert result.counts[100]["visible"] == Counts.of(predictor.answers[1], truth, seen)


def test_scenes_of_one_frame_and_parts_of_a_split():
    scenes, predictor = [fake_scene(6, 1)[0], *(fake_scene(seed, 3)[0] for seed in (7, 8))], fake_scene(9, 3)[1]
    whole = run_embodied(scenes, predictor)
    parts = run_embodied(scenes, predictor, indices=[0]) + run_embodied(scenes, predictor, indices=[1, 2])
    assert parts.counts == whole.counts
    only_last = run_embodied(scenes, predictor, percents=(100,))
    assert only_last.counts == {100: whole.counts[100]}


# --- the benchmark on files

SCENES = ("synth_a", "synth_b")
FRAMES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small rooms: a floor, a wall 2.4 m ahead, a chair; images, depth and labels as the readers expect them."""
    root = tmp_path_factory.mktemp("data")
    grid = VoxelGrid(np.array([0.0, -2.4, -0.8]), (60, 60, 36), 0.08)
    rng = np.random.default_rng(10)
    names = []
    for number, scene in enumerate(SCENES):
        labels = np.full(grid.shape, FREE, np.uint8)
        labels[:, :, 0] = FLOOR
        labels[30:32] = WALL
        labels[32:] = UNKNOWN
        labels[20:24, 20 + 10 * number : 26, 1:6] = CHAIR
        mask = np.ones(grid.shape, bool)
        for frame in range(FRAMES):
            pose = Pose(LOOKING_ALONG_X, np.array([0.0, 0.2 * frame, 0.3]))
            write_frame(
                root,
                scene,
                frame,
                pose=pose,
                camera=CAMERA,
                voxel_origin=grid.origin,
                labels=labels,
                image=rng.integers(0, 255, (CAMERA.height, CAMERA.width, 3), np.uint8),
                depth=np.full((CAMERA.height, CAMERA.width), 2.4, np.float32),
            )
            write_stream(root, "test", scene, frame, local_label=labels, mask_in_global=mask)
            names.append((scene, frame))
        paths = [f"/somewhere/{scene}/{frame:05d}.jpg" for frame in range(FRAMES)]
        write_global(root, scene, grid=grid, labels=labels, mask=mask, image_paths=paths)
    write_split(root, "test", "local", names)
    write_split(root, "test", "embodied", SCENES)
    (root / "synthrooms.json").write_text(json.dumps({"splits": {"test": {"labels_sha256": "ab" * 32}}}))
    return root


def run(*arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args([str(argument) for argument in arguments]))


def write_predictions(folder, data, spoil):
    """Both protocols' files: the truth, changed by `spoil`."""
    for frame in OccScanNet(data, "test"):
        (folder / frame.scene).mkdir(parents=True, exist_ok=True)
        np.save(folder / frame.scene / f"{frame.frame:05d}.npy", spoil(frame.labels, frame.frame))
    for scene in EmbodiedOccScanNet(data, "test"):
        np.savez(folder / f"{scene.name}.npz", spoil(scene.labels, 0))
    return folder


def missing_chairs(labels, frame):
    return np.where((labels == CHAIR) & (frame != 1), FREE, labels).astype(np.int64)


def test_perfect_predictions_score_one(data, tmp_path, capsys):
    folder = write_predictions(tmp_path / "perfect", data, lambda labels, frame: labels)
    for protocol in benchmark.PROTOCOLS:
        path = tmp_path / "deep" / f"{protocol}.json"
        report = run("--data", data, "--predictions", folder, "--protocol", protocol, "--json", path)
        assert json.loads(path.read_text()) == report
        assert report["sc_iou"] == report["precision"] == report["recall"] == report["boundary_f1"] == 1
        assert report["per_class"]["chair"] == pytest.approx(1, abs=1e-5) and report["per_class"]["tv"] is None
        assert report["miou"] == pytest.approx(3 / 11, abs=1e-5)
        for variant in ("visible", "occluded"):
            assert report[variant]["sc_iou"] == 1
        assert ("frustum" in report) == (protocol == "local")
        assert report.get("after_percent", {}) == {}
        assert report["data_hash"] == "synthrooms:" + "ab" * 32 and report["commit"]
        assert report["method"] == report["configuration"]["predictions"] == "perfect"
        assert report["published_on_other_data"]["sc_iou"] == {"local": 0.5855, "embodied": 0.5572}[protocol]
        assert report["baselines"] == {} and report["skipped"] == []
    assert "other data" in capsys.readouterr().out


def test_several_processes_give_the_same_figures(data, tmp_path):
    folder = write_predictions(tmp_path / "p", data, missing_chairs)
    settings = ["--data", data, "--predictions", folder, "--protocol", "embodied"]
    one, two = run(*settings), run(*settings, "--jobs", 2)
    for report in (one, two):
        del report["cpu_ms_per_frame"]
    assert one == two and one["per_class"]["chair"] == 0 and 0 < one["sc_iou"] < 1


def test_pictures_show_the_best_the_median_and_the_worst(data, tmp_path):
    folder = write_predictions(tmp_path / "p", data, missing_chairs)
    report = run("--data", data, "--predictions", folder, "--pictures", tmp_path / "pictures")
    pictures = {path.name.split("_")[0]: path for path in (tmp_path / "pictures").iterdir()}
    assert pictures.keys() == {"best", "median", "worst"} and report["frames"] == 6
    assert pictures["best"].name.endswith("00001.png") and not pictures["worst"].name.endswith("00001.png")
    with Image.open(pictures["worst"]) as picture:
        assert picture.width > 2 * picture.height > 1000
        assert len(picture.getcolors(picture.width * picture.height)) > 100


def test_an_occupancy_map_is_moved_onto_the_grid(data, tmp_path):
    write_predictions(tmp_path, data, lambda labels, frame: labels)
    scene = EmbodiedOccScanNet(data, "test")[0]
    Occupancy(
        scene.labels[:, 10:], np.zeros((60, 50, 36), np.float32), scene.grid.origin + [0, 0.8, 0], 0.08, "elsewhere"
    ).save(tmp_path / f"{scene.name}.npz")
    report = run("--data", data, "--predictions", tmp_path, "--protocol", "embodied", "--limit", 1)
    truth, missing = (
        np.count_nonzero((part != FREE) & (part != UNKNOWN)) for part in (scene.labels, scene.labels[:, :10])
    )
    assert report["configuration"]["scenes"] == 1 and 0 < missing < truth
    assert report["precision"] == 1 and report["recall"] == 1 - missing / truth


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no prediction"),
        (np.zeros((60, 60, 35), np.uint8), "voxels"),
        (np.full((60, 60, 36), 12, np.uint8), "label 12"),
        (np.full((60, 60, 36), -1), "label -1"),
        (np.zeros((60, 60, 36)), "float64"),
        (np.array([{"a": 1}], object), "no array of numbers"),
    ],
)
def test_a_prediction_that_cannot_be_used_is_named(data, tmp_path, content, message):
    write_predictions(tmp_path, data, lambda labels, frame: labels)
    path = tmp_path / SCENES[1] / "00001.npy"
    path.unlink()
    if content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as fault:
        run("--data", data, "--predictions", tmp_path)
    assert str(path.with_suffix("")) in str(fault.value)


@pytest.mark.skipif(not octomap_baseline.available(), reason="pyoctomap is not installed")
def test_baselines_stand_beside_the_method_and_what_cannot_be_scored_is_said(data, tmp_path):
    report = run("--data", data, "--expert", "geometric", "--baselines")
    assert set(report["baselines"]) == {"octomap", "octomap_fill", "octomap_unknown_occupied"}
    assert "training split" in report["baselines_left_out"]["class_prior"]
    # The wall is a flat depth image away: both find it.
    assert report["visible"]["recall"] > 0.2 and report["baselines"]["octomap"]["visible"]["recall"] > 0.2
    assert report["baselines"]["octomap"]["cpu_ms_per_frame"]["median"] > 0
    alone = run("--data", data, "--baselines", "octomap")
    assert alone["sc_iou"] is None and alone["method"] is None
    assert alone["baselines"]["octomap"]["counts"] == report["baselines"]["octomap"]["counts"]
    console = Console(file=io.StringIO(), width=120)
    print_table(report, console)
    rows = {line[:18].strip(): line[18:].split() for line in console.file.getvalue().splitlines()}
    figures = (report, *report["baselines"].values())
    assert rows["SC-IoU"] == [*(f"{100 * figure['sc_iou']:.2f}" for figure in figures), "58.55"]
    assert rows["wall"] == [*["0.00"] * 4, "50.80"] and rows["tv"][:2] == ["-", "-"]
    with pytest.raises(ValueError, match="training split"):
        run("--data", data, "--baselines", "class_prior")


def test_the_local_protocol_runs_in_several_processes_too(data, tmp_path, monkeypatch):
    folder = write_predictions(tmp_path / "p", data, missing_chairs)
    monkeypatch.setattr(benchmark, "_FRAMES_AT_ONCE", 2)
    workers = []

    class Pool(benchmark.ProcessPoolExecutor):
        def __init__(self, jobs, *rest):
            workers.append(jobs)
            super().__init__(jobs, *rest)

    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", Pool)
    one, two = run("--data", data, "--predictions", folder), run("--data", data, "--predictions", folder, "--jobs", 2)
    assert workers == [2]
    for report in (one, two):
        del report["cpu_ms_per_frame"]
    assert one == two and one["frames"] == 6


def test_baselines_get_the_training_split_the_depth_and_the_expert(data, monkeypatch):
    write_split(data, "train", "local", [(SCENES[1], 2)])
    given = {}

    def make(name, protocol, depth, **more):
        given[name] = depth, more
        if name == "octomap":
            raise ValueError("not today")
        return Replay([np.zeros((60, 60, 36), np.uint8)] * FRAMES)

    monkeypatch.setattr(baselines, "make", make)
    report = run("--data", data, "--expert", "geometric", "--depth", "sensor", "--baselines")
    Layout(data).list_path("train", "local").unlink()
    assert set(given) == set(baselines.NAMES["local"]) and {depth for depth, _ in given.values()} == {"sensor"}
    assert [(frame.scene, frame.frame) for frame in given["class_prior"][1]["train"]] == [(SCENES[1], 2)]
    experts = {more["expert"] for name, (_, more) in given.items() if name != "class_prior"}
    assert len(experts) == 1 and isinstance(experts.pop(), GeometricExpert)
    assert report["baselines_left_out"] == {"octomap": "not today"}


@pytest.mark.skipif(not octomap_baseline.available(), reason="pyoctomap is not installed")
def test_an_embodied_report_says_how_sure_its_margins_are(data):
    report = run("--data", data, "--expert", "geometric", "--protocol", "embodied", "--baselines", "octomap")
    baseline = report["baselines"]["octomap"]
    for key in ("sc_iou", "miou"):
        low, high = report["interval"][key]
        assert low <= report[key] <= high
        margin = baseline["margin"]
        assert margin[key] == pytest.approx((report[key] or 0) - (baseline[key] or 0))
        low, high = margin["interval"][key]
        assert low <= margin[key] <= high
    console = Console(file=io.StringIO(), width=120)
    print_table(report, console)
    row = next(line.split() for line in console.file.getvalue().splitlines() if line.startswith(" margin in SC-IoU"))
    assert row[3:5] == ["-", f"{100 * baseline['margin']['sc_iou']:.2f}"]


def test_a_method_may_be_called_as_a_baseline(data, tmp_path):
    folder = write_predictions(tmp_path / "class_prior", data, lambda labels, frame: labels)
    report = run("--data", data, "--predictions", folder)
    report["baselines"] = {"class_prior": {**report, "sc_iou": 0.123}}
    console = Console(file=io.StringIO(), width=120)
    print_table(report, console)
    row = next(line.split() for line in console.file.getvalue().splitlines() if line.startswith(" SC-IoU  "))
    assert row[1:3] == ["100.00", "12.30"]


def test_a_limit_takes_frames_from_all_of_the_split(data, tmp_path):
    folder = write_predictions(tmp_path / "p", data, missing_chairs)
    report = run("--data", data, "--predictions", folder, "--limit", 2)  # frames 0 and 3: the first of each scene
    whole = run("--data", data, "--predictions", folder)
    assert report["frames"] == 2 and report["counts"]["true_positive"] * 3 < whole["counts"]["true_positive"]
    first = [OccScanNet(data, "test")[i] for i in (0, 3)]
    chairs = sum(np.count_nonzero(frame.labels == CHAIR) for frame in first)
    assert report["counts"]["false_negative"] == chairs


def test_wrong_requests_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="nothing to score"):
        run("--data", data)
    with pytest.raises(ValueError, match="below 1"):
        run("--data", data, "--expert", "geometric", "--limit", 0)
    with pytest.raises(ValueError, match="no folder"):
        run("--data", data, "--predictions", tmp_path / "absent")
    with pytest.raises(ValueError, match="missing"):
        run("--data", data, "--expert", "geometric", "--split", "val")


def test_bad_files_are_skipped_by_option(data, tmp_path):
    for path in data.rglob("*"):
        target = tmp_path / path.relative_to(data)
        target.mkdir(parents=True, exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    bad = Layout(tmp_path).gathered(SCENES[0], 1)
    bad.write_bytes(b"no pickle")
    settings = ["--data", tmp_path, "--predictions", write_predictions(tmp_path / "p", data, missing_chairs)]
    with pytest.raises(ValueError, match="00001.pkl"):
        run(*settings)
    report = run(*settings, "--on-error", "skip")
    assert report["frames"] == 5 and str(bad) in report["skipped"][0]


def test_a_split_of_which_nothing_can_be_read_is_refused(data, tmp_path):
    path = Layout(tmp_path).list_path("test", "local")
    path.parent.mkdir(parents=True)
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match="nothing of test can be read.*nonsense"):
        run("--data", tmp_path, "--expert", "geometric", "--on-error", "skip")


def test_the_hash_of_a_set_without_one_is_that_of_its_list(tmp_path):
    layout = Layout(tmp_path)
    assert benchmark.data_hash(layout, "test", "local") == "unknown"
    write_split(tmp_path, "test", "local", [("room", 1)])
    write_split(tmp_path, "test", "embodied", ["room"])
    local, embodied = (benchmark.data_hash(layout, "test", protocol) for protocol in benchmark.PROTOCOLS)
    assert local == "lists:" + hashlib.sha256(b"gathered_data/room/00001.pkl\n").hexdigest()
    assert embodied == "lists:" + hashlib.sha256(b"room\n").hexdigest()
    (tmp_path / "synthrooms.json").write_text('{"splits": {"test": {"labels_sha256": null}}}')
    assert benchmark.data_hash(layout, "test", "local") == local


def test_the_command_line_is_quick():
    slow = {"mujoco", "warp", "torch", "onnxruntime"}
    code = f"import sys, sgrocc.evaluation.benchmark; print(sorted({slow} & {{*sys.modules}}))"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
