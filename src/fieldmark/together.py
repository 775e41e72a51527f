"""`fieldmark train` with several candidates: an ensemble, or what does best within a budget.

What is tried and chosen is in `fieldmark.search`; this brings it to a classifier's folder, measured on
the test part once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import backbones, ensemble, files, options, progress, search
from fieldmark.classifier import Classifier, Member, Network, stacked
from fieldmark.ensemble import WAYS, Worth
from fieldmark.errors import InputError
from fieldmark.experiment import Bench, Parts, weights_line
from fieldmark.heads.softmax import Arm, Fit
from fieldmark.options import Option
from fieldmark.search import Search, Tried
from fieldmark.train import (
    TrainConfig,
    Trained,
    calibrated,
    measured,
    outcome,
    photo_line,
    prepare,
    provenance,
    unknown,
    write,
)

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """What a search came to.

    Attributes:
        option: what is taken.
        why: in a sentence.
        table: all that could have been, the best first, as JSON values.
        tried: the candidates that were learned.
        passed_over: a sentence for each that the budget had no room for.
    """

    option: Option
    why: str
    table: list[dict[str, Any]]
    tried: list[Tried]
    passed_over: list[str]

    @property
    def used(self) -> list[tuple[Tried, float]]:
        """The candidates that have a weight, the largest first; the weights sum to 1."""
        pairs = [(t, float(w)) for t, w in zip(self.tried, self.option.weights_M, strict=True) if w]
        total = sum(weight for _, weight in pairs)
        return sorted(((t, w / total) for t, w in pairs), key=lambda pair: -pair[1])


def train_together(photos: Path, out: Path, config: TrainConfig, *, command: str = "") -> Trained:
    """As `fieldmark.train.train`, with several candidates and what is best of them.

    Raises:
        InputError: as there; or the networks themselves are to be trained.
    """
    budget, start = search.Budget(config.budget), time.perf_counter()
    files.check_out(out, "classifier", "classifier.json")
    if config.transfer != "last" or config.weights != "pretrained":
        raise InputError(
            "Several networks together learn last layers on pretrained weights: leave --transfer "
            "and --weights out, or name one --backbone and no --quality best."
        )
    networks = search.load_all(_names(config), config.weights_dir, config.seed)
    config = replace(config, backbone=networks[0].architecture.name)
    table, split, bench = prepare(photos, config, networks[0])
    parts = Parts.of(table, split)
    progress.say(photo_line(table, parts))
    chosen = choose(bench, networks, parts, config, budget)
    raw = Classifier(_members(chosen), table.taxonomy.only(parts.classes))
    held = [_scaled(t.logits_NC, m) for (t, _), m in zip(chosen.used, raw.members, strict=True)]
    labels_N = search.learning_photos(parts).labels(parts.classes)
    classifier = calibrated(raw, held, labels_N, config)
    test = _on_test(chosen, raw.members, parts)
    evaluation = parts.test.evaluation(raw.combined(test)[0], parts.classes)
    summary = measured(evaluation, classifier, parts)
    lead = chosen.used[0][0].candidate
    summary["unknown"] = unknown(lead.bench, lead.backbone, parts, config)
    fit = Fit(Arm(), raw.lead.head, scaled_loss=chosen.option.loss)
    about = {
        **provenance(photos, table, split, parts, lead.backbone, [fit], config),
        "backbone": classifier.architecture,
        **_search_facts(chosen),
        "quality": config.quality,
        "budget_seconds": config.budget,
        "command": command,
        **outcome(classifier, summary, bench, sum(each.seconds for each in chosen.tried), start),
        "ensemble": ensemble_facts(classifier, chosen, test, parts, config.seed),
    }
    trained = Trained(replace(classifier, provenance=about), evaluation, summary, out)
    learned = lead.bench.features(lead.backbone, parts.train, parts.classes)
    write(trained, table, split, parts, learned, config)
    return trained


def _names(config: TrainConfig) -> tuple[str, ...]:
    """The networks to try: those that were named, or with `best` all that are at hand."""
    if config.also or config.quality != "best":
        return (config.backbone, *config.also)
    at_hand = backbones.available(config.weights_dir)
    cheap = sorted(at_hand, key=lambda name: backbones.architecture(name).giga_macs)
    return tuple(dict.fromkeys((config.backbone, *cheap)))


def choose(
    bench: Bench,
    networks: Sequence[backbones.Backbone],
    parts: Parts,
    config: TrainConfig,
    budget: search.Budget,
) -> Chosen:
    """Try what there is room for, and take what is best on photos that it never saw."""
    best = config.quality == "best"
    doing = Search(parts, config.seed, budget)
    wanted = search.candidates(networks, bench, all_views=best)
    if best:
        doing.try_best(wanted)
        ways = options.WAYS
    else:
        doing.try_all(wanted, "softmax")
        ways = {config.ensemble or "weights": WAYS[config.ensemble or "weights"]}
    made = options.options(doing.found, parts, config.seed, ways)
    groups = options.groups_of(parts)
    if best:
        option, why = options.winner(made, groups, config.seed)
    else:
        option = next(each for each in made if each.name in ways)
        why = f"An ensemble by {option.name} was asked for."
    table = _table(made, option, doing.found, groups, config.seed)
    for line in lines(table):
        progress.say(line)
    progress.say(why)
    return Chosen(option, why, table, doing.found, doing.passed_over)


def _table(
    made: Sequence[Option],
    taken: Option,
    found: Sequence[Tried],
    groups: Sequence[str | None],
    seed: int,
) -> list[dict[str, Any]]:
    """What each option reached, beside the first candidate, which is what `train` does by default."""
    seconds = {each.name: each.seconds for each in found}
    first = next(each for each in made if each.name == found[0].name)
    usual = backbones.architecture(backbones.DEFAULT).giga_macs
    rows = []
    for each in made:
        interval, apart, apart_interval = options.intervals(each, first, groups, seed)
        rows.append(
            {
                "name": each.name,
                "log_loss": each.loss,
                "error": each.error,
                "interval": list(interval),
                "apart": None if each is first else apart,
                "apart_interval": None if each is first else list(apart_interval),
                "giga_macs": each.giga_macs,
                "times_default": each.giga_macs / usual,
                "milliseconds": each.milliseconds,
                "seconds": seconds.get(each.name),
                "taken": each is taken,
            }
        )
    return rows


def lines(table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table for a terminal, a line an option."""
    wide = max(len(row["name"]) for row in table)
    for row in table:
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


def _members(chosen: Chosen) -> tuple[Member, ...]:
    networks = {t.candidate.backbone.key: Network.of(t.candidate.backbone) for t, _ in chosen.used}
    alone = len(chosen.used) == 1
    return tuple(
        Member(
            networks[each.candidate.backbone.key],
            each.candidate.view,
            each.head,
            1.0 if alone else each.temperature,
            weight,
        )
        for each, weight in chosen.used
    )


def _scaled(logits_NC: Logits, member: Member) -> Logits:
    return logits_NC / np.float32(member.temperature)


def _on_test(chosen: Chosen, members: Sequence[Member], parts: Parts) -> list[Logits]:
    """Each member's logits of the test photos, divided by its temperature."""
    found = []
    for (each, _), member in zip(chosen.used, members, strict=True):
        test = each.candidate.bench.features(each.candidate.backbone, parts.test, parts.classes)
        found.append(_scaled(member.head.logits_of(test.features), member))
    return found


def _search_facts(chosen: Chosen) -> dict[str, Any]:
    """What was tried and why the winner won, as JSON values."""
    facts = {"chosen": {"how": chosen.why}, "tried": chosen.table}
    return {**facts, "passed_over": chosen.passed_over}


def ensemble_facts(
    classifier: Classifier, chosen: Chosen, test: Sequence[Logits], parts: Parts, seed: int
) -> dict[str, Any]:
    """What the members are, what each is worth on the test part, and what a photo costs."""
    facts = []
    worths = _worths(classifier, test, parts, seed)
    for (each, weight), worth in zip(chosen.used, worths, strict=True):
        one: dict[str, Any] = {
            "name": each.name,
            "weight": weight,
            "weights": weights_line(each.candidate.backbone),
            "giga_macs": each.candidate.backbone.architecture.giga_macs,
            "verdict": "not measured" if worth is None else verdict(worth),
        }
        if worth is not None:
            one |= {"worth": worth.loss, "worth_interval": list(worth.interval)}
        facts.append(one)
    return {"members": facts, "cost": _cost(classifier, chosen.option.giga_macs)}


def _worths(
    classifier: Classifier, test: Sequence[Logits], parts: Parts, seed: int
) -> list[Worth | None]:
    labels_N = parts.test.labels(parts.classes)
    known = labels_N >= 0
    if len(test) < 2 or not known.any():
        return [None] * len(test)
    rows = [ensemble.of_right(each[known], labels_N[known]) for each in test]
    groups = [g for g, k in zip(parts.test.groups, known, strict=True) if k]
    weights = np.array([member.weight for member in classifier.members])
    return list(ensemble.worth(np.stack(rows), weights, groups, seed=seed))


def _cost(classifier: Classifier, macs: float, rounds: int = 5) -> dict[str, Any]:
    """Giga-MACs, and the time for one photo whose crops are there already."""
    usual = backbones.architecture(backbones.DEFAULT).giga_macs
    crops = stacked([classifier.crop(np.zeros((256, 256, 3), np.uint8))])
    classifier.outputs(crops)  # the networks are loaded
    begin = time.perf_counter()
    for _ in range(rounds):
        classifier.outputs(crops)
    spent = 1000 * (time.perf_counter() - begin) / rounds
    said = (
        f"{macs:.2f} giga-MACs a photo, {macs / usual:.1f} times the default network's; "
        f"{spent:.0f} ms on the machine that it was made on."
    )
    return {"giga_macs": macs, "times_default": macs / usual, "milliseconds": spent, "said": said}


def verdict(worth: Worth) -> str:
    """Whether a member earns its place, in words."""
    low, high = worth.interval
    told = "earns its place" if worth.earns else "a tie: the test photos cannot tell that it helps"
    return f"{told} (without it the log-loss rises by {worth.loss:.3f}, {low:.3f} to {high:.3f})"
