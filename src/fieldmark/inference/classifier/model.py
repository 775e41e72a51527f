"""Classifier: members, taxonomy, calibration and provenance; one member is the usual case.

Several members are an ensemble: the probability of a label is the weighted mean of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fieldmark.data import images, transforms
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation import calibration, ensemble, metrics
from fieldmark.evaluation.calibration import Threshold
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import folder as storage
from fieldmark.inference.classifier.answers import Prediction, ranked
from fieldmark.inference.classifier.ensemble_member import Member, Network
from fieldmark.utils import cpu, io
from fieldmark.utils.errors import ClassifierError, InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models import Backbone

_BATCH = 32

Photo = bytes | Path | str | ByteArray
"""A path, the bytes of a file, or a decoded image: RGB, upright, uint8 (H, W, 3)."""
Crops = ByteArray | Sequence[ByteArray]
"""Crops of N photos: uint8 (N, S, S, 3) for each of the classifier's views; bare where it has one."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained species classifier.

    Attributes:
        members: what names photos; at least one, the one with the largest weight first.
        taxonomy: the taxon of each of the C scores, in their order.
        temperature: the scores are divided by it before the softmax; those of an ensemble are the
            logarithms of its mean probabilities.
        thresholds: from which score on an answer is given at each rank; "species" is the label
            itself. Empty: the first label is always given.
        known_from: a photo whose `calibration.energy` is lower may be of none of the labels; None
            where this was not set. An ensemble's energy is the weighted mean of its members'.
        provenance: how it was made: data digest, split, recipe, versions, licence of the weights.
        source: the folder that it was loaded from.
        files: the SHA-256 of each file that belongs to it there.
    """

    members: tuple[Member, ...]
    taxonomy: Taxonomy
    temperature: float = 1.0
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    ood_threshold: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alone(
        cls,
        backbone: Backbone,
        preprocess: Preprocess,
        head: LinearHead,
        taxonomy: Taxonomy,
        **more: Any,
    ) -> Classifier:
        """The classifier with one member; `more` are the other attributes."""
        return cls((Member(Network.of(backbone), preprocess, head),), taxonomy, **more)

    @cached_property
    def taxa(self) -> tuple[Taxon, ...]:
        """The taxon of each score."""
        return tuple(self.taxonomy)

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
        """The distinct ways in which members look at a photo, in their order."""
        return tuple(dict.fromkeys(each.preprocess for each in self.members))

    @property
    def architecture(self) -> str:
        """The names of its networks."""
        return " + ".join(dict.fromkeys(each.architecture for each in self.networks))

    @property
    def threshold(self) -> Threshold | None:
        """When the first label is given as the answer; None: always."""
        return self.thresholds.get("species")

    @cached_property
    def digest(self) -> str:
        """A digest of all that an answer depends on, 64 hexadecimal digits."""
        members = [
            [
                *(each.network.architecture, each.network.key, each.preprocess.to_json()),
                *(io.sha256(t.tobytes()) for t in each.head.tensors().values()),
                *(each.temperature, each.weight),
            ]
            for each in self.members
        ]
        thresholds = {rank: asdict(each) for rank, each in self.thresholds.items()}
        return io.digest(
            [members, self.temperature, self.taxonomy.to_json(), thresholds, self.ood_threshold]
        )

    def only(self, names: Iterable[str]) -> Classifier:
        """The classifier of some of the labels, whose probabilities then sum to 1 among them.

        Each member answers among them alone, and its weight stays.

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
        members = tuple(replace(each, head=each.only(columns)) for each in self.members)
        taxonomy = self.taxonomy.only(self.taxa[at].id for at in columns)
        # The energy of fewer labels is another number: nothing was set for it.
        return replace(self, members=members, taxonomy=taxonomy, ood_threshold=None)

    # From photos to scores

    def crop(self, photo: Photo) -> tuple[ByteArray, ...]:
        """A photo's crops, uint8 (S, S, 3): one for each of the `views`; decoded once.

        Raises:
            ImageRejected: the photo cannot be used.
            InputError: an array is no RGB image.
        """
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.shape[2:] != (3,) or 0 in photo.shape:
                raise InputError(
                    f"An image is an array uint8 (H, W, 3), RGB, not {photo.dtype} {photo.shape}."
                )
            return tuple(view.apply(photo) for view in self.views)
        data = photo if isinstance(photo, bytes) else images.read_bytes(Path(photo))
        with images.naming_photo(photo):
            return transforms.crops(data, self.views)

    def features(self, crops: Crops) -> list[FloatArray]:
        """What each member's network makes of crops: float32 (N, D), one for each member.

        A network runs once for each view that some member sees through it.
        """
        by_view = dict(
            zip(self.views, [crops] if isinstance(crops, np.ndarray) else crops, strict=True)
        )
        found: dict[tuple[str, Preprocess], FloatArray] = {}
        for member in self.members:
            key = (member.network.key, member.preprocess)
            if key not in found:
                network = next(each for each in self.networks if each.key == key[0])
                found[key] = network.engine(by_view[member.preprocess])
        return [found[each.network.key, each.preprocess] for each in self.members]

    def log_probabilities(self, features: Sequence[FloatArray]) -> FloatArray:
        """Calibrated log-probabilities of the `features` of N photos, shape (N, C).

        Raises:
            ClassifierError: a head does not fit its backbone, or gives no finite score.
        """
        return metrics.log_softmax(self._logits(features)[0]).astype(np.float32)

    def _logits(self, features: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        return self.combined(
            [self._member(*each) for each in zip(self.members, features, strict=True)]
        )

    def combined(self, logits_MNC: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Logits divided by the temperature, shape (N, C), and energies, shape (N,).

        Args:
            logits_MNC: as `Member.logits` gives them, one array for each member.
        """
        heat = np.float32(self.temperature)
        weights_M = [each.weight for each in self.members]
        energy_MN = [calibration.energy(logits_NC / heat) for logits_NC in logits_MNC]
        if len(logits_MNC) == 1:
            return logits_MNC[0] / heat, energy_MN[0]
        log_p_MNC = [metrics.log_softmax(logits_NC) for logits_NC in logits_MNC]
        mixed = ensemble.log_mixture(log_p_MNC, weights_M) / self.temperature
        return mixed.astype(np.float32), np.average(energy_MN, 0, weights_M).astype(np.float32)

    def _member(self, member: Member, features_ND: FloatArray) -> FloatArray:
        try:
            return member.logits(features_ND)
        except ValueError as why:
            where = self.source or "This classifier"
            raise ClassifierError(
                f"{where} has a head of {member.head.weight.shape} that is of no use here ({why}): "
                "take it anew from where it was made."
            ) from why

    def scores(self, crops: Crops) -> FloatArray:
        """Calibrated probabilities of crops, shape (N, C)."""
        return self.outputs(crops)[0]

    def outputs(self, crops: Crops) -> tuple[FloatArray, FloatArray]:
        """Calibrated probabilities of crops, shape (N, C), and their energies, shape (N,)."""
        views = [crops] if isinstance(crops, np.ndarray) else crops
        parts = [np.empty((0, len(self.taxa)), np.float32)]
        energies = [np.empty(0, np.float32)]
        for start in range(0, len(views[0]), _BATCH):
            features = self.features([each[start : start + _BATCH] for each in views])
            with cpu.single_threaded():
                logits_BC, energy_B = self._logits(features)
            parts.append(np.exp(metrics.log_softmax(logits_BC).astype(np.float32)))
            energies.append(energy_B)
        return np.concatenate(parts), np.concatenate(energies)

    # A path is a sequence of strings as well, and bytes one of numbers: the first that fits is meant.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, top: int = 5
    ) -> Prediction: ...

    @overload
    def predict(self, photos: Sequence[Photo], top: int = 5) -> list[Prediction]: ...

    def predict(
        self, photos: Photo | Sequence[Photo], top: int = 5
    ) -> Prediction | list[Prediction]:
        """Name what is in a photo, or in each of some photos.

        Args:
            photos: one or several: paths, the bytes of files, or RGB images uint8 (H, W, 3).
            top: how many labels to give for each.

        Returns:
            A prediction for one photo; of several a list of them, in their order.

        Raises:
            ImageRejected: a photo cannot be used.
            InputError: an array is no RGB image.
        """
        if isinstance(photos, bytes | Path | str | np.ndarray):
            return self.predict([photos], top)[0]
        crops = [self.crop(photo) for photo in photos]
        if not crops:
            return []
        outputs = zip(*self.outputs(stacked(crops)), strict=True)
        return [self.rank(p_C, top, float(energy)) for p_C, energy in outputs]

    def rank(self, p_C: FloatArray, top: int = 5, energy: float | None = None) -> Prediction:
        """What to say of one photo's probabilities, shape (C,): labels sorted by confidence, and
        the answer that is sure enough; with its energy also whether it may be none of the labels."""
        unknown = (
            None if self.ood_threshold is None or energy is None else energy < self.ood_threshold
        )
        return ranked(p_C, self.taxa, self.taxonomy.levels, self.thresholds, top, unknown)

    def save(self, folder: Path) -> None:
        """Write the classifier's folder.

        Raises:
            InputError: the folder cannot be written to.
        """
        storage.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Read the folder that `save` wrote, a zip of it, or `hf://OWNER/NAME` (or with `@REVISION`)
        from the Hugging Face hub.

        No code in it is run, and only the files that are needed are read.

        Raises:
            ClassifierError: it is not a classifier, is damaged or hostile, or cannot be fetched.
        """
        return cls(**storage.load(folder))


def stacked(photos: Sequence[Sequence[ByteArray]]) -> list[ByteArray]:
    """The crops of at least one photo, photo by photo, as `Crops`: view by view."""
    return [np.stack(view) for view in zip(*photos, strict=True)]
