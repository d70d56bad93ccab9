"""The package says the same about itself everywhere, and finds its models and configuration in each install."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import sgrocc
from sgrocc import resources

ROOT = Path(__file__).resolve().parent.parent

# What a program does with an installed package; prints where it found things.
PROBE = """
import sgrocc
from sgrocc import resources
print(sgrocc.__file__)
print(resources.config_path("fastdds_localhost.xml"))
print(resources.share_path("package.xml"))
for path in sorted(resources.share_path("models").iterdir()):
    print(resources.find_model(path.name))
"""


def setup_arguments() -> dict:
    """Return the literal keyword arguments of the call of setup() in setup.py."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup")
    return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg in ("version", "entry_points")}


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of what an install reads, so that nothing is built in the repository."""
    copy = tmp_path / "src"
    copy.mkdir()
    for name in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("resource", "sgrocc", "sgrocc_ros", "launch", "config", "models"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "models").mkdir(exist_ok=True)
    (copy / "models" / "probe").mkdir()
    (copy / "models" / "probe" / "model.onnx").write_bytes(b"not a model")
    return copy


def execute(*command, cwd):
    """Run a command in a clean environment and return its output."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH")}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def probe(packages: Path, tmp_path: Path) -> list[str]:
    """Return what the probe finds with only the given folder of packages on its path."""
    program = f"import sys; sys.path[:0] = [{str(packages)!r}]\n{PROBE}"
    return execute(sys.executable, "-I", "-S", "-c", program, cwd=tmp_path).splitlines()


def test_one_version():
    version = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert version == setup_arguments()["version"] == sgrocc.__version__


def test_entry_points_exist():
    for line in setup_arguments()["entry_points"]["console_scripts"]:
        target = line.split("=")[1].strip()
        module, function = target.split(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{line}: there is no module {module}"
        names = {n.name for n in ast.parse(Path(spec.origin).read_text()).body if isinstance(n, ast.FunctionDef)}
        assert function in names, f"{line}: {module} has no {function}()"


def test_regular_pip_install(checkout, tmp_path):
    target = tmp_path / "target"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", target]
    execute(sys.executable, "-m", "pip", "install", *options, checkout, cwd=tmp_path)
    shutil.rmtree(checkout)
    found = probe(target, tmp_path)
    assert all(line.startswith(str(target)) for line in found)
    assert str(target / "share/sgrocc_ros/models/probe") in found


@pytest.mark.parametrize("options", [[], ["--symlink-install"]], ids=["copy", "symlink"])
def test_colcon_build(checkout, tmp_path, options):
    if importlib.util.find_spec("colcon_core") is None:
        pytest.skip("colcon is not installed (sudo apt install python3-colcon-common-extensions)")
    execute(sys.executable, "-m", "colcon", "build", "--base-paths", checkout, *options, cwd=tmp_path)
    install = tmp_path / "install" / "sgrocc_ros"
    assert (install / "share/ament_index/resource_index/packages/sgrocc_ros").exists()
    assert (install / "lib/sgrocc_ros/pipeline").exists()  # where `ros2 run` looks
    if options:
        packages = tmp_path / "build" / "sgrocc_ros"  # a link in the install folder points here
        home = checkout
    else:
        shutil.rmtree(checkout)
        packages = next(install.glob("lib/python3*/site-packages"))
        home = install
    found = probe(packages, tmp_path)
    assert all(line.startswith(str(home)) for line in found[1:])
    assert any(line.endswith("models/probe") for line in found)


def test_absent_files_are_named():
    with pytest.raises(FileNotFoundError, match="models/no_such_model.*searched: .*install the package"):
        resources.find_model("no_such_model")
