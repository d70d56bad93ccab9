"""The streams of a node's cameras, joined by stamp for each camera apart."""

from __future__ import annotations

import time
from collections.abc import Callable

from sgrocc_ros import messages
from sgrocc_ros.lifecycle import ManagedNode
from sgrocc_ros.synchronise import StampJoiner


class JoinedStreams:
    """Gives each complete set {stream: message} to `put`; what finds no partner is counted as dropped by the node.

    make_joiner: makes the joiner of a camera, when its first message comes.
    """

    def __init__(
        self, node: ManagedNode, make_joiner: Callable[[], StampJoiner], put: Callable[[dict[str, object]], None]
    ) -> None:
        self._node, self._make_joiner, self._put = node, make_joiner, put
        self._joiners: dict[str, StampJoiner] = {}

    def __len__(self) -> int:
        return len(self._joiners)

    def __contains__(self, camera: str) -> bool:
        return camera in self._joiners

    def add(self, camera: str, stream: str, message) -> None:
        """Add a message, by the stamp of its header."""
        if camera not in self._joiners:
            self._joiners[camera] = self._make_joiner()
        joiner = self._joiners[camera]
        self._pass_on(joiner, joiner.add(stream, messages.stamp_ns(message.header), message, time.monotonic()))

    def expire(self) -> None:
        """Give up what has waited for the parameter max_partner_wait_s."""
        for joiner in self._joiners.values():
            self._pass_on(joiner, joiner.expire(time.monotonic(), self._node.values["max_partner_wait_s"]))

    def _pass_on(self, joiner: StampJoiner, complete: list[dict[str, object]]) -> None:
        for joined in complete:
            self._put(joined)
        for reason, sentence in joiner.take_dropped():
            self._node.counters.drop(reason, sentence)
