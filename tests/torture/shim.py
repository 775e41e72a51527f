"""Build the library that makes the k-th write fail, and say what a fault is."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
_GROWS, _NAMES, _REMOVES, _SYNCS = 1, 2, 4, 8  # as in shim.c


@dataclass(frozen=True)
class Fault:
    """What happens at the k-th call."""

    name: str
    code: int  # an errno, or minus the signal that the process gets
    lasts: bool = False  # also at all later calls
    kinds: int = _GROWS | _NAMES | _REMOVES | _SYNCS  # of calls that can fail so


# A full disk stays full, and files on it can still be removed; a disk is broken at one place.
FAULTS = (
    Fault("kill", -signal.SIGKILL),
    Fault("SIGTERM", -signal.SIGTERM),
    Fault("Ctrl-C", -signal.SIGINT),
    Fault("ENOSPC", errno.ENOSPC, lasts=True, kinds=_GROWS),
    Fault("EDQUOT", errno.EDQUOT, lasts=True, kinds=_GROWS),
    Fault("EIO", errno.EIO),
    Fault("EROFS", errno.EROFS, lasts=True),
)


def build(folder: Path) -> Path | None:
    """Compile the library into a folder; None where there is no C compiler, or the system is not Linux."""
    compiler, out = shutil.which("cc"), folder / "shim.so"
    if compiler is None or not Path("/proc/self/fd").is_dir():
        return None
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", out, SOURCE, "-ldl"], check=False)
    return out if done.returncode == 0 else None
