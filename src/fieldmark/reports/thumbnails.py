"""Photos inside the page: small JPEGs as data URIs, and the photos of the hardest confusions."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fieldmark.data import images
from fieldmark.data.storage.places import Place
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page
from fieldmark.utils.errors import ImageRejected

SIDE = 176  # pixels of the longer side: sharp at the 110 CSS pixels it is shown at
PHOTOS_PER_PAIR = 3

PhotoOf = Callable[[str], Place | None]


@dataclass(frozen=True)
class Thumb:
    """A photo in the page: its id, what it shows, and its data URI."""

    photo_id: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Pair:
    """A frequent mistake: photos of `true` that were taken for `predicted`, and one of the latter."""

    true: str
    predicted: str
    photos: int
    of: int
    wrong: list[Thumb]
    right: Thumb | None


def data_uri(place: Place) -> str | None:
    """A small JPEG of a photo as a data URI; None where the photo cannot be read any more."""
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


def hardest_pairs(
    evaluation: Evaluation, photos: PhotoOf, taxonomy: Taxonomy, limit: int = 6
) -> list[Pair]:
    """The most frequent mistakes of an evaluation with photos, the most frequent first.

    The photos that were taken for the wrong class with the highest score come first. Beside them
    stands a photo of that class that was named right, the one with the highest score.
    """
    kept = np.flatnonzero(evaluation.kept_N)
    labels, predicted = evaluation.labels_N, evaluation.predicted_N
    pairs = []
    for true, taken_for, count in metrics.confusion_pairs(predicted[kept], labels[kept], limit):
        name, other = (page.label(taxonomy, evaluation.classes[at]) for at in (true, taken_for))
        wrong = np.flatnonzero((labels == true) & (predicted == taken_for))
        right = np.flatnonzero((labels == taken_for) & (predicted == taken_for))
        pairs.append(
            Pair(
                true=name,
                predicted=other,
                photos=count,
                of=int((labels == true).sum()),
                wrong=_thumbs(
                    evaluation, wrong, taken_for, photos, alt=f"{name}, taken for {other}"
                ),
                right=next(
                    iter(
                        _thumbs(
                            evaluation,
                            right,
                            taken_for,
                            photos,
                            alt=f"{other}, named right",
                            limit=1,
                        )
                    ),
                    None,
                ),
            )
        )
    return pairs


def _thumbs(
    evaluation: Evaluation,
    rows: np.ndarray[tuple[int], np.dtype[np.intp]],
    column: int,
    photos: PhotoOf,
    *,
    alt: str,
    limit: int = PHOTOS_PER_PAIR,
) -> list[Thumb]:
    """Thumbs of some photos, the highest score of `column` first; what cannot be read is passed over."""
    scores = metrics.log_softmax(evaluation.scores_NC[rows])[:, column] if len(rows) else rows
    found: list[Thumb] = []
    for row in rows[np.argsort(-scores, kind="stable")]:
        photo_id = evaluation.photo_ids[row]
        path = photos(photo_id)
        uri = data_uri(path) if path else None
        if uri:
            found.append(Thumb(photo_id, alt, uri))
        if len(found) == limit:
            break
    return found
