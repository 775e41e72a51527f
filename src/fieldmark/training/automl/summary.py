"""The table of a search's options: what each reached, what it costs, and why it was chosen or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fieldmark import models
from fieldmark.evaluation.intervals import Interval
from fieldmark.training.automl.candidate import TrialResult
from fieldmark.training.automl.selection import EnsembleOption, compared


@dataclass(frozen=True)
class OptionRow:
    """One option, compared with the reference on the same photos.

    Attributes:
        name: of the option.
        photos: that it is measured on.
        log_loss, error, interval: its measures; the interval is that of the error.
        apart, apart_interval: its error minus the reference's, paired; None for the reference.
        giga_macs: multiply-adds for one photo, in thousands of millions.
        times_default: the same as a multiple of the default network's.
        milliseconds: for one photo; None: not known.
        seconds: the time that the candidate took; None for an ensemble.
        taken: whether it is chosen.
        why: the reason, in a few words.
    """

    name: str
    photos: int
    log_loss: float
    error: float
    interval: Interval
    apart: float | None
    apart_interval: Interval | None
    giga_macs: float
    times_default: float
    milliseconds: float | None
    seconds: float | None
    taken: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        pair = self.apart_interval
        intervals = {"interval": [*self.interval], "apart_interval": [*pair] if pair else None}
        return asdict(self) | intervals


def table(
    made: Sequence[EnsembleOption],
    rise: Sequence[Interval],
    taken: EnsembleOption,
    reference: EnsembleOption,
    found: Sequence[TrialResult],
    groups: Sequence[str | None],
    seed: int,
) -> list[OptionRow]:
    """Compare each option with a reference on the same photos.

    Args:
        made: the options, lowest log-loss first.
        rise: the result of `selection.loss_differences`.
        taken: the chosen one.
        reference: the one that the others are compared with.
        found: the candidates, with their seconds.
        groups: of the photos, as in `intervals.bootstrap`.
        seed: of the bootstrap.
    """
    seconds = {each.name: each.seconds for each in found}
    default = models.architecture(models.DEFAULT).giga_macs
    rows = []
    for each, (low, high) in zip(made, rise, strict=True):
        interval, apart, apart_interval = compared(each, reference, groups, seed)
        rows.append(
            OptionRow(
                name=each.name,
                photos=len(each.losses_N),
                log_loss=each.loss,
                error=each.error,
                interval=interval,
                apart=None if each is reference else apart,
                apart_interval=None if each is reference else apart_interval,
                giga_macs=each.giga_macs,
                times_default=each.giga_macs / default,
                milliseconds=each.milliseconds,
                seconds=seconds.get(each.name),
                taken=each is taken,
                why=_why(each, made[0], taken, low, high),
            )
        )
    return rows


def _why(option: EnsembleOption, best: EnsembleOption, taken: EnsembleOption, low: float, high: float) -> str:
    """Return why an option is chosen or not, in a few words."""
    if option is taken:
        return "chosen"
    if low > 0:
        rise = option.loss - best.loss
        return f"log-loss {rise:.3f} higher than the lowest ({low:.3f} to {high:.3f})"
    if option.giga_macs > taken.giga_macs:
        return "ties with the lowest log-loss and costs more than the chosen option"
    if option.giga_macs == taken.giga_macs:
        return "ties with the lowest log-loss, costs the same as the chosen option and is no better"
    return "ties with the lowest log-loss; another option was requested"


def lines(rows: Sequence[OptionRow]) -> Iterator[str]:
    """Return the table for a terminal, a line an option."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        low, high = row.interval
        line = f"{row.name:<{width}}  {row.error:6.1%} ({low:.1%} to {high:.1%})"
        if row.apart is None or row.apart_interval is None:
            line += "  the reference"
        else:
            low, high = row.apart_interval
            tie = ", a tie" if low <= 0 <= high else ""
            line += f"  {row.apart:+.1%} ({low:+.1%} to {high:+.1%}){tie}"
        line += f"  {row.times_default:.1f} x the default's cost"
        yield line + ("  <- chosen" if row.taken else "")
