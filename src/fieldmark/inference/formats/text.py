"""What the terminal shows of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fieldmark.inference.predictor import PhotoResult


def text_lines(results: Iterable[PhotoResult]) -> Iterator[str]:
    """For the terminal: a block a photo, the labels with their scores, "not sure" said plainly."""
    for result in results:
        yield result.item.name
        found = result.prediction
        if found is None:
            yield f"  cannot be used: {result.rejected}"
            continue
        if found.source == "rolled up":
            yield f"  {found.score:6.1%}  {found.rank} {found.name}; the species is not sure:"
        elif found.source == "not sure":
            yield "  not sure; the most likely are"
        if found.unknown:
            yield "  the photo is unlike those that the classifier knows: it may be none of these"
        for answer in found.answers:
            yield f"  {answer.score:6.1%}  {answer.taxon.label}"
