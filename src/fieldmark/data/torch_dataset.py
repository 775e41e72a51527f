"""Photos as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset as TorchDataset

from fieldmark.data import images
from fieldmark.data.subset import LabelledPhotos
from fieldmark.data.transforms import Preprocess


class PhotoDataset(TorchDataset[tuple[torch.Tensor, int]]):
    """Crops with the number of their class, decoded when they are read.

    It can be pickled, so it works with the workers of a `DataLoader`.
    """

    def __init__(self, photos: LabelledPhotos, classes: Sequence[str], preprocess: Preprocess) -> None:
        self.photos, self.preprocess = photos, preprocess
        self.classes = tuple(classes)
        self.labels = photos.labels(classes).tolist()

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return the crop, uint8 (3, S, S), and its class; `ImageRejected` if it cannot be decoded."""
        data = images.read_bytes(self.photos.files[index].path)
        crop = torch.from_numpy(self.preprocess.crop(data))
        return crop.permute(2, 0, 1).contiguous(), self.labels[index]
