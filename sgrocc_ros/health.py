"""What a user asks first when the map stays empty: how many frames came, were fused, were dropped, and why."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sgrocc.stages import Stopwatch


class FrameCounters:
    """Counts frames from any thread.

    In a pipeline every frame that is received ends as fused or as dropped for one reason; as a process of its own the
    expert counts what it receives and drops, and the memory node what it fuses.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._fused = 0
        self._dropped: Counter[str] = Counter()
        self._sentences: dict[str, str] = {}

    def receive(self) -> None:
        with self._lock:
            self._received += 1

    def fuse(self) -> None:
        with self._lock:
            self._fused += 1

    def drop(self, reason: str, sentence: str) -> None:
        with self._lock:
            self._dropped[reason] += 1
            self._sentences[reason] = sentence

    def as_dict(self) -> dict:
        """{received, fused, dropped {reason: count}}."""
        with self._lock:
            return {"received": self._received, "fused": self._fused, "dropped": dict(self._dropped)}

    def take_sentences(self) -> dict[str, str]:
        """The latest sentence of each reason that occurred since the last call."""
        with self._lock:
            sentences, self._sentences = self._sentences, {}
            return sentences


class Health:
    """Publishes a node's counters on /diagnostics once a second, with the times of its process's stages. Logs each
    new reason for a drop.

    A reason that goes on is logged again every `repeat_s` seconds, not for every frame.
    """

    def __init__(
        self, node, counters: FrameCounters, details: Callable[[], dict[str, object]] = dict, repeat_s: float = 10.0
    ) -> None:
        self._node, self._counters, self._details, self._repeat_s = node, counters, details, repeat_s
        self._logged: dict[str, float] = {}
        self.last_sentences: dict[str, str] = {}  #: the latest sentence by reason
        self._stopwatch = Stopwatch().start()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: diagnostics must go on when a simulated clock stands still.
        from rclpy.clock import Clock, ClockType

        self._timer = node.create_timer(1.0, self.report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def report(self) -> None:
        counts = self._counters.as_dict()
        sentences = self._counters.take_sentences()
        self.last_sentences.update(sentences)
        now = time.monotonic()
        for reason, sentence in sentences.items():
            if now - self._logged.get(reason, -self._repeat_s) >= self._repeat_s:
                self._logged[reason] = now
                self._node.get_logger().warning(f"{sentence} ({counts['dropped'][reason]} frames so far)")
        status = DiagnosticStatus()
        status.name = f"{self._node.get_fully_qualified_name()}: frames"
        status.hardware_id = "sgrocc"
        if not counts["received"]:
            sentences["nothing_received"] = "nothing has come yet: check the names of the input topics"
        status.level = DiagnosticStatus.WARN if sentences else DiagnosticStatus.OK
        status.message = "; ".join(sentences.values()) or "ok"
        flat = {"received": counts["received"], "fused": counts["fused"], **self._details()}
        flat.update(self._times())
        flat.update({f"dropped.{reason}": n for reason, n in sorted(counts["dropped"].items())})
        status.values = [KeyValue(key=key, value=str(value)) for key, value in flat.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _times(self) -> dict[str, str]:
        """`NAME.wall_ms` and `NAME.cpu_ms`: 50th, 95th and 99th percentile; `NAME.cpu_s`: the sum since the start."""
        flat = {}
        for name, times in self._stopwatch.report().items():
            for kind in ("wall_ms", "cpu_ms"):
                flat[f"{name}.{kind}"] = " ".join(f"{value:g}" for value in times[kind])
            flat[f"{name}.cpu_s"] = f"{times['cpu_s']:.3f}"
        return flat
