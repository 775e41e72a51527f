"""`fieldmark train`: photos in; out comes a classifier, an honest measure of it, and a page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
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
    versions,
    weights_line,
)
from fieldmark.finetune import EPOCHS, Transfer, finetune, good, join, ranks, start_from
from fieldmark.heads.base import LabelledFeatures, LinearHead
from fieldmark.heads.default import fit_best
from fieldmark.heads.softmax import Arm, Fit
from fieldmark.photos import PhotoTable
from fieldmark.preprocess import Tier
from fieldmark.sampling import order
from fieldmark.split import Split, Way, split_photos

KNOWN_RECALL = 0.95
"""The share of photos of the classes that are not to be called unknown."""


@dataclass(frozen=True)
class TrainConfig:
    """What `fieldmark train` is told.

    Attributes:
        backbone: the network, a name of `fieldmark.backbones`.
        weights: `pretrained`, `random`, or a file of weights.
        weights_dir: a folder of weights, looked into before anything is downloaded.
        transfer: `last` trains a last layer on kept features; `all` then goes on with every layer,
            `adapters` with the biases and normalisations; `scratch` trains every layer from random
            weights.
        epochs: passes over the training photos; None: as many as it takes for the last layer, else 6.
        val, test: the shares of photos that are held out to choose by, and to measure on.
        split: how photos are divided.
        precision: the share of given answers that are to be right; below it, "not sure".
        limit: at most so many photos; None: all.
        names: a table of accepted names, see `fieldmark.names`; None: labels are taken as they are.
        seed: of the split and of the order of training.
        engine: what runs the network; `auto` measures.
        tier: how photos are decoded, `exact` or `fast`.
        thumbnails: whether small pictures of training photos go into the folder, so that the nearest
            ones can be shown where the photos themselves are not.
        also: further networks; then an ensemble of all of them is learned.
        ensemble: how its members are weighed, a name of `ensemble.WAYS`; None: `weights`.
        quality: `fast`, or `best`: what does best on photos held out, of all networks whose weights
            are at hand (or of those named), mirrored views, and ensembles of them.
        stream: whether fine-tuning decodes photos anew in each epoch, where they lie, instead of keeping
            their crops on the disk.
        budget: how many seconds `best` may take; None: as long as it takes.
    """

    backbone: str = backbones.DEFAULT
    weights: str = "pretrained"
    weights_dir: Path | None = None
    transfer: Transfer = "last"
    epochs: int | None = None
    val: float = 0.1
    test: float = 0.1
    split: Way = "stratified"
    precision: float = 0.95
    limit: int | None = None
    names: Path | None = None
    seed: int = 0
    engine: str = "auto"
    tier: Tier = "exact"
    thumbnails: bool = False
    also: tuple[str, ...] = ()
    ensemble: str | None = None
    quality: str = "fast"
    budget: float | None = None
    stream: bool = False


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
    join(config.transfer)
    # Before any long work: a network that cannot be had says so at once.
    weights = "random" if config.transfer == "scratch" else config.weights
    backbone = backbones.load(
        config.backbone, weights=weights, weights_dir=config.weights_dir, seed=config.seed
    )
    progress.say(f"Network: {config.backbone}; {backbone.account.summary}")
    table, split, bench = prepare(photos, config, backbone)
    parts = Parts.of(table, split)
    progress.say(photo_line(table, parts))
    if config.transfer == "last":
        fits = sweep(bench, backbone, parts, config)
    else:
        backbone, fits = train_network(bench, backbone, parts, config)
        table = bench.reject_unreadable(table)
        parts = Parts.of(table, split, parts.classes)
    fit = min(fits, key=lambda each: each.val_loss)
    taxonomy = table.taxonomy.only(parts.classes)
    raw = Classifier.alone(backbone, bench.crop_for(backbone), fit.head, taxonomy)
    val = bench.features(backbone, parts.val, parts.classes)
    classifier = calibrated(raw, [fit.head.logits_of(val.features)], val.labels, config)
    test = bench.features(backbone, parts.test, parts.classes).features
    evaluation = parts.test.evaluation(fit.head.logits_of(test), parts.classes)
    summary = measured(evaluation, classifier, parts)
    summary["unknown"] = unknown(bench, backbone, parts, config)
    about = {
        **provenance(photos, table, split, parts, backbone, fits, config),
        "command": command,
        "test": sentence(summary),
        "temperature": classifier.temperature,
        "threshold": asdict(classifier.threshold) if classifier.threshold else None,
        "measured": {name: summary[name] for name in ("answered", "coverage_curve", "unknown")},
        "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
        "seconds": {
            "features": sum(bench.extraction.seconds.values()),
            "training": fit.seconds,
            "in all": time.perf_counter() - start,
        },
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
    own_test = "test" in set(table.labelled["split"].drop_nulls())
    split = split_photos(
        table,
        val=config.val,
        test=0.0 if own_test or config.split == "official" else config.test,
        seed=config.seed,
        way=config.split,
    )
    bench = Bench(replace(PAPER_CROP, tier=config.tier), engine=config.engine)
    if config.transfer != "scratch":
        with ranks.first_alone():
            for _ in bench.compute(Parts.of(table, split).files, {config.backbone: backbone}):
                pass
    return bench.reject_unreadable(table), split, bench


def sweep(bench: Bench, backbone: Backbone, parts: Parts, config: TrainConfig) -> list[Fit]:
    """Train all heads of the sweep in one go."""
    train = bench.features(backbone, parts.train, parts.classes)
    val = bench.features(backbone, parts.val, parts.classes)
    with progress.stage("training the last layer", unit="epochs") as stage:
        return fit_best(
            train,
            val,
            len(parts.classes),
            seed=config.seed,
            epochs=config.epochs,
            on_epoch=lambda _done, _of: stage.advance(),
        )


def train_network(
    bench: Bench, backbone: Backbone, parts: Parts, config: TrainConfig
) -> tuple[Backbone, list[Fit]]:
    """Train the network itself by the good recipe, and bring the features of what comes out onto the
    shelf. A pretrained network starts from the best last layer on kept features."""
    how = good(config.transfer, epochs=config.epochs or EPOCHS, seed=config.seed)
    model = backbone.trainable(len(parts.classes), config.seed)
    last = None
    if config.transfer != "scratch":
        last = sweep(bench, backbone, parts, replace(config, epochs=None))[0].head
        start_from(model, last)
    train, val = bench.crops_to_tune(
        backbone, parts.train, parts.val, parts.classes, stream=config.stream
    )
    # What was done is kept beside the features: the same command goes on where it was cut off.
    work = files.digest([backbone.key, parts.classes, parts.train.ids, asdict(how), config.stream])
    checkpoint = files.cache_dir() / "checkpoints" / f"{work[:32]}.safetensors"
    curve, seconds = finetune(model, train, val, how, checkpoint=checkpoint)
    checkpoint.unlink(missing_ok=True)
    trained, linear = backbone.trained(model)
    head = LinearHead(
        np.ascontiguousarray(linear.weight.detach().numpy().T), linear.bias.detach().numpy()
    )
    with ranks.first_alone():
        for _ in bench.compute(parts.files, {config.backbone: trained}):
            pass
    if last is not None:
        held = (bench.features(each, parts.val, parts.classes) for each in (backbone, trained))
        progress.say(beside(*(_error(*each) for each in zip((last, head), held, strict=True))))
    return trained, [Fit(Arm(learning_rate=how.learning_rate), head, tuple(curve), seconds)]


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
    p_NC = np.exp(metrics.log_softmax(scaled_NC)).astype(np.float32)
    levels = warm.taxonomy.levels
    thresholds = calibration.fit_thresholds(p_NC, labels_N, levels, config.precision)
    known = energy_N[labels_N >= 0]
    known_from = metrics.score_at_recall(known, KNOWN_RECALL) if len(known) else None
    return replace(warm, thresholds=thresholds, known_from=known_from)


def unknown(bench: Bench, backbone: Backbone, parts: Parts, config: TrainConfig) -> Any:
    """How well photos of none of the classes are told: a tenth of the classes is held out, another
    last layer is trained on the others, and the scores of both kinds of photos are compared.

    Args:
        bench, backbone, parts, config: as for the classifier.

    Returns:
        `held_out` (taxon ids), `known` and `unknown` (photos), and for `energy`, `confidence` (the
        first probability) and `neighbour` (the cosine to the nearest training photo) the `auroc` and
        `fpr95`. None where there is too little to measure, or where the network itself was trained
        on all classes, so that none was held out of it.
    """
    drawn = order(parts.classes, "unknown", config.seed)[: max(1, len(parts.classes) // 10)]
    held = {parts.classes[number] for number in drawn}
    rest = tuple(taxon_id for taxon_id in parts.classes if taxon_id not in held)
    if config.transfer != "last" or len(rest) < 2:
        return None
    train, val, test = (
        bench.features(backbone, photos, rest) for photos in (parts.train, parts.val, parts.test)
    )
    learn, check = train.where(train.labels >= 0), val.where(val.labels >= 0)
    head = fit_best(learn, check, len(rest), seed=config.seed, epochs=config.epochs)[0].head
    temperature = calibration.fit_temperature(head.logits_of(check.features), check.labels)

    # The photos of the held-out classes were kept from this head in all parts.
    known = _some(test.where(test.labels >= 0), config.seed)
    strange = []
    for photos, found in ((parts.train, train), (parts.val, val), (parts.test, test)):
        strange.append(found.where(np.array([each in held for each in photos.taxon_ids], np.bool_)))
    others = [_some(each, config.seed) for each in strange]
    if not len(known) or not sum(map(len, others)):
        return None

    def scores(photos: LabelledFeatures) -> dict[str, npt.NDArray[np.float32]]:
        logits = head.logits_of(photos.features) / np.float32(temperature)
        return {
            "energy": calibration.energy(logits),
            "confidence": np.exp(metrics.log_softmax(logits).max(axis=1, initial=-np.inf)),
            "neighbour": _nearest(photos, learn),
        }

    of_known, of_others = scores(known), [scores(each) for each in others if len(each)]
    measured: dict[str, Any] = {
        "held_out": sorted(held),
        "known": len(known),
        "unknown": sum(map(len, others)),
    }
    for name, inside in of_known.items():
        outside = np.concatenate([each[name] for each in of_others])
        measured[name] = {
            "auroc": metrics.auroc(inside, outside),
            "fpr95": metrics.false_positive_rate(inside, outside, KNOWN_RECALL),
        }
    return measured


def _some(photos: LabelledFeatures, seed: int) -> LabelledFeatures:
    """At most 2,000 of the photos, drawn by their ids: enough for a rate."""
    keep = np.zeros(len(photos), np.bool_)
    keep[order(photos.ids, "unknown", seed)[:2000]] = True
    return photos.where(keep)


def _nearest(photos: LabelledFeatures, among: LabelledFeatures) -> npt.NDArray[np.float32]:
    """The cosine of each photo to the most similar of others, shape (N,)."""

    def unit(x_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        length = np.linalg.norm(x_ND, axis=1, keepdims=True)
        return np.asarray(x_ND / np.maximum(length, np.float32(1e-12)), np.float32)

    best = np.full(len(photos), -1, np.float32)
    own = [(start, unit(x_BD)) for start, x_BD in photos.features.blocks()]
    for _, x_BD in among.features.blocks():
        others = unit(x_BD).T
        for start, mine in own:
            span = slice(start, start + len(mine))
            best[span] = np.maximum(best[span], (mine @ others).max(axis=1))
    return best


def measured(evaluation: Evaluation, classifier: Classifier, parts: Parts) -> dict[str, Any]:
    """The measures of the calibrated scores on the test part, and of the thresholds there."""
    log_p_NC = metrics.log_softmax(evaluation.scores_NC / np.float32(classifier.temperature))
    even = replace(evaluation, scores_NC=log_p_NC.astype(np.float32))
    summary = even.summary(train_counts=parts.train_counts())
    summary["calibration_error_before"] = evaluation.summary(replicates=1)["calibration_error"]
    summary["answered"] = answered(even, classifier)
    confidence = np.exp(log_p_NC.max(axis=1)).astype(np.float32)
    summary["coverage_curve"] = calibration.coverage_curve(confidence, ~even.wrong_N())
    return summary


def answered(even: Evaluation, classifier: Classifier) -> dict[str, Any]:
    """What came of the thresholds on photos that did not set them, rank by rank and in all.

    A photo of a class that was not learned counts as answered wrongly, where it is answered.

    Args:
        even: calibrated log-probabilities.
        classifier: its thresholds and ranks.
    """
    p_NC, labels = np.exp(even.scores_NC), even.labels_N
    found = calibration.answers(p_NC, labels, classifier.taxonomy.levels, classifier.thresholds)

    def share(given_N: npt.NDArray[np.bool_], right_N: npt.NDArray[np.bool_]) -> dict[str, Any]:
        photos = int(given_N.sum())
        return {
            "photos": photos,
            "coverage": photos / len(even) if len(even) else 0.0,
            "precision": float(right_N[given_N].mean()) if photos else None,
        }

    given_N = np.zeros(len(even), np.bool_)
    good_N = np.zeros(len(even), np.bool_)
    for named_N, right_N in found.values():
        given_N, good_N = given_N | named_N, good_N | (named_N & right_N)
    by_rank = {rank: share(*each) for rank, each in found.items()}
    return {"all": share(given_N, good_N), **by_rank}


def provenance(
    photos: Path,
    table: PhotoTable,
    split: Split,
    parts: Parts,
    backbone: Backbone,
    fits: Sequence[Fit],
    config: TrainConfig,
) -> dict[str, Any]:
    """How a classifier was made, as JSON values."""
    fit = min(fits, key=lambda each: each.val_loss)
    return {
        "name": photos.resolve().name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": config.backbone,
        "weights": weights_line(backbone),
        "weights_complete": backbone.account.complete,
        "licence": backbone.architecture.licence,
        "transfer": config.transfer,
        "photos": {
            "train": len(parts.train),
            "val": len(parts.val),
            "test": len(parts.test),
            "rejected": table.reasons(),
        },
        "classes": len(parts.classes),
        "data_digest": table.digest(),
        "split": {"way": split.way, "seed": split.seed, "digest": split.digest},
        "epochs": len(fit.curve),
        "chosen": {"learning_rate": fit.arm.learning_rate, "weight_decay": fit.arm.weight_decay},
        "tried": [
            {
                "learning_rate": each.arm.learning_rate,
                "weight_decay": each.arm.weight_decay,
                "val_loss": each.val_loss,
            }
            for each in fits
        ],
        "curve": [asdict(epoch) for epoch in fit.curve],
        "versions": versions(),
    }


def photo_line(table: PhotoTable, parts: Parts) -> str:
    """What was found, kept and rejected, and how it was divided, in one line."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in table.reasons().items())
    return (
        f"{len(table):,} photos found, {table.kept.height:,} kept"
        + (f", {len(table) - table.kept.height:,} rejected ({reasons})" if reasons else "")
        + f"; {len(parts.classes):,} classes; {len(parts.train):,} photos to train, "
        f"{len(parts.val):,} to choose by, {len(parts.test):,} to measure on"
    )


def sentence(summary: Mapping[str, Any]) -> str:
    """How good it is, for a person."""
    if not summary["photos"]:
        return (
            "No labelled photo was left to measure on, so how good it is was not measured: "
            "--split stratified holds some out."
        )
    error, (low, high) = (
        summary["top1_error_all_classes"],
        summary["top1_error_all_classes_interval"],
    )
    return (
        f"On {summary['photos']:,} photos that training never saw, the first name was wrong for "
        f"{error:.1%} (95 % interval {low:.1%} to {high:.1%})."
    )
