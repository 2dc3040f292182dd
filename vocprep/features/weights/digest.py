"""The identity of weights: a digest of their tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vocprep.features.weights.files import read_weights

StateDict = Mapping[str, Tensor]


def tensor_digest(weights: StateDict) -> str:
    """Return the identity of weights, whatever kind of file they were read from.

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
    return tensor_digest(read_weights(path))
