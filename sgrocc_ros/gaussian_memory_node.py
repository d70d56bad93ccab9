"""Gaussians and transforms in, the voxels that changed in the persistent map out."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

from sgrocc.experts import Prediction
from sgrocc.memory import map_file
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros import messages, parameters
from sgrocc_ros.health import FrameCounters, Health
from sgrocc_ros.spatial_expert_node import INTERNAL_QOS
from sgrocc_ros.synchronise import StampJoiner
from sgrocc_ros.transforms import PoseQueue, RosTransforms
from sgrocc_ros.worker import Worker, run_nodes

#: Receives (update, stamp in nanoseconds, whether the update is the whole map).
UpdateSink = Callable[[VoxelUpdate, int, bool], None]


class GaussianMemoryNode(Node):
    """Fuses predictions at the pose of their own stamp. Never the latest pose, never the identity.

    The service `~/save_map` writes the map to the file of the parameter `map_file`, `~/load_map` replaces it by what is
    there; at the start it is loaded where it exists. Raises ValueError where that file cannot be used.

    Its worker thread owns the map. With a `sink` it is part of a pipeline: predictions come through `accept`, and
    updates go to the sink. Without one it subscribes `gaussians`, `gaussians/depth`, `gaussians/camera_info` and
    publishes `voxel_updates` (PointCloud2); the service `~/publish_map` sends the whole map there.
    """

    def __init__(self, sink: UpdateSink | None = None, counters: FrameCounters | None = None, **node_options) -> None:
        super().__init__("gaussian_memory", **node_options)
        self._values = parameters.declare(self)
        self.global_frame = self._values["global_frame"]
        fusion = parameters.make_fusion(self._values, self.get_logger().warning)
        self._memory = GaussianMemory(parameters.memory_config(self._values), fusion)
        self._memory.warm_up()
        self._counters = counters or FrameCounters()
        self._health = Health(self, self._counters, self._details)
        self._transforms = RosTransforms(self, self._values["tf_cache_time_s"])
        self._queue = PoseQueue(self._values["pose_queue_length"], self._values["max_pose_wait_s"])
        self._last_stamp_ns = 0
        # The worker owns the map: what services ask for waits here for it.
        self._asked: deque[tuple[Callable[[], str], Future]] = deque()
        self._whole_map_is_due = False
        path = self._values["map_file"]
        if path and Path(path).is_file():
            self.get_logger().info(self._load())
        for name, action in (("save_map", self._save), ("load_map", self._load)):
            self.create_service(Trigger, f"~/{name}", self._by_worker(action))
        self._sink = sink or self._publisher_sink()
        self._worker = Worker(
            self._process if sink is None else lambda item: self._queue_up(*item),
            # In a pipeline the expert waits rather than making what is thrown away.
            queue_length=50 if sink is None else 1,
            overtaken=lambda _: self._counters.drop("overtaken", "frames come faster than they can be fused"),
            failed=self._on_failure,
            poll=self._poll,
        )
        if sink is None:
            self._serve_alone()

    def stop(self) -> None:
        self._worker.stop()

    def accept(self, prediction: Prediction, stamp_ns: int, frame_id: str) -> None:
        """Hand a prediction over, from any thread; waits while the memory is behind."""
        self._worker.put((prediction, stamp_ns, frame_id), wait=True)

    # -- in the worker -------------------------------------------------------------------------------------------

    def _queue_up(self, prediction: Prediction, stamp_ns: int, frame_id: str) -> None:
        """Keep a prediction until its pose is there."""
        for _, reason in self._queue.push(stamp_ns, (prediction, stamp_ns, frame_id), time.monotonic()):
            self._counters.drop(reason, "too many frames wait for their transform: is tf late or missing?")

    def _poll(self) -> bool:
        """Do what services asked for, and fuse the queued predictions whose pose has come; returns whether any still
        wait."""
        while self._asked:
            self._answer(*self._asked.popleft())
        if self._whole_map_is_due:
            self._whole_map_is_due = False
            self._sink(self._memory.snapshot(), self._last_stamp_ns or self.get_clock().now().nanoseconds, True)
        ready, dropped = self._queue.poll(self._pose_of, time.monotonic())
        for _, reason, sentence in dropped:
            self._counters.drop(reason, sentence)
        for (prediction, stamp_ns, _), pose in ready:
            try:
                update = self._memory.fuse(prediction, pose)
            except ValueError as error:
                self._counters.drop("memory_refused", str(error))
                continue
            self._counters.fuse()
            self._last_stamp_ns = stamp_ns
            self._sink(update, stamp_ns, False)
        return len(self._queue) > 0

    def _pose_of(self, item: tuple[Prediction, int, str]):
        _, stamp_ns, frame_id = item
        return self._transforms.lookup(self.global_frame, frame_id, stamp_ns)

    def _details(self) -> dict[str, object]:
        return {
            "map.gaussians": len(self._memory),
            "map.fusion": "none" if self._memory.fusion is None else "learned",
            "transforms.refused": sum(self._transforms.problems.values()),
        }

    # -- the map in a file ----------------------------------------------------------------------------------------

    def _by_worker(self, action: Callable[[], str]) -> Callable:
        async def serve(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            done = Future()
            self._asked.append((action, done))
            response.success, response.message = await done
            return response

        return serve

    def _answer(self, action: Callable[[], str], done: Future) -> None:
        try:
            done.set_result((True, action()))
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            done.set_result((False, str(error)))

    def _save(self) -> str:
        map_file.save(self._memory, self._map_path(), self.global_frame)
        return f"{self._map_path()} holds the map: {len(self._memory)} Gaussians"

    def _load(self) -> str:
        map_file.load(self._memory, self._map_path(), self.global_frame)
        self._whole_map_is_due = True
        return f"{self._map_path()} was loaded: {len(self._memory)} Gaussians"

    def _map_path(self) -> str:
        if not self._values["map_file"]:
            raise ValueError("there is no file for the map: set the parameter map_file")
        return self._values["map_file"]

    # -- as a node of its own ------------------------------------------------------------------------------------

    def _serve_alone(self) -> None:
        streams = {"gaussians": PointCloud2, "depth": Image, "camera_info": CameraInfo}
        self._joiner = StampJoiner(required=tuple(streams), tolerance_s=0.0, max_length=50)
        for stream, kind in streams.items():
            topic = stream if stream == "gaussians" else f"gaussians/{stream}"
            self.create_subscription(
                kind, topic, lambda message, stream=stream: self._on_message(stream, message), INTERNAL_QOS
            )
        self.create_service(Trigger, "~/publish_map", self._on_publish_map)
        self.create_timer(0.1, self._expire, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_message(self, stream: str, message) -> None:
        if stream == "gaussians":
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
        if not joined:  # asked for by the service; here, because the worker owns the map
            self._sink(self._memory.snapshot(), self._last_stamp_ns, True)
            return
        cloud = joined["gaussians"]
        try:
            gaussians, semantic, depth_sigma_m = messages.cloud_to_gaussians(cloud)
            depth = messages.decode_depth(joined["depth"])
            camera = messages.camera_of(joined["camera_info"], depth.shape[1], depth.shape[0])
        except messages.BadMessage as error:
            self._counters.drop(error.reason, str(error))
            return
        prediction = Prediction(depth, camera, gaussians, semantic, depth_sigma_m)
        self._queue_up(prediction, messages.stamp_ns(cloud.header), cloud.header.frame_id)

    def _on_publish_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._worker.put({})
        response.success, response.message = True, "the whole map follows on voxel_updates"
        return response

    def _on_failure(self, trace: str) -> None:
        self._counters.drop("internal_error", "a frame failed inside the software: see the log and report it")
        self.get_logger().error(trace)

    def _publisher_sink(self) -> UpdateSink:
        publisher = self.create_publisher(PointCloud2, "voxel_updates", INTERNAL_QOS)
        resolution = self._values["resolution_m"]

        def publish(update: VoxelUpdate, stamp_ns: int, whole: bool) -> None:
            header = messages.to_header(stamp_ns, self.global_frame)
            publisher.publish(messages.update_to_cloud(header, update, resolution, whole))

        return publish


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [GaussianMemoryNode()], args)


if __name__ == "__main__":
    sys.exit(main())
