"""Draw one animal in its pose: four wings in perspective, and a body."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fieldmark.data.synthetic.scenery import rotation, stamp
from fieldmark.data.synthetic.species import Species
from fieldmark.data.synthetic.wings import SCALE, Appearance, Point, paint, wing
from fieldmark.utils.typing import DoubleArray


@dataclass(frozen=True)
class Pose:
    """The pose of the animal and the view; angles in radians, lengths in pixels."""

    side: bool  # seen from the side, wings closed
    turn: float
    unit: float  # pixels per wing length
    open_left: float  # foreshortening of the wings, 0 edge-on ... 1 flat
    open_right: float
    spread: float  # by how much the forewings are drawn forward
    centre: Point


def draw_animal(
    species: Species, animal: Appearance, pose: Pose, size: tuple[int, int], light: float
) -> Image.Image:
    """Draw the animal as RGBA in the photo's size; `light` comes from the left (-) or right (+)."""
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    front, hind = (paint(species, animal, front=first, underside=pose.side) for first in (True, False))
    if pose.side:
        _from_the_side(layer, species, front, hind, pose)
    else:
        _from_above(layer, species, front, hind, pose, light=light)
    return layer


def _from_above(
    layer: Image.Image, species: Species, front: Image.Image, hind: Image.Image, pose: Pose, *, light: float
) -> None:
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
            _wing(layer, picture, wing(place, first).root, matrix, root, shade=shade, edge=first)
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
        _wing(layer, picture, wing(place, first).root, matrix, pose.centre, shade=shade, edge=not first)
    _body(layer, species, pose, turn @ mirror @ rotation(math.pi / 2 - 0.15))


def _wing(
    layer: Image.Image,
    picture: Image.Image,
    root: Point,
    matrix: DoubleArray,
    at: Point,
    *,
    shade: float,
    edge: bool,
) -> None:
    """Draw one wing over the layer, with a shadow at its edge if `edge`."""
    to_pixels = matrix / SCALE @ np.diag([1.0, -1.0])  # of the flat picture
    stamped = stamp(layer.size, picture, to_pixels, np.array(at) - to_pixels @ np.array(root))
    if stamped is None:
        return
    moved, corner = stamped
    red, green, blue, alpha = moved.split()
    if edge:
        soft = alpha.filter(ImageFilter.BoxBlur(5)).point(lambda value: value * 0.45)
        there = layer.getchannel("A").crop((*corner, corner[0] + moved.width, corner[1] + moved.height))
        dark = Image.composite(soft, Image.new("L", soft.size, 0), there)
        shadow = Image.merge("RGBA", [Image.new("L", soft.size, 0)] * 3 + [dark])
        layer.alpha_composite(shadow, corner)
    table = [min(255, int(value * shade)) for value in range(256)]
    lit = Image.merge("RGBA", [*(band.point(table) for band in (red, green, blue)), alpha])
    layer.alpha_composite(lit, corner)


def _body(layer: Image.Image, species: Species, pose: Pose, turn: DoubleArray) -> None:
    """Draw abdomen, thorax, head and antennae, at twice the size."""
    reach = round(pose.unit * 0.6)
    corner = (round(pose.centre[0]) - reach, round(pose.centre[1]) - reach)
    patch = Image.new("RGBA", (reach * 4, reach * 4), (0, 0, 0, 0))
    draw = ImageDraw.Draw(patch)
    dark, inner = np.array(species.palette.dark), np.array(species.palette.inner)

    def at(x: float, y: float) -> Point:
        px, py = turn @ np.array([x, y]) * pose.unit
        return 2 * (reach + px), 2 * (reach + py)

    def blob(y: float, radius: float, tone: DoubleArray) -> None:
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
    # `alpha_composite` takes no place left of the image or above it.
    start = tuple(max(0, -at) for at in corner)
    layer.alpha_composite(patch.reduce(2), tuple(max(0, at) for at in corner), start)
