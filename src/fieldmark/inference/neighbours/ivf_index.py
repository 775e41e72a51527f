"""Build the index: rows sorted into cells around centres, and the number of cells to search."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.inference.neighbours.vectors import BLOCK, HalfArray, nearest, unit
from fieldmark.utils import random as sampling
from fieldmark.utils.typing import FloatArray, IntArray

_ROUNDS = 8  # of k-means: later ones move few rows
_SAMPLE_PER_CELL = 32
_WANTED_RECALL = 0.98
_QUERIES, _NEAREST = 200, 10  # for measuring the recall


def build(unit_ND: HalfArray) -> tuple[IntArray, dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Build the index; return the order of the rows by cell, the tensors, and the measures."""
    count = len(unit_ND)
    cells = max(1, round(count**0.5))
    random = sampling.generator(0, "cells", count)
    sample = random.choice(count, min(count, cells * _SAMPLE_PER_CELL), replace=False)
    sample_SD = unit_ND[sample].astype(np.float32)
    centres_CD = sample_SD[:cells].copy()
    for _ in range(_ROUNDS):
        cell_S = (sample_SD @ centres_CD.T).argmax(axis=1)
        total_CD = _sums(sample_SD, cell_S, cells)
        taken = np.bincount(cell_S, minlength=cells) > 0
        centres_CD[taken] = unit(total_CD[taken])
    blocks = (unit_ND[start : start + BLOCK] for start in range(0, count, BLOCK))
    cell_N = np.concatenate([(block.astype(np.float32) @ centres_CD.T).argmax(axis=1) for block in blocks])
    ends = np.cumsum(np.bincount(cell_N, minlength=cells), dtype=np.int64)
    tensors = {"centres": centres_CD.astype(np.float16), "cells_ends": ends}
    return np.argsort(cell_N, kind="stable"), tensors, _measure(unit_ND, cell_N, centres_CD, random)


def _sums(x_SD: FloatArray, cell_S: npt.NDArray[np.intp], cells: int) -> FloatArray:
    """Sum the rows of each cell, shape (cells, D)."""
    order = np.argsort(cell_S, kind="stable")
    present, first = np.unique(cell_S[order], return_index=True)
    total = np.zeros((cells, x_SD.shape[1]), np.float32)
    total[present] = np.add.reduceat(x_SD[order], first, axis=0)
    return total


def _measure(
    unit_ND: HalfArray, cell_N: npt.NDArray[np.intp], centres_CD: FloatArray, random: np.random.Generator
) -> dict[str, str]:
    """Find the smallest number of cells (a power of two) that reaches the wanted recall.

    The queries are rows; each is its own nearest row, which does not count.
    """
    count, cells = len(unit_ND), len(centres_CD)
    queries = random.choice(count, min(_QUERIES, count), replace=False)
    unit_QD = unit_ND[queries].astype(np.float32)
    blocks = ((start, unit_ND[start : start + BLOCK].astype(np.float32)) for start in range(0, count, BLOCK))
    rows_QK, _ = nearest(unit_QD, blocks, min(_NEAREST + 1, count))
    others_QK = rows_QK != queries[:, None]
    order_QC = np.argsort(-(unit_QD @ centres_CD.T), axis=1)
    place_QC = np.argsort(order_QC, axis=1)  # how near each cell is to each query: 0 is the nearest
    place_QK = np.take_along_axis(place_QC, cell_N[rows_QK], axis=1)[others_QK]
    probes = 1
    while True:
        recall = float((place_QK < probes).mean()) if len(place_QK) else 1.0
        if recall >= _WANTED_RECALL or probes >= cells:
            return {"probes": str(min(probes, cells)), "recall": f"{recall:.4f}"}
        probes *= 2
