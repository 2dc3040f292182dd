"""Verbs of dataset versions: read, check, compare, build into, reuse, lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders.version_bytes import version_bytes

import vocprep
from fuzz import world
from fuzz.verbs.job import (
    BrokenPromise,
    Job,
    command,
    digests,
    require_same_files,
    require_same_records,
    sound_bytes,
)
from vocprep.cli.build import build_shards
from vocprep.cli.diff import diff
from vocprep.cli.inspect import inspect
from vocprep.cli.verify import verify as verify_command
from vocprep.options import BuildOptions, LoaderOptions, VerifyOptions


def read(version: str, job: Job) -> bool:
    """Open a version and draw all of it, by shards, by batches and by ids."""
    found = digests(version)
    dataset = vocprep.open(version)
    options = LoaderOptions(batch_size=2, mode="streaming", label_maps=True, all_views=True)
    for split in dataset.splits:
        for batch in dataset.loader(
            split, job.draw.choice([options, replace(options, mode="resident")])
        ):
            _ = batch.embeddings.sum(), batch.label_maps
    for sample_entry in dataset.samples[:2]:
        dataset.record(sample_entry.id)
    _ = dataset.label_space
    if not job.sealed:
        require_same_records(job, found, version, "read without an error")
    return True


def check(version: str, level: str, job: Job) -> bool:
    """Verify a version; where it is called good, its files and records must be the sound ones."""
    options = VerifyOptions(level=level, workers=1)
    if level == "recompute":
        options = replace(options, data_dir=Path("data"), datasets=("mat.toml",), device="cpu")
    if not vocprep.verify(version, options).ok:
        return False
    if not job.sealed:
        is_beside = {f"{version}/.lock", f"{version}/.weights.json"}
        require_same_files(job, "verify calls it good", is_beside.__contains__)
    if not job.sealed or level != "files":
        require_same_records(job, digests(version), version, f"verify --level {level} is satisfied")
    return True


def check_lock(version: str, job: Job) -> bool:
    """Verify a version with a lock file, and print what differs."""
    flags = ["--json"] * job.draw.randrange(2)
    return command(verify_command, version, "--lock", f"{version}.lock.json", *flags)


def look(version: str, job: Job) -> bool:
    """Print what a version is, and lock it."""
    flags = ["--json"] * job.draw.randrange(2)
    lock = ["--lock", "new.lock.json"] * job.draw.randrange(2)
    return command(inspect, version, *flags, *lock)


def compare(job: Job) -> bool:
    """Print what differs between the two containers of one version."""
    sides = job.draw.choice([["h5", "tar"], ["tar", "h5"]])
    return command(diff, *sides, *["--json"] * job.draw.randrange(2))


def build_again(version: str, job: Job) -> bool:
    """Build into a damaged version; the result is the sound one."""
    world.build_version(version, version)
    if job.sealed:
        if vocprep.verify(version, VerifyOptions(level="content", workers=1)).ok:
            require_same_records(job, digests(version), version, "built again")
    elif version_bytes(Path(version)) != sound_bytes(job.world, version):
        raise BrokenPromise("built again without an error, but to other bytes")
    return True


def build_on(job: Job) -> bool:
    """Go on with an interrupted build; the result is that of one without an interruption."""
    world.build_version("unfinished", "h5")
    if not job.sealed and version_bytes(Path("unfinished")) != sound_bytes(job.world, "h5"):
        raise BrokenPromise("went on with an interrupted build, but to other bytes")
    return True


def reuse(version: str, job: Job) -> bool:
    """Build with the embeddings of a damaged version; the result is the sound one."""
    world.build_version("out", "h5", options=replace(world.ENGINE, reuse=Path(version)))
    if not job.sealed and version_bytes(Path("out")) != sound_bytes(job.world, "h5"):
        raise BrokenPromise("reused embeddings without an error, but built other bytes")
    return True


def build_locked(version: str, job: Job) -> bool:
    """Build what a lock file pins."""
    options = BuildOptions(device="cpu", workers=1, compiled=False)
    lock = f"{version}.lock.json"
    if job.draw.random() < 0.3:
        arguments = ["--lock", lock, "--out", "out", "--data-dir", "data", "--dry-run", "mat.toml"]
        return command(build_shards, *arguments, "--device", "cpu")
    vocprep.build_locked(lock, out="out", dataset="mat.toml", data_dir="data", options=options)
    return True
