"""A file of answers that a later run goes on with: what was named is kept in a journal beside it."""

from __future__ import annotations

import json
import logging
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from fieldmark import __version__
from fieldmark.data.storage import places
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.events import event_records
from fieldmark.inference.formats import FormatOptions, writer_of
from fieldmark.inference.formats.table import check_sheet
from fieldmark.inference.inputs import Boxes, InputPhoto
from fieldmark.inference.predictor import (
    BATCH,
    PhotoResult,
    PredictFunction,
    RejectedCounter,
    predict,
    with_progress,
)
from fieldmark.inference.record import Record, key_of, to_record
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_JOURNAL = "fieldmark-journal-4"
_WRITTEN = "written"  # a line of the journal: the digests of the files that were made from it, by name


class Output:
    """A file of answers, and beside it `FILE.journal`, a line with a checksum for each photo that was named.

    The journal is added to batch by batch and reaches the disk before the next batch, so that a kill
    costs one batch at most; a later run with the same classifier and options goes on from it. The
    file itself is made from the journal at the end, whole or not at all, and its digest is added to the
    journal: a file that was edited since is not written over, unless `overwrite` is set.
    """

    def __init__(
        self,
        path: Path,
        classifier: Classifier,
        *,
        top: int,
        wide: bool,
        candidates: bool = False,
        overwrite: bool = False,
        boxes: Boxes | None = None,
        gap: float | None = None,
        deployments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self._writer = writer_of(path, wide=wide, candidates=candidates)
        by = f"fieldmark {__version__} {classifier.digest[:12]}"
        threshold = boxes.threshold if boxes else None
        self.path, events = path, gap is not None
        self._form = FormatOptions(
            classifier.taxonomy, wide, candidates, by, threshold, events=events, deployments=deployments
        )
        self.journal, self._overwrite = _journal_of(path), overwrite
        self.check_own()
        about = {"format": _JOURNAL, "model": classifier.digest, "top": top, "wide": wide}
        about |= {} if boxes is None else {"boxes": boxes.digest}
        self._about = json.dumps(about if gap is None else about | {"events": True})
        self._events = (
            None if gap is None else partial(event_records, classifier=classifier, top=top, gap=gap)
        )

    def check_own(self) -> None:
        """Raise InputError for a file that is there and is not as this journal says that it was written."""
        if self._overwrite:
            return
        kept = "deployments.csv" if self._form.deployments else ""  # what it says is in the new one
        for name in {self.path.name, *self._writer.beside} - {kept}:
            path, written = self.path.with_name(name), self._written(name)
            known = self.journal.exists() if self._writer.beside and path == self.path else False
            if not path.exists() or known or written[-1:] == [""] or io.file_digest(path) in written:
                continue
            why = "was changed since it was written" if written else "was not written by predict"
            raise InputError(
                f"{path} {why}, and is left as it is: name another file, such as {_free(self.path)}, or "
                "replace it with --overwrite."
            )

    def _written(self, name: str) -> list[str]:
        """Return the digests that a file was written with; "" for one that was begun."""
        return [digests[name] for digests in map(_digests_of, self._digest_lines()) if name in digests]

    def _digest_lines(self) -> list[bytes]:
        if not self.journal.exists():
            return []
        with self.journal.open("rb") as handle:
            return [raw for raw in handle if _digests_of(raw)]

    def left(self, items: Sequence[InputPhoto]) -> list[InputPhoto]:
        """The photos that are still to be named; those that could not be used are tried again.

        A photo that has changed since is named anew. What a kill tore, or the disk changed, is dropped.
        """
        where = {item.key: item.path for item in items}
        kept = {
            name: line
            for name, line, stamp in self._lines()
            if name not in where or stamp == places.stamp(where[name])
        }
        digests = (raw.decode().rstrip("\n") for raw in self._digest_lines())
        lines = (self._about, *digests, *kept.values())
        io.write_text(self.journal, "".join(f"{line}\n" for line in lines))
        if kept:
            logger.info(f"Going on: {len(kept):,} photos were named before ({self.journal.name})")
        once = {item.key: item for item in items}
        return [item for name, item in once.items() if name not in kept]

    def _lines(self) -> Iterator[tuple[str, str, Any]]:
        """Name, line and stamp of each photo that was named, if by this classifier."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as handle:
            if handle.readline() != f"{self._about}\n".encode():
                logger.info(f"{self.journal.name} is of other options: all photos are predicted again")
                return
            for raw in handle:
                value = _value(raw)
                if value and "entry" in value and "rejected" not in value["entry"]:
                    yield key_of(value["entry"]), raw.decode().rstrip("\n"), value["stamp"]

    def keep(self, results: Iterable[PhotoResult]) -> Iterator[PhotoResult]:
        """Write results down as they come, and pass them on."""
        among, waiting = len(self._form.taxonomy), list[str]()
        wide, timed = self._form.wide or self._form.events, self._form.events or self._writer.timed
        try:
            for result in results:
                value = to_record(result, among, wide=wide, timed=timed)
                line = {"stamp": places.stamp(result.photo.path), "entry": value}
                waiting.append(_line(line))
                if len(waiting) >= BATCH:
                    io.append_lines(self.journal, waiting)
                    waiting = []
                yield result
        finally:
            io.append_lines(self.journal, waiting)

    def finish(self) -> None:
        """Write the file from the journal."""
        records = records_of(self.path)
        with self.journal.open("rb") as handle:
            notes = any(b', "note": "' in raw for raw in handle)
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        form = replace(self._form, when=when, photos=records, notes=notes)
        self.check_own()
        rows = list(self._events(records)) if self._events else records
        if names := self._writer.beside:
            io.append_lines(self.journal, [_line({_WRITTEN: dict.fromkeys(names, "")})])
            self._writer.write(self.path, rows, form)
            digests = {name: io.file_digest(self.path.with_name(name)) for name in names}
            io.append_lines(self.journal, [_line({_WRITTEN: digests})])
            return
        # The digest is in the journal before the file has its name: a kill between the two costs nothing.
        with io.replacing(self.path) as temporary:
            self._writer.write(temporary, rows, form)
            written = {_WRITTEN: {self.path.name: io.file_digest(temporary)}}
            io.append_lines(self.journal, [_line(written)])


@dataclass(frozen=True)
class _Entries:
    """The records of a journal, read anew each time: there may be millions."""

    journal: Path

    def __iter__(self) -> Iterator[Record]:
        with self.journal.open("rb") as handle:
            next(handle)
            for raw in handle:
                if (value := _value(raw)) is None:
                    raise InputError(f"{self.journal} was changed: run the same command again; it resumes.")
                if "entry" in value:
                    yield value["entry"]


def _line(value: Mapping[str, Any]) -> str:
    """Return a line of a journal, without its end."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _digests_of(raw: bytes) -> Mapping[str, str]:
    """Return the digests in a line of a journal, by the names of files; none in another line."""
    found = _value(raw) if raw[9:].startswith(f'{{"{_WRITTEN}"'.encode()) else None
    return found[_WRITTEN] if found else {}


def _free(path: Path) -> Path:
    """Return the path of a file that is not there yet, with a number; for a package, in another folder."""
    if path.name == "datapackage.json":
        return _free(path.parent) / path.name
    stem, dot, suffix = path.name.partition(".")
    names = (path.with_name(f"{stem}-{number}{dot}{suffix}") for number in count(2))
    return next(each for each in names if not each.exists())


def _value(raw: bytes) -> dict[str, Any] | None:
    """Return what a line of a journal holds, or None where its checksum is not that of the rest."""
    checksum, _, text = raw.partition(b" ")
    if not raw.endswith(b"\n") or checksum != f"{zlib.crc32(text[:-1]):08x}".encode():
        return None
    value: dict[str, Any] = json.loads(text)
    return value


def records_of(path: Path) -> Iterable[Record]:
    """Return the records of photos and boxes that a file of answers was made from, by its journal."""
    return _Entries(_journal_of(path))


def _journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def to_file(
    path: Path,
    classifier: Classifier,
    items: Sequence[InputPhoto],
    *,
    top: int = 5,
    wide: bool = False,
    candidates: bool = False,
    overwrite: bool = False,
    name: PredictFunction = predict,
    boxes: Boxes | None = None,
    gap: float | None = None,
    deployments: Sequence[Mapping[str, str]] = (),
) -> int:
    """Name photos into a file, going on where an earlier run stopped; `name` is what names them, in order.

    `boxes` are those that they are cut to: with others a later run begins anew. With a `gap` the file has a
    row for each event: see `fieldmark.inference.events`. `deployments` are rows of a table, for Camtrap DP.
    With `candidates`, .csv and .xlsx have a row a label in place of a row a photo. A file that something else
    wrote, or that was edited since, stays as it is, unless `overwrite` is set.

    Returns:
        How many photos could not be used; each has a row with its reason.

    Raises:
        InputError: the file's name has no known suffix, it cannot be written, or it is another one.
        StoreError: another process writes it.
    """
    form = {"wide": wide, "candidates": candidates, "overwrite": overwrite}
    output = Output(path, classifier, top=top, **form, boxes=boxes, gap=gap, deployments=deployments)
    if path.suffix == ".xlsx":
        check_sheet(len(items))
    with publishing.writing_file(path, "--out"):
        left = output.left(items)
        counted = RejectedCounter(with_progress(name(classifier, left, top), len(left)))
        deque(output.keep(counted), maxlen=0)
        output.finish()
    return counted.rejected
