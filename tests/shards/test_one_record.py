"""One record of a shard in an object store: read by ranges, proved, or left to the whole shard."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.records import assert_same_record, make_record, write_version
from builders.s3 import S3, busy
from builders.versions import Built

import vocprep
from vocprep.errors import ShardError, UsageError
from vocprep.shards.codecs import hdf5
from vocprep.shards.one_record import find_arrays
from vocprep.shards.reader import ShardDataset

RECORDS = 300


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """A shard of some 9 MB, whose structure lies in several places."""
    records = [make_record(f"id_{number:03d}", (5, 6)) for number in range(RECORDS)]
    return write_version(tmp_path_factory.mktemp("large"), records, per_shard=RECORDS)


@pytest.fixture
def url(s3: S3, large: ShardDataset) -> str:
    assert isinstance(large.path, Path)
    s3.put_folder(large.path)
    return s3.url()


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (7, (1, 2)), (40, (7, 7))])
def test_arrays_are_found_where_the_library_finds_them(count: int, grid: tuple[int, int]) -> None:
    data = hdf5.encode([make_record(f"id_{number}", grid) for number in range(count)])
    found = find_arrays(memoryview(data))
    with h5py.File(io.BytesIO(data), "r") as file:
        assert found == {
            name: (array.dtype, array.shape, array.id.get_offset()) for name, array in file.items()
        }


def test_a_record_alone_is_read_in_a_few_requests(
    s3: S3, url: str, large: ShardDataset, tmp_path: Path
) -> None:
    (shard,) = large.index.shards
    with s3.through_proxy() as proxy:
        opened = vocprep.open(url)
        for number, most in ((0, 12), (RECORDS - 1, 8), (150, 8)):
            before = proxy.count("GET", shard.name)
            record = opened.record(f"id_{number:03d}")
            assert_same_record(record, large.record(f"id_{number:03d}"))
            assert proxy.count("GET", shard.name) - before <= most
        assert proxy.sent[f"{s3.folder}/{shard.name}"] < shard.bytes / 4
    assert not list((tmp_path / "cache").rglob(shard.sha256))


def test_what_the_cache_holds_is_read_from_there(s3: S3, url: str, large: ShardDataset) -> None:
    opened = vocprep.open(url)
    list(opened.read_shard(large.index.shards[0].name))
    with s3.through_proxy() as proxy:
        assert_same_record(opened.record("id_007"), large.record("id_007"))
        assert proxy.requests.total() == 0


def test_many_records_of_a_shard_are_a_reason_to_fetch_it(
    s3: S3, url: str, large: ShardDataset
) -> None:
    (shard,) = large.index.shards
    opened = vocprep.open(url)
    with s3.through_proxy() as proxy:
        for number in range(40):
            assert_same_record(opened.record(f"id_{number:03d}"), large.record(f"id_{number:03d}"))
        assert proxy.sent[f"{s3.folder}/{shard.name}"] < 2 * shard.bytes


def test_ids_that_are_not_there_are_refused_as_of_the_folder(url: str, large: ShardDataset) -> None:
    for image_id in ("id_999", "id_003#flip", ""):
        with pytest.raises(UsageError) as of_url:
            vocprep.open(url).record(image_id)
        with pytest.raises(UsageError) as of_folder:
            large.record(image_id)
        assert str(of_url.value) == str(of_folder.value).replace(str(large.path), url)


def test_every_record_of_both_views_and_both_containers(s3: S3, built: Built) -> None:
    s3.put_folder(built.path, "voc")
    for image_id, expected in built.records.items():
        assert_same_record(vocprep.open(s3.url("voc")).record(image_id), expected)


def test_tars_are_fetched_whole(s3: S3, native_tar: Built) -> None:
    s3.put_folder(native_tar.path)
    image_id = next(iter(native_tar.records))
    with s3.through_proxy() as proxy:
        vocprep.open(s3.url()).record(image_id)
        assert proxy.count("GET", ".tar") == 1


@pytest.mark.slow
def test_no_damaged_record_is_handed_out(s3: S3, url: str, large: ShardDataset) -> None:
    """Whatever bit differs: the record is right, or the whole shard is named as damaged."""
    (shard,) = large.index.shards
    data = s3.get(shard.name)
    generator = np.random.default_rng(0)
    head = generator.integers(0, 8192, 40)
    anywhere = generator.integers(0, len(data), 20)
    expected = large.record("id_123")
    refused: list[str] = []
    for place in (*head.tolist(), *anywhere.tolist()):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(generator.integers(8))
        s3.put(shard.name, bytes(damaged))
        try:
            found = vocprep.open(url).record("id_123")
        except ShardError as error:
            refused.append(str(error))
        else:
            assert_same_record(found, expected)
    assert 0 < len(refused) < 60
    said = f"{url}/{shard.name}: expected {shard.bytes:,} bytes"
    assert [each for each in refused if not each.startswith(said)] == []


@pytest.mark.parametrize("name", ["embeddings", "slot_planes", "image_sha256", "grid", "offsets"])
def test_a_record_of_other_bytes_is_not_handed_out(
    name: str, s3: S3, url: str, large: ShardDataset
) -> None:
    (shard,) = large.index.shards
    data = bytearray(s3.get(shard.name))
    dtype, shape, start = find_arrays(memoryview(data))[name]
    rows = 30 if shape[0] == 30 * RECORDS else 1  # patches of a record
    data[start + 123 * rows * dtype.itemsize * int(np.prod(shape[1:]))] ^= 1
    s3.put(shard.name, bytes(data))
    with pytest.raises(ShardError, match=r"others of sha256 .* publish it again"):
        vocprep.open(url).record("id_123")
    assert_same_record(vocprep.open(url).record("id_007"), large.record("id_007"))


@pytest.mark.parametrize("size", [0, 100, 5000, 100_000])
def test_a_truncated_object_is_named(size: int, s3: S3, url: str, large: ShardDataset) -> None:
    (shard,) = large.index.shards
    s3.put(shard.name, s3.get(shard.name)[:size])
    with pytest.raises(ShardError, match=f"found {size:,} bytes"):
        vocprep.open(url).record("id_299")


def test_a_missing_object_is_named(s3: S3, url: str, large: ShardDataset) -> None:
    s3.delete(large.index.shards[0].name)
    with pytest.raises(ShardError, match="is missing"):
        vocprep.open(url).record("id_000")


def test_a_busy_store_is_awaited(s3: S3, url: str, large: ShardDataset) -> None:
    with s3.through_proxy(busy(every=4)):
        assert_same_record(vocprep.open(url).record("id_200"), large.record("id_200"))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_structure_is_a_value_error_or_within_bounds(seed: int) -> None:
    data = bytearray(hdf5.encode([make_record(f"id_{number}", (1, 2)) for number in range(3)]))
    generator = np.random.default_rng(seed)
    for _ in range(30):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), 4).tolist():
            damaged[place] = int(generator.integers(256))
        try:
            arrays = find_arrays(memoryview(bytes(damaged)))
        except (ValueError, LookupError):
            continue
        for dtype, shape, start in arrays.values():
            assert start + dtype.itemsize * int(np.prod(shape)) <= len(data)
