"""Make a network smaller in rounds: train it whole, then take a part away and train the rest again.

The rounds are those of Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural
networks", 2015. Of weights each takes away the same share of what the one before it left; of channels the
same number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fieldmark.data.loader import LabelledCrops
from fieldmark.heads.softmax import Epoch
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import channels, magnitude
from fieldmark.training.finetune.batch_norm import adopt_statistics, set_statistics
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.loop import finetune
from fieldmark.training.finetune.step import Loss

ROUNDS = 3
"""Of pruning and retraining, after the network was trained whole."""
VERSION = 3
"""Of how networks are pruned, in the keys of rows: those made in another way are trained again."""


def kept_after(final: float, number: int) -> float:
    """Return the share that is kept after a round, where `final` is taken away in all."""
    return float((1 - final) ** (number / ROUNDS))


def zeros(network: Network, sparsity: float) -> Callable[[int], Callable[[], None]]:
    """Return a step of a round that sets the smallest weights to zero; `sparsity` of them in the end."""
    return lambda number: magnitude.prune(network, 1 - kept_after(sparsity, number))


def fewer_channels(network: Network, share: float, side: int) -> Callable[[int], Callable[[], None]]:
    """Return a step of a round that removes channels of a network; `share` of them in the end."""
    found = channels.Channels(network, share, ROUNDS, side)

    def step(number: int) -> Callable[[], None]:
        if number:
            found.remove()
        return lambda: None

    return step


def train_in_rounds(
    network: Network,
    train: LabelledCrops,
    val: LabelledCrops,
    recipe: FineTuning,
    step: Callable[[int], Callable[[], None]],
    checkpoint: Path,
    loss: Loss | None = None,
) -> tuple[list[Epoch], float]:
    """Train a network whole, then prune and retrain it in rounds.

    Each round has a checkpoint beside `checkpoint`, so that an interrupted run resumes; they are deleted at
    the end.

    Args:
        network, train, val, recipe, loss: as for `finetune`; every round trains by the recipe.
        step: changes the network in place before round 0 (whole), 1, 2 ...; what it returns is called after
            the training of the round. See `zeros` and `fewer_channels`.
        checkpoint: of the first training.

    Returns:
        The curve over all rounds, and the seconds of all.
    """
    files, curve, seconds = [], list[Epoch](), 0.0
    again = partial(finetune, network, train, val, recipe, loss=loss)
    for number in range(ROUNDS + 1):
        photos, smaller = (train, val.side, recipe), number > 0 and recipe.frozen_statistics
        if smaller:
            adopt_statistics(network, *photos)
        release = step(number)
        if smaller:
            set_statistics(network, *photos)
        files.append(checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}"))
        points, spent = again(checkpoint=files[-1])
        release()
        curve += [
            Epoch(len(curve) + at, each.train_loss, each.val_loss, each.val_error)
            for at, each in enumerate(points, 1)
        ]
        seconds += spent
    for file in files:
        file.unlink(missing_ok=True)
    return curve, seconds
