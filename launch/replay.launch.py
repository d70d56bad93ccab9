"""Plays a recording through the nodes: the robot's launch file with simulated time, and the player.

The arguments of sgrocc.launch.py are taken too. When the recording ends the nodes go on, with the map. What is started
here speaks to this machine only, unless FASTDDS_DEFAULT_PROFILES_FILE is set to another profile.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("sgrocc_ros"))
PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder of a rosbag2 recording"),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="speed of the replay; 1 is that of recording"
            ),
            DeclareLaunchArgument("rviz", default_value="false", description="true: start RViz"),
            # Fast DDS's own shared memory is too small for images: more than half of them were lost.
            SetEnvironmentVariable(
                PROFILE, EnvironmentVariable(PROFILE, default_value=str(SHARE / "config" / "fastdds_localhost.xml"))
            ),
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
                    LaunchConfiguration("image_topic"),  # declared by the robot's launch file
                    "/tf",
                ],
                output="screen",
            ),
        ]
    )
