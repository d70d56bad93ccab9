"""Measuring maps: ground truth from depth, scores, the OctoMap baseline, pictures and reports. Never torch or ROS."""
