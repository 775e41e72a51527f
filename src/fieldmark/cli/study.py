"""`fieldmark study`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    DecodingTier,
    EngineName,
    EngineOption,
    Limit,
    NamesOption,
    Seed,
    SplitWay,
    TierOption,
    WeightsDir,
    typed,
    use_cache,
)
from fieldmark.utils.logging import format_duration


def study(
    recipe: Annotated[str, typer.Argument(help="paper, better, tuned, or a Python file.")],
    data: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the study to.")],
    limit: Limit = None,
    names: NamesOption = None,
    weights_dir: WeightsDir = None,
    epochs: Annotated[int, typer.Option(help="Passes over the photos.", min=1)] = 10,
    long_epochs: Annotated[int, typer.Option(help='For "more than 10 epochs".', min=1)] = 100,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this table; may be given more than once.")
    ] = None,
    prune_below: Annotated[
        int | None, typer.Option(help="Prune classes with fewer training photos.", min=1)
    ] = None,
    rare_below: Annotated[
        int, typer.Option(help="Classes with fewer training photos are rare.", min=1)
    ] = 30,
    frequent_from: Annotated[
        int, typer.Option(help="Classes with as many training photos are frequent.", min=1)
    ] = 100,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out networks without weights.")
    ] = False,
    split_way: Annotated[
        SplitWay,
        typer.Option("--split", help="By class, plainly at random, or as the source says."),
    ] = SplitWay.stratified,
    test: Annotated[float, typer.Option(help="The share to test on.")] = 0.1,
    bfloat16: Annotated[
        bool,
        typer.Option("--bfloat16", help="Train all layers in half precision: faster on new cores."),
    ] = False,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    cache: Cache = None,
) -> None:
    """Compare networks and ways of training on your photos: the paper's study, or your own."""
    use_cache(cache)
    from fieldmark.experiments import Options, StudyConfig
    from fieldmark.experiments import study as run

    options = Options(epochs=epochs, long_epochs=long_epochs, seed=seed, prune_below=prune_below)
    config = StudyConfig(
        options=options,
        only=tuple(only or ()),
        limit=limit,
        names=names,
        weights_dir=weights_dir,
        skip_missing=skip_missing,
        prune_below=prune_below,
        split=split_way.value,
        test=test,
        engine=engine.value,
        tier=tier.value,
        precision="bfloat16" if bfloat16 else "float32",
        bands=(rare_below, frequent_from),
    )
    found = run(data, recipe, config, out=out, command=typed()).record
    typer.echo(f"{len(found.rows)} rows in {format_duration(found.seconds or 0.0)}")
    typer.echo(f"Numbers: {out / 'study.json'}")
    typer.echo(f"Report:  {out / 'report.html'}")
