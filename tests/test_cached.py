"""A cache that cannot be written to: what inference needs is kept until the process ends."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fieldmark.models import Backbone, load
from fieldmark.models.runtime import chosen_before, engine, graphs, relative_error, selection
from fieldmark.utils import cached, io
from fieldmark.utils.random import generator

CROPS = generator(1, "cached").integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small() -> Backbone:
    return load("squeezenet1_1", weights="random")


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds out anew what can be written to."""
    monkeypatch.setattr(cached, "_can_be_written", functools.cache(cached._can_be_written.__wrapped__))
    monkeypatch.setattr(cached, "_of_this_process", functools.cache(cached._of_this_process.__wrapped__))


@pytest.fixture
def no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that cannot be made, since its parent is a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path / "file"


@pytest.mark.usefixtures("no_folder")
def test_engines_work_without_a_cache(small: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = engine(small, "onnxruntime")
        assert relative_error(found(CROPS), engine(small, "torch")(CROPS)) < 1e-3
        first = graphs.graph(small)
        assert engine(small).name == selection.cached_choice(small.architecture, 32)
        assert chosen_before(small.key, small.architecture, small.tier) is not None
    assert graphs.graph(small) == first  # converted once
    (warning,) = [each.message for each in caplog.records if "cannot be written to" in each.message]
    assert "Set FIELDMARK_CACHE to another folder" in warning


def test_the_temporary_folder_goes_with_the_process(no_folder: Path) -> None:
    program = """if True:
        from fieldmark.utils.cached import cached_file
        path = cached_file("graphs", "some.onnx")
        path.write_bytes(b"1")
        print(cached_file("graphs", "some.onnx") == path)
        print(path)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    same, path = done.stdout.split()
    assert same == "True"
    assert not Path(path).is_relative_to(no_folder)
    assert not Path(path).parent.exists()


def test_what_a_read_only_cache_has_is_used(
    small: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
    kept = graphs.graph(small)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(cached, "_can_be_written", lambda folder: False)
    assert graphs.graph(small) == kept
    assert engine(small, batch=3).name  # measured; the choice is kept elsewhere
    assert selection.cached_choice(small.architecture, 3) is not None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_does_not_stop_an_engine(
    small: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
    graphs.graph(small)
    graphs._expected_path(small.key).unlink()

    def full(*args: object, **options: object) -> None:
        raise io.not_written(tmp_path, OSError(28, "No space left on device"))

    monkeypatch.setattr(io, "write_json", full)
    assert engine(small, batch=3).name
    assert selection.cached_choice(small.architecture, 3) is None
