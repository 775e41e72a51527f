"""Drawn pictures without an animal, to try whether photos of something else are recognised.

Half are scenes of the field guide without their butterfly, half are textures: noise, blotches, stripes,
chequers, gradients and discs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark.data.synthetic import scenery
from fieldmark.utils import io
from fieldmark.utils.random import generator
from fieldmark.utils.typing import DoubleArray

COUNT = 80
_VERSION = 1
_SIDE = 256
_SIZE = (320, 240)


def pictures() -> list[Path]:
    """Draw the pictures into the cache, unless they are there; returns their paths, always the same files."""
    folder = io.cache_dir() / f"probe-{_VERSION}"
    paths = [folder / f"{number:03}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        if not path.exists():
            with io.replacing(path) as temporary:
                draw(number).save(temporary, "png", compress_level=1)  # a fifth of the time
    return paths


def draw(number: int) -> Image.Image:
    """Draw one of the pictures; even numbers are scenes, odd ones textures."""
    random = generator(number, "probe")
    if number % 2 == 0:
        centre = (_SIZE[0] / 2, _SIZE[1] / 2)
        return scenery.scene(_SIZE, centre, _SIZE[0] / 8, bool(number % 4), random).convert("RGB")
    texture_SS = _TEXTURES[number // 2 % len(_TEXTURES)](random)
    dark, bright = random.uniform(0, 255, (2, 3))
    pixels = dark + (bright - dark) * texture_SS[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _noise(random: np.random.Generator) -> DoubleArray:
    return random.random((_SIDE, _SIDE))


def _blotches(random: np.random.Generator) -> DoubleArray:
    cells = int(random.integers(3, 40))
    small = Image.fromarray((random.random((cells, cells)) * 255).astype(np.uint8))
    return np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float64) / 255


def _stripes(random: np.random.Generator) -> DoubleArray:
    y_SS, x_SS = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    angle, turns = random.uniform(0, np.pi), random.uniform(10, 120)
    return np.asarray((np.sin((x_SS * np.cos(angle) + y_SS * np.sin(angle)) * turns) + 1) / 2)


def _chequers(random: np.random.Generator) -> DoubleArray:
    cells = int(random.integers(2, 20))
    row_S = np.arange(_SIDE) * cells // _SIDE
    return ((row_S[:, None] + row_S) % 2).astype(np.float64)


def _gradient(random: np.random.Generator) -> DoubleArray:
    y_SS, x_SS = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    return np.asarray(x_SS * random.random() + y_SS * random.random())


def _discs(random: np.random.Generator) -> DoubleArray:
    y_SS, x_SS = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    found = np.zeros((_SIDE, _SIDE))
    for _ in range(int(random.integers(2, 15))):
        x, y, radius, shade = random.random(4)
        found[(x_SS - x) ** 2 + (y_SS - y) ** 2 < (radius / 4) ** 2] = shade
    return found


_TEXTURES: tuple[Callable[[np.random.Generator], DoubleArray], ...] = (
    *(_noise, _blotches, _stripes),
    *(_chequers, _gradient, _discs),
)
