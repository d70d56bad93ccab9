"""The published map, and the messages of it: each is built from the whole map, and only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sgrocc.labels import FREE, UNKNOWN
from sgrocc.memory.ply import save_ply
from sgrocc.memory.voxels import VoxelMap, VoxelUpdate
from sgrocc_ros import grids, images, messages, parameters
from sgrocc_ros.octree import OctreeMap

#: Every output: topic, type, whether it follows the frames (or the slower octomap_rate_hz).
OUTPUTS = {
    "occupancy/points": (PointCloud2, True),
    "occupancy/grid": (OccupancyGrid, True),
    "occupancy/cost": (OccupancyGrid, True),
    "occupancy/distance": (PointCloud2, True),
    "occupancy/octomap_binary": (Octomap, False),
    "occupancy/octomap_full": (Octomap, False),
    "occupancy/markers": (MarkerArray, False),
}

#: An octree that nobody has asked for since so many frames is dropped, and made anew for the next who asks.
_MOST_NOT_IN_OCTREE = 600


@dataclass(frozen=True)
class MapUpdate:
    """Voxels on their way from the memory to the publisher, with what their indices mean.

    whole: they replace all that was known.
    """

    voxels: VoxelUpdate
    stamp_ns: int
    whole: bool
    resolution_m: float
    frame_id: str


class MapOutputs:
    """The known voxels, kept up to date by `apply`, and an octree of them while somebody reads it.

    complain: gets a sentence for what cannot be built; the rest is.
    """

    def __init__(self, resolution: float, frame_id: str, complain: Callable[[str], None]) -> None:
        self.resolution, self._frame_id = resolution, frame_id
        self.map = VoxelMap()
        self._complain = complain
        self._octree: OctreeMap | None = None
        self._octree_has_free = True
        self._not_in_octree: list[np.ndarray] = []  # voxels that changed since it was sent last
        with suppress(ValueError):  # said when a distance field is asked for
            images.opencv("")  # not in the first frame's way

    def why_not(self, update: MapUpdate) -> str:
        """Why an update must not be applied; empty where it may. Of another grid or frame it would make a map of the
        wrong size or in the wrong place.
        """
        ours, theirs = (self.resolution, self._frame_id), (update.resolution_m, update.frame_id)
        if ours == theirs:
            return ""
        return (
            f"gaussian_memory maps voxels of {theirs[0]:g} m in '{theirs[1]}' and occupancy_publisher has {ours[0]:g} "
            f"m in '{ours[1]}', so that nothing is published: give both the same resolution_m and global_frame"
        )

    def apply(self, update: VoxelUpdate, whole: bool) -> None:
        """whole: the update replaces all that was known."""
        if whole:
            self.map.clear()
            self._octree = None
        self.map.apply(update)
        if self._octree is not None:
            self._not_in_octree.append(update.indices)
            if len(self._not_in_octree) > _MOST_NOT_IN_OCTREE:  # nobody listens any more
                self._octree, self._not_in_octree = None, []

    def save_ply(self, path: str) -> int:
        """Write the occupied voxels; returns their number. Raises OSError."""
        known = self.map.known()
        occupied = known.labels != FREE
        centres = (known.indices[occupied] + 0.5) * self.resolution
        save_ply(path, centres, known.labels[occupied], known.probabilities[occupied], self.resolution)
        return int(occupied.sum())

    def built(self, topics: list[str], header: Header, values: parameters.Values) -> dict[str, object]:
        """The messages of the whole map, by topic."""
        if not topics:
            return {}
        known = self.map.known()
        occupied = known.labels != FREE
        centres = ((known.indices[occupied] + 0.5) * self.resolution).astype(np.float32)
        labels, probabilities = known.labels[occupied], known.probabilities[occupied]
        # What a network takes for free must not clear what other sensors mark, unless that is wanted.
        free_is_known = values["depth_source"] == "topic" or bool(values["network_free_space"])
        band = (
            header,
            known.indices,
            known.labels,
            self.resolution,
            values["grid_min_height_m"],
            values["grid_max_height_m"],
        )
        self._bring_octree_up_to_date(topics, known, free_is_known)
        if self._octree is None:
            topics = [topic for topic in topics if not topic.startswith("occupancy/octomap")]
        builders = {
            "occupancy/points": lambda: messages.voxels_to_cloud(header, centres, labels, probabilities),
            "occupancy/grid": lambda: grids.occupancy_grid_message(*band, free_is_known),
            "occupancy/cost": lambda: grids.cost_grid_message(*band, parameters.costs(values), free_is_known),
            "occupancy/distance": lambda: grids.distance_cloud(*band, values["max_distance_m"]),
            "occupancy/octomap_binary": lambda: self._octree.binary_message(header),
            "occupancy/octomap_full": lambda: self._octree.full_message(header),
            "occupancy/markers": lambda: messages.marker_message(
                header, centres, labels, self.resolution, values["max_markers"]
            ),
        }
        built = {}
        for topic in topics:
            try:
                built[topic] = builders[topic]()
            except ValueError as error:  # a map too wide for one form of output must not stop the others
                self._complain(f"{topic} is not published: {error}")
        return built

    def _bring_octree_up_to_date(self, topics: list[str], known: VoxelUpdate, with_free: bool) -> None:
        """Once for all changes since the octree was sent last, as most voxels change in many frames."""
        if not any(topic.startswith("occupancy/octomap") for topic in topics):
            return
        if self._octree is None or with_free != self._octree_has_free:
            self._octree_has_free = with_free
            self._octree = self._applied(OctreeMap(self.resolution), known)
        elif self._not_in_octree:
            self._octree = self._applied(self._octree, self.map.of(np.concatenate(self._not_in_octree)))
        self._not_in_octree = []

    def _applied(self, octree: OctreeMap, update: VoxelUpdate) -> OctreeMap | None:
        """The octree with an update in it; None, said to the user, where a voxel lies outside what OctoMap can hold."""
        labels = update.labels
        if not self._octree_has_free:
            labels = np.where(labels == FREE, np.uint8(UNKNOWN), labels)
        try:
            octree.apply(update.indices, labels, update.probabilities)
        except ValueError as error:
            self._complain(f"the Octomap messages are not published: {error}")
            return None
        return octree
