"""Antialiased resizing of a part of a picture, at twice Pillow's speed and with its result.

The method is Pillow's own: each output pixel is a weighted mean of the input pixels within the
filter's support, widened by the shrinking factor (so that nothing aliases); first along rows, rounded
to 8 bits, then along columns, rounded again. The filters are the triangle and Keys' cubic with
a = -0.5 (R. Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions
on Acoustics, Speech and Signal Processing 29, 1981).

Columns come first where a picture loses more than twice as many rows as columns, as Pillow does from
version 13 on: fewer sums, and the same rounding in between.

What differs is how the sums are done: the matrix of weights is a band, so it is cut into small dense
blocks, each of which is one matrix product in the BLAS that NumPy brings along. Pillow's fixed-point
sums and these 32-bit floats round differently where a sum lies halfway between two grey levels: in
one value of 10,000 or fewer, or in up to one of 100 for the triangle at a simple ratio of sizes.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Interpolation = Literal["bilinear", "bicubic"]

_SUPPORT: dict[Interpolation, float] = {"bilinear": 1.0, "bicubic": 2.0}
_COLUMNS = 8  # output pixels a block: small enough that little of a block is zeros
_ROWS = 16
# OpenBLAS starts threads for a product above this many multiplications. Photos are already spread
# over threads, and threads within threads cost ten times what they bring.
_SINGLE_THREADED = 262_144
# Pillow's weights have 22 bits after the point. With the same here, sums that fall halfway between
# two grey levels, which are common where the sizes have a simple ratio, are rounded to the same one.
_FIXED_POINT = 1 << 22
_CACHED_SHRINK = 4.0  # weights for stronger shrinking are large and seldom asked for twice


def resize(
    pixels: Pixels,
    box: Box,
    size: tuple[int, int],
    interpolation: Interpolation,
    whole: tuple[int, int] | None = None,
) -> Pixels:
    """Resize the part of a picture within `box` to `size`.

    Args:
        pixels: uint8, shape (H, W, 3).
        box: left, top, right, bottom in pixels; fractions are meant exactly.
        size: height, width of the result.
        interpolation: `bilinear` or `bicubic`.
        whole: height, width that the whole picture would have at this scale, where `box` is cut out
            of it; the order of the two passes follows from it. By default `size`.

    Returns:
        uint8, shape (*size, 3): in the mean within 0.02 grey levels (bicubic: 0.001) of Pillow 13's
        `resize(..., box=box)`.
    """
    left, top, right, bottom = box
    if [*size] == [*pixels.shape[:2]] and [*box] == [0, 0, *reversed(size)]:
        return pixels.copy()  # every weight would be 1 or 0
    height, width = whole or size
    lost_rows, lost_columns = pixels.shape[0] - height, pixels.shape[1] - width
    if lost_rows > 0 and lost_rows > 2 * lost_columns:
        turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        across_first = _resize(turned, (top, left, bottom, right), size[::-1], interpolation)
        return np.ascontiguousarray(across_first.transpose(1, 0, 2))
    return _resize(pixels, box, size, interpolation)


def _resize(
    pixels: Pixels, box: Box, size: tuple[int, int], interpolation: Interpolation
) -> Pixels:
    """The same, rows first."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    across = _bands(width, left, right, size[1], interpolation, _COLUMNS)
    down = _bands(height, top, bottom, size[0], interpolation, _ROWS)
    first, last = int(down.starts.min()), int(down.starts.max()) + down.weights.shape[1]
    rows = _along_rows(pixels[first:last], across, size[1])
    return _along_columns(rows, down, first, size).reshape(*size, 3)


class _Bands:
    """A band matrix as dense blocks.

    Attributes:
        starts: the first input of each block, int64, shape (B,).
        weights: float32, shape (B, K, n): from K inputs to the block's n outputs.
    """

    def __init__(self, starts: npt.NDArray[np.int64], weights: Floats) -> None:
        self.starts = starts
        self.weights = weights

    @cached_property
    def for_colours(self) -> Floats:
        """The same for three interleaved colours: float32, shape (B, 3K, 3n)."""
        blocks, taps, outputs = self.weights.shape
        wide = np.zeros((blocks, taps, 3, outputs, 3), np.float32)
        for colour in range(3):
            wide[:, :, colour, :, colour] = self.weights
        return wide.reshape(blocks, 3 * taps, 3 * outputs)


def _bands(
    inputs: int, low: float, high: float, outputs: int, interpolation: Interpolation, block: int
) -> _Bands:
    build = _kept_bands if high - low <= _CACHED_SHRINK * outputs else _new_bands
    return build(inputs, low, high, outputs, interpolation, block)


def _new_bands(
    inputs: int, low: float, high: float, outputs: int, interpolation: Interpolation, block: int
) -> _Bands:
    scale = (high - low) / outputs
    stretch = max(scale, 1.0)
    reach = _SUPPORT[interpolation] * stretch
    centre = low + (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), inputs)

    taps = first[:, None] + np.arange(int((last - first).max()))
    weights = _filter((taps - centre[:, None] + 0.5) / stretch, interpolation)
    weights *= taps < last[:, None]
    weights /= weights.sum(axis=1, keepdims=True)
    weights = np.rint(weights * _FIXED_POINT) / _FIXED_POINT

    begins = np.arange(0, outputs, block)
    ends = np.minimum(begins + block, outputs) - 1
    span = int((last[ends] - first[begins]).max())
    starts = np.minimum(first[begins], inputs - span)
    dense = np.zeros((len(begins), span, block), np.float32)
    output, tap = np.nonzero(taps < last[:, None])
    row = taps[output, tap] - starts[output // block]
    dense[output // block, row, output % block] = weights[output, tap]
    return _Bands(starts, dense)


_kept_bands = lru_cache(maxsize=64)(_new_bands)  # photos of one source come in a few sizes


def _filter(
    distance: npt.NDArray[np.float64], interpolation: Interpolation
) -> npt.NDArray[np.float64]:
    x = np.abs(distance)
    if interpolation == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _along_rows(pixels: Pixels, across: _Bands, width: int) -> Floats:
    """Shape (H, W, 3) to (H, 3 * width), rounded to whole grey levels."""
    height = pixels.shape[0]
    weights = across.for_colours
    span = weights.shape[1]
    left, right = int(across.starts.min()), int(across.starts.max()) + span // 3
    chunk = max(1, _SINGLE_THREADED // weights[0].size)
    chunks = -(-height // chunk)
    source = np.zeros((chunks * chunk, 3 * (right - left)), np.float32)
    source[:height].reshape(height, right - left, 3)[...] = pixels[:, left:right]
    result = np.empty((chunks, chunk, 3 * width), np.float32)
    stacked = source.reshape(chunks, chunk, -1)
    for index, start in enumerate(across.starts):
        at, to = 3 * (int(start) - left), 3 * _COLUMNS * index
        out = result[:, :, to : to + 3 * _COLUMNS]
        block = weights[index, :, : out.shape[2]]
        np.matmul(stacked[:, :, at : at + span], block, out=out)
    return _rounded(result.reshape(chunks * chunk, 3 * width)[:height])


def _along_columns(rows: Floats, down: _Bands, first: int, size: tuple[int, int]) -> Pixels:
    """Shape (H, 3 * width) to (height, 3 * width), uint8."""
    span = down.weights.shape[1]
    result = np.empty((size[0], rows.shape[1]), np.float32)
    chunk = max(1, _SINGLE_THREADED // down.weights[0].size)
    for index, start in enumerate(down.starts):
        out = result[_ROWS * index : _ROWS * (index + 1)]
        block = down.weights[index, :, : len(out)].T
        source = rows[int(start) - first : int(start) - first + span]
        for at in range(0, rows.shape[1], chunk):
            np.matmul(block, source[:, at : at + chunk], out=out[:, at : at + chunk])
    return _rounded(result).astype(np.uint8)


def _rounded(values: Floats) -> Floats:
    """To whole grey levels 0..255, half up, in place."""
    values += np.float32(0.5)
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)
