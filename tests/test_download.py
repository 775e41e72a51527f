"""Fetching from a server on loopback with the published layout, which also misbehaves."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

from fieldmark.cli import app
from fieldmark.data import download, readers
from fieldmark.data.download import challenges, http
from fieldmark.data.download.selection import choose
from fieldmark.data.download.unpack import unpack
from fieldmark.data.readers import inat_tables
from fieldmark.utils.errors import InputError


def draw_photo(label: int, number: int) -> bytes:
    """A small JPEG of noise that differs from every other."""
    pixels = np.random.default_rng([label, number]).integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


QUICK = download.RetryPolicy(workers=4, rate=10_000, tries=3, pause=0.01, timeout=5)


@pytest.fixture
def server() -> Iterator[Any]:
    """`files` by path; `faults` by path: each is called once, instead of an answer, and then gone."""
    files: dict[str, bytes] = {}
    faults: dict[str, list[Callable[[BaseHTTPRequestHandler, bytes, int], None]]] = {}
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Range", "")))
            data = files.get(self.path)
            if data is None:
                self.answer(404, b"")
                return
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(span[1]) if span and self.headers.get("If-Range") == tag else 0
            if waiting := faults.get(self.path):
                waiting.pop(0)(self, data, start)
                return
            more = {"ETag": tag}
            if start:
                more["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206 if start else 200, data[start:], more)

        def answer(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(more or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{httpd.server_port}", files=files, faults=faults, asked=asked
    )
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def cut(share: float) -> Callable[[Any, bytes, int], None]:
    def fault(handler: Any, data: bytes, start: int) -> None:
        rest = data[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        handler.send_header("Content-Length", str(len(rest)))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(rest[: int(share * len(rest))])
        handler.close_connection = True

    return fault


def wrong(handler: Any, data: bytes, start: int) -> None:
    handler.answer(200, data[:-1] + b"?", {"ETag": '"other"'})


def busy(status: int, after: str) -> Callable[[Any, bytes, int], None]:
    return lambda handler, data, start: handler.answer(status, b"", {"Retry-After": after})


def tar_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as pack:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            pack.addfile(entry, io.BytesIO(data))
    return file.getvalue()


# Challenges


@pytest.fixture
def published(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small challenge of 2019 on the server, with the digests that its files have."""
    photos = {f"train_val2019/Birds/{n % 2}/{n}.jpg": draw_photo(n % 2, n) for n in range(8)}

    def listing(numbers: range) -> bytes:
        images = [{"id": n, "file_name": f"train_val2019/Birds/{n % 2}/{n}.jpg"} for n in numbers]
        labels = [{"id": n, "image_id": n, "category_id": n % 2} for n in numbers]
        kinds = [{"id": n, "name": f"Genus species{n}"} for n in range(2)]
        return repr({"images": images, "annotations": labels, "categories": kinds}).replace("'", '"').encode()

    packed = {
        "train2019.json.tar.gz": tar_of({"train2019.json": listing(range(6))}),
        "val2019.json.tar.gz": tar_of({"val2019.json": listing(range(6, 8))}),
        "categories.json.tar.gz": tar_of(
            {"categories.json": b'[{"id": 0, "name": "Parus major"}, {"id": 1, "name": "Pica pica"}]'}
        ),
        "train_val2019.tar.gz": tar_of(photos),
    }
    server.files |= {f"/2019/{name}": data for name, data in packed.items()}
    known = tuple(
        replace(a, md5=hashlib.md5(packed[a.name]).hexdigest() if a.md5 else "")
        for a in challenges.CHALLENGES["2019"]
        if a.name in packed
    )
    monkeypatch.setitem(challenges.CHALLENGES, "2019", known)
    return SimpleNamespace(
        server=server, photos=photos, challenge=download.Challenge("2019", base=server.url)
    )


def test_a_challenge_is_fetched_checked_and_read(published: Any, tmp_path: Path) -> None:
    out = tmp_path / "inat"
    done = download.fetch_challenge(published.challenge, out, QUICK)
    assert [about["held_to"][:3] for about in done] == ["its", "its", "not", "its"]
    table = readers.read(out)
    assert table.kept.height == 8
    assert {taxon.name for taxon in table.taxonomy} == {"Parus major", "Pica pica"}
    assert (out / "train_val2019/Birds/0/0.jpg").read_bytes() == published.photos[
        "train_val2019/Birds/0/0.jpg"
    ]
    assert not list(out.rglob("*.part*"))
    assert not list((out / "archives").iterdir())
    before = len(published.server.asked)
    left = out / "archives" / "val2019.json.tar.gz"  # by a kill before it was removed
    left.write_bytes(b"whole, and unpacked")
    assert download.fetch_challenge(published.challenge, out, QUICK) == done
    assert len(published.server.asked) == before
    assert not left.exists()


def test_a_download_goes_on_where_it_was_cut_off(published: Any, tmp_path: Path) -> None:
    path = "/2019/train_val2019.tar.gz"
    published.server.faults[path] = [cut(0.5), cut(0.5), busy(503, "0")]
    download.fetch_challenge(published.challenge, tmp_path / "inat", QUICK)
    size = len(published.server.files[path])
    ranges = [span for asked, span in published.server.asked if asked == path]
    assert ranges[0] == ""
    assert [int(span[6:-1]) for span in ranges[1:]] == [size // 2, *2 * [size // 2 + (size - size // 2) // 2]]


def test_a_later_run_goes_on_and_never_joins_two_versions(published: Any, tmp_path: Path) -> None:
    path, out = "/2019/train_val2019.tar.gz", tmp_path / "inat"
    published.server.faults[path] = [cut(0.5), *[busy(500, "")] * 3]
    with pytest.raises(InputError, match=r"3 tries.*500.*it resumes"):
        download.fetch_challenge(published.challenge, out, QUICK)
    part = out / "archives/train_val2019.tar.gz.part"
    assert part.stat().st_size == len(published.server.files[path]) // 2
    assert not part.with_suffix("").exists()
    assert not (out / "train_val2019").exists()
    # The same file again: the rest alone is asked for. Another version on the server: all of it.
    part.with_name(f"{part.name}.json").write_text('{"version": "\\"older\\"", "bytes": 99}')
    download.fetch_challenge(published.challenge, out, QUICK)
    assert readers.read(out).kept.height == 8


def test_a_disk_that_refuses_the_last_step_is_one_sentence(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fieldmark.utils.io.settle", refused)
    with pytest.raises(InputError, match=r"could not be written \(Read-only file system\)"):
        download.fetch_challenge(published.challenge, tmp_path / "inat", QUICK)


def test_wrong_bytes_are_thrown_away(published: Any, tmp_path: Path) -> None:
    path, out = "/2019/train2019.json.tar.gz", tmp_path / "inat"
    published.server.faults[path] = [wrong]
    download.fetch_challenge(published.challenge, out, QUICK)
    published.server.faults[path] = [wrong, wrong]
    with pytest.raises(InputError, match=r"wrong content twice.*MD5 is .* is published"):
        download.fetch_challenge(published.challenge, tmp_path / "other", QUICK)
    assert not list((tmp_path / "other/archives").iterdir())
    assert not list((tmp_path / "other").glob("train*"))


def test_what_is_not_there_or_out_of_reach_is_one_sentence(server: Any, tmp_path: Path) -> None:
    missing = download.Challenge("2021", base=server.url)
    with pytest.raises(InputError, match=r"HTTP 404"):
        download.fetch_challenge(missing, tmp_path / "a", QUICK)
    nobody = download.Challenge("2021", base="http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"3 tries .the connection failed"):
        download.fetch_challenge(nobody, tmp_path / "b", QUICK)
    server.files["/2021/train.json.tar.gz"] = b"x"
    server.faults["/2021/train.json.tar.gz"] = [busy(403, "")]
    with pytest.raises(InputError, match=r"refused .HTTP 403.: it needs credentials"):
        download.fetch_challenge(missing, tmp_path / "c", QUICK)
    with pytest.raises(InputError, match=r"no part 'tain': choose of train, train_mini, val, test"):
        download.Challenge("2021", ("tain",)).archives()


def test_a_busy_server_is_left_alone_as_long_as_it_asks(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/x"] = b"bytes"
    server.faults["/x"] = [busy(429, "7"), busy(503, "Wed, 21 Oct 2015 07:28:00 GMT")]
    with http.Downloads(QUICK) as downloads:
        waits: list[float] = []
        monkeypatch.setattr(
            downloads, "_stop", SimpleNamespace(wait=waits.append, is_set=lambda: False, set=lambda: None)
        )
        assert downloads.read(f"{server.url}/x", bytes, 100) == b"bytes"
    assert max(waits) == 7
    assert sum(wait > 6 for wait in waits) > 1  # at the pause, and at the gate for all threads
    with http.Downloads(QUICK) as downloads, pytest.raises(InputError, match="larger than 3 bytes"):
        downloads.read(f"{server.url}/x", bytes, 3)


def test_requests_are_no_faster_than_is_polite(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/x"] = b"bytes"
    now = [0.0]
    monkeypatch.setattr(http.time, "monotonic", lambda: now[0])
    with http.Downloads(replace(QUICK, rate=4)) as downloads:
        waits: list[float] = []
        monkeypatch.setattr(
            downloads, "_stop", SimpleNamespace(wait=waits.append, is_set=lambda: False, set=lambda: None)
        )
        for _ in range(4):
            downloads.read(f"{server.url}/x", bytes, 100)
    assert waits == [0, 0.25, 0.5, 0.75]


def test_published_checksums_are_of_the_right_form_and_differ() -> None:
    every = [archive for year in challenges.CHALLENGES.values() for archive in year]
    sums = [archive.md5 for archive in every if archive.md5]
    assert len(every) == 28
    assert len(set(sums)) == len(sums) == 22
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in sums)


# Archives


def linked(kind: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as pack:
        entry = tarfile.TarInfo("a/link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        pack.addfile(entry)
    return file.getvalue()


HOSTILE = {
    "climbs.tar.gz": (tar_of({"ok.jpg": b"1", "../out.jpg": b"2"}), "leads out"),
    "absolute.tar.gz": (tar_of({"/out.jpg": b"2"}), "leads out"),
    "symbolic.tar.gz": (linked(tarfile.SYMTYPE), "a link or a device"),
    "hard.tar.gz": (linked(tarfile.LNKTYPE), "a link or a device"),
    "device.tar.gz": (linked(tarfile.CHRTYPE), "a link or a device"),
    "twice.tar.gz": (tar_of({"a/x.json": b"1", "b/x.json": b"2"}), "twice"),
    "cut.tar.gz": (tar_of({"a": bytes(range(256)) * 99})[:-200], "cannot be used"),
    "bomb.tar.gz": (tar_of({"a": bytes(10**8)}), "100 times"),
    "empty.tar.gz": (tar_of({}), "has no files"),
    "no.zip": (b"no zip", "cannot be used"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_leave_nothing(name: str, tmp_path: Path) -> None:
    data, said = HOSTILE[name]
    archive, folder = tmp_path / "pack" / name, tmp_path / "pack" / "folder"
    folder.mkdir(parents=True)
    archive.write_bytes(data)
    with pytest.raises(InputError, match=said):
        unpack(archive, folder, lambda size: None)
    assert not list(folder.rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_zip_is_unpacked_and_a_kill_costs_only_what_was_not_done(tmp_path: Path) -> None:
    archive, folder = tmp_path / "lists.zip", tmp_path / "folder"
    with zipfile.ZipFile(archive, "w") as pack:
        pack.writestr("deep/train2017.json", "{}")
        pack.writestr("a/1.jpg", b"new")
        pack.writestr("a/2.jpg", b"two")
    staged = folder / ".unpacking-lists.zip/a"
    staged.mkdir(parents=True)
    (staged / "1.jpg").write_bytes(b"old")  # of the same size: taken for done
    unpack(archive, folder, lambda size: None)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"train2017.json": b"{}", "a/1.jpg": b"old", "a/2.jpg": b"two"}
    (folder / "a/2.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists with other content"):
        unpack(archive, folder, lambda size: None)
    assert (folder / "a/2.jpg").read_bytes() == b"mine"


# Open data

TAXA = [
    ("1", "", "kingdom", "Animalia", "true"),
    ("2", "1", "family", "Paridae", "true"),
    ("3", "1/2", "genus", "Parus", "true"),
    ("4", "1/2/3", "species", "Parus major", "true"),
    ("5", "1/2/3/4", "subspecies", "Parus major major", "true"),
    ("6", "1/2/3", "species", "Parus minor", "true"),
    ("7", "1", "genus", "Pica", "true"),
    ("8", "1/7", "species", "Pica pica", "true"),
    ("9", "1", "genus", "Parus", "false"),
]


def gz(header: str, rows: list[tuple[object, ...]]) -> bytes:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    return gzip.compress(
        "\n".join(line.replace(",", "\t") for line in lines[:1]).encode()
        + b"\n"
        + "".join(f"{line}\n" for line in lines[1:]).encode()
    )


@pytest.fixture
def bucket(server: Any) -> Any:
    """60 observations with two photos each; every 6th casual, every 5th far away; NC for odd ones."""
    observations, photos = [], []
    for n in range(60):
        taxon = (4, 5, 6, 8)[n % 4]
        grade = "casual" if n % 6 == 0 else "research"
        latitude = -40.0 if n % 5 == 0 else 50.0
        observations.append((f"uuid-{n}", n % 3, latitude, 10.0, 5, taxon, grade, "2024-05-01"))
        licence = "CC-BY-NC" if n % 2 else "CC0"
        for position in (1, 0):
            number = 2 * n + position
            photos.append((f"p{n}", number, f"uuid-{n}", n % 3, "jpg", licence, 9, 9, position))
            server.files[f"/photos/{number}/medium.jpg"] = draw_photo(n % 4, number)
    server.files |= {
        "/taxa.csv.gz": gz("taxon_id,ancestry,rank,name,active", TAXA),
        "/observations.csv.gz": gz(
            "observation_uuid,observer_id,latitude,longitude,positional_accuracy,taxon_id,"
            "quality_grade,observed_on",
            observations,
        ),
        "/photos.csv.gz": gz(
            "photo_uuid,photo_id,observation_uuid,observer_id,extension,license,width,height,position", photos
        ),
        "/observers.csv.gz": gz(
            "observer_id,login,name", [(0, "ann", 'Ann "A" O\'Hara'), (1, "bob", ""), (2, "eve", "Eve")]
        ),
    }
    return server


def wanted(bucket: Any, **more: Any) -> download.PhotoQuery:
    return download.PhotoQuery(**{"taxa": ("parus",), "photos": 8, "base": bucket.url} | more)


def test_a_data_set_of_ones_own(bucket: Any, tmp_path: Path) -> None:
    choice = wanted(bucket, place=(45.0, 5.0, 55.0, 15.0))
    got = download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK)
    rows = pl.read_csv(got.table)
    numbers = rows["group"].str.strip_prefix("uuid-").cast(pl.Int64)
    assert (numbers % 5 != 0).all()
    assert (numbers % 6 != 0).all()
    assert Counter(rows["label"]) == {"Parus major": 8, "Parus minor": 8}
    assert rows["group"].is_unique().all()
    assert set(rows["attribution"]) <= {
        'Ann "A" O\'Hara, no rights reserved (CC0)',
        '© Ann "A" O\'Hara, some rights reserved (CC-BY-NC)',
        "bob, no rights reserved (CC0)",
        "© bob, some rights reserved (CC-BY-NC)",
        "Eve, no rights reserved (CC0)",
        "© Eve, some rights reserved (CC-BY-NC)",
    }
    photo = rows["file_name"].str.extract(r"(\d+)\.jpg").cast(pl.Int64)
    assert (photo == 2 * numbers).all()  # the first photo of each observation
    table = readers.read(got.table)
    assert table.kept.height == 16
    assert {taxon.ranks["genus"] for taxon in table.taxonomy} == {"Parus"}
    assert {taxon.ranks["family"] for taxon in table.taxonomy} == {"Paridae"}
    asked = len(bucket.asked)
    assert download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK) == got
    assert len(bucket.asked) == asked
    with pytest.raises(InputError, match="another query"):
        download.fetch_open_data(replace(choice, seed=1), tmp_path / "own", retry_policy=QUICK)


def test_the_choice_is_a_function_of_the_seed_whatever_the_block(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in inat_tables.NAMES:
        (tmp_path / f"{name}.csv.gz").write_bytes(bucket.files[f"/{name}.csv.gz"])
    whole = choose(wanted(bucket, photos=4), tmp_path)
    assert not whole.equals(choose(wanted(bucket, photos=4, seed=1), tmp_path))
    monkeypatch.setattr(inat_tables.blocks, "__defaults__", (100,))
    assert whole.equals(choose(wanted(bucket, photos=4), tmp_path))


def test_licences_and_taxa_that_are_asked_for(bucket: Any, tmp_path: Path) -> None:
    for name in inat_tables.NAMES:
        (tmp_path / f"{name}.csv.gz").write_bytes(bucket.files[f"/{name}.csv.gz"])
    free = choose(wanted(bucket, licences=("CC0",), research=False, photos=99), tmp_path)
    assert set(free["licence"]) == {"CC0"}
    assert free.height == 30
    assert set(choose(wanted(bucket, taxa=("8", "4")), tmp_path)["label"]) == {"Parus major", "Pica pica"}
    with pytest.raises(InputError, match=r"no taxon 'Parus mojor'.*did you mean Parus major"):
        choose(wanted(bucket, taxa=("Parus mojor",)), tmp_path)
    with pytest.raises(InputError, match="No photo matches: 2 species"):
        choose(wanted(bucket, place=(0.0, 0.0, 1.0, 1.0)), tmp_path)
    for bad in ({"taxa": ()}, {"licences": ("GPL",)}, {"place": (9.0, 0.0, 1.0, 1.0)}):
        with pytest.raises(InputError):
            wanted(bucket, **bad)


def test_photos_that_are_not_to_be_had_are_named(bucket: Any, tmp_path: Path) -> None:
    choice = wanted(bucket, photos=4)
    first, second, third = (
        row["url"].removeprefix(bucket.url) for row in _chosen(choice, bucket, tmp_path)[:3]
    )
    del bucket.files[first]
    bucket.files[second] = bucket.files[second][:900]  # half a picture, twice
    bucket.faults[third] = [cut(0.3), busy(429, "0")]
    got = download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK)
    assert (got.photos, got.failed) == (6, 2)
    lost = pl.read_csv(tmp_path / "own/not-fetched.csv")
    assert lost["reason"].str.contains("404|truncated").all()
    assert not list((tmp_path / "own").rglob("*.part"))


def _chosen(choice: download.PhotoQuery, bucket: Any, folder: Path) -> list[dict[str, Any]]:
    for name in inat_tables.NAMES:
        (folder / f"{name}.csv.gz").write_bytes(bucket.files[f"/{name}.csv.gz"])
    return choose(choice, folder).to_dicts()


def test_a_stop_in_the_middle_costs_no_photo(bucket: Any, tmp_path: Path) -> None:
    choice = wanted(bucket, photos=4)
    last = _chosen(choice, bucket, tmp_path)[-1]["url"].removeprefix(bucket.url)
    bucket.faults[last] = [busy(500, "")] * 3
    with pytest.raises(InputError, match="it resumes"):
        download.fetch_open_data(choice, tmp_path / "own", retry_policy=replace(QUICK, workers=1))
    assert not (tmp_path / "own/photos.csv").exists()
    bucket.asked.clear()
    tables = tmp_path / "own/tables"
    (tables / "photos.csv.gz.part.json").touch()  # a kill came after the file had its name
    (tmp_path / "own/chosen.parquet").unlink()
    got = download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK)
    assert got.photos == 8
    assert not list(tables.glob("*.part*"))
    assert bucket.asked == [(last, "")]


def hang(share: float, reached: threading.Event, let_go: threading.Event) -> Callable[..., None]:
    """Send a part, then nothing: long enough to be killed in the middle of it."""

    def fault(handler: Any, data: bytes, start: int) -> None:
        handler.send_response(200)
        handler.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: int(share * len(data))])
        handler.wfile.flush()
        reached.set()
        let_go.wait(30)
        handler.close_connection = True

    return fault


def test_a_kill_in_the_middle_costs_what_was_under_way(bucket: Any, tmp_path: Path) -> None:
    """SIGKILL within a table, then within a photo: each run goes on, and the end is that of no kill."""
    choice = wanted(bucket, photos=4, taxa=("Parus",))
    photos = [row["url"].removeprefix(bucket.url) for row in _chosen(choice, bucket, tmp_path)]
    whole = download.fetch_open_data(choice, tmp_path / "whole", retry_policy=QUICK).table
    bucket.asked.clear()
    # Noise that gzip cannot shrink, below the table's rows: so that half of the table is many blocks.
    noise = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes().hex().encode()
    text = gzip.decompress(bucket.files["/taxa.csv.gz"])
    bucket.files["/taxa.csv.gz"] = gzip.compress(text + b"99\t\tgenus\t" + noise + b"\tfalse\n")
    out = tmp_path / "own"
    words = ["fetch", "open-data", "--out", str(out), "--taxon", "Parus", "--photos", "4"]
    command = [sys.executable, "-m", "fieldmark", *words, "--from", bucket.url, "--rate", "1000"]
    let_go = threading.Event()
    part = out / "tables" / "taxa.csv.gz.part"
    for path, lying in (("/taxa.csv.gz", part), (photos[-1], out / "chosen.parquet")):
        reached = threading.Event()
        bucket.faults[path] = [hang(0.5, reached, let_go)]
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        assert reached.wait(60)
        while not lying.exists() or (lying == part and not part.stat().st_size):
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
        assert running.wait() == -signal.SIGKILL
        assert not (out / "photos.csv").exists()
    let_go.set()
    got = {path.name for path in out.rglob("*.jpg")}
    first, second = (span for path, span in bucket.asked if path == "/taxa.csv.gz")
    assert (first, second[:6]) == ("", "bytes=")  # the rest of the table alone
    bucket.asked.clear()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert (out / "photos.csv").read_bytes() == whole.read_bytes()
    assert {path for path, _ in bucket.asked} <= set(photos)  # no table again
    assert len(bucket.asked) == len(photos) - len(got)  # and no photo that was there


def test_a_damaged_table_is_refused(bucket: Any, tmp_path: Path) -> None:
    cases = {
        bucket.files["/photos.csv.gz"][:-30]: "truncated or damaged",
        gzip.compress(b"a\tb\n1\t2\n"): "has no column 'photo_id'",
    }
    for number, (data, said) in enumerate(cases.items()):
        bucket.files["/photos.csv.gz"] = data
        with pytest.raises(InputError, match=said):
            download.fetch_open_data(wanted(bucket), tmp_path / str(number), retry_policy=QUICK)


def test_a_table_of_a_header_alone_is_refused(bucket: Any, tmp_path: Path) -> None:
    for name in inat_tables.NAMES:
        whole = dict(bucket.files)
        header = gzip.decompress(whole[f"/{name}.csv.gz"]).split(b"\n")[0] + b"\n"
        bucket.files[f"/{name}.csv.gz"] = gzip.compress(header)
        with pytest.raises(InputError, match=f"{name}.csv.gz has no row below its header"):
            download.fetch_open_data(wanted(bucket), tmp_path / name, retry_policy=QUICK)
        bucket.files.update(whole)


def test_a_photo_that_is_too_large_is_left_out_and_the_others_come(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = wanted(bucket, photos=4)
    large = _chosen(choice, bucket, tmp_path)[0]["url"].removeprefix(bucket.url)
    bucket.files[large] += b"x" * 2_000_000
    monkeypatch.setattr("fieldmark.data.download.open_data._PHOTO_LIMIT", 2_000_000)
    got = download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK)
    assert (got.photos, got.failed) == (7, 1)
    lost = pl.read_csv(tmp_path / "own/not-fetched.csv")
    assert lost["reason"].str.contains("larger than 2,000,000 bytes").all()


def test_where_no_photo_is_to_be_had_nothing_is_called_ready(bucket: Any, tmp_path: Path) -> None:
    choice = wanted(bucket, photos=1)
    for row in _chosen(choice, bucket, tmp_path):
        del bucket.files[row["url"].removeprefix(bucket.url)]
    with pytest.raises(InputError, match="None of the 2 photos is available"):
        download.fetch_open_data(choice, tmp_path / "own", retry_policy=QUICK)
    assert pl.read_csv(tmp_path / "own/not-fetched.csv").height == 2
    assert not (tmp_path / "own/photos.csv").exists()


# The verb


@pytest.mark.parametrize(
    "words",
    [
        ["inat2021", "--licence", "CC0"],
        ["inat2019", "--taxon", "Parus"],
        ["open-data", "--parts", "train", "--taxon", "Parus"],
        ["open-data", "--no-images", "--taxon", "Parus"],
        ["inat2021", "--photos", "100"],
        ["inat2018", "--size", "large"],
        ["inat2018", "--no-research"],
        ["inat2018", "--research"],
        ["inat2017", "--seed", "0"],
    ],
)
def test_an_option_of_the_other_kind_is_refused(words: list[str], tmp_path: Path) -> None:
    nowhere = ["--from", "http://127.0.0.1:1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "fieldmark", "fetch", *words, *nowhere]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{words[1]} does not apply to {words[0]}: leave it out." in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["open-data"], "Which taxa?"),
        (["open-data", "--taxon", "Parus", "--place", "here"], "SOUTH,WEST,NORTH,EAST"),
        (["open-data", "--taxon", "Parus", "--place", "9,0,1,0"], "is no box of degrees"),
        (["open-data", "--taxon", "Parus", "--licence", "free"], "There is no licence 'FREE'"),
        (["inat2021", "--parts", "half"], "half"),
        (["inat2020"], "inat2020"),
        (["open-data", "--taxon", "Parus", "--photos", "0"], "--photos"),
    ],
)
def test_a_bad_argument_is_one_sentence_and_exit_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    nowhere = ["--from", "http://127.0.0.1:1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "fieldmark", "fetch", *words, *nowhere]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command(bucket: Any, tmp_path: Path) -> None:
    words = ["fetch", "open-data", "--out", str(tmp_path / "own"), "--taxon", "Parus", "--photos", "2"]
    done = CliRunner().invoke(
        app, [*words, "--from", bucket.url, "--rate", "1000", "--licence", "cc0,CC-BY-NC"]
    )
    assert done.exit_code == 0, done.output
    assert "4 photos of 2 species, 0 not available" in done.output
    bad = CliRunner().invoke(app, [*words, "--place", "here"])
    assert isinstance(bad.exception, InputError)
    assert "SOUTH,WEST,NORTH,EAST" in str(bad.exception)


def test_the_command_fetches_a_challenge(published: Any, tmp_path: Path) -> None:
    words = ["fetch", "inat2019", "--out", str(tmp_path / "inat"), "--no-images"]
    done = CliRunner().invoke(app, [*words, "--from", published.server.url, "--rate", "1000"])
    assert done.exit_code == 0, done.output
    assert done.output.count("checked against its published MD5") == 2
    assert not (tmp_path / "inat/train_val2019").exists()
