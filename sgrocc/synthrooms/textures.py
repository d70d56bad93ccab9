"""Procedural textures of surfaces, drawn anew for every scene. Greys are tinted by the colour of a `Look`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def make_texture(name: str, rng: np.random.Generator, size: int = 256) -> tuple[np.ndarray, float | None]:
    """A texture that repeats without a seam: (size, size, 3) uint8, and the metres that one repeat covers, or None for
    a picture that fills each face of a thing. Raises ValueError for an unknown name.
    """
    if name not in TEXTURES:
        raise ValueError(f"there is no texture {name!r}: use one of {', '.join(TEXTURES)}")
    image, tile_m = TEXTURES[name](rng, size)
    return np.uint8(np.clip(image, 0.0, 1.0) * 255.0 + 0.5), tile_m


def _noise(rng: np.random.Generator, n: int, sx: float, sy: float | None = None) -> np.ndarray:
    """(n, n) smooth noise that repeats, of unit deviation; sx, sy: its grain in parts of the texture's size."""
    f = np.fft.fftfreq(n) * n
    sy = sx if sy is None else sy
    keep = np.exp(-2 * (np.pi * f[None] * sx) ** 2 - 2 * (np.pi * f[:, None] * sy) ** 2)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * keep).real
    return field / field.std()


def _places(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v): to the right and downwards, 0 to 1."""
    v, u = np.mgrid[0:n, 0:n] / n
    return u, v


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def _ramp(t: np.ndarray, *stops: tuple[float, float, float]) -> np.ndarray:
    """Colours along stops, t from 0 to 1."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(t, at, [stop[k] for stop in stops]) for k in range(3)], axis=2)


def _plain(rng, n):
    return _grey(0.97 + 0.012 * _noise(rng, n, 0.01)), 0.5


def _plaster(rng, n):
    grain = rng.uniform(0.004, 0.02)
    return _grey(0.95 + rng.uniform(0.005, 0.03) * _noise(rng, n, grain) + 0.012 * _noise(rng, n, 0.12)), 1.6


def _wood(rng, n):
    u, v = _places(n)
    rings = np.sin(2 * np.pi * (rng.integers(6, 16) * v + 0.35 * _noise(rng, n, 0.2, 0.05)))
    return _grey(0.84 + 0.06 * _noise(rng, n, 0.15, 0.004) + rng.uniform(0.02, 0.07) * rings), 0.8


def _planks(rng, n):
    u, v = _places(n)
    rows = int(rng.integers(6, 12))
    row = (v * rows).astype(int) % rows
    shifted = (u + rng.random(rows)[row]) % 1
    plank = row * 2 + (shifted > 0.5)
    tone = rng.uniform(0.72, 1.0, 2 * rows)[plank] + 0.05 * _noise(rng, n, 0.1, 0.004)
    gap = ((v * rows) % 1 < 0.035) | (shifted % 0.5 < 0.006)
    base = _ramp(np.clip(tone, 0, 1), (0.45, 0.33, 0.24), (0.7, 0.55, 0.42), (0.95, 0.82, 0.66))
    return base * np.where(gap, 0.65, 1.0)[..., None], rng.uniform(1.0, 1.8)


def _carpet(rng, n):
    return _grey(0.8 + 0.08 * _noise(rng, n, 0.004) + 0.03 * _noise(rng, n, 0.05)), 0.7


def _tiles(rng, n):
    u, v = _places(n)
    count = int(rng.integers(2, 5))
    cell = (u * count).astype(int) * count + (v * count).astype(int)
    tone = 0.88 + 0.04 * rng.standard_normal(count * count)[cell] + 0.03 * _noise(rng, n, 0.04)
    joint = np.minimum((u * count) % 1, (v * count) % 1) < rng.uniform(0.015, 0.04)
    return _grey(np.where(joint, rng.uniform(0.5, 0.95), tone)), 0.3 * count


def _fabric(rng, n):
    u, v = _places(n)
    threads = int(rng.integers(40, 80))
    weave = np.sin(2 * np.pi * threads * u) * np.sin(2 * np.pi * threads * v)
    return _grey(0.86 + 0.05 * weave + 0.04 * _noise(rng, n, 0.008) + 0.03 * _noise(rng, n, 0.1)), 0.5


def _plaid(rng, n):
    u, v = _places(n)
    count = int(rng.integers(4, 9))
    check = ((u * count % 1 < 0.5).astype(float) + (v * count % 1 < 0.5)) / 2
    thin = (u * count % 1 < 0.06) | (v * count % 1 < 0.06)
    low = rng.uniform(0.3, 0.65, 3)
    return _ramp(check, tuple(low), tuple((low + 1) / 2), (1, 1, 1)) * np.where(thin, 0.7, 1)[..., None], 0.5


def _stripes(rng, n):
    u, _ = _places(n)
    count, share = int(rng.integers(3, 9)), rng.uniform(0.3, 0.7)
    dark = rng.uniform(0.4, 0.85, 3)
    image = np.where((u * count % 1 < share)[..., None], dark, 1.0)
    return image * (0.96 + 0.03 * _noise(rng, n, 0.01))[..., None], 0.6


def _leather(rng, n):
    cells = np.abs(_noise(rng, n, 0.012))
    return _grey(0.82 + 0.07 * np.clip(cells, 0, 2) + 0.04 * _noise(rng, n, 0.1)), 0.5


def _metal(rng, n):
    return _grey(0.92 + 0.025 * _noise(rng, n, 0.2, 0.003)), 0.4


def _stone(rng, n):
    veins = np.exp(-8 * np.abs(_noise(rng, n, 0.08)))
    return _grey(0.88 + 0.06 * _noise(rng, n, 0.01) - rng.uniform(0, 0.3) * veins), 0.9


def _rug(rng, n):
    u, v = _places(n)
    a, b = rng.integers(3, 8, 2)
    diamond = np.abs((u * a) % 1 - 0.5) + np.abs((v * b) % 1 - 0.5)
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    colours = [tuple(rng.uniform(0.2, 0.95, 3)) for _ in range(4)]
    rug = _ramp(np.clip(diamond, 0, 1), *colours[:3])
    rug[edge < 0.1] = colours[3]
    rug[(edge > 0.03) & (edge < 0.05)] = colours[0]
    return rug * (0.92 + 0.05 * _noise(rng, n, 0.004))[..., None], None


def _screen(rng, n):
    u, v = _places(n)
    if rng.random() < 0.5:
        gleam = np.clip(0.55 - 0.6 * (u - 0.2) * (1.1 - v) + 0.03 * _noise(rng, n, 0.1), 0, 1)
        return _ramp(gleam, (0.16, 0.18, 0.21), (0.055, 0.06, 0.075), (0.02, 0.02, 0.03)), None
    # Something is on.
    field = _noise(rng, n, 0.12)
    image = _ramp(np.clip(0.5 + 0.25 * field, 0, 1), *(tuple(rng.uniform(0.05, 0.95, 3)) for _ in range(4)))
    image[v > 0.9] *= 0.4
    return image, None


def _picture(rng, n):
    u, v = _places(n)
    colours = [tuple(rng.uniform(0.05, 0.95, 3)) for _ in range(5)]
    if rng.random() < 0.5:
        t = np.clip(v + 0.05 * _noise(rng, n, 0.12, 0.03), 0, 1)
        image = _ramp(t, *colours)
        x, y, r = rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.5), rng.uniform(0.05, 0.15)
        image[(u - x) ** 2 + (v - y) ** 2 < r * r] = colours[0]
    else:
        levels = np.round(3 * np.clip(0.5 + 0.3 * _noise(rng, n, 0.12), 0, 1)) / 3
        image = _ramp(levels, *colours[:4])
    if rng.random() < 0.4:
        border = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.1
        image[border] = 0.95
    return image, None


def _books(rng, n):
    u, v = _places(n)
    edges = np.sort(rng.random(11))
    book = np.searchsorted(edges, u[0])
    image = rng.uniform(0.1, 0.95, (12, 3))[book][None].repeat(n, axis=0)
    gap = np.min(np.abs(u[0][:, None] - edges[None]), axis=1) < 0.006
    image[:, gap] *= 0.3
    title = (np.abs(v - rng.uniform(0.2, 0.6)) < 0.05) & (rng.random(12)[book] < 0.6)[None]
    image[title] = 0.9 - 0.7 * image[title]
    return image, None


def _cardboard(rng, n):
    _, v = _places(n)
    tape = np.where(np.abs(v - 0.5) < 0.05, rng.uniform(0.8, 1.15), 1.0)[..., None]
    return _ramp(0.5 + 0.1 * _noise(rng, n, 0.15, 0.006), (0.6, 0.45, 0.29), (0.78, 0.61, 0.42)) * tape, None


def _foliage(rng, n):
    leaf = _noise(rng, n, 0.02)
    return _ramp(np.clip(0.5 + 0.25 * leaf, 0, 1), (0.25, 0.35, 0.2), (0.75, 0.9, 0.6), (1.0, 1.0, 0.8)), 0.4


def _outside(rng, n):
    u, v = _places(n)
    haze = v + 0.04 * _noise(rng, n, 0.12, 0.05)
    sky = _ramp(haze, (0.5, 0.7, 0.97), (0.8, 0.9, 1.0), (0.97, 0.98, 1.0)) * rng.uniform(0.75, 1.0)
    line = rng.uniform(0.45, 0.75)
    if rng.random() < 0.5:
        hill = v > line + 0.05 * np.sin(2 * np.pi * (u + rng.random())) + 0.02 * np.sin(6 * np.pi * u)
        ground = _ramp(v + 0.05 * _noise(rng, n, 0.02), (0.4, 0.6, 0.3), (0.55, 0.72, 0.4), (0.35, 0.5, 0.28))
        sky[hill] = ground[hill]
    else:
        # Houses across the street.
        at = 0.0
        while at < 1.0:
            width, top = rng.uniform(0.12, 0.3), line - rng.uniform(0.0, 0.3)
            house = (u >= at) & (u < at + width) & (v > top)
            sky[house] = rng.uniform(0.45, 0.85, 3)
            panes = house & (((u - at) * 30) % 2 < 0.9) & (((v - top) * 18) % 2 < 1.0) & (v > top + 0.04)
            sky[panes] = (0.25, 0.3, 0.36)
            at += width
    for _ in range(int(rng.integers(0, 4))):
        x, r = rng.random(), rng.uniform(0.06, 0.16)
        crown = (u - x) ** 2 + (v - line + 0.02) ** 2 < (r + 0.01 * _noise(rng, n, 0.03)) ** 2
        sky[crown] = _ramp(0.5 + 0.2 * _noise(rng, n, 0.02), (0.16, 0.36, 0.16), (0.36, 0.55, 0.27))[crown]
    return sky, None


#: Every texture by its name.
TEXTURES: dict[str, Callable[[np.random.Generator, int], tuple[np.ndarray, float | None]]] = {
    "plain": _plain,
    "plaster": _plaster,
    "wood": _wood,
    "planks": _planks,
    "carpet": _carpet,
    "tiles": _tiles,
    "fabric": _fabric,
    "plaid": _plaid,
    "stripes": _stripes,
    "leather": _leather,
    "metal": _metal,
    "stone": _stone,
    "rug": _rug,
    "screen": _screen,
    "picture": _picture,
    "books": _books,
    "cardboard": _cardboard,
    "foliage": _foliage,
    "outside": _outside,
}
