"""The files of Occ-ScanNet and EmbodiedOcc-ScanNet: the real format and ours through one reader, and bad files."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgrocc.datasets.embodied_occscannet import EmbodiedOccScanNet
from sgrocc.datasets.layout import (
    Layout,
    coarse_labels,
    read_split,
    write_frame,
    write_global,
    write_split,
    write_stream,
)
from sgrocc.datasets.occscannet import OccScanNet
from sgrocc.datasets.pickles import BadFile, read_pickle, write_pickle
from sgrocc.evaluation import data_check
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, UNKNOWN

NATIVE_K = np.array([[1170.2, 0, 647.75, 0], [0, 1170.2, 483.75, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
SCENE_CORNER = np.array([-1.2345, 0.5, -0.04])
SCENE_SHAPE = (70, 66, 40)
AUTHORS_DISK = "/data1/code/someone/EmbodiedOcc/data/occscannet"


def old_pickle(content: object, protocol: int = 3) -> bytes:
    """A pickle as numpy 1 wrote it: not compressed, and with the names that its modules had."""
    return pickle.dumps(content, protocol=protocol).replace(b"numpy._core", b"numpy.core")


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class Original:
    """Two scenes of three frames, written by hand as the authors' files are; no function of ours takes part."""

    scenes = ("scene0011_00", "scene0702_01")
    stems = ("00002", "00010", "00100")

    def __init__(self, root: Path, points: str = "centre") -> None:
        rng = np.random.default_rng(7)
        self.root, self.labels, self.locals, self.masks, self.poses = root, {}, {}, {}, {}
        local, online = root / "occscannet", root / "scene_occ"
        shift = 0.04 if points == "centre" else 0.0
        grid_axes = [SCENE_CORNER[i] + shift + 0.08 * np.arange(SCENE_SHAPE[i]) for i in range(3)]
        global_pts = np.stack(np.meshgrid(*grid_axes, indexing="ij"), axis=-1)
        for scene in self.scenes:
            labels = rng.choice([0, 1, 2, 5, 9, 11, 255], SCENE_SHAPE).astype(np.uint8)
            self.labels[scene] = labels
            for number, stem in enumerate(self.stems):
                key = (scene, stem)
                start = np.array([number, 2 * number, number])
                box = tuple(slice(a, a + n) for a, n in zip(start, (60, 60, 36)))
                self.locals[key] = labels[box]
                self.masks[key] = rng.random(SCENE_SHAPE) < 0.3
                pose = np.eye(4)
                pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
                pose[:3, 3] = rng.normal(size=3)
                self.poses[key] = pose
                # [y, x, z] in the file, and the corner with the noise of float32.
                stored = self.locals[key].transpose(1, 0, 2)
                content = {
                    "img": f"{AUTHORS_DISK}/posed_images/{scene}/{stem}.jpg",
                    "depth_gt": f"{AUTHORS_DISK}/posed_images/{scene}/{stem}.png",
                    "cam_pose": pose,
                    "intrinsic": NATIVE_K.copy(),
                    "voxel_origin": list(np.float32(SCENE_CORNER + 0.08 * start)),
                    "target_1_4": stored,
                    "target_1_16": np.zeros((15, 15, 9), np.uint8),
                }
                put(local / "gathered_data" / scene / f"{stem}.pkl", old_pickle(content))
                streamed = {"local_label": stored.astype(np.int64), "mask_in_global": self.masks[key]}
                put(online / "streme_occ_new_package" / "test" / f"{scene}_{stem}_new.pkl", old_pickle(streamed))
                images = local / "posed_images" / scene
                images.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((484, 648, 3), 30 * number, np.uint8)).save(images / f"{stem}.jpg")
                depth = np.full((480, 640), 1000 + number, np.uint16)
                depth[:10] = 0
                Image.fromarray(depth).save(images / f"{stem}.png")
            package = {
                "scene_dim": list(SCENE_SHAPE),
                "global_labels": labels.astype(np.float64),
                "global_pts": global_pts.astype(np.float32),
                "valid_img_paths": [f"{AUTHORS_DISK}/posed_images/{scene}/{stem}.jpg" for stem in self.stems[::-1]],
                "global_mask": np.ones(SCENE_SHAPE, np.int32),
            }
            put(online / "global_occ_package" / f"{scene}.pkl", old_pickle(package, protocol=2))
        lines = [f"gathered_data/{scene}/{stem}.pkl\n" for scene in self.scenes for stem in self.stems]
        (local / "test_final.txt").write_text("".join(lines))
        (local / "train_final.txt").write_text(lines[0])
        (local / "test_mini_final.txt").write_text("".join(lines[:2]))
        (online / "test_online.txt").write_text("".join(f"{scene}\n" for scene in self.scenes))
        (online / "test_mini_online.txt").write_text(f"{self.scenes[1]}\n")

    def gathered(self, scene: int = 0, stem: int = 0) -> Path:
        return Layout(self.root).gathered(self.scenes[scene], self.stems[stem])

    def change(self, path: Path, **fields) -> None:
        """Put other values into a file; None takes a field out."""
        content = {**pickle.loads(path.read_bytes()), **fields}
        path.write_bytes(old_pickle({name: value for name, value in content.items() if value is not None}))


@pytest.fixture
def original(tmp_path):
    return Original(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return Original(tmp_path_factory.mktemp("real"))


# --- The real format


def test_a_frame_of_the_real_set(untouched):
    frames = OccScanNet(untouched.root, "test")
    assert len(frames) == 6
    for index, (scene, stem) in enumerate((s, f) for s in untouched.scenes for f in untouched.stems):
        frame = frames[index]
        assert (frame.scene, frame.frame) == (scene, int(stem))
        assert frame.labels.dtype == np.uint8 and (frame.labels == untouched.locals[scene, stem]).all()
        assert np.array_equal(frame.pose.matrix, untouched.poses[scene, stem])
        number = index % 3
        expected = SCENE_CORNER + 0.08 * np.array([number, 2 * number, number])
        assert np.abs(frame.grid.origin - np.round(expected, 4)).max() < 1e-12
        assert frame.grid.shape == (60, 60, 36) and frame.grid.resolution == 0.08
        assert frame.image().shape == (484, 648, 3) and abs(int(frame.image().mean()) - 30 * number) <= 1
        depth = frame.depth()
        assert depth.dtype == np.float32 and depth.shape == (480, 640)
        assert (depth[:10] == 0).all() and np.allclose(depth[10:], 1.0 + 0.001 * number, atol=1e-6)


def test_intrinsics_of_the_native_image_are_scaled_to_the_stored_one(untouched):
    camera = OccScanNet(untouched.root, "test")[0].camera
    assert (camera.width, camera.height) == (648, 484)
    assert camera.fx == pytest.approx(1170.2 / 2) and camera.fy == pytest.approx(1170.2 / 2)
    # Half as many pixels: the centre of the image stays the centre.
    assert camera.cx == pytest.approx((647.75 + 0.5) / 2 - 0.5, abs=1e-4)
    assert camera.cy == pytest.approx((483.75 + 0.5) / 2 - 0.5, abs=1e-4)


@pytest.mark.parametrize("points", ["centre", "corner"])
def test_a_scene_of_the_real_set(tmp_path, points):
    made = Original(tmp_path, points)
    scenes = EmbodiedOccScanNet(tmp_path, "test")
    assert [scene.name for scene in scenes] == list(made.scenes)
    for scene in scenes:
        assert scene.labels.dtype == np.uint8 and (scene.labels == made.labels[scene.name]).all()
        assert np.abs(scene.grid.origin - SCENE_CORNER).max() < 1e-6 and scene.grid.shape == SCENE_SHAPE
        assert [frame.frame for frame in scene.frames] == [2, 10, 100]
        for number, (frame, stem) in enumerate(zip(scene.frames, made.stems)):
            assert frame.image_path == tmp_path / "occscannet" / "posed_images" / scene.name / f"{stem}.jpg"
            assert frame.mask.dtype == bool and (frame.mask == made.masks[scene.name, stem]).all()
            assert (frame.labels == made.locals[scene.name, stem]).all()
            assert (frame.global_labels() == scene.labels).all()
            start = (frame.grid.origin - scene.grid.origin) / 0.08
            assert np.abs(start - [number, 2 * number, number]).max() < 1e-9


def test_frames_are_ordered_by_number_not_by_text(original):
    layout = Layout(original.root)
    scene = original.scenes[0]
    for old, new in zip(original.stems, ("9", "10", "100")):
        layout.gathered(scene, old).rename(layout.gathered(scene, new))
        layout.image(scene, old).rename(layout.image(scene, new))
        layout.depth(scene, old).rename(layout.depth(scene, new))
        layout.stream("test", scene, old).rename(layout.stream("test", scene, new))
    paths = [f"C:/x/{stem}.jpg" for stem in ("100", "10", "9")]
    original.change(layout.global_package(scene), valid_img_paths=paths)
    assert [frame.frame for frame in EmbodiedOccScanNet(original.root, "test")[0].frames] == [9, 10, 100]


def test_grids_that_do_not_fit_together_are_named(original):
    path = Layout(original.root).global_package(original.scenes[0])
    points = pickle.loads(path.read_bytes())["global_pts"] + np.float32(0.02)
    original.change(path, global_pts=points)
    with pytest.raises(BadFile, match="neither whole .a corner. nor half"):
        EmbodiedOccScanNet(original.root, "test")[0]


def test_mini_lists_and_named_scenes(untouched):
    assert len(OccScanNet(untouched.root, "test", mini=True)) == 2
    assert [scene.name for scene in EmbodiedOccScanNet(untouched.root, "test", mini=True)] == [untouched.scenes[1]]
    chosen = EmbodiedOccScanNet(untouched.root, "test", names=[untouched.scenes[1], "scene9999_00"])
    assert [scene.name for scene in chosen] == [untouched.scenes[1]]
    assert Layout(untouched.root).splits("local") == ["train", "test"]
    assert Layout(untouched.root).splits("embodied") == ["test"]
    assert Layout(untouched.root).splits("local", mini=True) == ["test"]


def test_the_two_folders_may_be_given_on_their_own(untouched, tmp_path):
    whole = Layout(untouched.root)
    for folder in (whole.occscannet, whole.scene_occ):
        assert len(OccScanNet(folder, "test")) == 6 and len(EmbodiedOccScanNet(folder, "test")) == 2
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(whole.scene_occ)
    assert len(EmbodiedOccScanNet(Layout(whole.occscannet, elsewhere), "test")[0].frames) == 3


# --- Our own files


def synthetic(root: Path, images: bool = True) -> dict:
    """One scene of two frames, through our writers; the second frame has a voxel that is different later."""
    rng = np.random.default_rng(3)
    grid = VoxelGrid(np.array([-8, 13, -1]) * 0.08, (64, 62, 38), 0.08)
    labels = rng.choice([0, 2, 3, 8, 255], grid.shape).astype(np.uint8)
    camera = PinholeCamera(64, 48, 51.25, 51.5, 31.0, 24.5)
    made = {"grid": grid, "labels": labels, "camera": camera, "frames": []}
    paths = []
    for number in range(2):
        angle = 0.3 * number
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        frame = {
            "pose": Pose(turn, rng.normal(size=3)),
            "voxel_origin": grid.origin + 0.08 * number,
            "labels": labels[number : number + 60, number : number + 60, number : number + 36],
            "image": rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) if images else None,
            "depth": rng.integers(0, 9000, (48, 64)).astype(np.float32) / 1000 if images else None,
        }
        paths.append(write_frame(root, "synth_val_0000", number, camera=camera, jpeg_quality=80, **frame))
        frame["mask"] = rng.random(grid.shape) < 0.5
        changed = np.array([5, 77_777]) if number == 1 else None
        changes = (changed, np.array([11, 0], np.uint8)) if number == 1 else None
        frame["now"] = labels.copy()
        if number == 1:
            frame["now"].reshape(-1)[changed] = [11, 0]
        write_stream(
            root,
            "val",
            "synth_val_0000",
            number,
            local_label=frame["labels"],
            mask_in_global=frame["mask"],
            changes=changes,
        )
        made["frames"].append(frame)
    mask = made["frames"][0]["mask"] | made["frames"][1]["mask"]
    write_global(root, "synth_val_0000", grid=grid, labels=labels, mask=mask, image_paths=paths)
    write_split(root, "val", "local", [("synth_val_0000", 0), ("synth_val_0000", 1)])
    write_split(root, "val", "embodied", ["synth_val_0000"])
    return made


def test_what_we_write_is_read_back_exactly(tmp_path):
    made = synthetic(tmp_path)
    scene = EmbodiedOccScanNet(tmp_path, "val")[0]
    assert (scene.labels == made["labels"]).all() and np.array_equal(scene.grid.origin, made["grid"].origin)
    for local, embodied, frame in zip(OccScanNet(tmp_path, "val"), scene.frames, made["frames"], strict=True):
        for read in (local, embodied):
            assert np.array_equal(read.pose.matrix, frame["pose"].matrix) and read.camera == made["camera"]
            assert (read.labels == frame["labels"]).all()
            assert np.abs(read.grid.origin - frame["voxel_origin"]).max() < 1e-12
            assert np.abs(read.depth() - frame["depth"]).max() < 1e-6
            assert read.image().shape == (48, 64, 3)
        assert (embodied.mask == frame["mask"]).all() and (embodied.global_labels() == frame["now"]).all()
    assert (scene.frames[1].global_labels() != scene.labels).any()


def test_equal_content_gives_equal_files(tmp_path):
    for name in ("a", "b"):
        synthetic(tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 2 * 4 + 3
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_a_set_without_images_has_labels_and_says_what_is_not_there(tmp_path):
    made = synthetic(tmp_path, images=False)
    frame = OccScanNet(tmp_path, "val", on_error="skip")[1]
    assert (frame.labels == made["frames"][1]["labels"]).all() and frame.camera == made["camera"]
    assert frame.image_path is None and len(EmbodiedOccScanNet(tmp_path, "val", on_error="skip")[0].frames) == 2
    for read in (frame.image, frame.depth):
        with pytest.raises(ValueError, match="without images"):
            read()


def test_the_camera_of_a_scaled_down_copy_of_our_images(tmp_path):
    made = synthetic(tmp_path)
    path = Layout(tmp_path).image("synth_val_0000", 0)
    Image.open(path).resize((32, 24)).save(path)
    assert OccScanNet(tmp_path, "val")[0].camera == made["camera"].resized(32, 24)


def test_files_are_those_of_the_real_format(tmp_path):
    made = synthetic(tmp_path)
    frame = made["frames"][1]
    raw = read_pickle(Layout(tmp_path).gathered("synth_val_0000", 1))
    assert (raw["target_1_4"] == frame["labels"].transpose(1, 0, 2)).all() and raw["target_1_16"].shape == (15, 15, 9)
    assert raw["intrinsic"].shape == raw["cam_pose"].shape == (4, 4)
    raw = read_pickle(Layout(tmp_path).global_package("synth_val_0000"))
    assert list(raw["scene_dim"]) == [64, 62, 38] and raw["global_pts"].shape == (64, 62, 38, 3)
    assert np.allclose(raw["global_pts"][3, 5, 7], made["grid"].origin + 0.08 * np.array([3, 5, 7]))
    assert raw["global_mask"].dtype == bool and raw["global_mask"].any()
    assert (
        (tmp_path / "occscannet" / "val_final.txt").read_text().startswith("gathered_data/synth_val_0000/00000.pkl\n")
    )
    assert Layout(tmp_path).gathered("synth_val_0000", 1).stat().st_size < 60_000


def test_coarse_labels_by_counting():
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 255, 4, 6], (8, 4, 4), p=[0.45, 0.5, 0.03, 0.02]).astype(np.uint8)
    labels = np.concatenate([labels, np.full((4, 4, 4), 255, np.uint8), np.full((4, 4, 4), 9, np.uint8)])
    for block, coarse in zip(labels.reshape(4, 4, 4, 4), coarse_labels(labels)[:, 0, 0]):
        values, counts = np.unique(block, return_counts=True)
        count = dict(zip(values.tolist(), counts.tolist()))
        nothing = count.get(0, 0) + count.get(255, 0)
        classes = {label: n for label, n in count.items() if label not in (FREE, UNKNOWN)}
        if nothing > 60.8:
            assert coarse == (0 if count.get(0, 0) > count.get(255, 0) else 255)
        else:
            assert count[int(coarse)] == max(classes.values())


def test_writers_refuse_what_does_not_fit(tmp_path):
    pose, camera = Pose.identity(), PinholeCamera(8, 6, 5, 5, 4, 3)
    with pytest.raises(ValueError, match="local labels are"):
        write_frame(
            tmp_path,
            "s",
            0,
            pose=pose,
            camera=camera,
            voxel_origin=np.zeros(3),
            labels=np.zeros((60, 60, 35), np.uint8),
            image=None,
            depth=None,
        )
    with pytest.raises(ValueError, match="no kind of list"):
        write_split(tmp_path, "val", "global", [])


# --- Pickles are data, not programs


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    command = f"touch {marker}"
    pickles = {
        "os.system": pickle.dumps({"img": Call(os.system, command)}),
        "eval": pickle.dumps({"img": Call(eval, f"open({str(marker)!r}, 'w')")}),
        "open": pickle.dumps({"img": Call(open, str(marker), "w")}),
        "getattr": pickle.dumps({"img": Call(getattr, [], "append")}),
        "numpy.load": pickle.dumps({"img": Call(np.load, str(marker))}),
        "a path": pickle.dumps({"img": marker}),
        "old protocol": pickle.dumps({"img": Call(os.system, command)}, protocol=0),
        "not a dictionary": pickle.dumps(Call(os.system, command)),
    }
    return pickles


@pytest.mark.parametrize("name", list(hostile_pickles(Path("x"))))
def test_nothing_in_a_pickle_is_executed(tmp_path, name):
    marker, path = tmp_path / "executed", tmp_path / "file.pkl"
    path.write_bytes(hostile_pickles(marker)[name])
    with pytest.raises(BadFile, match="never loaded") as caught:
        read_pickle(path)
    assert caught.value.reason == "unsafe" and not marker.exists() and str(path) in str(caught.value)


def test_a_small_pickle_cannot_ask_for_endless_work_or_memory(tmp_path):
    nested = [1]
    for _ in range(60):
        nested = [nested, nested]  # 2 ** 60 numbers, were each of them visited
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"img": nested}))
    assert list(read_pickle(path)) == ["img"]
    for kind in (bytes, bytearray):
        path.write_bytes(pickle.dumps({"img": Call(kind, 2**40)}))
        with pytest.raises(BadFile, match="damaged"):
            read_pickle(path)
        path.write_bytes(pickle.dumps({"img": Call(kind, b"abc")}))
        assert read_pickle(path) == {"img": b"abc"}


class CraftedDtype:
    """Calls bytes an array of objects: numpy would follow them as addresses."""

    def __reduce__(self):
        fields = {"a": (np.dtype("O"), 0)}
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), fields, 8, 1, 0)


class CraftedArray:
    def __init__(self, dtype: object) -> None:
        self.dtype = dtype

    def __reduce__(self):
        reconstruct, arguments, _ = np.zeros(1).__reduce__()
        return reconstruct, arguments, (1, (1,), self.dtype, False, b"\x41" * 8)


@pytest.mark.parametrize(
    "content",
    [
        CraftedArray(CraftedDtype()),
        CraftedArray(np.dtype("O")),
        CraftedArray(np.dtype("f4,f4")),
        CraftedArray(np.dtype("M8[s]")),
        CraftedArray(np.dtype("f8")).__reduce__()[2],  # no array at all
        np.array([{}, None], object),
    ],
)
def test_only_plain_arrays_are_built(tmp_path, content):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"global_labels": content}))
    with pytest.raises(BadFile) as caught:
        read_pickle(path)
    assert caught.value.reason in ("damaged", "unsafe")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(24, dtype=">f4").reshape(2, 3, 4)),
        np.float32(0.1),
        np.array(2.5),
        np.zeros((3, 0), np.uint8),
        np.array(["scene0000_00", "ä"]),
        np.array([True, False]),
        [1, 2.5, "text", None, (3, b"bytes")],
    ],
    ids=repr,
)
def test_plain_values_of_every_protocol_and_both_names_of_numpys_core(tmp_path, protocol, value):
    path = tmp_path / "file.pkl"
    contents = [pickle.dumps({"value": value}, protocol=protocol)]
    if protocol <= 3:  # where names are not counted in bytes
        contents.append(contents[0].replace(b"numpy._core", b"numpy.core"))
    for content in contents:
        path.write_bytes(content)
        read = read_pickle(path)["value"]
        assert type(read) is type(value) and np.array_equal(np.asarray(read, object), np.asarray(value, object))
        if isinstance(value, np.ndarray):
            assert read.dtype == value.dtype.newbyteorder("=") and read.shape == value.shape and read.flags.writeable


def test_cut_off_and_spoilt_files_are_named(tmp_path):
    plain = old_pickle({"target_1_4": np.zeros((60, 60, 36), np.uint8), "img": "x"})
    write_pickle(tmp_path / "ours.pkl", {"target_1_4": np.zeros((60, 60, 36), np.uint8)})
    packed = (tmp_path / "ours.pkl").read_bytes()
    path = tmp_path / "file.pkl"
    for content in (b"", plain[:50], plain[:-1], plain[:70_000], packed[:9], packed[:-9], packed[:40], b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(BadFile, match="file.pkl: the pickle is damaged") as caught:
            read_pickle(path)
        assert caught.value.reason == "damaged"
    with pytest.raises(BadFile, match="is missing") as caught:
        read_pickle(tmp_path / "none.pkl")
    assert caught.value.reason == "missing"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(BadFile, match="a list instead of a dictionary"):
        read_pickle(path)


def test_flipped_bytes_never_do_more_than_raise(tmp_path):
    rng = np.random.default_rng(0)
    small = old_pickle({"a": np.arange(5), "b": [np.float64(1), "x"], "c": {"d": (1, 2)}})
    path = tmp_path / "file.pkl"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        spoilt = bytearray(small)
        for place in rng.integers(0, len(small), rng.integers(1, 4)):
            spoilt[place] = rng.integers(0, 256)
        path.write_bytes(spoilt)
        try:
            read_pickle(path)
            outcomes["read"] += 1
        except BadFile:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 300 and outcomes["read"] > 50


# --- Bad files in a data set: fatal, or skipped and named


def spoil_everything(original: Original) -> dict[str, str]:
    """Spoil five of the six frames of the local task; returns what is said of each file."""
    layout = Layout(original.root)
    (first, second), stems = original.scenes, original.stems
    layout.image(first, stems[0]).unlink()
    image = layout.image(first, stems[1])
    image.write_bytes(image.read_bytes()[:-600])
    original.gathered(0, 2).write_bytes(hostile_pickles(original.root / "executed")["os.system"])
    labels = np.zeros((60, 60, 36), np.uint8)
    labels[3, 2, 1] = 12
    original.change(original.gathered(1, 0), target_1_4=labels)
    original.gathered(1, 1).unlink()
    return {
        f"{first}/{stems[0]}.jpg": "the image is missing",
        f"{first}/{stems[1]}.jpg": "ends too early",
        f"{first}/{stems[2]}.pkl": "never loaded",
        f"{second}/{stems[0]}.pkl": "holds 12, but labels are 0 to 11 and 255",
        f"{second}/{stems[1]}.pkl": "the file is missing",
    }


def test_bad_frames_are_skipped_and_named(original):
    expected = spoil_everything(original)
    frames = OccScanNet(original.root, "test", on_error="skip")
    assert [(frame.scene, frame.frame) for frame in frames] == [(original.scenes[1], 100)]
    assert len(frames.skipped) == 5
    for sentence, (path, reason) in zip(frames.skipped, expected.items(), strict=True):
        assert path in sentence and reason in sentence
    assert not (original.root / "executed").exists()


def test_bad_frames_are_fatal_where_they_are_asked_for(original):
    expected = list(spoil_everything(original).values())
    frames = OccScanNet(original.root, "test")
    assert len(frames) == 6 and frames.skipped == []
    asked = (lambda frame: frame, lambda frame: frame.image(), lambda frame: frame, lambda frame: frame.labels)
    for index, ask in enumerate(asked):
        with pytest.raises(BadFile, match="cannot be decoded" if index == 1 else expected[index]):
            ask(frames[index])
    assert frames[5].labels.shape == (60, 60, 36)


def test_bad_frames_of_a_scene_are_skipped_and_named(original):
    layout = Layout(original.root)
    (first, second), stems = original.scenes, original.stems
    layout.stream("test", first, stems[1]).unlink()
    layout.depth(first, stems[2]).write_bytes(b"no picture")
    put(layout.global_package(second), b"\x80\x04")
    with pytest.raises(BadFile, match="damaged"):
        EmbodiedOccScanNet(original.root, "test")[1]
    scenes = EmbodiedOccScanNet(original.root, "test", on_error="skip")
    assert [scene.name for scene in scenes] == [first] and [f.frame for f in scenes[0].frames] == [2]
    assert len(scenes.skipped) == 3
    for path in (layout.stream("test", first, stems[1]), layout.depth(first, stems[2]), layout.global_package(second)):
        assert sum(str(path) in sentence for sentence in scenes.skipped) == 1
    layout.stream("test", first, stems[0]).unlink()
    with pytest.raises(ValueError, match="none of the 2 entries of the list can be read"):
        EmbodiedOccScanNet(original.root, "test", on_error="skip")


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"voxel_origin": None}, "the field voxel_origin is missing"),
        ({"voxel_origin": [0.0, np.nan, 0.0]}, "three finite numbers"),
        ({"voxel_origin": ["a", "b", "c"]}, "does not hold numbers"),
        ({"cam_pose": np.full((4, 4), -np.inf)}, "NaN or infinity"),
        ({"cam_pose": np.zeros((4, 4))}, "not a rotation"),
        ({"cam_pose": np.eye(3)}, "instead of .4, 4."),
        ({"intrinsic": np.zeros((4, 4))}, "focal lengths 0"),
        ({"intrinsic": np.eye(2)}, "instead of .3, 3. or .4, 4."),
        ({"image_size": (0, 3)}, "must not be empty"),
        ({"target_1_4": np.zeros((60, 60, 30), np.uint8)}, "instead of .60, 60, 36."),
        ({"target_1_4": np.full((60, 60, 36), 0.5)}, "holds 0.5, but labels are"),
        ({"target_1_4": np.full((60, 60, 36), -1)}, "holds -1, but labels are"),
        ({"target_1_4": "none"}, "no box of labels"),
    ],
)
def test_malformed_frames_are_named(original, fields, reason):
    original.change(original.gathered(), **fields)
    with pytest.raises(BadFile, match=reason) as caught:
        OccScanNet(original.root, "test")[0].verify()
    assert caught.value.reason == "malformed" and str(original.gathered()) in str(caught.value)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"scene_dim": [70, 66, 41]}, "scene_dim is"),
        ({"global_labels": np.full(SCENE_SHAPE, 12)}, "holds 12"),
        ({"global_pts": np.zeros((*SCENE_SHAPE, 3))}, "which are not"),
        ({"global_pts": np.zeros((5, 3))}, "no .70, 66, 40, 3. array of points"),
        ({"global_mask": np.zeros((2, 2, 2), bool)}, "array of true and false"),
        ({"valid_img_paths": []}, "no list of paths"),
        ({"valid_img_paths": ["/a/00002.jpg", "/b/2.jpg"]}, "names a frame twice"),
        ({"valid_img_paths": ["/a/first.jpg"]}, "not named by a number"),
    ],
)
def test_malformed_scenes_are_named(original, fields, reason):
    path = Layout(original.root).global_package(original.scenes[0])
    original.change(path, **fields)
    with pytest.raises(BadFile, match=reason) as caught:
        EmbodiedOccScanNet(original.root, "test")[0]
    assert caught.value.reason == "malformed" and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"mask_in_global": np.zeros((3, 3, 3), bool)}, "array of true and false"),
        ({"local_label": np.zeros((60, 36, 60), np.uint8)}, "instead of .60, 60, 36."),
        ({"changed_voxels": np.array([10**9]), "changed_labels": np.array([1])}, "no voxels of the scene"),
        ({"changed_voxels": np.array([3]), "changed_labels": np.array([77])}, "holds 77"),
    ],
)
def test_malformed_views_of_a_scene_are_named(original, fields, reason):
    path = Layout(original.root).stream("test", original.scenes[0], original.stems[0])
    original.change(path, **fields)
    with pytest.raises(BadFile, match=reason):
        EmbodiedOccScanNet(original.root, "test")[0].frames[0].verify()


def test_a_depth_image_of_eight_bits_is_refused(original):
    Image.new("L", (640, 480)).save(Layout(original.root).depth(original.scenes[0], original.stems[0]))
    with pytest.raises(BadFile, match="16 bits"):
        OccScanNet(original.root, "test")[0].depth()


# --- Lists


def test_bad_lists_are_named(original):
    path = original.root / "occscannet" / "test_final.txt"
    with pytest.raises(ValueError, match="val_final.txt is missing: use train or test"):
        OccScanNet(original.root, "val")
    with pytest.raises(ValueError, match="a folder that holds the lists"):
        OccScanNet(original.root / "nowhere", "test")
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        OccScanNet(original.root, "test", on_error="ignore")
    (original.root / "occscannet" / "train_final.txt").write_text("\n")
    with pytest.raises(ValueError, match="is in train: get the list again"):
        OccScanNet(original.root, "train")
    for line in ("gathered_data/../../../etc/passwd", "gathered_data/scene0011_00/first.pkl", "gathered_data/../1.pkl"):
        path.write_text(f"gathered_data/scene0011_00/00002.pkl\n\n{line}\n")
        with pytest.raises(BadFile, match="line 3 is"):
            OccScanNet(original.root, "test")
        frames = OccScanNet(original.root, "test", on_error="skip")
        assert len(frames) == 1 and line in frames.skipped[0]


def lists(root: Path, **frames: list[str]) -> Layout:
    """Only lists, of frames and of scenes."""
    for split, names in frames.items():
        write_split(root, split, "local", [(name, number) for name in names for number in range(2)])
        write_split(root, split, "embodied", names)
    return Layout(root)


def test_dealt_by_room_no_room_is_in_two_splits(tmp_path):
    names = [f"scene{room:04d}_{scan:02d}" for room in range(120) for scan in range(2)]
    layout = lists(tmp_path, train=names[:200], test=names[100:])
    for kind, per_scene in (("local", 2), ("embodied", 1)):
        train, test = (read_split(layout, split, kind, scene_disjoint=True)[0] for split in ("train", "test"))
        rooms = [{scene.split("_")[0] for _, scene, _ in part} for part in (train, test)]
        assert not rooms[0] & rooms[1] and len(rooms[0] | rooms[1]) == 120 and 20 < len(rooms[1]) < 52
        assert {entry[1:] for entry in train + test} == {
            (name, f"{number:05d}" if kind == "local" else "") for name in names for number in range(per_scene)
        }
        assert len(train + test) == len(names) * per_scene
        # The folder of a scene's frames is that of its list.
        assert all(scene in (names[:200] if listed == "train" else names[100:]) for listed, scene, _ in train + test)
    # Frozen: who trains with one version must be able to test with the next.
    assert sorted(rooms[1])[:4] == ["scene0003", "scene0006", "scene0011", "scene0012"]
    official = [read_split(layout, split, "local")[0] for split in ("train", "test")]
    assert [len(part) for part in official] == [400, 280]
    with pytest.raises(ValueError, match="no split 'val'"):
        read_split(layout, "val", "local", scene_disjoint=True)


def test_lists_that_share_no_room_stay_as_they_are(tmp_path):
    layout = lists(
        tmp_path, train=["synth_train_0000", "synth_train_0001"], val=["synth_val_0000"], test=["synth_test_0000"]
    )
    for kind in ("local", "embodied"):
        for split in ("train", "val", "test"):
            assert read_split(layout, split, kind, scene_disjoint=True) == read_split(layout, split, kind)


# --- sgrocc data check


def test_check_counts_everything(original, tmp_path, capsys):
    spoil_everything(original)
    (original.root / "occscannet" / "train_final.txt").unlink()
    out = tmp_path / "found" / "data_check.json"
    assert data_check.run(original.root, json_path=out) == 1
    found = json.loads(out.read_text())["splits"]
    assert [part["split"] for part in found] == ["test"]
    local, embodied = found[0]["local"], found[0]["embodied"]
    assert (local["listed"], local["frames"], local["scenes"]) == (6, 1, 1)
    assert local["problems"] == {"damaged": 1, "malformed": 1, "missing": 2, "unsafe": 1}
    assert len(local["bad_files"]) == 5
    labels = original.locals[original.scenes[1], original.stems[2]]
    assert local["voxels"]["free"] == np.count_nonzero(labels == 0)
    assert local["voxels"]["tv"] == np.count_nonzero(labels == 9) > 0
    assert local["voxels"]["unknown"] == np.count_nonzero(labels == 255)
    assert sum(local["voxels"].values()) == 60 * 60 * 36
    # The second scene's first frame has bad labels in a file that the embodied task does not read them from.
    assert (embodied["scenes"], embodied["frames"]) == (1, 2)
    assert embodied["problems"] == {"damaged": 1, "missing": 2, "unsafe": 1}
    assert embodied["mean_size_m"] == [5.6, 5.28, 3.2]
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 6 frames can be used" in printed and "2 missing" in printed and "holds 12" in printed
    assert "0.13" in printed, "the real set's share of tv"


def test_check_of_a_whole_set_is_content(untouched, capsys):
    assert data_check.run(untouched.root, ["test"], mini=True) == 0
    assert "2 of 2 frames can be used" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="no split 'val'"):
        data_check.run(untouched.root, ["val"])
    with pytest.raises(ValueError, match="holds no list such as"):
        data_check.run(untouched.root / "nowhere")


def test_the_real_sets_shares_are_the_published_ones():
    shares = data_check.shares(data_check.REAL_VOXELS)
    assert sum(data_check.REAL_VOXELS.values()) == 65419 * 60 * 60 * 36
    assert shares["unknown"] == pytest.approx(0.599, abs=5e-4) and shares["free"] == pytest.approx(0.941, abs=5e-4)
    assert shares["tv"] == pytest.approx(0.0013, abs=5e-5) and shares["ceiling"] == pytest.approx(0.0036, abs=5e-5)
