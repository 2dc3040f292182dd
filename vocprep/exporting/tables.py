"""Records as rows of Arrow tables: a row per picture in one view, or a row per patch.

Shape legend: P patches of a record, or of all records of a table together; D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vocprep.exporting.options import Rows
from vocprep.files.ids import image_id_of, view_suffix
from vocprep.geometry import PATCH
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.statistics import label_areas
from vocprep.shards.record import Record

Columns = dict[str, pa.Array]
MakeColumns = Callable[[Sequence[Record], LabelSpace], Columns]
SEARCHED = frozenset(
    {"record_id", "image_id", "view", "split", "ny", "nx", "patch", "label", "class_name"}
)
"""Columns whose least and greatest value per row group are worth storing."""


def picture_columns(records: Sequence[Record], space: LabelSpace) -> Columns:
    """Return a row per record, with lists over its patches."""
    ends = np.cumsum([0, *(len(record.embeddings) for record in records)], dtype=np.int32)
    areas = [_areas(record, space.void) for record in records]
    class_ends = np.cumsum([0, *(len(pixels) for pixels, _ in areas)], dtype=np.int32)
    labels = [label for pixels, _ in areas for label in pixels]

    def per_patch(name: str) -> pa.Array:
        return pa.ListArray.from_arrays(ends, _rows(_joined(records, name)))

    def per_class(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(class_ends, pa.array(values, kind))

    return {
        **_names(records),
        "ny": pa.array([record.grid[0] for record in records], pa.int32()),
        "nx": pa.array([record.grid[1] for record in records], pa.int32()),
        "embeddings": per_patch("embeddings"),
        "slot_labels": per_patch("slot_labels"),
        "slot_pixels": per_patch("slot_pixels"),
        "label_count": per_patch("label_count"),
        "slot_planes": pa.array([record.slot_planes.tobytes() for record in records], pa.binary()),
        "labels": per_class(labels, pa.int32()),
        "label_pixels": per_class([n for pixels, _ in areas for n in pixels.values()], pa.int64()),
        "class_names": per_class([space.class_name(label) for label in labels], pa.string()),
        "void_pixels": pa.array([void for _, void in areas], pa.int64()),
        "label_map": pa.array([record.label_png for record in records], pa.binary()),
        "image_sha256": pa.array([record.image_sha256 for record in records]),
        "label_sha256": pa.array([record.label_sha256 for record in records]),
    }


def patch_columns(records: Sequence[Record], space: LabelSpace) -> Columns:
    """Return a row per patch; ``label_map`` is its 1,024 pixels, little-endian uint16."""
    counts = [len(record.embeddings) for record in records]
    of_record = np.repeat(np.arange(len(records)), counts)
    patches = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    widths = np.array([record.grid[1] for record in records], dtype=np.int32)[of_record]
    slot_labels = _joined(records, "slot_labels")
    first, is_void = slot_labels[:, 0], slot_labels[:, 0] < 0
    return {
        **{name: column.take(pa.array(of_record)) for name, column in _names(records).items()},
        "patch": pa.array(patches),
        "patch_row": pa.array(patches // widths),
        "patch_column": pa.array(patches % widths),
        "embedding": _rows(_joined(records, "embeddings")),
        "slot_labels": _rows(slot_labels),
        "slot_pixels": _rows(_joined(records, "slot_pixels")),
        "label_count": _rows(_joined(records, "label_count")),
        "slot_planes": _as_bytes(_joined(records, "slot_planes")),
        "label": pa.array(first.astype(np.int32), mask=is_void),
        "class_name": _class_names(first, is_void, space),
        "label_map": _as_bytes(np.concatenate([_tiles(record) for record in records])),
    }


COLUMNS: Mapping[Rows, MakeColumns] = {"pictures": picture_columns, "patches": patch_columns}
"""What makes the columns of a table, by what its rows are."""


def _names(records: Sequence[Record]) -> Columns:
    ids = [record.image_id for record in records]
    return {
        "record_id": pa.array(ids),
        "image_id": pa.array([image_id_of(each) for each in ids]),
        "view": pa.array([view_suffix(each).removeprefix("#") or "identity" for each in ids]),
        "split": pa.array([record.split for record in records]),
    }


def _joined(records: Sequence[Record], name: str) -> NDArray[Any]:
    """Return a field of the patches of all records [P, …]."""
    return np.concatenate([getattr(record, name) for record in records])


def _rows(array: NDArray[Any]) -> pa.Array:
    """Return an array [P] as it is, one [P, n] as lists of n numbers."""
    flat = pa.array(array.reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _as_bytes(array: NDArray[Any]) -> pa.Array:
    """Return the bytes of each row of an array [P, …]."""
    ends = np.arange(len(array) + 1, dtype=np.int32) * (array[:1].nbytes)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(array))]
    return pa.Array.from_buffers(pa.binary(), len(array), buffers)


def _tiles(record: Record) -> NDArray[np.uint16]:
    """Return the pixels of each patch of the label map [P, 32, 32], little-endian."""
    ny, nx = record.grid
    pixels = record.decode_label_map().astype("<u2", copy=False)
    tiles: NDArray[np.uint16] = pixels.reshape(ny, PATCH, nx, PATCH).swapaxes(1, 2)
    return tiles.reshape(ny * nx, PATCH, PATCH)


def _areas(record: Record, void: int) -> tuple[dict[int, int], int]:
    """Return the pixels of each class of the label map, by falling area, and those of void."""
    pixels = label_areas(record.decode_label_map())
    outside = pixels.pop(void, 0)
    return dict(sorted(pixels.items(), key=lambda item: (-item[1], item[0]))), outside


def _class_names(
    labels: NDArray[np.int16], is_void: NDArray[np.bool_], space: LabelSpace
) -> pa.Array:
    """Return the name of each class id, null where the patch has no class."""
    known, places = np.unique(labels, return_inverse=True)
    names = pa.array([space.class_name(int(label)) for label in known])
    return names.take(pa.array(places, mask=is_void))
