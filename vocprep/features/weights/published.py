"""Which file a backbone's published weights are, and what a version calls its weights."""

from __future__ import annotations

from vocprep.backbones import BACKBONES
from vocprep.data_dir.library_weights import is_library_model, library_source
from vocprep.data_dir.source_digests import read_recorded_file
from vocprep.features.weights.untrained import RANDOM_PREFIX
from vocprep.manifests import SourceFile, SourceManifest, load_source, manifest_names
from vocprep.recipe import OWN_FILE
from vocprep.storage.places import Place

OFFICIAL = "official "
"""Begins the label of a backbone's published weights in a version's index."""
UNTRAINED = "untrained ("
"""Begins the label of untrained weights in a version's index; their ``random:SEED`` follows."""
OF_FUNCTION = "those of "
"""Begins the label of the weights that a function of one's own gives its network."""
OWN_MODULE = f"{OWN_FILE}:"
"""Begins the names of backbones that a file of one's own makes, in recipes."""


def official_source(backbone: str, data_dir: Place | None = None) -> SourceManifest | None:
    """Return the source of a backbone's published weights; None where none is known.

    Of a library's model it is what was downloaded into ``data_dir``: without digests before.
    """
    if is_library_model(backbone):
        path = library_source(backbone).files[0].path
        recorded = None if data_dir is None else read_recorded_file(data_dir, path)
        return library_source(backbone, recorded)
    return load_source(backbone) if backbone in manifest_names("sources") else None


def official_weights(backbone: str, data_dir: Place | None = None) -> SourceFile:
    """Return the file of a backbone's official weights: where it is kept, and its digests.

    Without URLs and digests for a backbone that has no source.
    """
    source = official_source(backbone, data_dir)
    if source is None:
        return SourceFile(path=f"weights/{backbone}.pt", urls=())
    (file,) = source.files
    return file


def weights_label(weights: str | None, digest: str, backbone: str, data_dir: Place) -> str:
    """Return what a version's index calls weights that ``load_weights`` read, by their digest."""
    published = official_weights(backbone, data_dir).tensors_sha256
    if backbone in BACKBONES:
        if digest == published or (weights is None and published is None):
            return f"{OFFICIAL}{BACKBONES[backbone].title}"
    elif digest == published and (source := official_source(backbone, data_dir)):
        return f"{OFFICIAL}{source.title}"
    if weights is None and backbone.startswith(OWN_MODULE):
        return f"{OF_FUNCTION}{backbone.removeprefix(OWN_MODULE)} ({digest[:12]}…)"
    is_random = weights is not None and weights.startswith(RANDOM_PREFIX)
    return f"{UNTRAINED}{weights})" if is_random else f"own ({digest[:12]}…)"
