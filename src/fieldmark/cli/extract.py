"""Compute and cache the features of photos, or of one shard of them, for train and study.

Arguments:
    photos: Photos in any layout, or a table of `fieldmark index`.
Network:
    backbone: A network; repeat for several. [default: tf_efficientnet_lite0]
Computing:
    compute: How precisely the network computes: exact in float32, or half in 16 bits.
    shard: Which shard this process computes: i/n, from 1/n to n/n.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, Crop, EngineName
from fieldmark.utils.errors import InputError


def extract(
    photos: Path,
    backbone: tuple[str, ...] = ("tf_efficientnet_lite0",),
    shard: str = "1/1",
    weights: str = "pretrained",
    weights_dir: Path | None = None,
    engine: EngineName = "auto",
    compute: Compute = "exact",
    size: str | None = None,
    crop: Crop | None = None,
    cluster: str | None = None,
    shards: opt.Positive = 16,
    source: str | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.data.transforms import FITS
    from fieldmark.features import sharded
    from fieldmark.features.extractor import FeatureExtractor, View
    from fieldmark.models import load, named
    from fieldmark.models.runtime import float_tier

    tier = float_tier(compute)
    mine = sharded.Shard.parse(shard)
    if cluster is not None and mine.of > 1:
        raise InputError("--shard is for a process without a cluster: with --cluster, give --shards only.")
    table = sharded.read(photos, source=source)
    how: dict[str, Any] = {
        "weights": weights,
        "weights_dir": weights_dir,
        "size": opt.side(size),
        "tier": tier,
    }
    given = [named(name, weights_dir) for name in backbone]
    networks = dict.fromkeys(given, how)
    extractor = FeatureExtractor(View(FITS.get(crop)), engine=engine)
    with opt.cluster_workers(cluster, shards) as workers:
        if workers:
            report = workers.extract(table, networks, extractor)
        else:
            backbones = {name: load(name, **each) for name, each in networks.items()}
            report = sharded.extract_shard(mine.share(table), backbones, extractor, mine)
    where = f"{shards} shards on {cluster}" if cluster else f"Shard {mine.number}/{mine.of}"
    for photo_id, error in report.rejected.items():
        click.echo(f"{photo_id}: {error}")
    if report.rejected and not report.photos:
        raise InputError(
            f"{where}: none of {len(report.rejected):,} photos can be used, for the reasons printed above: "
            "give a folder whose photos can be read; on a cluster, at the same path on every node."
        )
    click.echo(
        f"{where}: {report.photos:,} photos with cached features ({report.computed:,} computed now), "
        f"{len(report.rejected):,} rejected"
    )
