"""The shipped RViz configuration shows what the nodes publish, with a QoS that connects."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import (
    LivelinessPolicy,
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sgrocc_ros import messages, parameters
from sgrocc_ros.description import Inputs
from sgrocc_ros.occupancy_publisher_node import MAP_QOS, OUTPUTS

CONFIG = yaml.safe_load((Path(__file__).resolve().parent.parent / "config" / "sgrocc.rviz").read_text())
MANAGER = CONFIG["Visualization Manager"]
DISPLAYS = {display["Name"]: display for display in MANAGER["Displays"]}
WITH_TOPIC = [name for name, display in DISPLAYS.items() if "Topic" in display]
DEFAULTS = parameters.complete({})

#: What each class of display subscribes to.
TYPES = {
    "rviz_default_plugins/PointCloud2": PointCloud2,
    "rviz_default_plugins/Map": OccupancyGrid,
    "rviz_default_plugins/MarkerArray": MarkerArray,
    "rviz_default_plugins/Image": Image,
}
#: (type, QoS offered) of each topic. A camera driver may offer the least there is.
LEAST = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT, durability=QoSDurabilityPolicy.VOLATILE)
PUBLISHED = {f"/{topic}": (kind, MAP_QOS) for topic, (kind, _) in OUTPUTS.items()}
PUBLISHED |= {topic: (Image, LEAST) for topic in (Inputs.image, Inputs.depth)}


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


def test_only_displays_that_need_no_topic_have_none():
    without = {display["Class"] for name, display in DISPLAYS.items() if name not in WITH_TOPIC}
    assert without <= {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
    assert len(DISPLAYS) == len(MANAGER["Displays"]), "two displays have one name"


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_each_display_shows_a_topic_of_its_type(name):
    display = DISPLAYS[name]
    topic = display["Topic"]["Value"]
    assert topic in PUBLISHED, f"nobody publishes {topic}"
    assert TYPES[display["Class"]] is PUBLISHED[topic][0]


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_each_display_connects_to_what_is_offered(name):
    offered = PUBLISHED[DISPLAYS[name]["Topic"]["Value"]][1]
    verdict, reason = compatibility(offered, qos_of(DISPLAYS[name]))
    assert verdict == QoSCompatibility.OK, reason


@pytest.mark.parametrize("name", WITH_TOPIC)
def test_a_late_rviz_gets_the_latched_map(name):
    display = DISPLAYS[name]
    if PUBLISHED[display["Topic"]["Value"]][1] is MAP_QOS:
        assert qos_of(display).durability == MAP_QOS.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL


def test_the_check_of_qos_can_fail():
    assert compatibility(LEAST, MAP_QOS)[0] == QoSCompatibility.ERROR


def test_the_map_and_the_grid_are_shown_and_the_costly_markers_are_not():
    shown = {display["Topic"]["Value"] for display in DISPLAYS.values() if "Topic" in display and display["Enabled"]}
    assert {"/occupancy/points", "/occupancy/grid"} <= shown
    assert "/occupancy/markers" not in shown


def test_boxes_have_the_size_of_a_voxel_and_the_colour_that_the_cloud_carries():
    [cloud] = [display for display in DISPLAYS.values() if display["Class"].endswith("/PointCloud2")]
    assert cloud["Style"] == "Boxes" and cloud["Size (m)"] == DEFAULTS["resolution_m"]
    assert cloud["Color Transformer"] == "RGB8" and cloud["Position Transformer"] == "XYZ"
    one = np.ones(1, np.float32)
    message = messages.voxels_to_cloud(Header(), np.zeros((1, 3), np.float32), one.astype(np.uint8), one)
    assert {"x", "y", "z", "rgb"} <= {field.name for field in message.fields}


def test_the_fixed_frame_is_the_default_frame_of_the_map():
    assert MANAGER["Global Options"]["Fixed Frame"] == DEFAULTS["global_frame"]
