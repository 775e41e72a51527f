"""`fieldmark rank`: options -> config -> one call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    DecodingTier,
    EngineName,
    EngineOption,
    Seed,
    TierOption,
    WeightsDir,
    use_cache,
)
from fieldmark.utils import io
from fieldmark.utils.logging import format_duration

if TYPE_CHECKING:
    from fieldmark.experiments.model_ranking import NetworkRanking


def rank(
    data: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    network: Annotated[
        list[str] | None,
        typer.Option(help="A network to rank; may be given more than once. All at hand otherwise."),
    ] = None,
    weights_dir: WeightsDir = None,
    limit: Annotated[int, typer.Option(help="Use at most so many photos.", min=2)] = 5000,
    against: Annotated[
        Path | None,
        typer.Option(help="A study.json: how well the ranking foretells its trained heads."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    cache: Cache = None,
) -> None:
    """Which network suits your photos, in minutes and without training one."""
    use_cache(cache)
    from fieldmark.experiments.model_ranking import RankConfig, agreement
    from fieldmark.experiments.model_ranking import rank as run
    from fieldmark.experiments.records import StudyRecord

    study = None if against is None else StudyRecord.from_dict(io.read_json(against), against)
    found = run(
        data,
        RankConfig(tuple(network or ()), weights_dir, limit, seed, engine.value, tier.value),
    )
    if study is not None:
        found = replace(found, agreement=agreement(found, study))
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: NetworkRanking) -> list[str]:
    """The ranking for a person."""
    lines = [
        f"{found.photos:,} photos of {found.classes:,} classes; the best network first.",
        f"{'network':<24} {'ridge error':<24} {'means':>6} {'G-MACs':>7} {'time':>8}",
    ]
    for row in found.networks:
        low, high = row.ridge.interval
        error = f"{row.ridge.error:.3f} ({low:.3f} to {high:.3f})"
        marked = "" if row.weights_complete else "  weights (partly) RANDOM"
        lines.append(
            f"{row.backbone:<24} {error:<24} {row.ncm.error:>6.3f} "
            f"{row.giga_macs:>7.2f} {format_duration(row.seconds):>8}"
            f"{'  a tie with the first' if row.tie else ''}{marked}"
        )
    if told := found.agreement:
        lines.append(
            f"Rank correlation with the trained heads of {told.networks} networks: ridge "
            f"{told.ridge:.2f}, means {told.ncm:.2f}."
        )
    return lines
