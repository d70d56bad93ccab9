"""The method under the protocols of the benchmark: an expert for one frame, the memory for a whole scene."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgrocc.evaluation.protocols import DEPTHS, PROTOCOLS, LocalPrediction
from sgrocc.experts import Expert, Frame, Prediction
from sgrocc.experts.geometric import GeometricConfig, GeometricExpert
from sgrocc.experts.learned import LearnedExpert
from sgrocc.experts.measured import for_a_map
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import Pose, VoxelGrid
from sgrocc.inference.engine import load_engine
from sgrocc.inference.manifest import load_manifest
from sgrocc.labels import FREE, NUM_CLASSES, UNKNOWN, most_likely_class
from sgrocc.memory.gaussian_memory import Fusion, GaussianMemory, MemoryConfig
from sgrocc.memory.learned_fusion import LearnedFusion
from sgrocc.splatting import class_probabilities, splat_grid

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
    from sgrocc.datasets.occscannet import LocalFrame
    from sgrocc.evaluation.protocols import EmbodiedPredictor, LocalPredictor
    from sgrocc.memory.confidence import Confirmation

#: Depth up to here is used, by the method and by the baselines: the furthest corner of a local grid, whose centre is
#: 2 m ahead of the camera, is 5.4 m away.
MIN_DEPTH_M, MAX_DEPTH_M = 0.3, 5.5
_SURFACES = GeometricConfig(min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M)


def make(
    model: str | Path | None, protocol: str, depth: str, expert: str | Expert | None = None
) -> LocalPredictor | EmbodiedPredictor:
    """The method as a predictor: `model` and `expert` as in `load_expert`; protocol: local or embodied; depth: true
    (as stored), sensor (with the faults of an RGB-D sensor) or network (none is given). The memory has the fusion that
    the model brings.

    Raises FileNotFoundError or ValueError where the model cannot be used, and ValueError for an unknown name.
    """
    check_names(protocol, depth)
    loaded = load_expert(model, depth, expert)
    if protocol == "local":
        return ExpertLocal(loaded, depth)
    return MemoryEmbodied(map_expert(loaded), depth, fusion_of(loaded))


def fusion_of(expert: Expert) -> Fusion | None:
    """What the expert's model learned for the memory; None where that is nothing."""
    if not brings_fusion(expert):
        return None
    return LearnedFusion(expert.manifest.fusion, load_engine(expert.manifest.fusion))


def brings_fusion(expert: Expert) -> bool:
    """Whether the expert's model learned something for the memory."""
    return isinstance(expert, LearnedExpert) and expert.manifest.fusion is not None


def map_expert(expert: Expert) -> Expert:
    """The expert as a robot's memory has it: what was measured is given as measured."""
    return for_a_map(expert, _SURFACES)


def memory_config(**changes) -> MemoryConfig:
    """The memory's settings under the protocols, whose truth has its solids filled: guesses reach further and count for
    more than on a robot, whose map they would fill where nobody asks (beneath floors, beyond walls)."""
    settings = {"guessed_threshold": 0.05, "max_inferred_m": 2.5, **changes}
    return MemoryConfig(min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M, **settings)


def load_expert(model: str | Path | None, depth: str, expert: str | Expert | None = None) -> Expert:
    """The expert of a model's folder or, with model None, the one called `expert` ("geometric") or given ready-made."""
    if (model is None) == (expert is None):
        raise ValueError("there must be either a model or an expert: give --model FOLDER or --expert geometric")
    if model is not None:
        manifest = load_manifest(model)
        if depth != "network" and not manifest.takes_depth:
            raise ValueError(f"the model {manifest.name} has no depth input: use --depth network")
        return LearnedExpert(manifest, load_engine(manifest), use_sensor_depth=depth != "network")
    if not isinstance(expert, str):
        return expert
    if expert != "geometric":
        raise ValueError(f"there is no expert {expert!r}: use geometric, or a model by its folder")
    if depth == "network":
        raise ValueError("the geometric expert predicts no depth: use --depth true or --depth sensor")
    return GeometricExpert(_SURFACES)


class ExpertLocal:
    """One frame's Gaussians, splatted into the frame's local grid. What they do not reach is free."""

    def __init__(self, expert: Expert, depth: str) -> None:
        self.expert = expert
        self.depth = depth

    def predict(self, frame: LocalFrame) -> LocalPrediction:
        """Labels and probabilities (0 is free) of the frame's grid. Raises ValueError for a frame without what the
        expert needs."""
        return splatted(self.expert, self.expert(expert_frame(frame, self.depth)), frame.pose, frame.grid)


class MemoryEmbodied:
    """The memory, fed frame by frame; its voxels in the scene's grid. What it does not know is free."""

    def __init__(self, expert: Expert, depth: str, fusion: Fusion | None = None) -> None:
        self.expert = expert
        self.depth = depth
        self._memory = GaussianMemory(memory_config(), fusion)
        self._grid: VoxelGrid | None = None

    def start(self, scene: EmbodiedScene) -> None:
        """Forget the last scene. Raises ValueError where the grid's voxels are not the memory's in size."""
        if abs(scene.grid.resolution - self._memory.config.resolution) > 1e-9:
            raise ValueError(
                f"the voxels of the scene {scene.name} are {scene.grid.resolution:g} m, but the memory's "
                f"{self._memory.config.resolution:g} m: resample the scene"
            )
        self._memory.clear()
        self._grid = scene.grid

    def add(self, frame: EmbodiedFrame) -> None:
        """Fuse one frame. Raises ValueError where no scene was started or the frame lacks what the expert needs."""
        pose = pose_in_grid(frame.pose, self._started())
        self._memory.fuse(self.expert(expert_frame(frame, self.depth)), pose)

    def labels(self) -> np.ndarray:
        """(X, Y, Z) uint8, 0 to 11, the map so far in the scene's grid."""
        known = self._memory.snapshot()
        return dense_labels(known.indices, known.labels, self._started().shape)

    def gaussians(self) -> Gaussians:
        """What is remembered so far, in the scene's grid: metres from its corner."""
        return self._memory.gaussians()

    def confirmation(self) -> Confirmation | None:
        """How far the last frame confirmed what was remembered, in the scene's grid."""
        return self._memory.confirmation

    def _started(self) -> VoxelGrid:
        if self._grid is None:
            raise ValueError("the predictor knows no scene yet: call start first")
        return self._grid


def splatted(expert: Expert, prediction: Prediction, camera_to_world: Pose, grid: VoxelGrid) -> LocalPrediction:
    """The expert's prediction as voxels of a grid in the world.

    The geometric expert's Gaussian stands for the surface within one voxel; so its Gaussians become one per voxel
    first, as in the memory, or near surfaces, with a hundred Gaussians to a voxel, would grow thick.
    """
    pose = pose_in_grid(camera_to_world, grid)
    if isinstance(expert, GeometricExpert):
        memory = GaussianMemory(memory_config(resolution=grid.resolution))
        memory.fuse(prediction, pose)
        gaussians = memory.gaussians()
    else:
        gaussians = prediction.gaussians.select(prediction.gaussians.finite()).transformed(pose)
    return local_prediction(gaussians, VoxelGrid(np.zeros(3), grid.shape, grid.resolution))


def local_prediction(gaussians: Gaussians, grid: VoxelGrid) -> LocalPrediction:
    """Voxels of Gaussians in the frame of `grid`: occupied from probability 1/2 on, of the most likely class."""
    occupancy, scores = splat_grid(gaussians, grid)
    probabilities = np.empty((*grid.shape, 1 + NUM_CLASSES), np.float32)
    probabilities[..., 0] = 1 - occupancy
    probabilities[..., 1:] = occupancy[..., None] * class_probabilities(scores)
    return LocalPrediction(labels_of(occupancy, scores), probabilities)


def labels_of(occupancy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Labels of voxels from their occupancy and class scores: occupied from probability 1/2 on."""
    occupied = occupancy >= 0.5
    labels = np.full(occupancy.shape, FREE, np.uint8)
    labels[occupied] = most_likely_class(scores[occupied])
    return labels


_shown: tuple[LocalFrame, str, Frame] | None = None


def expert_frame(frame: LocalFrame, depth: str) -> Frame:
    """What a method is shown of a frame of the data set.

    The last one is kept: several parts of a method ask for it, and the benchmark reads it before it starts the clock.
    """
    global _shown
    if _shown is None or _shown[0] is not frame or _shown[1] != depth:
        _shown = (frame, depth, Frame(frame.image(), frame.camera, depth_of(frame, depth)))
    return _shown[2]


def depth_of(frame: LocalFrame, depth: str) -> np.ndarray | None:
    """(h, w) float32 metres, 0 where invalid; None for "network". The sensor's faults are those of the scene's name
    and the frame's number, so that every run and every method sees the same."""
    if depth == "network":
        return None
    true_depth = frame.depth()
    if depth == "true":
        return true_depth
    from sgrocc.synthrooms.sensor import sensor_depth

    height, width = true_depth.shape
    rng = np.random.default_rng([zlib.crc32(frame.scene.encode()), int(frame.frame)])
    return sensor_depth(true_depth, rng, frame.camera.resized(width, height))


def pose_in_grid(camera_to_world: Pose, grid: VoxelGrid) -> Pose:
    """The pose in a world whose origin is the grid's corner: there the voxels of the grid are world voxels 0, 1, ...

    A corner in the data need not be a multiple of the voxel size, but the memory's and OctoMap's always are.
    """
    return Pose(camera_to_world.rotation, camera_to_world.translation - grid.origin)


def dense_labels(indices: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(X, Y, Z) uint8: listed voxels (M, 3) with their labels (M,), free where none is listed or it is unknown."""
    inside = ((indices >= 0) & (indices < np.array(shape))).all(axis=1) & (labels != UNKNOWN)
    dense = np.full(shape, FREE, np.uint8)
    dense[tuple(indices[inside].T)] = labels[inside]
    return dense


def check_names(protocol: str, depth: str) -> None:
    """Raises ValueError where one of the two is unknown."""
    for what, name, known in (("protocol", protocol, PROTOCOLS), ("depth", depth, DEPTHS)):
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}: use {', '.join(known)}")
