"""Photos in pages: small JPEGs as data URIs, and the photos of frequent confusions."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from fieldmark.data import images
from fieldmark.data.storage.places import Place
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page
from fieldmark.utils.errors import ImageRejected

SIDE = 176  # pixels of the longer side, shown at 110 CSS pixels
PHOTOS_PER_PAIR = 3

PhotoOf = Callable[[str], Place | None]


@dataclass(frozen=True)
class Thumb:
    """A photo in a page: its id, its description, and its data URI."""

    photo_id: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Pair:
    """A frequent confusion: photos of `true` answered as `predicted`, and one of `predicted`."""

    true: str
    predicted: str
    photos: int
    of: int
    wrong: list[Thumb]
    right: Thumb | None


def data_uri(place: Place) -> str | None:
    """Return a small JPEG of a photo as a data URI; None if the photo cannot be read any more."""
    from PIL import Image

    try:
        pixels_HW3 = images.decode(images.read_bytes(place), at_least=SIDE)
    except ImageRejected:
        return None
    picture = Image.fromarray(pixels_HW3)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=78, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumb(photo_id: str, photos: PhotoOf, alt: str) -> Thumb | None:
    """Return a thumbnail; None if the photo cannot be read."""
    place = photos(photo_id)
    uri = data_uri(place) if place else None
    return Thumb(photo_id, alt, uri) if uri else None


def hardest_pairs(evaluation: Evaluation, photos: PhotoOf, taxonomy: Taxonomy, limit: int = 6) -> list[Pair]:
    """Return the most frequent confusions with photos, most frequent first.

    The wrong answers with the highest score come first, then the right answer with the highest score.
    """
    kept = np.flatnonzero(evaluation.kept_N)
    labels, predicted = evaluation.labels_N, evaluation.predicted_N
    pairs = []
    for true, taken_for, count in metrics.confusion_pairs(predicted[kept], labels[kept], limit):
        name, other = (page.label(taxonomy, evaluation.classes[at]) for at in (true, taken_for))
        wrong = np.flatnonzero((labels == true) & (predicted == taken_for))
        right = np.flatnonzero((labels == taken_for) & (predicted == taken_for))
        thumbs = partial(_thumbs, evaluation, column=taken_for, photos=photos)
        examples = thumbs(right, alt=f"{other}, named right", limit=1)
        mistakes = thumbs(wrong, alt=f"{name}, taken for {other}")
        of, example = int((labels == true).sum()), next(iter(examples), None)
        pairs.append(Pair(name, other, count, of, mistakes, example))
    return pairs


def _thumbs(
    evaluation: Evaluation,
    rows: np.ndarray[tuple[int], np.dtype[np.intp]],
    *,
    column: int,
    photos: PhotoOf,
    alt: str,
    limit: int = PHOTOS_PER_PAIR,
) -> list[Thumb]:
    """Return thumbnails, highest score of `column` first, without photos that cannot be read."""
    scores = metrics.log_softmax(evaluation.scores_NC[rows])[:, column] if len(rows) else rows
    order = rows[np.argsort(-scores, kind="stable")]
    found = (thumb(evaluation.photo_ids[row], photos, alt) for row in order)
    return list(islice(filter(None, found), limit))
