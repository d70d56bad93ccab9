"""Gaussians and transforms in, the voxels that changed in the persistent map out."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from rclpy.clock import TimeJump
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import PointCloud2

from sgrocc.experts import Prediction
from sgrocc.geometry import Pose
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros import messages, parameters
from sgrocc_ros.gaussians_input import GaussiansInput
from sgrocc_ros.health import FrameCounters
from sgrocc_ros.jumps import MapJumps
from sgrocc_ros.lifecycle import INTERNAL_QOS, MAP_QOS, ManagedNode
from sgrocc_ros.map_services import MapServices
from sgrocc_ros.outputs import MapUpdate
from sgrocc_ros.transforms import PoseQueue, RosTransforms, when_clock_goes_back
from sgrocc_ros.worker import Worker, run_nodes

MapSink = Callable[[MapUpdate], None]

_NOT_ACTIVE = "memory_inactive", "the memory takes no frames: activate gaussian_memory"


class GaussianMemoryNode(ManagedNode):
    """Fuses predictions at the pose of their own stamp. Never the latest pose, never the identity.

    Its worker thread owns the map, from configuring to cleaning up. With a `sink` it is part of a pipeline: predictions
    come through `accept`, and updates go to the sink. Without one it hears `gaussians` and its companions, and
    publishes `voxel_updates` (PointCloud2). The file of the parameter `map_file` is loaded when it is configured, where
    there is one; what can be asked of the map is in MapServices.
    """

    def __init__(self, sink: MapSink | None = None, counters: FrameCounters | None = None, **options) -> None:
        self._memory: GaussianMemory | None = None
        self._worker: Worker | None = None
        self._transforms: RosTransforms | None = None
        self._sink = sink
        self._owes_map = False  # what is published may be another map than ours
        super().__init__(parameters.MEMORY, counters, counts=True, standalone=sink is None, **options)
        self._map_services = MapServices(self, lambda update, whole: self._send(update, self._stamp(), whole))

    # -- transitions ----------------------------------------------------------------------------------------------

    def configured(self) -> None:
        values = self.values
        self.global_frame = values["global_frame"]
        fusion = parameters.make_fusion(values, self.get_logger().warning)
        self._memory = GaussianMemory(parameters.memory_config(values), fusion)
        self._memory.warm_up()
        self._map_services.memory = self._memory
        self._queue = PoseQueue(values["pose_queue_length"], values["max_pose_wait_s"])
        self._jumps = MapJumps(self.global_frame, values["odom_frame"])
        self._last_stamp_ns, self._cloud_sent_s = 0, 0.0
        for topic in ("gaussians/memory", "debug/confidence", *(() if self._sink else ("voxel_updates",))):
            self.offer(topic, PointCloud2, MAP_QOS if topic == "gaussians/memory" else INTERNAL_QOS)
        path = values["map_file"]
        if path and Path(path).is_file():
            self.get_logger().info(self._map_services.load_map())
        self._clock_jumps = when_clock_goes_back(self, self._on_time_jump)
        self._worker = Worker(
            lambda item: self._queue_up(*item),
            # In a pipeline the expert waits rather than making what is thrown away.
            queue_length=1 if self._sink else 50,
            lost=self.lost,
            failed=self.failed,
            poll=self._poll,
        )

    def activated(self) -> None:
        self._transforms = RosTransforms(self, self.values["tf_cache_time_s"])
        self._jumps.forget()
        if self._sink is None:
            GaussiansInput(self, INTERNAL_QOS, self._worker.put)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._owes_map = result == TransitionCallbackReturn.SUCCESS  # only now the topics are open
        return result

    def deactivated(self) -> None:
        if self._transforms is not None:
            self._transforms.close()
        self._transforms = None

    def cleaned_up(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._clock_jumps.unregister()
            for _ in self._queue.clear():
                self.lost("stopped")
        self._map_services.close()
        self._worker = self._memory = None

    def parameters_changed(self, names: set[str]) -> None:
        if any(name.startswith("memory.") for name in names):
            self._map_services.ask(self._take_settings)
        self._queue.max_wait_s = self.values["max_pose_wait_s"]

    def details(self) -> dict[str, object]:
        if self._memory is None:
            return {}
        return {
            "map.gaussians": len(self._memory),
            "map.fusion": "none" if self._memory.fusion is None else "learned",
            "transforms.refused": sum(self._transforms.problems.values()) if self._transforms else 0,
        }

    # -- in the worker --------------------------------------------------------------------------------------------

    def accept(self, prediction: Prediction, stamp_ns: int, frame_id: str) -> None:
        """Hand a prediction over, from any thread; waits while the memory is behind."""
        if (worker := self._worker) is not None and self.is_active:
            worker.put((prediction, stamp_ns, frame_id), wait=True)
        else:
            self.counters.drop(*_NOT_ACTIVE)

    def _queue_up(self, prediction: Prediction, stamp_ns: int, frame_id: str) -> None:
        """Keep a prediction until its pose is there."""
        for _, reason in self._queue.push(stamp_ns, (prediction, stamp_ns, frame_id), time.monotonic()):
            self.counters.drop(reason, "too many frames wait for their transform: is tf late or missing?")

    def _poll(self) -> bool:
        """Do what was asked for, fuse the queued predictions whose pose has come; returns whether any still wait."""
        self._map_services.answer()
        if self._owes_map and self._is_heard():
            self._owes_map = False
            self._map_services.publish_map()
        if (transforms := self._transforms) is None:
            for _ in self._queue.clear():
                self.counters.drop(*_NOT_ACTIVE)
            return False
        ready, dropped = self._queue.poll(
            lambda item: transforms.lookup(self.global_frame, item[2], item[1]), time.monotonic()
        )
        for _, reason, sentence in dropped:
            self.counters.drop(reason, sentence)
        for (prediction, stamp_ns, _), pose in ready:
            try:
                self._look_for_jump(transforms, stamp_ns)
                self._fuse(prediction, stamp_ns, pose)
            except Exception:  # the other frames are none the worse for it
                self.failed(traceback.format_exc())
                self._map_services.ask(self._map_services.publish_map)  # what this frame changed was perhaps not sent
        return len(self._queue) > 0

    def _fuse(self, prediction: Prediction, stamp_ns: int, pose: Pose) -> None:
        try:
            update = self._memory.fuse(prediction, pose)
        except ValueError as error:
            self.counters.drop("memory_refused", str(error))
            return
        self._last_stamp_ns = stamp_ns
        self._send(update, stamp_ns, False)
        self._show()
        self.counters.fuse()

    def _look_for_jump(self, transforms: RosTransforms, stamp_ns: int) -> None:
        values = self.values
        sentence = self._jumps.sentence(transforms.lookup, stamp_ns, values["map_jump_m"], values["map_jump_deg"])
        if sentence:
            self.counters.say("map_jumped", sentence)
            if values["on_map_jump"] == "reset":
                self._map_services.reset()

    def _send(self, update: VoxelUpdate, stamp_ns: int, whole: bool) -> None:
        resolution_m = self._memory.config.resolution
        if self._sink is not None:
            self._sink(MapUpdate(update, stamp_ns, whole, resolution_m, self.global_frame))
        elif self._is_heard():
            header = messages.to_header(stamp_ns, self.global_frame)
            cloud = messages.update_to_cloud(header, update, resolution_m, whole)
            self.outputs["voxel_updates"].publish(cloud)

    def _is_heard(self) -> bool:
        if self._sink is not None:
            return True
        return self.is_active and self.outputs["voxel_updates"].get_subscription_count() > 0

    def _stamp(self) -> int:
        return self._last_stamp_ns or self.get_clock().now().nanoseconds

    def _show(self) -> None:
        """What is there to be looked at, where somebody does."""
        remembered, confidence = self.outputs["gaussians/memory"], self.outputs["debug/confidence"]
        header = messages.to_header(self._last_stamp_ns, self.global_frame)
        due_s = self._cloud_sent_s + 1.0 / self.values["gaussian_cloud_rate_hz"]
        if remembered.get_subscription_count() and time.monotonic() >= due_s:
            self._cloud_sent_s = time.monotonic()
            remembered.publish(messages.memory_cloud(header, self._memory.gaussians()))
        if confidence.get_subscription_count():
            confidence.publish(messages.confidence_cloud(header, self._memory.confirmation))

    # -- what happens besides ---------------------------------------------------------------------------------------

    def _take_settings(self) -> str:
        self._memory.config = parameters.memory_config(self.values)
        return "done"

    def _on_time_jump(self, jump: TimeJump) -> None:
        # Half way between then and now: frames of the new time may come before the worker is asked.
        after_ns = self.get_clock().now().nanoseconds - jump.delta.nanoseconds // 2
        self._map_services.ask(lambda: self._forget_waiting(after_ns))
        if self.values["on_time_jump"] == "reset":
            self._map_services.ask(self._map_services.reset)

    def _forget_waiting(self, after_ns: int) -> str:
        for _ in self._queue.clear(after_ns):
            self.counters.drop("time_went_back", "the clock went back while a frame waited for its transform")
        self._jumps.forget()
        return "done"


def main(args: list[str] | None = None) -> int:
    return run_nodes(lambda: [GaussianMemoryNode()], args)


if __name__ == "__main__":
    sys.exit(main())
