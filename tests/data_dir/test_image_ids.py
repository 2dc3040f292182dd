"""Image ids as a column: whatever sets and lists of texts say of them."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep.data_dir.image_ids import ImageIds, as_column

NAMES = st.text("abcXYZ019_-", min_size=1, max_size=64)
SETS = st.sets(NAMES, max_size=30)


@given(st.lists(NAMES, max_size=30))
def test_ids_are_sorted_and_each_is_held_once(names: list[str]) -> None:
    ids = ImageIds.of(names)
    assert list(ids) == sorted(set(names))
    assert len(ids) == len(set(names))
    assert [ids[place] for place in range(-len(ids), len(ids))] == [*ids, *ids]


@given(SETS, SETS)
def test_sets_of_ids_are_those_of_texts(one: set[str], other: set[str]) -> None:
    first, second = ImageIds.of(one), ImageIds.of(other)
    assert set(first.common(second)) == one & other
    assert set(first.without(second)) == one - other
    assert set(ImageIds.union([first, second])) == one | other
    assert (first == second) == (one == other)
    assert {name for name in one | other if name in first} == one


def test_what_is_no_id_is_not_among_them() -> None:
    ids = ImageIds.of(["a", "bb"])
    for other in ("", "b", "bbb", "é", "a\0", "c" * 1000, 5, None):
        assert other not in ids
    assert ids.places(["c", "bb", "é", "a"]).tolist() == [1, 0]
    assert list(ImageIds.union([])) == []
    assert "a" not in ImageIds.of([])


@given(st.lists(NAMES, max_size=30, unique=True), st.integers(0, 30), st.integers(0, 30))
def test_slice_holds_the_ids_between_and_pickles_no_others(
    names: list[str], start: int, end: int
) -> None:
    ids = ImageIds.of(names)
    assert list(ids[start:end]) == sorted(names)[start:end]
    copied = pickle.loads(pickle.dumps(ids[start:end]))
    assert copied == ids[start:end]
    assert hash(copied) == hash(ids[start:end])


def test_pickle_of_a_slice_is_small() -> None:
    ids = ImageIds.of(f"{number:010d}" for number in range(20_000))
    assert len(pickle.dumps(ids[:10])) < 2_000


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000])
def test_digest_is_that_of_lines(count: int) -> None:
    names = [f"{number:05d}" for number in range(count)]
    text = "".join(f"{name}\n" for name in names)
    assert ImageIds.of(names).sha256() == hashlib.sha256(text.encode()).hexdigest()
    assert [each.decode() for each in as_column(names).tolist()] == names


def test_ids_take_a_byte_per_character() -> None:
    assert ImageIds.of(f"2008_{number:06d}" for number in range(10_000)).column.nbytes == 110_000
