"""The memory that this process may still take, and that it has taken."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

GIB = 2**30
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


def gib(size: float) -> str:
    """Write a number of bytes for a person, in GiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
