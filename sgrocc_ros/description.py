"""What runs: the processes, their parameters and topics. The launch files and the demo start this same description."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

#: One process by default: rclpy has no zero-copy hand-over between processes.
ONE_PROCESS = ("pipeline",)
THREE_PROCESSES = ("spatial_expert_node", "gaussian_memory_node", "occupancy_publisher_node")


@dataclass(frozen=True)
class Inputs:
    """The topics of the camera. `depth` is registered to the image; it is not subscribed when the network's own
    depth is used. `mask`, of a bag, is read with the parameter use_mask."""

    image: str = "/camera/image_raw"
    camera_info: str = "/camera/camera_info"
    depth: str = "/camera/depth/image_raw"
    mask: str = "/mask"

    def remappings(self) -> list[tuple[str, str]]:
        return [(name, getattr(self, name)) for name in ("image", "camera_info", "depth")]


def executables(one_process: bool) -> tuple[str, ...]:
    """Names of the executables to start; each is also the module `sgrocc_ros.<name>`."""
    return ONE_PROCESS if one_process else THREE_PROCESSES


def command(
    executable: str, inputs: Inputs, parameter_file: str | Path | None, overrides: dict[str, object]
) -> list[str]:
    """The command line that starts an executable without launch; later parameters win."""
    line = [sys.executable, "-m", f"sgrocc_ros.{executable}", "--ros-args"]
    if parameter_file is not None:
        line += ["--params-file", str(parameter_file)]
    for name, value in overrides.items():
        line += ["-p", f"{name}:={json.dumps(value)}"]  # rcl reads YAML: an unquoted string may be a number to it
    for name, topic in inputs.remappings():
        line += ["-r", f"{name}:={topic}"]
    return line
