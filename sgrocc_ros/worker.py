"""One thread that owns the work, so that nothing below it needs a lock; and the main function of all nodes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions


class Worker:
    """Calls `handle(item)` for queued items, oldest first, and `poll()` at least every 10 ms while it returns True.

    A full queue drops its oldest item. `lost` hears of every item that is never handled: "overtaken", or "stopped". An
    exception goes to `failed`, with whether an item was the cause, and work goes on.
    """

    def __init__(
        self,
        handle: Callable[[object], None],
        *,
        queue_length: int,
        lost: Callable[[str], None],
        failed: Callable[[str, bool], None],
        poll: Callable[[], bool] = lambda: False,
    ) -> None:
        self._handle, self._poll, self._lost, self._failed = handle, poll, lost, failed
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
            stopped = self._stopping
            if not stopped:
                self._queue.append(item)
                self._wake.notify_all()
            overtaken = len(self._queue) > self._queue_length
            if overtaken:
                self._queue.popleft()
        if stopped or overtaken:
            self._lost("stopped" if stopped else "overtaken")

    def stop(self) -> None:
        """Finish the item at hand, however long it takes, and end the thread; what is still queued is given up."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()
        for _ in range(len(self._queue)):
            self._lost("stopped")
        self._queue.clear()

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
            except Exception:  # a bug in one frame must not end the map
                self._failed(traceback.format_exc(), True)
            try:
                polling = self._poll()
            except Exception:
                self._failed(traceback.format_exc(), False)


def run_nodes(make_nodes: Callable[[], Sequence], args: list[str] | None = None) -> int:
    """Spin lifecycle nodes in one single-threaded executor until SIGINT or SIGTERM; returns the exit code.

    make_nodes: creates them; with the parameter `autostart` they are configured and activated. What is wrong with
    parameters or models then is said in one sentence and gives exit code 2. A signal ends the
    process within two seconds and with exit code 0, whatever it is doing.
    """
    ending = _Ending()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rcl's errors are of that kind
        print(f"sgrocc: the arguments behind --ros-args cannot be used: {error}", file=sys.stderr)
        return 2
    nodes: Sequence = ()
    executor = SingleThreadedExecutor()
    ending.wake = executor.wake
    try:
        nodes = make_nodes()
        for node in nodes:
            executor.add_node(node)
        if nodes[0].values["autostart"] and not bring_up(nodes, lambda: ending.asked):
            return 2
        while not ending.asked:
            executor.spin_once()
    except (ValueError, OSError, ParameterException) as error:
        print(f"sgrocc: {error}", file=sys.stderr)
        return 2
    except ExternalShutdownException:
        pass
    finally:
        for node in reversed(nodes):  # what sends before what receives
            node.stop()
        executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def bring_up(nodes: Sequence, is_ending: Callable[[], bool] = lambda: False) -> bool:
    """Configure all, then activate all; returns whether none refused. The one that does says why."""
    for transition in ("trigger_configure", "trigger_activate"):
        for node in nodes:
            if is_ending():
                return True
            if getattr(node, transition)() != TransitionCallbackReturn.SUCCESS:
                return False
    return True


class _Ending:
    """Listens for SIGINT and SIGTERM. `wake` is called then; when the process is still there a little later, in the
    middle of something that cannot be interrupted, it is ended: what it writes is whole or not at all.
    """

    _LIMIT_S = 1.7

    def __init__(self) -> None:
        self.asked = False
        self.wake: Callable[[], None] = lambda: None
        self._inlet, outlet = os.pipe()
        os.set_blocking(outlet, False)
        # The signal is written to the pipe at once, also while Python waits for a library.
        signal.set_wakeup_fd(outlet)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, name="sgrocc-ending", daemon=True).start()

    def _listen(self) -> None:
        while os.read(self._inlet, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        self.asked = True
        self.wake()
        time.sleep(self._LIMIT_S)
        sys.stderr.flush()
        os._exit(0)
