"""What all tests share: the real photos beside the checkout, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos, annotations, weights and broken files beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real photos are not beside this checkout (../shared)")
    return SHARED


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: no test sees what another one kept."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder))
    return folder
