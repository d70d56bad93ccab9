"""Reading and writing rosbag2 recordings without ROS: a thin layer over rosbags whose errors are sentences."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

STORAGE_SUFFIXES = (".mcap", ".db3")

_OCTOMAP = "std_msgs/Header header\nbool binary\nstring id\nfloat64 resolution\nint8[] data\n"
_FOREVER = QosTime(9223372036, 854775807)


class BagError(ValueError):
    """A recording that cannot be read or written: one sentence with cause and cure."""


class Topic(NamedTuple):
    """msgtype: such as 'sensor_msgs/msg/Image'; count: messages; latched: recorded as transient local."""

    msgtype: str
    count: int
    latched: bool


@functools.cache
def typestore() -> Typestore:
    """The message types of ROS 2 Jazzy and octomap_msgs/Octomap. The same object each time."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(_OCTOMAP, "octomap_msgs/msg/Octomap"))
    return store


def header_stamp_ns(msgtype: str, raw: bytes) -> int | None:
    """The stamp in nanoseconds of a message (CDR) that begins with a header; None for types that do not.

    Raises BagError for a message too short to hold its header.
    """
    _, fields = typestore().fielddefs.get(msgtype, ([], []))
    if not fields or fields[0][1][1] != "std_msgs/msg/Header":
        return None
    if len(raw) < 12:
        raise BagError(
            f"a message of type {msgtype} has {len(raw)} bytes, too few for its header: record the bag again"
        )
    # Behind the four bytes of CDR encapsulation, whose second one tells the byte order.
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return seconds * 1_000_000_000 + nanoseconds


def is_bag(path: str | Path) -> bool:
    """Whether a recording is what `BagReader` takes: a folder with a metadata.yaml, or a .mcap or .db3 file."""
    path = Path(path)
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.is_file() and path.suffix in STORAGE_SUFFIXES


class BagReader:
    """A recording: the folder that `ros2 bag record` writes, or a single .mcap or .db3 file.

    topics: name -> Topic. Raises BagError where there is no bag, or none that can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"there is no bag {self.path}: check the path")
        if not is_bag(self.path):
            raise BagError(
                f"{self.path} is not a bag: give a folder with a metadata.yaml, or a .mcap or .db3 file "
                "(`ros2 bag reindex` writes the metadata of a recording that was interrupted)"
            )
        self.topics: dict[str, Topic] = {}
        try:
            with Reader(self.path) as reader:
                for c in reader.connections:
                    latched = any(q.durability == QosDurability.TRANSIENT_LOCAL for q in c.ext.offered_qos_profiles)
                    known = self.topics.get(c.topic, Topic(c.msgtype, 0, False))
                    self.topics[c.topic] = Topic(known.msgtype, known.count + c.msgcount, known.latched or latched)
        except Exception as error:  # rosbags raises whatever its parsers meet in a damaged file
            raise self._damaged(error) from error

    def raw_messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """(topic, log time in nanoseconds, CDR) in the order of the log times; of all topics where none are given.

        Raises BagError at once for topics that the bag lacks, and while reading where the bag is damaged.
        """
        wanted = set(self.topics if topics is None else topics)
        missing = sorted(wanted - set(self.topics))
        if missing:
            raise BagError(f"{self.path} has no topic {', '.join(missing)}: it has {', '.join(sorted(self.topics))}")
        return self._read(wanted)

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, object]]:
        """(topic, message) as `raw_messages`; messages have the fields of ROS's, with arrays as numpy arrays.

        Raises BagError, besides, for a type that is neither ROS 2 Jazzy's nor octomap_msgs/Octomap.
        """
        wanted = list(self.topics if topics is None else topics)
        for topic in wanted:
            if topic in self.topics and self.topics[topic].msgtype not in typestore().fielddefs:
                raise BagError(
                    f"{topic} of {self.path} has the type {self.topics[topic].msgtype}, which is not known here: "
                    "name the topics that you need"
                )
        return ((topic, self._decode(topic, raw)) for topic, _, raw in self.raw_messages(wanted))

    def _read(self, topics: set[str]) -> Iterator[tuple[str, int, bytes]]:
        if not topics:
            return
        try:
            with Reader(self.path) as reader:
                connections = [c for c in reader.connections if c.topic in topics]
                for connection, stamp_ns, raw in reader.messages(connections):
                    yield connection.topic, stamp_ns, bytes(raw)
        except Exception as error:
            raise self._damaged(error) from error

    def _decode(self, topic: str, raw: bytes) -> object:
        try:
            return typestore().deserialize_cdr(raw, self.topics[topic].msgtype)
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> BagError:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        return BagError(
            f"{self.path} is damaged or cut short ({reason}): "
            "record or copy it again, or repair it with `mcap recover` and `ros2 bag reindex`"
        )


class BagWriter:
    """A new recording (a folder, MCAP storage) that `ros2 bag play` takes; use it in a `with` block.

    Raises BagError where something is at `path` already. A block left by an exception leaves no readable bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise BagError(f"{self.path} exists already: choose another name or remove it")
        self._writer = Writer(self.path, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, object] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, *exception) -> None:
        self._writer.__exit__(*exception)

    def write(self, topic: str, msgtype: str, stamp_ns: int, message: object, latched: bool = False) -> None:
        """Append a message: CDR bytes, or an object made with `typestore().types[msgtype]`.

        stamp_ns: log time; latched: whether late subscribers get it (the topic's first message decides for all).
        """
        if msgtype not in typestore().fielddefs:
            raise BagError(f"{topic} has the type {msgtype}, which is not known here: write types of ROS 2 Jazzy")
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=typestore(), offered_qos_profiles=[_offered_qos(latched)]
            )
        connection = self._connections[topic]
        if connection.msgtype != msgtype:
            raise BagError(f"{topic} has the type {connection.msgtype} already: write {msgtype} to another topic")
        raw = message if isinstance(message, (bytes, memoryview)) else typestore().serialize_cdr(message, msgtype)
        self._writer.write(connection, int(stamp_ns), raw)


def _offered_qos(latched: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
