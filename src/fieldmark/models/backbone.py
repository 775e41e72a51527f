"""Backbone: a network with its weights, which turns a crop into a feature vector.

PyTorch is imported when a network is built, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fieldmark.data.transforms import MAX_SIZE
from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import Architecture, WeightsInfo
from fieldmark.models.runtime.tiers import EXACT, Tier
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from fieldmark.models.network import ClassifierNetwork, Trunk

# Part of the key of features: increase it whenever `Trunk` computes other features from the same weights
# and crop.
FEATURE_DEFINITION = 1


def key_for_side(key: str, side: int) -> str:
    """Return the key of a backbone on crops of another side, by its own key."""
    return io.digest([key, side])


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with its weights, in evaluation mode."""

    architecture: Architecture
    network: nn.Module  # as its library defines it, with its own last layer
    weights_info: WeightsInfo
    native: Backbone | None = None  # the same network on its original side; None: this one
    tier: Tier = EXACT  # how its features are computed

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what is computed again; `_unpickled` runs before the network is read."""
        return _unpickled, (), {each.name: getattr(self, each.name) for each in fields(self)}

    def at(self, side: int) -> Backbone:
        """Return the same network for crops of another side in pixels.

        It shares its parameters; but where position embeddings are resampled, it is a copy.

        Raises:
            InputError: the network does not accept such crops.
        """
        native = self.native or self
        facts = native.architecture
        if side == facts.input_size:
            return native
        if not 1 <= side <= MAX_SIZE:
            raise InputError(f"The side of a crop is {side}: it must be from 1 to {MAX_SIZE} pixels.")
        from fieldmark.models.sides import network_at

        network = network_at(facts, native.network, side)
        return Backbone(facts.at(side), network, native.weights_info, native)

    @property
    def summary(self) -> str:
        """Return its name, the source of its weights and their licence in one line."""
        told = (
            f"; licence of the weights: {self.architecture.licence}" if self.weights_info.pretrained else ""
        )
        return f"{self.architecture.name}; {self.weights_info.summary}{told}"

    @cached_property
    def exact(self) -> Backbone:
        """Return the same backbone computed in float32."""
        return self if self.tier == EXACT else replace(self, tier=EXACT)

    def computed(self, tier: Tier) -> Backbone:
        """Return the same backbone computed in a tier."""
        return self.exact if tier == EXACT else replace(self, tier=tier)

    @cached_property
    def trunk(self) -> Trunk:
        """Return the module from crops to features: uint8 (N, S, S, 3) -> float32 (N, D).

        Normalises inside, shares its parameters with `network`, and stays in evaluation mode.
        """
        from fieldmark.models.network import Trunk

        return Trunk(self.architecture, self.network)

    @cached_property
    def key(self) -> str:
        """Return the key of its cached features: 64 hex digits.

        A digest of the trunk's weights, the architecture, the definition of a feature and the tier: two files
        with the same values give the same key.
        """
        from fieldmark.models.weights import digest_of_values

        if self.tier != EXACT:
            return self.tier.key_of(self.exact.key)
        if self.native is not None:
            return key_for_side(self.native.key, self.architecture.input_size)
        facts = self.architecture
        return io.digest(
            {
                "definition": FEATURE_DEFINITION,
                "architecture": [facts.library, facts.name, facts.input_size],
                "pixels": [facts.mean, facts.std],
                "weights": digest_of_values(self.network, facts.last_layer_path),
            }
        )

    def literal(self, num_classes: int, seed: int) -> ClassifierNetwork:
        """Return a copy of the network with a new last layer for `num_classes`, for training.

        It takes uint8 (N, S, S, 3) and gives float32 (N, num_classes). The layer is what the library defines
        for this network (SqueezeNet: dropout, 1x1 convolution, ReLU, mean; AlexNet: with its dropouts); its
        initial values depend on the seed and the architecture only.
        """
        from fieldmark.models.network import literal

        return literal(self.architecture, self.network, num_classes, seed)

    def trainable(self, num_classes: int, seed: int) -> ClassifierNetwork:
        """Return the same as `literal`, but with a linear last layer on the features.

        Only SqueezeNet's differs: its 1x1 convolution and ReLU become a linear layer on the mean.
        """
        from fieldmark.models.network import pooled

        return pooled(self.architecture, self.network, num_classes, seed)

    def trained(self, model: ClassifierNetwork) -> tuple[Backbone, nn.Linear]:
        """Split the result of `trainable`, after training, into backbone and last layer."""
        from fieldmark.models.network import split_last_layer

        network, linear = split_last_layer(model, self.network)
        return Backbone(self.architecture, network, self.weights_info), linear


def _unpickled() -> Backbone:
    """Return a backbone without its fields, once the libraries of networks can be imported."""
    import_torchvision()
    return object.__new__(Backbone)
