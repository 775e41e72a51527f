"""`fieldmark check`: photos in; out come what may be wrong with them, a page to look at, and a table to
train on. Nothing is removed that was not asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fieldmark import backbones, files, metrics, progress, report, sources
from fieldmark.backbones import Backbone
from fieldmark.crops import PhotoFile
from fieldmark.errors import InputError, RejectReason
from fieldmark.experiment import Bench, photo_finder
from fieldmark.features import Features
from fieldmark.heads import HEADS
from fieldmark.heads.base import LabelledFeatures
from fieldmark.photos import KEPT, PhotoTable
from fieldmark.quality import labels, looks
from fieldmark.quality.near import components
from fieldmark.quality.twins import twins
from fieldmark.sampling import hashes
from fieldmark.split import Split

Ints = npt.NDArray[np.int64]

DROPS = {
    "duplicates": RejectReason.DUPLICATE,
    "near-duplicates": RejectReason.NEAR_DUPLICATE,
    "leaks": RejectReason.LEAK,
    "labels": RejectReason.SUSPECT_LABEL,
    "dark": RejectReason.DARK,
    "blurred": RejectReason.BLURRED,
    "tiny": RejectReason.TINY,
}
"""What can be dropped, by the name of `--drop`, and the reason that the dropped photos get."""

_FEWEST = 20
"""With fewer labelled photos than this the labels are not judged."""


@dataclass(frozen=True)
class CheckConfig:
    """What `fieldmark check` is told.

    Attributes:
        backbone, weights, weights_dir, engine: the network whose features are compared.
        drop: which photos to reject in the table that is written, names of `DROPS`.
        split: a split to look for leaks across; None: the source's own parts.
        dark: a photo is dark where 95 % of it is darker than this, 0 black to 1 white.
        blurred: from this measure of blur on it is blurred, see `quality.looks.blur`.
        tiny: with a shorter side of fewer pixels it is tiny.
        folds: in how many parts photos are divided, each judged by what the others teach.
        seed: of that division.
    """

    backbone: str = backbones.DEFAULT
    weights: str = "pretrained"
    weights_dir: Path | None = None
    engine: str = "auto"
    drop: tuple[str, ...] = ()
    split: Path | None = None
    dark: float = 0.25
    blurred: float = 0.7
    tiny: int = 64
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Checked:
    """What came out.

    Attributes:
        table: the photos, with `group` so that twins stay together, and what was dropped rejected.
        findings: a row for each photo that was kept before, see docs/check.md for the columns.
        summary: how many photos each finding has.
    """

    table: PhotoTable
    findings: pl.DataFrame
    summary: dict[str, int]


def check(
    photos: Path,
    out: Path,
    config: CheckConfig,
    *,
    command: str = "",
    read: Callable[[Path], PhotoTable] = sources.read,
) -> Checked:
    """Look for twins, leaks, suspect labels and pictures that show little; write it all to `out`.

    Args:
        photos: photos in any layout that `fieldmark.sources` reads, or a table of them.
        out: the folder to write to; it must be new, empty, or an older check.
        config: the choices.
        command: what was typed, for the page.
        read: reads the photos; on the way it may bring what is asked of them onto the shelves.

    Raises:
        InputError: anything about the photos, the network or the folder that stands in the way.
    """
    if unknown := [name for name in config.drop if name not in DROPS]:
        raise InputError(f"--drop {unknown[0]} is unknown: choose from {', '.join(DROPS)}.")
    files.check_out(out, "check", "findings.json")
    split = Split.read(config.split) if config.split else None
    backbone = backbones.load(
        config.backbone, weights=config.weights, weights_dir=config.weights_dir, seed=config.seed
    )
    table, seen, features = _look(read(photos), backbone, config)
    rows = table.kept
    found = twins(rows["sha256"].to_list(), seen, features)
    together_N = _together(rows["group"], found.near_N)
    findings = pl.DataFrame(
        {
            "id": rows["id"],
            "taxon_id": rows["taxon_id"],
            "part": _parts(rows, split),
            "same_bytes": _cluster(rows["id"], found.same_N),
            "twins": _cluster(rows["id"], found.near_N),
            "alike": found.alike_N,
            "together": _cluster(rows["id"], together_N),
            **_judged(features, rows, together_N, config),
            "brightness": seen.bright_N,
            "blur": seen.blur_N,
            "short_side": pl.Series(rows.select(pl.min_horizontal("width", "height"))),
        }
    ).with_columns(
        labels_differ=pl.col("taxon_id").drop_nulls().n_unique().over("twins").gt(1) & _is("twins"),
        leak=_leaks("twins") | _leaks("together"),
        dark=pl.col("brightness") < config.dark,
        tiny=pl.col("short_side") < config.tiny,
    )
    findings = findings.with_columns(blurred=(pl.col("blur") >= config.blurred) & ~pl.col("tiny"))
    checked = _dropped(_grouped(table, findings), findings, config.drop)
    summary = _summary(findings)
    _write(out, Checked(checked, findings, summary), table, config, command)
    return Checked(checked, findings, summary)


def _look(
    table: PhotoTable, backbone: Backbone, config: CheckConfig
) -> tuple[PhotoTable, looks.Looks, Features]:
    """What all photos look like, and their features; what cannot be decoded is rejected."""
    bench = Bench(engine=config.engine)
    photos = files_of(table)
    seen = looks.look(photos, bench.store)
    for at, error in seen.rejected.items():
        table = table.reject([table.kept["id"][at]], error.reason.value)
    for _ in bench.compute(files_of(table), {config.backbone: backbone}):
        pass
    table = bench.reject_unreadable(table)
    photos = files_of(table)
    digests = [photo.sha256 for photo in photos]
    return table, looks.look(photos, bench.store), bench.shelf(backbone).get(digests)


def files_of(table: PhotoTable) -> list[PhotoFile]:
    """The photos that can be used, with their digests.

    Raises:
        InputError: there are none, or they were not looked at.
    """
    if table.kept.is_empty() or table.kept["sha256"].null_count():
        raise InputError(f"{table.root} holds no photos to look at: name a folder that has them.")
    columns = table.kept.select("sha256", "path").iter_rows()
    return [PhotoFile(digest, table.file_of(path)) for digest, path in columns]


def _together(group: pl.Series, near_N: Ints) -> Ints:
    """What must stay on one side of a split: twins, and photos of one group of the source."""
    frame = pl.DataFrame({"group": group}).with_row_index("row")
    first = frame.filter(pl.col("group").is_not_null()).with_columns(
        first=pl.col("row").first().over("group")
    )
    pairs = first.select("first", "row").to_numpy().astype(np.int64)
    own = np.stack([near_N, np.arange(len(near_N))], 1)
    return components(len(near_N), np.concatenate([pairs, own]))


def _cluster(ids: pl.Series, root_N: Ints) -> pl.Series:
    """The id of each cluster's first photo; null for a photo that is alone."""
    alone = np.bincount(root_N, minlength=len(root_N))[root_N] == 1
    return pl.select(pl.when(~pl.Series(alone)).then(ids.gather(root_N))).to_series()


def _parts(rows: pl.DataFrame, split: Split | None) -> pl.Series:
    if split is None:
        return rows["split"]
    return rows.select("id").join(split.frame, on="id", how="left", maintain_order="left")["part"]


def _is(cluster: str) -> pl.Expr:
    return pl.col(cluster).is_not_null()


def _leaks(cluster: str) -> pl.Expr:
    """Whether photos that belong together are in more than one part."""
    return _is(cluster) & (pl.col("part").drop_nulls().n_unique().over(cluster) > 1)


def _judged(
    features: Features, rows: pl.DataFrame, together_N: Ints, config: CheckConfig
) -> dict[str, pl.Series]:
    """What is said of the labels: probability, the likeliest other, rank among the suspects from 1."""
    labelled = np.flatnonzero(rows["taxon_id"].is_not_null().to_numpy())
    taxa = rows["taxon_id"].drop_nulls().unique().sort()
    own = np.full(len(rows), np.nan, np.float32)
    other = np.full(len(rows), -1, np.int64)
    rank = np.zeros(len(rows), np.int64)
    if len(labelled) >= _FEWEST and len(taxa) > 1:
        number = {taxon: at for at, taxon in enumerate(taxa)}
        y_N = np.array([number[taxon] for taxon in rows["taxon_id"].drop_nulls()], np.int64)
        ids = tuple(rows["id"].gather(labelled))
        photos = LabelledFeatures(features.take(labelled), y_N, ids)
        scores = cross_validated(photos, together_N[labelled], len(taxa), config)
        said = labels.suspects(scores, y_N)
        own[labelled], other[labelled] = said.own_N, said.best_N
        rank[labelled[said.rows]] = np.arange(1, len(said.rows) + 1)
    else:
        progress.say("Labels are not judged: there are too few labelled photos, or one class.")
    unlabelled = pl.Series(other) < 0
    likelier = taxa.gather(pl.Series(other.clip(min=0))) if len(taxa) else rows["taxon_id"]
    return {
        "label_probability": pl.Series(own).fill_nan(None),
        "likelier": pl.select(pl.when(~unlabelled).then(likelier)).to_series(),
        "suspect": pl.select(pl.when(pl.Series(rank) > 0).then(pl.Series(rank))).to_series(),
    }


def cross_validated(
    photos: LabelledFeatures, together_N: Ints, classes: int, config: CheckConfig
) -> npt.NDArray[np.float16]:
    """Log-probabilities of each photo by a ridge head that did not see it, nor what belongs to it.

    They lie in a file without a name, (N, C) in half precision: memory does not grow with them.

    Args:
        photos: labelled photos.
        together_N: what belongs together has the same number.
        classes: C.
        config: `folds` and `seed`.
    """
    drawn_N = hashes([str(photos.ids[at]) for at in _first(together_N)], "fold", config.seed)
    fold_N = (drawn_N % np.uint64(config.folds)).astype(np.int64)
    folder = files.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as handle:
        shape = (len(photos), classes)
        scores = np.memmap(handle, np.float16, mode="w+", shape=shape)
    nothing = photos.where(np.zeros(len(photos), np.bool_))
    with progress.stage("judging labels", config.folds, unit="folds") as stage:
        for fold in range(config.folds):
            rest = photos.where(fold_N != fold)
            if len(rest) < len(photos):
                head = HEADS["ridge"](rest, nothing, classes, config.seed).head
                asked = np.flatnonzero(fold_N == fold)
                for start, x_BD in photos.features.take(asked).blocks(512):
                    block = metrics.log_softmax(head.logits(x_BD)).clip(min=-6e4)
                    scores[asked[start : start + len(x_BD)]] = block
            stage.advance()
    return scores


def _first(together_N: Ints) -> Ints:
    """The first of the photos with the same number, for each photo."""
    _, first, inverse = np.unique(together_N, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _grouped(table: PhotoTable, findings: pl.DataFrame) -> PhotoTable:
    """The table in which twins have one group, so that a split keeps them together."""
    together = findings.select("id", "together")
    frame = table.frame.join(together, on="id", how="left", maintain_order="left")
    return table.with_frame(frame.with_columns(group=pl.coalesce("together", "group")))


def dropping(findings: pl.DataFrame, name: str) -> list[str]:
    """The ids of the photos that `--drop NAME` rejects.

    Of twins one stays: one of the test part before one of val and of train, a labelled one before one
    without a label, the larger picture before the smaller. Of a leak the photos of the last part stay,
    so that what is measured stays as it was.
    """
    place = pl.col("part").replace_strict({"test": 0, "val": 1, "train": 2}, default=3)
    best = findings.with_columns(place=place, unlabelled=pl.col("taxon_id").is_null()).sort(
        "place", "unlabelled", -pl.col("short_side"), "id"
    )
    if name in ("duplicates", "near-duplicates"):
        cluster = "same_bytes" if name == "duplicates" else "twins"
        rows = best.filter(_is(cluster)).filter(~pl.col(cluster).is_first_distinct())
    elif name == "leaks":
        kept = pl.col("place").min().over("together")
        rows = best.filter(pl.col("leak") & (pl.col("place") > kept) & (pl.col("place") < 3))
    elif name == "labels":
        rows = best.filter(pl.col("suspect").is_not_null())
    else:
        rows = best.filter(pl.col(name))
    return rows["id"].to_list()


def _dropped(table: PhotoTable, findings: pl.DataFrame, names: Sequence[str]) -> PhotoTable:
    for name, reason in DROPS.items():  # in this order: the first reason stays
        if name in names:
            table = table.reject(dropping(findings, name), reason.value)
    return table


def _summary(findings: pl.DataFrame) -> dict[str, int]:
    return {
        "photos": findings.height,
        "labelled": findings["taxon_id"].count(),
        **{name: len(dropping(findings, name)) for name in DROPS},
        "twins_with_other_labels": int(findings["labels_differ"].fill_null(False).sum()),
        "leaking": int(findings["leak"].sum()),
    }


def _write(
    out: Path, checked: Checked, table: PhotoTable, config: CheckConfig, command: str
) -> None:
    checked.table.write(out / "checked.parquet")
    with files.replacing(out / "findings.parquet") as temporary:
        checked.findings.write_parquet(temporary)
    page = report.check_page(
        checked.findings,
        checked.summary,
        taxonomy=table.taxonomy,
        photos=photo_finder(table),
        about={
            "name": str(table.root),
            "command": command,
            "dropped": checked.table.reasons(),
            "dark": config.dark,
            "blurred": config.blurred,
            "tiny": config.tiny,
        },
    )
    files.write_text(out / "report.html", page)
    files.write_json(out / "findings.json", checked.summary)


def lines(checked: Checked) -> Iterator[str]:
    """What was found, for the terminal."""
    said: dict[str, Any] = checked.summary
    yield f"{said['photos']:,} photos looked at, {said['labelled']:,} with a label"
    yield f"  {said['duplicates']:,} more copies of the same bytes (duplicates)"
    yield f"  {said['near-duplicates']:,} more copies that look the same (near-duplicates)"
    yield f"  {said['twins_with_other_labels']:,} copies whose labels differ"
    yield f"  {said['leaking']:,} photos that belong together across parts (leaks)"
    yield f"  {said['labels']:,} labels that are probably wrong (labels)"
    yield f"  {said['dark']:,} dark, {said['blurred']:,} blurred, {said['tiny']:,} tiny"
    kept = checked.table.frame.filter(pl.col("status") == KEPT).height
    yield f"{kept:,} of {len(checked.table):,} photos are kept in the table"
