"""The one table of parameters: what is declared, checked and documented comes from here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgrocc.experts import Expert
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert
from sgrocc.inference.engine import ENGINES, Engine, load_engine
from sgrocc.inference.manifest import ModelManifest, Network, load_manifest
from sgrocc.inference.tensorrt_engine import PRECISIONS
from sgrocc.labels import CEILING, CLASS_LABELS, CLASS_NAMES, FLOOR
from sgrocc.memory.confidence import CONFIDENCES
from sgrocc.memory.gaussian_memory import Fusion, MemoryConfig

EXPERT, MEMORY, PUBLISHER = "spatial_expert", "gaussian_memory", "occupancy_publisher"
NODES = (EXPERT, MEMORY, PUBLISHER)
EVERY = "every node"
#: Each camera has state of its own, which a sender of ever new names must not let grow.
MOST_CAMERAS = 32
UNITS = {"m": "m", "s": "s", "hz": "Hz", "ms": "ms", "deg": "degrees"}


class BadParameter(ValueError):
    """A parameter with an unknown name or a value out of its range; the message says which and what to do."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table. `low` and `high` bound every number, inclusive; `choices` bound a string.

    node: whose parameter it is, `EVERY` for all; also: other nodes that read it. dynamic: what is set while the node
    is configured takes effect with the next frame; any other parameter is refused then.
    """

    name: str
    default: bool | int | float | str
    node: str
    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def unit(self) -> str:
        """By the end of its name: m, s, Hz, ms, degrees; empty where it has none."""
        return UNITS.get(self.name.rpartition("_")[2], "")

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that read it."""
        return NODES if self.node == EVERY else (self.node, *self.also)

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
    Parameter("autostart", True, EVERY, "true: the process configures and activates its nodes; false: a manager does"),
    Parameter("watchdog_after_s", 5.0, EVERY, "what has not come for so long is named", 0.5, 3600.0, dynamic=True),
    Parameter(
        "table_period_s", 10.0, EVERY, "how often the times are logged, at debug level", 0.1, 3600.0, dynamic=True
    ),
    Parameter(
        "expert",
        "learned",
        EXPERT,
        "learned: the exported model named by `model`; geometric: sensor depth alone, no network, no classes",
        choices=("learned", "geometric"),
        also=(MEMORY,),
    ),
    Parameter("model", "compact", EXPERT, "learned expert: a folder under models/, or a path", also=(MEMORY,)),
    Parameter(
        "engine",
        "onnxruntime",
        EXPERT,
        "what runs the model and its fusion; for tensorrt run `sgrocc build-engine` first",
        choices=ENGINES,
        also=(MEMORY,),
    ),
    Parameter("engine_threads", 1, EXPERT, "learned expert: threads of onnxruntime", 1, 64, also=(MEMORY,)),
    Parameter(
        "engine_precision",
        "fp16",
        EXPERT,
        "of a tensorrt engine; fp16 keeps what must be exact in single precision",
        choices=PRECISIONS,
        also=(MEMORY,),
    ),
    Parameter(
        "engine_fallback",
        True,
        EXPERT,
        "true: onnxruntime runs what tensorrt cannot, said in the log; false: the node is not configured",
        also=(MEMORY,),
    ),
    Parameter(
        "depth_source",
        "topic",
        EXPERT,
        "topic: sensor depth from the `depth` topic; network: the learned expert's own",
        choices=("topic", "network"),
        also=(PUBLISHER,),
    ),
    Parameter(
        "cameras",
        "",
        EXPERT,
        "names, with spaces between them, of several cameras: `front rear` reads front/image, rear/image, ...",
    ),
    Parameter("camera_frame", "", EXPERT, "optical frame of the images, instead of their own frame_id"),
    Parameter(
        "image_transport",
        "raw",
        EXPERT,
        "compressed: reads `image`/compressed (JPEG, PNG)",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "depth_transport",
        "raw",
        EXPERT,
        "compressedDepth: reads `depth`/compressedDepth (PNG)",
        choices=("raw", "compressedDepth"),
    ),
    Parameter(
        "image_decoder",
        "auto",
        EXPERT,
        "numpy; cv_bridge; auto: cv_bridge for the encodings that numpy does not cover",
        choices=("auto", "numpy", "cv_bridge"),
    ),
    Parameter("image_is_rectified", False, EXPERT, "true: P of camera_info is the image's matrix, not K"),
    Parameter(
        "distortion",
        "rectify",
        EXPERT,
        "what happens to images whose camera_info has lens distortion; refuse: they are dropped",
        choices=("rectify", "refuse", "ignore"),
    ),
    Parameter("use_mask", False, EXPERT, "true: what is not zero in the `mask` image is kept out of the map"),
    Parameter(
        "scale_source",
        "none",
        EXPERT,
        "what corrects the metric scale of the network's own depth: the camera's height, or `depth` where it is valid",
        choices=("none", "camera_height", "sparse_depth"),
    ),
    Parameter("base_frame", "base_footprint", EXPERT, "frame whose z = 0 is the floor; for scale_source camera_height"),
    Parameter("sync_tolerance_s", 0.01, EXPERT, "how far the stamps of image and depth may differ", 0.0, 1.0),
    Parameter(
        "max_partner_wait_s",
        0.5,
        EXPERT,
        "how long an image waits for its camera_info and depth",
        0.01,
        60.0,
        also=(MEMORY,),
        dynamic=True,
    ),
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
    Parameter(
        "min_depth_m", _MEMORY.min_depth_m, MEMORY, "depth nearer than this is not used", 0.01, 10.0, also=(EXPERT,)
    ),
    Parameter(
        "max_depth_m", _MEMORY.max_depth_m, MEMORY, "depth further than this is not used", 0.1, 100.0, also=(EXPERT,)
    ),
    Parameter("resolution_m", _MEMORY.resolution, MEMORY, "edge of a voxel", 0.01, 1.0, also=(EXPERT, PUBLISHER)),
    Parameter("global_frame", "odom", MEMORY, "frame of the map, z up", also=(PUBLISHER,)),
    Parameter("max_pose_wait_s", 0.5, MEMORY, "how long a frame waits for its transform", 0.0, 60.0, dynamic=True),
    Parameter("pose_queue_length", 20, MEMORY, "frames waiting for their transform at most", 1, 1000),
    Parameter("tf_cache_time_s", 30.0, MEMORY, "how long transforms are remembered", 0.1, 3600.0, also=(EXPERT,)),
    Parameter(
        "odom_frame",
        "odom",
        MEMORY,
        "frame that drifts but never jumps: where it jumps in global_frame, a loop was closed; empty: not looked at",
    ),
    Parameter(
        "map_jump_m", 0.3, MEMORY, "a jump of global_frame against odom_frame from here", 0.01, 100.0, dynamic=True
    ),
    Parameter("map_jump_deg", 5.0, MEMORY, "the same for its turn, degrees", 0.1, 180.0, dynamic=True),
    Parameter(
        "on_map_jump",
        "keep",
        MEMORY,
        "keep: a jump is reported; reset: the map begins anew",
        choices=("keep", "reset"),
        dynamic=True,
    ),
    Parameter(
        "on_time_jump",
        "keep",
        MEMORY,
        "what happens to the map when the clock goes back, as when a bag starts again",
        choices=("keep", "reset"),
        dynamic=True,
    ),
    Parameter(
        "map_file",
        "",
        MEMORY,
        "file of the map: loaded at the start where it is there; the services save_map and load_map write and read it",
        dynamic=True,
    ),
    Parameter(
        "gaussian_cloud_rate_hz",
        1.0,
        MEMORY,
        "the cloud of remembered Gaussians: at most so often",
        0.01,
        30.0,
        dynamic=True,
    ),
    Parameter(
        "memory.max_gaussians",
        _MEMORY.max_gaussians,
        MEMORY,
        "hard bound; the Gaussians unseen for longest go first",
        1000,
        10_000_000,
        dynamic=True,
    ),
    Parameter(
        "memory.occupied_threshold",
        _MEMORY.occupied_threshold,
        MEMORY,
        "mean occupancy from which a voxel is occupied",
        0.01,
        0.99,
        dynamic=True,
    ),
    Parameter(
        "memory.guessed_threshold",
        _MEMORY.guessed_threshold,
        MEMORY,
        "the same where nothing was measured: what stays hidden is mostly solid",
        0.01,
        0.99,
        dynamic=True,
    ),
    Parameter(
        "memory.free_margin_m",
        _MEMORY.free_margin_m,
        MEMORY,
        "how far in front of the depth a voxel is looked through",
        0.01,
        1.0,
        also=(EXPERT,),
    ),
    Parameter(
        "memory.max_frames",
        _MEMORY.max_frames,
        MEMORY,
        "how many frames at most stand against a new one: how long vanished things stay",
        1.0,
        1000.0,
        dynamic=True,
    ),
    Parameter(
        "memory.confidence",
        _MEMORY.confidence,
        MEMORY,
        "what confirms a remembered Gaussian (eqs. 6 to 8)",
        choices=CONFIDENCES,
        dynamic=True,
    ),
    Parameter(
        "memory.temperature",
        _MEMORY.temperature,
        MEMORY,
        "T of the semantic confidence (eq. 7)",
        0.01,
        10.0,
        dynamic=True,
    ),
    Parameter(
        "memory.lowest_confidence", _MEMORY.lowest_confidence, MEMORY, "tau_min of eq. 7", 0.0, 1.0, dynamic=True
    ),
    Parameter(
        "memory.highest_confidence", _MEMORY.highest_confidence, MEMORY, "tau_max of eq. 7", 0.0, 1.0, dynamic=True
    ),
    Parameter(
        "memory.frozen_below",
        _MEMORY.frozen_below,
        MEMORY,
        "update ratios under this leave a Gaussian untouched",
        0.0,
        1.0,
        dynamic=True,
    ),
    Parameter(
        "memory.aggregation",
        _MEMORY.aggregation,
        MEMORY,
        "how Gaussians add up to occupancy",
        choices=("decoupled", "additive"),
        dynamic=True,
    ),
    Parameter(
        "memory.max_inferred_m",
        _MEMORY.max_inferred_m,
        MEMORY,
        "how far behind a surface the network's guess of what is hidden is believed; 0: not at all",
        0.0,
        10.0,
        dynamic=True,
    ),
    Parameter(
        "memory.radius_m",
        _MEMORY.radius_m,
        MEMORY,
        "what lies further from the camera is forgotten; more than max_depth_m, or 0: nothing",
        0.0,
        10_000.0,
        dynamic=True,
    ),
    Parameter(
        "memory.decay_frames",
        _MEMORY.decay_frames,
        MEMORY,
        "movable things are forgotten where so many frames have not looked; 0: never",
        0,
        10_000_000,
        dynamic=True,
    ),
    Parameter(
        "publish_rate_hz",
        30.0,
        PUBLISHER,
        "point cloud and grids: at most so often; they follow the frames",
        0.1,
        1000.0,
        dynamic=True,
    ),
    Parameter(
        "octomap_rate_hz", 1.0, PUBLISHER, "Octomap messages and markers: at most so often", 0.01, 100.0, dynamic=True
    ),
    Parameter(
        "grid_min_height_m",
        0.1,
        PUBLISHER,
        "grids: lower edge of the height band in the global frame",
        -1000.0,
        1000.0,
        dynamic=True,
    ),
    Parameter(
        "grid_max_height_m", 1.5, PUBLISHER, "grids: upper edge of the height band", -1000.0, 1000.0, dynamic=True
    ),
    Parameter(
        "network_free_space",
        False,
        PUBLISHER,
        "false: free space of the network's own depth is sent as unknown, so that it clears nothing that others mark",
        dynamic=True,
    ),
    Parameter("max_markers", 5_000, PUBLISHER, "cubes in the marker message at most", 1, 1_000_000, dynamic=True),
    Parameter(
        "max_distance_m", 5.0, PUBLISHER, "distance field: what is further counts as so far", 0.1, 1000.0, dynamic=True
    ),
    Parameter("ply_file", "", PUBLISHER, "file that the service save_ply writes", dynamic=True),
    Parameter(
        "latency_warn_ms",
        500.0,
        PUBLISHER,
        "from the image's stamp to the map that holds it: a warning in /diagnostics from here",
        1.0,
        1e6,
        dynamic=True,
    ),
    Parameter("latency_error_ms", 2000.0, PUBLISHER, "the same, an error", 1.0, 1e6, dynamic=True),
    *(
        Parameter(
            f"cost.{name}",
            0 if label in (CEILING, FLOOR) else 100,
            PUBLISHER,
            f"cost grid: what a cell with {name} in the height band costs",
            0,
            100,
            dynamic=True,
        )
        for label, name in zip(CLASS_LABELS, CLASS_NAMES)
    ),
)
_BY_NAME = {parameter.name: parameter for parameter in TABLE}

#: Parameters that rclpy itself declares, besides those that begin with `qos_overrides.`
_FOREIGN = ("use_sim_time", "start_type_description_service")

Values = dict[str, "bool | int | float | str"]


def require_known(name: str) -> None:
    """Raises BadParameter for a name that neither we nor rclpy know, with the nearest known one."""
    if name not in _BY_NAME and name not in _FOREIGN and not name.startswith("qos_overrides."):
        near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "see the table of parameters in the README"
        raise BadParameter(f"there is no parameter {name}: {hint}")


def complete(given: dict[str, object]) -> Values:
    """All parameters, with the given ones in place of their defaults. Raises BadParameter."""
    for name in given:
        require_known(name)
    values = {p.name: p.checked(given.get(p.name, p.default)) for p in TABLE}
    require_fitting(values)
    return values


def require_fitting(values: Values, node: str | None = None) -> None:
    """Raises BadParameter where values contradict each other. node: look only at what that node reads all of."""
    for names, wrong in _RULES:
        if node is None or all(node in _BY_NAME[name].nodes for name in names):
            sentence = wrong(values)
            if sentence:
                raise BadParameter(sentence)


def _wrong_memory(values: Values) -> str:
    try:
        memory_config(values)
    except ValueError as error:
        return str(error)
    return ""


def _wrong_expert(values: Values) -> str:
    if values["expert"] == "geometric" and values["depth_source"] == "network":
        return "the geometric expert has no network: set depth_source to topic, or expert to learned"
    return ""


def _wrong_model(values: Values) -> str:
    if values["expert"] == "learned" and not values["model"]:
        return "the learned expert needs a model: set `model` to a folder under models/, or to a path"
    return ""


def _wrong_scale(values: Values) -> str:
    if values["scale_source"] != "none" and values["depth_source"] == "topic":
        return "scale_source corrects the network's own depth: set depth_source to network, or it to none"
    return ""


def _wrong_frame(values: Values) -> str:
    return "" if values["global_frame"] else "global_frame is empty: name the frame of the map, such as odom or map"


def _wrong_cameras(values: Values) -> str:
    try:
        names = cameras(values)
    except BadParameter as error:
        return str(error)
    if len(names) > 1 and values["camera_frame"]:
        return "camera_frame would put all cameras in one place: leave it empty, and let each image name its frame"
    return ""


def _less(low: str, high: str) -> tuple[tuple[str, ...], Callable[[Values], str]]:
    return (low, high), lambda values: "" if values[low] < values[high] else f"{low} must be less than {high}"


#: What must fit together: the names that are read, and what says what is wrong with their values, if anything.
_RULES: tuple[tuple[tuple[str, ...], Callable[[Values], str]], ...] = (
    (
        ("resolution_m", "min_depth_m", "max_depth_m", *(p.name for p in TABLE if p.name.startswith("memory."))),
        _wrong_memory,
    ),
    (("expert", "depth_source"), _wrong_expert),
    (("expert", "model"), _wrong_model),
    (("scale_source", "depth_source"), _wrong_scale),
    (("global_frame",), _wrong_frame),
    (("cameras", "camera_frame"), _wrong_cameras),
    _less("grid_min_height_m", "grid_max_height_m"),
    _less("latency_warn_ms", "latency_error_ms"),
)


def cameras(values: Values) -> tuple[str, ...]:
    """The prefixes of the input topics, one for each camera. Raises BadParameter."""
    names = str(values["cameras"]).split()
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or names.count(name) > 1:
            raise BadParameter(
                f"cameras has the name {name!r}: give each once, of letters, digits and _, such as front rear"
            )
    if len(names) > MOST_CAMERAS:
        raise BadParameter(f"cameras has {len(names)} names: give {MOST_CAMERAS} at most")
    return tuple(f"{name}/" for name in names) or ("",)


def costs(values: Values) -> dict[int, int]:
    """{label: cost, 0 to 100} of the classes."""
    return {label: int(values[f"cost.{name}"]) for label, name in zip(CLASS_LABELS, CLASS_NAMES)}


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


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
