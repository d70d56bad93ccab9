"""Pictures of a scene of a data set: images, depth, what the voxels say of each pixel, and the voxels themselves."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.pictures import isometric_view, top_view
from sgrocc.labels import COLOURS, FREE, UNKNOWN

_TILE = (320, 240)
_SHOWN_FRAMES = 6
_FARTHEST_M = 6.0
#: A surface lies on the border of voxels as often as not: its voxel is looked up this far behind it.
_BEHIND_M = 0.02


def contact_sheet(scene: EmbodiedScene) -> Image.Image:
    """One picture of a scene: frames spread over it (image, depth, voxel labels of its pixels), and its voxels."""
    chosen = np.unique(np.linspace(0, len(scene.frames) - 1, min(_SHOWN_FRAMES, len(scene.frames))).astype(int))
    width, height = _TILE
    rows = [_frame_tiles(scene, scene.frames[i]) for i in chosen]
    occupied = (scene.labels != FREE) & (scene.labels != UNKNOWN)
    # Pictures name no frame of reference, so the corner may lie anywhere.
    corner = np.rint(scene.grid.origin / scene.grid.resolution) * scene.grid.resolution
    occupancy = Occupancy(scene.labels, occupied.astype(np.float32), corner, scene.grid.resolution, "world")
    maps = [view(occupancy) for view in (top_view, isometric_view)]
    sheet_width = max(len(rows) * width, sum(picture.width for picture in maps))
    sheet = Image.new("RGB", (sheet_width, 3 * height + max(picture.height for picture in maps)), "white")
    for column, (index, tiles) in enumerate(zip(chosen, rows, strict=True)):
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (column * width, row * height))
        caption = f"{scene.name} frame {scene.frames[index].frame}"
        ImageDraw.Draw(sheet).text((column * width + 6, 4), caption, "white", stroke_width=2, stroke_fill="black")
    left = 0
    for picture in maps:
        sheet.paste(picture, (left, 3 * height))
        left += picture.width
    return sheet


def _frame_tiles(scene: EmbodiedScene, frame: EmbodiedFrame) -> list[Image.Image]:
    """Image, depth and labels of one frame as tiles."""
    depth = frame.depth()
    near = np.clip(1.0 - depth / _FARTHEST_M, 0.0, 1.0)
    shaded = np.where((depth > 0)[..., None], near[..., None] * [255, 220, 160], [90, 0, 90]).astype(np.uint8)
    return [
        Image.fromarray(picture).resize(_TILE, method)
        for picture, method in (
            (frame.image(), Image.Resampling.BILINEAR),
            (shaded, Image.Resampling.NEAREST),
            (COLOURS[labels_of_pixels(scene, frame, depth)], Image.Resampling.NEAREST),
        )
    ]


def labels_of_pixels(scene: EmbodiedScene, frame: EmbodiedFrame, depth: np.ndarray) -> np.ndarray:
    """(h, w) uint8: the label of the voxel that each pixel's surface lies in; 255 where depth or voxel is missing."""
    height, width = depth.shape
    camera = frame.camera.resized(width, height)
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
    points = frame.pose.apply(camera.back_project(pixels, depth.astype(np.float64) + _BEHIND_M))
    indices = scene.grid.index_of(points)
    inside = scene.grid.contains(indices) & (depth > 0)
    labels = np.full(depth.shape, UNKNOWN, np.uint8)
    labels[inside] = frame.global_labels()[tuple(indices[inside].T)]
    return labels
