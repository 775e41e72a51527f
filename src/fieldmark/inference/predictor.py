"""Predict photos in order; a photo that cannot be used gives its reason and stops nothing."""

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
    """The prediction for one photo, or the reason why there is none.

    Attributes:
        photo: the photo.
        prediction: None where the photo is rejected.
        rejected: the reason.
        scores: the probabilities of all labels, shape (C,).
    """

    photo: InputPhoto
    prediction: Prediction | None
    rejected: ImageRejected | None = None
    scores: FloatArray | None = field(default=None, compare=False, repr=False)


PredictFunction = Callable[[Classifier, Sequence[InputPhoto], int], Iterator[PhotoResult]]
"""Predicts photos in order: a classifier, the photos, the number of labels for each."""


def predict(
    classifier: Classifier, photos: Sequence[InputPhoto], top: int = 5
) -> Iterator[PhotoResult]:
    """Predict each photo, in order, in batches.

    Args:
        classifier: the classifier.
        photos: the photos.
        top: the number of labels for each photo.

    Yields:
        A prediction, or the reason why the photo cannot be used.
    """
    crops = in_order(lambda photo: _crop(classifier, photo), photos)
    pairs = zip(photos, crops, strict=True)
    while batch := list(islice(pairs, BATCH)):
        yield from _predict_batch(classifier, batch, top)


def _crop(classifier: Classifier, photo: InputPhoto) -> tuple[ByteArray, ...] | ImageRejected:
    try:
        if photo.outside:
            reject(RejectReason.OUTSIDE, f"{photo.name} leads out of the folder of its list")
        return classifier.crop(images.read_bytes(photo.path))
    except ImageRejected as error:
        return error


def _predict_batch(
    classifier: Classifier,
    batch: Sequence[tuple[InputPhoto, tuple[ByteArray, ...] | ImageRejected]],
    top: int,
) -> Iterator[PhotoResult]:
    good = [crop for _, crop in batch if not isinstance(crop, ImageRejected)]
    outputs = zip(*classifier.outputs(stacked(good)), strict=True) if good else iter(())
    for photo, crop in batch:
        if isinstance(crop, ImageRejected):
            yield PhotoResult(photo, None, crop)
        else:
            p_C, energy = next(outputs)
            yield PhotoResult(photo, classifier.rank(p_C, top, float(energy)), scores=p_C)


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
    """Pass results on and count the photos that could not be used, in `rejected`."""

    def __init__(self, results: Iterable[PhotoResult]) -> None:
        self._results = results
        self.rejected = 0

    def __iter__(self) -> Iterator[PhotoResult]:
        for result in self._results:
            self.rejected += result.prediction is None
            yield result
