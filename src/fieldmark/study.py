"""The study: a recipe in, a table of comparable runs out.

All runs share one split, one seed, one crop and one order of training photos. Each row is written as
soon as it is known, with its scores, and a study that was cut off goes on with the rows that are
missing:

    DIR/study.json          everything, rows in the recipe's order
    DIR/rows/ID.json        one row
    DIR/scores/ID.safetensors   its scores on the photos it was measured on
    DIR/photos.parquet, DIR/split.parquet
    DIR/report.html
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fieldmark import __version__, backbones, files, finetune, metrics, progress, report
from fieldmark.backbones import Backbone
from fieldmark.crops import cores
from fieldmark.errors import InputError, WeightsUnavailable
from fieldmark.evaluate import Evaluation
from fieldmark.experiment import (
    PAPER_CROP,
    Bench,
    Parts,
    Photos,
    cost_of,
    photo_finder,
    read,
    versions,
    weights_line,
)
from fieldmark.finetune import FineTuning
from fieldmark.heads.softmax import Arm, Epoch, Training, fit
from fieldmark.photos import PhotoTable
from fieldmark.preprocess import Tier
from fieldmark.recipes import Options, Recipe, Run
from fieldmark.split import Split, Way, prune, split_photos
from fieldmark.stats import stats

PAPER_THRESHOLD = 100
PAPER_PRUNED_SHARE = 208 / 1010
"""The paper dropped the 208 of 1,010 classes that have fewer than 100 photos (Section 4.4.1)."""

Row = dict[str, Any]


@dataclass(frozen=True)
class StudyConfig:
    """What `fieldmark study` is told.

    Attributes:
        options: what the recipe needs to know.
        only: run only these tables; empty: all.
        limit: at most so many photos; None: all.
        weights_dir: a folder of weights, looked into before anything is downloaded.
        skip_missing: leave out networks whose weights cannot be had; otherwise they run from random
            weights, and every table says so.
        prune_below: classes with fewer training photos are pruned; None: the paper's 100, or, where
            that would leave less than two thirds of the classes, the number that prunes the same
            share of them as it did in the paper.
        split: how photos are divided.
        val, test: the shares held out; `test` is not used where the source has its own test labels.
        engine: what runs the networks; `auto` measures.
        precision: of training all layers.
        tier: how photos are decoded, `exact` or `fast`.
    """

    options: Options = field(default_factory=Options)
    only: tuple[str, ...] = ()
    limit: int | None = None
    weights_dir: Path | None = None
    skip_missing: bool = False
    prune_below: int | None = None
    split: Way = "stratified"
    val: float = 0.1
    test: float = 0.1
    engine: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    tier: Tier = "exact"


def study(data: Path, out: Path, recipe: Recipe, config: StudyConfig, *, command: str) -> Row:
    """Run a recipe on some photos; gives the content of `study.json`.

    Raises:
        InputError: anything about the photos, the folder or the recipe that stands in the way.
    """
    start = time.perf_counter()
    runs = [run for run in recipe.runs if not config.only or run.table in config.only]
    tables = list(dict.fromkeys(run.table for run in recipe.runs))
    if unknown := [name for name in config.only if name not in tables]:
        raise InputError(
            f"No run is in table {', '.join(unknown)}: choose from {', '.join(tables)}."
        )
    for run in runs:
        needed = run.members or run.best_of
        if needed and all(other.table != needed for other in runs):
            raise InputError(
                f"Table {run.table} is made from the rows of {needed}: add --only {needed}."
            )
    files.check_out(out, "study", "rows")
    networks = _load(runs, config)
    table = read(data, limit=config.limit, seed=config.options.seed)
    work = _Study(recipe, runs, config, networks, table, out, data.resolve().name, command)
    for run in work.in_turn():
        work.do(run)
    return work.finish(time.perf_counter() - start)


@dataclass(frozen=True)
class _Networks:
    """The networks of a study by name, pretrained where that can be had, and random ones."""

    pretrained: dict[str, Backbone]
    random: dict[str, Backbone]
    skipped: list[dict[str, str]]

    def of(self, run: Run) -> Backbone:
        return (self.random if run.transfer == "scratch" else self.pretrained)[run.backbone]


def _load(runs: list[Run], config: StudyConfig) -> _Networks:
    """Load every network before any long work, so that what is missing is said at once."""
    found = _Networks({}, {}, [])
    seed = config.options.seed
    for name in dict.fromkeys(run.backbone for run in runs if run.backbone):
        if any(run.backbone == name and run.transfer == "scratch" for run in runs):
            found.random[name] = backbones.load(name, weights="random", seed=seed)
        try:
            network = backbones.load(name, weights_dir=config.weights_dir, seed=seed)
        except WeightsUnavailable as error:
            if config.skip_missing:
                progress.say(f"{name} is skipped: {error}")
                found.skipped.append({"backbone": name, "why": str(error)})
                continue
            progress.say(f"{error} It runs from RANDOM weights here and is marked so.")
            network = backbones.load(name, weights="random", seed=seed)
        progress.say(f"{name}: {network.account.summary}")
        found.pretrained[name] = network
    return found


class _Study:
    """A study under way: the data, the networks, and the rows that are known."""

    def __init__(
        self,
        recipe: Recipe,
        runs: list[Run],
        config: StudyConfig,
        networks: _Networks,
        table: PhotoTable,
        out: Path,
        name: str,
        command: str,
    ) -> None:
        self.recipe, self.config, self.networks = recipe, config, networks
        self.out, self.name, self.command = out, name, command
        self.runs = [run for run in runs if self._can_run(run, runs)]
        if not self.runs:
            raise InputError("The weights of every network are missing: name --weights-dir.")
        self.bench = Bench(replace(PAPER_CROP, tier=config.tier), engine=config.engine)
        self.table = table
        self.split = self._draw()
        self.rows: dict[str, Row] = {}

    def _can_run(self, run: Run, runs: list[Run]) -> bool:
        if run.backbone:
            return run.backbone in self.networks.pretrained
        # Made from other rows: at least one of them is there.
        needed = run.members or run.best_of
        rows = (other for other in runs if other.table == needed and other.backbone)
        return any(self._can_run(other, runs) for other in rows)

    def _draw(self) -> Split:
        own_test = "test" in set(self.table.labelled["split"].drop_nulls())
        return split_photos(
            self.table,
            val=self.config.val,
            test=0.0 if own_test or self.config.split == "official" else self.config.test,
            seed=self.config.options.seed,
            way=self.config.split,
        )

    @cached_property
    def parts(self) -> Parts:
        """The parts, without the photos that turned out to be unreadable."""
        return Parts.of(self.table, self.split)

    @cached_property
    def prune_below(self) -> int:
        """The number of training photos under which a class is pruned."""
        if self.config.prune_below is not None:
            return self.config.prune_below
        counts = np.sort(list(self.parts.train_counts().values()))
        if (counts >= PAPER_THRESHOLD).mean() >= 2 / 3:
            return PAPER_THRESHOLD
        return int(counts[int(PAPER_PRUNED_SHARE * len(counts))])

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The classes that are left after pruning."""
        kept = set(prune(self.split, self.table, self.prune_below))
        return tuple(taxon_id for taxon_id in self.parts.classes if taxon_id in kept)

    def classes(self, run: Run) -> tuple[str, ...]:
        return self.kept if run.pruned else self.parts.classes

    def in_turn(self) -> Iterator[Run]:
        """The runs in the order in which they can be done: as soon as their features are there."""
        cached = [run for run in self.runs if run.mode == "cached" and run.backbone]
        wanted = {run.backbone: self.networks.pretrained[run.backbone] for run in cached}
        for name in self.bench.compute(self.parts.files, wanted):
            if self.bench.extraction.rejected:
                self.table = self.bench.reject_unreadable(self.table)
                for known in ("parts", "kept", "prune_below", "_data"):
                    self.__dict__.pop(known, None)  # worked out anew, without them
            yield from (run for run in cached if run.backbone == name)
        yield from (run for run in self.runs if run not in cached)

    def do(self, run: Run) -> None:
        """Do one run, or take it as it was kept."""
        path = self.out / "rows" / f"{run.id}.json"
        key = self._key(run)
        row = files.read_json(path) if path.exists() else {}
        if row.get("key") != key:
            row = {**self._row(run), "key": key}
            files.write_json(path, row)
        self.rows[run.id] = row
        self._write(seconds=None)
        error, (low, high) = row["val_top1_error"], row["val_top1_error_interval"]
        marked = "" if row["weights_complete"] else f"  [{row['weights_short']}]"
        progress.say(
            f"{run.table:>8}  {run.label:<20} error {error:.3f} ({low:.3f} to {high:.3f}), all "
            f"classes {row['val_top1_error_all_classes']:.3f}{marked}"
        )

    def _key(self, run: Run) -> str:
        about: dict[str, Any] = {"run": asdict(run), "split": self.split.digest, "format": 1}
        about |= {"data": self.table.digest(), "classes": self.classes(run)}
        about["seed"] = self.config.options.seed
        if run.backbone:
            backbone = self.networks.of(run)
            about["backbone"] = [backbone.key, self.bench.crop_for(backbone).key()]
        else:
            about["rows"] = {r["id"]: r["key"] for r in self._table(run.members or run.best_of)}
        if run.mode in ("finetune", "literal"):
            about["how"] = asdict(self._recipe_of(run))
        return files.digest(about)

    def _table(self, name: str) -> list[Row]:
        return [row for row in self.rows.values() if row["table"] == name]

    def _row(self, run: Run) -> Row:
        if run.best_of:
            return self._best(run)
        if run.mode == "ensemble":
            return self._ensemble(run)
        if run.mode == "cached":
            return self._cached(run)
        return self._trained(run)

    def _cached(self, run: Run) -> Row:
        backbone, classes = self.networks.of(run), self.classes(run)
        train = self.bench.features(backbone, self.parts.train, classes)
        val = self.bench.features(backbone, self.parts.val, classes)
        training = Training(epochs=run.epochs, seed=self.config.options.seed)
        found = fit(train, val, len(classes), training, Arm())
        photos = self._measured_on(run)
        scores = found.head.logits_of(self.bench.features(backbone, photos, classes).features)
        count = len(self.parts.train) + len(photos)
        return self._finish_row(
            run,
            photos.evaluation(scores, classes),
            curve=found.curve,
            train_seconds=found.seconds,
            extract_seconds=cost_of(self.bench, backbone, count),
        )

    def _measured_on(self, run: Run) -> Photos:
        photos = self.parts.test if run.part == "test" else self.parts.val
        if not len(photos):
            raise InputError(f"{self.name} has no {run.part} part: give a share with --{run.part}.")
        return photos

    def _trained(self, run: Run) -> Row:
        """Train the network itself: literally the last layer, or all layers."""
        backbone, classes = self.networks.of(run), self.classes(run)
        network = backbone.literal(len(classes), self.config.options.seed)
        how = self._recipe_of(run)
        checkpoint = self.out / "checkpoints" / f"{run.id}-{self._key(run)[:16]}.safetensors"
        crops = self.bench.crops(backbone, self.parts.files)
        train, val = (
            crops.labelled(self.parts.train, classes),
            crops.labelled(self.parts.val, classes),
        )
        curve, seconds = finetune.finetune(network, train, val, how, checkpoint=checkpoint)
        photos = self._measured_on(run)
        every = crops.labelled(photos, classes, also_unknown=True)
        scores = finetune.scores(network, every, how)
        row = self._finish_row(
            run,
            photos.evaluation(scores, classes),
            curve=curve,
            train_seconds=seconds,
            extract_seconds=0.0,
        )
        checkpoint.unlink(missing_ok=True)
        return row

    def _recipe_of(self, run: Run) -> FineTuning:
        # The last layer learns from scratch, and the same rate as on kept features makes the two
        # comparable; all layers together need a smaller one.
        rate = Arm().learning_rate if run.transfer == "last" else 1e-4
        return FineTuning(
            transfer=run.transfer,
            epochs=run.epochs,
            batch_size=Training().batch_size,
            learning_rate=rate,
            seed=self.config.options.seed,
            precision="float32" if run.transfer == "last" else self.config.precision,
        )

    def _best(self, run: Run) -> Row:
        """The best row of a table by validation error, measured on another part."""
        best = min(self._table(run.best_of), key=lambda row: row["val_top1_error"])
        chosen = next(each for each in self.runs if each.id == best["id"])
        again = replace(chosen, table=run.table, label=chosen.label, part=run.part)
        row = self._cached(again)
        note = f"{chosen.label} was chosen by its validation error of {best['val_top1_error']:.3f}"
        return {**row, "id": run.id, "note": f"{note}; this is its error on the {run.part} part."}

    def _ensemble(self, run: Run) -> Row:
        """The mean of the members' probabilities (the paper's future work, Section 7)."""
        members = self._table(run.members)
        loaded = [self.evaluation(row["id"]) for row in members]
        mean = np.mean([np.exp(metrics.log_softmax(each.scores_NC)) for each in loaded], axis=0)
        evaluation = replace(
            loaded[0], scores_NC=np.log(np.maximum(mean, 1e-12)).astype(np.float32)
        )
        row = self._finish_row(
            run,
            evaluation,
            curve=(),
            train_seconds=sum(row["train_seconds"] for row in members),
            extract_seconds=sum(row["extract_seconds"] or 0.0 for row in members),
        )
        complete = all(member["weights_complete"] for member in members)
        return {
            **row,
            "backbone": "+".join(member["backbone"] for member in members),
            "weights": "; ".join(dict.fromkeys(member["weights"] for member in members)),
            "weights_complete": complete,
            "weights_short": "" if complete else "some members have random weights",
        }

    def evaluation(self, row_id: str) -> Evaluation:
        """The kept scores of a row."""
        return Evaluation.load(self.out / self.rows[row_id]["scores"])

    def _finish_row(
        self,
        run: Run,
        evaluation: Evaluation,
        *,
        curve: tuple[Epoch, ...] | list[Epoch],
        train_seconds: float,
        extract_seconds: float | None,
    ) -> Row:
        place = f"scores/{run.id}.safetensors"
        evaluation.save(self.out / place)
        summary = evaluation.summary(seed=self.config.options.seed)
        row: Row = {
            "id": run.id,
            "table": run.table,
            "label": run.label,
            "backbone": run.backbone,
            **self._weights_of(run),
            "transfer": run.transfer,
            "pruned": run.pruned,
            "epochs": run.epochs,
            "mode": run.mode,
            "part": run.part,
            "classes": summary["classes"],
            "photos": summary["photos"],
            "train_seconds": train_seconds,
            "extract_seconds": extract_seconds,
            "curve": [asdict(epoch) for epoch in curve],
            "scores": place,
            "note": "",
        }
        names = ("top1_error", "top1_error_all_classes", "macro_error")
        for name in (*names, *(f"{n}_interval" for n in names), "top5_error", "log_loss"):
            row[f"val_{name}"] = summary[name]
        return row

    def _weights_of(self, run: Run) -> Row:
        if not run.backbone:
            return {"weights": "", "weights_complete": True, "weights_short": ""}
        backbone = self.networks.of(run)
        account = backbone.account
        short = (
            "" if account.complete else "partly random" if account.pretrained else "random weights"
        )
        meant = run.transfer == "scratch"  # random weights are the point of this row
        return {
            "weights": weights_line(backbone),
            "weights_complete": account.complete or meant,
            "weights_short": "" if meant else short,
            "weights_account": account.summary,
        }

    def _write(self, seconds: float | None) -> Row:
        found = [self.rows[run.id] for run in self.runs if run.id in self.rows]
        content: Row = {
            "recipe": self.recipe.name,
            "title": self.recipe.title,
            "command": self.command,
            "commit_or_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": seconds is not None,
            "seconds": seconds,
            "machine": {
                "cores": cores(),
                "processor": platform.machine(),
                "system": platform.system(),
            },
            "versions": versions(),
            "data": self._data,
            "rows": found,
            "skipped": self.networks.skipped,
        }
        files.write_json(self.out / "study.json", content)
        return content

    @cached_property
    def _data(self) -> Row:
        split, parts = self.split, self.parts
        return {
            "name": self.name,
            "source": self.table.source,
            "digest": self.table.digest(),
            "photos": self.table.kept.height,
            "classes": len(parts.classes),
            "rejected": self.table.reasons(),
            "stats": stats(self.table),
            "split": {
                "way": split.way,
                "seed": split.seed,
                "digest": split.digest,
                "train": len(parts.train),
                "val": len(parts.val),
                "test": len(parts.test),
            },
            "prune_below": self.prune_below,
            "kept_classes": len(self.kept),
        }

    def finish(self, seconds: float) -> Row:
        """Write what is left: the tables, the last `study.json`, and the page."""
        self.table.write(self.out / "photos.parquet")
        self.split.write(self.out / "split.parquet")
        content = self._write(seconds)
        page = report.study_page(
            content,
            photos=photo_finder(self.table),
            evaluations=lambda row_id: self.evaluation(row_id) if row_id in self.rows else None,
            taxonomy=self.table.taxonomy,
        )
        files.write_text(self.out / "report.html", page)
        return content
