"""Photos in pages: small JPEGs as data URIs, and the photos of frequent confusions."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark.data import images
from fieldmark.data.storage.places import Place
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.languages import say

SIDE = 176  # pixels of the longer side, shown at 110 CSS pixels
PHOTOS_PER_PAIR = 3

PhotoOf = Callable[[str], Place | None]


class Thumb(NamedTuple):
    """A photo in a page: its id, its description, and its data URI."""

    photo_id: str
    alt: str
    uri: str


class Pair(NamedTuple):
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
        best = partial(_best, evaluation, taken_for)
        taken = say("{label}, taken for {other}", label=name, other=other)
        named = say("{label}, named right", label=other)
        shown = thumbs(photos, ((photo_id, taken) for photo_id in best(wrong)))
        example = thumbs(photos, ((photo_id, named) for photo_id in best(right)))
        of = int((labels == true).sum())
        pairs.append(Pair(name, other, count, of, [*islice(shown, PHOTOS_PER_PAIR)], next(example, None)))
    return pairs


MOST_SPECIES = 24
"""How many classes are shown with photos: those with the most wrong answers."""


class Species(NamedTuple):
    """A class with photos: one that was named right, one that was not, one that it is not sure of."""

    name: str
    photos: int
    right: int
    shown: list[tuple[str, Thumb]]


def examples(
    evaluation: Evaluation, photos: PhotoOf, taxonomy: Taxonomy, sure_from: tuple[float, float]
) -> list[Species]:
    """Return classes with photos, the most wrong answers first.

    Args:
        evaluation: the scores of photos.
        photos: returns where a photo is stored, or None.
        taxonomy: the names of the classes.
        sure_from: the temperature of the logits, and the confidence from which on an answer is sure.
    """
    kept = evaluation.kept_N
    confidence_N = metrics.confidence(evaluation.scores_NC / np.float32(sure_from[0]))
    sure_N, wrong_N = confidence_N >= sure_from[1], evaluation.wrong_N()
    labels = evaluation.labels_N
    errors_C = np.bincount(labels[kept & wrong_N], minlength=len(evaluation.classes))
    found = []
    for column in np.argsort(-errors_C, kind="stable")[:MOST_SPECIES]:
        own_N = kept & (labels == column)
        if not own_N.any():
            continue
        kinds = {say("right"): ~wrong_N & sure_N, say("wrong"): wrong_N & sure_N, say("not sure"): ~sure_N}
        shown = []
        for kind, of_kind_N in kinds.items():
            rows = np.flatnonzero(own_N & of_kind_N)
            rows = rows[np.argsort(-confidence_N[rows], kind="stable")]
            answers = (page.label(taxonomy, evaluation.classes[evaluation.predicted_N[row]]) for row in rows)
            said = (
                f"{each}, {page.percent(confidence_N[row])}" for each, row in zip(answers, rows, strict=True)
            )
            captions = zip((evaluation.photo_ids[row] for row in rows), said, strict=True)
            if (first := next(thumbs(photos, captions), None)) is not None:
                shown.append((kind, first))
        name = page.label(taxonomy, evaluation.classes[column])
        found.append(Species(name, int(own_N.sum()), int((own_N & ~wrong_N).sum()), shown))
    return found


def _best(evaluation: Evaluation, column: int, rows: npt.NDArray[np.intp]) -> list[str]:
    """Return the ids of the photos of rows, highest score of `column` first."""
    scores = metrics.log_softmax(evaluation.scores_NC[rows])[:, column]
    return [evaluation.photo_ids[row] for row in rows[np.argsort(-scores, kind="stable")]]


def thumbs(photos: PhotoOf, captions: Iterable[tuple[str, str]]) -> Iterator[Thumb]:
    """Yield thumbnails of photos by id, with captions, without photos that cannot be read."""
    for photo_id, caption in captions:
        if (place := photos(photo_id)) and (uri := data_uri(place)):
            yield Thumb(photo_id, caption, uri)
