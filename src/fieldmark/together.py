"""`fieldmark train` with several candidates: an ensemble, or what does best within a budget.

What is tried and chosen is in `fieldmark.search`; this brings it to a classifier's folder, measured on
the test part once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import backbones, ensemble, files, progress, search
from fieldmark.classifier import Classifier, Member, Network, stacked
from fieldmark.ensemble import WAYS, Worth
from fieldmark.evaluate import Evaluation, difference
from fieldmark.experiment import Bench, Parts, weights_line
from fieldmark.finetune import join
from fieldmark.heads.softmax import Arm, Fit
from fieldmark.search import Search, Tried, choosing
from fieldmark.search.account import lines, table
from fieldmark.search.choosing import Option
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
        account: what is said of it, as JSON values: `chosen`, `tried`, `tuned`, `passed_over`.
        tried: the candidates that were learned, those with trained networks last.
    """

    option: Option
    account: dict[str, Any]
    tried: list[Tried]

    @property
    def used(self) -> list[tuple[Tried, float]]:
        """The candidates that have a weight, the largest first; the weights sum to 1."""
        pairs = [(t, float(w)) for t, w in zip(self.tried, self.option.weights_M, strict=True) if w]
        total = sum(weight for _, weight in pairs)
        return sorted(((t, w / total) for t, w in pairs), key=lambda pair: -pair[1])

    def held_out(self, parts: Parts) -> tuple[list[Logits], npt.NDArray[np.int64]]:
        """Each used candidate's logits of the photos that none of them saw, and these photos' labels."""
        photos = search.learning_photos(parts)
        every = np.ones(len(photos), np.bool_)
        rows = [every if each.rows_N is None else each.rows_N for each, _ in self.used]
        shared_N = np.logical_and.reduce(rows)
        logits = [t.logits_NC[shared_N[own]] for (t, _), own in zip(self.used, rows, strict=True)]
        return logits, photos.labels(parts.classes)[shared_N]


def train_together(photos: Path, out: Path, config: TrainConfig, *, command: str = "") -> Trained:
    """As `fieldmark.train.train`, with several candidates and what is best of them.

    Raises:
        InputError: as there; the networks themselves are to be trained; or several processes run.
    """
    budget, start = search.Budget(config.budget), time.perf_counter()
    files.check_out(out, "classifier", "classifier.json")
    config.check()
    join("last")
    networks = search.load_all(_names(config), config.weights_dir, config.seed)
    config = replace(config, backbone=networks[0].architecture.name)
    table, split, bench = prepare(photos, config, networks[0])
    parts = Parts.of(table, split)
    progress.say(photo_line(table, parts))
    chosen = choose(bench, networks, parts, config, budget)
    raw = Classifier(_members(chosen), table.taxonomy.only(parts.classes))
    logits, labels_N = chosen.held_out(parts)
    held = [_scaled(each, member) for each, member in zip(logits, raw.members, strict=True)]
    classifier = calibrated(raw, held, labels_N, config)
    test = _on_test(chosen, raw.members, parts)
    evaluation = parts.test.evaluation(raw.combined(test)[0], parts.classes)
    summary = measured(evaluation, classifier, parts)
    lead = chosen.used[0][0].candidate
    # A network that was trained on all classes tells nothing of photos of others.
    strange = chosen.used[0][0].rows_N is None
    summary["unknown"] = unknown(lead.bench, lead.backbone, parts, config) if strange else None
    fit = Fit(Arm(), raw.lead.head, scaled_loss=chosen.option.loss)
    about = {
        **provenance(photos, table, split, parts, lead.backbone, [fit], config),
        "backbone": classifier.architecture,
        **_weights(chosen),
        **chosen.account,
        "quality": config.quality,
        "budget_seconds": config.budget,
        "command": command,
        **outcome(classifier, summary, bench, sum(each.seconds for each in chosen.tried), start),
        "ensemble": ensemble_facts(classifier, chosen, test, parts, config.seed),
    }
    if beside := _beside_first(chosen, evaluation, parts, config.seed):
        about["beside"] = beside
        progress.say(beside["said"])
    trained = Trained(replace(classifier, provenance=about), evaluation, summary, out)
    learned = lead.bench.features(lead.backbone, parts.train, parts.classes)
    write(trained, table, split, parts, learned, config)
    return trained


def _names(config: TrainConfig) -> tuple[str, ...]:
    """The networks to try: those that were named, else all that are at hand, the default first."""
    if config.backbone:
        return (config.backbone, *config.also)
    at_hand = backbones.available(config.weights_dir)
    cheap = sorted(at_hand, key=lambda name: backbones.architecture(name).giga_macs)
    return tuple(dict.fromkeys((backbones.DEFAULT, *cheap)))


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
        doing.try_best(wanted, stream=config.stream, bfloat16=config.bfloat16)
        ways = choosing.WAYS
    else:
        doing.try_all(wanted, "softmax")
        ways = {config.ensemble or "weights": WAYS[config.ensemble or "weights"]}
    made, groups = (
        choosing.options(doing.found, parts, config.seed, ways),
        choosing.groups_of(parts),
    )
    rise = choosing.rises(made, groups, config.seed)
    if best:
        option, why = choosing.winner(made, rise)
    else:
        option = next(each for each in made if each.name in ways)
        why = f"An ensemble by {option.name} was asked for."
    first = next(each for each in made if each.name == doing.found[0].name)
    told = {"tried": table(made, rise, option, first, doing.found, groups, config.seed)}
    if doing.tuned:
        option, and_then, told["tuned"] = _beside_tuned(option, doing, parts, config.seed)
        why = f"{why} {and_then}"
    for name, rows in told.items():
        if name == "tuned":
            progress.say(f"On {rows[0]['photos']:,} photos of one fold, beside trained networks:")
        for line in lines(rows):
            progress.say(line)
    progress.say(why)
    account = {"chosen": {"how": why}, **told, "passed_over": doing.passed_over}
    return Chosen(option, account, [*doing.found, *doing.tuned])


def _beside_tuned(
    taken: Option, doing: Search, parts: Parts, seed: int
) -> tuple[Option, str, list[dict[str, Any]]]:
    """What is taken where networks were trained as well, why, and the table of that."""
    made = choosing.beside_tuned(taken, doing.found, doing.tuned, parts, seed)
    groups = choosing.groups_of(parts, doing.tuned)
    rise = choosing.rises(made, groups, seed)
    option, why = choosing.winner(made, rise)
    first = next(each for each in made if each.name == taken.name)
    every = [*doing.found, *doing.tuned]
    rows = table(made, rise, option, first, every, groups, seed)
    which = f"Beside networks that were trained, on the {len(groups):,} photos of one fold: "
    return option, which + why, rows


def _weights(chosen: Chosen) -> dict[str, Any]:
    """Whose weights are in it, and under which licences."""
    used = [each.candidate.backbone for each, _ in chosen.used]
    return {
        "weights": "; ".join(dict.fromkeys(weights_line(each) for each in used)),
        "weights_complete": all(each.account.complete for each in used),
        "licence": "; ".join(dict.fromkeys(each.architecture.licence for each in used)),
    }


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


def _beside_first(
    chosen: Chosen, evaluation: Evaluation, parts: Parts, seed: int
) -> dict[str, Any]:
    """What is taken beside the first candidate on the test part, photo by photo; no choice sees it.

    Empty where there is nothing to compare: the first was taken, or no photo has a known class.
    """
    first = chosen.tried[0]
    if [each for each, _ in chosen.used] == [first] or not evaluation.kept_N.any():
        return {}
    test = first.candidate.bench.features(first.candidate.backbone, parts.test, parts.classes)
    alone = parts.test.evaluation(first.head.logits_of(test.features), parts.classes)
    found = difference(evaluation, alone, seed=seed)
    low, high = found.interval
    wrong = alone.wrong_N()[alone.kept_N].mean()
    said = (
        f"{first.name} by itself is wrong for {wrong:.1%} of the same photos; the difference of what "
        f"was taken is {found.value:+.1%} ({low:+.1%} to {high:+.1%}){': a tie' if found.tie else ''}."
    )
    return {
        "name": first.name,
        "value": found.value,
        "interval": [low, high],
        "tie": found.tie,
        "said": said,
    }


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
