"""What others compute for the same purpose, to measure ourselves against: a depth network, an aggregation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sgrocc.export.onnx_export import to_onnx
from sgrocc.files import whole_file
from sgrocc.model.depth_priors import DepthAnythingV2
from sgrocc.splatting import SplatInput

#: Depth Anything V2 Small's image: 320 x 240 rounded up to whole patches.
DEPTH_ANYTHING_SIZE = (252, 336)
#: As its configuration on the hub has it (depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf).
_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12}


def depth_anything_v2_small(path: Path) -> None:
    """Write Depth Anything V2 Small with random weights as ONNX: input `image` (1, 3, 252, 336), output `depth`."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    height, width = DEPTH_ANYTHING_SIZE
    backbone = Dinov2Config(
        **_SMALL,
        image_size=518,
        patch_size=14,
        out_features=["stage3", "stage6", "stage9", "stage12"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_in_channels=64,
        depth_estimation_type="metric",
        max_depth=20,
    )
    torch.manual_seed(0)
    prior = DepthAnythingV2(DepthAnythingForDepthEstimation(config))

    class Alone(nn.Module):
        def forward(self, image):
            return prior.model(pixel_values=image).predicted_depth

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = to_onnx(Alone().eval(), (torch.zeros(1, 3, height, width),), ["image"], ["depth"])
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def additive_in_torch(prepared: SplatInput, blocks: np.ndarray, resolution: float) -> torch.Tensor:
    """Additive aggregation as one writes it in torch: every Gaussian's voxels listed, weighed, and added up with
    index_add. Returns class sums (B, 512, 11) of the blocks, as the kernel does.
    """
    low = torch.from_numpy(blocks.min(axis=0) * 8)
    extent = torch.from_numpy((blocks.max(axis=0) + 1) * 8) - low
    first, last = (torch.from_numpy(array).long() for array in (prepared.first, prepared.last))
    first, last = torch.maximum(first, low), torch.minimum(last, low + extent - 1)
    span = (last - first + 1).clamp(min=0)
    counts = span.prod(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    sy, sz = span[owner, 1], span[owner, 2]
    steps = torch.stack([place // (sy * sz), place // sz % sy, place % sz], dim=1)
    voxels = first[owner] + steps
    away = (voxels + 0.5) * resolution - torch.from_numpy(prepared.means)[owner]
    precisions = torch.from_numpy(prepared.precisions)[owner]
    d2 = (precisions[:, :3] * away * away).sum(dim=1) + 2 * (
        precisions[:, 3] * away[:, 0] * away[:, 1]
        + precisions[:, 4] * away[:, 0] * away[:, 2]
        + precisions[:, 5] * away[:, 1] * away[:, 2]
    )
    phi = torch.exp(-0.5 * d2) * (d2 <= 9.0)
    local = voxels - low
    cell = (local[:, 0] * extent[1] + local[:, 1]) * extent[2] + local[:, 2]
    dense = torch.zeros(int(extent.prod()), prepared.semantics.shape[1])
    dense.index_add_(0, cell, (phi[:, None] * torch.from_numpy(prepared.semantics)[owner]).float())
    nx, ny, nz = (extent // 8).tolist()
    tiles = dense.view(nx, 8, ny, 8, nz, 8, -1).permute(0, 2, 4, 1, 3, 5, 6)
    wanted = torch.from_numpy(blocks).long() - low // 8
    return tiles[wanted[:, 0], wanted[:, 1], wanted[:, 2]].reshape(len(blocks), 512, -1)
