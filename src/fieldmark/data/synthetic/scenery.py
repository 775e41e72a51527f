"""Draw backgrounds: foliage out of focus, leaves, flowers, soil, grass.

Leaves, flowers and soil are drawn once a process and placed differently on each photo.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fieldmark.utils import random
from fieldmark.utils.typing import DoubleArray, FloatArray

Size = tuple[int, int]  # width, height in pixels

LEAVES, FLOWERS, SOILS = 8, 12, 4

_MOODS = {  # colours of what is out of focus
    "wood": ("1f3a1c", "35592a", "55803a", "0f2413", "7fa04e"),
    "meadow": ("7ea34a", "a9c064", "5c8a3b", "c9cf86", "93b0a0"),
    "dusk": ("3b4a3a", "6b6a45", "92804f", "2b3330", "b59a62"),
    "sky": ("a9c9e6", "c7dcea", "8fb6da", "b5cfae", "dfe7e3"),
    "bloom": ("5d8a4a", "84a861", "c78fb0", "4a7440", "d9b7c9"),
}
_PETALS = (
    ("f4f0ff", "d7c8f2", "f0c93a"), ("f7d7e6", "e58bb4", "e9c44a"), ("fff3c4", "f6c73c", "7a4a1c"),
    ("ffffff", "f2efe6", "f0b92e"), ("e9b5ff", "a65bd0", "f6dc7a"), ("ffc9b0", "ee6f4a", "5a2d1c"),
)  # fmt: skip


def _rgb(hexadecimal: str) -> FloatArray:
    return np.frombuffer(bytes.fromhex(hexadecimal), np.uint8).astype(np.float32)


def smooth(grid: DoubleArray, shape: tuple[int, int]) -> FloatArray:
    """Enlarge a grid of values to so many rows and columns, smoothly."""
    image = Image.fromarray(grid.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC))


def focus(layer: Image.Image, blur: float) -> tuple[Image.Image, tuple[int, int]]:
    """Return what is drawn on a layer, blurred, and its corner."""
    left, top, right, bottom = layer.getbbox() or (0, 0, 1, 1)
    corner = (max(0, left - 8), max(0, top - 8))
    part = layer.crop((*corner, right + 8, bottom + 8))
    return part.filter(ImageFilter.BoxBlur(blur)), corner


def scene(
    size: Size, centre: tuple[float, float], unit: float, side: bool, rng: np.random.Generator
) -> Image.Image:
    """Draw the background of an animal at `centre`, seen from above or from the `side`.

    `unit` is the length of its wing in pixels. Parts out of focus are drawn at half size.
    """
    kind = str(rng.choice(["leaf", "flower", "ground"], p=[0.4, 0.4, 0.2]))
    if kind == "ground" and not side:
        return ground(size, rng)
    picture = backdrop((size[0] // 2, size[1] // 2), rng)
    below = {"leaf": 0.5, "flower": 0.8}.get(kind, 0.8) * unit if side else 0.0
    seat = np.array([centre[0], centre[1] + below])
    for depth in range(int(rng.integers(1, 4)), 0, -1):
        near = depth == 1
        if near:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        middle = (seat + rng.normal(0, 12 if near else 190, 2)) * (1 if near else 0.5)
        stretch = rng.uniform(0.9, 1.2) * (1 if near else 0.4)
        if kind == "leaf":
            prop, width = leaf(int(rng.integers(LEAVES))), max(620.0, 3.0 * unit)
        else:
            prop, width = flower(int(rng.integers(FLOWERS))), 1.75 * unit
            foot = (middle[0] + rng.normal(0, 0.1) * picture.height, picture.height + 10)
            thick = max(2, round(picture.height * rng.uniform(0.009, 0.018)))
            ImageDraw.Draw(picture).line((*middle, *foot), (74, 104, 52), thick)
        if not near:
            prop = prop.reduce(3).filter(ImageFilter.BoxBlur(2 * depth - 2))
        place(picture, prop, middle, width * stretch, rng.uniform(0, 2 * math.pi))
    return picture


def backdrop(size: Size, rng: np.random.Generator) -> Image.Image:
    """Draw foliage out of focus, with discs of light in it."""
    mood = str(rng.choice(list(_MOODS)))
    colours = np.array([_rgb(colour) for colour in _MOODS[mood]])
    width, height = size
    cells = int(rng.integers(4, 10))
    grid = colours[rng.integers(0, len(colours), (cells * 3 // 4 + 1, cells))]
    grid = np.clip(grid * rng.uniform(0.8, 1.15, (*grid.shape[:2], 1)), 0, 255)
    small = (width // 2, height // 2)
    image = Image.fromarray(grid.astype(np.uint8)).resize(small, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(0, 14))):  # stalks and twigs
        x, lean = rng.uniform(0, small[0]), rng.normal(0, 40)
        shade = tuple(int(c) for c in colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.2))
        thick = int(rng.integers(1, 7))
        draw.line((x, small[1], x + lean, rng.uniform(-20, small[1] / 2)), (*shade, 150), thick)
    for _ in range(int(rng.integers(0, 22))):
        x, y, radius = rng.uniform(0, small[0]), rng.uniform(0, small[1]), rng.uniform(2, 13)
        light = np.clip(colours[rng.integers(len(colours))] * 1.35 + 20, 0, 255)
        fill = (*(int(c) for c in light), int(rng.integers(25, 100)))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.2, 4)))
    return image.resize(size, Image.Resampling.BILINEAR)


def ground(size: Size, rng: np.random.Generator) -> Image.Image:
    """Draw soil, sand or stones, seen from above."""
    image = soil(int(rng.integers(SOILS)))
    image = image.transpose(rng.choice(list(Image.Transpose)))
    left = int(rng.integers(0, image.width - size[0] + 1))
    top = int(rng.integers(0, image.height - size[1] + 1))
    return image.crop((left, top, left + size[0], top + size[1]))


@lru_cache(maxsize=SOILS)
def soil(number: int) -> Image.Image:
    """Draw one of a few patches of soil, 1000 pixels square."""
    rng = random.generator(number, "soil")
    side = 1000
    height = np.zeros((side, side), np.float32)
    for cells, weight in ((6, 0.5), (24, 0.5), (90, 0.5), (330, 0.5), (1000, 0.35)):
        height += weight * smooth(rng.normal(0, 1, (cells, cells)), (side, side))
    dark, light = (
        ("4a3626", "8f7152"), ("7c6a50", "c9b48c"), ("5b5954", "a8a49a"), ("3d3a2c", "77704e"),
    )[number % 4]  # fmt: skip
    lit = height - np.roll(height, (2, 2), (0, 1))
    mix = np.clip(0.5 + 0.16 * height + 0.28 * lit, 0, 1)[..., None]
    image = Image.fromarray((_rgb(dark) * (1 - mix) + _rgb(light) * mix).astype(np.uint8))
    for _ in range(170):
        _pebble(image, rng)
    return image


def _pebble(image: Image.Image, rng: np.random.Generator) -> None:
    radius = int(5 + 40 * rng.beta(1, 6))
    ys, xs = np.mgrid[-1 : 1 : radius * 2j, -1 : 1 : radius * 2j]
    bumps = 1 + 0.12 * np.sin(3 * np.arctan2(ys, xs) + rng.uniform(0, 6))
    shape = np.clip((1 - np.hypot(xs, ys * rng.uniform(1, 1.5)) * bumps) * radius, 0, 1)
    tone = rng.uniform(70, 190) * np.array([1, rng.uniform(0.9, 1), rng.uniform(0.75, 0.98)])
    lit = (0.85 - 0.35 * xs - 0.4 * ys)[..., None] + rng.normal(0, 0.05, (*xs.shape, 1))
    stone = Image.fromarray(np.clip(tone * lit, 0, 255).astype(np.uint8))
    x, y = int(rng.integers(image.width)), int(rng.integers(image.height))
    mask = Image.fromarray((shape * 255).astype(np.uint8))
    image.paste((25, 20, 15), (x + radius // 4, y + radius // 4), mask.point(lambda v: v * 0.5))
    image.paste(stone, (x, y), mask)


@lru_cache(maxsize=LEAVES)
def leaf(number: int) -> Image.Image:
    """Draw one of a few leaves as RGBA, 640 by 360 pixels, its stalk to the left."""
    rng = random.generator(number, "leaf")
    width, height = 640, 360
    xs = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None] + 0.12 * np.sin(xs * 2.6)
    lobes = 1 + 0.012 * np.sin(xs * rng.uniform(60, 110))
    half = 0.86 * np.clip(np.sin(np.pi * xs ** rng.uniform(0.7, 1)), 0, 1) ** rng.uniform(0.7, 1.1) * lobes
    across = np.abs(ys) / np.maximum(half, 1e-3)
    alpha = np.clip((half - np.abs(ys)) * height / 2, 0, 1)
    phase = xs * rng.uniform(8, 12) - np.abs(ys) * rng.uniform(1.6, 3) + 0.35 * (ys > 0)
    vein = np.exp(-(((phase - np.round(phase)) / 0.06) ** 2)) * (1 - 0.6 * across)
    vein = np.maximum(vein, 1.3 * np.exp(-((ys / 0.022) ** 2)))
    puff = np.cos(2 * np.pi * phase) * 0.06
    blotch = smooth(rng.normal(0, 1, (40, 70)), (height, width))
    light = 0.62 + puff + 0.05 * blotch + 0.1 * (ys > 0) - 0.12 * across**3 + 0.12 * xs
    tones = (("3f7a2e", "c3d98b"), ("5d8f35", "dbe6a0"), ("2e6638", "a7cf95"), ("86913c", "e6e0a2"))
    blade, rib = (_rgb(tone) for tone in tones[number % len(tones)])
    rgb = blade * (light * 1.45)[..., None]
    rgb += (rib - rgb) * np.clip(vein * 0.5, 0, 1)[..., None]
    return _rgba(rgb, alpha)


@lru_cache(maxsize=FLOWERS)
def flower(number: int) -> Image.Image:
    """Draw one of a few flower heads as RGBA, 420 pixels square."""
    rng = random.generator(number, "flower")
    side = 420
    ys, xs = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    r, angle = np.hypot(xs, ys), np.arctan2(ys, xs)
    tip, base, heart = (_rgb(colour) for colour in _PETALS[number % len(_PETALS)])
    rgb, alpha = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32)
    petals = int(rng.choice([5, 8, 13, 21]))
    for layer, reach in enumerate((0.97, 0.78)[: 1 if petals < 8 else 2]):
        turn = (angle / (2 * np.pi) * petals + 0.5 * layer) % petals
        which = np.floor(turn).astype(int) % petals
        across = np.abs(turn - np.floor(turn) - 0.5) * 2
        length = reach * rng.uniform(0.86, 1.0, petals).astype(np.float32)[which]
        rounded = length * (1 - 0.42 * across ** (2.4 if petals < 12 else 3.5))
        cover = np.clip((rounded - r) * side / 2, 0, 1) * (across < 0.97)
        tone = rng.uniform(0.86, 1.06, petals).astype(np.float32)[which]
        tone = tone * (1.05 - 0.3 * across**2) * (0.94 + 0.06 * np.cos(across * 14))
        petal = (base + (tip - base) * np.clip(r / reach, 0, 1)[..., None]) * tone[..., None]
        rgb += (petal * (0.86 + 0.14 * layer) - rgb) * cover[..., None]
        alpha = np.maximum(alpha, cover)
    centre = np.clip((rng.uniform(0.16, 0.34) - r) * side / 2, 0, 1)
    dots = 0.8 + 0.35 * np.sin(34 * r + 21 * np.sin(angle * 8)) * np.cos(angle * 13)
    rgb += (heart * dots[..., None] - rgb) * centre[..., None]
    return _rgba(rgb, np.maximum(alpha, centre))


def _rgba(rgb: npt.NDArray[np.floating], alpha: npt.NDArray[np.floating]) -> Image.Image:
    picture = np.concatenate([rgb, (np.broadcast_to(alpha, rgb.shape[:2]) * 255)[..., None]], 2)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def grass(scene: Image.Image, rng: np.random.Generator, count: int, blur: float) -> None:
    """Draw blades of grass over the scene, at half size."""
    width, height = scene.width // 2, scene.height // 2
    image = Image.new("RGBA", (width, height), (90, 120, 50, 0))
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, top = rng.uniform(0, width), rng.uniform(-0.1, 0.75) * height
        lean, thick = rng.normal(0, 0.25) * width, rng.uniform(3, 11)
        steps = np.linspace(0, 1, 9)
        middle = x + lean * steps**2
        ys = height + (top - height) * steps
        half = thick * (1 - steps) ** 0.7
        outline = [*zip(middle - half, ys, strict=True)]
        outline += [*zip((middle + half)[::-1], ys[::-1], strict=True)]
        tone = rng.uniform(0.6, 1.25)
        green = np.array([rng.uniform(95, 165), 150, rng.uniform(45, 90)]) * tone
        draw.polygon(outline, (*(int(c) for c in np.clip(green, 0, 255)), 255))
    part, corner = focus(image, 0.6 + blur)
    part = part.resize((part.width * 2, part.height * 2), Image.Resampling.BILINEAR)
    scene.paste(part, (2 * corner[0], 2 * corner[1]), part)


def stamp(
    size: Size, picture: Image.Image, matrix: DoubleArray, offset: DoubleArray
) -> tuple[Image.Image, tuple[int, int]] | None:
    """Transform an image; return the part inside a scene of this size, and its corner there.

    The pixel p of the image goes to `matrix @ p + offset`. None if nothing of it is in the scene.
    """
    corners = np.array([[0, 0], [picture.width, 0], [0, picture.height], picture.size]).T
    reached = matrix @ corners + offset[:, None]
    low = np.clip(np.floor(reached.min(1)).astype(int) - 6, 0, size)
    high = np.clip(np.ceil(reached.max(1)).astype(int) + 6, 0, size)
    if np.any(high - low < 2):
        return None
    back = np.linalg.inv(matrix)
    start = back @ (low - offset)
    moved = picture.transform(
        (int(high[0] - low[0]), int(high[1] - low[1])),
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1]),
        Image.Resampling.BILINEAR,
    )
    return moved, (int(low[0]), int(low[1]))


def rotation(angle: float) -> DoubleArray:
    """Return the matrix of a rotation by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def place(scene: Image.Image, prop: Image.Image, centre: DoubleArray, width: float, turn: float) -> None:
    """Draw an object over the scene: `width` in pixels, rotated by `turn` radians."""
    matrix = rotation(turn) * (width / prop.width)
    moved = stamp(scene.size, prop, matrix, centre - matrix @ (np.array(prop.size) / 2))
    if moved is not None:
        scene.paste(*moved, moved[0])
