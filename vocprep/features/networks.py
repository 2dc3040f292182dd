"""The networks that backbones are cut from.

ResNet-32 for 32×32 images after He et al. 2016, in the variant of chenyaofo/pytorch-cifar-models
(1×1 convolutions as shortcuts) and with that project's parameter names, so that its weights load
strictly; ResNet-18 of the same paper is torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut: [B, C_in, h, w] → [B, C_out, h/stride, w/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += shortcut
        activated: Tensor = self.relu(y)
        return activated


class CifarResNet(nn.Module):
    """A ResNet for 32×32 images: [B, 3, 32, 32] → class scores [B, classes].

    Its last two children are the average pool and the classifier; what stands before them is the
    trunk, [B, 3, 32, 32] → [B, 64, 8, 8].
    """

    def __init__(self, blocks: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks[0], stride=1)
        self.layer2 = _stage(16, 32, blocks[1], stride=2)
        self.layer3 = _stage(32, 64, blocks[2], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def cifar100_resnet32() -> CifarResNet:
    """Return an untrained ResNet-32 with 100 classes."""
    return CifarResNet((5, 5, 5), classes=100)


def imagenet_resnet18() -> nn.Module:
    """Return torchvision's untrained ResNet-18 with 1,000 classes, with its parameter names."""
    from torchvision.models import resnet18  # noqa: PLC0415  # slow to load, and few builds use it

    network: nn.Module = resnet18(weights=None)
    return network


def stages_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a network by the names of its layers, in the order of computation.

    Embeddings can be taken after each. A network with a method ``stages`` returns its own; of a
    ResNet they are what stands before the average pool, ``stem`` and the layers.
    """
    if isinstance(network, HasStages):
        return network.stages()
    children = dict(network.named_children())
    stem = [module for name, module in children.items() if name in _STEM]
    layers = {name: module for name, module in children.items() if name.startswith("layer")}
    return {"stem": nn.Sequential(*stem), **layers}


@runtime_checkable
class HasStages(Protocol):
    """A network that names its stages itself."""

    def stages(self) -> dict[str, nn.Module]:
        """Return its modules by name, in the order of computation."""


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "resnet32-cifar100": cifar100_resnet32,
    "resnet18-imagenet": imagenet_resnet18,
}
"""By the names of ``vocprep.backbones.BACKBONES``: what makes each network, untrained."""
Module = TypeVar("Module", bound=nn.Module)
_STEM = ("conv1", "bn1", "relu", "maxpool")


def fold_batch_norms(module: Module) -> Module:
    """Fold each batch norm into the convolution before it, in place, and return the module.

    The pairs must be neighbours among a module's children.
    """
    for child in module.children():
        fold_batch_norms(child)
    for (name, child), (next_name, following) in pairwise(list(module.named_children())):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity())
    return module
