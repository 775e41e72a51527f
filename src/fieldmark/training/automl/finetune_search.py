"""Candidates whose network itself is trained, by the good recipe of `fieldmark.training.finetune`.

In five folds that would take five times as long, so one fold is held out: a network learns from the
photos of the other four, beginning with a last layer that was learned from them, and is measured on
that fold, as the last layers are that saw the same photos. What is measured is what is kept: nothing
is learned anew from all photos.

How long training will take is measured before it begins, by some updates; the epochs are as many as the
time allows. A network that takes longer all the same is given up, its state kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
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
from fieldmark.training.automl.candidate import Candidate, Tried, learning_photos
from fieldmark.training.automl.linear_probe_search import identity
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
"""The ways, the most promising first, and how each is called beside its network."""

EPOCHS = finetune.EPOCHS
"""More epochs are not tried."""

FEWEST = 3
"""Fewer epochs are not tried."""

_NETWORKS = 2  # of those that count most
_LOOKED_AT = 64  # held-out photos after each epoch, only to be looked at
_BACKWARD = 3  # an update takes at least so many times as long as the features of its photos
_MARGIN = 1.1
_FORMAT = 2  # of kept networks: goes up when the same one would be trained otherwise


@dataclass
class Tuning:
    """Networks trained one after the other.

    Attributes:
        parts: the photos.
        seed: of the fold and of training.
        budget: how long all may take.
        stream: whether photos are decoded anew in each epoch.
        bfloat16: whether networks are trained in half precision.
        found: what was trained.
        passed_over: a sentence for each that was not, and why.
        extraction: what was computed on the way.
    """

    parts: DataSplits
    seed: int
    budget: Budget
    stream: bool = False
    bfloat16: bool = False
    found: list[Tried] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    extraction: Extraction = field(default_factory=Extraction)

    @cached_property
    def photos(self) -> LabelledPhotos:
        """All that are learned from or measured on."""
        return learning_photos(self.parts)

    @cached_property
    def fold(self) -> cross_validation.Fold:
        """The fold that is held out, but for the only photos of a class: those are learned from."""
        fold = cross_validation.rounds(self.photos, self.seed)[0]
        measure = cross_validation.spared(self.photos, fold.measure, ~fold.measure)
        return replace(fold, learn=fold.learn | (fold.measure & ~measure), measure=measure)

    def try_all(self, candidates: Sequence[Candidate]) -> None:
        """Train the first networks in each way, as far as the time allows."""
        known = self.photos.labels(self.parts.classes) >= 0
        if not (known & self.fold.measure).any():
            self._say_not("Training the networks themselves: not tried, no photo can be held out")
            return
        for transfer in NOTES:
            for candidate in candidates[:_NETWORKS]:
                self._try(candidate, transfer)

    def _try(self, candidate: Candidate, transfer: Transfer) -> None:
        start = self.budget.clock()
        run = _Run(self, candidate, transfer)
        name = f"{candidate.name}, {NOTES[transfer]}"
        model = run.kept()
        if model is None:
            plan = run.plan()
            if plan.how is None:
                left = max(0.0, self.budget.left)
                self._say_not(
                    f"{name}: not tried, {FEWEST} epochs would take about {plan.seconds:,.0f} s and "
                    f"{left:,.0f} s are left"
                )
                return
            epochs = plan.how.epochs
            logger.info(f"{name}: {epochs} epochs, which take about {plan.seconds:,.0f} s")
            try:
                model = run.trained(plan.how)
            except finetune.Stopped:
                spent = self.budget.clock() - start
                self._say_not(
                    f"{name}: given up after {spent:,.0f} s, {plan.seconds:,.0f} s were expected; "
                    "what was done is kept, and the same command goes on from it"
                )
                return
        done = replace(run.measured(model), seconds=self.budget.clock() - start)
        self.found.append(done)
        logger.info(
            f"{name}: on one fold held out, log-loss {done.loss:.3f}, error {done.error:.1%}"
        )

    def _say_not(self, why: str) -> None:
        self.passed_over.append(why)
        logger.info(why)


@dataclass(frozen=True)
class Plan:
    """How a network is to be trained (None: the time does not allow it), and the seconds it takes."""

    how: FineTuning | None
    seconds: float


class _Run:
    """One network trained in one way, and what is kept of it."""

    def __init__(self, tuning: Tuning, candidate: Candidate, transfer: Transfer) -> None:
        self.tuning, self.candidate = tuning, candidate
        self.parts, self.seed = tuning.parts, tuning.seed
        how = finetune.good(transfer, epochs=EPOCHS, seed=tuning.seed)
        self.how = replace(how, precision="bfloat16") if tuning.bfloat16 else how
        # Another budget allows other epochs: what is kept is of the same command.
        rest = [_FORMAT, asdict(self.how), tuning.budget.seconds, tuning.stream]
        key = io.digest([*identity(candidate, tuning.photos, self.parts, self.seed), *rest])
        self.place = io.cache_dir() / "tuned" / f"{key[:32]}.safetensors"

    @property
    def _begun(self) -> Path:
        """What was planned, kept beside the state of the run under way."""
        return self.place.with_suffix(".json")

    @property
    def _state(self) -> Path:
        return self.place.with_suffix(".state")

    @cached_property
    def model(self) -> ClassifierNetwork:
        """The network with the last layer that it begins with."""
        classes, fold = len(self.parts.classes), self.tuning.fold
        model = self.candidate.backbone.trainable(classes, self.seed)
        labelled = self.candidate.extractor.features(
            self.candidate.backbone, self.tuning.photos, self.parts.classes
        )
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        head: Any = HEADS["softmax"](learn, choose, classes, self.seed).head
        finetune.start_from(model, head)
        return model

    @cached_property
    def crops(self) -> tuple[LabelledCrops, LabelledCrops]:
        """The photos to learn from, and some to look at in between."""
        photos, measure = self.tuning.photos, self.tuning.fold.measure
        known = photos.labels(self.parts.classes) >= 0
        looked_at = measure & known
        looked_at &= np.cumsum(looked_at) <= _LOOKED_AT
        return self.candidate.extractor.crops_to_tune(
            self.candidate.backbone,
            photos.where(~measure & known),
            photos.where(looked_at),
            self.parts.classes,
            stream=self.tuning.stream,
        )

    def plan(self) -> Plan:
        """As many epochs as the time allows, at most the recipe's; those that were begun go on."""
        left = self.tuning.budget.left
        cost = cost_of(self.candidate.extractor, self.candidate.backbone, 1) or 0.0
        after = cost * len(self.parts.files)  # the features of all photos
        try:
            begun = io.read_json(self._begun)
            rest = max(0.0, begun["training"] - finetune.spent(self._state)) + after
            if rest <= left:
                return Plan(replace(self.how, epochs=begun["epochs"]), rest)
        except (InputError, StoreError, KeyError, TypeError):
            self._state.unlink(missing_ok=True)  # damaged, or of no plan: nothing to go on from
        learn = int((~self.tuning.fold.measure).sum())
        least = _BACKWARD * FEWEST * cost * learn + after
        if least > left:
            return Plan(None, least)
        pace = finetune.pace(self.model, *self.crops, self.how)
        left = self.tuning.budget.left
        for epochs in range(EPOCHS, FEWEST - 1, -1):
            how = replace(self.how, epochs=epochs)
            training = _MARGIN * pace.seconds(how)
            if training + after <= left:
                io.write_json(self._begun, {"epochs": epochs, "training": training})
                return Plan(how, training + after)
        return Plan(None, training + after)

    def trained(self, how: FineTuning) -> ClassifierNetwork:
        """Train the network, from where the kept state is on, and keep what comes out.

        Raises:
            Stopped: it takes into the time that is reserved.
        """
        from safetensors.torch import save_file

        model, over = self.model, self.tuning.budget.is_over
        finetune.finetune(model, *self.crops, how, checkpoint=self._state, stop=over)
        tensors = {name: each.contiguous() for name, each in model.state_dict().items()}
        with io.replacing(self.place) as temporary:
            save_file(tensors, temporary)
        self._state.unlink(missing_ok=True)
        self._begun.unlink(missing_ok=True)
        return model

    def kept(self) -> ClassifierNetwork | None:
        """The network as it was trained before; None where it was not, or what is kept is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with suppress(OSError, SafetensorError, RuntimeError):
            tensors = load_file(self.place)
            model = self.candidate.backbone.trainable(len(self.parts.classes), self.seed)
            model.load_state_dict(tensors)
            return model
        return None

    def measured(self, model: ClassifierNetwork) -> Tried:
        """The trained network on the fold that it never saw."""
        backbone, head = finetune.taken_apart(self.candidate.backbone, model)
        extractor, name = self.candidate.extractor, backbone.architecture.name
        done = extractor.compute(self.parts.files, {name: backbone})
        self.tuning.extraction = self.tuning.extraction.merged(done)
        rows_N = self.tuning.fold.measure
        held = extractor.features(backbone, self.tuning.photos.where(rows_N), self.parts.classes)
        note = NOTES[self.how.transfer]
        logits_NC = head.logits_of(held.features)
        candidate = Candidate(backbone, extractor)
        return Tried.of(candidate, note, head, logits_NC, held.labels, rows_N=rows_N)
