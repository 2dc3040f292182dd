"""Limits: images in all are shared over the splits in proportion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep.data_dir.limits import Limit
from vocprep.errors import UsageError

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1)


@given(COUNTS, st.integers(1, 3000))
def test_a_total_is_used_up_in_proportion(counts: dict[str, int], total: int) -> None:
    if total < len(counts):
        with pytest.raises(UsageError, match=f"limit {total}: expected at least {len(counts)}"):
            Limit(total=total).of(counts)
        return
    taken = Limit(total=total).of(counts)
    whole = sum(counts.values())
    assert sum(taken.values()) == min(total, whole)
    for split, count in counts.items():
        assert 1 <= taken[split] <= count
        if min(counts.values()) * total >= whole:  # no split is raised to one image
            assert abs(taken[split] - min(1, total / whole) * count) < 1


def test_limits_per_split() -> None:
    counts = {"train": 10, "val": 3}
    assert Limit().of(counts) == counts
    assert Limit(per_split=5).of(counts) == {"train": 5, "val": 3}
    assert Limit(per_split={"val": 1}).of(counts) == {"train": 10, "val": 1}
    assert Limit(total=4, per_split=3).of(counts) == {"train": 2, "val": 2}


def test_a_limit_of_a_split_that_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="limit_per_split of 'nope': expected some of the splits"):
        Limit(per_split={"nope": 3}).of({"train": 9, "val": 4})
