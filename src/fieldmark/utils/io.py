"""The only writer to disk: temporary file, fsync, rename; digests; locks.

A file written through this module is either wholly there or not there at all, whatever kills the process.
Data that is appended to (the feature store) keeps its own order of writes, described there.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.utils.errors import InputError, StoreError

if TYPE_CHECKING:
    import polars as pl


def cache_dir() -> Path:
    """Where features, converted graphs and measurements are kept between runs.

    `FIELDMARK_CACHE` names it; without it, the user's cache folder.
    """
    if named := os.environ.get("FIELDMARK_CACHE"):
        return Path(named).absolute()  # also for workers that stand elsewhere
    import platformdirs

    return platformdirs.user_cache_path("fieldmark", appauthor=False)


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """A digest of a JSON-like value that does not depend on the order of its keys: 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return sha256(text.encode())


def file_name(text: str) -> str:
    """The text with `_` for what a file's name cannot have on Windows: names of networks have `:`."""
    return re.sub(r'[<>:"/\\|?*]', "_", text)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in 64 hexadecimal digits; it is read block by block."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def disk_errors() -> tuple[type[Exception], ...]:
    """What is raised where a disk is full: safetensors has an exception of its own."""
    loaded = sys.modules.get("safetensors")
    return (OSError, loaded.SafetensorError) if loaded else (OSError,)


_WINDOWS = os.name == "nt"


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if _WINDOWS and path.is_dir():  # which cannot be opened there; NTFS keeps a journal of names
        return
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.part|\.tmp[0-9A-Za-z]{6}")
"""Names of temporary files: of `replacing`, and of safetensors beside the file that it writes."""

_OLD = 24 * 3600  # seconds
_looked_at: set[Path] = set()
_RATIO = 100  # the largest ratio of the unpacked size of a file in a zip to its packed one; more is a bomb


@contextmanager
def replacing(path: Path, *, durable: bool = True, seal: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it is synced and takes the place of `path`.

    Args:
        path: the file to write.
        durable: whether it also outlasts a power cut, which costs some milliseconds.
        seal: whether its digest is written beside it, for `is_sealed`.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path.parent)
        yield temporary
        temporary.chmod(0o644)  # some libraries make files that only their owner can read
        if durable:
            sync(temporary)
        if seal:
            write_text(_seal(path), file_digest(temporary))
        temporary.replace(path)
        if durable:
            sync(path.parent)
    except disk_errors() as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):  # nothing to remove, or no folder to remove it from
            temporary.unlink()


def _remove_left(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder; once in each process."""
    if folder in _looked_at:
        return
    _looked_at.add(folder)
    for each in folder.glob(".*"):
        with suppress(OSError):  # another process was faster, or it is another user's
            if TEMPORARY.fullmatch(each.name) and _is_old(each):
                each.unlink()


def _is_old(path: Path) -> bool:
    """Whether a file or folder was last written to so long ago that its writer cannot be at work."""
    return time.time() - path.stat().st_mtime > _OLD


def scratch() -> Path:
    """Make a private folder for temporary files, which goes when the process ends.

    Those of processes that were killed are removed.
    """
    for left in Path(tempfile.gettempdir()).glob("fieldmark-*-*"):
        with suppress(OSError):
            found = re.match(r"fieldmark-(\d+)-", left.name)
            if found and _is_old(left) and not _is_running(int(found[1])):
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"fieldmark-{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_running(process: int) -> bool:
    """Whether there is a process of this number; taken for granted on Windows, where asking would end it."""
    try:
        if not _WINDOWS:
            os.kill(process, 0)
    except OSError as error:  # PermissionError: it is another user's
        return not isinstance(error, ProcessLookupError)
    return True


def is_sealed(path: Path) -> bool:
    """Whether a file is there and has the digest that was written beside it; the disk may have changed it."""
    try:
        return _seal(path).read_text() == file_digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def settle(part: Path, path: Path) -> None:
    """Give a file that is whole and synced its name, so that a power cut does not lose it."""
    part.replace(path)
    sync(path.parent)


def write_bytes(path: Path, data: bytes, *, durable: bool = True, seal: bool = False) -> None:
    """Write a whole file, or nothing; see `replacing`."""
    with replacing(path, durable=durable, seal=seal) as temporary:
        temporary.write_bytes(data)


def write_table(path: Path, frame: pl.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write a table as a whole Parquet file, or nothing."""
    buffer = BytesIO()  # Polars reports what a disk refuses as an error of its own
    frame.write_parquet(buffer, metadata=metadata)
    write_bytes(path, buffer.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file, or nothing."""
    write_bytes(path, text.encode())


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a text file and wait until they are on the disk.

    A kill can leave a torn last line; whoever reads the file passes over what has no end of line.

    Raises:
        InputError: the file cannot be written to, or the disk is full.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as handle:
            handle.writelines(f"{line}\n" for line in lines)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise not_written(path, error) from error


def not_written(
    path: Path, error: Exception, elsewhere: str = "name another place to write to"
) -> InputError:
    """Return the error of a file or folder that could not be written: the disk is full, say."""
    why = getattr(error, "strerror", None) or error
    full = getattr(error, "errno", errno.ENOSPC) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return InputError(f"{path} could not be written ({why}): {'free some space or ' * full}{elsewhere}.")


def unzip(path: Path, limits: Mapping[str, int]) -> Path:
    """Take some files out of a zip, into a private folder that goes when the process ends.

    `limits` tells which files, and how many bytes each may have. They may lie in one folder of the zip; all
    other files are passed over. The names of the zip are never used as paths.

    Raises:
        InputError: it is no zip, is damaged or encrypted, or holds a link, a path that leads out of it, the
            same file twice, or one that is too large.
    """
    folder = scratch()
    try:
        with zipfile.ZipFile(path) as archive:
            for name, entry in _entries(archive, limits).items():
                with archive.open(entry) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a whole zip that can be used ({error}).") from error
    return folder


def check_member(name: str) -> None:
    """Raise ValueError for a path of a stranger's archive that leads out of a folder, on any system."""
    parts = name.split("/")
    if ".." in parts or parts[0] in ("", "~") or re.search(r"[\\:\0]", name):
        raise ValueError(f"it holds the path {name!r}, which leads out of it")


def _entries(archive: zipfile.ZipFile, limits: Mapping[str, int]) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip that are asked for, once all of its names are seen to be harmless."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        check_member(entry.filename)
        parts = entry.filename.split("/")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{entry.filename!r} in it is a link")
        name = parts[-1]
        if name not in limits or len(parts) > 2 or parts[0] == "__MACOSX":
            continue
        if name in found:
            raise ValueError(f"it holds {name} twice")
        if entry.flag_bits & 1:
            raise ValueError("it is encrypted")
        # A reader never gives more bytes than are declared.
        if entry.file_size > limits[name]:
            raise ValueError(f"{name} in it is too large: {entry.file_size:,} bytes")
        if entry.file_size > _RATIO * entry.compress_size + 2**20:
            raise ValueError(f"{name} in it unpacks to more than {_RATIO} times its size")
        found[name] = entry
    return found


def to_json(value: Any) -> str:
    """A value as indented JSON. NaN and infinity are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Any:
    """The value of a JSON text that fieldmark wrote."""
    return json.loads(text)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, or nothing."""
    write_text(path, to_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file; an InputError where it is not there, cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): write it anew.") from error


def sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, which are in a random order: equal runs, equal bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


@contextmanager
def lock(path: Path, option: str = "--cache", of: Path | None = None) -> Iterator[None]:
    """Hold an exclusive lock for the length of the block; the file says who holds it.

    The operating system gives it back when the process ends, however it ends.

    Args:
        path: the file of the lock.
        option: what names another place, for the message.
        of: what is locked, for the message; None: the folder of `path`.

    Raises:
        StoreError: another process or thread holds it.
        InputError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    held = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0.2)  # where it is released right now
        _write_holder(path)
    except Timeout as error:
        raise StoreError(
            f"{of or path.parent} is in use by another fieldmark{_holder(path)}: wait until it has "
            f"finished, or name another place with {option}."
        ) from error
    except OSError as error:
        held.release()
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror or error}): name another place."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the release: whoever has it open already sees that and opens it anew
        held.release()


def _write_holder(path: Path) -> None:
    """Say in a lock's file who holds it."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    command = command if len(command) < 200 else f"{command[:200]}…"
    holder = {"pid": os.getpid(), "host": platform.node(), "command": command, "since": time.time()}
    path.write_text(json.dumps(holder))


def _holder(path: Path) -> str:
    """Who holds a lock, in brackets; what an earlier, killed process wrote is not believed."""
    for _ in range(20):
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_text())
            if told["host"] == platform.node() and not _is_running(told["pid"]):
                raise ProcessLookupError
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(told["since"]))
            return f" (process {told['pid']} on {told['host']}, since {since}: {told['command']})"
        time.sleep(0.02)  # the holder is about to write it
    return ""
