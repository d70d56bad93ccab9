"""ROS 2 nodes around sgrocc: cameras and poses in, semantic occupancy out."""
