"""Staging folders as earlier versions of vocprep left them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def as_staging_format(folder: Path, version: int) -> None:
    """Rewrite the key and the descriptions of a staging folder as format 1 or 2 has them.

    The samples of a shard were JSON in its description; format 1 did not name the build.
    """
    key = json.loads((folder / "build.json").read_bytes().partition(b"\n")[2])["key"]
    value = key if version == 1 else {"staging_format_version": 2, "key": key}
    (folder / "build.json").write_bytes(sealed(value))
    for path in folder.glob("*.about"):
        about = old_description(path.read_bytes())
        path.write_bytes(sealed(about["shard"] if version == 1 else about))


def old_description(data: bytes) -> dict[str, Any]:
    """Return the value of a description in format 2."""
    _, head_line, *lines = data.splitlines()
    head = json.loads(head_line)
    new = head["shard"]
    samples = [json.loads(line) for line in lines]
    names = ("split", "entry", "statistics", "label_pixels")
    shard = {
        **{name: new[name] for name in names},
        "samples": sorted(
            (each for each in samples if each["status"] == "ok"), key=lambda each: each["row"]
        ),
        "quarantined": [each for each in samples if each["status"] == "quarantined"],
    }
    return {"build": head["build"], "shard": shard}


def sealed(value: object) -> bytes:
    """Return JSON after a line with its digest."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data
