"""The members of a tar archive in memory: their names and places, of the documented form only.

Shape legend: N bytes of the archive, M members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocprep.files.ids import is_safe_id

_BLOCK = tarfile.BLOCKSIZE
_END_BLOCKS = 2
_MAX_PADDING = tarfile.RECORDSIZE
_PLAIN = np.frombuffer(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT), dtype=np.uint8)
"""The header of docs/format.md, apart from name, size and checksum."""
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_PREFIX = slice(345, 500)
_CONSTANT = (slice(100, 124), slice(136, 148), slice(156, 345), slice(500, _BLOCK))
"""Mode, owner, time, type, link and names."""
_OCTAL = 8 ** np.arange(5, -1, -1)


@dataclass(frozen=True)
class Members:
    """The members of an archive, in its order.

    Plain lists: one tuple per member would be thousands of objects per shard, which slow down
    Python's garbage collector.
    """

    names: list[str]
    starts: list[int]
    """Where each member's header begins; its data is one block later."""
    sizes: list[int]

    def places(self, numbers: slice) -> list[slice]:
        """Return where the data of some members is, as slices of the archive."""
        return [
            slice(start + _BLOCK, start + _BLOCK + size)
            for start, size in zip(self.starts[numbers], self.sizes[numbers], strict=True)
        ]


def find_members(data: NDArray[np.uint8]) -> Members:
    """Return the members of an archive uint8 [N]; ValueError for any but those of docs/format.md.

    The standard library needs longer for the headers of a record than all else of reading it
    takes, and accepts links, sparse files and extended headers. Here the headers are found by
    their sizes, then compared all at once.
    """
    if len(data) % _BLOCK:
        raise ValueError(f"{len(data):,} bytes are no whole number of blocks of {_BLOCK}")
    starts, sizes, end = _find_headers(data.data)
    _check_end(data, end)
    headers = data.reshape(-1, _BLOCK)[np.array(starts, dtype=np.intp) // _BLOCK]
    for is_right, what in (
        (_have_checksums(headers), "a checksum that is not its header's"),
        (_are_constant(headers), "another mode, owner, time or type than docs/format.md has"),
    ):
        if not is_right.all():
            start = starts[int(is_right.argmin())]
            raise ValueError(f"the member at byte {start:,} has {what}")
    return Members(_names(headers, starts), starts, sizes)


def _names(headers: NDArray[np.uint8], starts: Sequence[int]) -> list[str]:
    """Return the names in headers [M, 512]; ValueError for one that docs/format.md does not have"""
    texts = _texts(headers, _NAME)
    if headers[:, _PREFIX].any():
        folders = _texts(headers, _PREFIX)
        texts = [b"/".join(filter(None, pair)) for pair in zip(folders, texts, strict=True)]
    names = []
    for text, start in zip(texts, starts, strict=True):
        name = text.decode("utf-8", "replace")
        is_plain = text.isascii() and b"\0" not in text and b"/" not in text
        if not is_plain and ("\ufffd" in name or not is_safe_id(name)):
            raise ValueError(f"the member at byte {start:,} has no plain name")
        names.append(name)
    return names


def _texts(headers: NDArray[np.uint8], place: slice) -> list[bytes]:
    width = place.stop - place.start
    texts: list[bytes] = np.ascontiguousarray(headers[:, place]).view(f"S{width}").ravel().tolist()
    return texts


def _find_headers(data: memoryview) -> tuple[list[int], list[int], int]:
    """Return where each header begins, the size that it states, and where the last member ends.

    ValueError where a size is no octal number or leads out of the archive.
    """
    starts: list[int] = []
    sizes: list[int] = []
    start, last = 0, len(data) - _BLOCK
    while start <= last and data[start]:
        digits = bytes(data[start + _SIZE.start : start + _SIZE.stop - 1])
        if digits.strip(b"01234567"):
            raise ValueError(f"no member begins at byte {start:,}: its size is no number")
        size = int(digits, 8)
        starts.append(start)
        sizes.append(size)
        start += _BLOCK + -(-size // _BLOCK) * _BLOCK
    if start > len(data):
        raise ValueError(
            f"the member at byte {starts[-1]:,} has {sizes[-1]:,} bytes, of which the file holds "
            f"{len(data) - starts[-1] - _BLOCK:,}"
        )
    return starts, sizes, start


def _check_end(data: NDArray[np.uint8], end: int) -> None:
    """Raise ValueError unless the end mark and padding follow the last member.

    Without the end mark, an archive cut between two records would be taken for a shorter shard.
    """
    rest = data[end:]
    if len(rest) < _END_BLOCKS * _BLOCK or len(rest) > _END_BLOCKS * _BLOCK + _MAX_PADDING:
        raise ValueError(f"no member and no end mark at byte {end:,}")
    if rest.any():
        raise ValueError(f"the end mark at byte {end:,} is followed by other data")


def _are_constant(headers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each header [M, 512] whether it has the format's owner, mode, time and type."""
    same: NDArray[np.bool_] = headers[:, _SIZE.stop - 1] == 0
    for part in _CONSTANT:
        same &= (headers[:, part] == _PLAIN[part]).all(axis=1)
    return same


def _have_checksums(headers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each header [M, 512] whether the checksum that it states is right."""
    fields = headers[:, _CHECKSUM].astype(np.int64)
    # The field of the checksum itself counts as spaces.
    sums = headers.sum(axis=1, dtype=np.int64) - fields.sum(axis=1) + 8 * ord(" ")
    written = (fields[:, :6] - ord("0")) @ _OCTAL
    right: NDArray[np.bool_] = (written == sums) & (fields[:, 6:] == (0, ord(" "))).all(axis=1)
    return right
