"""Parts of the view that shall not enter the map: people, the robot's own arm, whatever else moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sgrocc.experts import Prediction


def without(prediction: Prediction, mask: np.ndarray) -> Prediction:
    """The prediction without what a mask covers, so that there it neither occupies nor frees anything.

    mask: (h, w) bool of any size, registered to the prediction's view; True: keep out of the map. A pixel of the
    prediction is masked where any pixel of the mask that it covers is. There the depth becomes 0, unknown, and the
    Gaussians are left out, those behind as well: what a person hides is not to be guessed. Raises ValueError for a mask
    that is no image.
    """
    mask = np.asarray(mask).astype(bool)
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"the mask has shape {mask.shape}: it must be an image (height, width) of the camera's view")
    if not mask.any():
        return prediction
    masked = _resized(mask, *prediction.depth.shape)
    pixels, _ = prediction.camera.project(prediction.gaussians.means)
    rows, columns, inside = prediction.camera.pixel_index(pixels)
    return replace(
        prediction,
        depth=np.where(masked, np.float32(0), prediction.depth),
        gaussians=prediction.gaussians.select(~(inside & masked[rows, columns])),
    )


def unmasked(depth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w) float32 depth in metres, 0 where a mask of any size, as in `without`, covers it."""
    return np.where(_resized(np.asarray(mask).astype(bool), *depth.shape), np.float32(0), depth)


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) bool: True where any pixel of the mask that a pixel covers is."""
    return _any_within(_any_within(mask, height).T, width).T


def _any_within(mask: np.ndarray, count: int) -> np.ndarray:
    """(count, w) bool of (h, w): `count` equal parts of the rows, each True where any row that it touches is."""
    height, part = len(mask), np.arange(count)
    first, end = part * height // count, -(-(part + 1) * height // count)
    before = np.concatenate([np.zeros((1, mask.shape[1]), np.int32), np.cumsum(mask, axis=0, dtype=np.int32)])
    return before[end] > before[first]
