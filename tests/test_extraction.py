"""Extraction: only what is missing is computed, each photo is decoded once, nothing is wrong."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fieldmark import models
from fieldmark.data import images, loader
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import FeatureCache, FeatureStore
from fieldmark.features.extraction import COSTLY, Extraction, Job, extract, seconds_for
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import runtime
from fieldmark.models.runtime import Engine
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.io import sha256

SMALL = Preprocess(size=16, fit="squash")
DIM = 5


class Counting:
    """An engine whose features are a function of the crop, and which counts what it is given."""

    name = "counting"

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen = 0

    def __call__(self, crops_NSS3: np.ndarray) -> np.ndarray:
        self.seen += len(crops_NSS3)
        return features_of(crops_NSS3) * np.float32(self.factor)


def features_of(crops_NSS3: np.ndarray, dim: int = DIM) -> np.ndarray:
    flat = crops_NSS3.reshape(len(crops_NSS3), -1).astype(np.float32)
    return np.stack([flat[:, start::dim].mean(1) for start in range(dim)], axis=1)


def photos_of(folder: Path) -> list[PhotoFile]:
    return [PhotoFile(sha256(p.read_bytes()), p) for p in sorted(folder.rglob("*.jpg"))]


def job(store: FeatureStore, name: str, engine: Counting, cost: float = 1.0) -> Job:
    return Job(name, store.cache(name, SMALL.key(), DIM, "float32"), cost, lambda: engine)


def check(cache: FeatureCache, photos: list[PhotoFile], factor: float) -> None:
    """Every vector is that of its own photo."""
    x_ND = cache.get([photo.sha256 for photo in photos])[:]
    expected = features_of(np.stack([SMALL.crop(p.path.read_bytes()) for p in photos])) * factor
    np.testing.assert_array_equal(x_ND, expected.astype(np.float32))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def good(insects: Path) -> list[PhotoFile]:
    return [photo for photo in photos_of(insects) if photo.path.name != "broken.jpg"]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read while the test ran."""
    count: Counter[str] = Counter()
    whole = images.read_bytes

    def counting(path: Path) -> bytes:
        count[path.name + path.parent.name] += 1
        return whole(path)

    monkeypatch.setattr(loader.images, "read_bytes", counting)
    return count


def run(photos: list[PhotoFile], jobs: list[Job], **how: int) -> tuple[list[str], Extraction]:
    done: list[str] = []

    def complete(name: str, _: Extraction) -> None:
        done.append(name)

    result = extract(photos, jobs, SMALL, Extraction(), on_complete=complete, **how)
    return done, result


@pytest.mark.parametrize("cache_bytes", [2**30, 1])
def test_each_photo_is_decoded_once_for_all_networks(
    good: list[PhotoFile], store: FeatureStore, decodes: Counter[str], cache_bytes: int
) -> None:
    """Whether or not all crops fit the crop cache; the cheapest network is ready first."""
    engines = [Counting(2.0), Counting(-1.0), Counting(0.5)]
    jobs = [job(store, f"n{i}", engines[i], cost) for i, cost in enumerate((1.9, 0.1, 1.0))]
    done, result = run(good, jobs, cache_bytes=cache_bytes)
    assert done == ["n1", "n2", "n0"]
    assert len(decodes) == len(good)
    assert set(decodes.values()) == {1}
    for each, engine in zip(jobs, engines, strict=True):
        assert engine.seen == len(good) == result.computed[each.name]
        check(each.cache, good, engine.factor)


def test_a_costly_network_does_not_delay_the_others(
    good: list[PhotoFile], store: FeatureStore, decodes: Counter[str]
) -> None:
    """Where not all crops fit: it begins when the others are complete, and photos are decoded for it anew."""
    engines = [Counting(2.0), Counting(-1.0), Counting(0.5)]
    jobs = [job(store, f"n{i}", engines[i], cost) for i, cost in enumerate((COSTLY, 0.1, 0.2))]
    seen: dict[str, int] = {}
    extract(
        good,
        jobs,
        SMALL,
        Extraction(),
        on_complete=lambda name, _: seen.update({name: engines[0].seen}),
        cache_bytes=1,
    )
    assert seen == {"n1": 0, "n2": 0, "n0": len(good)}
    assert set(decodes.values()) == {2}
    for each, engine in zip(jobs, engines, strict=True):
        check(each.cache, good, engine.factor)


def test_a_job_is_ready_only_when_its_shelf_is_complete(good: list[PhotoFile], store: FeatureStore) -> None:
    jobs = [job(store, "a", Counting(1.0), 1.0), job(store, "b", Counting(2.0), 2.0)]
    done: list[str] = []

    def complete(name: str, _: Extraction) -> None:
        cache = next(each.cache for each in jobs if each.name == name)
        assert (cache.rows([photo.sha256 for photo in good]) >= 0).all()
        done.append(name)

    extract(good, jobs, SMALL, Extraction(), on_complete=complete, cache_bytes=1)
    assert done == ["a", "b"]


def test_what_is_kept_is_not_computed_again(
    good: list[PhotoFile], store: FeatureStore, decodes: Counter[str]
) -> None:
    first, again = Counting(1.0), Counting(1.0)
    run(good, [job(store, "a", first)])
    decodes.clear()
    done, result = run(good, [job(store, "a", again)])
    assert done == ["a"]
    assert (again.seen, result.computed, decodes) == (0, {}, Counter())


def test_a_kept_shelf_asks_for_no_engine(good: list[PhotoFile], store: FeatureStore) -> None:
    run(good, [job(store, "a", Counting(1.0))])

    def refuse() -> Counting:
        raise AssertionError("the engine is not needed")

    cache = store.cache("a", SMALL.key(), DIM, "float32")
    assert run(good, [Job("a", cache, 1.0, refuse)])[0] == ["a"]


def test_a_new_photo_and_a_new_network_compute_only_what_is_missing(
    good: list[PhotoFile], store: FeatureStore, decodes: Counter[str]
) -> None:
    run(good[:50], [job(store, "a", Counting(1.0))])
    decodes.clear()
    more = Counting(1.0)
    run(good, [job(store, "a", more)])
    assert more.seen == len(good) - 50 == len(decodes)
    other, same = Counting(3.0), Counting(1.0)
    jobs = [job(store, "a", same, 1.0), job(store, "b", other, 2.0)]
    done, _ = run(good, jobs)
    assert (same.seen, other.seen) == (0, len(good))
    assert done == ["a", "b"]
    check(jobs[0].cache, good, 1.0)
    check(jobs[1].cache, good, 3.0)


def test_networks_that_lack_different_photos_get_what_they_lack(
    good: list[PhotoFile], store: FeatureStore, decodes: Counter[str]
) -> None:
    run(good[:20], [job(store, "a", Counting(1.0))])
    run(good[10:40], [job(store, "b", Counting(2.0))])
    decodes.clear()
    a, b = Counting(1.0), Counting(2.0)
    jobs = [job(store, "a", a, 1.0), job(store, "b", b, 2.0)]
    run(good[:40], jobs)
    assert (a.seen, b.seen, len(decodes)) == (20, 10, 30)
    check(jobs[0].cache, good[:40], 1.0)
    check(jobs[1].cache, good[:40], 2.0)


def test_the_same_photo_twice_is_computed_once(
    good: list[PhotoFile], store: FeatureStore, tmp_path: Path
) -> None:
    shutil.copy(good[0].path, tmp_path / "twin.jpg")
    twin = PhotoFile(good[0].sha256, tmp_path / "twin.jpg")
    engine = Counting(1.0)
    run([*good[:3], twin, good[1]], [job(store, "a", engine)])
    assert engine.seen == 3


def test_rejected_photos_are_named_with_their_reasons_and_stop_nothing(
    insects: Path, good: list[PhotoFile], store: FeatureStore, tmp_path: Path
) -> None:
    shutil.copy(good[0].path, tmp_path / "changed.jpg")
    changed = PhotoFile(sha256((tmp_path / "changed.jpg").read_bytes()[:-1]), tmp_path / "changed.jpg")
    gone = PhotoFile("ab" * 32, tmp_path / "gone.jpg")
    photos = [changed, *photos_of(insects), gone]
    each = job(store, "a", Counting(1.0))
    done, result = run(photos, [each, job(store, "b", Counting(1.0), 2.0)])
    assert done == ["a", "b"]
    broken = next(p for p in photos_of(insects) if p.path.name == "broken.jpg")
    assert {digest: error.reason for digest, error in result.rejected.items()} == {
        changed.sha256: RejectReason.CHANGED,
        gone.sha256: RejectReason.MISSING,
        broken.sha256: RejectReason.TRUNCATED,
    }
    check(each.cache, good, 1.0)
    assert (each.cache.rows(list(result.rejected)) == -1).all()


def test_a_whole_chunk_of_bad_photos(store: FeatureStore, tmp_path: Path) -> None:
    photos = [PhotoFile(f"{number:064x}", tmp_path / "gone.jpg") for number in range(70)]
    engine = Counting(1.0)
    done, result = run(photos, [job(store, "a", engine)], cache_bytes=1)
    assert done == ["a"]
    assert (len(result.rejected), engine.seen) == (70, 0)


def test_no_photos(store: FeatureStore) -> None:
    assert run([], [job(store, "a", Counting(1.0))])[0] == ["a"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_one_sentence_and_are_not_kept(
    good: list[PhotoFile], tmp_path: Path, value: float
) -> None:
    """Weights that do not fit a network blow up."""

    class Bad(Counting):
        def __call__(self, crops_NSS3: np.ndarray) -> np.ndarray:
            x_ND = super().__call__(crops_NSS3)
            x_ND[-1, 0] = value
            return x_ND

    cache = FeatureStore(tmp_path / "half").cache("bad", SMALL.key(), DIM, "float16")
    with pytest.raises(InputError, match="bad"):
        run(good, [Job("bad", cache, 1.0, lambda: Bad(1.0))])
    assert len(cache) == 0


def test_features_beyond_float16_are_kept_in_float32(
    good: list[PhotoFile], store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float16 ends at 65,504. A network that is complete is reported once, though another begins again."""
    backbones = {
        name: models.load("squeezenet1_1", weights="random", seed=len(name)) for name in ("a", "wide")
    }
    dim = backbones["a"].architecture.feature_dim

    def engine(backbone: models.Backbone, *_: object, **__: object) -> Engine:
        factor = 1.0 if backbone is backbones["a"] else 1e4
        return lambda crops_NSS3: features_of(crops_NSS3, dim) * np.float32(factor)

    monkeypatch.setattr(runtime, "engine", engine)
    extractor = FeatureExtractor(store=store)
    done: list[str] = []
    extractor.compute(good, backbones, on_complete=lambda name, _: done.append(name))
    assert sorted(done) == ["a", "wide"]
    a, wide = (extractor.cache(backbones[name]) for name in ("a", "wide"))
    assert (a.dtype, wide.dtype) == (np.float16, np.float32)
    digests = [photo.sha256 for photo in good]
    np.testing.assert_allclose(wide.get(digests)[:], a.get(digests)[:] * 1e4, rtol=1e-3)
    assert wide.get(digests)[:].max() > np.finfo(np.float16).max


def test_what_it_cost_is_known_later(good: list[PhotoFile], store: FeatureStore) -> None:
    each = job(store, "a", Counting(1.0))
    assert seconds_for(each.cache, 10) is None
    _, result = run(good, [each])
    whole = seconds_for(each.cache, len(good))
    assert whole == pytest.approx(result.seconds["a"])
    (each.cache.folder / "cost.json").write_text("damaged")
    assert seconds_for(each.cache, 10) is None
