"""Measure photo bytes to crop, against Pillow: `python -m benchmarks.decode`.

Pillow's variant is that of a data loader: open, convert to RGB, resize the shorter side, cut the
centre. Each round runs every variant once, one after the other, so that other load of the machine
affects all of them; the figure is the median over the rounds, in milliseconds per photo on one thread.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.common import Row, alternate, compare, rounds, table
from fieldmark.data.transforms import Preprocess

SIZES = ((500, 375), (800, 600), (2048, 1536))
ROUNDS = 7
SECONDS_A_TURN = 0.15
PILLOW = "Pillow, one thread"
AIMS = {(500, "exact"): 2.0, (500, "fast"): 2.0, (2048, "fast"): 3.0}
EXACT, FAST = Preprocess(tier="exact"), Preprocess(tier="fast")


def photo(width: int, height: int, seed: int = 0) -> bytes:
    """Generate a JPEG of quality 90 that costs as much to decode as a photo."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + random.normal(0, 6, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def pillow_crop(data: bytes) -> np.ndarray:
    """Make the crop of `EXACT` as a data loader does: Pillow, from bytes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    shorter = min(image.size)
    size = (256 * image.width // shorter, 256 * image.height // shorter)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def run(quick: bool = False) -> list[Row]:
    """Return a row for each size and tier, with the mean difference from Pillow in grey levels."""
    return [row for size in SIZES for row in _measure(*size, rounds(quick, ROUNDS))]


def _measure(width: int, height: int, count: int) -> list[Row]:
    data = photo(width, height)
    ways: dict[str, Callable[[], float]] = {
        PILLOW: lambda: _milliseconds(lambda: pillow_crop(data)),
        "exact": lambda: _milliseconds(lambda: EXACT.crop(data)),
        "fast": lambda: _milliseconds(lambda: FAST.crop(data)),
    }
    values = alternate(ways, count)
    reference = pillow_crop(data).astype(int)
    rows = []
    for tier, crop in (("exact", EXACT), ("fast", FAST)):
        difference = float(np.abs(crop.crop(data) - reference).mean())
        rows.append(
            compare(
                f"{width} x {height}, {tier}",
                values,
                tier,
                PILLOW,
                unit="ms",
                aim=AIMS.get((width, tier)),
                note=f"{difference:.3g} grey levels from Pillow's crop",
                more={"bytes": len(data), "difference": difference},
            )
        )
    return rows


def _milliseconds(way: Callable[[], object]) -> float:
    """Return the median of one call over a short time: robust against interruptions."""
    calls: list[float] = []
    end = time.perf_counter() + SECONDS_A_TURN
    while len(calls) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        way()
        calls.append(1000 * (time.perf_counter() - start))
    return statistics.median(calls)


if __name__ == "__main__":
    print(table("decode", run()))
