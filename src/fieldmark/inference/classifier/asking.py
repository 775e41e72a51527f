"""Predict photos with what is known of them: a box, a place and a time; also those that were cut off."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, TypedDict

from fieldmark.data import images
from fieldmark.data.detections import box_of
from fieldmark.data.locations import Location, location_of
from fieldmark.data.storage.places import Boxed, InMemoryImage, Place
from fieldmark.inference.classifier import streaming
from fieldmark.inference.classifier.answers import Prediction
from fieldmark.inference.classifier.streaming import OnError, Photo
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason
from fieldmark.utils.typing import FloatArray

if TYPE_CHECKING:
    from fieldmark.inference.classifier.model import Classifier

Raising = Literal["raise"]
BoxSides = Sequence[float]
"""Left, top, width and height of a box, as shares of the photo as it is shown."""
Where = Callable[[Place | None], Location | None]
"""Returns where and when a photo was taken; called once for each photo, in order. None: unknown."""


class Known(TypedDict, total=False):
    """What is known of photos beside their pixels: optional arguments of `Classifier.predict`.

    Attributes:
        boxes: where the animal is, as (left, top, width, height) in shares of the photo as it is shown: the
            box of one photo, or for several an iterable with a box, or None, for each. A photo with two
            animals is given twice. None: whole photos.
        place: latitude and longitude of all photos, in degrees, or `exif`: of each photo, with its date, as
            its EXIF data say, where they do. None: without a prior.
        date: of all photos, with a place: ISO 8601 or the day of the year; None: the time of the year does
            not count.
    """

    boxes: BoxSides | Iterable[BoxSides | None] | None
    place: tuple[float, float] | Literal["exif"] | None
    date: str | int | None


def rank_at(
    classifier: Classifier,
    p_C: FloatArray,
    ood_score: float,
    top: int,
    where: Location | None,
    at: Callable[..., Classifier],
) -> tuple[Prediction, FloatArray]:
    """Make a prediction for a place and day from its probabilities without a prior; return those with it.

    The prior counts where the classifier has one, the place is known, and the classifier is not `at` one;
    `at` is `Classifier.at`, which may be cached.
    """
    here = classifier
    if where is not None and classifier.prior and not classifier.local and not math.isnan(where[0]):
        here = at(*where)
        p_C = here.local.probabilities(p_C) if here.local else p_C
    return here.rank(p_C, top, ood_score), p_C


def predictions(
    classifier: Classifier, photos: Iterable[Photo | ImageRejected], top: int, where: Where | None = None
) -> Iterator[tuple[Prediction, FloatArray] | ImageRejected]:
    """Predict photos in order, in bounded memory.

    Of a JPEG that was cut off the part that is there is predicted, if that is half of it or more.

    Yields:
        The prediction and the probabilities, shape (C,); or why the photo is rejected.
    """
    given: deque[Place | None] = deque()
    at = cache(classifier.at)  # photos of one place and day
    place_of = where if classifier.prior and not classifier.local else None
    for output in classifier.stream(_noted(photos, given)):
        photo = given.popleft()
        location = place_of(photo) if place_of else None
        note = ""
        if isinstance(output, ImageRejected) and output.reason == RejectReason.TRUNCATED and photo:
            with suppress(ImageRejected):  # too little of it is there
                [output] = classifier.stream([images.read_cut(photo)])  # noqa: PLW2901
                note = RejectReason.TRUNCATED.value
        if isinstance(output, ImageRejected):
            yield output
        else:
            prediction, p_C = rank_at(classifier, output[0], output[1], top, location, at)
            yield noted(prediction, note), p_C


def noted(prediction: Prediction, note: str) -> Prediction:
    """Return a prediction with a note, see `Prediction.note`."""
    return replace(prediction, note=note) if note else prediction


def _noted(
    photos: Iterable[Photo | ImageRejected], into: deque[Place | None]
) -> Iterator[Photo | ImageRejected]:
    """Pass photos on, and keep where the bytes of each are; open files are read here."""
    for photo in photos:
        found: Photo | ImageRejected = photo
        if not isinstance(photo, ImageRejected):
            try:
                found = streaming.opened(photo)
            except ImageRejected as rejected:
                found = rejected
        kept = InMemoryImage(found) if isinstance(found, bytes) else found
        into.append(kept if isinstance(kept, Place) else None)
        yield found


def in_boxes(photos: Iterable[Photo], boxes: Iterable[BoxSides | None]) -> Iterator[Photo | ImageRejected]:
    """Return photos cut to their boxes, or why that is not possible; None: the whole photo.

    Raises:
        InputError: a box is none, or there are not as many as photos.
    """
    none = object()
    for photo, sides in zip_longest(photos, boxes, fillvalue=none):
        if none is photo or none is sides:
            raise InputError("`boxes` has a box, or None, for each photo: there are more of one.")
        try:
            yield photo if sides is None else _in_box(photo, sides)  # type: ignore[arg-type,misc]
        except ImageRejected as rejected:
            yield rejected


def _in_box(photo: Photo, sides: BoxSides) -> Photo:
    try:
        box = box_of([float(side) for side in sides])
    except (TypeError, ValueError) as why:
        raise InputError(f"A box is {sides!r}: {why}.") from why
    found = streaming.opened(photo)
    if isinstance(found, Boxed):
        raise InputError("A photo that is cut to a box is given with another box: leave one of them out.")
    if isinstance(found, Place):
        return Boxed(found, box)
    return Boxed(InMemoryImage(found), box) if isinstance(found, bytes) else images.boxes.encoded(found, box)


def asked(
    classifier: Classifier, photos: Photo | Iterable[Photo], top: int, on_error: OnError, known: Known
) -> Iterator[Prediction | ImageRejected]:
    """Return the predictions that `Classifier.predict` is asked for; raises what it says."""
    streaming.check_options(top, on_error)
    if unknown := known.keys() - Known.__annotations__.keys():
        raise TypeError(f"Classifier.predict has no argument {sorted(unknown)[0]!r}.")
    boxes, place, date = known.get("boxes"), known.get("place"), known.get("date")
    alone = streaming.is_photo(photos)
    several: Iterable[Photo | ImageRejected] = [photos] if alone else streaming.several(photos)  # type: ignore[list-item]
    if boxes is not None:
        several = in_boxes(several, [boxes] if alone else boxes)  # type: ignore[list-item,arg-type]
    if date is not None and place in (None, "exif"):
        raise InputError("A date is given without a place: give `place` as (latitude, longitude), too.")
    if place is not None and place != "exif":
        classifier = classifier.at(*_degrees(place), date)
    elif place == "exif":
        classifier.at(0, 0)  # refused without a prior
    where = _by_exif if place == "exif" else None
    return _raised(predictions(classifier, several, top, where), on_error)


def _degrees(place: object) -> tuple[float, float]:
    try:
        latitude, longitude = map(float, place)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise InputError(f"A place is {place!r}: give (latitude, longitude) in degrees, or 'exif'.") from None
    return latitude, longitude


def _by_exif(photo: Place | None) -> Location | None:
    return None if photo is None else location_of(photo, None, None, None)


def _raised(
    found: Iterable[tuple[Prediction, FloatArray] | ImageRejected], on_error: OnError
) -> Iterator[Prediction | ImageRejected]:
    for each in found:
        if not isinstance(each, ImageRejected):
            yield each[0]
        elif on_error == "return":
            yield each
        else:
            raise each
