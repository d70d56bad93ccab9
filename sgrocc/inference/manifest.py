"""The manifest of an exported model: what its ONNX file is, what goes in, what comes out. See models/README.md."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgrocc.gaussians import Gaussians
from sgrocc.labels import CLASS_NAMES
from sgrocc.memory.recall import history_size

SCHEMA_VERSION = 1
OPSET = 18
MANIFEST_FILE = "manifest.yaml"
ONNX_FILE = "expert.onnx"
FUSION_FILE = "fusion.onnx"
GOLDEN_FILE = "golden.npz"
#: Before the names of what a fusion makes of Gaussians: an input and an output of a graph cannot share a name.
FUSED = "fused_"
_MAX_MANIFEST_BYTES = 64 * 1024


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the network: its static shape and its numpy dtype name."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Network:
    """An ONNX file whose sha256 was checked, the name of what it is part of, and its tensors."""

    name: str
    onnx_path: Path
    sha256: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelManifest:
    """A validated manifest; the fields are those of the file, explained in models/README.md.

    onnx_path: the file whose sha256 was checked; image_mean, image_std: per RGB channel, of the image divided by 255;
    resolution_m: edge of the voxels the model was made for; depth_sigma_m: (constant, factor of depth); fusion: what
    the memory learned, None where it learned nothing; golden_path: inputs and what torch answered to them, None where
    the model brings none; training: how it was made, for people.
    """

    name: str
    description: str
    onnx_path: Path
    sha256: str
    opset: int
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    image_width: int
    image_height: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    classes: tuple[str, ...]
    resolution_m: float
    feature_size: int
    depth_sigma_m: tuple[float, float]
    takes_depth: bool
    intrinsics: str
    semantic: bool
    trained_on: str
    licence: str
    fusion: Network | None = None
    golden_path: Path | None = None
    training: dict | None = None

    def networks(self) -> dict[str, ModelManifest | Network]:
        """The ONNX files by what they are: `expert`, and `fusion` where there is one."""
        return {"expert": self} | ({"fusion": self.fusion} if self.fusion else {})


def load_manifest(folder: str | Path) -> ModelManifest:
    """Read and check `folder`/manifest.yaml and the sha256 of each ONNX file beside it.

    Raises FileNotFoundError where the folder or one of the files is missing, and ValueError, in one sentence, for
    everything else that is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no model folder {folder}: check the model's name or fetch the model")
    path = folder / MANIFEST_FILE
    raw = _read(path)
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ValueError(f"{path} has {len(raw)} bytes, which no manifest needs: fetch the model again")
    try:
        tree = yaml.safe_load(raw.decode("utf-8"))
    except Exception as error:  # PyYAML lets KeyError, AttributeError and RecursionError out as well as YAMLError
        raise ValueError(f"{path} is not YAML text ({type(error).__name__}): fetch the model again") from error
    try:
        fields = _checked(tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    onnx_path = _checked_file(folder, fields.pop("onnx"), fields["sha256"])
    fusion = fields.pop("fusion", None)
    if fusion is not None:
        fusion_path = _checked_file(folder, fusion["onnx"], fusion["sha256"])
        name = f"{fields['name']} (fusion)"
        fusion = Network(name, fusion_path, fusion["sha256"], fusion["inputs"], fusion["outputs"])
    golden = fields.pop("golden", None)
    golden_path = golden and _checked_file(folder, golden["file"], golden["sha256"])
    return ModelManifest(onnx_path=onnx_path, fusion=fusion, golden_path=golden_path, **fields)


def _checked_file(folder: Path, name: str, sha256: str) -> Path:
    path = folder / name
    if hashlib.sha256(_read(path)).hexdigest() != sha256:
        raise ValueError(f"{path} is corrupt, its sha256 is not the one in the manifest: fetch the model again")
    return path


def tensor_shapes(
    width: int,
    height: int,
    count: int,
    feature_size: int,
    takes_depth: bool = True,
    lattice: tuple[int, int] | None = None,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The inputs and the outputs, {name: shape}, of a network of N = `count` Gaussians: see models/README.md.

    lattice: (rows, columns) of its gates, None where it does not show them.
    """
    inputs = {"image": (1, 3, height, width), "intrinsics": (1, 4)}
    if takes_depth:
        inputs["sensor_depth"] = (1, 1, height, width)
    outputs = {"depth": (1, 1, height, width), **_gaussian_shapes(count, feature_size)}
    if lattice is not None:
        outputs["gates"] = (1, *lattice)
    return inputs, outputs


def fusion_shapes(
    width: int, height: int, count: int, feature_size: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The same of the memory's fusion, for `count` Gaussians at a time and the depth of an image of that size."""
    gaussians = _gaussian_shapes(count, feature_size)
    inputs = {
        **gaussians,
        "history": (1, count, history_size(feature_size)),
        "depth": (1, 1, height, width),
        "intrinsics": (1, 4),
    }
    return inputs, {f"{FUSED}{name}": shape for name, shape in gaussians.items()}


def _gaussian_shapes(count: int, feature_size: int) -> dict[str, tuple[int, ...]]:
    one = Gaussians.empty(feature_size).arrays()
    widths = {name: array.shape[1:] for name, array in one.items()}
    return {name: (1, count, *width) for name, width in widths.items()}


def save_model(
    folder: str | Path,
    onnx_bytes: bytes,
    made_by: str,
    fields: dict,
    fusion: tuple[bytes, int] | None = None,
    golden: bytes | None = None,
) -> Path:
    """Write the ONNX file and its manifest into `folder`, which is made where it is missing, and check both.

    fusion: the ONNX file of the memory's fusion, and how many Gaussians it takes at a time; golden: the file of
    inputs and answers.

    fields: name, description, inputs and outputs ({name: shape}), image (width, height, mean, std), resolution_m,
    feature_size, depth_sigma_m, takes_depth, semantic, trained_on, licence, perhaps training; the rest follows.
    made_by: the first line's comment. Returns the manifest's path. Raises ValueError where the fields are not those
    of a manifest.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def tensors(shapes: dict[str, tuple[int, ...]]) -> dict:
        return {name: {"shape": list(shape), "dtype": "float32"} for name, shape in shapes.items()}

    tree = {
        "schema_version": SCHEMA_VERSION,
        "name": fields["name"],
        "description": fields["description"],
        "onnx": ONNX_FILE,
        "sha256": hashlib.sha256(onnx_bytes).hexdigest(),
        "opset": OPSET,
        "inputs": tensors(fields["inputs"]),
        "outputs": tensors(fields["outputs"]),
        "image": fields["image"],
        "classes": list(CLASS_NAMES),
        "intrinsics": "scaled_to_input",
    }
    tree |= {key: value for key, value in fields.items() if key not in tree}
    if fusion is not None:
        fusion_bytes, count = fusion
        image = fields["image"]
        inputs, outputs = fusion_shapes(image["width"], image["height"], count, fields["feature_size"])
        tree["fusion"] = {
            "onnx": FUSION_FILE,
            "sha256": hashlib.sha256(fusion_bytes).hexdigest(),
            "inputs": tensors(inputs),
            "outputs": tensors(outputs),
        }
    if golden is not None:
        tree["golden"] = {"file": GOLDEN_FILE, "sha256": hashlib.sha256(golden).hexdigest()}
    _checked(tree)
    (folder / ONNX_FILE).write_bytes(onnx_bytes)
    for name, content in ((FUSION_FILE, fusion and fusion[0]), (GOLDEN_FILE, golden)):
        if content is not None:
            (folder / name).write_bytes(content)
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier export
    path = folder / MANIFEST_FILE
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=110)
    path.write_text(f"# {made_by}\n{text}", encoding="utf-8")
    return path


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"the model has no file {path}: fetch the model again")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _checked(tree: object) -> dict:
    """The manifest's fields, by the names of ModelManifest (and `onnx`), from the parsed YAML."""
    if not isinstance(tree, dict):
        raise ValueError("a manifest is a mapping of keys to values: see models/README.md")
    # The version comes first: another version may have other keys.
    if "schema_version" in tree and not (_is_int(tree["schema_version"]) and tree["schema_version"] == SCHEMA_VERSION):
        raise ValueError(
            f"schema_version is {_shown(tree['schema_version'])}, but this program reads version {SCHEMA_VERSION}: "
            "export the model again or update the program"
        )
    fields = _mapping("the manifest", tree, _FIELDS, optional=("fusion", "golden", "training"))
    image = fields.pop("image")
    fields.pop("schema_version")
    fields.update({f"image_{key}": value for key, value in image.items()})
    _check_tensors(fields)
    return fields


def _check_tensors(fields: dict) -> None:
    """The inputs and outputs must be those that the learned expert, and the memory, give and read."""
    size = fields["image_width"], fields["image_height"]
    count = _count(fields["outputs"], "outputs")
    lattice = _lattice(fields["outputs"].get("gates"), *size)
    _check_shapes(fields, tensor_shapes(*size, count, fields["feature_size"], fields["takes_depth"], lattice))
    if "fusion" in fields:
        count = _count(fields["fusion"]["inputs"], "fusion.inputs")
        if not count:
            raise ValueError("the fusion takes no Gaussians at a time: export the model again")
        _check_shapes(fields["fusion"], fusion_shapes(*size, count, fields["feature_size"]), "fusion.")


def _count(specs: dict[str, TensorSpec], where: str) -> int:
    means = specs.get("means")
    if means is None or len(means.shape) != 3:
        raise ValueError(f"{where} must have `means` of shape [1, N, 3]: export the model again")
    return means.shape[1]


def _lattice(gates: TensorSpec | None, width: int, height: int) -> tuple[int, int] | None:
    """(rows, columns) of the optional output: square cells that cover the image."""
    if gates is None:
        return None
    rows, columns = gates.shape[1:] if len(gates.shape) == 3 else (0, 0)
    if not rows or not columns or height % rows or height // rows * columns != width:
        raise ValueError(
            f"outputs.gates has shape {list(gates.shape)}, but must be [1, rows, columns] of square cells that cover "
            f"the image of {width} x {height}: export the model again"
        )
    return rows, columns


def _check_shapes(fields: dict, expected: tuple[dict, dict], of: str = "") -> None:
    for group, shapes in zip(("inputs", "outputs"), expected, strict=True):
        declared = fields[group]
        if set(declared) != set(shapes):
            raise ValueError(
                f"{of}{group} are {_names(declared)}, but must be {_names(shapes)}: export the model again"
            )
        for name, shape in shapes.items():
            if declared[name].shape != shape:
                raise ValueError(
                    f"{of}{group}.{name} has shape {list(declared[name].shape)}, but the other fields "
                    f"make it {list(shape)}: export the model again"
                )


def _names(mapping: dict) -> str:
    return ", ".join(sorted(map(str, mapping)))[:200]


def _shown(value: object) -> str:
    """A value for an error message: short, whatever a broken file may hold."""
    if isinstance(value, str):
        return repr(value[:60])
    if value is None or isinstance(value, (bool, float)) or (_is_int(value) and abs(value) < 10**15):
        return repr(value)
    return f"a {type(value).__name__}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # The bound refuses NaN and infinity too, and integers that no float can hold.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


Check = Callable[[str, object], object]


def _mapping(where: str, value: object, checks: dict[str, Check], optional: tuple[str, ...] = ()) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping with the keys {', '.join(checks)}, not {_shown(value)}")
    missing = [key for key in checks if key not in value and key not in optional]
    if missing:
        raise ValueError(f"{where} lacks the key {missing[0]}: add it, see models/README.md")
    unknown = [key for key in value if key not in checks]
    if unknown:
        raise ValueError(f"{where} has the unknown key {_shown(unknown[0])}: remove or correct it")
    return {key: check(key, value[key]) for key, check in checks.items() if key in value}


def _fail(key: str, wanted: str, value: object) -> ValueError:
    return ValueError(f"{key} must be {wanted}, not {_shown(value)}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _fail(key, "a text", value)
    return value.strip()


def _matching(pattern: str, wanted: str) -> Check:
    def check(key: str, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _fail(key, wanted, value)
        return value

    return check


def _anything(key: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise _fail(key, "a mapping", value)
    return value


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _fail(key, "true or false", value)
    return value


def _integer(low: int, high: int) -> Check:
    def check(key: str, value: object) -> int:
        if not _is_int(value) or not low <= value <= high:
            raise _fail(key, f"{low}" if low == high else f"an integer from {low} to {high}", value)
        return value

    return check


def _numbers(count: int, low: float) -> Check:
    def check(key: str, value: object) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise _fail(key, f"a list of {count} numbers", value)
        if not all(_is_number(item) and item >= low for item in value):
            raise ValueError(f"{key} must hold finite numbers of at least {low:g}")
        return tuple(float(item) for item in value)

    return check


def _length_m(key: str, value: object) -> float:
    if not _is_number(value) or value <= 0:
        raise _fail(key, "a positive length in metres", value)
    return float(value)


def _image(key: str, value: object) -> dict:
    size = _integer(1, 8192)
    return _mapping(key, value, {"width": size, "height": size, "mean": _numbers(3, 0.0), "std": _numbers(3, 1e-3)})


def _class_names(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or value != list(CLASS_NAMES):
        raise ValueError(
            f"{key} must be, in this order, {', '.join(CLASS_NAMES)}: this model was trained for other classes"
        )
    return CLASS_NAMES


def _tensors(key: str, value: object) -> dict[str, TensorSpec]:
    if not isinstance(value, dict) or not value:
        raise _fail(key, "a mapping of names to {shape, dtype}", value)
    specs = {}
    for name, spec in value.items():
        where = f"{key}.{name}" if isinstance(name, str) else key
        fields = _mapping(where, spec, {"shape": _shape, "dtype": _matching("float32", "float32")})
        specs[name] = TensorSpec(**fields)
    return specs


def _fusion(key: str, value: object) -> dict:
    return _mapping(key, value, {name: _FIELDS[name] for name in ("onnx", "sha256", "inputs", "outputs")})


def _golden(key: str, value: object) -> dict:
    file = _matching(r"[A-Za-z0-9_]{1,100}\.npz", "the plain name of an .npz file beside the manifest")
    return _mapping(key, value, {"file": file, "sha256": _FIELDS["sha256"]})


def _shape(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(_is_int(n) and 0 <= n <= 10**9 for n in value):
        raise _fail(key, "a list of integers (static shapes only)", value)
    return tuple(value)


_FIELDS: dict[str, Check] = {
    "schema_version": _integer(SCHEMA_VERSION, SCHEMA_VERSION),
    "name": _text,
    "description": _text,
    # A plain name: the ONNX file lies beside the manifest and nowhere else.
    "onnx": _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.onnx", "the plain name of an .onnx file beside the manifest"),
    "sha256": _matching("[0-9a-f]{64}", "64 lower-case hexadecimal digits"),
    "opset": _integer(OPSET, OPSET),
    "inputs": _tensors,
    "outputs": _tensors,
    "image": _image,
    "classes": _class_names,
    "resolution_m": _length_m,
    "feature_size": _integer(0, 4096),
    "depth_sigma_m": _numbers(2, 0.0),
    "takes_depth": _flag,
    "intrinsics": _matching("scaled_to_input", "scaled_to_input"),
    "semantic": _flag,
    "trained_on": _text,
    "licence": _text,
    "fusion": _fusion,
    "golden": _golden,
    "training": _anything,
}
