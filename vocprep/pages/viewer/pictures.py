"""Lists of pictures, filtered and sorted, and what is known of one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.geometry import PATCH
from vocprep.labels.targets import NO_LABEL, PIXELS
from vocprep.pages.viewer.queries import Query
from vocprep.pages.viewer.session import Session
from vocprep.pages.viewer.versions import ShownVersion
from vocprep.shards.record import Record
from vocprep.validation import printable

MOST_LISTED = 500
"""Pictures of one answer."""
_MOST_CLASSES = 4
"""Classes of a picture in a list."""
_LARGEST_ID = 65535
_STATUSES = ("record", "quarantined")
_FIELDS = (
    *("v", "split", "class", "text", "status"),
    *("sort", "order", "offset", "limit"),
)


def list_pictures(session: Session, query: Query) -> dict[str, Any]:
    """Return one page of the pictures that a query chooses, in its order."""
    query.only(_FIELDS)
    version = session.version(query)
    offset = query.whole("offset", 0, most=len(version.catalogue))
    limit = query.whole("limit", 100, most=MOST_LISTED)
    places = _ordered(session, version, query, _chosen(version, query))
    return {
        "total": len(places),
        "offset": offset,
        "pictures": [
            _row(session, version, place) for place in places[offset : offset + limit].tolist()
        ],
    }


def _chosen(version: ShownVersion, query: Query) -> NDArray[np.intp]:
    """Return the places of the pictures that pass all filters, in id order."""
    catalogue = version.catalogue
    chosen = np.ones(len(catalogue), dtype=np.bool_)
    if query.maybe("split"):
        chosen &= catalogue.of_split(query.choice("split", catalogue.split_names))
    if query.maybe("status"):
        chosen &= catalogue.is_record == (query.choice("status", _STATUSES) == "record")
    if query.maybe("class"):
        class_id = query.whole("class", None, most=_LARGEST_ID)
        chosen &= version.columns.finished().pixels_of(class_id) > 0
    places = np.flatnonzero(chosen)
    if text := query.maybe("text"):
        wanted, ids = text.casefold(), catalogue.lower_ids
        places = np.array([p for p in places.tolist() if wanted in ids[p]], dtype=np.intp)
    return places


def _ordered(
    session: Session, version: ShownVersion, query: Query, places: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return places sorted by what a query names; those without a value last, ties by id."""
    values = _values(session, version, query)
    if query.choice("order", ("asc", "desc"), "asc") == "desc":
        if values is None:
            return places[::-1]
        values = -values
    if values is None:
        return places
    return places[np.argsort(values[places], kind="stable")]  # NaN comes last


def _values(session: Session, version: ShownVersion, query: Query) -> NDArray[np.float64] | None:
    """Return what pictures [N] are sorted by, NaN where there is none; None for the id."""
    sort = query.maybe("sort") or "id"
    if sort == "size":
        if query.maybe("class"):
            class_id = query.whole("class", None, most=_LARGEST_ID)
            return version.columns.finished().pixels_of(class_id).astype(np.float64)
        return np.where(version.catalogue.is_record, version.catalogue.patches, np.nan)
    query.choice("sort", ("id", "size"), "id")
    return None


def _row(session: Session, version: ShownVersion, place: int) -> dict[str, Any]:
    """Return one picture of a list."""
    catalogue = version.catalogue
    row: dict[str, Any] = {"id": catalogue.ids[place], "split": catalogue.split(place)}
    bad = catalogue.quarantined.get(place)
    is_shown = bad is None
    areas = version.areas.of(place) if is_shown else []
    void = version.space.void
    row |= {
        "status": "record" if is_shown else "quarantined",
        "grid": list(catalogue.grid(place)) if is_shown else None,
        "classes": [class_id for class_id, _ in areas if class_id != void][:_MOST_CLASSES],
        "scores": {},
        "losses": {},
        "quality": None,
        "changed": None,
    }
    if bad is not None:
        row |= {"reason": printable(bad.reason), "stage": bad.stage, "file": printable(bad.file)}
    return row


def describe_picture(session: Session, query: Query) -> dict[str, Any]:
    """Return what is known of one picture and of its patches."""
    query.only(("v", "id"))
    version = session.version(query)
    place = version.place(query.text("id"))
    record = version.record(place)
    ny, nx = record.grid
    return {
        "id": record.image_id,
        "split": record.split,
        "grid": [ny, nx],
        "width": nx * PATCH,
        "height": ny * PATCH,
        "image_sha256": record.image_sha256,
        "label_sha256": record.label_sha256,
        **_shares(record, version.space.void),
        "quality": None,
        "suspected": None,
        "changed": None,
        "runs": {},
        "patches": [_patch(record, number) for number in range(ny * nx)],
        "previous": None,
        "next": None,
    }


def _shares(record: Record, void: int) -> dict[str, Any]:
    """Return the classes of a label map, the largest first, and its void."""
    label_map = record.decode_label_map()
    counts = np.bincount(label_map.ravel())
    void_pixels = int(counts[void]) if void < len(counts) else 0
    ids = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] and i != void]
    return {
        "classes": [
            {
                "id": class_id,
                "pixels": int(counts[class_id]),
                "percent": _percent(int(counts[class_id]), label_map.size),
            }
            for class_id in ids
        ],
        "void_percent": _percent(void_pixels, label_map.size),
    }


def _patch(record: Record, patch: int) -> dict[str, Any]:
    """Return the slots of a patch and the length of its embedding."""
    embedding = record.embeddings[patch].astype(np.float64)
    return {
        "labels": slots_of(record, patch),
        "label_count": int(record.label_count[patch]),
        "norm": float(np.sqrt(embedding @ embedding)),
        "quality": None,
        "predicted": {},
    }


def slots_of(record: Record, patch: int) -> list[dict[str, Any]]:
    """Return the classes in the slots of a patch with their pixels."""
    labels, pixels = record.slot_labels[patch].tolist(), record.slot_pixels[patch].tolist()
    return [
        {"id": label, "pixels": count, "percent": _percent(count, PIXELS)}
        for label, count in zip(labels, pixels, strict=True)
        if label != NO_LABEL
    ]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2)
