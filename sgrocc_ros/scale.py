"""The metric scale of each camera's network depth on a running node: observed, applied, published with its spread."""

from __future__ import annotations

import time

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64

from sgrocc.experts import Prediction
from sgrocc.experts.metric_scale import MetricScale, floor_points, from_floor_points, from_sparse_depth
from sgrocc_ros.parameters import MOST_CAMERAS
from sgrocc_ros.transforms import PoseQueue, RosTransforms


class ScaleCorrection:
    """Corrects predictions by what the robot knows: the parameter scale_source. Called by the worker alone.

    A frame whose transform to base_frame has not come is observed once it has; frames never wait for that.
    """

    def __init__(self, node: LifecycleNode, values: dict) -> None:
        self.source, self._base_frame = values["scale_source"], values["base_frame"]
        self._node = node
        self._by_camera: dict[str, MetricScale] = {}
        self._queue = PoseQueue(20, 2.0)
        self._transforms = RosTransforms(node, values["tf_cache_time_s"]) if self.source == "camera_height" else None
        self._value = node.create_publisher(Float64, "metric_scale", 10)
        self._sigma = node.create_publisher(Float64, "metric_scale_sigma", 10)
        self.last: MetricScale | None = None

    def close(self) -> None:
        """End what listens to tf, and what is published."""
        if self._transforms is not None:
            self._transforms.close()
        for publisher in (self._value, self._sigma):
            self._node.destroy_publisher(publisher)

    def corrected(self, raw: Prediction, sensed: np.ndarray | None, stamp_ns: int, frame_id: str) -> Prediction:
        """The prediction with the scale of its camera, which this frame's observation has entered where there is one.

        sensed: (h, w) metres, of a sparse sensor, for sparse_depth.
        """
        scale = self._by_camera[frame_id] = self._by_camera.pop(frame_id, None) or MetricScale()
        if len(self._by_camera) > MOST_CAMERAS:
            del self._by_camera[next(iter(self._by_camera))]  # that was seen longest ago
        if self._transforms is None:
            scale.observe(None if sensed is None else from_sparse_depth(raw, sensed), stamp_ns / 1e9)
        else:
            self._queue.push(stamp_ns, (stamp_ns, frame_id, floor_points(raw)), time.monotonic())
            ready, _ = self._queue.poll(
                lambda item: self._transforms.lookup(self._base_frame, item[1], item[0]), time.monotonic()
            )
            for (seen_ns, camera, points), pose in ready:
                seen = self._by_camera.setdefault(camera, MetricScale())
                seen.observe(from_floor_points(points, pose), seen_ns / 1e9)
        self.last = scale
        self._value.publish(Float64(data=scale.value))
        self._sigma.publish(Float64(data=scale.sigma))
        return scale.apply(raw)

    def details(self) -> dict[str, object]:
        """For /diagnostics."""
        if self.last is None:
            return {"scale.value": "1 (nothing observed yet)"}
        return {"scale.value": f"{self.last.value:.4f}", "scale.sigma": f"{self.last.sigma:.4f}"}
