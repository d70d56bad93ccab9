"""Names, in one sentence, what a node waits for in vain: a user's first question is why nothing appears."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy


@dataclass
class _Input:
    """One topic that is waited for. once: it need not come again and again. suffix: ends the topic, not the stream."""

    stream: str
    topic: str
    kind: str
    once: bool
    suffix: str
    since_s: float
    came: bool = False


class Watchdog:
    """Watches a node's inputs, its clock and who listens to its outputs. Speaks only of what is missing now.

    after_s: how long something may be silent, seconds on the steady clock.
    """

    def __init__(self, node: Node, after_s: Callable[[], float]) -> None:
        self._node, self._after_s = node, after_s
        self._inputs: dict[str, _Input] = {}
        self._outputs: Callable[[], list] = list
        self._matters: Callable[[], bool] = lambda: False
        self.qos: dict[str, QoSProfile] = {}  #: by topic, of the node's subscriptions
        self._clock = (-1, time.monotonic())
        self._since_s = time.monotonic()

    def watch(self, stream: str, topic: str, kind: str, *, once: bool = False, suffix: str = "") -> None:
        """From now on an input is expected.

        topic: resolved; kind: such as sensor_msgs/msg/Image; suffix: what a transport puts behind the name to remap.
        """
        self._inputs[stream] = _Input(stream, topic, kind, once, suffix, time.monotonic())

    def watch_outputs(self, publishers: Callable[[], list], matters: Callable[[], bool]) -> None:
        """publishers: those of which one at least should be listened to, once it `matters`."""
        self._outputs, self._matters, self._since_s = publishers, matters, time.monotonic()

    def heard(self, stream: str) -> None:
        entry = self._inputs[stream]
        entry.came, entry.since_s = True, time.monotonic()

    def forget(self) -> None:
        """Nothing is expected any more."""
        self._inputs, self._outputs = {}, list

    def missing(self) -> tuple[str, str] | None:
        """(reason, sentence) of the first thing that is missing: the clock, then the inputs in the order of `watch`."""
        now, after_s = time.monotonic(), self._after_s()
        stands = self._standing_clock(now, after_s)
        if stands:
            return stands
        for entry in self._inputs.values():
            if now - entry.since_s > after_s and not (entry.once and entry.came):
                return self._why(entry, now - entry.since_s)
        return None

    def unheard(self) -> tuple[str, str] | None:
        """(reason, sentence) where nobody listens to the outputs, or somebody with a QoS that does not fit."""
        publishers = self._outputs()
        for publisher in publishers:
            for reader in self._node.get_subscriptions_info_by_topic(publisher.topic_name):
                misfit = misfit_of(publisher.qos_profile, reader.qos_profile)
                if misfit:
                    return (
                        "reader_qos",
                        f"{_name_of(reader)} listens to {publisher.topic_name} and gets nothing, since it asks for "
                        f"{misfit[1]} where we offer {misfit[2]}: change the {misfit[0]} in its settings",
                    )
        silent = (
            publishers and self._matters() and not any(publisher.get_subscription_count() for publisher in publishers)
        )
        if not silent:
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s > self._after_s():
            topics = ", ".join(publisher.topic_name for publisher in publishers)
            return "no_listener", f"nobody subscribes to the map: listen to one of {topics}"
        return None

    def _standing_clock(self, now: float, after_s: float) -> tuple[str, str] | None:
        if not self._node.get_parameter("use_sim_time").value:
            return None
        reading = self._node.get_clock().now().nanoseconds
        if reading != self._clock[0]:
            self._clock = reading, now
        if now - self._clock[1] <= after_s:
            return None
        if reading == 0:
            return "no_clock", (
                "use_sim_time is true, but no /clock comes: play the bag with --clock, start the simulator, or set "
                "use_sim_time to false"
            )
        return "clock_stands", (
            f"use_sim_time is true, and /clock has stood still for {now - self._clock[1]:.0f} s: go on with the bag or "
            "the simulator"
        )

    def _why(self, entry: _Input, silent_s: float) -> tuple[str, str]:
        begin = f"no {entry.stream} for {silent_s:.0f} s"
        publishers = self._node.get_publishers_info_by_topic(entry.topic)
        if not publishers:
            others = sorted(
                topic.removesuffix(entry.suffix)
                for topic, kinds in self._node.get_topic_names_and_types()
                if entry.kind in kinds and topic.endswith(entry.suffix) and self._others_publish(topic)
            )
            cure = (
                f"remap `{entry.stream}` to {' or '.join(others[:5])}"
                if others
                else f"no topic of the type {entry.kind} exists, so start the driver, with the same ROS_DOMAIN_ID"
            )
            return f"no_{entry.stream}", f"{begin}: nobody publishes {entry.topic}; {cure}"
        for publisher in publishers:
            misfit = misfit_of(publisher.qos_profile, self.qos[entry.topic])
            if misfit:
                policy, asked, offered = misfit
                return "incompatible_qos", (
                    f"{begin}: {_name_of(publisher)} offers {entry.topic} with {policy} {offered} and we ask for "
                    f"{asked}: set qos_overrides.{entry.topic}.subscription.{policy} to {offered}"
                )
        names = ", ".join(_name_of(publisher) for publisher in publishers)
        return f"no_{entry.stream}", (
            f"{begin}, though {names} publishes {entry.topic}: see whether it sends (ros2 topic hz {entry.topic}), and "
            "whether large messages come through (FASTDDS_DEFAULT_PROFILES_FILE)"
        )

    def _others_publish(self, topic: str) -> bool:
        ours = self._node.get_name()
        return any(publisher.node_name != ours for publisher in self._node.get_publishers_info_by_topic(topic))


def misfit_of(offered: QoSProfile, asked: QoSProfile) -> tuple[str, str, str] | None:
    """(policy, what is asked for, what is offered) where a publisher gives less than a subscription asks for."""
    if (offered.reliability, asked.reliability) == (QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE):
        return "reliability", "reliable", "best_effort"
    if (offered.durability, asked.durability) == (
        QoSDurabilityPolicy.VOLATILE,
        QoSDurabilityPolicy.TRANSIENT_LOCAL,
    ):
        return "durability", "transient_local", "volatile"
    return None


def _name_of(endpoint) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
