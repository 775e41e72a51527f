"""`fieldmark explain`: where the network looked, and the training photos that are most like a photo.

Networks whose features are the mean over the last feature map get an exact class activation map (Zhou
et al., "Learning deep features for discriminative localization", 2016): the last layer is linear, so the
score of a class is the mean over the map of what each place adds, plus the bias. The map is taken from
the converted network, in which it is the input of the global mean; so it is found for every network
that has one, whatever its library, and PyTorch is not needed.

All others (AlexNet) get Grad-CAM (Selvaraju et al., "Grad-CAM: visual explanations from deep networks
via gradient-based localization", 2017), which needs gradients and with them PyTorch.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark import files, images, neighbours
from fieldmark.backbones import engines
from fieldmark.backbones.engines import graphs
from fieldmark.classifier import Classifier, Member, Network, Prediction
from fieldmark.errors import InputError
from fieldmark.neighbours import Neighbour
from fieldmark.preprocess import Preprocess
from fieldmark.taxonomy import Taxon

if TYPE_CHECKING:
    import onnx
    import torch
    from matplotlib.figure import SubFigure

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Photo = bytes | Path | str | Pixels

LABELS, NEIGHBOURS = 5, 5
"""How many labels and training photos the picture shows."""

_OPACITY = 0.6  # of the heat map over the photo, where it is hottest
_MOST_PIXELS = 1600  # of a side in the picture: more is not seen


class NoFeatureMap(InputError):
    """The network is not convolutional, so there is no map of where it looked."""


@dataclass(frozen=True)
class Activation:
    """What each place of a network's last feature map adds to the score of a class.

    Attributes:
        map_hw: float32 (h, w); of an exact map the mean is `score - bias`.
        score: the class's logit, before the temperature.
        bias: what the last layer adds whatever the photo.
        exact: whether the map is a class activation map; else it is Grad-CAM, never negative.
    """

    map_hw: Floats
    score: float
    bias: float
    exact: bool


def activation(member: Member, crop: Pixels, number: int) -> Activation:
    """What each place adds to the score of a class.

    Args:
        member: of the classifier that named the photo, such as its `lead`.
        crop: uint8 (size, size, 3), as `member.preprocess` makes it.
        number: of the class, in the classifier's taxonomy.

    Raises:
        NoFeatureMap: the network is not convolutional.
    """
    weight_D = member.head.weight[:, number]
    bias = float(member.head.bias[number])
    mapped = _mapped(member.network)
    if mapped is None:
        map_hw, x_D = _grad_cam(member.network, crop, weight_D)
    else:
        maps_Dhw, x_D = mapped(crop)
        map_hw = np.tensordot(weight_D, maps_Dhw, axes=1).astype(np.float32)
    return Activation(map_hw, float(x_D @ weight_D) + bias, bias, mapped is not None)


def heat_map(
    classifier: Classifier, photo: Photo, label: int | str | Taxon | None = None
) -> Floats:
    """Where the networks looked: float32 (H, W) in 0..1, in the frame of the photo.

    1 is the place that speaks most for the class; 0 are places that add nothing, speak against it, or
    lie outside the central crop, which the network does not see.

    Args:
        classifier: what names the photo.
        photo: a path, the bytes of a file, or an RGB image uint8 (H, W, 3).
        label: a taxon, its id, or its number in the taxonomy; None: the first label.

    Raises:
        ImageRejected: the photo cannot be used.
        InputError: the classifier has no such class.
        NoFeatureMap: no network of it is convolutional.
    """
    image, crops = _opened(classifier, photo)
    if label is None:
        label = int(classifier.scores([crop[None] for crop in crops])[0].argmax())
    return heat(classifier, crops, label, image.shape[0], image.shape[1])


def heat(
    classifier: Classifier,
    crops: Sequence[Pixels],
    label: int | str | Taxon,
    height: int,
    width: int,
) -> Floats:
    """The heat map of a photo of which the crops are here, at any size; see `heat_map`.

    An ensemble's is the weighted sum of its members' maps, each in what it adds to its calibrated
    score; a member whose network has no map takes no part.

    Args:
        classifier: what names the photo.
        crops: as `Classifier.crop` gives them.
        label: see `heat_map`.
        height, width: of the map that is wanted, in the proportions of the photo.

    Raises:
        InputError, NoFeatureMap: see `heat_map`.
    """
    number = _number(classifier, label)
    maps: list[Floats] = []
    strengths: list[float] = []
    missing = None
    for member in classifier.members:
        crop = crops[classifier.views.index(member.preprocess)]
        try:
            found = activation(member, crop, number)
        except NoFeatureMap as error:
            missing = error
            continue
        maps.append(in_frame(member.preprocess, found, height, width))
        top = max(0.0, float(found.map_hw.max(initial=0)))
        strengths.append(member.weight / member.temperature * top)
    if missing is not None and not maps:
        raise missing
    if len(maps) == 1:
        return maps[0]
    whole = np.tensordot(np.array(strengths, np.float32), np.stack(maps), axes=1)
    return np.asarray(whole / max(float(whole.max(initial=0)), 1e-30), np.float32)


def in_frame(view: Preprocess, found: Activation, height: int, width: int) -> Floats:
    """An activation as a heat map in the frame of a photo of `height` x `width`; see `heat_map`."""
    from PIL import Image

    positive_hw = np.maximum(found.map_hw, 0)
    if view.flip:
        positive_hw = positive_hw[:, ::-1]
    top = float(positive_hw.max(initial=0))
    heat = Image.fromarray(np.ascontiguousarray(positive_hw / top if top > 0 else positive_hw))
    left, up, right, down = view.box(height, width)
    x0, y0, x1, y1 = round(left), round(up), round(right), round(down)
    size = (max(1, x1 - x0), max(1, y1 - y0))
    seen = np.asarray(heat.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    whole = np.zeros((height, width), np.float32)
    part = whole[y0:y1, x0:x1]
    part[...] = seen[: part.shape[0], : part.shape[1]]
    return whole


def overlay(image: Pixels, heat: Floats) -> Pixels:
    """A photo with a heat map over it: uint8 (H, W, 3).

    Args:
        image: uint8 (H, W, 3).
        heat: float (H, W) in 0..1. The hotter, the more of the colour is seen, from violet to yellow.
    """
    from matplotlib import colormaps

    colour = 255 * colormaps["plasma"](heat)[..., :3]
    share = _OPACITY * np.sqrt(np.clip(heat, 0, 1))[..., None]
    return np.asarray(np.rint((1 - share) * image + share * colour), np.uint8)


def similar(classifier: Classifier, photo: npt.NDArray[Any], k: int = 5) -> list[Neighbour]:
    """The training photos most like a crop or its features: `fieldmark.neighbours.similar`."""
    return neighbours.similar(classifier, photo, k)


# The picture


@dataclass(frozen=True)
class Explanation:
    """Why a photo got its label.

    Attributes:
        image: the photo, uint8 (H, W, 3).
        prediction: its labels.
        taxon: the label that the heat map is of.
        heat: float32 (H, W) in 0..1; None where the network has no feature map.
        neighbours: the nearest training photos with their pictures, None where the picture is not
            here; empty where the classifier's folder keeps none.
    """

    image: Pixels
    prediction: Prediction
    taxon: Taxon
    heat: Floats | None
    neighbours: tuple[tuple[Neighbour, Pixels | None], ...]


def explain(
    classifier: Classifier,
    photo: Photo,
    label: int | str | Taxon | None = None,
    *,
    top: int = LABELS,
    k: int = NEIGHBOURS,
) -> Explanation:
    """Name a photo and say why: the arguments are those of `heat_map`.

    Raises:
        ImageRejected: the photo cannot be used.
        InputError: the classifier has no such class, or what it keeps of its photos is damaged.
    """
    image, crops = _opened(classifier, photo)
    features = classifier.features([crop[None] for crop in crops])
    p_C = np.exp(classifier.log_probabilities(features)[0])
    number = int(p_C.argmax()) if label is None else _number(classifier, label)
    kept = neighbours.of(classifier)
    found = kept.similar(features[0], k)[0] if kept is not None else []
    try:
        hot = heat(classifier, crops, number, *image.shape[:2])
    except NoFeatureMap:
        hot = None
    return Explanation(
        image=image,
        prediction=classifier.rank(p_C, top),
        taxon=classifier.taxa[number],
        heat=hot,
        neighbours=tuple((near, kept.picture(near)) for near in found if kept is not None),
    )


def run(model: Path, photo: Path, out: Path, label: str | None = None) -> Explanation:
    """Explain a photo with the classifier in a folder, and write the picture as a PNG.

    Raises:
        InputError: the classifier, the photo or the class is not there, or `out` cannot be written.
    """
    found = explain(Classifier.load(model), photo, label)
    files.write_bytes(out, picture(found))
    return found


def picture(found: Explanation) -> bytes:
    """Photo, heat map, labels and the nearest training photos in one picture: a PNG."""
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
        # A name in a script that the font has no letters for: it gets boxes, which is seen.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_photo(part: SubFigure, found: Explanation) -> None:
    step = max(1, max(found.image.shape) // _MOST_PIXELS)
    image = found.image[::step, ::step]
    shown = [(image, "The photo")]
    if found.heat is not None:
        title = f"What speaks for {found.taxon.common_name or found.taxon.name}"
        shown.append((overlay(image, found.heat[::step, ::step]), title))
    for axes, (pixels, title) in zip(
        part.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
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
        said = found.prediction.reason or "Not sure; the most likely are"
        axes.set_title(_wrapped(said, 110), fontsize=10, loc="left", parse_math=False)


def _draw_neighbours(part: SubFigure, found: Explanation) -> None:
    part.suptitle("The most similar training photos", fontsize=11)
    tiles = part.subplots(1, len(found.neighbours), squeeze=False)[0]
    for axes, (near, pixels) in zip(tiles, found.neighbours, strict=True):
        axes.set_xticks([])
        axes.set_yticks([])
        if pixels is None:
            axes.text(0.5, 0.5, "not on this\nmachine", ha="center", va="center", color="#666666")
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


def _opened(classifier: Classifier, photo: Photo) -> tuple[Pixels, tuple[Pixels, ...]]:
    """The photo, decoded in full, and the crops that the networks see."""
    if isinstance(photo, np.ndarray):
        return photo, classifier.crop(photo)
    data = photo if isinstance(photo, bytes) else images.read_bytes(Path(photo))
    image = images.decode(data)
    if all(view.tier == "exact" for view in classifier.views):
        return image, classifier.crop(image)
    return image, classifier.crop(data)


# Exact: the map is the input of the global mean


class _Mapped:
    """A converted network that gives its last feature map beside the features."""

    def __init__(self, model: onnx.ModelProto, map_name: str) -> None:
        import onnxruntime
        from onnx import helper

        model.graph.output.append(helper.make_empty_tensor_value_info(map_name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = engines.cores()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, crop: Pixels) -> tuple[Floats, Floats]:
        """The map (D, h, w) and its mean, the features (D,)."""
        features, maps = self._session.run(None, {self._input: crop[None]})
        return maps[0], features[0]


@lru_cache(maxsize=8)
def _mapped(network: Network) -> _Mapped | None:
    """The network with its map; None where the features are not the mean over a map."""
    import onnx

    try:
        kept = engines.cached_graph(network.key)
        model = onnx.load(kept or graphs.graph(network.backbone))
    except InputError:  # a network that cannot be converted runs in PyTorch
        return None
    name = _map_of(model)
    return _Mapped(model, name) if name else None


_ONLY_SHAPE = ("Flatten", "Reshape", "Squeeze", "Identity")


def _map_of(model: onnx.ModelProto) -> str | None:
    """The name of the map whose mean over height and width is the output of the graph."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(model.graph.output[0].name)
    while node is not None and node.op_type in _ONLY_SHAPE:
        node = made_by.get(node.input[0])
    if node is None:
        return None
    is_mean = node.op_type == "GlobalAveragePool" or (
        node.op_type == "ReduceMean" and _axes(node) in ({2, 3}, {-1, -2})
    )
    return str(node.input[0]) if is_mean else None


def _axes(node: onnx.NodeProto) -> set[int]:
    return {axis for a in node.attribute if a.name == "axes" for axis in a.ints}


# Grad-CAM


def _grad_cam(network: Network, crop: Pixels, weight_D: Floats) -> tuple[Floats, Floats]:
    """Grad-CAM of the last feature map before a pooling, and the features.

    Each channel is weighted by the mean over the places of the score's gradient by it.
    """
    import torch
    from torch import nn

    trunk = network.backbone.trunk
    pooling = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    maps: list[torch.Tensor] = []

    def keep(module: nn.Module, _: Any, out: Any) -> None:
        is_map = isinstance(out, torch.Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1
        if is_map and not isinstance(module, pooling):
            maps.append(out)

    def follow(_: nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        return out.requires_grad_()

    leaves = [module for module in trunk.modules() if not any(module.children())]
    hooks = [trunk.pixels.register_forward_hook(follow)]
    hooks += [leaf.register_forward_hook(keep) for leaf in leaves if leaf is not trunk.pixels]
    try:
        with torch.enable_grad():
            features = trunk(torch.from_numpy(crop[None].copy()))
            if not maps:
                raise NoFeatureMap(
                    f"{network.architecture} has no feature map to draw: a heat map needs a "
                    "convolutional network."
                )
            score = features[0] @ torch.from_numpy(weight_D.copy())
            [gradient] = torch.autograd.grad(score, maps[-1])
    finally:
        for hook in hooks:
            hook.remove()
    channel_K = gradient[0].mean(dim=(1, 2))
    map_hw = torch.tensordot(channel_K, maps[-1][0].detach(), dims=1).clamp(min=0)
    return map_hw.numpy(), features[0].detach().numpy()
