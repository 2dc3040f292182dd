"""The weights of backbones: reading them strictly, their digest, and where they were read from.

Belongs here: everything between a weights file and a network that holds its tensors. ``load`` is
the way in; ``files`` reads a file without running what it may contain, ``untrained`` makes weights
of a seed, ``strict`` loads them into a network, ``digest`` is their identity, ``published`` which
file a backbone's official ones are and what a version calls them, ``origin`` where they were read
from. What other rooms use is importable from here.
"""

from vocprep.features.weights.digest import StateDict, file_tensor_digest, tensor_digest
from vocprep.features.weights.load import load_fitting_weights, load_weights
from vocprep.features.weights.origin import WeightsOrigin
from vocprep.features.weights.published import (
    OF_FUNCTION,
    OFFICIAL,
    UNTRAINED,
    official_source,
    official_weights,
    weights_label,
)
from vocprep.features.weights.strict import load_strictly
from vocprep.features.weights.untrained import RANDOM_PREFIX

__all__ = [
    "OFFICIAL",
    "OF_FUNCTION",
    "RANDOM_PREFIX",
    "UNTRAINED",
    "StateDict",
    "WeightsOrigin",
    "file_tensor_digest",
    "load_fitting_weights",
    "load_strictly",
    "load_weights",
    "official_source",
    "official_weights",
    "tensor_digest",
    "weights_label",
]
