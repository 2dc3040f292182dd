"""The backbone's weights of a run: where they were read from, so that ``predict`` finds them again.

``weights.json`` is not part of what a run is: another machine may keep the same weights elsewhere.
The tensor digest in the run's recipe decides.
"""

from __future__ import annotations

import os
from pathlib import Path

from vocprep.errors import DataError, RunError, SourceUnavailableError, UsageError, WeightsError
from vocprep.features.components import COMPONENTS_FILE, MAX_COMPONENTS_BYTES, Components
from vocprep.features.libraries.maps import MissingLibraryError
from vocprep.features.weights import (
    StateDict,
    WeightsOrigin,
    load_weights,
    official_weights,
    tensor_digest,
)
from vocprep.files.reading import read_file
from vocprep.heads.runs.run import WEIGHTS_FILE, Run
from vocprep.shards.reader import ShardDataset
from vocprep.validation import explain, printable

_LONGEST_SHOWN = 200
"""Characters of a stored path, and of what is wrong with it."""


def find_weights(run: Run, weights: str | Path | None, data_dir: Path) -> StateDict:
    """Return the backbone's weights that a run's shards were built with, checked by their digest.

    ``weights`` is a file or ``random:SEED``; when None, they are read from where the run's
    ``weights.json`` says, else the official ones below ``data_dir`` are. Raises RunError when these
    are others, SourceUnavailableError, which names file and digest, when there are none.
    """
    recipe = run.config.recipe
    expected = recipe.weights_sha256
    origin = WeightsOrigin.read(run.path / WEIGHTS_FILE)
    problem = ""
    if weights is None and origin is not None:
        try:
            state = load_weights(origin.weights, data_dir, recipe.backbone, recipe.network)
        except MissingLibraryError:
            raise
        except (WeightsError, UsageError) as error:
            problem = printable(str(error).removeprefix(f"{origin.weights}: "), _LONGEST_SHOWN)
        else:
            if tensor_digest(state) == expected:
                return state
            problem = f"it now holds other weights, {tensor_digest(state)[:12]}…"
    if weights is None and official_weights(recipe.backbone, data_dir).tensors_sha256 not in (
        None,
        expected,
    ):
        raise SourceUnavailableError(
            f"{run.path}: expected the weights that its shards were built with, of tensor digest "
            f"{expected[:12]}…{_found(run.path / WEIGHTS_FILE, origin, problem)}"
        )
    spec = None if weights is None else str(weights)
    try:
        state = load_weights(spec, data_dir, recipe.backbone, recipe.network)
    except SourceUnavailableError as error:
        if recipe.network is None:
            raise
        raise SourceUnavailableError(
            f"{error}: those of tensor digest {expected[:12]}…, which its shards were built with"
        ) from error
    found = tensor_digest(state)
    if found != expected:
        raise RunError(
            f"{run.path}: was trained on embeddings of weights {expected[:12]}…, found "
            f"{found[:12]}…; give the same --weights as to build-shards"
        )
    return state


def find_components(run: Run) -> Components | None:
    """Return the principal components that a run's shards were reduced to; None without any.

    RunError where the run's file of them is missing, damaged or of other ones.
    """
    reduction = run.config.recipe.reduction
    if reduction is None or reduction.kind != "pca":
        return None
    path = run.path / COMPONENTS_FILE
    try:
        found = Components.from_bytes(read_file(path, MAX_COMPONENTS_BYTES), str(path))
    except (OSError, DataError) as error:
        problem = str(error) if isinstance(error, DataError) else f"{path}: {explain(error)}"
        raise RunError(
            f"{problem.partition('; ')[0]}; copy {COMPONENTS_FILE} of the shards there"
        ) from error
    if found.sha256 != reduction.matrix_sha256:
        raise RunError(
            f"{path}: expected the principal components of the run's shards, of digest "
            f"{(reduction.matrix_sha256 or '')[:12]}…, found {found.sha256[:12]}…; copy "
            f"{COMPONENTS_FILE} of the shards there"
        )
    return found


def _found(hint: Path, origin: WeightsOrigin | None, problem: str) -> str:
    """Return the end of a message on missing weights: what the hint says of them, and advice."""
    if origin is not None:
        where = printable(origin.weights, _LONGEST_SHOWN)
        return f", read from {where} ({problem}); give that file as --weights"
    state = "cannot be read" if os.path.lexists(hint) else "is missing"
    return (
        f", but {hint}, which says where they are, {state}; give the --weights of the build: "
        "their file, or random:SEED for an untrained backbone"
    )


def weights_origin(dataset: ShardDataset, weights: str | Path | None) -> WeightsOrigin | None:
    """Return where a dataset version's weights can be read from; None when that is not known.

    ``weights`` is what the user names, a file or ``random:SEED``: UsageError when it holds others.
    """
    recipe = dataset.index.recipe
    if weights is None:
        return WeightsOrigin.of_version(dataset.path, dataset.index.weights, recipe.weights_sha256)
    read = load_weights(str(weights), Path(), recipe.backbone, recipe.network)
    found = tensor_digest(read)
    if found != recipe.weights_sha256:
        shown = printable(str(weights), _LONGEST_SHOWN)
        raise UsageError(
            f"weights {shown}: expected those that {dataset.path} was built with, "
            f"{recipe.weights_sha256[:12]}…, found {found[:12]}…; leave --weights out or give that "
            "file"
        )
    return WeightsOrigin.of(str(weights), found)
