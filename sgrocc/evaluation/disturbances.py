"""What goes wrong on a robot, under the embodied protocol: poses that are off, frames that are lost, drift that a loop
closure takes back. The predictor sees it, the truth does not.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sgrocc.geometry import Pose

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.evaluation.protocols import EmbodiedPredictor

#: Where in a scene the loop closure takes the drift back, as a share of its frames.
_CLOSURE = 0.75


@dataclass(frozen=True)
class Disturbance:
    """position_m, rotation_deg: standard deviations of each frame's pose, per axis of the world; lost: share of the
    frames that never come; drift_m: how far the position has drifted, along a direction drawn for the scene and in
    proportion to the frames, when a loop closure after three quarters of them takes it back.

    Raises ValueError for values that make no sense.
    """

    position_m: float = 0.0
    rotation_deg: float = 0.0
    lost: float = 0.0
    drift_m: float = 0.0

    def __post_init__(self) -> None:
        for name in ("position_m", "rotation_deg", "drift_m"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")
        if not 0 <= self.lost < 1:
            raise ValueError(f"the share of lost frames is {self.lost}: give a number from 0 to below 1")

    def __bool__(self) -> bool:
        return any((self.position_m, self.rotation_deg, self.lost, self.drift_m))


class Disturbed:
    """A predictor that is shown disturbed frames; the same ones in every run and for every predictor."""

    def __init__(self, predictor: EmbodiedPredictor, disturbance: Disturbance) -> None:
        self.predictor, self.disturbance = predictor, disturbance

    def start(self, scene: EmbodiedScene) -> None:
        self._rng = np.random.default_rng([31, zlib.crc32(scene.name.encode())])
        direction = self._rng.normal(size=3) * (1, 1, 0)  # along the floor
        self._direction = direction / max(np.linalg.norm(direction), 1e-9)
        self._number, self._closure = 0, max(1, round(_CLOSURE * len(scene.frames)))
        self.predictor.start(scene)

    def add(self, frame: EmbodiedFrame) -> None:
        d, number = self.disturbance, self._number
        self._number += 1
        # All are drawn, whatever is used, so that two strengths of one disturbance differ in nothing else.
        shift, turn, luck = self._rng.normal(size=3), self._rng.normal(size=3), self._rng.random()
        if luck < d.lost and number > 0:
            return
        drift = d.drift_m * (number / self._closure) if number < self._closure else 0.0
        translation = frame.pose.translation + d.position_m * shift + drift * self._direction
        rotation = _rotation(np.radians(d.rotation_deg) * turn) @ frame.pose.rotation
        self.predictor.add(replace(frame, pose=Pose(rotation, translation)))

    def labels(self) -> np.ndarray:
        return self.predictor.labels()


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) turn about a vector by its length, radians."""
    angle = float(np.linalg.norm(vector))
    quaternion = np.concatenate([[np.cos(angle / 2)], np.sinc(angle / (2 * np.pi)) / 2 * vector])
    return Pose.from_quaternion(quaternion, np.zeros(3)).rotation
