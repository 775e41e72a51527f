"""What is said of the options: what each reached, what it costs, and why it was taken or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fieldmark import models
from fieldmark.evaluation.metrics import Interval
from fieldmark.training.automl.candidate import TrialResult
from fieldmark.training.automl.selection import EnsembleOption, intervals


def table(
    made: Sequence[EnsembleOption],
    rise: Sequence[Interval],
    taken: EnsembleOption,
    reference: EnsembleOption,
    found: Sequence[TrialResult],
    groups: Sequence[str | None],
    seed: int,
) -> list[dict[str, Any]]:
    """What each option reached, beside a reference on the same photos, as JSON values.

    Args:
        made: the options, the least log-loss first.
        rise: of each, as `choosing.rises` gives it.
        taken: which of them is taken.
        reference: which of them the others are compared with.
        found: the candidates, with the seconds that each took.
        groups: of the photos, as in `metrics.bootstrap`.
        seed: of the bootstrap.
    """
    seconds = {each.name: each.seconds for each in found}
    usual = models.architecture(models.DEFAULT).giga_macs
    rows = []
    for each, (low, high) in zip(made, rise, strict=True):
        interval, apart, apart_interval = intervals(each, reference, groups, seed)
        rows.append(
            {
                "name": each.name,
                "photos": len(each.losses_N),
                "log_loss": each.loss,
                "error": each.error,
                "interval": list(interval),
                "apart": None if each is reference else apart,
                "apart_interval": None if each is reference else list(apart_interval),
                "giga_macs": each.giga_macs,
                "times_default": each.giga_macs / usual,
                "milliseconds": each.milliseconds,
                "seconds": seconds.get(each.name),
                "taken": each is taken,
                "why": _why(each, made[0], taken, low, high),
            }
        )
    return rows


def _why(
    option: EnsembleOption, best: EnsembleOption, taken: EnsembleOption, low: float, high: float
) -> str:
    """Why an option is taken or not, in a few words."""
    if option is taken:
        return "taken"
    if low > 0:
        apart = option.loss - best.loss
        return f"log-loss higher than the least by {apart:.3f} ({low:.3f} to {high:.3f})"
    if option.giga_macs > taken.giga_macs:
        return "ties with the least log-loss and costs more than what is taken"
    if option.giga_macs == taken.giga_macs:
        return "ties with the least log-loss, costs the same as what is taken and is no better"
    return "ties with the least log-loss; another was asked for"


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table for a terminal, a line an option."""
    wide = max(len(row["name"]) for row in rows)
    for row in rows:
        low, high = row["interval"]
        said = f"{row['name']:<{wide}}  {row['error']:6.1%} ({low:.1%} to {high:.1%})"
        if row["apart"] is None:
            said += "  what the others are compared with"
        else:
            low, high = row["apart_interval"]
            tie = ", a tie" if low <= 0 <= high else ""
            said += f"  {row['apart']:+.1%} ({low:+.1%} to {high:+.1%}){tie}"
        said += f"  {row['times_default']:.1f} x the default's cost"
        yield said + ("  <- taken" if row["taken"] else "")
