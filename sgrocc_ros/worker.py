"""One thread that owns the work, so that nothing below it needs a lock; and the main function of all nodes."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor


class Worker:
    """Calls `handle(item)` for queued items, oldest first, and `poll()` at least every 10 ms while it returns True.

    A full queue drops its oldest item, which goes to `overtaken`. An exception goes to `failed`, and work goes on.
    """

    def __init__(
        self,
        handle: Callable[[object], None],
        *,
        queue_length: int,
        overtaken: Callable[[object], None],
        failed: Callable[[str], None],
        poll: Callable[[], bool] = lambda: False,
    ) -> None:
        self._handle, self._poll, self._overtaken, self._failed = handle, poll, overtaken, failed
        self._queue: deque = deque()
        self._queue_length = queue_length
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sgrocc-worker", daemon=True)
        self._thread.start()

    def put(self, item: object, wait: bool = False) -> None:
        """wait: until there is room, rather than dropping the oldest item."""
        with self._wake:
            while wait and len(self._queue) >= self._queue_length and not self._stopping:
                self._wake.wait(0.1)
            self._queue.append(item)
            oldest = self._queue.popleft() if len(self._queue) > self._queue_length else None
            self._wake.notify_all()
        if oldest is not None:
            self._overtaken(oldest)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Finish the item at hand and end the thread; what is still queued is given up."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        polling = False
        while True:
            with self._wake:
                if not self._queue and not self._stopping:
                    self._wake.wait(0.01 if polling else 0.1)
                if self._stopping:
                    return
                item = self._queue.popleft() if self._queue else None
                self._wake.notify_all()
            try:
                if item is not None:
                    self._handle(item)
                polling = self._poll()
            except Exception:  # a bug in one frame must not end the map
                self._failed(traceback.format_exc())


def run_nodes(make_nodes: Callable[[], Sequence], args: list[str] | None = None) -> int:
    """Spin nodes in one single-threaded executor until SIGINT or SIGTERM; returns the exit code.

    make_nodes: creates the nodes, each with a `stop()`. What it raises for bad parameters or models (ValueError,
    OSError) is printed as one sentence and gives exit code 2.
    """
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # rcl's errors are of that kind
        print(f"sgrocc: the arguments behind --ros-args cannot be used: {error}", file=sys.stderr)
        return 2
    nodes: Sequence = ()
    executor = SingleThreadedExecutor()
    try:
        nodes = make_nodes()
        for node in nodes:
            executor.add_node(node)
        executor.spin()
    except (ValueError, OSError, ParameterException) as error:
        print(f"sgrocc: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # of rcl
        if rclpy.ok():  # else the signal came while the nodes were being made
            raise
    finally:
        for node in nodes:
            node.stop()
        executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
