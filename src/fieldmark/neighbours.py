"""The nearest labelled training photos of a photo: vectors kept beside the classifier, and the search.

`neighbours.safetensors` in the classifier's folder holds, for at most 50 training photos a class:

    vectors                float16 (N, D): the photos' features, each of length 1
    labels                 int32 (N,): the class of each, as a number in the classifier's taxonomy
    ids, ids_ends          uint8, int64 (N,): their ids, one text after the other, and where each ends
    paths, paths_ends      the same for where they lie, relative to `root` in the metadata
    digests                uint8 (N, 32): SHA-256 of the files
    thumbs, thumbs_ends    only where asked for: small JPEGs in the same form
    centres, cells_ends    only above 200,000 rows: the index

Of an ensemble the member with the largest weight gives the features.

Similarity is the cosine. The search is exact: every row is compared, in blocks of 1,024, so that the
vectors stay on disk (memory-mapped) and a search takes 4 x 1,024 x D bytes, 5 MB for D = 1280.

From 200,000 rows on they are sorted into cells around sqrt(N) centres (spherical k-means; Dhillon and
Modha, "Concept decompositions for large sparse text data using clustering", 2001), and only the rows of
the nearest cells are compared, exactly. How many cells those are is set when the file is written: so
many that 98 % of the 10 nearest rows of 200 photos are found; what was reached is in the metadata.

A folder may come from anywhere: a file on this machine is shown as a training photo only if it has the
digest of that photo.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import files, images, places, progress, sampling
from fieldmark.classifier import Classifier
from fieldmark.errors import ClassifierError, ImageRejected, InputError
from fieldmark.heads.base import LabelledFeatures
from fieldmark.photos import PhotoTable
from fieldmark.places import Place
from fieldmark.taxonomy import Taxon

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]

FILE = "neighbours.safetensors"
FORMAT = "fieldmark-neighbours-1"
PER_CLASS = 50
THUMB_SIDE = 96  # pixels of the longer side
INDEX_FROM = 200_000

_BLOCK = 1024  # rows that are compared at once: few enough to stay in the processor's cache
_ABOVE_ONE = 1.01  # more than rounding to half precision can make of a cosine
_SIGN_AND_VALUE = np.int32(0x8FFFE000 - (1 << 32))
_OFFSET = np.float32(2.0**112)
_ROUNDS = 8  # of k-means: later ones move few rows
_SAMPLE_PER_CELL = 32
_WANTED_RECALL = 0.98
_QUERIES, _NEAREST = 200, 10  # what the recall is measured on


@dataclass(frozen=True)
class Neighbour:
    """A training photo that is near.

    Attributes:
        photo_id: its id in the table of photos.
        path: where it was, relative to the folder of the photos.
        taxon: its label.
        similarity: the cosine between the two feature vectors, at most 1.
        row: its number in the file.
    """

    photo_id: str
    path: str
    taxon: Taxon
    similarity: float
    row: int


def similar(classifier: Classifier, photo: npt.NDArray[Any], k: int = 5) -> list[Neighbour]:
    """The training photos that are most like a photo, the nearest first.

    Args:
        classifier: as loaded from its folder.
        photo: a crop, uint8 (size, size, 3), as `classifier.lead.preprocess` makes it; or its features,
            float (D,).
        k: how many, at most.

    Raises:
        InputError: nothing is kept in the classifier's folder.
        ClassifierError: what is kept there is damaged, or of another classifier.
    """
    kept = of(classifier)
    if kept is None:
        raise InputError(
            f"{classifier.source} keeps no training photos ({FILE}): train the classifier anew."
        )
    x_1D = classifier.lead.network.engine(photo[None]) if photo.dtype == np.uint8 else photo[None]
    return kept.similar(x_1D, k)[0]


@lru_cache(maxsize=4)
def of(classifier: Classifier) -> Neighbours | None:
    """What is kept beside a classifier; None where there is nothing.

    Raises:
        ClassifierError: it is damaged, or of another classifier.
    """
    if not isinstance(classifier.source, Path) or not (classifier.source / FILE).is_file():
        return None
    return Neighbours(classifier.source / FILE, classifier)


class Neighbours:
    """Kept training photos, opened for searching. The vectors stay on disk."""

    def __init__(self, path: Path, classifier: Classifier) -> None:
        from safetensors import SafetensorError, safe_open

        self._taxa = classifier.taxa
        try:
            file: Any = safe_open(path, framework="numpy")
            self.about: dict[str, str] = file.metadata() or {}
            self._vectors = file.get_slice("vectors")
            names = [name for name in file.keys() if name != "vectors"]  # noqa: SIM118  # no mapping
            small = {name: file.get_tensor(name) for name in names}
            self._read(small, classifier)
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            why = " ".join(str(error).split())
            raise ClassifierError(
                f"{path} is damaged or of another classifier ({why}): train the classifier anew."
            ) from error

    def _read(self, small: dict[str, npt.NDArray[Any]], classifier: Classifier) -> None:
        if (self.about.get("format"), self.about.get("backbone_key")) != (
            FORMAT,
            classifier.lead.network.key,
        ):
            raise ValueError("it does not belong to this network")
        shape = self._vectors.get_shape()
        self.labels = small["labels"]
        count = len(self.labels)
        _demand(self._vectors.get_dtype() == "F16", "vectors are not float16")
        _demand(
            shape == [count, classifier.lead.head.weight.shape[0]], "vectors have another shape"
        )
        _demand(self.labels.dtype == np.int32 and self.labels.ndim == 1, "labels")
        within = (self.labels >= 0) & (self.labels < len(self._taxa))
        _demand(bool(within.all()), "a label is of no class")
        self._digests = small["digests"]
        _demand(self._digests.shape == (count, 32), "digests have another shape")
        self._ids = _Pieces(small["ids"], small["ids_ends"], count)
        self._paths = _Pieces(small["paths"], small["paths_ends"], count)
        self._thumbs = (
            _Pieces(small["thumbs"], small["thumbs_ends"], count) if "thumbs" in small else None
        )
        self._centres: Floats | None = None
        if "centres" in small:
            self._centres = small["centres"].astype(np.float32)
            self._cells = _starts(small["cells_ends"], len(self._centres), count)
            self.probes = int(self.about["probes"])
            _demand(self._centres.shape[1:] == (shape[1],), "centres have another shape")
            _demand(self.probes >= 1, "no cell is looked into")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self._vectors.get_shape()[1])

    def similar(self, x_QD: npt.NDArray[np.floating], k: int = 5) -> list[list[Neighbour]]:
        """The nearest training photos of some features, the nearest first; see `similar`."""
        rows_QK, similarity_QK = self.search(x_QD, k)
        return [
            [
                Neighbour(
                    self._ids.text(row),
                    self._paths.text(row),
                    self._taxa[self.labels[row]],
                    float(similarity),
                    int(row),
                )
                for row, similarity in zip(rows, similarities, strict=True)
            ]
            for rows, similarities in zip(rows_QK, similarity_QK, strict=True)
        ]

    def search(
        self, x_QD: npt.NDArray[np.floating], k: int, *, exact: bool = False
    ) -> tuple[Ints, Floats]:
        """The nearest rows and their cosines, both of shape (Q, min(k, N)), the nearest first.

        Args:
            x_QD: features of any length but zero.
            k: how many.
            exact: compare every row even where there is an index.
        """
        if x_QD.ndim != 2 or x_QD.shape[1] != self.dim:
            raise ValueError(f"features are (Q, {self.dim}), not {x_QD.shape}")
        unit_QD, k = _unit(x_QD), max(0, min(k, len(self)))
        if self._centres is None or exact:
            return _nearest(unit_QD, self._blocks([(0, len(self))]), k)
        found = [self._in_cells(unit_D[None], self._centres, k) for unit_D in unit_QD]
        empty = np.empty((0, k))
        rows = np.concatenate([empty.astype(np.int64), *(rows for rows, _ in found)])
        return rows, np.concatenate([empty.astype(np.float32), *(values for _, values in found)])

    def _in_cells(self, unit_1D: Floats, centres_CD: Floats, k: int) -> tuple[Ints, Floats]:
        """The nearest rows in the nearest cells; more cells where those hold fewer than k rows."""
        order = np.argsort(-(centres_CD @ unit_1D[0]), kind="stable")
        starts, ends = self._cells[order], self._cells[order + 1]
        sizes = np.cumsum(ends - starts)
        probes = max(self.probes, int(np.searchsorted(sizes, k)) + 1)
        return _nearest(unit_1D, self._blocks(zip(starts[:probes], ends[:probes], strict=True)), k)

    def _blocks(self, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Floats]]:
        for begin, end in spans:
            for start in range(begin, end, _BLOCK):
                yield start, _floats(self._vectors[start : min(start + _BLOCK, end)])

    def picture(self, neighbour: Neighbour, root: Path | None = None) -> Pixels | None:
        """The training photo itself, uint8 (H, W, 3); else its thumbnail; None where neither is here.

        Args:
            neighbour: what `similar` found.
            root: the folder of the photos, where it is no longer the one that was recorded.
        """
        # Nothing is fetched for a recorded URL: whoever made the classifier named it, not the user.
        recorded = Path(self.about.get("root", ""))
        with suppress(ImageRejected):
            data = images.read_bytes(places.at(root or recorded, neighbour.path))
            if bytes.fromhex(files.sha256(data)) == self._digests[neighbour.row].tobytes():
                return images.decode(data, at_least=4 * THUMB_SIDE)
        if self._thumbs is not None:
            with suppress(ImageRejected):
                return images.decode(self._thumbs[neighbour.row])
        return None


class _Pieces:
    """Byte strings one after the other, and where each ends."""

    def __init__(self, blob: npt.NDArray[Any], ends: npt.NDArray[Any], count: int) -> None:
        _demand(blob.dtype == np.uint8 and blob.ndim == 1, "a list is not of bytes")
        self._blob, self._starts = blob, _starts(ends, count, len(blob))

    def __getitem__(self, number: int) -> bytes:
        return self._blob[self._starts[number] : self._starts[number + 1]].tobytes()

    def text(self, number: int) -> str:
        return self[number].decode(errors="replace")

    @staticmethod
    def tensors(name: str, pieces: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
        """How they are kept."""
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return {name: np.frombuffer(b"".join(pieces), np.uint8), f"{name}_ends": ends}


def _starts(ends: npt.NDArray[Any], count: int, total: int) -> Ints:
    """Where each of `count` pieces of a list of length `total` starts, and at last the end."""
    _demand(ends.dtype == np.int64 and ends.shape == (count,), "a list has another length")
    starts = np.concatenate([np.zeros(1, np.int64), ends])
    _demand(bool((np.diff(starts) >= 0).all()), "a list is out of order")
    _demand(int(starts[-1]) == total, "a list is cut off")
    return starts


def _demand(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)


def _unit(x_ND: npt.NDArray[np.floating]) -> Floats:
    """The same directions at length 1; a vector of zeros stays."""
    x_ND = np.asarray(x_ND, np.float32)
    lengths = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return np.asarray(x_ND / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _floats(x_ND: Halves) -> Floats:
    """Half to single precision, exactly, and five times as fast as NumPy does it.

    The bits are put where single precision has them; what remains is the difference of the two
    exponents' offsets, a factor of 2^112. (Infinity and what is no number become large numbers.)
    """
    bits = x_ND.view(np.int16).astype(np.int32)  # the sign is carried to the front
    bits <<= 13
    bits &= _SIGN_AND_VALUE
    values = bits.view(np.float32)
    values *= _OFFSET
    return values


def _nearest(unit_QD: Floats, blocks: Iterator[tuple[int, Floats]], k: int) -> tuple[Ints, Floats]:
    """The k best of all rows in the blocks, shape (Q, k)."""
    rows_QK = np.empty((len(unit_QD), 0), np.int64)
    best_QK = np.empty((len(unit_QD), 0), np.float32)
    for start, x_BD in blocks:
        with np.errstate(all="ignore"):
            s_QB = unit_QD @ x_BD.T
        # A file from elsewhere may hold vectors of another length, or no numbers: they are like nothing.
        s_QB = np.where(s_QB < _ABOVE_ONE, s_QB.clip(-1.0, 1.0), np.float32(-1.0))
        new = np.broadcast_to(np.arange(start, start + len(x_BD)), s_QB.shape)
        if k < len(x_BD):
            part = np.argpartition(-s_QB, k, axis=1)[:, : k + 1]
            new, s_QB = np.take_along_axis(new, part, 1), np.take_along_axis(s_QB, part, 1)
        rows_QK = np.concatenate([rows_QK, new], axis=1)
        best_QK = np.concatenate([best_QK, s_QB], axis=1)
        order = np.lexsort((rows_QK, -best_QK), axis=1)[:, :k]
        rows_QK = np.take_along_axis(rows_QK, order, 1)
        best_QK = np.take_along_axis(best_QK, order, 1)
    return rows_QK, best_QK


# Writing


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
    """Keep the training photos' features in a classifier's folder.

    Args:
        folder: the classifier's folder.
        classifier: gives the classes and the network that the features are of.
        table: says where the photos lie.
        train: the features of the training photos; labels are numbers in the classifier's taxonomy.
        per_class: at most so many photos of a class, drawn by their ids.
        thumbnails: keep small JPEGs of them as well (about 3 kB each), so that they can be shown where
            the photos are not. Off by default: who hands the classifier on then hands on copies of the
            photos, whose licences may not allow it.
        index_from: from so many rows on an index is built.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors.numpy import save_file

    chosen = _chosen(train, per_class)
    unit_ND = _halves(train, chosen)
    about = {
        "format": FORMAT,
        "backbone_key": classifier.lead.network.key,
        "root": str(places.absolute(table.root)),
    }
    tensors: dict[str, npt.NDArray[Any]] = {}
    if len(chosen) >= max(2, index_from):
        order, tensors, measured = _index(unit_ND)
        chosen, unit_ND = chosen[order], unit_ND[order]
        about |= measured
    tensors |= {"vectors": unit_ND, "labels": train.labels[chosen].astype(np.int32)}
    tensors |= _photos(table, [train.ids[number] for number in chosen], thumbnails=thumbnails)
    with files.replacing(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata=about)


def _chosen(train: LabelledFeatures, per_class: int) -> Ints:
    """At most so many photos of each class, in the order of the photos."""
    order = sampling.order(train.ids, "neighbours")
    order = order[train.labels[order] >= 0]
    by_class = order[np.argsort(train.labels[order], kind="stable")]
    labels = train.labels[by_class]
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1])[: len(labels)])
    rank = np.arange(len(labels)) - np.repeat(first, np.diff(np.append(first, len(labels))))
    return np.sort(by_class[rank < per_class])


def _halves(train: LabelledFeatures, chosen: Ints) -> Halves:
    """The vectors at length 1 in half precision, read block by block."""
    unit_ND = np.empty((len(chosen), train.features.dim), np.float16)
    for start, x_BD in train.features.take(chosen).blocks(_BLOCK):
        unit_ND[start : start + len(x_BD)] = _unit(x_BD)
    return unit_ND


def _photos(
    table: PhotoTable, ids: Sequence[str], *, thumbnails: bool
) -> dict[str, npt.NDArray[Any]]:
    """Ids, paths, digests and, if asked for, thumbnails of some photos."""
    columns = table.frame.select("id", "path", "sha256").iter_rows()
    known = {photo_id: (path, digest) for photo_id, path, digest in columns}
    places = [known[photo_id] for photo_id in ids]
    digests = b"".join(bytes.fromhex(digest or "00" * 32) for _, digest in places)
    tensors = {
        **_Pieces.tensors("ids", [photo_id.encode() for photo_id in ids]),
        **_Pieces.tensors("paths", [path.encode() for path, _ in places]),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
    }
    if thumbnails:
        with progress.stage("thumbnails", len(places)) as stage:
            small = []
            for path, _ in places:
                small.append(_thumbnail(table.file_of(path)))
                stage.advance()
        tensors |= _Pieces.tensors("thumbs", small)
    return tensors


def _thumbnail(place: Place) -> bytes:
    """A small JPEG; no bytes where the photo cannot be read any more."""
    from PIL import Image

    try:
        picture = Image.fromarray(images.decode(images.read_bytes(place), at_least=2 * THUMB_SIDE))
    except ImageRejected:
        return b""
    picture.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75, optimize=True)
    return buffer.getvalue()


# The index


def _index(unit_ND: Halves) -> tuple[Ints, dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The order of the rows by cell, the cells, and how well they work."""
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
        centres_CD[taken] = _unit(total_CD[taken])
    blocks = (unit_ND[start : start + _BLOCK] for start in range(0, count, _BLOCK))
    cell_N = np.concatenate(
        [(block.astype(np.float32) @ centres_CD.T).argmax(axis=1) for block in blocks]
    )
    order = np.argsort(cell_N, kind="stable")
    sizes = np.bincount(cell_N, minlength=cells)
    measured = _measure(unit_ND, cell_N, centres_CD, random)
    tensors: dict[str, npt.NDArray[Any]] = {
        "centres": centres_CD.astype(np.float16),
        "cells_ends": np.cumsum(sizes, dtype=np.int64),
    }
    return order, tensors, measured


def _sums(x_SD: Floats, cell_S: npt.NDArray[np.intp], cells: int) -> Floats:
    """The sum of the rows of each cell, shape (cells, D)."""
    order = np.argsort(cell_S, kind="stable")
    present, first = np.unique(cell_S[order], return_index=True)
    total = np.zeros((cells, x_SD.shape[1]), np.float32)
    total[present] = np.add.reduceat(x_SD[order], first, axis=0)
    return total


def _measure(
    unit_ND: Halves, cell_N: npt.NDArray[np.intp], centres_CD: Floats, random: np.random.Generator
) -> dict[str, str]:
    """The least number of cells (a power of two) with which the wanted recall is reached.

    The queries are rows; each is itself its nearest row, in the nearest cell, and does not count.
    """
    count, cells = len(unit_ND), len(centres_CD)
    queries = random.choice(count, min(_QUERIES, count), replace=False)
    unit_QD = unit_ND[queries].astype(np.float32)
    blocks = (
        (start, unit_ND[start : start + _BLOCK].astype(np.float32))
        for start in range(0, count, _BLOCK)
    )
    rows_QK, _ = _nearest(unit_QD, blocks, min(_NEAREST + 1, count))
    others_QK = rows_QK != queries[:, None]
    order_QC = np.argsort(-(unit_QD @ centres_CD.T), axis=1)
    place_QC = np.argsort(order_QC, axis=1)  # how near each cell is to each query: 0 is the nearest
    place_QK = np.take_along_axis(place_QC, cell_N[rows_QK], axis=1)[others_QK]
    probes, recall = 1, 0.0
    while True:
        recall = float((place_QK < probes).mean()) if len(place_QK) else 1.0
        if recall >= _WANTED_RECALL or probes >= cells:
            return {"probes": str(min(probes, cells)), "recall": f"{recall:.4f}"}
        probes *= 2
