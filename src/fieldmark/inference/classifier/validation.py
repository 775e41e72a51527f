"""Validate what is read from a folder of unknown origin, before it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np

from fieldmark.data.taxonomy import RANKS, Taxonomy
from fieldmark.data.transforms import MAX_SIZE, Preprocess
from fieldmark.evaluation.calibration import Threshold
from fieldmark.heads.base import LinearHead
from fieldmark.models.architecture import Architecture
from fieldmark.models.runtime import CONVERTED, HALF, Tier
from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError


def damaged(folder: Path, error: Exception) -> ClassifierError:
    """Return the error for a classifier that cannot be used."""
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return ClassifierError(
        f"{folder} is a damaged classifier ({' '.join(why.split())}): copy or download it again."
    )


def tensors(path: Path, digest: object, most: int) -> dict[str, Any]:
    """Read the tensors of a file with at most `most` numbers, or raise ValueError or SafetensorError.

    The file says in its beginning what it holds: one that is too large is not read.
    """
    from safetensors import safe_open
    from safetensors.numpy import load

    with safe_open(path, framework="numpy") as file:
        held = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    if held > most:
        raise ValueError(f"{path.name} is too large: it holds {held:,} numbers")
    raw = path.read_bytes()
    if io.sha256(raw) != digest:
        raise ValueError(f"{path.name} is not the file that was written with it")
    return dict(load(raw))


class _Said(TypedDict, total=False):
    said: str


class _Told(TypedDict, total=False):
    """The parts of a provenance that the model card and the server show."""

    name: str
    test: str
    weights: str
    licence: str
    beside: _Said | None
    rare: _Said | None
    chosen: dict[str, Any]
    tried: list[Any]
    tuned: list[Any] | None
    passed_over: list[str]
    ensemble: dict[str, Any]


def provenance(value: Any) -> dict[str, Any]:
    """Return a provenance whose parts have their types, or raise ValueError."""
    msgspec.convert(value, _Told)
    return dict(value)


def text(values: Mapping[str, Any], name: str) -> str:
    """Return a text, or raise ValueError."""
    if not isinstance(values[name], str):
        raise ValueError(f"{name} is not a text")
    return str(values[name])


def number(values: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return a number from `low` to `high`, or raise ValueError."""
    value = values[name]
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{name} is not a number from {low} to {high}")
    return float(value)


def thresholds(value: Any) -> dict[str, Threshold]:
    """Return thresholds by rank, or raise ValueError."""
    if not isinstance(value, dict) or not value.keys() <= set(RANKS):
        raise ValueError("thresholds are not given by rank")
    if value and "species" not in value:
        raise ValueError("thresholds have none for the species")
    highest = {"precision": 1, "score": 2, "coverage": 1}  # a score above 1: nothing is ever sure
    found = {}
    for rank, each in value.items():
        known = {name: number(each, name, 0, high) for name, high in highest.items()}
        unset = each.get("promised") is None  # in older classifiers, too
        promised = None if unset else number(each, "promised", 0, 1)
        found[rank] = Threshold(**known, promised=promised)
    return found


def taxonomy(entries: Any) -> Taxonomy:
    """Return a taxonomy, or raise ValueError."""
    if not isinstance(entries, list):
        raise ValueError("taxonomy is not a list")
    for entry in entries:
        ranks = entry.get("ranks", {}) if isinstance(entry, dict) else None
        if not isinstance(ranks, dict):
            raise ValueError("taxonomy holds something else than taxa")
        texts = [value for name, value in entry.items() if name != "ranks"]
        if not all(isinstance(text, str) for text in (*texts, *ranks.values())):
            raise ValueError("a taxon has a name that is not a text")
    taxonomy = Taxonomy.from_json(entries)
    if len(taxonomy) != len(entries):
        raise ValueError("two taxa have the same id")
    return taxonomy


def network(value: Any, head: LinearHead) -> Architecture:
    """Return how a network is built, or raise ValueError."""
    from fieldmark.models.libraries import LIBRARIES

    facts = msgspec.convert(value, Architecture)
    if facts.library not in LIBRARIES:
        raise ValueError(f"it is of the library {facts.library!r}, which fieldmark does not know")
    if facts.feature_dim != len(head.weight) or not 1 <= facts.input_size <= MAX_SIZE or min(facts.std) <= 0:
        raise ValueError("the network is not the one of the head")
    return facts


def tier(value: Any, folder: Path, digests: Mapping[str, str]) -> Tier:
    """Return how a network is computed, or raise ValueError; the quantised graph is seen to be harmless."""
    if value == {"tier": "half", "engine": "auto"}:
        return HALF
    name = text(value, "graph")
    named = value["tier"] == "int8" and value["engine"] in CONVERTED
    if not named or not re.fullmatch(r"int8(-\d+)?\.onnx", name):
        raise ValueError("a network is computed in a way that fieldmark does not know")
    data = (folder / name).read_bytes()
    if (digest := io.sha256(data)) != digests[name]:
        raise ValueError(f"{name} is not the file that was written with it")
    if not _is_plain(data):
        raise ValueError(f"{name} is not the graph of a network alone")
    return Tier.int8(value["engine"], folder.absolute() / name, digest)


def _is_plain(data: bytes) -> bool:
    """Whether a graph names no other files, no operators of others, and no branches that hide such things."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's error has no public root
        return False
    nodes = model.graph.node
    values = [attribute for node in nodes for attribute in node.attribute]
    tensors = [*model.graph.initializer, *(each.t for each in values)]
    return (
        bool(nodes)
        and not (model.functions or model.graph.sparse_initializer)
        and not any(each.data_location or each.external_data for each in tensors)
        and all(node.domain in ("", "ai.onnx") for node in nodes)
        and not any(each.HasField("g") or each.graphs or each.tensors for each in values)
    )


def member(
    architecture: str, key: str, preprocess: Preprocess, side: int | None, head: LinearHead, classes: int
) -> None:
    """Raise ValueError for a member whose parts do not fit each other; see `Network` and `Member`."""
    from fieldmark.models import BACKBONES

    weight, bias = head.weight, head.bias
    if weight.ndim != 2 or bias.shape != weight.shape[1:] or len(bias) != classes:
        raise ValueError("the head does not fit the list of classes")
    if not weight.dtype == bias.dtype == np.float32:
        raise ValueError("the head is not of float32")
    # Minus infinity as a bias is a class that was never learned.
    if not np.isfinite(weight).all() or not np.isfinite(bias).any() or not (bias < np.inf).all():
        raise ValueError("the head holds values that are not finite")
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ValueError("backbone_key is not a digest")
    facts = BACKBONES.get(architecture)
    dim = facts.feature_dim if facts else weight.shape[0]
    takes = side or (facts.input_size if facts else preprocess.size)
    if (weight.shape[0], preprocess.size) != (dim, takes):
        raise ValueError(f"the head or the size of the crop is not of {architecture}")
