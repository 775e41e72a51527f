"""Heads: models on frozen features. One file for each kind.

To add a kind: a file beside these and a line in `HEADS`; the methods for class imbalance share
`class_imbalance`. Every entry is called with (train, val, classes, seed) and returns a
`fieldmark.heads.base.HeadFit`; `tests/contract/test_heads.py` tests the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fieldmark.features.labelled import LabelledFeatures
    from fieldmark.heads.base import HeadFit


def _fit(
    module: str,
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    seed: int = 0,
    **settings: str | int,
) -> HeadFit:
    """Call `fit` of a file of this folder, imported on call since it needs PyTorch."""
    fit = import_module(f"fieldmark.heads.{module}").fit
    return cast("HeadFit", fit(train, val, classes, seed, **settings))


LONG = 100
"""Epochs of the head `long`."""

HEADS: dict[str, Callable[[LabelledFeatures, LabelledFeatures, int, int], HeadFit]] = {
    "softmax": partial(_fit, "default"),
    "sampled": partial(_fit, "default", kind="sampled"),
    "long": partial(_fit, "default", epochs=LONG),
    "ridge": partial(_fit, "ridge"),
    "logistic": partial(_fit, "logistic"),
    "ncm": partial(_fit, "ncm"),
    "knn": partial(_fit, "knn"),
    **{
        method: partial(_fit, "class_imbalance", method=method)
        for method in (
            *("inverse-frequency", "effective-number", "adjusted-loss", "root-sampling"),
            *("balanced-sampling", "re-training", "adjusted", "normalised"),
        )
    },
}
