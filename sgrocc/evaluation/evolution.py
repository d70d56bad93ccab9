"""How a map grows along a scene: image, Gaussians, map and truth, as a strip of quarters and as a short video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.pictures import isometric_drawing, look_in_height_m, titled_row
from sgrocc.evaluation.predictors import dense_labels
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import VoxelGrid
from sgrocc.geometry.pose import quaternion_to_matrix
from sgrocc.labels import CEILING, COLOURS, FREE, UNKNOWN, most_likely_class

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedScene
    from sgrocc.evaluation.protocols import EmbodiedPredictor

_HEIGHT_PX, _LINE_PX, _GAP_PX = 260, 26, 8
_FRAME_S = 0.35
#: A picture of more has more than a hundred million pixels.
MAX_DRAWN_VOXELS = 20_000_000


def draw(folder: Path, scene: EmbodiedScene, predictor: EmbodiedPredictor) -> list[Path]:
    """Map a scene and write `evolution_<scene>.png`, after each quarter of its frames, and `.gif`, after each frame.

    Gaussians are drawn where the predictor has them (`gaussians()`, in the scene's grid). Returns the paths.
    """
    return _write(folder, scene.name, _steps(scene, predictor))


#: (N, 3) voxels of the world, int, and their labels (N,), uint8.
Voxels = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Moment:
    """A map at some time: the image (h, w, 3) uint8, the Gaussians in the world, and what map and truth know."""

    caption: str
    image: np.ndarray
    gaussians: Gaussians
    map: Voxels
    truth: Voxels


def draw_moments(folder: Path, name: str, moments: Sequence[Moment], resolution: float) -> list[Path]:
    """Write `evolution_<name>.png` and `.gif` of moments of one recording, as `draw` does of a scene.

    resolution: edge of the voxels, metres. Raises ValueError where nothing is known at any moment, or the world is too
    large to be drawn.
    """
    places = np.concatenate([np.zeros((0, 3), int), *(voxels for m in moments for voxels, _ in (m.map, m.truth))])
    if not len(places):
        raise ValueError("there is nothing to draw: no frame was fused that saw anything")
    low = places.min(axis=0)
    shape = tuple(int(n) for n in places.max(axis=0) - low + 1)
    if math.prod(shape) > MAX_DRAWN_VOXELS:
        raise ValueError(f"the map of {shape} voxels is too large to be drawn in cubes: draw a part of the recording")
    grid = VoxelGrid(np.zeros(3), shape, resolution)

    def dense(voxels: Voxels) -> np.ndarray:
        return dense_labels(voxels[0] - low, voxels[1], shape)

    cut = _cut(dense(moments[-1].truth), grid)

    def steps() -> Iterator[tuple[str, dict[str, Image.Image]]]:
        for moment in moments:
            moved = replace(moment.gaussians, means=(moment.gaussians.means - low * resolution).astype(np.float32))
            yield (
                moment.caption,
                {
                    "image": Image.fromarray(moment.image),
                    "Gaussians, from above": gaussians_from_above(moved, grid, cut * resolution),
                    "map": _cubes(dense(moment.map), cut),
                    "truth": _cubes(dense(moment.truth), cut),
                },
            )

    return _write(folder, name, steps())


def known_voxels(occupancy: Occupancy) -> Voxels:
    """What a map knows."""
    places = np.argwhere(occupancy.labels != UNKNOWN)
    corner = np.round(np.asarray(occupancy.origin) / occupancy.resolution).astype(int)
    return places + corner, occupancy.labels[tuple(places.T)]


def _cut(labels: np.ndarray, grid: VoxelGrid) -> int:
    """The layer above which nothing is drawn, so that one looks in."""
    above_m = look_in_height_m(labels, grid.resolution)
    # A whole number of layers must not fall short of itself.
    return grid.shape[2] if above_m is None else int(above_m / grid.resolution + 1e-6)


def _write(folder: Path, name: str, steps: Iterable[tuple[str, dict[str, Image.Image]]]) -> list[Path]:
    """Steps, as of `_steps`, as a strip of quarters and as a video."""
    folder.mkdir(parents=True, exist_ok=True)
    captions, rows = zip(*steps, strict=True)
    # As much of the grid as anything is in at any time, so that the views do not jump.
    views = [row[title].convert("RGB") for row in rows for title in ("map", "truth")]
    boxes = np.array([ImageChops.invert(view).getbbox() or (0, 0, 1, 1) for view in views])
    box = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    for row in rows:
        row |= {title: row[title].crop(box) for title in ("map", "truth")}
    panels = [titled_row(caption, _fitted(row), _LINE_PX, _GAP_PX) for caption, row in zip(captions, rows, strict=True)]
    count = len(panels)
    quarters = sorted({max(0, -(-count * part // 4) - 1) for part in (1, 2, 3, 4)})
    strip = Image.new("RGB", (panels[0].width, sum(panels[i].height for i in quarters)), "white")
    top = 0
    for i in quarters:
        strip.paste(panels[i], (0, top))
        top += panels[i].height
    paths = [folder / f"evolution_{name}{suffix}" for suffix in (".png", ".gif")]
    strip.save(paths[0])
    # One palette for all, or colours flicker.
    palette = panels[-1].quantize(128)
    frames = [panel.quantize(palette=palette, dither=Image.Dither.NONE) for panel in panels]
    frames[0].save(
        paths[1], save_all=True, append_images=frames[1:], duration=int(1000 * _FRAME_S), loop=0, optimize=True
    )
    return paths


def _steps(scene: EmbodiedScene, predictor: EmbodiedPredictor) -> Iterator[tuple[str, dict[str, Image.Image]]]:
    """(caption, {title: picture}) after each frame."""
    grid = VoxelGrid(np.zeros(3), scene.grid.shape, scene.grid.resolution)
    cut = _cut(scene.labels, grid)
    predictor.start(scene)
    in_view = np.zeros(grid.shape, bool)
    for number, frame in enumerate(scene.frames, 1):
        predictor.add(frame)
        in_view |= frame.mask
        truth = np.where(in_view, frame.global_labels(), np.uint8(UNKNOWN))
        tiles = {} if frame.image_path is None else {"image": Image.fromarray(frame.image())}
        if hasattr(predictor, "gaussians"):
            tiles["Gaussians, from above"] = gaussians_from_above(predictor.gaussians(), grid, cut * grid.resolution)
        # What is not scored is not shown.
        known = np.where(truth == UNKNOWN, np.uint8(UNKNOWN), predictor.labels())
        tiles |= {"map": _cubes(known, cut), "truth": _cubes(truth, cut)}
        yield f"{scene.name}, frame {number} of {len(scene.frames)}", tiles


def gaussians_from_above(gaussians: Gaussians, grid: VoxelGrid, cut_m: float) -> Image.Image:
    """The Gaussians below a height, as ellipses of one sigma in the colours of their classes; x to the right, y up."""
    scale = 8 / grid.resolution / 2  # pixels per metre
    width, height = (round(n * grid.resolution * scale) for n in grid.shape[:2])
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture, "RGBA")
    classes = most_likely_class(gaussians.logits) if len(gaussians) else np.zeros(0, np.uint8)
    shown = np.flatnonzero((gaussians.means[:, 2] < cut_m) & (classes != CEILING))
    axes = quaternion_to_matrix(gaussians.rotations) * gaussians.scales[:, None, :]
    sigma = np.sqrt(np.square(axes).sum(axis=-1))
    for i in shown[np.argsort(gaussians.means[shown, 2], kind="stable")]:
        x, y = gaussians.means[i, 0] * scale, height - gaussians.means[i, 1] * scale
        rx, ry = sigma[i, :2] * scale
        colour = (*(int(c) for c in COLOURS[classes[i]]), int(40 + 180 * gaussians.opacities[i]))
        pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)
    return picture


def _cubes(labels: np.ndarray, cut: int) -> Image.Image:
    occupied = (labels != FREE) & (labels != UNKNOWN) & (np.arange(labels.shape[2]) < cut)
    return isometric_drawing(occupied, COLOURS[labels])


def _fitted(tiles: dict[str, Image.Image]) -> dict[str, Image.Image]:
    size = 2 * _HEIGHT_PX, _HEIGHT_PX
    return {title: ImageOps.contain(tile.convert("RGB"), size) for title, tile in tiles.items()}
