"""What /metrics counts, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            *("fieldmark_requests", "Requests by route and status."),
            labelnames=("route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            *("fieldmark_request_seconds", "From the request's head to its answer's end."),
            labelnames=("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.photos = Counter(
            *("fieldmark_photos", "Photos by the answer's source, or by why they were refused."),
            labelnames=("outcome",),
            registry=registry,
        )
        self.decode_seconds = Histogram(
            *("fieldmark_decode_seconds", "One photo, from its turn to its crop."),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            *("fieldmark_batch_seconds", "One batch in the network."),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            *("fieldmark_batch_photos", "Photos in one batch."),
            buckets=_COUNTS,
            registry=registry,
        )
        self.decoder_failures = Counter(
            *("fieldmark_decoder_failures", "Decoding processes that had to be replaced."),
            registry=registry,
        )

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A number that is asked for whenever the page is."""
        Gauge(name, help, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)
