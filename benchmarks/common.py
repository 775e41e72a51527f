"""Shared parts of all benchmarks: alternating measurements, their medians as a row, the record of a run.

A benchmark is a module with a function

    run(quick: bool = False) -> list[Row]

and a line in `benchmarks.BENCHMARKS`. Each row compares one figure of ours with that of a peer, the tool
that a user would take instead. Both are measured in one call: `alternate` runs every variant once per
round, in an order that rotates from round to round, so that other load of the machine affects all of
them.

    values = alternate({"ours": timed(ours), "Pillow": timed(theirs)}, rounds=rounds(quick))
    return [compare("decode, 500 x 375", values, "ours", "Pillow", unit="s")]
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.utils import memory

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
SHARED = ROOT.parent / "shared"
"""The folder of the real photos, beside the checkout."""

ROUNDS = 5
"""Fewer rounds than this are marked in every table."""

EXACT = 0
"""The rounds of a figure that does not vary, such as an error or a count."""

_PACKAGES = (
    *("numpy", "onnxruntime", "openvino", "pillow", "polars", "scikit-learn"),
    *("simplejpeg", "timm", "torch", "torchvision"),
)
# The instructions that the speed of networks and decoders depends on.
_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "sve"),
)


class Unavailable(Exception):
    """Something that a benchmark needs is missing (the real photos, a GPU): it is skipped."""


@dataclass(frozen=True)
class Row:
    """One figure of ours beside a peer's.

    Attributes:
        what: the measured quantity, in a few words.
        unit: of `ours` and `peer`: "s", "ms", "img/s", ...
        ours: our median.
        peer: the peer's median.
        peer_name: the peer, and how it was used.
        ratio: how many times better ours is; above 1 ours is better, whatever the unit.
        low, high: the lowest and the highest ratio within one round.
        rounds: the number of rounds; `EXACT` where nothing varies.
        aim: the ratio to reach; None: no aim.
        note: a remark for the reader; "" if there is none.
        more: further numbers by name, in the JSON only.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    low: float
    high: float
    rounds: int
    aim: float | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def rounds(quick: bool, full: int = ROUNDS) -> int:
    """Return the number of rounds: one for a quick check."""
    return 1 if quick else full


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Return a function that measures the seconds of a call, for `alternate`."""

    def way() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return way


def alternate(
    ways: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = False
) -> dict[str, list[float]]:
    """Call every variant once per round and return its values (seconds, a rate, ...) by its name.

    Args:
        ways: the functions to call; each measures itself, see `timed`.
        rounds: the number of rounds; every round begins with the next variant.
        warm_up: call each once before, and discard the value.
    """
    names = list(ways)
    values: dict[str, list[float]] = {name: [] for name in names}
    if warm_up:
        for way in ways.values():
            way()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            values[name].append(ways[name]())
    return values


def jpeg(number: int, size: tuple[int, int]) -> bytes:
    """Generate a photo; `size` is its height and width in pixels, as of an array."""
    from PIL import Image

    small = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def elsewhere(module: str, *words: object, **settings: str) -> dict[str, float]:
    """Run a benchmark's module in a process of its own, for its memory, and return the JSON it prints.

    Args:
        module: its name in this folder.
        words: its arguments.
        settings: additional environment variables.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def peak_gib() -> float:
    """Return the peak memory of this process in GiB."""
    return (memory.peak() or math.nan) / memory.GIB


def compare(
    what: str,
    values: Mapping[str, Sequence[float]],
    ours: str,
    peer: str,
    *,
    unit: str = "s",
    more_is_better: bool = False,
    aim: float | None = None,
    note: str = "",
    more: dict[str, Any] | None = None,
) -> Row:
    """Make one row from the values of `alternate`: medians, their ratio, and its range over the rounds.

    Args:
        what: what was measured.
        values: one number a round for each way.
        ours, peer: the two ways to compare.
        unit: of the values.
        more_is_better: whether they are rates; otherwise they are times.
        aim, note, more: see `Row`.
    """
    mine, theirs = values[ours], values[peer]
    if len(mine) != len(theirs) or not mine:
        raise ValueError(f"{what}: {ours} and {peer} must have run in the same rounds")

    def better(a: float, b: float) -> float:
        return a / b if more_is_better else b / a

    each = [better(a, b) for a, b in zip(mine, theirs, strict=True)]
    a, b = statistics.median(mine), statistics.median(theirs)
    return Row(
        what=what,
        unit=unit,
        ours=a,
        peer=b,
        peer_name=peer,
        ratio=better(a, b),
        low=min(each),
        high=max(each),
        rounds=len(mine),
        aim=aim,
        note=note,
        more=more or {},
    )


def paired(
    what: str,
    ours: float,
    peer: float,
    peer_name: str,
    found: tuple[float, float, float],
    *,
    aim: float | None = None,
    note: str = "",
    more: dict[str, Any] | None = None,
) -> Row:
    """Make one row from two errors on the same photos; `found`: their difference and its 95 % CI."""
    value, low, high = found
    verdict = "a tie" if low <= 0 <= high else "lower" if value < 0 else "HIGHER"
    text = f"difference {value:+.3f} ({low:+.3f} to {high:+.3f}): {verdict}"
    ratio = peer / ours if ours else float(peer == ours) or 1.0
    return Row(
        *(what, "", ours, peer, peer_name, ratio, ratio, ratio, EXACT, aim),
        note=f"{text}{'; ' + note if note else ''}",
        more={"difference": value, "low": low, "high": high, "tie": low <= 0 <= high} | (more or {}),
    )


def record(name: str, rows: Sequence[Row], seconds: float, load: float) -> dict[str, Any]:
    """Return the record of one benchmark: its rows, and everything they depend on.

    Args:
        name: the benchmark.
        rows: its results.
        seconds: the total time.
        load: the load average of the machine before the start; far above 0, others were using it.
    """
    return {
        "benchmark": name,
        "rows": [_rounded(asdict(row)) for row in rows],
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "commit": commit(),
        "machine": machine() | {"load_before": round(load, 2)},
        "versions": versions(),
    }


def _rounded(value: Any) -> Any:
    """Round to four digits, so that not every run changes every line of the file."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def commit() -> str:
    """Return the measured commit, with "+" where the sources have changed since."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return f"{head or 'unknown'}{'+' if changed else ''}"


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Describe the machine: cores, processor, relevant instructions, memory, system."""
    about = _cpuinfo()
    flags = set((about.get("flags") or about.get("Features") or "").split())
    return {
        "cores": cores(),
        "processor": about.get("model name") or platform.processor() or platform.machine(),
        "mhz": round(float(about.get("cpu MHz") or 0)) or None,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **({"gpu": name} if (name := _gpu()) else {}),
    }


def _gpu() -> str | None:
    """Return the GPU's name, if PyTorch is loaded and sees one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in first)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("fieldmark", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def shared(*parts: str) -> Path:
    """Return a file or folder of the real photos, annotations and weights beside the checkout.

    Raises:
        Unavailable: it is not there.
    """
    path = SHARED.joinpath(*parts)
    if not path.exists():
        raise Unavailable(f"../shared/{'/'.join(parts)} is not beside this checkout")
    return path


def table(name: str, rows: Sequence[Row]) -> str:
    """Format the rows as text for a terminal."""
    head = (name, "ours", "peer", "", "ratio", "(rounds)", "aim", "")
    lines = [head, *(_cells(row) for row in rows)]
    width = [max(len(line[column]) for line in lines) for column in range(len(head))]
    left = (0, 3, 7)
    text = []
    for line in lines:
        cells = [cell.ljust(width[n]) if n in left else cell.rjust(width[n]) for n, cell in enumerate(line)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        figure(row.ours),
        figure(row.peer),
        row.unit,
        f"{figure(row.ratio)}x",
        spread(row),
        "" if row.aim is None else f"{figure(row.aim)}x",
        f"{row.peer_name}{'; ' + row.note if row.note else ''}",
    )


def spread(row: Row) -> str:
    """Format the range of the ratio over the rounds, marked where there are too few."""
    if row.rounds == EXACT:
        return "(no timing)"
    if row.rounds < ROUNDS:
        return f"({row.rounds} of {ROUNDS} rounds!)"
    return f"({figure(row.low)} to {figure(row.high)})"


def figure(value: float) -> str:
    """Format a number with three significant digits, without decimals above 100."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
