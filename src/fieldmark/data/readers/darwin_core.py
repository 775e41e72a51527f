"""Darwin Core Archives with occurrences as the core, as GBIF and iNaturalist export them.

A zip or the folder that it was unpacked to: `meta.xml`, a table of occurrences, and their photos as an
extension (Simple Multimedia, or Audubon Core) or as `associatedMedia`. Photos are named by URL; offline
copies are searched below the archive's folder (`offline_media`), and nothing is downloaded.

`meta.xml` describes the tables, see `fieldmark.data.darwin_core`. Each is read as a lazy frame, so that only
the needed columns are in memory.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fieldmark.data.darwin_core import KEY, META, Table, read_descriptor
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import offline_media, scientific_names, tabular
from fieldmark.data.readers.base import Reader, check_zip, first_reason, no_photos, table_errors
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.logging import progress_bar

logger = logging.getLogger(__name__)

_EXPECTS = "a Darwin Core Archive (a zip or folder with meta.xml, occurrences and their photos)"
_CORE = (
    *scientific_names.TERMS,
    *("identificationQualifier", "identificationVerificationStatus", "basisOfRecord"),
    *("vernacularName", "organismID", "associatedMedia", "eventDate"),
    *("license", "rightsHolder", "recordedBy"),
)
_MEDIA = ("identifier", "accessURI", "type", "format", "license", "rightsHolder", "creator")
_ROOM = 100
"""The largest ratio of an unpacked table to the zip; more is a zip bomb."""

# Qualifiers of uncertain names; others, such as "s. l.", qualify the extent of the taxon.
_DOUBT = r"(?i)\?|\b(?:cf|aff|nr|near|prob|probably|poss|possibly|perhaps|uncertain|sp|dub)\b"


def _archive_in(path: Path) -> Path | None:
    """Return the `meta.xml` or the zip of an archive; None for any other path."""
    if path.is_dir():
        about = path / META
        if about.is_file():
            return about
        zips = [each for each in sorted(path.iterdir()) if _is_zip(each)]
        return zips[0] if len(zips) == 1 else None
    if path.name == META and path.is_file():
        return path
    return path if _is_zip(path) else None


def _is_zip(path: Path) -> bool:
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return any(name.rpartition("/")[2] == META and name.count("/") < 2 for name in inside)


def _read(path: Path) -> PhotoTable:
    about = _archive_in(path)
    check_zip(path)
    if about is None:
        raise InputError(f"{path} is not a Darwin Core Archive: expected is {_EXPECTS}.")
    with progress_bar("Reading the archive", unit="photos") as bar:
        core, media = _tables(about)
        rows = tabular.add(media, core, on=KEY)
        bar.advance(rows.height)
    if media.is_empty():
        raise no_photos(path, f"none of its occurrences has a photo; expected is {_EXPECTS}")
    if lost := rows.height - rows.join(core, on=KEY, how="semi").height:
        if lost == rows.height:
            raise InputError(
                f"{path}: none of its {lost:,} photos belongs to an occurrence of the table: one of the "
                "two is incomplete, download the archive again."
            )
        logger.info(f"{lost:,} of {rows.height:,} photos belong to no occurrence of the table: unlabelled.")
    rows = rows.with_columns(number=pl.int_range(pl.len()).over(KEY) + 1)
    copies = offline_media.find_copies(about.parent, rows.select("identifier", KEY, "number"))
    doubtful = pl.col("identificationQualifier").str.contains(_DOUBT)
    # A machine observation is not uncertain by itself: camera traps make them, and people label them.
    unverified = pl.col("identificationVerificationStatus").str.to_lowercase() == "unverified"
    by_machine = pl.col("basisOfRecord").str.to_lowercase() == "machineobservation"
    given = rows.with_columns(label=scientific_names.label()).select(
        *scientific_names.ranks(),
        *("label", "licence", "rights_holder"),
        id=pl.format("{}_{}", KEY, "number"),
        taken="eventDate",
        file_name=copies,
        group=pl.coalesce("organismID", KEY),
        name=pl.col("label"),
        common_name=pl.col("vernacularName"),
        reason=first_reason(
            (pl.col("label").is_null(), RejectReason.NO_LABEL),
            (doubtful, RejectReason.UNCERTAIN_LABEL),
            (unverified & by_machine, RejectReason.MACHINE_LABEL),
        ),
    )
    return tabular.to_photo_table(given, path, about.parent, READER.name)


def _tables(about: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the occurrences that have photos, and the photos, both with the column `KEY`."""
    core, extension, folder = _described(about)
    with table_errors(f"{about}: a table could not be read"):
        scanned = scan(core, (KEY, *_CORE), folder)
        media = _pictures(extension, folder) if extension else _associated(scanned)
        wanted = media.select(KEY).unique().lazy()
        rows = scanned.join(wanted, on=KEY, how="semi").unique(KEY, keep="first")
        occurrences = rows.collect(engine="streaming")
    theirs = occurrences.select(KEY, "recordedBy", licence_core="license", holder_core="rightsHolder")
    pictures = tabular.add(media, theirs, on=KEY).select(
        *(KEY, "identifier"),
        licence=pl.coalesce("license", "licence_core"),
        rights_holder=pl.coalesce("rightsHolder", "creator", "holder_core", "recordedBy"),
    )
    return occurrences.drop("license", "rightsHolder"), pictures


def _described(about: Path) -> tuple[Table, Table | None, Path]:
    """Return the core, the extension with the photos, and the folder with their files."""
    zipped = about.suffix.lower() == ".zip"
    folder = io.unzip(about, {META: 2**20}) if zipped else about.parent
    core, extensions = read_descriptor(folder / META)
    if core.kind != "Occurrence":
        raise InputError(
            f"{about} is an archive of {core.kind or 'unnamed rows'}: only archives with occurrences "
            "as their core are read, such as GBIF's occurrence downloads."
        )
    extension = next((each for each in extensions if each.kind == "Multimedia"), None)
    wanted = (*core.files, *(extension.files if extension else ()))
    if zipped:
        folder = io.unzip(about, dict.fromkeys(wanted, _ROOM * about.stat().st_size + 2**20))
    if missing := next((file for file in wanted if not (folder / file).is_file()), None):
        named = " ".join(missing.split())  # in one line
        raise InputError(f"{about} lacks the table {named}: it is incomplete, download it again.")
    return core, extension, folder


def _pictures(extension: Table, folder: Path) -> pl.DataFrame:
    """Read the rows of the extension that are photos by their type or format, or have neither."""
    rows = scan(extension, (KEY, *_MEDIA), folder)
    rows = rows.with_columns(identifier=pl.coalesce("accessURI", "identifier"))
    kind, form = pl.col("type").str.to_lowercase(), pl.col("format").str.to_lowercase()
    still = kind.str.contains("image|photo") & ~kind.str.contains("moving|video")
    said = pl.when(kind.is_null()).then(form.str.starts_with("image")).otherwise(still)
    picture = said.fill_null(True) & ~form.str.contains("^(?:video|audio)").fill_null(False)
    found = rows.with_columns(picture=picture).collect(engine="streaming")
    kept = found.filter(pl.col("picture") & pl.col("identifier").is_not_null())
    if others := found.height - kept.height:
        logger.info(f"{others:,} sounds, videos or media without a URL are left out.")
    return kept.drop("picture", "accessURI", "type", "format")


def _associated(core: pl.LazyFrame) -> pl.DataFrame:
    """Read the photos in `associatedMedia`, separated by `|` (as Darwin Core recommends) or `;`."""
    apart = pl.col("associatedMedia").str.replace_all(r"\s*[|;]\s*", "|").str.split("|")
    lacking = [pl.lit(None, pl.String).alias(name) for name in _MEDIA if name != "identifier"]
    rows = core.filter(pl.col("associatedMedia").is_not_null())
    found = rows.select(KEY, identifier=apart).explode("identifier").with_columns(lacking)
    found = found.filter(pl.col("identifier").str.contains(r"(?i)\.(jpe?g|png|webp|gif|tiff?|bmp)"))
    return found.drop("accessURI", "type", "format").collect(engine="streaming")


def scan(table: Table, names: Sequence[str], folder: Path) -> pl.LazyFrame:
    """Scan some columns of a table's files in a folder as text; null where it does not have them."""
    frames = []
    for file in table.files:
        if table.end == "\n":
            tabular.check_complete(folder / file, table.separator, table.quote)
        rows = pl.scan_csv(
            folder / file,
            has_header=False,
            skip_rows=table.header,
            separator=table.separator,
            quote_char=table.quote,
            eol_char=table.end,
            infer_schema=False,
            raise_if_empty=False,
            glob=False,
        )
        there = rows.collect_schema().names()
        frames.append(rows.select(_column(table, name, there) for name in names))
    return pl.concat(frames)


def _column(table: Table, name: str, there: list[str]) -> pl.Expr:
    number = table.columns.get(name, len(there))
    if number >= len(there):
        return pl.lit(table.constants.get(name), pl.String).alias(name)
    text = pl.col(there[number]).str.strip_chars().replace("", None)
    return text.fill_null(pl.lit(table.constants.get(name), pl.String)).alias(name)


READER = Reader("darwin-core", _EXPECTS, _archive_in, _read, searches_folder=True)
