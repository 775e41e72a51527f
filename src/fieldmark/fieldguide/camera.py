"""One photo of one animal, from the pose to the JPEG: a pure function of (seed, species, photo)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fieldmark import sampling
from fieldmark.fieldguide import scenery
from fieldmark.fieldguide.scenery import Matrix, rotation, stamp
from fieldmark.fieldguide.species import Species
from fieldmark.fieldguide.wings import SCALE, Look, look, paint, wing

Point = tuple[float, float]

_SIZES = ((800, 600), (800, 600), (800, 533), (768, 576), (800, 640))
_ROTATED = 6  # EXIF orientation: to be turned a quarter clockwise for viewing
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Pose:
    """How the animal sits and is seen; angles in radians, lengths in pixels."""

    side: bool  # seen from the side, wings closed
    turn: float
    unit: float  # pixels per wing length
    open_left: float  # foreshortening of the wings, 0 edge-on ... 1 flat
    open_right: float
    spread: float  # by how much the forewings are drawn forward
    centre: Point


def size_of(seed: int, photo: str) -> tuple[int, int]:
    """Width and height of a photo in pixels as seen, that is after EXIF orientation."""
    rng = sampling.generator(seed, "size", photo)
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    return (height, width) if rng.random() < 0.12 else (width, height)


def photograph(species: Species, seed: int, individual: str, photo: str) -> bytes:
    """The JPEG of one photo; photos of one individual show the same animal in the same place."""
    where = sampling.generator(seed, "place", individual)
    rng = sampling.generator(seed, "photo", photo)
    size = size_of(seed, photo)
    upright = size[1] > size[0]
    side = bool(where.random() < 0.2)
    pose = _pose(size, side, where, rng)
    scene = _scene(size, pose, where)
    _settle(scene, _animal(species, look(species, seed, individual), pose, size, rng), rng)
    if where.random() < 0.5:
        grass = scenery.blades(size, rng, int(rng.integers(1, 6)), float(rng.choice([0, 1.5, 5])))
        scene.paste(grass, (0, 0), grass)
    return _expose(scene, upright, rng)


def _pose(
    size: tuple[int, int], side: bool, where: np.random.Generator, rng: np.random.Generator
) -> Pose:
    heading = where.normal(0, 0.6) if not side else where.normal(0, 0.25)
    opening = where.beta(4, 1.3)
    unit = min(size) * float(np.clip(rng.normal(0.36, 0.07), 0.2, 0.5))
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


def _scene(size: tuple[int, int], pose: Pose, rng: np.random.Generator) -> Image.Image:
    """What the animal sits on, and what is behind."""
    kind = str(rng.choice(["leaf", "flower", "ground"], p=[0.4, 0.35, 0.25]))
    if kind == "ground" and not pose.side:
        return scenery.ground(size, rng)
    scene = scenery.backdrop(size, rng)
    x, y = pose.centre
    y += 0.1 * pose.unit if pose.side else 0
    if kind == "leaf":
        for depth in range(int(rng.integers(1, 4)), 0, -1):
            off = 0 if depth == 1 else rng.normal(0, 160, 2)
            middle = np.array([x, y + (0.45 * pose.unit if pose.side else 0)]) + off
            _put(
                scene, scenery.leaf(int(rng.integers(scenery.LEAVES))), middle, rng, 3.2, depth - 1
            )
    else:
        for depth in range(int(rng.integers(1, 5)), 0, -1):
            off = rng.normal(0, 12, 2) if depth == 1 else rng.normal(0, 210, 2)
            middle = np.array([x, y + (0.7 * pose.unit if pose.side else 0)]) + off
            _stalk(scene, middle, rng)
            kind_of = scenery.flower(int(rng.integers(scenery.FLOWERS)))
            _put(scene, kind_of, middle, rng, 1.75 if depth == 1 else 1.2, depth - 1, pose.unit)
    return scene


def _put(
    scene: Image.Image,
    prop: Image.Image,
    centre: npt.NDArray[np.float64],
    rng: np.random.Generator,
    width: float,
    depth: int,
    unit: float = 215,
) -> None:
    """Place a leaf or a flower; what lies deeper is further out of focus."""
    if depth:
        prop = prop.reduce(3).filter(ImageFilter.GaussianBlur(1.2 * depth))
    pixels = width * unit * rng.uniform(0.85, 1.2)
    scenery.place(scene, prop, centre, pixels, rng.uniform(0, 2 * math.pi))


def _stalk(scene: Image.Image, top: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
    foot = (top[0] + rng.normal(0, 60), scene.height + 10)
    ImageDraw.Draw(scene).line((top[0], top[1], *foot), (74, 104, 52), int(rng.integers(5, 11)))


def _animal(
    species: Species, animal: Look, pose: Pose, size: tuple[int, int], rng: np.random.Generator
) -> Image.Image:
    """The animal alone, RGBA, as large as the photo."""
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    front = paint(species, animal, front=True, underside=pose.side)
    hind = paint(species, animal, front=False, underside=pose.side)
    if pose.side:
        _from_the_side(layer, species, front, hind, pose)
    else:
        _from_above(layer, species, front, hind, pose, rng)
    return layer


def _from_above(
    layer: Image.Image,
    species: Species,
    front: Image.Image,
    hind: Image.Image,
    pose: Pose,
    rng: np.random.Generator,
) -> None:
    light = rng.uniform(-0.14, 0.14)
    turn = rotation(pose.turn)
    for first in (False, True):  # hindwings below forewings
        for sign, opened in ((-1, pose.open_left), (1, pose.open_right)):
            angle = -pose.spread if first else 0.15 * pose.spread
            to_body = np.diag([sign * opened, 1.0]) @ rotation(angle)
            matrix = turn @ (np.diag([1.0, -1.0]) @ to_body) * pose.unit
            at = turn @ np.array([sign * 0.035, -0.06 if first else 0.04]) * pose.unit
            root = (pose.centre[0] + at[0], pose.centre[1] + at[1])
            shade = (0.72 + 0.28 * opened) * (1 + sign * light)
            picture, place = (front, species.front) if first else (hind, species.hind)
            _wing(layer, picture, wing(place, first).root, matrix, root, shade, edge=first)
    _body(layer, species, pose, turn)


def _from_the_side(
    layer: Image.Image, species: Species, front: Image.Image, hind: Image.Image, pose: Pose
) -> None:
    turn = rotation(pose.turn)
    sign = 1 if pose.open_left > pose.open_right else -1
    mirror = np.diag([float(sign), 1.0])
    for picture, place, first, angle, shade in (
        (front, species.front, True, 0.75, 0.86),
        (front, species.front, True, 0.62, 1.0),
        (hind, species.hind, False, 1.75, 1.0),
    ):
        matrix = turn @ mirror @ np.diag([1.0, -1.0]) @ rotation(angle) * pose.unit
        _wing(layer, picture, wing(place, first).root, matrix, pose.centre, shade, edge=not first)
    _body(layer, species, pose, turn @ mirror @ rotation(math.pi / 2 - 0.15))


def _wing(
    layer: Image.Image,
    picture: Image.Image,
    root: Point,
    matrix: Matrix,
    at: Point,
    shade: float,
    *,
    edge: bool,
) -> None:
    """Lay one wing over the layer; with a shadow at its edge if it lies above another one."""
    to_pixels = matrix / SCALE @ np.diag([1.0, -1.0])  # of the flat picture
    stamped = stamp(layer.size, picture, to_pixels, np.array(at) - to_pixels @ np.array(root))
    if stamped is None:
        return
    moved, corner = stamped
    red, green, blue, alpha = moved.split()
    if edge:
        soft = alpha.filter(ImageFilter.BoxBlur(5)).point(lambda value: value * 0.45)
        there = layer.getchannel("A").crop(
            (*corner, corner[0] + moved.width, corner[1] + moved.height)
        )
        dark = Image.composite(soft, Image.new("L", soft.size, 0), there)
        shadow = Image.merge("RGBA", [Image.new("L", soft.size, 0)] * 3 + [dark])
        layer.alpha_composite(shadow, corner)
    table = [min(255, int(value * shade)) for value in range(256)]
    lit = Image.merge("RGBA", [*(band.point(table) for band in (red, green, blue)), alpha])
    layer.alpha_composite(lit, corner)


def _body(layer: Image.Image, species: Species, pose: Pose, turn: Matrix) -> None:
    """Abdomen, thorax, head and antennae, drawn at twice the size."""
    reach = round(pose.unit * 0.75)
    corner = (round(pose.centre[0]) - reach, round(pose.centre[1]) - reach)
    patch = Image.new("RGBA", (reach * 4, reach * 4), (0, 0, 0, 0))
    draw = ImageDraw.Draw(patch)
    dark, inner = np.array(species.palette.dark), np.array(species.palette.inner)

    def at(x: float, y: float) -> Point:
        px, py = turn @ np.array([x, y]) * pose.unit
        return 2 * (reach + px), 2 * (reach + py)

    def blob(y: float, radius: float, tone: npt.NDArray[np.float64]) -> None:
        x, y = at(0, y)
        r = 2 * radius * pose.unit
        fill = tuple(int(v) for v in np.clip(tone * 255, 0, 255))
        draw.ellipse((x - r, y - r, x + r, y + r), (*fill, 255))

    fur = 0.6 * dark + 0.25 * inner
    for sign in (-1, 1):
        arc = [at(sign * (0.015 + 0.26 * s**1.2), -0.17 - 0.36 * s) for s in np.linspace(0, 1, 9)]
        tone = tuple(int(v * 200) for v in dark)
        draw.line(arc, (*tone, 255), max(2, round(pose.unit * 0.014)), joint="curve")
        x, y = arc[-1]
        r = max(2.0, pose.unit * 0.02)
        draw.ellipse((x - r, y - r, x + r, y + r), (*tone, 255))
    for step in range(26):  # the abdomen, from its end
        y = 0.46 - 0.019 * step
        ring = 1.25 if step % 3 == 0 else 1.0
        blob(y, 0.02 + 0.021 * math.sin(math.pi * min(1, (step + 3) / 26)), fur * ring)
    for step in range(10):  # thorax: shorter rings towards the light make it round
        blob(-0.04, 0.062 * (1 - step / 12), fur * (0.9 + 0.05 * step))
    blob(-0.135, 0.036, dark * 0.9)
    layer.alpha_composite(*_cut(patch.resize((reach * 2, reach * 2), Image.Resampling.BOX), corner))


def _cut(patch: Image.Image, corner: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """The part of a patch that lies right of and below the edge of the picture."""
    left, top = max(0, -corner[0]), max(0, -corner[1])
    part = patch.crop((left, top, patch.width, patch.height))
    return part, (max(0, corner[0]), max(0, corner[1]))


def _settle(scene: Image.Image, animal: Image.Image, rng: np.random.Generator) -> None:
    """Put the animal into the scene, with its shadow and the camera's focus."""
    alpha = animal.getchannel("A")
    small = alpha.reduce(4).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 5)))
    soft = small.resize(scene.size, Image.Resampling.BILINEAR)
    shift = (int(rng.integers(-14, 15)), int(rng.integers(4, 20)))
    scene.paste((12, 16, 10), shift, soft.point(lambda value: value * 0.5))
    blur = max(0.0, rng.gamma(1.2, 0.6) - 0.3)
    left, top, right, bottom = alpha.getbbox() or (0, 0, 1, 1)
    corner = (max(0, left - 8), max(0, top - 8))
    animal = animal.crop((*corner, right + 8, bottom + 8))
    if blur > 0.25:
        animal = animal.filter(ImageFilter.GaussianBlur(blur))
    scene.paste(animal, corner, animal)


def _expose(image: Image.Image, upright: bool, rng: np.random.Generator) -> bytes:
    """White balance, exposure, contrast, vignette, noise, JPEG."""
    gain = float(np.exp(rng.normal(0, 0.13)))
    balance = 1 + rng.normal(0, 0.045, 3)
    contrast = rng.uniform(0.88, 1.18)
    steps = np.arange(256) / 255
    tables = [np.clip((steps * gain * b - 0.45) * contrast + 0.45, 0, 1) * 255 for b in balance]
    image = image.point([int(value) for table in tables for value in table])
    grain = rng.uniform(1, 7)
    top, left = rng.integers(0, 200, 2)
    tile = _noise()[top : top + image.height, left : left + image.width]
    pixels = np.asarray(image).astype(np.int16) + (tile * grain).astype(np.int16)[..., None]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    if upright:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[_ORIENTATION_TAG] = _ROTATED
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(82, 93)), exif=exif)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _noise() -> npt.NDArray[np.float32]:
    """Sensor noise, standard deviation 1, larger than any photo by 200 pixels each way."""
    return sampling.generator(0, "noise").normal(0, 1, (1010, 1010)).astype(np.float32)
