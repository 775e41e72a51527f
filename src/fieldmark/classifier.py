"""Classifier: backbone + preprocess + head + taxonomy + calibration + provenance, in one folder.

    classifier.json        everything that is not a tensor
    head.safetensors       the last layer
    backbone.safetensors   the weights of all layers before it
    README.md              a model card in the form of the Hugging Face hub

Nothing in it is ever run as code: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fieldmark import calibration, files, metrics
from fieldmark.backbones import engines
from fieldmark.calibration import Threshold
from fieldmark.errors import ClassifierError, InputError, StoreError
from fieldmark.heads.base import LinearHead
from fieldmark.preprocess import Preprocess
from fieldmark.taxonomy import RANKS, Level, Taxon, Taxonomy

if TYPE_CHECKING:
    from fieldmark.backbones import Backbone

FORMAT = "fieldmark-classifier-1"
_BATCH = 32

Source = Literal["species", "rolled up", "not sure"]


@dataclass(frozen=True)
class Answer:
    """One label with its score.

    Attributes:
        taxon: what the label stands for.
        score: its probability, calibrated, 0 to 1.
    """

    taxon: Taxon
    score: float


@dataclass(frozen=True)
class Wider:
    """The likeliest taxon at a rank above the labels.

    Attributes:
        rank: "genus", "family", … "kingdom".
        ranks: the names of the taxon, the widest rank first and its own last.
        score: the sum of the probabilities of its labels, 0 to 1.
        without: the sum of those labels that have no such rank, and took no part.
    """

    rank: str
    ranks: Mapping[str, str]
    score: float
    without: float = 0.0

    @property
    def name(self) -> str:
        """The taxon's name."""
        return self.ranks[self.rank]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one photo.

    The answer given is the first label where it is sure enough, else the narrowest wider rank that
    is (the species is in doubt, the genus is not), else "not sure".

    Attributes:
        answers: the labels with the highest scores, sorted by confidence (Section 4.2 of the paper).
        sure: whether the first score reaches the threshold.
        rolled: the wider rank that is given as the answer, None where none is.
        wider: the likeliest genus, family … kingdom, each with its score.
        reason: why this is the answer, in plain words.
        unknown: whether the photo may well be of none of the labels; None where that is not judged.
    """

    answers: tuple[Answer, ...]
    sure: bool
    rolled: Wider | None = None
    wider: tuple[Wider, ...] = ()
    reason: str = ""
    unknown: bool | None = None

    @property
    def best(self) -> Answer:
        """The label with the highest score."""
        return self.answers[0]

    @property
    def source(self) -> Source:
        """How the answer came about: "species" is the first label itself, whatever its rank."""
        if self.sure:
            return "species"
        return "rolled up" if self.rolled else "not sure"

    @property
    def rank(self) -> str:
        """The rank of the answer given, see `Taxon.rank`; "none" where there is none."""
        if self.sure:
            return self.best.taxon.rank
        return self.rolled.rank if self.rolled else "none"

    @property
    def name(self) -> str:
        """The name of the answer given; empty where there is none."""
        if self.sure:
            return self.best.taxon.name
        return self.rolled.name if self.rolled else ""

    @property
    def score(self) -> float:
        """The probability of the answer given; where there is none, of the best label."""
        return self.rolled.score if self.rolled and not self.sure else self.best.score


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained species classifier.

    Attributes:
        architecture: the name of its backbone.
        backbone_key: which weights, as in `Backbone.key`.
        preprocess: from a photo to the crop that the backbone sees.
        head: from features to scores.
        taxonomy: the taxon of each of the C scores, in their order.
        temperature: the scores are divided by it before the softmax.
        thresholds: from which score on an answer is given at each rank; "species" is the label
            itself. Empty: the first label is always given.
        known_from: a photo whose `calibration.energy` is lower may be of none of the labels; None
            where this was not set.
        provenance: how it was made: data digest, split, recipe, versions, licence of the weights.
        source: a backbone in memory, or the folder that holds its weights.
    """

    architecture: str
    backbone_key: str
    preprocess: Preprocess
    head: LinearHead
    taxonomy: Taxonomy
    temperature: float = 1.0
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    known_from: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: Backbone | Path | None = None

    @cached_property
    def taxa(self) -> tuple[Taxon, ...]:
        """The taxon of each score."""
        return tuple(self.taxonomy)

    @property
    def threshold(self) -> Threshold | None:
        """When the first label is given as the answer; None: always."""
        return self.thresholds.get("species")

    @cached_property
    def digest(self) -> str:
        """A digest of all that an answer depends on, 64 hexadecimal digits."""
        head = [files.sha256(t.tobytes()) for t in self.head.tensors().values()]
        thresholds = {rank: asdict(each) for rank, each in self.thresholds.items()}
        return files.digest(
            [
                *(self.architecture, self.backbone_key, self.preprocess.to_json(), head),
                *(self.temperature, self.taxonomy.to_json(), thresholds, self.known_from),
            ]
        )

    def only(self, names: Iterable[str]) -> Classifier:
        """The classifier of some of the labels, whose probabilities then sum to 1 among them.

        Args:
            names: taxon ids, scientific or common names, upper or lower case; a name that several
                labels have stands for all of them.

        Raises:
            InputError: a name is none of the labels, or fewer than two labels are left.
        """
        known: dict[str, set[str]] = {}
        for taxon in self.taxa:
            for name in filter(None, (taxon.id, taxon.name, taxon.common_name)):
                known.setdefault(name.casefold(), set()).add(taxon.id)
        asked = {" ".join(name.split()): None for name in names}
        unknown = [name for name in asked if name.casefold() not in known]
        if unknown:
            more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
            raise InputError(
                f"This classifier does not know {', '.join(map(repr, unknown[:10]))}{more}: name "
                "its labels by their ids, scientific or common names."
            )
        kept = set().union(*(known[name.casefold()] for name in asked))
        columns = [at for at, taxon in enumerate(self.taxa) if taxon.id in kept]
        if len(columns) < 2:
            raise InputError(
                f"Of the names given, {len(columns)} is a label: a choice needs at least two."
            )
        head = LinearHead(
            np.ascontiguousarray(self.head.weight[:, columns]), self.head.bias[columns]
        )
        taxonomy = self.taxonomy.only(self.taxa[at].id for at in columns)
        # The energy of fewer labels is another number: nothing was set for it.
        return replace(self, head=head, taxonomy=taxonomy, known_from=None)

    @cached_property
    def engine(self) -> engines.Engine:
        """What turns crops into features on this machine.

        A graph that was converted before is used at once, without PyTorch; a damaged one is made
        anew, and a network that cannot be converted runs in PyTorch.
        """
        graph = engines.cached_graph(self.backbone_key)
        if graph is not None:
            with suppress(StoreError):
                return engines.onnx_engine_from_file(graph)
        backbone = self.backbone
        try:
            return engines.engine(backbone, "onnxruntime")
        except InputError:
            return engines.engine(backbone, "torch")

    @cached_property
    def backbone(self) -> Backbone:
        """The network before the head, with its weights."""
        from fieldmark import backbones

        if isinstance(self.source, backbones.Backbone):
            return self.source
        if self.source is None:
            raise ClassifierError("This classifier has no weights: load it from its folder.")
        path = self.source / "backbone.safetensors"
        try:
            found = backbones.load(self.architecture, weights=path)
        except InputError as error:
            raise _damaged(self.source, error) from error
        if found.key != self.backbone_key:
            raise ClassifierError(
                f"{path} does not hold the weights that the head was trained on: "
                "take the folder anew from where it was made."
            )
        return found

    def log_probabilities(self, features_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Calibrated log-probabilities of feature vectors, shape (N, C).

        Raises:
            ClassifierError: the head does not fit the backbone, or gives no finite score.
        """
        return metrics.log_softmax(self._logits(features_ND)).astype(np.float32)

    def _logits(self, features_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits divided by the temperature, shape (N, C)."""
        if features_ND.shape[1] != self.head.weight.shape[0]:
            raise self._unfit(f"the backbone gives {features_ND.shape[1]} features")
        with np.errstate(over="ignore", invalid="ignore"):
            logits_NC = self.head.logits(features_ND) / np.float32(self.temperature)
        if not np.isfinite(logits_NC.max(axis=1)).all():
            raise self._unfit("its scores are beyond what a number can hold")
        return logits_NC

    def _unfit(self, why: str) -> ClassifierError:
        where = self.source if isinstance(self.source, Path) else "This classifier"
        return ClassifierError(
            f"{where} has a head of {self.head.weight.shape} that is of no use here ({why}): "
            "take it anew from where it was made."
        )

    def scores(self, crops_NSS3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of crops, shape (N, C)."""
        return self.outputs(crops_NSS3)[0]

    def outputs(
        self, crops_NSS3: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Calibrated probabilities of crops, shape (N, C), and their energies, shape (N,)."""
        parts = [np.empty((0, len(self.taxa)), np.float32)]
        energies = [np.empty(0, np.float32)]
        for start in range(0, len(crops_NSS3), _BATCH):
            logits_BC = self._logits(self.engine(crops_NSS3[start : start + _BATCH]))
            parts.append(np.exp(metrics.log_softmax(logits_BC).astype(np.float32)))
            energies.append(calibration.energy(logits_BC))
        return np.concatenate(parts), np.concatenate(energies)

    def predict(
        self, photos: Sequence[bytes | Path | str | npt.NDArray[np.uint8]], top: int = 5
    ) -> list[Prediction]:
        """Name what is in some photos.

        Args:
            photos: paths, the bytes of files, or RGB images uint8 (H, W, 3).
            top: how many labels to give for each.

        Raises:
            ImageRejected: a photo cannot be used.
        """
        crops = [self._crop(photo) for photo in photos]
        if not crops:
            return []
        outputs = zip(*self.outputs(np.stack(crops)), strict=True)
        return [self.rank(p_C, top, float(energy)) for p_C, energy in outputs]

    def rank(
        self, p_C: npt.NDArray[np.float32], top: int = 5, energy: float | None = None
    ) -> Prediction:
        """What to say of one photo's probabilities, shape (C,): labels sorted by confidence, and
        the answer that is sure enough; with its energy also whether it may be none of the labels."""
        best = np.argsort(-p_C, kind="stable")[:top]
        answers = tuple(Answer(self.taxa[number], float(p_C[number])) for number in best)
        sure = self.threshold is None or answers[0].score >= self.threshold.score
        wider = tuple(_wider(level, p_C) for level in self.taxonomy.levels)
        reached = (one for one in wider if one.score >= self._needed(one.rank))
        rolled = None if sure else next(reached, None)
        reason = self._reason(answers[0], rolled, wider)
        unknown = None if self.known_from is None or energy is None else energy < self.known_from
        if unknown:
            reason += f"; but the photo is unlike those of the {len(self.taxa):,} names it knows"
        return Prediction(answers, sure, rolled, wider, reason, unknown)

    def _needed(self, rank: str) -> float:
        threshold = self.thresholds.get(rank)
        return threshold.score if threshold else np.inf

    def _reason(self, best: Answer, rolled: Wider | None, wider: Sequence[Wider]) -> str:
        """Why the answer is what it is."""
        what = f"the {best.taxon.rank} {best.taxon.name}".replace("the unranked", "the name")
        if self.threshold is None:
            return f"{what} is the likeliest; no threshold was set"
        needed = self.threshold.score
        if best.score >= needed:
            return f"{what} is sure enough ({_against(best.score, needed)})"
        said = f"{what} is not sure enough ({_against(best.score, needed)})"
        if rolled is not None:
            said += f"; the {rolled.rank} {rolled.name} is ({_decimal(rolled.score)})"
            return said + _left_out(rolled)
        asked = [one for one in wider if one.rank in self.thresholds]
        if not asked:
            return said
        top = max(asked, key=lambda one: one.score)
        against = _against(top.score, self._needed(top.rank))
        return f"{said}, and no wider rank is: the {top.rank} {top.name} has {against}" + (
            _left_out(top)
        )

    def _crop(self, photo: bytes | Path | str | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        from fieldmark import images

        if isinstance(photo, np.ndarray):
            return self.preprocess.apply(photo)
        data = photo if isinstance(photo, bytes) else images.read_bytes(Path(photo))
        return self.preprocess.crop(data)

    def save(self, folder: Path) -> None:
        """Write the classifier's folder; `classifier.json` comes last and makes it one.

        Raises:
            InputError: the folder cannot be written to.
        """
        from safetensors.numpy import save

        try:
            (folder / "classifier.json").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written to ({error.strerror}): name another folder."
            ) from error
        head = {name: np.ascontiguousarray(t) for name, t in self.head.tensors().items()}
        files.write_bytes(folder / "head.safetensors", save(head))
        self._save_backbone(folder / "backbone.safetensors")
        files.write_text(folder / "README.md", self._card())
        files.write_json(
            folder / "classifier.json",
            {
                "format": FORMAT,
                "architecture": self.architecture,
                "backbone_key": self.backbone_key,
                "preprocess": files.from_json(self.preprocess.to_json()),
                "temperature": self.temperature,
                "thresholds": {rank: asdict(each) for rank, each in self.thresholds.items()},
                "known_from": self.known_from,
                "taxonomy": self.taxonomy.to_json(),
                "files": {
                    name: files.sha256((folder / name).read_bytes())
                    for name in ("head.safetensors", "backbone.safetensors")
                },
                "provenance": dict(self.provenance),
            },
        )

    def _save_backbone(self, path: Path) -> None:
        from safetensors.torch import save_file

        from fieldmark.backbones.weights import trunk_names

        state = self.backbone.network.state_dict()
        names = trunk_names(state, self.backbone.architecture.last_layer_path)
        with files.replacing(path) as temporary:
            save_file({name: state[name].contiguous() for name in names}, temporary)

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Read the folder that `save` wrote, a zip of it, or `hf://OWNER/NAME` (or with `@REVISION`)
        from the Hugging Face hub. Nothing in it is run, and only the files that are needed are read.

        Raises:
            ClassifierError: it is not a classifier, a damaged or hostile one, or cannot be fetched.
        """
        if hub := re.fullmatch(r"hf:/{1,2}([^/@]+/[^/@]+)(?:@(.+))?", str(folder)):
            return cls._load(_from_hub(hub[1], hub[2]))
        if not Path(folder).is_file():
            return cls._load(Path(folder))
        unpacked = _from_zip(Path(folder))
        try:
            return cls._load(unpacked)
        except ClassifierError as error:
            raise ClassifierError(str(error).replace(str(unpacked), str(folder))) from error

    @classmethod
    def _load(cls, folder: Path) -> Classifier:
        from safetensors import SafetensorError

        about = _read_about(folder)
        try:
            head = _read_head(folder / "head.safetensors", about["files"]["head.safetensors"])
            classifier = cls(
                architecture=_text(about, "architecture"),
                backbone_key=_text(about, "backbone_key"),
                preprocess=Preprocess.from_json(files.to_json(about["preprocess"])),
                head=head,
                taxonomy=_taxonomy(about["taxonomy"]),
                temperature=_number(about, "temperature", 1e-3, 1e3),
                thresholds=_thresholds(about["thresholds"]),
                known_from=(
                    None if about["known_from"] is None else _number(about, "known_from", -1e6, 1e6)
                ),
                provenance=about["provenance"],
                source=folder,
            )
            _check(classifier)
        except (
            *(InputError, OSError, KeyError, TypeError, ValueError),
            SafetensorError,
        ) as error:
            raise _damaged(folder, error) from error
        return classifier

    def _card(self) -> str:
        """The model card: front matter that the hub reads, then what a person wants to know."""
        made = self.provenance
        front = {
            "library_name": "fieldmark",
            "pipeline_tag": "image-classification",
            "license": made.get("licence", "other"),
            "tags": ["species-classification", "biology", "fieldmark"],
        }
        lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
        lines += [f"# {made.get('name', 'A species classifier')}", ""]
        lines += [f"Names {len(self.taxa):,} kinds of living things from a photo. ", ""]
        if "test" in made:
            lines += [f"**How good it is.** {made['test']}", ""]
        lines += [
            f"**Backbone.** {self.architecture}; {made.get('weights', 'weights unknown')}.",
            "",
        ]
        lines += ["**Use.**", "", "```", "fieldmark predict FOLDER photo.jpg", "```", ""]
        lines += [
            "**How it was made.**",
            "",
            "```json",
            files.to_json(dict(made)).strip(),
            "```",
            "",
        ]
        return "\n".join(lines)


def _wider(level: Level, p_C: npt.NDArray[np.float32]) -> Wider:
    """The likeliest group of a level."""
    sums_G = level.sums(p_C[None])[0]
    best = int(sums_G.argmax())
    return Wider(level.rank, level.groups[best], float(sums_G[best]), level.without(p_C))


def _left_out(wider: Wider) -> str:
    if wider.without < 0.005:
        return ""
    return f"; names without a {wider.rank} have {_decimal(wider.without)}"


def _decimal(value: float) -> str:
    return f"{value:.2f}"


def _against(score: float, needed: float) -> str:
    """A score beside its threshold, with as many digits as tell them apart."""
    if needed > 1:
        return f"{_decimal(score)}; no score is high enough"
    digits = 2
    while digits < 6 and round(score, digits) == round(needed, digits):
        digits += 1
    sign = ">=" if score >= needed else "<"
    return f"{score:.{digits}f} {sign} {needed:.{digits}f}"


_LIMITS = {
    "classifier.json": 1 << 28,
    "head.safetensors": 1 << 33,
    "backbone.safetensors": 1 << 35,
    "neighbours.safetensors": 1 << 35,
}
"""The files that are read, and the bytes that each may have."""


def _from_zip(path: Path) -> Path:
    """The folder into which a zip was unpacked."""
    if not zipfile.is_zipfile(path):
        raise ClassifierError(
            f"{path} is not a folder or a zip: name one that `fieldmark train --out` wrote."
        )
    try:
        folder = files.unzip(path, _LIMITS)
    except InputError as error:
        raise ClassifierError(f"{error} Take it anew from where it was made.") from error
    if not (folder / "classifier.json").exists():
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith((".pkl", ".pickle"))]
        what = f"a pickle ({pickles[0]}), which can run code," if pickles else "other files"
        raise ClassifierError(
            f"{path} holds {what} and no classifier.json: name a zip of a folder that "
            "`fieldmark train --out` wrote."
        )
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    """The folder of the files that the hub has, or had when they were fetched before."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[*_LIMITS, "README.md"]
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClassifierError(
            f"hf://{name} could not be fetched ({why.rstrip('.')}): look at the name and the "
            "connection, or name a folder."
        ) from error


def _read_about(folder: Path) -> Any:
    if not folder.is_dir():
        raise ClassifierError(
            f"{folder} is not a folder: name one that `fieldmark train --out` wrote."
        )
    for name, limit in _LIMITS.items():
        path = folder / name
        if path.exists() and not path.is_file():
            raise _damaged(folder, ValueError(f"{name} is not a file"))
        if path.exists() and path.stat().st_size > limit:
            raise _damaged(
                folder, ValueError(f"{name} is too large: {path.stat().st_size:,} bytes")
            )
    if not (folder / "classifier.json").is_file():
        raise ClassifierError(
            f"{folder} has no classifier.json: name a folder that `fieldmark train --out` wrote."
        )
    try:
        about = files.read_json(folder / "classifier.json")
    except InputError as error:
        raise ClassifierError(str(error)) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ClassifierError(
            f"{folder / 'classifier.json'} is not of the form {FORMAT}: it was written by another "
            "program or another version; train it anew."
        )
    if not isinstance(about.get("provenance"), dict):
        raise _damaged(folder, ValueError("provenance is not an object"))
    try:
        files.to_json(about).encode()
    except ValueError as error:  # NaN, or half of a Unicode character: valid for Python alone
        raise _damaged(folder, error) from error
    return about


def _damaged(folder: Path, error: Exception) -> ClassifierError:
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return ClassifierError(
        f"{folder} is a damaged classifier ({' '.join(why.split())}): "
        "take it anew from where it was made."
    )


def _read_head(path: Path, digest: object) -> LinearHead:
    from safetensors.numpy import load

    raw = path.read_bytes()
    if files.sha256(raw) != digest:
        raise ValueError(f"{path.name} is not the file that was written with it")
    return LinearHead.from_tensors(load(raw))


def _text(values: Mapping[str, Any], name: str) -> str:
    if not isinstance(values[name], str):
        raise ValueError(f"{name} is not a text")
    return str(values[name])


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = values[name]
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{name} is not a number from {low} to {high}")
    return float(value)


def _thresholds(value: Any) -> dict[str, Threshold]:
    if not isinstance(value, dict) or not value.keys() <= set(RANKS):
        raise ValueError("thresholds are not given by rank")
    if value and "species" not in value:
        raise ValueError("thresholds have none for the species")
    return {rank: _threshold(each) for rank, each in value.items()}


def _threshold(value: Any) -> Threshold:
    return Threshold(
        precision=_number(value, "precision", 0, 1),
        score=_number(value, "score", 0, 2),  # above 1: nothing is ever sure
        coverage=_number(value, "coverage", 0, 1),
    )


def _taxonomy(entries: Any) -> Taxonomy:
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


def _check(classifier: Classifier) -> None:
    """Refuse a classifier whose parts do not fit each other, whoever wrote it."""
    from fieldmark.backbones import BACKBONES

    weight, bias = classifier.head.weight, classifier.head.bias
    if weight.ndim != 2 or bias.shape != weight.shape[1:] or len(bias) != len(classifier.taxonomy):
        raise ValueError("the head does not fit the list of classes")
    if not weight.dtype == bias.dtype == np.float32:
        raise ValueError("the head is not of float32")
    # Minus infinity as a bias is a class that was never learned.
    if not np.isfinite(weight).all() or not np.isfinite(bias).any() or not (bias < np.inf).all():
        raise ValueError("the head holds values that are not finite")
    if not re.fullmatch("[0-9a-f]{64}", classifier.backbone_key):
        raise ValueError("backbone_key is not a digest")
    facts = BACKBONES.get(classifier.architecture)
    if facts and (weight.shape[0], classifier.preprocess.size) != (
        facts.feature_dim,
        facts.input_size,
    ):
        raise ValueError(f"the head or the size of the crop is not of {facts.name}")
    if not (classifier.source / "backbone.safetensors").is_file():  # type: ignore[operator]
        raise ValueError("backbone.safetensors is missing")
