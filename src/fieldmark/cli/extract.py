"""`fieldmark extract`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    ClusterOption,
    EngineName,
    EngineOption,
    SharesOption,
    SourceOption,
    WeightsDir,
    use_cache,
)
from fieldmark.utils.errors import InputError


def extract(
    photos: Annotated[Path, typer.Argument(help="Photos in any layout, or their table.")],
    backbone: Annotated[
        list[str] | None, typer.Option(help="A network; again for more, which share the decoding.")
    ] = None,
    shard: Annotated[
        str, typer.Option(help="Which share of the photos, i/n: one of n processes does one.")
    ] = "1/1",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    engine: EngineOption = EngineName.auto,
    cluster: ClusterOption = None,
    shards: SharesOption = 16,
    source: SourceOption = None,
    cache: Cache = None,
) -> None:
    """Compute the features of one shard of the photos, and keep them for train and study."""
    use_cache(cache)
    from fieldmark.features import sharded as room
    from fieldmark.features.extractor import FeatureExtractor
    from fieldmark.models import load

    mine = room.Shard.parse(shard)
    if cluster is not None and mine.of > 1:
        raise InputError("--shard is one process's share: over a --cluster, name --shards alone.")
    table = room.read(photos, source=source)
    names = backbone or ["tf_efficientnet_lite0"]
    how = {"weights": weights, "weights_dir": weights_dir}
    extractor = FeatureExtractor(engine=engine.value)
    if cluster is not None:
        from fieldmark.distributed.cluster import connected

        with connected(cluster, shards) as workers:
            report = workers.extract(table, dict.fromkeys(names, how), extractor)
    else:
        backbones = {name: load(name, weights=weights, weights_dir=weights_dir) for name in names}
        report = room.extract_shard(mine.share(table), backbones, extractor, mine)
    where = f"{shards} shards on {cluster}" if cluster else f"Shard {mine.number}/{mine.of}"
    for photo_id, error in report.rejected.items():
        typer.echo(f"{photo_id}: {error}")
    if report.rejected and not report.photos:
        raise InputError(
            f"{where}: none of {len(report.rejected):,} photos can be used, as said above: name a "
            "folder whose photos can be read; over a cluster they lie at the same place on every node."
        )
    typer.echo(
        f"{where}: {report.photos:,} photos have their features "
        f"({report.computed:,} computed now), {len(report.rejected):,} cannot be used."
    )
