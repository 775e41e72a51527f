"""Configuration of a server."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from fieldmark.data import images
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError


@dataclass(frozen=True)
class ServeConfig:
    """Settings of a server."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    keys: tuple[str, ...] = ()  # the valid API keys; empty: no key is required
    queue: int = 128  # most photos in the queue; further ones are refused with 503
    batch: int = 16  # the largest batch for the network
    max_pixels: int = 50_000_000  # of a photo, read from its header
    max_bytes: int = 32 * 1024 * 1024  # of a request body, checked before it is read
    max_photos: int = 32  # in one request
    decoders: int = 0  # decoding processes; 0: one per core
    decode_seconds: float = 20.0  # most for one photo
    body_seconds: float = 60.0  # most for a request body to arrive
    held_bytes: int = 256 * 1024 * 1024  # of request bodies in memory, over all requests
    head_seconds: float = 10.0  # most that a connection may wait for the head of a request
    connections: int = 1024  # at once; beyond it health checks alone are answered
    client_connections: int = 256  # of one address at once
    origins: tuple[str, ...] = ()  # of pages elsewhere that may use the API, such as https://app.example
    drain_seconds: int = 30  # most that a shutdown waits for accepted requests

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
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s,@*?#]+", origin):
                raise InputError(
                    f"--allow-origin is {origin!r}: give the scheme and host of one site, such as "
                    "https://app.example or http://localhost:3000."
                )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def workers(self) -> int:
        """Number of decoding processes."""
        return self.decoders or cores()

    @property
    def photos_a_request(self) -> int:
        """Most photos in one request, which the queue must be able to hold."""
        return min(self.max_photos, self.queue)
