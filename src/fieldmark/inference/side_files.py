"""What `predict` writes for single photos: XMP sidecars, and copies that show no people and no place.

https://developer.adobe.com/xmp/docs (XMP, with `dc:subject` and Lightroom's `lr:hierarchicalSubject`).
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path, PurePosixPath

from fieldmark import __version__
from fieldmark.data import images
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Place
from fieldmark.data.taxonomy import NO_ANIMAL, RANKS
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.record import Record
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError

logger = logging.getLogger(__name__)

BESIDE = "beside"
"""In place of a folder: each sidecar is written beside its photo."""
_OURS = b'x:xmptk="fieldmark '
_PEOPLE = 0.1  # from this confidence on a box of a person is blurred: rather one too many


def write_sidecars(records: Iterable[Record], photos: Sequence[InputPhoto], where: str) -> int:
    """Write `PHOTO.xmp` for each photo with an answer: its names as keywords, and with their ranks.

    A sidecar that another program has written is left.

    Args:
        records: of the photos or their boxes.
        photos: of the records.
        where: `beside`, or a folder.

    Returns:
        How many were written.

    Raises:
        InputError: one could not be written.
    """
    at, short = _places_of(photos), _short_names(photos)
    found = {name: rows for name, rows in _by_photo(records, at).items() if _subjects(rows)}
    left = elsewhere = 0
    for name, rows in found.items():
        photo = at[name]
        if where == BESIDE and not isinstance(photo, Path):
            elsewhere += 1
            continue
        target = Path(where, short[name]) if where != BESIDE else Path(str(photo))
        target = target.with_name(f"{target.name}.xmp")
        if target.exists() and _OURS not in target.read_bytes()[:500]:
            left += 1
        else:
            io.write_bytes(target, _xmp(_subjects(rows)).encode(), durable=False)
    if left:
        logger.warning(f"{left:,} XMP files of other programs are left: name a folder with --xmp.")
    if elsewhere:
        logger.warning(f"{elsewhere:,} photos are in no folder of their own: name one with --xmp.")
    return len(found) - left - elsewhere


def _by_photo(records: Iterable[Record], known: Container[str]) -> dict[str, list[Record]]:
    """Return the records of each photo; a file of answers may have those of other photos too."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["file_name"] in known:
            found[record["file_name"]].append(record)
    return found


def _places_of(photos: Iterable[InputPhoto]) -> dict[str, Place]:
    return {each.name: places.photo_of(each.path) for each in photos}


def _short_names(photos: Iterable[InputPhoto]) -> dict[str, PurePosixPath]:
    """Return the names without the folder that all are in, and without steps upwards."""
    parts = {each.name: each.name.replace("\\", "/").split("/") for each in photos}
    front = len(os.path.commonprefix([each[:-1] for each in parts.values()]))  # noqa: RUF071  # of parts
    return {
        name: PurePosixPath(*(part.replace(":", "_") for part in each[front:] if part not in ("", "..")))
        for name, each in parts.items()
    }


def _subjects(records: Iterable[Record]) -> dict[str, str]:
    """Return the names of a photo, and the names of their ranks from kingdom down, with `|` between."""
    found = {}
    for record in records:
        if name := record.get("kind") or record.get("name"):
            ranks = record.get("ranks", {})
            found[name] = "|".join([ranks[rank] for rank in RANKS if rank in ranks] or [name])
    return found


def _xmp(subjects: Mapping[str, str]) -> str:
    def bag(name: str, values: Iterable[str]) -> str:
        items = "".join(f"<rdf:li>{escape(value)}</rdf:li>" for value in values)
        return f"   <{name}><rdf:Bag>{items}</rdf:Bag></{name}>\n"

    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="fieldmark {__version__}">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
        '    xmlns:lr="http://ns.adobe.com/lightroom/1.0/">\n'
        f"{bag('dc:subject', subjects)}{bag('lr:hierarchicalSubject', subjects.values())}"
        '  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>\n'
    )


def write_copies(records: Iterable[Record], photos: Sequence[InputPhoto], folder: Path) -> int:
    """Write a copy of each photo whose boxes are known, see `images.without_people`.

    Args:
        records: of the photos or their boxes.
        photos: of the records, with their boxes.
        folder: to write to; photos that are not JPEG get `.jpg` at the end of their name.

    Returns:
        How many were written; photos that cannot be read, or whose boxes are not known, are left out.

    Raises:
        InputError: a photo lies in the folder, or a copy could not be written.
    """
    at, short = _places_of(photos), _short_names(photos)
    here = folder.resolve()
    if inside := [p for p in at.values() if isinstance(p, Path) and p.resolve().is_relative_to(here)]:
        raise InputError(f"{folder} holds the photo {inside[0]}: name another folder with --copies.")
    found, written = _by_photo(records, at), 0
    for name, rows in found.items():
        shown = [box for row in rows for box in (row.get("detection"), *row.get("others", ())) if box]
        if not shown and not any("kind" in row for row in rows):
            continue  # it is not in the file of boxes
        people = [Box(left, top, width, height) for row in rows for left, top, width, height in _people(row)]
        target = folder / short[name]
        if target.suffix.lower() not in (".jpg", ".jpeg"):
            target = target.with_name(f"{target.name}.jpg")
        try:
            copy = images.without_people(places.read(at[name]), people)
        except ImageRejected:
            continue
        io.write_bytes(target, copy, durable=False)
        written += 1
    if written < len(found):
        logger.warning(
            f"{len(found) - written:,} of {len(found):,} photos have no copy: they cannot be read, or are "
            "not in the file of boxes."
        )
    return written


def _people(record: Record) -> list[list[float]]:
    """Return the boxes of people: also one that the classifier is sure shows a person."""
    own, others = record.get("detection"), record.get("others", ())
    found = [each for each in others if each["category"] == "human" and each["confidence"] >= _PEOPLE]
    named = record["labels"][0]["name"].lower() if record.get("sure") else ""
    if own and (own["category"] == "human" or NO_ANIMAL.get(named) == "human"):
        found.append(own)
    return [each["box"] for each in found]
