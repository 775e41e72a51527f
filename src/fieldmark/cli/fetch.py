"""`fieldmark fetch`: options -> config -> one call."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


class What(StrEnum):
    """What can be fetched."""

    inat2017 = "inat2017"
    inat2018 = "inat2018"
    inat2019 = "inat2019"
    inat2021 = "inat2021"
    open_data = "open-data"


class PhotoSize(StrEnum):
    """The sizes in which iNaturalist Open Data keeps a photo."""

    original = "original"
    large = "large"
    medium = "medium"
    small = "small"
    thumb = "thumb"
    square = "square"


_OF_CHALLENGE = ("parts", "images", "keep_archives")
_OF_OPEN_DATA = ("taxon", "place", "licence", "photos", "research", "size", "seed", "tables")


def fetch(
    context: typer.Context,
    what: Annotated[
        What, typer.Argument(help="A challenge, or a choice from iNaturalist's photos.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to fetch into.")],
    parts: Annotated[
        str | None, typer.Option(help="Of a challenge: train, val, test …, with commas.")
    ] = None,
    images: Annotated[
        bool, typer.Option(help="Of a challenge: the photos as well, or the lists alone.")
    ] = True,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Leave archives beside what is unpacked.")
    ] = False,
    taxon: Annotated[
        list[str] | None, typer.Option(help="Of open data: a name or number; may be repeated.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="Of open data: SOUTH,WEST,NORTH,EAST in degrees.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of open data: CC0, CC-BY …, with commas; by default all.")
    ] = None,
    photos: Annotated[
        int, typer.Option(help="Of open data: at most so many a species.", min=1)
    ] = 100,
    research: Annotated[
        bool, typer.Option(help="Of open data: only observations of research grade, or any.")
    ] = True,
    size: Annotated[
        PhotoSize, typer.Option(help="Of open data: medium is at most 500 pixels a side.")
    ] = PhotoSize.medium,
    seed: Annotated[int, typer.Option(help="Of open data: another one draws others.")] = 0,
    tables: Annotated[
        Path | None, typer.Option(help="Of open data: where the four tables are, or go.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--from", help="The address of a mirror with the same layout.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Requests under way at a time.", min=1, max=64)] = 8,
    rate: Annotated[
        float, typer.Option(help="Requests that begin in a second, at most.", min=0.01)
    ] = 10.0,
) -> None:
    """Fetch published photos: checked, gone on with where a run was cut off."""
    from fieldmark.data import download as room

    _refuse_strangers(context, what)
    retry_policy = room.RetryPolicy(workers=workers, rate=rate)
    if what is not What.open_data:
        year = what.value.removeprefix("inat")
        base = {"base": mirror} if mirror else {}
        challenge = room.Challenge(year, _listed(parts), images, keep_archives, **base)
        logger.info(f"{room.sizes(challenge.archives())} to fetch. {room.TERMS}")
        for name, about in zip(
            (archive.name for archive in challenge.archives()),
            room.fetch_challenge(challenge, out, retry_policy),
            strict=True,
        ):
            typer.echo(f"{about['md5']}  {name}  held to {about['held_to']}")
        typer.echo(f"{out} is ready: fieldmark train {out} --out MODEL")
        return
    wanted = room.PhotoQuery(
        taxa=tuple(taxon or ()),
        place=_box(place),
        licences=tuple(name.upper() for name in _listed(licence)),
        photos=photos,
        research=research,
        size=size.value,
        seed=seed,
        **({"base": mirror} if mirror else {}),
    )
    got = room.fetch_open_data(wanted, out, tables_dir=tables, retry_policy=retry_policy)
    typer.echo(f"{got.photos:,} photos of {got.species:,} species, {got.failed:,} not available")
    typer.echo(f"{got.table} is ready: fieldmark train {got.table} --out MODEL")


def _refuse_strangers(context: typer.Context, what: What) -> None:
    """Refuse an option of the other kind of fetch, also where it is given its default."""
    strange = _OF_CHALLENGE if what is What.open_data else _OF_OPEN_DATA
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in strange and source is not None and source.name != "DEFAULT":
            off = context.params[option.name] is False
            shown = (option.secondary_opts if off else option.opts)[0]
            raise InputError(f"{shown} says nothing about {what.value}: leave it out.")


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


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
