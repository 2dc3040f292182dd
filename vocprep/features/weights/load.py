"""A backbone's weights by what a user gives: a file, a seed, or nothing for the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor

from vocprep.backbones import DEFAULT_BACKBONE, Network, Normalisation
from vocprep.data_dir.library_weights import is_library_model
from vocprep.errors import SourceUnavailableError, WeightsError
from vocprep.features.exact_integers import derive_integers
from vocprep.features.libraries.kinds import make_model
from vocprep.features.networks import CifarResNet
from vocprep.features.weights.digest import tensor_digest
from vocprep.features.weights.files import MAX_WEIGHTS_BYTES, read_weights
from vocprep.features.weights.published import OWN_MODULE, official_weights
from vocprep.features.weights.strict import load_strictly
from vocprep.features.weights.untrained import RANDOM_PREFIX, untrained_weights
from vocprep.manifests import SourceFile
from vocprep.storage.cache import DigestMismatchError
from vocprep.storage.places import Place, local_path
from vocprep.storage.reading import open_listed, read_source, why_unread
from vocprep.storage.store import StorePath


def load_weights(
    spec: str | None,
    data_dir: Place,
    backbone: str = DEFAULT_BACKBONE,
    network: Network | None = None,
) -> dict[str, Tensor]:
    """Return a backbone's state dict.

    ``spec`` is the path of a ``.pt``/``.pth``/``.safetensors`` file, ``random:SEED`` for an
    untrained network, or None for the official weights below ``data_dir``, or for those that a file
    of one's own gives its network; ``network`` is that of a backbone that is not built in. Raises
    SourceUnavailableError when those are not there, WeightsError when a file does not fit.
    """
    if spec is not None:
        if spec.startswith(RANDOM_PREFIX):
            return untrained_weights(spec, make_model(backbone, network))
        return read_weights(local_path(spec))
    if backbone.startswith(OWN_MODULE):
        return _own_weights(backbone, network)
    official = official_weights(backbone, data_dir)
    if not official.urls and not is_library_model(backbone):
        raise SourceUnavailableError(
            f"{backbone}: no weights are published for it; give --weights PATH"
        )
    path = data_dir / official.path
    if not isinstance(path, Path):
        return _fetch_weights(path, official)
    if not path.is_file():
        raise SourceUnavailableError(
            f"{path}: backbone weights are not there; run: vocprep download {backbone} "
            f"--data-dir {data_dir}, or give --weights PATH"
        )
    return read_weights(path)


def load_fitting_weights(
    weights: str | None,
    data_dir: Place,
    backbone: str,
    exact: Normalisation | None = None,
    network: Network | None = None,
) -> dict[str, Tensor]:
    """Load the weights for a build and check that they fit the backbone.

    With ``exact``, the normalisation of a build in exact arithmetic, also that they have integers.
    """
    try:
        state = load_weights(weights, data_dir, backbone, network)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(
            f"{error}, or --weights random:0 for an untrained backbone"
        ) from error
    where = weights or data_dir / official_weights(backbone).path
    if weights is None and backbone.startswith(OWN_MODULE):
        where = backbone
    model = make_model(backbone, network)
    try:
        load_strictly(model, state)
    except WeightsError as error:
        raise WeightsError(f"{where}: {error} for {backbone}") from error
    if exact is not None:
        try:
            derive_integers(cast(CifarResNet, model), exact)
        except WeightsError as error:
            raise WeightsError(f"{where}: {error}") from error
    return state


def _own_weights(backbone: str, network: Network | None) -> dict[str, Tensor]:
    """Return the weights that a function of one's own gives its network, the same each time."""
    first, second = (dict(make_model(backbone, network).state_dict()) for _ in range(2))
    if tensor_digest(first) != tensor_digest(second):
        raise WeightsError(
            f"{backbone}: gives its network other weights each time: expected the same; load them "
            "from a file there, or give --weights PATH or --weights random:SEED"
        )
    return first


def _fetch_weights(path: StorePath, official: SourceFile) -> dict[str, Tensor]:
    """Read official weights of an object store, by way of the cache where their digest is known."""
    try:
        if official.sha256 is None or official.bytes is None:
            return read_weights(path, read_source(path, MAX_WEIGHTS_BYTES))
        with open_listed(path, official.sha256, official.bytes) as stream:
            return read_weights(path, stream.read())
    except DigestMismatchError as error:
        raise WeightsError(
            f"{path}: expected the published weights, {official.bytes:,} bytes of sha256 "
            f"{official.sha256}, found {error}; copy them there again, or give --weights PATH"
        ) from error
    except FileNotFoundError as error:
        raise SourceUnavailableError(
            f"{path}: backbone weights are not there; copy them there, or give --weights PATH"
        ) from error
    except OSError as error:
        found, advice = why_unread(path, error)
        raise SourceUnavailableError(f"{path}: cannot be read: {found}; {advice}") from error
