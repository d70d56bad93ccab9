"""The command `sgrocc` as a user types it, on one small scene."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sgrocc import cli
from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import Layout
from sgrocc.datasets.pickles import read_pickle, write_pickle
from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.labels import COLOURS, FLOOR, FREE, UNKNOWN, WALL
from sgrocc.synthrooms import rendering

needs_gl = pytest.mark.skipif(rendering.available() is not None, reason=str(rendering.available()))
SCENE = "synth_val_0000"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Two scenes without images."""
    out = tmp_path_factory.mktemp("bare")
    assert synth(out, "--scenes", "2", "--labels-only") == 0
    return out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn")
    assert synth(out, "--scenes", "1") == 0
    return out


def synth(out, *more):
    return cli.main(["synth", "--out", str(out), "--split", "val", "--frames", "4", "--jobs", "1", *more])


def test_synth_names_the_hash_and_goes_on_where_it_was(bare, capsys):
    assert synth(bare, "--scenes", "2", "--labels-only") == 0
    total = json.loads((bare / "synthrooms.json").read_text())["splits"]["val"]["labels_sha256"]
    assert f"2 scenes of val, SHA-256 of the labels {total}\n" in capsys.readouterr().out


def test_wrong_requests_end_in_a_sentence(bare, tmp_path, capsys):
    for arguments, words in (
        (("--scenes", "2", "--seed", "1", "--labels-only"), "choose another folder"),
        (("--scenes", "1", "--loop"), "too few for a loop"),
    ):
        assert synth(bare, *arguments) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["view", str(bare), "--scene", "nobody"]) == 2
    assert "has no scene nobody" in capsys.readouterr().err
    assert cli.main(["recording", str(bare), "--scene", SCENE, "--out", str(tmp_path / "r")]) == 2
    assert "made without images" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_data_check_counts_voxels_and_compares_the_hash(bare, tmp_path, capsys):
    assert cli.main(["data", "check", str(bare), "--json", str(tmp_path / "c.json")]) == 0
    printed = capsys.readouterr().out
    total = json.loads((bare / "synthrooms.json").read_text())["splits"]["val"]["labels_sha256"]
    assert f"val: SHA-256 of the labels {total}" in printed and "8 of 8 frames can be used" in printed
    (result,) = json.loads((tmp_path / "c.json").read_text())["splits"]
    labels = [scene.labels for scene in EmbodiedOccScanNet(bare, "val")]
    for name, label in (("floor", FLOOR), ("wall", WALL), ("free", FREE), ("unknown", UNKNOWN)):
        assert result["embodied"]["voxels"][name] == sum(np.count_nonzero(scene == label) for scene in labels)
    assert result["local"]["occluded"] == {"known": None, "occupied": None}  # there is no depth


def test_data_check_finds_labels_that_were_changed(tmp_path, capsys):
    assert synth(tmp_path, "--scenes", "1", "--labels-only") == 0
    path = Layout(tmp_path).global_package(SCENE)
    content = read_pickle(path)
    content["global_labels"][0, 0, 0] = WALL
    write_pickle(path, content)
    assert cli.main(["data", "check", str(tmp_path)]) == 2
    assert "they were changed" in capsys.readouterr().err


@needs_gl
def test_data_check_says_how_much_is_hidden(drawn, tmp_path):
    assert cli.main(["data", "check", str(drawn), "--json", str(tmp_path / "c.json")]) == 0
    hidden = json.loads((tmp_path / "c.json").read_text())["splits"][0]["local"]["occluded"]
    assert 0.05 < hidden["known"] < 1 and 0.05 < hidden["occupied"] < 1


@needs_gl
def test_view_draws_a_sheet_with_images_labels_and_voxels(drawn, tmp_path):
    assert cli.main(["view", str(drawn), "--scene", SCENE, "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / f"{SCENE}.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    frames = EmbodiedOccScanNet(drawn, "val")[0].frames
    first = np.asarray(Image.fromarray(frames[0].image()).resize((320, 240), Image.Resampling.BILINEAR))
    assert np.abs(pixels[40:240, :320].astype(int) - first[40:]).mean() < 2
    labels = pixels[480:720, : 320 * len(frames)].reshape(-1, 3)
    known = [tuple(colour) for colour in COLOURS]
    assert np.mean([tuple(pixel) in known for pixel in labels[::97]]) > 0.99
    assert tuple(COLOURS[WALL]) in {tuple(pixel) for pixel in labels[::97]}


@needs_gl
def test_a_recording_has_the_frames_and_the_truth_of_what_they_have_in_view(drawn, tmp_path, capsys):
    out = tmp_path / "r"
    order = ["recording", str(drawn), "--scene", SCENE, "--out", str(out), "--first", "1", "--depth", "sensor"]
    assert cli.main([*order, "--frames", "2"]) == 0
    scene = EmbodiedOccScanNet(drawn, "val")[0]
    sequence = PosedRgbdSequence(out)
    assert len(sequence) == 2 and sequence.rate_hz == 10
    for frame, source in zip(sequence, scene.frames[1:3], strict=True):
        assert np.allclose(frame.pose.matrix, source.pose.matrix, atol=1e-6) and (frame.image == source.image()).all()
        both = (frame.depth > 0) & (source.depth() > 0)
        error = np.abs(frame.depth - source.depth())[both]
        assert np.mean(frame.depth == 0) < 0.5 and 0 < np.median(error) < 0.05
    truth = Occupancy.load(out / "truth.npz")
    seen = scene.frames[1].mask | scene.frames[2].mask
    assert (truth.labels == np.where(seen, scene.labels, UNKNOWN)).all()
    assert np.allclose(truth.origin, scene.grid.origin)
    capsys.readouterr()
    assert cli.main([*order, "--frames", "2"]) == 2 and "exists already" in capsys.readouterr().err
    assert cli.main([*order[:4], "--out", str(tmp_path / "s"), "--first", "-3"]) == 2
    assert "no frame -3" in capsys.readouterr().err


def test_a_command_of_the_nodes_says_what_it_lacks_and_the_others_work_without(monkeypatch, capsys):
    from sgrocc import cli

    class Plugin:
        name = "bench"

        def load(self):
            raise ImportError("No module named 'rclpy'")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Plugin()])
    assert cli.main(["bench", "--json", "x.json"]) == 2
    assert "bench cannot run here (No module named 'rclpy'): source ROS 2" in capsys.readouterr().err
    assert cli.main(["view", "nowhere", "--scene", "a"]) == 2
