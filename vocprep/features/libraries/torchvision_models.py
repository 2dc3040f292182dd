"""Models of torchvision: those of classification whose maps tile the patches."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from vocprep.backbones import NORMALISATIONS, Network, Normalisation
from vocprep.errors import UsageError
from vocprep.features.libraries.maps import (
    DescribedNetwork,
    MapNetwork,
    NetworkChoice,
    UnfitError,
    as_map,
    choose_layers,
    kept_layers,
    measure_layers,
    pass_blank,
    tiles,
)
from vocprep.geometry import PATCH, Grid
from vocprep.validation import printable

_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_NESTED = "features"
"""Child of many models whose own children are their stages."""


def describe(choice: NetworkChoice) -> DescribedNetwork:
    """Describe a model of torchvision; UsageError when there is none, or it does not fit."""
    name = f"torchvision:{choice.model}"
    model = _create(choice.model)
    try:
        layers = _choose(name, model, choice)
        whole = measure_layers(TorchvisionMaps(model, layers), PATCH, choice.grids)
    except UnfitError as error:
        raise UsageError(
            f"backbone {name!r}: {error}; choose another model, --layers or --geometry"
        ) from error
    network = Network(
        library=library(),
        layers=kept_layers({layer: whole[layer] for layer in layers}, choice.cells),
    )
    normalisation = _normalisation(choice.model)
    return DescribedNetwork(name=name, network=network, layers=layers, normalisation=normalisation)


def make(model: str, network: Network) -> TorchvisionMaps:
    """Make the model of a recipe, untrained; UsageError where torchvision does not have it."""
    made = _create(model)
    nodes = _nodes(made)
    if missing := [name for name in network.layers if _last_node(name, nodes) < 0]:
        raise UsageError(
            f"layers {printable(missing[0])!r}: not in torchvision:{model} of {library()}, "
            f"expected as in {printable(network.library)}; install that version"
        )
    return TorchvisionMaps(made, list(network.layers))


class TorchvisionMaps(MapNetwork):
    """A model of torchvision, computed up to the last of the chosen layers."""

    def __init__(self, model: nn.Module, layers: Sequence[str], *, strict: bool = True) -> None:
        super().__init__(model)
        self.extractor = _extractor(model, layers)
        self.prefix_tokens = 1 if hasattr(model, "class_token") else 0
        self.strict = strict
        """Whether outputs that are no maps are errors; else they are left out."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps."""
        maps = {}
        for name, value in self.extractor(pixels).items():
            with nullcontext() if self.strict else suppress(UnfitError):
                maps[name] = as_map(name, value, pixels, self.prefix_tokens)
        return maps


def _choose(backbone: str, model: nn.Module, choice: NetworkChoice) -> tuple[str, ...]:
    """Return the names of the chosen layers: the last stage, or any modules or operations."""
    nodes, stages = _nodes(model), _stages(model, choice.grids)
    given = choice.layers or stages[-1:]
    return tuple(
        name if _last_node(name, nodes) >= 0 else choose_layers(backbone, (name,), stages)[0]
        for name in given
    )


def _stages(model: nn.Module, grids: Sequence[Grid]) -> tuple[str, ...]:
    """Return the names of a model's stages whose maps tile the patches, in order of computation."""
    nodes = _nodes(model)
    children = dict(model.named_children())
    nested = children.get(_NESTED, nn.Module()).named_children()
    names = [name for name, child in children.items() if not isinstance(child, _POOLS)]
    names += [f"{_NESTED}.{name}" for name, _ in nested]
    last = {name: _last_node(name, nodes) for name in names}
    fitting = sorted((name for name in names if last[name] >= 0), key=last.__getitem__)
    maps = TorchvisionMaps(model, fitting, strict=False)
    for grid in grids:
        found = pass_blank(maps, grid, PATCH)
        fitting = [name for name in fitting if name in found and tiles(found[name], grid)]
    if not fitting:
        raise UnfitError("none of its stages has a map that tiles the patches of a picture")
    return tuple(fitting)


def _last_node(name: str, nodes: Sequence[str]) -> int:
    """Return the place of the last operation of a module among all; -1 where it has none."""
    within = [place for place, node in enumerate(nodes) if f"{node}.".startswith(f"{name}.")]
    return max(within, default=-1)


def _nodes(model: nn.Module) -> list[str]:
    """Return the names of a model's operations, in order of computation."""
    from torchvision.models.feature_extraction import (  # noqa: PLC0415  # slow to load
        get_graph_node_names,
    )

    found: list[str] = get_graph_node_names(model, suppress_diff_warning=True)[1]
    return found


def _extractor(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return what computes the outputs of modules or operations, and nothing after the last."""
    from torchvision.models.feature_extraction import (  # noqa: PLC0415  # slow to load
        create_feature_extractor,
    )

    found: nn.Module = create_feature_extractor(
        model, {name: name for name in layers}, suppress_diff_warning=True
    )
    return found.eval()


def _create(model: str) -> nn.Module:
    from torchvision import models  # noqa: PLC0415  # slow to load

    names = models.list_models(module=models)
    if model not in names:
        near = difflib.get_close_matches(model, names, n=3)
        advice = f"the nearest are {', '.join(near)}" if near else f"as {names[0]} or {names[-1]}"
        raise UsageError(
            f"backbone 'torchvision:{printable(model)}': expected a model of classification of "
            f"{library()}; {advice}"
        )
    # Some say that their initial weights are to change; which are drawn from torch's generator.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = models.get_model(model, weights=None)
    return made.eval()


def _normalisation(model: str) -> Normalisation:
    """Return the constants that a model's published weights were trained with."""
    from torchvision import models  # noqa: PLC0415  # slow to load

    try:
        transforms: Any = models.get_model_weights(model).DEFAULT.transforms()
        return Normalisation(mean=tuple(transforms.mean), std=tuple(transforms.std))
    except (AttributeError, ValueError):
        return NORMALISATIONS["imagenet"]


def library() -> str:
    """Return name and version of the library, without what the version says of its build."""
    return f"torchvision {version('torchvision').partition('+')[0]}"
