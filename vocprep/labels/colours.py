"""Colour masks: RGB, grey and palette PNG whose colours stand for classes, by a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.formats.errors import FormatError, UnreadError
from vocprep.formats.png import (
    COLOUR_ALPHA,
    GREY_ALPHA,
    PALETTE,
    SIGNATURE,
    Png,
    check_pixel_data,
    chunk_body,
    read_png,
)
from vocprep.labels.advice import no_png, too_large

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is refused as a decompression bomb."""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_MOST_SHOWN = 3
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class ColourTable:
    """The raw label id of each colour."""

    colours: NDArray[np.uint32]
    """[N] red, green and blue in one number, sorted."""
    ids: NDArray[np.uint16]
    """[N]"""

    @classmethod
    def of(cls, ids: Mapping[str, int]) -> Self:
        """Make a table of ``#rrggbb`` and ids."""
        pairs = sorted((int(colour[1:], 16), label) for colour, label in ids.items())
        return cls(
            colours=np.array([colour for colour, _ in pairs], np.uint32),
            ids=np.array([label for _, label in pairs], np.uint16),
        )

    @property
    def sha256(self) -> str:
        """Digest of the colours and their ids."""
        pairs = zip(self.colours.tolist(), self.ids.tolist(), strict=True)
        return sha256_hex(canonical_json({_hex(colour): label for colour, label in pairs}))

    def apply(self, pixels: Pixels) -> NDArray[np.uint16]:
        """Return the ids [H, W] of colours [H, W, 3]; UnreadError naming those of no id.

        >>> table = ColourTable.of({"#000000": 0, "#80ff00": 7})
        >>> table.apply(np.array([[[128, 255, 0], [0, 0, 0]]], dtype=np.uint8)).tolist()
        [[7, 0]]
        """
        packed = packed_colours(pixels)
        starts, lengths = runs(packed)
        found = packed[starts]
        places = np.minimum(np.searchsorted(self.colours, found), len(self.colours) - 1)
        is_known = self.colours[places] == found
        if not is_known.all():
            raise UnreadError(_unknown(found, starts, lengths, is_known, pixels.shape[1]))
        return np.repeat(self.ids[places], lengths).reshape(pixels.shape[:2])


def packed_colours(pixels: Pixels) -> NDArray[np.uint32]:
    """Return red, green and blue of pixels [H, W, 3] in one number each [H·W]."""
    flat = pixels.reshape(-1, 3).astype(np.uint32)
    return (flat[:, 0] << np.uint32(16)) | (flat[:, 1] << np.uint32(8)) | flat[:, 2]


def runs(values: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where runs of equal values [N] begin, and how long they are."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(starts, append=len(values))


def _unknown(
    found: NDArray[np.uint32],
    starts: NDArray[np.intp],
    lengths: NDArray[np.intp],
    is_known: NDArray[np.bool_],
    width: int,
) -> str:
    """Describe colours that have no id: the most frequent ones, and where they begin."""
    colours, first, group = np.unique(found[~is_known], return_index=True, return_inverse=True)
    pixels = np.bincount(group, weights=lengths[~is_known]).astype(int)
    places = starts[~is_known][first]

    def shown() -> Iterator[str]:
        for number in np.argsort(-pixels, kind="stable")[:_MOST_SHOWN].tolist():
            row, column = divmod(int(places[number]), width)
            count = f"{pixels[number]:,} pixel{'s' if pixels[number] > 1 else ''}"
            yield f"{_hex(int(colours[number]))} in {count} from row {row}, column {column} on"

    more = f", and {len(colours) - _MOST_SHOWN:,} more" if len(colours) > _MOST_SHOWN else ""
    number = "a colour that has" if len(colours) == 1 else f"{len(colours):,} colours that have"
    advice = (
        "colours between others come of smooth edges or of JPEG: export the mask without them"
        if len(colours) > 2 * _MOST_SHOWN
        else "add them to label_colours in the manifest, with the id of void if they mean nothing"
    )
    return f"{number} no id: {', '.join(shown())}{more}; {advice}"


def _hex(colour: int) -> str:
    return f"#{colour:06x}"


def read_colour_png(data: bytes) -> Pixels:
    """Return the colours [H, W, 3] of a PNG mask; FormatError for any other file.

    Grey values v are the colours (v, v, v), those of fewer than 8 bits scaled; a palette's colours
    count, its transparency does not. In an alpha channel every pixel is opaque, or wholly
    transparent and black.
    """
    if not data.startswith(SIGNATURE):
        raise UnreadError(no_png(data))
    png = read_png(data, lambda kind: kind not in _CRITICAL)
    header = png.header
    if header.width * header.height > MAX_PIXELS:
        raise UnreadError(too_large(header.width, header.height, MAX_PIXELS))
    if header.depth == 16:
        raise UnreadError("16 bits per channel, where colours of 8 bits are expected; save 8 bits")
    check_pixel_data(png)
    return _with_pillow(png)


def _with_pillow(png: Png) -> Pixels:
    try:
        # Image.open would warn of large sizes, which are checked already.
        with PngImageFile(io.BytesIO(png.data)) as image:
            image.load()
            stored = np.asarray(image)
            pixels = np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    # Pillow raises many types of exceptions on damaged data.
    except Exception as error:
        raise FormatError(f"PNG does not decode: {error}") from error
    colour = png.header.colour
    if colour == PALETTE and stored.max(initial=0) >= len(chunk_body(png.data, b"PLTE")) // 3:
        raise FormatError("a pixel of a colour that its palette does not have")
    if colour in (GREY_ALPHA, COLOUR_ALPHA):
        alpha = stored[..., -1]
        is_fine = (alpha == 255) | ((alpha == 0) & ~pixels.any(axis=2))
        if not is_fine.all():
            row, column = np.argwhere(~is_fine)[0]
            raise UnreadError(
                f"a pixel at row {row}, column {column} is partly transparent, or transparent with "
                "a colour; save the mask without an alpha channel"
            )
    return pixels
