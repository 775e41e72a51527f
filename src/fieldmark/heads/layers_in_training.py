"""The last layers of a sweep while they are trained: K matrices, their gradients and AdamW's moments.

A step is limited by the matrix products and by memory. The products are NumPy's, whose library is about twice
as fast as PyTorch's on AMD processors. Each core takes a block of one layer, multiplies, and updates it while
it is in the core's cache; cores wait for each other three times a step, without spinning. Blocks do not
depend on the number of cores, so neither do the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

import numpy as np
import torch

from fieldmark.utils.typing import FloatArray

BETAS = (0.9, 0.999)
EPSILON = 1e-8

_BLOCK = 1 << 19
"""Weights multiplied and updated at once: with gradient and moments, 8 MiB in float32."""

_COLUMNS = 512
_SMALL = 1 << 22
"""Up to so many products per layer and step, threads cost more than they gain."""


def adamw(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    steps: torch.Tensor,
    rate: float,
    decay: float = 0.0,
) -> None:
    """Update contiguous parameters and their moments in place, by equations 1 to 12 of the AdamW paper.

    The operator is that of `torch.optim.AdamW(fused=True)`: the optimiser itself imports PyTorch's compiler
    at its first step, which takes longer than most heads.

    Args:
        parameter, gradient, first, second: of one shape.
        steps: the number of this step, from 1, float32.
        rate: the learning rate.
        decay: the weight decay.
    """
    torch.ops.aten._fused_adamw_(
        *([each] for each in (parameter, gradient, first, second)),
        [],
        [steps],
        lr=rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )


class LayersInTraining:
    """K linear layers, W_KEC: D rows of weights and the bias as the last, E = D + 1.

    Args:
        weight_KEC: the start, changed in place.
        rates: the learning rate of each.
        decays: the weight decay of each, decoupled from the gradient.
        batch_size: B, photos per update.
        pool: threads for large layers, in which neither NumPy nor PyTorch start threads of their own.
    """

    def __init__(
        self,
        weight_KEC: FloatArray,
        rates: Sequence[float],
        decays: Sequence[float],
        batch_size: int,
        pool: Executor,
    ) -> None:
        self.weight_KEC = weight_KEC
        self.rates, self.decays, self.pool = rates, decays, pool
        heads, rows, classes = weight_KEC.shape
        self.parallel = batch_size * rows * classes > _SMALL
        height = max(64, _BLOCK // classes) if self.parallel else rows
        width = _COLUMNS if self.parallel else classes
        self.rows = [(k, slice(at, at + height)) for k in range(heads) for at in range(0, rows, height)]
        self.columns = [(k, slice(at, at + width)) for k in range(heads) for at in range(0, classes, width)]
        arrays = (weight_KEC, *(np.zeros_like(weight_KEC) for _ in range(3)))
        self.parameters, self.gradients, self.first, self.second = map(torch.from_numpy, arrays)
        self.gradient_KEC = arrays[1]
        self.steps = torch.zeros(())

    def logits(self, x_BE: FloatArray) -> torch.Tensor:
        """Compute the logits of all layers, shape (K, B, C); the last feature is 1."""
        heads, _, classes = self.weight_KEC.shape
        s_KBC = np.empty((heads, len(x_BE), classes), np.float32)

        def multiply(part: tuple[int, slice]) -> None:
            k, columns = part
            np.matmul(x_BE, self.weight_KEC[k, :, columns], out=s_KBC[k, :, columns])

        self._each(multiply, self.columns)
        return torch.from_numpy(s_KBC)

    def update(self, x_BE: FloatArray, g_KBC: torch.Tensor, factor: float) -> None:
        """Make a step of AdamW from the gradient by the logits.

        Args:
            x_BE: the batch.
            g_KBC: the gradient of the loss by the logits.
            factor: of the learning rates in this step.
        """
        self.steps += 1
        gradient_KBC = g_KBC.numpy()

        def work(part: tuple[int, slice]) -> None:
            k, rows = part
            np.matmul(x_BE[:, rows].T, gradient_KBC[k], out=self.gradient_KEC[k, rows])
            parameters, gradients, first, second = (
                each[k, rows] for each in (self.parameters, self.gradients, self.first, self.second)
            )
            rate, decay = self.rates[k] * factor, self.decays[k]
            adamw(parameters, gradients, first, second, self.steps, rate, decay)

        self._each(work, self.rows)

    def by_layer(self, work: Callable[[slice], None]) -> None:
        """Call `work` with slices of the layers: one of all, or one a core where they are large."""
        heads = len(self.weight_KEC)
        parts = [slice(k, k + 1) for k in range(heads)] if self.parallel else [slice(0, heads)]
        self._each(work, parts)

    def _each(self, work: Callable[..., None], parts: Iterable[object]) -> None:
        for _ in (self.pool.map if self.parallel else map)(work, parts):
            pass
