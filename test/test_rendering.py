"""Pictures of scenes: every pixel lies on the surface that the solids say, and cameras spoil it as real ones do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.labels import CEILING, CHAIR, FLOOR, OBJECTS, SOFA, TABLE, WALL
from sgrocc.synthrooms import furniture_parts, rendering
from sgrocc.synthrooms.scene import Actor, Lighting, Look, Scene, box, cylinder, ellipsoid, heading
from sgrocc.synthrooms.sensor import MAX_DEPTH_M, MIN_DEPTH_M, CameraFaults, sensor_depth
from sgrocc.synthrooms.textures import TEXTURES, make_texture

CAMERA = PinholeCamera(320, 240, 260.0, 262.0, 164.5, 112.25)
AHEAD = Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.5, 2.0, 1.2]))

needs_gl = pytest.mark.skipif(rendering.available() is not None, reason=str(rendering.available()))


def scene(*things, actors=()):
    wood, paint = Look("planks"), Look("plaster", (0.8, 0.9, 0.7))
    solids = (
        box(FLOOR, wood, (-0.1, 5.1), (-0.1, 4.1), (-0.1, 0)),
        box(CEILING, paint, (-0.1, 5.1), (-0.1, 4.1), (2.5, 2.6)),
        box(WALL, paint, (-0.1, 0), (0, 4), (0, 2.5)),
        box(WALL, paint, (5, 5.1), (0, 4), (0, 2.5)),
        box(WALL, paint, (0, 5), (-0.1, 0), (0, 2.5)),
        box(WALL, paint, (0, 5), (4, 4.1), (0, 2.5)),
        *things,
    )
    light = Lighting(0.35, (2.5, 2.0, 2.4), (1.0, 0.95, 0.85), (0.5, 0.3, -0.8), (0.6, 0.7, 0.9))
    solids = tuple(replace(solid, piece=i) for i, solid in enumerate(solids))
    return Scene(solids, ((0.0, 0.0, 5.0, 4.0),), 2.5, light, heading(0.7, 3.0, -1.0, 0.01), actors=actors)


def things():
    tilted = box(CHAIR, Look("fabric", (0.7, 0.2, 0.2)), (-0.3, 0.3), (-0.2, 0.2), (0.0, 0.5)).moved(
        heading(0.6, 2.2, 1.3)
    )
    return (
        box(TABLE, Look("wood"), (2.5, 3.3), (2.2, 3.0), (0.0, 0.75)),
        tilted,
        box(SOFA, Look("leather", (0.3, 0.4, 0.7)), (3.8, 4.6), (0.6, 1.8), (0.0, 0.5), rounding_m=0.08),
        cylinder(OBJECTS, Look("metal"), 3.4, 2.0, (0.0, 1.1), 0.12),
        ellipsoid(OBJECTS, Look("foliage", (0.4, 0.8, 0.4)), (2.9, 2.6, 1.0), (0.2, 0.2, 0.25)),
    )


def surfaces(drawing, pose, room):
    """Every third pixel as a point of the room frame, and its label."""
    v, u = np.mgrid[1:240:3, 1:320:3]
    depth = drawing.depth[v, u].astype(np.float64)
    points = CAMERA.back_project(np.stack([u, v], axis=-1).astype(np.float64), depth)
    local = (room.world_from_room.inverse() @ pose).apply(points)
    return local.reshape(-1, 3), drawing.label[v, u].ravel()


@needs_gl
@pytest.mark.parametrize("yaw", [0.0, 0.35, -0.3])
def test_every_pixel_lies_on_a_surface_and_has_its_label(yaw):
    room = scene(*things())
    pose = room.world_from_room @ Pose(heading(yaw).rotation @ AHEAD.rotation, AHEAD.translation)
    with rendering.Renderer(room, CAMERA, np.random.default_rng(0)) as renderer:
        drawing = renderer.draw(pose, 0, labels=True)
    assert drawing.image.shape == (240, 320, 3) and drawing.image.dtype == np.uint8
    assert drawing.depth.dtype == np.float32 and (drawing.depth > 0.3).all() and (drawing.depth < 5.0).all()
    points, labels = surfaces(drawing, pose, room)
    # A polygon's facets lie a little inside what is round.
    near = {s: np.abs(s.distance(points)) < (0.012 if s.shape != "box" or s.rounding_m else 0.003) for s in room.solids}
    assert np.mean(np.any(list(near.values()), axis=0)) > 0.99
    right = np.zeros(len(points), bool)
    for solid, close in near.items():
        right |= close & (labels == solid.label)
    assert np.mean(right) > 0.985
    assert {FLOOR, WALL} <= set(labels)


@needs_gl
def test_the_principal_point_need_not_be_the_middle():
    room = scene(ellipsoid(OBJECTS, Look("plain"), (3.5, 2.0, 1.2), (0.05, 0.05, 0.05)))
    pose = room.world_from_room @ AHEAD
    with rendering.Renderer(room, CAMERA, np.random.default_rng(0)) as renderer:
        label = renderer.draw(pose, 0, labels=True).label
    rows, columns = np.nonzero(label == OBJECTS)
    assert abs(columns.mean() - CAMERA.cx) < 0.6 and abs(rows.mean() - CAMERA.cy) < 0.6


@needs_gl
def test_what_moves_is_drawn_where_it_is():
    visitor = (replace(box(CHAIR, Look("plain"), (-0.2, 0.2), (-0.2, 0.2), (0.0, 1.6)), piece=6),)
    places = {0: heading(0.0, 3.0, 2.0), 1: heading(0.4, 3.0, 2.8), 2: None}
    room = scene(actors=(Actor(visitor, places.get),))
    pose = room.world_from_room @ AHEAD
    with rendering.Renderer(room, CAMERA, np.random.default_rng(0)) as renderer:
        labels = [renderer.draw(pose, frame, labels=True).label for frame in range(3)]
    columns = [np.nonzero(label == CHAIR)[1].mean() for label in labels[:2]]
    assert abs(columns[0] - CAMERA.cx) < 3
    # 0.8 m to the left at 2.5 m.
    assert abs(columns[1] - (CAMERA.cx - 0.8 / 2.5 * CAMERA.fx)) < 8
    assert not (labels[2] == CHAIR).any() and (labels[2] == WALL).any()


def test_faces_between_panels_are_not_drawn():
    # In the shadow map they would draw a dark line where two panels meet.
    paint = Look("plain", (0.8, 0.8, 0.8))
    row = [box(WALL, paint, (a, b), (0.0, 0.1), (0.0, 2.5)).moved(heading(0.3)) for a, b in ((0.0, 0.7), (0.7, 1.4))]
    other = box(WALL, paint, (1.4, 2.0), (0.0, 0.1), (0.0, 2.4)).moved(heading(0.3))  # lower: its face is not the same
    hidden = rendering._shared_faces([*row, other])
    assert len(hidden) == 1
    alone, first, second, lower = (
        rendering._box_mesh(solid, 1.0, True, faces)
        for solid, faces in ((row[0], set()), (row[0], hidden), (row[1], hidden), (other, hidden))
    )
    assert len(alone[0]) > len(first[0]) and len(lower[0]) == len(rendering._box_mesh(other, 1.0, True, set())[0])
    direction = heading(0.3).rotation[:, 0]
    assert not np.isclose(first[1] @ direction, 1.0).any() and np.isclose(first[1] @ direction, -1.0).any()
    assert not np.isclose(second[1] @ direction, -1.0).any() and np.isclose(second[1] @ direction, 1.0).any()


@needs_gl
def test_pictures_are_neither_black_nor_burnt_out():
    room = scene(*things())
    with rendering.Renderer(room, CAMERA, np.random.default_rng(0)) as renderer:
        image = renderer.draw(room.world_from_room @ AHEAD, 0).image
    assert 40 < image.mean() < 200 and np.mean(image > 250) < 0.05 and image.std() > 15


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_loads", lambda name: False)
    assert "apt install libegl1" in rendering.available()
    with pytest.raises(RuntimeError, match="libosmesa6"):
        rendering.Renderer(scene(), CAMERA, np.random.default_rng(0))


def test_a_missing_mujoco_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: None)
    assert "pip install mujoco" in rendering.available()


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_textures_repeat_and_differ_from_scene_to_scene(name):
    image, tile_m = make_texture(name, np.random.default_rng(1), 128)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8 and image.std() > 1
    assert tile_m is None or 0.2 < tile_m < 3
    assert (image == make_texture(name, np.random.default_rng(1), 128)[0]).all()
    assert (image != make_texture(name, np.random.default_rng(2), 128)[0]).any()


def test_every_material_of_the_furniture_has_its_texture():
    rng = np.random.default_rng(0)
    materials = (furniture_parts.wood, furniture_parts.metal, furniture_parts.paint, furniture_parts.cloth)
    assert {material(rng).texture for material in materials for _ in range(50)} <= set(TEXTURES)
    with pytest.raises(ValueError, match="there is no texture 'gold'"):
        make_texture("gold", rng)


@pytest.mark.parametrize("level", [30, 90, 160])
def test_exposure_seeks_its_target(level):
    rng = np.random.default_rng(0)
    clean = np.uint8(np.clip(rng.normal(level, 12, (120, 160, 3)), 0, 255))
    faults = CameraFaults(0.45, (1.0, 1.0, 1.0), 0.9, 0.0, 0.0, 0.01, 90)
    assert abs(faults.apply(clean, rng).mean() - 0.45 * 255) < 22


def test_cameras_differ_and_a_seed_is_one_camera():
    clean = np.uint8(np.random.default_rng(0).integers(0, 255, (60, 80, 3)))
    cameras = [CameraFaults.sample(np.random.default_rng(seed)) for seed in range(20)]
    assert len({camera.jpeg_quality for camera in cameras}) > 5 and len({camera.target for camera in cameras}) == 20
    one, same = (cameras[3].apply(clean, np.random.default_rng(5)) for _ in range(2))
    assert (one == same).all() and one.dtype == np.uint8
    # White balance: a grey picture takes a colour.
    grey = np.full((60, 80, 3), 120, np.uint8)
    warm = CameraFaults(0.45, (1.1, 1.0, 0.9), 1.0, 0.0, 0.0, 0.004, 90).apply(grey, np.random.default_rng(0))
    assert warm[..., 0].mean() > warm[..., 1].mean() + 5 > warm[..., 2].mean() + 10


def wall_at(distance_m, slope=0.0):
    u = (np.arange(CAMERA.width) - CAMERA.cx) / CAMERA.fx
    return np.repeat((distance_m / (1.0 - slope * u))[None], CAMERA.height, axis=0).astype(np.float32)


def test_sensor_noise_grows_with_distance_and_keeps_the_mean():
    errors = []
    for distance_m in (0.8, 2.0, 4.0):
        measured = sensor_depth(wall_at(distance_m), np.random.default_rng(0), CAMERA)
        assert np.mean(measured == 0) < 0.02 and abs(measured[measured > 0].mean() - distance_m) < 0.02
        errors.append(measured[measured > 0].std())
    assert errors[0] < errors[1] < errors[2] and 0.001 < errors[0] < 0.01 and errors[2] > 0.015


def test_a_sensor_measures_nothing_out_of_range_at_borders_and_at_grazing_angles():
    rng = np.random.default_rng(0)
    for distance_m in (0.5 * MIN_DEPTH_M, 1.2 * MAX_DEPTH_M):
        assert not sensor_depth(wall_at(distance_m), rng, CAMERA).any()
    step = wall_at(3.0)
    step[:, 160:] = 1.5
    measured = sensor_depth(step, rng, CAMERA)
    assert (measured[:, 158:162] == 0).mean() > 0.4 and (measured[:, 100] > 0).mean() > 0.95
    grazing = wall_at(1.0, slope=20.0)
    grazing[(grazing < 0) | (grazing > 5)] = 0
    assert np.mean(sensor_depth(grazing, rng, CAMERA)[grazing > 0] == 0) > 0.8
    hole = wall_at(2.0)
    hole[50:60, 50:60] = 0
    assert not sensor_depth(hole, rng, CAMERA)[50:60, 50:60].any()
    assert (
        sensor_depth(hole, np.random.default_rng(3), CAMERA) == sensor_depth(hole, np.random.default_rng(3), CAMERA)
    ).all()
