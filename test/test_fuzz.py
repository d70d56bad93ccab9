"""Whatever comes in from outside - clouds, transforms, map files, parameter files - is used or refused in a sentence.

What a frame is made of is in test_images.py, what a model's manifest holds in test_inference.py. SGROCC_FUZZ=20 tries
twenty times as many inputs (`make fuzz`).
"""

import io
import json
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import TransformStamped
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scenes import CAMERA, FUZZ, pose_at
from sensor_msgs.msg import PointField
from test_map_file import same, walk
from test_messages import HEADER, random_gaussians, random_update

from sgrocc.experts import Prediction
from sgrocc.labels import NUM_CLASSES, UNKNOWN
from sgrocc.memory import map_file
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc_ros import messages, parameters
from sgrocc_ros.messages import BadMessage
from sgrocc_ros.parameters import BadParameter
from sgrocc_ros.transforms import PoseUnavailable, TransformBuffer, add_tf_message

pytestmark = pytest.mark.fuzz

SIZES = st.sampled_from([0, 1, 2, 3, 17, 24, 2**16, 2**31, 2**32 - 1]) | st.integers(0, 200)
FLOATS = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3.4e38, float("inf"), float("-inf"), float("nan")])


def is_a_sentence(error: Exception) -> None:
    assert 10 < len(str(error)) < 1200 and len(str(error).splitlines()) == 1, str(error)


# -- clouds ------------------------------------------------------------------------------------------------------------


@st.composite
def clouds(draw, kind: str):
    """A cloud as we send it, with some of it replaced: sizes, flags, fields, bytes and numbers."""
    if kind == "gaussians":
        whole = messages.gaussians_to_cloud(HEADER, random_gaussians(3, 2), True, (0.1, 0.1))
    else:
        whole = messages.update_to_cloud(HEADER, random_update(4), 0.08, draw(st.booleans()))
    msg = SimpleNamespace(**{name[1:]: getattr(whole, name) for name in whole.__slots__ if name != "_check_fields"})
    msg.fields = [PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count) for f in whole.fields]
    msg.data = np.frombuffer(bytes(whole.data), np.uint8).copy()
    for what in draw(
        st.lists(st.sampled_from(["size", "flag", "field", "fields", "number", "byte", "cut"]), max_size=4)
    ):
        if what == "size":
            setattr(msg, draw(st.sampled_from(["height", "width", "point_step", "row_step"])), draw(SIZES))
        elif what == "flag":
            setattr(msg, draw(st.sampled_from(["is_bigendian", "is_dense"])), draw(st.booleans()))
        elif what == "field" and msg.fields:
            field = draw(st.sampled_from(msg.fields))
            name = draw(st.sampled_from(["name", "offset", "datatype", "count"]))
            ranges = {"name": st.text(max_size=9), "datatype": st.integers(0, 255)}
            setattr(field, name, draw(ranges.get(name, SIZES)))
        elif what == "fields":
            msg.fields = draw(st.lists(st.sampled_from(msg.fields or whole.fields), max_size=len(whole.fields) + 1))
        elif what == "number" and len(msg.data) >= 4:
            start = 4 * draw(st.integers(0, len(msg.data) // 4 - 1))
            msg.data[start : start + 4] = np.frombuffer(np.float32(draw(FLOATS)).tobytes(), np.uint8)
        elif what == "byte" and len(msg.data):
            msg.data[draw(st.integers(0, len(msg.data) - 1))] = draw(st.integers(0, 255))
        elif what == "cut":
            msg.data = msg.data[: draw(st.integers(0, len(msg.data)))]
    return msg


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@settings(max_examples=600 * FUZZ, deadline=None)
@given(msg=clouds("gaussians"))
def test_a_cloud_of_gaussians_is_read_or_refused_and_what_is_read_the_memory_takes_or_refuses(msg):
    try:
        gaussians, semantic, sigma = messages.cloud_to_gaussians(msg)
    except BadMessage as error:
        is_a_sentence(error)
        event("refused")
        return
    event("read")
    assert semantic in (True, False) and all(np.isfinite(sigma)) and len(gaussians.means) == len(gaussians.opacities)
    depth = np.ones((CAMERA.height // 8, CAMERA.width // 8), np.float32)
    camera = CAMERA.resized(depth.shape[1], depth.shape[0])
    memory = GaussianMemory()
    try:
        memory.fuse(Prediction(depth, camera, gaussians, semantic, sigma), pose_at(0, 0, 0))
    except ValueError as error:
        event("not fused")
        is_a_sentence(error)
    assert memory.gaussians().finite().all()
    known = memory.snapshot()
    assert ((known.probabilities >= 0) & (known.probabilities <= 1)).all()
    assert np.isin(known.labels, [*range(NUM_CLASSES + 1), UNKNOWN]).all()


@settings(max_examples=600 * FUZZ, deadline=None)
@given(msg=clouds("update"))
def test_an_update_of_voxels_is_read_or_refused(msg):
    try:
        update, whole = messages.cloud_to_update(msg, 0.08)
    except BadMessage as error:
        is_a_sentence(error)
        event("refused")
        return
    event("read")
    assert whole in (True, False) and (np.abs(update.indices) <= 2**15).all()
    assert np.isin(update.labels, [*range(NUM_CLASSES + 1), UNKNOWN]).all()
    assert ((update.probabilities >= 0) & (update.probabilities <= 1)).all()


# -- transforms --------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 1e-200, 1e300])
FRAMES = st.sampled_from(["map", "odom", "base", "/odom", "camera", "", "ä b"])


@st.composite
def transforms(draw):
    stamped = TransformStamped(child_frame_id=draw(FRAMES))
    stamped.header.frame_id = draw(FRAMES)
    stamped.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3))
    stamped.header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        stamped.transform.rotation.w = 1.0
    else:
        for axis in "xyzw":
            setattr(stamped.transform.rotation, axis, draw(NUMBERS))
    for axis in "xyz":
        setattr(stamped.transform.translation, axis, draw(NUMBERS))
    return stamped


@settings(max_examples=400 * FUZZ, deadline=None)
@given(
    sent=st.lists(st.tuples(transforms(), st.booleans()), max_size=8),
    asked=st.lists(st.tuples(FRAMES, FRAMES, st.integers(-5, 2**62)), max_size=4),
)
def test_transforms_give_finite_poses_or_a_sentence(sent, asked):
    buffer = TransformBuffer(10.0)
    for stamped, static in sent:
        for problem in add_tf_message(buffer, SimpleNamespace(transforms=[stamped]), static):
            assert 10 < len(problem) < 1200
        stamp = stamped.header.stamp
        asked = [*asked, (stamped.header.frame_id, stamped.child_frame_id, stamp.sec * 10**9 + stamp.nanosec)]
    for target, source, stamp_ns in asked:
        try:
            pose = buffer.lookup(target, source, stamp_ns)
        except PoseUnavailable as error:
            is_a_sentence(error)
            event(error.reason)
        else:
            event("a pose")
            assert np.isfinite(pose.translation).all() and np.isfinite(pose.rotation).all()
            np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-6)


# -- files -------------------------------------------------------------------------------------------------------------


@cache
def a_saved_map() -> bytes:
    memory, file = GaussianMemory(), io.BytesIO()
    walk(memory, 0, 2)
    state = memory.state()
    head = {"format": map_file.FORMAT, "frame_id": "odom", "resolution_m": 0.08, "sha256": map_file._digest(state)}
    np.savez_compressed(file, head=np.array(json.dumps(head)), **state)
    return file.getvalue()


@st.composite
def map_files(draw) -> bytes:
    """The bytes of a map, some of them changed; or its arrays changed, under the right checksum."""
    if draw(st.booleans()):
        content = bytearray(a_saved_map())
        for what in draw(st.lists(st.sampled_from(["flip", "cut", "insert"]), min_size=1, max_size=3)):
            place = draw(st.integers(0, max(len(content) - 1, 0)))
            if what == "flip" and content:
                content[place] ^= draw(st.integers(1, 255))
            elif what == "cut":
                del content[place : place + draw(st.integers(1, 4000))]
            else:
                content[place:place] = draw(st.binary(min_size=1, max_size=20))
        return bytes(content)
    with np.load(io.BytesIO(a_saved_map())) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    head = json.loads(str(arrays.pop("head")))
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    what = draw(st.sampled_from(["value", "rows", "type", "shape", "drop", "head"]))
    if what == "value" and array.size:
        with np.errstate(all="ignore"):
            array.flat[draw(st.integers(0, array.size - 1))] = np.float64(draw(FLOATS)).astype(array.dtype)
    elif what == "rows":
        arrays[name] = array[: draw(st.integers(0, max(len(array) - 1, 0)))] if array.ndim else array
    elif what == "type":
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(draw(st.sampled_from(["f2", "f8", "i8", "u1", "U3", "?"])))
    elif what == "shape":
        arrays[name] = array.reshape(-1, 1)
    elif what == "drop":
        del arrays[name]
    else:
        head[draw(st.sampled_from(sorted(head)))] = draw(st.none() | st.integers() | st.text(max_size=5))
    head["sha256"] = head.get("sha256") and map_file._digest(arrays)
    file = io.BytesIO()
    np.savez_compressed(file, head=np.array(json.dumps(head)), **arrays)
    return file.getvalue()


@pytest.fixture(scope="module")
def memories():
    """One that is loaded into, and its like."""
    one, other = GaussianMemory(), GaussianMemory()
    for memory in (one, other):
        walk(memory, 2, 3)
    return one, other


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:invalid value encountered")
@settings(max_examples=150 * FUZZ, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=map_files())
def test_a_damaged_map_is_refused_and_changes_nothing(memories, tmp_path, content):
    memory, untouched = memories
    path = tmp_path / "map"
    path.write_bytes(content)
    try:
        map_file.load(memory, path, "odom")
    except ValueError as error:
        assert 10 < len(str(error)) < 1200
        event("refused")
        same(memory, untouched)
        return
    # Bytes that zip does not read, or a value that another map might have had: what it holds is a map, and goes on.
    event("loaded")
    known = memory.snapshot()
    assert np.isin(known.labels, [*range(NUM_CLASSES + 1), UNKNOWN]).all() and memory.gaussians().finite().all()
    walk(memory, 0, 1)
    map_file.save(untouched, path, "odom")
    map_file.load(memory, path, "odom")
    same(memory, untouched)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([row.name for row in parameters.TABLE]) | st.text(max_size=8), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=400 * FUZZ, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200) | st.text(max_size=200) | TREES)
def test_a_parameter_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / "p.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        if not isinstance(content, str):
            content = yaml.safe_dump({"/**": {"ros__parameters": content}})
        path.write_text(content, encoding="utf-8", errors="replace")
    try:
        values = parameters.from_yaml(path)
    except BadParameter as error:
        event("refused")
        assert 10 < len(str(error)) < 3000
        return
    event("read")
    assert values.keys() == {row.name for row in parameters.TABLE}


@st.composite
def some_values(draw) -> dict:
    """Of up to six parameters; each is mostly of its type and within its range."""
    values = {}
    for row in draw(st.lists(st.sampled_from(parameters.TABLE), max_size=6)):
        right = {
            bool: st.booleans(),
            int: st.integers(int(row.low or 0), int(row.high or 0)),
            float: st.floats(float(row.low or 0), float(row.high or 0)),
            str: st.sampled_from(row.choices or ("", "map", "a b", "front rear")),
        }[type(row.default)]
        values[row.name] = draw(right if draw(st.integers(0, 9)) else SCALARS)
    return values


@settings(max_examples=400 * FUZZ, deadline=None)
@given(given_values=some_values())
def test_values_are_complete_and_in_range_or_refused(given_values):
    try:
        values = parameters.complete(given_values)
    except BadParameter as error:
        event("refused")
        assert 10 < len(str(error)) < 3000
        return
    event("taken")
    for row in parameters.TABLE:
        value = values[row.name]
        assert type(value) is type(row.default)
        assert row.low is None or row.low <= value <= row.high
        assert not row.choices or value in row.choices
