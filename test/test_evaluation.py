"""Occupancy maps, their scores and the report."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.occupancy import MAX_VOXELS, Occupancy
from sgrocc.evaluation.report import commit_of, print_table, write_report
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import CLASS_LABELS, CLASS_NAMES, FREE, GENERIC, UNKNOWN

_LABELS = np.array([FREE, *CLASS_LABELS, UNKNOWN], np.uint8)


def _map(labels, corner=(0, 0, 0), resolution=0.08, frame_id="odom"):
    labels = np.asarray(labels, np.uint8)
    probability = ((labels != FREE) & (labels != UNKNOWN)).astype(np.float32)
    return Occupancy(labels, probability, np.array(corner) * resolution, resolution, frame_id)


def _random_map(seed, labels=_LABELS, shape=None, corner=None):
    rng = np.random.default_rng(seed)
    shape = shape if shape is not None else rng.integers(1, 7, 3)
    corner = corner if corner is not None else rng.integers(-5, 5, 3)
    return _map(rng.choice(labels, shape), corner)


def _voxels(occupancy):
    """{world voxel index: label} of the known voxels, by a plain loop."""
    corner = np.rint(occupancy.origin / occupancy.resolution).astype(int)
    return {
        tuple(int(n) for n in corner + index): int(label)
        for index, label in np.ndenumerate(occupancy.labels)
        if label != UNKNOWN
    }


# --- Occupancy


def test_saving_and_loading_gives_the_same_map(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.choice(_LABELS, (5, 4, 3))
    before = Occupancy(labels, rng.random((5, 4, 3), np.float32), np.array([-0.8, 0.16, 0.08]), 0.08, "küche")
    before.save(tmp_path / "map.npz")
    after = Occupancy.load(tmp_path / "map.npz")
    assert np.array_equal(after.labels, before.labels) and after.labels.dtype == np.uint8
    assert np.array_equal(after.probability, before.probability) and after.probability.dtype == np.float32
    assert np.array_equal(after.origin, before.origin)
    assert (after.resolution, after.frame_id) == (0.08, "küche")
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


def test_a_failed_save_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "map.npz"
    _random_map(2).save(path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="disk full"):
        _random_map(3).save(path)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


def test_a_missing_probability_is_filled_from_the_labels(tmp_path):
    labels = np.array([[[FREE, 3, UNKNOWN, GENERIC]]], np.uint8)
    np.savez(tmp_path / "map.npz", labels=labels, origin=np.zeros(3), resolution=0.1, frame_id="odom")
    assert Occupancy.load(tmp_path / "map.npz").probability.tolist() == [[[0, 1, 0, 1]]]


_GOOD = {
    "labels": np.zeros((2, 2, 2), np.uint8),
    "probability": np.zeros((2, 2, 2), np.float32),
    "origin": np.zeros(3),
    "resolution": np.float64(0.08),
    "frame_id": np.array("odom"),
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", np.zeros((2, 2, 2), np.int64), "uint8"),
        ("labels", np.zeros((2, 2), np.uint8), "uint8"),
        ("labels", np.full((2, 2, 2), 12, np.uint8), "label"),
        ("labels", np.array([{"a": 1}], object), "Python objects"),
        ("probability", np.zeros((2, 2, 2), np.float64), "float32"),
        ("probability", np.zeros((2, 2, 3), np.float32), "float32"),
        ("probability", np.full((2, 2, 2), np.nan, np.float32), "probability"),
        ("probability", np.full((2, 2, 2), 1.5, np.float32), "probability"),
        ("origin", np.array([0.03, 0, 0]), "whole"),
        ("origin", np.array([np.nan, 0, 0]), "finite"),
        ("origin", np.array(["a", "b", "c"]), "number"),
        ("origin", np.zeros(2), "three"),
        ("resolution", np.float64(0), "resolution"),
        ("resolution", np.array([0.08, 0.08]), "resolution"),
        ("frame_id", np.array([1, 2]), "frame_id"),
        ("origin", None, "origin"),
        ("labels", None, "labels"),
        ("frame_id", None, "frame_id"),
    ],
)
def test_a_file_with_a_wrong_field_is_refused(tmp_path, field, value, message):
    path = tmp_path / "map.npz"
    np.savez(path, **_GOOD)
    Occupancy.load(path)
    fields = {name: array for name, array in _GOOD.items() if name != field}
    np.savez(path, **fields, **({} if value is None else {field: value}))
    with pytest.raises(ValueError, match=message) as fault:
        Occupancy.load(path)
    assert str(path) in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "map.npz"
    _random_map(4, shape=(20, 20, 20)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="write it again"):
        Occupancy.load(path)


def test_damage_inside_a_file_is_refused_or_harmless(tmp_path):
    path = tmp_path / "map.npz"
    original = _random_map(5, shape=(20, 20, 20))
    original.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 5):
            damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert np.array_equal(Occupancy.load(path).labels, original.labels)
        except ValueError:
            refused += 1
    assert refused > 20


def test_files_that_are_not_maps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="check the path"):
        Occupancy.load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="check the path"):
        Occupancy.load(tmp_path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="npz"):
        Occupancy.load(tmp_path / "array.npy")


def test_from_voxels_makes_the_smallest_box_of_what_is_known():
    indices = np.array([[-3, 2, 0], [-1, 2, 4], [50, 50, 50]], np.int32)
    made = Occupancy.from_voxels(
        indices, np.array([4, FREE, UNKNOWN], np.uint8), np.array([0.9, 0.2, 0.5], np.float32), 0.1, "map"
    )
    assert made.labels.shape == (3, 1, 5)
    np.testing.assert_allclose(made.origin, [-0.3, 0.2, 0.0])
    assert _voxels(made) == {(-3, 2, 0): 4, (-1, 2, 4): FREE}
    assert made.probability[0, 0, 0] == np.float32(0.9) and made.probability[2, 0, 4] == np.float32(0.2)
    assert np.count_nonzero(made.probability) == 2


def test_from_voxels_of_nothing_is_an_empty_map():
    empty = Occupancy.from_voxels(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8), np.zeros(0), 0.08, "odom")
    assert empty.labels.size == 0
    truth = _random_map(7, labels=np.array([FREE, 3], np.uint8), shape=(4, 4, 4))
    assert score(empty, truth)["recall"] == 0.0


def test_from_voxels_refuses_what_it_would_have_to_guess():
    one, probability = np.array([3], np.uint8), np.ones(1, np.float32)
    with pytest.raises(ValueError, match="twice"):
        Occupancy.from_voxels(np.zeros((2, 3), int), np.array([3, 4], np.uint8), np.ones(2), 0.08, "odom")
    with pytest.raises(ValueError, match="integers"):
        Occupancy.from_voxels(np.zeros((1, 3)), one, probability, 0.08, "odom")
    with pytest.raises(ValueError, match="integers"):
        Occupancy.from_voxels(np.zeros((2, 3), int), one, probability, 0.08, "odom")
    with pytest.raises(ValueError, match="shape"):
        Occupancy.from_voxels(np.zeros((1, 3), int), one, np.ones(2), 0.08, "odom")
    far = np.array([[0, 0, 0], [2, MAX_VOXELS, 2]])
    with pytest.raises(ValueError, match="wild pose"):
        Occupancy.from_voxels(far, np.array([3, 3], np.uint8), np.ones(2), 0.08, "odom")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(0, 9)] * 3))
def test_another_box_shows_the_same_voxels(seed, corner, shape):
    before = _random_map(seed)
    after = before.resampled_to(VoxelGrid(np.array(corner) * 0.08, shape, 0.08))
    assert after.labels.shape == shape
    high = np.add(corner, shape)
    inside = {i: label for i, label in _voxels(before).items() if (np.array(i) >= corner).all() and (i < high).all()}
    assert _voxels(after) == inside
    assert np.array_equal(after.probability > 0, after.occupied)


def test_maps_whose_voxels_do_not_coincide_are_refused():
    some = _random_map(8)
    with pytest.raises(ValueError, match="resolution"):
        some.resampled_to(VoxelGrid(np.zeros(3), (2, 2, 2), 0.1))
    with pytest.raises(ValueError, match="whole"):
        some.resampled_to(VoxelGrid(np.array([0.0, 0.04, 0.0]), (2, 2, 2), 0.08))


# --- scores


def test_score_by_hand():
    truth = _map([[[3, 3, 5, FREE, FREE, UNKNOWN, UNKNOWN, 5]]])
    prediction = _map([[[3, 5, 5, 4, UNKNOWN, 3, FREE, UNKNOWN]]])
    result = score(prediction, truth)
    assert result["counts"] == {
        "scored": 6,
        "occupied_truth": 4,
        "occupied_prediction": 4,
        "true_positive": 3,
        "false_positive": 1,
        "false_negative": 1,
    }
    assert result["sc_iou"] == pytest.approx(3 / 5)
    assert result["precision"] == pytest.approx(3 / 4)
    assert result["recall"] == pytest.approx(3 / 4)
    assert result["per_class"]["wall"] == pytest.approx(1 / 2, abs=1e-5)
    assert result["per_class"]["chair"] == pytest.approx(1 / 3, abs=1e-5)
    assert result["per_class"]["window"] == 0.0
    assert result["per_class"]["bed"] is None
    assert result["miou"] == pytest.approx((1 / 2 + 1 / 3) / 11, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_score_equals_a_loop_over_voxels(seed):
    prediction, truth = _random_map(seed), _random_map(seed + 1)
    found, expected = _voxels(prediction), _voxels(truth)
    result = score(prediction, truth)
    tp = sum(label > 0 and found.get(i, 0) > 0 for i, label in expected.items())
    fp = sum(label == 0 and found.get(i, 0) > 0 for i, label in expected.items())
    fn = sum(label > 0 and found.get(i, 0) == 0 for i, label in expected.items())
    assert result["sc_iou"] == (tp / (tp + fp + fn) if tp + fp + fn else None)
    assert result["precision"] == (tp / (tp + fp) if tp + fp else None)
    assert result["recall"] == (tp / (tp + fn) if tp + fn else None)
    ious = []
    for label in CLASS_LABELS:
        both = sum(t == label and found.get(i) == label for i, t in expected.items())
        either = sum(t == label or found.get(i) == label for i, t in expected.items())
        ious.append(both / (either + 1e-5))
        if result["miou"] is not None:
            per_class = result["per_class"][CLASS_NAMES[label - 1]]
            assert per_class == (pytest.approx(ious[-1]) if either else None)
    classes = any(label not in (FREE, GENERIC) for label in expected.values())
    assert result["miou"] == (pytest.approx(sum(ious) / 11) if classes else None)


def test_a_truth_without_classes_has_no_miou_but_geometry():
    truth = _random_map(9, labels=np.array([FREE, GENERIC, UNKNOWN], np.uint8), shape=(6, 6, 6))
    result = score(truth, truth)
    assert (result["sc_iou"], result["precision"], result["recall"]) == (1.0, 1.0, 1.0)
    assert result["miou"] is None and set(result["per_class"].values()) == {None}


def test_nothing_to_divide_by_is_none_and_not_a_number():
    empty = _map(np.full((2, 2, 2), FREE))
    result = score(empty, empty)
    assert (result["sc_iou"], result["precision"], result["recall"]) == (None, None, None)


def test_the_same_room_elsewhere_scores_the_same():
    prediction, truth = _random_map(10, shape=(6, 5, 4)), _random_map(11, shape=(6, 5, 4))
    moved = [_map(m.labels, np.rint(m.origin / 0.08).astype(int) + (7, -3, 2)) for m in (prediction, truth)]
    assert score(*moved) == score(prediction, truth)


def test_maps_in_different_frames_are_not_compared():
    labels = np.ones((2, 2, 2))
    with pytest.raises(ValueError, match="'map'.*'odom'"):
        score(_map(labels, frame_id="map"), _map(labels))


# --- the report

_METRICS = {
    "frames": {"received": 1200, "fused": 1117, "dropped": {"no pose": 80, "<b>[late]</b>": 3}},
    "latency_ms": {"p50": 41.26, "p95": None, "p99": 99.0},
    "rate_hz": 9.5,
    "map": {"gaussians": 21345, "occupied_voxels": 20885},
    "sc_iou": 0.9123,
    "precision": 0.95,
    "recall": None,
    "octomap": {"sc_iou": 0.9008, "precision": 0.9919, "recall": 0.9075},
    "miou": None,
    "depth_source": "topic",
    "commit": "abc",
    "configuration": "default & more",
}


def _printed(metrics):
    console = Console(file=io.StringIO(), width=100)
    print_table(metrics, console)
    lines = console.file.getvalue().splitlines()
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("│").split("│")] for line in lines)}


def test_the_table_shows_every_number():
    rows = _printed(_METRICS)
    assert rows["SC-IoU"] == ["0.9123", "0.9008"]
    assert rows["recall"] == ["-", "0.9075"]
    assert rows["mIoU (11 classes)"] == ["-", "-"]
    assert rows["received"] == ["1,200"] and rows["fused"] == ["1,117"]
    assert rows["dropped: no pose"] == ["80"] and rows["dropped: <b>[late]</b>"] == ["3"]
    assert rows["latency p50"] == ["41.3 ms"] and rows["latency p95"] == ["-"]
    assert rows["occupied voxels"] == ["20,885"] and rows["rate"] == ["9.5 Hz"]


def test_a_second_truth_gets_a_table_of_its_own():
    rows = _printed({"sc_iou": None, "labelled": {"sc_iou": 0.6543, "miou": 0.0123, "octomap": {"sc_iou": 0.5}}})
    assert rows["SC-IoU"] == ["0.6543", "0.5000"] and rows["mIoU (11 classes)"] == ["0.0123", "-"]


def test_an_empty_run_is_dashes():
    rows = _printed({"octomap": None, "latency_ms": None, "frames": {"dropped": None}})
    assert rows["SC-IoU"] == ["-", "-"] and rows["rate"] == ["-"] and rows["received"] == ["-"]


def test_the_page_shows_numbers_pictures_and_notes_and_escapes_them(tmp_path):
    (tmp_path / "a top#1.png").write_bytes(b"png")
    path = write_report(tmp_path, _METRICS, [("From <above>", "a top#1.png")], ["Depth & poses <are> given."])
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "index.html"
    assert "<tr><td>SC-IoU</td><td>0.9123</td><td>0.9008</td></tr>" in page
    assert "<td>default &amp; more</td>" in page
    assert "<td>dropped: &lt;b&gt;[late]&lt;/b&gt;</td><td>3</td>" in page
    assert "<p>Depth &amp; poses &lt;are&gt; given.</p>" in page
    assert 'src="a%20top%231.png" alt="From &lt;above&gt;"' in page
    assert "<are>" not in page and "http" not in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a top#1.png", "index.html"]


@pytest.mark.parametrize("name", ["absent.png", "../outside.png"])
def test_a_picture_that_is_not_beside_the_page_is_refused(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(b"png")
    (tmp_path / "report").mkdir()
    with pytest.raises(ValueError, match="save it there"):
        write_report(tmp_path / "report", _METRICS, [("Top", name)], [])


def test_the_commit_of_a_folder(tmp_path, monkeypatch):
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit_of(tmp_path / "absent") == "unknown"
    (tmp_path / "plain").mkdir()
    assert commit_of(tmp_path / "plain") == "unknown"

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag is not a commit")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) == "unknown"
