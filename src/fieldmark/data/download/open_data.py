"""Download a selection of photos from iNaturalist Open Data.

Layout of the bucket (https://github.com/inaturalist/inaturalist-open-data): `taxa`, `observations`,
`photos` and `observers.csv.gz` at the top, and `photos/PHOTO_ID/SIZE.EXTENSION`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from fieldmark.data import images
from fieldmark.data.download.archives import KIND, RECORD
from fieldmark.data.download.http import Downloads, NotAvailable, RetryPolicy, WrongContent, forget
from fieldmark.data.download.selection import PhotoQuery, choose
from fieldmark.data.readers import inat_tables
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.publishing import claimed
from fieldmark.utils.threads import in_order

_PHOTO_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Fetched:
    """The result of `fetch_open_data`."""

    table: Path  # to train on
    photos: int
    species: int
    failed: int  # photos that are not available


def fetch_open_data(
    wanted: PhotoQuery, out: Path, *, tables_dir: Path | None = None, retry_policy: RetryPolicy | None = None
) -> Fetched:
    """Select photos in the tables, download them, and write `photos.csv`.

    Args:
        wanted: which photos.
        out: a new folder, or that of an earlier run with the same query, which is resumed.
        tables_dir: the folder of the four tables, downloaded if missing; None: `tables` in `out`.
        retry_policy: limits of requests and retries.

    Raises:
        InputError: a table is not available or damaged, no photo matches, or the server does not answer; the
            next run resumes.
    """
    with claimed(out, KIND), Downloads(retry_policy or RetryPolicy()) as downloads:
        about = {"open data": io.from_json(io.to_json(asdict(wanted)))}
        record = out / RECORD
        if record.exists() and io.read_json(record) != about:
            raise InputError(f"{out} has photos of another query ({RECORD}): name a new folder with --out.")
        io.write_json(record, about)
        chosen = _chosen(wanted, out, tables_dir or out / "tables", downloads)
        failed = _photos(chosen, out, downloads)
        return _write(chosen, failed, out)


def _chosen(wanted: PhotoQuery, out: Path, folder: Path, downloads: Downloads) -> pl.DataFrame:
    """Return one row a photo to download; written once, so that a later run downloads the same."""
    path = out / "chosen.parquet"
    if path.exists():
        return pl.read_parquet(path)
    for name in inat_tables.NAMES:
        _table(name, folder, wanted.base, downloads)
    frame = choose(wanted, folder)
    io.write_table(path, frame)
    return frame


def _table(name: str, folder: Path, base: str, downloads: Downloads) -> None:
    path = folder / f"{name}.csv.gz"
    if path.exists():
        forget(path)
    else:
        with progress_bar(path.name, unit="MB") as bar:
            downloads.save(f"{base.rstrip('/')}/{path.name}", path, _check_gzip, bar.at)


def _check_gzip(part: Path) -> None:
    """The tables have no published checksum but gzip's own."""
    with part.open("rb") as handle:
        if handle.read(2) != b"\x1f\x8b":
            raise WrongContent("it is not gzip")


def _photos(chosen: pl.DataFrame, out: Path, downloads: Downloads) -> dict[str, str]:
    """Download missing photos; return the reason for each one that is not available, by file name."""
    rows = chosen.select("file_name", "url").rows()
    failed: dict[str, str] = {}

    def one(row: tuple[str, str]) -> None:
        name, url = row
        if not (path := out / name).exists():
            try:
                io.write_bytes(path, downloads.read(url, _a_picture, _PHOTO_LIMIT))
            except NotAvailable as error:
                failed[name] = str(error)

    with progress_bar("photos", len(rows)) as bar:
        for _ in in_order(one, rows, downloads.retry_policy.workers, ahead=0, stop=downloads.stop):
            bar.advance(note=f"{len(failed):,} not available" if failed else "")
    return failed


def _a_picture(data: bytes) -> bytes:
    try:
        images.verify(data)
    except ImageRejected as error:
        raise WrongContent(f"it is not a complete image: {error}") from error
    return data


def _write(chosen: pl.DataFrame, failed: dict[str, str], out: Path) -> Fetched:
    table, why_not = out / "photos.csv", out / "not-fetched.csv"
    lacking = pl.col("file_name").is_in(list(failed))
    had = chosen.filter(~lacking)
    if failed:
        reason = pl.col("file_name").replace_strict(failed, return_dtype=pl.String)
        io.write_text(why_not, chosen.filter(lacking).with_columns(reason=reason).write_csv())
    else:
        why_not.unlink(missing_ok=True)
    if had.is_empty():
        raise InputError(
            f"None of the {chosen.height:,} photos is available: see {why_not}; run the same command "
            "again later, or name a mirror with --from."
        )
    io.write_text(table, had.write_csv())
    return Fetched(table, had.height, had["label"].n_unique(), len(failed))
