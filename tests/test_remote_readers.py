"""Data behind URLs: a real S3 client against moto's server, a web server's lists, what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

from fieldmark.cli import app
from fieldmark.data import readers
from fieldmark.data.photos import PhotoTable
from fieldmark.data.storage import fsspec as remote
from fieldmark.data.storage.fsspec import Remote
from fieldmark.utils.errors import InputError
from fieldmark.utils.threads import RecentValues

fsspec = pytest.importorskip("fsspec", reason="needs the extra `remote`")
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def tree(root: Path) -> Path:
    """Two classes with three photos, one of them broken, and a table of two of the photos."""
    for number, name in enumerate(("Parus major/1.jpg", "Parus major/a b.jpg", "Pica pica/3.jpg")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (number, 200, 90)).save(path)
    (root / "Pica pica" / "4.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A bucket `wild` with the photos of `tree`, served by moto over HTTP on loopback."""
    server = pytest.importorskip("moto.server", reason="needs moto")
    pytest.importorskip("s3fs", reason="needs the extra `remote`")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # it keeps buckets from one server to the next
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("wild")
    for path in tree(tmp_path / "here").rglob("*.jpg"):
        store.pipe(f"wild/set/{path.relative_to(tmp_path / 'here').as_posix()}", path.read_bytes())
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield store
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    running.stop()


def test_s3_is_indexed_counted_and_read_by_the_verbs(s3: Any, tmp_path: Path) -> None:
    here = readers.read(tmp_path / "here")
    out = tmp_path / "index.parquet"
    done = CliRunner().invoke(app, ["index", "s3://wild/set", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "4 photos found = 3 kept + 1 rejected" in done.output
    table = PhotoTable.read(out)
    assert table.frame.equals(here.frame)
    assert str(table.root) == "s3://wild/set"
    s3.pipe("wild/lists/photos.csv", b"file_name,label\n../set/Pica pica/3.jpg,x\n1.jpg,y\n")
    s3.pipe("wild/lists/1.jpg", (tmp_path / "here/Parus major/1.jpg").read_bytes())
    done = CliRunner().invoke(app, ["stats", "s3://wild/lists/photos.csv"])
    assert done.exit_code == 0, done.output
    listed = readers.read(Path("s3://wild/lists/photos.csv"))
    assert listed.kept["path"].to_list() == ["1.jpg"]
    assert listed.reasons() == {"outside": 1}  # below the URL alone, whatever a list says


def test_gcs_is_indexed_as_s3_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs the emulator")
    gcsfs = pytest.importorskip("gcsfs", reason="needs the extra `remote`")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        port = server._api._httpd.socket.getsockname()[1]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        gcsfs.GCSFileSystem.clear_instance_cache()
        store = gcsfs.GCSFileSystem(skip_instance_cache=True)
        store.mkdir("wild")
        for path in tree(tmp_path / "here").rglob("*.jpg"):
            name = path.relative_to(tmp_path / "here").as_posix()
            store.pipe(f"wild/set/{name}", path.read_bytes())
        table = readers.read(Path("gs://wild/set"))
        assert table.frame.equals(readers.read(tmp_path / "here").frame)
    finally:
        gcsfs.GCSFileSystem.clear_instance_cache()
        server.stop()


def test_a_web_server_that_lists_its_folders(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra `remote`")
    tree(tmp_path / "set")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        table = readers.read(Path(f"http://127.0.0.1:{server.server_port}/set/"))
        server.shutdown()
        thread.join()
    assert table.frame.equals(readers.read(tmp_path / "set").frame)


class TestBlocks:
    """Of large objects, such as tars: whole blocks are fetched, the last few kept."""

    @pytest.fixture(autouse=True)
    def none_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_blocks", RecentValues(8))

    def test_who_needs_another_block_waits_for_no_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        together = threading.Barrier(2, timeout=30)

        def fetch(_: Remote, start: int) -> bytes:
            together.wait()  # broken, and an error, unless both are here
            return b"ab" if start else b"01"

        monkeypatch.setattr(remote, "_fetch", fetch)
        place = Remote("memory://a.tar")
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda at: remote.read_range(place, at * remote.BLOCK, 2), (0, 1))
            assert list(found) == [b"01", b"ab"]

    def test_a_block_is_fetched_once_and_few_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []

        def fetch(_: Remote, start: int) -> bytes:
            asked.append(start // remote.BLOCK)
            return b"x"

        monkeypatch.setattr(remote, "_fetch", fetch)
        place = Remote("memory://a.tar")
        with ThreadPoolExecutor(4) as pool:
            for number in range(20):
                reads = [number * remote.BLOCK] * 4
                assert list(pool.map(lambda at: remote.read_range(place, at, 1), reads)) == [b"x"] * 4
        assert asked == list(range(20))
        assert len(remote._blocks._values) == 8

    def test_a_block_that_could_not_be_fetched_is_asked_for_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers: list[bytes | Exception] = [InputError("refused"), b"there"]

        def fetch(_place: Remote, _start: int) -> bytes:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(remote, "_fetch", fetch)
        place = Remote("memory://a.tar")
        with pytest.raises(InputError, match="refused"):
            remote.read_range(place, 0, 5)
        assert remote.read_range(place, 0, 5) == b"there"


def test_what_is_not_in_the_store_is_one_sentence(s3: Any) -> None:
    for url in ("s3://wild/nothing", "s3://wild/nothing.csv", "s3://no-bucket/x"):
        with pytest.raises(InputError, match=f"{url} (not found|has nothing)"):
            readers.read(Path(url))
    s3.pipe("wild/bad/labels.csv", b"where,label\na.jpg,x\n")
    with pytest.raises(InputError, match=r"^s3://wild/bad/labels\.csv has no column 'file_name'"):
        readers.read(Path("s3://wild/bad/labels.csv"))
    s3.pipe("wild/half/train.json", b'{"images": [')
    with pytest.raises(InputError, match=r"^s3://wild/half/train\.json is not valid JSON"):
        readers.read(Path("s3://wild/half"))


REFUSES = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_GET = do_HEAD = answer
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_refused_credentials_are_one_sentence_and_exit_2(tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="needs the extra `remote`")
    server = subprocess.Popen([sys.executable, "-c", REFUSES], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        words = [sys.executable, "-m", "fieldmark", "index", "s3://wild/set", "--out", "x.parquet"]
        env = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
        assert done.returncode == 2, done.stderr
        assert "s3://wild/set may not be read" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("*.parquet"))
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]


def test_credentials_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3fs = pytest.importorskip("s3fs", reason="needs the extra `remote`")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"s3://wild/set may not be read .*credentials"):
        readers.read(Path("s3://wild/set"))
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(insects: Path, tmp_path: Path) -> Iterator[Any]:
    """fsspec's store in memory with photos in a folder, a tar, a Parquet file and a list."""
    memory = fsspec.filesystem("memory")
    at = tmp_path / "set"
    shutil.copytree(insects / "Apis mellifera", at / "photos" / "below")
    (at / "photos" / ".hidden.jpg").write_bytes(b"no photo")
    photos = sorted((at / "photos" / "below").iterdir())
    (at / "tars").mkdir()
    with tarfile.open(at / "tars" / "a.tar", "w") as tar:
        for photo in photos:
            tar.add(photo, photo.name)
    images = pl.DataFrame({"image": [photo.read_bytes() for photo in photos]})
    images.write_parquet(at / "images.parquet")
    rows = [f"photos/below/{photo.name}" for photo in photos]
    (at / "list.csv").write_text(
        "\n".join(["file_name,label", *(f"{row},x" for row in rows), "../../secret.jpg,x"]) + "\n"
    )
    listed = [{"id": number, "file_name": row} for number, row in enumerate(rows)]
    (at / "test2019.json").write_text(json.dumps({"info": {}, "images": listed}))
    memory.put(str(at), "/bucket/set", recursive=True)
    yield memory
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def named(run: Any, model: Path) -> Callable[..., list[dict[str, Any]]]:
    """What `predict` prints; the broken photo among them makes the exit code 2."""

    def entries(*words: object, code: int = 2) -> list[dict[str, Any]]:
        done = run("predict", model, *words, "--format", "jsonl", "--cache", model.parent / "cache")
        assert done.code == code, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    return entries


def answers(entries: list[dict[str, Any]]) -> list[Any]:
    """The labels of every photo, or the reason why there are none, without the photos' names."""
    return [each.get("labels") or each["rejected"].partition(":")[0] for each in entries]


def test_predict_names_what_lies_behind_a_url(named: Any, tmp_path: Path, store: Any) -> None:
    here = answers(named(tmp_path / "set/photos/below"))
    assert len(here) == 17
    for below in ("photos", "tars", "tars/a.tar", "images.parquet", "test2019.json"):
        assert answers(named(f"memory://bucket/set/{below}")) == here, below
        if below != "photos":  # the same lists on this machine
            assert answers(named(tmp_path / "set" / below)) == here, below
    listed = named("memory://bucket/set/list.csv")
    assert answers(listed) == [*here, "outside"]
    assert listed[0]["file_name"] == "memory://bucket/set/photos/below/00.jpg"
    one = "memory://bucket/set/photos/below/03.jpg"
    paths = tmp_path / "paths.txt"
    paths.write_text(f"{one}\n{one[:-6]}99.jpg\n")
    assert answers(named(one, code=0)) == [here[3]]
    assert answers(named("--list", paths)) == [here[3], "missing"]
    tar = named("memory://bucket/set/tars/a.tar")
    assert tar[3]["file_name"] == "memory://bucket/set/tars/a.tar/03.jpg"


def test_credentials_refused_on_the_way_leave_what_was_named(
    run: Any,
    named: Any,
    model: Path,
    insects: Path,
    tmp_path: Path,
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.put(str(insects), "/bucket/insects", recursive=True)
    get, late = type(store).cat_file, "Danaus plexippus/15.jpg"

    def refuses(self: Any, path: str, **range_: Any) -> bytes:
        if path.endswith(late):
            raise PermissionError("the token has run out")
        return bytes(get(self, path, **range_))

    out, cache = tmp_path / "names.jsonl", model.parent / "cache"
    words = ("predict", model, "memory://bucket/insects", "--out", out, "--cache", cache)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "cat_file", refuses)
        done = run(*words)
    assert done.code == 2
    assert f"{late} may not be read (the token has run out)" in done.err
    assert not out.exists()
    kept = len((tmp_path / "names.jsonl.journal").read_text().splitlines()) - 1
    assert kept >= 32
    done = run(*words)
    assert f"Going on: {kept - 1} photos" in done.err  # the broken one is tried again
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    here = {Path(each["file_name"]).name: each for each in named(insects)}
    assert len(entries) == 65
    by_name = {each["file_name"].rpartition("/")[2]: each for each in entries}
    assert answers([by_name[name] for name in here]) == answers(list(here.values()))
