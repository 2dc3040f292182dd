"""COCO's panoptic label maps: PNG whose colours number segments, and a JSON of their categories.

A pixel's segment is red + 256·green + 65536·blue; 0 belongs to none. Layout: COCO, "Panoptic
Segmentation", annotation format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from vocprep.errors import DataDirError
from vocprep.formats.errors import UnreadError
from vocprep.labels.colours import packed_colours, read_colour_png, runs
from vocprep.storage.places import Place
from vocprep.storage.reading import read_source
from vocprep.validation import explain, printable

MAX_JSON_BYTES = 1 << 30
"""Of a file of annotations: that of COCO's 118,287 pictures has 360 MB."""
NO_SEGMENT = 0
"""Raw label id of pixels that belong to no segment."""
_MOST_SHOWN = 3


@dataclass(slots=True)
class _Segment:
    id: Annotated[int, Field(ge=1, lt=1 << 24, strict=True)]
    category_id: Annotated[int, Field(ge=1, lt=0xFFFF, strict=True)]


@dataclass(slots=True)
class _Annotation:
    file_name: Annotated[str, Field(min_length=1, max_length=1000)]
    segments_info: list[_Segment]


@dataclass(slots=True)
class _Annotations:
    annotations: list[_Annotation]


_FILE = TypeAdapter(_Annotations)


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one label map."""

    ids: NDArray[np.uint32]
    """[N] sorted."""
    categories: NDArray[np.uint16]
    """[N]"""

    @classmethod
    def of(cls, listed: Iterable[tuple[int, int]]) -> Self:
        """Make the segments of pairs of a segment's id and its category; ValueError for one twice.

        >>> Segments.of([(7, 1), (3, 2)]).categories.tolist()
        [2, 1]
        """
        pairs = sorted(listed)
        twice = next((a[0] for a, b in pairwise(pairs) if a[0] == b[0]), None)
        if twice is not None:
            raise ValueError(f"segment {twice} is listed twice")
        return cls(
            np.array([pair[0] for pair in pairs], np.uint32),
            np.array([pair[1] for pair in pairs], np.uint16),
        )

    def apply(self, data: bytes) -> NDArray[np.uint16]:
        """Return the categories [H, W] of a PNG of segments; UnreadError for one that is not here.

        Red counts single, green 256 and blue 65536.
        """
        pixels = read_colour_png(data)
        packed = packed_colours(pixels[..., ::-1])
        starts, lengths = runs(packed)
        found = packed[starts]
        ids = np.concatenate([[np.uint32(0)], self.ids])
        categories = np.concatenate([[np.uint16(NO_SEGMENT)], self.categories])
        places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        missing = np.unique(found[ids[places] != found])
        if len(missing):
            shown = ", ".join(map(str, missing[:_MOST_SHOWN].tolist()))
            more = f" and {len(missing) - _MOST_SHOWN:,} more" if len(missing) > _MOST_SHOWN else ""
            raise UnreadError(
                f"segments {shown}{more} are not in its annotations; check that "
                "label_annotations belongs to these label maps"
            )
        return np.repeat(categories[places], lengths).reshape(pixels.shape[:2])


@dataclass(frozen=True, eq=False)
class PanopticTables:
    """The segments of many label maps, by the ends of their paths."""

    by_path: Mapping[str, Segments]
    """By the path of the label file below the data dir."""

    @classmethod
    def read(cls, files: Sequence[tuple[str, Place]]) -> Self:
        """Read files of annotations, each with the folder of its label maps below the data dir.

        Raises DataDirError for a file that is none.
        """
        found: dict[str, Segments] = {}
        read: dict[Place, dict[str, Segments]] = {}
        for folder, path in files:
            for name, segments in (read.get(path) or read.setdefault(path, _read(path))).items():
                found[f"{folder}/{name}".removeprefix("./")] = segments
        return cls(found)

    @property
    def sha256(self) -> str:
        """Digest of all segments and their categories."""
        digest = hashlib.sha256()
        for path in sorted(self.by_path):
            segments = self.by_path[path]
            digest.update(f"{path}\n{len(segments.ids)}\n".encode())
            digest.update(segments.ids.astype("<u4").tobytes())
            digest.update(segments.categories.astype("<u2").tobytes())
        return digest.hexdigest()

    def of(self, path: Place) -> Segments | None:
        """Return the segments of a label file; None where no annotation is of it."""
        key = self._key(path)
        return None if key is None else self.by_path[key]

    def only(self, paths: Iterable[Place]) -> PanopticTables:
        """Return the tables of some label files alone."""
        keys = {key for path in paths if (key := self._key(path)) is not None}
        return PanopticTables({key: self.by_path[key] for key in sorted(keys)})

    def _key(self, path: Place) -> str | None:
        parts = str(path).split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self.by_path), None)


def _read(path: Place) -> dict[str, Segments]:
    """Return the segments of each label map that a file of annotations lists."""
    found: dict[str, Segments] = {}
    name = ""
    try:
        for annotation in _FILE.validate_json(read_source(path, MAX_JSON_BYTES)).annotations:
            name = annotation.file_name
            if name in found:
                raise ValueError("is listed twice")
            pairs = ((each.id, each.category_id) for each in annotation.segments_info)
            found[name] = Segments.of(pairs)
    except OSError as error:
        raise DataDirError(
            f"{path}: annotations cannot be read: {explain(error)}; check label_annotations in the "
            "manifest"
        ) from error
    except (ValidationError, ValueError) as error:
        where = "" if isinstance(error, ValidationError) else f" of {printable(name, 100)!r}"
        raise DataDirError(
            f"{path}: expected COCO's panoptic annotations, found{where}: {explain(error)}; "
            "replace it by a sound copy, or check label_annotations in the manifest"
        ) from error
    return found
