"""The picture of an explanation: photo, heat map, labels and the nearest training photos."""

from __future__ import annotations

import io
import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.data.taxonomy import Taxon
from fieldmark.inference.classifier import Prediction
from fieldmark.inference.neighbours import Neighbour
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

_OPACITY = 0.6  # of the heat map over the photo, at its maximum
_MOST_PIXELS = 1600  # of a side in the picture: more are not visible


@dataclass(frozen=True)
class Explanation:
    """The explanation of a prediction."""

    image: ByteArray  # uint8 (H, W, 3)
    prediction: Prediction
    taxon: Taxon  # the label of the heat map
    heat: FloatArray | None  # float32 (H, W) in 0..1; None where the network has no feature map
    neighbours: tuple[tuple[Neighbour, ByteArray | None], ...]  # None: not on this machine


def picture(found: Explanation) -> bytes:
    """Draw photo, heat map, labels and the most similar training photos as a PNG."""
    from matplotlib.figure import Figure

    height, width = found.image.shape[:2]
    photo_rows = 4.8 * min(1.4, max(0.3, height / width))
    labels = found.prediction.answers
    rows = [photo_rows, 0.33 * len(labels) + 0.3, *([2.0] if found.neighbours else [])]
    figure = Figure(figsize=(10, sum(rows) + 1.3), dpi=120, layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0]
    _draw_photo(parts[0], found)
    _draw_labels(parts[1], found)
    if found.neighbours:
        _draw_neighbours(parts[2], found)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The font lacks the letters of a name: boxes are drawn instead.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_photo(part: SubFigure, found: Explanation) -> None:
    step = max(1, max(found.image.shape) // _MOST_PIXELS)
    image = found.image[::step, ::step]
    shown = [(image, "The photo")]
    if found.heat is not None:
        title = f"Evidence for {found.taxon.common_name or found.taxon.name}"
        shown.append((overlay(image, found.heat[::step, ::step]), title))
    for axes, (pixels, title) in zip(part.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(_shortened(title, 48), fontsize=11, parse_math=False)


def _draw_labels(part: SubFigure, found: Explanation) -> None:
    answers = found.prediction.answers
    axes = part.subplots()
    names = [_shortened(answer.taxon.label, 60) for answer in answers]
    scores = [answer.score for answer in answers]
    axes.barh(range(len(answers)), scores, color="#3f7f5f", height=0.6)
    axes.set_yticks(range(len(answers)), names, parse_math=False)
    for number, score in enumerate(scores):
        axes.text(score + 0.01, number, f"{score:.1%}", va="center")
    axes.set_xlim(0, 1.12)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    if not found.prediction.sure:
        reason = found.prediction.reason or "Not sure; the most likely are"
        axes.set_title(_wrapped(reason, 110), fontsize=10, loc="left", parse_math=False)


def _draw_neighbours(part: SubFigure, found: Explanation) -> None:
    part.suptitle("The most similar training photos", fontsize=11)
    tiles = part.subplots(1, len(found.neighbours), squeeze=False)[0]
    for axes, (near, pixels) in zip(tiles, found.neighbours, strict=True):
        axes.set_xticks([])
        axes.set_yticks([])
        if pixels is None:
            axes.text(0.5, 0.5, "not on this\ncomputer", ha="center", va="center", color="#666666")
            axes.set_aspect("equal")
        else:
            axes.imshow(pixels)
        name = near.taxon.common_name or near.taxon.name
        text = f"{_wrapped(name, 20)}\n{near.similarity:.2f}"
        axes.set_xlabel(text, fontsize=9, parse_math=False)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, max_lines=2, placeholder=" …")


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def overlay(image: ByteArray, heat: FloatArray) -> ByteArray:
    """Draw a heat map, float (H, W) in 0..1, over a photo, uint8 (H, W, 3), from violet to opaque yellow."""
    from matplotlib import colormaps

    colour = 255 * colormaps["plasma"](heat)[..., :3]
    share = _OPACITY * np.sqrt(np.clip(heat, 0, 1))[..., None]
    return np.asarray(np.rint((1 - share) * image + share * colour), np.uint8)
