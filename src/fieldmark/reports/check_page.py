"""The page of a check: the findings with photos, to be reviewed by a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.reports import page, thumbnails
from fieldmark.reports.thumbnails import PhotoOf, Thumb
from fieldmark.utils.languages import decimal_point, number, say
from fieldmark.utils.wording import word

Row = Mapping[str, Any]

MAX_CLUSTERS = 24
MAX_LABELS = 48
MAX_POOR = 16
_PER_CLUSTER = 6


def check_page(
    findings: pl.DataFrame,
    summary: Mapping[str, Any],
    *,
    taxonomy: Taxonomy,
    photos: PhotoOf,
    about: Mapping[str, Any],
) -> str:
    """Render the page of a check as one HTML text that needs no other file.

    Args:
        findings: One row per photo, with the columns of docs/check.md.
        summary: The number of photos of each finding.
        taxonomy: The names of the labels.
        photos: Returns where a photo is stored, or None.
        about: `name`, `command`, `dropped` (reason to number), and the thresholds `dark`, `blurred`,
            `tiny`, `rotated`, `label_precision`.
    """
    gallery = _Gallery(taxonomy, photos)
    review = findings.drop_nulls("review").sort("review").head(MAX_LABELS)
    return page.render(
        "check.html",
        title=say("Check of {name}", name=about["name"]),
        summary=summary,
        about=about,
        leaks=list(gallery.clusters(findings.filter("leak"), "together")),
        twins=list(gallery.clusters(findings.drop_nulls("twins"), "twins")),
        labels=gallery.thumbs(review, gallery.suspicion),
        poor=list(gallery.poor(findings, about)),
    )


class _Gallery(NamedTuple):
    taxonomy: Taxonomy
    photos: PhotoOf

    def clusters(self, rows: pl.DataFrame, column: str) -> Iterator[dict[str, Any]]:
        """Yield clusters with their photos, labels and parts: different labels first, then by similarity."""
        order = (
            rows.group_by(column)
            .agg(odd=pl.col("labels_differ").fill_null(False).any(), alike=pl.col("alike").max())
            .sort("odd", "alike", column, descending=[True, True, False])
        )
        for name in order[column].head(MAX_CLUSTERS):
            members = rows.filter(pl.col(column) == name)
            # One photo of every part and label first, so that all of them are shown.
            shown = members.sort(pl.struct("part", "taxon_id").is_first_distinct(), descending=True)
            yield {
                "thumbs": self.thumbs(shown.head(_PER_CLUSTER), self.named_part),
                "photos": members.height,
                "labels": [self.name(each) for each in members["taxon_id"].drop_nulls().unique().sort()],
                "parts": [word(each) for each in members["part"].drop_nulls().unique().sort()],
            }

    def poor(self, findings: pl.DataFrame, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield dark, blurred, tiny and rotated photos, worst first."""
        for kind, title, measure, descending, limit in (
            (
                *("dark", say("Dark"), "brightness", False),
                say("95 % of the pixels darker than {share} % of white", share=_short(100 * about["dark"])),
            ),
            (
                *("blurred", say("Blurred"), "blur", True),
                say("blur of {least} or more", least=_short(about["blurred"])),
            ),
            (
                *("tiny", say("Tiny"), "short_side", False),
                say("shorter side below {pixels} pixels", pixels=about["tiny"]),
            ),
            (
                *("rotated", say("Rotated"), "sideways", True),
                say("log-odds of a quarter turn from {least} nats", least=_short(about["rotated"])),
            ),
        ):
            rows = findings.filter(kind).sort(measure, "id", descending=[descending, False])
            shown = self.thumbs(rows.head(MAX_POOR), partial(self.measured, measure))
            yield {"id": kind, "title": title, "limit": limit, "photos": rows.height, "thumbs": shown}

    def thumbs(self, rows: pl.DataFrame, caption: Callable[[Row], str]) -> list[Thumb]:
        """Return thumbnails of rows with captions, without photos that cannot be read."""
        captions = ((row["id"], caption(row)) for row in rows.iter_rows(named=True))
        return list(thumbnails.thumbs(self.photos, captions))

    def named_part(self, row: Row) -> str:
        return f"{self.name(row['taxon_id'])} · {word(row['part']) if row['part'] else say('no part')}"

    def measured(self, measure: str, row: Row) -> str:
        value = row[measure]
        shown = number(value, 2) if isinstance(value, float) else str(value)
        return f"{shown} · {self.name(row['taxon_id'])}"

    def suspicion(self, row: Row) -> str:
        names = {"name": self.name(row["taxon_id"]), "likelier": self.name(row["likelier"])}
        if row["suspect"] is None:
            return say("review: {name}; more likely: {likelier}", **names)
        return say("suspect: {name}; more likely: {likelier}", **names)

    def name(self, taxon_id: str | None) -> str:
        return say("no label") if taxon_id is None else page.label(self.taxonomy, taxon_id)


def _short(value: float) -> str:
    """Format a threshold with as few digits as it was given."""
    return f"{value:g}".replace(".", decimal_point())
