"""Tar versions of format version 1, written with the standard library alone."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path


def as_format_1(version: Path, out: Path, *, in_json: int = 1) -> Path:
    """Copy a tar version, its shards and index written as earlier releases wrote them."""
    shutil.copytree(version, out, ignore=shutil.ignore_patterns("*.tar", ".lock"))
    index = json.loads((out / "dataset.json").read_text())
    index["format_version"] = 1
    for shard in index["shards"]:
        data = _old_tar((version / shard["name"]).read_bytes(), in_json)
        shard["bytes"], shard["sha256"] = len(data), hashlib.sha256(data).hexdigest()
        (out / shard["name"]).write_bytes(data)
    del index["index_sha256"]
    text = json.dumps(index, sort_keys=True, separators=(",", ":"))
    index["index_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (out / "dataset.json").write_text(json.dumps(index, indent=2) + "\n")
    return out


def _old_tar(data: bytes, in_json: int) -> bytes:
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as target,
    ):
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            content = stream.read()
            if member.name.endswith(".json"):
                info = {**json.loads(content), "format_version": in_json}
                content = json.dumps(info, sort_keys=True, separators=(",", ":")).encode()
            copied = tarfile.TarInfo(member.name.replace(".png16", ".png"))
            copied.size = len(content)
            target.addfile(copied, io.BytesIO(content))
    return out.getvalue()
