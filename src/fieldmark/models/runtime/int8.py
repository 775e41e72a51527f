"""Quantise a converted trunk to int8.

Static quantisation of ONNX Runtime: weights are rounded per channel, and the range of each feature map
is measured on some crops of the user (B. Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018). The loss differs between networks: with ImageNet
weights 7 % of a feature vector's length for SqueezeNet and 56 % for EfficientNet-Lite0, whose depthwise
layers have very different ranges. So it is measured and logged each time, on crops that set no range;
`auto` never chooses int8, and its features must not be cached with those of others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fieldmark.models.runtime import graphs
from fieldmark.models.runtime.base import BATCH, check
from fieldmark.models.runtime.graphs import OnnxEngine
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import onnx

    from fieldmark.models.backbone import Backbone

Scores = Callable[[FloatArray], npt.NDArray[np.floating]]
FEWEST = 8
_PIECE = 4  # crops at once while ranges are measured, with all feature maps in memory


class Int8Engine(OnnxEngine):
    """A quantised trunk in ONNX Runtime."""

    name = "int8"


@dataclass(frozen=True)
class Loss:
    """The loss of accuracy by rounding, on crops that set no range."""

    crops: int
    median: float  # the distance of a vector to its float32 one, relative to its length
    largest: float
    same_answer: float | None = None  # the share with the same top-1 answer; None without scores
    error_change: float | None = None  # the increase of the top-1 error; None without labels

    @property
    def summary(self) -> str:
        """Return the loss in one line."""
        text = f"features {self.median:.1%} off (median), {self.largest:.1%} at most"
        if self.same_answer is not None:
            text += f"; the same answer on {self.same_answer:.1%}"
        if self.error_change is not None:
            text += f"; error {100 * self.error_change:+.1f} points"
        return f"int8, measured on {self.crops:,} crops: {text}"


def quantized(
    backbone: Backbone,
    crops_NSS3: ByteArray,
    batch: int = BATCH,
    *,
    scores: Scores | None = None,
    labels_N: npt.NDArray[np.integer] | None = None,
) -> tuple[Int8Engine, Loss]:
    """Return an int8 engine and its loss.

    Args:
        backbone: what to run.
        crops_NSS3: crops of typical photos; every other one sets the ranges, the others measure the loss.
        batch: the largest number of crops run at once.
        scores: features to scores, (N, D) to (N, C), for `same_answer`.
        labels_N: the labels, for `error_change`.

    Raises:
        InputError: fewer than `FEWEST` crops, or a network that cannot be converted.
    """
    check(crops_NSS3)
    if len(crops_NSS3) < FEWEST:
        raise InputError(f"int8 needs {FEWEST} crops or more to set its ranges: give some hundred.")
    crops = np.ascontiguousarray(crops_NSS3[::2])
    source = graphs.graph(backbone)
    # "-7": weights of 7 bits, distinct from files of other versions.
    path = graphs.folder() / f"{backbone.key}.int8-7.{io.sha256(crops.tobytes())[:16]}.onnx"
    if not io.is_sealed(path):
        import onnx

        io.write_bytes(path, quantise(onnx.load(source), crops).SerializeToString(), seal=True)
    engine = Int8Engine(path, batch)
    held = crops_NSS3[1::2]
    labels = None if labels_N is None else labels_N[1::2]
    return engine, _loss(engine(held), OnnxEngine(source, batch)(held), scores, labels)


def _loss(
    x_ND: FloatArray, exact_ND: FloatArray, scores: Scores | None, labels_N: npt.NDArray[np.integer] | None
) -> Loss:
    each = [graphs.relative_error(x[None], y[None]) for x, y in zip(x_ND, exact_ND, strict=True)]
    same = change = None
    if scores is not None:
        answer, exact = scores(x_ND).argmax(1), scores(exact_ND).argmax(1)
        same = float((answer == exact).mean())
        if labels_N is not None:
            change = float((answer != labels_N).mean() - (exact != labels_N).mean())
    return Loss(len(x_ND), float(np.median(each)), max(each), same, change)


def quantise(trunk: onnx.ModelProto, crops_NSS3: ByteArray) -> onnx.ModelProto:
    """Quantise a converted trunk to 8-bit integers, with ranges measured on crops, uint8 (N, S, S, 3).

    Weights get 7 bits: with 8, sums overflow on processors without the newer dot product instructions,
    and the same file would give other answers there.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = trunk.graph.input[0].name
    pieces = ({name: crops_NSS3[at : at + _PIECE]} for at in range(0, len(crops_NSS3), _PIECE))
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            trunk,
            path,
            SimpleNamespace(get_next=lambda: next(pieces, None)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantiser's advice, which it logs to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
