"""The method and the baselines under the benchmark's protocols: what they say about small scenes of known content."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from scenes import CAMERA, LOOKING_ALONG_X, ROOM, depth_of_boxes, pose_at

from sgrocc.evaluation import baselines, octomap_baseline, predictors
from sgrocc.evaluation.baselines import ClassPrior, Splicing, VoxelAveraging, confidence, overlap, steps_behind
from sgrocc.evaluation.protocols import LocalPrediction
from sgrocc.experts.geometric import GeometricExpert
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.labels import CEILING, CHAIR, FLOOR, FREE, GENERIC, UNKNOWN, WALL

needs_octomap = pytest.mark.skipif(not octomap_baseline.available(), reason="pyoctomap is not installed")
MODEL = Path(__file__).resolve().parents[1] / "models" / "random_expert"
#: Not a multiple of a voxel.
CORNER = np.array([0.033, -0.051, 0.017])


@dataclass
class FakeFrame:
    """A frame of `boxes`, as the readers of the data sets give it."""

    pose: Pose
    boxes: list = field(default_factory=lambda: ROOM)
    scene: str = "fake"
    frame: int = 0
    camera: object = CAMERA
    grid: VoxelGrid = None
    mask: np.ndarray = None
    labels: np.ndarray = None

    def __post_init__(self):
        if self.grid is None:
            self.grid = local_grid(self.pose)
        if self.labels is None:
            self.labels = truth_of(self.boxes, self.grid)

    def image(self):
        return np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8)

    def depth(self):
        return depth_of_boxes(self.boxes, CAMERA, self.pose)


@dataclass
class FakeScene:
    grid: VoxelGrid
    name: str = "fake"


class HeightExpert:
    """The geometric expert, but it knows floor from wall by the height in the camera's frame."""

    depth_source = "topic"

    def __call__(self, frame):
        prediction = GeometricExpert()(frame)
        logits = np.zeros_like(prediction.gaussians.logits)
        floor = prediction.gaussians.means[:, 1] > 0.55
        logits[floor, FLOOR - 1] = 5
        logits[~floor, WALL - 1] = 5
        return replace(prediction, gaussians=replace(prediction.gaussians, logits=logits), semantic=True)


class NearWallExpert:
    """Needs no depth: it predicts a wall 1 m ahead, whatever there is."""

    depth_source = "network"

    def __call__(self, frame):
        assert frame.depth is None
        return GeometricExpert()(replace(frame, depth=np.full((60, 80), 1.0, np.float32)))


def local_grid(pose, ahead_m=2.0):
    forward = pose.rotation[:, 2] * [1, 1, 0]
    centre = pose.translation + ahead_m * forward / np.linalg.norm(forward)
    low = np.rint((centre - [2.4, 2.4, 0.72]) / 0.08) * 0.08
    return VoxelGrid(low + CORNER, (60, 60, 36), 0.08)


def truth_of(boxes, grid):
    centres = grid.centres()
    labels = np.full(grid.shape, FREE, np.uint8)
    for low, high in boxes:
        labels[((centres >= low) & (centres <= high)).all(axis=-1)] = GENERIC
    return labels


def in_view(pose, grid):
    """(X, Y, Z) bool: voxels whose centre is in the image."""
    pixels, _ = CAMERA.project(pose.inverse().apply(grid.centres().reshape(-1, 3)))
    return CAMERA.pixel_index(pixels)[2].reshape(grid.shape)


def turned(yaw, x=0.0, y=0.0, z=0.0):
    c, s = np.round([np.cos(yaw), np.sin(yaw)], 9)
    return Pose(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ LOOKING_ALONG_X, np.array([x, y, z]))


def hit_voxels(frame):
    """(X, Y, Z) bool: voxels of the frame's grid with a depth pixel in them."""
    rows, columns = np.nonzero(frame.depth() > 0)
    pixels = np.stack([columns, rows], -1).astype(float)
    points = frame.pose.apply(CAMERA.back_project(pixels, frame.depth()[rows, columns].astype(float)))
    indices = frame.grid.index_of(points)
    hit = np.zeros(frame.grid.shape, bool)
    hit[tuple(indices[frame.grid.contains(indices)].T)] = True
    return hit


def grown(mask):
    """The mask and its 26 neighbours; the grid's border is not wrapped."""
    padded = np.pad(mask, 1)
    shifts = np.stack(np.meshgrid(*[range(3)] * 3), -1).reshape(-1, 3)
    nx, ny, nz = mask.shape
    return np.any([padded[a : a + nx, b : b + ny, c : c + nz] for a, b, c in shifts], axis=0)


# -- the method --------------------------------------------------------------------------------------------------------


def test_the_geometric_expert_finds_the_surfaces_it_sees_and_keeps_them_thin():
    frame = FakeFrame(pose_at(0, 0, 0))
    predictor = predictors.make(None, "local", "true", expert="geometric")
    prediction = predictor.predict(frame)
    hit, occupied = hit_voxels(frame), prediction.labels != FREE
    assert prediction.labels.dtype == np.uint8 and (prediction.labels[occupied] == GENERIC).all()
    assert occupied[hit].mean() > 0.9
    assert grown(hit)[occupied].mean() > 0.99
    # Straight ahead is the wall, in one or two voxels, and nothing before it.
    x, y, z = frame.grid.index_of(np.array([2.4, 0.0, 0.05]))
    assert 1 <= np.count_nonzero(occupied[:, y, z]) <= 2 and occupied[x - 1 : x + 2, y, z].any()


def test_probabilities_are_a_distribution_that_names_the_label():
    frame = FakeFrame(pose_at(0, 0, 0))
    prediction = predictors.make(None, "local", "true", expert=HeightExpert()).predict(frame)
    assert prediction.probabilities.dtype == np.float32 and prediction.probabilities.shape == (60, 60, 36, 12)
    np.testing.assert_allclose(prediction.probabilities.sum(-1), 1, atol=1e-5)
    occupied = prediction.labels != FREE
    np.testing.assert_array_equal(occupied, prediction.probabilities[..., 0] <= 0.5)
    best = 1 + prediction.probabilities[..., 1:].argmax(-1)
    np.testing.assert_array_equal(best[occupied], prediction.labels[occupied])
    z = frame.grid.centres()[..., 2]
    assert (prediction.labels[occupied & (z < -0.62)] == FLOOR).all() and (z[prediction.labels == WALL] > -0.6).all()
    assert {FLOOR, WALL} == set(np.unique(prediction.labels[occupied]))


@pytest.mark.parametrize("shift", [(0.08, -0.16, 0.24), (0.0131, 0.0577, -0.029)])
def test_the_map_does_not_depend_on_where_the_world_has_its_origin(shift):
    maps = []
    for move in (np.zeros(3), np.array(shift)):
        scene = FakeScene(VoxelGrid(CORNER + [-1, -2.4, -0.8] + move, (60, 60, 30), 0.08))
        predictor = predictors.make(None, "embodied", "true", expert="geometric")
        predictor.start(scene)
        for x in (0.0, 0.3):
            frame = FakeFrame(pose_at(x, 0, 0))
            moved = FakeFrame(
                pose_at(*(frame.pose.translation + move)), [(np.add(a, move), np.add(b, move)) for a, b in ROOM]
            )
            predictor.add(moved)
        maps.append(predictor.labels())
    assert np.count_nonzero(maps[0]) > 1000
    assert np.count_nonzero(maps[0] != maps[1]) < 0.01 * np.count_nonzero(maps[0])


def test_the_memory_grows_frame_by_frame_and_forgets_with_the_scene():
    scene = FakeScene(VoxelGrid(CORNER + [-1, -2.4, -0.8], (60, 60, 30), 0.08))
    predictor = predictors.make(None, "embodied", "true", expert="geometric")
    with pytest.raises(ValueError, match="call start first"):
        predictor.labels()
    predictor.start(scene)
    assert not predictor.labels().any()
    predictor.add(FakeFrame(pose_at(0, 0, 0)))
    one = predictor.labels()
    predictor.add(FakeFrame(turned(0.7)))
    two = predictor.labels()
    assert one.shape == scene.grid.shape and one.dtype == np.uint8 and not (one == UNKNOWN).any()
    truth = truth_of(ROOM, scene.grid)
    assert grown(truth != FREE)[one != FREE].mean() > 0.99
    assert np.count_nonzero(two) > 1.1 * np.count_nonzero(one)
    predictor.start(scene)
    assert not predictor.labels().any()
    with pytest.raises(ValueError, match="resample the scene"):
        predictor.start(FakeScene(VoxelGrid(np.zeros(3), (10, 10, 10), 0.1)))


def test_an_exported_model_runs_in_both_protocols():
    frame = FakeFrame(pose_at(0, 0, 0))
    for depth in ("true", "network"):
        local = predictors.make(MODEL, "local", depth)
        assert local.expert.depth_source == {"true": "topic"}.get(depth, depth)
        assert local.predict(frame).labels.max() <= 11
    embodied = predictors.make(MODEL, "embodied", "true")
    embodied.start(FakeScene(frame.grid))
    embodied.add(frame)
    assert embodied.labels().any()


def test_sensor_depth_is_faulty_and_the_same_for_everyone():
    pytest.importorskip("sgrocc.synthrooms.sensor")
    frame = FakeFrame(pose_at(0, 0, 0))
    first, second = (predictors.depth_of(frame, "sensor") for _ in range(2))
    other = predictors.depth_of(replace(frame, frame=1), "sensor")
    np.testing.assert_array_equal(first, second)
    assert (first != frame.depth()).any() and (first != other).any()
    valid = first > 0
    assert np.median(np.abs(first - frame.depth())[valid]) < 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((None, "local", "true"), "either a model or an expert"),
        ((MODEL, "local", "true", "geometric"), "either a model or an expert"),
        ((None, "local", "true", "magic"), "no expert 'magic'"),
        ((None, "local", "network", "geometric"), "--depth true or --depth sensor"),
        ((None, "global", "true", "geometric"), "no protocol 'global'"),
        ((None, "local", "laser", "geometric"), "no depth 'laser'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        predictors.make(*arguments)


# -- OctoMap -----------------------------------------------------------------------------------------------------------


@needs_octomap
def test_octomap_of_one_frame_has_the_seen_surfaces_and_the_rest_is_free():
    frame = FakeFrame(pose_at(0, 0, 0))
    prediction = baselines.make("octomap", "local", "true").predict(frame)
    hit = hit_voxels(frame)
    assert prediction.probabilities is None and set(np.unique(prediction.labels)) == {FREE, GENERIC}
    assert (prediction.labels[hit] == GENERIC).mean() > 0.95
    assert not prediction.labels[~grown(hit)].any()


@needs_octomap
def test_octomap_takes_the_class_of_the_nearest_gaussian():
    frame = FakeFrame(pose_at(0, 0, 0))
    labels = baselines.make("octomap", "local", "true", expert=HeightExpert()).predict(frame).labels
    z = frame.grid.centres()[..., 2]
    assert (labels[(labels != FREE) & (z < -0.65)] == FLOOR).all() and np.count_nonzero(labels == FLOOR) > 100
    assert (labels[(labels != FREE) & (z > -0.4)] == WALL).all() and np.count_nonzero(labels == WALL) > 100


@needs_octomap
def test_octomap_of_a_scene_joins_frames_and_takes_the_depth_of_the_network():
    scene = FakeScene(VoxelGrid(CORNER + [-1, -2.4, -0.8], (60, 60, 30), 0.08))

    for depth, expert, wall_m in (("true", None, 2.45), ("network", NearWallExpert(), 1.0)):
        octomap = baselines.make("octomap", "embodied", depth, expert=expert)
        octomap.start(scene)
        counts = []
        for yaw in (0.0, 0.7):
            octomap.add(FakeFrame(turned(yaw)))
            counts.append(np.count_nonzero(octomap.labels()))
        assert counts[1] > 1.1 * counts[0] > 0
        x, y, z = scene.grid.index_of(np.array([wall_m, 0.0, 0.05]))
        assert octomap.labels()[x - 1 : x + 2, y, z].any() and not octomap.labels()[: x - 1, y, z].any()


def test_steps_behind_a_wall_count_voxels_along_the_ray():
    grid = VoxelGrid(np.zeros(3), (60, 40, 20), 0.08)
    pose = pose_at(0, 1.62, 0.84)
    depth = depth_of_boxes([((2.01, -9, -9), (3, 9, 9))], CAMERA, pose)
    steps = steps_behind(depth, CAMERA, pose, grid, 3)
    x, y, z = grid.index_of(np.array([2.01, 1.62, 0.84]))
    assert steps[:x].min() == 255
    np.testing.assert_array_equal(steps[x + 1 : x + 5, y, z], [1, 2, 3, 255])
    # Off the axis the ray is slanted: what is filled lies further out behind the wall.
    assert (steps[x + 1] == 1).sum() > 0.9 * (steps_behind(depth, CAMERA, pose, grid, 1)[x + 1] == 1).sum() > 100
    assert (steps_behind(depth, CAMERA, pose, grid, 0) == 255).all()
    # However far behind, in view there are no holes.
    far = steps_behind(depth, CAMERA, pose, grid, 30)
    assert (far[x + 2 : x + 20][in_view(pose, grid)[x + 2 : x + 20]] < 255).all()


@needs_octomap
def test_the_fill_makes_surfaces_thick_and_is_tuned():
    boxes = [((2.0, -9, -9), (2.4, 9, 9))]  # five voxels thick
    frames = [FakeFrame(pose_at(x, 0, 0), boxes) for x in (0.0, 0.3)]
    for frame in frames:
        frame.labels[~in_view(frame.pose, frame.grid)] = UNKNOWN
    scores = baselines.tune_fill(frames, [0, 2, 4, 12])
    assert list(scores) == [0, 2, 4, 12]
    assert scores[0] < scores[2] < scores[4] > scores[12]
    frame = frames[0]
    plain, filled = (
        baselines.make(name, "local", "true").predict(frame).labels for name in ("octomap", "octomap_fill")
    )
    assert (filled[plain != FREE] == plain[plain != FREE]).all()
    x, y, z = frame.grid.index_of(np.array([2.01, 0.0, 0.05]))
    room_behind = frame.grid.shape[0] - x - 1
    more = np.count_nonzero(filled[:, y, z]) - np.count_nonzero(plain[:, y, z])
    assert more == min(baselines.FILL_VOXELS, room_behind)
    # Everything that no ray has passed is the largest fill there is.
    closed = baselines.make("octomap_unknown_occupied", "local", "true").predict(frame).labels
    assert (closed[filled != FREE] == GENERIC).all() and (closed[:x, y, z] == FREE).sum() > 15
    assert (closed[~in_view(frame.pose, frame.grid)] == GENERIC).mean() > 0.95
    with pytest.raises(ValueError, match="numbers of voxels"):
        baselines.tune_fill(frames, [])


@needs_octomap
def test_octomap_gets_the_depth_that_was_asked_for_up_to_its_range():
    boxes = [((5.2, -9, -9), (6, 9, 9))]
    grid = VoxelGrid(CORNER + [3.5, -1.0, -0.8], (30, 25, 20), 0.08)
    frame = FakeFrame(pose_at(0, 0, 0), boxes, grid=grid)
    exact, faulty = (baselines.make("octomap", "local", depth).predict(frame).labels for depth in ("true", "sensor"))
    x, y, z = grid.index_of(np.array([5.21, 0.0, 0.05]))
    assert exact[x, y, z] == GENERIC and not exact[:x].any(), "depth of 5.2 m is used"
    assert faulty[x - 3 : x + 4].any() and (faulty != exact).any()


@needs_octomap
def test_the_fill_of_a_scene_keeps_all_frames_and_what_is_known_to_be_free():
    post = [((1.5, -0.1, -9), (1.7, 0.1, 9))]
    grid = VoxelGrid(np.array([0.4, -1.6, -0.8]), (40, 40, 20), 0.08)
    octomap = baselines.OctomapEmbodied("true", None, 6)
    octomap.start(FakeScene(grid))
    here = tuple(grid.index_of(np.array([1.86, 0.02, 0.02])))  # behind the post, two voxels
    octomap.add(FakeFrame(pose_at(0, 0, 0), [*post, ((3.0, -9, -9), (3.4, 9, 9))]))
    assert octomap.labels()[here] == GENERIC
    # A second frame, which looks the other way, changes nothing of that.
    octomap.add(FakeFrame(turned(np.pi), [((-3, -9, -9), (-2.6, 9, 9))]))
    assert octomap.labels()[here] == GENERIC
    # Seen from the side the place behind the post is free; the fill leaves it so.
    octomap.add(FakeFrame(turned(np.pi / 2, 1.86, -1.4), [*post, ((-9, 1.5, -9), (9, 1.9, 9))]))
    assert octomap.labels()[here] == FREE


def test_thresholds_are_scored_on_what_some_frame_had_in_view():
    grid = VoxelGrid(CORNER + [-0.4, -2.4, -0.8], (60, 60, 30), 0.08)
    frame = FakeFrame(pose_at(0, 0, 0), mask=in_view(pose_at(0, 0, 0), grid))
    scene = FakeScene(grid)
    scene.frames, scene.labels = [frame], truth_of(ROOM, grid)
    scores = baselines.tune_threshold([scene], [0.05, 0.5, 0.999])
    assert list(scores) == [0.05, 0.5, 0.999] and scores[0.999] < min(scores[0.05], scores[0.5]) < 1
    fills = baselines.tune_fill([scene], [0, 2]) if octomap_baseline.available() else {0: 0, 2: 1}
    assert fills[2] > fills[0]


# -- joining local grids -----------------------------------------------------------------------------------------------


def constant(label, grid):
    """A local prediction that is certain of one label everywhere, to nine tenths."""
    probabilities = np.full((*grid.shape, 12), 0.1 / 11, np.float32)
    probabilities[..., label] = 0.9
    return LocalPrediction(np.full(grid.shape, label, np.uint8), probabilities)


def test_splicing_writes_what_is_observed_and_the_latest_wins():
    scene = FakeScene(VoxelGrid(CORNER, (50, 60, 40), 0.08))
    grids = [VoxelGrid(CORNER + np.array(o) * 0.08, (60, 60, 36), 0.08) for o in ((-20, 3, 4), (10, -5, 0))]
    answers = iter([constant(CHAIR, grids[0]), constant(FREE, grids[1])])
    splicing = Splicing(lambda frame: (next(answers), None))
    splicing.start(scene)
    masks = [np.ones(scene.grid.shape, bool) for _ in grids]
    masks[1][:, 30:] = False
    expected = np.zeros(scene.grid.shape, np.uint8)
    expected[:40, 3:60, 4:40] = CHAIR
    splicing.add(FakeFrame(pose_at(0, 0, 0), grid=grids[0], mask=masks[0]))
    np.testing.assert_array_equal(splicing.labels(), expected)
    expected[10:50, :30, :36] = FREE
    splicing.add(FakeFrame(pose_at(0, 0, 0), grid=grids[1], mask=masks[1]))
    np.testing.assert_array_equal(splicing.labels(), expected)


def test_grids_that_do_not_touch_share_nothing():
    one, other = VoxelGrid(np.zeros(3), (5, 6, 7), 0.08), VoxelGrid(np.array([0.8, 0, 0]), (5, 6, 7), 0.08)
    for a, b in ((one, other), (other, one)):
        here, there = overlap(a, b)
        assert np.zeros(a.shape)[here].size == 0 and np.zeros(b.shape)[there].size == 0


@pytest.mark.parametrize("swap", [False, True])
def test_averaging_trusts_the_nearer_frame_whatever_the_order(swap):
    grid = VoxelGrid(CORNER + [1.0, -0.6, -0.6], (15, 15, 15), 0.08)
    scene = FakeScene(grid)
    answers = {0: constant(CHAIR, grid), 1: constant(FREE, grid)}
    averaging = VoxelAveraging(lambda frame: (answers[frame.frame], None))
    averaging.start(scene)
    mask = np.ones(grid.shape, bool)
    mask[:, :, 12:] = False
    frames = [FakeFrame(pose_at(x, 0, 0), frame=i, grid=grid, mask=mask) for i, x in enumerate((0.0, -2.0))]
    for frame in frames[:: -1 if swap else 1]:
        averaging.add(frame)
    x, y, z = grid.index_of(np.array([1.6, 0.0, 0.0]))
    assert averaging.labels()[x, y, z] == CHAIR
    assert not averaging.labels()[:, :, 12:].any()


def test_confidence_falls_with_depth_at_the_border_and_behind_surfaces():
    wall = [((1.6, -9, -9), (3, 9, 9))]
    frame = FakeFrame(pose_at(0, 0, 0), wall)
    blind = confidence(frame, None)
    grid = frame.grid
    assert blind.shape == grid.shape and blind.dtype == np.float32 and (blind > 0).all() and (blind <= 1).all()
    near, far, side = (tuple(grid.index_of(np.array(p))) for p in ((1.0, 0, 0), (3.0, 0, 0), (1.0, 0.55, 0)))
    assert blind[near] == pytest.approx(1 / (1 + 0.25), rel=0.1) and blind[far] == pytest.approx(1 / 3.25, rel=0.1)
    assert blind[side] < 0.6 * blind[near]
    prediction = GeometricExpert()(predictors.expert_frame(frame, "true"))
    knowing = confidence(frame, prediction)
    assert knowing[near] == blind[near] and knowing[far] == pytest.approx(0.1 * blind[far])


def test_the_joined_baselines_of_the_geometric_expert_map_the_room():
    scene = FakeScene(VoxelGrid(CORNER + [-0.4 - 0.08, -2.4, -0.8 + 0.08], (60, 60, 30), 0.08))
    truth = truth_of(ROOM, scene.grid)
    mask = in_view(pose_at(0, 0, 0), scene.grid)
    for name in ("splicing", "voxel_averaging"):
        baseline = baselines.make(name, "embodied", "true")
        baseline.start(scene)
        baseline.add(FakeFrame(pose_at(0, 0, 0), mask=mask))
        labels = baseline.labels(0.5) if name == "voxel_averaging" else baseline.labels()
        assert np.count_nonzero(labels) > 1000
        assert grown(truth != FREE)[labels != FREE].mean() > 0.99


def test_a_memory_without_a_fusion_is_no_baseline_of_itself():
    with pytest.raises(ValueError, match="untrained_memory is the method itself: its model brings no fusion"):
        baselines.make("untrained_memory", "embodied", "true")


# -- class frequencies -------------------------------------------------------------------------------------------------


def prior_frame(yaw, rng=None, number=0):
    """A floor in layer 2, a chair 1 m ahead and, in one frame of four, a ceiling; most of the rest is unknown."""
    pose = turned(yaw, 0.3, -0.2, 0.4)
    frame = FakeFrame(pose, boxes=[], frame=number)
    frame.labels[:, :, 2] = FLOOR
    centres = frame.grid.centres()
    chair = pose.translation + 1.0 * pose.rotation[:, 2] - [0, 0, 0.2]
    frame.labels[(np.abs(centres - chair)[..., :2].max(-1) < 0.3) & (np.abs(centres - chair)[..., 2] < 0.15)] = CHAIR
    if number % 4 == 0:
        frame.labels[:, :, 33] = CEILING
    if rng is not None:
        frame.labels[rng.random(frame.labels.shape) < 0.3] = UNKNOWN
    return frame


@pytest.fixture(scope="module")
def prior():
    rng = np.random.default_rng(5)
    return ClassPrior.fit([prior_frame(rng.uniform(-3.1, 3.1), rng, number) for number in range(24)])


def test_the_class_prior_turns_with_the_camera(prior):
    for yaw in (0.0, 1.3, -2.2):
        frame = prior_frame(yaw, number=1)
        prediction = prior.predict(frame)
        assert (prediction.labels[frame.labels == FLOOR] == FLOOR).mean() > 0.99
        at = tuple(frame.grid.index_of(frame.pose.translation + frame.pose.rotation[:, 2] - [0, 0, 0.2]))
        behind = tuple(frame.grid.index_of(frame.pose.translation + 2.5 * frame.pose.rotation[:, 2] - [0, 0, 0.2]))
        assert prediction.labels[at] == CHAIR and prediction.labels[behind] == FREE
        assert not prediction.labels[:, :, 20].any()
        # a ceiling in every fourth frame is not worth a guess, but its frequency is known
        assert (prediction.labels[:, :, 33] != FREE).mean() < 0.1
        assert prediction.probabilities[30, 30, 33, CEILING] == pytest.approx(0.25, abs=0.12)
        np.testing.assert_allclose(prediction.probabilities.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("down", [True, False])
def test_the_class_prior_knows_ahead_when_the_camera_looks_straight_down_or_up(prior, down):
    level = prior_frame(0.0)
    # Looking down, the image's upper edge points to +x; looking up, its lower edge does.
    sign = -1 if down else 1
    rotation = np.array([[0, sign, 0], [-1, 0, 0], [0, 0, sign]], float)
    steep = replace(level, pose=Pose(rotation, level.pose.translation))
    np.testing.assert_array_equal(prior.predict(steep).labels, prior.predict(level).labels)


def test_the_threshold_is_the_best_there_is(prior):
    counts = np.zeros((1, 1, 3, 12), np.uint32)
    counts[0, 0, :, 0] = (10, 60, 990)
    counts[0, 0, :, CHAIR] = (90, 40, 10)
    # 90/150 with the first place alone, 130/210 with two, 140/1200 with all.
    occupied = counts[..., CHAIR] / counts.sum(-1)
    assert baselines._best_threshold(occupied, counts) == pytest.approx(0.4)
    assert 0.25 < prior.threshold < 0.95


def test_the_class_prior_is_kept_for_the_next_run(tmp_path, monkeypatch, prior):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frames = [prior_frame(0.1 * number, number=number) for number in range(3)]
    first = baselines.make("class_prior", "local", "true", train=frames)
    (path,) = (tmp_path / "sgrocc").iterdir()
    monkeypatch.setattr(ClassPrior, "fit", lambda frames: pytest.fail("counted twice"))
    again = baselines.make("class_prior", "local", "true", train=frames)
    for attribute in ("labels", "probabilities"):
        a, b = (getattr(p.predict(frames[1]), attribute) for p in (first, again))
        np.testing.assert_array_equal(a, b)
    path.write_bytes(path.read_bytes()[:100])
    monkeypatch.setattr(ClassPrior, "fit", lambda frames: prior)
    assert baselines.make("class_prior", "local", "true", train=frames) is prior
    assert ClassPrior.load(path).threshold == prior.threshold
    other = [prior_frame(0.2 * number, number=number) for number in range(3)]  # the same names, other labels
    baselines.make("class_prior", "local", "true", train=other)
    assert len(list((tmp_path / "sgrocc").iterdir())) == 2


def test_the_class_prior_of_a_scene_is_the_mean_of_its_frames(tmp_path, monkeypatch, prior):
    monkeypatch.setattr(ClassPrior, "cached", lambda frames: prior)
    baseline = baselines.make("class_prior", "embodied", "network", train=[None])
    frame = prior_frame(0.4, number=1)
    baseline.start(FakeScene(frame.grid))
    frame.mask = np.ones(frame.grid.shape, bool)
    baseline.add(frame)
    assert (baseline.labels() == prior.predict(frame).labels).mean() > 0.999  # rounding decides at the threshold


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("magic", "local", "true"), "no baseline 'magic'"),
        (("class_prior", "local", "true"), "needs the training split"),
        (("splicing", "local", "true"), "--protocol embodied"),
        (("octomap", "local", "network"), "needs depth"),
        (("octomap", "global", "true"), "no protocol"),
        (("splicing", "embodied", "network"), "predicts no depth"),
    ],
)
def test_a_baseline_that_lacks_something_says_what(arguments, message):
    with pytest.raises(ValueError, match=message):
        baselines.make(*arguments)
