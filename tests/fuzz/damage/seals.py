"""Digests made to agree with damage, so that it gets past them as a forger's would.

Each function takes the folder of sound files, the path and the new bytes of a damaged one, and
returns the files that change with it. What is not understood stays as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.world import read_archives, source_manifest
from vocprep.errors import VocprepError
from vocprep.shards.identity import Identities
from vocprep.shards.samples import QuarantinedSample, SampleEntry

Files = dict[str, bytes]
Seal = Callable[[random.Random, Path, str, bytes], Files]
_KINDS = {"samples.jsonl": SampleEntry, "quarantine.jsonl": QuarantinedSample}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _with_digest(value: dict[str, Any], field: str) -> bytes:
    """Return JSON of which one field is the digest of all others, as the program writes it."""
    others = {name: item for name, item in value.items() if name != field}
    return (json.dumps({**value, field: _sha256(_canonical(others))}, indent=2) + "\n").encode()


def seal_version(draw: random.Random, world: Path, path: str, data: bytes) -> Files:
    """Seal a file of a dataset version: its entry in the index, the identities, the index."""
    folder, _, name = path.partition("/")
    index_path = f"{folder}/dataset.json"
    index = _parsed(data if name == "dataset.json" else (world / index_path).read_bytes())
    if not isinstance(index, dict):
        return {path: data}
    if name == "dataset.json":
        if draw.random() < 0.7 and isinstance(index.get("recipe"), dict):
            index["recipe_id"] = _sha256(_canonical(index["recipe"]))
        return {path: _with_digest(index, "index_sha256")}
    for entry in (*index["shards"], *index["files"]):
        if entry["name"] == name:
            entry["bytes"], entry["sha256"] = len(data), _sha256(data)
    if name in _KINDS and draw.random() < 0.5:
        index |= _identities(world / folder, name, data)
    return {path: data, index_path: _with_digest(index, "index_sha256")}


def _identities(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """Return the identities of a version of which one list of samples is changed."""
    texts = {each: (folder / each).read_bytes() for each in _KINDS} | {name: data}
    try:
        samples, bad = (
            [kind.model_validate_json(line) for line in texts[each].splitlines()]
            for each, kind in _KINDS.items()
        )
        found = vars(Identities.of(samples, bad))
    except (ValueError, VocprepError):
        return {}
    return {**found, "quarantined": len(bad)}


def seal_lock(_: random.Random, __: Path, path: str, data: bytes) -> Files:
    """Seal a lock file."""
    value = _parsed(data)
    return {path: _with_digest(value, "lock_sha256") if isinstance(value, dict) else data}


def seal_staged(_: random.Random, world: Path, path: str, data: bytes) -> Files:
    """Seal a file of a staging folder: by its first line, or by the description of a shard."""
    if path.endswith(".json"):
        body = data.partition(b"\n")[2]
        return {path: _sha256(body).encode() + b"\n" + body}
    if path.endswith(".about"):
        _, head, *rest = [*data.split(b"\n", 2), b"", b""][:3]
        return {path: _sealed_head(head, b"".join(rest))}
    about_path = f"{path}.about"
    _, head, lines = (world / about_path).read_bytes().split(b"\n", 2)
    about = json.loads(head)
    about["shard"]["entry"] |= {"bytes": len(data), "sha256": _sha256(data)}
    return {path: data, about_path: _sealed_head(_canonical(about), lines)}


def _sealed_head(head: bytes, lines: bytes) -> bytes:
    """Return a description whose head lists its lines and has its digest, where it is one."""
    about = _parsed(head)
    try:
        end = about["records"]["size"]
        for name, part in (("records", lines[:end]), ("quarantined", lines[end:])):
            about[name] = {"size": len(part), "sha256": _sha256(part)}
        head = _canonical(about)
    except (KeyError, TypeError):
        pass
    return _sha256(head).encode() + b"\n" + head + b"\n" + lines


def seal_run(_: random.Random, world: Path, path: str, data: bytes) -> Files:
    """Seal run.json: weights and checkpoint name the run by its digest."""
    value, folder = _parsed(data), Path(path).parent
    if value is None:
        return {path: data}
    files = {path: data}
    for name in ("model.safetensors", "checkpoint.safetensors"):
        if (world / folder / name).is_file():
            weights = (world / folder / name).read_bytes()
            size = int.from_bytes(weights[:8], "little")
            header = json.loads(weights[8 : 8 + size])
            about = json.loads(header["__metadata__"]["vocprep"])
            about["run_id"] = _sha256(_canonical(value))
            header["__metadata__"]["vocprep"] = _canonical(about).decode()
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            files[f"{folder}/{name}"] = struct.pack("<Q", len(text)) + text + weights[8 + size :]
    return files


def seal_archive(_: random.Random, world: Path, path: str, data: bytes) -> Files:
    """Seal an archive: the manifest publishes its digest."""
    archives = read_archives(world) | {Path(path).name: data}
    return {path: data, "tiny.toml": source_manifest(archives).encode()}


def seal_unpacked(_: random.Random, world: Path, path: str, data: bytes) -> Files:
    """Seal a file of the data dir: the record of its archive lists it."""
    name = path.removeprefix("data/")
    files = {path: data}
    for record in sorted((world / "data/.vocprep/trees").glob("*.gz")):
        lines = [json.loads(line) for line in gzip.decompress(record.read_bytes()).splitlines()]
        for line in lines:
            if line.get("path") == name:
                line |= {"size": len(data), "sha256": _sha256(data)}
                text = "".join(f"{json.dumps(each)}\n" for each in lines)
                files[str(record.relative_to(world))] = gzip.compress(text.encode(), mtime=0)
    return files
