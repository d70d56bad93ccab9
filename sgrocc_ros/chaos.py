"""Throws broken messages, late and false transforms and clocks that go back at the running pipeline, for many frames.

The camera moves at a constant speed before a flat wall, so that every interpolated pose is exact and every voxel is
known: one that is occupied elsewhere is wrong. Frames may be dropped, with a reason; nothing may crash, and nothing be
lost without being counted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.clock import ClockChange, TimeJump
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from sgrocc.files import write_json
from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.labels import FREE, UNKNOWN
from sgrocc_ros import images, messages, pipeline
from sgrocc_ros.worker import bring_up

CAMERA = PinholeCamera(80, 60, 70.0, 70.0, 39.5, 29.5)
WALL_M, RESOLUTION_M = 2.04, 0.08
#: Frames until the clock goes back and the camera stands where it began.
LAP = 100
#: Share of the messages that are spoilt, and of the transforms.
SPOILT, FALSE_TF = 0.15, 0.15
_FALSE = ("tf lost", "tf not finite", "tf no rotation", "tf too old", "tf loop", "tf nameless")
#: Optical axes of a camera that looks along x: z forward, x right, y down.
_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def true_pose(time_s: float) -> Pose:
    """Where the camera is at a time of its lap: it moves sideways and towards the wall."""
    return Pose(_AXES, np.array([-0.5 + 0.05 * time_s, 0.1 * time_s, 0.0]))


class Chaos:
    """The pipeline, fed from one thread, without a network between."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.faults: Counter[str] = Counter()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        options = {
            "expert": "geometric",
            "max_pose_wait_s": 0.02,
            "max_partner_wait_s": 0.02,
            "frame_queue_length": 100,
            "pose_queue_length": 50,
        }
        given = [Parameter(name, value=value) for name, value in options.items()]
        self._nodes = pipeline.make_pipeline(parameter_overrides=given, context=self._context)
        if not bring_up(self._nodes):
            raise RuntimeError(next(node.problem for node in self._nodes if node.problem))
        self._publisher, self._memory, self._expert = self._nodes
        self._late: list[tuple[int, object]] = []  # (frame at which it comes, call)

    def close(self) -> None:
        for node in reversed(self._nodes):
            node.stop()
            node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    @property
    def counts(self) -> dict:
        return self._memory.counters.as_dict()

    def frame(self, number: int) -> None:
        """One step of a tenth of a second: transforms, then the messages of a frame, in any order."""
        time_s = 0.1 * (number % LAP)
        if number and number % LAP == 0:
            self._go_back()
        stamp_ns = 1_000_000_000 + round(1e9 * time_s)
        for step in range(5):
            self._send_tf(time_s + 0.02 * step, stamp_ns + 20_000_000 * step)
        events = self._messages(time_s, stamp_ns)
        self.rng.shuffle(events)
        for stream, message in events:
            self._deliver(number, lambda stream=stream, message=message: self._expert._on_message("", stream, message))
        for _, call in [entry for entry in self._late if entry[0] <= number]:
            call()
        self._late = [entry for entry in self._late if entry[0] > number]
        self._expert._streams.expire()
        self._publisher._publish()

    def settle(self, most_open: int = 0, limit_s: float = 30.0) -> None:
        """Wait until no more than so many frames are on their way."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            self._expert._streams.expire()
            counts = self.counts
            if counts["received"] - counts["fused"] - sum(counts["dropped"].values()) <= most_open:
                return
            time.sleep(0.002)

    def wrong_voxels(self) -> int:
        """Occupied voxels off the wall, and free ones behind it."""
        known = self._memory._memory.snapshot()
        wall = math.floor(WALL_M / RESOLUTION_M)
        x, label = known.indices[:, 0], known.labels
        occupied = (label != FREE) & (label != UNKNOWN)
        return int((occupied & (abs(x - wall) > 1)).sum() + ((label == FREE) & (x > wall)).sum())

    # -- what is sent ---------------------------------------------------------------------------------------------

    def _deliver(self, number: int, call) -> None:
        kind = self.rng.random()
        if kind < 0.04:
            self.faults["lost"] += 1
        elif kind < 0.08:
            self.faults["twice"] += 1
            call()
            call()
        elif kind < 0.16:
            self.faults["late"] += 1
            self._late.append((number + int(self.rng.integers(1, 4)), call))
        else:
            call()

    def _go_back(self) -> None:
        """As when a bag starts again with a simulated clock."""
        self.faults["clock went back"] += 1
        self._memory._on_time_jump(TimeJump(ClockChange.ROS_TIME_NO_CHANGE, Duration()))
        self._memory._transforms.clear()
        self._late.clear()
        time.sleep(0.12)  # the worker is told between two looks

    def _send_tf(self, time_s: float, stamp_ns: int) -> None:
        stamped = _transform(true_pose(time_s), stamp_ns)
        # The first one of a lap is true: nobody can tell that the only transform there is has its frames interchanged.
        if time_s and self.rng.random() < FALSE_TF:
            stamped = self._false_tf(stamped)
        if stamped is not None:
            self._memory._transforms._receive(TFMessage(transforms=[stamped]), False)

    def _false_tf(self, stamped: TransformStamped) -> TransformStamped | None:
        kind = str(self.rng.choice(_FALSE))
        self.faults[kind] += 1
        if kind == "tf lost":
            return None
        if kind == "tf not finite":
            stamped.transform.translation.x = float(self.rng.choice([math.nan, math.inf, -math.inf]))
        elif kind == "tf no rotation":
            stamped.transform.rotation.x = stamped.transform.rotation.y = stamped.transform.rotation.z = 0.0
            stamped.transform.rotation.w = float(self.rng.choice([0.0, 3.0]))
        elif kind == "tf too old":
            stamped.header.stamp.sec = -(2**30)
        elif kind == "tf loop":
            stamped.header.frame_id, stamped.child_frame_id = stamped.child_frame_id, stamped.header.frame_id
        else:
            stamped.child_frame_id = ""
        return stamped

    def _messages(self, time_s: float, stamp_ns: int) -> list[tuple[str, object]]:
        header = messages.to_header(stamp_ns, "camera")
        distance_m = WALL_M - true_pose(time_s).translation[0]
        depth = images.depth_message(header, np.full((CAMERA.height, CAMERA.width), distance_m, np.float32))
        image = Image(header=header, height=CAMERA.height, width=CAMERA.width, encoding="rgb8", step=3 * CAMERA.width)
        image.data = bytes(3 * CAMERA.width * CAMERA.height)
        found = [("image", image), ("camera_info", images.camera_info_message(header, CAMERA)), ("depth", depth)]
        return [(stream, self._spoilt(stream, m) if self.rng.random() < SPOILT else m) for stream, m in found]

    def _spoilt(self, stream: str, message):
        rng = self.rng
        if stream == "camera_info":
            kind = str(rng.choice(["matrix of zeros", "matrix not finite", "unknown lens", "lens not finite"]))
            if kind.startswith("matrix"):
                message.k = np.zeros(9) if kind.endswith("zeros") else np.full(9, math.nan)
            else:
                message.distortion_model = "nonsense" if kind == "unknown lens" else "plumb_bob"
                message.d = [0.1 if kind == "unknown lens" else math.nan] * 5
        else:
            kind = str(rng.choice(["cut", "encoding", "size", "step", "no stamp", "no frame", "content"]))
            if kind == "cut":
                message.data = bytes(message.data[: int(rng.integers(0, len(message.data)))])
            elif kind == "encoding":
                message.encoding = str(rng.choice(["", "yuv9", "32FC3", "bayer"]))
            elif kind == "size":
                message.width, message.height = (int(v) for v in rng.choice([0, 1, 16385, 2**32 - 1], 2))
            elif kind == "step":
                message.step = int(rng.choice([0, 1, 2**32 - 1]))
            elif kind == "no stamp":
                message.header = messages.to_header(0, "camera")
            elif kind == "no frame":
                message.header = messages.to_header(
                    messages.stamp_ns(message.header), str(rng.choice(["", "elsewhere"]))
                )
            elif stream == "depth":  # what is not finite, or not positive, is no measurement
                message = images.float_image(
                    message.header,
                    rng.choice([math.nan, math.inf, -math.inf, -1.0, 0.0], (CAMERA.height, CAMERA.width)),
                )
            else:
                message.data = rng.integers(0, 256, len(message.data), np.uint8).tobytes()
        self.faults[f"{stream}: {kind}"] += 1
        return message


def _transform(pose: Pose, stamp_ns: int) -> TransformStamped:
    stamped = TransformStamped(child_frame_id="camera")
    stamped.header = messages.to_header(stamp_ns, "odom")
    rotation, translation = stamped.transform.rotation, stamped.transform.translation
    rotation.w, rotation.x, rotation.y, rotation.z = (float(v) for v in pose.quaternion)
    translation.x, translation.y, translation.z = (float(v) for v in pose.translation)
    return stamped


def run(frames: int, seed: int) -> dict:
    """{frames, received, fused, dropped, faults, wrong_voxels, uncounted, known_voxels}."""
    chaos = Chaos(seed)
    try:
        for number in track(range(frames), description="chaos"):
            chaos.frame(number)
            chaos.settle(most_open=20)
        chaos.settle()
        counts = chaos.counts
        return {
            "frames": frames,
            "seed": seed,
            **counts,
            "uncounted": counts["received"] - counts["fused"] - sum(counts["dropped"].values()),
            "wrong_voxels": chaos.wrong_voxels(),
            "known_voxels": len(chaos._memory._memory.snapshot().labels),
            "faults": dict(sorted(chaos.faults.items())),
        }
    finally:
        chaos.close()


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write the result to")
    options = parser.parse_args(args)
    result = run(options.frames, options.seed)
    table = Table("what", "count")
    for group in ("faults", "dropped"):
        for name, count in result[group].items():
            table.add_row(f"{group}: {name}", str(count))
    for name in ("frames", "received", "fused", "uncounted", "known_voxels", "wrong_voxels"):
        table.add_row(name, str(result[name]))
    Console().print(table)
    if options.json:
        write_json(options.json, result)
    failed = result["wrong_voxels"] or result["uncounted"] or result["dropped"].get("internal_error")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
