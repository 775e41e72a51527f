"""Image networks of transformers, by their configuration on the Hugging Face hub.

The features are those that the library calls pooled: of pairs of an image and a text tower (CLIP, SigLIP) the
photo's embedding, of length 1; of others the pooled output, or else the class token. transformers is an
extra: `pip install 'fieldmark[transformers]'`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from fieldmark.data.resampling import Interpolation
from fieldmark.data.transforms import Preprocess
from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import HALF, INSIDE, LAST, Architecture, triple
from fieldmark.utils.errors import InputError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

_BILINEAR = 2  # as Pillow numbers it


def load_library() -> Any:
    """Import transformers; raises InputError if it is not installed."""
    import_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "this network needs the extra transformers: pip install 'fieldmark[transformers]'."
        ) from error
    return transformers


def described(
    name: str, config: Mapping[str, Any], *, licence: str, url: str, pixels: Mapping[str, Any] | None = None
) -> Architecture:
    """Return the architecture of a network from its `config.json`.

    Args:
        name: of the network, for users.
        config: `model_type`, and what belongs to it.
        licence, url: of the weights.
        pixels: `preprocessor_config.json`, with the mean and the deviation of pixels.

    Raises:
        InputError: transformers cannot build it, or it takes no square crops.
    """
    import torch

    from fieldmark.models.network import giga_macs

    text, pixels = json.dumps(dict(config)), pixels or {}
    side = config.get("image_size") or (config.get("vision_config") or {}).get("image_size") or 224
    if not isinstance(side, int):
        raise InputError(f"{name} cannot be a backbone: it needs square photos.")
    try:
        with torch.device("meta"):
            network = _network(text)
            dim = network(torch.empty(2, 3, side, side, device="meta")).shape[-1]
        return Architecture(
            name=name,
            library="transformers",
            feature_dim=dim,
            input_size=side,
            mean=triple(pixels.get("image_mean", HALF)),
            std=triple(pixels.get("image_std", HALF)),
            last_layer="None of its own; the features are what transformers calls pooled.",
            last_layer_path=LAST,
            giga_macs=giga_macs(network, side),
            licence=licence,
            url=url,
            preprocess=_preprocess(side, pixels),
            config=text,
        )
    except InputError:
        raise
    except Exception as error:  # a library of many models may raise anything
        raise InputError(
            f"transformers cannot build {name} from its configuration "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error


def _preprocess(side: int, pixels: Mapping[str, Any]) -> Preprocess:
    """Return the published preprocessing; without one, the whole photo, squashed."""
    size = pixels.get("size")
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
    smooth: Interpolation = "bilinear" if pixels.get("resample") == _BILINEAR else "bicubic"
    if not isinstance(shorter, int):
        return Preprocess(side, side, smooth, "squash")
    return Preprocess(side, max(side, shorter), smooth, "crop")


def build(facts: Architecture) -> nn.Module:
    """Build the network with random weights, before a linear last layer."""
    from fieldmark.models.network import with_last

    return with_last(_network(facts.config), facts.feature_dim)


def _network(config: str) -> nn.Module:
    from fieldmark.models.network import Pooled

    parts = json.loads(config, object_hook=_without_code)
    if str(parts["model_type"]).startswith("timm_"):
        raise InputError("transformers would only pass it on to timm: name timm's network.")
    library = load_library()
    known = library.AutoConfig.for_model(**parts)
    if any(each.endswith("ForImageClassification") for each in parts.get("architectures") or ()):
        with suppress(TypeError):  # it has no layer after the class token, or its last layer reads that
            return Pooled(
                library.AutoModel.from_config(known, add_pooling_layer=False, trust_remote_code=False)
            ).eval()
    return Pooled(library.AutoModel.from_config(known, trust_remote_code=False)).eval()


def _without_code(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what names code, kernels or weights to fetch."""
    words = ("auto_map", "implementation", "pretrained", "quantization")
    return {name: value for name, value in values.items() if not any(word in name for word in words)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's reports of what it loads off the screen: `WeightsInfo` says it."""
    log = load_library().utils.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()


def renamed(
    facts: Architecture, network: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Give the tensors of a published file the names of `build`, as transformers does when it loads them."""
    import torch

    inside, inner = f"{INSIDE}.inner.", cast("Any", network.get_submodule(f"{INSIDE}.inner"))
    if any(name.startswith(inside) for name in state):
        return state  # saved by fieldmark
    with _quiet():
        loaded, found = type(inner).from_pretrained(
            None,
            config=inner.config,
            state_dict=dict(state),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # and said here
        )
    if other := found["mismatched_keys"]:
        raise InputError(
            f"the file does not fit {facts.name}: {min(other)[0]!r} has another shape there; "
            "name the network that these weights are of."
        )
    filled = {name: value for name, value in loaded.state_dict().items() if name not in found["missing_keys"]}
    return {inside + name: value for name, value in filled.items()}
