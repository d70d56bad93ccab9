"""Frames of Occ-ScanNet or SynthRooms as training samples, with the augmentation and the depth errors of training."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from pathlib import Path

import lightning
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset

from sgrocc.datasets.layout import VOXEL_M
from sgrocc.datasets.occscannet import LocalFrame, OccScanNet
from sgrocc.evaluation.metrics import view_of
from sgrocc.evaluation.protocols import spread
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, UNKNOWN
from sgrocc.training.depth_errors import DepthErrors

#: What a pixel's class is read at: its surface point, moved by half a voxel along the ray into the thing it belongs to.
_INTO_SURFACE_M = 0.5 * VOXEL_M


@dataclass
class Augmentation:
    """What is done to a training image so that a network trained on drawings sees photographs.

    flip: probability of mirroring image and world; max_zoom: crops down to 1 / max_zoom of the view, which also varies
    the focal length; stretch: deviation of the logarithm of width over height, as of cameras with another format than
    the network's; photometric: probability of other colours, contrast and gamma; camera: of blur, grain and JPEG
    artefacts; grey: of a grey image; random_convolution: of a random 3 x 3 filter, which changes textures and keeps
    shapes.
    """

    flip: float = 0.5
    max_zoom: float = 1.5
    stretch: float = 0.08
    photometric: float = 0.8
    camera: float = 0.5
    grey: float = 0.1
    random_convolution: float = 0.3

    @staticmethod
    def none() -> Augmentation:
        return Augmentation(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Sample:
    """One frame for the network; with a leading batch axis after `collate`, but for `labels` and `name`.

    image: (3, H, W) float32, 0 to 1, RGB; intrinsics: (4,) fx, fy, cx, cy of that image in pixels; true_depth:
    (1, H, W) metres, 0 where unknown; sensor_depth, prior_depth: (1, H, W) metres, what a sensor and what another prior
    say, 0 where there is none; image_labels: (H / 4, W / 4) uint8, the class of what every fourth pixel shows, 255
    where nobody knows; rotation (3, 3), translation (3,): camera to the grid's corner, metres; labels: (X, Y, Z) uint8.
    """

    image: torch.Tensor
    intrinsics: torch.Tensor
    true_depth: torch.Tensor
    sensor_depth: torch.Tensor
    prior_depth: torch.Tensor
    image_labels: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    labels: torch.Tensor
    name: str


class LocalSamples(Dataset):
    """The frames of a split as samples. size: (width, height) of the network's image; augmentation: None for none;

    depth_errors: what the given depth is (see DepthErrors); seed: of everything random, together with the frame's
    number and the epoch, so that a resumed training sees what the uninterrupted one would have seen; indices: which
    frames (None: all); in_view_only: voxels whose centre is not in the (cropped) image are unknown.
    """

    def __init__(
        self,
        frames: OccScanNet,
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        depth_errors: DepthErrors | None = None,
        seed: int = 0,
        indices: list[int] | None = None,
        in_view_only: bool = False,
    ) -> None:
        self.frames, self.size, self.seed, self.in_view_only = frames, size, seed, in_view_only
        self.indices = list(range(len(frames))) if indices is None else indices
        self.augmentation = augmentation or Augmentation.none()
        self.depth_errors = depth_errors or DepthErrors.none()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        index = self.indices[index]
        return self.sample(self.frames[index], np.random.default_rng([self.seed, self.epoch, index]))

    def sample(self, frame: LocalFrame, rng: np.random.Generator) -> Sample:
        """The sample of a frame, as `rng` augments it."""
        a = self.augmentation
        zoom = rng.uniform(1.0, a.max_zoom) * np.exp(rng.normal(0.0, a.stretch) * np.array([0.5, -0.5]))
        camera, image, depth = _cropped(frame.camera, frame.image(), frame.depth(), self.size, zoom, rng)
        pose = Pose(frame.pose.rotation, frame.pose.translation - frame.grid.origin)
        labels = frame.labels
        if rng.random() < a.flip:
            camera, image, depth, pose, labels = _mirrored(camera, image, depth, pose, labels)
        image = photographed(image, a, rng)
        sensed, of_prior = self.depth_errors.given(depth, camera, rng)
        image_labels = _image_labels(depth, camera, pose, labels)
        if self.in_view_only:
            grid = VoxelGrid(np.zeros(3), labels.shape, VOXEL_M)
            labels = np.where(view_of(camera, pose, grid), labels, np.uint8(UNKNOWN))
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            intrinsics=torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=torch.float32),
            true_depth=torch.from_numpy(depth[None].copy()),
            sensor_depth=torch.from_numpy(sensed[None].copy()),
            prior_depth=torch.from_numpy(of_prior[None].copy()),
            image_labels=torch.from_numpy(image_labels),
            rotation=torch.from_numpy(pose.rotation.astype(np.float32)),
            translation=torch.from_numpy(pose.translation.astype(np.float32)),
            labels=torch.from_numpy(np.ascontiguousarray(labels)),
            name=f"{frame.scene}/{frame.frame:05d}",
        )


def _cropped(camera: PinholeCamera, image, depth, size: tuple[int, int], zoom: np.ndarray, rng: np.random.Generator):
    """The window of the view that is 1 / zoom of it in width and height, at `size`. Depth by the nearest pixel.

    zoom: (2,), along x and y; below 1 it is 1.
    """
    crop_width, crop_height = (float(n) for n in np.array([camera.width, camera.height]) / np.maximum(zoom, 1.0))
    left, top = float(rng.uniform(0, camera.width - crop_width)), float(rng.uniform(0, camera.height - crop_height))
    width, height = size
    box = (left, top, left + crop_width, top + crop_height)
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    scale_x, scale_y = width / crop_width, height / crop_height
    camera_out = PinholeCamera(
        width,
        height,
        camera.fx * scale_x,
        camera.fy * scale_y,
        (camera.cx + 0.5 - left) * scale_x - 0.5,
        (camera.cy + 0.5 - top) * scale_y - 0.5,
    )
    depth_height, depth_width = depth.shape
    columns = (left + (np.arange(width) + 0.5) / scale_x) * depth_width / camera.width
    rows = (top + (np.arange(height) + 0.5) / scale_y) * depth_height / camera.height
    columns = np.minimum(columns.astype(int), depth_width - 1)
    rows = np.minimum(rows.astype(int), depth_height - 1)
    return camera_out, resized, depth[np.ix_(rows, columns)]


def _mirrored(camera: PinholeCamera, image, depth, pose: Pose, labels):
    """The frame in a mirror: image and camera left to right, the world along x within its grid."""
    width_m = labels.shape[0] * VOXEL_M
    mirror = np.diag([-1.0, 1.0, 1.0])
    mirrored_pose = Pose(mirror @ pose.rotation @ mirror, mirror @ pose.translation + np.array([width_m, 0.0, 0.0]))
    mirrored_camera = PinholeCamera(
        camera.width, camera.height, camera.fx, camera.fy, camera.width - 1 - camera.cx, camera.cy
    )
    return mirrored_camera, image[:, ::-1], depth[:, ::-1], mirrored_pose, labels[::-1]


def _image_labels(depth: np.ndarray, camera: PinholeCamera, pose: Pose, labels: np.ndarray) -> np.ndarray:
    """(H / 4, W / 4) uint8: the class of the voxel that every fourth pixel's ray ends in, 255 where it has none."""
    rows, columns = np.arange(2, depth.shape[0], 4), np.arange(2, depth.shape[1], 4)
    z = depth[np.ix_(rows, columns)].astype(np.float64)
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64)
    rays = camera.back_project(pixels, np.ones(z.shape))
    further = z + _INTO_SURFACE_M / np.linalg.norm(rays, axis=-1)
    voxels = np.floor(pose.apply(rays * further[..., None]) / VOXEL_M).astype(int)
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=-1) & (z > 0)
    found = labels[tuple(np.moveaxis(np.where(inside[..., None], voxels, 0), -1, 0))]
    return np.where(inside & (found != FREE), found, UNKNOWN).astype(np.uint8)


def photographed(image: np.ndarray, a: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32, 0 to 1: an uint8 image with the faults and fashions of other cameras."""
    x = image.astype(np.float32) / 255.0
    if rng.random() < a.random_convolution:
        x = _random_convolution(x, rng)
    if rng.random() < a.photometric:
        x = np.clip(x, 0.0, 1.0) ** np.float32(np.exp(rng.normal(0.0, 0.25)))
        # A matrix near the identity mixes the colours: saturation, hue and white balance at once.
        mix = np.eye(3) + rng.normal(0.0, 0.08, (3, 3))
        saturation = rng.uniform(0.3, 1.4)
        mix = mix @ (saturation * np.eye(3) + (1.0 - saturation) / 3.0)
        contrast, mean = rng.uniform(0.6, 1.4), x.mean()
        x = (x - mean) * np.float32(contrast) + mean + np.float32(rng.normal(0.0, 0.08))
        x = (x.reshape(-1, 3) @ mix.T.astype(np.float32)).reshape(x.shape)
    if rng.random() < a.grey:
        x = np.repeat(x.mean(axis=-1, keepdims=True), 3, axis=-1)
    if rng.random() < a.camera:
        picture = Image.fromarray(np.uint8(np.clip(x, 0.0, 1.0) * 255.0 + 0.5))
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 1.5))))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(30, 95)))
        x = np.asarray(Image.open(buffer), np.float32) / 255.0
        x = x + rng.standard_normal(x.shape, np.float32) * np.float32(rng.uniform(0.0, 0.04))
    return np.clip(x, 0.0, 1.0).astype(np.float32)


def _random_convolution(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image through a random 3 x 3 filter, mixed with itself and brought back to its own mean and deviation."""
    weight = torch.from_numpy(rng.normal(0.0, 1.0 / np.sqrt(27.0), (3, 3, 3, 3)).astype(np.float32))
    tensor = torch.from_numpy(x.transpose(2, 0, 1)[None])
    filtered = torch.nn.functional.conv2d(torch.nn.functional.pad(tensor, (1, 1, 1, 1), "replicate"), weight)
    filtered = filtered[0].numpy().transpose(1, 2, 0)
    filtered = (filtered - filtered.mean()) / (filtered.std() + 1e-3) * x.std() + x.mean()
    share = np.float32(rng.uniform(0.2, 0.8))
    return share * x + (1 - share) * filtered


def collate(samples: list[Sample]) -> dict:
    """A batch: {field: stacked tensor}, `name` a list."""
    batch = {}
    for item in fields(Sample):
        values = [getattr(sample, item.name) for sample in samples]
        batch[item.name] = values if item.name == "name" else torch.stack(values)
    return batch


@dataclass
class DataConfig:
    """root: folder of the data set; width, height: of the network's image, pixels; batch_size: samples per process and
    step; workers: loader processes; mini, scene_disjoint: see OccScanNet; val_frames: frames of the validation split
    that are scored after each epoch, spread evenly (0: all); scenes: 0, or the number of training scenes to use;
    in_view_only: train on the voxels in the image alone, as EmbodiedOcc does.
    """

    root: str = "out/synthrooms"
    width: int = 320
    height: int = 240
    batch_size: int = 4
    workers: int = 1
    mini: bool = False
    scene_disjoint: bool = False
    val_split: str = "val"
    val_frames: int = 120
    scenes: int = 0
    in_view_only: bool = True
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    depth_errors: DepthErrors = field(default_factory=DepthErrors)


class LocalData(lightning.LightningDataModule):
    """The local task's frames for the trainer. config: see DataConfig."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config

    def setup(self, stage: str | None = None) -> None:
        c = self.config
        frames = OccScanNet(Path(c.root), "train", mini=c.mini, scene_disjoint=c.scene_disjoint)
        chosen = _of_first_scenes(frames, c.scenes) if c.scenes else None
        self.train = LocalSamples(
            frames, (c.width, c.height), c.augmentation, c.depth_errors, c.seed, chosen, c.in_view_only
        )

    def train_dataloader(self) -> DataLoader:
        # The trainer asks again before every epoch (reload_dataloaders_every_n_epochs: 1).
        self.train.epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        c = self.config
        frames = OccScanNet(Path(c.root), c.val_split, mini=c.mini, scene_disjoint=c.scene_disjoint)
        samples = LocalSamples(frames, (c.width, c.height), indices=spread(len(frames), c.val_frames))
        return self._loader(samples, shuffle=False)

    def _loader(self, samples: LocalSamples, shuffle: bool) -> DataLoader:
        c = self.config
        return DataLoader(
            samples, c.batch_size, shuffle=shuffle, drop_last=shuffle, num_workers=c.workers, collate_fn=collate
        )


def _of_first_scenes(frames: OccScanNet, scenes: int) -> list[int]:
    names = frames.scenes()
    chosen = set(list(dict.fromkeys(names))[:scenes])
    return [i for i, name in enumerate(names) if name in chosen]
