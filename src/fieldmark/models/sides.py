"""Networks on crops of another side than their own.

Most convolutional networks take any side. Transformers with position embeddings take others after these
are resampled (timm's `set_input_size`), in a copy; the result depends on the original's weights alone.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch

from fieldmark.models.architecture import INSIDE
from fieldmark.models.network import Trunk
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from fieldmark.models.architecture import Architecture

_REFUSALS = (RuntimeError, ValueError, AssertionError, TypeError, IndexError, ZeroDivisionError)
_STEPS = (14, 16, 32)  # of the sides that a refusal names: the usual sizes of patches
_SMALLEST = 32
_REACH = 96  # pixels around the refused side in which they are looked for


def network_at(facts: Architecture, network: nn.Module, side: int) -> nn.Module:
    """Return a network for crops of `side` pixels: itself, or a copy with resampled position embeddings.

    Raises:
        InputError: it cannot take such crops; the sentence names the nearest sides that it takes.
    """
    found = _accepting(facts, network, side)
    if found is not None:
        return found
    with torch.device("meta"):
        shapes = copy.deepcopy(network).to("meta")
        near = sorted(filter(None, (_nearest(facts, shapes, side, way) for way in (-1, 1))))
    own = facts.input_size
    if near in ([], [own]):
        raise InputError(f"{facts.name} takes crops of {own} pixels only, not of {side}.")
    work = "side that works is" if len(near) == 1 else "sides that work are"
    named = " and ".join(map(str, near))
    raise InputError(f"{facts.name} takes no crops of {side} pixels: the nearest {work} {named}.")


def _accepting(facts: Architecture, network: nn.Module, side: int) -> nn.Module | None:
    """Return a copy or the network that takes such crops, found by trying; None where neither does.

    The copy comes first: what some networks resample in every pass cannot be converted to a graph.
    """
    for change in (lambda same: _resampled(same, side), lambda same: same):
        try:
            found: nn.Module = change(network)
            with torch.inference_mode():
                Trunk(facts, found)(torch.zeros((1, side, side, 3), dtype=torch.uint8))
        except _REFUSALS:
            continue
        return found
    return None


def _resampled(network: nn.Module, side: int) -> nn.Module:
    """Return a copy whose position embeddings are resampled for another side; ValueError without any."""
    inside: Any = getattr(network, INSIDE, network)
    embed: Any = getattr(inside, "patch_embed", None)
    patch = getattr(embed, "patch_size", None) or (1, 1)
    grid: Any = getattr(getattr(inside, "pos_embed", None), "shape", ())
    has_grid = len(grid) == 4 and tuple(grid[1:3]) == getattr(embed, "grid_size", None)
    if not (has_grid or hasattr(inside, "set_input_size")) or side % patch[0] or side % patch[1]:
        raise ValueError("it has no size to set, or timm would cut off what is no whole patch")
    found = copy.deepcopy(network)
    inside = getattr(found, INSIDE, found)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's code, for whoever writes it
        if hasattr(inside, "set_input_size"):
            inside.set_input_size(img_size=(side, side))
        else:  # (1, H, W, D), which the network itself resamples in every pass
            from timm.layers.pos_embed import resample_abs_pos_embed_nhwc

            size = [side // patch[0], side // patch[1]]
            inside.pos_embed = torch.nn.Parameter(resample_abs_pos_embed_nhwc(inside.pos_embed, size))
    return found


def _nearest(facts: Architecture, shapes: nn.Module, side: int, way: int) -> int | None:
    """Return the nearest side that works below (-1) or above (+1), by a network without values."""
    for each in _sides(side, way):
        if each == facts.input_size or _accepting(facts, shapes, each) is not None:
            return each
    return None


def _sides(side: int, way: int) -> Iterator[int]:
    for distance in range(1, _REACH + 1):
        each = side + way * distance
        if each >= _SMALLEST and any(each % step == 0 for step in _STEPS):
            yield each
