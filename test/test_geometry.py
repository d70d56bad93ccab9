"""Property tests of cameras, poses and grids with random numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrocc import labels
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.geometry.pose import matrix_to_quaternion, multiply_quaternions, quaternion_to_matrix, slerp

seeds = st.integers(0, 2**32 - 1)


def random_pose(rng: np.random.Generator) -> Pose:
    quaternion = rng.normal(size=4)
    return Pose.from_quaternion(quaternion / np.linalg.norm(quaternion), rng.uniform(-50, 50, 3))


def random_camera(rng: np.random.Generator) -> PinholeCamera:
    width, height = rng.integers(8, 2000, 2)
    fx, fy = rng.uniform(0.3, 3.0, 2) * width
    return PinholeCamera(int(width), int(height), fx, fy, rng.uniform(0, width), rng.uniform(0, height))


@given(seeds)
def test_projection_is_undone_by_back_projection(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    points = rng.uniform([-5, -5, 0.1], [5, 5, 20], (50, 3))
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(camera.back_project(pixels, depth), points, atol=1e-9)
    homogeneous = points @ camera.matrix.T
    np.testing.assert_allclose(pixels, homogeneous[:, :2] / homogeneous[:, 2:], atol=1e-6)


def test_points_at_or_behind_the_camera_have_no_pixel():
    camera = PinholeCamera(640, 480, 500, 500, 320, 240)
    pixels, _ = camera.project(np.array([[0.0, 0, 0], [1, 1, -2]]))
    assert np.isnan(pixels).all()
    rows, columns, inside = camera.pixel_index(pixels)
    assert not inside.any() and not rows.any() and not columns.any()


def test_the_border_pixels_reach_half_a_pixel_out():
    camera = PinholeCamera(4, 3, 10, 10, 1.5, 1.0)
    pixels = np.array([[-0.5, 0.0], [-0.51, 0.0], [3.49, 2.49], [3.5, 0.0], [0.0, 2.5]])
    rows, columns, inside = camera.pixel_index(pixels)
    assert inside.tolist() == [True, False, True, False, False]
    assert (rows[2], columns[2]) == (2, 3)


@given(seeds)
def test_a_resized_camera_sees_the_same_corner_of_the_view(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    other = camera.resized(*rng.integers(8, 2000, 2).tolist())
    # The outer corner of the last pixel is the corner of the view in both images.
    corner = camera.back_project(np.array([camera.width - 0.5, camera.height - 0.5]), np.array(1.0))
    pixel, _ = other.project(corner[None])
    np.testing.assert_allclose(pixel[0], [other.width - 0.5, other.height - 0.5], atol=1e-6)


@given(seeds)
def test_binning_and_region_of_interest_see_the_same_point(seed):
    rng = np.random.default_rng(seed)
    binning = int(rng.integers(1, 4))
    full = (int(rng.integers(20, 400)) * 2 * binning, int(rng.integers(20, 400)) * 2 * binning)
    k = [300.0, 0, full[0] / 2 + 3, 0, 310.0, full[1] / 2 - 2, 0, 0, 1]
    x_offset, y_offset = full[0] // 4, full[1] // 4
    size = (full[0] // 2, full[1] // 2)
    camera = PinholeCamera.from_calibration(
        k, full, (size[0] // binning, size[1] // binning), (binning, binning), (x_offset, y_offset, *size)
    )
    whole = PinholeCamera.from_calibration(k, full, full)
    point = rng.uniform([-0.1, -0.1, 1], [0.1, 0.1, 3], (1, 3))
    in_full, in_part = whole.project(point)[0][0], camera.project(point)[0][0]
    # Pixel i of the binned image is the mean of `binning` pixels, centred between them.
    expected = (in_full - [x_offset, y_offset] + 0.5) / binning - 0.5
    np.testing.assert_allclose(in_part, expected, atol=1e-9)


@pytest.mark.parametrize(
    "k", [np.zeros(9), [np.nan] * 9, [500, 0, 320, 0, 0, 240, 0, 0, 1], [500, 0, np.inf, 0, 500, 240, 0, 0, 1], [1, 2]]
)
def test_a_camera_matrix_that_is_none_is_refused(k):
    with pytest.raises(ValueError, match="camera matrix"):
        PinholeCamera.from_calibration(k, (640, 480), (640, 480))


@given(seeds)
def test_poses_form_a_group(seed):
    rng = np.random.default_rng(seed)
    a, b = random_pose(rng), random_pose(rng)
    points = rng.uniform(-10, 10, (20, 3))
    np.testing.assert_allclose((a @ b).apply(points), a.apply(b.apply(points)), atol=1e-9)
    np.testing.assert_allclose(a.inverse().apply(a.apply(points)), points, atol=1e-9)
    np.testing.assert_allclose((a @ a.inverse()).matrix, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(Pose.from_matrix(a.matrix).matrix, a.matrix)
    assert np.isclose(np.linalg.norm(a.apply(points[0]) - a.apply(points[1])), np.linalg.norm(points[0] - points[1]))


@given(seeds)
def test_quaternions_and_matrices_agree(seed):
    rng = np.random.default_rng(seed)
    a, b = random_pose(rng), random_pose(rng)
    np.testing.assert_allclose(quaternion_to_matrix(a.quaternion), a.rotation, atol=1e-9)
    product = multiply_quaternions(a.quaternion, b.quaternion)
    np.testing.assert_allclose(quaternion_to_matrix(product), a.rotation @ b.rotation, atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_survive_the_quaternion(axis):
    rotation = -np.eye(3)
    rotation[axis, axis] = 1
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(rotation)), rotation, atol=1e-12)


@given(seeds, st.floats(0, 1))
def test_interpolation_runs_evenly_from_one_pose_to_the_other(seed, fraction):
    rng = np.random.default_rng(seed)
    a, b = random_pose(rng), random_pose(rng)
    between = a.interpolate(b, fraction)
    np.testing.assert_allclose(
        between.translation, a.translation + fraction * (b.translation - a.translation), atol=1e-9
    )

    def angle(p, q):
        return np.arccos(np.clip((np.trace(p.rotation.T @ q.rotation) - 1) / 2, -1, 1))

    assert np.isclose(angle(a, between), fraction * angle(a, b), atol=1e-5)
    np.testing.assert_allclose(slerp(a.quaternion, -a.quaternion, fraction), a.quaternion, atol=1e-9)


@pytest.mark.parametrize(
    ("quaternion", "translation", "words"),
    [
        ([np.nan, 0, 0, 0], [0, 0, 0], "length nan"),
        ([0, 0, 0, 0], [0, 0, 0], "length 0"),
        ([2, 0, 0, 0], [0, 0, 0], "length 2"),
        ([1, 0, 0, 0], [np.nan, 0, 0], "NaN or infinity"),
    ],
)
def test_bad_poses_are_refused_with_their_cause(quaternion, translation, words):
    with pytest.raises(ValueError, match=words):
        Pose.from_quaternion(np.array(quaternion, float), np.array(translation, float))


def test_a_mirroring_matrix_is_not_a_pose():
    with pytest.raises(ValueError, match="not a rotation"):
        Pose(np.diag([1.0, 1.0, -1.0]), np.zeros(3))


@given(seeds)
@settings(max_examples=50)
def test_voxel_centres_have_their_own_index(seed):
    rng = np.random.default_rng(seed)
    grid = VoxelGrid(rng.uniform(-20, 20, 3), tuple(rng.integers(1, 8, 3)), rng.uniform(0.02, 0.5))
    centres = grid.centres()
    indices = grid.index_of(centres)
    assert (indices == np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)).all()
    assert grid.contains(indices).all()
    # Occ-ScanNet: centre = origin + (index + 0.5) * resolution
    np.testing.assert_allclose(centres[0, 0, 0], grid.origin + 0.5 * grid.resolution)
    inside = grid.origin + rng.uniform(0, 1, (30, 3)) * np.array(grid.shape) * grid.resolution
    assert grid.contains(grid.index_of(inside)).all()
    assert not grid.contains(grid.index_of(grid.origin - 1e-6)).any()


@given(seeds)
def test_a_covering_grid_holds_its_points_on_aligned_corners(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 5, (10, 3))
    grid = VoxelGrid.covering(points, 0.08, margin_voxels=2)
    indices = grid.index_of(points)
    assert grid.contains(indices).all()
    assert (indices >= 2).all() and (indices < np.array(grid.shape) - 2).all()
    np.testing.assert_allclose(grid.origin / 0.08, np.round(grid.origin / 0.08), atol=1e-9)


def test_labels_are_those_of_the_field():
    assert labels.CLASS_NAMES[0] == "ceiling" and labels.name_of(8) == "table" and labels.name_of(11) == "objects"
    assert labels.name_of(0) == "free" and labels.name_of(255) == "unknown"
    with pytest.raises(ValueError, match="no label 12"):
        labels.name_of(12)
    assert len({tuple(c) for c in labels.COLOURS[[0, *labels.CLASS_LABELS, 255]]}) == 13


def test_an_unknown_class_is_the_generic_one():
    scores = np.zeros((2, 11))
    scores[1, 7] = 1
    assert labels.most_likely_class(scores).tolist() == [labels.GENERIC, 8]
