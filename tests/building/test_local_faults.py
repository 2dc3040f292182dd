"""Whatever goes wrong in a build: a clear error, nothing lost, and the next run goes on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders.version_bytes import version_bytes
from builders.versions import JPEGS, TWO_PER_SHARD, make_plan
from filelock import FileLock

from vocprep.building.local import build_plan
from vocprep.errors import DataError, FailureBudgetError, UsageError
from vocprep.options import BuildOptions, MaxFailures
from vocprep.shards.index import read_index
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

OPTIONS = BuildOptions(device="cpu", workers=2)


def allowing(text: str) -> BuildOptions:
    return BuildOptions(device="cpu", workers=2, max_failures=MaxFailures.parse(text))


@pytest.fixture(scope="module")
def expected(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)
    return version_bytes(out)


def words(tree: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "vocprep", "build-shards", "pascal-context", "--data-dir"),
        *(str(tree), "--weights", "random:0", "--samples-per-shard", "2", "--device", "cpu"),
        *("--out", str(out)),
    ]


# The disk


def test_disk_that_is_full_stops_the_build_and_the_next_run_goes_on(
    sample_tree: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk: the system refuses to write on."""
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        words(sample_tree, out), preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "File too large; make room and run the same command again" in done.stderr
    assert ".h5" in done.stderr
    assert not (out / "dataset.json").exists()
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)
    assert version_bytes(out) == expected


@pytest.mark.parametrize("number", [28, 122], ids=["disk full", "quota"])
@pytest.mark.parametrize("written", [0, 3])
def test_write_that_fails_keeps_what_was_finished(
    number: int,
    written: int,
    sample_tree: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    fsync = os.fsync
    left = iter(range(4 * written))  # a file and its folder, a shard and its description

    def fail(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(number, os.strerror(number), "a shard")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)
    assert not (out / "dataset.json").exists()
    assert not list(out.glob("*.h5"))
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)
    assert version_bytes(out) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(sample_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"cannot be written to: .* denied; make it writable, or"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)


def test_folder_on_a_read_only_disk_is_refused(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match="Read-only file system; make it writable"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "out", OPTIONS)


def test_second_builder_is_refused_at_once(sample_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(UsageError, match="another build"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, OPTIONS)
    assert {path.name for path in out.iterdir()} == {".lock"}


# The sources


def test_source_that_vanishes_is_named_and_the_next_run_goes_on(
    tree: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    plan = make_plan(tree, layout=TWO_PER_SHARD)
    victim = plan.samples[-1].image_path
    data = victim.read_bytes()
    victim.unlink()
    with pytest.raises(FailureBudgetError) as caught:
        build_plan(plan, out, OPTIONS)
    assert str(victim) in str(caught.value)
    assert "cannot be read" in str(caught.value)
    victim.write_bytes(data)
    build_plan(plan, out, OPTIONS)
    assert version_bytes(out) == expected


def cut_picture(tree: Path, number: int) -> str:
    path = sorted((tree / JPEGS).iterdir())[number]
    path.write_bytes(path.read_bytes()[:900])
    return path.stem


def cut_labels(tree: Path, number: int) -> str:
    path = sorted((tree / "trainval").iterdir())[number]
    path.write_bytes(path.read_bytes()[:200])
    return path.stem


def turned_labels(tree: Path, number: int) -> str:
    """The label map of another picture, of another size."""
    paths = sorted((tree / "trainval").iterdir())
    size = paths[number].stat().st_size
    other = next(path for path in paths if path.stat().st_size != size)
    shutil.copy(other, paths[number])
    return paths[number].stem


def test_bad_samples_are_listed_with_stage_file_and_reason_and_the_build_goes_on(
    tree: Path, tmp_path: Path
) -> None:
    picture, labels = cut_picture(tree, 0), cut_labels(tree, 3)
    index = build_plan(make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", allowing("2")).index
    dataset = ShardDataset.open(tmp_path / "out")
    assert index.quarantined == len(dataset.quarantined) == 2
    by_id = {bad.id: bad for bad in dataset.quarantined}
    assert by_id[picture].stage == by_id[labels].stage == "decode"
    assert by_id[picture].file == f"{JPEGS}/{picture}.jpg"
    assert by_id[labels].file == f"trainval/{labels}.mat"
    assert "does not decode" in by_id[picture].reason
    assert all(bad.image_sha256 and bad.label_sha256 for bad in by_id.values())
    assert {sample.id for sample in dataset.samples}.isdisjoint(by_id)
    assert len(dataset.samples) == 10


def test_quarantined_samples_are_part_of_the_content(
    tree: Path, sample_tree: Path, tmp_path: Path
) -> None:
    cut_picture(tree, 0)
    with_bad = build_plan(
        make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "bad", allowing("1")
    ).index
    whole = build_plan(
        make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "whole", OPTIONS
    ).index
    assert with_bad.recipe_id == whole.recipe_id
    assert with_bad.content_id != whole.content_id


@pytest.mark.parametrize(("text", "bad"), [("0", 1), ("1", 2), ("10%", 2), ("8%", 1)])
def test_more_failures_than_allowed_stop_the_build(
    text: str, bad: int, tree: Path, tmp_path: Path
) -> None:
    names = [cut_picture(tree, number) for number in range(bad)]
    with pytest.raises(FailureBudgetError) as caught:
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", allowing(text))
    assert caught.value.exit_code == 5
    assert f"--max-failures {text}" in str(caught.value)
    assert any(name in str(caught.value) for name in names)
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize(("text", "bad"), [("2", 2), ("17%", 2), ("100%", 3)])
def test_as_many_failures_as_allowed_do_not(
    text: str, bad: int, tree: Path, tmp_path: Path
) -> None:
    for number in range(bad):
        cut_picture(tree, number)
    assert (
        build_plan(
            make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", allowing(text)
        ).index.quarantined
        == bad
    )


def test_shard_without_a_good_sample_has_no_file(tree: Path, tmp_path: Path) -> None:
    plan = make_plan(tree, layout=TWO_PER_SHARD)
    for sample in plan.shards[0].samples:
        sample.image_path.write_bytes(b"no picture")
    index = build_plan(plan, tmp_path / "out", allowing("2")).index
    names = [shard.name for shard in plan.shards]
    assert [shard.name for shard in index.shards] == names[1:]
    assert not (tmp_path / "out" / names[0]).exists()
    assert build_plan(plan, tmp_path / "out", allowing("2")).index == index


def test_mended_sample_comes_back(
    tree: Path, sample_tree: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    name = cut_picture(tree, 2)
    out = tmp_path / "out"
    build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, allowing("1"))
    with pytest.raises(FailureBudgetError):  # the one that is there counts
        build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, OPTIONS)
    shutil.copy(sample_tree / JPEGS / f"{name}.jpg", tree / JPEGS / f"{name}.jpg")
    build_plan(make_plan(tree, layout=TWO_PER_SHARD), out, OPTIONS)
    assert version_bytes(out) == expected


def test_label_map_of_another_size_is_quarantined(tree: Path, tmp_path: Path) -> None:
    name = turned_labels(tree, 4)
    build_plan(make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", allowing("1"))
    (bad,) = ShardDataset.open(tmp_path / "out").quarantined
    assert (bad.id, bad.stage) == (name, "decode")
    assert "expected" in bad.reason


# The machine


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fail where a block hangs."""
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), 2))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize(
    "where",
    [
        "vocprep.building.stages.targets_with_areas",
        "vocprep.features.embed.Embedder._forward",
        "vocprep.building.pipeline.finish_shard",
    ],
)
def test_worker_that_fails_ends_the_build_and_does_not_hang_it(
    where: str,
    sample_tree: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("as when the machine has no more")

    before = threading.active_count()
    with monkeypatch.context() as patched, deadline(60):
        patched.setattr(where, fail)
        with pytest.raises(MemoryError):
            build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "out", OPTIONS)
        assert threading.active_count() <= before + 1  # the deadline's own
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "out", OPTIONS)
    assert version_bytes(tmp_path / "out") == expected
    assert read_index(tmp_path / "out").quarantined == 0
