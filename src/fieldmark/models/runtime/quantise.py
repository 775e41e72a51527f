"""Quantise a converted trunk to 8-bit integers, with ranges measured on crops of the user's photos.

Static quantisation (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018): weights are rounded per channel, feature maps per layer. For
OpenVINO by NNCF, which also corrects the biases, for ONNX Runtime by its own tools: each runs the other's
graphs slower than float32.

Weights get 7 bits. With 8, the sums of two products overflow on processors without the dot product
instructions (VNNI): with ImageNet weights MobileNetV2's features were then 58 % of their length off instead
of 14 %, EfficientNet-Lite0's 28 % instead of 13 %, and the same file gave other answers elsewhere. Keeping
the first convolution in float32 gained a tenth of that, and cost up to a third of the speed; it is not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING

from fieldmark.models.runtime import graphs, openvino
from fieldmark.models.runtime.base import check
from fieldmark.models.runtime.tiers import Tier
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, first_line
from fieldmark.utils.typing import ByteArray

if TYPE_CHECKING:
    import onnx

    from fieldmark.models.backbone import Backbone

logger = logging.getLogger(__name__)

FEWEST = 8
"""Crops without which no ranges are measured."""
CALIBRATED = 64
"""Crops that ranges are measured on. With 128 the errors of ridge heads were the same, within intervals,
for EfficientNet-Lite0, SqueezeNet and MobileNetV2 on real and on drawn photos."""

_PIECE = 4  # crops at once while ranges are measured, with all feature maps in memory
_VERSION = 2  # of the files in the cache
# Layers with weights and what follows them. Sums and paddings stay in float32: they are cheap, and ONNX
# Runtime was a sixth faster with them so.
_LAYERS = ("Conv", "Gemm", "MatMul", "MaxPool", "Concat", "Clip", "Relu")


def engine_for(name: str) -> str:
    """Return the engine that int8 is made for, by the name that the user gave.

    Raises:
        InputError: the engine has no int8, or what makes it is not installed.
    """
    there = openvino.installed() and find_spec("nncf") is not None
    if name == "auto":
        return "openvino" if there else "onnxruntime"
    if name == "openvino" and not there:
        raise InputError(
            "int8 in OpenVINO needs NNCF: run pip install 'fieldmark[int8]', or use --engine onnxruntime."
        )
    if name not in ("openvino", "onnxruntime"):
        raise InputError(f"the engine {name} cannot compute int8: use --engine openvino or onnxruntime.")
    return name


def quantised(backbone: Backbone, crops_NSS3: ByteArray, engine: str = "auto") -> Backbone:
    """Return a backbone that computes in int8, from the cache or quantised (some seconds to a minute).

    Args:
        backbone: the network.
        crops_NSS3: crops of typical photos, on which ranges are measured; some hundred.
        engine: what is to run it.

    Raises:
        InputError: fewer than `FEWEST` crops, an engine without int8, or a network that cannot be quantised.
    """
    check(crops_NSS3)
    engine = engine_for(engine)
    if len(crops_NSS3) < FEWEST:
        raise InputError(
            f"int8 sets its ranges by {FEWEST} photos or more: give some hundred, or --compute exact."
        )
    source, made_of = graphs.graph(backbone), io.sha256(crops_NSS3.tobytes())[:16]
    path = graphs.file(f"{backbone.exact.key}.{engine}-int8-{_VERSION}.{made_of}.onnx")
    if not io.is_sealed(path):
        import onnx

        logger.info(f"{backbone.architecture.name} is quantised to int8: some seconds to a minute.")
        try:
            made = quantise(onnx.load(source), crops_NSS3, engine)
        except Exception as error:  # the quantisers may raise anything
            raise InputError(
                f"{backbone.architecture.name} cannot be quantised ({first_line(error)[:200]}): "
                "use --compute exact."
            ) from error
        io.write_bytes(path, made.SerializeToString(), seal=True)
    return backbone.computed(Tier.int8(engine, path))


def quantise(trunk: onnx.ModelProto, crops_NSS3: ByteArray, engine: str) -> onnx.ModelProto:
    """Quantise a converted trunk for an engine, with ranges measured on crops, uint8 (N, S, S, 3)."""
    with _quiet():
        return (_by_nncf if engine == "openvino" else _by_onnxruntime)(trunk, crops_NSS3)


def _by_onnxruntime(trunk: onnx.ModelProto, crops_NSS3: ByteArray) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = trunk.graph.input[0].name
    pieces = ({name: crops_NSS3[at : at + _PIECE]} for at in range(0, len(crops_NSS3), _PIECE))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            trunk,
            path,
            SimpleNamespace(get_next=lambda: next(pieces, None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_LAYERS,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(path)


def _by_nncf(trunk: onnx.ModelProto, crops_NSS3: ByteArray) -> onnx.ModelProto:
    import nncf

    name = trunk.graph.input[0].name
    found: onnx.ModelProto = nncf.quantize(
        trunk,
        nncf.Dataset([{name: crops_NSS3[at : at + 1]} for at in range(len(crops_NSS3))]),
        subset_size=len(crops_NSS3),
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantisers' advice and bars, and keep the root logger, which they set up, as it was."""
    before, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
