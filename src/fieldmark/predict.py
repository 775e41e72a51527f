"""`fieldmark predict`: a classifier and photos in; labels sorted by confidence out.

PyTorch is not imported here: a converted graph runs without it, so that one photo is answered at once.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldmark import files, images, progress
from fieldmark.classifier import Classifier, Prediction
from fieldmark.crops import Crop
from fieldmark.errors import ImageRejected, InputError, RejectReason

_BATCH = 32
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "mpo", "png", "gif", "webp", "bmp", "tif", "tiff"),
        *("ppm", "pgm", "pnm", "avif"),
    )
)


@dataclass(frozen=True)
class Item:
    """One photo to name: what to call it in the output, where it lies, its id in an annotation file."""

    name: str
    path: Path
    id: str | None = None


@dataclass(frozen=True)
class Named:
    """What came of one photo: a prediction, or the reason why there is none."""

    item: Item
    prediction: Prediction | None
    rejected: ImageRejected | None = None


Results = Iterator[Named]


def items_of(arguments: Sequence[Path]) -> list[Item]:
    """The photos that the arguments stand for: files, folders, and annotation files without labels.

    Raises:
        InputError: an argument is not there, or a folder holds no photo.
    """
    found: list[Item] = []
    for argument in arguments:
        if argument.name.endswith((".json", ".json.gz")):
            found += _annotated(argument)
        elif argument.is_dir():
            found += _in_folder(argument)
        elif argument.exists():
            found.append(Item(_shown(argument), argument))
        else:
            raise InputError(
                f"{argument} is not there: name a photo, a folder or an annotation file."
            )
    return found


def _in_folder(folder: Path) -> list[Item]:
    paths = [
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not paths:
        raise InputError(
            f"{folder} holds no photo: name a folder with JPEG, PNG or other pictures."
        )
    return [Item(_shown(path), path) for path in sorted(paths)]


def _shown(path: Path) -> str:
    """A path as text that can be printed: bytes that are not valid Unicode are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _annotated(path: Path) -> list[Item]:
    from fieldmark import sources

    table = sources.read(path, source="inat", verify=False)
    return [
        Item(name, table.file_of(name), photo_id)
        for photo_id, name, reason in table.frame.select("id", "path", "reason").iter_rows()
        if reason != RejectReason.DUPLICATE_ID  # the photo whose id it is has a row
    ]


def predict(classifier: Classifier, items: Sequence[Item], top: int = 5) -> Iterator[Named]:
    """Name each photo, in order; a photo that cannot be used gives its reason and stops nothing."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(_crop, classifier, item) for item in items[: 2 * _BATCH]]
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            crops = [future.result() for future in waiting[: len(batch)]]
            ahead = items[start + 2 * _BATCH : start + 3 * _BATCH]
            waiting = waiting[len(batch) :] + [pool.submit(_crop, classifier, i) for i in ahead]
            yield from _name(classifier, batch, crops, top)


def _crop(classifier: Classifier, item: Item) -> Crop | ImageRejected:
    try:
        return classifier.preprocess.crop(images.read_bytes(item.path))
    except ImageRejected as error:
        return error


def _name(
    classifier: Classifier, batch: Sequence[Item], crops: Sequence[Crop | ImageRejected], top: int
) -> Iterator[Named]:
    good = [crop for crop in crops if not isinstance(crop, ImageRejected)]
    scores = iter(classifier.scores(np.stack(good))) if good else iter(())
    for item, crop in zip(batch, crops, strict=True):
        if isinstance(crop, ImageRejected):
            yield Named(item, None, crop)
        else:
            yield Named(item, classifier.rank(next(scores), top))


def with_progress(results: Iterable[Named], total: int) -> Iterator[Named]:
    """The same results, with a bar where there are many."""
    if total <= _BATCH:
        yield from results
        return
    with progress.stage("naming", total) as stage:
        for result in results:
            stage.advance()
            yield result


def as_text(results: Iterable[Named]) -> Iterator[str]:
    """For the terminal: a block a photo, the labels with their scores, "not sure" said plainly."""
    for result in results:
        yield result.item.name
        if result.prediction is None:
            yield f"  cannot be used: {result.rejected}"
            continue
        if not result.prediction.sure:
            yield "  not sure; the most likely are"
        for answer in result.prediction.answers:
            yield f"  {answer.score:6.1%}  {answer.taxon.label}"


def as_csv(results: Iterable[Named]) -> Iterator[str]:
    """CSV: a row for each label of each photo, sorted by confidence; a bad photo is a row as well."""
    yield _csv_line(
        ["file_name", "rank", "taxon_id", "name", "common_name", "score", "sure", "rejected"]
    )
    for result in results:
        name = result.item.name
        if result.prediction is None:
            assert result.rejected is not None
            yield _csv_line([name, "", "", "", "", "", "", result.rejected.reason.value])
            continue
        for number, answer in enumerate(result.prediction.answers, start=1):
            taxon = answer.taxon
            sure = str(result.prediction.sure).lower() if number == 1 else ""
            score = f"{answer.score:.6f}"
            yield _csv_line(
                [name, number, taxon.id, taxon.name, taxon.common_name, score, sure, ""]
            )


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    # The module quotes what holds a character of the line's end, so it has to be told of both.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n")


def as_json_lines(results: Iterable[Named]) -> Iterator[str]:
    """JSON lines: an object a photo, with its labels sorted by confidence."""
    for result in results:
        value: dict[str, object] = {"file_name": result.item.name}
        if result.item.id is not None:
            value["id"] = result.item.id
        if result.prediction is None:
            assert result.rejected is not None
            value["rejected"] = result.rejected.reason.value
        else:
            value["sure"] = result.prediction.sure
            value["labels"] = [
                {
                    "taxon_id": answer.taxon.id,
                    "name": answer.taxon.name,
                    "common_name": answer.taxon.common_name,
                    "score": round(answer.score, 6),
                }
                for answer in result.prediction.answers
            ]
        yield json.dumps(value, ensure_ascii=False)


FORMATS = {"text": as_text, "csv": as_csv, "jsonl": as_json_lines}


def check_submission(items: Iterable[Item]) -> None:
    """Before any work: whether the photos are such that a submission can be written.

    Raises:
        InputError: a photo has no image id, since it does not come from an annotation file, or two
            have the same.
    """
    seen: set[str] = set()
    for item in items:
        if item.id is None:
            raise InputError(
                f"{item.name} has no image id: --submission needs an annotation file such as "
                "test2019.json as PHOTO."
            )
        if item.id in seen:
            raise InputError(
                f"{item.name} has the image id {item.id} of another photo: name annotation files "
                "that list each image once."
            )
        seen.add(item.id)


def write_submission(path: Path, results: Sequence[Named], classifier: Classifier) -> None:
    """Write the challenge's `id,predicted` file, one row for each image id.

    A photo that cannot be used still needs a row; it gets the first class, and this is said.

    Raises:
        InputError: see `check_submission`; or the file cannot be written.
    """
    check_submission(result.item for result in results)
    lines = ["id,predicted"]
    for result in results:
        if result.prediction is None:
            progress.say(f"{result.item.name}: {result.rejected}; its row is the first class")
            best = classifier.taxa[0].id
        else:
            best = result.prediction.best.taxon.id
        lines.append(f"{result.item.id},{best}")
    files.write_text(path, "\n".join(lines) + "\n")
