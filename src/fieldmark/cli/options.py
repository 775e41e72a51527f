"""Options that several commands share, described as in a command's docstring, and what is done with them.

Arguments:
    model: The folder of a classifier that `fieldmark train` wrote.
Options:
    json: Print JSON.
    language: The language of the report.
    thumbnails: Store thumbnails of training photos in the classifier's folder.
Data:
    limit: Use at most this many photos.
    names: A CSV table name,accepted: replace the names of labels by accepted names.
    boxes: A file of boxes: MegaDetector or SpeciesNet JSON, COCO, Camtrap DP, or a table. Each box of an
        animal is cut out and is a photo of its own.
    box_threshold: The confidence from which on a box counts. [default: by the photos labelled as empty, else
        that of the file, else 0.2]
    seed: The seed of all random choices.
    source: The layout of the photos. [default: detected]
    split: Divide by class, at random, or as the source defines it; location: by class, and no place is in
        two parts.
Network:
    weights: pretrained, random, or a file of weights.
    weights_dir: A folder of weights, searched before any download.
Training:
    bfloat16: Fine-tune in bfloat16: faster where the hardware supports it.
Computing:
    engine: What runs the network; auto measures which is fastest.
    compute: How precisely the network computes: exact in float32, half in 16 bits, int8 in 8-bit integers.
        [default: as trained]
    size: The side of the square crop in pixels. [default: that of the network]
    crop: Resize a photo to a square, cut out its center, or pad it with a border. [default: as the
        network was published; squash for those that fieldmark lists]
    tier: Decode photos in full (exact), or large JPEGs at a reduced size (fast).
    cluster: Run on a Ray cluster: its address, or local to start one here.
    shards: On a cluster: the number of tasks to divide into.
    cache: The folder of the cache (features, converted networks).
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import click

from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import some_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from fieldmark.data.photos import PhotoTable
    from fieldmark.distributed.cluster import Workers
    from fieldmark.inference.classifier import Classifier

logger = logging.getLogger(__name__)

C = TypeVar("C", bound="DataclassInstance")


class Number(click.FloatRange):
    """A number, from `min` to `max`; "nan" is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number.", param, ctx)
        return float(found)


class NonEmptyPath(click.Path):
    """A file or folder, which may be there or not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a path; an empty one is that of a shell variable that is not set, not the current folder."""
        if not value:
            self.fail("the path is empty: name a file or folder, or . for the current folder.", param, ctx)
        return super().convert(value, param, ctx)


Positive = Annotated[int, click.IntRange(1)]
Confidence = Annotated[float | None, Number(0, 1)]
OptionalPositive = Annotated[int | None, click.IntRange(1)]


def config_from(kind: type[C], options: Mapping[str, Any], /, **derived: Any) -> C:
    """Build a configuration from the options (a command's `locals()`) that are named like its fields.

    `derived` holds further fields, and fields whose value is not that of the option of this name.
    """
    named = {each.name: options[each.name] for each in fields(kind) if each.name in options}
    return kind(**named | derived)


def side(text: str | None) -> int | None:
    """Read `--size`: one side of a square, in pixels."""
    if text is None or text.isdecimal():
        return int(text) if text else None
    raise InputError(f"--size is {text!r}: crops are square, so give one side in pixels, such as 224.")


def sides(text: str | None) -> tuple[int, ...]:
    """Read several sides of squares with commas between them."""
    if text is None:
        return ()
    found = (side(part) for part in split_at_commas(text) or [text])
    return tuple(dict.fromkeys(each for each in found if each is not None))


def use_cache(folder: Path | None) -> None:
    """Use this folder as the cache, in this process and those that it starts."""
    if folder is not None:
        os.environ["FIELDMARK_CACHE"] = str(folder.resolve())


def cluster_workers(address: str | None, shards: int) -> AbstractContextManager[Workers | None]:
    """Connect to the cluster for the length of a block; without an address there are no workers."""
    if address is None:
        return nullcontext()
    from fieldmark.distributed.cluster import connected

    return connected(address, shards)


def split_at_commas(text: str | None) -> tuple[str, ...]:
    """Return the parts of `a, b`, without empty ones."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def command_line() -> str:
    """Return the command as it was typed, for the report: the program's name without its folder."""
    name = Path(sys.argv[0]).name  # `python -m fieldmark` is the same program
    return shlex.join(["fieldmark" if name == "__main__.py" else name, *sys.argv[1:]])


def write_table(table: PhotoTable, out: Path) -> None:
    """Write a table of photos, and print how many were kept and why others were rejected."""
    table.write(out)
    kept = table.kept.height
    click.echo(f"{len(table):,} photos found = {kept:,} kept + {len(table) - kept:,} rejected")
    names = table.rejected_names()
    for reason, count in table.reasons().items():
        click.echo(f"  {count:,} {reason}: {some_of(names[reason], count)}")
    click.echo(f"{len(table.taxonomy):,} taxa; written to {out}")


def of_lists(
    classifier: Classifier, only: Path | None, prior: Path | None, checklist: Path | None
) -> Classifier:
    """Return the classifier for some of its labels, or with a list that favours some, and say so.

    Without a list it keeps its own, if it has one.

    Raises:
        InputError: a list cannot be read or names no label, or there is a checklist without a list.
    """
    if checklist and not (only or prior):
        raise InputError("--checklist is for the names of --only and --prior: name one of them, too.")
    known = len(classifier.taxa)

    def names(path: Path) -> list[str]:
        from fieldmark.data.checklist import accepted_names
        from fieldmark.data.species_list import read_species_list

        found = read_species_list(path)
        return accepted_names(checklist, found, classifier.taxa) if checklist else found

    if only:
        classifier = classifier.only(names(only))
        logger.info(
            f"Only {len(classifier.taxa):,} of {known:,} labels are possible ({only}); their "
            "probabilities are renormalised."
        )
    if prior:
        classifier = classifier.favouring(names(prior), prior.stem)
    if classifier.favoured:
        logger.info(classifier.favoured.said)
    return classifier
