"""Photos of none of the classes: the chosen score against the usual ones, on other data sets.

    python -m benchmarks unknown

Three classifiers are trained as a user would, each on four fifths of the groups of its photos: on wild74, on
half of wild74's classes, and on drawn butterflies. Known photos are the other fifth; the others are photos of
the other data sets, and for the second classifier those of the classes that were left out. The figure is the
AUROC; the peers are the energy of the logits and the highest probability. The share that is flagged, and that
of known photos that pass, are in the notes.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import logsumexp

from benchmarks import common
from benchmarks.common import Row
from fieldmark.data import synthetic
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.subset import read
from fieldmark.evaluation import metrics
from fieldmark.training import TrainConfig, Trained, train
from fieldmark.utils import io

SPECIES, PHOTOS = 40, 800
"""Of the drawn field guide."""


def run(quick: bool = False, data: Path | None = None, objects: Path | None = None) -> list[Row]:
    """Return a row for each classifier, kind of other photos and peer."""
    if data is None:
        data, objects = common.shared("data", "wild74"), common.shared("data", "imagenet-sample")
    with tempfile.TemporaryDirectory() as folder:
        guide = Path(folder) / "guide"
        synthetic.draw(guide, species=4 if quick else SPECIES, photos=40 if quick else PHOTOS, seed=0)
        wild = read(data, limit=400 if quick else None, seed=0)
        drawn = read(guide, limit=None, seed=0)
        others = {"objects and animals": [PhotoFile(io.file_digest(p), p) for p in _pictures(objects)]}
        names = wild.labelled["taxon_id"].unique().sort().to_list()
        half = pl.col("taxon_id").is_in(names[::2])
        near = _files(wild.with_frame(wild.frame.filter(~half)))
        sets = {
            "wild74": (wild, {"drawn butterflies": _files(drawn), **others}),
            "half of wild74's classes": (
                wild.with_frame(wild.frame.filter(half)),
                {"its other classes": near},
            ),
            "drawn butterflies": (drawn, {"wild74": _files(wild), **others}),
        }
        return [row for name, (table, unknown) in sets.items() for row in _rows(name, table, unknown)]


def _pictures(folder: Path | None) -> list[Path]:
    return sorted(folder.glob("*.JPEG")) if folder else []


def _files(table: PhotoTable) -> list[PhotoFile]:
    rows = table.kept.select("sha256", "path").unique("sha256", keep="first", maintain_order=True).iter_rows()
    return [PhotoFile(digest, path) for digest, name in rows if isinstance(path := table.file_of(name), Path)]


def _rows(name: str, table: PhotoTable, unknown: Mapping[str, list[PhotoFile]]) -> list[Row]:
    groups = table.kept.select(pl.col("group").fill_null(pl.col("id"))).to_series()
    apart = set(np.random.default_rng(0).permutation(groups.unique().sort().to_numpy())[::5])
    held_out = pl.col("group").fill_null(pl.col("id")).is_in(list(apart))
    trained = train(table.with_frame(table.frame.filter(~held_out)), TrainConfig())
    known = _scores(trained, _files(table.with_frame(table.frame.filter(held_out))))
    rows = []
    for what, files in unknown.items():
        if not files:
            continue
        other = _scores(trained, files)
        found = {kind: metrics.auroc(known[kind], other[kind]) for kind in known}
        detector = trained.classifier.ood
        if detector is None:
            note = "no score works: the flag is off"
        else:
            passed, flagged = known["ours"] >= detector.threshold, other["ours"] < detector.threshold
            note = f"{detector.kind}; flagged {flagged.mean():.0%}, passed {passed.mean():.0%} of the known"
        for peer in ("energy", "highest probability"):
            ratio = found["ours"] / max(found[peer], 1e-6)
            title = f"{name}, {what} ({len(files):,}): AUROC"
            values = (title, "", found["ours"], found[peer], peer, ratio, ratio, ratio, common.EXACT)
            rows.append(Row(*values, note=note))
    return rows


def _scores(trained: Trained, files: list[PhotoFile]) -> dict[str, np.ndarray]:
    """Score photos: high for those of the classes."""
    lead, detector = trained.outcome.fitted.lead, trained.classifier.ood
    lead.extractor.compute(files, {lead.backbone.architecture.name: lead.backbone})
    x_ND = lead.extractor.cache(lead.backbone).get([each.sha256 for each in files])[slice(None)]
    logits_NC = lead.member.head.logits(x_ND)
    energy_N = np.asarray(logsumexp(logits_NC, axis=1), np.float32)
    ours_N = energy_N if detector is None else detector.scores(x_ND, energy_N)
    return {"ours": ours_N, "energy": energy_N, "highest probability": metrics.log_softmax(logits_NC).max(1)}
