"""`fieldmark predict`: a classifier and photos in; labels sorted by confidence out.

PyTorch is not imported here: a converted graph runs without it, so that one photo is answered at once.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import files, images, progress
from fieldmark.classifier import Classifier, Prediction
from fieldmark.crops import Crop
from fieldmark.errors import ImageRejected, InputError, RejectReason
from fieldmark.taxonomy import RANKS, Taxon, Taxonomy

_BATCH = 32
_ROWS = 50_000  # of a table that are held as Python's values at once
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
    """What came of one photo: a prediction, or the reason why there is none.

    `scores` are the probabilities of all labels, shape (C,).
    """

    item: Item
    prediction: Prediction | None
    rejected: ImageRejected | None = None
    scores: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


Results = Iterator[Named]


def items_of(arguments: Sequence[Path]) -> list[Item]:
    """The photos that the arguments stand for: files, folders, patterns (`photos/**/*.jpg`), lists
    (`@list.txt`, `-` for standard input), and annotation files without labels.

    Raises:
        InputError: an argument is not there, or a folder or pattern holds no photo.
    """
    found: list[Item] = []
    for argument in arguments:
        if str(argument) == "-" or (str(argument).startswith("@") and not argument.exists()):
            found += listed("-" if str(argument) == "-" else str(argument)[1:])
        elif argument.name.endswith((".json", ".json.gz")):
            found += _annotated(argument)
        elif argument.is_dir():
            found += _in_folder(argument)
        elif argument.exists():
            found.append(Item(_shown(argument), argument))
        elif any(character in str(argument) for character in "*?["):
            found += _matching(str(argument))
        else:
            raise InputError(
                f"{argument} is not there: name a photo, a folder or an annotation file."
            )
    return found


def listed(name: str) -> list[Item]:
    """The photos of a list: a path a line, or with zero bytes between them; `-` is standard input.

    A path of the list that is not there becomes a row that says so. Folders are gone through.

    Raises:
        InputError: the list cannot be read, or names nothing.
    """
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{name} could not be read ({error.strerror or error}): name a text file with a path "
            "a line."
        ) from error
    lines = raw.split(b"\0") if b"\0" in raw else raw.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        where = "Standard input" if name == "-" else name
        raise InputError(f"{where} names no photo: a list has a path a line.")
    found: list[Item] = []
    for path in paths:
        found += _in_folder(path) if path.is_dir() else [Item(_shown(path), path)]
    return found


def species_in(path: Path) -> list[str]:
    """The names in a text file, one a line; empty lines and those that begin with # do not count.

    Raises:
        InputError: the file cannot be read as UTF-8, or names nothing.
    """
    try:
        found = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} could not be read as a UTF-8 text: {error}.") from error
    names = [line.strip() for line in found if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise InputError(f"{path} names no species: write one a line.")
    return names


def _matching(pattern: str) -> list[Item]:
    """Photos and folders that match a pattern; `**` goes through folders by itself."""
    found: list[Item] = []
    for path in sorted(map(Path, glob.glob(pattern, recursive=True))):  # noqa: PTH207  # also absolute ones
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            found.append(Item(_shown(path), path))
        elif path.is_dir() and "**" not in pattern:
            found += _in_folder(path)
    if not found:
        raise InputError(f"{pattern} matches no photo: name one with JPEG, PNG or other pictures.")
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
    outputs = zip(*classifier.outputs(np.stack(good)), strict=True) if good else iter(())
    for item, crop in zip(batch, crops, strict=True):
        if isinstance(crop, ImageRejected):
            yield Named(item, None, crop)
        else:
            p_C, energy = next(outputs)
            yield Named(item, classifier.rank(p_C, top, float(energy)), scores=p_C)


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


def entry(result: Named, among: int, *, wide: bool = False) -> dict[str, Any]:
    """What came of one photo as a JSON object; with `wide` with the scores of all labels.

    `among` is the number of labels that the scores are divided among.
    """
    value: dict[str, Any] = {"file_name": result.item.name}
    if result.item.id is not None:
        value["id"] = result.item.id
    found = result.prediction
    if found is None:
        assert result.rejected is not None
        return {**value, "rejected": result.rejected.reason.value}
    value |= {
        "source": found.source,
        "rank": found.rank,
        "name": found.name,
        "score": round(found.score, 6),
        "sure": found.sure,
        "unknown": found.unknown,
        "reason": found.reason,
        "among": among,
        "ranks": dict(found.rolled.ranks) if found.source == "rolled up" and found.rolled else {},
        "wider": [
            {"rank": one.rank, "name": one.name, "score": round(one.score, 6)}
            for one in found.wider
        ],
        "labels": [
            {
                "taxon_id": answer.taxon.id,
                "name": answer.taxon.name,
                "common_name": answer.taxon.common_name,
                "rank": answer.taxon.rank,
                "score": round(answer.score, 6),
            }
            for answer in found.answers
        ],
    }
    if wide and result.scores is not None:
        value["scores"] = [round(float(score), 6) for score in result.scores]
    return value


COLUMNS = (
    *("file_name", "kingdom", "phylum", "class", "order", "family", "genus"),
    *("species_epithet", "species", "common_name", "score", "rank", "source"),
    *("name", "taxon_id", "unknown", "among", "rejected"),
)
_WIDE = ("file_name", "score", "rank", "source", "name", "unknown", "among")


def columns(taxonomy: Taxonomy, *, wide: bool = False) -> tuple[str, ...]:
    """The columns of the table: of fixed names, or with `wide` one for each label as well."""
    if not wide:
        return COLUMNS
    names = [taxon.name for taxon in taxonomy]
    taken = {*_WIDE, "rejected"}
    own = (
        f"{taxon.name} ({taxon.id})"
        if names.count(taxon.name) > 1 or taxon.name in taken
        else taxon.name
        for taxon in taxonomy
    )
    return (*_WIDE, *own, "rejected")


def rows(value: Mapping[str, Any], taxonomy: Taxonomy, *, wide: bool = False) -> list[list[Any]]:
    """The rows of one photo's `entry`, in the order of `columns`; None where there is nothing.

    The first row is the answer given; the labels follow as candidates, sorted by confidence. With
    `wide` there is one row.
    """
    if wide:
        answer = [value.get(name) for name in _WIDE]
        scores = value.get("scores") or [None] * len(taxonomy)
        return [[*answer, *scores, value.get("rejected")]]
    if "rejected" in value:
        found = [{"rejected": value["rejected"]}]
    else:
        found = [] if value["sure"] else [_unsure(value)]
        for number, label in enumerate(value["labels"]):
            taxon = taxonomy[label["taxon_id"]]
            given = value["sure"] and number == 0
            source = "species" if given else "candidate"
            found.append({**_named(taxon), "score": label["score"], "source": source})
        for row in found:
            row |= {"among": value["among"], "unknown": value["unknown"]}
    return [
        [{**row, "file_name": value["file_name"]}.get(each) for each in COLUMNS] for row in found
    ]


def _unsure(value: Mapping[str, Any]) -> dict[str, Any]:
    """The row of an answer that is no label."""
    row = {**value["ranks"], "rank": value["rank"], "source": value["source"]}
    return row | ({"name": value["name"], "score": value["score"]} if value["name"] else {})


def _named(taxon: Taxon) -> dict[str, Any]:
    """The columns that say what a label is."""
    species = taxon.ranks.get("species") or (taxon.name if taxon.rank == "species" else None)
    genus, _, epithet = (species or "").partition(" ")
    return {
        **{rank: taxon.ranks.get(rank) for rank in RANKS},
        "species": species,
        "species_epithet": epithet if genus == taxon.ranks.get("genus") else None,
        "common_name": taxon.common_name or None,
        "rank": taxon.rank,
        "name": taxon.name,
        "taxon_id": taxon.id,
    }


def as_csv(
    entries: Iterable[Mapping[str, Any]], taxonomy: Taxonomy, *, wide: bool = False
) -> Iterator[str]:
    """CSV of entries, lines without their ends: `columns`, then the `rows` of each photo."""
    yield _csv_line(columns(taxonomy, wide=wide))
    for value in entries:
        for row in rows(value, taxonomy, wide=wide):
            yield _csv_line(["" if each is None else _plain(each) for each in row])


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    # The module quotes what holds a character of the line's end, so it has to be told of both.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n")


def as_json_lines(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """JSON lines: an object a photo, with its labels sorted by confidence."""
    for value in entries:
        yield json.dumps(value, ensure_ascii=False)


def lines(
    form: str, results: Iterable[Named], taxonomy: Taxonomy, *, wide: bool = False
) -> Iterator[str]:
    """What is printed of results: `text`, `csv` or `jsonl`."""
    if form == "text":
        return as_text(results)
    entries = (entry(result, len(taxonomy), wide=wide) for result in results)
    return as_csv(entries, taxonomy, wide=wide) if form == "csv" else as_json_lines(entries)


class Counted:
    """Results as they come; afterwards `rejected` is how many photos could not be used."""

    def __init__(self, results: Iterable[Named]) -> None:
        self._results = results
        self.rejected = 0

    def __iter__(self) -> Iterator[Named]:
        for result in self._results:
            self.rejected += result.prediction is None
            yield result


# A file that a later run goes on with


SUFFIXES_OUT = (".csv", ".jsonl", ".parquet")
_JOURNAL = "fieldmark-journal-1"


class Output:
    """A file of answers, and beside it `FILE.journal`, a line for each photo that was named.

    The journal is added to batch by batch and reaches the disk before the next batch, so that a kill
    costs one batch at most; a later run with the same classifier and options goes on from it. The
    file itself is made from the journal at the end, whole or not at all.
    """

    def __init__(self, path: Path, classifier: Classifier, *, top: int, wide: bool) -> None:
        """Raises InputError where `path` has no known suffix, or is a file of something else."""
        if path.suffix not in SUFFIXES_OUT:
            raise InputError(f"{path} should end in {', '.join(SUFFIXES_OUT[:-1])} or .parquet.")
        if wide and path.suffix == ".jsonl":
            raise InputError("--wide is a column a label, which JSON lines have not: use .csv.")
        self.path, self.taxonomy, self.wide = path, classifier.taxonomy, wide
        self.journal = path.with_name(f"{path.name}.journal")
        if path.exists() and not self.journal.exists():
            raise InputError(
                f"{path} exists and has no {self.journal.name} beside it to go on from: name "
                "another file, or delete it."
            )
        self._about = json.dumps(
            {"format": _JOURNAL, "model": classifier.digest, "top": top, "wide": wide}
        )

    def left(self, items: Sequence[Item]) -> list[Item]:
        """The photos that are still to be named; those that could not be used are tried again.

        A photo that has changed since is named anew. What a kill tore is dropped.
        """
        places = {item.name: item.path for item in items}
        kept = {
            name: line
            for name, line, stamp in self._lines()
            if name not in places or stamp == _stamp(places[name])
        }
        files.write_text(
            self.journal, "".join(f"{line}\n" for line in (self._about, *kept.values()))
        )
        if kept:
            progress.say(f"Going on: {len(kept):,} photos were named before ({self.journal.name})")
        once = {item.name: item for item in items}
        return [item for name, item in once.items() if name not in kept]

    def _lines(self) -> Iterator[tuple[str, str, Any]]:
        """Name, line and stamp of each photo that was named, if by this classifier."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as handle:
            if handle.readline() != f"{self._about}\n".encode():
                progress.say(f"{self.journal.name} is of another classifier or other options: anew")
                return
            for raw in handle:
                try:
                    value = json.loads(raw)
                    if raw.endswith(b"\n") and "rejected" not in value["entry"]:
                        yield value["entry"]["file_name"], raw.decode().rstrip("\n"), value["stamp"]
                except (ValueError, KeyError, TypeError):  # torn
                    continue

    def keep(self, results: Iterable[Named]) -> Iterator[Named]:
        """Write results down as they come, and pass them on."""
        waiting: list[str] = []
        try:
            for result in results:
                value = entry(result, len(self.taxonomy), wide=self.wide)
                line = {"stamp": _stamp(result.item.path), "entry": value}
                waiting.append(json.dumps(line, ensure_ascii=False))
                if len(waiting) >= _BATCH:
                    files.append_lines(self.journal, waiting)
                    waiting = []
                yield result
        finally:
            files.append_lines(self.journal, waiting)

    def _entries(self) -> Iterator[dict[str, Any]]:
        with self.journal.open("rb") as handle:
            next(handle)
            for raw in handle:
                yield json.loads(raw)["entry"]

    def finish(self) -> None:
        """Write the file from the journal."""
        entries = self._entries()
        if self.path.suffix == ".parquet":
            self._parquet(entries)
            return
        if self.path.suffix == ".csv":
            texts, end = as_csv(entries, self.taxonomy, wide=self.wide), "\r\n"
        else:
            texts, end = as_json_lines(entries), "\n"
        with files.replacing(self.path) as temporary, temporary.open("wb") as handle:
            handle.writelines(f"{text}{end}".encode() for text in texts)

    def _parquet(self, entries: Iterable[Mapping[str, Any]]) -> None:
        import polars as pl

        names = columns(self.taxonomy, wide=self.wide)
        special = {"score": pl.Float64, "among": pl.UInt32, "unknown": pl.Boolean}
        texts = dict.fromkeys((*COLUMNS, *_WIDE), pl.String)
        schema: dict[str, Any] = {
            name: {**texts, **special}.get(name, pl.Float64) for name in names
        }
        parts = [pl.DataFrame(schema=schema)]
        every = (row for value in entries for row in rows(value, self.taxonomy, wide=self.wide))
        while some := list(islice(every, _ROWS)):
            parts.append(pl.DataFrame(some, schema=schema, orient="row"))
        with files.replacing(self.path) as temporary:
            pl.concat(parts).write_parquet(temporary)


def to_file(
    path: Path, classifier: Classifier, items: Sequence[Item], *, top: int = 5, wide: bool = False
) -> int:
    """Name photos into a CSV, JSON lines or Parquet file, going on where an earlier run stopped.

    Returns:
        How many photos could not be used; each has a row with its reason.

    Raises:
        InputError: the file's name has no known suffix, it cannot be written, or it is another one.
        StoreError: another process writes it.
    """
    output = Output(path, classifier, top=top, wide=wide)
    with files.lock(path.with_name(f".{path.name}.lock")):
        left = output.left(items)
        counted = Counted(with_progress(predict(classifier, left, top), len(left)))
        for _ in output.keep(counted):
            pass
        output.finish()
    return counted.rejected


def _stamp(path: Path) -> list[int] | None:
    """What tells a changed file from an unchanged one: its size and time; None where it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


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
