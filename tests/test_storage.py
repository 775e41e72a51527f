"""Where photos lie: files, members of tars, cells of Parquet files, and objects behind URLs."""

from __future__ import annotations

import io
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.storage import fsspec, places
from fieldmark.data.storage.places import Cell, Remote, TarMember
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason


class Web:
    """A folder behind HTTP on the loopback, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.refuse: Counter[str] = Counter()
        self.status = 503
        self.ranges = True
        self.url = self.leads_to = ""


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    web = Web(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, *, head: bool) -> None:
            name = unquote(self.path.lstrip("/"))
            if not head:
                web.asked[name] += 1
            if name == "moved.jpg":
                return self.send(302, b"", head=head)
            if web.refuse[name] > 0:
                web.refuse[name] -= 1
                return self.send(web.status, b"", head=head)
            path = web.folder / name
            if not path.is_file():
                return self.send(404, b"", head=head)
            data = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and web.ranges:
                start = int(wanted[1])
                end = min(int(wanted[2]) + 1 if wanted[2] else len(data), len(data))
                span = f"bytes {start}-{end - 1}/{len(data)}"
                return self.send(206, data[start:end], head=head, content_range=span)
            return self.send(200, data, head=head)

        def send(self, status: int, data: bytes, *, head: bool, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 302:
                self.send_header("Location", web.leads_to)
            if web.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            if not head:
                self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        web.url = f"http://127.0.0.1:{running.server_port}"
        yield web
        running.shutdown()
        thread.join()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    pytest.importorskip("aiohttp", reason="needs the extra `remote`")
    monkeypatch.setattr(fsspec, "_FIRST_WAIT", 0.001)
    with serving(tmp_path) as running:
        yield running


def tar_of(path: Path, members: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """Write a tar; gives where each member's bytes are, by tarfile's own account."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    with tarfile.open(path) as archive:
        return {each.name: (each.offset_data, each.size) for each in archive}


def reason(place: places.Place, limit: int = places.MAX_BYTES) -> RejectReason:
    with pytest.raises(ImageRejected) as caught:
        places.read(place, limit)
    return caught.value.reason


def test_a_plain_path_stays_one(tmp_path: Path) -> None:
    assert places.at(tmp_path, "a/b#c.jpg") == tmp_path / "a/b#c.jpg"
    assert places.at(tmp_path, "x.tar/1+2.jpg") == tmp_path / "x.tar/1+2.jpg"


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_texts_of_parts_come_back(offset: int, size: int) -> None:
    root = Path("/data")
    text = places.member_text("a/#1/b.tar", offset, size)
    assert places.at(root, text) == TarMember(root / "a/#1/b.tar", offset, size)
    assert str(places.at(root, text)) == f"/data/{text}"
    text = places.cell_text("p-0.parquet", "image.bytes", offset)
    assert places.at(root, text) == Cell(root / "p-0.parquet", "image.bytes", offset)


def test_nothing_is_fetched_below_a_folder(tmp_path: Path, web: Web) -> None:
    (tmp_path / "a.jpg").write_bytes(b"photo")
    assert reason(places.at(tmp_path, f"{web.url}/a.jpg")) is RejectReason.MISSING
    assert not web.asked


class TestParts:
    def test_every_member_is_read_from_where_it_lies(self, tmp_path: Path) -> None:
        members = {f"{n}.jpg": bytes([n]) * (n * 700 + 1) for n in range(20)}
        where = tar_of(tmp_path / "s.tar", members)
        for name, (offset, size) in where.items():
            assert places.read(TarMember(tmp_path / "s.tar", offset, size)) == members[name]

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "s.tar"
        path.write_bytes(b"12345")
        assert reason(TarMember(path, 3, 9)) is RejectReason.TRUNCATED
        assert reason(TarMember(path, 0, 0)) is RejectReason.EMPTY
        assert reason(TarMember(path, 0, 10**17)) is RejectReason.TOO_LARGE
        assert reason(TarMember(tmp_path / "gone.tar", 0, 5)) is RejectReason.MISSING
        assert reason(TarMember(tmp_path, 0, 5)) is RejectReason.UNREADABLE
        assert reason(TarMember(path, 10**17, 5)) is RejectReason.TRUNCATED


class TestCells:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        path = tmp_path / "p.parquet"
        cells = [f"photo {n}".encode() for n in range(200)]
        struct = [{"bytes": cell, "path": None} for cell in cells]
        frame = pl.DataFrame({"jpg": [*cells[:-1], None], "image": struct, "a.b": cells, "c.d": struct})
        frame.write_parquet(path, row_group_size=50)
        return path

    def test_binary_columns_and_structs(self, table: Path) -> None:
        for column in ("jpg", "image.bytes", "a.b", "c.d.bytes"):
            for row in (0, 63, 64, 130, 198):
                assert places.read(Cell(table, column, row)) == f"photo {row}".encode()

    def test_what_cannot_be_read(self, table: Path, tmp_path: Path) -> None:
        assert reason(Cell(table, "jpg", 199)) is RejectReason.EMPTY
        assert reason(Cell(table, "jpg", 200)) is RejectReason.MISSING
        assert reason(Cell(table, "jpg", 10**17)) is RejectReason.MISSING
        assert reason(Cell(table, "gone", 0)) is RejectReason.UNREADABLE
        assert reason(Cell(table, "jpg", 0), limit=3) is RejectReason.TOO_LARGE
        assert reason(Cell(tmp_path / "gone.parquet", "jpg", 0)) is RejectReason.MISSING
        (tmp_path / "bad.parquet").write_bytes(table.read_bytes()[:500])
        assert reason(Cell(tmp_path / "bad.parquet", "jpg", 0)) is RejectReason.UNREADABLE

    def test_a_block_that_many_want_is_read_once(self, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, blocks = places.cells, Counter[int]()

        def counting(file: Path, column: str, start: int, rows: int) -> list[bytes | None]:
            blocks[start] += 1
            return whole(file, column, start, rows)

        monkeypatch.setattr(places, "cells", counting)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: places.read(Cell(table, "jpg", n)), range(199)))
        assert found == [f"photo {n}".encode() for n in range(199)]
        assert blocks == {0: 1, 64: 1, 128: 1, 192: 1}


class TestRemote:
    def test_urls_are_named_in_a_few_ways(self) -> None:
        for text in ("s3://b/c d", "gs://b", "https://h/p", "http://h:1/p"):
            assert fsspec.parse_url(text) == Remote(text)
            assert fsspec.parse_url(Path(text)) == Remote(text)  # pathlib folds the slashes
        for text in ("photos", "/a/b", "c:/x", "file:///etc", "simplecache::s3://b", "ftp://h/p"):
            assert fsspec.parse_url(text) is None

    def test_an_object_is_read_below_its_root(self, tmp_path: Path, web: Web) -> None:
        (tmp_path / "bär #1.jpg").write_bytes(b"photo")
        place = places.at(places.root_of(web.url), "bär #1.jpg")
        assert places.read(place) == b"photo"
        assert reason(place, limit=4) is RejectReason.TOO_LARGE
        assert reason(places.at(Remote(web.url), "gone.jpg")) is RejectReason.MISSING

    def test_no_path_leads_above_the_root(self, web: Web) -> None:
        for path in ("../a.jpg", "b/../../a.jpg", "..\\a.jpg"):
            assert reason(places.at(Remote(f"{web.url}/deep"), path)) is RejectReason.OUTSIDE
        other = places.at(Remote(f"{web.url}/deep"), "http://127.0.0.1:1/a.jpg")
        assert str(other).startswith(f"{web.url}/deep/")
        assert not web.asked

    def test_a_server_that_stumbles_is_asked_again(self, tmp_path: Path, web: Web) -> None:
        (tmp_path / "a.jpg").write_bytes(b"photo")
        web.refuse["a.jpg"] = 2
        assert places.read(Remote(web.url) / "a.jpg") == b"photo"
        assert web.asked["a.jpg"] >= 2

    def test_no_answer_ends_the_run_with_one_sentence(self, web: Web) -> None:
        web.refuse["a.jpg"] = 1000
        with pytest.raises(InputError, match=r"could not be read .*503") as caught:
            places.read(Remote(web.url) / "a.jpg")
        assert not isinstance(caught.value, ImageRejected)

    def test_a_redirect_is_followed_on_the_same_host_alone(self, tmp_path: Path, web: Web) -> None:
        (tmp_path / "a.jpg").write_bytes(b"photo")
        web.leads_to = "/a.jpg"
        assert places.read(Remote(web.url) / "moved.jpg") == b"photo"
        for there in (web.url.replace("127.0.0.1", "localhost") + "/a.jpg", "http://169.254.169.254/"):
            web.leads_to = there
            assert reason(Remote(web.url) / "moved.jpg") is RejectReason.OUTSIDE

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_credentials_are_one_sentence(self, web: Web, status: int) -> None:
        web.refuse["a.jpg"], web.status = 1000, status
        with pytest.raises(InputError, match=r"may not be read .*give credentials"):
            places.read(Remote(web.url) / "a.jpg")
        assert web.asked["a.jpg"] == 1

    def test_a_shard_is_asked_for_block_by_block(
        self, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fsspec, "BLOCK", 4096)
        members = {f"{n}.jpg": bytes([n]) * 900 for n in range(30)}
        where = tar_of(tmp_path / "s.tar", members)
        root = Remote(web.url)
        for name, (offset, size) in where.items():
            place = places.at(root, places.member_text("s.tar", offset, size))
            assert places.read(place) == members[name]
        blocks = -(-(tmp_path / "s.tar").stat().st_size // 4096)
        assert web.asked["s.tar"] <= blocks
        assert reason(TarMember(root / "s.tar", 10**9, 5)) is RejectReason.TRUNCATED

    def test_a_server_without_parts_is_said(
        self, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fsspec, "BLOCK", 4096)
        web.ranges = False
        tar_of(tmp_path / "whole.tar", {"a": b"x" * 9000})
        with pytest.raises(InputError, match=r"gives no parts|could not be read"):
            places.read(TarMember(Remote(web.url) / "whole.tar", 4096, 100))

    def test_a_cell_behind_a_url(self, tmp_path: Path, web: Web) -> None:
        pl.DataFrame({"jpg": [b"one", b"two"]}).write_parquet(tmp_path / "p.parquet")
        found = places.at(Remote(web.url), places.cell_text("p.parquet", "jpg", 1))
        assert places.read(found) == b"two"
        assert places.read(found) == b"two"

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(url: str) -> None:
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr("fsspec.core.url_to_fs", missing)
        with pytest.raises(InputError, match=r"pip install 'fieldmark\[remote\]'"):
            places.read(Remote("s3://bucket/a.jpg"))
