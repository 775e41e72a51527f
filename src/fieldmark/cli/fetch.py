"""Download published photos, verify them, and resume interrupted downloads.

Arguments:
    what: A challenge, or a selection from iNaturalist Open Data.
Options:
    out: The folder to download to.
Challenges:
    parts: Which parts, separated by commas: train, val, test, ... [default: train and val]
    images: Download the photos too, or only the annotations.
    keep_archives: Keep archives after unpacking them.
Open data:
    taxon: A scientific name or taxon number; repeatable.
    place: A box SOUTH,WEST,NORTH,EAST in degrees. [default: everywhere]
    licence: Licences, separated by commas: CC0,CC-BY,... [default: all]
    photos: At most this many photos of each species.
    research: Use research-grade observations only, or all.
    size: The size of the photos; medium is at most 500 pixels a side.
    seed: The seed of the selection.
    tables: The folder of the four tables. [default: in --out]
Download:
    mirror: The URL of a mirror with the same layout.
    workers: The number of simultaneous requests.
    rate: At most this many requests a second.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.cli.parameters import Option
from fieldmark.utils.choices import PhotoSize, PublishedSet
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


def fetch(
    what: PublishedSet,
    out: Path,
    parts: str | None = None,
    images: bool = True,
    keep_archives: bool = False,
    taxon: tuple[str, ...] = (),
    place: str | None = None,
    licence: str | None = None,
    photos: opt.Positive = 100,
    research: bool = True,
    size: PhotoSize = "medium",
    seed: int = 0,
    tables: Path | None = None,
    mirror: Annotated[str | None, "--from"] = None,
    workers: Annotated[int, click.IntRange(1, 64)] = 8,
    rate: Annotated[float, opt.Number(0.01)] = 10.0,
) -> None:
    options = locals()
    from fieldmark.data import download

    _refuse("Challenges" if what == "open-data" else "Open data", what)
    policy = download.RetryPolicy(workers=workers, rate=rate)
    base = {"base": mirror} if mirror else {}
    if what == "open-data":
        wanted = opt.config_from(
            download.PhotoQuery,
            options,
            taxa=taxon,
            place=_box(place),
            licences=tuple(name.upper() for name in opt.split_at_commas(licence)),
            **base,
        )
        got = download.fetch_open_data(wanted, out, tables_dir=tables, retry_policy=policy)
        click.echo(f"{got.photos:,} photos of {got.species:,} species, {got.failed:,} not available")
        click.echo(f"{got.table} is ready: fieldmark train {got.table} --out MODEL")
        return
    year = what.removeprefix("inat")
    challenge = opt.config_from(
        download.Challenge, options, year=year, parts=opt.split_at_commas(parts), **base
    )
    archives = challenge.archives()
    logger.info(f"{download.sizes(archives)} to download. {download.TERMS}")
    for archive, about in zip(archives, download.fetch_challenge(challenge, out, policy), strict=True):
        click.echo(f"{about['md5']}  {archive.name}  checked against {about['held_to']}")
    click.echo(f"{out} is ready: fieldmark train {out} --out MODEL")


def _refuse(other: str, what: str) -> None:
    """Refuse an option of the other group, also where its value is the default."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        given = source is not None and source.name != "DEFAULT"
        if given and isinstance(option, Option) and option.group == other:
            off = context.params[option.name or ""] is False
            shown = (option.secondary_opts if off else option.opts)[0]
            raise InputError(f"{shown} does not apply to {what}: leave it out.")


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        south, west, north, east = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"--place {text!r} is no box: write SOUTH,WEST,NORTH,EAST, as in 47.2,5.8,55.1,15.1."
        ) from None
    return south, west, north, east
