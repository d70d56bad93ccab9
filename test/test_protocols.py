"""The local and the embodied protocol, and the benchmark around them, on a tiny data set of known content."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scenes import CAMERA, LOOKING_ALONG_X, ROOM, depth_of_boxes

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import LOCAL_SHAPE, Layout, write_frame, write_global, write_split, write_stream
from sgrocc.datasets.occscannet import OccScanNet
from sgrocc.evaluation import benchmark, benchmark_report
from sgrocc.evaluation.metrics import Counts, view_of, visible_voxels
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.protocols import (
    EMBODIED_VARIANTS,
    LOCAL_VARIANTS,
    PERCENTS,
    LocalPrediction,
    run_embodied,
    run_local,
)
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.labels import CHAIR, FLOOR, FREE, TABLE, UNKNOWN, WALL

#: Voxels (not metres) of the scenes' corner in the world, and their size.
CORNER, SHAPE = np.array([-10, -40, -9]), (70, 80, 40)
SCENES = ("synth_test_0000", "synth_test_0001")
FRAMES = 5
#: What the boxes of `ROOM` are.
CLASSES = (WALL, WALL, FLOOR, TABLE)
#: A chair that stands there in the first frames and is then carried away.
MOVED = (slice(30, 34), slice(42, 46), slice(3, 9))
LAST_WITH_CHAIR = 2


def scene_labels(grid, boxes=ROOM):
    centres = grid.centres()
    labels = np.full(grid.shape, FREE, np.uint8)
    for (low, high), label in zip(boxes, CLASSES, strict=True):
        labels[((centres >= low) & (centres <= high)).all(axis=-1)] = label
    labels[-6:] = UNKNOWN
    return labels


def write_set(root, splits=("train", "test")):
    """Two scenes of `FRAMES` frames; in the second a chair is carried away."""
    for split in splits:
        lines = []
        for number, name in enumerate(SCENES):
            name = name.replace("test", split)
            grid = VoxelGrid(CORNER * 0.08, SHAPE, 0.08)
            last = scene_labels(grid)
            images, seen = [], np.zeros(SHAPE, bool)
            for frame in range(FRAMES):
                yaw = 0.25 * (frame - 2) + 0.1 * number
                c, s = np.round([np.cos(yaw), np.sin(yaw)], 9)
                turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
                pose = Pose(turn @ LOOKING_ALONG_X, np.array([0.1 * frame, 0.05 * number, 0.3]))
                labels = last.copy()
                if number and frame <= LAST_WITH_CHAIR:
                    labels[MOVED] = CHAIR
                start = np.array([4 + frame, 10, 0])
                local = labels[tuple(slice(a, a + n) for a, n in zip(start, LOCAL_SHAPE, strict=True))]
                images.append(
                    write_frame(
                        root,
                        name,
                        frame,
                        pose=pose,
                        camera=CAMERA,
                        voxel_origin=(CORNER + start) * 0.08,
                        labels=local,
                        image=np.full((CAMERA.height, CAMERA.width, 3), 40 * frame, np.uint8),
                        depth=depth_of_boxes(ROOM, CAMERA, pose),
                    )
                )
                mask = view_of(CAMERA, pose, grid)
                mask[:4] = mask[-6:] = False
                seen |= mask
                where = np.flatnonzero(labels != last)
                changes = (where, labels.reshape(-1)[where]) if len(where) else None
                write_stream(root, split, name, frame, local_label=local, mask_in_global=mask, changes=changes)
                lines.append((name, frame))
            write_global(root, name, grid=grid, labels=last, mask=seen, image_paths=images)
        write_split(root, split, "local", lines)
        write_split(root, split, "embodied", [name.replace("test", split) for name in SCENES])
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


class Oracle:
    """Knows the truth, and is wrong where `spoil` says: labels -> labels."""

    name = "oracle"

    def __init__(self, spoil=lambda labels: labels):
        self._spoil = spoil

    def predict(self, frame):
        return LocalPrediction(self._spoil(frame.labels.copy()), None)

    def start(self, scene):
        self._labels, self.started, self.added = scene.labels.copy(), scene.name, []

    def add(self, frame):
        assert frame.scene == self.started
        self.added.append(frame.frame)
        self._labels = frame.global_labels()

    def labels(self):
        return self._spoil(self._labels.copy())


class Nothing(Oracle):
    def __init__(self):
        super().__init__(lambda labels: np.zeros_like(labels))


def seeded(labels):
    """Wrong in a fifth of the voxels, the same ones for the same labels."""
    rng = np.random.default_rng(int(labels.sum()) % 1000)
    wrong = rng.random(labels.shape) < 0.2
    labels[wrong] = rng.integers(0, 12, np.count_nonzero(wrong), dtype=np.uint8)
    return labels


# -- local -------------------------------------------------------------------------------------------------------------


def test_the_truth_scores_one_and_nothing_scores_zero(data):
    frames = OccScanNet(data, "test")
    perfect, empty = run_local(frames, Oracle()), run_local(frames, Nothing())
    for variant in LOCAL_VARIANTS:
        best, worst = perfect.counts[variant].scores(), empty.counts[variant].scores()
        assert best["sc_iou"] == best["precision"] == best["recall"] == best["boundary_f1"] == 1.0
        assert worst["sc_iou"] == worst["recall"] == worst["miou"] == 0.0 and worst["precision"] is None
        # Four of eleven classes are there; the others count as zero.
        assert best["miou"] == pytest.approx(sum(v for v in best["per_class"].values() if v is not None) / 11)
    names = [name for name, value in perfect.counts["all"].scores()["per_class"].items() if value is not None]
    assert names == ["floor", "wall", "chair", "table"]


def test_local_counts_are_those_of_the_frames_and_their_masks(data):
    frames = OccScanNet(data, "test")
    result = run_local(frames, Oracle(seeded))
    expected = {variant: Counts.nothing() for variant in LOCAL_VARIANTS}
    for frame in frames:
        guess = seeded(frame.labels.copy())
        visible = visible_voxels(frame.depth(), frame.camera, frame.pose, frame.grid)
        masks = (None, visible, ~visible, view_of(frame.camera, frame.pose, frame.grid))
        for variant, mask in zip(LOCAL_VARIANTS, masks, strict=True):
            expected[variant] += Counts.of(guess, frame.labels, mask)
    assert result.counts == expected
    assert result.counts["visible"] + result.counts["occluded"] == result.counts["all"]
    everything = {variant: counts.scores()["counts"]["scored"] for variant, counts in result.counts.items()}
    assert 0 < everything["visible"] < everything["frustum"] < everything["all"]


def test_every_local_frame_has_its_score(data):
    frames = OccScanNet(data, "test")
    calls = []
    result = run_local(frames, Oracle(seeded), lambda: calls.append(1))
    assert len(calls) == len(result.scores) == len(frames) == 2 * FRAMES
    for score, frame in zip(result.scores, frames, strict=True):
        assert (score.scene, score.frame) == (frame.scene, frame.frame)
        expected = Counts.of(seeded(frame.labels.copy()), frame.labels).scores()
        assert (score.sc_iou, score.miou) == (expected["sc_iou"], expected["miou"])
        assert len(score.cpu_ms) == 1 and score.cpu_ms[0] >= 0


def test_local_results_of_parts_add_up_to_those_of_all(data):
    frames = OccScanNet(data, "test")
    parts = [run_local(frames, Oracle(seeded), indices=part) for part in (range(3), range(3, 4), range(4, 10))]
    whole, joined = run_local(frames, Oracle(seeded)), parts[0] + parts[1] + parts[2]
    assert joined.counts == whole.counts
    assert [replace(s, cpu_ms=()) for s in joined.scores] == [replace(s, cpu_ms=()) for s in whole.scores]


def test_a_prediction_of_another_grid_is_refused(data):
    frames = OccScanNet(data, "test")
    with pytest.raises(ValueError, match="synth_test_0000 frame 0 has .* voxels"):
        run_local(frames, Oracle(lambda labels: labels[:-1]))
    with pytest.raises(ValueError, match="synth_test_0000 has .* voxels"):
        run_embodied(EmbodiedOccScanNet(data, "test"), Oracle(lambda labels: labels[:-1]))


# -- embodied ----------------------------------------------------------------------------------------------------------


def test_a_scene_is_scored_after_a_part_of_its_frames_on_what_they_had_in_view(data):
    scenes = EmbodiedOccScanNet(data, "test")
    result = run_embodied(scenes, Oracle(seeded))
    assert tuple(result.counts) == PERCENTS
    for percent, count in zip(PERCENTS, (2, 3, 4, 5), strict=True):  # of five, rounded up
        expected = {variant: Counts.nothing() for variant in EMBODIED_VARIANTS}
        for scene in scenes:
            in_view, visible = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
            for frame in scene.frames[:count]:
                in_view |= frame.mask
                visible |= visible_voxels(frame.depth(), frame.camera, frame.pose, scene.grid)
            now = frame.global_labels()
            truth = np.where(in_view, now, np.uint8(UNKNOWN))
            guess = seeded(now.copy())
            for variant, mask in zip(EMBODIED_VARIANTS, (None, visible, ~visible), strict=True):
                expected[variant] += Counts.of(guess, truth, mask)
        assert result.counts[percent] == expected
        assert expected["visible"] + expected["occluded"] == expected["all"]
    scored = [result.counts[percent]["all"].scores()["counts"]["scored"] for percent in PERCENTS]
    assert scored == sorted(scored) and scored[0] < scored[-1]


def test_the_truth_is_that_of_the_frame_after_which_the_map_is_scored(data):
    """The chair of the second scene is there after 50 percent (three of five frames), and gone after 75."""
    scenes = EmbodiedOccScanNet(data, "test")
    assert (scenes[1].frames[0].mask | scenes[1].frames[1].mask)[MOVED].any()
    counts = run_embodied(scenes, Oracle()).counts
    chairs = {percent: counts[percent]["all"].scores()["per_class"]["chair"] for percent in PERCENTS}
    assert chairs[25] == chairs[50] == pytest.approx(1, abs=1e-3) and chairs[75] is chairs[100] is None
    assert all(counts[percent]["all"].scores()["sc_iou"] == 1.0 for percent in PERCENTS)


def test_embodied_predictors_get_every_frame_in_order_and_a_fresh_start(data):
    scenes = EmbodiedOccScanNet(data, "test")
    oracle, calls = Oracle(), []
    result = run_embodied(scenes, oracle, lambda: calls.append(1))
    assert oracle.started == SCENES[1] and oracle.added == list(range(FRAMES)) and len(calls) == 2 * FRAMES
    assert [(score.scene, score.frame) for score in result.scores] == [(name, FRAMES - 1) for name in SCENES]
    assert all(len(score.cpu_ms) == FRAMES for score in result.scores)
    only_last = run_embodied(scenes, oracle, percents=(100,))
    assert only_last.counts == {100: result.counts[100]}
    parts = run_embodied(scenes, oracle, indices=[0]) + run_embodied(scenes, oracle, indices=[1])
    assert parts.counts == result.counts


# -- the benchmark -----------------------------------------------------------------------------------------------------


def evaluate(data, *arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args(["--data", str(data), *map(str, arguments)]))


def without_times(figures):
    if isinstance(figures, dict):
        return {key: without_times(value) for key, value in figures.items() if key != "cpu_ms_per_frame"}
    return figures


@pytest.mark.parametrize("protocol", ["local", "embodied"])
def test_the_benchmark_writes_all_figures_and_pictures(data, tmp_path, protocol):
    file, pictures = tmp_path / "new" / "eval.json", tmp_path / "pictures"
    arguments = ("--protocol", protocol, "--expert", "geometric", "--baselines", "class_prior")
    report = evaluate(data, *arguments, "--json", file, "--pictures", pictures)
    assert json.loads(file.read_text()) == report
    for figures in (report, report["baselines"]["class_prior"]):
        assert 0 < figures["sc_iou"] < 1 and 0 < figures["precision"] <= 1 and 0 < figures["recall"] <= 1
        assert 0 < figures["boundary_f1"] <= 1 and 0 <= figures["miou"] < 1 and set(figures["per_class"]) > {"floor"}
        assert {"sc_iou", "miou", "boundary_f1"} <= figures["visible"].keys() & figures["occluded"].keys()
        assert figures["cpu_ms_per_frame"]["median"] >= 0
        if protocol == "local":
            assert figures["frustum"]["sc_iou"] > 0
        else:
            assert list(figures["after_percent"]) == ["25", "50", "75"]
    assert report["visible"]["recall"] > report["occluded"]["recall"]
    assert report["configuration"]["protocol"] == protocol and report["configuration"]["depth"] == "true"
    assert report["data_hash"].startswith("lists:") and report["commit"]
    drawn = sorted(path.name.split("_")[0] for path in pictures.iterdir())
    assert drawn == ["best", "median", "worst"]


def test_several_processes_give_the_same_figures(data, monkeypatch):
    monkeypatch.setattr(benchmark, "_FRAMES_AT_ONCE", 4)
    for protocol in ("local", "embodied"):
        arguments = ("--protocol", protocol, "--expert", "geometric", "--baselines", "class_prior")
        one, two = (evaluate(data, *arguments, "--jobs", jobs) for jobs in (1, 2))
        assert without_times(one) == without_times(two)


def test_predictions_in_files_are_scored_whatever_their_form(data, tmp_path):
    folder = tmp_path / "theirs"
    frames = OccScanNet(data, "test")
    for frame in frames:
        (folder / frame.scene).mkdir(parents=True, exist_ok=True)
        stem = folder / frame.scene / f"{frame.frame:05d}"
        labels = seeded(frame.labels.copy())
        if frame.frame == 0:
            np.save(stem.with_suffix(".npy"), labels.astype(np.int64))
        elif frame.frame == 1:
            np.savez_compressed(stem.with_suffix(".npz"), labels=labels)
        else:
            # One voxel larger on each side, in a frame of reference of its own name.
            probability = np.zeros(np.array(labels.shape) + 2, np.float32)
            larger = np.full(probability.shape, WALL, np.uint8)
            larger[1:-1, 1:-1, 1:-1] = labels
            Occupancy(larger, probability, frame.grid.origin - 0.08, 0.08, "theirs").save(stem.with_suffix(".npz"))
    report = evaluate(data, "--predictions", folder)
    expected = run_local(frames, Oracle(seeded)).counts
    assert {key: report[key] for key in expected["all"].scores()} == expected["all"].scores()
    assert report["occluded"] == expected["occluded"].scores() and report["method"] == "theirs"

    for scene in EmbodiedOccScanNet(data, "test"):
        np.save(folder / f"{scene.name}.npy", seeded(scene.labels.copy()))
    report = evaluate(data, "--predictions", folder, "--protocol", "embodied")
    expected = run_embodied(EmbodiedOccScanNet(data, "test"), Oracle(seeded)).counts[100]["all"].scores()
    assert {key: report[key] for key in expected} == expected and report["after_percent"] == {}


def test_bad_predictions_and_options_are_named(data, tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        evaluate(data, "--predictions", tmp_path / "absent")
    folder = tmp_path / SCENES[0]
    folder.mkdir()
    with pytest.raises(ValueError, match="no prediction .*00000.npy"):
        evaluate(data, "--predictions", tmp_path)
    for labels, message in (
        (np.zeros((60, 60, 35), np.uint8), "voxels"),
        (np.zeros(LOCAL_SHAPE, np.float32), "labels"),
        (np.full(LOCAL_SHAPE, 12, np.uint8), "label 12"),
        (np.full(LOCAL_SHAPE, None), "00000.npy"),
    ):
        np.save(folder / "00000.npy", labels)
        with pytest.raises(ValueError, match=message):
            evaluate(data, "--predictions", tmp_path)
    (folder / "00000.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="00000.npy"):
        evaluate(data, "--predictions", tmp_path)
    for arguments, message in (
        ((), "nothing to score"),
        (("--expert", "geometric", "--limit", 0), "below 1"),
        (("--expert", "geometric", "--split", "val"), "missing"),
        (("--baselines", "bogus"), "bogus"),
        (("--baselines", "splicing"), "embodied"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(data, *arguments)


def test_a_limit_spreads_the_frames_over_the_split(data):
    report = evaluate(data, "--expert", "geometric", "--limit", 4)
    expected = run_local(OccScanNet(data, "test"), _geometric(), indices=[0, 2, 5, 7]).counts["all"].scores()
    assert {key: report[key] for key in expected} == expected and report["frames"] == 4


def _geometric():
    from sgrocc.evaluation import predictors

    return predictors.make(None, "local", "true", expert="geometric")


def test_the_table_shows_the_papers_figures_as_of_other_data(data):
    report = evaluate(data, "--baselines", "class_prior")
    assert report["method"] is None and report["sc_iou"] is None and report["baselines"]["class_prior"]["sc_iou"] > 0
    console = Console(width=120, record=True)
    benchmark_report.print_table(report, console)
    text = " ".join(console.export_text().split())  # however its lines are broken
    assert "58.55" in text and "49.89" in text and "other data" in text and "published, on Occ-ScanNet" in text
    assert f"{100 * report['baselines']['class_prior']['sc_iou']:.2f}" in text


def test_the_hash_of_a_generated_set_is_that_of_its_labels(data, tmp_path):
    index = {"splits": {"test": {"labels_sha256": "abc"}, "val": {"labels_sha256": None}}}
    (tmp_path / "synthrooms.json").write_text(json.dumps(index))
    assert benchmark.data_hash(Layout(tmp_path), "test", "local") == "synthrooms:abc"
    assert benchmark.data_hash(Layout(tmp_path), "val", "local") == "unknown"
    first = benchmark.data_hash(Layout(data), "test", "local")
    assert first.startswith("lists:") and first != benchmark.data_hash(Layout(data), "train", "local")
