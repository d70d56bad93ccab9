"""The exported temporal fusion: what a model makes of a frame's Gaussians and the memory of their places. No torch."""

from __future__ import annotations

import numpy as np

from sgrocc.experts.learned import resized_depth
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera
from sgrocc.inference.engine import Engine
from sgrocc.inference.manifest import FUSED, Network


class LearnedFusion:
    """Runs a manifest's `fusion` on an engine: what a GaussianMemory takes as its fusion.

    It runs once at construction, so that a fusion that cannot run fails at the start. Raises ValueError for one.
    """

    def __init__(self, network: Network, engine: Engine) -> None:
        self._network, self._engine = network, engine
        _, self._count, width = network.inputs["history"].shape
        _, _, self._height, self._width = network.inputs["depth"].shape
        one = Gaussians.empty(network.inputs["features"].shape[2])
        camera = PinholeCamera(self._width, self._height, self._width, self._width, self._width / 2, self._height / 2)
        self._infer(one, np.zeros((0, width), np.float32), np.zeros((self._height, self._width), np.float32), camera)

    def __call__(
        self, gaussians: Gaussians, history: np.ndarray, depth: np.ndarray, camera: PinholeCamera
    ) -> Gaussians:
        """N Gaussians in the camera frame, (N, H) float32 as `History.vector` makes it, and the depth (h, w), metres, 0
        where unknown, of any size, with its camera; returns N Gaussians in the camera frame.

        Raises ValueError where the Gaussians' features, or the history, are not those of this fusion.
        """
        expected = self._network.inputs["features"].shape[2]
        if gaussians.features.shape[1] != expected:
            raise ValueError(
                f"the expert's features have {gaussians.features.shape[1]} numbers and those of {self._network.name} "
                f"{expected}: set fusion to none, or use the expert of the same model"
            )
        if depth.shape != (self._height, self._width):
            depth = resized_depth(depth, self._width, self._height)
            camera = camera.resized(self._width, self._height)
        parts = [
            self._infer(gaussians.select(slice(first, last)), history[first:last], depth, camera)
            for first, last in ((i, i + self._count) for i in range(0, len(gaussians), self._count))
        ]
        return Gaussians.joined(*parts) if parts else gaussians

    def _infer(self, gaussians: Gaussians, history: np.ndarray, depth: np.ndarray, camera: PinholeCamera) -> Gaussians:
        """At most as many Gaussians as the network takes; the rest of its places is filled up."""
        count = len(gaussians)

        def filled(array: np.ndarray) -> np.ndarray:
            # Ones: neither a scale nor a rotation of zero has a logarithm or a length.
            whole = np.ones((1, self._count, *array.shape[1:]), np.float32)
            whole[0, :count] = array
            return whole

        inputs = {name: filled(array) for name, array in gaussians.arrays().items()}
        inputs["history"] = filled(history)
        inputs["depth"] = np.ascontiguousarray(depth, np.float32)[None, None]
        inputs["intrinsics"] = np.array([[camera.fx, camera.fy, camera.cx, camera.cy]], np.float32)
        outputs = self._engine.infer(inputs)
        return Gaussians(*(outputs[f"{FUSED}{name}"][0, :count] for name in gaussians.arrays()))
