"""What the expert sees in an image: feature maps, its own depth, and the class of what each pixel shows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from sgrocc.labels import NUM_CLASSES
from sgrocc.model.efficientnet_lite import CHANNELS, MEAN, STD, EfficientNetLite0

#: Strides of the feature maps, pixels of the image.
STRIDES = (4, 8, 16)
MIN_DEPTH_M, MAX_DEPTH_M = 0.2, 12.0
#: The focal length, in widths of the image, that the depth head thinks in: a camera with a longer lens sees the same
#: picture from further away.
_CANONICAL_FOCAL = 0.83
_FIRST_DEPTH_M = 2.0


class ImageFeatures(NamedTuple):
    """levels: three maps (B, C, H / s, W / s) at STRIDES; depth: (B, 1, H, W) metres along z, the network's own;

    class_logits: (B, 11, H / 4, W / 4).
    """

    levels: list[torch.Tensor]
    depth: torch.Tensor
    class_logits: torch.Tensor


class ImageEncoder(nn.Module):
    """EfficientNet-lite0 and a decoder with lateral connections (FPN), two heads. channels: of the feature maps."""

    mean, std = MEAN, STD

    def __init__(self, channels: int = 64, imagenet: bool = True) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        if imagenet:
            self.backbone.load_imagenet_weights()
        self.context = nn.Sequential(nn.Linear(CHANNELS[-1], channels), nn.ReLU(), nn.Linear(channels, channels))
        self.laterals = nn.ModuleList([nn.Conv2d(n, channels, 1) for n in CHANNELS])
        self.smooth = nn.ModuleList([_double_convolution(channels) for _ in CHANNELS])
        self.depth_head = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 1, 1)
        )
        self.class_head = nn.Conv2d(channels, NUM_CLASSES, 1)
        nn.init.zeros_(self.depth_head[-1].weight)
        nn.init.constant_(self.depth_head[-1].bias, math.log(_FIRST_DEPTH_M))
        self.register_buffer("_mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def normalised(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) of 0 to 1 as the backbone wants it. The exported network is given this already."""
        return (image - self._mean) / self._std

    def forward(self, image: torch.Tensor, intrinsics: torch.Tensor) -> ImageFeatures:
        """image: (B, 3, H, W), normalised; intrinsics: (B, 4) fx, fy, cx, cy in its pixels."""
        pyramid = self.backbone(image)
        top = pyramid[-1].mean(dim=(2, 3))
        x = self.laterals[-1](pyramid[-1]) + self.context(top)[:, :, None, None]
        x = self.smooth[-1](x)
        levels = []
        for lateral, smooth, tap in zip(self.laterals[-2::-1], self.smooth[-2::-1], pyramid[-2::-1], strict=True):
            x = smooth(lateral(tap) + functional.interpolate(x, size=tap.shape[2:], mode="bilinear"))
            levels.append(x)
        levels.reverse()
        log_depth = self.depth_head(levels[0])
        log_depth = functional.interpolate(log_depth, size=image.shape[2:], mode="bilinear")
        focal = intrinsics[:, :1, None, None] / (_CANONICAL_FOCAL * image.shape[3])
        depth = focal * torch.exp(torch.clamp(log_depth, math.log(MIN_DEPTH_M), math.log(MAX_DEPTH_M)))
        return ImageFeatures(levels, depth, self.class_head(levels[0]))


def _double_convolution(channels: int) -> nn.Module:
    layers = []
    for _ in range(2):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)
