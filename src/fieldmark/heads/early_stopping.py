"""Early stopping: training ends when the validation loss falls no more, and goes back to its lowest.

Prechelt, "Early stopping, but when?", 1998: a run is over when its measure has not improved for some
epochs, the patience. A sweep of several arms is over when that holds for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class EarlyStopping:
    """What each arm's parameters were after its best epoch.

    Attributes:
        kept: the number of that epoch, from 1 on, for each arm.

    Args:
        parameters: tensors (..., K, C), changed in place from epoch to epoch.
        patience: how many epochs without a lower loss end the training.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], patience: int) -> None:
        self.parameters, self.patience = parameters, patience
        self.best = [parameter.clone() for parameter in parameters]
        settings = parameters[0].shape[-2]
        self.lowest_K, self.best_epoch, self.epoch = [float("inf")] * settings, [0] * settings, 0

    def after_epoch(self, loss_K: Sequence[float]) -> bool:
        """An epoch came to these validation losses; gives whether training is over."""
        self.epoch += 1
        for hyperparameters, loss in enumerate(loss_K):
            if loss < self.lowest_K[hyperparameters] or not self.best_epoch[hyperparameters]:
                self.lowest_K[hyperparameters], self.best_epoch[hyperparameters] = loss, self.epoch
                for best, parameter in zip(self.best, self.parameters, strict=True):
                    best[..., hyperparameters, :] = parameter[..., hyperparameters, :]
        return self.epoch - max(self.best_epoch) >= self.patience

    def restore_best(self) -> None:
        """Give every arm the parameters of its best epoch."""
        for best, parameter in zip(self.best, self.parameters, strict=True):
            parameter.copy_(best)
