"""Measure the whole of Table 3 on the same photos: ours against the usual recipes.

Ours is the command of a user, in a process of its own, from an empty cache:

    fieldmark study paper PHOTOS --out DIR --only table3 --limit N --weights-dir WEIGHTS --test 0

Its wall-clock time includes everything: the interpreter's start, reading and checking the photos,
loading and converting five networks and selecting their engines, decoding, features, five last layers
for ten epochs, errors with intervals, and the page.

The reference (`benchmarks.reference`) trains the same last layers on the same split with the same
optimiser, batch size and number of epochs. A whole run takes hours, so in each round one epoch of each
network is timed, over some of the photos (`SAMPLES`), and multiplied by the numbers of photos and
epochs: its time is EXTRAPOLATED. The other costs of a whole run (imports, loading networks, starting
workers) are left out, in the reference's favour. `--whole` runs all epochs.

    python -m benchmarks.table3 [--limit PHOTOS] [--rounds N] [--whole] [--keep]

Where the processor computes 16 bits, the same command with `--compute half` is a fourth variant, and where
NNCF is installed the one with `--compute int8` a fifth. Their errors are compared with those in float32 on
the validation photos, paired.

The number of photos determines the weight of our fixed costs: they are the same for 100 photos and for
100,000. `LIMIT` is small so that the benchmark takes half an hour; the ratio grows with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import common
from benchmarks.common import Row, compare
from benchmarks.reference import Example, Pace, Recipe, eager_seconds, pace, recipe, whole
from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import FIVE
from fieldmark.models import runtime
from fieldmark.models.runtime import quantise
from fieldmark.utils import io

EPOCHS = 10
LIMIT = 1000
SAMPLES = {"densenet121": 64, "resnext50_32x4d": 64}
"""Timed photos of a network's training pass; half as many in validation."""
SAMPLE = 256
"""The same for the other networks, which are fast."""
AIM = 25.0
OURS, TORCHVISION, TIMM = "fieldmark", "torchvision's recipe", "timm's way"
TIERS = {"half": "fieldmark in half", "int8": "fieldmark in int8"}
"""Our further variants, by their tiers."""


@dataclass(frozen=True)
class Setting:
    """The data and the size of a run.

    Attributes:
        data: labelled photos in iNaturalist layout.
        weights_dir: weights for both; None: all random.
        limit: the number of photos.
        rounds: the number of runs of each.
        epochs: passes over the training photos.
        networks: which of the five the reference runs; fewer only to test the benchmark itself.
        samples: at most so many photos of each network, whatever `SAMPLES` is.
        is_whole: run all epochs of the reference.
        workers: of the reference's loaders; None: one per core.
        recipe: of the study; another one than the paper's only to test the benchmark itself.
    """

    data: Path
    weights_dir: Path | None
    limit: int = LIMIT
    rounds: int = common.ROUNDS
    epochs: int = EPOCHS
    networks: tuple[str, ...] = tuple(FIVE.values())
    samples: int = SAMPLE
    is_whole: bool = False
    workers: int | None = None
    recipe: str = "paper"


def run(quick: bool = False) -> list[Row]:
    """Compare with torchvision and timm, and divide the factor into its parts."""
    data, weights = common.shared("data", "wild74"), common.shared("weights")
    return measure(Setting(data, weights, limit=40 if quick else LIMIT, rounds=common.rounds(quick)))


def measure(setting: Setting) -> list[Row]:
    """Alternate the variants and compare them."""
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(setting, Path(folder))
        ways: dict[str, Callable[[], float]] = {
            OURS: work.ours,
            TORCHVISION: lambda: work.reference("torchvision"),
            TIMM: lambda: work.reference("timm"),
        }
        ways |= {TIERS[tier]: partial(work.ours, tier) for tier in tiers_here()}
        # Ours runs first once, since it draws the split that the reference uses.
        values = {name: [way()] for name, way in ways.items()}
        later = common.alternate(ways, setting.rounds - 1)
        values = {name: first + later[name] for name, first in values.items()}
        return _rows(values, work)


def tiers_here() -> list[str]:
    """Return the tiers, beside float32, that are fast on this machine."""
    int8 = quantise.engine_for("auto") == "openvino"
    return ["half"] * bool(runtime.halves()) + ["int8"] * int8


# --- ours and the reference ---------------------------------------------------------------------------------


@dataclass
class _Work:
    """The shared state of the rounds: the photos, the split of ours, and all measurements."""

    setting: Setting
    folder: Path
    studies: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    scores: dict[tuple[str, str], Evaluation] = field(default_factory=dict)  # by tier and network
    paces: dict[str, list[Pace]] = field(default_factory=dict)
    eager: dict[str, list[float]] = field(default_factory=dict)
    train: list[Example] = field(default_factory=list)
    val: list[Example] = field(default_factory=list)

    def ours(self, tier: str = "exact") -> float:
        """Run the command from an empty cache; return its wall-clock seconds."""
        studies = self.studies[tier]
        out, cache = (self.folder / f"{name}{len(studies)}-{tier}" for name in ("study", "cache"))
        words = ["study", self.setting.recipe, str(self.setting.data), "--out", str(out)]
        words += ["--only", "table3", "--groups", "none", "--limit", str(self.setting.limit)]
        words += ["--epochs", str(self.setting.epochs), "--test", "0", "--compute", tier]
        if self.setting.weights_dir is not None:
            words += ["--weights-dir", str(self.setting.weights_dir)]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fieldmark", *words],
            check=True,
            capture_output=True,
            env=os.environ | {"FIELDMARK_CACHE": str(cache)},
        )
        seconds = time.perf_counter() - start
        studies.append(json.loads((out / "study.json").read_text()))
        for row in studies[-1]["rows"]:
            self.scores[tier, row["backbone"]] = Evaluation.load(out / row["scores"])
        if not self.train:
            self.train, self.val = examples_of(out, self.setting.data)
        return seconds

    def reference(self, library: str) -> float:
        """Return the seconds of all epochs, extrapolated from one of each network unless `--whole`."""
        setting = self.setting
        total = 0.0
        for name in setting.networks:
            classes = 1 + max(label for _, label in self.train)
            of = recipe(name, classes, setting.weights_dir, library=library)
            if setting.is_whole:
                total += whole(of, self.train, self.val, setting.epochs, workers=setting.workers)[0]
            if library == "timm" and of.library != "timm":
                # timm does not have it: use the time of torchvision's own in this round.
                measured = self.paces[f"torchvision {name}"][-1]
            else:
                measured = self._pace(of)
                self.paces.setdefault(f"{of.library} {name}", []).append(measured)
            if not setting.is_whole:
                total += measured.whole(len(self.train), len(self.val), setting.epochs)
            if library == "torchvision":
                self.eager.setdefault(name, []).append(eager_seconds(of))
        return total

    def _pace(self, of: Recipe) -> Pace:
        most = min(self.setting.samples, SAMPLES.get(of.name, SAMPLE))
        # The photos are ordered by class; samples should represent all of them.
        train = random.Random(0).sample(self.train, min(most, len(self.train)))
        val = (list(self.val) * most)[: max(1, most // 2)]
        return pace(of, train, val, workers=self.setting.workers)


def examples_of(study: Path, data: Path) -> tuple[list[Example], list[Example]]:
    """Return training and validation photos with their class numbers, as the study divided them.

    Pruned classes are in neither, so that the reference does not process them.
    """
    photos = pl.read_parquet(study / "photos.parquet")
    joined = photos.join(pl.read_parquet(study / "split.parquet"), on="id").sort("id")
    content = json.loads((study / "study.json").read_text())
    train = joined.filter(pl.col("part") == "train")
    counts = train["taxon_id"].value_counts()
    kept = counts.filter(pl.col("count") >= content["data"]["prune_below"])["taxon_id"]
    number = {taxon_id: index for index, taxon_id in enumerate(sorted(kept.to_list()))}
    parts = []
    for part in ("train", "val"):
        rows = joined.filter((pl.col("part") == part) & pl.col("taxon_id").is_in(kept.to_list()))
        parts.append(
            [
                (data / path, number[taxon_id])
                for path, taxon_id in rows.select("path", "taxon_id").iter_rows()
            ]
        )
    return parts[0], parts[1]


# --- what comes out --------------------------------------------------------------------------------


def _rows(values: dict[str, list[float]], work: _Work) -> list[Row]:
    setting = work.setting
    how = "run whole" if setting.is_whole else f"extrapolated from 1 epoch to {setting.epochs}"
    photos = f"{len(work.train)} + {len(work.val)} photos"
    what = f"Table 3, {photos}, cold"
    more = {"factors": factors(values, work), "stages": stages(values, work)}
    more |= {"photos": setting.limit, "train": len(work.train), "val": len(work.val)}
    more["values"] = values
    rows = [
        compare(what, values, OURS, TORCHVISION, aim=AIM, note=f"reference {how}", more=more),
        compare(what, values, OURS, TIMM, note=f"reference {how}; timm has 2 of the 5"),
    ]
    rows += _network_rows(work, "exact")
    for tier in tiers_here():
        mine = TIERS[tier]
        both = {name: values[name] for name in (mine, TORCHVISION)}
        rows.append(compare(f"{what}, {tier}", both, mine, TORCHVISION, note=f"reference {how}"))
        rows += [*_network_rows(work, tier), *_error_rows(work, tier)]
    return rows


def _error_rows(work: _Work, tier: str) -> list[Row]:
    """Compare the errors in a tier with those in float32."""
    rows = []
    for name in work.setting.networks:
        both = work.scores[tier, name], work.scores["exact", name]
        ours, exact = (float(each.wrong_N().mean()) for each in both)
        found = difference(*both)
        apart = (found.value, *found.interval)
        rows.append(common.paired(f"{name}, error in {tier}", ours, exact, "exact", apart))
    return rows


def _network_rows(work: _Work, tier: str) -> list[Row]:
    """Compare each network alone: seconds per photo, ours once and the reference's in every epoch."""
    rows, studies, ending = [], work.studies[tier], "" if tier == "exact" else f", {tier}"
    count = len(work.train) + len(work.val)
    for name in work.setting.networks:
        paces = work.paces[f"torchvision {name}"]
        values = {
            OURS: [_ours_of(study, name) / count for study in studies],
            TORCHVISION: [
                each.whole(len(work.train), len(work.val), work.setting.epochs) / count for each in paces
            ],
        }
        note = "features and last layer of one network, without decoding and fixed costs"
        rows.append(compare(f"{name}, a photo{ending}", values, OURS, TORCHVISION, note=note))
    return rows


def _row_of(study: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in study["rows"] if row["backbone"] == name)


def _ours_of(study: dict[str, Any], name: str) -> float:
    row = _row_of(study, name)
    return float(row["extract_seconds"] + row["train_seconds"])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def stages(values: dict[str, list[float]], work: _Work) -> dict[str, float]:
    """Return the time of each stage of ours, in seconds: medians over the rounds."""
    names = work.setting.networks
    features = _median(
        [sum(_row_of(s, name)["extract_seconds"] for name in names) for s in work.studies["exact"]]
    )
    heads = _median([sum(_row_of(s, name)["train_seconds"] for name in names) for s in work.studies["exact"]])
    total = _median(values[OURS])
    inside = _median([s["seconds"] for s in work.studies["exact"]])
    return {
        "the networks on the crops": features,
        "the last layers": heads,
        "reading, checking, decoding, converting, choosing engines, errors, the page": inside
        - features
        - heads,
        "start of the program": total - inside,
        "all": total,
    }


def factors(values: dict[str, list[float]], work: _Work) -> list[dict[str, Any]]:
    """Return the ratio as a product: each factor is the effect of one change, in this order.

    The first time is the reference's and the last is ours, both measured (the first extrapolated from
    one epoch). The times between are computed from measured parts: the seconds of a training and a
    validation pass, of eager PyTorch and of our engine on prepared crops.
    """
    setting = work.setting
    train = val = eager = engine = 0.0
    for name in setting.networks:
        paces = work.paces[f"torchvision {name}"]
        train += len(work.train) * _median([each.train for each in paces])
        val += len(work.val) * _median([each.val for each in paces])
        eager += (len(work.train) + len(work.val)) * _median(work.eager[name])
        engine += _median([_row_of(study, name)["extract_seconds"] for study in work.studies["exact"]])
    start = setting.epochs * (train + val)
    once = train + setting.epochs * val
    both = train + val
    loading = max(0.0, both - eager)  # decoding five times, as far as not parallel to the networks
    times = [
        ("the reference", start),
        ("training photos pass the network once instead of in every epoch", once),
        ("validation photos pass it once", both),
        ("converted engine instead of eager PyTorch", engine + loading),
        ("one decoding for all networks", engine + loading / len(setting.networks)),
        ("all else that the command does (our decoder, fixed costs, the page)", _median(values[OURS])),
    ]
    return [
        {"what": what, "seconds": seconds, "factor": before / seconds}
        for (what, seconds), before in zip(times, [start, *(s for _, s in times)], strict=False)
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Table 3 against torchvision's and timm's way.")
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--rounds", type=int, default=common.ROUNDS)
    parser.add_argument("--whole", action="store_true", help="run every epoch of the reference")
    parser.add_argument("--keep", action="store_true", help="keep it as the latest result")
    given = parser.parse_args(words)
    setting = Setting(
        common.shared("data", "wild74"),
        common.shared("weights"),
        limit=given.limit,
        rounds=given.rounds,
        is_whole=given.whole,
    )
    load, start = os.getloadavg()[0], time.perf_counter()
    rows = measure(setting)
    print(common.table("table3", rows))
    found = common.record("table3", rows, time.perf_counter() - start, load)
    print(json.dumps(found["rows"][0]["more"], indent=1))
    if given.keep:
        io.write_json(common.RESULTS / "table3.json", found)


if __name__ == "__main__":
    main()
