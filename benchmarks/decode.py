"""Photo bytes to crop, against Pillow's own way: `python benchmarks/decode.py`.

Pillow's way is what a data loader does: open, convert to RGB, resize the shorter side, cut the
centre. Each round runs every way once, one after the other, so that whatever else the machine does
falls on all of them; the figure is the median over the rounds, in milliseconds a photo on one thread.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from fieldmark import images
from fieldmark.preprocess import Preprocess

SIZES = ((500, 375), (800, 600), (2048, 1536))
ROUNDS = 7
SECONDS_A_TURN = 0.15
EXACT, FAST = Preprocess(tier="exact"), Preprocess(tier="fast")


def photo(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG of quality 90 that costs what a photo costs: smooth shapes under a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + random.normal(0, 6, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def pillow_crop(data: bytes) -> np.ndarray:
    """What a data loader does: Pillow, from bytes to the crop that `EXACT` makes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    shorter = min(image.size)
    size = (256 * image.width // shorter, 256 * image.height // shorter)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def run() -> list[dict[str, object]]:
    """One row a size: milliseconds of each way, ratios to Pillow's, and differences in grey levels."""
    return [_measure(width, height) for width, height in SIZES]


def _measure(width: int, height: int) -> dict[str, object]:
    data = photo(width, height)
    ways: dict[str, Callable[[], object]] = {
        "pillow": lambda: pillow_crop(data),
        "exact": lambda: EXACT.crop(data),
        "fast": lambda: FAST.crop(data),
        "verify": lambda: images.verify(data),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(_milliseconds(way))
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference = pillow_crop(data).astype(int)
    return {
        "size": f"{width} x {height}",
        "bytes": len(data),
        "rounds": ROUNDS,
        **{f"{name}_ms": round(value, 3) for name, value in medians.items()},
        **{
            f"{tier}_ratio": round(medians["pillow"] / medians[tier], 2)
            for tier in ("exact", "fast")
        },
        "exact_difference": round(float(np.abs(EXACT.crop(data) - reference).mean()), 5),
        "fast_difference": round(float(np.abs(FAST.crop(data) - reference).mean()), 5),
    }


def _milliseconds(way: Callable[[], object]) -> float:
    """The median of one call over a short while: robust against being interrupted."""
    calls: list[float] = []
    end = time.perf_counter() + SECONDS_A_TURN
    while len(calls) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        way()
        calls.append(1000 * (time.perf_counter() - start))
    return statistics.median(calls)


def main() -> None:
    rows = run()
    columns = [name for name in rows[0] if name not in ("bytes", "rounds")]
    print("  ".join(f"{name:>16}" for name in columns))
    for row in rows:
        print("  ".join(f"{row[name]!s:>16}" for name in columns))


if __name__ == "__main__":
    main()
