"""Run the nodes' fusion over a bag, offline: nothing is dropped for lack of time. Scores the map beside OctoMap's."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import track

from sgrocc.evaluation import evolution, octomap_baseline
from sgrocc.evaluation.ground_truth import DepthTruth
from sgrocc.evaluation.metrics import score
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.octomap_baseline import OctomapBaseline
from sgrocc.evaluation.report import commit_of, print_table
from sgrocc.experts import Frame
from sgrocc.experts.masking import unmasked, without
from sgrocc.files import write_json
from sgrocc.geometry import Pose
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.voxels import VoxelMap
from sgrocc_ros import messages, parameters
from sgrocc_ros.bag import BagReader, is_bag
from sgrocc_ros.description import Inputs
from sgrocc_ros.evaluate_bags import score_folder
from sgrocc_ros.images import FrameDecoder
from sgrocc_ros.synchronise import StampJoiner
from sgrocc_ros.transforms import PoseUnavailable, TransformBuffer, add_tf_message


@dataclass
class Fused:
    """What the fusion of a bag left behind."""

    memory: GaussianMemory
    map: VoxelMap
    truth: DepthTruth
    octomap: OctomapBaseline | None  #: None where pyoctomap is not installed
    expected: int  #: images in the bag
    received: int = 0
    fused: int = 0
    dropped: Counter = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)
    cpu_s: float = 0.0


#: What may look on: called after each fused frame with the image (h, w, 3) uint8 and what there is so far.
Watch = Callable[[np.ndarray, Fused], None]


def fuse_bag(bag: str | Path, inputs: Inputs, values: parameters.Values, watch: Watch | None = None) -> Fused:
    """Fuse every frame of a bag that has a pose, in the order of the stamps.

    Sensor depth, where the bag has it, makes the ground truth; OctoMap gets the depth that the expert used. Raises
    ValueError or OSError, in one sentence, for a bag or a model that cannot be used.
    """
    if values["scale_source"] != "none" or len(parameters.cameras(values)) > 1:
        raise ValueError("a bag is fused here without scale_source and for one camera: leave scale_source and cameras")
    reader = BagReader(bag)
    expert = parameters.make_expert(values)
    needed = ["image", "camera_info", *(["mask"] if values["use_mask"] else [])]
    for_truth = [*needed, "depth"]
    if expert.depth_source == "topic":
        needed = for_truth
    streams = {getattr(inputs, name): name for name in needed}
    missing = [topic for topic, name in streams.items() if topic not in reader.topics]
    if missing:
        raise ValueError(
            f"{bag} has no topic {', '.join(missing)}: name the topics of its camera; "
            f"it has {', '.join(sorted(reader.topics))}"
        )
    transforms = _read_transforms(reader)
    config = parameters.memory_config(values)
    limits = (config.resolution, config.min_depth_m, config.max_depth_m)
    result = Fused(
        GaussianMemory(config, parameters.make_fusion(values)),
        VoxelMap(),
        DepthTruth(config.resolution, min_depth_m=config.min_depth_m, max_depth_m=config.max_depth_m),
        OctomapBaseline(*limits) if octomap_baseline.available() else None,
        reader.topics[inputs.image].count,
    )
    result.memory.warm_up()
    decoder = FrameDecoder(values, lambda sentence: print(f"evaluate_bag: {sentence}", file=sys.stderr))

    def joiner_of(names: list[str]) -> StampJoiner:
        return StampJoiner(names, latched=("camera_info",), tolerance_s=values["sync_tolerance_s"], max_length=30)

    joiner, truth_joiner = joiner_of(needed), None
    if needed is not for_truth and inputs.depth in reader.topics:  # the network brings its own depth
        streams[inputs.depth], truth_joiner = "depth", joiner_of(for_truth)

    def pose_of(image) -> Pose:
        camera_frame = values["camera_frame"] or image.header.frame_id
        return transforms.lookup(values["global_frame"], camera_frame, messages.stamp_ns(image.header))

    def add_truth(frame: Frame, pose: Pose) -> None:
        sensed = frame.depth if frame.mask is None else unmasked(frame.depth, frame.mask)
        result.truth.add(sensed, frame.camera.resized(sensed.shape[1], sensed.shape[0]), pose)

    def measure(joined: dict) -> None:
        """What a sensor saw, of which the network knows nothing."""
        try:
            frame = decoder.frame(*(joined.get(name) for name in ("image", "camera_info", "depth", "mask")))
            add_truth(frame, pose_of(joined["image"]))
        except (messages.BadMessage, PoseUnavailable):
            pass  # the fusion says so

    def drop(reason: str, sentence: str) -> None:
        result.dropped[reason] += 1
        result.sentences[reason] = sentence

    def fuse(joined: dict) -> None:
        image = joined["image"]
        try:
            frame = decoder.frame(image, joined["camera_info"], joined.get("depth"), joined.get("mask"))
            started = time.process_time()
            prediction = expert(frame)
            if frame.mask is not None:
                prediction = without(prediction, frame.mask)
            pose = pose_of(image)
        except (messages.BadMessage, PoseUnavailable) as error:
            drop(error.reason, str(error))
            return
        except ValueError as error:
            drop("expert_refused", str(error))
            return
        try:
            update = result.memory.fuse(prediction, pose)
        except ValueError as error:
            drop("memory_refused", str(error))
            return
        result.cpu_s += time.process_time() - started
        result.fused += 1
        result.map.apply(update)
        if frame.depth is not None:
            add_truth(frame, pose)
        if result.octomap is not None:
            result.octomap.add(prediction.depth, prediction.camera, pose)
        if watch is not None:
            watch(frame.image, result)

    progress = iter(track(range(result.expected), description="fusing", total=result.expected))
    for topic, message in reader.messages(list(streams)):
        if topic == inputs.image:
            result.received += 1
            next(progress, None)
        stream, stamp_ns = streams[topic], messages.stamp_ns(message.header)
        if truth_joiner is not None:
            for joined in truth_joiner.add(stream, stamp_ns, message, 0.0):
                measure(joined)
        if stream in needed:
            for joined in joiner.add(stream, stamp_ns, message, 0.0):
                fuse(joined)
    for joined in joiner.expire(now_s=1.0, max_wait_s=0.0):
        fuse(joined)
    for joined in truth_joiner.expire(now_s=1.0, max_wait_s=0.0) if truth_joiner else ():
        measure(joined)
    for reason, sentence in joiner.take_dropped():
        drop(reason, sentence)
    next(progress, None)
    return result


def evaluate(
    bag: str | Path,
    inputs: Inputs,
    values: parameters.Values,
    ground_truth: str | Path | None = None,
    labelled: Occupancy | None = None,
    watch: Watch | None = None,
) -> tuple[dict, Occupancy, Occupancy]:
    """Fuse and score a bag; returns (metrics, occupancy, ground truth), the metrics as in metrics.json.

    The ground truth is the file of that name, or made from the recorded depth. labelled: a second truth, scored beside.
    """
    fused = fuse_bag(bag, inputs, values, watch)
    if not fused.fused:
        why = "; ".join(fused.sentences.values()) or "it has no image"
        raise ValueError(f"no frame of {bag} could be fused: {why}")
    truth = Occupancy.load(ground_truth) if ground_truth else fused.truth.result(values["global_frame"])
    occupancy = occupancy_of(fused.map, values)

    def scored_against(truth: Occupancy) -> dict:
        octomap = fused.octomap and score(fused.octomap.result(truth.grid, truth.frame_id), truth)
        ours = {key: value for key, value in score(occupancy, truth).items() if key != "counts"}
        return {**ours, "octomap": octomap and {key: octomap[key] for key in ("sc_iou", "precision", "recall")}}

    metrics = {
        "frames": {"received": fused.received, "fused": fused.fused, "dropped": dict(fused.dropped)},
        "latency_ms": dict.fromkeys(("p50", "p95", "p99")),
        "rate_hz": None,
        "cpu_ms_per_frame": {
            "fusion": 1e3 * fused.cpu_s / max(fused.fused, 1),
            "octomap": 1e3 * fused.octomap.cpu_s / max(fused.fused, 1) if fused.octomap else None,
        },
        "map": {"gaussians": len(fused.memory), "occupied_voxels": int(occupancy.occupied.sum())},
        **scored_against(truth),
        "labelled": labelled and scored_against(labelled),
        "depth_source": values["depth_source"],
        "ground_truth": str(ground_truth) if ground_truth else "depth of the recording",
        "commit": commit_of(Path(__file__).parent),
        "configuration": values,
        "reasons": fused.sentences,
    }
    return metrics, occupancy, truth


@dataclass
class Moments:
    """Watches a fusion and keeps about `count` moments of it, evenly spread, and the last. truth: instead of the one
    that is made from the recorded depth so far.
    """

    values: parameters.Values
    truth: Occupancy | None = None
    count: int = 24
    kept: list[evolution.Moment] = field(default_factory=list)
    _last: tuple[np.ndarray, Fused] | None = None

    def __call__(self, image: np.ndarray, fused: Fused) -> None:
        self._last = image, fused
        if len(self.kept) <= fused.received * self.count // max(fused.expected, 1):
            self._keep()

    def all(self) -> list[evolution.Moment]:
        """Those that were kept, and the last one."""
        if self._last is not None:
            self._keep()
        return self.kept

    def _keep(self) -> None:
        (image, fused), self._last = self._last, None
        truth = self.truth
        if truth is None:
            try:
                truth = fused.truth.result(self.values["global_frame"])
            except ValueError:
                return  # no depth yet
        known = fused.map.known()
        self.kept.append(
            evolution.Moment(
                f"frame {fused.received} of {fused.expected}",
                image,
                fused.memory.gaussians(),
                (known.indices, known.labels),
                evolution.known_voxels(truth),
            )
        )


def occupancy_of(voxels: VoxelMap, values: parameters.Values) -> Occupancy:
    """The map as a dense grid around its known voxels."""
    known = voxels.known()
    return Occupancy.from_voxels(
        known.indices, known.labels, known.probabilities, values["resolution_m"], values["global_frame"]
    )


def _read_transforms(reader: BagReader) -> TransformBuffer:
    """Every transform of the bag; online a frame waits for its transform, here all are there."""
    buffer = TransformBuffer(cache_time_s=1e9)
    for topic, message in reader.messages([t for t in ("/tf_static", "/tf") if t in reader.topics]):
        for problem in add_tf_message(buffer, message, static=topic == "/tf_static"):
            print(f"evaluate_bag: {problem}", file=sys.stderr)
    return buffer


def add_expert_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose an expert: see `expert_overrides`."""
    parser.add_argument("--expert", choices=("geometric", "learned"), help="instead of the parameter file's")
    parser.add_argument("--model", help="an exported model, by name or folder, for the learned expert")
    parser.add_argument("--depth-source", choices=("network", "topic"), help="network: the learned model's own depth")


def expert_overrides(options: argparse.Namespace) -> dict[str, str]:
    """The parameters that those options set; a model or its own depth implies the learned expert."""
    chosen = {name: getattr(options, name) for name in ("expert", "model", "depth_source") if getattr(options, name)}
    if "expert" not in chosen and ("model" in chosen or chosen.get("depth_source") == "network"):
        chosen["expert"] = "learned"
    return chosen


def score_into(
    out: Path,
    bag: str | Path,
    inputs: Inputs,
    values: parameters.Values,
    ground_truth: str | Path | None = None,
    draw_evolution: bool = False,
) -> dict:
    """Fuse and score a bag as `evaluate` does, into the folder `out`; returns what is in its metrics.json.

    draw_evolution: draw there, besides, how the map grows. Raises as `evaluate`, and where the bag has no transforms.
    """
    if not {"/tf", "/tf_static"} & BagReader(bag).topics.keys():
        frame = values["global_frame"]
        raise ValueError(f"{bag} has no topic /tf: record the transforms from {frame} to the camera as well")
    watch = Moments(values, ground_truth and Occupancy.load(ground_truth)) if draw_evolution else None
    metrics, occupancy, _ = evaluate(bag, inputs, values, ground_truth, watch=watch)
    out.mkdir(parents=True, exist_ok=True)
    occupancy.save(out / "occupancy.npz")
    write_json(out / "metrics.json", metrics)
    if watch is not None:
        for path in evolution.draw_moments(out, Path(bag).resolve().name, watch.all(), values["resolution_m"]):
            print(path)
    return metrics


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evaluate_bag", description=__doc__)
    parser.add_argument("--bag", required=True, help="a rosbag2 recording, or a folder that holds several")
    parser.add_argument(
        "--out",
        required=True,
        help="folder for metrics.json and occupancy.npz; of several bags, one folder for each, and a summary",
    )
    add_expert_arguments(parser)
    parser.add_argument(
        "--ground-truth",
        help="occupancy.npz to score against, or a folder with one for each of several bags, NAME_OF_THE_BAG.npz; "
        "else made from the recorded depth",
    )
    parser.add_argument("--params-file", help="parameter file of the nodes")
    parser.add_argument("--evolution", action="store_true", help="draw how the map grows, as a strip and a video")
    parser.add_argument("--image-topic", default=Inputs.image)
    parser.add_argument("--camera-info-topic", default=Inputs.camera_info)
    parser.add_argument("--depth-topic", default=Inputs.depth)
    parser.add_argument("--mask-topic", default=Inputs.mask, help="read where use_mask is true")
    options = parser.parse_args(args)
    try:
        values = dict(parameters.from_yaml(options.params_file)) if options.params_file else parameters.complete({})
        values = parameters.complete({**values, **expert_overrides(options)})
        inputs = Inputs(options.image_topic, options.camera_info_topic, options.depth_topic, options.mask_topic)

        def score_bag(bag: Path, out: Path, truth: str | Path | None) -> dict:
            return score_into(out, bag, inputs, values, truth, options.evolution)

        bag, out = Path(options.bag), Path(options.out)
        if bag.is_dir() and not is_bag(bag):
            return score_folder(bag, out, score_bag, options.ground_truth)
        metrics = score_bag(bag, out, options.ground_truth)
    except (ValueError, OSError) as error:
        print(f"evaluate_bag: {error}", file=sys.stderr)
        return 2
    print_table(metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
