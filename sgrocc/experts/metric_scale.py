"""The metric scale of a network's own depth, measured while it runs: by the floor, or by a sparse depth sensor.

The depth that a network reads from one image is wrong mostly by a common factor. All observations here are of that
factor, s = true depth / predicted depth, of the *raw* prediction, never of a corrected one: so what `MetricScale` does
to the predictions cannot feed back into it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from sgrocc.experts import Prediction
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M
from sgrocc.geometry import Pose
from sgrocc.labels import FLOOR, most_likely_class

#: Factors outside are no scale but a mistake.
MIN_SCALE, MAX_SCALE = 0.25, 4.0

#: A Gaussian is part of a surface where it lies this close to the depth in its pixel; those that guess at what is
#: hidden lie behind. Share of the depth.
_AT_SURFACE = 0.1
#: The floor must be this share of the surfaces. Fewer points than this say nothing, more are not looked at.
_FLOOR_SHARE, _FEWEST_POINTS, _MOST_POINTS = 0.05, 20, 1024
#: A lower camera sees the floor at angles too flat, metres.
_LOWEST_CAMERA_M = 0.1
#: Rays less far below the horizon are not used: an error of the camera's tilt grows with 1/tan of that angle.
_LEAST_ANGLE_RAD = np.radians(10.0)
#: Standard deviations of the camera's tilt and height over the floor, as tf tells them.
_TILT_SIGMA_RAD, _HEIGHT_SIGMA_M = np.radians(0.5), 0.01
#: Relative standard deviations that no number of points makes smaller: a network's error on the floor, or where a
#: sensor has an answer, is not that of the whole view.
_FLOOR_SIGMA, _SENSOR_SIGMA = 0.07, 0.02
#: Range in which sensor depth is compared, metres.
_NEAREST_M, _FURTHEST_M = 0.3, 5.0
#: Errors of a network's depth are alike within patches of this size (tangent of the angle): a patch counts once.
_PATCH, _FEWEST_PATCHES = 0.15, 6
#: Points are outliers beyond so many standard deviations; log ratios that scatter more than this say nothing, nor does
#: an observation with a larger standard deviation.
_OUTLIER, _WIDEST, _LEAST_SURE = 3.0, 0.3, 0.15


@dataclass(frozen=True)
class ScaleObservation:
    """What one frame says: scale = true depth / predicted depth; sigma: its relative standard deviation; shared_sigma:
    the part of that which may be the same in all frames, so that many are not better than one.
    """

    scale: float
    sigma: float
    shared_sigma: float = 0.0


def floor_points(prediction: Prediction) -> np.ndarray:
    """(N, 3) float32 metres, in the camera frame: where the raw prediction sees floor, N at most 1024. It is all that
    `from_floor_points` needs, for a camera pose that comes later than the frame.

    They are the depth's own points at Gaussians on a surface that are called floor. None where too little of the view
    is, and none of a prediction without classes: there nothing tells the floor from a table.
    """
    gaussians, camera = prediction.gaussians, prediction.camera
    pixels, z = camera.project(gaussians.means)
    rows, columns, inside = camera.pixel_index(pixels)
    depth = np.where(inside, prediction.depth[rows, columns], np.float32(0))
    with np.errstate(invalid="ignore"):
        surface = np.flatnonzero((depth > 0) & (depth < np.inf) & (np.abs(z - depth) <= _AT_SURFACE * depth))
    floor = surface[most_likely_class(gaussians.logits[surface]) == FLOOR]
    if not prediction.semantic or len(floor) < max(_FEWEST_POINTS, _FLOOR_SHARE * len(surface)):
        return np.zeros((0, 3), np.float32)
    floor = floor[_some_of(len(floor))]
    at = np.stack([columns[floor], rows[floor]], axis=-1).astype(np.float32)
    return camera.back_project(at, depth[floor]).astype(np.float32)


def from_floor(prediction: Prediction, camera_to_base: Pose) -> ScaleObservation | None:
    """The scale by the camera's height over the floor that a raw prediction sees; None where the frame says nothing.

    camera_to_base: pose of the camera (optical frame) in a frame with z up and the floor at z = 0.
    """
    return from_floor_points(floor_points(prediction), camera_to_base)


def from_floor_points(points: np.ndarray, camera_to_base: Pose) -> ScaleObservation | None:
    """As `from_floor`, of the points that `floor_points` kept.

    The scale is the camera's height over how far below the camera a point was predicted. None for a camera lower than
    0.1 m, for too few points at more than 10 degrees below the horizon, and where they scatter too much. What is not
    floor though it is called so, up to two fifths of the points, does no harm where it lies apart from the rest.
    """
    height_m = float(camera_to_base.translation[2])
    if height_m < _LOWEST_CAMERA_M:
        return None
    drop = -Pose(camera_to_base.rotation, np.zeros(3)).apply(points.astype(np.float64))[:, 2]
    with np.errstate(invalid="ignore"):
        angle = np.arcsin(drop / np.linalg.norm(points, axis=1))
        steep = angle >= _LEAST_ANGLE_RAD
    if not steep.any():
        return None
    tilt = _TILT_SIGMA_RAD / np.tan(np.median(angle[steep]))
    shared = np.sqrt(_FLOOR_SIGMA**2 + tilt**2 + (_HEIGHT_SIGMA_M / height_m) ** 2)
    logs = np.log(height_m / drop[steep])
    # All that is taken for the floor lies above it: outliers would pull the median of all to their side.
    return _observation(logs, _densest(logs), points[steep, :2] / points[steep, 2:], shared)


def from_sparse_depth(prediction: Prediction, sensed_depth: np.ndarray) -> ScaleObservation | None:
    """The scale by a depth sensor, of which a few pixels are enough; None where the frame says nothing.

    sensed_depth: (h, w) metres along z of any size, registered to the raw prediction's view; zero, negative and
    non-finite depth is invalid, and only 0.3 to 5 m are compared. Raises ValueError for depth that is no image.
    """
    if sensed_depth.ndim != 2 or not sensed_depth.size:
        raise ValueError(f"the depth image has shape {sensed_depth.shape}: it must be (height, width) in metres")
    camera = prediction.camera
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero((sensed_depth >= _NEAREST_M) & (sensed_depth <= _FURTHEST_M))
    some = _some_of(len(rows))
    rows, columns = rows[some], columns[some]
    sensed = sensed_depth[rows, columns]
    # From the sensor's pixels to the prediction's: the other way round, most of a sparse sensor's would be missed.
    rows, columns = (
        (2 * at + 1) * size // (2 * sensed_size)
        for at, size, sensed_size in zip((rows, columns), prediction.depth.shape, sensed_depth.shape)
    )
    predicted = prediction.depth[rows, columns]
    known = np.isfinite(predicted) & (predicted > 0)
    rays = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy], axis=-1)
    logs = np.log(sensed[known] / predicted[known])
    return _observation(logs, np.median(logs) if len(logs) else 0.0, rays[known], _SENSOR_SIGMA)


def _some_of(count: int) -> np.ndarray:
    """Indices of at most 1024 of so many points, evenly."""
    return np.arange(count) if count <= _MOST_POINTS else np.linspace(0, count - 1, _MOST_POINTS).astype(np.int64)


def _densest(values: np.ndarray) -> float:
    """The median of the half of (N,) values that lies closest together."""
    order = np.sort(values)
    half = len(order) // 2 + 1
    start = int(np.argmin(order[half - 1 :] - order[: len(order) - half + 1]))
    return float(np.median(order[start : start + half]))


def _observation(logs: np.ndarray, centre: float, rays: np.ndarray, shared_sigma: float) -> ScaleObservation | None:
    """The scale that most of (N,) logarithms of ratios agree on: their median, without those that lie further from it
    than their median absolute deviation suggests.

    centre: where the search begins; rays: (N, 2), x/z and y/z of the points; shared_sigma: the standard deviation of
    the error that all of them share.
    """
    if len(logs) < _FEWEST_POINTS:
        return None
    kept = np.ones(len(logs), bool)
    for _ in range(2):
        spread = max(1.4826 * float(np.median(np.abs(logs[kept] - centre))), 1e-3)
        kept = np.abs(logs - centre) <= _OUTLIER * spread
        centre = float(np.median(logs[kept]))
    patches = len(np.unique(np.floor(rays[kept] / _PATCH) @ (1.0, 1e4)))
    if 2 * kept.sum() < len(logs) or patches < _FEWEST_PATCHES or spread > _WIDEST:
        return None
    # The median of n normal numbers has the standard deviation sqrt(pi / 2n).
    sigma = float(np.hypot(shared_sigma, np.sqrt(0.5 * np.pi / patches) * spread))
    scale = float(np.exp(centre))
    if not MIN_SCALE <= scale <= MAX_SCALE or sigma > _LEAST_SURE:
        return None
    return ScaleObservation(scale, sigma, float(shared_sigma))


class MetricScale:
    """The scale over time: a Kalman filter of its logarithm, for one camera. Not thread-safe.

    A random walk between observations. One that lies more than three standard deviations off is not believed; when
    four of five of those in a row say the same, the filter starts anew from there. It begins like that, so that not
    even the first frame can mislead it: until then the scale is 1. Observations within a second share most of their
    error, as they are of the same view: each counts for the part of a second since the last one.
    """

    #: Before the first observation; the prior is off by up to a quarter.
    _FIRST_SIGMA = 0.25
    _GATE_SIGMAS = 3.0
    _ASKED, _AGREEING = 5, 4
    _CORRELATED_S = 1.0

    def __init__(self, drift: float = 0.02) -> None:
        """drift: standard deviation of the relative change of the scale within a second; within t it is sqrt(t)
        times that.
        """
        if not (np.isfinite(drift) and drift > 0):
            raise ValueError(f"the drift of the scale is {drift}: give a number above zero, such as 0.02 a second")
        self._drift = drift
        self.reset()

    def reset(self) -> None:
        """Forget what was observed: the scale is 1."""
        self._log, self._variance, self._shared_sigma = 0.0, self._FIRST_SIGMA**2, 0.0
        self._started = False
        self._predicted_s: float | None = None
        self._observed_s: float | None = None
        self._unlike: deque[tuple[float, float, float]] = deque(maxlen=self._ASKED)

    @property
    def value(self) -> float:
        """True depth over predicted depth, between 0.25 and 4."""
        return float(np.exp(self._log))

    @property
    def sigma(self) -> float:
        """The relative standard deviation of `value`; not less than what the observations share."""
        return max(float(np.sqrt(self._variance)), self._shared_sigma)

    def see(
        self,
        prediction: Prediction,
        sensed_depth: np.ndarray | None,
        camera_to_base: Pose | None,
        time_s: float,
    ) -> bool:
        """Observe a raw prediction, by the sensor where it says something and by the floor otherwise; returns whether
        the observation was believed. Where the pose comes later than the frame, keep its `floor_points` and `observe`
        what `from_floor_points` makes of them. time_s: of the image, seconds. Raises ValueError as `from_sparse_depth`.
        """
        observation = None
        if sensed_depth is not None:
            observation = from_sparse_depth(prediction, sensed_depth)
        if observation is None and camera_to_base is not None:
            observation = from_floor(prediction, camera_to_base)
        return self.observe(observation, time_s)

    def observe(self, observation: ScaleObservation | None, time_s: float) -> bool:
        """Take in what a frame said, or that it said nothing; returns whether it was believed.

        time_s: of the frame, seconds. A frame older than the last one counts little; after time has jumped back it
        goes on from there.
        """
        elapsed_s = 0.0 if self._predicted_s is None else max(0.0, time_s - self._predicted_s)
        self._predicted_s = time_s
        self._variance = min(self._variance + self._drift**2 * elapsed_s, self._FIRST_SIGMA**2)
        if observation is None:
            return False
        log, variance = float(np.log(observation.scale)), observation.sigma**2
        if not self._started or abs(log - self._log) > self._GATE_SIGMAS * np.sqrt(self._variance + variance):
            self._unlike.append((log, observation.sigma, observation.shared_sigma))
            return self._start_anew(time_s)
        since_s = self._CORRELATED_S if self._observed_s is None else time_s - self._observed_s
        gain = self._variance / (self._variance + variance * self._CORRELATED_S / np.clip(since_s, 1e-3, 1.0))
        self._log += gain * (log - self._log)
        self._variance *= 1 - gain
        self._observed_s, self._shared_sigma = time_s, observation.shared_sigma
        self._unlike.clear()
        return True

    def _start_anew(self, time_s: float) -> bool:
        """Begin with what the last observations agree on, if they do."""
        if len(self._unlike) < self._ASKED:
            return False
        logs, sigmas, shared_sigmas = np.array(self._unlike).T
        agree = np.abs(logs - np.median(logs)) <= self._GATE_SIGMAS * sigmas
        if agree.sum() < self._AGREEING:
            return False
        self._log, self._variance = float(np.median(logs[agree])), float(np.median(sigmas[agree])) ** 2
        self._shared_sigma = float(np.median(shared_sigmas[agree]))
        self._started, self._observed_s = True, time_s
        self._unlike.clear()
        return True

    def apply(self, prediction: Prediction) -> Prediction:
        """A raw prediction with the scale corrected: depth, means and scales times `value`, the scales within their
        bounds, and the constant part of depth_sigma_m too: the same share of the depth stays uncertain.
        """
        value = np.float32(self.value)
        gaussians = prediction.gaussians
        constant_m, factor = prediction.depth_sigma_m
        return replace(
            prediction,
            depth=prediction.depth * value,
            gaussians=replace(
                gaussians,
                means=gaussians.means * value,
                scales=np.clip(gaussians.scales * value, MIN_SCALE_M, MAX_SCALE_M),
            ),
            depth_sigma_m=(constant_m * self.value, factor),
        )
