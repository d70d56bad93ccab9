"""Starts SGR-OCC on a robot: camera topics and tf in, semantic occupancy out."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from sgrocc_ros.description import Inputs, executables

SHARE = Path(get_package_share_directory("sgrocc_ros"))

ARGUMENTS = (
    ("image_topic", Inputs.image, "colour image, rectified"),
    ("camera_info_topic", Inputs.camera_info, "camera_info of that image"),
    (
        "depth_topic",
        Inputs.depth,
        "depth image registered to the colour image; unused with a learned expert's own depth",
    ),
    ("global_frame", "odom", "frame of the map, z up; a transform from it to the camera must be on tf"),
    ("params_file", str(SHARE / "config" / "sgrocc.yaml"), "parameter file; the arguments here win over it"),
    ("namespace", "", "namespace of the nodes and of the output topics"),
    ("use_sim_time", "false", "true for a bag or a simulator that publishes /clock"),
    ("one_process", "true", "true: all in one process (faster); false: three processes"),
    ("log_level", "info", "debug, info, warn or error"),
    ("rviz", "false", "true: start RViz with the shipped configuration"),
)


def start(context):
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    inputs = Inputs(value("image_topic"), value("camera_info_topic"), value("depth_topic"))
    return [
        Node(
            package="sgrocc_ros",
            executable=executable,
            namespace=value("namespace"),
            parameters=[
                value("params_file"),
                {"global_frame": value("global_frame"), "use_sim_time": value("use_sim_time") == "true"},
            ],
            remappings=inputs.remappings(),
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="screen",
        )
        for executable in executables(value("one_process") == "true")
    ]


def generate_launch_description() -> LaunchDescription:
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "sgrocc.rviz"), "-f", LaunchConfiguration("global_frame")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start), rviz])
