"""`check` finds photos whose time cannot be right."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from PIL import Image

from fieldmark.curation.clocks import wrong_clocks
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.taxonomy import Taxonomy


def clocks(tmp_path: Path, *times: str | None, folder: str = "a", **more: str) -> list[str | None]:
    rows = [{"id": str(n), "path": f"{folder}/IMG_{n}.jpg", "taken": t} | more for n, t in enumerate(times)]
    frame = build_frame(pl.DataFrame(rows, schema_overrides={"taken": pl.String}))
    return wrong_clocks(PhotoTable(frame, Taxonomy(()), tmp_path, "folder")).to_list()


def test_times_that_cannot_be_right(tmp_path: Path) -> None:
    early, later = "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
    assert clocks(tmp_path, early, "2020-01-01T10:00:00Z", later, None, "2020-01-02") == [
        *("early", None, "future", None, None)
    ]


def test_a_clock_that_was_set_back_jumps_by_the_numbers_of_the_names(tmp_path: Path) -> None:
    days = [f"2020-03-{day:02d}T10:00:00Z" for day in range(1, 13)]
    assert clocks(tmp_path, *days) == [None] * 12
    back = [*days[:10], "2015-01-01T00:00:00Z", "2015-01-01T00:01:00Z", "2020-03-11T00:00:00Z"]
    assert clocks(tmp_path, *back) == [None] * 10 + ["jump", "jump", None]
    hour = [*days[:3], "2020-03-03T09:00:00Z"]  # an hour is the end of summer time
    assert clocks(tmp_path, *hour) == [None] * 4
    assert clocks(tmp_path, *reversed(days)) == [None] * 12  # the names do not follow the time


def test_the_time_is_read_from_the_photo_where_the_list_has_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2000:01:01 00:00:00"
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "IMG_0.jpg", exif=exif)
    assert clocks(tmp_path, None, None) == ["early", None]
