"""The pictures that the page shows: photographs, label maps and what is computed of them."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.pages.viewer.queries import NotFoundError, Query
from vocprep.pages.viewer.session import Session
from vocprep.pages.viewer.versions import ShownVersion

Pixels = NDArray[np.uint8]
LAYERS = ("thumbnail", "photo", "truth")
THUMBNAIL_SIDE = 224
"""Longer side of a thumbnail in pixels."""
_QUALITY = {"photo": 95, "thumbnail": 85}


class EncodedImage(NamedTuple):
    """An image file in memory."""

    data: bytes
    media_type: str


def draw_layer(session: Session, query: Query) -> EncodedImage:
    """Return one layer of a picture."""
    query.only(("v", "id", "layer", "r", "patch", "plain"))
    version = session.version(query)
    layer = query.choice("layer", LAYERS)
    place = version.place(query.text("id"))
    if layer == "thumbnail":
        return _thumbnail(version, place)
    if layer == "photo":
        photograph = version.photograph(place)
        if photograph is None:
            raise NotFoundError("photo: there are no photographs; start the viewer with --data-dir")
        return _jpeg(photograph, _QUALITY["photo"])
    plain = query.choice("plain", ("0", "1"), "0") == "1"
    image = None if plain else version.photograph(place)
    return _png(_truth(version, place, image))


def _truth(version: ShownVersion, place: int, image: Pixels | None) -> Pixels:
    return version.space.style.paint(version.record(place).decode_label_map())


def _thumbnail(version: ShownVersion, place: int) -> EncodedImage:
    """Return the photograph, or the label map where there is none, no larger than is shown."""
    photograph = version.photograph(place)
    pixels = _truth(version, place, None) if photograph is None else photograph
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    if photograph is None:
        return _png(np.asarray(picture))
    return _jpeg(np.asarray(picture), _QUALITY["thumbnail"])


def _jpeg(pixels: Pixels, quality: int) -> EncodedImage:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return EncodedImage(stream.getvalue(), "image/jpeg")


def _png(pixels: Pixels) -> EncodedImage:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return EncodedImage(stream.getvalue(), "image/png")
