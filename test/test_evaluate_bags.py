"""A folder of bags in one run: which are found, what is summed up, and that one bad bag does not cost the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scenes import ROOM_FRAMES, write_room

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")

from sgrocc_ros import evaluate_bag, evaluate_bags
from sgrocc_ros.bag import BagReader, BagWriter
from sgrocc_ros.evaluate_bags import draw_summary, find_bags, print_summary, score_folder
from sgrocc_ros.record_sequence import record_sequence


def metrics(sc_iou, octomap=None, miou=None, fused=10, received=12, cpu_ms=20.0) -> dict:
    """The part of a metrics.json that is summed up."""
    return {
        "frames": {"fused": fused, "received": received},
        "sc_iou": sc_iou,
        "octomap": octomap and {"sc_iou": octomap},
        "miou": miou,
        "cpu_ms_per_frame": {"fusion": cpu_ms},
    }


def make_bag(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "metadata.yaml").write_text("")
    (path / f"{path.name}_0.mcap").write_bytes(b"")
    return path


@pytest.fixture
def bags(tmp_path):
    """A folder with two bags."""
    for name in ("one", "two"):
        make_bag(tmp_path / "bags" / name)
    return tmp_path / "bags"


def score_all(bags: Path, score, tmp_path: Path, **options) -> tuple[int, dict]:
    code = score_folder(bags, tmp_path / "scores", score, **options)
    return code, json.loads((tmp_path / "scores" / "summary.json").read_text())


def test_bags_are_found_at_any_depth_and_sorted(tmp_path):
    for name in ("b", "a/deep/er/run", "a/run10", "a/run2"):
        make_bag(tmp_path / name)
    (tmp_path / "a/alone.mcap").write_bytes(b"")
    (tmp_path / "old.db3").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no bag")
    (tmp_path / "._old.db3").write_bytes(b"")
    make_bag(tmp_path / ".trash/run")
    make_bag(tmp_path / "b/inside")  # a bag is one, whatever lies in it
    found = find_bags(tmp_path)
    assert list(found) == ["a/alone.mcap", "a/deep/er/run", "a/run10", "a/run2", "b", "old.db3"]
    assert found == {name: tmp_path / name for name in found}


def test_links_are_followed_and_loops_end(tmp_path):
    make_bag(tmp_path / "bags/run")
    make_bag(tmp_path / "elsewhere/far")
    (tmp_path / "bags/again").symlink_to("run")
    (tmp_path / "bags/loop").symlink_to(".")
    (tmp_path / "bags/up").symlink_to("..")
    (tmp_path / "bags/self").symlink_to("self")
    (tmp_path / "bags/disk").symlink_to(tmp_path / "elsewhere")
    assert list(find_bags(tmp_path / "bags")) == ["disk/far", "run"]


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_found(bags, monkeypatch, capsys):
    (bags / "locked").mkdir()
    scan = os.scandir

    def guarded(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert list(find_bags(bags)) == ["one", "two"]
    assert capsys.readouterr().err == f"evaluate_bag: {bags / 'locked'} is left out: Permission denied\n"


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    (tmp_path / os.fsdecode(b"caf\xe9") / "metadata.yaml").write_text("")
    [(name, path)] = find_bags(tmp_path).items()
    assert name == "caf?" and path.is_dir()


def test_the_summary_has_a_row_for_each_bag_and_their_mean(bags, tmp_path, capsys):
    given = {"one": metrics(0.5, 0.4, 0.3, fused=10), "two": metrics(0.9, 0.6, cpu_ms=40.0, fused=12)}
    code, summary = score_all(bags, lambda bag, out, truth: given[bag.name], tmp_path)
    assert code == 0 and summary["failed"] == {} and summary["folder"] == str(bags)
    one, two = summary["bags"]
    assert (one["bag"], one["frames_fused"], one["frames_received"]) == ("one", 10, 12)
    assert (one["sc_iou"], one["octomap_sc_iou"], one["miou"], one["cpu_ms_per_frame"]) == (0.5, 0.4, 0.3, 20.0)
    assert (two["bag"], two["miou"]) == ("two", None) and two["seconds"] >= 0
    mean = summary["mean"]
    # Of the class scores there is but one.
    assert (mean["sc_iou"], mean["octomap_sc_iou"], mean["miou"]) == pytest.approx((0.7, 0.5, 0.3))
    assert (mean["cpu_ms_per_frame"], mean["frames_fused"], mean["frames_received"]) == (30.0, 11.0, 12.0)
    printed = capsys.readouterr().out
    assert "bag 1 of 2: one" in printed and "bag 2 of 2: two" in printed
    assert "SC-IoU 0.9000, OctoMap 0.6000" in printed and "failed" not in printed


def lines_of(summary: dict) -> list[list[str]]:
    """The printed summary, cell by cell."""
    console = Console(width=200)
    with console.capture() as capture:
        print_summary(summary, console)
    return [
        [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in capture.get().split("\n")
    ]


def summary_of(rows: dict[str, dict | str], tmp_path: Path) -> dict:
    """What score_folder sums up of bags with those metrics, or that failed with that sentence."""
    for name in rows:
        make_bag(tmp_path / "of" / name)

    def score(bag, out, truth):
        found = rows[str(bag.relative_to(tmp_path / "of"))]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    return score_all(tmp_path / "of", score, tmp_path)[1]


def test_the_table_shows_what_there_is(tmp_path):
    summary = summary_of(
        {"[a]": metrics(0.5, 0.4), "b": metrics(None, None, fused=0, cpu_ms=0.0), "c": "it is [b]cut[/b]: copy it"},
        tmp_path,
    )
    lines = lines_of(summary)
    assert ["bag", "fused / received", "SC-IoU", "OctoMap", "CPU ms / frame", "s"] in lines
    cells = {line[0]: line[1:-1] for line in lines}
    assert cells["[a]"] == ["10 / 12", "0.5000", "0.4000", "20.0"]
    assert cells["b"] == ["0 / 12", "-", "-", "0.0"]
    assert cells["mean of 2"] == ["5 / 12", "0.5000", "0.4000", "10.0"]
    assert ["c failed: it is [b]cut[/b]: copy it"] in lines


def test_the_table_has_class_scores_where_a_bag_has_them(tmp_path):
    lines = lines_of(summary_of({"a": metrics(0.5, 0.4, 0.25), "b": metrics(0.7)}, tmp_path))
    assert ["bag", "fused / received", "SC-IoU", "OctoMap", "mIoU", "CPU ms / frame", "s"] in lines
    cells = {line[0]: line[1:-1] for line in lines}
    assert cells["b"] == ["10 / 12", "0.7000", "-", "-", "20.0"]
    assert cells["mean of 2"] == ["10 / 12", "0.6000", "0.4000", "0.2500", "20.0"]


def bars_of(page: Image.Image, colour) -> list[int]:
    """The lengths of the bars of a colour from above, pixels; without the legend's swatch."""
    pixels = np.asarray(page)[:, : page.width - evaluate_bags.LEGEND_PX]
    lengths = (pixels == colour).all(axis=2).sum(axis=1)
    starts = np.flatnonzero((lengths[1:] > 0) & (lengths[:-1] == 0)) + 1
    return lengths[starts].tolist()


def test_the_picture_has_a_bar_for_each_score(tmp_path):
    rows = {"a": metrics(0.5, 0.25), "b": "cut short", "c": metrics(1.0, 0.75), "d" * 80: metrics(0.1, 0.1)}
    summary = summary_of(rows, tmp_path)
    with Image.open(tmp_path / "scores" / "summary.png") as page:
        page.load()
    whole = evaluate_bags._BARS_PX
    ours, octomap = bars_of(page, evaluate_bags._OURS), bars_of(page, evaluate_bags._OCTOMAP)
    assert ours == pytest.approx([0.5 * whole, whole, 0.1 * whole], abs=2)
    assert octomap == pytest.approx([0.25 * whole, 0.75 * whole, 0.1 * whole], abs=2)
    alone = draw_summary({**summary, "bags": [{**row, "octomap_sc_iou": None} for row in summary["bags"]]})
    assert len(bars_of(alone, evaluate_bags._OURS)) == 3 and bars_of(alone, evaluate_bags._OCTOMAP) == []


def test_a_bag_that_fails_does_not_cost_the_others(bags, tmp_path, capsys):
    make_bag(bags / "zero")
    stale = tmp_path / "scores" / "one"
    stale.mkdir(parents=True)
    for name in ("metrics.json", "occupancy.npz", "mine.txt"):
        (stale / name).write_text("of an earlier run")

    def score(bag, out, truth):
        if bag.name == "one":
            raise ValueError("the bag is cut short: copy it again")
        if bag.name == "two":
            raise KeyError("label")
        return metrics(0.5)

    code, summary = score_all(bags, score, tmp_path)
    assert code == 1 and [row["bag"] for row in summary["bags"]] == ["zero"] and summary["mean"]["sc_iou"] == 0.5
    assert summary["failed"] == {"one": "the bag is cut short: copy it again", "two": "KeyError: 'label'"}
    assert [path.name for path in stale.iterdir()] == ["mine.txt"], "a failed bag looks as if it had been scored"
    assert "one failed: the bag is cut short: copy it again" in capsys.readouterr().out


def test_where_every_bag_fails_there_is_a_summary_all_the_same(bags, tmp_path, capsys):
    def score(bag, out, truth):
        raise OSError("the disk is gone")

    code, summary = score_all(bags, score, tmp_path)
    assert code == 1 and summary["bags"] == [] and set(summary["failed"]) == {"one", "two"}
    assert all(value is None for value in summary["mean"].values())
    assert (tmp_path / "scores" / "summary.png").is_file()
    assert "mean of" not in capsys.readouterr().out


def test_what_was_scored_is_kept_when_a_run_is_cut_short(bags, tmp_path):
    def score(bag, out, truth):
        if bag.name == "two":
            raise KeyboardInterrupt
        return metrics(0.5)

    with pytest.raises(KeyboardInterrupt):
        score_all(bags, score, tmp_path)
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert [row["bag"] for row in summary["bags"]] == ["one"]


def test_each_bag_may_have_a_truth_of_its_own(bags, tmp_path):
    truths, asked = tmp_path / "truths", {}
    truths.mkdir()
    (truths / "one.npz").write_bytes(b"")

    def score(bag, out, truth):
        asked[bag.name] = truth
        return metrics(0.5)

    code, summary = score_all(bags, score, tmp_path, ground_truth=truths)
    assert code == 1 and asked == {"one": truths / "one.npz"}
    assert summary["failed"] == {"two": f"there is no ground truth {truths / 'two.npz'}: put the bag's occupancy there"}
    assert score_all(bags, score, tmp_path, ground_truth=truths / "one.npz")[0] == 0
    assert asked == dict.fromkeys(("one", "two"), truths / "one.npz")
    with pytest.raises(ValueError, match="there is no ground truth .*nowhere: check the path"):
        score_folder(bags, tmp_path / "scores", score, tmp_path / "nowhere")


def test_scores_do_not_go_among_the_recordings(bags):
    with pytest.raises(ValueError, match="would go among the recordings of .*: choose another --out"):
        score_folder(bags, bags / "one" / "..", lambda *_: metrics(0.5))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two bags of a room, one that is cut short, and one each without depth and without transforms."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "sequence").mkdir()
    write_room(folder / "sequence")
    bags = folder / "bags"
    bags.mkdir()
    record_sequence(folder / "sequence", bags / "floor_1" / "room")
    shutil.copy(bags / "floor_1" / "room" / "room.mcap", bags / "single.mcap")
    shutil.copytree(bags / "floor_1" / "room", bags / "cut")
    whole = (bags / "cut" / "room.mcap").read_bytes()
    (bags / "cut" / "room.mcap").write_bytes(whole[: len(whole) // 2])
    reader = BagReader(bags / "single.mcap")
    for name, left_out in {"no_depth": {"/camera/depth/image_raw"}, "no_tf": {"/tf", "/tf_static"}}.items():
        with BagWriter(bags / name) as writer:
            for topic, log_ns, raw in reader.raw_messages(set(reader.topics) - left_out):
                writer.write(topic, reader.topics[topic].msgtype, log_ns, raw, latched=topic == "/tf_static")
    return bags


def test_evaluate_bag_scores_a_folder(recordings, tmp_path, capsys):
    arguments = ["--bag", str(recordings), "--out", str(tmp_path), "--expert", "geometric"]
    assert evaluate_bag.main(arguments) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["bag"] for row in summary["bags"]] == ["floor_1/room", "single.mcap"]
    for row in summary["bags"]:
        written = json.loads((tmp_path / row["bag"] / "metrics.json").read_text())
        assert (tmp_path / row["bag"] / "occupancy.npz").is_file()
        assert row["frames_fused"] == row["frames_received"] == written["frames"]["fused"] == ROOM_FRAMES
        assert row["sc_iou"] == written["sc_iou"] > 0.9 and row["cpu_ms_per_frame"] > 0
        assert row["octomap_sc_iou"] == (written["octomap"] and written["octomap"]["sc_iou"])
    # The same messages make the same map, from a folder and from its file.
    assert summary["bags"][0]["sc_iou"] == summary["bags"][1]["sc_iou"]
    assert set(summary["failed"]) == {"cut", "no_depth", "no_tf"}
    assert "damaged or cut short" in summary["failed"]["cut"]
    assert "has no topic /camera/depth/image_raw: name the topics" in summary["failed"]["no_depth"]
    assert "has no topic /tf: record the transforms from odom to the camera as well" in summary["failed"]["no_tf"]
    assert not (tmp_path / "cut" / "metrics.json").exists()
    printed = capsys.readouterr().out
    assert "bag 5 of 5: single.mcap" in printed and printed.count("fusing") == 2


def test_evaluate_bag_scores_a_single_bag_as_before(recordings, tmp_path, capsys):
    arguments = ["--bag", str(recordings / "single.mcap"), "--out", str(tmp_path), "--expert", "geometric"]
    assert evaluate_bag.main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "occupancy.npz"]
    assert "Map against ground truth" in capsys.readouterr().out


def test_where_there_is_nothing_to_score_evaluate_bag_says_so(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no bag")
    for bag, sentence in {
        tmp_path: "holds no bag: give a folder in which",
        tmp_path / "nowhere": "there is no",
    }.items():
        assert evaluate_bag.main(["--bag", str(bag), "--out", str(tmp_path / "out"), "--expert", "geometric"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("evaluate_bag: ") and sentence in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
