"""Photos in any form to batches of crops, in order and in bounded memory.

Files are decoded in threads, ahead of the network. What the caller may change or close as soon as the
next photo is asked for (an open file, a Pillow image, an array that is a camera's buffer) is read or
resized at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, get_args

import numpy as np

from fieldmark.data import images, transforms
from fieldmark.data.storage.places import Place
from fieldmark.data.transforms import Preprocess
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason
from fieldmark.utils.threads import in_order, one_ahead
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    _File = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Place
    Photo = _File | Image | ByteArray | torch.Tensor
else:
    Photo = Any

T = TypeVar("T")
OnError = Literal["raise", "return"]
Crops = ByteArray | Sequence[ByteArray]
"""Crops of N photos: uint8 (N, S, S, 3) for each of the classifier's views; bare where it has one."""

BATCH = 32

_ACCEPTED = (
    "a path, the bytes of a file, an open binary file, a PIL.Image, a NumPy array uint8 (H, W, 3) or "
    "(H, W), or a torch tensor uint8 (3, H, W) or (H, W, 3)"
)


def is_photo(value: object) -> bool:
    """Return whether a value is one photo, and not several."""
    return (
        isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | np.ndarray | Place)
        or hasattr(value, "read")
        or _is_a(value, "PIL.Image", "Image")
        or _is_a(value, "torch", "Tensor")
    )


def stacked(photos: Sequence[Sequence[ByteArray]]) -> list[ByteArray]:
    """Stack the crops of at least one photo, from photo by photo to view by view: `Crops`."""
    return [np.stack(view) for view in zip(*photos, strict=True)]


def check_options(top: object, on_error: object) -> None:
    """Raise InputError for options of `Classifier.predict` that cannot be."""
    if not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top is {top!r}: ask for a whole number of labels, at least 1.")
    if on_error not in get_args(OnError):
        raise InputError(f"on_error is {on_error!r}: choose raise or return.")


def several(photos: Photo | Iterable[Photo]) -> Iterable[Photo]:
    """Return one photo or an iterable of photos as an iterable; raises InputError if it is neither."""
    if is_photo(photos):
        return [photos]  # type: ignore[list-item]
    if isinstance(photos, Mapping) or not isinstance(photos, Iterable):
        raise _not_a_photo(photos)
    return photos  # type: ignore[return-value]  # what is both is a photo, and returned above


def opened(photo: Photo) -> ByteArray | bytes | Place:
    """Return a photo as pixels, uint8 (H, W, 3), as the bytes of a file, or as the place of one.

    Raises:
        ImageRejected: an open file or a Pillow image cannot be read.
        InputError: it is none of the accepted types, or an array of another shape or type.
    """
    if isinstance(photo, bytes | Place):
        return photo
    if isinstance(photo, str | os.PathLike):
        return Path(photo)
    if isinstance(photo, bytearray | memoryview):
        return bytes(photo)
    if hasattr(photo, "read"):
        return _from_file(photo)
    return _pixels(photo)


def _pixels(photo: object) -> ByteArray:
    if isinstance(photo, np.ndarray):
        return _rgb(photo, f"{photo.dtype} {photo.shape}")
    if _is_a(photo, "PIL.Image", "Image"):
        return images.from_pillow(photo)  # type: ignore[arg-type]
    if _is_a(photo, "torch", "Tensor"):
        return _from_tensor(photo)
    raise _not_a_photo(photo)


def _not_a_photo(value: object) -> InputError:
    return InputError(f"A photo is {_ACCEPTED}, not {type(value).__name__}: convert it to one.")


def crops_of(photo: Photo, views: Sequence[Preprocess]) -> tuple[ByteArray, ...]:
    """Return a photo's crops, uint8 (S, S, 3): one for each view; see `Classifier.crop`."""
    return _decoded(_begun(photo, views), views)


def batches(
    photos: Iterable[Photo | ImageRejected], views: Sequence[Preprocess]
) -> Iterator[tuple[list[ImageRejected | None], list[ByteArray]]]:
    """Decode photos, `BATCH` at a time; they are taken as they are needed, at most `threads.AHEAD` ahead.

    Yields:
        For each batch why a photo is rejected, None for the others; and the crops of those others,
        uint8 (n, S, S, 3), for each view. An error of one photo is raised after the photos before it.
    """
    reasons: list[ImageRejected | None] = []
    crops = _empty(views)
    for found in in_order(lambda begun: _result(begun, views), _begin_all(photos, views)):
        if isinstance(found, Exception) and not isinstance(found, ImageRejected):
            if reasons:
                yield reasons, _first(crops, reasons)
            raise found
        if isinstance(found, tuple):
            at = reasons.count(None)
            for into, crop in zip(crops, found, strict=True):
                into[at] = crop
        reasons.append(found if isinstance(found, ImageRejected) else None)
        if len(reasons) == BATCH:
            yield reasons, _first(crops, reasons)
            reasons, crops = [], _empty(views)
    if reasons:
        yield reasons, _first(crops, reasons)


def computed(
    photos: Iterable[Photo | ImageRejected],
    views: Sequence[Preprocess],
    compute: Callable[[list[ByteArray]], T],
) -> Iterator[tuple[list[ImageRejected | None], T]]:
    """Yield what `batches` does, with what `compute` returns for the crops in their place.

    A batch is computed while the caller uses the one before it.
    """
    return one_ahead(lambda batch: (batch[0], compute(batch[1])), batches(photos, views))


def rows(
    photos: Photo | Iterable[Photo],
    views: Sequence[Preprocess],
    compute: Callable[[list[ByteArray]], FloatArray],
    columns: int,
) -> FloatArray:
    """Compute a row of numbers for each photo: float32 (N, columns); raises the first reason or error."""
    parts = [np.empty((0, columns), np.float32)]
    for reasons, part in computed(several(photos), views, compute):
        for reason in filter(None, reasons):
            raise reason
        parts.append(part)
    return np.concatenate(parts)


# A rejected photo and any other error are passed on as values: the latter are raised when their turn has
# come, after the photos before them.
_Begun = tuple[ByteArray, ...] | bytes | Place


def _begin_all(
    photos: Iterable[Photo | ImageRejected], views: Sequence[Preprocess]
) -> Iterator[_Begun | Exception]:
    given = iter(photos)
    while True:
        try:
            photo = next(given)
            yield photo if isinstance(photo, ImageRejected) else _begun(photo, views)
        except StopIteration:
            return
        except Exception as error:  # of the caller's own iterator as well
            yield error
            if not isinstance(error, ImageRejected):
                return


def _begun(photo: Photo, views: Sequence[Preprocess]) -> _Begun:
    found = opened(photo)
    return tuple(v.apply(found) for v in views) if isinstance(found, np.ndarray) else found


def _decoded(begun: _Begun, views: Sequence[Preprocess]) -> tuple[ByteArray, ...]:
    if isinstance(begun, tuple):
        return begun
    data = begun if isinstance(begun, bytes) else images.read_bytes(begun)
    with images.naming_photo(begun):
        return transforms.crops(data, views)


def _result(begun: _Begun | Exception, views: Sequence[Preprocess]) -> tuple[ByteArray, ...] | Exception:
    try:
        return begun if isinstance(begun, Exception) else _decoded(begun, views)
    except Exception as error:
        return error


def _empty(views: Sequence[Preprocess]) -> list[ByteArray]:
    return [np.empty((BATCH, view.size, view.size, 3), np.uint8) for view in views]


def _first(crops: list[ByteArray], reasons: list[ImageRejected | None]) -> list[ByteArray]:
    return [view[: reasons.count(None)] for view in crops]


def _is_a(value: object, module: str, name: str) -> bool:
    """Return whether a value is of a class of a library, which is not imported for that."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _rgb(pixels: np.ndarray[Any, Any], what: str) -> ByteArray:
    """Return pixels as uint8 (H, W, 3); grey is repeated."""
    grey = pixels.ndim == 2 or pixels.shape[2:] == (1,)
    if pixels.dtype != np.uint8 or 0 in pixels.shape or not (grey or pixels.shape[2:] == (3,)):
        raise InputError(f"An image is uint8 (H, W, 3), RGB, or (H, W), grey, not {what}.")
    if grey:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels)


def _from_tensor(photo: Any) -> ByteArray:
    """Return the pixels of a tensor: channels first, as in PyTorch, or last."""
    what = f"a tensor {photo.dtype} {tuple(photo.shape)}"
    if str(photo.dtype) != "torch.uint8":
        raise InputError(f"An image is uint8 (3, H, W) or (H, W, 3), RGB, or (H, W), grey, not {what}.")
    if photo.ndim == 3 and photo.shape[0] in (1, 3):
        photo = photo.permute(1, 2, 0)
    return _rgb(photo.detach().cpu().numpy(), what)


def _from_file(photo: Any) -> bytes:
    try:
        data = photo.read(images.MAX_BYTES + 1)
    except (OSError, ValueError, TypeError) as error:  # ValueError: it is closed
        raise ImageRejected(RejectReason.UNREADABLE, str(error)) from error
    if not isinstance(data, bytes):
        raise InputError(f"A file gives {type(data).__name__}: open it in binary mode ('rb').")
    return data
