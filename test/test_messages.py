"""Messages to numpy and back, with the messages of rclpy and with those that rosbags reads from the same bytes."""

from __future__ import annotations

import struct
import sys
from array import array
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2")
rosbags_types = pytest.importorskip("rosbags.typesys", reason="needs rosbags")

from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.geometry import PinholeCamera  # noqa: E402
from sgrocc.labels import COLOURS, UNKNOWN  # noqa: E402
from sgrocc.memory.voxels import VoxelUpdate  # noqa: E402
from sgrocc_ros import messages  # noqa: E402
from sgrocc_ros.messages import BadMessage  # noqa: E402

HEADER = messages.to_header(1_700_000_000_123_456_789, "camera")
TYPES = rosbags_types.get_typestore(rosbags_types.Stores.ROS2_JAZZY)


def as_rosbags(msg):
    """The message as rosbags hands it out: read-only numpy instead of array.array."""
    package = type(msg).__module__.split(".")[0]
    return TYPES.deserialize_cdr(bytes(serialize_message(msg)), f"{package}/msg/{type(msg).__name__}")


def as_rclpy(msg):
    return msg


BOTH = pytest.mark.parametrize("read", [as_rclpy, as_rosbags])


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


@contextmanager
def refused(reason: str, words: str):
    """Expect BadMessage with this reason, and words of its sentence."""
    with pytest.raises(BadMessage, match=words) as caught:
        yield
    assert caught.value.reason == reason


# -- stamps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789, 2**31 * 10**9 - 1, -1])
def test_stamps_survive_to_the_nanosecond(stamp):
    header = messages.to_header(stamp, "odom")
    assert messages.stamp_ns(header) == stamp and header.frame_id == "odom"
    assert 0 <= header.stamp.nanosec < 10**9
    assert messages.stamp_ns(messages.to_header(np.int64(stamp), "odom")) == stamp


def test_a_stamp_that_no_message_holds_is_refused():
    with pytest.raises(ValueError, match="check the clock"):
        messages.to_header(2**31 * 10**9, "odom")


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
@pytest.mark.parametrize("encoding", messages.IMAGE_ENCODINGS)
def test_images_come_back_exactly(encoding, read):
    rng = np.random.default_rng(list(encoding.encode()))
    for big_endian in (False, True):
        for padding in (0, 1, 2, 7, 64):
            height, width = rng.integers(1, 40, 2)
            rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
            pixels, expected = encoded(encoding, rgb, rng)
            decoded = messages.decode_image(read(image_message(encoding, pixels, padding, big_endian)))
            assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
            np.testing.assert_array_equal(decoded, expected)


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = messages.decode_image(image_message("mono16", values))
    np.testing.assert_array_equal(decoded[..., 1], np.rint(values / 257).astype(np.uint8))


def test_bytes_after_the_last_row_are_no_harm():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    msg = image_message("mono8", pixels)
    msg.data.extend([9, 9, 9])
    np.testing.assert_array_equal(messages.decode_image(msg)[..., 0], pixels)


@BOTH
def test_broken_images_are_refused(read):
    good = image_message("rgb8", np.zeros((6, 8, 3), np.uint8), padding=4)

    def broken(**changes):
        msg = image_message("rgb8", np.zeros((6, 8, 3), np.uint8), padding=4)
        for name, value in changes.items():
            setattr(msg, name, value)
        return read(msg)

    with refused("truncated_image", "23 bytes a row where 8 pixels of rgb8 need 24"):
        messages.decode_image(broken(step=23))
    with refused("truncated_image", "0 bytes a row"):
        messages.decode_image(broken(step=0))
    with refused("truncated_image", "holds 167 bytes where 6 rows of 28 need 168"):
        messages.decode_image(broken(data=good.data[:-1]))
    with refused("truncated_image", "holds 0 bytes"):
        messages.decode_image(broken(data=array("B")))
    with refused("bad_image_size", "8 x 0 pixels"):
        messages.decode_image(broken(height=0))
    with refused("bad_image_size", "0 x 6 pixels"):
        messages.decode_image(broken(width=0))
    with refused("bad_image_size", "4294967295 x 6 pixels"):
        messages.decode_image(broken(width=2**32 - 1))
    for encoding in ("", "16UC1", "32FC1", "bayer_rggb8", "yuv422"):
        with refused("bad_encoding", f"encoding '{encoding}' .* set the camera driver to rgb8"):
            messages.decode_image(broken(encoding=encoding), "numpy")
    with pytest.raises(ValueError, match="use auto, numpy or cv_bridge"):
        messages.decode_image(good, "opencv")


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
    assert (messages.decode_image(image_message("mono8", pixels)) == 5).all() and not asked
    assert (messages.decode_image(image_message("bayer_rggb8", pixels)) == 77).all()
    assert (messages.decode_image(image_message("mono8", pixels), "cv_bridge") == 77).all()
    assert asked == [("bayer_rggb8", "rgb8"), ("mono8", "rgb8")]
    with refused("bad_encoding", r"cv_bridge cannot turn image encoding 'nonsense' into rgb8 \(unrecognised\)"):
        messages.decode_image(image_message("nonsense", pixels))


def test_a_missing_cv_bridge_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    for encoding, decoder in (("bayer_rggb8", "auto"), ("rgb8", "cv_bridge")):
        with refused("no_cv_bridge", f"'{encoding}' needs cv_bridge, which is not installed: .* install"):
            messages.decode_image(image_message(encoding, np.zeros((2, 3, 3), np.uint8)), decoder)


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
    decoded = messages.decode_depth(read(image_message("32FC1", metres, padding, big_endian)))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected)
    millimetres = rng.integers(0, 65536, (4, 9)).astype(np.uint16)
    millimetres[0, 0], millimetres[0, 1] = 0, 1234
    for encoding in ("16UC1", "mono16"):
        decoded = messages.decode_depth(read(image_message(encoding, millimetres, padding, big_endian)))
        assert decoded.dtype == np.float32 and decoded[0, 0] == 0 and decoded[0, 1] == np.float32(1.234)
        np.testing.assert_array_equal(decoded, (millimetres / 1000).astype(np.float32))


@BOTH
def test_broken_depth_is_refused(read):
    depth = np.ones((4, 6), np.float32)
    with refused("bad_depth", "encoding 'rgb8' is not known: publish 16UC1"):
        messages.decode_depth(read(image_message("rgb8", np.ones((4, 6, 3), np.uint8))))
    msg = image_message("32FC1", depth)
    msg.step = 12  # as if it were 16UC1
    with refused("truncated_image", "12 bytes a row where 6 pixels of 32FC1 need 24"):
        messages.decode_depth(read(msg))
    msg = image_message("32FC1", depth)
    msg.height = 5
    with refused("truncated_image", "holds 96 bytes where 5 rows"):
        messages.decode_depth(read(msg))
    msg.height = 0
    with refused("bad_image_size", "6 x 0"):
        messages.decode_depth(read(msg))


@BOTH
def test_our_depth_is_read_again_and_unknown_is_nan(read):
    depth = np.random.default_rng(3).uniform(0.3, 4, (6, 5)).astype(np.float32)
    depth[2, 3] = 0
    msg = messages.depth_message(HEADER, depth)
    assert (msg.encoding, msg.height, msg.width, msg.step) == ("32FC1", 6, 5, 20) and msg.header == HEADER
    sent = np.frombuffer(msg.data, "<f4").reshape(6, 5)
    assert np.isnan(sent[2, 3]) and np.isnan(sent).sum() == 1
    np.testing.assert_array_equal(messages.decode_depth(read(msg)), depth)


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
    camera = messages.camera_of(read(CameraInfo(k=K, **fields)), *image)
    assert (camera.width, camera.height) == image
    full = np.array([500 * 0.15 + 310, 510 * -0.1 + 250]) + 0.5
    np.testing.assert_allclose(pixel_of(camera), (full - offset) * scale)


@BOTH
def test_our_camera_info_is_read_again(read):
    camera = PinholeCamera(320, 240, 210.5, 211.5, 158.25, 119.75)
    msg = messages.camera_info_message(HEADER, camera)
    assert messages.camera_of(read(msg), 320, 240) == camera
    assert not messages.has_distortion(read(msg))
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
        messages.camera_of(read(CameraInfo(width=640, height=480)), 640, 480)
    with refused("bad_camera_info", "focal lengths 500 and -1"):
        messages.camera_of(info(4, -1.0), 640, 480)
    for value in (np.nan, np.inf):
        with refused("bad_camera_info", "NaN or infinity: calibrate the camera"):
            messages.camera_of(info(2, value), 640, 480)
    with refused("bad_camera_info", "0 x 480 pixels"):
        messages.camera_of(info(0, 500.0), 0, 480)
    wrong = SimpleNamespace(**{name: getattr(info(0, 500.0), name) for name in ("width", "height", "roi")})
    wrong.binning_x = wrong.binning_y = 0
    wrong.k = np.array(K[:8])
    with refused("bad_camera_info", "8 numbers instead of 9"):
        messages.camera_of(wrong, 640, 480)


@BOTH
@pytest.mark.parametrize(
    "coefficients, distorted",
    [([], False), ([0.0] * 5, False), ([1e-7, 0.0], False), ([0, -0.1], True), ([np.nan, 0.0], True), ([2e-6], True)],
)
def test_distortion_is_noticed(coefficients, distorted, read):
    assert messages.has_distortion(read(CameraInfo(d=[float(c) for c in coefficients]))) is distorted


# -- anything may arrive -------------------------------------------------------------------------------------------

SIZES = (0, 1, 2, 3, 4, 7, 16, 24, 100, 2**16, 2**31 - 1, 2**31, 2**32 - 1)


def damaged(msg, rng, sizes: tuple[str, ...], flags: tuple[str, ...]) -> SimpleNamespace:
    """The message with one to three of its fields replaced, or its data cut."""
    fields = {name[1:]: getattr(msg, name) for name in msg.__slots__ if name != "_check_fields"}
    for _ in range(rng.integers(1, 4)):
        name = rng.choice([*sizes, *flags, "data"])
        if name == "data":
            fields["data"] = fields["data"][: rng.integers(0, len(fields["data"]) + 1)]
        else:
            fields[name] = not fields[name] if name in flags else int(rng.choice(SIZES))
    return SimpleNamespace(**fields)


@pytest.mark.parametrize("kind", ["image", "depth", "gaussians", "voxels", "update"])
def test_whatever_arrives_is_read_or_refused(kind):
    rng = np.random.default_rng(8)
    image, cloud = (
        (("height", "width", "step"), ("is_bigendian",)),
        (
            ("height", "width", "point_step", "row_step"),
            ("is_bigendian", "is_dense"),
        ),
    )
    update = messages.update_to_cloud(HEADER, random_update(5), 0.08, True)
    decode, msg, (sizes, flags) = {
        "image": (messages.decode_image, image_message("bgr8", np.zeros((3, 4, 3), np.uint8), 2), image),
        "depth": (messages.decode_depth, image_message("32FC1", np.ones((3, 4), np.float32)), image),
        "gaussians": (
            messages.cloud_to_gaussians,
            messages.gaussians_to_cloud(HEADER, random_gaussians(3, 1), True, (0.1, 0.1)),
            cloud,
        ),
        "voxels": (messages.cloud_to_voxels, update, cloud),
        "update": (lambda msg: messages.cloud_to_update(msg, 0.08), update, cloud),
    }[kind]
    refusals = 0
    for _ in range(1500):
        try:
            decode(damaged(msg, rng, sizes, flags))
        except BadMessage:
            refusals += 1
    assert 100 < refusals < 1500


# -- clouds of Gaussians -------------------------------------------------------------------------------------------


def random_gaussians(count: int, features: int, seed: int = 0) -> Gaussians:
    """Any bits: NaN with payload, infinities, denormals and negative zero must survive as well."""
    rng = np.random.default_rng(seed)
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 11), (count, features))
    return Gaussians(*(rng.integers(0, 2**32, shape, np.uint32).view(np.float32) for shape in shapes))


def relaid(msg: PointCloud2, columns: int = 1) -> PointCloud2:
    """The same points as another publisher might lay them out: big-endian, fields reversed, gaps, rows, padding."""
    step = 5 + sum(7 for _ in msg.fields)
    count = msg.width * msg.height
    points = np.full((count, step), 0xEE, np.uint8)
    source = np.frombuffer(msg.data, np.uint8).reshape(count, msg.point_step)
    fields = []
    for number, field in enumerate(reversed(msg.fields)):
        size = {PointField.FLOAT32: 4, PointField.UINT8: 1}[field.datatype]
        offset = 2 + 7 * number
        points[:, offset : offset + size] = source[:, field.offset : field.offset + size][:, ::-1]
        fields.append(PointField(name=field.name, offset=offset, datatype=field.datatype, count=1))
    rows = points.reshape(count // columns, columns * step)
    rows = np.concatenate([rows, np.full((len(rows), 3), 0xEE, np.uint8)], axis=1)
    return PointCloud2(
        header=msg.header,
        height=len(rows),
        width=columns,
        fields=fields,
        is_bigendian=True,
        point_step=step,
        row_step=rows.shape[1],
        data=array("B", rows.tobytes()),
        is_dense=msg.is_dense,
    )


def assert_identical(actual: Gaussians, expected: Gaussians) -> None:
    for name, array_ in expected.arrays().items():
        assert actual.arrays()[name].shape == array_.shape, name
        assert actual.arrays()[name].tobytes() == array_.tobytes(), name


@BOTH
@pytest.mark.parametrize("count, features", [(1, 0), (37, 0), (60, 5), (300, 32)])
def test_gaussians_survive_bit_by_bit(count, features, read):
    gaussians = random_gaussians(count, features)
    msg = messages.gaussians_to_cloud(HEADER, gaussians, features > 0, (0.25, 0.125))
    assert msg.is_dense and msg.header == HEADER and (msg.height, msg.width) == (1, count)
    for cloud in (msg, relaid(msg)):
        decoded, semantic, sigma = messages.cloud_to_gaussians(read(cloud))
        assert_identical(decoded, gaussians)
        assert semantic is (features > 0) and sigma == (0.25, 0.125)


def test_the_fields_of_a_gaussian():
    gaussians = Gaussians(
        *(np.array([values], np.float32) for values in ([1, 2, 3], [4, 5, 6], [7, 8, 9, 10])),
        np.array([11], np.float32),
        np.arange(12, 23, dtype=np.float32)[None],
        np.array([[23, 24]], np.float32),
    )
    msg = messages.gaussians_to_cloud(HEADER, gaussians, True, (25.0, 26.0))
    sent = dict(zip([field.name for field in msg.fields], np.frombuffer(msg.data, "<f4").tolist()))
    logits = {f"logit_{label}": 11.0 + label for label in range(1, 12)}
    assert sent == {
        **dict(zip("xyz", (1.0, 2.0, 3.0))),
        **dict(zip(("scale_0", "scale_1", "scale_2"), (4.0, 5.0, 6.0))),
        **dict(zip(("rot_w", "rot_x", "rot_y", "rot_z"), (7.0, 8.0, 9.0, 10.0))),
        "opacity": 11.0,
        **logits,
        **dict(zip(("feature_0", "feature_1"), (23.0, 24.0))),
        **dict(zip(("semantic", "sigma_constant_m", "sigma_factor"), (1.0, 25.0, 26.0))),
    }
    assert all(field.datatype == PointField.FLOAT32 and field.count == 1 for field in msg.fields)


@BOTH
@pytest.mark.parametrize("features", [0, 4])
def test_a_frame_without_gaussians_keeps_what_holds_for_the_frame(features, read):
    msg = messages.gaussians_to_cloud(HEADER, Gaussians.empty(features), True, (0.5, 0.75))
    assert not msg.is_dense and np.isnan(np.frombuffer(msg.data, "<f4")[:3]).all()
    decoded, semantic, sigma = messages.cloud_to_gaussians(read(msg))
    assert_identical(decoded, Gaussians.empty(features))
    assert semantic is True and sigma == (0.5, 0.75)


@BOTH
def test_broken_clouds_of_gaussians_are_refused(read):
    def cloud(**changes):
        msg = messages.gaussians_to_cloud(HEADER, random_gaussians(4, 2), True, (0.1, 0.1))
        for name, value in changes.items():
            setattr(msg, name, value)
        return msg

    good = cloud()
    step = good.point_step
    missing = [field for field in good.fields if field.name != "logit_3"]
    gap = [field for field in good.fields if field.name != "feature_0"]
    for changes, words in (
        ({"fields": missing}, "0 fields 'logit_3' instead of one"),
        ({"fields": gap}, "0 fields 'feature_0'"),
        ({"fields": [*good.fields, good.fields[0]]}, "2 fields 'x'"),
        ({"fields": []}, "0 fields 'x'"),
        ({"point_step": step - 1, "row_step": 4 * step}, f"'sigma_factor' at byte {step - 4} is not within points"),
        ({"point_step": 0}, "not within points of 0 bytes"),
        ({"row_step": 4 * step - 1}, f"rows of {4 * step - 1} where 1 x 4 points"),
        ({"data": good.data[:-1]}, f"holds {4 * step - 1} bytes"),
        ({"width": 5}, "1 x 5 points"),
        ({"height": 2**31}, "2147483648 x 4 points"),
        ({"width": 0, "row_step": 0, "data": array("B")}, "has no point"),
        ({"width": 0}, "has no point"),
    ):
        with refused("bad_cloud", words):
            messages.cloud_to_gaussians(read(cloud(**changes)))
    for name, datatype, count in (("y", PointField.FLOAT64, 1), ("opacity", PointField.FLOAT32, 2)):
        msg = cloud()
        field = next(field for field in msg.fields if field.name == name)
        field.datatype, field.count = datatype, count
        with refused("bad_cloud", f"field '{name}' has datatype {datatype} x {count} instead of 7 x 1"):
            messages.cloud_to_gaussians(read(msg))
    gaussians = random_gaussians(2, 0)
    for semantic, sigma in ((0.5, (0.1, 0.1)), (True, (np.nan, 0.1)), (True, (0.1, -1.0))):
        with refused("bad_cloud", "semantic .* and depth sigma"):
            messages.cloud_to_gaussians(read(messages.gaussians_to_cloud(HEADER, gaussians, semantic, sigma)))


# -- clouds of voxels ----------------------------------------------------------------------------------------------


def random_update(count: int, seed: int = 0) -> VoxelUpdate:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([*range(12), UNKNOWN], np.uint8), count)
    indices = rng.integers(-32768, 32768, (count, 3)).astype(np.int32)
    return VoxelUpdate(indices, labels, rng.random(count, np.float32))


def test_the_bytes_of_a_voxel():
    """The layout, field by field, as RViz and PCL read it."""
    msg = messages.voxels_to_cloud(
        HEADER, np.array([[1.5, -2.5, 3.5]]), np.array([5], np.uint8), np.array([0.75], np.float32)
    )
    x, y, z, blue, green, red, none, label, probability = struct.unpack("<fff4BB3xf", msg.data.tobytes())
    assert (x, y, z, label, probability) == (1.5, -2.5, 3.5, 5, 0.75)
    assert (red, green, blue, none) == (*COLOURS[5].tolist(), 0)
    layout = {field.name: (field.offset, field.datatype, field.count) for field in msg.fields}
    assert layout == {
        "x": (0, PointField.FLOAT32, 1),
        "y": (4, PointField.FLOAT32, 1),
        "z": (8, PointField.FLOAT32, 1),
        "rgb": (12, PointField.FLOAT32, 1),
        "label": (16, PointField.UINT8, 1),
        "probability": (20, PointField.FLOAT32, 1),
    }
    assert (msg.point_step, msg.row_step, msg.width, msg.height) == (24, 24, 1, 1)
    own = messages.voxels_to_cloud(HEADER, np.zeros((1, 3)), np.array([5]), np.ones(1), np.array([[1, 2, 3]], np.uint8))
    assert own.data[12:16].tolist() == [3, 2, 1, 0]


@BOTH
def test_voxels_survive_exactly(read):
    rng = np.random.default_rng(4)
    centres = rng.normal(0, 20, (500, 3)).astype(np.float32)
    update = random_update(500)
    msg = messages.voxels_to_cloud(HEADER, centres, update.labels, update.probabilities)
    for cloud in (msg, relaid(msg, columns=20)):
        decoded = messages.cloud_to_voxels(read(cloud))
        for actual, expected in zip(decoded, (centres, update.labels, update.probabilities)):
            assert actual.dtype == expected.dtype
            np.testing.assert_array_equal(actual, expected)
    none = messages.voxels_to_cloud(HEADER, centres[:0], update.labels[:0], update.probabilities[:0])
    assert none.width == 0 and none.is_dense
    assert [len(a) for a in messages.cloud_to_voxels(read(none))] == [0, 0, 0]


@BOTH
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("resolution", [0.05, 0.08, 1 / 3])
@pytest.mark.parametrize("count", [0, 1, 2000])
def test_updates_survive_exactly(count, resolution, whole, read):
    update = random_update(count)
    msg = messages.update_to_cloud(HEADER, update, resolution, whole)
    assert msg.width == count and [msg.data[i] for i in range(17, len(msg.data), 24)] == [whole] * count
    decoded, decoded_whole = messages.cloud_to_update(read(msg), resolution)
    assert decoded_whole is whole
    assert decoded.indices.dtype == np.int32 and decoded.indices.shape == (count, 3)
    np.testing.assert_array_equal(decoded.indices, update.indices)
    np.testing.assert_array_equal(decoded.labels, update.labels)
    np.testing.assert_array_equal(decoded.probabilities, update.probabilities)


@BOTH
def test_broken_voxels_are_refused(read):
    update = random_update(50)

    def cloud(centre=(0.04, 0.04, 0.04), label=3, probability=0.5):
        return read(messages.voxels_to_cloud(HEADER, np.array([centre]), np.array([label]), np.array([probability])))

    messages.cloud_to_voxels(cloud())
    with refused("bad_cloud", "NaN or infinite"):
        messages.cloud_to_voxels(cloud(centre=(0.04, np.inf, 0.04)))
    with refused("bad_cloud", "label is none of"):
        messages.cloud_to_voxels(cloud(label=12))
    for probability in (np.nan, -0.1, 1.1):
        with refused("bad_cloud", "probability is NaN or outside"):
            messages.cloud_to_voxels(cloud(probability=probability))
    for centre in ((0.08, 0.04, 0.04), (1e9, 0.04, 0.04)):
        with refused("bad_cloud", "fits no voxel of 0.08 m"):
            messages.cloud_to_update(cloud(centre=centre), 0.08)
    for other in (0.04, 0.1, 0.16):
        with refused("bad_cloud", f"fits no voxel of {other:g} m: give both nodes the same resolution"):
            messages.cloud_to_update(read(messages.update_to_cloud(HEADER, update, 0.08, True)), other)
    gaussians = messages.gaussians_to_cloud(HEADER, random_gaussians(3, 0), False, (0.1, 0.1))
    with refused("bad_cloud", "0 fields 'label' instead of one: is it on the right topic"):
        messages.cloud_to_voxels(read(gaussians))


# -- occupancy grids -----------------------------------------------------------------------------------------------


def grid_of(voxels: dict, low: float, high: float, resolution: float = 0.1):
    indices = np.array(list(voxels), np.int32).reshape(-1, 3)
    labels = np.array(list(voxels.values()), np.uint8)
    msg = messages.occupancy_grid_message(HEADER, indices, labels, resolution, low, high)
    as_rosbags(msg)  # it can be sent
    return msg, np.array(msg.data, np.int8).reshape(msg.info.height, msg.info.width)


def test_known_cells_are_where_they_are():
    voxels = {
        (-3, 2, 1): 3,  # occupied
        (-3, 2, 2): 0,  # free above it: still occupied
        (1, 4, 3): 0,  # free
        (0, 2, 2): 5,
        (-1, 3, 1): 255,  # unknown
        (-2, 3, 9): 7,  # above the band
        (-9, 9, 9): 7,  # above the band, and outside what is known within it
        (9, -9, 0): 0,  # below the band
    }
    msg, cells = grid_of(voxels, 0.1, 0.5)
    # x from -3 to 1, y from 2 to 4.
    assert (msg.info.width, msg.info.height) == (5, 3) and msg.info.resolution == pytest.approx(0.1)
    origin = msg.info.origin
    assert (origin.position.x, origin.position.y) == pytest.approx((-0.3, 0.2))
    assert (origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w) == (0, 0, 0, 1)
    assert cells.tolist() == [[100, -1, -1, 100, -1], [-1] * 5, [-1, -1, -1, -1, 0]]
    assert msg.header == HEADER


def test_cells_agree_with_a_walk_through_the_columns():
    rng = np.random.default_rng(6)
    for _ in range(20):
        count = rng.integers(1, 200)
        indices = rng.integers([-9, 3, -4], [5, 20, 8], (count, 3))
        voxels = {tuple(i): int(label) for i, label in zip(indices.tolist(), rng.choice([0, 0, 0, 4, 11, 255], count))}
        low, high = -0.12, 0.33
        msg, cells = grid_of(voxels, low, high)
        band = {i: label for i, label in voxels.items() if low <= (i[2] + 0.5) * 0.1 <= high and label != 255}
        known = np.array(list(band)).reshape(-1, 3)
        if not len(known):
            assert cells.size == 0
            continue
        x0, y0 = known[:, 0].min(), known[:, 1].min()
        assert cells.shape == (np.ptp(known[:, 1]) + 1, np.ptp(known[:, 0]) + 1)
        for row in range(cells.shape[0]):
            for column in range(cells.shape[1]):
                labels = [label for i, label in band.items() if i[:2] == (x0 + column, y0 + row)]
                expected = 100 if any(labels) else 0 if labels else -1
                assert cells[row, column] == expected


@pytest.mark.parametrize("resolution", [0.05, 0.08, 0.1])
def test_the_edges_of_the_band_belong_to_it(resolution):
    for index in range(-30, 30):
        centre = (index + 0.5) * resolution
        voxels = {(0, 0, index): 3}
        for low, high, inside in (
            (centre, centre + 1, True),
            (centre - 1, centre, True),
            (centre + 0.01, centre + 1, False),
            (centre - 1, centre - 0.01, False),
        ):
            assert grid_of(voxels, low, high, resolution)[1].size == inside


def test_grids_of_nothing_and_of_too_much():
    for voxels in ({}, {(1, 2, 3): 255}):
        msg, cells = grid_of(voxels, -1, 1)
        assert (msg.info.width, msg.info.height, len(msg.data)) == (0, 0, 0) and cells.shape == (0, 0)
    with pytest.raises(ValueError, match="20001 x 10001 cells: a voxel lies far off"):
        grid_of({(-10000, 0, 0): 3, (10000, 10000, 0): 0}, 0, 1)


# -- markers -------------------------------------------------------------------------------------------------------


def test_markers_are_coloured_cubes():
    centres = np.random.default_rng(7).normal(0, 3, (40, 3)).astype(np.float32)
    labels = (np.arange(40) % 11 + 1).astype(np.uint8)
    msg = messages.marker_message(HEADER, centres, labels, 0.08, 100)
    as_rosbags(msg)  # it can be sent
    delete, cubes = msg.markers
    assert delete.action == Marker.DELETEALL
    assert (cubes.type, cubes.action, cubes.header) == (Marker.CUBE_LIST, Marker.ADD, HEADER)
    assert (cubes.scale.x, cubes.scale.y, cubes.scale.z) == (0.08, 0.08, 0.08) and cubes.pose.orientation.w == 1.0
    np.testing.assert_array_equal([[p.x, p.y, p.z] for p in cubes.points], centres)
    colours = np.array([[c.r, c.g, c.b] for c in cubes.colors]) * 255
    np.testing.assert_allclose(colours, COLOURS[labels], atol=1e-3)
    assert all(c.a == 1.0 for c in cubes.colors)


def test_too_many_markers_are_thinned_evenly():
    centres = np.arange(3000.0)[:, None] * [1, 0, 0]
    labels = np.where(np.arange(3000) < 1500, 3, 5).astype(np.uint8)
    cubes = messages.marker_message(HEADER, centres, labels, 0.1, 30).markers[1]
    xs = np.array([p.x for p in cubes.points])
    assert len(xs) == len(cubes.colors) == 30 and xs[0] == 0 and xs[-1] == 2999 and np.diff(xs).max() < 110
    red = np.array([c.r for c in cubes.colors]) * 255
    np.testing.assert_allclose(red, COLOURS[np.where(xs < 1500, 3, 5), 0], atol=1e-3)


def test_no_markers_delete_the_old_ones():
    msg = messages.marker_message(HEADER, np.zeros((0, 3)), np.zeros(0, np.uint8), 0.08, 10)
    assert [marker.action for marker in msg.markers] == [Marker.DELETEALL]
