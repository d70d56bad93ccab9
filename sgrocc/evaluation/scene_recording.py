"""A scene of a data set as a posed RGB-D recording, for the nodes and the demo."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sgrocc.datasets.embodied_occscannet import EmbodiedFrame, EmbodiedScene
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.predictors import depth_of
from sgrocc.labels import FREE, UNKNOWN


def write_recording(
    scene: EmbodiedScene,
    out: str | Path,
    rate_hz: float = 10.0,
    frame_id: str = "odom",
    frames: slice = slice(None),
    depth: str = "true",
) -> None:
    """Write the `frames` of `scene` as a folder that PosedRgbdSequence reads, and truth.npz beside them.

    depth: "true" as the scene has it, or "sensor" with the faults of an RGB-D sensor. The truth is what the embodied
    protocol scores after the last of the frames: the scene's labels then, unknown where no mask of them reaches.
    Raises ValueError where `out` exists, there are no frames, they have no images, or the intrinsics change.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists already: choose another folder")
    if not rate_hz > 0:
        raise ValueError(f"a rate of {rate_hz} frames a second makes no sense: use a number above zero")
    if depth not in ("true", "sensor"):
        raise ValueError(f"there is no depth {depth!r}: use true or sensor")
    if frames.start is not None and frames.start < 0:
        raise ValueError(f"there is no frame {frames.start}: begin with 0 or later")
    chosen = list(scene.frames)[frames]
    if not chosen:
        raise ValueError(f"none of the {len(scene.frames)} frames of {scene.name} was chosen: choose others")
    camera = chosen[0].camera
    if any(frame.camera != camera for frame in chosen):
        raise ValueError(f"the intrinsics change within {scene.name}: a recording has one camera, choose another scene")
    if any(path is None for frame in chosen for path in (frame.image_path, frame.depth_path)):
        raise ValueError(f"{scene.name} was made without images: generate it with images")
    truth = embodied_truth(scene, chosen, frame_id)

    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("rgb", "depth"):
        (unfinished / name).mkdir(parents=True)
    for number, frame in enumerate(chosen):
        shutil.copyfile(frame.image_path, unfinished / "rgb" / f"{number:04d}{Path(frame.image_path).suffix}")
        to = unfinished / "depth" / f"{number:04d}.png"
        if depth == "true":
            shutil.copyfile(frame.depth_path, to)
        else:
            Image.fromarray(np.rint(depth_of(frame, depth) * 1000).astype(np.uint16)).save(to, optimize=True)
    np.savetxt(unfinished / "intrinsics.txt", camera.matrix, fmt="%.6f")
    poses = np.stack([frame.pose.matrix.ravel() for frame in chosen])
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


def embodied_truth(scene: EmbodiedScene, frames: Sequence[EmbodiedFrame], frame_id: str) -> Occupancy:
    """The labels of a scene at the last of `frames` within the union of their masks, unknown elsewhere."""
    observed = np.zeros(scene.grid.shape, bool)
    for frame in frames:
        observed |= frame.mask
    labels = np.where(observed, frames[-1].global_labels(), UNKNOWN).astype(np.uint8)
    occupied = (labels != FREE) & (labels != UNKNOWN)
    return Occupancy(labels, occupied.astype(np.float32), scene.grid.origin, scene.grid.resolution, frame_id)
