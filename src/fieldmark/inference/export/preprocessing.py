"""Preprocessing as ONNX nodes: a decoded photo of any size to its crop, inside the graph.

`Resize` of ONNX with `antialias=1` would be shorter, and ONNX Runtime runs it in Pillow's two passes.
But it positions the filter in float32, which changes one grey level in some thousand, and that moved
probabilities by up to 4e-4 on photos. So the weights of `fieldmark.data.resampling` are computed here
from the photo's size, in float64 as there, and the passes are matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import resampling
from fieldmark.data.transforms import FILL, Preprocess

if TYPE_CHECKING:
    import onnx

_FIXED_POINT = 22  # bits after the point of a weight, as in `fieldmark.data.resampling`


@dataclass
class Nodes:
    """Nodes under construction; a call adds one and returns the name of its output."""

    prefix: str  # of all names, so that they differ from those of another graph
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def real(self, value: float) -> str:
        """Add a float64 constant."""
        return self.constant(value, np.float64)

    def to(self, value: str, dtype: npt.DTypeLike) -> str:
        """Cast a value; casting to integers truncates."""
        from onnx import helper

        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def crop(add: Nodes, image: str, preprocess: Preprocess) -> str:
    """Add what `Preprocess.apply` does: uint8 (H, W, 3), any H and W, to uint8 (1, size, size, 3)."""
    height, width = (_side(add, image, axis) for axis in (0, 1))
    size, borders = preprocess.size, []
    if preprocess.fit == "crop":
        whole_height, whole_width = _whole(add, height, width, preprocess.resize)
        rows, columns = _centre(add, height, whole_height, size), _centre(add, width, whole_width, size)
    elif preprocess.fit == "pad":
        longer = add("Max", height, width)
        (whole_height, rows, above), (whole_width, columns, left) = (
            _padded(add, side, longer, size) for side in (height, width)
        )
        borders = [add("Unsqueeze", above, add.constant([1], np.int64)), left]
    else:
        whole_height = whole_width = add.real(size)
        rows, columns = (_evenly(add, add.real(0), side, size) for side in (height, width))
    down = _weights(add, height, rows, preprocess)
    across = _weights(add, width, columns, preprocess)
    pixels = add.to(add("Transpose", image, perm=[2, 0, 1]), np.float32)
    across = add("Transpose", across, perm=[1, 0])
    lost_rows, lost_columns = add("Sub", height, whole_height), add("Sub", width, whole_width)
    columns_first = add(
        "And",
        add("Greater", lost_rows, add.real(0)),
        add("Greater", lost_rows, add("Mul", lost_columns, add.real(2))),
    )
    resized = add(
        "If",
        columns_first,
        then_branch=_passes(add, pixels, down, across, columns_first=True),
        else_branch=_passes(add, pixels, down, across, columns_first=False),
    )
    colours_last = add("Transpose", add.to(resized, np.uint8), perm=[1, 2, 0])
    if borders:
        border = add("Unsqueeze", add("Or", *borders), add.constant([2], np.int64))
        colours_last = add("Where", border, add.constant(FILL, np.uint8), colours_last)
    if preprocess.flip:
        backwards = np.arange(preprocess.size)[::-1]
        colours_last = add("Gather", colours_last, add.constant(backwards, np.int64), axis=1)
    return add("Unsqueeze", colours_last, add.constant([0], np.int64))


def _side(add: Nodes, image: str, axis: int) -> str:
    """Add the height or the width of the photo, a float64 scalar."""
    shape = add("Shape", image)
    return add.to(add("Gather", shape, add.constant(axis, np.int64), axis=0), np.float64)


def _whole(add: Nodes, height: str, width: str, resize: int) -> tuple[str, str]:
    """Add the height and width of the whole photo when its shorter side is `resize`."""
    shorter, target = add("Min", height, width), add.real(resize)

    def resized(side: str) -> str:
        return _truncate(add, add("Div", add("Mul", target, side), shorter))

    return resized(height), resized(width)


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of the crop are along one side of the photo."""

    centre: str  # of each, in pixels of the photo, (size, 1)
    scale: str  # pixels of the photo for one of the crop


def _evenly(add: Nodes, low: str, high: str, size: int) -> _Axis:
    """Add pixels that divide the part of a side from `low` to `high`."""
    scale = add("Div", add("Sub", high, low), add.real(size))
    steps = add.constant(np.arange(size)[:, None] + 0.5, np.float64)
    return _Axis(add("Add", low, add("Mul", steps, scale)), scale)


def _padded(add: Nodes, side: str, longer: str, size: int) -> tuple[str, _Axis, str]:
    """Add the new length of a side, its pixels, and which of them are a border, (size,): these repeat the
    photo's edge, so that every filter has a sum."""
    new = add("Max", add("Round", add("Div", add("Mul", add.real(size), side), longer)), add.real(1))
    before = add("Floor", add("Div", add("Sub", add.real(size), new), add.real(2)))
    place = add("Sub", add.constant(np.arange(size), np.float64), before)
    outside = add("Or", add("Less", place, add.real(0)), add("GreaterOrEqual", place, new))
    edge = add("Max", add("Min", place, add("Sub", new, add.real(1))), add.real(0))
    steps = add("Unsqueeze", add("Add", edge, add.real(0.5)), add.constant([1], np.int64))
    scale = add("Div", side, new)
    return new, _Axis(add("Mul", steps, scale), scale), outside


def _centre(add: Nodes, side: str, new: str, size: int) -> _Axis:
    """Add the pixels of the central crop along one side."""
    margin = add("Div", add("Sub", new, add.real(size)), add.real(2))
    begin = add("Round", margin)  # halves to even, as Python rounds
    scale = add("Div", side, new)
    end = add("Mul", add("Add", begin, add.real(size)), scale)
    return _evenly(add, add("Mul", begin, scale), end, size)


def _weights(add: Nodes, side: str, pixels: _Axis, preprocess: Preprocess) -> str:
    """Add the filter of each output pixel along one side: float32 (size, side); see `resampling`."""
    one, half = add.real(1), add.real(0.5)
    stretch, centre = add("Max", pixels.scale, one), pixels.centre
    support = add.real(2.0 if preprocess.interpolation == "bicubic" else 1.0)
    reach = add("Mul", support, stretch)
    first = _truncate(add, add("Add", add("Sub", centre, reach), half))
    last = _truncate(add, add("Add", add("Add", centre, reach), half))
    zero, step = add.constant(0, np.int64), add.constant(1, np.int64)
    taps = add.to(add("Range", zero, add.to(side, np.int64), step), np.float64)
    distance = add("Div", add("Add", add("Sub", taps, centre), half), stretch)
    weights = _filter(add, add("Abs", distance), preprocess)
    outside = add("Or", add("Less", taps, first), add("GreaterOrEqual", taps, last))
    weights = add("Where", outside, add.real(0), weights)
    total = add("ReduceSum", weights, add.constant([1], np.int64), keepdims=1)
    weights = add("Div", weights, total)
    fixed = _fixed_point(add, weights, preprocess)
    weights = add("Round", add("Mul", weights, fixed))
    return add.to(add("Div", weights, fixed), np.float32)


def _fixed_point(add: Nodes, weights: str, preprocess: Preprocess) -> str:
    """Add the inverse of the unit that weights are multiples of; see `resampling.short_weights`."""
    if not resampling.short_weights(preprocess.interpolation):
        return add.real(2.0**_FIXED_POINT)
    # The largest weight times 2 ** bits is the last that a signed number of 16 bits holds.
    largest = add("ReduceMax", weights, keepdims=0)
    halvings = add("Div", add("Log", add("Div", add.real(2**15 - 0.5), largest)), add.real(np.log(2)))
    bits = add("Sub", add("Ceil", halvings), add.real(1))
    return add("Pow", add.real(2), add("Min", bits, add.real(_FIXED_POINT - 1)))


def _truncate(add: Nodes, value: str) -> str:
    """Round towards zero."""
    return add.to(add.to(value, np.int64), np.float64)


def _filter(add: Nodes, x: str, preprocess: Preprocess) -> str:
    """Add the triangle filter, or Keys' cubic with a = -0.5, of distances x >= 0."""
    if preprocess.interpolation == "bilinear":
        return add("Max", add("Sub", add.real(1), x), add.real(0))

    def times_x_plus(value: str, other: float) -> str:
        return add("Add", add("Mul", value, x), add.real(other))

    near = add("Mul", times_x_plus(add.real(1.5), -2.5), x)
    near = times_x_plus(near, 1.0)
    far = times_x_plus(times_x_plus(times_x_plus(add.real(-0.5), 2.5), -4.0), 2.0)
    beyond = add("Where", add("Less", x, add.real(2)), far, add.real(0))
    return add("Where", add("Less", x, add.real(1)), near, beyond)


def _passes(add: Nodes, pixels: str, down: str, across: str, *, columns_first: bool) -> onnx.GraphProto:
    """Add two passes, each rounded to whole grey levels: float32 (3, H, W) to (3, size, size)."""
    from onnx import TensorProto, helper

    own = Nodes(f"{add.prefix}{'columns' if columns_first else 'rows'}_first_")
    first = (down, pixels) if columns_first else (pixels, across)
    middle = _grey_levels(own, own("MatMul", *first))
    second = (middle, across) if columns_first else (down, middle)
    result = _grey_levels(own, own("MatMul", *second))
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    return helper.make_graph(own.nodes, f"{own.prefix}passes", [], [out], own.initializers)


def _grey_levels(add: Nodes, values: str) -> str:
    """Round half up, and clip to 0..255."""
    rounded = add("Floor", add("Add", values, add.constant(0.5, np.float32)))
    return add("Clip", rounded, add.constant(0, np.float32), add.constant(255, np.float32))
