"""Principal components of patch embeddings as colours: what the frozen backbone tells apart.

Shape legend: N rows of a sample, P patches of a picture, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.finite import finite
from vocprep.errors import UsageError
from vocprep.geometry import Grid
from vocprep.shards.reader import ShardDataset

_MOST_ROWS = 8192
"""Patches of a sample: components of more are the same to the eye."""
_MOST_SHARDS = 8
"""Shards that a sample is drawn from."""
_BLOCK = 16
"""Directions that are searched together, of which the first three are kept."""
_ITERATIONS = 20
_TAIL = 1.0
"""Per cent of the sample beyond each end of a colour's range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """The three directions in which embeddings vary most, each a channel of a colour."""

    mean: NDArray[np.float32]
    """[D]."""
    axes: NDArray[np.float32]
    """[3, D], orthonormal, the largest variance first; zeros where D is below 3."""
    low: NDArray[np.float32]
    """[3]: what becomes 0 of each channel."""
    high: NDArray[np.float32]
    """[3]: what becomes 255."""
    explained: tuple[float, ...]
    """Share of the sample's variance that each axis holds."""
    rows: int
    """N of the sample."""
    is_sample: bool = False
    """Whether the version holds more patches than that."""

    def __repr__(self) -> str:
        shares = ", ".join(f"{100 * share:.1f} %" for share in self.explained)
        return f"Components(D {len(self.mean)}, of {self.rows:,} patches: {shares})"

    @classmethod
    def fit(cls, rows: NDArray[np.floating]) -> Components:
        """Return the components of embeddings [N, D].

        >>> line = np.outer(np.arange(5.0), [3.0, 4.0])
        >>> Components.fit(line).axes[0].astype(float).round(3).tolist()
        [0.6, 0.8]
        """
        sample = finite(rows)
        size = sample.shape[1]
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = sample - mean
        covariance = centred.T @ centred / max(len(sample), 1)
        variances, axes = _largest(covariance, min(3, size))
        total = float(np.trace(covariance, dtype=np.float64)) or 1.0
        axes = np.concatenate([axes, np.zeros((3 - len(axes), size), dtype=np.float32)])
        low, high = np.percentile(centred @ axes.T, (_TAIL, 100 - _TAIL), axis=0)
        return cls(
            mean=mean,
            axes=axes,
            low=low.astype(np.float32),
            high=high.astype(np.float32),
            explained=tuple(float(value) / total for value in variances),
            rows=len(sample),
        )

    @classmethod
    def of(cls, dataset: ShardDataset) -> Components:
        """Return the components of a sample of a version's patches, the same one each time.

        UsageError when the version holds no record.
        """
        found = cls.fit(_sample(dataset))
        patches = sum(shard.patches for shard in dataset.index.shards)
        return replace(found, is_sample=found.rows < patches)

    def rgb(self, embeddings: NDArray[np.floating], grid: Grid) -> NDArray[np.uint8]:
        """Return a picture's patches uint8 [ny, nx, 3], of embeddings [P, D].

        Equal colours mean like embeddings, in all pictures that are drawn with these components.
        """
        values = (finite(embeddings) - self.mean) @ self.axes.T
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        scaled = np.clip((values - self.low) / span, 0.0, 1.0)
        return np.round(255 * scaled).astype(np.uint8).reshape(*grid, 3)


@dataclass
class RowSample:
    """Rows that are drawn evenly from a stream of ``total``, at most ``most`` of them."""

    total: int
    most: int = _MOST_ROWS
    seen: int = 0

    def pick(self, count: int) -> NDArray[np.intp]:
        """Return which of the next ``count`` rows belong to the sample.

        >>> sample = RowSample(total=6, most=3)
        >>> sample.pick(4).tolist(), sample.pick(2).tolist()
        ([1, 3], [1])
        """
        numbers = np.arange(self.seen, self.seen + count, dtype=np.int64)
        self.seen += count
        if self.total <= self.most:
            return np.arange(count)
        share = numbers * self.most // self.total, (numbers + 1) * self.most // self.total
        return np.flatnonzero(share[0] != share[1])


def _sample(dataset: ShardDataset) -> NDArray[np.floating]:
    """Return embeddings [N, D] of patches that are spread over a version."""
    shards = dataset.index.shards
    if not shards:
        raise UsageError(
            f"{dataset.path}: holds no record, so that there are no embeddings to look at"
        )
    chosen = [shards[i] for i in sorted({*_spread(len(shards), _MOST_SHARDS)})]
    rows = RowSample(total=sum(shard.patches for shard in chosen))
    records = (record for shard in chosen for record in dataset.read_shard(shard.name))
    return np.concatenate([r.embeddings[rows.pick(len(r.embeddings))] for r in records])


def _spread(count: int, most: int) -> Iterable[int]:
    """Return at most ``most`` of ``count`` numbers, evenly spread."""
    return range(count) if count <= most else (i * count // most for i in range(most))


def _largest(
    covariance: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the largest eigenvalues [count] and their vectors [count, D], signs made definite.

    By subspace iteration: all eigenvectors of wide embeddings would take a hundred times as long.
    """
    matrix = covariance.astype(np.float64)
    size = len(matrix)
    block = np.random.default_rng(0).normal(size=(size, min(size, _BLOCK)))
    for _ in range(_ITERATIONS):
        block, _ = np.linalg.qr(matrix @ block)
    values, within = np.linalg.eigh(block.T @ matrix @ block)
    axes = (block @ within).T[::-1][:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return values[::-1][:count], (axes * np.sign(largest)).astype(np.float32)
