"""Write the training photos' vectors into a classifier's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import images
from fieldmark.data.photos import PhotoTable
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Place
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.ood import unit
from fieldmark.inference.neighbours.index import FILE, FORMAT, THUMB_SIDE, PackedStrings, thumbnail
from fieldmark.inference.neighbours.vectors import BLOCK, HalfArray, nearest
from fieldmark.utils import io, random
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import FloatArray, IntArray

PER_CLASS = 50
INDEX_FROM = 200_000

_ROUNDS = 8  # of k-means: later ones move few rows
_SAMPLE_PER_CELL = 32
_WANTED_RECALL = 0.98
_QUERIES, _NEAREST = 200, 10  # for measuring the recall


def write(
    folder: Path,
    classifier: Classifier,
    table: PhotoTable,
    train: LabelledFeatures,
    *,
    per_class: int = PER_CLASS,
    thumbnails: bool = False,
    index_from: int = INDEX_FROM,
) -> None:
    """Write the training photos' features into a classifier's folder.

    Args:
        table: has the paths of the photos.
        train: the features of the training photos; labels are numbers in the classifier's taxonomy.
        per_class: the maximum number of photos of a class, drawn by their ids.
        thumbnails: also store small JPEGs (about 3 kB each), to show without the photos. Off by
            default: sharing the classifier then shares copies of the photos, which their licences may
            not allow.
        index_from: build an index with so many rows or more.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors.numpy import save_file

    chosen = _chosen(train, per_class)
    unit_ND = np.empty((len(chosen), train.features.dim), np.float16)
    for start, x_BD in train.features.take(chosen).blocks(BLOCK):
        unit_ND[start : start + len(x_BD)] = unit(x_BD)
    about = {
        "format": FORMAT,
        "backbone_key": classifier.lead.network.exact_key,
        "root": str(places.absolute(table.root)),
    }
    tensors: dict[str, npt.NDArray[Any]] = {}
    if len(chosen) >= max(2, index_from):
        order, tensors, measured = _build_index(unit_ND)
        chosen, unit_ND = chosen[order], unit_ND[order]
        about |= measured
    tensors |= {"vectors": unit_ND, "labels": train.labels[chosen].astype(np.int32)}
    tensors |= _photos(table, [train.ids[number] for number in chosen], thumbnails=thumbnails)
    with io.replacing(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata=about)
        io.sort_metadata(temporary)


def _chosen(train: LabelledFeatures, per_class: int) -> IntArray:
    """Draw at most `per_class` photos of each class, in the order of the photos."""
    order = random.order(train.ids, "neighbours")
    order = order[train.labels[order] >= 0]
    by_class = order[np.argsort(train.labels[order], kind="stable")]
    labels = train.labels[by_class]
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1])[: len(labels)])
    rank = np.arange(len(labels)) - np.repeat(first, np.diff(np.append(first, len(labels))))
    return np.sort(by_class[rank < per_class])


def _photos(table: PhotoTable, ids: Sequence[str], *, thumbnails: bool) -> dict[str, npt.NDArray[Any]]:
    """Return ids, paths, digests and, if wanted, thumbnails of photos as tensors."""
    columns = table.frame.select("id", "path", "sha256").iter_rows()
    known = {photo_id: (path, digest) for photo_id, path, digest in columns}
    places = [known[photo_id] for photo_id in ids]
    digests = b"".join(bytes.fromhex(digest or "00" * 32) for _, digest in places)
    tensors = {
        **PackedStrings.tensors("ids", [photo_id.encode() for photo_id in ids]),
        **PackedStrings.tensors("paths", [path.encode() for path, _ in places]),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
    }
    if thumbnails:
        with progress_bar("thumbnails", len(places)) as stage:
            small = []
            for path, _ in places:
                small.append(_thumbnail(table.file_of(path)))
                stage.advance()
        tensors |= PackedStrings.tensors("thumbs", small)
    return tensors


def _thumbnail(place: Place) -> bytes:
    """Make a small JPEG; no bytes if the photo can no longer be read."""
    try:
        picture = images.decode(images.read_bytes(place), at_least=2 * THUMB_SIDE)
    except ImageRejected:
        return b""
    return thumbnail(picture, THUMB_SIDE, quality=75, optimize=True)


def _build_index(unit_ND: HalfArray) -> tuple[IntArray, dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Build the index; return the order of the rows by cell, the tensors, and the measures."""
    count = len(unit_ND)
    cells = max(1, round(count**0.5))
    draws = random.generator(0, "cells", count)
    sample = draws.choice(count, min(count, cells * _SAMPLE_PER_CELL), replace=False)
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
    return np.argsort(cell_N, kind="stable"), tensors, _measure(unit_ND, cell_N, centres_CD, draws)


def _sums(x_SD: FloatArray, cell_S: npt.NDArray[np.intp], cells: int) -> FloatArray:
    """Sum the rows of each cell, shape (cells, D)."""
    order = np.argsort(cell_S, kind="stable")
    present, first = np.unique(cell_S[order], return_index=True)
    total = np.zeros((cells, x_SD.shape[1]), np.float32)
    total[present] = np.add.reduceat(x_SD[order], first, axis=0)
    return total


def _measure(
    unit_ND: HalfArray, cell_N: npt.NDArray[np.intp], centres_CD: FloatArray, draws: np.random.Generator
) -> dict[str, str]:
    """Find the smallest number of cells (a power of two) that reaches the wanted recall.

    The queries are rows; each is its own nearest row, which does not count.
    """
    count, cells = len(unit_ND), len(centres_CD)
    queries = draws.choice(count, min(_QUERIES, count), replace=False)
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
