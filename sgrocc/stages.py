"""Where the time of a frame goes: stages that name themselves, and a stopwatch that adds them up, for whoever asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

#: In the order of a frame's way, from the message to the messages.
STAGES = ("decode", "preprocess", "network", "lift", "fuse", "splat", "serialise", "publish")
#: Those that are the method; the others are what ROS asks for.
METHOD_STAGES = ("preprocess", "network", "lift", "fuse", "splat")
#: Percentiles that are told of a stage, of so many of its last runs.
PERCENTILES = (50, 95, 99)
_REMEMBERED = 300


class Stopwatch:
    """Times the stages of all threads while it is the one that runs (`start`). What a stage calls that is a stage of
    another name is not its own time. CPU time is that of the thread which runs the stage: what an engine's further
    threads do is not in it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[tuple[float, float]]] = {}
        self._cpu_s: dict[str, float] = {}

    def start(self) -> Stopwatch:
        """From now on this is the stopwatch of the process."""
        global _stopwatch
        _stopwatch = self
        return self

    def add(self, name: str, wall_s: float, cpu_s: float) -> None:
        with self._lock:
            self._recent.setdefault(name, deque(maxlen=_REMEMBERED)).append((wall_s, cpu_s))
            self._cpu_s[name] = self._cpu_s.get(name, 0.0) + cpu_s

    def report(self) -> dict[str, dict]:
        """Of each stage that ran: {wall_ms: [p50, p95, p99], cpu_ms: the same, cpu_s: the sum since the start}."""
        with self._lock:
            recent = {name: np.array(spans) for name, spans in self._recent.items()}
            sums = dict(self._cpu_s)
        return {
            name: {
                "wall_ms": np.percentile(1e3 * recent[name][:, 0], PERCENTILES).round(2).tolist(),
                "cpu_ms": np.percentile(1e3 * recent[name][:, 1], PERCENTILES).round(2).tolist(),
                "cpu_s": round(sums[name], 4),
            }
            for name in STAGES
            if name in recent
        }


_stopwatch: Stopwatch | None = None
_thread = threading.local()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time what is done within, if a stopwatch runs. Also a decorator."""
    running = getattr(_thread, "name", None)
    if _stopwatch is None or running == name:
        yield
        return
    outer_spent = getattr(_thread, "spent", (0.0, 0.0))
    _thread.name, _thread.spent = name, (0.0, 0.0)
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        inner_wall, inner_cpu = _thread.spent
        _thread.name, _thread.spent = running, (outer_spent[0] + wall, outer_spent[1] + cpu)
        _stopwatch.add(name, wall - inner_wall, cpu - inner_cpu)
