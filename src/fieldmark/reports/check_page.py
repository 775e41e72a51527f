"""The page of a check: pictures of what may be wrong, to be looked at by a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.reports import page, thumbnails
from fieldmark.reports.thumbnails import PhotoOf, Thumb

CLUSTERS = 24
LABELS = 48
PICTURES = 16
_IN_CLUSTER = 6


@dataclass(frozen=True)
class Cluster:
    """Photos of one picture: the pictures, how many there are in all, and what is odd about them."""

    thumbs: list[Thumb]
    photos: int
    labels: list[str]
    parts: list[str]


@dataclass(frozen=True)
class Poor:
    """Photos that show little, in one way, the worst first."""

    id: str
    title: str
    what: str
    photos: int
    thumbs: list[Thumb]


def check_page(
    findings: pl.DataFrame,
    summary: Mapping[str, int],
    *,
    taxonomy: Taxonomy,
    photos: PhotoOf,
    about: Mapping[str, Any],
) -> str:
    """The page of a check as one HTML text that needs no other file.

    Args:
        findings: a row a photo, with the columns that docs/check.md lists.
        summary: how many photos each finding has.
        taxonomy: names the labels.
        photos: where a photo lies, by its id.
        about: `name`, `command`, `dropped` (reason to number), and the limits `dark`, `blurred`, `tiny`,
            `rotated`.
    """
    pictures = _Pictures(taxonomy, photos)
    return page.render(
        "check.html",
        title=f"What may be wrong with {about['name']}",
        contents=[
            ("short", "In short"),
            ("leaks", "Leaks"),
            ("twins", "Twins"),
            ("labels", "Labels"),
            ("poor", "Poor pictures"),
        ],
        summary=summary,
        about=about,
        leaks=list(pictures.clusters(findings.filter("leak"), "together")),
        twins=list(pictures.clusters(findings.filter(pl.col("twins").is_not_null()), "twins")),
        labels=pictures.labels(findings),
        poor=pictures.poor(findings, about),
    )


@dataclass(frozen=True)
class _Pictures:
    taxonomy: Taxonomy
    photos: PhotoOf

    def clusters(self, rows: pl.DataFrame, column: str) -> Iterator[Cluster]:
        """Those with several labels first, then the ones that are most alike."""
        order = (
            rows.group_by(column)
            .agg(odd=pl.col("labels_differ").fill_null(False).any(), alike=pl.col("alike").max())
            .sort("odd", "alike", column, descending=[True, True, False])
        )
        for name in order[column].head(CLUSTERS):
            members = rows.filter(pl.col(column) == name)
            # Pictures of every part and label come first, so that the odd ones are among those shown.
            shown = members.sort(pl.struct("part", "taxon_id").is_first_distinct(), descending=True)
            yield Cluster(
                thumbs=self.thumbs(shown.head(_IN_CLUSTER), "{name} · {part}"),
                photos=members.height,
                labels=[
                    self.name(each) for each in members["taxon_id"].drop_nulls().unique().sort()
                ],
                parts=members["part"].drop_nulls().unique().sort().to_list(),
            )

    def labels(self, findings: pl.DataFrame) -> list[Thumb]:
        """The most suspect labels, the worst first."""
        rows = findings.filter(pl.col("suspect").is_not_null()).sort("suspect").head(LABELS)
        return self.thumbs(rows, "labelled {name}; rather {likelier}?")

    def poor(self, findings: pl.DataFrame, about: Mapping[str, Any]) -> list[Poor]:
        """Dark, blurred, tiny and rotated photos."""
        ways = (
            ("dark", "Dark", "brightness", False, f"95 % darker than {about['dark']:g} of white"),
            ("blurred", "Blurred", "blur", True, f"blur of {about['blurred']:g} or more"),
            ("tiny", "Tiny", "short_side", False, f"shorter side below {about['tiny']} pixels"),
            (
                "rotated",
                "Rotated",
                "sideways",
                True,
                f"{about['rotated']:g} nats or more for lying sideways",
            ),
        )
        found = []
        for column, title, measure, falling, what in ways:
            rows = findings.filter(column).sort(measure, "id", descending=[falling, False])
            shown = self.thumbs(rows.head(PICTURES), f"{{{measure}}} · {{name}}")
            found.append(Poor(column, title, what, rows.height, shown))
        return found

    def thumbs(self, rows: pl.DataFrame, caption: str) -> list[Thumb]:
        """Pictures of some rows with what is said of each; what cannot be read is passed over."""
        found = []
        for row in rows.iter_rows(named=True):
            place = self.photos(row["id"])
            uri = thumbnails.data_uri(place) if place else None
            if uri:
                said = {key: _text(value) for key, value in row.items()}
                said |= {"name": self.name(row["taxon_id"]), "likelier": self.name(row["likelier"])}
                found.append(Thumb(row["id"], caption.format(**said), uri))
        return found

    def name(self, taxon_id: str | None) -> str:
        return "no label" if taxon_id is None else page.label(self.taxonomy, taxon_id)


def _text(value: Any) -> str:
    if value is None:
        return "no part"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
