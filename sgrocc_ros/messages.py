"""ROS messages to numpy and back.

The decoders read fields only, so they take the messages of rclpy and of rosbags alike; the encoders make rclpy
messages. Decoded arrays may share the message's memory. What a message lacks or breaks raises BadMessage.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sgrocc.gaussians import Gaussians
from sgrocc.labels import COLOURS, NUM_CLASSES, UNKNOWN, most_likely_class
from sgrocc.memory.confidence import Confirmation
from sgrocc.memory.voxels import VoxelUpdate

#: A received centre this share of a voxel away from where a centre can be was made with another resolution.
CENTRE_TOLERANCE = 0.05

#: numpy type to the number that stands for it in a PointField.
FIELD_TYPES = {"f4": PointField.FLOAT32, "u1": PointField.UINT8}

GAUSSIAN_FIELDS = {
    "means": ("x", "y", "z"),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "rotations": ("rot_w", "rot_x", "rot_y", "rot_z"),
    "opacities": ("opacity",),
    "logits": tuple(f"logit_{label}" for label in range(1, NUM_CLASSES + 1)),
}
#: What holds for the whole frame stands in every point.
FRAME_FIELDS = ("semantic", "sigma_constant_m", "sigma_factor")

#: One voxel of 24 bytes. `rgb` is the colour as RViz and PCL expect it: 0x00RRGGBB in the bits of a float32.
VOXEL = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "probability"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "u1", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20],
        "itemsize": 24,
    }
)
#: One remembered Gaussian of 28 bytes; `scale` is its largest standard deviation, metres.
REMEMBERED = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "opacity", "label", "scale"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<f4", "u1", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20, 24],
        "itemsize": 28,
    }
)
#: One Gaussian that was seen again, 28 bytes; `intensity` is hybrid, as viewers colour by that name on their own.
CONFIRMED = np.dtype([(name, "<f4") for name in ("x", "y", "z", "geometric", "semantic", "hybrid", "intensity")])
#: Where the field `whole` of a voxel update stands, in the gap after the label.
WHOLE_OFFSET = 17


class BadMessage(ValueError):
    """A message that cannot be used: one sentence with cause and cure, and a short `reason` to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def type_name(kind: type) -> str:
    """Of a message class, such as sensor_msgs/msg/Image."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def stamp_ns(header: Header) -> int:
    """A header's stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def to_header(stamp_ns: int, frame_id: str) -> Header:
    """The header of a stamp in nanoseconds; raises ValueError beyond what a stamp can hold (year 2038)."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    if not -(2**31) <= seconds < 2**31:
        raise ValueError(f"a stamp of {seconds} s does not fit into a ROS message: check the clock")
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)


def gaussians_to_cloud(
    header: Header, gaussians: Gaussians, semantic: bool, depth_sigma_m: tuple[float, float]
) -> PointCloud2:
    """A frame's Gaussians as named float32 fields, exactly; F features are feature_0 to feature_{F-1}.

    `semantic` (0 or 1) and `depth_sigma_m` (sigma_constant_m, sigma_factor; see Prediction) stand in every point, as
    float32. A frame without Gaussians sends them in one invalid point: NaN position and is_dense false, which viewers
    skip.
    """
    names = [name for group in GAUSSIAN_FIELDS.values() for name in group]
    names += [f"feature_{i}" for i in range(gaussians.features.shape[1])]
    names += FRAME_FIELDS
    points = np.full((max(len(gaussians), 1), len(names)), np.nan, "<f4")
    if len(gaussians):
        columns = [array.reshape(len(gaussians), -1) for array in gaussians.arrays().values()]
        points[:, : -len(FRAME_FIELDS)] = np.concatenate(columns, axis=1)
    points[:, -len(FRAME_FIELDS) :] = (float(semantic), *depth_sigma_m)
    kind = np.dtype([(name, "<f4") for name in names])
    return cloud_message(header, points, kind, is_dense=len(gaussians) > 0)


def cloud_to_gaussians(msg: PointCloud2) -> tuple[Gaussians, bool, tuple[float, float]]:
    """What gaussians_to_cloud was given: (gaussians, semantic, depth_sigma_m). Raises BadMessage (bad_cloud)."""
    count = sum(field.name.startswith("feature_") for field in msg.fields)
    groups = {**GAUSSIAN_FIELDS, "features": tuple(f"feature_{i}" for i in range(count))}
    names = [name for group in groups.values() for name in group]
    points = _read_points(msg, {name: "f4" for name in (*names, *FRAME_FIELDS)})
    if not len(points):
        raise BadMessage("bad_cloud", "the cloud of Gaussians has no point: send one invalid point for an empty frame")
    semantic, *sigma = (float(points[name][0]) for name in FRAME_FIELDS)
    if semantic not in (0.0, 1.0) or not all(math.isfinite(s) and s >= 0 for s in sigma):
        raise BadMessage(
            "bad_cloud",
            f"the cloud of Gaussians has semantic {semantic:g} and depth sigma {sigma}: publish 0 or 1, and two finite "
            "numbers that are not negative",
        )
    points = _valid(msg, points)
    arrays = {name: np.empty((len(points), len(group)), np.float32) for name, group in groups.items()}
    for name, group in groups.items():
        for column, field in enumerate(group):
            arrays[name][:, column] = points[field]
    arrays["opacities"] = arrays["opacities"][:, 0]
    return Gaussians(**arrays), semantic == 1.0, (sigma[0], sigma[1])


def voxels_to_cloud(
    header: Header,
    centres: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    colours: np.ndarray | None = None,
) -> PointCloud2:
    """Voxels as a coloured cloud with the fields of VOXEL.

    centres (N, 3) metres; labels (N,) 0, 1 to 11, 255; probabilities (N,) of being occupied; colours (N, 3) uint8 RGB,
    those of the labels where None.
    """
    labels = np.asarray(labels, np.uint8)
    points = _points_at(centres, VOXEL)
    points["rgb"] = _rgb_field(COLOURS[labels] if colours is None else colours)
    points["label"] = labels
    points["probability"] = probabilities
    return cloud_message(header, points, VOXEL, is_dense=True)


def cloud_to_voxels(msg: PointCloud2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centres (N, 3) float32, labels (N,) uint8, probabilities (N,) float32). Raises BadMessage (bad_cloud)."""
    points = _valid(msg, _read_points(msg, {"x": "f4", "y": "f4", "z": "f4", "label": "u1", "probability": "f4"}))
    centres = np.stack([points["x"], points["y"], points["z"]], axis=1).astype(np.float32)
    labels = points["label"].astype(np.uint8)
    probabilities = points["probability"].astype(np.float32)
    if not np.isfinite(centres).all():
        raise BadMessage("bad_cloud", "a voxel's centre is NaN or infinite: check who else publishes on this topic")
    if ((labels > NUM_CLASSES) & (labels != UNKNOWN)).any():
        raise BadMessage("bad_cloud", f"a voxel's label is none of 0 to {NUM_CLASSES} and {UNKNOWN}: check who sent it")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BadMessage("bad_cloud", "a voxel's probability is NaN or outside 0 to 1: check who publishes the voxels")
    return centres, labels, probabilities


def update_to_cloud(header: Header, update: VoxelUpdate, resolution: float, whole: bool) -> PointCloud2:
    """A voxel update between nodes: the cloud of voxels_to_cloud, exact for indices within +-32768.

    whole: the update is the whole map and replaces what the receiver had. Then the cloud has a field of that name: the
    list of fields also arrives where there is no point.
    """
    cloud = voxels_to_cloud(header, (update.indices + 0.5) * resolution, update.labels, update.probabilities)
    if whole:
        cloud.fields.append(PointField(name="whole", offset=WHOLE_OFFSET, datatype=PointField.UINT8, count=1))
        np.frombuffer(cloud.data, np.uint8)[WHOLE_OFFSET :: VOXEL.itemsize] = 1
    return cloud


def cloud_to_update(msg: PointCloud2, resolution: float) -> tuple[VoxelUpdate, bool]:
    """(update, whole) of update_to_cloud; raises BadMessage (bad_cloud), for another resolution as well."""
    centres, labels, probabilities = cloud_to_voxels(msg)
    cells = centres.astype(np.float64) / resolution - 0.5
    indices = np.rint(cells)
    if (np.abs(cells - indices) > CENTRE_TOLERANCE).any() or (np.abs(indices) > 2**15).any():
        raise BadMessage(
            "bad_cloud",
            f"a voxel's centre fits no voxel of {resolution:g} m: give both nodes the same resolution_m",
        )
    whole = any(field.name == "whole" for field in msg.fields)
    return VoxelUpdate(indices.astype(np.int32), labels, probabilities), whole


def memory_cloud(header: Header, gaussians: Gaussians) -> PointCloud2:
    """Remembered Gaussians for viewers, with the fields of REMEMBERED: rgb and label are those of the likeliest class.

    What a program reads is the cloud of gaussians_to_cloud. Without Gaussians there is no point.
    """
    points = _points_at(gaussians.means, REMEMBERED)
    points["label"] = most_likely_class(gaussians.logits)
    points["rgb"] = _rgb_field(COLOURS[points["label"]])
    points["opacity"] = gaussians.opacities
    points["scale"] = np.maximum.reduce(list(gaussians.scales.T))  # twenty times faster than along the rows
    return cloud_message(header, points, REMEMBERED, is_dense=True)


def confidence_cloud(header: Header, confirmation: Confirmation | None) -> PointCloud2:
    """How far the last frame confirmed the Gaussians that it saw again, with the fields of CONFIRMED, where they were
    before it. None, as before the first frame: a cloud without points.
    """
    if confirmation is None:
        return cloud_message(header, np.zeros(0, CONFIRMED), CONFIRMED, is_dense=True)
    points = _points_at(confirmation.gaussians.means, CONFIRMED)
    for name in ("geometric", "semantic", "hybrid"):
        points[name] = getattr(confirmation, name)
    points["intensity"] = points["hybrid"]
    return cloud_message(header, points, CONFIRMED, is_dense=True)


def marker_message(
    header: Header, centres: np.ndarray, labels: np.ndarray, resolution: float, max_markers: int
) -> MarkerArray:
    """One list of cubes in the labels' colours after the order to delete the last; without voxels that order alone.

    centres (N, 3) metres; labels (N,) uint8. More than `max_markers` voxels are thinned evenly, since every cube is a
    Python object.
    """
    markers = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    if not len(centres):
        return markers
    if len(centres) > max_markers:
        kept = np.linspace(0, len(centres) - 1, max_markers).astype(np.int64)
        centres, labels = centres[kept], labels[kept]
    shade = {
        label: ColorRGBA(**dict(zip("rgb", (COLOURS[label] / 255.0).tolist())), a=1.0)
        for label in np.unique(labels).tolist()
    }
    cubes = Marker(header=header, ns="occupancy", type=Marker.CUBE_LIST, action=Marker.ADD)
    cubes.pose.orientation.w = 1.0
    cubes.scale = Vector3(x=float(resolution), y=float(resolution), z=float(resolution))
    cubes.points = [Point(x=x, y=y, z=z) for x, y, z in np.asarray(centres, np.float64).tolist()]
    cubes.colors = [shade[label] for label in labels.tolist()]
    markers.markers.append(cubes)
    return markers


def _points_at(positions: np.ndarray, kind: np.dtype) -> np.ndarray:
    """(N,) points of a structured type at positions (N, 3) metres, all other fields zero."""
    points = np.zeros(len(positions), kind)
    for axis, name in enumerate("xyz"):
        points[name] = positions[:, axis]
    return points


def _rgb_field(colours: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB as (N,) float32: 0x00RRGGBB in the bits."""
    rgb = np.asarray(colours, np.uint32)
    return ((rgb[:, 0] << 16) | (rgb[:, 1] << 8) | rgb[:, 2]).view(np.float32)


def cloud_message(header: Header, points: np.ndarray, kind: np.dtype, is_dense: bool) -> PointCloud2:
    """`points` as an unordered cloud; `kind` is their structured type, itemsize and offsets included."""
    fields = [
        PointField(name=name, offset=int(offset), datatype=FIELD_TYPES[field.str[1:]], count=1)
        for name, (field, offset) in kind.fields.items()
    ]
    data = array("B")  # which rclpy takes as it is
    data.frombytes(np.ascontiguousarray(points).reshape(-1).view(np.uint8))
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=kind.itemsize,
        row_step=kind.itemsize * len(points),
        data=data,
        is_dense=is_dense,
    )


def _read_points(msg: PointCloud2, wanted: dict[str, str]) -> np.ndarray:
    """(N,) structured array of the `wanted` fields {name: numpy type}; raises BadMessage (bad_cloud)."""
    offsets = []
    for name, kind in wanted.items():
        found = [field for field in msg.fields if field.name == name]
        if len(found) != 1:
            raise BadMessage(
                "bad_cloud", f"the cloud has {len(found)} fields {name!r} instead of one: is it on the right topic?"
            )
        field = found[0]
        if field.datatype != FIELD_TYPES[kind] or field.count != 1:
            raise BadMessage(
                "bad_cloud",
                f"the cloud's field {name!r} has datatype {field.datatype} x {field.count} instead of "
                f"{FIELD_TYPES[kind]} x 1: is it on the right topic?",
            )
        if field.offset + np.dtype(kind).itemsize > msg.point_step:
            raise BadMessage(
                "bad_cloud",
                f"the cloud's field {name!r} at byte {field.offset} is not within points of {msg.point_step} bytes: "
                "mend the publisher",
            )
        offsets.append(int(field.offset))
    data = np.frombuffer(msg.data, np.uint8)
    row_bytes = msg.width * msg.point_step
    if msg.row_step < row_bytes or len(data) < msg.height * msg.row_step:
        raise BadMessage(
            "bad_cloud",
            f"the cloud holds {len(data)} bytes in rows of {msg.row_step} where {msg.height} x {msg.width} points of "
            f"{msg.point_step} bytes need {msg.height * row_bytes}: mend the publisher, or the transport that cuts it",
        )
    order = ">" if msg.is_bigendian else "<"
    formats = [order + kind for kind in wanted.values()]
    if not msg.height * msg.width:
        return np.zeros(0, list(zip(wanted, formats)))
    rows = data[: msg.height * msg.row_step].reshape(msg.height, msg.row_step)[:, :row_bytes]
    layout = np.dtype({"names": list(wanted), "formats": formats, "offsets": offsets, "itemsize": int(msg.point_step)})
    return np.ascontiguousarray(rows).reshape(-1).view(layout)


def _valid(msg: PointCloud2, points: np.ndarray) -> np.ndarray:
    """The points without those that PointCloud2 calls invalid: NaN position in a cloud that is not dense."""
    return points if msg.is_dense else points[~np.isnan(points["x"])]
