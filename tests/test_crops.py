"""From photos to crops: in order, bounded in flight, and a bad photo stops nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from fieldmark.data import images, loader
from fieldmark.data.loader import CropCache, decoded
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.utils import io, threads
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason

SMALL = Preprocess(size=16, fit="squash")


def photos_of(folder: Path) -> list[PhotoFile]:
    return [PhotoFile(io.sha256(p.read_bytes()), p) for p in sorted(folder.rglob("*.jpg"))]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_crops_come_in_order_whatever_the_number_of_threads(insects: Path, workers: int) -> None:
    photos = photos_of(insects) * 3  # more than are in flight
    found = list(decoded(photos, SMALL, workers=workers))
    assert len(found) == len(photos)
    for photo, crop in zip(photos, found, strict=True):
        if isinstance(crop, ImageRejected):
            assert photo.path.name == "broken.jpg"
            assert crop.reason is RejectReason.TRUNCATED
        else:
            np.testing.assert_array_equal(crop, SMALL.crop(photo.path.read_bytes()))


def test_a_photo_that_is_gone_changed_or_unreadable_gives_its_reason(insects: Path, tmp_path: Path) -> None:
    good = photos_of(insects)[0]
    photos = [
        PhotoFile(good.sha256, tmp_path / "gone.jpg"),
        PhotoFile("0" * 64, good.path),
        PhotoFile(good.sha256, tmp_path),
        good,
    ]
    found = list(decoded(photos, SMALL))
    reasons = [each.reason if isinstance(each, ImageRejected) else None for each in found]
    assert reasons[0] is RejectReason.MISSING
    assert reasons[1] is RejectReason.CHANGED
    assert isinstance(found[2], ImageRejected)
    assert reasons[3] is None


def test_what_is_in_flight_is_bounded(insects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many photos there are, no more than `AHEAD` are read before one is taken."""
    read, lock = [0], threading.Lock()
    whole = images.read_bytes

    def counting(path: Path) -> bytes:
        with lock:
            read[0] += 1
        return whole(path)

    monkeypatch.setattr(loader.images, "read_bytes", counting)
    stream = decoded(photos_of(insects)[:1] * 1000, SMALL, workers=2)
    next(stream)
    stream.close()  # waits for what is under way, and begins nothing new
    assert 1 <= read[0] <= threads.AHEAD


def test_a_spool_holds_the_crops_and_the_reasons(insects: Path, cache: Path) -> None:
    photos = photos_of(insects)
    crop_cache = CropCache.empty(len(photos), 16)
    assert list(crop_cache.fill(photos, SMALL)) == list(range(len(photos)))
    assert [photos[number].path.name for number in crop_cache.rejected] == ["broken.jpg"]
    for number, photo in enumerate(photos):
        if number not in crop_cache.rejected:
            np.testing.assert_array_equal(crop_cache.crops[number], SMALL.crop(photo.path.read_bytes()))
    # The file has no name: nothing is left, whatever happens.
    assert not any(each.is_file() for each in cache.rglob("*"))


def test_a_spool_of_nothing() -> None:
    crop_cache = CropCache.empty(0, 16)
    assert crop_cache.crops.shape == (0, 16, 16, 3)
    assert list(crop_cache.fill([], SMALL)) == []


def test_no_room_for_the_spool_is_one_sentence() -> None:
    with pytest.raises(InputError, match="has no space"):
        CropCache.empty(10**9, 4096)


def test_a_cache_that_cannot_be_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="--cache"):
        CropCache.empty(1, 16)
