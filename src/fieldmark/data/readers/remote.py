"""Read data behind a URL with the readers of local files.

The objects below a URL become local files of the same names: lists (annotations, tables) with their
content, everything else empty. So no photo is downloaded to be listed; the root of the table is the URL.
Tars are read in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import parquet, table, webdataset
from fieldmark.data.readers.base import Reader, folder_of, part_named
from fieldmark.data.storage import fsspec
from fieldmark.data.storage.fsspec import Remote
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar

_LISTS = frozenset((".json", ".jsonl", ".csv", ".tsv", ".xlsx", ".xml", ".txt", ".gz", ".parquet"))


def read(place: Remote, pick: Callable[[Path], Reader]) -> PhotoTable:
    """List the photos below a URL, or of the list that it names.

    Args:
        place: what the user named.
        pick: returns the reader of a path; raises `InputError` where none matches.

    Raises:
        InputError: it does not exist, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="fieldmark-") as temporary:
        here = Path(temporary)
        with _errors_about(here, place):
            named = not place.url.endswith("/") and PurePosixPath(place.name).suffix
            if not (named and fsspec.is_file(place)):
                if not _mirror(place, here):
                    raise InputError(
                        f"{place} has nothing that can be listed: check the URL, or name a list of photos."
                    )
                return _listed(pick(here), here, place)
            path = here / place.name
            _copy_list(place, path)
            if table.is_index(path):
                return PhotoTable.read(path)
            source = pick(path)
            if source.searches_folder:
                _mirror(place.parent, here)
            return _listed(source, path, place.parent)


@contextmanager
def _errors_about(here: Path, place: Remote) -> Iterator[None]:
    """Name the remote object in errors about its local copy."""
    try:
        yield
    except ImageRejected as error:
        raise InputError(f"{place} not found: name a folder of photos, or a list.") from error
    except InputError as error:
        root = place.parent if (here / place.name).is_file() else place
        text = str(error).replace(f"{here}/", f"{root.url.rstrip('/')}/")
        raise InputError(text.replace(str(here), root.url)) from error


def _listed(source: Reader, path: Path, root: Remote) -> PhotoTable:
    for module in (webdataset, parquet):
        if source is module.READER:
            names = [each.relative_to(folder_of(path)).as_posix() for each in module.shards_in(path)]
            found: PhotoTable = module.read_shards([(root / name, name) for name in names], path)
            return replace(found, root=root)
    return replace(source.read(path), root=root)


def _mirror(place: Remote, here: Path) -> int:
    """Create a local file for each object below a place; return how many there are."""
    with progress_bar(f"Listing {place}", unit="objects") as bar:
        found = fsspec.list_objects(place)
        for name in found:
            try:
                io.check_member(name)
            except ValueError:
                continue  # its path leads out of the folder
            path = here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if _is_list(name):
                _copy_list(place / name, path)
            elif not path.exists():
                path.touch()
            bar.advance()
    return len(found)


def _is_list(name: str) -> bool:
    """Return whether an object may be a list: by its suffix, at the top or in the folder of a part."""
    *folders, base = name.split("/")
    near = not folders or (len(folders) == 1 and (folders[0] == "data" or part_named(folders[0])))
    return bool(near) and PurePosixPath(base).suffix.lower() in _LISTS


def _copy_list(place: Remote, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        path.touch()
    elif not path.exists() and not (suffix == ".parquet" and _holds_pictures(place, path)):
        fsspec.download(place, path)


def _holds_pictures(place: Remote, path: Path) -> bool:
    """Return whether a Parquet file has photos, by its footer, which names the columns.

    A local file of its length with that footer only is left: enough to detect its layout.
    """
    size = fsspec.size(place)
    end = fsspec.read_range(place, max(0, size - 8), 8)
    if end[-4:] != b"PAR1":
        return False
    length = min(size, 8 + min(int.from_bytes(end[:4], "little"), fsspec.BLOCK))
    with path.open("wb") as handle:
        handle.seek(size - length)
        handle.write(fsspec.read_range(place, size - length, length))
    return parquet.bytes_column(path) is not None
