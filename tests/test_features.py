"""The feature store: what is put in comes out, whatever happens in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldmark.features.cache import _SOUND, FeatureCache, Features, FeatureStore
from fieldmark.features.cache_files import all_finite
from fieldmark.utils.errors import InputError, StoreError


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def vector(number: int, dim: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=dim).astype(np.float16)


def fill(cache: FeatureCache, numbers: list[int]) -> None:
    with cache.writing() as writer:
        rows = np.stack([vector(number, cache.dim) for number in numbers])
        writer.append([key(number) for number in numbers], rows)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=9), max_size=6))
def test_every_vector_comes_back_by_its_key(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    cache = FeatureStore(tmp_path_factory.mktemp("store")).cache("b", "p", 5)
    known: list[int] = []
    for batch in batches:
        fresh = [number for number in dict.fromkeys(batch) if number not in known]
        if fresh:
            fill(cache, fresh)
        known += fresh
    rows = cache.rows([key(number) for number in [*known, 99_999]])
    assert (rows[:-1] >= 0).all()
    assert rows[-1] == -1
    x = cache.get([key(number) for number in reversed(known)])[:]
    for got, number in zip(x, reversed(known), strict=True):
        np.testing.assert_array_equal(got, vector(number, 5).astype(np.float32))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("which", ["vectors.bin", "index.bin"])
def test_a_torn_batch_leaves_no_wrong_vector(tmp_path: Path, which: str, keep: float) -> None:
    cache = FeatureCache(tmp_path, 4, "float16")
    fill(cache, [1, 2])
    whole = (tmp_path / which).stat().st_size
    fill(cache, [3, 4])
    torn = whole + int(keep * ((tmp_path / which).stat().st_size - whole))
    os.truncate(tmp_path / which, torn)
    again = FeatureCache(tmp_path, 4, "float16")
    rows = again.rows([key(number) for number in (1, 2, 3, 4)])
    assert (rows[:2] >= 0).all()
    fill(again, [number for number, row in zip((1, 2, 3, 4), rows, strict=True) if row < 0])
    for number in (1, 2, 3, 4):
        np.testing.assert_array_equal(again.get([key(number)])[:][0], vector(number, 4))


def test_a_killed_writer_leaves_a_shelf_that_works(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import hashlib, numpy as np, sys
        from pathlib import Path
        from fieldmark.features.cache import FeatureCache
        with FeatureCache(Path({str(tmp_path)!r}), 8, "float16").writing() as writer:
            for number in range(10_000_000):
                vector = np.random.default_rng(number).normal(size=(1, 8)).astype(np.float16)
                writer.append([hashlib.sha256(str(number).encode()).hexdigest()], vector)
                print(number, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = -1
    for line in process.stdout:
        said = int(line)
        if said >= 20:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    cache = FeatureCache(tmp_path, 8, "float16")
    assert len(cache) >= said + 1  # nothing that was said to be written is lost
    fill(cache, [777_777])
    for number in [*range(said + 1), 777_777]:
        np.testing.assert_array_equal(cache.get([key(number)])[:][0], vector(number, 8))


def cut_off(folder: Path) -> Path:
    """A shelf with three synced rows and three more, as it lies there in the middle of writing."""
    cache, at = FeatureCache(folder / "shelf", 6, "float16"), folder / "after"
    fill(cache, [1, 2])
    with cache.writing() as writer:
        writer.append([key(3)], vector(3, 6)[None])
        writer.sync()
        writer.append([key(4), key(5)], np.stack([vector(4, 6), vector(5, 6)]))
        writer.append([key(6)], vector(6, 6)[None])
        shutil.copytree(cache.folder, at)
    assert sorted(path.name for path in cache.folder.glob("*.bin")) == [
        "index.bin",
        "sums.bin",
        "vectors.bin",
    ]
    return at


def test_a_kill_costs_nothing_that_was_appended(tmp_path: Path) -> None:
    at = cut_off(tmp_path)
    for cache in (FeatureCache(at, 6, "float16"), FeatureCache(tmp_path / "shelf", 6, "float16")):
        assert len(cache) == 6
        x_ND = cache.get([key(number) for number in range(1, 7)])[:]
        np.testing.assert_array_equal(x_ND, np.stack([vector(n, 6) for n in range(1, 7)]))


@pytest.mark.parametrize("lost", [b"zeros", b"", b"old"])
@pytest.mark.parametrize("which", ["vectors.bin", "index.bin", "sums.bin"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_power_cut_leaves_no_wrong_vector(tmp_path: Path, which: str, lost: bytes, rows: int) -> None:
    """The last rows of one file never came to the disk: its length did, or not, or old bytes did."""
    at = cut_off(tmp_path)
    size = {"vectors.bin": 12, "index.bin": 32, "sums.bin": 8}[which] * rows
    data = (at / which).read_bytes()
    left = data[:-size]
    rest = {b"zeros": bytes(size), b"old": bytes(range(1, 251)), b"": b""}[lost][:size]
    (at / which).write_bytes(left + rest)
    again = FeatureCache(at, 6, "float16")
    found = again.rows([key(number) for number in range(1, 7)])
    assert (found[:3] >= 0).all()  # those that were synced
    assert (found >= 0).sum() == 6 - rows
    fill(again, [7])
    fill(again, [number for number in range(1, 7) if found[number - 1] < 0])
    for cache in (again, FeatureCache(at, 6, "float16")):
        x_ND = cache.get([key(number) for number in range(1, 8)])[:]
        np.testing.assert_array_equal(x_ND, np.stack([vector(n, 6) for n in range(1, 8)]))


def test_rows_are_synced_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle))[1])
    with FeatureCache(tmp_path, 2, "float16").writing() as writer:
        synced.clear()
        writer.append([key(1)], vector(1, 2)[None])
        assert synced == []
        monkeypatch.setattr("fieldmark.features.cache_writer.SYNCED_EVERY", 0.0)
        writer.append([key(2)], vector(2, 2)[None])
        assert len(synced) == 3
        assert (tmp_path / "unsynced.bin").read_bytes() == np.uint64(2).tobytes()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 2, "float16")
    with (
        cache.writing(),
        pytest.raises(StoreError, match="in use"),
        FeatureCache(tmp_path, 2, "float16").writing(),
    ):
        pass


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path, 2, "float16")
    fill(cache, [1])
    real = os.write

    def full(handle: int, data: bytes) -> int:
        real(handle, bytes(data)[:1])
        raise OSError(28, "No space left on device")

    with cache.writing() as writer, monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match="No space left"):
            writer.append([key(2)], vector(2, 2)[None])
    assert cache.rows([key(1), key(2)]).tolist() == [0, -1]
    fill(cache, [3])
    np.testing.assert_array_equal(cache.get([key(3)])[:][0], vector(3, 2))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with FeatureCache(tmp_path, 2, "float16").writing() as writer:
        with pytest.raises(ValueError, match="dimension"):
            writer.append([key(1)], np.zeros((1, 3)))
        with pytest.raises(ValueError, match="finite"):
            writer.append([key(1)], np.array([[1e6, 0.0]]))
        with pytest.raises(ValueError, match="SHA-256"):
            writer.append(["abcd"], np.zeros((1, 2)))


def test_shelves_are_told_apart_by_what_they_were_computed_from(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    names = {
        store.cache(*key, 2, precision).folder.name  # type: ignore[arg-type]
        for key in [("a", "p"), ("b", "p"), ("a", "q")]
        for precision in ("float16", "float32")
    }
    assert len(names) == 6


def test_features_are_read_in_blocks_and_in_any_order() -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    features = Features.of(x).take(np.arange(9, -1, -1))
    np.testing.assert_array_equal(np.concatenate([b for _, b in features.blocks(3)]), x[::-1])
    assert [start for start, _ in features.blocks(3)] == [0, 3, 6, 9]


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    cache = FeatureStore(tmp_path).cache("weights", "crop", 3)
    alike = [key(0)[:16] + key(number)[16:] for number in range(3)]
    with cache.writing() as writer:
        writer.append([*alike[:2], key(7)], np.arange(9, dtype=np.float32).reshape(3, 3))
    assert cache.rows([alike[1], key(7), alike[2], alike[0], key(8)]).tolist() == [1, 2, -1, 0, -1]


def test_photos_in_the_order_of_the_shelf_are_found_like_any_others(tmp_path: Path) -> None:
    cache = FeatureStore(tmp_path).cache("weights", "crop", 3)
    fill(cache, list(range(10)))
    for numbers in ([*range(10)], [*range(3, 10)], [*range(4, 11)], [2, 3, 4, 5, 6, 8], [0] * 8, []):
        expected = [number if number < 10 else -1 for number in numbers]
        assert cache.rows([key(number) for number in numbers]).tolist() == expected
    whole = cache.rows([key(number) for number in range(10)])
    assert (whole.dtype, whole.shape) == (np.int64, (10,))


def test_every_half_precision_number_is_told_finite_or_not() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    told = [all_finite(every[[at]]) for at in range(len(every))]
    assert told == np.isfinite(every).tolist()


@pytest.mark.parametrize("which", ["vectors.bin", "index.bin", "sums.bin"])
@pytest.mark.parametrize("bit", [0, 7, 400, 511])
def test_a_flipped_bit_costs_its_row_alone(tmp_path: Path, which: str, bit: int) -> None:
    cache = FeatureCache(tmp_path, 8, "float16")
    fill(cache, [*range(8)])
    data = bytearray((tmp_path / which).read_bytes())
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    (tmp_path / which).write_bytes(data)
    _SOUND.clear()  # as in another process
    again = FeatureCache(tmp_path, 8, "float16")
    keys = [key(number) for number in range(8)]
    found = again.rows(keys)
    assert (found < 0).sum() == 1
    fill(again, np.flatnonzero(found < 0).tolist())
    for each in (again, FeatureCache(tmp_path, 8, "float16")):
        np.testing.assert_array_equal(each.get(keys)[:], np.stack([vector(n, 8) for n in range(8)]))
    _SOUND.clear()
    assert FeatureCache(tmp_path, 8, "float16").verify() == (which == "index.bin")  # whose key is of no photo


def test_verify_drops_damaged_rows(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 8, "float16")
    fill(cache, [*range(50)])
    raw = np.memmap(tmp_path / "vectors.bin", np.uint8, "r+")
    raw[16 * 3] ^= 1
    raw[16 * 40 :] ^= 4
    _SOUND.clear()
    again = FeatureCache(tmp_path, 8, "float16")
    assert (again.verify(), again.verify()) == (11, 0)
    assert (again.rows([key(number) for number in range(50)]) < 0).sum() == 11


def test_a_cache_without_checksums_gets_them_when_it_is_written_to(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 8, "float16")
    fill(cache, [1, 2, 3])
    (tmp_path / "sums.bin").unlink()
    _SOUND.clear()
    again = FeatureCache(tmp_path, 8, "float16")
    assert (again.rows([key(1), key(2), key(3)]) >= 0).all()
    fill(again, [4])
    np.memmap(tmp_path / "vectors.bin", np.uint8, "r+")[0] ^= 1
    _SOUND.clear()
    found = FeatureCache(tmp_path, 8, "float16").rows([key(number) for number in range(1, 5)])
    assert (found >= 0).tolist() == [False, True, True, True]


@pytest.mark.parametrize("at", range(3))
def test_a_segment_is_emptied_whatever_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """While its rows are moved: the next process leaves nothing of it behind."""
    cache = FeatureCache(tmp_path, 4, "float16")
    segment = cache.segment("1-of-1")
    fill(segment, [1, 2, 3])
    truncate, calls = os.truncate, iter(range(9))

    def stopped(path: Path, size: int) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt
        truncate(path, size)

    monkeypatch.setattr(os, "truncate", stopped)
    with pytest.raises(KeyboardInterrupt):
        cache.gather()
    monkeypatch.undo()
    cache.gather()
    sizes = {
        name: (segment.folder / name).stat().st_size for name in ("index.bin", "vectors.bin", "sums.bin")
    }
    assert not any(sizes.values()), sizes
    numbers = (1, 2, 3)
    found = cache.get([key(number) for number in numbers])[:]
    np.testing.assert_array_equal(found, np.stack([vector(number, 4) for number in numbers]))
