"""Pickles of dictionaries of arrays: written so that equal content gives equal bytes, read without executing them."""

from __future__ import annotations

import io
import pickle
import re
import zlib
from pathlib import Path

import numpy as np

#: No real file comes near; a larger one is a bomb of zeros.
_MAX_BYTES = 1 << 31


class BadFile(ValueError):
    """A file that cannot be used. reason: 'missing', 'damaged', 'unsafe' or 'malformed'."""

    def __init__(self, path: str | Path, reason: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.path, self.reason, self.sentence = Path(path), reason, sentence

    def __reduce__(self):
        return BadFile, (self.path, self.reason, self.sentence)


def write_pickle(path: Path, content: dict) -> None:
    """A gzip file without a time in it, so that equal content gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(pickle.dumps(content, protocol=4)) + packer.flush())


def read_pickle(path: Path) -> dict:
    """The dictionary of a pickle, compressed or not, without executing anything that is in it.

    Values are what data sets hold: numbers, texts, lists, dictionaries, numpy arrays and scalars. Raises
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
            path, "damaged", f"the pickle is damaged ({type(error).__name__}): delete it, and get or make it again"
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
_PLAIN_TYPES = (bool, int, float, complex, str, bytes, bytearray, np.generic, np.ndarray)
_BUILTINS = {kind.__name__: kind for kind in (list, dict, tuple, set, frozenset)}


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

    # Methods, not functions: a pickle may set attributes of what it is given, such as the defaults of a function.
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

    def _bytes(self, content=b"", *_):
        # Not bytes itself: of a number it makes that many zeros.
        return content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))

    def find_class(self, module: str, name: str):
        within = module.replace("numpy._core", "numpy.core")
        stand_ins = {
            ("numpy", "dtype"): self._dtype,
            ("numpy", "ndarray"): _ARRAY_TYPE,
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
            ("_codecs", "encode"): self._encode,
            ("builtins", "bytes"): self._bytes,
            ("builtins", "bytearray"): self._bytes,
            ("__builtin__", "bytes"): self._bytes,
            ("__builtin__", "bytearray"): self._bytes,
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


def _plain(value, done: dict[int, object] | None = None):
    """The value with real arrays in place of the stand-ins; raises ValueError where it is no plain value."""
    # What occurs several times is looked at once, or lists in lists in lists would never end.
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        plain = value.array
    elif isinstance(value, dict):
        plain = {_plain(key, done): _plain(item, done) for key, item in value.items()}
    elif isinstance(value, (list, tuple, set, frozenset)):
        plain = type(value)(_plain(item, done) for item in value)
    elif value is None or isinstance(value, _PLAIN_TYPES):
        return value
    else:
        raise ValueError(f"a {type(value).__name__} is no value")
    done[id(value)] = plain
    return plain
