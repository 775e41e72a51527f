"""Run a check: measure, compare, reject what was asked for, write the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fieldmark import models, reports
from fieldmark.curation import findings
from fieldmark.curation.clocks import wrong_clocks
from fieldmark.curation.config import DROP_REASONS, CheckConfig, CheckResult
from fieldmark.curation.orientation import rotation_log_odds
from fieldmark.data import readers, synonyms
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import photo_finder
from fieldmark.features import image_stats
from fieldmark.features.cache import Features
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import Backbone
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import speaking

KIND = publishing.Kind("check", "findings.json", ("checked.parquet", "findings.parquet", "report.html"))


def check(
    photos: Path,
    out: Path,
    config: CheckConfig,
    *,
    command: str = "",
    read: Callable[[Path], PhotoTable] | None = None,
) -> CheckResult:
    """Find near-duplicates, leaks, suspect labels and poor photos, and write the results to `out`.

    Args:
        photos: Photos in any layout, or a table of them.
        out: The folder to write to: new, empty, or of an older check.
        config: The configuration.
        command: The command line, for the page.
        read: Reads the photos, cut to the boxes of `config`; it may fill the caches of features and image
            statistics. None: `readers.read`.

    Raises:
        InputError: The photos, the network or the folder cannot be used.
        StoreError: Another process writes to the folder.
    """
    if unknown := [name for name in config.drop if name not in DROP_REASONS]:
        raise InputError(f"--drop {unknown[0]} is unknown: choose from {', '.join(DROP_REASONS)}.")
    if not 0 <= config.label_precision <= 1:
        raise InputError(f"--label-precision is {config.label_precision:g}: give a share from 0 to 1.")
    config = replace(config, backbone=models.named(config.backbone, config.weights_dir))
    boxes = readers.BoxFile.of(config.boxes, config.box_threshold)
    with publishing.claimed(out, KIND):
        result = _check(photos, config, read or partial(readers.read, boxes=boxes))
        table, counts = result.table, result.summary.to_dict()
        about = {"name": str(table.root), "command": command, "dropped": table.reasons()}
        about["rejected_names"] = table.rejected_names()
        with speaking(config.language):
            page = reports.check_page(
                result.findings,
                counts,
                taxonomy=table.taxonomy,
                photos=photo_finder(table),
                about=asdict(config) | about,
            )
        with publishing.publishing(out, KIND) as staging:
            table.write(staging / "checked.parquet")
            io.write_table(staging / "findings.parquet", result.findings)
            io.write_text(staging / "report.html", page)
            io.write_json(staging / "findings.json", counts)
    return result


def _check(photos: Path, config: CheckConfig, read: Callable[[Path], PhotoTable]) -> CheckResult:
    split = Split.read(config.split) if config.split else None
    accepted = synonyms.read(config.names)
    backbone = models.load(
        config.backbone, weights=config.weights, weights_dir=config.weights_dir, seed=config.seed
    )
    extractor = FeatureExtractor(engine=config.engine)
    table, stats, features = _measure(accepted.apply(read(photos)), extractor, backbone, config)
    rotated_N = rotation_log_odds(extractor, backbone, files_of(table), features, config.seed)
    found = findings.findings_of(table.kept, split, stats, features, rotated_N, config)
    found = found.with_columns(wrong_clocks(table))
    grouped = findings.group_near_duplicates(table, found)
    return CheckResult(findings.drop(grouped, found, config.drop), found, findings.summarize(found))


def _measure(
    table: PhotoTable, extractor: FeatureExtractor, backbone: Backbone, config: CheckConfig
) -> tuple[PhotoTable, image_stats.ImageStats, Features]:
    """Compute statistics and features of all photos; reject those that cannot be decoded."""
    stats = image_stats.compute(files_of(table), extractor.store)
    ids = table.kept["id"]  # before any photo is rejected
    for at, error in stats.rejected.items():
        table = table.reject([ids[at]], error.reason.value)
    extraction = extractor.compute(files_of(table), {config.backbone: backbone})
    table = table.reject_files(extraction.rejected)
    photos = files_of(table)
    features = extractor.cache(backbone).get([photo.sha256 for photo in photos])
    return table, image_stats.compute(photos, extractor.store), features


def files_of(table: PhotoTable) -> list[PhotoFile]:
    """Return the kept photos with their digests; InputError if there are none, or they were not read yet."""
    if table.kept.is_empty() or table.kept["sha256"].null_count():
        raise InputError(f"{table.root} contains no photos that were read: name a folder of photos.")
    rows = table.kept.select("sha256", "path").iter_rows()
    return [PhotoFile(digest, table.file_of(path)) for digest, path in rows]


def lines(result: CheckResult) -> Iterator[str]:
    """Describe the result for the terminal."""
    counts = result.summary.to_dict()
    for key, text in (
        ("photos", "Photos checked"),
        ("labelled", "Photos with a label"),
        ("duplicates", "Duplicates"),
        ("near-duplicates", "Near-duplicates, duplicates included"),
        ("twins_with_other_labels", "Near-duplicates with different labels"),
        ("leaking", "Photos in leaks (near-duplicates or groups in several parts)"),
        ("labels", "Suspect labels"),
        ("to_review", "Labels worth a review, suspect ones included"),
        ("clock", "Photos whose time cannot be right"),
        *((name, name.capitalize()) for name in ("dark", "blurred", "tiny", "rotated")),
    ):
        share = counts["label_precision"] if key == "labels" else None
        yield f"{text}: {counts[key]:,}" + (f" (about {share:.0%} of them wrong)" if share else "")
    yield f"Photos kept in the table: {result.table.kept.height:,} of {len(result.table):,}"
