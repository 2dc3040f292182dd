"""Statistics of a version: counts over its label maps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from builders.versions import Built

from vocprep.building.finish import dataset_statistics, finish_shard


def test_statistics_are_counts_over_the_label_maps(native_hdf5: Built) -> None:
    statistics = native_hdf5.index.statistics
    pixels: Counter[str] = Counter()
    for record in native_hdf5.records.values():
        for label, count in zip(*np.unique(record.label_map, return_counts=True), strict=True):
            pixels[str(label)] += int(count)
    void = pixels.pop("0", 0)
    assert statistics["label_pixels"] == dict(pixels)
    splits = statistics["splits"]
    assert sorted(splits) == ["train", "val"]
    total = Counter[str]()
    for counts in splits.values():
        total.update(counts)
    assert total["records"] == len(native_hdf5.records)
    assert total["void_pixels"] == void
    assert total["pixels"] == void + sum(pixels.values())
    more = [(record.label_count > 4).sum() for record in native_hdf5.records.values()]
    assert total["patches_with_more_labels"] == sum(more) > 0
    none = [(record.label_count == 0).sum() for record in native_hdf5.records.values()]
    assert total["patches_without_label"] == sum(none)
    other = 0
    for record in native_hdf5.records.values():
        valid = (record.label_map != 0).sum()
        other += int(valid) - int(record.slot_pixels.astype(np.int64).sum())
    assert total["other_pixels"] == other > 0


def test_statistics_of_shards_do_not_depend_on_their_order(native_hdf5: Built) -> None:
    records = list(native_hdf5.records.values())
    plan = native_hdf5.plan
    shards = [
        finish_shard(
            replace(plan.shards[0], split=record.split), [record], [], plan.layout
        ).finished
        for record in records
    ]
    found = dataset_statistics(shards[::-1], void=0)
    statistics = dict(native_hdf5.index.statistics)
    assert statistics.pop("seconds").keys() >= {"read", "decode", "targets", "embed", "write"}
    assert found == statistics
