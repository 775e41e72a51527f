"""Prometheus metrics of one server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, namespace="fieldmark", registry=self._registry)
        histogram = partial(Histogram, namespace="fieldmark", registry=self._registry, buckets=_SECONDS)
        self.requests = counter("requests", "Requests by route and status.", ("route", "status"))
        self.request_seconds = histogram(
            "request_seconds", "From the head of the request to the end of the response.", ("route",)
        )
        self.photos = counter(
            "photos", "Photos by the source of the answer, or by the code of the error.", ("outcome",)
        )
        self.decode_seconds = histogram("decode_seconds", "Decoding of one photo.")
        self.batch_seconds = histogram("batch_seconds", "One batch in the network.")
        self.batch_size = histogram("batch_photos", "Photos in one batch.", buckets=_COUNTS)
        self.decoder_failures = counter("decoder_failures", "Decoding processes that had to be replaced.")

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read whenever the metrics are requested."""
        Gauge(name, help, namespace="fieldmark", registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
