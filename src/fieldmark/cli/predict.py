"""`fieldmark predict`: options -> config -> one call."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, ClusterOption, SharesOption, use_cache
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


class OutputFormat(StrEnum):
    """What `predict` prints."""

    text = "text"
    csv = "csv"
    jsonl = "jsonl"


def predict(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos, folders, patterns, @lists, - or an annotation file."),
    ] = None,
    listed: Annotated[
        list[str] | None,
        typer.Option("--list", help="A file with the path of a photo a line; - is standard input."),
    ] = None,
    only: Annotated[
        Path | None, typer.Option(help="A file of species, one a line: all others are left out.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many labels for each photo.", min=1)] = 5,
    format: Annotated[OutputFormat, typer.Option(help="What to print.")] = OutputFormat.text,
    out: Annotated[
        Path | None,
        typer.Option(help="Write .csv, .jsonl or .parquet; the same command goes on with it."),
    ] = None,
    wide: Annotated[
        bool,
        typer.Option("--wide", help="A row a photo and a column a label, for CSV and Parquet."),
    ] = False,
    submission: Annotated[
        Path | None, typer.Option(help="Write the challenge's id,predicted file.")
    ] = None,
    cluster: ClusterOption = None,
    shards: SharesOption = 16,
    cache: Cache = None,
) -> None:
    """Name what is in photos: labels sorted by confidence."""
    use_cache(cache)
    from fieldmark import inference as naming
    from fieldmark.inference.classifier import Classifier

    if wide and out is None and format is not OutputFormat.csv:
        raise InputError("--wide is a column a label: add --format csv, or --out with .csv.")
    classifier = Classifier.load(model)
    if only is not None:
        known = len(classifier.taxa)
        classifier = classifier.only(naming.read_species_list(only))
        logger.info(
            f"Only {len(classifier.taxa):,} of {known:,} labels are possible ({only}): the scores "
            "are shared out among them."
        )
    items = [
        *naming.find_photos(photos or ()),
        *(i for each in listed or () for i in naming.read_list(each)),
    ]
    if not items:
        raise InputError("No photo is named: name photos or folders, or a list with --list.")
    with ExitStack() as stack:
        name: naming.PredictFunction = naming.predict
        if cluster is not None:
            from fieldmark.distributed.cluster import connected

            name = partial(stack.enter_context(connected(cluster, shards)).predict, wide=wide)
        if submission is not None:
            naming.check_submission(items)
            every = list(naming.with_progress(name(classifier, items, top), len(items)))
            naming.write_submission(submission, every, classifier)
            typer.echo(f"{len(every):,} rows written to {submission}")
            return
        if out is not None:
            rejected = naming.to_file(out, classifier, items, top=top, wide=wide, name=name)
            typer.echo(f"Written: {out}")
        else:
            counted = naming.RejectedCounter(
                naming.with_progress(name(classifier, items, top), len(items))
            )
            for line in naming.lines(format.value, counted, classifier.taxonomy, wide=wide):
                typer.echo(line)
            rejected = counted.rejected
    if rejected:
        raise InputError(f"{rejected:,} of {len(items):,} photos could not be used; each says why.")
