"""Batch norms folded into convolutions, in networks of any structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vocprep.features.libraries.maps import MapNetwork

_CONVOLUTIONS = ("Conv2d", "Conv2dSame")
"""Classes of convolutions that use their weights as they are; timm's second one pads first."""
_NORM_THEN_ACTIVATION = "BatchNormAct2d"
"""Class of timm's batch norms that apply a dropout and an activation, too."""


def fold_norms(network: MapNetwork, pixels: Tensor) -> int:
    """Fold batch norms into the convolutions whose outputs they alone take; return how many.

    In place. Which ones those are is found by passing ``pixels`` through the network in eval mode
    and following the graph that torch keeps for gradients.
    """
    folded = 0
    for convolution, norm in list(_pairs(network.eval(), pixels)):
        _replace(network, convolution, fuse_conv_bn_eval(convolution, norm))
        _replace(network, norm, _what_remains(norm))
        folded += 1
    return folded


def _pairs(network: MapNetwork, pixels: Tensor) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Yield each convolution and batch norm that are called once, one after the other alone."""
    made_by: dict[Node, nn.Conv2d] = {}
    taken_by: list[tuple[nn.BatchNorm2d, Node]] = []
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d) and output.grad_fn is not None:
            made_by[output.grad_fn] = module
        elif isinstance(module, nn.BatchNorm2d) and inputs[0].grad_fn is not None:
            taken_by.append((module, inputs[0].grad_fn))

    hooks = [module.register_forward_hook(note) for module in network.modules() if _folds(module)]
    try:
        with torch.enable_grad():
            maps = network(pixels.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    uses = _uses([layer_map.grad_fn for layer_map in maps.values()])
    for norm, node in taken_by:
        convolution = made_by.get(node)
        if convolution is not None and uses[node] == calls[convolution] == calls[norm] == 1:
            yield convolution, norm


def _folds(module: nn.Module) -> bool:
    """Return whether folding is defined for a convolution or batch norm of this very class."""
    if isinstance(module, nn.Conv2d):
        return type(module).__name__ in _CONVOLUTIONS
    if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
        return type(module) is nn.BatchNorm2d or type(module).__name__ == _NORM_THEN_ACTIVATION
    return False


def _what_remains(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a batch norm does beside its norm."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


def _uses(ends: list[Node | None]) -> Counter[Node]:
    """Return how many operations take the output of each, of all that lead to some ends."""
    uses: Counter[Node] = Counter(node for node in ends if node is not None)
    seen, waiting = set(uses), list(uses)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None:
                continue
            uses[node] += 1
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return uses


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, wherever the network holds it."""
    paths = [
        path for path, module in network.named_modules(remove_duplicate=False) if module is old
    ]
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, new)
