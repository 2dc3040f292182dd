"""Image ids in sorted order, held as bytes: a million of VOC's take 11 MB instead of 70."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

Column: TypeAlias = NDArray[np.bytes_]
"""[N]: UTF-8 texts without NUL bytes, as wide as the longest."""
_BLOCK = 4096
"""Ids that are decoded together."""


class ImageIds(Sequence[str]):
    """Image ids (``vocprep.files.ids.is_image_id``), sorted by code point, each once.

    A slice is a view of the same memory.

    >>> ids = ImageIds.of(["b", "a", "c"])
    >>> list(ids), "b" in ids, list(ids[1:])
    (['a', 'b', 'c'], True, ['b', 'c'])
    """

    def __init__(self, column: Column) -> None:
        """``column`` [N] is sorted and holds no id twice."""
        self.column = column

    @classmethod
    def of(cls, image_ids: Iterable[str]) -> ImageIds:
        """Return ids that come in any order."""
        return cls(np.unique(as_column(image_ids)))

    @classmethod
    def union(cls, parts: Sequence[ImageIds]) -> ImageIds:
        """Return the ids of all parts."""
        columns = [part.column for part in parts]
        return cls(np.unique(np.concatenate(columns)) if columns else as_column([]))

    def common(self, other: ImageIds) -> ImageIds:
        """Return the ids of both."""
        return ImageIds(self.column[self._are_in(other)])

    def without(self, others: ImageIds) -> ImageIds:
        """Return the ids that are not among others."""
        return ImageIds(self.column[~self._are_in(others)])

    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the place of each text [N] among these ids; −1 where it is none of them."""
        width = self.column.itemsize
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        fits = np.array([len(each) <= width and b"\0" not in each for each in encoded], dtype=bool)
        found = np.full(len(encoded), -1, dtype=np.int64)
        if len(self) and fits.any():
            wanted = np.array(encoded, dtype=np.bytes_)[fits].astype(self.column.dtype)
            places = np.minimum(np.searchsorted(self.column, wanted), len(self) - 1)
            found[fits] = np.where(self.column[places] == wanted, places, -1)
        return found

    def places(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the places of those texts that are among these ids, in their order."""
        found = self.find(texts)
        return found[found >= 0]

    def _are_in(self, others: ImageIds) -> NDArray[np.bool_]:
        """Return for each of the ids [N] whether it is among others."""
        found = np.zeros(len(self), dtype=bool)
        column = others.column.astype(np.result_type(self.column, others.column), copy=False)
        for start in range(0, len(self) if len(others) else 0, _BLOCK):
            wanted = self.column[start : start + _BLOCK].astype(column.dtype)
            places = np.minimum(np.searchsorted(column, wanted), len(column) - 1)
            found[start : start + _BLOCK] = column[places] == wanted
        return found

    def sha256(self) -> str:
        """Return the digest of the ids, each followed by a line feed."""
        digest = hashlib.sha256()
        for block in self._blocks():
            digest.update("".join(f"{image_id}\n" for image_id in block).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> ImageIds: ...

    def __getitem__(self, place: int | slice) -> str | ImageIds:
        if isinstance(place, slice):
            return ImageIds(self.column[place])
        return bytes(self.column[place]).decode()

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks():
            yield from block

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and bool(self.find([image_id])[0] >= 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageIds) and np.array_equal(self.column, other.column)

    def __hash__(self) -> int:
        return hash(self.sha256())

    def __repr__(self) -> str:
        shown = f"{self[0]!r} to {self[-1]!r}" if len(self) else "none"
        return f"ImageIds({len(self):,}: {shown})"

    def _blocks(self) -> Iterator[list[str]]:
        for start in range(0, len(self.column), _BLOCK):
            yield [each.decode() for each in self.column[start : start + _BLOCK].tolist()]


def as_column(image_ids: Iterable[str]) -> Column:
    """Return ids in their order as a column, without a list of all of them."""
    remaining = iter(image_ids)
    parts = [np.array([], dtype="S1")]
    while block := list(islice(remaining, _BLOCK)):
        parts.append(np.array([each.encode() for each in block], dtype=np.bytes_))
    return np.concatenate(parts)
