"""Loading weights into a network: every tensor that embeddings depend on must fit."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vocprep.errors import WeightsError
from vocprep.features.weights.digest import StateDict


def load_strictly(network: nn.Module, weights: StateDict) -> None:
    """Load a state dict; WeightsError unless all names, shapes and types fit and all is finite.

    A classifier of another size, or none, is no difference in networks of timm and torchvision,
    whose layers stand before it.
    """
    classifier = _classifier(network)
    expected = network.state_dict()
    needed = {name for name in expected if not _is_below(name, classifier)}
    given = {name for name in weights if name in expected or not _is_below(name, classifier)}
    missing, excess = needed - given, given - expected.keys()
    if missing or excess:
        raise WeightsError(_names_differ(missing, excess, expected.keys() | set(), weights))
    fitting = {}
    for name in given:
        problem = _problem(expected[name], weights[name])
        if problem is None:
            fitting[name] = weights[name]
        elif name in needed:
            raise WeightsError(f"weights: tensor {name} {problem}")
    network.load_state_dict(fitting, strict=False)


def _problem(expected: Tensor, found: Tensor) -> str | None:
    """Return what keeps a tensor from being loaded; None where nothing does."""
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}: expected {tuple(expected.shape)}"
    if found.dtype != expected.dtype:
        return f"is of type {found.dtype}: expected {expected.dtype}"
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        return "holds values that are not finite"
    return None


def _classifier(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that give class scores of what all layers stand before."""
    config = getattr(network, "pretrained_cfg", None)
    if isinstance(config, dict):
        names = config.get("classifier") or ()
        return (names,) if isinstance(names, str) else tuple(names)
    if type(network).__module__.startswith("torchvision."):
        return tuple(name for name, _ in network.named_children())[-1:]
    return ()


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _names_differ(
    missing: set[str], excess: set[str], expected: set[str], weights: StateDict
) -> str:
    """Return in words which tensors a file lacks or has too much: the first, and how many."""
    first = min(missing | excess)
    problem = (
        f"{first} is missing"
        if first in missing
        else f"{reprlib.repr(first)} is not part of the network"
    )
    counts = f"; in all {len(missing):,} of {len(expected):,} are missing and {len(excess):,} of "
    counts += f"the {len(weights):,} there are not part of it"
    prefix = next(iter(weights), "").partition(".")[0] + "."
    wrapped = all(name.removeprefix(prefix) in expected for name in excess) and missing
    advice = f": leave out the {prefix!r} before every name" if wrapped and excess else ""
    more = counts + advice if len(missing | excess) > 1 else ""
    return f"weights: tensor {problem}: expected those of the backbone{more}"
