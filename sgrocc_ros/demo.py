"""Plays a recording through the running nodes over DDS and shows what came out: a table, pictures, a report, a bag."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from PIL import Image
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from rich.console import Console
from sensor_msgs.msg import PointCloud2

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation import pictures
from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.report import print_table, write_report
from sgrocc.files import write_json
from sgrocc.memory.voxels import VoxelMap
from sgrocc.resources import config_path
from sgrocc_ros import messages, parameters
from sgrocc_ros.bag import BagWriter
from sgrocc_ros.description import Inputs, command, executables
from sgrocc_ros.evaluate_bag import add_expert_arguments, evaluate, expert_overrides, occupancy_of
from sgrocc_ros.lifecycle import INTERNAL_QOS, MAP_QOS
from sgrocc_ros.outputs import OUTPUTS
from sgrocc_ros.record_sequence import record_sequence

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED_RECORDING = REPOSITORY / "recordings" / "synth_test_0000"
#: What the nodes publish: the outputs, and every change of the map, free space included.
TYPES = {**{topic: kind for topic, (kind, _) in OUTPUTS.items()}, "voxel_updates": PointCloud2}
console = Console()


class Listener:
    """Subscribes to every output, as a user would, and keeps what arrives and when, by the steady clock.

    keep: False for a long run, where nothing but the counters is wanted.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        rclpy.init()
        self._node = rclpy.create_node("demo_listener")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self.received: list[tuple[str, int, int, bytes]] = []  # topic, stamp, steady clock, CDR
        self._reports: dict[str, dict] = {}  # by node
        self._fresh: set[str] = set()  # the nodes that reported since it was cleared
        self.details: dict[str, str] = {}
        for topic, kind in TYPES.items():
            qos = INTERNAL_QOS if topic == "voxel_updates" else MAP_QOS
            self._node.create_subscription(
                kind, topic, lambda raw, topic=topic: self._on_output(topic, raw), qos, raw=True
            )
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(2.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    @property
    def frames(self) -> dict:
        """{received, fused, dropped {reason: count}} of all nodes together; empty before the first report.

        As processes of their own, the expert receives images and the memory node what the expert made of them.
        """
        reports = list(self._reports.values())
        if not reports:
            return {}
        dropped = sum((Counter(report["dropped"]) for report in reports), Counter())
        received = max(report["received"] for report in reports)
        return {"received": received, "fused": sum(r["fused"] for r in reports), "dropped": dict(dropped)}

    def nodes_are_connected(self, processes: int) -> bool:
        """Whether the nodes offer their outputs, hear tf, and hear each other where they are separate processes."""
        listeners = {"/tf": 1}
        if processes > 1:  # of the updates, we are one listener ourselves
            listeners.update({"gaussians": 1, "gaussians/depth": 1, "gaussians/camera_info": 1, "voxel_updates": 2})
        heard = all(self._node.count_subscribers(topic) >= count for topic, count in listeners.items())
        return heard and self._node.count_publishers("occupancy/grid") > 0

    def last(self, topic: str) -> bytes | None:
        return next((raw for name, _, _, raw in reversed(self.received) if name == topic), None)

    def settle(self, timeout_s: float = 20.0) -> None:
        """Wait until every received frame has been fused or dropped, and every node has said so twice."""
        deadline = time.monotonic() + timeout_s
        before, settled = None, False
        while not settled and time.monotonic() < deadline:
            self._fresh.clear()
            while not self._reports.keys() <= self._fresh or not self._fresh:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)
            now = self.frames
            settled = now == before and now["received"] == now["fused"] + sum(now["dropped"].values())
            before = now

    def _on_output(self, topic: str, raw: bytes) -> None:
        if not self._keep:
            return
        # Markers have no header of their own; every other output begins with its stamp.
        stamp_ns = 0
        if topic != "occupancy/markers":
            seconds, nanoseconds = struct.unpack_from("<iI", raw, 4)  # behind the four bytes of CDR encapsulation
            stamp_ns = seconds * 1_000_000_000 + nanoseconds
        self.received.append((topic, stamp_ns, time.monotonic_ns(), raw))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.hardware_id != "sgrocc" or "received" not in values:
                continue
            dropped = {k.removeprefix("dropped."): int(v) for k, v in values.items() if k.startswith("dropped.")}
            self._reports[status.name] = {
                "received": int(values["received"]),
                "fused": int(values["fused"]),
                "dropped": dropped,
            }
            self._fresh.add(status.name)
            self.details.update(values)


def environment() -> dict[str, str]:
    """A DDS domain of our own on this machine alone, with shared memory large enough for images."""
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(secrets.randbelow(100) + 1),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(config_path("fastdds_localhost.xml")),
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
    }


@contextmanager
def running_nodes(log: Path, overrides: dict[str, object], one_process: bool = True):
    """The nodes as they run on a robot, in processes of their own; ended by SIGINT, exit codes checked."""
    processes = []
    with log.open("w") as stream:
        for executable in executables(one_process):
            line = command(executable, Inputs(), config_path("sgrocc.yaml"), overrides)
            processes.append(subprocess.Popen(line, stdout=stream, stderr=subprocess.STDOUT))
        try:
            yield processes
        finally:
            codes = []
            for process in processes:
                # One after the other: Fast DDS was seen to crash or hang where participants leave at the same time.
                process.send_signal(signal.SIGINT)
                try:
                    codes.append(process.wait(10))
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes.append(process.wait())
    if any(codes):
        raise RuntimeError(f"a node ended with exit code {max(codes, key=abs)}: read {log}")


def play(
    bag: Path, rate: float, log: Path, overrides: dict[str, object] | None = None, loops: int = 1
) -> dict[int, int]:
    """Replay a bag in a process of its own to nodes with those parameters, once they listen; `loops` times over.

    Returns image stamp -> steady clock at publishing, nanoseconds.
    """
    line = [sys.executable, "-m", "sgrocc_ros.replay", "--bag", str(bag), "--rate", str(rate), "--log", str(log)]
    line += ["--loops", str(loops)]
    awaited = [Inputs.image, Inputs.camera_info, "/tf", "/tf_static"]
    if (overrides or {}).get("depth_source") != "network":
        awaited.append(Inputs.depth)
    subprocess.run([*line, "--wait-for-subscribers", *awaited], check=True)
    published = json.loads(log.read_text())["published"]
    return {stamp: steady for stamp, steady in published[Inputs.image]}


def run_once(
    bag: Path, log: Path, rate: float, overrides: dict[str, object], one_process: bool = True
) -> tuple[Listener, dict[int, int]]:
    """Play a bag through freshly started nodes; returns what was heard and when each image was published.

    log: where the nodes' output goes; the player's record of what it published goes beside it, as .json.
    """
    listener = Listener()
    try:
        with running_nodes(log, {"use_sim_time": True, **overrides}, one_process) as processes:
            wait_for_map(listener, processes, log)
            published = play(bag, rate, log.with_suffix(".json"), overrides)
            listener.settle()
    finally:
        listener.close()
    return listener, published


def map_heard(listener: Listener, values: parameters.Values) -> Occupancy:
    """The sum of all voxel updates that were heard."""
    voxels = VoxelMap()
    for topic, _, _, raw in listener.received:
        if topic == "voxel_updates":
            update, whole = messages.cloud_to_update(deserialize_message(raw, PointCloud2), values["resolution_m"])
            if whole:
                voxels.clear()
            voxels.apply(update)
    return occupancy_of(voxels, values)


def latency_ms(listener: Listener, published: dict[int, int]) -> dict[str, float | None]:
    """Percentiles of image publish to grid receipt, of the frames whose grid came, on the machine's steady clock."""
    delays = []
    for topic, stamp_ns, steady_ns, _ in listener.received:
        if topic == "occupancy/grid" and stamp_ns in published:
            delays.append((steady_ns - published.pop(stamp_ns)) / 1e6)
    if not delays:
        return dict.fromkeys(("p50", "p95", "p99"))
    return {f"p{p}": round(float(np.percentile(delays, p)), 1) for p in (50, 95, 99)}


def cpu_s_of(process: subprocess.Popen) -> float:
    """CPU seconds that a running process has used in all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sustained_hz(listener: Listener) -> float | None:
    """Frames fused per second while frames came faster than that."""
    times = sorted({stamp: at for topic, stamp, at, _ in listener.received if topic == "occupancy/grid"}.values())
    if len(times) < 3:
        return None
    return round((len(times) - 1) / ((times[-1] - times[0]) / 1e9), 1)


def save_outputs(listener: Listener, path: Path) -> None:
    """What was published, as a bag that RViz and Foxglove can play."""
    shutil.rmtree(path, ignore_errors=True)
    names = {topic: messages.type_name(kind) for topic, kind in TYPES.items()}
    with BagWriter(path) as writer:
        for topic, _, steady_ns, raw in listener.received:
            writer.write(f"/{topic}", names[topic], steady_ns, raw, latched=topic in OUTPUTS)


def draw(out: Path, occupancy: Occupancy, truth: Occupancy, sequence: PosedRgbdSequence) -> list[tuple[str, str]]:
    """Write the pictures; returns (title, file name)."""
    middle = sequence.frame(len(sequence) // 2)
    views = {
        "isometric.png": ("The map, ceiling cut away", pictures.isometric_view(occupancy)),
        "top.png": ("From above", pictures.top_view(occupancy)),
        "side.png": ("From the side", pictures.side_view(occupancy)),
        "comparison.png": ("Against the ground truth from depth", pictures.comparison_view(occupancy, truth)),
        "camera.png": (f"What the camera saw (frame {middle.index})", Image.fromarray(middle.image)),
    }
    for name, (_, picture) in views.items():
        picture.save(out / name)
    return [(title, name) for name, (title, _) in views.items()]


def run(sequence_folder: Path, out: Path, rate: float, overrides: dict[str, object] | None = None) -> dict:
    """The whole demo; returns the metrics and leaves the report under `out`. overrides: of the nodes' parameters."""
    overrides = overrides or {}
    os.environ.update(environment())
    out.mkdir(parents=True, exist_ok=True)
    values = parameters.complete({**parameters.from_yaml(config_path("sgrocc.yaml")), **overrides})
    sequence = PosedRgbdSequence(sequence_folder)
    bag = out / "recording"
    console.rule(f"1/4 recording {sequence_folder} as a bag")
    record_sequence(sequence, bag, overwrite=bag.exists())
    console.rule("2/4 playing it through the nodes in real time")
    listener, published = run_once(bag, out / "nodes.log", rate, overrides)
    sent = len(published)
    console.rule("3/4 playing it again faster than it can be fused, for the sustained rate")
    hurried, _ = run_once(bag, out / "nodes_hurried.log", 10 * rate, overrides)
    console.rule("4/4 the same offline, with OctoMap on the same depth")
    # A recording of a generated scene brings its exact truth along.
    labelled_path = sequence_folder / "truth.npz"
    labelled = Occupancy.load(labelled_path) if labelled_path.exists() else None
    metrics, offline, truth = evaluate(bag, Inputs(), values, labelled=labelled)
    online = map_heard(listener, values)
    grids = [at for topic, _, at, _ in listener.received if topic == "occupancy/grid"]
    duration_s = (grids[-1] - grids[0]) / 1e9 if len(grids) > 1 else None
    scores = score(online, truth)
    metrics.update(
        frames={"sent": sent, **listener.frames},
        latency_ms=latency_ms(listener, published),
        rate_hz=round((listener.frames["fused"] - 1) / duration_s, 2) if duration_s else None,
        sustained_hz=sustained_hz(hurried),
        map={
            "gaussians": int(listener.details["map.gaussians"]),
            "occupied_voxels": int(online.occupied.sum()),
        },
        offline={key: metrics[key] for key in ("sc_iou", "precision", "recall", "map")},
        recording=str(sequence_folder),
        **{key: scores[key] for key in ("sc_iou", "precision", "recall", "miou", "per_class")},
    )
    if labelled is not None:
        scores = score(online, labelled)
        metrics["labelled"].update((key, scores[key]) for key in ("sc_iou", "precision", "recall", "miou", "per_class"))
    online.save(out / "occupancy.npz")
    save_outputs(listener, out / "published")
    write_json(out / "metrics.json", metrics)
    write_report(out, metrics, draw(out, online, truth, sequence), [])
    print_table(metrics)
    fused = listener.frames["fused"]
    console.print(
        f"Scores: the {fused} of {sent} frames that were fused in real time; OctoMap got all of them, offline."
    )
    if fused < 0.9 * sent:
        console.print(
            "This machine is too busy or too slow for the recording: with all frames see `offline`.", style="yellow"
        )
    console.print(f"picture: {out / 'isometric.png'}")
    console.print(f"report: {out / 'index.html'}   metrics: {out / 'metrics.json'}   outputs: {out / 'published'}")
    return metrics


def wait_for_map(listener: Listener, processes: list[subprocess.Popen], log: Path, timeout_s: float = 60.0) -> None:
    """Wait until the nodes are ready for the first frame. Raises RuntimeError where they end or take too long."""
    deadline = time.monotonic() + timeout_s
    while not listener.nodes_are_connected(len(processes)):
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(f"a node ended at start: {log.read_text().strip().splitlines()[-1:] or log}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nodes did not start within {timeout_s:g} s: read {log}")
        time.sleep(0.1)
    time.sleep(1.0)  # we see them connected a little earlier than they see each other


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--sequence", default=str(SHIPPED_RECORDING), help="folder of a posed RGB-D sequence")
    parser.add_argument("--out", default="out/demo", help="where the report goes")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay")
    add_expert_arguments(parser)
    options = parser.parse_args(args)
    try:
        run(Path(options.sequence), Path(options.out), options.rate, expert_overrides(options))
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
