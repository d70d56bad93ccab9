"""Ablations and figures, run on a data set of a few frames: every row is what it says, and nothing runs twice."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from scenes import write_small_set  # noqa: E402

from sgrocc.labels import CHAIR, FREE, UNKNOWN, WALL  # noqa: E402
from sgrocc.training import ablations, figures  # noqa: E402
from sgrocc.training.ablations import (  # noqa: E402
    BASE,
    ROWS,
    TABLES,
    Budget,
    Table,
    markdown,
    markdown_of_depths,
    merged,
    run_row,
)
from sgrocc.training.image_stage import ImageStage  # noqa: E402
from sgrocc.training.torch_expert import expert_config  # noqa: E402

BUDGET = Budget(samples=2, batch_size=1, frames=2)


def size_and_colours(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of a picture, and how many colours it has."""
    with Image.open(path) as picture:
        return picture.size, len(picture.convert("RGB").getcolors(picture.width * picture.height))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(data, encoder's checkpoint, folder of results) with four rows run."""
    root = tmp_path_factory.mktemp("ablations")
    write_small_set(root / "data", {"train": 2, "test": 2})
    torch.manual_seed(0)
    stage = ImageStage(imagenet=False)
    torch.save({"state_dict": stage.state_dict()}, root / "encoder.ckpt")
    (root / "out").mkdir()
    for name in ("base", "points_4", "refine_none", "refine_free", "embodiedocc", "dropout"):
        run_row(name, 0, root / "data", root / "encoder.ckpt", root / "out", BUDGET)
    return root / "data", root / "encoder.ckpt", root / "out"


def test_every_row_of_a_table_is_a_row_and_every_change_a_setting():
    assert all(name in ROWS for table in TABLES.values() for name in table.rows)
    base = expert_config(merged({}, BASE))
    for row in ROWS.values():
        config = expert_config(merged(BASE, row.change))
        assert row.name == "base" or row.learning_rate or config != base, row.name
    assert [ROWS[name].seeds for name in ("base", "lift_no_gate", "refine_free", "grm_none", "embodiedocc")] == [
        (0, 1, 2)
    ] * 5


def test_a_row_is_scored_in_all_the_ways_it_names(world):
    result = json.loads((world[2] / "base.seed0.json").read_text())
    assert {"network", "true", "sensor", "degraded", "pose_5cm", "pose_5percent"} <= set(result)
    assert result["config"]["anchors"]["stride"] == 16 and result["config"]["lifting"]["gate"] == "soft"
    assert result["budget"]["samples"] == 2
    for scored in ("network", "true"):
        assert 0 <= result[scored]["frustum"]["sc_iou"] <= 1 and result[scored]["cpu_ms"] > 0
    assert result["network"] != result["true"], "the depth that is given makes no difference"
    assert 2.5 < result["gflops"] < 12.6
    parity = json.loads((world[2] / "embodiedocc.seed0.json").read_text())
    assert parity["config"]["anchors"]["kind"] == "random" and parity["gflops"] > result["gflops"]


def test_dropout_is_measured(world):
    errors = json.loads((world[2] / "dropout.seed0.json").read_text())["calibration_error"]
    assert set(errors) == {"plain", "dropout"} and all(0 <= value <= 1 for value in errors.values())


def test_a_frozen_encoder_is_the_one_that_was_given(world):
    data, encoder, out = world
    expert = ablations.trained("base", 0, encoder, out)
    given = torch.load(encoder)["state_dict"]
    for name, value in expert.encoder.state_dict().items():
        torch.testing.assert_close(value, given[f"encoder.{name}"], rtol=0, atol=0)


def test_what_was_run_is_not_run_again(world, monkeypatch):
    data, encoder, out = world
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    ablations.run(["base", "points_4"], data, encoder, out, BUDGET, jobs=1, seeds=1)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(ValueError, match="no row 'bas'"):
        ablations.run(["bas"], data, encoder, out, BUDGET)
    with pytest.raises(FileNotFoundError, match="gpocc"):
        ablations.trained("gpocc", 0, encoder, out)


def test_a_table_shows_means_and_the_spread_of_seeds(tmp_path):
    def write(row, seed, miou):
        scores = {"sc_iou": 0.5, "miou": miou, "boundary_f1": 0.4, "per_class": {"wall": 0.25}}
        figures_of = {**scores, "frustum": scores, "cpu_ms": 10.0}
        content = {"gflops": 3.0, "network": figures_of, "sensor": figures_of}
        (tmp_path / f"{row}.seed{seed}.json").write_text(json.dumps(content))

    write("a", 0, 0.2)
    write("a", 1, 0.3)
    write("b", 0, 0.1)
    text = markdown(Table("Title", {"a": "first", "b": "second", "c": "not run"}, ("wall",)), tmp_path)
    lines = text.splitlines()
    assert lines[0] == "**Title**" and len(lines) == 6
    assert "| first | 50.0 ± 0.0 | 25.0 ± 7.1 |" in lines[4] and lines[4].endswith("| 25.0 ± 0.0 | 3.0 | 10 | 2 |")
    assert "| second | 50.0 | 10.0 |" in lines[5] and lines[5].endswith("| 25.0 | 3.0 | 10 | 1 |")


@pytest.mark.parametrize("folder", ["docs/ablations", "docs/ablations/val"])
def test_the_documentation_shows_what_was_measured(folder):
    """Each table as it follows from the results beside it; rows of one folder have one budget."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "ablations.md").read_text()
    results = [json.loads(path.read_text()) for path in sorted((root / folder).glob("*.json"))]
    assert len({json.dumps(result["budget"]) for result in results}) == 1
    shown = ablations.tables(root / folder)
    assert len(shown) > 3
    for name, text in shown.items():
        if not (folder.endswith("val") and name == "depth"):
            assert text.strip() in page, name


def test_the_table_of_depths_has_a_row_for_each_that_was_scored(tmp_path):
    def scores(value):
        parts = {
            part: {"sc_iou": value + i, "miou": value} for i, part in enumerate(("frustum", "visible", "occluded"))
        }
        return {"sc_iou": value, "miou": value, **parts}

    (tmp_path / "base.seed0.json").write_text(json.dumps({"network": scores(0.1), "true": scores(0.4)}))
    (tmp_path / "embodiedocc.seed0.json").write_text(json.dumps({"network": scores(0.2)}))
    (tmp_path / "embodiedocc.seed1.json").write_text(json.dumps({"network": scores(0.3)}))
    lines = markdown_of_depths(tmp_path).splitlines()[4:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| its own", "EmbodiedOcc (parity)", "25.0 ± 7.1"],
        ["| its own", "ours, as in the tables", "10.0"],
        ["| true", "ours, as in the tables", "40.0"],
    ]
    assert lines[1].split(" | ")[4:8] == ["10.0", "10.0", "110.0", "10.0"] and lines[0].endswith("| 2 |")


@pytest.mark.parametrize("name", [name for name in figures.NAMES if name != "progress"])
def test_a_figure_is_drawn(world, tmp_path, name):
    data, encoder, out = world
    path = figures.draw(name, tmp_path, data, "test", 0, None, encoder, out)
    size, colours = size_and_colours(path)
    assert min(size) > 300 and colours > 50


def test_every_voxel_of_a_comparison_has_its_verdict():
    truth = np.array([[[WALL, WALL, FREE, FREE, CHAIR, UNKNOWN]]], np.uint8)
    found = np.array([[[WALL, CHAIR, WALL, FREE, FREE, WALL]]], np.uint8)
    assert figures.verdicts(found, truth).tolist() == [[[1, 2, 3, 0, 4, 0]]]


def test_the_progress_of_a_training_goes_on_where_it_was_resumed(tmp_path):
    head = "epoch,step,train/loss,val/sc_iou,val/miou\n"
    for seed, first in enumerate((0.2, 0.3)):
        logs = tmp_path / f"two_phase_{seed}" / "logs"
        (logs / "run_0").mkdir(parents=True)
        (logs / "run_0" / "metrics.csv").write_text(head + f"-1,0,,{first},0.1\n0,9,3.0,,\n0,9,,0.4,0.15\n")
    (logs / "run_1").mkdir()
    (logs / "run_1" / "metrics.csv").write_text(head + "1,19,,0.5,0.2\n")
    wanted = {-1.0: (0.3, 0.1), 0.0: (0.4, 0.15), 1.0: (0.5, 0.2)}
    assert figures._validated(list(logs.glob("run_*/metrics.csv"))) == wanted
    # Begun, but not validated yet: no part of its group.
    (tmp_path / "two_phase_2" / "logs" / "run_0").mkdir(parents=True)
    (tmp_path / "two_phase_2" / "logs" / "run_0" / "metrics.csv").write_text(head)
    path = figures.draw("progress", tmp_path / "out", tmp_path, "test", 0, None, tmp_path, tmp_path)
    assert size_and_colours(path)[1] > 50


def test_a_figure_names_what_it_lacks(world, tmp_path):
    data, encoder, out = world
    with pytest.raises(FileNotFoundError, match="run sgrocc ablate --rows base"):
        figures.draw("anchors", tmp_path, data, "test", 0, None, encoder, tmp_path)
    with pytest.raises(ValueError, match="holds no training with scores"):
        figures.draw("progress", tmp_path, data, "test", 0, None, encoder, tmp_path / "none")
    with pytest.raises(ValueError, match="too few rows"):
        figures.draw("tradeoff", tmp_path, data, "test", 0, None, encoder, tmp_path)
