"""Publishing of output folders: one writer at a time, and always a whole folder, the old or the new.

A folder is built beside its place, as `.NAME.staging-…`, and exchanged with the old one in one step
(`renameat2`; where the system has no such call, by two renames, and the next command or load undoes the
first one if a kill came between). From start to end its writer holds the lock `.NAME.lock`, which the
operating system frees when the process ends, however it ends. The next writer removes what a killed one
left. Files in the old folder that fieldmark does not write are carried over. Work that writes results as
they are known (`Kind.in_place`) uses the lock alone.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(rf"\..+\.part|\.lock|\.writable|{io.TEMPORARY.pattern}")
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_LONGEST = 255 - len("..staging-12345678")  # bytes of a name
_claimed = threading.local()


@dataclass(frozen=True)
class Kind:
    """A kind of output folder."""

    what: str  # its name, for messages
    marker: str  # is in every finished one; such a folder may be written to again
    # Patterns of the other names that fieldmark writes into it, the one written first in front.
    owned: tuple[str, ...] = ()
    # Whether results are written into it as they are known, and not published at the end.
    in_place: bool = False

    def owns(self, name: str) -> bool:
        """Whether fieldmark writes a file or folder of this name."""
        known = (self.marker, *self.owned)
        return bool(_TEMPORARY.fullmatch(name)) or any(fnmatchcase(name, each) for each in known)

    def accepts(self, names: set[str]) -> bool:
        """Whether a folder with these names is new, of this kind, or what a killed writer left."""
        if not names or self.marker in names:
            return True
        first = replace(self, marker="", owned=self.owned[:1])
        return all(map(self.owns, names)) and any(map(first.owns, names))


@contextmanager
def claimed(out: Path, kind: Kind) -> Iterator[Path]:
    """Be the only writer of a folder for the length of the block; commands enter it before long work.

    Gives the folder, which need not be there yet, without symbolic links in its path.

    Raises:
        StoreError: another process or thread is writing it; the message says which.
        InputError: it is a file or a mount point, holds other things, or cannot be written to.
    """
    place = out.resolve()
    mine: set[Path] = _claimed.__dict__.setdefault("places", set())
    if place in mine:  # by a block around this one
        yield place
        return
    _check(out, place, kind)
    new = not place.exists()
    lock = place / ".lock" if kind.in_place else place.with_name(f".{place.name}.lock")
    try:
        with io.lock(lock, "--out", of=out):
            if not kind.in_place:
                _put_back(place)
                for left in _leftovers(place, "old|staging"):  # of killed writers; nobody else is writing
                    _discard(left, place, kind)
            _check(out, place, kind)  # again: another process may have written to it
            mine.add(place)
            yield place
    finally:
        mine.discard(place)
        if new and kind.in_place:
            with suppress(OSError):  # it holds results
                place.rmdir()


def _check(out: Path, place: Path, kind: Kind) -> None:
    """Refuse what cannot become a folder of results: it has other files, or cannot be written to."""
    why = ""
    if len(os.fsencode(place.name)) > _LONGEST:
        why = "has a name that is too long: name a folder"
    elif place.exists() and not place.is_dir():
        why = "is a file: name a folder"
    elif not kind.in_place and _is_mount_point(place):
        why = "is a mount point: name a folder in it"
    names = {path.name for path in place.iterdir()} - {".lock"} if not why and place.exists() else set()
    if not kind.accepts(names):
        why = "holds other files: name a new folder"
    if why:
        raise InputError(f"{out} {why} for the {kind.what} with --out.")
    if names and not os.access(place, os.W_OK):
        raise InputError(f"{out} cannot be written to: name another folder with --out.")


@contextmanager
def publishing(out: Path, kind: Kind) -> Iterator[Path]:
    """Give an empty folder to write to; on a clean exit it is synced and takes the place of `out`.

    Raises:
        StoreError: another process or thread is writing `out`; the message says which.
        InputError: as `claimed`, or the disk is full; `out` is then as it was.
    """
    with claimed(out, kind) as place:
        staging = place.with_name(f".{place.name}.staging-{secrets.token_hex(4)}")
        try:
            staging.mkdir()
            yield staging
            if unknown := [path.name for path in staging.iterdir() if not kind.owns(path.name)]:
                raise ValueError(f"{kind} does not own {unknown}: a later writer would keep them")
            if place.exists():
                shutil.copymode(place, staging)
                _carry(place, staging, kind)
            _sync(staging)
            _swap(staging, place)
        except io.disk_errors() as error:
            raise io.not_written(out, error, "name another folder with --out") from error
        except InputError as error:
            if str(staging) not in str(error):
                raise
            raise InputError(str(error).replace(str(staging), str(out))) from error
        finally:
            _put_back(place)
            _discard(staging, place, kind)


@contextmanager
def writing_file(path: Path, option: str) -> Iterator[None]:
    """Be the only writer of a file for the length of the block; `option` is what names another one.

    Raises:
        StoreError: another process is writing it; the message says which.
        InputError: the folder cannot be written to.
    """
    with io.lock(path.with_name(f".{path.name}.lock"), option, of=path):
        with suppress(OSError):  # what a killed writer left; see `io.replacing`
            for left in path.parent.iterdir():
                if re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part", left.name):
                    left.unlink()
        yield


def restore(out: Path) -> None:
    """Put a folder back that a kill took away between two renames; for readers."""
    place = out.resolve()
    if not place.exists() and _leftovers(place, "old"):
        with io.lock(place.with_name(f".{place.name}.lock"), "--out", of=out):
            _put_back(place)


def digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file in a folder, by its name."""
    return {path.name: io.file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()}


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _is_mount_point(place: Path) -> bool:
    """Whether a folder is a mount point, also one of the same file system."""
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        escaped = re.sub(rb"[ \t\n\\]", lambda char: b"\\%03o" % ord(char[0]), os.fsencode(place))
        if any(line.split()[4] == escaped for line in lines):
            return True
    return os.path.ismount(place)


def _leftovers(place: Path, sort: str) -> list[Path]:
    """Hidden folders that a writer of `place` left beside it: `old` or `staging` ones."""
    name = re.compile(rf"\.{re.escape(place.name)}\.({sort})-[0-9a-f]{{8}}")
    with suppress(OSError):  # there is no such parent, or it cannot be read
        return sorted(path for path in place.parent.iterdir() if name.fullmatch(path.name))
    return []


def _put_back(place: Path) -> None:
    if not place.exists() and (old := _leftovers(place, "old")):
        old[0].rename(place)


def _discard(left: Path, place: Path, kind: Kind) -> None:
    """Remove a folder, but for what the user has put into it since its files were carried over."""
    with suppress(OSError):  # then the next writer does it
        if left.exists() and place.exists():
            _carry(left, place, kind)
        shutil.rmtree(left, ignore_errors=True)


def _carry(old: Path, new: Path, kind: Kind | None) -> None:
    """Link the files that fieldmark does not write into another folder, where they are not there yet."""
    for path in old.iterdir():
        target = new / path.name
        if kind and kind.owns(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            target.mkdir(exist_ok=True)
            shutil.copystat(path, target)
            _carry(path, target, None)
        elif not os.path.lexists(target):
            link(path, target)


def _sync(folder: Path) -> None:
    """Wait until a folder, with all that is in it, is on the disk."""
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if stat.S_ISREG(path.lstat().st_mode) and os.access(path, os.R_OK):
                io.sync(path)
        io.sync(Path(root))


def _swap(staging: Path, place: Path) -> None:
    """Put a folder in its place; what was there is then in `staging`."""
    inside = False
    with suppress(OSError):  # there is no old folder, or this process stands in one that is gone
        inside = place.samefile(Path.cwd())
    if not place.exists():
        staging.rename(place)
    elif not _exchange(staging, place):
        old = place.with_name(f".{place.name}.old-{secrets.token_hex(4)}")
        place.rename(old)
        staging.rename(place)
        old.rename(staging)
    io.sync(place.parent)
    if inside:  # this process stands in the old folder, and so does the shell that started it
        os.chdir(place)
        logger.info(f"{place} is a new folder: a shell in it must go there again (cd .).")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    at_cwd, exchange = -100, 2
    if call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
        return True
    if (code := ctypes.get_errno()) in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
