"""The maps of networks of one's own: what a module says of itself, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vocprep.backbones import MAX_PATCH_PIXELS, NORMALISATIONS, Network, Normalisation
from vocprep.errors import UsageError
from vocprep.features.libraries.maps import (
    DescribedNetwork,
    MapNetwork,
    NetworkChoice,
    UnfitError,
    choose_layers,
    kept_layers,
    measure_layers,
)
from vocprep.features.libraries.own_file import LIBRARY, OwnFunction, load, named, what, where
from vocprep.geometry import PATCH, Grid
from vocprep.recipe import OWN_FILE
from vocprep.validation import explain, printable

OUTPUT = "output"
"""Name of the layer of a network that returns one map."""


def describe(choice: NetworkChoice) -> DescribedNetwork:
    """Describe the network of ``FILE.py:FUNCTION``, whose code is run; UsageError where unfit."""
    own = load(choice.model)
    model = own.make()
    takes_patches, patch_pixels = _input(own, model)
    grids: Sequence[Grid] = ((1, 1),) if takes_patches else choice.grids
    try:
        names = _names(model, grids[0], patch_pixels)
        given = choice.layers or _default_layers(own, model) or names[-1:]
        layers = choose_layers(choice.model, given, names)
        whole = measure_layers(OwnMaps(model, layers), patch_pixels, grids)
    except UnfitError as error:
        line = "" if error.__cause__ is None else f" {where(error.__cause__, own)}"
        raise UsageError(f"backbone '{choice.model}': {error}{line}") from error
    return DescribedNetwork(
        name=f"{OWN_FILE}:{own.name}",
        network=Network(
            library=LIBRARY,
            source_sha256=own.sha256,
            layers=kept_layers({layer: whole[layer] for layer in layers}, choice.cells),
            patch_pixels=patch_pixels,
            takes_patches=takes_patches,
        ),
        layers=layers,
        normalisation=_normalisation(own, model),
    )


def make(function: str, network: Network) -> OwnMaps:
    """Make the network of a recipe, by a file that was named; UsageError where none was."""
    return OwnMaps(named(function, network).make(), list(network.layers))


class OwnMaps(MapNetwork):
    """A network of one's own, and the maps of chosen layers."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__(model)
        self.layers = tuple(layers)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps."""
        found = _maps(self.model, pixels)
        missing = [name for name in self.layers if name not in found]
        if missing:
            raise UnfitError(f"layer {missing[0]!r} is not among those that it returns")
        return {name: found[name] for name in self.layers}


def _maps(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Return what a network gives for pixels, by name, as maps [N, C, h, w]."""
    try:
        output = model(pixels)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:  # of many types: it is the user's code
        height, width = pixels.shape[2:]
        raise UnfitError(
            f"a picture of {width}×{height} pixels does not pass it: {what(error)}"
        ) from error
    maps = output if isinstance(output, Mapping) else {OUTPUT: output}
    if not maps:
        raise UnfitError("expected a map or a dict of maps by name, found an empty one")
    return {name: _as_map(name, value, pixels.shape[0]) for name, value in maps.items()}


def _as_map(name: object, value: object, count: int) -> Tensor:
    if isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point():
        if value.ndim == 2:
            value = value[:, :, None, None]
        if value.ndim == 4 and value.shape[0] == count:
            return value
    found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise UnfitError(
        f"layer {printable(str(name))!r}: expected a floating-point map [{count}, C, h, w] of "
        f"{count} inputs, found {found}"
    )


@torch.inference_mode()
def _names(model: nn.Module, grid: Grid, patch_pixels: int) -> list[str]:
    """Return the names of the maps that a network gives for a blank picture, in its order."""
    height, width = (count * patch_pixels for count in grid)
    return list(_maps(model, torch.zeros(1, 3, height, width)))


def _input(own: OwnFunction, model: nn.Module) -> tuple[bool, int]:
    """Return whether patches pass a network alone, and the pixels of a patch's side in its input.

    UsageError for attributes that say something else.
    """
    side, pixels = getattr(model, "input_side", None), getattr(model, "patch_pixels", PATCH)
    if side not in (None, PATCH):
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attribute input_side {side!r}: expected {PATCH} "
            "for patches alone, or none for the whole picture"
        )
    is_number = isinstance(pixels, int) and not isinstance(pixels, bool)
    if (
        not is_number
        or not 1 <= pixels <= MAX_PATCH_PIXELS
        or (side is not None and pixels != PATCH)
    ):
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attribute patch_pixels {pixels!r}: expected the "
            f"pixels that a side of a patch has in its input, 1 to {MAX_PATCH_PIXELS}, and {PATCH} "
            "for patches alone"
        )
    return side is not None, pixels


def _default_layers(own: OwnFunction, model: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's attribute ``layers``; none where it has none."""
    given = getattr(model, "layers", ())
    if isinstance(given, tuple | list) and all(isinstance(name, str) for name in given):
        return tuple(given)
    if isinstance(given, nn.Module):  # a part of the network, as many have it by this name
        return ()
    raise UsageError(
        f"backbone '{own.file}:{own.name}': attribute layers {printable(repr(given))}: expected a "
        "tuple of names of maps, or none for the last one"
    )


def _normalisation(own: OwnFunction, model: nn.Module) -> Normalisation:
    """Return the constants of a network's attributes ``mean`` and ``std``, else ImageNet's."""
    default = NORMALISATIONS["imagenet"]
    mean, std = getattr(model, "mean", default.mean), getattr(model, "std", default.std)
    try:
        mean, std = (tuple(float(number) for number in each) for each in (mean, std))
        if min(std) <= 0:
            raise ValueError("std must be more than 0")
        return Normalisation(mean=mean, std=std)  # type: ignore[arg-type]  # checked
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attributes mean and std: expected three numbers "
            f"each, of pixels scaled to 0..1 ({explain(error)})"
        ) from error
