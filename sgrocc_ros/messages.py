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
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sgrocc.gaussians import Gaussians
from sgrocc.geometry import PinholeCamera
from sgrocc.labels import COLOURS, FREE, NUM_CLASSES, UNKNOWN
from sgrocc.memory.voxels import VoxelUpdate

#: The longest side of an image that is believed, in pixels.
MAX_IMAGE_SIDE = 16384
#: The most cells of an OccupancyGrid, which is dense: 800 x 800 m at 0.08 m.
MAX_GRID_CELLS = 100_000_000
#: Distortion coefficients below this move no pixel by a visible amount.
DISTORTION_TOLERANCE = 1e-6
#: A voxel whose centre lies on the edge of the height band is in it; this share of a voxel absorbs the rounding.
BAND_TOLERANCE = 1e-3
#: A received centre this share of a voxel away from where a centre can be was made with another resolution.
CENTRE_TOLERANCE = 0.05

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
#: Where the field `whole` of a voxel update stands, in the gap after the label.
WHOLE_OFFSET = 17


class BadMessage(ValueError):
    """A message that cannot be used: one sentence with cause and cure, and a short `reason` to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def stamp_ns(header: Header) -> int:
    """A header's stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def to_header(stamp_ns: int, frame_id: str) -> Header:
    """The header of a stamp in nanoseconds; raises ValueError beyond what a stamp can hold (year 2038)."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    if not -(2**31) <= seconds < 2**31:
        raise ValueError(f"a stamp of {seconds} s does not fit into a ROS message: check the clock")
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)


def decode_image(msg: Image, decoder: str = "auto") -> np.ndarray:
    """A sensor_msgs/Image as (H, W, 3) uint8 RGB; 16-bit channels are scaled to 8.

    decoder: "numpy" for the encodings of IMAGE_ENCODINGS, "cv_bridge" for all that it converts, "auto" for numpy where
    it can and cv_bridge for the rest. Raises BadMessage: bad_image_size, bad_encoding, truncated_image, no_cv_bridge.
    """
    if decoder not in ("auto", "numpy", "cv_bridge"):
        raise ValueError(f"there is no image decoder {decoder!r}: use auto, numpy or cv_bridge")
    _check_size(msg)
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
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if order == (0, 1, 2) and channels == 3:
        return image
    # Channel by channel: a third of the time of reversing the last axis.
    rgb = np.empty((msg.height, msg.width, 3), np.uint8)
    for channel, source in enumerate(order):
        rgb[..., channel] = image[..., source]
    return rgb


def decode_depth(msg: Image) -> np.ndarray:
    """A depth image as (h, w) float32 metres, 0 where invalid (REP-117: NaN, infinite; and negative).

    16UC1 and mono16 are millimetres, 32FC1 metres. Raises BadMessage: bad_image_size, bad_depth, truncated_image.
    """
    _check_size(msg)
    if msg.encoding not in DEPTH_ENCODINGS:
        raise BadMessage(
            "bad_depth",
            f"depth encoding {msg.encoding!r} is not known: publish 16UC1 (millimetres) or 32FC1 (metres)",
        )
    kind, units_per_metre = DEPTH_ENCODINGS[msg.encoding]
    depth = _rows(msg, kind, 1).astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth / np.float32(units_per_metre)


def depth_message(header: Header, depth: np.ndarray) -> Image:
    """(h, w) float32 metres as 32FC1; 0 (unknown) is sent as NaN, since viewers take 0 for a point at the lens."""
    height, width = depth.shape
    values = np.where(depth > 0, depth, np.nan).astype("<f4")
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=0,
        step=4 * width,
        data=_array("B", values),
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
    """Whether the image must be rectified first."""
    # Written so that NaN counts as distortion.
    return not (np.abs(np.asarray(info.d, np.float64)) <= DISTORTION_TOLERANCE).all()


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
    return _cloud_message(header, points, kind, is_dense=len(gaussians) > 0)


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
    rgb = np.asarray(COLOURS[labels] if colours is None else colours, np.uint32)
    points = np.zeros(len(labels), VOXEL)
    for axis, name in enumerate("xyz"):
        points[name] = centres[:, axis]
    points["rgb"] = ((rgb[:, 0] << 16) | (rgb[:, 1] << 8) | rgb[:, 2]).view(np.float32)
    points["label"] = labels
    points["probability"] = probabilities
    return _cloud_message(header, points, VOXEL, is_dense=True)


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


def occupancy_grid_message(
    header: Header,
    indices: np.ndarray,
    labels: np.ndarray,
    resolution: float,
    min_height_m: float,
    max_height_m: float,
) -> OccupancyGrid:
    """The voxels whose centre has min_height_m <= z <= max_height_m, seen from above.

    indices (N, 3) world voxel indices; labels (N,) 0, 1 to 11, 255. A cell is 100 where a voxel of its column is
    occupied, else 0 where one is free, else -1. The grid covers the known voxels of the band and is 0 x 0 without any.
    Raises ValueError where they lie so far apart that the grid would not fit into memory.
    """
    lowest = math.ceil(min_height_m / resolution - 0.5 - BAND_TOLERANCE)
    highest = math.floor(max_height_m / resolution - 0.5 + BAND_TOLERANCE)
    used = (indices[:, 2] >= lowest) & (indices[:, 2] <= highest) & (labels != UNKNOWN)
    columns, occupied = indices[used, :2].astype(np.int64), labels[used] != FREE
    grid = OccupancyGrid(header=header)
    grid.info.resolution = float(resolution)
    if not len(columns):
        return grid
    corner = columns.min(axis=0)
    width, height = (int(n) for n in columns.max(axis=0) - corner + 1)
    if width * height > MAX_GRID_CELLS:
        raise ValueError(
            f"the occupancy grid would have {width} x {height} cells: a voxel lies far off, check the poses (tf)"
        )
    columns -= corner
    cells = np.full((height, width), -1, np.int8)
    cells[columns[:, 1], columns[:, 0]] = 0
    cells[columns[occupied, 1], columns[occupied, 0]] = 100
    grid.info.width, grid.info.height = width, height
    grid.info.origin.position.x, grid.info.origin.position.y = (float(c * resolution) for c in corner)
    grid.data = _array("b", cells)
    return grid


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


def _array(kind: str, values: np.ndarray) -> array:
    """The bytes of `values` in the array type that rclpy takes as it is: kind "B" for uint8[], "b" for int8[]."""
    data = array(kind)
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    return data


def _check_size(msg: Image) -> None:
    if not (0 < msg.width <= MAX_IMAGE_SIDE and 0 < msg.height <= MAX_IMAGE_SIDE):
        raise BadMessage(
            "bad_image_size",
            f"the image is {msg.width} x {msg.height} pixels and not 1 to {MAX_IMAGE_SIDE} a side: "
            "check the camera driver",
        )


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


def _cloud_message(header: Header, points: np.ndarray, kind: np.dtype, is_dense: bool) -> PointCloud2:
    """`points` as an unordered cloud; `kind` is their structured type, itemsize and offsets included."""
    fields = [
        PointField(name=name, offset=int(offset), datatype=FIELD_TYPES[field.str[1:]], count=1)
        for name, (field, offset) in kind.fields.items()
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=kind.itemsize,
        row_step=kind.itemsize * len(points),
        data=_array("B", points),
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
