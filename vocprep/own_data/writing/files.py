"""Writing the manifests beside files of a user's own, of which none is ever replaced.

``dataset.toml`` ends with the digests of all files that were written with it. A later call replaces
a file only while it has the digest that is listed there, which shows that nobody has edited it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vocprep.dataset_manifest import DATASET_FILE
from vocprep.errors import UsageError
from vocprep.files.names import UNFINISHED, VERSION, found_at
from vocprep.files.reading import MAX_TEXT_BYTES, read_file
from vocprep.files.writing import check_output_folder, sha256_hex, write_atomic
from vocprep.open_questions import comment
from vocprep.own_data.tree import OVERLAY_FILE
from vocprep.own_data.writing.texts import CLASSES_FILE, LISTS_FOLDER

_HEAD = comment(
    "Digests of what vocprep init wrote; it replaces these files only while nobody has edited them:"
)
_DIGEST = re.compile(r"# ([0-9a-f]{64}) (.+)")
_OWN = re.compile(
    f"{re.escape(DATASET_FILE)}|{re.escape(CLASSES_FILE)}|{re.escape(OVERLAY_FILE)}"
    rf"|{LISTS_FOLDER}/[A-Za-z0-9_-]{{1,64}}\.txt"
)
"""Paths that are written; a file of any other is never touched, whatever a manifest lists."""


def stamped(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files by their path with the digests of all at the end of ``dataset.toml``."""
    digests = {path: sha256_hex(data) for path, data in files.items()}
    lines = [f"# {digest} {path}" for path, digest in digests.items()]
    end = "\n".join(("", _HEAD, *lines, "")).encode()
    return {**files, DATASET_FILE: files[DATASET_FILE] + end}


def check_writable(out: Path, files: Mapping[str, bytes]) -> None:
    """Raise UsageError where a file is there that ``init`` did not write, or that was edited."""
    check_output_folder(out, "--out")
    if (kind := found_at(out)) in (VERSION, UNFINISHED):
        raise UsageError(f"--out {out}: expected a folder for manifests, found {kind}; use another")
    written = _written(out)
    for path, data in files.items():
        found = _bytes_of(out / path)
        is_link = (out / path).is_symlink() or ((out / path).parent.is_symlink() and "/" in path)
        if not is_link and (found is None or found == data):
            continue
        if is_link or sha256_hex(_unstamped(path, found or b"")) != written.get(path):
            other = (
                ", has other ids than these masks or a question," if path == CLASSES_FILE else ""
            )
            raise UsageError(
                f"{out / path}: is there already{other} and was not written so by vocprep init; "
                "move it away, or choose another folder with --out"
            )


def is_edited(out: Path, path: str) -> bool:
    """Return whether a file is there that no call of ``init`` has written so; links are not."""
    found = None if (out / path).is_symlink() else _bytes_of(out / path)
    return found is not None and sha256_hex(found) != _written(out).get(path)


def replaced_splits(out: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the splits whose lists an earlier call wrote and these files remove or change."""
    lists = [path for path in _written(out) if path.startswith(f"{LISTS_FOLDER}/")]
    found = {path: _bytes_of(out / path) for path in lists}
    return [Path(path).stem for path, old in found.items() if old not in (None, files.get(path))]


def write_files(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files below a folder, ``dataset.toml`` last.

    What an earlier call wrote and this one does not is removed, unless it was edited.
    """
    for path, digest in _written(out).items():
        old = _bytes_of(out / path)
        if path not in files and old is not None and sha256_hex(old) == digest:
            (out / path).unlink()
    for path, data in sorted(files.items(), key=lambda item: item[0] == DATASET_FILE):
        if _bytes_of(out / path) != data:
            write_atomic(out / path, data)


def _written(out: Path) -> dict[str, str]:
    """Return the digests that a ``dataset.toml`` lists, by path below its folder."""
    data = _bytes_of(out / DATASET_FILE) or b""
    _, _, end = data.decode(errors="replace").rpartition(_HEAD + "\n")
    found = (_DIGEST.fullmatch(line) for line in end.splitlines())
    paths = {match[2]: match[1] for match in found if match}
    return {path: digest for path, digest in paths.items() if _OWN.fullmatch(path)}


def _unstamped(path: str, data: bytes) -> bytes:
    """Return a file without the digests at its end; all of it where something follows them."""
    head, _, end = data.rpartition(f"\n{_HEAD}\n".encode())
    lines = end.decode(errors="replace").splitlines()
    return head if path == DATASET_FILE and all(map(_DIGEST.fullmatch, lines)) else data


def _bytes_of(path: Path) -> bytes | None:
    """Return what is at a path; None for nothing, b"" for what cannot be read."""
    try:
        return read_file(path, MAX_TEXT_BYTES)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
