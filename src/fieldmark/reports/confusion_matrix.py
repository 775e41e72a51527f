"""The confusion matrix of a page: classes that are taken for each other stand side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page
from fieldmark.utils.languages import say, say_count
from fieldmark.utils.typing import IntArray

MOST = 1000
"""Most classes of a matrix: those with the most wrong answers."""


def matrix(evaluation: Evaluation, taxonomy: Taxonomy) -> Mapping[str, Any] | None:
    """Return the matrix as text for `matrix.js`, and how many classes are in it; None with fewer than two.

    Rows are labels, columns answers; `cells` are those that are not 0, as row, column, photos.
    """
    kept = evaluation.kept_N
    labels, answers = evaluation.labels_N[kept], evaluation.predicted_N[kept]
    if not len(labels):
        return None
    count = len(evaluation.classes)
    wrong = labels != answers
    errors_C = np.bincount(labels[wrong], minlength=count) + np.bincount(answers[wrong], minlength=count)
    seen = np.flatnonzero(np.bincount(labels, minlength=count) + errors_C)
    chosen = seen[np.argsort(-errors_C[seen], kind="stable")][:MOST]
    if len(chosen) < 2:
        return None
    place = np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    inside = (place[labels] >= 0) & (place[answers] >= 0)
    counts_CC = np.zeros((len(chosen), len(chosen)), np.int64)
    np.add.at(counts_CC, (place[labels[inside]], place[answers[inside]]), 1)
    order = _order(counts_CC)
    counts_CC = counts_CC[np.ix_(order, order)]
    names = [page.label(taxonomy, evaluation.classes[chosen[at]]) for at in order]
    cells = [[int(row), int(column), int(counts_CC[row, column])] for row, column in np.argwhere(counts_CC)]
    text = json.dumps({"names": names, "cells": cells, "words": _words()}, ensure_ascii=False)
    for sign in "<>&":  # it stands inside of a script
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return {"data": text, "classes": len(chosen), "more": len(seen) - len(chosen)}


def _words() -> dict[str, str | list[str]]:
    """Return what `matrix.js` says; sentences are there for one photo and for several."""
    cell = {name: f"{{{name}}}" for name in ("label", "other", "some", "all")}
    return {
        "label": say("label"),
        "answer": say("answer"),
        "right": [
            say_count(
                "{label}: {some} of {all} photo right", "{label}: {some} of {all} photos right", count, **cell
            )
            for count in (1, 2)
        ],
        "wrong": [
            say_count(
                "{label}, taken for {other}: {some} of {all} photo",
                "{label}, taken for {other}: {some} of {all} photos",
                count,
                **cell,
            )
            for count in (1, 2)
        ],
    }


def _order(counts_CC: IntArray) -> IntArray:
    """Order classes so that those that are confused are near each other.

    By average linkage (Sokal and Michener 1958). Two classes are the nearer, the larger a share of their
    photos is taken for the other.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    share_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    near_CC = np.minimum((share_CC + share_CC.T) / 2, 1)
    np.fill_diagonal(near_CC, 1)
    found: IntArray = leaves_list(linkage(squareform(1 - near_CC, checks=False), "average")).astype(np.int64)
    return found
