"""The decoder: what comes out right, what is refused, and that nothing else ever comes out."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldmark.data import image_containers, images
from fieldmark.data.images import Header
from fieldmark.data.images.metadata import temperature_of
from fieldmark.utils.errors import ImageRejected, RejectReason


def _photo(width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """A smooth random picture: what JPEG is made for."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _reason(data: bytes, **options: int) -> RejectReason:
    with pytest.raises(ImageRejected) as caught:
        images.decode(data, **options)
    with pytest.raises(ImageRejected) as also:
        images.verify(data, **options)
    assert also.value.reason == caught.value.reason
    return caught.value.reason


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_come_out_as_they_went_in(kind: str) -> None:
    photo = _photo()
    data = _save(photo, kind, **LOSSLESS[kind])
    pixels = images.decode(data)
    np.testing.assert_array_equal(pixels, np.asarray(photo))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    name = "PNM" if kind == "PPM" else kind
    assert images.header(data) == images.verify(data) == Header(61, 43, name)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 40}])
def test_a_jpeg_decodes_as_pillow_decodes_it(options: dict[str, object]) -> None:
    data = _save(_photo(500, 375), "JPEG", **options)
    reference = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(images.decode(data) - reference).mean() <= 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    photo = _photo(64, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {
        1: photo,
        2: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: photo.transpose(Image.Transpose.ROTATE_180),
        4: photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: photo.transpose(Image.Transpose.TRANSPOSE),
        6: photo.transpose(Image.Transpose.ROTATE_90),
        7: photo.transpose(Image.Transpose.TRANSVERSE),
        8: photo.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = _save(stored, kind, exif=exif, **options)
    assert images.header(data)[:3] == images.verify(data)[:3] == (64, 48, kind)
    difference = np.abs(images.decode(data).astype(int) - np.asarray(photo))
    assert difference.mean() < (2 if kind == "JPEG" else 0.001)


def test_orientation_of_broken_exif_is_upright() -> None:
    for exif in (b"", b"Exif\0\0", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert image_containers.exif_orientation(exif) == 1


def test_cmyk_jpegs_with_and_without_the_adobe_marker_look_alike() -> None:
    photo = _photo(64, 48)
    inverted = _save(photo.convert("CMYK"), "JPEG", quality=95)
    marker = inverted.index(b"\xff\xee")
    assert inverted[marker + 4 : marker + 9] == b"Adobe"
    (length,) = struct.unpack_from(">H", inverted, marker + 2)
    negative = Image.fromarray(255 - np.asarray(photo.convert("CMYK")), "CMYK")
    plain = _save(negative, "JPEG", quality=95)
    plain = plain[:marker] + plain[marker + 2 + length :]
    for data in (inverted, plain):
        assert np.abs(images.decode(data).astype(int) - np.asarray(photo)).mean() < 4


def test_palettes_alpha_and_one_bit_come_out_right() -> None:
    grey = _photo().convert("L")
    np.testing.assert_array_equal(images.decode(_save(grey, "PNG"))[..., 1], np.asarray(grey))
    bits = grey.convert("1")
    np.testing.assert_array_equal(images.decode(_save(bits, "PNG"))[..., 0], np.asarray(bits) * 255)
    palette = _photo().quantize(32)
    np.testing.assert_array_equal(images.decode(_save(palette, "PNG")), np.asarray(palette.convert("RGB")))
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0], rgba[0, :, 3], rgba[1, :, 3] = 200, 255, 0
    seen = images.decode(_save(Image.fromarray(rgba), "PNG"))
    assert seen[0, 0].tolist() == [200, 0, 0]
    assert seen[1, 0].tolist() == [255, 255, 255]
    la = Image.merge("LA", (Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 128)))
    assert images.decode(_save(la, "PNG"))[0, 0].tolist() == [127, 127, 127]


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        seen = images.decode(_save(image, kind, transparency=1))
        assert seen.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_a_16_bit_ramp_keeps_its_levels(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    seen = images.decode(_save(Image.fromarray(ramp), kind))
    assert len(np.unique(seen)) >= 250
    np.testing.assert_array_equal(seen[..., 0], np.rint(ramp / 257).astype(np.uint8))


def test_deep_values_without_an_agreed_white() -> None:
    ramp = np.linspace(0, 1, 512, dtype=np.float32).reshape(2, 256)
    for values in (ramp, ramp * 1e6 - 5e5, (ramp * 1e9).astype(np.int32)):
        seen = images.decode(_save(Image.fromarray(values), "TIFF"))
        assert (int(seen.min()), int(seen.max())) in ((0, 255), (0, 254))
        assert len(np.unique(seen)) >= 250
    bad = np.array([[0.0, np.nan, np.inf, 0.5]], np.float32)
    assert images.decode(_save(Image.fromarray(bad), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 128]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _save(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert images.decode(data)[3, 3].tolist() == [255, 0, 0]


def test_a_scaled_jpeg_is_never_below_what_was_asked() -> None:
    photo = _photo(801, 603)
    data = _save(photo, "JPEG", quality=92)
    for at_least, expected in ((500, 603), (302, 302), (303, 603), (151, 151), (76, 76), (1, 76)):
        pixels = images.decode(data, at_least=at_least)
        assert pixels.shape[0] == expected
        small = photo.resize(pixels.shape[1::-1], Image.Resampling.BOX)
        assert np.abs(pixels.astype(int) - np.asarray(small)).mean() < 5
    assert images.decode(_save(photo, "PNG"), at_least=10).shape == (603, 801, 3)


def _giant_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_bomb_is_refused_from_its_header() -> None:
    jpeg = bytearray(_save(_photo(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff" * 6
    gif = bytearray(_save(Image.new("P", (1, 1)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    for bomb in (_giant_png(60000, 60000), bytes(jpeg), webp, bytes(gif)):
        assert _reason(bomb) is RejectReason.TOO_LARGE
        with pytest.raises(ImageRejected) as caught:
            images.header(bomb)
        assert caught.value.reason is RejectReason.TOO_LARGE
    data = _save(_photo(), "PNG")
    assert _reason(data, max_pixels=61 * 43 - 1) is RejectReason.TOO_LARGE
    assert images.decode(data, max_pixels=61 * 43).shape == (43, 61, 3)


def test_a_picture_above_pillows_own_limit_but_within_ours_is_read() -> None:
    data = _save(Image.new("1", (10_000, 9_999)), "PNG")
    assert images.header(data) == Header(10_000, 9_999, "PNG")


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = _save(_photo(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    many = data[:scan] + data[scan:-2] * 40 + b"\xff\xd9"
    assert image_containers.jpeg(many, whole=True).scans > 40
    assert _reason(many, max_pixels=61 * 43) is not None
    images.decode(data, max_pixels=61 * 43)


TRUNCATABLE = {
    "JPEG": _save(_photo(200, 150), "JPEG"),
    "progressive": _save(_photo(200, 150), "JPEG", progressive=True),
    "PNG": _save(_photo(200, 150), "PNG"),
    "GIF": _save(_photo(200, 150), "GIF"),
    "WEBP": _save(_photo(200, 150), "WEBP"),
    "lossless": _save(_photo(200, 150), "WEBP", lossless=True),
    "TIFF": _save(_photo(200, 150), "TIFF"),
    "lzw": _save(_photo(200, 150), "TIFF", compression="tiff_lzw"),
    "BMP": _save(_photo(200, 150), "BMP"),
    "PPM": _save(_photo(200, 150), "PPM"),
}


@pytest.mark.parametrize("name", TRUNCATABLE)
def test_truncated_files_are_refused(name: str) -> None:
    data = TRUNCATABLE[name]
    images.decode(data)
    for keep in (0.1, 0.3, 0.5, 0.8, 0.95, 0.99):
        _reason(data[: int(len(data) * keep)])
    last = _reason(data[:-1])
    assert last is RejectReason.TRUNCATED or name == "lzw"  # there, the last byte is of a tag


def test_bytes_before_the_cut_do_not_hide_it() -> None:
    data = TRUNCATABLE["JPEG"]
    middle = len(data) // 2
    assert _reason(data[:middle] + b"\xff\xd9") in (RejectReason.TRUNCATED, RejectReason.CORRUPT)


def test_a_sound_jpeg_among_stray_bytes_is_read() -> None:
    data = TRUNCATABLE["JPEG"]
    whole = images.decode(data)
    tables = data.index(b"\xff\xdb")
    np.testing.assert_array_equal(images.decode(data[:tables] + b"\x07" + data[tables:]), whole)
    np.testing.assert_array_equal(images.decode(data + b"after the end"), whole)
    icc = b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0" + bytes(6)
    np.testing.assert_array_equal(images.decode(data[:2] + icc + data[2:]), whole)
    assert images.verify(data[:2] + icc + data[2:]) == Header(200, 150, "JPEG")


def test_what_is_no_picture_says_so() -> None:
    assert _reason(b"") is RejectReason.EMPTY
    assert _reason(b"hello") is RejectReason.NOT_AN_IMAGE
    assert _reason(b"8BPS" + bytes(100)) is RejectReason.UNSUPPORTED
    assert _reason(b"%!PS-Adobe-3.0 EPSF-3.0\n") is RejectReason.UNSUPPORTED
    assert _reason(b"\0\0\0\x0cjP  " + bytes(100)) is RejectReason.UNSUPPORTED
    assert _reason(b"\x89PNG\r\n\x1a\n") is not RejectReason.NOT_AN_IMAGE


def test_a_flipped_bit_in_a_png_is_seen() -> None:
    data = bytearray(TRUNCATABLE["PNG"])
    data[data.index(b"IDAT") + 500] ^= 1
    assert _reason(bytes(data)) is RejectReason.CORRUPT


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_give_pixels_or_a_reason(draw: st.DataObject) -> None:
    data = bytearray(TRUNCATABLE[draw.draw(st.sampled_from(sorted(TRUNCATABLE)))])
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    _same_verdict(bytes(data))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF\x30\0\0\0WEBP",
            b"BM",
            b"II*\0",
            b"MM\0*",
            b"P6 ",
            b"P5\n3 3\n255\n",
            b"\0\0\0\x1cftypavif",
        ]
    ),
    st.binary(max_size=200),
)
def test_any_bytes_give_pixels_or_a_reason(start: bytes, rest: bytes) -> None:
    _same_verdict(start + rest)


def _same_verdict(data: bytes) -> None:
    try:
        found = images.verify(data, max_pixels=1_000_000)
    except ImageRejected:
        with pytest.raises(ImageRejected):
            images.decode(data, max_pixels=1_000_000)
        return
    pixels = images.decode(data, max_pixels=1_000_000)
    assert pixels.shape == (found.height, found.width, 3)
    assert images.header(data, max_pixels=1_000_000) == found


def test_no_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_containers, "jpeg", none_left)
    assert _reason(TRUNCATABLE["JPEG"]) is RejectReason.TOO_LARGE


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(path: Path) -> RejectReason:
        with pytest.raises(ImageRejected) as caught:
            images.read_bytes(path)
        assert str(path) in caught.value.detail
        return caught.value.reason

    file = tmp_path / "photo.jpg"
    assert reason(file) is RejectReason.MISSING
    file.write_bytes(b"")
    assert reason(file) is RejectReason.EMPTY
    assert reason(tmp_path) is RejectReason.UNREADABLE
    assert reason(file / "below") is RejectReason.MISSING
    file.write_bytes(b"12345")
    assert images.read_bytes(file) == b"12345"
    monkeypatch.setattr(images, "MAX_BYTES", 4)
    assert reason(file) is RejectReason.TOO_LARGE
    assert _reason(b"\xff\xd8\xff45") is RejectReason.TOO_LARGE


def test_pillows_warnings_decide_nothing() -> None:
    """An APNG that announces no frames makes Pillow warn; here, warnings are errors."""
    body = struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + b"acTL" + body + struct.pack(">I", zlib.crc32(b"acTL" + body))
    data = TRUNCATABLE["PNG"][:33] + chunk + TRUNCATABLE["PNG"][33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="APNG"):
            Image.open(io.BytesIO(data))
        before = list(warnings.filters)
        threads = [threading.Thread(target=images.decode, args=(data,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        images.decode(data)
        for thread in threads:
            thread.join()
        assert warnings.filters == before


def test_importing_the_decoder_is_quick_and_brings_no_torch() -> None:
    code = (
        "import sys, fieldmark.data.images, fieldmark.data.transforms\n"
        "print(sorted(sys.modules.keys() & {'torch', 'PIL.Image', 'simplejpeg', 'torchvision'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_libtiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    whole = _save(_photo(64, 64), "TIFF", compression="tiff_lzw")
    for seed in range(40):
        data, rng = bytearray(whole), np.random.default_rng(seed)
        for place in rng.integers(8, len(data), 20):
            data[place] ^= int(rng.integers(1, 255))
        with suppress(ImageRejected):
            images.decode(bytes(data))
    assert capfd.readouterr().err == ""


def _reconyx(start: bytes, at: int, fahrenheit: int, celsius: int, length: int = 200) -> bytes:
    note = start.ljust(at, b"\1") + struct.pack("<2h", fahrenheit, celsius)
    return note.ljust(length, b"\0")


@pytest.mark.parametrize(
    ("start", "at"), [(b"\x01\xf1\x04\x00", 0x26), (b"RECONYXUF\0", 0x44), (b"RECONYXH2\0", 0x4E)]
)
def test_the_temperature_of_a_camera_is_read_from_its_notes(start: bytes, at: int) -> None:
    for fahrenheit, celsius, expected in ((76, 24, 24), (-4, -20, -20), (0, 0, None), (213, 101, None)):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x927C] = _reconyx(start, at, fahrenheit, celsius)
        assert images.exif(_save(_photo(), "JPEG", exif=exif)).temperature == expected
    assert temperature_of(_reconyx(start, at, 76, 24)[: at + 3]) is None  # cut off
    assert temperature_of(_reconyx(b"BUSHNELL", at, 76, 24)) is None


@given(st.sampled_from([b"\x01\xf1", b"RECONYXUF\0", b"RECONYXH2\0", b""]), st.binary(max_size=120))
def test_any_maker_note_gives_a_temperature_that_can_be_or_none(start: bytes, rest: bytes) -> None:
    found = temperature_of(start + rest)
    assert found is None or -60 <= found <= 80
    assert temperature_of(rest.decode("latin-1")) is temperature_of((1, 2)) is None
