"""Tiers of precision: `exact` computes in float32, `half` in 16 bits, `int8` in 8-bit integers.

The features of two tiers differ by up to a tenth of a vector's length, so the tier is a part of their key,
and for int8 the quantised graph is, since its ranges depend on the photos that it was calibrated on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.cached import cached_file
from fieldmark.utils.choices import TierName
from fieldmark.utils.errors import InputError

HALF_TOLERANCE = 0.2
"""The largest distance of a vector in 16 bits from the float32 one, relative to its length. bfloat16 has 8
bits, and the errors of some dozen layers add up: with their published weights EfficientNet-Lite0 is 8 % off,
MobileNetV2 6 %, others 1 to 3 %. An engine that computes something else is off by the length and more."""


@dataclass(frozen=True)
class Tier:
    """How a network is computed.

    Attributes:
        name: of the tier.
        engine: for int8: the engine that the graph was made for.
        graph: for int8: the file of the quantised graph.
        digest: its SHA-256.
    """

    name: TierName = "exact"
    engine: str = "auto"
    graph: Path | None = None
    digest: str = ""

    @classmethod
    def int8(cls, engine: str, graph: Path, digest: str = "") -> Tier:
        """Return the tier of a quantised graph; with a digest the file is read later."""
        return cls("int8", engine, graph, digest or io.file_digest(graph))

    def key_of(self, exact: str) -> str:
        """Return the key of a backbone's features in this tier, by its key in float32."""
        return exact if self.name == "exact" else io.digest([exact, self.name, self.digest])

    def __reduce__(self) -> tuple[Callable[..., Tier], tuple[object, ...]]:
        """Take the graph along: a worker elsewhere has no such file."""
        return _received, (self.name, self.engine, self.digest, self.graph and self.graph.read_bytes())


EXACT = Tier()
HALF = Tier("half")


def _received(name: TierName, engine: str, digest: str, graph: bytes | None) -> Tier:
    if graph is None:
        return Tier(name, engine)
    path = cached_file("graphs", f"{digest}.int8.onnx")
    if not path.is_file() or io.file_digest(path) != digest:
        io.write_bytes(path, graph)
    return Tier(name, engine, path, digest)


def no_half(engine: str, why: str = "this processor has no bf16") -> InputError:
    """Return the error of an engine that computes no 16 bits on this machine."""
    return InputError(f"the engine {engine} cannot compute half here ({why}): use --compute exact or int8.")
