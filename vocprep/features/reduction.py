"""Embeddings made smaller by a matrix of whole numbers, in sums that no machine rounds.

An embedding of N numbers is rounded to float16, so that each number is a multiple of 2⁻²⁴. In units
of that they are integers of at most 41 bits. Their products with a matrix of whole numbers are
summed in float64, where no partial sum reaches 2⁵³: the sums are exact, in whatever order a library
adds, with any number of threads, on any machine. Each is rounded once, to float32.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import DataError, UsageError
from vocprep.recipe import EmbeddingDtype

UNIT_BITS = 24
"""The smallest positive float16 is 2⁻²⁴, and every finite one a multiple of it."""
_EXACT = 2.0**52
"""Sums of magnitudes below it are exact in float64, with a bit to spare for their own rounding."""
_LOW_BITS = 20
"""Of an integer whose products are too large to be summed at once: it is cut in two there."""
_ROWS = 1024
"""Patches that are reduced together, which bounds the memory for their float64 copies."""


class Reducer:
    """Makes embeddings [P, N] smaller: ``2**-bits · (x − mean) · matrix``, [P, D]."""

    def __init__(
        self,
        matrix: NDArray[np.signedinteger],
        *,
        bits: int,
        mean: NDArray[np.float16] | None = None,
        device: torch.device,
    ) -> None:
        self._device = device
        self._matrix = torch.from_numpy(matrix.astype(np.float64)).to(device)
        self._largest = float(abs(matrix.astype(np.int64)).max())
        self._scale = np.float32(2.0 ** -(UNIT_BITS + bits))
        self._offset = np.zeros(matrix.shape[1], dtype=np.int64)
        if mean is not None:
            self._offset = self._sums(torch.from_numpy(mean)[None].to(device))[0].cpu().numpy()
        self._prove(matrix)

    @property
    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The matrix [N, D] and offset [D] of ``float16(x) · matrix − offset``, to be rounded."""
        matrix: NDArray[np.float64] = self._matrix.cpu().numpy()
        scale = np.float64(self._scale)
        return matrix * (scale * 2.0**UNIT_BITS), self._offset.astype(np.float64) * scale

    def reduce(self, embeddings: Tensor | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the reduced embeddings float32 [P, D] of embeddings float32 [P, N].

        The sums are copied from the device in one piece. DataError where a number is not finite,
        or too large for float16.
        """
        rows = torch.split(torch.as_tensor(embeddings).to(self._device), _ROWS)
        sums = torch.cat([self._sums(self._halves(part)) for part in rows])
        integers: NDArray[np.int64] = sums.cpu().numpy() - self._offset
        # numpy's cast rounds once, to nearest; the product with a power of two not at all.
        return integers.astype(np.float32) * self._scale

    def _halves(self, embeddings: Tensor) -> Tensor:
        halves = embeddings.half()
        if not bool(torch.isfinite(halves).all()):
            raise _not_finite()
        return halves

    def _sums(self, halves: Tensor) -> Tensor:
        """Return the exact sums int64 [P, D] of rows float16 [P, N], in units of 2⁻²⁴."""
        return self._exact_product(halves.double() * 2.0**UNIT_BITS)

    def _exact_product(self, integers: Tensor) -> Tensor:
        """Return int64 [P, D]: the product of integers in float64 [P, N] with the matrix."""
        magnitudes = integers.abs().sum(dim=1)
        if not len(integers) or float(magnitudes.max()) * self._largest < _EXACT:
            return _multiply(integers, self._matrix).long()
        high = torch.floor(integers * 2.0**-_LOW_BITS)
        low = integers - high * 2.0**_LOW_BITS
        return (self._exact_product(high) << _LOW_BITS) + self._exact_product(low)

    def _prove(self, matrix: NDArray[np.signedinteger]) -> None:
        """Raise UsageError where this machine rounds what must be exact."""
        count = len(matrix)
        rows = np.stack([np.resize([65504, -0.1, 1e-7], count), np.resize([1, -3.3, 7.7], count)])
        halves = rows.astype(np.float16)
        integers = (halves.astype(np.float64) * 2.0**UNIT_BITS).astype(np.int64)
        expected = integers @ matrix.astype(np.int64)
        found = self._sums(torch.from_numpy(halves).to(self._device)).cpu().numpy()
        if not np.array_equal(found, expected):
            raise UsageError(
                f"device {str(self._device)!r}: rounds sums in float64 that must be exact for "
                "--project and --pca; use --device cpu"
            )


def as_stored(
    embeddings: NDArray[np.floating], dtype: EmbeddingDtype, image: str
) -> NDArray[np.floating]:
    """Return an image's embeddings in the type of a recipe; DataError where any is not finite."""
    with np.errstate(over="ignore"):  # what float16 does not hold becomes infinite
        stored = embeddings.astype(dtype)
    if np.isfinite(stored).all():
        return stored
    if np.isfinite(embeddings).all():
        raise DataError(
            f"embeddings of {image}: expected numbers of at most 65,504, which {dtype} holds, "
            f"found {np.abs(embeddings).max():,.0f}; build with --embedding-dtype float32, or of "
            "other --layers"
        )
    raise DataError(
        f"embeddings of {image}: expected finite numbers, found NaN or infinity, which the "
        "backbone gives with these weights and this precision; check --weights, or choose other "
        "--layers or --precision"
    )


def to_float16(embeddings: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return embeddings rounded to float16; DataError where a number is not finite then."""
    halves: NDArray[np.float16] = torch.from_numpy(embeddings).half().numpy()
    if not np.isfinite(halves).all():
        raise _not_finite()
    return halves


def _not_finite() -> DataError:
    return DataError(
        "embeddings: expected numbers of at most 65,504, which float16 holds, to make them fewer "
        "by --project or --pca, found larger ones or none; leave that option out, or choose other "
        "--layers"
    )


def _multiply(integers: Tensor, matrix: Tensor) -> Tensor:
    """Return the product in float64, whose sums are all below 2⁵²."""
    return integers @ matrix


def projection_signs(seed: int, numbers: int, size: int) -> NDArray[np.int8]:
    """Return the signs [N, D] of a random projection: the same on every machine.

    The bits of numpy's PCG64 of this seed, the lowest of each word first, row by row: 1 is +1, 0
    is −1.

    >>> projection_signs(0, 2, 4).tolist()
    [[1, 1, 1, 1], [1, -1, 1, -1]]
    """
    words = np.random.PCG64(seed).random_raw(-(-numbers * size // 64))
    bits = np.unpackbits(np.asarray(words, dtype="<u8").view(np.uint8), bitorder="little")
    signs = bits[: numbers * size].reshape(numbers, size).astype(np.int8)
    return signs * 2 - 1


def projection_bits(numbers: int) -> int:
    """Return the least k with 4ᵏ ≥ N: sums of N signed numbers are divided by 2ᵏ, about √N.

    >>> [projection_bits(numbers) for numbers in (1, 4, 5, 256, 1536)]
    [0, 1, 2, 4, 6]
    """
    return ((numbers - 1).bit_length() + 1) // 2


def make_projection(seed: int, numbers: int, size: int, device: torch.device) -> Reducer:
    """Return the random projection of a seed, from N numbers to D."""
    signs = projection_signs(seed, numbers, size)
    return Reducer(signs, bits=projection_bits(numbers), device=device)
