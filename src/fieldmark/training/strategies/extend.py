"""`fieldmark grow`: a classifier and new photos in; out comes a classifier that knows both.

Only what is new is computed: the features of the photos that it learned from lie in the store, by
their bytes, and neither those photos nor the network are needed for them again. What was a test
photo stays one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fieldmark.data import readers, synonyms
from fieldmark.data.dataset import Dataset
from fieldmark.data.merge import merge
from fieldmark.data.photos import PhotoTable, by_location
from fieldmark.data.split import PARTS, Split, split_photos, undivided
from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads.default import Warm
from fieldmark.inference.classifier import Classifier, Member
from fieldmark.inference.classifier.folder import part
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Fitted, Outcome, Prepared
from fieldmark.training.strategies.extend_config import ExtendConfig, as_trained
from fieldmark.training.strategies.folds import cross_fitted
from fieldmark.training.strategies.single import fitted, sweep
from fieldmark.utils.choices import SplitMethod
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray

logger = logging.getLogger(__name__)


_NEVER = np.float32(-1e9)  # the score of a class that a classifier does not know
_SHOWN = 5  # corrections that the terminal shows; the record holds all
_FEWEST = 20
"""Of fewer new photos none is held out."""


@dataclass(frozen=True)
class _Old:
    """The classifier that grows, and what it was made from.

    Attributes:
        classifier: its one member.
        table: its photos, with the labels that they bear now.
        split: their parts.
        becomes: what each of its taxa is called now.
    """

    classifier: Classifier
    table: PhotoTable
    split: Split
    becomes: Mapping[str, str]


@dataclass(frozen=True)
class ExtendStrategy:
    """Train the last layer of an existing classifier on old and new photos.

    Attributes:
        model: a folder that `fieldmark train` wrote.
        new: labelled photos, under their accepted names.
        name: what the new photos are called.
        old: the classifier, and what it was made from.
        config: the choices that the classifier was made by.
    """

    model: Path
    new: PhotoTable
    name: str
    old: _Old
    config: TrainConfig

    @classmethod
    def of(cls, classifier: Classifier, model: Path, photos: Path, config: ExtendConfig) -> ExtendStrategy:
        """Read what a classifier in a folder was made from, and the new photos.

        Raises:
            InputError: the classifier cannot be extended, or the photos cannot be read.
        """
        accepted = synonyms.read(config.names)
        old = _read(classifier, model, accepted)
        new = accepted.apply(_new_photos(photos, old, config))
        how = as_trained(old.classifier, old.split, config)
        if how.split == "location" and new.frame["location"].null_count() == len(new):
            raise InputError(
                f"{model} was measured at new places (--split location), and no photo in {photos} has a "
                "location: give their list a column location."
            )
        return cls(model, new, photos.resolve().name, old, how)

    @property
    def backbone(self) -> Backbone:
        """The classifier's first network."""
        return self.backbones[0]

    @property
    def backbones(self) -> list[Backbone]:
        """The network of each member."""
        return [each.network.backbone for each in self.old.classifier.members]

    def prepare(self) -> Prepared:
        """Merge old and new photos, and compute the features of the new ones."""
        table = merge([self.old.table, self.new], keep_first=True)
        if self.config.split == "location":
            table = by_location(table)
        made = self.old.classifier.provenance.get("name", self.model.name)
        corrected = self._corrected(table)
        split = extended_split(self.old.split, table, corrected=len(corrected) > 0)
        dataset = Dataset(table, split, f"{made} + {self.name}")
        extractor = FeatureExtractor(self.old.classifier.lead.preprocess, engine=self.config.engine)
        data = Prepared(dataset, extractor).compute({each.architecture.name: each for each in self.backbones})
        learned = self.old.classifier.provenance.get("weights") != "random"
        group = split.way == "folds" and self.config.groups == "auto"
        return data.grouped(self.backbone if learned else None) if group else data

    def _corrected(self, table: PhotoTable) -> pl.DataFrame:
        """The known photos that came again with another label, or whose suspect label was confirmed."""
        was = self.old.table.frame.select("id", before="taxon_id", stood="status")
        again = pl.col("sha256").is_in(self.new.labelled["sha256"].implode())
        other = pl.col("taxon_id").ne_missing(pl.col("before")) | (pl.col("status") != pl.col("stood"))
        return table.frame.join(was, on="id", maintain_order="left").filter(again & other)

    def fit(self, data: Prepared) -> Fitted:
        """Fit the last layer: on all photos and measured in folds, or from the old one on."""
        if data.split.way == "folds":
            return replace(cross_fitted(data, self.backbones, self.config), compare=self._compare)
        warm = _warm(self.old, data.splits.classes)
        fits = sweep(data, self.backbone, self.config, warm)
        found = fitted(data, self.backbone, fits, self.config)
        return replace(found, compare=self._compare)

    def _compare(self, outcome: Outcome) -> Mapping[str, Any]:
        """The old classifier beside the new one on the same photos, and where it came from."""
        splits = outcome.splits
        changed = _changed(self.old, outcome.evaluation, self._before(outcome))
        known = self.old.becomes.values()
        made = self.old.classifier.provenance
        corrected = self._corrected(outcome.fitted.data.table).filter(pl.col("taxon_id") != pl.col("before"))
        return {
            "weights": made.get("weights", "unknown"),
            "weights_complete": made.get("weights_complete", True),
            "grown": {
                "from": {
                    "name": made.get("name", self.model.name),
                    "digest": self.old.classifier.digest,
                    "data_digest": made.get("data_digest"),
                },
                "with": {"name": self.name, "data_digest": self.new.digest()},
                "computed": sum(outcome.fitted.data.extraction.computed.values()),
                "new_classes": [each for each in splits.classes if each not in known],
                "corrected": corrected.select("id", "before", now="taxon_id").to_dicts(),
                **changed,
            },
        }

    def _before(self, outcome: Outcome) -> Evaluation:
        """The old classifier's scores of photos that it was not trained on."""
        splits, now = outcome.splits, outcome.evaluation
        if outcome.fitted.folds is not None and not len(splits.test):
            then = Evaluation.load(part(self.model, "evaluation.safetensors", self.old.classifier.files))
            both = then.where(np.isin(then.photo_ids, now.photo_ids))
            log_p_NB = metrics.log_softmax32(both.scores_NC / np.float32(self.old.classifier.temperature))
            number = dict(zip(now.photo_ids, now.labels_N.tolist(), strict=True))
            labels_N = np.array([number[each] for each in both.photo_ids], np.int64)
            scores = _scores_before(self.old, log_p_NB, splits.classes)
            return replace(both, scores_NC=scores, labels_N=labels_N, classes=splits.classes)
        test = (each.features(splits.test, splits.classes).features for each in outcome.fitted.members)
        log_p_NB = self.old.classifier.log_probabilities([each[slice(None)] for each in test])
        scores = _scores_before(self.old, log_p_NB, splits.classes)
        return Evaluation.of(splits.test, scores, splits.classes)


def _new_photos(photos: Path, old: _Old, config: ExtendConfig) -> PhotoTable:
    """Read the new photos, cut to boxes from the same confidence on as the classifier's were."""
    boxes = readers.BoxFile.of(config.boxes, config.box_threshold)
    if boxes and boxes.threshold is None:
        boxes = replace(boxes, threshold=old.table.box_threshold)
    return readers.read(photos, boxes=boxes)


def _read(classifier: Classifier, model: Path, accepted: synonyms.Accepted) -> _Old:
    """The classifier with its photos, split and labels under the names that are accepted now."""
    if classifier.provenance.get("from_names"):
        raise InputError(
            f"{model} was made from names and photos: extend the classifier of names alone again, with "
            "all photos."
        )
    if missing := [name for name in ("photos.parquet", "split.parquet") if not (model / name).is_file()]:
        raise InputError(
            f"{model} has no {missing[0]}, so what it learned from is not known: name the folder as "
            "`fieldmark train --out` wrote it."
        )
    table = PhotoTable.read(part(model, "photos.parquet", classifier.files))
    called = accepted.apply(table)
    pairs = table.frame.select("id", "taxon_id").join(called.frame.select("id", now="taxon_id"), on="id")
    becomes = dict(pairs.drop_nulls("taxon_id").select("taxon_id", "now").unique().iter_rows())
    if strange := [taxon.id for taxon in classifier.taxa if taxon.id not in becomes]:
        raise InputError(
            f"{model} names {strange[0]!r}, of which its table holds no photo: take the folder anew "
            "from where it was made."
        )
    split = Split.read(part(model, "split.parquet", classifier.files))
    if not _alike(classifier.members) or (len(classifier.members) > 1 and split.way != "folds"):
        raise InputError(
            f"{model} is an ensemble of {len(classifier.members)}, whose weights were chosen for its "
            "own photos: train it anew on old and new photos (`fieldmark merge`)."
        )
    return _Old(classifier, called, split, {taxon.id: becomes[taxon.id] for taxon in classifier.taxa})


def _alike(members: Sequence[Member]) -> bool:
    """Whether members differ in nothing but their networks: the same view, and equal weights."""
    extractor = FeatureExtractor(members[0].preprocess)
    views = all(each.preprocess == extractor.crop_for(each.network.backbone) for each in members[1:])
    return (
        views
        and len({each.network.key for each in members}) == len(members)
        and len({each.weight for each in members}) == 1
    )


def extended_split(old: Split, table: PhotoTable, *, corrected: bool = False) -> Split:
    """The old split with the new photos in it.

    No old photo changes its part. A new photo of a group that is known goes where its group is, which is its
    place in a split by location; the others are divided by classes with the same seed, a tenth to choose by
    and a tenth to measure on, and by location where the old ones are.

    Args:
        old: of the photos that were there.
        table: old and new photos.
        corrected: whether labels of old photos have changed.

    Raises:
        InputError: no labelled photo is new, and no label has changed.
    """
    new = table.measurable.filter(~pl.col("id").is_in(old.frame["id"].implode()))
    if new.is_empty() and not corrected:
        raise InputError(
            "None of the photos is new and has a label, or has another label than before: `fieldmark grow` "
            "learns from labelled photos (one folder per species, say) that the classifier does not have yet."
        )
    place = {part: rank for rank, part in enumerate(reversed(PARTS))}  # to measure on comes first
    known = (
        table.frame.join(old.frame, on="id")
        .drop_nulls("group")
        .sort(pl.col("part").replace_strict(place, return_dtype=pl.Int8))
        .unique("group", keep="first", maintain_order=True)
        .select("group", "part")
    )
    followed = new.join(known, on="group").select("id", "part")
    rest = table.with_frame(new.filter(~pl.col("id").is_in(followed["id"].implode())))
    if old.way != "folds":
        drawn = _drawn(rest, old.seed, "location" if old.way == "location" else "stratified")
    else:
        drawn = undivided(rest).frame if len(rest) else followed.clear()
    return Split(pl.concat([old.frame, followed, drawn]).sort("id"), old.seed, old.way)


def _drawn(rest: PhotoTable, seed: int, way: SplitMethod) -> pl.DataFrame:
    """The parts of the photos that stand alone; all to learn from where they are too few to divide."""
    if len(rest) >= _FEWEST:
        test = 0.0 if rest.has_test else 0.1
        try:
            return split_photos(rest, val=0.1, test=test, seed=seed, way=way).frame
        except InputError as error:
            logger.info(f"{error} All are learned from.")
    return rest.frame.select("id", part=pl.lit("train"))


def _warm(old: _Old, classes: tuple[str, ...]) -> Warm:
    """The old head, and which of its columns each class has."""
    column: dict[str, int] = {}
    for at, taxon in enumerate(old.classifier.taxa):
        column.setdefault(old.becomes[taxon.id], at)
    return Warm(old.classifier.lead.head, np.array([column.get(each, -1) for each in classes]))


def _scores_before(old: _Old, log_p_NB: FloatArray, classes: tuple[str, ...]) -> FloatArray:
    """The old classifier's log-probabilities of the classes; of those that it does not know, none."""
    found = np.full((len(log_p_NB), len(classes)), _NEVER, np.float64)
    number = {taxon_id: at for at, taxon_id in enumerate(classes)}
    for at, taxon in enumerate(old.classifier.taxa):
        to = number.get(old.becomes[taxon.id])
        if to is not None:  # names that became one: their probabilities add up
            found[:, to] = np.logaddexp(found[:, to], log_p_NB[:, at])
    return found.astype(np.float32)


def _changed(old: _Old, now: Evaluation, before: Evaluation) -> dict[str, Any]:
    """What became of the old test photos, paired with what the old classifier made of them; and how good
    the new one is on the new ones."""
    mine = np.isin(now.photo_ids, old.split.frame["id"].to_numpy())
    strange_C = np.array([each not in set(old.becomes.values()) for each in now.classes], np.bool_)
    of_new = strange_C[now.labels_N] & (now.labels_N >= 0)
    told: dict[str, Any] = {"old_photos": None}
    pair = now.where(np.isin(now.photo_ids, before.photo_ids) & mine), before
    pair = pair[0], before.where(np.isin(before.photo_ids, pair[0].photo_ids))
    if pair[0].kept_N.any():
        found = difference(*pair)
        told["old_photos"] = {
            "photos": found.photos,
            "error_before": float(pair[1].wrong_N()[pair[1].kept_N].mean()),
            "error": float(pair[0].wrong_N()[pair[0].kept_N].mean()),
            "difference": found.value,
            "interval": list(found.interval),
            "tie": found.tie,
        }
    told["new_photos"] = _error(now.where(~mine))
    told["new_classes_photos"] = _error(now.where(of_new))
    return told


def _error(photos: Evaluation) -> dict[str, Any] | None:
    kept = photos.kept_N
    if not kept.any():
        return None
    wrong = photos.wrong_N()[kept]
    groups = [group for group, known in zip(photos.groups, kept, strict=True) if known]
    interval = intervals.error_interval(wrong, groups)
    return {"photos": int(kept.sum()), "error": float(wrong.mean()), "interval": list(interval)}


def lines(classifier: Classifier) -> Iterator[str]:
    """What changed, for the terminal."""
    grown = classifier.provenance["grown"]
    yield (
        f"{grown['computed']:,} photos went through the network; new classes: {len(grown['new_classes']):,}."
    )
    if corrected := grown["corrected"]:
        names = {taxon.id: taxon.name for taxon in classifier.taxa}
        some = (f"{each['id']} is now {names.get(each['now'], each['now'])}" for each in corrected[:_SHOWN])
        more = ", ..." if len(corrected) > _SHOWN else ""
        yield f"{len(corrected):,} labels of known photos were corrected: {', '.join(some)}{more}."
    if old := grown["old_photos"]:
        low, high = old["interval"]
        verdict = "a tie" if old["tie"] else "worse" if old["difference"] > 0 else "better"
        yield (
            f"The {old['photos']:,} old test photos: error {old['error_before']:.1%} before, "
            f"{old['error']:.1%} now, difference {old['difference']:+.1%} "
            f"(95 % interval {low:+.1%} to {high:+.1%}): {verdict}."
        )
    for what, name in (
        ("new test photos", "new_photos"),
        ("test photos of new classes", "new_classes_photos"),
    ):
        if found := grown[name]:
            low, high = found["interval"]
            yield (
                f"The {found['photos']:,} {what}: error {found['error']:.1%} "
                f"(95 % interval {low:.1%} to {high:.1%})."
            )
        else:
            yield f"There are no {what}: how good it is on such is not known."
