"""Options that several verbs share, and what they mean to all of them."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SplitWay(StrEnum):
    """How photos are divided."""

    stratified = "stratified"
    random = "random"
    official = "official"


class EngineName(StrEnum):
    """What runs the networks."""

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    cuda = "cuda"


class DecodingTier(StrEnum):
    """How photos are decoded."""

    exact = "exact"
    fast = "fast"


WeightsDir = Annotated[
    Path | None,
    typer.Option(help="A folder of weights, looked into before anything is downloaded."),
]


Limit = Annotated[int | None, typer.Option(help="Use at most so many photos.", min=1)]


Seed = Annotated[int, typer.Option(help="Of the split and of the order of training.")]


SplitOption = Annotated[
    SplitWay, typer.Option(help="Divide by class, plainly at random, or as the source says.")
]


Cache = Annotated[
    Path | None, typer.Option(help="Where features and converted networks are kept between runs.")
]


EngineOption = Annotated[
    EngineName, typer.Option(help="What runs the networks; auto measures which is fastest here.")
]


TierOption = Annotated[
    DecodingTier, typer.Option(help="Decode photos in full, or large ones at a part of their size.")
]


SourceOption = Annotated[
    str | None, typer.Option(help="The layout of the photos; by default it is recognised.")
]


ClusterOption = Annotated[
    str | None, typer.Option(help="Over a Ray cluster: its address, or local for one here.")
]


SharesOption = Annotated[
    int,
    typer.Option("--shards", help="Over a cluster: into how many tasks photos are cut.", min=1),
]


NamesOption = Annotated[
    Path | None,
    typer.Option(help="A table name,accepted: labels under the names that are accepted now."),
]


def use_cache(folder: Path | None) -> None:
    """Keep features and converted networks there, in this process and those that it starts."""
    if folder is not None:
        os.environ["FIELDMARK_CACHE"] = str(folder.resolve())


def typed() -> str:
    """What was typed, for the page: the program's name without its folder."""
    name = Path(sys.argv[0]).name
    # `python -m fieldmark` is the same program.
    return shlex.join(["fieldmark" if name == "__main__.py" else name, *sys.argv[1:]])
