"""Pool of decoding processes; one that crashes or hangs is replaced, and only its photo fails."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import numpy as np

from fieldmark.data.images import Exif
from fieldmark.data.storage.places import Box
from fieldmark.data.transforms import Preprocess
from fieldmark.serving import decoder
from fieldmark.utils.errors import FieldmarkError, ImageRejected, RejectReason
from fieldmark.utils.typing import ByteArray

_START_SECONDS = 60.0
_PIPE = 1024 * 1024  # the read buffer; a whole crop fits into it
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc: keep the memory of a photo for the next one; getting it anew takes a third of the decoding.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}


class DecoderFailed(Exception):
    """The process crashed, hung or sent an invalid answer; it has been replaced."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded photo.

    Attributes:
        crops: of the whole photo, one per view, uint8 (S, S, 3); empty where its boxes were asked for.
        width, height: of the upright photo, in pixels.
        note: "truncated" where only a part of the photo is there; else "".
        exif: where and when it was taken, if that was asked for.
        in_boxes: the crops of each box, or why there are none.
    """

    crops: tuple[ByteArray, ...]
    width: int
    height: int
    note: str = ""
    exif: Exif = field(default_factory=Exif)
    in_boxes: tuple[tuple[ByteArray, ...] | ImageRejected, ...] = ()


class Decoders:
    """A fixed number of decoding processes; `on_failure` is called when one is replaced."""

    def __init__(
        self,
        views: Sequence[Preprocess],
        *,
        count: int,
        max_pixels: int,
        seconds: float,
        exif: bool = False,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._sides = [view.size for view in views]
        task = decoder.Task([view.to_json() for view in views], max_pixels, seconds, exif)
        self._argument = json.dumps(asdict(task))
        self._count, self._seconds, self._on_failure = count, seconds, on_failure
        self._idle: asyncio.Queue[Process] = asyncio.Queue()
        self._all: set[Process] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Start the processes and wait until all are ready; raises FieldmarkError if one does not start."""
        try:
            await asyncio.gather(*(self._start_one() for _ in range(self._count)))
        except DecoderFailed as error:
            await self.close()
            raise FieldmarkError(
                "A decoding process does not start: check the free memory of this machine."
            ) from error

    @property
    def alive(self) -> int:
        """Number of running processes."""
        return len(self._all)

    async def decode(self, data: bytes, boxes: Sequence[Box] | None = None) -> Decoded:
        """Decode a photo, or boxes of it, all of which are in it.

        Raises:
            ImageRejected: the photo cannot be used.
            DecoderFailed: the process crashed or took too long.
        """
        process = await self._idle.get()
        try:
            kind, payload = await asyncio.wait_for(_ask(process, data, boxes), self._seconds)
            found = self._read(kind, payload, whole=boxes is None)
        except ImageRejected:
            self._idle.put_nowait(process)
            raise
        except (TimeoutError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
            self._replace(process)
            self._on_failure()
            raise DecoderFailed from error
        except BaseException:  # cancelled: the next bytes on the pipe belong to this photo
            self._replace(process)
            raise
        self._idle.put_nowait(process)
        return found

    def _read(self, kind: int, payload: bytes, *, whole: bool) -> Decoded:
        if kind == decoder.REJECTED:
            reason, detail = json.loads(payload)
            raise ImageRejected(RejectReason(reason), detail)
        start = decoder.SIZE.size + decoder.SIZE.unpack_from(payload)[0]
        about = json.loads(payload[decoder.SIZE.size : start])
        pixels = np.frombuffer(payload, np.uint8, offset=start)
        one = sum(3 * side**2 for side in self._sides)
        reasons = about["rejected"]
        if len(pixels) != one * reasons.count(None):
            raise ValueError(f"{len(pixels)} bytes of crops, {one} each for {reasons.count(None)} expected")
        parts = iter(pixels.reshape(-1, one))
        found = tuple(
            ImageRejected(RejectReason(each[0]), each[1]) if each else self._crops(next(parts))
            for each in reasons
        )
        crops = self._crops(pixels) if whole else ()
        width, height = about["size"]
        return Decoded(crops, width, height, about["note"], Exif(*about["exif"]), () if whole else found)

    def _crops(self, pixels: ByteArray) -> tuple[ByteArray, ...]:
        ends = np.cumsum([3 * side**2 for side in self._sides])[:-1]
        crops = zip(np.split(pixels, ends), self._sides, strict=True)
        return tuple(crop.reshape(side, side, 3) for crop, side in crops)

    def _replace(self, process: Process) -> None:
        self._all.discard(process)
        _kill(process)
        if not self._closed:
            task = asyncio.ensure_future(self._start_again())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start_again(self) -> None:
        pause = 0.1
        while not self._closed:
            with suppress(DecoderFailed):
                await self._start_one()
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10.0)

    async def _start_one(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: import nothing from the current folder
                *(sys.executable, "-P", "-m", "fieldmark.serving.decoder"),
                self._argument,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_PIPE,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C goes to the server only, which then ends its processes
            )
        except OSError as error:
            raise DecoderFailed from error
        self._all.add(process)
        assert process.stdout is not None
        try:
            await asyncio.wait_for(process.stdout.readexactly(1), _START_SECONDS)
        except BaseException as error:
            self._all.discard(process)
            _kill(process)
            if isinstance(error, (TimeoutError, EOFError)):
                raise DecoderFailed from error
            raise
        self._idle.put_nowait(process)

    async def close(self) -> None:
        """Stop all processes."""
        self._closed = True
        for task in list(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        processes, self._all = self._all, set()
        for process in processes:
            _kill(process)
        await asyncio.gather(*(process.wait() for process in processes))


async def _ask(process: Process, data: bytes, boxes: Sequence[Box] | None) -> tuple[int, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    sides = None if boxes is None else [[b.left, b.top, b.width, b.height, b.size] for b in boxes]
    asked = json.dumps(sides).encode()
    process.stdin.write(decoder.LENGTHS.pack(len(data), len(asked)))
    process.stdin.write(data)
    process.stdin.write(asked)
    await process.stdin.drain()
    kind, length = decoder.HEAD.unpack(await process.stdout.readexactly(decoder.HEAD.size))
    return kind, await process.stdout.readexactly(length)


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
