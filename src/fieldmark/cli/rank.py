"""Rank networks for your photos in minutes, without training them.

Arguments:
    data: Labelled photos in any layout.
Options:
    split: As for train; location: judge by new places.
    groups: Find bursts and near-duplicates and keep them together, or not.
    against: A study.json: print the rank correlation with its trained heads.
Network:
    network: A network to rank; repeatable. [default: all whose weights are available]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.utils import io
from fieldmark.utils.choices import Crop, DecodingTier, EngineName, FloatTierName, Grouping, SplitMethod
from fieldmark.utils.logging import format_duration

if TYPE_CHECKING:
    from fieldmark.experiments.model_ranking import NetworkRanking


def rank(
    data: Path,
    network: tuple[str, ...] = (),
    weights_dir: Path | None = None,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    limit: Annotated[int, click.IntRange(2)] = 5000,
    split: SplitMethod = "stratified",
    groups: Grouping = "auto",
    against: Path | None = None,
    json: bool = False,
    seed: int = 0,
    engine: EngineName = "auto",
    compute: FloatTierName = "exact",
    size: str | None = None,
    crop: Crop | None = None,
    tier: DecodingTier = "exact",
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.experiments.model_ranking import RankConfig, agreement
    from fieldmark.experiments.model_ranking import rank as run
    from fieldmark.experiments.records import StudyRecord

    study = None if against is None else StudyRecord.from_dict(io.read_json(against), against)
    found = run(data, opt.config_from(RankConfig, options, networks=network, size=opt.side(size)))
    if study is not None:
        found = replace(found, agreement=agreement(found, study))
    click.echo(io.to_json(found.to_dict()).rstrip() if json else "\n".join(_lines(found)))


def _lines(found: NetworkRanking) -> list[str]:
    """Format the ranking for the terminal."""
    lines = [
        f"{found.photos:,} photos of {found.classes:,} classes; the best network first.",
        f"{'network':<24} {'ridge error':<24} {'means':>6} {'G-MACs':>7} {'time':>8}",
    ]
    for row in found.networks:
        low, high = row.ridge.interval
        error = f"{row.ridge.error:.3f} ({low:.3f} to {high:.3f})"
        notes = "  a tie with the first" if row.tie else ""
        notes += "" if row.weights_complete else "  (some) random weights"
        lines.append(
            f"{row.backbone:<24} {error:<24} {row.ncm.error:>6.3f} "
            f"{row.giga_macs:>7.2f} {format_duration(row.seconds):>8}{notes}"
        )
    if shared := found.agreement:
        lines.append(
            f"Rank correlation with the trained heads of {shared.networks} networks: ridge "
            f"{shared.ridge:.2f}, means {shared.ncm:.2f}."
        )
    return lines
