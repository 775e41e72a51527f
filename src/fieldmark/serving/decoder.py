"""Program of a decoding process: reads photos from one pipe, writes crops to another.

The process does not load the network. The operating system limits its memory and processor time and
forbids it to write files. Whatever a photo does to it, the server only sees a pipe that ends.

Input:  8 and 4 bytes, the lengths; the photo; its boxes as JSON, or null for the whole photo.
Output: 1 byte, `CROP` or `REJECTED`; 4 bytes, the length; then the rejection as JSON, or 4 bytes, the length,
        what is known of the photo as JSON (`about`), and the crops, box by box and view by view.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fieldmark.data import images, transforms
from fieldmark.data.images import extras
from fieldmark.data.storage.places import Box
from fieldmark.data.transforms import Preprocess
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.typing import ByteArray

LENGTHS = struct.Struct(">QI")
HEAD = struct.Struct(">BI")
SIZE = struct.Struct(">I")
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
    exif: bool = False  # whether its place and time are read


def main() -> None:
    """Decode photos until the server closes the pipe."""
    task = Task(**json.loads(sys.argv[1]))
    views = [Preprocess.from_json(each) for each in task.views]
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _warm_up(views)
    _limit(task.max_pixels)
    sink.write(b"!")  # ready
    sink.flush()
    while len(head := source.read(LENGTHS.size)) == LENGTHS.size:
        data, boxes = (source.read(length) for length in LENGTHS.unpack(head))
        _allow_seconds(task.seconds)
        kind, payload = _outcome(data, _boxes(boxes), views, task)
        sink.write(HEAD.pack(kind, len(payload)) + payload)
        sink.flush()


def _boxes(data: bytes) -> list[Box] | None:
    found = json.loads(data)
    return found and [
        Box(left, top, width, height, size and tuple(size)) for left, top, width, height, size in found
    ]


def _outcome(
    data: bytes, boxes: Sequence[Box] | None, views: Sequence[Preprocess], task: Task
) -> tuple[int, bytes]:
    try:
        header = images.header(data, max_pixels=task.max_pixels)
        found, note = _crops(data, boxes, views)
        seen = _exif(data) if task.exif else images.Exif()
        about = json.dumps(
            {
                "size": [header.width, header.height],
                "note": note,
                "exif": [seen.taken, seen.latitude, seen.longitude],
                "rejected": [None if isinstance(each, tuple) else _reason(each) for each in found],
            }
        ).encode()
        crops = (crop.tobytes() for each in found if isinstance(each, tuple) for crop in each)
        return CROP, SIZE.pack(len(about)) + about + b"".join(crops)
    except ImageRejected as error:
        return REJECTED, json.dumps(_reason(error)).encode()


def _reason(error: ImageRejected) -> list[str]:
    return [error.reason.value, error.detail]


def _crops(
    data: bytes, boxes: Sequence[Box] | None, views: Sequence[Preprocess]
) -> tuple[list[tuple[ByteArray, ...] | ImageRejected], str]:
    """Return the crops of a photo, or of each box of it, or why there are none; and the note of the photo."""
    try:
        parts = [data] if boxes is None else images.box_crops(data, boxes) if boxes else []
        return [transforms.crops(part, views) for part in parts], ""
    except ImageRejected as error:
        if error.reason != RejectReason.TRUNCATED:
            raise
        if boxes is None:
            return [_cut(data, None, views)], error.reason.value
    found: list[tuple[ByteArray, ...] | ImageRejected] = []
    for box in boxes:
        try:
            found.append(_cut(data, box, views))
        except ImageRejected as error:
            found.append(error)
    return found, RejectReason.TRUNCATED.value


def _cut(data: bytes, box: Box | None, views: Sequence[Preprocess]) -> tuple[ByteArray, ...]:
    part = images.decode_cut(data, box)
    return tuple(view.apply(part) for view in views)


def _exif(data: bytes) -> images.Exif:
    try:
        return images.exif(data)
    except ImageRejected:
        return images.Exif()


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
    with suppress(ImportError):  # Windows: only the limit of pixels and the server's clock hold there
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(FileNotFoundError):  # macOS, which has no limit of memory
            size_now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            memory = size_now + _SPARE_MEMORY + _BYTES_A_PIXEL * max_pixels
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _allow_seconds(seconds: float) -> None:
    """Limit processor time from now on, so that an endless loop ends even without the server."""
    with suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
