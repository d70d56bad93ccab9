"""Plays the recording that comes with the package through the nodes, in RViz: no robot and no camera needed.

A bag is made of the recording first. The arguments of replay.launch.py and sgrocc.launch.py are taken too.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("sgrocc_ros"))


def generate_launch_description() -> LaunchDescription:
    sequence, out = LaunchConfiguration("sequence"), LaunchConfiguration("out")
    record = Node(
        package="sgrocc_ros",
        executable="record_sequence",
        arguments=["--sequence", sequence, "--out", out, "--overwrite"],
        output="screen",
    )
    replay = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "replay.launch.py")),
        launch_arguments={"bag": out, "rviz": LaunchConfiguration("rviz")}.items(),
    )

    def play(event, _):
        # What went wrong stands in the output of record_sequence.
        return [replay] if event.returncode == 0 else []

    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "sequence",
                default_value=str(SHARE / "recordings" / "synth_test_0000"),
                description="folder of posed RGB-D frames",
            ),
            DeclareLaunchArgument("out", default_value="/tmp/sgrocc_demo", description="folder of the bag made of it"),
            DeclareLaunchArgument("rviz", default_value="true", description="true: start RViz"),
            record,
            RegisterEventHandler(OnProcessExit(target_action=record, on_exit=play)),
        ]
    )
