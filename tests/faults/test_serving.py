"""The server keeps answering: hostile files, hostile clients, decoding processes that die."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import Headers

from fieldmark.data.transforms import Preprocess
from fieldmark.inference.classifier import Classifier
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.decoders import DecoderFailed, Decoders
from fieldmark.serving.http_errors import HttpError
from fieldmark.serving.multipart import Upload, read_form

CLIENTS = 64  # of an overloaded server
AT_ONCE = 4  # clients that post bad files


def png(seed: int, side: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(running: Any, classifier: Classifier) -> Iterator[Any]:
    with running(classifier, ServeConfig(decoders=2)) as server:
        yield server


# Hostile files


def test_bad_images_get_an_error_and_the_next_photo_its_answer(server: Any, shared: Path) -> None:
    kinds = sorted(path for path in (shared / "bad-images").iterdir() if path.is_dir())
    assert len(kinds) == 17
    good = png(1)
    with httpx.Client(base_url=server.url, timeout=60) as web:
        expected = web.post("/v1/predict", content=good).json()

        def status(path: Path) -> int:
            return web.post("/v1/predict", content=path.read_bytes()).status_code

        for kind in kinds:
            every = sorted(path for path in kind.iterdir() if path.is_file())
            with ThreadPoolExecutor(AT_ONCE) as pool:
                statuses = dict(zip(every, pool.map(status, every), strict=True))
            assert {p: s for p, s in statuses.items() if s not in (200, 413, 415, 422)} == {}
            assert web.post("/v1/predict", content=good).json() == expected, kind


def test_decompression_bomb_is_refused_from_its_header(server: Any) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    answer = httpx.post(f"{server.url}/v1/predict", content=file.getvalue(), timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too-large")


# Decoding processes that die


def decoders(seconds: float = 30.0) -> tuple[Decoders, list[None]]:
    failures: list[None] = []
    made = Decoders(
        [Preprocess(size=32, resize=32)],
        count=1,
        max_pixels=10_000,
        seconds=seconds,
        on_failure=lambda: failures.append(None),
    )
    return made, failures


def pids(of: Decoders) -> list[int]:
    return [process.pid for process in of._all]


@pytest.mark.parametrize(("sent", "seconds"), [(signal.SIGKILL, 30.0), (signal.SIGSTOP, 0.5)])
def test_a_decoder_that_crashes_or_hangs_is_replaced(sent: int, seconds: float) -> None:
    async def main() -> None:
        pool, failures = decoders(seconds)
        await pool.start()
        try:
            before = await decode(pool)
            (pid,) = pids(pool)
            os.kill(pid, sent)
            with pytest.raises(DecoderFailed):
                await pool.decode(png(1))
            pool._seconds = 30.0  # for the new one: this machine may be busy
            assert np.array_equal(await decode(pool), before)
            assert pids(pool) != [pid]
            assert not alive(pid)
            assert len(failures) == 1
        finally:
            await pool.close()

    asyncio.run(main())


async def decode(pool: Decoders) -> np.ndarray:
    found = await pool.decode(png(1))
    assert (found.width, found.height) == (64, 64)
    (crop,) = found.crops
    return crop


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_cancelled_request_does_not_mix_up_the_answers() -> None:
    async def main() -> None:
        pool, _ = decoders()
        await pool.start()
        try:
            (pid,) = pids(pool)
            os.kill(pid, signal.SIGSTOP)
            given_up = asyncio.ensure_future(pool.decode(png(2)))
            await asyncio.sleep(0.05)
            given_up.cancel()
            before = await decode(pool)
            assert np.array_equal(await decode(pool), before)
        finally:
            await pool.close()

    asyncio.run(main())


def test_close_stops_every_decoder() -> None:
    async def main() -> list[int]:
        pool, _ = decoders()
        await pool.start()
        found = pids(pool)
        await pool.close()
        return found

    assert not any(alive(pid) for pid in asyncio.run(main()))


def confined(code: str) -> subprocess.CompletedProcess[str]:
    """Run code under the limits of a decoding process."""
    setup = "from fieldmark.serving import decoder; decoder._limit(1000); "
    return subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=False)


def test_decoder_cannot_write_files(tmp_path: Path) -> None:
    path = tmp_path / "kept.jpg"
    confined(f"open({str(path)!r}, 'wb', buffering=0).write(b'photo')")
    assert not path.exists() or path.stat().st_size == 0


def test_memory_of_a_decoder_is_limited() -> None:
    done = confined("bytearray(2 << 30)")
    assert "MemoryError" in done.stderr


def test_processor_time_of_a_decoder_is_limited() -> None:
    done = confined("decoder._allow_seconds(0.1)\nwhile True: pass")
    assert done.returncode == -signal.SIGXCPU


# Hostile clients


def form(data: bytes, content_type: str = "multipart/form-data; boundary=b") -> list[Upload]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield data[:10]
        yield data[10:]

    headers = Headers(raw=[(b"content-type", content_type.encode("latin-1"))])
    return asyncio.run(read_form(headers, chunks(), 3))[0]


@given(st.binary(max_size=400), st.booleans())
def test_any_form_is_read_or_refused(junk: bytes, framed: bool) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n'
    data = head + junk + b"\r\n--b--\r\n" if framed else junk
    with suppress(HttpError):
        assert len(form(data)) <= 3


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_content_type_is_read_or_refused(junk: str) -> None:
    data = b'--b\r\nContent-Disposition: form-data; name="p"; filename="\xff"\r\n\r\nx\r\n--b--\r\n'
    for value in (junk, f"; boundary={junk}", f"; boundary=b; charset={junk}"):
        with suppress(HttpError):
            assert len(form(data, f"multipart/form-data{value}")) <= 3


@pytest.mark.parametrize("charset", ["idna", "undefined", "hex", "none", "utf-16", "utf-8"])
def test_charset_of_a_form_is_no_defect(charset: str) -> None:
    data = b'--b\r\nContent-Disposition: form-data; name="p"; filename="\xff"\r\n\r\nx\r\n--b--\r\n'
    with suppress(HttpError):
        assert form(data, f"multipart/form-data; boundary=b; charset={charset}")[0].data == b"x"


def test_a_form_that_is_cut_off_is_refused() -> None:
    data = b'--b\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    assert form(data) == [Upload(b"x", "a")]
    for end in range(len(data) - 4):
        with pytest.raises(HttpError):
            form(data[:end])


def test_large_photos_of_a_form_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a photo was written to disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    head = b'--b\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\n'
    (photo,) = form(head + bytes(5_000_000) + b"\r\n--b--\r\n")
    assert photo.data == bytes(5_000_000)


def test_a_form_of_a_thousand_parts_is_refused() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    with pytest.raises(HttpError, match="At most 3 photos"):
        form(part * 1000 + b"--b--\r\n")


def test_disconnected_clients_leave_nothing_behind(server: Any) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\nabc")
    with httpx.Client(base_url=server.url, timeout=30) as web:
        while "fieldmark_held_bytes 0.0" not in (text := web.get("/metrics").text):
            pass
        assert "fieldmark_queue_photos 0.0" in text
        assert web.post("/v1/predict", content=png(1)).status_code == 200


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_invalid_http_does_no_harm(server: Any, bytes_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        try:
            line.sendall(bytes_)
            line.shutdown(socket.SHUT_WR)
            answer = line.recv(100)
        except TimeoutError:
            raise
        except OSError:  # the server has hung up already: a reset, or not connected any more
            answer = b""
    assert not answer or b" 400 " in answer or b" 413 " in answer
    assert httpx.post(f"{server.url}/v1/predict", content=png(1)).status_code == 200


# Overload


class Paced(Classifier):
    """A classifier of a known speed, whatever the machine."""

    def outputs(self, crops_NSS3: Any) -> Any:
        time.sleep(0.02)
        return super().outputs(crops_NSS3)


def test_overloaded_server_answers_rightly_or_refuses(running: Any, classifier: Classifier) -> None:
    paced = Paced(**{name: getattr(classifier, name) for name in classifier.__dataclass_fields__})
    photos = [png(seed) for seed in range(8)]
    expected = [each.best for each in classifier.predict(photos)]
    found: list[tuple[int, int, Any]] = []

    def client(number: int, url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as web:
            for turn in range(4):
                which = (number + turn) % len(photos)
                answer = web.post("/v1/predict", content=photos[which])
                found.append((which, answer.status_code, answer))

    with running(paced, ServeConfig(decoders=1, queue=6, batch=3)) as server:
        threads = [threading.Thread(target=client, args=(n, server.url)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts = Counter(status for _, status, _ in found)
    assert set(counts) == {200, 503}
    assert sum(counts.values()) == CLIENTS * 4
    for which, status, answer in found:
        if status == 200:
            best = answer.json()["photos"][0]["labels"][0]
            assert best["taxon_id"] == expected[which].taxon.id
            assert best["score"] == pytest.approx(expected[which].score, abs=1e-4)
        else:
            assert int(answer.headers["Retry-After"]) >= 1
