"""What real cameras do to a clean picture, and RGB-D sensors to exact depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from sgrocc.geometry import PinholeCamera

#: Depth outside is not measured.
MIN_DEPTH_M, MAX_DEPTH_M = 0.3, 5.5
#: 1/m: an eighth of a pixel at 580 pixels focal length and 75 mm between projector and camera; 3 mm at 1 m.
_DISPARITY_STEP = 0.00287


@dataclass(frozen=True)
class CameraFaults:
    """One camera in one light. target: mean brightness that its exposure seeks, 0 to 1; gain: (3,) white balance;
    gamma: tone curve; vignette: loss in the corners, 0 to 1; blur_px: radius; noise: deviation at mid-grey, 0 to 1;
    jpeg_quality: of the file.
    """

    target: float
    gain: tuple[float, float, float]
    gamma: float
    vignette: float
    blur_px: float
    noise: float
    jpeg_quality: int

    @staticmethod
    def sample(rng: np.random.Generator) -> CameraFaults:
        warm = rng.normal(0.0, 0.06)
        gain = (1.0 + warm, 1.0 + rng.normal(0.0, 0.02), 1.0 - warm)
        return CameraFaults(
            target=float(rng.uniform(0.4, 0.56)),
            gain=tuple(float(g) for g in gain),
            gamma=float(rng.uniform(0.8, 1.0)),
            vignette=float(rng.uniform(0.0, 0.25)),
            blur_px=float(rng.choice([0.0, 0.4, 0.6, 0.8, 1.1])),
            noise=float(rng.uniform(0.004, 0.025)),
            jpeg_quality=int(rng.integers(72, 94)),
        )

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An (h, w, 3) uint8 picture as this camera takes it, (h, w, 3) uint8."""
        height, width = image.shape[:2]
        tone = np.linspace(0.0, 1.0, 256) ** self.gamma
        # Metered as cameras do: a window does not darken the room.
        mean = float(np.minimum(tone[image[::8, ::8]], 0.6).mean())
        exposure = np.clip(self.target / max(mean, 1e-3), 0.6, 4.0)
        # A shoulder keeps what is bright from burning out at once.
        bright = exposure * np.array(self.gain) * tone[:, None]
        curve = np.where(bright < 0.7, bright, 0.7 + 0.3 * (1.0 - np.exp(-(bright - 0.7) / 0.3)))
        taken = np.stack([curve[:, c].astype(np.float32)[image[..., c]] for c in range(3)], axis=-1)
        if self.vignette > 0.01:
            v, u = np.ogrid[-1.0 : 1.0 : height * 1j, -1.0 : 1.0 : width * 1j]
            taken *= (1.0 - self.vignette * 0.5 * (u * u + v * v)).astype(np.float32)[..., None]
        picture = Image.fromarray(np.uint8(np.clip(taken, 0.0, 1.0) * 255.0 + 0.5))
        if self.blur_px > 0.0:
            picture = picture.filter(ImageFilter.GaussianBlur(self.blur_px))
        # One field of noise serves all: luminance noise is stronger than that of colour.
        grain = rng.standard_normal((height, width), np.float32) * np.float32(self.noise * 255.0)
        noise = np.stack(
            [0.8 * grain + 0.5 * np.roll(grain, (7 * c + 3, 11 * c + 5), (0, 1)) for c in range(3)], axis=-1
        )
        noisy = np.asarray(picture, np.float32) + noise
        return np.uint8(np.clip(noisy, 0.0, 255.0) + 0.5)


def sensor_depth(depth: np.ndarray, rng: np.random.Generator, camera: PinholeCamera) -> np.ndarray:
    """What an RGB-D sensor returns for exact depth: (h, w) float32 metres, 0 where it measures nothing.

    Disparity comes in steps, noise grows with the square of the distance, and nothing is measured at borders of things,
    on surfaces seen at a grazing angle and out of range. depth: (h, w) float32 metres, 0 where there is nothing.
    """
    z = np.asarray(depth, np.float32)
    height, width = z.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(z > 0, 1.0 / z, 0.0).astype(np.float32)
        # Planes are linear in 1/z: its second difference finds borders only, its slope tells how steeply they lie.
        slope_x, slope_y = np.zeros_like(z), np.zeros_like(z)
        slope_x[:, 1:-1] = 0.5 * (inverse[:, 2:] - inverse[:, :-2])
        slope_y[1:-1] = 0.5 * (inverse[2:] - inverse[:-2])
        border = np.zeros(z.shape, bool)
        for axis in (0, 1):
            step = np.diff(inverse, axis=axis)
            ahead, back = (step[1:], step[:-1]) if axis == 0 else (step[:, 1:], step[:, :-1])
            inner = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
            jump = (np.abs(ahead - back) * z[inner] > 0.02) & (
                np.maximum(np.abs(ahead), np.abs(back)) * z[inner] > 0.025
            )
            border[inner] |= jump
        # Of a plane n.p = d, 1/z has the gradient (nx / fx, ny / fy) / d per pixel, and n.(ray) / d is 1/z itself.
        u = (np.arange(width, dtype=np.float32) - camera.cx) / camera.fx
        v = (np.arange(height, dtype=np.float32)[:, None] - camera.cy) / camera.fy
        nx, ny = slope_x * camera.fx, slope_y * camera.fy
        nz = inverse - nx * u - ny * v
        facing = inverse / np.sqrt((nx * nx + ny * ny + nz * nz) * (1.0 + u * u + v * v))
        noise = np.float32(0.0012) * z * z + np.float32(0.002)
        measured = z + noise * smooth_noise(rng, height, width, 20)
        measured = 1.0 / (np.rint(1.0 / measured / _DISPARITY_STEP) * _DISPARITY_STEP)
        bad = (z <= 0) | border | (facing < 0.10 + 0.03 * smooth_noise(rng, height, width, 12))
        bad |= ~((measured >= MIN_DEPTH_M) & (measured <= MAX_DEPTH_M))
    return np.where(bad, 0.0, measured).astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """(h, w) float32 smooth noise of unit deviation, about `cell` pixels per blob."""
    rows, columns = height // cell + 3, width // cell + 3
    small = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    large = np.asarray(small.resize((columns * cell, rows * cell), Image.Resampling.BICUBIC))
    blobs = large[cell : cell + height, cell : cell + width]
    return blobs / max(float(blobs.std()), 1e-6)
