"""`fieldmark check`: options -> config -> one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    ClusterOption,
    EngineName,
    EngineOption,
    NamesOption,
    Seed,
    SharesOption,
    WeightsDir,
    typed,
    use_cache,
)

if TYPE_CHECKING:
    from fieldmark.data.photos import PhotoTable


def check(
    photos: Annotated[Path, typer.Argument(help="Photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write page and tables to.")],
    drop: Annotated[
        str | None,
        typer.Option(help="What to reject in the table, with commas: duplicates,labels,..."),
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option("--split", help="Look for leaks across this split's parts.")
    ] = None,
    dark: Annotated[float, typer.Option(help="Dark: 95 % darker than this share of white.")] = 0.25,
    blurred: Annotated[float, typer.Option(help="Blurred: from this on; 0 sharp, 1 not.")] = 0.7,
    tiny: Annotated[int, typer.Option(help="Tiny: with fewer pixels on the shorter side.")] = 64,
    rotated: Annotated[
        float, typer.Option(help="Rotated: likelier on its side by so many nats over four views.")
    ] = 6.0,
    names: NamesOption = None,
    backbone: Annotated[
        str, typer.Option(help="The network; any name of timm's works too.")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    cluster: ClusterOption = None,
    shards: SharesOption = 16,
    cache: Cache = None,
) -> None:
    """Find duplicates, leaks, wrong labels and poor pictures; nothing is removed unless asked."""
    use_cache(cache)
    from fieldmark.curation import CheckConfig, lines
    from fieldmark.curation import check as run
    from fieldmark.data import readers

    config = CheckConfig(
        backbone=backbone,
        weights=weights,
        weights_dir=weights_dir,
        engine=engine.value,
        drop=tuple(name.strip() for name in (drop or "").split(",") if name.strip()),
        split=split_file,
        dark=dark,
        blurred=blurred,
        tiny=tiny,
        rotated=rotated,
        names=names,
        seed=seed,
    )
    with ExitStack() as stack:
        read: Callable[[Path], PhotoTable] = readers.read
        if cluster is not None:
            from fieldmark.distributed.cluster import connected

            read = stack.enter_context(connected(cluster, shards)).ready_to_check(config)
        checked = run(photos, out, config, command=typed(), read=read)
    for line in lines(checked):
        typer.echo(line)
    typer.echo(f"Page:  {out / 'report.html'}")
    typer.echo(f"Table: {out / 'checked.parquet'}, for `fieldmark train`")
