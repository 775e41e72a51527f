"""Files that inference makes once and keeps: converted graphs, and which engine is the fastest.

They are in the cache folder. Where that cannot be written to (the file system of a container is often
read-only), what is there is used, and the rest is kept in a temporary folder until the process ends.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from pathlib import Path

from fieldmark.utils import io

logger = logging.getLogger(__name__)


def cached_file(kind: str, name: str) -> Path:
    """Return where a file is, or where it is to be written.

    Args:
        kind: the folder in the cache.
        name: the file's name.
    """
    kept = io.cache_dir() / kind / name
    return kept if kept.is_file() or _can_be_written(kept.parent) else _of_this_process() / name


@functools.cache
def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        logger.warning(
            f"{folder} cannot be written to ({error.strerror}): converted networks are kept until this "
            "process ends, and converted again by the next one. Set FIELDMARK_CACHE to another folder."
        )
        return False


_of_this_process = functools.cache(io.scratch)
