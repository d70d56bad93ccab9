"""The doctor fails closed: a model that answers otherwise, a budget that is not kept, an engine that is asked for and
is not there; and the check for machines with a GPU writes its file on one without.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from sgrocc.cli import main
from sgrocc.inference import doctor
from sgrocc.inference.doctor import Budget, examine, over_budget
from sgrocc.inference.tensorrt_build import EngineAbsent
from sgrocc.resources import find_model

FIGURES = {"ms": {"p50": 80.0, "p95": 90.0, "p99": 95.0}, "hz": 12.5, "memory_mb": 250.0}


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    """Times are not judged here."""
    monkeypatch.setattr(doctor, "_RUNS", 3)


@pytest.fixture
def model(tmp_path):
    """A copy of the shipped model that a test may spoil."""
    return Path(shutil.copytree(find_model("compact"), tmp_path / "compact"))


def spoil_golden(model: Path, change) -> None:
    """Another golden file with a manifest that vouches for it."""
    with np.load(model / "golden.npz") as file:
        arrays = {name: file[name] for name in file}
    change(arrays)
    np.savez_compressed(model / "golden.npz", **arrays)
    tree = yaml.safe_load((model / "manifest.yaml").read_text())
    tree["golden"]["sha256"] = hashlib.sha256((model / "golden.npz").read_bytes()).hexdigest()
    (model / "manifest.yaml").write_text(yaml.safe_dump(tree))


def test_the_shipped_model_is_well_on_this_machine(capsys, tmp_path):
    assert main(["doctor", "--engine", "onnxruntime", "--json", str(tmp_path / "out" / "found.json")]) == 0
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    figures = found["engines"]["onnxruntime"]
    assert found["ok"] and not found["problems"] and max(figures["differences"].values()) < 1e-4
    assert {name.split(".")[0] for name in figures["differences"]} == {"expert", "fusion"}
    assert figures["hz"] == pytest.approx(1e3 / figures["ms"]["p50"]) and figures["ms"]["p95"] >= figures["ms"]["p50"]
    machine = found["machine"]
    assert machine["numpy"] == np.__version__ and machine["rclpy"] == "found" and "cores" in machine["system"]
    assert "the model is as it should be" in capsys.readouterr().out


def test_a_model_that_answers_otherwise_is_a_problem(model):
    def change(arrays):
        arrays["expert/output/logits"] = arrays["expert/output/logits"] + 1.0

    spoil_golden(model, change)
    found = examine(model, ("onnxruntime",), "fp32", Budget())
    (problem,) = found["problems"]
    assert not found["ok"] and problem.startswith("onnxruntime: expert.logits differs from torch's by 0.")


def test_a_nan_is_a_problem_and_no_difference_of_zero(model):
    def change(arrays):
        arrays["fusion/output/fused_means"] = arrays["fusion/output/fused_means"] * np.nan

    spoil_golden(model, change)
    (problem,) = examine(model, ("onnxruntime",), "fp32", Budget())["problems"]
    assert "fusion.fused_means differs" in problem


def test_a_model_without_golden_answers_is_a_problem(model):
    tree = yaml.safe_load((model / "manifest.yaml").read_text())
    del tree["golden"]
    (model / "manifest.yaml").write_text(yaml.safe_dump(tree))
    (problem,) = examine(model, ("onnxruntime",), "fp32", Budget())["problems"]
    assert "no golden file" in problem


def test_golden_answers_that_are_not_there_are_a_problem(model):
    spoil_golden(model, lambda arrays: arrays.pop("fusion/input/depth"))
    found = examine(model, ("onnxruntime",), "fp32", Budget())
    assert not found["ok"] and "golden.npz has no example of the fusion: export the model again" in found["problems"][0]


def test_an_engine_that_is_spoilt_or_cannot_be_built_is_a_problem_though_another_runs(model, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("TensorRT cannot open the engine")

    monkeypatch.setattr("sgrocc.inference.tensorrt_engine.TensorrtEngine", broken)
    found = examine(model, ("onnxruntime", "tensorrt"), "fp16", Budget())
    assert not found["ok"] and found["problems"] == ["tensorrt: TensorRT cannot open the engine"]
    monkeypatch.setattr("sgrocc.inference.tensorrt_engine.build_engine", broken)
    found = examine(model, ("onnxruntime", "tensorrt"), "fp16", Budget(), build=True)
    assert found["problems"] == ["tensorrt: TensorRT cannot open the engine"]


def test_a_broken_model_is_one_problem_and_no_trace(model):
    (model / "expert.onnx").write_bytes(b"nothing")
    found = examine(model, ("onnxruntime",), "fp32", Budget())
    assert not found["ok"] and found["engines"] == {} and "expert.onnx is corrupt" in found["problems"][0]


def test_an_engine_that_is_not_there_matters_only_where_it_was_asked_for(monkeypatch, model):
    def missing():
        raise EngineAbsent("there is no GPU")

    monkeypatch.setattr("sgrocc.inference.tensorrt_engine.cuda_runtime", missing)
    found = examine(model, ("onnxruntime", "tensorrt"), "fp16", Budget())
    assert found["ok"] and found["engines"]["tensorrt"] == {"missing": "there is no GPU"}
    found = examine(model, ("tensorrt",), "fp16", Budget(), build=True, required=True)
    assert not found["ok"] and found["problems"] == ["tensorrt: there is no GPU"]
    assert doctor.machine()["GPU"] == "unknown (there is no GPU)"


@pytest.mark.parametrize(
    ("budget", "sentences"),
    [
        (Budget(), []),
        (Budget(max_ms=90.0, min_hz=12.5, max_mb=250.0), []),
        (Budget(max_ms=50.0), ["a frame takes 90.0 ms (p95), more than the 50 of the budget"]),
        (Budget(min_hz=30.0), ["12.5 frames a second, less than the 30 of the budget"]),
        (Budget(max_mb=100.0), ["the process has 250 MB, more than the 100 of the budget"]),
        (Budget(1.0, 100.0, 1.0), [None] * 3),
    ],
)
def test_a_budget_is_kept_or_each_part_is_named(budget, sentences):
    found = over_budget(FIGURES, budget)
    assert len(found) == len(sentences) and (sentences[:1] in ([], [None]) or found == sentences)


def test_the_command_ends_with_1_where_the_budget_is_not_kept(capsys):
    assert main(["doctor", "--engine", "onnxruntime", "--min-hz", "100000"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "less than the 100000 of the budget" in shown and shown.endswith("1 problem")


def test_a_dds_profile_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "absent.xml"))
    assert "NOT there" in doctor.machine()["DDS profile"]
    (tmp_path / "absent.xml").write_text("<dds/>")
    assert doctor.machine()["DDS profile"] == str(tmp_path / "absent.xml")


# -- make gpu-check ---------------------------------------------------------------------------------------------------


def test_without_a_gpu_nothing_is_checked_and_no_file_is_written(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: run make gpu-check")
    assert main(["gpu-check", "--json", str(tmp_path / "gpu.json")]) == 2
    assert "this needs an NVIDIA GPU with its driver; nothing was checked: " in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_every_check_has_its_result_whatever_fails(capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: run make gpu-check")
    from sgrocc.export import gpu_check

    found = json.loads(json.dumps(gpu_check.run(find_model("compact"))))
    assert set(found["checks"]) == {"engines", "engines_fp32", "splatting", "training"} and not found["ok"]
    for check in found["checks"].values():
        assert not check["ok"] and (check.get("error") or check["problems"])
    gpu_check.print_table(found)
    assert "Warp finds no CUDA device" in " ".join(capsys.readouterr().out.split())


def test_a_check_that_raises_is_in_the_file_with_its_trace():
    pytest.importorskip("torch")
    from sgrocc.export.gpu_check import _guarded

    found = _guarded(lambda: 1 / 0)
    assert not found["ok"] and found["error"] == "ZeroDivisionError: division by zero" and "1 / 0" in found["trace"]


def test_the_training_of_the_check_learns(monkeypatch):
    pytest.importorskip("torch")
    from sgrocc.export.gpu_check import training_steps

    found = training_steps("cpu", 4)
    assert found["ok"] and found["last_loss"] < found["first_loss"] and found["ms_per_step"] > 0
