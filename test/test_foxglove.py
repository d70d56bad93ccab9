"""The shipped Foxglove layout has the form that Foxglove exports, and shows what the nodes publish."""

import json
import re
from pathlib import Path

import pytest
from test_rviz import FIELDS, OURS, PUBLISHED

from sgrocc_ros import parameters
from sgrocc_ros.description import Inputs

LAYOUT = json.loads((Path(__file__).resolve().parent.parent / "config" / "foxglove_layout.json").read_text())
PANELS = LAYOUT["configById"]
DEFAULTS = parameters.complete({})
#: What the 3D panel can draw of what we publish.
DRAWN = {"sensor_msgs/PointCloud2", "nav_msgs/OccupancyGrid", "visualization_msgs/MarkerArray"}


def panel(kind: str) -> dict:
    [found] = [config for name, config in PANELS.items() if name.split("!")[0] == kind]
    return found


def leaves(node: str | dict) -> list[str]:
    """The panels of a layout; asserts that its branches are whole."""
    if isinstance(node, str):
        return [node]
    assert set(node) == {"first", "second", "direction", "splitPercentage"}
    assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
    return [*leaves(node["first"]), *leaves(node["second"])]


def test_the_file_has_the_keys_of_an_export():
    assert list(LAYOUT) == ["configById", "globalVariables", "userNodes", "playbackConfig", "layout"]
    assert LAYOUT["playbackConfig"] == {"speed": 1}


def test_every_panel_has_its_place_and_its_configuration_once():
    placed = leaves(LAYOUT["layout"])
    assert sorted(placed) == sorted(PANELS)
    assert all(re.fullmatch(r"\w+![0-9a-z]+", name) for name in placed)
    kinds = sorted(name.split("!")[0] for name in placed)
    assert kinds == ["3D", "DiagnosticSummary", "Image", "Plot", "RawMessages"]


def test_the_scene_shows_our_outputs_and_only_the_map_at_first():
    topics = panel("3D")["topics"]
    left_out = {"/gaussians", "/voxel_updates"}  # between our own nodes
    assert set(topics) == {t for t, (kind, _) in OURS.items() if kind in DRAWN} - left_out
    assert {t for t, settings in topics.items() if settings["visible"]} == {"/occupancy/points", "/occupancy/grid"}
    assert panel("3D")["followTf"] == DEFAULTS["global_frame"]


@pytest.mark.parametrize("topic", FIELDS)
def test_each_cloud_is_coloured_by_a_field_that_it_carries(topic):
    cloud = panel("3D")["topics"][topic]
    assert cloud["colorField"] in FIELDS[topic]
    assert cloud["colorMode"] == ("rgb" if cloud["colorField"] == "rgb" else "colormap")


def test_colours_mean_what_they_do_in_rviz():
    topics = panel("3D")["topics"]
    assert (topics["/occupancy/grid"]["colorMode"], topics["/occupancy/cost"]["colorMode"]) == ("map", "costmap")
    distance, confidence = topics["/occupancy/distance"], topics["/debug/confidence"]
    assert (distance["minValue"], distance["maxValue"]) == (0, DEFAULTS["max_distance_m"])
    assert (confidence["minValue"], confidence["maxValue"]) == (0, 1)


def test_the_layers_are_a_grid_that_knows_its_own_name():
    [(name, layer)] = panel("3D")["layers"].items()
    assert (layer["instanceId"], layer["layerId"], layer["visible"]) == (name, "foxglove.Grid", True)


def test_the_image_is_the_camera_s():
    mode = panel("Image")["imageMode"]
    assert (mode["imageTopic"], mode["calibrationTopic"]) == (Inputs.image, Inputs.camera_info)
    assert PUBLISHED[mode["imageTopic"]][0] == "sensor_msgs/Image"
    assert PUBLISHED[mode["calibrationTopic"]][0] == "sensor_msgs/CameraInfo"


def test_the_plot_shows_the_times():
    values = [path["value"] for path in panel("Plot")["paths"]]
    assert values == ["/debug/latency_ms.data", "/debug/processing_ms.data"]
    assert {OURS[value.removesuffix(".data")][0] for value in values} == {"std_msgs/Float64"}


def test_diagnostics_are_those_of_our_nodes():
    summary, raw = panel("DiagnosticSummary"), panel("RawMessages")
    assert (summary["topicToRender"], summary["hardwareIdFilter"]) == ("/diagnostics", "sgrocc")
    assert OURS[summary["topicToRender"]][0] == "diagnostic_msgs/DiagnosticArray"
    assert raw["topicPath"].split(".")[0] == summary["topicToRender"]
    assert f'hardware_id=="{summary["hardwareIdFilter"]}"' in raw["topicPath"]
