"""Notices when the frame of the map jumps against odometry: a loop was closed, or the robot was set elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgrocc.geometry import Pose
from sgrocc_ros.transforms import PoseUnavailable

#: After a longer pause than this a difference is no jump: many small corrections add up to it.
_MOST_APART_S = 10.0


class MapJumps:
    """Compares where odom_frame lies in global_frame from frame to frame (REP-105: it drifts there, or it jumps)."""

    def __init__(self, global_frame: str, odom_frame: str) -> None:
        self._global_frame, self._odom_frame = global_frame, odom_frame
        self._last: tuple[int, Pose] | None = None  # stamp in nanoseconds

    def forget(self) -> None:
        """Compare nothing with what came before: the clock went back."""
        self._last = None

    def sentence(self, lookup: Callable[[str, str, int], Pose], stamp_ns: int, most_m: float, most_deg: float) -> str:
        """What jumped by more than `most_m` metres or `most_deg` degrees since the last call; empty where nothing did,
        where that was long ago, or where the frames cannot be compared.
        """
        if not self._odom_frame or self._odom_frame == self._global_frame:
            return ""
        try:
            pose = lookup(self._global_frame, self._odom_frame, stamp_ns)
        except PoseUnavailable:  # then the frames of the map say why, if it matters
            return ""
        last_ns, last = self._last or (stamp_ns, pose)
        self._last = stamp_ns, pose
        if abs(stamp_ns - last_ns) > 1e9 * _MOST_APART_S:
            return ""
        change = last.inverse() @ pose
        # Of the camera's place, a turn about the origin far away says little: the two are judged apart.
        moved_m = float(np.linalg.norm(pose.translation - last.translation))
        turned_deg = float(np.degrees(2 * np.arccos(np.clip(abs(change.quaternion[0]), 0, 1))))
        if moved_m <= most_m and turned_deg <= most_deg:
            return ""
        return (
            f"'{self._global_frame}' jumped against '{self._odom_frame}' by {moved_m:.2f} m and {turned_deg:.1f} "
            "degrees: what was mapped before stays where it was; set on_map_jump to reset, or global_frame to "
            f"{self._odom_frame}"
        )
