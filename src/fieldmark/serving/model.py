"""What the routes ask of a classifier; all but `with_thumbnails` run the network, so `Batcher` calls them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fieldmark import __version__
from fieldmark.data.locations import Location
from fieldmark.inference import explain, neighbours
from fieldmark.inference.classifier import Classifier, Prediction, asking, stacked
from fieldmark.serving import answers
from fieldmark.serving.batcher import Crops
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.decoders import Decoded
from fieldmark.utils.typing import FloatArray

_HEAT_SIDE = 224  # pixels of a heat map, which the page stretches over the photo
_OPACITY = 0.65  # of its maximum
_THUMB_SIDE = 192


def warm_up(classifier: Classifier) -> None:
    """Load the network, so that the first request does not wait for it; raises InputError where it cannot."""
    sides = [view.size for view in classifier.views]
    predict(classifier, [tuple(np.zeros((side, side, 3), np.uint8) for side in sides)], [Ranking(1)])


@dataclass(frozen=True)
class Ranking:
    """How many labels a photo gets, and where and when it was taken, if the prior counts."""

    top: int
    where: Location | None = None


def predict(classifier: Classifier, photos: Sequence[Crops], how: Sequence[Ranking]) -> list[Prediction]:
    """Classify photos."""
    scores_NC, ood_N = classifier.outputs(stacked(photos))
    at = cache(classifier.at)
    return [
        asking.rank_at(classifier, p_C, float(ood_score), each.top, each.where, at)[0]
        for p_C, each, ood_score in zip(scores_NC, how, ood_N, strict=True)
    ]


def has_index(classifier: Classifier) -> bool:
    """Return whether the classifier has an index of its training photos; raises ClassifierError on damage."""
    return neighbours.load_index(classifier) is not None


def with_thumbnails(classifier: Classifier, found: Sequence[neighbours.Neighbour]) -> list[answers.Neighbour]:
    """Return training photos with thumbnails where they are available."""
    index = neighbours.load_index(classifier)
    pictures = [index.picture(each) if index else None for each in found]
    small = [
        None if each is None else neighbours.thumbnail(each, _THUMB_SIDE, quality=80) for each in pictures
    ]
    return [
        answers.Neighbour(
            taxon_id=each.taxon.id,
            name=each.taxon.name,
            common_name=each.taxon.common_name,
            similarity=round(each.similarity, 4),
            thumbnail=None if jpeg is None else _data_url("jpeg", jpeg),
        )
        for each, jpeg in zip(found, small, strict=True)
    ]


def heat_map(classifier: Classifier, photo: Decoded, taxon_id: str | None) -> answers.HeatMap:
    """Compute which parts of a photo support a label, by default the most likely one; see `explain.heat`."""
    label = taxon_id or predict(classifier, [photo.crops], [Ranking(1)])[0].best.taxon.id
    shrink = _HEAT_SIDE / max(photo.height, photo.width)
    size = (max(1, round(photo.height * shrink)), max(1, round(photo.width * shrink)))
    found = explain.heat(classifier, photo.crops, label, *size)
    return answers.HeatMap(taxon_id=label, overlay=_overlay(found), box=(0.0, 0.0, 1.0, 1.0))


def info(classifier: Classifier, config: ServeConfig) -> answers.ModelInfo:
    """Describe the classifier and the limits of the server (/v1/model)."""
    made, source, threshold = classifier.provenance, classifier.source, classifier.threshold
    listed = None
    if (favoured := classifier.favoured) is not None:
        listed = answers.SpeciesList(name=favoured.name, classes=int(favoured.listed_C.sum()))
    name = made.get("name") or (source.name if isinstance(source, Path) else "classifier")
    return answers.ModelInfo(
        name=str(name),
        version=__version__,
        architecture=classifier.architecture,
        engine=" + ".join(dict.fromkeys(each.engine.name for each in classifier.networks)),
        classes=len(classifier.taxa),
        test=str(made.get("test", "")),
        licence=str(made.get("licence", "")),
        precision=threshold.precision if threshold else None,
        species_list=listed,
        offers=answers.Offers(similar=has_index(classifier), heat_map=True, prior=bool(classifier.prior)),
        limits=answers.Limits(
            bytes=config.max_bytes, pixels=config.max_pixels, photos=config.photos_a_request
        ),
    )


def _overlay(share: FloatArray) -> str:
    """Return a heat map in 0..1 as a PNG that is transparent where it is 0."""
    from matplotlib import colormaps
    from PIL import Image

    rgba = colormaps["plasma"](share)
    rgba[..., 3] = _OPACITY * np.sqrt(share)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * rgba).astype(np.uint8)).save(file, "PNG")
    return _data_url("png", file.getvalue())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
