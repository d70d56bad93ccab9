"""Simulated errors of depth: what other priors and sensors get wrong, so that the lifter learns to live with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgrocc.geometry import PinholeCamera
from sgrocc.synthrooms.sensor import sensor_depth, smooth_noise


@dataclass
class DepthErrors:
    """Which depth a training sample is given beside its image.

    own: share of samples with none, in which the network uses its own; sensor: share with what an RGB-D sensor
    measures, holes included; the rest get true depth with a prior's errors: log_scale: deviation of the logarithm of
    one factor for the whole image; shift_m: deviation of one added length; log_bias: deviation of a smooth factor that
    varies over the image; bleed: probability that depth edges are blurred.
    """

    own: float = 0.4
    sensor: float = 0.3
    log_scale: float = 0.06
    shift_m: float = 0.05
    log_bias: float = 0.03
    bleed: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.own <= 1 and 0 <= self.sensor and self.own + self.sensor <= 1):
            raise ValueError(
                f"the shares own {self.own:g} and sensor {self.sensor:g} must be at least 0 and together at most 1"
            )

    @staticmethod
    def none() -> DepthErrors:
        """No depth is given at all."""
        return DepthErrors(own=1.0, sensor=0.0)

    def given(
        self, depth: np.ndarray, camera: PinholeCamera, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a sensor and what another prior say of true `depth` (H, W), 0 where unknown: two (H, W) float32, metres,
        0 where there is nothing. At most one of them has anything.
        """
        nothing = np.zeros_like(depth)
        kind = rng.random()
        if kind < self.own:
            return nothing, nothing
        if kind < self.own + self.sensor:
            return sensor_depth(depth, rng, camera), nothing
        return nothing, self.degraded(depth, rng)

    def degraded(self, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W) float32: `depth` with the errors of a monocular prior."""
        height, width = depth.shape
        bias = smooth_noise(rng, height, width, max(height, width) // 4)
        factor = np.exp(rng.normal(0.0, self.log_scale) + self.log_bias * bias)
        wrong = depth * factor.astype(np.float32) + np.float32(rng.normal(0.0, self.shift_m))
        if rng.random() < self.bleed:
            # Among what is known: a hole has no depth that could bleed.
            radius, known = int(rng.integers(1, 4)), depth > 0
            weight = _bled(known.astype(np.float32), radius)
            wrong = _bled(np.where(known, wrong, np.float32(0.0)), radius) / np.maximum(weight, np.float32(1e-6))
        return np.where(depth > 0, np.maximum(wrong, 0.05), 0.0).astype(np.float32)


def _bled(depth: np.ndarray, radius: int) -> np.ndarray:
    """The mean over a window, by which edges become slopes."""
    size = 2 * radius + 1
    for axis in (0, 1):
        padded = np.pad(depth, [(radius, radius) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
        total = np.cumsum(padded, axis=axis, dtype=np.float64)
        total = np.insert(total, 0, 0.0, axis=axis)
        length = depth.shape[axis]
        ahead = np.take(total, range(size, size + length), axis=axis)
        depth = ((ahead - np.take(total, range(length), axis=axis)) / size).astype(np.float32)
    return depth
