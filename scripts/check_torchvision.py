"""Check that torchvision was built for the PyTorch that is here, and install the build that was.

    python scripts/check_torchvision.py

Packages that import torchvision (timm) cannot be imported otherwise. Indexes that offer a CPU build of
PyTorch usually offer that of torchvision under the same suffix, `+cpu`. fieldmark itself needs no compiled
operator of torchvision, so it works without.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def imports() -> bool:
    """Return whether torchvision can be imported, tried in a process of its own."""
    attempt = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Check, mend, and say what is left."""
    if imports():
        return
    torch, torchvision = version("torch"), version("torchvision").partition("+")[0]
    build = torch.partition("+")[2]
    if build:
        wanted = f"torchvision=={torchvision}+{build}"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", wanted]
        subprocess.run(install, capture_output=True, check=False)
    if not imports():
        sys.stdout.write(
            f"torchvision {torchvision} was built for another PyTorch than {torch}, so `import timm` and "
            "`import torchvision` fail in code of your own; fieldmark's commands work. Install both from one "
            "index.\n"
        )


if __name__ == "__main__":
    main()
