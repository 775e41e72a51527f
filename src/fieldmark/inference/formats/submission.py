"""The challenge's file: `id,predicted`, a row for each image id."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from fieldmark.inference.classifier import Classifier
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.predictor import PhotoResult
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


def check_submission(photos: Iterable[InputPhoto]) -> None:
    """Raise InputError if a photo has no image id, or two have the same: no submission is possible."""
    seen: set[str] = set()
    for photo in photos:
        if photo.id is None:
            raise InputError(
                f"{photo.name} has no image id: --submission needs an annotation file such as "
                "test2019.json as PHOTO."
            )
        if photo.id in seen:
            raise InputError(
                f"{photo.name} has the image id {photo.id} of another photo: name annotation files "
                "that list each image once."
            )
        seen.add(photo.id)


def write_submission(path: Path, results: Sequence[PhotoResult], classifier: Classifier) -> None:
    """Write the challenge's `id,predicted` file, one row for each image id.

    A photo that cannot be used still needs a row: it gets the first class, with a log message.

    Raises:
        InputError: see `check_submission`; or the file cannot be written.
    """
    check_submission(result.photo for result in results)
    lines = ["id,predicted\n"]
    for result in results:
        if result.prediction is None:
            logger.info(f"{result.photo.name}: {result.rejected}; its row is the first class")
        best = result.prediction.best.taxon if result.prediction else classifier.taxa[0]
        lines.append(f"{result.photo.id},{best.id}\n")
    io.write_text(path, "".join(lines))
