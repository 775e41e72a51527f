"""`fieldmark export`: a classifier as one ONNX file that ONNX Runtime runs alone.

    image          uint8 (H, W, 3): a decoded picture, upright, RGB, of any size
    probabilities  float32 (C,): calibrated, in the order of the class list in the metadata
    energy         float32 (): lower than `known_from` in the metadata, and the photo may be of no class

Inside are the resize, the normalisation, the network, the last layer and the temperature; of an
ensemble all of its members, with each network once. The file is written only after it
has given the classifier's own answers on photos.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark import files, images, onnx_pixels, places, predict, progress, sampling
from fieldmark.backbones import engines
from fieldmark.backbones.engines import graphs
from fieldmark.classifier import Classifier, Member, stacked
from fieldmark.errors import ImageRejected, InputError
from fieldmark.heads.base import LinearHead
from fieldmark.places import Place
from fieldmark.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FORMAT = "fieldmark-onnx-1"
OPSET = 17  # of the converted networks as well; ONNX Runtime from 1.12 on
CHECKED = 64
"""At most so many of the photos that a classifier was made from are used for the check."""

CALIBRATED = 256
"""The same for int8: one half sets the ranges, the other measures the loss."""

TOLERANCE = {"bicubic": 1e-4, "bilinear": 1e-3}
"""The largest difference in a probability, by the interpolation of the resize.

With `bilinear` and sizes of a simple ratio many sums lie halfway between two grey levels, where the
order of a sum decides (`fieldmark.resample`): up to 5 values of 10,000 differ by one.
"""

_ENERGY = 10  # an energy is a sum of logits, each as large as the logarithms of many probabilities

_SHAPES = (
    *((240, 320), (320, 240), (224, 224), (300, 300), (480, 360), (900, 200)),
    *((200, 900), (100, 80), (31, 47), (1, 1), (640, 427), (1200, 801)),
)
_CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from the classifier.

    Attributes:
        photos: how many photos were named by both.
        max_difference: the largest difference in any probability.
        agreement: the share of photos with the same first label.
        energy_difference: the largest difference in an energy, as a share of it where it is above 1.
    """

    photos: int
    max_difference: float
    agreement: float
    energy_difference: float = 0.0

    def __str__(self) -> str:
        return (
            f"the same first label on {self.agreement:.1%} of {self.photos:,} pictures, the largest "
            f"difference in a probability is {self.max_difference:.1e}, in an energy "
            f"{self.energy_difference:.1e}"
        )


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        parity: the check of the file in single precision, which every export passes.
        loss: with int8, what rounding to 8 bits cost, on photos that it was not calibrated on.
    """

    path: Path
    size: int
    parity: Parity
    loss: Parity | None = None


def run(model: Path, path: Path, check: Sequence[Path] = (), *, int8: bool = False) -> Exported:
    """Export the classifier in a folder; see `export`.

    Args:
        model: the classifier's folder.
        path: the ONNX file to write.
        check: photos and folders to check on; none: those that the classifier was made from, as far
            as they are still there.
        int8: see `export`.

    Raises:
        InputError: as `export`, or the classifier or a photo is not there.
    """
    classifier = Classifier.load(model)
    given = [item.path for item in predict.items_of(check)]
    places = given or own_photos(classifier, CALIBRATED if int8 else CHECKED)
    if not places:
        progress.say("No photos to check on are here: generated pictures will do.")
    return export(classifier, path, pictures(places), int8=int8)


def export(
    classifier: Classifier, path: Path, photos: Sequence[Pixels] = (), *, int8: bool = False
) -> Exported:
    """Write a classifier as one ONNX file, once it agrees with the classifier.

    Args:
        classifier: what to write.
        path: the file; it is wholly written or not at all.
        photos: decoded pictures, uint8 (H, W, 3), to check with and, for int8, to calibrate on; a
            dozen generated pictures of many shapes are added for the check.
        int8: compute the network in 8-bit whole numbers: a quarter of the size, and less exact.

    Raises:
        InputError: the file would give other answers, the network cannot be converted, `path`
            cannot be written to, or there are too few photos for int8.
    """
    trunks = _trunks(classifier)
    model = assemble(classifier, trunks)
    shapes = [*photos, *generated()]
    expected = _expected(classifier, shapes)
    allowed = max(TOLERANCE[view.interpolation] for view in classifier.views)
    parity = compare(model, shapes, expected, allowed)
    apart = max(parity.max_difference, parity.energy_difference / _ENERGY)
    if apart > allowed or parity.agreement < 1:
        raise InputError(
            f"{path} is not written: the graph disagrees with the classifier ({parity}; at most "
            f"{allowed:g} is allowed, and {_ENERGY} times that in an energy): "
            "use the classifier's folder, or train with another network."
        )
    loss = None
    if int8:
        model, loss = _quantised(classifier, trunks, photos, expected.first(len(photos)))
    _describe(model, classifier, parity, loss)
    data = model.SerializeToString()
    files.write_bytes(path, data)
    return Exported(path, len(data), parity, loss)


def assemble(classifier: Classifier, trunks: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Preprocessing, networks, last layers and calibration as one graph, checked for its form.

    Args:
        classifier: what to assemble.
        trunks: its `networks` as graphs, in their order.
    """
    import onnx
    from onnx import TensorProto, helper

    add = onnx_pixels.Nodes("fieldmark_")
    crops = {
        view: onnx_pixels.crop(add, "image", view)
        for view in dict.fromkeys(replace(each, tier="exact") for each in classifier.views)
    }
    features: dict[tuple[str, Preprocess], str] = {}
    for number, (network, trunk) in enumerate(zip(classifier.networks, trunks, strict=True)):
        seen = dict.fromkeys(
            each.preprocess for each in classifier.members if each.network.key == network.key
        )
        made = [crops[replace(view, tier="exact")] for view in seen]
        found = _run(add, f"trunk{number}_", trunk, made)
        features |= {(network.key, view): x for view, x in zip(seen, found, strict=True)}
    inputs = [features[each.network.key, each.preprocess] for each in classifier.members]
    scores = [_head(add, x, each) for x, each in zip(inputs, classifier.members, strict=True)]
    outputs = {
        "probabilities": _probabilities(add, scores, classifier),
        "energy": _energy(add, scores, classifier),
    }
    add.nodes += [helper.make_node("Identity", [outputs[name]], [name]) for name in outputs]
    _share(add)
    size = [len(classifier.taxonomy)]
    graph = helper.make_graph(
        add.nodes,
        "fieldmark",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, size),
            helper.make_tensor_value_info("energy", TensorProto.FLOAT, []),
        ],
        add.initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="fieldmark",
        ir_version=trunks[0].ir_version,
        opset_imports=list(trunks[0].opset_import),
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _share(add: onnx_pixels.Nodes) -> None:
    """Keep tensors of the same values once: those of a network that sees photos at two sizes."""
    kept: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in add.initializers:
        values = tensor.data_type, tuple(tensor.dims), tensor.raw_data or tensor.SerializeToString()
        same[tensor.name] = kept.setdefault(values, tensor.name)
    add.initializers[:] = [each for each in add.initializers if same[each.name] == each.name]
    for node in add.nodes:
        node.input[:] = [same.get(name, name) for name in node.input]


def _run(
    add: onnx_pixels.Nodes, prefix: str, trunk: onnx.ModelProto, crops: Sequence[str]
) -> list[str]:
    """Add a network that sees some crops as one batch: the features of each, float32 (1, D)."""
    from onnx import compose, helper

    trunk = compose.add_prefix(trunk, prefix)
    together = crops[0] if len(crops) == 1 else add("Concat", *crops, axis=0)
    add.nodes.append(helper.make_node("Identity", [together], [trunk.graph.input[0].name]))
    add.nodes += trunk.graph.node
    add.initializers += trunk.graph.initializer
    features = trunk.graph.output[0].name
    if len(crops) == 1:
        return [features]
    rows = (add.constant([number], np.int64) for number in range(len(crops)))
    return [add("Gather", features, row, axis=0) for row in rows]


def _probabilities(add: onnx_pixels.Nodes, scores: Sequence[str], classifier: Classifier) -> str:
    """Softmax, and the mean of the members: float32 (1, C) of each to (C,)."""
    mixed = scores[0]
    if len(scores) > 1:
        logs = [add("LogSoftmax", each, axis=1) for each in scores]
        shifts = [add.constant(np.log(each.weight), np.float32) for each in classifier.members]
        shifted = [add("Add", log, shift) for log, shift in zip(logs, shifts, strict=True)]
        mixed = add("ReduceLogSumExp", add("Concat", *shifted, axis=0), axes=[0], keepdims=1)
    mixed = add("Div", mixed, add.constant(classifier.temperature, np.float32))
    return add("Squeeze", add("Softmax", mixed, axis=1), add.constant([0], np.int64))


def _energy(add: onnx_pixels.Nodes, scores: Sequence[str], classifier: Classifier) -> str:
    """`calibration.energy`, the mean of the members': float32 (1, C) of each to ()."""
    heat = add.constant(classifier.temperature, np.float32)
    shares = []
    for each, member in zip(scores, classifier.members, strict=True):
        energy = add("ReduceLogSumExp", add("Div", each, heat), axes=[1], keepdims=0)
        shares.append(add("Mul", energy, add.constant(member.weight, np.float32)))
    return add("Squeeze", add("Sum", *shares), add.constant([0], np.int64))


def _head(add: onnx_pixels.Nodes, features: str, member: Member) -> str:
    """A member's last layer and temperature: float32 (1, D) to (1, C)."""
    head: LinearHead = member.head
    scores = add("MatMul", features, add.constant(head.weight, np.float32))
    scores = add("Add", scores, add.constant(head.bias, np.float32))
    return add("Div", scores, add.constant(member.temperature, np.float32))


def _trunks(classifier: Classifier) -> list[onnx.ModelProto]:
    """The networks without their last layers, converted now or before."""
    import onnx

    return [
        onnx.load(engines.cached_graph(each.key) or graphs.graph(each.backbone))
        for each in classifier.networks
    ]


# The check


def pictures(paths: Sequence[Place]) -> list[Pixels]:
    """Decoded photos; one that cannot be used is passed over and said.

    Raises:
        InputError: none of them can be used.
    """
    found = []
    for path in paths:
        try:
            found.append(images.decode(images.read_bytes(path)))
        except ImageRejected as error:
            progress.say(f"{path} is not used for the check: {error}")
    if paths and not found:
        raise InputError("None of the photos given to --check can be used: name others.")
    return found


def own_photos(classifier: Classifier, limit: int = CHECKED) -> list[Place]:
    """Photos that the classifier was made from, as its folder records them, if they are still there.

    At most `limit`, drawn by their ids; those that it was not trained on come first.
    """
    from fieldmark.photos import PhotoTable
    from fieldmark.split import Split

    folder = classifier.source
    if not isinstance(folder, Path) or not (folder / "photos.parquet").is_file():
        return []
    table = PhotoTable.read(folder / "photos.parquet")
    known = (folder / "split.parquet").is_file()
    seen = set(Split.read(folder / "split.parquet").ids("train")) if known else set()
    rows = table.labelled.select("id", "path").rows()
    order = sampling.order([photo_id for photo_id, _ in rows], "export").tolist()
    order.sort(key=lambda number: rows[number][0] in seen)
    there = (table.file_of(rows[number][1]) for number in order)
    return list(islice(filter(places.is_here, there), limit))


def generated() -> Iterator[Pixels]:
    """Pictures of many shapes, the same ones every time: waves of colour with some noise."""
    for height, width in _SHAPES:
        random = sampling.generator(0, "export", height, width)
        rows, columns = np.ogrid[0:height, 0:width]
        slopes, phases = random.uniform(0.01, 0.3, (2, 3)), random.uniform(0, 6, 3)
        waves = np.sin(rows[..., None] * slopes[0] + columns[..., None] * slopes[1] + phases)
        noise = random.normal(0, 20, (height, width, 3))
        yield (128 + 90 * waves + noise).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Outputs:
    """What pictures give: probabilities (N, C), and energies (N,)."""

    probabilities_NC: Floats
    energy_N: Floats

    def first(self, count: int) -> Outputs:
        """Those of the first pictures."""
        return Outputs(self.probabilities_NC[:count], self.energy_N[:count])

    def every_other(self) -> Outputs:
        """Those of the second, fourth … picture."""
        return Outputs(self.probabilities_NC[1::2], self.energy_N[1::2])


def _expected(classifier: Classifier, shapes: Sequence[Pixels]) -> Outputs:
    """The classifier's own outputs, of photos that are decoded in full."""
    parts = [classifier.outputs(stacked([classifier.crop(picture)])) for picture in shapes]
    return Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def compare(
    model: onnx.ModelProto, shapes: Sequence[Pixels], expected: Outputs, allowed: float = 0.0
) -> Parity:
    """Run a graph on pictures and compare it with what is expected.

    Args:
        model: a graph as `assemble` makes it.
        shapes: pictures, uint8 (H, W, 3).
        expected: what it is to give.
        allowed: first labels whose probabilities are closer than this count as the same.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engines.cores()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = [session.run(None, {"image": picture}) for picture in shapes]
    p_NC, energy_N = (np.stack(part) for part in zip(*found, strict=True))
    best = expected.probabilities_NC
    short = best.max(axis=1) - best[np.arange(len(shapes)), p_NC.argmax(axis=1)]
    scale_N = np.maximum(np.abs(expected.energy_N), 1)
    return Parity(
        len(shapes),
        _worst(p_NC - best),
        float((short <= allowed).mean()),
        _worst((energy_N - expected.energy_N) / scale_N),
    )


def _worst(differences: npt.NDArray[np.floating]) -> float:
    """The largest difference; a graph that gives no number agrees with nothing."""
    worst = float(np.abs(differences).max())
    return worst if np.isfinite(worst) else float("inf")


# 8 bits


def _quantised(
    classifier: Classifier,
    trunks: Sequence[onnx.ModelProto],
    photos: Sequence[Pixels],
    expected: Outputs,
) -> tuple[onnx.ModelProto, Parity]:
    """The graph with its networks in 8 bits, and what that costs on the other half of the photos."""
    if len(photos) < 2:
        raise InputError(
            "int8 is calibrated on one half of some photos and measured on the other, and the "
            "photos that the classifier was made from are not here: name some with --check."
        )
    crops = dict(
        zip(classifier.views, stacked([classifier.crop(each) for each in photos[::2]]), strict=True)
    )
    rounded = []
    for network, trunk in zip(classifier.networks, trunks, strict=True):
        view = next(m.preprocess for m in classifier.members if m.network.key == network.key)
        rounded.append(quantise(trunk, crops[view]))
    model = assemble(classifier, rounded)
    return model, compare(model, photos[1::2], expected.every_other())


def quantise(trunk: onnx.ModelProto, crops_NSS3: Pixels) -> onnx.ModelProto:
    """A network in 8-bit whole numbers, with ranges measured on crops.

    Weights get 7 bits: with 8, sums overflow on processors without the newer dot product
    instructions, and the same file would give other answers there.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = trunk.graph.input[0].name
    batches = [
        crops_NSS3[at : at + _CALIBRATION_BATCH]
        for at in range(0, len(crops_NSS3), _CALIBRATION_BATCH)
    ]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            trunk,
            path,
            _Reader({name: batch} for batch in batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return onnx.load(path)


class _Reader:
    """Batches in the form that the quantiser asks for."""

    def __init__(self, batches: Iterator[dict[str, Pixels]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# What the file says of itself


def _describe(
    model: onnx.ModelProto, classifier: Classifier, parity: Parity, loss: Parity | None
) -> None:
    """Put the class list, the taxonomy, the thresholds and the provenance into the metadata."""
    from onnx import helper

    made = classifier.provenance
    about: dict[str, Any] = {
        "classes": [taxon.name for taxon in classifier.taxa],
        "taxonomy": classifier.taxonomy.to_json(),
        "threshold": asdict(classifier.threshold) if classifier.threshold else None,
        "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
        "known_from": classifier.known_from,
        "temperature": classifier.temperature,
        "preprocess": json.loads(classifier.lead.preprocess.to_json()),
        "members": [
            {
                "architecture": each.network.architecture,
                "preprocess": json.loads(each.preprocess.to_json()),
                "temperature": each.temperature,
                "weight": each.weight,
            }
            for each in classifier.members
        ],
        "check": asdict(parity),
        "int8": asdict(loss) if loss else None,
        "provenance": {
            key: made[key]
            for key in ("name", "licence", "weights", "data_digest", "split", "test", "created")
            if key in made
        },
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    helper.set_model_props(
        model, {"format": FORMAT, "architecture": classifier.architecture, **texts}
    )
