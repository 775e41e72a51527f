"""`fieldmark cache`: sizes, damage and age of what is kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fieldmark.cli import app
from fieldmark.features.cache import _SOUND, FeatureStore
from fieldmark.utils import io


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with ten vectors and a graph."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    with FeatureStore().cache("b", "p", 4).writing() as writer:
        writer.append([f"{number:064x}" for number in range(1, 11)], np.ones((10, 4)))
    io.write_bytes(tmp_path / "cache" / "graphs" / "g.onnx", b"graph" * 1000, seal=True)
    return tmp_path / "cache"


def cache(*words: str) -> str:
    done = CliRunner().invoke(app, ["cache", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_size_names_what_is_there(kept: Path) -> None:
    assert "converted networks" in cache("size")
    assert "0.0 MB  in all" in cache("size", "--cache", str(kept / "nowhere"))


def test_verify_finds_damage_and_drops_it(kept: Path) -> None:
    assert cache("verify") == "10 vectors checked, 0 damaged\n1 files checked, 0 damaged\n"
    (vectors,) = kept.glob("features/*/vectors.bin")
    np.memmap(vectors, np.uint8, "r+")[9] ^= 1
    (kept / "graphs" / "g.onnx").write_bytes(b"grapf" * 1000)
    _SOUND.clear()
    assert "10 vectors checked, 1 damaged\n1 files checked, 1 damaged\n" in cache("verify")
    assert cache("verify") == "10 vectors checked, 0 damaged\n0 files checked, 0 damaged\n"
    store = FeatureStore().cache("b", "p", 4)
    assert (store.rows([f"{number:064x}" for number in range(1, 11)]) < 0).sum() == 1


def test_prune_removes_what_was_not_used(kept: Path) -> None:
    assert cache("prune").startswith("0.0 MB")
    assert list(kept.glob("features/*/vectors.bin"))
    for name in ("old", "new"):
        io.write_bytes(kept / "crops" / "ab" / f"{name}.jpg", b"crop")
    old = kept / "crops" / "ab" / "old.jpg"
    for path in (*kept.glob("features/*/about.json"), *kept.glob("graphs/*"), old):
        os.utime(path, (0, 0))
    FeatureStore().cache("b", "p", 4)  # used again
    cache("prune", "--unused", "30")
    assert list(kept.glob("features/*/vectors.bin"))
    assert not list(kept.glob("graphs/*"))
    assert [path.name for path in kept.glob("crops/*/*")] == ["new.jpg"]
    cache("prune", "--unused", "0")
    assert not list(kept.glob("features/*"))
