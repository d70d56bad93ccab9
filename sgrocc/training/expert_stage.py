"""The second stage of training: the whole Spatial Expert, on the voxels in front of one image."""

from __future__ import annotations

from dataclasses import asdict

import lightning
import numpy as np
import torch

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.evaluation.metrics import Counts, view_of
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import NUM_CLASSES, UNKNOWN
from sgrocc.model.depth_priors import load_prior
from sgrocc.model.spatial_expert import ExpertConfig, ExpertOutput, SpatialExpert
from sgrocc.model.voxels import known_voxels, tiles_of
from sgrocc.training.image_stage import ImageScore, image_losses, load_encoder
from sgrocc.training.losses import LossWeights, voxel_losses
from sgrocc.training.schedule import OptimiserConfig


class ExpertStage(lightning.LightningModule):
    """config: of the model; encoder_from: checkpoint of the image stage to begin from (None: ImageNet weights alone,
    with `imagenet`); prior: see sgrocc.model.depth_priors.load_prior; weights, optimiser: see there. A multiplier
    {expert.encoder: 0} freezes the encoder and its depth.
    """

    def __init__(
        self,
        config: ExpertConfig | None = None,
        encoder_from: str | None = None,
        imagenet: bool = True,
        prior: str = "own",
        weights: LossWeights | None = None,
        optimiser: OptimiserConfig | None = None,
    ) -> None:
        super().__init__()
        imagenet = imagenet and encoder_from is None
        self.expert = SpatialExpert(config or ExpertConfig(), imagenet, load_prior(prior))
        if encoder_from is not None:
            load_encoder(self.expert.encoder, encoder_from)
        self.weights = weights or LossWeights()
        self.optimiser = optimiser or OptimiserConfig()
        self.optimiser.freeze(self)
        self.train()  # the trainer does not ask for it

    def train(self, mode: bool = True) -> ExpertStage:
        super().train(mode)
        self.expert.encoder.eval()  # its batch norms keep their statistics: batches are small here
        return self

    def forward(self, batch: dict) -> ExpertOutput:
        """The expert's output for a batch of samples (see sgrocc.training.data.Sample)."""
        image = self.expert.encoder.normalised(batch["image"])
        pose = batch["rotation"], batch["translation"]
        return self.expert(image, batch["intrinsics"], batch["sensor_depth"], *pose, batch["prior_depth"])

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        losses, _, _ = self.losses(self(batch), batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise RuntimeError(
                f"the loss is not finite at {batch['name']}: lower the learning rate, or leave these frames out"
            )
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def losses(self, output: ExpertOutput, batch: dict) -> tuple[dict[str, torch.Tensor], list, list]:
        """The weighted losses by name, and of each sample the known voxels' probabilities and labels."""
        per_sample = [
            known_voxels(
                output.gaussians.of(i),
                batch["rotation"][i],
                batch["translation"][i],
                batch["labels"][i],
                VOXEL_M,
                self.expert.config.aggregation,
                1.0 if self.expert.empty_logit is None else self.expert.empty_logit,
            )
            for i in range(len(batch["labels"]))
        ]
        probabilities, labels = (list(part) for part in zip(*per_sample, strict=True))
        p, truth = torch.cat(probabilities), torch.cat(labels)
        if not len(truth):
            raise RuntimeError(f"no voxel of {batch['name']} is known: leave these frames out, or batch more together")
        losses = voxel_losses(p, truth, self.weights)
        if any(parameter.requires_grad for parameter in self.expert.encoder.parameters()):
            losses |= image_losses(output.own_depth, output.class_logits, batch, self.weights)
        return losses, probabilities, labels

    def on_validation_epoch_start(self) -> None:
        self._score = VoxelScore(self.expert.config.aggregation)
        self._image_score = ImageScore()

    def validation_step(self, batch: dict, _: int) -> None:
        output = self(batch)
        losses, probabilities, labels = self.losses(output, batch)
        self.log("val/loss", sum(losses.values()), batch_size=len(labels), sync_dist=True)
        self._image_score.add(output.own_depth, output.class_logits, batch)
        for index, (p, truth) in enumerate(zip(probabilities, labels, strict=True)):
            self._score.add(p, truth, in_view(batch, index))

    def on_validation_epoch_end(self) -> None:
        for name, value in (self._score.figures() | self._image_score.figures()).items():
            self.log(f"val/{name}", value, prog_bar=name in ("sc_iou", "miou"), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["expert_config"] = asdict(self.expert.config)

    def configure_optimizers(self) -> dict:
        return self.optimiser.build(self, int(self.trainer.estimated_stepping_batches))


class VoxelScore:
    """SC-IoU and mIoU of known voxels, all of them and those in the image, by the rule of the running system: occupied
    from probability 1/2 on (decoupled), or where a class beats empty (additive).
    """

    def __init__(self, aggregation: str) -> None:
        self._argmax = aggregation == "additive"
        self._counts = {"": Counts.nothing(), "_frustum": Counts.nothing()}

    def add(self, p: torch.Tensor, labels: torch.Tensor, frustum: torch.Tensor) -> None:
        """p: (V, 12); labels: (V,); frustum: (V,) bool."""
        best = p[:, 1:].argmax(dim=1) + 1
        free = p.argmax(dim=1) == 0 if self._argmax else p[:, 0] > 0.5
        pairs = labels * (NUM_CLASSES + 1) + torch.where(free, 0, best)
        for name, chosen in (("", pairs), ("_frustum", pairs[frustum])):
            table = torch.bincount(chosen.cpu(), minlength=(NUM_CLASSES + 1) ** 2).view(NUM_CLASSES + 1, -1)
            self._counts[name] = self._counts[name] + Counts(table.numpy(), np.zeros(4, np.int64))

    def figures(self) -> dict[str, float]:
        """sc_iou, miou, sc_iou_frustum, miou_frustum, 0 to 1."""
        figures = {}
        for name, counts in self._counts.items():
            scores = counts.scores()
            figures |= {f"sc_iou{name}": scores["sc_iou"] or 0.0, f"miou{name}": scores["miou"] or 0.0}
        return figures


def in_view(batch: dict, index: int) -> torch.Tensor:
    """(V,) bool: which of a sample's known voxels have their centre in the image, in the order of `known_voxels`."""
    height, width = batch["image"].shape[2:]
    camera = PinholeCamera(width, height, *(float(x) for x in batch["intrinsics"][index]))
    pose = Pose(batch["rotation"][index].double().cpu().numpy(), batch["translation"][index].double().cpu().numpy())
    labels = batch["labels"][index]
    seen = view_of(camera, pose, VoxelGrid(np.zeros(3), tuple(labels.shape), VOXEL_M))
    _, tiles = tiles_of(labels, labels)
    _, seen_tiles = tiles_of(labels, torch.from_numpy(seen).to(labels.device))
    return seen_tiles[tiles != UNKNOWN]
