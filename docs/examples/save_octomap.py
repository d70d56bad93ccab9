"""Writes one Octomap message to a file that octovis and the OctoMap library read.

.bt: occupied or free, of a binary message; .ot: probabilities and colours, of a full one.
"""

import sys

import numpy as np


def content_of(octomap) -> bytes:
    """The file of an octomap_msgs/Octomap: .bt of a binary one, .ot of a full one."""
    data = np.frombuffer(bytes(octomap.data), np.uint8)
    if octomap.binary:
        # A node is 2 bytes, 2 bits for each child, not zero where there is one; leaves have none.
        children = (data[:, None] >> (0, 2, 4, 6)) & 3
        nodes = 1 + int((children != 0).sum())
        header = "# Octomap OcTree binary file"
    else:
        nodes = len(data) // 8  # log-odds, colour, and which children there are
        header = "# Octomap OcTree file"
    head = f"{header}\nid {octomap.id}\nsize {nodes}\nres {octomap.resolution:.10g}\ndata\n"
    return head.encode() + data.tobytes()


def main() -> None:
    import rclpy
    from octomap_msgs.msg import Octomap
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile

    rclpy.init()
    path = rclpy.utilities.remove_ros_args(sys.argv)[1]
    node, received = rclpy.create_node("save_octomap"), []
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(Octomap, "octomap", received.append, latched)
    while not received:
        rclpy.spin_once(node)
    with open(path, "wb") as file:
        file.write(content_of(received[0]))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
