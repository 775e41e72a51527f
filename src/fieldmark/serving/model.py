"""What is asked of a classifier, and what it has to offer besides names."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fieldmark import __version__
from fieldmark.inference import explain, neighbours
from fieldmark.inference.classifier import Classifier, Prediction, stacked
from fieldmark.serving import answers
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.decoders import Decoded
from fieldmark.utils.typing import ByteArray, FloatArray

_HEAT_SIDE = 224  # pixels of a heat map, which the page stretches over the photo
_OPACITY = 0.65  # of its hottest place
_THUMB_SIDE = 192

Crops = tuple[ByteArray, ...]
"""One photo's crop for each of the classifier's views, uint8 (S, S, 3)."""


class Model:
    """A classifier as the server sees it. Its methods run the network: one thread at a time."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def warm_up(self) -> None:
        """Load the network, so that the first photo does not wait for it.

        Raises:
            InputError: the classifier cannot be run on this machine.
        """
        sides = [view.size for view in self.classifier.views]
        self.predict([tuple(np.zeros((side, side, 3), np.uint8) for side in sides)], [1])

    def predict(self, photos: Sequence[Crops], tops: Sequence[int]) -> list[Prediction]:
        """What the classifier says of photos' crops, with `top` labels for each photo."""
        scores_NC, energy_N = self.classifier.outputs(stacked(photos))
        return [
            self.classifier.rank(p_C, top, float(energy))
            for p_C, top, energy in zip(scores_NC, tops, energy_N, strict=True)
        ]

    def offers(self) -> answers.Offers:
        """What it has besides names.

        Raises:
            ClassifierError: the kept training photos are damaged.
        """
        return answers.Offers(
            similar=neighbours.load_index(self.classifier) is not None, heat_map=True
        )

    def similar(self, crops: Crops, count: int) -> list[neighbours.Neighbour]:
        """The training photos that most resemble a photo."""
        return explain.similar(self.classifier, crops[0], count)

    def show(self, found: Sequence[neighbours.Neighbour]) -> list[answers.Neighbour]:
        """Training photos with their pictures, where those are at hand. Needs no network."""
        kept = neighbours.load_index(self.classifier)
        pictures = [kept.picture(each) if kept else None for each in found]
        return [
            answers.Neighbour(
                **answers.short(each.taxon),
                similarity=round(each.similarity, 4),
                thumbnail=None if picture is None else _thumbnail(picture),
            )
            for each, picture in zip(found, pictures, strict=True)
        ]

    def heat_map(self, photo: Decoded, taxon_id: str | None) -> answers.HeatMap:
        """Where the network saw what speaks for a label; by default for its likeliest one.

        Raises:
            InputError: there is no such label, or the network has no map.
        """
        label = taxon_id if taxon_id is not None else self._first(photo.crops)
        shrink = _HEAT_SIDE / max(photo.height, photo.width)
        size = (max(1, round(photo.height * shrink)), max(1, round(photo.width * shrink)))
        found = explain.heat(self.classifier, photo.crops, label, *size)
        return answers.HeatMap(taxon_id=label, overlay=_heat(found), box=(0.0, 0.0, 1.0, 1.0))

    def _first(self, crops: Crops) -> str:
        return self.predict([crops], [1])[0].best.taxon.id

    def about(self, config: ServeConfig) -> answers.About:
        """What /v1/model says."""
        classifier, made = self.classifier, self.classifier.provenance
        source = classifier.source
        name = made.get("name") or (source.name if isinstance(source, Path) else "classifier")
        threshold = classifier.threshold
        return answers.About(
            name=str(name),
            version=__version__,
            architecture=classifier.architecture,
            classes=len(classifier.taxa),
            test=str(made.get("test", "")),
            licence=str(made.get("licence", "")),
            precision=threshold.precision if threshold else None,
            offers=self.offers(),
            limits=answers.Limits(
                bytes=config.max_bytes,
                pixels=config.max_pixels,
                photos=config.photos_a_request,
            ),
        )

    def classes(self) -> answers.Classes:
        """What /v1/classes says."""
        fields = (answers.taxon_fields(taxon) for taxon in self.classifier.taxa)
        return answers.Classes(classes=[answers.ClassEntry(**each) for each in fields])


def _thumbnail(picture: ByteArray) -> str:
    from PIL import Image

    small = Image.fromarray(picture)
    small.thumbnail((_THUMB_SIDE, _THUMB_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return _data_url("image/jpeg", file.getvalue())


def _heat(share: FloatArray) -> str:
    """A heat map in 0..1 as a PNG that is clear where nothing speaks for the label."""
    from matplotlib import colormaps
    from PIL import Image

    rgba = colormaps["plasma"](share)
    rgba[..., 3] = _OPACITY * np.sqrt(share)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * rgba).astype(np.uint8)).save(file, "PNG")
    return _data_url("image/png", file.getvalue())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
