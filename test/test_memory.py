"""The persistent map: what is remembered, confirmed, dropped, bounded; and the voxels that come out."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scenes import CAMERA, LOOKING_ALONG_X, depth_of_boxes, pose_at, prediction_of, random_gaussians

from sgrocc.experts import Prediction
from sgrocc.gaussians import Gaussians
from sgrocc.labels import CHAIR, FREE, GENERIC, TABLE, UNKNOWN, most_likely_class
from sgrocc.memory.confidence import geometric_confidence, hybrid_confidence, semantic_confidence
from sgrocc.memory.gaussian_memory import GaussianMemory, MemoryConfig, merge_per_voxel
from sgrocc.memory.visibility import frustum_blocks, look, voxels_of_pixels
from sgrocc.memory.voxels import BLOCK_OFFSETS, VoxelBlocks, VoxelMap, VoxelUpdate, unique_rows, voxels_of
from sgrocc.splatting import BLOCK, class_probabilities, splat_blocks
from sgrocc.synthrooms.sensor import sensor_depth

WALL = ((2.0, -9, -9), (3, 9, 9))
BOX = ((1.2, -0.2, -0.3), (1.5, 0.2, 0.3))


def label_at(memory: GaussianMemory, point) -> int:
    known = memory.snapshot()
    index = np.floor(np.array(point) / memory.config.resolution).astype(int)
    found = (known.indices == index).all(axis=1)
    return int(known.labels[found][0]) if found.any() else UNKNOWN


def fuse_boxes(memory, boxes, pose, times=1):
    for _ in range(times):
        update = memory.fuse(prediction_of(depth_of_boxes(boxes, CAMERA, pose)), pose)
    return update


def test_a_wall_is_occupied_the_air_before_it_free_and_the_rest_unknown():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
    assert label_at(memory, (2.04, 0.0, 0.0)) == GENERIC
    assert label_at(memory, (1.0, 0.0, 0.0)) == FREE
    assert label_at(memory, (2.5, 0.0, 0.0)) == UNKNOWN  # behind the wall
    assert label_at(memory, (1.0, 2.0, 0.0)) == UNKNOWN  # outside the view
    assert label_at(memory, (-1.0, 0.0, 0.0)) == UNKNOWN  # behind the camera


def test_the_world_is_where_the_pose_says():
    # The same box seen from its other side: the camera at x = 3 turned by half a turn about z.
    memory = GaussianMemory()
    from sgrocc.geometry import Pose

    turned = Pose.from_quaternion([0, 0, 0, 1], [3, 0, 0]) @ pose_at(0, 0, 0)
    fuse_boxes(memory, [BOX], turned)
    assert label_at(memory, (1.48, 0.0, 0.0)) == GENERIC
    assert label_at(memory, (1.24, 0.0, 0.0)) == UNKNOWN  # the far side is hidden
    assert label_at(memory, (2.2, 0.0, 0.0)) == FREE  # between camera and box


def test_updates_add_up_to_the_snapshot():
    memory, reader = GaussianMemory(), VoxelMap()
    for step in range(6):
        pose = pose_at(-0.1 * step, 0.15 * step, 0.02 * step)
        reader.apply(memory.fuse(prediction_of(depth_of_boxes([WALL, BOX], CAMERA, pose)), pose))

    def as_dict(update):
        return {tuple(i): (label, p) for i, label, p in zip(*vars(update).values(), strict=True)}

    assert as_dict(reader.known()) == as_dict(memory.snapshot())


def test_two_memories_fed_alike_are_equal_to_the_bit():
    results = []
    for _ in range(2):
        memory = GaussianMemory()
        for step in range(4):
            fuse_boxes(memory, [WALL, BOX], pose_at(0, 0.1 * step, 0))
        results.append((memory.gaussians(), memory.snapshot()))
    for one, other in zip(*results, strict=True):
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
            assert (a == b).all()


def test_a_carried_away_box_is_freed_and_the_wall_behind_stays():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL, BOX], pose_at(0, 0, 0), times=20)
    assert label_at(memory, (1.24, 0, 0)) == GENERIC
    dropped = 0
    for frame in range(14):
        fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
        dropped += memory.statistics.dropped_by_conflict
        assert (label_at(memory, (1.24, 0, 0)) == FREE) == (frame >= 5)
    assert label_at(memory, (2.04, 0, 0)) == GENERIC
    assert dropped > 20 and not ((memory.gaussians().means[:, 0] > 1.1) & (memory.gaussians().means[:, 0] < 1.6)).any()


def test_what_is_hidden_by_something_nearer_is_kept():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
    fuse_boxes(memory, [WALL, BOX], pose_at(0, 0, 0), times=30)
    assert label_at(memory, (2.04, 0, 0)) == GENERIC


def test_one_flying_pixel_in_known_free_space_makes_no_voxel():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0), times=5)
    fuse_boxes(memory, [WALL, BOX], pose_at(0, 0, 0))
    assert label_at(memory, (1.24, 0, 0)) == FREE
    assert memory.statistics.refused_by_conflict > 20


def test_verified_gaussians_freeze_and_moved_surfaces_are_followed():
    memory = GaussianMemory()
    pose = pose_at(0, 0, 0)
    fuse_boxes(memory, [WALL], pose, times=2)
    assert memory.statistics.updated == 0 and memory.statistics.frozen > 500
    before = memory.gaussians().means[:, 0].mean()
    fuse_boxes(memory, [((2.03, -9, -9), (3, 9, 9))], pose, times=3)
    assert memory.statistics.inserted == 0
    after = memory.gaussians().means[:, 0].mean()
    assert before == pytest.approx(2.0, abs=1e-3) and 2.005 < after < 2.03


def test_the_number_of_gaussians_is_bounded_and_the_stalest_go():
    memory = GaussianMemory(MemoryConfig(max_gaussians=1500))
    for step in range(8):
        fuse_boxes(memory, [((2.0, -99, -9), (3, 99, 9))], pose_at(0, 1.0 * step, 0))
        assert len(memory) <= 1500
    assert memory.statistics.discarded_by_bound > 0
    assert label_at(memory, (2.04, 7.0, 0)) == GENERIC
    assert label_at(memory, (2.04, -1.5, 0)) != GENERIC


def test_the_map_follows_the_splatted_classes():
    logits = np.zeros((1, 11))
    logits[0, 7] = 5
    table = Gaussians([[0, 0, 1.0]], [[0.05] * 3], [[1, 0, 0, 0]], [0.9], logits, np.zeros((1, 0)))
    memory = GaussianMemory()
    prediction = Prediction(np.zeros((120, 160), np.float32), CAMERA, table, True, (0.1, 0.0))
    update = memory.fuse(prediction, pose_at(0, 0.04, 0.04))
    assert label_at(memory, (1.0, 0.04, 0.04)) == 8
    assert set(update.labels) == {8}


def test_garbage_gaussians_are_counted_and_leave_the_map_alone():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
    before = memory.snapshot()
    rng = np.random.default_rng(0)
    garbage = random_gaussians(rng, 60, 1.0)
    garbage.means[:20] = np.nan
    garbage.scales[20:30] = -1
    garbage.opacities[30:40] = 7
    garbage.rotations[40:50] = 0
    garbage.means[50:] = 1e30
    update = memory.fuse(
        Prediction(np.zeros((120, 160), np.float32), CAMERA, garbage, True, (0.1, 0)), pose_at(0, 0, 0)
    )
    assert memory.statistics.unusable == 60 and len(update) == 0
    after = memory.snapshot()
    assert all((a == b).all() for a, b in zip(vars(before).values(), vars(after).values(), strict=True))


def test_depth_of_another_size_than_its_camera_is_refused_and_changes_nothing():
    memory = GaussianMemory()
    with pytest.raises(ValueError, match="10 x 10 pixels and its camera 160 x 120"):
        memory.fuse(
            Prediction(np.ones((10, 10), np.float32), CAMERA, Gaussians.empty(), False, (0.1, 0)), pose_at(0, 0, 0)
        )
    assert memory.frames == 0 and len(memory.snapshot()) == 0


def test_features_of_another_model_are_refused():
    memory = GaussianMemory()
    depth = np.zeros((120, 160), np.float32)

    def prediction(features: int) -> Prediction:
        one = replace(gaussians_at(ahead(2.0)), features=np.zeros((1, features), np.float32))
        return Prediction(depth, CAMERA, one, True, (0.1, 0))

    memory.fuse(prediction(8), pose_at(0, 0, 0))
    with pytest.raises(ValueError, match="restart the nodes after changing the model"):
        memory.fuse(prediction(4), pose_at(0, 0, 0))


def test_clear_forgets_everything():
    memory = GaussianMemory()
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
    memory.clear()
    assert len(memory) == 0 and len(memory.snapshot()) == 0
    fuse_boxes(memory, [WALL], pose_at(0, 0, 0))
    assert label_at(memory, (2.04, 0, 0)) == GENERIC


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"resolution": 0.0}, "resolution is 0.0"),
        ({"occupied_threshold": 1.0}, "occupied_threshold"),
        ({"min_depth_m": 5.0}, "less than max_depth_m"),
        ({"lowest_confidence": 1.0}, "lowest_confidence"),
        ({"confidence": "much"}, "it must be one of hybrid, geometric, semantic, none"),
        ({"max_frames": 0.0}, "max_frames"),
        ({"guessed_threshold": 1.0}, "guessed_threshold"),
    ],
)
def test_settings_without_sense_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        MemoryConfig(**setting)


def test_confidences_are_the_papers_equations():
    # eq. 6 at agreement and at one and two sigma
    np.testing.assert_allclose(
        geometric_confidence(np.array([1.0, 1.1, 0.8]), np.ones(3), 0.1), np.exp([0, -0.5, -2.0])
    )
    # eq. 7: softmax of two equal logits is 1/2; T = 0.5 doubles the differences
    logits = np.full((3, 11), -50.0)
    logits[0, :2] = 0
    logits[1, 0] = 0
    logits[2] = 0
    expected = np.clip((np.array([0.5, 1.0, 1 / 11]) - 0.2) / 0.6, 0, 1)
    np.testing.assert_allclose(semantic_confidence(logits, 1.0, 0.2, 0.8), expected, atol=1e-9)
    sharper = semantic_confidence(np.array([[1.0] + [0.0] * 10]), 0.5, 0.2, 0.8)
    p = np.exp(2) / (np.exp(2) + 10)
    np.testing.assert_allclose(sharper, (p - 0.2) / 0.6)
    # eq. 8: a new anchor has no confidence
    np.testing.assert_allclose(hybrid_confidence(np.array([1, 0]), 0.5, 0.4), [0.2, 0.0])


@pytest.mark.parametrize(
    ("confirmed_by", "expected"), [("hybrid", 0.2), ("geometric", 0.5), ("semantic", 0.4), ("none", 0.0)]
)
def test_each_part_of_the_hybrid_confidence_can_be_taken_out(confirmed_by, expected):
    np.testing.assert_allclose(hybrid_confidence(np.array([True, False]), 0.5, 0.4, confirmed_by), [expected, 0.0])


@pytest.mark.parametrize("confirmed_by", ["hybrid", "geometric", "semantic", "none"])
def test_a_remembered_gaussian_keeps_as_much_of_itself_as_it_is_confirmed(confirmed_by):
    """A Gaussian on a wall, seen again with another feature, 5 cm before the depth whose deviation is 10 cm."""
    memory = GaussianMemory(MemoryConfig(confidence=confirmed_by, frozen_below=0.0, temperature=1.0))
    logits = np.zeros((1, 11), np.float32)
    logits[0, 0] = np.log(10)  # a probability of 1/2
    parts = {"geometric": np.exp(-0.5 * 0.5**2), "semantic": 0.5}
    parts |= {"hybrid": parts["geometric"] * parts["semantic"], "none": 0.0}
    depth = np.full((CAMERA.height, CAMERA.width), 2.05, np.float32)
    for feature in (1.0, 0.0):
        one = replace(gaussians_at(ahead(2.0)), logits=logits, features=np.full((1, 1), feature, np.float32))
        memory.fuse(Prediction(depth, CAMERA, one, True, (0.1, 0.0)), pose_at(0, 0, 0))
    told = memory.confirmation
    np.testing.assert_allclose(told.geometric, parts["geometric"], rtol=1e-3)
    np.testing.assert_allclose(told.semantic, parts["semantic"], rtol=1e-3)
    np.testing.assert_allclose(told.hybrid, parts[confirmed_by], rtol=1e-3)
    np.testing.assert_allclose(memory.gaussians().features, parts[confirmed_by], rtol=1e-3, atol=1e-6)


def test_confirmed_is_what_was_remembered_and_is_seen_again():
    memory = GaussianMemory()
    assert memory.confirmation is None
    fuse_boxes(memory, [WALL, BOX], pose_at(0, 0, 0))
    assert len(memory.confirmation.gaussians) == 0  # a first frame sees nothing again
    before, pose = memory.gaussians(), pose_at(0, 0.4, 0)
    fuse_boxes(memory, [WALL, BOX], pose)
    told = memory.confirmation
    place = {tuple(mean): row for row, mean in enumerate(before.means.tolist())}
    rows = [place[tuple(mean)] for mean in told.gaussians.means.tolist()]
    assert 100 < len(rows) == len(set(rows)) < len(before)
    for name, array in told.gaussians.arrays().items():
        np.testing.assert_array_equal(array, before.arrays()[name][rows])
    assert {len(part) for part in (told.geometric, told.semantic, told.hybrid)} == {len(rows)}
    inside = CAMERA.pixel_index(CAMERA.project(pose.inverse().apply(before.means))[0])[2]
    assert inside[rows].all() and not inside.all()
    memory.clear()
    assert memory.confirmation is None


def test_merging_keeps_one_gaussian_per_voxel_weighted_by_opacity():
    gaussians = Gaussians(
        [[0.01, 0.01, 0.01], [0.05, 0.05, 0.05], [-0.01, 0, 0]],
        [[0.02] * 3, [0.03] * 3, [0.5] * 3],
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]],
        [0.25, 0.75, 0.5],
        np.eye(11)[:3],
        np.zeros((3, 0)),
    )
    merged, voxels = merge_per_voxel(gaussians, 0.08)
    assert voxels.tolist() == [[-1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(merged.means[1], [0.04] * 3, atol=1e-6)
    np.testing.assert_allclose(merged.rotations[1], [0, 1, 0, 0])
    np.testing.assert_allclose(merged.logits[1, :2], [0.25, 0.75], atol=1e-6)
    assert merged.scales[0, 0] == pytest.approx(0.5)
    # Together they hide as much of their voxel as they did one by one.
    np.testing.assert_allclose(merged.opacities, [0.5, 1 - 0.75 * 0.25], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_voxel_blocks_find_what_was_stored(seed):
    rng = np.random.default_rng(seed)
    blocks = VoxelBlocks(value=(np.int32, -7))
    voxels = np.unique(rng.integers(-100, 100, (3000, 3)), axis=0).astype(np.int32)
    address = blocks.locate(voxels, create=True)
    assert len(np.unique(address)) == len(voxels)
    blocks.layer("value")[address] = np.arange(len(voxels))
    more = rng.integers(300, 400, (50, 3))
    assert (blocks.locate(more) == -1).all()
    blocks.locate(more, create=True)
    assert (blocks.layer("value")[blocks.locate(voxels)] == np.arange(len(voxels))).all()
    assert (blocks.layer("value")[blocks.locate(more)] == -7).all()
    assert (blocks.voxels(blocks.locate(voxels)) == voxels).all()


@pytest.mark.parametrize("spread", [3, 8, 1000])  # close together and far apart are two ways
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_unique_rows_are_those_of_numpy(spread, kind):
    rows = np.random.default_rng(spread).integers(-spread, spread, (200, 3)).astype(kind)
    unique, inverse = unique_rows(rows)
    expected, expected_inverse = np.unique(rows, axis=0, return_inverse=True)
    assert (unique == expected).all() and (inverse == expected_inverse.reshape(-1)).all()


def looked_at(points: np.ndarray):
    """Of points (N, 3) in the camera's frame, the centres of voxels of 8 cm: rows and columns of the pixels that look
    at them, whether one does, and z. A voxel that the border of the image cuts has the pixel there."""
    pixels, z = CAMERA.project(points)
    with np.errstate(all="ignore"):
        nearest = np.floor(pixels + 0.5)
        held = np.clip(nearest, 0, [CAMERA.width - 1, CAMERA.height - 1])
        inside = (np.abs(nearest - held) <= 0.04 * np.array([CAMERA.fx, CAMERA.fy]) / z[:, None]).all(axis=1) & (z > 0)
    columns, rows = np.where(inside[:, None], held, 0).astype(int).T
    return rows, columns, inside, z


def numbers_of(voxels: np.ndarray) -> np.ndarray:
    """(N,) int64, a number for each of (N, 3) voxels, which lie within a million of the origin."""
    x, y, z = np.asarray(voxels, np.int64).T + 2**20
    return (x << 42) | (y << 21) | z


@pytest.mark.parametrize("sigma_m", [(0.04, 0.0), (0.05, 0.1)])
@pytest.mark.parametrize("seed", range(5))
def test_see_throughs_are_those_of_the_definition(seed, sigma_m):
    rng = np.random.default_rng(seed)
    from test_geometry import random_pose

    pose = random_pose(rng)
    depth = rng.uniform(0.5, 3.0, (CAMERA.height, CAMERA.width)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = 0
    blocks = frustum_blocks(CAMERA, pose, 0.08, 1e-3, float(depth.max()))
    view = look(blocks, depth, CAMERA, pose, 0.08, 0.12, sigma_m)
    # Every voxel of a generous box around the camera, by the definition.
    low = np.floor((pose.translation - 4) / 0.64).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), -1).reshape(-1, 3) + low
    voxels = (grid[:, None] * BLOCK + BLOCK_OFFSETS).reshape(-1, 3)
    centres = pose.inverse().apply((voxels + 0.5) * 0.08)
    rows, columns, inside, z = looked_at(centres)
    surface = depth[rows, columns]
    margin_m = np.maximum(0.12, 2 * (sigma_m[0] + sigma_m[1] * surface))
    expected = voxels[inside & (z > 0) & (surface > z + margin_m)]
    in_blocks = blocks[:, None] * BLOCK + BLOCK_OFFSETS
    measured = inside & (z > 0) & (surface > 0) & (z <= np.minimum(surface + 0.5 * margin_m, depth.max()))
    known = inside & (z > 0) & (surface > 0)
    for wanted, mask in (
        (expected, view.seen),
        (voxels[measured], view.measured),
        (voxels[inside & (z > 0) & (z < depth.max())], view.weight > 0),
    ):
        # Blocks reach a little further than the furthest depth.
        found = in_blocks[mask]
        reached = pose.inverse().apply((found + 0.5) * 0.08)[:, 2] <= depth.max()
        wanted, found = numbers_of(wanted), numbers_of(found)
        differing = len(np.setdiff1d(wanted, found)) + len(np.setdiff1d(found[reached], wanted))
        # float32 against float64 may differ for centres within rounding of a pixel's border
        assert differing <= 0.001 * len(wanted) and len(wanted) > 1000
    # Near the surface of a depth that is rougher than half a voxel, little is sure.
    blur = np.maximum(sigma_m[0] + sigma_m[1] * surface - 0.04, 0)
    clear = np.where(blur > 1e-9, 0.1 + 0.9 * np.tanh(np.abs(z - surface) / np.maximum(blur, 1e-9)), 1)
    weight = clear * np.exp(-np.maximum(z - surface, 0) / 0.5)
    _, ours, theirs = np.intersect1d(
        numbers_of(voxels[known]), numbers_of(in_blocks[view.measured]), assume_unique=True, return_indices=True
    )
    errors = np.abs(weight[known][ours] - view.weight[view.measured][theirs])
    assert len(errors) > 1000 and np.mean(errors < 1e-4) > 0.999


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("furthest_m", [None, 60.0])
def test_pixels_end_where_their_depth_says(seed, furthest_m):
    from test_geometry import random_pose

    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    depth = np.where(rng.random((12, 16)) < 0.3, 0, rng.uniform(0.4, 0.7, (12, 16))).astype(np.float32)
    if furthest_m:  # one pixel far off: no box around all of them fits into memory
        depth[3, 5] = furthest_m
    camera = CAMERA.resized(16, 12)
    expected = Counter()
    for (row, column), z in np.ndenumerate(depth):
        if z > 0:
            point = np.array([(column - camera.cx) / camera.fx * z, (row - camera.cy) / camera.fy * z, z])
            expected[tuple(np.floor(pose.apply(point[None])[0] / 0.08).astype(int).tolist())] += 1
    voxels, pixels = voxels_of_pixels(depth, camera, pose, 0.08)
    assert dict(zip(map(tuple, voxels.tolist()), pixels.tolist(), strict=True)) == expected
    assert max(expected.values()) > 1 and len(voxels_of_pixels(0 * depth, camera, pose, 0.08)[0]) == 0


def test_a_wire_that_no_gaussian_stands_for_is_in_the_map():
    memory, pose = GaussianMemory(), pose_at(0, 0, 0)
    depth = depth_of_boxes([WALL], CAMERA, pose)
    column = CAMERA.width // 2 + 3
    depth[:, column] = 1.4
    prediction = prediction_of(depth)
    thin = prediction.gaussians.select(prediction.gaussians.means[:, 2] > 1.8)
    assert 0 < len(thin) < len(prediction.gaussians)
    for _ in range(2):
        memory.fuse(replace(prediction, gaussians=thin), pose)
    rows = np.arange(4, CAMERA.height - 4, 4)
    pixels = np.stack([np.full(len(rows), column), rows], axis=-1)
    wire = pose.apply(CAMERA.back_project(pixels, np.full(len(rows), 1.4)))
    assert {label_at(memory, point) for point in wire} == {GENERIC}


def test_a_voxel_map_is_the_sum_of_its_updates():
    reader = VoxelMap()
    reader.apply(
        VoxelUpdate(
            np.array([[0, 0, 0], [5, -9, 2]], np.int32), np.array([3, 0], np.uint8), np.array([0.9, 0.1], np.float32)
        )
    )
    reader.apply(VoxelUpdate(np.array([[0, 0, 0]], np.int32), np.array([UNKNOWN], np.uint8), np.zeros(1, np.float32)))
    known = reader.known()
    assert known.indices.tolist() == [[5, -9, 2]] and known.labels.tolist() == [0]


def gaussians_at(*points, label=CHAIR, scale_m=0.05, opacity=0.9) -> Gaussians:
    """Gaussians of a class in the camera's frame."""
    count = len(points)
    logits = np.zeros((count, 11))
    logits[:, label - 1] = 8.0
    rotations = np.tile([1.0, 0, 0, 0], (count, 1))
    means = np.reshape(points, (count, 3))
    return Gaussians(means, np.full((count, 3), scale_m), rotations, [opacity] * count, logits, np.zeros((count, 0)))


def seen(depth_m: float, *points, sigma_m=0.04, **options) -> Prediction:
    """A frame of a plane across the view, with Gaussians in the camera's frame."""
    depth = np.full((CAMERA.height, CAMERA.width), depth_m, np.float32)
    return Prediction(depth, CAMERA, gaussians_at(*points, **options), True, (sigma_m, 0.0))


def test_a_wide_gaussian_fills_what_it_covers_but_not_what_was_looked_through():
    memory = GaussianMemory()
    # From the camera at the origin, along x: the voxel from 2.00 to 2.08.
    memory.fuse(seen(2.04, (0.04, -0.04, 2.04), scale_m=0.16), pose_at(0, 0, 0))
    known = memory.snapshot()
    occupied = {tuple(v) for v in known.indices[known.labels == CHAIR].tolist()}
    assert {(25, -1, 0), (25, -2, 0), (25, 0, 0), (25, -1, 1), (26, -1, 0)} <= occupied and len(occupied) > 20
    assert (known.labels[known.indices[:, 0] < 24] == FREE).all()
    # What is remembered is narrower, so that each voxel may hold its own.
    assert len(memory) == 1 and memory.gaussians().scales.max() == pytest.approx(0.06)


def ahead(depth_m: float) -> tuple[float, float, float]:
    """A point in the middle of a voxel's cross-section, in the camera's frame at the origin."""
    return (-0.04, -0.04, depth_m)


def label_ahead(memory: GaussianMemory, depth_m: float) -> int:
    return label_at(memory, (depth_m, 0.04, 0.04))


def test_what_is_hidden_is_believed_only_so_far_behind_the_surface():
    memory = GaussianMemory(MemoryConfig(max_inferred_m=0.5))
    memory.fuse(seen(2.0, ahead(2.04), ahead(2.44), ahead(2.6)), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.04) == CHAIR and label_ahead(memory, 2.44) == CHAIR
    assert label_ahead(memory, 2.6) == UNKNOWN
    sober = GaussianMemory(MemoryConfig(max_inferred_m=0.0))
    sober.fuse(seen(2.0, ahead(2.04), ahead(2.44)), pose_at(0, 0, 0))
    assert label_ahead(sober, 2.04) == CHAIR and label_ahead(sober, 2.44) == UNKNOWN


def test_a_guess_gives_way_to_one_look_and_does_not_return():
    memory = GaussianMemory()
    for _ in range(5):  # told again and again, it is still a guess
        memory.fuse(seen(2.0, ahead(2.04), ahead(2.44)), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.44) == CHAIR
    memory.fuse(seen(3.0), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.44) == FREE
    assert label_ahead(memory, 2.04) == CHAIR  # was seen five times
    memory.fuse(seen(2.0, ahead(2.04), ahead(2.44)), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.44) == FREE and memory.statistics.refused_guesses == 1
    memory.fuse(seen(3.0), pose_at(0, 0, 0))
    assert len(memory) == 1


def test_a_guess_becomes_what_is_found_there():
    memory = GaussianMemory()
    memory.fuse(seen(2.0, ahead(2.44)), pose_at(0, 0, 0))
    for _ in range(9):
        memory.fuse(seen(2.44, ahead(2.44), label=TABLE), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.44) == TABLE


def test_where_nothing_was_measured_all_is_a_guess_within_the_range():
    memory = GaussianMemory(MemoryConfig(max_depth_m=4.0))
    memory.fuse(seen(0.0, ahead(2.04), ahead(4.2)), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.04) == CHAIR and label_ahead(memory, 4.2) == UNKNOWN
    memory.fuse(seen(3.0), pose_at(0, 0, 0))
    assert label_ahead(memory, 2.04) == FREE


def test_a_guess_with_a_hole_before_it_becomes_what_is_found_there_too():
    memory = GaussianMemory()
    memory.fuse(seen(2.0, (-0.07, -0.07, 2.41)), pose_at(0, 0, 0))
    frame = seen(2.44, (-0.01, -0.01, 2.44), label=TABLE)
    pixels, _ = CAMERA.project(memory.gaussians().means @ LOOKING_ALONG_X)
    frame.depth[int(pixels[0, 1]) - 1 : int(pixels[0, 1]) + 3, int(pixels[0, 0]) - 1 : int(pixels[0, 0]) + 3] = 0
    memory.fuse(frame, pose_at(0, 0, 0))
    assert len(memory) == 1 and label_ahead(memory, 2.44) == TABLE


def test_a_guess_never_replaces_what_was_measured():
    memory = GaussianMemory()
    memory.fuse(seen(2.44, ahead(2.44), label=TABLE), pose_at(0, 0, 0))
    for _ in range(5):
        memory.fuse(seen(2.0, ahead(2.44)), pose_at(0, 0, 0))
    assert len(memory) == 1 and label_ahead(memory, 2.44) == TABLE


def test_guesses_are_better_informed_by_later_ones():
    memory = GaussianMemory()
    unsure = seen(2.0, ahead(2.44))
    unsure.gaussians.logits[:] = 0.1 * unsure.gaussians.logits
    memory.fuse(unsure, pose_at(0, 0, 0))
    memory.fuse(seen(2.0, ahead(2.44), label=TABLE), pose_at(0, 0, 0))
    assert len(memory) == 1 and label_ahead(memory, 2.44) == TABLE
    memory.fuse(seen(2.0, ahead(2.44)), pose_at(0, 0, 0))
    assert most_likely_class(memory.gaussians().logits).tolist() == [TABLE], "by now the Gaussian is sure"
    # The voxel counts all three: two frames, one of them unsure, against one.
    assert label_ahead(memory, 2.44) == CHAIR


def test_a_few_looks_outweigh_what_was_guessed_of_a_class_however_often():
    memory, pose = GaussianMemory(MemoryConfig(max_inferred_m=2.0)), pose_at(0, 0, 0)
    for _ in range(100):
        memory.fuse(seen(2.0, ahead(2.44), label=CHAIR), pose)
    assert label_ahead(memory, 2.44) == CHAIR
    for _ in range(5):
        memory.fuse(seen(2.44, ahead(2.44), label=TABLE), pose)
    assert label_ahead(memory, 2.44) == TABLE


def test_what_vanished_leaves_no_class_behind_in_voxels_beside_its_gaussians():
    memory, pose = GaussianMemory(), pose_at(0, 0, 0)
    for _ in range(40):
        memory.fuse(seen(2.0, ahead(2.02), label=CHAIR, scale_m=0.1), pose)
    for _ in range(40):
        memory.fuse(seen(3.0), pose)
    assert label_ahead(memory, 2.1) == FREE
    for _ in range(10):
        memory.fuse(seen(2.1, ahead(2.1), label=TABLE, scale_m=0.1), pose)
    assert label_ahead(memory, 2.1) == TABLE


def test_where_guesses_begin_depends_on_how_well_the_depth_is_known():
    for sigma_m, guessed in ((0.04, 1), (0.3, 0)):
        memory = GaussianMemory(MemoryConfig(max_inferred_m=2.0))
        memory.fuse(seen(2.0, ahead(2.44), sigma_m=sigma_m), pose_at(0, 0, 0))
        # Half a metre behind a depth that may be wrong by as much, it was seen.
        assert (memory.statistics.guessed, memory.statistics.inserted) == (guessed, 1 - guessed)
        memory.fuse(seen(2.0, ahead(2.44), sigma_m=0.04), pose_at(0, 0, 0))
        assert memory.statistics.refused_guesses == 1 - guessed


def test_nothing_is_believed_beyond_the_range_outside_the_image_or_behind_the_camera():
    memory = GaussianMemory(MemoryConfig(max_depth_m=2.2, max_inferred_m=2.0))
    memory.fuse(seen(2.0, ahead(2.3), (5.0, 0, 2.0), (0, 0, -1.0), (0, 0, -1e2)), pose_at(0, 0, 0))
    assert len(memory) == 0 and memory.statistics.refused_guesses == 4


def test_with_guesses_switched_off_holes_stay_empty_too():
    memory = GaussianMemory(MemoryConfig(max_inferred_m=0.0))
    memory.fuse(seen(0.0, ahead(2.04)), pose_at(0, 0, 0))
    memory.fuse(seen(2.0, ahead(2.44), sigma_m=0.3), pose_at(0, 0, 0))
    assert len(memory) == 0


def test_a_voxel_with_a_surface_in_it_was_not_looked_through():
    # A floor a centimetre into its voxels, seen at a flat angle: their centres lie in front of it, too.
    floor = ((-1.0, -3.0, -0.79), (6.0, 3.0, -0.77))
    memory = GaussianMemory()
    fuse_boxes(memory, [floor], pose_at(0.0, 0.0, -0.39), times=8)
    assert label_at(memory, (1.5, 0.0, -0.77)) == GENERIC
    assert memory.statistics.frozen > 10 * memory.statistics.updated


@pytest.mark.parametrize("resolution", [0.08, 0.2])
def test_a_gaussian_too_small_for_any_centre_is_fused_all_the_same(resolution):
    memory = GaussianMemory(MemoryConfig(resolution=resolution))
    memory.fuse(seen(2.0, (-0.001, -0.001, 2.001), scale_m=0.01), pose_at(0, 0, 0))
    assert len(memory) == 1


@pytest.mark.parametrize("seed", range(4))
def test_voxels_are_the_mean_of_what_frames_said_and_of_the_class_that_is_likeliest_by_all_of_them(seed):
    """Against a dense map that follows the definitions."""
    rng = np.random.default_rng(seed)
    memory = GaussianMemory(MemoryConfig(max_frames=1.0, guessed_threshold=0.05, max_inferred_m=2.5))
    low, shape = np.array([-8, -24, -24]), (48, 48, 48)
    blocks = np.argwhere(np.ones([n // BLOCK for n in shape])) + low // BLOCK
    voxels = (blocks[:, None] * BLOCK + BLOCK_OFFSETS).reshape(-1, 3)
    mean, weight, measured = np.zeros(len(voxels)), np.zeros(len(voxels)), np.zeros(len(voxels), bool)
    evidence = np.zeros((len(voxels), 11))
    index = {tuple(v): row for row, v in enumerate(voxels.tolist())}
    for step in range(12):
        points = [(-0.1 + 0.2 * rng.random(), -0.1 + 0.2 * rng.random(), 1.9 + rng.random()) for _ in range(30)]
        depth_m = 2.0 + 0.3 * rng.random()
        frame = seen(depth_m, *points, scale_m=0.02 + 0.1 * rng.random(), label=int(rng.integers(5, 9)))
        pose = pose_at(0, 0.01 * step, 0)
        memory.fuse(frame, pose)

        merged = []
        ours = frame.gaussians.transformed(pose)
        for hidden in (False, True):
            chosen = (frame.gaussians.means[:, 2] > depth_m + 0.12) == hidden
            merged.append(merge_per_voxel(ours.select(chosen), 0.08))
        splatted, scores = splat_blocks(Gaussians.joined(merged[0][0], merged[1][0]), blocks, 0.08)
        splatted = p = splatted.ravel().astype(np.float64)
        classes = class_probabilities(scores).reshape(len(voxels), -1)
        near = pose.inverse().apply(merged[0][0].means)[:, 2] <= depth_m + 0.06
        hits = dict(zip(map(tuple, merged[0][1][near].tolist()), merged[0][0].opacities[near], strict=True))
        # Of this depth, exact to half a voxel, each pixel counts where it ends.
        rows, columns = np.indices((CAMERA.height, CAMERA.width)).reshape(2, -1)
        ends = CAMERA.back_project(np.stack([columns, rows], axis=-1), np.full(len(rows), depth_m))
        ended = Counter(map(tuple, voxels_of(pose.apply(ends), 0.08).tolist()))
        own = np.zeros(len(voxels))
        for voxel in (hits.keys() | ended.keys()) & index.keys():
            own[index[voxel]] = max(hits.get(voxel, 0.0), 1 - 0.5 ** ended[voxel])
        _, _, inside, z = looked_at(pose.inverse().apply((voxels + 0.5) * 0.08))
        inside &= z < depth_m + 2.5
        now = inside & (z <= depth_m + 0.06)
        p = np.where((z < depth_m - 0.12) & (own == 0), 0, np.maximum(p, own))
        now |= inside & (own > 0)
        w = np.exp(-np.maximum(z - depth_m, 0) / 0.5) * (inside & (now | (~measured & (p > 0.02))))
        share = np.maximum(np.divide(w, weight + w, out=np.zeros_like(w), where=w > 0), 0.5 * (now & (w > 0)))
        stood = mean >= 0.5 * np.where(measured, 0.5, 0.05)
        mean += share * (p - mean)
        below = mean < 0.5 * np.where(measured | now, 0.5, 0.05)
        evidence[stood & below] = 0
        vote = np.where(p > 0, w * splatted, 0)[:, None]
        evidence += vote * (np.log(np.maximum(classes, 1e-3)) - evidence / np.where(now, 32, 4)[:, None])
        weight = np.where(w > 0, np.minimum(weight + w, np.where(now, 1.0, 0.25)), weight)
        measured |= now
    threshold = np.where(measured, 0.5, 0.05)
    expected = np.where(mean >= threshold, 0.5 + 0.5 * (mean - threshold) / (1 - threshold), 0.5 * mean / threshold)
    known = memory.snapshot()
    rows = np.array([index[tuple(v)] for v in known.indices.tolist()])
    # Smaller changes than a hundredth are not told; centres on a pixel's border may fall to either side.
    close = np.abs(known.probabilities - expected[rows]) < 0.012
    assert close.mean() > 0.999
    occupied = known.labels != FREE
    clear = np.abs(mean[rows] - threshold[rows]) > 0.005
    assert ((mean[rows] >= threshold[rows]) == occupied)[clear].mean() > 0.999
    assert occupied.sum() > 50 and (~occupied).sum() > 1000
    # A single pixel makes exactly one half.
    assert (mean >= threshold - 1e-6).sum() == pytest.approx(occupied.sum(), rel=0.02)
    first, second = np.sort(evidence[rows], axis=1)[:, [-1, -2]].T
    sure = occupied & (first - second > 0.1)
    assert sure.sum() > 20 and (known.labels == most_likely_class(evidence[rows]))[sure].mean() > 0.97


# -- what does not stay, and what does: a camera at 10 Hz --------------------------------------------------------------

RATE_HZ = 10


@lru_cache(maxsize=2)
def exact_depth(*boxes) -> np.ndarray:
    """What a camera at the origin would measure of boxes without fault."""
    return depth_of_boxes(boxes, CAMERA, pose_at(0, 0, 0))


def sensed(boxes, rng) -> Prediction:
    """A frame of boxes from the origin, with the faults of a depth sensor."""
    return prediction_of(sensor_depth(exact_depth(*boxes), rng, CAMERA))


def occupied_in(memory: GaussianMemory, low, high) -> np.ndarray:
    """(M, 3) centres of the occupied voxels with their centre in a box, metres."""
    known = memory.snapshot()
    centres = (known.indices[(known.labels != FREE) & (known.labels != UNKNOWN)] + 0.5) * memory.config.resolution
    return centres[((centres > low) & (centres < high)).all(axis=1)]


@pytest.mark.parametrize("distance_m", [0.8, 1.5, 2.5, 3.3])
def test_the_voxels_of_a_removed_object_are_free_within_a_second(distance_m):
    rng = np.random.default_rng(0)
    memory = GaussianMemory()
    box = ((distance_m, -0.2, -0.3), (distance_m + 0.3, 0.2, 0.3))
    wall = ((3.8, -9, -9), (5, 9, 9))
    pose = pose_at(0, 0, 0)
    for _ in range(60):  # it stood there for long
        memory.fuse(sensed([wall, box], rng), pose)
    around = (distance_m - 0.2, -0.3, -0.4), (distance_m + 0.3, 0.3, 0.4)
    assert len(occupied_in(memory, *around)) > 20
    for _ in range(RATE_HZ):
        memory.fuse(sensed([wall], rng), pose)
    assert not len(occupied_in(memory, *around))
    assert label_at(memory, (distance_m + 0.04, 0, 0)) == FREE


def test_a_walking_figure_leaves_no_voxel_two_seconds_after_it_was_seen_through():
    rng = np.random.default_rng(1)
    memory = GaussianMemory()
    wall, pose = ((3.8, -9, -9), (5, 9, 9)), pose_at(0, 0, 0)
    for _ in range(10):
        memory.fuse(sensed([wall], rng), pose)
    seen_there = 0
    for step in range(30):  # 1 m/s, then it stands for a second, and walks on
        y = -1.5 + 0.1 * min(step, 15) + 0.1 * max(0, step - 25)
        figure = ((2.0, y - 0.2, -0.7), (2.4, y + 0.2, 0.7))
        memory.fuse(sensed([wall, figure], rng), pose)
        seen_there = max(seen_there, len(occupied_in(memory, (1.7, -3, -2), (2.5, 3, 2))))
    assert seen_there > 50, "it never was on the map"
    for _ in range(2 * RATE_HZ):
        memory.fuse(sensed([wall], rng), pose)
    assert not len(occupied_in(memory, (1.5, -3, -2), (3.4, 3, 2)))
    assert label_at(memory, (3.84, 0, 0)) == GENERIC


def test_a_wall_that_something_stood_before_for_a_minute_is_still_there():
    rng = np.random.default_rng(2)
    memory = GaussianMemory()
    wall, pose = ((3.0, -9, -9), (4, 9, 9)), pose_at(0, 0, 0)
    for _ in range(5):
        memory.fuse(sensed([wall], rng), pose)
    behind = (2.9, -0.5, -0.5), (3.2, 0.5, 0.5)
    before = len(occupied_in(memory, *behind))
    assert before > 100
    box = ((1.2, -0.8, -0.8), (1.5, 0.8, 0.8))
    for _ in range(60 * RATE_HZ):
        memory.fuse(sensed([wall, box], rng), pose)
    assert len(occupied_in(memory, *behind)) >= 0.98 * before


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_what_lies_beyond_the_radius_is_forgotten_and_readers_forget_it_too():
    memory, reader = GaussianMemory(MemoryConfig(radius_m=6.0)), VoxelMap()
    whole = GaussianMemory()
    blocks = []
    for step in range(60):
        pose = pose_at(0, 0.5 * step, 0)
        frame = prediction_of(depth_of_boxes([((2.0, -99, -9), (3, 99, 9))], CAMERA, pose))
        reader.apply(memory.fuse(frame, pose))
        whole.fuse(frame, pose)
        blocks.append(len(memory._voxels.used()))
    ours, theirs = memory.snapshot(), reader.known()
    for a, b in zip(vars(ours).values(), vars(theirs).values(), strict=True):
        order, other = (np.lexsort(update.indices.T) for update in (ours, theirs))
        np.testing.assert_array_equal(a[order], b[other])
    centres = (ours.indices + 0.5) * 0.08
    assert np.linalg.norm(centres - [0, 0.5 * 59, 0], axis=1).max() < 6.0 + 0.64 * 2
    # Flat, in blocks and in what they take, where the whole map grows.
    assert max(blocks[30:]) <= 1.1 * max(blocks[15:30]) < 0.6 * len(whole._voxels.used())
    assert len(memory._voxels.layer("label")) // 512 <= max(blocks) + 60
    # What is near is as if nothing had been forgotten.
    near = {tuple(v): label for v, label in zip(ours.indices.tolist(), ours.labels, strict=True)}
    all_of = whole.snapshot()
    close = np.linalg.norm((all_of.indices + 0.5) * 0.08 - [0, 0.5 * 59, 0], axis=1) < 4.0
    for voxel, label in zip(all_of.indices[close].tolist(), all_of.labels[close], strict=True):
        assert near[tuple(voxel)] == label


def test_movable_things_fade_when_nobody_looks_and_walls_never():
    memory = GaussianMemory(MemoryConfig(decay_frames=30))
    reader = VoxelMap()
    frame = seen(2.04, ahead(2.04))
    both = Gaussians.joined(frame.gaussians, gaussians_at((1.0, -0.04, 2.04), label=3))
    for _ in range(3):
        reader.apply(memory.fuse(replace(frame, gaussians=both), pose_at(0, 0, 0)))
    assert label_ahead(memory, 2.04) == CHAIR
    wall = np.floor(np.array([2.04, -1.0, 0.04]) / 0.08).astype(int)
    away = pose_at(0, 30, 0)
    for _ in range(24):
        reader.apply(memory.fuse(seen(2.04), away))
    assert label_ahead(memory, 2.04) == CHAIR, "not yet"
    for _ in range(12):
        reader.apply(memory.fuse(seen(2.04), away))
    assert label_ahead(memory, 2.04) == UNKNOWN
    known = reader.known()
    labels = {tuple(v): label for v, label in zip(known.indices.tolist(), known.labels, strict=True)}
    assert labels[tuple(wall)] == 3 and CHAIR not in set(labels.values())
    assert len(memory) == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"radius_m": 3.0}, "radius_m 3.0 must be greater than max_depth_m"), ({"decay_frames": -1}, "decay_frames")],
)
def test_bounds_without_sense_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        MemoryConfig(**setting)
