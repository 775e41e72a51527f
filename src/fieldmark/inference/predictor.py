"""Photos to predictions, in order; what cannot be used gives its reason and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fieldmark.data import images
from fieldmark.data.image_containers import reject
from fieldmark.inference.classifier import Classifier, Prediction, stacked
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import ByteArray, FloatArray

BATCH = 32


@dataclass(frozen=True)
class PhotoResult:
    """What came of one photo: a prediction, or the reason why there is none.

    `scores` are the probabilities of all labels, shape (C,).
    """

    item: InputPhoto
    prediction: Prediction | None
    rejected: ImageRejected | None = None
    scores: FloatArray | None = field(default=None, compare=False, repr=False)


PredictFunction = Callable[[Classifier, Sequence[InputPhoto], int], Iterator[PhotoResult]]
"""What names photos: a classifier, the photos, how many labels each."""


def predict(
    classifier: Classifier, items: Sequence[InputPhoto], top: int = 5
) -> Iterator[PhotoResult]:
    """Name each photo, in order; a photo that cannot be used gives its reason and stops nothing."""
    found = in_order(lambda item: _crop(classifier, item), items)
    photos = zip(items, found, strict=True)
    while batch := list(islice(photos, BATCH)):
        yield from _name(classifier, batch, top)


def _crop(classifier: Classifier, item: InputPhoto) -> tuple[ByteArray, ...] | ImageRejected:
    try:
        if item.outside:
            reject(RejectReason.OUTSIDE, f"{item.name} leads out of the folder of its list")
        return classifier.crop(images.read_bytes(item.path))
    except ImageRejected as error:
        return error


def _name(
    classifier: Classifier,
    batch: Sequence[tuple[InputPhoto, tuple[ByteArray, ...] | ImageRejected]],
    top: int,
) -> Iterator[PhotoResult]:
    good = [crop for _, crop in batch if not isinstance(crop, ImageRejected)]
    outputs = zip(*classifier.outputs(stacked(good)), strict=True) if good else iter(())
    for item, crop in batch:
        if isinstance(crop, ImageRejected):
            yield PhotoResult(item, None, crop)
        else:
            p_C, energy = next(outputs)
            yield PhotoResult(item, classifier.rank(p_C, top, float(energy)), scores=p_C)


def with_progress(results: Iterable[PhotoResult], total: int) -> Iterator[PhotoResult]:
    """The same results, with a bar where there are many."""
    if total <= BATCH:
        yield from results
        return
    with progress_bar("naming", total) as stage:
        for result in results:
            stage.advance()
            yield result


class RejectedCounter:
    """Results as they come; afterwards `rejected` is how many photos could not be used."""

    def __init__(self, results: Iterable[PhotoResult]) -> None:
        self._results = results
        self.rejected = 0

    def __iter__(self) -> Iterator[PhotoResult]:
        for result in self._results:
            self.rejected += result.prediction is None
            yield result
