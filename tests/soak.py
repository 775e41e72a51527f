"""Serve photos for long at 0.9 of the capacity: `python -m tests.soak --seconds 3600`, or `make soak`.

`fieldmark serve` runs as a user starts it, on loopback, with a small classifier of drawn photos. Its capacity
is measured first, by as many clients as are used afterwards. Then photos are sent at 0.9 of it, and every
answer is compared with the first one for that photo. Memory is that of the server and its decoders: the
median of the last tenth of the samples against that of the second tenth. Ends with 1 if an answer was wrong
or refused, or memory grew by more than 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.conftest import draw_photo

CLIENTS = 4
SHARE = 0.9
GROWTH = 0.02
TOLERANCE = 2.1e-6  # of a probability, whatever the batch (docs/serve.md)
EVERY = 0.5  # seconds between samples of the memory
NAMES = ("Apis mellifera", "Bombus terrestris", "Danaus plexippus")


def main() -> None:
    """Train, serve, send photos, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIELDMARK_CACHE"] = str(Path(folder) / "cache")
        with serving(train(Path(folder))) as (server, url):
            found = soak(url, server.pid, seconds)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    sys.exit(bool(found["wrong"] or found["statuses"].keys() - {"200"} or found["growth"] > GROWTH))


def train(folder: Path) -> Path:
    """Train a small classifier on drawn photos."""
    from fieldmark.training import TrainConfig, train

    for label, name in enumerate(NAMES):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            (folder / "photos" / name / f"{number:02}.jpg").write_bytes(draw_photo(label, number))
    train(folder / "photos", out=folder / "model", config=TrainConfig(groups="none"))
    return folder / "model"


@contextmanager
def serving(model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `fieldmark serve` until the end of the block; what it logs is read and dropped."""
    command = [sys.executable, "-m", "fieldmark", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
        threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
        try:
            yield server, url
        finally:
            server.terminate()


def soak(url: str, server: int, seconds: float) -> dict[str, Any]:
    """Measure the capacity, and send photos at 0.9 of it for so long."""
    photos = [draw_photo(label, 100 + number) for label in range(3) for number in range(8)]
    with client(url) as web:
        expected = [labels(web.post("/v1/predict", content=photo)) for photo in photos]
    capacity = Load(url, photos, expected, rate=None).run(max(5.0, min(30.0, seconds / 10))).rate
    load, memory = Load(url, photos, expected, rate=SHARE * capacity), list[int]()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            memory.append(memory_of(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        load.run(seconds)
    finally:
        done.set()
        watcher.join()
    tenth = max(1, len(memory) // 10)
    first, last = statistics.median(memory[tenth : 2 * tenth]), statistics.median(memory[-tenth:])
    return {
        **{"seconds": seconds, "capacity": round(capacity, 1), "asked": round(SHARE * capacity, 1)},
        **{"rate": round(load.rate, 1), "photos": sum(load.statuses.values())},
        **{"statuses": {str(status): count for status, count in load.statuses.items()}},
        **{"wrong": load.wrong, "megabytes": [round(first / 1e6, 1), round(last / 1e6, 1)]},
        "growth": round(last / first - 1, 4),
    }


class Load:
    """Clients that send photos in turn: one a client at a time, together at most `rate` a second."""

    def __init__(
        self, url: str, photos: list[bytes], expected: list[dict[str, float]], rate: float | None
    ) -> None:
        self._url, self._photos, self._expected, self._pace = url, photos, expected, rate
        self._lock = threading.Lock()
        self.statuses, self.wrong, self.rate = Counter[int](), 0, 0.0

    def run(self, seconds: float) -> Load:
        """Send for so long."""
        begin = time.monotonic()
        threads = [threading.Thread(target=self._send, args=(at, begin, seconds)) for at in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.rate = sum(self.statuses.values()) / (time.monotonic() - begin)
        return self

    def _send(self, first: int, begin: float, seconds: float) -> None:
        with client(self._url) as web:
            for number in range(first, 10**9, CLIENTS):
                if self._pace and (wait := begin + number / self._pace - time.monotonic()) > 0:
                    time.sleep(wait)
                if time.monotonic() > begin + seconds:
                    return
                at = number % len(self._photos)
                answer = web.post("/v1/predict", content=self._photos[at])
                right = answer.status_code != 200 or same(labels(answer), self._expected[at])
                with self._lock:
                    self.statuses[answer.status_code] += 1
                    self.wrong += not right


def client(url: str) -> httpx.Client:
    """A client that knows of no proxy and waits for long."""
    headers = {"Content-Type": "image/jpeg"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=120)


def labels(answer: httpx.Response) -> dict[str, float]:
    """The probability of each label of an answer for one photo."""
    (photo,) = answer.json()["photos"]
    return {each["taxon_id"]: each["score"] for each in photo["labels"]}


def same(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether two answers are the same but for rounding."""
    return found.keys() == expected.keys() and all(
        abs(found[name] - expected[name]) <= TOLERANCE for name in expected
    )


def memory_of(process: int) -> int:
    """The bytes of memory of a process and those that it started, shared pages counted once (PSS)."""
    total = 0
    for child in (process, *children(process)):
        try:
            text = Path(f"/proc/{child}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += 1024 * int(re.findall(r"^Pss: +(\d+) kB", text, re.M)[0])
    return total


def children(process: int) -> list[int]:
    """The processes that a process, or one of these, started."""
    try:
        tasks = Path(f"/proc/{process}/task").iterdir()
        direct = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:
        return []
    return [each for child in direct for each in (child, *children(child))]


if __name__ == "__main__":
    main()
