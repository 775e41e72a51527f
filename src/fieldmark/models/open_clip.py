"""Networks of open_clip: pairs of an image and a text tower (CLIP, SigLIP, MobileCLIP, BioCLIP).

The features of a photo are its embedding, of length 1, as it is compared with the embeddings of texts
(Radford et al., "Learning transferable visual models from natural language supervision", 2021). So the last
layer may also be the embeddings of names (`TextTower`). open_clip is an extra: `pip install
'fieldmark[open-clip]'`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from fieldmark.data.transforms import Preprocess, ResizeMode
from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import HUB, INSIDE, LAST, Architecture, triple
from fieldmark.models.timm import load_library as import_timm
from fieldmark.utils.errors import InputError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

PREFIX = "open_clip:"
_NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
_TOKENS = 64  # texts at once
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def load_library() -> Any:
    """Import open_clip; raises InputError if it is not installed."""
    import_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            "networks of open_clip need the extra open-clip: pip install 'fieldmark[open-clip]'."
        ) from error
    return open_clip


def architecture(name: str) -> Architecture:
    """Return the architecture of a network by open_clip's names, `open_clip:NAME` or `open_clip:NAME.TAG`.

    Raises:
        InputError: open_clip has no such network or weights, or is not installed.
    """
    library = load_library()
    bare, _, tag = name.removeprefix(PREFIX).partition(".")
    config, tags = library.get_model_config(bare), library.list_pretrained_tags_by_model(bare)
    if config is None:
        near = get_close_matches(bare, library.list_models(), n=4)
        hint = f" (near it: {', '.join(near)})" if near else ""
        raise InputError(f"open_clip has no network {bare!r}{hint}.")
    if tag and tag not in tags:
        raise InputError(f"open_clip has no weights {tag!r} of {bare}: it has {', '.join(tags) or 'none'}.")
    published = library.get_pretrained_cfg(bare, tag or next(iter(tags), ""))
    if tag and published.get("quick_gelu"):  # as open_clip would only warn of
        config["quick_gelu"] = True
    parts = {"model_cfg": config, "preprocess_cfg": published}
    hub, _, file = str(published.get("hf_hub", "")).rpartition("/")
    file = file or "open_clip_model.safetensors"
    url = f"{HUB}/{hub}/resolve/main/{file}" if hub else str(published.get("url", ""))
    return described(name, parts, licence="see its publisher's page", url=url if tag else "")


def described(name: str, config: Mapping[str, Any], *, licence: str, url: str) -> Architecture:
    """Return the architecture of a network from `open_clip_config.json`.

    Args:
        name: of the network, for users.
        config: `model_cfg`, and `preprocess_cfg` if there is one.
        licence, url: of the weights.

    Raises:
        InputError: open_clip cannot build it, or it takes no square crops.
    """
    import torch

    from fieldmark.models.network import giga_macs

    text = json.dumps({"model_cfg": config["model_cfg"]})
    pixels = config.get("preprocess_cfg") or {}
    try:
        side = config["model_cfg"]["vision_cfg"]["image_size"]
        if isinstance(side, list | tuple):
            side = side[0] if len(set(side)) == 1 else side
        if not isinstance(side, int):
            raise InputError(f"{name} cannot be a backbone: it needs square photos.")
        with torch.device("meta"):
            network = _network(text)
        facts = Architecture(
            name=name,
            library="open_clip",
            feature_dim=int(config["model_cfg"]["embed_dim"]),
            input_size=side,
            mean=triple(pixels.get("mean", _CLIP_MEAN)),
            std=triple(pixels.get("std", _CLIP_STD)),
            last_layer="None of its own; the features are the photo's embedding, of length 1.",
            last_layer_path=LAST,
            giga_macs=giga_macs(network, side),
            licence=licence,
            url=url,
            preprocess=_preprocess(side, pixels),
            config=text,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise InputError(
            f"open_clip cannot build {name} from its configuration ({first_line(error)})."
        ) from error
    return facts


def _preprocess(side: int, pixels: Mapping[str, Any]) -> Preprocess:
    """Return the published preprocessing: the shorter side, unless it says otherwise, to the crop's."""
    fit = {"squash": "squash", "longest": "pad"}.get(str(pixels.get("resize_mode")), "crop")
    smooth = pixels.get("interpolation") != "bilinear"
    return Preprocess(side, side, "bicubic" if smooth else "bilinear", cast("ResizeMode", fit))


def build(facts: Architecture) -> nn.Module:
    """Build the image tower with random weights, before a linear last layer."""
    return _network(facts.config)


def _network(config: str) -> nn.Module:
    from fieldmark.models.network import UnitLength, with_last

    dim = json.loads(config)["model_cfg"]["embed_dim"]
    return with_last(UnitLength(_model(config, texts=False).visual), dim)


def _model(config: str, *, texts: bool) -> Any:
    """Build both towers with random weights; without `texts`, a text tower of next to no size."""
    library, parts = load_library(), json.loads(config)["model_cfg"]
    parts = {key: value for key, value in parts.items() if key not in ("multimodal_cfg", "custom_text")}
    custom = bool(json.loads(config)["model_cfg"].get("custom_text"))
    if not texts:
        parts["text_cfg"], custom = _NO_TEXT, False
    if "timm_model_name" in parts["vision_cfg"]:
        timm_name = parts["vision_cfg"]["timm_model_name"]
        if not import_timm().is_model(timm_name):  # it may also name a repository of the hub
            raise InputError(
                f"timm has no network {timm_name!r}, which this network of open_clip is built of."
            )
        parts["vision_cfg"] = {**parts["vision_cfg"], "timm_model_pretrained": False}
    if "hf_model_name" in parts["text_cfg"]:
        parts["text_cfg"] = {**parts["text_cfg"], "hf_model_pretrained": False}
        custom = True
    return (library.CustomTextCLIP if custom else library.CLIP)(**parts)


def renamed(
    _facts: Architecture, _network: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Give the tensors of the image tower in a published file the names of `build`."""
    inside = f"{INSIDE}.inner."
    if any(name.startswith(inside) for name in state):
        return state  # saved by fieldmark
    return {
        name.replace("visual.", inside, 1): value
        for name, value in state.items()
        if name.startswith("visual.")
    }


class TextTower:
    """The text tower of a network, which embeds names.

    Args:
        facts: the architecture.
        state: the tensors of the published file: both towers, and `logit_scale`.

    Raises:
        InputError: the file does not fill the text tower.
    """

    def __init__(self, facts: Architecture, state: Mapping[str, torch.Tensor]) -> None:
        import torch

        library, text = load_library(), json.loads(facts.config)["model_cfg"]["text_cfg"]
        self._model = _model(facts.config, texts=True).eval()
        self._tokenizer = _tokenizer(library, text)
        own = self._model.state_dict()
        state = library.convert.convert_state_dict(self._model, dict(state))
        if "positional_embedding" in state and "positional_embedding" not in own:
            state = library.model.convert_to_custom_text_state_dict(state)
        fits = {name: value.reshape(own[name].shape) for name, value in state.items() if name in own}
        missing = [name for name in own if name not in fits and not name.startswith("visual.")]
        if missing:
            raise InputError(
                f"the weights of {facts.name} do not fill its text tower ({missing[0]!r} is missing): "
                "name the published file with both towers."
            )
        with torch.no_grad():
            self._model.load_state_dict(fits, strict=False)

    @property
    def scale(self) -> float:
        """By how much cosines are multiplied to give logits."""
        return float(self._model.logit_scale.detach().exp())

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Compute the embeddings of texts, of length 1: float32, shape (N, D)."""
        import torch

        with torch.inference_mode():
            parts = [
                self._model.encode_text(self._tokenizer(list(texts[at : at + _TOKENS])), normalize=True)
                for at in range(0, len(texts), _TOKENS)
            ]
        return torch.cat(parts).float()


def _tokenizer(library: Any, text: Mapping[str, Any]) -> Any:
    length = text.get("context_length", 77)
    if name := text.get("hf_tokenizer_name"):
        more = {"tokenizer_mode": text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {})}
        more["trust_remote_code"] = False
        return library.tokenizer.HFTokenizer(name, context_length=length, **more)
    return library.SimpleTokenizer(context_length=length, **text.get("tokenizer_kwargs", {}))
