"""Pictures: every thing is at the place and in the colour where the map has it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sgrocc.evaluation import pictures
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.pictures import comparison_view, isometric_view, side_view, top_view
from sgrocc.labels import CLASS_LABELS, COLOURS, FREE, GENERIC, UNKNOWN

_FLOOR, _WALL, _CHAIR, _TABLE = 2, 3, 5, 8


def _map(labels, frame_id="odom"):
    labels = np.asarray(labels, np.uint8)
    probability = ((labels != FREE) & (labels != UNKNOWN)).astype(np.float32)
    return Occupancy(labels, probability, np.zeros(3), 0.1, frame_id)


def _room():
    """A floor with a chair in the corner of high x and low y, and a table in the corner of low x and high y."""
    labels = np.full((20, 16, 8), FREE, np.uint8)
    labels[:, :, 0] = _FLOOR
    labels[16:19, 1:4, 1:3] = _CHAIR
    labels[1:5, 11:15, 1:5] = _TABLE
    return labels


def _place(image, colour):
    """Mean (column, row) of the drawing's pixels of exactly this colour, the legend left out."""
    pixels = np.asarray(image)[:, : image.width - pictures.LEGEND_PX]
    rows, columns = np.nonzero((pixels == np.asarray(colour)).all(axis=-1))
    assert len(rows) > 20, f"the colour {colour} is not in the drawing"
    return columns.mean(), rows.mean()


def _has(image, colour):
    pixels = np.asarray(image)[:, : image.width - pictures.LEGEND_PX]
    return bool((pixels == np.asarray(colour)).all(axis=-1).any())


def test_from_above_x_is_right_and_y_is_up():
    image = top_view(_map(_room()))
    chair, table, floor = (_place(image, COLOURS[label]) for label in (_CHAIR, _TABLE, _FLOOR))
    assert table[0] < floor[0] < chair[0]
    assert table[1] < floor[1] < chair[1]


def test_every_voxel_from_above_is_one_square_of_its_colour():
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASS_LABELS[:-1], (7, 5, 1)).astype(np.uint8)
    image = top_view(_map(labels))
    pixels = np.asarray(image)
    side = 24
    left, top = pictures._MARGIN_PX, image.height - pictures._FOOTER_PX - max(5 * side, _legend_height(labels))
    for (x, y, _), label in np.ndenumerate(labels):
        square = pixels[top + (4 - y) * side : top + (5 - y) * side, left + x * side : left + (x + 1) * side]
        assert (square == COLOURS[label]).all(), (x, y)


def _legend_height(labels):
    return 30 * len(np.unique(labels)) + 4 + 30 * 2 + 4


def test_from_the_side_x_is_right_z_is_up_and_low_y_is_in_front():
    labels = np.full((12, 9, 10), FREE, np.uint8)
    labels[1:3, 0, 1:3] = _CHAIR
    labels[8:11, 0, 6:9] = _TABLE
    labels[:, 8, :] = _WALL
    image = side_view(_map(labels))
    chair, table = _place(image, COLOURS[_CHAIR]), _place(image, COLOURS[_TABLE])
    assert chair[0] < table[0] and chair[1] > table[1]
    # Behind them the wall is shown, but darker, as it is farther.
    assert not _has(image, COLOURS[_WALL])
    dark = (COLOURS[_WALL] * (1 - pictures._FAR_SHADE * 8 / 9)).astype(np.uint8)
    assert _has(image, dark)


@pytest.mark.parametrize("view", [top_view, side_view])
def test_a_mirrored_room_gives_a_mirrored_drawing(view):
    labels = _room()
    size = {top_view: (20, 16), side_view: (20, 8)}[view]
    drawings = []
    for room in (labels, labels[::-1]):
        image = view(_map(room))
        # The drawing starts at the margin; 24 pixels a voxel at the most.
        left, width, height = pictures._MARGIN_PX, size[0] * 24, size[1] * 24
        drawings.append(np.asarray(image)[pictures._CAPTION_PX :][:height, left : left + width])
    assert np.array_equal(drawings[0], drawings[1][:, ::-1])
    assert not np.array_equal(*drawings)


def test_isometric_axes():
    """A coloured block at the end of each axis lies where the drawn axes say: x right down, y right up, z up."""
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[0:2, 0:2, 0:2] = _FLOOR
    labels[10:12, 0:2, 0:2] = _CHAIR
    labels[0:2, 10:12, 0:2] = _TABLE
    labels[0:2, 0:2, 10:12] = _WALL
    image = isometric_view(_map(labels))
    origin, x, y, z = (_place(image, COLOURS[label]) for label in (_FLOOR, _CHAIR, _TABLE, _WALL))
    assert x[0] > origin[0] + 50 and x[1] > origin[1] + 50
    assert y[0] > origin[0] + 50 and y[1] < origin[1] - 50
    assert abs(z[0] - origin[0]) < 2 and z[1] < origin[1] - 50
    np.testing.assert_allclose(x[0], y[0], atol=2)


def test_isometric_nearer_hides_farther():
    labels = np.zeros((10, 10, 6), np.uint8)
    labels[9, :, :] = _WALL
    labels[7, 4:6, 0:2] = _CHAIR
    assert not _has(isometric_view(_map(labels)), COLOURS[_CHAIR])
    assert _has(isometric_view(_map(labels[::-1])), COLOURS[_CHAIR])


@pytest.mark.parametrize("half", [2, 3, 7, 12, 24])
def test_cubes_leave_no_gaps(half):
    """One big block of cubes covers each pixel inside its outline."""
    slant, height = round(0.75 * half), round(np.sqrt(2 * (half**2 - round(0.75 * half) ** 2)))
    sprite = pictures._sprite(half, slant, height)
    n = 5
    canvas = np.zeros((2 * n * slant + n * height, 2 * n * half), bool)
    for x, y, z in np.ndindex(n, n, n):
        for row, column, _ in sprite:
            canvas[(y - x + n - 1) * slant + z * height + row, (x + y) * half + column] = True
    for column in canvas.T:
        drawn = np.flatnonzero(column)
        assert len(drawn) and len(drawn) == drawn[-1] - drawn[0] + 1


def test_the_ceiling_is_cut_away_unless_asked_for():
    labels = np.full((12, 12, 26), FREE, np.uint8)
    labels[:, :, 0] = _FLOOR
    labels[4:6, 4:6, 1:5] = _CHAIR
    labels[:, :, 25] = 1
    for view in (top_view, isometric_view):
        assert _has(view(_map(labels)), COLOURS[_CHAIR]) and not _has(view(_map(labels)), COLOURS[1])
        assert _has(view(_map(labels), np.inf), COLOURS[1])
        assert not _has(view(_map(labels), 0.1), COLOURS[_CHAIR])
    assert not _has(top_view(_map(labels), np.inf), COLOURS[_CHAIR])


def test_a_map_without_classes_is_coloured_by_height():
    labels = np.where(_room() > 0, GENERIC, FREE).astype(np.uint8)
    image = top_view(_map(labels))
    low, high = pictures._height_colours(np.array([0.0, 1.0]))
    table, floor = _place(image, high), _place(image, low)
    assert table[0] < floor[0] and table[1] < floor[1]
    assert not _has(image, COLOURS[GENERIC])


def test_the_comparison_shows_hits_misses_and_false_voxels_only():
    truth = np.full((12, 4, 3), FREE, np.uint8)
    prediction = truth.copy()
    truth[0:2, 1:3, 0] = prediction[0:2, 1:3, 0] = GENERIC  # a hit
    truth[4:6, 1:3, 0] = GENERIC  # missed
    prediction[8:10, 1:3, 0] = GENERIC  # false
    truth[11, :, :] = UNKNOWN
    prediction[11, 1:3, :] = GENERIC  # not scored
    image = comparison_view(_map(prediction), _map(truth))
    flat = image.crop((0, 0, pictures._MARGIN_PX + 12 * 24 + pictures.LEGEND_PX, image.height))
    hit, miss, false = (
        _place(flat, pictures._COMPARISON_COLOURS[kind]) for kind in (pictures.HIT, pictures.MISS, pictures.FALSE)
    )
    left, voxel = pictures._MARGIN_PX, 24
    for place, x in ((hit, 1), (miss, 5), (false, 9)):
        assert place[0] == pytest.approx(left + x * voxel - 0.5, abs=1)
    last = np.asarray(flat)[:, left + 11 * voxel : left + 12 * voxel]
    assert not (last == pictures._COMPARISON_COLOURS[pictures.FALSE]).all(axis=-1).any()


@pytest.mark.parametrize("labels", [np.zeros((0, 0, 0)), np.zeros((3, 3, 3)), np.full((3, 3, 3), UNKNOWN)])
def test_an_empty_map_still_gives_pictures(labels):
    empty = _map(labels)
    for view in (top_view, side_view, isometric_view):
        assert view(empty).width > 400
    assert comparison_view(empty, empty).width > 800


def test_a_large_map_is_drawn_in_about_a_second():
    rng = np.random.default_rng(3)
    labels = np.zeros((150, 150, 40), np.uint8)
    labels.reshape(-1)[rng.choice(labels.size, 20_000, replace=False)] = GENERIC
    start_s = time.process_time()
    isometric_view(_map(labels), np.inf)
    assert time.process_time() - start_s < 5
