"""Decide what a download has to do, file by file, before anything is done.

``survey`` looks at the disk, ``steps_for`` decides and touches nothing; ``download`` acts.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences
from vocprep.data_dir.receipts import Receipt, is_unpacked, read_receipt, read_unpacked
from vocprep.data_dir.source_digests import read_source_digests
from vocprep.errors import ManifestError, UsageError
from vocprep.manifests import (
    SourceFile,
    SourceManifest,
    find_manifest,
    load_dataset,
    load_source,
    manifest_names,
)

Step = Literal["verify", "fetch", "unpack"]


@dataclass(frozen=True, kw_only=True)
class OnDisk:
    """What the disk holds of one file."""

    present: bool = False
    """There is a file under the final name."""
    verified: bool = False
    """It has not changed since its digests were seen to agree with what is expected now."""
    unpacked: bool = False
    """Everything that it unpacks to is there."""
    part_bytes: int = 0
    """Bytes of an unfinished download."""
    receipt: Receipt | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file and what has to happen to it; no steps when all is well."""

    source: str
    file: SourceFile
    expected: ExpectedDigests
    on_disk: OnDisk
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class ListedSource:
    """A shipped source, for people to choose from."""

    name: str
    title: str
    terms: str
    size: str
    """Bytes of all files for people: ``~`` where a size is doubtful, ``>`` where one is unknown."""
    state: str
    """``complete``, ``absent``, ``N of M files``, with the bytes of unfinished downloads."""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


def list_sources(data_dir: Path) -> list[ListedSource]:
    """Return every shipped source with its state in a data dir."""
    lock = read_source_digests(data_dir)
    listed = []
    for name in manifest_names("sources"):
        source = load_source(name)
        planned = plan_download(data_dir, [source], lock, extract=True)
        listed.append(
            ListedSource(
                name=name,
                title=source.title,
                terms=source.terms,
                size=_size_in_words(source),
                state=state_of(planned),
            )
        )
    return listed


def _size_in_words(source: SourceManifest) -> str:
    sizes = [file.bytes or file.about_bytes for file in source.files]
    known = sum(size for size in sizes if size)
    if None in sizes:
        return f">{known:,}" if known else "unknown"
    return f"{known:,}" if all(file.bytes for file in source.files) else f"~{known:,}"


def state_of(planned: Sequence[PlannedFile]) -> str:
    """Say in words how much of a source is there."""
    done = sum(not item.steps for item in planned)
    part = sum(item.on_disk.part_bytes for item in planned)
    here = sum(item.on_disk.present for item in planned)
    if done == len(planned):
        return "complete"
    words = f"{max(done, here)} of {len(planned)} files" if done or here else "absent"
    return f"{words}, {part:,} bytes of more" if part else words


def resolve_sources(names: Sequence[str]) -> list[SourceManifest]:
    """Return the sources that names stand for, each once, in order.

    A name is a dataset (all its sources) or a source, shipped or the path of a ``.toml``; what is
    both is the dataset. Raises UsageError or ManifestError.
    """
    found: dict[str, SourceManifest] = {}
    for name in names:
        for source in _sources_of(name):
            found.setdefault(source.name, source)
    return list(found.values())


def plan_download(
    data_dir: Path, sources: Sequence[SourceManifest], lock: Mapping[str, str], *, extract: bool
) -> list[PlannedFile]:
    """Return every file of the sources with the steps that it needs."""
    return [
        plan_file(data_dir, source.name, file, lock, extract=extract)
        for source in sources
        for file in source.files
    ]


def plan_file(
    data_dir: Path, source: str, file: SourceFile, lock: Mapping[str, str], *, extract: bool
) -> PlannedFile:
    """Look at the disk and decide for one file."""
    expected = ExpectedDigests.of(file, lock.get(file.path))
    on_disk = survey(data_dir, file, expected)
    return PlannedFile(
        source=source,
        file=file,
        expected=expected,
        on_disk=on_disk,
        steps=steps_for(on_disk, unpacks=extract and file.unpack is not None),
    )


def steps_for(on_disk: OnDisk, *, unpacks: bool) -> tuple[Step, ...]:
    """Decide what has to be done, from what the disk holds alone.

    An archive that was unpacked and then deleted to save space is not fetched again.
    """
    steps: list[Step] = []
    missing_tree = unpacks and not on_disk.unpacked
    if on_disk.present and not on_disk.verified:
        steps.append("verify")
    if not on_disk.present and (missing_tree or not unpacks):
        steps.append("fetch")
    if missing_tree:
        steps.append("unpack")
    return tuple(steps)


def survey(data_dir: Path, file: SourceFile, expected: ExpectedDigests) -> OnDisk:
    """Look at what the disk holds of a file. Reads no byte of the file itself."""
    path = data_dir / file.path
    receipt = read_receipt(data_dir, file.path)
    return OnDisk(
        present=path.is_file(),
        verified=receipt is not None
        and receipt.matches_disk(data_dir)
        and agrees(receipt, file, expected),
        unpacked=_is_unpacked(data_dir, file, expected),
        part_bytes=_part_bytes(path),
        receipt=receipt,
    )


def agrees(receipt: Receipt, file: SourceFile, expected: ExpectedDigests) -> bool:
    """Tell whether a receipt answers everything that is expected now.

    One that was written without a look at the tensors says nothing about them.
    """
    if any(name not in receipt.digests for name in expected.algorithms):
        return False
    found = FileDigests(size=receipt.size, digests=receipt.digests)
    tensors = receipt.tensors_sha256 in (None, file.tensors_sha256)
    return tensors and not differences(expected, found)


def _is_unpacked(data_dir: Path, file: SourceFile, expected: ExpectedDigests) -> bool:
    if file.unpack is None:
        return False
    tree = read_unpacked(data_dir, file.path)
    if tree is None:
        return False
    wanted = expected.sha256 or expected.recorded_sha256
    return wanted in (None, tree.archive_sha256) and is_unpacked(data_dir, tree)


def _part_bytes(path: Path) -> int:
    """Return how many bytes an unfinished download has, 0 where there is none."""
    try:
        done = json.loads(path.with_name(path.name + ".part.json").read_bytes())["done"]
        return sum(int(end) - int(start) for start, end in done)
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _sources_of(name: str) -> list[SourceManifest]:
    """Return the sources of one name."""
    if name in manifest_names("datasets") or (name.endswith(".toml") and not _lists_files(name)):
        dataset = load_dataset(name)
        if not dataset.sources:
            raise UsageError(f"dataset {name} names no sources: there is nothing to download")
        folder = Path(name).parent
        return [
            load_source(str(folder / source) if source.endswith(".toml") else source)
            for source in dataset.sources
        ]
    if name.endswith(".toml") or name in manifest_names("sources"):
        return [load_source(name)]
    known = sorted({*manifest_names("datasets"), *manifest_names("sources")})
    raise UsageError(
        f"{name!r} is neither a dataset nor a source: expected one of {', '.join(known)}, or the "
        "path of a .toml file"
    )


def _lists_files(path: str) -> bool:
    """Tell a source's TOML from a dataset's."""
    try:
        return "files" in tomllib.loads(find_manifest("sources", path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as TOML: {error}") from error
