"""How the suite is shared out: see `pytest -n 2`."""

import pytest


def pytest_collection_modifyitems(items) -> None:
    """All that speaks ROS runs in one process, so that no two tests meet in a domain; else files stay whole."""
    for item in items:
        speaks_ros = any(name in item.path.read_text() for name in ("rclpy", "sgrocc_ros"))
        item.add_marker(pytest.mark.xdist_group("ros" if speaks_ros else item.path.stem))
