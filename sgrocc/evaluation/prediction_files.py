"""Predictions that lie in files, of whatever made them, under the protocols of the benchmark."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.protocols import LocalPrediction
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import NUM_CLASSES, UNKNOWN

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.datasets.occscannet import LocalFrame


class LocalFiles:
    """`folder`/<scene>/<frame, five digits>.npy or .npz: see `read_labels`. ValueError where one is missing or bad."""

    def __init__(self, folder: Path) -> None:
        self._folder = _checked(folder)

    def predict(self, frame: LocalFrame) -> LocalPrediction:
        return LocalPrediction(read_labels(self._folder / frame.scene / f"{frame.frame:05d}", frame.grid), None)


class SceneFiles:
    """`folder`/<scene>.npy or .npz: the map after the last frame; see `read_labels`."""

    def __init__(self, folder: Path) -> None:
        self._folder = _checked(folder)

    def start(self, scene: EmbodiedScene) -> None:
        self._labels = read_labels(self._folder / scene.name, scene.grid)

    def add(self, frame: EmbodiedFrame) -> None:
        pass

    def labels(self) -> np.ndarray:
        return self._labels


def read_labels(stem: Path, grid: VoxelGrid) -> np.ndarray:
    """(X, Y, Z) uint8 labels on `grid` from `stem`.npy or `stem`.npz.

    Either a plain array of our labels (0 free, 1..11, 255 unknown) of the grid's shape, in an npz the only one or
    called `labels`; or an occupancy map (`Occupancy.save`), which is moved onto the grid, whatever its frame_id, where
    the grid's corner is a multiple of its voxels' size. Raises ValueError where there is no such file or it does not
    fit.
    """
    paths = [stem.with_name(stem.name + ending) for ending in (".npy", ".npz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ValueError(f"there is no prediction {paths[0]} or {paths[1].name}: predict all that the split has")
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:
                if "origin" in content.files:
                    return _moved(path, grid)
                name = "labels" if "labels" in content.files else content.files[0]
                content = content[name]
    except (OSError, EOFError, LookupError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}): write it again") from error
    except ValueError as error:
        if "pickle" in str(error):  # what numpy says of anything that is no array of numbers
            raise ValueError(f"{path} is no array of numbers: write it with numpy.save") from error
        raise ValueError(f"{path}: {error}") from error
    if content.shape != grid.shape:
        raise ValueError(f"{path} has {content.shape} voxels, the grid {grid.shape}: store [x, y, z] of the whole grid")
    if content.dtype.kind not in "iu":
        raise ValueError(f"{path} holds {content.dtype} instead of labels: store the most likely class as uint8")
    wrong = (content < 0) | ((content > NUM_CLASSES) & (content != UNKNOWN))
    if wrong.any():
        raise ValueError(
            f"{path} holds the label {content[wrong][0]}: ours are 0 (free), 1 to {NUM_CLASSES} and {UNKNOWN} (unknown)"
        )
    return content.astype(np.uint8)


def _moved(path: Path, grid: VoxelGrid) -> np.ndarray:
    try:
        return Occupancy.load(path).resampled_to(grid).labels
    except ValueError as error:
        raise ValueError(f"it cannot be moved onto the grid ({error}): store labels on the grid as .npy") from error


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"the predictions {folder} are no folder: check the path")
    return folder
