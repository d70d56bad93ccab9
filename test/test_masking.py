"""Masks: nothing of what they cover reaches the map, and everything else does as if they were not there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import CAMERA, ROOM, depth_of_boxes, pose_at, prediction_of, random_gaussians

from sgrocc.experts import Prediction
from sgrocc.experts.masking import without
from sgrocc.geometry import PinholeCamera
from sgrocc.labels import FREE, UNKNOWN
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.splatting import SUPPORT_SIGMA

POSE = pose_at(0, 0, 0)
#: Stands before the wall of `ROOM`, clear of it and of the floor.
VISITOR = ((1.0, -0.2, -0.3), (1.2, 0.2, 0.3))
RESOLUTION_M = 0.08
#: So far the surface Gaussians of what stands beside a mask reach over its rim, as they do without one.
REACH_M = SUPPORT_SIGMA * 0.8 * RESOLUTION_M


def mask_of(boxes, size=(CAMERA.height, CAMERA.width)) -> np.ndarray:
    """Where boxes stand in the view, as an image of `size` (height, width), and a pixel around them."""
    seen = depth_of_boxes(boxes, CAMERA.resized(size[1], size[0]), POSE) > 0
    padded = np.pad(seen, 1)
    return np.max([padded[1 + r : 1 + r + size[0], 1 + c : 1 + c + size[1]] for r in (-1, 0, 1) for c in (-1, 0, 1)], 0)


def known(memory: GaussianMemory) -> dict[tuple, tuple]:
    update = memory.snapshot()
    return {
        tuple(voxel): (int(label), float(probability))
        for voxel, label, probability in zip(update.indices.tolist(), update.labels, update.probabilities)
    }


def fused(*predictions: Prediction) -> GaussianMemory:
    memory = GaussianMemory()
    for prediction in predictions:
        memory.fuse(prediction, POSE)
    return memory


def is_masked(voxels: np.ndarray, mask: np.ndarray, margin_m: float = REACH_M) -> tuple[np.ndarray, np.ndarray]:
    """Whether the mask covers all of (N, 3) voxels with a margin around them, and whether any of that."""
    height, width = mask.shape
    camera = CAMERA.resized(width, height)
    pixels, z = camera.project(POSE.inverse().apply((voxels + 0.5) * RESOLUTION_M))
    in_front = z > 0
    radius_m = 0.5 * np.sqrt(3) * RESOLUTION_M + margin_m
    # And a pixel of the prediction, all of which a part of it masks.
    reach = (radius_m / np.where(in_front, z, 1) + 1 / CAMERA.fx) * max(camera.fx, camera.fy)
    pixels = np.where(in_front[:, None], pixels, -1e6)
    low, high = np.floor(pixels - reach[:, None]).astype(int), np.ceil(pixels + reach[:, None]).astype(int) + 1
    (left, top), (right, bottom) = (np.clip(corner, 0, (width, height)).T for corner in (low, high))
    total = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    count = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    return count == (high - low).prod(axis=1), count > 0


def touches(parts: int, pixels: int) -> np.ndarray:
    """(parts, pixels) bool: which of a line's equal parts and pixels have more than an edge in common."""
    part, pixel = np.arange(parts)[:, None], np.arange(pixels)[None]
    return (part * pixels < (pixel + 1) * parts) & (pixel * parts < (part + 1) * pixels)


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    mask_size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    share=st.sampled_from([0.0, 0.002, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_a_pixel_is_masked_when_any_pixel_of_the_mask_that_it_covers_is(size, mask_size, share, seed):
    random = np.random.default_rng(seed)
    mask = random.random(mask_size) < share
    depth = random.uniform(0.5, 4, size).astype(np.float32)
    camera = PinholeCamera(size[1], size[0], 0.9 * size[1], 0.9 * size[1], 0.45 * size[1], 0.55 * size[0])
    gaussians = random_gaussians(random, 40, 3.0, features=2)
    given_ = Prediction(depth, camera, gaussians, True, (0.1, 0.02))
    found = without(given_, mask)
    rows, columns = (touches(*sizes).astype(int) for sizes in zip(size, mask_size))
    expected = rows @ mask @ columns.T > 0
    np.testing.assert_array_equal(found.depth, np.where(expected, 0, depth))
    assert found.depth.dtype == np.float32
    pixels, _ = camera.project(gaussians.means)
    rows, columns, inside = camera.pixel_index(pixels)
    kept = gaussians.select(~(inside & expected[rows, columns]))
    for name, array in kept.arrays().items():
        np.testing.assert_array_equal(found.gaussians.arrays()[name], array)
    assert (found.camera, found.semantic, found.depth_sigma_m) == (camera, True, (0.1, 0.02))


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (45, 60), (101, 333)])
def test_nothing_of_a_masked_visitor_reaches_the_map_and_all_else_is_as_without_a_mask(size):
    visited = prediction_of(depth_of_boxes([*ROOM, VISITOR], CAMERA, POSE))
    mask = mask_of([VISITOR], size)
    masked, unmasked = known(fused(*3 * [without(visited, mask)])), known(fused(*3 * [visited]))
    # Without the mask the visitor would be in the map.
    low, high = (np.array(corner) / RESOLUTION_M for corner in VISITOR)
    body = {v for v in unmasked if (np.array(v) + 1 > low).all() and (np.array(v) < high).all()}
    assert sum(unmasked[v][0] not in (FREE, UNKNOWN) for v in body) > 20
    assert not body & masked.keys()
    # Nor is anything before or behind it, but for what reaches there from beside the mask.
    voxels = list(unmasked.keys() | masked.keys())
    hidden = {v for v, is_hidden in zip(voxels, is_masked(np.array(voxels), mask, 0.0)[0]) if is_hidden}
    assert len(hidden) > 30 and {unmasked[v][0] for v in hidden} > {FREE}
    assert all(masked[v][0] == unmasked[v][0] != FREE for v in hidden & masked.keys())
    assert len(hidden & masked.keys()) < 0.3 * len(hidden)
    # Where no pixel of the mask comes near, the maps are equal.
    apart = ~is_masked(np.array(voxels), mask)[1]
    assert apart.sum() > 2000
    assert all(unmasked.get(v) == masked.get(v) for v, away in zip(voxels, apart) if away)


def test_a_masked_visitor_leaves_what_is_known_behind_it_as_it_was():
    room = prediction_of(depth_of_boxes(ROOM, CAMERA, POSE))
    visited = without(prediction_of(depth_of_boxes([*ROOM, VISITOR], CAMERA, POSE)), mask_of([VISITOR]))
    before, after = known(fused(*3 * [room])), known(fused(*3 * [room], *5 * [visited]))
    mask = mask_of([VISITOR])
    hidden = is_masked(np.array(list(before)), mask, 0.0)[0]
    assert hidden.sum() > 200
    assert all(before[v] == after[v] for v, is_hidden in zip(before, hidden) if is_hidden)
    # Elsewhere the frames say what they say without a visitor.
    alone = known(fused(*8 * [room]))
    apart = ~is_masked(np.array(list(alone)), mask)[1]
    assert all(alone[v] == after[v] for v, away in zip(alone, apart) if away)


@settings(max_examples=10, deadline=None)
@given(
    corners=st.tuples(*2 * [st.integers(0, 119)], *2 * [st.integers(0, 159)]),
    noise=st.integers(0, 1000),
)
def test_no_part_of_the_view_under_a_mask_is_measured_or_freed(corners, noise):
    random = np.random.default_rng(noise)
    depth = depth_of_boxes([*ROOM, VISITOR], CAMERA, POSE)
    depth += (depth > 0) * random.normal(0, 0.01, depth.shape).astype(np.float32)
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    mask = np.zeros(depth.shape, bool)
    mask[top : bottom + 1, left : right + 1] = True
    masked = known(fused(*2 * [without(prediction_of(depth), mask)]))
    voxels = np.array(list(masked))
    hidden, deep = is_masked(voxels, mask, 0.0)[0], is_masked(voxels, mask)[0]
    assert all(masked[tuple(voxel)][0] != FREE for voxel in voxels[hidden].tolist())
    assert not deep.any()


def test_a_mask_over_all_or_nothing():
    prediction = prediction_of(depth_of_boxes(ROOM, CAMERA, POSE))
    assert without(prediction, np.zeros((3, 4), bool)) is prediction
    nothing = without(prediction, np.ones((3, 4), bool))
    assert len(nothing.gaussians) == 0 and not nothing.depth.any()
    assert len(fused(nothing).snapshot()) == 0


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 4, 3)])
def test_a_mask_that_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"the mask has shape .*: it must be an image \(height, width\)"):
        without(prediction_of(depth_of_boxes(ROOM, CAMERA, POSE)), np.ones(shape, bool))
