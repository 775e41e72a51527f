"""What was computed for a file that is not written yet: a journal beside it, which a later run goes on with.

The journal is `FILE.journal`: a line about the options, then a line with a checksum for each photo. It is
added to batch by batch and reaches the disk before the next batch, so that a kill costs one batch at most.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from fieldmark.data.storage import places
from fieldmark.data.storage.places import Place
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_WRITTEN = b'{"written"'  # of a line with digests of the files that were made from the journal
E = TypeVar("E", bound=Mapping[str, Any])


class Journal(Generic[E]):
    """The entries of the photos of one file, JSON objects, as far as they are known.

    Args:
        output: the file that is made from them.
        about: what they depend on beside the photos: with other options all photos are begun anew.
        key: gives the name of the photo that an entry is of.
        what: is done with photos, for the messages.
        overwrite: whether the file may be replaced although it has no journal.

    Raises:
        InputError: the file exists, and has no journal to go on from.
    """

    def __init__(
        self,
        output: Path,
        about: Mapping[str, Any],
        key: Callable[[E], str],
        what: str = "predicted",
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = output.with_name(f"{output.name}.journal")
        if output.exists() and not self.path.exists() and not overwrite:
            raise InputError(
                f"{output} exists and has no {self.path.name} beside it to go on from: name "
                "another file, or delete it."
            )
        self._about, self._key, self._what = json.dumps(about), key, what

    def resume(self, where: Mapping[str, Place]) -> set[str]:
        """Drop the entries of photos that have changed since, and return the names of those that are known.

        Photos that could not be used are tried again. What a kill tore, or the disk changed, is dropped.
        """
        kept = {
            name: line
            for name, line, stamp in self._lines()
            if name not in where or stamp == places.stamp(where[name])
        }
        lines = (
            self._about,
            *(raw.decode().rstrip("\n") for raw in _written_lines(self.path)),
            *kept.values(),
        )
        io.write_text(self.path, "".join(f"{line}\n" for line in lines))
        if kept:
            logger.info(f"Going on: {len(kept):,} photos were {self._what} before ({self.path.name})")
        return {*kept}

    def _lines(self) -> Iterator[tuple[str, str, Any]]:
        """Name, line and stamp of each photo that is known, if by these options."""
        if not self.path.exists():
            return
        with self.path.open("rb") as handle:
            if handle.readline() != f"{self._about}\n".encode():
                logger.info(f"{self.path.name} is of other options: all photos are {self._what} again")
                return
            for raw in handle:
                value = _value(raw)
                if value and "entry" in value and "rejected" not in value["entry"]:
                    yield self._key(value["entry"]), raw.decode().rstrip("\n"), value["stamp"]

    def add(self, lines: Sequence[str]) -> None:
        """Add lines (see `line`) and wait until they are on the disk."""
        io.append_lines(self.path, lines)

    def offsets(self) -> dict[str, int]:
        """Return where the last entry of each photo begins, in bytes."""
        found, at = dict[str, int](), 0
        with self.path.open("rb") as handle:
            for raw in handle:
                if at and not raw[9:].startswith(_WRITTEN):
                    found[self._key(_entry(raw, self.path))] = at
                at += len(raw)
        return found

    def at(self, offsets: Sequence[int]) -> Iterator[E]:
        """Read the entries that begin at some bytes, in this order."""
        with self.path.open("rb") as handle:
            for offset in offsets:
                handle.seek(offset)
                yield _entry(handle.readline(), self.path)


def line(place: Place, entry: Mapping[str, Any]) -> str:
    """Return the line of a photo's entry, with its checksum."""
    return _line({"stamp": places.stamp(place), "entry": entry})


def written(journal: Path, name: str) -> list[str]:
    """Return the digests that a file was written with; "" for one that was begun."""
    found = (value["written"] for raw in _written_lines(journal) if (value := _value(raw)))
    return [digests[name] for digests in found if name in digests]


def note_written(journal: Path, digests: Mapping[str, str]) -> None:
    """Add the digests of the files that are made from a journal, by their names."""
    io.append_lines(journal, [_line({"written": digests})])


def _written_lines(journal: Path) -> list[bytes]:
    if not journal.exists():
        return []
    with journal.open("rb") as handle:
        return [raw for raw in handle if raw[9:].startswith(_WRITTEN) and _value(raw)]


def _line(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"{zlib.crc32(text.encode()):08x} {text}"


def entries(journal: Path) -> Iterator[Any]:
    """Read all entries of a journal in their order.

    Raises:
        InputError: it was changed.
    """
    with journal.open("rb") as handle:
        handle.readline()
        for raw in handle:
            if not raw[9:].startswith(_WRITTEN):
                yield _entry(raw, journal)


def _entry(raw: bytes, journal: Path) -> Any:
    if (value := _value(raw)) is None:
        raise InputError(f"{journal} was changed: run the same command again; it resumes.")
    return value["entry"]


def _value(raw: bytes) -> dict[str, Any] | None:
    """Return what a line of a journal holds, or None where its checksum is not that of the rest."""
    checksum, _, text = raw.partition(b" ")
    if not raw.endswith(b"\n") or checksum != f"{zlib.crc32(text[:-1]):08x}".encode():
        return None
    value: dict[str, Any] = json.loads(text)
    return value
