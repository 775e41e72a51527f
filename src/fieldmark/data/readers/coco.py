"""Lists in COCO format: JSON with images, annotations and categories."""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.readers.base import binomial, first_reason, no_photos
from fieldmark.data.readers.tabular import add, numbered, outside
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)

# The group of an image: the first of these fields that it has.
_GROUP_FIELDS = ("seq_id", "observation_id", "observation_uuid", "location")

_TEXT_COLUMNS = (
    "id",
    "path",
    "taxon_id",
    "group",
    "split",
    "reason",
    "licence",
    "rights_holder",
    "location",
    "taken",
    "sequence",
    *DEGREES,
)
_ROW = dict.fromkeys(_TEXT_COLUMNS, pl.String()) | dict.fromkeys(("width", "height"), pl.Int32())

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
    """Read a JSON file, gzipped or not; `InputError` where it cannot be read, or is not JSON."""
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
    """Return the list of objects in a field of the document, or `InputError`; empty where it is missing."""
    value = document.get(field) if isinstance(document, dict) else ""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {field!r} must be a list of objects, as in {_EXPECTS}.")
    return value


def _field_of(entries: list[dict[str, Any]], field: str, kind: str, path: Path) -> pl.Series:
    """Return a required field of every entry as text; `InputError` where an entry lacks it."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get(field) is None:
            raise InputError(f"{path}: {kind}[{number}] has no {field}: add it, or remove the entry.")
    return _texts(field, (entry[field] for entry in entries), path)


def _optional(entries: list[dict[str, Any]], field: str, path: Path) -> pl.Series:
    if not any(field in entry for entry in entries):
        return pl.Series(field, [None] * len(entries), dtype=pl.String)
    return _texts(field, (entry.get(field) for entry in entries), path).replace("", None)


def _texts(name: str, values: Iterable[object], where: Path) -> pl.Series:
    """Convert values to a column of text; None stays null."""
    texts = [None if value is None else str(value) for value in values]
    try:
        return pl.Series(name, texts, dtype=pl.String)
    except UnicodeEncodeError as error:  # half of a surrogate pair
        message = f"{where}: a value of {name} is not valid Unicode ({error.object!r}): correct it."
        raise InputError(message) from error


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
        logger.info(
            f"{path.name} has boxes: a label is that of the whole photo, unless --boxes names the file."
        )
    labels = _labels(annotations, images["id"], path)
    cases = [(pl.col("corrupt"), RejectReason.CORRUPT)]  # as marked by the authors of the list
    if not labels.is_empty():
        cases.append((pl.col("labels").is_null(), RejectReason.NO_LABEL))
        cases.append((pl.col("labels") > 1, RejectReason.AMBIGUOUS_LABEL))
    rows = add(images, labels, on="id")
    rows = rows.with_columns(reason=first_reason(*cases))
    rows = rows.select(pl.col(name).cast(dtype) for name, dtype in _ROW.items())
    return rows, categories_of(document, path)


def _licences(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Return the name or URL of each numbered licence."""
    known = [each for each in entries if isinstance(each, dict) and each.get("id") is not None]
    named = ((each["id"], each.get("name") or each.get("url")) for each in known)
    return {str(number): str(name) for number, name in named if name}


def _images(entries: list[dict[str, Any]], path: Path, licences: dict[str, str]) -> pl.DataFrame:
    fields = {"location": "location", "taken": "datetime", "rights_holder": "rights_holder"}
    fields |= {"sequence": "seq_id", **{name: name for name in DEGREES}}
    return pl.DataFrame(
        {
            "id": _field_of(entries, "id", "images", path),
            "path": _field_of(entries, "file_name", "images", path),
            **{side: _sizes(entries, side) for side in ("width", "height")},
            "group": pl.select(pl.coalesce(_optional(entries, f, path) for f in _GROUP_FIELDS)).to_series(),
            **{name: _optional(entries, field, path) for name, field in fields.items()},
            "licence": _optional(entries, "license", path).replace(licences),
            "corrupt": pl.Series([entry.get("corrupt") is True for entry in entries], dtype=pl.Boolean),
        }
    )


def _sizes(entries: list[dict[str, Any]], field: str) -> pl.Series:
    """Return sizes in pixels; null where it is not a valid number."""
    values = (entry.get(field) for entry in entries)
    sizes = [v if isinstance(v, int) and 0 < v < 2**31 else None for v in values]
    return pl.Series(field, sizes, dtype=pl.Int32)


def _labels(entries: list[dict[str, Any]], image_ids: pl.Series, path: Path) -> pl.DataFrame:
    """Return one row an annotated image: id, its first label, how many different ones it has."""
    fields = {"id": "image_id", "taxon_id": "category_id"}
    given = pl.DataFrame({name: _field_of(entries, f, "annotations", path) for name, f in fields.items()})
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


def categories_of(document: Any, path: Path) -> Categories:
    """Return the categories of a document by their ids, as text."""
    entries = entries_of(document, "categories", path)
    return dict(zip(_field_of(entries, "id", "categories", path), entries, strict=True))


def number_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Make ids unique: the second image with an id is rejected."""
    if not frame["id"].is_duplicated().any():
        return frame
    first = pl.col("id").is_first_distinct()
    return frame.with_columns(
        id=numbered("id"),
        taxon_id=pl.when(first).then("taxon_id"),
        reason=pl.when(first).then("reason").otherwise(pl.lit(RejectReason.DUPLICATE_ID.value)),
    )


def to_photo_table(
    rows: pl.DataFrame, categories: Categories, groups: Mapping[str, str], path: Path, root: File, source: str
) -> PhotoTable:
    """Convert the rows of lists to a photo table.

    Photos outside of the folder or of an unknown category are rejected. The taxa are in the order of
    their ids; without a list of categories, those that occur. `groups` are the supercategories of
    categories that have none of their own.
    """
    if rows.is_empty():
        raise no_photos(path, "its list of images is empty")
    cases = [(outside("path"), RejectReason.OUTSIDE)]
    if categories:
        cases.append((~pl.col("taxon_id").is_in(list(categories)), RejectReason.UNKNOWN_CATEGORY))
    rows = rows.with_columns(reason=pl.coalesce("reason", first_reason(*cases)))
    rows = rows.with_columns(taxon_id=pl.when(pl.col("reason").is_null()).then("taxon_id"))
    categories = categories or {key: {} for key in rows["taxon_id"].drop_nulls().unique()}
    taxa = (_taxon(key, categories[key], groups.get(key, "")) for key in sorted(categories, key=_by_number))
    return PhotoTable(build_frame(rows), Taxonomy(taxa), root, source)


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
