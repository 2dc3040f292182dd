"""What the loaders of several ranks draw, which shards they read, and how they go on."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from builders.drawings import Drawing, drawings
from builders.records import MemorySource, make_record
from hypothesis import given
from hypothesis import strategies as st

from vocprep.errors import UsageError
from vocprep.options import LoaderMode, LoaderOptions
from vocprep.shards.feed.batches import Batch
from vocprep.shards.feed.datasets import StreamingDataset
from vocprep.shards.feed.loading import Loader
from vocprep.shards.record import Record

MODES = ("resident", "streaming")
modes = st.sampled_from(MODES)
workers = st.sampled_from([0, 0, 1, 3])


@cache
def record(shard: int, row: int, view: str = "") -> Record:
    return make_record(f"{shard}_{row}{view}", (1, 1 + row % 3), dim=2)


def source(sizes: list[int], *, views: bool = False) -> MemorySource:
    """Records named by shard and row; with views, each has a mirrored one beside it."""
    endings = ("", "#flip") if views else ("",)
    return MemorySource(
        [
            [record(shard, row, ending) for row in range(size) for ending in endings]
            for shard, size in enumerate(sizes)
        ]
    )


def names(parts: list[list[tuple[int, int]]]) -> list[tuple[str, ...]]:
    return [tuple(f"{shard}_{row}" for shard, row in part) for part in parts]


def loader_of(
    drawing: Drawing, rank: int, mode: str, ahead: int = 0
) -> tuple[Loader, MemorySource]:
    shards = source(drawing.sizes)
    threads = ahead if mode == "streaming" else 0
    loader = Loader(shards, "train", drawing.options(rank, mode=mode, workers=threads))
    loader.set_epoch(drawing.epoch)
    return loader, shards


def ids(batches: Iterator[Batch] | Loader) -> list[tuple[str, ...]]:
    return [batch.image_ids for batch in batches]


@given(drawings(), modes, workers)
def test_ranks_draw_what_plain_lists_say(drawing: Drawing, mode: str, ahead: int) -> None:
    for rank, expected in enumerate(drawing.rank_batches()):
        loader, _ = loader_of(drawing, rank, mode, ahead)
        assert ids(loader) == names(expected)
        assert len(loader) == len(expected)
        assert loader.samples == sum(drawing.sizes)


@given(drawings(), modes)
def test_mirrored_views_are_records_like_any_other(drawing: Drawing, mode: str) -> None:
    doubled = Drawing(**{**vars(drawing), "sizes": [2 * size for size in drawing.sizes]})
    for rank, batches in enumerate(doubled.rank_batches()):
        expected = [
            tuple(f"{shard}_{row // 2}{'#flip' * (row % 2)}" for shard, row in batch)
            for batch in batches
        ]
        shards = source(drawing.sizes, views=True)
        for all_views, wanted in ((True, expected), (False, names(drawing.rank_batches()[rank]))):
            options = drawing.options(rank, mode=mode, all_views=all_views)
            loader = Loader(shards, "train", options)
            loader.set_epoch(drawing.epoch)
            assert ids(loader) == wanted


@given(drawings(), workers)
def test_streaming_rank_reads_the_shards_of_its_lanes_only(drawing: Drawing, ahead: int) -> None:
    opened = 0
    for rank, batches in enumerate(drawing.rank_batches()):
        loader, shards = loader_of(drawing, rank, "streaming", ahead)
        list(loader)
        reads = [f"train-{shard:05d}.h5" for shard in drawing.reads(rank)]
        assert {*shards.opened} <= {*reads}
        if [] not in batches:  # else one is read for the shape of blank batches, too
            assert sorted(shards.opened) == sorted(reads[: len(shards.opened)])
            opened += len(shards.opened)
        assert shards.prefetched == reads[: len(shards.prefetched)]
    if drawing.world_size <= (lanes := len(drawing.lane_lists())):
        assert opened <= len(drawing.sizes) + lanes - 1


@given(drawings(), st.data())
def test_state_goes_on_with_exactly_the_remaining_batches(
    drawing: Drawing, data: st.DataObject
) -> None:
    """In a loader of another mode, number of ranks, of workers; nothing of before is read."""
    whole = drawing.batches()
    done = data.draw(st.integers(0, len(whole)), label="batches before")
    loader, _ = loader_of(drawing, drawing.world_size - 1, data.draw(modes), data.draw(workers))
    passing = iter(loader)
    for _ in range(done):
        next(passing)
    state = json.loads(json.dumps(loader.state_dict()))
    ranks = data.draw(st.integers(1, 5), label="ranks after")
    other = Drawing(**{**vars(drawing), "world_size": ranks})
    mode = data.draw(modes)
    for rank, batches in enumerate(other.rank_batches()):
        resumed, shards = loader_of(other, rank, mode, data.draw(workers))
        resumed.set_epoch(7)
        resumed.load_state_dict(state)
        assert resumed.epoch == drawing.epoch
        assert resumed.state_dict() == state
        resumed.set_epoch(drawing.epoch)  # as a loop over epochs does
        assert ids(resumed) == names(batches[done:])
        if mode == "streaming" and [] not in batches[done:]:
            reads = [f"train-{shard:05d}.h5" for shard in other.reads(rank, first=done)]
            assert sorted(shards.opened) == sorted(reads[: len(shards.opened)])
        assert resumed.state_dict() == {**state, "batches": len(whole)}
        assert ids(resumed) == names(batches)  # the next pass is whole again


@pytest.mark.parametrize("mode", MODES)
def test_state_is_that_of_the_last_batch_that_was_given(mode: LoaderMode) -> None:
    loader = Loader(source([3, 2]), "train", LoaderOptions(batch_size=2, mode=mode))
    assert loader.state_dict()["batches"] == 0
    seen = [loader.state_dict()["batches"] for _ in loader]
    assert seen == [1, 2, 3]
    passing = iter(loader)
    assert loader.state_dict()["batches"] == 0
    next(passing)
    assert loader.state_dict()["batches"] == 1
    loader.set_epoch(1)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_set_epoch_of_another_epoch_begins_with_its_first_batch(mode: LoaderMode) -> None:
    options = LoaderOptions(batch_size=2, mode=mode, shuffle=True)
    loader = Loader(source([3, 2]), "train", options)
    next(iter(loader))
    state = loader.state_dict()
    for epoch in (1, 0):
        loader.load_state_dict(state)
        loader.set_epoch(1)
        loader.set_epoch(epoch)
        assert len(ids(loader)) == 3


FOREIGN = {
    "seed": ({"seed": 1}, "seed: 1 and 0"),
    "batch_size": ({"batch_size": 3}, "batch_size: 3 and 2"),
    "lanes": ({"lanes": 2}, "lanes: 2 and 1"),
    "shuffle": ({"shuffle": False}, "shuffle: False and True"),
    "all_views": ({"all_views": True}, "all_views: True and False"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_state_of_other_options_is_refused_with_both_values(name: str) -> None:
    changes, expected = FOREIGN[name]
    options = {"batch_size": 2, "shuffle": True}
    other = Loader(source([3, 2]), "train", LoaderOptions(**{**options, **changes}))  # type: ignore[arg-type]
    loader = Loader(source([3, 2]), "train", LoaderOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"there and here: {expected}; load it into a loader of"):
        loader.load_state_dict(other.state_dict())


def test_state_of_another_version_split_or_layout_is_refused() -> None:
    loader = Loader(source([3, 2]), "train")
    state = loader.state_dict()
    other = source([3, 2])
    other.content_id = "cd" * 32
    with pytest.raises(UsageError, match="content_id: abababababab… and cdcdcdcdcdcd…; load"):
        Loader(other, "train").load_state_dict(state)
    with pytest.raises(UsageError, match="split: 'train' and 'val'; load"):
        Loader(source([3, 2]), "val").load_state_dict(state)
    with pytest.raises(UsageError, match=r"shards_sha256: \w{12}… and \w{12}…; load"):
        Loader(source([2, 3]), "train").load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": -1}, "epoch -1: expected 0 or more"),
        ({"epoch": 2**63}, "epoch 9223372036854775808: expected at most"),
        ({"batches": 2.5}, "batches 2.5: expected a whole number"),
        ({"batches": 2}, "batches 2: expected at most the 1 of an epoch"),
        ({"more": 1}, "more: no field of this name is known"),
        ({"seed": object()}, "expected what a loader's state_dict returned"),
    ],
)
def test_state_that_no_loader_gave_is_refused(changes: dict[str, object], message: str) -> None:
    loader = Loader(source([3, 2]), "train")
    with pytest.raises(UsageError, match=message):
        loader.load_state_dict({**loader.state_dict(), **changes})
    with pytest.raises(UsageError, match="content_id: expected a value, found none"):
        loader.load_state_dict({})
    assert len(ids(loader)) == 1


@pytest.mark.parametrize("epoch", [-1, 2**63, 1.5, None, "1"])
def test_epoch_that_there_is_not_is_refused(epoch: Any) -> None:
    with pytest.raises(UsageError, match=rf"epoch {epoch!r}: expected a whole number from 0"):
        Loader(source([1]), "train").set_epoch(epoch)


@pytest.mark.parametrize("state", [None, 5, "text", [("epoch", 1)]])
def test_state_that_is_no_mapping_is_refused(state: Any) -> None:
    loader = Loader(source([1]), "train")
    with pytest.raises(UsageError, match=r"^state of a loader: .*expected a \w+"):
        loader.load_state_dict(state)


@pytest.mark.parametrize("mode", MODES)
def test_largest_sizes_of_a_batch_and_of_a_world(mode: LoaderMode) -> None:
    largest = 2**63 - 1
    options = LoaderOptions(mode=mode, batch_size=largest, world_size=largest, lanes=largest)
    assert len(ids(Loader(source([3, 2]), "train", options))) == 1
    for name in ("batch_size", "world_size", "lanes"):
        with pytest.raises(UsageError, match=f"{name} {largest + 1}: expected at most {largest}"):
            LoaderOptions(**{name: largest + 1})


@pytest.mark.parametrize("mode", MODES)
def test_rank_without_a_record_has_a_blank_batch(mode: LoaderMode) -> None:
    options = LoaderOptions(batch_size=1, mode=mode, rank=1, world_size=2, label_maps=True)
    blank, own, last = Loader(source([3]), "train", options)
    assert (len(blank), len(own), len(last)) == (0, 0, 0)
    options = LoaderOptions(batch_size=2, mode=mode, rank=1, world_size=2, label_maps=True)
    own, blank = Loader(source([3]), "train", options)
    assert own.image_ids == ("0_1",)
    assert repr(blank).startswith("Batch(0 records, ")
    assert blank.label_maps == ()
    assert blank.has_padding
    assert blank.padding.all()
    assert len(blank.embeddings) == len(blank.grids) == 1
    assert not blank.embeddings.any()
    assert (blank.slot_labels == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 2])
def test_streaming_holds_a_shard_per_lane_and_what_is_read_ahead(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes, at_reads, at_batches = 3, [0], [0]
    alive: weakref.WeakSet[Record] = weakref.WeakSet()
    lock, plain = threading.Lock(), MemorySource.read_shard

    def shards_in_memory() -> int:
        gc.collect()
        with lock:
            return len({each.image_id.split("_")[0] for each in alive})

    def copied(self: MemorySource, name: str, *, all_views: bool = False) -> Iterator[Record]:
        at_reads.append(shards_in_memory())
        for each in plain(self, name, all_views=all_views):
            made = Record(**vars(each))
            with lock:
                alive.add(made)
            yield made

    monkeypatch.setattr(MemorySource, "read_shard", copied)
    options = LoaderOptions(batch_size=3, mode="streaming", lanes=lanes, workers=ahead)
    for _ in Loader(source([4] * 12), "train", options):
        at_batches.append(shards_in_memory())
    assert max(at_batches) <= lanes + (ahead + 2 if ahead else 0)
    if not ahead:  # a lane's shard is gone before its next one is read
        assert max(at_reads) == lanes - 1


def test_shards_are_named_to_the_source_before_they_are_read() -> None:
    shards = source([4] * 12)
    options = LoaderOptions(batch_size=3, mode="streaming", lanes=3, shuffle=True)
    batches = iter(Loader(shards, "train", options))
    assert not shards.prefetched
    next(batches)
    assert len(shards.opened) == 3
    assert len(shards.prefetched) == 3 + 4  # one more per lane, and one
    list(batches)
    assert shards.prefetched == shards.opened
    assert len(shards.opened) == 12
    resident = source([4] * 12)
    Loader(resident, "train")
    assert sorted(resident.prefetched) == sorted(resident.opened) == list(resident.shards)


@given(drawings(), st.integers(1, 3))
def test_worker_processes_share_out_what_their_rank_draws(drawing: Drawing, workers: int) -> None:
    """Without processes: each worker is told its number as torch tells it."""
    for rank, batches in enumerate(drawing.rank_batches()):
        seen, opened = [], []
        for number in range(workers):
            shards = source(drawing.sizes)
            dataset = StreamingDataset(shards, "train", drawing.options(rank, mode="streaming"))
            dataset.set_epoch(drawing.epoch)
            info = SimpleNamespace(id=number, num_workers=workers)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "vocprep.shards.feed.datasets.get_worker_info", lambda info=info: info
                )
                seen += [record.image_id for record in dataset]
            opened += shards.opened
        assert sorted(seen) == sorted(chain(*names(batches)))
        assert len(opened) <= len(drawing.reads(rank))


def test_rank_and_world_size_come_from_the_environment_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    options = LoaderOptions(batch_size=7, seed=3)
    assert options.for_this_process() == options
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert LoaderOptions() == LoaderOptions(rank=0, world_size=1)
    assert options.for_this_process() == LoaderOptions(batch_size=7, seed=3, rank=2, world_size=3)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"RANK": "1"}, "found RANK=1; start"),
        ({"WORLD_SIZE": "2"}, "found WORLD_SIZE=2; start"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "found RANK=2, WORLD_SIZE=2; start"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "found RANK=-1, WORLD_SIZE=2; start"),
        ({"RANK": "one", "WORLD_SIZE": ""}, "found RANK=one, WORLD_SIZE=; start"),
    ],
)
def test_environment_that_names_no_rank_is_refused(
    variables: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=found):
        LoaderOptions().for_this_process()
