"""The map in a file: versioned, checksummed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from sgrocc.files import whole_file
from sgrocc.gaussians import Gaussians
from sgrocc.labels import NUM_CLASSES, UNKNOWN
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.splatting import BLOCK

#: Raised with every change of what is stored.
FORMAT = 2


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, open(unfinished, "wb") as file:
        np.savez_compressed(file, head=np.array(json.dumps(head)), **state)
        file.flush()
        os.fsync(file.fileno())


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
        why = " ".join(str(error).split())[:120]  # zipfile repeats what it read
        raise ValueError(f"{path} is no map, or is damaged ({why}): load another copy of it") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version} and this software reads {FORMAT}: use the version that wrote it")
    if head.get("sha256") != _digest(arrays):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content; load another copy of it")
    for name, here in (("resolution_m", memory.config.resolution), ("frame_id", frame_id)):
        if head.get(name) != here:
            raise ValueError(f"{path} has the {name} {head.get(name)} and the memory {here}: use the same for both")
    try:
        _check(arrays)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    memory.restore(arrays)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check(state: dict[str, np.ndarray]) -> None:
    """Raises ValueError, with the reason, for what no memory gave."""
    fresh = GaussianMemory().state()
    missing = sorted(fresh.keys() - state.keys())
    if missing:
        raise ValueError(f"the map lacks {', '.join(missing)}: it was not written by this software")
    blocks, count = len(state["blocks"]), len(state["gaussian_home"])
    for name, like in fresh.items():
        array = state[name]
        rows = 1 if name == "frames" else count if name.startswith("gaussian_") else blocks
        rows *= BLOCK**3 if name.startswith("voxel_") else 1
        tail = array.shape[1:] if name == "gaussian_features" and array.ndim == 2 else like.shape[1:]
        if array.dtype != like.dtype or array.shape != (rows, *tail):
            raise ValueError(f"the map's {name} is {array.dtype} {array.shape}, not {like.dtype} {(rows, *tail)}")
    gaussians = Gaussians(
        **{n.removeprefix("gaussian_"): state[n] for n in fresh if n[9:] in Gaussians.empty().arrays()}
    )
    home = state["gaussian_home"]
    known = np.isin(state["voxel_label"], [*range(NUM_CLASSES + 1), UNKNOWN])
    in_range = all(
        ((0 <= state[f"voxel_{n}"]) & (state[f"voxel_{n}"] <= 1)).all() for n in ("occupancy", "probability")
    )
    if (
        not gaussians.finite().all()
        or not ((home >= 0) & (home < blocks * BLOCK**3)).all()
        or len(np.unique(home)) != count
        or len(np.unique(state["blocks"], axis=0)) != blocks
        or not (known.all() and in_range and (state["voxel_weight"] >= 0).all())
        or not np.isfinite(state["voxel_evidence"]).all()
    ):
        raise ValueError("the map holds values that no map has: it was damaged before it was written")
