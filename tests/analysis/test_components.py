"""Principal components of embeddings as colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.records import make_record
from builders.versions import ONE_PER_SHARD, Built, write_records

from vocprep.analysis.components import Components, RowSample
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow


def test_axes_are_those_of_a_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 12)) * np.linspace(5, 1, 12) + rng.normal(size=12)
    found = Components.fit(rows)
    centred = rows - rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found.axes * axes[:3], axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:3], rtol=1e-3)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in found.axes)


def test_colours_span_the_whole_range_and_equal_embeddings_have_one_colour() -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 16)).astype(np.float16)
    found = Components.fit(rows)
    colours = found.rgb(rows, (25, 40))
    assert (colours.shape, colours.dtype) == ((25, 40, 3), np.uint8)
    assert colours.reshape(-1, 3).min(axis=0).tolist() == [0, 0, 0]
    assert colours.reshape(-1, 3).max(axis=0).tolist() == [255, 255, 255]
    same = found.rgb(np.repeat(rows[:1], 6, axis=0), (2, 3))
    assert len(np.unique(same.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((4, 8)),
        np.ones((1, 8)),
        np.arange(6.0)[:, None],
        np.array([[np.inf, 1.0], [np.nan, 2.0], [0.0, 3.0]]),
        np.array([[3e38, -3e38, 1.0], [-3e38, 1e38, 2.0]], dtype=np.float32),
    ],
    ids=["zeros", "one row", "one number", "not finite", "huge"],
)
def test_embeddings_without_three_directions_have_colours(rows: np.ndarray) -> None:
    colours = Components.fit(rows).rgb(rows, (len(rows), 1))
    assert colours.shape == (len(rows), 1, 3)


def test_components_of_a_version_are_the_same_each_time(crop_hdf5: Built) -> None:
    one, other = (Components.of(crop_hdf5.dataset) for _ in range(2))
    np.testing.assert_array_equal(one.axes, other.axes)
    assert one.rows == sum(shard.patches for shard in crop_hdf5.index.shards)


def test_a_sample_of_many_shards_is_spread_over_them(tmp_path: Path) -> None:
    records = [make_record(f"{number:03d}", (1, 1), dim=4) for number in range(30)]
    path = write_records(tmp_path / "out", records, ONE_PER_SHARD)
    assert Components.of(ShardDataset.open(path)).rows == 8


@pytest.mark.parametrize(("total", "most"), [(10, 3), (100, 99), (5, 5), (5, 9), (1, 1)])
def test_rows_of_a_sample_are_spread_evenly(total: int, most: int) -> None:
    sample = RowSample(total=total, most=most)
    begin, chosen = 0, []
    for count in (1, 2, total - 3 if total > 3 else 0, total):
        size = min(count, total - begin)
        chosen += [begin + int(row) for row in sample.pick(size)]
        begin += size
    assert len(chosen) == min(total, most)
    gaps = np.diff(chosen)
    assert total <= most or gaps.max() - gaps.min() <= 1
