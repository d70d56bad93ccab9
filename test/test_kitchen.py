"""The real recording of a kitchen: the map must stand beside OctoMap's on the same depth."""

import os
from pathlib import Path

import numpy as np
import pytest

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc_ros import parameters
from sgrocc_ros.description import Inputs
from sgrocc_ros.evaluate_bag import evaluate
from sgrocc_ros.record_sequence import record_sequence

REPOSITORY = Path(__file__).resolve().parents[1]
KITCHEN = Path(os.environ.get("SGROCC_KITCHEN", REPOSITORY.parent / "shared" / "data" / "hololens_kitchen"))

pytestmark = pytest.mark.skipif(
    not KITCHEN.is_dir(), reason="the kitchen recording is not here: set SGROCC_KITCHEN to its folder"
)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    bag = tmp_path_factory.mktemp("kitchen") / "bag"
    record_sequence(PosedRgbdSequence(KITCHEN), bag)
    return evaluate(bag, Inputs(), parameters.complete({"expert": "geometric"}))


def test_the_map_is_as_good_as_octomaps(result):
    metrics, _, _ = result
    assert metrics["frames"] == {"received": 120, "fused": 120, "dropped": {}}
    assert metrics["octomap"]["sc_iou"] == pytest.approx(0.9008, abs=0.002)
    assert metrics["sc_iou"] >= 0.95 * metrics["octomap"]["sc_iou"]


def test_floor_table_and_walls_are_where_they_are(result):
    _, occupancy, _ = result
    occupied = occupancy.occupied
    heights_m = occupancy.origin[2] + (np.arange(occupied.shape[2]) + 0.5) * occupancy.resolution
    area_m2 = occupied.sum(axis=(0, 1)) * occupancy.resolution**2
    floor = int(np.argmax(area_m2))
    # The HoloLens' world has its origin at the head of who wore it: the floor is about 1.5 m below, and lowest.
    assert -1.7 < heights_m[floor] < -1.4
    assert area_m2[: max(floor - 1, 0)].sum() < 0.05 * area_m2[floor]
    # The long table is the next widest surface, at the height of tables.
    above = np.where(heights_m > heights_m[floor] + 0.4, area_m2, 0)
    table_height_m = heights_m[int(np.argmax(above[: int(floor + 1.2 / occupancy.resolution)]))] - heights_m[floor]
    assert 0.6 < table_height_m < 0.95
    # A wall is a column that is occupied over most of the height of a room.
    assert (occupied[:, :, floor + 1 :].sum(axis=2) * occupancy.resolution > 1.3).sum() > 100
