"""The reader of posed RGB-D folders, on small folders written here and, where it lies beside us, on a real one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgrocc.datasets.posed_rgbd import EPOCH_NS, PosedRgbdSequence
from sgrocc.geometry import Pose
from sgrocc.geometry.pose import quaternion_to_matrix

SETTINGS = {
    "rate_hz": 10.0,
    "depth_unit_m": 0.001,
    "pose": "camera_to_world",
    "camera_axes": "x_right_y_down_z_forward",
    "world_up": "+z",
}
INTRINSICS = np.array([[30.0, 0, 15.5], [0, 31.0, 11.5], [0, 0, 1]])


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    """(count, 4, 4) camera to world."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    quaternions = rng.normal(size=(count, 4))
    poses[:, :3, :3] = quaternion_to_matrix(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))
    poses[:, :3, 3] = rng.uniform(-5, 5, (count, 3))
    return poses


def write_sequence(folder: Path, poses: np.ndarray, size=(32, 24), depth_size=None, seed: int = 0, **settings) -> tuple:
    """A lossless recording of noise; returns its (images, raw depth)."""
    rng = np.random.default_rng(seed)
    (width, height), (depth_width, depth_height) = size, depth_size or size
    images = rng.integers(0, 256, (len(poses), height, width, 3), np.uint8)
    depths = rng.integers(0, 65536, (len(poses), depth_height, depth_width)).astype(np.uint16)
    depths[:, 0, 0] = 0
    for name, arrays in (("rgb", images), ("depth", depths)):
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{i:04d}.png")
    np.savetxt(folder / "intrinsics.txt", INTRINSICS)
    settings = {**SETTINGS, **settings}
    inverse = settings["pose"] == "world_to_camera"
    rows = np.linalg.inv(poses) if inverse else poses
    np.savetxt(folder / f"poses_{'world_to_cam' if inverse else 'cam_to_world'}.txt", rows.reshape(-1, 16), "%.17g")
    write_settings(folder, settings)
    return images, depths


def write_settings(folder: Path, settings: dict) -> None:
    lines = [f'{key}: "{value}"' if key == "world_up" else f"{key}: {value}" for key, value in settings.items()]
    (folder / "sequence.yaml").write_text("\n".join(lines) + "\n")


def test_frames_hold_the_pixels_and_poses_of_the_files(tmp_path):
    poses = random_poses(3)
    images, depths = write_sequence(tmp_path, poses)
    sequence = PosedRgbdSequence(tmp_path)
    assert len(sequence) == 3 and sequence.rate_hz == 10.0
    assert np.array_equal(sequence.camera.matrix, INTRINSICS)
    assert (sequence.camera.width, sequence.camera.height) == (32, 24)
    frames = list(sequence)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.stamp_ns for frame in frames] == [EPOCH_NS, EPOCH_NS + 100_000_000, EPOCH_NS + 200_000_000]
    for frame, image, depth, pose in zip(frames, images, depths, poses):
        assert frame.image.dtype == np.uint8 and np.array_equal(frame.image, image)
        assert frame.depth.dtype == np.float32 and frame.depth[0, 0] == 0
        assert np.array_equal(np.rint(frame.depth.astype(np.float64) * 1000), depth)
        np.testing.assert_allclose(frame.pose.matrix, pose, atol=1e-12)
    with pytest.raises(IndexError, match="frames 0 to 2"):
        sequence.frame(3)


def test_stamps_do_not_drift_at_a_rate_that_does_not_divide_a_second(tmp_path):
    write_sequence(tmp_path, random_poses(1), rate_hz=30)
    sequence = PosedRgbdSequence(tmp_path)
    assert sequence.stamp_ns(1) == EPOCH_NS + 33_333_333
    assert sequence.stamp_ns(30 * 3600) == EPOCH_NS + 3600 * 1_000_000_000


def test_a_point_two_metres_up_ends_at_height_two(tmp_path):
    # At (1, 2, 3) of a world whose +y is up, level, looking along that world's -z.
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = 1, 2, 3
    write_sequence(tmp_path, pose[None], world_up="+y")
    sequence = PosedRgbdSequence(tmp_path)
    camera = sequence.camera
    ahead = camera.back_project(np.array([camera.cx, camera.cy]), np.array(1.5))
    np.testing.assert_allclose(sequence.frame(0).pose.apply(ahead), [1, -1.5, 2], atol=1e-12)
    above = camera.back_project(np.array([camera.cx, camera.cy - camera.fy]), np.array(1.5))
    np.testing.assert_allclose(sequence.frame(0).pose.apply(above), [1, -1.5, 3.5], atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [1, -1])
def test_every_world_axis_can_be_up(tmp_path, axis, sign):
    pose = random_poses(1, seed=4)[0]
    write_sequence(tmp_path, pose[None], world_up=f"{'+' if sign > 0 else '-'}{'xyz'[axis]}")
    got = PosedRgbdSequence(tmp_path).frame(0).pose
    point = np.array([0.3, -0.2, 1.7])
    raised = pose[:3, :3].T @ (sign * np.eye(3)[axis])  # one metre up, seen from the camera
    np.testing.assert_allclose(got.apply(point + raised) - got.apply(point), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(got.rotation), 1.0)
    height = pose[axis] @ [*point, 1] * sign
    np.testing.assert_allclose(got.apply(point)[2], height, atol=1e-12)


def test_poses_may_be_world_to_camera(tmp_path):
    poses = random_poses(2)
    write_sequence(tmp_path, poses, pose="world_to_camera")
    for frame, pose in zip(PosedRgbdSequence(tmp_path), poses):
        np.testing.assert_allclose(frame.pose.matrix, pose, atol=1e-9)


def test_rotations_of_few_digits_become_exact(tmp_path):
    poses = random_poses(5)
    write_sequence(tmp_path, poses)
    np.savetxt(tmp_path / "poses_cam_to_world.txt", poses.reshape(-1, 16), "%.5f")
    for frame, pose in zip(PosedRgbdSequence(tmp_path), poses):
        np.testing.assert_allclose(frame.pose.rotation @ frame.pose.rotation.T, np.eye(3), atol=1e-14)
        np.testing.assert_allclose(frame.pose.matrix, pose, atol=2e-5)


def test_depth_of_another_size_shows_the_same_view(tmp_path):
    write_sequence(tmp_path, random_poses(1), depth_size=(16, 12), depth_unit_m=0.0002)
    sequence = PosedRgbdSequence(tmp_path)
    assert sequence.frame(0).depth.shape == (12, 16)
    assert sequence.frame(0).depth.max() < 65536 * 0.0002
    assert sequence.depth_camera == sequence.camera.resized(16, 12)


def replace(name, old, new):
    def spoil(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return spoil


def spoil_pose(row, column, value):
    def spoil(folder):
        poses = np.loadtxt(folder / "poses_cam_to_world.txt")
        poses[row, column] = value
        np.savetxt(folder / "poses_cam_to_world.txt", poses)

    return spoil


def save(name, array):
    return lambda folder: Image.fromarray(array).save(folder / name)


def remove(name):
    return lambda folder: (folder / name).unlink()


FAULTS = [
    (remove("sequence.yaml"), "sequence.yaml is missing"),
    (remove("intrinsics.txt"), "intrinsics.txt is missing"),
    (remove("poses_cam_to_world.txt"), "poses_cam_to_world.txt is missing"),
    (remove("rgb/0001.png"), "rgb has no image 0001 for pose 1 of 3"),
    (remove("depth/0002.png"), "depth has no image 0002 for pose 2 of 3"),
    (lambda folder: (folder / "rgb").rename(folder / "colour"), "rgb is missing"),
    (save("rgb/0003.png", np.zeros((24, 32, 3), np.uint8)), "rgb has 4 images for 3 poses"),
    (save("rgb/0001.jpg", np.zeros((24, 32, 3), np.uint8)), "two images of one number"),
    (save("rgb/last.png", np.zeros((24, 32, 3), np.uint8)), "last.png has no number"),
    (save("rgb/0001.png", np.zeros((24, 30, 3), np.uint8)), r"0001.png is 30 x 24 pixels and 0000.png is 32 x 24"),
    (save("depth/0001.png", np.zeros((24, 32), np.uint8)), "0001.png has pixels of kind L"),
    (lambda folder: (folder / "rgb/0000.png").write_bytes(b"none"), "0000.png is not an image"),
    (lambda folder: (folder / "sequence.yaml").write_text("a: [1"), "sequence.yaml is not YAML"),
    (lambda folder: (folder / "sequence.yaml").write_bytes(b"\xff\xfe\x00"), "sequence.yaml is not a text file"),
    (lambda folder: (folder / "sequence.yaml").write_text(""), "sequence.yaml holds no settings"),
    (replace("sequence.yaml", "rate_hz", "rate"), "unknown key 'rate'"),
    (replace("sequence.yaml", "rate_hz: 10.0\n", ""), "lacks the key rate_hz"),
    (replace("sequence.yaml", "10.0", "0"), "rate_hz: 0: write a number above zero"),
    (replace("sequence.yaml", "10.0", "fast"), "rate_hz: 'fast'"),
    (replace("sequence.yaml", "0.001", ".nan"), "depth_unit_m: nan"),
    (replace("sequence.yaml", "+z", "up"), r"world_up: 'up': write \+x, .* or -z"),
    (replace("sequence.yaml", "camera_to_world", "world"), "write camera_to_world or world_to_camera"),
    (replace("sequence.yaml", "z_forward", "z_back"), "camera_axes: 'x_right_y_down_z_back'"),
    (spoil_pose(1, 3, np.nan), "poses_cam_to_world.txt, line 2: it holds NaN"),
    (spoil_pose(2, 0, 3.0), "poses_cam_to_world.txt, line 3: the pose's rotation is not a rotation"),
    (spoil_pose(0, 12, 1.0), "poses_cam_to_world.txt, line 1: the last row is not 0 0 0 1"),
    (lambda f: (f / "poses_cam_to_world.txt").write_text("1 2 3\n"), "line 1: it has 3 numbers; write 16"),
    (lambda f: (f / "poses_cam_to_world.txt").write_text("\n\na b c\n"), "line 3: could not convert"),
    (lambda f: (f / "poses_cam_to_world.txt").write_text("\n"), "has no poses"),
    (lambda f: (f / "intrinsics.txt").write_text("1 0 0\n0 1 0\n"), "intrinsics.txt is not a pinhole camera"),
    (lambda f: (f / "intrinsics.txt").write_text("0 0 1\n0 1 1\n0 0 1\n"), "intrinsics.txt: .*focal lengths"),
]


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS, ids=[sentence for _, sentence in FAULTS])
def test_a_bad_folder_is_refused_in_a_sentence(tmp_path, spoil, sentence):
    write_sequence(tmp_path, random_poses(3))
    PosedRgbdSequence(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        PosedRgbdSequence(tmp_path)


def test_no_folder_and_damaged_pixels_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        PosedRgbdSequence(tmp_path / "nowhere")
    write_sequence(tmp_path, random_poses(1))
    image = tmp_path / "rgb/0000.png"
    image.write_bytes(image.read_bytes()[:900])
    with pytest.raises(ValueError, match="0000.png is cut short"):
        PosedRgbdSequence(tmp_path).frame(0)


def test_the_real_kitchen_agrees_with_itself():
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("SGROCC_KITCHEN", here.parent / "shared/data/hololens_kitchen"))
    if not folder.is_dir():
        pytest.skip(f"the real recording is not at {folder}: set SGROCC_KITCHEN")
    sequence = PosedRgbdSequence(folder)
    assert len(sequence) == 120 and (sequence.camera.width, sequence.camera.height) == (540, 360)
    first, later = sequence.frame(0), sequence.frame(5)
    rows, columns = np.nonzero((first.depth > 0.5) & (first.depth < 4))
    points = sequence.camera.back_project(np.stack([columns, rows], -1).astype(float), first.depth[rows, columns])
    to_later: Pose = later.pose.inverse() @ first.pose
    pixels, z = sequence.camera.project(to_later.apply(points))
    v, u, inside = sequence.camera.pixel_index(pixels)
    seen = inside & (later.depth[v, u] > 0)
    assert seen.mean() > 0.4
    assert np.median(np.abs(later.depth[v, u][seen] - z[seen])) < 0.02
    # z is up: the camera is carried at head height, and its image's "down" is the world's.
    assert all(pose.rotation[2, 1] < -0.7 for pose in sequence.poses)
