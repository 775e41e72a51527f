"""Prometheus metrics of one server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "From the head of the request to the end of the response.", "route"
        )
        self.photos = self._counter(
            "photos", "Photos by the source of the answer, or by the code of the error.", "outcome"
        )
        self.decode_seconds = self._histogram("decode_seconds", "Decoding of one photo.")
        self.batch_seconds = self._histogram("batch_seconds", "One batch in the network.")
        self.batch_size = self._histogram("batch_photos", "Photos in one batch.", buckets=_COUNTS)
        self.decoder_failures = self._counter(
            "decoder_failures", "Decoding processes that had to be replaced."
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"fieldmark_{name}", help, labels, registry=self._registry)

    def _histogram(
        self, name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        registry = self._registry
        return Histogram(f"fieldmark_{name}", help, labels, registry=registry, buckets=buckets)

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read whenever the metrics are requested."""
        Gauge(f"fieldmark_{name}", help, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
