"""The Warp kernel against the numpy reference, and both against formulas worked out by hand."""

import numpy as np
import pytest
from scenes import random_gaussians

from sgrocc.gaussians import Gaussians
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.splatting import AGGREGATIONS, class_probabilities, splat_blocks, splat_grid
from sgrocc.splatting.reference import accumulate_reference

RESOLUTION = 0.08


def one_gaussian(mean, scales=(0.05, 0.05, 0.05), rotation=(1, 0, 0, 0), opacity=0.9, logits=None) -> Gaussians:
    logits = np.zeros(11) if logits is None else logits
    return Gaussians(
        *(np.array([v], np.float32) for v in (mean, scales, rotation)),
        np.array([opacity], np.float32),
        np.array([logits], np.float32),
        np.zeros((1, 0), np.float32),
    )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_kernel_and_reference_agree(aggregation, seed):
    rng = np.random.default_rng(seed)
    gaussians = random_gaussians(rng, 150, 0.9)
    blocks = np.array([[0, 0, 0], [-1, 0, 0], [1, -1, 0], [-1, -1, -1], [3, 3, 3]])
    kernel = splat_blocks(gaussians, blocks, RESOLUTION, aggregation=aggregation)
    reference = splat_blocks(gaussians, blocks, RESOLUTION, aggregation=aggregation, backend=accumulate_reference)
    np.testing.assert_allclose(kernel[0], reference[0], atol=2e-5)
    ours, theirs = (class_probabilities(scores, aggregation) for _, scores in (kernel, reference))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_occupancy_is_one_minus_the_product():
    a, b = one_gaussian((0.04, 0.04, 0.04), opacity=0.5), one_gaussian((0.12, 0.04, 0.04), opacity=0.8)
    both = Gaussians(*(np.concatenate(pair) for pair in zip(a.arrays().values(), b.arrays().values(), strict=True)))
    occupancy, _ = splat_blocks(both, np.zeros((1, 3), int), RESOLUTION)
    phi = np.exp(-0.5 * (0.08 / 0.05) ** 2)
    assert occupancy[0, 0, 0, 0] == pytest.approx(1 - (1 - 0.5) * (1 - 0.8 * phi), abs=1e-5)
    assert occupancy[0, 1, 0, 0] == pytest.approx(1 - (1 - 0.5 * phi) * (1 - 0.8), abs=1e-5)


def test_an_elongated_gaussian_lies_along_its_rotated_axis():
    # 90 degrees about z turns the long local x axis into the world's y axis: Sigma = R S^2 R^T.
    quarter = np.sqrt(0.5)
    gaussian = one_gaussian((0.36, 0.36, 0.36), (0.12, 0.03, 0.03), (quarter, 0, 0, quarter))
    occupancy, _ = splat_blocks(gaussian, np.zeros((1, 3), int), RESOLUTION)
    along_x, along_y = occupancy[0, 6, 4, 4], occupancy[0, 4, 6, 4]
    assert along_y == pytest.approx(0.9 * np.exp(-0.5 * (0.16 / 0.12) ** 2), abs=1e-4)
    assert along_x == 0


def test_a_moved_map_is_the_map_of_moved_gaussians():
    rng = np.random.default_rng(5)
    gaussians = random_gaussians(rng, 50, 0.3)
    # Four quarter turns about z map the voxel grid to itself.
    turn = Pose.from_quaternion([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], np.zeros(3))
    grid = VoxelGrid([-0.64] * 3, (16, 16, 16), RESOLUTION)
    occupancy, scores = splat_grid(gaussians, grid)
    turned, turned_scores = splat_grid(gaussians.transformed(turn), grid)
    # x' = -y, y' = x
    np.testing.assert_allclose(turned, np.rot90(occupancy, 1, axes=(0, 1)), atol=1e-4)
    np.testing.assert_allclose(turned_scores, np.rot90(scores, 1, axes=(0, 1)), rtol=1e-2, atol=10)


def test_the_class_is_that_of_the_nearer_gaussian():
    table, wall = np.eye(11)[7] * 4, np.eye(11)[2] * 4
    a, b = one_gaussian((0.04, 0.04, 0.04), logits=table), one_gaussian((0.28, 0.04, 0.04), logits=wall)
    both = Gaussians(*(np.concatenate(pair) for pair in zip(a.arrays().values(), b.arrays().values(), strict=True)))
    _, scores = splat_blocks(both, np.zeros((1, 3), int), RESOLUTION)
    classes = class_probabilities(scores)
    assert classes[0, 0, 0, 0].argmax() == 7 and classes[0, 3, 0, 0].argmax() == 2
    np.testing.assert_allclose(classes.sum(axis=-1), 1, atol=1e-5)


def test_additive_sums_opacity_times_logit_and_competes_with_empty():
    logits = np.zeros(11)
    logits[4] = 3.0
    gaussian = one_gaussian((0.04, 0.04, 0.04), opacity=0.5, logits=logits)
    occupancy, classes = splat_blocks(gaussian, np.zeros((1, 3), int), RESOLUTION, aggregation="additive")
    # chair: 0.5 * 1 * 3.0 = 1.5 against an empty logit of 1
    assert occupancy[0, 0, 0, 0] == pytest.approx(1 / (1 + np.exp(1 - 1.5)), abs=1e-5)
    assert classes[0, 0, 0, 0].argmax() == 4
    assert occupancy[0, 7, 7, 7] < 0.5


def test_only_the_blocks_asked_for_and_the_same_values_whatever_else_is_asked():
    gaussians = random_gaussians(np.random.default_rng(1), 100, 0.9)
    blocks = np.array([[x, y, 0] for x in (-1, 0, 1) for y in (-1, 0)])
    all_blocks, _ = splat_blocks(gaussians, blocks, RESOLUTION)
    alone, _ = splat_blocks(gaussians, blocks[2:3], RESOLUTION)
    assert alone.shape == (1, 8, 8, 8)
    assert (alone[0] == all_blocks[2]).all()


def test_two_runs_are_equal_to_the_bit():
    gaussians = random_gaussians(np.random.default_rng(2), 500, 0.9)
    grid = VoxelGrid([-0.9] * 3, (22, 22, 22), RESOLUTION)
    first, second = splat_grid(gaussians, grid), splat_grid(gaussians, grid)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_grid_may_begin_anywhere_and_have_any_shape():
    grid = VoxelGrid([1.03, -2.01, 0.5], (9, 3, 17), RESOLUTION)
    target = np.array([8, 1, 12])
    occupancy, _ = splat_grid(one_gaussian(grid.centre_of(target)), grid)
    assert occupancy.shape == grid.shape
    assert np.unravel_index(occupancy.argmax(), grid.shape) == tuple(target)
    assert occupancy.max() == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_no_gaussians_are_no_occupancy(aggregation):
    occupancy, scores = splat_blocks(Gaussians.empty(), np.zeros((1, 3), int), RESOLUTION, aggregation=aggregation)
    assert (occupancy < 0.5).all()
    np.testing.assert_allclose(class_probabilities(scores, aggregation), 1 / 11, atol=1e-6)


def test_an_unknown_aggregation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="decoupled, additive"):
        splat_blocks(Gaussians.empty(), np.zeros((1, 3), int), RESOLUTION, aggregation="mean")
