"""Weights of libraries' models in a data dir: where each is kept, and what is recorded of it.

The repositories that timm names are on the Hugging Face hub. Which revision of one was downloaded
is recorded in ``sources.lock.json``, and holds from then on.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from vocprep.data_dir.source_digests import RecordedFile
from vocprep.errors import UsageError
from vocprep.manifests import SourceFile, SourceManifest
from vocprep.validation import printable

ENDPOINT_VARIABLE = "HF_ENDPOINT"
DEFAULT_ENDPOINT = "https://huggingface.co"
HUB_FILE = "model.safetensors"
"""Name of the weights in a repository of the hub."""
_SUFFIXES = {"timm": ".safetensors", "torchvision": ".pth"}
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def is_library_model(name: str) -> bool:
    """Return whether a name is that of a library's model: ``timm:NAME``, ``torchvision:NAME``."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in _SUFFIXES


def library_source(name: str, recorded: RecordedFile | None = None) -> SourceManifest:
    """Return the source of a model's weights: one file, located as far as it is ``recorded``.

    >>> library_source("timm:resnet18").files[0].path
    'weights/timm/resnet18.safetensors'
    """
    kind, _, model = name.partition(":")
    if not _MODEL.fullmatch(model):
        raise UsageError(
            f"{printable(name)!r}: expected {kind}:NAME with a name of {kind}'s, of letters, "
            "digits and _ . -"
        )
    file = SourceFile(path=f"weights/{kind}/{model}{_SUFFIXES[kind]}", urls=())
    if recorded is None:
        return SourceManifest(name=name, title=name, terms="unknown", files=(file,))
    facts = {"sha256": recorded.sha256, "bytes": recorded.bytes}
    located = file.model_copy(
        update={**facts, "urls": recorded_urls(recorded), "tensors_sha256": recorded.tensors_sha256}
    )
    return SourceManifest(
        name=name,
        title=_title(name, recorded),
        homepage=f"{DEFAULT_ENDPOINT}/{recorded.repository}" if recorded.repository else "",
        terms=f"Weights of {name}: {recorded.license or 'their license is not stated'}.",
        files=(located,),
    )


def recorded_urls(recorded: RecordedFile) -> tuple[str, ...]:
    """Return where a recorded file can be fetched again: of the hub at its revision."""
    if recorded.repository and recorded.revision:
        return (hub_url(recorded.repository, "resolve", recorded.revision, HUB_FILE),)
    return () if recorded.url is None else (recorded.url,)


def hub_url(repository: str, *parts: str) -> str:
    """Return a URL of the hub, or of the server that ``$HF_ENDPOINT`` names in its place."""
    endpoint = (os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")
    return "/".join((endpoint, *(quote(part) for part in (repository, *parts))))


def _title(name: str, recorded: RecordedFile) -> str:
    if recorded.repository and recorded.revision:
        return f"{recorded.repository}, revision {recorded.revision[:12]}"
    return name
