"""The Nav2 recipe names our topics with their types, and its costs are what Nav2's static layer makes of our grids."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from sgrocc.labels import CLASS_LABELS, FLOOR, FREE, UNKNOWN, WALL
from sgrocc_ros import parameters
from sgrocc_ros.interface import MAP_QOS, TOPICS
from sgrocc_ros.parameters import NODES

ROOT = Path(__file__).resolve().parent.parent
LETHAL, NO_INFORMATION = 254, 255


@pytest.fixture(scope="module")
def recipe() -> dict:
    return yaml.safe_load((ROOT / "config" / "nav2_sgrocc.yaml").read_text())


def costmaps(recipe: dict) -> dict[str, dict]:
    return {name: recipe[name][name]["ros__parameters"] for name in ("local_costmap", "global_costmap")}


def layers(costmap: dict, kind: str) -> dict[str, dict]:
    """Those that are in the file, whether they are in the list of plugins or not."""
    found = {name: value for name, value in costmap.items() if isinstance(value, dict) and "plugin" in value}
    return {name: layer for name, layer in found.items() if layer["plugin"] == f"nav2_costmap_2d::{kind}"}


def output(topic: str):
    (row,) = (row for row in TOPICS if row.direction == "out" and f"/{row.name}" == topic)
    return row


def nav2_cost(value: int, costmap: dict) -> int:
    """nav2_costmap_2d::StaticLayer::interpretValue of Jazzy and Kilted: a cell of an OccupancyGrid to a cost."""
    value %= 256  # the int8 is read as an unsigned char
    if value == costmap.get("unknown_cost_value", 255):
        return NO_INFORMATION if costmap.get("track_unknown_space", False) else 0
    threshold = max(min(costmap.get("lethal_cost_threshold", 100), 100), 0)
    if value >= threshold:
        return LETHAL
    return 0 if costmap.get("trinary_costmap", True) else int(value / threshold * LETHAL)


def test_static_layers_read_our_latched_grids(recipe):
    for costmap in costmaps(recipe).values():
        ours = [layer for layer in layers(costmap, "StaticLayer").values() if layer["map_topic"] != "/map"]
        assert ours and "sgrocc_layer" in costmap["plugins"]
        for layer in ours:
            row = output(layer["map_topic"])
            assert row.type == "nav_msgs/OccupancyGrid" and row.qos == MAP_QOS
            assert "transient local" in row.qos and layer["map_subscribe_transient_local"] is True


def test_the_voxel_layer_marks_our_points_and_clears_nothing(recipe):
    (layer,) = layers(costmaps(recipe)["local_costmap"], "VoxelLayer").values()
    source = layer[layer["observation_sources"]]
    row = output(source["topic"])
    assert row.type == f"sensor_msgs/{source['data_type']}" == "sensor_msgs/PointCloud2"
    assert (source["marking"], source["clearing"]) == (True, False)
    assert source["sensor_frame"], "Nav2 would measure ranges from the origin of the cloud's frame"
    assert layer["z_voxels"] <= 16 and layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"] >= 1.5


def test_every_plugin_is_described_and_inflation_comes_last(recipe):
    for costmap in costmaps(recipe).values():
        assert all("plugin" in costmap[name] for name in costmap["plugins"])
        assert costmap["plugins"][-1] == "inflation_layer"


def test_our_layer_raises_costs_and_lowers_none(recipe):
    for costmap in costmaps(recipe).values():
        # In a rolling window the static layer writes max(its cost, what is there), or its cost, without asking.
        assert costmap["rolling_window"] is True and costmap["use_maximum"] is True
        for value in (-1, 0):
            assert nav2_cost(value, costmap) == 0


def test_the_manager_brings_up_our_nodes_without_bonds(recipe):
    manager = recipe["lifecycle_manager_sgrocc"]["ros__parameters"]
    assert sorted(manager["node_names"]) == sorted(NODES)
    assert manager["node_names"].index("occupancy_publisher") < manager["node_names"].index("spatial_expert")
    assert manager["bond_timeout"] == 0.0 and isinstance(manager["bond_timeout"], float)


def test_costs_of_classes_become_nav2s(recipe):
    local = costmaps(recipe)["local_costmap"]
    costs = parameters.costs(parameters.complete({"cost.objects": 50, "cost.chair": 75}))
    got = {label: nav2_cost(cost, local) for label, cost in costs.items()}
    by_name = {parameters.CLASS_NAMES[label - 1]: got[label] for label in CLASS_LABELS}
    assert by_name.pop("ceiling") == by_name.pop("floor") == 0
    assert (by_name.pop("objects"), by_name.pop("chair")) == (127, 190)
    assert set(by_name.values()) == {LETHAL}


def test_our_grids_become_those_costs(recipe):
    grids = pytest.importorskip("sgrocc_ros.grids", reason="needs ROS 2")
    from std_msgs.msg import Header

    local = costmaps(recipe)["local_costmap"]
    indices = np.array([[0, 0, 5], [1, 0, 5], [2, 0, 5], [3, 0, 5], [4, 0, 5]])
    labels = np.array([FREE, FLOOR, WALL, CLASS_LABELS[-1], UNKNOWN], np.uint8)
    band = (Header(), indices, labels, 0.1, 0.1, 1.5)
    costs = parameters.costs(parameters.complete({"cost.objects": 50}))
    cost = grids.cost_grid_message(*band, costs)
    assert [nav2_cost(value, local) for value in cost.data] == [0, 0, LETHAL, 127]
    grid = grids.occupancy_grid_message(*band)
    assert [nav2_cost(value, local) for value in grid.data] == [0, LETHAL, LETHAL, LETHAL]
    # Free space of the network's own depth is unknown, and adds as little.
    guessed = grids.cost_grid_message(*band, costs, free_is_known=False)
    assert list(guessed.data) == [-1, -1, 100, 50]
    assert [nav2_cost(value, local) for value in guessed.data] == [0, 0, LETHAL, 127]
    # Nav2 refuses a map whose origin is no rotation.
    q = grid.info.origin.orientation
    assert (q.x, q.y, q.z, q.w) == (0.0, 0.0, 0.0, 1.0)


def test_the_page_has_these_numbers(recipe):
    local = costmaps(recipe)["local_costmap"]
    page = (ROOT / "docs" / "guides" / "nav2.md").read_text()
    rows = re.findall(r"^\| (-?\d+) \|[^|]*\| (\d+)[^|]*\| (\d+) \| (\d+) \|$", page, re.M)
    assert [int(row[0]) for row in rows] == [-1, 0, 1, 25, 50, 75, 99, 100]
    for value, *shown in (map(int, row) for row in rows):
        settings = (local, {**local, "track_unknown_space": True}, {**local, "trinary_costmap": True})
        assert shown == [nav2_cost(value, costmap) for costmap in settings]
