"""Lists in COCO format: JSON with images, annotations and categories."""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.photos import KEPT, REJECTED, build_frame
from fieldmark.data.readers.base import binomial, text_series
from fieldmark.data.readers.tabular import outside
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)

# The group of an image: the first of these fields that it has.
_GROUP_FIELDS = ("seq_id", "observation_id", "observation_uuid", "location")

_ROW = {
    "id": pl.String(),
    "path": pl.String(),
    "width": pl.Int32(),
    "height": pl.Int32(),
    "taxon_id": pl.String(),
    "group": pl.String(),
    "split": pl.String(),
    "reason": pl.String(),
    "licence": pl.String(),
    "rights_holder": pl.String(),
    "location": pl.String(),
    "taken": pl.String(),
}

_EXPECTS = "a complete list in COCO format (images, annotations, categories)"

Categories = dict[str, Mapping[str, Any]]
_PEEK = 2**20
_MARKS = re.compile(
    rb'"(?:seq_id|seq_num_frames|frame_num|sequence_level_annotation|location)"\s*:'
    rb'|"name"\s*:\s*"empty"'
)


def is_camera_traps(path: Path) -> bool:
    """Return whether a file is a list with fields of camera traps, by its first and last megabyte."""
    name = path.name.lower()
    if not name.endswith((".json", ".json.gz")) or not path.is_file():
        return False
    try:
        if name.endswith(".gz"):
            with gzip.open(path) as packed:
                seen = packed.read(_PEEK)
        else:
            with path.open("rb") as handle:
                seen = handle.read(_PEEK)
                handle.seek(max(0, path.stat().st_size - _PEEK))
                seen += handle.read(_PEEK)
    except (OSError, EOFError, zlib.error):
        return False
    listed = re.search(rb'"(?:images|annotations)"\s*:\s*\[', seen)
    return listed is not None and _MARKS.search(seen) is not None


def load(path: Path) -> Any:
    """Read a JSON file, gzipped or not.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        return json.loads(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} could not be read ({error}): download it again.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): download it again.") from error


def entries_of(document: Any, field: str, path: Path) -> list[dict[str, Any]]:
    """Return the list of objects in a field of the document; empty where it is missing.

    Raises:
        InputError: it is not a list.
    """
    value = document.get(field, []) if isinstance(document, dict) else None
    if value is None and isinstance(document, dict):
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {field!r} must be a list of objects, as in {_EXPECTS}.")
    return value


def field_of(entries: list[dict[str, Any]], field: str, kind: str, path: Path) -> pl.Series:
    """Return a required field of every entry as text.

    Raises:
        InputError: an entry lacks it.
    """
    try:
        values = [entry[field] for entry in entries]
        if None not in values:
            return text_series(field, values, path)
    except (KeyError, TypeError):
        pass
    number = next(
        number
        for number, entry in enumerate(entries)
        if not isinstance(entry, dict) or entry.get(field) is None
    )
    raise InputError(f"{path}: {kind}[{number}] has no {field}: add it, or remove the entry.")


def read_listing(path: Path, part: str | None) -> tuple[pl.DataFrame, Categories]:
    """Read a list: one row an image, with the columns of `_ROW`, and the categories by their ids.

    An image without a label is unlabelled in a list without labels, and rejected in any other; so is one
    with several labels.

    Raises:
        InputError: the file is not such a list.
    """
    document = load(path)
    if not isinstance(document, dict) or "images" not in document:
        raise InputError(f"{path} has no field 'images': expected are {_EXPECTS}.")
    licences = _licences(entries_of(document, "licenses", path))
    images = _images(entries_of(document, "images", path), path, licences)
    images = images.with_columns(split=pl.lit(part, pl.String))
    document["images"] = None  # frees the memory of a million dictionaries
    annotations = entries_of(document, "annotations", path)
    if any("bbox" in each for each in annotations if isinstance(each, dict)):
        logger.info(f"{path.name} has boxes: they are ignored, a label is that of the whole photo.")
    labels = _labels(annotations, images["id"], path)
    categories = categories_by_id(entries_of(document, "categories", path), path)
    if labels.is_empty():
        unlabelled = images.with_columns(taxon_id=pl.lit(None), reason="corrupt")
        return unlabelled.select(_cast()), categories
    rows = images.join(labels, on="id", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("corrupt").is_not_null())
        .then("corrupt")
        .when(pl.col("labels").is_null())
        .then(pl.lit(RejectReason.NO_LABEL.value))
        .when(pl.col("labels") > 1)
        .then(pl.lit(RejectReason.AMBIGUOUS_LABEL.value))
    )
    return rows.select(_cast()), categories


def _cast() -> list[pl.Expr]:
    return [pl.col(name).cast(dtype) for name, dtype in _ROW.items()]


def _licences(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Return the name or URL of each numbered licence."""
    found = {}
    for each in entries:
        said = each.get("name") or each.get("url") if isinstance(each, dict) else None
        if said and each.get("id") is not None:
            found[str(each["id"])] = str(said)
    return found


def _optional(entries: list[dict[str, Any]], field: str, path: Path) -> pl.Series:
    if not any(field in entry for entry in entries):
        return pl.Series(field, [None] * len(entries), dtype=pl.String)
    return text_series(field, (entry.get(field) for entry in entries), path).replace("", None)


def _images(entries: list[dict[str, Any]], path: Path, licences: dict[str, str]) -> pl.DataFrame:
    ids = field_of(entries, "id", "images", path)
    bad = RejectReason.CORRUPT.value  # as marked by the authors of the list
    return pl.DataFrame(
        {
            "id": ids,
            "path": field_of(entries, "file_name", "images", path),
            "width": _sizes(entries, "width"),
            "height": _sizes(entries, "height"),
            "group": _groups(entries, path),
            "location": _optional(entries, "location", path),
            "taken": _optional(entries, "datetime", path),
            "rights_holder": _optional(entries, "rights_holder", path),
            "licence": _optional(entries, "license", path).replace(licences),
            "corrupt": [bad if entry.get("corrupt") is True else None for entry in entries],
        },
        schema_overrides={"corrupt": pl.String},
    )


def _sizes(entries: list[dict[str, Any]], field: str) -> pl.Series:
    """Return sizes in pixels; null where it is not a valid number."""
    values = (entry.get(field) for entry in entries)
    sizes = [v if isinstance(v, int) and 0 < v < 2**31 else None for v in values]
    return pl.Series(field, sizes, dtype=pl.Int32)


def _groups(entries: list[dict[str, Any]], path: Path) -> pl.Series:
    result = pl.Series("group", [None] * len(entries), dtype=pl.String)
    for field in _GROUP_FIELDS:
        if result.null_count():
            result = pl.select(pl.coalesce(result, _optional(entries, field, path))).to_series()
    return result.alias("group")


def _labels(entries: list[dict[str, Any]], image_ids: pl.Series, path: Path) -> pl.DataFrame:
    """Return one row an annotated image: id, its first label, how many different ones it has."""
    given = pl.DataFrame(
        {
            "id": field_of(entries, "image_id", "annotations", path) if entries else [],
            "taxon_id": field_of(entries, "category_id", "annotations", path) if entries else [],
        },
        schema={"id": pl.String, "taxon_id": pl.String},
    )
    strays = given.filter(~pl.col("id").is_in(image_ids.implode()))
    if not strays.is_empty():
        raise InputError(
            f"{path}: {strays.height:,} annotations are for images that are not in its list of images, "
            f"the first for image_id {strays['id'][0]}: remove them, or download the file again."
        )
    if not given["id"].is_duplicated().any():
        return given.with_columns(labels=pl.lit(1))
    return given.group_by("id", maintain_order=True).agg(
        pl.col("taxon_id").first(), labels=pl.col("taxon_id").n_unique()
    )


def categories_by_id(entries: list[dict[str, Any]], path: Path) -> Categories:
    """Return the categories by their ids, as text."""
    if not entries:
        return {}
    ids: list[str] = field_of(entries, "id", "categories", path).to_list()
    return dict(zip(ids, entries, strict=True))


def number_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Make ids unique: the second image with an id is rejected."""
    if not frame["id"].is_duplicated().any():
        return frame
    number = pl.int_range(pl.len()).over("id") + 1
    return frame.with_columns(
        id=pl.when(number == 1).then("id").otherwise(pl.format("{}#{}", "id", number)),
        taxon_id=pl.when(number == 1).then("taxon_id"),
        reason=pl.when(number == 1).then("reason").otherwise(pl.lit(RejectReason.DUPLICATE_ID.value)),
    )


def reject_invalid(rows: pl.DataFrame, categories: Categories) -> pl.DataFrame:
    """Reject photos outside of the folder or of an unknown category; they lose their label."""
    reasons = [pl.when(outside("path")).then(pl.lit(RejectReason.OUTSIDE.value))]
    if categories:
        known = pl.col("taxon_id").is_in(list(categories))
        reasons.append(pl.when(~known).then(pl.lit(RejectReason.UNKNOWN_CATEGORY.value)))
    rows = rows.with_columns(reason=pl.coalesce("reason", *reasons))
    return rows.with_columns(taxon_id=pl.when(pl.col("reason").is_null()).then("taxon_id"))


def taxonomy_of(rows: pl.DataFrame, categories: Categories, groups: Mapping[str, str]) -> Taxonomy:
    """Return the taxa in the order of their ids; without a list of categories, those that occur.

    `groups` are the supercategories of categories that have none of their own.
    """
    if not categories:
        categories = {key: {} for key in rows["taxon_id"].drop_nulls().unique()}
    return Taxonomy(
        _taxon(key, categories[key], groups.get(key, "")) for key in sorted(categories, key=_by_number)
    )


def frame_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Convert the rows to those of a photo table."""
    status = pl.when(pl.col("reason").is_null()).then(pl.lit(KEPT)).otherwise(pl.lit(REJECTED))
    return build_frame(dict(rows.with_columns(status=status).to_dict()))


def _by_number(key: str) -> tuple[bool, int, str]:
    return (False, int(key), "") if key.isdecimal() else (True, 0, key)


def _taxon(key: str, entry: Mapping[str, Any], group: str) -> Taxon:
    def text(field: str) -> str:
        value = entry.get(field)
        return "" if value is None else str(value).strip()

    name = text("name") or text("image_dir_name") or key
    ranks = {rank: text(rank) for rank in RANKS if text(rank)}
    pair = binomial(name)
    if "genus" in ranks and text("specific_epithet"):
        ranks["species"] = f"{ranks['genus']} {text('specific_epithet')}"
    elif pair and "species" not in ranks and ranks.get("genus", pair[0]) == pair[0]:
        ranks["species"] = pair[1]
    return Taxon(
        id=key,
        name=name,
        common_name=text("common_name"),
        supercategory=text("supercategory") or text("iconic_taxon_name") or group,
        ranks={rank: ranks[rank] for rank in RANKS if rank in ranks},
    )
