"""The record: everything kept of one image, and its digests.

Shape legend: P patches, D embedding (256 for ResNet-32), K = 4 slots, h×w = 32·ny × 32·nx pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import LabelDecodeError, ShardError
from vocprep.geometry import PATCH, Grid
from vocprep.labels.png import decode_png
from vocprep.labels.statistics import label_areas


def record_id(image_id: str, view: str) -> str:
    """Return the id of an image's record in a view, one of ``Recipe.record_views``."""
    return image_id if view == "identity" else f"{image_id}#{view}"


def record_ids_of(image_ids: Iterable[str], views: Sequence[str]) -> Iterator[str]:
    """Yield the ids of the records of images, in the order that they have in a shard.

    >>> list(record_ids_of(["a", "b"], ("identity", "flip", "crop1")))
    ['a', 'a#flip', 'a#crop1', 'b', 'b#flip', 'b#crop1']
    """
    for image_id in image_ids:
        for view in views:
            yield record_id(image_id, view)


@dataclass(frozen=True)
class RecordPng:
    """The label map of a record as it is stored."""

    image_id: str
    grid: Grid
    data: bytes

    def decode(self) -> NDArray[np.uint16]:
        """Return the label map [h, w]; ShardError when the PNG is damaged."""
        where = f"label map of record {self.image_id}"
        try:
            label_map = decode_png(self.data, where, is_record=True)
        except LabelDecodeError as error:
            reason = str(error).partition("; ")[0]  # its advice is for files of a data dir
            raise ShardError(f"{reason}; the shard is damaged, build it again") from error
        expected = (self.grid[0] * PATCH, self.grid[1] * PATCH)
        if label_map.shape != expected:
            raise ShardError(f"{where}: {label_map.shape} pixels: expected {expected}")
        return label_map


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Record:
    """Everything kept of one image in one view."""

    image_id: str
    """The record id: the image id, followed by ``#flip`` or, of a crop, such as ``#crop1``."""
    split: str
    grid: Grid
    """(ny, nx); P = ny·nx."""
    embeddings: NDArray[np.float16] | NDArray[np.float32]
    """[P, D], patches row-major."""
    slot_labels: NDArray[np.int16]
    """[P, 4]: class ids by descending area; −1 where the patch has fewer."""
    slot_pixels: NDArray[np.uint16]
    """[P, 4]: pixels of each slot."""
    label_count: NDArray[np.uint8]
    """[P]: classes of each patch, those outside the slots too; 255 for more."""
    slot_planes: NDArray[np.uint8]
    """[P, 3, 128]: the state of every pixel as three bit planes."""
    label_png: bytes
    """The label map as a 16-bit PNG."""
    image_sha256: str
    """Digest of the image file's bytes."""
    label_sha256: str
    """Digest of the label file's bytes."""

    def __repr__(self) -> str:
        (ny, nx), (_, size) = self.grid, self.embeddings.shape
        return (
            f"Record({self.image_id!r}, {self.split!r}, {ny}×{nx} patches, {size} numbers per "
            f"patch as {self.embeddings.dtype})"
        )

    @cached_property
    def label_map(self) -> NDArray[np.uint16]:
        """Label map [h, w] in the label space, after the geometry; kept once decoded."""
        return self.decode_label_map()

    def decode_label_map(self) -> NDArray[np.uint16]:
        """Return the label map [h, w] without keeping it; ShardError when the PNG is damaged."""
        return self.png.decode()

    @property
    def png(self) -> RecordPng:
        """The label map as it is stored."""
        return RecordPng(self.image_id, self.grid, self.label_png)

    @cached_property
    def label_pixels(self) -> dict[int, int]:
        """Pixels of each label id that occurs in the label map, void included."""
        return label_areas(self.label_map)

    def described(self, label_map: NDArray[np.uint16], label_pixels: dict[int, int]) -> Self:
        """Return this record with its digests computed, by what its label PNG was made of.

        So the PNG need not be decoded for them. The label map itself is not kept.
        """
        vars(self).update(label_map=label_map, label_pixels=label_pixels)
        vars(self).update({name: getattr(self, name) for name in _DIGESTS})
        del vars(self)["label_map"]
        return self

    @cached_property
    def targets_sha256(self) -> str:
        """Digest of what follows from the labels: targets and label map."""
        return _digest(self, TARGET_FIELDS)

    @cached_property
    def embeddings_sha256(self) -> str:
        """Digest of the embeddings."""
        return _digest(self, ("embeddings",))

    @cached_property
    def record_sha256(self) -> str:
        """Digest of the whole record: the same in every container."""
        return _digest(self, FIELDS)


_DIGESTS = ("targets_sha256", "embeddings_sha256", "record_sha256")

PATCH_FIELDS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "slot_labels": (np.int16, (4,)),
    "slot_pixels": (np.uint16, (4,)),
    "label_count": (np.uint8, ()),
    "slot_planes": (np.uint8, (3, 128)),
}
"""Fields with one row per patch, other than the embeddings: dtype and shape of a row."""
TEXT_FIELDS = ("image_id", "split", "image_sha256", "label_sha256")
TARGET_FIELDS = (*PATCH_FIELDS, "label_map")
FIELDS = (
    "image_id",
    "split",
    "grid",
    "embeddings",
    *TARGET_FIELDS,
    "image_sha256",
    "label_sha256",
)
"""The fields of a record in the order in which they are digested."""
EMBEDDING_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


def _digest(record: Record, names: tuple[str, ...]) -> str:
    """Sha256 over fields as name, NUL, dtype, NUL, comma-joined shape, NUL, little-endian bytes.

    Text is its UTF-8 bytes as uint8; the grid is int64. The label map counts as pixels, not as a
    PNG, so that the identity does not depend on a compression library.
    """
    digest = hashlib.sha256()
    for name in names:
        array = _as_array(getattr(record, name))
        digest.update(_array_header(name, array.dtype, array.shape))
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _array_header(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what is digested before an array's bytes."""
    return f"{name}\0{dtype.name}\0{','.join(map(str, shape))}\0".encode()


def _as_array(value: str | Grid | NDArray[np.generic]) -> NDArray[np.generic]:
    if isinstance(value, str):
        return np.frombuffer(value.encode(), dtype=np.uint8)
    if isinstance(value, tuple):
        return np.array(value, dtype=np.int64)
    return value


def check_record(record: Record, where: str) -> Record:
    """Return the record; ShardError when a shape or dtype is not that of docs/format.md."""
    for name in TEXT_FIELDS:
        if not isinstance(getattr(record, name), str):
            raise ShardError(f"{where}: record {record.image_id}: {name} is not text")
    ny, nx = record.grid
    if not (isinstance(ny, int) and isinstance(nx, int) and ny >= 1 and nx >= 1):
        raise ShardError(
            f"{where}: record {record.image_id}: grid {record.grid}: expected two whole numbers "
            "above 0"
        )
    patches = ny * nx
    if record.embeddings.dtype not in EMBEDDING_DTYPES or record.embeddings.ndim != 2:
        raise ShardError(
            f"{where}: record {record.image_id}: embeddings {record.embeddings.dtype} "
            f"{record.embeddings.shape}: expected float16 or float32 [P, D]"
        )
    expected = {
        "embeddings": (record.embeddings.dtype, (patches, record.embeddings.shape[1])),
        **{name: (dtype, (patches, *row)) for name, (dtype, row) in PATCH_FIELDS.items()},
    }
    for name, (dtype, shape) in expected.items():
        array = getattr(record, name)
        if array.dtype != dtype or array.shape != shape:
            raise ShardError(
                f"{where}: record {record.image_id}: {name} is {array.dtype} {array.shape}: "
                f"expected {np.dtype(dtype)} {shape}"
            )
    return record
