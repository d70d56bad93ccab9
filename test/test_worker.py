"""The thread in which a node works: what waits, what gives way, and that it ends."""

import threading
import time

from sgrocc_ros.worker import Worker


def worker_of(handle, queue_length=2, **options):
    lost, failures = [], []
    worker = Worker(
        handle, queue_length=queue_length, lost=lost.append, failed=lambda *told: failures.append(told), **options
    )
    return worker, lost, failures


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_a_full_queue_drops_its_oldest_item():
    gate, done = threading.Event(), []
    worker, lost, _ = worker_of(lambda item: (gate.wait(5), done.append(item)))
    worker.put(0)
    wait_for(lambda: not worker._queue)  # it is being handled
    for item in (1, 2, 3, 4):
        worker.put(item)
    gate.set()
    wait_for(lambda: len(done) == 3)
    assert done == [0, 3, 4] and lost == ["overtaken", "overtaken"]
    worker.stop()


def test_who_waits_loses_nothing():
    done = []
    worker, lost, _ = worker_of(lambda item: (time.sleep(0.01), done.append(item)), queue_length=1)
    for item in range(20):
        worker.put(item, wait=True)
        assert len(worker._queue) <= 1
    wait_for(lambda: len(done) == 20)
    assert done == list(range(20)) and lost == []
    worker.stop()


def test_what_never_is_handled_is_told_and_the_item_at_hand_is_finished_however_long_it_takes():
    gate, done = threading.Event(), []
    worker, lost, _ = worker_of(lambda item: (gate.wait(10), done.append(item)))
    worker.put(0)
    wait_for(lambda: not worker._queue)
    worker.put(1)
    threading.Timer(2.5, gate.set).start()
    worker.stop()
    assert done == [0] and lost == ["stopped"] and not worker._thread.is_alive()
    worker.put(2)
    assert done == [0] and lost == ["stopped", "stopped"] and not worker._queue


def test_who_waits_is_let_go_when_the_worker_stops():
    gate = threading.Event()
    worker, _, _ = worker_of(lambda item: gate.wait(5), queue_length=1)
    for item in (0, 1):
        worker.put(item, wait=True)
    waiting = threading.Thread(target=lambda: worker.put(2, wait=True))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    gate.set()
    worker.stop()
    waiting.join(2)
    assert not waiting.is_alive() and not worker._thread.is_alive()


def test_an_error_is_told_and_the_next_item_is_handled():
    done = []

    def handle(item):
        if item == 0:
            raise KeyError("broken")
        done.append(item)

    worker, _, failures = worker_of(handle)
    worker.put(0, wait=True)
    worker.put(1, wait=True)
    wait_for(lambda: done == [1])
    [(trace, of_item)] = failures
    assert "broken" in trace and of_item
    worker.stop()


def test_an_error_in_what_is_done_besides_is_no_item_s():
    def poll():
        if not failures:
            raise KeyError("broken")
        return False

    worker, lost, failures = worker_of(lambda item: None, poll=poll)
    wait_for(lambda: failures)
    worker.stop()
    assert [of_item for _, of_item in failures] == [False] and lost == []
