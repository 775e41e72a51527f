"""Crop photos: for evaluation (`Preprocess`) and for training (`augment`).

Both give a uint8 crop, shape (size, size, 3); the backbone normalises it, so that all backbones of one
crop size share the crop. Of the two tiers of decoding, `exact` decodes a photo in full, and the crop equals
Pillow's own to 0.02 grey levels; `fast` decodes a large JPEG at 1/2, 3/8, 1/4 or 1/8 of its size, at least
twice the size that it is resized to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from fieldmark.data import images, resampling
from fieldmark.data.resampling import Box, Interpolation
from fieldmark.utils import random as sampling
from fieldmark.utils.choices import DecodingTier
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray

ResizeMode = Literal["crop", "squash", "pad"]
FITS: Mapping[str | None, ResizeMode] = {"squash": "squash", "center": "crop", "pad": "pad"}
"""`Preprocess.fit` by the value of the option `--crop`."""

FILL = (124, 116, 104)
"""The colour of the border of a padded photo: ImageNet's mean. Normalised it is near zero for every network,
which is also what convolutions pad with; one colour for all lets networks share the crop."""

_VERSION = 2  # goes up when the same settings give other pixels, so that cached features are not reused
MAX_SIZE = 4096
_OVERSAMPLING = 2  # the fast tier decodes to at least this multiple of the size

# The usual random crop of fine-tuning (Szegedy et al., "Going deeper with convolutions", 2015), with
# less extreme crops than its 0.08: on photos of wildlife a small crop often misses the animal.
_CROP_AREA = (0.35, 1.0)  # as a share of the photo
_CROP_RATIO = (3 / 4, 4 / 3)  # width to height
_CROP_TRIES = 10


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the crop that a backbone is given.

    Attributes:
        size: side of the crop in pixels.
        resize: what the shorter side is resized to before cutting, at least `size`; not with `squash`.
        interpolation: `bilinear` or `bicubic`, both antialiased.
        fit: `crop`: resize the shorter side, then cut out the centre; `squash`: the whole photo is
            resized to a square, whatever its shape; `pad`: the whole photo in its proportions, in the
            middle of a square of the colour `FILL`.
        tier: `exact` or `fast`, see above.
        flip: whether the crop is mirrored horizontally: another view of the same photo.
    """

    size: int = 224
    resize: int = 256
    interpolation: Interpolation = "bicubic"
    fit: ResizeMode = "crop"
    tier: DecodingTier = "exact"
    flip: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("interpolation", Interpolation), ("fit", ResizeMode), ("tier", DecodingTier)):
            if (value := getattr(self, name)) not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise InputError(f"preprocess.{name} is {value!r}: it must be one of {choices}.")
        for name in ("size", "resize"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIZE:
                wanted = f"a whole number of pixels from 1 to {MAX_SIZE}"
                raise InputError(f"preprocess.{name} is {value!r}: it must be {wanted}.")
        if type(self.flip) is not bool:
            raise InputError(f"preprocess.flip is {self.flip!r}: it must be true or false.")
        if self.fit == "crop" and self.resize < self.size:
            raise InputError(
                f"preprocess.resize is {self.resize}, below preprocess.size, {self.size}: "
                "no crop of that size can be cut out."
            )

    def key(self) -> str:
        """Return a key of the settings: equal keys, equal crops."""
        shape = f"crop{self.resize}" if self.fit == "crop" else self.fit
        mirrored = "-flip" if self.flip else ""
        return f"p{_VERSION}-{self.size}-{shape}-{self.interpolation}-{self.tier}{mirrored}"

    def to_json(self) -> str:
        """Return the settings as a JSON object in a fixed order."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocess:
        """Read what `to_json` wrote.

        Raises:
            InputError: it is not such an object, or a value is invalid.
        """
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the preprocessing is not JSON: {error}.") from error
        known = sorted(field.name for field in fields(cls))
        if not isinstance(values, dict) or sorted(values) != known:
            raise InputError(f"the preprocessing must be a JSON object with exactly {', '.join(known)}.")
        return cls(**values)

    def crop(self, data: bytes) -> ByteArray:
        """Decode a file and crop it: uint8, shape (size, size, 3).

        Raises:
            ImageRejected: the bytes cannot be used as a photo.
        """
        return self.apply(images.decode(data, at_least=self.at_least))

    @property
    def at_least(self) -> int | None:
        """Return the least shorter side, in pixels, to decode to; None: full size."""
        target = self.resize if self.fit == "crop" else self.size
        return _OVERSAMPLING * target if self.tier == "fast" else None

    def apply(self, image_HWC: ByteArray) -> ByteArray:
        """Crop a decoded image, uint8 (H, W, 3), to uint8, shape (size, size, 3).

        With `crop` the result equals resizing and then cutting (to 0.02 grey levels on average), but only
        the crop's pixels are computed. Sizes and positions are rounded as torchvision rounds them.
        """
        height, width = image_HWC.shape[:2]
        size = (self.size, self.size)
        if self.fit == "pad":
            crop = np.full((*size, 3), FILL, np.uint8)
            top, left, high, wide = self.inside(height, width)
            whole = resampling.resize(image_HWC, (0, 0, width, height), (high, wide), self.interpolation)
            crop[top : top + high, left : left + wide] = whole
        else:
            scaled = _whole(width, height, self.resize) if self.fit == "crop" else size
            crop = resampling.resize(image_HWC, self.box(height, width), size, self.interpolation, scaled)
        return _mirrored(crop) if self.flip else crop

    def inside(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return where the crop shows the photo and no border: top, left, height and width in its pixels."""
        if self.fit != "pad":
            return 0, 0, self.size, self.size
        high, wide = (max(1, round(self.size * side / max(height, width))) for side in (height, width))
        return (self.size - high) // 2, (self.size - wide) // 2, high, wide

    def box(self, height: int, width: int) -> Box:
        """Return the part of an image that the crop shows, without a border: left, top, right, bottom in
        the image's pixels."""
        if self.fit != "crop":
            return (0, 0, width, height)
        new_height, new_width = _whole(width, height, self.resize)
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        across, down = width / new_width, height / new_height
        return (left * across, top * down, (left + self.size) * across, (top + self.size) * down)


PAPER_CROP = Preprocess(size=224, fit="squash")
"""The paper's crop: the whole photo "resized to 224 x 224", without its proportions."""


def crops(data: bytes, views: Sequence[Preprocess]) -> tuple[ByteArray, ...]:
    """Crop a file for each of some views; decode and resize it no more often than needed.

    Raises:
        ImageRejected: the bytes cannot be used as a photo.
    """
    decoded = {size: images.decode(data, at_least=size) for size in {v.at_least for v in views}}
    straight = {replace(view, flip=False) for view in views}
    made = {view: view.apply(decoded[view.at_least]) for view in straight}
    return tuple(_mirrored(made[replace(view, flip=False)]) if view.flip else made[view] for view in views)


def _mirrored(crop: ByteArray) -> ByteArray:
    return np.ascontiguousarray(crop[:, ::-1])


def _whole(width: int, height: int, resize: int) -> tuple[int, int]:
    """Return height and width of the whole image when its shorter side is `resize`."""
    shorter = min(width, height)
    return int(resize * height / shorter), int(resize * width / shorter)


def augment(
    image_HWC: ByteArray, preprocess: Preprocess, *, seed: int, epoch: int, photo_id: str
) -> ByteArray:
    """Crop a photo for training: a random part of it, mirrored with probability 0.5.

    The part has 35 to 100 % of the area and an aspect ratio of 3:4 to 4:3. It is a function of (seed,
    epoch, photo_id): a resumed run, or one with another number of workers, gets the same crops.

    Args:
        image_HWC: a decoded image, uint8, shape (H, W, 3).
        preprocess: gives the crop's size and the interpolation.
        seed: of the run.
        epoch: its number.
        photo_id: the photo's id in its table.

    Returns:
        uint8, shape (size, size, 3), C-contiguous.
    """
    random = sampling.generator(seed, "augment", epoch, photo_id)
    box = _random_box(image_HWC.shape[1], image_HWC.shape[0], random)
    size = (preprocess.size, preprocess.size)
    crop = resampling.resize(image_HWC, box, size, preprocess.interpolation)
    return _mirrored(crop) if random.random() < 0.5 else crop


def _random_box(width: int, height: int, random: np.random.Generator) -> Box:
    """Draw a part of the image, whole pixels; the largest central one where no random one fits."""
    for _ in range(_CROP_TRIES):
        area = width * height * random.uniform(*_CROP_AREA)
        ratio = float(np.exp(random.uniform(*np.log(_CROP_RATIO))))
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 1 <= wide <= width and 1 <= high <= height:
            left = int(random.integers(0, width - wide + 1))
            top = int(random.integers(0, height - high + 1))
            return (left, top, left + wide, top + high)
    wide = max(1, min(width, round(height * _CROP_RATIO[1])))
    high = max(1, min(height, round(width / _CROP_RATIO[0])))
    left, top = (width - wide) // 2, (height - high) // 2
    return (left, top, left + wide, top + high)
