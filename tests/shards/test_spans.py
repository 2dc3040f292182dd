"""Spans of shards: what they tell of the records, against lists of them."""

from __future__ import annotations

import subprocess

from builders.records import IMAGE_IDS
from hypothesis import given
from hypothesis import strategies as st

from vocprep.shards.spans import ShardSpan, ids_sha256

RECORD_IDS = st.builds(str.__add__, IMAGE_IDS, st.sampled_from(["", "#flip"]))


def test_digest_is_that_of_a_text_file_of_ids() -> None:
    ids = ["2008_000002", "2008_000002#flip", "2008_000008"]
    text = "".join(f"{each}\n" for each in ids).encode()
    found = subprocess.run(["sha256sum"], input=text, stdout=subprocess.PIPE, check=True)
    assert ids_sha256(ids) == found.stdout.decode().split()[0]


@given(st.sets(RECORD_IDS, min_size=1, max_size=9))
def test_span_describes_ids_in_order(record_ids: set[str]) -> None:
    in_order = sorted(record_ids)
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
