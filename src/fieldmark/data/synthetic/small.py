"""Small drawn photos for the annotations of a real data set: every file, class and count of it, quickly.

They are there to try a whole study at its full size where the photos cannot be had. A class has its own
colours, shape and spots, so that something can be learned; no error on them says anything about real photos.
"""

from __future__ import annotations

import io as memory
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark.data import readers
from fieldmark.data.readers.inat import annotation_files
from fieldmark.utils import io, random
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import FloatArray

_WIDTH, _HEIGHT = 128, 96
_SIDE = 80  # of an animal
_Y_SS, _X_SS = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
_NOISE_HW1 = np.random.default_rng(0).normal(0, 6, (2 * _HEIGHT, _WIDTH, 1)).astype(np.int16)


def draw_like(annotations: Path, folder: Path, *, seed: int = 0, workers: int | None = None) -> int:
    """Draw every photo that annotations list, beside a copy of them; photos that are there stay.

    Args:
        annotations: a list in the layout of the iNaturalist challenges or of COCO (`.json`, `.json.gz`), or a
            folder of lists.
        folder: the folder to write to. A photo without a label shows a class drawn by its name.
        seed: of the drawings.
        workers: threads; None: one a core.

    Returns:
        How many photos were drawn now.

    Raises:
        InputError: the annotations cannot be read, list a photo outside of the folder, or are in that folder
            themselves; or the folder cannot be written to.
    """
    lists = annotation_files(annotations) if annotations.is_dir() else [annotations]
    if not lists or not all(each.name.endswith((".json", ".json.gz")) for each in lists):
        raise InputError(f"{annotations} has no list of photos: name a .json or .json.gz, or their folder.")
    if annotations.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"{folder} is where the annotations are: name another folder with --out.")
    table = readers.read(annotations)
    frame = table.frame
    if RejectReason.OUTSIDE.value in set(frame["reason"].drop_nulls()):
        raise InputError(f"{annotations} lists photos outside of its folder: nothing was drawn.")
    classes = [taxon.id for taxon in table.taxonomy] or ["0"]
    files = dict(frame.select("path", "taxon_id").iter_rows())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in lists:
            shutil.copyfile(each, folder / each.name)
        missing = [path for path in files if not (folder / path).exists()]
        for parent in {(folder / path).parent for path in missing}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io.not_written(folder, error) from error

    def one(path: str) -> None:
        name = files[path] or classes[random.hash64(path, "class", seed) % len(classes)]
        io.write_bytes(folder / path, _photo(name, path, seed), durable=False)  # drawn again where lost

    with progress_bar("Drawing photos", total=len(missing)) as stage:
        for _ in in_order(one, missing, workers or cores()):
            stage.advance()
    return len(missing)


@lru_cache(4096)
def _look(name: str, seed: int) -> tuple[Image.Image, FloatArray]:
    """The look of a class: its animal, of two ellipses with stripes, and the colour of its background."""
    look = random.generator(seed, "look", name).random(15)
    across, along = _X_SS / (0.5 + 0.3 * look[9]), _Y_SS / (0.5 + 0.3 * look[9])
    body = (across / (0.5 + 0.5 * look[10])) ** 2 + (along / (0.35 + 0.3 * look[11])) ** 2 < 1
    wings = (across / (0.9 + 0.3 * look[12])) ** 2 + ((along - 0.2) / 0.35) ** 2 < 1
    stripes = np.sin(across * (4 + 16 * look[13]) + along * 12 * look[14]) > 0
    pixels = np.zeros((*body.shape, 4))
    for mask, colour in ((wings, look[0:3]), (body, look[3:6])):
        pixels[mask] = (*230 * colour, 255)
    pixels[stripes, :3] *= 0.55
    return Image.fromarray(pixels.astype(np.uint8)), np.asarray(90 * look[6:9] + 60, np.float32)


def _photo(name: str, photo: str, seed: int) -> bytes:
    """Draw one photo as JPEG: the class's animal, turned and moved, before a blurred background."""
    (animal, colour), rng = _look(name, seed), random.generator(seed, "small photo", photo)
    turn, x, y, size, light = rng.normal(0, (25, 8, 5, 6, 14))
    coarse = np.clip(rng.normal(0, 25, (6, 8, 3)) + colour, 0, 255).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR)
    side = round(_SIDE + size)
    shown = animal.resize((side, side)).rotate(turn, Image.Resampling.BILINEAR)
    picture.paste(shown, (round((_WIDTH - side) / 2 + x), round((_HEIGHT - side) / 2 + y)), shown)
    start = int(rng.integers(_HEIGHT))
    pixels = np.asarray(picture, np.int16) + _NOISE_HW1[start : start + _HEIGHT] + round(light)
    buffer = memory.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
