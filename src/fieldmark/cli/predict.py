"""Predict the species in photos: labels sorted by confidence, or "not sure".

Arguments:
    photos: Photos, clips, folders, patterns, @lists, - (standard input) or an annotation file.
Options:
    listed: A text file with one path a line; - is standard input; repeatable.
    only: A list of species or higher taxa, a name a line or a table: consider only these.
    prior: A list of the species of a country or a park: those that are not on it count 20 times less, and
        none becomes impossible.
    checklist: A checklist archive (GBIF's backbone, the Catalogue of Life) that tells which names of --only
        and --prior are synonyms of labels.
    events: A row for each event, a visit of an animal, in place of a photo: photos of one sequence, or of one
        place with no long gap.
    gap: Seconds without a photo at a place after which the next one begins an event.
    clocks: A table deployment,seconds: what to add to the times of a camera.
    place: LATITUDE,LONGITUDE of all photos, in degrees. [default: of each photo, as its list or EXIF data
        say]
    date: The date of all photos, with --place. [default: the time of the year does not count]
    no_prior: Leave out what is to be expected at the place.
    decide: Which label comes first: the most probable one, or the one that is least far off in the taxonomy
        (its expected height; mistakes are nearer, and there may be more). [default: that of the classifier]
Clips:
    every: Of a clip, take a frame each so many seconds.
    changed: Of these, take only frames that differ from the last one taken.
    frames: A row for each frame of a clip, or each box in one, in place of a row for the clip; with --out.
Output:
    top: The number of labels for each photo.
    format: What to print.
    out: Write .csv, .xlsx, .jsonl, .parquet or a Camtrap DP (FOLDER/datapackage.json) instead; the same
        command resumes.
    overwrite: Replace the file of --out, also where something else wrote it, or you have edited it.
    deployments: A table of deployments, with columns of Camtrap DP, for .camtrap.csv and datapackage.json.
    candidates: One row for each label of a photo, for CSV and Excel.
    wide: One row for each photo and one column for each label, for CSV, Excel and Parquet.
    xmp: Write an XMP file with the names of each photo: beside (the photo), or into a folder.
    copies: A folder for copies of the photos, for publishing: people in boxes are blurred, and the place is
        left out of the metadata. Needs --boxes.
    submission: Write the challenge's id,predicted file.
Computing:
    engine: What runs the network; auto measures which is fastest. [default: onnxruntime, which starts first;
        auto for 256 photos and more]
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from fieldmark.cli import options as opt
from fieldmark.utils import collector
from fieldmark.utils.choices import Compute, Decision, EngineName, OutputFormat
from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import some_of

if TYPE_CHECKING:
    from fieldmark.distributed.cluster import Workers
    from fieldmark.inference.classifier import Classifier
    from fieldmark.inference.inputs import Boxes, InputPhoto
    from fieldmark.inference.predictor import PhotoResult, PredictFunction
    from fieldmark.inference.record import Record

logger = logging.getLogger(__name__)


def predict(
    model: Path,
    photos: tuple[Path, ...] = (),
    listed: Annotated[tuple[str, ...], "--list"] = (),
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    events: bool = False,
    gap: Annotated[float, opt.Number(0)] = 60.0,
    clocks: Path | None = None,
    only: Path | None = None,
    prior: Path | None = None,
    checklist: Path | None = None,
    place: str | None = None,
    date: str | None = None,
    no_prior: bool = False,
    decide: Decision | None = None,
    top: opt.Positive = 5,
    format: OutputFormat = "text",
    out: Path | None = None,
    overwrite: bool = False,
    deployments: Path | None = None,
    candidates: bool = False,
    wide: bool = False,
    xmp: str | None = None,
    copies: Path | None = None,
    submission: Path | None = None,
    every: Annotated[float, opt.Number(0.01)] = 1.0,
    changed: bool = False,
    frames: bool = False,
    cluster: str | None = None,
    shards: opt.Positive = 16,
    engine: EngineName | None = None,
    compute: Compute | None = None,
    cache: Path | None = None,
) -> None:
    _begin(cache)
    shown: dict[str, Any] = {"wide": wide, "candidates": candidates}
    _check(out, format, shown, overwrite, events=events, frames=frames, submission=submission, boxes=boxes)
    places = _deployments(out, deployments, copies, boxes)
    classifier = opt.of_lists(_classifier(model, engine, compute, decide), only, prior, checklist)
    classifier = _at(classifier, place, date, no_prior=no_prior)
    items = _photos(photos, listed, clocks, every, changed=changed)
    at = _boxes(classifier.provenance.get("boxes"), boxes, box_threshold)
    classifier, items = _asked(classifier, items, at)
    with opt.cluster_workers(cluster, shards) as workers:
        run = _way(workers, wide=wide or events)
        if submission is not None:
            _submit(submission, classifier, items, run(classifier, items, top))
            return
        if out is not None:
            from fieldmark.inference.checkpoint import records_of, to_file

            save = partial(to_file, gap=gap if events else None, boxes=at, frames=frames, name=run)
            rejected = save(out, classifier, items, top=top, deployments=places, overwrite=overwrite, **shown)
            records = records_of(out) if xmp or copies or rejected else ()
        else:
            shown |= {"form": format, "boxes": at.threshold if at else None}
            records = _printed(run(classifier, items, top), len(items), shown, classifier, xmp or copies)
    _finish(records, items, out, xmp, copies)


def _begin(cache: Path | None) -> None:
    """Use the cache, and load what predicts."""
    opt.use_cache(cache)
    collector.load("fieldmark.inference.clips")


def _asked(
    classifier: Classifier, items: list[InputPhoto], boxes: Boxes | None
) -> tuple[Classifier, list[InputPhoto]]:
    """Return the classifier for so many photos, and the photos, or their boxes."""
    from fieldmark.inference.inputs import at_boxes
    from fieldmark.inference.predictor import for_all

    items = at_boxes(items, boxes) if boxes else items
    return for_all(classifier, items), items


def _printed(
    results: Iterable[PhotoResult], total: int, shown: Mapping[str, Any], classifier: Classifier, keep: object
) -> list[Record]:
    """Print results, `shown` as `formats.lines` says, and return their records: all of them, or, without
    `keep`, of those that could not be used."""
    from fieldmark.inference.formats import lines
    from fieldmark.inference.predictor import RejectedCounter, with_progress
    from fieldmark.inference.record import to_record

    records: list[Record] = []

    def kept() -> Iterator[PhotoResult]:
        for result in RejectedCounter(with_progress(results, total)):
            if keep or result.rejected:
                records.append(to_record(result, len(classifier.taxa)))
            yield result

    for line in lines(results=kept(), taxonomy=classifier.taxonomy, **shown):
        click.echo(line)
    return records


def _finish(
    records: Iterable[Record],
    items: Sequence[InputPhoto],
    out: Path | None,
    xmp: str | None,
    copies: Path | None,
) -> None:
    """Write what belongs to single photos, and name those that could not be used."""
    if out is not None:
        click.echo(f"Written: {out}")
    _write_side_files(records, items, xmp, copies)
    _say_unusable(records, len(items), out)


def _say_unusable(records: Iterable[Record], photos: int, out: Path | None) -> None:
    """Raise InputError if there are photos that could not be used; it names the first of them."""
    names = [f"{each['file_name']} ({each['rejected']})" for each in records if "rejected" in each]
    if names:
        raise InputError(
            f"{len(names):,} of {photos:,} photos could not be used: {some_of(names)}. "
            f"{out or 'The output'} has a row with the reason for each."
        )


def _way(workers: Workers | None, *, wide: bool) -> PredictFunction:
    """Return what predicts photos: this process, or the workers of a cluster."""
    from fieldmark.inference import clips

    return partial(workers.predict, wide=wide) if workers else clips.predict


def _submit(
    path: Path, classifier: Classifier, items: Sequence[InputPhoto], results: Iterator[PhotoResult]
) -> None:
    """Write the challenge's file; photos are predicted once they are seen to have ids."""
    from fieldmark.inference.formats.submission import check_submission, write_submission
    from fieldmark.inference.predictor import with_progress

    check_submission(items)
    every = list(with_progress(results, len(items)))
    write_submission(path, every, classifier)
    click.echo(f"{len(every):,} rows written to {path}")


def _deployments(
    out: Path | None, deployments: Path | None, copies: Path | None, boxes: Path | None
) -> Sequence[Mapping[str, str]]:
    """Read the table of deployments; refuse options that need others."""
    if copies and not boxes:
        raise InputError("--copies needs --boxes: only they say where people are.")
    if deployments and not str(out or "").endswith((".camtrap.csv", "datapackage.json")):
        raise InputError("--deployments is for Camtrap DP: add --out FOLDER/datapackage.json.")
    if deployments is None:
        return ()
    from fieldmark.inference.formats.deployments import read_deployments

    return read_deployments(deployments)


def _write_side_files(
    records: Iterable[Record], items: Sequence[InputPhoto], xmp: str | None, copies: Path | None
) -> None:
    if not (xmp or copies):
        return
    from fieldmark.inference.side_files import write_copies, write_sidecars

    if xmp:
        logger.info(f"{write_sidecars(records, items, xmp):,} XMP files written.")
    if copies:
        logger.info(f"{write_copies(records, items, copies):,} copies written to {copies}.")


def _photos(
    photos: Sequence[Path], listed: Sequence[str], clocks: Path | None, every: float, *, changed: bool
) -> list[InputPhoto]:
    """Return the photos and clips that the arguments and lists stand for, with their times corrected."""
    from fieldmark.data.events import read_clocks
    from fieldmark.data.videos import Sampling
    from fieldmark.inference.inputs import at_clocks, find_all

    items = find_all(photos, listed, Sampling(every, changed))
    return items if clocks is None else at_clocks(items, read_clocks(clocks))


def _check(
    out: Path | None,
    form: str,
    shown: Mapping[str, bool],
    overwrite: bool,
    *,
    events: bool,
    frames: bool,
    submission: Path | None,
    boxes: Path | None,
) -> None:
    """Refuse options that do not go together."""
    wide, candidates = shown["wide"], shown["candidates"]
    if events and out is None:
        raise InputError("--events writes a file: name it with --out.")
    if events and wide:
        raise InputError("--wide is a row a photo, and --events a row an event: leave one of them out.")
    if candidates and wide:
        raise InputError("--wide is a row a photo, and --candidates a row a label: leave one of them out.")
    for name, given in (("--wide", wide), ("--candidates", candidates)):
        if given and out is None and form != "csv":
            raise InputError(f"{name} needs a table: add --format csv, or --out with .csv or .xlsx.")
    if overwrite and out is None and submission is None:
        raise InputError("--overwrite is for a file: name it with --out.")
    if frames and (out is None or events or wide):
        raise InputError(
            "--frames writes a row for each frame: name a file with --out, without --events or --wide."
        )
    if submission and boxes:
        raise InputError("--submission has a row for each photo, not for each box: leave --boxes out.")
    if submission and submission.exists() and not overwrite:
        raise InputError(f"{submission} exists: name another file, or replace it with --overwrite.")


def _classifier(
    model: Path, engine: EngineName | None, compute: Compute | None, decide: Decision | None
) -> Classifier:
    """Read the classifier, with a way to decide."""
    from fieldmark.inference.classifier import Classifier

    classifier = Classifier.load(model, engine=engine, compute=compute)
    if classifier.provenance.get("names_only"):
        logger.warning(classifier.provenance.get("test", ""))
    return classifier if decide is None else classifier.decided_by(decide)


def _at(classifier: Classifier, place: str | None, date: str | None, *, no_prior: bool) -> Classifier:
    """Return the classifier for photos of a place, or without a prior."""
    if no_prior and (place or date):
        raise InputError("--place and --date are for the prior: leave them out, or --no-prior.")
    if date and not place:
        raise InputError("--date is given without a place: name it with --place LATITUDE,LONGITUDE.")
    if no_prior or not place:
        return replace(classifier, prior=None) if no_prior else classifier
    try:
        latitude, longitude = (float(part) for part in place.split(","))
    except ValueError:
        raise InputError(f"--place is {place!r}: write LATITUDE,LONGITUDE, such as 47.25,8.5.") from None
    return classifier.at(latitude, longitude, date)


def _boxes(learned: Mapping[str, Any] | None, path: Path | None, threshold: float | None) -> Boxes | None:
    """Read the boxes, if there are any; say where a classifier of boxes has none, and the other way round."""
    from fieldmark.data.detections import check_threshold
    from fieldmark.inference.inputs import Boxes

    check_threshold(path, threshold)
    if path is None:
        if learned:
            logger.warning("This classifier learned from boxes: name those of the photos with --boxes.")
        return None
    if not learned:
        logger.warning("This classifier learned from whole photos: its answers for boxes are less certain.")
    found = Boxes.read(path, threshold, (learned or {}).get("threshold"))
    logger.info(f"Boxes count from confidence {found.threshold:g} on ({path.name}).")
    return found
