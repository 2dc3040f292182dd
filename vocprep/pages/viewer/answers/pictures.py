"""Lists of pictures, filtered and sorted.

Shape legend: N pictures of a version's catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.labels.targets import NO_LABEL, PIXELS
from vocprep.pages.viewer.queries import Query
from vocprep.pages.viewer.shown.session import CHANGES, Session
from vocprep.pages.viewer.shown.versions import ShownVersion
from vocprep.validation import printable

MOST_LISTED = 500
"""Pictures of one answer."""
_MOST_CLASSES = 4
"""Classes of a picture in a list."""
_LARGEST_ID = 65535
_STATUSES = ("record", "quarantined")
_SORTS = "id, size, score:R, loss:R, quality, difference:R:S, changed:V"
_FIELDS = (
    *("v", "split", "class", "text", "status"),
    *("sort", "order", "offset", "limit", "find"),
)
Values = NDArray[np.float64]


def list_pictures(session: Session, query: Query) -> dict[str, Any]:
    """Return a part of the pictures that a query chooses, in its order."""
    query.only(_FIELDS)
    version = session.version(query)
    offset = query.whole("offset", 0, most=1 << 40)
    limit = query.whole("limit", 100, most=MOST_LISTED)
    places = _ordered(session, version, query, _chosen(version, query))
    rows = _Rows(session, version)
    answer = {
        "total": len(places),
        "offset": offset,
        "pictures": [rows.row(place) for place in places[offset : offset + limit].tolist()],
    }
    if wanted := query.maybe("find"):
        at = np.flatnonzero(places == version.catalogue.places.get(wanted, -1))
        answer["position"] = int(at[0]) if len(at) else None
    return answer


def _chosen(version: ShownVersion, query: Query) -> NDArray[np.intp]:
    """Return the places of the pictures that pass all filters, in id order."""
    catalogue = version.catalogue
    chosen = np.ones(len(catalogue), dtype=np.bool_)
    if query.maybe("split"):
        chosen &= catalogue.of_split(query.choice("split", catalogue.split_names))
    if query.maybe("status"):
        chosen &= catalogue.is_record == (query.choice("status", _STATUSES) == "record")
    if query.maybe("class"):
        chosen &= _pixels_of_class(version, query) > 0
    places = np.flatnonzero(chosen)
    if text := query.maybe("text"):
        wanted, ids = text.casefold(), catalogue.lower_ids
        places = np.array([p for p in places.tolist() if wanted in ids[p]], dtype=np.intp)
    return places


def _pixels_of_class(version: ShownVersion, query: Query) -> NDArray[np.int64]:
    class_id = query.whole("class", None, most=_LARGEST_ID)
    return version.columns.ask().pixels_of(class_id)


def _ordered(
    session: Session, version: ShownVersion, query: Query, places: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return places sorted by what a query names; those without a value last, ties by id."""
    values = _values(session, version, query)
    is_falling = query.choice("order", ("asc", "desc"), "asc") == "desc"
    if values is None:
        return places[::-1] if is_falling else places
    values = -values if is_falling else values
    return places[np.argsort(values[places], kind="stable")]  # NaN comes last


def _values(session: Session, version: ShownVersion, query: Query) -> Values | None:
    """Return what pictures [N] are sorted by, NaN where there is none; None for the id."""
    sort = query.maybe("sort") or "id"
    values: Values | None = None
    match sort.split(":"):
        case ["id"]:
            return None
        case ["size"]:
            values = _sizes(version, query)
        case ["score", run]:
            values = _scores(session, version, run)
        case ["loss", run]:
            shown = session.run_of(run)
            values = shown.joined(version, shown.losses).astype(np.float64)
        case ["difference", one, other]:
            values = np.abs(_scores(session, version, one) - _scores(session, version, other))
        case ["quality"]:
            values = None if version.audited is None else version.audited.qualities
        case ["changed", key] if key in session.versions and key != version.key:
            values = _least_changed_last(session.changes(version))
    if values is None:
        raise UsageError(f"sort {printable(sort, 60)!r}: expected one of {_SORTS} of what is shown")
    return values


def _sizes(version: ShownVersion, query: Query) -> Values:
    """Return the pixels of the class that is chosen, else the patches of each picture [N]."""
    if query.maybe("class"):
        return _pixels_of_class(version, query).astype(np.float64)
    return np.where(version.catalogue.is_record, version.catalogue.patches, np.nan)


def _least_changed_last(changes: NDArray[np.int8] | None) -> Values | None:
    return None if changes is None else np.where(changes < 0, np.nan, -changes.astype(np.float64))


def _scores(session: Session, version: ShownVersion, run: str) -> Values:
    shown = session.run_of(run)
    return shown.joined(version, shown.accuracies).astype(np.float64)


class _Rows:
    """Makes the rows of one answer."""

    def __init__(self, session: Session, version: ShownVersion) -> None:
        self._version = version
        self._changes = session.changes(version)
        runs = session.runs.values()
        self._scores = {run.key: run.joined(version, run.accuracies) for run in runs}
        self._losses = {run.key: run.joined(version, run.losses) for run in runs}

    def row(self, place: int) -> dict[str, Any]:
        version, catalogue = self._version, self._version.catalogue
        bad = catalogue.quarantined.get(place)
        row = {"id": catalogue.ids[place], "split": catalogue.split(place)}
        if bad is not None:
            return {
                **row,
                **_EMPTY,
                "reason": printable(bad.reason),
                "stage": bad.stage,
                "file": printable(bad.file),
            }
        classes = [i for i, _ in version.areas.of(place) if i != version.space.void]
        return {
            **row,
            "status": "record",
            "grid": list(catalogue.grid(place)),
            "classes": classes[:_MOST_CLASSES],
            "scores": {key: number(values[place]) for key, values in self._scores.items()},
            "losses": {key: number(values[place]) for key, values in self._losses.items()},
            "quality": quality_of(version, place),
            "changed": change_word(self._changes, place),
        }


_EMPTY: dict[str, Any] = {
    "status": "quarantined",
    "grid": None,
    "classes": [],
    "scores": {},
    "losses": {},
    "quality": None,
    "changed": None,
}


def quality_of(version: ShownVersion, place: int) -> float | None:
    """Return the label quality of a picture; None where no audit knows it."""
    return None if version.audited is None else number(version.audited.qualities[place])


def change_word(changes: NDArray[np.int8] | None, place: int) -> str | None:
    """Return how a picture differs in the other version; None where there is none."""
    return None if changes is None or changes[place] < 0 else CHANGES[int(changes[place])]


def number(value: float) -> float | None:
    """Return a number for JSON, None for what is none."""
    return round(float(value), 6) if math.isfinite(value) else None


def slots(labels: NDArray[np.int16], pixels: NDArray[np.uint16]) -> list[dict[str, Any]]:
    """Return the classes in the slots [4] of a patch with their pixels."""
    return [
        {"id": label, "pixels": count, "percent": percent(count, PIXELS)}
        for label, count in zip(labels.tolist(), pixels.tolist(), strict=True)
        if label != NO_LABEL
    ]


def class_shares(label_map: NDArray[np.uint16], void: int) -> tuple[list[dict[str, Any]], float]:
    """Return the classes of a label map, the largest first, and the percentage of void."""
    counts: Sequence[int] = np.bincount(label_map.ravel(), minlength=void + 1).tolist()
    ids = [class_id for class_id, count in enumerate(counts) if count and class_id != void]
    ids.sort(key=lambda class_id: (-counts[class_id], class_id))
    shares = [
        {"id": i, "pixels": counts[i], "percent": percent(counts[i], label_map.size)} for i in ids
    ]
    return shares, percent(counts[void], label_map.size)


def percent(part: int, whole: int) -> float:
    """Return a share in per cent, to four decimals."""
    return round(100 * part / whole, 4)
