"""Measure a model's speed: stage by stage through the running nodes, and in the same run beside others' software.

CPU time is what is compared: on a machine that does other things as well, wall time measures those, too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from std_msgs.msg import Header

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.evaluation import octomap_baseline
from sgrocc.evaluation.ground_truth import DepthTruth
from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.octomap_baseline import OctomapBaseline
from sgrocc.evaluation.report import commit_of
from sgrocc.experts import Frame
from sgrocc.files import whole_file, write_json
from sgrocc.geometry import Pose
from sgrocc.labels import FREE
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.visibility import frustum_blocks
from sgrocc.memory.voxels import VoxelMap, VoxelUpdate
from sgrocc.resources import config_path
from sgrocc.splatting import prepare
from sgrocc.stages import METHOD_STAGES, PERCENTILES, STAGES
from sgrocc_ros import grids, messages, parameters
from sgrocc_ros.demo import (
    SHIPPED_RECORDING,
    Listener,
    cpu_s_of,
    environment,
    latency_ms,
    play,
    running_nodes,
    wait_for_map,
)
from sgrocc_ros.record_sequence import record_sequence

#: Frames a second that are sent. What the nodes sustain is the most that they fuse at any of these.
RATES_HZ = (5.0, 10.0, 15.0, 30.0)
#: OctoMap with every n-th row and column of the depth.
STRIDES = (1, 2, 4, 8)
#: A stride keeps the accuracy of all pixels if it loses at most so much SC-IoU.
_KEPT_SC_IOU = 0.01
#: So many rooms are mapped, side by side on a square, each with so many frames.
ROOMS, _FRAMES_PER_ROOM, _ROOM_M = (1, 3, 10, 30, 100), 12, 12.0
#: Every n-th frame is shown to the slow peers.
_PEERS_EVERY = 4
#: What the picture calls the peers.
_NAMES = {f"octomap_{stride}": f"OctoMap, every {stride}. pixel" for stride in STRIDES[1:]} | {
    "octomap_1": "OctoMap, every pixel",
    "depth_anything_v2_small": "Depth Anything V2 Small",
}
console = Console()


def run(values: parameters.Values, sequence_folder: Path, out: Path) -> dict:
    """All figures, as they are written to the JSON file; `out` is the folder for the bag, the logs and the peers.

    Raises ValueError, OSError or RuntimeError, in one sentence, for what cannot be measured.
    """
    os.environ.update(environment())
    out.mkdir(parents=True, exist_ok=True)
    sequence = PosedRgbdSequence(sequence_folder)
    console.rule("1/3 the expert, the memory and their peers, on the same frames")
    costs = measure_costs(sequence, values, out)
    console.rule("2/3 the running nodes")
    live = measure_nodes(sequence, values, out)
    console.rule("3/3 maps of many rooms")
    rooms = measure_rooms(sequence, values)
    at_10_hz = next(rate for rate in live["rates"] if rate["hz"] == 10.0)
    return {
        "model": str(values["model"]),
        "sequence": str(sequence_folder),
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()},
        "commit": commit_of(Path(__file__).parent),
        "ratios": costs.pop("ratios"),
        "ros_cpu_ms": at_10_hz["ros_cpu_ms"],
        "sustained_hz": live["sustained_hz"],
        "stages": at_10_hz.pop("stages"),
        "rates": live["rates"],
        "rooms": rooms,
        **costs,
    }


# -- in this process -------------------------------------------------------------------------------------------------


def measure_costs(sequence: PosedRgbdSequence, values: parameters.Values, out: Path) -> dict:
    """{cpu_ms {what: median per frame}, ratios, octomap {stride: SC-IoU}, skipped {peer: why}}."""
    expert, config = parameters.make_expert(values), parameters.memory_config(values)
    memory = GaussianMemory(config, parameters.make_fusion(values))
    memory.warm_up()
    limits = (config.resolution, config.min_depth_m, config.max_depth_m)
    truth = DepthTruth(config.resolution, min_depth_m=config.min_depth_m, max_depth_m=config.max_depth_m)
    skipped: dict[str, str] = {}
    trees = {}
    if octomap_baseline.available():
        trees = {stride: OctomapBaseline(*limits) for stride in STRIDES}
    else:
        skipped["octomap"] = "pyoctomap is not installed"
    depth_network, additive = _peers(out, skipped)
    cpu_ms: dict[str, list[float]] = {}

    def timed(name: str, function, *arguments):
        started = time.process_time()
        result = function(*arguments)
        cpu_ms.setdefault(name, []).append(1e3 * (time.process_time() - started))
        return result

    for number, frame in enumerate(track(sequence, description="measuring", total=len(sequence))):
        camera, pose = sequence.camera, frame.pose
        sensor = frame.depth if expert.depth_source == "topic" else None
        prediction = timed("spatial_expert", expert, Frame(frame.image, camera, sensor))
        timed("fusion", memory.fuse, prediction, pose)
        truth.add(frame.depth, camera, pose)
        for stride, tree in trees.items():
            coarse = camera.resized(camera.width // stride, camera.height // stride)
            timed(f"octomap_{stride}", tree.add, _strided(frame.depth, stride), coarse, pose)
        if number % _PEERS_EVERY == 0:
            if depth_network is not None:
                timed("depth_anything_v2_small", depth_network)
            if additive is not None and len(prediction.gaussians):
                gaussians = prediction.gaussians.transformed(pose)
                blocks = frustum_blocks(camera, pose, config.resolution, 1e-3, config.max_depth_m)
                prepared = prepare(gaussians, config.resolution, np.zeros(3), "additive")
                timed("additive_in_torch", additive, prepared, blocks, config.resolution)
    medians = {name: float(np.median(times)) for name, times in cpu_ms.items()}
    scores = {}
    if trees:
        occupied = truth.result("odom")
        maps = {stride: tree.result(occupied.grid, "odom") for stride, tree in trees.items()}
        scores = {stride: score(found, occupied)["sc_iou"] for stride, found in maps.items()}
    kept = [stride for stride, iou in scores.items() if iou >= scores[1] - _KEPT_SC_IOU]
    ratios = {
        "spatial_expert_to_depth_anything_v2_small": _ratio(medians, "spatial_expert", "depth_anything_v2_small"),
        "fusion_to_pyoctomap_full": _ratio(medians, "fusion", "octomap_1"),
        "fusion_to_pyoctomap_stride": _ratio(medians, "fusion", f"octomap_{max(kept)}") if kept else None,
        "fusion_to_additive_in_torch": _ratio(medians, "fusion", "additive_in_torch"),
    }
    return {
        "cpu_ms": {name: round(value, 2) for name, value in medians.items()},
        "ratios": ratios,
        "octomap": {
            "sc_iou": {str(stride): round(iou, 4) for stride, iou in scores.items()},
            "stride": max(kept, default=None),
        },
        "map": {"gaussians": len(memory), "known_voxels": len(memory.snapshot())},
        "skipped": skipped,
    }


def _peers(out: Path, skipped: dict[str, str]):
    """(runs Depth Anything V2 Small once, additive aggregation), each None where it cannot be had."""
    missing = [name for name in ("torch", "transformers", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{', '.join(missing)} not installed: python3 tools/set_up.py --train"
        skipped.update(depth_anything_v2_small=why, additive_in_torch=why)
        return None, None
    import onnxruntime

    peers = importlib.import_module("sgrocc.export.peers")  # torch comes with it
    path = out / "depth_anything_v2_small.onnx"
    if not path.is_file():
        with console.status("exporting Depth Anything V2 Small (a minute, once)"):
            peers.depth_anything_v2_small(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=session.get_inputs()[0].shape).astype(np.float32)
    return lambda: session.run(None, {"image": image}), peers.additive_in_torch


def _strided(depth: np.ndarray, stride: int) -> np.ndarray:
    return np.ascontiguousarray(depth[stride // 2 :: stride, stride // 2 :: stride])


def _ratio(medians: dict[str, float], ours: str, theirs: str) -> float | None:
    return round(medians[ours] / medians[theirs], 3) if theirs in medians else None


def measure_rooms(sequence: PosedRgbdSequence, values: parameters.Values) -> list[dict]:
    """[{rooms, gaussians, known_voxels, fuse_cpu_ms, update_cpu_ms, refresh_cpu_ms}]: what a frame costs, and sending
    what it changed, and what sending the whole map costs, in a map of so many rooms. Each room is the recorded one.
    """
    expert = parameters.make_expert(values)
    config = replace(parameters.memory_config(values), max_gaussians=10_000_000)
    memory, known = GaussianMemory(config, parameters.make_fusion(values)), VoxelMap()
    memory.warm_up()
    frames = [sequence.frame(i) for i in range(min(_FRAMES_PER_ROOM, len(sequence)))]
    measured = expert.depth_source == "topic"
    seen = [(expert(Frame(f.image, sequence.camera, f.depth if measured else None)), f.pose) for f in frames]
    header, side = Header(frame_id="odom"), int(np.ceil(np.sqrt(max(ROOMS))))
    rows = []
    for room in track(range(max(ROOMS)), description="rooms"):
        corner = _ROOM_M * np.array([room % side, room // side, 0.0])
        fuse_ms, update_ms = [], []
        for prediction, pose in seen:
            started = time.process_time()
            update = memory.fuse(prediction, Pose(pose.rotation, pose.translation + corner))
            fused = time.process_time()
            known.apply(update)
            messages.update_to_cloud(header, update, config.resolution, False)
            fuse_ms.append(1e3 * (fused - started))
            update_ms.append(1e3 * (time.process_time() - fused))
        if room + 1 in ROOMS:
            started = time.process_time()
            whole = known.known()
            _whole_map(header, whole, values)
            refresh_ms = 1e3 * (time.process_time() - started)
            rows.append(
                {
                    "rooms": room + 1,
                    "gaussians": len(memory),
                    "known_voxels": len(whole),
                    # The first frames of a room find more that is new.
                    "fuse_cpu_ms": round(float(np.median(fuse_ms[2:])), 2),
                    "update_cpu_ms": round(float(np.median(update_ms[2:])), 2),
                    "refresh_cpu_ms": round(refresh_ms, 1),
                }
            )
    return rows


def _whole_map(header: Header, known: VoxelUpdate, values: parameters.Values) -> None:
    """Build what follows the frames: point cloud and grid."""
    resolution, occupied = values["resolution_m"], known.labels != FREE
    centres = ((known.indices[occupied] + 0.5) * resolution).astype(np.float32)
    messages.voxels_to_cloud(header, centres, known.labels[occupied], known.probabilities[occupied])
    heights = values["grid_min_height_m"], values["grid_max_height_m"]
    grids.occupancy_grid_message(header, known.indices, known.labels, resolution, *heights)


# -- through the running nodes ---------------------------------------------------------------------------------------


def measure_nodes(sequence: PosedRgbdSequence, values: parameters.Values, out: Path) -> dict:
    """{rates [{hz, sent, fused, dropped_share, ...}], sustained_hz}, each rate with nodes of its own."""
    bag = out / "recording"
    record_sequence(sequence, bag, overwrite=bag.exists())
    stamps = [sequence.stamp_ns(i) for i in range(len(sequence))]
    own_hz = 1e9 * (len(stamps) - 1) / (stamps[-1] - stamps[0])
    rates = [_at_rate(bag, hz, own_hz, values, out) for hz in RATES_HZ]
    return {"rates": rates, "sustained_hz": max(rate["fused_hz"] or 0.0 for rate in rates)}


def _at_rate(bag: Path, hz: float, own_hz: float, values: parameters.Values, out: Path) -> dict:
    log, listener = out / f"nodes_{hz:g}.log", Listener()
    try:
        with running_nodes(log, dict(values)) as processes:
            wait_for_map(listener, processes, log)
            listener.settle()  # until the nodes have told what their start took
            before = _method_cpu_s(listener)
            cpu_s = cpu_s_of(processes[0])
            published = play(bag, hz / own_hz, log.with_suffix(".json"), values)
            listener.settle()
            cpu_s = cpu_s_of(processes[0]) - cpu_s
            memory_mb = _peak_memory_mb(processes[0])
    finally:
        listener.close()
    frames, details = listener.frames, listener.details
    fused = max(frames["fused"], 1)
    names = [f"p{percentile}" for percentile in PERCENTILES]
    stages = {
        name: {kind: dict(zip(names, map(float, details[f"{name}.{kind}"].split()))) for kind in ("wall_ms", "cpu_ms")}
        for name in STAGES
        if f"{name}.wall_ms" in details
    }
    method_cpu_s = _method_cpu_s(listener) - before
    updates = [row for row in listener.received if row[0] == "voxel_updates"]
    times = sorted(at for _, stamp, at, _ in updates if stamp in published)
    return {
        "hz": hz,
        "sent": len(published),
        **frames,
        # Those that the middleware lost on the way to us, too.
        "dropped_share": round(1 - frames["fused"] / max(len(published), 1), 3),
        "latency_ms": latency_ms(listener, dict(published)),
        "fused_hz": round((len(times) - 1) / ((times[-1] - times[0]) / 1e9), 2) if len(times) > 2 else None,
        "cpu_ms_per_frame": round(1e3 * cpu_s / fused, 1),
        "ros_cpu_ms": round(1e3 * (cpu_s - method_cpu_s) / fused, 1),
        "memory_mb": memory_mb,
        "gaussians": int(details["map.gaussians"]),
        "stages": stages,
    }


def _method_cpu_s(listener: Listener) -> float:
    return sum(float(listener.details.get(f"{name}.cpu_s", 0)) for name in METHOD_STAGES)


def _peak_memory_mb(process: subprocess.Popen) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1e3, 1)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


# -- for people ------------------------------------------------------------------------------------------------------


def print_tables(result: dict) -> None:
    stages = Table("stage", "wall p50", "p95", "p99", "CPU p50", "p95", "p99", title="ms, through the nodes at 10 Hz")
    for name, times in result["stages"].items():
        cells = [times[kind][f"p{p}"] for kind in ("wall_ms", "cpu_ms") for p in PERCENTILES]
        stages.add_row(name, *(f"{cell:.1f}" for cell in cells))
    console.print(stages)
    rates = Table("sent at", "frames", "fused", "dropped", "latency p50", "p95", "CPU ms/frame", "ROS CPU ms", "MB")
    for rate in result["rates"]:
        latency = rate["latency_ms"]
        share = f"{100 * rate['dropped_share']:.0f} %"
        cells = (rate["sent"], rate["fused"], share, latency["p50"], latency["p95"])
        costs = (rate["cpu_ms_per_frame"], rate["ros_cpu_ms"], rate["memory_mb"])
        rates.add_row(f"{rate['hz']:g} Hz", *map(str, cells + costs))
    console.print(rates)
    ratios = Table("CPU time of ours to", "ratio")
    for name, ratio in result["ratios"].items():
        ratios.add_row(name.replace("_", " "), "-" if ratio is None else f"{ratio:.2f}")
    console.print(ratios)
    rooms = Table(
        "rooms", "Gaussians", "known voxels", "fuse", "send the changes", "send the whole map", title="CPU ms"
    )
    for row in result["rooms"]:
        rooms.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(rooms)
    for peer, why in result["skipped"].items():
        console.print(f"{peer} was not measured: {why}")
    console.print(f"sustained: {result['sustained_hz']} Hz   ROS: {result['ros_cpu_ms']} CPU ms a frame")


def draw(result: dict, path: Path) -> None:
    """Three panels: where a frame's CPU time goes, ours against others', and the cost of a frame as the map grows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (stages, peers, rooms) = pyplot.subplots(1, 3, figsize=(14, 3.8), constrained_layout=True)
    names = list(result["stages"])
    stages.barh(names, [result["stages"][name]["cpu_ms"]["p50"] for name in names], color="tab:blue")
    stages.invert_yaxis()
    stages.set(xlabel="CPU ms, median", title="Through the nodes, 10 frames a second")
    shown = {name: ms for name, ms in result["cpu_ms"].items() if name != "additive_in_torch"}
    ours = ["tab:blue" if name in ("spatial_expert", "fusion") else "tab:gray" for name in shown]
    peers.barh([_NAMES.get(name, name.replace("_", " ")) for name in shown], list(shown.values()), color=ours)
    peers.invert_yaxis()
    peers.set(xlabel="CPU ms a frame, median", title="Ours (blue) and others'")
    counts = [row["rooms"] for row in result["rooms"]]
    labels = {
        "fuse_cpu_ms": "fuse",
        "update_cpu_ms": "send the changes",
        "refresh_cpu_ms": "send the whole map, now and then",
    }
    for key, label in labels.items():
        style = "--" if key == "refresh_cpu_ms" else "-"
        rooms.plot(counts, [row[key] for row in result["rooms"]], style, marker="o", label=label)
    rooms.set(xscale="log", yscale="log", xlabel="rooms in the map", ylabel="CPU ms", title="A frame in a growing map")
    rooms.set_xticks(counts, [str(count) for count in counts])
    rooms.grid(alpha=0.3)
    rooms.legend(loc=(0.03, 0.16), fontsize="small")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=80, format="png")
    pyplot.close(figure)


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure a model's speed on this machine", description=__doc__)
    parser.add_argument("--model", default="compact", help="an exported model, by name or folder (default compact)")
    parser.add_argument("--json", type=Path, required=True, help="write all figures there; logs go beside it")
    parser.add_argument("--sequence", type=Path, default=SHIPPED_RECORDING, help="folder of a posed RGB-D recording")
    parser.add_argument("--params-file", type=Path, help="parameters of the nodes (default: the shipped ones)")
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> None:
    given = parameters.from_yaml(options.params_file or config_path("sgrocc.yaml"))
    values = parameters.complete({**given, "model": options.model})
    result = run(values, options.sequence, options.json.parent / f"{options.json.stem}_files")
    write_json(options.json, result)
    print_tables(result)
    if importlib.util.find_spec("matplotlib") is not None:  # it comes with what trains
        draw(result, options.json.with_suffix(".png"))
        console.print(f"figures: {options.json}   picture: {options.json.with_suffix('.png')}")
