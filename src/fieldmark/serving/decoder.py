"""Program of a decoding process: reads photos from one pipe, writes crops to another.

The process does not load the network. The operating system limits its memory and processor time and
forbids it to write files. Whatever a photo does to it, the server only sees a pipe that ends.

Input:  8 bytes, the length; the photo.
Output: 1 byte, `CROP` or `REJECTED`; 4 bytes, the length; then width and height of the upright photo
        as 4 bytes each and the crops, view by view, or the rejection as JSON.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fieldmark.data import images, transforms
from fieldmark.data.images import extras
from fieldmark.data.transforms import Preprocess
from fieldmark.utils.errors import ImageRejected

LENGTH = struct.Struct(">Q")
HEAD = struct.Struct(">BI")
SIZE = struct.Struct(">II")
CROP, REJECTED = 0, 1

# An image of N pixels needs 3 N bytes; a 16-bit one with alpha, with a copy at each step, 24 N.
_BYTES_A_PIXEL = 24
_SPARE_MEMORY = 512 * 1024 * 1024


@dataclass(frozen=True)
class Task:
    """Configuration of a decoding process, which gets it as JSON."""

    views: Sequence[str]  # each as `Preprocess.to_json`
    max_pixels: int  # of a photo, read from its header
    seconds: float  # of processor time for one photo, at most


def main() -> None:
    """Decode photos until the server closes the pipe."""
    task = Task(**json.loads(sys.argv[1]))
    views = [Preprocess.from_json(each) for each in task.views]
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _warm_up(views)
    _limit(task.max_pixels)
    sink.write(b"!")  # ready
    sink.flush()
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        data = source.read(LENGTH.unpack(head)[0])
        _allow_seconds(task.seconds)
        kind, payload = _outcome(data, views, task.max_pixels)
        sink.write(HEAD.pack(kind, len(payload)) + payload)
        sink.flush()


def _outcome(data: bytes, views: Sequence[Preprocess], max_pixels: int) -> tuple[int, bytes]:
    try:
        header = images.header(data, max_pixels=max_pixels)
        crops = (crop.tobytes() for crop in transforms.crops(data, views))
        return CROP, SIZE.pack(header.width, header.height) + b"".join(crops)
    except ImageRejected as error:
        return REJECTED, json.dumps([error.reason.value, error.detail]).encode()


def _warm_up(views: Sequence[Preprocess]) -> None:
    """Import the image plugins; that could fail after `_limit`."""
    import io

    import numpy as np
    from PIL import Image

    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        file = io.BytesIO()
        Image.fromarray(np.full((16, 24, 3), 128, np.uint8)).save(file, kind)
        transforms.crops(file.getvalue(), views)
    for kind in extras.PACKAGES:
        with suppress(ImageRejected):  # it is not installed
            extras.package(kind)


def _limit(max_pixels: int) -> None:
    """Limit memory, and forbid files and core dumps."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        size_now = int(file.read().split()[0]) * resource.getpagesize()
    memory = size_now + _SPARE_MEMORY + _BYTES_A_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow_seconds(seconds: float) -> None:
    """Limit processor time from now on, so that an endless loop ends even without the server."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
