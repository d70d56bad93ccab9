"""Experts: one frame in, Gaussians in the camera frame out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera


@dataclass(frozen=True)
class Frame:
    """One camera frame. image: (H, W, 3) uint8 RGB; camera: its intrinsics (undistorted);

    depth: (h, w) float32, metres along z, registered to the image (its own size is allowed; the camera scales with
    it), or None. Zero, negative and non-finite depth is invalid.
    """

    image: np.ndarray
    camera: PinholeCamera
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class Prediction:
    """What an expert makes of one frame, in the camera's optical frame.

    depth: (h, w) float32, metres, 0 where unknown; camera: intrinsics of that depth image; gaussians: N Gaussians;
    semantic: whether the logits say anything about classes; depth_sigma_m: the standard deviation of `depth` that
    the memory assumes when it compares (eq. 6), as (constant, factor of depth).
    """

    depth: np.ndarray
    camera: PinholeCamera
    gaussians: Gaussians
    semantic: bool
    depth_sigma_m: tuple[float, float]


class Expert(Protocol):
    """A callable of one frame. Raises ValueError, in one sentence, for a frame it cannot use."""

    #: "topic" where the depth comes with the frame, "network" where the expert predicts it.
    depth_source: str

    def __call__(self, frame: Frame) -> Prediction: ...
