"""The command `sgrocc`: make data; train, measure and export models; examine the machines that run them.

`sgrocc COMMAND --help` says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from sgrocc.inference.engine import ENGINES
from sgrocc.inference.tensorrt_engine import PRECISIONS

#: The splits of SynthRooms as they are published: how many scenes each has.
SPLIT_SIZES = {"train": 200, "val": 20, "test": 40}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sgrocc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synth(commands)
    _add_view(commands)
    _add_data(commands)
    _add_recording(commands)
    _add_eval(commands)
    _add_eval_recording(commands)
    _add_train(commands)
    _add_ablate(commands)
    _add_export(commands)
    _add_build_engine(commands)
    _add_doctor(commands)
    _add_gpu_check(commands)
    _add_confidences(commands)
    _add_figure(commands)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        for plugin in entry_points(group="sgrocc.commands"):
            _add_plugin(plugin, commands, plugin.name == next(iter(given), None))
    except ValueError as error:
        print(f"sgrocc: {error}", file=sys.stderr)
        return 2
    options = parser.parse_args(given)
    try:
        return options.run(options) or 0
    except ImportError as error:
        extra = "--synth" if options.command in ("synth", "view", "recording") else "--train"
        cure = f"python3 tools/set_up.py {extra}"
        print(f"sgrocc {options.command}: a package is missing ({error}): {cure}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError) as error:
        print(f"sgrocc {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sgrocc {options.command}: interrupted", file=sys.stderr)
        return 130


def _add_plugin(plugin: EntryPoint, commands: argparse._SubParsersAction, called: bool) -> None:
    """A command of another package, loaded only when it is called, as it may bring ROS along."""
    if called:
        try:
            plugin.load()(commands)
        except ImportError as error:
            raise ValueError(f"{plugin.name} cannot run here ({error}): source ROS 2, or run make demo once") from error
    else:
        commands.add_parser(plugin.name, help="with the ROS 2 nodes; see its own --help", add_help=False)


def _add_synth(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "synth",
        help="generate SynthRooms scenes",
        description="Generate labelled, posed indoor scenes in the format of Occ-ScanNet and EmbodiedOcc-ScanNet. "
        "A run that was stopped goes on where it was when it is started again.",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--split", required=True, choices=tuple(SPLIT_SIZES))
    parser.add_argument(
        "--scenes", type=_positive, help="how many (the default is the published split: train 200, val 20, test 40)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other rooms (default 0: as published)")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument(
        "--truth", choices=("solid", "shells"), default="solid", help="filled solids (default), or surfaces alone"
    )
    parser.add_argument(
        "--dynamic",
        choices=("none", "walker", "moved"),
        default="none",
        help="walker: a person walks through; moved: things are moved or carried away (default none)",
    )
    parser.add_argument("--loop", action="store_true", help="one long walk per scene that returns to where it began")
    parser.add_argument("--frames", type=_positive, help="frames per scene (default 30, with --loop 600)")
    parser.add_argument("--labels-only", action="store_true", help="draw no images: everything else, without GL")
    parser.set_defaults(run=_synth)


def _synth(options: argparse.Namespace) -> None:
    from sgrocc.synthrooms.generate import PUBLISHED_LABELS, generate

    scenes = options.scenes or SPLIT_SIZES[options.split]
    labels = generate(
        options.out,
        options.split,
        scenes,
        seed=options.seed,
        jobs=options.jobs,
        truth=options.truth,
        dynamic=options.dynamic,
        frames=options.frames or (600 if options.loop else 30),
        loop=options.loop,
        labels_only=options.labels_only,
    )
    asked = (options.seed, options.truth, options.dynamic, options.frames, options.loop)
    published = ""
    if scenes == SPLIT_SIZES[options.split] and asked in ((0, "solid", "none", frames, False) for frames in (None, 30)):
        same = labels == PUBLISHED_LABELS[options.split]
        published = ", as published" if same else ", NOT the published ones: please report this machine and its numpy"
    print(f"{options.out}: {scenes} scenes of {options.split}, SHA-256 of the labels {labels}{published}")


def _add_view(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "view", help="look at a scene", description="Draw a contact sheet of a scene: images, depth, labels, voxels."
    )
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--scene", required=True, help="name of the scene, or several with commas between")
    parser.add_argument("--split", help="split it belongs to (default: the one that has it)")
    parser.add_argument("--out", type=Path, default=Path("out/view"), help="folder for the pictures (default out/view)")
    parser.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> None:
    from sgrocc.datasets.embodied_occscannet import find_scene
    from sgrocc.evaluation.contact_sheet import contact_sheet

    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.scene.split(","):
        path = options.out / f"{name}.png"
        contact_sheet(find_scene(options.data, name, options.split)).save(path)
        print(path)


def _add_data(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="examine a data set", description="Examine a data set.")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = actions.add_parser(
        "check",
        help="count frames, broken files and classes",
        description="Read everything once and count it; of SynthRooms, compute the hash of the labels again.",
    )
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--split", action="append", help="split to read (default: all that are there)")
    parser.add_argument("--mini", action="store_true", help="the mini lists of the real data set")
    parser.add_argument("--json", type=Path, help="write the counts there too")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from sgrocc.evaluation.data_check import run

    code = run(options.data, options.split, mini=options.mini, json_path=options.json)
    if code or not (options.data / "synthrooms.json").is_file():
        return code
    from sgrocc.datasets.layout import Layout
    from sgrocc.synthrooms.generate import check_labels

    for split in options.split or Layout(options.data).splits("embodied"):
        print(check_labels(options.data, split))
    return 0


def _add_recording(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "recording",
        help="make a recording of a scene",
        description="Write a scene as a posed RGB-D recording with its labelled truth; `record_sequence` makes a bag "
        "of it, `make demo SEQUENCE=...` plays it through the nodes.",
    )
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--scene", required=True, help="name of the scene")
    parser.add_argument("--split", help="split it belongs to (default: the one that has it)")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--rate-hz", type=float, default=10.0, help="frames a second when it is played (default 10)")
    parser.add_argument("--first", type=int, default=0, help="first frame (default 0)")
    parser.add_argument("--frames", type=_positive, help="how many frames (default: all from the first on)")
    parser.add_argument(
        "--depth", choices=("true", "sensor"), default="true", help="sensor: with the faults of an RGB-D sensor"
    )
    parser.set_defaults(run=_recording)


def _recording(options: argparse.Namespace) -> None:
    from sgrocc.datasets.embodied_occscannet import find_scene
    from sgrocc.evaluation.scene_recording import write_recording

    scene = find_scene(options.data, options.scene, options.split)
    last = options.first + options.frames if options.frames else None
    frames = slice(options.first, last)
    write_recording(scene, options.out, options.rate_hz, frames=frames, depth=options.depth)
    print(f"{options.out}: {len(scene.frames[frames])} frames at {options.rate_hz:g} Hz, and truth.npz")


def _add_eval(commands: argparse._SubParsersAction) -> None:
    from sgrocc.evaluation import benchmark

    parser = commands.add_parser("eval", help="score a model or predictions", description=benchmark.__doc__)
    benchmark.add_arguments(parser)
    parser.set_defaults(run=_eval)


def _eval(options: argparse.Namespace) -> None:
    from sgrocc.evaluation import benchmark

    benchmark.run(options)


def _add_eval_recording(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "eval-recording",
        help="score a model's depth and classes on a real recording",
        description="Compare a model's own depth with the recorded one, and its classes with points labelled by hand.",
    )
    parser.add_argument("recording", type=Path, help="folder of a posed RGB-D recording")
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--model", type=Path, help="folder of an exported model")
    of.add_argument("--checkpoint", type=Path, help="of either stage; of an image stage, the encoder alone is judged")
    parser.add_argument(
        "--size", type=_positive, nargs=2, default=(320, 240), metavar=("W", "H"), help="an image stage's images"
    )
    parser.add_argument(
        "--adapt",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="first move a checkpoint's batch norms by this share towards the recording's statistics (AdaBN)",
    )
    parser.add_argument(
        "--half", action="store_true", help="a checkpoint's parts that bear it in half precision, as engines of fp16"
    )
    parser.add_argument("--labels", type=Path, help="JSON file of labelled points")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.set_defaults(run=_eval_recording)


def _eval_recording(options: argparse.Namespace) -> None:

    from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
    from sgrocc.evaluation import recording_score

    sequence = PosedRgbdSequence(options.recording)
    expert_of = _recording_experts(options, sequence)
    figures = {"depth": recording_score.depth_figures(expert_of(False), sequence)}
    depth = figures["depth"]
    for kind in ("raw", "aligned"):
        print(
            f"depth, {kind:<8} AbsRel {depth[kind]['abs_rel']:.3f}   delta < 1.25 {100 * depth[kind]['delta_1']:.1f} %"
        )
    print(
        "true over own depth, median of a frame: {median:.2f} (10 to 90 %: {low:.2f} to {high:.2f})".format(
            **depth["scale"]
        )
    )
    for source in ("network", "sensor") if options.labels else ():
        with_sensor = source == "sensor"
        classes = recording_score.class_figures(expert_of(with_sensor), sequence, options.labels, with_sensor)
        figures[f"classes_{source}_depth"] = classes
        named = ", ".join(f"{name} {right}/{count}" for name, (right, count) in classes["per_class"].items())
        print(
            f"classes, {source} depth: {100 * classes['accuracy']:.1f} % of {classes['points']} points, "
            f"mean of classes {100 * classes['mean_accuracy']:.1f} %; {named}"
        )
    _write_json(options.json, figures)


def _recording_experts(options: argparse.Namespace, sequence):
    """What makes the expert of a model or checkpoint, with or without sensor depth, as it runs on a robot."""
    from sgrocc.experts.learned import LearnedExpert
    from sgrocc.experts.measured import for_a_map

    if options.model:
        from sgrocc.inference.engine import load_engine
        from sgrocc.inference.manifest import load_manifest

        if options.adapt or options.half:
            raise ValueError("an exported model cannot be changed: give its --checkpoint instead")
        manifest = load_manifest(options.model)
        engine = load_engine(manifest)
        return lambda with_sensor: for_a_map(LearnedExpert(manifest, engine, with_sensor))
    from sgrocc.training import torch_expert

    expert = torch_expert.any_expert(options.checkpoint, *options.size)
    if options.adapt:
        torch_expert.adapt(expert, sequence, options.adapt)
    if options.half:
        from sgrocc.export.half_in_torch import in_half_precision

        in_half_precision(expert)
    return lambda with_sensor: for_a_map(torch_expert.learned_expert(expert, with_sensor))


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model as a YAML file says. A training that was stopped goes on at its last checkpoint.",
    )
    parser.add_argument("--config", required=True, type=Path, help="YAML file; ours are in config/train/")
    parser.add_argument("--data", type=Path, help="folder of the data set (default: what the file says)")
    parser.add_argument("--out", type=Path, help="folder of this training (default out/train/NAME OF THE FILE)")
    parser.add_argument("--fresh", action="store_true", help="begin anew although there is a checkpoint")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="-- and changes, as --trainer.max_epochs 3")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from sgrocc.training.train import train

    if not options.config.is_file():
        raise FileNotFoundError(f"there is no configuration {options.config}: ours are in config/train/")
    overrides = [text for text in options.overrides if text != "--"]
    if options.data:
        overrides += ["--data.config.root", str(options.data)]
    train(options.config, options.out or Path("out/train") / options.config.stem, overrides, fresh=options.fresh)


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "ablate",
        help="train and score variants of the model",
        description="Train every row of the paper's tables on the same few samples and score it on the same frames. "
        "What was run before is kept; --tables prints what there is.",
    )
    parser.add_argument("--data", type=Path, help="folder of SynthRooms")
    _add_encoder(parser)
    parser.add_argument("--out", type=Path, default=Path("out/ablations"), help="folder (default out/ablations)")
    parser.add_argument("--rows", help="names with commas between (default: all)")
    parser.add_argument("--seeds", type=_positive, default=3, help="of each row at most (default 3)")
    parser.add_argument("--samples", type=_positive, default=1000, help="of training, for each row (default 1000)")
    parser.add_argument("--frames", type=_positive, default=100, help="that are scored (default 100)")
    parser.add_argument("--split", default="test", help="that is scored (default test; val to choose settings)")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count(), help="rows at a time (default: cores)")
    parser.add_argument("--tables", action="store_true", help="train nothing, print the tables")
    parser.set_defaults(run=_ablate)


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    default = Path("checkpoints/compact.pt")
    parser.add_argument(
        "--encoder", type=Path, default=default, help=f"a checkpoint, whose encoder all rows have (default {default})"
    )


def _ablate(options: argparse.Namespace) -> None:
    from sgrocc.training import ablations

    if not options.tables:
        if options.data is None:
            raise ValueError("there is nothing to train on: give --data, or --tables alone")
        rows = options.rows.split(",") if options.rows else list(ablations.ROWS)
        budget = ablations.Budget(samples=options.samples, frames=options.frames, split=options.split)
        ablations.run(rows, options.data, options.encoder, options.out, budget, options.jobs, options.seeds)
    for text in ablations.tables(options.out).values():
        print(text)


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="write a trained model for a robot",
        description="Write a checkpoint as an ONNX file with its manifest and check that onnxruntime gives what torch "
        "gives. With --data, the spread of the model's own depth is measured on the validation split.",
    )
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="of the expert stage, or of the embodied one, with its fusion"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the model; its name is the model's")
    parser.add_argument("--data", type=Path, help="folder of the data set it was trained on")
    parser.add_argument(
        "--depth-sigma-m", type=float, nargs=2, metavar=("CONSTANT", "FACTOR"), help="instead of --data"
    )
    parser.add_argument(
        "--prior", default="own", help="own (default), or a Depth Anything V2 model: its hub name, folder or .pth file"
    )
    parser.add_argument(
        "--stride", type=_positive, help="pixels between anchors (default: as trained); more is faster and coarser"
    )
    parser.add_argument(
        "--reading",
        choices=("nearest", "bilinear"),
        default="nearest",
        help="of the feature maps: nearest (default) is many times faster on a CPU, bilinear is what was trained",
    )
    parser.add_argument("--trained-on", default="SynthRooms, split train: generated rooms, no photographs")
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights, the prior's included")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from sgrocc.evaluation.report import commit_of
    from sgrocc.export.onnx_export import export, measured_depth_sigma_m
    from sgrocc.model.depth_priors import load_prior
    from sgrocc.training.torch_expert import load_expert, load_fusion

    if (options.data is None) == (options.depth_sigma_m is None):
        raise ValueError("the spread of the depth must be measured or given: use --data or --depth-sigma-m")
    expert = load_expert(options.checkpoint, options.stride, options.reading)
    expert.prior = load_prior(options.prior)
    sigma = options.depth_sigma_m or measured_depth_sigma_m(expert, options.data)
    print("exporting and comparing, about a minute ...", flush=True)
    difference = export(
        expert,
        options.out,
        load_fusion(options.checkpoint),
        name=options.out.name,
        description=f"Spatial Expert, depth prior: {options.prior}. See the model card beside it.",
        trained_on=options.trained_on,
        depth_sigma_m=tuple(sigma),
        licence=options.licence,
        training={"commit": commit_of(Path(__file__).parent), "config": asdict(expert.config)},
    )
    print(
        f"{options.out}: depth sigma {sigma[0]:.3f} m + {sigma[1]:.3f} of the depth; onnxruntime differs from torch by "
        f"{difference:.1e} at most"
    )


def _add_build_engine(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "build-engine",
        help="build a model's TensorRT engines for this machine's GPU",
        description="Build the engines of a model, which the node's `engine: tensorrt` then runs, and keep them: it "
        "takes minutes on a Jetson, once for each GPU, driver and version of TensorRT.",
    )
    _add_model(parser)
    _add_precision(parser)
    parser.add_argument("--cache", type=Path, help="folder of the engines (default ~/.cache/sgrocc/engines)")
    parser.set_defaults(run=_build_engine)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="compact", help="an exported model, by name or folder (default compact)")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of tensorrt (default fp16)")


def _build_engine(options: argparse.Namespace) -> None:
    from rich.progress import Progress

    from sgrocc.inference.engine_cache import EngineCache
    from sgrocc.inference.manifest import load_manifest
    from sgrocc.inference.tensorrt_engine import build_engine
    from sgrocc.resources import find_model

    cache = EngineCache(options.cache)
    for network in load_manifest(find_model(options.model)).networks().values():
        with Progress() as progress:
            key, reason = build_engine(network, options.precision, cache, _phases_shown_in(progress))
        print(f"{network.name}: {f'built ({reason})' if reason else 'was built before'}: {cache.path(key)}")


def _phases_shown_in(progress):
    """What a build calls with each step, shown as one bar for each of its phases."""
    tasks = {}

    def step(phase: str, done: int, of: int) -> None:
        if phase not in tasks:
            tasks[phase] = progress.add_task(phase, total=of)
        progress.update(tasks[phase], completed=done, total=of)

    return step


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="examine this machine and a model on it",
        description="Say what this machine has, whether the model runs on it as it should, and whether it keeps a "
        "stated budget. Ends with code 1 where something does not.",
    )
    _add_model(parser)
    parser.add_argument("--engine", choices=ENGINES, help="alone (default: all that are here)")
    _add_precision(parser)
    parser.add_argument("--build", action="store_true", help="build the engines of TensorRT first")
    parser.add_argument("--max-ms", type=float, help="budget: of one frame's networks, 95th percentile")
    parser.add_argument("--min-hz", type=float, help="budget: frames a second that the networks alone allow")
    parser.add_argument("--max-mb", type=float, help="budget: of this process's memory")
    parser.add_argument("--json", type=Path, help="write what was found there too")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from sgrocc.inference import doctor
    from sgrocc.resources import find_model

    budget = doctor.Budget(options.max_ms, options.min_hz, options.max_mb)
    engines = (options.engine,) if options.engine else ENGINES
    model, required = find_model(options.model), bool(options.engine)
    found = doctor.examine(model, engines, options.precision, budget, build=options.build, required=required)
    doctor.print_tables(found)
    _write_json(options.json, found)
    return 0 if found["ok"] else 1


def _write_json(path: Path | None, content: dict) -> None:
    from sgrocc.files import write_json

    if path is not None:
        write_json(path, content)


def _add_gpu_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "gpu-check",
        help="check on a machine with a GPU what could not be checked without one",
        description="Build the engines, compare them with the golden answers, time them, compare splatting on CUDA "
        "with numpy, and train for 50 steps; writes one JSON file that you can send us.",
    )
    _add_model(parser)
    parser.add_argument("--json", type=Path, default=Path("out/gpu_check.json"), help="default out/gpu_check.json")
    parser.set_defaults(run=_gpu_check)


def _gpu_check(options: argparse.Namespace) -> int:
    from sgrocc.export import gpu_check
    from sgrocc.inference import doctor
    from sgrocc.resources import find_model

    name, usable = doctor.gpu()
    if not usable:
        raise ValueError(f"this needs an NVIDIA GPU with its driver; nothing was checked: {name}")
    found = gpu_check.run(find_model(options.model))
    gpu_check.print_table(found)
    _write_json(options.json, found)
    print(f"everything is in {options.json}")
    return 0 if found["ok"] else 1


def _add_confidences(commands: argparse._SubParsersAction) -> None:
    from sgrocc.evaluation.protocols import DEPTHS

    parser = commands.add_parser(
        "confidences",
        help="measure the calibration of the memory's confidences",
        description="Maps scenes, compares the confidences of equations 6 to 8 with the truth, and draws them.",
    )
    parser.add_argument("--model", required=True, type=Path, help="folder of an exported model")
    parser.add_argument("--data", type=Path, default=Path("out/synthrooms"), help="folder of a data set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--depth", choices=DEPTHS, default="sensor", help="what is given as depth (default sensor)")
    parser.add_argument("--scenes", type=_positive, default=5, help="so many, evenly spread (default 5)")
    parser.add_argument("--out", type=Path, default=Path("out/confidences"), help="folder of the pictures")
    parser.set_defaults(run=_confidences)


def _confidences(options: argparse.Namespace) -> None:
    from sgrocc.evaluation.confidences import measure

    measure(options.model, options.data, options.split, options.depth, options.scenes, options.out)


def _add_figure(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "figure",
        help="draw one of the paper's figures",
        description="gates: from above, at three tolerances; anchors: by their distance to the surface; points: where "
        "anchors at depth edges look; comparison: maps of several methods; tradeoff: score and cost over K; "
        "progress: scores of several trainings from before the first epoch on.",
    )
    parser.add_argument("name", choices=("gates", "anchors", "points", "comparison", "tradeoff", "progress"))
    parser.add_argument("--data", type=Path, default=Path("out/synthrooms"), help="folder of a data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--frame", type=int, default=0, help="its number in the split (default 0)")
    parser.add_argument("--checkpoint", type=Path, help="of the expert stage (default: the ablations' base)")
    _add_encoder(parser)
    parser.add_argument(
        "--ablations", type=Path, default=Path("out/ablations"), help="folder of sgrocc ablate, or of trainings"
    )
    parser.add_argument("--out", type=Path, default=Path("out/figures"), help="folder (default out/figures)")
    parser.set_defaults(run=_figure)


def _figure(options: argparse.Namespace) -> None:
    from sgrocc.training.figures import draw

    o = options
    print(draw(o.name, o.out, o.data, o.split, o.frame, o.checkpoint, o.encoder, o.ablations))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above zero")
    return number


if __name__ == "__main__":
    sys.exit(main())
