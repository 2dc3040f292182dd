"""The members of a tar archive in memory: their names and places.

Shape legend: N bytes of the archive, M members.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = tarfile.BLOCKSIZE
_END_MARK = bytes(2 * _BLOCK)
_PLAIN = np.frombuffer(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT), dtype=np.uint8)
"""The header of docs/format.md, apart from name, size and checksum."""
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_CONSTANT = (slice(100, 124), slice(136, 148), slice(156, _BLOCK))
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


def own_members(data: NDArray[np.uint8]) -> Members | None:
    """Return the members of an archive uint8 [N] exactly as vocprep writes it; None for any other.

    The standard library needs longer for the headers of a record than all else of reading it
    takes. Here they are found by their sizes, then compared all at once. Other archives, and
    damaged ones, are read by ``tarfile_members``.
    """
    starts, sizes, end = _find_headers(data.data)
    if bytes(data.data[end : end + len(_END_MARK)]) != _END_MARK:
        return None
    headers = data[: len(data) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)[
        np.array(starts, dtype=np.intp) // _BLOCK
    ]
    if not (_are_constant(headers) and _have_checksums(headers)):
        return None
    names = [name.decode("ascii", "replace") for name in _texts(headers[:, _NAME])]
    if any("\0" in name or not name.isascii() for name in names):
        return None
    return Members(names, starts, sizes)


def _find_headers(data: memoryview) -> tuple[list[int], list[int], int]:
    """Return where each header begins, the size that it states, and where the last member ends."""
    starts: list[int] = []
    sizes: list[int] = []
    start, last = 0, len(data) - _BLOCK
    while start <= last and data[start]:
        digits = bytes(data[start + _SIZE.start : start + _SIZE.stop - 1])
        if digits.strip(b"01234567"):
            break
        size = int(digits, 8)
        starts.append(start)
        sizes.append(size)
        start += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return starts, sizes, start


def _are_constant(headers: NDArray[np.uint8]) -> bool:
    """Return whether all headers [M, 512] have the format's owner, mode, time and type."""
    return bool((headers[:, _SIZE.stop - 1] == 0).all()) and all(
        bool((headers[:, part] == _PLAIN[part]).all()) for part in _CONSTANT
    )


def _have_checksums(headers: NDArray[np.uint8]) -> bool:
    """Return whether the checksums stated in headers [M, 512] are right."""
    fields = headers[:, _CHECKSUM].astype(np.int64)
    # The field of the checksum itself counts as spaces.
    sums = headers.sum(axis=1, dtype=np.int64) - fields.sum(axis=1) + 8 * ord(" ")
    written = (fields[:, :6] - ord("0")) @ _OCTAL
    return bool((written == sums).all() and (fields[:, 6:] == (0, ord(" "))).all())


def _texts(fields: NDArray[np.uint8]) -> list[bytes]:
    """Return the texts of zero-padded fields [M, 100]."""
    texts: list[bytes] = np.ascontiguousarray(fields).view("S100").ravel().tolist()
    return texts


def tarfile_members(data: NDArray[np.uint8]) -> Members:
    """Return the members of any archive uint8 [N]; tarfile.TarError or ValueError when damaged.

    The end mark is required: without it, an archive cut between two records would be taken for a
    shorter shard.
    """
    members = Members([], [], [])
    end = 0
    with tarfile.open(fileobj=io.BytesIO(data.data), mode="r:") as archive:
        for entry in archive:
            if not entry.isreg() or entry.size < 0:
                raise ValueError(f"member {entry.name} is not a regular file")
            members.names.append(entry.name)
            members.starts.append(entry.offset_data - _BLOCK)
            members.sizes.append(entry.size)
            end = entry.offset_data - (-entry.size // _BLOCK) * _BLOCK
    if bytes(data.data[end : end + len(_END_MARK)]) != _END_MARK:
        raise ValueError(f"no member and no end mark at byte {end}")
    return members
