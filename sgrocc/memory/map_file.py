"""The map in a file: versioned, checksummed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from sgrocc.memory.gaussian_memory import GaussianMemory

#: Raised with every change of what is stored.
FORMAT = 1


def save(memory: GaussianMemory, path: str | Path, frame_id: str) -> None:
    """Write a memory's map; a reader never sees half a file. frame_id: the frame that the map is in.

    Raises OSError where the file cannot be written; what was there before is then still there.
    """
    path = Path(path)
    state = memory.state()
    head = {
        "format": FORMAT,
        "frame_id": frame_id,
        "resolution_m": memory.config.resolution,
        "sha256": _digest(state),
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, head=np.array(json.dumps(head)), **state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(memory: GaussianMemory, path: str | Path, frame_id: str) -> None:
    """Replace a memory's map by that of a file.

    Raises FileNotFoundError, or ValueError for a file that is damaged, of another version, voxel size or frame; the map
    is then unchanged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no map {path}: save one first")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(str(arrays.pop("head")))
        version = head["format"]
    except Exception as error:  # zipfile, zlib, json and numpy have no common base
        raise ValueError(f"{path} is no map, or is damaged ({error}): load another copy of it") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version} and this software reads {FORMAT}: use the version that wrote it")
    if head.get("sha256") != _digest(arrays):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content; load another copy of it")
    for name, here in (("resolution_m", memory.config.resolution), ("frame_id", frame_id)):
        if head.get(name) != here:
            raise ValueError(f"{path} has the {name} {head.get(name)} and the memory {here}: use the same for both")
    try:
        memory.restore(arrays)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
