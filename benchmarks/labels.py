"""Measure precision and recall for wrong labels against cleanlab, on the same scores, and the memory.

5 % of wild74's labels are changed, at random or to one of the three most probable other classes
of the photo. Both get the same out-of-fold predictions of five folds. The result is the
precision and the recall of the suspect labels; wild74 has wrong labels of its own, which count
against both.

Memory: a process of its own checks generated features of 200,000 photos and 5,000 classes.

    python -m benchmarks.labels marked PHOTOS...   # estimated and true precision of suspect labels
    python -m benchmarks.labels dropped PHOTOS...  # reported and true error, with and without them

for photos whose labels are right; both change a share of them, at random or to a similar class.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.common import EXACT, Row, Unavailable, elsewhere, peak_gib, shared
from fieldmark import models
from fieldmark.curation import confident_learning
from fieldmark.curation.config import CheckConfig
from fieldmark.curation.label_issues import cross_validated
from fieldmark.data import readers
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.subset import LabelledPhotos
from fieldmark.features.cache import Features
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.training import TrainConfig, train
from fieldmark.utils import random
from fieldmark.utils.errors import RejectReason
from fieldmark.utils.typing import BoolArray, IntArray

FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "low_self_confidence")
"""cleanlab's, its default first. `predicted_neq_given` calls every disagreement wrong: it is no
choice."""

SHARE = 0.05
SEEDS = 5
GIB = 2**30


def run(quick: bool = False) -> list[Row]:
    """Return precision and recall against each filter, then memory."""
    return [*_found(quick), _memory(*((2_000, 50, 64) if quick else (200_000, 5_000, 1280)))]


def _found(quick: bool) -> list[Row]:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise Unavailable("cleanlab is not installed") from error
    features, photos, classes = _wild74(300 if quick else None)
    true_N = photos.labels(classes)
    rows = []
    for kind in ("at random",) if quick else ("at random", "to a like kind"):
        measures: dict[str, list[tuple[float, float]]] = {name: [] for name in ("ours", *FILTERS)}
        likely_NC = None if kind == "at random" else _scores(features, photos, classes, true_N)
        for seed in range(1 if quick else SEEDS):
            given_N, wrong_N = changed(true_N, len(classes), likely_NC, seed)
            log_p_NC = _scores(features, photos, classes, given_N)
            p_NC = np.exp(log_p_NC.astype(np.float64))
            p_NC /= p_NC.sum(1, keepdims=True)
            ours = np.zeros(len(given_N), np.bool_)
            ours[confident_learning.find_label_issues(log_p_NC, given_N).rows] = True
            measures["ours"].append(_precision_recall(ours, wrong_N))
            for name in FILTERS:
                theirs = find_label_issues(given_N, p_NC, filter_by=name, n_jobs=1)
                measures[name].append(_precision_recall(theirs, wrong_N))
        for name in FILTERS:
            for at, what in enumerate(("precision", "recall")):
                pairs = [(a[at], b[at]) for a, b in zip(measures["ours"], measures[name], strict=True)]
                rows.append(_row(f"{what}, labels changed {kind}", f"cleanlab, {name}", pairs))
    return rows


def _row(what: str, peer: str, pairs: list[tuple[float, float]]) -> Row:
    ours, theirs = (float(np.mean([pair[side] for pair in pairs])) for side in (0, 1))
    ratios = [a / max(b, 1e-9) for a, b in pairs]
    aim = 1.0 if FILTERS[0] in peer else None
    note = f"mean of {len(pairs)} seeds"
    return Row(
        what, "", ours, theirs, peer, ours / max(theirs, 1e-9), min(ratios), max(ratios), EXACT, aim, note
    )


def changed(
    true_N: IntArray,
    classes: int,
    likely_NC: npt.NDArray[np.floating] | None,
    seed: int,
    share: float = SHARE,
) -> tuple[IntArray, BoolArray]:
    """Change some labels, at random or to a probable other class; return them and which changed."""
    rng = random.generator(seed, "labels")
    given_N, wrong_N = true_N.copy(), np.zeros(len(true_N), np.bool_)
    for at in rng.choice(len(true_N), round(share * len(true_N)), replace=False):
        order = np.arange(classes) if likely_NC is None else np.argsort(-likely_NC[at])
        others = order[order != true_N[at]]
        given_N[at] = rng.choice(others if likely_NC is None else others[:3])
        wrong_N[at] = True
    return given_N, wrong_N


def _precision_recall(found_N: BoolArray, wrong_N: BoolArray) -> tuple[float, float]:
    hits = float((found_N & wrong_N).sum())
    return hits / max(1, found_N.sum()), hits / max(1, wrong_N.sum())


def _wild74(limit: int | None) -> tuple[Features, LabelledPhotos, list[str]]:
    table = readers.read(shared("data", "wild74"))
    rows = table.labelled.sort("id")
    if limit:
        few = rows["taxon_id"].unique().sort()[:8]
        rows = rows.filter(pl.col("taxon_id").is_in(few.implode())).head(limit)
    return _described(table.with_frame(rows))


def _described(table: PhotoTable) -> tuple[Features, LabelledPhotos, list[str]]:
    """Return the features of the labelled photos of a table, sorted by id, and the classes."""
    rows = table.labelled.sort("id")
    files = tuple(PhotoFile(d, table.file_of(p)) for d, p in rows.select("sha256", "path").iter_rows())
    backbone, extractor = models.load(models.DEFAULT), FeatureExtractor()
    extractor.compute(files, {models.DEFAULT: backbone})
    features = extractor.cache(backbone).get([each.sha256 for each in files])
    groups = tuple(rows["group"])
    photos = LabelledPhotos(tuple(rows["id"]), files, tuple(rows["taxon_id"]), groups, ("",) * len(files))
    return features, photos, sorted(set(photos.taxon_ids))


def _scores(
    features: Features, photos: LabelledPhotos, classes: list[str], given_N: IntArray
) -> npt.NDArray[np.float16]:
    named = tuple(classes[at] for at in given_N)
    given = LabelledPhotos(photos.ids, photos.files, named, photos.groups, photos.supercategories)
    return np.array(cross_validated(features, given, classes, CheckConfig()))


KINDS = ("at random", "to a similar class")


def marked(table: PhotoTable, shares: tuple[float, ...] = (0.02, 0.05, 0.15)) -> Iterator[str]:
    """Change shares of the labels; say how many are marked, and how many of those are wrong."""
    features, photos, classes = _described(table)
    true_N = photos.labels(classes)
    likely_NC = _scores(features, photos, classes, true_N)
    for share, kind in [(0.0, "nowhere"), *((share, kind) for share in shares for kind in KINDS)]:
        found = []
        for seed in range(SEEDS if share else 1):
            likely = likely_NC if kind == KINDS[1] else None
            given_N, wrong_N = changed(true_N, len(classes), likely, seed, share)
            issues = confident_learning.find_label_issues(
                _scores(features, photos, classes, given_N), given_N
            )
            rows = issues.reaching(CheckConfig.label_precision)
            found.append(
                (
                    len(rows),
                    float(
                        len(rows)
                        and len(rows) * confident_learning.expected_precision(issues.wrong_N[rows])[-1]
                    ),
                    int(wrong_N[rows].sum()),
                    wrong_N.sum(),
                )
            )
        many, expected, hits, wrong = np.sum(found, axis=0)
        told = f"{many / len(found):.1f} marked"
        if many:
            told += f", precision {expected / many:.2f} estimated, {hits / many:.2f} true"
            told += f", recall {hits / max(1, wrong):.2f}"
        yield f"{len(photos):,} photos, {len(classes):,} classes, {share:.0%} changed {kind}: {told}"


def dropped(table: PhotoTable) -> Iterator[str]:
    """Change 5 % of the labels, train with and without suspect ones; give reported and true errors."""
    features, photos, classes = _described(table)
    true_N, right = photos.labels(classes), dict(zip(photos.ids, photos.taxon_ids, strict=True))
    likely_NC = _scores(features, photos, classes, true_N)
    for kind in KINDS:
        given_N, wrong_N = changed(true_N, len(classes), likely_NC if kind == KINDS[1] else None, 0)
        log_p_NC = _scores(features, photos, classes, given_N)
        issues = confident_learning.find_label_issues(log_p_NC, given_N)
        labels = dict(zip(photos.ids, (classes[at] for at in given_N), strict=True))
        noisy = table.with_frame(
            table.frame.with_columns(
                taxon_id=pl.col("id").replace_strict(labels, default=None, return_dtype=pl.String)
            )
        )
        for name, rows in (
            ("nothing", issues.rows[:0]),
            ("suspect labels", issues.reaching(CheckConfig.label_precision)),
            ("all worth a review", issues.rows),
            ("the wrong labels", np.flatnonzero(wrong_N)),
        ):
            ids = [photos.ids[row] for row in rows]
            done = train(noisy.reject(ids, RejectReason.SUSPECT_LABEL.value), TrainConfig())
            found = done.evaluation
            number = {taxon: at for at, taxon in enumerate(found.classes)}
            true = replace(
                found, labels_N=np.array([number.get(right[each], -1) for each in found.photo_ids])
            )
            how = done.summary.measurement
            easy = how.error_without_hard if how.hard else done.summary.top1_error_all_classes
            yield (
                f"labels changed {kind}, dropped {name}: {len(ids):,} photos, {wrong_N[rows].sum():,} wrong; "
                f"error reported {done.summary.top1_error_all_classes:.1%}, without hard photos {easy:.1%}, "
                f"true {true.wrong_N().mean():.1%}, over {len(found):,} photos"
            )


def _few(table: PhotoTable, most: int = 8) -> PhotoTable:
    """Return the table with at most so many photos of each class."""
    rows = table.labelled.sort("id")
    return table.with_frame(rows.filter(pl.int_range(pl.len()).over("taxon_id") < most))


def _memory(photos: int, classes: int, dim: int) -> Row:
    peak = elsewhere("labels", photos, classes, dim)
    matrix = 8 * photos * classes / GIB
    note = (
        f"aim: 4 GiB; {peak['own']:.2f} GiB without pages of files, which the system may take back; "
        f"{peak['seconds']:.0f} s"
    )
    return Row(
        what=f"memory at most, {photos:,} photos, {classes:,} classes, {dim:,} features",
        unit="GiB",
        ours=peak["all"],
        peer=matrix,
        peer_name="cleanlab's matrix of probabilities alone, in float64; computed",
        ratio=matrix / peak["all"],
        low=matrix / peak["all"],
        high=matrix / peak["all"],
        rounds=EXACT,
        aim=None if photos < 200_000 else round(matrix / 4, 2),
        note=note,
        more=peak,
    )


def judge_drawn(photos: int, classes: int, dim: int) -> dict[str, float]:
    """Check the labels of generated photos; return peak memory of this process in GiB, and seconds."""
    own, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    own[0] = max(own[0], int(line.split()[1]) * 1024 / GIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rng = random.generator(0, "drawn")
    label_N = rng.integers(0, classes, photos)
    centre_CD = rng.normal(0, 1, (classes, dim)).astype(np.float16)
    with tempfile.TemporaryFile() as handle:
        x_ND = np.memmap(handle, np.float16, mode="w+", shape=(photos, dim))
        for start in range(0, photos, 4096):
            noise = rng.standard_normal((min(4096, photos - start), dim), np.float32)
            x_ND[start : start + 4096] = centre_CD[label_N[start : start + 4096]] + 3 * noise
        names = [f"{each:05}" for each in range(classes)]
        ids = tuple(map(str, range(photos)))
        named = tuple(names[each] for each in label_N)
        drawn = LabelledPhotos(ids, (), named, (None,) * photos, ("",) * photos)
        start = time.perf_counter()
        scores = cross_validated(Features.of(x_ND), drawn, names, CheckConfig())
        confident_learning.find_label_issues(scores, label_N.astype(np.int64))
        seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"all": peak_gib(), "own": own[0], "seconds": seconds}


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    if what in ("marked", "dropped"):
        for folder in more:
            every = readers.read(Path(folder))
            for some in (every, _few(every)) if what == "marked" else (every,):
                for line in marked(some) if what == "marked" else dropped(some):
                    print(f"{Path(folder).name}: {line}", flush=True)
    else:
        print(json.dumps(judge_drawn(*map(int, sys.argv[1:]))))
