"""Options that several commands share, and what commands do with them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fieldmark.utils.choices import DecodingTier, EngineName, SplitMethod

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from fieldmark.data.photos import PhotoTable
    from fieldmark.distributed.cluster import Workers

C = TypeVar("C", bound="DataclassInstance")

# Groups of options, in which `--help` lists them.
in_data = partial(typer.Option, rich_help_panel="Data")
in_network = partial(typer.Option, rich_help_panel="Network")
in_training = partial(typer.Option, rich_help_panel="Training")
in_computing = partial(typer.Option, rich_help_panel="Computing")

Model = Annotated[
    Path, typer.Argument(help="The folder of a classifier that `fieldmark train` wrote.")
]
Data = Annotated[Path, typer.Argument(help="Photos, an annotation file, or a table of `index`.")]
LabelledPhotos = Annotated[Path, typer.Argument(help="Labelled photos in any layout.")]
ClassifierOut = Annotated[Path, typer.Option(help="The folder to write the classifier to.")]
TableOut = Annotated[Path, typer.Option(help="The Parquet table to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Thumbnails = Annotated[
    bool,
    typer.Option(
        "--thumbnails", help="Store thumbnails of training photos in the classifier's folder."
    ),
]

Limit = Annotated[int | None, in_data(help="Use at most this many photos.", min=1)]
Seed = Annotated[int, in_data(help="The seed of the split and of training.")]
Source = Annotated[str | None, in_data(help="The layout of the photos. [default: detected]")]
Names = Annotated[
    Path | None, in_data(help="A CSV table name,accepted: replace labels by accepted names.")
]
Split = Annotated[
    SplitMethod, in_data(help="Divide by class, at random, or as the source defines it.")
]

Weights = Annotated[str, in_network(help="pretrained, random, or a file of weights.")]
WeightsDir = Annotated[
    Path | None, in_network(help="A folder of weights, searched before any download.")
]
Bfloat16 = Annotated[
    bool,
    in_training(
        "--bfloat16", help="Train the network in bfloat16: faster where the hardware supports it."
    ),
]

Engine = Annotated[
    EngineName, in_computing(help="What runs the network; auto measures which is fastest.")
]
Tier = Annotated[
    DecodingTier,
    in_computing(help="Decode photos in full, or large JPEGs at a reduced size (fast)."),
]
Cluster = Annotated[
    str | None,
    in_computing(help="Run on a Ray cluster: its address, or local to start one here."),
]
Shards = Annotated[
    int,
    in_computing("--shards", help="On a cluster: the number of tasks to divide into.", min=1),
]
Cache = Annotated[
    Path | None, in_computing(help="The folder of the cache (features, converted networks).")
]


def config_from(kind: type[C], options: Mapping[str, Any], **derived: Any) -> C:
    """Build a configuration from the options that are named like its fields.

    Args:
        kind: the dataclass of the configuration.
        options: the values of a command's options by name: its `locals()`.
        derived: further fields, and fields whose value is not that of the option of this name.
    """
    named = {each.name: options[each.name] for each in fields(kind) if each.name in options}
    return kind(**named | derived)


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
    name = Path(sys.argv[0]).name
    # `python -m fieldmark` is the same program.
    return shlex.join(["fieldmark" if name == "__main__.py" else name, *sys.argv[1:]])


def write_table(table: PhotoTable, out: Path) -> None:
    """Write a table of photos, and print how many were kept and why others were rejected."""
    table.write(out)
    kept = table.kept.height
    typer.echo(f"{len(table):,} photos found = {kept:,} kept + {len(table) - kept:,} rejected")
    for reason, count in table.reasons().items():
        typer.echo(f"  {count:,} {reason}")
    typer.echo(f"{len(table.taxonomy):,} taxa; written to {out}")
