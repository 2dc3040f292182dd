"""The order of an epoch, datasets and the loader."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.records import (
    FEW_CORES,
    assert_same_batch,
    make_record,
    write_version,
)
from builders.versions import Built
from torch.utils.data import DataLoader

from vocprep.errors import ShardError, UsageError
from vocprep.options import LoaderOptions, ShardFormat
from vocprep.shards.feed.batches import Batch, collate
from vocprep.shards.feed.datasets import ResidentDataset, StreamingDataset
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow


def test_label_maps_come_only_when_asked_for(native_hdf5: Built) -> None:
    for mode in ("resident", "streaming"):
        without = LoaderOptions(mode=mode)  # type: ignore[arg-type]
        for batch in native_hdf5.dataset.loader("train", without):
            assert batch.label_maps is None
        for batch in native_hdf5.dataset.loader("train", replace(without, label_maps=True)):
            assert batch.label_maps is not None
            for image_id, label_map in zip(batch.image_ids, batch.label_maps, strict=True):
                np.testing.assert_array_equal(label_map, native_hdf5.records[image_id].label_map)


def drawn(
    dataset: ShardDataset, split: str = "train", epoch: int = 0, **options: object
) -> list[str]:
    """Ids in the order in which a loader gives them."""
    loader = dataset.loader(split, LoaderOptions(**options))  # type: ignore[arg-type]
    loader.set_epoch(epoch)
    return [image_id for batch in loader for image_id in batch.image_ids]


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
    before = set(threading.enumerate())
    options = LoaderOptions(mode="streaming", workers=2, batch_size=2)
    batches = iter(nine.loader("train", options))
    next(batches)
    del batches
    gc.collect()
    assert set(threading.enumerate()) <= before


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


@pytest.mark.parametrize("container", ["hdf5", "webdataset"])
def test_split_is_in_memory_once(container: ShardFormat, tmp_path: Path) -> None:
    records = [make_record(f"id_{number}", (1, 1 + number % 3)) for number in range(5)]
    dataset = write_version(tmp_path, records, container=container)
    resident = ResidentDataset(dataset, "train")
    assert len(resident) == 5
    for record in map(resident.__getitem__, range(5)):
        for name, field in resident.table.fields.items():
            assert np.shares_memory(getattr(record, name), field.numpy()), name
        # A view of a shard's bytes would keep all of them.
        assert record.label_count.base is None


def test_records_in_memory_are_those_of_the_shards(native_hdf5: Built) -> None:
    resident = ResidentDataset(native_hdf5.dataset, "train", LoaderOptions(all_views=True))
    for row in range(len(resident)):
        record = resident[row]
        assert record.record_sha256 == native_hdf5.records[record.image_id].record_sha256


def test_unknown_split_is_refused_with_the_known_ones(nine: ShardDataset) -> None:
    with pytest.raises(UsageError, match=r"'test'.*train"):
        nine.loader("test", LoaderOptions())


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"mode": "magic"},
        {"workers": 1},
        {"batch_size": -1},
        {"world_size": 0},
        {"rank": -1},
        {"rank": 1},
        {"rank": 2, "world_size": 2},
        {"lanes": 0},
    ],
)
def test_options_that_cannot_be_followed_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        LoaderOptions(**options)  # type: ignore[arg-type]


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


TWO_PROCESSES = """
import sys
import torch.distributed as dist
from vocprep import LoaderOptions, ShardDataset

shards, meeting, rank = sys.argv[1:]
dist.init_process_group("gloo", f"file://{meeting}", rank=int(rank), world_size=2)
options = LoaderOptions(batch_size=2, shuffle=True, lanes=2, mode="streaming")
loader = ShardDataset.open(shards).loader("train", options.for_this_process())
assert (loader.options.rank, loader.options.world_size) == (int(rank), 2)
for epoch in range(2):
    loader.set_epoch(epoch)
    for batch in loader:
        gathered = [None, None]
        dist.all_gather_object(gathered, batch.image_ids)  # hangs where a rank has fewer batches
        if rank == "0":
            print(epoch, *gathered[0], *gathered[1])
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_draw_every_record_once_in_step(nine: ShardDataset, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, nine.path, tmp_path / "meeting", str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    steps = [line.split() for line in outputs[0].splitlines()]
    epochs = [[i for step in steps if step[0] == epoch for i in step[1:]] for epoch in "01"]
    assert [sorted(ids) for ids in epochs] == [nine_ids()] * 2
    assert epochs[0] != epochs[1]


@FEW_CORES
@pytest.mark.parametrize("kind", [ResidentDataset, StreamingDataset])
def test_persistent_workers_draw_another_order_each_epoch(
    kind: type[ResidentDataset | StreamingDataset], nine: ShardDataset
) -> None:
    mode = "streaming" if kind is StreamingDataset else "resident"
    options = LoaderOptions(mode=mode, shuffle=True)  # type: ignore[arg-type]
    dataset = kind(nine, "train", options)
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, persistent_workers=True, collate_fn=collate
    )
    orders = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        orders.append([image_id for batch in loader for image_id in batch.image_ids])
        assert sorted(orders[-1]) == nine_ids()
    assert len({tuple(order) for order in orders}) == 3
    dataset.set_epoch(0)
    assert [image_id for batch in loader for image_id in batch.image_ids] == orders[0]


def test_items_of_a_resident_dataset_are_in_the_epochs_order(nine: ShardDataset) -> None:
    options = LoaderOptions(shuffle=True, rank=1, world_size=2)
    dataset = ResidentDataset(nine, "train", options)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        items = [dataset[index] for index in range(len(dataset))]
        assert [item.image_id for item in items] == drawn(
            nine, epoch=epoch, shuffle=True, rank=1, world_size=2
        )
        assert_same_batch(dataset.batch([2, 0]), collate([items[2], items[0]]))


def test_reprs_say_what_is_drawn(nine: ShardDataset) -> None:
    options = LoaderOptions(batch_size=2, shuffle=True, seed=3, lanes=4, rank=1, world_size=2)
    assert repr(nine.loader("train", options)) == (
        "Loader('train', 5 batches, resident, shuffled with seed 3, 4 lanes, rank 1 of 2)"
    )
    streaming = LoaderOptions(mode="streaming", all_views=True)
    assert repr(StreamingDataset(nine, "train", streaming)) == (
        "StreamingDataset('train', streaming, in stored order, all views too)"
    )
    assert repr(ResidentDataset(nine, "train")) == (
        "ResidentDataset('train', resident, in stored order)"
    )
