"""The page of a check: the findings with photos, to be reviewed by a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.reports import page, thumbnails
from fieldmark.reports.thumbnails import PhotoOf, Thumb

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
    review = review.with_columns(
        mark=pl.when(pl.col("suspect").is_null()).then(pl.lit("review")).otherwise(pl.lit("suspect"))
    )
    return page.render(
        "check.html",
        title=f"Check of {about['name']}",
        summary=summary,
        about=about,
        leaks=list(gallery.clusters(findings.filter("leak"), "together")),
        twins=list(gallery.clusters(findings.drop_nulls("twins"), "twins")),
        labels=gallery.thumbs(review, "{mark}: {name}; more likely: {likelier}"),
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
                "thumbs": self.thumbs(shown.head(_PER_CLUSTER), "{name} · {part}"),
                "photos": members.height,
                "labels": [self.name(each) for each in members["taxon_id"].drop_nulls().unique().sort()],
                "parts": members["part"].drop_nulls().unique().sort().to_list(),
            }

    def poor(self, findings: pl.DataFrame, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield dark, blurred, tiny and rotated photos, worst first."""
        dark = f"95 % of the pixels darker than {100 * about['dark']:g} % of white"
        for kind, measure, descending, limit in (
            ("dark", "brightness", False, dark),
            ("blurred", "blur", True, f"blur of {about['blurred']:g} or more"),
            ("tiny", "short_side", False, f"shorter side below {about['tiny']} pixels"),
            ("rotated", "sideways", True, f"log-odds of a quarter turn from {about['rotated']:g} nats"),
        ):
            rows = findings.filter(kind).sort(measure, "id", descending=[descending, False])
            shown = self.thumbs(rows.head(MAX_POOR), f"{{{measure}}} · {{name}}")
            yield {"id": kind, "limit": limit, "photos": rows.height, "thumbs": shown}

    def thumbs(self, rows: pl.DataFrame, caption: str) -> list[Thumb]:
        """Return thumbnails of rows with captions, without photos that cannot be read."""

        def captions() -> Iterator[tuple[str, str]]:
            for row in rows.iter_rows(named=True):
                names = {"name": self.name(row["taxon_id"]), "likelier": self.name(row["likelier"])}
                yield row["id"], caption.format(**{key: _text(value) for key, value in row.items()} | names)

        return list(thumbnails.thumbs(self.photos, captions()))

    def name(self, taxon_id: str | None) -> str:
        return "no label" if taxon_id is None else page.label(self.taxonomy, taxon_id)


def _text(value: Any) -> str:
    if value is None:
        return "no part"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
