"""Render one photo of one animal as JPEG: a pure function of (seed, species, photo)."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFilter

from fieldmark.data.synthetic import scenery
from fieldmark.data.synthetic.animal import Pose, draw_animal
from fieldmark.data.synthetic.species import Species
from fieldmark.data.synthetic.wings import appearance_of
from fieldmark.utils import random

_SIZES = ((800, 600), (800, 600), (800, 533), (768, 576), (800, 640))
_ROTATED = 6  # EXIF orientation: rotate by 90 degrees clockwise for viewing


def size_of(seed: int, photo: str) -> tuple[int, int]:
    """Return width and height of a photo in pixels, after EXIF orientation."""
    rng = random.generator(seed, "size", photo)
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    return (height, width) if rng.random() < 0.12 else (width, height)


def photograph(species: Species, seed: int, individual: str, photo: str) -> bytes:
    """Render one photo; photos of one individual show the same animal in the same place."""
    where = random.generator(seed, "place", individual)
    rng = random.generator(seed, "photo", photo)
    size = size_of(seed, photo)
    upright = size[1] > size[0]
    side = bool(where.random() < 0.12)
    pose = _pose(size, side, where, rng)
    animal = draw_animal(
        species, appearance_of(species, seed, individual), pose, size, float(rng.uniform(-0.14, 0.14))
    )
    scene = scenery.scene(size, pose.centre, pose.unit, pose.side, where)
    _settle(scene, animal, rng)
    if where.random() < 0.5:
        scenery.grass(scene, rng, int(rng.integers(1, 6)), float(rng.choice([0, 1.5, 4])))
    return _encoded(exposed(scene, rng, rng), upright, rng)


def _pose(size: tuple[int, int], side: bool, where: np.random.Generator, rng: np.random.Generator) -> Pose:
    heading = where.normal(0, 0.45) if not side else where.normal(0, 0.2)
    opening = where.beta(4, 1.3)
    unit = min(size) * float(np.clip(rng.normal(0.42, 0.06), 0.26, 0.54))
    tilt = rng.uniform(0.8, 1.0, 2)
    return Pose(
        side=side,
        turn=heading + rng.normal(0, 0.16),
        unit=unit,
        open_left=float(np.clip(opening * tilt[0], 0.5, 1)),
        open_right=float(np.clip(opening * tilt[1], 0.5, 1)),
        spread=math.radians(rng.uniform(9, 32)),
        centre=(
            size[0] * float(np.clip(rng.normal(0.5, 0.07), 0.3, 0.7)),
            size[1] * float(np.clip(rng.normal(0.5 if not side else 0.6, 0.06), 0.35, 0.7)),
        ),
    )


def _settle(scene: Image.Image, animal: Image.Image, rng: np.random.Generator) -> None:
    """Draw the animal into the scene, with shadow and focus blur."""
    alpha = animal.getchannel("A")
    small = alpha.reduce(4).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 5)))
    soft = small.resize(scene.size, Image.Resampling.BILINEAR)
    shift = (int(rng.integers(-14, 15)), int(rng.integers(4, 20)))
    scene.paste((12, 16, 10), shift, soft.point(lambda value: value * 0.5))
    blur = max(0.0, rng.gamma(1.2, 0.6) - 0.3)
    part, corner = scenery.focus(animal, blur if blur > 0.25 else 0)
    scene.paste(part, corner, part)


def exposed(image: Image.Image, rng: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Apply exposure, white balance and contrast (of `rng`), and noise (of `grain`).

    The picture has at most 810 pixels a side.
    """
    gain = float(np.exp(rng.normal(0, 0.1)))
    balance = 1 + rng.normal(0, 0.03, 3)
    contrast = rng.uniform(0.88, 1.18)
    steps = np.arange(256) / 255
    tables = [np.clip((steps * gain * b - 0.45) * contrast + 0.45, 0, 1) * 255 for b in balance]
    image = image.point([int(value) for table in tables for value in table])
    left, top = grain.integers(0, 200, 2)
    tile = _noise(int(grain.integers(1, 7)))
    tile = tile.crop((left, top, left + image.width, top + image.height))
    return ImageChops.add(image, tile, 1, -128)


def _encoded(image: Image.Image, upright: bool, rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    if upright:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ExifTags.Base.Orientation] = _ROTATED
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(82, 93)), exif=exif)
    return buffer.getvalue()


@lru_cache(maxsize=6)
def _noise(strength: int) -> Image.Image:
    """Return sensor noise around 128, 200 pixels larger than any photo on each side."""
    noise = random.generator(0, "noise").normal(128, strength, (1010, 1010))
    return Image.fromarray(noise.astype(np.uint8)).convert("RGB")
