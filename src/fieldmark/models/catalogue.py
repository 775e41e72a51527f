"""The networks that can be used: what each costs, what is published of it, and which are recommended.

Nothing is downloaded to list them, and a network is built (on meta tensors, without memory) only where its
cost is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from fieldmark.models import libraries, open_clip, reachable, timm, torchvision, weights
from fieldmark.models.architecture import HUB, HUB_FILES, Architecture
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.records import Record

logger = logging.getLogger(__name__)

BUILT_IN = {facts.name: facts for facts in (*timm.ARCHITECTURES, *torchvision.ARCHITECTURES)}

_BIOCLIP = "hf-hub:imageomics/bioclip-2"
_BIOCLIP_HUGE = "hf-hub:imageomics/bioclip-2.5-vith14"
_DINO_SMALL, _DINO_LARGE = "vit_small_patch16_dinov3.lvd1689m", "vit_large_patch16_dinov3.lvd1689m"

_MEDIUM = (_DINO_SMALL, timm.LITE2.name)
_LARGE = (_BIOCLIP, _DINO_LARGE, *_MEDIUM)
RECOMMENDED = {
    "small": (timm.LITE0.name,),
    "medium": _MEDIUM,
    "large": _LARGE,
    "best": (_BIOCLIP_HUGE, *_LARGE),
}
"""The networks that a recommendation stands for, the preferred ones first; a packaged one is the last."""

_SAME_TOWER = {_BIOCLIP: "open_clip:ViT-L-14", _BIOCLIP_HUGE: "open_clip:ViT-H-14"}
"""Networks of open_clip with the image tower of one of the hub, whose configuration needs a download."""

BUILT_AT_MOST = 40
"""How many networks a filter builds, unless all are asked for."""


@dataclass(frozen=True)
class Published(Record):
    """A published share of right first answers."""

    measure: str
    value: float
    source: str


_IMAGENET = "ImageNet top-1"
_LITE = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"
_INAT = "iNat21 top-1, frozen"
_BIOBENCH = "BioBench, https://github.com/samuelstevens/biobench"

PUBLISHED = {
    timm.LITE0.name: Published(_IMAGENET, 0.751, _LITE),
    timm.LITE2.name: Published(_IMAGENET, 0.776, _LITE),
    _BIOCLIP_HUGE: Published(_INAT, 0.933, _BIOBENCH),
    _BIOCLIP: Published(_INAT, 0.902, _BIOBENCH),
    "vit_pe_core_gigantic_patch14_448.fb": Published(_INAT, 0.820, _BIOBENCH),
    _DINO_LARGE: Published(_INAT, 0.785, _BIOBENCH),
    "vit_giant_patch14_reg4_dinov2.lvd142m": Published(_INAT, 0.771, _BIOBENCH),
}
"""What is published of networks, with its source."""


@dataclass(frozen=True)
class Entry(Record):
    """A network that can be used; None where a value is not known without building it."""

    name: str
    library: str
    parameters: float | None  # millions, without the last layer
    giga_macs: float | None  # for one crop
    features: int | None  # the length of a feature vector
    size: int  # the side of its crops in pixels
    licence: str  # of the weights
    here: bool  # whether the weights are on this machine
    published: Published | None
    photos_per_second: float | None = None  # of the network alone, as measured on this machine


@dataclass(frozen=True)
class Catalogue(Record):
    """The networks that were asked for, and how many others were left out."""

    networks: tuple[Entry, ...]
    over_limits: int = 0  # they cost more than asked for, or their weights are not here
    not_usable: int = 0  # they give no feature vector, or take no square colour photos
    not_built: int = 0  # more than `BUILT_AT_MOST` match


@dataclass(frozen=True)
class Query:
    """Which networks are asked for.

    Attributes:
        name: a part of the name, or a pattern with `*`, `?` or `[`; None: those that fieldmark lists.
        every: list all of timm's pretrained networks, and build all that match.
        max_macs, max_parameters: at most so many giga-MACs, and millions of parameters.
        here: only those whose weights are on this machine.
        weights_dir: a folder of weights, searched first.
    """

    name: str | None = None
    every: bool = False
    max_macs: float | None = None
    max_parameters: float | None = None
    here: bool = False
    weights_dir: Path | str | None = None

    @property
    def costs(self) -> bool:
        """Whether the cost of networks is asked for; a list of all has it where it limits the list."""
        limits = self.max_macs is not None or self.max_parameters is not None
        return limits or not self.every or self.name is not None

    def allows(self, entry: Entry) -> bool:
        """Return whether a network is within the limits."""
        for value, most in ((entry.giga_macs, self.max_macs), (entry.parameters, self.max_parameters)):
            if most is not None and (value is None or value > most):
                return False
        return True


def named(name: str, weights_dir: Path | str | None = None) -> str:
    """Return the network that a recommendation stands for; any other name is returned as it is.

    It is the first of `RECOMMENDED` whose weights are on this machine or can be downloaded, and is logged
    with the reason.
    """
    skipped: dict[str, list[str]] = {}
    for each in RECOMMENDED.get(name, ()):
        facts = unbuilt(each)
        if facts.library == "open_clip" and not find_spec("open_clip"):
            skipped.setdefault("without the extra open-clip", []).append(each)
            continue
        here = weights.find_local(facts, weights_dir) is not None
        if here or reachable.is_reachable(facts.url):
            why = "its weights are on this machine" if here else "its weights can be downloaded"
            others = "".join(f"; {reason}: {', '.join(names)}" for reason, names in skipped.items())
            logger.info(f"Network {name}: {each}, since {why}{others}.")
            return each
        offline = " (HF_HUB_OFFLINE is set)" if reachable.is_offline() else ""
        skipped.setdefault(f"neither here nor reachable{offline}", []).append(each)
    return RECOMMENDED[name][-1] if skipped else name


def unbuilt(name: str) -> Architecture:
    """Return what is known of a network of the catalogue without building it: 0 for its features and cost."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in _SAME_TOWER:
        return timm.unbuilt(name)
    url = f"{HUB}/{name.partition(':')[2]}/resolve/main/{HUB_FILES[0]}"
    return replace(
        timm.LITE0, name=name, library="open_clip", url=url, licence="MIT", feature_dim=0, giga_macs=0
    )


def catalogue(query: Query) -> Catalogue:
    """List networks, the cheapest first if they are built.

    Raises:
        InputError: no network has such a name.
    """
    facts = [unbuilt(name) for name in _names(query)]
    local = {each.name for each in facts if weights.find_local(each, query.weights_dir)}
    wanted = [each for each in facts if not query.here or each.name in local]
    most = len(wanted) if query.every or not query.costs else BUILT_AT_MOST
    found = list(_entries(wanted[:most], local, query))
    allowed = [each for each in found if query.allows(each)]
    if query.costs:
        allowed.sort(key=lambda each: each.giga_macs or 0)
    return Catalogue(
        tuple(allowed),
        over_limits=len(facts) - len(wanted) + len(found) - len(allowed),
        not_usable=len(wanted[:most]) - len(found),
        not_built=len(wanted[most:]),
    )


def _names(query: Query) -> list[str]:
    recommended = [name for names in RECOMMENDED.values() for name in names]
    listed = [*BUILT_IN, *recommended]
    if query.name is not None or query.every:
        listed += timm.pretrained()
    part = (query.name or "*").removeprefix(timm.PREFIX).lower()
    pattern = part if any(sign in part for sign in "*?[") else f"*{part}*"
    names = [name for name in dict.fromkeys(listed) if fnmatch(name.lower(), pattern)]
    if not names:
        raise InputError(
            f"no network with published weights has a name like {query.name!r}: try a part of it."
        )
    return names


def _entries(networks: list[Architecture], local: set[str], query: Query) -> Iterator[Entry]:
    with progress_bar("describing networks", len(networks), "networks") as bar:
        for facts in networks:
            bar.advance()
            try:
                built, parameters = _built(facts) if query.costs else (facts, None)
            except InputError as error:
                if facts.name not in _SAME_TOWER:  # those need an extra that may not be here
                    logger.debug(str(error))
                    continue
                built, parameters = facts, None
            yield Entry(
                facts.name,
                facts.library,
                parameters,
                built.giga_macs or None,
                built.feature_dim or None,
                facts.input_size,
                facts.licence,
                here=facts.name in local,
                published=PUBLISHED.get(facts.name),
            )


def _built(facts: Architecture) -> tuple[Architecture, float]:
    """Return a network's architecture and its millions of parameters without the last layer."""
    import torch

    if not facts.giga_macs:
        tower = _SAME_TOWER.get(facts.name)
        facts = open_clip.architecture(tower) if tower else timm.architecture(facts.name)
    with torch.device("meta"):
        network = libraries.build(facts)
    last = f"{facts.last_layer_path}."
    count = sum(each.numel() for name, each in network.named_parameters() if not name.startswith(last))
    return facts, round(count / 1e6, 3)
