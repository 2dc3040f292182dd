"""Label files (.mat, .png) → label maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import LabelDecodeError
from vocprep.files.reading import system_reason
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.mat import decode_mat
from vocprep.labels.png import decode_png
from vocprep.storage.places import Place
from vocprep.storage.reading import read_source
from vocprep.validation import explain

MAX_BYTES = 1 << 29
"""Of a label file: twice what the largest label map takes as MATLAB's double numbers."""
_DECODERS: dict[str, Callable[[bytes, str], NDArray[np.uint16]]] = {
    ".mat": decode_mat,
    ".png": decode_png,
}


def decode_label_map(data: bytes, path: Place) -> NDArray[np.uint16]:
    """Return the raw label map uint16 [H, W] of a label file's bytes; its suffix is the kind.

    Raises LabelDecodeError naming ``path``.
    """
    if path.suffix not in _DECODERS:
        raise LabelDecodeError(
            f"{path}: expected a label map as {' or '.join(_DECODERS)}, found {path.suffix!r}"
        )
    return _DECODERS[path.suffix](data, str(path))


def read_label_file(path: Place) -> bytes:
    """Return a label file's bytes; LabelDecodeError when it cannot be read."""
    try:
        return read_source(path, MAX_BYTES)
    except OSError as error:
        problem = f"{path}: label map cannot be read: {explain(error)}"
        recorded = f"{path}: label map cannot be read: {system_reason(error)}"
        raise LabelDecodeError(problem, recorded=recorded) from error


def read_label_map(path: Place, space: LabelSpace) -> NDArray[np.uint16]:
    """Return a file's label map uint16 [H, W] in a label space.

    Raises LabelDecodeError naming the file when it cannot be read or holds other ids.
    """
    return space.apply(decode_label_map(read_label_file(path), path), str(path))
