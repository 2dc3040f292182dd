"""Assembling a dataset version of finished shards: its index, and the files beside its shards."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from vocprep.building.description.card import CARD_FILE, dataset_card
from vocprep.building.description.croissant import CROISSANT_FILE, croissant
from vocprep.building.finish import (
    FinishedShard,
    ShardSamples,
    dataset_statistics,
    line_order,
)
from vocprep.building.plan import BuildKey, versions
from vocprep.errors import UsageError
from vocprep.features.components import COMPONENTS_FILE
from vocprep.files.ids import record_order
from vocprep.files.writing import DigestedFile, json_bytes
from vocprep.shards.identity import IdentityTrees
from vocprep.shards.index import DatasetIndex, FileEntry, index_version
from vocprep.shards.samples import (
    LABELS_FILE,
    QUARANTINE_FILE,
    SAMPLES_FILE,
    Sample,
    SampleEntry,
    sample_order,
)
from vocprep.shards.version import Version

SIDE_FILES = (
    *(SAMPLES_FILE, LABELS_FILE, QUARANTINE_FILE, CARD_FILE, CROISSANT_FILE),
    COMPONENTS_FILE,
)
"""Files of a version beside its shards and dataset.json, in the order in which it lists them."""
ReadSamples = Callable[[str, FinishedShard], ShardSamples]
"""A finished shard with its name → its samples; ShardError when they are gone or damaged."""


def assemble(
    key: BuildKey,
    shards: Mapping[str, FinishedShard],
    read_samples: ReadSamples,
    folder: Path,
    stage_seconds: Mapping[str, float],
) -> Version:
    """Return the version of finished shards, given by name in the order of dataset.json.

    Writes the files beside its shards and dataset.json into ``folder``. Of the samples, those of
    one shard per split are in memory, with records of ascending ids.
    """
    plan = key.plan
    files, identities = _write_samples(shards, read_samples, folder)
    index = DatasetIndex(
        format_version=index_version(plan.recipe),
        recipe_id=plan.recipe.recipe_id,
        **identities,
        container=plan.layout.format,
        samples_per_shard=plan.layout.samples_per_shard,
        recipe=plan.recipe,
        numerics_class=key.numerics_class,
        weights=plan.weights_label,
        shards=tuple(shard.entry for shard in shards.values() if shard.entry is not None),
        files=(),
        quarantined=sum(shard.quarantined for shard in shards.values()),
        statistics=dataset_statistics(shards.values(), plan.label_space.void),
        versions=versions(),
    )
    labels = json_bytes(plan.label_space.to_json())
    files[LABELS_FILE] = _write(folder / LABELS_FILE, [labels])
    files[CARD_FILE] = _write(folder / CARD_FILE, [dataset_card(index, plan).encode()])
    if plan.components is not None:
        data = plan.components.to_bytes()
        files[COMPONENTS_FILE] = _write(folder / COMPONENTS_FILE, [data])
    description = croissant(index, files[SAMPLES_FILE], plan)
    files[CROISSANT_FILE] = _write(folder / CROISSANT_FILE, description)
    entries = tuple(files[name] for name in SIDE_FILES if name in files)
    # How long it took is the one thing in a version that no two builds share.
    statistics = {**index.statistics, "seconds": dict(stage_seconds)}
    index = index.model_copy(update={"files": entries, "statistics": statistics})
    return Version.of(index.sealed(), folder)


def _write_samples(
    shards: Mapping[str, FinishedShard], read_samples: ReadSamples, folder: Path
) -> tuple[dict[str, FileEntry], dict[str, str]]:
    """Write samples.jsonl and quarantine.jsonl in one pass; return their entries, and identities.

    UsageError where two records have one id.
    """
    trees, last = IdentityTrees(), ""
    with ExitStack() as stack:
        records = stack.enter_context(DigestedFile.open(folder / SAMPLES_FILE))
        quarantined = records
        if any(shard.quarantined for shard in shards.values()):
            quarantined = stack.enter_context(DigestedFile.open(folder / QUARANTINE_FILE))
        for sample, line in _in_id_order(shards, read_samples):
            order = sample_order(sample)
            if order <= last:
                raise UsageError(
                    f"record {sample.id}: is given twice; expected records of different ids"
                )
            last = order
            trees.add(sample)
            (records if isinstance(sample, SampleEntry) else quarantined).write(line)
    return {file.path.name: _entry(file) for file in (records, quarantined)}, trees.roots()


def _in_id_order(
    shards: Mapping[str, FinishedShard], read_samples: ReadSamples
) -> Iterator[tuple[Sample, bytes]]:
    """Yield the samples of all shards in the order of their ids, each with its line.

    Shards whose ids follow each other are read one after the other: those of a split, where a
    build cut it.
    """
    runs: list[list[str]] = []
    last_id = ""
    for name, shard in shards.items():
        if not runs or record_order(shard.first_id) <= record_order(last_id):
            runs.append([])
        runs[-1].append(name)
        last_id = shard.last_id

    def read(run: list[str]) -> Iterator[tuple[Sample, bytes]]:
        for name in run:
            yield from read_samples(name, shards[name]).lines()

    return heapq.merge(*map(read, runs), key=line_order)


def _write(path: Path, pieces: Iterable[bytes]) -> FileEntry:
    """Write a file piece by piece and return its entry."""
    with DigestedFile.open(path) as file:
        for piece in pieces:
            file.write(piece)
    return _entry(file)


def _entry(file: DigestedFile) -> FileEntry:
    return FileEntry(name=file.path.name, bytes=file.bytes, sha256=file.sha256)
