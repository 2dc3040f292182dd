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

BLOCK = tarfile.BLOCKSIZE
_END_BLOCKS = 2
_MAX_PADDING = tarfile.RECORDSIZE
_PLAIN = np.frombuffer(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT), dtype=np.uint8)
"""The header of docs/format.md, apart from name, size and checksum."""
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_PREFIX = slice(345, 500)
_MARK = slice(257, 263)
"""What all headers have in common, and other blocks hardly ever."""
_CONSTANT = (slice(100, 124), slice(136, 148), slice(156, 345), slice(500, BLOCK))
"""Mode, owner, time, type, link and names."""
_OCTAL = 8 ** np.arange(10, -1, -1)


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
            slice(start + BLOCK, start + BLOCK + size)
            for start, size in zip(self.starts[numbers], self.sizes[numbers], strict=True)
        ]


def find_members(data: NDArray[np.uint8]) -> Members:
    """Return the members of an archive uint8 [N]; ValueError for any but those of docs/format.md.

    The standard library needs longer for the headers of a record than all else of reading it
    takes, and accepts links, sparse files and extended headers. Here the headers are found and
    compared all at once.
    """
    if len(data) % BLOCK:
        raise ValueError(f"{len(data):,} bytes are no whole number of blocks of {BLOCK}")
    starts, sizes, end = _find_marked(data) or _find_headers(data.data)
    _check_end(data, end)
    headers = data.reshape(-1, BLOCK)[np.array(starts, dtype=np.intp) // BLOCK]
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
    joined = b"\n".join(texts)
    if joined.isascii() and not (b"\0" in joined or b"/" in joined):
        names = joined.decode().split("\n")
        if len(names) == len(texts):
            return names
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


def _find_marked(data: NDArray[np.uint8]) -> tuple[list[int], list[int], int] | None:
    """Return what ``_find_headers`` does, from the blocks that look like headers.

    None where these do not follow one another by their sizes: it is to be asked then.
    """
    blocks = data.reshape(-1, BLOCK)
    numbers = np.flatnonzero((blocks[:, _MARK] == _PLAIN[_MARK]).all(axis=1))
    digits = blocks[numbers, _SIZE.start : _SIZE.stop - 1] - np.uint8(ord("0"))
    if not len(numbers) or numbers[0] or (digits >= 8).any() or not blocks[numbers, 0].all():
        return None
    sizes = digits @ _OCTAL
    ends = numbers + 1 + -(-sizes // BLOCK)
    end = int(ends[-1])
    if (ends[:-1] != numbers[1:]).any() or end > len(blocks):
        return None
    if end < len(blocks) and blocks[end, 0]:
        return None
    return (numbers * BLOCK).tolist(), sizes.tolist(), end * BLOCK


def _find_headers(data: memoryview) -> tuple[list[int], list[int], int]:
    """Return where each header begins, the size that it states, and where the last member ends.

    ValueError where a size is no octal number or leads out of the archive.
    """
    starts: list[int] = []
    sizes: list[int] = []
    start, last = 0, len(data) - BLOCK
    while start <= last and data[start]:
        digits = bytes(data[start + _SIZE.start : start + _SIZE.stop - 1])
        if digits.strip(b"01234567"):
            raise ValueError(f"no member begins at byte {start:,}: its size is no number")
        size = int(digits, 8)
        starts.append(start)
        sizes.append(size)
        start += BLOCK + -(-size // BLOCK) * BLOCK
    if start > len(data):
        raise ValueError(
            f"the member at byte {starts[-1]:,} has {sizes[-1]:,} bytes, of which the file holds "
            f"{len(data) - starts[-1] - BLOCK:,}"
        )
    return starts, sizes, start


def _check_end(data: NDArray[np.uint8], end: int) -> None:
    """Raise ValueError unless the end mark and padding follow the last member.

    Without the end mark, an archive cut between two records would be taken for a shorter shard.
    """
    rest = data[end:]
    if len(rest) < _END_BLOCKS * BLOCK or len(rest) > _END_BLOCKS * BLOCK + _MAX_PADDING:
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
    written = (fields[:, :6] - ord("0")) @ _OCTAL[-6:]
    right: NDArray[np.bool_] = (written == sums) & (fields[:, 6:] == (0, ord(" "))).all(axis=1)
    return right
