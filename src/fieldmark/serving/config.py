"""What a server may be told."""

from __future__ import annotations

from dataclasses import dataclass

from fieldmark.data import images
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError


@dataclass(frozen=True)
class ServeConfig:
    """The settings of a server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        keys: the API keys that are let in; empty: everyone is.
        queue: how many photos may be under way; a photo more is refused with 503.
        batch: how many photos the network is given at once.
        max_pixels: a photo with more is refused from its header.
        max_bytes: a request with a larger body is refused before it is read.
        max_photos: how many photos one request may bring.
        decoders: how many processes decode; 0: one a core.
        decode_seconds: a photo that takes longer to decode is refused.
        body_seconds: a request whose body takes longer to arrive is refused.
        held_bytes: how many bytes of bodies are held at once, of all requests together.
        drain_seconds: how long a shutdown waits for what was begun.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    queue: int = 128
    batch: int = 16
    max_pixels: int = 50_000_000
    max_bytes: int = 32 * 1024 * 1024
    max_photos: int = 32
    decoders: int = 0
    decode_seconds: float = 20.0
    body_seconds: float = 60.0
    held_bytes: int = 256 * 1024 * 1024
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        ranges = {
            "port": (0, 65_535),
            "queue": (1, 100_000),
            "batch": (1, 1024),
            "max_pixels": (1, images.MAX_PIXELS),
            "max_bytes": (1, images.MAX_BYTES),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} is {value:,}: it must be from {low:,} to {high:,}.")

    @property
    def workers(self) -> int:
        """How many processes decode."""
        return self.decoders or cores()

    @property
    def photos_a_request(self) -> int:
        """How many photos one request may bring: never more than there are places in the queue."""
        return min(self.max_photos, self.queue)
