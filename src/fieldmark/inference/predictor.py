"""Predict photos in order; a photo that cannot be used gives its reason and stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fieldmark.data.events import shifted
from fieldmark.data.locations import Location, location_of
from fieldmark.data.storage.places import Place
from fieldmark.inference.classifier import Classifier, Prediction, asking
from fieldmark.inference.classifier.ensemble_member import with_networks
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import FloatArray

logger = logging.getLogger(__name__)

BATCH = 32
MANY = 256
"""From so many photos on the fastest engine saves more time than it takes to start."""
_FRAMES = 30  # that a clip counts for; how many it has is seen when it is decoded


@dataclass(frozen=True)
class ClipResult:
    """What is known of a clip beside its answer.

    Attributes:
        rate: frames a second.
        frames: the results of the frames, or of the boxes in them, that were classified.
        seconds: when its answer is seen: the times of the frames whose first label is that of the clip, or
            that show the person or vehicle.
        count: the largest number of animals in one frame; 0 where there is none.
        also: further species, with the largest number of each in one frame.
    """

    rate: float
    frames: tuple[PhotoResult, ...]
    seconds: tuple[float, ...]
    count: int = 0
    also: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class PhotoResult:
    """The prediction for one photo with the probabilities of all labels, shape (C,), or why there is none.

    There is no prediction either for a photo whose boxes show no animal: see `InputPhoto.kind`.
    """

    photo: InputPhoto
    prediction: Prediction | None
    rejected: ImageRejected | None = None
    scores: FloatArray | None = field(default=None, compare=False, repr=False)
    clip: ClipResult | None = field(default=None, compare=False, repr=False)

    @property
    def note(self) -> str:
        """Return that of the prediction, if there is one."""
        return self.prediction.note if self.prediction else ""


PredictFunction = Callable[[Classifier, Sequence[InputPhoto], int], Iterator[PhotoResult]]
"""Predicts photos in order: a classifier, the photos, the number of labels for each."""


def predict(classifier: Classifier, photos: Sequence[InputPhoto], top: int = 5) -> Iterator[PhotoResult]:
    """Predict each photo, in order, in batches, with `top` labels for each.

    Where the classifier has a prior, the place and time of each photo count, unless it is `at` one place. Of
    a JPEG that was cut off the part that is there is predicted, if that is half of it or more.
    """
    animals = [photo for photo in photos if photo.kind == "animal"]
    places = iter(animals)
    outputs = asking.predictions(
        classifier, map(place_to_read, animals), top, lambda _: _location(next(places))
    )
    for photo in photos:
        output = next(outputs) if photo.kind == "animal" else None
        if output is None:
            yield PhotoResult(photo, None)
        elif isinstance(output, ImageRejected):
            yield PhotoResult(photo, None, output)
        else:
            yield PhotoResult(photo, output[0], scores=output[1])


def for_all(classifier: Classifier, photos: Sequence[InputPhoto]) -> Classifier:
    """Return the classifier with the engines for so many photos: for `MANY` and more the fastest ones.

    Engines differ in the last digits: all photos of a file count, also those that were predicted before.
    A named engine stays.
    """
    count = sum(1 if photo.sampling is None else _FRAMES for photo in photos)
    if count < MANY or any(network.runs_in for network in classifier.networks):
        return classifier
    return replace(classifier, members=with_networks(classifier.members, runs_in="auto"))


def _location(photo: InputPhoto) -> Location:
    """Return where and when a photo was taken."""
    taken = photo.taken and shifted(photo.taken, photo.late)
    return location_of(photo.path, photo.latitude, photo.longitude, taken)


def place_to_read(photo: InputPhoto) -> Place | ImageRejected:
    """Return where a photo is read, or why it is not: its list leads out of the list's folder."""
    if photo.outside:
        return ImageRejected(RejectReason.OUTSIDE, f"{photo.name} leads out of the folder of its list")
    return photo.path


def with_progress(results: Iterable[PhotoResult], total: int) -> Iterator[PhotoResult]:
    """Pass results on, with a progress bar where there is more than one batch."""
    if total <= BATCH:
        yield from results
        return
    with progress_bar("predicting", total) as stage:
        for result in results:
            stage.advance()
            yield result


class RejectedCounter:
    """Pass results on and count the photos that could not be used, in `rejected`, and those cut off."""

    def __init__(self, results: Iterable[PhotoResult]) -> None:
        self._results = results
        self.rejected = self.truncated = 0

    def __iter__(self) -> Iterator[PhotoResult]:
        for result in self._results:
            self.rejected += result.rejected is not None
            self.truncated += bool(result.note)
            yield result
        if self.truncated:
            end = "photo ends" if self.truncated == 1 else "photos end"
            logger.warning(f"{self.truncated:,} {end} too early: the part that is there was classified.")
