"""Semantic occupancy from Gaussians: the method, its data, its evaluation and its export, without ROS."""

__version__ = "0.1.0"
