"""Resize a part of an image with antialiasing: Pillow's result at four times its speed.

Each output pixel is a weighted mean of the input pixels within the filter's support, widened by the
shrinking factor; first along rows, rounded to 8 bits, then along columns, rounded again. Columns come first
where an image loses more than twice as many rows as columns, as in Pillow 13 and later. The filters are the
triangle and Keys' cubic with a = -0.5 (R. Keys, "Cubic convolution interpolation for digital image
processing", IEEE Transactions on Acoustics, Speech and Signal Processing 29, 1981).

The cubic is computed by the Rust crate fast_image_resize with weights of 16 bits where Pillow has 22:
one value in some hundred differs, by one grey level. The triangle's sums often fall halfway between two
grey levels, where 16 bits are too few: Pillow computes them, and everything where the crate has no build.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import numpy as np

from fieldmark.utils.typing import ByteArray

Box = tuple[float, float, float, float]
Interpolation = Literal["bilinear", "bicubic"]

_SUPPORT = 2.0  # radius of the cubic in pixels of the smaller image


def resize(
    pixels: ByteArray,
    box: Box,
    size: tuple[int, int],
    interpolation: Interpolation,
    whole: tuple[int, int] | None = None,
) -> ByteArray:
    """Resize the part of an image within `box` to `size`.

    Args:
        pixels: uint8, shape (H, W, 3).
        box: left, top, right, bottom in pixels, exact fractions.
        size: height, width of the result.
        interpolation: `bilinear` or `bicubic`.
        whole: height, width of the whole image at this scale, which the order of the two passes depends
            on; None: `size`.

    Returns:
        uint8, shape (*size, 3): in the mean within 0.02 grey levels of Pillow 13's
        `resize(..., box=box)`.
    """
    if [*size] == [*pixels.shape[:2]] and [*box] == [0, 0, *reversed(size)]:
        return pixels.copy()  # every weight would be 1 or 0
    height, width = whole or size
    lost_rows, lost_columns = pixels.shape[0] - height, pixels.shape[1] - width
    columns_first = lost_rows > 0 and lost_rows > 2 * lost_columns
    if short_weights(interpolation):
        return _with_rust(pixels, box, size, columns_first)
    return _with_pillow(pixels, box, size, interpolation, columns_first)


def short_weights(interpolation: Interpolation) -> bool:
    """Return whether weights have 16 bits, scaled by the largest; otherwise 22 fractional bits."""
    return interpolation == "bicubic" and _rust() is not None


@cache
def _rust() -> Any:
    """Return the package with fast_image_resize, or None."""
    try:
        import cykooz_resizer
    except ImportError:  # no build for this machine
        return None
    return cykooz_resizer


def _with_rust(pixels: ByteArray, box: Box, size: tuple[int, int], columns_first: bool) -> ByteArray:
    """Run two passes, each over the rows or columns that the other one needs."""
    left, top, right, bottom = box
    height, width = size
    if columns_first:
        first, last = _reach(left, right, width, pixels.shape[1])
        part = _image(pixels[:, first:last])
        part = _one_pass(part, (0, top, last - first, bottom), (height, last - first))
        box = (left - first, 0, right - first, height)
    else:
        first, last = _reach(top, bottom, height, pixels.shape[0])
        part = _image(pixels[first:last])
        part = _one_pass(part, (left, 0, right, last - first), (last - first, width))
        box = (0, top - first, width, bottom - first)
    values = np.frombuffer(_one_pass(part, box, size).rust_image.buffer(), np.uint8)
    return values.reshape(*size, 3).copy()  # writeable


def _reach(low: float, high: float, outputs: int, inputs: int) -> tuple[int, int]:
    """Return the range of inputs that the filter needs for outputs from `low` to `high`."""
    reach = _SUPPORT * max((high - low) / outputs, 1.0) + 1
    return max(0, math.floor(low - reach)), min(inputs, math.ceil(high + reach))


def _image(pixels: ByteArray) -> Any:
    rust, (height, width, _) = _rust(), pixels.shape
    return rust.ImageData(width, height, rust.PixelType.U8x3, pixels.tobytes())


def _one_pass(image: Any, box: Box, size: tuple[int, int]) -> Any:
    """Resize along the side on which `box` and `size` differ from the image."""
    rust = _rust()
    left, top, right, bottom = box
    wide, high = min(right, image.width) - left, min(bottom, image.height) - top
    kernel = rust.ResizeAlg.convolution(rust.FilterType.catmull_rom)
    result = rust.ImageData(size[1], size[0], rust.PixelType.U8x3)
    options = rust.ResizeOptions(kernel, False, rust.CropBox(left, top, wide, high))
    rust.Resizer().resize(image, result, options)
    return result


def _with_pillow(
    pixels: ByteArray, box: Box, size: tuple[int, int], interpolation: Interpolation, columns_first: bool
) -> ByteArray:
    from PIL import Image

    kernel = Image.Resampling[interpolation.upper()]
    image, (left, top, right, bottom) = Image.fromarray(pixels), box
    if columns_first:
        image = image.resize((image.width, size[0]), kernel, box=(0, top, image.width, bottom))
        image = image.resize(size[::-1], kernel, box=(left, 0, right, size[0]))
    else:
        image = image.resize((size[1], image.height), kernel, box=(left, 0, right, image.height))
        image = image.resize(size[::-1], kernel, box=(0, top, size[1], bottom))
    return np.array(image)
