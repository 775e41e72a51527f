"""The memory that this process may still take, and that it has taken."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from fieldmark.utils.errors import InputError

GIB = 2**30
ADDRESS_SPACE = 2 * GIB
"""Without which no command is begun: `index` on two cores was killed below 1 GiB."""
_PROC = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")


def available() -> int | None:
    """Return how many bytes can be allocated without swapping; None where the system does not say.

    The least of what Linux estimates for the machine and what the limit of a container leaves; the pages of
    files that the container can drop count as free.
    """
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        line = next(each for each in _PROC.read_text().splitlines() if each.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) << 10)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError, KeyError):  # no container, or `max`
            most, now = (int((_CGROUP / name).read_text()) for name in (limit, used))
            told = (_CGROUP / limit).with_name("memory.stat").read_text().splitlines()
            files = int(dict(each.split() for each in told)["inactive_file"])
            found.append(max(0, most - now + files))
    return min(found, default=None)


def peak() -> int | None:
    """Return the most bytes that this process has had in memory; None where the system does not say.

    `getrusage` is the fallback alone: on Linux it counts the memory of the process that started this one too.
    """
    with suppress(OSError, StopIteration):
        line = next(each for each in _STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_address_space() -> None:
    """Refuse a limit of address space (`ulimit -v`) under which the libraries for tables and networks end the
    whole process: they cannot report it.

    Raises:
        InputError: it is below `ADDRESS_SPACE`.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE:
        raise InputError(
            f"the address space is limited to {gib(limit)} (ulimit -v), and {gib(ADDRESS_SPACE)} are needed, "
            "most of which is never used: raise the limit, or limit memory by a container instead."
        )


def gib(size: float) -> str:
    """Write a number of bytes for a person, in GiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
