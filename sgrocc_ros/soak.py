"""Plays a recording round and round through the nodes, and watches their memory, their CPU time and what they drop."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from subprocess import CalledProcessError, Popen

import numpy as np
from rich.console import Console
from rich.table import Table

from sgrocc.datasets.posed_rgbd import PosedRgbdSequence
from sgrocc.files import write_json
from sgrocc_ros.demo import SHIPPED_RECORDING, Listener, cpu_s_of, environment, play, running_nodes, wait_for_map
from sgrocc_ros.evaluate_bag import add_expert_arguments, expert_overrides
from sgrocc_ros.record_sequence import record_sequence

#: After the first laps the process may still grow by this share: caches fill, the allocator settles. The CPU time per
#: frame of the last `WINDOW` frames may be more than that of the second `WINDOW` by as much.
MAX_GROWTH = 0.10
#: Once in a while a burst of frames waits at the same time (a busy machine), and the allocator keeps what they needed:
#: steps of up to 51 MB were seen. Leaking an image and its depth in every frame grows by that much in 34 frames.
STEP_MB = 75.0
WINDOW = 1000


def run(
    sequence_folder: Path, out: Path, frames: int, overrides: dict[str, object] | None = None, lap_s: float = 90.0
) -> dict:
    """Play laps until so many frames were played; returns {laps: [...], failures: [sentence]}, and writes it with a
    picture, `soak.png` (where there is matplotlib). overrides: of the parameters.

    The recording is played again and again for `lap_s` seconds before memory and time are read. Each time its clock
    begins anew, as a bag's in a loop does, and the map is kept.
    """
    if frames < 1:
        raise ValueError(f"{frames} frames cannot be played: give one or more")
    overrides = overrides or {}
    os.environ.update(environment())
    out.mkdir(parents=True, exist_ok=True)
    bag = out / "recording"
    sequence = PosedRgbdSequence(sequence_folder)
    record_sequence(sequence, bag, overwrite=bag.exists())
    loops = max(1, round(lap_s * sequence.rate_hz / len(sequence)))
    laps: list[dict] = []
    table = Table("lap", "minutes", "received", "fused", "dropped", "Gaussians", "memory MB", "CPU ms/frame")
    listener = Listener(keep=False)
    started = time.monotonic()
    try:
        with running_nodes(out / "nodes.log", {"use_sim_time": True, **overrides}) as processes:
            wait_for_map(listener, processes, out / "nodes.log")
            start_cpu_s = cpu_s_of(processes[0])
            while len(laps) * loops * len(sequence) < frames:
                play(bag, 1.0, out / "published.json", overrides, loops)
                listener.settle()
                laps.append(_measure(processes[0], listener, time.monotonic() - started, laps, start_cpu_s))
                lap = laps[-1]
                dropped = ", ".join(f"{n} {reason}" for reason, n in lap["dropped"].items()) or "0"
                table.add_row(
                    str(len(laps)),
                    f"{lap['minutes']:.1f}",
                    str(lap["received"]),
                    str(lap["fused"]),
                    dropped,
                    str(lap["gaussians"]),
                    f"{lap['memory_mb']:.0f}",
                    f"{lap['cpu_ms_per_frame']:.1f}",
                )
    finally:
        listener.close()
    result = {"laps": laps, "failures": failures_of(laps)}
    write_json(out / "metrics.json", result)
    draw(laps, out / "soak.png")
    Console().print(table)
    return result


def failures_of(laps: list[dict]) -> list[str]:
    """What went wrong, a sentence each."""
    failures = []
    last = laps[-1]
    if last["received"] != last["fused"] + sum(last["dropped"].values()):
        failures.append(f"{last['received']} frames came, but the fused and the dropped ones do not add up to that")
    if last["dropped"].get("internal_error"):
        failures.append(f"{last['dropped']['internal_error']} frames failed inside the software: read nodes.log")
    if not last["fused"]:
        failures.append("no frame was fused: read nodes.log")
    settled = laps[min(1, len(laps) - 1)]
    for quantity, step in (("memory_mb", STEP_MB), ("gaussians", 0.0)):
        if last[quantity] > (1 + MAX_GROWTH) * settled[quantity] + step:
            failures.append(f"{quantity} grew from {settled[quantity]:.0f} after lap 2 to {last[quantity]:.0f}")
    if last["fused"] >= 3 * WINDOW:
        early, late = (
            cpu_ms_between(laps, WINDOW, 2 * WINDOW),
            cpu_ms_between(laps, last["fused"] - WINDOW, last["fused"]),
        )
        if late > (1 + MAX_GROWTH) * early:
            failures.append(f"the CPU time per frame grew from {early:.1f} ms to {late:.1f} ms")
    return failures


def cpu_ms_between(laps: list[dict], first: float, last: float) -> float:
    """CPU milliseconds per fused frame from one count of fused frames to another, from the laps' sums."""
    fused = [0, *(lap["fused"] for lap in laps)]
    cpu_s = [0, *(lap["cpu_s"] for lap in laps)]
    before, after = np.interp([first, last], fused, cpu_s)
    return 1e3 * (after - before) / (last - first)


def draw(laps: list[dict], path: Path) -> None:
    """Gaussians, resident memory and CPU time per frame over the fused frames; nothing without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print(f"soak: {path.name} was not drawn, since matplotlib is missing: pip install matplotlib", file=sys.stderr)
        return

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.2), constrained_layout=True)
    frames = [lap["fused"] for lap in laps]
    for axis, (key, title) in zip(
        axes,
        (("gaussians", "Gaussians"), ("memory_mb", "resident memory, MB"), ("cpu_ms_per_frame", "CPU per frame, ms")),
        strict=True,
    ):
        values = [lap[key] for lap in laps]
        axis.plot(frames, values, marker="o", markersize=3)
        axis.set(xlabel="fused frames", title=title, ylim=(0, 1.2 * max(values)))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _measure(process: Popen, listener: Listener, elapsed_s: float, laps: list[dict], start_cpu_s: float) -> dict:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    cpu_s = cpu_s_of(process) - start_cpu_s
    before = laps[-1] if laps else {"fused": 0, "cpu_s": 0.0}
    return {
        "minutes": elapsed_s / 60,
        **listener.frames,
        "gaussians": int(listener.details["map.gaussians"]),
        "memory_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "cpu_s": cpu_s,
        "cpu_ms_per_frame": 1e3 * (cpu_s - before["cpu_s"]) / max(listener.frames["fused"] - before["fused"], 1),
    }


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--sequence", default=str(SHIPPED_RECORDING), help="folder of a posed RGB-D sequence")
    parser.add_argument("--out", default="out/soak", help="where the figures go")
    parser.add_argument("--frames", type=int, default=18_000, help="how many are played, at least")
    add_expert_arguments(parser)
    options = parser.parse_args(args)
    try:
        overrides = expert_overrides(options)
        failures = run(Path(options.sequence), Path(options.out), options.frames, overrides)["failures"]
    except (ValueError, OSError, RuntimeError, CalledProcessError) as error:
        failures = [str(error)]
    for failure in failures:
        print(f"soak: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
