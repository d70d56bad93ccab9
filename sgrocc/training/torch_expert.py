"""A torch expert under the benchmark's protocols, as its exported file would run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation.predictors import LocalPrediction, expert_frame, labels_of, pose_in_grid
from sgrocc.experts import Frame
from sgrocc.experts.learned import LearnedExpert, network_inputs
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.inference.manifest import OPSET, ModelManifest
from sgrocc.labels import CLASS_NAMES
from sgrocc.model.anchors import AnchorConfig
from sgrocc.model.lifting import LiftingConfig
from sgrocc.model.refinement import RefinementConfig
from sgrocc.model.spatial_expert import ExpertConfig, ExpertOutput, SpatialExpert
from sgrocc.model.temporal_fusion import TemporalFusion
from sgrocc.model.voxels import GaussianTensors
from sgrocc.splatting import splat_grid
from sgrocc.training.image_stage import encoder_weights, read_checkpoint

if TYPE_CHECKING:
    from sgrocc.datasets.occscannet import LocalFrame

_PARTS = {"anchors": AnchorConfig, "lifting": LiftingConfig, "refinement": RefinementConfig}


def expert_config(fields: dict) -> ExpertConfig:
    """An ExpertConfig from nested dictionaries, as `asdict` makes them."""
    parts = {name: make(**fields[name]) for name, make in _PARTS.items() if name in fields}
    return ExpertConfig(**{**fields, **parts})


def load_expert(checkpoint: str | Path, stride: int | None = None, reading: str | None = None) -> SpatialExpert:
    """The expert of an ExpertStage's checkpoint, in evaluation mode; with another stride of its anchors, or another
    reading of its maps, than it was trained with, where given. Raises FileNotFoundError or ValueError.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: train the model first, or name another")
    content = read_checkpoint(path)
    if "expert_config" not in content:
        raise ValueError(f"{path} is not a checkpoint of the expert stage: train with config/train/*_local.yaml")
    return _expert_in(content, stride, reading)


def _expert_in(content: dict, stride: int | None = None, reading: str | None = None) -> SpatialExpert:
    config = expert_config(content["expert_config"])
    if stride:
        config.anchors = replace(config.anchors, stride=stride)
    if reading:
        config.lifting = replace(config.lifting, reading=reading)
    expert = SpatialExpert(config, imagenet=False)
    weights = _weights_of("expert.", content)
    # Another prior's weights are its own affair: set `expert.prior` to have it back.
    expert.load_state_dict({name: value for name, value in weights.items() if not name.startswith("prior.")})
    return expert.eval()


def _weights_of(part: str, content: dict) -> dict[str, torch.Tensor]:
    """The state dict of a stage's part in its checkpoint; empty where there is none."""
    return {k[len(part) :]: v for k, v in content.get("state_dict", {}).items() if k.startswith(part)}


def load_fusion(checkpoint: str | Path) -> TemporalFusion | None:
    """What an EmbodiedStage's checkpoint holds for the memory, in evaluation mode; None in other stages'.

    Raises FileNotFoundError, and ValueError for a checkpoint whose fusion's settings are missing.
    """
    content = read_checkpoint(checkpoint)
    if "fusion_config" not in content:
        if _weights_of("fusion.", content):
            raise ValueError(f"{checkpoint} does not say how its fusion is made: train it again with this version")
        return None
    channels = content["expert_config"]["channels"]
    fusion = TemporalFusion(channels, RefinementConfig(**content["fusion_config"]))
    fusion.load_state_dict(_weights_of("fusion.", content))
    return fusion.eval()


def any_expert(checkpoint: str | Path, width: int, height: int) -> SpatialExpert:
    """The expert of an ExpertStage's checkpoint or, of an ImageStage's, what its encoder alone knows: the classes of
    pixels, on the surface of its depth, for images of that size. Raises FileNotFoundError or ValueError.
    """
    content = read_checkpoint(checkpoint)
    if "expert_config" in content:
        return _expert_in(content)
    weights = encoder_weights(content)
    if not weights:
        raise ValueError(f"{checkpoint} holds no encoder: give a checkpoint of sgrocc train")
    channels = weights["class_head.weight"].shape[1]
    config = ExpertConfig(width, height, channels, blocks=0, anchors=AnchorConfig(stride=8, offsets_m=(0.0,)))
    expert = SpatialExpert(config, imagenet=False)
    expert.encoder.load_state_dict(weights)
    return expert.eval()


@torch.no_grad()
def adapt(expert: SpatialExpert, sequence: PosedRgbdSequence, share: float, every: int = 6, batch: int = 8) -> None:
    """Move the statistics of the image backbone's batch norms towards a recording's (AdaBN, Li et al. 2017).

    share: 0 for no change, 1 for the recording's alone; every: how many frames apart those are that are looked at.
    Raises ValueError for another share, and for an encoder whose batch norms were folded into its convolutions.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the recording's statistics is {share:g}: give a number from 0 to 1")
    config, encoder = expert.config, expert.encoder
    norms = [m for m in encoder.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    # Of a network that was never trained the scales are one as well, but there is no shift.
    scaled = any((norm.weight != norm.weight[0]).any() for norm in norms)
    if not scaled and any(norm.bias.any() for norm in norms):
        raise ValueError(
            "the checkpoint's batch norms were folded into its convolutions, so that nothing is left to adapt: give "
            "one of a training"
        )
    images = [
        network_inputs(
            Frame(sequence.frame(i).image, sequence.camera), config.width, config.height, encoder.mean, encoder.std
        )["image"]
        for i in range(0, len(sequence), every)
    ]
    before = [(n.running_mean.clone(), n.running_var.clone(), n.momentum) for n in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for first in range(0, len(images), batch):
        encoder.backbone(torch.from_numpy(np.concatenate(images[first : first + batch])))
    for norm, (mean, variance, momentum) in zip(norms, before, strict=True):
        norm.running_mean.copy_(mean.lerp(norm.running_mean, share))
        norm.running_var.copy_(variance.lerp(norm.running_var, share))
        norm.momentum = momentum
    expert.eval()


class TorchEngine:
    """Runs an expert in torch where an exported file would run: see sgrocc.inference.engine.

    keep_graph: whether the last answer stays in `output` with its gradients, for training.
    """

    def __init__(self, expert: SpatialExpert) -> None:
        self.expert = expert.eval()
        self.keep_graph = False
        self.output: ExpertOutput | None = None

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [torch.from_numpy(inputs[name]) for name in ("image", "intrinsics", "sensor_depth")]
        with torch.set_grad_enabled(self.keep_graph):
            output = self.expert(*tensors)
        self.output = output if self.keep_graph else None
        arrays = {"depth": output.depth, **output.gaussians._asdict()}
        if output.gates is not None:
            arrays["gates"] = output.gates
        return {name: tensor.detach().numpy() for name, tensor in arrays.items()}


class TorchFusion:
    """Runs a TemporalFusion in torch where an exported file would run: what a GaussianMemory takes as its fusion.

    keep_graph: whether the last answer stays in `output` (N, ...), with its gradients, for training.
    """

    def __init__(self, fusion: TemporalFusion) -> None:
        self.fusion = fusion
        self.keep_graph = False
        self.output: GaussianTensors | None = None

    def __call__(
        self, gaussians: Gaussians, history: np.ndarray, depth: np.ndarray, camera: PinholeCamera
    ) -> Gaussians:
        given = GaussianTensors(*(torch.from_numpy(array)[None] for array in gaussians.arrays().values()))
        intrinsics = torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32)
        with torch.set_grad_enabled(self.keep_graph):
            history, depth = torch.from_numpy(history)[None], torch.from_numpy(depth)[None, None]
            found = self.fusion(given, history, depth, intrinsics).of(0)
        self.output = found if self.keep_graph else None
        return Gaussians(*(tensor.detach().numpy() for tensor in found))


def learned_expert(
    expert: SpatialExpert, use_sensor_depth: bool = False, depth_sigma_m: tuple[float, float] = (0.1, 0.05)
) -> LearnedExpert:
    """The expert as the nodes would have it, for those who ask for one: only ray anchors can run without a pose.

    depth_sigma_m: of the network's own depth, as (constant, factor of depth).
    """
    config = expert.config
    manifest = ModelManifest(
        name="in memory",
        description="not exported",
        onnx_path=Path("in memory"),
        sha256="",
        opset=OPSET,
        inputs={},
        outputs={},
        image_width=config.width,
        image_height=config.height,
        image_mean=expert.encoder.mean,
        image_std=expert.encoder.std,
        classes=CLASS_NAMES,
        resolution_m=VOXEL_M,
        feature_size=config.channels,
        depth_sigma_m=depth_sigma_m,
        takes_depth=True,
        intrinsics="scaled_to_input",
        semantic=True,
        trained_on="",
        licence="",
    )
    return LearnedExpert(manifest, TorchEngine(expert), use_sensor_depth)


class TorchLocal:
    """The local protocol's predictor. depth: true, sensor, network, or a function (true depth, rng) that makes
    another prior's depth;

    pose_noise_m, pose_noise_share: deviations of an error of the camera's place, in metres and as a share of the median
    depth, drawn for each frame.
    """

    def __init__(
        self, expert: SpatialExpert, depth="network", pose_noise_m: float = 0.0, pose_noise_share: float = 0.0
    ):
        self.expert = expert.eval()
        self.depth = depth
        self.noise = pose_noise_m, pose_noise_share

    @torch.no_grad()
    def output(self, frame: LocalFrame) -> ExpertOutput:
        """What the expert makes of a frame."""
        config = self.expert.config
        kind = self.depth if isinstance(self.depth, str) else "true"
        shown = expert_frame(frame, kind)
        inputs = network_inputs(shown, config.width, config.height, self.expert.encoder.mean, self.expert.encoder.std)
        prior_depth = None
        if not isinstance(self.depth, str):
            wrong = self.depth(inputs["sensor_depth"][0, 0], np.random.default_rng([7, frame.frame]))
            prior_depth = torch.from_numpy(wrong[None, None])
            inputs["sensor_depth"] = np.zeros_like(inputs["sensor_depth"])
        pose = pose_in_grid(frame.pose, frame.grid)
        tensors = [torch.from_numpy(inputs[name]) for name in ("image", "intrinsics", "sensor_depth")]
        rotation, translation = (
            torch.from_numpy(a[None].astype(np.float32)) for a in (pose.rotation, pose.translation)
        )
        return self.expert(*tensors, rotation, translation, prior_depth)

    def predict(self, frame: LocalFrame) -> LocalPrediction:
        """Labels of the frame's grid."""
        return LocalPrediction(labels_of(*self.voxels(frame)), None)

    def voxels(self, frame: LocalFrame) -> tuple[np.ndarray, np.ndarray]:
        """Occupancy (X, Y, Z) and class scores (X, Y, Z, 11) of the frame's grid: see sgrocc.splatting.splat_grid."""
        output = self.output(frame)
        pose = pose_in_grid(frame.pose, frame.grid)
        if any(self.noise):
            rng = np.random.default_rng([11, frame.frame])
            deviation = self.noise[0] + self.noise[1] * float(output.depth.median())
            pose = Pose(pose.rotation, pose.translation + rng.normal(0.0, deviation, 3))
        gaussians = Gaussians(*(tensor[0].numpy() for tensor in output.gaussians)).transformed(pose)
        grid = VoxelGrid(np.zeros(3), frame.grid.shape, VOXEL_M)
        empty = self.expert.empty_logit
        options = {} if empty is None else {"empty_logit": empty.item()}
        return splat_grid(gaussians, grid, aggregation=self.expert.config.aggregation, **options)
