"""Precision and compiling: another recipe is not the same bits, a compiled backbone is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.features.compiling import can_compile
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.weights import load_weights
from vocprep.recipe import Precision

CPU = torch.device("cpu")
WEIGHTS = load_weights("random:0", Path())
PATCHES = np.random.default_rng(1).integers(0, 256, (25, 32, 32, 3), dtype=np.uint8)
CHUNK = 10  # 25 patches leave a chunk of 5 to be filled up
needs_compiler = pytest.mark.skipif(not can_compile(), reason="no C++ compiler here")


def make(precision: Precision, chunk: int = CHUNK) -> Embedder:
    return Embedder(WEIGHTS, EmbeddingSpec(precision=precision), device=CPU, chunk=chunk)


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    products = (one * other).sum(axis=1)
    cosine: NDArray[np.float32] = (
        products / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    )
    return cosine


def test_bf16_points_where_fp32_does() -> None:
    full, half = make("fp32").embed(PATCHES), make("bf16").embed(PATCHES)
    assert not np.array_equal(full, half)
    assert cosines(full, half).min() > 0.999


@pytest.mark.parametrize("chunk", [2, 7, 24])
def test_bf16_bits_do_not_depend_on_the_chunk(chunk: int) -> None:
    np.testing.assert_array_equal(make("bf16", chunk).embed(PATCHES), make("bf16").embed(PATCHES))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_backbone_gives_the_same_bits(precision: Precision) -> None:
    compiled = make(precision)
    compiled.compile()
    for count in (25, 10, 1):
        expected = make(precision).embed(PATCHES[:count])
        np.testing.assert_array_equal(compiled.embed(PATCHES[:count]), expected)


def test_without_a_compiler_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler.*--no-compile"):
        make("fp32").compile()


def test_a_compiler_that_fails_leaves_the_embedder_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> object:
        def fail(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("ld: out of disk\nmore lines")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr("vocprep.features.compiling.can_compile", lambda: True)
    embedder = make("fp32")
    with pytest.raises(UsageError, match="does not compile: ld: out of disk; use --no-compile"):
        embedder.compile()
    np.testing.assert_array_equal(embedder.embed(PATCHES), make("fp32").embed(PATCHES))
