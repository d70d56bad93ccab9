"""The engine cache: foreign, truncated, corrupt or stale plans are built anew, never run, and never fatal."""

import multiprocessing
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import FUZZ

from sgrocc.inference.engine_cache import EngineCache, EngineKey

KEY = EngineKey(
    name="compact (fusion)",
    onnx_sha256="a" * 64,
    tensorrt_version="tensorrt 10.3.0.30",
    gpu="Orin, 16 SMs, aarch64",
    compute_capability="8.7",
    driver_version="12060",
    cuda_version="12060",
    precision="fp16",
    options="strongly typed",
)
PLAN = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def must_not_build():
    raise AssertionError("it was built although it is there")


def test_what_was_stored_comes_back(cache):
    assert cache.load(KEY) == (None, "not built yet")
    path = cache.store(KEY, PLAN)
    assert cache.load(KEY) == (PLAN, "") and cache.build_where_missing(KEY, must_not_build) == ""
    assert path.parent == cache.folder and path.name.startswith("compact_fusion_-") and path.suffix == ".engine"
    assert path.stat().st_mode & 0o777 == 0o600 and cache.folder.stat().st_mode & 0o777 == 0o700
    assert [entry.suffix for entry in cache.folder.iterdir()] == [".engine"]  # nothing unfinished stays


@pytest.mark.parametrize("field", [field.name for field in fields(EngineKey)])
def test_each_part_of_the_key_makes_another_engine(cache, field):
    cache.store(KEY, PLAN)
    value = getattr(KEY, field)
    other = replace(KEY, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert cache.path(other) != cache.path(KEY) and cache.load(other)[0] is None
    # Also where somebody renames the file.
    cache.path(KEY).rename(cache.path(other))
    assert cache.load(other) == (None, "built for another machine or network")


@pytest.mark.parametrize("kept", [0, 1, 13, 14, 20, 22, 100, 400, -1])
def test_a_truncated_file_is_built_anew(cache, kept):
    path = cache.store(KEY, PLAN)
    path.write_bytes(path.read_bytes()[:kept])
    plan, reason = cache.load(KEY)
    assert plan is None and reason in ("foreign", "truncated")
    assert cache.build_where_missing(KEY, lambda: b"new") == reason
    assert cache.load(KEY) == (b"new", "")


def test_one_changed_byte_anywhere_is_noticed(cache):
    path = cache.store(KEY, PLAN)
    whole = path.read_bytes()
    for place in [*range(0, 500, 7), len(whole) - 1, len(whole) // 2]:
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x20
        path.write_bytes(spoilt)
        assert cache.load(KEY)[0] is None, place


@pytest.mark.fuzz
@settings(max_examples=200 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), real_start=st.booleans())
def test_garbage_is_never_fatal_and_never_a_plan(cache, content, real_start):
    path = cache.path(KEY)
    cache.folder.mkdir(exist_ok=True)
    path.write_bytes((b"SGROCC ENGINE\n" if real_start else b"") + content)
    plan, reason = cache.load(KEY)
    assert plan is None and reason


def test_what_others_may_have_written_is_not_run(cache, tmp_path, monkeypatch):
    path = cache.store(KEY, PLAN)
    path.chmod(0o622)
    assert cache.load(KEY) == (None, "writable for others")
    path.chmod(0o600)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert cache.load(KEY)[0] is None
    path.unlink()
    elsewhere.rename(path)
    assert cache.load(KEY)[0] == PLAN
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cache.load(KEY) == (None, "of another user")
    monkeypatch.undo()
    path.unlink()
    path.mkdir()
    assert cache.load(KEY)[0] is None
    os.rmdir(path)
    os.mkfifo(path)
    assert cache.load(KEY) == (None, "no plain file")  # and nobody waits for a writer


def test_a_cache_that_cannot_be_written_says_so_before_minutes_of_building(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        EngineCache(tmp_path / "file" / "engines").build_where_missing(KEY, must_not_build)


def test_a_build_that_fails_leaves_nothing(cache):
    def build():
        raise ValueError("TensorRT built no engine")

    with pytest.raises(ValueError, match="built no engine"):
        cache.build_where_missing(KEY, build)
    assert not list(cache.folder.glob("*.engine"))
    assert cache.build_where_missing(KEY, lambda: PLAN) == "not built yet" and cache.load(KEY) == (PLAN, "")


def test_a_crash_in_the_middle_of_writing_leaves_the_old_one(cache, monkeypatch):
    cache.store(KEY, PLAN)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("power failure")))
    with pytest.raises(OSError, match="power failure"):
        cache.store(KEY, b"half")
    monkeypatch.undo()
    assert cache.load(KEY) == (PLAN, "") and len(list(cache.folder.iterdir())) == 1


def _build_slowly(folder, log, results):
    import time

    def build():
        with Path(log).open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return PLAN

    cache = EngineCache(folder)
    cache.build_where_missing(KEY, build)
    results.put(cache.load(KEY) == (PLAN, ""))


def test_of_several_processes_at_once_one_builds(tmp_path):
    context = multiprocessing.get_context("spawn")
    log, results = tmp_path / "log", context.Queue()
    arguments = (str(tmp_path / "engines"), str(log), results)
    processes = [context.Process(target=_build_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [True] * 3
    for process in processes:
        process.join(10)
    assert log.read_text() == "built\n"


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SGROCC_ENGINE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache().folder == tmp_path / "sgrocc" / "engines"
    monkeypatch.setenv("SGROCC_ENGINE_CACHE", str(tmp_path / "mine"))
    assert EngineCache().folder == tmp_path / "mine" and EngineCache(tmp_path / "given").folder == tmp_path / "given"
