"""Resolve the package for other systems: is there a wheel of everything for each? Needs the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLATFORMS = (
    *("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"),
    *("aarch64-apple-darwin", "x86_64-pc-windows-msvc"),
)


def main() -> None:
    """Print a line a platform; the exit code is 1 if one of them lacks something."""
    uv, failed = Path(sys.executable).with_name("uv"), False
    for extras in ((), ("serve",)):
        for platform in PLATFORMS:
            command = [
                uv,
                "pip",
                "compile",
                "--quiet",
                "--python-version",
                "3.11",
                "--python-platform",
                platform,
            ]
            command += ["--only-binary", ":all:", *(f"--extra={each}" for each in extras), "pyproject.toml"]
            # PyTorch's wheels are for macOS 14 and later.
            environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            count = sum("==" in line for line in done.stdout.splitlines())
            what = f"{count} packages" if done.returncode == 0 else done.stderr.strip()
            sys.stdout.write(f"{platform} {'+'.join(extras) or 'base'}: {what}\n")
            failed |= done.returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
