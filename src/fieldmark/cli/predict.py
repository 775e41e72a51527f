"""`fieldmark predict`: predict the species in photos."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, Cluster, Model, Shards, cluster_workers, use_cache
from fieldmark.utils.choices import OutputFormat
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

in_output = partial(typer.Option, rich_help_panel="Output")


def predict(
    model: Model,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photos, folders, patterns, @lists, - (standard input) or an annotation file."
        ),
    ] = None,
    listed: Annotated[
        list[str] | None,
        typer.Option(
            "--list",
            help="A text file with one path a line; - is standard input; repeatable.",
        ),
    ] = None,
    only: Annotated[
        Path | None, typer.Option(help="A text file with one species a line: consider only these.")
    ] = None,
    top: Annotated[int, in_output(help="The number of labels for each photo.", min=1)] = 5,
    format: Annotated[OutputFormat, in_output(help="What to print.")] = "text",
    out: Annotated[
        Path | None,
        in_output(help="Write .csv, .jsonl or .parquet; the same command resumes."),
    ] = None,
    wide: Annotated[
        bool, in_output("--wide", help="One row for each photo, one column for each label.")
    ] = False,
    submission: Annotated[
        Path | None, in_output(help="Write the challenge's id,predicted file.")
    ] = None,
    cluster: Cluster = None,
    shards: Shards = 16,
    cache: Cache = None,
) -> None:
    """Predict the species in photos: labels sorted by confidence, or "not sure"."""
    use_cache(cache)
    from fieldmark import inference
    from fieldmark.inference.classifier import Classifier

    if wide and out is None and format != "csv":
        raise InputError("--wide needs a table: add --format csv, or --out with .csv or .parquet.")
    classifier = Classifier.load(model)
    if only is not None:
        known = len(classifier.taxa)
        classifier = classifier.only(inference.species_in(only))
        logger.info(
            f"Only {len(classifier.taxa):,} of {known:,} labels are possible ({only}); their "
            "probabilities are renormalised."
        )
    items = inference.items_of(photos or ())
    for each in listed or ():
        items += inference.listed(each)
    if not items:
        raise InputError("No photo is given: name photos or folders, or a list with --list.")
    with cluster_workers(cluster, shards) as workers:
        name: inference.Naming = (
            partial(workers.predict, wide=wide) if workers else inference.predict
        )
        if out is not None and submission is None:
            rejected = inference.to_file(out, classifier, items, top=top, wide=wide, name=name)
            typer.echo(f"Written: {out}")
        else:
            if submission is not None:
                inference.check_submission(items)
            results = inference.with_progress(name(classifier, items, top), len(items))
            if submission is not None:
                inference.write_submission(submission, every := list(results), classifier)
                typer.echo(f"{len(every):,} rows written to {submission}")
                return
            counted = inference.Counted(results)
            for line in inference.lines(format, counted, classifier.taxonomy, wide=wide):
                typer.echo(line)
            rejected = counted.rejected
    if rejected:
        raise InputError(
            f"{rejected:,} of {len(items):,} photos are rejected; the output has the reasons."
        )
