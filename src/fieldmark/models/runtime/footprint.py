"""What a converted graph takes to run: the size of its file, memory, and photos a second."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fieldmark.models.runtime import graphs
from fieldmark.utils import memory
from fieldmark.utils.errors import InputError

_CALLS = 15
_WARM = 3


@dataclass(frozen=True)
class Footprint:
    """What a graph takes, in ONNX Runtime.

    Attributes:
        file_megabytes: of the graph with its weights, as `fieldmark export` writes it.
        memory_megabytes: by which loading it and running it on one crop raise a process's peak memory.
        rate: crops a second, one crop at a time, on one core.
    """

    file_megabytes: float
    memory_megabytes: float
    rate: float


def footprint(graph: Path, side: int) -> Footprint:
    """Measure a graph in a process of its own, so that nothing else counts.

    Args:
        graph: from crops, uint8 (N, S, S, 3), to features.
        side: S, in pixels.

    Raises:
        InputError: the graph cannot be run.
    """
    command = [sys.executable, "-m", __name__, str(graph), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{graph} cannot be measured: {why[:200]}")
    added, rate = json.loads(done.stdout.splitlines()[-1])
    return Footprint(graph.stat().st_size / 1e6, added, rate)


def _peak() -> float:
    """The peak memory of this process in megabytes; NaN where the system does not say."""
    found = memory.peak()
    return float("nan") if found is None else found / 1e6


def _measure(graph: Path, side: int) -> tuple[float, float]:
    import onnxruntime  # noqa: F401  # its own memory does not count

    crop = graphs.sample(side, 1)
    before = _peak()
    engine = graphs.OnnxEngine(graph, 1, threads=1)
    engine(crop)
    added = _peak() - before
    seconds = []
    for _ in range(_WARM + _CALLS):
        start = time.perf_counter()
        engine(crop)
        seconds.append(time.perf_counter() - start)
    return added, 1 / statistics.median(seconds[_WARM:])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
