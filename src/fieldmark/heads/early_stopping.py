"""Early stopping: end training when no validation loss improves, and restore the best weights.

Prechelt, "Early stopping, but when?", 1998: training ends when the measure has not improved for some
epochs, the patience. A sweep ends when that holds for all of its heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class EarlyStopping:
    """Track the best epoch of each of K heads, and the parameters after it.

    Attributes:
        best_epoch: the number of the best epoch, from 1, of each head.

    Args:
        parameters: tensors (K, ...), changed in place from epoch to epoch.
        patience: how many epochs without a lower loss end the training.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], patience: int) -> None:
        self.parameters, self.patience = parameters, patience
        self.best = [parameter.clone() for parameter in parameters]
        heads = len(parameters[0])
        self.lowest_K, self.best_epoch, self.epoch = [float("inf")] * heads, [0] * heads, 0

    def after_epoch(self, loss_K: Sequence[float]) -> bool:
        """Record the validation losses of an epoch; return whether training is over."""
        self.epoch += 1
        for head, loss in enumerate(loss_K):
            if loss < self.lowest_K[head] or not self.best_epoch[head]:
                self.lowest_K[head], self.best_epoch[head] = loss, self.epoch
                for best, parameter in zip(self.best, self.parameters, strict=True):
                    best[head] = parameter[head]
        return self.epoch - max(self.best_epoch) >= self.patience

    def restore_best(self) -> None:
        """Restore the parameters of each head's best epoch."""
        for best, parameter in zip(self.best, self.parameters, strict=True):
            parameter.copy_(best)
