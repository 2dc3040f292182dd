"""GIF and PNM headers: Pillow reads them piece by piece, which takes minutes for some millions."""

from __future__ import annotations

import re

MAX_GIF_BLOCKS = 100_000
"""Blocks of a GIF before its first picture: a colour profile has some thousands."""
MAX_TEXT_BYTES = 1 << 20
"""Of a PNM whose pixels are written as text, which Pillow reads number by number."""
_PNM_HEADER_BYTES = 1 << 16
_COMMENT = re.compile(rb"#[^\n\r]*")


class HeaderError(Exception):
    """A picture that takes too long to read, without the file's name."""


def check_header(data: bytes) -> None:
    """Raise HeaderError for a GIF or PNM that takes Pillow too long; pass anything else."""
    if data.startswith(b"GIF8"):
        _check_gif(data)
    elif data.startswith(b"P"):
        _check_pnm(data)


def _check_gif(data: bytes) -> None:
    """Walk over the extensions before the first picture."""
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = 0
    while position + 1 < len(data) and data[position] != ord(","):
        is_extension = data[position] == ord("!")
        position += 2 if is_extension else 1
        while is_extension and position < len(data) and data[position]:
            position += 1 + data[position]
            blocks += 1
            if blocks > MAX_GIF_BLOCKS:
                break
        position += is_extension
        blocks += 1
        if blocks > MAX_GIF_BLOCKS:
            raise HeaderError(f"more than {MAX_GIF_BLOCKS:,} blocks before its first picture")


def _check_pnm(data: bytes) -> None:
    if data[1:2] in (b"1", b"2", b"3") and len(data) > MAX_TEXT_BYTES:
        raise HeaderError(
            f"{len(data):,} bytes of pixels written as text, where at most {MAX_TEXT_BYTES:,} are "
            "read"
        )
    tokens = _COMMENT.sub(b"", data[:_PNM_HEADER_BYTES]).split(maxsplit=4)
    if len(tokens) < 4 and len(data) > _PNM_HEADER_BYTES:
        raise HeaderError(f"no size in its first {_PNM_HEADER_BYTES:,} bytes")
