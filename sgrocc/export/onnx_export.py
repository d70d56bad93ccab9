"""A trained Spatial Expert, and the memory's fusion, as ONNX files and their manifest: see models/README.md."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.inference.engine import load_engine
from sgrocc.inference.manifest import (
    OPSET,
    ModelManifest,
    Network,
    fusion_shapes,
    load_manifest,
    save_model,
    tensor_shapes,
)
from sgrocc.model.anchors import RayAnchors
from sgrocc.model.spatial_expert import SpatialExpert
from sgrocc.model.temporal_fusion import TemporalFusion
from sgrocc.model.voxels import GaussianTensors

#: What every TensorRT from 10.3 on builds. Scatter, NonZero, Unique, TopK, Loop and If stay out for good reasons.
ALLOWED_OPERATORS = frozenset(
    "Abs Add AveragePool Cast Clip Concat Conv Div Equal Erf Exp Expand Gather Gemm Greater GridSample Identity "
    "LayerNormalization Less Log MatMul Max Min Mul Neg Not Pad Pow Reciprocal ReduceL2 ReduceMean ReduceSum Relu "
    "Reshape Resize Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where".split()
)
#: How far onnxruntime's answer may be from torch's, relative to the largest value of the output.
TOLERANCE = 1e-3
#: How many Gaussians the fusion takes at a time.
FUSION_COUNT = 2048


class _Contract(nn.Module):
    """The expert with the inputs and outputs of models/README.md."""

    def __init__(self, expert: SpatialExpert) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, sensor_depth: torch.Tensor):
        output = self.expert(image, intrinsics, sensor_depth)
        return (output.depth, *output.gaussians)


class _FusionContract(nn.Module):
    """The same of the fusion."""

    def __init__(self, fusion: TemporalFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, means, scales, rotations, opacities, logits, features, history, depth, intrinsics):
        gaussians = GaussianTensors(means, scales, rotations, opacities, logits, features)
        return tuple(self.fusion(gaussians, history, depth, intrinsics))


def export(
    expert: SpatialExpert,
    folder: str | Path,
    fusion: TemporalFusion | None = None,
    *,
    name: str,
    description: str,
    trained_on: str,
    depth_sigma_m: tuple[float, float],
    licence: str = "Apache-2.0",
) -> float:
    """Write `expert` into `folder` and check what was written: operators, manifest, onnxruntime's answer to a frame.

    fusion: of the memory, where it learned one; depth_sigma_m: (constant, factor) of the network's own depth, as
    measured. Returns the largest relative difference
    between onnxruntime and torch. Raises ValueError where the expert cannot be exported or the two differ.
    """
    if not isinstance(expert.anchors, RayAnchors):
        raise ValueError("random anchors are drawn in the grid, which a camera does not know: export ray anchors")
    if expert.config.aggregation != "decoupled":
        raise ValueError("a robot splats decoupled Gaussians: train with aggregation decoupled to export")
    expert = expert.eval()
    contract = _Contract(expert).eval()
    height, width, channels = expert.config.height, expert.config.width, expert.config.channels
    count = expert.anchors.pixels.shape[1] * expert.anchors.offsets_m.shape[2]
    inputs, outputs = tensor_shapes(width, height, count, channels)
    frame = _frame(height, width)
    content = to_onnx(contract, frame, list(inputs), list(outputs))
    written = None
    if fusion is not None:
        fusion_contract = _FusionContract(fusion.eval()).eval()
        shapes, fused = fusion_shapes(width, height, FUSION_COUNT, channels)
        example = _remembered(shapes)
        written = to_onnx(fusion_contract, tuple(example.values()), list(shapes), list(fused)), FUSION_COUNT
    save_model(
        folder,
        content,
        "Made by sgrocc export.",
        {
            "name": name,
            "description": description,
            "inputs": inputs,
            "outputs": outputs,
            "image": {
                "width": width,
                "height": height,
                "mean": list(expert.encoder.mean),
                "std": list(expert.encoder.std),
            },
            "resolution_m": VOXEL_M,
            "feature_size": channels,
            "depth_sigma_m": [float(x) for x in depth_sigma_m],
            "takes_depth": True,
            "semantic": True,
            "trained_on": trained_on,
            "licence": licence,
        },
        written,
    )
    manifest = load_manifest(folder)
    holes = (*frame[:2], torch.zeros_like(frame[2]))
    difference = _largest_difference(contract, manifest, [frame, holes])
    if fusion is None:
        return difference
    return max(difference, _largest_difference(fusion_contract, manifest.fusion, [tuple(example.values())]))


def measured_depth_sigma_m(expert: SpatialExpert, data: str | Path, split: str = "val", frames: int = 120):
    """(constant, factor): the standard deviation of the network's own depth as constant + factor * depth, metres,
    fitted to the 68th percentile of its errors at the depths of a split.
    """
    from sgrocc.datasets.occscannet import OccScanNet
    from sgrocc.evaluation.protocols import spread
    from sgrocc.training.torch_expert import TorchLocal

    dataset = OccScanNet(data, split)
    predictor = TorchLocal(expert)
    depths, errors = [], []
    for index in spread(len(dataset), frames):
        frame = dataset[index]
        found = predictor.output(frame).depth[0, 0, ::8, ::8].numpy()
        truth = frame.depth()
        rows, columns = (
            np.arange(0, n, 8) * size // n
            for n, size in zip((expert.config.height, expert.config.width), truth.shape, strict=True)
        )
        truth = truth[np.ix_(rows, columns)]
        depths.append(truth[truth > 0])
        errors.append(np.abs(found - truth)[truth > 0])
    depth, error = np.concatenate(depths), np.concatenate(errors)
    edges = np.quantile(depth, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, depth) - 1, 0, 9)
    centres = np.array([depth[bins == i].mean() for i in range(10)])
    spreads = np.array([np.quantile(error[bins == i], 0.68) for i in range(10)])
    factor, constant = np.polyfit(centres, spreads, 1)
    if constant < 0:  # a deviation that would vanish near the camera: all of it grows with the depth instead
        constant, factor = 0.0, float((spreads * centres).sum() / (centres * centres).sum())
    return round(float(constant), 3), round(max(float(factor), 0.0), 3)


def to_onnx(module: nn.Module, frame: tuple[torch.Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """The bytes of an ONNX file: opset 18, static shapes. Raises ValueError for what not all TensorRTs can run."""
    buffer = io.BytesIO()
    # Opset 20 renames GridSample's mode, and older TensorRTs then read the nearest pixel without a word.
    torch.onnx.export(
        module, frame, buffer, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
    )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model, full_check=True)
    problems = operator_problems(model)
    if problems:
        raise ValueError(f"the network cannot go to a robot: {'; '.join(problems)}")
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source each node came from: this machine's paths
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True)


def operator_problems(model: onnx.ModelProto) -> list[str]:
    """What is in a graph that a robot's engine cannot run, or would run wrongly: one phrase each."""
    problems = []
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != OPSET:
        problems.append(f"its opset is {versions.get('')} instead of {OPSET}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ALLOWED_OPERATORS:
            problems.append(f"it has the operator {node.domain}{node.op_type}")
        if node.op_type == "GridSample":
            modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
            if modes and modes != [b"bilinear"]:
                problems.append(f"GridSample has the mode {modes[0].decode()} instead of bilinear")
    for value in (*model.graph.input, *model.graph.output):
        if any(not dimension.dim_value for dimension in value.type.tensor_type.shape.dim):
            problems.append(f"{value.name} has no static shape")
    return sorted(set(problems))


def _frame(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """A frame with structure: textures, an off-centre camera, and sensor depth with holes."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, height // 8, width // 8, generator=generator) * 2 - 1
    image = nn.functional.interpolate(image, size=(height, width), mode="bilinear")
    depth = 1.0 + 3.0 * torch.rand(1, 1, height // 16, width // 16, generator=generator)
    depth = nn.functional.interpolate(depth, size=(height, width), mode="nearest")
    depth = torch.where(torch.rand(depth.shape, generator=generator) < 0.3, 0.0, depth)
    return image, torch.tensor([[0.8 * width, 0.82 * width, 0.48 * width, 0.53 * height]]), depth


def _remembered(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Gaussians before a camera, with something remembered of their places, and a depth with holes."""
    generator = torch.Generator().manual_seed(1)
    example = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    example["means"][..., 2] = 0.5 + example["means"][..., 2].abs()
    example["scales"] = 0.02 + 0.02 * example["scales"].abs()
    example["rotations"] = nn.functional.normalize(example["rotations"], dim=-1)
    example["opacities"] = torch.sigmoid(example["opacities"])
    height, width = shapes["depth"][2:]
    _, example["intrinsics"], example["depth"] = _frame(height, width)
    return example


def _largest_difference(
    contract: nn.Module, network: ModelManifest | Network, examples: list[tuple[torch.Tensor, ...]]
) -> float:
    engine = load_engine(network)
    largest = 0.0
    for tensors in examples:
        with torch.no_grad():
            expected = contract(*tensors)
        answer = engine.infer({name: tensor.numpy() for name, tensor in zip(network.inputs, tensors, strict=True)})
        for name, tensor in zip(network.outputs, expected, strict=True):
            difference = np.abs(answer[name] - tensor.numpy()).max() / max(float(tensor.abs().max()), 1e-6)
            if not difference <= TOLERANCE:
                raise ValueError(f"onnxruntime's {name} differs from torch's by {difference:.2g} of its largest value")
            largest = max(largest, float(difference))
    return largest
