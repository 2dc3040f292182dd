"""Dataset versions as earlier releases wrote them, and builds as these made them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vocprep.building.plan import versions


def as_index_of(version: Path, out: Path, number: int) -> Path:
    """Copy a version, with dataset.json of an earlier format version and the same shards."""
    shutil.copytree(version, out, ignore=shutil.ignore_patterns(".lock"))
    index = json.loads((out / "dataset.json").read_text())
    _write_index(out, index, number)
    return out


def as_format_1(version: Path, out: Path, *, in_json: int = 1) -> Path:
    """Copy a tar version, its shards and index of format version 1."""
    shutil.copytree(version, out, ignore=shutil.ignore_patterns("*.tar", ".lock"))
    index = json.loads((out / "dataset.json").read_text())
    for shard in index["shards"]:
        data = _old_tar((version / shard["name"]).read_bytes(), in_json)
        shard["bytes"], shard["sha256"] = len(data), hashlib.sha256(data).hexdigest()
        (out / shard["name"]).write_bytes(data)
    _write_index(out, index, 1)
    return out


def _write_index(out: Path, index: dict[str, Any], number: int) -> None:
    """Write an index without what came with version 3."""
    index["format_version"] = number
    for shard in index["shards"]:
        del shard["span"]
    del index["index_sha256"]
    text = json.dumps(index, sort_keys=True, separators=(",", ":"))
    index["index_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (out / "dataset.json").write_text(json.dumps(index, indent=2) + "\n")


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


@contextmanager
def label_maps_by_pillow() -> Iterator[None]:
    """Build as releases did in which Pillow wrote label maps, so that no version named zlib."""
    names = versions()
    del names["zlib"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vocprep.building.stages.encode_png", _by_pillow)
        for module in ("plan", "assemble", "orders", "output.resume"):
            patched.setattr(f"vocprep.building.{module}.versions", lambda: names)
        yield


def _by_pillow(label_map: NDArray[np.uint16]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(label_map).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
