"""The one table of parameters: declared, checked, written as YAML and documented from here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgrocc.experts import Expert
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert
from sgrocc.inference.engine import ENGINES, Engine, load_engine
from sgrocc.inference.manifest import ModelManifest, Network, load_manifest
from sgrocc.inference.tensorrt_engine import PRECISIONS
from sgrocc.memory.confidence import CONFIDENCES
from sgrocc.memory.gaussian_memory import Fusion, MemoryConfig

EXPERT, MEMORY, PUBLISHER = "spatial_expert", "gaussian_memory", "occupancy_publisher"


class BadParameter(ValueError):
    """A parameter with an unknown name or a value out of its range; the message says which and what to do."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table. `low` and `high` bound every number, inclusive; `choices` bound a string."""

    name: str
    default: bool | int | float | str
    node: str
    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def checked(self, value: object) -> bool | int | float | str:
        """`value` in the parameter's type; raises BadParameter."""
        kind = type(self.default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise BadParameter(f"parameter {self.name} is {value!r}: give a {kind.__name__} such as {self.default!r}")
        if self.low is not None and not self.low <= value <= self.high:  # NaN is refused here as well
            raise BadParameter(f"parameter {self.name} is {value}: give a value from {self.low:g} to {self.high:g}")
        if self.choices and value not in self.choices:
            raise BadParameter(f"parameter {self.name} is {value!r}: choose one of {', '.join(self.choices)}")
        return kind(value)


_MEMORY = MemoryConfig()
_GEOMETRIC = GeometricConfig()

TABLE: tuple[Parameter, ...] = (
    Parameter(
        "expert",
        "learned",
        EXPERT,
        "learned: the exported model named by `model`; geometric: sensor depth alone, no network, no classes",
        choices=("learned", "geometric"),
    ),
    Parameter("model", "compact", EXPERT, "learned expert: a folder under models/, or a path"),
    Parameter(
        "engine",
        "onnxruntime",
        EXPERT,
        "what runs the model and its fusion; for tensorrt run `sgrocc build-engine` first",
        choices=ENGINES,
    ),
    Parameter("engine_threads", 1, EXPERT, "learned expert: threads of onnxruntime", 1, 64),
    Parameter(
        "engine_precision",
        "fp16",
        EXPERT,
        "of a tensorrt engine; fp16 keeps what must be exact in single precision",
        choices=PRECISIONS,
    ),
    Parameter(
        "engine_fallback",
        True,
        EXPERT,
        "true: onnxruntime runs what tensorrt cannot, said in the log; false: the node ends with the reason",
    ),
    Parameter(
        "depth_source",
        "topic",
        EXPERT,
        "topic: sensor depth from the `depth` topic; network: the learned expert's own",
        choices=("topic", "network"),
    ),
    Parameter(
        "image_decoder",
        "auto",
        EXPERT,
        "numpy; cv_bridge; auto: cv_bridge for the encodings that numpy does not cover",
        choices=("auto", "numpy", "cv_bridge"),
    ),
    Parameter("image_is_rectified", False, EXPERT, "true: P of camera_info is the image's matrix, not K"),
    Parameter("sync_tolerance_s", 0.01, EXPERT, "how far the stamps of image and depth may differ", 0.0, 1.0),
    Parameter("max_partner_wait_s", 0.5, EXPERT, "how long an image waits for its camera_info and depth", 0.01, 60.0),
    Parameter("frame_queue_length", 2, EXPERT, "frames that wait for the worker; 1 keeps the latest only", 1, 100),
    Parameter(
        "max_anchors",
        _GEOMETRIC.max_anchors,
        EXPERT,
        "Gaussians of sensor depth per frame, at most",
        100,
        1_000_000,
    ),
    Parameter(
        "fusion",
        "learned",
        MEMORY,
        "learned: the memory uses what `model`, which must be on its machine, learned for it, if anything; none: not",
        choices=("learned", "none"),
    ),
    Parameter("min_depth_m", _MEMORY.min_depth_m, MEMORY, "depth nearer than this is not used", 0.01, 10.0),
    Parameter("max_depth_m", _MEMORY.max_depth_m, MEMORY, "depth further than this is not used", 0.1, 100.0),
    Parameter("resolution_m", _MEMORY.resolution, MEMORY, "edge of a voxel", 0.01, 1.0),
    Parameter("global_frame", "odom", MEMORY, "frame of the map, z up"),
    Parameter("max_pose_wait_s", 0.5, MEMORY, "how long a frame waits for its transform", 0.0, 60.0),
    Parameter("pose_queue_length", 20, MEMORY, "frames waiting for their transform at most", 1, 1000),
    Parameter("tf_cache_time_s", 30.0, MEMORY, "how long transforms are remembered", 0.1, 3600.0),
    Parameter(
        "map_file",
        "",
        MEMORY,
        "file of the map: loaded at the start where it is there; ~/save_map writes it, ~/load_map reads it again",
    ),
    Parameter(
        "memory.max_gaussians",
        _MEMORY.max_gaussians,
        MEMORY,
        "hard bound; the Gaussians unseen for longest go first",
        1000,
        10_000_000,
    ),
    Parameter(
        "memory.occupied_threshold",
        _MEMORY.occupied_threshold,
        MEMORY,
        "mean occupancy from which a voxel is occupied",
        0.01,
        0.99,
    ),
    Parameter(
        "memory.guessed_threshold",
        _MEMORY.guessed_threshold,
        MEMORY,
        "the same where nothing was measured: what stays hidden is mostly solid",
        0.01,
        0.99,
    ),
    Parameter(
        "memory.free_margin_m",
        _MEMORY.free_margin_m,
        MEMORY,
        "how far in front of the depth a voxel is looked through",
        0.01,
        1.0,
    ),
    Parameter(
        "memory.max_frames",
        _MEMORY.max_frames,
        MEMORY,
        "how many frames at most stand against a new one: how long vanished things stay",
        1.0,
        1000.0,
    ),
    Parameter(
        "memory.confidence",
        _MEMORY.confidence,
        MEMORY,
        "what confirms a remembered Gaussian (eqs. 6 to 8)",
        choices=CONFIDENCES,
    ),
    Parameter("memory.temperature", _MEMORY.temperature, MEMORY, "T of the semantic confidence (eq. 7)", 0.01, 10.0),
    Parameter("memory.lowest_confidence", _MEMORY.lowest_confidence, MEMORY, "tau_min of eq. 7", 0.0, 1.0),
    Parameter("memory.highest_confidence", _MEMORY.highest_confidence, MEMORY, "tau_max of eq. 7", 0.0, 1.0),
    Parameter(
        "memory.frozen_below",
        _MEMORY.frozen_below,
        MEMORY,
        "update ratios under this leave a Gaussian untouched",
        0.0,
        1.0,
    ),
    Parameter(
        "memory.aggregation",
        _MEMORY.aggregation,
        MEMORY,
        "how Gaussians add up to occupancy",
        choices=("decoupled", "additive"),
    ),
    Parameter(
        "memory.max_inferred_m",
        _MEMORY.max_inferred_m,
        MEMORY,
        "how far behind a surface the network's guess of what is hidden is believed; 0: not at all",
        0.0,
        10.0,
    ),
    Parameter(
        "memory.radius_m",
        _MEMORY.radius_m,
        MEMORY,
        "what lies further from the camera is forgotten; more than max_depth_m, or 0: nothing",
        0.0,
        10_000.0,
    ),
    Parameter(
        "memory.decay_frames",
        _MEMORY.decay_frames,
        MEMORY,
        "movable things are forgotten where so many frames have not looked; 0: never",
        0,
        10_000_000,
    ),
    Parameter(
        "publish_rate_hz",
        30.0,
        PUBLISHER,
        "point cloud and grid: at most so often; they follow the frames",
        0.1,
        1000.0,
    ),
    Parameter("octomap_rate_hz", 1.0, PUBLISHER, "Octomap messages and markers: at most so often", 0.01, 100.0),
    Parameter(
        "grid_min_height_m",
        0.1,
        PUBLISHER,
        "OccupancyGrid: lower edge of the height band in the global frame",
        -1000.0,
        1000.0,
    ),
    Parameter("grid_max_height_m", 1.5, PUBLISHER, "OccupancyGrid: upper edge of the height band", -1000.0, 1000.0),
    Parameter("max_markers", 5_000, PUBLISHER, "cubes in the marker message at most", 1, 1_000_000),
)
_BY_NAME = {parameter.name: parameter for parameter in TABLE}

#: Parameters that rclpy itself declares, besides those that begin with `qos_overrides.`
_FOREIGN = ("use_sim_time", "start_type_description_service")

Values = dict[str, "bool | int | float | str"]


def complete(given: dict[str, object]) -> Values:
    """All parameters, with the given ones in place of their defaults. Raises BadParameter."""
    for name in given:
        if name not in _BY_NAME and name not in _FOREIGN and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "see the table of parameters in the README"
            raise BadParameter(f"there is no parameter {name}: {hint}")
    values = {p.name: p.checked(given.get(p.name, p.default)) for p in TABLE}
    try:
        memory_config(values)
    except ValueError as error:
        raise BadParameter(str(error)) from error
    if values["expert"] == "geometric" and values["depth_source"] == "network":
        raise BadParameter("the geometric expert has no network: set depth_source to topic, or expert to learned")
    if values["expert"] == "learned" and not values["model"]:
        raise BadParameter("the learned expert needs a model: set `model` to a folder under models/, or to a path")
    if not values["global_frame"]:
        raise BadParameter("global_frame is empty: name the frame of the map, such as odom or map")
    if values["grid_min_height_m"] >= values["grid_max_height_m"]:
        raise BadParameter("grid_min_height_m must be less than grid_max_height_m")
    return values


def declare(node) -> Values:
    """Declare the table on a node and return the checked values. Raises BadParameter.

    Every node knows the whole table, so that one YAML serves all three.
    """
    from rcl_interfaces.msg import ParameterDescriptor

    overrides = {name: override.value for name, override in node._parameter_overrides.items()}
    values = complete(overrides)
    for parameter in TABLE:
        descriptor = ParameterDescriptor(description=parameter.doc, read_only=True)
        node.declare_parameter(parameter.name, values[parameter.name], descriptor, ignore_override=True)
    return values


def from_yaml(path: str | Path) -> Values:
    """The values of a ROS 2 parameter file whose one section is `/**`. Raises BadParameter, FileNotFoundError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no parameter file {path}: give the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # PyYAML lets more than its own YAMLError out, for broken dates or huge numbers
        raise BadParameter(f"{path} cannot be read as YAML ({type(error).__name__}): mend it") from error
    section = content.get("/**") if isinstance(content, dict) else None
    given = section.get("ros__parameters") if isinstance(section, dict) else None
    if not isinstance(given, dict):
        raise BadParameter(f"{path} is not a parameter file: it needs '/**:' and below it 'ros__parameters:'")
    if len(content) > 1:
        others = ", ".join(str(name) for name in content if name != "/**")
        raise BadParameter(f"{path} has sections that are not read here, {others}: put their parameters below '/**'")
    return complete(_flat(given))


def to_yaml() -> str:
    """The table as the parameter file that the package ships."""
    lines = ["# Every parameter with its default. Units are in the names.", "/**:", "  ros__parameters:"]
    nodes = {EXPERT: "spatial_expert_node", MEMORY: "gaussian_memory_node", PUBLISHER: "occupancy_publisher_node"}
    group = None
    for parameter in TABLE:
        if parameter.node != group:
            group = parameter.node
            lines += ["", f"    # {nodes[group]}"]
        lines.append(f"    {parameter.name}: {_default_of(parameter)}  # {parameter.doc}{_range_of(parameter)}")
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """The table as the README shows it."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for parameter in TABLE:
        lines.append(f"| `{parameter.name}` | `{_default_of(parameter)}` | {parameter.doc}{_range_of(parameter)} |")
    return "\n".join(lines) + "\n"


def memory_config(values: Values) -> MemoryConfig:
    """The memory's part of the values. Raises ValueError."""
    prefix = "memory."
    own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    depth = {name: values[name] for name in ("min_depth_m", "max_depth_m")}
    return MemoryConfig(resolution=values["resolution_m"], **depth, **own)


Say = Callable[[str], None]


def make_fusion(values: Values, say: Say = print) -> Fusion | None:
    """What the memory learned, where the values choose it and the model has it; say and errors as of `make_expert`."""
    if values["fusion"] == "none" or values["expert"] != "learned":
        return None
    from sgrocc.memory.learned_fusion import LearnedFusion
    from sgrocc.resources import find_model

    network = load_manifest(find_model(values["model"])).fusion
    if network is None:
        return None
    return LearnedFusion(network, _engine_of(network, values, say))


def make_expert(values: Values, say: Say = print) -> Expert:
    """The expert that the values choose. say: gets a sentence where another engine runs than was chosen. Raises
    ValueError or FileNotFoundError for a model that cannot be used.
    """
    surfaces = GeometricConfig(
        values["resolution_m"], values["min_depth_m"], values["max_depth_m"], values["max_anchors"]
    )
    if values["expert"] == "geometric":
        return GeometricExpert(surfaces)
    from sgrocc.experts.learned import LearnedExpert
    from sgrocc.experts.measured import for_a_map
    from sgrocc.resources import find_model

    manifest = load_manifest(find_model(values["model"]))
    engine = _engine_of(manifest, values, say)
    learned = LearnedExpert(manifest, engine, use_sensor_depth=values["depth_source"] == "topic")
    return for_a_map(learned, surfaces, values["memory.free_margin_m"])


def _engine_of(network: ModelManifest | Network, values: Values, say: Say) -> Engine:
    precision, fallback = values["engine_precision"], values["engine_fallback"]
    return load_engine(
        network, values["engine"], values["engine_threads"], precision=precision, fallback=fallback, say=say
    )


def _default_of(parameter: Parameter) -> str:
    return yaml.safe_dump(parameter.default).splitlines()[0]


def _range_of(parameter: Parameter) -> str:
    if parameter.choices:  # no "|" between them: it would end the cell of the README's table
        return f" ({', '.join(parameter.choices)})"
    return "" if parameter.low is None else f" ({parameter.low:g} to {parameter.high:g})"


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


if __name__ == "__main__":
    print(to_yaml(), end="")
