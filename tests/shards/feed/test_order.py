"""The order of an epoch, its lanes and batches, and what each rank draws of them."""

from __future__ import annotations

from itertools import chain, pairwise

from builders.drawings import Drawing, drawings
from hypothesis import given

from vocprep.options import LoaderOptions
from vocprep.shards.feed.order import BatchPlan, EpochOrder, batch_bounds, epoch_order


@given(drawings())
def test_ranks_draw_what_plain_lists_say(drawing: Drawing) -> None:
    stored = drawing.stored()
    for rank, batches in enumerate(drawing.rank_batches()):
        options = drawing.options(rank)
        order = epoch_order(drawing.sizes, options, drawing.epoch).tolist()
        bounds = batch_bounds(drawing.sizes, options)
        drawn = [stored[row] for row in order]
        assert [drawn[start:stop] for start, stop in pairwise(bounds)] == batches
        assert BatchPlan.of(drawing.sizes, options).batch_sizes() == [
            len(batch) for batch in drawing.batches()
        ]


@given(drawings())
def test_ranks_together_draw_the_same_batches_whatever_their_number(drawing: Drawing) -> None:
    """Of the plain lists, which the test above compares with."""
    whole = drawing.batches()
    assert sorted(chain(*whole)) == drawing.stored()
    for step, batch in enumerate(whole):
        parts = [batches[step] for batches in drawing.rank_batches()]
        assert sorted(chain(*parts)) == sorted(batch)


@given(drawings())
def test_pieces_are_read_in_the_order_of_need(drawing: Drawing) -> None:
    order = drawing.order()
    for rank, batches in enumerate(drawing.rank_batches()):
        options = drawing.options(rank)
        plan = BatchPlan.of(drawing.sizes, options)
        epoch = EpochOrder(drawing.sizes, options, drawing.epoch)
        for first in range(len(batches)):
            needed = list(chain(*batches[first:]))
            pieces = list(epoch.pieces(plan, first * plan.batch_size))
            read = []
            for piece in pieces:
                rows = [(piece.shard, row) for row in epoch.rows(piece).tolist()]
                assert rows == order[piece.first : piece.last]
                read += rows
            assert len(read) == len({*read})
            if plan.world_size <= plan.lanes:
                assert sorted(read) == sorted(needed)
                firsts = [needed.index(order[piece.first]) for piece in pieces]
                assert firsts == sorted(firsts)
            else:  # others draw of this lane too
                assert {*needed} <= {*read}


def test_one_lane_is_shard_after_shard() -> None:
    """As earlier versions drew, whose runs go on with the same bits."""
    options = LoaderOptions(shuffle=True, seed=5)
    assert epoch_order([3, 2, 4, 1], options, 2).tolist() == [2, 1, 0, 4, 3, 9, 7, 8, 5, 6]


def test_lanes_of_one_rank_are_those_of_no_other() -> None:
    sizes, read = [4] * 8, []
    for rank in range(4):
        options = LoaderOptions(lanes=8, rank=rank, world_size=4, shuffle=True)
        plan = BatchPlan.of(sizes, options)
        assert list(plan.own_lanes) == [rank, rank + 4]
        read += [piece.shard for piece in EpochOrder(sizes, options, 0).pieces(plan)]
    assert sorted(read) == list(range(8))


def test_ranks_beside_one_another_share_a_lane_where_they_are_more() -> None:
    options = [LoaderOptions(lanes=2, rank=rank, world_size=5) for rank in range(5)]
    lanes = [list(BatchPlan.of([4, 4], each).own_lanes) for each in options]
    assert lanes == [[0], [0], [0], [1], [1]]
