"""The launch files: what they start, with which arguments, parameters and topics; and the same without launch."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node

from sgrocc_ros import parameters
from sgrocc_ros.description import ONE_PROCESS, THREE_PROCESSES, Inputs, command, executables

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
DOMAIN = 161

# -- without launch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_uses_only_names_that_we_have(path):
    tree = ast.parse(path.read_text())
    compile(tree, path, "exec")
    assert "generate_launch_description" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("sgrocc", "sgrocc_ros"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{path.name}: {node.module} has no {alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Inputs":
            assert hasattr(Inputs, node.attr), f"{path.name}: there is no Inputs.{node.attr}"
        if isinstance(node, ast.Constant) and str(node.value).endswith((".launch.py", ".rviz", ".yaml", ".xml")):
            assert list(ROOT.glob(f"*/{node.value}")), f"{path.name}: there is no file {node.value}"


def test_every_executable_is_a_module_that_can_be_started():
    assert executables(True) == ONE_PROCESS and executables(False) == THREE_PROCESSES
    for name in (*ONE_PROCESS, *THREE_PROCESSES, "replay"):
        assert callable(importlib.import_module(f"sgrocc_ros.{name}").main)


OVERRIDES = {
    "use_sim_time": True,
    "resolution_m": 0.1,
    "max_anchors": 500,
    "global_frame": "1",
    "model": "",
    "memory.temperature": 1e-07,
}


def test_the_command_line_without_launch_says_the_same_to_ros(tmp_path):
    inputs = Inputs(image="/left/image", camera_info="/left/info", depth="/left/depth")
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    resolution_m: 0.2\n    max_hits: 5\n")
    line = command("pipeline", inputs, file, OVERRIDES)
    assert line[:3] == [sys.executable, "-m", "sgrocc_ros.pipeline"]
    context = Context()
    rclpy.init(args=line[3:], context=context, domain_id=DOMAIN)
    node = Node("probe", context=context)
    try:
        heard = {name: parameter.value for name, parameter in node._parameter_overrides.items()}
        assert heard == {**OVERRIDES, "max_hits": 5}
        assert [type(heard[name]) for name in OVERRIDES] == [type(value) for value in OVERRIDES.values()]
        for name, topic in inputs.remappings():
            assert node.resolve_topic_name(name) == topic
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


# -- with launch ---------------------------------------------------------------------------------------------------

# Stands in for every executable: tells how it was started, with the contents of its parameter files.
STAND_IN = """#!{python}
import json, os, sys, yaml
files = [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "--params-file"]
told = {{"line": sys.argv, "files": files, "contents": [yaml.safe_load(open(file)) for file in files]}}
told["environment"] = {{k: v for k, v in os.environ.items() if k.startswith("FASTDDS_")}}
with open(os.path.join({folder!r}, os.path.basename(sys.argv[0]) + ".json"), "x") as file:
    json.dump(told, file)
"""

# What `ros2 launch` does with a file and its arguments.
LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
given = [tuple(word.split(":=", 1)) for word in sys.argv[2:]]
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(IncludeLaunchDescription(source, launch_arguments=given))
sys.exit(service.run())
"""


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An installation whose launch and config folders are ours and whose executables tell how they were started."""
    try:
        import ament_index_python  # noqa: F401
        import launch.actions  # noqa: F401  (`launch` alone is also the folder of that name here)
        import launch_ros.actions  # noqa: F401
    except ImportError as error:
        pytest.skip(f"launch and launch_ros are not installed ({error}): run this where ROS 2 is")
    prefix = tmp_path / "prefix"
    ours = (*ONE_PROCESS, *THREE_PROCESSES, "record_sequence", "replay", "sgrocc")
    for package, names in {"sgrocc_ros": ours, "rviz2": ("rviz2",)}.items():
        index = prefix / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        share = prefix / "share" / package
        share.mkdir()
        if package == "sgrocc_ros":
            for folder in ("launch", "config"):
                shutil.copytree(ROOT / folder, share / folder)
        (prefix / "lib" / package).mkdir(parents=True)
        for name in names:
            program = prefix / "lib" / package / name
            program.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path)))
            program.chmod(0o755)
    others = os.environ.get("AMENT_PREFIX_PATH")
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(prefix), *([others] if others else [])]))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    return prefix


@pytest.fixture
def launched(prefix, tmp_path):
    """Runs a launch file; returns its exit code, its output, and what each process that it started told."""

    def run(name: str, *arguments: str) -> tuple[int, str, dict[str, dict]]:
        file = prefix / "share" / "sgrocc_ros" / "launch" / name
        line = [sys.executable, "-c", LAUNCH, str(file), *arguments]
        result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        told = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
        return result.returncode, result.stdout + result.stderr, told

    return run


def parameters_of(told: dict) -> dict:
    """The parameters of a process that was started, the later file winning."""
    merged = {}
    for content in told["contents"]:
        [(section, below)] = content.items()
        assert section == "/**"
        merged |= below["ros__parameters"]
    return merged


def remappings_of(told: dict) -> dict[str, str]:
    line = told["line"]
    rules = [line[i + 1] for i, word in enumerate(line) if word == "-r"]
    return dict(rule.split(":=") for rule in rules)


DEFAULTS = {
    "image_topic": Inputs.image,
    "camera_info_topic": Inputs.camera_info,
    "depth_topic": Inputs.depth,
    "depth_source": "",
    "global_frame": "",
    "namespace": "",
    "use_sim_time": "false",
    "autostart": "true",
    "one_process": "true",
    "log_level": "info",
    "rviz": "false",
    "build_only": "false",
}


@pytest.mark.parametrize("name", [path.name for path in LAUNCH_FILES])
def test_every_argument_has_a_description_and_its_default(prefix, name):
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch.utilities import perform_substitutions

    share = prefix / "share" / "sgrocc_ros"
    context = LaunchContext()
    description = PythonLaunchDescriptionSource(str(share / "launch" / name)).get_launch_description(context)
    arguments = description.get_launch_arguments()
    assert all(argument.description.strip() for argument in arguments)
    defaults = {
        argument.name: argument.default_value and perform_substitutions(context, argument.default_value)
        for argument in arguments
    }
    robot = {**DEFAULTS, "params_file": str(share / "config" / "sgrocc.yaml")}
    if name == "sgrocc.launch.py":
        assert {key: value or "" for key, value in defaults.items()} == robot
    elif name == "demo.launch.py":
        recording = str(share / "recordings" / "synth_test_0000")
        assert defaults == {"sequence": recording, "out": "/tmp/sgrocc_demo", "rviz": "true"}
    else:  # replay: its own and, as they may be given too, the robot's
        assert defaults.pop("bag") is None and defaults.pop("rate") == "1.0"
        assert {key: value or "" for key, value in defaults.items()}.items() <= robot.items()


def test_by_default_one_process_starts_with_the_shipped_file_and_topics(launched, prefix):
    code, output, told = launched("sgrocc.launch.py")
    assert code == 0 and list(told) == ["pipeline"], output
    pipeline = told["pipeline"]
    assert pipeline["line"][0] == str(prefix / "lib" / "sgrocc_ros" / "pipeline")
    assert pipeline["files"][0] == str(prefix / "share" / "sgrocc_ros" / "config" / "sgrocc.yaml")
    assert parameters_of(pipeline) == {**parameters.complete({}), "use_sim_time": False}
    assert remappings_of(pipeline) == {**dict(Inputs().remappings()), "__ns": "/"}
    words = " ".join(pipeline["line"])
    assert "--log-level info" in words
    assert pipeline["environment"] == {}, "a robot talks to other machines"


def test_three_processes_get_the_same_topics_parameters_and_namespace(launched, tmp_path):
    file = tmp_path / "robot.yaml"
    values = {"global_frame": "map", "use_sim_time": False, "resolution_m": 0.1}
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    code, output, told = launched(
        "sgrocc.launch.py",
        "one_process:=false",
        "namespace:=robot1",
        "image_topic:=/left/image",
        "camera_info_topic:=/left/info",
        "depth_topic:=/left/depth",
        f"params_file:={file}",
        "depth_source:=network",
        "global_frame:=1",
        "use_sim_time:=True",
        "log_level:=debug",
    )
    assert code == 0 and sorted(told) == sorted(THREE_PROCESSES), output
    for process in told.values():
        assert process["files"][0] == str(file) and len(process["files"]) == 2
        given = {"global_frame": "1", "depth_source": "network", "use_sim_time": True}
        assert parameters_of(process) == {**given, "resolution_m": 0.1}
        topics = {"image": "/left/image", "camera_info": "/left/info", "depth": "/left/depth"}
        assert remappings_of(process) == {**topics, "__ns": "/robot1"}
        assert "--log-level debug" in " ".join(process["line"])


def test_the_frame_of_the_parameter_file_holds_unless_another_is_given(launched, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    global_frame: map\n")
    _, output, told = launched("sgrocc.launch.py", f"params_file:={file}")
    assert parameters_of(told["pipeline"]) == {"global_frame": "map", "use_sim_time": False}, output


def test_rviz_shows_the_topics_of_the_namespace_and_the_camera_that_is_given(launched, prefix):
    arguments = ("rviz:=true", "namespace:=robot1", "image_topic:=/left/image", "global_frame:=map")
    _, output, told = launched("sgrocc.launch.py", *arguments, "use_sim_time:=true")
    assert sorted(told) == ["pipeline", "rviz2"], output
    config = prefix / "share" / "sgrocc_ros" / "config" / "sgrocc.rviz"
    assert told["rviz2"]["line"][1:5] == ["-d", str(config), "-f", "map"]
    assert parameters_of(told["rviz2"]) == {"use_sim_time": True}
    displays = yaml.safe_load(config.read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    rules = remappings_of(told["rviz2"])
    assert rules.pop("__ns") == "/robot1" and rules.pop(Inputs.image) == "/left/image"
    # A relative name lies in the namespace of the node.
    assert rules == {topic: topic.lstrip("/") for topic in shown - {Inputs.image}}


def test_building_engines_starts_no_node(launched, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    model: mine\n    engine_precision: fp32\n")
    code, output, told = launched("sgrocc.launch.py", "build_only:=true", f"params_file:={file}")
    assert code == 0 and list(told) == ["sgrocc"], output
    assert told["sgrocc"]["line"][1:] == ["build-engine", "--model", "mine", "--precision", "fp32"]


def test_replay_plays_the_bag_to_nodes_with_simulated_time(launched, prefix):
    code, output, told = launched(
        "replay.launch.py", "bag:=/bags/one", "rate:=2.0", "image_topic:=/left/image", "global_frame:=map"
    )
    assert code == 0 and sorted(told) == ["pipeline", "replay"], output
    assert parameters_of(told["pipeline"])["use_sim_time"] is True
    assert parameters_of(told["pipeline"])["global_frame"] == "map"
    words = ["--bag", "/bags/one", "--rate", "2.0", "--wait-for-subscribers", "/left/image"]
    assert told["replay"]["line"][1:7] == words
    profile = str(prefix / "share" / "sgrocc_ros" / "config" / "fastdds_localhost.xml")
    for process in told.values():  # without it, most images are lost between the two
        assert process["environment"] == {"FASTDDS_DEFAULT_PROFILES_FILE": profile}


def test_the_demo_records_then_plays(launched, prefix):
    code, output, told = launched("demo.launch.py", "rviz:=false", "out:=/tmp/some_bag")
    assert code == 0, output
    recording = prefix / "share" / "sgrocc_ros" / "recordings" / "synth_test_0000"
    words = ["--sequence", str(recording), "--out", "/tmp/some_bag", "--overwrite"]
    assert told["record_sequence"]["line"][1:6] == words
    assert told["replay"]["line"][1:3] == ["--bag", "/tmp/some_bag"]
    assert parameters_of(told["pipeline"])["use_sim_time"] is True and "rviz2" not in told


def test_a_lifecycle_manager_may_start_the_nodes(launched):
    code, output, told = launched("sgrocc.launch.py", "autostart:=false")
    assert code == 0, output
    assert parameters_of(told["pipeline"])["autostart"] is False


def test_replay_keeps_a_profile_that_is_set_already(launched, monkeypatch):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/etc/mine.xml")
    _, output, told = launched("replay.launch.py", "bag:=/bags/one")
    assert {name: process["environment"] for name, process in told.items()} == dict.fromkeys(
        ("pipeline", "replay"), {"FASTDDS_DEFAULT_PROFILES_FILE": "/etc/mine.xml"}
    ), output


@pytest.mark.parametrize(
    "name, argument, sentence",
    [
        ("sgrocc.launch.py", "params_file:=/absent.yaml", "there is no parameter file /absent.yaml: give params_file"),
        ("sgrocc.launch.py", "one_process:=maybe", "maybe"),
        ("replay.launch.py", "rate:=2.0", "'bag'"),
    ],
)
def test_a_bad_argument_starts_nothing_and_is_named(launched, name, argument, sentence):
    code, output, told = launched(name, argument)
    assert code == 1 and told == {} and sentence in output
