"""``--to npy``, read back by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from builders.versions import Built

import vocprep
from vocprep.shards.record import PATCH_FIELDS


def test_memory_maps_hold_each_record_as_it_is_stored(native_hdf5: Built, tmp_path: Path) -> None:
    vocprep.export(native_hdf5.path, "npy", tmp_path / "out")
    by_split: dict[str, list[str]] = {}
    for record in native_hdf5.records.values():
        by_split.setdefault(record.split, []).append(record.image_id)
    for split, ids in by_split.items():
        folder = tmp_path / "out" / split
        found = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        assert (folder / "ids.txt").read_text().splitlines() == ids
        first = found["first_patch"]
        assert first[-1] == len(found["embeddings"])
        for number, record_id in enumerate(ids):
            record = native_hdf5.records[record_id]
            rows = slice(first[number], first[number + 1])
            for name in ("embeddings", *PATCH_FIELDS):
                np.testing.assert_array_equal(found[name][rows], getattr(record, name))
            ny, nx = found["grids"][number]
            pixels = found["label_maps"][1024 * rows.start : 1024 * rows.stop]
            np.testing.assert_array_equal(pixels.reshape(32 * ny, 32 * nx), record.label_map)


def test_label_space_is_beside_the_arrays(crop_hdf5: Built, tmp_path: Path) -> None:
    vocprep.export(crop_hdf5.path, "npy", tmp_path / "out")
    expected = (crop_hdf5.path / "labels.json").read_bytes()
    assert (tmp_path / "out" / "labels.json").read_bytes() == expected
