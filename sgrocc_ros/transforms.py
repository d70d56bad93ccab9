"""Poses at a message's own stamp: never the latest one, never the identity in place of a missing one.

`RosTransforms` listens to /tf and /tf_static, through tf2_ros where it is installed and through `TransformBuffer`
elsewhere; `PoseQueue` holds frames until their pose is there. All but `RosTransforms` works without ROS.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sgrocc.geometry import Pose

#: Why a pose cannot be had, and whether waiting for more transforms can help.
REASONS = {
    "frame_unknown": True,
    "frames_unconnected": True,
    "pose_in_future": True,
    "pose_in_past": False,
    "bad_transform": False,
}


class PoseUnavailable(Exception):
    """No pose at this stamp, in one sentence; `reason` is a key of REASONS, `may_come`: waiting can help."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.may_come = REASONS[reason]


class BadTransform(ValueError):
    """A transform that is refused, in one sentence, and a short `reason` to count by."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass
class _Link:
    """What is known of a frame relative to its parent: poses at increasing stamps, or one pose that always holds."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[Pose] = field(default_factory=list)

    def pose_at(self, stamp_ns: int) -> Pose:
        """The pose at a stamp inside the span of this link."""
        if self.static:
            return self.poses[0]
        after = bisect.bisect_left(self.stamps_ns, stamp_ns)
        if self.stamps_ns[after] == stamp_ns:
            return self.poses[after]
        start, end = self.stamps_ns[after - 1], self.stamps_ns[after]
        return self.poses[after - 1].interpolate(self.poses[after], (stamp_ns - start) / (end - start))


class TransformBuffer:
    """The tree of frames over the last `cache_time_s` seconds. May be fed by one thread and asked by another.

    As in tf2, the newest message decides whether a frame is static and which parent it has. A change of parent
    starts the frame's history anew: poses from before the change are refused rather than mixed with those after it.
    """

    def __init__(self, cache_time_s: float = 10.0) -> None:
        if not cache_time_s > 0:
            raise ValueError(f"transforms must be remembered for more than 0 s, not {cache_time_s}")
        self._cache_time_ns = round(cache_time_s * 1e9)
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all but the static transforms, which nobody sends twice. Call it when time jumps back."""
        with self._lock:
            self._links = {child: link for child, link in self._links.items() if link.static}

    def set_transform(self, parent: str, child: str, stamp_ns: int, pose: Pose, static: bool) -> None:
        """Add one transform: `pose` maps coordinates in `child` to `parent`. A second one at a stamp replaces it.

        Raises BadTransform, and changes nothing, for an empty frame id, a loop, a stamp more than the cache time
        before the frame's newest one, and an old stamp with another parent than the newest one's.
        """
        parent, child = _frame_name(parent), _frame_name(child)
        if not parent or not child:
            raise BadTransform(
                "empty_frame_id",
                f"the transform from '{child}' to '{parent}' has an empty frame id: set it at its source",
            )
        with self._lock:
            link = self._links.get(child)
            newest_ns = link.stamps_ns[-1] if link and not link.static and not static else None
            if newest_ns is not None and stamp_ns < newest_ns:
                if newest_ns - stamp_ns > self._cache_time_ns:
                    raise BadTransform(
                        "too_old",
                        f"the transform from '{child}' to '{parent}' at {_seconds(stamp_ns)} is too old, others came "
                        f"up to {_seconds(newest_ns)}: look for two clocks or a restarted recording (play it with "
                        "--clock and set use_sim_time)",
                    )
                if link.parent != parent:
                    raise BadTransform(
                        "two_parents",
                        f"frame '{child}' is sent with the parents '{parent}' and '{link.parent}' at a time: "
                        "stop one of the two publishers",
                    )
            if link is None or link.parent != parent:
                if child in self._to_root(parent):
                    raise BadTransform(
                        "frame_loop",
                        f"the transform from '{child}' to '{parent}' closes a loop, since '{parent}' hangs below "
                        f"'{child}' already: remove one of the transforms between them",
                    )
            if link is None or link.parent != parent or link.static or static:
                self._links[child] = _Link(parent, static, [stamp_ns], [pose])
                return
            at = bisect.bisect_left(link.stamps_ns, stamp_ns)
            replaced = at < len(link.stamps_ns) and link.stamps_ns[at] == stamp_ns
            link.stamps_ns[at : at + replaced] = [stamp_ns]
            link.poses[at : at + replaced] = [pose]
            expired = bisect.bisect_left(link.stamps_ns, link.stamps_ns[-1] - self._cache_time_ns)
            del link.stamps_ns[:expired], link.poses[:expired]

    def lookup(self, target: str, source: str, stamp_ns: int) -> Pose:
        """The pose that maps coordinates in `source` to `target` at a stamp; PoseUnavailable where there is none.

        Between two stamps of a transform it is interpolated, outside of them it is refused. A frame in itself is the
        identity, whether it is known or not, as in tf2.
        """
        target, source = _frame_name(target), _frame_name(source)
        _require_answerable(target, source, stamp_ns)
        with self._lock:
            up, down = self._to_root(source), self._to_root(target)
            common = None
            while up and down and up[-1] == down[-1]:
                common = up.pop()
                down.pop()
            if common is None:
                self._require_known(target, source)
                raise _unconnected(target, source)
            self._require_span(target, source, up + down, stamp_ns)
            try:
                to_common = self._chain(up, stamp_ns)
                if not down:
                    return to_common
                from_common = self._chain(down, stamp_ns).inverse()
                return from_common @ to_common if up else from_common
            except ValueError as error:  # finite translations whose sum is not
                raise _bad(target, source, stamp_ns, error) from None

    def _to_root(self, frame: str) -> list[str]:
        """The frame and all above it; ends, because set_transform lets no loop in."""
        frames = [frame]
        while (link := self._links.get(frames[-1])) is not None:
            frames.append(link.parent)
        return frames

    def _chain(self, frames: list[str], stamp_ns: int) -> Pose:
        """The pose of the lowest of the `frames` in the parent of the highest."""
        if not frames:
            return Pose.identity()
        pose = self._links[frames[0]].pose_at(stamp_ns)
        for frame in frames[1:]:
            pose = self._links[frame].pose_at(stamp_ns) @ pose
        return pose

    def _require_known(self, target: str, source: str) -> None:
        known = {*self._links, *(link.parent for link in self._links.values())}
        for frame in (target, source):
            if frame not in known:
                raise _unknown(target, source, f"no transform names the frame '{frame}'")

    def _require_span(self, target: str, source: str, frames: list[str], stamp_ns: int) -> None:
        moving = [(frame, self._links[frame]) for frame in frames if not self._links[frame].static]
        for frame, link in moving:  # first, because what is lost in one transform is not worth waiting for in another
            if stamp_ns < link.stamps_ns[0]:
                raise _in_past(target, source, stamp_ns, f"the oldest transform of '{frame}'", link.stamps_ns[0])
        for frame, link in moving:
            if stamp_ns > link.stamps_ns[-1]:
                raise _in_future(target, source, stamp_ns, f"the newest transform of '{frame}'", link.stamps_ns[-1])


def add_tf_message(buffer: TransformBuffer, msg, static: bool) -> list[str]:
    """Add a tf2_msgs/TFMessage (of rclpy or rosbags); returns one sentence for each transform that was refused."""
    return [str(problem) for problem in _add_each(buffer, msg, static)]


def _add_each(buffer: TransformBuffer, msg, static: bool) -> Iterator[BadTransform]:
    for stamped in msg.transforms:
        try:
            buffer.set_transform(*_read(stamped), static)
        except BadTransform as problem:
            yield problem


def _read(stamped) -> tuple[str, str, int, Pose]:
    """(parent, child, stamp in nanoseconds, pose) of a geometry_msgs/TransformStamped; may raise BadTransform."""
    parent, child, stamp = stamped.header.frame_id, stamped.child_frame_id, stamped.header.stamp
    try:
        pose = _pose_of(stamped.transform)
    except ValueError as error:
        raise BadTransform("bad_numbers", f"the transform from '{child}' to '{parent}' is refused: {error}") from None
    return parent, child, stamp.sec * 1_000_000_000 + stamp.nanosec, pose


def _pose_of(transform) -> Pose:
    """From a geometry_msgs/Transform; ValueError for numbers that are no pose."""
    q, t = transform.rotation, transform.translation
    return Pose.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))


class RosTransforms:
    """Listens to /tf and /tf_static for a node. `lookup` may be called from any thread.

    problems: how many transforms were refused, by reason. Both ways refuse the same bad numbers; loops, old stamps
    and empty frame ids tf2_ros refuses by rules and log messages of its own, so there they are not counted.
    When simulated time jumps back, all but the static transforms are forgotten.
    """

    def __init__(self, node, cache_time_s: float) -> None:
        self.problems: Counter[str] = Counter()
        self._logger = node.get_logger()
        self._close: Callable[[], None] = lambda: None
        try:
            self._buffer = _Tf2Buffer(node, cache_time_s, self._report)
            stop_listening = self._buffer.close
        except ImportError:
            self._buffer = TransformBuffer(cache_time_s)
            stop_listening = self._listen(node)
        jumps = when_clock_goes_back(node, lambda _: self.clear())

        def close() -> None:
            jumps.unregister()
            stop_listening()

        self._close = close

    def lookup(self, target: str, source: str, stamp_ns: int) -> Pose:
        """The pose that maps coordinates in `source` to `target` at a stamp; PoseUnavailable where there is none.

        Never waits: ask again later, as PoseQueue does.
        """
        try:
            return self._buffer.lookup(target, source, stamp_ns)
        except PoseUnavailable as error:
            if error.reason == "bad_transform":
                self._report(error)
            raise

    def clear(self) -> None:
        """Forget all but the static transforms."""
        self._buffer.clear()

    def close(self) -> None:
        """Listen no more."""
        self._close()

    def _listen(self, node) -> Callable[[], None]:
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile
        from tf2_msgs.msg import TFMessage

        latched = QoSProfile(depth=100, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        heard = [
            node.create_subscription(TFMessage, "/tf", lambda msg: self._receive(msg, False), QoSProfile(depth=100)),
            node.create_subscription(TFMessage, "/tf_static", lambda msg: self._receive(msg, True), latched),
        ]

        def close() -> None:
            for subscription in heard:
                node.destroy_subscription(subscription)

        return close

    def _receive(self, msg, static: bool) -> None:
        for problem in _add_each(self._buffer, msg, static):
            self._report(problem)

    def _report(self, problem: BadTransform | PoseUnavailable) -> None:
        self.problems[problem.reason] += 1
        self._logger.warning(str(problem), throttle_duration_sec=10.0)


def when_clock_goes_back(node, call: Callable):
    """Call with the TimeJump whenever a node's clock goes back or becomes another one; `unregister` ends that."""
    from rclpy.clock import JumpThreshold
    from rclpy.duration import Duration

    back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
    return node.get_clock().create_jump_callback(back, post_callback=call)


class _Tf2Buffer:
    """tf2_ros with the lookup of TransformBuffer; ImportError where there is no tf2_ros.

    It stands between tf2's listener and tf2's buffer, which would take infinite numbers and normalise a quaternion of
    any length without a word.
    """

    def __init__(self, node, cache_time_s: float, report: Callable[[BadTransform], None]) -> None:
        import tf2_ros
        from rclpy.duration import Duration
        from rclpy.time import Time

        self._tf2_ros, self._time, self._report = tf2_ros, Time, report
        # Without node=: what it would make of the node, a service and a callback of the clock, is never destroyed.
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=cache_time_s))
        self._listener = tf2_ros.TransformListener(self, node, spin_thread=False)
        self.clear = self._buffer.clear
        self.close = self._listener.unregister

    def set_transform(self, stamped, authority: str) -> None:
        self._set_checked(self._buffer.set_transform, stamped, authority)

    def set_transform_static(self, stamped, authority: str) -> None:
        self._set_checked(self._buffer.set_transform_static, stamped, authority)

    def _set_checked(self, setter: Callable, stamped, authority: str) -> None:
        try:
            _read(stamped)
        except BadTransform as problem:
            self._report(problem)
        else:
            setter(stamped, authority)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Pose:
        target, source = _frame_name(target), _frame_name(source)
        _require_answerable(target, source, stamp_ns)
        try:
            stamped = self._buffer.lookup_transform(target, source, self._time(nanoseconds=stamp_ns))
        except self._tf2_ros.ExtrapolationException:
            raise self._outside_the_span(target, source, stamp_ns) from None
        except self._tf2_ros.ConnectivityException:
            raise _unconnected(target, source) from None
        except self._tf2_ros.TransformException as error:
            raise _unknown(target, source, str(error).strip()) from None
        try:
            return _pose_of(stamped.transform)
        except ValueError as error:
            raise _bad(target, source, stamp_ns, error) from None

    def _outside_the_span(self, target: str, source: str, stamp_ns: int) -> PoseUnavailable:
        try:
            newest_ns = self._buffer.get_latest_common_time(target, source).nanoseconds
        except self._tf2_ros.TransformException:  # the frames are known, but their transforms were cleared
            return _unconnected(target, source)
        if stamp_ns > newest_ns:
            return _in_future(target, source, stamp_ns, "the newest common transform", newest_ns)
        return _in_past(target, source, stamp_ns, "the newest common transform", newest_ns)


class PoseQueue:
    """Frames that wait for their pose, in the order of their stamps.

    A frame that can still get its pose holds up the younger ones, so poses are handed out in stamp order.
    max_length: frames; max_wait_s: seconds on the steady clock that also gives `now_s`.
    """

    def __init__(self, max_length: int, max_wait_s: float) -> None:
        if max_length < 1 or not max_wait_s >= 0:
            raise ValueError(
                f"a queue of {max_length} frames that wait {max_wait_s} s holds nothing: "
                "give it room for one frame or more and a wait of 0 s or more"
            )
        self._max_length, self.max_wait_s = max_length, max_wait_s
        self._waiting: list[tuple[int, float, object]] = []  # (stamp, time of its push, item), by stamp

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self, after_ns: int = -1) -> list[object]:
        """Give up those that wait and are stamped later than `after_ns`; returns them."""
        given_up = [item for stamp_ns, _, item in self._waiting if stamp_ns > after_ns]
        self._waiting = [entry for entry in self._waiting if entry[0] <= after_ns]
        return given_up

    def push(self, stamp_ns: int, item: object, now_s: float) -> list[tuple[object, str]]:
        """Add a frame; returns [(item, 'queue_full')] of the oldest one where there is no room for all."""
        bisect.insort(self._waiting, (stamp_ns, now_s, item), key=lambda entry: entry[0])
        if len(self._waiting) <= self._max_length:
            return []
        return [(self._waiting.pop(0)[2], "queue_full")]

    def poll(
        self, lookup: Callable[[object], Pose], now_s: float
    ) -> tuple[list[tuple[object, Pose]], list[tuple[object, str, str]]]:
        """Ask for the poses: (ready [(item, pose)], dropped [(item, reason, sentence)]), both by stamp.

        lookup: gives an item's pose or raises PoseUnavailable. A frame is dropped when its pose cannot come any more,
        or has not come for `max_wait_s`.
        """
        ready, dropped = [], []
        while self._waiting:
            _, pushed_s, item = self._waiting[0]
            try:
                ready.append((item, lookup(item)))
            except PoseUnavailable as error:
                if error.may_come and now_s - pushed_s < self.max_wait_s:
                    break
                dropped.append((item, error.reason, str(error)))
            except Exception as error:  # else it would hold up all others for ever
                dropped.append((item, "internal_error", f"{type(error).__name__}: {error}: please report it"))
            del self._waiting[0]
        return ready, dropped


def _frame_name(frame: str) -> str:
    return frame.lstrip("/")  # tf2 has no leading slash, ROS 1 had


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns / 1e9:.3f} s"


def _require_answerable(target: str, source: str, stamp_ns: int) -> None:
    if not target or not source:
        raise _unknown(target, source, "an empty frame id")
    if stamp_ns <= 0:  # tf2 would take 0 as a wish for the latest pose
        raise PoseUnavailable(
            "pose_in_past",
            f"no pose of '{source}' in '{target}': the message has no stamp, set its header.stamp to the time of "
            "capture",
        )


def _unknown(target: str, source: str, cause: str) -> PoseUnavailable:
    return PoseUnavailable(
        "frame_unknown",
        f"no pose of '{source}' in '{target}' ({cause}): check the frame ids of the messages and that the transforms "
        "of both frames are published on /tf or /tf_static",
    )


def _unconnected(target: str, source: str) -> PoseUnavailable:
    return PoseUnavailable(
        "frames_unconnected",
        f"no pose of '{source}' in '{target}': no chain of transforms connects the two frames, "
        "publish the missing one on /tf or /tf_static",
    )


def _in_past(target: str, source: str, stamp_ns: int, what: str, limit_ns: int) -> PoseUnavailable:
    return PoseUnavailable(
        "pose_in_past",
        f"no pose of '{source}' in '{target}' at {_seconds(stamp_ns)} is remembered, {what} is of "
        f"{_seconds(limit_ns)}: reduce the delay of the images or raise tf_cache_time_s",
    )


def _in_future(target: str, source: str, stamp_ns: int, what: str, limit_ns: int) -> PoseUnavailable:
    return PoseUnavailable(
        "pose_in_future",
        f"no pose of '{source}' in '{target}' at {_seconds(stamp_ns)} has come, {what} is of "
        f"{_seconds(limit_ns)}: check that /tf is still published and its clock is the camera's",
    )


def _bad(target: str, source: str, stamp_ns: int, error: ValueError) -> PoseUnavailable:
    return PoseUnavailable(
        "bad_transform", f"the pose of '{source}' in '{target}' at {_seconds(stamp_ns)} is refused: {error}"
    )
