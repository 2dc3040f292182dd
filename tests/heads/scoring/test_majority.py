"""The classes of the constant prediction, against the pixels of label maps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from builders.records import record_of

from vocprep.heads.scoring.majority import most_frequent_classes
from vocprep.labels.label_space import load_label_space
from vocprep.shards.record import Record

SPACE = load_label_space("voc21")


def test_the_most_frequent_classes_have_the_most_pixels_of_the_label_maps() -> None:
    rng = np.random.default_rng(7)
    records = []
    for number in range(6):
        # Every second picture has patches of more classes than slots.
        ids = rng.permutation([*range(9), SPACE.void])[: 3 + 5 * (number % 2)]
        blocks = rng.choice(ids, size=(8, 12)).astype(np.uint16)
        label_map = blocks.repeat(8, axis=0).repeat(8, axis=1)
        records.append(record_of(f"p{number}", label_map, void=SPACE.void))
    assert {record.label_count.max() > 4 for record in records} == {False, True}
    pixels = Counter(int(i) for record in records for i in record.label_map.flat)
    del pixels[SPACE.void]
    expected = sorted(pixels, key=lambda each: (-pixels[each], each))[:4]
    assert most_frequent_classes(records, SPACE) == expected


def test_of_as_many_pixels_the_smaller_id_comes_first_and_void_is_none() -> None:
    halves = np.repeat([[5, 3]], 16, axis=1).repeat(32, axis=0).astype(np.uint16)
    void = np.full((32, 32), SPACE.void, dtype=np.uint16)
    assert most_frequent_classes([record_of("a", halves)], SPACE) == [3, 5]
    assert most_frequent_classes([record_of("b", void, void=SPACE.void)], SPACE) == [0]


def test_label_maps_are_decoded_only_where_slots_do_not_hold_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = record_of("a", np.full((32, 32), 4, dtype=np.uint16))
    monkeypatch.setattr(Record, "decode_label_map", lambda _: pytest.fail("decoded"))
    assert most_frequent_classes([found], SPACE) == [4]
