"""How the suite is shared out: see `pytest -n 2`."""

from functools import cache
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items) -> None:
    """All that speaks ROS runs in one process, so that no two tests meet in a domain; else files stay whole."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item.path)))


@cache
def _group_of(path: Path) -> str:
    text = path.read_text()
    return "ros" if "rclpy" in text or "sgrocc_ros" in text else path.stem
