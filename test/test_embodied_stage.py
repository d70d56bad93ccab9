"""The third stage: what is learned when, and that training maps a scene as a robot does."""

import copy
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scenes import CAMERA, LOOKING_ALONG_X

torch = pytest.importorskip("torch")

import lightning  # noqa: E402

from sgrocc.cli import main  # noqa: E402
from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet  # noqa: E402
from sgrocc.datasets.layout import write_frame, write_global, write_split, write_stream  # noqa: E402
from sgrocc.evaluation.predictors import MemoryEmbodied, dense_labels, make, map_expert  # noqa: E402
from sgrocc.evaluation.protocols import run_embodied  # noqa: E402
from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.geometry import Pose, VoxelGrid  # noqa: E402
from sgrocc.labels import CHAIR, FLOOR, FREE, UNKNOWN, WALL  # noqa: E402
from sgrocc.model.anchors import AnchorConfig  # noqa: E402
from sgrocc.model.spatial_expert import ExpertConfig, SpatialExpert  # noqa: E402
from sgrocc.model.voxels import known_places, known_voxels  # noqa: E402
from sgrocc.training.data import Augmentation  # noqa: E402
from sgrocc.training.embodied_stage import EmbodiedStage, mixed  # noqa: E402
from sgrocc.training.schedule import OptimiserConfig  # noqa: E402
from sgrocc.training.sequences import ScenesInOrder, SequenceConfig, SequenceData  # noqa: E402

FRAMES = 4


def write_scenes(root, names: dict[str, list[str]]) -> None:
    """Rooms of a floor, a wall 2.4 m ahead and a chair, seen by a camera that moves sideways."""
    grid = VoxelGrid(np.array([0.0, -2.4, -0.8]), (60, 60, 36), 0.08)
    labels = np.full(grid.shape, FREE, np.uint8)
    labels[:, :, 0], labels[30:32], labels[32:], labels[20:24, 20:26, 1:6] = FLOOR, WALL, UNKNOWN, CHAIR
    rng = np.random.default_rng(10)
    for split, scenes in names.items():
        for scene in scenes:
            paths = []
            for frame in range(FRAMES):
                path = write_frame(
                    root,
                    scene,
                    frame,
                    pose=Pose(LOOKING_ALONG_X, np.array([0.0, 0.1 * frame, 0.3])),
                    camera=CAMERA,
                    voxel_origin=grid.origin,
                    labels=labels,
                    image=rng.integers(0, 255, (CAMERA.height, CAMERA.width, 3), np.uint8),
                    depth=np.full((CAMERA.height, CAMERA.width), 2.4, np.float32),
                )
                mask = np.zeros(grid.shape, bool)
                mask[5:, 10:50] = True
                write_stream(root, split, scene, frame, local_label=labels, mask_in_global=mask)
                paths.append(path)
            write_global(root, scene, grid=grid, labels=labels, mask=mask, image_paths=paths)
        write_split(root, split, "local", [(scene, frame) for scene in scenes for frame in range(FRAMES)])
        write_split(root, split, "embodied", scenes)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(data, checkpoint of a small expert)."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "data", {"train": ["room_a", "room_b", "room_c"], "val": ["room_v"]})
    torch.manual_seed(0)
    config = ExpertConfig(64, 48, channels=16, blocks=1, anchors=AnchorConfig(stride=8))
    expert = SpatialExpert(config, imagenet=False)
    # Of one class it is fairly sure, so that confidences differ.
    with torch.no_grad():
        expert.encoder.class_head.bias[CHAIR - 1] = 1.0
    weights = {f"expert.{name}": value for name, value in expert.state_dict().items()}
    torch.save({"expert_config": asdict(config), "state_dict": weights}, root / "expert.pt")
    return root / "data", root / "expert.pt"


def trained(world, epochs: int, frozen_epochs: int, **data):
    torch.manual_seed(0)
    optimiser = OptimiserConfig(1e-2, multipliers={"expert": 0.1, "expert.encoder": 0.0})
    stage = EmbodiedStage(str(world[1]), frozen_epochs, optimiser=optimiser)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(stage, SequenceData(SequenceConfig(str(world[0]), workers=0, **data)))
    changed = {name for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}
    return stage, trainer, changed


def test_in_the_first_phase_the_expert_stays_as_it_is_to_the_bit(world):
    stage, trainer, changed = trained(world, epochs=1, frozen_epochs=1, sensor=0.5)
    assert trainer.global_step == 3 * FRAMES, "a step is a frame"
    assert {"fusion.fusion.history.weight", "fusion.fusion.current.weight", "fusion.refinement.head.weight"} <= changed
    assert not {name for name in changed if name.startswith("expert.")}
    # Scored before the first step as well: as the expert without a fusion.
    plain = MemoryEmbodied(map_expert(stage._experts[False]), "network")
    counts = run_embodied(EmbodiedOccScanNet(world[0], "val"), plain).counts[100]["all"].scores()
    assert stage.scores_before["val/sc_iou"] == counts["sc_iou"] and stage.scores_before["val/miou"] == counts["miou"]
    assert {"val/sc_iou", "val/miou", "val/miou_occluded", "train/global", "train/local"} <= set(
        trainer.callback_metrics
    )


def test_in_the_second_phase_the_expert_follows_at_a_tenth_and_its_encoder_never(world):
    stage, trainer, changed = trained(world, epochs=1, frozen_epochs=0, sensor=0.0)
    assert any(name.startswith("expert.blocks.0.lifting") for name in changed)
    assert not {name for name in changed if name.startswith("expert.encoder.")}
    rates = {}
    for group in trainer.optimizers[0].param_groups:
        for parameter in group["params"]:
            (name,) = [n for n, p in stage.named_parameters() if p is parameter]
            rates[name] = group["initial_lr"]
    assert {rate for name, rate in rates.items() if name.startswith("fusion.")} == {1e-2}
    assert {round(rate, 12) for name, rate in rates.items() if name.startswith("expert.")} == {1e-3}
    assert not [name for name in rates if name.startswith("expert.encoder.")]
    assert "train/expert" in trainer.callback_metrics


def mapped_by_training(world):
    """(stage, steps): a scene mapped by steps of the training, without augmentation."""
    stage, _, _ = trained(world, epochs=1, frozen_epochs=1, sensor=0.0, scenes=1)
    plain = Augmentation.none()
    data = SequenceData(SequenceConfig(str(world[0]), workers=0, sensor=0.0, scenes=1, augmentation=plain))
    data.setup()
    steps = list(data.train_dataloader())
    stage.log = stage.log_dict = lambda *_, **__: None
    stage._trainer = type("Trainer", (), {"current_epoch": 0})()
    for index, step in enumerate(steps):
        stage.training_step(step, index)
    return stage, steps


def test_training_maps_a_scene_as_a_robot_does(world):
    stage, steps = mapped_by_training(world)
    scene = next(s for s in EmbodiedOccScanNet(world[0], "train") if s.name == steps[0].scene)
    stage._fuse.keep_graph = False
    running = MemoryEmbodied(map_expert(stage._experts[False]), "network", stage._fuse)
    running.start(scene)
    for frame in scene.frames:
        running.add(frame)
    ours, theirs = stage._memories[steps[0].scene].gaussians(), running._memory.gaussians()
    assert len(ours) > 50
    for name, array in ours.arrays().items():
        np.testing.assert_array_equal(array, theirs.arrays()[name])


def test_the_exported_files_map_a_scene_as_the_training_does(world, tmp_path):
    stage, steps = mapped_by_training(world)
    checkpoint = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "embodied.pt")
    sigma = 0.065, 0.164
    arguments = ["export", "--checkpoint", str(tmp_path / "embodied.pt"), "--out", str(tmp_path / "model")]
    assert main([*arguments, "--depth-sigma-m", *map(str, sigma)]) == 0
    scene = next(s for s in EmbodiedOccScanNet(world[0], "train") if s.name == steps[0].scene)
    robot = make(tmp_path / "model", "embodied", "network")
    plain = MemoryEmbodied(robot.expert, "network")
    for memory in (robot, plain):
        memory.start(scene)
        for frame in scene.frames:
            memory.add(frame)
    trained_map = stage._memories[steps[0].scene]
    known = trained_map.snapshot()
    labels = dense_labels(known.indices, known.labels, scene.grid.shape)
    occupied = labels > 0
    assert occupied.sum() > 300
    # Sums of another order: a voxel at the very threshold may fall to the other side.
    assert (robot.labels() != labels).sum() <= 0.002 * occupied.sum()
    assert (plain.labels() != labels).sum() > 0.02 * occupied.sum(), "the fusion has something to say here"
    assert abs(len(robot.gaussians()) - len(trained_map)) <= 0.002 * len(trained_map)


def test_the_map_has_its_own_values_and_the_gradient_of_the_frames_share(world):
    stage, steps = mapped_by_training(world)
    step, memory = steps[-1], stage._memories[steps[-1].scene]
    memory.fusion = None  # its graph cannot be copied
    memory = copy.deepcopy(memory)
    labels = torch.from_numpy(step.labels)
    places = (known_places(labels) + 0.5) * 0.08
    np.testing.assert_array_equal(
        labels.numpy()[tuple(known_places(labels).T)], stage_voxels(stage._fuse.output, step)[1].numpy()
    )
    before, _ = memory.voted(places)
    said = stage._fuse.output
    prediction = map_expert(stage._experts[False])(step.frame)
    shares = {}
    for factor in (1.0, 0.999):
        # A fusion that answers what the last frame's did, with opacities a little lower.
        answer = Gaussians(*(tensor.detach().numpy() for tensor in said))
        answer = replace(answer, opacities=answer.opacities * np.float32(factor))
        again = copy.deepcopy(memory)
        again.fusion = lambda *_, answer=answer: answer
        # Associated anew with the map that the frame has already changed, a frame has as many Gaussians.
        again.fuse(prediction, step.pose)
        shares[factor] = again.voted(places)
    (after, share), (lower, _) = shares[1.0], shares[0.999]
    leaf = said.opacities.detach().requires_grad_()
    p, _ = stage_voxels(said._replace(opacities=leaf), step)
    # What the map holds is the mean of what it held and of what training's splat says.
    voted = share > 0
    assert voted.sum() > 500 and len(np.unique(share)) > 8
    expected = before + share * (1 - p[:, 0].detach().numpy() - before)
    np.testing.assert_allclose(after[voted], expected[voted], atol=2e-6)
    in_map = mixed(p, torch.from_numpy(after), torch.from_numpy(share))
    np.testing.assert_allclose(1 - in_map[:, 0].detach().numpy(), after, atol=1e-6)
    np.testing.assert_allclose(in_map.sum(dim=1).detach().numpy(), 1, atol=0.02)
    weights = torch.linspace(1, 2, len(places))
    ((1 - in_map[:, 0]) * weights).sum().backward()
    slope = float((leaf.grad * leaf.detach()).sum())
    measured = float((((after - lower) / 0.001) * weights.numpy()).sum())
    assert slope == pytest.approx(measured, rel=0.02) and slope > 1


def stage_voxels(gaussians, step):
    rotation, translation = (
        torch.from_numpy(a.astype(np.float32)) for a in (step.pose.rotation, step.pose.translation)
    )
    return known_voxels(gaussians, rotation, translation, torch.from_numpy(step.labels), 0.08)


def test_every_process_takes_as_many_steps_through_scenes_of_its_own():
    lengths = [3, 5, 2, 4, 30]
    first, second = (list(ScenesInOrder(lengths, [4, 0, 2, 1, 3], process, 2)) for process in range(2))
    assert len(first) == len(second) == len(ScenesInOrder(lengths, [4, 0, 2, 1, 3], 0, 2)) == 8
    assert first == [(4, n) for n in range(8)] and second == [(0, 0), (0, 1), (0, 2), *[(1, n) for n in range(5)]]
    with pytest.raises(ValueError, match="1 scenes are too few for 2 processes"):
        ScenesInOrder(lengths, [0], 0, 2)
    # Two scenes in turn, then the next two; of the longer one the rest.
    in_turn = list(ScenesInOrder(lengths, [0, 2, 3], together=2))
    assert in_turn == [(0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (3, 0), (3, 1), (3, 2), (3, 3)]
    assert list(ScenesInOrder(lengths, [2, 0])) == [(2, 0), (2, 1), (0, 0), (0, 1), (0, 2)]


def test_scenes_mapped_in_turn_have_maps_of_their_own(world):
    def maps(together: int) -> dict:
        stage, _, _ = trained(world, epochs=1, frozen_epochs=1, sensor=0.0, scenes=1)
        plain = Augmentation.none()
        config = SequenceConfig(str(world[0]), workers=0, sensor=0.0, together=together, augmentation=plain)
        data = SequenceData(config)
        data.setup()
        stage.log = stage.log_dict = lambda *_, **__: None
        stage._trainer = type("Trainer", (), {"current_epoch": 0})()
        found = {}
        for index, step in enumerate(data.train_dataloader()):
            stage.training_step(step, index)
            found[step.scene] = stage._memories[step.scene].snapshot()
            assert len(stage._memories) <= together
        return found

    one_by_one, in_turn = maps(1), maps(3)
    assert len(one_by_one) == 3
    for scene, update in one_by_one.items():
        np.testing.assert_array_equal(update.labels, in_turn[scene].labels)


def test_two_processes_share_a_training_with_gaussians_of_different_number(world, tmp_path):
    """Both phases: in the first the expert has no gradient, which processes that share a training must expect."""
    command = [
        *(sys.executable, "-m", "sgrocc", "train", "--config", "config/train/compact_embodied.yaml"),
        *("--data", str(world[0]), "--out", str(tmp_path), "--"),
        *("--model.expert_from", str(world[1]), "--model.frozen_epochs", "1", "--trainer.max_epochs", "2"),
        *("--data.config.scenes", "2", "--data.config.workers", "0", "--trainer.devices", "2"),
        *("--data.config.together", "1", "--trainer.accumulate_grad_batches", "1"),
        *("--trainer.strategy", "ddp_find_unused_parameters_true", "--trainer.log_every_n_steps", "1"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    content = torch.load(tmp_path / "last.ckpt", map_location="cpu", weights_only=False)
    assert content["global_step"] == 2 * FRAMES, "two scenes, a process each"
    before = torch.load(world[1], weights_only=True)["state_dict"]
    weights = content["state_dict"]
    learned = {name for name, value in before.items() if not torch.equal(weights[name], value)}
    assert learned and not {name for name in learned if name.startswith("expert.encoder.")}
    assert weights["fusion.fusion.history.weight"].abs().max() > 0
