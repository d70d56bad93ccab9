"""The files in config/train as they are: each makes its model, and the paper's recipe takes a step on hand-made files
of Occ-ScanNet; two processes train one model.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from scenes import write_small_set  # noqa: E402
from test_depth_priors import small_model  # noqa: E402
from test_occscannet import Original  # noqa: E402

from sgrocc import cli  # noqa: E402
from sgrocc.model.spatial_expert import SpatialExpert  # noqa: E402
from sgrocc.training.torch_expert import expert_config, load_expert  # noqa: E402

RECIPES = Path(__file__).parents[1] / "config" / "train"

TWO_PROCESSES = """
model:
  class_path: sgrocc.training.expert_stage.ExpertStage
  init_args:
    imagenet: false
    config: {width: 64, height: 48, channels: 16, blocks: 1, anchors: {stride: 16}, lifting: {count: 4}}
    optimiser: {learning_rate: 1.0e-2, multipliers: {expert.encoder: 0.0}}
data:
  config: {root: nowhere, width: 64, height: 48, batch_size: 1, workers: 0, val_frames: 2}
trainer: {max_epochs: 1, accelerator: cpu, strategy: ddp, devices: 2, log_every_n_steps: 1}
"""


@pytest.mark.parametrize("name", ["compact_local", "embodiedocc_local", "occscannet_paper"])
def test_a_recipe_names_a_model_that_can_be_made(name):
    tree = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["model"]["init_args"]["config"]
    config = expert_config(tree)
    assert SpatialExpert(config, imagenet=False).config == config


def test_the_papers_recipe_takes_a_step_on_files_of_the_data_set(tmp_path):
    Original(tmp_path / "data")
    small_model().save_pretrained(tmp_path / "prior")
    arguments = ["train", "--config", str(RECIPES / "occscannet_paper.yaml"), "--data", str(tmp_path / "data")]
    # One process instead of eight, a small prior of random numbers instead of the one that was fine-tuned on ScanNet.
    changes = {
        "model.prior": tmp_path / "prior",
        "trainer.strategy": "auto",
        "trainer.devices": 1,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 1,
        "data.config.workers": 0,
        "data.config.val_frames": 1,
    }
    options = [text for name, value in changes.items() for text in (f"--{name}", str(value))]
    assert cli.main([*arguments, "--out", str(tmp_path / "run"), "--", *options]) == 0

    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 1
    expert = load_expert(tmp_path / "run" / "last.ckpt")
    assert (expert.config.width, expert.config.height, expert.config.channels) == (640, 480, 96)
    assert all(torch.isfinite(parameter).all() for parameter in expert.parameters())


def test_two_processes_share_the_frames_and_end_with_one_model(tmp_path):
    write_small_set(tmp_path / "data", {"train": 4, "val": 2})
    (tmp_path / "two.yaml").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "sgrocc.cli", "train", "--config", str(tmp_path / "two.yaml")]
    run = subprocess.run(
        [*command, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in run.stderr
    # Four frames, one per process and step.
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["global_step"] == 2
    assert all(torch.isfinite(p).all() for p in load_expert(tmp_path / "run" / "last.ckpt").parameters())
