"""``--to npy``: a folder of .npy files per split, for ``numpy.load(..., mmap_mode="r")``.

The patches of all records lie one after another, in the order of ``ids.txt``: record n has the
patches ``first_patch[n]`` to ``first_patch[n + 1]``, and its label map the 1,024 pixels of each of
them, as rows of the whole map.

Shape legend: N records, P patches of all of them together, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from vocprep.exporting.version_source import VersionSource
from vocprep.files.writing import write_json
from vocprep.geometry import PATCH
from vocprep.shards.record import PATCH_FIELDS, Record

_PIXELS = PATCH * PATCH


def write_arrays(source: VersionSource, folder: Path) -> None:
    """Write the records of each split to ``folder/SPLIT/*.npy``, and labels.json beside them.

    ``embeddings`` [P, D], ``slot_labels`` [P, 4], ``slot_pixels`` [P, 4], ``label_count`` [P],
    ``slot_planes`` [P, 3, 128] and ``label_maps`` [1024·P] as stored; ``grids`` int64 [N, 2] and
    ``first_patch`` int64 [N + 1]; ``ids.txt``, a record id per line.
    """
    for split in source.splits:
        (folder / split).mkdir()
        _write_split(source, split, folder / split)
    write_json(folder / "labels.json", source.label_space.to_json())


def _write_split(source: VersionSource, split: str, folder: Path) -> None:
    samples = [(sample.id, sample.grid) for sample in source.samples(split)]
    grids = np.array([grid for _, grid in samples], dtype=np.int64)
    first_patch = np.concatenate([[0], np.cumsum(grids.prod(axis=1))])
    np.save(folder / "grids.npy", grids)
    np.save(folder / "first_patch.npy", first_patch)
    names = "".join(f"{record_id}\n" for record_id, _ in samples)
    (folder / "ids.txt").write_text(names, encoding="utf-8")
    patches = int(first_patch[-1])
    with ExitStack() as opened:
        streams: dict[str, BinaryIO] = {}
        for record in source.records(split):
            for name, array in _columns(record).items():
                if name not in streams:
                    streams[name] = opened.enter_context((folder / f"{name}.npy").open("wb"))
                    _begin(streams[name], array, patches * len(array) // len(record.embeddings))
                streams[name].write(np.ascontiguousarray(array).data)


def _columns(record: Record) -> Mapping[str, NDArray[Any]]:
    """Return what is stored of a record, as rows: those of the label map are its pixels."""
    fields = {name: getattr(record, name) for name in ("embeddings", *PATCH_FIELDS)}
    return {**fields, "label_maps": record.decode_label_map().reshape(-1)}


def _begin(stream: BinaryIO, first: NDArray[Any], rows: int) -> None:
    """Write the header of an array of ``rows`` rows like those of ``first``."""
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, *first.shape[1:]),
    }
    write_array_header_1_0(stream, header)
