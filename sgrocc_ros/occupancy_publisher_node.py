"""Voxel updates in; point cloud, grids, Octomap messages and markers out."""

from __future__ import annotations

import sys
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from octomap_msgs.srv import GetOctomap
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from sgrocc.memory.voxels import VoxelUpdate
from sgrocc.stages import stage
from sgrocc_ros import messages, parameters
from sgrocc_ros.latency import Latency
from sgrocc_ros.lifecycle import INTERNAL_QOS, MAP_QOS, ManagedNode
from sgrocc_ros.outputs import OUTPUTS, MapOutputs, MapUpdate
from sgrocc_ros.worker import run_nodes

#: Share of the time that sending the whole map may take, for each of the two groups of outputs.
_MOST_REFRESHING = 0.05

_NO_MAP_COMES = "no whole map comes from gaussian_memory: start and activate it, with that name and in this namespace"


class OccupancyPublisherNode(ManagedNode):
    """Holds the published map and sends it in the forms that other software reads, each built only when heard.

    In a pipeline `accept` is called by the memory's worker, and the node publishes `voxel_updates` for whoever wants
    every change, free space included. Otherwise it hears them from the memory node. Where it may have missed a part, it
    asks the memory node for the whole map. The service `~/save_ply` writes the file of the parameter `ply_file`;
    `~/octomap_binary` and `~/octomap_full` are those that octomap_saver asks.
    """

    def __init__(self, in_pipeline: bool = False, **options) -> None:
        self._in_pipeline = in_pipeline
        self._out: MapOutputs | None = None
        self._inbox: deque[MapUpdate] = deque()
        self._needs_map, self._had_map_s = not in_pipeline, time.monotonic()
        self._refused = ""  # why the last update was
        self._latency = Latency()
        super().__init__(parameters.PUBLISHER, None, counts=False, standalone=not in_pipeline, **options)
        self._wake = self.create_guard_condition(self._publish)
        self._whole_map = self.create_client(Trigger, "gaussian_memory/publish_map")
        self.create_service(Trigger, "~/save_ply", self._on_save_ply)
        for name in ("octomap_binary", "octomap_full"):
            topic = f"occupancy/{name}"
            self.create_service(GetOctomap, f"~/{name}", lambda _, r, topic=topic: self._on_get_octomap(topic, r))
        self.health.judge = self._judge

    # -- transitions ----------------------------------------------------------------------------------------------

    def configured(self) -> None:
        values = self.values
        self._frame_id, self._stamp_ns = values["global_frame"], 0
        self._has_map = False  # an empty one is sent only after another
        self._out = MapOutputs(values["resolution_m"], self._frame_id, self._complain)
        self._sent = {True: (0.0, 0.0), False: (0.0, 0.0)}  # (when, how long it took), steady, seconds
        self._unsent = {True: False, False: False}
        for topic, (kind, _) in OUTPUTS.items():
            self.offer(topic, kind, MAP_QOS)
        if self._in_pipeline:
            self.offer("voxel_updates", PointCloud2, INTERNAL_QOS)
        self._latency_ms = self.create_lifecycle_publisher(Float64, "debug/latency_ms", 10)
        self._heard = dict.fromkeys(self.outputs, 0)
        self._next_update: int | None = None
        self._asked_at = -np.inf
        self._take_nothing()

    def activated(self) -> None:
        self._heard = dict.fromkeys(self.outputs, 0)  # what changed while nothing was sent goes out to all
        self._had_map_s = time.monotonic()
        # Before there is a map it does not matter that nobody reads it.
        self.health.watchdog.watch_outputs(lambda: list(self.outputs.values()), lambda: self._has_map)
        self.every(0.2, self._publish)
        self.every(0.2, self._ask_for_map)
        if not self._in_pipeline:
            self.hear(PointCloud2, "voxel_updates", self._on_update, INTERNAL_QOS)
            self._needs_map = True  # what came while nobody listened is lost

    def cleaned_up(self) -> None:
        if self._out is not None:
            self._needs_map = True  # when it begins again
            self.destroy_lifecycle_publisher(self._latency_ms)
        self._out = None

    def details(self) -> dict[str, object]:
        latency_ms = self._latency.median_ms()
        return {} if latency_ms is None else {"latency_ms": f"{latency_ms:.1f}"}

    # -- updates --------------------------------------------------------------------------------------------------

    def accept(self, update: MapUpdate) -> None:
        """Take an update from any thread; it is applied and published by the executor."""
        self._inbox.append(update)
        if self.context.ok():
            self._wake.trigger()

    def _on_update(self, cloud: PointCloud2, info) -> None:
        try:
            update, whole = messages.cloud_to_update(cloud, self._out.resolution)
        except messages.BadMessage as error:
            self.get_logger().error(str(error))
            return
        number = info.get("publication_sequence_number")  # None where the middleware does not count
        # A smaller one is of a memory node that was started again.
        lost = number is not None and self._next_update is not None and number != self._next_update
        self._next_update = None if number is None else number + 1
        if lost and not whole:
            self.get_logger().warning("a voxel update is missing: asking the memory node for the whole map")
            self._needs_map = True
        header = cloud.header
        self.accept(MapUpdate(update, messages.stamp_ns(header), whole, self._out.resolution, header.frame_id))

    def _ask_for_map(self) -> None:
        now = time.monotonic()
        if not self._needs_map:
            self._had_map_s = now
        elif now - self._asked_at > 2.0 and self._whole_map.service_is_ready():
            self._asked_at = now
            self._whole_map.call_async(Trigger.Request())

    def _take_nothing(self) -> None:
        self._needs_map |= bool(self._inbox)
        self._inbox.clear()

    def _take_updates(self) -> None:
        while self._inbox:
            update = self._inbox.popleft()
            self._refused = self._out.why_not(update)
            if self._refused:
                self._needs_map = True  # once it is set right
                continue
            self._stamp_ns = update.stamp_ns
            self._needs_map &= not update.whole
            self._has_map |= len(update.voxels.indices) > 0
            if self._in_pipeline and self._heard["voxel_updates"]:
                self._forward(update.voxels, update.whole)
            self._out.apply(update.voxels, update.whole)
            self._unsent = {True: True, False: True}

    # -- publishing -----------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        if self._out is None:
            self._take_nothing()
            return
        if not self.is_active:
            self._take_updates()
            return
        if self._in_pipeline and self._new_readers(["voxel_updates"]):
            self._forward(self._out.map.known(), True)  # who joins late gets the whole map first
        self._take_updates()
        values = self.values
        rates = {True: values["publish_rate_hz"], False: values["octomap_rate_hz"]}
        for follows_frames, rate_hz in rates.items():
            sent, spent_s = self._sent[follows_frames]
            # The whole map is sent, so that this takes longer the larger it is: for the rest there is `voxel_updates`.
            due = sent + max(1.0 / rate_hz, spent_s / _MOST_REFRESHING)
            topics = [topic for topic, (_, follows) in OUTPUTS.items() if follows == follows_frames]
            joined, now = self._new_readers(topics), time.monotonic()
            # The map is latched: a reader who joins gets the last message, which exists only once it was built.
            if not self._has_map or not (joined or (self._unsent[follows_frames] and now >= due)):
                continue
            self._unsent[follows_frames] = False
            header = messages.to_header(self._stamp_ns, self._frame_id)
            with stage("serialise"):
                built = self._out.built([topic for topic in topics if self._heard[topic]], header, values)
            with stage("publish"):
                for topic, message in built.items():
                    self.outputs[topic].publish(message)
            if built and follows_frames:
                latency_ms = self._latency.note(self._stamp_ns, self.get_clock().now().nanoseconds)
                if latency_ms is not None:
                    self._latency_ms.publish(Float64(data=latency_ms))
            self._sent[follows_frames] = now, time.monotonic() - now

    def _forward(self, update: VoxelUpdate, whole: bool) -> None:
        header = messages.to_header(self._stamp_ns, self._frame_id)
        with stage("serialise"):
            cloud = messages.update_to_cloud(header, update, self._out.resolution, whole)
        with stage("publish"):
            self.outputs["voxel_updates"].publish(cloud)

    def _new_readers(self, topics: list[str]) -> bool:
        joined = False
        for topic in topics:
            count = self.outputs[topic].get_subscription_count()
            joined |= count > self._heard[topic]
            self._heard[topic] = count
        return joined

    # -- health ---------------------------------------------------------------------------------------------------

    def _judge(self) -> dict[str, tuple[bytes, str]]:
        problems = self._latency.problems(self.values)
        waited_s = time.monotonic() - self._had_map_s
        if self._refused:
            problems["other_map"] = DiagnosticStatus.ERROR, self._refused
        elif self.is_active and self._needs_map and waited_s > self.values["watchdog_after_s"]:
            problems["no_map"] = DiagnosticStatus.WARN, _NO_MAP_COMES
        return problems

    def _no_map(self) -> str:
        return f"there is no map: configure {self.get_name()} first"

    def _complain(self, sentence: str) -> None:
        self.get_logger().error(sentence, throttle_duration_sec=10.0)

    def _on_get_octomap(self, topic: str, response: GetOctomap.Response) -> GetOctomap.Response:
        if self._out is None:  # an empty tree is what the type has for that
            self._complain(self._no_map())
            return response
        self._take_updates()
        header = messages.to_header(self._stamp_ns, self._frame_id)
        response.map = self._out.built([topic], header, self.values).get(topic, response.map)
        return response

    def _on_save_ply(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        path = self.values["ply_file"]
        try:
            if self._out is None:
                raise ValueError(self._no_map())
            if not path:
                raise ValueError("there is no file to write: set the parameter ply_file")
            response.success, response.message = True, f"{path} holds {self._out.save_ply(path)} voxels"
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            response.success, response.message = False, str(error)
        return response


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [OccupancyPublisherNode()], args)


if __name__ == "__main__":
    sys.exit(main())
