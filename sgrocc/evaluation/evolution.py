"""How a map grows along a scene: image, Gaussians, map and truth, as a strip of quarters and as a short video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

from sgrocc.evaluation.pictures import LOOK_IN_HEIGHT_M, isometric_drawing, lowest_layer, titled_row
from sgrocc.gaussians import Gaussians
from sgrocc.geometry import VoxelGrid
from sgrocc.geometry.pose import quaternion_to_matrix
from sgrocc.labels import CEILING, COLOURS, FREE, UNKNOWN, most_likely_class

if TYPE_CHECKING:
    from sgrocc.datasets.embodied_occscannet import EmbodiedScene
    from sgrocc.evaluation.protocols import EmbodiedPredictor

_HEIGHT_PX, _LINE_PX, _GAP_PX = 260, 26, 8
_FRAME_S = 0.35


def draw(folder: Path, scene: EmbodiedScene, predictor: EmbodiedPredictor) -> list[Path]:
    """Map a scene and write `evolution_<scene>.png`, after each quarter of its frames, and `.gif`, after each frame.

    Gaussians are drawn where the predictor has them (`gaussians()`, in the scene's grid). Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions, rows = zip(*_steps(scene, predictor), strict=True)
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
    paths = [folder / f"evolution_{scene.name}{suffix}" for suffix in (".png", ".gif")]
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
    lowest = lowest_layer(scene.labels)
    cut = grid.shape[2] if lowest is None else int(lowest + LOOK_IN_HEIGHT_M / grid.resolution)
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
