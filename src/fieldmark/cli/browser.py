"""Open the application in a browser: photos, training, names, review and results, without commands.

Arguments:
    project: The folder of the project; a new one is made. Photos stay where they are.
Options:
    port: The port; 0 takes a free one.
    no_browser: Print the address only, and open no browser.
    desktop_entry: Write a menu entry (Linux) or a file on the desktop that opens the project, and end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.utils.errors import InputError


def app(
    project: Path = Path("fieldmark-project"),
    port: Annotated[int, click.IntRange(0, 65_535)] = 8765,
    no_browser: bool = False,
    desktop_entry: bool = False,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    if desktop_entry:
        from fieldmark.app.desktop import write_start_file

        click.echo(f"Open the project with {write_start_file(project)}")
        return
    try:
        from fieldmark.app.server import run
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: run `pip install 'fieldmark[app]'`.") from error

    run(project, port=port, browser=not no_browser)
