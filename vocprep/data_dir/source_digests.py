"""``DATA_DIR/sources.lock.json``: digests that nobody has published, as first seen.

Later runs must agree with it, and so must another machine that is given the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from vocprep.data_dir.receipts import records_dir
from vocprep.errors import DataError
from vocprep.files import write_json

SOURCE_DIGESTS_FILE = "sources.lock.json"
_VERSION = 1


def read_source_digests(data_dir: Path) -> dict[str, str]:
    """Return the recorded sha256 by path below the data dir; DataError when it is damaged."""
    path = data_dir / SOURCE_DIGESTS_FILE
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        if value["version"] != _VERSION:
            raise ValueError(f"version {value['version']}, expected {_VERSION}")
        return {name: str(entry["sha256"]) for name, entry in value["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as a lock file ({error}); restore it, or delete it to record "
            "the digests anew"
        ) from error


def add_source_digest(data_dir: Path, name: str, sha256: str, size: int) -> None:
    """Record a digest; what was recorded of other files stays."""
    folder = records_dir(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lockfile.lock"):
        read_source_digests(data_dir)  # never write over a file that cannot be read
        path = data_dir / SOURCE_DIGESTS_FILE
        files: Mapping[str, Any] = json.loads(path.read_bytes())["files"] if path.exists() else {}
        entries = {**files, name: {"sha256": sha256, "bytes": size}}
        write_json(path, {"version": _VERSION, "files": dict(sorted(entries.items()))})
