"""Any detector as an ONNX file, in the usual layouts of outputs; see `Layout`.

A photo is resized in its proportions into the network's input and surrounded by grey (a letterbox), as
YOLOv5 and its successors do. The input is float (1, 3, H, W), RGB, from 0 to 1. Where the graph does not
choose among boxes that overlap, this is done here, class by class: of two boxes whose intersection is more
than `OVERLAP` of their union the more confident one stays (greedy non-maximum suppression: A. Neubeck and
L. Van Gool, "Efficient Non-Maximum Suppression", ICPR 2006).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fieldmark.data.detections import KNOWN_NAMES, Category, Detection
from fieldmark.data.resampling import resize
from fieldmark.data.storage.places import Box
from fieldmark.models import runtime
from fieldmark.models.detectors.base import BOX_DIGITS, CONFIDENCE_DIGITS, Facts
from fieldmark.utils import io
from fieldmark.utils.cached import cached_file
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, StoreError, first_line
from fieldmark.utils.typing import ByteArray, FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

Layout = Literal["yolov5", "yolov8", "end-to-end"]
"""How a graph gives boxes, for N boxes and K classes:

yolov5: (1, N, 5 + K): centre, width and height in pixels, objectness, class scores. MegaDetector 5 has it.
yolov8: (1, 4 + K, N): centre, width and height in pixels, class scores. YOLOv8, YOLO11 and others.
end-to-end: (1, N, 6): left, top, right, bottom, score, class; overlaps are resolved. YOLOv10, RT-DETR.
"""
OVERLAP = 0.45  # YOLOv5's own
_MOST = 300  # boxes in a photo
_GREY = 114  # around a photo, as in YOLOv5
_SIDE = 640  # of the input, where neither the graph nor its metadata say


@dataclass(frozen=True)
class _Letterbox:
    """A photo in the network's input, uint8 (H, W, 3), and where in it, in pixels."""

    pixels: ByteArray
    left: int
    top: int
    width: int
    height: int


class OnnxDetector:
    """A detector in an ONNX file, run by ONNX Runtime or OpenVINO: each photo alone, in one thread a core.

    Raises:
        InputError: it is no such file, its outputs have none of the layouts, none of its classes is known,
            or the engine does not run it.
    """

    def __init__(
        self, path: Path, *, classes: str | None = None, engine: str | None = None, threshold: float = 0.1
    ) -> None:
        model = _read(path)
        told = {each.key: each.value for each in model.metadata_props}
        names = _names(told.get("names"), path)
        self._category = categories(names, classes, path)
        self._height, self._width = _sides(model, told.get("imgsz"), path)
        self._threshold = threshold
        digest = io.file_digest(path)
        name = "onnxruntime" if engine in (None, "auto") else engine
        if name not in runtime.CONVERTED:
            raise InputError(f"The engine {name} runs no ONNX file: choose {', '.join(runtime.CONVERTED)}.")
        graph = cached_file("graphs", f"{digest[:32]}.{self._height}x{self._width}.detector.onnx")
        if not io.is_sealed(graph):
            with io.replacing(graph, seal=True) as temporary:
                temporary.write_bytes(_from_pixels(model, self._height, self._width, path))
        try:
            self._engine = runtime.CONVERTED[name](graph, 1, runtime.EXACT)
            given = self._engine(np.full((1, self._height, self._width, 3), _GREY, np.uint8))
        except Exception as error:  # the engines' errors have no common root but this
            if isinstance(error, InputError):
                raise
            why = first_line(error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error)
            raise InputError(f"{path} cannot be run by {name} ({why[:200]}): export it anew.") from error
        count = len(names) or 1 + max(self._category)
        self._layout = layout(given.shape, count, (self._height, self._width), path)
        self._pool = ThreadPoolExecutor(cores(), "detector")
        licence = f"The licence of {path.name}: {told.get('license') or 'not stated in the file'}."
        self.facts = Facts(path.name, digest, told.get("version", ""), None, licence)

    def prepare(self, pixels: ByteArray) -> _Letterbox:
        """Resize a photo, uint8 (H, W, 3), into the input of the network."""
        height, width = pixels.shape[:2]
        ratio = min(self._height / height, self._width / width)
        high, wide = max(1, round(height * ratio)), max(1, round(width * ratio))
        box = _Letterbox(
            np.full((self._height, self._width, 3), _GREY, np.uint8),
            *((self._width - wide) // 2, (self._height - high) // 2, wide, high),
        )
        whole = (0.0, 0.0, float(width), float(height))
        inside = box.pixels[box.top : box.top + high, box.left : box.left + wide]
        inside[:] = resize(pixels, whole, (high, wide), "bilinear")
        return box

    def detect(self, prepared: Sequence[_Letterbox]) -> list[tuple[Detection, ...]]:
        """Return the boxes in each photo."""
        return list(self._pool.map(self._one, prepared))

    def _one(self, photo: _Letterbox) -> tuple[Detection, ...]:
        given = self._engine(photo.pixels[None])[0].astype(np.float32)
        given[~np.isfinite(given)] = 0
        corners_N4, score_N, class_N = boxes_of(given, self._layout, (self._height, self._width))
        known_N = np.isin(class_N, list(self._category)) & (score_N >= self._threshold)
        corners_N4, score_N, class_N = corners_N4[known_N], score_N[known_N], class_N[known_N]
        keep: list[int] = (
            np.argsort(-score_N, kind="stable").tolist()
            if self._layout == "end-to-end"
            else suppressed(corners_N4, score_N, class_N)
        )
        found = (self._detection(corners_N4[each], score_N[each], class_N[each], photo) for each in keep)
        return tuple(each for each in found if each)[:_MOST]

    def _detection(
        self, corners_4: FloatArray, score: np.float32, number: np.int64, photo: _Letterbox
    ) -> Detection | None:
        start, size = [photo.left, photo.top] * 2, [photo.width, photo.height] * 2
        shares = np.clip((corners_4.astype(np.float64) - start) / size, 0, 1)
        left, top, right, bottom = shares.tolist()
        sides = (left, top, right - left, bottom - top)
        left, top, width, height = (round(each, BOX_DIGITS) for each in sides)
        if min(width, height) <= 0:
            return None  # it lies in the grey
        confidence = min(round(float(score), CONFIDENCE_DIGITS), 1.0)
        return Detection(Box(left, top, width, height), self._category[int(number)], confidence)


def categories(names: Mapping[int, str], given: str | None, path: Path) -> dict[int, Category]:
    """Return what the numbers of a detector's classes stand for; a class that is left out is not passed on.

    Args:
        names: of its classes; empty where its file does not say.
        given: `deer=animal,person=person` by name, or `animal,person,vehicle` in the order of the
            numbers from 0 on, `-` for one that is left out; None: by the names.
        path: of the file, for the message.

    Raises:
        InputError: no class is known, or one is given that the detector has not.
    """
    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    if not parts:
        found = {number: KNOWN_NAMES.get(name.strip().lower()) for number, name in names.items()}
    elif any("=" in part for part in parts):
        numbers = {name.strip().lower(): number for number, name in names.items()}
        found = {}
        for name, _, what in (part.partition("=") for part in parts):
            if (number := numbers.get(name.strip().lower())) is None:
                raise InputError(f"{path} has no class {name!r}: its classes are {_list(names)}.")
            found[number] = _category(what)
    else:
        found = {number: _category(what) for number, what in enumerate(parts) if what != "-"}
        if names and len(parts) > len(names):
            raise InputError(f"{path} has {len(names)} classes, and not {len(parts)}: {_list(names)}.")
    if known := {number: category for number, category in found.items() if category}:
        return known
    raise InputError(
        f"{path} does not say which of its classes are animals, people or vehicles ({_list(names)}): say it "
        "with --classes, such as deer=animal,hiker=person, or animal,person,vehicle in their order."
    )


def _list(names: Mapping[int, str]) -> str:
    return ", ".join([*names.values()][:20]) or "they have no names"


def _category(text: str) -> Category:
    found = KNOWN_NAMES.get(text.strip().lower())
    if found is None:
        raise InputError(f"{text!r} is no category of boxes: choose animal, person or vehicle.")
    return found


def layout(shape: Sequence[int], classes: int, sides: tuple[int, int], path: Path) -> Layout:
    """Return the layout of an output, from its shape and the number of classes.

    YOLOv5 with one class has six columns as well: it is told by its number of boxes, which is three for
    each cell of grids of 8, 16, 32 (and 64) pixels.

    Raises:
        InputError: it is none of the layouts.
    """
    if len(shape) == 3 and shape[0] == 1:
        rows, columns = shape[1:]
        cells = [-(-sides[0] // step) * -(-sides[1] // step) for step in (8, 16, 32, 64)]
        if columns == 5 + classes and (columns != 6 or rows in (3 * sum(cells[:3]), 3 * sum(cells))):
            return "yolov5"
        if columns == 6:
            return "end-to-end"
        if rows == 4 + classes:
            return "yolov8"
    raise InputError(
        f"{path} gives {tuple(shape)} for {classes} classes: expected is one of (1, N, {5 + classes}), "
        f"(1, {4 + classes}, N) and (1, N, 6); see docs/camera-traps.md."
    )


def boxes_of(
    given: FloatArray, form: Layout, sides: tuple[int, int]
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return the boxes of one output in pixels of the input: corners (N, 4), scores (N,), classes (N,)."""
    if form == "end-to-end":
        corners_N4, score_N, class_N = given[:, :4], given[:, 4], given[:, 5].astype(np.int64)
        sure = corners_N4[score_N > 0]
        if sure.size and sure.max() <= 1.5:  # shares, as some exports of RT-DETR give them
            corners_N4 = corners_N4 * np.array([sides[1], sides[0]] * 2, np.float32)
        return corners_N4, score_N, class_N
    if form == "yolov5":
        centre_N4, score_NK = given[:, :4], given[:, 4:5] * given[:, 5:]
    else:
        centre_N4, score_NK = given[:4].T, given[4:].T
    half_N2 = centre_N4[:, 2:] / 2
    corners_N4 = np.concatenate([centre_N4[:, :2] - half_N2, centre_N4[:, :2] + half_N2], axis=1)
    return corners_N4, score_NK.max(axis=1), score_NK.argmax(axis=1).astype(np.int64)


def suppressed(corners_N4: FloatArray, score_N: FloatArray, class_N: IntArray) -> list[int]:
    """Return the numbers of the boxes that stay, most confident first, at most `_MOST`; see above."""
    area_N = np.prod(np.maximum(corners_N4[:, 2:] - corners_N4[:, :2], 0), axis=1)
    left, found = np.argsort(-score_N, kind="stable"), list[int]()
    while left.size and len(found) < _MOST:
        best, left = left[0], left[1:]
        found.append(int(best))
        low = np.maximum(corners_N4[best, :2], corners_N4[left, :2])
        high = np.minimum(corners_N4[best, 2:], corners_N4[left, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = area_N[best] + area_N[left] - shared
        left = left[(shared <= OVERLAP * union) | (class_N[left] != class_N[best])]
    return found


def _read(path: Path) -> onnx.ModelProto:
    import onnx

    if not path.is_file():
        raise InputError(f"{path} is not a file: name an ONNX file, or a detector.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # of a parser, for a file from anywhere
        raise InputError(f"{path} is not an ONNX file ({first_line(error)[:200]}): name another.") from error
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    shapes = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in inputs]
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    if len(inputs) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (0, 3) or shapes[0][0] > 1:
        raise InputError(f"{path} takes {shapes}: a detector takes one photo, (1, 3, H, W).")
    if inputs[0].type.tensor_type.elem_type not in kinds:
        raise InputError(f"{path} takes no floating-point numbers: a detector takes float (1, 3, H, W).")
    return model


def _names(told: str | None, path: Path) -> dict[int, str]:
    """Read the names of classes as Ultralytics writes them: a dictionary or a list of Python, or JSON."""
    if not told:
        return {}
    try:
        found = ast.literal_eval(told)
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return {int(number): str(name) for number, name in pairs}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{path} has names of classes that cannot be read: export it anew.") from error


def _sides(model: onnx.ModelProto, told: str | None, path: Path) -> tuple[int, int]:
    """Return height and width of the input: of the graph, else of its metadata, else 640."""
    constants = {each.name for each in model.graph.initializer}
    [put] = [each for each in model.graph.input if each.name not in constants]
    fixed = [dim.dim_value for dim in put.type.tensor_type.shape.dim[2:]]
    try:
        value = ast.literal_eval(told or str(_SIDE))
        usual = [int(each) for each in (value if isinstance(value, list | tuple) else [value, value])]
        height, width = (here or there for here, there in zip(fixed, usual, strict=True))
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(f"{path} has an imgsz that is no size: export it anew.") from error
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise InputError(f"{path} takes photos of {width} x {height} pixels: from 1 to 4,096 are possible.")
    return height, width


def _from_pixels(model: onnx.ModelProto, height: int, width: int, path: Path) -> bytes:
    """Return the graph from pixels, uint8 (1, H, W, 3), to the first of its outputs, as engines run it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants = {each.name for each in graph.initializer}
    [put] = [each for each in graph.input if each.name not in constants]
    kind = put.type.tensor_type.elem_type
    grey = np.array(255, np.float16 if kind == TensorProto.FLOAT16 else np.float32)
    before = [
        helper.make_node("Transpose", ["fieldmark_pixels"], ["fieldmark_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["fieldmark_first"], ["fieldmark_values"], to=kind),
        helper.make_node("Div", ["fieldmark_values", "fieldmark_255"], [put.name]),
    ]
    own = helper.make_tensor_value_info("fieldmark_pixels", TensorProto.UINT8, [1, height, width, 3])
    whole = helper.make_graph(
        [*before, *graph.node],
        "fieldmark",
        [own],
        [graph.output[0]],
        [numpy_helper.from_array(grey, "fieldmark_255"), *graph.initializer],
        sparse_initializer=graph.sparse_initializer,
    )
    composed = helper.make_model(
        whole,
        ir_version=model.ir_version,
        opset_imports=list(model.opset_import),
        functions=list(model.functions),
    )
    try:
        data: bytes = composed.SerializeToString(deterministic=True)
        onnx.checker.check_model(composed)
    except Exception as error:  # larger than two gigabytes, or outputs of another graph
        raise InputError(f"{path} cannot be used ({first_line(error)[:200]}): export it anew.") from error
    return data
