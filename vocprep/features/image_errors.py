"""What is wrong with an image that does not decode, and what to do: one sentence per case."""

from __future__ import annotations

from collections.abc import Collection

from PIL import UnidentifiedImageError

from vocprep.errors import ImageDecodeError
from vocprep.formats.jpeg import JPEG_BEGINNING, frame_kind
from vocprep.formats.kinds import advise, describe_kind, kind_of
from vocprep.validation import printable

OPENED = "JPEG, PNG, WebP, BMP, GIF, TIFF or PPM"
"""Formats of images that need not be JPEG."""
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*", b"MM\0*", b"P")
"""First bytes of those formats."""
_MOST_NAMES = 5
_UNREAD = ("a HEIC picture", "an AVIF picture", "a JPEG 2000 picture", "a JPEG XL picture")
_SUFFIXES = {
    "a JPEG picture": ".jpg",
    "a PNG picture": ".png",
    "a WebP picture": ".webp",
    "a TIFF picture": ".tif",
    "a BMP picture": ".bmp",
}
"""Of the pictures that builds read."""
MAX_PIXELS = 1 << 26
"""An image with more pixels than this is refused as a decompression bomb."""


def image_decode_error(
    where: str, data: bytes, error: Exception, *, is_any_format: bool = False
) -> ImageDecodeError:
    """Return the error for an image whose decoder failed with ``error``.

    ``is_any_format`` is of images that may be of any common format; the others must be JPEG.
    """
    recorded = f"picture does not decode: {error}; fetch the file again"
    if isinstance(error, UnidentifiedImageError) or not data.startswith(_BEGINNINGS):
        recorded = (
            f"picture does not decode: {len(data)} bytes that begin with {data[:12]!r} "
            "are no picture of a known kind; fetch the file again"
        )
    if data.startswith(JPEG_BEGINNING) or (is_any_format and data.startswith(_BEGINNINGS)):
        message = describe_failure(data, error)
    else:
        message = _no_picture(data) if is_any_format else of_other_kind(data, "a JPEG picture")
    return ImageDecodeError(f"{where}: {message}", recorded=f"{where}: {recorded}")


def describe_failure(data: bytes, error: Exception) -> str:
    """Describe an image of the right format that its decoder refuses."""
    kind = frame_kind(data) if data.startswith(JPEG_BEGINNING) else None
    if kind not in (None, "coded arithmetically"):
        return f"a JPEG that is {kind}, which is not read; save it again as baseline JPEG"
    problem = str(error)
    if is_cut(error):
        problem = "its pixel data end early"
    elif isinstance(error, UnidentifiedImageError):
        problem = "its header is damaged"
    elif "subsampling" in problem:
        problem = "its header is damaged, or its chroma subsampling is of no common kind"
    return f"picture does not decode: {problem}; replace it by a sound copy"


def turned_note(names: Collection[str]) -> str:
    """Describe pictures of a dataset that are stored otherwise than viewers show them."""
    return (
        f"pictures whose metadata state an orientation: {listed(names)}; datasets "
        "take the stored pixels, so that label maps that were drawn on the upright pictures do not "
        "fit: store such pictures upright, or draw on the stored pixels"
    )


def listed(names: Collection[str]) -> str:
    """Return the number of some names, and the first of them.

    >>> listed({"b", "a"}), listed(list("cadbfe"))
    ('2 (a, b)', '6 (a, b, c, d, e and 1 more)')
    """
    shown = ", ".join(sorted(names)[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names):,} ({printable(shown)}{more})"


def is_cut(error: Exception | None) -> bool:
    """Return whether libjpeg-turbo has found that pixel data end early."""
    return "premature end" in str(error).lower()


def of_other_kind(data: bytes, expected: str) -> str:
    """Describe a file in the place of a picture of an expected kind, such as ``a PNG picture``."""
    name = expected.removeprefix("a ").removesuffix(" picture")
    advice = dict.fromkeys((*_UNREAD, "a GIF picture"), f"convert it to {name}")
    for kind, suffix in _SUFFIXES.items():
        advice[kind] = f"give its name the suffix {suffix}, or convert it to {name}"
    return f"{_found(data)}, where {expected} is expected; {advise(data, advice)}"


def check_pixels(height: int, width: int, where: str) -> None:
    """Raise ImageDecodeError for a picture of more pixels than are read."""
    if height * width > MAX_PIXELS:
        problem = (
            f"{where}: picture of {width}×{height} pixels: expected at most {MAX_PIXELS} pixels"
        )
        raise ImageDecodeError(f"{problem}; scale it down", recorded=problem)


def _no_picture(data: bytes) -> str:
    """Describe a file in the place of a picture of any common format."""
    advice = advise(data, dict.fromkeys(_UNREAD, "convert it to JPEG or PNG"))
    return f"{_found(data)}, where a picture is expected as {OPENED}; {advice}"


def _found(data: bytes) -> str:
    return describe_kind(data) if kind_of(data) else f"no picture: {describe_kind(data)}"
