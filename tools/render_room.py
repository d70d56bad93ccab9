#!/usr/bin/env python3
"""Render a furnished room as a posed RGB-D recording with labelled voxel truth.

Everything is made here: the room (boxes, rounded boxes, cylinders, ellipsoids),
its textures (numpy), the camera path and the depth sensor's faults. MuJoCo draws it.

    pip install mujoco numpy pillow
    python3 tools/render_room.py --out recordings/furnished_room

Drawing needs no display: MUJOCO_GL is osmesa (libosmesa6) unless set to egl (libegl1).

World: z up, floor at z = 0, metres. Camera: x right, y down, z forward; poses are
camera to world; pixel centres are at whole numbers (the principal point is 319.5, 239.5).
"""
import argparse
import os
import pathlib

GL = os.environ.setdefault("MUJOCO_GL", "osmesa")
try:
    import mujoco  # loads the GL library too
    import numpy as np
    from PIL import Image
except Exception as error:
    raise SystemExit(
        f"MuJoCo, Pillow or the GL library ({GL}) does not load ({error}); `pip install mujoco numpy pillow` and "
        "`apt-get install libosmesa6` cure it (or libegl1 with MUJOCO_GL=egl)."
    ) from None

FREE, CEILING, FLOOR, WALL, WINDOW, CHAIR, BED, SOFA, TABLE, TV, FURNITURE, OBJECT = range(12)
UNKNOWN = 255
W, H, FOCAL, RATE, RES = 640, 480, 525.0, 10.0, 0.08
X0, X1, Y0, Y1, Z1 = -2.6, 3.4, -1.88, 2.6, 2.6         # inside of the room
CLOSET_X, CLOSET_Y = 2.6, -0.6                          # the walled-off corner that makes it L-shaped
DISPARITY_STEP = 0.00287                                # 1/m: an eighth of a pixel at f = 580, 75 mm base: 3 mm at 1 m
MIN_CLEARANCE, MAX_SPEED, MAX_TURN = 0.4, 0.5, 40.0     # metres, m/s, deg/s


# ---------------------------------------------------------------- textures
def noise(rng, n, sx, sy=None):
    """Tileable smooth noise, n x n, unit deviation; sx, sy: correlation lengths in pixels."""
    f = np.fft.fftfreq(n)
    blur = np.exp(-2 * (np.pi * f[None] * sx) ** 2 - 2 * (np.pi * f[:, None] * (sy or sx)) ** 2)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * blur).real
    return field / field.std()


def textures(rng, n=512):
    """Name -> (image, metres per repeat; None fits it to each face). Grey ones are tinted by their material."""
    v, u = np.mgrid[0:n, 0:n] / n

    def grey(g):
        return np.repeat(np.clip(g, 0, 1)[..., None], 3, 2)

    def ramp(t, *stops):
        at = np.linspace(0, 1, len(stops))
        return np.stack([np.interp(t, at, [s[k] for s in stops]) for k in range(3)], 2)

    out = {}
    out["plain"] = grey(0.97 + 0.01 * noise(rng, n, 3)), 0.5
    out["plaster"] = grey(0.94 + 0.014 * noise(rng, n, 2) + 0.010 * noise(rng, n, 40)), 1.4
    grain = 0.6 * noise(rng, n, 60, 1.5) + 0.5 * np.sin(40 * v * np.pi + 3 * noise(rng, n, 70, 12))
    out["wood"] = grey(0.80 + 0.075 * grain), 0.8
    row = (v * 10).astype(int)
    shift = np.array([0.0, .37, .71, .16, .55, .88, .29, .63, .05, .44])[row]
    plank = row * 2 + (((u + shift) % 1) > 0.5)
    tone = rng.uniform(0.2, 0.8, 20)[plank] + 0.13 * noise(rng, n, 40, 1.2)
    gap = ((v * 10) % 1 < 0.035) | (((u + shift) % 0.5) < 0.004)
    boards = ramp(tone, (.40, .25, .14), (.56, .37, .21), (.70, .50, .31))
    out["planks"] = boards * np.where(gap, 0.6, 1)[..., None], 1.5
    weave = np.sin(u * 2 * np.pi * 64) * np.sin(v * 2 * np.pi * 64)
    out["fabric"] = grey(0.86 + 0.05 * weave + 0.035 * noise(rng, n, 2) + 0.03 * noise(rng, n, 30)), 0.6
    check = ((u * 8 % 2 < 1).astype(int) + (v * 8 % 2 < 1)) / 2
    plaid = ramp(check, (.55, .16, .14), (.74, .42, .30), (.93, .86, .74))
    out["plaid"] = plaid * (0.95 + 0.05 * weave)[..., None], 0.5
    diamond = (np.abs((u * 6) % 1 - 0.5) + np.abs((v * 4) % 1 - 0.5))
    edge = np.minimum(np.minimum(u, 1 - u) * 1.5, np.minimum(v, 1 - v))
    rug = ramp(np.clip(diamond, 0, 1), (.80, .66, .42), (.60, .20, .17), (.17, .22, .36))
    rug[edge < 0.13] = (.20, .26, .40)
    rug[(edge > 0.04) & (edge < 0.065)] = (.85, .74, .55)
    out["rug"] = rug * (0.9 + 0.05 * noise(rng, n, 1.5))[..., None], None
    sky = ramp(v + 0.05 * noise(rng, n, 50, 18), (.50, .72, .97), (.80, .91, 1.0), (.97, .98, 1.0))
    hill = v > 0.62 + 0.06 * np.sin(5 * u + 1) + 0.02 * np.sin(23 * u)
    sky[hill] = ramp(v + 0.04 * noise(rng, n, 6), (.45, .66, .35), (.50, .72, .38), (.33, .55, .27))[hill]
    for cx, r in ((0.16, .12), (0.31, .08), (0.83, .15)):
        tree = (u - cx) ** 2 + (v - .58) ** 2 < (r + 0.008 * noise(rng, n, 8)) ** 2
        sky[tree] = ramp(0.5 + 0.2 * noise(rng, n, 5), (.16, .38, .17), (.36, .58, .27))[tree]
    out["outside"] = sky, None
    sea = ramp(v + 0.03 * noise(rng, n, 60, 5), (.95, .62, .36), (.93, .80, .62), (.19, .42, .55), (.08, .20, .33))
    sea[(u - .66) ** 2 + (v - .36) ** 2 < .008] = (1, .93, .70)
    sea[(v > .62 - .35 * np.clip(.45 - u, 0, 1) - .015 * np.sin(30 * u)) & (u < .45) & (v < .66)] = (.20, .17, .24)
    out["seascape"] = sea, None
    a, b = noise(rng, n, 60), noise(rng, n, 45)
    fields = np.round(3 * np.clip(.5 + .28 * a, 0, 1)) / 3 + .1 * (b > 0.6)
    out["abstract"] = ramp(fields, (.12, .22, .35), (.85, .45, .25), (.93, .84, .66), (.30, .50, .45)), None
    gleam = np.clip(.55 - .6 * (u - .2) * (1.1 - v) + .02 * a, 0, 1)
    out["screen"] = ramp(gleam, (.16, .18, .21), (.055, .06, .075), (.02, .02, .03)), None
    tape = np.where(np.abs(v - .5) < .05, 0.86, 1.0)[..., None]
    out["cardboard"] = ramp(0.5 + .08 * noise(rng, n, 50, 1.5), (.58, .42, .26), (.72, .55, .36)) * tape, None
    return {k: (np.uint8(np.clip(img, 0, 1) * 255), tile) for k, (img, tile) in out.items()}


# ---------------------------------------------------------------- scene
def turn(axis, degrees):
    a, (i, j) = np.radians(degrees), {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    r = np.eye(3)
    r[i, i] = r[j, j] = np.cos(a)
    r[j, i], r[i, j] = np.sin(a), -np.sin(a)
    return r


def box_mesh(half, r, tile):
    """A box with edges rounded by r, cut into cells of about 12 cm (light is computed per vertex)."""
    def ticks(h):
        inner = np.linspace(-h + r, h - r, max(2, int(np.ceil((h - r) / 0.06)) + 1))
        bend = np.linspace(0, r, 5)[:-1] if r else []
        return np.unique(np.round(np.concatenate([-h + np.asarray(bend), inner, h - np.asarray(bend)]), 6))

    points, normals, uv, faces = [], [], [], []
    for axis in range(3):
        b, c = [(1, 2), (0, 2), (0, 1)][axis]
        for sign in (-1, 1):
            tb, tc = ticks(half[b]), ticks(half[c])
            g = np.zeros((len(tb), len(tc), 3))
            g[..., b], g[..., c], g[..., axis] = tb[:, None], tc[None], sign * half[axis]
            inner = np.clip(g, -half + r, half - r)
            n = g - inner if r else np.eye(3)[axis] * sign * np.ones_like(g)
            n = n / np.linalg.norm(n, axis=2, keepdims=True)
            side = -sign if axis == 1 else sign             # pictures read the right way round from outside
            s, t = (half[b] * 2, half[c] * 2) if tile is None else (tile, tile)
            uv.append(np.stack([side * g[..., b] / s + 0.5, 0.5 - g[..., c] / t], 2).reshape(-1, 2))
            k = sum(map(len, points)) + np.arange(g.shape[0] * g.shape[1]).reshape(g.shape[:2])
            q = [k[:-1, :-1], k[1:, :-1], k[1:, 1:], k[:-1, 1:]]
            tri = np.concatenate([np.stack([q[i].ravel() for i in ids], 1) for ids in ((0, 1, 2), (0, 2, 3))])
            faces.append(tri if side > 0 else tri[:, ::-1])
            points.append((inner + r * n if r else g).reshape(-1, 3))
            normals.append(n.reshape(-1, 3))
    return [np.concatenate(a) for a in (points, normals, uv, faces)]


class Room:
    """Primitives (kind, half sizes, centre, rotation, rounding, label), drawn by MuJoCo and kept as exact geometry."""

    def __init__(self, rng):
        self.rng, self.prims, self.spec = rng, [], mujoco.MjSpec()
        self.images, self.materials = textures(rng), {}
        for name, (img, _) in self.images.items():
            self.spec.add_texture(
                name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=img.shape[1], height=img.shape[0], nchannel=3,
                data=img.ravel().tolist())
        self.at()

    def at(self, x=0.0, y=0.0, z=0.0, yaw=0.0):
        """What follows is placed relative to this point and heading."""
        self.base, self.heading = np.array([x, y, z]), turn("z", yaw)

    def material(self, look):
        tex, rgb, glow, shine = (tuple(look) + ((1, 1, 1), 0.0, 0.05)[len(look) - 1:])
        if (tex, rgb, glow) not in self.materials:
            m = self.spec.add_material(
                name=f"m{len(self.materials)}", rgba=[*rgb, 1], emission=glow, specular=shine, shininess=0.4)
            m.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = tex
            self.materials[tex, rgb, glow] = m.name
        return self.materials[tex, rgb, glow]

    def add(self, kind, label, look, centre, half, rot=None, r=0.0):
        half, rot = np.asarray(half, float), self.heading @ (np.eye(3) if rot is None else rot)
        centre, quat = self.base + self.heading @ np.asarray(centre, float), np.zeros(4)
        mujoco.mju_mat2Quat(quat, rot.ravel())
        args = dict(pos=centre, quat=quat, material=self.material(look))
        if kind == "box":
            p, n, uv, f = box_mesh(half, r, self.images[look[0]][1])
            p, n, uv, f = (m.ravel() for m in (p, n, uv, f))
            mesh = self.spec.add_mesh(
                name=f"b{len(self.prims)}", uservert=p, usernormal=n, usertexcoord=uv,
                userface=f, userfacenormal=f, userfacetexcoord=f)
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
            self.spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh.name, **args)
        else:
            shape, size = mujoco.mjtGeom.mjGEOM_ELLIPSOID, half
            if kind == "cyl":
                shape, size = mujoco.mjtGeom.mjGEOM_CYLINDER, [half[0], half[2], 0]
            self.spec.worldbody.add_geom(type=shape, size=size, **args)
        self.prims.append((kind, half, centre, rot, r, label, look[0]))

    def box(self, label, look, x, y, z, r=0.0):
        span = np.array([x, y, z], float)
        self.add("box", label, look, span.mean(1), (span[:, 1] - span[:, 0]) / 2, r=r)

    def cyl(self, label, look, x, y, z, radius, axis="z"):
        """An upright cylinder from z[0] to z[1]; with axis x or y it lies, centred at x, y, z[0], z[1] long."""
        if axis == "z":
            return self.add("cyl", label, look, (x, y, sum(z) / 2), (radius, radius, (z[1] - z[0]) / 2))
        self.add("cyl", label, look, (x, y, z[0]), (radius, radius, z[1] / 2), turn("y" if axis == "x" else "x", 90))

    def ball(self, label, look, centre, half, rot=None):
        self.add("ell", label, look, centre, np.broadcast_to(half, 3), rot)


def distance(prim, points):
    """Signed distance (ellipsoids: a close estimate) of world points to a primitive, negative inside."""
    kind, half, centre, rot, r = prim[:5]
    p = (points - centre) @ rot
    if kind == "ell":
        k0, k1 = np.linalg.norm(p / half, axis=-1), np.linalg.norm(p / half ** 2, axis=-1)
        near, far = k0 * (k0 - 1) / np.maximum(k1, 1e-9), np.linalg.norm(p, axis=-1) - half.max()
        return np.where(k1 > 0, np.maximum(near, far), -half.min())
    if kind == "cyl":
        q = np.stack([np.hypot(p[..., 0], p[..., 1]) - half[0], np.abs(p[..., 2]) - half[2]], -1)
    else:
        q = np.abs(p) - half + r
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - r


def furnish(room):
    box, cyl, ball, rng = room.box, room.cyl, room.ball, room.rng
    oak, walnut = ("wood", (.86, .66, .42)), ("wood", (.52, .34, .22))
    white, black = ("plain", (.93, .92, .89)), ("plain", (.07, .07, .08), 0.0, .4)
    steel = ("plain", (.62, .63, .65), 0.0, .7)
    cream, sage, d = ("plaster", (.97, .92, .82)), ("plaster", (.66, .76, .66)), 0.12
    # shell: floor, ceiling, walls; the north wall (y = Y1) leaves a hole for the window
    wx, wz = (1.55, 2.95), (0.92, 2.08)
    box(FLOOR, ("planks", (1, 1, 1), 0.0, .15), (X0 - d, X1 + d), (Y0 - d, Y1 + d), (-0.08, 0))
    box(CEILING, ("plaster", (1, 1, .98), 0.2), (X0 - d, X1 + d), (Y0 - d, Y1 + d), (Z1, Z1 + d))
    box(WALL, sage, (X0 - d, X0), (Y0, Y1), (0, Z1))
    box(WALL, cream, (X1, X1 + d), (Y0, Y1), (0, Z1))
    box(WALL, cream, (X0 - d, X1 + d), (Y0 - d, Y0), (0, Z1))
    for x, z in (((X0 - d, wx[0]), (0, Z1)), ((wx[1], X1 + d), (0, Z1)), (wx, (0, wz[0])), (wx, (wz[1], Z1))):
        box(WALL, cream, x, (Y1, Y1 + d), z)
    box(WALL, ("plaster", (.88, .74, .60)), (CLOSET_X, X1), (Y0, CLOSET_Y), (0, Z1))
    t = .015
    for x, y in (((X0, X1), (Y1 - t, Y1)), ((X0, X0 + t), (Y0, Y1)), ((X1 - t, X1), (CLOSET_Y, Y1)),
                 ((X0, -2.11), (Y0, Y0 + t)), ((-1.09, CLOSET_X), (Y0, Y0 + t)),
                 ((CLOSET_X - t, CLOSET_X), (Y0, CLOSET_Y)), ((CLOSET_X - t, X1), (CLOSET_Y, CLOSET_Y + t))):
        box(WALL, white, x, y, (0, .09))                                                    # skirting boards
    # window with curtains
    box(WINDOW, ("outside", (1, 1, 1), 0.9), wx, (Y1 + .06, Y1 + d), wz)
    for x, z in (((wx[0], wx[0] + .05), wz), ((wx[1] - .05, wx[1]), wz), ((2.22, 2.28), wz),
                 (wx, (wz[0], wz[0] + .05)), (wx, (wz[1] - .05, wz[1])), ((wx[0], 2.25), (1.72, 1.75))):
        box(WINDOW, white, x, (Y1 + .02, Y1 + .06), z)
    box(WINDOW, white, (wx[0] + .06, wx[1] - .02), (Y1 - .10, Y1), (wz[0] - .04, wz[0]))
    cyl(OBJECT, walnut, 2.25, Y1 - .08, (2.26, 2.0), .014, "x")
    for x in (1.32, 3.18):
        box(OBJECT, walnut, (x - .01, x + .01), (Y1 - .08, Y1), (2.25, 2.27))
    for x in np.concatenate([np.arange(1.30, 1.56, .052), np.arange(2.98, 3.24, .052)]):
        cyl(OBJECT, ("fabric", (.86, .55, .30)), x, Y1 - .08 + .012 * rng.uniform(-1, 1), (.06, 2.30), .034)
    # door in the south wall, light switch beside it
    for x, z in (((-2.11, -2.03), (0, 2.12)), ((-1.17, -1.09), (0, 2.12)), ((-2.03, -1.17), (2.04, 2.12))):
        box(WALL, white, x, (Y0, Y0 + .03), z)
    box(WALL, ("wood", (.70, .50, .34)), (-2.03, -1.17), (Y0, Y0 + .012), (0, 2.04))
    for z in ((.15, .85), (1.05, 1.90)):
        box(WALL, ("wood", (.62, .43, .28)), (-1.90, -1.30), (Y0, Y0 + .022), z)
    cyl(WALL, steel, -1.27, Y0 + .035, (1.0, .05), .011, "y")
    cyl(WALL, steel, -1.32, Y0 + .055, (1.0, .12), .010, "x")
    box(OBJECT, white, (-.98, -.90), (Y0, Y0 + .012), (1.08, 1.16))
    # rug, ceiling lamp
    box(FLOOR, ("rug",), (-.50, 1.70), (-.72, .75), (0, .004))
    cyl(OBJECT, ("plain", (1, .97, .88), 0.9), .45, .45, (Z1 - .07, Z1), .20)
    # bed, its head at the west wall
    room.at(X0 + .02, 1.80)
    box(BED, walnut, (0, .06), (-.76, .76), (.0, 1.02))
    box(BED, walnut, (.06, 2.06), (-.74, .74), (.12, .30))
    for x, y in ((.10, -.70), (.10, .64), (1.96, -.70), (1.96, .64)):
        box(BED, walnut, (x, x + .06), (y, y + .06), (0, .12))
    box(BED, ("fabric", (.95, .94, .91)), (.07, 2.04), (-.71, .71), (.30, .50), .04)
    box(BED, ("fabric", (.36, .50, .66)), (.62, 2.07), (-.74, .74), (.33, .555), .05)
    box(BED, ("plaid",), (1.35, 1.85), (-.75, .75), (.335, .58), .035)
    for y, tone in ((-.66, (.97, .96, .93)), (.06, (.80, .86, .92))):
        box(BED, ("fabric", tone), (.09, .50), (y, y + .60), (.49, .63), .065)
    # night table and lamp
    room.at(X0 + .02, .72)
    box(FURNITURE, walnut, (0, .38), (-.20, .20), (.06, .48))
    for z in ((.09, .26), (.29, .46)):
        box(FURNITURE, ("wood", (.64, .44, .29)), (.38, .392), (-.18, .18), z)
        cyl(FURNITURE, steel, .40, 0, (sum(z) / 2, .10), .010, "y")
    for x, y in ((.03, -.17), (.03, .13), (.31, -.17), (.31, .13)):
        box(FURNITURE, walnut, (x, x + .04), (y, y + .04), (0, .06))
    cyl(OBJECT, ("plain", (.25, .42, .45), 0.0, .5), .18, .05, (.48, .50), .07)
    cyl(OBJECT, ("plain", (.25, .42, .45), 0.0, .5), .18, .05, (.50, .70), .022)
    cyl(OBJECT, ("fabric", (1, .92, .74), 0.55), .18, .05, (.68, .88), .12)
    box(OBJECT, ("plain", (.70, .22, .20)), (.06, .20), (-.18, -.08), (.48, .51))
    # bookcase at the west wall
    room.at(X0 + .02, -.62)
    box(FURNITURE, oak, (0, .015), (-.60, .60), (0, 1.90))
    for y in (-.60, .0, .57):
        box(FURNITURE, oak, (.015, .32), (y, y + .03), (0, 1.90))
    levels = (.06, .44, .80, 1.16, 1.52, 1.87)
    for z in levels:
        box(FURNITURE, oak, (.015, .31), (-.57, .57), (z, z + .03))
    spines = [(.62, .18, .16), (.17, .32, .50), (.82, .62, .22), (.20, .42, .30), (.88, .84, .74),
              (.36, .22, .40), (.15, .15, .18), (.74, .42, .26)]
    for level, z in enumerate(levels[:-1]):
        for side, y in enumerate((-.565, .035)):
            end = y + (.50 if (level + side) % 3 else .27)
            while level and y < end:
                w = rng.uniform(.022, .05)
                spine, deep, tall = spines[rng.integers(8)], rng.uniform(.16, .24), rng.uniform(.19, .29)
                box(OBJECT, ("plain", spine), (.03, .03 + deep), (y, y + w - .001), (z + .03, z + .03 + tall))
                y += w
    cyl(OBJECT, ("plain", (.80, .45, .32)), .16, -.13, (1.19, 1.37), .055)
    ball(OBJECT, ("plain", (.25, .45, .55)), (.16, .42, 1.63), .08)
    for y in (-.56, .04):
        box(OBJECT, ("fabric", (.70, .60, .46)), (.03, .29), (y, y + .51), (.09, .36), .01)  # storage baskets
    # television on a low cabinet at the north wall, opposite the sofa
    room.at(.45, Y1 - .02)
    box(FURNITURE, oak, (-.72, .72), (-.38, 0), (.08, .46))
    for x in (-.70, -.225, .25):
        box(FURNITURE, white, (x, x + .45), (-.396, -.38), (.10, .44))
        cyl(FURNITURE, steel, x + .225, -.402, (.38, .12), .008, "x")
    for x, y in ((-.68, -.36), (.62, -.36), (-.68, -.08), (.62, -.08)):
        box(FURNITURE, oak, (x, x + .06), (y, y + .06), (0, .08))
    box(TV, black, (-.22, .22), (-.28, -.10), (.46, .475))
    box(TV, black, (-.04, .04), (-.19, -.15), (.475, .56))
    box(TV, black, (-.56, .56), (-.20, -.15), (.55, 1.20), .01)
    box(TV, ("screen", (1, 1, 1), 0.5, .6), (-.54, .54), (-.205, -.20), (.575, 1.18))
    box(OBJECT, ("wood", (.30, .20, .15)), (-.69, -.59), (-.26, -.08), (.46, .66))
    cyl(OBJECT, ("plain", (.85, .83, .78)), .64, -.20, (.46, .60), .05)
    for k in range(9):
        at = .64 + .035 * np.cos(k * 2.4), -.20 + .035 * np.sin(k * 2.4), .64 + .008 * k
        ball(OBJECT, ("plain", (.28, .55, .26)), at, (.018, .018, .06), turn("z", k * 137) @ turn("y", 28))
    # sofa at the south wall
    room.at(.75, Y0 + .02)
    cloth, soft = ("fabric", (.33, .43, .47)), ("fabric", (.38, .49, .53))
    box(SOFA, cloth, (-.98, .98), (0, .86), (.10, .30), .03)
    box(SOFA, cloth, (-.98, .98), (0, .24), (.28, .82), .06)
    for x in (-.98, .78):
        box(SOFA, cloth, (x, x + .20), (0, .86), (.10, .60), .06)
        for y in (.04, .74):
            box(SOFA, walnut, (x + .06, x + .14), (y, y + .08), (0, .11))
    for x in (-.775, .005):
        box(SOFA, soft, (x, x + .77), (.22, .88), (.29, .45), .05)
        box(SOFA, soft, (x + .02, x + .75), (.20, .40), (.44, .86), .07)
    for x, tone, lean in ((-.56, (.88, .58, .22), 8), (.56, (.80, .36, .28), -12)):
        room.at(.75 + x, Y0 + .51, yaw=lean)
        box(OBJECT, ("fabric", tone), (-.20, .20), (-.06, .08), (.445, .82), .065)
    # table with four chairs below the window
    room.at(2.25, 1.36)
    box(TABLE, oak, (-.64, .64), (-.40, .40), (.70, .74), .008)
    box(TABLE, oak, (-.56, .56), (-.32, .32), (.63, .70))
    for x, y in ((-.60, -.36), (.54, -.36), (-.60, .30), (.54, .30)):
        box(TABLE, oak, (x, x + .06), (y, y + .06), (0, .70))
    cyl(OBJECT, ("plain", (.86, .30, .22), 0.0, .5), -.32, -.18, (.74, .835), .04)
    cyl(OBJECT, ("plain", (.16, .10, .07)), -.32, -.18, (.835, .837), .034)
    box(OBJECT, ("plain", (.20, .34, .55)), (-.02, .20), (-.30, -.14), (.74, .775))
    box(OBJECT, ("plain", (.90, .82, .55)), (.0, .19), (-.29, -.15), (.775, .80))
    cyl(OBJECT, ("plain", (.90, .90, .93), 0.0, .6), .15, .12, (.74, .80), .14)
    for k, tone in enumerate(((.85, .22, .15), (.93, .62, .14), (.55, .70, .22), (.90, .48, .12))):
        ball(OBJECT, ("plain", tone), (.15 + .06 * np.cos(k * 1.57), .12 + .06 * np.sin(k * 1.57), .83), .04)
    for x, y, yaw in ((-.30, -.42, 3), (.31, -.46, -6), (-.30, .40, 178), (.31, .41, 184)):
        room.at(2.25 + x, 1.36 + y, yaw=yaw)                       # local: the seat faces +y, the back is at -y
        for lx in (-.20, .16):
            box(CHAIR, walnut, (lx, lx + .04), (.14, .18), (0, .43))
            box(CHAIR, walnut, (lx, lx + .04), (-.22, -.18), (0, .90))
        box(CHAIR, ("fabric", (.72, .30, .24)), (-.20, .20), (-.18, .20), (.43, .48), .02)
        for z in ((.56, .64), (.78, .88)):
            box(CHAIR, walnut, (-.16, .16), (-.215, -.185), z)
    # plant in the corner by the closet
    room.at(3.08, -.26)
    cyl(OBJECT, ("plain", (.76, .44, .30)), 0, 0, (0, .34), .16)
    cyl(OBJECT, ("plain", (.22, .15, .10)), 0, 0, (.34, .345), .145)
    cyl(OBJECT, ("wood", (.40, .30, .18)), 0, 0, (.345, 1.12), .018)
    for k in range(46):
        z, a = .55 + .013 * k, k * 137.5
        reach = .15 - .08 * abs(k - 18) / 28
        way = turn("z", a) @ turn("y", -25 - k * .7)
        tint = (.16 + .12 * rng.random(), .42 + .2 * rng.random(), .16)
        at = way @ [reach, 0, 0] + [0, 0, z]
        ball(OBJECT, ("plain", tuple(np.round(tint, 1))), at, (reach, .048, .008), way)
    # floor lamp, box, ball, pictures
    def inset(s):  # along the wall: within the frame; across it: a skin on the frame's face
        if s[1] - s[0] > .1:
            return s[0] + .04, s[1] - .04
        return (s[1], s[1] + .003) if s[0] < 0 else (s[0] - .003, s[0])

    room.at(2.14, -1.55)
    cyl(OBJECT, black, 0, 0, (0, .025), .14)
    cyl(OBJECT, steel, 0, 0, (.025, 1.42), .014)
    cyl(OBJECT, ("fabric", (1, .90, .70), 0.6), 0, 0, (1.38, 1.66), .17)
    room.at(3.10, .42, yaw=82)
    box(OBJECT, ("cardboard",), (-.22, .22), (-.16, .16), (0, .30))
    room.at()
    ball(OBJECT, ("plaid", (1, .9, .5)), (-.30, .60, .114), .11)
    for art, x, y, z, frame in (
            ("seascape", (.30, 1.20), (Y0, Y0 + .025), (1.25, 1.85), black),
            ("abstract", (X0, X0 + .025), (1.50, 2.10), (1.32, 2.07), oak),
            ("abstract", (-1.75, -1.15), (Y1 - .025, Y1), (1.25, 1.65), white),
            ("seascape", (X1 - .025, X1), (.55, 1.10), (1.3, 1.7), walnut)):
        box(OBJECT, frame, x, y, z)
        box(OBJECT, (art,), inset(x), inset(y), (z[0] + .04, z[1] - .04))


def compile_model(room):
    spec, light = room.spec, room.spec.worldbody.add_light
    g = spec.visual
    g.global_.offwidth, g.global_.offheight, g.global_.fovy = 2 * W, 2 * H, np.degrees(2 * np.arctan(H / 2 / FOCAL))
    g.quality.offsamples, g.quality.shadowsize, g.map.znear, g.map.zfar = 0, 4096, 0.02, 3.0
    g.map.shadowclip, g.map.shadowscale = 1.0, 1.0
    g.headlight.ambient, g.headlight.diffuse, g.headlight.specular = [.45] * 3, [0] * 3, [0] * 3
    spec.stat.extent, spec.stat.center = 5.0, [.4, .36, 1.3]
    spot, far = mujoco.mjtLightType.mjLIGHT_SPOT, mujoco.mjtLightType.mjLIGHT_POINT
    light(type=spot, pos=[.45, .45, Z1 - .10], dir=[0, 0, -1], cutoff=80, exponent=.9, diffuse=[.72, .69, .62],
          specular=[.25] * 3, castshadow=True)
    # daylight, and the light that the floor and the walls return
    for pos, tone in (((2.2, 2.1, 1.6), (.25, .28, .32)), ((.4, .3, .15), (.36, .34, .31)),
                      ((-1.5, -1.2, 1.7), (.22, .21, .19))):
        light(type=far, pos=pos, diffuse=tone, specular=[0] * 3, castshadow=False)
    spec.worldbody.add_camera(name="eye", fovy=g.global_.fovy)
    return spec.compile()


# ---------------------------------------------------------------- camera path
def path(frames):
    """Camera poses at RATE: straight pieces between keys, smoothed, with a little sway; the speed is checked."""
    keys = np.array([  # s, x, y, z, yaw (0 looks along +x, 90 along +y), pitch (up is positive)
        [0.0, 1.40, -.30, 1.35, 216, -15], [1.3, 1.20, -.06, 1.40, 186, -18],
        [2.6, .90, .16, 1.30, 152, -13], [3.6, .60, .26, 1.12, 126, -15],
        [4.7, .25, .28, .88, 97, -13], [6.0, -.16, .18, .96, 63, 18],
        [7.2, -.56, -.02, 1.22, 31, -15], [8.2, -.88, -.24, 1.38, 2, -20],
        [9.1, -1.12, -.44, 1.44, -25, -15], [9.9, -1.28, -.58, 1.44, -42, 4]])
    t = np.arange(-2, 12, 0.02)
    raw = np.stack([np.interp(t, keys[:, 0], keys[:, k]) for k in range(1, 6)], 1)
    kernel = np.exp(-0.5 * (np.arange(-50, 51) * 0.02 / 0.33) ** 2)
    smooth = np.stack([np.convolve(raw[:, k], kernel / kernel.sum(), "same") for k in range(5)], 1)
    when = np.arange(frames) / RATE * min(1.0, 99 / max(frames - 1, 1))    # more frames than 100: the same path, slower
    s = np.stack([np.interp(when, t, smooth[:, k]) for k in range(5)], 1)
    s[:, 2] += 0.006 * np.sin(2 * np.pi * 0.9 * when)
    s[:, 4] += 0.35 * np.sin(2 * np.pi * 0.7 * when)
    roll = 0.8 * np.sin(2 * np.pi * 0.45 * when + 1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    optical = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)         # camera axes in a body with x forward, z up
    for i, (x, y, z, yaw, pitch) in enumerate(s):
        poses[i, :3, :3] = turn("z", yaw) @ turn("y", -pitch) @ turn("x", roll[i]) @ optical
        poses[i, :3, 3] = x, y, z
    step = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) * RATE
    cosine = (np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3]) - 1) / 2
    spin = np.degrees(np.arccos(np.clip(cosine, -1, 1))) * RATE
    if frames > 1 and (step.max() > MAX_SPEED or spin.max() > MAX_TURN):
        raise SystemExit(f"the path is too fast: {step.max():.2f} m/s, {spin.max():.1f} deg/s")
    return poses


# ---------------------------------------------------------------- depth sensor
def rays():
    v, u = np.mgrid[0:H, 0:W].astype(float)
    return np.stack([(u - (W - 1) / 2) / FOCAL, (v - (H - 1) / 2) / FOCAL, np.ones((H, W))], -1)


def blobs(rng, cell):
    """Smooth noise over the image, unit deviation, about `cell` pixels per blob."""
    small = rng.standard_normal((H // cell + 3, W // cell + 3)).astype(np.float32)
    big = np.asarray(Image.fromarray(small).resize(((W // cell + 3) * cell, (H // cell + 3) * cell), Image.BICUBIC))
    return big[cell:cell + H, cell:cell + W] / big.std()


def sense(z, glassy, rng, ray):
    """Exact depth (metres) -> what a sensor returns (uint16 millimetres, 0 = nothing)."""
    p = ray * z[..., None]
    normal = np.cross(np.gradient(p, axis=1), np.gradient(p, axis=0))
    normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)
    facing = np.abs((normal * p).sum(2)) / np.linalg.norm(p, axis=2)
    invd = 1 / z                         # planes are linear in 1/z, so its second difference finds edges only
    edge = np.zeros((H, W), bool)
    for axis in (0, 1):
        ahead, back = np.roll(invd, -1, axis) - invd, invd - np.roll(invd, 1, axis)
        edge |= (np.abs(ahead - back) * z > 0.02) & (np.maximum(np.abs(ahead), np.abs(back)) * z > 0.025)
    step = DISPARITY_STEP * z ** 2       # the noise has a smooth part and a part from the disparity's steps
    smooth = np.sqrt(np.maximum((0.0012 * z ** 2 + 0.002) ** 2 - step ** 2 / 12, 0)) * blobs(rng, 20)
    noisy = 1 / (np.round(1 / (z + smooth) / DISPARITY_STEP) * DISPARITY_STEP)
    bad = edge | (facing < 0.10 + 0.03 * blobs(rng, 12)) | (glassy & (blobs(rng, 12) > -0.25))
    bad |= (noisy < 0.3) | (noisy > 5.0)
    return np.where(bad, 0, np.round(noisy * 1000)).astype(np.uint16)


# ---------------------------------------------------------------- voxel truth
def solid_voxels(prims):
    """Fill the primitives on a 1 cm lattice; a voxel is solid if 1/8 of it is, with its most frequent label."""
    lo = np.floor((np.array([X0, Y0, 0]) - 0.08) / RES - 1e-6).astype(int)
    lo[2] = -1
    shape = np.ceil((np.array([X1, Y1, Z1]) + 0.08) / RES + 1e-6).astype(int) - lo
    fine = np.zeros(shape * 8, np.uint8)
    for prim in prims:
        _, half, centre, rot, _, label, _ = prim
        reach = np.abs(rot) @ half
        a = np.maximum(np.floor((centre - reach) * 100).astype(int) - lo * 8, 0)
        b = np.minimum(np.ceil((centre + reach) * 100).astype(int) + 1 - lo * 8, fine.shape)
        for i in range(a[0], b[0], 50):               # slabs keep the memory small
            stop = min(i + 50, b[0])
            spans = (i, stop), (a[1], b[1]), (a[2], b[2])
            axes = [(np.arange(s, e) + 0.5) / 100 + lo[k] * RES for k, (s, e) in enumerate(spans)]
            view = fine[i:stop, a[1]:b[1], a[2]:b[2]]
            view[distance(prim, np.stack(np.meshgrid(*axes, indexing="ij"), -1)) < 0] = label
    cells = fine.reshape(shape[0], 8, shape[1], 8, shape[2], 8)
    counts = np.stack([(cells == k).sum((1, 3, 5), dtype=np.int16) for k in range(12)])
    filled = counts[1:].sum(0) >= 64
    return np.where(filled, counts[1:].argmax(0) + 1, FREE).astype(np.uint8), lo * RES


def observe(seen, labels, origin, depth, pose, ray):
    """Mark what this frame's depth shows: free voxels in front of it, solid ones on it or up to 0.12 m behind."""
    centres = (np.stack(np.indices(labels.shape), -1).reshape(-1, 3) + 0.5) * RES + origin
    p = (centres - pose[:3, 3]) @ pose[:3, :3]
    q = np.round(p[:, :2] / np.maximum(p[:, 2:], 1e-6) * FOCAL + [(W - 1) / 2, (H - 1) / 2]).astype(int)
    u, v = q.T
    ok = (p[:, 2] > 0.05) & (u >= 0) & (u < W) & (v >= 0) & (v < H)
    d = np.zeros(len(p))
    d[ok] = depth[v[ok], u[ok]] / 1000
    behind, solid = p[:, 2] - d, labels.ravel() != FREE
    seen |= ((d > 0) & np.where(solid, np.abs(behind) <= 0.12, behind < 0)).reshape(labels.shape)
    hits = (ray * (depth / 1000.0)[..., None])[depth > 0] @ pose[:3, :3].T + pose[:3, 3]
    for shift in 0.015 * np.concatenate([np.eye(3), -np.eye(3)]):  # a surface on a voxel's face touches both sides
        i = np.floor((hits + shift - origin) / RES).astype(int)
        i = i[((i >= 0) & (i < labels.shape)).all(1)]
        touched = np.zeros(labels.shape, bool)
        touched[tuple(i.T)] = True
        seen |= touched & (labels != FREE)


# ---------------------------------------------------------------- main
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    ap.add_argument("--frames", type=int, default=100, help="frames at 10 Hz (default 100; fewer cut the path short)")
    ap.add_argument("--seed", type=int, default=7, help="seed of textures, books and sensor noise")
    ap.add_argument("--quality", type=int, default=84, help="JPEG quality")
    args = ap.parse_args()
    room = Room(np.random.default_rng(args.seed))
    furnish(room)
    poses = path(args.frames)
    clearance = min(distance(p, poses[:, :3, 3]).min() for p in room.prims)
    if clearance < MIN_CLEARANCE:
        raise SystemExit(f"the camera comes within {clearance:.2f} m of something")
    model = compile_model(room)
    data = mujoco.MjData(model)
    try:
        colour, exact = mujoco.Renderer(model, 2 * H, 2 * W), mujoco.Renderer(model, H, W)
    except Exception as error:
        raise SystemExit(f"no OpenGL context ({error}); `apt-get install libosmesa6` with MUJOCO_GL=osmesa, or libegl1 "
                         "with MUJOCO_GL=egl, cures it.") from None
    for sub in ("rgb", "depth"):
        (args.out / sub).mkdir(parents=True, exist_ok=True)
    solid, origin = solid_voxels(room.prims)
    seen, ray = np.zeros(solid.shape, bool), rays()
    glass = np.array([p[6] in ("outside", "screen") for p in room.prims] + [False])     # the last: no geom at all
    tone = [round(255 * (k / 255) ** 0.84) for k in range(256)] * 3                     # lift the shadows a little
    flip = np.diag([1.0, -1, -1])                                                       # OpenGL cameras look along -z
    for i, pose in enumerate(poses):
        mujoco.mj_forward(model, data)
        data.cam_xpos[0], data.cam_xmat[0] = pose[:3, 3], (pose[:3, :3] @ flip).ravel()
        colour.update_scene(data, "eye")
        image = Image.fromarray(colour.render()).resize((W, H), Image.BOX).point(tone)
        exact.update_scene(data, "eye")
        exact.enable_depth_rendering()
        z = exact.render().astype(float)
        exact.disable_depth_rendering()
        exact.enable_segmentation_rendering()
        geom = exact.render()[..., 0]
        exact.disable_segmentation_rendering()
        depth = sense(z, glass[geom], np.random.default_rng([args.seed, i]), ray)
        observe(seen, solid, origin, depth, pose, ray)
        image.save(args.out / "rgb" / f"{i:04d}.jpg", quality=args.quality, optimize=True)
        Image.fromarray(depth).save(args.out / "depth" / f"{i:04d}.png", optimize=True)
    colour.close()
    exact.close()
    np.savetxt(args.out / "intrinsics.txt", [[FOCAL, 0, (W - 1) / 2], [0, FOCAL, (H - 1) / 2], [0, 0, 1]], "%.6f")
    np.savetxt(args.out / "poses_cam_to_world.txt", poses.reshape(-1, 16), "%.8f")
    (args.out / "sequence.yaml").write_text(
        "# how to read this folder as a posed RGB-D sequence\n"
        f"rate_hz: {RATE:.1f}            # stamps are frame index / rate\n"
        "depth_unit_m: 0.001      # one depth unit in metres; 0 is invalid\n"
        "pose: camera_to_world    # rows of poses_cam_to_world.txt\n"
        "camera_axes: x_right_y_down_z_forward\n"
        'world_up: "+z"           # as ROS wants it; the floor is z = 0\n')
    labels = np.where(seen, solid, UNKNOWN).astype(np.uint8)
    np.savez_compressed(args.out / "truth.npz", labels=labels, origin=origin.astype(np.float64),
                        resolution=np.float64(RES), frame_id="odom")
    total = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"{args.frames} frames, {total / 1e6:.2f} MB in {args.out}, nearest thing to the camera {clearance:.2f} m")


if __name__ == "__main__":
    main()
