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

    def build(self, module: nn.Module, steps: int) -> dict:
        """What a LightningModule's `configure_optimizers` returns. steps: of the whole training.

        Biases and norms are not decayed. Raises ValueError where a multiplier names no parameter.
        """
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        used = set()
        for name, parameter in module.named_parameters():
            factor = 1.0
            for beginning, value in self.multipliers.items():
                if name.startswith(beginning):
                    factor = value
                    used.add(beginning)
            # What is frozen anyway, as a depth prior, stays so.
            parameter.requires_grad_(parameter.requires_grad and factor > 0)
            if parameter.requires_grad:
                groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
        if set(self.multipliers) - used:
            raise ValueError(
                f"no parameter's name begins with {sorted(set(self.multipliers) - used)[0]!r}: correct the multipliers"
            )
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
