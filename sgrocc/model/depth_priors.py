"""Depth priors: where the expert's depth comes from. They swap without training: features stay the expert's own."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from sgrocc.model.efficientnet_lite import MEAN, STD

if TYPE_CHECKING:
    from transformers import DepthAnythingConfig, PreTrainedModel

#: Checkpoints of Depth-Anything-V2 that give metres indoors, as `load_prior` takes them, and their licences. What is
#: exported with one of them inside is under its licence too. The authors' repository says Apache-2.0 of Small and
#: CC-BY-NC-4.0 of Base and Large; some pages of the metric Base and Large say Apache-2.0.
CHECKPOINTS = {
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf": "Apache-2.0",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf": "CC-BY-NC-4.0; sources disagree, check",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf": "CC-BY-NC-4.0; sources disagree, check",
    "depth_anything_v2_metric_hypersim_vits.pth": "Apache-2.0",
    "depth_anything_v2_metric_hypersim_vitb.pth": "CC-BY-NC-4.0; sources disagree, check",
    "depth_anything_v2_metric_hypersim_vitl.pth": "CC-BY-NC-4.0; sources disagree, check",
    # EmbodiedOcc's: Base, trained further on ScanNet, which has terms of its own.
    "finetune_scannet_depthanythingv2.pth": "none found, check",
}
#: Published files that look just like metric indoor ones, but give depth without a scale, or up to 80 m.
_OTHER_DEPTH = re.compile(r"depth_anything_v2_(metric_vkitti_)?vit[sblg]\.pth")
_MAX_DEPTH_M = 20
_MIN_DEPTH_M = 1e-3
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DepthPrior(nn.Module):
    """image: (B, 3, H, W), normalised as the expert's encoder wants it; intrinsics: (B, 4); own_depth: (B, 1, H, W),
    what the expert's encoder makes of the image. Returns (B, 1, H, W) metres along z, all above 0.
    """

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, own_depth: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class OwnDepth(DepthPrior):
    """The compact prior: the head of the expert's own encoder."""

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, own_depth: torch.Tensor) -> torch.Tensor:
        return own_depth


class DepthAnythingV2(DepthPrior):
    """Depth-Anything-V2 with a metric head (Yang et al., 2024): frozen, always in evaluation mode, without gradients.

    model: a DepthAnythingForDepthEstimation of transformers; it is kept and set up, not copied. height: of the image it
    is shown, pixels, rounded up to whole patches; None: that of the expert's image; the width keeps the aspect (320x240
    becomes 336x252). It has no use for intrinsics: its metres are right for a lens like those it was trained with.
    Raises ValueError for a model whose depth is not in metres.
    """

    def __init__(self, model: PreTrainedModel, height: int | None = None) -> None:
        super().__init__()
        if model.config.depth_estimation_type != "metric":
            raise ValueError("this Depth-Anything-V2 gives depth without a scale: take a Metric-Indoor checkpoint")
        if height is not None and height < 1:
            raise ValueError(f"the prior's image cannot be {height} pixels high: give at least 1, or none at all")
        # The fused attention comes out of the ONNX exporter with an IsNaN, this one with plain products.
        model.set_attn_implementation("eager")
        self.model = model
        self.height = height
        # From the expert's normalisation to the model's, in one step.
        mean, std, their_mean, their_std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD, _IMAGENET_MEAN, _IMAGENET_STD)
        )
        self.register_buffer("_scale", std / their_std, persistent=False)
        self.register_buffer("_shift", (mean - their_mean) / their_std, persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, name_or_path: str | Path, height: int | None = None) -> DepthAnythingV2:
        """From a hub id, a folder that transformers saved, or a .pth of the authors' repository, also fine-tuned.

        A .pth does not say what its numbers are: they are taken for metres up to 20. Raises FileNotFoundError where
        there are no weights and ValueError where they are not those of a metric Depth-Anything-V2.
        """
        path = Path(name_or_path)
        if path.suffix == ".pth":
            return cls(_from_authors(path), height)
        name = str(name_or_path)
        # An empty name is the path of the working folder.
        if not name or not (path.is_dir() or re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)):
            raise FileNotFoundError(
                f"there is no depth prior {name!r}: use own, a folder, a .pth file or a name like "
                f"{next(iter(CHECKPOINTS))}"
            )
        return cls(_from_transformers(name), height)

    def train(self, mode: bool = True) -> DepthAnythingV2:
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor, own_depth: torch.Tensor) -> torch.Tensor:
        patch = self.model.config.patch_size
        rows = math.ceil((self.height or image.shape[2]) / patch)
        columns = max(round(rows * image.shape[3] / image.shape[2]), 1)
        image = functional.interpolate(image, size=(rows * patch, columns * patch), mode="bicubic")
        depth = self.model(pixel_values=self._scale * image + self._shift).predicted_depth[:, None]
        # Pixels' centres stay where they are in both directions, so the depth lies on the image it came from.
        depth = functional.interpolate(depth, size=own_depth.shape[2:], mode="bilinear")
        # A saturated sigmoid is exactly 0, and `filled` takes a logarithm.
        return torch.clamp(depth, min=_MIN_DEPTH_M)


def load_prior(spec: str, height: int | None = None) -> DepthPrior:
    """own: the expert's own depth; anything else: see DepthAnythingV2.load, height and errors too."""
    return OwnDepth() if spec == "own" else DepthAnythingV2.load(spec, height)


def filled(given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The given depth, and in its holes the network's own, scaled to it by the mean ratio where both are.

    (B, 1, H, W) metres; given is 0 where it has a hole, all of it where nothing is given.
    """
    valid = (given > 0).to(own.dtype)
    ratio = torch.log(torch.where(given > 0, given, own)) - torch.log(own)
    mean = ratio.sum(dim=(1, 2, 3), keepdim=True) / (valid.sum(dim=(1, 2, 3), keepdim=True) + 1.0)
    return torch.where(given > 0, given, own * torch.exp(mean))


def _from_transformers(name: str) -> PreTrainedModel:
    from transformers import DepthAnythingForDepthEstimation  # slow to import, and most experts do without

    try:
        model, found = DepthAnythingForDepthEstimation.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True
        )
    except OSError as error:
        raise FileNotFoundError(
            f"there are no Depth-Anything-V2 weights at {name}: check the name, or fetch them once while online"
        ) from error
    except Exception as error:  # each of the libraries below has errors of its own for broken files
        raise ValueError(
            f"{name} does not hold a Depth-Anything-V2 ({type(error).__name__}): fetch it again or name another"
        ) from error
    # transformers would go on with random numbers in place of what is missing.
    _check(name, found["missing_keys"], found["unexpected_keys"])
    return model


def _from_authors(path: Path) -> PreTrainedModel:
    from transformers import DepthAnythingForDepthEstimation

    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: check the path or fetch the file")
    if _OTHER_DEPTH.fullmatch(path.name):
        raise ValueError(f"{path} does not give metres indoors: take a depth_anything_v2_metric_hypersim checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets out whatever the unpickler meets
        raise ValueError(
            f"{path} cannot be read as a file of tensors ({type(error).__name__}): fetch it again, or save its "
            "state dict alone"
        ) from error
    if isinstance(content, dict):
        content = content.get("model", content)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict: save the model's state dict, by itself or as `model`")
    weights = _renamed(content)
    try:
        model = DepthAnythingForDepthEstimation(_config(weights))
        found = model.load_state_dict(weights, strict=False)
    except Exception as error:  # a missing weight, one of another shape, or what the config makes of such shapes
        raise ValueError(
            f"{path} is not a Depth-Anything-V2 with a backbone of plain blocks ({type(error).__name__}): "
            "take a Small, Base or Large checkpoint"
        ) from error
    _check(path, found.missing_keys, found.unexpected_keys)
    return model


#: The authors' names of weights and transformers', applied one after the other.
_NAMES = (
    (r"^module\.", ""),
    (r"^pretrained\.(cls_token|mask_token)$", r"backbone.embeddings.\1"),
    (r"^pretrained\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^pretrained\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^pretrained\.norm\.", "backbone.layernorm."),
    (r"^pretrained\.blocks\.", "backbone.encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"^depth_head\.projects\.(\d)\.", r"neck.reassemble_stage.layers.\1.projection."),
    (r"^depth_head\.resize_layers\.(\d)\.", r"neck.reassemble_stage.layers.\1.resize."),
    *((rf"^depth_head\.scratch\.layer{n}_rn\.", f"neck.convs.{n - 1}.") for n in range(1, 5)),
    # The authors count from the finest map, transformers in the order of use: from the coarsest.
    *((rf"^depth_head\.scratch\.refinenet{n}\.", f"neck.fusion_stage.layers.{4 - n}.") for n in range(1, 5)),
    (r"\.out_conv\.", ".projection."),
    (r"\.resConfUnit([12])\.conv([12])\.", r".residual_layer\1.convolution\2."),
    (r"^depth_head\.scratch\.output_conv1\.", "head.conv1."),
    (r"^depth_head\.scratch\.output_conv2\.0\.", "head.conv2."),
    (r"^depth_head\.scratch\.output_conv2\.2\.", "head.conv3."),
)
#: Weights that both have and neither uses: of masked training, and of the coarsest map, which has no map to add to.
_UNUSED = ("backbone.embeddings.mask_token", "neck.fusion_stage.layers.0.residual_layer1.")


def _renamed(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' state dict with transformers' names, and attention's one matrix as the three that it holds."""
    weights = {}
    for name, value in content.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                weights[name.replace(".attn.qkv.", f".attention.{part}_proj.")] = piece
        else:
            weights[name] = value
    return weights


def _config(weights: dict[str, torch.Tensor]) -> DepthAnythingConfig:
    """What the shapes of the weights say of the model; KeyError where one of them is missing."""
    from transformers import DepthAnythingConfig, Dinov2Config

    hidden, _, patch, _ = weights["backbone.embeddings.patch_embeddings.projection.weight"].shape
    side = math.isqrt(weights["backbone.embeddings.position_embeddings"].shape[1] - 1)
    layers = sum(name.endswith(".norm1.weight") for name in weights)
    quarters = [layers * n // 4 for n in range(1, 5)]
    backbone = Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        image_size=side * patch,
        patch_size=patch,
        # The head looks at the backbone after each quarter of it; with Large, its first look is a block earlier.
        out_indices=[5, 12, 18, 24] if layers == 24 else quarters,
        reshape_hidden_states=False,
    )
    return DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=patch,
        reassemble_hidden_size=hidden,
        neck_hidden_sizes=[weights[f"neck.convs.{n}.weight"].shape[1] for n in range(4)],
        fusion_hidden_size=weights["neck.convs.0.weight"].shape[0],
        head_hidden_size=weights["head.conv2.weight"].shape[0],
        depth_estimation_type="metric",
        max_depth=_MAX_DEPTH_M,
    )


def _check(source: str | Path, missing: list[str], unexpected: list[str]) -> None:
    missing = sorted(name for name in missing if not name.startswith(_UNUSED))
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} weights of a Depth-Anything-V2, the first is {missing[0]}: fetch it again "
            "or name another"
        )
    if unexpected:
        raise ValueError(
            f"{source} holds weights that no Depth-Anything-V2 has, like {sorted(unexpected)[0]}: name another"
        )
