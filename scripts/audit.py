"""Ask pip-audit for known weaknesses of locked packages; say so where its database cannot be reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

UNREACHABLE = ("ConnectionError", "ServiceError", "Failed to fetch", "No solution found", "Name or service")


def main() -> None:
    """Audit the requirements that the first argument names."""
    uvx = Path(sys.executable).with_name("uvx")
    command = [uvx, "pip-audit", "--require-hashes", "--disable-pip", "-r", sys.argv[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(each in done.stderr for each in UNREACHABLE):
        sys.stdout.write("Not audited: pip-audit or its database cannot be reached from here.\n")
        return
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
