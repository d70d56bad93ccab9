"""The same parts in half precision as `sgrocc.inference.half` takes, in torch.

onnxruntime on a CPU computes them in single precision between the casts and hides the loss.
"""

from __future__ import annotations

import torch
from torch import nn

from sgrocc.inference.half import is_half
from sgrocc.model.spatial_expert import SpatialExpert


def in_half_precision(expert: SpatialExpert) -> SpatialExpert:
    """The expert itself, changed: the parts that bear it compute in half precision, what goes in and out is single."""
    taken: list[str] = []
    for name, module in expert.named_modules():
        if not is_half(f"expert.{name}") or any(name.startswith(f"{outer}.") for outer in taken):
            continue
        if isinstance(module, nn.ModuleList):  # never called itself: its members are
            continue
        taken.append(name)
        module.half()
        module.register_forward_pre_hook(lambda _, inputs: tuple(x.half() for x in inputs))
        module.register_forward_hook(lambda *call: _single(call[-1]))
    return expert


def _single(output):
    if isinstance(output, torch.Tensor):
        return output.float()
    return type(output)(_single(part) for part in output)
