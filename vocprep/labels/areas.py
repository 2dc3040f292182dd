"""Tables of the label areas that a dataset's authors logged, to compare decoded label maps with.

A table is an ``.npz`` in ``manifests/label_areas``; its README has the origin of each.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vocprep.errors import ManifestError
from vocprep.files import write_atomic
from vocprep.manifests import manifests_dir

Areas = Mapping[int, int]
"""Pixels by raw label id; labels that do not occur are absent."""


def load_label_areas(name: str) -> dict[str, dict[int, int]]:
    """Return the areas of every logged image, by image id; ManifestError when unreadable."""
    path = manifests_dir() / "label_areas" / f"{name}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as table:
            image_ids = [str(item, "ascii") for item in table["image_ids"]]
            counts, labels, pixels = table["counts"], table["labels"], table["pixels"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{path}: cannot be read as a table of label areas: {error}") from error
    ends = np.cumsum(counts, dtype=np.int64)
    if not len(labels) == len(pixels) == counts.sum() or len(image_ids) != len(counts):
        raise ManifestError(f"{path}: its columns have different lengths; install vocprep again")
    pairs = list(zip(labels.tolist(), pixels.tolist(), strict=True))
    return {
        image_id: dict(pairs[end - count : end])
        for image_id, count, end in zip(image_ids, counts.tolist(), ends.tolist(), strict=True)
    }


def save_label_areas(path: Path, areas: Mapping[str, Areas]) -> None:
    """Write a table; equal areas give equal bytes."""
    image_ids = sorted(areas)
    rows = [(label, areas[key][label]) for key in image_ids for label in sorted(areas[key])]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        image_ids=np.array(image_ids, dtype=np.bytes_),
        counts=np.array([len(areas[key]) for key in image_ids], dtype="<u2"),
        labels=np.array([label for label, _ in rows], dtype="<u2"),
        pixels=np.array([pixels for _, pixels in rows], dtype="<u4"),
    )
    write_atomic(path, stream.getvalue())
