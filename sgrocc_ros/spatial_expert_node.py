"""Image and camera_info (and depth) in, this frame's Gaussians out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sgrocc.experts import Frame, Prediction
from sgrocc.stages import stage
from sgrocc_ros import messages, parameters
from sgrocc_ros.health import FrameCounters, Health
from sgrocc_ros.synchronise import StampJoiner
from sgrocc_ros.worker import Worker, run_nodes

#: Cameras publish best effort or reliable; a best-effort subscription hears both.
SENSOR_QOS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
#: Between our own nodes nothing may be lost.
INTERNAL_QOS = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.RELIABLE)

#: Receives (prediction, stamp in nanoseconds, frame id of the camera).
PredictionSink = Callable[[Prediction, int, str], None]


class SpatialExpertNode(Node):
    """Runs the expert once per frame, in one worker thread that keeps the latest frame only.

    With a `sink`, predictions are handed to it in the worker thread; without one they are published: `gaussians`
    (PointCloud2), `gaussians/depth` (Image) and `gaussians/camera_info`, all at the image's stamp.
    """

    def __init__(
        self,
        sink: PredictionSink | None = None,
        counters: FrameCounters | None = None,
        **node_options,
    ) -> None:
        super().__init__("spatial_expert", **node_options)
        self._values = parameters.declare(self)
        self._expert = parameters.make_expert(self._values, self.get_logger().warning)
        self._sink = sink or self._publisher_sink()
        self._counters = counters or FrameCounters()
        self._health = Health(self, self._counters) if counters is None else None
        self._warned_distortion = False
        streams = ["image", "camera_info"]
        if self._expert.depth_source == "topic":
            streams.append("depth")
        self._joiner = StampJoiner(
            required=tuple(streams),
            latched=("camera_info",),
            tolerance_s=self._values["sync_tolerance_s"],
            max_length=30,
        )
        self._worker = Worker(
            self._process,
            queue_length=self._values["frame_queue_length"],
            overtaken=lambda _: self._counters.drop("overtaken", "frames come faster than they can be fused"),
            failed=self._on_failure,
        )
        types = {"image": Image, "camera_info": CameraInfo, "depth": Image}
        for stream in streams:
            self.create_subscription(
                types[stream],
                stream,
                lambda message, stream=stream: self._on_message(stream, message),
                SENSOR_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.2, self._expire, clock=steady)

    def stop(self) -> None:
        self._worker.stop()

    def _on_message(self, stream: str, message) -> None:
        if stream == "image":
            self._counters.receive()
        for joined in self._joiner.add(stream, messages.stamp_ns(message.header), message, time.monotonic()):
            self._worker.put(joined)
        self._count_unmatched()

    def _expire(self) -> None:
        for joined in self._joiner.expire(time.monotonic(), self._values["max_partner_wait_s"]):
            self._worker.put(joined)
        self._count_unmatched()

    def _count_unmatched(self) -> None:
        for reason, sentence in self._joiner.take_dropped():
            self._counters.drop(reason, sentence)

    def _process(self, joined: dict) -> None:
        image = joined["image"]
        try:
            rectified = self._values["image_is_rectified"]
            with stage("decode"):
                rgb = messages.decode_image(image, self._values["image_decoder"])
                camera = messages.camera_of(joined["camera_info"], rgb.shape[1], rgb.shape[0], rectified)
                depth = messages.decode_depth(joined["depth"]) if "depth" in joined else None
            if not rectified and messages.has_distortion(joined["camera_info"]) and not self._warned_distortion:
                self._warned_distortion = True
                self.get_logger().warning(
                    "camera_info has lens distortion, which is not corrected here: remap `image` to the rectified "
                    "image of image_proc and set image_is_rectified"
                )
            prediction = self._expert(Frame(rgb, camera, depth))
        except messages.BadMessage as error:
            self._counters.drop(error.reason, str(error))
        except ValueError as error:
            self._counters.drop("expert_refused", str(error))
        else:
            self._sink(prediction, messages.stamp_ns(image.header), image.header.frame_id)

    def _on_failure(self, trace: str) -> None:
        self._counters.drop("internal_error", "a frame failed inside the software: see the log and report it")
        self.get_logger().error(trace)

    def _publisher_sink(self) -> PredictionSink:
        cloud = self.create_publisher(PointCloud2, "gaussians", INTERNAL_QOS)
        depth = self.create_publisher(Image, "gaussians/depth", INTERNAL_QOS)
        info = self.create_publisher(CameraInfo, "gaussians/camera_info", INTERNAL_QOS)

        def publish(prediction: Prediction, stamp_ns: int, frame_id: str) -> None:
            header = messages.to_header(stamp_ns, frame_id)
            info.publish(messages.camera_info_message(header, prediction.camera))
            depth.publish(messages.depth_message(header, prediction.depth))
            cloud.publish(
                messages.gaussians_to_cloud(header, prediction.gaussians, prediction.semantic, prediction.depth_sigma_m)
            )

        return publish


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [SpatialExpertNode()], args)


if __name__ == "__main__":
    sys.exit(main())
