"""Decode the frames of a clip in a stream, with FFmpeg (PyAV, `pip install fieldmark[video]`).

At most a few frames are in memory. What a file says of itself (length, number of frames, rate) is not
believed: times are those of the frames, as far as they go on, and a damaged part is passed over. Text that
FFmpeg would take for a list of other files is not opened.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data.image_containers import reject
from fieldmark.data.storage.places import Place
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import ImageRejected, RejectReason, first_line
from fieldmark.utils.typing import ByteArray

if TYPE_CHECKING:
    import av

SUFFIXES = frozenset(
    (
        *(".avi", ".mp4", ".m4v", ".mov", ".asf", ".wmv", ".mkv", ".webm"),
        *(".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".flv"),
    )
)
_FORMATS = "avi,mov,mp4,m4a,3gp,3g2,mj2,asf,matroska,webm,mpeg,mpegvideo,mpegts,flv"
MAX_PIXELS = 36_000_000
"""Pixels of the largest frame that is decoded: somewhat more than 7680 x 4320."""
MAX_SECONDS = 6 * 3600.0
"""Length of the longest clip that is read."""
_MAX_DECODED = 2_000_000  # frames: six hours of ninety a second
_USUAL_RATE = 25.0  # frames a second, where a file says nothing that can be
_SMALL = (64, 36)  # of the grey frames that are compared
_LEVELS, _SHARE = 12, 0.005  # a frame has changed where so many grey levels differ in such a share of it


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are taken.

    Attributes:
        every: the seconds between two frames.
        changed: of these only frames that differ from the last one taken.
    """

    every: float = 1.0
    changed: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame of a clip: its number among all frames, from 0; its time in seconds from the first; its pixels,
    uint8 (H, W, 3), as they are shown."""

    number: int
    second: float
    pixels: ByteArray


class Clip:
    """The frames of one clip, in order; `rate` is known, in frames a second, once the first one is read.

    Args:
        path: the file.
        sampling: which frames are taken.
        numbers: take the frames with these numbers instead.
    """

    def __init__(
        self, path: Place, sampling: Sampling = Sampling(), numbers: Collection[int] | None = None
    ) -> None:
        self._path, self._sampling, self._numbers = path, sampling, numbers
        self.rate = -1.0
        self.started = ""
        """The time that the camera wrote into the clip, ISO 8601; "" where there is none."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            ImageRejected: MISSING, EMPTY, UNREADABLE, NOT_AN_IMAGE (no video), UNSUPPORTED, TOO_LARGE (see
                `MAX_PIXELS` and `MAX_SECONDS`), or CORRUPT (no frame can be decoded).
        """
        path, last, due, taken = _checked(self._path), -math.inf, -math.inf, None
        with closing(_opened(path)) as container:
            stream = _stream(container, path)
            self.started = str(container.metadata.get("creation_time") or "")
            self.rate = _rate(stream)
            first, number = None, -1
            for number, frame in enumerate(_decoded(container, stream)):
                if first is None:
                    first = frame.time or 0.0
                second = (frame.time if frame.time is not None else -math.inf) - first
                if second <= last:  # no time, or one that goes back
                    second = last + 1 / self.rate
                last = second
                if second > MAX_SECONDS or number >= _MAX_DECODED:
                    reject(RejectReason.TOO_LARGE, f"{path} is longer than {MAX_SECONDS / 3600:.0f} hours")
                if self._numbers is not None:
                    if number in self._numbers:
                        yield Frame(number, round(second, 3), _pixels(frame))
                    if number >= max(self._numbers, default=-1):
                        break
                elif second >= due - 0.5 / self.rate:  # the nearest frame
                    every = self._sampling.every  # from the last time on; after a gap from this one
                    due = due + every if due + every > second else second + every
                    due = max(due, second)  # after a gap
                    small = _small(frame) if self._sampling.changed else None
                    if small is None or taken is None or _differ(small, taken):
                        taken = small
                        yield Frame(number, round(second, 3), _pixels(frame))
        if number < 0:
            reject(RejectReason.CORRUPT, f"no frame of {path} can be decoded")


def is_video(name: str) -> bool:
    """Return whether the name of a file is that of a clip."""
    return PurePath(name).suffix.lower() in SUFFIXES


def _checked(path: Place) -> Path:
    """Return the path of a file that is there and has bytes."""
    if not isinstance(path, Path):
        reject(RejectReason.UNSUPPORTED, f"{path} is a clip that is not on this machine: download it")
    try:
        if not path.is_file():
            reject(RejectReason.MISSING, f"no file {path}")
        if not path.stat().st_size:
            reject(RejectReason.EMPTY, f"{path} has no bytes")
    except (OSError, ValueError) as error:
        raise ImageRejected(RejectReason.UNREADABLE, f"{path}: {error}") from error
    return path


def _opened(path: Path) -> av.container.InputContainer:
    try:
        import av
    except ImportError:
        reject(RejectReason.UNSUPPORTED, "clips need PyAV: run pip install 'fieldmark[video]'")
    av.logging.set_level(None)
    limits = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    try:
        return av.open(f"file:{path.absolute()}", options=limits, metadata_errors="replace")
    except PermissionError as error:
        raise ImageRejected(RejectReason.UNREADABLE, f"{path}: {error.strerror}") from error
    except Exception as error:  # FFmpeg's errors, for a file from anywhere
        raise ImageRejected(RejectReason.NOT_AN_IMAGE, f"{path} is no video ({_said(error)})") from error


def _stream(container: av.container.InputContainer, path: Path) -> Any:
    if not container.streams.video:
        reject(RejectReason.NOT_AN_IMAGE, f"{path} has no pictures")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None or context.codec is None:
        reject(RejectReason.UNSUPPORTED, f"{path} has pictures of an unknown kind")
    if context.width * context.height > MAX_PIXELS:
        reject(RejectReason.TOO_LARGE, f"{path} has frames of {context.width} x {context.height} pixels")
    context.thread_type, context.thread_count = "AUTO", min(cores(), 4)
    length = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
    if length > MAX_SECONDS and _last(container, stream) > MAX_SECONDS:
        reject(RejectReason.TOO_LARGE, f"{path} is longer than {MAX_SECONDS / 3600:.0f} hours")
    return stream


def _last(container: av.container.InputContainer, stream: Any) -> float:
    """Return the time of the last frame without decoding any, in seconds; then go back to the first."""
    times = [each.pts for each in container.demux(stream) if each.pts is not None]
    container.seek(0)
    return float((max(times) - min(times)) * stream.time_base) if times else 0.0


def _rate(stream: Any) -> float:
    found = float(stream.average_rate or stream.guessed_rate or 0)
    return found if 0.001 <= found <= 1000 else _USUAL_RATE


def _decoded(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    """Yield the frames that can be decoded."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except (av.FFmpegError, MemoryError, ValueError):  # of this part of the file
            if packet is None or packet.size == 0:
                return
            continue
        for frame in frames:
            if frame.width * frame.height > MAX_PIXELS:
                reject(RejectReason.TOO_LARGE, f"a frame has {frame.width} x {frame.height} pixels")
            yield frame


def _pixels(frame: Any) -> ByteArray:
    pixels: ByteArray = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # of the display, against the clock
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _small(frame: Any) -> np.ndarray[Any, Any]:
    small = frame.reformat(width=_SMALL[0], height=_SMALL[1], format="gray").to_ndarray()
    return np.asarray(small, np.int16)


def _differ(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Return whether a part of two grey frames differs, apart from how bright they are as a whole."""
    change = one - other
    return bool((np.abs(change - np.median(change)) > _LEVELS).mean() > _SHARE)


def _said(error: Exception) -> str:
    return (getattr(error, "strerror", None) or first_line(error))[:100]
