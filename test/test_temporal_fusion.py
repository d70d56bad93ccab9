"""The learned fusion: at the start it changes nothing, whatever is remembered; it is told what is remembered."""

from dataclasses import replace

import numpy as np
import pytest
from scenes import CAMERA, depth_of_boxes, pose_at, prediction_of, random_gaussians

torch = pytest.importorskip("torch")

from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.memory.gaussian_memory import GaussianMemory  # noqa: E402
from sgrocc.memory.recall import RAY_STEPS, history_size  # noqa: E402
from sgrocc.model.refinement import RefinementConfig  # noqa: E402
from sgrocc.model.temporal_fusion import IdentityFusion, TemporalFusion  # noqa: E402
from sgrocc.model.voxels import GaussianTensors  # noqa: E402

FEATURES = 16
ROOM = [((2.0, -2, -1), (2.2, 2, 1)), ((-1, -2, -0.8), (3, 2, -0.7)), ((1.2, -0.3, -0.7), (1.5, 0.2, 0.0))]
INTRINSICS = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]])


def tensors(gaussians: Gaussians) -> GaussianTensors:
    return GaussianTensors(*(torch.from_numpy(array)[None] for array in gaussians.arrays().values()))


def in_view(rng, count: int) -> Gaussians:
    gaussians = random_gaussians(rng, count, 1.0, FEATURES)
    return replace(gaussians, means=gaussians.means * [0.8, 0.6, 1.0] + [0, 0, 2.0])


def fuse_with(module: TemporalFusion):
    """The module as a memory calls it."""

    def fusion(gaussians, history, depth, camera):
        with torch.no_grad():
            found = module(
                tensors(gaussians),
                torch.from_numpy(history)[None],
                torch.from_numpy(depth)[None, None],
                torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32),
            )
        return Gaussians(*(tensor[0].numpy() for tensor in found))

    return fusion


def walk(memory: GaussianMemory, rng) -> list:
    """Six frames along a room, with random classes and features."""
    updates = []
    for step in range(6):
        pose = pose_at(0.1 * step, 0.05 * step, 0.0)
        prediction = prediction_of(depth_of_boxes(ROOM, CAMERA, pose))
        count = len(prediction.gaussians)
        gaussians = replace(
            prediction.gaussians,
            logits=rng.normal(size=(count, 11)),
            features=rng.normal(size=(count, FEATURES)),
        )
        updates.append(memory.fuse(replace(prediction, gaussians=gaussians, semantic=True), pose))
    return updates


@pytest.mark.parametrize("seed", range(5))
def test_at_the_start_the_fused_feature_is_the_current_one_bit_for_bit(seed):
    torch.manual_seed(seed)
    fusion = IdentityFusion(FEATURES, history_size(FEATURES))
    current = torch.randn(200, FEATURES) * 10 ** torch.randn(200, 1)
    history = torch.randn(200, history_size(FEATURES)) * 10 ** torch.randn(200, 1)
    assert torch.equal(fusion(current, history), current)
    random = IdentityFusion(FEATURES, history_size(FEATURES), identity=False)
    assert not torch.allclose(random(current, history), current, atol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_at_the_start_gaussians_come_out_as_they_went_in(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    given = tensors(in_view(rng, 300))
    depth = torch.from_numpy(depth_of_boxes(ROOM, CAMERA, pose_at(0, 0, 0)))[None, None]
    history = torch.randn(1, 300, history_size(FEATURES))
    found = TemporalFusion(FEATURES)(given, history, depth, INTRINSICS)
    assert torch.equal(found.features, given.features) and torch.equal(found.means, given.means)
    for name, tensor in found._asdict().items():
        torch.testing.assert_close(tensor, getattr(given, name), rtol=1e-5, atol=1e-5)


def test_the_past_is_learned_from_although_its_weight_begins_at_zero():
    """With a zero head the head learns first, and then W_h: neither is stuck."""
    torch.manual_seed(0)
    module = TemporalFusion(FEATURES)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    given = tensors(in_view(np.random.default_rng(0), 50))
    history = torch.randn(1, 50, history_size(FEATURES))
    depth = torch.full((1, 1, CAMERA.height, CAMERA.width), 2.0)
    largest = []
    for _ in range(3):
        optimiser.zero_grad()
        found = module(given, history, depth, INTRINSICS)
        ((found.logits - torch.sin(history[..., :11])) ** 2).mean().backward()
        optimiser.step()
        largest.append(module.fusion.history.weight.abs().max().item())
    assert largest[0] == 0 and largest[1] > 0 and largest[2] > largest[1]


@pytest.mark.parametrize("seed", range(3))
def test_moves_stay_on_the_ray_and_within_the_bound_and_holes_hold_nothing(seed):
    torch.manual_seed(seed)
    module = TemporalFusion(FEATURES)
    torch.nn.init.normal_(module.refinement.head.weight, std=3.0)
    given = tensors(in_view(np.random.default_rng(seed), 300))
    depth = torch.from_numpy(depth_of_boxes(ROOM, CAMERA, pose_at(0, 0, 0)))[None, None]
    depth[:, :, :40] = 0
    found = module(given, torch.randn(1, 300, history_size(FEATURES)), depth, INTRINSICS)
    assert all(torch.isfinite(tensor).all() for tensor in found)
    moved = found.means - given.means
    along = torch.nn.functional.normalize(given.means, dim=-1)
    assert torch.cross(moved, along, dim=-1).abs().max() < 1e-4
    lengths = moved.norm(dim=-1)
    assert 0.05 < lengths.max() <= module.refinement.config.bound_m + 1e-5


def test_a_measured_surface_stays_where_it_was_measured_when_it_is_fixed():
    """Gaussians on a plane 2 m away, one far behind it, and one in a hole of the depth: only the last two may move."""
    torch.manual_seed(0)
    module = TemporalFusion(FEATURES, RefinementConfig(regularisation="fixed"))
    torch.nn.init.normal_(module.refinement.head.weight, std=3.0)
    given = tensors(in_view(np.random.default_rng(0), 90))
    z = given.means[0, :, 2:]
    # Right of the middle there is no depth.
    hole = (given.means[0, :, 0] > 0.05)[:, None]
    onto = torch.where(torch.arange(90)[:, None] < 60, 2.0 / z, 3.0 / z)
    given = given._replace(means=(given.means[0] * onto)[None])
    depth = torch.full((1, 1, CAMERA.height, CAMERA.width), 2.0)
    depth[..., CAMERA.width // 2 :] = 0
    found = module(given, torch.randn(1, 90, history_size(FEATURES)), depth, INTRINSICS)
    moved = (found.means - given.means).norm(dim=-1)[0]
    left = given.means[0, :, 0] < -0.05
    surface = torch.arange(90) < 60
    assert (surface & left).sum() > 5 and moved[surface & left].max() == 0
    assert moved[~surface & left].max() > 0.05 and moved[surface & hole[:, 0]].max() > 0.05


def test_a_memory_with_an_untrained_fusion_is_a_memory_without():
    torch.manual_seed(0)
    plain, learned = GaussianMemory(), GaussianMemory(fusion=fuse_with(TemporalFusion(FEATURES)))
    for one, other in zip(walk(plain, np.random.default_rng(1)), walk(learned, np.random.default_rng(1)), strict=True):
        assert len(one) > 100
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    np.testing.assert_allclose(plain.gaussians().features, learned.gaussians().features, atol=1e-6)


def test_what_the_fusion_says_is_what_is_remembered():
    def all_chairs(gaussians, history, depth, camera):
        logits = np.zeros_like(gaussians.logits)
        logits[:, 4] = 5.0
        return replace(gaussians, logits=logits, features=gaussians.features + 1)

    memory = GaussianMemory(fusion=all_chairs)
    update = walk(memory, np.random.default_rng(0))[-1]
    assert set(update.labels[(update.labels != 255) & (update.labels != 0)]) == {5}


def test_gaussians_that_a_fusion_breaks_are_counted_and_left_out():
    def broken(gaussians, history, depth, camera):
        means = gaussians.means.copy()
        means[::2] = np.nan
        return replace(gaussians, means=means)

    memory = GaussianMemory(fusion=broken)
    walk(memory, np.random.default_rng(0))
    count = memory.statistics.unusable
    assert count > 100 and len(memory) > 100 and memory.gaussians().finite().all()


def test_what_is_recalled_is_what_lives_in_the_voxel():
    """Against a search of all remembered Gaussians."""
    rng = np.random.default_rng(2)
    memory = GaussianMemory()
    eye = np.array([0.0, 0.0, 1.0])
    assert not memory.recall(np.zeros((3, 3)), eye).vector(np.zeros(3, bool), np.zeros(3)).any()
    walk(memory, rng)
    remembered = memory.gaussians()
    resolution = memory.config.resolution
    places = np.concatenate([remembered.means[:200] + rng.normal(0, 0.06, (200, 3)), rng.uniform(-9, 9, (50, 3))])
    found = memory.recall(places, eye)
    homes = np.floor(remembered.means.astype(np.float64) / resolution).astype(int)
    snapshot = memory.snapshot()
    free = {tuple(voxel) for voxel in snapshot.indices[snapshot.labels == 0]}
    for i, place in enumerate(places):
        voxel = np.floor(place / resolution).astype(int)
        (home,) = (homes == voxel).all(axis=1).nonzero()
        assert found.lives[i] == (len(home) == 1)
        if len(home):
            np.testing.assert_array_equal(found.features[i], remembered.features[home[0]])
            exponentials = np.exp(remembered.logits[home[0]].astype(np.float64))
            np.testing.assert_allclose(found.probabilities[i], exponentials / exponentials.sum(), rtol=1e-4)
            assert found.opacities[i] == remembered.opacities[home[0]] and found.occupancies[i, 0] > 0
        else:
            assert not found.features[i].any() and not found.probabilities[i].any() and not found.opacities[i]
        if tuple(voxel) in free:
            assert found.seen_through[i]
    assert found.lives.sum() > 50 and (~found.lives).sum() > 50
    # Before and behind a place, the map says what it says when it is asked there.
    rays = (places - eye) / np.linalg.norm(places - eye, axis=1, keepdims=True)
    for column, step in enumerate(RAY_STEPS, start=1):
        there = memory.recall(places + step * resolution * rays, eye)
        np.testing.assert_array_equal(found.occupancies[:, column], there.occupancies[:, 0])
        np.testing.assert_array_equal(found.weights[:, column], there.weights[:, 0])
    assert (found.occupancies[:, 0] > 0.5).sum() > 50 and found.weights.max() <= 1
    vector = found.vector(np.arange(250) < 7, np.linspace(-2, 2, 250))
    own = FEATURES + 11
    assert vector[:, own + 4].sum() == 7 and (np.diff(vector[:, own + 5]) >= 0).all()
    assert vector.shape == (250, history_size(FEATURES)) and np.isfinite(vector).all()
    assert np.abs(vector[:, FEATURES:]).max() <= 1
