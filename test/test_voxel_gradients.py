"""Gaussians to voxels in torch: the values of the running system, and gradients that are those of the plain sums."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scenes import random_gaussians  # noqa: E402

from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.geometry import Pose, VoxelGrid  # noqa: E402
from sgrocc.labels import CHAIR, FLOOR, FREE, NUM_CLASSES, UNKNOWN  # noqa: E402
from sgrocc.model import voxels  # noqa: E402
from sgrocc.model.voxels import GaussianTensors, accumulate, accumulate_dense, known_voxels, tiles_of  # noqa: E402
from sgrocc.splatting import AGGREGATIONS, BLOCK, class_probabilities, prepare, splat_grid  # noqa: E402
from sgrocc.splatting.reference import accumulate_reference  # noqa: E402

RESOLUTION = 0.08
NAMES = ("means", "precisions", "opacities", "semantics")
BLOCKS = np.array([[0, 0, 0], [-1, 0, 0], [1, -1, 0], [3, 3, 3]], np.int32)


def tensors_of(gaussians: Gaussians, dtype=torch.float32) -> GaussianTensors:
    return GaussianTensors(*(torch.from_numpy(array).to(dtype) for array in gaussians.arrays().values()))


def turned_pose(seed: int) -> Pose:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=4)
    return Pose.from_quaternion(q / np.linalg.norm(q), rng.uniform(0.4, 0.9, 3))


def torch_pose(pose: Pose, dtype=torch.float32):
    return torch.from_numpy(pose.rotation).to(dtype), torch.from_numpy(pose.translation).to(dtype)


def prepared_sums(seed: int, count: int, aggregation: str) -> list[torch.Tensor]:
    """The arguments of `accumulate` before the blocks, of random Gaussians, with leaves that want gradients."""
    gaussians = tensors_of(random_gaussians(np.random.default_rng(seed), count, 0.9))
    prepared = voxels.prepare(gaussians, torch.eye(3), torch.zeros(3), RESOLUTION, aggregation)
    return [t.detach().clone().requires_grad_(t.is_floating_point()) for t in prepared]


def in_double(prepared: list[torch.Tensor]) -> list[torch.Tensor]:
    return [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in prepared]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_sums_are_those_of_the_running_system(aggregation):
    gaussians = random_gaussians(np.random.default_rng(1), 150, 0.9)
    theirs = prepare(gaussians, RESOLUTION, np.zeros(3), aggregation)
    ours = voxels.prepare(tensors_of(gaussians), torch.eye(3), torch.zeros(3), RESOLUTION, aggregation)
    for name, mine in zip(("means", "precisions", "opacities", "semantics", "first", "last"), ours, strict=True):
        np.testing.assert_allclose(mine.numpy(), getattr(theirs, name), rtol=2e-4, atol=1e-3, err_msg=name)
    expected = accumulate_reference(theirs, BLOCKS, RESOLUTION)
    for sums in (accumulate(*ours, BLOCKS, RESOLUTION), accumulate_dense(*in_double(ours), BLOCKS, RESOLUTION)):
        np.testing.assert_allclose(sums[0].detach(), expected[0], atol=1e-3)
        np.testing.assert_allclose(sums[1].detach(), expected[1], rtol=2e-3, atol=1e-3 * np.abs(expected[1]).max())
        assert (sums[0][3] == 0).all() and (sums[1][3] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_pose_moves_gaussians_as_the_running_system_does(seed):
    gaussians = random_gaussians(np.random.default_rng(seed), 60, 0.9)
    pose = turned_pose(seed)
    theirs = prepare(gaussians.transformed(pose), RESOLUTION, np.zeros(3), "decoupled")
    ours = voxels.prepare(tensors_of(gaussians), *torch_pose(pose), RESOLUTION, "decoupled")
    for name, mine in zip(NAMES, ours):
        np.testing.assert_allclose(mine.numpy(), getattr(theirs, name), rtol=1e-3, atol=0.05, err_msg=name)
    assert np.mean(ours[4].numpy() == theirs.first) > 0.98 and np.mean(ours[5].numpy() == theirs.last) > 0.98


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_adjoint_gives_the_gradients_of_the_plain_sums(aggregation, seed):
    prepared = prepared_sums(seed, 60, aggregation)
    double = in_double(prepared)
    ours, plain = accumulate(*prepared, BLOCKS, RESOLUTION), accumulate_dense(*double, BLOCKS, RESOLUTION)
    above = [torch.randn(sums.shape, generator=torch.Generator().manual_seed(seed)) for sums in ours]
    torch.autograd.backward(ours, above)
    torch.autograd.backward(plain, [gradient.double() for gradient in above])
    for name, mine, theirs in zip(NAMES, prepared, double):
        largest = theirs.grad.abs().max().item()
        assert largest > 0, name
        np.testing.assert_allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4 * largest, err_msg=name)


def test_a_gaussian_of_full_opacity_has_finite_gradients_at_its_centre():
    prepared = [
        torch.full((1, 3), 0.04).requires_grad_(),
        torch.tensor([[400.0, 400.0, 400.0, 0.0, 0.0, 0.0]]).requires_grad_(),
        torch.ones(1).requires_grad_(),
        torch.ones(1, NUM_CLASSES).requires_grad_(),
        torch.zeros(1, 3, dtype=torch.int32),
        torch.full((1, 3), 3, dtype=torch.int32),
    ]
    log_free, _ = accumulate(*prepared, BLOCKS[:1], RESOLUTION)
    assert log_free[0, 0].item() == pytest.approx(np.log(1e-6), rel=0.05)
    log_free.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in prepared[:3])


def test_without_gaussians_or_blocks_there_is_nothing_to_differentiate():
    prepared = [t[:0].detach().requires_grad_(t.is_floating_point()) for t in prepared_sums(0, 3, "decoupled")]
    log_free, sums = accumulate(*prepared, BLOCKS, RESOLUTION)
    assert (log_free == 0).all() and (sums == 0).all()
    (log_free.sum() + sums.sum()).backward()
    assert prepared[0].grad.shape == (0, 3)
    prepared = prepared_sums(0, 3, "decoupled")
    log_free, sums = accumulate(*prepared, BLOCKS[:0], RESOLUTION)
    (log_free.sum() + sums.sum()).backward()
    assert log_free.shape == (0, BLOCK**3) and all((t.grad == 0).all() for t in prepared[:4])


def wide_gaussians() -> list[torch.Tensor]:
    """Three Gaussians that reach all of the block 0: no voxel comes or goes with a small step of theirs."""
    generator = torch.Generator().manual_seed(3)
    gaussians = GaussianTensors(
        0.2 + 0.24 * torch.rand(3, 3, generator=generator),
        0.3 + 0.2 * torch.rand(3, 3, generator=generator),
        torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=-1),
        torch.tensor([0.3, 0.6, 0.8]),
        torch.randn(3, NUM_CLASSES, generator=generator),
        torch.zeros(3, 0),
    )
    return list(voxels.prepare(gaussians, torch.eye(3), torch.zeros(3), RESOLUTION, "decoupled"))


def weighted(function, dtype):
    """Two numbers made of all of a function's sums, so that the gradients are of the size of one."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(1, BLOCK**3, generator=generator).to(dtype)
    class_weights = torch.randn(1, BLOCK**3, NUM_CLASSES, generator=generator).to(dtype)

    def of(*inputs):
        log_free, sums = function(*inputs, first, last, BLOCKS[:1], RESOLUTION)
        return (log_free * weights).sum() / 10, (sums * class_weights).sum() / 100

    *_, first, last = wide_gaussians()
    return of


def test_the_plain_sums_have_the_gradients_of_differences():
    inputs = [t.double().requires_grad_() for t in wide_gaussians()[:4]]
    assert torch.autograd.gradcheck(weighted(accumulate_dense, torch.float64), inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_the_kernel_has_the_gradients_of_differences():
    inputs = [t.detach().requires_grad_() for t in wide_gaussians()[:4]]
    function = weighted(accumulate, torch.float32)
    # Single precision: steps large enough to be seen, and the double precision of the plain sums above as a witness.
    with pytest.warns(UserWarning, match="double precision"):
        assert torch.autograd.gradcheck(function, inputs, eps=5e-3, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradients_flow_from_voxels_to_all_that_a_network_makes(aggregation):
    gaussians = GaussianTensors(
        *(t.requires_grad_() for t in tensors_of(random_gaussians(np.random.default_rng(2), 200, 0.5)))
    )
    labels = torch.full((16, 16, 16), FLOOR, dtype=torch.uint8)
    empty = torch.tensor(1.0, requires_grad=True)
    rotation, translation = torch_pose(turned_pose(2))
    p, truth = known_voxels(gaussians, rotation, translation, labels, RESOLUTION, aggregation, empty)
    (-torch.log(p.gather(1, truth[:, None]).clamp_min(1e-6))).mean().backward()
    for name in ("means", "scales", "rotations", "opacities", "logits"):
        gradient = getattr(gaussians, name).grad
        assert torch.isfinite(gradient).all() and (gradient != 0).any(), name
    assert (empty.grad is None) == (aggregation == "decoupled")


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("shape", [(16, 24, 8), (19, 13, 21)])
def test_known_voxels_have_the_probabilities_of_the_running_system(aggregation, shape):
    rng = np.random.default_rng(4)
    gaussians, pose = random_gaussians(rng, 250, 0.9), turned_pose(4)
    labels = rng.choice([FREE, FLOOR, CHAIR, UNKNOWN, UNKNOWN], shape).astype(np.uint8)
    labels[:8, :8] = UNKNOWN
    p, truth = known_voxels(
        tensors_of(gaussians), *torch_pose(pose), torch.from_numpy(labels), RESOLUTION, aggregation, 0.7
    )
    grid = VoxelGrid(np.zeros(3), shape, RESOLUTION)
    occupancy, scores = splat_grid(gaussians.transformed(pose), grid, aggregation=aggregation, empty_logit=0.7)
    _, order = tiles_of(torch.from_numpy(labels), torch.arange(labels.size).view(shape))
    _, tiles = tiles_of(torch.from_numpy(labels), torch.from_numpy(labels))
    where = order[tiles != UNKNOWN].numpy()
    assert p.shape == (np.count_nonzero(labels != UNKNOWN), 1 + NUM_CLASSES) and len(np.unique(where)) == len(where)
    assert (truth.numpy() == labels.reshape(-1)[where]).all()
    torch.testing.assert_close(p.sum(dim=1)[p[:, 0] < 0.999], torch.ones(int((p[:, 0] < 0.999).sum())))
    occupancy, scores = occupancy.reshape(-1)[where], scores.reshape(-1, NUM_CLASSES)[where]
    reached = np.abs(scores).sum(axis=1) > 0
    assert 100 < reached.sum() < len(where)
    p = p.numpy()
    if aggregation == "additive":
        best = p[:, 1:].max(axis=1)
        np.testing.assert_allclose(best / (best + p[:, 0]), occupancy, atol=1e-3)
        classes = p[:, 1:] / p[:, 1:].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(classes, class_probabilities(scores, aggregation), atol=1e-3)
    else:
        np.testing.assert_allclose(1 - p[:, 0], occupancy, atol=1e-3)
        classes = occupancy[:, None] * class_probabilities(scores)
        np.testing.assert_allclose(p[reached, 1:], classes[reached], atol=2e-3)
        assert (p[~reached] == np.eye(12)[0]).all()


def test_tiles_are_the_blocks_in_which_something_is_known():
    labels = torch.full((20, 9, 8), UNKNOWN, dtype=torch.uint8)
    labels[0, 0, 3], labels[19, 8, 7], labels[7, 7, 7] = FLOOR, CHAIR, FREE
    blocks, tiles = tiles_of(labels, labels)
    assert blocks.tolist() == [[0, 0, 0], [2, 1, 0]] and blocks.dtype == np.int32
    tiles = tiles.view(2, BLOCK, BLOCK, BLOCK)
    assert tiles[0, 0, 0, 3] == FLOOR and tiles[0, 7, 7, 7] == FREE and tiles[1, 3, 0, 7] == CHAIR
    assert (tiles != UNKNOWN).sum() == 3
    # Other values come in the same order; beyond the grid's end bools are true.
    _, flags = tiles_of(labels, labels == CHAIR)
    assert flags.view(2, BLOCK, BLOCK, BLOCK)[1, :4, :1].nonzero().tolist() == [[3, 0, 7]]
    assert flags.view(2, BLOCK, BLOCK, BLOCK)[1, 4:].all()


def test_where_nothing_is_known_there_are_no_voxels():
    labels = torch.full((8, 8, 8), UNKNOWN, dtype=torch.uint8)
    gaussians = tensors_of(random_gaussians(np.random.default_rng(0), 5, 0.3))
    p, truth = known_voxels(gaussians, torch.eye(3), torch.zeros(3), labels, RESOLUTION)
    assert p.shape == (0, 12) and truth.shape == (0,)
