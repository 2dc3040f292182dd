"""The walk over a shard's headers against the standard library's."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from builders.records import make_record, records_of_a_shard
from hypothesis import given

from vocprep.shards.codecs import tar
from vocprep.shards.codecs.tar_members import Members, find_members
from vocprep.shards.record import Record

TWO = tar.encode([make_record("a"), make_record("b")])


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8).copy()


def tarfile_members(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = [(member.name, member.offset, member.size) for member in archive]
    return Members(*(list(column) for column in zip(*found, strict=True)))


@given(records_of_a_shard())
def test_members_of_a_shard_are_those_that_tarfile_finds(records: list[Record]) -> None:
    data = tar.encode(records)
    members = find_members(as_array(data))
    assert members == tarfile_members(data)
    assert len(members.names) == 7 * len(records)


@pytest.mark.parametrize("with_checksum", [False, True])
def test_header_with_any_byte_changed_is_refused_or_read_as_tarfile_does(
    with_checksum: bool,
) -> None:
    for place in range(512):
        damaged = as_array(TWO)
        damaged[place] ^= 1
        if with_checksum:
            digits = b"%06o" % tarfile.calc_chksums(damaged[:512].tobytes())[0]
            damaged[148:154] = list(digits)
        try:
            found = find_members(damaged)
        except ValueError:
            continue
        assert with_checksum
        assert found == tarfile_members(damaged.tobytes()), place
        if not 148 <= place < 154:  # where the checksum is right again
            # Another name, another size, another folder.
            assert place < 100 or 124 <= place < 135 or 345 <= place < 500, place


def edited(change: Callable[[tarfile.TarInfo], object], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A shard with the header of each member changed."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(TWO)) as source,
        tarfile.open(fileobj=out, mode="w", format=form) as target,
    ):
        for member in source:
            stream = source.extractfile(member)
            change(member)
            target.addfile(member, stream if member.isreg() else None)
    return out.getvalue()


def setting(**fields: object) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        for name, value in fields.items():
            setattr(member, name, value)

    return change


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": 0o600},
        {"mtime": 1},
        {"uid": 1},
        {"gname": "somebody"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "a.json", "size": 0},
        {"type": tarfile.DIRTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.CONTTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
    ],
    ids=str,
)
def test_member_of_another_kind_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="byte 0 has another mode, owner, time or type"):
        find_members(as_array(edited(setting(**fields))))


@pytest.mark.parametrize(
    "name", ["../a.json", "/a.json", "d/../a.json", "d//a.json", "d/.a.json", "d\udce9.json"]
)
def test_member_whose_name_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no plain name"):
        find_members(as_array(edited(setting(name=name))))


@pytest.mark.parametrize("name", ["d/a.json", "d\xe9.json", "猫/" + "x" * 75 + "/%2E.json"])
def test_names_of_encoded_ids_are_those_that_tarfile_reads(name: str) -> None:
    data = edited(setting(name=name))
    assert find_members(as_array(data)) == tarfile_members(data)


def test_extended_headers_are_refused() -> None:
    with pytest.raises(ValueError, match="has another mode, owner, time or type"):
        find_members(as_array(edited(setting(mtime=1.5), tarfile.PAX_FORMAT)))


def test_size_that_leaves_the_file_is_refused() -> None:
    data = as_array(TWO)
    data[124:135] = list(b"77777777777")
    digits = b"%06o" % tarfile.calc_chksums(data[:512].tobytes())[0]
    data[148:154] = list(digits)
    with pytest.raises(ValueError, match="member at byte 0 has 8,589,934,591 bytes"):
        find_members(data)


def test_archive_cut_at_any_block_is_refused_but_for_its_padding() -> None:
    members = tarfile_members(TWO)
    end = members.places(slice(None))[-1].stop
    whole = -(-end // 512) * 512 + 1024
    for length in range(0, len(TWO), 512):
        if length >= whole:
            assert find_members(as_array(TWO[:length])) == members
        else:
            with pytest.raises(ValueError, match=r"byte"):
                find_members(as_array(TWO[:length]))
    with pytest.raises(ValueError, match="no whole number of blocks"):
        find_members(as_array(TWO[:-1]))


@pytest.mark.parametrize("rest", [b"x" + bytes(511), TWO])
def test_data_behind_the_end_mark_are_refused(rest: bytes) -> None:
    with pytest.raises(ValueError, match="end mark"):
        find_members(as_array(TWO + rest))
