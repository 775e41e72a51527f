"""A classifier as one graph: preprocessing, networks, last layers, calibration and metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data.transforms import Preprocess
from fieldmark.inference.classifier import Classifier, Member
from fieldmark.inference.export import preprocessing
from fieldmark.inference.export.validation import Parity
from fieldmark.models.tracing import prefixed

if TYPE_CHECKING:
    import onnx

FORMAT = "fieldmark-onnx-1"


def assemble(classifier: Classifier, trunks: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Assemble preprocessing, networks (`trunks`), last layers and calibration as one valid graph."""
    import onnx
    from onnx import TensorProto, helper

    add = preprocessing.Nodes("fieldmark_")
    crops = {
        view: preprocessing.crop(add, "image", view)
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
        "probabilities": (_probabilities(add, scores, classifier), [len(classifier.taxonomy)]),
        "ood_score": (_ood_score(add, inputs[0], scores, classifier), []),
    }
    add.nodes += [helper.make_node("Identity", [made], [name]) for name, (made, _) in outputs.items()]
    _share(add)
    value = helper.make_tensor_value_info
    photo = value("image", TensorProto.UINT8, ["height", "width", 3])
    named = [value(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()]
    graph = helper.make_graph(add.nodes, "fieldmark", [photo], named, add.initializers)
    model = helper.make_model(
        graph,
        producer_name="fieldmark",
        ir_version=trunks[0].ir_version,
        opset_imports=list(trunks[0].opset_import),
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _share(add: preprocessing.Nodes) -> None:
    """Store equal tensors once: those of a network that is used with two crop sizes."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in add.initializers:
        values = tensor.data_type, tuple(tensor.dims), tensor.raw_data or tensor.SerializeToString()
        same[tensor.name] = first.setdefault(values, tensor.name)
    add.initializers[:] = [each for each in add.initializers if same[each.name] == each.name]
    for node in add.nodes:
        node.input[:] = [same.get(name, name) for name in node.input]


def _run(add: preprocessing.Nodes, prefix: str, trunk: onnx.ModelProto, crops: Sequence[str]) -> list[str]:
    """Add a network with some crops as one batch; return the features of each, float32 (1, D)."""
    from onnx import helper

    network = prefixed(trunk.graph, prefix)
    batch = crops[0] if len(crops) == 1 else add("Concat", *crops, axis=0)
    add.nodes.append(helper.make_node("Identity", [batch], [network.input[0].name]))
    add.nodes += network.node
    add.initializers += network.initializer
    features = network.output[0].name
    if len(crops) == 1:
        return [features]
    rows = (add.constant([number], np.int64) for number in range(len(crops)))
    return [add("Gather", features, row, axis=0) for row in rows]


def _probabilities(add: preprocessing.Nodes, scores: Sequence[str], classifier: Classifier) -> str:
    """Add the mean of the members, a list of species, the prior of one place and the softmax: float32 (1, C)
    of each to (C,)."""
    mixed = scores[0]
    if len(scores) > 1:
        logs = [add("LogSoftmax", each, axis=1) for each in scores]
        shifts = [add.constant(np.log(each.weight), np.float32) for each in classifier.members]
        shifted = [add("Add", log, shift) for log, shift in zip(logs, shifts, strict=True)]
        mixed = add("ReduceLogSumExp", add("Concat", *shifted, axis=0), axes=[0], keepdims=1)
    mixed = add("Div", mixed, add.constant(classifier.temperature, np.float32))
    if classifier.favoured is not None:
        mixed = add("Add", mixed, add.constant(classifier.favoured.ratio_C, np.float32))
    if (here := classifier.local) is not None:
        mixed = add("Add", mixed, add.constant(here.rule.strength * here.ratio_C, np.float32))
        mixed = add("Div", mixed, add.constant(here.rule.temperature, np.float32))
    return add("Squeeze", add("Softmax", mixed, axis=1), add.constant([0], np.int64))


def _ood_score(add: preprocessing.Nodes, features: str, scores: Sequence[str], classifier: Classifier) -> str:
    """Add the out-of-distribution score, see `OodDetector`: a float32 without a dimension."""
    if classifier.ood is None or classifier.ood.kind == "energy":
        return _energy(add, scores, classifier)
    length = add("ReduceL2", features, axes=[1], keepdims=1)
    unit = add("Div", features, add("Max", length, add.constant(1e-12, np.float32)))
    vectors_DK = add("Cast", add.constant(classifier.ood.vectors_KD.T, np.float16), to=1)  # to float32
    return add("ReduceMax", add("MatMul", unit, vectors_DK), axes=[0, 1], keepdims=0)


def _energy(add: preprocessing.Nodes, scores: Sequence[str], classifier: Classifier) -> str:
    """Add the mean of the members' `calibration.energy`: float32 (1, C) of each to ()."""
    temperature = add.constant(classifier.temperature, np.float32)
    shares = []
    for each, member in zip(scores, classifier.members, strict=True):
        energy = add("ReduceLogSumExp", add("Div", each, temperature), axes=[1], keepdims=0)
        shares.append(add("Mul", energy, add.constant(member.weight, np.float32)))
    return add("Squeeze", add("Sum", *shares), add.constant([0], np.int64))


def _head(add: preprocessing.Nodes, features: str, member: Member) -> str:
    """Add a member's last layer and temperature: float32 (1, D) to (1, C)."""
    scores = add("MatMul", features, add.constant(member.head.weight, np.float32))
    scores = add("Add", scores, add.constant(member.head.bias, np.float32))
    return add("Div", scores, add.constant(member.temperature, np.float32))


def trunks_of(classifier: Classifier) -> list[onnx.ModelProto]:
    """Return the networks without their last layers as graphs, converted or from the cache."""
    return [each.graph() for each in classifier.networks]


def left_out(classifier: Classifier) -> str:
    """Say in a sentence what answers of the classifier may depend on, and the graph has not; else ""."""
    if classifier.prior is None or classifier.local is not None:
        return ""
    return (
        f"The prior of places and times (strength {classifier.prior.rule.strength:g}) is not in the file, "
        "which knows no place: its answers are those of photos without one (`predict --no-prior`)."
    )


def describe(model: onnx.ModelProto, classifier: Classifier, parity: Parity, loss: Parity | None) -> None:
    """Add the class list, the taxonomy, the thresholds and the provenance as metadata."""
    from onnx import helper

    made = classifier.provenance
    about: dict[str, Any] = {
        "classes": [taxon.name for taxon in classifier.taxa],
        "taxonomy": classifier.taxonomy.to_json(),
        "threshold": asdict(classifier.threshold) if classifier.threshold else None,
        "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
        "known_from": classifier.ood.threshold if classifier.ood else None,
        "ood": classifier.ood.to_json() if classifier.ood else None,
        "temperature": classifier.temperature,
        "favoured": classifier.favoured.to_json() if classifier.favoured else None,
        "left_out": [left_out(classifier)] if left_out(classifier) else [],
        "preprocess": classifier.lead.to_json()["preprocess"],
        "members": [each.to_json() for each in classifier.members],
        "check": asdict(parity),
        "int8": asdict(loss) if loss else None,
        "provenance": {
            key: made[key]
            for key in ("name", "licence", "weights", "data_digest", "split", "test", "created")
            if key in made
        },
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    helper.set_model_props(model, {"format": FORMAT, "architecture": classifier.architecture, **texts})
