"""Measure the server against the bare engine: the cost of HTTP, and latencies at twice
the load that it can sustain.

Server, clients and network share the cores of one machine, so the clients' work is in the figures as
well; the processor time of decoding, which the bare engine does not do, is recorded beside them.

    python -m benchmarks serve
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import Row, alternate, compare, rounds
from fieldmark import models
from fieldmark.data.loader import decoded
from fieldmark.data.photos import PhotoFile
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.models import runtime
from fieldmark.models.runtime import graphs
from fieldmark.utils.io import sha256

CLASSES, PHOTOS = 100, 64
SIZES = (
    (224, 224),
    (500, 375),
)  # the first has the input size of the network, so no resizing; the second is usual
CLIENTS, BATCH, QUEUE = 64, 16, 32
AIMS = {SIZES[0]: 0.85, SIZES[1]: None}
"""Shares of the bare engine, for photos that are cheap to decode."""
BARE, WITH_DECODING, SERVED = "bare engine", "decoding and engine in one process", "server"


@dataclass(frozen=True)
class Load:
    """The results of some clients: seconds in all, counts by status, seconds of each accepted photo, and
    the number of wrong answers.
    """

    seconds: float
    statuses: dict[int, int]
    accepted: list[float]
    wrong: int


def run(quick: bool = False) -> list[Row]:
    """Compare photos per second with the bare engine; measure latencies when overloaded."""
    seconds = 1.0 if quick else 8.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = _classifier(folder / "model")
        with _server(folder / "model") as server:
            rows: list[Row] = []
            for size in SIZES:
                crowd = _crowd(folder / f"{size}", size, classifier)
                values, spent = _beside(server, classifier, crowd, seconds, rounds(quick))
                rows += _throughput(f"{size[0]} x {size[1]} JPEGs", values, spent, AIMS[size])
                if size == SIZES[0]:
                    rate = 2 * statistics.median(values[SERVED])
                    load = _clients(crowd, server[0], 2 * seconds, rate=rate, clients=CLIENTS)
        if runtime.halves() and not quick:
            rows += _in_half(folder, seconds, rounds(quick))
        return [*rows, _overloaded(load)]


def _in_half(folder: Path, seconds: float, times: int) -> list[Row]:
    """Return the rows of photos of the usual size in 16 bits."""
    classifier = Classifier.load(folder / "model", compute="half")
    crowd = _crowd(folder / "half", SIZES[1], classifier)
    with _server(folder / "model", "--compute", "half") as server:
        values, spent = _beside(server, classifier, crowd, seconds, times)
    return _throughput("{} x {} JPEGs in half".format(*SIZES[1]), values, spent, None)


def _crowd(folder: Path, size: tuple[int, int], classifier: Classifier) -> Path:
    """Write a folder with the photos of the clients and the expected answers."""
    files = _photos(folder / "photos", size)
    crops = np.stack([classifier.lead.preprocess.crop(path.read_bytes()) for path in files])
    expected = [classifier.rank(p_C, 1).best.taxon.id for p_C in classifier.scores(crops)]
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


def _beside(
    server: tuple[int, int], classifier: Classifier, crowd: Path, seconds: float, times: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Measure photos per second of each variant, and milliseconds of processor time per photo."""
    port, pid = server
    files = sorted((crowd / "photos").iterdir())
    crops = np.stack([classifier.lead.preprocess.crop(path.read_bytes()) for path in files])
    spent: dict[str, list[float]] = {SERVED: [], BARE: [], "decoding": []}

    def served() -> float:
        main, decoding = _seconds(pid), _decoder_seconds(pid)
        load = _clients(crowd, port, seconds, rate=0.0, clients=2 * BATCH)
        answered = load.statuses[200]
        decoding = _decoder_seconds(pid) - decoding
        spent["decoding"].append(1000 * decoding / answered)
        spent[SERVED].append(1000 * (_seconds(pid) - main + decoding) / answered)
        return answered / load.seconds

    def bare() -> float:
        before = time.process_time()
        rate, done = _rate(lambda: classifier.scores(crops), seconds)
        spent[BARE].append(1000 * (time.process_time() - before) / done)
        return rate

    def in_process() -> float:
        return _rate(lambda: _in_process(classifier, files), seconds)[0]

    return alternate({SERVED: served, BARE: bare, WITH_DECODING: in_process}, times), spent


def _throughput(
    photos: str, values: dict[str, list[float]], spent: dict[str, list[float]], aim: float | None
) -> list[Row]:
    """Return the rows of some photos."""
    share = f"of ours, decoding is {statistics.median(spent['decoding']):.2g} ms"
    what, unit = f"photos a second, {photos}", "img/s"
    return [
        compare(what, values, SERVED, BARE, unit=unit, more_is_better=True, aim=aim),
        compare(what, values, SERVED, WITH_DECODING, unit=unit, more_is_better=True),
        compare(f"processor time a photo, {photos}", spent, SERVED, BARE, unit="ms", aim=aim, note=share),
    ]


def _overloaded(load: Load) -> Row:
    """Compare the slowest of a hundred accepted photos with the bound: the queue and two batches."""
    throughput = load.statuses[200] / load.seconds
    bound = (QUEUE + 2 * BATCH) / throughput
    p99 = float(np.quantile(load.accepted, 0.99)) if load.accepted else float("inf")
    counts = ", ".join(f"{count:,} x {status}" for status, count in sorted(load.statuses.items()))
    return Row(
        what=f"99th percentile of the accepted, {CLIENTS} clients at twice the load",
        unit="s",
        ours=p99,
        peer=bound,
        peer_name=f"the bound: (queue {QUEUE} + 2 batches of {BATCH}) / photos a second",
        ratio=bound / p99,
        low=bound / p99,
        high=bound / p99,
        rounds=1,
        aim=1.0,
        note=f"answers: {counts}; wrong: {load.wrong}",
        more={"statuses": load.statuses, "wrong": load.wrong},
    )


def _rate(work: Any, seconds: float) -> tuple[float, int]:
    """Return photos per second, and their number."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += PHOTOS
    return done / (time.perf_counter() - start), done


def _in_process(classifier: Classifier, files: list[Path]) -> None:
    """Do the work of `fieldmark predict`: decode ahead in threads, run the network in batches."""
    photos = [PhotoFile(sha256(path.read_bytes()), path) for path in files]
    crops: list[Any] = []
    for crop in decoded(photos, classifier.lead.preprocess):
        crops.append(crop)
        if len(crops) == BATCH:
            classifier.scores(np.stack(crops))
            crops = []


def _classifier(folder: Path) -> Classifier:
    backbone = models.load("tf_efficientnet_lite0", weights="random")
    graphs.graph(backbone)
    rng = np.random.default_rng(0)
    head = LinearHead(
        rng.normal(0, 1, (backbone.architecture.feature_dim, CLASSES)).astype(np.float32),
        np.zeros(CLASSES, np.float32),
    )
    Classifier.alone(
        backbone,
        preprocess=Preprocess(fit="squash"),
        head=head,
        taxonomy=Taxonomy(Taxon(str(number), f"Taxon {number}") for number in range(CLASSES)),
        provenance={"name": "benchmark"},
    ).save(folder)
    return Classifier.load(folder)


def _photos(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Generate JPEGs of a width and height, all different."""
    folder.mkdir(parents=True)
    files = []
    for number in range(PHOTOS):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        files.append(folder / f"{number:03}.jpg")
        files[-1].write_bytes(file.getvalue())
    return files


@contextmanager
def _server(model: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Start `fieldmark serve` in a process; return its port and its id."""
    command = [sys.executable, "-m", "fieldmark", "serve", str(model), "--port", "0"]
    command += ["--queue", str(QUEUE), "--batch", str(BATCH), *options]
    log = model.parent / "log"
    with log.open("w") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            while not (found := re.findall(r"http://[\d.]+:(\d+)", log.read_text())):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield int(found[0]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def _decoder_seconds(pid: int) -> float:
    """Return the processor time of a server's decoding processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_seconds(int(child)) for child in children)


def _seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The clients, in a process of their own


def _clients(crowd: Path, port: int, seconds: float, *, rate: float, clients: int) -> Load:
    """Run clients on persistent connections; `rate` photos per second in all, 0: as fast as they can."""
    plan = json.dumps([str(crowd), port, seconds, rate, clients])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve", plan],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    found = json.loads(done.stdout)
    found["statuses"] = {int(status): count for status, count in found["statuses"].items()}
    return Load(**found)


class _Crowd:
    def __init__(self, folder: str, port: int, seconds: float, rate: float, clients: int) -> None:
        self.port, self.seconds, self.clients = port, seconds, clients
        self.pause = clients / rate if rate else 0.0
        self.photos = [path.read_bytes() for path in sorted(Path(folder, "photos").iterdir())]
        self.expected = json.loads(Path(folder, "expected.json").read_text())
        self.statuses: Counter[int] = Counter()
        self.accepted: list[float] = []
        self.wrong = 0

    async def run(self) -> Load:
        start = time.perf_counter()
        await asyncio.gather(*(self.client(number, start) for number in range(self.clients)))
        seconds = time.perf_counter() - start
        return Load(seconds, dict(self.statuses), self.accepted, self.wrong)

    async def client(self, number: int, start: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due, turn = start + self.pause * number / self.clients, number
        while time.perf_counter() - start < self.seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += self.pause
            which = turn % len(self.photos)
            turn += 1
            begin = time.perf_counter()
            status, closes, body = await self.ask(reader, writer, self.photos[which])
            self.statuses[status] += 1
            if status == 200:
                self.accepted.append(time.perf_counter() - begin)
                best = json.loads(body)["photos"][0]["labels"][0]["taxon_id"]
                self.wrong += best != self.expected[which]
            if closes:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()

    async def ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, photo: bytes
    ) -> tuple[int, bool, bytes]:
        head = f"POST /v1/predict?top=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(photo)}\r\n\r\n"
        writer.write(head.encode() + photo)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(re.findall(rb"content-length: (\d+)", lines)[0])
        return int(lines[9:12]), b"connection: close" in lines, await reader.readexactly(length)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_Crowd(*json.loads(sys.argv[1])).run()).__dict__))
