"""What a user asks first when the map stays empty: how many frames came, were fused, were dropped, and why."""

from __future__ import annotations

import io
import json
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.logging import LoggingSeverity
from std_msgs.msg import UInt64
from std_srvs.srv import Trigger

from sgrocc.stages import Stopwatch
from sgrocc_ros.watchdog import Watchdog

#: States in which a node does nothing.
_IDLE = ("unconfigured", "inactive")


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

    def say(self, reason: str, sentence: str) -> None:
        """What no frame was dropped for, but should be known."""
        with self._lock:
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
    """Publishes a node's state, counters and problems on /diagnostics once a second, with the times of its process's
    stages, and the sum of the dropped frames on `~/dropped`. Logs each new problem.

    A problem that goes on is logged again every `repeat_s` seconds, not for every frame. The service `~/statistics`
    gives all of it as JSON; at debug level a table is logged every `table_period_s` (a parameter).
    counters: those that this node reports; None: another node of the process does. with_times: whether it reports the
    times of the process.
    """

    def __init__(
        self,
        node,
        counters: FrameCounters | None,
        details: Callable[[], dict[str, object]] = dict,
        *,
        with_times: bool = True,
        repeat_s: float = 10.0,
    ) -> None:
        self._node, self._counters, self._details, self._repeat_s = node, counters, details, repeat_s
        self._logged: dict[str, float] = {}
        self.last_sentences: dict[str, str] = {}  #: the latest sentence by reason
        self.level, self.message = DiagnosticStatus.OK, "ok"  #: of the last report
        #: More that may be wrong: {reason: (level, sentence)}.
        self.judge: Callable[[], dict[str, tuple[bytes, str]]] = dict
        self.watchdog = Watchdog(node, lambda: node.values["watchdog_after_s"])
        self._stopwatch = Stopwatch().start() if with_times else None
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._dropped = node.create_publisher(UInt64, "~/dropped", 10) if counters is not None else None
        self._last_table_s = 0.0
        node.create_service(Trigger, "~/statistics", self._on_statistics)
        # A steady clock: diagnostics must go on when a simulated clock stands still.
        self._timer = node.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_timer(self) -> None:
        try:
            self.report()
        except Exception:  # what only tells of the work must not end it
            self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=self._repeat_s)

    def report(self) -> None:
        """Publish the state of now; logs what is new."""
        problems = self._problems()
        self.last_sentences.update({reason: sentence for reason, (_, sentence) in problems.items()})
        counts = self._counts()
        for reason, (level, sentence) in problems.items():
            self._log(reason, level, sentence, counts.get("dropped", {}).get(reason))
        level = max((level for level, _ in problems.values()), default=DiagnosticStatus.OK)
        message = "; ".join(sentence for _, sentence in problems.values()) or "ok"
        self.level, self.message = level, message
        status = DiagnosticStatus(level=level, message=message, hardware_id="sgrocc")
        status.name = f"{self._node.get_fully_qualified_name()}: status"
        status.values = [KeyValue(key=key, value=str(value)) for key, value in self._flat(counts).items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
        if self._dropped is not None:
            self._dropped.publish(UInt64(data=sum(counts["dropped"].values())))
        self._log_table()

    def statistics(self) -> dict:
        """State, problems, counts, details, and the times of the stages."""
        return {
            "state": self._node.state,
            "message": self.message,
            **self._counts(),
            **self._details(),
            "stages": self._stopwatch.report() if self._stopwatch else {},
        }

    def _problems(self) -> dict[str, tuple[bytes, str]]:
        problems = {}
        if self._node.problem:
            problems["refused"] = DiagnosticStatus.ERROR, self._node.problem
        elif self._node.state in _IDLE:
            problems["state"] = DiagnosticStatus.WARN, f"{self._node.state}: activate the node"
        if self._counters is not None:
            sentences = self._counters.take_sentences()
            problems.update({reason: (DiagnosticStatus.WARN, text) for reason, text in sentences.items()})
        for level, found in (
            (DiagnosticStatus.WARN, self.watchdog.missing()),
            (DiagnosticStatus.OK, self.watchdog.unheard()),  # a map that nobody reads is nothing bad
        ):
            if found is not None:
                problems[found[0]] = level, found[1]
        problems.update(self.judge())
        return problems

    def _log(self, reason: str, level: bytes, sentence: str, dropped: int | None) -> None:
        now = time.monotonic()
        if reason in ("refused", "state") or now - self._logged.get(reason, -self._repeat_s) < self._repeat_s:
            return  # transitions are logged when they happen
        self._logged[reason] = now
        if dropped is not None:
            sentence = f"{sentence} ({dropped} frames so far)"
        if level == DiagnosticStatus.OK:  # rclpy wants one severity for each line of code
            self._node.get_logger().info(sentence)
        else:
            self._node.get_logger().warning(sentence)

    def _counts(self) -> dict:
        return {} if self._counters is None else self._counters.as_dict()

    def _flat(self, counts: dict) -> dict[str, object]:
        flat = {"state": self._node.state}
        flat.update({key: counts[key] for key in ("received", "fused") if key in counts})
        flat.update(self._details())
        flat.update(self._times())
        flat.update({f"dropped.{reason}": n for reason, n in sorted(counts.get("dropped", {}).items())})
        return flat

    def _times(self) -> dict[str, str]:
        """`NAME.wall_ms` and `NAME.cpu_ms`: 50th, 95th and 99th percentile; `NAME.cpu_s`: the sum since the start."""
        flat = {}
        for name, times in (self._stopwatch.report() if self._stopwatch else {}).items():
            for kind in ("wall_ms", "cpu_ms"):
                flat[f"{name}.{kind}"] = " ".join(f"{value:g}" for value in times[kind])
            flat[f"{name}.cpu_s"] = f"{times['cpu_s']:.3f}"
        return flat

    def _log_table(self) -> None:
        now, logger = time.monotonic(), self._node.get_logger()
        if not self._stopwatch or not logger.is_enabled_for(LoggingSeverity.DEBUG):
            return
        if now < self._last_table_s + self._node.values["table_period_s"]:
            return
        self._last_table_s = now
        logger.debug(table_of(self._stopwatch.report(), self._counts()))

    def _on_statistics(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, json.dumps(self.statistics(), default=str)
        return response


def table_of(stages: dict[str, dict], counts: dict) -> str:
    """The times of the stages and the counts of frames, to be read by a person."""
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "wall ms p50 p95 p99", "CPU ms p50 p95 p99", "CPU s")
    for name, times in stages.items():
        spans = (" ".join(f"{value:8.2f}" for value in times[kind]) for kind in ("wall_ms", "cpu_ms"))
        table.add_row(name, *spans, f"{times['cpu_s']:.1f}")
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    return f"{counts}\n{out.getvalue()}"
