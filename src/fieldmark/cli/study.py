"""`fieldmark study`: compare networks and ways of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Bfloat16,
    Cache,
    Engine,
    LabelledPhotos,
    Limit,
    Names,
    Seed,
    Split,
    Tier,
    WeightsDir,
    command_line,
    config_from,
    in_data,
    in_network,
    in_training,
    use_cache,
)
from fieldmark.utils.logging import format_duration


def study(
    recipe: Annotated[str, typer.Argument(help="paper, better, tuned, or a Python file.")],
    data: LabelledPhotos,
    out: Annotated[Path, typer.Option(help="The folder to write the study to.")],
    only: Annotated[list[str] | None, typer.Option(help="Run only this table; repeatable.")] = None,
    limit: Limit = None,
    names: Names = None,
    prune_below: Annotated[
        int | None,
        in_data(help="Prune classes with fewer training photos. [default: by the data]", min=1),
    ] = None,
    rare_below: Annotated[
        int, in_data(help="Classes with fewer training photos are rare.", min=1)
    ] = 30,
    frequent_from: Annotated[
        int, in_data(help="Classes with this many training photos are frequent.", min=1)
    ] = 100,
    split: Split = "stratified",
    test: Annotated[float, in_data(help="The share of test photos.")] = 0.1,
    seed: Seed = 0,
    weights_dir: WeightsDir = None,
    skip_missing: Annotated[
        bool,
        in_network("--skip-missing", help="Leave out networks without pretrained weights."),
    ] = False,
    epochs: Annotated[int, in_training(help="The number of epochs.", min=1)] = 10,
    long_epochs: Annotated[
        int, in_training(help='The number for "more than 10 epochs".', min=1)
    ] = 100,
    bfloat16: Bfloat16 = False,
    engine: Engine = "auto",
    tier: Tier = "exact",
    cache: Cache = None,
) -> None:
    """Compare networks and ways of training on your photos: the paper's study, or your own."""
    options = locals()
    use_cache(cache)
    from fieldmark.experiments import recipes
    from fieldmark.experiments.study import StudyConfig
    from fieldmark.experiments.study import study as run

    wanted = config_from(recipes.Options, options)
    config = config_from(
        StudyConfig,
        options,
        options=wanted,
        only=tuple(only or ()),
        precision="bfloat16" if bfloat16 else "float32",
        bands=(rare_below, frequent_from),
    )
    found = run(data, out, recipes.find(recipe)(wanted), config, command=command_line())
    typer.echo(f"{len(found['rows'])} rows in {format_duration(found['seconds'])}")
    typer.echo(f"Numbers: {out / 'study.json'}")
    typer.echo(f"Report:  {out / 'report.html'}")
