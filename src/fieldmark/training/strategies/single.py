"""Train one network: its last layer on cached features, or the network itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

from fieldmark import models
from fieldmark.data.dataset import Dataset
from fieldmark.data.subset import LabelledPhotos
from fieldmark.features.extractor import extractor_of
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.heads.default import Warm, fit_best, refit
from fieldmark.heads.softmax import Fit, Hyperparameters, by_loss
from fieldmark.inference.classifier import Member, Network
from fieldmark.models import Backbone
from fieldmark.training import compute
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import (
    EPOCHS,
    FineTuning,
    check_memory,
    distributed,
    finetune,
    good,
    join_processes,
    set_last_layer,
    split_trained,
)
from fieldmark.training.logit_adjustment import for_rare
from fieldmark.training.stages import Fitted, FittedMember, Prepared
from fieldmark.training.strategies import folds
from fieldmark.utils import io
from fieldmark.utils.logging import progress_bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SingleStrategy:
    """Train one network.

    Attributes:
        dataset: the photos and their split.
        config: every choice.
        backbone: the network with the weights that training begins with.
        divided: whether the test part was set apart by whoever made the dataset, and stays apart.
    """

    dataset: Dataset
    config: TrainConfig
    backbone: Backbone
    divided: bool = False

    @classmethod
    def of(cls, config: TrainConfig, read: Callable[[], Dataset], *, divided: bool = False) -> SingleStrategy:
        """Load the network, then read the photos: missing weights are reported at once."""
        join_processes(config.transfer)
        backbone = models.load(
            config.network,
            weights="random" if config.transfer == "scratch" else config.weights,
            weights_dir=config.weights_dir,
            seed=config.seed,
            size=config.size,
        )
        logger.info(f"Network: {backbone.summary}")
        return cls(read(), config, backbone, divided)

    def prepare(self) -> Prepared:
        """Compute the features of all photos; training from scratch needs none."""
        data = Prepared(self.dataset, extractor_of(self.config))
        if self.config.transfer != "last":  # refused before the features are computed
            network = self.backbone.trainable(len(data.splits.classes), self.config.seed)
            check_memory(network, recipe_of(self.config), self.backbone.architecture.input_size)
        if self.config.transfer == "scratch":
            return data
        with distributed.first_process_first():
            backbone = self.chosen.backbone
            data = data.compute({self.config.network: backbone})
            return folds.divided(data, [backbone], self.config, by_user=self.divided)

    @cached_property
    def chosen(self) -> compute.Chosen:
        """The network in the tier of precision that the configuration asks for."""
        return compute.choose(Prepared(self.dataset, extractor_of(self.config)), self.backbone, self.config)

    def fit(self, data: Prepared) -> Fitted:
        """Fit the last layer, or train the network."""
        if self.config.transfer != "last":
            return fitted(*train_network(data, self.backbone, self.config), self.config)
        found = self._fit_last(data, self.chosen.backbone)
        return replace(found, details={**found.details, **self.chosen.record})

    def _fit_last(self, data: Prepared, backbone: Backbone) -> Fitted:
        if data.split.way == "folds":
            return folds.cross_fitted(data, [backbone], self.config)
        found = fitted(data, backbone, sweep(data, backbone, self.config), self.config)
        if not self.config.in_folds:
            return found
        every = found.data.labelled(divided=self.divided)
        return replace(found, learned=every, refit=partial(self._refit, found))

    def _refit(self, found: Fitted, every: LabelledPhotos) -> list[LinearHead]:
        """Train the head that was measured again, on other photos."""
        classes = found.data.splits.classes
        photos = found.lead.features(every, classes)
        known = photos.where(photos.labels >= 0)
        best = min(found.fits, key=by_loss)
        return [refit(best, known, len(classes), seed=self.config.seed)]


def fitted(data: Prepared, backbone: Backbone, fits: Sequence[Fit], config: TrainConfig) -> Fitted:
    """Take the best of the fits, adjusted for rare classes where that is asked for."""
    fit, details = _chosen(data, backbone, fits, config)
    view = data.extractor.crop_for(backbone)
    member = FittedMember(Member(Network.of(backbone), view, fit.unscaled), backbone, data.extractor)
    return Fitted(
        (member,), data, tuple(fits), fit.seconds, unseen_classes=config.transfer == "last", details=details
    )


def _chosen(
    data: Prepared, backbone: Backbone, fits: Sequence[Fit], config: TrainConfig
) -> tuple[Fit, dict[str, Any]]:
    fit = min(fits, key=by_loss)
    if not config.rare:
        return fit, {"rare": None}
    splits = data.splits.measurable()
    fit, rare = for_rare(data.extractor, backbone, splits, fit, config.seed)
    logger.info(rare.said)
    return fit, {"rare": asdict(rare) | {"said": rare.said}}


def sweep(data: Prepared, backbone: Backbone, config: TrainConfig, warm: Warm | None = None) -> list[Fit]:
    """Train all heads of the sweep in one go, from `warm` on where some classes were learned before."""
    splits = data.splits
    train = data.extractor.features(backbone, splits.train, splits.classes)
    val = data.extractor.features(backbone, splits.val, splits.classes)
    with progress_bar("training the last layer", unit="epochs") as stage:
        return fit_best(
            train,
            val,
            len(splits.classes),
            seed=config.seed,
            epochs=config.epochs,
            warm=warm,
            kind=config.head,
            on_epoch=lambda _done, _of: stage.advance(),
        )


def recipe_of(config: TrainConfig) -> FineTuning:
    """Return how a network is fine-tuned."""
    how = good(config.transfer, epochs=config.epochs or EPOCHS, seed=config.seed)
    how = replace(
        how,
        checkpointing=config.checkpointing,
        accumulate=config.accumulate or how.accumulate,
        optimizer_bits=config.optimizer_bits,
    )
    return replace(how, precision="bfloat16") if config.bfloat16 else how


def train_network(
    data: Prepared, backbone: Backbone, config: TrainConfig
) -> tuple[Prepared, Backbone, list[Fit]]:
    """Train the network itself by the recipe `good`, and compute the features of the result.

    A pretrained network starts from the best last layer on cached features.
    """
    splits, extractor = data.splits, data.extractor
    how = recipe_of(config)
    model = backbone.trainable(len(splits.classes), config.seed)
    last = None
    if how.head_first:
        last = sweep(data, backbone, replace(config, epochs=None))[0].head
        set_last_layer(model, last)
    train, val = extractor.finetuning_crops(
        backbone, splits.train, splits.val, splits.classes, stream=config.stream
    )
    # The state is kept beside the features: the same command resumes where it was interrupted.
    about = [backbone.key, extractor.crop_for(backbone).key(), how.key, config.stream]
    photos = [photo.sha256 for photo in splits.files]
    work = io.digest([*about, splits.classes, splits.train.ids, photos])
    checkpoint = io.cache_dir() / "checkpoints" / f"{work[:32]}.safetensors"
    curve, seconds = finetune(model, train, val, how, checkpoint=checkpoint)
    checkpoint.unlink(missing_ok=True)
    trained, head = split_trained(backbone, model)
    with distributed.first_process_first():
        data = data.compute({config.network: trained})
    if last is not None:
        held = (extractor.features(each, splits.val, splits.classes) for each in (backbone, trained))
        logger.info(beside(*(_error(*each) for each in zip((last, head), held, strict=True))))
    setting = Hyperparameters(learning_rate=how.learning_rate)
    return data, trained, [Fit(setting, head, tuple(curve), seconds=seconds)]


def _error(head: LinearHead, photos: LabelledFeatures) -> float:
    """The top-1 error on the photos of the classes."""
    known = photos.where(photos.labels >= 0)
    wrong_N = head.logits_of(known.features).argmax(axis=1) != known.labels
    return float(wrong_N.mean()) if len(known) else 0.0


def beside(last: float, tuned: float) -> str:
    """Compare the fine-tuned network with the last layer that it began with.

    Args:
        last, tuned: their errors on the validation photos.
    """
    told = f"Validation error after fine-tuning {tuned:.1%}, of the last layer alone {last:.1%}"
    if tuned < last:
        return f"{told}."
    how = "worse than" if tuned > last else "no better than"
    return (
        f"{told}: fine-tuning was {how} the frozen network. The fine-tuned network is kept, as "
        "--transfer asks; --transfer last trains the last layer alone."
    )
