"""Stages: time is counted once, where it is spent, in whichever thread; percentiles are those of what was measured."""

import threading
import time

import numpy as np
import pytest

from sgrocc import stages
from sgrocc.stages import Stopwatch, stage


@pytest.fixture
def stopwatch(monkeypatch):
    monkeypatch.setattr(stages, "_stopwatch", None)
    return Stopwatch().start()


def spend(seconds: float) -> float:
    """CPU time, not sleep; returns how much it was: a busy machine measures it in coarse steps."""
    begun = time.thread_time()
    while time.thread_time() < begun + seconds:
        pass
    return time.thread_time() - begun


def test_a_stage_within_another_is_not_counted_twice(stopwatch):
    with stage("fuse"):
        outer = spend(0.02)
        with stage("splat"):
            inner = spend(0.03)
        outer += spend(0.02)
    report = stopwatch.report()
    assert list(report) == ["fuse", "splat"]
    assert report["fuse"]["cpu_s"] == pytest.approx(outer, abs=0.01)
    assert report["splat"]["cpu_s"] == pytest.approx(inner, abs=0.01)


def test_a_stage_within_one_of_its_name_belongs_to_that(stopwatch):
    @stage("lift")
    def inner():
        spend(0.01)
        with stage("network"):
            spend(0.01)

    with stage("lift"):
        inner()
        spend(0.01)
    report = stopwatch.report()
    assert report["lift"]["cpu_s"] == pytest.approx(0.02, abs=0.008)
    assert report["network"]["cpu_s"] == pytest.approx(0.01, abs=0.006)


def test_sleep_is_wall_time_and_no_cpu_time(stopwatch):
    with stage("publish"):
        time.sleep(0.05)
    times = stopwatch.report()["publish"]
    assert times["wall_ms"][0] >= 50 and times["cpu_ms"][0] < 10


def test_an_error_within_is_timed_and_passed_on(stopwatch):
    with pytest.raises(KeyError), stage("decode"):
        raise KeyError
    with stage("fuse"):
        pass
    assert set(stopwatch.report()) == {"decode", "fuse"}


def test_percentiles_are_those_of_the_spans(stopwatch):
    for number in range(1, 101):
        stopwatch.add("fuse", number / 1e3, 2 * number / 1e3)
    report = stopwatch.report()["fuse"]
    assert report["wall_ms"] == pytest.approx(np.percentile(np.arange(1, 101), (50, 95, 99)), abs=0.01)
    assert report["cpu_ms"][0] == pytest.approx(101.0) and report["cpu_s"] == pytest.approx(10.1)


def test_threads_do_not_disturb_each_other(stopwatch):
    def work(name):
        for _ in range(50):
            with stage(name), stage("splat"):
                pass

    threads = [threading.Thread(target=work, args=(name,)) for name in ("fuse", "lift")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stopwatch.report()) == {"fuse", "lift", "splat"}
    assert len(stopwatch._recent["splat"]) == 100 and len(stopwatch._recent["fuse"]) == 50


def test_without_a_stopwatch_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(stages, "_stopwatch", None)
    with stage("fuse"):
        pass
    assert Stopwatch().report() == {}
