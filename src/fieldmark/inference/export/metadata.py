"""The metadata of an exported file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fieldmark.inference.classifier import Classifier
from fieldmark.inference.export.validation import Parity

if TYPE_CHECKING:
    import onnx

FORMAT = "fieldmark-onnx-1"


def describe(model: onnx.ModelProto, classifier: Classifier, parity: Parity, loss: Parity | None) -> None:
    """Add the class list, the taxonomy, the thresholds and the provenance as metadata."""
    from onnx import helper

    made = classifier.provenance
    about: dict[str, Any] = {
        "classes": [taxon.name for taxon in classifier.taxa],
        "taxonomy": classifier.taxonomy.to_json(),
        "threshold": asdict(classifier.threshold) if classifier.threshold else None,
        "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
        "known_from": classifier.ood_threshold,
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
    helper.set_model_props(model, {"format": FORMAT, "architecture": classifier.architecture, **texts})
