"""Scenes of EmbodiedOcc-ScanNet or SynthRooms, frame by frame in the order in which they were taken, for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet, EmbodiedScene
from sgrocc.evaluation.predictors import depth_of, pose_in_grid
from sgrocc.evaluation.protocols import spread
from sgrocc.experts import Frame
from sgrocc.geometry import Pose
from sgrocc.training.data import Augmentation, photographed


@dataclass
class SequenceConfig:
    """root: folder of the data set; scenes: of training per epoch, drawn anew for each (0: all); together: how many are
    mapped at a time, a frame of each in turn, as a scene's frames are too much alike to learn from one after the other
    (the trainer adds up as many: accumulate_grad_batches); frames: of a scene, the first ones (0: all); sensor: share
    of the scenes in which a depth sensor is given; val_split, val_scenes: what is scored after each epoch (0: all);
    augmentation: of colours alone, as a scene's frames must fit each other.
    """

    root: str = "out/synthrooms"
    scenes: int = 0
    together: int = 1
    frames: int = 0
    sensor: float = 0.3
    workers: int = 1
    val_split: str = "val"
    val_scenes: int = 0
    seed: int = 0
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(flip=0.0, max_zoom=1.0, stretch=0.0))

    def __post_init__(self) -> None:
        if not 0 <= self.sensor <= 1:
            raise ValueError(f"the share of scenes with a depth sensor is {self.sensor:g}: give a number from 0 to 1")
        a = self.augmentation
        if a.flip or a.max_zoom != 1 or a.stretch:
            raise ValueError(
                "the frames of a scene cannot be mirrored, cropped or stretched: set flip, stretch to 0 and max_zoom "
                "to 1"
            )


class Step:
    """One frame of a scene that is being mapped. scene: its name; first: whether the map begins here; together: how
    many scenes are mapped at a time; frame: what the expert is shown; pose: camera to the corner of the scene's grid;
    labels: (X, Y, Z) uint8 of the scene, UNKNOWN where this frame does not look.
    """

    def __init__(self, scene: str, first: bool, together: int, frame: Frame, pose: Pose, labels: np.ndarray) -> None:
        self.scene, self.first, self.together = scene, first, together
        self.frame, self.pose, self.labels = frame, pose, labels


class WholeScene:
    """A scene to be scored, in something that the trainer does not look into."""

    def __init__(self, scene: EmbodiedScene) -> None:
        self.scene = scene


class Steps(Dataset):
    """The frames of scenes; item (scene, frame) of what `ScenesInOrder` draws."""

    def __init__(self, scenes: EmbodiedOccScanNet, config: SequenceConfig) -> None:
        self.scenes, self.config, self.epoch = scenes, config, 0
        self._open: dict[int, EmbodiedScene] = {}

    def __getitem__(self, place: tuple[int, int]) -> Step:
        index, number = place
        if index not in self._open:
            if len(self._open) >= self.config.together:
                self._open.pop(next(iter(self._open)))  # the oldest
            self._open[index] = self.scenes[index]
        scene = self._open[index]
        frame = scene.frames[number]
        of_scene = np.random.default_rng([self.config.seed, self.epoch, index])
        depth = depth_of(frame, "sensor" if of_scene.random() < self.config.sensor else "network")
        rng = np.random.default_rng([self.config.seed, self.epoch, index, number])
        image = np.uint8(255 * photographed(frame.image(), self.config.augmentation, rng) + 0.5)
        labels = np.where(frame.mask, frame.global_labels(), np.uint8(255))
        pose = pose_in_grid(frame.pose, scene.grid)
        return Step(scene.name, number == 0, self.config.together, Frame(image, frame.camera, depth), pose, labels)


class ScenesInOrder(Sampler):
    """(scene, frame) of one process's share: all frames of its scenes in order, `together` scenes in turn.

    lengths: frames of each scene; order: the scenes of the epoch, dealt out among `processes`. All processes take as
    many steps, those of the one that has fewest.
    """

    def __init__(
        self, lengths: list[int], order: list[int], process: int = 0, processes: int = 1, together: int = 1
    ) -> None:
        dealt = [order[number::processes] for number in range(processes)]
        self._steps = min(sum(lengths[i] for i in scenes) for scenes in dealt)
        if not self._steps:
            raise ValueError(f"{len(order)} scenes are too few for {processes} processes: each needs one of its own")
        scenes = dealt[process]
        self._places = [
            (i, number)
            for group in (scenes[first : first + together] for first in range(0, len(scenes), together))
            for number in range(max(lengths[i] for i in group))
            for i in group
            if number < lengths[i]
        ]

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._places[: self._steps])


class SequenceData(lightning.LightningDataModule):
    """Scenes for the trainer, which must not deal out frames itself (use_distributed_sampler: false)."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config

    def setup(self, stage: str | None = None) -> None:
        c = self.config
        self.train = Steps(EmbodiedOccScanNet(Path(c.root), "train"), c)
        lengths = [len(scene.frames) for scene in self.train.scenes]
        self._lengths = [min(n, c.frames or n) for n in lengths]

    def train_dataloader(self) -> DataLoader:
        # The trainer asks again before every epoch (reload_dataloaders_every_n_epochs: 1).
        c = self.config
        self.train.epoch = self.trainer.current_epoch if self.trainer is not None else 0
        order = np.random.default_rng([c.seed, self.train.epoch]).permutation(len(self._lengths)).tolist()
        process, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = ScenesInOrder(self._lengths, order[: c.scenes or None], process, processes, c.together)
        return DataLoader(self.train, batch_size=None, sampler=sampler, num_workers=c.workers, collate_fn=_as_it_is)

    def val_dataloader(self) -> DataLoader:
        """Whole scenes."""
        c = self.config
        scenes = EmbodiedOccScanNet(Path(c.root), c.val_split)
        chosen = torch.utils.data.Subset(scenes, spread(len(scenes), c.val_scenes))
        return DataLoader(chosen, batch_size=None, collate_fn=WholeScene)


def _as_it_is(item: Step) -> Step:
    return item
