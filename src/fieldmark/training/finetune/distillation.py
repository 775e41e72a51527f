"""Knowledge distillation: a small network also learns the probabilities of a large one.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015: probabilities of a teacher say
which labels are alike. The teacher sees the very crops that the student sees, augmented and mixed in the same
way (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from fieldmark.models.network import ClassifierNetwork
from fieldmark.utils import io

TEMPERATURE = 4.0
"""By which both networks' logits are divided: the small probabilities of a teacher count as well."""
WEIGHT = 0.9
"""Of the teacher's probabilities; the labels have the rest."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network whose probabilities another one learns.

    Attributes:
        network: uint8 (N, S, S, 3) to logits (N, C), of the same classes in the same order; not changed.
        side: the side S of its crops in pixels; the student's are resized to it.
    """

    network: ClassifierNetwork
    side: int

    @property
    def key(self) -> str:
        """A digest of what it teaches."""
        state = self.network.state_dict()
        parts = [io.sha256(each.detach().cpu().contiguous().numpy().tobytes()) for each in state.values()]
        return io.digest([TEMPERATURE, WEIGHT, self.side, parts])

    def logits(self, crops: torch.Tensor) -> torch.Tensor:
        """Compute the teacher's logits, float32 (N, C), of crops (N, S, S, 3), bytes or values to 255."""
        self.network.to(crops.device).eval()
        with torch.no_grad():
            if crops.shape[1] != self.side:
                first = crops.permute(0, 3, 1, 2).float()
                size = (self.side, self.side)
                resized = functional.interpolate(first, size, mode="bilinear", antialias=True)
                crops = resized.permute(0, 2, 3, 1)
            found: torch.Tensor = self.network(crops)
        return found.float()

    def loss(self, own: torch.Tensor, logits: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
        """Return the loss that the student minimises.

        Args:
            own: its loss by the labels, a scalar.
            logits: its logits, float32 (N, C).
            crops: what it saw, (N, S, S, 3).
        """
        log_q_NC = functional.log_softmax(logits / TEMPERATURE, dim=1)
        log_p_NC = functional.log_softmax(self.logits(crops) / TEMPERATURE, dim=1)
        apart = functional.kl_div(log_q_NC, log_p_NC, reduction="batchmean", log_target=True)
        # Gradients of divided logits are smaller by the square of the temperature.
        return (1 - WEIGHT) * own + WEIGHT * TEMPERATURE**2 * apart
