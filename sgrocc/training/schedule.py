"""The optimiser of every training: AdamW, linear warm-up, cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class OptimiserConfig:
    """learning_rate: its peak; warm_up: share of all steps; lowest: share of the peak that is left at the end;

    multipliers: {beginning of a parameter's name: factor of its learning rate, 0 to freeze it}.
    """

    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warm_up: float = 0.05
    lowest: float = 0.01
    multipliers: dict[str, float] = field(default_factory=dict)

    def freeze(self, module: nn.Module) -> None:
        """Take the parameters of factor 0 out of the training; what is frozen anyway, as a depth prior, stays so.

        A module does this when it is made: processes that share a training agree on its parameters before the
        optimiser is built. Raises ValueError where a multiplier names no parameter.
        """
        names = [name for name, _ in module.named_parameters()]
        for beginning in self.multipliers:
            if not any(name.startswith(beginning) for name in names):
                raise ValueError(f"no parameter's name begins with {beginning!r}: correct the multipliers")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and self._factor(name) > 0)

    def build(self, module: nn.Module, steps: int) -> dict:
        """What a LightningModule's `configure_optimizers` returns. steps: of the whole training.

        Biases and norms are not decayed. Raises ValueError where a multiplier names no parameter.
        """
        self.freeze(module)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((self._factor(name), parameter.ndim > 1), []).append(parameter)
        optimiser = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": self.learning_rate * factor,
                    "weight_decay": self.weight_decay if decayed else 0.0,
                }
                for (factor, decayed), parameters in groups.items()
            ]
        )
        warm_up = max(1, round(self.warm_up * steps))

        def factor_at(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            progress = min(1.0, (step - warm_up) / max(1, steps - warm_up))
            return self.lowest + (1 - self.lowest) * 0.5 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor_at)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, name: str) -> float:
        """The last multiplier that fits a parameter's name."""
        return next((f for beginning, f in reversed(self.multipliers.items()) if name.startswith(beginning)), 1.0)
