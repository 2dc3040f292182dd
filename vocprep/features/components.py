"""Principal components of embeddings: fitted to a sample of them, and kept as a file.

The matrix is an artefact like weights: a recipe names it by its digest. What it is fitted from, the
covariance, is a matter of whole numbers and the same on every machine; its eigenvectors are those
of the machine's own library, rounded. Embeddings are reduced by exact sums
(``vocprep.features.reduction``), so that two machines with one matrix make the same bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vocprep.errors import DataError, UsageError
from vocprep.features.reduction import Reducer, make_projection
from vocprep.files.reading import parse_json
from vocprep.files.writing import canonical_json
from vocprep.recipe import Reduction, Sha256
from vocprep.validation import Positive, checked, explain, from_json, to_json

COMPONENTS_FILE = "pca.safetensors"
"""Of a dataset version, and of a run."""
MAX_COMPONENTS_BYTES = 1 << 30
MATRIX_BITS = 14
"""Entries of the matrix are multiples of 2⁻¹⁴, from −1 to 1."""
MOST_NUMBERS = 16_384
"""N of embeddings that components are fitted to: the covariance then takes 2 GB."""
MOST_WEIGHT = 64
"""By how much, at most, numbers that vary little count more than those that vary most."""
_QUANTUM_BITS = 15
"""Numbers are rounded to so many bits and a sign before their products are summed."""
_ROWS = 4096
_ABOUT = "vocprep"
_NOT_READ = (SafetensorError, LookupError, TypeError, ValueError)
"""What safetensors and the checks raise for bytes that are no such file."""


@checked
class Fit:
    """What components were fitted to."""

    fit_sha256: Sha256
    """Digest of the choices that decide the embeddings, and of the pictures."""
    split: str
    """Split of the pictures; ``all`` where there was no train split."""
    pictures: Positive
    patches: Positive
    variance: Annotated[float, Field(ge=0, le=1)]
    """Share of the variance of these patches that the components hold."""


@dataclass(frozen=True, eq=False)
class Components:
    """A matrix of principal components, and the mean that is taken off before."""

    mean: NDArray[np.float16]
    """[N]"""
    matrix: NDArray[np.int16]
    """[N, D] in units of 2⁻¹⁴; the component of the largest variance first."""
    fit: Fit

    @property
    def sha256(self) -> str:
        """Its identity: ``tensor_digest`` of mean and matrix."""
        digest = hashlib.sha256()
        for name, array in (("matrix", self.matrix), ("mean", self.mean)):
            shape = ",".join(map(str, array.shape))
            digest.update(f"{name}\0{array.dtype.name}\0{shape}\0".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def reducer(self, device: torch.device) -> Reducer:
        """Return what makes embeddings smaller by these components."""
        return Reducer(self.matrix, bits=MATRIX_BITS, mean=self.mean, device=device)

    def to_bytes(self) -> bytes:
        """Return the bytes of its file."""
        # One metadata entry only: safetensors writes several in an order that is not fixed.
        about = canonical_json(to_json(self.fit)).decode()
        tensors: dict[str, NDArray[Any]] = {"matrix": self.matrix, "mean": self.mean}
        return save(tensors, metadata={_ABOUT: about})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Components:
        """Read the bytes of a file; DataError where they are none of components."""
        try:
            header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
            fit = from_json(Fit, parse_json(header["__metadata__"][_ABOUT]))
            tensors = load(data)
            mean, matrix = tensors.pop("mean"), tensors.pop("matrix")
            _check(mean, matrix)
        except _NOT_READ as error:
            raise DataError(
                f"{where}: expected the principal components of a build with --pca, found what "
                f"does not read as such ({explain(error)}); copy it again from the version"
            ) from error
        return cls(mean=mean, matrix=matrix, fit=fit)


def make_reducer(
    reduction: Reduction | None,
    numbers: int,
    device: torch.device,
    components: Components | None = None,
) -> Reducer | None:
    """Return what makes embeddings of N numbers smaller; None where they stay as they are.

    DataError where ``components`` are not those that the reduction names.
    """
    if reduction is None:
        return None
    if reduction.seed is not None:
        return make_projection(reduction.seed, numbers, reduction.size, device)
    wanted = reduction.matrix_sha256
    if components is None or components.sha256 != wanted or len(components.matrix) != numbers:
        found = "none" if components is None else f"{components.sha256[:12]}…"
        raise DataError(
            f"principal components: expected those of digest {(wanted or 'unknown')[:12]}…, found "
            f"{found}; take {COMPONENTS_FILE} from the dataset version"
        )
    return components.reducer(device)


def _check(mean: NDArray[Any], matrix: NDArray[Any]) -> None:
    """Raise ValueError for arrays whose sums could be larger than int64 holds."""
    if (mean.dtype.name, matrix.dtype.name, matrix.ndim) != ("float16", "int16", 2):
        raise ValueError("its tensors have other types")
    if mean.shape != matrix.shape[:1] or not 1 <= matrix.shape[1] <= len(matrix) <= MOST_NUMBERS:
        raise ValueError(f"its tensors have the shapes {mean.shape} and {matrix.shape}")
    squares = np.square(matrix.astype(np.int64)).sum(axis=0)
    if not np.isfinite(mean).all() or squares.max() > 2 ** (2 * MATRIX_BITS + 1):
        raise ValueError("its numbers are not those of unit vectors")


def fit_components(
    embeddings: NDArray[np.float16], size: int
) -> tuple[NDArray[np.float16], NDArray[np.int16], float]:
    """Return mean [N], matrix [N, D] and the share of variance of embeddings [P, N].

    Of numbers that are weighted so that each varies about as much as the others (``_weights``).

    UsageError when there are fewer than D patches or numbers, or the embeddings do not vary.
    """
    patches, numbers = embeddings.shape
    if size > min(patches, numbers):
        raise UsageError(
            f"--pca {size:,}: expected at most as many components as there are patches to fit them "
            f"to, {patches:,}, and numbers per patch, {numbers:,}; choose a smaller D, or build of "
            "more pictures"
        )
    check_numbers(numbers)
    mean, covariance = _moments(embeddings)
    if not np.trace(covariance) > 0:
        raise UsageError(
            f"--pca {size:,}: expected embeddings that differ, found {patches:,} patches that all "
            "have the same; leave --pca out, or choose other pictures"
        )
    weights = _weights(covariance)
    covariance *= weights[:, None] * weights
    values, vectors = _eigenvectors(covariance, size)
    share = float(np.clip(values.sum() / np.trace(covariance), 0, 1))
    return mean.astype(np.float16), _rounded(vectors, weights), round(share, 6)


def check_numbers(numbers: int) -> None:
    """Raise UsageError for more numbers than a covariance is computed of."""
    if numbers > MOST_NUMBERS:
        raise UsageError(
            f"--pca of {numbers:,} numbers per patch: expected at most {MOST_NUMBERS:,}, whose "
            "covariance takes 2 GB; choose fewer --layers or --cells, or --project D:SEED"
        )


def _moments(
    halves: NDArray[np.float16],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [N] and covariance [N, N] of rows [P, N]: the same bits on every machine.

    Each number is rounded to multiples of a power of two of its own, at most 2¹⁵ of them, so that
    all sums are of integers, and exact for up to 2¹⁶ rows.
    """
    count = len(halves)
    _, exponents = np.frexp(np.abs(halves).max(axis=0).astype(np.float64))
    unit = np.ldexp(1.0, exponents - _QUANTUM_BITS)
    sums = np.zeros(halves.shape[1], dtype=np.int64)
    products = np.zeros((halves.shape[1],) * 2, dtype=np.float64)
    for start in range(0, count, _ROWS):
        integers = np.rint(halves[start : start + _ROWS].astype(np.float64) / unit)
        sums += integers.sum(axis=0).astype(np.int64)
        products += integers.T @ integers  # of 2¹⁶ rows below 2⁴⁷
    mean = sums / count * unit
    centred = products.astype(np.int64)
    for row, own in enumerate(sums):  # row by row, without another matrix in memory
        centred[row] = count * centred[row] - own * sums
    covariance = centred.astype(np.float64) / count**2
    covariance *= unit[:, None] * unit
    return mean, covariance


def _weights(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a power of two [N] per number that brings all to about one spread; the largest is 1.

    Else a layer of large numbers would decide all components. Numbers that hardly vary are not
    enlarged beyond ``MOST_WEIGHT``.
    """
    spreads = np.sqrt(np.diagonal(covariance))
    _, exponents = np.frexp(np.maximum(spreads, spreads.max() / MOST_WEIGHT))
    weights: NDArray[np.float64] = np.ldexp(1.0, exponents.min() - exponents)
    return weights


def _eigenvectors(
    covariance: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues [D] of a covariance and their vectors [N, D], falling.

    In one thread, so that the bits do not depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
    finally:
        torch.set_num_threads(threads)
    last = slice(-1, -size - 1, -1)
    return values.numpy()[last], vectors.numpy()[:, last]


def _rounded(vectors: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return the matrix [N, D] of unit vectors over weighted numbers, in units of 2⁻¹⁴.

    The largest number of each column is positive.
    """
    columns = vectors * weights[:, None] * 2.0**MATRIX_BITS
    largest = np.abs(columns).argmax(axis=0)
    signs = np.sign(columns[largest, np.arange(columns.shape[1])])
    return np.ascontiguousarray(np.rint(columns * signs).astype(np.int16))
