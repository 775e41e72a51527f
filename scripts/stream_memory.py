"""Measure the memory of training and of extraction from shards, by the number of photos.

    python scripts/stream_memory.py 2000 8000 32000

For each number small JPEGs are written into tars of 1,000 and into Parquet files of 1,000, also behind
a web server on this machine. In a process of its own each variant then reads all of them: `stream` is
an epoch of `train --stream` as the input of the network (random crops, batches), `extract` is
`fieldmark extract`. The network itself is left out: its memory does not depend on the photos. The
output is the peak of the process, and the part of it after the table of photos was read.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

IN_SHARD, CLASSES, SIDE = 1_000, 20, 96
NETWORK = "shufflenet_v2_x0_5"


def jpegs(count: int) -> Iterator[tuple[bytes, str]]:
    """Generate small photos and their labels; bytes after the end of a JPEG make each different."""
    from PIL import Image

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(64):
        file = io.BytesIO()
        pixels = rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(file, "JPEG", quality=90)
        drawn.append(file.getvalue() + bytes(20_000))  # as large as a photo of some size
    for number in range(count):
        yield drawn[number % 64] + number.to_bytes(8, "little"), f"kind {number % CLASSES:02}"


def write(folder: Path, count: int) -> None:
    """Write the photos as tars and as Parquet files."""
    import polars as pl

    (folder / "tars").mkdir(parents=True)
    (folder / "parquet").mkdir()
    photos = jpegs(count)
    for start in range(0, count, IN_SHARD):
        some = list(islice(photos, IN_SHARD))
        with tarfile.open(folder / "tars" / f"train-{start:08}.tar", "w") as archive:
            for number, (data, label) in enumerate(some):
                for suffix, text in (("jpg", data), ("cls", label.encode())):
                    about = tarfile.TarInfo(f"{start + number:08}.{suffix}")
                    about.size = len(text)
                    archive.addfile(about, io.BytesIO(text))
        frame = pl.DataFrame({"image": [each for each, _ in some], "label": [each for _, each in some]})
        frame.write_parquet(folder / "parquet" / f"train-{start:08}.parquet", row_group_size=100)


class Ranges(SimpleHTTPRequestHandler):
    """A file server with byte ranges, and folders as pages of links."""

    def log_message(self, *words: object) -> None:
        """Print nothing."""

    def send_head(self) -> Any:
        """Answer with a part of the file where one is requested."""
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return super().send_head()
        path = Path(self.translate_path(self.path))
        size = path.stat().st_size
        first, _, last = wanted.partition("-")
        start, end = int(first), min(int(last or size), size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        with path.open("rb") as handle:
            handle.seek(start)
            return io.BytesIO(handle.read(end + 1 - start))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Start a web server for a folder and return its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measure(what: str, place: str) -> None:
    """Read all photos and print the memory."""
    from fieldmark import models
    from fieldmark.data.split import split_photos
    from fieldmark.data.subset import DataSplits
    from fieldmark.features import sharded
    from fieldmark.features.extractor import FeatureExtractor
    from fieldmark.training.finetune import good
    from fieldmark.training.finetune.data import batches

    network = models.load(NETWORK, weights="random")
    table = sharded.read(Path(place)) if what == "extract" else _looked_at(place)
    before, start = _peak(), time.perf_counter()
    if what == "extract":
        dim = network.architecture.feature_dim

        def mean(crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return np.repeat(crops[:, ::32, ::32].mean((1, 2, 3))[:, None], dim, 1).astype(np.float32)

        sharded.runtime.engine = lambda *_, **__: mean  # type: ignore[attr-defined,assignment]
        seen = sharded.extract_shard(table, {NETWORK: network}, FeatureExtractor()).photos
    else:
        parts = DataSplits.of(table, split_photos(table, val=0.01, test=0.0, seed=0))
        crops, _ = FeatureExtractor().finetuning_crops(
            network, parts.train, parts.val, parts.classes, stream=True
        )
        seen = sum(len(labels) for _, labels in batches(crops, good("all", epochs=1), 0, 224))
    spent = time.perf_counter() - start
    say(
        f"{what:8} {seen:7,} photos  peak {_peak():7,.0f} MiB, {_peak() - before:5,.0f} of it after the "
        f"table; {seen / spent:6,.0f} photos/s"
    )


def _looked_at(place: str) -> Any:
    from fieldmark.data import readers

    return readers.read(Path(place))


def _peak() -> float:
    """Return the peak MiB of this program; `ru_maxrss` includes the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def say(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(words: list[str]) -> None:
    """Print a line for each number of photos, format and variant."""
    if words[0] in ("stream", "extract"):
        measure(words[0], words[1])
        return
    for count in map(int, words):
        with tempfile.TemporaryDirectory() as name, serving(Path(name)) as url:
            write(Path(name), count)
            for form, place in (
                ("tars", f"{name}/tars"),
                ("Parquet", f"{name}/parquet"),
                ("tars, HTTP", f"{url}/tars/"),
            ):
                for what in ("stream", "extract"):
                    with tempfile.TemporaryDirectory() as cache:
                        done = subprocess.run(
                            [sys.executable, __file__, what, place],
                            env=os.environ | {"FIELDMARK_CACHE": cache},
                            stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL,
                            text=True,
                            check=True,
                        )
                    say(f"{form:10} {done.stdout.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
