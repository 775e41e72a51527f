"""Heads: what is learned on frozen features. One file for each kind.

A new kind of head is a file beside these and a line in `HEADS`; the methods for classes with few photos
share `longtail`. Every entry is called with
(train, val, classes, seed) and gives a `fieldmark.heads.base.Fitted`; `tests/contract/test_heads.py`
says what it must do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldmark.features.labelled import LabelledFeatures
    from fieldmark.heads.base import HeadFit


def _head(
    module: str, **settings: str | int
) -> Callable[[LabelledFeatures, LabelledFeatures, int, int], HeadFit]:
    """The function `fit` of a file of this folder; read when it is called, since it needs PyTorch."""

    def fit(train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0) -> HeadFit:
        found: HeadFit = import_module(f"fieldmark.heads.{module}").fit(
            train, val, classes, seed, **settings
        )
        return found

    return fit


def _class_imbalance(
    method: str, train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> HeadFit:
    """A method for classes with few photos."""
    from fieldmark.heads import class_imbalance

    return class_imbalance.fit(method, train, val, classes, seed)


LONG = 100
"""Epochs of the kind of head that is trained for longer."""

HEADS: dict[str, Callable[[LabelledFeatures, LabelledFeatures, int, int], HeadFit]] = {
    "softmax": _head("default"),
    "sampled": _head("default", kind="sampled"),
    "long": _head("default", epochs=LONG),
    "ridge": _head("ridge"),
    "ncm": _head("ncm"),
    "knn": _head("knn"),
    **{
        method: partial(_class_imbalance, method)
        for method in (
            *("inverse-frequency", "effective-number", "adjusted-loss", "root-sampling"),
            *("balanced-sampling", "re-training", "adjusted", "normalised"),
        )
    },
}
