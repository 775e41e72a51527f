"""Near-duplicates, image statistics and label issues: planted ones are found, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from fieldmark.curation import confident_learning
from fieldmark.data.photos import PhotoFile
from fieldmark.evaluation import metrics
from fieldmark.features import hamming_search, image_stats
from fieldmark.features.cache import FeatureStore
from fieldmark.utils import io

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=40)


@given(HASHES, st.lists(st.tuples(st.integers(0, 39), st.sets(st.integers(0, 63), max_size=12))))
def test_every_pair_within_the_radius_is_found_and_no_other(
    numbers: list[int], planted: list[tuple[int, set[int]]]
) -> None:
    """Against comparing all with all; rows of one hash are connected instead of all being paired."""
    numbers += [numbers[at % len(numbers)] ^ sum(1 << b for b in bits) for at, bits in planted if numbers]
    hash_N = np.array(sorted(set(numbers)), np.uint64)
    found = hamming_search.pairs_within(hash_N, 11)
    differ = np.bitwise_count(hash_N[:, None] ^ hash_N[None])
    expected = np.argwhere(np.triu(differ <= 11, 1))
    assert set(map(tuple, found.tolist())) == set(map(tuple, expected.tolist()))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_equal_hashes_are_connected_without_a_pair_for_every_two(kinds: list[int]) -> None:
    far = np.array([0, 2**64 - 1, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA], np.uint64)
    pairs = hamming_search.pairs_within(far[kinds], 11)
    root = hamming_search.components(len(kinds), pairs)
    assert [kinds[at] for at in root] == kinds
    assert len(set(root.tolist())) == len(set(kinds))
    assert len(pairs) <= 7 * len(kinds)
    few = [kind for kind in set(kinds) if kinds.count(kind) <= 8]
    every = {(a, b) for b in range(len(kinds)) for a in range(b) if kinds[a] == kinds[b] in few}
    assert every <= set(map(tuple, pairs.tolist()))


@given(st.integers(1, 30), st.data())
def test_components_are_those_of_a_plain_search(count: int, data: st.DataObject) -> None:
    row = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=40))
    expected = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            expected[a] = expected[b] = min(expected[a], expected[b])
    found = hamming_search.components(count, np.array(pairs, np.int64).reshape(-1, 2))
    assert found.tolist() == expected


def picture(seed: int) -> Image.Image:
    """Smooth blobs under fine noise: what a photo is to a hash."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((400, 300), Image.Resampling.BICUBIC), np.float32)
    noisy = pixels + rng.normal(0, 20, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed": lambda image: jpeg(image, 40),
    "resized": lambda image: jpeg(image.resize((200, 150))),
    "cropped": lambda image: jpeg(image.crop((4, 3, 392, 294))),
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.15)),
}


def numbers_of(data: bytes) -> np.ndarray:
    return image_stats.measure(image_stats.VIEW.crop(data))


@pytest.mark.parametrize("change", CHANGES)
def test_hash_of_a_changed_copy_is_near_and_of_others_not(change: str) -> None:
    hashes = []
    for seed in range(6):
        for data in (jpeg(picture(seed)), CHANGES[change](picture(seed))):
            hashes.append(numbers_of(data)[:8].astype(np.uint8).view("<u8")[0])
    pairs = hamming_search.pairs_within(np.array(hashes, np.uint64), 11).tolist()
    assert pairs == [[at, at + 1] for at in range(0, 12, 2)]


def test_hash_is_as_robust_as_imagehash() -> None:
    """Bits that a copy changes, against ImageHash's own hash of the same kind."""
    imagehash = pytest.importorskip("imagehash")
    ours, theirs = 0, 0
    for seed in range(6):
        for change in CHANGES.values():
            copies = jpeg(picture(seed)), change(picture(seed))
            a, b = (np.unpackbits(numbers_of(data)[:8].astype(np.uint8)) for data in copies)
            c, d = (imagehash.phash(Image.open(BytesIO(data))) for data in copies)
            ours, theirs = ours + int((a != b).sum()), theirs + int(c - d)
    assert ours <= theirs + 12  # half a bit a copy


def test_statistics_of_blurred_and_dark_images() -> None:
    *_, bright, contrast, blur = numbers_of(jpeg(picture(0)))
    soft = picture(0).filter(ImageFilter.GaussianBlur(6))
    assert numbers_of(jpeg(soft))[10] > 0.7 > blur
    dark = numbers_of(jpeg(ImageEnhance.Brightness(picture(0)).enhance(0.1)))
    assert dark[8] < 0.25 < bright
    assert dark[9] < contrast
    assert numbers_of(jpeg(Image.new("RGB", (50, 50))))[8:].tolist() == [0, 0, 0]


def test_statistics_are_cached_and_a_broken_photo_is_rejected(tmp_path: Path) -> None:
    photos = []
    for number, data in enumerate((jpeg(picture(0)), b"no picture", jpeg(picture(1)))):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        photos.append(PhotoFile(io.sha256(data), path))
    store = FeatureStore(tmp_path / "features")
    first = image_stats.compute([*photos, photos[0]], store)
    assert set(first.rejected) == {1}
    assert first.hash_N[0] == first.hash_N[3] != first.hash_N[2]
    for number in (0, 2):
        photos[number].path.unlink()
    again = image_stats.compute([photos[0], photos[2]], store)
    assert again.hash_N.tolist() == first.hash_N[[0, 2]].tolist()
    assert not again.rejected


def noisy(flipped: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of 2,000 photos of 20 classes, their labels, and which labels are wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 20, 2000)
    logits = rng.normal(0, 1.2, (2000, 20))
    logits[np.arange(2000), true] += 7
    wrong = rng.random(2000) < flipped
    given = np.where(wrong, (true + rng.integers(1, 20, 2000)) % 20, true)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return log_p.astype(np.float16), given.astype(np.int64), wrong


FILTERS = ("prune_by_noise_rate", "both", "confident_learning", "low_self_confidence")


@pytest.mark.parametrize("kind", FILTERS)
def test_wrong_labels_are_found_as_well_as_by_cleanlab(kind: str) -> None:
    """Precision and recall, on the same scores; the first is its default."""
    filtering = pytest.importorskip("cleanlab.filter")
    log_p, given_N, wrong = noisy()
    p = np.exp(log_p.astype(np.float64))
    ours = np.zeros(len(given_N), bool)
    ours[confident_learning.find_label_issues(log_p, given_N).rows] = True
    p /= p.sum(1, keepdims=True)
    theirs = filtering.find_label_issues(given_N, p, filter_by=kind, n_jobs=1)
    assert wrong[ours].mean() >= wrong[theirs].mean()
    assert ours[wrong].mean() >= theirs[wrong].mean()
    assert ours[wrong].mean() > 0.7


@pytest.mark.parametrize("flipped", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("flat", [1.0, 2.0])
def test_share_of_wrong_labels_is_estimated_from_flat_scores(flipped: float, flat: float) -> None:
    log_p, given_N, wrong = noisy(flipped)
    issues = confident_learning.find_label_issues((log_p / flat).astype(np.float16), given_N)
    assert issues.noise.share == pytest.approx(flipped, abs=0.015)
    sure = issues.wrong_N > 0.5
    if flipped:
        assert wrong[sure].mean() > 0.95
        assert sure[wrong].mean() > 0.75
    else:
        assert sure.sum() < 10


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p, given_N, _ = noisy()
    whole = confident_learning.find_label_issues(log_p, given_N)
    monkeypatch.setattr(metrics, "_BLOCK", 20 * 7)
    pieces = confident_learning.find_label_issues(log_p, given_N)
    for name in ("own_N", "best_N", "wrong_N", "rows"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_right_labels_with_confident_scores_are_not_suspect() -> None:
    given_N = np.arange(40) % 4
    log_p = np.where(np.eye(4)[given_N] > 0, -0.01, -6).astype(np.float16)
    assert not len(confident_learning.find_label_issues(log_p, given_N).rows)


@pytest.mark.parametrize("flipped", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("precision", [0.5, 0.8])
def test_most_of_the_marked_labels_are_wrong(flipped: float, precision: float) -> None:
    log_p, given_N, wrong = noisy(flipped)
    issues = confident_learning.find_label_issues(log_p, given_N)
    marked = issues.reaching(precision)
    assert wrong[marked].mean() >= precision
    assert issues.wrong_N[marked].mean() >= precision
    assert (issues.rows[: len(marked)] == marked).all()  # a beginning of those for review
    assert len(issues.reaching(0.99)) <= len(marked) <= len(issues.reaching(0.0)) == len(issues.rows)
    assert wrong[marked].sum() > 0.5 * wrong.sum()


@pytest.mark.parametrize("photos", [100, 2000])
def test_right_labels_of_hard_classes_are_not_marked(photos: int) -> None:
    """A head that is wrong about half of the photos, and as confident there as elsewhere."""
    rng = np.random.default_rng(0)
    given_N = rng.integers(0, 20, photos)
    answer_N = np.where(rng.random(photos) < 0.5, rng.integers(0, 20, photos), given_N)
    logits = rng.normal(0, 1, (photos, 20))
    logits[np.arange(photos), answer_N] += rng.uniform(2, 12, photos)
    issues = confident_learning.find_label_issues(metrics.log_softmax(logits).astype(np.float16), given_N)
    assert issues.noise.share > 0.1  # the model of noise alone would mark hundreds
    assert len(issues.rows) > photos / 10
    assert not len(issues.reaching(0.8))


def test_equally_confident_answers_share_their_agreement() -> None:
    confidence = np.array([0.5, 0.9, 0.9, 0.9, 0.5], np.float32)
    agrees = np.array([True, True, False, True, False])
    expected = [3 / 5, 2 / 3, 2 / 3, 2 / 3, 3 / 5]
    np.testing.assert_allclose(confident_learning._agreement(confidence, agrees), expected)


def test_few_labels_are_marked_only_if_all_but_certain() -> None:
    few = confident_learning.expected_precision(np.full(100, 0.9, np.float32))
    np.testing.assert_allclose(few[[0, 3, 99]], [0.6, 0.75, 0.87], atol=1e-6)
    assert confident_learning.expected_precision(np.ones(1, np.float32)) == 1
    assert (confident_learning.expected_precision(np.zeros(2, np.float32)) == 0).all()
