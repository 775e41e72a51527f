"""Fine-tune candidates by the recipe `good` of `fieldmark.training.finetune`.

Cross-validation would take five times as long, so one fold is held out: a network is trained on the
other four, starting from a last layer that was trained on them, and measured on that fold. The measured
network is the final one: nothing is trained again on all photos.

The time of training is estimated before it begins, by a few updates; the number of epochs is what the
time allows. A network that still takes longer is stopped; its checkpoint stays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.loader import LabelledCrops
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import cost_of
from fieldmark.heads import HEADS
from fieldmark.training import finetune
from fieldmark.training.automl.budget import Budget
from fieldmark.training.automl.candidate import Candidate, TrialResult, training_and_validation
from fieldmark.training.automl.linear_probe_search import cache_key
from fieldmark.training.finetune import FineTuning
from fieldmark.utils import io
from fieldmark.utils.choices import Transfer
from fieldmark.utils.errors import InputError, StoreError

if TYPE_CHECKING:
    from fieldmark.models.network import ClassifierNetwork

logger = logging.getLogger(__name__)

NOTES: dict[Transfer, str] = {
    "all": "all layers trained",
    "low-rank": "low-rank updates trained",
    "adapters": "biases and normalisations trained",
}
"""The kinds of fine-tuning, the most promising first, and their names on a page."""

EPOCHS = finetune.EPOCHS
"""The maximum number of epochs."""

FEWEST = 3
"""The minimum number of epochs."""

_NETWORKS = 2  # those with the largest weights
_MONITORED = 64  # held-out photos measured after each epoch, for information only
_BACKWARD = 3  # an update takes at least so many times as long as the features of its photos
_MARGIN = 1.1
_FORMAT = 2  # of cached networks: raised when the same one would be trained differently


@dataclass
class FineTuningSearch:
    """Networks fine-tuned one after the other.

    Attributes:
        parts: the photos.
        seed: of the fold and of training.
        budget: the time for all of them.
        stream: whether to decode photos again in each epoch.
        bfloat16: whether to train in bfloat16.
        results: the trained networks.
        skipped: for each network that was not trained, a sentence with the reason.
        extraction: the features computed on the way.
    """

    parts: DataSplits
    seed: int
    budget: Budget
    stream: bool = False
    bfloat16: bool = False
    results: list[TrialResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    extraction: Extraction = field(default_factory=Extraction)

    @cached_property
    def photos(self) -> LabelledPhotos:
        """The training and validation photos."""
        return training_and_validation(self.parts)

    @cached_property
    def fold(self) -> cross_validation.Fold:
        """The held-out fold, without the only photos of a class: those are trained on."""
        fold = cross_validation.rounds(self.photos, self.seed)[0]
        measure = cross_validation.spared(self.photos, fold.measure, ~fold.measure)
        return replace(fold, learn=fold.learn | (fold.measure & ~measure), measure=measure)

    def try_all(self, candidates: Sequence[Candidate]) -> None:
        """Train the first networks in each way, within the time budget."""
        known = self.photos.labels(self.parts.classes) >= 0
        if not (known & self.fold.measure).any():
            self._skip("Training the networks themselves: not tried, no photo can be held out")
            return
        for transfer in NOTES:
            for candidate in [each for each in candidates if each.backbone.architecture.trains][:_NETWORKS]:
                self._try(candidate, transfer)

    def _try(self, candidate: Candidate, transfer: Transfer) -> None:
        start = self.budget.clock()
        run = _FineTuningRun(self, candidate, transfer)
        name = f"{candidate.name}, {NOTES[transfer]}"
        model = run.kept()
        if model is None:
            plan = run.plan()
            if plan.recipe is None:
                left = max(0.0, self.budget.left)
                needed = f"{FEWEST} epochs would take about {plan.seconds:,.0f} s and {left:,.0f} s are left"
                self._skip(f"{name}: not tried, {plan.why or needed}")
                return
            epochs = plan.recipe.epochs
            logger.info(f"{name}: {epochs} epochs, which take about {plan.seconds:,.0f} s")
            try:
                model = run.trained(plan.recipe)
            except finetune.Stopped:
                spent = self.budget.clock() - start
                self._skip(
                    f"{name}: stopped after {spent:,.0f} s, {plan.seconds:,.0f} s were expected; "
                    "the same command resumes from its checkpoint"
                )
                return
        done = replace(run.measured(model), seconds=self.budget.clock() - start)
        self.results.append(done)
        logger.info(f"{name}: on one held-out fold, log-loss {done.loss:.3f}, error {done.error:.1%}")

    def _skip(self, why: str) -> None:
        self.skipped.append(why)
        logger.info(why)


@dataclass(frozen=True)
class TrainingPlan:
    """The recipe for a network, and the seconds it takes; None: the time does not allow any, or `why`."""

    recipe: FineTuning | None
    seconds: float
    why: str = ""


class _FineTuningRun:
    """One network fine-tuned in one way, and its files."""

    def __init__(self, tuning: FineTuningSearch, candidate: Candidate, transfer: Transfer) -> None:
        self.tuning, self.candidate = tuning, candidate
        self.parts, self.seed = tuning.parts, tuning.seed
        recipe = finetune.good(transfer, epochs=EPOCHS, seed=tuning.seed)
        self.recipe = replace(recipe, precision="bfloat16") if tuning.bfloat16 else recipe
        # The budget is part of the key, since it determines the epochs.
        rest = [_FORMAT, self.recipe.key, tuning.budget.seconds, tuning.stream]
        key = io.digest([*cache_key(candidate, tuning.photos, self.parts, self.seed), *rest])
        self.cache_path = io.cache_dir() / "tuned" / f"{key[:32]}.safetensors"

    @property
    def _begun(self) -> Path:
        """The plan, a file beside the checkpoint of a run in progress."""
        return self.cache_path.with_suffix(".json")

    @property
    def _state(self) -> Path:
        return self.cache_path.with_suffix(".state")

    @cached_property
    def model(self) -> ClassifierNetwork:
        """The network with the last layer that training starts from."""
        classes, fold = len(self.parts.classes), self.tuning.fold
        model = self.candidate.backbone.trainable(classes, self.seed)
        labelled = self.candidate.extractor.features(
            self.candidate.backbone, self.tuning.photos, self.parts.classes
        )
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        head: Any = HEADS["softmax"](learn, choose, classes, self.seed).head
        finetune.set_last_layer(model, head)
        return model

    @cached_property
    def crops(self) -> tuple[LabelledCrops, LabelledCrops]:
        """The training photos, and some held-out photos to monitor."""
        photos, measure = self.tuning.photos, self.tuning.fold.measure
        known = photos.labels(self.parts.classes) >= 0
        monitored = measure & known
        monitored &= np.cumsum(monitored) <= _MONITORED
        return self.candidate.extractor.finetuning_crops(
            self.candidate.backbone,
            photos.where(~measure & known),
            photos.where(monitored),
            self.parts.classes,
            stream=self.tuning.stream,
        )

    def plan(self) -> TrainingPlan:
        """Plan as many epochs as the time allows, at most the recipe's; keep a plan in progress."""
        left = self.tuning.budget.left
        cost = cost_of(self.candidate.extractor, self.candidate.backbone, 1) or 0.0
        after = cost * len(self.parts.files)  # the features of all photos
        try:
            begun = io.read_json(self._begun)
            rest = max(0.0, begun["training"] - finetune.seconds_spent(self._state)) + after
            if rest <= left:
                return TrainingPlan(replace(self.recipe, epochs=begun["epochs"]), rest)
        except (InputError, StoreError, KeyError, TypeError):
            self._state.unlink(missing_ok=True)  # damaged, or without a plan
        learn = int((~self.tuning.fold.measure).sum())
        least = _BACKWARD * FEWEST * cost * learn + after
        if least > left:
            return TrainingPlan(None, least)
        try:  # before a few updates measure the time
            side = self.candidate.backbone.architecture.input_size
            finetune.check_memory(self.model, self.recipe, side, options=False)
        except InputError as error:
            return TrainingPlan(None, least, str(error))
        pace = finetune.pace(self.model, *self.crops, self.recipe)
        left = self.tuning.budget.left
        for epochs in range(EPOCHS, FEWEST - 1, -1):
            recipe = replace(self.recipe, epochs=epochs)
            training = _MARGIN * pace.seconds(recipe)
            if training + after <= left:
                io.write_json(self._begun, {"epochs": epochs, "training": training})
                return TrainingPlan(recipe, training + after)
        return TrainingPlan(None, training + after)

    def trained(self, recipe: FineTuning) -> ClassifierNetwork:
        """Train the network from its checkpoint, and cache the result.

        Raises:
            Stopped: it uses up the reserved time.
        """
        from safetensors.torch import save_file

        from fieldmark.models.network import storable

        model, over = self.model, self.tuning.budget.is_over
        finetune.finetune(model, *self.crops, recipe, checkpoint=self._state, stop=over)
        with io.replacing(self.cache_path, seal=True) as temporary:
            save_file(storable(model.state_dict()), temporary)
        self._state.unlink(missing_ok=True)
        self._begun.unlink(missing_ok=True)
        return model

    def kept(self) -> ClassifierNetwork | None:
        """Read the cached trained network; None where there is none, or it is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with suppress(OSError, SafetensorError, RuntimeError):
            if not io.is_sealed(self.cache_path):
                return None
            tensors = load_file(self.cache_path)
            model = self.candidate.backbone.trainable(len(self.parts.classes), self.seed)
            model.load_state_dict(tensors)
            return model
        return None

    def measured(self, model: ClassifierNetwork) -> TrialResult:
        """Measure the trained network on the held-out fold."""
        backbone, head = finetune.split_trained(self.candidate.backbone, model)
        extractor, name = self.candidate.extractor, backbone.architecture.name
        done = extractor.compute(self.parts.files, {name: backbone})
        self.tuning.extraction = self.tuning.extraction.merged(done)
        rows_N = self.tuning.fold.measure
        held = extractor.features(backbone, self.tuning.photos.where(rows_N), self.parts.classes)
        note = NOTES[self.recipe.transfer]
        logits_NC = head.logits_of(held.features)
        candidate = Candidate(backbone, extractor)
        return TrialResult.of(candidate, note, head, logits_NC, held.labels, rows_N=rows_N)
