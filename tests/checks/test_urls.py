"""Checks of versions in object stores: the reports of the folder, of what the store holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.progress import RecordedProgress
from builders.s3 import S3, cut
from builders.versions import Built

import vocprep
from vocprep.checks.diff import diff
from vocprep.checks.inspect import inspect
from vocprep.checks.lock import lock
from vocprep.checks.verify import Verification, verify
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.options import VerifyOptions

CONTENT = VerifyOptions(level="content", workers=1)


@pytest.fixture
def url(s3: S3, two_views: Built) -> str:
    """A version as a build leaves it, with the hint that is no part of it."""
    s3.put_folder(two_views.path, "voc")
    return s3.url("voc")


def differences(result: Verification) -> list[tuple[str, str]]:
    return [(d.path, d.state) for report in result.reports for d in report.differences]


def test_every_level_says_of_a_url_what_it_says_of_the_folder(
    url: str, two_views: Built, sample_tree: Path, tmp_path: Path
) -> None:
    lock(two_views.path, tmp_path / "lock.json")
    options = VerifyOptions(
        level="recompute",
        data_dir=sample_tree,
        samples=1,
        device="cpu",
        workers=1,
        lock=tmp_path / "lock.json",
    )
    here, there = RecordedProgress(), RecordedProgress()
    assert verify(url, options, there).to_json() == verify(two_views.path, options, here).to_json()
    assert there.begun == here.begun
    assert there.shown == here.shown


def test_inspect_lock_and_diff_of_a_url(url: str, two_views: Built, tmp_path: Path) -> None:
    assert inspect(url) == inspect(two_views.path)
    assert lock(url, tmp_path / "lock.json") == lock(two_views.path)
    assert (tmp_path / "lock.json").is_file()
    assert diff(url, two_views.path) == diff(two_views.path, url) == diff(url, url)
    assert diff(url, url).same
    assert diff(url, url).compared == "indexes"
    assert diff(url, two_views.path).compared == f"indexes; sizes of shards in {two_views.path}"


def test_diff_of_urls_that_differ_is_that_of_the_folders(
    s3: S3, url: str, two_views: Built, quarantined: Built
) -> None:
    s3.put_folder(quarantined.path, "other")
    expected = diff(two_views.path, quarantined.path)
    assert not expected.same
    assert diff(url, s3.url("other")) == expected


def test_neither_inspect_nor_diff_of_equal_versions_fetches_a_shard(
    s3: S3, url: str, two_views: Built
) -> None:
    with s3.through_proxy() as proxy:
        inspect(url)
        diff(url, two_views.path)
        assert proxy.count("GET", ".h5") == 0


def test_verify_compares_the_objects_themselves_not_the_cache(
    s3: S3, url: str, two_views: Built
) -> None:
    assert verify(url, CONTENT).ok  # all of it is in the cache
    shard = two_views.index.shards[0]
    data = bytearray(s3.get(f"voc/{shard.name}"))
    data[len(data) // 2] ^= 1
    s3.put(f"voc/{shard.name}", bytes(data))
    result = verify(url)
    assert differences(result) == [(shard.name, "changed")]
    (found,) = result.reports[0].differences
    assert found.detail.startswith(
        f"expected {shard.bytes:,} bytes of sha256 {shard.sha256}, found {shard.bytes:,} others"
    )


def test_verify_keeps_shards_out_of_the_cache(
    s3: S3, url: str, two_views: Built, tmp_path: Path
) -> None:
    with s3.through_proxy() as proxy:
        assert verify(url).ok
        assert proxy.count("GET", ".h5") == len(two_views.index.shards)
    cached = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert not cached & {shard.sha256 for shard in two_views.index.shards}


def test_whatever_differs_is_reported_as_of_the_folder(
    s3: S3, url: str, two_views: Built, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(two_views.path, copied)
    one, other, *_ = (shard.name for shard in two_views.index.shards)
    for change, name, data in (
        ("put", one, b"short"),
        ("delete", other, b""),
        ("put", "labels.json", b"{}"),
        ("put", "extra.bin", b"extra"),
        ("put", "below/extra.bin", b"extra"),
        ("put", ".DS_Store", b"clutter"),
    ):
        if change == "put":
            s3.put(f"voc/{name}", data)
            (copied / name).parent.mkdir(exist_ok=True)
            (copied / name).write_bytes(data)
        else:
            s3.delete(f"voc/{name}")
            (copied / name).unlink()
    there, here = verify(url), verify(copied)
    assert there.to_json() == here.to_json()
    assert sorted(differences(there)) == [
        ("below", "extra"),
        ("extra.bin", "extra"),
        ("labels.json", "changed"),
        (one, "changed"),
        (other, "missing"),
    ]


def test_an_altered_index_is_reported(s3: S3, url: str) -> None:
    text = s3.get("voc/dataset.json")
    s3.put("voc/dataset.json", text.replace(b'"quarantined": 0', b'"quarantined": 1'))
    result = verify(url)
    assert differences(result) == [("dataset.json", "changed")]
    (found,) = result.reports[0].differences
    assert found.detail.endswith("publish it again with vocprep push --if-exists overwrite")


def test_a_version_without_its_index_is_reported(s3: S3, url: str) -> None:
    s3.delete("voc/dataset.json")
    assert differences(verify(url)) == [("dataset.json", "missing")]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nothing", UsageError, "expected a dataset version, found nothing; check the URL"),
        ("run", DataError, "expected a dataset version, found a run; check the URL"),
        ("other", DataError, "expected a dataset version, found a folder of other files"),
    ],
)
def test_what_is_no_version_is_refused(
    name: str, error: type[Exception], said: str, s3: S3, url: str
) -> None:
    s3.put("run/run.json", b"{}")
    s3.put("other/notes.txt", b"")
    with pytest.raises(error, match=said) as caught:
        verify(s3.url(name))
    assert str(caught.value).startswith(f"{s3.url(name)}: ")


def test_an_object_that_cannot_be_read_is_a_difference(s3: S3, url: str, two_views: Built) -> None:
    name = two_views.index.shards[0].name
    with s3.through_proxy() as proxy:
        proxy.faults.append(_refuse(name))
        result = verify(url)
    assert differences(result) == [(name, "unreadable")]
    (found,) = result.reports[0].differences
    assert found.detail.startswith("cannot be read: ")
    assert "AccessDenied" in found.detail


def _refuse(name: str):
    def fault(exchange) -> None:
        if exchange.key.endswith(name):
            exchange.status = 403
            exchange.body = b"<Error><Code>AccessDenied</Code></Error>"

    return fault


def test_connections_that_end_early_make_no_difference(s3: S3, url: str, two_views: Built) -> None:
    faults = [cut(shard.name, 2000) for shard in two_views.index.shards]
    with s3.through_proxy(*faults):
        assert verify(url).ok


def test_options_of_data_dirs_and_unknown_schemes_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected a folder or a URL of s3"):
        verify("http://example.org/voc")
    with pytest.raises(UsageError, match="expected a folder or a URL of s3"):
        vocprep.inspect("ftp://example.org/voc")


def test_the_folder_above_a_version_is_none(s3: S3, url: str) -> None:
    with pytest.raises(ShardError, match=r"found no dataset.json there"):
        inspect(s3.url())
