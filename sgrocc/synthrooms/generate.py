"""Making scenes: from a seed to the files of a data set."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import Layout, write_frame, write_global, write_split, write_stream
from sgrocc.datasets.occscannet import OccScanNet
from sgrocc.files import whole_file
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.synthrooms import actors, truth
from sgrocc.synthrooms.rooms import build_scene
from sgrocc.synthrooms.scene import Scene
from sgrocc.synthrooms.trajectory import Shot, shoot

#: Raised whenever a seed gives other labels, poses or intrinsics than before.
FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
#: The hashes of the labels of the published splits: seed 0, default options. They change with FORMAT_VERSION alone.
PUBLISHED_LABELS = {
    "train": "d281e17ad54576a27e76d4efb404fe7f961a544ee884bb9df79df25e620ca381",
    "val": "161d3a1c11a932c8930e91fb52d2deb90a30d19c64c74a29ad22ef7f17324cdf",
    "test": "ffdaa0e21980b6c18949b5e8958b324027c09514860b07186fb7f19c2a7e729b",
}
TRUTHS = ("solid", "shells")
DYNAMICS = ("none", "walker", "moved")

# The streams of random numbers of a scene: what is drawn from one never shifts another.
_SCENE, _TRAJECTORY, _APPEARANCE, _ACTORS = range(4)
#: Not every layout can be built and leaves room to walk; the next one is tried, so many times.
_ATTEMPTS = 20
#: A film of fewer frames is too short to come back to where it began.
_LEAST_LOOP = 300


@dataclass(frozen=True)
class Options:
    """What decides the labels of a split. seed; truth: see TRUTHS; dynamic: see DYNAMICS; frames: per scene; loop: one
    long walk that returns to where it began.
    """

    seed: int = 0
    truth: str = "solid"
    dynamic: str = "none"
    frames: int = 30
    loop: bool = False

    def __post_init__(self) -> None:
        if self.truth not in TRUTHS:
            raise ValueError(f"there is no truth {self.truth!r}: use one of {', '.join(TRUTHS)}")
        if self.dynamic not in DYNAMICS:
            raise ValueError(f"there is no variant {self.dynamic!r}: use one of {', '.join(DYNAMICS)}")
        if self.seed < 0 or self.frames < 1:
            raise ValueError(f"seed {self.seed} or {self.frames} frames make no sense: use a seed >= 0 and frames >= 1")
        if self.loop and self.frames < _LEAST_LOOP:
            raise ValueError(f"{self.frames} frames are too few for a loop: use at least {_LEAST_LOOP}")

    def scene_name(self, split: str, number: int) -> str:
        variant = "" if self.dynamic == "none" else f"_{self.dynamic}"
        return f"synth_{split}_{number:04d}{variant}{'_loop' if self.loop else ''}"


@dataclass(frozen=True)
class FrameTruth:
    """labels: (X, Y, Z) uint8 of the scene at this frame; grid, local_labels: (60, 60, 36) uint8 of the frame's own
    grid; mask: (X, Y, Z) bool, the voxels of that grid that are in view, hidden ones included.
    """

    labels: np.ndarray
    grid: VoxelGrid
    local_labels: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class MadeScene:
    """A scene, its shot and its truth. labels: (X, Y, Z) uint8 at the last frame."""

    name: str
    scene: Scene
    shot: Shot
    grid: VoxelGrid
    labels: np.ndarray
    _labels_at: tuple[np.ndarray, ...]

    def frames(self) -> Iterator[FrameTruth]:
        """The truth of every frame, one after the other."""
        for pose, labels in zip(self.shot.poses, self._labels_at, strict=True):
            local, corner = truth.local_grid(self.grid, pose)
            _, mask = truth.in_view(self.grid, corner, self.shot.camera, pose)
            yield FrameTruth(labels, local, truth.crop(labels, corner), mask)


def make_scene(split: str, number: int, options: Options = Options()) -> MadeScene:  # noqa: B008 (frozen)
    """The scene `number` of a split. Raises ValueError where no layout of it can be built and walked through."""
    name = options.scene_name(split, number)
    for attempt in range(_ATTEMPTS):
        try:
            scene = build_scene(_rng(options, split, number, _SCENE, attempt))
            shot = shoot(scene, _rng(options, split, number, _TRAJECTORY, attempt), options.frames, options.loop)
            scene = _with_actors(scene, shot, _rng(options, split, number, _ACTORS, attempt), options)
        except ValueError as error:
            reason = error
            continue
        grid, labels_at = _labels_at(scene, shot, options)
        return MadeScene(name, scene, shot, grid, labels_at[-1], labels_at)
    raise ValueError(f"{name}: {_ATTEMPTS} layouts were tried, the last failed because {reason}: use another seed")


def _rng(options: Options, split: str, number: int, stage: int, attempt: int = 0) -> np.random.Generator:
    return np.random.default_rng([FORMAT_VERSION, options.seed, SPLITS.index(split), number, stage, attempt])


def _with_actors(scene: Scene, shot: Shot, rng: np.random.Generator, options: Options) -> Scene:
    if options.dynamic == "walker":
        return actors.add_walker(scene, rng, options.frames, shot.poses, options.loop)
    if options.dynamic == "moved":
        return actors.move_things(scene, rng, options.frames, shot.poses)
    return scene


def _labels_at(scene: Scene, shot: Shot, options: Options) -> tuple[VoxelGrid, tuple[np.ndarray, ...]]:
    """The grid of a scene, and its labels at every frame (one array for all where nothing moves)."""
    fixed = scene.fixed_in_world()
    grid = truth.scene_grid(fixed)
    still = truth.Occupants(fixed, grid)
    states: list[truth.Occupants] = []
    signature, state = None, still
    for frame in range(len(shot.poses)):
        moving = scene.actors_in_world(frame)
        now = b"".join(solid.centre.tobytes() + solid.rotation.tobytes() for solid in moving)
        if now != signature:
            signature, state = now, still.joined(truth.Occupants(moving, grid)) if moving else still
        states.append(state)

    pieces_count = 1 + max(solid.piece for solid in (*scene.solids, *(s for a in scene.actors for s in a.solids)))
    seen_pieces = np.zeros(pieces_count, bool)
    seen_through = np.zeros(int(np.prod(grid.shape)), bool)
    pieces = None
    for i, (pose, state) in enumerate(zip(shot.poses, states, strict=True)):
        if i == 0 or state is not states[i - 1]:
            pieces = state.pieces(grid)
        passed, hit = truth.see(pieces >= 0, grid, shot.camera, pose)
        seen_through[passed] = True
        seen_pieces[pieces.reshape(-1)[hit]] = True

    labels_at: list[np.ndarray] = []
    for i, state in enumerate(states):
        if i == 0 or state is not states[i - 1]:
            through = seen_through.reshape(grid.shape)
            labels = truth.known(state.labels(grid), state.pieces(grid), through, seen_pieces)
            labels = truth.shells(labels) if options.truth == "shells" else labels
        labels_at.append(labels)
    return grid, tuple(labels_at)


def generate(
    out: str | Path,
    split: str,
    scenes: int,
    *,
    seed: int = 0,
    jobs: int | None = None,
    truth: str = "solid",
    dynamic: str = "none",
    frames: int = 30,
    loop: bool = False,
    labels_only: bool = False,
) -> str:
    """Make the first `scenes` scenes of a split in the folder `out`, and return the hash of its labels.

    Scenes that are complete already are kept, so a run that was stopped goes on. jobs: processes (default: one per
    core); labels_only: draw nothing, which needs no GL. Raises ValueError where the folder holds the split with other
    options or more scenes, RuntimeError where nothing can be drawn here.
    """
    out, options = Path(out), Options(seed, truth, dynamic, frames, loop)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: use one of {', '.join(SPLITS)}")
    index = _read_index(out)
    held = index["splits"].get(split)
    if held and held["options"] != asdict(options):
        raise ValueError(f"{out} holds a {split} split made with {held['options']}: choose another folder")
    if held and held["scenes"] > scenes:
        raise ValueError(f"{out} holds {held['scenes']} scenes of {split} already: ask for as many, or another folder")
    if not labels_only:
        from sgrocc.synthrooms import rendering

        if reason := rendering.available():
            raise RuntimeError(reason)

    names = [options.scene_name(split, number) for number in range(scenes)]
    markers = [_read_marker(out, name) for name in names]
    missing = [
        number
        for number, (name, marker) in enumerate(zip(names, markers, strict=True))
        if not _complete(out, split, name, marker, options, labels_only)
    ]
    _enter(out, split, {"options": asdict(options), "scenes": 0, "labels_sha256": None})
    _make_all(out, split, missing, options, labels_only, jobs or os.cpu_count() or 1)

    digests = [(_read_marker(out, name) or {}).get("labels_sha256", "") for name in names]
    write_split(out, split, "local", [(name, frame) for name in names for frame in range(frames)])
    write_split(out, split, "embodied", names)
    total = _digest_of_split(digests)
    _enter(out, split, {"options": asdict(options), "scenes": scenes, "labels_sha256": total})
    return total


def labels_hash(out: str | Path, split: str) -> str:
    """The hash of a split's labels, masks, poses and intrinsics, computed again from its files.

    Raises ValueError where a file is missing or bad, and where a frame has other labels in the two tasks.
    """
    digests = []
    local = iter(OccScanNet(out, split))
    for scene in EmbodiedOccScanNet(out, split):
        digest = _Digest(scene.frames[0].camera, scene.grid, scene.labels)
        for frame, same in zip(scene.frames, local):  # noqa: B905 (of the frames, the local task has more)
            if (frame.scene, frame.frame) != (same.scene, same.frame) or (frame.labels != same.labels).any():
                raise ValueError(f"{same.label_path} and {frame.label_path} hold different labels: make them again")
            digest.add(frame.pose, frame.grid, frame.labels, frame.mask, frame.global_labels())
        digests.append(digest.hexdigest())
    return _digest_of_split(digests)


def check_labels(out: str | Path, split: str) -> str:
    """A sentence on the labels of a split: their hash, computed again from the files, is the one that its index names.

    Raises ValueError where it is not, or where the index does not know the split.
    """
    entry = _read_index(Path(out))["splits"].get(split)
    if not entry or not entry["labels_sha256"]:
        raise ValueError(f"the making of {split} in {out} was not finished: run sgrocc synth again")
    found = labels_hash(out, split)
    if found != entry["labels_sha256"]:
        raise ValueError(
            f"the labels of {split} in {out} have the hash {found} instead of {entry['labels_sha256']}: they were "
            "changed, delete them and run sgrocc synth again"
        )
    published = ", as published" if found == PUBLISHED_LABELS[split] else ""
    return f"{split}: SHA-256 of the labels {found}{published}"


def _make_all(out: Path, split: str, numbers: list[int], options: Options, labels_only: bool, jobs: int) -> None:
    """Make scenes in `jobs` processes, and show how far they are."""
    if not numbers:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[rate]:.1f} a second"),
        TimeRemainingColumn(),
    )
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    pool = ProcessPoolExecutor(min(jobs, len(numbers)), context, _start_worker, (done,))
    try:
        with Progress(*columns) as progress:
            bar = progress.add_task(f"{split} ", total=len(numbers) * options.frames, rate=0.0)
            start_s = time.monotonic()
            waiting = {pool.submit(_make_one, out, split, number, options, labels_only) for number in numbers}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                progress.update(bar, completed=done.value, rate=done.value / (time.monotonic() - start_s))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_frames_done = None


def _start_worker(done) -> None:
    global _frames_done
    _frames_done = done


def _make_one(out: Path, split: str, number: int, options: Options, labels_only: bool) -> None:
    """Make one scene and write all its files; its marker comes last, so what has one is complete."""
    _marker_path(out, options.scene_name(split, number)).unlink(missing_ok=True)
    made = make_scene(split, number, options)
    camera, last = made.shot.camera, made.labels
    digest = _Digest(camera, made.grid, last)
    artist = None if labels_only else _Artist(made, _rng(options, split, number, _APPEARANCE))
    images = []
    mask = np.zeros(made.grid.shape, bool)
    try:
        for i, (pose, frame) in enumerate(zip(made.shot.poses, made.frames(), strict=True)):
            image, depth, quality = artist.draw(pose, i) if artist else (None, None, 0)
            images.append(
                write_frame(
                    out,
                    made.name,
                    i,
                    pose=pose,
                    camera=camera,
                    voxel_origin=frame.grid.origin,
                    labels=frame.local_labels,
                    image=image,
                    depth=depth,
                    jpeg_quality=quality,
                )
            )
            changed = np.flatnonzero(frame.labels != last)
            changes = (changed, frame.labels.reshape(-1)[changed]) if len(changed) else None
            write_stream(
                out, split, made.name, i, local_label=frame.local_labels, mask_in_global=frame.mask, changes=changes
            )
            mask |= frame.mask
            digest.add(pose, frame.grid, frame.local_labels, frame.mask, frame.labels)
            if _frames_done is not None:
                with _frames_done.get_lock():
                    _frames_done.value += 1
    finally:
        if artist:
            artist.close()
    write_global(out, made.name, grid=made.grid, labels=last, mask=mask, image_paths=images)
    marker = {"version": FORMAT_VERSION, "options": asdict(options), "images": not labels_only}
    _write_json(_marker_path(out, made.name), marker | {"labels_sha256": digest.hexdigest()})


class _Artist:
    """Draws the frames of a scene and spoils them as a camera would."""

    def __init__(self, made: MadeScene, rng: np.random.Generator) -> None:
        from sgrocc.synthrooms.rendering import Renderer
        from sgrocc.synthrooms.sensor import CameraFaults

        self._faults = CameraFaults.sample(rng)
        self._rng = rng
        self._renderer = Renderer(made.scene, made.shot.camera, rng)

    def draw(self, pose: Pose, frame: int) -> tuple[np.ndarray, np.ndarray, int]:
        drawing = self._renderer.draw(pose, frame)
        return self._faults.apply(drawing.image, self._rng), drawing.depth, self._faults.jpeg_quality

    def close(self) -> None:
        self._renderer.close()


class _Digest:
    """SHA-256 of what a scene's seed decides: intrinsics, poses, grids, labels and masks; never pixels."""

    def __init__(self, camera: PinholeCamera, grid: VoxelGrid, labels: np.ndarray) -> None:
        self._sha = hashlib.sha256()
        self._numbers(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        self._numbers(*grid.origin, *grid.shape)
        self._sha.update(np.ascontiguousarray(labels, np.uint8).tobytes())

    def add(self, pose: Pose, grid: VoxelGrid, local: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> None:
        self._numbers(*pose.matrix.ravel(), *grid.origin)
        self._sha.update(np.ascontiguousarray(local, np.uint8).tobytes())
        self._sha.update(np.packbits(mask).tobytes())
        self._sha.update(hashlib.sha256(np.ascontiguousarray(labels, np.uint8).tobytes()).digest())

    def _numbers(self, *numbers: float) -> None:
        # Millionths of a metre or pixel: how a file rounds, and the sign of a zero, make no difference.
        self._sha.update(np.rint(np.array(numbers, np.float64) * 1e6).astype("<i8").tobytes())

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def _digest_of_split(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _complete(out: Path, split: str, name: str, marker: dict | None, options: Options, labels_only: bool) -> bool:
    """Whether a scene was made with these options and all its files are there."""
    if marker is None or (marker.get("version"), marker.get("options")) != (FORMAT_VERSION, asdict(options)):
        return False
    if not (marker.get("images") or labels_only) or "labels_sha256" not in marker:
        return False
    layout = Layout(out)
    files = [layout.global_package(name)]
    for frame in range(options.frames):
        files += [layout.gathered(name, frame), layout.stream(split, name, frame)]
        files += [layout.image(name, frame), layout.depth(name, frame)] if marker["images"] else []
    return all(path.is_file() for path in files)


def _marker_path(out: Path, name: str) -> Path:
    return out / "synthrooms" / f"{name}.json"


def _read_marker(out: Path, name: str) -> dict | None:
    """What is known of a scene that was made; None where nothing is, or the file is damaged."""
    try:
        marker = json.loads(_marker_path(out, name).read_text())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _read_index(out: Path) -> dict:
    path = out / "synthrooms.json"
    if not path.exists():
        return {"format_version": FORMAT_VERSION, "splits": {}}
    index = json.loads(path.read_text())
    if index.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of format version {index.get('format_version')}, this program makes version {FORMAT_VERSION}: "
            "choose another folder"
        )
    return index


def _enter(out: Path, split: str, entry: dict) -> None:
    """Put a split into the index of a folder, beside what others have put there meanwhile."""
    index = _read_index(out)
    index["splits"][split] = entry
    _write_json(out / "synthrooms.json", index)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
