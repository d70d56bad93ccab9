"""Starts SGR-OCC on a robot: camera topics and tf in, semantic occupancy out."""

from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from sgrocc_ros.description import Inputs, executables

SHARE = Path(get_package_share_directory("sgrocc_ros"))

ARGUMENTS = (
    ("image_topic", Inputs.image, "colour image, rectified"),
    ("camera_info_topic", Inputs.camera_info, "camera_info of that image"),
    (
        "depth_topic",
        Inputs.depth,
        "depth image registered to the colour image; unused with depth_source network",
    ),
    ("depth_source", "", "topic: the depth image; network: the model's own, no depth camera; empty: as in params_file"),
    (
        "global_frame",
        "",
        "frame of the map, z up; a transform from it to the camera must be on tf; empty: as in params_file",
    ),
    ("params_file", str(SHARE / "config" / "sgrocc.yaml"), "parameter file; the arguments here win over it"),
    ("namespace", "", "namespace of the nodes and of the output topics"),
    ("use_sim_time", "false", "true for a bag or a simulator that publishes /clock"),
    ("autostart", "true", "true: as in params_file; false: a lifecycle manager configures and activates the nodes"),
    ("one_process", "true", "true: all in one process (faster); false: three processes"),
    ("log_level", "info", "debug, info, warn or error"),
    ("rviz", "false", "true: start RViz with the shipped configuration"),
    ("build_only", "false", "true: start no node, but build the engines of params_file's model for this GPU"),
)

#: What the RViz configuration shows of our outputs.
SHOWN = (
    "occupancy/points",
    "occupancy/grid",
    "occupancy/cost",
    "occupancy/distance",
    "occupancy/markers",
    "gaussians/memory",
    "gaussians/depth",
    "debug/gates",
    "debug/confidence",
)


def start(context):
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def is_true(name: str) -> bool:  # refuses what is neither true nor false
        return IfCondition(LaunchConfiguration(name)).evaluate(context)

    frame, params_file = value("global_frame"), Path(value("params_file"))
    if not params_file.is_file():  # launch_ros would warn and go on without it
        raise FileNotFoundError(f"there is no parameter file {params_file}: give params_file the path of a YAML file")
    if is_true("build_only"):
        from sgrocc_ros import parameters  # it brings much along

        values = parameters.from_yaml(params_file)
        tool = Path(get_package_prefix("sgrocc_ros")) / "lib" / "sgrocc_ros" / "sgrocc"
        chosen = ["--model", values["model"], "--precision", values["engine_precision"]]
        return [ExecuteProcess(cmd=[str(tool), "build-engine", *chosen], output="screen")]
    clock = {"use_sim_time": is_true("use_sim_time")}
    start = {} if is_true("autostart") else {"autostart": False}  # true: as in params_file
    # A frame is a string, also where YAML would read a number or a truth value.
    named = {"global_frame": frame, "depth_source": value("depth_source")}
    named = {name: ParameterValue(text, value_type=str) for name, text in named.items() if text}
    overrides = {**clock, **start, **named}
    inputs = Inputs(value("image_topic"), value("camera_info_topic"), value("depth_topic"))
    nodes = [
        Node(
            package="sgrocc_ros",
            executable=executable,
            namespace=value("namespace"),
            parameters=[str(params_file), overrides],
            remappings=inputs.remappings(),
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="screen",
        )
        for executable in executables(is_true("one_process"))
    ]
    if is_true("rviz"):
        nodes.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value("namespace"),
                parameters=[clock],
                arguments=["-d", str(SHARE / "config" / "sgrocc.rviz"), *(("-f", frame) if frame else ())],
                # The configuration names absolute topics; a relative one lies in the namespace.
                remappings=[*((f"/{topic}", topic) for topic in SHOWN), (Inputs.image, inputs.image)],
            )
        )
    return nodes


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
