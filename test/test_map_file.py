"""The map in a file: what was saved goes on as if nothing had happened, and what is damaged changes nothing."""

import json
import zipfile

import numpy as np
import pytest
from scenes import CAMERA, depth_of_boxes, pose_at, prediction_of

from sgrocc.memory import map_file
from sgrocc.memory.gaussian_memory import GaussianMemory, MemoryConfig

WALL, BOX = ((2.0, -9, -9), (3, 9, 9)), ((1.2, -0.2, -0.3), (1.5, 0.2, 0.3))


def walk(memory: GaussianMemory, first: int, last: int, boxes=(WALL, BOX)) -> None:
    for step in range(first, last):
        pose = pose_at(-0.05 * step, 0.3 * step, 0)
        memory.fuse(prediction_of(depth_of_boxes(list(boxes), CAMERA, pose)), pose)


def same(one: GaussianMemory, other: GaussianMemory) -> None:
    for a, b in zip(vars(one.snapshot()).values(), vars(other.snapshot()).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.frames == other.frames and len(one) == len(other)
    ours, theirs = one.gaussians(), other.gaussians()
    order, its = (np.lexsort(g.means.T) for g in (ours, theirs))
    for name, array in ours.arrays().items():
        np.testing.assert_array_equal(array[order], theirs.arrays()[name][its])


@pytest.fixture
def saved(tmp_path):
    memory = GaussianMemory()
    walk(memory, 0, 6)
    path = tmp_path / "maps" / "room.sgrocc"
    map_file.save(memory, path, "odom")
    return memory, path


def test_a_loaded_map_goes_on_as_the_saved_one(saved):
    memory, path = saved
    loaded = GaussianMemory()
    walk(loaded, 3, 5, [WALL])  # is replaced
    map_file.load(loaded, path, "odom")
    same(memory, loaded)
    # The box is carried away: evidence, what is free and what is remembered were all there.
    for one in (memory, loaded):
        walk(one, 0, 8, [WALL])
    same(memory, loaded)
    assert not list(path.parent.glob(".*"))


def test_a_map_with_forgotten_blocks_is_saved_without_them(tmp_path):
    memory = GaussianMemory(MemoryConfig(radius_m=5.0))
    walk(memory, 0, 40)
    map_file.save(memory, tmp_path / "map", "odom")
    loaded = GaussianMemory(MemoryConfig(radius_m=5.0))
    map_file.load(loaded, tmp_path / "map", "odom")
    assert len(loaded._voxels.coordinates) == len(memory._voxels.used()) < len(memory._voxels.coordinates) + 1
    one, other = memory.snapshot(), loaded.snapshot()
    assert {(*v, label) for v, label in zip(one.indices.tolist(), one.labels.tolist(), strict=True)} == {
        (*v, label) for v, label in zip(other.indices.tolist(), other.labels.tolist(), strict=True)
    }


def rewritten(path, change) -> None:
    """Write a map again with changed content and the right checksum."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    head = json.loads(str(arrays.pop("head")))
    change(head, arrays)
    head["sha256"] = head.get("sha256") and map_file._digest(arrays)
    with open(path, "wb") as file:
        np.savez_compressed(file, head=np.array(json.dumps(head)), **arrays)


def flip_a_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "a flipped byte": (flip_a_byte, "damaged"),
    "half a file": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is no map, or is damaged"),
    "an empty file": (lambda path: path.write_bytes(b""), "is no map, or is damaged"),
    "another file": (lambda path: path.write_text("hello"), "is no map, or is damaged"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").close(), "is no map, or is damaged"),
    "another version": (
        lambda path: rewritten(path, lambda head, _: head.update(format=99)),
        "has format 99 and this software reads 2",
    ),
    "another frame": (
        lambda path: rewritten(path, lambda head, _: head.update(frame_id="map")),
        "has the frame_id map and the memory odom",
    ),
    "another voxel size": (
        lambda path: rewritten(path, lambda head, _: head.update(resolution_m=0.1)),
        "has the resolution_m 0.1 and the memory 0.08",
    ),
    "a missing part": (
        lambda path: rewritten(path, lambda _, arrays: arrays.pop("voxel_label")),
        "lacks voxel_label",
    ),
    "a nan": (
        lambda path: rewritten(path, lambda _, arrays: arrays["gaussian_means"].fill(np.nan)),
        "holds values that no map has",
    ),
    "a Gaussian nowhere": (
        lambda path: rewritten(path, lambda _, arrays: arrays["gaussian_home"].fill(-1)),
        "holds values that no map has",
    ),
    "a label that is none": (
        lambda path: rewritten(path, lambda _, arrays: arrays["voxel_label"].fill(77)),
        "holds values that no map has",
    ),
    "arrays of other lengths": (
        lambda path: rewritten(path, lambda _, arrays: arrays.update(blocks=arrays["blocks"][:-1])),
        "the map's looked is int64",
    ),
}


def test_the_sentence_is_short_whatever_the_file_holds(saved):
    """zipfile's own message repeats a name of the file, which damage makes as long as the file."""
    _, path = saved
    content = bytearray(path.read_bytes())
    place = content.index(b"blocks.npy") - 4
    content[place : place + 2] = (2000).to_bytes(2, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is no map, or is damaged") as refused:
        map_file.load(GaussianMemory(), path, "odom")
    assert len(str(refused.value)) < 200 + len(str(path))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_a_sentence_and_changes_nothing(saved, damage):
    _, path = saved
    apply, words = DAMAGES[damage]
    apply(path)
    memory, untouched = GaussianMemory(), GaussianMemory()
    for one in (memory, untouched):
        walk(one, 2, 4)
    with pytest.raises(ValueError, match=words):
        map_file.load(memory, path, "odom")
    same(memory, untouched)


def test_a_map_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no map .*nothing: save one first"):
        map_file.load(GaussianMemory(), tmp_path / "nothing", "odom")


def test_a_save_that_fails_leaves_the_old_file(saved, monkeypatch):
    memory, path = saved
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        map_file.save(memory, path, "odom")
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]
