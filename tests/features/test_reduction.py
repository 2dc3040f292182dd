"""Reduced embeddings: sums that no machine rounds, against Python's integers."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vocprep.errors import DataError, UsageError
from vocprep.features import reduction
from vocprep.features.reduction import Reducer, make_projection, projection_signs

CPU = torch.device("cpu")
LARGEST = 65504.0


def projection(numbers: int, size: int, seed: int = 0) -> Reducer:
    return make_projection(seed, numbers, size, CPU)


def expected_signs(seed: int, numbers: int, size: int) -> list[list[int]]:
    """Bit k of the stream, the lowest of each word first, is the sign of entry k."""
    stream = np.random.PCG64(seed)
    words = [int(stream.random_raw()) for _ in range(numbers * size // 64 + 1)]
    signs = [1 if words[k // 64] >> (k % 64) & 1 else -1 for k in range(numbers * size)]
    return [signs[row * size : (row + 1) * size] for row in range(numbers)]


def expected_projection(
    embeddings: NDArray[np.float32], signs: list[list[int]]
) -> NDArray[np.float32]:
    """Every sum by Python's integers, divided by the power of two from sqrt(N) on."""
    numbers, columns = len(signs), list(zip(*signs, strict=True))
    root = isqrt(numbers - 1) + 1  # rounded up
    divisor = 1 << (root - 1).bit_length()
    rows = []
    for row in embeddings.astype(np.float16):
        integers = [int(Fraction(float(x)) * 2**24) for x in row]
        sums = [sum(x * s for x, s in zip(integers, column, strict=True)) for column in columns]
        rows.append([np.float32(each) / np.float32(2**24 * divisor) for each in sums])
    return np.array(rows, dtype=np.float32)


def drawn(shape: tuple[int, int], scale: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    normal = np.random.default_rng(seed).normal(size=shape, scale=scale)
    return normal.astype(np.float32)


@given(st.integers(1, 70), st.integers(1, 9), st.integers(0, 2**70), st.floats(1e-9, 6e4))
def test_projections_are_those_of_whole_numbers(
    numbers: int, size: int, seed: int, scale: float
) -> None:
    embeddings = np.clip(drawn((3, numbers), scale), -LARGEST, LARGEST)
    signs = expected_signs(seed, numbers, size)
    found = projection(numbers, size, seed).reduce(embeddings)
    np.testing.assert_array_equal(found, expected_projection(embeddings, signs), strict=True)


def test_sums_beyond_53_bits_are_exact_too() -> None:
    """Of so many of the largest numbers float64 holds no sum; one unit more still counts."""
    numbers = 9000
    embeddings = np.full((2, numbers), LARGEST, dtype=np.float32)
    embeddings[1, 0] = 2.0**-24
    matrix = np.ones((numbers, 1), dtype=np.int8)
    found = Reducer(matrix, bits=0, device=CPU)._sums(torch.from_numpy(embeddings).half())
    assert found[:, 0].tolist() == [65504 * 2**24 * numbers, 65504 * 2**24 * (numbers - 1) + 1]


def test_signs_are_the_same_for_ever() -> None:
    signs = projection_signs(7, 300, 50)
    assert set(signs.ravel().tolist()) == {-1, 1}
    assert abs(int(signs.sum())) < 500
    assert hashlib.sha256(signs.tobytes()).hexdigest()[:16] == "3997dcca956a6963"


def test_bits_do_not_depend_on_threads_or_on_neighbours() -> None:
    embeddings, made = drawn((1100, 400)), projection(400, 48)
    whole = made.reduce(embeddings)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        np.testing.assert_array_equal(made.reduce(embeddings), whole)
    finally:
        torch.set_num_threads(threads)
    order = np.random.default_rng(1).permutation(1100)
    np.testing.assert_array_equal(made.reduce(embeddings[order]), whole[order])
    np.testing.assert_array_equal(made.reduce(embeddings[5:6]), whole[5:6])
    assert made.reduce(embeddings[:0]).shape == (0, 48)


def test_distances_stay_about_the_same() -> None:
    embeddings = drawn((40, 1024))
    found = projection(1024, 256).reduce(embeddings)
    before, after = (np.linalg.norm(x - x[:1], axis=1)[1:] for x in (embeddings, found))
    np.testing.assert_allclose(after / before, 256**0.5 / 32, rtol=0.2)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 70000.0])
def test_numbers_that_float16_does_not_hold_are_refused(value: float) -> None:
    embeddings = drawn((3, 8))
    embeddings[1, 2] = value
    with pytest.raises(DataError, match=r"at most 65,504, .* leave that option out"):
        projection(8, 4).reduce(embeddings)


def test_a_machine_that_rounds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a library that multiplies float64 in float32."""

    def rounding(numbers: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return (numbers.float() @ matrix.float()).double()

    monkeypatch.setattr(reduction, "_multiply", rounding)
    with pytest.raises(UsageError, match=r"device 'cpu': rounds sums .* use --device cpu"):
        projection(300, 4)
