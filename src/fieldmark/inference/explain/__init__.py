"""`fieldmark explain`: a heat map of a photo, and the most similar training photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fieldmark.data import images
from fieldmark.data.storage.places import Boxed
from fieldmark.data.taxonomy import Taxon
from fieldmark.data.transforms import Preprocess
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier, Photo
from fieldmark.inference.classifier.streaming import opened
from fieldmark.inference.explain.gradcam import Activation, NoFeatureMap, activation
from fieldmark.inference.explain.picture import Explanation, overlay, picture
from fieldmark.inference.neighbours import similar
from fieldmark.utils import io
from fieldmark.utils.choices import Compute, EngineName
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray, FloatArray

__all__ = [
    "Activation",
    "Explanation",
    "NoFeatureMap",
    "activation",
    "explain",
    "heat",
    "heat_map",
    "overlay",
    "picture",
    "run",
    "similar",
    "to_photo_frame",
]


def heat_map(classifier: Classifier, photo: Photo, label: int | str | Taxon | None = None) -> FloatArray:
    """Compute a heat map of the photo: float32 (H, W) in 0..1.

    1 is the place that adds most to the score of the class; 0 are places that add nothing, lower the
    score, or are outside the central crop, which the network does not see.

    Args:
        photo: a path, the bytes of a file, or an RGB image uint8 (H, W, 3).
        label: a taxon, its id, or its number in the taxonomy; None: the first label.

    Raises:
        ImageRejected: the photo cannot be used.
        InputError: the classifier has no such class.
        NoFeatureMap: none of its networks is convolutional.
    """
    image, crops = _opened(classifier, photo)
    if label is None:
        label = int(classifier.scores([crop[None] for crop in crops])[0].argmax())
    return heat(classifier, crops, label, image.shape[0], image.shape[1])


def heat(
    classifier: Classifier, crops: Sequence[ByteArray], label: int | str | Taxon, height: int, width: int
) -> FloatArray:
    """Compute a heat map from a photo's crops, of any size; see `heat_map`.

    An ensemble's is the weighted sum of its members' maps, in units of the calibrated scores; members
    whose networks have no feature map are left out.

    Args:
        crops: the result of `Classifier.crop`.
        height, width: of the map, in the proportions of the photo.
    """
    number = _number(classifier, label)
    maps: list[FloatArray] = []
    strengths: list[float] = []
    missing = None
    for member in classifier.members:
        crop = crops[classifier.views.index(member.preprocess)]
        try:
            found = activation(member, crop, number)
        except NoFeatureMap as error:
            missing = error
            continue
        maps.append(to_photo_frame(member.preprocess, found, height, width))
        top = max(0.0, float(found.map_hw.max(initial=0)))
        strengths.append(member.weight / member.temperature * top)
    if missing is not None and not maps:
        raise missing
    if len(maps) == 1:
        return maps[0]
    whole = np.tensordot(np.array(strengths, np.float32), np.stack(maps), axes=1)
    return np.asarray(whole / max(float(whole.max(initial=0)), 1e-30), np.float32)


def to_photo_frame(view: Preprocess, found: Activation, height: int, width: int) -> FloatArray:
    """Resize an activation to the frame of a photo of `height` x `width`; see `heat_map`."""
    from PIL import Image

    positive_hw = np.maximum(found.map_hw, 0)[:, :: -1 if view.flip else 1]
    top = float(positive_hw.max(initial=0))
    heat = Image.fromarray(np.ascontiguousarray(positive_hw / top if top > 0 else positive_hw))
    x0, y0, x1, y1 = map(round, view.box(height, width))
    size = (max(1, x1 - x0), max(1, y1 - y0))
    y, x, high, wide = (side / view.size for side in view.inside(height, width))
    inside = (x * heat.width, y * heat.height, (x + wide) * heat.width, (y + high) * heat.height)
    seen = np.asarray(heat.resize(size, Image.Resampling.BICUBIC, box=inside)).clip(0, 1)
    whole = np.zeros((height, width), np.float32)
    part = whole[y0:y1, x0:x1]
    part[...] = seen[: part.shape[0], : part.shape[1]]
    return whole


def explain(
    classifier: Classifier, photo: Photo, label: int | str | Taxon | None = None, *, top: int = 5, k: int = 5
) -> Explanation:
    """Predict a photo, with its heat map and the most similar training photos.

    Photo and label are given as to `heat_map`; `top` labels and `k` training photos are returned.

    Raises:
        ImageRejected: the photo cannot be used.
        InputError: the classifier has no such class, or its file of training photos is damaged.
    """
    image, crops = _opened(classifier, photo)
    features = classifier.features([crop[None] for crop in crops])
    p_C = np.exp(classifier.log_probabilities(features)[0])
    number = int(p_C.argmax()) if label is None else _number(classifier, label)
    near = []
    if (index := neighbours.load_index(classifier)) is not None:
        near = [(each, index.picture(each)) for each in index.similar(features[0], k)[0]]
    try:
        map_HW = heat(classifier, crops, number, *image.shape[:2])
    except NoFeatureMap:
        map_HW = None
    return Explanation(
        image=image,
        prediction=classifier.rank(p_C, top),
        taxon=classifier.taxa[number],
        heat=map_HW,
        neighbours=tuple(near),
    )


def run(
    model: Path,
    photo: Path,
    out: Path,
    label: str | None = None,
    engine: EngineName | None = None,
    compute: Compute | None = None,
    boxes: Path | None = None,
) -> Explanation:
    """Explain a photo with the classifier in a folder, and write the picture as a PNG.

    The engine predicts, in the tier `compute`; heat maps need ONNX Runtime, or gradients, which only PyTorch
    computes. With a file of boxes the surest box of an animal is explained.

    Raises:
        InputError: the boxes show no animal in the photo, or see `explain`.
    """
    classifier = Classifier.load(model, engine=engine, compute=compute)
    found = explain(classifier, photo if boxes is None else _box_in(photo, boxes), label)
    io.write_bytes(out, picture(found))
    return found


def _box_in(photo: Path, boxes: Path) -> Boxed:
    from fieldmark.data.readers.box_files import read_boxes

    found = read_boxes(boxes).matched([str(photo)]).get(str(photo))
    if found is None:
        raise InputError(f"{boxes} does not list {photo}: name a photo that is in it.")
    animals = [each for each in found if each.category == "animal"]
    if not animals:
        raise InputError(f"{boxes} has no box of an animal in {photo}: explain the whole photo instead.")
    return Boxed(photo, max(animals, key=lambda each: each.confidence).box)


def _number(classifier: Classifier, label: int | str | Taxon) -> int:
    if isinstance(label, int) and 0 <= label < len(classifier.taxa):
        return label
    wanted = label.id if isinstance(label, Taxon) else label
    for number, taxon in enumerate(classifier.taxa):
        if wanted in (taxon.id, taxon.name):
            return number
    raise InputError(
        f"The classifier has no class {wanted!r}: name one of its {len(classifier.taxa)} by its id "
        "or scientific name."
    )


def _opened(classifier: Classifier, photo: Photo) -> tuple[ByteArray, tuple[ByteArray, ...]]:
    """Return the decoded photo, and the crops for the networks."""
    found = opened(photo)
    if isinstance(found, np.ndarray):
        return found, classifier.crop(found)
    data = found if isinstance(found, bytes) else images.read_bytes(found)
    with images.naming_photo(found):
        image = images.decode(data)
    exact = all(view.tier == "exact" for view in classifier.views)
    return image, classifier.crop(image if exact else data)
