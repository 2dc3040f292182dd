"""Fetching from an object store: a real server, and what networks, kills and damage do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.disk_faults import disk_faults
from builders.progress import RecordedProgress
from builders.s3 import S3, Exchange, busy, call_once, cut
from builders.store_requests import Killed, before_requests, killing
from builders.verbs import invoke
from builders.versions import version_files

from vocprep import TransferOptions, pull, push, verify
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.files.locking import file_lock
from vocprep.shards.index import read_index
from vocprep.shards.reader import ShardDataset
from vocprep.storage.cache import cached_path, fetch
from vocprep.storage.places import parse_place
from vocprep.storage.store import StorePath

ONE = TransferOptions(workers=1)
OVERWRITE = TransferOptions(if_exists="overwrite")
SHARDS = [f"train-0000{number}-of-00005.h5" for number in range(5)]


@pytest.fixture
def url(s3: S3, version: Path) -> str:
    """Where the version is published."""
    push(version, s3.url("v"))
    return s3.url("v")


def test_files_are_those_that_were_pushed(url: str, version: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    progress = RecordedProgress()
    result = pull(url, out, progress=progress)
    files = version_files(version)
    assert version_files(out) == files
    assert verify(out).ok
    assert (result.up_to_date, result.files, result.fetched) == (False, 10, 10)
    assert result.fetched_bytes == sum(map(len, files.values()))
    assert progress.shown == sum(map(len, files.values())) - len(files["dataset.json"])
    assert len(progress.threads) == 1
    again = pull(url, out)
    assert (again.up_to_date, again.fetched, again.fetched_bytes) == (True, 0, 0)


def test_killed_before_any_request_it_goes_on(url: str, version: Path, tmp_path: Path) -> None:
    moment = 0
    while True:
        out = tmp_path / f"out{moment}"
        try:
            with before_requests(killing(moment)):
                pull(url, out, ONE)
        except Killed:
            held = [path.name for path in out.iterdir()] if out.exists() else []
            assert {*held} <= {".lock", ".tmp-pull"}
            whole = [path for path in out.glob(".tmp-pull/*") if not path.name.startswith(".")]
            pulled = pull(url, out, ONE)
            assert pulled.fetched == 10 - len(whole)
            assert version_files(out) == version_files(version)
            moment += 1
        else:
            break
    assert moment > 9


def test_killed_before_any_change_of_the_disk(url: str, version: Path, tmp_path: Path) -> None:
    with disk_faults(tmp_path) as faults:
        pull(url, tmp_path / "counted", ONE)
    for nth in range(1, len(faults.calls), 7):
        out = tmp_path / f"out{nth}"
        try:
            with disk_faults(out.parent, nth):
                pull(url, out, ONE)
        except (OSError, DataError):
            assert not (out / "dataset.json").exists()
        pull(url, out, ONE)
        assert version_files(out) == version_files(version)


@pytest.mark.slow
def test_killed_by_the_system_the_same_command_goes_on(
    s3: S3, url: str, version: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "vocprep", "pull", url, str(out), "--workers", "1"]
    with s3.through_proxy() as proxy:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        proxy.faults.append(call_once(SHARDS[3], process.kill))
        _, errors = process.communicate(timeout=120)
    assert process.returncode < 0, errors
    unfinished = invoke("inspect", out)
    assert unfinished.stderr == (
        f"error: {out}: expected a dataset version, the folder that vocprep build-shards wrote, "
        "found an unfinished pull; run the same vocprep pull again to go on with it\n"
    )
    assert pull(url, out).fetched < 10
    assert version_files(out) == version_files(version)


def test_interrupted_command_says_how_to_go_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vocprep.cli.transfer.Bars.advance", interrupt)
        result = invoke("pull", url, tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr == (
        "stopped; what was fetched is kept: run the same command again to go on from there\n"
    )


def test_server_killed_and_started_again(s3: S3, url: str, version: Path, tmp_path: Path) -> None:
    reached = threading.Event()
    with (
        s3.through_proxy(call_once(SHARDS[2], reached.set)) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        pulling = pool.submit(pull, url, tmp_path / "out")
        assert reached.wait(60)
        s3.server.kill()
        with proxy.refusing():
            s3.server.start()
        pulling.result(100)
    assert version_files(tmp_path / "out") == version_files(version)


def test_answers_that_break_off_and_503s(s3: S3, url: str, version: Path, tmp_path: Path) -> None:
    with s3.through_proxy(busy(10), cut(SHARDS[1], 500), cut("samples.jsonl", 100)):
        pull(url, tmp_path / "out")
    assert version_files(tmp_path / "out") == version_files(version)


# What is published there is damaged


@pytest.mark.parametrize("kind", ["truncated", "longer", "changed"])
def test_damaged_object_is_named_and_nothing_is_lost(
    s3: S3, url: str, version: Path, tmp_path: Path, kind: str
) -> None:
    whole = s3.get(f"v/{SHARDS[2]}")
    damaged = {
        "truncated": whole[:-10],
        "longer": whole + b"more",
        "changed": whole[:-1] + bytes([whole[-1] ^ 1]),
    }[kind]
    s3.put(f"v/{SHARDS[2]}", damaged)
    with pytest.raises(ShardError) as caught:
        pull(url, tmp_path / "out", ONE)
    assert str(caught.value).startswith(f"{url}/{SHARDS[2]}: expected {len(whole):,} bytes of sha")
    assert str(caught.value).endswith("; publish it again with vocprep push --if-exists overwrite")
    assert not (tmp_path / "out/dataset.json").exists()
    s3.delete(f"v/{SHARDS[2]}")
    with pytest.raises(ShardError, match=f"{SHARDS[2]}: is missing: expected"):
        pull(url, tmp_path / "out", ONE)
    push(version, url, OVERWRITE)
    assert pull(url, tmp_path / "out", ONE).fetched < 10  # the files before it are still there
    assert version_files(tmp_path / "out") == version_files(version)


def test_version_replaced_while_it_is_fetched(
    s3: S3, url: str, version: Path, other: Path, tmp_path: Path
) -> None:
    def replace(kind: str, path: StorePath) -> None:
        if kind == "chunks" and path.name == SHARDS[3] and not begun:
            begun.append(True)
            push(other, url, OVERWRITE)

    begun: list[bool] = []
    with before_requests(replace), pytest.raises(ShardError, match="was replaced while it was"):
        pull(url, tmp_path / "out", ONE)
    pull(url, tmp_path / "out", ONE)
    assert version_files(tmp_path / "out") == version_files(other)


def test_url_without_a_version(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"found no dataset\.json there; check the URL, or publ"):
        pull(s3.url("none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("first", [b"[]", b"null", b"{", b"{}"])
def test_index_that_was_another_one_a_moment_before(
    s3: S3, url: str, version: Path, tmp_path: Path, first: bytes
) -> None:
    found = iter([first])

    def exchange(each: Exchange) -> None:
        if each.method == "GET" and each.key.endswith("dataset.json"):
            s3.put("v/dataset.json", next(found, (version / "dataset.json").read_bytes()))

    with (
        s3.through_proxy(exchange),
        pytest.raises(ShardError, match="was replaced while it was read; run the same command"),
    ):
        pull(url, tmp_path / "out")


def test_index_that_is_too_large(s3: S3, url: str, version: Path, tmp_path: Path) -> None:
    monkeypatch = s3.environment
    monkeypatch.setattr("vocprep.transfer.pull.MAX_JSON_BYTES", 1000)
    with pytest.raises(DataError, match=r"1,000 are expected; delete it, or choose another URL$"):
        pull(url, tmp_path / "out")
    monkeypatch.setattr("vocprep.storage.reading.read_bytes", lambda place, _: place.read(7))
    with pytest.raises(ShardError, match=r"at most 7 are expected; check the URL, or copy"):
        ShardDataset.open(url)


def test_places_of_other_kinds(url: str, version: Path) -> None:
    with pytest.raises(UsageError) as caught:
        pull(version, "out")
    assert str(caught.value) == (
        f"{version}: expected the URL of an object store, such as s3://bucket/shards, found a "
        "folder of this machine; use the version where it is, or copy it with cp -r"
    )
    with pytest.raises(UsageError, match="of this machine, found a URL"):
        pull(url, url)


# What the folder holds


def test_another_version_is_refused_and_replaced_on_demand(
    url: str, version: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(other, out)
    for options, words in (
        (None, r"holds another version, .*; choose another folder, or --if-exists overwrite"),
        (TransferOptions(if_exists="fail"), r"holds a dataset version and --if-exists is fail"),
    ):
        with pytest.raises(UsageError, match=words):
            pull(url, out, options)
        assert version_files(out) == version_files(other)
    with disk_faults(tmp_path) as faults:
        pull(url, out, OVERWRITE)
    assert version_files(out) == version_files(version)
    for nth in range(1, len(faults.calls), 5):
        shutil.rmtree(out)
        shutil.copytree(other, out)
        try:
            with disk_faults(tmp_path, nth):
                pull(url, out, OVERWRITE)
        except (OSError, DataError):
            assert ShardDataset.open(out).index == read_index(other)
            assert verify(out).ok


def version_of(out: Path) -> Iterator[str]:
    return (path.name for path in out.iterdir())


def test_damaged_file_of_the_same_version_is_fetched_again(
    url: str, version: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(version, out)
    (out / SHARDS[1]).write_bytes(b"damaged")
    (out / SHARDS[2]).unlink()
    result = pull(url, out)
    assert result.fetched == 3  # and dataset.json
    assert version_files(out) == version_files(version)


def test_unfinished_build_and_other_files_are_refused(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".tmp-build").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds an unfinished build; choose another folder, or"):
        pull(url, out)
    pull(url, out, OVERWRITE)
    assert not (out / ".tmp-build").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes\.txt', which is no part of a dataset ver"):
        pull(url, other, OVERWRITE)
    assert [*version_of(other)] != []


def test_one_process_at_a_time(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        file_lock(out / ".lock", busy="", note=lambda _: None),
        pytest.raises(UsageError, match="another vocprep is writing there; wait for it or choose"),
    ):
        pull(url, out)


def test_what_the_cache_holds_is_not_fetched(
    s3: S3, url: str, version: Path, tmp_path: Path
) -> None:
    folder = parse_place(url)
    assert isinstance(folder, StorePath)
    index = pull(url, tmp_path / "first").index
    for entry in index.shards[:2]:
        fetch(folder / entry.name, entry.sha256, entry.bytes)
    damaged = cached_path(index.shards[0].sha256)
    damaged.write_bytes(b"damaged")
    with s3.through_proxy() as proxy:
        assert pull(url, tmp_path / "out").fetched == 9
        assert [proxy.count("GET", name) for name in SHARDS[:3]] == [1, 0, 1]
    assert version_files(tmp_path / "out") == version_files(version)


def test_command_prints_what_was_fetched(url: str, tmp_path: Path) -> None:
    first = invoke("pull", url, tmp_path / "out", "--json")
    assert first.exit_code == 0, first.output
    printed = json.loads(first.stdout)
    assert (printed["files"], printed["fetched"], printed["up_to_date"]) == (10, 10, False)
    again = invoke("pull", url, tmp_path / "out")
    assert again.exit_code == 0
    assert ": 10 files, up to date, in " in again.stdout
    assert invoke("verify", tmp_path / "out").exit_code == 0
