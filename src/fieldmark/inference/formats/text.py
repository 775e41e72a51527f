"""Predictions as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fieldmark.inference.predictor import PhotoResult


def text_lines(results: Iterable[PhotoResult]) -> Iterator[str]:
    """Return the lines for the terminal: a block a photo, its labels with their scores."""
    for result in results:
        yield result.photo.name
        prediction = result.prediction
        if prediction is None:
            yield f"  cannot be used: {result.rejected}"
            continue
        if prediction.source == "rolled up":
            yield (
                f"  {prediction.score:6.1%}  {prediction.rank} {prediction.name}; the species is not sure:"
            )
        elif prediction.source == "not sure":
            yield "  not sure; the most likely are"
        if prediction.unknown:
            yield "  the photo is unlike the training photos: it may show none of these species"
        for answer in prediction.answers:
            yield f"  {answer.score:6.1%}  {answer.taxon.label}"
