"""An opened version: its records, label space, and what is wrong with a damaged one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.records import (
    FEW_CORES,
    assert_same_record,
    make_record,
    write_version,
)
from builders.versions import Built, build
from torch.utils.data import DataLoader

import vocprep
from vocprep.errors import ShardError, UsageError
from vocprep.options import BuildChoices
from vocprep.recipe import Recipe
from vocprep.shards.index import DatasetIndex, describe_file, read_index, write_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import PATCH_FIELDS

pytestmark = pytest.mark.slow


def test_length_is_the_number_of_records_of_all_splits_and_views(built: Built) -> None:
    assert len(built.dataset) == len(built.records)


def test_opens_text_and_paths(nine: ShardDataset) -> None:
    for path in (nine.path, str(nine.path)):
        assert vocprep.open(path).index == ShardDataset.open(path).index == nine.index


def test_reprs_name_sizes_and_hold_no_array(native_hdf5: Built) -> None:
    dataset, count = native_hdf5.dataset, len(native_hdf5.records)
    assert native_hdf5.index.short_id in repr(dataset)
    assert str(native_hdf5.path) in repr(dataset)
    assert f"train {count // 2}" in repr(dataset)
    record = next(iter(native_hdf5.records.values()))
    ny, nx = record.grid
    assert repr(record) == (
        f"Record('{record.image_id}', '{record.split}', {ny}×{nx} patches, 256 numbers per patch "
        "as float32)"
    )


def test_every_record_is_found_by_its_id(built: Built) -> None:
    for image_id, expected in built.records.items():
        assert_same_record(built.dataset.record(image_id), expected)


@pytest.mark.parametrize(
    ("image_id", "said"),
    [
        ("id_77", "no record 'id_77': did you mean 'id_7'"),
        ("2010_000001", "no record '2010_000001': expected an id of samples.jsonl, such as 'id_0'"),
        ("id_3#flip", "no record 'id_3#flip': this version holds no mirrored views"),
        ("", "no record ''"),
    ],
)
def test_unknown_id_is_refused_with_what_is_known(
    image_id: str, said: str, nine: ShardDataset
) -> None:
    with pytest.raises(UsageError) as caught:
        nine.record(image_id)
    assert said in str(caught.value)
    assert str(nine.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quarantined_id_is_refused_with_the_reason(tree: Path, tmp_path: Path) -> None:
    damaged = sorted((tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())[0]
    damaged.write_bytes(b"no JPEG")
    built = build(tree, tmp_path / "out", BuildChoices(limit_per_split=1), max_failures=1)
    (bad,) = built.dataset.quarantined
    for image_id in (bad.id, f"{bad.id}#flip"):
        with pytest.raises(UsageError, match="quarantine") as caught:
            built.dataset.record(image_id)
        assert bad.reason in str(caught.value)


def test_record_of_a_damaged_shard_is_a_shard_error(copied: Path) -> None:
    dataset = ShardDataset.open(copied)
    sample = dataset.samples[0]
    path = copied / sample.shard
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match=sample.shard):
        dataset.record(sample.id)


def test_shard_sizes_add_up_to_the_count(built: Built) -> None:
    dataset = built.dataset
    for split in dataset.splits:
        for all_views in (False, True):
            sizes = dataset.shard_sizes(split, all_views=all_views)
            assert sum(sizes) == dataset.count(split, all_views=all_views)
            for name, size in zip(dataset.shard_names(split), sizes, strict=True):
                assert len(list(dataset.read_shard(name, all_views=all_views))) == size


@pytest.mark.slow
@pytest.mark.usefixtures("stock_webdataset")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("all_views", [False, True])
@pytest.mark.parametrize("name", ["native_tar", "crop_tar"])
def test_webdataset_pipeline_yields_every_record_decoded(
    name: str, all_views: bool, request: pytest.FixtureRequest
) -> None:
    built: Built = request.getfixturevalue(name)
    samples = list(built.dataset.as_webdataset("train", all_views=all_views))
    assert [sample["__key__"] for sample in samples] == [
        image_id
        for image_id, record in built.records.items()
        if record.split == "train" and (all_views or not image_id.endswith("#flip"))
    ]
    for sample in samples:
        record = built.records[sample["__key__"]]
        for field in ("embeddings", *PATCH_FIELDS):
            np.testing.assert_array_equal(sample[f"{field}.npy"], getattr(record, field))
            assert sample[f"{field}.npy"].dtype == getattr(record, field).dtype
        assert sample["label_map.png"].dtype == np.uint16
        np.testing.assert_array_equal(sample["label_map.png"], record.label_map)
        assert sample["json"]["image_id"] == record.image_id


@pytest.mark.slow
@pytest.mark.usefixtures("stock_webdataset")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_pipeline_keeps_labels_above_255(tmp_path: Path) -> None:
    records = [make_record(f"id_{number}", (2, 2)) for number in range(3)]
    assert max(record.label_map.max() for record in records) > 255
    dataset = write_version(tmp_path, records, container="webdataset")
    for sample, record in zip(dataset.as_webdataset("train"), records, strict=True):
        np.testing.assert_array_equal(sample["label_map.png"], record.label_map)


@pytest.mark.slow
@pytest.mark.usefixtures("stock_webdataset")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@FEW_CORES
def test_webdataset_pipeline_gives_each_worker_its_own_shards(native_tar: Built) -> None:
    pipeline = native_tar.dataset.as_webdataset("train", all_views=True)
    seen = [sample["__key__"] for sample in DataLoader(pipeline, batch_size=None, num_workers=3)]
    assert sorted(seen) == sorted(
        image_id for image_id, record in native_tar.records.items() if record.split == "train"
    )


def test_webdataset_pipeline_over_hdf5_is_refused_with_what_to_do(nine: ShardDataset) -> None:
    with pytest.raises(UsageError, match=r"hdf5.*--format webdataset"):
        nine.as_webdataset("train")


def test_missing_webdataset_is_one_sentence(
    native_tar: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UsageError, match="pip install webdataset"):
        native_tar.dataset.as_webdataset("train")


def test_the_cards_import_keeps_working() -> None:
    """Every version that was ever written says this in its README.md."""
    namespace: dict[str, object] = {}
    exec("from vocprep.shards.reader import LoaderOptions, ShardDataset", namespace)
    assert namespace["ShardDataset"] is ShardDataset


def test_sample_in_an_unlisted_shard_is_a_shard_error(copied: Path) -> None:
    path = copied / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["shard"] = "train-00007-of-00008.h5"
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(data)
    index = read_index(copied)
    files = tuple(
        describe_file("samples.jsonl", data) if entry.name == "samples.jsonl" else entry
        for entry in index.files
    )
    write_index(copied, index.model_copy(update={"files": files}).sealed())
    dataset = ShardDataset.open(copied)
    assert dataset.count("train") == 2  # which needs no list of samples
    with pytest.raises(ShardError, match="train-00007-of-00008") as caught:
        _ = dataset.samples
    assert str(copied) in str(caught.value)


def test_sample_that_the_index_does_not_list_is_a_shard_error(copied: Path) -> None:
    path = copied / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ShardError):
        ShardDataset.open(copied).count("train")


def test_schema_that_has_changed_since_is_a_shard_error(copied: Path) -> None:
    path = copied / "dataset.json"
    dataset = ShardDataset.open(copied)
    assert dataset.label_space.name == "context460"
    value = json.loads(path.read_text())
    value["recipe"]["schema"]["sha256"] = "00" * 32
    value["recipe_id"] = Recipe.from_json(value["recipe"]).recipe_id
    write_index(copied, DatasetIndex.model_validate(value).sealed())
    with pytest.raises(ShardError, match="schema context460"):
        _ = ShardDataset.open(copied).label_space
