"""`fieldmark check`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    EngineName,
    EngineOption,
    Seed,
    WeightsDir,
    typed,
    use_cache,
)


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
    backbone: Annotated[
        str, typer.Option(help="The network; any name of timm's works too.")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    cache: Cache = None,
) -> None:
    """Find duplicates, leaks, wrong labels and poor pictures; nothing is removed unless asked."""
    use_cache(cache)
    from fieldmark.check import CheckConfig, lines
    from fieldmark.check import check as run

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
        seed=seed,
    )
    for line in lines(run(photos, out, config, command=typed())):
        typer.echo(line)
    typer.echo(f"Page:  {out / 'report.html'}")
    typer.echo(f"Table: {out / 'checked.parquet'}, for `fieldmark train`")
