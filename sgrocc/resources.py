"""Finds the models and the configuration files that come with the package, without ament or ROS.

setup.py installs the folders models/, config/ and launch/ to share/sgrocc_ros below the installation prefix. In a
checkout (also one installed with `pip install -e` or `colcon build --symlink-install`) they lie beside the package.
"""

from __future__ import annotations

from pathlib import Path

SHARE = Path("share") / "sgrocc_ros"


def share_folders() -> list[Path]:
    """Return the folders that may hold models/ and config/: the checkout first, then every prefix above us."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    folders = [checkout] if (checkout / "package.xml").is_file() else []
    return folders + [prefix / SHARE for prefix in package.parents if (prefix / SHARE).is_dir()]


def share_path(*parts: str) -> Path:
    """Return an existing file or folder that is installed with the package, for example `share_path("launch")`."""
    wanted = Path(*parts)
    folders = share_folders()
    for folder in folders:
        if (folder / wanted).exists():
            return folder / wanted
    searched = ", ".join(str(f) for f in folders) or f"every {SHARE} above {Path(__file__).resolve().parent}"
    raise FileNotFoundError(
        f"'{wanted}' is not among the installed files of sgrocc_ros (searched: {searched}): "
        "check the name, or install the package again from a complete checkout."
    )


def find_model(name: str) -> Path:
    """Return a model given by its name in models/, or by a path of its own."""
    given = Path(name).expanduser()
    return given if given.exists() else share_path("models", name)


def config_path(name: str) -> Path:
    """Return a configuration file given by its name in config/, or by a path of its own."""
    given = Path(name).expanduser()
    return given if given.exists() else share_path("config", name)
