"""Damaged and hostile input, for all that fieldmark reads: `python -m tests.fuzz TARGET --minutes N`.

A target has sound files (seeds); they are changed at random, and reading them may give a value or raise an
error that fieldmark raises on purpose. Anything else, warnings too, is written to `fuzz-TARGET-NUMBER` in the
current folder. The numbers are the seeds of the random changes: `--first NUMBER` begins with one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image
from tests.conftest import draw_photo

from fieldmark.data import images, readers
from fieldmark.data.readers.box_files import read_boxes
from fieldmark.utils.errors import FieldmarkError, ImageRejected

ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    2**63,
    1e308,
    True,
    "",
    "../..",
    "x" * 3000,
    "\0",
    "é\u202e",
    [],
    {},
    [[]],
    {"a": None},
)


@dataclass(frozen=True)
class Target:
    """Something that reads data of others."""

    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]  # an empty folder is given too
    allowed: tuple[type[Exception], ...] = (FieldmarkError,)


# Changes


def change(data: bytes, draws: random.Random) -> bytes:
    """Change some bytes, or a value if it is JSON, a few times."""
    if draws.random() < 0.6:
        try:
            document = json.loads(data)
        except ValueError:
            pass
        else:
            for _ in range(draws.randint(1, 3)):
                document = _other(document, draws)
            return json.dumps(document).encode()
    found = bytearray(data)
    for _ in range(draws.choice((1, 1, 2, 5, 20))):
        at, size = draws.randint(0, len(found)), draws.choice((1, 1, 2, 4, 30, 400))
        part = slice(at, at + size)
        match draws.randint(0, 6):
            case 0:
                found[part] = bytes(draws.randrange(256) for _ in range(size))
            case 1:
                del found[part]
            case 2:
                found[at:at] = found[part] * draws.choice((1, 2, 50))
            case 3:
                del found[at:]
            case 4:
                found[part] = draws.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b'"', b",", b"\n")
                )
            case 5:
                for place in range(at, min(at + 1, len(found))):
                    found[place] ^= 1 << draws.randrange(8)
            case 6:
                other = draws.randint(0, len(found))
                found[part] = found[other : other + size]
    return bytes(found)


def _other(value: Any, draws: random.Random) -> Any:
    """The same document with another value somewhere."""
    if isinstance(value, dict) and value and draws.random() < 0.9:
        key = draws.choice(list(value))
        if draws.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: _other(value[key], draws)}
    if isinstance(value, list) and value and draws.random() < 0.9:
        at = draws.randrange(len(value))
        return [*value[:at], _other(value[at], draws), *value[at + draws.randint(0, 1) :]]
    return draws.choice(ODD)


# Targets


@cache
def _pictures() -> list[bytes]:
    found, exif = [draw_photo(0, 0, side=24)], Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:01 10:00:00"  # orientation and time
    for kind, more in (
        *(("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {})),
        *(("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("JPEG", {"progressive": True})),
    ):
        file = io.BytesIO()
        Image.open(io.BytesIO(found[0])).save(file, kind, exif=exif, **more)
        found.append(file.getvalue())
    return found


def _image(data: bytes, folder: Path) -> None:
    for read in (images.header, images.verify, images.decode, images.decode_cut, images.is_grey):
        try:
            read(data, **({"max_pixels": 10**6} if read is not images.is_grey else {}))
        except ImageRejected as error:
            str(error).encode()
    (folder / "photo").write_bytes(data)
    images.exif_of(folder / "photo")


def _listed(name: str, read: Callable[[Path], object] = readers.read) -> Callable[[bytes, Path], object]:
    def of(data: bytes, folder: Path) -> object:
        (folder / "a.jpg").write_bytes(_pictures()[0])
        (folder / name).write_bytes(data)
        return read(folder / name)

    return of


def _archive(data: bytes, folder: Path) -> object:
    """A Darwin Core Archive whose description is changed."""
    (folder / "occurrence.txt").write_text("id\tscientificName\tassociatedMedia\n1\tParus major\ta.jpg\n")
    return _listed("meta.xml", lambda path: readers.read(path.parent))(data, folder)


META = (
    b'<archive xmlns="http://rs.tdwg.org/dwc/text/"><core encoding="UTF-8" fieldsTerminatedBy="\\t" '
    b'linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1" '
    b'rowType="http://rs.tdwg.org/dwc/terms/Occurrence"><files><location>occurrence.txt</location></files>'
    b'<id index="0"/><field index="1" term="http://rs.tdwg.org/dwc/terms/scientificName"/>'
    b'<field index="2" term="http://rs.tdwg.org/dwc/terms/associatedMedia"/></core></archive>'
)
LISTING = {
    "images": [{"id": n, "file_name": "a.jpg", "width": 24, "height": 24, "license": 1} for n in range(2)],
    "annotations": [{"id": n, "image_id": n, "category_id": n, "bbox": [1, 2, 3, 4]} for n in range(2)],
    "categories": [{"id": n, "name": f"Parus minor{n}", "supercategory": "Birds"} for n in range(2)],
    "licenses": [{"id": 1, "name": "CC0", "url": "u"}],
    "info": {"version": "1"},
}
FOUND = {
    "images": [
        {"file": "a.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}]},
        {"file": "b.jpg", "failure": "x", "detections": None},
    ],
    "detection_categories": {"1": "animal", "2": "person"},
    "info": {"format_version": "1.4", "detector": "md", "typical_detection_threshold": 0.2},
}


def _parquet() -> list[bytes]:
    file = io.BytesIO()
    picture = {"bytes": _pictures()[0], "path": "a.jpg"}
    pl.DataFrame({"image": [picture, picture], "label": ["a", "b"]}).write_parquet(file)
    return [file.getvalue()]


@cache
def _trained() -> Path:
    """A tiny classifier, and its file of predictions with the journal."""
    from fieldmark.inference.checkpoint import to_file
    from fieldmark.inference.classifier import Classifier
    from fieldmark.inference.inputs import InputPhoto
    from fieldmark.training import TrainConfig, train

    folder = Path(tempfile.mkdtemp())
    for label in range(2):
        (folder / "photos" / f"Parus minor{label}").mkdir(parents=True)
        for number in range(4):
            (folder / "photos" / f"Parus minor{label}" / f"{number}.jpg").write_bytes(
                draw_photo(label, number)
            )
    config = TrainConfig(
        backbone="shufflenet_v2_x0_5", weights="random", engine="torch", groups="none", size=64
    )
    train(folder / "photos", out=folder / "model", config=config)
    paths = sorted((folder / "photos").rglob("*.jpg"))
    classifier = Classifier.load(folder / "model", engine="torch")
    to_file(folder / "names.jsonl", classifier, [InputPhoto(str(path), path) for path in paths])
    return folder


def _classifier(name: str, data: bytes, folder: Path) -> object:
    from fieldmark.inference.classifier import Classifier
    from fieldmark.inference.neighbours import load_index

    shutil.copytree(_trained() / "model", folder / "model")
    (folder / "model" / name).write_bytes(data)
    classifier = Classifier.load(folder / "model", engine="torch")
    return load_index(classifier) if name.startswith("neighbours") else classifier


def _seed(name: str) -> Callable[[], list[bytes]]:
    return lambda: [(_trained() / name).read_bytes()]


def _journal(data: bytes, folder: Path) -> object:
    from fieldmark.inference.checkpoint import records_of

    (folder / "names.jsonl.journal").write_bytes(data)
    return list(records_of(folder / "names.jsonl"))


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\nabc\r\n"
    b'--x\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n--x--\r\n'
)


def _form(data: bytes, folder: Path) -> object:
    from starlette.requests import Request

    from fieldmark.serving.config import ServeConfig
    from fieldmark.serving.http_errors import HttpError
    from fieldmark.serving.multipart import read_photos

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-length", str(len(data)).encode()),
    ]
    try:
        return asyncio.run(
            read_photos(Request({"type": "http", "headers": headers}, receive), lambda _: None, ServeConfig())
        )
    except HttpError:
        return None


TARGETS = {
    "image": Target(_pictures, _image),
    "annotations": Target(lambda: [json.dumps(LISTING).encode()], _listed("train2019.json")),
    "boxes": Target(
        lambda: [json.dumps(FOUND).encode(), json.dumps(LISTING).encode()], _listed("boxes.json", read_boxes)
    ),
    "csv": Target(
        lambda: [b'file_name,label,latitude,longitude\na.jpg,Parus,1.5,2\nb.jpg,"P, x",,\n'],
        _listed("photos.csv"),
    ),
    "darwin-core": Target(lambda: [META], _archive),
    "parquet": Target(_parquet, _listed("photos.parquet")),
    "classifier": Target(_seed("model/classifier.json"), partial(_classifier, "classifier.json")),
    "neighbours": Target(
        _seed("model/neighbours.safetensors"), partial(_classifier, "neighbours.safetensors")
    ),
    "journal": Target(_seed("names.jsonl.journal"), _journal),
    "form": Target(lambda: [FORM], _form),
}


def attempt(target: Target, number: int) -> tuple[bytes, BaseException | None]:
    """Read one changed seed; gives it, and the error that should not have been."""
    draws = random.Random(number)
    data = change(draws.choice(target.seeds()), draws)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            target.read(data, Path(folder))
        except target.allowed as error:
            return data, None if "\n" not in str(error) else error
        except Exception as error:
            return data, error
    return data, None


def attempts(target: Target, first: int) -> Iterator[tuple[int, bytes, BaseException | None]]:
    """Try one number after the other."""
    number = first
    while True:
        yield number, *attempt(target, number)
        number += 1


def main() -> None:
    """Try one target for some minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    target, seen = TARGETS[options.target], set[str]()
    logging.disable()
    target.seeds()
    end, number = time.monotonic() + 60 * options.minutes, options.first
    for number, data, error in attempts(target, options.first):
        if error is not None:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} {last.filename}:{last.lineno}"
            if where not in seen:
                seen.add(where)
                Path(f"fuzz-{options.target}-{number}").write_bytes(data)
                sys.stdout.write(f"{number}: {where}: {error}\n")
        if time.monotonic() > end:
            break
    sys.stdout.write(
        f"{options.target}: {number - options.first + 1:,} inputs, {len(seen)} different errors\n"
    )
    sys.exit(bool(seen))


if __name__ == "__main__":
    main()
