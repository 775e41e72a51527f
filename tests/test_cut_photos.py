"""JPEGs whose end is missing: how much of them is there, and what `predict` says of them."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fieldmark.data import images, readers
from fieldmark.data.boxes import Detection
from fieldmark.data.images import jpeg
from fieldmark.data.storage.places import Box, Boxed
from fieldmark.inference import checkpoint, clips, inputs
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils.errors import ImageRejected, RejectReason

LIMIT = images.MAX_PIXELS


def drawn(mode: str = "RGB", **options: Any) -> bytes:
    """A photo of 96 x 120 pixels, in which no two rows are alike."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[0:120, 0:96]
    waves = [100 + 80 * np.sin(rows / (4 + c) + columns / 9) + rng.normal(0, 9, rows.shape) for c in range(3)]
    file = io.BytesIO()
    picture = Image.fromarray(np.stack(waves, axis=2).clip(0, 255).astype(np.uint8)).convert(mode)
    picture.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("tail", [b"", b"\0" * 3000, b"\xff" * 3000], ids=["cut", "zeros", "ones"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 4},
        {"mode": "L"},
        {"mode": "CMYK"},
    ],
    ids=str,
)
def test_the_rows_that_count_are_those_of_the_whole_photo(options: dict[str, Any], tail: bytes) -> None:
    data = drawn(**options)
    whole, found = images.decode(data), []
    for length in range(700, len(data) - 2, 97):
        try:
            pixels, rows, _ = jpeg.decode_cut(data[:length] + tail, LIMIT)
        except (ImageRejected, ValueError):  # cut in its header
            assert length < 1500
            continue
        np.testing.assert_array_equal(pixels[:rows], whole[:rows])
        found.append(rows)
    assert found == sorted(found)
    assert len(set(found)) >= 6
    assert max(found) >= 90  # of 120: nearly all that is there counts


def test_half_of_the_photo_must_be_there() -> None:
    data = drawn()
    for length in range(0, len(data) - 2, 61):
        with pytest.raises(ImageRejected) as refused:
            images.verify(data[:length])  # for training and checks
        try:
            part = images.decode_cut(data[:length])
        except ImageRejected:
            assert length < 0.65 * len(data)
        else:
            assert refused.value.reason == RejectReason.TRUNCATED
            assert len(part) >= 60
            np.testing.assert_array_equal(part, images.decode(data)[: len(part)])


def test_a_photo_on_its_side_is_turned_before_it_is_cut() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rows are shown as columns, from the right
    data = drawn(exif=exif)
    part = images.decode_cut(data[: int(0.8 * len(data))])
    whole = images.decode(data)
    assert part.shape[0] == whole.shape[0] == 96
    np.testing.assert_array_equal(part, whole[:, -part.shape[1] :])


def test_a_box_counts_if_half_of_it_is_there() -> None:
    data = drawn()
    cut = data[: int(0.8 * len(data))]
    np.testing.assert_array_equal(
        images.decode_cut(cut, Box(0.2, 0.1, 0.4, 0.3)),
        images.boxes.pixels_in(images.decode(data), Box(0.2, 0.1, 0.4, 0.3)),
    )
    with pytest.raises(ImageRejected, match="0% of it"):
        images.decode_cut(cut, Box(0.2, 0.95, 0.04, 0.03))


def test_nothing_but_a_cut_jpeg_is_accepted() -> None:
    whole = drawn()
    middle = whole[:3000] + whole[3400:]  # a piece is missing, but not the end
    others = [whole, middle, drawn(progressive=True)[:-900], b"", b"\xff\xd8\xff", whole[:-900] + whole]
    for kind in ("PNG", "WEBP", "GIF"):
        file = io.BytesIO()
        Image.open(io.BytesIO(whole)).save(file, kind)
        others.append(file.getvalue()[:-100])
    for data in others:
        with pytest.raises(ImageRejected):
            images.decode_cut(data)


def test_damaged_bytes_are_refused_or_decoded_and_nothing_else() -> None:
    data, rng = drawn(), np.random.default_rng(5)
    for _ in range(300):
        bad = bytearray(data[: rng.integers(1, len(data))])
        for at in rng.integers(0, len(bad), 3):
            bad[at] = rng.integers(0, 256)
        with suppress(ImageRejected):
            assert images.decode_cut(bytes(bad)).shape[2] == 3


@pytest.mark.shared
def test_a_real_photo(shared: Path) -> None:
    folder = shared / "camera-traps" / "speciesnet"
    if not folder.is_dir():
        pytest.skip("the real photos of camera traps are not beside this checkout")
    part = images.read_cut(folder / "african_elephants_truncated_file.jpg")
    whole = images.decode((folder / "african_elephants.jpg").read_bytes())
    assert part.shape == (1326, 2048, 3)
    np.testing.assert_array_equal(part, whole[:1326])


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A whole photo, one with most of its rows, one with few."""
    folder, data = tmp_path / "traps", drawn()
    folder.mkdir()
    for name, share in (("a", 1.0), ("b", 0.8), ("c", 0.3)):
        (folder / f"{name}.jpg").write_bytes(data[: int(share * len(data))])
    return folder


def test_predictions_of_cut_photos_have_a_note(
    traps: Path, classifier: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = inputs.find_photos([traps])
    for name in ("o.jsonl", "o.csv", "o.parquet"):
        assert checkpoint.to_file(tmp_path / name, classifier, items, top=1) == 1
    assert "1 photo ends too early" in capsys.readouterr().err
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [each.get("note") for each in records] == [None, "truncated", None]
    assert [each.get("rejected") for each in records] == [None, None, "truncated"]
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text("utf-8-sig").splitlines()))
    assert [(row["file"][-5], row["note"]) for row in rows] == [
        *(("a", ""), ("b", "cut off: the part that is there was classified")),
        ("c", "cannot be used: truncated"),
    ]
    checkpoint.to_file(tmp_path / "o.csv", classifier, items, top=1, candidates=True)
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text("utf-8-sig").splitlines()))
    assert list(rows[0])[-2:] == ["rejected", "note"]
    assert {(row["file_name"][-5], row["rejected"], row["note"]) for row in rows} == {
        *(("a", "", ""), ("b", "", "truncated"), ("c", "truncated", ""))
    }
    assert pl.read_parquet(tmp_path / "o.parquet").columns[-1] == "note"
    checkpoint.to_file(tmp_path / "whole.csv", classifier, items[:1], top=1, candidates=True)
    assert (tmp_path / "whole.csv").read_text().splitlines()[0].endswith(",rejected")


def test_a_box_of_a_cut_photo_is_predicted_and_is_still_refused_for_training(
    traps: Path, classifier: Any
) -> None:
    place = Boxed(traps / "b.jpg", Box(0.2, 0.1, 0.4, 0.3))
    photo = InputPhoto("b.jpg", place, detection=Detection(place.box))
    [result] = clips.predict(classifier, [photo])
    assert result.note == "truncated"
    assert result.prediction is not None
    with pytest.raises(ImageRejected):  # no crop of it is in the cache
        images.read_bytes(place)
    assert readers.read(traps).reasons() == {"truncated": 2}
