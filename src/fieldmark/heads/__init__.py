"""Heads: what is learned on frozen features. One file for each kind.

A new kind of head is a file beside these and a line in `HEADS`. Every entry is called with
(train, val, classes, seed) and gives a `fieldmark.heads.base.Fitted`; `tests/contract/test_heads.py`
says what it must do.
"""

from __future__ import annotations

from collections.abc import Callable

from fieldmark.heads import default, knn, ncm, ridge
from fieldmark.heads.base import Fitted, LabelledFeatures

HEADS: dict[str, Callable[[LabelledFeatures, LabelledFeatures, int, int], Fitted]] = {
    "softmax": default.fit,
    "ridge": ridge.fit,
    "ncm": ncm.fit,
    "knn": knn.fit,
}
