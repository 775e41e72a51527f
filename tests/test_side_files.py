"""`predict --xmp` and `--copies`: keywords beside photos; copies without people and without the place."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fieldmark.cli import app
from fieldmark.data import images
from fieldmark.data.storage.places import Box
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.side_files import write_copies, write_sidecars
from fieldmark.utils.errors import InputError

RANKS = {"species": "Pica pica", "kingdom": "Animalia", "genus": "Pica"}
BOX = Box(0.25, 0.25, 0.5, 0.5)
PERSON = {"category": "human", "confidence": 0.4, "box": [0.25, 0.25, 0.5, 0.5]}
NAMES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}


def photo(**exif: Any) -> bytes:
    """Noise of 128 x 96 pixels, with a place, a time and a small picture of the whole in its metadata."""
    pixels = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    about, file = Image.Exif(), io.BytesIO()
    about[0x010F], about[0x0112] = "Maker", exif.get("orientation", 1)
    inner = about.get_ifd(0x8769)
    inner[0x9003], inner[0x9011], inner[0x927C] = "2023:05:01 10:00:00", "+02:00", b"GPS 47.5 8.2"
    about.get_ifd(0x8825).update({1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (8.0, 12.0, 0.0)})
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=about, comment=b"GPS 47.5", xmp=b"<GPS/>")
    return file.getvalue()


def keywords(path: Path) -> tuple[list[str | None], list[str | None]]:
    tree = ET.fromstring(path.read_text(encoding="utf-8"))
    return tuple(
        [each.text for each in tree.iterfind(f".//{name}/rdf:Bag/rdf:li", NAMES)]
        for name in ("dc:subject", "lr:hierarchicalSubject")
    )  # type: ignore[return-value]


def test_sidecars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(tmp_path / "s" / f"{n}.jpg") for n in range(4)]
    items = [InputPhoto(name, Path(name)) for name in names]
    records: list[Any] = [
        {"file_name": names[0], "name": "Pica pica", "ranks": RANKS},
        {"file_name": names[0], "name": "A & B <c>", "ranks": {}},
        {"file_name": names[1], "kind": "human"},
        {"file_name": names[2], "name": "", "ranks": {}},
        {"file_name": names[3], "rejected": "truncated"},
    ]
    assert write_sidecars(records, items, "beside") == 2
    assert keywords(tmp_path / "s" / "0.jpg.xmp") == (
        ["Pica pica", "A & B <c>"],
        ["Animalia|Pica|Pica pica", "A & B <c>"],
    )
    assert keywords(tmp_path / "s" / "1.jpg.xmp") == (["human"], ["human"])
    assert len(list((tmp_path / "s").iterdir())) == 2
    (tmp_path / "s" / "1.jpg.xmp").write_text("of another program")
    assert write_sidecars(records, items, "beside") == 1  # its own one is written again
    assert (tmp_path / "s" / "1.jpg.xmp").read_text() == "of another program"
    assert "1 XMP files of other programs" in capsys.readouterr().err
    assert write_sidecars(records, items, str(tmp_path / "x")) == 2
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["0.jpg.xmp", "1.jpg.xmp"]


def test_a_copy_without_people_has_its_pixels_and_no_place() -> None:
    for orientation in (1, 6):
        data = photo(orientation=orientation)
        copy = images.without_people(data, [])
        np.testing.assert_array_equal(images.decode(copy), images.decode(data))
        about = images.exif(copy)
        assert images.exif(data).latitude == 47.5
        assert (about.taken, about.latitude, about.camera_model) == (
            "2023-05-01T10:00:00+02:00",
            None,
            "Maker",
        )
        assert b"GPS" not in copy


def test_people_are_blurred_beyond_repair() -> None:
    data = photo()
    before, copy = images.decode(data), images.without_people(data, [BOX])
    after = images.decode(copy)
    assert b"GPS" not in copy
    assert after.shape == before.shape
    inside = (slice(24, 72), slice(32, 96))
    assert before[inside].std() > 40
    assert after[inside].std() < 12
    outside = np.abs(after[:15].astype(int) - before[:15]).mean()
    assert outside < 40
    changed, other = before.copy(), images.publishing.blurred(before, [BOX])
    changed[40, 50:52] = changed[40, 51:49:-1]  # two pixels in one spot change places
    again = images.publishing.blurred(changed, [BOX]).astype(int)
    assert np.abs(again - other).max() <= 1  # of rounding


def test_copies(tmp_path: Path) -> None:
    (tmp_path / "in" / "s").mkdir(parents=True)
    names = [f"in/s/{n}.jpg" for n in range(5)]
    for name in names[:4]:
        (tmp_path / name).write_bytes(photo())
    items = [InputPhoto(name, tmp_path / name) for name in names]
    seen = PERSON | {"category": "animal", "confidence": 0.9}
    labels = [{"name": "Human"}]
    records: list[Any] = [
        {"file_name": names[0], "kind": "blank"},
        {"file_name": names[1], "kind": "blank", "others": [PERSON]},
        {"file_name": names[2], "detection": seen, "sure": True, "labels": labels},
        {"file_name": names[3], "sure": True, "labels": labels},  # not in the file of boxes
        {"file_name": names[4], "kind": "blank"},  # it is not there
    ]
    assert write_copies(records, items, tmp_path / "out") == 3
    spread = {
        path.name: images.decode(path.read_bytes())[24:72, 32:96].std() > 40
        for path in (tmp_path / "out").iterdir()
    }
    assert spread == {"0.jpg": True, "1.jpg": False, "2.jpg": False}
    with pytest.raises(InputError, match="holds the photo"):
        write_copies(records, items, tmp_path / "in")


def test_the_command(model: Path, insects: Path, tmp_path: Path) -> None:
    source = sorted((insects / "Danaus plexippus").iterdir())[0]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(source.read_bytes())
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "file_name,left,top,width,height,confidence,category\na.jpg,0.1,0.1,0.5,0.5,0.9,person\n"
    )
    options = ["--boxes", str(boxes), "--xmp", "beside", "--copies", str(tmp_path / "c")]
    for out in ([], ["--out", str(tmp_path / "o.csv")], ["--out", str(tmp_path / "o.csv")]):
        done = CliRunner().invoke(app, ["predict", str(model), str(tmp_path / "p"), *options, *out])
        assert done.exit_code == 0, done.output
        assert keywords(tmp_path / "p" / "a.jpg.xmp")[0] == ["human"]
        (tmp_path / "p" / "a.jpg.xmp").unlink()
        (tmp_path / "c" / "a.jpg").unlink()
    refused = CliRunner().invoke(app, ["predict", str(model), str(tmp_path / "p"), "--copies", "c"])
    assert isinstance(refused.exception, InputError)
