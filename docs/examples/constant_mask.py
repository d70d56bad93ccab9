"""Publishes a picture as the mask of each image."""

import sys
from array import array

import numpy as np
import rclpy
from PIL import Image as Picture
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

pixels = np.asarray(Picture.open(sys.argv[1]).convert("L"))
rclpy.init()
node = rclpy.create_node("constant_mask")
publisher = node.create_publisher(Image, "mask", 5)


def answer(image: Image) -> None:
    height, width = pixels.shape
    mask = Image(header=image.header, height=height, width=width, encoding="mono8", step=width)
    mask.data = array("B", pixels.tobytes())
    publisher.publish(mask)


node.create_subscription(Image, "image", answer, qos_profile_sensor_data)
rclpy.spin(node)
