"""A start file: a menu entry or a file on the desktop that opens a project by a click.

Linux: https://specifications.freedesktop.org/desktop-entry-spec. Other systems start a small script in a
window, which is closed to stop the application.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import InputError

_MARK = "made by fieldmark app --desktop-entry"


def write_start_file(project: Path, system: str = sys.platform, home: Path | None = None) -> Path:
    """Write a file that opens a project, and return where it is; one of an earlier call is replaced.

    Args:
        project: the folder of the project.
        system: as `sys.platform` names it.
        home: the user's folder; None: that of who runs this.

    Raises:
        InputError: another file has its name, the path cannot be written in it, or it cannot be written.
    """
    project, home = project.absolute(), home or Path.home()
    words = [sys.executable, "-m", "fieldmark", "app", str(project)]
    if any(ord(each) < 32 for word in words for each in word):
        raise InputError(f"{str(project)!r} has a control character: name a folder without one.")
    name = f"fieldmark {project.name}"
    if system == "win32":
        path, text = home / "Desktop" / f"{name}.cmd", _windows(words)
    elif system == "darwin":
        path, text = home / "Desktop" / f"{name}.command", f"#!/bin/sh\n# {_MARK}\nexec {shlex.join(words)}\n"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        path, text = data / "applications" / f"{name.replace(' ', '-')}.desktop", _linux(name, words)
    try:
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{path} is a file of yours: rename it, and run this again.")
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write_text(path, text)
        path.chmod(0o755)
    except OSError as error:
        raise InputError(f"{path} could not be written ({error.strerror or error}).") from error
    return path


def _linux(name: str, words: list[str]) -> str:
    lines = (
        *("[Desktop Entry]", f"# {_MARK}", "Type=Application", f"Name={_escaped(name)}"),
        f"Exec={' '.join(map(_quoted, words))}",
        *("Comment=Species in photos", "Terminal=true", "Categories=Science;Graphics;"),
    )
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """Quote an argument of `Exec`; a percent sign alone would be a field code."""
    inside = "".join(f"\\{each}" if each in '"`$\\' else each for each in word)
    return _escaped(f'"{inside}"'.replace("%", "%%"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")


def _windows(words: list[str]) -> str:
    """Return a batch file; UTF-8 (chcp 65001), and percent signs doubled."""
    command = " ".join(f'"{word}"' for word in words).replace("%", "%%")
    return f"@echo off\r\nrem {_MARK}\r\nchcp 65001 >nul\r\n{command}\r\n"
