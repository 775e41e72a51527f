"""Backbones: pretrained networks that turn a crop into a feature vector.

`BACKBONES` lists the built-in ones; any other network of timm, open_clip or the Hugging Face hub is used by
its name, and one of your own as an ONNX file. Importing this package does not import PyTorch, and
`fieldmark.models.runtime` runs a converted graph without it.
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.models import catalogue, hub, libraries, onnx_graph, open_clip, timm
from fieldmark.models import weights as weights_
from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import Architecture, WeightsInfo
from fieldmark.models.backbone import Backbone, key_for_side
from fieldmark.models.catalogue import named
from fieldmark.models.runtime.tiers import EXACT, Tier

BACKBONES = catalogue.BUILT_IN
DEFAULT = timm.LITE0.name

GOOD = timm.LITE2.name
"""A larger network whose weights are installed as well; it takes about twice as long."""

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "GOOD",
    "Architecture",
    "Backbone",
    "WeightsInfo",
    "architecture",
    "available",
    "import_torchvision",
    "key_for_side",
    "load",
    "named",
]


def architecture(name: str) -> Architecture:
    """Return the architecture of a network.

    Args:
        name: of `BACKBONES`; of timm, bare or as `timm:NAME`; `open_clip:NAME`; `hf-hub:OWNER/NAME`;
            `local-dir:PATH` of a folder with the files that the hub would have; `onnx:PATH` of an ONNX
            file; or a recommendation, see `named`.

    Raises:
        InputError: there is no such network, or it cannot be a backbone.
        WeightsUnavailable: the hub does not answer.
    """
    if (name := named(name)) in BACKBONES:
        return BACKBONES[name]
    if name.startswith(open_clip.PREFIX):
        return open_clip.architecture(name)
    if name.startswith(onnx_graph.PREFIX):
        return onnx_graph.architecture(name)
    if repository := hub.Repository.of(name):
        return hub.architecture(repository)
    if not timm.has_weights(name):  # published, but not listed by this version of timm
        return hub.architecture(hub.Repository.named(f"timm/{name.removeprefix(timm.PREFIX)}"))
    return timm.architecture(name)


def load(
    name: str | Architecture,
    *,
    weights: str | Path | weights_.Weights = "pretrained",
    weights_dir: Path | str | None = None,
    seed: int = 0,
    size: int | None = None,
    trained_at: int | None = None,
    tier: Tier = EXACT,
) -> Backbone:
    """Load a network with its weights, in evaluation mode.

    Args:
        name: of the network (see `architecture`), or its architecture.
        weights: "pretrained"; "random"; or the path of a safetensors file or state dict, which may
            fill a part of the network (the rest stays random, see `Backbone.weights_info`); or what
            `weights.read` returned for it.
        weights_dir: the first folder to search for pretrained weights. The file is named
            `NAME.safetensors`, `NAME_anything.pth` and so on, or as it was published.
        seed: of random values.
        size: the side of its crops in pixels; None: the one that it was published or trained for.
        trained_at: the side that the weights in a file were trained for; None: the published one.
        tier: how it is to be computed.

    Raises:
        InputError: an unknown network, one that does not take crops of such a side, or a file that is
            damaged, hostile or of another network.
        WeightsUnavailable: the pretrained weights are not on this machine and cannot be downloaded.
    """
    facts = name if isinstance(name, Architecture) else architecture(named(name, weights_dir))
    read = weights if isinstance(weights, weights_.Weights) else None
    if not isinstance(weights, weights_.Weights) and (path := weights_.find(facts, weights, weights_dir)):
        read = weights_.read(path)

    from fieldmark.models.network import seeded

    with seeded(seed, "weights", facts.name):
        network = libraries.build(facts)
    if trained_at not in (None, facts.input_size):
        from fieldmark.models.sides import network_at

        facts, network = facts.at(trained_at), network_at(facts, network.eval(), trained_at)
    info = weights_.fill(facts, network, read) if read else weights_.random_weights_info(facts, network, seed)
    found = Backbone(facts, network.eval(), info)
    return (found if size is None else found.at(size)).computed(tier)


def available(weights_dir: Path | str | None = None) -> list[str]:
    """Return the names in `BACKBONES` whose pretrained weights are on this machine."""
    return [name for name, facts in BACKBONES.items() if weights_.find_local(facts, weights_dir)]
