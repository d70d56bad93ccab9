"""The three topics that carry a prediction between processes, joined by stamp for each camera."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sgrocc.experts import Prediction
from sgrocc_ros import images, messages
from sgrocc_ros.joined_streams import JoinedStreams
from sgrocc_ros.lifecycle import ManagedNode
from sgrocc_ros.synchronise import StampJoiner

_STREAMS = {"gaussians": PointCloud2, "depth": Image, "camera_info": CameraInfo}


class GaussiansInput:
    """Hears `gaussians`, `gaussians/depth` and `gaussians/camera_info` for a node while it is active.

    put: gets (prediction, stamp in nanoseconds, frame id). Several experts may publish on the same topics: their
    cameras are told apart by frame id.
    """

    def __init__(self, node: ManagedNode, qos: QoSProfile, put: Callable[[tuple], None]) -> None:
        self._node, self._put = node, put
        self._streams = JoinedStreams(
            node, lambda: StampJoiner(required=tuple(_STREAMS), tolerance_s=0.0, max_length=50), self._decode
        )
        for stream, kind in _STREAMS.items():
            topic = stream if stream == "gaussians" else f"gaussians/{stream}"
            topic = node.hear(kind, topic, lambda message, stream=stream: self._on_message(stream, message), qos)
            if stream == "gaussians":
                node.health.watchdog.watch(stream, topic, messages.type_name(kind))

    def _on_message(self, stream: str, message) -> None:
        if stream == "gaussians":
            self._node.health.watchdog.heard(stream)
            self._node.counters.receive()
        self._streams.add(message.header.frame_id, stream, message)

    def _decode(self, joined: dict) -> None:
        cloud = joined["gaussians"]
        try:
            gaussians, semantic, depth_sigma_m = messages.cloud_to_gaussians(cloud)
            depth = images.decode_depth(joined["depth"])
            camera = images.camera_of(joined["camera_info"], depth.shape[1], depth.shape[0])
        except messages.BadMessage as error:
            self._node.counters.drop(error.reason, str(error))
            return
        prediction = Prediction(depth, camera, gaussians, semantic, depth_sigma_m)
        self._put((prediction, messages.stamp_ns(cloud.header), cloud.header.frame_id))
