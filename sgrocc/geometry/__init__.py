"""Cameras, poses and voxel grids, in numpy. Frames follow REP-103 and REP-105."""

from sgrocc.geometry.camera import PinholeCamera
from sgrocc.geometry.grid import VoxelGrid
from sgrocc.geometry.pose import Pose

__all__ = ["PinholeCamera", "Pose", "VoxelGrid"]
