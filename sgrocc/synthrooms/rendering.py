"""Drawing a scene with MuJoCo, headless: RGB, depth and labels of a pinhole camera.

Pixels depend on the GL driver; nothing that decides a label or a pose does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from typing import NamedTuple

import numpy as np

from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.synthrooms.scene import Look, Scene, Solid
from sgrocc.synthrooms.textures import make_texture

#: How MuJoCo's ways of drawing without a screen are called, and what each needs.
_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_CURE = "`sudo apt install libegl1 libgl1-mesa-dri`, or libosmesa6 and MUJOCO_GL=osmesa"

#: Light is computed at the corners of cells of this size; smaller things are lit at their own corners.
_CELL_M = 0.35
_ROUND_STEPS = 3
_NEAR_M, _FAR_M = 0.03, 40.0
_SHADOW_MAP_PX = 2048  # with less the borders of shadows on walls have teeth
#: Where things wait that are not in the scene at a frame.
_NOWHERE = (0.0, 0.0, -100.0)


class Drawing(NamedTuple):
    """image: (h, w, 3) uint8; depth: (h, w) float32 metres along z, 0 where there is nothing; label: (h, w) uint8, 0
    where there is nothing, or None where it was not asked for.
    """

    image: np.ndarray
    depth: np.ndarray
    label: np.ndarray | None


def available() -> str | None:
    """None where pictures can be drawn here, else why not, and the cure."""
    try:
        _mujoco()
    except RuntimeError as error:
        return str(error)
    return None


def _mujoco():
    """MuJoCo with a GL library that works. Raises RuntimeError naming the cure."""
    if importlib.util.find_spec("mujoco") is None:
        raise RuntimeError("MuJoCo, which draws the pictures, is not installed: pip install mujoco")
    # MuJoCo takes its GL library when it is imported, once for all: so it is chosen before.
    if "MUJOCO_GL" not in os.environ:
        found = [name for name, files in _LIBRARIES.items() if any(map(_loads, files))]
        if not found:
            raise RuntimeError(f"no OpenGL library that draws without a screen is installed: {_CURE}")
        os.environ["MUJOCO_GL"] = found[0]
    library = os.environ["MUJOCO_GL"]
    try:
        import mujoco

        mujoco.GLContext(16, 16).free()
    except Exception as error:
        raise RuntimeError(f"the OpenGL library {library!r} does not work here ({error}): {_CURE}") from error
    return mujoco


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


class Renderer:
    """Draws a scene for one camera; a context manager. rng: of the appearance alone (textures).

    Raises RuntimeError, naming the cure, where nothing can be drawn.
    """

    def __init__(self, scene: Scene, camera: PinholeCamera, rng: np.random.Generator) -> None:
        self._mj = _mujoco()
        self._scene, self._camera = scene, camera
        self._spec = self._mj.MjSpec()
        self._rng = rng
        self._materials: dict[Look, str] = {}
        self._tiles: dict[str, float | None] = {}
        self._labels: list[int] = []
        self._actors: list[int] = []
        self._set_up()
        world = self._spec.worldbody
        self._add(world, scene.solids, anchored=True)
        for k, actor in enumerate(scene.actors):
            body = world.add_body(name=f"actor{k}", mocap=True, pos=_NOWHERE)
            self._add(body, actor.solids, anchored=False)
        self._model = self._spec.compile()
        self._data = self._mj.MjData(self._model)
        self._renderer = self._mj.Renderer(self._model, camera.height, camera.width, max_geom=20000)
        # Geoms keep their order within a body, and bodies come in the order of the scene.
        self._label_of_geom = np.array([*self._labels, 0], np.uint8)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._renderer.close()

    def draw(self, camera_to_world: Pose, frame: int, labels: bool = False) -> Drawing:
        """The picture from a pose (camera to world) at a frame; with `labels` those of its pixels too."""
        data, renderer = self._data, self._renderer
        for k, actor in enumerate(self._scene.actors):
            pose = actor.placement(frame)
            data.mocap_pos[k] = _NOWHERE if pose is None else pose.translation
            data.mocap_quat[k] = (1.0, 0.0, 0.0, 0.0) if pose is None else pose.quaternion
        self._mj.mj_forward(self._model, data)
        pose = self._scene.world_from_room.inverse() @ camera_to_world
        data.cam_xpos[0] = pose.translation
        # OpenGL's cameras look along -z, with y up.
        data.cam_xmat[0] = (pose.rotation * np.array([1.0, -1.0, -1.0])).ravel()
        renderer.update_scene(data, "eye")
        self._set_frustum()
        image = renderer.render().copy()
        renderer.enable_depth_rendering()
        depth = renderer.render().copy()
        renderer.disable_depth_rendering()
        depth[depth > 0.95 * _FAR_M] = 0.0
        return Drawing(image, depth, self._label_image() if labels else None)

    def _label_image(self) -> np.ndarray:
        self._renderer.enable_segmentation_rendering()
        geom = self._renderer.render()[..., 0]
        self._renderer.disable_segmentation_rendering()
        return self._label_of_geom[geom]

    def _set_frustum(self) -> None:
        """The camera's own intrinsics: its principal point need not be the middle. Pixel centres are whole numbers."""
        c = self._camera
        left, right = (-0.5 - c.cx) / c.fx, (c.width - 0.5 - c.cx) / c.fx
        for eye in self._renderer.scene.camera:
            eye.frustum_near, eye.frustum_far = _NEAR_M, _FAR_M
            eye.frustum_top = (c.cy + 0.5) / c.fy * _NEAR_M
            eye.frustum_bottom = -(c.height - 0.5 - c.cy) / c.fy * _NEAR_M
            eye.frustum_center = (left + right) / 2 * _NEAR_M
            eye.frustum_width = (right - left) / 2 * _NEAR_M

    def _set_up(self) -> None:
        """Light, shadows and the camera."""
        mj, spec, scene, lighting = self._mj, self._spec, self._scene, self._scene.lighting
        visual = spec.visual
        visual.global_.offwidth, visual.global_.offheight = self._camera.width, self._camera.height
        visual.quality.offsamples, visual.quality.shadowsize = 4, _SHADOW_MAP_PX
        spec.stat.extent = 1.0
        visual.map.znear, visual.map.zfar = _NEAR_M, _FAR_M
        rectangles = np.array(scene.rectangles)
        low, high = rectangles[:, :2].min(axis=0), rectangles[:, 2:].max(axis=0)
        middle, reach = (low + high) / 2, float(np.sqrt(((high - low) ** 2).sum())) / 2
        spec.stat.center = (*middle, scene.height_m / 2)
        visual.map.shadowclip, visual.map.shadowscale = reach + 1.0, 1.0
        visual.headlight.ambient = [lighting.ambient] * 3
        visual.headlight.diffuse = visual.headlight.specular = [0.0] * 3
        lamp, window = np.array(lighting.lamp_rgb), np.array(lighting.window_rgb)
        add = spec.worldbody.add_light
        spot, point = mj.mjtLightType.mjLIGHT_SPOT, mj.mjtLightType.mjLIGHT_POINT
        add(
            type=spot,
            pos=lighting.lamp,
            dir=(0, 0, -1),
            cutoff=85,
            exponent=0.6,
            diffuse=0.75 * lamp,
            specular=0.2 * lamp,
            castshadow=True,
        )
        # What walls and floors return of all light, and the light of the sky.
        add(type=point, pos=(*middle, 0.3), diffuse=0.4 * lamp, specular=(0, 0, 0), castshadow=False)
        sun = np.array(lighting.sun_direction, np.float64)
        from_window = np.array([*middle, scene.height_m * 0.6]) - 0.8 * reach * sun * np.array([1.0, 1.0, 0.0])
        add(type=point, pos=from_window, diffuse=0.4 * window, specular=(0.05,) * 3, castshadow=False)
        spec.worldbody.add_camera(name="eye")

    def _add(self, body, solids, anchored: bool) -> None:
        """Boxes of one look and label become one mesh; what is round stays itself."""
        mj = self._mj
        groups: dict[tuple[Look, int], list[Solid]] = {}
        for solid in solids:
            if solid.shape == "box":
                groups.setdefault((solid.look, solid.label), []).append(solid)
        for (look, label), boxes in groups.items():
            material = self._material(look)
            tile = self._tiles[look.texture]
            hidden = _shared_faces(boxes)
            parts = [_box_mesh(box, tile, anchored, hidden) for box in boxes]
            starts = np.cumsum([0, *(len(points) for points, *_ in parts)])
            points, normals, uv = (np.concatenate([part[i] for part in parts]) for i in range(3))
            faces = np.concatenate([part[3] + start for part, start in zip(parts, starts, strict=False)])
            mesh = self._spec.add_mesh(
                name=f"mesh{len(self._labels)}",
                uservert=points.ravel(),
                usernormal=normals.ravel(),
                usertexcoord=uv.ravel(),
                userface=faces.ravel(),
                userfacenormal=faces.ravel(),
                userfacetexcoord=faces.ravel(),
            )
            mesh.inertia = mj.mjtMeshInertia.mjMESH_INERTIA_SHELL
            body.add_geom(type=mj.mjtGeom.mjGEOM_MESH, meshname=mesh.name, material=material, contype=0, conaffinity=0)
            self._labels.append(label)
        for solid in solids:
            if solid.shape == "box":
                continue
            kind = mj.mjtGeom.mjGEOM_ELLIPSOID if solid.shape == "ellipsoid" else mj.mjtGeom.mjGEOM_CYLINDER
            size = solid.half if solid.shape == "ellipsoid" else (solid.half[0], solid.half[2], 0.0)
            body.add_geom(
                type=kind,
                size=size,
                pos=solid.centre,
                quat=Pose(solid.rotation, np.zeros(3)).quaternion,
                material=self._material(solid.look),
                contype=0,
                conaffinity=0,
            )
            self._labels.append(solid.label)

    def _material(self, look: Look) -> str:
        if look in self._materials:
            return self._materials[look]
        if look.texture not in self._tiles:
            image, tile = make_texture(look.texture, self._rng)
            self._tiles[look.texture] = tile
            self._spec.add_texture(
                name=look.texture,
                type=self._mj.mjtTexture.mjTEXTURE_2D,
                width=image.shape[1],
                height=image.shape[0],
                nchannel=3,
                data=image.ravel().tolist(),
            )
        name = f"material{len(self._materials)}"
        material = self._spec.add_material(
            name=name, rgba=(*look.rgb, 1.0), emission=look.emission, specular=look.shine, shininess=0.4
        )
        material.textures[self._mj.mjtTextureRole.mjTEXROLE_RGB] = look.texture
        self._materials[look] = name
        return name


def _shared_faces(boxes: list[Solid]) -> set[tuple[int, ...]]:
    """The faces (see `_face_key`) where one box ends and the next begins, as in a wall of panels: nobody sees them, and
    in the shadow map they would draw dark lines on the wall.
    """
    lower, upper = ({_face_key(box, axis, sign) for box in boxes for axis in range(3)} for sign in (-1.0, 1.0))
    return lower & upper


def _face_key(box: Solid, axis: int, sign: float) -> tuple[int, ...]:
    """What two boxes of one orientation have in common where they meet: the face's middle and edges, in 10 um."""
    middle = box.centre + sign * box.half[axis] * box.rotation[:, axis]
    edges = np.delete(box.half, axis)
    return (axis, *(int(value) for value in np.rint(np.concatenate([middle, edges, box.rotation.ravel()]) * 1e5)))


def _box_mesh(box: Solid, tile_m: float | None, anchored: bool, hidden: set[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
    """(V, 3) points, (V, 3) normals, (V, 2) texture coordinates and (F, 3) corners of a box's triangles.

    tile_m: metres per repeat of its texture, None where one picture covers each face; anchored: the texture lies fixed
    in the room, so that it runs on from one panel to the next; hidden: faces to leave out.
    """
    half, r = box.half, box.rounding_m
    points, normals, uv, faces, count = [], [], [], [], 0
    for axis in range(3):
        b, c = ((1, 2), (0, 2), (0, 1))[axis]
        ticks_b, ticks_c = _ticks(half[b], r), _ticks(half[c], r)
        for sign in (-1.0, 1.0):
            if r == 0 and _face_key(box, axis, sign) in hidden:
                continue
            grid = np.empty((len(ticks_b), len(ticks_c), 3))
            grid[..., axis], grid[..., b], grid[..., c] = sign * half[axis], ticks_b[:, None], ticks_c[None]
            normal = np.zeros_like(grid)
            normal[..., axis] = sign
            if r > 0:
                inner = np.clip(grid, -half + r, half - r)
                normal = grid - inner
                normal /= np.sqrt((normal * normal).sum(axis=-1, keepdims=True))
                grid = inner + r * normal
            placed = grid @ box.rotation.T + box.centre if anchored else grid
            side = -sign if axis == 1 else sign  # pictures read the right way round from outside
            if tile_m is None:
                s, t = side * grid[..., b] / (2 * half[b]) + 0.5, 0.5 - grid[..., c] / (2 * half[c])
            else:
                s, t = placed[..., b] / tile_m, -placed[..., c] / tile_m
            corner = count + np.arange(grid.shape[0] * grid.shape[1]).reshape(grid.shape[:2])
            quad = (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:])
            triangles = [np.stack([quad[i].ravel() for i in ids], axis=1) for ids in ((0, 1, 2), (0, 2, 3))]
            triangles = np.concatenate(triangles)
            faces.append(triangles if side > 0 else triangles[:, ::-1])
            # Rounded, so that corners where panels meet are the same to the last bit and nothing shines through.
            points.append(np.round(grid @ box.rotation.T + box.centre, 5).reshape(-1, 3))
            normals.append((normal @ box.rotation.T).reshape(-1, 3))
            uv.append(np.stack([s, t], axis=-1).reshape(-1, 2))
            count += corner.size
    return np.concatenate(points), np.concatenate(normals), np.concatenate(uv), np.concatenate(faces)


def _ticks(half: float, rounding: float) -> np.ndarray:
    """Where the cells of a face begin and end along one of its edges."""
    inner = np.linspace(-half + rounding, half - rounding, max(2, int(np.ceil(2 * half / _CELL_M)) + 1))
    bend = np.linspace(0.0, rounding, _ROUND_STEPS)[:-1] if rounding > 0 else np.zeros(0)
    return np.unique(np.round(np.concatenate([-half + bend, inner, half - bend]), 7))
