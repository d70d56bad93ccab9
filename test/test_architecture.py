"""The laws of the house: who may import what, and how long a node may be."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROS = {"rclpy", "tf2_ros", "cv_bridge", "launch", "launch_ros", "ament_index_python", "sgrocc_ros", "rosbags"}
TORCH = {"torch", "torchvision", "lightning", "timm"}
TORCH_FREE_ROOMS = ("geometry", "splatting", "memory", "experts", "evaluation", "inference", "datasets", "synthrooms")
MAX_NODE_LINES = 250


def imported_by(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def is_ros(name: str) -> bool:
    return name in ROS or name.endswith(("_msgs", "_interfaces")) or name in ("std_srvs",)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "sgrocc").rglob("*.py")), ids=lambda path: path.name)
def test_the_method_knows_no_ros(path):
    assert not {name for name in imported_by(path) if is_ros(name)}


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *(REPOSITORY / "sgrocc_ros").glob("*.py"),
            *(REPOSITORY / "sgrocc").glob("*.py"),
            *(path for room in TORCH_FREE_ROOMS for path in (REPOSITORY / "sgrocc" / room).rglob("*.py")),
        ]
    ),
    ids=lambda path: path.name,
)
def test_what_runs_on_a_robot_knows_no_torch(path):
    # The engine that runs a model in torch is the one exception, and is loaded only when asked for.
    assert path.name == "torch_engine.py" or not imported_by(path) & TORCH


@pytest.mark.parametrize("path", sorted((REPOSITORY / "sgrocc_ros").glob("*_node.py")), ids=lambda path: path.name)
def test_a_node_is_glue_and_stays_short(path):
    assert len(path.read_text().splitlines()) <= MAX_NODE_LINES


def test_the_check_sees_imports(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from sensor_msgs.msg import Image\n    import torch.nn\n")
    names = imported_by(tmp_path / "a.py")
    assert names == {"sensor_msgs", "torch"} and is_ros("sensor_msgs") and not is_ros("numpy")
