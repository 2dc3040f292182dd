"""Batches and the table that they are gathered from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.records import (
    BATCH_TENSORS,
    GRIDS,
    assert_same_batch,
    make_record,
    write_version,
)
from hypothesis import given
from hypothesis import strategies as st

from vocprep.labels.targets import unpack_states
from vocprep.shards.feed.batches import PatchTable, collate
from vocprep.shards.feed.datasets import ResidentDataset
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow


@st.composite
def records_and_choice(draw: st.DrawFn) -> tuple[list[Record], list[int]]:
    grids = draw(st.lists(GRIDS, min_size=1, max_size=5))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    records = [
        make_record(f"id_{number}", grid, dim=8, dtype=dtype) for number, grid in enumerate(grids)
    ]
    chosen = draw(st.lists(st.integers(0, len(records) - 1), min_size=1, max_size=6))
    return records, chosen


@given(records_and_choice(), st.booleans())
def test_batches_gathered_in_memory_are_those_of_collate(
    made: tuple[list[Record], list[int]], label_maps: bool
) -> None:
    records, chosen = made
    with tempfile.TemporaryDirectory() as folder:
        resident = ResidentDataset(write_version(Path(folder), records), "train")
        assert_same_batch(
            resident.batch(chosen, label_maps=label_maps),
            collate([records[index] for index in chosen], label_maps=label_maps),
        )


def test_collate_pads_to_the_longest_record() -> None:
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


def test_batch_moves_to_a_device_with_all_that_it_holds() -> None:
    batch = collate([make_record("a")], label_maps=True)
    moved = batch.to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in BATCH_TENSORS} == {"meta"}
    assert moved.image_ids == batch.image_ids
    assert moved.label_maps is batch.label_maps


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3), slice(0, 3, 2), slice(3)])
def test_part_of_a_batch_is_the_batch_of_that_part(rows: slice) -> None:
    records = [make_record("a", (1, 2)), make_record("b", (2, 3)), make_record("c", (1, 1))]
    whole = collate(records, label_maps=True)
    assert_same_batch(whole.part(rows), collate(records[rows], label_maps=True))


def test_blank_batch_is_padding_of_the_same_shapes() -> None:
    batch = collate([make_record("a", (1, 2)), make_record("b", (1, 2))])
    assert not batch.has_padding
    blank = batch.blank()
    assert blank.has_padding
    assert blank.padding.all()
    padded = collate([make_record("a", (1, 1)), make_record("b", (1, 2))])
    for name in ("embeddings", "slot_labels", "slot_pixels", "slot_planes"):
        field = getattr(blank, name)
        assert field.shape == getattr(batch, name).shape
        assert field.dtype == getattr(batch, name).dtype
        assert (field == getattr(padded, name)[0, 1]).all()


def test_table_on_a_device_gathers_without_reading_row_numbers_there() -> None:
    table = PatchTable.of([make_record("a", (1, 2)), make_record("b", (2, 3))])
    rows = np.array([1, 0])
    placed = torch.tensor([1, 0])
    assert_same_batch(table.to(torch.device("cpu")).gather(rows, placed), table.gather(rows))
    on_meta = table.to(torch.device("meta")).gather(rows, placed.to("meta"))
    assert {getattr(on_meta, name).device.type for name in BATCH_TENSORS} == {"meta"}
    assert on_meta.has_padding
    assert on_meta.image_ids == ("b", "a")


def test_repr_of_a_batch_names_its_sizes() -> None:
    batch = collate([make_record("a", (1, 2)), make_record("b", (2, 3))])
    assert (
        repr(batch) == "Batch(2 records, 6 patches each, 256 numbers per patch, some padding, cpu)"
    )
