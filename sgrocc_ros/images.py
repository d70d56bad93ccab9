"""Images, depth, masks and camera_info to numpy and back, and to a Frame without lens distortion.

The decoders read fields only, so they take the messages of rclpy and of rosbags alike; the encoders make rclpy
messages. Decoded arrays may share the message's memory. What a message lacks or breaks raises BadMessage.
"""

from __future__ import annotations

import io
import math
import re
from array import array
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from sgrocc.experts import Frame
from sgrocc.geometry import PinholeCamera
from sgrocc_ros.messages import BadMessage

#: The longest side of an image that is believed, in pixels.
MAX_IMAGE_SIDE = 16384
#: The most pixels that a compressed image may unfold to: 8192 x 4096.
MAX_COMPRESSED_PIXELS = 2**25
#: Distortion coefficients below this move no pixel by a visible amount.
DISTORTION_TOLERANCE = 1e-6
#: model of camera_info: how many coefficients it may have. The last two are one model, OpenCV's fisheye.
DISTORTION_MODELS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
}
FISHEYE_MODELS = ("equidistant", "fisheye")
#: So many rectifications are kept: colour, depth and mask of four cameras may each have a size of their own.
KEPT_RECTIFICATIONS = 12

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
#: compressed_depth_image_transport puts this before the PNG: an int32, then the two float32 of the quantisation.
DEPTH_HEADER_BYTES = 12

#: encoding: (bytes per channel, channels in the message, which of them are red, green and blue).
#: The names without an order of colours (8UC3, 8UC4) are OpenCV's: blue first.
IMAGE_ENCODINGS = {
    "rgb8": (1, 3, (0, 1, 2)),
    "bgr8": (1, 3, (2, 1, 0)),
    "8UC3": (1, 3, (2, 1, 0)),
    "rgba8": (1, 4, (0, 1, 2)),
    "bgra8": (1, 4, (2, 1, 0)),
    "8UC4": (1, 4, (2, 1, 0)),
    "mono8": (1, 1, (0, 0, 0)),
    "8UC1": (1, 1, (0, 0, 0)),
    "rgb16": (2, 3, (0, 1, 2)),
    "bgr16": (2, 3, (2, 1, 0)),
    "mono16": (2, 1, (0, 0, 0)),
}

#: encoding: (numpy type without byte order, units per metre).
DEPTH_ENCODINGS = {"16UC1": ("u2", 1000), "mono16": ("u2", 1000), "32FC1": ("f4", 1)}
MASK_ENCODINGS = {**IMAGE_ENCODINGS, "16UC1": IMAGE_ENCODINGS["mono16"]}


def decode_image(msg: Image | CompressedImage, decoder: str = "auto") -> np.ndarray:
    """A sensor_msgs/Image, or a CompressedImage (JPEG, PNG), as (H, W, 3) uint8 RGB; 16-bit channels are scaled to 8.

    decoder: "numpy" for the encodings of IMAGE_ENCODINGS, "cv_bridge" for all that it converts, "auto" for numpy where
    it can and cv_bridge for the rest; compressed images are read by Pillow. Raises BadMessage: bad_image_size,
    bad_encoding, bad_compressed, truncated_image, no_cv_bridge.
    """
    if decoder not in ("auto", "numpy", "cv_bridge"):
        raise ValueError(f"there is no image decoder {decoder!r}: use auto, numpy or cv_bridge")
    if _is_compressed(msg):
        return _decompress_image(msg)
    _check_size(msg.width, msg.height)
    if decoder == "cv_bridge" or (decoder == "auto" and msg.encoding not in IMAGE_ENCODINGS):
        return _decode_with_cv_bridge(msg)
    if msg.encoding not in IMAGE_ENCODINGS:
        raise BadMessage(
            "bad_encoding",
            f"image encoding {msg.encoding!r} is not decoded by numpy: set the camera driver to rgb8, bgr8 or mono8, "
            "or the parameter image_decoder to auto with cv_bridge installed",
        )
    size, channels, order = IMAGE_ENCODINGS[msg.encoding]
    image = _rows(msg, f"u{size}", channels).reshape(msg.height, msg.width, channels)
    if size == 2:
        image = _to_eight_bits(image)
    if order == (0, 1, 2) and channels == 3:
        return image
    # Channel by channel: a third of the time of reversing the last axis.
    rgb = np.empty((msg.height, msg.width, 3), np.uint8)
    for channel, source in enumerate(order):
        rgb[..., channel] = image[..., source]
    return rgb


def decode_depth(msg: Image | CompressedImage) -> np.ndarray:
    """A depth image as (h, w) float32 metres, 0 where invalid (REP-117: NaN, infinite; and negative).

    16UC1 and mono16 are millimetres, 32FC1 metres. A CompressedImage holds a PNG of 16 bits, plain or as
    compressed_depth_image_transport makes it ("compressedDepth png"). Raises BadMessage: bad_image_size, bad_depth,
    bad_compressed, truncated_image.
    """
    if _is_compressed(msg):
        return _decompress_depth(msg)
    _check_size(msg.width, msg.height)
    if msg.encoding not in DEPTH_ENCODINGS:
        raise BadMessage(
            "bad_depth",
            f"depth encoding {msg.encoding!r} is not known: publish 16UC1 (millimetres) or 32FC1 (metres)",
        )
    kind, units_per_metre = DEPTH_ENCODINGS[msg.encoding]
    return _valid_depth(_rows(msg, kind, 1).astype(np.float32)) / np.float32(units_per_metre)


def decode_mask(msg: Image | CompressedImage) -> np.ndarray:
    """A mask as (h, w) bool, True where any colour of the pixel is not zero: keep that out of the map.

    Takes the encodings of IMAGE_ENCODINGS, 16UC1, and a CompressedImage that holds a PNG. Raises BadMessage (bad_mask).
    """
    try:
        if _is_compressed(msg):
            return _decompress_mask(msg)
        _check_size(msg.width, msg.height)
        if msg.encoding not in MASK_ENCODINGS:
            raise BadMessage("bad_encoding", f"its encoding is {msg.encoding!r}: publish mono8")
        size, channels, colours = MASK_ENCODINGS[msg.encoding]
        pixels = _rows(msg, f"u{size}", channels).reshape(msg.height, msg.width, channels)
        return np.logical_or.reduce([pixels[..., channel] != 0 for channel in set(colours)])
    except BadMessage as error:
        raise BadMessage("bad_mask", f"the mask cannot be used: {error}") from error


def depth_message(header: Header, depth: np.ndarray) -> Image:
    """(h, w) float32 metres as 32FC1; 0 (unknown) is sent as NaN, since viewers take 0 for a point at the lens."""
    return float_image(header, np.where(depth > 0, depth, np.nan))


def float_image(header: Header, values: np.ndarray) -> Image:
    """(h, w) numbers as 32FC1."""
    height, width = values.shape
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=0,
        step=4 * width,
        data=array("B", np.ascontiguousarray(values, "<f4").tobytes()),
    )


def camera_of(info: CameraInfo, image_width: int, image_height: int, rectified: bool = False) -> PinholeCamera:
    """The camera of an image of the given size; raises BadMessage (bad_camera_info) where it has no calibration.

    rectified: the image went through rectification, so that the left part of P is its matrix, and not K.
    """
    roi = info.roi
    try:
        return PinholeCamera.from_calibration(
            np.asarray(info.p, np.float64).reshape(3, 4)[:, :3] if rectified else info.k,
            (int(info.width), int(info.height)),
            (int(image_width), int(image_height)),
            (int(info.binning_x), int(info.binning_y)),
            (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
        )
    except ValueError as error:
        raise BadMessage("bad_camera_info", f"camera_info cannot be used: {error}") from error


def has_distortion(info: CameraInfo) -> bool:
    """Whether the image must be rectified first; that of a fisheye lens must, whatever its coefficients."""
    # Written so that NaN counts as distortion.
    undistorted = (np.abs(np.asarray(info.d, np.float64)) <= DISTORTION_TOLERANCE).all()
    return info.distortion_model in FISHEYE_MODELS or not undistorted


def camera_info_message(header: Header, camera: PinholeCamera) -> CameraInfo:
    """The calibration of an undistorted image."""
    k = camera.matrix
    return CameraInfo(
        header=header,
        height=int(camera.height),
        width=int(camera.width),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.reshape(-1).tolist(),
        r=np.eye(3).reshape(-1).tolist(),
        p=np.pad(k, ((0, 0), (0, 1))).reshape(-1).tolist(),
    )


class Rectification:
    """Takes the lens distortion out of images of one size: they become those of the pinhole `camera`.

    camera: the pinhole part of the calibration, at the size of the images (see `camera_of`); model and coefficients:
    `distortion_model` and `d` of camera_info (its `r` is not applied: the frame stays the camera's own). Raises
    BadMessage: bad_distortion, no_opencv.

    outside: (h, w) bool, True where the undistorted image shows what the original does not.
    """

    def __init__(self, model: str, coefficients: tuple[float, ...], camera: PinholeCamera) -> None:
        counts = DISTORTION_MODELS.get(model)
        if counts is None:
            raise BadMessage(
                "bad_distortion",
                f"distortion model {model[:60]!r} is not known: publish {', '.join(DISTORTION_MODELS)}, or use the "
                "rectified image of image_proc and set image_is_rectified",
            )
        if len(coefficients) not in counts:
            raise BadMessage(
                "bad_distortion",
                f"distortion model {model} has {len(coefficients)} coefficients instead of "
                f"{' or '.join(map(str, counts))}: calibrate the camera and publish its camera_info",
            )
        if not np.isfinite(coefficients).all():
            raise BadMessage(
                "bad_distortion",
                "the distortion of camera_info holds NaN or infinity: calibrate the camera and publish its camera_info",
            )
        self.camera = camera
        self._cv2 = opencv(
            "lens distortion is undone", ", or use the rectified image of image_proc and set image_is_rectified"
        )
        try:
            with np.errstate(all="ignore"):
                self._make_maps(model, np.array(coefficients, np.float64))
        except (self._cv2.error, MemoryError) as error:
            raise BadMessage(
                "bad_distortion", f"OpenCV cannot undo the distortion of camera_info ({error}): calibrate the camera"
            ) from error
        if self.outside.all():
            raise BadMessage(
                "bad_distortion",
                "the distortion of camera_info leaves no pixel of the image: calibrate the camera again",
            )

    def colour(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8, interpolated; black outside."""
        return self._cv2.remap(image, *self._between, self._cv2.INTER_LINEAR)

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """(h, w) float32 metres, each that of one pixel, since a mean of two lies on neither; 0 outside."""
        return self._cv2.remap(depth, *self._nearest, self._cv2.INTER_NEAREST)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """(h, w) bool; True outside."""
        return self._cv2.remap(mask.view(np.uint8), *self._nearest, self._cv2.INTER_NEAREST, borderValue=1).view(bool)

    def _make_maps(self, model: str, coefficients: np.ndarray) -> None:
        cv2, camera = self._cv2, self.camera
        k, size = camera.matrix, (camera.width, camera.height)
        if model in FISHEYE_MODELS:
            u, v = cv2.fisheye.initUndistortRectifyMap(k, coefficients, np.eye(3), k, size, cv2.CV_32FC1)
        else:
            u, v = cv2.initUndistortRectifyMap(k, coefficients, None, k, size, cv2.CV_32FC1)
        inside = (u >= -0.5) & (u < camera.width - 0.5) & (v >= -0.5) & (v < camera.height - 0.5)
        # Beyond the radius where the polynomial turns round it shows the image a second time, mirrored.
        x = (np.arange(camera.width) - camera.cx) / camera.fx
        y = (np.arange(camera.height) - camera.cy) / camera.fy
        radius = np.hypot(x, y[:, None])
        inside &= radius < self._largest_radius(model, coefficients, float(radius.max()))
        # The border pixels reach half a pixel further than their centres; -2 is outside for every interpolation.
        u = np.where(inside, np.clip(u, 0, camera.width - 1), np.float32(-2))
        v = np.where(inside, np.clip(v, 0, camera.height - 1), np.float32(-2))
        self.outside = ~inside
        self._between = cv2.convertMaps(u, v, cv2.CV_16SC2)
        self._nearest = cv2.convertMaps(u, v, cv2.CV_16SC2, nninterpolation=True)

    def _largest_radius(self, model: str, coefficients: np.ndarray, limit: float) -> float:
        """Up to which distance from the optical axis, at depth 1, the lens maps further out what lies further out;
        infinite where that holds up to `limit`.
        """
        cv2 = self._cv2
        radii = np.linspace(0.0, limit, 2048)
        points = np.stack([radii, np.zeros_like(radii), np.ones_like(radii)], axis=1)[:, None]
        none = np.zeros(3)
        if model in FISHEYE_MODELS:
            seen, _ = cv2.fisheye.projectPoints(points, none, none, np.eye(3), coefficients)
        else:
            radial = coefficients.copy()
            radial[2:4] = radial[8:] = 0.0  # without the tangential, the thin-prism and the tilt terms
            seen, _ = cv2.projectPoints(points, none, none, np.eye(3), radial)
        rising = np.diff(seen[:, 0, 0]) > 0
        return math.inf if rising.all() else float(radii[np.argmin(rising)])


class FrameDecoder:
    """Messages to a Frame, the same way in the nodes and offline.

    values: the parameters image_decoder, image_is_rectified and distortion are read; say: is told once, in one
    sentence, of distortion that is ignored. The maps of a rectification are kept until the calibration changes.
    """

    def __init__(
        self, values: Mapping[str, bool | int | float | str], say: Callable[[str], None] | None = None
    ) -> None:
        self._values = values
        self._say = say
        self._rectification = lru_cache(KEPT_RECTIFICATIONS)(Rectification)

    def frame(
        self,
        image: Image | CompressedImage,
        camera_info: CameraInfo,
        depth: Image | CompressedImage | None = None,
        mask: Image | CompressedImage | None = None,
    ) -> Frame:
        """The frame of messages that belong together; depth and mask show the image's view, at any size.

        A rectified frame has a mask, if need be one of its own: of what the undistorted image shows and the original
        does not. Raises BadMessage: those of decode_image, decode_depth, decode_mask, camera_of and Rectification,
        and `distorted` where the parameter distortion is "refuse".
        """
        rgb = decode_image(image, self._values["image_decoder"])
        camera = camera_of(camera_info, rgb.shape[1], rgb.shape[0], self._values["image_is_rectified"])
        metres = None if depth is None else decode_depth(depth)
        covered = None if mask is None else decode_mask(mask)
        if not self._must_rectify(camera_info):
            return Frame(rgb, camera, metres, covered)
        rectification = self._of(camera_info, rgb)
        if covered is not None:
            covered = self._of(camera_info, covered).mask(covered)
        elif rectification.outside.any():
            covered = rectification.outside
        if metres is not None:
            metres = self._of(camera_info, metres).depth(metres)
        return Frame(rectification.colour(rgb), camera, metres, covered)

    def _must_rectify(self, info: CameraInfo) -> bool:
        if self._values["image_is_rectified"] or not has_distortion(info):
            return False
        choice = self._values["distortion"]
        if choice == "refuse":
            raise BadMessage(
                "distorted",
                "camera_info has lens distortion: set the parameter distortion to rectify, or use the rectified image "
                "of image_proc and set image_is_rectified",
            )
        if choice == "ignore" and self._say is not None:
            self._say("camera_info has lens distortion, which is ignored: set the parameter distortion to rectify")
            self._say = None
        return choice == "rectify"

    def _of(self, info: CameraInfo, pixels: np.ndarray) -> Rectification:
        camera = camera_of(info, pixels.shape[1], pixels.shape[0])
        return self._rectification(info.distortion_model, tuple(np.asarray(info.d, np.float64).tolist()), camera)


def _check_size(width: int, height: int) -> None:
    if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
        raise BadMessage(
            "bad_image_size",
            f"the image is {width} x {height} pixels and not 1 to {MAX_IMAGE_SIDE} a side: check the camera driver",
        )


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint16 to the nearest of uint8; 65535 is 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _valid_depth(depth: np.ndarray) -> np.ndarray:
    """float32 with 0 in the place of all that is no distance."""
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _rows(msg: Image, kind: str, channels: int) -> np.ndarray:
    """(H, W * channels) in native byte order, without the padding of the rows; raises BadMessage (truncated_image)."""
    row_bytes = msg.width * channels * np.dtype(kind).itemsize
    if msg.step < row_bytes:
        raise BadMessage(
            "truncated_image",
            f"the image says {msg.step} bytes a row where {msg.width} pixels of {msg.encoding} need {row_bytes}: "
            "mend the step or the encoding in the camera driver",
        )
    data = np.frombuffer(msg.data, np.uint8)
    if len(data) < msg.height * msg.step:
        raise BadMessage(
            "truncated_image",
            f"the image holds {len(data)} bytes where {msg.height} rows of {msg.step} need {msg.height * msg.step}: "
            "mend the camera driver, or the transport that cuts it",
        )
    rows = data[: msg.height * msg.step].reshape(msg.height, msg.step)[:, :row_bytes]
    source = np.dtype(kind).newbyteorder(">" if msg.is_bigendian else "<")
    return np.ascontiguousarray(rows).view(source).astype(kind, copy=False)


def _decode_with_cv_bridge(msg: Image) -> np.ndarray:
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise BadMessage(
            "no_cv_bridge",
            f"image encoding {msg.encoding!r} needs cv_bridge, which is not installed: set the camera driver to rgb8, "
            "bgr8 or mono8, or install ros-$ROS_DISTRO-cv-bridge",
        ) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, "rgb8"), np.uint8)
    except Exception as error:  # cv_bridge passes on OpenCV's and numpy's errors as well as its own
        raise BadMessage(
            "bad_encoding",
            f"cv_bridge cannot turn image encoding {msg.encoding!r} into rgb8 ({error}): set the camera driver to rgb8",
        ) from error


def _is_compressed(msg: Image | CompressedImage) -> bool:
    return not hasattr(msg, "encoding")


def _decompress(msg: CompressedImage, skipped_bytes: int = 0) -> np.ndarray:
    """(H, W) uint16 of a PNG of 16-bit grey, (H, W, 3) uint8 RGB of everything else."""
    data = memoryview(msg.data)[skipped_bytes:]
    try:
        # As the sensor saw it: a turn that EXIF asks for would not be in camera_info.
        picture = PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except Exception as error:  # Pillow passes on what its readers of broken headers raise
        raise BadMessage(
            "bad_compressed",
            f"the compressed image, {len(data)} bytes of format {msg.format[:60]!r}, is neither JPEG nor PNG: set the "
            "publisher's format to jpeg or png, or look for what cuts its messages",
        ) from error
    _check_size(*picture.size)
    if math.prod(picture.size) > MAX_COMPRESSED_PIXELS:
        raise _too_large("{} x {} pixels".format(*picture.size))
    try:
        if picture.mode in ("I;16", "I;16B", "I"):  # an older Pillow calls it I
            return np.asarray(picture).astype(np.uint16)
        return np.asarray(picture.convert("RGB"))
    except Exception as error:
        raise BadMessage(
            "truncated_image",
            f"the compressed image of {len(data)} bytes is cut or damaged ({error}): mend the publisher, or the "
            "transport that cuts it",
        ) from error


def _too_large(what: str) -> BadMessage:
    return BadMessage(
        "bad_image_size",
        f"the compressed image unfolds to more than {MAX_COMPRESSED_PIXELS} pixels ({what}): check who publishes it",
    )


def _decompress_image(msg: CompressedImage) -> np.ndarray:
    if msg.format.startswith("bayer"):
        raise BadMessage(
            "bad_encoding",
            f"compressed image format {msg.format[:60]!r} is a Bayer pattern: compress the colour image of image_proc",
        )
    pixels = _decompress(msg)
    if pixels.ndim == 2:
        return np.repeat(_to_eight_bits(pixels)[..., None], 3, axis=2)
    # image_transport's word for blue in the place of red.
    return np.ascontiguousarray(pixels[..., ::-1]) if re.search(r"compressed +rgb", msg.format) else pixels


def _decompress_depth(msg: CompressedImage) -> np.ndarray:
    if "rvl" in msg.format:
        raise BadMessage(
            "bad_depth",
            f"compressed depth format {msg.format[:60]!r} is not read: set the parameter compressedDepth.format of the "
            "camera driver, or of the republisher, to png",
        )
    header = bytes(memoryview(msg.data)[:DEPTH_HEADER_BYTES])
    has_header = bytes(memoryview(msg.data)[DEPTH_HEADER_BYTES:][: len(PNG_START)]) == PNG_START
    values = _decompress(msg, DEPTH_HEADER_BYTES if has_header else 0)
    if values.ndim != 2:
        raise BadMessage(
            "bad_depth",
            f"compressed depth format {msg.format[:60]!r} holds no PNG of 16 bits: publish compressedDepth with png",
        )
    if not msg.format.startswith("32FC1"):
        return values.astype(np.float32) / np.float32(DEPTH_ENCODINGS["16UC1"][1])
    a, b = np.frombuffer(header, "<f4", 2, 4) if has_header else (np.nan, np.nan)
    if not (np.isfinite(a) and np.isfinite(b)):
        raise BadMessage(
            "bad_depth",
            "compressed depth of 32FC1 comes without its quantisation: publish compressed_depth_image_transport's",
        )
    with np.errstate(all="ignore"):
        depth = a / (values.astype(np.float32) - b)
    return _valid_depth(np.where(values > 0, depth, np.float32(0)))


def _decompress_mask(msg: CompressedImage) -> np.ndarray:
    data = bytes(memoryview(msg.data)[:25])
    if data.startswith(JPEG_START):
        raise BadMessage("bad_compressed", "JPEG blurs its edges: publish a PNG, or mono8")
    pixels = _decompress(msg)
    if pixels.ndim == 2:
        return pixels != 0
    if data[24] == 16:  # the bits of a channel; Pillow drops the lower eight
        raise BadMessage("bad_encoding", "it is a PNG of 16-bit colours: publish a PNG of one channel, or mono8")
    return pixels.any(axis=2)


def opencv(what: str, instead: str = ""):
    """The module cv2, whose import takes longer than a frame. Raises BadMessage (no_opencv) where it is not installed.

    what: is done with it; instead: what helps as well; both parts of the sentence.
    """
    try:
        import cv2
    except ImportError as error:
        raise BadMessage(
            "no_opencv",
            f"{what} with OpenCV, which cannot be imported ({error}): pip install opencv-python-headless, or apt "
            f"install python3-opencv{instead}",
        ) from error
    return cv2
