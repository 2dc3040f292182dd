"""Principal components against an SVD, and their application against Python's integers."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vocprep.errors import DataError, UsageError
from vocprep.features.components import (
    MOST_NUMBERS,
    Components,
    Fit,
    check_numbers,
    fit_components,
    make_reducer,
)
from vocprep.recipe import Reduction

CPU = torch.device("cpu")
FIT = Fit(fit_sha256="0" * 64, split="train", pictures=3, patches=400, variance=0.5)


@pytest.fixture(scope="module")
def embeddings() -> NDArray[np.float16]:
    """[400, 60]: the variance falls from one direction to the next; after a ReLU, as networks'."""
    generator = np.random.default_rng(0)
    directions = np.linalg.qr(generator.normal(size=(60, 60)))[0]
    drawn = generator.normal(size=(400, 60)) * 0.9 ** np.arange(60) * 5
    scales = np.repeat([0.01, 1.0, 9.0], 20)  # as of three layers
    return (np.maximum(drawn @ directions + 1, 0) * scales).astype(np.float16)


def weights_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over each number's spread rounded up to a power of two, at most 64 times the least."""
    spreads = values.std(axis=0)
    rounded = 2.0 ** np.floor(np.log2(np.maximum(spreads, spreads.max() / 64)) + 1)
    return rounded.min() / rounded


@pytest.fixture(scope="module")
def components(embeddings: NDArray[np.float16]) -> Components:
    mean, matrix, _ = fit_components(embeddings, 7)
    return Components(mean=mean, matrix=matrix, fit=FIT)


def test_they_span_the_space_of_an_svd(
    embeddings: NDArray[np.float16], components: Components
) -> None:
    values = embeddings.astype(np.float64)
    weights = weights_of(values)
    assert set(weights) >= {1.0, 1 / 64}
    centred = (values - values.mean(axis=0)) * weights
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    vectors = components.matrix / 2**14 / weights[:, None]
    # One by one, by falling variance, up to the sign.
    overlaps = np.abs((rows[:7] * vectors.T).sum(axis=1))
    np.testing.assert_allclose(overlaps, 1, atol=4e-3)
    np.testing.assert_allclose(components.mean.astype(np.float64), values.mean(axis=0), rtol=2e-3)
    share = fit_components(embeddings, 7)[2]
    assert share == pytest.approx((singular[:7] ** 2).sum() / (singular**2).sum(), rel=1e-3)


def test_the_largest_number_of_each_is_positive(components: Components) -> None:
    for column in components.matrix.T:
        assert column[np.abs(column).argmax()] > 0


def test_they_are_applied_in_whole_numbers(
    embeddings: NDArray[np.float16], components: Components
) -> None:
    found = components.reducer(CPU).reduce(embeddings[:5].astype(np.float32))
    for row, reduced in zip(embeddings[:5], found, strict=True):
        differences = [
            Fraction(float(x)) - Fraction(float(m))
            for x, m in zip(row, components.mean, strict=True)
        ]
        for column, number in zip(components.matrix.T, reduced, strict=True):
            exact = sum(d * int(m) for d, m in zip(differences, column, strict=True)) / 2**14
            assert number == np.float32(int(exact * 2**38)) / np.float32(2.0**38)


def test_a_fit_does_not_depend_on_threads_or_on_the_order_of_patches(
    embeddings: NDArray[np.float16], components: Components
) -> None:
    order = np.random.default_rng(1).permutation(len(embeddings))
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        mean, matrix, _ = fit_components(embeddings[order], 7)
    finally:
        torch.set_num_threads(threads)
    assert Components(mean=mean, matrix=matrix, fit=FIT).sha256 == components.sha256


def test_the_digest_is_that_of_the_arrays_alone(components: Components) -> None:
    digest = hashlib.sha256()
    digest.update(b"matrix\0int16\x0060,7\0" + components.matrix.astype("<i2").tobytes())
    digest.update(b"mean\0float16\x0060\0" + components.mean.astype("<f2").tobytes())
    assert components.sha256 == digest.hexdigest()


def test_files_are_read_as_they_were_written(components: Components) -> None:
    data = components.to_bytes()
    assert data == components.to_bytes()
    read = Components.from_bytes(data, "pca.safetensors")
    assert (read.sha256, read.fit) == (components.sha256, FIT)


def test_damaged_files_are_one_sentence(components: Components) -> None:
    data = components.to_bytes()
    long = components.matrix.copy()
    long[:, 0] = 2**14
    bad = [
        *(data[:cut] for cut in (0, 7, 8, 60, len(data) - 1)),
        b"\xff" * 200,
        data.replace(b"vocprep", b"another"),
        data.replace(b"fit_sha256", b"fit_sha257"),
        Components(mean=components.mean[:-1], matrix=components.matrix, fit=FIT).to_bytes(),
        Components(mean=components.mean, matrix=long, fit=FIT).to_bytes(),
        Components(mean=components.mean * np.float16("inf"), matrix=long, fit=FIT).to_bytes(),
    ]
    for each in bad:
        with pytest.raises(DataError, match=r"^here: expected the principal components .*; copy"):
            Components.from_bytes(each, "here")


def test_only_the_components_of_the_recipe_are_used(components: Components) -> None:
    named = Reduction(kind="pca", size=7, matrix_sha256=components.sha256)
    other = Reduction(kind="pca", size=7, matrix_sha256="1" * 64)
    assert make_reducer(None, 60, CPU) is None
    assert make_reducer(named, 60, CPU, components) is not None
    for reduction, found in ((other, components), (named, None)):
        with pytest.raises(DataError, match="expected those of digest"):
            make_reducer(reduction, 60, CPU, found)


def test_what_cannot_be_fitted_is_refused(embeddings: NDArray[np.float16]) -> None:
    with pytest.raises(UsageError, match=r"--pca 8: expected at most .* patches .* to, 6, and"):
        fit_components(embeddings[:6], 8)
    with pytest.raises(UsageError, match=r"--pca 61: .* numbers per patch, 60; choose a smaller"):
        fit_components(embeddings, 61)
    for value in (0, 2.5):
        with pytest.raises(UsageError, match=r"found 9 patches that all have the same"):
            fit_components(np.full((9, 4), value, dtype=np.float16), 2)
    with pytest.raises(UsageError, match=r"at most 16,384, .* or --project"):
        check_numbers(MOST_NUMBERS + 1)
