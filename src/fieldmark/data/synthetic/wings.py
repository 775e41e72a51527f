"""Paint the wings of one animal, flat: outline, veins, bands, eyespots, wear.

Coordinates of a wing: `t` from its lower to its upper edge, `u` from the root (0) to the outer edge (1).
Marks given in `u` and `t` fit a wing of any outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldmark.data.synthetic.scenery import smooth
from fieldmark.data.synthetic.species import Colour, Outline, Palette, Species
from fieldmark.utils import random
from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray

Point = tuple[float, float]

SCALE = 240  # pixels per wing length
_LEFT, _RIGHT = -0.12, 1.14  # of the canvas, in wing lengths; the root is the origin
_TOP, _BOTTOM = {True: 1.08, False: 0.4}, {True: -0.4, False: -1.25}  # of fore- and hindwing
_VEINS = 8


@dataclass(frozen=True)
class Wing:
    """The P pixels of one wing and their positions; lengths in wing lengths."""

    shape: tuple[int, int]  # of the canvas
    root: Point  # of the canvas, x and y in pixels
    index: IntArray  # (P,) into the flat canvas
    x: FloatArray
    y: FloatArray
    u: FloatArray
    t: FloatArray
    r: FloatArray
    reach: FloatArray  # the outer edge's distance from the root in this direction
    span: FloatArray  # the width of the wing here, across the veins
    alpha: FloatArray  # 0 outside ... 1 inside
    grain: FloatArray  # the fine texture of the scales, about 0 +- 1


@dataclass(frozen=True)
class Appearance:
    """The individual appearance of an animal, the same on all its photos."""

    palette: Palette
    size_of_marks: float
    wear: float  # 0 fresh ... 1 rubbed
    key: str  # the seed of its small irregularities


def appearance_of(species: Species, seed: int, individual: str) -> Appearance:
    """Draw an animal of a species: variations of colours and marks, and the wear of its wings."""
    rng = random.generator(seed, "individual", individual)
    tint = 1 + rng.normal(0, 0.03, 3)
    fade = rng.beta(1.2, 4) * 0.32
    colours = (
        _faded(species.palette[name], tint, fade * 0.5 if name == "dark" else fade)
        for name in ("inner", "outer", "dark", "pale", "accent")
    )
    size, wear = float(rng.normal(1, 0.09)), float(rng.beta(1.3, 3))
    return Appearance(Palette(*colours), size, wear, f"{seed}/{individual}")


def _faded(colour: Colour, tint: DoubleArray, fade: float) -> Colour:
    grey = sum(colour) / 3 * 0.6 + 0.28
    faded = ((c * (1 - fade) + grey * fade) * k for c, k in zip(colour, tint, strict=True))
    red, green, blue = (min(1.0, max(0.0, c)) for c in faded)
    return red, green, blue


@lru_cache(maxsize=16)
def wing(outline: Outline, front: bool) -> Wing:
    """Compute the pixels of a wing with this outline."""
    top, bottom = _TOP[front], _BOTTOM[front]
    height, width = round((top - bottom) * SCALE), round((_RIGHT - _LEFT) * SCALE)
    ys = top - (np.arange(height, dtype=np.float32)[:, None] + 0.5) / SCALE
    xs = _LEFT + (np.arange(width, dtype=np.float32)[None, :] + 0.5) / SCALE
    r = np.hypot(xs, ys)
    angle = np.degrees(np.arctan2(ys, xs))
    bend = np.sin(np.pi * np.clip(r, 0, 1))
    low = outline.low + outline.bulge[0] * bend
    high = outline.high + outline.bulge[1] * bend
    t = (angle - low) / (high - low)
    plain, reach = _edge(outline, t)
    width_here = np.radians(high - low) * r
    inside = np.minimum((reach - r), np.minimum(t, 1 - t) * width_here + 0.012)
    alpha = np.clip(inside * SCALE + 0.5, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
    # The bounding box of the wing, with a margin of one pixel.
    window = tuple(slice(max(0, int(at[0]) - 1), int(at[-1]) + 2) for at in (rows, columns))
    index = np.flatnonzero(alpha[window])

    def pick(values: npt.NDArray[np.floating]) -> FloatArray:
        return np.broadcast_to(values, alpha.shape)[window].ravel()[index].astype(np.float32)

    u, tt = pick(r / plain), pick(np.clip(t, 0, 1))
    table = random.generator(0, "scales").normal(0, 1, (24, 400)).astype(np.float32)
    streaks = table[np.clip(u * 18, 0, 23).astype(int), (tt * 399).astype(int)]
    dust = random.generator(1, "scales").normal(0, 1, index.size).astype(np.float32)
    return Wing(
        shape=alpha[window].shape,
        root=(-_LEFT * SCALE - window[1].start, top * SCALE - window[0].start),
        index=index,
        x=pick(xs),
        y=pick(ys),
        u=u,
        t=tt,
        r=pick(r),
        reach=pick(reach),
        span=pick(width_here),
        alpha=pick(alpha),
        grain=(0.6 * streaks + 0.6 * dust).astype(np.float32),
    )


def _edge(outline: Outline, t: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
    """Return the distance of the outer edge at `t`, without and with scallops and tail."""
    steps = np.linspace(0, 1, 257)
    coarse = np.interp(steps, np.linspace(0, 1, len(outline.radii)), outline.radii)
    kernel = np.hanning(41)
    smooth = np.convolve(np.pad(coarse, 20, mode="edge"), kernel / kernel.sum(), mode="valid")
    detailed = smooth - outline.scallop * np.abs(np.cos(np.pi * _VEINS * steps)) ** 3
    if outline.tail:
        spike = np.exp(-(np.abs((steps - 0.3) / 0.052) ** 1.7))
        knob = np.exp(-(((steps - 0.3) / 0.034) ** 2))
        detailed = detailed + outline.tail * (0.75 * spike + 0.35 * knob)
    inside = np.clip(t, 0, 1)
    plain = np.interp(inside, steps, smooth).astype(np.float32)
    return plain, np.interp(inside, steps, detailed).astype(np.float32)


class Painter:
    """Colours one wing of one animal, mark after mark."""

    def __init__(self, species: Species, animal: Appearance, front: bool) -> None:
        self.wing = wing(species.front if front else species.hind, front)
        self.front, self.palette, self.marks = front, animal.palette, species.marks
        self.animal, self.size = animal, animal.size_of_marks
        self.rgb = np.zeros((self.wing.index.size, 3), np.float32)
        self.alpha = self.wing.alpha.copy()

    def lay(self, colour: Colour, cover: npt.NDArray[np.floating[Any]], at: IntArray | None = None) -> None:
        """Blend a colour with opacity `cover` over every pixel, or over those `at`."""
        ink = np.array(colour, np.float32)
        if at is None:
            at = np.flatnonzero(cover > 0)
            if 2 * at.size > cover.size:
                self.rgb += (ink - self.rgb) * cover[:, None]
                return
            cover = cover[at]  # most marks are small
        self.rgb[at] += (ink - self.rgb[at]) * cover[:, None]

    def ground(self) -> None:
        """Paint the colours below all marks."""
        u, palette = self.wing.u, self.palette
        self.lay(palette.inner, np.ones_like(u))
        self.lay(palette.outer, _ramp((u - 0.15) / 0.75))
        if self.marks.flush and not self.front:
            self.lay(palette[self.marks.flush], 0.9 * _ramp((0.56 - u) / 0.12))
        self.lay(palette.dark, 0.55 * _ramp((0.22 - u) / 0.22))

    def pattern(self) -> None:
        """Draw band, bars, tip, veins and border."""
        place, palette, marks, front = self.wing, self.palette, self.marks, self.front
        u, t = place.u, place.t
        wave = 0.018 * np.sin(t * np.pi * 2 * _VEINS)
        if marks.band:
            middle = marks.band_at + (0.1 * (t - 0.5) if front else -0.04) + wave
            half = 0.075 * self.size * (1 + 0.5 * np.cos(t * np.pi * 3))
            self.lay(palette[marks.band], _ramp((half - np.abs(u - middle)) / 0.02 + 0.5))
        for number in range(marks.bars if front else 0):
            across = np.abs(u - (0.2 + 0.13 * number)) - 0.03 * self.size
            cell = _ramp((t - 0.42) / 0.05) * _ramp((0.95 - t) / 0.05)
            self.lay(palette.dark, cell * _ramp(-across / 0.012 + 0.5))
        if marks.tip and front:
            slope = u + 0.5 * (t - 0.8)
            self.lay(palette[marks.tip], 0.95 * _ramp((slope - 0.64 / self.size) / 0.06))
        self.lay(palette.dark, 0.9 * _veins(place, marks.veins))
        edge = 1 - place.r / place.reach
        costa = (1 - t) * place.span if front else np.ones_like(u)
        rim = marks.margin * self.size + wave
        self.lay(palette.dark, 0.95 * _ramp((rim - edge) / 0.025 + 0.5))
        self.lay(palette.dark, 0.95 * _ramp((0.03 - costa) / 0.012))

    def small_marks(self) -> None:
        """Draw pale spots in the border, eyespots and freckles."""
        marks = self.marks
        rng = random.generator(0, "small marks", self.animal.key, self.front)
        for row in range(marks.spots):
            u = 1 - marks.margin * (0.42 + 0.85 * row) - 0.012
            for cell in range(_VEINS):
                radius = (0.031 - 0.007 * row) * self.size * rng.uniform(0.85, 1.15)
                self.disc((u, (cell + 0.5) / _VEINS), radius, self.palette.pale)
        for at in _eyes(marks.eyes_front if self.front else marks.eyes_hind, self.front):
            self.eye(at, marks.eye_size * self.size * rng.uniform(0.92, 1.08))
        for _ in range(marks.freckles):
            at = (rng.uniform(0.25, 0.88), rng.uniform(0.08, 0.92))
            self.disc(at, rng.uniform(0.016, 0.027) * self.size, self.palette.dark)

    def disc(self, at: Point, radius: float, colour: Colour) -> None:
        """Draw a disc at (u, t)."""
        _, _, distance, near = self._around(at, radius + 0.01)
        self.lay(colour, _ramp((radius - distance) / 0.008), near)

    def _around(self, at: Point, reach: float) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
        """Return the pixels within `reach` of (u, t): x, y, distance, and their indexes."""
        place = self.wing
        centre = np.argmin(np.abs(place.u - at[0]) + np.abs(place.t - at[1]))
        dx, dy = place.x - place.x[centre], place.y - place.y[centre]
        near = np.flatnonzero((np.abs(dx) < reach) & (np.abs(dy) < reach))
        dx, dy = dx[near], dy[near]
        return dx, dy, np.hypot(dx, dy), near

    def eye(self, at: Point, radius: float) -> None:
        """Draw an eyespot: ring, dark disc, iris, and a white point."""
        dark = self.palette.dark
        dx, dy, distance, near = self._around(at, 1.25 * radius)
        distance = distance / radius
        self.lay(dark, 0.6 * _ramp((1.22 - distance) / 0.12), near)
        self.lay(self.palette[self.marks.eye_ring], _ramp((1.0 - distance) / 0.12), near)
        self.lay((0.6 * dark[0], 0.6 * dark[1], 0.6 * dark[2]), _ramp((0.74 - distance) / 0.1), near)
        iris = _ramp((0.46 - distance) / 0.16) * (0.55 + 0.45 * _ramp(dy / radius))
        self.lay(self.palette.accent, 0.7 * iris, near)
        glint = np.hypot(dx + 0.2 * radius, dy - 0.22 * radius) / radius
        self.lay((1, 1, 1), _ramp((0.2 - glint) / 0.1), near)

    def dull(self) -> None:
        """Make the ground colour duller: the underside."""
        red, green, blue = (
            0.35 * c + 0.65 * s for c, s in zip(self.palette.inner, (0.62, 0.5, 0.36), strict=True)
        )
        cloud = _cloud(self.wing, random.generator(0, "underside", self.animal.key), 9)
        self.lay((red, green, blue), np.full_like(self.wing.u, 0.34) + 0.1 * cloud)
        self.lay((0.2, 0.14, 0.09), 0.15 * _ramp(cloud - 0.4))

    def age(self) -> None:
        """Remove scales and tear the outer edge."""
        place, wear = self.wing, self.animal.wear
        rng = random.generator(0, "age", self.animal.key, self.front)
        rubbed = _ramp((_cloud(place, rng, 12) - 0.9 + 0.7 * wear) / 0.7)
        self.lay((0.62, 0.58, 0.52), 0.45 * wear * rubbed)
        if wear > 0.45:
            depth = (wear - 0.45) * 0.22
            notch = _ramp(_cloud(place, rng, 17) * 1.4 - 0.35)
            left = place.reach * (1 - depth * notch) - place.r
            self.alpha *= np.clip(left * SCALE + 0.5, 0, 1)


@lru_cache(maxsize=32)  # an animal is photographed several times
def paint(species: Species, animal: Appearance, *, front: bool, underside: bool) -> Image.Image:
    """Paint one wing of one animal as RGBA, flat, its root at `wing(...).root`."""
    painter = Painter(species, animal, front)
    painter.ground()
    painter.pattern()
    painter.small_marks()
    if underside:
        painter.dull()
    painter.age()
    place = painter.wing
    painter.rgb *= (1 + 0.045 * place.grain)[:, None]
    canvas = np.zeros((*place.shape, 4), np.uint8).reshape(-1, 4)
    canvas[place.index, :3] = np.clip(painter.rgb * 255, 0, 255)
    canvas[place.index, 3] = painter.alpha * 255
    return Image.fromarray(canvas.reshape(*place.shape, 4))


def _ramp(values: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Return 0 below 0, 1 above 1, smooth between."""
    x = np.clip(values, 0, 1)
    ramp: FloatArray = (x * x * (3 - 2 * x)).astype(np.float32)
    return ramp


def _veins(place: Wing, half_width: float) -> FloatArray:
    """Return the opacity of veins: those of the outer half, and those of the cell."""
    phase = place.t * _VEINS
    across = np.abs(phase - np.round(phase)) / _VEINS * place.span
    outer = _ramp((half_width - across) / 0.005 + 0.5) * _ramp((place.u - 0.4) / 0.04)
    inside = (place.t > 0.36) & (place.t < 0.88)
    cell = _ramp((half_width - np.abs(place.u - 0.43)) / 0.005 + 0.5) * inside
    sides = np.minimum(np.abs(place.t - 0.375), np.abs(place.t - 0.875)) * place.span
    edges = _ramp((half_width - sides) / 0.005 + 0.5) * (place.u < 0.43)
    veins: FloatArray = np.maximum(outer, np.maximum(cell, edges)).astype(np.float32)
    return veins


def _eyes(count: int, front: bool) -> Iterator[Point]:
    """Yield the positions of `count` eyespots, (u, t)."""
    evenly = tuple(0.14 + 0.72 * i / max(1, count - 1) for i in range(count))
    for t in {1: (0.62,), 2: (0.38, 0.72)}.get(count, evenly):
        yield (0.7, 0.72 if count == 1 else t) if front else (0.69, t)


def _cloud(place: Wing, rng: np.random.Generator, cells: int) -> FloatArray:
    """Return smooth noise over the wing, about -1 ... 1, shape (P,)."""
    return smooth(rng.uniform(-1, 1, (cells, cells)), place.shape).ravel()[place.index]
