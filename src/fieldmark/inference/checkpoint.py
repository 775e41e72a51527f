"""A file of answers that a later run goes on with: what was named is kept in a journal beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

from fieldmark import __version__
from fieldmark.inference import journal
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.clips import predict
from fieldmark.inference.events import event_records
from fieldmark.inference.formats import FormatOptions, writer_of
from fieldmark.inference.formats.sheets import check_sheet
from fieldmark.inference.inputs import Boxes, InputPhoto
from fieldmark.inference.journal import Journal
from fieldmark.inference.predictor import BATCH, PhotoResult, PredictFunction, RejectedCounter, with_progress
from fieldmark.inference.record import Record, in_frames, key_of, to_record
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import InputError

_JOURNAL = "fieldmark-journal-6"


class Output:
    """A file of answers, and beside it `FILE.journal`, a line with a checksum for each photo that was named.

    A later run with the same classifier and options goes on from it, see `fieldmark.inference.journal`.
    The file itself is made from the journal at the end, whole or not at all, and its digest is added to the
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
        clips: str = "",
        frames: bool = False,
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
        about |= {} if gap is None else {"events": True}
        about |= {"clips": clips} if clips else {}
        self._frames = frames
        self._journal: Journal[Record] = Journal(path, about, key_of, overwrite=overwrite)
        self._events = (
            None if gap is None else partial(event_records, classifier=classifier, top=top, gap=gap)
        )

    def check_own(self) -> None:
        """Raise InputError for a file that is there and is not as this journal says that it was written."""
        if self._overwrite:
            return
        kept = "deployments.csv" if self._form.deployments else ""  # what it says is in the new one
        for name in {self.path.name, *self._writer.beside} - {kept}:
            path, written = self.path.with_name(name), journal.written(self.journal, name)
            known = self.journal.exists() if self._writer.beside and path == self.path else False
            if not path.exists() or known or written[-1:] == [""] or io.file_digest(path) in written:
                continue
            why = "was changed since it was written" if written else "was not written by predict"
            raise InputError(
                f"{path} {why}, and is left as it is: name another file, such as {_free(self.path)}, or "
                "replace it with --overwrite."
            )

    def left(self, items: Sequence[InputPhoto]) -> list[InputPhoto]:
        """The photos that are still to be named; those that could not be used are tried again.

        A photo that has changed since is named anew. What a kill tore, or the disk changed, is dropped.
        """
        kept = self._journal.resume({item.key: item.path for item in items})
        once = {item.key: item for item in items}
        return [item for name, item in once.items() if name not in kept]

    def keep(self, results: Iterable[PhotoResult]) -> Iterator[PhotoResult]:
        """Write results down as they come, and pass them on."""
        among, waiting = len(self._form.taxonomy), list[str]()
        wide, timed = self._form.wide or self._form.events, self._form.events or self._writer.timed
        try:
            for result in results:
                value = to_record(result, among, wide=wide, timed=timed)
                waiting.append(journal.line(result.photo.path, value))
                if len(waiting) >= BATCH or result.photo.sampling:  # a clip may be minutes of work
                    self._journal.add(waiting)
                    waiting = []
                yield result
        finally:
            self._journal.add(waiting)

    def finish(self) -> None:
        """Write the file from the journal."""
        records = records_of(self.path)
        notes, clips = (_is_in(self.journal, key) for key in (b', "note": "', b', "clip": {"rate": '))
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        form = replace(self._form, when=when, photos=records, notes=notes, clips=clips)
        rows: Iterable[Record] = _Frames(records) if self._frames else records
        self.check_own()
        rows = list(self._events(records)) if self._events else rows
        if names := self._writer.beside:
            journal.note_written(self.journal, dict.fromkeys(names, ""))
            self._writer.write(self.path, rows, form)
            digests = {name: io.file_digest(self.path.with_name(name)) for name in names}
            journal.note_written(self.journal, digests)
            return
        # The digest is in the journal before the file has its name: a kill between the two costs nothing.
        with io.replacing(self.path) as temporary:
            self._writer.write(temporary, rows, form)
            journal.note_written(self.journal, {self.path.name: io.file_digest(temporary)})


@dataclass(frozen=True)
class _Entries:
    """The records of a journal, read anew each time: there may be millions."""

    journal: Path

    def __iter__(self) -> Iterator[Record]:
        return journal.entries(self.journal)


@dataclass(frozen=True)
class _Frames:
    """The records of the frames of clips, and of photos, read anew each time."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Record]:
        return in_frames(self.records)


def _is_in(journal: Path, key: bytes) -> bool:
    with journal.open("rb") as handle:
        return any(key in raw for raw in handle)


def records_of(path: Path) -> Iterable[Record]:
    """Return the records of photos and boxes that a file of answers was made from, by its journal."""
    return _Entries(_journal_of(path))


def _journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def _free(path: Path) -> Path:
    """Return the path of a file that is not there yet, with a number; for a package, in another folder."""
    if path.name == "datapackage.json":
        return _free(path.parent) / path.name
    stem, dot, suffix = path.name.partition(".")
    names = (path.with_name(f"{stem}-{number}{dot}{suffix}") for number in count(2))
    return next(each for each in names if not each.exists())


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
    frames: bool = False,
) -> int:
    """Name photos into a file, going on where an earlier run stopped; `name` is what names them, in order.

    `boxes` are those that they are cut to: with others a later run begins anew. With a `gap` the file has a
    row for each event: see `fieldmark.inference.events`. `deployments` are rows of a table, for Camtrap DP.
    With `frames` there is a row for each frame of a clip, and not for the clip. With `candidates`, .csv and
    .xlsx have a row a label in place of a row a photo. A file that something else wrote, or that was edited
    since, stays as it is, unless `overwrite` is set.

    Returns:
        How many photos could not be used; each has a row with its reason.

    Raises:
        InputError: the file's name has no known suffix, it cannot be written, or it is another one.
        StoreError: another process writes it.
    """
    output = Output(
        path,
        classifier,
        top=top,
        wide=wide,
        candidates=candidates,
        overwrite=overwrite,
        boxes=boxes,
        gap=gap,
        deployments=deployments,
        clips=next((str(item.sampling) for item in items if item.sampling), ""),
        frames=frames,
    )
    if path.suffix == ".xlsx":
        check_sheet(len(items))
    with publishing.writing_file(path, "--out"):
        left = output.left(items)
        counted = RejectedCounter(with_progress(name(classifier, left, top), len(left)))
        deque(output.keep(counted), maxlen=0)
        output.finish()
    return counted.rejected
