"""The pictures that the page shows: photographs, label maps and what is computed of them.

Shape legend: h×w = 32·ny × 32·nx pixels.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.analysis.neighbours import similarity_map
from vocprep.drawing.label_maps import (
    paint_confidence,
    paint_errors,
    paint_label_map,
    paint_values,
)
from vocprep.geometry import PATCH
from vocprep.pages.viewer.queries import NotFoundError, Query
from vocprep.pages.viewer.shown.runs import ShownRun
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.shown.versions import ShownVersion

Pixels = NDArray[np.uint8]
OF_VERSIONS = ("thumbnail", "photo", "truth", "components", "similarity")
OF_RUNS = ("prediction", "error", "confidence")
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
    version, record_id = session.version(query), query.text("id")
    layer = query.choice("layer", (*OF_VERSIONS, *OF_RUNS))
    plain = query.choice("plain", ("0", "1"), "0") == "1"
    if layer in OF_RUNS:
        run = session.required_run(query)
        return _png(_run_layer(run, run.place(record_id), layer, plain))
    place = version.place(record_id)
    if layer == "thumbnail":
        return _thumbnail(version, place)
    if layer == "photo":
        photograph = version.photograph(place)
        if photograph is None:
            raise NotFoundError("photo: there are no photographs; start the viewer with --data-dir")
        return _jpeg(photograph, _QUALITY["photo"])
    if layer == "truth":
        return _png(_truth(version, place, None if plain else version.photograph(place)))
    record = version.record(place)
    if layer == "components":
        return _png(_enlarged(version.components().rgb(record.embeddings, record.grid)))
    patch = query.whole("patch", None, most=len(record.embeddings) - 1)
    values = similarity_map(record.embeddings, patch).reshape(record.grid)
    return _png(_enlarged(paint_values(values, float(values.min()), 1.0)))


def _run_layer(run: ShownRun, place: int, layer: str, plain: bool) -> Pixels:
    found, version = run.predict(place), run.version
    if layer == "confidence":
        return paint_confidence(found.confidence)
    image, style = None if plain else version.photograph(place), version.space.style
    if layer == "prediction":
        return paint_label_map(found.label_map, style, image)
    truth = version.record(place).decode_label_map()
    return paint_errors(truth, found.label_map, style, image)


def _truth(version: ShownVersion, place: int, image: Pixels | None) -> Pixels:
    label_map = version.record(place).decode_label_map()
    return paint_label_map(label_map, version.space.style, image)


def _enlarged(patches: Pixels) -> Pixels:
    """Return pixels [h, w, 3] of one colour per patch [ny, nx, 3]."""
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


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
