"""The nodes as processes: how they begin and end."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from sgrocc_ros import demo
from sgrocc_ros.description import ONE_PROCESS, THREE_PROCESSES


def start(executable: str, *arguments: str) -> subprocess.Popen:
    line = [sys.executable, "-m", f"sgrocc_ros.{executable}", *arguments]
    return subprocess.Popen(line, env={**os.environ, **demo.environment()}, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("executable", [*ONE_PROCESS, *THREE_PROCESSES])
def test_ctrl_c_ends_an_idle_node_at_once_and_cleanly(executable):
    process = start(executable)
    time.sleep(4.0)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and "Traceback" not in errors
    assert time.monotonic() - sent < 3.0


def test_ctrl_c_while_the_nodes_start_is_not_a_crash():
    process = start("pipeline")
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    # 130: Python itself was still importing.
    assert process.returncode in (0, 130, -signal.SIGINT) and "RCLError" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p"], "--ros-args cannot be used"),
        (["-r", "a", "b"], "--ros-args cannot be used"),
        (["-p", "use_sim_time:=5"], "use_sim_time"),
        (["-p", "resolution_m:=-1.0"], "resolution_m is -1.0: give a value from"),
    ],
)
def test_bad_arguments_end_a_node_with_one_sentence(arguments, words):
    process = start("pipeline", "--ros-args", *arguments)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    ours = re.compile(r"sgrocc: |\[ERROR\] \[[0-9.]+\] \[(?!rcl)\w+\]: ")
    sentences = [line for line in errors.splitlines() if ours.match(line)]
    assert len(sentences) == 1 and words in sentences[0] and "Traceback" not in errors
