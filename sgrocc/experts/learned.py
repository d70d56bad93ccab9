"""The learned expert: an exported network that turns one image into depth and semantic Gaussians. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from sgrocc.experts import Frame, Prediction
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M, Gaussians
from sgrocc.geometry import PinholeCamera
from sgrocc.inference.engine import Engine
from sgrocc.inference.manifest import ModelManifest
from sgrocc.stages import stage

_MIN_QUATERNION_LENGTH = 1e-6


class LearnedExpert:
    """Runs the model of `manifest` on `engine`, one frame a call.

    use_sensor_depth: the frame's depth goes into the network, and its valid pixels stand in the predicted depth; the
    network's own depth fills the holes. Otherwise the depth is the network's alone. The network runs once at
    construction, so that a model that cannot run fails at the start and the first frame is as fast as the others.
    Raises ValueError where the model takes no depth but should use it, or cannot run.
    """

    def __init__(self, manifest: ModelManifest, engine: Engine, use_sensor_depth: bool = False) -> None:
        if use_sensor_depth and not manifest.takes_depth:
            raise ValueError(
                f"the model {manifest.name} has no depth input: set depth_source to network or choose another model"
            )
        self.manifest = manifest
        self.depth_source = "topic" if use_sensor_depth else "network"
        # The tolerance of eq. 6 is that of whoever measured: a sensor's, or the network's own.
        self._depth_sigma_m = (0.5 * manifest.resolution_m, 0.0) if use_sensor_depth else manifest.depth_sigma_m
        self.engine = engine
        width, height = manifest.image_width, manifest.image_height
        self(
            Frame(
                np.full((height, width, 3), 128, np.uint8),
                PinholeCamera(width, height, width, width, (width - 1) / 2, (height - 1) / 2),
                np.full((height, width), 2.0, np.float32) if use_sensor_depth else None,
            )
        )

    @stage("lift")
    def __call__(self, frame: Frame) -> Prediction:
        """The image may have any size; the prediction's depth and camera have the size of the network's input.

        Raises ValueError for an image that is not RGB or not of its camera, for sensor depth that is missing, and for
        a network that answers with numbers that are not finite.
        """
        m = self.manifest
        if self.depth_source == "topic" and frame.depth is None:
            raise ValueError("the frame has no sensor depth: connect a depth image or set depth_source to network")
        if self.depth_source == "network":
            frame = replace(frame, depth=None)
        with stage("preprocess"):
            inputs = network_inputs(frame, m.image_width, m.image_height, m.image_mean, m.image_std)
        camera = frame.camera.resized(m.image_width, m.image_height)
        sensor_depth = inputs["sensor_depth"][0, 0]
        if not m.takes_depth:
            del inputs["sensor_depth"]
        with stage("network"):
            outputs = self.engine.infer(inputs)
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"the model {self.manifest.name} answered with NaN or infinity in its {name}: choose another model"
                )
        depth = np.where(sensor_depth > 0, sensor_depth, np.maximum(outputs["depth"][0, 0], 0))
        gates = np.clip(outputs["gates"][0], 0, 1) if "gates" in outputs else None
        return Prediction(depth, camera, _gaussians(outputs), self.manifest.semantic, self._depth_sigma_m, gates)


def network_inputs(frame: Frame, width: int, height: int, mean: Sequence[float], std: Sequence[float]) -> dict:
    """What a network for images of `width` x `height` is given of a frame, all float32: `image` (1, 3, h, w), resized,
    divided by 255, less the mean, over the std; `intrinsics` (1, 4) of that; `sensor_depth` (1, 1, h, w) metres, 0
    where invalid, and everywhere for a frame without depth. Raises ValueError for an image not of its camera.
    """
    image, camera = frame.image, frame.camera
    if image.dtype != np.uint8 or image.shape != (camera.height, camera.width, 3):
        raise ValueError(
            f"the image is {image.dtype} of shape {image.shape}, but its camera_info makes it "
            f"uint8 RGB of shape {(camera.height, camera.width, 3)}: publish both from the same camera"
        )
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    mean, std = (np.array(values, np.float32) for values in (mean, std))
    normalised = (np.asarray(resized, np.float32) / np.float32(255) - mean) / std
    camera = camera.resized(width, height)
    depth = np.zeros((height, width), np.float32) if frame.depth is None else resized_depth(frame.depth, width, height)
    return {
        "image": np.ascontiguousarray(normalised.transpose(2, 0, 1)[None]),
        "intrinsics": np.array([[camera.fx, camera.fy, camera.cx, camera.cy]], np.float32),
        "sensor_depth": depth[None, None],
    }


def resized_depth(depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width) float32 metres, 0 where invalid: the nearest pixel, as a mean across an edge lies in the air."""
    if depth.ndim != 2 or not depth.size:
        raise ValueError(f"the depth image has shape {depth.shape}: it must be (height, width) in metres")
    rows, columns = (((2 * np.arange(n) + 1) * m) // (2 * n) for n, m in zip((height, width), depth.shape))
    nearest = depth[np.ix_(rows, columns)]
    return np.where(np.isfinite(nearest) & (nearest > 0), nearest, 0).astype(np.float32)


def _gaussians(outputs: dict[str, np.ndarray]) -> Gaussians:
    """The network's Gaussians within their bounds; a rotation of no length becomes the identity."""
    rotations = outputs["rotations"][0]
    length = np.linalg.norm(rotations, axis=1, keepdims=True)
    unit = rotations / np.maximum(length, _MIN_QUATERNION_LENGTH)
    rotations = np.where(length > _MIN_QUATERNION_LENGTH, unit, np.array([1, 0, 0, 0], np.float32))
    return Gaussians(
        outputs["means"][0],
        np.clip(outputs["scales"][0], MIN_SCALE_M, MAX_SCALE_M),
        rotations,
        np.clip(outputs["opacities"][0], 0, 1),
        outputs["logits"][0],
        outputs["features"][0],
    )
