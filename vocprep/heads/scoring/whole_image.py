"""Whole images: the pixels that a geometry leaves out, counted in the source's label files.

The label maps in shards end with the patches. What ``native`` or the centre crop leave out is known
from the data dir only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.data_dir.splits import SplitFolders
from vocprep.errors import DataError, UsageError
from vocprep.files.ids import is_plain
from vocprep.files.writing import sha256_hex
from vocprep.geometry import Geometry
from vocprep.labels.decode import LabelRule, label_rule, read_label_file
from vocprep.labels.label_space import LabelSpace
from vocprep.manifests import DatasetManifest
from vocprep.placement import whole_labels
from vocprep.shards.reader import ShardDataset
from vocprep.shards.samples import SampleEntry


def whole_image_pixels(
    dataset: ShardDataset, split: str, manifest: DatasetManifest, data_dir: Path
) -> NDArray[np.int64]:
    """Return the pixels [C] of each class over a split's whole images, void left out.

    A whole image is its label map at the scale of the geometry, before anything is cut: the source
    pixels for ``native``; for ``crop`` the image with its shorter side at 256, of which the shards
    cover 224×224. So a pixel has the same weight here as in the covered area. Raises
    LabelDecodeError or DataError when a label file is not the one that the shards were built from,
    UsageError when there is no folder of them.
    """
    folders = SplitFolders.of(data_dir, manifest, split)
    folder = Path(str(folders.labels))
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: expected the label maps that the shards were built from, found no such "
            "folder; give the data dir of the build, and --dataset if it is not the shards' own"
        )
    space, geometry = dataset.label_space, dataset.index.recipe.geometry
    rule = label_rule(manifest, data_dir, [split])
    pixels = np.zeros(space.outputs, dtype=np.int64)
    for sample in dataset.version.stream_samples():
        if sample.split == split and is_plain(sample.id):
            path = Path(str(folders.label_path(sample.id)))
            pixels += _class_pixels(rule, path, sample, space, geometry)
    return pixels


def _class_pixels(
    rule: LabelRule, path: Path, sample: SampleEntry, space: LabelSpace, geometry: Geometry
) -> NDArray[np.int64]:
    """Return the pixels [C] of each class in one whole image."""
    data = read_label_file(path)
    found = sha256_hex(data)
    if found != sample.label_sha256:
        raise DataError(
            f"{path}: expected the label map that the shards were built from, of sha256 "
            f"{sample.label_sha256[:12]}…, found {found[:12]}…; give the data dir of the build"
        )
    label_map = whole_labels(space.apply(rule.decode(data, path), str(path)), geometry)
    return np.bincount(label_map[label_map != space.void], minlength=space.outputs)
