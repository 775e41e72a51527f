"""Several networks and views of a photo, learned on one split: the candidates of `--quality best`.

Everything is chosen on the training and validation photos by scores of heads that never saw the photo
(five folds), and measured on the test part once, at the end. Thousands of photos choose, not the few
hundred of a validation part, on which the best of many would be the luckiest.

The first candidate, with the head that `train` learns by default, is what the others are compared with.
Then each candidate gets a head in closed form, which takes seconds; the default's heads are learned only
for those that count among them. A candidate's own head is learned from nine tenths of all those
photos, with a tenth to choose by. Features and heads are kept: what was cut off goes on from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fieldmark import backbones, calibration, ensemble, files, folds, metrics, progress
from fieldmark.backbones import Backbone
from fieldmark.classifier import name_of
from fieldmark.errors import InputError
from fieldmark.experiment import Bench, Parts, Photos
from fieldmark.heads import HEADS, longtail
from fieldmark.heads.base import LinearHead
from fieldmark.preprocess import Fit, Preprocess

FloatArray = npt.NDArray[np.float32]
Kind = Literal["softmax", "ridge"]

RESERVE = 0.15
"""The share of a budget that is kept for choosing, measuring and writing."""

LARGER = 9 / 7
"""The side of larger crops as a multiple of the network's own: 288 for 224."""

FEW = 30
"""A class with fewer photos is rare."""

_EVEN = (0.5, 1.0)  # how far answers are corrected to classes that are all equally frequent
_FRONT = 4  # candidates that get the default's heads
_SECONDS_A_GIGA_MAC = 0.05  # of a photo on a slow processor, until it has been measured here
_HEAD_SECONDS = {"softmax": 90.0, "ridge": 15.0}  # of the heads of one candidate, until measured
_FORMAT = 1  # of kept heads: goes up when the same candidate would be learned otherwise


@dataclass
class Budget:
    """How long a search may take.

    Attributes:
        seconds: in all; None: as long as it takes.
        clock: the time in seconds.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def left(self) -> float:
        """The seconds that are left for candidates, the reserve taken off."""
        if self.seconds is None:
            return float("inf")
        return (1 - RESERVE) * self.seconds - (self.clock() - self._start)


@dataclass(frozen=True)
class Candidate:
    """One network and one view of a photo.

    Attributes:
        backbone: the network, on its own side or a larger one.
        bench: where the features of the view are kept.
    """

    backbone: Backbone
    bench: Bench

    @property
    def view(self) -> Preprocess:
        """From a photo to the crop that the network sees."""
        return self.bench.crop_for(self.backbone)

    @property
    def name(self) -> str:
        """What it is called on a page."""
        facts = self.backbone.architecture
        return name_of(facts.name, self.view, facts.input_size if self.backbone.native else None)


@dataclass(frozen=True)
class Tried:
    """A candidate that was learned.

    Attributes:
        candidate: which.
        note: what is told of its head, beside the candidate's name.
        head: learned from nine tenths of the training and validation photos.
        logits_NC: of the training and validation photos, each by a head that never saw it.
        temperature: fitted on them.
        loss, error: of the calibrated scores on them.
        seconds: what it took here; what was kept from before costs none.
    """

    candidate: Candidate
    note: str
    head: LinearHead
    logits_NC: FloatArray
    temperature: float
    loss: float
    error: float
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        note: str,
        head: LinearHead,
        logits_NC: FloatArray,
        labels_N: npt.NDArray[np.int64],
    ) -> Tried:
        """With its temperature, and measured."""
        known = labels_N >= 0
        temperature = calibration.fit_temperature(logits_NC, labels_N)
        scaled, labels = logits_NC[known] / np.float32(temperature), labels_N[known]
        loss = metrics.negative_log_likelihood(scaled, labels)
        error = metrics.top_k_error(scaled, labels)
        return cls(candidate, note, head, logits_NC, temperature, loss, error)

    @property
    def name(self) -> str:
        """What it is called on a page."""
        return f"{self.candidate.name}, {self.note}" if self.note else self.candidate.name


def learning_photos(parts: Parts) -> Photos:
    """The photos that are learned from and chosen by: all but the test part."""
    return folds.together(parts.train, parts.val)


def candidates(networks: Sequence[Backbone], bench: Bench, *, all_views: bool) -> list[Candidate]:
    """The networks as they are; with `all_views` larger crops, centres and mirrored photos as well.

    Cheap and promising ones first: each network on its own side after two larger views of the first.
    """

    def seen(by: Backbone, fit: Fit = "squash", *, flip: bool = False) -> Candidate:
        view = replace(bench.preprocess, fit=fit, flip=flip)
        return Candidate(by, replace(bench, preprocess=view, _spools={}))

    plain = [seen(each) for each in networks]
    if not all_views:
        return plain
    large = [_larger(each) for each in networks]
    first = large[0] or networks[0]
    wanted = [plain[0], *([seen(first)] if large[0] else []), seen(first, "crop"), *plain[1:]]
    wanted += [seen(first, flip=True), seen(first, "crop", flip=True)]
    wanted += [seen(each) for each in large[1:] if each]
    return wanted


def _larger(backbone: Backbone) -> Backbone | None:
    """The network on larger crops, in steps of 32 pixels; None where it cannot see them."""
    side = 32 * round(LARGER * backbone.architecture.input_size / 32)
    try:
        return backbone.at(side)
    except InputError:
        return None


@dataclass
class Search:
    """What is needed to try candidates, and what was learned of how long they take.

    Attributes:
        parts: the photos.
        seed: of folds and of the order of training.
        budget: how long all may take.
        found: the candidates that were learned.
        passed_over: a sentence for each that there was no time for.
    """

    parts: Parts
    seed: int
    budget: Budget
    found: list[Tried] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    _head: dict[str, float] = field(default_factory=lambda: dict(_HEAD_SECONDS))
    _rate: float = _SECONDS_A_GIGA_MAC

    def try_all(self, wanted: Sequence[Candidate], kind: Kind) -> None:
        """Learn the candidates, one after the other; the very first one always."""
        for candidate in wanted:
            cost = candidate.backbone.architecture.giga_macs * self._missing(candidate)
            estimate = self._rate * cost + self._head[kind]
            if self.found and estimate > self.budget.left:
                self._pass_over(candidate, kind, estimate)
                continue
            start = self.budget.clock()
            name = candidate.backbone.architecture.name
            for _ in candidate.bench.compute(self.parts.files, {name: candidate.backbone}):
                pass
            features_done = self.budget.clock()
            done = learned(candidate, self.parts, self.seed, kind)
            end = self.budget.clock()
            self._head[kind] = 1.2 * (end - features_done)
            if cost:
                self._rate = 1.2 * (features_done - start) / cost
            self.add(replace(done, seconds=end - start))

    def add(self, done: Tried) -> None:
        """One more is there."""
        self.found.append(done)
        progress.say(f"{done.name}: held out, log-loss {done.loss:.3f}, error {done.error:.1%}")

    def _pass_over(self, candidate: Candidate, kind: Kind, estimate: float) -> None:
        left = max(0.0, self.budget.left)
        self.passed_over.append(
            f"{candidate.name}, {kind}: not tried, it would take about {estimate:,.0f} s and "
            f"{left:,.0f} s are left"
        )
        progress.say(self.passed_over[-1])

    def _missing(self, candidate: Candidate) -> int:
        """How many photos have no kept features of a candidate."""
        shelf = candidate.bench.shelf(candidate.backbone)
        return int((shelf.rows([photo.sha256 for photo in self.parts.files]) < 0).sum())

    def try_best(self, wanted: Sequence[Candidate]) -> None:
        """The first as `train` does it; all in closed form; then the default's heads for the front."""
        self.try_all(wanted[:1], "softmax")
        self.try_all(wanted, "ridge")
        self.try_all([each for each in self._front() if each is not wanted[0]], "softmax")
        labels_N = learning_photos(self.parts).labels(self.parts.classes)
        count_C = np.bincount(labels_N[labels_N >= 0], minlength=len(self.parts.classes))
        if count_C.min() < FEW:
            best = min((t for t in self.found if not t.note), key=lambda each: each.loss)
            for done in evened(best, labels_N, count_C):
                self.add(done)

    def _front(self) -> list[Candidate]:
        """The candidates that count most among those in closed form."""
        quick = [each for each in self.found if each.note == "ridge"]
        if not quick:
            return []
        labels_N = learning_photos(self.parts).labels(self.parts.classes)
        known = labels_N >= 0
        own_MN = np.stack(
            [
                ensemble.of_right(each.logits_NC[known] / each.temperature, labels_N[known])
                for each in quick
            ]
        )
        weights_M = ensemble.weights(own_MN)
        best_first = sorted(range(len(quick)), key=lambda m: (-weights_M[m], quick[m].loss))
        return [quick[m].candidate for m in best_first[:_FRONT] if weights_M[m] > 0]


def learned(candidate: Candidate, parts: Parts, seed: int, kind: Kind) -> Tried:
    """A candidate's heads, learned now or kept from before."""
    photos, classes = learning_photos(parts), len(parts.classes)
    labelled = candidate.bench.features(candidate.backbone, photos, parts.classes)
    path = files.cache_dir() / "heads" / f"{_key(candidate, photos, parts, seed, kind)}.safetensors"
    kept = _read(path, (len(photos), classes))
    note = "ridge" if kind == "ridge" else ""
    if kept is not None:
        return Tried.of(candidate, note, *kept, labelled.labels)
    fit = HEADS[kind]
    logits_NC = np.empty((len(photos), classes), np.float32)
    for fold in folds.rounds(photos, seed):
        head = fit(labelled.where(fold.learn), labelled.where(fold.choose), classes, seed).head
        logits_NC[fold.measure] = head.logits_of(labelled.where(fold.measure).features)
    choose_N = folds.folds(photos, 10, seed + 1) == 0
    final: Any = fit(labelled.where(~choose_N), labelled.where(choose_N), classes, seed).head
    _write(path, final, logits_NC)
    return Tried.of(candidate, note, final, logits_NC, labelled.labels)


def evened(
    done: Tried, labels_N: npt.NDArray[np.int64], count_C: npt.NDArray[np.int64]
) -> Iterator[Tried]:
    """The same with its answers corrected towards classes that are all equally frequent."""
    log_prior_C = longtail.prior(count_C)
    for strength in _EVEN:
        # In the units of the calibrated scores.
        raw = strength * done.temperature
        logits_NC = done.logits_NC - (raw * log_prior_C).astype(np.float32)
        head = longtail.adjusted(done.head, log_prior_C, raw)
        note = f"classes evened by {strength:g}"
        yield Tried.of(done.candidate, note, head, logits_NC, labels_N)


def _key(candidate: Candidate, photos: Photos, parts: Parts, seed: int, kind: Kind) -> str:
    """All that the heads of a candidate depend on."""
    rows = list(zip(photos.ids, [f.sha256 for f in photos.files], photos.taxon_ids, strict=True))
    groups = list(photos.groups)
    where = [candidate.backbone.key, candidate.view.key(), candidate.bench.precision]
    return files.digest([_FORMAT, kind, where, rows, groups, list(parts.classes), seed])[:32]


def _write(path: Any, head: LinearHead, logits_NC: FloatArray) -> None:
    from safetensors.numpy import save

    tensors = {**head.tensors(), "logits": logits_NC}
    files.write_bytes(path, save({n: np.ascontiguousarray(t) for n, t in tensors.items()}))


def _read(path: Any, shape: tuple[int, int]) -> tuple[LinearHead, FloatArray] | None:
    """The head and the logits that were kept; None where there are none, or they are damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with suppress(OSError, SafetensorError, KeyError):
        tensors = load(path.read_bytes())
        if tensors["logits"].shape == shape:
            return LinearHead.from_tensors(tensors), tensors["logits"]
    return None


def load_all(names: Sequence[str], weights_dir: Any, seed: int) -> list[Backbone]:
    """The networks with their pretrained weights; what they are is said."""
    found = []
    for name in names:
        found.append(backbones.load(name, weights_dir=weights_dir, seed=seed))
        progress.say(f"Network: {name}; {found[-1].account.summary}")
    return found
