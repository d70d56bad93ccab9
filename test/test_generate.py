"""Scenes of SynthRooms: the same everywhere, resumable, and read back as they were made."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import Layout
from sgrocc.datasets.occscannet import OccScanNet
from sgrocc.datasets.pickles import read_pickle, write_pickle
from sgrocc.labels import CEILING, CLASS_LABELS, FLOOR, FREE, OBJECTS, UNKNOWN, WALL
from sgrocc.synthrooms import generate as module
from sgrocc.synthrooms import rendering
from sgrocc.synthrooms.generate import (
    FORMAT_VERSION,
    PUBLISHED_LABELS,
    SPLITS,
    Options,
    generate,
    labels_hash,
    make_scene,
)

#: Frozen: the first scenes of every published split. They change only together with FORMAT_VERSION.
FROZEN = json.loads((Path(__file__).parent / "synthrooms_hashes.json").read_text())
#: One scene of each variant is frozen too, with these options.
VARIANTS = {
    "shells": {"frames": 10, "truth": "shells"},
    "walker": {"frames": 10, "dynamic": "walker"},
    "moved": {"frames": 10, "dynamic": "moved"},
    "loop": {"frames": 300, "loop": True},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two scenes of six frames, without pictures."""
    out = tmp_path_factory.mktemp("synth")
    return out, generate(out, "test", 2, frames=6, jobs=1, labels_only=True)


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy of `tiny` to spoil."""
    return Path(shutil.copytree(tiny[0], tmp_path / "copied"))


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """Makes the scene of a variant, each once: its folder and the hash of its labels."""

    @cache
    def make(name):
        out = tmp_path_factory.mktemp(name)
        return out, generate(out, "val", 1, jobs=1, labels_only=True, **VARIANTS[name])

    return make


def test_what_is_read_is_what_was_made(tiny):
    out, total = tiny
    assert (
        labels_hash(out, "test")
        == total
        == json.loads((out / "synthrooms.json").read_text())["splits"]["test"]["labels_sha256"]
    )
    made = make_scene("test", 1, Options(frames=6))
    scene = EmbodiedOccScanNet(out, "test")[1]
    assert scene.name == made.name == "synth_test_0001" and (scene.labels == made.labels).all()
    assert np.allclose(scene.grid.origin, made.grid.origin, atol=1e-6) and len(scene.frames) == 6
    local = [frame for frame in OccScanNet(out, "test") if frame.scene == made.name]
    for i, (truth, pose) in enumerate(zip(made.frames(), made.shot.poses, strict=True)):
        assert (local[i].labels == truth.local_labels).all() and (scene.frames[i].mask == truth.mask).all()
        assert np.allclose(local[i].pose.matrix, pose.matrix, atol=1e-9) and local[i].camera == made.shot.camera
        assert np.allclose(local[i].grid.origin, truth.grid.origin, atol=1e-6)


def test_the_parts_of_a_room_are_where_they_belong():
    made = make_scene("val", 0, Options(frames=6))
    share = {label: np.mean(made.labels == label) for label in (FREE, UNKNOWN, *CLASS_LABELS)}
    assert share[FREE] > 0.1 and 0.0 < share[UNKNOWN] < 0.9
    heights = np.broadcast_to(made.grid.centres()[..., 2], made.labels.shape)
    assert heights[made.labels == FLOOR].max() < 0.16 and heights[made.labels == FLOOR].min() > -0.25
    if (made.labels == CEILING).any():
        assert heights[made.labels == CEILING].min() > made.scene.height_m - 0.16
    assert share[FLOOR] > share[FREE] * 0.01 and share[WALL] > 0
    # Every camera stands in free space that it knows.
    for pose in made.shot.poses:
        assert made.labels[tuple(made.grid.index_of(pose.translation))] == FREE


def test_what_a_frame_sees_is_known():
    made = make_scene("val", 1, Options(frames=4))
    truth = next(made.frames())
    known = truth.labels != UNKNOWN
    assert truth.mask.any() and np.mean(known[truth.mask]) > 0.3
    inside = truth.local_labels != UNKNOWN
    assert np.count_nonzero(inside) > 1000 and np.count_nonzero(truth.local_labels[inside] != FREE) > 100


def test_shells_are_the_surfaces_of_the_same_scene():
    solid, shell = (make_scene("val", 0, Options(frames=3, truth=t)).labels for t in ("solid", "shells"))
    kept = (shell != UNKNOWN) & (shell != FREE)
    assert (shell[kept] == solid[kept]).all() and ((solid == FREE) == (shell == FREE)).all()
    assert np.count_nonzero(kept) < 0.9 * np.count_nonzero((solid != UNKNOWN) & (solid != FREE))


def test_a_walking_figure_is_an_object_that_moves(variant):
    scene = EmbodiedOccScanNet(variant("walker")[0], "val")[0]
    assert scene.name == "synth_val_0000_walker"
    labels = [frame.global_labels() for frame in scene.frames]
    assert (labels[-1] == scene.labels).all()
    changed = [np.argwhere(a != b) for a, b in zip(labels, labels[1:])]
    assert any(len(voxels) for voxels in changed), "the figure never moved"
    here = np.concatenate(changed)
    values = np.concatenate([now[tuple(voxels.T)] for now, voxels in zip(labels, changed)])
    assert np.mean(np.isin(values, [FREE, OBJECTS, UNKNOWN])) > 0.9
    assert np.ptp(scene.grid.centre_of(here)[:, 2]) > 1.0, "a person is taller than that"


def test_a_layout_that_cannot_be_built_is_drawn_again():
    made = make_scene("test", 1, Options(seed=5, frames=2))  # its first layout has walls a few millimetres thin
    assert (made.labels == FLOOR).any()


def test_a_loop_returns_or_is_refused(variant):
    with pytest.raises(ValueError, match="too few for a loop"):
        Options(frames=299, loop=True)
    frames = EmbodiedOccScanNet(variant("loop")[0], "val")[0].frames
    gap = np.linalg.norm(frames[0].pose.translation - frames[-1].pose.translation)
    assert gap < 0.1 and len(frames) == 300


def test_moved_things_leave_their_place_free():
    emptied = set_down = 0
    for number in range(4):
        made = make_scene("val", number, Options(frames=12, dynamic="moved"))
        frames = list(made.frames())
        first, last = frames[0].labels, frames[-1].labels
        assert made.name == f"synth_val_{number:04d}_moved" and 2 <= len(made.scene.actors) <= 4
        set_down += sum(actor.placement(11) is not None for actor in made.scene.actors)
        assert (last == made.labels).all()
        emptied += np.count_nonzero((first != FREE) & (first != UNKNOWN) & (last == FREE))
    assert emptied > 20, "nothing went away"
    assert set_down > 2, "hardly anything was set down elsewhere"


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path, tiny):
    _, whole = tiny
    generate(tmp_path, "test", 1, frames=6, jobs=1, labels_only=True)
    first = tmp_path / "synthrooms" / "synth_test_0000.json"
    before = first.stat().st_mtime_ns
    assert generate(tmp_path, "test", 2, frames=6, jobs=2, labels_only=True) == whole
    assert first.stat().st_mtime_ns == before, "a complete scene was made again"


def test_what_is_missing_or_damaged_is_made_again(copied, tiny):
    _, whole = tiny
    Layout(copied).gathered("synth_test_0001", 3).unlink()
    (copied / "synthrooms" / "synth_test_0000.json").write_text("{")
    assert generate(copied, "test", 2, frames=6, jobs=1, labels_only=True) == labels_hash(copied, "test") == whole


def test_files_that_contradict_each_other_are_named(copied):
    path = Layout(copied).gathered("synth_test_0000", 1)
    content = read_pickle(path)
    content["target_1_4"][...] = FLOOR
    write_pickle(path, content)
    with pytest.raises(ValueError, match="00001.pkl and .* hold different labels"):
        labels_hash(copied, "test")


def test_another_split_that_was_made_meanwhile_stays_in_the_index(tmp_path, monkeypatch):
    make_all = module._make_all

    def with_another(out, split, *rest):
        make_all(out, split, *rest)
        if split == "test":
            generate(out, "val", 1, frames=2, jobs=1, labels_only=True)

    monkeypatch.setattr(module, "_make_all", with_another)
    generate(tmp_path, "test", 1, frames=2, jobs=1, labels_only=True)
    splits = json.loads((tmp_path / "synthrooms.json").read_text())["splits"]
    assert {name: entry["scenes"] for name, entry in splits.items()} == {"test": 1, "val": 1}


def test_other_options_need_another_folder(tiny):
    out, _ = tiny
    with pytest.raises(ValueError, match="choose another folder"):
        generate(out, "test", 2, frames=6, seed=1, jobs=1, labels_only=True)
    with pytest.raises(ValueError, match="holds 2 scenes of test already"):
        generate(out, "test", 1, frames=6, jobs=1, labels_only=True)


def test_another_seed_is_another_room():
    one, other = (make_scene("test", 0, Options(frames=2, seed=seed)) for seed in (0, 1))
    assert one.labels.shape != other.labels.shape or (one.labels != other.labels).any()


def test_labels_are_the_frozen_ones(tmp_path):
    assert FROZEN["format_version"] == FORMAT_VERSION
    assert FROZEN["first_two_scenes"].keys() == set(SPLITS)
    for split, expected in FROZEN["first_two_scenes"].items():
        assert generate(tmp_path, split, 2, jobs=2, labels_only=True) == expected, (
            f"the labels of {split} differ from the frozen ones: restore them, or raise FORMAT_VERSION"
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_labels_of_the_variants_are_the_frozen_ones(variant, name):
    assert FROZEN["variants"].keys() == set(VARIANTS)
    assert variant(name)[1] == FROZEN["variants"][name]


def test_the_documents_name_the_published_hashes():
    document = (Path(__file__).resolve().parents[1] / "docs" / "synthrooms.md").read_text()
    for split, expected in PUBLISHED_LABELS.items():
        assert re.fullmatch("[0-9a-f]{64}", expected) and f"| {split} | `{expected}` |" in document


@pytest.mark.skipif(rendering.available() is not None, reason=str(rendering.available()))
def test_pictures_fit_the_labels(tmp_path):
    generate(tmp_path, "val", 1, frames=3, jobs=1)
    for frame in EmbodiedOccScanNet(tmp_path, "val")[0].frames:
        depth = frame.depth()
        assert frame.image().shape == (480, 640, 3) and depth.shape == (480, 640)
        assert 25 < frame.image().mean() < 235 and np.mean(depth > 0) > 0.95
        v, u = np.mgrid[4:480:8, 4:640:8]
        z = depth[v, u].astype(np.float64)
        points = frame.pose.apply(frame.camera.back_project(np.stack([u, v], -1), z + 0.01))[z > 0]
        index = frame.grid.index_of(points)
        inside = frame.grid.contains(index)
        labels = frame.labels[tuple(index[inside].T)]
        assert np.mean(labels[labels != UNKNOWN] != FREE) > 0.97, "surfaces of the depth image lie in occupied voxels"
