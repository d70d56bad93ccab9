"""Gives MoveIt each new map. Not run: MoveIt was not at hand."""

import rclpy
from moveit_msgs.msg import PlanningScene
from octomap_msgs.msg import Octomap
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

rclpy.init()
node = rclpy.create_node("octomap_to_moveit")
publisher = node.create_publisher(PlanningScene, "planning_scene", 1)


def pass_on(octomap: Octomap) -> None:
    scene = PlanningScene(is_diff=True)
    scene.robot_state.is_diff = True
    scene.world.octomap.header = octomap.header
    scene.world.octomap.origin.orientation.w = 1.0
    scene.world.octomap.octomap = octomap
    publisher.publish(scene)


latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(Octomap, "octomap", pass_on, latched)
rclpy.spin(node)
