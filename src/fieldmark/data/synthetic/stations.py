"""Drawn camera-trap stations: photos with small animals, their labels and boxes, and what a detector finds.

    folder/stations/<station>/<photo>.jpg   bursts of photos; time, place and camera as EXIF data
    folder/stations.json                    COCO Camera Traps: labels, boxes, locations, sequences, times
    folder/boxes.json                       a detector's boxes, in MegaDetector's format 1.4
    folder/deployments.csv                  where and when each camera stood, in the columns of Camtrap DP
    folder/fieldguide.json                  what was drawn, and whether it is complete

An animal is small, in any part of the photo, and its neighbours tell which it may be: what is learned from
whole photos is the background. No error on these photos says anything about real ones.
"""

from __future__ import annotations

import csv
import io as memory
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.synthetic import marker
from fieldmark.data.synthetic import station_plan as planned
from fieldmark.data.synthetic.species import Species, create_species
from fieldmark.data.synthetic.station_photos import Box, jpeg, photo, shown_time
from fieldmark.data.synthetic.station_plan import Station, Visit
from fieldmark.utils import io, random
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import DoubleArray

_VERSION = 1  # of the drawings: another one gives other photos
_DETECTED = {"1": "animal", "2": "person", "3": "vehicle"}
_JITTER = 0.075  # of a detected box's edges, as a share of its sides: the IoU is about 0.8


@dataclass(frozen=True)
class _Shot:
    """One photo that was drawn."""

    visit: Visit
    frame: int
    boxes: list[tuple[int, Box]]  # categories and boxes

    @property
    def id(self) -> str:
        return f"{self.visit.id}-{self.frame + 1}"

    @property
    def path(self) -> str:
        return f"stations/{self.visit.station.name}/{self.id}.jpg"


def draw_stations(
    folder: Path,
    *,
    stations: int = 12,
    visits: int = 60,
    species: int = 12,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    wrong_clock: bool = False,
    workers: int | None = None,
) -> int:
    """Draw camera-trap stations into a new or empty `folder`; equal arguments give equal bytes.

    A complete folder is not changed; an interrupted one is drawn again.

    Args:
        folder: the folder to write to.
        stations: how many cameras, in turn in each of three regions.
        visits: bursts of 3 to 5 photos of each.
        species: how many species live there.
        size: width and height of the photos in pixels, at most 810.
        seed: of all that is drawn.
        wrong_clock: whether the clock of the last station starts in the year 2000, in EXIF data and
            `stations.json`; `deployments.csv` has the right times.
        workers: threads; None: one a core.

    Returns:
        How many photos were drawn now.

    Raises:
        InputError: there is no station or visit, a region would have no species, or a size is not possible;
            or the folder has other files, or cannot be written to.
    """
    if min(stations, visits) < 1 or species < len(planned.REGIONS) or not all(32 <= s <= 810 for s in size):
        raise InputError(
            f"{stations} stations, {visits} visits, {species} species, photos of {size[0]} x {size[1]} "
            "pixels cannot be drawn: ask for 1 or more, 3 species or more, and 32 to 810 pixels."
        )
    given = {"stations": stations, "visits": visits, "species": species, "seed": seed}
    more = {"width": size[0], "height": size[1], "wrong_clock": int(wrong_clock)}
    about = {"station_version": _VERSION, **given, **more}
    if marker.is_complete(folder, about):
        return 0
    marker.write(folder, about, complete=False)
    kinds = create_species(species, seed)
    places = planned.stations(stations, seed, wrong_clock=wrong_clock)
    shots = _draw_all(folder, planned.plan(places, visits, species, seed), kinds, size, seed, workers)
    io.write_json(folder / "stations.json", _listed(shots, kinds, size))
    io.write_json(folder / "boxes.json", _detected(shots, size, seed))
    io.write_text(folder / "deployments.csv", _deployments(places))
    marker.write(folder, about, complete=True)
    return len(shots)


def _draw_all(
    folder: Path,
    visits: list[Visit],
    kinds: tuple[Species, ...],
    size: tuple[int, int],
    seed: int,
    workers: int | None,
) -> list[_Shot]:
    def one(visit: Visit) -> list[_Shot]:
        shots = []
        for frame in range(len(visit.seconds)):
            picture, boxes = photo(visit, frame, kinds, size, seed)
            shots.append(_Shot(visit, frame, boxes))
            io.write_bytes(folder / shots[-1].path, jpeg(visit, frame, picture), durable=False)
        return shots

    made: list[_Shot] = []
    with progress_bar("Drawing the stations", total=len(visits), unit="visits") as stage:
        for shots in in_order(one, visits, workers or cores()):
            made += shots
            stage.advance()
    return made


def _listed(shots: list[_Shot], kinds: tuple[Species, ...], size: tuple[int, int]) -> dict[str, Any]:
    """Return the list in the format COCO Camera Traps."""
    categories: list[dict[str, object]] = [
        {"id": planned.EMPTY, "name": "empty"},
        {"id": planned.HUMAN, "name": "human"},
        {"id": planned.VEHICLE, "name": "vehicle"},
    ]
    categories += [kind.category() | {"id": planned.FIRST_SPECIES + kind.id} for kind in kinds]
    images, annotations = [], []
    for shot in shots:
        visit = shot.visit
        place = {"location": visit.station.name, "datetime": str(shown_time(visit, shot.frame))}
        sequence = {"seq_id": visit.id, "seq_num_frames": len(visit.seconds), "frame_num": shot.frame + 1}
        file = {"id": shot.id, "file_name": shot.path, "width": size[0], "height": size[1]}
        images.append(file | place | sequence)
        seen: list[dict[str, Any]] = [{"category_id": each, "bbox": list(box)} for each, box in shot.boxes]
        for number, entry in enumerate(seen or [{"category_id": planned.EMPTY}]):
            annotations.append({"id": f"{shot.id}-{number}", "image_id": shot.id, **entry})
    info = {"version": str(_VERSION), "description": "Drawn camera-trap stations of invented butterflies"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _detected(shots: list[_Shot], size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Return what a detector would find, in MegaDetector's batch format."""
    images = []
    for shot in shots:
        found = sorted(_detections(shot, size, seed), key=lambda each: -each["conf"])
        images.append({"file": shot.path, "detections": found})
    info = {"format_version": "1.4", "detector": "drawn by fieldmark, no real detector"}
    return {"info": info, "detection_categories": _DETECTED, "images": images}


def _detections(shot: _Shot, size: tuple[int, int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the boxes of most of what is there, and false alarms, at one place of each station."""
    rng = random.generator(seed, "detector", shot.id)
    for category, box in shot.boxes:
        box_4 = np.array(box) / (size * 2)
        small = max(0.0, 1 - box_4[2:].max() / 0.2)  # 0.5 for an animal of 10 % of a side
        hard = small + 0.3 * shot.visit.night
        confidence = 0.6 + 0.37 * rng.beta(3, 1.2) - 0.6 * hard * rng.random()
        if rng.random() > 0.02 + 0.15 * hard:
            kind = min(category, planned.FIRST_SPECIES) % planned.FIRST_SPECIES + 1
            yield _detection(kind, confidence, box_4, rng)
    if rng.random() < (0.05 if shot.boxes else 0.2):
        there = random.generator(seed, "false alarm", shot.visit.station.name)
        box_4 = np.array([*there.uniform(0.1, 0.7, 2), *there.uniform(0.06, 0.2, 2)])
        high = 0.7 if rng.random() < 0.05 else 0.4
        yield _detection(1, rng.uniform(0.1, high), box_4, rng)


def _detection(kind: int, confidence: float, box_4: DoubleArray, rng: np.random.Generator) -> dict[str, Any]:
    """Return one detection; its box is the given one (left, top, width, height) with moved edges."""
    edges_22 = np.array([box_4[:2], box_4[:2] + box_4[2:]])
    low, high = (edges_22 + rng.normal(0, _JITTER, (2, 2)) * box_4[2:]).clip(0, 1).round(4)
    bbox = [round(float(value), 4) for value in (*low, *np.maximum(high - low, 0.001))]
    return {"category": str(kind), "conf": round(max(0.05, float(confidence)), 3), "bbox": bbox}


def _deployments(places: list[Station]) -> str:
    """Return the table of deployments, with the columns of Camtrap DP."""
    text = memory.StringIO()
    where = ("deploymentID", "locationID", "locationName", "latitude", "longitude")
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*where, "deploymentStart", "deploymentEnd"))
    for place in places:
        times = (f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in (place.start, place.start + timedelta(place.days)))
        names = (f"{place.name}-{place.start:%Y}", place.name, f"Drawn station {place.name}")
        table.writerow((*names, place.latitude, place.longitude, *times))
    return text.getvalue()
