"""The third stage of training: the memory learns what to make of what it remembers, frame by frame along scenes."""

from __future__ import annotations

from dataclasses import asdict

import lightning
import numpy as np
import torch

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.evaluation.predictors import MemoryEmbodied, map_expert, memory_config
from sgrocc.evaluation.protocols import EmbodiedResult, run_embodied
from sgrocc.labels import UNKNOWN
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.model.refinement import RefinementConfig
from sgrocc.model.temporal_fusion import TemporalFusion
from sgrocc.model.voxels import GaussianTensors, known_places, known_voxels
from sgrocc.training.losses import LossWeights, voxel_losses
from sgrocc.training.schedule import OptimiserConfig
from sgrocc.training.sequences import Step, WholeScene
from sgrocc.training.torch_expert import TorchFusion, learned_expert, load_expert

_SMALLEST = 1e-6


class EmbodiedStage(lightning.LightningModule):
    """expert_from: checkpoint of the expert stage; frozen_epochs: of the first phase, in which the expert stays as it
    is and the fusion alone learns (0: both learn from the first frame on); identity: how the fusion begins (eq. 5, or
    at random, for the ablation); refinement: of its head; weights: of the losses; optimiser: with the multipliers of
    the second phase, as {expert: 0.1, expert.encoder: 0}; depth_sigma_m: standard deviation of the expert's own depth,
    as (constant, factor of depth), which `sgrocc export` measures: the memory of a robot will be told the same.

    A step is a frame. Nothing is learned through the memory: what it holds counts as given. Raises ValueError for an
    expert whose Gaussians the memory would splat in another way.
    """

    def __init__(
        self,
        expert_from: str,
        frozen_epochs: int = 5,
        identity: bool = True,
        refinement: RefinementConfig | None = None,
        weights: LossWeights | None = None,
        optimiser: OptimiserConfig | None = None,
        depth_sigma_m: tuple[float, float] = (0.065, 0.164),
    ) -> None:
        super().__init__()
        self.expert = load_expert(expert_from)
        if self.expert.config.aggregation != memory_config().aggregation:
            raise ValueError(
                f"the expert's aggregation is {self.expert.config.aggregation} and the memory's "
                f"{memory_config().aggregation}: choose an expert with the memory's"
            )
        self.fusion = TemporalFusion(self.expert.config.channels, refinement, identity)
        self.frozen_epochs = frozen_epochs
        self.weights = weights or LossWeights()
        self.optimiser = optimiser or OptimiserConfig(multipliers={"expert": 0.1, "expert.encoder": 0.0})
        self.optimiser.freeze(self)
        self._experts = {depth: learned_expert(self.expert, depth, depth_sigma_m) for depth in (False, True)}
        self._fuse = TorchFusion(self.fusion)
        self._memories: dict[str, GaussianMemory] = {}

    def train(self, mode: bool = True) -> EmbodiedStage:
        super().train(mode)
        self.expert.eval()  # no batch norm or dropout of it may change in the first phase
        return self

    @property
    def expert_learns(self) -> bool:
        """Whether this is the second phase."""
        return self.current_epoch >= self.frozen_epochs

    def training_step(self, step: Step, _: int) -> torch.Tensor:
        memory = self._memory_of(step)
        expert = self._experts[step.frame.depth is not None]
        expert.engine.keep_graph = self.expert_learns
        prediction = map_expert(expert)(step.frame)
        self._fuse.keep_graph = True
        memory.fuse(prediction, step.pose)
        losses = self._losses(step, memory, expert.engine.output if self.expert_learns else None)
        # What learns always has a part in the loss, so that a frame in which nothing is seen has a gradient, too. What
        # is frozen must have none: one of zero would let the weights decay.
        learning = self.parameters() if self.expert_learns else self.fusion.parameters()
        total = sum(losses.values()) + 0.0 * sum(p.sum() for p in learning if p.requires_grad)
        if not torch.isfinite(total):
            raise RuntimeError(f"the loss is not finite in {step.scene}: lower the learning rate")
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=1)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=1)
        return total

    def _memory_of(self, step: Step) -> GaussianMemory:
        if step.first or step.scene not in self._memories:
            if len(self._memories) >= step.together:
                self._memories.pop(next(iter(self._memories)))  # the oldest: its scene is done
            self._memories.pop(step.scene, None)
            self._memories[step.scene] = GaussianMemory(memory_config(), self._fuse)
        return self._memories[step.scene]

    def _losses(self, step: Step, memory: GaussianMemory, expert_output) -> dict[str, torch.Tensor]:
        """{name: loss} of the frame alone and of the map, on the voxels that the frame has in view."""
        labels = torch.from_numpy(step.labels)
        if (labels == UNKNOWN).all():
            return {}
        rotation = torch.from_numpy(step.pose.rotation.astype(np.float32))
        translation = torch.from_numpy(step.pose.translation.astype(np.float32))
        losses = {}

        def voxels(name: str, gaussians: GaussianTensors) -> tuple[torch.Tensor, torch.Tensor]:
            p, truth = known_voxels(gaussians, rotation, translation, labels, VOXEL_M)
            losses[name] = sum(voxel_losses(p, truth, self.weights).values())
            return p, truth

        if self._fuse.output is not None and len(self._fuse.output.means):
            p, truth = voxels("local", self._fuse.output)
            p = mixed(p, *(torch.from_numpy(a) for a in memory.voted((known_places(labels) + 0.5) * VOXEL_M)))
            losses["global"] = sum(voxel_losses(p, truth, self.weights).values())
        if expert_output is not None:
            voxels("expert", expert_output.gaussians.of(0))
        return losses

    def on_fit_start(self) -> None:
        # What the fusion and the phases are worth shows beside the scores from before the first step. A training that
        # goes on has them already.
        if self.trainer.global_step == 0:
            self.scores_before = self._score_before()

    def _score_before(self) -> dict[str, float]:
        """Score the validation scenes as they are mapped before the training, in the log as step 0."""
        self.on_validation_epoch_start()
        for whole in self.trainer.datamodule.val_dataloader():
            self.validation_step(whole, 0)
        scores = self._scores()
        for logger in self.trainer.loggers:
            logger.log_metrics({**scores, "epoch": -1.0}, step=0)
        return scores

    def on_validation_epoch_start(self) -> None:
        self._result: EmbodiedResult | None = None

    def validation_step(self, whole: WholeScene, _: int) -> None:
        self._fuse.keep_graph = self._experts[False].engine.keep_graph = False
        result = run_embodied([whole.scene], MemoryEmbodied(map_expert(self._experts[False]), "network", self._fuse))
        self._result = result if self._result is None else self._result + result

    def on_validation_epoch_end(self) -> None:
        for name, value in self._scores().items():
            self.log(name, value, prog_bar=name in ("val/sc_iou", "val/miou"), sync_dist=True)

    def _scores(self) -> dict[str, float]:
        scores = {variant: counts.scores() for variant, counts in self._result.counts[100].items()}
        named = {
            f"val/{key}{suffix}": scores[variant][key] or 0.0
            for variant, suffix in (("all", ""), ("visible", "_visible"), ("occluded", "_occluded"))
            for key in ("sc_iou", "miou")
        }
        return {**named, "val/loss": 1.0 - named["val/sc_iou"] - named["val/miou"]}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["expert_config"] = asdict(self.expert.config)
        checkpoint["fusion_config"] = asdict(self.fusion.refinement.config)

    def configure_optimizers(self) -> dict:
        return self.optimiser.build(self, int(self.trainer.estimated_stepping_batches))


def mixed(p: torch.Tensor, occupancy: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """(V, 12) probabilities of the map's voxels: occupied as the map has it, `occupancy` (V,), with the gradient of the
    frame's own p times its `share` (V,) in the mean; of the classes that the frame gives them.
    """
    occupied = 1 - p[:, :1]
    in_map = (occupancy[:, None] + share[:, None] * (occupied - occupied.detach())).clamp(0.0, 1.0)
    return torch.cat([1 - in_map, in_map * p[:, 1:] / occupied.clamp_min(_SMALLEST)], dim=1)
