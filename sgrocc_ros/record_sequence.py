"""Makes a rosbag2 recording of a posed RGB-D folder, as a robot with such a camera and odometry would leave it."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from rich.progress import track

from sgrocc.datasets.posed_rgbd import PosedFrame, PosedRgbdSequence
from sgrocc.geometry import PinholeCamera, Pose
from sgrocc_ros.bag import STORAGE_SUFFIXES, BagError, BagWriter, typestore

WORLD_FRAME = "odom"
BASE_FRAME = "base_link"
CAMERA_FRAME = "camera_optical_frame"

#: Camera (x right, y down, z forward) to base_link (x forward, y left, z up), which sits in the camera.
CAMERA_TO_BASE = Pose.from_quaternion(np.array([0.5, -0.5, 0.5, -0.5]), np.zeros(3))

# A robot hears of its pose before the image has left the camera.
_TRANSFORM_LEAD_NS = 1_000_000


def record_sequence(sequence: PosedRgbdSequence | str | Path, out: str | Path, overwrite: bool = False) -> None:
    """Write a posed RGB-D sequence (or the folder of one) as the bag `out`.

    Topics: /camera/image_raw (rgb8), /camera/camera_info, /camera/depth/image_raw (16UC1, millimetres), /tf
    (odom -> base_link) and /tf_static (base_link -> camera_optical_frame). Raises BagError where `out` exists, unless
    it is a bag and `overwrite` is true; ValueError or OSError for a sequence that cannot be read.
    """
    if not isinstance(sequence, PosedRgbdSequence):
        sequence = PosedRgbdSequence(sequence)
    out = Path(out)
    if out.exists():
        _remove_bag(out, overwrite)
    bag = BagWriter(out)
    try:
        with bag as writer:
            start_ns = sequence.stamp_ns(0)
            static = _transform(start_ns, BASE_FRAME, CAMERA_FRAME, CAMERA_TO_BASE)
            writer.write("/tf_static", *_tf_message(static), latched=True)
            for frame in track(sequence, description="recording", total=len(sequence)):
                _write_frame(writer, frame, sequence.camera)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # half a bag has no index and cannot be read
        raise


def _write_frame(writer: BagWriter, frame: PosedFrame, camera: PinholeCamera) -> None:
    base_to_world = frame.pose @ CAMERA_TO_BASE.inverse()
    writer.write("/tf", *_tf_message(_transform(frame.stamp_ns, WORLD_FRAME, BASE_FRAME, base_to_world)))
    writer.write("/camera/camera_info", *_camera_info(frame.stamp_ns, camera))
    writer.write("/camera/depth/image_raw", *_image(frame.stamp_ns, "16UC1", _millimetres(frame.depth)))
    writer.write("/camera/image_raw", *_image(frame.stamp_ns, "rgb8", frame.image))


def _millimetres(depth: np.ndarray) -> np.ndarray:
    """(h, w) depth in metres as little-endian uint16 millimetres; 0, invalid, beyond the 65.5 m that those can hold."""
    millimetres = np.rint(depth.astype(np.float64) * 1000.0)
    return np.where(millimetres <= np.iinfo(np.uint16).max, millimetres, 0).astype("<u2")


def _message(msgtype: str, log_ns: int, *fields: object) -> tuple[str, int, object]:
    """(type, log time, message), as BagWriter.write takes them."""
    return msgtype, log_ns, typestore().types[msgtype](*fields)


def _header(stamp_ns: int, frame_id: str) -> object:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
    return types["std_msgs/msg/Header"](stamp, frame_id)


def _transform(stamp_ns: int, parent: str, child: str, pose: Pose) -> object:
    types = typestore().types
    w, x, y, z = map(float, pose.quaternion)
    translation = types["geometry_msgs/msg/Vector3"](*map(float, pose.translation))
    rotation = types["geometry_msgs/msg/Quaternion"](x, y, z, w)
    transform = types["geometry_msgs/msg/Transform"](translation, rotation)
    return types["geometry_msgs/msg/TransformStamped"](_header(stamp_ns, parent), child, transform)


def _tf_message(transform: object) -> tuple[str, int, object]:
    stamp = transform.header.stamp
    log_ns = stamp.sec * 1_000_000_000 + stamp.nanosec - _TRANSFORM_LEAD_NS
    return _message("tf2_msgs/msg/TFMessage", log_ns, [transform])


def _image(stamp_ns: int, encoding: str, pixels: np.ndarray) -> tuple[str, int, object]:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    header = _header(stamp_ns, CAMERA_FRAME)
    height, width = pixels.shape[:2]
    return _message("sensor_msgs/msg/Image", stamp_ns, header, height, width, encoding, 0, rows.shape[1], rows.ravel())


def _camera_info(stamp_ns: int, camera: PinholeCamera) -> tuple[str, int, object]:
    region = typestore().types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = camera.matrix
    p = np.hstack([k, np.zeros((3, 1))])
    return _message(
        "sensor_msgs/msg/CameraInfo",
        stamp_ns,
        _header(stamp_ns, CAMERA_FRAME),
        camera.height,
        camera.width,
        "plumb_bob",
        np.zeros(5),
        k.ravel(),
        np.eye(3).ravel(),
        p.ravel(),
        0,
        0,
        region,
    )


def _remove_bag(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise BagError(f"{path} exists already: choose another --out or add --overwrite")
    # Never remove a folder of something else because of a slip in --out.
    is_bag = path.is_dir() and all(p.name == "metadata.yaml" or p.suffix in STORAGE_SUFFIXES for p in path.iterdir())
    if not is_bag:
        raise BagError(f"{path} is not a bag and will not be overwritten: choose another --out")
    shutil.rmtree(path)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="record_sequence", description=__doc__)
    parser.add_argument("--sequence", required=True, help="folder of a posed RGB-D recording")
    parser.add_argument("--out", required=True, help="bag to write (a folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace the bag at --out")
    options = parser.parse_args(args)
    try:
        sequence = PosedRgbdSequence(options.sequence)
        record_sequence(sequence, options.out, options.overwrite)
    except (ValueError, OSError) as error:
        print(f"record_sequence: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(sequence)} frames at {sequence.rate_hz:g} Hz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
