"""The skeleton of every report: one HTML file of sections, with no script and nothing to fetch.

A section is made by ``section`` from a template of this room and the values that it shows. Whatever
is not ``Markup`` is escaped by the template, and a value that a template lacks is an error.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from vocprep.drawing.palette import hex_of
from vocprep.validation import printable

_MOST_COLOURS = 256
"""Of a picture that is kept without loss: those that a palette has room for."""
_JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page with a heading of its own, which the page's navigation leads to."""

    id: str
    """Anchor: small letters, digits and hyphens."""
    heading: str
    html: Markup


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report."""

    title: str
    lead: str
    """One line below the title."""
    sections: tuple[Section, ...]

    def render(self) -> str:
        """Return the whole file; the same sections give the same text."""
        ids = [section.id for section in self.sections]
        assert len(set(ids)) == len(ids), f"two sections of one id: {ids}"
        return str(render("page.html", page=self, css=_css(), version=version("vocprep"))) + "\n"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in the page: what an ``<img>`` needs."""

    uri: str
    """Its bytes as a ``data:`` URI."""
    alt: str
    """What it shows, for readers who do not see it."""
    width: int
    height: int
    pixelated: bool = False
    """Whether it is enlarged without smoothing: where a pixel stands for a patch."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], alt: str, scale: int = 1) -> Picture:
        """Return a picture of pixels uint8 [H, W, 3], shown ``scale`` times as large.

        Few colours are kept as they are, as PNG; others become a PNG or a JPEG, whichever has
        fewer bytes.
        """
        height, width = pixels.shape[:2]
        return cls(
            uri=_data_uri(pixels),
            alt=alt,
            width=width * scale,
            height=height * scale,
            pixelated=scale > 1,
        )


def section(section_id: str, heading: str, template: str, **values: Any) -> Section:
    """Return a section whose content is a template of this room, filled in with values."""
    return Section(id=section_id, heading=heading, html=render(template, **values))


def render(template: str, **values: Any) -> Markup:
    """Return a template of this room, filled in with values."""
    return Markup(_environment().get_template(template).render(**values))


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], *, row_heads: bool = True
) -> Markup:
    """Return a table that scrolls within its own box where the page is too narrow for it.

    Whole numbers get separators, other numbers one decimal, None a dash; columns of numbers are set
    to the right. The first cell of a row is its heading where ``row_heads``.

    >>> "12,345" in table("Records", ("split", "records"), [("train", 12345)])
    True
    """
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(head))
    ]
    return render(
        "table.html",
        caption=caption,
        head=[*zip(head, numeric, strict=True)],
        rows=[[*zip(row, numeric, strict=True)] for row in rows],
        row_heads=row_heads,
    )


def cell(value: Any) -> str | Markup:
    """Return a value as a table and a template show it.

    >>> [cell(value) for value in (12345, 0.25, None)]
    ['12,345', '0.2', '—']
    """
    if isinstance(value, Markup):
        return value
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else name(str(value))


def name(text: str) -> Markup:
    """Return a name that others chose: one line, whose direction does not reach its surroundings.

    >>> name("<b>")
    Markup('<bdi>&lt;b&gt;</bdi>')
    """
    return Markup("<bdi>") + escape(printable(text)) + Markup("</bdi>")


def digest(sha256: str) -> Markup:
    """Return the first twelve digits of a digest, the whole of it where a pointer rests."""
    shown = escape(sha256[:12])
    return Markup(f'<code title="{escape(sha256)}">{shown}…</code>')


def swatch(colour: tuple[int, int, int]) -> Markup:
    """Return a small square of a class's colour."""
    return Markup('<span class="swatch" style="background:{}"></span>').format(hex_of(colour))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = _with_palette(pixels)
    kind, data = "png", _encode(picture, format="PNG", optimize=True)
    if picture.mode != "P":
        lossy = _encode(picture, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
        kind, data = ("jpeg", lossy) if len(lossy) < len(data) else (kind, data)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _with_palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return a picture of these pixels; one with a palette where they have few colours."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > _MOST_COLOURS:
        return Image.fromarray(np.ascontiguousarray(pixels))
    picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), mode="P")
    channels = np.stack([colours >> 16, colours >> 8, colours], axis=1).astype(np.uint8)
    picture.putpalette(channels.tobytes())
    return picture


def _encode(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, **options)
    return stream.getvalue()


def _one_line(value: Any) -> Any:
    """Return what a template is to show, its text without characters that change other text."""
    is_plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if is_plain and not value.isprintable() else value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vocprep.pages.report"),
        autoescape=True,
        finalize=_one_line,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell, name=name, plain=printable, digest=digest, swatch=swatch)
    return environment


@cache
def _css() -> Markup:
    loader = _environment().loader
    assert loader is not None
    # CSS holds no "<", so that it cannot end the element that it stands in.
    return Markup(loader.get_source(_environment(), "page.css")[0])
