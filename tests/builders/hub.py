"""A server of this machine that answers as the Hugging Face hub does, with one repository."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from builders.mirror import Mirror

REPOSITORY = "timm/test_vit.r160_in1k"
FILE = "model.safetensors"
FIRST, SECOND = "1" * 40, "2" * 40


def file_of(revision: str, repository: str = REPOSITORY) -> str:
    return f"{repository}/resolve/{revision}/{FILE}"


def stated_of(repository: str) -> str:
    return f"api/models/{repository}/revision/main?blobs=true"


STATED = stated_of(REPOSITORY)


def describe(data: bytes, revision: str, name: str = FILE, **changes: Any) -> bytes:
    """What the hub states of a revision whose weights have these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    weights = {"rfilename": name, "size": len(data), "blobId": "b" * 40, "lfs": pointer}
    readme = {"rfilename": "README.md", "size": 3, "blobId": "c" * 40}
    stated = {"id": REPOSITORY, "sha": revision, "siblings": [readme, weights], "private": False}
    return json.dumps({**stated, **changes}).encode()


def publish(
    mirror: Mirror, data: bytes, revision: str = FIRST, repository: str = REPOSITORY
) -> None:
    """Make a revision the newest; those before stay, as on the hub."""
    mirror.files[file_of(revision, repository)] = data
    mirror.files[stated_of(repository)] = describe(data, revision, id=repository)
