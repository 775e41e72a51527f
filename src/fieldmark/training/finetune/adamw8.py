"""AdamW with both moments in 8 bits (Dettmers et al., "8-bit optimizers via block-wise quantization", 2022).

A moment is cut into blocks of 2,048 numbers. Each number is stored as the nearest of 256 values, as a share
of the largest one of its block; the values are dense where moments are: the paper's dynamic data type, whose
leading zero bits are a power of ten and whose other bits divide the range from 0.1 to 1 evenly. The update
is computed in 32 bits. Tensors of fewer than 4,096 numbers stay in 32 bits, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

BLOCK = 2048
SMALLEST = 4096
_POWERS = 7  # of ten
_MOMENTS = ("exp_avg", "exp_avg_sq")  # as PyTorch names them: the mean of gradients, and of their squares
_SCALE = "_scale"


def _values(bits: int) -> list[float]:
    """Return the values above zero, ascending; `bits` divide the range below the highest power of ten."""
    found = [1.0]
    for power in range(_POWERS):
        parts = 2 ** (bits - power)
        found += [10.0**-power * (0.1 + 0.9 * (each + 0.5) / parts) for each in range(parts)]
    return sorted(found)


def _codes(*, signed: bool) -> torch.Tensor:
    above = _values(6 if signed else 7)
    return torch.tensor([*(-each for each in reversed(above[:-1]) if signed), 0.0, *above])


CODES = {_MOMENTS[0]: _codes(signed=True), _MOMENTS[1]: _codes(signed=False)}
"""The 256 values of each moment, ascending."""


def state_bytes(sizes: Iterable[int], bits: int) -> int:
    """Return the bytes of both moments of tensors with `sizes` numbers each, in 8 or in 32 bits."""
    return sum(
        2 * (-(-size // BLOCK) * (BLOCK + 4) if bits == 8 and size >= SMALLEST else 4 * size)
        for size in sizes
    )


def encode(moment: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a moment: uint8 codes (blocks, BLOCK), and float32 scales (blocks, 1)."""
    values = CODES[name].to(moment.device)
    flat = moment.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True)
    unit = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)
    codes = torch.bucketize(unit, (values[1:] + values[:-1]) / 2, out_int32=True)
    if name == _MOMENTS[1]:  # an update is divided by its root: what is not zero does not become zero
        codes = codes.maximum((unit > 0).int())
    return codes.to(torch.uint8), scale


def decode(codes: torch.Tensor, scale: torch.Tensor, name: str, shape: torch.Size) -> torch.Tensor:
    """Return the moment that `encode` stored, float32."""
    values = CODES[name].to(codes.device)
    return (values[codes.int()] * scale).flatten()[: shape.numel()].view(shape)


def _zeros(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the state of a parameter before its first update."""
    state = {"step": torch.zeros((), dtype=torch.float32)}
    for name, codes in CODES.items():
        if parameter.numel() < SMALLEST:
            state[name] = torch.zeros_like(parameter)
            continue
        blocks, zero = -(-parameter.numel() // BLOCK), int((codes == 0).nonzero())
        state[name] = torch.full((blocks, BLOCK), zero, dtype=torch.uint8, device=parameter.device)
        state[name + _SCALE] = torch.zeros((blocks, 1), device=parameter.device)
    return state


class AdamW8(torch.optim.Optimizer):
    """AdamW with decoupled weight decay and moments in 8 bits.

    Args:
        groups: of parameters, with their `weight_decay`.
        learning_rate, betas, epsilon: as for PyTorch's AdamW.
    """

    def __init__(
        self, groups: list[dict[str, Any]], learning_rate: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        super().__init__(groups, {"lr": learning_rate, "betas": betas, "eps": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update the parameters, one tensor after the other."""
        trained = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for parameter, _ in trained:  # before any tensor that is freed again: no holes in the memory
            if not self.state[parameter]:
                self.state[parameter] |= _zeros(parameter)
        for parameter, group in trained:
            self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        state["step"] += 1
        (slow, slower), count = group["betas"], float(state["step"])
        mean, square = (self._read(state, name, parameter) for name in _MOMENTS)
        mean.lerp_(gradient, 1 - slow)
        square.mul_(slower).addcmul_(gradient, gradient, value=1 - slower)
        for name, moment in zip(_MOMENTS, (mean, square), strict=True):
            if name + _SCALE in state:  # in place, so that the memory is not cut into pieces
                for part, value in zip((name, name + _SCALE), encode(moment, name), strict=True):
                    state[part].copy_(value)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        root = (square / (1 - slower**count)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, root, value=-group["lr"] / (1 - slow**count))

    @staticmethod
    def _read(state: dict[str, torch.Tensor], name: str, parameter: torch.Tensor) -> torch.Tensor:
        if name + _SCALE not in state:
            return state[name]
        return decode(state[name], state[name + _SCALE], name, parameter.shape)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read the state; PyTorch gives every tensor the data type of its parameter."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in _MOMENTS:
                if name + _SCALE in state:
                    state[name] = state[name].to(torch.uint8)
