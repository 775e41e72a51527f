"""The way through a check: look, compare, judge, drop what was asked, write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fieldmark import models
from fieldmark.curation import filters, image_stats, writing
from fieldmark.curation.config import DROPS, CheckConfig, Checked
from fieldmark.curation.findings import findings_of
from fieldmark.curation.orientation import sideways
from fieldmark.data import readers, synonyms
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.split import Split
from fieldmark.features.cache import Features
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import Backbone
from fieldmark.utils import publishing
from fieldmark.utils.errors import InputError


def check(
    photos: Path,
    out: Path,
    config: CheckConfig,
    *,
    command: str = "",
    read: Callable[[Path], PhotoTable] = readers.read,
) -> Checked:
    """Look for twins, leaks, suspect labels and pictures that show little; write it all to `out`.

    Args:
        photos: photos in any layout that `fieldmark.data.readers` reads, or a table of them.
        out: the folder to write to; it must be new, empty, or an older check.
        config: the choices.
        command: what was typed, for the page.
        read: reads the photos; on the way it may bring what is asked of them onto the shelves.

    Raises:
        InputError: anything about the photos, the network or the folder that stands in the way.
        StoreError: another process writes to the folder.
    """
    if unknown := [name for name in config.drop if name not in DROPS]:
        raise InputError(f"--drop {unknown[0]} is unknown: choose from {', '.join(DROPS)}.")
    with publishing.claimed(out, writing.KIND):
        checked, table = _checked(photos, config, read)
        writing.write(out, checked, table, config, command)
    return checked


def _checked(
    photos: Path, config: CheckConfig, read: Callable[[Path], PhotoTable]
) -> tuple[Checked, PhotoTable]:
    """What came of a check, and the table that it is of."""
    split = Split.read(config.split) if config.split else None
    accepted = synonyms.read(config.names)
    backbone = models.load(
        config.backbone, weights=config.weights, weights_dir=config.weights_dir, seed=config.seed
    )
    extractor = FeatureExtractor(engine=config.engine)
    found = accepted.apply(read(photos))
    table, seen, features = _look(found, extractor, backbone, config)
    sideways_N = sideways(extractor, backbone, files_of(table), features, config.seed)
    findings = findings_of(table.kept, split, seen, features, sideways_N, config)
    dropped = filters.dropped(filters.grouped(table, findings), findings, config.drop)
    return Checked(dropped, findings, filters.summary(findings)), table


def _look(
    table: PhotoTable, extractor: FeatureExtractor, backbone: Backbone, config: CheckConfig
) -> tuple[PhotoTable, image_stats.Looks, Features]:
    """What all photos look like, and their features; what cannot be decoded is rejected."""
    photos = files_of(table)
    seen = image_stats.look(photos, extractor.store)
    ids = table.kept["id"]  # taken once: what is rejected is no longer among the kept
    for at, error in seen.rejected.items():
        table = table.reject([ids[at]], error.reason.value)
    extraction = extractor.compute(files_of(table), {config.backbone: backbone})
    table = table.reject_files(extraction.rejected)
    photos = files_of(table)
    digests = [photo.sha256 for photo in photos]
    return table, image_stats.look(photos, extractor.store), extractor.cache(backbone).get(digests)


def files_of(table: PhotoTable) -> list[PhotoFile]:
    """The photos that can be used, with their digests.

    Raises:
        InputError: there are none, or they were not looked at.
    """
    if table.kept.is_empty() or table.kept["sha256"].null_count():
        raise InputError(f"{table.root} holds no photos to look at: name a folder that has them.")
    columns = table.kept.select("sha256", "path").iter_rows()
    return [PhotoFile(digest, table.file_of(path)) for digest, path in columns]
