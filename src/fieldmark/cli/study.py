"""Compare networks and ways of training on your photos: the paper's study, or your own.

Arguments:
    recipe: paper, better, tuned, foundation, compact, traps, or a Python file.
    data: Labelled photos in any layout.
Options:
    out: The folder to write the study to.
    only: Run only this table; repeatable.
Data:
    groups: Find bursts and near-duplicates and keep them together, or not. [default: auto; of paper: none]
    prune_below: Prune classes with fewer training photos. [default: by the data]
    rare_below: Classes with fewer training photos are rare.
    frequent_from: Classes with this many training photos are frequent.
    test: The share of test photos.
Network:
    backbone: A network of the recipes foundation, compact and traps; repeatable. [default: all whose weights
        are here; of traps: the default network]
    skip_missing: Leave out networks without pretrained weights.
Training:
    epochs: The number of epochs.
    long_epochs: The number for "more than 10 epochs".
"""

from __future__ import annotations

from pathlib import Path

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, DecodingTier, EngineName, Grouping, Language, SplitMethod
from fieldmark.utils.logging import format_duration


def study(
    recipe: str,
    data: Path,
    out: Path,
    only: tuple[str, ...] = (),
    backbone: tuple[str, ...] = (),
    limit: opt.OptionalPositive = None,
    names: Path | None = None,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    prune_below: opt.OptionalPositive = None,
    rare_below: opt.Positive = 30,
    frequent_from: opt.Positive = 100,
    split: SplitMethod = "stratified",
    groups: Grouping | None = None,
    test: float = 0.1,
    seed: int = 0,
    weights_dir: Path | None = None,
    skip_missing: bool = False,
    epochs: opt.Positive = 10,
    long_epochs: opt.Positive = 100,
    bfloat16: bool = False,
    language: Language = "en",
    engine: EngineName = "auto",
    compute: Compute = "exact",
    tier: DecodingTier = "exact",
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.experiments import Options, StudyConfig
    from fieldmark.experiments import study as run

    config = opt.config_from(
        StudyConfig,
        options,
        options=opt.config_from(Options, options, backbones=tuple(dict.fromkeys(backbone))),
        only=only,
        precision="bfloat16" if bfloat16 else "float32",
        bands=(rare_below, frequent_from),
    )
    found = run(data, recipe, config, out=out, command=opt.command_line()).record
    click.echo(f"Rows:    {len(found.rows)}, in {format_duration(found.seconds or 0.0)}")
    click.echo(f"Numbers: {out / 'study.json'}\nReport:  {out / 'report.html'}")
