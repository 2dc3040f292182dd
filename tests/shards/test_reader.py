from __future__ import annotations

import gc
import json
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.records import GRIDS, make_record
from builders.versions import Built
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vocprep.building.write import write_dataset
from vocprep.errors import ShardError, UsageError
from vocprep.geometry import Geometry
from vocprep.labels.label_space import load_label_space
from vocprep.labels.targets import unpack_states
from vocprep.options import Layout, LoaderOptions
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.index import DatasetIndex, describe_file, read_index, write_index
from vocprep.shards.reader import Batch, ResidentDataset, ShardDataset, StreamingDataset, collate
from vocprep.shards.record import Record


def make_dataset(out: Path, records: Sequence[Record], per_shard: int = 2) -> ShardDataset:
    """Write records of one split as a finished dataset version."""
    schema = load_label_space("context460")
    recipe = Recipe(
        dataset="made",
        schema=LabelSpaceId(name=schema.name, sha256=schema.sha256),
        splits={"train": SplitIds.of([record.image_id for record in records])},
        backbone="resnet32-cifar100",
        weights_sha256="00" * 32,
        geometry=Geometry(geometry="native"),
    )
    write_dataset(out, recipe, {"train": records}, Layout(samples_per_shard=per_shard))
    return ShardDataset.open(out)


TENSORS = ("grids", "padding", "embeddings", "slot_labels", "slot_pixels", "slot_planes")


def assert_same_batch(one: Batch, other: Batch) -> None:
    assert one.image_ids == other.image_ids
    for name in TENSORS:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        assert torch.equal(left, right), name
    assert (one.label_maps is None) == (other.label_maps is None)
    for left, right in zip(one.label_maps or (), other.label_maps or (), strict=True):
        np.testing.assert_array_equal(left, right)


@st.composite
def records_and_choice(draw: st.DrawFn) -> tuple[list[Record], list[int]]:
    grids = draw(st.lists(GRIDS, min_size=1, max_size=5))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    records = [
        make_record(f"id_{number}", grid, dim=8, dtype=dtype) for number, grid in enumerate(grids)
    ]
    chosen = draw(st.lists(st.integers(0, len(records) - 1), min_size=1, max_size=6))
    return records, chosen


@settings(max_examples=30)
@given(records_and_choice(), st.booleans())
def test_batches_gathered_in_memory_are_those_of_collate(
    made: tuple[list[Record], list[int]], label_maps: bool
) -> None:
    records, chosen = made
    with tempfile.TemporaryDirectory() as folder:
        resident = ResidentDataset(make_dataset(Path(folder), records), "train")
        assert_same_batch(
            resident.batch(chosen, label_maps=label_maps),
            collate([records[index] for index in chosen], label_maps=label_maps),
        )


def test_collate_pads_to_the_longest_picture() -> None:
    records = [make_record("a", (1, 2)), make_record("b", (2, 3)), make_record("c", (1, 1))]
    batch = collate(records, label_maps=True)
    assert batch.image_ids == ("a", "b", "c")
    assert batch.grids.tolist() == [[1, 2], [2, 3], [1, 1]]
    assert batch.grids.dtype == torch.int64
    assert batch.padding.tolist() == [
        [False, False, True, True, True, True],
        [False] * 6,
        [False, True, True, True, True, True],
    ]
    assert batch.embeddings.dtype == torch.float32
    assert batch.slot_labels.dtype == batch.slot_pixels.dtype == torch.int64
    assert (batch.embeddings[batch.padding] == 0).all()
    assert (batch.slot_labels[batch.padding] == -1).all()
    assert (batch.slot_pixels[batch.padding] == 0).all()
    assert (unpack_states(batch.slot_planes[batch.padding].numpy()) == 5).all()
    for row, record in enumerate(records):
        own = ~batch.padding[row]
        for name in ("embeddings", "slot_labels", "slot_pixels", "slot_planes"):
            expected = getattr(record, name)
            np.testing.assert_array_equal(getattr(batch, name)[row][own].numpy(), expected)
    assert batch.label_maps is not None
    for label_map, record in zip(batch.label_maps, records, strict=True):
        np.testing.assert_array_equal(label_map, record.label_map)


def test_label_maps_come_only_when_asked_for(native_hdf5: Built) -> None:
    for mode in ("resident", "streaming"):
        without = LoaderOptions(mode=mode)  # type: ignore[arg-type]
        for batch in native_hdf5.dataset.loader("train", without):
            assert batch.label_maps is None
        for batch in native_hdf5.dataset.loader("train", replace(without, label_maps=True)):
            assert batch.label_maps is not None
            for image_id, label_map in zip(batch.image_ids, batch.label_maps, strict=True):
                np.testing.assert_array_equal(label_map, native_hdf5.records[image_id].label_map)


def test_batch_moves_to_a_device_with_all_that_it_holds() -> None:
    batch = collate([make_record("a")], label_maps=True)
    moved = batch.to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in TENSORS} == {"meta"}
    assert moved.image_ids == batch.image_ids
    assert moved.label_maps is batch.label_maps


FEW_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create")
"""On a machine of one core, torch advises against a second process."""


def drawn(
    dataset: ShardDataset, split: str = "train", epoch: int = 0, **options: object
) -> list[str]:
    """Ids in the order in which a loader gives them."""
    loader = dataset.loader(split, LoaderOptions(**options))  # type: ignore[arg-type]
    loader.set_epoch(epoch)
    return [image_id for batch in loader for image_id in batch.image_ids]


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Nine small records in five shards."""
    records = [make_record(f"id_{number}", (1, 1 + number % 3)) for number in range(9)]
    return make_dataset(tmp_path_factory.mktemp("nine"), records)


@cache
def nine_ids() -> list[str]:
    return [f"id_{number}" for number in range(9)]


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_order_without_shuffle_is_that_of_the_ids(mode: str, nine: ShardDataset) -> None:
    assert drawn(nine, mode=mode, batch_size=4) == nine_ids()
    assert drawn(nine, mode=mode, batch_size=4, epoch=3, seed=5) == nine_ids()


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_shuffled_order_is_a_function_of_seed_and_epoch(mode: str, nine: ShardDataset) -> None:
    orders = {
        (seed, epoch): tuple(drawn(nine, mode=mode, shuffle=True, seed=seed, epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert all(sorted(order) == nine_ids() for order in orders.values())
    assert len(set(orders.values())) == len(orders)
    torch.manual_seed(123)
    np.random.seed(123)
    for (seed, epoch), order in orders.items():
        assert drawn(nine, mode=mode, shuffle=True, seed=seed, epoch=epoch) == list(order)


@pytest.mark.parametrize("all_views", [False, True])
def test_either_mode_draws_the_same_order(all_views: bool, native_hdf5: Built) -> None:
    for split in native_hdf5.dataset.splits:
        for epoch in range(3):
            orders = []
            for mode in ("resident", "streaming"):
                options = LoaderOptions(
                    mode=mode,  # type: ignore[arg-type]
                    shuffle=True,
                    seed=4,
                    batch_size=2,
                    all_views=all_views,
                )
                loader = native_hdf5.dataset.loader(split, options)
                loader.set_epoch(epoch)
                orders.append([image_id for batch in loader for image_id in batch.image_ids])
            assert orders[0] == orders[1]


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_set_epoch_changes_the_order_of_the_same_loader(mode: str, nine: ShardDataset) -> None:
    options = LoaderOptions(mode=mode, shuffle=True, batch_size=2)  # type: ignore[arg-type]
    loader = nine.loader("train", options)

    def order() -> list[str]:
        return [image_id for batch in loader for image_id in batch.image_ids]

    first = order()
    assert order() == first
    loader.set_epoch(1)
    second = order()
    assert second != first
    loader.set_epoch(0)
    assert order() == first
    assert sorted(second) == sorted(first)


def test_streaming_shuffle_mixes_shards_and_records_within_them(nine: ShardDataset) -> None:
    shard_of = {sample.id: sample.shard for sample in nine.samples}
    orders = [drawn(nine, mode="streaming", shuffle=True, epoch=epoch) for epoch in range(6)]
    shard_orders = {tuple(dict.fromkeys(shard_of[item] for item in order)) for order in orders}
    assert len(shard_orders) > 1
    assert any(order.index("id_1") < order.index("id_0") for order in orders)
    assert any(order.index("id_0") < order.index("id_1") for order in orders)


@pytest.mark.parametrize("shuffle", [False, True])
def test_resident_and_streaming_give_the_same_samples(
    shuffle: bool, native_hdf5: Built, native_tar: Built
) -> None:
    expected = native_hdf5.records
    for built in (native_hdf5, native_tar):
        for mode in ("resident", "streaming"):
            options = LoaderOptions(
                mode=mode,  # type: ignore[arg-type]
                shuffle=shuffle,
                batch_size=3,
                all_views=True,
            )
            seen = []
            for batch in built.dataset.loader("train", options):
                seen += batch.image_ids
                alone = collate([expected[image_id] for image_id in batch.image_ids])
                assert_same_batch(batch, alone)
            assert sorted(seen) == sorted(
                image_id for image_id, record in expected.items() if record.split == "train"
            )


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_same_for_any_number_of_workers(shuffle: bool, nine: ShardDataset) -> None:
    def batches(workers: int) -> list[Batch]:
        options = LoaderOptions(mode="streaming", workers=workers, shuffle=shuffle, batch_size=2)
        return list(nine.loader("train", options))

    alone = batches(0)
    assert sorted(image_id for batch in alone for image_id in batch.image_ids) == nine_ids()
    for workers in (1, 2, 7):
        for one, other in zip(batches(workers), alone, strict=True):
            assert_same_batch(one, other)


def test_pass_that_is_left_early_leaves_no_thread_reading(nine: ShardDataset) -> None:
    options = LoaderOptions(mode="streaming", workers=2, batch_size=2)
    batches = iter(nine.loader("train", options))
    next(batches)
    del batches
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vocprep")]


@FEW_CORES
@pytest.mark.parametrize("split", ["train", "val"])
def test_worker_processes_of_a_plain_dataloader_yield_each_record_once(
    split: str, native_tar: Built
) -> None:
    options = LoaderOptions(mode="streaming", shuffle=True, all_views=True)
    stream = StreamingDataset(native_tar.dataset, split, options)
    seen: list[str] = []
    for batch in DataLoader(stream, batch_size=2, num_workers=2, collate_fn=collate):
        seen += batch.image_ids
    assert sorted(seen) == sorted(
        image_id for image_id, record in native_tar.records.items() if record.split == split
    )


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_mirrored_views_are_drawn_only_when_asked_for(mode: str, native_hdf5: Built) -> None:
    dataset = native_hdf5.dataset
    without = drawn(dataset, mode=mode)
    both = drawn(dataset, mode=mode, all_views=True)
    assert not any("#" in image_id for image_id in without)
    assert sorted(both) == sorted([*without, *(f"{image_id}#flip" for image_id in without)])
    assert dataset.count("train") == len(without)
    assert dataset.count("train", all_views=True) == len(both)
    loader = dataset.loader("train", LoaderOptions(mode=mode, all_views=True))  # type: ignore[arg-type]
    assert loader.samples == len(both)


def test_length_of_a_loader_is_its_number_of_batches(nine: ShardDataset) -> None:
    for batch_size in (1, 2, 4, 9, 64):
        for mode in ("resident", "streaming"):
            options = LoaderOptions(batch_size=batch_size, mode=mode)  # type: ignore[arg-type]
            loader = nine.loader("train", options)
            assert len(loader) == len(list(loader)) == -(-9 // batch_size)


def test_split_is_in_memory_once(nine: ShardDataset) -> None:
    resident = ResidentDataset(nine, "train")
    assert len(resident) == 9
    for name in ("embeddings", "slot_labels", "slot_pixels", "slot_planes"):
        owners = set()
        for row in range(len(resident)):
            array = getattr(resident[row], name)
            while array.base is not None:
                array = array.base
            owners.add(array.__array_interface__["data"][0])
        assert len(owners) == 1, name


def test_records_in_memory_are_those_of_the_shards(native_hdf5: Built) -> None:
    resident = ResidentDataset(native_hdf5.dataset, "train", all_views=True)
    for row in range(len(resident)):
        record = resident[row]
        assert record.record_sha256 == native_hdf5.records[record.image_id].record_sha256


def test_unknown_split_is_refused_with_the_known_ones(nine: ShardDataset) -> None:
    with pytest.raises(UsageError, match=r"'test'.*train"):
        nine.loader("test", LoaderOptions())


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"mode": "magic"}, {"workers": 1}, {"batch_size": -1}]
)
def test_options_that_cannot_be_followed_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        LoaderOptions(**options)  # type: ignore[arg-type]


@pytest.fixture
def copied(native_hdf5: Built, tmp_path: Path) -> Path:
    shutil.copytree(native_hdf5.path, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_shard_that_is_not_the_indexs_is_a_shard_error(mode: str, copied: Path) -> None:
    (name,) = ShardDataset.open(copied).shard_names("train")
    (other,) = ShardDataset.open(copied).shard_names("val")
    shutil.copy(copied / other, copied / name)
    with pytest.raises(ShardError) as caught:
        drawn(ShardDataset.open(copied), mode=mode)
    assert str(copied / name) in str(caught.value)


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_missing_shard_is_a_shard_error(mode: str, copied: Path) -> None:
    (name,) = ShardDataset.open(copied).shard_names("train")
    (copied / name).unlink()
    with pytest.raises(ShardError) as caught:
        drawn(ShardDataset.open(copied), mode=mode)
    assert str(copied / name) in str(caught.value)


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
    with pytest.raises(ShardError, match="train-00007-of-00008") as caught:
        drawn(ShardDataset.open(copied))
    assert str(copied) in str(caught.value)


def test_sample_that_the_index_does_not_list_is_a_shard_error(copied: Path) -> None:
    path = copied / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ShardError):
        drawn(ShardDataset.open(copied))


def test_schema_that_has_changed_since_is_a_shard_error(copied: Path) -> None:
    path = copied / "dataset.json"
    dataset = ShardDataset.open(copied)
    assert dataset.schema.name == "context460"
    value = json.loads(path.read_text())
    value["recipe"]["schema"]["sha256"] = "00" * 32
    value["recipe_id"] = Recipe.from_json(value["recipe"]).recipe_id
    write_index(copied, DatasetIndex.model_validate(value).sealed())
    with pytest.raises(ShardError, match="schema context460"):
        _ = ShardDataset.open(copied).schema
