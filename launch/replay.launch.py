"""Plays a recording through the nodes: the robot's launch file with simulated time, and the player."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from sgrocc_ros.description import Inputs

SHARE = Path(get_package_share_directory("sgrocc_ros"))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder of a rosbag2 recording"),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="speed of the replay; 1 is that of recording"
            ),
            DeclareLaunchArgument("rviz", default_value="false", description="true: start RViz"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(SHARE / "launch" / "sgrocc.launch.py")),
                launch_arguments={"use_sim_time": "true", "rviz": LaunchConfiguration("rviz")}.items(),
            ),
            Node(
                package="sgrocc_ros",
                executable="replay",
                arguments=[
                    "--bag",
                    LaunchConfiguration("bag"),
                    "--rate",
                    LaunchConfiguration("rate"),
                    "--wait-for-subscribers",
                    Inputs.image,
                ],
                output="screen",
            ),
        ]
    )
