"""Verification of files finds every change: of a bit, of a file's place, of what lists them."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders.progress import RecordedProgress
from builders.versions import Built

from vocprep.checks.version_files import verify_version_files
from vocprep.shards.index import describe_file, read_index, write_index
from vocprep.shards.samples import SampleEntry, jsonl_bytes
from vocprep.shards.version import Version

pytestmark = pytest.mark.slow

FLIPS = 60
"""Bits that are flipped in each kind of file."""


@pytest.fixture(params=["quarantined", "quarantined_tar"])
def version(request: pytest.FixtureRequest) -> Path:
    """A version with a quarantined image, so that every kind of file is there."""
    built: Built = request.getfixturevalue(request.param)
    return built.path


@pytest.fixture
def copied(version: Path, tmp_path: Path) -> Path:
    shutil.copytree(version, tmp_path / "copied")
    return tmp_path / "copied"


def kinds(version: Path) -> list[str]:
    """One file of each kind."""
    shard = read_index(version).shards[0].name
    return [
        *("dataset.json", "samples.jsonl", "labels.json", "quarantine.jsonl", "README.md"),
        "croissant.json",
        shard,
    ]


def found_in(path: Path) -> set[str]:
    report = verify_version_files(path, workers=1)
    assert report.level == "files"
    return {difference.path for difference in report.differences}


def test_whole_version_is_clean(version: Path) -> None:
    progress = RecordedProgress()
    report = verify_version_files(version, 2, progress)
    assert report.ok
    index = read_index(version)
    entries = [*index.shards, *index.files]
    assert report.matching == len(entries) + 1
    assert progress.shown == progress.begun[0][1] == sum(entry.bytes for entry in entries)
    assert progress.threads == {threading.get_ident()}


@pytest.mark.slow
def test_every_flipped_bit_of_every_kind_of_file_is_found(copied: Path) -> None:
    draw = random.Random(5)
    assert {path.name for path in copied.iterdir()} >= {*kinds(copied)}
    missed = []
    for name in kinds(copied):
        whole = (copied / name).read_bytes()
        for _ in range(FLIPS):
            damaged = bytearray(whole)
            bit = draw.randrange(8 * len(damaged))
            damaged[bit // 8] ^= 1 << bit % 8
            (copied / name).write_bytes(damaged)
            if name not in found_in(copied):
                missed.append((name, bit))
        (copied / name).write_bytes(whole)
    assert missed == []
    assert found_in(copied) == set()


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_truncated_and_lengthened_files_are_found(cut: int, copied: Path) -> None:
    for name in kinds(copied):
        whole = (copied / name).read_bytes()
        for data in (whole[:cut], whole[: len(whole) - 1], whole + b"\n"):
            (copied / name).write_bytes(data)
            assert name in found_in(copied)
        (copied / name).write_bytes(whole)


def test_missing_files_are_found_and_called_so(copied: Path) -> None:
    for name in kinds(copied)[1:]:
        whole = (copied / name).read_bytes()
        (copied / name).unlink()
        report = verify_version_files(copied, 1)
        assert [(item.path, item.state) for item in report.differences] == [(name, "missing")]
        (copied / name).write_bytes(whole)
    (copied / "dataset.json").unlink()
    assert found_in(copied) == {"dataset.json"}


def test_swapped_shards_are_found(copied: Path) -> None:
    one, other = (copied / shard.name for shard in read_index(copied).shards[:2])
    one.rename(copied / "aside")
    other.rename(one)
    (copied / "aside").rename(other)
    assert found_in(copied) == {one.name, other.name}


@pytest.mark.parametrize("name", ["notes.txt", "train-00009-of-00010.h5", "folder"])
def test_extra_files_are_found_and_called_so(name: str, copied: Path) -> None:
    if name == "folder":
        (copied / name).mkdir()
    else:
        (copied / name).write_text("x")
    report = verify_version_files(copied, 1)
    assert [(item.path, item.state) for item in report.differences] == [(name, "extra")]


@pytest.mark.parametrize("name", [".DS_Store", "._dataset.json", "README.md~"])
def test_clutter_of_systems_and_editors_is_no_difference(name: str, copied: Path) -> None:
    (copied / name).write_text("x")
    assert verify_version_files(copied, 1).ok


def test_unfinished_work_beside_a_version_is_no_difference(copied: Path) -> None:
    (copied / ".tmp-build").mkdir()
    assert verify_version_files(copied, 1).ok


# What digests alone do not show: a consistent lie


def reseal(path: Path, samples: Sequence[SampleEntry]) -> None:
    """Make the index agree with other samples, as a faulty writer would."""
    data = jsonl_bytes(samples)
    (path / "samples.jsonl").write_bytes(data)
    index = read_index(path)
    files = tuple(
        describe_file(entry.name, data) if entry.name == "samples.jsonl" else entry
        for entry in index.files
    )
    write_index(path, index.model_copy(update={"files": files}).sealed())


@pytest.mark.parametrize(
    "change",
    [
        {"record_sha256": "00" * 32},
        {"targets_sha256": "00" * 32},
        {"image_sha256": "00" * 32},
        {"id": "2010_999999"},
        {"split": "other"},
        {"row": 7},
        {"shard": "train-00008-of-00009.h5"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_samples_that_do_not_fit_the_index_are_found(
    change: dict[str, object], copied: Path
) -> None:
    samples = Version.read(copied).samples
    reseal(copied, [samples[0].model_copy(update=change), *samples[1:]])
    assert found_in(copied) & {"samples.jsonl", "dataset.json"}


def test_sample_that_is_left_out_of_the_list_is_found(copied: Path) -> None:
    reseal(copied, Version.read(copied).samples[1:])
    assert found_in(copied) & {"samples.jsonl", "dataset.json"}
