"""Predict the species in photos: labels sorted by confidence, or "not sure".

Arguments:
    photos: Photos, folders, patterns, @lists, - (standard input) or an annotation file.
Options:
    listed: A text file with one path a line; - is standard input; repeatable.
    only: A text file with one species a line: consider only these.
    decide: Which label comes first: the most probable one, or the one that is least far off in the taxonomy
        (its expected height; mistakes are nearer, and there may be more). [default: that of the classifier]
Output:
    top: The number of labels for each photo.
    format: What to print.
    out: Write .csv, .jsonl or .parquet instead; the same command resumes.
    wide: One row for each photo and one column for each label, for CSV and Parquet.
    submission: Write the challenge's id,predicted file.
Computing:
    engine: What runs the network; auto measures which is fastest. [default: onnxruntime, or torch where
        the network cannot be converted]
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, Decision, EngineName, OutputFormat
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


def predict(
    model: Path,
    photos: list[Path] | None = None,
    listed: Annotated[list[str] | None, typer.Option("--list")] = None,
    only: Path | None = None,
    decide: Decision | None = None,
    top: opt.Positive = 5,
    format: OutputFormat = "text",
    out: Path | None = None,
    wide: bool = False,
    submission: Path | None = None,
    cluster: str | None = None,
    shards: opt.Positive = 16,
    engine: EngineName | None = None,
    compute: Compute | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark import inference
    from fieldmark.inference.classifier import Classifier

    if wide and out is None and format != "csv":
        raise InputError("--wide needs a table: add --format csv, or --out with .csv or .parquet.")
    classifier = Classifier.load(model, engine=engine, compute=compute)
    if classifier.provenance.get("names_only"):
        logger.warning(classifier.provenance.get("test", ""))
    if only is not None:
        known = len(classifier.taxa)
        classifier = classifier.only(inference.read_species_list(only))
        logger.info(
            f"Only {len(classifier.taxa):,} of {known:,} labels are possible ({only}); their "
            "probabilities are renormalised."
        )
    if decide is not None:
        classifier = classifier.decided_by(decide)
    items = inference.find_photos(photos or ())
    for each in listed or ():
        items += inference.read_list(each)
    if not items:
        raise InputError("No photo is given: name photos or folders, or a list with --list.")
    with opt.cluster_workers(cluster, shards) as workers:
        run: inference.PredictFunction = partial(workers.predict, wide=wide) if workers else inference.predict
        if submission is not None:
            inference.check_submission(items)
            every = list(inference.with_progress(run(classifier, items, top), len(items)))
            inference.write_submission(submission, every, classifier)
            typer.echo(f"{len(every):,} rows written to {submission}")
            return
        if out is not None:
            rejected = inference.to_file(out, classifier, items, top=top, wide=wide, name=run)
            typer.echo(f"Written: {out}")
        else:
            results = inference.with_progress(run(classifier, items, top), len(items))
            counted = inference.RejectedCounter(results)
            for line in inference.lines(format, counted, classifier.taxonomy, wide=wide):
                typer.echo(line)
            rejected = counted.rejected
    if rejected:
        raise InputError(f"{rejected:,} of {len(items):,} photos are rejected; the output has the reasons.")
