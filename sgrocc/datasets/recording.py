"""A scene of a data set as a posed RGB-D recording, for the nodes and the demo."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from sgrocc.datasets.embodied_occscannet import EmbodiedScene
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.labels import FREE, UNKNOWN


def write_recording(scene: EmbodiedScene, out: str | Path, rate_hz: float = 10.0, frame_id: str = "odom") -> None:
    """Write `scene` as a folder that PosedRgbdSequence reads, and truth.npz beside its frames.

    The truth is what the embodied protocol scores after the last frame: the scene's labels then, unknown where no
    frame's mask reaches. Raises ValueError where `out` exists, the scene has no frames or its intrinsics change.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists already: choose another folder")
    if not rate_hz > 0:
        raise ValueError(f"a rate of {rate_hz} frames a second makes no sense: use a number above zero")
    if not scene.frames:
        raise ValueError(f"the scene {scene.name} has no frames: check the data set with `sgrocc data check`")
    camera = scene.frames[0].camera
    if any(frame.camera != camera for frame in scene.frames):
        raise ValueError(f"the intrinsics change within {scene.name}: a recording has one camera, choose another scene")
    truth = embodied_truth(scene, frame_id)

    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("rgb", "depth"):
        (unfinished / name).mkdir(parents=True)
    for number, frame in enumerate(scene.frames):
        shutil.copyfile(frame.image_path, unfinished / "rgb" / f"{number:04d}{Path(frame.image_path).suffix}")
        shutil.copyfile(frame.depth_path, unfinished / "depth" / f"{number:04d}.png")
    np.savetxt(unfinished / "intrinsics.txt", camera.matrix, fmt="%.6f")
    poses = np.stack([frame.pose.matrix.ravel() for frame in scene.frames])
    np.savetxt(unfinished / "poses_cam_to_world.txt", poses, fmt="%.9f")
    (unfinished / "sequence.yaml").write_text(
        f"rate_hz: {rate_hz:g}\n"
        "depth_unit_m: 0.001\n"
        "pose: camera_to_world\n"
        "camera_axes: x_right_y_down_z_forward\n"
        'world_up: "+z"\n'
    )
    truth.save(unfinished / "truth.npz")
    unfinished.rename(out)


def embodied_truth(scene: EmbodiedScene, frame_id: str) -> Occupancy:
    """The scene's labels within the union of its frames' masks, unknown elsewhere."""
    observed = np.zeros(scene.grid.shape, bool)
    for frame in scene.frames:
        observed |= frame.mask
    labels = np.where(observed, scene.labels, UNKNOWN).astype(np.uint8)
    occupied = (labels != FREE) & (labels != UNKNOWN)
    return Occupancy(labels, occupied.astype(np.float32), scene.grid.origin, scene.grid.resolution, frame_id)
