"""`fieldmark train`: photos in; out comes a classifier, an honest measure of it, and a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import (
    backbones,
    calibration,
    files,
    metrics,
    neighbours,
    progress,
    report,
)
from fieldmark.backbones import Backbone
from fieldmark.classifier import Classifier
from fieldmark.evaluate import Evaluation
from fieldmark.experiment import (
    PAPER_CROP,
    Bench,
    Parts,
    photo_finder,
    read,
)
from fieldmark.finetune import EPOCHS, finetune, good, join, ranks, start_from, taken_apart
from fieldmark.heads.base import LabelledFeatures, LinearHead
from fieldmark.heads.default import Warm, fit_best
from fieldmark.heads.softmax import Arm, Fit, by_loss
from fieldmark.photos import PhotoTable
from fieldmark.split import Split, split_photos
from fieldmark.train.account import measured, outcome, photo_line, provenance
from fieldmark.train.config import TrainConfig
from fieldmark.train.rare import for_rare
from fieldmark.train.strangers import KNOWN_RECALL, unknown


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes:
        classifier: ready to use.
        evaluation: its scores on the test part, which neither training nor any choice saw.
        summary: the measures read off them.
        folder: where all of it lies.
    """

    classifier: Classifier
    evaluation: Evaluation
    summary: dict[str, Any]
    folder: Path


def train(photos: Path, out: Path, config: TrainConfig, *, command: str = "") -> Trained:
    """Read, split, extract, train, calibrate, measure and write; says on the way what it does.

    Args:
        photos: photos in any layout that `fieldmark.sources` reads, or a table of them.
        out: the folder to write the classifier to; it must be new, empty, or an older classifier.
        config: the choices.
        command: what was typed, for the page.

    Raises:
        InputError: anything about the photos, the network or the folder that stands in the way.
    """
    start = time.perf_counter()
    files.check_out(out, "classifier", "classifier.json")
    config.check()
    join(config.transfer)
    # Before any long work: a network that cannot be had says so at once.
    weights = "random" if config.transfer == "scratch" else config.weights
    backbone = backbones.load(
        config.network, weights=weights, weights_dir=config.weights_dir, seed=config.seed
    )
    progress.say(f"Network: {config.network}; {backbone.account.summary}")
    table, split, bench = prepare(photos, config, backbone)
    parts = Parts.of(table, split)
    progress.say(photo_line(table, parts))
    if config.transfer == "last":
        fits = sweep(bench, backbone, parts, config)
    else:
        backbone, fits = train_network(bench, backbone, parts, config)
        table = bench.reject_unreadable(table)
        parts = Parts.of(table, split, parts.classes)
    parts = parts.measurable()
    fit, told = taken(bench, backbone, parts, fits, config)
    taxonomy = table.taxonomy.only(parts.classes)
    raw = Classifier.alone(backbone, bench.crop_for(backbone), fit.unscaled, taxonomy)
    val = bench.features(backbone, parts.val, parts.classes)
    classifier = calibrated(raw, [fit.unscaled.logits_of(val.features)], val.labels, config)
    test = bench.features(backbone, parts.test, parts.classes).features
    evaluation = parts.test.evaluation(fit.unscaled.logits_of(test), parts.classes)
    summary = measured(evaluation, classifier, parts)
    summary["unknown"] = unknown(bench, backbone, parts, config)
    about = {
        **provenance(photos, table, split, parts, backbone, fits, config),
        **told,
        "command": command,
        **outcome(classifier, summary, bench, fit.seconds, start),
    }
    trained = Trained(replace(classifier, provenance=about), evaluation, summary, out)
    if not ranks.rank():
        learned = bench.features(backbone, parts.train, parts.classes)
        write(trained, table, split, parts, learned, config)
    return trained


def write(
    trained: Trained,
    table: PhotoTable,
    split: Split,
    parts: Parts,
    learned: LabelledFeatures,
    config: TrainConfig,
) -> None:
    """Write the folder; `learned` are the lead member's features of the training photos."""
    classifier, evaluation, out = trained.classifier, trained.evaluation, trained.folder
    classifier.save(out)
    evaluation.save(out / "evaluation.safetensors")
    files.write_json(out / "evaluation.json", trained.summary)
    table.write(out / "photos.parquet")
    split.write(out / "split.parquet")
    neighbours.write(out, classifier, table, learned, thumbnails=config.thumbnails)
    page = report.classifier_page(
        dict(classifier.provenance),
        evaluation,
        taxonomy=table.taxonomy,
        photos=photo_finder(table),
        train_counts=parts.train_counts(),
    )
    files.write_text(out / "report.html", page)


def prepare(
    photos: Path, config: TrainConfig, backbone: Backbone
) -> tuple[PhotoTable, Split, Bench]:
    """Read and split the photos and bring their features onto the shelf."""
    table = read(photos, limit=config.limit, seed=config.seed, accepted=config.names)
    split = split_photos(
        table,
        val=config.val,
        test=0.0 if table.has_test or config.split == "official" else config.test,
        seed=config.seed,
        way=config.split,
    )
    bench = Bench(replace(PAPER_CROP, tier=config.tier), engine=config.engine)
    if config.transfer != "scratch":
        with ranks.first_alone():
            for _ in bench.compute(Parts.of(table, split).files, {config.network: backbone}):
                pass
    return bench.reject_unreadable(table), split, bench


def sweep(
    bench: Bench,
    backbone: Backbone,
    parts: Parts,
    config: TrainConfig,
    warm: Warm | None = None,
) -> list[Fit]:
    """Train all heads of the sweep in one go, from `warm` on where some classes were learned before."""
    train = bench.features(backbone, parts.train, parts.classes)
    val = bench.features(backbone, parts.val, parts.classes)
    with progress.stage("training the last layer", unit="epochs") as stage:
        return fit_best(
            train,
            val,
            len(parts.classes),
            seed=config.seed,
            epochs=config.epochs,
            warm=warm,
            kind=config.head,
            on_epoch=lambda _done, _of: stage.advance(),
        )


def taken(
    bench: Bench, backbone: Backbone, parts: Parts, fits: Sequence[Fit], config: TrainConfig
) -> tuple[Fit, dict[str, Any]]:
    """The best of the heads, adjusted for rare kinds where that is wanted, and what is said of that."""
    fit = min(fits, key=by_loss)
    if not config.rare:
        return fit, {"rare": None}
    fit, rare = for_rare(bench, backbone, parts, fit, config.seed)
    progress.say(rare.said)
    return fit, {"rare": asdict(rare) | {"said": rare.said}}


def train_network(
    bench: Bench, backbone: Backbone, parts: Parts, config: TrainConfig
) -> tuple[Backbone, list[Fit]]:
    """Train the network itself by the good recipe, and bring the features of what comes out onto the
    shelf. A pretrained network starts from the best last layer on kept features."""
    how = good(config.transfer, epochs=config.epochs or EPOCHS, seed=config.seed)
    how = replace(how, precision="bfloat16") if config.bfloat16 else how
    model = backbone.trainable(len(parts.classes), config.seed)
    last = None
    if how.head_first:
        last = sweep(bench, backbone, parts, replace(config, epochs=None))[0].head
        start_from(model, last)
    train, val = bench.crops_to_tune(
        backbone, parts.train, parts.val, parts.classes, stream=config.stream
    )
    # What was done is kept beside the features: the same command goes on where it was cut off.
    about = [backbone.key, bench.crop_for(backbone).key(), asdict(how), config.stream]
    photos = [photo.sha256 for photo in parts.files]
    work = files.digest([*about, parts.classes, parts.train.ids, photos])
    checkpoint = files.cache_dir() / "checkpoints" / f"{work[:32]}.safetensors"
    curve, seconds = finetune(model, train, val, how, checkpoint=checkpoint)
    checkpoint.unlink(missing_ok=True)
    trained, head = taken_apart(backbone, model)
    with ranks.first_alone():
        for _ in bench.compute(parts.files, {config.network: trained}):
            pass
    if last is not None:
        held = (bench.features(each, parts.val, parts.classes) for each in (backbone, trained))
        progress.say(beside(*(_error(*each) for each in zip((last, head), held, strict=True))))
    return trained, [Fit(Arm(learning_rate=how.learning_rate), head, tuple(curve), seconds=seconds)]


def _error(head: LinearHead, photos: LabelledFeatures) -> float:
    """The share of photos of the classes that are named wrongly."""
    known = photos.where(photos.labels >= 0)
    wrong_N = head.logits_of(known.features).argmax(axis=1) != known.labels
    return float(wrong_N.mean()) if len(known) else 0.0


def beside(last: float, tuned: float) -> str:
    """What training the network itself gave, beside the last layer that it began with.

    Args:
        last, tuned: their errors on the validation photos.
    """
    told = f"{tuned:.1%} of the validation photos are named wrongly, by the last layer alone {last:.1%}"
    if tuned < last:
        return f"{told}."
    how = "worse than" if tuned > last else "no better than"
    return (
        f"{told}: training the network was {how} leaving it as it was. It is kept, as --transfer "
        "asks; --transfer last makes the other."
    )


def calibrated(
    raw: Classifier,
    logits_MNC: Sequence[npt.NDArray[np.float32]],
    labels_N: npt.NDArray[np.int64],
    config: TrainConfig,
) -> Classifier:
    """The classifier with a temperature and thresholds, all set on photos that it did not learn from.

    Args:
        raw: of temperature 1.
        logits_MNC: of those photos, one array for each member.
        labels_N: their classes.
        config: the precision that is asked for.
    """
    logits_NC, _ = raw.combined(logits_MNC)
    warm = replace(raw, temperature=calibration.fit_temperature(logits_NC, labels_N))
    scaled_NC, energy_N = warm.combined(logits_MNC)
    p_NC = metrics.log_softmax32(scaled_NC)
    np.exp(p_NC, out=p_NC)
    levels = warm.taxonomy.levels
    thresholds = calibration.fit_thresholds(p_NC, labels_N, levels, config.precision)
    known = energy_N[labels_N >= 0]
    known_from = metrics.score_at_recall(known, KNOWN_RECALL) if len(known) else None
    return replace(warm, thresholds=thresholds, known_from=known_from)
