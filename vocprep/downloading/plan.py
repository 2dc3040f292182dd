"""Decide what a download has to do, file by file, before anything is done.

``inspect_file`` reads what the disk holds, ``steps_for`` computes the steps; neither changes
anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences
from vocprep.data_dir.library_weights import is_library_model, library_source
from vocprep.data_dir.place import default_data_dir
from vocprep.data_dir.receipts import Receipt, is_unpacked, read_receipt, read_unpacked
from vocprep.data_dir.source_digests import read_source_digests
from vocprep.downloading.hub import LocatedModel
from vocprep.downloading.partial import unfinished_bytes
from vocprep.errors import UsageError
from vocprep.manifests import (
    SourceFile,
    SourceManifest,
    find_manifest,
    lists_files,
    load_dataset,
    load_source,
    manifest_names,
)
from vocprep.storage.places import local_path

Step = Literal["verify", "fetch", "unpack"]
SourceName = str | Path | SourceManifest
"""A dataset or a source: its shipped name, the path of its manifest, or a loaded source."""


@dataclass(frozen=True, kw_only=True)
class FileOnDisk:
    """What the disk holds of one file."""

    present: bool = False
    """There is a file under the final name."""
    verified: bool = False
    """It has not changed since its digests agreed with what is expected now."""
    unpacked: bool = False
    """Everything that it unpacks to is there."""
    part_bytes: int = 0
    """Bytes of an unfinished download."""
    receipt: Receipt | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file and the steps that complete it: none when all is there."""

    source: str
    file: SourceFile
    expected: ExpectedDigests
    on_disk: FileOnDisk
    steps: tuple[Step, ...]
    model: LocatedModel | None = None
    """Of weights of a library's model that are not recorded yet."""


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


def list_sources(data_dir: str | Path | None = None) -> list[ListedSource]:
    """Return every shipped source with its state in a data dir.

    >>> [source.size for source in list_sources("/nowhere") if source.name == "voc2012"]
    ['1,999,639,040']
    """
    folder = default_data_dir() if data_dir is None else local_path(data_dir)
    recorded = read_source_digests(folder)
    listed = []
    for name in manifest_names("sources"):
        source = load_source(name)
        planned = plan_download(folder, [source], recorded, extract=True)
        listed.append(
            ListedSource(
                name=name,
                title=source.title,
                terms=source.terms,
                size=_size_in_words(source),
                state=state_in_words(planned),
            )
        )
    return listed


def _size_in_words(source: SourceManifest) -> str:
    sizes = [file.bytes or file.about_bytes for file in source.files]
    known = sum(size for size in sizes if size)
    if None in sizes:
        return f">{known:,}" if known else "unknown"
    return f"{known:,}" if all(file.bytes for file in source.files) else f"~{known:,}"


def state_in_words(planned: Sequence[PlannedFile]) -> str:
    """Return for people how much of a source is there."""
    done = sum(not item.steps for item in planned)
    part = sum(item.on_disk.part_bytes for item in planned)
    here = sum(item.on_disk.present for item in planned)
    if done == len(planned):
        return "complete"
    words = f"{max(done, here)} of {len(planned)} files" if done or here else "absent"
    return f"{words}, {part:,} bytes of more" if part else words


def resolve_sources(names: SourceName | Sequence[SourceName]) -> list[SourceManifest]:
    """Return the sources that names stand for, each once, in order.

    What is both a dataset and a source is the dataset. Raises UsageError or ManifestError.

    >>> [source.name for source in resolve_sources("pascal-context")]
    ['voc2010', 'pascal-context', 'resnet32-cifar100']
    """
    named = [names] if isinstance(names, str | Path | SourceManifest) else names
    found: dict[str, SourceManifest] = {}
    for name in named:
        for source in [name] if isinstance(name, SourceManifest) else _sources_of(str(name)):
            if found.setdefault(source.name, source) != source:
                raise UsageError(
                    f"two different sources are called {source.name}: expected one manifest of "
                    "that name; rename one of the files"
                )
    return list(found.values())


def plan_download(
    data_dir: Path,
    sources: Sequence[SourceManifest],
    recorded: Mapping[str, str],
    *,
    extract: bool,
) -> list[PlannedFile]:
    """Return every file of the sources with its steps; ``recorded`` are the source digests."""
    return [
        plan_file(data_dir, source.name, file, recorded, extract=extract)
        for source in sources
        for file in source.files
    ]


def plan_file(
    data_dir: Path, source: str, file: SourceFile, recorded: Mapping[str, str], *, extract: bool
) -> PlannedFile:
    """Return the plan of one file."""
    expected = ExpectedDigests.of(file, recorded.get(file.path))
    on_disk = inspect_file(data_dir, file, expected)
    return PlannedFile(
        source=source,
        file=file,
        expected=expected,
        on_disk=on_disk,
        steps=steps_for(on_disk, unpacks=extract and file.unpack is not None),
    )


def steps_for(on_disk: FileOnDisk, *, unpacks: bool) -> tuple[Step, ...]:
    """Return the steps that a file needs, from what the disk holds alone.

    An archive that was unpacked and then deleted to save space is not fetched again.
    """
    steps: list[Step] = []
    must_unpack = unpacks and not on_disk.unpacked
    if on_disk.present and not on_disk.verified:
        steps.append("verify")
    if not on_disk.present and (must_unpack or not unpacks):
        steps.append("fetch")
    if must_unpack:
        steps.append("unpack")
    return tuple(steps)


def inspect_file(data_dir: Path, file: SourceFile, expected: ExpectedDigests) -> FileOnDisk:
    """Return what the disk holds of a file. Reads no byte of the file itself."""
    path = data_dir / file.path
    receipt = read_receipt(data_dir, file.path)
    return FileOnDisk(
        present=path.is_file(),
        verified=receipt is not None
        and receipt.matches_disk(data_dir)
        and _receipt_proves(receipt, file, expected),
        unpacked=_is_unpacked(data_dir, file, expected),
        part_bytes=unfinished_bytes(path),
        receipt=receipt,
    )


def _receipt_proves(receipt: Receipt, file: SourceFile, expected: ExpectedDigests) -> bool:
    """Return whether a receipt holds every digest that is expected now, and each agrees.

    Receipts of versions that did not digest tensors hold no tensor digest.
    """
    if any(name not in receipt.digests for name in expected.algorithms):
        return False
    found = FileDigests(size=receipt.size, digests=receipt.digests)
    tensors_agree = receipt.tensors_sha256 in (None, file.tensors_sha256)
    return tensors_agree and not differences(expected, found)


def _is_unpacked(data_dir: Path, file: SourceFile, expected: ExpectedDigests) -> bool:
    if file.unpack is None:
        return False
    unpacked = read_unpacked(data_dir, file.path)
    if unpacked is None:
        return False
    known = expected.sha256 or expected.recorded_sha256
    return known in (None, unpacked.archive_sha256) and is_unpacked(data_dir, unpacked)


def _sources_of(name: str) -> list[SourceManifest]:
    """Return the sources of one name."""
    if name in manifest_names("datasets") or (
        name.endswith(".toml") and not lists_files(find_manifest("sources", name))
    ):
        dataset = load_dataset(name)
        if not dataset.sources:
            raise UsageError(f"dataset {name} names no sources: there is nothing to download")
        return [load_source(source) for source in dataset.sources]
    if name.endswith(".toml") or name in manifest_names("sources"):
        return [load_source(name)]
    if is_library_model(name):
        return [library_source(name)]
    known = sorted({*manifest_names("datasets"), *manifest_names("sources")})
    raise UsageError(
        f"{name!r} is neither a dataset nor a source: expected one of {', '.join(known)}, "
        "timm:NAME, torchvision:NAME, or the path of a .toml file"
    )
