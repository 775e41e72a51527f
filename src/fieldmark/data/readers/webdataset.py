"""WebDataset: tars whose members share a name up to the first dot (`0001.jpg`, `0001.cls`, `0001.json`).

One tar, or a folder of shards, local or remote. A photo is addressed by the position of its bytes in the
tar, so that one seek reads it; no member is unpacked, and no member's name is used as a path. The
`webdataset` library does not give positions; Python's `tarfile` does.

A label is the text of `.cls`, else `label`, `class`, `species` or `name` of `.json`, else the text of
`.txt`. A number is a line of `classnames.txt` in the folder of the tars, if that exists.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import tabular
from fieldmark.data.readers.base import Reader, folder_of, may_be_image, part_of_shard
from fieldmark.data.readers.inat import annotation_files
from fieldmark.data.storage import fsspec, places
from fieldmark.data.storage.fsspec import Remote
from fieldmark.data.storage.places import File
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.logging import progress_bar

_EXPECTS = "WebDataset shards (a .tar, or a folder of them)"
_NOTES = ("txt", "json", "cls")
"""Members with a label, in increasing priority; `.label.cls` is the same as `.cls`."""
_FIELDS: dict[str, tuple[str, ...]] = {
    "label": ("label", "class", "cls", "species", "scientific_name", "name"),
    "group": ("group", "seq_id", "observation_id", "observation_uuid", "deployment", "location"),
    "licence": ("licence", "license"),
    "rights_holder": ("rights_holder", "rightsHolder", "attribution", "author"),
}
"""Fields of `.json` for each column; the first that exists is read."""
_NOTE_BYTES = 1024 * 1024


def shards_in(path: Path) -> list[Path]:
    """Return the tars of a folder, sorted, or the path itself.

    With folders or annotation files beside it, a tar is their archive and not a shard.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    if annotation_files(path) or any(p.is_dir() for p in path.iterdir()):
        return []
    return sorted(p for p in path.iterdir() if p.suffix.lower() == ".tar" and p.is_file())


def _read(path: Path) -> PhotoTable:
    shards = shards_in(path)
    if not shards:
        raise InputError(f"{path} has no tar: expected are {_EXPECTS}.")
    return read_shards([(shard, shard.name) for shard in shards], path)


def read_shards(shards: Sequence[tuple[File, str]], path: Path) -> PhotoTable:
    """List the photos of some tars, each given with its name below their folder.

    The names of numbered classes are searched in the folder of `path`, also for remote tars.
    """
    root = folder_of(path)
    names = _class_names(root)
    found: list[dict[str, str | None]] = []
    with progress_bar("Reading shards", len(shards), unit="shards") as bar:
        for shard, name in shards:
            found += _photos(shard, name, names)
            bar.advance()
    frame = pl.DataFrame(found, schema=dict.fromkeys(tabular.COLUMNS, pl.String))
    return tabular.to_photo_table(frame, path, root, READER.name)


def _photos(shard: File, name: str, names: list[str]) -> Iterator[dict[str, str | None]]:
    """Yield one row a photo, with the values of the notes of the same key."""
    part = part_of_shard(name)
    for key, members in _samples(shard):
        notes: dict[str, Any] = {}
        said = sorted(
            (_NOTES.index(note), -len(suffix), suffix, text)
            for suffix, (_, text) in members.items()
            if text is not None and (note := _note_of(suffix))
        )
        for rank, _, suffix, text in said:
            notes |= _parse_note(_NOTES[rank], text, f"{shard}: {key}.{suffix}")
        label = notes.get("label")
        if label is not None and label.isdecimal() and int(label) < len(names):
            label = names[int(label)]
        for suffix, (member, _) in members.items():
            if suffix and may_be_image(f"{key}.{suffix}"):
                yield {
                    **notes,
                    "id": f"{name}/{key}.{suffix}",
                    "file_name": places.member_text(name, member.offset_data, member.size),
                    "label": label,
                    "split": part,
                    "reason": None if member.isreg() else RejectReason.OUTSIDE.value,  # a link
                }


def _samples(shard: File) -> Iterator[tuple[str, dict[str, tuple[tarfile.TarInfo, str | None]]]]:
    """Yield the members of each key by suffix, in the order of the tar, the notes with their text."""
    for key, members in groupby(_members(shard), lambda found: _key_and_suffix(found[0])[0]):
        yield key, {_key_and_suffix(member)[1]: (member, text) for member, text in members}


def _key_and_suffix(member: tarfile.TarInfo) -> tuple[str, str]:
    folder, _, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _members(shard: File) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Yield the members of a tar, the notes with their text; `InputError` for an incomplete one."""
    try:
        with (
            fsspec.open_file(shard) if isinstance(shard, Remote) else shard.open("rb") as handle,
            tarfile.open(fileobj=handle, mode="r:") as archive,
        ):
            size = fsspec.size(shard) if isinstance(shard, Remote) else shard.stat().st_size
            for member in archive:
                if member.isdir() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if member.isreg() and member.offset_data + member.size > size:
                    raise tarfile.ReadError("it ends within a member")
                yield member, _note(archive, member, shard)
            if archive.offset > size - 512:
                raise tarfile.ReadError("it has no end marker, so something may be missing")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{shard} is not a complete tar ({error}): download it again; decompress a compressed one first."
        ) from error


def _note(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: File) -> str | None:
    if not member.isreg() or not _note_of(_key_and_suffix(member)[1]):
        return None
    if member.size > _NOTE_BYTES:
        much = f"{member.size:,} bytes, too many for a label: at most {_NOTE_BYTES:,} are allowed"
        raise InputError(f"{shard}: {member.name} in it has {much}.")
    source = archive.extractfile(member)
    try:
        return source.read().decode("utf-8-sig") if source else None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shard}: {member.name} in it is not UTF-8 text ({error.reason} at byte "
            f"{error.start}): write the shard again with its labels in UTF-8."
        ) from error


def _note_of(suffix: str) -> str | None:
    """Return the kind of note of a suffix; None for one without a label, such as `.caption.txt`."""
    if suffix in _NOTES:
        return suffix
    return "cls" if suffix.endswith(".cls") else None


def _parse_note(suffix: str, text: str, where: str) -> dict[str, str]:
    """Parse a note to the columns of a list."""
    if suffix != "json":
        return {"label": text.strip()} if text.strip() else {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON ({error}): write the shard again.") from error
    if not isinstance(value, dict):
        return {}
    plain = {k: str(v) for k, v in value.items() if isinstance(v, (str, int)) and str(v).strip()}
    found = {name: plain[name] for name in tabular.TAXON_COLUMNS if name in plain}
    for column, fields in _FIELDS.items():
        found |= next(({column: plain[each]} for each in fields if each in plain), {})
    return found


def _class_names(root: Path) -> list[str]:
    """Read the names of numbered classes, one a line; none without such a file."""
    path = root / "classnames.txt"
    try:
        return path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} could not be read as UTF-8 text ({error}).") from error


READER = Reader("webdataset", _EXPECTS, shards_in, _read)
