"""What the formats of pictures share: label maps with their photographs, and their file names.

Shape legend: h, w = 32·ny, 32·nx pixels of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.photographs import Photographs
from vocprep.data_dir.place import default_data_dir
from vocprep.errors import UsageError
from vocprep.exporting.version_source import VersionSource
from vocprep.files.ids import file_stem
from vocprep.files.writing import canonical_json
from vocprep.options import usable_cores
from vocprep.parallel import map_ordered
from vocprep.shards.record import Record

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A record to be written as a picture."""

    record: Record
    label_map: NDArray[np.uint16]
    """[h, w] in the label space of the version."""
    photograph: NDArray[np.uint8] | None
    """[h, w, 3], under the label map pixel by pixel; None where none is exported."""

    @property
    def file_name(self) -> str:
        """Name of its files within the folder of a split."""
        return f"{file_stem(self.record.image_id)}.png"


class Pictures:
    """The records of a version as pictures, prepared and written by threads.

    Raises UsageError where photographs are to be exported and there is no folder of them.
    """

    def __init__(self, source: VersionSource) -> None:
        self._source = source
        self._photographs = None if source.options.photographs == "none" else _find(source)

    def map(self, split: str, function: Callable[[Picture], Result]) -> Iterator[Result]:
        """Yield what a function returns of each picture of a split, in the order of ids.

        Raises ImageDecodeError or DataError where a photograph is not the one that the record was
        made of.
        """
        records = self._source.records(split)
        return map_ordered(lambda record: function(self._picture(record)), records, usable_cores())

    def _picture(self, record: Record) -> Picture:
        found = self._photographs
        pixels = None if found is None else found.read(record.image_id, record.image_sha256)
        return Picture(record=record, label_map=record.decode_label_map(), photograph=pixels)


def _find(source: VersionSource) -> Photographs:
    options = source.options
    data_dir = options.data_dir or default_data_dir()
    try:
        return Photographs.of(source.dataset, data_dir, options.dataset)
    except UsageError as error:
        raise UsageError(f"{error}, or --photographs none") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file, and make the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_json_lists(
    path: Path, values: Mapping[str, Any], lists: Mapping[str, Iterable[bytes]]
) -> None:
    """Write a JSON object of values and of long lists, whose entries are JSON already.

    Each entry has a line of its own, and none is kept.
    """
    with path.open("wb") as stream:
        stream.write(b"{")
        for name, value in values.items():
            stream.write(canonical_json(name) + b":" + canonical_json(value) + b",\n")
        for place, (name, entries) in enumerate(lists.items()):
            stream.write((b"],\n" if place else b"") + canonical_json(name) + b":[")
            for number, entry in enumerate(entries):
                stream.write((b",\n" if number else b"\n") + entry)
        stream.write(b"]}\n")
