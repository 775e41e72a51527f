"""NumPy array types, one name for each element type.

The shape of an array is told by the suffix of its name: `_N` photos, `_C` classes, `_D` feature
dimensions, `_B` photos of a batch, `_M` ensemble members. `scores_NC` has a row for each photo and a
column for each class.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
Pixels = TypeVar("Pixels", ByteArray, BoolArray)
"""Pixels of a photo, or something known of each of them."""
