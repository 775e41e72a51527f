"""The prior of a classifier: which labels are to be expected where and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.locations import Locations, day_of_year
from fieldmark.data.taxonomy import Taxon
from fieldmark.evaluation import metrics
from fieldmark.evaluation.location_prior import MOST, STRENGTHS, KernelPrior, LocationRule
from fieldmark.inference.classifier import validation
from fieldmark.inference.classifier.answers import Prediction
from fieldmark.inference.classifier.species_list import ListPrior
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray, IntArray

FILE = "prior.safetensors"
_NUMBERS = ("kilometres", "days", "smoothing")


@dataclass(frozen=True, eq=False)
class LocationPrior:
    """Makes a classifier's answers fit a place and a time of the year.

    Attributes:
        frequencies: of the labels, by place and day.
        rule: how they are combined with a photo's probabilities.
    """

    frequencies: KernelPrior
    rule: LocationRule

    @property
    def digest(self) -> str:
        """A digest of all that an answer depends on."""
        return io.digest([self.to_json(), *(io.sha256(each.tobytes()) for each in self._tensors().values())])

    def at(self, latitude: float, longitude: float, date: str | int | None = None) -> LocalPrior:
        """Return the prior at a place.

        Args:
            latitude, longitude: in degrees.
            date: ISO 8601, or the day of the year; None: the time of the year does not count.

        Raises:
            InputError: there is no such place or date.
        """
        if not (-90 <= latitude <= 90 and -360 <= longitude <= 360):
            raise InputError(
                f"There is no place at {latitude:g},{longitude:g}: write latitude,longitude in degrees, "
                "such as 47.25,8.5."
            )
        day = date if isinstance(date, int) else day_of_year(date)
        if date and not day:
            raise InputError(f"{date!r} is no date: write it as 2023-06-30.")
        [ratio_C] = self.frequencies.log_ratios(Locations.of([(latitude, longitude, day)]))
        return LocalPrior(ratio_C, self.rule)

    def only(self, columns: Sequence[int]) -> LocationPrior:
        """Return the prior of some of the labels."""
        return replace(self, frequencies=self.frequencies.only(columns))

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as a JSON object."""
        about = {name: getattr(self.frequencies, name) for name in _NUMBERS}
        thresholds = {rank: asdict(each) for rank, each in self.rule.thresholds.items()}
        return {**about, **asdict(self.rule), "thresholds": thresholds}

    def _tensors(self) -> dict[str, Any]:
        own = self.frequencies
        return {
            "latitude": np.ascontiguousarray(own.locations.latitude_N),  # a column of a matrix is not
            "longitude": np.ascontiguousarray(own.locations.longitude_N),
            "day": own.locations.day_N.astype(np.int16),
            "class": own.class_N.astype(np.int32),
        }

    def save(self, folder: Path) -> None:
        """Write the tensors."""
        from safetensors.numpy import save as as_bytes

        io.write_bytes(folder / FILE, as_bytes(self._tensors()))

    @classmethod
    def load(cls, about: Any, folder: Path, digests: Mapping[str, object], classes: int) -> LocationPrior:
        """Read what `to_json` and `save` wrote.

        Raises:
            KeyError, OSError, ValueError, SafetensorError: something is missing or cannot be.
        """
        from safetensors.numpy import load as tensors_in

        raw = (folder / FILE).read_bytes()
        if io.sha256(raw) != digests[FILE]:
            raise ValueError(f"{FILE} is not the file that was written with it")
        rule = LocationRule(
            validation.number(about, "strength", STRENGTHS[1], STRENGTHS[-1]),
            validation.number(about, "temperature", 1e-3, 1e3),
            validation.thresholds(about["thresholds"]),
        )
        return cls(_kernel(tensors_in(raw), about, classes), rule)


def _kernel(tensors: Mapping[str, Any], about: Mapping[str, Any], classes: int) -> KernelPrior:
    latitude_N, longitude_N = (tensors[name].astype(np.float64) for name in ("latitude", "longitude"))
    day_N, class_N = (_whole(tensors[name]) for name in ("day", "class"))
    sizes = {(len(each), each.ndim) for each in (latitude_N, longitude_N, day_N, class_N)}
    ordered = len(class_N) and (np.diff(class_N) >= 0).all() and class_N[0] >= 0 and class_N[-1] < classes
    possible = (np.abs(latitude_N) <= 90).all() and (np.abs(longitude_N) <= 360).all()
    days = ((day_N >= 0) & (day_N <= 366)).all()
    if sizes != {(len(class_N), 1)} or len(class_N) > MOST or not (ordered and possible and days):
        raise ValueError(f"{FILE} does not hold occurrences of {classes} labels")
    numbers = {name: validation.number(about, name, 1e-3, 1e6) for name in _NUMBERS}
    return KernelPrior(Locations(latitude_N, longitude_N, day_N), class_N, classes, **numbers)


def _whole(values: Any) -> IntArray:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{FILE} has numbers that are not whole")
    return np.asarray(values, np.int64)


@dataclass(frozen=True, eq=False)
class LocalPrior:
    """The prior at one place and day.

    Attributes:
        ratio_C: the logarithms of the frequencies here over those overall.
        rule: how they are combined with a photo's probabilities.
    """

    ratio_C: FloatArray
    rule: LocationRule

    @property
    def digest(self) -> str:
        """A digest of all that an answer depends on."""
        return io.digest(io.sha256(self.ratio_C.tobytes()))

    def logits(self, logits_NC: FloatArray) -> FloatArray:
        """Compute calibrated logits with the prior from those without it, shape (N, C)."""
        return self.rule.logits(metrics.log_softmax32(logits_NC), self.ratio_C)

    def probabilities(self, p_C: FloatArray) -> FloatArray:
        """Compute the probabilities with the prior from those without it, shape (C,)."""
        found_C: FloatArray = np.exp(metrics.log_softmax32(self.logits(_log(p_C)[None])))[0]
        return found_C

    def without(self, logits_NC: FloatArray) -> FloatArray:
        """Compute log-probabilities without the prior from `logits` with it, shape (N, C)."""
        raw_NC = np.float32(self.rule.temperature) * logits_NC - np.float32(self.rule.strength) * self.ratio_C
        return metrics.log_softmax32(raw_NC)


def explained(
    found: Prediction,
    p_C: FloatArray,
    taxa: Sequence[Taxon],
    local: LocalPrior | None,
    favoured: ListPrior | None,
) -> Prediction:
    """Say that a prior of a place counts (`p_C` are with it), and where it or a list of species changed the
    first label."""
    before_1C = _log(p_C)[None]
    if local is not None:
        found, before_1C = replace(found, prior=True), local.without(before_1C)
    if favoured is not None:
        before_1C = favoured.without(before_1C)
    first, best = taxa[int(before_1C.argmax())], found.best.taxon
    said = [found.reason]
    if first.id not in (best.id, taxa[int(p_C.argmax())].id):
        said.append(f"by the photo alone {first.name} would come first")
    if favoured is not None and not favoured.listed_C[next(n for n, each in enumerate(taxa) if each is best)]:
        said.append(f"{best.name} is not on the list {favoured.name}")
    return replace(found, reason="; ".join(said))


def _log(p_C: FloatArray) -> FloatArray:
    found: FloatArray = np.log(np.maximum(p_C, np.finfo(np.float32).tiny))
    return found
