"""The shipped RViz configuration shows what the nodes publish, in RViz's words and with a QoS that connects."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.qos import (
    LivelinessPolicy,
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from std_msgs.msg import Header

from sgrocc_ros import interface, messages, parameters
from sgrocc_ros.description import Inputs
from sgrocc_ros.lifecycle import MAP_QOS
from sgrocc_ros.outputs import OUTPUTS

CONFIG = yaml.safe_load((Path(__file__).resolve().parent.parent / "config" / "sgrocc.rviz").read_text())
MANAGER = CONFIG["Visualization Manager"]
DISPLAYS = {display["Name"]: display for display in MANAGER["Displays"]}
WITH_TOPIC = [name for name, display in DISPLAYS.items() if "Topic" in display]
DEFAULTS = parameters.complete({})

#: What each class of display subscribes to.
TYPES = {
    "rviz_default_plugins/PointCloud2": "sensor_msgs/PointCloud2",
    "rviz_default_plugins/Map": "nav_msgs/OccupancyGrid",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/MarkerArray",
    "rviz_default_plugins/Image": "sensor_msgs/Image",
}
#: The properties that RViz (Jazzy to Kilted) writes for each class, besides Class, Name, Enabled and Value; what else
#: stands in the file it passes over without a word.
PROPERTIES = {
    "rviz_default_plugins/Grid": "Alpha, Cell Size, Color, Line Style, Normal Cell Count, Offset, Plane, "
    "Plane Cell Count, Reference Frame",
    "rviz_default_plugins/TF": "Filter (blacklist), Filter (whitelist), Frame Timeout, Frames, Marker Scale, "
    "Show Arrows, Show Axes, Show Names, Tree, Update Interval",
    "rviz_default_plugins/PointCloud2": "Alpha, Autocompute Intensity Bounds, Autocompute Value Bounds, Axis, "
    "Channel Name, Color, Color Transformer, Decay Time, Invert Rainbow, Max Color, Max Intensity, Min Color, "
    "Min Intensity, Position Transformer, Selectable, Size (Pixels), Size (m), Style, Topic, Use Fixed Frame, "
    "Use rainbow",
    "rviz_default_plugins/Map": "Alpha, Binary representation, Binary threshold, Color Scheme, Draw Behind, Topic, "
    "Update Topic, Use Timestamp",
    "rviz_default_plugins/MarkerArray": "Namespaces, Topic",
    "rviz_default_plugins/Image": "Max Value, Median window, Min Value, Normalize Range, Topic",
}
CHOICES = {
    "Color Scheme": {"map", "costmap", "raw"},
    "Style": {"Points", "Squares", "Flat Squares", "Spheres", "Boxes", "Tiles"},
    "Color Transformer": {"RGB8", "RGBF32", "Intensity", "AxisColor", "FlatColor"},
    "Position Transformer": {"XYZ"},
}
TOPIC_PROPERTIES = {"Depth", "Durability Policy", "History Policy", "Reliability Policy", "Value"}
#: The displays that wait for transforms have one more.
WAITING = {"rviz_default_plugins/PointCloud2", "rviz_default_plugins/Map"}


def qos_of_text(text: str) -> QoSProfile:
    """Such as "reliable, transient local, keep last 1"."""
    reliability, durability, history = (word.strip().replace(" ", "_") for word in text.split(","))
    assert history.startswith("keep_last_")
    return QoSProfile(
        depth=int(history.removeprefix("keep_last_")),
        reliability=QoSReliabilityPolicy.get_from_short_key(reliability),
        durability=QoSDurabilityPolicy.get_from_short_key(durability),
    )


#: {topic: (type, QoS offered)} of everything that our nodes publish, without a namespace.
OURS = {
    topic.name if topic.name.startswith("/") else f"/{topic.name}": (topic.type, qos_of_text(topic.qos))
    for topic in interface.TOPICS
    if topic.direction == "out"
}
LATCHED = {t for t, (_, qos) in OURS.items() if qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL}
#: A camera driver may offer the least there is.
LEAST = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT, durability=QoSDurabilityPolicy.VOLATILE)
PUBLISHED = {
    **OURS,
    Inputs.image: ("sensor_msgs/Image", LEAST),
    Inputs.depth: ("sensor_msgs/Image", LEAST),
    Inputs.camera_info: ("sensor_msgs/CameraInfo", LEAST),
}
#: What a display may take its colours from: the fields of the cloud on that topic.
_one = np.ones(1, np.float32)
FIELDS = {
    "/occupancy/points": {
        field.name for field in messages.voxels_to_cloud(Header(), np.zeros((1, 3)), _one.astype(np.uint8), _one).fields
    },
    "/occupancy/distance": {"x", "y", "z", "distance"},
    "/gaussians/memory": {"x", "y", "z", "rgb", "opacity", "label", "scale"},
    "/debug/confidence": {"x", "y", "z", "geometric", "semantic", "hybrid"},
}


def message_class(name: str) -> type:
    """Of a type such as sensor_msgs/Image."""
    package, kind = name.split("/")
    return getattr(import_module(f"{package}.msg"), kind)


def qos_of(display: dict) -> QoSProfile:
    topic = display["Topic"]
    assert topic["History Policy"] == "Keep Last"
    key = {name: topic[f"{name} Policy"].lower().replace(" ", "_") for name in ("Reliability", "Durability")}
    return QoSProfile(
        depth=topic["Depth"],
        reliability=QoSReliabilityPolicy.get_from_short_key(key["Reliability"]),
        durability=QoSDurabilityPolicy.get_from_short_key(key["Durability"]),
    )


def compatibility(offered: QoSProfile, wanted: QoSProfile) -> tuple[QoSCompatibility, str]:
    """What the middleware says of a pair; the liveliness, which neither side sets, is what it would become."""
    for profile in (offered, wanted):
        assert profile.liveliness == LivelinessPolicy.SYSTEM_DEFAULT
    pair = [
        QoSProfile(
            depth=p.depth, reliability=p.reliability, durability=p.durability, liveliness=LivelinessPolicy.AUTOMATIC
        )
        for p in (offered, wanted)
    ]
    return qos_check_compatible(*pair)


def display_of(topic: str) -> dict:
    [display] = [display for display in DISPLAYS.values() if display.get("Topic", {}).get("Value") == topic]
    return display


def test_the_interface_says_of_the_maps_what_the_publisher_does():
    for topic, (kind, _) in OUTPUTS.items():
        name, offered = OURS[f"/{topic}"]
        assert message_class(name) is kind
        assert (offered.depth, offered.reliability, offered.durability) == (
            MAP_QOS.depth,
            MAP_QOS.reliability,
            MAP_QOS.durability,
        )
    assert {f"/{topic}" for topic in OUTPUTS} == {topic for topic in LATCHED if topic.startswith("/occupancy/")}


def test_only_displays_that_need_no_topic_have_none():
    without = {display["Class"] for name, display in DISPLAYS.items() if name not in WITH_TOPIC}
    assert without == {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
    assert len(DISPLAYS) == len(MANAGER["Displays"]), "two displays have one name"


@pytest.mark.parametrize("name", DISPLAYS)
def test_each_display_has_properties_that_rviz_knows(name):
    display = DISPLAYS[name]
    known = {"Class", "Name", "Enabled", "Value", *PROPERTIES[display["Class"]].split(", ")}
    assert set(display) <= known
    assert display["Enabled"] is display["Value"]
    for key, choices in CHOICES.items():
        assert display.get(key, next(iter(choices))) in choices
    for key in ("Topic", "Update Topic"):
        if key in display:
            one_more = {"Filter size"} if key == "Topic" and display["Class"] in WAITING else set()
            assert set(display[key]) == TOPIC_PROPERTIES | one_more


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_each_display_shows_a_topic_of_its_type(name):
    display = DISPLAYS[name]
    topic = display["Topic"]["Value"]
    assert topic in PUBLISHED, f"nobody publishes {topic}"
    assert TYPES[display["Class"]] == PUBLISHED[topic][0]


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_each_display_connects_to_what_is_offered(name):
    offered = PUBLISHED[DISPLAYS[name]["Topic"]["Value"]][1]
    verdict, reason = compatibility(offered, qos_of(DISPLAYS[name]))
    assert verdict == QoSCompatibility.OK, reason


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_a_late_rviz_gets_what_is_latched(name):
    display = DISPLAYS[name]
    if display["Topic"]["Value"] in LATCHED:
        assert qos_of(display).durability == QoSDurabilityPolicy.TRANSIENT_LOCAL


def test_the_check_of_qos_can_fail():
    assert compatibility(LEAST, MAP_QOS)[0] == QoSCompatibility.ERROR


def test_every_output_that_rviz_can_show_is_shown_and_what_costs_much_is_off():
    shown = {display["Topic"]["Value"]: display["Enabled"] for name in WITH_TOPIC if (display := DISPLAYS[name])}
    assert len(shown) == len(WITH_TOPIC), "two displays show one topic"
    left_out = {"/gaussians", "/voxel_updates"}  # between our own nodes
    assert set(shown) == {t for t, (kind, _) in OURS.items() if kind in TYPES.values()} - left_out | {Inputs.image}
    assert {topic for topic, enabled in shown.items() if enabled} == {
        "/occupancy/points",
        "/occupancy/grid",
        Inputs.image,
    }


@pytest.mark.parametrize("topic", FIELDS)
def test_each_cloud_is_coloured_by_a_field_that_it_carries(topic):
    cloud = display_of(topic)
    assert cloud["Position Transformer"] == "XYZ"
    field = {"RGB8": "rgb", "Intensity": cloud["Channel Name"]}[cloud["Color Transformer"]]
    assert {"x", "y", "z", field} <= FIELDS[topic]


def test_what_is_drawn_per_voxel_or_cell_has_its_size():
    assert display_of("/occupancy/points")["Style"] == "Boxes"
    for topic in ("/occupancy/points", "/occupancy/distance"):
        assert display_of(topic)["Size (m)"] == DEFAULTS["resolution_m"]


def test_the_ends_of_the_scales_are_those_of_the_values():
    distance, confidence = display_of("/occupancy/distance"), display_of("/debug/confidence")
    assert (distance["Channel Name"], confidence["Channel Name"]) == ("distance", "hybrid")
    assert (distance["Min Intensity"], distance["Max Intensity"]) == (0, DEFAULTS["max_distance_m"])
    assert (confidence["Min Intensity"], confidence["Max Intensity"]) == (0, 1)
    depth, gates = display_of("/gaussians/depth"), display_of("/debug/gates")
    assert (depth["Min Value"], depth["Max Value"]) == (0, DEFAULTS["max_depth_m"])
    assert (gates["Min Value"], gates["Max Value"]) == (0, 1)
    for display in (distance, confidence):
        assert display["Autocompute Intensity Bounds"] is False
    for display in (depth, gates):
        assert display["Normalize Range"] is False
    assert display_of("/occupancy/cost")["Color Scheme"] == "costmap"


def test_the_fixed_frame_is_the_default_frame_of_the_map():
    assert MANAGER["Global Options"]["Fixed Frame"] == DEFAULTS["global_frame"]
