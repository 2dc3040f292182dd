"""Thousands of damaged .mat files: each is a label map or a LabelDecodeError, never a crash."""

from __future__ import annotations

import io

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.mat import DOUBLE, UINT8, Mat
from scipy.io import savemat

pytestmark = pytest.mark.slow

SEEDS = [0, 1, 2, 3]
"""Of the random numbers; a seed that once found a fault is added and stays."""
INPUTS = 2000
"""Damaged files a seed, for each of the two kinds."""


def seed_files(*, compressed: bool) -> list[bytes]:
    """Sound files of all shapes that decode."""
    map_ = np.random.default_rng(0).integers(0, 460, (23, 31), dtype=np.uint16)
    stream = io.BytesIO()
    others = {"s": {"a": 1}, "c": np.array([1, "x"], dtype=object), "t": "text", "LabelMap": map_}
    savemat(stream, others, do_compression=compressed)
    return [
        Mat().file(map_, compressed=compressed),
        Mat(order=">", stored=DOUBLE).file(map_[:5, :5], compressed=compressed),
        Mat(stored=UINT8).file(np.array([[1, 2]]), compressed=compressed),
        stream.getvalue(),
    ]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_files_decode_or_are_refused(seed: int, compressed: bool) -> None:
    decoded, refused = fuzz("mat", seed_files(compressed=compressed), INPUTS, seed)
    assert decoded + refused == INPUTS
    assert refused > INPUTS // 4
    assert decoded > 0  # damage to values or to the header's text changes no structure


def test_damage_inside_compressed_data_is_refused_by_the_reader_of_the_contents() -> None:
    """Recompressed after the damage, so that no checksum stands before the reader."""
    decoded, refused = fuzz("recompressed_mat", seed_files(compressed=False)[:3], 1000, 0)
    assert decoded + refused == 1000
    assert min(decoded, refused) > 100
