"""The three nodes in one process, with direct hand-over: the default."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from sgrocc_ros.gaussian_memory_node import GaussianMemoryNode
from sgrocc_ros.health import FrameCounters
from sgrocc_ros.occupancy_publisher_node import OccupancyPublisherNode
from sgrocc_ros.spatial_expert_node import SpatialExpertNode
from sgrocc_ros.worker import run_nodes


def make_pipeline(**node_options) -> list:
    """The publisher, the memory and the expert, connected: in the order in which they begin.

    Expert and memory work in a thread each: while one frame is fused, the network already sees the next.
    """
    counters = FrameCounters()
    publisher = OccupancyPublisherNode(in_pipeline=True, **node_options)
    memory = GaussianMemoryNode(sink=publisher.accept, counters=counters, **node_options)
    expert = SpatialExpertNode(sink=memory.accept, counters=counters, **node_options)
    return [publisher, memory, expert]


def main(args: list[str] | None = None) -> int:
    line = sys.argv if args is None else args
    for path in (after for before, after in zip(line, line[1:]) if before == "--params-file"):
        if _has_section_pipeline(path):
            print(
                f"sgrocc: {path} has a section 'pipeline', and no node has that name: put its parameters below '/**'",
                file=sys.stderr,
            )
            return 2
    return run_nodes(make_pipeline, args)


def _has_section_pipeline(path: str) -> bool:
    """Of a file that rcl would read without a word, and leave that section out."""
    try:
        sections = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except Exception:  # rcl says what is wrong with it
        return False
    return isinstance(sections, dict) and any(str(name).split("/")[-1] == "pipeline" for name in sections)


if __name__ == "__main__":
    sys.exit(main())
