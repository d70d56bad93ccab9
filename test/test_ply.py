"""The occupied voxels in a PLY file: what another program reads there, and that it is whole or not there."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from sgrocc.labels import CHAIR, CLASS_LABELS, CLASS_NAMES, COLOURS, FLOOR, WALL
from sgrocc.memory.ply import save_ply

trimesh = pytest.importorskip("trimesh", reason="needs trimesh, of requirements/test.txt")

#: (index, label, probability), with no axis like another.
SCENE = [((0, 0, 0), FLOOR, 0.5), ((1, 0, 0), FLOOR, 0.625), ((0, 2, 0), WALL, 0.75), ((0, 0, -3), CHAIR, 1.0)]


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centres, labels, probabilities) of SCENE with voxels of 0.08 m."""
    indices, labels, probabilities = zip(*SCENE)
    return (np.array(indices) + 0.5) * 0.08, np.array(labels, np.uint8), np.array(probabilities, np.float32)


def read(path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What trimesh finds: (vertices (N, 3), colours (N, 3) uint8, all properties of the points)."""
    cloud = trimesh.load(path)
    assert isinstance(cloud, trimesh.PointCloud)
    return cloud.vertices, cloud.colors[:, :3], cloud.metadata["_ply_raw"]["vertex"]["data"]


def test_another_program_reads_the_scene(tmp_path):
    save_ply(tmp_path / "map.ply", *scene(), 0.08)
    vertices, colours, points = read(tmp_path / "map.ply")
    where = [[0.04, 0.04, 0.04], [0.12, 0.04, 0.04], [0.04, 0.2, 0.04], [0.04, 0.04, -0.2]]
    np.testing.assert_allclose(vertices, where, atol=1e-7)
    assert colours.tolist() == [[152, 118, 84], [152, 118, 84], [174, 199, 232], [230, 159, 0]]
    assert points["label"].tolist() == [2, 2, 3, 5] and points["label"].dtype == np.uint8
    assert points["probability"].tolist() == [0.5, 0.625, 0.75, 1.0]


def test_many_voxels_survive_exactly(tmp_path):
    rng = np.random.default_rng(1)
    centres = rng.uniform(-100, 100, (5000, 3)).astype(np.float32)
    labels = rng.integers(1, 12, 5000).astype(np.uint8)
    probabilities = rng.random(5000, np.float32)
    save_ply(tmp_path / "map.ply", centres, labels, probabilities, 0.05)
    vertices, colours, points = read(tmp_path / "map.ply")
    np.testing.assert_array_equal(vertices, centres)
    np.testing.assert_array_equal(colours, COLOURS[labels])
    np.testing.assert_array_equal(points["label"], labels)
    np.testing.assert_array_equal(points["probability"], probabilities)


def test_the_bytes_of_the_file(tmp_path):
    save_ply(tmp_path / "map.ply", *(part[-1:] for part in scene()), 0.08)
    head, body = (tmp_path / "map.ply").read_bytes().split(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert lines[2] == "comment centres of occupied voxels with edges of 0.08 m"
    assert lines[3] == "comment labels: " + ", ".join(f"{i} {name}" for i, name in zip(CLASS_LABELS, CLASS_NAMES))
    assert lines[4:] == [
        "element vertex 1",
        *(f"property float {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue", "label")),
        "property float probability",
    ]
    x, y, z, *colour, label, probability = struct.unpack("<fff3BBf", body)
    assert (x, y, z) == pytest.approx((0.04, 0.04, -0.2)) and colour == [230, 159, 0]
    assert (label, probability) == (CHAIR, 1.0)


def test_a_map_without_occupied_voxels_is_a_file_without_points(tmp_path):
    save_ply(tmp_path / "map.ply", *(part[:0] for part in scene()), 0.08)
    content = (tmp_path / "map.ply").read_bytes()
    assert b"\nelement vertex 0\n" in content and content.endswith(b"end_header\n")


def test_the_folder_is_made_and_an_old_file_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "map.ply"
    save_ply(str(path), *scene(), 0.08)
    save_ply(path, *(part[1:3] for part in scene()), 0.08)
    assert read(path)[2]["label"].tolist() == [FLOOR, WALL]
    assert [file.name for file in path.parent.iterdir()] == ["map.ply"]


# -- whole or not at all -------------------------------------------------------------------------------------------


def test_a_disk_that_takes_no_more_leaves_the_old_file(tmp_path):
    path = tmp_path / "map.ply"
    save_ply(path, *scene(), 0.08)
    old = path.read_bytes()
    many = (np.repeat(part, 5000, axis=0) for part in scene())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a quarter of the file
    try:
        with pytest.raises(OSError):
            save_ply(path, *many, 0.08)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old and [file.name for file in tmp_path.iterdir()] == ["map.ply"]


READ_ONLY = """
import os, sys
import numpy as np
from sgrocc.memory.ply import save_ply
if os.geteuid() == 0:  # whom no mode keeps out
    os.seteuid(65534)
try:
    save_ply(sys.argv[1], np.zeros((1, 3)), np.ones(1, np.uint8), np.ones(1), 0.08)
except PermissionError as error:
    print(error)
"""


def test_a_folder_that_cannot_be_written_leaves_the_old_file():
    with tempfile.TemporaryDirectory() as folder:  # that of pytest may be entered by its owner only
        path = Path(folder) / "map.ply"
        save_ply(path, *scene(), 0.08)
        old = path.read_bytes()
        path.parent.chmod(0o555)
        told = subprocess.run([sys.executable, "-c", READ_ONLY, path], capture_output=True, text=True)
        path.parent.chmod(0o755)
        assert "Permission denied" in told.stdout and ".part" in told.stdout, told.stderr
        assert path.read_bytes() == old and [file.name for file in path.parent.iterdir()] == ["map.ply"]


def test_a_folder_that_is_a_file_is_no_place(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError):
        save_ply(tmp_path / "file" / "map.ply", *scene(), 0.08)
    assert (tmp_path / "file").read_text() == "kept"
