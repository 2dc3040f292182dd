"""Text in pictures: names in any script, each character in a font that has it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FAMILIES = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
"""Fonts of usual systems, for characters that DejaVu Sans lacks; searched when they are needed."""
_NO_CHARACTER = "\U0010ffff"
_MISSING = "?"


def text_width(text: str, size: int) -> int:
    """Return how many pixels wide a line of text is."""
    return round(sum(font.getlength(part) for part, font in _runs(text, size)))


def draw_text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int) -> None:
    """Write one line of black text, the top left corner of its line at ``at``."""
    left = float(at[0])
    for part, font in _runs(text, size):
        draw.text((left, at[1] + size), part, fill=(24, 24, 24), font=font, anchor="ls")
        left += font.getlength(part)


def shortened(text: str, size: int, width: int) -> str:
    """Return text of at most ``width`` pixels, cut at the end where it must be.

    >>> shortened("tvmonitor", 13, 1000)
    'tvmonitor'
    """
    if text_width(text, size) <= width:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if text_width(text[:middle].rstrip() + "…", size) <= width:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "…"


def has_glyphs(text: str) -> bool:
    """Return whether every character of a text can be drawn here."""
    return all(_font_of(character) is not None for character in text)


def _runs(text: str, size: int) -> Iterator[tuple[str, Font]]:
    """Yield parts of a text, each with the font that has its characters."""
    drawn = ((c if _font_of(c) is not None else _MISSING) for c in text)
    for name, characters in groupby(drawn, key=_font_of):
        yield "".join(characters), _font(name or "", size)


@cache
def _font_of(character: str) -> str | None:
    """Return the file of a font that has a character; None where there is none."""
    if not character.isprintable():
        return None
    for name in (_dejavu(), *_FAMILIES):
        missing = _glyph(name, _NO_CHARACTER)
        if missing is not None and (character == " " or _glyph(name, character) != missing):
            return name
    return None


def _glyph(name: str, character: str) -> bytes | None:
    """Return the pixels of one character by itself; None where there is no such font."""
    try:
        # The other layout would put a dotted circle before a mark that combines with a letter.
        font = ImageFont.truetype(name, 16, layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return bytes(_font(name, 16).getmask(character)) if name == _dejavu() else None
    return bytes(font.getmask(character))


@cache
def _font(name: str, size: int) -> Font:
    """Return a font by its file; Pillow's own where DejaVu Sans is not installed."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        if name != _dejavu():
            raise
        return ImageFont.load_default(size)


@cache
def _dejavu() -> str:
    """Return the file of DejaVu Sans that matplotlib brings; importing it takes much longer."""
    spec = find_spec("matplotlib")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    return str(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf")
