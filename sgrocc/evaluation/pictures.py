"""Pictures of voxel maps for reports: from above, from the side, isometric, and a map beside its ground truth.

numpy and Pillow only. World axes: in the top view x points right and y up, in the side view x right and z up; the
isometric view is seen from +x, -y, above: x runs down to the right, y up to the right, z up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.labels import CLASS_LABELS, COLOURS, FREE, GENERIC, UNKNOWN, name_of

#: Where nothing else is asked for, what is higher above the floor is cut away: no ceiling, and walls to look over.
LOOK_IN_HEIGHT_M = 1.6
#: Width of the legend at the right of every picture, pixels.
LEGEND_PX = 190

_DRAWING_PX = 900
_MARGIN_PX = 24
_CAPTION_PX = 74
_FOOTER_PX = 112
_PAPER = (255, 255, 255)
_INK = (40, 40, 48)
_UNKNOWN_GROUND = (226, 227, 232)
_FREE_GROUND = (250, 250, 252)
_AXES = {"x": (205, 45, 45), "y": (30, 150, 60), "z": (40, 80, 215)}

# Heights from low to high: dark blue, teal, green, yellow; brightness grows, so it survives printing in grey.
_HEIGHT_STOPS = np.array([(38, 42, 110), (32, 96, 150), (30, 150, 140), (110, 195, 90), (248, 225, 70)], float)

HIT, MISS, FALSE = 1, 2, 3
_COMPARISON_COLOURS = np.zeros((256, 3), np.uint8)
_COMPARISON_COLOURS[[HIT, MISS, FALSE]] = (60, 170, 110), (230, 110, 20), (110, 80, 220)

# Nearness of a pixel without a voxel; far from the limit of int64, so that differences stay exact.
_NOTHING = -(2**40)

# Light on the faces that the isometric view shows.
_TOP_LIGHT, _FRONT_LIGHT, _RIGHT_LIGHT = 1.0, 0.80, 0.62
# How much darker the edges of a cube, what lies just behind an edge in depth, and the far end of a side view are.
_EDGE_SHADE, _BEHIND_SHADE, _FAR_SHADE = 0.14, 0.45, 0.55


def top_view(occupancy: Occupancy, cut_above_m: float | None = None) -> Image.Image:
    """The map from above: the highest occupied voxel of every column, x to the right, y up.

    cut_above_m: world height, metres, above which voxels are left out; None cuts `LOOK_IN_HEIGHT_M` above the
    floor, so that a ceiling does not hide the room; infinity cuts nothing.
    """
    occupied, colours, legend, caption = _prepared(occupancy, cut_above_m)
    free = (occupancy.labels == FREE).any(axis=2)
    drawing, scale = _flat(occupied, colours, free, axis=2)
    return _flat_page(drawing, f"From above. {caption}", legend, "y", scale / occupancy.resolution)


def side_view(occupancy: Occupancy, cut_above_m: float | None = np.inf) -> Image.Image:
    """The map from the side (looking along +y): the nearest occupied voxel, x to the right, z up.

    cut_above_m: as in `top_view`, but nothing is cut by default.
    """
    occupied, colours, legend, caption = _prepared(occupancy, cut_above_m)
    free = (occupancy.labels == FREE).any(axis=1)
    drawing, scale = _flat(occupied, colours, free, axis=1)
    return _flat_page(
        drawing, f"From the side; what is farther is darker. {caption}", legend, "z", scale / occupancy.resolution
    )


def isometric_view(occupancy: Occupancy, cut_above_m: float | None = None) -> Image.Image:
    """The occupied voxels as shaded cubes, seen from +x, -y and above. cut_above_m: as in `top_view`."""
    occupied, colours, legend, caption = _prepared(occupancy, cut_above_m)
    drawing, pixels_per_voxel = _cubes(occupied, colours)
    return _isometric_page(drawing, f"Seen from +x, -y. {caption}", legend, pixels_per_voxel / occupancy.resolution)


def isometric_drawing(occupied: np.ndarray, colours: np.ndarray) -> Image.Image:
    """The occupied voxels alone, without a page around them, from one place for all grids of a shape.

    occupied: (X, Y, Z) bool; colours: (X, Y, Z, 3) uint8.
    """
    return _cubes(occupied, colours, whole=True)[0]


def comparison_view(prediction: Occupancy, truth: Occupancy, cut_above_m: float | None = None) -> Image.Image:
    """Where a map agrees with its ground truth, from above and isometric: hits, misses and false voxels.

    Voxels that the truth does not know are not drawn. Raises ValueError where the maps' voxels do not coincide.
    """
    prediction = prediction.resampled_to(truth.grid)
    verdict = np.zeros(truth.labels.shape, np.uint8)
    verdict[prediction.occupied & truth.occupied] = HIT
    verdict[~prediction.occupied & truth.occupied] = MISS
    verdict[prediction.occupied & (truth.labels == FREE)] = FALSE
    colours = _COMPARISON_COLOURS[verdict]
    names = {HIT: "hit", MISS: "missed", FALSE: "false"}
    legend = swatches(
        [(f"{name} ({np.count_nonzero(verdict == kind):,})", _COMPARISON_COLOURS[kind]) for kind, name in names.items()]
    )
    union = replace(truth, labels=np.where(verdict > 0, GENERIC, truth.labels).astype(np.uint8))
    shown, cut = _cut(union, cut_above_m)
    caption = f"Map against ground truth; counts are of the whole map. {cut}"

    flat, scale = _flat(shown, colours, (truth.labels == FREE).any(axis=2), axis=2)
    flat_page = _flat_page(flat, f"From above. {caption}", legend, "y", scale / truth.resolution)
    cubes, pixels_per_voxel = _cubes(shown, colours)
    cube_page = _isometric_page(cubes, f"Seen from +x, -y. {caption}", legend, pixels_per_voxel / truth.resolution)
    both = Image.new("RGB", (flat_page.width + cube_page.width, max(flat_page.height, cube_page.height)), _PAPER)
    both.paste(flat_page, (0, 0))
    both.paste(cube_page, (flat_page.width, 0))
    return both


# --- what is drawn, and in which colours


def _prepared(occupancy: Occupancy, cut_above_m: float | None) -> tuple[np.ndarray, np.ndarray, Image.Image, str]:
    """(X, Y, Z) bool of what is drawn, (X, Y, Z, 3) uint8 colours, the legend, the caption."""
    shown, cut = _cut(occupancy, cut_above_m)
    present = [label for label in CLASS_LABELS if (occupancy.labels[shown] == label).any()]
    count = f"{np.count_nonzero(occupancy.occupied):,} occupied voxels of {occupancy.resolution:g} m. {cut}"
    if (occupancy.occupied & (occupancy.labels != GENERIC)).any():
        legend = swatches([(name_of(label), COLOURS[label]) for label in present])
        return shown, COLOURS[occupancy.labels], legend, f"{count} Colour: class."
    layers = np.flatnonzero(shown.any(axis=(0, 1)))
    low, high = (layers[0], layers[-1]) if len(layers) else (0, 0)
    fractions = np.clip((np.arange(occupancy.labels.shape[2]) - low) / max(high - low, 1), 0, 1)
    colours = np.broadcast_to(_height_colours(fractions), (*occupancy.labels.shape, 3))
    heights_m = occupancy.origin[2] + (np.array([low, high]) + 0.5) * occupancy.resolution
    return shown, colours, _colour_bar(*heights_m), f"{count} The map has no classes. Colour: height."


def _cut(occupancy: Occupancy, cut_above_m: float | None) -> tuple[np.ndarray, str]:
    """(X, Y, Z) bool: the occupied voxels whose centre is not above the cut; and the sentence that says so."""
    centres_m = occupancy.origin[2] + (np.arange(occupancy.labels.shape[2]) + 0.5) * occupancy.resolution
    if cut_above_m is None:
        above_m = look_in_height_m(occupancy.labels, occupancy.resolution)
        cut_above_m = occupancy.origin[2] + (LOOK_IN_HEIGHT_M if above_m is None else above_m)
    shown = occupancy.occupied & (centres_m <= cut_above_m)
    if np.count_nonzero(shown) == np.count_nonzero(occupancy.occupied):
        return shown, ""
    return shown, f"Cut away above z = {cut_above_m:.1f} m."


def _height_colours(fractions: np.ndarray) -> np.ndarray:
    """(N,) heights in 0..1 to (N, 3) uint8."""
    places = np.linspace(0, 1, len(_HEIGHT_STOPS))
    return np.stack([np.interp(fractions, places, channel) for channel in _HEIGHT_STOPS.T], axis=-1).astype(np.uint8)


# --- the drawings


def _flat(occupied: np.ndarray, colours: np.ndarray, free: np.ndarray, axis: int) -> tuple[Image.Image, int]:
    """What is seen from above (axis 2) or along +y (axis 1), and pixels per voxel.

    occupied: (X, Y, Z) bool; colours: (X, Y, Z, 3) uint8; free: bool without `axis`, where to draw free ground.
    """
    pixels = np.where(free[..., None], _FREE_GROUND, _UNKNOWN_GROUND).astype(np.uint8)
    if occupied.any():
        if axis == 2:  # from above, the nearest voxel is the last one
            occupied, colours = np.flip(occupied, axis), np.flip(colours, axis)
        nearest = occupied.argmax(axis=axis)
        seen = np.take_along_axis(colours, np.expand_dims(nearest, (axis, 3)), axis=axis).squeeze(axis)
        if axis == 1:
            seen = seen * (1 - _FAR_SHADE * nearest / occupied.shape[axis])[..., None]
        pixels = np.where(occupied.any(axis=axis)[..., None], seen, pixels).astype(np.uint8)
    pixels = np.flip(pixels.swapaxes(0, 1), axis=0)
    scale = int(np.clip(_DRAWING_PX // max(*pixels.shape[:2], 1), 1, 24))
    if not pixels.size:
        return Image.new("RGB", (_DRAWING_PX, _DRAWING_PX // 2), _UNKNOWN_GROUND), scale
    return Image.fromarray(np.kron(pixels, np.ones((scale, scale, 1), np.uint8))), scale


def _cubes(occupied: np.ndarray, colours: np.ndarray, whole: bool = False) -> tuple[Image.Image, float]:
    """The isometric drawing, and pixels per voxel length along the horizontal of the screen.

    whole: the page is that of the whole grid, and not of what is occupied.

    Every cube is one small sprite of three faces; all cubes are drawn sprite pixel by sprite pixel into a z-buffer,
    so the Python loop is over the pixels of one sprite and not over voxels.
    """
    if not occupied.any() and not whole:
        return Image.new("RGB", (_DRAWING_PX, _DRAWING_PX // 2), _PAPER), 1.0
    voxels = np.argwhere(occupied & ~_hidden(occupied))
    voxel_colours = colours[tuple(voxels.T)].astype(np.float32)
    x, y, z = voxels.T
    # The corners that bound the page: two of the grid, or all that is drawn.
    last = np.array(occupied.shape) - 1
    bounds = np.array([[0, 0, 0], last, [last[0], 0, 0], [0, last[1], last[2]]]) if whole else voxels
    bound_x, bound_y, bound_z = bounds.T

    # Drawn at twice the size and averaged down. A step along x or y goes `half` pixels right and `slant` down or up;
    # slant / half is the sine of the camera's elevation (about 49 degrees), the rest of which is seen of a height.
    half = int(np.clip(2 * _DRAWING_PX // (np.ptp(bound_x + bound_y) + 2), 2, 24))
    slant = round(0.75 * half)
    height = round(np.sqrt(2 * (half**2 - slant**2)))
    bound_across, bound_up = (bound_x + bound_y) * half, (bound_y - bound_x) * slant + bound_z * height
    across, up = (x + y) * half - bound_across.min(), (y - x) * slant + z * height - bound_up.min()
    width_px, height_px = int(np.ptp(bound_across)) + 2 * half, int(np.ptp(bound_up)) + 2 * slant + height

    # Nearer to the camera is larger; sorted, so that of two cubes on one pixel the nearer is written last.
    nearness = x - y + z
    order = np.argsort(nearness, kind="stable")
    across, up, nearness, voxel_colours = across[order], up[order], nearness[order], voxel_colours[order]

    picture = np.full((height_px, width_px, 3), _PAPER, np.uint8)
    depth = np.full((height_px, width_px), _NOTHING)
    for row, column, light in _sprite(half, slant, height):
        rows, columns = height_px - 1 - (up + row), across + column
        nearer = nearness >= depth[rows, columns]
        rows, columns = rows[nearer], columns[nearer]
        depth[rows, columns] = nearness[nearer]
        picture[rows, columns] = voxel_colours[nearer] * light
    drawing = Image.fromarray(_outlined(picture, depth))
    return drawing.resize((max(width_px // 2, 1), max(height_px // 2, 1)), Image.Resampling.BOX), half / np.sqrt(2)


def _hidden(occupied: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: voxels whose three visible faces (+x, -y, +z) are all covered by neighbours."""
    hidden = np.zeros_like(occupied)
    hidden[:-1, 1:, :-1] = occupied[1:, 1:, :-1] & occupied[:-1, :-1, :-1] & occupied[:-1, 1:, 1:]
    return hidden


def _sprite(half: int, slant: int, height: int) -> list[tuple[int, int, float]]:
    """The pixels (row from the bottom, column, light) of one cube: 2 * half wide, 2 * slant + height high."""
    rows, columns = np.mgrid[0 : 2 * slant + height, 0 : 2 * half] + 0.5
    rise = np.abs(columns - half) * slant / half
    inside = (rows >= rise) & (rows <= height + 2 * slant - rise)
    top = rows - rise >= height
    light = np.where(top, _TOP_LIGHT, np.where(columns < half, _FRONT_LIGHT, _RIGHT_LIGHT))
    edge = np.where(top, rows - rise < height + 1, (rows - rise < 1) | (np.abs(columns - half) < 1))
    light = np.where(edge, light * (1 - _EDGE_SHADE), light)
    return [(int(row), int(column), float(light[row, column])) for row, column in np.argwhere(inside)]


def _outlined(picture: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Darken the pixels just behind an edge in depth, so that things stand out from what is behind them."""
    padded = np.pad(depth, 1, mode="edge")
    nearest = np.max([padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]], axis=0)
    behind = (depth > _NOTHING) & (nearest - depth > 3)
    picture[behind] = (picture[behind] * (1 - _BEHIND_SHADE)).astype(np.uint8)
    return picture


# --- the page around a drawing


def _flat_page(
    drawing: Image.Image, caption: str, legend: Image.Image, up_axis: str, pixels_per_m: float
) -> Image.Image:
    ground = swatches([("free", _FREE_GROUND), ("unknown", _UNKNOWN_GROUND)])
    both = Image.new("RGB", (LEGEND_PX, legend.height + ground.height), _PAPER)
    both.paste(legend, (0, 0))
    both.paste(ground, (0, legend.height))
    return _page(drawing, caption, both, {"x": (1, 0), up_axis: (0, -1)}, pixels_per_m)


def _isometric_page(drawing: Image.Image, caption: str, legend: Image.Image, pixels_per_m: float) -> Image.Image:
    directions = {"x": (0.8, 0.6), "y": (0.8, -0.6), "z": (0.0, -1.0)}
    return _page(drawing, caption, legend, directions, pixels_per_m)


def _page(
    drawing: Image.Image,
    caption: str,
    legend: Image.Image,
    directions: dict[str, tuple[float, float]],
    pixels_per_m: float,
) -> Image.Image:
    """The drawing with its caption above, its legend at the right, axes and a scale bar below.

    directions: of the world's axes on the page, unit vectors (right, down).
    """
    width = max(drawing.width, 420) + LEGEND_PX + 2 * _MARGIN_PX
    lines = _wrapped(caption, width - 2 * _MARGIN_PX)
    top = max(_CAPTION_PX, _MARGIN_PX + 24 * len(lines) + 12)
    body = max(drawing.height, legend.height)
    page = Image.new("RGB", (width, top + body + _FOOTER_PX), _PAPER)
    page.paste(drawing, (_MARGIN_PX, top))
    page.paste(legend, (width - LEGEND_PX, top))
    pen = ImageDraw.Draw(page)
    pen.multiline_text((_MARGIN_PX, _MARGIN_PX - 6), "\n".join(lines), fill=_INK, font=_font(18), spacing=4)
    _draw_axes(pen, (_MARGIN_PX + 8, page.height - 46), directions)
    _draw_scale_bar(pen, (_MARGIN_PX + 130, page.height - 46), pixels_per_m, drawing.width)
    return page


def _draw_axes(pen: ImageDraw.ImageDraw, corner: tuple[int, int], directions: dict[str, tuple[float, float]]) -> None:
    length = 38
    for name, (right, down) in directions.items():
        tip = (corner[0] + right * length, corner[1] + down * length)
        pen.line([corner, tip], fill=_AXES[name], width=4)
        label = (corner[0] + right * (length + 12), corner[1] + down * (length + 12))
        pen.text(label, name, fill=_AXES[name], font=_font(18), anchor="mm")


def _draw_scale_bar(pen: ImageDraw.ImageDraw, left: tuple[int, int], pixels_per_m: float, available_px: int) -> None:
    lengths_m = [length for length in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if length * pixels_per_m <= available_px / 3]
    length_m = lengths_m[-1] if lengths_m else 0.1
    x, y = left
    right = x + round(length_m * pixels_per_m)
    pen.line([(x, y), (right, y)], fill=_INK, width=3)
    for end in (x, right):
        pen.line([(end, y - 6), (end, y + 6)], fill=_INK, width=3)
    pen.text((right + 12, y), f"{length_m:g} m", fill=_INK, font=_font(18), anchor="lm")


def floor_layer(labels: np.ndarray) -> int | None:
    """The z index of (X, Y, Z) labels at which the lowest fiftieth of the occupied voxels ends, so that stray voxels
    below the floor do not move it; None where none is occupied.
    """
    per_layer = np.cumsum(np.count_nonzero((labels != FREE) & (labels != UNKNOWN), axis=(0, 1)))
    return int(np.searchsorted(per_layer, 0.02 * per_layer[-1])) if per_layer.size and per_layer[-1] else None


def look_in_height_m(labels: np.ndarray, resolution: float) -> float | None:
    """How far above the bottom of (X, Y, Z) labels one cuts to look in, metres; None where none is occupied."""
    floor = floor_layer(labels)
    return None if floor is None else floor * resolution + LOOK_IN_HEIGHT_M


def titled_row(caption: str, tiles: dict[str, Image.Image], line_px: int, gap_px: int = 0) -> Image.Image:
    """Pictures side by side, each below its title, all below a caption; a line of text takes `line_px`."""
    width = sum(tile.width + gap_px for tile in tiles.values())
    page = Image.new("RGB", (width, 2 * line_px + max(tile.height for tile in tiles.values())), "white")
    pen, inset = ImageDraw.Draw(page), line_px // 5
    pen.text((inset, inset), caption, fill="black", font=ImageFont.load_default(round(0.6 * line_px)))
    left = 0
    for title, tile in tiles.items():
        pen.text((left + inset, line_px + inset), title, fill="black", font=ImageFont.load_default(line_px // 2))
        page.paste(tile, (left, 2 * line_px))
        left += tile.width + gap_px
    return page


def swatches(entries: list[tuple[str, np.ndarray]]) -> Image.Image:
    """A legend: names and their (3,) RGB colours, from above."""
    legend = Image.new("RGB", (LEGEND_PX, 30 * len(entries) + 4), _PAPER)
    pen = ImageDraw.Draw(legend)
    for row, (name, colour) in enumerate(entries):
        top = 30 * row + 4
        pen.rectangle([4, top, 24, top + 20], fill=tuple(int(c) for c in colour), outline=_INK)
        pen.text((34, top + 10), name, fill=_INK, font=_font(17), anchor="lm")
    return legend


def _colour_bar(low_m: float, high_m: float) -> Image.Image:
    height = 200
    legend = Image.new("RGB", (LEGEND_PX, height + 44), _PAPER)
    column = _height_colours(np.linspace(1, 0, height))
    legend.paste(Image.fromarray(np.repeat(column[:, None], 22, axis=1)), (4, 32))
    pen = ImageDraw.Draw(legend)
    pen.text((4, 12), "height z", fill=_INK, font=_font(17), anchor="lm")
    for fraction in (0.0, 0.5, 1.0):
        y = 32 + round((1 - fraction) * (height - 1))
        # Adding zero turns a rounded -0.0 into 0.0.
        height_m = round(low_m + fraction * (high_m - low_m), 1) + 0.0
        pen.text((34, y), f"{height_m:.1f} m", fill=_INK, font=_font(17), anchor="lm")
    return legend


def _wrapped(text: str, width_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(18).getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)
