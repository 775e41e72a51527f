"""Training and extraction from shards where they lie: the same pixels from each form of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripts.stream_memory import serving, write

from fieldmark.data import readers
from fieldmark.data.loader import StreamedCrops
from fieldmark.data.photos import PhotoFile
from fieldmark.data.storage import fsspec as remote
from fieldmark.data.storage.places import Cell
from fieldmark.data.storage.places import read as read_place
from fieldmark.data.transforms import Preprocess
from fieldmark.training import TrainConfig, train
from fieldmark.utils.threads import RecentValues

fsspec = pytest.importorskip("fsspec", reason="needs the extra `remote`")
COUNT = 60
CROP = Preprocess(size=24, resize=24, fit="squash")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same photos in four tars and four Parquet files: here, on a web server, in a store."""
    pytest.importorskip("aiohttp", reason="needs the extra `remote`")
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.stream_memory.IN_SHARD", COUNT // 4)
        patch.setattr("scripts.stream_memory.CLASSES", 3)
        write(folder, COUNT)
    store = fsspec.filesystem("memory")
    for path in folder.rglob("*.*"):
        store.pipe(f"/shards/{path.relative_to(folder).as_posix()}", path.read_bytes())
    with serving(folder) as url:
        yield {
            f"{form}, {where}": Path(f"{root}/{form}/")
            for where, root in (("here", folder), ("web", url), ("store", "memory://shards"))
            for form in ("tars", "parquet")
        }
    store.rm("/shards", recursive=True)


def test_each_form_streams_the_same_pixels(places: dict[str, Path], cache: Path) -> None:
    found = {}
    for name, place in places.items():
        table = readers.read(place)
        rows = table.kept.sort("sha256").select("sha256", "path").iter_rows()
        photos = [PhotoFile(digest, table.file_of(path)) for digest, path in rows]
        assert len(photos) == COUNT
        found[name] = StreamedCrops(photos, CROP)[np.arange(COUNT)]
    first, *others = found.values()
    assert len({row.tobytes() for row in first}) > 1
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert not any(each.is_file() for each in cache.rglob("*"))


def test_parquet_behind_a_url_is_never_here_as_a_whole(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading copies whole files, but of all four no more than two lie here at a time."""
    copies: list[Path] = []
    most: list[int] = []
    was = remote.download

    def download(place: remote.Remote, target: Path) -> None:
        was(place, target)
        copies.append(target)
        most.append(sum(each.exists() for each in copies))

    table = readers.read(places["parquet, web"])  # by threads, each of which may hold one more copy
    monkeypatch.setattr(remote, "_copies", RecentValues(2))
    monkeypatch.setattr(remote, "download", download)
    for path in table.kept["path"]:
        assert read_place(table.file_of(path))
    assert len(copies) >= 4
    assert max(most) == 2


def test_a_copy_that_is_being_read_stays(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that decode ahead may read of more files than are kept."""
    monkeypatch.setattr(remote, "_copies", RecentValues(2))
    table = readers.read(places["parquet, web"])
    cells = [table.file_of(path) for path in table.kept["path"]]
    files = list(dict.fromkeys(each.file for each in cells if isinstance(each, Cell)))
    with remote.local_copy(files[0]) as first:
        for other in files[1:]:
            with remote.local_copy(other) as here:
                assert here.exists()
            assert first.exists()
    with remote.local_copy(files[1]), remote.local_copy(files[2]):
        assert not first.exists()


def test_a_network_is_trained_from_a_web_server(places: dict[str, Path], tmp_path: Path) -> None:
    """`train --stream`: the curve of the same tars on the disk, by photos that were never written."""
    how = TrainConfig("shufflenet_v2_x0_5", transfer="scratch", epochs=1, engine="torch", stream=True)
    curves = [
        train(places[f"tars, {where}"], out=tmp_path / where, config=how).classifier.provenance["curve"]
        for where in ("here", "web")
    ]
    assert curves[0] == curves[1]
