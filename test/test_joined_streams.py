"""Streams of several cameras: each is joined by itself, and none of their messages vanishes."""

from sensor_msgs.msg import CameraInfo, Image

from sgrocc_ros import messages
from sgrocc_ros.health import FrameCounters
from sgrocc_ros.joined_streams import JoinedStreams
from sgrocc_ros.synchronise import StampJoiner


class Node:
    """As much of a ManagedNode as is asked for."""

    def __init__(self) -> None:
        self.values, self.counters, self.at_end = {"max_partner_wait_s": 0.0}, FrameCounters(), []
        self.every = lambda _, call: setattr(self, "expire", call)
        self.when_deactivated = self.at_end.append


def streams_of(node: Node, joined: list) -> JoinedStreams:
    return JoinedStreams(node, lambda: StampJoiner(("image", "camera_info")), joined.append)


def message(kind, stamp_ns: int):
    return kind(header=messages.to_header(stamp_ns, ""))


def test_a_sender_of_ever_new_frame_ids_fills_no_memory_and_each_of_its_frames_is_counted():
    node, joined = Node(), []
    streams = streams_of(node, joined)
    streams.add("front", "image", message(Image, 5))
    for number in range(100):
        streams.add(f"camera_{number}", "image", message(Image, 5))
        if number == 20:
            streams.add("front", "camera_info", message(CameraInfo, 5))  # a camera that speaks is not the one to go
    assert len(joined) == 1 and len(streams._joiners) == 32
    assert node.counters.as_dict()["dropped"] == {"too_many_cameras": 68}
    assert "more than 32 frame ids of cameras, such as 'camera_" in node.counters.take_sentences()["too_many_cameras"]
    [end] = node.at_end
    end()
    assert node.counters.as_dict()["dropped"] == {"too_many_cameras": 68, "stopped": 32} and not streams._joiners


def test_one_camera_does_not_wait_for_another():
    node, joined = Node(), []
    streams = streams_of(node, joined)
    streams.add("front", "image", message(Image, 5))
    streams.add("rear", "camera_info", message(CameraInfo, 5))
    assert joined == []
    streams.add("rear", "image", message(Image, 5))
    assert [message_of["image"].header.stamp.nanosec for message_of in joined] == [5]
    node.expire()
    assert node.counters.as_dict()["dropped"] == {"no_camera_info": 1}
