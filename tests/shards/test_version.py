"""A version as a whole: its records by their lines of the index."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.old_versions import as_index_of
from builders.records import assert_same_batch, assert_same_record, make_record, write_version
from builders.versions import Built

from vocprep.checks.diff import diff
from vocprep.checks.verify import verify
from vocprep.errors import ShardError
from vocprep.options import LoaderOptions, VerifyOptions
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.index import describe_file, read_index, write_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.samples import SampleEntry, jsonl_bytes
from vocprep.shards.spans import ShardSpan
from vocprep.shards.version import Version


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are opened, in order."""
    names: list[str] = []
    open_shard = ProvedShards.open

    def note(shards: ProvedShards, name: str) -> ShardReader:
        names.append(name)
        return open_shard(shards, name)

    monkeypatch.setattr(ProvedShards, "open", note)
    return names


def in_shards(samples: list[SampleEntry]) -> list[SampleEntry]:
    return sorted(samples, key=lambda sample: (sample.shard, sample.row))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_records_of_chosen_samples_come_in_order_with_each_shard_opened_once(
    step: int, built: Built, opened: list[str]
) -> None:
    version = Version.read(built.path)
    chosen = in_shards(list(version.samples))[::step]
    pairs = list(version.records(built.path, chosen))
    assert [sample for sample, _ in pairs] == chosen
    assert sorted(opened) == sorted({sample.shard for sample in chosen})
    for sample, record in pairs:
        assert_same_record(record, built.records[sample.id])


def test_records_come_in_whatever_order_they_are_named(built: Built) -> None:
    version = Version.read(built.path)
    chosen = [*reversed(in_shards(list(version.samples))), version.samples[0], version.samples[0]]
    for (sample, record), expected in zip(version.records(built.path, chosen), chosen, strict=True):
        assert sample == expected
        assert_same_record(record, built.records[sample.id])


def test_no_sample_gives_no_record(built: Built, opened: list[str]) -> None:
    assert list(Version.read(built.path).records(built.path, [])) == []
    assert opened == []


@pytest.mark.parametrize("row", [-1, 1, 99])
def test_line_that_names_another_records_row_is_a_shard_error(row: int, built: Built) -> None:
    version = Version.read(built.path)
    sample = in_shards(list(version.samples))[0].model_copy(update={"row": row})
    with pytest.raises(ShardError, match=f"{sample.shard}: row {row} is not .*{sample.id}"):
        list(version.records(built.path, [sample]))


def test_missing_shard_is_a_shard_error_that_names_it(built: Built, tmp_path: Path) -> None:
    copied = tmp_path / "out"
    shutil.copytree(built.path, copied)
    version = Version.read(copied)
    (copied / version.samples[0].shard).unlink()
    with pytest.raises(ShardError, match=version.samples[0].shard):
        list(version.records(copied, version.samples[:1]))


IDS = [f"id_{number:03d}" for number in range(40)]


@pytest.fixture
def forty(tmp_path: Path) -> ShardDataset:
    """Forty small records in twenty shards, with a list of more bytes than a buffer has."""
    records = [make_record(image_id, (1, 1), dim=1) for image_id in IDS]
    return write_version(tmp_path / "forty", records)


def spoil(path: Path) -> None:
    """Other bytes of the same size, which no JSON parser takes."""
    path.write_bytes(b"?" * path.stat().st_size)


def test_lists_are_not_read_by_what_needs_none(forty: ShardDataset) -> None:
    for name in ("samples.jsonl", "README.md", "croissant.json"):
        spoil(forty.path / name)
    dataset = ShardDataset.open(forty.path)
    assert (len(dataset), dataset.count("train")) == (40, 40)
    assert "train 40" in repr(dataset)
    assert dataset.shard_sizes("train") == [2] * 20
    assert dataset.record("id_017").image_id == "id_017"
    batches = list(dataset.loader("train", LoaderOptions(batch_size=16, mode="streaming")))
    assert [image_id for batch in batches for image_id in batch.image_ids] == IDS
    with pytest.raises(ShardError, match=r"samples\.jsonl: expected .* others of sha256"):
        _ = dataset.samples


def test_one_line_of_a_list_is_in_memory_at_a_time(tmp_path: Path) -> None:
    records = [make_record(f"id_{number:04d}", (1, 1), dim=1) for number in range(400)]
    version = write_version(tmp_path, records, per_shard=20).version
    peaks = []
    for read in (lambda: sum(1 for _ in version.stream_samples()), lambda: len(version.samples)):
        tracemalloc.start()
        assert read() == 400
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 2 * peaks[0] < peaks[1]


def test_lists_that_were_read_do_not_go_to_other_processes(forty: ShardDataset) -> None:
    before = len(pickle.dumps(forty))
    assert len(forty.samples) == 40
    assert len(pickle.dumps(forty)) == before
    assert pickle.loads(pickle.dumps(forty)).samples == forty.samples


def test_list_that_changes_while_it_is_read_is_noticed(forty: ShardDataset) -> None:
    path = forty.path / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for last in (lines[-1].replace(b'"row":1', b'"row":0'), b"{" * len(lines[-1])):
        path.write_bytes(b"".join(lines))
        samples = forty.version.stream_samples()
        assert next(samples).id == IDS[0]
        path.write_bytes(b"".join([*lines[:-1], last]))
        with pytest.raises(ShardError, match=r"samples\.jsonl: expected .* others of sha256"):
            list(samples)


def test_version_that_is_replaced_while_its_list_is_read_is_named(forty: ShardDataset) -> None:
    path = forty.path / "samples.jsonl"
    samples = forty.version.stream_samples()
    next(samples)
    path.write_bytes(path.read_bytes()[:-1])
    write_index(forty.path, forty.index.model_copy(update={"weights": "others"}).sealed())
    with pytest.raises(ShardError, match="this version was replaced while it was read"):
        list(samples)


def relisted(path: Path, samples: Sequence[SampleEntry]) -> Version:
    """Give a version another list, as a faulty writer would."""
    data = jsonl_bytes(samples)
    (path / "samples.jsonl").write_bytes(data)
    index = read_index(path)
    others = [entry for entry in index.files if entry.name != "samples.jsonl"]
    files = (describe_file("samples.jsonl", data), *others)
    write_index(path, index.model_copy(update={"files": files}).sealed())
    return Version.open(path)


def at_row(sample: SampleEntry, row: int, shard: str | None = None) -> SampleEntry:
    return sample.model_copy(update={"row": row, "shard": shard or sample.shard})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s[1:],
            "jsonl: expected the 40 lines that dataset.json counts, found 39",
        ),
        (lambda s: [*s, s[0]], "line 41: id_000 does not follow id_039 in the order of ids"),
        (lambda s: [s[1], s[0], *s[2:]], "line 2: id_000 does not follow id_001 in the order of"),
        (lambda s: [s[0], at_row(s[1], 0), *s[2:]], "does not list the 2 rows of train-00000-of"),
        (
            lambda s: [*s[:38], at_row(s[38], 0, s[0].shard), s[39]],
            "does not list the 2 rows of train-00000-of-00020.h5; build the shards again",
        ),
        (
            lambda s: [s[0], at_row(s[1], 2), *s[2:]],
            "line 2: puts id_001 into row 2 of train-0",
        ),
    ],
)
def test_list_that_does_not_fit_the_index_is_a_shard_error(
    change: Callable[[list[SampleEntry]], list[SampleEntry]], said: str, forty: ShardDataset
) -> None:
    version = relisted(forty.path, change(list(forty.samples)))
    with pytest.raises(ShardError) as caught:
        list(version.stream_shards())
    assert said in str(caught.value)
    assert str(forty.path / "samples.jsonl") in str(caught.value)
    assert not verify(forty.path, VerifyOptions(workers=1)).ok


def test_shards_come_with_their_rows_in_order(built: Built) -> None:
    version = Version.open(built.path)
    found = {shard.name: [each.id for each in rows] for shard, rows in version.stream_shards()}
    opened = ProvedShards(built.path, built.index)
    assert found == {shard.name: opened.open(shard.name).image_ids for shard in built.index.shards}
    assert version.by_shard.keys() == found.keys()


def test_version_of_an_earlier_format_reads_as_before(built: Built, tmp_path: Path) -> None:
    number = 1 if built.index.container == "hdf5" else 2
    old = ShardDataset.open(as_index_of(built.path, tmp_path / "old", number))
    new = built.dataset
    assert (old.index.format_version, new.index.format_version) == (number, 3)
    assert old.index.shard_version == new.index.shard_version
    assert (old.samples, len(old), old.splits) == (new.samples, len(new), new.splits)
    assert old.version.spans == new.version.spans
    for image_id, expected in built.records.items():
        assert_same_record(old.record(image_id), expected)
    for split in new.splits:
        for all_views in (False, True):
            options = LoaderOptions(all_views=all_views, shuffle=True)
            for one, other in zip(
                old.loader(split, options), new.loader(split, options), strict=True
            ):
                assert_same_batch(one, other)
    assert diff(old.path, new.path).same
    assert verify(old.path, VerifyOptions(level="content", workers=1)).ok


def test_version_of_an_earlier_format_with_rows_in_any_order_is_read(
    forty: ShardDataset, tmp_path: Path
) -> None:
    """As ``write_dataset`` once wrote records that came in another order."""
    samples = list(forty.samples)
    turned = [each.model_copy(update={"row": 1 - each.row}) for each in samples]
    version = relisted(as_index_of(forty.path, tmp_path / "old", 1), turned)
    assert version.spans["train-00000-of-00020.h5"] == ShardSpan(
        images=2,
        first_id="id_000",
        last_id="id_001",
        ids_sha256=ShardSpan.of(["id_001", "id_000"]).ids_sha256,
    )


def test_span_that_is_not_that_of_its_shard_is_found(forty: ShardDataset) -> None:
    path = forty.path / "dataset.json"
    for change in ({"ids_sha256": "00" * 32}, {"last_id": "id_0000"}, {"images": 1}):
        value: dict[str, Any] = json.loads(path.read_text())
        value["shards"][0]["span"] |= change
        write_index(forty.path, type(forty.index).model_validate(value).sealed())
        report = verify(forty.path, VerifyOptions(workers=1)).reports[0]
        (difference,) = report.differences
        assert difference.path == "dataset.json"
        assert "the span of train-00000-of-00020.h5 is not that of its" in difference.detail
        write_index(forty.path, forty.index)
    value["shards"][0]["span"]["ids_sha256"] = "00" * 32
    write_index(forty.path, type(forty.index).model_validate(value).sealed())
    said = r"holds other records than the 2 that dataset\.json lists; copy"
    with pytest.raises(ShardError, match=said):
        ShardDataset.open(forty.path).record("id_000")
