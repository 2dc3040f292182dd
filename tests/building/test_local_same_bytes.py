"""The same recipe and sources give the same bytes, whatever else differs: a test a property."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, make_plan

from vocprep.building.local import build_plan
from vocprep.options import BuildChoices, BuildOptions, Layout, ShardFormat
from vocprep.shards.index import read_index

pytestmark = pytest.mark.slow

CHOICES = BuildChoices(limit_per_split=3, views=("identity", "flip"))

CONTAINERS: tuple[ShardFormat, ...] = ("hdf5", "webdataset")


def build(
    tree: Path, out: Path, container: ShardFormat = "hdf5", options: BuildOptions = ENGINE
) -> dict[str, bytes]:
    layout = Layout(format=container, samples_per_shard=2)
    plan = make_plan(tree, CHOICES, layout)
    build_plan(plan, out, options)
    return version_bytes(out)


@pytest.fixture(scope="module", params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> ShardFormat:
    found: ShardFormat = request.param
    return found


@pytest.fixture(scope="module")
def expected(
    container: ShardFormat, sample_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    found = build(sample_tree, tmp_path_factory.mktemp("expected") / "out", container)
    assert len(found) == 8
    return found


@pytest.mark.parametrize("workers", [2, 7])
def test_workers(
    workers: int,
    container: ShardFormat,
    expected: dict[str, bytes],
    sample_tree: Path,
    tmp_path: Path,
) -> None:
    options = BuildOptions(device="cpu", workers=workers)
    assert build(sample_tree, tmp_path / "out", container, options) == expected


@pytest.mark.parametrize("size", [2, 50, 1000])
def test_size_of_the_groups_that_are_embedded_together(
    size: int,
    container: ShardFormat,
    expected: dict[str, bytes],
    sample_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vocprep.building.pipeline.GROUP_PATCHES", size)
    assert build(sample_tree, tmp_path / "out", container) == expected


@pytest.mark.parametrize("size", [2, 33, 500])
def test_size_of_the_backbones_chunks(
    size: int,
    container: ShardFormat,
    expected: dict[str, bytes],
    sample_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vocprep.features.embed.CHUNK", size)
    assert build(sample_tree, tmp_path / "out", container) == expected


def test_format_that_is_written_first(
    container: ShardFormat, expected: dict[str, bytes], sample_tree: Path, tmp_path: Path
) -> None:
    """Both in one process, the other one before."""
    other: ShardFormat = "webdataset" if container == "hdf5" else "hdf5"
    build(sample_tree, tmp_path / "other", other)
    assert build(sample_tree, tmp_path / "out", container) == expected
    ids = [read_index(tmp_path / name).content_id for name in ("other", "out")]
    assert ids[0] == ids[1]


def test_folders_of_data_and_output(
    container: ShardFormat, expected: dict[str, bytes], sample_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "elsewhere with spaces"
    shutil.copytree(sample_tree, tree)
    assert build(tree, tmp_path / "a" / "b" / "ö", container) == expected


def test_relative_path_of_the_data(
    container: ShardFormat,
    expected: dict[str, bytes],
    sample_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sample_tree)
    assert build(Path(), tmp_path / "out", container) == expected


SCRIPT = """
import os, sys
os.umask(int(sys.argv[1], 8))
from vocprep.cli import main
for container in ("hdf5", "webdataset"):
    words = ["--format", container, "--out", os.path.join(sys.argv[2], container)]
    main([*sys.argv[3:], *words], prog_name="vocprep", standalone_mode=False)
"""
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    "time zone": {"TZ": "Asia/Tokyo"},
    "hash seed": {"PYTHONHASHSEED": "77"},
    "user name": {"USER": "somebody", "LOGNAME": "somebody", "HOME": "/nonexistent"},
    "threads": {"OMP_NUM_THREADS": "2"},
    "clock": {"SOURCE_DATE_EPOCH": "1"},
    "umask": {},
}


def assert_same_in(names: Sequence[str], tree: Path, folder: Path) -> None:
    """Build both containers in one process that differs so, and compare them with this one's."""
    variables = {key: value for name in names for key, value in ENVIRONMENTS[name].items()}
    words = ["build-shards", "pascal-context", "--data-dir", tree, "--limit-per-split", "3"]
    words += ["--weights", "random:0", "--samples-per-shard", "2", "--views", "flip"]
    words += ["--workers", "3", "--device", "cpu"]
    umask = "077" if "umask" in names else "022"
    subprocess.run(
        [sys.executable, "-c", SCRIPT, umask, folder / "apart", *words],
        check=True,
        capture_output=True,
        env={**os.environ, **variables},
    )
    for container in CONTAINERS:
        expected = build(tree, folder / "here" / container, container)
        assert version_bytes(folder / "apart" / container) == expected, container


def test_environment(sample_tree: Path, tmp_path: Path) -> None:
    """All that differs between machines and users differs at once: one process, not seven."""
    assert_same_in([*ENVIRONMENTS], sample_tree, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_part_of_the_environment(name: str, sample_tree: Path, tmp_path: Path) -> None:
    assert_same_in([name], sample_tree, tmp_path)


def test_bad_samples_are_described_the_same_wherever_the_data_is(
    sample_tree: Path, tmp_path: Path
) -> None:
    from vocprep.options import MaxFailures  # noqa: PLC0415  # of this test alone

    options = BuildOptions(device="cpu", workers=1, max_failures=MaxFailures(percent=50))
    found = []
    for name in ("one", "other place"):
        tree = tmp_path / name / "tree"
        shutil.copytree(sample_tree, tree)
        mats = sorted((tree / "trainval").iterdir())
        mats[0].write_bytes(mats[0].read_bytes()[:100])
        jpegs = sorted((tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())
        jpegs[1].write_bytes(b"no picture")
        found.append(build(tree, tmp_path / name / "out", "hdf5", options))
    assert found[0] == found[1]
    assert found[0]["quarantine.jsonl"].count(b"\n") == 2
    assert str(tmp_path).encode() not in found[0]["quarantine.jsonl"]
