"""Images, depth, masks and camera_info to numpy and back, and lens distortion against formulas written here."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from array import array
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2")
pytest.importorskip("rosbags.typesys", reason="needs rosbags")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV")

from scenes import CAMERA, FUZZ, ROOM, ROOM_FRAMES, depth_of_boxes, pose_at, write_room  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest  # noqa: E402
from test_messages import BOTH, HEADER, SIZES, damaged, refused  # noqa: E402

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence  # noqa: E402
from sgrocc.geometry import PinholeCamera  # noqa: E402
from sgrocc_ros import images, messages, parameters, record_sequence  # noqa: E402
from sgrocc_ros.bag import BagReader, BagWriter  # noqa: E402
from sgrocc_ros.description import Inputs  # noqa: E402
from sgrocc_ros.evaluate_bag import evaluate, fuse_bag  # noqa: E402
from sgrocc_ros.images import FrameDecoder, Rectification  # noqa: E402
from sgrocc_ros.messages import BadMessage  # noqa: E402


def image_message(encoding: str, pixels: np.ndarray, padding: int = 0, big_endian: bool = False) -> Image:
    """`pixels` (H, W) or (H, W, C) as a message; the padding of the rows is filled with junk."""
    height, width = pixels.shape[:2]
    ordered = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(ordered.tobytes(), np.uint8).reshape(height, -1)
    rows = np.concatenate([rows, np.full((height, padding), 0xA5, np.uint8)], axis=1)
    return Image(
        header=HEADER,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


# -- images --------------------------------------------------------------------------------------------------------


def encoded(encoding: str, rgb: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """(pixels of the message, RGB that must come back) of a random source."""
    alpha = rng.integers(0, 256, (*rgb.shape[:2], 1), np.uint8)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    wide = rgb.astype(np.uint16) * 257
    return {
        "rgb8": (rgb, rgb),
        "bgr8": (rgb[..., ::-1], rgb),
        "8UC3": (rgb[..., ::-1], rgb),
        "rgba8": (np.concatenate([rgb, alpha], axis=2), rgb),
        "bgra8": (np.concatenate([rgb[..., ::-1], alpha], axis=2), rgb),
        "8UC4": (np.concatenate([rgb[..., ::-1], alpha], axis=2), rgb),
        "mono8": (rgb[..., 0], grey),
        "8UC1": (rgb[..., 0], grey),
        "rgb16": (wide, rgb),
        "bgr16": (wide[..., ::-1], rgb),
        "mono16": (wide[..., 0], grey),
    }[encoding]


@BOTH
@pytest.mark.parametrize("encoding", images.IMAGE_ENCODINGS)
def test_images_come_back_exactly(encoding, read):
    rng = np.random.default_rng(list(encoding.encode()))
    for big_endian in (False, True):
        for padding in (0, 1, 2, 7, 64):
            height, width = rng.integers(1, 40, 2)
            rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
            pixels, expected = encoded(encoding, rgb, rng)
            decoded = images.decode_image(read(image_message(encoding, pixels, padding, big_endian)))
            assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
            np.testing.assert_array_equal(decoded, expected)


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = images.decode_image(image_message("mono16", values))
    np.testing.assert_array_equal(decoded[..., 1], np.rint(values / 257).astype(np.uint8))


def test_bytes_after_the_last_row_are_no_harm():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    msg = image_message("mono8", pixels)
    msg.data.extend([9, 9, 9])
    np.testing.assert_array_equal(images.decode_image(msg)[..., 0], pixels)


@BOTH
def test_broken_images_are_refused(read):
    good = image_message("rgb8", np.zeros((6, 8, 3), np.uint8), padding=4)

    def broken(**changes):
        msg = image_message("rgb8", np.zeros((6, 8, 3), np.uint8), padding=4)
        for name, value in changes.items():
            setattr(msg, name, value)
        return read(msg)

    with refused("truncated_image", "23 bytes a row where 8 pixels of rgb8 need 24"):
        images.decode_image(broken(step=23))
    with refused("truncated_image", "0 bytes a row"):
        images.decode_image(broken(step=0))
    with refused("truncated_image", "holds 167 bytes where 6 rows of 28 need 168"):
        images.decode_image(broken(data=good.data[:-1]))
    with refused("truncated_image", "holds 0 bytes"):
        images.decode_image(broken(data=array("B")))
    with refused("bad_image_size", "8 x 0 pixels"):
        images.decode_image(broken(height=0))
    with refused("bad_image_size", "0 x 6 pixels"):
        images.decode_image(broken(width=0))
    with refused("bad_image_size", "4294967295 x 6 pixels"):
        images.decode_image(broken(width=2**32 - 1))
    for encoding in ("", "16UC1", "32FC1", "bayer_rggb8", "yuv422"):
        with refused("bad_encoding", f"encoding '{encoding}' .* set the camera driver to rgb8"):
            images.decode_image(broken(encoding=encoding), "numpy")
    with pytest.raises(ValueError, match="use auto, numpy or cv_bridge"):
        images.decode_image(good, "opencv")


def test_cv_bridge_is_asked_only_for_what_numpy_does_not_cover(monkeypatch):
    asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, msg, desired_encoding):
            asked.append((msg.encoding, desired_encoding))
            if msg.encoding == "nonsense":
                raise RuntimeError("unrecognised")
            return np.full((msg.height, msg.width, 3), 77, np.uint8)

    monkeypatch.setitem(sys.modules, "cv_bridge", ModuleType("cv_bridge"))
    sys.modules["cv_bridge"].CvBridge = CvBridge
    pixels = np.full((2, 3), 5, np.uint8)
    assert (images.decode_image(image_message("mono8", pixels)) == 5).all() and not asked
    assert (images.decode_image(image_message("bayer_rggb8", pixels)) == 77).all()
    assert (images.decode_image(image_message("mono8", pixels), "cv_bridge") == 77).all()
    assert asked == [("bayer_rggb8", "rgb8"), ("mono8", "rgb8")]
    with refused("bad_encoding", r"cv_bridge cannot turn image encoding 'nonsense' into rgb8 \(unrecognised\)"):
        images.decode_image(image_message("nonsense", pixels))


def test_a_missing_cv_bridge_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    for encoding, decoder in (("bayer_rggb8", "auto"), ("rgb8", "cv_bridge")):
        with refused("no_cv_bridge", f"'{encoding}' needs cv_bridge, which is not installed: .* install"):
            images.decode_image(image_message(encoding, np.zeros((2, 3, 3), np.uint8)), decoder)


# -- depth ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 3, 32])
def test_depth_comes_back_in_metres(padding, big_endian, read):
    rng = np.random.default_rng(padding)
    metres = rng.uniform(0.1, 10, (5, 7)).astype(np.float32)
    metres[0, :5] = np.nan, np.inf, -np.inf, -1.0, 0.0
    expected = metres.copy()
    expected[0, :5] = 0
    decoded = images.decode_depth(read(image_message("32FC1", metres, padding, big_endian)))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected)
    millimetres = rng.integers(0, 65536, (4, 9)).astype(np.uint16)
    millimetres[0, 0], millimetres[0, 1] = 0, 1234
    for encoding in ("16UC1", "mono16"):
        decoded = images.decode_depth(read(image_message(encoding, millimetres, padding, big_endian)))
        assert decoded.dtype == np.float32 and decoded[0, 0] == 0 and decoded[0, 1] == np.float32(1.234)
        np.testing.assert_array_equal(decoded, (millimetres / 1000).astype(np.float32))


@BOTH
def test_broken_depth_is_refused(read):
    depth = np.ones((4, 6), np.float32)
    with refused("bad_depth", "encoding 'rgb8' is not known: publish 16UC1"):
        images.decode_depth(read(image_message("rgb8", np.ones((4, 6, 3), np.uint8))))
    msg = image_message("32FC1", depth)
    msg.step = 12  # as if it were 16UC1
    with refused("truncated_image", "12 bytes a row where 6 pixels of 32FC1 need 24"):
        images.decode_depth(read(msg))
    msg = image_message("32FC1", depth)
    msg.height = 5
    with refused("truncated_image", "holds 96 bytes where 5 rows"):
        images.decode_depth(read(msg))
    msg.height = 0
    with refused("bad_image_size", "6 x 0"):
        images.decode_depth(read(msg))


@BOTH
def test_our_depth_is_read_again_and_unknown_is_nan(read):
    depth = np.random.default_rng(3).uniform(0.3, 4, (6, 5)).astype(np.float32)
    depth[2, 3] = 0
    msg = images.depth_message(HEADER, depth)
    assert (msg.encoding, msg.height, msg.width, msg.step) == ("32FC1", 6, 5, 20) and msg.header == HEADER
    sent = np.frombuffer(msg.data, "<f4").reshape(6, 5)
    assert np.isnan(sent[2, 3]) and np.isnan(sent).sum() == 1
    np.testing.assert_array_equal(images.decode_depth(read(msg)), depth)


# -- compressed images ---------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(5).integers(0, 256, (9, 14, 3), np.uint8)
MILLIMETRES = np.random.default_rng(6).integers(0, 65536, (9, 14)).astype(np.uint16)


def compressed(form: str, data: bytes) -> CompressedImage:
    return CompressedImage(header=HEADER, format=form, data=array("B", data))


def file_of(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """A PNG or JPEG of RGB, grey or 16-bit grey pixels, by Pillow."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes | None) -> bytes:
    """A PNG by hand; without `rows` it has no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    if rows is not None:
        parts.append(chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@BOTH
@pytest.mark.parametrize("form", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", "rgba8; png", ""])
def test_compressed_images_come_back_exactly(form, read):
    for data in (file_of(NOISE), cv2.imencode(".png", NOISE[..., ::-1])[1].tobytes()):
        decoded = images.decode_image(read(compressed(form, data)))
        assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, NOISE)


@pytest.mark.parametrize("form", ["jpeg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8"])
def test_a_jpeg_keeps_its_colours(form):
    rows, columns = np.mgrid[0:48, 0:64]
    smooth = np.stack([4 * columns, 5 * rows, 255 - 4 * columns], axis=2).astype(np.uint8)
    for data in (file_of(smooth, "JPEG", quality=95), cv2.imencode(".jpg", smooth[..., ::-1])[1].tobytes()):
        decoded = images.decode_image(compressed(form, data), "numpy")
        assert np.abs(decoded.astype(int) - smooth).max() < 12


def test_other_kinds_of_png_and_jpeg():
    grey, alpha = NOISE[..., 0], NOISE[..., 1:2]
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(images.decode_image(compressed("mono8; png compressed ", file_of(grey))), as_rgb)
    transparent = compressed("rgba8; png compressed bgr8", file_of(np.concatenate([NOISE, alpha], axis=2)))
    np.testing.assert_array_equal(images.decode_image(transparent), NOISE)
    wide = images.decode_image(compressed("mono16; png compressed ", file_of(MILLIMETRES)))
    np.testing.assert_array_equal(wide[..., 2], np.rint(MILLIMETRES / 257).astype(np.uint8))
    flat = np.full((16, 16), 99, np.uint8)
    assert (images.decode_image(compressed("mono8; jpeg compressed mono8", file_of(flat, "JPEG"))) == 99).all()
    # The few publishers that hand RGB to an encoder of BGR say so, and image_transport believes them.
    swapped = compressed("rgb8; png compressed rgb8", file_of(np.ascontiguousarray(NOISE[..., ::-1])))
    np.testing.assert_array_equal(images.decode_image(swapped), NOISE)


@BOTH
def test_broken_compressed_images_are_refused(read):
    def decode(form: str, data: bytes):
        return images.decode_image(read(compressed(form, data)))

    for data in (b"", b"\0\0\0\0", b"Not Found: there is no such camera", file_of(NOISE)[8:], file_of(NOISE, "TIFF")):
        with refused("bad_compressed", f"{len(data)} bytes of format 'jpeg', is neither JPEG nor PNG: set the publ"):
            decode("jpeg", data)
    big = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    for kind in ("PNG", "JPEG"):
        whole = file_of(big, kind)
        for length in (len(whole) // 2, len(whole) * 9 // 10):
            with refused("truncated_image", f"of {length} bytes is cut or damaged"):
                decode(kind.lower(), whole[:length])
    damaged_png = bytearray(file_of(big))
    damaged_png[len(damaged_png) // 2] ^= 0xFF
    with refused("truncated_image", "cut or damaged"):
        decode("png", bytes(damaged_png))
    with refused("bad_encoding", "'bayer_rggb8; png compressed ' is a Bayer pattern: compress the colour image"):
        decode("bayer_rggb8; png compressed ", file_of(NOISE[..., 0]))
    with pytest.raises(ValueError, match="use auto, numpy or cv_bridge"):
        images.decode_image(compressed("png", file_of(NOISE)), "opencv")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "size, words",
    [
        ((16385, 1), "16385 x 1 pixels and not 1 to 16384 a side"),
        ((1, 2**31 - 1), f"more than {2**25} pixels|not 1 to 16384"),
        ((8192, 4097), f"more than {2**25} pixels .8192 x 4097 pixels.: check who publishes it"),
        ((16384, 16384), f"more than {2**25} pixels"),
    ],
)
def test_what_unfolds_to_too_much_is_refused_before_its_pixels_are_read(size, words):
    for decode in (images.decode_image, images.decode_depth):
        with refused("bad_image_size", words):
            decode(compressed("png", png(*size, 16, 0, None)))
    with refused("bad_mask", words):
        images.decode_mask(compressed("png", png(*size, 16, 0, None)))


# -- compressed depth ----------------------------------------------------------------------------------------------


def compressed_depth(form: str, values: np.ndarray, a: float = 0.0, b: float = 0.0) -> CompressedImage:
    """As compressed_depth_image_transport lays it out."""
    return compressed(form, struct.pack("<iff", 0, a, b) + cv2.imencode(".png", values)[1].tobytes())


@BOTH
@pytest.mark.parametrize(
    "form", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "16UC1", "mono16; compressedDepth png"]
)
def test_compressed_millimetres_come_back_exactly(form, read):
    expected = (MILLIMETRES / 1000).astype(np.float32)
    decoded = images.decode_depth(read(compressed_depth(form, MILLIMETRES)))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("form", ["png", "16UC1; png compressed ", "mono16; png compressed ", "16UC1; compressedDepth"])
def test_depth_of_a_plain_png_is_millimetres(form):
    decoded = images.decode_depth(compressed(form, file_of(MILLIMETRES)))
    np.testing.assert_array_equal(decoded, (MILLIMETRES / 1000).astype(np.float32))


@BOTH
def test_quantised_inverse_depth_comes_back_within_its_quantum(read):
    depth = np.random.default_rng(1).uniform(0.2, 9.9, (30, 40))
    depth[3, 4], depth[5, 6] = np.nan, 12.0
    # The transport's own: depth_quantization 100, depth_max 10.
    a = 100.0 * 101.0
    b = 1.0 - a / 10.0
    with np.errstate(invalid="ignore"):
        values = np.where(depth < 10.0, a / depth + b, 0).astype(np.uint16)
    decoded = images.decode_depth(read(compressed_depth("32FC1; compressedDepth png", values, a, b)))
    assert decoded.dtype == np.float32 and decoded[3, 4] == 0 and decoded[5, 6] == 0
    valid = depth < 10.0
    difference = 1 / decoded[valid].astype(float) - 1 / depth[valid]
    assert difference.min() > -1.01 / a and difference.max() < 0.01 / a


def test_what_the_quantisation_makes_no_depth_is_invalid():
    values = np.array([[0, 1, 5, 6]], np.uint16)
    decoded = images.decode_depth(compressed_depth("32FC1; compressedDepth png", values, 10.0, 5.0))
    np.testing.assert_array_equal(decoded, [[0, 0, 0, 10]])  # invalid, negative, infinite, 10 / (6 - 5)


def test_broken_compressed_depth_is_refused():
    good = compressed_depth("16UC1; compressedDepth png", MILLIMETRES)
    for form in ("16UC1; compressedDepth rvl", "32FC1; compressedDepth rvl"):
        with refused("bad_depth", f"'{form}' is not read: set the parameter compressedDepth.format .* to png"):
            images.decode_depth(compressed(form, good.data.tobytes()))
    with refused("truncated_image", "cut or damaged"):
        images.decode_depth(compressed(good.format, good.data.tobytes()[:-40]))
    for length in (0, 4, 12, 15):
        with refused("bad_compressed", f"{length} bytes of format .* neither JPEG nor PNG"):
            images.decode_depth(compressed(good.format, good.data.tobytes()[:length]))
    for data in (file_of(NOISE), file_of(NOISE[..., 0]), file_of(NOISE, "JPEG")):
        with refused("bad_depth", "holds no PNG of 16 bits: publish compressedDepth with png"):
            images.decode_depth(compressed("16UC1; png compressed ", data))
    with refused("bad_depth", "32FC1 comes without its quantisation"):
        images.decode_depth(compressed("32FC1; compressedDepth png", file_of(MILLIMETRES)))
    for a, b in ((np.nan, 0.0), (1.0, np.inf)):
        with refused("bad_depth", "32FC1 comes without its quantisation"):
            images.decode_depth(compressed_depth("32FC1; compressedDepth png", MILLIMETRES, a, b))


# -- masks ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("encoding", [*images.IMAGE_ENCODINGS, "16UC1"])
def test_a_mask_is_true_where_a_colour_is_not_zero(encoding, read):
    rng = np.random.default_rng(list(encoding.encode()))
    size, channels, _ = images.MASK_ENCODINGS[encoding]
    expected = rng.random((11, 8)) < 0.4
    values = rng.choice([1, 255 * 256 ** (size - 1)], (11, 8, channels)).astype(f"u{size}")
    # One channel at least; alpha says nothing.
    kept = np.arange(channels) == rng.integers(min(channels, 3), size=(11, 8, 1))
    pixels = values * kept * expected[..., None]
    if channels == 4:
        pixels[..., 3] = rng.integers(0, 256, (11, 8))
    decoded = images.decode_mask(read(image_message(encoding, pixels.squeeze(), padding=5, big_endian=True)))
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, expected)


@BOTH
def test_compressed_masks(read):
    expected = np.random.default_rng(2).random((7, 5)) < 0.5
    for pixels in (
        expected.astype(np.uint8),
        expected.astype(np.uint16),
        expected * np.uint16(0xFF00),
        expected[..., None] * np.array([0, 0, 1], np.uint8),
        np.dstack([expected[..., None] * np.array([3, 0, 0], np.uint8), np.full((7, 5), 255, np.uint8)]),
        expected,
    ):
        decoded = images.decode_mask(read(compressed("mono8; png compressed ", file_of(pixels))))
        assert decoded.dtype == bool
        np.testing.assert_array_equal(decoded, expected)


@BOTH
def test_broken_masks_are_refused(read):
    msg = image_message("mono8", np.ones((4, 6), np.uint8))
    msg.height = 5
    with refused("bad_mask", "the mask cannot be used: the image holds 24 bytes where 5 rows"):
        images.decode_mask(read(msg))
    msg.height = 0
    with refused("bad_mask", "6 x 0 pixels"):
        images.decode_mask(read(msg))
    with refused("bad_mask", "its encoding is '32FC1': publish mono8"):
        images.decode_mask(read(image_message("32FC1", np.ones((4, 6), np.float32))))
    with refused("bad_mask", "JPEG blurs its edges: publish a PNG"):
        images.decode_mask(read(compressed("jpeg", file_of(NOISE, "JPEG"))))
    with refused("bad_mask", "a PNG of 16-bit colours: publish a PNG of one channel"):
        images.decode_mask(read(compressed("png", png(1, 1, 16, 2, b"\0" + 6 * b"\0"))))
    with refused("bad_mask", "neither JPEG nor PNG"):
        images.decode_mask(read(compressed("png", b"none")))


# -- cameras -------------------------------------------------------------------------------------------------------

K = [500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0]


def pixel_of(camera: PinholeCamera) -> np.ndarray:
    """Where the camera sees one point, from the corner of the image (not the centre of its first pixel)."""
    return camera.project(np.array([[0.3, -0.2, 2.0]]))[0][0] + 0.5


@BOTH
@pytest.mark.parametrize(
    "fields, image, offset, scale",
    [
        ({}, (640, 480), (0, 0), (1, 1)),
        ({"binning_x": 2, "binning_y": 4}, (320, 120), (0, 0), (0.5, 0.25)),
        ({"roi": (100, 60, 320, 240)}, (320, 240), (100, 60), (1, 1)),
        ({"roi": (100, 60, 320, 240), "binning_x": 2, "binning_y": 2}, (160, 120), (100, 60), (0.5, 0.5)),
        ({}, (960, 360), (0, 0), (1.5, 0.75)),
        ({"width": 0, "height": 0}, (640, 480), (0, 0), (1, 1)),
        ({"width": 0, "height": 0, "binning_x": 2, "binning_y": 4}, (320, 120), (0, 0), (0.5, 0.25)),
    ],
)
def test_the_camera_of_an_image(fields, image, offset, scale, read):
    fields = {"width": 640, "height": 480, **fields}
    if "roi" in fields:
        x, y, width, height = fields.pop("roi")
        fields["roi"] = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    camera = images.camera_of(read(CameraInfo(k=K, **fields)), *image)
    assert (camera.width, camera.height) == image
    full = np.array([500 * 0.15 + 310, 510 * -0.1 + 250]) + 0.5
    np.testing.assert_allclose(pixel_of(camera), (full - offset) * scale)


@BOTH
def test_our_camera_info_is_read_again(read):
    camera = PinholeCamera(320, 240, 210.5, 211.5, 158.25, 119.75)
    msg = images.camera_info_message(HEADER, camera)
    assert images.camera_of(read(msg), 320, 240) == camera
    assert not images.has_distortion(read(msg))
    assert msg.distortion_model == "plumb_bob" and msg.header == HEADER
    np.testing.assert_array_equal(np.array(msg.p).reshape(3, 4), np.c_[camera.matrix, np.zeros(3)])
    np.testing.assert_array_equal(np.array(msg.r).reshape(3, 3), np.eye(3))


@BOTH
def test_a_camera_without_calibration_is_refused(read):
    def info(index: int, value: float):
        k = list(K)
        k[index] = value
        return read(CameraInfo(width=640, height=480, k=k))

    with refused("bad_camera_info", "focal lengths 0 and 0: calibrate the camera"):
        images.camera_of(read(CameraInfo(width=640, height=480)), 640, 480)
    with refused("bad_camera_info", "focal lengths 500 and -1"):
        images.camera_of(info(4, -1.0), 640, 480)
    for value in (np.nan, np.inf):
        with refused("bad_camera_info", "NaN or infinity: calibrate the camera"):
            images.camera_of(info(2, value), 640, 480)
    with refused("bad_camera_info", "0 x 480 pixels"):
        images.camera_of(info(0, 500.0), 0, 480)
    wrong = SimpleNamespace(**{name: getattr(info(0, 500.0), name) for name in ("width", "height", "roi")})
    wrong.binning_x = wrong.binning_y = 0
    wrong.k = np.array(K[:8])
    with refused("bad_camera_info", "8 numbers instead of 9"):
        images.camera_of(wrong, 640, 480)


@BOTH
@pytest.mark.parametrize(
    "coefficients, distorted",
    [([], False), ([0.0] * 5, False), ([1e-7, 0.0], False), ([0, -0.1], True), ([np.nan, 0.0], True), ([2e-6], True)],
)
def test_distortion_is_noticed(coefficients, distorted, read):
    assert images.has_distortion(read(CameraInfo(d=[float(c) for c in coefficients]))) is distorted


# -- lens distortion -----------------------------------------------------------------------------------------------

LENSES = {
    "barrel": ("plumb_bob", [-0.32, 0.12, 0.0008, -0.0011, -0.02]),
    "pincushion": ("plumb_bob", [0.1, -0.05, 0.001, 0.002]),
    "rational": ("rational_polynomial", [0.46, -2.5, 0.0008, -0.0003, 1.5, 0.34, -2.3, 1.4]),
    "thin prism": ("rational_polynomial", [0.2, -0.1, 0.001, 0.0, 0.02, 0.1, 0.05, 0.01, 0.004, -0.002, 0.003, 0.001]),
    "tilted": ("rational_polynomial", [0.2, -0.1, 0.001, 0.0, 0.02, 0.1, 0.05, 0.01, 0.0, 0.0, 0.0, 0.0, 0.02, -0.03]),
    "equidistant": ("equidistant", [0.02, -0.005, 0.001, -0.0002]),
    "ideal fisheye": ("fisheye", [0.0, 0.0, 0.0, 0.0]),
}
VALUES = parameters.complete({})


def radial(model: str, d: list[float], r: np.ndarray) -> np.ndarray:
    """How far from the axis a ray at tangent `r` is seen: the formulas of OpenCV's manual."""
    if model in ("equidistant", "fisheye"):
        theta = np.arctan(r)
        return theta + sum(k * theta ** (2 * i + 3) for i, k in enumerate(d))
    k1, k2, _, _, k3, k4, k5, k6 = [*d, *[0.0] * 14][:8]
    return r * (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)


def distorted(model: str, d: list[float], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lens shows the ray (x, y, 1), at depth 1."""
    r = np.hypot(x, y)
    scale = np.where(r > 0, radial(model, d, r) / np.where(r > 0, r, 1), 1.0)
    if model in ("equidistant", "fisheye"):
        return x * scale, y * scale
    _, _, p1, p2, _, _, _, _, s1, s2, s3, s4, tau_x, tau_y = [*d, *[0.0] * 14][:14]
    seen_x = x * scale + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2) + s1 * r**2 + s2 * r**4
    seen_y = y * scale + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y + s3 * r**2 + s4 * r**4
    about_x = np.array([[1, 0, 0], [0, np.cos(tau_x), np.sin(tau_x)], [0, -np.sin(tau_x), np.cos(tau_x)]])
    about_y = np.array([[np.cos(tau_y), 0, -np.sin(tau_y)], [0, 1, 0], [np.sin(tau_y), 0, np.cos(tau_y)]])
    turn = about_y @ about_x
    tilt = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn
    tilted = np.stack([seen_x, seen_y, np.ones_like(seen_x)], axis=-1) @ tilt.T
    return tilted[..., 0] / tilted[..., 2], tilted[..., 1] / tilted[..., 2]


def info_of(camera: PinholeCamera, model: str, d: list[float], **fields) -> CameraInfo:
    k = camera.matrix.ravel().tolist()
    size = {"width": camera.width, "height": camera.height}
    return CameraInfo(header=HEADER, distortion_model=model, d=[float(c) for c in d], k=k, **{**size, **fields})


def blobs(size: tuple[int, int], pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 with a round spot at each of the (N, 2) pixels."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.zeros((height, width))
    for u, v in pixels:
        near = (slice(max(int(v) - 9, 0), int(v) + 10), slice(max(int(u) - 9, 0), int(u) + 10))
        image[near] += 250 * np.exp(-((columns[near] - u) ** 2 + (rows[near] - v) ** 2) / (2 * 1.6**2))
    return np.repeat(np.rint(np.minimum(image, 255)).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_blob(image: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    column, row = np.rint(pixel).astype(int)
    window = image[row - 8 : row + 9, column - 8 : column + 9, 0].astype(float)
    rows, columns = np.mgrid[row - 8 : row + 9, column - 8 : column + 9]
    return np.array([(window * columns).sum(), (window * rows).sum()]) / window.sum()


def seen_by(camera: PinholeCamera, model: str, d: list[float], points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of 3D points in the distorted image."""
    x, y = distorted(model, d, points[:, 0] / points[:, 2], points[:, 1] / points[:, 2])
    return np.stack([camera.fx * x + camera.cx, camera.fy * y + camera.cy], axis=1)


@BOTH
@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("view", ["whole", "binned", "region of interest", "resized"])
def test_points_land_on_their_pinhole_pixels(lens, view, read):
    model, d = LENSES[lens]
    sensor = PinholeCamera(1280, 960, 830.0, 815.0, 652.0, 471.0)
    size, offset, scale, fields = {
        "whole": ((1280, 960), (0, 0), 1.0, {}),
        "binned": ((640, 480), (0, 0), 0.5, {"binning_x": 2, "binning_y": 2}),
        "region of interest": (
            (480, 360),
            (200, 140),
            0.5,
            {
                "binning_x": 2,
                "binning_y": 2,
                "roi": RegionOfInterest(x_offset=200, y_offset=140, width=960, height=720),
            },
        ),
        "resized": ((640, 480), (0, 0), 0.5, {}),
    }[view]
    # A wrong R and P must not matter: the frame stays the camera's own.
    info = info_of(sensor, model, d, r=[0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], p=[7.0] * 12, **fields)
    z = np.random.default_rng(9).uniform(0.5, 4.0, 400)
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 20), np.linspace(-0.5, 0.5, 20))
    points = np.stack([x.ravel() * z, y.ravel() * z, z], axis=1)
    seen = (seen_by(sensor, model, d, points) + 0.5 - offset) * scale - 0.5
    expected = (sensor.project(points)[0] + 0.5 - offset) * scale - 0.5
    within = [(p > 10).all(axis=1) & (p < np.array(size) - 11).all(axis=1) for p in (seen, expected)]
    points, seen, expected = (a[within[0] & within[1]] for a in (points, seen, expected))
    assert len(points) > 60
    image = read(image_message("rgb8", blobs(size, seen)))
    frame = FrameDecoder(VALUES).frame(image, read(info))
    assert (frame.camera.width, frame.camera.height) == size
    np.testing.assert_allclose(frame.camera.project(points)[0], expected)
    found = np.array([centre_of_blob(frame.image, pixel) for pixel in expected])
    assert np.linalg.norm(found - expected, axis=1).max() < 0.15
    assert np.linalg.norm(seen - expected, axis=1).max() > 3  # so much there was to undo


@st.composite
def lenses(draw):
    """(camera, model, coefficients) of a lens that may well turn round within the image."""
    width, height = draw(st.integers(8, 150)), draw(st.integers(8, 150))
    near = st.floats(0.4, 2.5)
    middle = st.floats(0.2, 0.8)
    camera = PinholeCamera(
        width, height, width * draw(near), height * draw(near), width * draw(middle), height * draw(middle)
    )
    model = draw(st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "fisheye"]))
    count = draw(st.sampled_from({"plumb_bob": (4, 5), "rational_polynomial": (8, 12)}.get(model, (4,))))
    bounds = (0.1,) * 4 if count == 4 and model != "plumb_bob" else (0.4, 0.2, 0.01, 0.01, 0.1, 0.3, 0.2, 0.1)
    d = [draw(st.floats(-bound, bound)) for bound in (bounds + (0.01,) * 4)[:count]]
    return camera, model, d


@settings(max_examples=100, deadline=None)
@given(lenses(), st.sampled_from([1, 2]), st.integers(0, 2**32))
def test_every_pixel_shows_what_the_lens_shows(lens, depth_factor, seed):
    camera, model, d = lens
    assume(model in ("equidistant", "fisheye") or np.abs(d).max() > 1e-3)
    width, height = camera.width, camera.height
    size = (depth_factor * width, depth_factor * height)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    ramps = [columns * 255 / (width - 1), rows * 255 / (height - 1), np.full((height, width), 255)]
    wide_columns, wide_rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    depth = (1 + wide_columns + 1000 * wide_rows).astype(np.float32)
    mask = np.random.default_rng(seed).random((size[1], size[0])) < 0.5
    try:
        frame = FrameDecoder(VALUES).frame(
            image_message("rgb8", np.rint(np.stack(ramps, axis=2)).astype(np.uint8)),
            info_of(camera, model, d),
            image_message("32FC1", depth),
            image_message("mono8", mask.astype(np.uint8)),
        )
    except BadMessage as error:
        assert error.reason == "bad_distortion" and "leaves no pixel" in str(error)
        assume(False)
    np.testing.assert_allclose(frame.camera.matrix, camera.matrix, atol=1e-9)
    camera = frame.camera

    def where(camera):
        """(u, v) that each pixel must show, whether it must show anything, and whether that is a close call."""
        columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
        r = np.hypot(x, y)
        steps = np.linspace(0, r.max(), 2000)
        rising = np.diff(radial(model, d, steps)) > 0
        limit = np.inf if rising.all() else steps[np.argmin(rising)]
        with np.errstate(all="ignore"):
            seen_x, seen_y = distorted(model, d, x, y)
        u, v = camera.fx * seen_x + camera.cx, camera.fy * seen_y + camera.cy
        edge = np.minimum.reduce([u + 0.5, camera.width - 0.5 - u, v + 0.5, camera.height - 0.5 - v])
        close = (np.abs(edge) < 0.02) | (np.abs(r - limit) < 3 * steps[1])
        return u, v, (edge > 0) & (r < limit), close

    u, v, shown, close = where(camera)
    assert (frame.image[~shown & ~close] == 0).all()
    sure = shown & ~close
    assert (frame.image[sure, 2] == 255).all()
    for channel, expected, side in ((0, u, width), (1, v, height)):
        found = frame.image[sure, channel] * ((side - 1) / 255)
        assert np.abs(found - np.clip(expected[sure], 0, side - 1)).max(initial=0) < (side - 1) / 255 + 0.05
    u, v, shown, close = where(camera.resized(*size))
    assert (frame.depth[~shown & ~close] == 0).all() and frame.mask[~shown & ~close].all()
    sure = shown & ~close
    found_v, found_u = np.divmod(frame.depth[sure].astype(int) - 1, 1000)
    assert np.abs(found_u - u[sure]).max(initial=0) < 0.52 and np.abs(found_v - v[sure]).max(initial=0) < 0.52
    np.testing.assert_array_equal(frame.mask[sure], mask[found_v, found_u])
    # No depth is a mixture.
    assert np.isin(frame.depth, np.append(depth, 0)).all()


def test_without_distortion_nothing_changes():
    camera = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.0)
    rng = np.random.default_rng(3)
    rgb, depth = rng.integers(0, 256, (48, 64, 3), np.uint8), rng.uniform(0.5, 4, (24, 32)).astype(np.float32)
    mask = rng.random((48, 64)) < 0.5
    sent = image_message("rgb8", rgb), image_message("32FC1", depth), image_message("mono8", mask.astype(np.uint8))
    for model, d in (("plumb_bob", [0.0] * 5), ("rational_polynomial", [0.0] * 8), ("", []), ("none", [])):
        frame = FrameDecoder(VALUES).frame(sent[0], info_of(camera, model, d), *sent[1:])
        assert frame.camera == camera
        np.testing.assert_array_equal(frame.image, rgb)
        np.testing.assert_array_equal(frame.depth, depth)
        np.testing.assert_array_equal(frame.mask, mask)
        assert FrameDecoder(VALUES).frame(sent[0], info_of(camera, model, d)).mask is None
    for model, count in (("plumb_bob", 5), ("rational_polynomial", 8)):
        rectification = Rectification(model, (0.0,) * count, camera)
        assert not rectification.outside.any()
        np.testing.assert_array_equal(rectification.colour(rgb), rgb)
        np.testing.assert_array_equal(rectification.mask(mask), mask)


def test_what_the_original_does_not_show_is_masked():
    camera = PinholeCamera(160, 120, 120.0, 120.0, 79.5, 59.5)
    grey = image_message("mono8", np.full((120, 160), 200, np.uint8))
    frame = FrameDecoder(VALUES).frame(grey, info_of(camera, "plumb_bob", [0.2, 0.0, 0.0, 0.0, 0.0]))
    assert frame.depth is None and frame.mask.shape == (120, 160) and 0.05 < frame.mask.mean() < 0.5
    np.testing.assert_array_equal(frame.mask, frame.image[..., 0] == 0)
    # A barrel's corners are not used up: everything is shown, and there is nothing to mask.
    barrel = FrameDecoder(VALUES).frame(grey, info_of(camera, "plumb_bob", [-0.2, 0.0, 0.0, 0.0, 0.0]))
    assert barrel.mask is None and (barrel.image == 200).all()


def test_a_polynomial_that_turns_round_mirrors_nothing():
    camera = PinholeCamera(200, 150, 50.0, 50.0, 99.5, 74.5)
    d = [-0.5, 0.0, 0.0, 0.0, 0.0]
    grey = image_message("mono8", np.full((150, 200), 200, np.uint8))
    frame = FrameDecoder(VALUES).frame(grey, info_of(camera, "plumb_bob", d))
    columns, rows = np.meshgrid(np.arange(200), np.arange(150))
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    turns_at = np.sqrt(2 / 3)  # of r - r^3 / 2
    beyond = np.hypot(x, y) > turns_at + 0.01
    seen_x, seen_y = distorted("plumb_bob", d, x, y)
    inside = (np.abs(seen_x) < 1.9) & (np.abs(seen_y) < 1.4)
    assert (beyond & inside).sum() > 5000  # the formula alone would show the image there
    assert frame.mask[beyond].all() and (frame.image[beyond] == 0).all()
    assert not frame.mask[np.hypot(x, y) < turns_at - 0.01].any()


def test_maps_are_made_when_the_calibration_or_a_size_changes(monkeypatch):
    made = []
    real = cv2.initUndistortRectifyMap
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", lambda *args: made.append(args[4]) or real(*args))
    camera = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.0)
    decoder = FrameDecoder(VALUES)
    first, second = info_of(camera, "plumb_bob", [0.1] * 5), info_of(camera, "plumb_bob", [0.1, 0.1, 0.0, 0.0, 0.2])
    image = image_message("mono8", np.zeros((48, 64), np.uint8))
    small = image_message("32FC1", np.ones((24, 32), np.float32))
    for _ in range(3):
        decoder.frame(image, first)
    assert made == [(64, 48)]
    for _ in range(3):
        decoder.frame(image, first, small, image)
    assert made == [(64, 48), (32, 24)]
    for _ in range(3):
        decoder.frame(image, second, image_message("16UC1", np.ones((48, 64), np.uint16)))
    assert made == [(64, 48), (32, 24), (64, 48)]
    decoder.frame(image, info_of(camera, "plumb_bob", [0.1] * 5), small)
    decoder.frame(image, second)
    assert len(made) == 3
    decoder.frame(image, info_of(PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.5), "plumb_bob", [0.1] * 5))
    decoder.frame(image_message("mono8", np.zeros((96, 128), np.uint8)), first)
    assert made[3:] == [(64, 48), (128, 96)]


def test_distortion_is_rectified_refused_or_ignored():
    camera = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.0)
    image = image_message("rgb8", np.random.default_rng(4).integers(0, 256, (48, 64, 3), np.uint8))
    pixels = images.decode_image(image)
    lens, straight = info_of(camera, "plumb_bob", [0.2] * 5), info_of(camera, "plumb_bob", [0.0] * 5)
    said = []
    decoder = FrameDecoder({**VALUES, "distortion": "refuse"}, said.append)
    np.testing.assert_array_equal(decoder.frame(image, straight).image, pixels)
    with refused("distorted", "set the parameter distortion to rectify, or use the rectified image of image_proc"):
        decoder.frame(image, lens)
    decoder = FrameDecoder({**VALUES, "distortion": "ignore"}, said.append)
    decoder.frame(image, straight)
    assert not said
    for _ in range(3):
        frame = decoder.frame(image, lens)
        np.testing.assert_array_equal(frame.image, pixels)
        assert frame.mask is None
    assert said == ["camera_info has lens distortion, which is ignored: set the parameter distortion to rectify"]
    FrameDecoder({**VALUES, "distortion": "ignore"}).frame(image, lens)
    for distortion in ("rectify", "refuse", "ignore"):
        lens.p = [60.0, 0.0, 30.0, 0.0, 0.0, 61.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        decoder = FrameDecoder({**VALUES, "distortion": distortion, "image_is_rectified": True}, said.append)
        frame = decoder.frame(image, lens)
        assert frame.camera == PinholeCamera(64, 48, 60.0, 61.0, 30.0, 20.0)
        np.testing.assert_array_equal(frame.image, pixels)
    assert len(said) == 1


def test_a_distortion_that_cannot_be_undone_is_refused():
    camera = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.0)
    image = image_message("mono8", np.zeros((48, 64), np.uint8))

    def decode(model: str, d: list[float]):
        FrameDecoder(VALUES).frame(image, info_of(camera, model, d))

    with refused(
        "bad_distortion", "model 'kannala' is not known: publish plumb_bob, rational_polynomial, .* image_proc"
    ):
        decode("kannala", [0.1] * 4)
    for model, count, words in (
        ("plumb_bob", 3, "3 coefficients instead of 4 or 5"),
        ("plumb_bob", 8, "8 coefficients instead of 4 or 5"),
        ("rational_polynomial", 5, "5 coefficients instead of 8 or 12 or 14"),
        ("equidistant", 5, "5 coefficients instead of 4"),
        ("fisheye", 0, "0 coefficients instead of 4"),
    ):
        with refused("bad_distortion", f"{model} has {words}: calibrate the camera"):
            decode(model, [0.1] * count)
    for value in (np.nan, np.inf):
        with refused("bad_distortion", "NaN or infinity: calibrate the camera"):
            decode("plumb_bob", [0.1, value, 0.0, 0.0, 0.0])
    with refused("bad_distortion", "leaves no pixel of the image: calibrate the camera again"):
        decode("plumb_bob", [-1e30, 0.0, 0.0, 0.0, 0.0])


def test_a_missing_opencv_is_said_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    camera = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 24.0)
    image = image_message("mono8", np.zeros((48, 64), np.uint8))
    FrameDecoder(VALUES).frame(image, info_of(camera, "plumb_bob", [0.0] * 5))
    with refused(
        "no_opencv", "pip install opencv-python-headless, or apt install python3-opencv, or .* image_is_recti"
    ):
        FrameDecoder(VALUES).frame(image, info_of(camera, "plumb_bob", [0.1] * 5))


def test_opencv_is_loaded_only_for_distortion():
    code = "import sys, sgrocc_ros.images, sgrocc_ros.evaluate_bag; print('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@dataclass
class Lens:
    """A camera with a lens, for `depth_of_boxes`: its pixels look along the rays that the lens bends to them."""

    camera: PinholeCamera
    model: str
    d: list[float]

    def __getattr__(self, name):
        return getattr(self.camera, name)

    def back_project(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        seen = self.camera.back_project(pixels, np.ones_like(depth))[..., :2]
        ray = seen.copy()
        for _ in range(50):
            ray -= np.stack(distorted(self.model, self.d, ray[..., 0], ray[..., 1]), axis=-1) - seen
        return np.concatenate([ray, np.ones((*depth.shape, 1))], axis=-1) * depth[..., None]


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """{lens: bag} of the room, filmed with a pinhole and with a fisheye lens."""
    found = {}
    for name, (model, d) in {"pinhole": ("plumb_bob", [0.0] * 5), "fisheye": LENSES["equidistant"]}.items():
        folder = tmp_path_factory.mktemp(name)
        write_room(folder)
        for i in range(ROOM_FRAMES):
            depth = depth_of_boxes(ROOM, Lens(CAMERA, model, d), pose_at(0.05 * i, 0.03 * i, 0.01 * i))
            PIL.Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(folder / "depth" / f"{i:04d}.png")
        made = record_sequence._camera_info

        def camera_info(stamp_ns, camera, model=model, d=d, made=made):
            kind, log_ns, message = made(stamp_ns, camera)
            message.distortion_model, message.d = model, np.array(d)
            return kind, log_ns, message

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_sequence, "_camera_info", camera_info)
            record_sequence.record_sequence(PosedRgbdSequence(folder), folder / "bag")
        found[name] = folder / "bag"
    return found


def test_a_bag_is_rectified_as_a_camera_is(bags, capsys):
    def occupied(bag: str, distortion: str) -> tuple[set, set]:
        """The occupied voxels of the map and of the truth that the recorded depth makes."""
        fused = fuse_bag(bags[bag], Inputs(), parameters.complete({"expert": "geometric", "distortion": distortion}))
        assert (fused.fused, dict(fused.dropped)) == (ROOM_FRAMES, {})
        known, truth = fused.map.known(), fused.truth.result("odom")
        corner = np.round(truth.origin / truth.resolution).astype(int)
        voxels = known.indices[known.labels > 0], np.argwhere(truth.occupied) + corner
        return tuple({tuple(index) for index in indices.tolist()} for indices in voxels)

    def overlaps(a: tuple[set, set], b: tuple[set, set]) -> list[float]:
        return [len(first & second) / len(first | second) for first, second in zip(a, b)]

    straight, rectified = occupied("pinhole", "rectify"), occupied("fisheye", "rectify")
    assert "distortion" not in capsys.readouterr().err
    ignored = occupied("fisheye", "ignore")
    assert capsys.readouterr().err.count("distortion, which is ignored: set the parameter distortion to rectify") == 1
    assert min(overlaps(straight, rectified)) > 0.95 and max(overlaps(straight, ignored)) < 0.75
    refusing = fuse_bag(bags["fisheye"], Inputs(), parameters.complete({"expert": "geometric", "distortion": "refuse"}))
    assert dict(refusing.dropped) == {"distorted": ROOM_FRAMES}


def test_a_bag_s_mask_keeps_pixels_out_and_a_bag_without_frames_says_why(bags, tmp_path):
    reader, masked = BagReader(bags["pinhole"]), tmp_path / "masked"
    with BagWriter(masked) as writer:
        for topic, stamp_ns, raw in reader.raw_messages():
            writer.write(topic, reader.topics[topic].msgtype, stamp_ns, raw, reader.topics[topic].latched)
        for _, message in reader.messages([Inputs.image]):
            covered = np.zeros((message.height, message.width), np.uint8)
            covered[:, : message.width // 2] = 255
            message.encoding, message.step, message.data = "mono8", message.width, covered.reshape(-1)
            writer.write("/mask", "sensor_msgs/msg/Image", messages.stamp_ns(message.header), message)
    given = {"expert": "geometric", "min_depth_m": 0.1}
    whole = fuse_bag(masked, Inputs(), parameters.complete(given))
    half = fuse_bag(masked, Inputs(), parameters.complete({**given, "use_mask": True}))
    assert whole.fused == half.fused == ROOM_FRAMES
    sides = [
        [len(fused.map.known().indices[sign * fused.map.known().indices[:, 1] > 8]) for sign in (1, -1)]
        for fused in (whole, half)
    ]
    assert sides[1][0] < 0.3 * sides[0][0] and sides[1][1] > 0.9 * sides[0][1]
    with pytest.raises(ValueError, match="has no topic /mask: name the topics of its camera"):
        fuse_bag(bags["pinhole"], Inputs(), parameters.complete({**given, "use_mask": True}))
    with pytest.raises(ValueError, match="without scale_source and for one camera"):
        fuse_bag(masked, Inputs(), parameters.complete({**given, "cameras": "front rear"}))
    assert half.truth.result("odom").occupied.sum() < 0.7 * whole.truth.result("odom").occupied.sum()
    renamed = fuse_bag(masked, Inputs(), parameters.complete({**given, "camera_frame": "nowhere"}))
    assert dict(renamed.dropped) == {"frame_unknown": ROOM_FRAMES}
    elsewhere = parameters.complete({**given, "global_frame": "map"})
    with pytest.raises(ValueError, match=r"no frame of .*masked could be fused: no pose of .* in 'map'"):
        evaluate(masked, Inputs(), elsewhere)


# -- anything may arrive -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "depth", "mask"])
def test_whatever_arrives_is_read_or_refused(kind):
    rng = np.random.default_rng(8)
    decode, msg = {
        "image": (images.decode_image, image_message("bgr8", np.zeros((3, 4, 3), np.uint8), 2)),
        "depth": (images.decode_depth, image_message("32FC1", np.ones((3, 4), np.float32))),
        "mask": (images.decode_mask, image_message("mono8", np.ones((3, 4), np.uint8))),
    }[kind]
    refusals = 0
    for _ in range(1500):
        try:
            decode(damaged(msg, rng, ("height", "width", "step"), ("is_bigendian",)))
        except BadMessage:
            refusals += 1
    assert 100 < refusals < 1500


SMALL = np.random.default_rng(11).integers(0, 256, (6, 8, 3), np.uint8)
FILES = (
    file_of(SMALL),
    file_of(SMALL, "JPEG"),
    file_of(SMALL[..., 0]),
    file_of(MILLIMETRES),
    compressed_depth("", MILLIMETRES, 1e4, 1.0).data.tobytes(),
    file_of(SMALL, "GIF"),
    png(8, 6, 16, 2, None),
)
FORMATS = ("jpeg", "png", "rgb8; jpeg compressed bgr8", "rgb8; png compressed rgb8", "16UC1; compressedDepth png")
FORMATS += ("32FC1; compressedDepth png", "32FC1; compressedDepth rvl", "bayer_rggb8; png compressed ", "")
ENCODINGS = (*images.MASK_ENCODINGS, "32FC1", "bayer_rggb8", "")
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.1, 50.0, 1e-300, 1e300, np.nan, np.inf, -np.inf]), st.floats(-2, 2), st.floats()
)
SIDES = st.one_of(st.sampled_from(SIZES), st.integers(1, 12))


@st.composite
def broken_bytes(draw) -> bytes:
    data = bytearray(draw(st.sampled_from(FILES) | st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@st.composite
def pictures(draw):
    """An image of any kind, with what its fields may hold."""
    if draw(st.booleans()):
        return compressed(draw(st.sampled_from(FORMATS) | st.text(max_size=20)), draw(broken_bytes()))
    encoding = draw(st.sampled_from(ENCODINGS) | st.text(max_size=8))
    msg = Image(encoding=encoding, is_bigendian=draw(st.sampled_from([0, 1, 255])))
    msg.height, msg.width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    msg.step = draw(st.one_of(st.just(8 * msg.width), SIDES))
    msg.data = array("B", bytes(draw(st.integers(0, 255)) for _ in range(4)) * (2 * msg.width * msg.height))
    for name in draw(st.lists(st.sampled_from(["height", "width", "step", "data"]), max_size=2)):
        setattr(msg, name, array("B", draw(broken_bytes())) if name == "data" else draw(SIDES))
    return msg


@st.composite
def calibrations(draw):
    """A camera_info, with what its fields may hold."""
    good = info_of(PinholeCamera(8, 6, 7.0, 7.0, 3.5, 2.5), *draw(st.sampled_from(list(LENSES.values()))))
    for name in draw(
        st.lists(st.sampled_from(["k", "p", "d", "distortion_model", "size", "roi", "binning"]), max_size=3)
    ):
        if name in ("k", "p"):
            numbers = np.array(getattr(good, name))
            for _ in range(draw(st.integers(1, 3))):
                numbers[draw(st.integers(0, len(numbers) - 1))] = draw(NUMBERS)
            setattr(good, name, numbers)
        elif name == "d":
            good.d = draw(st.lists(NUMBERS, max_size=15))
        elif name == "distortion_model":
            good.distortion_model = draw(st.sampled_from(list(images.DISTORTION_MODELS)) | st.text(max_size=8))
        elif name == "size":
            good.width, good.height = draw(SIDES), draw(SIDES)
        elif name == "roi":
            good.roi = RegionOfInterest(
                x_offset=draw(SIDES), y_offset=draw(SIDES), width=draw(SIDES), height=draw(SIDES)
            )
        else:
            good.binning_x, good.binning_y = draw(SIDES), draw(SIDES)
    return good


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.fuzz
@settings(max_examples=600 * FUZZ, deadline=None)
@given(
    image=pictures(),
    info=calibrations(),
    depth=st.none() | pictures(),
    mask=st.none() | pictures(),
    distortion=st.sampled_from(["rectify", "refuse", "ignore"]),
    is_rectified=st.booleans(),
    decoder=st.sampled_from(["auto", "numpy", "cv_bridge"]),
)
def test_nothing_but_bad_message_comes_out(image, info, depth, mask, distortion, is_rectified, decoder):
    values = {"image_decoder": decoder, "image_is_rectified": is_rectified, "distortion": distortion}
    for decode, msg in ((images.decode_depth, depth), (images.decode_mask, mask)):
        try:
            decode(msg or image)
        except BadMessage as error:
            assert 10 < len(str(error)) < 600 and error.reason
    try:
        frame = FrameDecoder(values).frame(image, info, depth, mask)
    except BadMessage as error:
        assert 10 < len(str(error)) < 600 and error.reason
        return
    height, width = frame.image.shape[:2]
    assert frame.image.dtype == np.uint8 and frame.image.shape == (height, width, 3)
    assert (frame.camera.width, frame.camera.height) == (width, height)
    if depth is not None:
        assert frame.depth.dtype == np.float32 and (frame.depth >= 0).all() and np.isfinite(frame.depth).all()
    if mask is not None:
        assert frame.mask.dtype == bool and frame.mask.ndim == 2
