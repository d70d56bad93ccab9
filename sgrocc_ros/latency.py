"""How far the published map is behind the images."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from sgrocc_ros.parameters import Values

#: It is the median over so many frames of the last seconds.
_FRAMES, _SECONDS = 30, 10.0


class Latency:
    """Notes when the map of each frame was sent."""

    def __init__(self) -> None:
        self._stamp_ns = 0
        self._noted: deque[tuple[float, float]] = deque(maxlen=_FRAMES)  # (steady time in s, ms)

    def note(self, stamp_ns: int, now_ns: int) -> float | None:
        """The map of a frame was sent; returns its latency in ms. None where it was sent again, for a reader who joined
        or with a part forgotten.
        """
        if stamp_ns == self._stamp_ns:
            return None
        self._stamp_ns = stamp_ns
        self._noted.append((time.monotonic(), (now_ns - stamp_ns) / 1e6))
        return self._noted[-1][1]

    def median_ms(self) -> float | None:
        """None where no frame came lately."""
        since = time.monotonic() - _SECONDS
        recent = [latency_ms for noted, latency_ms in self._noted if noted > since]
        return float(np.median(recent)) if recent else None

    def problems(self, values: Values) -> dict[str, tuple[bytes, str]]:
        """{"latency": (level, sentence)} above a threshold, by the parameters latency_warn_ms and latency_error_ms."""
        median_ms = self.median_ms()
        if median_ms is None:
            return {}
        for level, name in ((DiagnosticStatus.ERROR, "latency_error_ms"), (DiagnosticStatus.WARN, "latency_warn_ms")):
            if median_ms > values[name]:
                sentence = (
                    f"the map is {median_ms:.0f} ms behind the images, more than {name}: lower the camera's rate, or "
                    "see whether its clock is this machine's"
                )
                return {"latency": (level, sentence)}
        return {}
