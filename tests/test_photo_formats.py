"""Photos of phones and cameras: HEIC, JPEG XL, and the previews in raw files."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldmark.data import images
from fieldmark.data.images import extras
from fieldmark.inference.inputs import find_photos
from fieldmark.utils.errors import ImageRejected, RejectReason

heif = pytest.importorskip("pillow_heif", reason="fieldmark[formats] is not installed")
pytest.importorskip("pillow_jxl", reason="fieldmark[formats] is not installed")
pytest.importorskip("rawpy", reason="fieldmark[formats] is not installed")

HEIGHT, WIDTH = 96, 144


def scene() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A dark picture with a red corner at the top left and a blue one at the bottom right."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    pixels[:40, :60] = (230, 30, 30)
    pixels[-30:, -40:] = (30, 30, 230)
    return pixels


def exif(orientation: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010F], found[0x0110] = orientation, "Maker", "Phone 7"
    found.get_ifd(0x8769)[0x9003] = "2024:05:03 07:08:09"
    where = found.get_ifd(0x8825)
    where |= {1: "N", 2: (47.0, 15.0, 0.0), 3: "W", 4: (8.0, 30.0, 0.0)}
    found._ifds[0x8825] = where
    return found


def jpeg(orientation: int = 1, pixels: Any = None, about: bool = True) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(scene() if pixels is None else pixels)
    picture.save(file, "JPEG", quality=95, **({"exif": exif(orientation)} if about else {}))
    return file.getvalue()


def heic(orientation: int = 1, pixels: Any = None) -> bytes:
    """A HEIC as phones write it: its own turn, and the same orientation in its EXIF data."""
    picture = Image.fromarray(scene() if pixels is None else pixels)
    made, file = heif.from_pillow(picture), io.BytesIO()
    made.save(file, quality=95, exif=exif(orientation).tobytes())
    return file.getvalue()


def jxl(orientation: int = 1, pixels: Any = None) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(scene() if pixels is None else pixels)
    picture.save(file, "JXL", quality=95, exif=exif(orientation).tobytes())
    return file.getvalue()


def jxl_of_jpeg(folder: Path, orientation: int) -> bytes:
    (folder / "a.jpg").write_bytes(jpeg(orientation))
    file = io.BytesIO()
    with Image.open(folder / "a.jpg") as picture:
        picture.save(file, "JXL", lossless_jpeg=True)
    return file.getvalue()


def dng(preview: bytes, orientation: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A raw file with little in it: a sensor of 16 bits behind colour filters, and a JPEG beside it."""
    sensor = np.full((HEIGHT, WIDTH), 1000, "<u2").tobytes()
    blocks: list[bytes] = []
    start = 8

    def put(data: bytes) -> int:
        nonlocal start
        at = start
        data += b"\0" * (len(data) % 2)
        blocks.append(data)
        start += len(data)
        return at

    def directory(entries: list[tuple[int, int, Any]]) -> bytes:
        forms = {1: "B", 3: "H", 4: "I"}
        rows = b""
        for tag, kind, value in sorted(entries):
            if kind == 2:
                data = value.encode() + b"\0"
                count = len(data)
            elif kind in (5, 10):
                count = len(value)
                data = b"".join(struct.pack("<ii", round(each * 10000), 10000) for each in value)
            else:
                values = value if isinstance(value, tuple) else (value,)
                count, data = len(values), struct.pack(f"<{len(values)}{forms[kind]}", *values)
            field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", put(data))
            rows += struct.pack("<HHI", tag, kind, count) + field
        return struct.pack("<H", len(entries)) + rows + struct.pack("<I", 0)

    at_sensor, at_preview = put(sensor), put(preview)
    of_sensor = [(254, 4, 0), (256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, 16), (259, 3, 1), (262, 3, 32803)]
    of_sensor += [(273, 4, at_sensor), (277, 3, 1), (278, 4, HEIGHT), (279, 4, len(sensor))]
    own = put(directory([*of_sensor, (33421, 3, (2, 2)), (33422, 1, (0, 1, 1, 2)), (50717, 4, 65535)]))
    taken = put(directory([(0x9003, 2, "2024:05:03 07:08:09")]))
    where = put(directory([(1, 2, "N"), (2, 5, (47.0, 15.0, 0.0)), (3, 2, "W"), (4, 5, (8.0, 30.0, 0.0))]))
    about = [(254, 4, 1), (256, 4, size[0]), (257, 4, size[1]), (258, 3, (8, 8, 8)), (259, 3, 7), (262, 3, 6)]
    about += [(271, 2, "Maker"), (272, 2, "Phone 7"), (273, 4, at_preview), (274, 3, orientation)]
    about += [(277, 3, 3), (278, 4, size[1]), (279, 4, len(preview)), (330, 4, own), (0x8769, 4, taken)]
    about += [(0x8825, 4, where), (50706, 1, (1, 4, 0, 0)), (50708, 2, "Maker Phone 7")]
    main = put(directory([*about, (50721, 10, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))]))
    return b"II*\0" + struct.pack("<I", main) + b"".join(blocks)


def check(data: bytes, kind: str, orientation: int = 1) -> None:
    """The scene stands upright, and whatever reads its size says the same."""
    expected = images.decode(jpeg(orientation))
    pixels = images.decode(data)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 6
    found = images.header(data)
    assert (found.height, found.width, found.format) == (*expected.shape[:2], kind)
    assert images.verify(data)[:3] == found[:3]
    assert images.exif(data) == images.exif(jpeg(orientation))
    assert images.exif(data).latitude == 47.25
    assert images.exif(data).taken == "2024-05-03T07:08:09Z"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_raw_file_is_what_its_preview_shows(orientation: int) -> None:
    check(dng(jpeg(about=False), orientation), "RAW", orientation)
    check(dng(jpeg(orientation), orientation), "RAW", orientation)  # no double turn


def test_a_preview_that_the_camera_has_turned_is_not_turned_again() -> None:
    upright = np.ascontiguousarray(np.rot90(scene(), -1))
    check(dng(jpeg(pixels=upright, about=False), 6, (HEIGHT, WIDTH)), "RAW", 6)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_was_packed_as_jpeg_xl(tmp_path: Path, orientation: int) -> None:
    check(jxl_of_jpeg(tmp_path, orientation), "JXL", orientation)


def test_jpeg_xl_stands_as_it_says_itself() -> None:
    """Not as its EXIF data say, which do not count (ISO/IEC 18181-2)."""
    check(jxl(), "JXL")
    assert images.decode(jxl(6)).shape == (HEIGHT, WIDTH, 3)


def test_heic_is_not_turned_twice() -> None:
    check(heic(), "HEIC")
    turned = heic(6)
    assert b"irot" in turned
    check(turned, "HEIC", 6)


def test_grey_and_clear_ones() -> None:
    for mode in ("L", "RGBA"):
        picture = Image.fromarray(scene()).convert(mode)
        if mode == "RGBA":
            picture.putalpha(0)
        for form in ("HEIF", "JXL"):
            heif.register_heif_opener()
            file = io.BytesIO()
            picture.save(file, form, quality=95)
            pixels = images.decode(file.getvalue())
            assert pixels.shape == (HEIGHT, WIDTH, 3)
            assert (pixels > 250).all() == (mode == "RGBA")


def made() -> dict[str, bytes]:
    return {"HEIC": heic(), "JXL": jxl(), "RAW": dng(jpeg(about=False))}


@pytest.mark.parametrize("kind", ["HEIC", "JXL", "RAW"])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made()[kind]
    for function in (images.header, images.decode, images.verify):
        with pytest.raises(ImageRejected) as caught:
            function(data, max_pixels=HEIGHT * WIDTH - 1)
        assert caught.value.reason is RejectReason.TOO_LARGE


def test_a_jpeg_xl_bomb_is_refused_by_its_header() -> None:
    """4 bytes that say 2^30 x 2^30 pixels."""
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 0 << 33 | 3 << 36 | (2**30 - 1) << 38
    with pytest.raises(ImageRejected) as caught:
        images.decode(b"\xff\x0a" + bits.to_bytes(16, "little"))
    assert caught.value.reason is RejectReason.TOO_LARGE


_CHILD = """
import json, sys, time
from fieldmark.data import images
from fieldmark.utils import memory
from fieldmark.utils.errors import ImageRejected
start = memory.peak()
for line in sys.stdin:
    data = bytes.fromhex(line)
    print(json.dumps("begun"), flush=True)
    for function in (images.header, images.verify, images.decode, images.exif):
        try:
            function(data)
            said = "ok"
        except ImageRejected as error:
            said = error.reason.value
        except BaseException as error:
            said = "RAISED " + repr(error)
        print(json.dumps([function.__name__, said]), flush=True)
print(json.dumps(["memory", (memory.peak() - start) // 2**20]))
"""


def outcomes(files: list[bytes]) -> tuple[list[list[str]], int]:
    """What comes of files in another process, so that a crash is seen: of each function its verdict."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CHILD],
        input="".join(f"{data.hex()}\n" for data in files),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"it died at file {lines.count('begun')}: {done.stderr[-500:]}"
    *rows, memory = [line for line in lines if line != "begun"]
    return rows, memory[1]


@pytest.mark.parametrize("kind", ["HEIC", "JXL", "RAW"])
def test_files_that_are_cut_off_or_changed_give_pixels_or_a_reason(kind: str) -> None:
    data = made()[kind]
    rng = np.random.default_rng(0)
    cut = [data[:end] for end in range(1, len(data), max(1, len(data) // 60))]
    changed = []
    for number in range(150):
        some = bytearray(data)
        for at in rng.integers(0, len(data) if number % 2 else min(len(data), 400), 1 + number % 4):
            some[at] = rng.integers(256)
        changed.append(bytes(some))
    rows, megabytes = outcomes([*cut, *changed])
    assert [row for row in rows if row[1].startswith("RAISED")] == []
    assert megabytes < 400
    decoded = [said for name, said in rows[: 4 * len(cut)] if name == "decode"]
    assert decoded.count("ok") == 0 if kind != "RAW" else decoded.count("ok") < len(cut)
    verified = [said for name, said in rows if name == "verify"]
    assert verified == [said for name, said in rows if name == "decode"]


def test_a_missing_package_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise ImportError(name)

    said: list[str] = []
    monkeypatch.setattr(extras, "import_module", gone)
    monkeypatch.setattr(extras, "_say", said.append)
    for data in made().values():
        with pytest.raises(ImageRejected, match=r"pip install 'fieldmark\[formats\]'") as caught:
            images.decode(data)
        assert caught.value.reason is RejectReason.UNSUPPORTED
    assert said[0] == "HEIC photos need an extra: pip install 'fieldmark[formats]'"


def test_packages_are_imported_where_such_a_file_is_met(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.heic").write_bytes(heic())
    code = """
import sys
from pathlib import Path
from fieldmark.data import images
names = ("pillow_heif", "pillow_jxl", "rawpy")
for name in ("a.jpg", "b.heic"):
    images.verify((Path(sys.argv[1]) / name).read_bytes())
    print(*(each for each in names if each in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["", "pillow_heif", ""]


def test_a_raw_file_beside_its_jpeg_is_the_same_photo(tmp_path: Path) -> None:
    for name in ("1.CR2", "1.JPG", "2.nef", "3.heic"):
        (tmp_path / name).write_bytes(b"x")
    assert [item.path.name for item in find_photos([tmp_path])] == ["1.JPG", "2.nef", "3.heic"]


def test_they_are_predicted_and_placed(
    model: Path, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    (tmp_path / "p").mkdir()
    for kind, data in made().items():
        (tmp_path / "p" / f"{kind}.{kind.lower().replace('raw', 'dng')}").write_bytes(data)
    done = run("predict", model, tmp_path / "p", "--format", "csv")
    assert done.code == 0, done.err
    rows = done.out.splitlines()[1:]
    assert len(rows) == 3
    assert all("2024-05-03 07:08:09" in row and ",47.25,-8.5," in row for row in rows)
