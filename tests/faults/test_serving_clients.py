"""The server against clients: silent and slow ones, too many of them, and pages of other sites."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.inference.classifier import Classifier
from fieldmark.serving.config import ServeConfig
from fieldmark.utils.errors import InputError

SITE = "https://app.example"
KEY = "correct-horse-battery"
LIMITS = {"head_seconds": 1.0, "connections": 12, "client_connections": 8}


@pytest.fixture(scope="module")
def server(running: Any, classifier: Classifier) -> Iterator[Any]:
    config = ServeConfig(decoders=1, keys=(KEY,), origins=(SITE,), **LIMITS)  # type: ignore[arg-type]
    with running(classifier, config) as server:
        yield server


def opened(server: Any, sent: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    line.sendall(sent)
    return line


def to_the_end(line: socket.socket) -> bytes:
    found = b""
    try:
        while part := line.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (found["type"], found["status"]) == ("about:blank", answer.status_code)
    assert found["title"]
    assert found["detail"] == found["error"]["message"]
    return found


@pytest.mark.parametrize("sent", [b"", b"GET /v1/model HTTP/1.1\r\nHost: loc"])
def test_connection_without_a_whole_head_is_closed(server: Any, sent: bytes) -> None:
    start = time.monotonic()
    with opened(server, sent) as line:
        answer = to_the_end(line)
    assert 0.5 < time.monotonic() - start < 10
    assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""


def test_head_that_comes_slowly_does_not_outlast_the_deadline(server: Any) -> None:
    with opened(server, b"GET /v1/model HTTP/1.1\r\n") as line:
        for _ in range(12):
            time.sleep(0.25)
            try:
                line.sendall(b"X: y\r\n")
            except ConnectionError:
                return
    pytest.fail("the connection was held")


def test_idle_connections_do_not_keep_others_out(server: Any) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(opened(server)) for _ in range(100)]
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{server.url}/v1/classes", headers=headers).status_code == 200
        assert to_the_end(idle[0]) == b""  # the one that waited longest was closed


def test_where_all_connections_work_a_new_one_is_refused_but_for_health_checks(server: Any) -> None:
    body = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 9\r\n\r\na"
    with ExitStack() as stack:
        for _ in range(LIMITS["client_connections"]):  # type: ignore[call-overload]
            stack.enter_context(opened(server, body.encode()))
        time.sleep(0.5)
        answer = httpx.get(f"{server.url}/v1/classes", headers={"X-API-Key": KEY})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert problem(answer)["error"]["code"] == "crowded"
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
    time.sleep(0.5)
    assert httpx.get(f"{server.url}/v1/classes", headers={"X-API-Key": KEY}).status_code == 200


def test_client_that_hangs_up_is_no_defect(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    # Requests of earlier tests may be logged as late as this one: it is found by its own id.
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n"
        "X-Request-Id: hangs-up\r\nContent-Length: 999\r\n\r\na"
    )

    def logged() -> list[dict[str, Any]]:
        fields = [getattr(record, "fields", {}) for record in caplog.records]
        return [each for each in fields if each.get("request_id") == "hangs-up"]

    with caplog.at_level(logging.INFO, "fieldmark.serving"):
        opened(server, head.encode()).close()
        deadline = time.monotonic() + 20
        while not logged() and time.monotonic() < deadline:
            time.sleep(0.05)
        (line,) = logged()
    assert line["status"] == 499
    text = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": KEY}).text
    assert 'status="499"' in text
    assert 'status="500"' not in text


def test_too_many_headers_are_refused_however_they_arrive(server: Any) -> None:
    answer = httpx.get(f"{server.url}/v1/classes", headers={f"X-{n}": "y" * 1000 for n in range(100)})
    assert answer.status_code in (400, 431)  # 400: they came in parts
    assert problem(answer)["error"]["code"] in ("bad-request", "head-too-large")


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 200_000]
)
def test_what_is_no_http_is_refused_in_json(server: Any, sent: bytes) -> None:
    with opened(server, sent) as line:
        head, _, body = to_the_end(line).partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert json.loads(body)["error"]["code"] == "bad-request"


@pytest.mark.parametrize(
    ("content_type", "part"),
    [
        ("multipart/form-data; boundary=" + "b" * 300, b""),
        ("multipart/form-data; boundary*=utf-8''%00%ff", b""),
        ("multipart/form-data; boundary=b", b"name=p; filename*=utf-7''%2B2AA-"),
    ],
)
def test_odd_forms_are_no_defect(server: Any, content_type: str, part: bytes) -> None:
    body = b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n\r\nx\r\n--b--\r\n"
    headers = {"Content-Type": content_type, "X-API-Key": KEY}
    answer = httpx.post(f"{server.url}/v1/predict", content=body, headers=headers)
    assert answer.status_code in (400, 415)
    problem(answer)


# Pages of other sites


@pytest.mark.parametrize("path", ["/", "/v1/classes", "/openapi.json"])
def test_another_host_name_is_refused_on_loopback(server: Any, path: str) -> None:
    def status(host: str) -> int:
        headers = {"Host": host, "X-API-Key": KEY}
        return httpx.get(server.url + path, headers=headers).status_code

    for host in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1:1", "[::1]:80", "app.example"):
        assert status(host) == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "127.0.0.1@evil"):
        assert status(host) == 421, host
    assert httpx.get(f"{server.url}/health/live", headers={"Host": "evil.example"}).status_code == 200


def test_a_server_for_others_answers_to_any_name() -> None:
    assert not ServeConfig(host="0.0.0.0").loopback
    assert ServeConfig(host="127.0.0.2").loopback


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "null", SITE + ".evil"])
def test_posts_of_other_origins_are_denied(server: Any, origin: str) -> None:
    headers = {"Origin": origin, "X-API-Key": KEY}
    answer = httpx.post(f"{server.url}/v1/predict", content=b"x", headers=headers)
    assert (answer.status_code, problem(answer)["error"]["code"]) == (403, "cross-site")
    assert "access-control-allow-origin" not in answer.headers


def test_the_own_page_may_post(server: Any) -> None:
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin", "X-API-Key": KEY}
    assert httpx.post(f"{server.url}/v1/predict", content=b"x", headers=headers).status_code == 415


def test_an_allowed_site_may_post_and_read_answers(server: Any) -> None:
    ask = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    asked = httpx.options(f"{server.url}/v1/predict", headers=ask)
    assert asked.status_code == 204
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    given = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
    for key, status in ((KEY, 415), ("wrong", 401)):
        headers = {**given, "Authorization": f"Bearer {key}"}
        answer = httpx.post(f"{server.url}/v1/predict", content=b"x", headers=headers)
        assert answer.status_code == status
        for each in (asked, answer):
            assert each.headers["access-control-allow-origin"] == SITE
            assert each.headers["vary"] == "Origin"
    refused = httpx.options(f"{server.url}/v1/predict", headers={**ask, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/path", "https://a@b", "null"])
def test_origins_are_whole(origin: str) -> None:
    with pytest.raises(InputError, match="--allow-origin"):
        ServeConfig(origins=(origin,))


# The schema


def test_schema_names_keys_and_refusals(schema: dict[str, Any]) -> None:
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "key"}
    for path, methods in schema["paths"].items():
        for about in methods.values():
            assert {"405", "421", "431", "500", "503"} <= set(about["responses"])
            if "requestBody" in about:
                form = about["requestBody"]["content"]["multipart/form-data"]["schema"]
                assert form["required"] == ["photo"]
            assert {"401", "403"} <= set(about["responses"]) or path.startswith("/health/")
            assert bool(about.get("security")) == (not path.startswith("/health/"))


HEADERS = {
    "Host": ("localhost", "evil.example"),
    "Origin": (SITE, "https://evil.example"),
    "X-API-Key": (KEY, KEY, KEY, "wrong"),
    "Content-Type": ("image/jpeg", "multipart/form-data", "multipart/form-data; boundary=b", "text/plain"),
    "Content-Encoding": ("identity", "gzip"),
}
SMALL_PHOTO = b"P6 8 8 255\n" + bytes(range(192))


@pytest.fixture(scope="module")
def web(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=None) as client:
        yield client


@pytest.fixture(scope="module")
def schema(web: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = web.get("/openapi.json").json()
    return found


def is_as_described(schema: dict[str, Any], path: str, answer: httpx.Response) -> None:
    operations = schema["paths"][path]
    about = operations.get(answer.request.method.lower()) or next(iter(operations.values()))
    assert answer.status_code != 500
    if answer.status_code == 204:  # of a preflight
        return
    described = about["responses"][str(answer.status_code)]
    kinds, kind = described["content"], answer.headers["content-type"].partition(";")[0]
    assert kind in kinds
    assert set(described.get("headers", ())) <= {name.title() for name in answer.headers}
    if answer.request.method != "HEAD" and kind.endswith("json"):
        rule = {**kinds[kind]["schema"], "components": schema["components"]}
        jsonschema.Draft202012Validator(rule).validate(answer.json())
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        problem(answer)


def test_every_operation_answers_as_the_schema_describes(web: httpx.Client, schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        for method, about in operations.items():
            body = SMALL_PHOTO if "requestBody" in about else b""
            answer = web.request(method, path, headers={"X-API-Key": KEY}, content=body)
            assert answer.status_code in (200, 501), (path, answer.text)
            is_as_described(schema, path, answer)


def values_of(rule: dict[str, Any]) -> list[str]:
    """Values that a schema allows, those around its limits, and others."""
    limits = [limit for each in rule.get("anyOf", [rule]) for limit in each.values() if type(limit) is int]
    near = [str(limit + more) for limit in limits for more in (-1, 0, 1)]
    return [*map(str, rule.get("enum", ())), *near, "2", "0.5", "nan", "2024-05-01", ""]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from((*[""] * 4, "PUT", "HEAD", "DELETE", "OPTIONS")),
    st.dictionaries(st.integers(0, 9), st.integers(0, 29) | st.text(max_size=5), max_size=4),
    st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in HEADERS.items()}),
    st.binary(max_size=50) | st.just(SMALL_PHOTO),
)
def test_every_answer_is_one_that_the_schema_describes(
    web: httpx.Client,
    schema: dict[str, Any],
    number: int,
    other: str,
    chosen: dict[int, int | str],
    headers: dict[str, str],
    body: bytes,
) -> None:
    path = sorted(schema["paths"])[number % len(schema["paths"])]
    own, about = next(iter(schema["paths"][path].items()))
    query, rules = {}, about.get("parameters", [])
    for at, value in chosen.items() if rules else ():
        rule = rules[at % len(rules)]
        known = values_of(rule["schema"])
        query[rule["name"]] = known[value % len(known)] if isinstance(value, int) else value
    answer = web.request(other or own, path, params=query, headers=headers, content=body)
    is_as_described(schema, path, answer)
