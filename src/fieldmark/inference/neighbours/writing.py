"""Write the training photos' vectors into a classifier's folder."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
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
from fieldmark.inference.neighbours import ivf_index
from fieldmark.inference.neighbours.index import FILE, FORMAT, THUMB_SIDE, PackedStrings
from fieldmark.inference.neighbours.vectors import BLOCK, unit
from fieldmark.utils import io, random
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import IntArray

PER_CLASS = 50
INDEX_FROM = 200_000


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
        "backbone_key": classifier.lead.network.key,
        "root": str(places.absolute(table.root)),
    }
    tensors: dict[str, npt.NDArray[Any]] = {}
    if len(chosen) >= max(2, index_from):
        order, tensors, measured = ivf_index.build(unit_ND)
        chosen, unit_ND = chosen[order], unit_ND[order]
        about |= measured
    tensors |= {"vectors": unit_ND, "labels": train.labels[chosen].astype(np.int32)}
    tensors |= _photos(table, [train.ids[number] for number in chosen], thumbnails=thumbnails)
    with io.replacing(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata=about)


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
    from PIL import Image

    try:
        picture = Image.fromarray(images.decode(images.read_bytes(place), at_least=2 * THUMB_SIDE))
    except ImageRejected:
        return b""
    picture.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=75, optimize=True)
    return buffer.getvalue()
