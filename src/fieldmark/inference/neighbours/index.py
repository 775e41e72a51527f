"""Read and search the training photos in a classifier's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import images
from fieldmark.data.storage import places
from fieldmark.data.taxonomy import Taxon
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.ood import unit
from fieldmark.inference.neighbours.vectors import BLOCK, floats, nearest
from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, ImageRejected
from fieldmark.utils.typing import ByteArray, FloatArray, IntArray

FILE = "neighbours.safetensors"
FORMAT = "fieldmark-neighbours-1"
THUMB_SIDE = 96  # pixels of the longer side


class PackedStrings:
    """Byte strings, concatenated, and the end of each."""

    def __init__(self, name: str, tensors: Mapping[str, npt.NDArray[Any]], count: int) -> None:
        self._blob = tensors[name]
        require(self._blob.dtype == np.uint8 and self._blob.ndim == 1, "a list is not of bytes")
        self._starts = starts(tensors[f"{name}_ends"], count, len(self._blob))

    def __getitem__(self, number: int) -> bytes:
        return self._blob[self._starts[number] : self._starts[number + 1]].tobytes()

    def text(self, number: int) -> str:
        """Return one of them as text; invalid bytes are replaced."""
        return self[number].decode(errors="replace")

    @staticmethod
    def tensors(name: str, pieces: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
        """Return the strings as tensors."""
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return {name: np.frombuffer(b"".join(pieces), np.uint8), f"{name}_ends": ends}


def starts(ends: npt.NDArray[Any], count: int, total: int) -> IntArray:
    """Compute where each of `count` strings of total length `total` starts, and the final end."""
    require(ends.dtype == np.int64 and ends.shape == (count,), "a list has another length")
    starts = np.concatenate([np.zeros(1, np.int64), ends])
    require(bool((np.diff(starts) >= 0).all()), "a list is out of order")
    require(int(starts[-1]) == total, "a list is cut off")
    return starts


def require(holds: bool, why: str) -> None:
    """Raise `ValueError` with `why` if a condition does not hold."""
    if not holds:
        raise ValueError(why)


def thumbnail(pixels: ByteArray, side: int, **options: Any) -> bytes:
    """Make a small JPEG; the options are Pillow's."""
    from PIL import Image

    picture, buffer = Image.fromarray(pixels), BytesIO()
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Neighbour:
    """A similar training photo."""

    photo_id: str  # its id in the table of photos
    path: str  # relative to the folder of the photos
    taxon: Taxon
    similarity: float  # the cosine between the two feature vectors, at most 1
    row: int  # its number in the file


class Neighbours:
    """Training photos, opened for searching. The vectors stay on disk."""

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
            # Versions before the folder's files were published together wrote no digest of this one.
            if FILE in classifier.files or "README.md" in classifier.files:
                known = classifier.files.get(FILE)
                require(io.file_digest(path) == known, "it was not written with this classifier")
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            why = " ".join(str(error).split())
            raise ClassifierError(
                f"{path} is damaged or of another classifier ({why}): train the classifier again."
            ) from error

    def _read(self, small: dict[str, npt.NDArray[Any]], classifier: Classifier) -> None:
        of = (self.about.get("format"), self.about.get("backbone_key"))
        require(of == (FORMAT, classifier.lead.network.exact_key), "it is of another network")
        shape = self._vectors.get_shape()
        self.labels = small["labels"]
        count = len(self.labels)
        require(self._vectors.get_dtype() == "F16", "vectors are not float16")
        require(shape == [count, classifier.lead.head.weight.shape[0]], "vectors have another shape")
        require(self.labels.dtype == np.int32 and self.labels.ndim == 1, "labels")
        within = (self.labels >= 0) & (self.labels < len(self._taxa))
        require(bool(within.all()), "a label is not a class")
        self._digests = small["digests"]
        require(self._digests.shape == (count, 32), "digests have another shape")
        self._ids, self._paths = PackedStrings("ids", small, count), PackedStrings("paths", small, count)
        self._thumbs = PackedStrings("thumbs", small, count) if "thumbs" in small else None
        self._centres: FloatArray | None = None
        if "centres" in small:
            self._centres = small["centres"].astype(np.float32)
            self._cells = starts(small["cells_ends"], len(self._centres), count)
            self.probes = int(self.about["probes"])
            require(self._centres.shape[1:] == (shape[1],), "centres have another shape")
            require(self.probes >= 1, "the number of cells is zero")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self._vectors.get_shape()[1])

    def similar(self, x_QD: npt.NDArray[np.floating], k: int = 5) -> list[list[Neighbour]]:
        """Find the nearest training photos of features, the nearest first; see `similar`."""
        rows_QK, similarity_QK = self.search(x_QD, k)
        return [
            [self._neighbour(*found) for found in zip(rows.tolist(), similarities.tolist(), strict=True)]
            for rows, similarities in zip(rows_QK, similarity_QK, strict=True)
        ]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        taxon = self._taxa[self.labels[row]]
        return Neighbour(self._ids.text(row), self._paths.text(row), taxon, similarity, row)

    def search(
        self, x_QD: npt.NDArray[np.floating], k: int, *, exact: bool = False
    ) -> tuple[IntArray, FloatArray]:
        """Find the k nearest rows of features and their cosines, shape (Q, min(k, N)), the nearest first.

        With `exact` every row is compared even if there is an index.
        """
        if x_QD.ndim != 2 or x_QD.shape[1] != self.dim:
            raise ValueError(f"features must be (Q, {self.dim}), not {x_QD.shape}")
        unit_QD, k = unit(x_QD), max(0, min(k, len(self)))
        if self._centres is None or exact:
            return nearest(unit_QD, self._blocks([(0, len(self))]), k)
        found = [self._in_cells(unit_D[None], self._centres, k) for unit_D in unit_QD]
        rows, values = zip((np.empty((0, k), np.int64), np.empty((0, k), np.float32)), *found, strict=True)
        return np.concatenate(rows), np.concatenate(values)

    def _in_cells(self, unit_1D: FloatArray, centres_CD: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """Find the nearest rows in the nearest cells; in more cells if these have fewer than k rows."""
        order = np.argsort(-(centres_CD @ unit_1D[0]), kind="stable")
        begins, ends = self._cells[order], self._cells[order + 1]
        sizes = np.cumsum(ends - begins)
        probes = max(self.probes, int(np.searchsorted(sizes, k)) + 1)
        return nearest(unit_1D, self._blocks(zip(begins[:probes], ends[:probes], strict=True)), k)

    def _blocks(self, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, FloatArray]]:
        for begin, end in spans:
            for start in range(begin, end, BLOCK):
                yield start, floats(self._vectors[start : min(start + BLOCK, end)])

    def picture(self, neighbour: Neighbour, root: Path | None = None) -> ByteArray | None:
        """Return the training photo, uint8 (H, W, 3), or its thumbnail; None if neither exists here.

        `root` is the folder of the photos, if it is not the recorded one.
        """
        # A recorded URL is not fetched: it comes from the author of the classifier, not from the user.
        recorded = Path(self.about.get("root", ""))
        with suppress(ImageRejected):
            data = images.read_bytes(places.at(root or recorded, neighbour.path))
            if bytes.fromhex(io.sha256(data)) == self._digests[neighbour.row].tobytes():
                return images.decode(data, at_least=4 * THUMB_SIDE)
        if self._thumbs is not None:
            with suppress(ImageRejected):
                return images.decode(self._thumbs[neighbour.row])
        return None
