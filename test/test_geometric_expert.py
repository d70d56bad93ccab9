"""Sensor depth to Gaussians: where they lie, how they are oriented, what noise does to them."""

import numpy as np
import pytest
from scenes import CAMERA, depth_of_boxes, pose_at, prediction_of

from sgrocc.experts import Frame
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert, depth_noise_m
from sgrocc.geometry import PinholeCamera
from sgrocc.geometry.pose import quaternion_to_matrix


def test_gaussians_of_a_wall_lie_on_it_and_face_the_camera():
    depth = depth_of_boxes([((2.0, -9, -9), (3, 9, 9))], CAMERA, pose_at(0, 0, 0))
    gaussians = prediction_of(depth).gaussians
    assert len(gaussians) == 80 * 60  # every second pixel: 160 x 120 is over the bound of 16,200
    np.testing.assert_allclose(gaussians.means[:, 2], 2.0, atol=1e-5)
    normals = quaternion_to_matrix(gaussians.rotations)[:, :, 2]
    np.testing.assert_allclose(normals, np.tile([0, 0, 1.0], (len(normals), 1)), atol=1e-4)
    assert (gaussians.scales[:, 2] < gaussians.scales[:, 0]).all()
    assert (gaussians.logits == 0).all() and gaussians.finite().all()


def test_the_normal_of_a_slanted_plane_is_right():
    # The plane z = 2 + x/2 in the camera frame has the normal (-1/2, 0, 1) away from the camera.
    columns = np.arange(CAMERA.width)
    ray_x = (columns - CAMERA.cx) / CAMERA.fx
    depth = np.tile(2 / (1 - 0.5 * ray_x), (CAMERA.height, 1)).astype(np.float32)
    normals = quaternion_to_matrix(prediction_of(depth).gaussians.rotations)[:, :, 2]
    expected = np.array([-0.5, 0, 1]) / np.hypot(0.5, 1)
    np.testing.assert_allclose(normals, np.tile(expected, (len(normals), 1)), atol=1e-2)


def test_a_normal_does_not_straddle_a_depth_edge():
    depth = np.full((CAMERA.height, CAMERA.width), 3.0, np.float32)
    depth[:, : CAMERA.width // 2] = 1.0
    normals = quaternion_to_matrix(prediction_of(depth).gaussians.rotations)[:, :, 2]
    np.testing.assert_allclose(normals, np.tile([0, 0, 1.0], (len(normals), 1)), atol=1e-4)


def test_opacity_falls_with_the_noise_of_the_depth():
    near, far = (
        prediction_of(np.full((CAMERA.height, CAMERA.width), d, np.float32)).gaussians.opacities[0] for d in (1.0, 3.9)
    )
    assert near == pytest.approx(0.97) and 0.5 < far < near
    assert depth_noise_m(np.array(3.9)) == pytest.approx(0.0012 + 0.0019 * 3.5**2)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, 0.1, 9.0])
def test_invalid_depth_makes_no_gaussian(bad):
    depth = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    depth[:60] = bad
    gaussians = prediction_of(depth).gaussians
    assert gaussians.finite().all()
    assert (gaussians.means[:, 1] > 0).all() and len(gaussians) > 1000


def test_no_valid_depth_is_no_gaussian():
    assert len(prediction_of(np.zeros((CAMERA.height, CAMERA.width), np.float32)).gaussians) == 0


@pytest.mark.parametrize("size", [(640, 480), (37, 91), (1280, 720)])
def test_depth_of_any_size_gives_the_same_place_and_a_bounded_number(size):
    width, height = size
    expert = GeometricExpert(GeometricConfig(max_anchors=2000))
    camera = PinholeCamera(640, 480, 500, 500, 319.5, 239.5)
    frame = Frame(np.zeros((480, 640, 3), np.uint8), camera, np.full((height, width), 2.0, np.float32))
    gaussians = expert(frame).gaussians
    assert 500 < len(gaussians) <= 2000
    # The lattice covers the view: its outermost points come close to the corners.
    assert gaussians.means[:, 0].max() == pytest.approx(2.0 * 320 / 500, rel=0.1)


def test_a_frame_without_depth_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="connect a depth image or choose a learned model"):
        GeometricExpert()(Frame(np.zeros((120, 160, 3), np.uint8), CAMERA))
