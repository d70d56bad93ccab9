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

    mask: (h, w) bool, registered to the image (its own size is allowed), or None. What it covers with True shall not
    enter the map; an expert may look at it (see masking.without).
    """

    image: np.ndarray
    camera: PinholeCamera
    depth: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Prediction:
    """What an expert makes of one frame, in the camera's optical frame.

    depth: (h, w) float32, metres, 0 where unknown; camera: intrinsics of that depth image; gaussians: N Gaussians;
    semantic: whether the logits say anything about classes; depth_sigma_m: the standard deviation of `depth` that
    the memory assumes when it compares (eq. 6), as (constant, factor of depth); gates: (rows, columns) float32, 0 to 1,
    the mean gate (eq. 2) in each cell of a lattice of square cells over the image, to look at: near 1 where the depth
    changes little, low beside steps in it; None where the expert has none.
    """

    depth: np.ndarray
    camera: PinholeCamera
    gaussians: Gaussians
    semantic: bool
    depth_sigma_m: tuple[float, float]
    gates: np.ndarray | None = None


class Expert(Protocol):
    """A callable of one frame. Raises ValueError, in one sentence, for a frame it cannot use."""

    #: "topic" where the depth comes with the frame, "network" where the expert predicts it.
    depth_source: str

    def __call__(self, frame: Frame) -> Prediction: ...
