"""`fieldmark fetch`: download published photos."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import config_from, split_at_commas
from fieldmark.utils.choices import PhotoSize, PublishedSet
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

CHALLENGE, OPEN_DATA = "Challenges (inat2017 ... inat2021)", "Open data (open-data)"
of_challenge = partial(typer.Option, rich_help_panel=CHALLENGE)
of_open_data = partial(typer.Option, rich_help_panel=OPEN_DATA)
in_download = partial(typer.Option, rich_help_panel="Download")


def fetch(
    context: typer.Context,
    what: Annotated[
        PublishedSet,
        typer.Argument(help="A challenge set, or a selection from iNaturalist Open Data."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to download to.")],
    parts: Annotated[
        str | None, of_challenge(help="Which parts, separated by commas: train, val, test, ...")
    ] = None,
    images: Annotated[
        bool, of_challenge(help="Download the photos too, or only the annotations.")
    ] = True,
    keep_archives: Annotated[
        bool, of_challenge("--keep-archives", help="Keep archives after unpacking them.")
    ] = False,
    taxon: Annotated[
        list[str] | None, of_open_data(help="A scientific name or taxon number; repeatable.")
    ] = None,
    place: Annotated[
        str | None, of_open_data(help="A box SOUTH,WEST,NORTH,EAST in degrees.")
    ] = None,
    licence: Annotated[
        str | None,
        of_open_data(help="Licences, separated by commas: CC0,CC-BY,... [default: all]"),
    ] = None,
    photos: Annotated[
        int, of_open_data(help="At most this many photos of each species.", min=1)
    ] = 100,
    research: Annotated[
        bool, of_open_data(help="Use research-grade observations only, or all.")
    ] = True,
    size: Annotated[
        PhotoSize, of_open_data(help="The size of the photos; medium: at most 500 pixels a side.")
    ] = "medium",
    seed: Annotated[int, of_open_data(help="The seed of the selection.")] = 0,
    tables: Annotated[
        Path | None, of_open_data(help="The folder of the four tables. [default: in --out]")
    ] = None,
    mirror: Annotated[
        str | None, in_download("--from", help="The URL of a mirror with the same layout.")
    ] = None,
    workers: Annotated[
        int, in_download(help="The number of simultaneous requests.", min=1, max=64)
    ] = 8,
    rate: Annotated[float, in_download(help="At most this many requests a second.", min=0.01)] = 10,
) -> None:
    """Download published photos, verify them, and resume interrupted downloads."""
    options = locals()
    from fieldmark.data import download

    _refuse(context, CHALLENGE if what == "open-data" else OPEN_DATA, what)
    policy = download.RetryPolicy(workers=workers, rate=rate)
    base = {"base": mirror} if mirror else {}
    if what == "open-data":
        wanted = config_from(
            download.Wanted,
            options,
            taxa=tuple(taxon or ()),
            place=_box(place),
            licences=tuple(name.upper() for name in split_at_commas(licence)),
            **base,
        )
        got = download.fetch_own(wanted, out, kept_tables=tables, manners=policy)
        typer.echo(f"{got.photos:,} photos of {got.species:,} species, {got.failed:,} not found")
        typer.echo(f"{got.table} is ready: fieldmark train {got.table} --out MODEL")
        return
    year = what.removeprefix("inat")
    challenge = config_from(
        download.Challenge, options, year=year, parts=split_at_commas(parts), **base
    )
    archives = challenge.archives()
    logger.info(f"{download.sizes(archives)} to download. {download.TERMS}")
    for archive, about in zip(
        archives, download.fetch_challenge(challenge, out, policy), strict=True
    ):
        typer.echo(f"{about['md5']}  {archive.name}  verified: {about['held_to']}")
    typer.echo(f"{out} is ready: fieldmark train {out} --out MODEL")


def _refuse(context: typer.Context, other: str, what: str) -> None:
    """Refuse an option of the other group, also where its value is the default."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        given = source is not None and source.name != "DEFAULT"
        if given and getattr(option, "rich_help_panel", None) == other:
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
