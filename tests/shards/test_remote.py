"""Reading a version from an object store: as from the folder, whatever the network does."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from builders.records import (
    assert_same_batch,
    assert_same_record,
    make_record,
    write_version,
)
from builders.s3 import S3, SECRET_KEY, S3Proxy, busy, call_once, cut
from builders.versions import Built

import vocprep
from vocprep.errors import ShardError
from vocprep.options import LoaderOptions
from vocprep.shards.reader import Batch, ShardDataset, StreamingDataset

SHUFFLED = LoaderOptions(batch_size=2, shuffle=True, seed=3)
STREAMED = LoaderOptions(batch_size=2, shuffle=True, seed=3, mode="streaming", workers=1)


@pytest.fixture
def url(s3: S3, nine: ShardDataset) -> str:
    """Nine small records in five shards, in the store."""
    assert isinstance(nine.path, Path)
    s3.put_folder(nine.path)
    return s3.url()


def batches(dataset: ShardDataset, options: LoaderOptions, epoch: int = 0) -> list[Batch]:
    loader = dataset.loader("train", options)
    loader.set_epoch(epoch)
    return list(loader)


def assert_same_batches(found: Sequence[Batch], expected: Sequence[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_same_batch(one, other)


def shard_gets(proxy: S3Proxy) -> int:
    return proxy.count("GET", ".h5")


def cached_files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and len(path.name) == 64)


def test_all_that_is_read_of_a_folder_is_read_of_a_url(s3: S3, built: Built) -> None:
    s3.put_folder(built.path, "a version")
    here, there = built.dataset, vocprep.open(s3.url("a version"))
    assert there.index == here.index
    assert list(there.samples) == list(here.samples)
    assert there.label_space == here.label_space
    assert (len(there), there.splits) == (len(here), here.splits)
    for split in here.splits:
        assert there.shard_names(split) == here.shard_names(split)
    for image_id, expected in built.records.items():
        assert_same_record(there.record(image_id), expected)
    assert repr(there) == repr(here).replace(str(here.path), s3.url("a version"))


@pytest.mark.parametrize("options", [SHUFFLED, STREAMED], ids=["resident", "streaming"])
def test_batches_of_a_url_are_those_of_the_folder(
    options: LoaderOptions, url: str, nine: ShardDataset
) -> None:
    assert_same_batches(batches(vocprep.open(url), options, 1), batches(nine, options, 1))


def test_a_version_below_a_bucket_alone_and_with_a_slash_at_its_end(
    s3: S3, url: str, nine: ShardDataset
) -> None:
    assert vocprep.open(f"{url}/").index == vocprep.open(Path(url)).index == nine.index


def test_each_shard_is_fetched_once(s3: S3, url: str, nine: ShardDataset) -> None:
    with s3.through_proxy() as proxy:
        for epoch in range(3):
            assert_same_batches(
                batches(vocprep.open(url), STREAMED, epoch), batches(nine, STREAMED, epoch)
            )
        assert shard_gets(proxy) == len(nine.index.shards)
        assert proxy.count("HEAD") == proxy.count("LIST") == 0


def test_inspecting_and_opening_read_no_shard(s3: S3, url: str) -> None:
    with s3.through_proxy() as proxy:
        vocprep.inspect(url)
        vocprep.open(url)
        assert shard_gets(proxy) == 0


def test_an_opened_version_is_sent_to_other_processes(url: str, nine: ShardDataset) -> None:
    opened = pickle.loads(pickle.dumps(vocprep.open(url)))
    assert_same_record(opened.record("id_3"), nine.record("id_3"))
    loader = torch.utils.data.DataLoader(
        StreamingDataset(opened, "train", STREAMED),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    assert sorted(record.image_id for record in loader) == [f"id_{n}" for n in range(9)]


@pytest.mark.parametrize("damage", [b"", b"other bytes"], ids=["emptied", "overwritten"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    damage: bytes, s3: S3, url: str, nine: ShardDataset, tmp_path: Path
) -> None:
    batches(vocprep.open(url), STREAMED)
    for path in cached_files(tmp_path / "cache"):
        path.write_bytes(damage)
    assert_same_batches(batches(vocprep.open(url), STREAMED), batches(nine, STREAMED))
    for path in cached_files(tmp_path / "cache"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _first_shard(dataset: ShardDataset) -> str:
    return dataset.index.shards[0].name


def test_a_truncated_object_is_named_with_what_was_expected(
    s3: S3, url: str, nine: ShardDataset, tmp_path: Path
) -> None:
    name = _first_shard(nine)
    data = s3.get(name)
    s3.put(name, data[:1000])
    with pytest.raises(ShardError) as caught:
        batches(vocprep.open(url), SHUFFLED)
    digest = nine.index.shards[0].sha256
    assert str(caught.value) == (
        f"{url}/{name}: expected {len(data):,} bytes of sha256 {digest[:12]}…, found 1,000 bytes "
        "(damaged or replaced); publish it again with vocprep push --if-exists overwrite"
    )
    assert digest not in [path.name for path in cached_files(tmp_path / "cache")]


def test_an_object_of_other_bytes_is_named(s3: S3, url: str, nine: ShardDataset) -> None:
    name = _first_shard(nine)
    data = bytearray(s3.get(name))
    data[-1] ^= 1
    s3.put(name, bytes(data))
    with pytest.raises(ShardError, match=r"found [\d,]+ others of sha256 .* publish it again"):
        batches(vocprep.open(url), STREAMED)


def test_a_missing_object_is_named(s3: S3, url: str, nine: ShardDataset) -> None:
    name = _first_shard(nine)
    s3.delete(name)
    with pytest.raises(ShardError, match=f"{url}/{name}: is missing: .*publish it again"):
        batches(vocprep.open(url), STREAMED)


def test_a_version_that_is_replaced_while_it_is_read_is_said_to_be(
    s3: S3, url: str, tmp_path: Path
) -> None:
    opened = vocprep.open(url)
    other = write_version(tmp_path / "other", [make_record(f"id_{n}", seed=1) for n in range(9)])
    assert isinstance(other.path, Path)
    s3.put_folder(other.path)
    with pytest.raises(ShardError, match=r"was replaced while it was read: .* is another"):
        batches(opened, STREAMED)


def test_a_url_without_a_version_is_refused(s3: S3) -> None:
    with pytest.raises(ShardError) as caught:
        vocprep.open(s3.url("nothing"))
    assert str(caught.value) == (
        f"{s3.url('nothing')}: expected a dataset version, found no dataset.json there; check the "
        "URL, or publish a version there with vocprep push"
    )


def test_the_url_of_dataset_json_is_answered_with_that_of_the_version(s3: S3) -> None:
    with pytest.raises(ShardError) as caught:
        vocprep.open(s3.url("voc/dataset.json"))
    assert str(caught.value).endswith(f"; check the URL, such as {s3.url('voc')}")


def test_an_index_that_is_none_is_refused(s3: S3, url: str) -> None:
    s3.put("dataset.json", b"{")
    with pytest.raises(ShardError, match=r"not JSON.*publish it again with vocprep push"):
        vocprep.open(url)


def test_refused_credentials_are_said_to_be_and_are_not_shown(
    s3: S3, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY + "2")
    with pytest.raises(ShardError) as caught:
        vocprep.open(url)
    assert str(caught.value) == (
        f"{url}/dataset.json: cannot be read: {urlsplit(s3.server.endpoint).netloc} refuses the "
        "credentials (SignatureDoesNotMatch); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_answers_of_a_busy_store_are_awaited(s3: S3, url: str, nine: ShardDataset) -> None:
    with s3.through_proxy(busy(every=3)) as proxy:
        assert_same_batches(batches(vocprep.open(url), STREAMED), batches(nine, STREAMED))
        assert proxy.count("GET") > len(nine.index.shards)


def test_a_connection_that_ends_in_the_middle_of_a_shard_is_made_again(
    s3: S3, url: str, nine: ShardDataset
) -> None:
    with s3.through_proxy(*(cut(shard.name, 1500) for shard in nine.index.shards)):
        assert_same_batches(batches(vocprep.open(url), STREAMED), batches(nine, STREAMED))


def test_files_that_leave_the_cache_are_fetched_again_in_the_middle_of_an_epoch(
    url: str, nine: ShardDataset, tmp_path: Path
) -> None:
    loader = iter(vocprep.open(url).loader("train", STREAMED))
    found = [next(loader)]
    for path in cached_files(tmp_path / "cache"):
        path.unlink()
    assert_same_batches([*found, *loader], batches(nine, STREAMED))


def test_the_server_is_killed_and_started_again_in_the_middle_of_an_epoch(
    s3: S3, url: str, nine: ShardDataset
) -> None:
    third = nine.shard_names("train")[2]
    restarted = threading.Thread(target=s3.server.start)

    def kill() -> None:
        s3.server.kill()
        restarted.start()

    try:
        with s3.through_proxy(call_once(third, kill)):
            opened = vocprep.open(url)
            assert_same_batches(batches(opened, STREAMED), batches(nine, STREAMED))
    finally:
        restarted.join()


def test_what_the_cache_holds_needs_no_server(s3: S3, url: str, nine: ShardDataset) -> None:
    with s3.through_proxy() as proxy:
        opened = vocprep.open(url)
        batches(opened, STREAMED)
        proxy.refuse()
        assert_same_batches(batches(opened, STREAMED, 1), batches(nine, STREAMED, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_rank_fetches_the_shards_of_its_lanes_alone(
    workers: int, s3: S3, url: str, nine: ShardDataset, tmp_path: Path
) -> None:
    fetched: list[set[str]] = []
    for rank in (0, 1):
        s3.environment.setenv("VOCPREP_CACHE", str(tmp_path / f"cache {rank}"))
        options = replace(STREAMED, workers=workers, lanes=2, rank=rank, world_size=2)
        with s3.through_proxy() as proxy:
            assert_same_batches(batches(vocprep.open(url), options), batches(nine, options))
            gets = [key for method, key in proxy.requests.elements() if method == "GET"]
        names = [key.rpartition("/")[2] for key in gets if key.endswith(".h5")]
        assert len(names) == len(set(names))
        fetched.append(set(names))
    # Nine records in lanes of five and four: one shard of two is in both.
    assert fetched[0] | fetched[1] == set(nine.shard_names("train"))
    assert len(fetched[0] & fetched[1]) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_shards_are_fetched_while_one_is_read(
    workers: int, s3: S3, url: str, nine: ShardDataset
) -> None:
    with s3.through_proxy() as proxy:
        loader = iter(
            vocprep.open(url).loader("train", replace(STREAMED, batch_size=1, workers=workers))
        )
        next(loader)
        deadline = time.monotonic() + 20
        while shard_gets(proxy) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        list(loader)
        assert shard_gets(proxy) == len(nine.index.shards)


@pytest.mark.parametrize("setting", ["VOCPREP_CACHE", "VOCPREP_CACHE_SIZE"])
def test_a_cache_that_can_keep_nothing_is_done_without(
    setting: str, s3: S3, url: str, nine: ShardDataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    value = str(tmp_path / "file") if setting == "VOCPREP_CACHE" else "1000"
    s3.environment.setenv(setting, value)
    for epoch in (0, 1):
        assert_same_batches(
            batches(vocprep.open(url), STREAMED, epoch), batches(nine, STREAMED, epoch)
        )
    assert not cached_files(tmp_path)


def test_webdataset_reads_the_tars_of_a_url(s3: S3, native_tar: Built) -> None:
    s3.put_folder(native_tar.path)
    here, there = (
        [sample["__key__"] for sample in vocprep.open(place).as_webdataset("train")]
        for place in (native_tar.path, s3.url())
    )
    assert there == here != []


def test_two_processes_fill_one_cache(s3: S3, url: str, nine: ShardDataset, tmp_path: Path) -> None:
    with s3.through_proxy() as proxy:
        script = (
            "import sys, vocprep\n"
            "loader = vocprep.open(sys.argv[1]).loader('train')\n"
            "print(sum(float(batch.embeddings.double().sum()) for batch in loader))\n"
        )
        readers = [
            subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        printed = {float(reader.communicate(timeout=120)[0]) for reader in readers}
        assert [reader.returncode for reader in readers] == [0, 0]
        assert printed == {
            sum(float(batch.embeddings.double().sum()) for batch in nine.loader("train"))
        }
        assert shard_gets(proxy) == len(nine.index.shards)
