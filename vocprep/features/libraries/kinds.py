"""The kinds of networks that are not built in, by what stands before the colon of their names.

To add a kind: an entry in ``KINDS`` and its name in ``vocprep.recipe.NETWORK_KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError

from torch import nn

from vocprep.backbones import Network
from vocprep.features.libraries import own_maps, timm_models, torchvision_models
from vocprep.features.libraries.maps import DescribedNetwork, MapNetwork, NetworkChoice
from vocprep.features.networks import MAKERS
from vocprep.recipe import OWN_FILE, is_own_file


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How networks of one kind are described, which needs their library, and made."""

    describe: Callable[[NetworkChoice], DescribedNetwork]
    """Raises UsageError for models that are not there, or do not fit."""
    make: Callable[[str, Network], MapNetwork]
    """Make the network of a recipe, untrained, of the name after the colon."""
    library: Callable[[], str] | None = None
    """Return name and version of the library that is installed, as ``Network.library`` has them."""


KINDS: dict[str, Kind] = {
    "timm": Kind(describe=timm_models.describe, make=timm_models.make, library=timm_models.library),
    "torchvision": Kind(
        describe=torchvision_models.describe,
        make=torchvision_models.make,
        library=torchvision_models.library,
    ),
    OWN_FILE: Kind(describe=own_maps.describe, make=own_maps.make),
}


def describe_network(backbone: str, choice: NetworkChoice) -> DescribedNetwork:
    """Describe the network that a user chose, by ``KIND:NAME`` or ``FILE.py:FUNCTION``."""
    kind = OWN_FILE if is_own_file(backbone) else backbone.partition(":")[0]
    return KINDS[kind].describe(choice)


def make_network(backbone: str, network: Network) -> MapNetwork:
    """Make the network of a recipe, untrained."""
    kind, _, model = backbone.partition(":")
    return KINDS[kind].make(model, network)


def installed_library(backbone: str) -> str | None:
    """Return the library, and its version here, that makes a backbone; None where none does."""
    kind = KINDS.get(backbone.partition(":")[0])
    try:
        return None if kind is None or kind.library is None else kind.library()
    except PackageNotFoundError:
        return "not installed"


def make_model(backbone: str, network: Network | None) -> nn.Module:
    """Make the module that a backbone's weights are loaded into, untrained."""
    return MAKERS[backbone]() if network is None else make_network(backbone, network).model
