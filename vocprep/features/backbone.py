"""The frozen backbone: networks, weights and their identity.

ResNet-32 for 32×32 pictures after He et al. 2016, in the variant of chenyaofo/pytorch-cifar-models
(1×1 convolutions as shortcuts), with that project's parameter names so that its weights load
strictly.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vocprep.errors import SourceUnavailableError, UsageError, WeightsError

NAME = "resnet32-cifar100"
EMBEDDING_DIM = 256
WEIGHTS_PATH = Path("weights/cifar100_resnet32-84213ce6.pt")
"""Where ``vocprep download`` puts the official weights, below the data dir."""
OFFICIAL_TENSORS_SHA256 = "404f91be59b70df98174a36fe01007dd4cab2c5403bf0c5f24b73911319b26f5"
"""Tensor digest of the official weights, whatever file carries them."""
RANDOM_PREFIX = "random:"
_DTYPES = (torch.float32, torch.int64)

StateDict = Mapping[str, Tensor]


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
    """A ResNet for 32×32 pictures: [B, 3, 32, 32] → class scores [B, classes].

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


class FrozenBackbone(nn.Module):
    """Normalised patches [N, 3, 32, 32] → embeddings [N, 256], channel·4 + row·2 + column.

    The trunk's 64×8×8 map, averaged over 2×2 cells and flattened. Batch norms are folded into the
    convolutions. It stays in eval mode whatever a parent module does, and takes no gradient:
    unfolded and left to ``train()``, its batch norms would drift with the first forward pass.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = fold_batch_norms(trunk.eval()).to(memory_format=torch.channels_last)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_weights(cls, weights: StateDict) -> Self:
        """Build it from a full ResNet-32 state dict; WeightsError when that does not fit."""
        network = cifar100_resnet32()
        load_strictly(network, weights)
        return cls(nn.Sequential(*list(network.children())[:-2]))

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        del mode
        return super().train(False)

    def forward(self, patches: Tensor) -> Tensor:
        """Return embeddings [N, 256]."""
        x = self.trunk(patches.contiguous(memory_format=torch.channels_last))
        return torch.flatten(self.pool(x), 1)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place, and return the module.

    The pairs are neighbours among a module's children, as in every network here.
    """
    for child in module.children():
        fold_batch_norms(child)
    for (name, child), (next_name, following) in pairwise(list(module.named_children())):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity())
    return module


def tensor_digest(weights: StateDict) -> str:
    """Return the identity of weights, whatever file carried them.

    Sha256 over, for each name in sorted order: name, NUL, dtype, NUL, comma-joined shape, NUL,
    little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        shape = ",".join(str(size) for size in array.shape)
        digest.update(f"{name}\0{array.dtype}\0{shape}\0".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def file_tensor_digest(path: Path) -> str:
    """Return the tensor digest of a weights file."""
    return tensor_digest(_read_weights(path))


def load_weights(spec: str | None, data_dir: Path) -> dict[str, Tensor]:
    """Return the backbone's state dict.

    ``spec`` is the path of a ``.pt``/``.pth``/``.safetensors`` file, ``random:SEED`` for an
    untrained network, or None for the official weights below ``data_dir``. Raises
    SourceUnavailableError when those are not there, WeightsError when a file does not fit.
    """
    if spec is None:
        path = data_dir / WEIGHTS_PATH
        if not path.is_file():
            raise SourceUnavailableError(
                f"{path}: backbone weights are not there; run: vocprep download {NAME} --data-dir "
                f"{data_dir}, or give --weights PATH, or --weights random:0 for an untrained one"
            )
        return _read_weights(path)
    if spec.startswith(RANDOM_PREFIX):
        return _random_weights(spec)
    return _read_weights(Path(spec))


def load_strictly(network: nn.Module, weights: StateDict) -> None:
    """Load a state dict whose names and shapes must all fit; WeightsError otherwise."""
    wanted = network.state_dict()
    for name in sorted(wanted.keys() ^ weights.keys()):
        state = "is missing" if name in wanted else "is not part of the network"
        raise WeightsError(f"weights: tensor {name} {state}: expected those of {NAME}")
    for name, tensor in wanted.items():
        found = weights[name]
        if found.shape != tensor.shape:
            raise WeightsError(
                f"weights: tensor {name} has shape {tuple(found.shape)}: expected "
                f"{tuple(tensor.shape)} of {NAME}"
            )
        if found.dtype != tensor.dtype:
            raise WeightsError(
                f"weights: tensor {name} is of type {found.dtype}: expected {tensor.dtype}"
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise WeightsError(f"weights: tensor {name} holds values that are not finite")
    network.load_state_dict(dict(weights))


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code that a file may carry."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415  # few weights come this way

            return _checked(load_file(path), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old ways to pickle
            value = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file; check --weights") from error
    # torch's own advice is to load such a file without protection: not passed on.
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or more than tensors inside; expected a "
            "dictionary of tensors"
        ) from error
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read: {error.strerror}") from error
    # torch.load raises whatever unpickling damaged bytes raises, and says it in its own terms.
    except Exception as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or no weights file; expected a dictionary "
            "of tensors as torch.save or safetensors writes it; fetch it again"
        ) from error
    return _checked(value, path)


def _checked(value: Any, path: Path) -> dict[str, Tensor]:
    """Return what a file held when it is a dictionary of tensors that have a digest."""
    if not isinstance(value, dict):
        raise WeightsError(
            f"{path}: expected a dictionary of tensors, found {type(value).__name__}"
        )
    for name, item in value.items():
        is_tensor = isinstance(name, str) and isinstance(item, Tensor)
        if not is_tensor or item.dtype not in _DTYPES or item.layout != torch.strided:
            raise WeightsError(
                f"{path}: expected a dictionary of float32 and int64 tensors, found {name!r}: "
                f"{item.dtype if isinstance(item, Tensor) else type(item).__name__}"
            )
    return dict(value)


def _random_weights(spec: str) -> dict[str, Tensor]:
    """Return untrained weights that are the same bits on every machine.

    Uniform after He et al. 2015 from numpy's generator, since torch's normal numbers differ
    between instruction sets; the last batch norm of each block is damped so that the activations
    of 15 stacked blocks keep their size.
    """
    try:
        seed = int(spec.removeprefix(RANDOM_PREFIX))
    except ValueError as error:
        raise UsageError(
            f"weights {spec!r}: expected {RANDOM_PREFIX}SEED with a whole number, e.g. random:0"
        ) from error
    if seed < 0:
        raise UsageError(f"weights {spec!r}: expected a seed of 0 or more")
    generator = np.random.default_rng(seed)
    weights = cifar100_resnet32().state_dict()
    for name in sorted(weights):
        tensor = weights[name]
        if tensor.ndim >= 2:
            bound = np.float32((6 / tensor[0].numel()) ** 0.5)
            uniform = generator.random(tuple(tensor.shape), dtype=np.float32)
            weights[name] = torch.from_numpy((uniform * 2 - 1) * bound)
        elif name == "fc.bias":
            weights[name] = torch.zeros_like(tensor)
        elif name.endswith("bn2.weight"):
            weights[name] = torch.full_like(tensor, 0.5)
    return dict(weights)
