"""A classifier as the routes use it."""

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
_OPACITY = 0.65  # of its maximum
_THUMB_SIDE = 192

Crops = tuple[ByteArray, ...]
"""One crop per view of the classifier, uint8 (S, S, 3)."""


class Model:
    """A classifier behind the HTTP API. Its methods run the network: call them from `Batcher`."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def warm_up(self) -> None:
        """Load the network, so that the first request does not wait for it.

        Raises:
            InputError: The classifier cannot run on this machine.
        """
        sides = [view.size for view in self.classifier.views]
        self.predict([tuple(np.zeros((side, side, 3), np.uint8) for side in sides)], [1])

    def predict(self, photos: Sequence[Crops], tops: Sequence[int]) -> list[Prediction]:
        """Classify photos, with `top` labels for each photo."""
        scores_NC, energy_N = self.classifier.outputs(stacked(photos))
        return [
            self.classifier.rank(p_C, top, float(energy))
            for p_C, top, energy in zip(scores_NC, tops, energy_N, strict=True)
        ]

    def offers(self) -> answers.Offers:
        """Return which further routes the classifier supports.

        Raises:
            ClassifierError: The index of training photos is damaged.
        """
        return answers.Offers(similar=neighbours.load_index(self.classifier) is not None, heat_map=True)

    def similar(self, crops: Crops, count: int) -> list[neighbours.Neighbour]:
        """Find the training photos most similar to a photo."""
        return explain.similar(self.classifier, crops[0], count)

    def with_thumbnails(self, found: Sequence[neighbours.Neighbour]) -> list[answers.Neighbour]:
        """Return training photos with thumbnails where they are available; needs no network."""
        index = neighbours.load_index(self.classifier)
        pictures = [index.picture(each) if index else None for each in found]
        return [
            answers.Neighbour(
                taxon_id=each.taxon.id,
                name=each.taxon.name,
                common_name=each.taxon.common_name,
                similarity=round(each.similarity, 4),
                thumbnail=None if picture is None else _thumbnail(picture),
            )
            for each, picture in zip(found, pictures, strict=True)
        ]

    def heat_map(self, photo: Decoded, taxon_id: str | None) -> answers.HeatMap:
        """Compute which parts of a photo support a label, by default the most likely one.

        Raises:
            InputError: There is no such label, or the network has no heat map.
        """
        label = taxon_id or self.predict([photo.crops], [1])[0].best.taxon.id
        shrink = _HEAT_SIDE / max(photo.height, photo.width)
        size = (max(1, round(photo.height * shrink)), max(1, round(photo.width * shrink)))
        found = explain.heat(self.classifier, photo.crops, label, *size)
        return answers.HeatMap(taxon_id=label, overlay=_heat(found), box=(0.0, 0.0, 1.0, 1.0))

    def info(self, config: ServeConfig) -> answers.ModelInfo:
        """Describe the classifier and the limits of the server (/v1/model)."""
        classifier, made = self.classifier, self.classifier.provenance
        source = classifier.source
        name = made.get("name") or (source.name if isinstance(source, Path) else "classifier")
        threshold = classifier.threshold
        return answers.ModelInfo(
            name=str(name),
            version=__version__,
            architecture=classifier.architecture,
            classes=len(classifier.taxa),
            test=str(made.get("test", "")),
            licence=str(made.get("licence", "")),
            precision=threshold.precision if threshold else None,
            offers=self.offers(),
            limits=answers.Limits(
                bytes=config.max_bytes, pixels=config.max_pixels, photos=config.photos_a_request
            ),
        )

    def classes(self) -> answers.Classes:
        """List the classes (/v1/classes)."""
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
    """Return a heat map in 0..1 as a PNG that is transparent where it is 0."""
    from matplotlib import colormaps
    from PIL import Image

    rgba = colormaps["plasma"](share)
    rgba[..., 3] = _OPACITY * np.sqrt(share)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * rgba).astype(np.uint8)).save(file, "PNG")
    return _data_url("image/png", file.getvalue())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
