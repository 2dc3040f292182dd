"""Models of torchvision whose layers give maps."""

from __future__ import annotations

from vocprep.backbones import Network
from vocprep.errors import UsageError
from vocprep.features.libraries.maps import DescribedNetwork, MapNetwork, NetworkChoice


def describe(choice: NetworkChoice) -> DescribedNetwork:
    """Describe a model of torchvision."""
    raise UsageError(f"backbone 'torchvision:{choice.model}': not there yet")


def make(model: str, network: Network) -> MapNetwork:
    """Make the model of a recipe, untrained."""
    raise UsageError(f"backbone 'torchvision:{model}': not there yet ({network.library})")
