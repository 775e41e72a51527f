"""Which deployment of a camera a photo is of: as its list says, else its folder; a table of deployments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldmark.data.events import folder_of, place_of, seconds_of
from fieldmark.data.locations import DEGREES
from fieldmark.inference.record import Record
from fieldmark.utils.errors import InputError


def read_deployments(path: Path) -> list[dict[str, str]]:
    """Read a table of deployments, with columns of Camtrap DP; empty cells are left out.

    Raises:
        InputError: it cannot be read, lacks the column `deploymentID`, has one twice, or a latitude or
            longitude that cannot be.
    """
    from fieldmark.data.readers import column_names, tabular  # here, so that `predict` starts without it

    rows = tabular.read_text_table(path)
    tabular.require_columns(rows, ("deploymentID",), path, "a table with columns of Camtrap DP's deployments")
    rows = (
        rows.drop_nulls("deploymentID")
        .unique(maintain_order=True)
        .with_columns(column_names.with_point(name) for name in DEGREES if name in rows.columns)
    )
    if twice := rows.filter(rows["deploymentID"].is_duplicated())["deploymentID"].to_list():
        raise InputError(
            f"{path} has the deploymentID {twice[0]!r} twice with different values: keep one of its rows."
        )
    found = [{name: value for name, value in row.items() if value} for row in rows.to_dicts()]
    for row in found:
        for name, most in DEGREES.items():
            _check_degrees(row.get(name, "0"), most, f"{path}: {name} of {row['deploymentID']}")
    return found


def _check_degrees(text: str, most: float, what: str) -> None:
    try:
        fits = -most <= float(text) <= most
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{what} is {text!r}: write degrees from {-most:g} to {most:g}, such as 47.05.")


@dataclass(frozen=True)
class Deployments:
    """The deployments of some photos.

    Attributes:
        rows: of the table of deployments; there may be none.
        base: the folder that is taken off the front of the photos' folders, in parts.
    """

    rows: Sequence[Mapping[str, str]]
    base: tuple[str, ...]

    @classmethod
    def of(cls, records: Iterable[Record], rows: Sequence[Mapping[str, str]] = ()) -> Deployments:
        """Find what the folders of photos have in common; the last part of each stays."""
        folders = {tuple(folder_of(each["file_name"]).split("/")) for each in records} - {("",)}
        shared = os.path.commonprefix([folder[:-1] for folder in folders])  # noqa: RUF071  # of parts
        return cls(rows, tuple(shared))

    def name(self, record: Record) -> str:
        """Return the deployment of a photo or event, never "".

        That of the table whose `deploymentID` or `locationID` is the photo's deployment, location or folder,
        and whose time is that of the photo; else it is that itself.
        """
        name, event = record["file_name"], record.get("event")
        folder = folder_of(name)
        place = event["place"] if event else place_of(record.get("deployment"), record.get("location"), name)
        place = "/".join(folder.split("/")[len(self.base) :]) if place == folder else place
        second = seconds_of(record.get("taken"))
        for row in self.rows:
            if place in (row["deploymentID"], row.get("locationID")) and _includes(row, second):
                return row["deploymentID"]
        return place or "deployment"


def _includes(row: Mapping[str, str], second: float | None) -> bool:
    start, end = (seconds_of(row.get(name)) for name in ("deploymentStart", "deploymentEnd"))
    return second is None or (start or second) <= second <= (end or second)
