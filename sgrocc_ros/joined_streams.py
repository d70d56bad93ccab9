"""The streams of a node's cameras, joined by stamp for each camera apart."""

from __future__ import annotations

import time
from collections.abc import Callable

from sgrocc_ros import messages
from sgrocc_ros.lifecycle import LOST, ManagedNode
from sgrocc_ros.parameters import MOST_CAMERAS
from sgrocc_ros.synchronise import StampJoiner


class JoinedStreams:
    """Gives each complete set {stream: message} to `put`, while the node is active; what finds no partner is counted as
    dropped by the node.

    make_joiner: makes the joiner of a camera, when its first message comes.
    """

    def __init__(
        self, node: ManagedNode, make_joiner: Callable[[], StampJoiner], put: Callable[[dict[str, object]], None]
    ) -> None:
        self._node, self._make_joiner, self._put = node, make_joiner, put
        self._joiners: dict[str, StampJoiner] = {}  # by camera, the one that was silent longest first
        node.every(0.1, self.expire)
        node.when_deactivated(self._close)

    def add(self, camera: str, stream: str, message) -> None:
        """Add a message, by the stamp of its header."""
        joiner = self._joiners.pop(camera, None) or self._make_joiner()
        self._joiners[camera] = joiner
        self._pass_on(joiner, joiner.add(stream, messages.stamp_ns(message.header), message, time.monotonic()))
        if len(self._joiners) > MOST_CAMERAS:
            silent = next(iter(self._joiners))
            sentence = f"more than {MOST_CAMERAS} frame ids of cameras, such as '{silent}': check the sender"
            self._end(self._joiners.pop(silent), "too_many_cameras", sentence)

    def expire(self) -> None:
        """Give up what has waited for the parameter max_partner_wait_s."""
        for joiner in self._joiners.values():
            self._pass_on(joiner, joiner.expire(time.monotonic(), self._node.values["max_partner_wait_s"]))

    def _close(self) -> None:
        for joiner in self._joiners.values():
            self._end(joiner, "stopped", LOST["stopped"])
        self._joiners.clear()

    def _end(self, joiner: StampJoiner, reason: str, sentence: str) -> None:
        joiner.close(reason, sentence)
        self._pass_on(joiner, [])

    def _pass_on(self, joiner: StampJoiner, complete: list[dict[str, object]]) -> None:
        for joined in complete:
            self._put(joined)
        for reason, sentence in joiner.take_dropped():
            self._node.counters.drop(reason, sentence)
