"""Voxel updates in; point cloud, Octomap messages, OccupancyGrid and markers out."""

from __future__ import annotations

import sys
import time
from collections import deque

import numpy as np
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from sgrocc.labels import FREE
from sgrocc.memory.voxels import VoxelMap, VoxelUpdate
from sgrocc.stages import stage
from sgrocc_ros import messages, parameters
from sgrocc_ros.octree import OctreeMap
from sgrocc_ros.spatial_expert_node import INTERNAL_QOS
from sgrocc_ros.worker import run_nodes

#: REP-2003: maps are reliable and latched.
MAP_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)

#: Every output: topic, type, whether it follows the frames (or the slower octomap_rate_hz).
OUTPUTS = {
    "occupancy/points": (PointCloud2, True),
    "occupancy/grid": (OccupancyGrid, True),
    "occupancy/octomap_binary": (Octomap, False),
    "occupancy/octomap_full": (Octomap, False),
    "occupancy/markers": (MarkerArray, False),
}


#: Share of the time that sending the whole map may take, for each of the two groups of outputs.
_MOST_REFRESHING = 0.05


#: An octree that nobody has asked for since so many frames is dropped, and made anew for the next who asks.
_MOST_NOT_IN_OCTREE = 600


class OccupancyPublisherNode(Node):
    """Holds the published map and sends it in the forms that other software reads, each built only when heard.

    In a pipeline `accept` is called by the worker, and the node publishes `voxel_updates` for whoever wants every
    change, free space included. Otherwise it subscribes them from the memory node, and asks that for the whole map
    when it starts and whenever an update was lost.
    """

    def __init__(self, in_pipeline: bool = False, **node_options) -> None:
        super().__init__("occupancy_publisher", **node_options)
        self._values = parameters.declare(self)
        self._frame_id = self._values["global_frame"]
        self._resolution = self._values["resolution_m"]
        self._map = VoxelMap()
        self._octree: OctreeMap | None = None
        self._not_in_octree: list[np.ndarray] = []  # voxels that changed since it was sent last
        self._inbox: deque[tuple[VoxelUpdate, int, bool]] = deque()
        self._stamp_ns = 0
        self._due = {True: 0.0, False: 0.0}
        self._unsent = {True: False, False: False}
        self._heard = dict.fromkeys(OUTPUTS, 0)
        self._outputs = {
            topic: self.create_publisher(
                kind, topic, MAP_QOS, qos_overriding_options=QoSOverridingOptions.with_default_policies()
            )
            for topic, (kind, _) in OUTPUTS.items()
        }
        self._wake = self.create_guard_condition(self._publish)
        from rclpy.clock import Clock, ClockType

        self.create_timer(0.2, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._updates = None
        if in_pipeline:
            self._updates = self.create_publisher(PointCloud2, "voxel_updates", INTERNAL_QOS)
            self._heard["voxel_updates"] = 0
        else:
            self._next_update = None
            self._whole_map = self.create_client(Trigger, "gaussian_memory/publish_map")
            self._asked_at = -np.inf
            self._needs_map = True
            self.create_subscription(PointCloud2, "voxel_updates", self._on_update, INTERNAL_QOS)
            self.create_timer(0.2, self._ask_for_map, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def stop(self) -> None:
        """Nothing runs outside the executor."""

    def accept(self, update: VoxelUpdate, stamp_ns: int, whole: bool) -> None:
        """Take an update from any thread; it is published by the executor."""
        self._inbox.append((update, stamp_ns, whole))
        self._wake.trigger()

    # -- as a node of its own ------------------------------------------------------------------------------------

    def _on_update(self, cloud: PointCloud2, info) -> None:
        try:
            update, whole = messages.cloud_to_update(cloud, self._resolution)
        except messages.BadMessage as error:
            self.get_logger().error(str(error))
            return
        number = info.get("publication_sequence_number")  # None where the middleware does not count
        lost = number is not None and self._next_update is not None and number > self._next_update
        self._next_update = None if number is None else number + 1
        if whole:
            self._needs_map = False
        elif lost:
            self.get_logger().warning("a voxel update was lost on the way: asking the memory node for the whole map")
            self._needs_map = True
        self.accept(update, messages.stamp_ns(cloud.header), whole)

    def _ask_for_map(self) -> None:
        if self._needs_map and time.monotonic() - self._asked_at > 2.0 and self._whole_map.service_is_ready():
            self._asked_at = time.monotonic()
            self._whole_map.call_async(Trigger.Request())

    # -- publishing ----------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        if self._updates is not None and self._new_readers(["voxel_updates"]):
            self._forward(self._map.known(), True)  # who joins late gets the whole map first
        while self._inbox:
            update, self._stamp_ns, whole = self._inbox.popleft()
            if self._updates is not None and self._heard["voxel_updates"]:
                self._forward(update, whole)
            if whole:
                self._map.clear()
                self._octree = None
            self._map.apply(update)
            if self._octree is not None:
                self._not_in_octree.append(update.indices)
                if len(self._not_in_octree) > _MOST_NOT_IN_OCTREE:  # nobody listens any more
                    self._octree, self._not_in_octree = None, []
            self._unsent = {True: True, False: True}
        rates = {True: self._values["publish_rate_hz"], False: self._values["octomap_rate_hz"]}
        for follows_frames, rate_hz in rates.items():
            topics = [topic for topic, (_, follows) in OUTPUTS.items() if follows == follows_frames]
            joined, now = self._new_readers(topics), time.monotonic()
            # The map is latched: a reader who joins gets the last message, which exists only once it was built.
            if not self._stamp_ns or not (
                joined or (self._unsent[follows_frames] and now >= self._due[follows_frames])
            ):
                continue
            self._unsent[follows_frames] = False
            with stage("serialise"):
                built = self._built([topic for topic in topics if self._heard[topic]])
            with stage("publish"):
                for topic, message in built.items():
                    self._outputs[topic].publish(message)
            # The whole map is sent, so that this takes longer the larger it is: for the rest there is `voxel_updates`.
            spent_s = time.monotonic() - now
            self._due[follows_frames] = now + max(1.0 / rate_hz, spent_s / _MOST_REFRESHING)

    def _forward(self, update: VoxelUpdate, whole: bool) -> None:
        header = messages.to_header(self._stamp_ns, self._frame_id)
        with stage("serialise"):
            cloud = messages.update_to_cloud(header, update, self._resolution, whole)
        with stage("publish"):
            self._updates.publish(cloud)

    def _new_readers(self, topics: list[str]) -> bool:
        joined = False
        for topic in topics:
            output = self._updates if topic == "voxel_updates" else self._outputs[topic]
            count = output.get_subscription_count()
            joined |= count > self._heard[topic]
            self._heard[topic] = count
        return joined

    def _built(self, topics: list[str]) -> dict[str, object]:
        """The messages of the whole map, by topic."""
        if not topics:
            return {}
        header = messages.to_header(self._stamp_ns, self._frame_id)
        known = self._map.known()
        occupied = known.labels != FREE
        centres = ((known.indices[occupied] + 0.5) * self._resolution).astype(np.float32)
        labels = known.labels[occupied]
        self._bring_octree_up_to_date(topics, known)
        if self._octree is None:
            topics = [topic for topic in topics if not topic.startswith("occupancy/octomap")]
        builders = {
            "occupancy/points": lambda: messages.voxels_to_cloud(
                header, centres, labels, known.probabilities[occupied]
            ),
            "occupancy/grid": lambda: messages.occupancy_grid_message(
                header,
                known.indices,
                known.labels,
                self._resolution,
                self._values["grid_min_height_m"],
                self._values["grid_max_height_m"],
            ),
            "occupancy/octomap_binary": lambda: self._octree.binary_message(header),
            "occupancy/octomap_full": lambda: self._octree.full_message(header),
            "occupancy/markers": lambda: messages.marker_message(
                header, centres, labels, self._resolution, self._values["max_markers"]
            ),
        }
        built = {}
        for topic in topics:
            try:
                built[topic] = builders[topic]()
            except ValueError as error:  # a map too wide for one form of output must not stop the others
                self.get_logger().error(f"{topic} is not published: {error}", throttle_duration_sec=10.0)
        return built

    def _bring_octree_up_to_date(self, topics: list[str], known: VoxelUpdate) -> None:
        """Once for all changes since the octree was sent last, as most voxels change in many frames."""
        if any(topic.startswith("occupancy/octomap") for topic in topics):
            if self._octree is None:
                self._octree = self._applied(OctreeMap(self._resolution), known)
            elif self._not_in_octree:
                changed = self._map.of(np.concatenate(self._not_in_octree))
                self._octree = self._applied(self._octree, changed)
            self._not_in_octree = []

    def _applied(self, octree: OctreeMap, update: VoxelUpdate) -> OctreeMap | None:
        """The octree with an update in it; None, said in the log, where a voxel lies outside what OctoMap can hold."""
        try:
            octree.apply(update.indices, update.labels, update.probabilities)
        except ValueError as error:
            self.get_logger().error(f"the Octomap messages are not published: {error}", throttle_duration_sec=10.0)
            return None
        return octree


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [OccupancyPublisherNode()], args)


if __name__ == "__main__":
    sys.exit(main())
