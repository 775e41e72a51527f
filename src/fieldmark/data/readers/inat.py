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
from fieldmark.data.readers.base import Reader, folder_of, part_named
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
    root = folder_of(path)
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
    return coco.to_photo_table(rows, categories, _groups_in_paths(rows), path, root, READER.name)


def _official_categories(root: Path) -> coco.Categories:
    places = (root / "categories.json", root / "categories.json.gz")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    document = coco.load(path)
    return coco.categories_of({"categories": document} if isinstance(document, list) else document, path)


def _unique_across(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate the rows and make ids unique.

    The second image with an id in one file is rejected. If two files share ids, because each counts from
    0, ids get the part as a prefix.
    """
    numbered = [coco.number_duplicates(frame) for frame in frames]
    rows = pl.concat(numbered)
    if not rows["id"].is_duplicated().any():
        return rows
    return pl.concat(
        frame.with_columns(id=pl.lit(f"{part}/") + pl.col("id"))
        for frame, part in zip(numbered, _prefixes(frames), strict=True)
    )


def _prefixes(frames: list[pl.DataFrame]) -> list[str]:
    parts = [str(frame["split"].first() or "list") for frame in frames]
    return [
        part if parts.count(part) == 1 else f"{part}{parts[:place].count(part) + 1}"
        for place, part in enumerate(parts)
    ]


def _groups_in_paths(rows: pl.DataFrame) -> dict[str, str]:
    """Return the group of each category with photos in `<group>/<category id>/`."""
    first = rows.drop_nulls("taxon_id").unique("taxon_id", keep="first", maintain_order=True)
    folders = {taxon: path.split("/")[-3:-1] for taxon, path in first.select("taxon_id", "path").iter_rows()}
    return {
        taxon: found[0].replace("_", " ")
        for taxon, found in folders.items()
        if len(found) == 2 and found[0] and found[1] == taxon
    }


READER = Reader("inat", _EXPECTS, _matches, _read)
