"""Training samples: whatever is done to an image, its depth still ends in the voxels it ended in before."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from scenes import LOOKING_ALONG_X, depth_of_boxes, write_small_set  # noqa: E402

from sgrocc.datasets.layout import LOCAL_SHAPE, VOXEL_M, write_split  # noqa: E402
from sgrocc.datasets.occscannet import OccScanNet  # noqa: E402
from sgrocc.evaluation.protocols import spread  # noqa: E402
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid  # noqa: E402
from sgrocc.labels import CHAIR, FLOOR, FREE, TABLE, UNKNOWN, WALL, WINDOW  # noqa: E402
from sgrocc.synthrooms.sensor import sensor_depth  # noqa: E402
from sgrocc.training.data import (  # noqa: E402
    Augmentation,
    DataConfig,
    LocalData,
    LocalSamples,
    Sample,
    collate,
)
from sgrocc.training.depth_errors import DepthErrors  # noqa: E402

CAMERA = PinholeCamera(160, 120, 120.0, 125.0, 77.0, 61.5)
SIZE = (128, 96)
#: Everything that moves pixels, nothing that changes colours.
GEOMETRIC = Augmentation(0.5, 1.5, 0.08, 0.0, 0.0, 0.0, 0.0)
EVERYTHING = Augmentation(0.5, 1.5, 0.08, 1.0, 1.0, 0.5, 1.0)
#: (label, first voxel, voxel after the last one): nothing here is its own mirror image.
THINGS = (
    (FLOOR, (0, 0, 0), (60, 60, 1)),
    (WALL, (38, 0, 0), (41, 60, 36)),
    (WINDOW, (0, 55, 0), (60, 57, 36)),
    (TABLE, (20, 8, 1), (28, 20, 8)),
    (CHAIR, (24, 36, 1), (30, 42, 11)),
)
GRID = VoxelGrid(np.array([0.4, -2.0, -0.7]), LOCAL_SHAPE, VOXEL_M)
#: A camera that looks 9 degrees to the left of +x and 14 degrees down.
YAW, PITCH = 0.16, 0.25
POSE = Pose(
    np.array([[np.cos(YAW), -np.sin(YAW), 0], [np.sin(YAW), np.cos(YAW), 0], [0, 0, 1]])
    @ LOOKING_ALONG_X
    @ np.array([[1, 0, 0], [0, np.cos(PITCH), np.sin(PITCH)], [0, -np.sin(PITCH), np.cos(PITCH)]]),
    np.array([0.5, 0.1, 0.8]),
)


def frame_of(depth_camera: PinholeCamera = CAMERA, seed: int | None = None):
    """A frame of the room of THINGS, whose image says where its pixels are; with a seed, voxels of random labels."""
    labels = np.full(LOCAL_SHAPE, FREE, np.uint8)
    labels[41:] = UNKNOWN
    for label, low, high in THINGS:
        labels[tuple(slice(a, b) for a, b in zip(low, high))] = label
    if seed is not None:
        labels = np.random.default_rng(seed).choice([0, 1, 2, 5, 8, 11, 255], LOCAL_SHAPE).astype(np.uint8)
    boxes = [tuple(GRID.origin + VOXEL_M * np.array(corner) for corner in thing[1:]) for thing in THINGS]
    depth = depth_of_boxes(boxes, depth_camera, POSE)
    image = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    image[..., 0] = np.rint(np.arange(CAMERA.width) * 1.5)
    image[..., 1] = np.rint(np.arange(CAMERA.height) * 2.0)[:, None]
    return SimpleNamespace(
        scene="room", frame=3, camera=CAMERA, pose=POSE, grid=GRID, labels=labels,
        image=lambda: image, depth=lambda: depth,
    )  # fmt: skip


def sample_of(frame, augmentation=GEOMETRIC, seed: int = 0, **options) -> Sample:
    samples = LocalSamples([frame], SIZE, augmentation, **options)
    return samples.sample(frame, np.random.default_rng(seed))


def camera_of(sample: Sample) -> PinholeCamera:
    height, width = sample.image.shape[1:]
    return PinholeCamera(width, height, *(float(x) for x in sample.intrinsics))


def points_of(sample: Sample) -> np.ndarray:
    """(H, W, 3): what each pixel's depth says, in metres from the corner of the sample's grid."""
    camera = camera_of(sample)
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    points = camera.back_project(np.stack([u, v], axis=-1), sample.true_depth[0].double().numpy())
    return points @ sample.rotation.double().numpy().T + sample.translation.double().numpy()


def unmirrored(sample: Sample, frame) -> tuple[np.ndarray, bool]:
    """`points_of` in the frame's own grid, and whether the sample is a mirror image."""
    points = points_of(sample)
    mirrored = not np.array_equal(sample.labels, frame.labels)
    if mirrored:
        assert np.array_equal(sample.labels, frame.labels[::-1])
        points[..., 0] = LOCAL_SHAPE[0] * VOXEL_M - points[..., 0]
    return points, mirrored


def source_pixels(points: np.ndarray, frame, camera: PinholeCamera) -> tuple[np.ndarray, np.ndarray]:
    """Where `camera` at the frame's pose sees points of its grid: (H, W, 2) pixels, and (H, W) depth."""
    return camera.project(frame.pose.inverse().apply(points + frame.grid.origin))


def nearest(pixels: np.ndarray, image: np.ndarray) -> np.ndarray:
    columns, rows = (np.clip(np.rint(pixels[..., i]).astype(int), 0, image.shape[1 - i] - 1) for i in (0, 1))
    return image[rows, columns]


def share(values: np.ndarray) -> float:
    return float(np.mean(values))


# Geometry


@given(seed=st.integers(0, 10_000), small=st.booleans())
@settings(max_examples=20, deadline=None)
def test_depth_ends_where_it_ended_before(seed, small):
    depth_camera = CAMERA.resized(96, 72) if small else CAMERA
    frame = frame_of(depth_camera)
    sample = sample_of(frame, seed=seed)
    points, _ = unmirrored(sample, frame)
    pixels, z = source_pixels(points, frame, depth_camera)
    depth = sample.true_depth[0].numpy()
    assert share(depth > 0) == 1.0
    np.testing.assert_allclose(z, depth, atol=1e-4)
    # Half-way between two pixels rounding may take a row or a column the other way.
    assert share(nearest(pixels, frame.depth()) == depth) > 0.97


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_image_shows_what_the_camera_matrix_says(seed):
    frame = frame_of()
    sample = sample_of(frame, seed=seed)
    points, _ = unmirrored(sample, frame)
    pixels = source_pixels(points, frame, CAMERA)[0]
    shown = sample.image.numpy().transpose(1, 2, 0) * 255.0 / np.array([1.5, 2.0, 1.0])
    inner = (slice(3, -3), slice(3, -3))
    error = (shown[..., :2] - pixels)[inner]
    assert np.abs(error).max() < 0.7 and np.abs(error.mean(axis=(0, 1))).max() < 0.25


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_surfaces_end_in_voxels_of_the_same_label(seed):
    frame = frame_of(seed=7)
    sample = sample_of(frame, seed=seed)
    points, mirrored = unmirrored(sample, frame)
    theirs = np.floor(points / VOXEL_M).astype(int)
    ours = np.floor(points_of(sample) / VOXEL_M).astype(int)
    # Which of two voxels a point between them is in, only rounding decides.
    clear = (np.abs(points / VOXEL_M - np.rint(points / VOXEL_M)) > 1e-4).all(axis=-1)
    clear &= ((theirs >= 0) & (theirs < LOCAL_SHAPE)).all(axis=-1)
    assert share(clear) > 0.3
    labels = sample.labels.numpy()
    assert (labels[tuple(ours[clear].T)] == frame.labels[tuple(theirs[clear].T)]).all()
    if mirrored:
        assert share(frame.labels[tuple(ours[clear].T)] == frame.labels[tuple(theirs[clear].T)]) < 0.5


def labels_hit(frame) -> np.ndarray:
    """(h, w): the label of the thing that each pixel of the frame shows, by the side that its point lies on."""
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    points = CAMERA.back_project(np.stack([u, v], axis=-1).astype(float), frame.depth().astype(float))
    points = frame.pose.apply(points) - frame.grid.origin
    found = np.full(points.shape[:2], UNKNOWN, np.uint8)
    for label, low, high in THINGS:
        inside = ((points > VOXEL_M * np.array(low) - 1e-3) & (points < VOXEL_M * np.array(high) + 1e-3)).all(axis=-1)
        found[inside] = label
    return found


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_every_fourth_pixel_knows_what_it_shows(seed):
    frame = frame_of()
    sample = sample_of(frame, seed=seed)
    found = sample.image_labels.numpy()
    assert found.shape == (SIZE[1] // 4, SIZE[0] // 4) and not (found == FREE).any()
    points, _ = unmirrored(sample, frame)
    expected = nearest(source_pixels(points, frame, CAMERA)[0], labels_hit(frame))[2::4, 2::4]
    known = found != UNKNOWN
    assert share(known) > 0.9 and share(found[known] == expected[known]) > 0.97


def test_a_frame_without_augmentation_is_the_frame():
    frame = frame_of()
    sample = sample_of(frame, Augmentation.none())
    camera = CAMERA.resized(*SIZE)
    np.testing.assert_allclose(sample.intrinsics, [camera.fx, camera.fy, camera.cx, camera.cy], rtol=1e-6)
    np.testing.assert_allclose(sample.rotation, POSE.rotation, atol=1e-6)
    np.testing.assert_allclose(sample.translation, POSE.translation - GRID.origin, atol=1e-6)
    assert np.array_equal(sample.labels, frame.labels) and sample.name == "room/00003"
    assert (sample.sensor_depth == 0).all() and sample.sensor_depth.shape == (1, SIZE[1], SIZE[0])


def test_crops_have_longer_lenses_and_mirrors_are_as_frequent_as_asked():
    frame = frame_of()
    samples = [sample_of(frame, Augmentation(0.3, 1.5, 0.0, 0, 0, 0, 0), seed) for seed in range(60)]
    zooms = np.array([float(s.intrinsics[0]) / CAMERA.resized(*SIZE).fx for s in samples])
    assert zooms.min() >= 1.0 and zooms.max() <= 1.5 and zooms.max() - zooms.min() > 0.4
    for sample, zoom in zip(samples, zooms):
        assert float(sample.intrinsics[1]) / CAMERA.resized(*SIZE).fy == pytest.approx(zoom, rel=1e-5)
    mirrored = share(np.array([not np.array_equal(s.labels, frame.labels) for s in samples]))
    assert 0.12 < mirrored < 0.5
    assert np.linalg.det(np.array([s.rotation.numpy() for s in samples])) == pytest.approx(1.0, abs=1e-5)
    stretched = [sample_of(frame, Augmentation(0.0, 1.5, 0.1, 0, 0, 0, 0), seed).intrinsics for seed in range(60)]
    aspects = np.log([float(k[0] / k[1]) * CAMERA.fy / CAMERA.fx for k in stretched])
    assert 0.05 < aspects.std() < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_what_is_beyond_the_image_is_unknown_where_only_the_view_counts(seed):
    frame = frame_of(seed=8)
    whole, seen = (sample_of(frame, seed=seed, in_view_only=only) for only in (False, True))
    centres = VoxelGrid(np.zeros(3), LOCAL_SHAPE, VOXEL_M).centres()
    in_camera = (centres - whole.translation.double().numpy()) @ whole.rotation.double().numpy()
    camera = camera_of(whole)
    pixels, z = camera.project(in_camera)
    with np.errstate(invalid="ignore"):
        inside = (pixels >= -0.5).all(axis=-1) & (pixels < np.array(SIZE) - 0.5).all(axis=-1) & (z > 0)
    expected = np.where(inside, whole.labels.numpy(), UNKNOWN)
    assert share(seen.labels.numpy() == expected) > 0.9999
    assert 0.05 < share(seen.labels.numpy() != UNKNOWN) < share(whole.labels.numpy() != UNKNOWN)
    assert np.array_equal(seen.image_labels, whole.image_labels)


def test_pixels_without_depth_or_class_know_nothing():
    frame = frame_of()
    depth = frame.depth().copy()
    depth[:40] = 0.0
    frame.depth = lambda: depth
    frame.labels[:, 55:57] = UNKNOWN
    sample = sample_of(frame, Augmentation.none())
    assert (sample.image_labels[:8] == UNKNOWN).all() and (sample.true_depth[0, :32] == 0).all()
    assert WINDOW not in sample.image_labels and {FLOOR, WALL} <= set(sample.image_labels.unique().tolist())


# Colours


def test_colours_change_and_geometry_does_not():
    frame = frame_of()
    plain = sample_of(frame, Augmentation.none())
    for seed in range(5):
        coloured = sample_of(frame, Augmentation(0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0), seed)
        assert coloured.image.dtype == torch.float32 and coloured.image.shape == plain.image.shape
        assert coloured.image.min() >= 0 and coloured.image.max() <= 1
        assert (coloured.image - plain.image).abs().mean() > 0.01
        for name in ("intrinsics", "true_depth", "image_labels", "rotation", "translation", "labels"):
            assert torch.equal(getattr(coloured, name), getattr(plain, name)), name


def test_a_grey_image_is_grey_and_a_random_filter_keeps_brightness():
    frame = frame_of()
    grey = sample_of(frame, Augmentation(0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)).image
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2]) and grey.std() > 0.1
    plain = sample_of(frame, Augmentation.none()).image
    filtered = sample_of(frame, Augmentation(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)).image
    assert (filtered - plain).abs().mean() > 0.01
    assert abs(filtered.mean() - plain.mean()) < 0.1


# Depth errors


def room_depth() -> np.ndarray:
    return frame_of().depth()


def test_depth_is_given_in_the_shares_that_were_asked_for():
    # Without errors of its own, a prior's depth is the true one.
    errors = DepthErrors(own=0.4, sensor=0.25, log_scale=0.0, shift_m=0.0, log_bias=0.0, bleed=0.0)
    depth, camera = np.full((24, 32), 2.345, np.float32), CAMERA.resized(32, 24)
    rng = np.random.default_rng(0)
    given_depths = [errors.given(depth, camera, rng) for _ in range(1000)]
    sensed = share(np.array([sensor.any() for sensor, _ in given_depths]))
    exact = share(np.array([np.array_equal(prior, depth) for _, prior in given_depths]))
    neither = share(np.array([not sensor.any() and not prior.any() for sensor, prior in given_depths]))
    assert sensed == pytest.approx(0.25, abs=0.05) and exact == pytest.approx(0.35, abs=0.05)
    assert neither == pytest.approx(0.4, abs=0.05) and sensed + exact + neither == pytest.approx(1)
    assert not np.any(DepthErrors.none().given(depth, camera, rng))


def test_a_sensors_depth_has_holes_and_no_large_errors():
    depth = room_depth()
    errors = DepthErrors(own=0.0, sensor=1.0)
    rngs = [np.random.default_rng(5) for _ in range(2)]
    sensed, of_prior = errors.given(depth, CAMERA, rngs[0])
    rngs[1].random()
    assert np.array_equal(sensed, sensor_depth(depth, rngs[1], CAMERA)) and not of_prior.any()
    measured = sensed > 0
    assert 0.5 < share(measured) < 1.0
    assert np.abs(sensed - depth)[measured].max() < 0.1
    far = np.full((24, 32), 6.0, np.float32)
    assert not np.any(errors.given(far, CAMERA.resized(32, 24), rngs[0]))


def ratios(errors: DepthErrors, count: int = 200) -> np.ndarray:
    """(count, 12, 16): what each of so many draws makes of a wall at 2 m, over 2 m."""
    wall, rng = np.full((12, 16), 2.0, np.float32), np.random.default_rng(1)
    return np.array([errors.degraded(wall, rng) for _ in range(count)]) / 2.0


def test_a_priors_scale_is_wrong_by_one_factor_for_the_whole_image():
    scale = ratios(DepthErrors(log_scale=0.06, shift_m=0.0, log_bias=0.0, bleed=0.0))
    assert np.ptp(scale, axis=(1, 2)).max() < 1e-5
    assert np.log(scale[:, 0, 0]).std() == pytest.approx(0.06, rel=0.15) and abs(np.log(scale).mean()) < 0.015


def test_a_priors_shift_is_one_length_and_its_bias_varies():
    shift = ratios(DepthErrors(log_scale=0.0, shift_m=0.05, log_bias=0.0, bleed=0.0)) * 2.0 - 2.0
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-5 and shift[:, 0, 0].std() == pytest.approx(0.05, rel=0.15)
    bias = np.log(ratios(DepthErrors(log_scale=0.0, shift_m=0.0, log_bias=0.03, bleed=0.0)))
    assert bias.std(axis=(1, 2)).mean() == pytest.approx(0.03, rel=0.2)
    assert np.abs(np.diff(bias, axis=2)).max() < 0.06, "it is no noise"


def test_bleeding_makes_slopes_of_edges_and_leaves_planes_and_holes_alone():
    depth = np.full((20, 40), 1.0, np.float32)
    depth[:, 20:] = 3.0
    depth[:, :5] = 0.0
    errors = DepthErrors(log_scale=0.0, shift_m=0.0, log_bias=0.0, bleed=1.0)
    bled = errors.degraded(depth, np.random.default_rng(2))
    assert (bled[:, :5] == 0).all()
    np.testing.assert_allclose(bled[:, 5:16], 1.0, atol=1e-5)
    np.testing.assert_allclose(bled[:, 24:], 3.0, atol=1e-5)
    assert (np.diff(bled[10, 16:24]) > -1e-5).all() and (np.abs(bled[:, 17:23] - depth[:, 17:23]) > 0.1).any()


def test_unknown_depth_stays_unknown_and_the_rest_is_in_front_of_the_camera():
    depth = np.where(np.random.default_rng(3).random((24, 32)) < 0.3, 0.0, 0.1).astype(np.float32)
    rng = np.random.default_rng(4)
    for _ in range(20):
        degraded = DepthErrors(shift_m=0.5).degraded(depth, rng)
        assert ((degraded > 0) == (depth > 0)).all() and degraded[depth > 0].min() >= np.float32(0.05)
        assert degraded.dtype == np.float32


@pytest.mark.parametrize(("own", "sensor"), [(0.8, 0.3), (-0.1, 0.5), (1.2, 0.0), (0.2, -0.2)])
def test_shares_that_are_none_are_refused_by_their_numbers(own, sensor):
    with pytest.raises(ValueError, match=f"own {own:g} and sensor {sensor:g} must be .* together at most 1"):
        DepthErrors(own=own, sensor=sensor)


# Sets


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    write_small_set(root, {"train": 3, "val": 5})
    return root


def same(a: Sample, b: Sample) -> bool:
    return all(a.__dict__[n] == v if n == "name" else torch.equal(a.__dict__[n], v) for n, v in b.__dict__.items())


def test_seed_epoch_and_frame_make_the_sample(small_set):
    def samples(seed: int, epoch: int) -> LocalSamples:
        made = LocalSamples(OccScanNet(small_set, "train"), SIZE, EVERYTHING, DepthErrors(own=0.0), seed)
        made.epoch = epoch
        return made

    first, again = samples(0, 0), samples(0, 0)
    assert len(first) == 3
    assert all(same(a, b) for a, b in zip([first[2], first[0]], [again[2], again[0]]))
    for other in (samples(0, 1), samples(1, 0)):
        assert other[0].name == first[0].name and not torch.equal(other[0].image, first[0].image)
        assert not torch.equal(other[0].intrinsics, first[0].intrinsics)
        given = [sample.sensor_depth + sample.prior_depth for sample in (other[0], first[0])]
        assert not torch.equal(*given)
    assert not torch.equal(first[0].intrinsics, first[1].intrinsics)
    # A frame is augmented alike, whichever frames there are beside it.
    chosen = LocalSamples(OccScanNet(small_set, "train"), SIZE, EVERYTHING, DepthErrors(own=0.0), 0, indices=[2])
    assert len(chosen) == 1 and same(chosen[0], first[2])


def test_a_batch_stacks_what_can_be_stacked(small_set):
    samples = LocalSamples(OccScanNet(small_set, "train"), SIZE)
    batch = collate([samples[0], samples[2]])
    assert batch["name"] == ["room_train/00000", "room_train/00002"]
    assert batch["image"].shape == (2, 3, SIZE[1], SIZE[0]) and batch["labels"].shape == (2, *LOCAL_SHAPE)
    assert torch.equal(batch["translation"][1], samples[2].translation)


def test_training_sees_its_view_and_validation_everything(small_set):
    settings = DataConfig(str(small_set), *SIZE, batch_size=2, workers=0, val_frames=3)
    data = LocalData(settings)
    data.setup()
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert [len(batch["name"]) for batch in train] == [2] and [len(batch["name"]) for batch in val] == [2, 1]
    names = [name for batch in val for name in batch["name"]]
    assert names == ["room_val/00000", "room_val/00002", "room_val/00004"]
    whole = OccScanNet(small_set, "val")[0].labels
    assert np.array_equal(val[0]["labels"][0], whole)
    assert share((train[0]["labels"][0] != UNKNOWN).numpy()) < 0.9 * share(whole != UNKNOWN)
    assert (val[0]["sensor_depth"] == 0).all()


def test_training_on_the_first_scenes_alone(small_set, tmp_path):
    for part in ("gathered_data", "posed_images"):
        (tmp_path / "occscannet").mkdir(exist_ok=True)
        (tmp_path / "occscannet" / part).symlink_to(small_set / "occscannet" / part)
    lines = [("room_val", 1), ("room_train", 0), ("room_val", 2), ("room_train", 1)]
    write_split(tmp_path, "train", "local", lines)
    data = LocalData(DataConfig(str(tmp_path), *SIZE, workers=0, scenes=1))
    data.setup()
    assert [data.train[i].name for i in range(len(data.train))] == ["room_val/00001", "room_val/00002"]


def test_frames_are_spread_evenly():
    assert spread(10, 0) == spread(10, 12) == list(range(10))
    assert spread(10, 2) == [2, 7] and spread(7, 3) == [1, 3, 5]
