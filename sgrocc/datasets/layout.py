"""Where the files of Occ-ScanNet and EmbodiedOcc-ScanNet lie, how they are written, and how they are read safely.

    occscannet/gathered_data/<scene>/<frame>.pkl          one frame: pose, intrinsics, local labels
    occscannet/posed_images/<scene>/<frame>.jpg, .png     its image, its depth in millimetres
    occscannet/<split>_final.txt                          lines `gathered_data/<scene>/<frame>.pkl`
    scene_occ/global_occ_package/<scene>.pkl              one scene: global labels, its images
    scene_occ/streme_occ_new_package/<split>/<scene>_<frame>_new.pkl    one frame of it: the voxels in its view
    scene_occ/<split>_online.txt                          lines `<scene>`

Mini lists are named <split>_mini_final.txt and <split>_mini_online.txt. Local labels lie in the files as [y, x, z],
global ones as [x, y, z]; 0 is free and 255 unknown in both. Pickles that we write are compressed with gzip.
"""

from __future__ import annotations

import io
import pickle
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import CLASS_LABELS, FREE, UNKNOWN

VOXEL_M = 0.08
LOCAL_SHAPE = (60, 60, 36)
KINDS = ("local", "embodied")
#: The image that the intrinsics of Occ-ScanNet belong to (width, height); ours name theirs in the file.
NATIVE_SIZE = (1296, 968)

_COARSE = 4
#: A coarse voxel of `target_1_16` has a class when more of its 64 voxels than this are occupied (as in NYUv2's SSC).
_MOST_UNOCCUPIED = 0.95 * _COARSE**3
#: No real file comes near; a larger one is a bomb of zeros.
_MAX_BYTES = 1 << 31


class BadFile(ValueError):
    """A file that cannot be used. reason: 'missing', 'damaged', 'unsafe' or 'malformed'."""

    def __init__(self, path: str | Path, reason: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.path, self.reason, self.sentence = Path(path), reason, sentence

    def __reduce__(self):
        return BadFile, (self.path, self.reason, self.sentence)


class Layout:
    """The paths of a data set. root: the folder that holds occscannet/ and scene_occ/, or one of these two where the
    other lies beside it; scene_occ: the second folder, where it lies elsewhere (root is then the first).
    """

    def __init__(self, root: str | Path | Layout, scene_occ: str | Path | None = None) -> None:
        if isinstance(root, Layout):
            self.occscannet, self.scene_occ = root.occscannet, root.scene_occ
            return
        root = Path(root)
        if scene_occ is not None:
            self.occscannet, self.scene_occ = root, Path(scene_occ)
            return
        if (root / "gathered_data").is_dir() or (root / "posed_images").is_dir():
            root = root.parent if root.name == "occscannet" else root
        elif (root / "global_occ_package").is_dir() and root.name == "scene_occ":
            root = root.parent
        both = not (root / "gathered_data").is_dir()
        self.occscannet = root / "occscannet" if both else root
        self.scene_occ = root / "scene_occ"

    def __repr__(self) -> str:
        return f"Layout({str(self.occscannet)!r}, {str(self.scene_occ)!r})"

    def gathered(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "gathered_data" / scene / f"{_stem(frame)}.pkl"

    def image(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "posed_images" / scene / f"{_stem(frame)}.jpg"

    def depth(self, scene: str, frame: int | str) -> Path:
        return self.occscannet / "posed_images" / scene / f"{_stem(frame)}.png"

    def global_package(self, scene: str) -> Path:
        return self.scene_occ / "global_occ_package" / f"{scene}.pkl"

    def stream(self, split: str, scene: str, frame: int | str) -> Path:
        return self.scene_occ / "streme_occ_new_package" / split / f"{scene}_{_stem(frame)}_new.pkl"

    def list_path(self, split: str, kind: str, mini: bool = False) -> Path:
        """The list of a split; kind: 'local' (frames) or 'embodied' (scenes)."""
        _check_kind(kind)
        stem = f"{split}_mini" if mini else split
        return self.occscannet / f"{stem}_final.txt" if kind == "local" else self.scene_occ / f"{stem}_online.txt"

    def splits(self, kind: str, mini: bool = False) -> list[str]:
        """The splits whose lists are there: train, val, test, then others by name."""
        ending = self.list_path("*", kind, mini).name[1:]
        folder = self.list_path("*", kind, mini).parent
        names = {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")}
        if not mini:
            names = {name for name in names if not name.endswith("_mini")}
        known = [name for name in ("train", "val", "test") if name in names]
        return known + sorted(names - set(known))


def write_frame(
    root: str | Path,
    scene: str,
    frame: int,
    *,
    pose: Pose,
    camera: PinholeCamera,
    voxel_origin: np.ndarray,
    labels: np.ndarray,
    image: np.ndarray | None,
    depth: np.ndarray | None,
    jpeg_quality: int = 90,
) -> str:
    """Write one frame of the local task; returns its image's path as the files name it.

    pose: camera to world; camera: of the image as it is stored; voxel_origin: (3,) metres, corner of the local grid;
    labels: (60, 60, 36) uint8 [x, y, z]; image: (h, w, 3) uint8 or None; depth: (h, w) metres, 0 where unknown, or
    None. Without an image the files say that there is none.
    """
    layout = Layout(root)
    labels = np.asarray(labels)
    if labels.shape != LOCAL_SHAPE or labels.dtype != np.uint8:
        raise ValueError(f"local labels are {LOCAL_SHAPE} uint8, not {labels.shape} {labels.dtype}: crop and convert")
    image_path, depth_path = layout.image(scene, frame), layout.depth(scene, frame)
    image_path.parent.mkdir(parents=True, exist_ok=True)
    if image is not None:
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"the image is {image.shape} {image.dtype} and the camera {camera.width} x {camera.height} pixels: "
                "pass an (h, w, 3) uint8 image and its camera"
            )
        Image.fromarray(image).save(image_path, quality=jpeg_quality)
    if depth is not None:
        millimetres = np.rint(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0)
        Image.fromarray(np.clip(millimetres, 0, 65535).astype(np.uint16)).save(depth_path, compress_level=4)
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = camera.matrix
    named = image_path.relative_to(layout.occscannet).as_posix()
    write_pickle(
        layout.gathered(scene, frame),
        {
            "img": None if image is None else named,
            "depth_gt": None if depth is None else depth_path.relative_to(layout.occscannet).as_posix(),
            "cam_pose": pose.matrix,
            "intrinsic": intrinsic,
            "image_size": (camera.width, camera.height),
            "voxel_origin": np.array(voxel_origin, np.float64),
            "target_1_4": np.ascontiguousarray(labels.transpose(1, 0, 2)),
            "target_1_16": coarse_labels(labels.transpose(1, 0, 2)),
        },
    )
    return named


def write_stream(
    root: str | Path,
    split: str,
    scene: str,
    frame: int,
    *,
    local_label: np.ndarray,
    mask_in_global: np.ndarray,
    changes: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Write one frame of the embodied task.

    local_label: (60, 60, 36) uint8 [x, y, z]; mask_in_global: (X, Y, Z) bool, the voxels in view; changes: flat
    indices into the scene's labels and the labels (uint8) there at this frame, where they are not the last ones.
    """
    content = {
        "local_label": np.ascontiguousarray(np.asarray(local_label, np.uint8).transpose(1, 0, 2)),
        "mask_in_global": np.ascontiguousarray(mask_in_global, bool),
    }
    if changes is not None:
        content["changed_voxels"] = np.ascontiguousarray(changes[0], np.int64)
        content["changed_labels"] = np.ascontiguousarray(changes[1], np.uint8)
    write_pickle(Layout(root).stream(split, scene, frame), content)


def write_global(
    root: str | Path, scene: str, *, grid: VoxelGrid, labels: np.ndarray, mask: np.ndarray, image_paths: Iterable[str]
) -> None:
    """Write the labels of a scene. labels: (X, Y, Z) uint8; mask: (X, Y, Z) bool, what its frames have in view;
    image_paths: of its frames, as write_frame returned them.
    """
    corners = grid.centres() - 0.5 * grid.resolution
    write_pickle(
        Layout(root).global_package(scene),
        {
            "scene_dim": np.array(grid.shape, np.int64),
            "global_labels": np.ascontiguousarray(labels, np.uint8),
            # One coordinate after the other instead of mixed: a hundredth of the size after compression.
            "global_pts": np.asfortranarray(corners),
            "valid_img_paths": list(image_paths),
            "global_mask": np.ascontiguousarray(mask, bool),
        },
    )


def write_split(
    root: str | Path, split: str, kind: str, lines: Iterable[str | tuple[str, int]], mini: bool = False
) -> None:
    """Write the list of a split. lines: (scene, frame) pairs where kind is 'local', scenes where it is 'embodied'."""
    path = Layout(root).list_path(split, kind, mini)
    if kind == "local":
        lines = (f"gathered_data/{scene}/{_stem(frame)}.pkl" for scene, frame in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def coarse_labels(labels: np.ndarray) -> np.ndarray:
    """(15, 15, 9) uint8 of (60, 60, 36): the commonest class of each 4 x 4 x 4 voxels, free or unknown (the commoner)
    where hardly any is occupied.
    """
    x, y, z = (n // _COARSE for n in labels.shape)
    blocks = labels.reshape(x, _COARSE, y, _COARSE, z, _COARSE)
    count = {label: np.count_nonzero(blocks == label, axis=(1, 3, 5)) for label in (FREE, UNKNOWN, *CLASS_LABELS)}
    classes = np.array(CLASS_LABELS, np.uint8)[np.argmax([count[label] for label in CLASS_LABELS], axis=0)]
    nothing = np.where(count[FREE] > count[UNKNOWN], FREE, UNKNOWN)
    return np.where(count[FREE] + count[UNKNOWN] > _MOST_UNOCCUPIED, nothing, classes).astype(np.uint8)


def write_pickle(path: Path, content: dict) -> None:
    """A gzip file without a time in it, so that equal content gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(pickle.dumps(content, protocol=4)) + packer.flush())


def read_pickle(path: Path) -> dict:
    """The dictionary of a pickle, compressed or not, without executing anything that is in it.

    Values are what method authors put there: numbers, texts, lists, dictionaries, numpy arrays and scalars. Raises
    BadFile where the file is missing, damaged, no dictionary, or asks for anything else.
    """
    try:
        content = _unpacked(path)
        loaded = _plain(_Reader(content, path).load())
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile(
            path, "missing", "the file is missing: complete the download, or generate the set again"
        ) from None
    except OSError as error:
        raise BadFile(path, "missing", f"cannot be read ({error.strerror or error}): check its permissions") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise BadFile(
            path, "damaged", f"the pickle is damaged ({type(error).__name__}: {error}): get the file again"
        ) from error
    if not isinstance(loaded, dict):
        raise BadFile(path, "malformed", f"holds a {type(loaded).__name__} instead of a dictionary: get the file again")
    return loaded


def _unpacked(path: Path) -> io.BytesIO:

    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(31)
        content = unpacker.decompress(raw, _MAX_BYTES)
        if not unpacker.eof:
            raise EOFError("it ends too early or is too large")
        raw = content
    return io.BytesIO(raw)


# A pickle is a program: it names functions and calls them. numpy's own functions for arrays trust what they are given
# (a crafted dtype makes them take bytes for addresses), so these stand-ins take their place and build plain arrays.
_DTYPE = re.compile(r"([biufc])(\d{1,2})|([SU])(\d{1,6})")
_ARRAY_TYPE = "numpy.ndarray"
_BUILTINS = {kind.__name__: kind for kind in (list, dict, tuple, set, frozenset, bytes, bytearray)}


class _Dtype:
    __slots__ = ("dtype",)

    def __init__(self, code) -> None:
        if not (isinstance(code, str) and _DTYPE.fullmatch(code)):
            raise ValueError(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state) -> None:
        version, order, subarray, names, fields, *_ = state
        if version not in (3, 4) or order not in ("<", ">", "|", "=") or any((subarray, names, fields)):
            raise ValueError("an array of records")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    __slots__ = ("array",)

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _from_bytes(raw, dtype, shape, "F" if fortran else "C")


def _from_bytes(raw, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    flat = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else bytes(raw), dtype.dtype)
    return flat.reshape(shape, order=order).astype(flat.dtype.newbyteorder("="), order="K")


class _Reader(pickle.Unpickler):
    def __init__(self, file, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    # Methods, not functions: a pickle may set attributes of what it was given, and methods let it set none.
    def _dtype(self, code, *_):
        return _Dtype(code)

    def _reconstruct(self, *_):
        return _Array()

    def _scalar(self, dtype, raw):
        return _from_bytes(raw, dtype, (), "C")[()]

    def _frombuffer(self, raw, dtype, shape, order):
        return _from_bytes(raw, dtype, shape, order)

    def _encode(self, text, _):
        return text.encode("latin1")

    def find_class(self, module: str, name: str):
        within = module.replace("numpy._core", "numpy.core")
        stand_ins = {
            ("numpy", "dtype"): self._dtype,
            ("numpy", "ndarray"): _ARRAY_TYPE,
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
            ("_codecs", "encode"): self._encode,
        }
        if (within, name) in stand_ins:
            return stand_ins[within, name]
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        raise BadFile(
            self._path,
            "unsafe",
            f"the pickle asks for {module}.{name}, which is never loaded: if you trust the file, load it yourself and "
            "save it again with plain arrays, numbers and lists",
        )


def _plain(value):
    """The value with real arrays in place of the stand-ins."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value


def _stem(frame: int | str) -> str:
    """File name of a frame; real lists name theirs as text."""
    return frame if isinstance(frame, str) else f"{frame:05d}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"there is no kind of list {kind!r}: use one of {', '.join(KINDS)}")
