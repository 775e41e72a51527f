"""Count photos and classes (the paper's Table 1 and Figure 1).

Arguments:
    data: Photos, an annotation file, or a table of `fieldmark index`.
"""

from __future__ import annotations

from pathlib import Path

import click


def stats(data: Path, json: bool = False, source: str | None = None) -> None:
    from fieldmark.data import readers
    from fieldmark.data import stats as counting
    from fieldmark.utils import io

    found = counting.stats(readers.read(data, source=source, verify=False))
    click.echo(io.to_json(found).rstrip() if json else counting.render(found))
