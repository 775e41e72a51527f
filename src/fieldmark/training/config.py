"""The configuration of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fieldmark import models
from fieldmark.data.readers.occurrences import check_columns
from fieldmark.data.transforms import MAX_SIZE
from fieldmark.utils.checks import wrong_choices
from fieldmark.utils.choices import (
    Compute,
    Crop,
    DecodingTier,
    EngineName,
    Grouping,
    HeadKind,
    Language,
    OptimizerBits,
    Quality,
    SplitMethod,
    Transfer,
    Weighting,
)
from fieldmark.utils.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of a training; values that cannot be are refused when it is made.

    Attributes:
        backbone: the network, a name of `fieldmark.models`; None: the default, and with `best` any
            whose weights are available.
        weights: `pretrained`, `random`, or a file of weights.
        weights_dir: a folder of weights, searched before anything is downloaded; a `Path`, or text.
        transfer: `last` trains a last layer on cached features; `all` then trains every layer,
            `low-rank` an update of low rank of each, `adapters` the biases and normalisations;
            `scratch` trains every layer from random weights.
        head: how the last layer is trained, `softmax` or `sampled`, see `heads.default.fit_best`;
            None: by the number of classes.
        epochs: passes over the training photos; None: as many as needed for the last layer, else 6.
        val, test: the shares of validation and of test photos.
        split: how photos are divided: `stratified`, `random`, `official`, or `location`: no location is in
            two parts or folds, so that the error is that of new places.
        holdout: whether the error is measured once, on a test part that training does not use. If not,
            each photo is measured by a head that did not see it, and the classifier learns from all but
            an official test part. A holdout is also drawn where `head`, `epochs`, `rare`, several
            networks, another `transfer` than `last`, or shares or a `split` other than the defaults
            are given, and for very many photos.
        groups: `auto` finds bursts and near-duplicates and keeps them together, `none` does not.
        precision: the share of given answers that are to be right; below it, "not sure".
        limit: use at most so many photos; None: all.
        names: a table of accepted names, see `fieldmark.data.synonyms`, a `Path` or text; None: labels
            as they are.
        seed: of the split and of the order of training.
        engine: what runs the network; `auto` measures.
        compute: how precisely the frozen network computes: `exact` in float32, `half` in 16 bits, `int8` in
            8-bit integers, with ranges measured on training photos; `auto`: a faster tier that is shown not
            to harm on these photos, else `exact`.
        tier: how photos are decoded, `exact` or `fast`.
        size: the side of the crop in pixels; None: the one that the network was published for.
        crop: how a photo becomes a crop: `squash` resizes it without its proportions, `center` cuts out
            the central square, `pad` keeps all of it and its proportions with a border; None: as the
            network was published, and `squash` for the networks that fieldmark lists.
        thumbnails: whether small pictures of training photos are written to the folder, so that the
            nearest ones can be shown where the photos themselves are not available.
        also_sizes: further sides that `best` tries, a tuple; networks that do not take one are tried
            without it.
        also: further networks; an ensemble of all of them is trained.
        ensemble: how its members are weighted: `mean`, `weights` or `greedy`; None: `weights`.
        quality: `fast`: the default network; `good`: the mean of it and EfficientNet-Lite2, which takes
            about three times as long; `best`: what does best on validation photos, of all networks whose
            weights are available (or of those named), mirrored views, and ensembles of them.
        stream: whether fine-tuning decodes photos again in each epoch instead of caching crops.
        rare: whether logits are adjusted for rare classes, see `fieldmark.training.logit_adjustment`.
        bfloat16: whether fine-tuning computes in bfloat16.
        checkpointing: whether fine-tuning computes activations again instead of keeping them all.
        boxes: a file of boxes, see `fieldmark.data.readers.box_files`, a `Path` or text: the classifier
            learns from crops of the boxes of animals; None: from whole photos.
        box_threshold: from which confidence on a box counts; None: measured where photos are labelled as
            empty, else that of the file.
        prior: which labels are to be expected where and when: `own`: as in the training photos; or a table of
            occurrences, a path, see `fieldmark.data.readers.occurrences`; None: it does not count.
        checklist: a checklist archive by which names of the table of occurrences are found, a `Path` or text,
            see `fieldmark.data.checklist`; None: only names of labels count.
        language: of the report.
        optimizer_bits: 8: fine-tuning keeps AdamW's two numbers for a weight in 8 bits each, not in 32.
        accumulate: in how many parts fine-tuning computes a batch, one after the other; None: 2.
        budget: how many seconds `best` may take; None: as long as needed.

    Raises:
        InputError: a value that cannot be.
    """

    backbone: str | None = None
    weights: str = "pretrained"
    weights_dir: Path | None = None
    transfer: Transfer = "last"
    head: HeadKind | None = None
    epochs: int | None = None
    val: float = 0.1
    test: float = 0.1
    split: SplitMethod = "stratified"
    holdout: bool = False
    groups: Grouping = "auto"
    precision: float = 0.95
    limit: int | None = None
    names: Path | None = None
    boxes: Path | None = None
    box_threshold: float | None = None
    prior: str | None = None
    checklist: Path | None = None
    seed: int = 0
    engine: EngineName = "auto"
    compute: Compute = "exact"
    tier: DecodingTier = "exact"
    size: int | None = None
    crop: Crop | None = None
    thumbnails: bool = False
    also_sizes: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    ensemble: Weighting | None = None
    quality: Quality = "fast"
    budget: float | None = None
    stream: bool = False
    rare: bool = False
    bfloat16: bool = False
    checkpointing: bool = False
    accumulate: int | None = None
    optimizer_bits: OptimizerBits = 32
    language: Language = "en"

    def __post_init__(self) -> None:
        given: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("weights_dir", "names", "boxes", "checklist"):
            if isinstance(given[name], str):
                object.__setattr__(self, name, Path(given[name]))
        if isinstance(given["weights"], Path):
            object.__setattr__(self, "weights", str(given["weights"]))
        if isinstance(given["prior"], Path):
            object.__setattr__(self, "prior", str(given["prior"]))
        for name in ("also", "also_sizes"):
            if isinstance(given[name], list):
                object.__setattr__(self, name, tuple(given[name]))
        if wrong := next(_wrong_values(self), None):
            raise InputError(wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; `from_dict` reads them back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        paths = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
        return values | paths | {"also": list(self.also), "also_sizes": list(self.also_sizes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Read what `to_dict` returned; fields that are missing have their defaults.

        Raises:
            InputError: a field is not known, or a value cannot be.
        """
        known = [each.name for each in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise InputError(
                f"A training has no field {', '.join(map(repr, unknown))}: choose from {', '.join(known)}."
            )
        return cls(**values)

    @property
    def network(self) -> str:
        """The name of the first network."""
        return self.backbone or models.DEFAULT

    def named(self) -> TrainConfig:
        """Return the same with the networks that `good`, and recommendations such as `large`, stand for."""
        if self.quality == "good":
            return replace(self, backbone=models.DEFAULT, also=(models.GOOD,), ensemble="mean")
        if not self.backbone:
            return self
        each = (self.backbone, *self.also)
        first, *others = dict.fromkeys(models.named(name, self.weights_dir) for name in each)
        return replace(self, backbone=first, also=tuple(others))

    @property
    def several(self) -> bool:
        """Whether several networks are trained, see `fieldmark.training.strategies.ensemble`."""
        return bool(self.also) or self.quality != "fast"

    @property
    def learns_from_all(self) -> bool:
        """Whether the delivered last layers learn from all labelled photos."""
        usual = ["val", "test", "split", "holdout"]
        if not self.several:
            usual += ["transfer", "head", "epochs", "rare"]
        defaults = {each.name: each.default for each in fields(self)}
        same = replace(self, split="stratified") if self.split == "location" else self
        return all(getattr(same, name) == defaults[name] for name in usual)

    @property
    def in_folds(self) -> bool:
        """Whether the photos are measured in folds, unless they are very many."""
        chooses = self.several and self.quality != "good" and self.ensemble != "mean"
        return self.learns_from_all and not chooses

    def check(self) -> None:
        """Refuse choices that exclude each other, so that every choice has its effect.

        Raises:
            InputError: two choices exclude each other.
        """
        clash = next(_of_several(self) if self.several else _of_one(self), None)
        clash = clash or next(_of_prior(self), None)
        if clash:
            raise InputError(clash)


def _wrong_values(config: TrainConfig) -> Iterator[str]:
    """What is wrong with single values."""
    yield from wrong_choices(config)
    for what, (names, is_right) in _RULES.items():
        for name in names:
            if not is_right(value := getattr(config, name)):
                yield f"{name} is {value!r}: it must be {what}."
    if config.split != "official" and config.val + config.test >= 1:
        yield f"val and test are {config.val:g} and {config.test:g}: leave photos to train on."


def _is_number(value: Any, low: float, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_whole(value: Any, low: float = -math.inf) -> bool:
    return isinstance(value, int) and _is_number(value, low)


_RULES: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "a share from 0 to 1": (("val", "test", "precision"), lambda v: _is_number(v, 0, 1)),
    "a whole number from 1, or None": (
        ("epochs", "limit", "accumulate"),
        lambda v: v is None or _is_whole(v, 1),
    ),
    "a whole number": (("seed",), _is_whole),
    f"one side of a square in pixels, from 1 to {MAX_SIZE}, or None": (
        ("size",),
        lambda v: v is None or (_is_whole(v, 1) and v <= MAX_SIZE),
    ),
    "a number of seconds above 0, or None": (
        ("budget",),
        lambda v: v is None or (_is_number(v, 0) and v > 0),
    ),
    "True or False": (
        ("thumbnails", "stream", "rare", "bfloat16", "checkpointing", "holdout"),
        lambda v: isinstance(v, bool),
    ),
    "a confidence from 0 to 1, or None": (("box_threshold",), lambda v: v is None or _is_number(v, 0, 1)),
    "a path, or None": (("weights_dir", "names", "boxes", "checklist"), lambda v: isinstance(v, Path | None)),
    "the name of a network, or None": (("backbone",), lambda v: isinstance(v, str | None)),
    "own, a table or None": (("prior",), lambda v: v is None or isinstance(v, str)),
    "pretrained, random or a file": (("weights",), lambda v: isinstance(v, str)),
    f"a tuple of sides in pixels, each from 1 to {MAX_SIZE}": (
        ("also_sizes",),
        lambda v: isinstance(v, tuple) and all(_is_whole(each, 1) and each <= MAX_SIZE for each in v),
    ),
    "a tuple of names of networks": (
        ("also",),
        lambda v: isinstance(v, tuple) and all(isinstance(each, str) for each in v),
    ),
}
"""What the values of fields must be, with the fields."""


def _of_several(config: TrainConfig) -> Iterator[str]:
    """What does not go with several networks or `best`."""
    best = config.quality == "best"
    if config.quality == "good" and (config.backbone or config.ensemble):
        option = "--backbone" if config.backbone else "--ensemble"
        yield f"--quality good is the mean of two networks: leave {option} out, or --quality."
    alone = "or name one --backbone and no --quality."
    if config.transfer != "last" or config.weights != "pretrained":
        yield (
            "Several networks together learn last layers on pretrained weights: leave --transfer "
            f"and --weights out, {alone}"
        )
    if config.rare:
        yield (
            f"Several networks together try what helps rare classes by themselves: leave --rare out, {alone}"
        )
    if config.head or config.epochs:
        option = "--head" if config.head else "--epochs"
        yield (f"Several networks together choose their last layers themselves: leave {option} out, {alone}")
    if best and config.ensemble:
        yield (
            "--quality best chooses itself how networks are weighed: leave --ensemble out, or name "
            "several --backbone and no --quality best."
        )
    if config.checkpointing or config.accumulate or config.optimizer_bits != 32:
        options = "--checkpointing, --accumulate and --optimizer-bits"
        yield f"{options} are for fine-tuning one network: leave them out, {alone}"
    if config.compute != "exact":
        yield f"--compute is for one network: leave it out, {alone}"
    if not best:
        yield from _of_no_search(config)
        yield from _of_no_tuning(config, "--quality best")


def _of_one(config: TrainConfig) -> Iterator[str]:
    """What does not go with one network."""
    yield from _of_no_search(config)
    if config.ensemble:
        yield (
            "--ensemble is how several networks are weighed: name --backbone more than once, or leave it out."
        )
    if config.transfer == "last":
        yield from _of_no_tuning(config, "--transfer all")
    elif config.compute != "exact":
        yield "--compute is for a frozen network: leave it out, or --transfer; --bfloat16 is for fine-tuning."
    if config.transfer == "scratch" and config.weights not in ("pretrained", "random"):
        yield "--transfer scratch begins with random weights: leave --weights out, or --transfer all."
    if config.rare and config.transfer != "last":
        yield "--rare looks at photos that the network never saw, in folds: leave --transfer out."


def _of_prior(config: TrainConfig) -> Iterator[str]:
    """What does not go with a prior."""
    if config.prior and not config.in_folds:
        yield (
            "--prior is chosen by photos that are measured in folds: leave it out, or what asks for a "
            "test part (--holdout, --quality best, --transfer and others)."
        )
    if config.checklist and config.prior in (None, "own"):
        yield "--checklist is for the names of a table of occurrences: name one with --prior."
    if config.checklist and not config.checklist.exists():
        yield f"The checklist {config.checklist} is not there."
    if config.prior not in (None, "own"):
        path = Path(str(config.prior))
        if not path.is_file():
            yield f"{path} is no file: name a table of occurrences, or own, with --prior."
        else:
            check_columns(path)


def _of_no_search(config: TrainConfig) -> Iterator[str]:
    if config.also_sizes:
        yield "Several sides are candidates of --quality best: give --size one side, or name that too."
    if config.budget is not None:
        yield "--budget is how long --quality best may take: name that too, or leave --budget out."


def _of_no_tuning(config: TrainConfig, instead: str) -> Iterator[str]:
    for field in ("bfloat16", "stream", "checkpointing", "accumulate", "optimizer_bits"):
        if getattr(config, field) != getattr(TrainConfig, field):
            option = f"--{field.replace('_', '-')}"
            yield (f"{option} is for training the network itself: name {instead}, or leave {option} out.")
