"""A trained Spatial Expert, and the memory's fusion, as ONNX files and their manifest: see models/README.md."""

from __future__ import annotations

import ast
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.export.lint import problems_of
from sgrocc.inference.engine import load_engine
from sgrocc.inference.golden import difference_of, golden_arrays
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

#: How far onnxruntime's answer may be from torch's, relative to the largest value of the output.
TOLERANCE = 1e-4
#: In so many examples the two are compared, and so many are tried to find them.
_FRAMES, _MOST_TRIES = 4, 40
#: How often, and by which share, inputs are changed to see whether an answer hangs on its last bits.
_NUDGES, _NUDGE = 3, 3e-6
#: How many Gaussians the fusion takes at a time.
FUSION_COUNT = 2048


class _Contract(nn.Module):
    """The expert with the inputs and outputs of models/README.md."""

    def __init__(self, expert: SpatialExpert) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, sensor_depth: torch.Tensor):
        output = self.expert(image, intrinsics, sensor_depth)
        return (output.depth, *output.gaussians, *(() if output.gates is None else (output.gates,)))


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
    training: dict | None = None,
) -> float:
    """Write `expert` into `folder` and check what was written: operators, manifest, onnxruntime's answers.

    fusion: of the memory, where it learned one; depth_sigma_m: (constant, factor) of the network's own depth, as
    measured; training: how the expert came about, for people. A golden file goes with it: inputs, and torch's answers.
    Returns the largest relative difference between onnxruntime and torch. Raises ValueError where the expert cannot be
    exported or the two differ; then nothing is written.
    """
    if not isinstance(expert.anchors, RayAnchors):
        raise ValueError("random anchors are drawn in the grid, which a camera does not know: export ray anchors")
    if expert.config.aggregation != "decoupled":
        raise ValueError("a robot splats decoupled Gaussians: train with aggregation decoupled to export")
    expert = expert.eval()
    contract = _Contract(expert).eval()
    height, width, channels = expert.config.height, expert.config.width, expert.config.channels
    count = expert.anchors.pixels.shape[1] * expert.anchors.offsets_m.shape[2]
    frame = _frame(height, width)
    with torch.no_grad():
        gates = expert(*frame).gates
    lattice = None if gates is None else tuple(gates.shape[1:])
    inputs, outputs = tensor_shapes(width, height, count, channels, lattice=lattice)
    content = to_onnx(contract, frame, list(inputs), list(outputs))
    written = None
    if fusion is not None:
        fusion_contract = _FusionContract(fusion.eval()).eval()
        shapes, fused = fusion_shapes(width, height, FUSION_COUNT, channels)
        example = _remembered(shapes)
        written = to_onnx(fusion_contract, tuple(example.values()), list(shapes), list(fused)), FUSION_COUNT
    fields = {
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
        **({"training": training} if training else {}),
    }
    made_by = "Made by sgrocc export."
    with tempfile.TemporaryDirectory() as trial:
        save_model(trial, content, made_by, fields, written)
        manifest = load_manifest(trial)
        difference, golden = _compared(contract, manifest, lambda seed: _frame(height, width, seed), "expert")
        if fusion is not None:
            largest, more = _compared(
                fusion_contract, manifest.fusion, lambda seed: tuple(_remembered(shapes, seed).values()), "fusion"
            )
            difference, golden = max(difference, largest), golden | more
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **golden)
    save_model(folder, content, made_by, fields, written, buffer.getvalue())
    load_manifest(folder)
    return difference


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
    # It warns of torchvision, which nothing here needs, and of its own inside.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # Opset 20 renames GridSample's mode, and older TensorRTs then read the nearest pixel without a word.
        options = {"opset_version": OPSET, "dynamo": True, "verbose": False}
        torch.onnx.export(module, frame, buffer, input_names=inputs, output_names=outputs, **options)
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model, full_check=True)
    problems = problems_of(model)
    if problems:
        raise ValueError(f"the network cannot go to a robot: {'; '.join(problems)}")
    for number, node in enumerate(model.graph.node):
        # What module it is of, for those who read TensorRT's messages; and `half_precision` goes by it.
        scopes = [entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        modules = ast.literal_eval(scopes[0]) if scopes else []
        node.name = f"{modules[-2] if len(modules) > 1 else ''}/{node.op_type}_{number}"
        del node.metadata_props[:]  # where in the source each node came from: this machine's paths
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True)


def _frame(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A frame with structure: textures, an off-centre camera, and depth with holes, or (odd seeds) no depth at all."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, height // 8, width // 8, generator=generator) * 2 - 1
    # In steps, as an image has them: the golden file stays small.
    image = _stepped(nn.functional.interpolate(image, size=(height, width), mode="bilinear"))
    depth = _stepped(1.0 + 3.0 * torch.rand(1, 1, height // 16, width // 16, generator=generator))
    depth = nn.functional.interpolate(depth, size=(height, width), mode="nearest")
    depth = torch.where(torch.rand(depth.shape, generator=generator) < (1.0 if seed % 2 else 0.3), 0.0, depth)
    return image, torch.tensor([[0.8 * width, 0.82 * width, 0.48 * width, 0.53 * height]]), depth


def _stepped(values: torch.Tensor) -> torch.Tensor:
    return torch.round(values * 64) / 64


def _remembered(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Gaussians before a camera, outside its image and behind it, with something remembered of their places."""
    generator = torch.Generator().manual_seed(seed)
    example = {name: _stepped(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    example["means"][..., 2] = torch.where(
        torch.rand(example["means"].shape[:2], generator=generator) < 0.9,
        0.5 + example["means"][..., 2].abs(),
        -example["means"][..., 2].abs(),
    )
    example["scales"] = 0.02 + 0.02 * example["scales"].abs()
    example["rotations"] = nn.functional.normalize(example["rotations"], dim=-1)
    example["opacities"] = torch.sigmoid(example["opacities"])
    height, width = shapes["depth"][2:]
    _, example["intrinsics"], example["depth"] = _frame(height, width, 2 * seed)
    return example


def _compared(
    contract: nn.Module, network: ModelManifest | Network, example_of: Callable, name: str
) -> tuple[float, dict[str, np.ndarray]]:
    """The largest difference of onnxruntime's answers from torch's, relative to each output's largest value, over
    `_FRAMES` examples, one and two threads, each asked twice; and the first example for the golden file.

    example_of: a seed to the contract's tensors. What lies on the border of two cells falls to either side by the last
    bit, in torch, too: examples in which torch's answer hangs on its last bits (in double precision, or with inputs a
    little off, it answers otherwise) show nothing and are left out.
    Raises ValueError where the difference is larger than TOLERANCE or no example shows anything.
    """
    engines = [load_engine(network, threads=threads) for threads in (1, 2)]
    double = copy.deepcopy(contract).double()
    generator = torch.Generator().manual_seed(0)
    largest, shown, golden = 0.0, 0, {}
    for seed in range(_MOST_TRIES):
        tensors = example_of(seed)
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in contract(*tensors)]
            others = [double(*(tensor.double() for tensor in tensors))]
            for _ in range(_NUDGES):
                nudged = (t * (1 + _NUDGE * torch.randn(t.shape, generator=generator)) for t in tensors)
                others.append(contract(*nudged))
        pairs = [pair for other in others for pair in zip(other, expected, strict=True)]
        if any(difference_of(found.numpy(), array) > TOLERANCE for found, array in pairs):
            continue
        shown += 1
        inputs = {name: tensor.numpy() for name, tensor in zip(network.inputs, tensors, strict=True)}
        answers = dict(zip(network.outputs, expected, strict=True))
        golden = golden or golden_arrays(name, inputs, answers)
        for engine in (*engines, *engines):
            found = engine.infer(inputs)
            for output, array in answers.items():
                difference = difference_of(found[output], array)
                if not difference <= TOLERANCE:
                    raise ValueError(
                        f"onnxruntime's {output} differs from torch's by {difference:.2g} of its largest value"
                    )
                largest = max(largest, difference)
        if shown == _FRAMES:
            return largest, golden
    raise ValueError(
        f"torch's own answers hang on their last bits in {_MOST_TRIES - shown} of {_MOST_TRIES} examples: the network "
        "cannot be compared"
    )
