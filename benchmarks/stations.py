"""Drawn camera-trap stations: boxes, events and the prior, each beside what it replaces.

    python -m benchmarks stations

Three sets of stations of different shape are drawn, and for each:

- boxes beside the whole photos that they are of (the recipe `traps` of `fieldmark study`), at new and at
  known places. The aim is half the error at new places;
- one answer an event beside photo by photo, by the rule that `train` chooses;
- a prior of the training photos (`--prior own`) beside none, at new places: once where species have regions
  and seasons, and once with the same photos and places by chance, so that it has nothing to tell.

All differences are of the same photos or events, with an interval over places. No error on drawn photos says
anything about real ones: what can be seen is whether a part does its work, and what it costs where it cannot.
Nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import Row
from fieldmark.data.synthetic import draw_stations
from fieldmark.evaluation.comparison import difference
from fieldmark.experiments import Options, StudyConfig, study
from fieldmark.training import TrainConfig, train
from fieldmark.utils import io
from fieldmark.utils.choices import SplitMethod

GUIDES: tuple[Mapping[str, int], ...] = (
    {"stations": 12, "visits": 60, "species": 12, "seed": 0},
    {"stations": 24, "visits": 25, "species": 24, "seed": 11},
    {"stations": 8, "visits": 30, "species": 6, "seed": 5},
)
"""What is drawn: the first as by `fieldmark demo --stations`, and two of other shape."""
SMALL: Mapping[str, Any] = {"stations": 6, "visits": 8, "species": 3, "seed": 2, "size": (200, 150)}
NETWORK = "tf_efficientnet_lite0"
_BY_CHANCE = {"latitude": (43.0, 53.0), "longitude": (4.0, 14.0)}  # of stations without regions, degrees


def run(
    quick: bool = False, guides: Sequence[Mapping[str, Any]] | None = None, network: str = NETWORK
) -> list[Row]:
    """Return six rows for each set of stations; fewer where there are too few events."""
    chosen = guides or ((SMALL,) if quick else GUIDES)
    return [row for about in chosen for row in _of_guide(about, network)]


def _of_guide(about: Mapping[str, Any], network: str) -> list[Row]:
    name = f"{about['stations']} stations, {about['species']} species"
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn")
        draw_stations(drawn, **about)
        boxes = drawn / "boxes.json"
        chance = by_chance(drawn, int(about["seed"]))
        rows = _boxes(drawn, boxes, Path(folder, "study"), network)
        for split, where in (("location", "new"), ("stratified", "known")):
            rows += _events(_details(drawn / "stations.json", boxes, split, network), where)
        for photos, what in ((drawn / "stations.json", "species have regions"), (chance, "places by chance")):
            rows.append(_prior(_details(photos, boxes, "location", network, "own"), what))
    return [replace(row, what=f"{name}: {row.what}") for row in rows]


def by_chance(drawn: Path, seed: int) -> Path:
    """Write a list of the same photos whose stations and days are by chance; return its path."""
    rng = np.random.default_rng(seed)
    document = io.read_json(drawn / "stations.json")
    places: dict[str, dict[str, float]] = {}
    days: dict[str, str] = {}
    for image in document["images"]:
        there = {axis: round(float(rng.uniform(*span)), 5) for axis, span in _BY_CHANCE.items()}
        day = str(np.datetime64("2023-01-01") + int(rng.integers(365)))
        at = places.setdefault(image["location"], there)
        image.update(at, datetime=days.setdefault(image["seq_id"], day) + image["datetime"][10:])
    path = drawn / "chance.json"
    io.write_json(path, document)
    return path


def _boxes(drawn: Path, boxes: Path, out: Path, network: str) -> list[Row]:
    config = StudyConfig(Options(backbones=(network,)), boxes=boxes)
    found = study(drawn / "stations.json", "traps", config, out=out)
    rows = []
    for table, where, aim in (("boxes", "new", 2.0), ("boxes-known", "known", None)):
        whole, cut = (found.evaluation(row) for row in found.record.table(table))
        paired = difference(cut, whole)
        rows.append(
            common.paired(
                f"boxes, {where} places, error",
                *(float(each.wrong_N().mean()) for each in (cut, whole)),
                "whole photos",
                (paired.value, *paired.interval),
                aim=aim,
                note=f"{paired.photos:,} boxes",
            )
        )
    return rows


def _details(
    photos: Path, boxes: Path, split: SplitMethod, network: str, prior: str | None = None
) -> Mapping[str, Any]:
    config = TrainConfig(backbone=network, boxes=boxes, split=split, prior=prior)
    return train(photos, config).classifier.provenance


def _events(details: Mapping[str, Any], where: str) -> list[Row]:
    if (found := details.get("events")) is None:
        return []  # fewer than 20 events of several photos
    row = common.paired(
        f"events, {where} places, error",
        *(found["error"], found["photo_error"], "photo by photo", _difference(found["paired"])),
        note=f"{found['events']:,} events, by their {found['rule']['way']}",
    )
    return [row]


def _prior(details: Mapping[str, Any], what: str) -> Row:
    prior = details["prior"]
    found = prior["measured"]["new places"]
    loss = "log-loss {:.3f} and {:.3f}, difference {:+.3f} ({:+.3f} to {:+.3f})".format(
        found["log_loss"], found["log_loss_without"], *_difference(found["paired_loss"])
    )
    return common.paired(
        f"prior, new places, {what}, error",
        *(found["error"], found["without"], "no prior", _difference(found["paired"])),
        note=f"{loss}; strength taken: {prior['strength']:g}",
        more={"strength": prior["strength"]},
    )


def _difference(of: Mapping[str, Any]) -> tuple[float, float, float]:
    return (of["value"], *of["interval"])
