"""The folder of a classifier, written and read.

    classifier.json        everything that is not a tensor
    head.safetensors       the last layer
    ood.safetensors        what the out-of-distribution score compares a photo with
    prior.safetensors      where and when labels occurred
    backbone.safetensors   the weights of all layers before it
    int8.onnx              the same layers, quantised, where features are computed in int8
    README.md              a model card in the form of the Hugging Face hub

The second member's last layer is `head-2.safetensors`, the second distinct weights are
`backbone-2.safetensors`, and so on. `classifier.json` has the digests of all other files, and one of its own
values (`digest`). Nothing in it is ever run as code: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data.transforms import MAX_SIZE, Preprocess
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import hub as remote
from fieldmark.inference.classifier import validation
from fieldmark.inference.classifier.answers import check_decision
from fieldmark.inference.classifier.ensemble_member import Member, Network, computed
from fieldmark.inference.classifier.location import FILE as PRIOR_FILE
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.inference.classifier.model_card import card
from fieldmark.inference.classifier.ood import FILE as OOD_FILE
from fieldmark.inference.classifier.ood import OodDetector
from fieldmark.inference.classifier.species_list import ListPrior
from fieldmark.inference.classifier.validation import damaged
from fieldmark.models import runtime
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import ClassifierError, InputError
from fieldmark.utils.publishing import Kind

if TYPE_CHECKING:
    from fieldmark.inference.classifier.model import Classifier

FORMAT = "fieldmark-classifier-2"
_BEFORE = "fieldmark-classifier-1"  # one member, written without the word
MOST_MEMBERS = 64
_MOST_DIM = 65_536  # of a feature vector


def _name(kind: str, number: int, suffix: str = "safetensors") -> str:
    """The file of a member's head, of a network's weights or of its quantised graph."""
    return f"{kind}.{suffix}" if number == 0 else f"{kind}-{number + 1}.{suffix}"


LIMITS = {
    "classifier.json": 1 << 28,
    **{_name("head", number): 1 << 33 for number in range(MOST_MEMBERS)},
    **{_name("backbone", number): 1 << 35 for number in range(MOST_MEMBERS)},
    **{_name("int8", number, "onnx"): 1 << 31 for number in range(MOST_MEMBERS)},
    "neighbours.safetensors": 1 << 35,
    OOD_FILE: 1 << 33,
    PRIOR_FILE: 1 << 26,
}
"""The files that are read, and the bytes that each may have."""

KIND = Kind(
    "classifier",
    "classifier.json",
    owned=(
        *("backbone*.safetensors", "head*.safetensors", "neighbours.safetensors", OOD_FILE, PRIOR_FILE),
        "README.md",
        *("evaluation.json", "evaluation.safetensors", "photos.parquet", "split.parquet"),
        "report.html",
        "int8*.onnx",
    ),
)


def save(classifier: Classifier, folder: Path, more: Callable[[Path], None] = lambda _folder: None) -> None:
    """Publish the folder; `more` writes further files that belong to the classifier into its argument."""
    with publishing.publishing(folder, KIND) as staging:
        _write(classifier, staging)
        more(staging)
        if classifier.source and classifier.source.resolve() == folder.resolve():
            _write_again(classifier, classifier.source, staging)
        _write_about(classifier, staging)


def _write(classifier: Classifier, folder: Path) -> None:
    from safetensors.numpy import save as as_bytes
    from safetensors.torch import save_file

    from fieldmark.models.network import storable
    from fieldmark.models.weights import trunk_names

    weights = {network.weights: network for network in classifier.networks}
    for number, network in enumerate(weights.values()):
        state = (network.backbone.native or network.backbone).network.state_dict()
        names = trunk_names(state, network.backbone.architecture.last_layer_path)
        with io.replacing(folder / _name("backbone", number)) as temporary:
            save_file(storable({name: state[name] for name in names}), temporary)
    for number, member in enumerate(classifier.members):
        tensors = {name: np.ascontiguousarray(t) for name, t in member.head.tensors().items()}
        io.write_bytes(folder / _name("head", number), as_bytes(tensors))
    for graph, name in _graphs(classifier).items():
        io.write_bytes(folder / name, graph.read_bytes())
    if classifier.ood:
        classifier.ood.save(folder)
    if classifier.prior:
        classifier.prior.save(folder)
    io.write_text(folder / "README.md", card(classifier))


def _graphs(classifier: Classifier) -> dict[Path, str]:
    """The quantised graphs of the networks, with the names of their files."""
    graphs = dict.fromkeys(each.tier.graph for each in classifier.networks if each.tier.graph)
    return {graph: _name("int8", number, "onnx") for number, graph in enumerate(graphs)}


def _write_again(classifier: Classifier, old: Path, folder: Path) -> None:
    """Take over what else belongs to a classifier that is saved where it was loaded from."""
    written = publishing.digests(folder)
    heads_and_graphs = {name for name in {*classifier.files, *written} if name[:4] in ("head", "int8")}
    if any(classifier.files.get(name) != written.get(name) for name in heads_and_graphs):
        return  # it answers otherwise than the one that was loaded
    for name in filter(KIND.owns, classifier.files.keys() - written.keys()):
        path = old / Path(name).name
        if path.is_file() and io.file_digest(path) == classifier.files[name]:
            publishing.link(path, folder / path.name)


def _write_about(classifier: Classifier, folder: Path) -> None:
    about = io.from_json(
        io.to_json(
            {
                "format": FORMAT,
                "members": [_as_json(member, _graphs(classifier)) for member in classifier.members],
                "temperature": classifier.temperature,
                "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
                "known_from": classifier.ood.threshold if classifier.ood else None,
                "ood": classifier.ood.to_json() if classifier.ood else None,
                "taxonomy": classifier.taxonomy.to_json(),
                "files": publishing.digests(folder),
                "provenance": dict(classifier.provenance),
                **({"prior": classifier.prior.to_json()} if classifier.prior else {}),
                **({"favoured": classifier.favoured.to_json()} if classifier.favoured else {}),
                **({} if classifier.decision == "probable" else {"decision": classifier.decision}),
            }
        )
    )
    io.write_json(folder / "classifier.json", {**about, "digest": io.digest(about)})


def _as_json(member: Member, graphs: Mapping[Path, str]) -> dict[str, Any]:
    about, network = member.to_json(), member.network
    sides = {"side": network.side, "trained_at": network.trained_at}
    given: dict[str, Any] = {name: side for name, side in sides.items() if side is not None}
    given |= {"network": asdict(network.facts)} if network.facts else {}
    if network.tier != runtime.EXACT:
        given["compute"] = {"tier": network.tier.name, "engine": network.tier.engine}
        given["compute"] |= {"graph": graphs[network.tier.graph]} if network.tier.graph else {}
    return {"architecture": network.architecture, "backbone_key": network.weights, **about, **given}


def part(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    """Return the path of a file in the folder of a classifier with these `files`, once seen to be whole.

    Raises:
        ClassifierError: it is not as it was written.
    """
    path = folder / name
    if files.get(name) not in (None, io.file_digest(path)):  # older classifiers have no digests of all files
        raise damaged(folder, ValueError(f"{name} is not the file that was written with it"))
    return path


def load(folder: str | Path, engine: str | None = None, compute: str | None = None) -> dict[str, Any]:
    """Read a folder, a zip or a name on the hub; gives the attributes of a `Classifier`."""
    runtime.check_name(engine)
    found = _read(folder, engine)
    return found | {"members": computed(found["members"], compute, str(folder))}


def _read(folder: str | Path, engine: str | None) -> dict[str, Any]:
    if hub := re.fullmatch(r"hf:/{1,2}([^/@]+/[^/@]+)(?:@(.+))?", str(folder)):
        return _load(remote.from_hub(hub[1], hub[2], LIMITS), engine)
    if not Path(folder).is_file():
        return _load(Path(folder), engine)
    unpacked = remote.from_zip(Path(folder), LIMITS)
    try:
        return _load(unpacked, engine)
    except ClassifierError as error:
        raise ClassifierError(str(error).replace(str(unpacked), str(folder))) from error


def _load(folder: Path, engine: str | None) -> dict[str, Any]:
    from safetensors import SafetensorError

    about = _read_about(folder)
    try:
        taxonomy = validation.taxonomy(about["taxonomy"])
        members = _members(folder, about, len(taxonomy), engine)
        decision = about.get("decision", "probable")
        check_decision(decision, taxonomy)
        return {
            "members": members,
            "taxonomy": taxonomy,
            "decision": decision,
            "temperature": validation.number(about, "temperature", 1e-3, 1e3),
            "thresholds": validation.thresholds(about["thresholds"]),
            "ood": _ood(folder, about, members[0].head),
            "prior": _prior(folder, about, len(taxonomy)),
            "favoured": ListPrior.from_json(about["favoured"], len(taxonomy))
            if "favoured" in about
            else None,
            "provenance": validation.provenance(about["provenance"]),
            "source": folder,
            "files": _files(about),
        }
    except (InputError, OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise damaged(folder, error) from error


def _ood(folder: Path, about: Any, head: LinearHead) -> OodDetector | None:
    """Older classifiers have a threshold of the energy alone."""
    if about["known_from"] is None:
        return None
    threshold = validation.number(about, "known_from", -1e6, 1e6)
    energy = {"kind": "energy", "threshold": threshold}
    found = OodDetector.load(about.get("ood", energy), folder, about["files"], *head.weight.shape)
    if found.threshold != threshold:
        raise ValueError("known_from is not the threshold of ood")
    return found


def _prior(folder: Path, about: Any, classes: int) -> LocationPrior | None:
    if about.get("prior") is None:
        return None
    return LocationPrior.load(about["prior"], folder, about["files"], classes)


def _members(folder: Path, about: Any, classes: int, engine: str | None) -> tuple[Member, ...]:
    entries = about["members"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_MEMBERS:
        raise ValueError(f"members are not a list of 1 to {MOST_MEMBERS}")
    networks: dict[str, dict[int | None, Network]] = {}
    members = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError("a member is not an object")
        head = _read_head(folder / _name("head", number), about["files"], classes)
        preprocess = Preprocess.from_json(io.to_json(entry["preprocess"]))
        architecture, key = (validation.text(entry, name) for name in ("architecture", "backbone_key"))
        side, own = (
            int(validation.number(entry, name, 1, MAX_SIZE)) if name in entry else None
            for name in ("side", "trained_at")
        )
        validation.member(architecture, key, preprocess, side or own, head, classes)
        which = list({**networks, key: {}}).index(key)
        path = folder.absolute() / _name("backbone", which)  # it is read later, perhaps elsewhere
        sides = networks.setdefault(key, {})
        if any((each.architecture, each.trained_at) != (architecture, own) for each in sides.values()):
            raise ValueError("two networks have the same backbone_key")
        facts = validation.network(entry["network"], head) if "network" in entry else None
        tier = (
            validation.tier(entry["compute"], folder, about["files"]) if "compute" in entry else runtime.EXACT
        )
        network = sides.setdefault(side, Network(architecture, key, path, side, own, engine, facts, tier))
        if network.tier != tier:
            raise ValueError("one network is computed in two ways")
        temperature = validation.number(entry, "temperature", 1e-3, 1e3)
        weight = validation.number(entry, "weight", 0, 1)
        members.append(Member(network, preprocess, head, temperature, weight))
    for number in range(len(networks)):
        if not (folder / _name("backbone", number)).is_file():
            raise ValueError(f"{_name('backbone', number)} is missing")
    weights = [member.weight for member in members]
    if abs(sum(weights) - 1) > 1e-6 or min(weights) <= 0 or weights[0] < max(weights):
        raise ValueError("the weights of the members are not a mean with the largest one first")
    return tuple(members)


def _read_head(path: Path, digests: Mapping[str, object], classes: int) -> LinearHead:
    return LinearHead.from_tensors(validation.tensors(path, digests[path.name], (_MOST_DIM + 1) * classes))


def _files(about: Any) -> dict[str, str]:
    files = about["files"]
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        raise ValueError("files are not given with their digests")
    return dict(files)


def _read_about(folder: Path) -> Any:
    publishing.restore(folder)
    if not folder.is_dir():
        raise ClassifierError(f"{folder} is not a folder: name one that `fieldmark train --out` wrote.")
    for name, limit in LIMITS.items():
        path = folder / name
        if path.exists() and not path.is_file():
            raise damaged(folder, ValueError(f"{name} is not a file"))
        if path.exists() and (size := path.stat().st_size) > limit:
            raise damaged(folder, ValueError(f"{name} is too large: {size:,} bytes"))
    if not (folder / "classifier.json").is_file():
        raise ClassifierError(
            f"{folder} has no classifier.json: name a folder that `fieldmark train --out` wrote."
        )
    try:
        about = io.read_json(folder / "classifier.json")
    except InputError as error:
        raise ClassifierError(str(error)) from error
    if isinstance(about, dict) and about.get("format") == _BEFORE:
        about = _with_members(about)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ClassifierError(
            f"{folder / 'classifier.json'} is not of the form {FORMAT}: it was written by another "
            "program or another version; train it anew."
        )
    if not isinstance(about.get("provenance"), dict):
        raise damaged(folder, ValueError("provenance is not an object"))
    try:
        io.to_json(about).encode()
        if about.pop("digest", None) not in (None, io.digest(about)):  # older ones have none
            raise ValueError("classifier.json was changed after it was written")
    except ValueError as error:  # also NaN, or half of a Unicode character: valid for Python alone
        raise damaged(folder, error) from error
    return about


def _with_members(about: dict[str, Any]) -> dict[str, Any]:
    """What the first format said, in the words of this one."""
    names = ("architecture", "backbone_key", "preprocess")
    member = {name: about[name] for name in names if name in about}
    if isinstance(member.get("preprocess"), dict):
        member["preprocess"] = {"flip": False, **member["preprocess"]}
    return {**about, "format": FORMAT, "members": [{**member, "temperature": 1.0, "weight": 1.0}]}
