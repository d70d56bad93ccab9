"""How a map grows, drawn: every frame in the video, every quarter in the strip, Gaussians where they are."""

import numpy as np
import pytest
from PIL import Image, ImageSequence
from test_memory import gaussians_at

from sgrocc.evaluation import evolution
from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.evaluation.pictures import floor_layer
from sgrocc.geometry import VoxelGrid
from sgrocc.labels import CEILING, CHAIR, COLOURS, FLOOR, FREE, TABLE, UNKNOWN, WALL

GRID = VoxelGrid(np.array([1.6, -0.8, 0.0]), (60, 50, 36), 0.08)
FRAMES = 6
SHOWN_WITH_EACH = 60 // FRAMES  # layers along x


class Frame:
    image_path = "there"

    def __init__(self, number: int) -> None:
        self.number = number
        self.mask = np.zeros(GRID.shape, bool)
        self.mask[: SHOWN_WITH_EACH * (number + 1)] = True

    def image(self) -> np.ndarray:
        return np.full((30, 40, 3), 25 * self.number, np.uint8)

    def global_labels(self) -> np.ndarray:
        return room()


def room() -> np.ndarray:
    labels = np.full(GRID.shape, FREE, np.uint8)
    labels[:, :, 0], labels[:, :, 30], labels[:, 0], labels[20:25, 20:25, 1:6] = FLOOR, CEILING, WALL, TABLE
    return labels


class Scene:
    name, grid, labels = "room", GRID, room()
    frames = tuple(Frame(number) for number in range(FRAMES))


class Known:
    """Knows the room as far as it was shown."""

    def start(self, scene) -> None:
        self.shown = 0

    def add(self, frame) -> None:
        self.shown = frame.number + 1

    def labels(self) -> np.ndarray:
        labels = room()
        labels[SHOWN_WITH_EACH * self.shown :] = FREE
        return labels

    def gaussians(self):
        return gaussians_at((1.0, 2.0, 0.5), label=CHAIR)


def test_the_video_has_every_frame_and_the_strip_every_quarter(tmp_path):
    strip_path, video_path = evolution.draw(tmp_path, Scene, Known())
    video = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(video_path))]
    assert len(video) == FRAMES
    with Image.open(strip_path) as strip:
        assert strip.size == (video[0].width, 4 * video[0].height)
        quarters = [strip.crop((0, i * video[0].height, strip.width, (i + 1) * video[0].height)) for i in range(4)]
    drawn = [(np.asarray(q.convert("RGB")) != 255).any(axis=2)[:, q.width // 2 :].sum() for q in quarters]
    assert all(later > 1.1 * earlier for earlier, later in zip(drawn, drawn[1:], strict=False)), "the map grows"


@pytest.mark.parametrize(("label", "shown"), [(CHAIR, True), (CEILING, False)])
def test_gaussians_are_drawn_where_they_are_in_their_colour(label, shown):
    picture = np.asarray(evolution.gaussians_from_above(gaussians_at((1.0, 3.0, 0.5), label=label), GRID, 2.0))
    height, width = picture.shape[:2]
    x, y = round(1.0 / (60 * 0.08) * width), round(height - 3.0 / (50 * 0.08) * height)
    drawn = np.argwhere((picture != 255).any(axis=2))
    if not shown:
        assert not len(drawn)
        return
    np.testing.assert_allclose(drawn.mean(axis=0), [y, x], atol=1.0)
    # One sigma is 5 cm, in 50 pixels per metre.
    assert 15 < len(drawn) < 40
    mixed = 255 + (COLOURS[label].astype(float) - 255) * (40 + 180 * 0.9) / 255
    np.testing.assert_allclose(picture[y, x], mixed, atol=3)


def test_what_lies_above_the_cut_is_left_out():
    picture = evolution.gaussians_from_above(gaussians_at((1.0, 3.0, 2.5)), GRID, 2.0)
    assert np.asarray(picture).min() == 255


def test_moments_of_a_recording_lie_in_one_picture_wherever_the_world_begins(tmp_path):
    """Two moments, map and truth alike in a room whose corner is at (-1.6, -0.8, -0.08) m: their tiles are equal."""
    image = np.full((30, 40, 3), 90, np.uint8)
    corner = np.array([-1.6, -0.8, -0.08])

    def known(shown: int):
        labels = room()
        labels[shown:] = UNKNOWN
        return evolution.known_voxels(Occupancy(labels, np.zeros(labels.shape, np.float32), corner, 0.08, "map"))

    # The Gaussian is at (1.0, 2.0) m from the corner.
    gaussians = gaussians_at((-0.6, 1.2, 0.4), label=CHAIR, scale_m=0.2)
    moments = [evolution.Moment(f"frame {n}", image, gaussians, known(n), known(60)) for n in (0, 30, 60)]
    strip_path, video_path = evolution.draw_moments(tmp_path, "walk", moments, 0.08)
    assert strip_path.name == "evolution_walk.png" and len(list(ImageSequence.Iterator(Image.open(video_path)))) == 3
    picture = np.asarray(Image.open(strip_path).convert("RGB"))
    assert (picture == 0).all(axis=2)[:, -400:].mean() < 0.01, "what is not known yet is blank, not black"
    last = picture[2 * len(picture) // 3 + 60 :]
    inked = (last != 255).any(axis=(0, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inked.astype(int), [0]])))
    tiles = [last[:, a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert len(tiles) == 4 and (tiles[-1] == tiles[-2]).all(), "image, Gaussian, map and truth, the last two alike"
    mixed = 255 + (COLOURS[CHAIR].astype(float) - 255) * (40 + 180 * 0.9) / 255
    drawn = tiles[1][(tiles[1] < 250).any(axis=2)].mean(axis=0)
    np.testing.assert_allclose(drawn, mixed, atol=25)


@pytest.mark.parametrize("unknown", [[], ["nothing is known"]])
def test_nothing_known_is_nothing_to_draw(tmp_path, unknown):
    nothing = np.zeros((0, 3), int), np.zeros(0, np.uint8)
    moments = [
        evolution.Moment(caption, np.zeros((4, 4, 3), np.uint8), gaussians_at(), nothing, nothing)
        for caption in unknown
    ]
    with pytest.raises(ValueError, match="nothing to draw"):
        evolution.draw_moments(tmp_path, "empty", moments, 0.08)


def test_a_stray_voxel_below_the_floor_does_not_move_the_cut():
    labels = room()
    assert floor_layer(labels) == 0
    deeper = np.concatenate([np.full((60, 50, 20), FREE, np.uint8), labels], axis=2)
    deeper[3, 3, 0] = CHAIR
    assert floor_layer(deeper) == 20 and floor_layer(np.full((3, 3, 3), FREE, np.uint8)) is None
