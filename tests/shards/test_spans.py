"""Spans of shards: what they tell of the records, against lists of them."""

from __future__ import annotations

import subprocess

from builders.records import IMAGE_IDS
from hypothesis import given
from hypothesis import strategies as st

from vocprep.shards.spans import ShardSpan, SpanSearch, ids_sha256

VIEWS = ["", "#flip", "#crop1"]
RECORD_IDS = st.builds(str.__add__, IMAGE_IDS, st.sampled_from(VIEWS))


def place(record_id: str) -> tuple[str, int]:
    """What ids are in order by, said otherwise than by the library: none has a ``#`` of its own."""
    image_id, mark, view = record_id.partition("#")
    return image_id, VIEWS.index(mark + view)


def test_digest_is_that_of_a_text_file_of_ids() -> None:
    ids = ["2008_000002", "2008_000002#flip", "2008_000008"]
    text = "".join(f"{each}\n" for each in ids).encode()
    found = subprocess.run(["sha256sum"], input=text, stdout=subprocess.PIPE, check=True)
    assert ids_sha256(ids) == found.stdout.decode().split()[0]


@given(st.sets(RECORD_IDS, min_size=1, max_size=9))
def test_span_describes_ids_in_order(record_ids: set[str]) -> None:
    in_order = sorted(record_ids, key=place)
    span = ShardSpan.of(in_order)
    assert span.images == len(record_ids) - "".join(in_order).count("#")
    assert (span.first_id, span.last_id) == (in_order[0], in_order[-1])
    assert span == ShardSpan.of(tuple(in_order))


@given(st.lists(RECORD_IDS, min_size=2, max_size=9, unique=True), st.data())
def test_other_ids_or_another_order_have_another_digest(
    record_ids: list[str], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(record_ids))
    assert (ids_sha256(other) == ids_sha256(record_ids)) == (other == record_ids)
    assert ids_sha256(record_ids[:-1]) != ids_sha256(record_ids)


SHARDS = st.lists(st.sets(RECORD_IDS, min_size=1, max_size=4), max_size=8)


@given(SHARDS, SHARDS, RECORD_IDS)
def test_search_finds_the_shards_whose_ends_enclose_an_id(
    train: list[set[str]], val: list[set[str]], record_id: str
) -> None:
    """Of spans that overlap too, as earlier formats do not exclude."""
    shards = {
        f"{split}-{number}": sorted(ids, key=place)
        for split, each in (("train", train), ("val", val))
        for number, ids in enumerate(each)
    }
    search = SpanSearch(
        (name.partition("-")[0], name, ShardSpan.of(ids)) for name, ids in shards.items()
    )
    for asked in (record_id, *(ids[0] for ids in shards.values())):
        expected = [
            name for name, ids in shards.items() if place(ids[0]) <= place(asked) <= place(ids[-1])
        ]
        assert sorted(search.find(asked)) == sorted(expected)
    assert {*search.nearest(record_id)} <= {*shards}
    assert len({*search.nearest(record_id)}) == bool(train) + bool(val)


@given(st.sets(RECORD_IDS, min_size=1), st.integers(1, 4), st.data())
def test_search_names_one_shard_of_ids_that_were_cut_in_order(
    record_ids: set[str], size: int, data: st.DataObject
) -> None:
    in_order = sorted(record_ids, key=place)
    cuts = [in_order[start : start + size] for start in range(0, len(in_order), size)]
    search = SpanSearch(("train", str(row), ShardSpan.of(ids)) for row, ids in enumerate(cuts))
    asked = data.draw(st.sampled_from(in_order))
    (found,) = search.find(asked)
    assert asked in cuts[int(found)]
    assert list(search.nearest(asked)) == [found]
