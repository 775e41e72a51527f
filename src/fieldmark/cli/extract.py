"""`fieldmark extract`: compute and cache features."""

from __future__ import annotations

from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    Cluster,
    Data,
    Engine,
    Shards,
    Source,
    Weights,
    WeightsDir,
    cluster_workers,
    in_computing,
    in_network,
    use_cache,
)
from fieldmark.utils.errors import InputError


def extract(
    photos: Data,
    backbone: Annotated[
        list[str] | None,
        in_network(help="A network; repeat for several. [default: tf_efficientnet_lite0]"),
    ] = None,
    shard: Annotated[
        str, in_computing(help="Which shard this process computes: i/n, from 1/n to n/n.")
    ] = "1/1",
    weights: Weights = "pretrained",
    weights_dir: WeightsDir = None,
    engine: Engine = "auto",
    cluster: Cluster = None,
    shards: Shards = 16,
    source: Source = None,
    cache: Cache = None,
) -> None:
    """Compute and cache the features of photos, or of one shard of them, for train and study."""
    use_cache(cache)
    from fieldmark.features import sharded
    from fieldmark.features.extractor import FeatureExtractor
    from fieldmark.models import load

    mine = sharded.Shard.parse(shard)
    if cluster is not None and mine.of > 1:
        raise InputError(
            "--shard is for a process without a cluster: with --cluster, give --shards only."
        )
    table = sharded.read(photos, source=source)
    how = {"weights": weights, "weights_dir": weights_dir}
    networks = dict.fromkeys(backbone or ["tf_efficientnet_lite0"], how)
    extractor = FeatureExtractor(engine=engine)
    with cluster_workers(cluster, shards) as workers:
        if workers:
            report = workers.extract(table, networks, extractor)
        else:
            backbones = {
                name: load(name, weights=weights, weights_dir=weights_dir) for name in networks
            }
            report = sharded.extract_shard(mine.share(table), backbones, extractor, mine)
    where = f"{shards} shards on {cluster}" if cluster else f"Shard {mine.number}/{mine.of}"
    for photo_id, error in report.rejected.items():
        typer.echo(f"{photo_id}: {error}")
    if report.rejected and not report.photos:
        raise InputError(
            f"{where}: all {len(report.rejected):,} photos are rejected, for the reasons printed "
            "above: give a folder whose photos can be read; on a cluster, at the same path on every "
            "node."
        )
    typer.echo(
        f"{where}: features of {report.photos:,} photos are cached ({report.computed:,} computed "
        f"now); {len(report.rejected):,} photos rejected"
    )
