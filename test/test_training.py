"""Trainings of a few steps: they begin, go on where they were, freeze what they should, and score as the benchmark."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scenes import CAMERA, write_room, write_small_set  # noqa: E402

from sgrocc import cli  # noqa: E402
from sgrocc.datasets.occscannet import OccScanNet  # noqa: E402
from sgrocc.datasets.posed_rgbd import PosedRgbdSequence  # noqa: E402
from sgrocc.evaluation.metrics import Counts, view_of  # noqa: E402
from sgrocc.labels import FREE, NUM_CLASSES, UNKNOWN, WALL  # noqa: E402
from sgrocc.model.anchors import AnchorConfig  # noqa: E402
from sgrocc.model.depth_priors import DepthPrior  # noqa: E402
from sgrocc.model.image_encoder import ImageEncoder  # noqa: E402
from sgrocc.model.spatial_expert import ExpertConfig  # noqa: E402
from sgrocc.training.data import LocalSamples, collate  # noqa: E402
from sgrocc.training.expert_stage import ExpertStage, VoxelScore, in_view  # noqa: E402
from sgrocc.training.image_stage import ImageScore, ImageStage, depth_errors, load_encoder  # noqa: E402
from sgrocc.training.schedule import OptimiserConfig  # noqa: E402
from sgrocc.training.torch_expert import TorchLocal, adapt, any_expert, load_expert  # noqa: E402

CHANNELS = 16
SMALL = {"width": 64, "height": 48, "channels": CHANNELS, "blocks": 1}

IMAGE_STAGE = """
model:
  class_path: sgrocc.training.image_stage.ImageStage
  init_args: {channels: 16, imagenet: false, optimiser: {learning_rate: 1.0e-3}}
data:
  config: {root: nowhere, width: 64, height: 48, batch_size: 2, workers: 0, val_frames: 2}
trainer: {max_epochs: 1, accelerator: cpu, log_every_n_steps: 1}
"""
EXPERT_STAGE = """
model:
  class_path: sgrocc.training.expert_stage.ExpertStage
  init_args:
    config: {width: 64, height: 48, channels: 16, blocks: 1, anchors: {stride: 16}, lifting: {count: 4}}
    optimiser: {learning_rate: 1.0e-2, multipliers: {expert.encoder: 0.0}}
data:
  config: {root: nowhere, width: 64, height: 48, batch_size: 2, workers: 0, val_frames: 2}
trainer: {max_epochs: 1, accelerator: cpu, log_every_n_steps: 1}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    write_small_set(root, {"train": 4, "val": 2})
    return root


class Training:
    """The trainings of one module in one folder, as a user starts them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data

    def __call__(self, name: str, text: str, *overrides: str, fresh: bool = False) -> int:
        config = self.folder / f"{name}.yaml"
        config.write_text(text)
        arguments = ["train", "--config", str(config), "--data", str(self.data), "--out", str(self.folder / name)]
        return cli.main([*arguments, *(["--fresh"] if fresh else []), "--", *overrides])

    def checkpoint(self, name: str) -> dict:
        return torch.load(self.folder / name / "last.ckpt", weights_only=False)

    def log(self, name: str, run: int) -> list[dict]:
        with open(self.folder / name / "logs" / f"run_{run}" / "metrics.csv") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def training(data, tmp_path_factory):
    return Training(tmp_path_factory.mktemp("trainings"), data)


@pytest.fixture(scope="module")
def image_stage(training):
    assert training("image", IMAGE_STAGE) == 0
    return training.folder / "image"


@pytest.fixture(scope="module")
def expert_stage(training, image_stage):
    arguments = ["--model.encoder_from", str(image_stage / "last.ckpt")]
    assert training("expert", EXPERT_STAGE, *arguments) == 0
    return training.folder / "expert"


# Trainings


def test_a_training_leaves_a_checkpoint_its_configuration_and_its_figures(training, image_stage):
    checkpoint = training.checkpoint("image")
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (0, 2)
    assert (image_stage / "best.ckpt").is_file()
    assert str(training.data) in (image_stage / "logs" / "run_0" / "config.yaml").read_text()
    rows = training.log("image", 0)
    assert len([row for row in rows if row["train/loss"]]) == 2
    (scores,) = [row for row in rows if row["val/abs_rel"]]
    assert all(math.isfinite(float(scores[f"val/{name}"])) for name in ("abs_rel", "delta_1", "pixel_miou", "loss"))
    assert list((image_stage / "logs" / "run_0").glob("events.out.tfevents.*"))


def test_the_statistics_of_the_backbone_stay_in_a_training_and_those_of_the_decoder_follow(training, image_stage):
    trained = training.checkpoint("image")["state_dict"]
    assert trained["encoder.backbone.stem.1.num_batches_tracked"] == 0
    assert (trained["encoder.backbone.stem.1.running_mean"] == 0).all()
    assert trained["encoder.smooth.0.1.num_batches_tracked"] == 2


def test_a_training_goes_on_where_it_was_and_begins_anew_where_asked(training, capsys):
    assert training("again", IMAGE_STAGE) == 0
    first = (training.folder / "again" / "logs" / "run_0" / "metrics.csv").read_bytes()
    before = training.checkpoint("again")["state_dict"]
    capsys.readouterr()

    assert training("again", IMAGE_STAGE, "--trainer.max_epochs", "2") == 0
    assert "going on with" in capsys.readouterr().out
    checkpoint = training.checkpoint("again")
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (1, 4)
    assert (training.folder / "again" / "logs" / "run_0" / "metrics.csv").read_bytes() == first
    assert {row["epoch"] for row in training.log("again", 1) if row["train/loss"]} == {"1"}
    name = "encoder.depth_head.0.weight"
    assert not torch.equal(checkpoint["state_dict"][name], before[name])

    assert training("again", IMAGE_STAGE, fresh=True) == 0
    assert "going on with" not in capsys.readouterr().out
    anew = training.checkpoint("again")
    assert (anew["epoch"], anew["global_step"]) == (0, 2) and len(training.log("again", 2)) > 0
    # The same seed, the same frames: the same training.
    for key, value in anew["state_dict"].items():
        torch.testing.assert_close(value, before[key], msg=key)


def test_the_last_state_is_kept_even_where_it_is_not_the_best(training):
    # Nothing is learned, so that no state is better than the first.
    options = ["--trainer.max_epochs", "3", "--model.optimiser.learning_rate", "0.0", "--model.imagenet", "false"]
    assert training("worse", EXPERT_STAGE, *options) == 0
    losses = [float(row["val/loss"]) for row in training.log("worse", 0) if row["val/loss"]]
    assert len(losses) == 3 and len(set(losses)) == 1
    assert torch.load(training.folder / "worse" / "best.ckpt", weights_only=False)["epoch"] == 0
    assert training.checkpoint("worse")["epoch"] == 2 and training.checkpoint("worse")["global_step"] == 6
    assert sorted(path.name for path in (training.folder / "worse").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_a_frozen_encoder_does_not_change_and_the_rest_does(training, image_stage, expert_stage):
    given, trained = training.checkpoint("image")["state_dict"], training.checkpoint("expert")["state_dict"]
    encoder = {name.removeprefix("expert."): value for name, value in trained.items() if ".encoder." in name}
    assert set(encoder) == {name for name in given if name.startswith("encoder.")}
    assert all(torch.equal(value, given[name]) for name, value in encoder.items())
    torch.manual_seed(0)
    new = ExpertStage(ExpertConfig(**SMALL, anchors=AnchorConfig(stride=16)), imagenet=False).state_dict()
    assert trained["expert.blocks.0.lifting.out.weight"].std() > 0
    for name in ("blocks.0.refinement.head.bias", "blocks.0.lifting.weights.weight"):
        assert (new[f"expert.{name}"] == 0).all() and (trained[f"expert.{name}"] != 0).any()


def test_an_expert_is_read_back_as_it_was_trained(training, expert_stage, image_stage):
    expert = load_expert(expert_stage / "last.ckpt")
    assert not expert.training and expert.config.anchors.stride == 16 and expert.config.lifting.count == 4
    trained = training.checkpoint("expert")["state_dict"]
    assert all(torch.equal(value, trained[f"expert.{name}"]) for name, value in expert.state_dict().items())
    (row,) = [row for row in training.log("expert", 0) if row["val/miou"]]
    assert all(0 <= float(row[f"val/{name}"]) <= 1 for name in ("sc_iou", "miou", "sc_iou_frustum", "miou_frustum"))
    with pytest.raises(ValueError, match="not a checkpoint of the expert stage"):
        load_expert(image_stage / "last.ckpt")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_expert(expert_stage / "nothing.ckpt")


def test_wrong_requests_end_in_a_sentence(training, tmp_path, capsys):
    assert cli.main(["train", "--config", str(tmp_path / "no.yaml"), "--out", str(tmp_path)]) == 2
    assert "ours are in config/train/" in capsys.readouterr().err
    assert training("wrong", EXPERT_STAGE, "--model.encoder_from", str(tmp_path / "none.ckpt")) == 2
    assert "train the image stage first" in capsys.readouterr().err


def batch_of(data, size=(64, 48), count: int = 2) -> dict:
    samples = LocalSamples(OccScanNet(data, "val"), size)
    return collate([samples[i] for i in range(count)])


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_frames(data):
    stage = ExpertStage(ExpertConfig(**SMALL, anchors=AnchorConfig(stride=16)), imagenet=False)
    batch = batch_of(data)
    batch["image"][0, 0, 0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="not finite at .*room_val/00000"):
        stage.training_step(batch, 0)


@pytest.mark.parametrize("aggregation", ["decoupled", "additive"])
def test_a_few_steps_lower_the_loss(data, aggregation):
    torch.manual_seed(0)
    config = ExpertConfig(**SMALL, anchors=AnchorConfig(stride=16), aggregation=aggregation)
    stage, batch = ExpertStage(config, imagenet=False).train(), batch_of(data)
    assert not stage.expert.encoder.training and stage.expert.blocks.training
    assert {"depth", "image_classes"} <= set(stage.losses(stage(batch), batch)[0])
    batch["sensor_depth"] = batch["true_depth"]
    stage.expert.encoder.requires_grad_(False)
    optimiser, losses = torch.optim.Adam([p for p in stage.parameters() if p.requires_grad], 2e-2), []
    for _ in range(12):
        found, probabilities, labels = stage.losses(stage(batch), batch)
        losses.append(sum(found.values()))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert set(found) == {"focal", "lovasz", "semantic_scale", "geometric_scale"}
    assert losses[-1] < 0.95 * losses[0]
    assert [len(p) for p in probabilities] == [int((of_one != UNKNOWN).sum()) for of_one in batch["labels"]]


# The encoder of another checkpoint


def save(path: Path, state: dict) -> Path:
    torch.save({"state_dict": state}, path)
    return path


def test_an_encoder_is_taken_from_either_stage(tmp_path):
    torch.manual_seed(1)
    wanted = ImageEncoder(CHANNELS, imagenet=False).state_dict()
    # An expert may hold a depth prior whose own parts are called encoders, too.
    prior = {"expert.prior.model.backbone.encoder.layer.0.weight": torch.zeros(1)}
    for prefix, more in (("encoder.", {}), ("expert.encoder.", prior)):
        path = save(tmp_path / "a.ckpt", {f"{prefix}{name}": value for name, value in wanted.items()} | more)
        encoder = ImageEncoder(CHANNELS, imagenet=False)
        load_encoder(encoder, path)
        assert all(torch.equal(value, wanted[name]) for name, value in encoder.state_dict().items())


def test_an_encoder_that_is_not_there_or_of_another_size_is_refused(tmp_path):
    encoder = ImageEncoder(CHANNELS, imagenet=False)
    with pytest.raises(FileNotFoundError, match="train the image stage first"):
        load_encoder(encoder, tmp_path / "none.ckpt")
    other = ImageEncoder(8, imagenet=False).state_dict()
    for state in ({f"encoder.{name}": value for name, value in other.items()}, {"head.weight": torch.zeros(1)}):
        with pytest.raises(ValueError, match="the same channels"):
            load_encoder(encoder, save(tmp_path / "other.ckpt", state))


# The schedule


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 2)


def rates(config: OptimiserConfig, steps: int) -> np.ndarray:
    """(steps + 1, groups): the learning rates before each step, and after the last."""
    module = Small()
    built = config.build(module, steps)
    optimiser, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert built["lr_scheduler"]["interval"] == "step"
    found = [[group["lr"] for group in optimiser.param_groups]]
    for _ in range(steps):
        optimiser.step()
        schedule.step()
        found.append([group["lr"] for group in optimiser.param_groups])
    return np.array(found)


def test_rates_rise_in_a_line_and_fall_in_a_cosine():
    found = rates(OptimiserConfig(learning_rate=2e-3, warm_up=0.1, lowest=0.05), 200)[:, 0]
    np.testing.assert_allclose(found[:20], 2e-3 * np.arange(1, 21) / 20)
    progress = np.arange(0, 181) / 180
    np.testing.assert_allclose(found[20:], 2e-3 * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * progress))), rtol=1e-9)
    assert found[110] == pytest.approx(2e-3 * 0.525) and found[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_training_of_few_steps_has_a_schedule_too(steps):
    found = rates(OptimiserConfig(learning_rate=1.0, warm_up=0.05, lowest=0.01), steps)[:, 0]
    assert (found > 0).all() and found[0] == 1.0 and found[-1] == pytest.approx(0.01 if steps > 1 else 1.0)


def test_multipliers_slow_down_or_freeze_and_biases_are_not_decayed():
    module = Small()
    built = OptimiserConfig(1e-3, weight_decay=0.02, warm_up=0.0, multipliers={"encoder": 0.1}).build(module, 10)
    groups = {id(p): group for group in built["optimizer"].param_groups for p in group["params"]}
    for part, rate in ((module.encoder, 1e-4), (module.head, 1e-3)):
        for parameter, decay in ((part.weight, 0.02), (part.bias, 0.0)):
            group = groups[id(parameter)]
            assert group["lr"] == pytest.approx(rate) and group["weight_decay"] == decay
    frozen = OptimiserConfig(multipliers={"encoder": 0.0}).build(module, 10)["optimizer"]
    assert not any(p.requires_grad for p in module.encoder.parameters())
    held = [id(p) for group in frozen.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.head.parameters())


def test_the_last_multiplier_that_fits_counts_and_one_that_fits_nothing_is_refused():
    module = Small()
    config = OptimiserConfig(1.0, warm_up=0.0, multipliers={"encoder": 0.0, "encoder.bias": 0.5})
    config.build(module, 10)
    assert module.encoder.bias.requires_grad and not module.encoder.weight.requires_grad
    with pytest.raises(ValueError, match="begins with 'backbone': correct the multipliers"):
        OptimiserConfig(multipliers={"backbone": 0.1, "encoder": 0.1}).build(Small(), 10)


class FrozenPrior(DepthPrior):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, image, intrinsics, own_depth):
        return self.scale * own_depth


def test_a_frozen_prior_stays_frozen():
    stage = ExpertStage(ExpertConfig(**SMALL, anchors=AnchorConfig(stride=16)), imagenet=False)
    stage.expert.prior = FrozenPrior()
    optimiser = OptimiserConfig(multipliers={"expert.encoder": 0.5}).build(stage, 10)["optimizer"]
    assert not stage.expert.prior.scale.requires_grad
    assert all(p is not stage.expert.prior.scale for group in optimiser.param_groups for p in group["params"])


# Scores


@pytest.mark.parametrize("aggregation", ["decoupled", "additive"])
def test_voxel_scores_are_those_of_the_evaluation(aggregation):
    rng = np.random.default_rng(0)
    score, counts, in_image = VoxelScore(aggregation), Counts.nothing(), Counts.nothing()
    for _ in range(3):
        truth = rng.choice([FREE, FREE, *range(1, NUM_CLASSES + 1)], (10, 10, 10)).astype(np.uint8)
        p = rng.dirichlet(np.full(1 + NUM_CLASSES, 0.3), truth.shape) * 0.5
        p += 0.5 * np.eye(1 + NUM_CLASSES)[np.where(rng.random(truth.shape) < 0.5, truth, FREE)]
        frustum = rng.random(truth.shape) < 0.3
        flat = torch.from_numpy(p.reshape(-1, 1 + NUM_CLASSES)), torch.from_numpy(truth.reshape(-1).astype(np.int64))
        score.add(*flat, torch.from_numpy(frustum.reshape(-1)))
        occupied = p[..., 0] <= 0.5 if aggregation == "decoupled" else p[..., 0] < p[..., 1:].max(axis=-1)
        predicted = np.where(occupied, p[..., 1:].argmax(axis=-1) + 1, FREE).astype(np.uint8)
        counts, in_image = counts + Counts.of(predicted, truth), in_image + Counts.of(predicted, truth, frustum)
    figures = score.figures()
    for name, expected in (("", counts.scores()), ("_frustum", in_image.scores())):
        assert figures[f"sc_iou{name}"] == pytest.approx(expected["sc_iou"], abs=1e-12)
        assert figures[f"miou{name}"] == pytest.approx(expected["miou"], abs=1e-12)
    assert figures["miou"] != figures["miou_frustum"]
    assert VoxelScore(aggregation).figures() == dict.fromkeys(figures, 0.0)


@pytest.mark.parametrize("aggregation", ["decoupled", "additive"])
def test_validation_scores_what_the_benchmark_scores(data, aggregation):
    torch.manual_seed(0)
    # The network's image is the frame's own, so nothing is resized on either way.
    config = ExpertConfig(CAMERA.width, CAMERA.height, CHANNELS, 1, AnchorConfig(stride=8), aggregation=aggregation)
    stage = ExpertStage(config, imagenet=False).eval()
    # It sees walls about where the wall is, and much else besides.
    torch.nn.init.normal_(stage.expert.blocks[0].refinement.head.weight, std=0.3)
    torch.nn.init.constant_(stage.expert.encoder.depth_head[-1].bias, math.log(2.3))
    torch.nn.init.constant_(stage.expert.anchors.opacity_bias, 2.0)
    with torch.no_grad():
        stage.expert.encoder.class_head.bias[WALL - 1] = 4.0
    batch = batch_of(data, (CAMERA.width, CAMERA.height))
    score, counts, in_image = VoxelScore(aggregation), Counts.nothing(), Counts.nothing()
    with torch.no_grad():
        _, probabilities, labels = stage.losses(stage(batch), batch)
    predictor = TorchLocal(stage.expert)
    for index, frame in enumerate(OccScanNet(data, "val")):
        score.add(probabilities[index], labels[index], in_view(batch, index))
        predicted, seen = predictor.predict(frame).labels, view_of(frame.camera, frame.pose, frame.grid)
        counts = counts + Counts.of(predicted, frame.labels)
        in_image = in_image + Counts.of(predicted, frame.labels, seen)
    figures = score.figures()
    assert counts.scores()["sc_iou"] > 0.05 and counts.scores()["miou"] > 0.005
    # Which voxels on the image's very edge are in it, single precision may see otherwise.
    for name, expected, close in (("", counts.scores(), 1e-4), ("_frustum", in_image.scores(), 5e-3)):
        assert figures[f"sc_iou{name}"] == pytest.approx(expected["sc_iou"], abs=close)
        assert figures[f"miou{name}"] == pytest.approx(expected["miou"], abs=close)


def test_depth_scores_by_hand():
    truth = torch.tensor([[2.0, 2.0], [4.0, 0.0]])
    abs_rel, delta, scale = depth_errors(torch.tensor([[2.2, 1.0], [4.4, 9.0]]), truth)
    assert abs_rel == pytest.approx((0.1 + 0.5 + 0.1) / 3, abs=1e-6)
    assert delta == pytest.approx(2 / 3) and scale == pytest.approx(math.log(1.1), abs=1e-6)
    assert depth_errors(truth, torch.zeros(2, 2)) == (0.0, 1.0, 0.0)


def test_pixel_scores_add_up_over_images():
    score = ImageScore()
    labels = torch.full((2, 2, 2), UNKNOWN, dtype=torch.uint8)
    labels[0, 0], labels[1, 1, 0] = 3, 5
    predicted = torch.tensor([[[3, 5], [1, 1]], [[2, 2], [5, 2]]])
    logits = torch.nn.functional.one_hot(predicted - 1, NUM_CLASSES).permute(0, 3, 1, 2).float()
    depth = torch.full((1, 1, 2, 2), 2.0)
    for index in (0, 1):
        score.add(
            depth,
            logits[index : index + 1],
            {"true_depth": torch.ones(1, 1, 2, 2), "image_labels": labels[index : index + 1]},
        )
    figures = score.figures()
    # Of class 3 one of two pixels, of class 5 one right and one wrong; nine classes that do not occur.
    assert figures["pixel_miou"] == pytest.approx((1 / 2 + 1 / 2) / NUM_CLASSES)
    assert figures["abs_rel"] == pytest.approx(1.0) and figures["delta_1"] == 0.0
    assert figures["log_scale_error"] == pytest.approx(math.log(2.0))


def test_an_image_stage_begins_from_another_one(tmp_path):
    torch.manual_seed(2)
    first = ImageStage(CHANNELS, imagenet=False)
    path = save(tmp_path / "first.ckpt", first.state_dict())
    second = ImageStage(CHANNELS, str(path))
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())


def test_an_image_stage_judges_with_its_pixels_classes_on_the_surface(image_stage, expert_stage):
    alone = any_expert(image_stage / "last.ckpt", 64, 48)
    image, intrinsics = torch.rand(1, 3, 48, 64), torch.tensor([[50.0, 50.0, 31.5, 23.5]])
    output = alone(image, intrinsics)
    found = alone.encoder(image, intrinsics)
    # One Gaussian per eighth pixel, at its depth, of the class that the pixel's neighbourhood shows.
    assert output.gaussians.means.shape == (1, 48, 3)
    torch.testing.assert_close(output.gaussians.means[0, :, 2], found.depth[0, 0, 4::8, 4::8].flatten())
    assert any_expert(expert_stage / "last.ckpt", 1, 1).config.blocks == 1
    with pytest.raises(FileNotFoundError, match="train the image stage first"):
        any_expert(image_stage / "nothing.ckpt", 64, 48)


def test_adapted_norms_have_the_statistics_of_the_recording(image_stage, tmp_path):
    (tmp_path / "room").mkdir()
    write_room(tmp_path / "room")
    sequence = PosedRgbdSequence(tmp_path / "room")
    expert = any_expert(image_stage / "last.ckpt", 64, 48)
    norm = expert.encoder.backbone.stem[1]
    before = norm.running_mean.clone()
    adapt(expert, sequence, 1.0, every=3, batch=2)
    # Every image of that recording is of one colour: what the first norm sees of it is a convolution of a constant.
    mean, std = (np.array(x) for x in (expert.encoder.mean, expert.encoder.std))
    colour = sequence.frame(0).image[0, 0]
    image = torch.from_numpy(((colour / 255 - mean) / std).astype(np.float32)).view(1, 3, 1, 1).expand(1, 3, 48, 64)
    seen = expert.encoder.backbone.stem[0](image).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, seen, atol=1e-4, rtol=1e-4)
    assert not norm.training and norm.momentum is not None

    half = any_expert(image_stage / "last.ckpt", 64, 48)
    adapt(half, sequence, 0.5, every=3, batch=2)
    torch.testing.assert_close(half.encoder.backbone.stem[1].running_mean, 0.5 * (before + seen), atol=1e-4, rtol=1e-4)


def test_folded_batch_norms_cannot_be_adapted():
    root = Path(__file__).parents[1]
    expert = load_expert(root / "checkpoints" / "compact.pt")
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    with pytest.raises(ValueError, match="batch norms were folded into its convolutions"):
        adapt(expert, PosedRgbdSequence(root / "recordings" / "synth_test_0000"), 0.5)
    assert all(torch.equal(value, before[name]) for name, value in expert.state_dict().items())
