"""The iNaturalist challenges of 2017 to 2021: JSON lists of images, annotations and categories.

Read is a folder with `train*.json`, `val*.json`, `test*.json` (each may end in `.gz`) and perhaps
`categories.json`, or one such file. The years differ: 2019 has no `supercategory` and keeps the group
in the path (`train_val2019/<group>/<category id>/<photo>`); width, height and licence may be missing;
2021 adds `train_mini.json`, a part of `train.json`, which is read only where that is not there. An image
without a label is unlabelled in a list that has no labels (a test part), and rejected in any other.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.errors import InputError, RejectReason
from fieldmark.photos import KEPT, REJECTED, PhotoTable, build_frame
from fieldmark.progress import stage
from fieldmark.sources.base import Source, binomial, no_photos, part_named, text_series
from fieldmark.taxonomy import RANKS, Taxon, Taxonomy

_EXPECTS = "iNaturalist annotations (train*.json, val*.json, test*.json, or .json.gz)"

# The lists of boxes (2017) and of places (2018) carry the same names but hold no images.
_LISTING = re.compile(
    r"(?:public_|private_)?(train|validation|val|test)(?![a-z])(?!.*(?:bbox|location)).*\.json(\.gz)?",
    re.IGNORECASE,
)
_MINI = re.compile(r"train_mini\.json(\.gz)?", re.IGNORECASE)
_JSON = re.compile(r".*\.json(\.gz)?", re.IGNORECASE)

# What photos have in common that must stay on one side of a split, the first that an image has.
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
}

_Categories = dict[str, Mapping[str, Any]]


def annotation_files(folder: Path) -> list[Path]:
    """The lists of images in a folder, sorted: `train_mini` is left out beside a whole `train`."""
    found = sorted(path for path in folder.iterdir() if _LISTING.fullmatch(path.name))
    whole = [path for path in found if not _MINI.fullmatch(path.name)]
    return whole if any(_part(path) == "train" for path in whole) else found


def _part(path: Path) -> str | None:
    match = _LISTING.fullmatch(path.name)
    return part_named(match[1]) if match else None


def _matches(path: Path) -> bool:
    if path.is_dir():
        return bool(annotation_files(path))
    is_json = path.is_file() and _JSON.fullmatch(path.name) is not None
    return is_json and path.name != "datapackage.json"


def _read(path: Path) -> PhotoTable:
    root = path if path.is_dir() else path.parent
    listings = annotation_files(path) if path.is_dir() else [path]
    if not listings:
        raise InputError(f"{path} holds no annotation files: expected are {_EXPECTS}.")
    categories: _Categories = {}
    frames = []
    with stage("Reading annotations", unit="images") as bar:
        for listing in listings:
            frame, named = _read_listing(listing)
            categories |= named
            frames.append(frame)
            bar.advance(frame.height)
    # Later and by the official hand: the true names of a challenge whose lists are obfuscated.
    for key, entry in _official_categories(root).items():
        categories[key] = {**categories.get(key, {}), **entry}
    rows = _unique_across(frames)
    if rows.is_empty():
        raise no_photos(path, "its list of images is empty")
    rows = _within(rows, categories)
    taxonomy = _taxonomy(rows, categories)
    status = pl.when(pl.col("reason").is_null()).then(pl.lit(KEPT)).otherwise(pl.lit(REJECTED))
    columns = rows.with_columns(status=status).to_dict()
    return PhotoTable(build_frame(dict(columns)), taxonomy, root, SOURCE.name)


def _load(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        return json.loads(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} could not be read ({error}): fetch it anew.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): fetch it anew.") from error


def _entries(document: Any, field: str, path: Path) -> list[dict[str, Any]]:
    value = document.get(field, []) if isinstance(document, dict) else None
    if value is None and isinstance(document, dict):
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {field!r} has to be a list of objects, as in {_EXPECTS}.")
    return value


def _field(entries: list[dict[str, Any]], field: str, kind: str, path: Path) -> pl.Series:
    """One field of every entry as text; it has to be there.

    Raises:
        InputError: names the first entry that lacks it.
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
    raise InputError(f"{path}: {kind}[{number}] has no {field}: add it, or take the entry out.")


def _read_listing(path: Path) -> tuple[pl.DataFrame, _Categories]:
    document = _load(path)
    if not isinstance(document, dict) or "images" not in document:
        raise InputError(f"{path} has no field 'images': expected are {_EXPECTS}.")
    images = _images(_entries(document, "images", path), path)
    document["images"] = None  # a million dictionaries weigh more than all that follows
    labels = _labels(_entries(document, "annotations", path), images["id"], path)
    categories = _by_id(_entries(document, "categories", path), path)
    if labels.is_empty():
        unlabelled = images.with_columns(taxon_id=pl.lit(None), reason=pl.lit(None))
        return unlabelled.select(_cast()), categories
    rows = images.join(labels, on="id", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("labels").is_null())
        .then(pl.lit(RejectReason.NO_LABEL.value))
        .when(pl.col("labels") > 1)
        .then(pl.lit(RejectReason.AMBIGUOUS_LABEL.value)),
    )
    return rows.select(_cast()), categories


def _cast() -> list[pl.Expr]:
    return [pl.col(name).cast(dtype) for name, dtype in _ROW.items()]


def _images(entries: list[dict[str, Any]], path: Path) -> pl.DataFrame:
    ids = _field(entries, "id", "images", path)
    return pl.DataFrame(
        {
            "id": ids,
            "path": _field(entries, "file_name", "images", path),
            "width": _sizes(entries, "width"),
            "height": _sizes(entries, "height"),
            "group": _groups(entries, path),
        }
    ).with_columns(split=pl.lit(_part(path), dtype=pl.String))


def _sizes(entries: list[dict[str, Any]], field: str) -> pl.Series:
    """A size in pixels; whatever is not a sensible number is unknown."""
    values = (entry.get(field) for entry in entries)
    sizes = [v if isinstance(v, int) and 0 < v < 2**31 else None for v in values]
    return pl.Series(field, sizes, dtype=pl.Int32)


def _groups(entries: list[dict[str, Any]], path: Path) -> pl.Series:
    result = pl.Series("group", [None] * len(entries), dtype=pl.String)
    for field in _GROUP_FIELDS:
        if result.null_count() and any(field in entry for entry in entries):
            values = text_series(field, (entry.get(field) for entry in entries), path)
            result = pl.select(pl.coalesce(result, values.replace("", None))).to_series()
    return result.alias("group")


def _labels(entries: list[dict[str, Any]], image_ids: pl.Series, path: Path) -> pl.DataFrame:
    """A row an image that is annotated: id, its first label, how many different ones it has."""
    given = pl.DataFrame(
        {
            "id": _field(entries, "image_id", "annotations", path) if entries else [],
            "taxon_id": _field(entries, "category_id", "annotations", path) if entries else [],
        },
        schema={"id": pl.String, "taxon_id": pl.String},
    )
    strays = given.filter(~pl.col("id").is_in(image_ids.implode()))
    if not strays.is_empty():
        raise InputError(
            f"{path}: {strays.height:,} annotations are for images that are not in its list of images, "
            f"the first for image_id {strays['id'][0]}: take them out, or fetch the file anew."
        )
    if not given["id"].is_duplicated().any():
        return given.with_columns(labels=pl.lit(1))
    return given.group_by("id", maintain_order=True).agg(
        pl.col("taxon_id").first(), labels=pl.col("taxon_id").n_unique()
    )


def _by_id(entries: list[dict[str, Any]], path: Path) -> _Categories:
    if not entries:
        return {}
    ids: list[str] = _field(entries, "id", "categories", path).to_list()
    return dict(zip(ids, entries, strict=True))


def _official_categories(root: Path) -> _Categories:
    for name in ("categories.json", "categories.json.gz"):
        path = root / name
        if path.is_file():
            document = _load(path)
            if isinstance(document, list):
                document = {"categories": document}
            return _by_id(_entries(document, "categories", path), path)
    return {}


def _unique_across(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """All rows under ids that are unique.

    An id that one file uses twice is a defect: the second image is rejected. Two files that count
    their images from 0 each are not: there the part goes before every id.
    """
    numbered = [_unique_within(frame) for frame in frames]
    rows = pl.concat(numbered)
    if rows["id"].is_duplicated().any():
        rows = pl.concat(
            frame.with_columns(id=pl.concat_str(pl.lit(f"{part}/"), "id"))
            for frame, part in zip(numbered, _prefixes(frames), strict=True)
        )
    return rows


def _prefixes(frames: list[pl.DataFrame]) -> list[str]:
    parts = [str(frame["split"].first() or "list") for frame in frames]
    return [
        part if parts.count(part) == 1 else f"{part}{parts[:place].count(part) + 1}"
        for place, part in enumerate(parts)
    ]


def _unique_within(frame: pl.DataFrame) -> pl.DataFrame:
    if not frame["id"].is_duplicated().any():
        return frame
    number = pl.int_range(pl.len()).over("id") + 1
    return frame.with_columns(
        id=pl.when(number == 1).then("id").otherwise(pl.format("{}#{}", "id", number)),
        taxon_id=pl.when(number == 1).then("taxon_id"),
        reason=pl.when(number == 1)
        .then("reason")
        .otherwise(pl.lit(RejectReason.DUPLICATE_ID.value)),
    )


def _within(rows: pl.DataFrame, categories: _Categories) -> pl.DataFrame:
    """Reject photos of a category that is not listed; rejected photos lose their label."""
    if categories:
        known = pl.col("taxon_id").is_in(list(categories))
        rows = rows.with_columns(
            reason=pl.coalesce(
                "reason",
                pl.when(~known).then(pl.lit(RejectReason.UNKNOWN_CATEGORY.value)),
            )
        )
    return rows.with_columns(taxon_id=pl.when(pl.col("reason").is_null()).then("taxon_id"))


def _taxonomy(rows: pl.DataFrame, categories: _Categories) -> Taxonomy:
    """The taxa in the order of their ids; without any list of categories, those that occur."""
    if not categories:
        categories = {key: {} for key in rows["taxon_id"].drop_nulls().unique()}
    groups = _groups_in_paths(rows)
    return Taxonomy(
        _taxon(key, categories[key], groups.get(key, ""))
        for key in sorted(categories, key=_by_number)
    )


def _by_number(key: str) -> tuple[bool, int, str]:
    return (False, int(key), "") if key.isdecimal() else (True, 0, key)


def _groups_in_paths(rows: pl.DataFrame) -> dict[str, str]:
    """The group of each category whose photos lie under `<group>/<category id>/`."""
    parts = pl.col("path").str.extract_groups(r"(?P<group>[^/]+)/(?P<category>[^/]+)/[^/]+$").struct
    found = (
        rows.lazy()
        .filter(pl.col("taxon_id").is_not_null())
        .unique("taxon_id", keep="first", maintain_order=True)
        .select("taxon_id", group=parts.field("group"), category=parts.field("category"))
        .filter(pl.col("category") == pl.col("taxon_id"))
        .select("taxon_id", "group")
        .collect()
    )
    return {taxon: group.replace("_", " ") for taxon, group in found.iter_rows()}


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


SOURCE = Source("inat", _EXPECTS, _matches, _read)
