"""Classifier: members, taxonomy, calibration and provenance.

Usually it has one member. Several members are an ensemble: probabilities are their weighted means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation import metrics
from fieldmark.evaluation.calibration import Threshold
from fieldmark.evaluation.taxonomic import class_heights, expected_heights
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import asking, ensemble_member, hub, streaming
from fieldmark.inference.classifier import folder as storage
from fieldmark.inference.classifier.answers import Prediction, check_decision, ranked
from fieldmark.inference.classifier.asking import Known, Raising
from fieldmark.inference.classifier.ensemble_member import Member, Network
from fieldmark.inference.classifier.location import LocalPrior, LocationPrior, explained
from fieldmark.inference.classifier.ood import OodDetector
from fieldmark.inference.classifier.species_list import ListPrior, columns_of
from fieldmark.inference.classifier.streaming import Crops, OnError, Photo
from fieldmark.utils import cpu, io
from fieldmark.utils.choices import Compute, Decision, EngineName
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models import Backbone


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained species classifier.

    Attributes:
        members: at least one, the one with the largest weight first.
        taxonomy: the taxon of each of the C scores, in their order.
        temperature: the scores are divided by it before the softmax; those of an ensemble are the
            logarithms of its mean probabilities.
        thresholds: the score from which an answer is given at each rank; "species" is the label
            itself. Empty: the first label is always given.
        decision: which label comes first, see `decided_by`.
        prior: which labels are to be expected where and when; None: not known, or no help.
        local: the prior at one place and day, see `at`.
        favoured: a list of species that counts as a prior, see `favouring`.
        ood: tells photos that may show none of the classes; None: nothing does reliably.
        provenance: how it was made: data digest, split, recipe, versions, licence of the weights.
        source: the folder that it was loaded from.
        files: the SHA-256 of each file that belongs to it there.
    """

    members: tuple[Member, ...]
    taxonomy: Taxonomy
    temperature: float = 1.0
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    decision: Decision = "probable"
    prior: LocationPrior | None = None
    local: LocalPrior | None = None
    favoured: ListPrior | None = None
    ood: OodDetector | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alone(
        cls, backbone: Backbone, preprocess: Preprocess, head: LinearHead, taxonomy: Taxonomy, **more: Any
    ) -> Classifier:
        """Return a classifier with one member; `more` are the other attributes."""
        return cls((Member(Network.of(backbone), preprocess, head),), taxonomy, **more)

    @cached_property
    def taxa(self) -> tuple[Taxon, ...]:
        """The taxon of each score."""
        return tuple(self.taxonomy)

    @property
    def classes(self) -> tuple[str, ...]:
        """The taxon ids of the classes, in the order of the scores."""
        return tuple(taxon.id for taxon in self.taxa)

    @property
    def lead(self) -> Member:
        """The member with the largest weight: the only one, in the usual case."""
        return self.members[0]

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The distinct networks of the members, in their order."""
        return tuple({each.network.key: each.network for each in self.members}.values())

    @cached_property
    def views(self) -> tuple[Preprocess, ...]:
        """The distinct views of a photo that members are given, in their order."""
        return tuple(dict.fromkeys(each.preprocess for each in self.members))

    @property
    def architecture(self) -> str:
        """The names of its networks."""
        return " + ".join(dict.fromkeys(each.architecture for each in self.networks))

    @property
    def threshold(self) -> Threshold | None:
        """The threshold of the first label; None: it is always given."""
        return self.thresholds.get("species")

    @cached_property
    def digest(self) -> str:
        """A digest of all that an answer depends on, 64 hexadecimal digits."""
        members = [each.digested for each in self.members]
        thresholds = {rank: asdict(each) for rank, each in self.thresholds.items()}
        ood = self.ood.digest if self.ood else None
        more: list[str] = [] if self.decision == "probable" else [self.decision]
        more += [each.digest for each in (self.prior, self.local, self.favoured) if each is not None]
        return io.digest([members, self.temperature, self.taxonomy.to_json(), thresholds, ood, *more])

    def only(self, names: Iterable[str]) -> Classifier:
        """Return the classifier of some of the labels; their probabilities sum to 1.

        Names are taxon ids, scientific or common names, or higher taxa; one that several labels have stands
        for all of them. Unknown names are passed over with a warning.

        Raises:
            InputError: no name is known, or fewer than two labels are left.
        """
        columns = columns_of(self.taxa, names)
        members = tuple(replace(each, head=each.only(columns)) for each in self.members)
        taxonomy = self.taxonomy.only(self.taxa[at].id for at in columns)
        # Of fewer labels the score is another number, for which no threshold was set.
        prior = self.prior and self.prior.only(columns)
        favoured = self.favoured and self.favoured.only(columns)
        few = replace(self, members=members, taxonomy=taxonomy, prior=prior, favoured=favoured)
        return replace(few, ood=None, local=None)

    def favouring(self, names: Iterable[str], name: str = "given") -> Classifier:
        """Return the classifier to which labels that are not on a list, as of a park, are 20 times rarer.

        Names are as for `only`; none becomes impossible. `name` is what reasons call the list.

        Raises:
            InputError: no name is known.
        """
        return replace(self, favoured=ListPrior.of(self.taxa, names, name))

    def at(self, latitude: float, longitude: float, date: str | int | None = None) -> Classifier:
        """Return the classifier for photos of a place, in degrees, and of a date (ISO 8601; None: any).

        Raises:
            InputError: the classifier has no prior, or there is no such place or date.
        """
        if self.prior is None:
            raise InputError("This classifier has no prior of places that helps: train one with `--prior`.")
        local = self.prior.at(latitude, longitude, date)
        return replace(self, local=local, thresholds=self.prior.rule.thresholds)

    def decided_by(self, decision: Decision) -> Classifier:
        """Return the classifier whose first label is the most `probable` one, or the one with the least
        expected `height` of the lowest common ancestor: the mistakes are nearer, and there may be more.

        Source: Deng and others, "What does classifying more than 10,000 image categories tell us?", 2010.

        Raises:
            InputError: by height, and no label has a rank above it, or there are more than 2,000 labels.
        """
        check_decision(decision, self.taxonomy)
        return replace(self, decision=decision)

    @cached_property
    def _height_CC(self) -> FloatArray:
        return class_heights(len(self.taxa), self.taxonomy.levels)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is computed again; see `Network` for the weights."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def crop(self, photo: Photo) -> tuple[ByteArray, ...]:
        """Return a photo's crops, uint8 (S, S, 3): one for each of the `views`; decoded once.

        Raises:
            ImageRejected: the photo cannot be used.
            InputError: it is not a photo, or an array of another shape or type.
        """
        return streaming.crops_of(photo, self.views)

    def features(self, crops: Crops) -> list[FloatArray]:
        """Compute each member's features of crops: float32 (N, D), one array for each member.

        A network runs once for each view that some member uses.
        """
        by_view = dict(zip(self.views, [crops] if isinstance(crops, np.ndarray) else crops, strict=True))
        return ensemble_member.features_of(self.members, by_view)

    def log_probabilities(self, features: Sequence[FloatArray]) -> FloatArray:
        """Compute calibrated log-probabilities from the `features` of N photos, shape (N, C); raises
        ClassifierError where a head does not fit its backbone, or gives no finite score."""
        return metrics.log_softmax(self._logits(features)[0]).astype(np.float32)

    def combined(self, logits_MNC: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Compute logits divided by the temperature, shape (N, C), and energies, shape (N,), from the
        `Member.logits` of each member."""
        return ensemble_member.combined(self.members, self.temperature, logits_MNC)

    def _logits(self, features: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        found = ensemble_member.logits_of(self.members, features, self.source)
        logits_NC, energy_N = self.combined(found)
        logits_NC = logits_NC if self.favoured is None else self.favoured.logits(logits_NC)
        return logits_NC if self.local is None else self.local.logits(logits_NC), energy_N

    def scores(self, crops: Crops) -> FloatArray:
        """Compute calibrated probabilities of crops, shape (N, C)."""
        return self.outputs(crops)[0]

    def outputs(self, crops: Crops) -> tuple[FloatArray, FloatArray]:
        """Compute calibrated probabilities (N, C) and out-of-distribution scores (N,) of crops."""
        views = [crops] if isinstance(crops, np.ndarray) else crops
        parts = [np.empty((0, len(self.taxa)), np.float32)]
        scores = [np.empty(0, np.float32)]
        for start in range(0, len(views[0]), streaming.BATCH):
            features = self.features([each[start : start + streaming.BATCH] for each in views])
            with cpu.single_threaded():
                logits_BC, energy_B = self._logits(features)
                scores.append(self.ood_scores(features, energy_B))
            parts.append(np.exp(metrics.log_softmax(logits_BC).astype(np.float32)))
        return np.concatenate(parts), np.concatenate(scores)

    def ood_scores(self, features: Sequence[FloatArray], energy_N: FloatArray) -> FloatArray:
        """Compute the out-of-distribution scores of photos, shape (N,); without a detector the energies,
        which `combined` returns."""
        return self.ood.scores(features[0], energy_N) if self.ood else energy_N

    def stream(
        self, photos: Iterable[Photo | ImageRejected]
    ) -> Iterator[tuple[FloatArray, float] | ImageRejected]:
        """Score photos one after the other, in order and in bounded memory.

        Yields:
            The calibrated probabilities, shape (C,), and the out-of-distribution score; or why the photo
            is rejected.

        Raises:
            InputError: a value is not a photo; after the results of the photos before it.
        """
        for reasons, (p_NC, ood_N) in streaming.computed(photos, self.views, self.outputs):
            outputs = zip(p_NC, ood_N.tolist(), strict=True)
            for reason in reasons:
                yield next(outputs) if reason is None else reason

    # A path is a sequence of strings as well, and bytes one of numbers: the first that fits is meant.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, top: int = 5, *, on_error: Raising = "raise", **known: Unpack[Known]
    ) -> Prediction: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Sequence[Photo], top: int = 5, *, on_error: Raising = "raise", **known: Unpack[Known]
    ) -> list[Prediction]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Iterable[Photo], top: int = 5, *, on_error: Raising = "raise", **known: Unpack[Known]
    ) -> Iterator[Prediction]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, top: int = 5, *, on_error: OnError, **known: Unpack[Known]
    ) -> Prediction | ImageRejected: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Sequence[Photo], top: int = 5, *, on_error: OnError, **known: Unpack[Known]
    ) -> list[Prediction | ImageRejected]: ...

    @overload
    def predict(
        self, photos: Iterable[Photo], top: int = 5, *, on_error: OnError, **known: Unpack[Known]
    ) -> Iterator[Prediction | ImageRejected]: ...

    def predict(
        self,
        photos: Photo | Iterable[Photo],
        top: int = 5,
        *,
        on_error: OnError = "raise",
        **known: Unpack[Known],
    ) -> Any:
        """Predict the species in one photo, or in each of several.

        Args:
            photos: a photo or an iterable of photos; a photo is a path, the bytes of a file, an open
                binary file, a `PIL.Image`, a NumPy array uint8 (H, W, 3), RGB, or (H, W), grey, or a
                torch tensor uint8 (3, H, W) or (H, W, 3). EXIF orientation is applied.
            top: how many labels to give for each, at least 1.
            on_error: `raise` the error of a photo that cannot be used, or `return` it instead.
            known: `boxes`, `place` and `date`, see `Known`.

        Returns:
            One prediction for one photo; a list for a list or tuple; for any other iterable an iterator
            that takes photos as they are needed. Always in the order of the photos. Of a JPEG that was cut
            off the part that is there is predicted, if that is half of it or more, with a `note`.

        Raises:
            ImageRejected: a photo cannot be used.
            InputError: `top` is below 1, a value is not a photo, a box is none, there are not as many boxes
                as photos, a place or date is none, or a place is given and there is no prior.
        """
        found = asking.asked(self, photos, top, on_error, known)
        if streaming.is_photo(photos):
            return next(found)
        return list(found) if isinstance(photos, Sequence) else found

    def predict_proba(self, photos: Photo | Iterable[Photo]) -> FloatArray:
        """Compute the calibrated probabilities of photos, float32 (N, C), in the order of `classes`.

        Photos are given and errors raised as by `predict`; one photo gives one row.
        """
        return streaming.rows(photos, self.views, lambda c: self.outputs(c)[0], len(self.taxa))

    def embed(self, photos: Photo | Iterable[Photo]) -> FloatArray:
        """Compute the features of photos, float32 (N, D): the input of the last layer of the first member.

        Photos are given and errors raised as by `predict`; one photo gives one row.
        """
        network, dim = self.lead.network, len(self.lead.head.weight)
        return streaming.rows(photos, [self.lead.preprocess], lambda c: network.engine(c[0]), dim)

    def rank(
        self, p_C: FloatArray, top: int = 5, ood_score: float | None = None, *, unknown: bool | None = None
    ) -> Prediction:
        """Make a prediction from probabilities, (C,), with the flag that is given, or by a score."""
        unknown = unknown if self.ood is None or ood_score is None else ood_score < self.ood.threshold
        preference_C = p_C if self.decision == "probable" else -expected_heights(p_C, self._height_CC)
        first = int(preference_C.argmax())
        found = ranked(p_C, first, self.taxa, self.taxonomy.levels, self.thresholds, top, unknown)
        return explained(found, p_C, self.taxa, self.local, self.favoured)

    def save(self, folder: str | Path) -> None:
        """Write the classifier to a folder; raises InputError where that is not possible."""
        storage.save(self, Path(folder))

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        revision: str | None = None,
        message: str = "Upload a fieldmark classifier",
        token: str | None = None,
    ) -> str:
        """Upload the classifier to the Hugging Face hub; `load("hf://OWNER/NAME")` reads it back.

        Args:
            name: `OWNER/NAME`; the repository is created if it does not exist.
            private: whether a repository that is created is private.
            revision: the branch to upload to; it is created if it does not exist. None: `main`.
            message: of the commit.
            token: of the hub; None: that of `hf auth login` or of the variable `HF_TOKEN`.

        Returns:
            The address of the classifier's page.

        Raises:
            InputError: the name is not one, or the hub refuses the upload or cannot be reached.
        """
        with TemporaryDirectory() as folder:
            self.save(folder)
            return hub.upload(folder, name, private, revision, message, token)

    @classmethod
    def load(
        cls, folder: str | Path, *, engine: EngineName | None = None, compute: Compute | None = None
    ) -> Classifier:
        """Read the folder that `save` wrote, a zip of it, or `hf://OWNER/NAME` (or with `@REVISION`)
        from the Hugging Face hub.

        No code in it is run, and only the files that are needed are read.

        Args:
            folder: the place.
            engine: what runs the networks; `auto` measures. None: ONNX Runtime, which starts without
                PyTorch, or PyTorch where a network cannot be converted.
            compute: `exact`, `half` or `int8`; None and `auto`: as it was trained (`TrainConfig.compute`).

        Raises:
            ClassifierError: it is not a classifier, is damaged or hostile, or cannot be fetched.
            InputError: there is no such engine or tier. One that is not installed, or that cannot run a
                network, raises it at the first photo.
        """
        return cls(**storage.load(folder, engine, compute))
