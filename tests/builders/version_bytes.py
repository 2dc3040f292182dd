"""The bytes of a dataset version, apart from how long its build took."""

from __future__ import annotations

import json
from pathlib import Path


def version_bytes(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name, without the file lock and the seconds of the build."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".lock" not in path.relative_to(folder).parts
    }
    try:
        index = json.loads(found["dataset.json"])
        del index["statistics"]["seconds"], index["index_sha256"]
        found["dataset.json"] = json.dumps(index).encode()
    except (KeyError, ValueError):  # there is none, or a test has damaged it
        pass
    return found
