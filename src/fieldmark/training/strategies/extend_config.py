"""The choices of `fieldmark grow`: its own, and those that the classifier was made by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark.data.readers.occurrences import check_columns
from fieldmark.data.split import Split
from fieldmark.inference.classifier import Classifier
from fieldmark.training.config import TrainConfig
from fieldmark.utils.checks import check_choices
from fieldmark.utils.choices import Compute, EngineName, Grouping, Language
from fieldmark.utils.errors import InputError

NONE = "none"
"""The value of `ExtendConfig.prior` for no prior."""


@dataclass(frozen=True)
class ExtendConfig:
    """What `fieldmark grow` is told.

    Attributes:
        names: a table of accepted names, see `fieldmark.data.synonyms`, for old and new labels.
        boxes: a file of boxes of the new photos, where the classifier learned from boxes.
        box_threshold: from which confidence on a box counts; None: as the classifier was trained.
        groups: `auto` finds bursts and near-duplicates and keeps them together, `none` does not; None: as the
            classifier was trained.
        engine: what runs the network on the new photos; `auto` measures.
        compute: the tier of precision, as in `Classifier.load`; None: as the classifier was trained.
        thumbnails: whether small pictures of training photos go into the folder.
        prior: which labels are to be expected where and when, as in `TrainConfig`, or `none`; None: learned
            anew from what it was learned from in training.
        checklist: as in `TrainConfig`; None: that of the training, with its prior.
        language: of the report.
    """

    names: Path | None = None
    boxes: Path | None = None
    box_threshold: float | None = None
    groups: Grouping | None = None
    engine: EngineName = "auto"
    compute: Compute | None = None
    thumbnails: bool = False
    prior: str | Path | None = None
    checklist: Path | None = None
    language: Language = "en"

    def __post_init__(self) -> None:
        check_choices(self)


def as_trained(classifier: Classifier, split: Split, config: ExtendConfig) -> TrainConfig:
    """Return the choices that the classifier was made by, as far as they matter for the new head.

    Raises:
        InputError: the prior cannot be learned anew.
    """
    made = classifier.provenance
    threshold = classifier.threshold
    return TrainConfig(
        backbone=classifier.lead.network.architecture,
        also=tuple(each.network.architecture for each in classifier.members[1:]),
        transfer=made.get("transfer", "last"),
        head=made.get("head"),
        rare=bool(made.get("rare")),
        groups=config.groups or made.get("groups", "auto"),
        precision=threshold.precision if threshold else TrainConfig.precision,
        seed=split.seed,
        split="location" if (made.get("split") or {}).get("by_place") else "stratified",
        engine=config.engine,
        thumbnails=config.thumbnails,
        language=config.language,
        **_prior(made.get("prior") or {}, split, config),
    )


def _prior(made: Mapping[str, Any], split: Split, config: ExtendConfig) -> dict[str, Any]:
    """Return the fields of the prior: as given, else as it was made; its table must still be there."""
    given = None if config.prior is None else str(config.prior)
    if made and "source" not in made and given is None:
        raise InputError("Where the prior of this classifier is from is not known: name it with --prior.")
    prior = given or made.get("source")
    checklist = config.checklist or (made.get("checklist") if given is None else None)
    if checklist and prior in (None, NONE, "own"):
        raise InputError("--checklist is for the names of a table of occurrences: name one with --prior.")
    if prior in (None, NONE):
        return {}
    if split.way != "folds":
        raise InputError(
            "A prior is chosen by photos that are measured in folds, and this classifier was measured on a "
            "test part: leave --prior out."
        )
    if prior != "own":
        if not Path(prior).is_file():
            raise InputError(
                f"The prior is to be learned from {prior}, which is no file: name a table of occurrences, "
                "own (the photos) or none with --prior."
            )
        check_columns(Path(prior))
    if checklist and not Path(checklist).exists():
        raise InputError(f"The checklist {checklist} is not there: name it with --prior and --checklist.")
    return {"prior": prior, "checklist": checklist}
