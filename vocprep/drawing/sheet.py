"""Sheets: panels of one image side by side with captions, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vocprep.drawing.fonts import draw_text, has_glyphs, shortened, text_width
from vocprep.drawing.label_maps import hatched, value_colours
from vocprep.drawing.legend import LegendRow

_T = TypeVar("_T", bound=np.generic)

SMALL_SIDE = 360
"""Panels whose longer side is far below are enlarged by a whole number, to about this."""
LARGE_SIDE = 1024
"""Panels whose longer side is above are reduced by a whole number, to less than this."""
_TEXT = 14
_LINE = 22
_SWATCH = 16
_MARGIN = 14
_NAME_WIDTH = 190
_COLUMN_WIDTH = 58
_MOST_IN_A_ROW = 3
_BAR_WIDTH = 90


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a sheet."""

    caption: str
    pixels: NDArray[np.uint8]
    """[H, W, 3]"""
    limits: tuple[str, str] | None = None
    """The lowest and the highest value, where the pixels are those of ``paint_values``."""


def picture_sheet(
    panels: Sequence[Panel],
    legend: Sequence[LegendRow] = (),
    *,
    headings: Sequence[str] = ("share",),
    title: str = "",
) -> Image.Image:
    """Return panels in rows, each below its caption, with a legend beside or after them.

    All panels must have pixels of the same height and width. ``headings`` name the legend's
    columns of shares, one per label map; ``title`` stands above all.
    """
    drawn = [_panel(panel) for panel in panels]
    listed = _legend(legend, headings) if legend else None
    cells = _Cells.of(drawn, listed)
    top = _MARGIN + (_LINE + _MARGIN // 2 if title else 0)
    sheet = Image.new("RGB", (cells.width, top + cells.height), "white")
    for number, picture in enumerate(drawn):
        left, below = cells.place(number)
        sheet.paste(picture, (left, top + below))
    if listed is not None:
        left, below = cells.legend
        sheet.paste(listed, (left, top + below))
    if title:
        text = shortened(title, _TEXT + 2, sheet.width - 2 * _MARGIN)
        draw_text(ImageDraw.Draw(sheet), (_MARGIN, _MARGIN - 2), text, _TEXT + 2)
    return sheet


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Where the panels and the legend of a sheet lie, in pixels below its title."""

    per_row: int
    cell: tuple[int, int]
    """Width and height of a panel with the margin after it."""
    legend: tuple[int, int]
    width: int
    height: int

    @classmethod
    def of(cls, panels: Sequence[Image.Image], legend: Image.Image | None) -> _Cells:
        """Arrange panels of equal size, and a legend beside them or in the room after the last."""
        count = len(panels)
        # Four panels make two rows of two, so that the sheet can be read at the width of a page.
        per_row = 2 if count == _MOST_IN_A_ROW + 1 else min(count, _MOST_IN_A_ROW)
        rows, free = -(-count // per_row), -count % per_row
        width, height = panels[0].width + _MARGIN, panels[0].height + _MARGIN
        arranged = cls(
            per_row=per_row,
            cell=(width, height),
            legend=(0, 0),
            width=_MARGIN + per_row * width,
            height=rows * height,
        )
        if legend is None:
            return arranged
        if legend.width <= free * width - _MARGIN and legend.height <= height - _MARGIN:
            return replace(arranged, legend=arranged.place(count))
        return replace(
            arranged,
            legend=(arranged.width, 0),
            width=arranged.width + legend.width + _MARGIN,
            height=max(arranged.height, legend.height + _MARGIN),
        )

    def place(self, number: int) -> tuple[int, int]:
        """Return the top left corner of a panel by its number."""
        row, column = divmod(number, self.per_row)
        return _MARGIN + column * self.cell[0], row * self.cell[1]


def fitted(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels [H, W, 3] at the size of a panel: enlarged or reduced by a whole number."""
    picture = Image.fromarray(pixels).reduce(_reduction(pixels.shape))
    factor = max(1, round(SMALL_SIDE / max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def reduced_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image [H, W, 3] of no more pixels than a panel shows."""
    return np.asarray(Image.fromarray(image).reduce(_reduction(image.shape)))


def reduced_values(values: NDArray[_T]) -> NDArray[_T]:
    """Return class ids or other values [H, W] of no more pixels than a panel shows.

    They fit the image of ``reduced_image``. What is painted of them has lines of the right width,
    and takes less time than all pixels would.
    """
    step = _reduction(values.shape)
    return values[::step, ::step]


def _reduction(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // LARGE_SIDE)


def _panel(panel: Panel) -> Image.Image:
    """Draw a panel below its caption, and the colours of its values between their limits."""
    picture = fitted(panel.pixels)
    drawn = Image.new("RGB", (picture.width, picture.height + _LINE), "white")
    drawn.paste(picture, (0, _LINE))
    draw, room = ImageDraw.Draw(drawn), picture.width
    if panel.limits is not None:
        room -= _draw_scale(drawn, panel.limits)
    draw_text(draw, (0, 0), shortened(panel.caption, _TEXT, room), _TEXT)
    return drawn


def _draw_scale(drawn: Image.Image, limits: tuple[str, str]) -> int:
    """Draw ``low`` [colours] ``high`` at the right end of a caption; return the width."""
    draw = ImageDraw.Draw(drawn)
    low, high = (text_width(text, _TEXT) for text in limits)
    bar = min(_BAR_WIDTH, drawn.width // 3)
    steps = value_colours()[np.linspace(0, 255, bar).astype(np.uint8)]
    colours = Image.fromarray(np.broadcast_to(steps, (_TEXT - 2, bar, 3)).copy())
    left = drawn.width - high - 4 - bar
    drawn.paste(colours, (left, 3))
    draw_text(draw, (left - 4 - low, 0), limits[0], _TEXT)
    draw_text(draw, (drawn.width - high, 0), limits[1], _TEXT)
    return low + high + bar + 16


def _legend(rows: Sequence[LegendRow], headings: Sequence[str]) -> Image.Image:
    """Draw a line per row: the swatch, the name, a column of shares per label map."""
    texts = [f"{heading} %" for heading in headings]
    columns = [max(_COLUMN_WIDTH, text_width(text, _TEXT) + _MARGIN) for text in texts]
    names = [row.name if has_glyphs(row.name) else f"{row.id}: {row.name}" for row in rows]
    width = max((text_width(name, _TEXT) for name in names), default=0)
    named = _SWATCH + 8 + min(width, _NAME_WIDTH)
    legend = Image.new("RGB", (named + sum(columns), _LINE * (len(rows) + 1)), "white")
    draw = ImageDraw.Draw(legend)
    edges = [named + sum(columns[: number + 1]) for number in range(len(columns))]
    _draw_columns(draw, edges, 0, texts)
    for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        top = number * _LINE
        _draw_swatch(legend, top, row)
        draw_text(draw, (_SWATCH + 8, top), shortened(name, _TEXT, _NAME_WIDTH), _TEXT)
        _draw_columns(draw, edges, top, row.shares)
    return legend


def _draw_swatch(legend: Image.Image, top: int, row: LegendRow) -> None:
    colour = Image.new("RGB", (_SWATCH, _SWATCH), row.colour)
    if row.is_void:
        colour = Image.fromarray(hatched(_SWATCH, _SWATCH))
    ImageDraw.Draw(colour).rectangle((0, 0, _SWATCH - 1, _SWATCH - 1), outline=(90, 90, 90))
    legend.paste(colour, (0, top))


def _draw_columns(
    draw: ImageDraw.ImageDraw, edges: Sequence[int], top: int, texts: Sequence[str]
) -> None:
    """Write a text per column, each aligned to the right edge of its column."""
    for edge, text in zip(edges, texts, strict=True):
        draw_text(draw, (edge - text_width(text, _TEXT), top), text, _TEXT)
