"""The HTTP API: right answers, limits enforced before buffering, graceful shutdown."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fieldmark.cli.serve import read_keys
from fieldmark.data.taxonomy import Taxon
from fieldmark.inference.classifier import Answer, Classifier, Prediction
from fieldmark.serving.batcher import THREADS, Batcher
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.middleware import JsonLines
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import LANGUAGES
from fieldmark.utils.typing import ByteArray

KEY = "correct-horse-battery"
SMALL = ServeConfig(
    decoders=1, queue=4, max_bytes=60_000, max_pixels=100 * 100, body_seconds=1.0, max_photos=3
)


def jpeg(seed: int, side: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def server(running: Any, classifier: Classifier) -> Iterator[Any]:
    with running(classifier, ServeConfig(decoders=1)) as server:
        yield server


@pytest.fixture(scope="module")
def strict(running: Any, classifier: Classifier) -> Iterator[Any]:
    """A server with small limits and a key."""
    config = ServeConfig(**{f.name: getattr(SMALL, f.name) for f in fields(SMALL)} | {"keys": (KEY,)})
    with running(classifier, config) as server:
        yield server


@pytest.fixture
def web(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def strict_web(strict: Any) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=strict.url, timeout=30, headers=headers) as client:
        yield client


def assert_matches(entry: Any, expected: Prediction) -> None:
    assert (entry["answer"]["source"], entry["answer"]["name"]) == (expected.source, expected.name)
    assert (entry["answer"]["rank"], entry["answer"]["reason"]) == (expected.rank, expected.reason)
    assert entry["answer"].get("unknown") == expected.unknown
    assert entry["answer"]["score"] == pytest.approx(expected.score, abs=1e-4)
    assert [each["taxon_id"] for each in entry["labels"]] == [a.taxon.id for a in expected.answers]
    for each, answer in zip(entry["labels"], expected.answers, strict=True):
        assert each["score"] == pytest.approx(answer.score, abs=1e-4)


# Answers


def test_api_answer_equals_classifier_answer(web: httpx.Client, classifier: Classifier) -> None:
    data = jpeg(1)
    answer = web.post("/v1/predict", params={"top": 3}, content=data)
    assert answer.status_code == 200
    (entry,) = answer.json()["photos"]
    assert_matches(entry, classifier.predict([data], top=3)[0])
    assert (entry["width"], entry["height"]) == (64, 64)


def test_photos_are_answered_in_order_and_a_bad_one_does_not_affect_others(
    web: httpx.Client, classifier: Classifier
) -> None:
    photos = [jpeg(1), jpeg(2)[:500], jpeg(3)]
    names = ["one.jpg", "../etc/größe.jpg", "C:\\photos\\three.jpg"]
    answer = web.post("/v1/predict", files=[("photo", (n, d)) for n, d in zip(names, photos, strict=True)])
    assert answer.status_code == 200
    first, bad, last = answer.json()["photos"]
    assert [first["name"], bad["name"], last["name"]] == ["one.jpg", "größe.jpg", "three.jpg"]
    assert bad["error"]["code"] == "truncated"
    expected = classifier.predict([photos[0], photos[2]])
    assert_matches(first, expected[0])
    assert_matches(last, expected[1])


def test_concurrent_photos_get_their_own_answers(web: httpx.Client, classifier: Classifier) -> None:
    photos = [jpeg(seed) for seed in range(24)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda data: web.post("/v1/predict", content=data), photos))
    for answer, expected in zip(found, classifier.predict(photos), strict=True):
        assert_matches(answer.json()["photos"][0], expected)


def test_the_batch_does_not_change_an_answer_beyond_rounding(web: httpx.Client) -> None:
    photo = jpeg(7)
    (alone,) = web.post("/v1/predict", content=photo).json()["photos"]
    for count in (2, 5, 16):
        sent = [("photo", ("a", each)) for each in (*map(jpeg, range(count - 1)), photo)]
        *_, among = web.post("/v1/predict", files=sent).json()["photos"]
        assert [each["taxon_id"] for each in among["labels"]] == [e["taxon_id"] for e in alone["labels"]]
        for one, other in zip(among["labels"], alone["labels"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=2.1e-6)  # each rounded to 1e-6


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "empty"),
        (b"hello, this is text", 415, "not-an-image"),
        (b'{"url": "http://127.0.0.1:1/photo.jpg"}', 415, "not-an-image"),
        (jpeg(1)[:700], 422, "truncated"),
        (jpeg(1, side=128), 413, "too-large"),
        (b"x" * 60_001, 413, "body-too-large"),
    ],
)
def test_error_status_and_code(strict_web: httpx.Client, content: bytes, status: int, code: str) -> None:
    answer = strict_web.post("/v1/predict", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"].endswith(".")
    assert strict_web.post("/v1/predict", content=jpeg(1)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "content", "status", "code"),
    [
        ("multipart/form-data", b"x", 400, "bad-form"),
        ("multipart/form-data; boundary=b", b"nonsense", 400, "bad-form"),
        ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\ndata", 400, "bad-form"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ntext\r\n--b--\r\n',
            *(400, "no-photo"),
        ),
    ],
)
def test_unreadable_forms(web: httpx.Client, kind: str, content: bytes, status: int, code: str) -> None:
    answer = web.post("/v1/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_too_many_photos(strict_web: httpx.Client) -> None:
    answer = strict_web.post("/v1/predict", files=[("photo", ("a.jpg", jpeg(1)))] * 4)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too-many-photos")


def test_if_no_photo_is_answered_each_has_its_error(web: httpx.Client) -> None:
    answer = web.post("/v1/predict", files=[("p", ("a", b"text")), ("p", ("b", jpeg(1)[:500]))])
    assert answer.status_code == 415
    assert [each["error"]["code"] for each in answer.json()["photos"]] == [*("not-an-image", "truncated")]


@pytest.mark.parametrize("top", ["0", "-1", "many", "99999"])
def test_error_names_the_invalid_parameter(web: httpx.Client, top: str) -> None:
    answer = web.post("/v1/predict", params={"top": top}, content=jpeg(1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad-parameter")
    assert "top" in answer.json()["error"]["message"]


def test_compressed_bodies_are_refused(web: httpx.Client) -> None:
    answer = web.post("/v1/predict", content=jpeg(1), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


def test_classes_and_model(web: httpx.Client, classifier: Classifier) -> None:
    classes = web.get("/v1/classes").json()["classes"]
    assert [each["taxon_id"] for each in classes] == [taxon.id for taxon in classifier.taxa]
    about = web.get("/v1/model").json()
    assert (about["classes"], about["architecture"]) == (4, classifier.architecture)
    assert about["engine"] == "onnxruntime"
    assert about["limits"]["photos"] == 32


# Limits, before anything is buffered


def exchange(port: int, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send raw bytes; return the status and the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while b"\r\n\r\n" not in answer or (b'"request_id"' not in answer):
            part = line.recv(65536)
            if not part:
                break
            answer += part
    return int(answer.split(b" ", 2)[1]), answer


HEAD = f"POST /v1/predict HTTP/1.1\nHost: localhost\nX-API-Key: {KEY}"


def test_too_large_content_length_is_refused_unread(strict: Any) -> None:
    status, _ = exchange(strict.port, f"{HEAD}\nContent-Length: 99999999999")
    assert status == 413  # not one byte of the body was sent


def test_chunked_body_is_counted(strict: Any) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    status, _ = exchange(strict.port, f"{HEAD}\nTransfer-Encoding: chunked", 5 * chunk)
    assert status == 413  # the body has no end


def test_slow_body_times_out(strict: Any) -> None:
    status, answer = exchange(strict.port, f"{HEAD}\nContent-Length: 1000", b"x" * 10)
    assert (status, b"too-slow" in answer) == (408, True)


def test_expect_continue_is_refused_before_the_body(strict: Any) -> None:
    status, answer = exchange(strict.port, f"{HEAD}\nContent-Length: 99999999\nExpect: 100-continue")
    assert status == 413
    assert b"100 Continue" not in answer


class Slow(Classifier):
    """A classifier that answers after `go` is set."""

    go = threading.Event()

    def outputs(self, crops_NSS3: Any) -> Any:
        assert self.go.wait(30)
        return super().outputs(crops_NSS3)


def slow(classifier: Classifier, kind: type[Classifier]) -> Any:
    return kind(**{f.name: getattr(classifier, f.name) for f in fields(Classifier)})


def test_full_queue_refuses_at_once_with_retry_after(running: Any, classifier: Classifier) -> None:
    Slow.go.clear()
    with (
        running(slow(classifier, Slow), ServeConfig(decoders=1, queue=2)) as server,
        httpx.Client(base_url=server.url, timeout=30) as web,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(web.post, "/v1/predict", content=jpeg(seed)) for seed in range(2)]
        while "fieldmark_queue_photos 2.0" not in web.get("/metrics").text:
            assert not any(future.done() for future in waiting)
        status, answer = exchange(server.port, f"{HEAD}\nContent-Length: 1000")
        assert status == 503  # before the body was sent
        assert int(re.findall(rb"(?i)retry-after: (\d+)", answer)[0]) >= 1
        assert web.get("/health/ready").status_code == 200
        Slow.go.set()
        assert [future.result().status_code for future in waiting] == [200, 200]
        assert web.post("/v1/predict", content=jpeg(3)).status_code == 200


def test_memory_of_bodies_is_limited(running: Any, classifier: Classifier) -> None:
    with (
        running(classifier, ServeConfig(decoders=1, held_bytes=20_000)) as server,
        httpx.Client(base_url=server.url, timeout=30) as web,
    ):
        assert web.post("/v1/predict", content=b"x" * 20_001).status_code == 503
        assert web.post("/v1/predict", content=jpeg(1)).status_code == 200
        assert "fieldmark_held_bytes 0.0" in web.get("/metrics").text


class Broken(Classifier):
    """A classifier whose network fails."""

    def outputs(self, crops_NSS3: Any) -> Any:
        raise RuntimeError("a secret of the server")


def test_internal_error_is_a_500_without_details(
    running: Any, classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    with running(slow(classifier, Broken), ServeConfig(decoders=1)) as server:
        answer = httpx.post(f"{server.url}/v1/predict", content=jpeg(1))
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "defect")
    assert "secret" not in answer.text
    failed = next(record for record in caplog.records if record.name == "fieldmark.serving")
    line = json.loads(JsonLines().format(failed))
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "secret" in line["exception"]


# API keys and headers


def test_api_key_is_required_for_the_api(strict: Any) -> None:
    with httpx.Client(base_url=strict.url) as web:
        for path in ("/v1/classes", "/v1/model", "/metrics"):
            assert web.get(path).status_code == 401
            assert web.get(path, headers={"X-API-Key": KEY[:-1]}).status_code == 401
            assert web.get(path, headers={"X-API-Key": KEY}).status_code == 200
            assert web.get(path, headers={"Authorization": f"bearer {KEY}"}).status_code == 200
        refused = web.post("/v1/predict", content=jpeg(1))
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/", "/health/live", "/health/ready", "/docs", "/static/app.js"):
            assert web.get(path).status_code == 200


@pytest.mark.parametrize("text", ["", "# only a comment\n\n", "short\n", f"{KEY}\nshort\n"])
def test_invalid_key_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match="must hold at least one key"):
        read_keys(tmp_path / "keys")


def test_key_file_with_comments(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# ours\n {KEY} \n\n{KEY}2\n")
    assert read_keys(tmp_path / "keys") == (KEY, f"{KEY}2")


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/v1/classes", "/docs", "/nothing", "/v1/predict"])
def test_every_response_has_the_security_headers(web: httpx.Client, path: str) -> None:
    answer = web.get(path, headers={"X-Request-ID": "a-1.b_2"})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-request-id"] == "a-1.b_2"
    assert "access-control-allow-origin" not in answer.headers


def test_unsafe_request_id_is_replaced(web: httpx.Client) -> None:
    answer = web.get("/health/live", headers={"X-Request-ID": 'x" , "status": 200'})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_each_request_is_one_json_log_line(web: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fieldmark.serving"):
        answer = web.get("/v1/classes")
        web.get("/health/live")  # on the same connection: the line of the one before is written
    lines = [
        json.loads(JsonLines().format(each)) for each in caplog.records if each.name == "fieldmark.serving"
    ]
    (line,) = [each for each in lines if each["request_id"] == answer.headers["x-request-id"]]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/classes", 200)


def test_cross_site_requests_are_denied(web: httpx.Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert web.post("/v1/predict", content=jpeg(1), headers=headers).status_code == 403


def test_metrics(running: Any, classifier: Classifier) -> None:
    with running(classifier, ServeConfig(decoders=1)) as server, httpx.Client(base_url=server.url) as web:
        web.post("/v1/predict", files=[("p", ("a", jpeg(1))), ("p", ("b", jpeg(2)))])
        web.post("/v1/predict", content=b"text")
        web.get("/some/path/nobody/knows")
        text = web.get("/metrics").text
    assert 'fieldmark_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'fieldmark_requests_total{route="/v1/predict",status="415"} 1.0' in text
    assert 'fieldmark_requests_total{route="other",status="404"} 1.0' in text
    assert 'fieldmark_photos_total{outcome="not-an-image"} 1.0' in text
    assert "fieldmark_batch_photos_sum 2.0" in text
    assert "fieldmark_queue_photos 0.0" in text


def test_every_route_is_documented_and_no_page_names_another_host(web: httpx.Client) -> None:
    paths = web.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/classes", "/v1/model", "/health/ready", "/metrics"} <= set(paths)
    docs = web.get("/docs").text
    for path, methods in paths.items():
        assert path in docs
        for about in methods.values():
            assert about["summary"]
    for page in ("/", "/docs", "/static/app.js", "/static/style.css", "/static/icon.svg"):
        outside = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"')]*", web.get(page).text)
        assert {each.split("/")[2] for each in outside} <= {"127.0.0.1:8000", "www.w3.org"}


def test_the_page_is_one_for_each_language(web: httpx.Client) -> None:
    tags = set()
    for language in LANGUAGES:
        answer = web.get("/", headers={"Accept-Language": f"{language}-XX,it;q=0.1"})
        assert f'<html lang="{language}">' in answer.text
        assert (answer.headers["vary"], answer.headers["content-language"]) == ("Accept-Language", language)
        tags.add(answer.headers["etag"])
    assert len(tags) == len(LANGUAGES)
    assert '<html lang="en">' in web.get("/", headers={"Accept-Language": "it"}).text
    refused = web.post("/v1/predict", content=b"no photo", headers={"Accept-Language": "de"}).json()
    assert refused["error"]["message"].startswith("This file is not a photo.")  # the API is in English


def test_static_files_are_cached_by_the_browser(web: httpx.Client) -> None:
    for path in ("/", "/static/app.js"):
        headers = web.get(path).headers
        assert headers["cache-control"] == "no-cache"
        again = web.get(path, headers={"If-None-Match": headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert web.get("/v1/classes").headers["cache-control"] == "no-store"
    for name in ("docs.html", "..%2fapp.py", "%2e%2e/app.py", "nothing"):
        assert web.get(f"/static/{name}").status_code == 404


# Batches


def prediction(number: float) -> Prediction:
    return Prediction((Answer(Taxon(str(number), ""), 1.0),), sure=True)


def crop(number: int) -> ByteArray:
    return np.full((2, 2, 3), number, np.uint8)


def test_photos_that_arrive_during_a_batch_are_the_next_batch() -> None:
    sizes: list[int] = []
    go = threading.Event()

    def predict(crops: Any, tops: Any) -> list[Prediction]:
        sizes.append(len(crops))
        assert go.wait(10)
        return [prediction(each[0, 0, 0]) for each in crops]

    async def main() -> list[str]:
        batcher = Batcher(predict, size=4)
        batcher.start()
        first = []
        for number in range(THREADS):  # alone, each is taken at once
            first.append(asyncio.ensure_future(batcher.predict(crop(number), 1)))
            async with asyncio.timeout(10):
                while len(sizes) <= number:
                    await asyncio.sleep(0.001)
        rest = [asyncio.ensure_future(batcher.predict(crop(n), 1)) for n in range(THREADS, 12)]
        call = asyncio.ensure_future(batcher.call(lambda: "called"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        go.set()
        found = await asyncio.gather(*first, *rest)
        assert await call == "called"
        await closing
        assert not batcher.alive
        return [each.best.taxon.id for each in found]

    assert asyncio.run(main()) == [str(n) for n in range(12)]
    assert sizes[:THREADS] == [1] * THREADS
    assert max(sizes) == 4
    assert len(sizes) <= THREADS + 4  # ten photos: two batches of four, and the rest


def test_a_batch_does_not_wait_for_the_one_before_it() -> None:
    both = threading.Barrier(THREADS)

    def predict(crops: Any, tops: Any) -> list[Prediction]:
        both.wait(10)
        return [prediction(each[0, 0, 0]) for each in crops]

    async def main() -> list[Prediction]:
        batcher = Batcher(predict, size=1)
        batcher.start()
        found = await asyncio.gather(*(batcher.predict(crop(n), 1) for n in range(THREADS)))
        await batcher.close()
        return found

    assert [each.best.taxon.id for each in asyncio.run(main())] == [str(n) for n in range(THREADS)]


def test_failed_batch_does_not_affect_others() -> None:
    def predict(crops: Any, tops: Any) -> list[Prediction]:
        if crops[0][0, 0, 0] == 0:
            raise RuntimeError("no")
        return [prediction(1)]

    async def main() -> None:
        batcher = Batcher(predict, size=1)
        batcher.start()
        bad, good = await asyncio.gather(
            *(batcher.predict(crop(n), 1) for n in (0, 1)), return_exceptions=True
        )
        await batcher.close()
        assert isinstance(bad, RuntimeError)
        assert isinstance(good, Prediction)

    asyncio.run(main())


# The program


@pytest.mark.parametrize(
    ("name", "value"), [("port", 70_000), ("queue", 0), ("batch", 0), ("max_pixels", 10**9), ("max_bytes", 0)]
)
def test_settings_out_of_range(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is "):
        ServeConfig(**{name: value})


def command(model: Path, *more: str) -> list[str]:
    cache = str(model.parent / "cache")
    return [sys.executable, "-m", "fieldmark", "serve", str(model), "--cache", cache, *more]


def test_sigterm_answers_accepted_requests_and_exits_with_0(model: Path) -> None:
    with subprocess.Popen(command(model, "--port", "0"), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        port = int(re.findall(r":(\d+)", server.stderr.readline())[0])
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        data = jpeg(1, side=400)
        line.putrequest("POST", "/v1/predict")
        line.putheader("Content-Length", str(len(data)))
        line.endheaders(data[:1000])
        while not has_children(server.pid):
            pass
        httpx.get(f"http://127.0.0.1:{port}/health/ready")  # what was sent before has been read
        server.send_signal(signal.SIGTERM)
        while accepts(port):
            pass
        line.send(data[1000:])
        answer = line.getresponse()
        assert answer.status == 200
        assert json.load(answer)["photos"][0]["labels"]
        assert server.wait(30) == 0
        line.close()
        assert "Traceback" not in server.stderr.read()


def has_children(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_address_in_use_is_one_sentence(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command(model, "--port", port), capture_output=True, text=True, env=os.environ, check=False
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "name another --port" in done.stderr
