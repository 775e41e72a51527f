"""Crops for evaluation against Pillow's own way, and augmentation as a function of its seed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldmark.data import resampling
from fieldmark.data.transforms import Preprocess, augment
from fieldmark.utils.errors import InputError

GOLDEN_CROP = [[[119, 160, 150], [85, 128, 171]], [[107, 143, 187], [71, 116, 152]]]
GOLDEN_SQUASH = [[[138, 124, 113], [107, 130, 143]], [[130, 144, 117], [114, 113, 145]]]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _reference(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Resize all of it, then cut: as torchvision's Resize and CenterCrop do on a Pillow image."""
    height, width = image.shape[:2]
    method = FILTERS[preprocess.interpolation]
    size = (preprocess.size, preprocess.size)
    if preprocess.fit == "crop":
        shorter = min(height, width)
        size = (preprocess.resize * width // shorter, preprocess.resize * height // shorter)
    whole = Image.fromarray(image).resize(size, method)
    left = round((size[0] - preprocess.size) / 2)
    top = round((size[1] - preprocess.size) / 2)
    return np.asarray(whole.crop((left, top, left + preprocess.size, top + preprocess.size)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(
    "shape",
    [(375, 500), (500, 333), (600, 800), (768, 1024), (224, 224), (256, 256), (448, 448), (100, 140), (3, 5)],
)
def test_the_crop_is_pillows(shape: tuple[int, int], interpolation: str, fit: str) -> None:
    preprocess = Preprocess(interpolation=interpolation, fit=fit)  # type: ignore[arg-type]
    image = _noise(*shape)
    difference = np.abs(preprocess.apply(image).astype(int) - _reference(image, preprocess))
    assert difference.mean() <= 0.02
    assert difference.max() <= (1 if min(shape) > 10 else 2)  # much enlarged, both passes add up


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 40),
    st.integers(0, 30),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from(["crop", "squash"]),
)
def test_any_picture_gives_a_crop_of_the_size(
    height: int, width: int, size: int, more: int, interpolation: str, fit: str
) -> None:
    preprocess = Preprocess(size, size + more, interpolation, fit)  # type: ignore[arg-type]
    image = _noise(height, width)
    crop = preprocess.apply(image)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous
    assert np.abs(crop.astype(int) - _reference(image, preprocess)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 20_000), (1, 65_000)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_elongated_pictures_and_single_pixels(shape: tuple[int, int], fit: str) -> None:
    preprocess = Preprocess(fit=fit)  # type: ignore[arg-type]
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    for crop in (preprocess.apply(image), augment(image, preprocess, seed=1, epoch=2, photo_id="thin")):
        assert crop.shape == (224, 224, 3)
        assert (crop == (10, 200, 90)).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_picture_of_the_right_size_is_not_touched(interpolation: resampling.Interpolation) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    same = resampling.resize(picture, (0, 0, 30, 20), (20, 30), interpolation)
    assert (same == picture).all()
    assert not np.shares_memory(same, picture)
    if interpolation == "bicubic":  # the sums would give it as well
        assert (resampling._with_rust(picture, (0, 0, 30, 20), (20, 30), False) == picture).all()


def test_golden_numbers() -> None:
    """Worked out with Pillow 13; small enough to be checked by eye."""
    image = (np.arange(6 * 8 * 3) * 37 % 256).astype(np.uint8).reshape(6, 8, 3)
    crop = Preprocess(size=2, resize=4).apply(image)
    assert np.abs(crop.astype(int) - GOLDEN_CROP).max() <= 1
    squash = Preprocess(size=2, fit="squash", interpolation="bilinear").apply(image)
    assert np.abs(squash.astype(int) - GOLDEN_SQUASH).max() <= 1


def _jpeg(height: int, width: int) -> bytes:
    coarse = Image.fromarray(_noise(8, 10)).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    coarse.save(out, "JPEG", quality=90)
    return out.getvalue()


def test_the_exact_tier_is_pillows_own_path_from_bytes_on() -> None:
    preprocess = Preprocess()
    for shape in ((375, 500), (800, 600)):
        data = _jpeg(*shape)
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        difference = np.abs(preprocess.crop(data).astype(int) - _reference(pillow, preprocess))
        assert difference.mean() <= 0.02


def test_the_fast_tier_is_close_and_differs_only_where_there_is_something_to_gain() -> None:
    exact, fast = Preprocess(), Preprocess(tier="fast")
    small, large = _jpeg(375, 500), _jpeg(1200, 1600)
    np.testing.assert_array_equal(exact.crop(small), fast.crop(small))
    difference = np.abs(exact.crop(large).astype(int) - fast.crop(large))
    assert 0 < difference.mean() < 1


def test_keys_tell_apart_what_gives_other_pixels_and_nothing_else() -> None:
    variants = [
        Preprocess(), Preprocess(size=192), Preprocess(resize=288), Preprocess(interpolation="bilinear"),
        Preprocess(fit="squash"), Preprocess(tier="fast"),
    ]  # fmt: skip
    assert len({variant.key() for variant in variants}) == len(variants)
    assert Preprocess(fit="squash", resize=300).key() == Preprocess(fit="squash").key()
    for variant in variants:
        assert Preprocess.from_json(variant.to_json()) == variant


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"size": 224}', "[" * 100_000,
     Preprocess().to_json().replace("224", "0"), Preprocess().to_json().replace("224", "300"),
     Preprocess().to_json().replace("224", '"224"'), Preprocess().to_json().replace("224", "true"),
     Preprocess().to_json().replace("bicubic", "lanczos"), Preprocess().to_json().replace("256", "1e9")],
)  # fmt: skip
def test_bad_settings_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"preprocess.*\.$"):
        Preprocess.from_json(text)


def test_augmentation_is_a_function_of_seed_epoch_and_photo() -> None:
    image, preprocess = _noise(60, 80), Preprocess(size=32, resize=36)

    def crop(seed: int, epoch: int, photo: str) -> bytes:
        return augment(image, preprocess, seed=seed, epoch=epoch, photo_id=photo).tobytes()

    first = crop(1, 2, "a")
    others = {crop(1, 3, "a"), crop(2, 2, "a"), crop(1, 2, "b"), crop(12, 2, "a")}
    assert crop(1, 2, "a") == first
    assert len(others | {first}) == 5


def test_augmentation_takes_the_parts_that_it_says() -> None:
    """A picture whose colours say where each pixel was: red across, green down."""
    image = np.zeros((200, 240, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(240)[None], np.arange(200)[:, None]
    preprocess, mirrored, shares = Preprocess(size=64, resize=64), 0, []
    for number in range(200):
        crop = augment(image, preprocess, seed=0, epoch=0, photo_id=str(number)).astype(float)
        across = (crop[32, -1, 0] - crop[32, 0, 0]) * 64 / 63
        down = (crop[-1, 32, 1] - crop[0, 32, 1]) * 64 / 63
        mirrored += across < 0
        assert down > 0
        assert 0.7 <= abs(across) / down <= 1.4
        shares.append(abs(across) * down / (200 * 240))
    assert 70 <= mirrored <= 130
    assert 0.3 <= min(shares) < 0.45
    assert 0.9 < max(shares) <= 1.03


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**31), st.text(max_size=5))
def test_augmentation_works_on_any_picture(height: int, width: int, seed: int, photo: str) -> None:
    crop = augment(_noise(height, width), Preprocess(16, 16), seed=seed, epoch=0, photo_id=photo)
    assert crop.shape == (16, 16, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous


def test_a_part_with_fractions_is_pillows_every_time() -> None:
    image, box = _noise(90, 120), (3.5, 2.25, 110.0, 80.5)
    first = resampling.resize(image, box, (40, 50), "bicubic")
    np.testing.assert_array_equal(first, resampling.resize(image, box, (40, 50), "bicubic"))
    pillow = Image.fromarray(image).resize((50, 40), Image.Resampling.BICUBIC, box=box)
    assert np.abs(first.astype(int) - np.asarray(pillow)).max() <= 1
