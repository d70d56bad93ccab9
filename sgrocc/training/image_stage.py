"""The first stage of training: depth and pixel classes from one image. Its encoder is where the expert begins."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch

from sgrocc.evaluation.recording_score import abs_rel_and_delta
from sgrocc.labels import NUM_CLASSES, UNKNOWN
from sgrocc.model.image_encoder import ImageEncoder
from sgrocc.training.losses import (
    LossWeights,
    image_class_error,
    log_depth_error,
    log_depth_gradient_error,
)
from sgrocc.training.schedule import OptimiserConfig


class ImageStage(lightning.LightningModule):
    """channels: of the encoder's maps; encoder_from: checkpoint to begin from (None: ImageNet weights, with
    `imagenet`); weights, optimiser: see there.
    """

    def __init__(
        self,
        channels: int = 64,
        encoder_from: str | None = None,
        imagenet: bool = True,
        weights: LossWeights | None = None,
        optimiser: OptimiserConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(channels, imagenet and encoder_from is None)
        if encoder_from is not None:
            load_encoder(self.encoder, encoder_from)
        self.weights = weights or LossWeights()
        self.optimiser = optimiser or OptimiserConfig()
        self.optimiser.freeze(self)

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        found = self.encoder(self.encoder.normalised(batch["image"]), batch["intrinsics"])
        losses = image_losses(found.depth, found.class_logits, batch, self.weights)
        total = sum(losses.values())
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def on_validation_epoch_start(self) -> None:
        self._score = ImageScore()

    def validation_step(self, batch: dict, _: int) -> None:
        found = self.encoder(self.encoder.normalised(batch["image"]), batch["intrinsics"])
        self._score.add(found.depth, found.class_logits, batch)
        total = sum(image_losses(found.depth, found.class_logits, batch, self.weights).values())
        self.log("val/loss", total, batch_size=len(batch["name"]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        figures = self._score.figures()
        for name, value in figures.items():
            self.log(f"val/{name}", value, prog_bar=name == "abs_rel", sync_dist=True)

    def configure_optimizers(self) -> dict:
        return self.optimiser.build(self, int(self.trainer.estimated_stepping_batches))


def image_losses(
    depth: torch.Tensor, class_logits: torch.Tensor, batch: dict, weights: LossWeights
) -> dict[str, torch.Tensor]:
    """The weighted losses of an encoder's depth and class logits: depth, depth_gradient, image_classes."""
    losses = {
        "depth": log_depth_error(depth, batch["true_depth"]),
        "depth_gradient": log_depth_gradient_error(depth, batch["true_depth"]),
        "image_classes": image_class_error(class_logits, batch["image_labels"]),
    }
    return {name: value * getattr(weights, name) for name, value in losses.items()}


def read_checkpoint(path: str | Path) -> dict:
    """What either stage left. Raises FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: train the image stage first")
    return torch.load(path, map_location="cpu", weights_only=False)


def encoder_weights(checkpoint: dict) -> dict[str, torch.Tensor]:
    """The state dict of the encoder in either stage's checkpoint; empty where there is none."""
    found = {}
    for name, value in checkpoint.get("state_dict", {}).items():
        for beginning in ("encoder.", "expert.encoder."):
            if name.startswith(beginning):
                found[name[len(beginning) :]] = value
    return found


def load_encoder(encoder: ImageEncoder, checkpoint: str | Path) -> None:
    """Load the encoder of an image stage's, or an expert stage's, checkpoint into another.

    Raises FileNotFoundError where it is missing and ValueError where it holds no such encoder.
    """
    try:
        encoder.load_state_dict(encoder_weights(read_checkpoint(checkpoint)))
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} holds no encoder of this size: train the image stage with the same channels"
        ) from error


class ImageScore:
    """Depth errors, the mean over images, and the mIoU of pixels, whose voxels of all images are added up."""

    def __init__(self) -> None:
        self._depth: list[tuple[float, float, float]] = []
        self._pairs = torch.zeros(NUM_CLASSES + 1, NUM_CLASSES + 1, dtype=torch.int64)

    def add(self, depth: torch.Tensor, class_logits: torch.Tensor, batch: dict) -> None:
        for of_image, truth in zip(depth.detach(), batch["true_depth"], strict=True):
            self._depth.append(depth_errors(of_image, truth))
        predicted = class_logits.detach().argmax(dim=1) + 1
        truth = batch["image_labels"].long()
        known = truth != UNKNOWN
        pairs = truth[known] * (NUM_CLASSES + 1) + predicted[known]
        self._pairs += torch.bincount(pairs.cpu(), minlength=self._pairs.numel()).view_as(self._pairs)

    def figures(self) -> dict[str, float]:
        """abs_rel, delta_1 (share with a ratio under 1.25), log_scale_error (deviation of whole images), pixel_miou."""
        abs_rel, delta, scale = (float(sum(x) / len(x)) for x in zip(*self._depth, strict=True))
        hits = self._pairs.diagonal()[1:].double()
        union = (self._pairs.sum(0) + self._pairs.sum(1))[1:].double() - hits
        return {
            "abs_rel": abs_rel,
            "delta_1": delta,
            "log_scale_error": scale,
            "pixel_miou": float((hits / union.clamp_min(1)).mean()),
        }


def depth_errors(depth: torch.Tensor, truth: torch.Tensor) -> tuple[float, float, float]:
    """AbsRel, delta < 1.25, and |ln of the median ratio| of one depth map; truth 0 where unknown."""
    known = truth > 0
    d, t = depth[known].double(), truth[known].double()
    if not len(t):
        return 0.0, 1.0, 0.0
    scale = float((torch.log(d) - torch.log(t)).median().abs())
    return *abs_rel_and_delta(d.cpu().numpy(), t.cpu().numpy()), scale
