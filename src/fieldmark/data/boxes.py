"""Photos cut to the boxes that a detector or a person drew in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from fieldmark.data.detections import USUAL_THRESHOLD, Detection, Detections, check_matched
from fieldmark.data.photos import IS_HARD, IS_KEPT, KEPT, REJECTED, SCHEMA, PhotoTable
from fieldmark.data.storage.places import Boxed, boxed_text
from fieldmark.data.taxonomy import name_key
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.typing import BoolArray, FloatArray

_THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
_FEWEST = 20
"""Photos with and photos without an animal, from which a threshold is measured."""


@dataclass(frozen=True)
class Threshold:
    """From which confidence on a box counts, and how well that separates photos with an animal.

    Attributes:
        value: the confidence.
        way: `given`, `measured`, `file` or `usual`.
        animals: how many photos are labelled as an animal; 0 where it was not measured.
        missed: how many of those have no box from the threshold on.
        blanks: how many are labelled as empty.
        false_alarms: how many of those have one.
    """

    value: float
    way: str
    animals: int = 0
    missed: int = 0
    blanks: int = 0
    false_alarms: int = 0

    @property
    def summary(self) -> str:
        """Return it in a sentence."""
        ways = {"given": "as given", "file": "as the file says", "usual": "usual for MegaDetector"}
        if not self.animals:
            return f"Boxes count from confidence {self.value:g} on ({ways[self.way]})."
        return (
            f"Boxes count from confidence {self.value:g} on ({ways.get(self.way, 'by the labels')}): of "
            f"{self.animals:,} photos of animals {self.missed:,} have no box, of {self.blanks:,} empty "
            f"photos {self.false_alarms:,} have one."
        )


def of_photos(table: PhotoTable, detections: Detections) -> Detections:
    """Return the boxes of the photos of a table, by the photos' own paths, and say how many have none.

    Rows that are boxes already need none.

    Raises:
        InputError: the file has boxes for none of the photos.
    """
    rows = table.frame.filter(IS_KEPT | IS_HARD)["path"].to_list()
    paths = [path for path in rows if not _is_box(table, path)]
    found = detections.matched(paths)
    check_matched(len(found), len(paths))
    return replace(detections, of_file=found)


def find_threshold(table: PhotoTable, detections: Detections, given: float | None = None) -> Threshold:
    """Choose the confidence from which on a box counts; boxes are those of `of_photos`.

    With at least 20 photos of animals and 20 empty ones it is the one with the fewest missed animals and
    false alarms, both as shares. Else it is that of the file, or the usual one.

    Raises:
        InputError: the given one is no share from 0 to 1.
    """
    if given is not None and not 0 <= given <= 1:
        raise InputError(f"The threshold of boxes is {given:g}: give a confidence from 0 to 1.")
    highest_N, animal_N = _labelled(table, detections)
    animals, blanks = int(animal_N.sum()), int((~animal_N).sum())
    way, value = "usual", USUAL_THRESHOLD
    if given is not None:
        way, value = "given", given
    elif min(animals, blanks) >= _FEWEST:
        way = "measured"
        shares = [
            (highest_N[animal_N] < each).mean() + (highest_N[~animal_N] >= each).mean()
            for each in _THRESHOLDS
        ]
        value = float(_THRESHOLDS[int(np.argmin(shares))])
    elif detections.threshold is not None:
        way, value = "file", detections.threshold
    missed, alarms = (highest_N[animal_N] < value).sum(), (highest_N[~animal_N] >= value).sum()
    return Threshold(value, way, animals, int(missed), blanks, int(alarms))


def _labelled(table: PhotoTable, detections: Detections) -> tuple[FloatArray, BoolArray]:
    """Return the highest confidence of an animal, and whether there is one, for each labelled photo."""
    blank, other = table.taxonomy.of_kind("blank"), table.taxonomy.of_kind("human", "vehicle")
    highest, animal = [], []
    rows = table.labelled.filter(~pl.col("taxon_id").is_in(other)).select("path", "taxon_id").rows()
    for path, taxon in rows:
        if (found := detections.of_file.get(path)) is not None:
            seen = (each.confidence for each in found if each.category == "animal")
            highest.append(max(seen, default=0.0))
            animal.append(taxon not in blank)
    return np.array(highest, np.float32), np.array(animal, np.bool_)


def cropped(table: PhotoTable, detections: Detections, threshold: float) -> PhotoTable:
    """Return a table with a row for each box of an animal in place of the photo; see `of_photos`.

    The boxes of a photo are in one group. A box has the label that the file gives it, if that is a name of
    the table's taxonomy, else the photo's. Photos of people and vehicles, and those without a box from
    the threshold on, are rejected. A row that is a box already stays as it is.
    """
    names = ((name, taxon.id) for taxon in table.taxonomy for name in (taxon.common_name, taxon.name) if name)
    named = {name_key(name): taxon_id for name, taxon_id in names}
    photos, others = table.frame.filter(IS_KEPT | IS_HARD), table.frame.filter(~(IS_KEPT | IS_HARD))
    rows = [
        new
        for row in photos.iter_rows(named=True)
        for new in (
            [row]
            if _is_box(table, row["path"])
            else _rows_of(row, detections.of_file.get(row["path"], ()), threshold, named)
        )
    ]
    frame = pl.concat([pl.DataFrame(rows, schema=SCHEMA), others])
    return replace(_without_people(table.with_frame(frame)), box_threshold=threshold)


def _is_box(table: PhotoTable, path: str) -> bool:
    return isinstance(table.file_of(path), Boxed)


def _rows_of(
    row: dict[str, Any], found: Sequence[Detection], threshold: float, named: Mapping[str, str]
) -> list[dict[str, Any]]:
    animals = [each for each in found if each.category == "animal" and each.confidence >= threshold]
    if not animals:
        return [row | {"status": REJECTED, "reason": RejectReason.NO_BOX.value}]
    new = {"sha256": None, "width": None, "height": None, "group": row["group"] or row["id"]}
    return [
        row
        | new
        | {
            "id": f"{row['id']}#{number}",
            "path": boxed_text(row["path"], each.box),
            "taxon_id": row["taxon_id"] and named.get(name_key(each.label or ""), row["taxon_id"]),
        }
        for number, each in enumerate(animals, 1)
    ]


def _without_people(table: PhotoTable) -> PhotoTable:
    people = table.taxonomy.of_kind("human", "vehicle")
    ids = table.frame.filter(pl.col("taxon_id").is_in(people) & (pl.col("status") == KEPT))["id"]
    return table.reject(ids, RejectReason.NO_ANIMAL.value)
