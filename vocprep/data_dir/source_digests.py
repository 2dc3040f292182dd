"""Source digests: ``DATA_DIR/sources.lock.json``, the digests that are published nowhere.

The first download of a file records its digest; later runs must agree with it, and so must another
machine that is given the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vocprep.data_dir.receipts import records_dir
from vocprep.errors import DataError
from vocprep.files.locking import file_lock
from vocprep.files.writing import write_json
from vocprep.manifests import Hex, Url
from vocprep.storage.places import Place
from vocprep.storage.reading import read_json_at
from vocprep.validation import WholeNumber, explain, from_json

SOURCE_DIGESTS_FILE = "sources.lock.json"


class RecordedFile(BaseModel):
    """What is recorded of a file: its digest, and of weights where they came from."""

    model_config = ConfigDict(extra="allow")

    sha256: Hex
    bytes: Annotated[int, Field(ge=0)] | None = None
    tensors_sha256: Hex | None = None
    """Tensor digest of weights."""
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """Of the Hugging Face hub."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of the repository."""
    url: Url | None = None
    """Of a file that is in no repository."""
    license: str | None = None


class _SourceDigests(BaseModel):
    version: Annotated[Literal[1], WholeNumber]
    files: dict[str, RecordedFile]


def read_source_digests(data_dir: Path) -> dict[str, str]:
    """Return the recorded sha256 by path below the data dir; DataError when it is damaged."""
    return {name: digest.sha256 for name, digest in _read(data_dir).files.items()}


def read_recorded_file(data_dir: Place, name: str) -> RecordedFile | None:
    """Return what is recorded of a file below the data dir; DataError when it is damaged."""
    return _read(data_dir).files.get(name)


def add_source_digest(data_dir: Path, name: str, sha256: str, size: int) -> None:
    """Record a digest; those of other files stay."""
    add_recorded_file(data_dir, name, RecordedFile(sha256=sha256, bytes=size))


def add_recorded_file(data_dir: Path, name: str, recorded: RecordedFile) -> None:
    """Record what is known of a file; what is recorded of others stays."""
    folder = records_dir(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{data_dir / SOURCE_DIGESTS_FILE}: waiting for another vocprep that writes it"
    with file_lock(folder / "lockfile.lock", busy=busy, note=lambda _: None, wait=True):
        files = _read(data_dir).model_dump(exclude_none=True)["files"]
        files[name] = recorded.model_dump(exclude_none=True)
        value = {"version": 1, "files": dict(sorted(files.items()))}
        write_json(data_dir / SOURCE_DIGESTS_FILE, value)


def _read(data_dir: Place) -> _SourceDigests:
    path = data_dir / SOURCE_DIGESTS_FILE
    try:
        return from_json(_SourceDigests, read_json_at(path))
    except FileNotFoundError:
        return _SourceDigests(version=1, files={})
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as source digests ({explain(error)}); restore it, or delete "
            "it to record the digests anew"
        ) from error
