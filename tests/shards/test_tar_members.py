"""The quick walk over a shard's headers against the standard library's."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from builders.records import make_record, records_of_a_shard
from hypothesis import given

from vocprep.shards import tar
from vocprep.shards.record import Record
from vocprep.shards.tar_members import own_members, tarfile_members


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8).copy()


@given(records_of_a_shard())
def test_members_of_a_shard_are_those_that_tarfile_finds(records: list[Record]) -> None:
    data = as_array(tar.encode(records))
    members = own_members(data)
    assert members is not None
    assert members == tarfile_members(data)
    assert len(members.names) == 7 * len(records)


def test_any_other_header_is_left_to_tarfile() -> None:
    """Each byte of a header in turn, also with a checksum that agrees with it."""
    data = as_array(tar.encode([make_record("a"), make_record("b")]))
    for mended in (False, True):
        for place in range(512):
            damaged = data.copy()
            damaged[place] ^= 1
            if mended:
                digits = b"%06o" % tarfile.calc_chksums(damaged[:512].tobytes())[0]
                damaged[148:154] = list(digits)
            found = own_members(damaged)
            if found is not None:
                assert found == tarfile_members(damaged), place


@pytest.mark.parametrize("place", [100, 123, 135, 136, 148, 154, 155, 156, 257, 345, 511])
def test_header_that_differs_beside_name_and_size_is_not_plain(place: int) -> None:
    data = as_array(tar.encode([make_record("a")]))
    data[place] ^= 1
    assert own_members(data) is None


def test_archive_cut_at_any_block_is_not_plain_but_for_its_padding() -> None:
    data = as_array(tar.encode([make_record("a"), make_record("b")]))
    members = tarfile_members(data)
    last = members.places(slice(None))[-1].stop
    whole = -(-last // 512) * 512 + 1024
    for length in range(0, len(data), 512):
        found = own_members(data[:length])
        assert found == (members if length >= whole else None), length
