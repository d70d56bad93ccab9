"""Messages to numpy and back, with the messages of rclpy and with those that rosbags reads from the same bytes."""

from __future__ import annotations

import struct
from array import array
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2")
rosbags_types = pytest.importorskip("rosbags.typesys", reason="needs rosbags")

from rclpy.serialization import serialize_message  # noqa: E402
from scenes import CAMERA, depth_of_boxes, pose_at, prediction_of  # noqa: E402
from sensor_msgs.msg import PointCloud2, PointField  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from sgrocc.gaussians import Gaussians  # noqa: E402
from sgrocc.labels import COLOURS, UNKNOWN  # noqa: E402
from sgrocc.memory.confidence import Confirmation  # noqa: E402
from sgrocc.memory.gaussian_memory import GaussianMemory  # noqa: E402
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


@pytest.mark.parametrize("kind", ["gaussians", "voxels", "update"])
def test_whatever_arrives_is_read_or_refused(kind):
    rng = np.random.default_rng(8)
    sizes, flags = ("height", "width", "point_step", "row_step"), ("is_bigendian", "is_dense")
    update = messages.update_to_cloud(HEADER, random_update(5), 0.08, True)
    decode, msg = {
        "gaussians": (
            messages.cloud_to_gaussians,
            messages.gaussians_to_cloud(HEADER, random_gaussians(3, 1), True, (0.1, 0.1)),
        ),
        "voxels": (messages.cloud_to_voxels, update),
        "update": (lambda msg: messages.cloud_to_update(msg, 0.08), update),
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


# -- clouds of the memory, for viewers -----------------------------------------------------------------------------


def points_of(msg: PointCloud2) -> np.ndarray:
    """The points of a little-endian cloud in one row, as a structured array, by the fields that the message names."""
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT8: "u1"}
    layout = {
        "names": [field.name for field in msg.fields],
        "formats": [kinds[field.datatype] for field in msg.fields],
        "offsets": [field.offset for field in msg.fields],
        "itemsize": msg.point_step,
    }
    assert not msg.is_bigendian and msg.is_dense and msg.height == 1 and msg.row_step == msg.width * msg.point_step
    assert all(field.count == 1 for field in msg.fields) and len(msg.data) == msg.row_step
    as_rosbags(msg)  # it can be sent
    return np.frombuffer(msg.data, np.dtype(layout))


def colours_of(points: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of the field `rgb`."""
    bits = np.ascontiguousarray(points["rgb"]).view(np.uint32)
    assert not (bits >> 24).any()
    return np.stack([(bits >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)


@lru_cache
def memory_of_a_wall() -> tuple[GaussianMemory, Gaussians]:
    """A memory that saw a wall and a box from two places, with noise and with classes; and what it held in between."""
    memory, rng = GaussianMemory(), np.random.default_rng(2)
    boxes = [((2.0, -9, -9), (3, 9, 9)), ((1.2, -0.2, -0.3), (1.5, 0.2, 0.3))]
    for left_m in (0.0, 0.4):
        before = memory.gaussians()
        pose = pose_at(0, left_m, 0)
        depth = depth_of_boxes(boxes, CAMERA, pose) + rng.normal(0, 0.02, (CAMERA.height, CAMERA.width))
        prediction = prediction_of(depth.astype(np.float32))
        logits = rng.normal(0, 2, prediction.gaussians.logits.shape)
        memory.fuse(replace(prediction, gaussians=replace(prediction.gaussians, logits=logits), semantic=True), pose)
    return memory, before


def test_the_cloud_of_the_memory_is_what_it_holds():
    gaussians = memory_of_a_wall()[0].gaussians()
    msg = messages.memory_cloud(HEADER, gaussians)
    points = points_of(msg)
    assert points.dtype.names == ("x", "y", "z", "rgb", "opacity", "label", "scale")
    assert msg.header == HEADER and len(points) == len(gaussians) > 300
    np.testing.assert_array_equal(np.stack([points[name] for name in "xyz"], axis=1), gaussians.means)
    np.testing.assert_array_equal(points["opacity"], gaussians.opacities)
    np.testing.assert_array_equal(points["scale"], [max(scales) for scales in gaussians.scales.tolist()])
    labels = 1 + np.argmax(gaussians.logits, axis=1)
    assert points["label"].dtype == np.uint8 and len(np.unique(labels)) == 11
    np.testing.assert_array_equal(points["label"], labels)
    np.testing.assert_array_equal(colours_of(points), COLOURS[labels])


def test_the_largest_scale_and_the_generic_class():
    one = random_gaussians(3, 0)
    scales = [[0.01, 0.02, 0.16], [0.3, 0.2, 0.1], [0.1, 0.5, 0.4]]
    gaussians = replace(one, means=np.eye(3), scales=scales, logits=np.zeros((3, 11)), opacities=[0.0, 0.5, 1.0])
    points = points_of(messages.memory_cloud(HEADER, gaussians))
    np.testing.assert_array_equal(points["scale"], np.array([0.16, 0.3, 0.5], np.float32))
    # Without a class that is known: objects.
    assert points["label"].tolist() == [11, 11, 11] and points["opacity"].tolist() == [0.0, 0.5, 1.0]


def test_the_cloud_of_confidences_is_what_the_memory_confirmed():
    memory, before = memory_of_a_wall()
    confirmation = memory.confirmation
    points = points_of(messages.confidence_cloud(HEADER, confirmation))
    assert points.dtype.names == ("x", "y", "z", "geometric", "semantic", "hybrid", "intensity")
    assert 100 < len(points) < len(before)
    for name in ("geometric", "semantic", "hybrid"):
        np.testing.assert_array_equal(points[name], getattr(confirmation, name).astype(np.float32))
        assert (0 <= points[name]).all() and (points[name] <= 1).all() and np.ptp(points[name]) > 0.1
    np.testing.assert_array_equal(points["intensity"], points["hybrid"])
    np.testing.assert_allclose(points["hybrid"], points["geometric"] * points["semantic"], rtol=1e-5)
    # Each is where the memory held it before the frame; none stands there twice.
    means = list(map(tuple, np.stack([points[name] for name in "xyz"], axis=1).tolist()))
    assert set(means) <= set(map(tuple, before.means.tolist())) and len(set(means)) == len(means)


def test_confidences_that_are_the_same_for_all_stand_in_every_point():
    gaussians = replace(random_gaussians(2, 0), means=[[1, 2, 3], [4, 5, 6]])
    told = Confirmation(gaussians, np.array([0.25, 0.5]), 1.0, np.array([0.125, 0.0]))
    points = points_of(messages.confidence_cloud(HEADER, told))
    assert points.tolist() == [(1, 2, 3, 0.25, 1, 0.125, 0.125), (4, 5, 6, 0.5, 1, 0, 0)]


def test_an_empty_memory_is_a_cloud_without_points():
    memory = GaussianMemory()
    for msg, fields in (
        (messages.memory_cloud(HEADER, memory.gaussians()), ["x", "y", "z", "rgb", "opacity", "label", "scale"]),
        (
            messages.confidence_cloud(HEADER, memory.confirmation),
            ["x", "y", "z", "geometric", "semantic", "hybrid", "intensity"],
        ),
    ):
        assert len(points_of(msg)) == 0 and msg.header == HEADER
        assert [field.name for field in msg.fields] == fields
    # Nor does a frame that shows nothing again confirm anything.
    memory.fuse(prediction_of(np.zeros((CAMERA.height, CAMERA.width), np.float32)), pose_at(0, 0, 0))
    assert memory.confirmation is not None
    assert len(points_of(messages.confidence_cloud(HEADER, memory.confirmation))) == 0


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
