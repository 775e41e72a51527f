"""The iNaturalist challenges of 2017 to 2021: JSON lists of images, annotations and categories.

The path is a folder with `train*.json`, `val*.json`, `test*.json` (each may end in `.gz`) and optionally
`categories.json`, or one such file. The years differ: 2019 has no `supercategory` but the group in the
path (`train_val2019/<group>/<category id>/<photo>`); width, height and licence may be missing; 2021 adds
`train_mini.json`, a subset of `train.json`, which is read only without it. An image without a label is
unlabelled in a list without labels (a test part), and rejected in any other.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import coco
from fieldmark.data.readers.base import Reader, no_photos, part_named
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar

_EXPECTS = "iNaturalist annotations (train*.json, val*.json, test*.json, or .json.gz)"

# The lists of boxes (2017) and of locations (2018) have the same names but no images.
_LISTING = re.compile(
    r"(?:public_|private_)?(train|validation|val|test)(?![a-z])(?!.*(?:bbox|location)).*\.json(\.gz)?",
    re.IGNORECASE,
)
_MINI = re.compile(r"train_mini\.json(\.gz)?", re.IGNORECASE)
_JSON = re.compile(r".*\.json(\.gz)?", re.IGNORECASE)


def annotation_files(folder: Path) -> list[Path]:
    """Return the lists of images in a folder, sorted: `train_mini` only without `train`."""
    found = sorted(path for path in folder.iterdir() if _LISTING.fullmatch(path.name))
    whole = [path for path in found if not _MINI.fullmatch(path.name)]
    return whole if any(part_of(path) == "train" for path in whole) else found


def part_of(path: Path) -> str | None:
    """Return the part of a list by its name; None for any other name."""
    match = _LISTING.fullmatch(path.name)
    return part_named(match[1]) if match else None


def _matches(path: Path) -> bool:
    if path.is_dir():
        return bool(annotation_files(path))
    if part_of(path) is None and coco.is_camera_traps(path):
        return False
    is_json = path.is_file() and _JSON.fullmatch(path.name) is not None
    return is_json and path.name != "datapackage.json"


def _read(path: Path) -> PhotoTable:
    root = path if path.is_dir() else path.parent
    listings = annotation_files(path) if path.is_dir() else [path]
    if not listings:
        raise InputError(f"{path} holds no annotation files: expected are {_EXPECTS}.")
    categories: coco.Categories = {}
    frames = []
    with progress_bar("Reading annotations", unit="images") as bar:
        for listing in listings:
            frame, named = coco.read_listing(listing, part_of(listing))
            categories |= named
            frames.append(frame)
            bar.advance(frame.height)
    # Published later: the true names of a challenge whose lists are obfuscated.
    for key, entry in _official_categories(root).items():
        categories[key] = {**categories.get(key, {}), **entry}
    rows = _unique_across(frames)
    if rows.is_empty():
        raise no_photos(path, "its list of images is empty")
    rows = coco.reject_invalid(rows, categories)
    taxonomy = coco.taxonomy_of(rows, categories, _groups_in_paths(rows))
    return PhotoTable(coco.frame_of(rows), taxonomy, root, READER.name)


def _official_categories(root: Path) -> coco.Categories:
    for name in ("categories.json", "categories.json.gz"):
        path = root / name
        if path.is_file():
            document = coco.load(path)
            if isinstance(document, list):
                document = {"categories": document}
            return coco.categories_by_id(coco.entries_of(document, "categories", path), path)
    return {}


def _unique_across(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate the rows and make ids unique.

    The second image with an id in one file is rejected. If two files share ids, because each counts from
    0, ids get the part as a prefix.
    """
    numbered = [coco.number_duplicates(frame) for frame in frames]
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


def _groups_in_paths(rows: pl.DataFrame) -> dict[str, str]:
    """Return the group of each category with photos in `<group>/<category id>/`."""
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


READER = Reader("inat", _EXPECTS, _matches, _read)
