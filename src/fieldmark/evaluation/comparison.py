"""Compare two classifiers on the same photos, photo by photo."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.intervals import Interval
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import DoubleArray

if TYPE_CHECKING:
    from fieldmark.evaluation.results import Evaluation, Over


@dataclass(frozen=True)
class Difference:
    """The error of one evaluation less that of another, on the same photos.

    Attributes:
        value: the difference; negative where the first makes fewer mistakes.
        interval: its 95 % interval.
        photos: how many photos were compared.
    """

    value: float
    interval: Interval
    photos: int

    @classmethod
    def of(
        cls, values_N: DoubleArray, groups: Sequence[str | None] | None, *, most: float = 1.0
    ) -> Difference:
        """Return the mean of differences, with its interval by groups; none is larger than `most`."""
        interval = intervals.difference_interval(values_N, groups, most=most)
        return cls(float(values_N.mean()), interval, len(values_N))

    @property
    def tie(self) -> bool:
        """Whether the interval holds 0: these photos cannot tell the two apart."""
        return self.interval[0] <= 0.0 <= self.interval[1]

    @property
    def percents(self) -> str:
        """Return it in a few words: "a tie", or -5.1% (-6.1% to -4.1%)."""
        low, high = self.interval
        return "a tie" if self.tie else f"{self.value:+.1%} ({low:+.1%} to {high:+.1%})"


def difference(
    a: Evaluation,
    b: Evaluation,
    *,
    over: Over = "kept",
    classes: Collection[str] | None = None,
    macro: bool = False,
    seed: int = 0,
) -> Difference:
    """Compare two evaluations of the same photos by a paired bootstrap and the exact sign test.

    Paired: each replicate draws the same photos for both, so that photos which are hard for both do
    not blur the comparison. Whole groups are drawn, as in `intervals.bootstrap`.

    Args:
        a, b: the evaluations; their photos may be in another order.
        over: "kept": the photos whose class is known to both; "all": all photos, where a pruned
            class counts as wrong.
        classes: only the photos of these classes; None: of any. Needs `over="kept"`.
        macro: each class counts the same, however many photos it has. Needs `over="kept"`.
        seed: of the bootstrap.

    Raises:
        InputError: the photos are not the same, or no photo is left to compare.
    """
    place = {photo_id: at for at, photo_id in enumerate(b.photo_ids)}
    if set(place) != set(a.photo_ids):
        raise InputError(
            f"two evaluations can only be compared on the same photos, and these share "
            f"{len(set(place) & set(a.photo_ids))} of {len(a)} and {len(b)}: evaluate both on one "
            "data set with one split."
        )
    order = np.array([place[photo_id] for photo_id in a.photo_ids], dtype=np.int64)
    rows = np.ones(len(a), np.bool_) if over == "all" else a.kept_N & b.kept_N[order]
    if classes is not None:
        wanted_C = np.array([each in classes for each in a.classes], np.bool_)
        rows = rows & wanted_C[a.labels_N]
    if not rows.any():
        raise InputError("the two evaluations share no photo of a kept class: nothing to compare.")
    values = (a.wrong_N().astype(np.float64) - b.wrong_N()[order])[rows]
    groups = [group for group, row in zip(a.groups, rows, strict=True) if row]
    labels = a.labels_N[rows] if macro else None
    interval = intervals.difference_interval(values, groups, classes_N=labels, seed=seed)
    value = float(values.mean())
    if labels is not None:
        value = metrics.macro_average(metrics.per_class_error(values, labels, len(a.classes))[0])
    return Difference(value, interval, len(values))
