"""Engines that TensorRT built, on disk: only what this user built for exactly this machine is ever run.

A plan is code. It is run only if the file is ours, whole, and was built for this network, this GPU and this software;
anything else counts as not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sgrocc.files import whole_file

#: Changes whenever the file, or the way plans are built, does.
SCHEMA_VERSION = 1
#: The reason where nothing lies there.
NOT_BUILT = "not built yet"
_MAGIC = b"SGROCC ENGINE\n"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class EngineKey:
    """All that a plan depends on. name: of the network, for the file's name; compute_capability: such as 8.7; options:
    of the builder, as one text.
    """

    name: str
    onnx_sha256: str
    tensorrt_version: str
    gpu: str
    compute_capability: str
    driver_version: str
    cuda_version: str
    precision: str
    options: str
    schema_version: int = SCHEMA_VERSION

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class EngineCache:
    """A folder of plans; default: $SGROCC_ENGINE_CACHE, or ~/.cache/sgrocc/engines."""

    def __init__(self, folder: str | Path | None = None) -> None:
        given = folder or os.environ.get("SGROCC_ENGINE_CACHE")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = Path(given) if given else cache / "sgrocc" / "engines"

    def path(self, key: EngineKey) -> Path:
        """Where the plan of that key lies, or would."""
        return self.folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', key.name)}-{key.digest()[:24]}.engine"

    def load(self, key: EngineKey) -> tuple[bytes | None, str]:
        """(plan, "") or (None, the reason in a few words). Never raises for what lies there."""
        path = self.path(key)
        try:
            # Opened first and examined then: what the name leads to cannot be exchanged in between. A pipe that lies
            # there must not keep us waiting for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            return None, NOT_BUILT if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None, "no plain file"
            if status.st_uid != os.geteuid():
                return None, "of another user"
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None, "writable for others"
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return _plan_of(file.read(), key)
        except OSError as error:
            return None, f"unreadable ({error.strerror})"
        finally:
            os.close(descriptor)

    def store(self, key: EngineKey, plan: bytes) -> Path:
        """Write a plan, whole or not at all. Raises OSError."""
        header = json.dumps({**asdict(key), "plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)})
        self._make_folder()
        path = self.path(key)
        with whole_file(path) as unfinished:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + len(header.encode()).to_bytes(_LENGTH_BYTES, "little") + header.encode() + plan)
        return path

    def build_where_missing(self, key: EngineKey, build: Callable[[], bytes]) -> str:
        """Build and store a plan unless it is there; returns why it was built, "" where it was there. Of several
        processes one builds, the others wait for it. Raises OSError where it cannot be kept, and what `build` raises.
        """
        plan, reason = self.load(key)
        if plan is not None:
            return ""
        with self._lock(key):
            plan, reason = self.load(key)  # another may have built it while we waited
            if plan is not None:
                return ""
            self.store(key, build())
        return reason

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def _lock(self, key: EngineKey) -> Iterator[None]:
        self._make_folder()
        # Released by the kernel where its holder dies.
        with self.path(key).with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _plan_of(content: bytes, key: EngineKey) -> tuple[bytes | None, str]:
    start = len(_MAGIC) + _LENGTH_BYTES
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        return None, "foreign"
    length = int.from_bytes(content[len(_MAGIC) : start], "little")
    if length > _MAX_HEADER_BYTES or len(content) < start + length:
        return None, "truncated"
    try:
        header = json.loads(content[start : start + length])
        plan_sha256, plan_bytes = header.pop("plan_sha256"), header.pop("plan_bytes")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None, "corrupt"
    if header != asdict(key):
        return None, "built for another machine or network"
    plan = content[start + length :]
    if len(plan) != plan_bytes:
        return None, "truncated"
    if hashlib.sha256(plan).hexdigest() != plan_sha256:
        return None, "corrupt"
    return plan, ""
