"""Damage to archives that keeps their checksums right: tar members, gzip streams."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping

from builders.fuzzing import mutate

from fuzz.damage.arrays import damaged_npy
from fuzz.damage.pictures import damaged_png
from fuzz.damage.texts import ODD_TEXTS, damaged_json, damaged_jsonl

_BLOCK = 512
_HEADER_NUMBERS = (
    b"-1\0",
    b"7777777777",
    b"99999999999",
    b"\x80" + bytes(10) + b"\x05",
    b"\xff" * 12,
)
_KINDS = b"0123456789gxLKSVDM\0A"
_FIELDS = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12)} | {
    "kind": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "prefix": (345, 155),
}
MEMBER_DAMAGE: Mapping[str, Callable[[random.Random, bytes], bytes]] = {
    "npy": damaged_npy,
    "png": damaged_png,
    "json": damaged_json,
}


def damaged_tar(draw: random.Random, data: bytes) -> bytes:
    """Return a tar with a changed header or member, its checksums right."""
    kind = draw.randrange(8)
    if kind <= 2:
        return _changed_header(draw, data)
    if kind == 3:
        return with_right_tar_checksums(mutate(draw, [data]))
    return _rewritten_tar(draw, data)


def with_right_tar_checksums(data: bytes) -> bytes:
    """Return a tar in which every block that looks like a header has its checksum."""
    fixed = bytearray(data)
    for start in range(0, len(fixed) - _BLOCK + 1, _BLOCK):
        if fixed[start + 257 : start + 262] == b"ustar":
            _seal_header(fixed, start)
    return bytes(fixed)


def _seal_header(data: bytearray, start: int) -> None:
    data[start + 148 : start + 156] = b" " * 8
    total = sum(data[start : start + _BLOCK])
    data[start + 148 : start + 156] = b"%06o\0 " % total


def _changed_header(draw: random.Random, data: bytes) -> bytes:
    """Change one field of one header."""
    starts = [
        start
        for start in range(0, len(data) - _BLOCK + 1, _BLOCK)
        if data[start + 257 : start + 262] == b"ustar"
    ]
    if not starts:
        return data
    changed, start = bytearray(data), draw.choice(starts)
    field = draw.choice(list(_FIELDS))
    place, width = _FIELDS[field]
    if field in ("name", "link", "prefix"):
        value = draw.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
    elif field == "kind":
        value = bytes([draw.choice(_KINDS)])
    else:
        value = draw.choice([*_HEADER_NUMBERS, b"%011o\0" % draw.choice([0, 1, 511, 513, 10**9])])
    changed[start + place : start + place + width] = value[:width].ljust(width, b"\0")
    _seal_header(changed, start)
    return bytes(changed)


def _rewritten_tar(draw: random.Random, data: bytes) -> bytes:
    """Write the members anew: one changed, left out, doubled, or odd ones among them."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [
                (member, archive.extractfile(member).read())  # type: ignore[union-attr]
                for member in archive.getmembers()
                if member.isreg()
            ]
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return data
    if not members:
        return data
    number = draw.randrange(len(members))
    member, body = members[number]
    kind = draw.randrange(9)
    if kind <= 3:
        damage = MEMBER_DAMAGE.get(member.name.rpartition(".")[2], lambda d, b: mutate(d, [b]))
        members[number] = (member, damage(draw, body) if len(body) >= 8 else b"")
    elif kind == 4:
        del members[number]
    elif kind == 5:
        members.insert(draw.randrange(len(members) + 1), members[number])
    elif kind == 6:
        draw.shuffle(members)
    elif kind == 7:
        members.insert(draw.randrange(len(members) + 1), _odd_member(draw))
    else:
        member.name = draw.choice([*ODD_TEXTS[:40], member.name.upper(), f"./{member.name}"]) or "x"
    stream = io.BytesIO()
    kinds = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    form = draw.choice(kinds)
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as archive:
        for each, content in members:
            each.size = len(content) if each.isreg() else 0
            try:
                archive.addfile(each, io.BytesIO(content))
            except ValueError:  # a name that this form of tar cannot hold
                each.name = "odd"
                archive.addfile(each, io.BytesIO(content))
    return stream.getvalue()


def _odd_member(draw: random.Random) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(
        draw.choice(["a", "../a", "/a", "a/b", "a/../../b", "sources.lock.json"])
    )
    member.type = draw.choice([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"V"])
    member.linkname = draw.choice(["", "/etc/passwd", "../a", "a"])
    if draw.random() < 0.3:
        member.pax_headers = {
            draw.choice(["path", "size", "GNU.sparse.major", "hdrcharset", "comment"]): draw.choice(
                ["-1", "x" * 5000, "../x", "1", "\x00"]
            )
        }
    return member, b"odd" * draw.choice([1, 300])


def damaged_gzip(draw: random.Random, data: bytes) -> bytes:
    """Return a gzip file with damage below its compression, or in its frame."""
    try:
        inner = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data
    kind = draw.randrange(10)
    if kind <= 5:
        damage = damaged_tar if inner[257:262] == b"ustar" else damaged_jsonl
        return gzip.compress(damage(draw, inner), draw.choice([0, 1, 9]), mtime=0)
    whole = gzip.compress(inner, mtime=0)
    if kind == 6:
        return whole[:-8] + struct.pack("<II", draw.choice([0, zlib.crc32(inner)]), 5)
    if kind == 7:
        return whole + draw.choice([whole, bytes(500), b"more", whole[:20]])
    if kind == 8:
        return gzip.compress(inner + bytes(draw.choice([1, 10**6, 6 * 10**7])), 9, mtime=0)
    return inner
