"""The nearest patches are those that a comparison with every patch finds, ties too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.records import make_record, write_version
from numpy.typing import NDArray

from vocprep.analysis.neighbours import Patches, PatchIndex, cosines, similarity_map
from vocprep.errors import UsageError


def exact_cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """By sums without rounding, of which there is one at the end."""
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    squares = math.fsum(a * a for a, _ in pairs), math.fsum(b * b for _, b in pairs)
    if not (all(map(math.isfinite, squares)) and min(squares) > 0):
        return 0.0
    return math.fsum(a * b for a, b in pairs) / math.sqrt(squares[0]) / math.sqrt(squares[1])


def brute_force(
    embeddings: NDArray[np.floating], vector: NDArray[np.floating], count: int, without: int | None
) -> list[int]:
    """Every patch, sorted by its cosine; equal ones by their place."""
    found = [
        (-exact_cosine(row, vector), number)
        for number, row in enumerate(embeddings)
        if number != without
    ]
    return [number for _, number in sorted(found)[:count]]


def index_of(embeddings: NDArray[np.floating]) -> PatchIndex:
    count = len(embeddings)
    patches = Patches(
        record_ids=[f"{number:05d}" for number in range(count)],
        starts=np.arange(count + 1),
        embeddings=embeddings,
        slot_labels=np.zeros((count, 4), dtype=np.int16),
        slot_pixels=np.zeros((count, 4), dtype=np.uint16),
    )
    return PatchIndex(patches)


def drawn(kind: str, count: int, size: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([count, size])
    plain = rng.standard_normal((count, size))
    if kind == "ties":  # a few patches, each many times, as white sky is
        plain = plain[rng.integers(0, 7, count)]
    if kind == "near ties":  # differences below what single precision tells
        plain = plain[rng.integers(0, 3, count)] + rng.standard_normal((count, size)) * 2e-5
    if kind == "far lengths":
        plain *= 10.0 ** rng.integers(-18, 15, (count, 1))
    if kind == "odd":
        plain[::5] = 0
        plain[1::50] = np.nan
        plain[2::50, 0] = np.inf
    return plain.astype(np.float32)


@pytest.mark.parametrize("kind", ["random", "ties", "near ties", "far lengths", "odd"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_the_nearest_are_those_of_a_search_through_all(kind: str, dtype: type) -> None:
    embeddings = drawn(kind, 2500, 24).astype(dtype)
    index = index_of(embeddings)
    for number in (0, 1, 2, 1303, 2499):
        for count in (1, 40):
            found = index.nearest(embeddings[number], count, without=number)
            expected = brute_force(embeddings, embeddings[number], count, number)
            assert found.numbers.tolist() == expected
            near = [exact_cosine(embeddings[n], embeddings[number]) for n in expected]
            np.testing.assert_allclose(found.similarities, near, rtol=0, atol=1e-12)


def test_more_are_asked_for_than_there_are() -> None:
    embeddings = drawn("random", 5, 3)
    found = index_of(embeddings).nearest(embeddings[2], 50)
    assert found.numbers.tolist() == brute_force(embeddings, embeddings[2], 50, None)
    assert found.similarities[0] == pytest.approx(1)


def test_a_vector_that_is_no_patch() -> None:
    embeddings = drawn("random", 4000, 16)
    vector = np.arange(16.0) - 8
    found = index_of(embeddings).nearest(vector, 9)
    assert found.numbers.tolist() == brute_force(embeddings, vector, 9, None)


def test_other_threads_keep_their_number_of_cores() -> None:
    before = torch.get_num_threads()
    index_of(drawn("random", 100, 8)).nearest(np.ones(8), 3)
    assert torch.get_num_threads() == before


def test_an_index_of_a_version_locates_its_patches(tmp_path: Path) -> None:
    records = [
        make_record(image_id, grid)
        for image_id, grid in (("a", (2, 3)), ("a#flip", (2, 3)), ("b", (1, 1)), ("c", (2, 2)))
    ]
    dataset = write_version(tmp_path / "out", records)
    read: list[int] = []
    index = PatchIndex.of(dataset, "train", read.append)
    assert read == [1, 1, 1]
    assert len(index) == 6 + 1 + 4  # mirrored views are not among them
    assert [index.locate(number) for number in (0, 5, 6, 7, 10)] == [
        ("a", 0),
        ("a", 5),
        ("b", 0),
        ("c", 0),
        ("c", 3),
    ]
    expected = np.concatenate([records[row].slot_labels for row in (0, 2, 3)])
    np.testing.assert_array_equal(index.patches.slot_labels, expected)
    assert (index.number("b", 0), index.number("c", 3), index.number("a#flip", 0)) == (6, 10, None)
    patch = records[3].embeddings[2]
    assert index.locate(int(index.nearest(patch, 1).numbers[0])) == ("c", 2)
    with pytest.raises(UsageError, match="no split 'test'"):
        PatchIndex.of(dataset, "test")


def test_a_map_has_the_cosine_of_each_patch() -> None:
    embeddings = drawn("random", 6, 8)
    found = similarity_map(embeddings, 4)
    assert found.shape == (6,)
    assert found[4] == pytest.approx(1)
    for patch in range(6):
        assert found[patch] == pytest.approx(exact_cosine(embeddings[patch], embeddings[4]))
    assert cosines(np.zeros((2, 3)), np.ones(3)).tolist() == [0, 0]
