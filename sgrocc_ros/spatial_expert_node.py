"""Image and camera_info (and depth) in, this frame's Gaussians out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from sgrocc.experts import Expert, Prediction
from sgrocc.experts.masking import without
from sgrocc.stages import stage
from sgrocc_ros import images, messages, parameters
from sgrocc_ros.health import FrameCounters
from sgrocc_ros.joined_streams import JoinedStreams
from sgrocc_ros.lifecycle import INTERNAL_QOS, SENSOR_QOS, ManagedNode
from sgrocc_ros.scale import ScaleCorrection
from sgrocc_ros.synchronise import StampJoiner
from sgrocc_ros.worker import Worker, run_nodes

_NO_MEMORY = "no_memory", "nobody listens to gaussians: start and activate gaussian_memory"

#: Receives (prediction, stamp in nanoseconds, frame id of the camera).
PredictionSink = Callable[[Prediction, int, str], None]


class SpatialExpertNode(ManagedNode):
    """Runs the expert once per frame, in one worker thread that keeps the latest frames only.

    With a `sink`, predictions are handed to it in the worker thread. They are published, too, where somebody listens:
    `gaussians` (PointCloud2), `gaussians/depth` (Image) and `gaussians/camera_info`, all at the image's stamp. Several
    cameras (the parameter `cameras`) share the expert. `~/pause` takes no frames until `~/resume`.
    """

    def __init__(self, sink: PredictionSink | None = None, counters: FrameCounters | None = None, **options) -> None:
        self._expert: Expert | None = None
        self._worker: Worker | None = None
        self._scale: ScaleCorrection | None = None
        self._streams: JoinedStreams | None = None
        self._paused = False
        self._sink = sink
        super().__init__(parameters.EXPERT, counters, counts=counters is None, standalone=sink is None, **options)
        self.create_service(Trigger, "~/pause", lambda _, response: self._pause(True, response))
        self.create_service(Trigger, "~/resume", lambda _, response: self._pause(False, response))

    # -- transitions ----------------------------------------------------------------------------------------------

    def configured(self) -> None:
        self._expert = parameters.make_expert(self.values, self.get_logger().warning)
        self._decoder = images.FrameDecoder(self.values, self.get_logger().warning)
        if self.values["scale_source"] != "none":
            self._scale = ScaleCorrection(self, self.values)
        for topic, kind in (
            ("gaussians", PointCloud2),
            ("gaussians/depth", Image),
            ("gaussians/camera_info", CameraInfo),
            ("debug/gates", Image),
            ("debug/processing_ms", Float64),
        ):
            self.offer(topic, kind, INTERNAL_QOS)

    def activated(self) -> None:
        values = self.values
        streams = {"image": (Image, ""), "camera_info": (CameraInfo, "")}
        if values["image_transport"] == "compressed":
            streams["image"] = CompressedImage, "/compressed"
        if self._expert.depth_source == "topic" or values["scale_source"] == "sparse_depth":
            compressed = values["depth_transport"] != "raw"
            streams["depth"] = (CompressedImage, "/compressedDepth") if compressed else (Image, "")
        if values["use_mask"]:
            streams["mask"] = Image, ""
        self._worker = Worker(
            self._process, queue_length=values["frame_queue_length"], lost=self.lost, failed=self.failed
        )
        self._streams = JoinedStreams(
            self,
            lambda: StampJoiner(
                required=tuple(streams),
                latched=("camera_info",),
                tolerance_s=values["sync_tolerance_s"],
                # At most so many wait: a stream that never comes must not fill the memory.
                max_length=30,
            ),
            self._worker.put,
        )
        topics = [
            self._listen(camera, stream, kind, suffix)
            for camera in parameters.cameras(values)
            for stream, (kind, suffix) in streams.items()
        ]
        self.get_logger().info(f"waits for frames on {', '.join(topics)}")

    def deactivated(self) -> None:
        if self._worker is not None:
            self._worker.stop()
        self._worker = self._streams = None

    def cleaned_up(self) -> None:
        self._expert = self._decoder = None
        if self._scale is not None:
            self._scale.close()
        self._scale = None

    def details(self) -> dict[str, object]:
        return {"paused": self._paused, **(self._scale.details() if self._scale else {})}

    # -- frames ---------------------------------------------------------------------------------------------------

    def _listen(self, camera: str, stream: str, kind: type, suffix: str) -> str:
        topic = self.hear(
            kind,
            self.resolve_topic_name(f"{camera}{stream}") + suffix,
            lambda message: self._on_message(camera, stream, message),
            SENSOR_QOS,
        )
        once = stream == "camera_info"
        self.health.watchdog.watch(camera + stream, topic, messages.type_name(kind), once=once, suffix=suffix)
        return topic

    def _on_message(self, camera: str, stream: str, message) -> None:
        self.health.watchdog.heard(camera + stream)
        if self._paused and stream != "camera_info":
            return
        if stream == "image":
            self.counters.receive()
        self._streams.add(camera, stream, message)

    def _process(self, joined: dict) -> None:
        header = joined["image"].header
        stamp_ns, frame_id = messages.stamp_ns(header), self.values["camera_frame"] or header.frame_id
        begun = time.monotonic()
        if self._sink is None and not any(output.get_subscription_count() for output in self.outputs.values()):
            self.counters.drop(*_NO_MEMORY)
            return
        try:
            with stage("decode"):
                frame = self._decoder.frame(
                    joined["image"], joined["camera_info"], joined.get("depth"), joined.get("mask")
                )
            prediction = self._expert(frame)
            if self._scale is not None:
                prediction = self._scale.corrected(prediction, frame.depth, stamp_ns, frame_id)
            if frame.mask is not None:
                prediction = without(prediction, frame.mask)
        except messages.BadMessage as error:
            self.counters.drop(error.reason, str(error))
        except ValueError as error:
            self.counters.drop("expert_refused", str(error))
        else:
            self._publish(prediction, messages.to_header(stamp_ns, frame_id), 1e3 * (time.monotonic() - begun))
            if self._sink is not None:
                self._sink(prediction, stamp_ns, frame_id)
            elif not self.outputs["gaussians"].get_subscription_count():
                self.counters.drop(*_NO_MEMORY)

    def _publish(self, prediction: Prediction, header, spent_ms: float) -> None:
        builders = {
            "gaussians/camera_info": lambda: images.camera_info_message(header, prediction.camera),
            "gaussians/depth": lambda: images.depth_message(header, prediction.depth),
            "gaussians": lambda: messages.gaussians_to_cloud(
                header, prediction.gaussians, prediction.semantic, prediction.depth_sigma_m
            ),
            "debug/processing_ms": lambda: Float64(data=spent_ms),
        }
        if prediction.gates is not None:
            builders["debug/gates"] = lambda: images.float_image(header, prediction.gates)
        for name, build in builders.items():
            if self.outputs[name].get_subscription_count():
                self.outputs[name].publish(build())

    def _pause(self, paused: bool, response: Trigger.Response) -> Trigger.Response:
        self._paused = paused
        response.success, response.message = True, "frames are not taken" if paused else "frames are taken"
        return response


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [SpatialExpertNode()], args)


if __name__ == "__main__":
    sys.exit(main())
