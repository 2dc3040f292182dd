"""Damage to pictures and masks that keeps their structure: PNG chunks, JPEG segments, TIFF tags."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

from builders.fuzzing import mutate

Chunk = tuple[bytes, bytes]
"""Type and data of a PNG chunk; marker and data of a JPEG segment."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIZES = (0, 1, 2, 7, 8, 31, 32, 63, 64, 65, 96, 1000, 8192, 8193, 65535, 2**31 - 1, 2**32 - 1)


def damaged_png(draw: random.Random, data: bytes) -> bytes:
    """Return a PNG of which one or two chunks are changed, all checksums right."""
    chunks = png_chunks(data)
    if not chunks:
        return data
    for _ in range(draw.choice([1, 1, 2])):
        number = draw.randrange(len(chunks))
        kind = draw.randrange(12)
        if kind == 0:
            chunks[0] = (b"IHDR", _header(draw, chunks[0][1]))
        elif kind <= 3:
            _change_pixels(draw, chunks)
        elif kind == 4:
            del chunks[number]
        elif kind == 5:
            chunks.insert(number, draw.choice(chunks))
        elif kind == 6:
            draw.shuffle(chunks)
        elif kind == 7:
            chunks.insert(draw.randrange(1, len(chunks) + 1), _odd_chunk(draw))
        elif kind == 8:
            name, body = chunks[number]
            chunks[number] = (name, mutate(draw, [body]) if len(body) >= 8 else body + b"\0")
        elif kind == 9:
            name, body = chunks[number]
            chunks[number] = (draw.choice([b"IDAT", b"PLTE", b"tRNS", b"abcd", b"IEND"]), body)
        elif kind == 10:
            chunks = chunks[:number]
        else:
            _split_pixels(draw, chunks)
        if not chunks:
            break
    return png_file(chunks)


def damaged_tiff(draw: random.Random, data: bytes) -> bytes:
    """Return a TIFF of which one to three tags have another number, type, count or value."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 10:
        return data
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start) if start + 2 <= len(data) else (0,)
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        entry = start + 2 + 12 * draw.randrange(count or 1)
        if entry + 12 > len(changed):
            break
        tag, kind, number, value = struct.unpack_from(order + "HHII", changed, entry)
        field = draw.randrange(4)
        if field == 0:
            tag = draw.choice(
                [254, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 324, 339]
            )
        elif field == 1:
            kind = draw.choice([*range(1, 14), 0, 65535])
        elif field == 2:
            number = draw.choice([*_SIZES, number + 1])
        else:
            value = draw.choice([*_SIZES, value + 1, 3, 5, 6, 32773, len(data) - 1, start])
        struct.pack_into(order + "HHII", changed, entry, tag, kind, number, value)
    return bytes(changed)


def png_chunks(data: bytes) -> list[Chunk]:
    """Return the chunks of a sound PNG; none of anything else."""
    chunks, position = [], len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += 12 + size
    return chunks


def png_file(chunks: list[Chunk]) -> bytes:
    """Return a PNG of chunks, with lengths and checksums."""
    parts = [_SIGNATURE]
    for name, body in chunks:
        checksum = zlib.crc32(name + body)
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum))
    return b"".join(parts)


def has_all_pixels(data: bytes) -> bool:
    """Return whether the first pixel data of a PNG are as long as its header demands.

    True, too, of what cannot be judged here: an interlaced picture, or no PNG.
    """
    chunks = png_chunks(data)
    if not chunks or len(chunks[0][1]) != 13:
        return True
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colours)
    if channels is None or interlaced:
        return True
    needed = height * (1 + -(-width * depth * channels // 8))
    packed = b"".join(body for name, body in chunks if name == b"IDAT")
    try:
        found = zlib.decompressobj().decompress(packed, needed + 1)
    except zlib.error:
        return False
    return len(found) >= needed


def _header(draw: random.Random, body: bytes) -> bytes:
    values = list(struct.unpack(">IIBBBBB", body)) if len(body) == 13 else [64, 64, 8, 0, 0, 0, 0]
    number = draw.randrange(7)
    choices = _SIZES if number < 2 else (0, 1, 2, 3, 4, 6, 8, 16, 255)
    values[number] = draw.choice(choices)
    return struct.pack(">IIBBBBB", *values)


def _change_pixels(draw: random.Random, chunks: list[Chunk]) -> None:
    """Change, shorten or lengthen what the IDAT chunks inflate to."""
    numbers = [number for number, (name, _) in enumerate(chunks) if name == b"IDAT"]
    if not numbers:
        return
    packed = b"".join(chunks[number][1] for number in numbers)
    try:
        pixels = zlib.decompress(packed)
    except zlib.error:
        return
    kind = draw.randrange(7)
    if kind == 0:
        pixels = pixels[: draw.randrange(len(pixels) + 1)]
    elif kind == 1:
        pixels = mutate(draw, [pixels]) if len(pixels) >= 8 else pixels
    elif kind == 2:
        pixels += bytes(draw.choice([1, 100, 100_000, 10_000_000]))
    elif kind == 3:
        row = draw.randrange(len(pixels) + 1)
        pixels = pixels[:row] + bytes([draw.randrange(256)]) + pixels[row + 1 :]
    body = zlib.compress(pixels, draw.choice([0, 1, 9]))
    if kind == 4:
        body = body[: draw.randrange(len(body))]
    elif kind == 5:
        body = body[:-4] + bytes(4)  # the checksum of the pixel data
    elif kind == 6:
        body += draw.randbytes(draw.choice([1, 30]))
    chunks[numbers[0]] = (b"IDAT", body)
    for number in reversed(numbers[1:]):
        del chunks[number]


def _split_pixels(draw: random.Random, chunks: list[Chunk]) -> None:
    """Distribute the pixel data over many small chunks."""
    numbers = [number for number, (name, _) in enumerate(chunks) if name == b"IDAT"]
    if numbers:
        body, step = chunks[numbers[0]][1], draw.choice([1, 2, 50])
        pieces = [(b"IDAT", body[start : start + step]) for start in range(0, len(body), step)]
        chunks[numbers[0] : numbers[0] + 1] = pieces


def _odd_chunk(draw: random.Random) -> Chunk:
    bomb = _bomb()
    return draw.choice(
        [
            (b"tRNS", bytes(draw.randrange(300))),
            (b"PLTE", bytes(draw.choice([0, 3, 4, 768, 771]))),
            (b"gAMA", struct.pack(">I", draw.choice([0, 1, 45455, 2**32 - 1]))),
            (b"iCCP", b"name\0\0" + bomb),
            (b"zTXt", b"name\0\0" + bomb),
            (b"iTXt", b"name\0\1\0\0\0" + bomb),
            (b"tEXt", b"x" * 2_000_000),
            (b"eXIf", _exif(draw.randrange(10))),
            (b"acTL", struct.pack(">II", draw.choice([0, 1, 2**31]), 0)),
            (b"fcTL", draw.randbytes(26)),
            (b"ABCD", b"unknown and critical"),
            (b"IEND", b""),
            (b"\x00\xff  ", b""),
        ]
    )


@cache
def _bomb() -> bytes:
    """Return zeros, much compressed."""
    return zlib.compress(bytes(30_000_000), 9)


def _exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def damaged_jpeg(draw: random.Random, data: bytes) -> bytes:
    """Return a JPEG of which one or two segments are changed."""
    segments = jpeg_segments(data)
    for _ in range(draw.choice([1, 1, 2])):
        if len(segments) < 2:
            break
        number = draw.randrange(len(segments))
        marker, body = segments[number]
        kind = draw.randrange(10)
        if kind == 0:
            del segments[number]
        elif kind == 1:
            segments.insert(number, draw.choice(segments))
        elif kind == 2:
            segments[number] = (marker, mutate(draw, [body]) if len(body) >= 8 else b"\0\3\1")
        elif kind == 3:
            _change_frame(draw, segments)
        elif kind == 4:
            _repeat_scan(draw, segments)
        elif kind == 5:
            exif = b"Exif\0\0" + _exif(draw.randrange(10))
            segments.insert(1, (b"\xff\xe1", struct.pack(">H", len(exif) + 2) + exif))
        elif kind == 6:
            other = bytes([0xFF, draw.choice([0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xDD, 0xEE, 0xFE])])
            segments[number] = (other, body)
        elif kind == 7:
            segments = segments[:number]
        elif kind == 8:
            segments.insert(
                1, (b"\xff\xee", b"\0\x0eAdobe\0d\0\0\0\0" + bytes([draw.randrange(4)]))
            )
        else:
            segments.append((b"\xff\xd9", draw.randbytes(40)))
    return b"".join(marker + body for marker, body in segments)


def jpeg_segments(data: bytes) -> list[Chunk]:
    """Return the segments of a JPEG; the data of a scan follow its header in one of them."""
    segments, position = [], 0
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position : position + 2]
        end = position + 2
        if marker[1] not in (0xD8, 0xD9) and end + 2 <= len(data):
            end += int.from_bytes(data[end : end + 2], "big")
        if marker[1] == 0xDA:
            while end + 1 < len(data) and not (data[end] == 0xFF and _ends_scan(data[end + 1])):
                end += 1
        segments.append((marker, data[position + 2 : end]))
        position = end
    return segments


def _ends_scan(byte: int) -> bool:
    return byte != 0 and not 0xD0 <= byte <= 0xD7


def _change_frame(draw: random.Random, segments: list[Chunk]) -> None:
    """Change size, precision or components in the frame header."""
    for number, (marker, body) in enumerate(segments):
        if marker in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") and len(body) >= 8:
            changed = bytearray(body)
            place = draw.choice([2, 3, 5, 7, *range(8, len(body))])
            if place in (3, 5):
                changed[place : place + 2] = struct.pack(">H", draw.choice(_SIZES[:-2]))
            else:
                changed[place] = draw.choice([0, 1, 2, 4, 8, 12, 17, 0x11, 0x22, 0x44, 255])
            segments[number] = (marker, bytes(changed))
            return


def _repeat_scan(draw: random.Random, segments: list[Chunk]) -> None:
    """Repeat a scan many times, in a picture that claims to be large."""
    scans = [number for number, (marker, _) in enumerate(segments) if marker == b"\xff\xda"]
    if scans:
        number = draw.choice(scans)
        segments[number:number] = [segments[number]] * draw.choice([2, 50, 2000])
        if draw.random() < 0.5:
            _change_frame(draw, segments)
