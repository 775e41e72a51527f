"""Draw the photos of stations: a fixed background, the light of the hour, and what passes.

A photo is a pure function of (seed, visit, frame). What passes is drawn on a transparent ground first, so
that its box is known to the pixel.
"""

from __future__ import annotations

import io
import math
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter

from fieldmark.data.synthetic import scenery
from fieldmark.data.synthetic.animal import Pose, draw_animal
from fieldmark.data.synthetic.camera import exposed
from fieldmark.data.synthetic.species import Species
from fieldmark.data.synthetic.station_plan import FIRST_SPECIES, HUMAN, Passer, Visit
from fieldmark.data.synthetic.wings import appearance_of
from fieldmark.utils import random

Box = tuple[int, int, int, int]  # left, top, width, height in pixels
CAMERA = "Fieldmark Drawn Camera"
_SCENE = (640, 480)  # that backgrounds are drawn at
_UNIT = 110  # pixels of a wing's length, drawn before it is made as small as in the photo
_FAINT = 8  # opacity, of 255, below which nothing is drawn: a box has a sharp edge
_FLASH = 0.3  # the share of infrared light that reaches the corners


def jpeg(visit: Visit, frame: int, picture: Image.Image) -> bytes:
    """Encode a photo, with the time, the place and the camera as EXIF data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = CAMERA.split(" ", 1)
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: shown_time(visit, frame).strftime("%Y:%m:%d %H:%M:%S"),
        ExifTags.Base.BodySerialNumber: visit.station.name,
    }
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: _degrees(visit.station.latitude),
        ExifTags.GPS.GPSLongitudeRef: "E",
        ExifTags.GPS.GPSLongitude: _degrees(visit.station.longitude),
    }
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, exif=exif)
    return buffer.getvalue()


def shown_time(visit: Visit, frame: int) -> datetime:
    """Return the time that the camera's clock shows at one frame."""
    return visit.taken + timedelta(seconds=visit.seconds[frame]) - visit.station.slow


def _degrees(angle: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(round(angle * 3600, 2), 60)
    return (minutes // 60, minutes % 60, round(seconds, 2))


def photo(
    visit: Visit,
    frame: int,
    species: tuple[Species, ...],
    size: tuple[int, int],
    seed: int,
    *,
    shown: bool = True,
) -> tuple[Image.Image, list[tuple[int, Box]]]:
    """Draw one photo; return it with the category and the box of all in it that is not background.

    Without `shown` the same photo is drawn without them, and there are no boxes.
    """
    background, blades = _background(visit.station.name, size, seed)
    rng = random.generator(seed, "station photo", visit.id, frame)
    sway = round(float(rng.normal(0, 0.012)) * size[0])  # of the blades, in the wind
    picture, boxes = background.copy(), []
    for passer in visit.passers if shown else ():
        layer, corner = _sprite(passer, visit, frame, species, size, seed)
        there = Image.new("L", size)
        there.paste(layer.getchannel("A"), corner)
        left, top, right, bottom = there.getbbox() or (0, 0, 0, 0)
        if min(right - left, bottom - top) < 4:
            continue  # out of the photo
        picture.paste(layer, corner, layer)
        boxes.append((passer.category, (left, top, right - left, bottom - top)))
    picture.paste(blades, (sway, 0), blades)
    light = random.generator(seed, "exposure", visit.id)  # the same in all frames of a burst
    return _lit(exposed(picture, light, rng), visit, light), boxes


def _lit(picture: Image.Image, visit: Visit, rng: np.random.Generator) -> Image.Image:
    """Give a photo the light of its hour: grey and darker towards the corners at night, by day patches of
    sun and shadow, warm at dusk."""
    if visit.night:
        flash = ImageChops.multiply(picture.convert("L"), _flash(picture.size))
        return flash.convert("RGB")
    hour = visit.taken.hour + visit.taken.minute / 60
    low = max(0.0, 1 - min(hour - 6, 20 - hour) / 2)  # 1 at sunrise and sunset
    tables = [min(255, int(v * (1 - fall * low))) for fall in (0.22, 0.42, 0.55) for v in range(256)]
    patches = scenery.smooth(rng.uniform(110, 255, (4, 6)), picture.size[::-1]).clip(60, 255)
    shade = Image.fromarray(patches.astype(np.uint8))
    return ImageChops.multiply(picture.point(tables), Image.merge("RGB", [shade] * 3))


@lru_cache(maxsize=2)
def _flash(size: tuple[int, int]) -> Image.Image:
    ys, xs = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    light = _FLASH + (1 - _FLASH) * np.exp(-1.2 * (xs**2 + ys**2))
    return Image.fromarray((light * 255).astype(np.uint8))


@lru_cache(maxsize=32)
def _background(station: str, size: tuple[int, int], seed: int) -> tuple[Image.Image, Image.Image]:
    """Draw what a station's camera always sees, and the blades of grass in front of it all (RGBA)."""
    rng = random.generator(seed, "background", station)
    picture = scenery.backdrop(_SCENE, rng)
    _trunks(picture, rng)
    horizon = rng.uniform(0.3, 0.55)
    rows = np.clip((np.linspace(0, 1, _SCENE[1]) - horizon) * 12, 0, 1)
    fade = np.repeat((rows * 255).astype(np.uint8)[:, None], _SCENE[0], 1)
    picture.paste(scenery.ground(_SCENE, rng), (0, 0), Image.fromarray(fade))
    for _ in range(int(rng.integers(4, 12))):  # leaves and flowers, no larger than the animals
        draw, count = (scenery.leaf, scenery.LEAVES), (scenery.flower, scenery.FLOWERS)
        prop, most = draw if rng.random() < 0.6 else count
        middle = np.array([rng.uniform(0, _SCENE[0]), rng.uniform(horizon, 1) * _SCENE[1]])
        shown = prop(int(rng.integers(most))).reduce(4)
        scenery.place(picture, shown, middle, rng.uniform(25, 110), rng.uniform(0, 2 * math.pi))
    blades = Image.new("RGBA", _SCENE, (0, 0, 0, 0))
    scenery.grass(blades, rng, int(rng.integers(2, 8)), float(rng.choice([0, 1.5, 4])))
    return picture.resize(size), blades.resize(size)


def _trunks(picture: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 7))):
        x, half, lean = rng.uniform(0, _SCENE[0]), rng.uniform(5, 32), rng.normal(0, 25)
        tone = np.array([92, 74, 56]) * rng.uniform(0.5, 1.5)
        for share in np.linspace(1, 0.1, 12):  # lighter towards the middle: round
            edges = (x - half * share, _SCENE[1]), (x + half * share, _SCENE[1])
            top = (x + lean + half * share * 0.7, 0), (x + lean - half * share * 0.7, 0)
            draw.polygon((*edges, *top), tuple(int(c) for c in tone * (1.35 - 0.6 * share)))


def _sprite(
    passer: Passer, visit: Visit, frame: int, species: tuple[Species, ...], size: tuple[int, int], seed: int
) -> tuple[Image.Image, tuple[int, int]]:
    """Draw what passes as RGBA, as large as in the photo, and return it with its corner there."""
    rng = random.generator(seed, "pose", passer.individual, frame)
    if passer.category >= FIRST_SPECIES:
        layer = _animal(species[passer.category - FIRST_SPECIES], passer, rng, seed)
    else:
        draw = _person if passer.category == HUMAN else _vehicle
        layer = draw(random.generator(seed, "look", passer.individual))
    layer = layer.crop(layer.getbbox())
    scale = passer.size * size[0] * float(rng.uniform(0.92, 1.08)) / max(layer.size)
    width, height = (max(1, round(side * scale)) for side in layer.size)
    layer = layer.resize((width, height), Image.Resampling.BICUBIC)
    blur = abs(passer.speed[0]) * size[0] * float(rng.uniform(0, 0.12)) if rng.random() < 0.25 else 0.0
    if blur > 0.5:  # it moves while the shutter is open
        margin = math.ceil(blur) + 1
        wide = Image.new("RGBA", (layer.width + 2 * margin, layer.height), (0, 0, 0, 0))
        wide.paste(layer, (margin, 0))
        layer = wide.convert("RGBa").filter(ImageFilter.BoxBlur((blur, 0))).convert("RGBA")
    alpha = layer.getchannel("A").point(lambda value: value if value >= _FAINT else 0)
    layer.putalpha(alpha)
    seconds = visit.seconds[frame]
    middle = (start + speed * seconds for start, speed in zip(passer.start, passer.speed, strict=True))
    x, y = (at * side for at, side in zip(middle, size, strict=True))
    return layer, (round(x - layer.width / 2), round(y - layer.height / 2))


def _animal(species: Species, passer: Passer, rng: np.random.Generator, seed: int) -> Image.Image:
    own = random.generator(seed, "own pose", passer.individual)
    opening, tilt = own.beta(4, 1.3), rng.uniform(0.7, 1.0, 2)
    ahead = math.copysign(own.uniform(0.1, 0.9), passer.speed[0])
    side = 3 * _UNIT
    pose = Pose(
        side=bool(own.random() < 0.15),
        turn=ahead + rng.normal(0, 0.25),
        unit=_UNIT,
        open_left=float(np.clip(opening * tilt[0], 0.4, 1)),
        open_right=float(np.clip(opening * tilt[1], 0.4, 1)),
        spread=math.radians(rng.uniform(9, 32)),
        centre=(side / 2, side / 2),
    )
    light = float(own.uniform(-0.14, 0.14))
    return draw_animal(species, appearance_of(species, seed, passer.individual), pose, (side, side), light)


def _person(rng: np.random.Generator) -> Image.Image:
    """Draw a simple figure, 150 by 400 pixels."""
    layer = Image.new("RGBA", (150, 400), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    coat, legs = (tuple(int(c) for c in rng.integers(30, 200, 3)) for _ in range(2))
    stride = int(rng.integers(10, 40))
    for foot, hand in ((75 - stride, 118), (75 + stride, 32)):
        draw.line((75, 210, foot, 390), legs, 34)
        draw.line((75, 100, hand, 215), coat, 26)
    draw.rounded_rectangle((45, 75, 105, 240), 24, coat)
    draw.ellipse((50, 8, 100, 70), (205, 160, 130))
    draw.pieslice((48, 4, 102, 66), 180, 360, (60, 45, 35))
    return layer


def _vehicle(rng: np.random.Generator) -> Image.Image:
    """Draw a simple car, 400 by 200 pixels."""
    layer = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    paint = tuple(int(c) for c in rng.integers(40, 220, 3))
    draw.polygon([(80, 80), (120, 14), (285, 14), (335, 80)], paint)
    draw.polygon([(98, 80), (130, 28), (190, 28), (190, 80)], (170, 195, 205))
    draw.polygon([(205, 80), (205, 28), (276, 28), (312, 80)], (170, 195, 205))
    draw.rounded_rectangle((6, 76, 394, 162), 22, paint)
    for middle in (95, 305):
        draw.ellipse((middle - 38, 122, middle + 38, 198), (25, 25, 25))
        draw.ellipse((middle - 16, 144, middle + 16, 176), (150, 150, 150))
    return layer if rng.random() < 0.5 else layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
