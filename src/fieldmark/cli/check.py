"""`fieldmark check`: find problems of photos and labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    Cluster,
    Data,
    Engine,
    Names,
    Seed,
    Shards,
    Weights,
    WeightsDir,
    cluster_workers,
    command_line,
    config_from,
    in_network,
    split_at_commas,
    use_cache,
)

threshold = partial(typer.Option, rich_help_panel="Thresholds")


def check(
    photos: Data,
    out: Annotated[Path, typer.Option(help="The folder to write the report and tables to.")],
    drop: Annotated[
        str | None,
        typer.Option(help="Findings to reject, separated by commas: duplicates,labels,..."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="A file of `fieldmark split`: find leaks across its parts.")
    ] = None,
    dark: Annotated[
        float, threshold(help="Dark: 95 % of the photo is darker than this share of white.")
    ] = 0.25,
    blurred: Annotated[
        float, threshold(help="Blurred: a blur of this or more, from 0 (sharp) to 1.")
    ] = 0.7,
    tiny: Annotated[int, threshold(help="Tiny: fewer pixels on the shorter side.")] = 64,
    rotated: Annotated[
        float, threshold(help="Rotated: more likely by this many nats, summed over four views.")
    ] = 6.0,
    names: Names = None,
    backbone: Annotated[
        str, in_network(help="The network, also any of timm's.")
    ] = "tf_efficientnet_lite0",
    weights: Weights = "pretrained",
    weights_dir: WeightsDir = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    cluster: Cluster = None,
    shards: Shards = 16,
    cache: Cache = None,
) -> None:
    """Find duplicates, leaks, wrong labels and poor photos; reject only those of --drop."""
    options = locals()
    use_cache(cache)
    from fieldmark.curation import CheckConfig, lines
    from fieldmark.curation import check as run
    from fieldmark.data import readers

    config = config_from(CheckConfig, options, drop=split_at_commas(drop))
    with cluster_workers(cluster, shards) as workers:
        read = workers.ready_to_check(config) if workers else readers.read
        checked = run(photos, out, config, command=command_line(), read=read)
    for line in lines(checked):
        typer.echo(line)
    typer.echo(f"Report: {out / 'report.html'}")
    typer.echo(f"Table:  {out / 'checked.parquet'}, for `fieldmark train`")
