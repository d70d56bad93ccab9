"""Train a model as one YAML file says.

The file holds the model, the data and the trainer; every value can be given on the command line as well
(`--model.optimiser.learning_rate 1e-4`, `--trainer.max_epochs 3`; `--help` lists them all). Checkpoints, the logs for
TensorBoard and a CSV file, and the configuration go to the folder of the training; started again, a training that was
stopped goes on at its last checkpoint.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sgrocc.training.data import LocalData
from sgrocc.training.sequences import SequenceData

LAST = "last.ckpt"


def train(config: Path, out: Path, overrides: list[str] | None = None, fresh: bool = False) -> lightning.Trainer:
    """The training of `config`, in the folder `out`, with command line `overrides`. Returns its trainer."""
    quiet()
    out.mkdir(parents=True, exist_ok=True)
    last = out / LAST
    run = f"run_{len(list(out.glob('logs/run_*')))}"
    if fresh:
        last.unlink(missing_ok=True)
    arguments = ["fit", "--config", str(config), *(overrides or [])]
    if last.is_file():
        print(f"going on with {last}")
        arguments += ["--ckpt_path", str(last)]
    tree = yaml.safe_load(config.read_text())
    of_scenes = str(tree.get("model", {}).get("class_path", "")).endswith("EmbodiedStage")
    cli = LightningCLI(
        datamodule_class=SequenceData if of_scenes else LocalData,
        subclass_mode_model=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "default_root_dir": str(out),
            # One folder of logs per run, as a resumed run would write over the others.
            "logger": [
                TensorBoardLogger(str(out), name="logs", version=run),
                CSVLogger(str(out), name="logs", version=run),
            ],
            "callbacks": [
                ModelCheckpoint(str(out), filename="best", monitor="val/loss", enable_version_counter=False),
                # Not the other one's save_last, which writes only where the loss was the best so far.
                ModelCheckpoint(str(out), filename=Path(LAST).stem, enable_version_counter=False),
                LearningRateMonitor("step"),
                RichProgressBar(refresh_rate=10),
            ],
            "reload_dataloaders_every_n_epochs": 1,
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 10.0,
            "log_every_n_steps": 25,
        },
        args=arguments,
    )
    return cli.trainer


def quiet() -> None:
    """No advice for machines that this one is not."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*GPU available but not used.*",
        ".*isinstance.treespec.*",
        ".*args parameter is intended.*",
        ".*Unable to serialize instance.*",
        ".*exists and is not empty.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", f"(?s){message}")
    torch.set_float32_matmul_precision("high")
