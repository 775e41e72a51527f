"""Find duplicates, leaks, wrong labels and poor photos; reject only those of --drop.

Arguments:
    photos: Photos in any layout.
Options:
    out: The folder to write the report and tables to.
    drop: Findings to reject, separated by commas: duplicates,labels,...
    split: A file of `fieldmark split`: find leaks across its parts.
Thresholds:
    dark: Dark: 95 % of the photo is darker than this share of white.
    blurred: Blurred: a blur of this or more, from 0 (sharp) to 1.
    tiny: Tiny: fewer pixels on the shorter side.
    label_precision: Labels: the share of those marked as suspect that should be wrong.
    rotated: Rotated: more likely by this many nats, summed over four views.
Network:
    backbone: The network, also any of timm's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import EngineName, Language


def check(
    photos: Path,
    out: Path,
    drop: str | None = None,
    split: Path | None = None,
    dark: float = 0.25,
    blurred: float = 0.7,
    tiny: int = 64,
    rotated: float = 6.0,
    label_precision: Annotated[float, opt.Number(0, 1)] = 0.8,
    names: Path | None = None,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    backbone: str = "tf_efficientnet_lite0",
    weights: str = "pretrained",
    weights_dir: Path | None = None,
    language: Language = "en",
    seed: int = 0,
    engine: EngineName = "auto",
    cluster: str | None = None,
    shards: opt.Positive = 16,
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.curation import CheckConfig, lines
    from fieldmark.curation import check as run
    from fieldmark.models import named

    network = named(backbone, weights_dir)  # once, for all tasks of a cluster
    config = opt.config_from(CheckConfig, options, drop=opt.split_at_commas(drop), backbone=network)
    with opt.cluster_workers(cluster, shards) as workers:
        read = workers.ready_to_check(config) if workers else None
        checked = run(photos, out, config, command=opt.command_line(), read=read)
    click.echo("\n".join(lines(checked)))
    click.echo(f"Report: {out / 'report.html'}\nTable:  {out / 'checked.parquet'}, for `fieldmark train`")
