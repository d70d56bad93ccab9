"""The pinhole camera. Pixel (0, 0) is the centre of the top left pixel; axes x right, y down, z forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of an undistorted image of `width` x `height` pixels; focal lengths and centre in pixels.

    Raises ValueError where the numbers cannot be those of a camera.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"the image is {self.width} x {self.height} pixels: it must not be empty")
        if not np.isfinite([self.fx, self.fy, self.cx, self.cy]).all():
            raise ValueError(
                "the camera matrix holds NaN or infinity: calibrate the camera and publish its camera_info"
            )
        if self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"the camera matrix has focal lengths {self.fx:g} and {self.fy:g}: "
                "calibrate the camera and publish its camera_info"
            )

    @staticmethod
    def from_calibration(
        k: np.ndarray,
        calibrated_size: tuple[int, int],
        image_size: tuple[int, int],
        binning: tuple[int, int] = (1, 1),
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> PinholeCamera:
        """The camera of an image, from the fields of its sensor_msgs/CameraInfo.

        k: 9 numbers, row-major, in pixels of the full sensor image; calibrated_size: (width, height) of that image,
        (0, 0) where it is not said; image_size: (width, height) of the image at hand; binning: (x, y), 0 means 1;
        roi: (x_offset, y_offset, width, height) in full sensor pixels, width or height 0 means the whole image.
        An image of yet another size (a driver that resizes) is taken to show the same view.
        """
        k = np.asarray(k, np.float64).reshape(-1)
        if k.shape != (9,):
            raise ValueError(f"the camera matrix has {k.size} numbers instead of 9")
        width, height = image_size
        x_offset, y_offset, roi_width, roi_height = roi
        full_width, full_height = calibrated_size
        seen_width = roi_width or full_width or width * max(binning[0], 1)
        seen_height = roi_height or full_height or height * max(binning[1], 1)
        at_sensor = PinholeCamera(
            int(seen_width), int(seen_height), float(k[0]), float(k[4]), float(k[2] - x_offset), float(k[5] - y_offset)
        )
        # Binning averages whole pixels, so it is a resize like any other.
        return at_sensor.resized(width, height)

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) float64 camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera of the same view at another image size. Pixel centres, not corners, carry the coordinates."""
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return PinholeCamera(int(width), int(height), self.fx * sx, self.fy * sy, cx, cy)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) points in the camera frame, metres, to (N, 2) pixels (u, v) and (N,) depth z.

        Pixels of points at or behind the camera (z <= 0) are NaN.
        """
        z = points[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse_z = np.where(z > 0, 1.0 / z, np.nan).astype(points.dtype)
        u = points[..., 0] * inverse_z * self.fx + self.cx
        v = points[..., 1] * inverse_z * self.fy + self.cy
        return np.stack([u, v], axis=-1), z

    def back_project(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(..., 2) pixels (u, v) and (...) depth z in metres to (..., 3) points in the camera frame."""
        x = (pixels[..., 0] - self.cx) / self.fx * depth
        y = (pixels[..., 1] - self.cy) / self.fy * depth
        return np.stack([x, y, depth], axis=-1)

    def pixel_index(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest pixel of (N, 2) pixel coordinates: (rows, columns, inside), rows and columns 0 where outside."""
        with np.errstate(invalid="ignore"):
            inside = (
                (pixels[..., 0] >= -0.5)
                & (pixels[..., 0] < self.width - 0.5)
                & (pixels[..., 1] >= -0.5)
                & (pixels[..., 1] < self.height - 0.5)
            )
        nearest = np.floor(np.where(inside[..., None], pixels, 0.0) + 0.5).astype(np.int32)
        return nearest[..., 1], nearest[..., 0], inside
